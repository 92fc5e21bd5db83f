"""Every figure draws its table: what is in it is in the axes, seed by seed."""

import base64
import io
import itertools
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
import torch

from tests.test_claims import (
    ascent,
    attacked,
    batches,
    bins,
    curves,
    decisive,
    defences,
    grid,
    sam,
    wide,
)
from widemin import paths
from widemin.book import where
from widemin.papers import NARROW, figures, ranks
from widemin.papers.claims import paper_table
from widemin.papers.kamath import figures as kamath
from widemin.papers.khritankov import figures as khritankov
from widemin.papers.wang import figures as wang
from widemin.papers.wei import figures as features
from widemin.papers.wei import figures as wei

matplotlib.use("Agg")


@pytest.fixture
def ax():
    _, ax = plt.subplots()
    yield ax
    ax.figure.canvas.draw()
    plt.close(ax.figure)


def points(ax):
    parts = [c.get_offsets() for c in ax.collections if len(c.get_offsets())]
    return np.concatenate([np.asarray(part) for part in parts])


def apart(table, **own):
    """Give every accuracy a number of its own, so that no column passes for another."""
    names = sorted(name for name in table if name.endswith("_accuracy"))
    return table.assign(**{name: 0.01 * (i + 1) for i, name in enumerate(names)} | own)


def percents(table, *columns):
    """The distinct values of columns, in percent."""
    return {round(100 * value, 6) for name in columns for value in table[name]}


def at(values):
    return {round(float(value), 6) for value in values}


def test_every_run_is_a_point_over_the_ratio(ax):
    table = grid(lambda b, r: min(0.9, 20 * r / b))
    assert ranks.by_ratio(table, ax, "fgsm_accuracy", "FGSM (%)") is ax
    found = points(ax)
    assert len(found) == 40
    expected = 100 * np.minimum(0.9, 20 * found[:, 0] / 1000)
    np.testing.assert_allclose(found[:, 1], expected)
    assert ax.get_xscale() == "log" and "%" in ax.get_ylabel()


def test_a_heat_map_has_a_number_per_cell(ax):
    table = grid(lambda b, r: min(0.9, 20 * r / b))
    cells = khritankov.cell_means(table, "fgsm_accuracy")
    assert cells.shape == (5, 4)
    assert cells.loc[0.01, 64] == pytest.approx(100 * 20 * 0.01 / 64)
    khritankov.heat_map(cells, ax, "here")
    assert len(ax.texts) == 20
    assert ax.get_yticklabels()[0].get_text() == "0.6"  # the largest on top


def test_scaling_the_weights_widens_the_minimum_and_moves_no_boundary(ax):
    khritankov.logistic_scale(ax, [1.0, 0.0], [1.0, 2.0], [1.0, 4.0, 16.0], np.log(2))
    weights, inputs, distance = (line.get_ydata() for line in ax.lines)
    assert weights[2] > 8 * weights[0] and inputs[2] < inputs[0]
    assert distance.tolist() == [distance[0]] * 3 == pytest.approx([5**-0.5] * 3)


def every_way(table):
    return table.assign(
        fgsm_float64_accuracy=0.25, fgsm_rescaled_accuracy=0.1, pgd_accuracy=0.2
    )


def test_every_way_is_a_row_with_a_mark_per_run(ax):
    table = apart(every_way(decisive()))
    khritankov.ways_of_attack(table, ax)
    found = points(ax)
    assert len(found) == len(figures.WAYS) * 3
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == list(figures.WAYS.values())
    for row, way in enumerate(figures.WAYS):
        of_way = found[found[:, 1].round() == row]
        assert at(of_way[:, 0]) == percents(table, way), way


def test_the_table_of_ways_has_a_column_per_cell():
    plain = khritankov.table_of_ways(every_way(decisive(fgsm_accuracy=0.9)))
    assert list(plain.columns) == ["B = 16, LR = 0.1"]
    assert plain.loc["FGSM, cross-entropy float32"].item() == "90.0, 90.0 and 90.0"
    assert len(plain) == len(figures.WAYS) + 1  # and how many are masked
    strong = {"strong_images": 200, "distance_q50": 0.12, "restarts_accuracy": 0.0}
    strong |= {"autoattack_accuracy": 0.0, "moved_share": 0.1}
    more = khritankov.table_of_ways(every_way(decisive(**strong)))
    thrice = "0.120, 0.120 and 0.120"
    assert more.loc["median radius that fools (200 images)"].item() == thrice
    assert more.loc["AutoAttack (200 images)"].item() == "0.0, 0.0 and 0.0"


def test_radii_of_two_searches_are_not_averaged():
    rows = every_way(decisive(strong_images=200, distance_q50=0.12))
    newer = rows["seed"].gt(0)  # two of three
    rows.loc[newer, ["revisions", "distance_q50"]] = "distance 2", 0.1
    assert khritankov.revision(rows) == "1 and 2"
    assert khritankov.revision(rows[:0]) == "none"
    told = khritankov.table_of_ways(rows).loc["median radius that fools (200 images)"]
    assert told.item() == "0.100 and 0.100"


def test_a_curve_is_a_line_per_run(ax):
    rows = decisive()
    curves = pd.concat(
        [
            rows.assign(measured="epoch", epoch=e, key=rows["seed"].astype(str))
            for e in (1, 2, 3)
        ]
    )
    curves = curves.assign(
        natural_accuracy=0.1 * curves["epoch"] + 0.01 * curves["seed"]
    )
    khritankov.learning_curves(curves, ax, "natural_accuracy", "clean (%)")
    assert len(ax.lines) == 3
    for seed, line in enumerate(ax.lines):
        assert line.get_xdata().tolist() == [1, 2, 3]
        np.testing.assert_allclose(line.get_ydata(), np.array([10, 20, 30]) + seed)


def test_robust_accuracy_has_a_panel_per_set():
    table = apart(sam({0.1: 0.05}))
    place = table["test"].map(dict(zip(table["test"].unique(), range(4), strict=True)))
    table["pgd_accuracy"] += 0.1 * place
    figure, axes = plt.subplots(1, 4)
    wei.robust_by_method(table, axes)
    titles = [ax.get_title() for ax in axes]
    assert titles == ["L∞ 1/255", "L∞ 2/255", "L2 16/255", "L2 32/255"]
    for ax, (_, part) in zip(axes, table.groupby(place), strict=True):
        found = points(ax)
        assert len(found) == 2 * 3 * 4  # two columns, three seeds, four methods
        left = (found[:, 0] + 0.5) % 1 < 0.5
        assert at(found[left, 1]) == percents(part, "pgd_accuracy")
        assert at(found[~left, 1]) == percents(part, "worst_accuracy")
    plt.close(figure)


def test_trade_off_eigenvalue_and_cost(ax):
    table = apart(sam({0.1: 0.05}))
    wei.trade_off(table, ax, "l2 16/255")
    found = points(ax)
    assert len(found) == 12
    assert at(found[:, 0]) == percents(table, "natural_accuracy")
    assert at(found[:, 1]) == percents(table, "worst_accuracy")
    named = {text.get_text() for text in ax.get_legend().get_texts()}
    assert named == {"standard", "SAM", "AT L∞"}
    assert [text.get_text() for text in ax.texts] == ["2/255", "8/255"]  # the ends


def test_eigenvalues_are_one_point_a_network(ax):
    table = sam({0.1: 0.05})
    table = table.assign(key=table["method"] + table["seed"].astype(str))
    table = table.assign(top_eigenvalue=table["key"].factorize()[0] + 1.0)
    wei.eigenvalue_by_method(table, ax)
    assert len(points(ax)) == 9 and at(points(ax)[:, 1]) == {*range(1, 10)}
    assert ax.get_yscale() == "log"


def table_of_sam():
    """Networks of the paper's table with everything that is measured of them."""
    table = attacked({0.1: 0.05, 0.4: 0.1})
    names = table["method"] + table["rho"].astype(str) + table["attack"].astype(str)
    table = table.assign(key=names + table["seed"].astype(str), watch="linf 2/255")
    table = table.assign(width_images=100.0, width_nodes_1=2.0, top_eigenvalue=10.0)
    implicit = {f"implicit_{k}_rise": 0.1 for k in ("weights", "images", "gradient")}
    return table.assign(implicit_share=0.9, implicit_l2=1.0, **implicit)


def test_the_table_stands_beside_the_papers():
    found = wei.beside_the_paper(table_of_sam())
    assert found.loc[("SAM 0.1", "paper"), "L∞ 1/255"] == "45.1"
    assert found.loc[("standard", "paper"), "natural"] == "94.6"
    assert found.loc[("AT L∞ 8/255", "paper"), "L2 32/255"] == "80.8"
    assert found.loc[("AT L∞ 8/255", "ours"), "gradients an image"] == "165"
    assert found.loc[("standard", "ours"), "L∞ 1/255"].startswith("30.0")
    assert wei.beside_the_paper(table_of_sam().iloc[:0]).empty


def test_losses_to_stronger_attacks_are_points():
    figure, axes = plt.subplots(2, 2)
    wei.drops(table_of_sam(), axes.flat)
    found = points(axes[0, 0])
    assert set(found[:, 1].round(6)) == {1.0, 2.0}
    assert len(found) == 5 * 3 + 5  # NaN where AutoAttack was not run
    plt.close(figure)


def test_a_sweep_starts_at_natural_accuracy_and_has_a_panel_per_family():
    table = apart(table_of_sam())
    figure, axes = plt.subplots(1, 3)
    wei.sweep_by_method(table, axes)
    found = [[str(line.get_label()) for line in ax.lines] for ax in axes]
    assert found[0] == ["standard", "SAM 0.1", "SAM 0.4"]
    assert found[1] == ["standard", "AT L∞ 2/255", "AT L∞ 8/255"]
    assert found[2] == ["standard"]
    natural, worst = (
        100 * table[name].iloc[0] for name in ("natural_accuracy", "worst_accuracy")
    )
    for line in (line for ax in axes for line in ax.lines):
        assert list(line.get_xdata()) == [0, 1, 2, 8]
        np.testing.assert_allclose(line.get_ydata(), [natural, *[worst] * 3])
    plt.close(figure)


def test_a_sweep_of_no_runs_is_empty():
    figure, axes = plt.subplots(1, 3)
    wei.sweep_by_method(table_of_sam()[:0], axes)
    assert not any(ax.lines for ax in axes)
    plt.close(figure)


def test_controls_have_a_row_each(ax):
    table = apart(table_of_sam())
    groups = {"SGD": [k for k in table["key"] if k.startswith("standard")], "none": []}
    wei.by_control(table, groups, ax, "linf 2/255")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["SGD"]
    assert len(points(ax)) == 6
    shown = percents(table, "natural_accuracy", "worst_accuracy")
    assert at(points(ax)[:, 0]) == shown


def test_epochs_are_chosen_by_three_rules(ax):
    rows = [
        {"key": "k", "measured": "epoch", "method": "sam", "rho": 0.1, "attack": ""}
        | {"watch": "linf 2/255", "epoch": e, "natural_accuracy": 0.5}
        | {"fgsm_accuracy": f, "validation_fgsm_accuracy": v}
        for e, f, v in ((1, 0.2, 0.5), (2, 0.6, 0.1), (3, 0.4, 0.3))
    ]
    found = wei.best_and_last(pd.DataFrame(rows))["FGSM (%)"]["SAM 0.1"]
    assert found["last"] == "40.0"
    assert found["best on held-out images"] == "20.0"
    assert found["best on test images"] == "60.0"
    wei.by_epoch(pd.DataFrame(rows), ax, "fgsm_accuracy", "FGSM (%)")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [20, 60, 40])


def test_flatness_by_method_leaves_unmeasured_networks_out():
    table = apart(table_of_sam())
    table.loc[table["seed"] == 1, "width_images"] = np.nan
    figure, axes = plt.subplots(1, 2)
    columns = {"width_nodes_1": "width", "top_eigenvalue": "eigenvalue"}
    wei.by_flatness(table, axes, columns, "linf 2/255")
    assert len(points(axes[0])) == 5 * 2
    for ax, flat in zip(axes, (2.0, 10.0), strict=True):
        assert at(points(ax)[:, 0]) == {flat}
        assert at(points(ax)[:, 1]) == percents(table, "worst_accuracy")
    plt.close(figure)


def test_lines_are_in_the_units_of_the_attack():
    rows = [
        {"key": "k", "measured": "line", "method": "sam", "rho": 0.1, "attack": ""}
        | {"of": of, "distance": d, "loss": 1 + d}
        for of in ("weights", "images")
        for d in (0.0, 2 / 255)
    ]
    figure, axes = plt.subplots(2, 3)
    wei.along_lines(pd.DataFrame(rows), axes)
    wei.along_lines(table_of_sam(), axes[:, ::-1])  # no lines were measured
    assert axes[1, 0].lines[0].get_xdata().tolist() == pytest.approx([0, 2])
    assert not axes[0, 1].lines  # no adversarial training
    for ax in axes[:, 0]:
        assert ax.lines[0].get_ydata().tolist() == pytest.approx([1, 1 + 2 / 255])
    plt.close(figure)


def test_sams_step_in_pixels_is_a_row_a_method():
    found = wei.in_pixels(table_of_sam())
    assert list(found.index) == [
        "standard",
        "SAM 0.1",
        "SAM 0.4",
        "AT L∞ 2/255",
        "AT L∞ 8/255",
    ]
    assert found.loc["standard", "L2 size (1/255)"].startswith("255")
    assert wei.in_pixels(table_of_sam().drop(columns="implicit_share")).empty


def test_cost_is_drawn_on_a_logarithmic_axis(ax):
    table = apart(table_of_sam())
    wei.robust_by_cost(table, ax, "linf 2/255")
    assert ax.get_xscale() == "log"
    said = [text.get_text() for text in ax.texts]
    assert said == ["0.1", "0.4", "2/255", "8/255"]
    assert at(points(ax)[:, 0]) == set(table["gradients"])
    assert at(points(ax)[:, 1]) == percents(table, "worst_accuracy")


def test_ascent_draws_median_and_quartiles(ax):
    table = ascent(0.05, 1.0).assign(
        normalised_fosc_q25=0.01, normalised_fosc_q75=0.1, key="k"
    )
    wang.ascent(table, ax, "normalised_fosc", "FOSC")
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([0.05] * 11)
    [band] = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.01, 0.1))


def test_defences_by_cost_are_hollow_where_trained_for_longer(ax):
    table = apart(defences(0.02))
    longer = (table["method"] == "dynamic") & (table["seed"] == 2)
    table.loc[longer, "epochs"] = 80
    wang.robust_by_cost(table, ax)
    assert len(points(ax)) == 9
    assert at(points(ax)[:, 0]) == set(table["gradients"])
    assert at(points(ax)[:, 1]) == percents(table, "worst_accuracy")
    hollow = [c.get_label() for c in ax.collections if not len(c.get_facecolor())]
    assert hollow == ["dynamic, 80 epochs"]


def test_defences_stand_beside_the_papers():
    found = wang.table_of_defences(defences(0.02))
    assert found.loc[("dynamic, 50 epochs", "paper"), "PGD-20"] == "91.27"
    equal = "97.0, 97.0 and 97.0"
    assert found.loc[("standard, 50 epochs", "ours"), "none"] == equal
    assert found.loc[("standard, 50 epochs", "paper"), "none"] == "97.61"
    assert found.loc[("standard, 50 epochs", "ours"), "AutoAttack"] == "80.0"
    other = wang.black_box(defences(0.02))
    assert other.loc[("dynamic, 50 epochs", "paper"), "C&W"] == "98.36"
    assert wang.black_box(defences(0.02).iloc[:0]).empty


def test_bins_of_fosc_have_two_pools():
    figure, axes = plt.subplots(1, 3)
    wang.by_bin(bins(lambda i: 0.1 * i, lambda i: 1.0 * i), axes)
    line = axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), 10 * np.arange(10))
    assert len(axes[0].lines) == 2
    np.testing.assert_allclose(axes[1].lines[0].get_ydata(), np.arange(10))
    for ax in axes:
        np.testing.assert_allclose(ax.lines[0].get_xdata(), 0.1 * np.arange(10))
    plt.close(figure)


def strengths():
    """Networks of standard training under attacks of other strengths."""
    rows = []
    tried = [(10, 1.0), (10, 0.25), (20, 0.25)]
    for steps, size in tried:
        row = {"measured": "strength", "method": "adversarial", "step_schedule": ""}
        row |= {"steps_taken": steps, "step_radii": size, "accuracy": 0.5}
        for kind in ("loss", "normalised_fosc_box"):
            row |= {f"{kind}_q{q}": q / 100 for q in (25, 50, 75)}
        rows.append(row)
    return pd.DataFrame(rows)


def test_the_least_and_the_greatest_number_of_steps_in_numbers():
    rows = strengths()
    found = wang.strengths(rows)
    usual = (
        rows[rows["step_radii"].eq(0.25)].groupby("steps_taken").mean(numeric_only=True)
    )
    assert found["steps_few"] == usual.index.min()
    assert found["steps_many"] == usual.index.max()
    for end, row in (("few", usual.iloc[0]), ("many", usual.iloc[-1])):
        assert found[f"accuracy_{end}"] == pytest.approx(100 * row["accuracy"])
        assert found[f"fosc_{end}"] == row["normalised_fosc_box_q50"]
    assert np.isnan(list(wang.strengths(rows.iloc[:0]).values())).all()


def test_strength_is_drawn_over_size_and_number():
    figure, axes = plt.subplots(2, 3)
    wang.by_strength(strengths(), axes)
    assert axes[0, 0].lines[0].get_xdata().tolist() == [0.25, 1.0]
    assert axes[1, 0].lines[0].get_xdata().tolist() == [10, 20]
    assert axes[1, 0].lines[0].get_ydata().tolist() == [50, 50]
    wang.by_strength(strengths().iloc[:0], axes)
    plt.close(figure)


def watched():
    """FOSC after three epochs of two defences; accuracies of the attack."""
    rows = []
    for method, level in (("adversarial", 0.1), ("dynamic", 0.3)):
        for e, right, held in ((1, 0.9, 0.9), (2, 0.5, 0.7), (3, 0.6, 0.6)):
            row = {"measured": "epoch", "method": method, "key": method, "epochs": 3}
            row |= {"step_schedule": "", "epoch": e, "ramp": 0.5}
            row |= {"attack_accuracy": right, "validation_attack_accuracy": held}
            rows.append(row | {f"fosc_d{i}": level * i for i in range(11)})
    return pd.DataFrame(rows)


def test_fosc_is_drawn_by_epoch_and_by_stage():
    figure, axes = plt.subplots(1, 3)
    wang.fosc_by_epoch(watched(), axes)
    np.testing.assert_allclose(axes[2].lines[0].get_ydata(), 1.5)
    assert [ax.get_title() for ax in axes] == ["standard", "curriculum", "dynamic"]
    wang.fosc_by_epoch(defences(0.02), axes)  # no epochs were watched
    plt.close(figure)
    figure, axes = plt.subplots(1, 3)
    wang.fosc_by_stage(watched(), axes)
    assert len(axes[2].lines) == 3 and not axes[1].lines
    np.testing.assert_allclose(axes[2].lines[0].get_ydata(), 10 * np.arange(11))
    plt.close(figure)


def test_epochs_before_the_full_radius_do_not_compete():
    found = wang.best_and_last(watched())["accuracy (%)"]["dynamic, 3 epochs"]
    assert found["last"] == "60.0"
    assert found["best on held-out images"] == "50.0"
    assert found["best on test images"] == "60.0"


def test_defences_without_the_papers_attacks_have_no_columns_of_them():
    plain = defences(0.02).assign(train_seconds=1.0, gradients=77.0)
    plain = plain.drop(columns=[name for name in plain if name.startswith("wang_")])
    found = wang.table_of_defences(plain)
    ours = found.xs("ours", level=1)
    assert len(ours) > 1 and (ours["seeds"] == "3").all()
    assert not {"FGSM", "PGD-10", "PGD-20", "C&W"} & set(found)
    assert (ours["PGD-20, margin"] != "").all()
    assert wang.table_of_defences(plain[:0]).empty


def test_switches_say_what_they_cost(ax):
    table = apart(defences(0.02)).assign(key=list("abcdefghi"), gradients=77.0)
    groups = {"standard": ["a", "d"], "none": []}
    wang.switched(table, groups, ax, "worst_accuracy")
    assert len(points(ax)) == 2
    assert at(points(ax)[:, 0]) == percents(table, "worst_accuracy")
    assert [text.get_text() for text in ax.texts] == ["77 gradients"]


def test_undertrained_points_are_hollow(ax):
    table = batches(natural_accuracy=lambda b: 0.9).assign(setting="LR")
    table.loc[table["batch_size"] == 512, "train_accuracy"] = 0.5
    kamath.by_batch_size(table, ax, "natural_accuracy", "natural (%)")
    [marks] = ax.collections
    white = (marks.get_facecolor() == 1).all(1)
    assert len(white) == 12 and (marks.get_offsets()[white, 0] == 512).sum() == 3
    assert white.sum() == 3
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 90.01)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_above_the_limit_gradient_descent_diverges(momentum):
    """On a bowl of one dimension, by torch's own SGD."""
    for share, stable in ((0.98, True), (1.02, False)):
        row = pd.DataFrame([{"momentum": momentum, "learning_rate": 0.1}])
        row["top_eigenvalue"] = curvature = share * 2 * (1 + momentum) / 0.1
        assert kamath.with_limit(row)["limit_share"].item() == pytest.approx(share)
        row["batch_sharpness"] = share * 2 * (1 - momentum) / 0.1
        assert kamath.with_limit(row)["sharpness_share"].item() == pytest.approx(share)
        weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=momentum)
        for _ in range(2000):
            weight.grad = curvature * weight.detach()
            optimizer.step()
        assert (abs(weight.item()) < 1e-3) == stable


def test_from_end_to_end_with_and_without_the_undertrained():
    falls_at_last = {16: 0.1, 64: 0.2, 128: 0.3, 512: 0.05}
    table = batches(fgsm_accuracy=falls_at_last.get)
    table.loc[table["batch_size"] == 512, "train_accuracy"] = 0.5
    table = kamath.with_limit(table.assign(momentum=0.0, learning_rate=0.1))
    table["limit_share"] *= table["batch_size"] / table["top_eigenvalue"]
    found = kamath.from_end_to_end(table, ["fgsm_accuracy", "limit_share"])
    assert (found["batch_size_small"], found["batch_size_large"]) == (16, 512)
    assert found["limit_share_small"] == pytest.approx(16 / 20)
    assert found["limit_share_large"] == pytest.approx(512 / 20)
    assert found["trained_batch_size_large"] == 128
    assert found["fgsm_accuracy_large"] == pytest.approx(5.01)
    assert found["trained_fgsm_accuracy_large"] == pytest.approx(30.01)
    assert found["fgsm_accuracy_rank"] == pytest.approx(-0.2)
    assert found["trained_fgsm_accuracy_rank"] == pytest.approx(1)
    nothing = kamath.from_end_to_end(table.iloc[:0], ["fgsm_accuracy"])
    assert np.isnan(list(nothing.values())).all()


def test_equal_updates_are_read_at_other_epochs():
    small, large = curves(1, (16, 0.1), seeds=1), curves(1, (128, 0.1), seeds=1)
    rows = khritankov.at_updates(pd.concat([small, large]), updates=10 * 98)
    # 12,500 images are 782 updates at 16 and 98 at 128.
    assert dict(zip(rows["batch_size"], rows["epoch"], strict=True)) == {16: 1, 128: 10}


def test_the_papers_table_is_drawn_in_the_units_of_ours():
    printed = khritankov.as_printed(paper_table("wide_minima_table2"))
    cells = khritankov.cell_means(printed, "fgsm_accuracy")
    assert cells.shape == (9, 8)
    assert cells.loc[0.1, 16] == pytest.approx(89.87)


def test_three_rules_choose_three_epochs():
    table = curves(30, (16, 0.1), seeds=2).assign(fgsm_clipped_accuracy=0.9)
    late = table["measured"].eq("epoch") & table["epoch"].eq(90)
    table["validation_fgsm_accuracy"] = late.astype(float)
    found = khritankov.chosen_epochs(table)
    epochs = found["epoch"].str.split().str[0].astype(float)
    assert epochs.tolist() == [30, 90, 120]
    assert found["FGSM (%)"].tolist()[0] == "17.0 and 17.0"


def test_logit_scale_has_a_line_per_way(ax):
    rows = [
        {"measured": "scale", "factor": factor, "fgsm_accuracy": factor / 64}
        | {"fgsm_margin_accuracy": 0.02, "natural_accuracy": 0.98}
        for factor in (1, 8, 64)
    ]
    khritankov.scaled_logits(pd.DataFrame(rows), ax)
    found = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert found["FGSM, cross-entropy float32"] == [100 / 64, 100 / 8, 100]
    assert found["FGSM, margin"] == [2, 2, 2]
    shown = khritankov.table_by_scale(pd.DataFrame(rows))
    assert shown.loc["no attack"].tolist() == ["98.0"] * 3
    assert shown.loc["FGSM, cross-entropy float32", "times 8"] == "12.5"


def test_pictures_say_what_the_network_answers():
    shades = np.full((8, 8), 0.5)
    file = io.BytesIO()
    plt.imsave(file, shades, cmap="gray", vmin=0, vmax=1, format="png")
    row = {"measured": "picture", "key": "k", "image": 0, "label": 4, "moved": 0.3}
    row |= {"png": base64.b64encode(file.getvalue()).decode()}
    ways = [row | {"way": "natural", "answer": 4}, row | {"way": "fgsm", "answer": 9}]
    _, axes = plt.subplots(2, 1, squeeze=False)
    khritankov.attacked_pictures(pd.DataFrame(ways), axes)
    assert [ax.get_title() for ax in axes.flat] == ["4", "9 ✗\n0.30"]
    _, axes = plt.subplots(1, 1, squeeze=False)
    khritankov.attacked_pictures(pd.DataFrame(ways), axes, ["fgsm"])
    assert axes[0, 0].get_title() == "9 ✗\n0.30"
    plt.close("all")


def test_moved_images_stand_by_length_of_training():
    rows = decisive().assign(moved_share=0.9, moved_mean=0.25, median_margin=3.0)
    rows = pd.concat([rows.assign(epochs=5), rows.assign(epochs=25, moved_share=0.1)])
    found = khritankov.moved(rows)
    assert [long for long, _ in found.index] == ["5\u00a0epochs", "25\u00a0epochs"]
    assert found["images that move at all (%)"].str[:4].tolist() == ["90.0", "10.0"]
    assert found["mean move (pixels)"].str[:5].tolist() == ["0.250", "0.250"]
    assert khritankov.moved(rows.iloc[:0]).empty
    assert khritankov.moved(rows.drop(columns="moved_share")).empty


def test_flatness_is_ranked_with_both_robustnesses():
    table = wide(lambda i: i, lambda i: -i)
    for name in ranks.FLATNESS:
        if name.startswith("width"):
            table[name] = table["width_weights_1"]
    table = table.assign(adaptive_sharpness=1.0 / (1 + table["width_weights_1"]))
    table = table.assign(top_eigenvalue=table["adaptive_sharpness"])
    found = khritankov.flatness(table)
    assert len(found) == 16 and set(found["networks"]) == {20}
    by_outcome = found.groupby("outcome")["plain"].agg(["min", "max"]).round(6)
    assert by_outcome.loc["accuracy under FGSM"].tolist() == [1, 1]
    assert by_outcome.loc["median radius that fools"].tolist() == [-1, -1]
    _, axes = plt.subplots(1, 2, sharey=True)
    ranks.correlations(found, axes)
    assert len(axes[0].get_yticklabels()) == 8
    said = ranks.in_words(found).loc[
        ("width in weights, level 1", "accuracy under FGSM")
    ]
    assert said["on its own"] == "1.00" and said["networks"] == 20
    khritankov.by_flatness(table, axes, "width_weights_1")
    plt.close("all")


def test_a_level_set_and_widths_over_levels(ax):
    khritankov.level_set(ax, [1.0, 8.0], 1.0)
    other = plt.subplots()[1]
    gaps = np.array([0.1, 1.0])
    khritankov.width_by_gap(other, gaps, {"bowl": [2, 1]}, {"bowl": [2.1, 1.1]})
    exact, measured = other.lines
    assert list(exact.get_ydata()) == [2, 1]
    assert list(measured.get_ydata()) == [2.1, 1.1]
    khritankov.against_bound(plt.subplots()[1], gaps, gaps + 1, gaps, "1.2")
    table = figures.hours_table({"lab": (24, 0.53), "paper": (1359, 26774.04)})
    assert table.loc["lab"].tolist() == ["24", "0.5"]
    assert table.loc["paper"].tolist() == ["1,359", "26,774"]
    plt.close(other.figure)


def test_three_optima_lie_on_their_curves(ax):
    features.three_optima(ax, p=0.95, eta=0.1, d=100, attack=0.05, radius=5.0)
    curves, dots = ax.lines[::2], ax.lines[1::2]
    for curve, dot in zip(curves, dots, strict=True):
        assert dot.get_ydata()[0] >= curve.get_ydata().max() - 0.01
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx(
        [14.72, 29.44, 15.94], abs=0.01
    )


def test_printed_and_derived_constants_are_2d_apart_and_exact_ones_on_the_latter(ax):
    features.shift_by_radius(ax, 0.95, 0.1, 100, np.array([0.01, 0.1, 1.0]))
    printed, derived, exact = (np.asarray(line.get_ydata()) for line in ax.lines)
    np.testing.assert_allclose(printed / derived, 200)
    np.testing.assert_allclose(exact, derived, rtol=1e-3)


def test_the_direction_of_the_shift_changes_on_the_line(ax):
    features.direction_of_shift(ax, 0.95, [0.1, 0.3], [20.0, 1000.0], radius=0.05)
    more, less = (np.asarray(c.get_offsets()) for c in ax.collections)
    assert more.tolist() == [[20.0, 0.1]]  # w* = 14.7, and 4.9 at a mean of 0.3
    assert len(less) == 3


def test_the_gap_is_drawn_inside_the_ball(ax):
    wang.gap_in_ball(ax, (1.0, 0.5), 1.0, "l2")
    assert ax.get_title() == "L2 1"
    other = plt.subplots()[1]
    wang.rates(other, (10, 100), {0.1: [(1.0, 5.0), (0.5, 2.0)]})
    bound, measured = other.lines
    assert list(bound.get_ydata()) == [5, 2] and list(measured.get_ydata()) == [1, 0.5]
    plt.close(other.figure)


def test_ratios_are_drawn_relative_to_sgd(ax):
    features.trained_ratios(ax, [0.0, 0.5], {20: np.array([[2.0, 3.0], [4.0, 5.0]])})
    mean = ax.lines[0].get_ydata()
    np.testing.assert_allclose(mean, [0, 37.5])


def test_ways_of_finding_an_eigenvalue_are_compared_network_by_network():
    ways = ["Lanczos, 10 images", "PyHessian, 10 images", "Lanczos, 50 images"]
    ways += ["smallest, 10 images"]
    values = {"a": [10.0, 10.1, 9.5, -0.2], "b": [2.0, 2.0, 2.02, -0.06]}
    rows = [
        {"key": key, "way": way, "value": value}
        for key, found in values.items()
        for way, value in zip(ways, found, strict=True)
    ]
    table = pd.DataFrame(rows).assign(measured="spectrum", of="eigenvalue")
    found = kamath.eigenvalue_differences(table)
    assert found == pytest.approx({"solver": 1.0, "images": 5.0, "smallest": 3.0})
    empty = kamath.eigenvalue_differences(table.iloc[:0])
    assert empty.keys() == found.keys() and np.isnan(list(empty.values())).all()


def test_eigenvalues_and_densities_of_a_network(ax):
    rows = [
        {"measured": "spectrum", "key": "k", "batch_size": 16, "learning_rate": 0.1}
        | change
        for change in (
            {"of": "eigenvalue", "way": "Lanczos", "value": 12.3456, "products": 9}
            | {"residual": 0.01},
            {"of": "density", "place": 0.0, "value": 1.0},
            {"of": "density", "place": 9.0, "value": 0.1},
        )
    ]
    table = pd.DataFrame(rows)
    found = kamath.eigenvalues(table)
    assert found.loc[("B = 16, LR = 0.1", "Lanczos"), "eigenvalue"] == "12.35"
    kamath.densities(table, ax)
    assert ax.lines[0].get_xdata().tolist() == [0.0, 9.0]
    assert kamath.eigenvalues(table.iloc[:0]).empty


def test_each_eigenvalue_stands_with_its_residual():
    row = {"measured": "final", "diverged": False, "key": "k", "batch_size": 16}
    row |= {"seed": 0, "top_eigenvalue": 12.3456, "eigenvalue_residual": 0.01}
    row |= {"hessian_products": 9.0, "hessian_images": 1000.0, "setting": "LR"}
    table = pd.DataFrame([row | {"test": "a"}, row | {"test": "b"}])
    found = kamath.eigenvalue_of_each(table)
    assert found.loc["LR"].tolist() == [16, 0, "12.3", "0.01", 9, 1000]
    assert kamath.eigenvalue_of_each(table.iloc[:0]).empty


def test_explanations_leave_undertrained_networks_out():
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        generator.uniform(size=(20, 4)),
        columns=["final_train_loss", "median_margin", "learning_rate", "robust"],
    )
    table = table.assign(top_eigenvalue=-table["robust"], train_accuracy=1.0)
    table.loc[0, ["train_accuracy", "robust"]] = 0.5, -100
    found = kamath.explanations(table, {"robust": "robust"})
    assert found.loc[0, "networks"] == 19
    assert found.loc[0, "plain"] == pytest.approx(1)


def test_numbers_are_those_that_are_drawn():
    canvas, (left, right) = plt.subplots(1, 2)
    left.errorbar([1, 2], [3, 4], yerr=[0.5, 0.25], label="ours", fmt="o")
    left.axhline(9)
    left.set_title("a panel")
    sns.heatmap(pd.DataFrame([[5, 6]], ["one"], ["wide", "sharp"]), ax=right)
    found = figures.drawn(canvas)
    ours = found[found["panel"] == "a panel"]
    assert set(ours["series"]) == {"ours"} and 9 not in set(ours["y"])
    assert sorted(ours["y"]) == [2.5, 3, 3.5, 3.75, 4, 4.25]
    cells = found[found["value"].notna()].set_index(["y", "x"])["value"]
    assert cells.to_dict() == {("one", "wide"): 5, ("one", "sharp"): 6}
    plt.close("all")


def test_a_spread_is_over_the_runs_that_measured_it():
    rows = pd.DataFrame({"pgd_accuracy": [0.4, 0.6, np.nan], "b": [25, np.nan, np.nan]})
    assert figures.spread(rows.assign(c=np.nan), "c") == "not run"
    assert figures.spread(rows, "b") == "25.0"
    assert figures.spread(rows, "b", 2, 4) == "100.00"
    assert figures.spread(rows, "pgd_accuracy") == "40.0 and 60.0"
    three = pd.DataFrame({"pgd_accuracy": [0.4, 0.5, 0.6]})
    wide = "50.0 ±\u00a024.8"  # t of two degrees: 4.303
    assert figures.spread(three, "pgd_accuracy") == wide


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("pgd_accuracy", [0.006, 0.016, 0.026], "0.6, 1.6 and 2.6"),  # down to -0.9 %
        ("pgd_accuracy", [0.98, 0.99, 0.97], "98.0, 99.0 and 97.0"),  # up to 100.5 %
        ("pgd_accuracy", [0.0, 0.0, 0.0], "0.0, 0.0 and 0.0"),
        ("epoch", [20, 20, 20], "20.0, 20.0 and 20.0"),
        ("epoch", [200, 300, 700], "200.0, 300.0 and 700.0"),  # down to -257
        ("final_train_loss", [-1.0, 0.0, 1.0], "0.0 ±\u00a02.5"),  # may be below 0
        ("epoch", [99.0, 100.0, 101.0], "100.0 ±\u00a02.5"),  # no percentage
    ],
)
def test_no_interval_leaves_what_is_possible(column, values, said):
    assert figures.spread(pd.DataFrame({column: values}), column) == said


@pytest.mark.parametrize("label", where.figures())
def test_every_figure_leads_to_the_code_behind_it(label):
    drawing = where.functions(label)
    assert drawing
    for function in drawing:
        file, _, number = where.line(function).partition(":")
        source = (paths.ROOT / file).read_text().splitlines()
        assert source[int(number) - 1].startswith(f"def {function.__name__}(")
    for column in where.columns(label).values():
        assert where.line(column.function)


# Figures of theory, drawn without a trained network's rows.
TOYS = {"fig-level", "fig-theorems", "fig-model", "fig-shift", "fig-samples"}
TOYS |= {"fig-gap", "fig-rate"}


@pytest.mark.parametrize("label", where.figures())
def test_figures_of_trained_networks_and_no_others_have_columns(label):
    shared = {"recipe", "provenance"}
    measured = [c for c in where.columns(label).values() if shared.isdisjoint(c.kinds)]
    assert bool(measured) != (label in TOYS)


def test_columns_of_figures_are_found_where_they_are_named():
    def measured(label):
        columns = where.columns(label).values()
        return {column.name for column in columns if column.kinds != ("recipe",)}

    assert measured("fig-robust") == {"pgd_accuracy", "worst_accuracy", "test"}
    quartiles = {
        f"{n}_q{q}" for n in ("loss", "normalised_fosc_box") for q in (25, 50, 75)
    }
    assert measured("fig-ascent") == {"step"} | quartiles
    assert measured("fig-fosc-stages") == {"epoch", *(f"fosc_d{i}" for i in range(11))}
    pgd = {"restarts_pgd_accuracy", "autoattack_pgd_accuracy"}
    strong = {"restarts_accuracy", "autoattack_accuracy"}
    assert measured("fig-drops") == {"test"} | pgd | strong
    assert "fgsm_float64_accuracy" in measured("fig-ways")
    assert measured("fig-natural") == {"natural_accuracy", "top_eigenvalue"}
    with pytest.raises(ValueError, match="fig-robst"):
        where.columns("fig-robst")


def test_an_interval_of_one_seed_has_no_ends_to_read():
    """Its ends are NaN: what was drawn is the point alone."""
    _, ax = plt.subplots()
    ax.errorbar([1.0], [2.0], yerr=[np.nan], fmt="o")
    rows = figures.drawn(ax.figure)
    assert rows[["x", "y"]].dropna().values.tolist() == [[1.0, 2.0]]


def svg(canvas):
    """What is written of a figure, without the date and names of clip paths."""
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata={"Date": None})
    return re.sub(r"\bp[0-9a-f]{10}\b", "", file.getvalue())


def grid_of_panels():
    """Two rows that share their axes; two lines in each panel, with their names."""
    figures.style()
    canvas, axes = figures.panels(2, 2, sharex=True, sharey="row")
    for shift, ax in enumerate(axes.flat):
        lines = {"a line": [shift, 1, 2], "another": [2, 1, shift]}
        figures.curves(ax, [0, 1, 2], lines, (figures.BLUE, figures.RED))
        ax.set(title=f"panel {shift}")
        ax.label_outer()
    figures.framed(axes[1, 0], "epoch", "accuracy (%)")
    figures.framed(axes[1, 1], "epoch", "", "outside").label_outer()
    axes[0, 0].set(ylabel="loss")
    return canvas


def test_a_drawing_for_phones_has_every_panel_with_its_labels():
    canvas = grid_of_panels()
    small = figures.narrowed(canvas)
    small.canvas.draw()
    assert small.get_figwidth() == 3.7
    assert [ax.get_title() for ax in small.axes] == [f"panel {i}" for i in range(4)]
    assert [ax.get_xlabel() for ax in small.axes] == ["epoch"] * 4
    labels = [ax.get_ylabel() for ax in small.axes]
    assert labels == ["loss", "loss", "accuracy (%)", "accuracy (%)"]
    boxes = [ax.get_window_extent() for ax in small.axes]
    for above, below in itertools.pairwise(boxes):
        assert above.x0 == pytest.approx(below.x0) and above.y0 > below.y1
    for ax in small.axes:
        assert any(t.get_visible() for t in ax.get_xticklabels())
        assert any(t.get_visible() for t in ax.get_yticklabels())
    pd.testing.assert_frame_equal(figures.drawn(small), figures.drawn(canvas))
    [legend] = small.legends
    assert [t.get_text() for t in legend.get_texts()] == ["a line", "another"]
    assert not any(ax.get_legend() for ax in small.axes)
    assert legend.get_window_extent().y0 > boxes[0].y1
    plt.close("all")


def test_a_figure_is_as_it_was_after_the_drawing_for_phones():
    canvas = grid_of_panels()
    svg(canvas)  # the first drawing settles the layout
    before, shown = svg(canvas), plt.get_fignums()
    carried = figures.carried(canvas)
    assert svg(canvas) == before and plt.get_fignums() == shown
    assert carried["text/csv"].startswith("panel,series,x,y,value")
    assert 'width="266.4pt"' in carried[NARROW]
    plt.close("all")


def test_names_on_a_phone_are_folded_and_shared_ones_stand_below_the_last():
    figures.style()
    canvas, axes = figures.panels(2, sharex=True, sharey=True)
    long = "a name that is far too long"
    for ax in axes:
        ax.plot([0, 1], [0, 1])
        ax.set_xticks([0, 1], ["standard", "dynamic"])
        ax.set_yticks([0, 1], ["short", long])
        ax.label_outer()
    small = figures.narrowed(canvas)
    small.canvas.draw()
    first, last = small.axes
    assert not any(t.get_visible() for t in first.get_xticklabels())
    assert [t.get_text() for t in last.get_xticklabels()] == ["standard", "dynamic"]
    for ax in small.axes:
        names = [t.get_text() for t in ax.get_yticklabels() if t.get_visible()]
        assert names == ["short", "a name that is far\ntoo long"]
    plt.close("all")


def test_pictures_stay_beside_each_other_on_a_phone():
    canvas, axes = plt.subplots(2, 3, figsize=(7, 4))
    for ax in axes.flat:
        ax.imshow(np.zeros((2, 2)))
    small = figures.narrowed(canvas)
    small.canvas.draw()
    tops = [ax.get_window_extent().y1 for ax in small.axes]
    assert len({*np.round(tops)}) == 2 and small.get_figwidth() == 3.7
    plt.close("all")


def test_a_figure_without_axes_can_be_shown():
    assert figures.narrowed(plt.figure()).get_figwidth() == 3.7
    plt.close("all")
