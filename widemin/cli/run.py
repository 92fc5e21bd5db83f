"""`widemin run`: what a chapter lacks is computed, then it is drawn."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from widemin.cli.book import alone, draw
from widemin.cli.group import about, guard, main, results_folder

if TYPE_CHECKING:
    import pandas as pd


# Parameters of every chapter that the command has options for.
_OPTIONS = {name: f"--{name}" for name in ("preset", "device", "workers")}
_OPTIONS["results_dir"] = "--results"


@main.command()
@click.argument("chapter")
@click.option("--preset", default="smoke", show_default=True, help="How much to do.")
@click.option(
    "-p",
    "--parameter",
    "overrides",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Change a parameter of the chapter; VALUE is read as YAML. Repeatable.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--workers", default=0, help="Processes; one per core or GPU by default.")
@click.option("--cluster", default="", help="Dask scheduler, e.g. tcp://host:8786.")
@click.option("--minutes", type=float, help="Stop before; the next call goes on.")
@results_folder
@click.option("--rows-only", is_flag=True, help="Compute the rows, draw no pages.")
@click.option("--pages-only", is_flag=True, help="Draw from the rows there are.")
@guard
def run(
    chapter: str,
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    device: str,
    workers: int,
    cluster: str,
    minutes: float | None,
    folder: Path | None,
    rows_only: bool,
    pages_only: bool,
) -> None:
    r"""Compute what CHAPTER lacks, execute it and render the book.

    CHAPTER is 01, 02, 03, 04, a chapter's name or "all". Finished runs are kept and
    never computed again; the pages go to _build/book/html.

    \b
    Examples:
      widemin run 02 --preset lab -p rhos "[0.05, 0.1]" -p epochs 3
      widemin run all --preset lab --device cuda --results runs
      widemin run 01 --preset lab --minutes 30    the next call goes on
      widemin run 04 --preset lab --cluster tcp://127.0.0.1:8786
    """
    started = time.time()
    from widemin import paths
    from widemin.book import notebooks
    from widemin.experiments import results, running

    names = notebooks.find(chapter)
    _check_call(workers, minutes, cluster, rows_only and pages_only)
    for name, option in _OPTIONS.items():
        if given := dict(overrides).get(name):
            raise ValueError(f"{name} must be given as {option}; got -p {name} {given}")
    device = running.pick_device("none" if pages_only else device)
    # Chapters are drawn from the rows there are: all that is to be computed is.
    machine = {"device": "none"}
    if folder:
        machine["results_dir"] = str(folder.absolute())
    folder = folder or paths.results()
    plans = notebooks.settings(names, preset, dict(overrides), **machine)
    pages = {name: own for name, (own, *_) in plans.items()}
    recipes = notebooks.by_worth(plans, notebooks.stages(preset))
    if not recipes:
        given = ", ".join(" ".join(each) for each in overrides)
        raise ValueError(f"parameters must leave a run to compute; got {given}")
    if device != "none" and not folder.is_dir():
        _writable(folder)
    todo = [] if device == "none" else results.missing(recipes, folder)
    known = results.published() | results.computed(recipes, folder)
    old = [] if device == "none" else running.outdated(recipes, known, folder)
    if todo or old:  # a folder that is only read holds all there is to draw
        _writable(folder)
    lacking = _not_at_hand(todo + old)
    total = len({recipe.key for recipe in recipes})
    if device != "none":
        click.echo(f"{total} runs planned, {len(todo)} to compute ({device})", err=True)
    todo = [recipe for recipe in todo if recipe.dataset not in lacking]
    if preset == "paper":  # hours each: which are next is worth a line
        for recipe in todo[:5]:
            click.echo(f"  next: {_in_words(recipe)}", err=True)
    ready = [recipe for recipe in recipes if recipe.dataset not in lacking]
    how: dict[str, Any] = {"device": device, "workers": workers, "cluster": cluster}
    how["until"] = None if minutes is None else started + 60 * minutes
    if old := [recipe for recipe in old if recipe.dataset not in lacking]:
        click.echo(f"{len(old)} runs to measure again in part", err=True)
        again = running.renewer(device, folder, {r.key: known[r.key] for r in old})
        results.collect(old, again, folder, label="Measuring", again=True, **how)
    work = running.runner(device, folder, todo)
    table = results.collect(ready, work, folder, label="Computing", **how)
    if device == "none":
        click.echo(f"{total} runs planned, {table.attrs['done']} there", err=True)
        _check_drawable(pages, table, preset, folder)
    if lacking and table.attrs["done"] == table.attrs["planned"]:
        raise next(iter(lacking.values()))  # all else is done and kept
    if table.attrs["done"] < total and device != "none":
        _say_what_is_left(recipes, folder)
    elif not rows_only:
        with alone():
            draw("book", list(pages.items()), folder)


def _in_words(recipe: Any) -> str:
    """Return a run in a line: network, data set, method, step and length."""
    about = f"{recipe.model} on {recipe.dataset}, {recipe.method}, {recipe.optimizer}"
    about += f", batch size {recipe.batch_size}, learning rate {recipe.learning_rate:g}"
    momentum = f", momentum {recipe.momentum:g}" if recipe.momentum else ""
    return f"{about}{momentum}, {recipe.epochs} epochs, seed {recipe.seed}"


def _check_call(
    workers: int, minutes: float | None, cluster: str, neither: bool
) -> None:
    if workers < 0:
        raise ValueError(f"workers must be at least 0; got {workers}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be above 0; got {minutes}")
    if cluster and not re.fullmatch(r"\w+://[^:/]+:\d+", cluster):
        raise ValueError(f"cluster must be like tcp://host:8786; got {cluster!r}")
    if neither:
        raise ValueError("rows-only and pages-only must not both be given; got both")


def _check_drawable(
    pages: dict[str, dict[str, Any]], table: pd.DataFrame, preset: str, folder: Path
) -> None:
    """Raise ValueError for a page that has no rows at all."""
    from widemin.book import notebooks
    from widemin.experiments import results

    for name, values in pages.items():
        mine = results.part(table, notebooks.recipes(name, values))
        if not mine.attrs["done"]:
            raise ValueError(
                f"results must hold a row of {name} at preset {preset} to draw "
                f"from; found none in {folder}: run it without --pages-only"
            )


def _say_what_is_left(recipes: list[Any], folder: Path) -> None:
    from widemin.experiments import checkpoints, progress

    state = progress.state(recipes, folder)
    shares, trained = checkpoints.begun(state.missing, folder / "weights")
    at = ", ".join(f"{100 * share:.0f} %" for share in shares)
    under_way = [f"training at {at}"] if at else []
    under_way += [f"{trained} trained and not yet measured"] if trained else []
    kept = "what is under way is kept"
    if under_way:
        kept += f": {', '.join(under_way)}"
    click.echo(
        f"Stopped in time: {state.done} of {state.planned} runs done, "
        f"{state.planned - state.done} left{about(state.left)}; {kept}. The same "
        "command goes on; with --pages-only it draws what is there.",
        err=True,
    )


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"results must be a folder that can be written; got {folder} "
            f"({error.strerror})"
        ) from error


def _not_at_hand(todo: list[Any]) -> dict[str, ValueError]:
    """Load a test image of each data set, here and once, before workers ask for it.

    Where other runs can go on, their wait is said at once and raised at the end.

    Returns:
        The errors of the data sets that cannot be had, by name.
    """
    from widemin import data

    runs = Counter(recipe.dataset for recipe in todo)
    lacking: dict[str, ValueError] = {}
    for name in sorted(runs):
        try:
            data.load(name, "test", size=1)
        except data.DataError as error:
            lacking[name] = error
    if lacking and lacking.keys() == runs.keys():
        raise next(iter(lacking.values()))
    for name in lacking:
        click.echo(f"{name} is not at hand; runs left out: {runs[name]}", err=True)
    return lacking
