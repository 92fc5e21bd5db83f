"""`widemin run`: what a chapter lacks is computed, then it is drawn."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from widemin.cli.book import PAGES, alone, draw
from widemin.cli.group import about, guard, main, need, results_folder


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
    limit = math.inf if minutes is None else minutes
    neither = rows_only and pages_only
    _check_call(dict(overrides), workers, limit, cluster, neither)
    need(*["distributed"] * bool(cluster), *[] if rows_only else PAGES)
    device = running.pick_device("none" if pages_only else device)
    # Chapters are drawn from the rows there are: all that is to be computed is.
    machine = {"device": "none"}
    if folder:
        machine["results_dir"] = str(folder.absolute())
    folder = folder or paths.results()
    plans = notebooks.settings(names, preset, dict(overrides), **machine)
    recipes = notebooks.by_worth(plans, notebooks.stages(preset))
    if not recipes:
        given = ", ".join(" ".join(each) for each in overrides)
        raise ValueError(f"parameters must leave a run to compute; got {given}")
    pages = {name: own for name, (own, *_) in plans.items()}
    if device == "none":
        table = results.table_of(recipes, folder)
        planned = len({recipe.key for recipe in recipes})
        click.echo(f"{planned} runs planned, {table.attrs['done']} there", err=True)
        for name, own in pages.items():
            if not results.part(table, notebooks.recipes(name, own)).attrs["done"]:
                raise ValueError(
                    f"results must hold a row of {name} at preset {preset} to draw "
                    f"from; found none in {folder}: run it without --pages-only"
                )
    else:
        until = started + 60 * minutes if minutes else None
        how = {"workers": workers, "cluster": cluster, "until": until}
        if not _compute(recipes, folder, device, how, preset == "paper"):
            return _say_what_is_left(recipes, folder)
    if not rows_only:
        with alone():
            draw("book", list(pages.items()), folder)


def _compute(
    recipes: list[Any], folder: Path, device: str, how: dict[str, Any], tell: bool
) -> bool:
    """Compute what is missing or outdated; return True if nothing is left.

    Raises:
        DataError: All is done but for runs on data that cannot be had.
    """
    from widemin.experiments import results, running

    if not folder.is_dir():
        _writable(folder)
    todo = results.missing(recipes, folder)
    known = results.published() | results.computed(recipes, folder)
    old = running.outdated(recipes, known, folder)
    if todo or old:  # a folder that is only read holds all there is to draw
        _writable(folder)
    lacking = _not_at_hand(todo + old)
    planned = len({recipe.key for recipe in recipes})
    click.echo(f"{planned} runs planned, {len(todo)} to compute ({device})", err=True)
    ready, todo, old = (
        [recipe for recipe in runs if recipe.dataset not in lacking]
        for runs in (recipes, todo, old)
    )
    for recipe in todo[:5] if tell else ():
        click.echo(f"  next: {_in_words(recipe)}", err=True)
    how = {"device": device, **how}
    if old:
        click.echo(f"{len(old)} runs to measure again in part", err=True)
        again = running.renewer(device, folder, {r.key: known[r.key] for r in old})
        results.collect(old, again, folder, label="Measuring", again=True, **how)
    work = running.runner(device, folder, todo)
    table = results.collect(ready, work, folder, label="Computing", **how)
    if lacking and table.attrs["done"] == table.attrs["planned"]:
        raise next(iter(lacking.values()))  # all else is done and kept
    return bool(table.attrs["done"] == planned)


def _in_words(recipe: Any) -> str:
    """Return a run in a line: network, data set, method, step and length."""
    about = f"{recipe.model} on {recipe.dataset}, {recipe.method}, {recipe.optimizer}"
    about += f", batch size {recipe.batch_size}, learning rate {recipe.learning_rate:g}"
    momentum = f", momentum {recipe.momentum:g}" if recipe.momentum else ""
    return f"{about}{momentum}, {recipe.epochs} epochs, seed {recipe.seed}"


def _check_call(
    given: dict[str, str], workers: int, minutes: float, cluster: str, neither: bool
) -> None:
    if workers < 0:
        raise ValueError(f"workers must be at least 0; got {workers}")
    if not minutes > 0:
        raise ValueError(f"minutes must be above 0; got {minutes}")
    if cluster and not re.fullmatch(r"\w+://[^:/]+:\d+", cluster):
        raise ValueError(f"cluster must be like tcp://host:8786; got {cluster!r}")
    if neither:
        raise ValueError("rows-only and pages-only must not both be given; got both")
    for name in ("preset", "device", "workers", "results_dir"):
        if value := given.get(name):
            option = f"--{name.removesuffix('_dir')}"
            raise ValueError(f"{name} must be given as {option}; got -p {name} {value}")


def _say_what_is_left(recipes: list[Any], folder: Path) -> None:
    from widemin.experiments import checkpoints, progress

    state = progress.state(recipes, folder)
    shares, trained = checkpoints.begun(state.missing, folder / "weights")
    at = ", ".join(f"{100 * share:.0f} %" for share in shares)
    under_way = [f"training at {at}"] if at else []
    under_way += [f"{trained} trained and not yet measured"] if trained else []
    click.echo(
        f"Stopped in time: {state.done} of {state.planned} runs done, "
        f"{state.planned - state.done} left{about(state.left)}; what is under way is "
        f"kept{': ' if under_way else ''}{', '.join(under_way)}. The same "
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

    Returns:
        The errors of the data sets that cannot be had, by name, each said at once
        where other runs can go on, to be raised at the end.
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
