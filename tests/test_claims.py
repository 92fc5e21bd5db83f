"""Tables of made-up rows, and what the papers' rooms read from them."""

import itertools

import numpy as np
import pandas as pd
import pytest

from widemin.papers import claims
from widemin.papers.wang import claims as wang
from widemin.papers.wei import claims as wei

# What rests on no run of a network
FREE = ("mathematics", "toy problem", "linear models, any")


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


def broken_from(boundary):
    """A grid in which runs diverge from a function of the batch size on."""
    table = grid(lambda b, r: 0.3)
    lost = [
        rate >= boundary(size)
        for size, rate in zip(table["batch_size"], table["learning_rate"], strict=True)
    ]
    return table.assign(constant=lost)


def decisive(**change):
    change = {"train_size": 60_000, "epochs": 25} | change
    return pd.DataFrame([row(seed=seed, **change) for seed in range(3)])


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


def sweeps(field, robust):
    rows = []
    for seed, (value, accuracy) in itertools.product(range(2), robust.items()):
        base = row(seed=seed, epochs=50, method="adversarial", attack="linf 0.3")
        base |= {field: value}
        base |= {f"wang_{w}_accuracy": accuracy + 0.001 * seed for w in wang.ATTACKS}
        rows.append(base)
        rows.append(base | {"measured": "step", "step": 10, "fosc_q50": 1 - accuracy})
    return pd.DataFrame(rows)


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


def with_momentum(**gains):
    """Runs without and with momentum, which changes columns by these amounts."""
    plain = batches(**{name: lambda b: 0.5 for name in gains})
    moved = plain.assign(momentum=0.9)
    for name, gain in gains.items():
        moved[name] += gain
    return pd.concat([plain, moved])


def momenta(change, seeds=3):
    """Accuracies that move by change from momentum 0 to 0.9, at each batch size."""
    rows = []
    changed = ("natural_accuracy", "fgsm_accuracy", "pgd_accuracy")
    for b, m, seed in itertools.product((16, 64, 128, 512), (0.0, 0.9), range(seeds)):
        values = {c: 0.5 + (change if m else 0) for c in changed}
        rows.append(row(batch_size=b, momentum=m, seed=seed, **values))
    return pd.DataFrame(rows)


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
