"""An instrument is revised: its columns alone are measured again, no key moves."""

import math

import pandas as pd
import pytest

from widemin.experiments import measure, results, running
from widemin.experiments.measure import attacked
from widemin.experiments.recipe import Recipe
from widemin.papers import claims
from widemin.papers.claims import draws

RECIPE = Recipe(
    train_size=200,
    epochs=3,
    batch_size=20,
    test_size=40,
    hessian_size=40,
    pgd_steps=4,
    strong_size=20,
    strong_attacks=("distance",),
)
OURS = ("moved_share", "moved_mean", "distance_q25", "distance_q50", "distance_q75")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    run = running.runner("cpu", folder)
    results.collect([RECIPE], run, folder, workers=1)
    return folder


def rows_in(folder):
    return results.finished(folder, [RECIPE.key])[RECIPE.key]


def test_rows_say_revisions_above_one_and_leave_nothing_to_do(folder):
    rows = rows_in(folder)
    said = [row.get("revisions") for row in rows]
    assert said == [None] * (len(rows) - 1) + ["distance 2"]
    assert running.outdated([RECIPE], {RECIPE.key: rows}, folder) == []
    assert set(OURS) <= set(rows[-1])


def test_a_revised_instrument_measures_its_columns_again(folder, monkeypatch):
    before, key = rows_in(folder), RECIPE.key
    monkeypatch.setitem(measure.REVISIONS, "distance", 3)
    found = dict.fromkeys(OURS, 0.125)
    monkeypatch.setattr(attacked, "_distances", lambda *_: found)
    known = {key: before}
    assert running.outdated([RECIPE], known, folder) == [RECIPE]
    renew = running.renewer("cpu", folder, known)
    results.write(folder, key, renew(RECIPE))
    after = rows_in(folder)
    assert RECIPE.key == key and len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        final = old["measured"] == "final"
        changed = {name for name in new if new[name] != old.get(name)}
        assert changed == ({*OURS, "revisions"} if final else set())
    assert measure.stated(after[-1]) == {"distance": 3}
    assert running.outdated([RECIPE], {key: after}, folder) == []
    # Another instrument is revised: what the first one says stays.
    monkeypatch.setitem(measure.REVISIONS, "curvature", 3)
    known = {key: after}
    renew = running.renewer("cpu", folder, known)
    results.write(folder, key, renew(RECIPE))
    last = rows_in(folder)
    assert last[-1]["revisions"] == "curvature 3; distance 3"
    same = set(last[-1]) - {"revisions"}
    assert {n: last[-1][n] for n in same} == {n: after[-1][n] for n in same}


def test_without_its_network_a_run_keeps_its_columns(folder, tmp_path, monkeypatch):
    rows = rows_in(folder)
    monkeypatch.setitem(measure.REVISIONS, "attacks", 2)
    assert running.outdated([RECIPE], {RECIPE.key: rows}, tmp_path) == []


def test_a_row_that_an_instrument_did_not_measure_is_not_outdated(monkeypatch):
    monkeypatch.setitem(measure.REVISIONS, "distance", 3)
    row = {"measured": "final", "natural_accuracy": 0.9}
    assert measure.outdated([row]) == set()
    assert measure.outdated([row | {"distance_q50": float("nan")}]) == set()
    assert measure.outdated([row | {"distance_q50": 0.1}]) == {"distance"}
    newer = row | {"distance_q50": 0.1, "revisions": "distance 3"}
    assert measure.outdated([newer]) == set()


def test_rows_of_newer_instruments_go_before_older_copies(folder):
    """A table copied in disagrees with what was measured again: no error."""
    rows = rows_in(folder)
    table = results.table_of([RECIPE], folder)
    older = table.assign(distance_q50=0.5).drop(columns="revisions", errors="ignore")
    newer = table.assign(distance_q50=0.25, revisions="distance 9")
    results.to_csv(older[older["measured"] == "final"], folder / "older.csv")
    with_final = [row for row in rows if row["measured"] == "final"]
    assert with_final
    results.to_csv(newer, folder / "newer.csv")
    try:
        found = results.computed([RECIPE], folder)[RECIPE.key]
    finally:
        (folder / "older.csv").unlink()
        (folder / "newer.csv").unlink()
    assert found[-1]["distance_q50"] == 0.25


def test_parts_of_an_older_instrument_are_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(measure.parts, "KEPT_SECONDS", -1)
    first = measure.Parts(tmp_path / "parts")
    assert first("distance", lambda: 0.1) == 0.1
    assert measure.Parts(tmp_path / "parts")("distance", lambda: 0.2) == 0.1
    monkeypatch.setitem(measure.REVISIONS, "distance", 3)
    assert measure.Parts(tmp_path / "parts")("distance", lambda: 0.2) == 0.2


def test_what_pgd_leaves_of_strong_images_is_revised_with_the_attacks(monkeypatch):
    row = {"measured": "final", "fgsm_accuracy": 0.5, "restarts_float64_accuracy": 0.1}
    monkeypatch.setitem(measure.REVISIONS, "attacks", 2)
    assert measure.outdated([row]) == {"attacks", "restarts"}
    monkeypatch.setitem(measure.REVISIONS, "attacks", 1)
    monkeypatch.setitem(measure.REVISIONS, "restarts", 2)
    assert measure.outdated([row]) == {"restarts"}


def test_distances_of_two_revisions_are_not_taken_together():
    rows = pd.DataFrame({"key": list("abcde"), "distance_q50": [0.1] * 5})
    rows = rows.assign(measured="final", diverged=False, seed=0, ratio=range(5))
    one = rows.assign(revisions=["distance 2", None, "widths 2; distance 2", "x 2", ""])
    assert claims.final(one)["distance_q50"].notna().tolist() == [0, 1, 0, 1, 1]
    one.loc[3, "distance_q50"] = math.nan  # as many of each: the newer stay
    assert claims.final(one)["distance_q50"].notna().tolist() == [1, 0, 1, 0, 0]
    cells = claims.Cells(one, ["ratio"], ["distance_q50"])
    assert cells.labels["ratio"].tolist() == [0, 2]
    assert claims.final(rows)["distance_q50"].notna().all()
    none = one.assign(distance_q50=math.nan)  # a chapter may ask for no distances
    assert draws.of_one_revision(none).equals(none)


def test_a_run_measured_again_says_no_more_of_where_it_was_trained(folder, tmp_path):
    """Rows older than a column of the provenance do not get it from this machine."""
    lacking = ("flags", "threads")
    old = [
        {k: v for k, v in row.items() if k not in lacking} for row in rows_in(folder)
    ]
    for row in results.compute_once(RECIPE, lambda _: old, tmp_path, "cpu"):
        assert not set(lacking) & set(row)
        assert row["source"] == old[0]["source"]
