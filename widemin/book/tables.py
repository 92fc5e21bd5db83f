"""Tables that are put into the book's pages: the ledger, coverage, measured speeds."""

from __future__ import annotations

import json

import pandas as pd

from widemin import paths
from widemin.book import coverage, notebooks, paper_vs_code
from widemin.book.verdicts import executed, markdown
from widemin.experiments import results
from widemin.experiments.recipes import Recipe
from widemin.names import written


def differences(edition: str) -> str:
    """Return the ledger in markdown, measured on the rows of the edition's pages."""
    heads = ["", "the paper", "the released code", "here", "the other side does"]
    rows = []
    for entry in paper_vs_code.ENTRIES:
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
    folder = paths.PUBLISHED if edition == "site" else paths.results()
    covers = coverage.of_all(folder)
    heads = ["table", "cells", "at paper scale", "collapsed", "planned", "runs"]
    heads += ["core hours left", "GPU hours left"]
    rows = [
        [
            name,
            str(c.cells),
            str(c.there),
            str(c.collapsed),
            str(c.planned),
            f"{c.runs}\u00a0of\u00a0{c.runs_planned}",
            "?" if c.core_hours is None else f"{c.core_hours:,.0f}",
            f"{c.gpu_hours:.1f}",
        ]
        for name, c in covers.items()
    ]
    return f"**{coverage.share(covers)}.**\n\n{markdown(heads, rows)}"


def benchmarks() -> str:
    """Return the measured speeds in markdown: ratio, quartiles and goal of each row."""
    path = paths.PUBLISHED / "benchmarks.csv"
    if not path.exists():
        return "Not measured yet: `make bench` writes the table."
    rows = pd.read_csv(path, keep_default_na=False)
    heads, tables = ["work", "against", "times faster", "goal"], []
    for (machine, torch, date), part in rows.groupby(["hardware", "torch", "date"]):
        cells = []
        for row in part.to_dict("records"):
            work = f"{row['work']}; {row['note']}" if row["note"] else row["work"]
            spread = f"{row['ratio']} ({row['ratio_q25']} to {row['ratio_q75']})"
            cells.append([work, row["peer"], spread, str(row["goal"])])
        said = f"On {machine}, torch {torch}, {date}:"
        tables.append(f"{said}\n\n{markdown(heads, cells)}")
    return "\n\n".join(tables)


def rates() -> str:
    """Return what training does of what the device can, in markdown."""
    path = paths.PUBLISHED / "rates.csv"
    if not path.exists():
        return "Not measured yet: `python -m tests.benchmarks.rates` writes the table."
    heads = ["training", "batch size", "images a second", "an epoch", "share of peak"]
    tables = []
    groups = ["device", "hardware", "torch", "date"]
    for (device, machine, torch, date), part in pd.read_csv(path).groupby(groups):
        cells = [
            [
                f"{row['run']} ({written(row['dataset'])})",
                str(row["batch_size"]),
                f"{row['images_a_second']:,.0f}",
                f"{row['seconds_an_epoch']:,.0f}\u00a0s",
                f"{100 * row['share_of_peak']:.0f}\u00a0%",
            ]
            for row in part.to_dict("records")
        ]
        where = "One core of" if device == "cpu" else "On"
        said = f"{where} {machine}, torch {torch}, {date}:"
        tables.append(f"{said}\n\n{markdown(heads, cells)}")
    return "\n\n".join(tables)


# What tells cells apart among runs made again on another processor.
_CELL = ["dataset", "model", "optimizer", "train_size", "epochs", "batch_size"]
_CELL += ["learning_rate", "momentum", "schedule"]
_COMPARED = ("natural", "fgsm", "fgsm_clipped", "pgd_margin")


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
        for name in _CELL:
            default = getattr(Recipe(), name)
            alike = alike[alike[name].fillna(default) == one.get(name, default)]
        title = f"B = {one['batch_size']:g}, rate {one['learning_rate']:g}"
        title += f", seed {one.get('seed', 0):g}"
        for row, named in ((one, title), (second, "")):
            cells = [f"{100 * row[f'{name}_accuracy']:.1f} %" for name in _COMPARED]
            rows.append([named, str(row["hardware"]), *cells])
        if len(alike) > 1:
            spreads = [alike[f"{name}_accuracy"].std(ddof=1) for name in _COMPARED]
            said = [f"{100 * spread:.1f} points" for spread in spreads]
            rows.append(["", f"standard deviation over {len(alike)} seeds", *said])
    heads = ["run", "on", "natural", "FGSM, logits", "FGSM, clipped", "margin PGD"]
    return markdown(heads, rows)
