"""What the columns of rows say; the committed rows of a chapter as a table."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widemin import paths
from widemin.experiments import disk
from widemin.names import check, check_choice

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "recipe": "In every row: the run's recipe",
    "provenance": "In every row: where and when it was computed",
    "final": "`final`: a trained network in one test set",
    "epoch": "`epoch`: the network after an epoch of training",
    "scale": "`scale`: the network with its logits multiplied",
    "step": "`step`: test images after a step of the training attack",
    "line": "`line`: a point of a line through weights or images",
    "bin": "`bin`: test images of like FOSC",
    "strength": "`strength`: test images after an attack of another strength",
    "picture": "`picture`: a test image and what an attack made of it",
    "spectrum": "`spectrum`: an eigenvalue, or a point of the Hessian's density",
    "failed": "`failed`: a run that raised",
}


@dataclass(frozen=True)
class Column:
    """What a column says."""

    name: str
    kinds: tuple[str, ...]  # of rows that have it, in the order of KINDS
    function: str  # dotted name of what computes it, in rows of its first kind
    unit: str  # empty for names, numbers without a unit, and True or False
    sentence: str


with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as lines:
    COLUMNS = {
        row["name"]: Column(**row | {"kinds": tuple(row["kinds"].split())})
        for row in csv.DictReader(lines)
    }


def page() -> str:
    """Return the columns as tables in markdown, one for each kind of row.

    >>> COLUMNS["top_eigenvalue"].unit, COLUMNS["top_eigenvalue"].kinds
    ('nat / squared weight', ('final',))
    >>> "| `top_eigenvalue` | nat / squared weight |" in page()
    True
    """
    parts = []
    head = "| column | unit | what it is | computed by |\n| --- | --- | --- | --- |"
    for kind, title in KINDS.items():
        parts += [f"## {title}\n\n:::{{div}} wide", head]
        for column in COLUMNS.values():
            if kind in column.kinds:
                cells = [f"`{column.name}`", column.unit, column.sentence]
                cells = [cell.replace("|", "\\|") for cell in cells]
                module = column.function.partition(".")[2].rpartition(".")[0]
                cells.append(f"{{source}}`{column.function}` in `{module}`")
                parts.append(f"| {' | '.join(cells)} |")
        parts += [":::", ""]
    return "\n".join(parts)


def as_row(recipe: Any) -> dict[str, Any]:
    """Return a recipe's fields as rows, files and keys have them.

    Numbers and texts stay, nothing is an empty text, another object is its str().

    >>> from widemin.attacks import Linf
    >>> from widemin.experiments.recipe import Recipe
    >>> as_row(Recipe(tests=(Linf(0.1), "linf 8/255")))["tests"]
    ('linf 0.1', 'linf 8/255')
    """
    return {f.name: as_column(getattr(recipe, f.name)) for f in fields(recipe)}


def as_column(value: Any) -> Any:
    """Return one value as `as_row` does."""
    if isinstance(value, tuple):
        return tuple(map(as_column, value))
    if value is None:
        return ""
    return value if isinstance(value, str | int | float) else str(value)


def frame(
    chapter: str, scale: str = "lab", folder: str | Path | None = None
) -> pd.DataFrame:
    """Return the rows of a chapter, with what committed tables leave out filled in.

    Args:
        chapter: Its number or name, e.g. "01".
        scale: Folder of book/results: "lab" or "paper".
        folder: Of other tables, NAME.csv, as `widemin publish` writes them; or of
            results, as --results has them: all runs finished there, of any chapter.

    Returns:
        A row as `measured` says: a network's final numbers, an epoch, ... Accuracies
        are fractions. `attrs` says the chapter, the scale, the files and the runs.

    Raises:
        ValueError: No such chapter or scale, no table of it, or no checkout.

    >>> table = frame("01", "paper")
    >>> bool(table["learning_rate"].notna().all()), table.attrs["chapter"]
    (True, '01_width_of_minima')
    """
    import pandas as pd

    from widemin.experiments.recipe import Recipe
    from widemin.experiments.results import by_key, finished

    root = disk.checkout()
    scales = sorted({path.parent.name for path in paths.PUBLISHED.glob("*/0*.csv")})
    if folder is None:
        check_choice("scale", scale, scales)
    folder = Path(folder or paths.PUBLISHED / scale)
    names = sorted(path.stem for path in paths.NOTEBOOKS.glob("0[1-9]*.ipynb"))
    named = {name[:2]: name for name in names} | {name: name for name in names}
    check_choice("chapter", chapter, named)
    name = named[chapter]
    files = [folder / f"{name}.csv", *sorted(folder.glob(f"{name}-*.csv"))]
    runs = {key: rows for path in files for key, rows in by_key(path).items()}
    runs |= finished(folder, [path.stem for path in folder.glob("runs/*.json")])
    check(runs, f"scale must have rows of {name}", f"none in {folder}")
    default = as_row(Recipe())
    table = pd.DataFrame(
        [{"key": key} | default | row for key, rows in runs.items() for row in rows]
    )
    there = [path for path in files if path.is_file()]
    inside = [
        path.relative_to(root) if root in path.parents else path for path in there
    ]
    sources = list(map(str, inside))
    table.attrs = {"chapter": name, "scale": scale, "files": sources, "runs": len(runs)}
    return table
