"""Every column of every committed row has its record, and every record its column."""

import inspect
import pkgutil
import sys
from dataclasses import fields, replace

import pytest

from widemin import paths
from widemin.experiments import columns, measure, provenance, results, running
from widemin.experiments.columns import COLUMNS, KINDS
from widemin.experiments.recipe import Recipe


def of_every_row():
    return {n for n, c in COLUMNS.items() if {"recipe", "provenance"} & set(c.kinds)}


@pytest.fixture(scope="module")
def pairs():
    """Which column has a value in which kind of row, in the committed tables."""
    pairs = set()
    for rows in results.published().values():
        for row in rows:
            named = {name for name, value in row.items() if value == value}
            pairs |= {(name, row["measured"]) for name in named - of_every_row()}
    return pairs


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure.REVISIONS, "answers", 2)
        asked = Recipe(own_attack="widemin.attacks:pgd", stop_loss=1.0)
        asked = replace(
            asked,
            cross_entropy="clipped",
            binarized=5,
            certificate=True,
            scale_free_size=50,
            epochs=20,
        )
        rows = running.run(asked, device="cpu", weights=tmp_path_factory.mktemp("w"))
    return {(name, row["measured"]) for row in rows for name in row}


def test_records_are_of_the_columns_that_rows_have(pairs, fresh):
    every = {(name, kind) for name, kind in fresh if name not in of_every_row()}
    failed = {("error", "failed")}
    recorded = {(n, k) for n, c in COLUMNS.items() for k in c.kinds}
    recorded -= {(n, k) for n, k in recorded if n in of_every_row()}
    assert recorded == pairs | every | failed


def test_every_column_of_every_committed_table_has_a_record():
    for path in paths.PUBLISHED.glob("*/0*.csv"):
        header = path.read_text(encoding="utf-8").partition("\n")[0]
        assert set(header.split(",")) <= set(COLUMNS), path


def test_recipe_and_provenance_are_marked():
    marked = {n for n, c in COLUMNS.items() if c.kinds == ("recipe",)}
    own = {field.name for field in fields(Recipe)} | {"key", "method", "measured"}
    assert marked == own
    marked = [n for n, c in COLUMNS.items() if c.kinds == ("provenance",)]
    assert marked == list(provenance.PROVENANCE)


@pytest.mark.parametrize("column", COLUMNS.values(), ids=list(COLUMNS))
def test_the_name_stands_where_the_column_is_computed(column):
    function = pkgutil.resolve_name(column.function)
    assert callable(function)
    source = inspect.getsource(sys.modules[function.__module__])
    literal = f'"{column.name}"' in source
    assert (
        literal or f"    {column.name}: " in source or f"def {column.name}(" in source
    )
    assert column.sentence.endswith(".")
    assert list(column.kinds) == [kind for kind in KINDS if kind in column.kinds]


def test_accuracies_and_shares_are_fractions():
    for name, column in COLUMNS.items():
        if name.endswith(("accuracy", "share")):
            assert column.unit == "fraction", name


def test_the_page_has_a_row_for_each_column_and_kind():
    lines = columns.page().splitlines()
    count = sum(len(column.kinds) for column in COLUMNS.values())
    assert sum(line.startswith("| `") for line in lines) == count
    assert sum(line.startswith("## ") for line in lines) == len(KINDS)
    assert not any(line.replace("\\|", "").count("|") not in (0, 5) for line in lines)
