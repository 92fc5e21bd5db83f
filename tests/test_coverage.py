"""What the papers print is planned, counted once, and done by its worth."""

import pytest

from widemin import paths
from widemin.book import coverage, notebooks
from widemin.experiments import progress, results
from widemin.experiments.columns import as_row
from widemin.papers.claims import paper_table

TABLES = coverage.tables()
PAPER = {
    chapter[:2]: notebooks.printed(chapter, "paper") for chapter in notebooks.chapters()
}


def runs(table):
    return [recipe for recipe in PAPER[table.chapter] if table.kept(recipe)]


def test_every_cell_of_every_table_is_planned():
    covers = coverage.of_all(paths.PUBLISHED)
    assert [c.cells for c in covers.values()][:6] == [72, 12, 12, 8, 6, 3]
    for name, cover in covers.items():
        assert cover.missing == 0, name
        assert cover.there + cover.planned == cover.cells, name


def test_the_planned_cells_are_the_printed_ones():
    [grid] = [t for t in TABLES if t.printed == "wide_minima_table2"]
    printed = paper_table(grid.printed)[["batch_size", "learning_rate"]]
    planned = {(r.batch_size, r.learning_rate) for r in runs(grid)}
    assert planned == set(printed.itertuples(index=False, name=None))
    assert {(r.train_size, r.epochs) for r in runs(grid)} == {(60_000, 120)}
    for table in TABLES:
        if table.printed.startswith("sam_"):
            rows = paper_table(table.printed)
            rhos = rows.loc[rows["method"] == "SAM", "strength"].astype(float)
            assert {r.rho for r in runs(table)} == {0.0, *rhos}
            bounds = rows.loc[rows["strength_kind"] == "eps"]
            named = bounds["method"].str.removeprefix("AT-").str.lower()
            assert {str(r.attack or "") for r in runs(table)} == {
                "",
                *(named + " " + bounds["strength"]),
            }


def test_no_run_stands_in_two_tables_of_one_kind():
    """Curves and data sets do not overlap; both of Wang et al.'s count one network."""
    for chapter in ("01", "02", "04"):
        tables = [table for table in TABLES if table.chapter == chapter]
        for recipe in PAPER[chapter]:
            assert sum(table.kept(recipe) for table in tables) == 1, recipe


def rows_of(recipe, **measured):
    return [{**as_row(recipe), "measured": "final", **measured}]


def test_a_run_that_is_there_moves_its_cell():
    [table] = [t for t in TABLES if t.printed == "dynamic_table3"]
    before = coverage.of(table, PAPER["03"], results.published())
    assert (before.cells, before.there, before.runs) == (3, 0, 0)
    recipe = next(r for r in runs(table) if r.fosc_max)
    all_columns = dict.fromkeys(table.columns, 0.5)
    known = results.published() | {recipe.key: rows_of(recipe, **all_columns)}
    after = coverage.of(table, PAPER["03"], known)
    assert (after.there, after.collapsed, after.planned, after.runs) == (1, 0, 2, 1)
    assert 0 < after.gpu_hours < before.gpu_hours
    assert 0 < after.core_hours < before.core_hours
    assert coverage.share({"a": before, "b": after}) == (
        "1 of 6 cells of the papers' tables (16.7 %) were run"
        " at the papers' own settings"
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_cell_lacks_any_column_that_the_paper_prints(table):
    recipe = runs(table)[0]
    whole = dict.fromkeys(table.columns, 0.5)

    def there(*rows):
        cover = coverage.of(table, [recipe], {recipe.key: list(rows)})
        return cover.there, cover.collapsed

    assert there(*rows_of(recipe, **whole)) == (1, 0)
    for name in table.columns:
        assert there(*rows_of(recipe, **whole | {name: None})) == (0, 0)
        half = rows_of(recipe, **whole) + rows_of(recipe, **whole | {name: None})
        assert there(*half) == (0, 0)
    assert there({"measured": "epoch"}) == (0, 0)
    # What collapsed has no more columns; it counts, apart.
    assert there(*rows_of(recipe, diverged=True)) == (1, 1)
    assert there(*rows_of(recipe, constant=True, **whole)) == (1, 1)


def test_a_cell_is_not_collapsed_where_a_seed_learnt():
    [table] = [t for t in TABLES if t.printed == "wide_minima_table2"]
    alike = [r for r in runs(table) if (r.batch_size, r.learning_rate) == (32, 0.6)]
    whole = dict.fromkeys(table.columns, 0.5)
    known = {r.key: rows_of(r, diverged=True) for r in alike[:2]}
    assert coverage.of(table, alike, known).collapsed == 1
    known[alike[2].key] = rows_of(alike[2], **whole)
    assert coverage.of(table, alike, known).collapsed == 0


def test_stages_come_first_one_seed_of_a_cell_and_the_cheap_tables():
    chapters = notebooks.settings(notebooks.chapters(), "paper")
    order = notebooks.by_worth(chapters, "paper")
    plain = notebooks.by_worth(chapters)
    assert {run.key for run in order} == {run.key for run in plain}
    grid = [(run.batch_size, run.learning_rate) for run in order[:25]]
    assert [size for size, _ in grid] == [64] * 8 + [32] * 9 + [16] * 8
    assert (64, 0.3) not in grid and (16, 0.1) not in grid  # decisive, and there
    assert {run.seed for run in order[:25]} == {0}
    first = {(run.dataset, run.model, run.optimizer) for run in order[:25]}
    assert first == {("mnist", "m1", "sgd")}
    # Then the momenta and Benchmark, then seeds 1 and 2 of constant rate and ratio.
    # (constant rate and ratio are one recipe at batch size 64).
    momenta = order[25 : 25 + 7 * 8 - 3]
    assert all(run.momentum and run.seed == 0 for run in momenta)
    assert {run.momentum for run in momenta} == {0.2, 0.5, 0.9}
    pairs = order[78 : 78 + 2 * 13]
    assert {run.seed for run in pairs} == {1, 2}
    assert {run.learning_rate / run.batch_size for run in pairs} >= {0.01 / 64}
    assert {run.batch_size for run in pairs} == {16, 32, 64, 128, 256, 512, 1024}
    assert all(run.momentum == 0 and run.epochs == 100 for run in pairs)
    # No second seed of a decisive cell, and none after five epochs, before all stages.
    staged = next(i for i, run in enumerate(order) if run.key == plain[0].key)
    assert not any(run.brief_epochs or run.epochs == 5 for run in order[:staged])
    assert [r.batch_size for r in order[staged - 27 : staged]] == (
        [4] * 9 + [2] * 9 + [1] * 9
    )


def test_what_decides_comes_first_then_a_seed_of_every_cell_then_more_seeds():
    order = notebooks.by_worth(notebooks.settings(notebooks.chapters(), "paper"))
    assert len({run.key for run in order}) == len(order)
    printed = {run.key for listed in PAPER.values() for run in listed}
    assert printed <= {run.key for run in order}
    # The cheapest of what decides: chapter 1's cells after five epochs; then its cells.
    first = next(i for i, run in enumerate(order) if run.epochs != 5)
    assert first == 10 and {run.train_size for run in order[:10]} == {60_000}
    assert (order[10].batch_size, order[10].learning_rate, order[10].seed) == (
        16,
        0.1,
        0,
    )
    assert order[10].brief_epochs and order[10].epochs == 120
    # One seed of every cell stands before the second seed of any that decides nothing.
    of_cells = [i for i, r in enumerate(order) if r.key in printed and r.seed == 0]
    corner = [
        i for i, r in enumerate(order) if r.seed > 2 and not r.brief_epochs and i > 10
    ]
    assert max(of_cells) < min(corner)
    # All seeds of what decides cheaply come before the first of what costs ten times
    # as much, and cells likewise.
    decisive = order[: next(i for i, r in enumerate(order) if r.batch_size == 1)]
    assert {r.seed for r in decisive if not r.attack} == {0, 1, 2, 3, 4}
    assert all(r.attack for r in decisive[-9:]) and not decisive[-10].attack
    cells = [r for r in order[len(decisive) :] if r.key in printed and r.seed == 0]
    costs = [progress.magnitude(run) for run in cells]
    assert costs == sorted(costs) and costs[0] == 13 and costs[-1] == 18
    # Of about equal cost: chapter 1, then 4, 3, 2.
    seen = [(run.dataset, run.model) for run in cells]
    assert seen[0] == ("mnist", "m1") and seen[-1] == ("cifar10", "wideresnet")
    later = ("cifar10", "preactresnet18")
    assert seen.index(("cifar10", "resnet18")) < seen.index(later)


def test_parameters_of_ones_own_leave_further_settings_out():
    values = notebooks.resolve(
        "02_sam_and_adversarial_training", "paper", {"rhos": [0.3]}
    )
    own = notebooks.by_worth({"02_sam_and_adversarial_training": [values]})
    assert {run.dataset for run in own} == {"cifar10"}
    every = notebooks.plan("02_sam_and_adversarial_training", "paper")
    assert {run.dataset for run in every} == {"cifar10", "cifar100"}


@pytest.mark.parametrize("chapter", notebooks.chapters())
def test_smaller_presets_have_no_further_settings(chapter):
    for preset in ("smoke", "lab", "site", "class"):
        [own] = notebooks.settings([chapter], preset)[chapter]
        assert own["preset"] == preset
