"""Tables and sentences that take the place of marks in the book's pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd

from widemin import paths
from widemin.book import coverage, notebooks, paper_vs_code, verdicts
from widemin.book.verdicts import executed, markdown
from widemin.experiments import columns, results
from widemin.experiments.recipe import Recipe
from widemin.names import written


def differences(edition: str) -> str:
    """Return the ledger in markdown, measured on the rows of the edition's pages."""
    heads = ["", "the paper", "the released code", "here", "the other side does"]
    rows = []
    for entry in paper_vs_code.entries():
        [chapter] = notebooks.find(entry.chapter)
        page = executed(edition, chapter)
        cells = json.loads(page.read_text())["cells"] if page.exists() else []
        values = notebooks.drawn(chapter, cells)
        where = f"{{ref}}`{int(entry.chapter)} <{entry.section}>`"
        folder = paths.results(values["results_dir"])
        done = paper_vs_code.effect(entry, notebooks.recipes(chapter, values), folder)
        rows.append([where, entry.text, entry.code, entry.here, done])
    return markdown(heads, rows)


def covered(edition: str) -> str:
    """Return in markdown how much of the papers' tables stands, by published rows.

    In the edition computed here, also by the rows computed here.
    """
    covers = coverage.of_all(paths.PUBLISHED if edition == "site" else paths.results())
    rows = coverage.rows(covers)
    for row in rows:
        del row["not planned"]
        row["runs"] = row["runs"].replace(" ", "\u00a0")
    table = markdown(list(rows[0]), [list(row.values()) for row in rows])
    return f"**{coverage.share(covers)}.**\n\n{table}"


def _measured(
    name: str, command: str, cells: Callable[[dict[str, Any]], dict[str, str]]
) -> str:
    """Return a published table of speeds in markdown, a part for each machine and day.

    Args:
        name: Of the file.
        command: That writes it.
        cells: From a row to what is shown of it, by heading.
    """
    path = paths.PUBLISHED / name
    if not path.exists():
        return f"Not measured yet: `{command}` writes the table."
    table = pd.read_csv(path, keep_default_na=False)
    table["device"] = table.get("device", "")
    parts = []
    by = ["device", "hardware", "torch", "date"]
    for (device, machine, torch, date), part in table.groupby(by):
        shown = [cells(row) for row in part.to_dict("records")]
        rows = markdown(list(shown[0]), [list(row.values()) for row in shown])
        where = "One core of" if device == "cpu" else "On"
        parts.append(f"{where} {machine}, torch {torch}, {date}:\n\n{rows}")
    return "\n\n".join(parts)


def _benchmark(row: dict[str, Any]) -> dict[str, str]:
    return {
        "work": f"{row['work']}; {row['note']}" if row["note"] else row["work"],
        "against": row["peer"],
        "times faster": f"{row['ratio']} ({row['ratio_q25']} to {row['ratio_q75']})",
        "goal": str(row["goal"]),
    }


def _rate(row: dict[str, Any]) -> dict[str, str]:
    return {
        "training": f"{row['run']} ({written(row['dataset'])})",
        "batch size": str(row["batch_size"]),
        "images a second": f"{row['images_a_second']:,.0f}",
        "an epoch": f"{row['seconds_an_epoch']:,.0f}\u00a0s",
        "share of peak": f"{100 * row['share_of_peak']:.0f}\u00a0%",
    }


# What tells cells apart among runs made again on another processor.
_CELL = "dataset model optimizer train_size epochs batch_size learning_rate momentum"
_COMPARED = {
    "natural": "natural_accuracy",
    "FGSM, logits": "fgsm_accuracy",
    "FGSM, clipped": "fgsm_clipped_accuracy",
    "margin PGD": "pgd_margin_accuracy",
}


def again() -> str:
    """Return in markdown the runs made again on another processor, beside the first.

    Under a pair, where the cell has several seeds, their standard deviation.
    """
    path = paths.PUBLISHED / "again.csv"
    if not path.exists():
        return "None yet."
    published = results.published()
    first = pd.DataFrame([rows[-1] for rows in published.values()])
    rows = []
    for second in pd.read_csv(path, dtype={"run": str}).to_dict("records"):
        if second["run"] not in published:
            raise ValueError(f"again.csv must name published runs; got {second['run']}")
        one = published[second["run"]][-1]
        alike = first
        for name in [*_CELL.split(), "schedule"]:
            default = getattr(Recipe(), name)
            alike = alike[alike[name].fillna(default) == one.get(name, default)]
        title = f"B = {one['batch_size']:g}, rate {one['learning_rate']:g}"
        title += f", seed {one.get('seed', 0):g}"
        for row, named in ((one, title), (second, "")):
            cells = [f"{100 * row[name]:.1f} %" for name in _COMPARED.values()]
            rows.append([named, str(row["hardware"]), *cells])
        if len(alike) > 1:
            spreads = alike[list(_COMPARED.values())].std(ddof=1)
            said = [f"{100 * spread:.1f} points" for spread in spreads]
            rows.append(["", f"standard deviation over {len(alike)} seeds", *said])
    return markdown(["run", "on", *_COMPARED], rows)


# What takes the place of `<!-- name -->` in a page, by name; each gets the edition.
MARKS: dict[str, Callable[[str], str]] = {
    "counts": verdicts.in_words,
    "verdicts": verdicts.as_page,
    "ledger": differences,
    "coverage": covered,
    "columns": lambda _: columns.page(),
    "again": lambda _: again(),
    "benchmarks": lambda _: _measured("benchmarks.csv", "make bench", _benchmark),
    "rates": lambda _: _measured(
        "rates.csv", "python -m tests.benchmarks.rates", _rate
    ),
}
