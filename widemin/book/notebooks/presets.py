"""Presets: how much each chapter does, from notebooks/presets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from widemin import paths
from widemin.book.notebooks.values import Values
from widemin.names import check_choice


@dataclass(frozen=True)
class Stage:
    """Runs that a preset computes before others.

    Attributes:
        chapter: Number of the chapter.
        runs: Its lists of runs, as `planning.named` takes them.
        values: Of fields of a recipe; those listed first are computed first.
    """

    chapter: str
    runs: str
    values: dict[str, list[Any]]

    def place(self, run: Any) -> list[int] | None:
        """Return the indices of a run's values in the lists; None if one is missing."""
        found = {name: getattr(run, name) for name in self.values}
        if any(value not in self.values[name] for name, value in found.items()):
            return None
        return [self.values[name].index(value) for name, value in found.items()]


def presets() -> list[str]:
    """Return the names of all presets; what a Mac leaves beside them is none."""
    return sorted(path.stem for path in paths.PRESETS.glob("[!.]*.yml"))


def _preset(name: str) -> dict[str, Any]:
    """Return a preset's file, laid over the one it extends.

    Raises:
        ValueError: There is no such preset.
    """
    check_choice("preset", name, presets())
    path = paths.PRESETS / f"{name}.yml"
    content = dict(_read(path, path.stat().st_mtime_ns))
    base = _preset(content.pop("extends")) if "extends" in content else {}
    laid = {
        key: base.get(key, {}) | content[key]
        for key in content
        if isinstance(content[key], dict)
    }
    return base | content | laid


@cache
def _read(path: Path, changed: int) -> dict[str, Any]:
    """Read a preset once, as long as it is the same file."""
    return dict(yaml.safe_load(path.read_text()))


def preset(name: str, chapter: str) -> Values:
    """Return what a preset changes of a chapter's parameter cell.

    Raises:
        ValueError: There is no such preset.
    """
    values: Values = _preset(name).get(chapter, {})
    return {key: value for key, value in values.items() if key != "further"}


def further(name: str, chapter: str) -> list[Values]:
    """Return a preset's further settings of a chapter: changes to its own values.

    They are computed after the chapter's own runs, for the paper's tables alone; the
    page is drawn from its own.
    """
    found: list[Values] = _preset(name).get(chapter, {}).get("further", [])
    return found


def order(name: str) -> list[str]:
    """Return the numbers of the chapters in which a preset computes them; [] is any."""
    found: list[str] = _preset(name).get("order", [])
    return found


def stages(name: str) -> list[Stage]:
    """Return the stages of a preset, in the order of computing them."""
    listed: list[dict[str, Any]] = _preset(name).get("stages", [])
    return [
        Stage(str(stage.pop("chapter")), str(stage.pop("runs")), stage)
        for stage in map(dict, listed)
    ]
