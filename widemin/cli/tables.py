"""`widemin status`, `where`, `data`, `publish`: what is there."""

from collections.abc import Iterable
from pathlib import Path

import click

from widemin.cli import main, results_folder, span
from widemin.names import check, check_choice


@main.command()
@click.option("--preset", "chosen", help="Only this preset.")
@click.option("--papers", is_flag=True, help="Instead: cells of the papers' tables.")
@results_folder
def status(chosen: str | None, papers: bool, folder: Path | None) -> None:
    r"""Show, for each chapter and preset, how far its runs are.

    Done ones are here or published; stale ones of an older revision, to be computed
    again. Work spent is in core time; what is left is an estimate for this machine's
    cores, GPU h a guess for one H200. With --papers a cell is a network that a table
    trains; it stands at the paper's own settings with every printed column.

    \b
    Examples:
      widemin status --preset lab
      widemin status --papers
    """
    from widemin import paths
    from widemin.book import coverage, notebooks
    from widemin.experiments import pool, progress

    def show(name: str, cells: Iterable[str], width: int) -> None:
        click.echo(f"{name:45}" + "".join(f"{cell:>{width}}" for cell in cells))

    folder, chapters = folder or paths.results(), notebooks.chapters()
    if papers:
        check(not chosen, "preset must not be given with --papers", repr(chosen))
        covers = coverage.of_all(folder)
        rows = coverage.rows(covers)
        for name, *cells in (rows[0], *(row.values() for row in rows)):
            show(name, (cell.replace(" hours ", " h ") for cell in cells), 15)
        return click.echo(coverage.share(covers))
    presets = notebooks.presets()
    if chosen:
        check_choice("preset", chosen, presets)
    counts = ("planned", "done", "running", "failed", "diverged", "stale")
    show(f"{'chapter':34} preset", [*counts, "spent", "left", "GPU h"], 10)
    for preset in [chosen] if chosen else presets:
        for chapter in chapters:
            state = progress.state(notebooks.plan(chapter, preset), folder)
            row = [str(getattr(state, name)) for name in counts] + [span(state.spent)]
            left = "?" if state.left is None else span(state.left / pool.cores())
            hours = f"{progress.gpu_hours(state.missing):.1f}"
            row += [left, hours] if state.missing else ["-", "-"]
            show(f"{chapter:34} {preset}", row, 10)


@main.command()
@click.argument("figure")
def where(figure: str) -> None:
    r"""Show the code behind a FIGURE of the book, by its label.

    File and line of the functions that draw it, and for each column they name, of
    what computes it.

    \b
    Example:
      widemin where fig-robust
    """
    from widemin.book import where as code

    for function in code.functions(figure):
        click.echo(f"{function.__name__:28} {code.line(function)}")
    for name, column in code.columns(figure).items():
        click.echo(f"  {name:26} {code.line(column.function)}")


@main.command()
@click.argument("names", nargs=-1, required=True)
def data(names: tuple[str, ...]) -> None:
    r"""Fetch and verify data sets ahead of time.

    They go to WIDEMIN_DATA or, by default, to the user's cache.

    \b
    Example:
      widemin data mnist cifar10
    """
    from widemin import data as datasets

    for name in names:
        check_choice("dataset", name, datasets.DATASETS)
    for name in names:
        train, test = (len(datasets.load(name, part)) for part in ("train", "test"))
        held = datasets.DATASETS[name].held_out
        click.echo(f"{name}: {train} train, {held} validation, {test} test images")


@main.command()
@click.argument("chapter")
@click.option(
    "--preset", "presets", default=["site"], multiple=True, help="Whose; repeatable."
)
@click.option("--scale", default="lab", help="Folder of the table.")
@results_folder
@click.option("--networks", is_flag=True, help="Copy networks, too.")
def publish(
    chapter: str,
    presets: tuple[str, ...],
    scale: str,
    folder: Path | None,
    networks: bool,
) -> None:
    r"""Write a chapter's finished rows to book/results, to be committed.

    The table has the presets' rows and no others. With --networks, the networks that
    decide a claim are copied into book/networks.

    \b
    Examples:
      widemin publish all --preset site --results runs
      widemin publish 04 --preset paper --preset paper-part --scale paper
    """
    from widemin import paths
    from widemin.book import notebooks
    from widemin.experiments import checkpoints, results

    names, folder = notebooks.find(chapter), folder or paths.results()
    for name in names:
        recipes = [run for preset in presets for run in notebooks.plan(name, preset)]
        table = results.table_of(recipes, folder)
        target = paths.PUBLISHED / scale / f"{name}.csv"
        if not table.attrs["done"]:
            click.echo(f"{target}: no finished run, left as it is")
            continue
        slim = results.without_defaults(table, recipes)
        results.publish(slim, target.parent, name)
        click.echo("{}: {done} of {planned} runs".format(target, **table.attrs))
        if networks:
            # Those that have a briefly trained network to be compared with.
            decisive = [recipe for recipe in recipes if recipe.brief_epochs]
            for file in checkpoints.publish(decisive, folder / "weights"):
                click.echo(f"{paths.NETWORKS / file}")
