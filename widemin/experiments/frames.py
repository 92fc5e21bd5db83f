"""The committed rows of a chapter as a table that is ready to be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from widemin import paths
from widemin.experiments import disk
from widemin.experiments.columns import as_row
from widemin.names import check, check_choice

if TYPE_CHECKING:
    import pandas as pd


def frame(chapter: str, scale: str = "lab", folder: Path | None = None) -> pd.DataFrame:
    """Return the rows of a chapter, with what committed tables leave out filled in.

    Args:
        chapter: Its number or name, e.g. "01".
        scale: Folder of book/results: "lab" or "paper".
        folder: Of other tables, NAME.csv, as `widemin publish` writes them.

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
    from widemin.experiments.results import by_key

    root = disk.checkout()
    scales = sorted({path.parent.name for path in paths.PUBLISHED.glob("*/0*.csv")})
    if folder is None:
        check_choice("scale", scale, scales)
        folder = paths.PUBLISHED / scale
    names = sorted(path.stem for path in paths.NOTEBOOKS.glob("0*.ipynb"))
    named = {name[:2]: name for name in names} | {name: name for name in names}
    check_choice("chapter", chapter, named)
    name = named[chapter]
    files = [folder / f"{name}.csv", *sorted(folder.glob(f"{name}-*.csv"))]
    runs = {key: rows for path in files for key, rows in by_key(path).items()}
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
