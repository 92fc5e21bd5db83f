"""`widemin run`, `book`, `labs`: rows are computed, pages drawn, labs put together."""

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click

from widemin.cli import FOLDER, hearing_termination, main, need, results_folder, span
from widemin.names import check

# What chapters are executed and rendered by.
PAGES = ("nbclient", "jupyter_book")
EDITIONS = click.Choice(["book", "site"])


@main.command()
@click.argument("chapter")
@click.option("--preset", default="smoke", help="How much to do.")
@click.option(
    "-p",
    "--parameter",
    "overrides",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Change a parameter of the chapter; VALUE is read as YAML. Repeatable.",
)
@click.option("--device", default="auto", help="auto, cpu or cuda.")
@click.option("--workers", default=0, help="Processes; 0 is one per core or GPU.")
@click.option(
    "--cluster", default="", show_default=False, help="Dask, e.g. tcp://host:8786."
)
@click.option("--minutes", type=float, help="Stop before; the next call goes on.")
@results_folder
@click.option("--rows-only", is_flag=True, help="Compute the rows, draw no pages.")
@click.option("--pages-only", is_flag=True, help="Draw from the rows there are.")
def run(
    chapter: str,
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    minutes: float | None,
    folder: Path | None,
    rows_only: bool,
    pages_only: bool,
    **how: Any,
) -> None:
    r"""Compute what CHAPTER lacks, execute it and render the book.

    CHAPTER is 01, 02, 03, 04, 05, a chapter's name or "all"; or 00, the primer, which
    has no runs and is only drawn. Finished runs are kept and never computed again; the
    pages go to _build/book/html.

    \b
    Examples:
      widemin run 02 --preset lab -p rhos "[0.05, 0.1]" -p epochs 3
      widemin run all --preset lab --device cuda --results runs
      widemin run 01 --preset lab --minutes 30    the next call goes on
      widemin run 04 --preset lab --cluster tcp://127.0.0.1:8786
    """
    how["until"] = None if minutes is None else time.time() + 60 * minutes
    from widemin import paths
    from widemin.book import notebooks
    from widemin.experiments import results, running

    drawn, given, cluster = notebooks.pages(chapter), dict(overrides), how["cluster"]
    names = [name for name in drawn if name != notebooks.PRIMER]
    check(how["workers"] >= 0, "workers must be at least 0", how["workers"])
    check(minutes is None or minutes > 0, "minutes must be above 0", minutes)
    address = re.fullmatch(r"(\w+://[^:/]+:\d+)?", cluster)
    check(address, "cluster must be like tcp://host:8786", repr(cluster))
    both = rows_only and pages_only
    check(not both, "rows-only and pages-only must not both be given", "both")
    words = ", ".join(map(" ".join, overrides))
    wanted = f"{notebooks.PRIMER} must come without -p and --rows-only: it has no runs"
    asked = f"-p {words}" if words else "--rows-only"
    check(names or not (words or rows_only), wanted, asked)
    for name in ("preset", "device", "workers", "results_dir"):
        meant = f"{name} must be given as --{name.removesuffix('_dir')}"
        check(not given.get(name), meant, f"-p {name} {given.get(name)}")
    need(*["distributed"] * bool(cluster), *[] if rows_only else PAGES)
    how["device"] = running.pick_device("none" if pages_only else how["device"])
    # Chapters are drawn from the rows there are: all that is to be computed is.
    own = str(folder.absolute()) if folder else ""
    folder, machine = folder or paths.results(), {"device": "none", "results_dir": own}
    plans = notebooks.settings(names, preset, given, **machine)
    recipes = notebooks.by_worth(plans, preset)
    check(recipes or not names, "parameters must leave a run to compute", words)
    if names and how["device"] == "none":
        table = results.table_of(recipes, folder)
        done = table.attrs["done"]
        click.echo(f"{len(recipes)} runs planned, {done} there", err=True)
        for name, (page, *_) in plans.items():
            part = results.part(table, notebooks.recipes(name, page))
            wanted = f"results must hold a row of {name} at preset {preset}"
            got = f"none in {folder} to draw from: run it without --pages-only"
            check(part.attrs["done"], wanted, got)
    elif names and not _compute(recipes, folder, how, 5 * (preset == "paper")):
        return _say_what_is_left(recipes, folder)
    if not rows_only:
        chosen = [(name, plans[name][0] if name in plans else {}) for name in drawn]
        with alone():
            draw("book", chosen, folder)


def _compute(
    recipes: list[Any], folder: Path, how: dict[str, Any], announced: int
) -> bool:
    """Compute what is missing or outdated; return True if nothing is left.

    The next few runs are `announced`; `how` is what `results.collect` takes besides. If
    all is done but for runs on data that cannot be had, it raises DataError.
    """
    from widemin.experiments import results, running

    if not folder.is_dir():
        _check_writable(folder)
    todo, device = results.missing(recipes, folder), how["device"]
    known = results.published() | results.computed(recipes, folder)
    old = running.outdated(recipes, known, folder)
    if todo or old:  # a folder that is only read holds all there is to draw
        _check_writable(folder)
    lacking = _not_at_hand(todo + old)
    planned = f"{len(recipes)} runs planned, {len(todo)} to compute ({device})"
    click.echo(planned, err=True)
    ready, todo, old = (
        [recipe for recipe in runs if recipe.dataset not in lacking]
        for runs in (recipes, todo, old)
    )
    for recipe in todo[:announced]:
        click.echo(f"  next: {recipe}", err=True)
    if old:
        click.echo(f"{len(old)} runs to measure again in part", err=True)
        again = running.renewer(device, folder, {r.key: known[r.key] for r in old})
        results.collect(old, again, folder, label="Measuring", again=True, **how)
    work = running.runner(device, folder, todo)
    table = results.collect(ready, work, folder, label="Computing", **how)
    if lacking and table.attrs["done"] == table.attrs["planned"]:
        raise next(iter(lacking.values()))  # all else is done and kept
    return bool(table.attrs["done"] == len(recipes))


def _say_what_is_left(recipes: list[Any], folder: Path) -> None:
    from widemin.experiments import checkpoints, pool, progress

    state = progress.state(recipes, folder)
    about = "" if state.left is None else f", about {span(state.left / pool.cores())}"
    shares, trained = checkpoints.begun(state.missing, folder / "weights")
    kept = [f"training at {100 * share:.0f} %" for share in shares]
    kept += [f"{trained} trained and not yet measured"] * bool(trained)
    click.echo(
        f"Stopped in time: {state.done} of {state.planned} runs done, "
        f"{state.planned - state.done} left{about}; what is under way is "
        f"kept{': ' if kept else ''}{', '.join(kept)}. The same "
        "command goes on; with --pages-only it draws what is there.",
        err=True,
    )


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        wanted, why = "results must be a folder that can be written", error.strerror
        raise ValueError(f"{wanted}; got {folder} ({why})") from error


def _not_at_hand(todo: list[Any]) -> dict[str, ValueError]:
    """Return the errors of data sets that cannot be had, by name; load one image each.

    Here and once, before workers ask for it; where no other run can go on, raised.
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


@main.command()
@click.option(
    "--edition", type=EDITIONS, default="book", help="What ran here, or is published."
)
@click.option("--readme", is_flag=True, help="Write its findings into README.md.")
@click.option("--pdf", is_flag=True, help="Print it as one PDF, too.")
@click.option("--figures", is_flag=True, help="Write its figures as SVG and PDF, too.")
def book(edition: str, readme: bool, pdf: bool, figures: bool) -> None:
    r"""Render the book: what ran on this machine, or the published edition.

    \b
    Examples:
      widemin book                  _build/book/html from the chapters that ran here
      widemin book --edition site   _build/site/html from the tables in book/results
    """
    from widemin import paths
    from widemin.book import build, notebooks

    fixed, names = {"device": "none", "results_dir": "published"}, notebooks.chapters()
    need(*PAGES, *["playwright"] * (pdf or figures))
    chapters = [(name, notebooks.resolve(name, "site", fixed)) for name in names]
    chapters = [(notebooks.PRIMER, {}), *chapters] if edition == "site" else []
    with alone():
        draw(edition, chapters, paths.PUBLISHED, readme=readme)
        if pdf:
            click.echo(f"Printed {build.print_pdf(edition)}", err=True)
        if figures:
            click.echo(f"Wrote {build.write_figures(edition)}", err=True)


@contextmanager
def alone() -> Iterator[None]:
    """Have the checkout's pages to oneself; say so where another command has them."""
    from filelock import Timeout

    from widemin import paths
    from widemin.experiments import disk

    disk.checkout()
    lock = disk.lock(paths.BUILD / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        click.echo("Waiting for another command that draws pages here", err=True)
        held = lock.acquire()
    with held:
        yield


def draw(
    edition: str, chapters: list[Any], folder: Path, *, readme: bool = False
) -> None:
    """Execute those chapters that are stale, one a core, and render the edition."""
    from widemin.book import build, notebooks, verdicts
    from widemin.experiments import pool, results

    jobs = []
    for name, chosen in chapters:
        keys = [recipe.key for recipe in notebooks.recipes(name, chosen)]
        stamp = notebooks.digest(name, chosen, results.finished(folder, keys))
        target = verdicts.executed(edition, name)
        if not notebooks.is_current(target, stamp):
            jobs.append((name, chosen, target, stamp))
    if jobs:
        click.echo(f"Drawing {', '.join(job[0] for job in jobs)}", err=True)
    failures: list[Any] = []
    with (
        closing(pool.outcomes(jobs, _execute)) as executed,
        results.progress_bar(len(jobs) + 1, "Drawing") as bar,
    ):
        for _, failure in executed:
            failures += [failure] * bool(failure)
            bar.update(1)
        if readme and not failures:  # before the pages: the front one shows its figure
            build.write_readme(edition)
        front = None
        try:
            front, fresh = build.render(edition)
        except build.BuildFailed as unbuilt:
            failures.append(unbuilt)
        bar.update(1)
    if front:
        click.echo(f"{'Rendered' if fresh else 'Unchanged:'} {front}", err=True)
    if failures:
        raise notebooks.ChapterFailed("\n".join(map(str, failures)))


def _execute(job: Any) -> Any:
    """Execute a chapter in a process of its own; return why it failed, if it did."""
    from widemin.book import notebooks

    # What fails comes back; a process that is interrupted says nothing besides.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        with hearing_termination():  # its kernel ends when it does
            notebooks.execute(*job)
    except notebooks.ChapterFailed as failure:
        return str(failure)
    return ""


@main.command()
@click.argument("folder", type=FOLDER, required=False)
def labs(folder: Path | None) -> None:
    r"""Put the labs together, for students and for instructors.

    A second call renews the files of the first and leaves all else: submissions,
    grades, files edited since. A folder of other files is refused.

    \b
    Example:
      widemin labs _build/labs
    """
    from widemin import paths
    from widemin.book import labs as course

    folder = folder or paths.BUILD / "labs"
    if kept := course.release(folder):
        click.echo(f"Edited, left as they are: {', '.join(map(str, kept))}", err=True)
    click.echo(f"{', '.join(course.names())}: {folder / 'student'}", err=True)
