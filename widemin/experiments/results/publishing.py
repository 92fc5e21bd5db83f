"""Rows as the tables that are in git: small, and none too large."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from widemin.experiments import disk
from widemin.experiments.provenance import PROVENANCE
from widemin.experiments.results.kept import by_key
from widemin.experiments.results.tables import as_csv, written

MOST = 900_000  # bytes of a file


def publish(table: pd.DataFrame, folder: Path, name: str, most: int = MOST) -> None:
    """Write rows to NAME.csv and, where it would grow too large, NAME-2.csv, and so on.

    What all rows of a run share, its recipe (the columns left of `measured`) and its
    provenance, stands in the first of them alone. Older files of the name go.

    Args:
        table: Rows of whole runs, those of a run one after the other.
        folder: Where to; made, if it is not there.
        name: Of the first file, without its suffix.
        most: Bytes of a file; a run that has more of its own gets one to itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = _said_once(written(table))
    pieces: list[list[str]] = [[]]
    left = most
    for key, rows in table.groupby("key", sort=False):
        size = len(as_csv(rows))
        if size > left and pieces[-1]:
            pieces.append([])
            left = most
        pieces[-1].append(str(key))
        left -= size
    files = [folder / f"{name}.csv"]
    files += [folder / f"{name}-{i}.csv" for i in range(2, len(pieces) + 1)]
    for path, keys in zip(files, pieces, strict=True):
        with disk.atomic(path) as part:
            text = as_csv(table[table["key"].isin(keys)])
            part.write_text(text, encoding="utf-8")
    for path in set(folder.glob(f"{name}-*.csv")) - set(files):
        number = path.stem.removeprefix(f"{name}-")
        if number.isdecimal() and by_key(path):  # one of ours, not somebody's notes
            path.unlink()


def _said_once(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without what the first row of a run has said already."""
    names = list(table)
    own = names[1 : names.index("measured")] if "measured" in names else []
    first = ~table.duplicated("key")
    shared = [name for name in [*own, *PROVENANCE] if name in table]
    whole = [name for name in shared if table[name].dtype.kind != "f"]
    table = table.astype(dict.fromkeys(whole, object))  # whole numbers stay whole
    return table.assign(**{name: table[name].where(first) for name in shared})
