"""An edition's sources put together: pages, executed chapters, tables to download."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from widemin import paths
from widemin.book import notebooks, tables, verdicts
from widemin.book.verdicts import executed
from widemin.experiments import provenance, results
from widemin.papers import claims

EDITIONS = {
    "book": "Computed on this machine; each chapter names its preset.",
    "site": "Published edition, drawn from committed tables.",
}
_NOT_STAGED = "results networks chapters *.csv *.json __pycache__ .*"
_MARK = re.compile(f"<!-- ({'|'.join(tables.MARKS)}) -->")
_IN_SHORT = re.compile(r"<!-- in short: ([\w ]+) -->")


def stage(edition: str, source: Path) -> str:
    """Put an edition's sources together; return the digest of all of them."""
    shutil.rmtree(source, ignore_errors=True)
    ignored = shutil.ignore_patterns(*_NOT_STAGED.split())
    shutil.copytree(paths.BOOK, source, ignore=ignored)
    for folder in ("chapters", "tables"):
        (source / folder).mkdir()
    config: dict[str, Any] = yaml.safe_load((paths.ROOT / "_config.yml").read_text())
    address = config["repository"]["url"]
    for chapter in notebooks.chapters():
        page = executed(edition, chapter)
        if page.exists():
            notebook = _chapter(edition, chapter, source / "tables", address)
            (source / "chapters" / page.name).write_text(json.dumps(notebook))
        else:
            (source / "chapters" / f"{chapter}.md").write_text(_stub(chapter))
    there = {claims.anchor(claim) for claim in verdicts.of_edition(edition)}
    for page in source.glob("*.md"):
        text = _MARK.sub(lambda mark: tables.MARKS[mark[1]](edition), page.read_text())
        page.write_text(_only_links_to(there, text))
    theme = config["sphinx"]["config"]["html_theme_options"]
    theme["announcement"] = f"{EDITIONS[edition]} Source {provenance.source()}."
    (source.parent / "_config.yml").write_text(yaml.safe_dump(config))
    hashed = hashlib.sha256(yaml.safe_dump(config).encode())
    for path in sorted(source.rglob("*")):
        if path.is_file():
            hashed.update(str(path.relative_to(source)).encode() + path.read_bytes())
    return hashed.hexdigest()


def _chapter(edition: str, chapter: str, folder: Path, address: str) -> dict[str, Any]:
    """Return an executed chapter as a page; what it links to is put into a folder."""
    notebook: dict[str, Any] = json.loads(executed(edition, chapter).read_text())
    opening = notebook["cells"][0]
    opening["source"] = _IN_SHORT.sub(
        lambda mark: verdicts.in_short(edition, chapter, mark[1].split()),
        "".join(opening["source"]),
    )
    _share_numbers(notebook, folder)
    _say_sizes(notebook)
    _say_how_to_run(notebook, chapter, folder)
    notebook["cells"][-1]["source"] += launchers(address, chapter)
    return notebook


def _only_links_to(there: set[str], text: str) -> str:
    """Return text whose links to verdicts that no page shows are plain words.

    >>> _only_links_to({"verdict-w1"}, "[W1](#verdict-w1), [W2](#verdict-w2)")
    '[W1](#verdict-w1), W2'
    """
    return re.sub(
        r"\[(\w+)\]\(#(verdict-\w+)\)",
        lambda link: link[0] if link[2] in there else link[1],
        text,
    )


def figures(
    notebook: dict[str, Any],
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the figures of a chapter: MyST-NB's metadata of each, and its data."""
    for cell in notebook["cells"]:
        about = cell["metadata"].get("mystnb", {})
        for output in cell.get("outputs", []) if "figure" in about else ():
            yield about, output.get("data", {})


def _share_numbers(notebook: dict[str, Any], folder: Path) -> None:
    """Move the numbers that figures carry into CSVs, linked from their captions."""
    for about, shown in figures(notebook):
        numbers, figure = shown.pop("text/csv", None), about["figure"]
        if numbers and "name" in figure:
            name = f"{figure['name']}.csv"
            (folder / name).write_text("".join(numbers))
            figure["caption"] += f" {{download}}`CSV <../tables/{name}>`"


# From how many points on a figure cannot be read at the width of a phone, at 1.5 of it.
_SIZES = {"large": 600, "medium": 380}


def _say_sizes(notebook: dict[str, Any]) -> None:
    """Give figures that a phone cannot show whole their size, as a class."""
    for about, shown in figures(notebook):
        drawn = "".join(shown.get("image/svg+xml", ""))
        width = re.search(r'<svg[^>]* width="([\d.]+)pt"', drawn)
        points = float(width[1]) if width else 0.0
        if size := next((s for s, least in _SIZES.items() if points > least), ""):
            about.setdefault("image", {})["classes"] = size


_RUN = """## Run it yourself

```
{command}
```

computes what is missing of this page's runs and draws it. `--preset lab` is made for
two cores and 20 minutes; `-p NAME VALUE` changes a number ([](../reproduce.md)). To
take away: {{download}}`the notebook <../tables/{chapter}.ipynb>` without its outputs,
{{download}}`the rows <../tables/{chapter}.csv>` behind this page, and below each figure
the numbers it draws."""


def _say_how_to_run(notebook: dict[str, Any], chapter: str, folder: Path) -> None:
    """Add to a chapter how to run it: the command, the notebook and its rows."""
    values = notebooks.drawn(chapter, notebook["cells"])
    usual = notebooks.resolve(chapter, values["preset"], {})
    command = f"widemin run {chapter[:2]} --preset {values['preset']}"
    for name, value in notebooks.departures(values, usual).items():
        text = value if isinstance(value, str) else json.dumps(value)
        command += f" -p {name} {shlex.quote(text)}"
    shutil.copy(paths.NOTEBOOKS / f"{chapter}.ipynb", folder)
    runs = notebooks.recipes(chapter, values)
    table = results.table_of(runs, paths.results(values["results_dir"]))
    results.to_csv(results.without_defaults(table, runs), folder / f"{chapter}.csv")
    said = _RUN.format(command=command, chapter=chapter)
    cell = {"cell_type": "markdown", "id": "run-it", "metadata": {}, "source": said}
    notebook["cells"].append(cell)


def launchers(repository: str, chapter: str) -> str:
    """Return, in markdown, where a chapter's notebook can be opened, or "".

    >>> launchers("https://github.com/someone/widemin", "01_width_of_minima")[:60]
    ' Or open it on [Colab](https://colab.research.google.com/git'
    """
    if not repository:
        return ""
    name = repository.removesuffix(".git").partition("github.com/")[2]
    colab = f"https://colab.research.google.com/github/{name}/blob/main/notebooks"
    binder = f"https://mybinder.org/v2/gh/{name}/main?labpath=notebooks"
    return (
        f" Or open it on [Colab]({colab}/{chapter}.ipynb), whose first cell fetches "
        f"the package, or on [Binder]({binder}/{chapter}.ipynb)."
    )


def _stub(chapter: str) -> str:
    """Return the page of a chapter that has not run here: its opening, and how to."""
    notebook = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    labels = re.findall(r"^(\([\w-]+\)=)$", text, re.MULTILINE)
    opening = "".join(notebook["cells"][0]["source"])
    # Its sections are not there: what links to them from other pages ends here.
    opening = re.sub(r"\[([^\]]+)\]\(#[^)]+\)", r"\1", _IN_SHORT.sub("", opening))
    opening = "\n".join([*(label for label in labels if label not in opening), opening])
    return (
        f"{opening}\n\n:::{{note}}\nThis chapter has not run on this machine. "
        f"`widemin run {chapter[:2]}` runs it in under a minute.\n:::\n"
    )
