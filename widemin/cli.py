"""The command `widemin`: run chapters, render the book, fetch data.

Everything but click is imported where it is needed: planning and computing runs
needs neither Jupyter nor a plotting library.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import wraps
from pathlib import Path
from typing import Any

import click

import widemin


class BadInput(click.ClickException):
    """Something the user gave: one line on stderr, exit status 2, nothing written."""

    exit_code = 2


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can cause into one line and an exit status."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ValueError as error:
            raise BadInput(str(error)) from error
        except RuntimeError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:  # `widemin status | head`: click knows what to do
            raise
        except OSError as error:  # a full disk, say
            what = f"{error.filename or 'the system'}: {error.strerror or error}"
            raise click.ClickException(what) from error
        except KeyboardInterrupt:
            click.echo("Stopped; what is finished or begun is kept.", err=True)
            sys.exit(130)

    return guarded


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(widemin.__version__, prog_name="widemin")
def main() -> None:
    r"""Rerun four papers on wide minima and adversarial robustness.

    \b
    Examples:
      widemin run all                       every chapter at the smoke preset
      widemin run 04 --preset lab           chapter 4 on real MNIST, 20 minutes
      widemin run 02 -p rhos "[0.05, 0.1]"  with other radii
      widemin status                        what has been computed
    """


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
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of finished runs; by default in the user's cache.",
)
@click.option("--rows-only", is_flag=True, help="Compute the rows, draw no pages.")
@click.option("--pages-only", is_flag=True, help="Draw from the rows there are.")
@_guarded
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
    from widemin import experiments, notebooks, paths, progress, results
    from widemin.data import check_choice

    names = notebooks.find(chapter)
    if workers < 0:
        raise ValueError(f"workers must be at least 0; got {workers}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be above 0; got {minutes}")
    if cluster and not re.fullmatch(r"\w+://[^:/]+:\d+", cluster):
        raise ValueError(f"cluster must be like tcp://host:8786; got {cluster!r}")
    if rows_only and pages_only:
        raise ValueError("rows-only and pages-only must not both be given; got both")
    device = experiments.pick_device("none" if pages_only else device)
    common = {"results_dir": str(folder.absolute())} if folder else {}
    folder = folder or paths.results()
    given = dict(overrides)
    plans = {}
    for name in names:
        # With "all" a parameter reaches the chapters that have it.
        known = notebooks.defaults(name)
        mine = (
            given if len(names) == 1 else {k: v for k, v in given.items() if k in known}
        )
        # Chapters are drawn from the rows there are: all that is to be computed is.
        values = notebooks.resolve(name, preset, common | mine | {"device": "none"})
        plans[name] = values, notebooks.recipes(name, values)
    if len(names) > 1:
        every = {key for name in names for key in notebooks.defaults(name)}
        for key in given:
            check_choice("parameter", key, sorted(every))
    _writable(folder)
    recipes = [recipe for _, planned in plans.values() for recipe in planned]
    todo = [] if device == "none" else results.missing(recipes, folder)
    _fetch(sorted({recipe.dataset for recipe in todo}))
    total = len({recipe.key for recipe in recipes})
    if device != "none":
        click.echo(f"{total} runs planned, {len(todo)} to compute ({device})", err=True)
    table = results.collect(
        recipes,
        experiments.runner(device, folder, todo),
        folder,
        device=device,
        workers=workers,
        cluster=cluster,
        until=None if minutes is None else started + 60 * minutes,
        label="Computing",
    )
    if device == "none":
        click.echo(f"{total} runs planned, {table.attrs['done']} there", err=True)
        for name, (_, planned) in plans.items():
            if not results.part(table, planned).attrs["done"]:
                raise ValueError(
                    f"results must hold a row of {name} at preset {preset} to draw "
                    f"from; found none in {folder}: run it without --pages-only"
                )
    if table.attrs["done"] < total and device != "none":
        _say_what_is_left(progress.state(recipes, folder))
    elif not rows_only:
        _draw("book", {name: values for name, (values, _) in plans.items()}, folder)


@main.command()
@click.option(
    "--edition",
    type=click.Choice(["book", "site"]),
    default="book",
    show_default=True,
    help="What ran here, or the published tables.",
)
@click.option("--readme", is_flag=True, help="Write its verdicts into README.md.")
@click.option("--pdf", is_flag=True, help="Print it as one PDF, too.")
@_guarded
def book(edition: str, readme: bool, pdf: bool) -> None:
    r"""Render the book: what ran on this machine, or the published edition.

    \b
    Examples:
      widemin book                  _build/book/html from the chapters that ran here
      widemin book --edition site   _build/site/html from the tables in book/results
    """
    from widemin import notebooks, pages, paths

    fixed = {"device": "none", "results_dir": "published"}
    values = {
        name: notebooks.resolve(name, "site", fixed)
        for name in notebooks.chapters()
        if edition == "site"
    }
    _draw(edition, values, paths.PUBLISHED)
    if readme:
        pages.write_readme(edition)
    if pdf:
        click.echo(f"Printed {pages.print_pdf(edition)}", err=True)


def _draw(edition: str, values: dict[str, Any], folder: Path) -> None:
    """Execute the chapters that are stale, two at a time, and render the edition."""
    import multiprocessing

    from widemin import notebooks, pages, results, verdicts
    from widemin.workers import cores

    jobs = []
    for name, chosen in values.items():
        keys = [recipe.key for recipe in notebooks.recipes(name, chosen)]
        done = sorted(results.finished(folder, keys))
        stamp = notebooks.digest(name, chosen, done)
        target = verdicts.executed(edition, name)
        if not notebooks.is_current(target, stamp):
            jobs.append((name, chosen, target, stamp))
    failures = []
    if jobs:
        click.echo(f"Drawing {', '.join(job[0] for job in jobs)}", err=True)
    front, fresh = None, False
    with results.progress_bar(len(jobs) + 1, "Drawing") as bar:
        if jobs:
            context = multiprocessing.get_context("spawn")
            workers = min(len(jobs), cores())
            with ProcessPoolExecutor(workers, context) as pool:
                futures = [pool.submit(notebooks.execute, *job) for job in jobs]
                for future in as_completed(futures):
                    if failure := future.exception():
                        failures.append(str(failure))
                    bar.update(1)
        try:
            front, fresh = pages.render(edition)
        except pages.BuildFailed as failure:
            failures.append(str(failure))
        bar.update(1)
    if front:
        click.echo(f"{'Rendered' if fresh else 'Unchanged:'} {front}", err=True)
    if failures:
        raise notebooks.ChapterFailed("\n".join(failures))


def _say_what_is_left(state: Any) -> None:
    click.echo(
        f"Stopped in time: {state.done} of {state.planned} runs done, "
        f"{state.planned - state.done} left{_about(state.left)}; training under way is "
        "kept. The same command goes on; with --pages-only it draws what is there.",
        err=True,
    )


def _about(seconds: float | None) -> str:
    """Return a time left in words, for all cores of this machine."""
    from widemin.workers import cores

    return "" if seconds is None else f", about {_span(seconds / cores())}"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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


def _fetch(names: list[str]) -> None:
    """Load a test image of each data set, here and once, before workers ask for it."""
    from widemin import data

    for name in names:
        data.load(name, "test", size=1)


@main.command()
@click.option("--preset", "chosen", help="Only this preset.")
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of finished runs; by default in the user's cache.",
)
@_guarded
def status(chosen: str | None, folder: Path | None) -> None:
    r"""Show, for each chapter and preset, how far its runs are.

    Planned runs, done ones (here or published), those running now, those that failed
    when last tried, diverged, or are stale: of an older revision, to be computed again.
    Work spent is in core time; what is left is an estimate for this machine's cores.
    GPU h is a guess of the hours one H200 would take, by the operations of training.

    \b
    Example:
      widemin status --preset lab
    """
    from widemin import notebooks, paths, progress

    folder = folder or paths.results()
    names = [chosen] if chosen else notebooks.presets()
    counts = ("planned", "done", "running", "failed", "diverged", "stale")
    heads = [*counts, "spent", "left", "GPU h"]
    click.echo(f"{'chapter':34} {'preset':7}" + "".join(f"{h:>9}" for h in heads))
    for preset in names:
        for chapter in notebooks.chapters():
            recipes = notebooks.plan(chapter, preset)
            state = progress.state(recipes, folder)
            row = [str(getattr(state, name)) for name in counts]
            left = _about(state.left).removeprefix(", about ") or "?"
            row += [_span(state.spent), left if state.done < state.planned else "-"]
            row += [
                f"{progress.gpu_hours(state.missing):.1f}" if state.missing else "-"
            ]
            click.echo(f"{chapter:34} {preset:7}" + "".join(f"{v:>9}" for v in row))


@main.command()
@click.argument("names", nargs=-1, required=True)
@_guarded
def data(names: tuple[str, ...]) -> None:
    r"""Fetch and verify data sets ahead of time.

    They go to WIDEMIN_DATA or, by default, to the user's cache.

    \b
    Example:
      widemin data mnist cifar10
    """
    from widemin import data as datasets

    for name in names:
        datasets.check_choice("dataset", name, datasets.LOADERS)
    for name in names:
        train, test = (len(datasets.load(name, part)) for part in ("train", "test"))
        held = datasets.HELD_OUT[name]
        click.echo(f"{name}: {train} train, {held} validation, {test} test images")


@main.command()
@click.argument("chapter")
@click.option("--preset", default="site", show_default=True, help="Whose rows.")
@click.option("--scale", default="lab", show_default=True, help="Folder of the table.")
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of finished runs; by default in the user's cache.",
)
@click.option(
    "--networks",
    "also",
    is_flag=True,
    help="Copy the networks that decide a claim into book/networks.",
)
@_guarded
def publish(
    chapter: str, preset: str, scale: str, folder: Path | None, also: bool
) -> None:
    r"""Write a chapter's finished rows to book/results, to be committed.

    \b
    Example:
      widemin publish all --preset site --results runs
    """
    from widemin import notebooks, paths, results

    for name in notebooks.find(chapter):
        recipes = notebooks.plan(name, preset)
        table = results.table_of(recipes, folder or paths.results())
        target = paths.PUBLISHED / scale / f"{name}.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        results.to_csv(results.without_defaults(table, recipes), target)
        done, planned = table.attrs["done"], table.attrs["planned"]
        click.echo(f"{target}: {done} of {planned} runs")
        if also:
            from widemin import networks

            # Those that have a briefly trained network to be compared with.
            decisive = [recipe for recipe in recipes if recipe.brief_epochs]
            weights = (folder or paths.results()) / "weights"
            for file in networks.publish(decisive, weights):
                click.echo(f"{paths.NETWORKS / file}")
