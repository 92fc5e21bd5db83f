"""`widemin book`, `widemin labs`: what is made of rows and sources."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from widemin.cli.group import FOLDER, guard, hearing_termination, main, need

# A chapter and its parameters.
Page = tuple[str, dict[str, Any]]
# What chapters are executed and rendered by.
PAGES = ("papermill", "jupyter_book")


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
@click.option("--figures", is_flag=True, help="Write its figures as SVG and PDF, too.")
@guard
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
    need(*PAGES, *["playwright"] * figures)
    drawn = names if edition == "site" else []
    chapters = [(name, notebooks.resolve(name, "site", fixed)) for name in drawn]
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

    paths.checkout()
    lock = paths.lock(paths.BUILD / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        click.echo("Waiting for another command that draws pages here", err=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def draw(
    edition: str, chapters: Sequence[Page], folder: Path, *, readme: bool = False
) -> None:
    """Execute the chapters that are stale, two at a time, and render the edition."""
    from widemin.book import build, notebooks, verdicts
    from widemin.experiments import results

    jobs = []
    for name, chosen in chapters:
        keys = [recipe.key for recipe in notebooks.recipes(name, chosen)]
        done = sorted(results.finished(folder, keys))
        stamp = notebooks.digest(name, chosen, done)
        target = verdicts.executed(edition, name)
        if not notebooks.is_current(target, stamp):
            jobs.append((name, chosen, target, stamp))
    if jobs:
        click.echo(f"Drawing {', '.join(job[0] for job in jobs)}", err=True)
    front, fresh = None, False
    with results.progress_bar(len(jobs) + 1, "Drawing") as bar:
        failures = _execute_all(jobs, bar) if jobs else []
        if readme and not failures:  # before the pages: the front one shows its figure
            build.write_readme(edition)
        try:
            front, fresh = build.render(edition)
        except build.BuildFailed as failure:
            failures.append(str(failure))
        bar.update(1)
    if front:
        click.echo(f"{'Rendered' if fresh else 'Unchanged:'} {front}", err=True)
    if failures:
        raise notebooks.ChapterFailed("\n".join(failures))


def _execute_all(jobs: list[tuple[Any, ...]], bar: Any) -> list[str]:
    """Execute chapters in processes of their own; return what failed."""
    from widemin.experiments.pool import cores

    workers, failures = min(len(jobs), cores()), []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(_execute, *job) for job in jobs]):
                if failure := future.exception():
                    failures.append(str(failure))
                bar.update(1)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return failures


def _execute(chapter: str, values: dict[str, Any], target: Path, stamp: str) -> None:
    """Execute a chapter in a process of its own, whose kernel ends when it does."""
    from widemin.book import notebooks

    # What fails comes back; a process that is interrupted says nothing besides.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with hearing_termination():
        notebooks.execute(chapter, values, target, stamp)


@main.command()
@click.argument("folder", type=FOLDER, required=False)
@guard
def labs(folder: Path | None) -> None:
    r"""Put the labs together, for students and for instructors.

    A second call renews the files of the first. What is there besides stays:
    submissions, grades, files edited since. A folder of other files is refused.

    \b
    Example:
      widemin labs _build/labs
    """
    from widemin import paths
    from widemin.book import labs as course

    folder = folder or paths.BUILD / "labs"
    kept = course.release(folder)
    if kept:
        click.echo(f"Edited, left as they are: {', '.join(map(str, kept))}", err=True)
    click.echo(f"{', '.join(course.names())}: {folder / 'student'}", err=True)
