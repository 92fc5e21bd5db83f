"""Chapters: the runs that presets plan in them, and pages executed from notebooks."""

import hashlib
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from widemin import paths
from widemin.experiments import disk
from widemin.experiments.columns import as_column
from widemin.experiments.parameters import Values, checked, defaults, typed, with_values
from widemin.experiments.parameters import chapters as chapters
from widemin.experiments.parameters import drawn as drawn
from widemin.experiments.parameters import find as find
from widemin.experiments.parameters import parameters as parameters
from widemin.names import check_choice
from widemin.papers.kamath.plan import plan as kamath
from widemin.papers.khritankov.plan import plan as khritankov
from widemin.papers.ours.plan import plan as ours
from widemin.papers.wang.plan import plan as wang
from widemin.papers.wei.plan import plan as wei

Plan = dict[str, Any]  # lists of runs, or dictionaries of them, by name
_PLANS: dict[str, Any] = {"01": khritankov, "02": wei, "03": wang, "04": kamath}
_PLANS |= {"05": ours, "00": lambda: {"recipes": []}}
PRIMER = "00_primer"  # a page before them, without parameters, runs and claims


def pages(text: str = "all") -> list[str]:
    """Return the pages that "all", a number or a name stands for: chapters, the primer.

    >>> pages("00"), pages("all")[:2]
    (['00_primer'], ['00_primer', '01_width_of_minima'])
    """
    if text in (PRIMER, PRIMER[:2], PRIMER[1:2]):
        return [PRIMER]
    return [PRIMER, *find(text)] if text == "all" else find(text)


def presets() -> list[str]:
    """Return the names of all presets; what a Mac leaves beside them is none."""
    return sorted(path.stem for path in paths.PRESETS.glob("[!.]*.yml"))


def preset(name: str) -> dict[str, Any]:
    """Return a preset's file, laid over the one it extends; paper.yml explains both."""
    check_choice("preset", name, presets())
    own = _read((paths.PRESETS / f"{name}.yml").read_bytes())
    base = preset(own["extends"]) if "extends" in own else {}
    laid = {k: base.get(k, {}) | v for k, v in own.items() if isinstance(v, dict)}
    return base | own | laid


@cache
def _read(content: bytes) -> dict[str, Any]:
    return dict(yaml.safe_load(content))


def resolve(chapter: str, preset_name: str, overrides: Values) -> Values:
    """Return all parameters of a chapter: its cell's, the preset's, then overrides.

    A text among the overrides is read as YAML, like papermill's -p. An unknown preset
    or parameter, or a value of another type, is a ValueError.
    """
    values = defaults(chapter)
    changed = {**preset(preset_name).get(chapter, {}), "preset": preset_name}
    changed.pop("further", None)
    for name, value in (changed | overrides).items():
        check_choice("parameter", name, values)
        values[name] = typed(name, value, values[name])
    return values


def departures(values: Values, usual: Values) -> Values:
    """Return the parameters in which a page departs from others, not the machine's."""
    theirs = values.keys() - {"device", "workers", "results_dir"}
    return {k: v for k, v in values.items() if k in theirs and v != usual[k]}


def planned(chapter: str, cell: Values) -> tuple[Plan, str]:
    """Return a notebook's lists of runs, and its preset as the page names it.

    `cell` is its `globals()` after its parameter cell; texts in it become values, or a
    ValueError as of `widemin run -p`.
    """
    values = checked(chapter, cell)
    cell.update(values)
    changed = departures(values, resolve(chapter, values["preset"], {}))
    given = ", ".join(f"{name} = {value}" for name, value in changed.items())
    plan = lists(chapter, values)
    if not plan["recipes"]:
        raise ValueError(f"parameters must leave a run to compute; got {given}")
    return plan, values["preset"] + (f", but {given}" if given else "")


def lists(chapter: str, values: Values) -> Plan:
    """Return a chapter's lists of runs by name; `recipes` are all of them."""
    return dict(_PLANS[chapter[:2]](**values))


def recipes(chapter: str, values: Values) -> list[Any]:
    """Return the runs of a chapter, in its order."""
    return list(lists(chapter, values)["recipes"])


def named(planned: Plan, text: str) -> list[Any]:
    """Return the runs of some of a chapter's lists, each once, in order.

    The text has names joined by " + ", an entry of a dictionary in brackets, as in
    "settings[LR] + settings[LR/BS]". An entry that is not there has no runs; a list
    that is not there is a ValueError.
    """
    runs: dict[str, Any] = {}
    for part in text.split(" + "):
        name, _, entry = part.strip().rstrip("]").partition("[")
        check_choice("runs", name, planned)
        listed = planned[name].get(entry, []) if entry else planned[name]
        runs |= {run.key: run for run in listed}
    return list(runs.values())


def settings(
    names: list[str], preset_name: str, given: Values | None = None, **machine: Any
) -> dict[str, list[Values]]:
    """Return chapters' parameters at a preset, then those of its further settings.

    The chapters come in the preset's order of computing them. Parameters `given` go to
    those that have them, which then have no further settings; `machine` goes to all.
    """
    content, given, plans = preset(preset_name), given or {}, {}
    known = dict.fromkeys(name for chapter in names for name in defaults(chapter))
    for key in given:
        check_choice("parameter", key, known)
    order = content.get("order", [])
    for name in sorted(names, key=lambda n: [*order, n[:2]].index(n[:2])):
        own = {k: v for k, v in given.items() if k in defaults(name)}
        further = [] if own else content.get(name, {}).get("further", [])
        changes = [own, *further]
        plans[name] = [resolve(name, preset_name, one | machine) for one in changes]
    return plans


def lists_of(chapter: str, preset_name: str) -> list[Plan]:
    """Return the lists of a chapter at a preset, a dictionary a setting."""
    return [lists(chapter, v) for v in settings([chapter], preset_name)[chapter]]


def printed(chapter: str, preset_name: str) -> list[Any]:
    """Return the runs of a preset that stand in the paper's tables, all settings."""
    return [run for own in lists_of(chapter, preset_name) for run in own["printed"]]


def plan(chapter: str, preset_name: str) -> list[Any]:
    """Return the runs of a chapter at a preset, its further settings too, by worth."""
    return by_worth(settings([chapter], preset_name), preset_name)


def by_worth(planned: dict[str, list[Values]], preset_name: str = "") -> list[Any]:
    """Return the runs of chapters, as `settings` returns them, in order of their worth.

    The preset's stages first, in their order. Then what each chapter lists to be
    computed `first`; then one seed of all that stands in the papers' tables; then the
    rest, seed by seed. In each of these, runs that cost ten times as much come later:
    an hour ends more of the others. Of equal worth, the order is that of `planned`.
    """
    from widemin.experiments.progress import magnitude  # and pandas, which is slow

    stages = preset(preset_name).get("stages", []) if preset_name else []
    runs: dict[str, Any] = {}
    ranks: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for chapter, every in planned.items():
        plans = [lists(chapter, values) for values in every]
        tables = [run for each in plans for run in each["printed"]]
        runs |= {run.key: run for run in [*plans[0]["recipes"], *tables]}
        for run in plans[0]["first"]:
            ranks[run.key].append((1, magnitude(run), run.seed))
        for run in tables:
            if run.seed == 0:
                ranks[run.key].append((2, magnitude(run)))
        for place, stage in enumerate(stages):
            fields = {k: v for k, v in stage.items() if k not in ("chapter", "runs")}
            ordered = list(product(*fields.values()))
            for each in plans if stage["chapter"] == chapter[:2] else ():
                for run in named(each, stage["runs"]):
                    values = tuple(as_column(getattr(run, name)) for name in fields)
                    if values in ordered:
                        ranks[run.key].append((0, place, ordered.index(values)))

    def worth(run: Any) -> tuple[int, ...]:
        return min(ranks[run.key], default=(3, run.seed, magnitude(run)))

    return sorted(runs.values(), key=worth)


# Of the package and of the published results.
_HASHED = {".py", ".csv", ".yml", ".toml", ".mplstyle"}


class ChapterFailed(RuntimeError):
    """A chapter that did not run to its end; the message says where to look."""


def digest(chapter: str, values: Values, done: Iterable[str]) -> str:
    """Return a digest of source, parameters and rows of an executed chapter."""
    hashed = hashlib.sha256(json.dumps([values, sorted(done)]).encode())
    files = [paths.NOTEBOOKS / f"{chapter}.ipynb"]
    files += [paths.BOOK / name for name in ("claims.csv", "statements.csv")]
    for folder in (paths.ROOT / "widemin", paths.PUBLISHED):
        files += sorted(p for p in folder.rglob("*.*") if p.suffix in _HASHED)
    for path in filter(Path.is_file, files):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def is_current(target: Path, stamp: str) -> bool:
    """Return True if an executed notebook is there and nothing under it has changed."""
    with suppress(OSError, ValueError, KeyError):
        note = json.loads(target.read_text())["metadata"]["widemin"]
        return bool(note == {"status": "completed", "digest": stamp})
    return False


def execute(chapter: str, values: Values, target: Path, stamp: str) -> None:
    """Run a chapter's notebook; put the executed one at target, whole or not at all.

    The stamp is kept in its metadata, to tell later whether it is stale. Where a cell
    raises or the kernel dies, ChapterFailed, target stays as it was, and the partial
    notebook is beside it, *.failed.ipynb.
    """
    # Imported here: they take seconds, and planning needs neither.
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    def keep(path: Path, status: str, digest: str) -> None:
        notebook.metadata["widemin"] = {"status": status, "digest": digest}
        with disk.atomic(path) as part:
            nbformat.write(notebook, part)

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = target.with_suffix(".failed.ipynb")
    notebook = nbformat.read(paths.NOTEBOOKS / f"{chapter}.ipynb", as_version=4)
    language = {"name": "python", "pygments_lexer": "ipython3"}  # of %matplotlib, too
    notebook.metadata["language_info"] = language
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = with_values(cell.source, values)
    # What leads to a socket has 103 bytes at most.
    short = None if len(os.fsencode(tempfile.gettempdir())) <= 75 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="widemin-", dir=short) as sockets:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            record_timing=False,
            raise_on_iopub_timeout=True,
            # A kernel told to leave says that it was interrupted; failures come back.
            extra_arguments=["--log-level=CRITICAL"],
        )
        # Sockets in a folder of the user's own, not ports that anyone may read.
        client.config.KernelManager.transport = "ipc"
        client.config.KernelManager.ip = f"{sockets}/kernel"
        try:
            with client.setup_kernel():
                for place, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, place)
        except (CellExecutionError, DeadKernelError) as error:
            keep(failed, "failed", "")
            reason = "the kernel died"
            if isinstance(error, CellExecutionError):
                reason = f"{error.ename}: {error.evalue}"
            raise ChapterFailed(
                f"chapter {chapter} failed ({reason}); its partial page is {failed}"
            ) from error
    keep(target, "completed", stamp)
    failed.unlink(missing_ok=True)
