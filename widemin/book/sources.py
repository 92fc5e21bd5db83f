"""An edition's sources put together: pages, executed chapters, tables to download."""

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from widemin import paths
from widemin.book import SAID, coverage, front, notebooks, verdicts, where
from widemin.book.verdicts import executed, markdown
from widemin.experiments import columns, provenance, results
from widemin.experiments.recipe import Recipe
from widemin.names import check, written
from widemin.papers import NARROW, claims

_NOT_STAGED = "results networks chapters *.csv *.json __pycache__ .*"


def stage(edition: str, source: Path) -> str:
    """Put an edition's sources together; return the digest of all of them."""
    shutil.rmtree(source, ignore_errors=True)
    ignored = shutil.ignore_patterns(*_NOT_STAGED.split())
    shutil.copytree(paths.BOOK, source, ignore=ignored)
    for folder in ("chapters", "tables"):
        (source / folder).mkdir()
    config: dict[str, Any] = yaml.safe_load((paths.ROOT / "_config.yml").read_text())
    address = front.repository()
    for chapter in notebooks.pages():
        page = executed(edition, chapter)
        if page.exists():
            notebook = json.loads(page.read_text())
            _open(notebook["cells"], edition, chapter)
            _mend_figures(notebook, source)
            _say_how_to_run(notebook, chapter, source / "tables", address)
            (source / "chapters" / page.name).write_text(json.dumps(notebook))
        else:
            (source / "chapters" / f"{chapter}.md").write_text(_stub(chapter))
    # From there the first cell of a notebook fetches the package.
    empty, named = (f'repository = \\"{to}\\"' for to in ("", address))
    for page in source.rglob("*.ipynb"):
        page.write_text(page.read_text().replace(empty, named))
    shown = {claims.anchor(claim) for claim in verdicts.of_edition(edition)}
    mark = re.compile(f"<!-- ({'|'.join(MARKS)}) -->")
    link = re.compile(r"\[(\w+)\]\(#(verdict-\w+)\)")
    for page in source.glob("*.md"):
        text = mark.sub(lambda at: MARKS[at[1]](edition), page.read_text())
        # Links to verdicts that no page shows become plain words.
        page.write_text(link.sub(lambda at: at[0 if at[2] in shown else 1], text))
    theme = config["sphinx"]["config"]["html_theme_options"]
    said = SAID["editions"][front.kind(edition)]
    theme["announcement"] = f"{said} Source {provenance.source()}."
    host = address.partition("://")[2].partition(".")[0]
    theme.update(repository_url=address, repository_provider=host)
    theme["use_repository_button"] = host in ("github", "gitlab")
    (source.parent / "_config.yml").write_text(yaml.safe_dump(config))
    hashed = hashlib.sha256(yaml.safe_dump(config).encode())
    for path in sorted(filter(Path.is_file, source.rglob("*"))):
        hashed.update(str(path.relative_to(source)).encode() + path.read_bytes())
    for path in sorted((paths.ROOT / "widemin").rglob("*.py")):  # each has a page
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


def _open(cells: list[dict[str, Any]], edition: str, chapter: str) -> None:
    """Put a chapter's answer, which published rows give, and its figure first."""
    by_tag = {tag: cell for cell in cells for tag in cell["metadata"].get("tags", ())}
    if answer := by_tag.get("answer"):
        said = answer["source"] if edition == "site" else SAID["unanswered"]
        tally = verdicts.tally(edition, chapter)
        answer["source"] = "".join(said).replace("<!-- tally -->", tally)
        cells.remove(by_tag["opening"])
        cells.insert(cells.index(answer) + 1, by_tag["opening"])


def figures(notebook: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the figures of a chapter: MyST-NB's metadata of each, and its data."""
    for cell in notebook["cells"]:
        about = cell["metadata"].get("mystnb", {})
        for output in cell.get("outputs", []) if "figure" in about else ():
            yield about, output.get("data", {})


def _mend_figures(notebook: dict[str, Any], source: Path) -> None:
    """Link the numbers that figures carry, as CSVs; put drawings for phones by."""
    folder, phones = source / "tables", source / "_static" / "phones"
    phones.mkdir(parents=True, exist_ok=True)
    for about, shown in figures(notebook):
        numbers, figure = shown.pop("text/csv", None), about["figure"]
        if (narrow := shown.pop(NARROW, None)) and "name" in figure:
            (phones / f"{figure['name']}.svg").write_text("".join(narrow))
        if numbers and "name" in figure:
            name = f"{figure['name']}.csv"
            (folder / name).write_text("".join(numbers))
            figure["caption"] += f" {{download}}`CSV <../tables/{name}>`"
        if said := _say_by_what(figure.get("name", "")):
            figure["caption"] += said


def _say_by_what(label: str) -> str:
    """Return links to the functions that draw a figure and measured its columns."""
    if label not in where.figures():  # drawn by an earlier version
        return ""
    drawing = [f"{f.__module__}.{f.__qualname__}" for f in where.functions(label)]
    kept = ("widemin.experiments.measure.", "widemin.experiments.epoch_metrics.")
    found = (column.function for column in where.columns(label).values())
    measuring = dict.fromkeys(name for name in found if name.startswith(kept))
    said = ""
    for how, names in {"Drawn by": drawing, "measured by": measuring}.items():
        links = ", ".join(f"{{source}}`{name}`" for name in names)
        said += f"{'; ' if said else ' '}{how} {links}" if links else ""
    return said + "." if said else ""


def _say_how_to_run(
    notebook: dict[str, Any], chapter: str, folder: Path, repository: str
) -> None:
    """Add to a chapter how to run it: the command, the notebook and its rows."""
    shutil.copy(paths.NOTEBOOKS / f"{chapter}.ipynb", folder)
    told, command = SAID["primer"], f"widemin run {chapter[:2]}"
    if chapter != notebooks.PRIMER:
        told, command = SAID["run"], _with_rows(notebook, chapter, folder)
    named = {"command": command, "chapter": chapter, "address": repository}
    links = [f"[{n}]({to})" for n, to in front.launch(repository, chapter).items()]
    said = told + f" {SAID['open']}" * bool(links)
    said = said.format(links=" or ".join(links), **named)
    cell = {"cell_type": "markdown", "id": "run-it", "metadata": {}, "source": said}
    notebook["cells"].append(cell)


def _with_rows(notebook: dict[str, Any], chapter: str, folder: Path) -> str:
    """Write the rows of a chapter for download; return the command that draws it."""
    values = notebooks.drawn(chapter, notebook["cells"])
    usual = notebooks.resolve(chapter, values["preset"], {})
    command = f"widemin run {chapter[:2]} --preset {values['preset']}"
    for name, value in notebooks.departures(values, usual).items():
        text = value if isinstance(value, str) else json.dumps(value)
        command += f" -p {name} {shlex.quote(text)}"
    runs = notebooks.recipes(chapter, values)
    table = results.table_of(runs, paths.results(values["results_dir"]))
    results.to_csv(results.without_defaults(table, runs), folder / f"{chapter}.csv")
    return command


def _stub(chapter: str) -> str:
    """Return the page of a chapter that has not run here: its opening, and how to."""
    cells = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    opening = re.sub(r"\[([^\]]+)\]\(#[^)]+\)", r"\1", texts[0])
    # Its sections are not there: what links to them from other pages ends here.
    labels = re.findall(r"^(\([\w-]+\)=)$", "\n".join(texts), re.MULTILINE)
    lines = [*(label for label in labels if label not in opening), opening]
    return str(SAID["stub"].format(opening="\n".join(lines), number=chapter[:2]))


def _differences(edition: str) -> str:
    """Return the ledger in markdown, measured on the rows of the edition's pages."""
    heads = ["", "the paper", "the released code", "here", "the other side does"]
    rows = []
    for one in coverage.differences():
        [chapter] = notebooks.find(one.chapter)
        page = executed(edition, chapter)
        cells = json.loads(page.read_text())["cells"] if page.exists() else []
        values = notebooks.drawn(chapter, cells)
        runs, folder = notebooks.recipes(chapter, values), values["results_dir"]
        done = coverage.effect(one, runs, paths.results(folder))
        where = f"{{ref}}`{int(one.chapter)} <{one.section}>`"
        rows.append([where, one.text, one.code, one.here, done])
    return markdown(heads, rows)


def _covered(edition: str) -> str:
    """Return the cover of the papers' tables in markdown, by the edition's rows."""
    covers = coverage.of_all(paths.PUBLISHED if edition == "site" else paths.results())
    rows = coverage.rows(covers)
    for row in rows:
        del row["not planned"]
        row["runs"] = row["runs"].replace(" ", "\u00a0")
    table = markdown(list(rows[0]), [list(row.values()) for row in rows])
    return f"**{coverage.share(covers)}.**\n\n{table}"


def _measured(name: str) -> str:
    """Return a published table of speeds in markdown, a part a machine and day."""
    path, said = paths.PUBLISHED / f"{name}.csv", SAID["speeds"][name]
    if not path.exists():
        return f"Not measured yet: `{said['command']}` writes the table."
    table = pd.read_csv(path, keep_default_na=False)
    table["device"] = table.get("device", "")
    parts = []
    by = ["device", "hardware", "torch", "date"]
    for (device, machine, torch, date), part in table.groupby(by):
        rows = []
        for row in part.to_dict("records"):
            row["dataset"] = written(row.get("dataset", ""))
            cells = [cell.format(**row) for cell in said["shown"].values()]
            cells = [re.sub(r"(?<=\d)%$", "\u00a0%", cell) for cell in cells]
            rows.append([cell.removesuffix("; ") for cell in cells])
        where = f"{'One core of' if device == 'cpu' else 'On'} {machine}"
        shown = markdown(list(said["shown"]), rows)
        parts.append(f"{where}, torch {torch}, {date}:\n\n{shown}")
    return "\n\n".join(parts)


def _again(_: str) -> str:
    """Return in markdown the runs made again on another processor, beside the first.

    Under a pair, where the cell has several seeds, their standard deviation.
    """
    path = paths.PUBLISHED / "again.csv"
    if not path.exists():
        return "None yet."
    published, said = results.published(), SAID["again"]
    usual = {name: getattr(Recipe(), name) for name in said["cell"]} | {"seed": 0}
    first = pd.DataFrame([usual | rows[-1] for rows in published.values()])
    rows, compared = [], list(said["compared"].values())
    for second in pd.read_csv(path, dtype={"run": str}).to_dict("records"):
        run = second["run"]
        check(run in published, "again.csv must name published runs", run)
        one = usual | published[run][-1]
        same = (first[name] == one[name] for name in said["cell"])
        alike = first[np.logical_and.reduce([*same])]
        for row, named in ((one, said["title"].format(**one)), (second, "")):
            cells = [f"{100 * row[name]:.1f} %" for name in compared]
            rows.append([named, str(row["hardware"]), *cells])
        if len(alike) > 1:
            spreads = [f"{100 * s:.1f} points" for s in alike[compared].std(ddof=1)]
            rows.append(["", f"standard deviation over {len(alike)} seeds", *spreads])
    return markdown(["run", "on", *said["compared"]], rows)


# What takes the place of `<!-- name -->` in a page, by name; each gets the edition.
MARKS: dict[str, Callable[[str], str]] = {
    "address": lambda _: front.repository() or "ADDRESS",
    "front": front.page,
    "tallies": lambda edition: "- " + verdicts.in_words(edition, "", "\n- "),
    "chance": verdicts.by_chance,
    "verdicts": verdicts.as_page,
    "ledger": _differences,
    "coverage": _covered,
    "columns": lambda _: columns.page(),
    "again": _again,
    "benchmarks": lambda _: _measured("benchmarks"),
    "rates": lambda _: _measured("rates"),
}
