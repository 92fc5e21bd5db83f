"""Statistics of our own claims against other formulas, on rows of known numbers."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from widemin.experiments import provenance
from widemin.papers import claims
from widemin.papers.claims import draws
from widemin.papers.claims.rows import Rows, Runs
from widemin.papers.ours import claims as ours
from widemin.papers.ours import figures as draw
from widemin.statistics import partial_spearman

HERE = dict.fromkeys(provenance.BLOCK, "here")
PARTS = {p.name: p for name in claims.parts() for p in claims.parts()[name]}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(draws, "DRAWS", 40)


def rows_of(table, **about):
    plain = {"list": "", "constant": False, "diverged": False, "measured": "final"}
    plain |= {"batch_size": 16, "learning_rate": 0.1, "nudge": 0, "weight_decay": 0.0}
    table = pd.DataFrame(plain | table | about)
    table["key"] = [f"k{i}" for i in range(len(table))]
    return Rows(table, Runs("paper", {}, table))


def value(function, name, rows):
    return function(rows, PARTS[name])


def test_partial_ranks_are_those_of_every_draw():
    """With ties, and of one, two and no others held fixed."""
    generator = np.random.default_rng(0)
    x, y, *given = generator.integers(0, 9, size=(4, 30, 25)).astype(float)
    y += 0.5 * x + given[0]
    for others in (given[:0], given[:1], given):
        found = ours.partial_ranks(x, y, np.array(others).reshape(-1, 30, 25))
        expected = [
            partial_spearman(x[i], y[i], [other[i] for other in others])
            for i in range(30)
        ]
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.fixture
def networks():
    """Twelve cells of three seeds each; two did not reach the loss, one is constant."""
    generator = np.random.default_rng(1)
    table = {
        "batch_size": np.repeat([16, 64], 18),
        "learning_rate": np.tile(np.repeat([0.1, 0.2, 0.3], 6), 2),
        "weight_decay": np.tile(np.repeat([0.0, 5e-4], 3), 6),
        "seed": np.tile([0, 1, 2], 12),
    }
    columns = [*ours.MEASURES.values(), "natural_accuracy", "distance_q50"]
    values = generator.normal(size=(len(columns), 36))
    values += np.repeat(generator.normal(size=12), 3)  # alike within a cell
    table |= dict(zip(columns, values, strict=True))
    table["stopped_epoch"] = [2.0] * 36
    rows = rows_of(table)
    rows.final.loc[[4, 20], "stopped_epoch"] = np.nan
    rows.final.loc[7, "constant"] = True
    for lost in (4, 20, 7):  # would turn every correlation
        rows.final.loc[lost, columns] *= 1e3
    return rows


def of_cells(table, column, given):
    """Partial correlations of the networks and of draws of cells, one by one."""
    cells = [
        of for _, of in table.groupby(["batch_size", "learning_rate", "weight_decay"])
    ]
    chosen = np.random.default_rng(0).integers(12, size=(40, 12))
    drawn = [table, *(pd.concat([cells[i] for i in draw]) for draw in chosen)]
    return np.array(
        [
            partial_spearman(t[column], t["distance_q50"], [t[g] for g in given])
            for t in drawn
        ]
    )


@pytest.mark.parametrize("letter", "abcdefgh")
def test_flatness_without_scale_is_a_partial_correlation_drawn_by_cell(
    networks, letter
):
    column, sign = {
        "a": ("scale_free_width_nodes_1", 1),
        "b": ("scale_free_adaptive_sharpness", -1),
        "c": ("scale_free_relative_flatness", -1),
        "d": ("scale_free_top_eigenvalue", -1),
        "e": ("scale_free_batch_sharpness", -1),
        "f": ("width_weights_1", 1),
    }.get(letter, ("scale_free_width_nodes_1", 1))
    given = ["natural_accuracy"]
    if letter == "h":
        given += ["batch_size", "learning_rate", "weight_decay"]
    kept = networks.final.drop([4, 7, 20])
    expected = sign * of_cells(kept, column, given)
    if letter == "g":
        expected = expected - of_cells(kept, "width_weights_1", given)
    found = value(ours.without_scale, f"N2{letter}", networks)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert networks.used == set(kept["key"])
    assert len(set(found.round(9))) > 20


def test_networks_of_few_cells_have_no_interval(networks):
    """Three cells: draws of them say nothing."""
    few = networks.final[networks.final["learning_rate"].eq(0.1)].iloc[:9]
    assert math.isnan(value(ours.without_scale, "N2a", rows_of(few.to_dict("list")))[0])


def test_through_its_own_loss_or_through_logits_where_that_is_the_same():
    """Networks trained from logits have no column of their own: FGSM's is theirs."""
    table = {
        "seed": [0, 0, 0, 0],
        "list": ["logits", "logits", "clipped", "clipped"],
        "batch_size": [16, 64, 16, 64],
        "fgsm_accuracy": [0.5, 0.3, 0.1, 0.9],
        "fgsm_own_accuracy": [np.nan, np.nan, 0.7, 0.2],
        "fgsm_margin_accuracy": [0.1, 0.2, 0.1, 0.1],
        "pgd_margin_accuracy": [0.01, 0.02, 0.03, 0.04],
    }
    rows = rows_of(table)
    assert ours.with_own_loss(rows.final)["own"].tolist() == [0.5, 0.3, 0.7, 0.2]
    clipped = rows_of({name: values[2:] for name, values in table.items()})
    assert value(ours.by_own_loss, "N1a", clipped)[0] == 0.7
    assert value(ours.by_own_loss, "N1g", clipped)[0] == pytest.approx(0.6)
    # Of all eight ways of computing the loss the best, and not of some.
    assert math.isnan(value(ours.by_own_loss, "N1k", rows)[0])
    more = {"list": [f"way {i}" for i in range(6)], "fgsm_own_accuracy": 0.3}
    more |= {"pgd_margin_accuracy": 0.0, "seed": 0, "batch_size": 16}
    more |= {"fgsm_accuracy": 0.95, "fgsm_margin_accuracy": 0.0}
    every = pd.concat([pd.DataFrame(table), pd.DataFrame(more)]).to_dict("list")
    assert value(ours.by_own_loss, "N1k", rows_of(every))[0] == 0.7
    assert value(ours.by_own_loss, "N1j", rows_of(every))[0] == 0.04
    logits = rows_of({name: values[:2] for name, values in table.items()})
    assert value(ours.by_own_loss, "N1b", logits)[0] == 0.5
    assert value(ours.by_own_loss, "N1i", logits)[0] == pytest.approx(0.4)
    bare = rows_of(logits.final.drop(columns="fgsm_own_accuracy").to_dict("list"))
    assert value(ours.by_own_loss, "N1b", bare)[0] == 0.5


def test_the_boundary_has_the_size_of_a_correlation_and_the_scale_its_sign():
    batches, rates = np.repeat([16, 32, 64, 128], 4), np.tile([1, 2, 4, 8], 4) / 1e3
    table = {"batch_size": batches, "learning_rate": batches * rates, "seed": 0}
    noise = np.random.default_rng(2).normal(size=16)
    far = -np.log(rates) + noise
    rows = rows_of(table | {"distance_q50": far, "median_margin": far})
    rho = stats.spearmanr(rates, far).statistic
    scale, size = (value(ours.with_ratio, f"N3{part}", rows) for part in "ad")
    assert scale[0] == pytest.approx(rho) and size[0] == pytest.approx(-rho)
    assert rho < -0.5
    np.testing.assert_array_equal(size, abs(scale))
    chosen = np.random.default_rng(0).integers(16, size=(40, 16))
    of = pd.DataFrame({"r": rates, "d": far})
    keys = sorted(range(16), key=lambda i: f"k{i}")  # cells are in the keys' order
    drawn = [of.iloc[[keys[i] for i in draw]] for draw in chosen]
    expected = [stats.spearmanr(t["r"], t["d"]).statistic for t in drawn]
    np.testing.assert_allclose(scale[1:], expected, atol=1e-9)
    constant = rows.final.assign(constant=[True] + [False] * 15)
    left = value(ours.with_ratio, "N3a", rows_of(constant.to_dict("list")))
    assert left[0] == pytest.approx(stats.spearmanr(rates[1:], far[1:]).statistic)


@pytest.mark.parametrize("block", [HERE, {}])
def test_a_share_is_the_mean_over_batch_sizes_in_every_draw(block):
    """Of one block seeds are drawn for all batch sizes at once."""
    by_seed, by_size = np.array([0.0, 0.01, 0.02]), [0.9, 0.6]
    table = {
        "list": "binarized",
        "batch_size": np.repeat([16, 512], 3),
        "seed": np.tile([0, 1, 2], 2),
        "binarized_pgd": np.concatenate([level + by_seed for level in by_size]),
        "binarized_fgsm": 0.1,
        "binarized_pgd_margin": [1.0] * 5 + [np.nan],
    }
    rows = rows_of(table, **block)
    found = value(ours.with_ratio, "N3i", rows)
    assert found[0] == pytest.approx(0.76)
    assert (abs(found - 0.76) <= 0.01 + 1e-9).all() and np.ptp(found) > 0
    assert value(ours.with_ratio, "N3h", rows)[0] == pytest.approx(0.1)
    assert value(ours.with_ratio, "N3j", rows)[0] == 1.0


@pytest.fixture
def noise():
    """Ten seeds, and one seed under six more draws of rounding; one is constant."""
    generator = np.random.default_rng(3)
    table = {
        "list": "standard",
        "seed": [*range(10), *[0] * 6],
        "nudge": [0] * 10 + [*range(1, 7)],
        "pgd_margin_accuracy": 0.5 + 0.02 * generator.normal(size=16),
        "pgd_accuracy": 0.6 + 0.02 * generator.normal(size=16),
    }
    rows = rows_of(table)
    rows.final.loc[3, ["constant", "pgd_margin_accuracy"]] = True, 0.1
    return rows


def test_rounding_against_seeds_has_the_interval_of_f(noise, monkeypatch):
    monkeypatch.setattr(ours, "DRAWS", 200_000)
    of = noise.final["pgd_margin_accuracy"]
    seeds, nudged = of[[0, 1, 2, 4, 5, 6, 7, 8, 9]], of[[0, *range(10, 16)]]
    ratio = nudged.std() / seeds.std()
    found = value(ours.floor, "N4a", noise)
    assert found[0] == pytest.approx(ratio)
    # s_r^2 / s_s^2 over the true ratio is F with 6 and 8 degrees of freedom.
    exact = ratio / np.sqrt(stats.f(6, 8).ppf([0.975, 0.025]))
    assert np.quantile(found[1:], [0.025, 0.975]) == pytest.approx(exact, rel=0.02)
    assert noise.used == set(noise.final["key"]) - {"k3"}


def test_the_least_difference_is_that_of_two_arms_of_three_seeds(noise, monkeypatch):
    monkeypatch.setattr(ours, "DRAWS", 200_000)
    seeds = noise.final["pgd_margin_accuracy"][[0, 1, 2, 4, 5, 6, 7, 8, 9]]
    found = value(ours.floor, "N4d", noise)
    least = 2.8 * seeds.std() * math.sqrt(2 / 3)
    assert found[0] == pytest.approx(least)
    # A test at 5 % sees it in 80 %: of the difference of two means of three.
    error = seeds.std() * math.sqrt(1 / 3 + 1 / 3)
    assert stats.norm.sf(1.96 - found[0] / error) == pytest.approx(0.8, abs=1e-3)
    exact = least * np.sqrt(8 / stats.chi2(8).ppf([0.975, 0.025]))
    assert np.quantile(found[1:], [0.025, 0.975]) == pytest.approx(exact, rel=0.02)


def test_two_seeds_or_draws_have_no_noise_floor(noise):
    for kept in ([0, 1, *range(10, 16)], [*range(10), 10]):
        table = noise.final.iloc[kept].to_dict("list")
        assert math.isnan(value(ours.floor, "N4a", rows_of(table))[0])


def test_methods_are_compared_over_seeds_and_not_over_rounding():
    each = {"dynamic": 0.55, "standard": 0.5, "rising": 0.52}
    table = pd.DataFrame(
        [
            {"list": name, "seed": seed, "nudge": nudge, "pgd_accuracy": level}
            | {"pgd_margin_accuracy": 0.4}
            for name, level in each.items()
            for seed, nudge, level in (
                *((s, 0, level + 0.01 * s) for s in range(3)),
                *((0, n, 0.0) for n in range(1, 3)),
            )
        ]
    ).to_dict("list")
    gaps = {"N4e": 0.05, "N4f": 0.02, "N4g": 0.03}
    for name, gap in gaps.items():
        rows = rows_of(table, **HERE)
        found = value(ours.floor, name, rows)
        assert found == pytest.approx(np.full(41, gap))  # paired, so in every draw
        assert rows.used == set(rows.final.query("nudge == 0")["key"])


def test_a_certificate_is_judged_by_its_own_area():
    table = {
        "list": "natural",
        "seed": [0, 1, 2, 3],
        "fosc_auroc": [0.5, 0.6, 0.7, 0.9],
        "normalised_fosc_box_auroc": [0.6, 0.6, 0.6, 0.9],
        "margin_auroc": [0.8, 0.9, 1.0, np.nan],
    }
    expected = {"N5a": 0.6, "N5d": 0.6, "N5g": 0.3}
    found = {n: value(ours.certificate, n, rows_of(table))[0] for n in expected}
    assert found == pytest.approx(expected)
    other = rows_of(table | {"normalised_fosc_box_auroc": [0.1, 0.2, 0.3, 0.9]})
    expected = {"N5a": 0.6, "N5d": 0.2, "N5g": 0.7}
    found = {n: value(ours.certificate, n, other)[0] for n in expected}
    assert found == pytest.approx(expected)


ARMS = {
    "SGD": 0.1,
    "SAM 0.2": 0.5,
    "SAM 0.2 from 0.7": 0.46,
    "SAM 0.2 from 0.9": 0.3,
    **{"SGD to 0.5": 0.2, "SGD to 0.2": 0.2, "SGD to 0.05": 0.1},
    **{"weight decay 2e-3": 0.3, "weight decay 5e-3": 0.1},
    **{"label smoothing 0.1": 0.45, "label smoothing 0.3": 0.4},
    "logit normalisation": 0.4,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("N6a", 0.05), ("N6b", -0.05), ("N6c", 0.9), ("N6d", 0.5), ("N6e", 1.1)],
)
def test_sam_is_compared_with_its_best_control_and_late_sam_with_its_gain(
    name, expected
):
    """With flips alone everything lies the other way."""
    flips = ARMS | {"SAM 0.2": 0.4, "SAM 0.2 from 0.7": 0.43}
    rows = [
        {"list": arm, "augment": how, "seed": seed, "pgd_margin_accuracy": level}
        for how, arms in (("crop+flip", ARMS), ("flip", flips))
        for arm, level in arms.items()
        for seed in range(3)
    ]
    listed = [f"sam[{arm}]" in PARTS[name].runs for arm in pd.DataFrame(rows)["list"]]
    table = pd.DataFrame(rows)[listed]
    found = value(ours.beside_sam, name, rows_of(table.to_dict("list")))
    assert found[0] == pytest.approx(expected)
    for column in ("pgd_accuracy", "fgsm_accuracy"):
        table[column] = 0.5
    again = value(ours.beside_sam, name, rows_of(table.to_dict("list")))
    assert again[0] == pytest.approx(expected)
    for arm in table["list"].unique():  # one that has no run
        few = rows_of(table[table["list"] != arm].to_dict("list"))
        assert math.isnan(value(ours.beside_sam, name, few)[0])


def test_what_moves_settings_alone_is_not_within_them():
    """Two seeds of six settings: both numbers largest in the middle, or by the seed."""
    setting = np.repeat(np.arange(6.0), 2)
    seed, middle = np.tile([-1.0, 1.0], 6), -((setting - 2.5) ** 2)
    rows = pd.DataFrame({"learning_rate": setting, "batch_size": 16, "weight_decay": 0})
    rows["together"], rows["against"] = middle + 0.1 * seed, middle - 0.1 * seed
    rows["distance_q50"] = middle + 0.1 * seed
    assert draw.within_settings(rows, "together") == pytest.approx(1)
    assert draw.within_settings(rows, "against") == pytest.approx(-1)
    assert stats.spearmanr(rows["against"], rows["distance_q50"])[0] > 0.8
