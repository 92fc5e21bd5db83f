"""Verdicts follow the criteria of book/claims.csv, on tables with known answers."""

import inspect
import itertools

import numpy as np
import pandas as pd
import pytest

from widemin.papers import claims
from widemin.papers.claims import OUTCOMES, criteria
from widemin.papers.kamath import claims as kamath
from widemin.papers.khritankov import claims as khritankov
from widemin.papers.wang import claims as wang
from widemin.papers.wei import claims as wei

# What rests on no run of a network
FREE = ("mathematics", "toy problem", "linear models, any")
MODULES = {
    "khritankov": khritankov,
    "wei": wei,
    "wang": wang,
    "kamath": kamath,
}


def functions():
    return {
        name: function
        for module in MODULES.values()
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name in criteria()
    }


def row(**change):
    base = {
        "key": "k",
        "measured": "final",
        "diverged": False,
        "dataset": "mnist",
        "model": "m1",
        "train_size": 10_000,
        "epochs": 15,
        "batch_size": 16,
        "learning_rate": 0.1,
        "momentum": 0.0,
        "schedule": "constant",
        "augment": "",
        "method": "standard",
        "rho": 0.0,
        "attack": "",
        "attack_steps": 10,
        "attack_step": 0.25,
        "step_schedule": "",
        "fosc_max": 0.0,
        "fosc_from_start": False,
        "loss_weighted": False,
        "rate_decay": 0.0,
        "seed": 0,
        "test": "linf 0.3",
        "images": 1_000,
        "natural_accuracy": 0.98,
        "fgsm_accuracy": 0.3,
        "fgsm_clipped_accuracy": 0.3,
        "fgsm_margin_accuracy": 0.1,
        "pgd_accuracy": 0.2,
        "pgd_margin_accuracy": 0.1,
        "worst_accuracy": 0.1,
        "masked_share": 0.0,
        "train_accuracy": 1.0,
        "top_eigenvalue": 10.0,
        "gradients": 15.0,
        "train_seconds": 15.0,
    }
    return base | change


def grid(fgsm, **change):
    """A grid whose FGSM accuracy is a function of (batch size, learning rate)."""
    cells = itertools.product((16, 32, 64, 128), (0.01, 0.03, 0.1, 0.3, 0.6), range(2))
    return pd.DataFrame(
        [
            row(batch_size=b, learning_rate=r, seed=s, fgsm_accuracy=fgsm(b, r))
            | change
            for b, r, s in cells
        ]
    )


def test_every_claim_is_there_once_and_every_function_has_one():
    assert len(criteria()) == 55
    counts = pd.Series([claim.paper for claim in criteria().values()]).value_counts()
    assert counts.to_dict() == {"khritankov": 13, "wei": 12, "wang": 14, "kamath": 16}
    for name, function in functions().items():
        assert criteria()[name].paper in function.__module__.split("."), name
    assert functions().keys() == criteria().keys()


RESTS_ON_ROWS = sorted(
    name
    for name, f in functions().items()
    if inspect.signature(f).parameters and name != "S11"
)


@pytest.mark.parametrize("name", RESTS_ON_ROWS)
def test_without_rows_a_claim_is_not_yet_run(name):
    function = functions()[name]
    empty = [pd.DataFrame()] * len(inspect.signature(function).parameters)
    assert function(*empty).outcome == "not yet run"


def test_w1_follows_the_ratio():
    verdict = khritankov.W1(grid(lambda b, r: min(0.9, 20 * r / b)))
    assert verdict.outcome == "reproduced"
    assert verdict.ours.startswith("Spearman 1.00 (1.00 to 1.00) in 20 cells")
    assert verdict.paper == "Spearman 0.96 in 39 cells"
    assert khritankov.W1(grid(lambda b, r: r)).outcome == "not reproduced"
    masked = khritankov.W1(
        grid(lambda b, r: min(0.9, 20 * r / b), pgd_margin_accuracy=0.0)
    )
    assert masked.holds_up.startswith("no; margin-loss PGD leaves at most 0.0 %")


def broken_from(boundary):
    """A grid in which runs diverge from a function of the batch size on."""
    table = grid(lambda b, r: 0.3)
    lost = [
        rate >= boundary(size)
        for size, rate in zip(table["batch_size"], table["learning_rate"], strict=True)
    ]
    return table.assign(constant=lost)


def test_w5_finds_the_boundary_of_trainability():
    sharp = khritankov.W5(broken_from(lambda b: 0.3 if b == 16 else 0.6))
    assert sharp.outcome == "reproduced"
    assert sharp.ours.startswith("5 of 20 cells diverged in every run")
    late = khritankov.W5(broken_from(lambda b: 0.3))
    assert late.outcome == "not reproduced"
    assert "as stated at batch size 16." in late.evidence
    never = khritankov.W5(broken_from(lambda b: 9.0))
    assert never.outcome == "not reproduced"
    assert "At no batch size" in never.evidence


def test_w13_asks_for_the_worst_case():
    real = decisive(fgsm_accuracy=0.9, worst_accuracy=0.85)
    masked = decisive(fgsm_clipped_accuracy=0.9, worst_accuracy=0.0)
    assert khritankov.W13(real).outcome == "reproduced"
    assert khritankov.W13(masked).outcome == "not reproduced"
    assert khritankov.W13(masked).holds_up == "no"
    assert "TRADES 92.8 %" in khritankov.W13(masked).evidence


def test_w8_asks_whether_the_images_moved():
    columns = {"strong_images": 200, "moved_mean": 0.1, "zero_gradient_share": 0.0}
    still = khritankov.W8(decisive(moved_share=0.1, **columns))
    assert still.outcome == "not reproduced"
    assert khritankov.W8(decisive(moved_share=0.9, **columns)).outcome == "reproduced"
    assert khritankov.W8(decisive()).outcome == "not yet run"


def test_a_verdict_says_how_many_runs_it_rests_on():
    table = decisive(fgsm_accuracy=0.9)
    table.attrs = {"planned": 6, "done": 3}
    assert "Rests on 3 of 6 planned runs." in khritankov.W7(table).evidence
    table.attrs = {"planned": 3, "done": 3}
    assert "Rests on" not in khritankov.W7(table).evidence


def test_digits_and_missing_seeds_decide_nothing():
    table = grid(lambda b, r: min(0.9, 20 * r / b))
    small = khritankov.W1(table.assign(dataset="digits"))
    assert small.outcome == "not decidable at this scale"
    assert "larger images than digits" in small.evidence
    single = khritankov.W1(table[(table["seed"] == 0) | (table["batch_size"] > 16)])
    assert single.outcome == "not decidable at this scale"
    assert "it takes 2 seeds; there are 1" in single.evidence
    assert single.holds_up == "not tested"


def decisive(**change):
    change = {"train_size": 60_000, "epochs": 25} | change
    return pd.DataFrame([row(seed=seed, **change) for seed in range(3)])


@pytest.mark.parametrize(
    ("plain", "clipped", "outcome"),
    [(0.9, 0.9, "reproduced"), (0.5, 0.9, "partly"), (0.5, 0.5, "not reproduced")],
)
def test_w2_tells_the_ways_apart(plain, clipped, outcome):
    table = decisive(fgsm_accuracy=plain, fgsm_clipped_accuracy=clipped)
    assert khritankov.W2(table).outcome == outcome
    assert khritankov.W2(table).paper.startswith("89.9 %")


def test_w7_compares_with_the_worst_case():
    real = decisive(fgsm_accuracy=0.9, worst_accuracy=0.85)
    assert khritankov.W7(real).outcome == "reproduced"
    masked = decisive(fgsm_accuracy=0.9, worst_accuracy=0.0)
    assert khritankov.W7(masked).outcome == "not reproduced"
    assert khritankov.W7(masked).holds_up == "no"


def test_diverged_runs_are_not_judged():
    table = decisive(fgsm_accuracy=0.9, worst_accuracy=0.85)
    broken = row(seed=3, diverged=True, fgsm_accuracy=np.nan)
    with_broken = pd.concat([table, pd.DataFrame([broken])])
    assert khritankov.W7(with_broken).ours == khritankov.W7(table).ours


def sam(gains, **change):
    """Standard training at 30 %, SAM above it by gains[rho] in every column."""
    tests = ("linf 1/255", "linf 2/255", "l2 16/255", "l2 32/255")
    rows = []
    for seed, test in itertools.product(range(3), tests):
        noise = 0.001 * seed
        base = {"dataset": "cifar10", "seed": seed, "test": test}
        rows.append(row(**base, pgd_accuracy=0.3, pgd_margin_accuracy=0.3))
        for rho, gain in gains.items():
            value = 0.3 + gain + noise
            rows.append(
                row(
                    **base,
                    method="sam",
                    rho=rho,
                    pgd_accuracy=value,
                    pgd_margin_accuracy=value,
                    gradients=30.0,
                    train_seconds=29.0,
                )
            )
        for attack, natural in (("linf 2/255", 0.9), ("linf 8/255", 0.85)):
            rows.append(
                row(
                    **base,
                    method="adversarial",
                    attack=attack,
                    natural_accuracy=natural,
                    pgd_accuracy=0.6,
                    pgd_margin_accuracy=0.6,
                    gradients=165.0,
                )
            )
    return pd.DataFrame(rows).assign(**change)


def test_the_claims_on_sam():
    table = sam({0.1: 0.05, 0.2: 0.08, 0.4: 0.12})
    for name in ("S2", "S3", "S5", "S6", "S7"):
        verdict = getattr(wei, name)(table)
        assert verdict.outcome == "reproduced", verdict
    assert wei.S2(table).paper == "mean gain 3.9 points (ρ 0.1) to 11.0 (ρ 0.4)"
    worse = sam({0.1: -0.02, 0.2: 0.08, 0.4: 0.05})
    assert wei.S2(worse).outcome == "not reproduced"
    assert wei.S3(worse).outcome == "not reproduced"
    strong = sam({0.1: 0.05, 0.2: 0.08, 0.4: 0.4})
    assert wei.S6(strong).outcome == "not reproduced"
    assert wei.S5(table.assign(natural_accuracy=0.9)).outcome == "not reproduced"
    trained = table["method"] == "adversarial"
    level = table.assign(
        natural_accuracy=table["natural_accuracy"].where(~trained, 0.9)
    )
    assert wei.S5(level).outcome == "not reproduced"  # no larger for a larger radius
    norms = table.assign(attack=table["attack"].replace("linf 8/255", "l2 128/255"))
    alone = wei.S5(norms)
    assert alone.outcome == "not decidable at this scale"
    assert "two radii of one norm" in alone.evidence
    assert wei.S7(table.assign(gradients=15.0)).outcome == "not reproduced"


def attacked(gains, restarts=0.01, autoattack=0.02, at_8=0.01):
    """The networks of `sam` under stronger attacks, which take a little; and at 8."""
    table = sam(gains)
    table["restarts_pgd_accuracy"] = table["pgd_accuracy"]
    table["restarts_accuracy"] = table["pgd_accuracy"] - restarts
    first = table["seed"] == 0
    table["autoattack_pgd_accuracy"] = table["pgd_accuracy"].where(first)
    table["autoattack_accuracy"] = (table["pgd_accuracy"] - autoattack).where(first)
    table = table.assign(autoattack_images=50, strong_images=200, masked_share=0.0)
    table["median_margin"] = 3.0
    trained = table["method"] == "adversarial"
    far = table[table["test"] == "linf 1/255"].assign(test="linf 8/255")
    far = far.assign(worst_accuracy=np.where(trained[far.index], 0.4, at_8))
    return pd.concat([table, far], ignore_index=True)


def test_s9_asks_stronger_attacks_for_order_and_loss():
    gains = {0.1: 0.05, 0.2: 0.08, 0.4: 0.12}
    held = wei.S9(attacked(gains))
    assert held.outcome == "reproduced" and held.holds_up == "yes"
    assert "1.0 points to PGD-50" in held.ours and "2.0 to AutoAttack" in held.ours
    assert wei.S9(attacked(gains, autoattack=0.05)).outcome == "partly"
    other = {0.1: 0.05, 0.2: 0.02, 0.4: 0.12}
    assert wei.S9(attacked(other)).outcome == "partly"
    assert wei.S9(attacked(other, restarts=0.1)).outcome == "not reproduced"
    one = attacked(gains)
    one = one[one["seed"] == 0]
    assert wei.S9(one).outcome == "not decidable at this scale"
    assert wei.S9(sam(gains)).outcome == "not yet run"


def test_s12_asks_what_is_left_at_8():
    far = wei.S12(attacked({0.1: 0.05}))
    assert far.outcome == "not reproduced" and "SAM at most 1.0 %" in far.ours
    assert "40.0 % trained on L∞" in far.evidence
    assert wei.S12(attacked({0.1: 0.05}, at_8=0.3)).outcome == "reproduced"
    assert wei.S12(sam({0.1: 0.05})).outcome == "not yet run"


def test_adversarial_training_is_compared_over_its_own_seeds_and_sets():
    """Seed 2 has none, and other test sets than the paper's do not count."""
    table = attacked({0.4: 0.12})
    dropped = table["method"].eq("adversarial") & table["seed"].eq(2)
    table.loc[table["seed"].eq(2), "pgd_accuracy"] = 0.9  # would beat it
    assert wei.S6(table[~dropped]).outcome == "reproduced"


def defences(gain, **change):
    """Standard, curriculum between, dynamic above by gain, under every attack."""
    rows = []
    kinds = ("wang", "natural", "robust")
    columns = [f"{kind}_{way}_accuracy" for kind in kinds for way in wang.ATTACKS]
    columns += ["worst_accuracy", "restarts_accuracy"]
    columns += ["fgsm_accuracy", "pgd_accuracy", "pgd_margin_accuracy"]
    for seed in range(3):
        base = {"seed": seed, "epochs": 50, "attack": "linf 0.3", "strong_images": 400}
        level = dict.fromkeys(columns, 0.9)
        better = dict.fromkeys(columns, 0.9 + gain + 0.001 * seed)
        between = dict.fromkeys(columns, 0.9 + gain / 2)
        if seed == 0:
            for found, value in ((level, 0.8), (better, 0.8 + gain)):
                found |= {"autoattack_accuracy": value, "autoattack_images": 100}
        standard = row(**base, **level, method="adversarial")
        rows.append(standard | {"natural_accuracy": 0.97})
        rising = row(**base, **between, method="adversarial", step_schedule="rising")
        rows.append(rising)
        rows.append(row(**base, **better, method="dynamic", fosc_max=0.5))
    return pd.DataFrame(rows).assign(**change)


def test_the_claims_on_dynamic_training():
    for name in ("D7", "D8", "D10", "D14"):
        assert getattr(wang, name)(defences(0.02)).outcome == "reproduced", name
        worse = getattr(wang, name)(defences(-0.02))
        assert worse.outcome == "not reproduced", name
        short = getattr(wang, name)(defences(0.02, epochs=8))
        assert short.outcome == "not decidable at this scale"
        assert "it takes 50 epochs" in short.evidence
    assert wang.D7(defences(0.02)).paper == "+0.63, +0.42, +0.65, +0.44 points on MNIST"
    assert wang.D9(defences(0.02)).outcome == "reproduced"
    assert wang.D9(defences(0.02)).paper == "+0.35 points"


def test_switches_do_not_pass_for_the_algorithm():
    """Dynamic training with a switch turned is not judged as dynamic training."""
    table = defences(0.02)
    turned = table[table["method"] == "dynamic"].assign(
        loss_weighted=True, wang_pgd20_accuracy=0.1
    )
    both = pd.concat([table, turned], ignore_index=True)
    assert wang.D7(both).ours == wang.D7(table).ours


def test_longer_dynamic_training_is_compared_at_its_cost():
    table = defences(-0.02).assign(gradients=550.0)
    dynamic = table["method"] == "dynamic"
    table.loc[dynamic, "gradients"] = 350.0
    longer = table[dynamic].assign(epochs=75, gradients=528.0, wang_pgd20_accuracy=0.95)
    both = pd.concat([table, longer], ignore_index=True)
    verdict = wang.D7(both)
    assert verdict.outcome == "not reproduced"
    assert "At 0.96 of its gradients, over 75 epochs: PGD-20 +5.0" in verdict.evidence


def test_costs_are_those_of_the_shortest_runs():
    table = defences(0.02).assign(gradients=88.0)
    longer = table[table["method"] == "dynamic"].assign(epochs=75, gradients=200.0)
    found = wang.costs(pd.concat([table, longer]))
    assert found == {"standard": 88.0, "dynamic": 88.0, "curriculum": 88.0}
    assert np.isnan(wang.costs(table.iloc[:0])["dynamic"])


def test_a_bargain_is_gain_and_cost():
    found = wei.bargain(attacked({0.1: 0.05}, at_8=0.03), "linf 8/255")
    assert found["adversarial"] == pytest.approx(37)
    assert found["sam"] == pytest.approx(0)
    assert found["sam_cost"] == 2 and found["adversarial_cost"] == 11
    plain = attacked({0.1: 0.05})
    plain = plain[plain["method"] == "standard"]
    assert np.isnan(wei.bargain(plain, "linf 8/255")["sam"])


def test_a_chosen_epoch_takes_sams_lead_apart():
    """SGD falls from 0.6 to 0.2 at the last epoch, SAM stays at 0.5."""
    rows = [
        row(measured="epoch", key=f"{rho}", method=method, rho=rho, epoch=e)
        | {"watch": "linf 2/255", "fgsm_accuracy": f, "validation_fgsm_accuracy": f}
        for method, rho, curve in (
            ("standard", 0.0, (0.3, 0.6, 0.2)),
            ("sam", 0.1, (0.4, 0.5, 0.5)),
        )
        for e, f in enumerate(curve, 1)
    ]
    found = wei.gains_by_rule(pd.DataFrame(rows), 0.1)
    assert found["last"] == pytest.approx(30)
    assert found["best on held-out images"] == pytest.approx(-10)
    assert found["standard"] == pytest.approx(40)
    assert np.isnan(wei.gains_by_rule(pd.DataFrame(rows).iloc[:0], 0.1)["last"])


def test_without_the_papers_attacks_ours_are_judged():
    table = defences(0.02)
    bare = table.drop(columns=[c for c in table if c.startswith("wang_")])
    ours = wang.D7(bare)
    assert ours.outcome == "reproduced" and "this book's rule of steps" in ours.evidence
    assert "PGD-10" not in ours.ours and "PGD-10" in wang.D7(table).ours


def bins(accuracy, loss):
    """Ten bins of growing FOSC with accuracies and losses of their own."""
    return pd.DataFrame(
        [
            row(measured="bin", method="adversarial", attack="linf 0.3", pool=pool)
            | {"by": by, "bin": i, "value": 0.1 * i}
            | {"accuracy": accuracy(i), "loss": loss(i)}
            for pool in ("all", "last")
            for by in ("fosc", "normalised_fosc")
            for i in range(10)
        ]
    )


def test_d2_ranks_bins():
    as_claimed = bins(lambda i: 0.05 * i, lambda i: 3 - 0.2 * i)
    assert wang.D2(as_claimed).outcome == "reproduced"
    reverse = wang.D2(bins(lambda i: 1 - 0.05 * i, lambda i: 0.2 * i))
    assert reverse.outcome == "not reproduced"
    assert "-1.00 with accuracy, +1.00 with loss" in reverse.ours
    attacks = pd.DataFrame(
        [
            row(measured="strength", method="adversarial", attack="linf 0.3")
            | {"steps_taken": steps, "step_radii": 0.25, "accuracy": 1 / steps}
            | {"fosc_q50": steps, "normalised_fosc_box_q50": 1 / steps}
            for steps in (10, 20, 30)
        ]
    )
    both = wang.D2(
        pd.concat([bins(lambda i: 1 - 0.05 * i, lambda i: 0.2 * i), attacks])
    )
    assert "FOSC ranks with accuracy at -1.00; normalised" in both.evidence
    assert both.evidence.rstrip(".").endswith("at +1.00")


def sweeps(field, robust):
    rows = []
    for seed, (value, accuracy) in itertools.product(range(2), robust.items()):
        base = row(seed=seed, epochs=50, method="adversarial", attack="linf 0.3")
        base |= {field: value}
        base |= {f"wang_{w}_accuracy": accuracy + 0.001 * seed for w in wang.ATTACKS}
        rows.append(base)
        rows.append(base | {"measured": "step", "step": 10, "fosc_q50": 1 - accuracy})
    return pd.DataFrame(rows)


def test_d4_d5_and_d6_compare_strengths_of_training():
    sizes = {1.0: 0.85, 0.5: 0.9, 0.25: 0.91, 1 / 6: 0.88, 1 / 8: 0.87}
    assert wang.D4(sweeps("attack_step", sizes)).outcome == "reproduced"
    other = sizes | {1.0: 0.95}
    assert wang.D4(sweeps("attack_step", other)).outcome == "partly"
    numbers = {10: 0.9, 20: 0.91, 30: 0.91, 40: 0.9}
    assert wang.D5(sweeps("attack_steps", numbers)).outcome == "reproduced"
    far = numbers | {40: 0.8}
    assert wang.D5(sweeps("attack_steps", far)).outcome == "not reproduced"
    schedules = {"": 0.9, "weak-first": 0.9, "weak-last": 0.7}
    assert wang.D6(sweeps("step_schedule", schedules)).outcome == "reproduced"
    hurt = schedules | {"weak-first": 0.7}
    assert wang.D6(sweeps("step_schedule", hurt)).outcome == "partly"


def stages(between):
    """FOSC after six epochs, constant for standard training."""
    rows = []
    for e in range(1, 7):
        base = row(measured="epoch", epoch=e, epochs=6, attack="linf 0.3")
        rows.append(
            base | {"method": "adversarial", "fosc_mean": 0.1, "fosc_variance": 0.01}
        )
        rows.append(
            base
            | {"method": "dynamic", "fosc_mean": between * e, "fosc_variance": 0.01}
        )
    return pd.DataFrame(rows)


def test_d11_compares_variances():
    table = stages(0.1)
    assert wang.D11(table).outcome == "reproduced"
    assert wang.D11(stages(0.0)).outcome == "not reproduced"
    dynamic = table[table["method"] == "dynamic"]
    expected = np.var([0.2, 0.4, 0.6]) / 0.01
    assert wang.separation(dynamic) == pytest.approx(expected)


def test_d13_asks_controls_of_like_cost():
    table = defences(0.02)
    random = table[table["step_schedule"] == "rising"].assign(step_schedule="random")
    both = pd.concat([table, random], ignore_index=True)
    assert wang.D13(both).outcome == "reproduced"
    strong = random.assign(wang_pgd20_accuracy=0.99)
    both = pd.concat([table, strong], ignore_index=True)
    assert wang.D13(both).outcome == "not reproduced"
    assert wang.D13(table).outcome == "not yet run"


def ascent(median, spread):
    return pd.DataFrame(
        [
            row(measured="step", method="adversarial", step=step)
            | {
                "normalised_fosc_q50": median,
                "normalised_fosc_box_q50": median / 2,
                "loss_q25": 0.1,
                "loss_q75": 0.1 + spread,
                "fosc_q25": 0.01,
                "fosc_q75": 0.02,
            }
            for step in range(11)
        ]
    )


def test_d3_looks_at_the_last_step():
    assert wang.D3(ascent(0.05, 1.0)).outcome == "reproduced"
    assert wang.D3(ascent(0.2, 1.0)).outcome == "not reproduced"
    assert wang.D3(ascent(0.05, 0.05)).outcome == "not reproduced"


def batches(**functions):
    sizes = (16, 64, 128, 512)
    return pd.DataFrame(
        [
            row(batch_size=b, seed=s)
            | {name: f(b) + 1e-4 * s for name, f in functions.items()}
            for b in sizes
            for s in range(3)
        ]
    )


def test_the_claims_on_batch_size():
    flat = batches(
        natural_accuracy=lambda b: 0.97,
        top_eigenvalue=lambda b: 10.0,
        fgsm_accuracy=lambda b: 0.6,
        pgd_accuracy=lambda b: 0.5,
        pgd_margin_accuracy=lambda b: 0.5,
    )
    steep = batches(
        natural_accuracy=lambda b: 0.98 - b / 1e4,
        top_eigenvalue=lambda b: float(b),
        fgsm_accuracy=lambda b: 0.7 - b / 1e3,
        pgd_margin_accuracy=lambda b: 0.6 - b / 1e3,
    )
    assert kamath.H1(flat).outcome == "reproduced"
    assert kamath.H1(steep).outcome == "not reproduced"
    assert kamath.H2(flat, steep).outcome == "reproduced"
    assert kamath.H2(steep, steep).outcome == "not reproduced"
    assert kamath.H3(flat).outcome == "reproduced"
    assert kamath.H4(steep).outcome == "reproduced"
    assert kamath.H5(steep).outcome == "reproduced"
    assert kamath.H6(steep).outcome == "reproduced"
    assert kamath.H6(steep).holds_up.startswith("yes; margin-loss PGD: Spearman -1.00")
    assert kamath.H5(flat).outcome == "not reproduced"
    fashion = steep.assign(dataset="fashion-mnist")
    assert kamath.H8(fashion).outcome == "not reproduced"
    rising = fashion["top_eigenvalue"] / 1e3
    both = fashion.assign(fgsm_accuracy=rising, pgd_accuracy=rising)
    assert kamath.H8(both).outcome == "reproduced"
    assert kamath.H8(both).holds_up.startswith("no")
    assert kamath.H8(both.assign(top_eigenvalue=1.0)).outcome == "not reproduced"
    undertrained = steep.copy()
    undertrained.loc[undertrained["batch_size"] == 512, "train_accuracy"] = 0.9
    held = kamath.H4(undertrained).holds_up
    assert held == "yes; trained batch sizes alone: Spearman -1.00"
    few = undertrained.assign(train_accuracy=0.9)
    assert kamath.H4(few).holds_up.startswith("too few batch sizes")
    flat_again = kamath.H1(undertrained.assign(natural_accuracy=0.9)).evidence
    assert "Undertrained: 512; without them it is 0.00." in flat_again
    none = both.assign(train_accuracy=0.1)
    assert kamath.H8(none).outcome == "not decidable at this scale"
    assert "no batch size" in kamath.H8(none).ours
    dead = both.copy()
    dead.loc[dead["batch_size"] == 512, "train_accuracy"] = 0.1
    verdict = kamath.H8(dead)
    assert verdict.outcome == "not decidable at this scale"
    assert "it takes 4 batch sizes; there are 3" in verdict.evidence


def test_a_verdict_shows_itself_and_carries_itself():
    verdict = wang.D9(defences(0.02))
    shown, beside = verdict._repr_mimebundle_()
    box = shown["text/markdown"]
    assert box.startswith(":::{admonition} D9: reproduced\n:class: tip verdict")
    assert "+0.35 points" in box and box.endswith(":::")
    assert beside["widemin"]["claim"] == "D9"
    assert beside["widemin"]["outcome"] in OUTCOMES


def test_criteria_show_as_they_stand():
    assert claims.plain("a < b * c $1.") == "a &lt; b \\* c \\$1"


def curves(best, cell, seeds=3, epochs=120, **change):
    """Learning curves that peak at an epoch, with their final rows."""
    size, rate = cell
    rows = []
    for seed in range(seeds):
        common = {
            "key": f"{cell} {seed}",
            "seed": seed,
            "batch_size": size,
            "learning_rate": rate,
            "epochs": epochs,
            "train_size": 12_500,
        } | change
        for epoch in range(1, epochs + 1):
            height = 0.17 - 1e-4 * abs(epoch - best)
            seen = {"fgsm_accuracy": height, "fgsm_margin_accuracy": height / 2}
            rows.append(row(measured="epoch", epoch=epoch, **common, **seen))
        rows.append(row(**common, fgsm_accuracy=0.16))
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("high", "low", "outcome"),
    [
        (100, 10, "reproduced"),
        (100, 100, "partly"),
        (10, 10, "partly"),
        (10, 100, "not reproduced"),
    ],
)
def test_w4_asks_when_the_best_epoch_is(high, low, outcome):
    table = pd.concat([curves(high, (16, 0.1)), curves(low, (128, 0.003))])
    assert khritankov.W4(table).outcome == outcome
    assert khritankov.W4(curves(high, (16, 0.1))).outcome == "not yet run"


def test_w9_asks_three_cells_for_their_first_epochs():
    corner = [(128, 0.003), (128, 0.006), (64, 0.003)]
    table = pd.concat([curves(1, cell) for cell in corner])
    verdict = khritankov.W9(table)
    assert verdict.outcome == "reproduced"
    assert "at epoch 0 to 0, mean over 3 cells" in verdict.ours
    mixed = [curves(best, cell) for best, cell in zip((1, 1, 99), corner, strict=True)]
    assert khritankov.W9(pd.concat(mixed)).outcome == "partly"
    late = pd.concat([curves(99, cell) for cell in corner])
    assert khritankov.W9(late).outcome == "not reproduced"
    two = khritankov.W9(table[table["batch_size"] == 128])
    assert "it takes 3 cells; there are 2" in two.evidence


def test_w10_takes_the_best_rate_of_adam():
    def adam(**best):
        rates = (1e-4, 3e-4, 1e-3, 3e-3)
        rows = [
            row(learning_rate=rate, seed=seed, train_size=60_000, epochs=25)
            | (best if rate == 1e-3 else {})
            for rate in rates
            for seed in range(2)
        ]
        return pd.DataFrame(rows)

    assert khritankov.W10(adam(fgsm_accuracy=0.96)).outcome == "reproduced"
    clipped = khritankov.W10(adam(fgsm_clipped_accuracy=0.96))
    assert clipped.outcome == "partly"
    assert clipped.holds_up.startswith("no; worst case over all attacks 10.0 %")
    assert khritankov.W10(adam()).outcome == "not reproduced"


def wide(robust, distance):
    """Twenty networks whose width is their number, and what else follows it."""
    cells = itertools.product((16, 32, 64, 128), (0.01, 0.03, 0.1, 0.3, 0.6))
    rows = []
    for i, (size, rate) in enumerate(sorted(cells, key=lambda c: c[1] / c[0])):
        rows.append(
            row(key=f"{i}", batch_size=size, learning_rate=rate, constant=False)
            | {"width_size": 500, "width_images": 500, "final_train_loss": i % 5}
            | {f"width_{of}_1": i for of in ("weights", "nodes", "inputs")}
            | {"fgsm_accuracy": robust(i), "distance_q50": distance(i)}
            | {"median_margin": i % 7}
        )
    return pd.DataFrame(rows)


def test_w6_holds_only_without_masking():
    both = khritankov.W6(wide(lambda i: i, lambda i: i))
    assert both.outcome == "reproduced"
    masked = khritankov.W6(wide(lambda i: i, lambda i: -i))
    assert masked.outcome == "not reproduced"
    assert "with FGSM accuracy Spearman 1.00" in masked.ours
    assert masked.holds_up.startswith("no")
    fewer = wide(lambda i: i, lambda i: i)[:12]
    assert "it takes 20 networks; there are 12" in khritankov.W6(fewer).evidence


def test_w6_leaves_out_networks_that_answer_one_class():
    table = wide(lambda i: i, lambda i: i)
    table["constant"] = [i < 4 for i in range(20)]
    verdict = khritankov.W6(table)
    assert "over 16 networks" in verdict.ours and verdict.outcome == "reproduced"


def test_w11_ranks_widths_in_units_of_the_nodes():
    table = wide(lambda i: i, lambda i: i)
    assert khritankov.W11(table).outcome == "reproduced"
    flipped = table.assign(width_nodes_1=-table["width_nodes_1"])
    assert khritankov.W11(flipped).outcome == "not reproduced"


def test_w12_computes_its_counterexamples():
    verdict = khritankov.W12()
    assert "1.1: 10 where at most 1 is allowed" in verdict.evidence
    assert "risen by 0.9 where 0.5 is allowed" in verdict.evidence
    assert "1.81 half-way between two points at 1.01" in verdict.evidence


def test_a_verdict_says_how_many_seeds_would_decide():
    values = [0.70, 0.75, 0.80]
    table = pd.concat(
        [decisive(fgsm_accuracy=v)[i : i + 1] for i, v in enumerate(values)]
    )
    verdict = khritankov.W2(table)
    # |0.75 - 0.80| against 0.05 t / sqrt n: t(n - 1) / sqrt n falls below 1 at n = 7.
    assert verdict.seeds == "7 seeds, by the spread over the 3 seen"
    assert "**What would decide it:** 7 seeds" in verdict.box()
    one = khritankov.W2(decisive()[:1])
    assert one.seeds == "one seed tells no spread: at least 2"


def test_s8_says_what_holds_and_by_how_much_the_rest_is_off():
    verdict = wei.S8()
    assert verdict.outcome == "partly" and "too large by 200 = 2d" in verdict.ours
    for number in ("0.0491", "9.81", "0.00033, not 0.04", "-0.0088"):
        assert number in verdict.evidence, number


def test_s1_and_s4_and_s10_wait_for_the_papers_scale():
    table = sam({0.1: 0.02, 0.2: 0.05, 0.4: 0.12})
    for function in (wei.S1, wei.S4, wei.S10):
        assert function(table).outcome == "not decidable at this scale"
        assert "it takes CIFAR-100" in function(table).evidence
    large = table.assign(dataset="cifar100", train_size=50_000, epochs=100)
    assert wei.S4(large).outcome == "reproduced"
    assert wei.S4(large).ours.endswith("12.1 points at ρ 0.4")
    assert wei.S4(large[large["rho"] != 0.4]).outcome == "not yet run"
    assert wei.S10(large).outcome == "reproduced"  # noise of 0.001 a seed
    assert wei.S1(large).outcome == "not reproduced"  # no gain at all
    gained = large["natural_accuracy"] + 0.01 * large["rho"]
    assert wei.S1(large.assign(natural_accuracy=gained)).outcome == "reproduced"


def test_what_rests_on_no_run_is_mathematics_or_a_toy():
    free = functions().keys() - set(RESTS_ON_ROWS)
    assert free == {"W12", "S8", "S11", "D1", "D12"}
    for name in free:
        assert criteria()[name].decidable_from in FREE


def test_s11_asks_for_both_directions():
    up, down = np.array([[1.0, 1.1, 1.2]] * 3), np.array([[1.0, 0.9, 0.8]] * 3)
    assert wei.S11({20: up, 200: down}).outcome == "reproduced"
    both = wei.S11({20: up, 200: up})
    assert both.outcome == "partly"
    assert "+20.0 % at d = 200, where theory predicts less" in both.ours
    assert wei.S11({20: down, 200: up}).outcome == "not reproduced"


def test_d1_is_a_linear_programme():
    assert wang.D1().outcome == "reproduced"


def test_d12_bounds_and_floors():
    verdict = wang.D12()
    assert verdict.outcome == "reproduced"
    assert "to the power 1.00" in verdict.ours


def test_h7_asks_for_three_trends():
    steep = batches(
        natural_accuracy=lambda b: 0.98 - b / 1e4,
        top_eigenvalue=lambda b: float(b),
        fgsm_accuracy=lambda b: 0.7 - b / 1e3,
        pgd_margin_accuracy=lambda b: 0.6 - b / 1e3,
    )
    assert kamath.H7(steep).outcome == "reproduced"
    assert kamath.H7(steep.assign(fgsm_accuracy=0.5)).outcome == "partly"
    assert kamath.H7(batches(fgsm_accuracy=float)).outcome == "not reproduced"


def with_momentum(**gains):
    """Runs without and with momentum, which changes columns by these amounts."""
    plain = batches(**{name: lambda b: 0.5 for name in gains})
    moved = plain.assign(momentum=0.9)
    for name, gain in gains.items():
        moved[name] += gain
    return pd.concat([plain, moved])


def test_h9_and_h10_ask_every_batch_size():
    better = with_momentum(
        natural_accuracy=0.01,
        top_eigenvalue=-0.1,
        fgsm_accuracy=0.1,
        pgd_accuracy=0.1,
        pgd_margin_accuracy=-0.1,
    )
    assert kamath.H9(better).outcome == "reproduced"
    assert kamath.H10(better).outcome == "reproduced"
    assert kamath.H10(better).holds_up == "no; margin-loss PGD: up at 0 of 4"
    sharper = with_momentum(
        natural_accuracy=0.01,
        top_eigenvalue=0.1,
        fgsm_accuracy=0.1,
        pgd_accuracy=-0.1,
        pgd_margin_accuracy=0.0,
    )
    assert kamath.H9(sharper).outcome == "not reproduced"
    assert kamath.H10(sharper).outcome == "not reproduced"  # half is not most
    assert kamath.H9(batches(natural_accuracy=float)).outcome == "not yet run"


def test_h12_compares_slopes_setting_by_setting():
    falling = batches(fgsm_accuracy=lambda b: -b / 1e3, pgd_accuracy=lambda b: -b / 1e4)
    rising = falling.assign(pgd_accuracy=-falling["pgd_accuracy"])
    same = [falling.assign(setting=name) for name in "abcd"]
    mixed = [*same, rising.assign(setting="e")]
    assert kamath.H12(pd.concat(mixed)).outcome == "reproduced"  # 4 of 5
    mixed = [*same[:2], rising.assign(setting="e")]
    assert kamath.H12(pd.concat(mixed)).outcome == "not reproduced"


def test_h16_asks_the_margin():
    falls = batches(
        fgsm_margin_accuracy=lambda b: 0.7 - b / 1e3,
        pgd_margin_accuracy=lambda b: 0.6 - b / 1e3,
    )
    flat = batches(
        fgsm_margin_accuracy=lambda b: 0.5, pgd_margin_accuracy=lambda b: 0.5
    )
    assert kamath.H16(falls, flat).outcome == "reproduced"
    assert kamath.H16(falls, falls).outcome == "partly"
    rises = falls.assign(pgd_margin_accuracy=-falls["pgd_margin_accuracy"])
    assert kamath.H16(rises, falls).outcome == "not reproduced"


def test_w6_waits_for_the_distance():
    table = wide(lambda i: i, lambda i: i).drop(columns="distance_q50")
    assert khritankov.W6(table).outcome == "not yet run"


def momenta(change, seeds=3):
    """Accuracies that move by change from momentum 0 to 0.9, at each batch size."""
    rows = []
    for b, m, seed in itertools.product((16, 64, 128, 512), (0.0, 0.9), range(seeds)):
        values = {c: 0.5 + (change if m else 0) for c in kamath.CHANGED}
        rows.append(row(batch_size=b, momentum=m, seed=seed, **values))
    return pd.DataFrame(rows)


def test_h11_compares_the_changes():
    assert kamath.H11(momenta(0.01), momenta(0.05)).outcome == "reproduced"
    found = kamath.H11(momenta(-0.04), momenta(0.05))
    assert found.outcome == "not reproduced"
    assert "4.0 points on average, at constant rate by 5.0" in found.ours
    shared = momenta(0.01)
    one = shared[(shared["momentum"] == 0) | (shared["batch_size"] == 64)]
    assert kamath.H11(one, momenta(0.05)).outcome == "not yet run"
    few = kamath.H11(momenta(0.01, seeds=2), momenta(0.05))
    assert few.outcome == "not decidable at this scale"


def sizes(natural, curvature, seeds=3, **change):
    """Natural accuracy and eigenvalue by batch size, with a little spread."""
    return pd.DataFrame(
        [
            row(batch_size=b, seed=s, natural_accuracy=natural(b) + 0.001 * s)
            | {"top_eigenvalue": curvature(b) * 1.02**s, "final_train_loss": 0.1}
            | change
            for b in (16, 64, 128, 512)
            for s in range(seeds)
        ]
    )


def test_h13_asks_for_identity():
    one = sizes(lambda b: 0.9, lambda b: 10)
    assert kamath.H13(one, one.copy()).outcome == "reproduced"
    moved = one.assign(natural_accuracy=one["natural_accuracy"] + 1e-9)
    assert kamath.H13(one, moved).outcome == "not reproduced"


def test_h14_asks_for_agreement_within_errors():
    with_momentum = sizes(lambda b: 0.9, lambda b: 10.0, momentum=0.9)
    same = sizes(lambda b: 0.9005, lambda b: 10.1, learning_rate=1.0)
    assert kamath.H14(with_momentum, same).outcome == "reproduced"
    other = sizes(lambda b: 0.95, lambda b: 20.0, learning_rate=1.0)
    found = kamath.H14(with_momentum, other)
    assert found.outcome == "not reproduced" and "0 of 8 means" in found.ours


def test_h15_asks_what_is_left_of_the_trends():
    falling = sizes(lambda b: 0.98 - b / 5000, lambda b: float(b))
    level = sizes(lambda b: 0.98 - b / 50000, lambda b: float(b) ** 0.3)
    found = kamath.H15(level, falling)
    assert found.outcome == "reproduced" and found.ours.startswith("10.0 % of")
    half = sizes(lambda b: 0.98 - b / 50000, lambda b: float(b))
    assert kamath.H15(half, falling).outcome == "partly"
    assert kamath.H15(falling, falling).outcome == "not reproduced"
