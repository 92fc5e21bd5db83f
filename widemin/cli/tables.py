"""`widemin status`, `where`, `data`, `publish`: what is there."""

from __future__ import annotations

from pathlib import Path

import click

from widemin.cli.group import about, guard, main, results_folder, span
from widemin.names import check_choice


@main.command()
@click.option("--preset", "chosen", help="Only this preset.")
@click.option(
    "--papers", is_flag=True, help="Instead: how much of the papers' tables stands."
)
@results_folder
@guard
def status(chosen: str | None, papers: bool, folder: Path | None) -> None:
    r"""Show, for each chapter and preset, how far its runs are.

    Planned runs, done ones (here or published), those running now, those that failed
    when last tried, diverged, or are stale: of an older revision, to be computed again.
    Work spent is in core time; what is left is an estimate for this machine's cores.
    GPU h is a guess of the hours one H200 would take, by the operations of training.

    With --papers, for each table of the four papers: its cells (a cell is a network
    that the paper trains), those that stand here at the paper's own settings with at
    least one seed and every printed column, how many of these are of networks that
    collapsed, those planned at the preset "paper" and those not planned, and the
    runs, all seeds; the last line is the share.

    \b
    Examples:
      widemin status --preset lab
      widemin status --papers
    """
    from widemin import paths
    from widemin.book import notebooks
    from widemin.experiments import cost, progress

    folder, chapters = folder or paths.results(), notebooks.chapters()
    if papers:
        if chosen:
            raise ValueError(f"preset must not be given with --papers; got {chosen!r}")
        return _papers(folder)
    known = notebooks.presets()
    if chosen:
        check_choice("preset", chosen, known)
    counts = ("planned", "done", "running", "failed", "diverged", "stale")
    heads = [*counts, "spent", "left", "GPU h"]
    click.echo(f"{'chapter':34} {'preset':10}" + "".join(f"{h:>10}" for h in heads))
    for preset in [chosen] if chosen else known:
        for chapter in chapters:
            recipes = notebooks.plan(chapter, preset)
            state = progress.state(recipes, folder)
            row = [str(getattr(state, name)) for name in counts]
            left = about(state.left).removeprefix(", about ") or "?"
            row += [span(state.spent), left if state.done < state.planned else "-"]
            row += [f"{cost.gpu_hours(state.missing):.1f}" if state.missing else "-"]
            click.echo(f"{chapter:34} {preset:10}" + "".join(f"{v:>10}" for v in row))


def _papers(folder: Path) -> None:
    from widemin.book import coverage

    covers = coverage.of_all(folder)
    rows = coverage.rows(covers)
    for name, *cells in (list(rows[0]), *(list(row.values()) for row in rows)):
        short = (cell.replace(" hours ", " h ") for cell in cells)
        click.echo(f"{name:40}" + "".join(f"{cell:>15}" for cell in short))
    click.echo(coverage.share(covers))


@main.command()
@click.argument("figure")
@guard
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
@guard
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
    "--preset",
    "presets",
    default=["site"],
    show_default=True,
    multiple=True,
    help="Whose rows; repeatable. The table has no others.",
)
@click.option("--scale", default="lab", show_default=True, help="Folder of the table.")
@results_folder
@click.option(
    "--networks",
    "also",
    is_flag=True,
    help="Copy the networks that decide a claim into book/networks.",
)
@guard
def publish(
    chapter: str, presets: tuple[str, ...], scale: str, folder: Path | None, also: bool
) -> None:
    r"""Write a chapter's finished rows to book/results, to be committed.

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
        done, planned = table.attrs["done"], table.attrs["planned"]
        click.echo(f"{target}: {done} of {planned} runs")
        if also:
            # Those that have a briefly trained network to be compared with.
            decisive = [recipe for recipe in recipes if recipe.brief_epochs]
            for file in checkpoints.publish(decisive, folder / "weights"):
                click.echo(f"{paths.NETWORKS / file}")
