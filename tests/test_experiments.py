"""A recipe decides its rows: same recipe, same rows; every field is checked."""

import base64
import copy
import dataclasses
import io
import itertools
import math
from functools import cached_property, partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from widemin import attacks, data, evaluation, hessian, landscape, models
from widemin.experiments import checkpoints, epoch_metrics, measure, recipe, running
from widemin.experiments.checkpoints import trained
from widemin.experiments.columns import as_row
from widemin.experiments.measure.attacked import Target, other_statistics, surviving
from widemin.experiments.recipe import Recipe, grid, stream
from widemin.experiments.running import pick_device, run
from widemin.landscape import implicit_perturbation

SMALL = Recipe(train_size=60, batch_size=20, width=8, test_size=40, hessian_size=40)

# Learns digits until half of its gradients are masked: every attack leaves another
# share, and instruments that take one for another are found out.
LEARNT = Recipe(
    epochs=60,
    batch_size=20,
    momentum=0.9,
    tests=("linf 0.2", "linf 0.1"),
    test_size=200,
    hessian_size=40,
    strong_size=100,
    strong_steps=2,
    autoattack_size=8,
    width_size=40,
    scale_free_size=40,
    line_size=40,
    brief_epochs=3,
    binarized=20,
    own_attack="widemin.attacks:pgd",
)
# Of a network whose logits have a median margin of 1, by straight calls.
SCALE_FREE = {
    "images": lambda model, x, y: len(x),
    "adaptive_sharpness": partial(landscape.adaptive_sharpness, rho=0.5),
    "relative_flatness": landscape.relative_flatness,
    "top_eigenvalue": lambda *network: hessian.top_eigenvalues(
        *network, generator=stream(0, "probes"), tolerance=3e-2
    ).values.item(),
    "batch_sharpness": lambda *network: hessian.batch_sharpness(
        *network, 20, generator=stream(0, "batch sharpness")
    ),
}
DEFENDED = Recipe(
    epochs=8,
    batch_size=20,
    attack="linf 0.2",
    attack_steps=5,
    tests=("linf 0.2",),
    test_size=200,
    hessian_size=40,
    white_box=True,
    surrogate_epochs=4,
    certificate=True,
)


# Trained on a loss of its own, through which it is attacked.
OWN = Recipe(
    epochs=60,
    batch_size=20,
    learning_rate=0.01,
    momentum=0.9,
    cross_entropy="quarter",
    tests=("linf 0.1",),
    test_size=200,
    hessian_size=40,
)


def rows_of(recipe, folder):
    return run(recipe, device="cpu", weights=folder)


def final(rows):
    return [row for row in rows if row["measured"] == "final"]


def without_seconds(rows):
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]


@dataclasses.dataclass
class Measured:
    """A final row, and what straight calls need to come to the same numbers."""

    row: dict
    recipe: Recipe
    model: torch.nn.Module
    others: dict[str, torch.nn.Module]

    @property
    def ball(self):
        return attacks.parse_ball(self.row["test"])

    @property
    def test(self):
        images = data.load("digits", "test", size=200)
        return images.x, images.y

    def train(self, size):
        images = data.load("digits", "train", size=size)
        return images.x, images.y

    @property
    def margins(self):
        x, y = self.test
        logits = answers(self.model, x)
        true = logits.gather(1, y[:, None])[:, 0]
        return true - logits.scatter(1, y[:, None], -math.inf).amax(1)

    @property
    def zero_gradients(self):
        x, y = self.test
        x = x.clone().requires_grad_()
        F.cross_entropy(self.model.eval()(x), y, reduction="sum").backward()
        return (x.grad == 0).flatten(1).all(1)

    def scale_free(self):
        """Flatness at a median margin of 1 on 40 images, its widths from few starts."""
        network = self.model, *self.train(40)
        median = evaluation.margins(*network).median().item()
        with landscape.logit_scale(self.model, 1 / median):
            found = {name: value(*network) for name, value in SCALE_FREE.items()}
            search = dict(of="nodes", tolerance=5e-3, random_directions=0)
            draws = [stream(0, "width of nodes") for _ in range(2)]
            low = landscape.width(
                *network,
                gap=0.1,
                generator=draws[0],
                starts=0,
                uphill=True,
                reach=0.05,
                **search,
            )
            high = landscape.width(
                *network,
                gap=1.0,
                generator=draws[1],
                starts=1,
                first=low.direction,
                reach=3 * low.distance,
                **search,
            )
        return found | {"width_nodes_0.1": low.width, "width_nodes_1": high.width}

    def left(self, attack, size=200, source=None, double=False):
        """Which of the first images an attack leaves; those wrong are not attacked."""
        x, y = (part[:size] for part in self.test)
        right = self.margins[:size] > 0
        model = self.model.double() if double else self.model
        x = x.double() if double else x
        moved = attack(source or model, x[right], y[right])
        right[right.clone()] = answers(model, moved).argmax(1) == y[right]
        self.model.float()
        return right

    def step(self, **loss):
        return self.left(partial(attacks.fgsm, ball=self.ball, **loss))

    def climb(self, step, draws, generator=None, size=200, **options):
        """PGD in steps of a share of the radius, its starts from a stream."""
        source, double = options.pop("source", None), options.pop("double", False)
        attack = partial(
            attacks.pgd,
            ball=self.ball,
            step_size=step * self.ball.epsilon,
            generator=generator or stream(0, draws),
            **options,
        )
        return self.left(attack, size, source, double)

    def restarted(self):
        """Five starts, first in float32, then on from there in float64."""
        draws = stream(0, "restarts")
        more = {"steps": 2, "restarts": 5, "until_fooled": True, "generator": draws}
        more |= {"loss": attacks.margin, "size": 100}
        return [self.climb(1.25, "", double=d, **more) for d in (False, True)]

    def usual(self, **loss):
        return self.climb(0.25, "test", steps=10, until_fooled=True, **loss)

    def own(self):
        draws = stream(0, "own attack")
        return self.left(partial(attacks.pgd, ball=self.ball, generator=draws))

    @property
    def trained_on(self):
        return {"loss": attacks.TRAINED[self.recipe.cross_entropy]}

    def wang(self, source=None):
        """FGSM, then PGD-10, PGD-20 and C&W, in this order from one stream."""
        draws = stream(0, "white box")
        fgsm = partial(attacks.fgsm, ball=self.ball)
        climb = partial(self.climb, draws="", generator=draws, source=source)
        return {
            "fgsm": self.left(fgsm, source=source),
            "pgd10": climb(0.25, steps=10),
            "pgd20": climb(0.25, steps=20),
            "cw": climb(0.1, steps=30, loss=attacks.margin),
        }

    def widths(self, of):
        """At the lower level, then from the direction found on at the higher one."""
        of = {"of": of, "generator": stream(0, f"width of {of}"), "tolerance": 1e-3}
        find = partial(landscape.width, self.model, *self.train(40), **of)
        low = find(gap=0.1, starts=2, random_directions=1)
        high = find(gap=1.0, starts=0, random_directions=1, first=low.direction)
        return {0.1: low.width, 1.0: high.width}

    @cached_property
    def eigenvalue(self):
        draws = stream(0, "probes")
        return hessian.top_eigenvalues(self.model, *self.train(40), generator=draws)

    def loss(self, size):
        x, y = self.train(size)
        return F.cross_entropy(answers(self.model, x).double(), y)

    def moved(self):
        x, y = (part[:100] for part in self.test)
        loss = {"loss": attacks.clipped_cross_entropy}
        moved = attacks.fgsm(self.model, x, y, self.ball, **loss)
        return (moved - x).abs().flatten(1).amax(1)

    def distance(self, quarter):
        x, y = (part[:100] for part in self.test)
        far = evaluation.minimal_distance(self.model, x, y, norm="linf", most=1.0)
        return far.quantile(quarter / 4)

    @cached_property
    def binarized(self):
        """What attacks find in the classifiers of the first 20 images, by name."""
        fgsm = partial(attacks.fgsm, ball=self.ball)
        pgd = {"step_size": self.ball.epsilon / 4, "until_fooled": True}
        ways = {
            "fgsm": fgsm,
            "fgsm_clipped": partial(fgsm, loss=attacks.clipped_cross_entropy),
            "fgsm_margin": partial(fgsm, loss=attacks.margin),
            "fgsm_rescaled": partial(fgsm, loss=attacks.rescaled_cross_entropy),
        }
        for name, loss in (("pgd", F.cross_entropy), ("pgd_margin", attacks.margin)):
            draws = {"generator": stream(0, "binarized attack")}
            if name == "pgd_margin":
                draws["loss"] = loss
            ways[name] = partial(attacks.pgd, ball=self.ball, **pgd, **draws)
        x, draws = self.test[0][:20], stream(0, "binarized")
        tested = evaluation.binarization(
            self.model, x, self.ball, ways, generator=draws
        )
        kept = tested.separable
        found = tested.found | {"random": tested.random}
        shares = {name: mask[kept].double().mean() for name, mask in found.items()}
        return shares | {"images": int(kept.sum())}

    @cached_property
    def certificate(self):
        """Survivors of PGD-10, how many are broken, and areas pair by pair."""
        (x, y), ball, model = self.test, self.ball, self.model.eval()
        draws = stream(0, "certificate")
        end = attacks.pgd(model, x, y, ball, steps=10, generator=draws)
        gradient, loss, logits = attacks.input_gradient(model, end, y)
        gain, most = attacks.fosc_box(ball, gradient, x, end)
        fosc = attacks.fosc(ball, gradient, end - x)
        scores = {
            "fosc": fosc,
            "normalised_fosc": fosc / ball.support(gradient).clamp_min(1e-38),
            "normalised_fosc_box": gain / most.clamp_min(1e-38),
            "loss": loss,
            "margin": attacks.margin(logits, y),
        }
        survivors = (self.margins > 0) & (scores["margin"] < 0)
        left = survivors.clone()
        for strong in ({"loss": attacks.margin, "restarts": 10}, {"restarts": 5}):
            how = strong | {"steps": 50, "step_size": ball.epsilon / 20}
            draws = stream(0, "stronger")
            moved = attacks.pgd(
                model, x[left], y[left], ball, generator=draws, until_fooled=True, **how
            )
            left[left.clone()] = answers(model, moved).argmax(1) == y[left]
        broken = survivors & ~left
        areas = {"survivors": int(survivors.sum()), "broken": int(broken.sum())}
        for name, score in scores.items():
            pairs = score[broken][:, None] - score[left][None]
            areas[name] = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean()
        return areas

    @cached_property
    def autoattack(self):
        x, y = (part[:8] for part in self.test)
        return evaluation.autoattack(self.model, x, y, self.ball, seed=0)


def answers(model, x):
    with torch.no_grad():
        return model.eval()(x)


def measured_columns():
    """Every column of a final row, and a straight call that comes to its number."""
    found = {
        "measured": lambda m: "final",
        "method": lambda m: "adversarial" if m.recipe.attack else "standard",
        "epoch": lambda m: m.recipe.epochs,
        "diverged": lambda m: False,
        "gradients": lambda m: m.recipe.epochs * (6 if m.recipe.attack else 1),
        "train_seconds": lambda m: pytest.approx(50, abs=50),
        "measure_seconds": lambda m: pytest.approx(50, abs=50),
        "images": lambda m: 200,
        "test": lambda m: m.row["test"],
        "natural_accuracy": lambda m: m.margins > 0,
        "median_margin": lambda m: m.margins.median(),
        "masked_share": lambda m: m.margins > 24 * math.log(2),
        "zero_gradient_share": lambda m: m.zero_gradients,
        "constant": lambda m: False,
        "final_train_loss": lambda m: m.loss(40),
        "train_accuracy": lambda m: (
            answers(m.model, m.train(40)[0]).argmax(1) == m.train(40)[1]
        ),
        "top_eigenvalue": lambda m: m.eigenvalue.values[0],
        "eigenvalue_residual": lambda m: m.eigenvalue.residuals[0],
        "hessian_products": lambda m: m.eigenvalue.products,
        "eigenvalue_converged": lambda m: m.eigenvalue.converged,
        "hessian_images": lambda m: 40,
        "width_images": lambda m: 40,
        "adaptive_sharpness": lambda m: landscape.adaptive_sharpness(
            m.model, *m.train(40), rho=0.5
        ),
        "batch_sharpness": lambda m: hessian.batch_sharpness(
            m.model,
            *m.train(max(m.recipe.hessian_size, m.recipe.batch_size)),
            m.recipe.batch_size,
            generator=stream(m.recipe.seed, "batch sharpness"),
        ),
        "fgsm_accuracy": lambda m: m.step(),
        "fgsm_clipped_accuracy": lambda m: m.step(loss=attacks.clipped_cross_entropy),
        "fgsm_margin_accuracy": lambda m: m.step(loss=attacks.margin),
        "fgsm_rescaled_accuracy": lambda m: m.step(loss=attacks.rescaled_cross_entropy),
        "fgsm_float64_accuracy": lambda m: m.left(
            partial(evaluation.fgsm_float64, ball=m.ball)
        ),
        "pgd_accuracy": lambda m: m.usual(),
        "pgd_margin_accuracy": lambda m: m.usual(loss=attacks.margin),
        "worst_accuracy": lambda m: (
            m.step()
            & m.step(loss=attacks.clipped_cross_entropy)
            & m.step(loss=attacks.margin)
            & m.step(loss=attacks.rescaled_cross_entropy)
            & m.left(partial(evaluation.fgsm_float64, ball=m.ball))
            & m.usual()
            & m.usual(loss=attacks.margin)
            & (m.own() if m.recipe.own_attack else True)
            & m.step(**m.trained_on)
            & m.usual(**m.trained_on)
        ),
        "fgsm_own_accuracy": lambda m: m.step(**m.trained_on),
        "pgd_own_accuracy": lambda m: m.usual(**m.trained_on),
        "own_accuracy": lambda m: m.own(),
        "transfer_accuracy": lambda m: m.climb(
            0.25, "transfer", steps=10, loss=attacks.margin, source=m.others["brief"]
        ),
        "strong_images": lambda m: 100,
        "restarts_pgd_accuracy": lambda m: m.usual()[:100],
        "restarts_accuracy": lambda m: m.restarted()[0],
        "restarts_float64_accuracy": lambda m: m.restarted()[1],
        "revisions": lambda m: "distance 2",
        "moved_share": lambda m: m.moved() > 0,
        "moved_mean": lambda m: m.moved().mean(),
        "autoattack_accuracy": lambda m: m.autoattack[0],
        "autoattack_warnings": lambda m: len(m.autoattack[1]),
        "autoattack_images": lambda m: 8,
        "autoattack_pgd_accuracy": lambda m: m.usual()[:8],
    }
    for of in ("images", "random", "fgsm", "fgsm_clipped", "fgsm_margin"):
        found[f"binarized_{of}"] = lambda m, of=of: m.binarized[of]
    for of in ("fgsm_rescaled", "pgd", "pgd_margin"):
        found[f"binarized_{of}"] = lambda m, of=of: m.binarized[of]
    for of in ("survivors", "broken"):
        found[f"certificate_{of}"] = lambda m, of=of: m.certificate[of]
    for of in ("fosc", "normalised_fosc", "normalised_fosc_box", "loss", "margin"):
        found[f"{of}_auroc"] = lambda m, of=of: m.certificate[of]
    for field in dataclasses.fields(Recipe):
        found[field.name] = partial(lambda name, m: as_row(m.recipe)[name], field.name)
    for of in ("weights", "nodes", "inputs"):
        for gap in (0.1, 1.0):
            found[f"width_{of}_{gap:g}"] = lambda m, of=of, gap=gap: m.widths(of)[gap]
    for name in (*SCALE_FREE, "width_nodes_0.1", "width_nodes_1"):
        found[f"scale_free_{name}"] = partial(lambda n, m: m.scale_free()[n], name)
    for name in ("share", "l2", "weights_rise", "images_rise", "gradient_rise"):
        found[f"implicit_{name}"] = lambda m, name=f"implicit_{name}": (
            implicit_perturbation.at_first_layer(m.model, *m.train(40), 0.2)[name]
        )
    for quarter, name in enumerate(("q25", "q50", "q75"), 1):
        found[f"distance_{name}"] = partial(lambda q, m: m.distance(q), quarter)
    for kind in ("wang", "natural", "robust"):
        for way in ("fgsm", "pgd10", "pgd20", "cw"):
            found[f"{kind}_{way}_accuracy"] = lambda m, kind=kind, way=way: m.wang(
                m.others.get(kind)
            )[way]
    return found


COLUMNS = measured_columns()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the networks of LEARNT, DEFENDED and OWN are kept."""
    return tmp_path_factory.mktemp("networks")


class Rows(dict):
    """All rows of a recipe, computed when they are first asked for."""

    def __init__(self, folder):
        self.folder = folder

    def __missing__(self, recipe):
        return self.setdefault(recipe, rows_of(recipe, self.folder))


@pytest.fixture(scope="session")
def rows(folder):
    """All rows of LEARNT, of DEFENDED and of OWN."""
    return Rows(folder)


class Finals:
    """Final rows of LEARNT, of DEFENDED and of OWN, with their networks.

    In turn: a test that fails at the first, as a planted mistake has it, waits for no
    other.
    """

    def __init__(self, rows):
        self.rows, self.known = rows, {}

    def of(self, asked, beside):
        if asked not in self.known:
            finals = final(self.rows[asked])
            model, *others = (
                trained(r, "cpu", self.rows.folder)[0]
                for r in (asked, *beside.values())
            )
            others = dict(zip(beside, others, strict=True))
            self.known[asked] = [Measured(row, asked, model, others) for row in finals]
        return self.known[asked]

    def __iter__(self):
        yield from self.of(LEARNT, {"brief": LEARNT.transfer_source})
        yield from self.of(DEFENDED, DEFENDED.surrogates)
        yield from self.of(OWN, {})

    def __getitem__(self, place):
        return next(itertools.islice(self, place, None))


@pytest.fixture(scope="session")
def measured(rows):
    """The final rows of the three, with their networks."""
    return Finals(rows)


def test_the_measured_network_tells_the_attacks_apart(measured):
    """Natural, FGSM, PGD and the worst case: each at least 0.1 below the one before."""
    row = measured[0].row
    ways = ("natural", "fgsm", "pgd", "worst")
    levels = [row[f"{way}_accuracy"] for way in ways]
    assert min(-np.diff(levels)) > 0.1, levels
    assert 0.1 < row["masked_share"] < 0.9


def test_every_column_is_compared(measured):
    """A new column needs a straight call beside it in COLUMNS."""
    assert set().union(*(m.row for m in measured)) == set(COLUMNS)


def test_attacks_through_the_loss_trained_on_are_of_networks_that_have_one(measured):
    """Not of cross-entropy from logits, whose columns would say the same twice."""
    ways = {"fgsm_own_accuracy", "pgd_own_accuracy"}
    assert [ways & set(m.row) for m in measured] == [set(), set(), set(), ways]
    row = measured[3].row
    assert row["fgsm_own_accuracy"] != row["fgsm_accuracy"]
    assert row["pgd_own_accuracy"] != row["pgd_accuracy"]
    # Smoothed labels are a loss of one's own, too.
    m, (x, y) = measured[0], measured[0].test
    smoothed = dataclasses.replace(LEARNT, label_smoothing=0.3, own_attack="")
    loss = partial(F.cross_entropy, label_smoothing=0.3, reduction="none")
    found = surviving(
        Target(m.model, smoothed, m.ball, x, y), lambda name, work: work()
    )
    assert torch.equal(found["fgsm_own_accuracy"], m.step(loss=loss))
    assert not torch.equal(found["fgsm_own_accuracy"], found["fgsm_accuracy"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_what_a_straight_call_gives(measured, column):
    for m in measured:
        if column in m.row:
            expected = COLUMNS[column](m)
            if isinstance(expected, torch.Tensor):
                expected = float(expected.double().mean())
            if isinstance(expected, float):
                expected = pytest.approx(expected, rel=1e-6)
            assert m.row[column] == expected, m.row["test"]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rho": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        {"attack": "linf 0.1", "attack_steps": 3, "ramp": 0.5},
        {"attack": "l2 0.5", "attack_steps": 3, "fosc_max": 0.5},
        {"attack": "linf 0.1", "rho": 0.1, "gradient_leak": True},
        {"label_smoothing": 0.1},
        {"cross_entropy": "clipped", "nudge": 1, "rho": 0.1, "sam_from": 0.5},
        {"optimizer": "adam", "learning_rate": 0.01, "augment": "crop+flip"},
    ],
)
def test_the_same_recipe_gives_the_same_rows(tmp_path, change):
    recipe = dataclasses.replace(SMALL, epochs=2, watch="linf 0.1", **change)
    one, two = (rows_of(recipe, tmp_path / name) for name in "ab")
    pd.testing.assert_frame_equal(
        pd.DataFrame(without_seconds(one)), pd.DataFrame(without_seconds(two))
    )
    [last] = final(one)
    assert last["epoch"] == 2 and not last["diverged"]


def test_weights_are_kept_and_measured_again_without_training(
    rows, folder, monkeypatch
):
    first = final(rows[LEARNT])

    def never(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(checkpoints, "train", never)
    other = dataclasses.replace(LEARNT, tests=("linf 0.1", "l2 0.2"), strong_size=0)
    again = final(rows_of(other, folder))
    assert [row["test"] for row in again] == ["linf 0.1", "l2 0.2"]
    assert again[0]["pgd_accuracy"] == first[1]["pgd_accuracy"]
    assert again[1]["pgd_accuracy"] != first[1]["pgd_accuracy"]
    assert other.training_key == LEARNT.training_key and other.key != LEARNT.key
    assert "strong_images" in first[0] and "strong_images" not in again[0]


def test_gradients_that_are_zero_and_constant_answers_are_seen(measured):
    """Logits times 30 lose gradients in float32; a huge bias leaves one answer."""
    bare = dataclasses.replace(LEARNT, strong_size=0, width_size=0, line_size=0)
    bare = bare.without("scale_free_size")
    m = measured[0]
    with landscape.logit_scale(m.model, 30):
        flat = float(m.zero_gradients.double().mean())
        row = measure.measure(m.model, bare, "cpu")[0]
    assert row["zero_gradient_share"] == flat and 0.2 < flat < 0.9
    bias = list(m.model.parameters())[-1]
    kept = bias.detach().clone()
    try:
        bias.data[3] = 1e4
        row = measure.measure(m.model, bare, "cpu")[0]
    finally:
        bias.data.copy_(kept)
    threes = float((m.test[1] == 3).double().mean())
    assert row["constant"] and row["worst_accuracy"] == threes


def test_scaling_logits_moves_no_prediction_and_not_the_margin_attack(rows, folder):
    assert LEARNT.transfer_source.epochs == 3
    for seed in (0, 1, 1_000):
        own = dataclasses.replace(LEARNT, seed=seed)
        assert own.transfer_source.seed != seed
    scale = [
        row
        for row in rows[LEARNT]
        if row["measured"] == "scale" and row["test"] == "linf 0.1"
    ]
    assert [row["factor"] for row in scale] == list(measure.FACTORS)
    for column in ("natural_accuracy", "fgsm_margin_accuracy"):
        assert len({row[column] for row in scale}) == 1, column
    margin = [row["pgd_margin_accuracy"] for row in scale]  # from other starts each
    assert max(margin) - min(margin) < 0.03
    model, _, _ = trained(LEARNT.transfer_source, "cpu", folder)
    margins = Measured(scale[0], LEARNT, model, {}).margins
    for row in scale:
        exact = row["factor"] * margins
        assert row["median_margin"] == pytest.approx(float(exact.median()), rel=1e-5)
        masked = float((exact > 24 * math.log(2)).double().mean())
        assert row["masked_share"] == pytest.approx(masked, abs=0.006)
    # The float32 cross-entropy is deceived, other ways of computing it are not.
    assert scale[-1]["masked_share"] > 0.7 > 0.1 > scale[0]["masked_share"]
    assert scale[-1]["fgsm_accuracy"] > scale[0]["fgsm_accuracy"] + 0.1
    assert scale[-1]["fgsm_rescaled_accuracy"] < scale[-1]["fgsm_accuracy"] - 0.1


def test_pictures_are_the_attacked_images(tmp_path):
    recipe = dataclasses.replace(SMALL, pictures=2, tests=("linf 0.25",))
    rows = [r for r in rows_of(recipe, tmp_path) if r["measured"] == "picture"]
    model, _, _ = trained(recipe, "cpu", tmp_path)
    test = data.load("digits", "test", size=2)
    images = {(row["way"], row["image"]): row for row in rows}
    assert len(rows) == len(images) == 2 * 7
    moved = attacks.fgsm(model, test.x, test.y, attacks.Linf(0.25))
    for way, expected in (("natural", test.x), ("fgsm", moved)):
        for index in range(2):
            row = images[way, index]
            shades = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["png"]))))
            exact = 255 * expected[index, 0].numpy()
            np.testing.assert_allclose(shades, exact, atol=0.501)
            assert row["label"] == test.y[index]
            size = float((expected[index] - test.x[index]).abs().max())
            assert row["moved"] == pytest.approx(size)


def test_the_level_is_further_the_higher_it_is(tmp_path):
    recipe = dataclasses.replace(SMALL, width_size=40, epochs=3)
    [row] = final(rows_of(recipe, tmp_path))
    assert row["width_images"] == 40 and row["adaptive_sharpness"] > 0
    for of in ("weights", "nodes", "inputs"):
        assert row[f"width_{of}_1"] > 0.1 * row[f"width_{of}_0.1"] > 0, of
    model, _, _ = trained(recipe, "cpu", tmp_path)
    train = data.load("digits", "train", size=40)
    slow = landscape.width(
        model, train.x, train.y, gap=1.0, generator=stream(1, "other"), starts=4
    )
    assert row["width_weights_1"] == pytest.approx(slow.width, rel=0.02)


def test_kept_weights_are_the_trained_ones(tmp_path):
    one, _, _ = trained(SMALL, "cpu", tmp_path)
    two, _, _ = trained(SMALL, "cpu", tmp_path)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradients_are_counted_as_taken(tmp_path):
    def spent(**change):
        recipe = dataclasses.replace(SMALL, epochs=2, **change)
        return final(rows_of(recipe, tmp_path))[0]["gradients"]

    assert spent() == 2
    assert spent(rho=0.1) == 4
    assert spent(attack="linf 0.1", attack_steps=3) == 8
    # Of 6 updates 5 take one step, the gradient that stops it and the update's own;
    # in the last, at 5/6 of training, the threshold is 0 and nothing stops.
    dynamic = spent(attack="linf 0.1", attack_steps=3, fosc_max=1e9)
    assert dynamic == pytest.approx((5 * 3 + 4) / 3)


def test_a_diverged_run_is_a_row_too(tmp_path):
    recipe = dataclasses.replace(SMALL, learning_rate=1e30, epochs=2)
    [row] = final(rows_of(recipe, tmp_path))
    assert row["diverged"]
    assert "pgd_accuracy" not in row and row["test"] == "linf 0.1"


def test_weights_that_the_last_step_overflowed_are_a_diverged_run(
    tmp_path, monkeypatch
):
    """The loss before that step is finite still, and so is the curve."""
    lost = models.build("mlp", torch.Generator().manual_seed(0))
    lost[-1].bias.data[0] = math.inf
    facts = {"diverged": False, "train_seconds": 1.0, "gradients": 1.0}
    curve = [{"epoch": 1, "train_loss": 2.3}]
    monkeypatch.setattr(running, "trained", lambda *_: (lost, curve, dict(facts)))
    [row] = final(rows_of(SMALL, tmp_path))
    assert row["diverged"] and "pgd_accuracy" not in row


def test_the_ascent_is_recorded_step_by_step(tmp_path):
    recipe = dataclasses.replace(SMALL, attack="linf 0.1", attack_steps=4)
    steps = [row for row in rows_of(recipe, tmp_path) if row["measured"] == "step"]
    assert [row["step"] for row in steps] == [0, 1, 2, 3, 4]
    assert steps[-1]["loss_q50"] > steps[0]["loss_q50"]
    for row in steps:
        assert 0 <= row["normalised_fosc_q25"] <= row["normalised_fosc_q75"] <= 2


def test_keys_are_departures_from_the_defaults():
    assert Recipe().key == Recipe(seed=0).key
    assert len({recipe.key for recipe in grid(Recipe(), seed=range(50))}) == 50
    assert Recipe(rho=0.1).key == "".join(Recipe(rho=0.1).key)


@pytest.mark.parametrize("name", ["TRAINING_REVISION", "MEASURING_REVISION"])
def test_a_raised_revision_gives_new_keys(monkeypatch, name):
    key, weights = SMALL.key, SMALL.training_key
    monkeypatch.setattr(recipe, name, 99)
    assert SMALL.key != key
    assert (SMALL.training_key != weights) == (name == "TRAINING_REVISION")


def test_published_keys_do_not_move():
    """The committed tables are found by them; a change here disowns every row."""
    recipe = Recipe(dataset="mnist", model="m1", learning_rate=0.01)
    assert recipe.key == "bbd80e091b694527"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "minst"}, "unknown dataset 'minst' .did you mean 'mnist'"),
        ({"model": "m2"}, "unknown model 'm2'"),
        ({"optimizer": "agd"}, "unknown optimizer"),
        ({"schedule": "cosine"}, "unknown schedule"),
        ({"augment": "flop"}, "unknown augment"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2000}, "batch_size must be at most the number of training"),
        ({"train_size": 5000}, "train_size must be at least 1 and at most 1397"),
        ({"test_size": 5000}, "test_size must be at least 1 and at most 400"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0"),
        ({"momentum": 1.0}, "momentum must be at least 0 and at most 0.999"),
        ({"rho": -0.1}, "rho must be at least 0; got -0.1"),
        ({"attack": "linf 1.5"}, "epsilon must be finite, at least 0 and at most 1"),
        ({"tests": ("linf -1",)}, "epsilon must be finite"),
        ({"watch": "1"}, "is written 'linf 8/255'"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_every_wrong_field_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)


def test_streams_are_separate_and_repeatable():
    def draw(seed, purpose):
        return torch.rand(1, generator=stream(seed, purpose)).item()

    assert draw(0, "weights") == draw(0, "weights")
    assert len({draw(s, p) for s in (0, 1) for p in ("weights", "batches")}) == 4


def test_methods_share_weights_at_the_start():
    one, two = (
        models.build("mlp", stream(0, "weights"), shape=(1, 8, 8)) for _ in range(2)
    )
    assert torch.equal(one[1].weight, two[1].weight)


def test_devices():
    assert pick_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"
        with pytest.raises(ValueError, match="without a GPU"):
            pick_device("cuda")


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(tmp_path):
    recipe = dataclasses.replace(SMALL, epochs=2)
    here, there = (
        final(run(recipe, device=device, weights=tmp_path / device))[0]
        for device in ("cpu", "cuda")
    )
    assert there["final_train_loss"] == pytest.approx(
        here["final_train_loss"], rel=1e-3
    )
    assert there["top_eigenvalue"] == pytest.approx(here["top_eigenvalue"], rel=1e-2)


@pytest.mark.slow
def test_real_mnist_is_learnt(tmp_path, mnist_here, monkeypatch):
    monkeypatch.setenv("WIDEMIN_DATA", mnist_here)
    recipe = Recipe(
        dataset="mnist",
        model="m1",
        train_size=10_000,
        epochs=2,
        batch_size=16,
        tests=("linf 0.3",),
    )
    [row] = final(rows_of(recipe, tmp_path))
    assert row["natural_accuracy"] > 0.95
    assert row["pgd_margin_accuracy"] < 0.02


def test_a_leak_and_smoothed_labels_change_the_weights(tmp_path):
    attacked = dataclasses.replace(SMALL, attack="linf 0.1", rho=0.1)
    pairs = [
        (attacked, dataclasses.replace(attacked, gradient_leak=True)),
        (SMALL, dataclasses.replace(SMALL, label_smoothing=0.1)),
    ]
    for one, two in pairs:
        [first], [second] = (final(rows_of(r, tmp_path)) for r in (one, two))
        assert first["final_train_loss"] != second["final_train_loss"]
        assert first["gradients"] == second["gradients"]


def test_lines_start_at_the_loss_and_climb(tmp_path):
    rows = rows_of(dataclasses.replace(SMALL, line_size=40, epochs=3), tmp_path)
    points = [row for row in rows if row["measured"] == "line"]
    for of in ("weights", "images"):
        line = [row for row in points if row["of"] == of]
        assert len(line) == measure.POINTS and line[0]["distance"] == 0
        losses = [row["loss"] for row in line]
        assert losses[1] > losses[0]
    [last] = final(rows)
    at_zero = next(row["loss"] for row in points if row["of"] == "weights")
    assert at_zero == pytest.approx(last["final_train_loss"], rel=1e-6)
    assert 0 < last["implicit_share"] <= 1 + 1e-6


def test_strong_attacks_are_run_as_asked(rows, folder):
    asked = dataclasses.replace(
        LEARNT, tests=("linf 0.1",), strong_attacks=("restarts",), width_size=0
    )
    [few] = final(rows_of(asked, folder))
    assert few["strong_images"] == 100
    assert few["restarts_accuracy"] < few["restarts_pgd_accuracy"]
    assert not {"autoattack_accuracy", "distance_q50"} & set(few)
    more = dataclasses.replace(asked, strong_steps=25)
    [found] = final(rows_of(more, folder))
    assert found["restarts_accuracy"] < few["restarts_accuracy"]
    assert more.key != asked.key and more.training_key == asked.training_key


def test_the_other_statistics_are_put_back(monkeypatch, tmp_path):
    """On made-up CIFAR: with its own statistics on both sides nothing is lost."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, 32, 32, generator=generator)
    recipe = Recipe(dataset="cifar10", model="linear", other_statistics=True)
    own, other = (
        models.build(
            "linear",
            torch.Generator().manual_seed(0),
            shape=(3, 32, 32),
            statistics=data.DATASETS[name].statistics,
        )
        for name in ("cifar10", "cifar100")
    )
    model, ball, before = own, attacks.Linf(0.002), own(x)
    y = before.argmax(1)
    found = other_statistics(Target(model, recipe, ball, x, y))
    assert torch.equal(model(x), before)
    moved = attacks.pgd(
        own, x, y, ball, steps=10, step_size=0.0005, generator=stream(0, "test")
    )
    assert found == {
        "all_steps_accuracy": evaluation.share(answers(own, moved).argmax(1) == y),
        "other_natural_accuracy": evaluation.share(answers(other, x).argmax(1) == y),
        "other_statistics_accuracy": evaluation.share(
            answers(other, moved).argmax(1) == y
        ),
    }
    assert len({1.0, *found.values()}) == 4
    same = {"cifar100": data.DATASETS["cifar10"]}
    monkeypatch.setattr(data, "DATASETS", data.DATASETS | same)
    again = other_statistics(Target(model, recipe, ball, x, y))
    assert again["other_statistics_accuracy"] == again["all_steps_accuracy"]
    assert again["all_steps_accuracy"] == found["all_steps_accuracy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient_leak": True}, "gradient_leak must come with an attack"),
        (
            {
                "attack": "linf 0.1",
                "rho": 0.1,
                "gradient_leak": True,
                "step_schedule": "random",
            },
            "gradient_leak must come with as many steps for every image",
        ),
        ({"other_statistics": True}, "must come with one of cifar10, cifar100"),
        ({"strong_attacks": ("restart",)}, "did you mean 'restarts'"),
        ({"optimizer": "algorithm1", "rho": 0.1}, "must come without attack and rho"),
        ({"label_smoothing": 1.5}, "label_smoothing must be at least 0 and at most 1"),
        ({"cross_entropy": "logit"}, "unknown cross_entropy 'logit' .*mean 'logits'"),
        (
            {"cross_entropy": "clipped", "attack": "linf 0.1"},
            "cross_entropy must be 'logits' beside an attack or .* 'clipped'",
        ),
        (
            {"cross_entropy": "clipped", "label_smoothing": 0.1},
            "cross_entropy must be 'logits' beside .* label_smoothing 0.1, cross",
        ),
        (
            {"cross_entropy": "clipped", "optimizer": "algorithm1"},
            "'algorithm1' must come with cross_entropy 'logits', label_smoothing 0",
        ),
        (
            {"label_smoothing": 0.1, "optimizer": "algorithm1"},
            "'algorithm1' must come with cross_entropy 'logits', .*label_smoothing 0.1",
        ),
        ({"sam_from": 0.5}, "sam_from must come with a rho above 0; got rho 0.0, sam"),
        ({"sam_from": 1.5, "rho": 0.1}, "sam_from must be at least 0 and at most 1"),
        ({"stop_loss": -0.1}, "stop_loss must be at least 0; got -0.1"),
        ({"stop_loss": math.nan}, "stop_loss must be at least 0; got nan"),
        ({"stop_loss": math.inf}, "stop_loss must be at least 0; got inf"),
        ({"nudge": -1}, "nudge must be at least 0; got -1"),
        ({"nudge": 0.5}, "nudge must be a whole number; got 0.5"),
    ],
)
def test_new_fields_are_checked(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        Recipe(**change)
    assert "\n" not in str(caught.value)


def test_schedules_spend_what_they_say(tmp_path):
    """Gradients an image: one for training, and as many as the attack has steps."""
    attacked = dataclasses.replace(SMALL, attack="linf 0.1", attack_steps=6, epochs=6)
    expected = {"": 7 * 6, "rising": 6 + 21, "weak-first": 2 * 2 + 4 * 7}
    expected["weak-last"] = expected["weak-first"]
    for schedule, gradients in expected.items():
        recipe = dataclasses.replace(attacked, step_schedule=schedule)
        [last] = final(rows_of(recipe, tmp_path))
        assert last["gradients"] == gradients, schedule
    [last] = final(
        rows_of(dataclasses.replace(attacked, step_schedule="random"), tmp_path)
    )
    # One to six steps, and the gradient at which an image that stops is seen to stop.
    assert 6 * (1 + 3.5) < last["gradients"] < 6 * (1 + 4.5 + 0.5)


def test_without_a_threshold_that_is_reached_dynamic_is_standard_bit_for_bit(tmp_path):
    """c_t = 0 and no image at 0: the weights are those of plain PGD training."""
    plain = dataclasses.replace(SMALL, attack="linf 0.1", attack_steps=3, epochs=2)
    dynamic = dataclasses.replace(plain, fosc_max=1e-12)
    one, two = (trained(r, "cpu", tmp_path)[0] for r in (plain, dynamic))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_huge_threshold_leaves_one_step_of_ascent(tmp_path):
    """Two gradients of the attack, the second to see that it may stop, and training's.

    The threshold falls to 0 at 5/6 of training, so that one epoch of six is full.
    """
    recipe = dataclasses.replace(
        SMALL, attack="linf 0.1", attack_steps=4, fosc_max=1e6, epochs=6
    )
    _, _, facts = trained(recipe, "cpu", tmp_path)
    assert facts["gradients"] == 5 * (1 + 2) + 1 * (1 + 4)


def test_the_released_codes_switches_change_the_weights(tmp_path):
    dynamic = dataclasses.replace(
        SMALL, attack="linf 0.1", attack_steps=3, epochs=3, fosc_max=0.05
    )
    losses = {
        str(change): final(rows_of(dataclasses.replace(dynamic, **change), tmp_path))[
            0
        ]["final_train_loss"]
        for change in (
            {},
            {"fosc_from_start": True},
            {"loss_weighted": True},
            {"rate_decay": 0.1},
            {"attack_step": 0.5},
        )
    }
    assert len(set(losses.values())) == 5, losses


def plain_ascent(m, draws, x, y, steps=5):
    """PGD by its textbook loop: where it is, loss, logits and FOSC after each step."""
    ball, found = m.ball, []
    at = (x + ball.sample(x, draws)).clamp(0, 1)
    for _ in range(steps + 1):
        leaf = at.clone().requires_grad_()
        logits = m.model.eval()(leaf)
        losses = F.cross_entropy(logits, y, reduction="none")
        [gradient] = torch.autograd.grad(losses.sum(), leaf)
        reach = ball.epsilon * gradient.abs().flatten(1).sum(1)
        fosc = reach - ((at - x) * gradient).flatten(1).sum(1)
        found.append((at, losses.detach(), logits.argmax(1) == y, fosc, reach))
        at = at + 0.25 * ball.epsilon * gradient.sign()
        at = torch.minimum(torch.maximum(at, x - ball.epsilon), x + ball.epsilon)
        at = at.clamp(0, 1)
    return found


def quartiles(values):
    return values.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()


def test_the_ascent_and_its_bins_are_those_of_a_plain_loop(rows, measured, folder):
    m = measured[2]
    steps = [row for row in rows[DEFENDED] if row["measured"] == "step"]
    found = plain_ascent(m, stream(0, "ascent"), *m.test)
    for row, (_, losses, _, fosc, reach) in zip(steps, found, strict=True):
        kinds = {"loss": losses, "fosc": fosc, "normalised_fosc": fosc / reach}
        for name, values in kinds.items():
            for q, exact in zip((25, 50, 75), quartiles(values), strict=True):
                near = pytest.approx(exact, rel=1e-3, abs=1e-6)
                assert row[f"{name}_q{q}"] == near, (row["step"], name, q)
    asked = dataclasses.replace(
        DEFENDED, fosc_bins=4, white_box=False, surrogate_epochs=0
    )
    more = rows_of(asked, folder)
    *_, (_, losses, right, fosc, _) = found
    last = [row for row in more if row.get("pool") == "last" and row["by"] == "fosc"]
    for row, members in zip(last, fosc.argsort().tensor_split(4), strict=True):
        assert row["value"] == pytest.approx(float(fosc[members].mean()), rel=1e-3)
        assert row["loss"] == pytest.approx(float(losses[members].mean()), rel=1e-3)
        exact = float(right[members].double().mean())
        assert row["accuracy"] == pytest.approx(exact, abs=0.021)  # one image
    ten = plain_ascent(m, stream(0, "ascent"), *m.test, steps=10)[-1]
    [row] = [
        r for r in more if (r.get("steps_taken"), r.get("step_radii")) == (10, 0.25)
    ]
    assert row["accuracy"] == pytest.approx(float(ten[2].double().mean()), abs=0.006)
    assert row["loss_q50"] == pytest.approx(quartiles(ten[1])[1], rel=1e-3)


def test_fosc_under_the_watch_is_that_of_a_plain_loop(measured):
    m = measured[2]
    asked = dataclasses.replace(DEFENDED, watch_fosc=True, validation_size=50)
    row = epoch_metrics.watcher(asked, "cpu")(m.model, 4)
    test = data.load("digits", "test")
    *_, (_, _, right, fosc, _) = plain_ascent(m, stream(0, "watch 4"), test.x, test.y)
    assert row["fosc_mean"] == pytest.approx(float(fosc.mean()), rel=1e-3)
    assert row["fosc_variance"] == pytest.approx(float(fosc.var()), rel=1e-3)
    for tenth in range(11):
        exact = float(fosc.quantile(tenth / 10))
        assert row[f"fosc_d{tenth}"] == pytest.approx(exact, rel=1e-3, abs=1e-6)
    share = float(right.double().mean())
    assert row["attack_accuracy"] == pytest.approx(share, abs=0.003)
    held_out = data.load("digits", "validation", size=50)
    kept = answers(m.model, held_out.x).argmax(1) == held_out.y
    assert 0 < row["validation_attack_accuracy"] <= float(kept.double().mean())
    assert row["validation_attack_accuracy"] != row["attack_accuracy"]


def test_lines_are_the_losses_on_the_way_along_the_gradient(rows, measured):
    m = measured[0]
    points = [row for row in rows[LEARNT] if row["measured"] == "line"]
    model = copy.deepcopy(m.model).double()
    x, y = m.train(40)
    weights = list(model.parameters())
    slopes = torch.autograd.grad(F.cross_entropy(model(x.double()), y), weights)
    norm = torch.cat([g.flatten() for g in slopes]).norm()
    test, labels = (part[:40] for part in m.test)
    leaf = test.clone().requires_grad_()
    [gradient] = torch.autograd.grad(
        F.cross_entropy(m.model(leaf), labels, reduction="sum"), leaf
    )
    start = [w.detach().clone() for w in weights]
    for row in points:
        if row["of"] == "weights":
            for w, s, g in zip(weights, start, slopes, strict=True):
                w.data.copy_(s + row["distance"] * g / norm)
            exact = F.cross_entropy(model(x.double()), y)
        else:
            moved = (test + row["distance"] * gradient.sign()).clamp(0, 1)
            exact = F.cross_entropy(answers(m.model, moved).double(), labels)
        near = pytest.approx(float(exact.detach()), rel=2e-3)
        assert row["loss"] == near, (row["of"], row["distance"])
    ends = {row["of"]: row["distance"] for row in points}
    assert ends == {"weights": 1.0, "images": pytest.approx(16 / 255)}


def test_the_loss_is_weighted_from_the_second_epoch_on(tmp_path):
    def weights_after(epochs, weighted):
        recipe = dataclasses.replace(SMALL, epochs=epochs, loss_weighted=weighted)
        model, _, _ = trained(recipe, "cpu", tmp_path)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights_after(1, True), weights_after(1, False))
    assert not torch.equal(weights_after(2, True), weights_after(2, False))


def test_the_watch_sees_what_straight_calls_give(measured):
    """On all test images, and on the held-out ones."""
    m = measured[0]
    asked = dataclasses.replace(LEARNT, watch="linf 0.2", validation_size=100)
    row = epoch_metrics.watcher(asked, "cpu")(m.model, 1)
    test, held_out = data.load("digits", "test"), data.load("digits", "validation")

    def left(images, size, **loss):
        x, y = images.x[:size], images.y[:size]
        moved = attacks.fgsm(m.model, x, y, attacks.Linf(0.2), **loss) if loss else x
        right = (answers(m.model, x).argmax(1) == y) & (
            answers(m.model, moved).argmax(1) == y
        )
        return pytest.approx(float(right.double().mean()))

    margins = evaluation.margins(m.model, test.x, test.y)
    usual, size = {"loss": attacks.cross_entropy}, len(test.x)
    assert row == {
        "natural_accuracy": left(test, size),
        "fgsm_accuracy": left(test, size, **usual),
        "fgsm_clipped_accuracy": left(test, size, loss=attacks.clipped_cross_entropy),
        "fgsm_margin_accuracy": left(test, size, loss=attacks.margin),
        "masked_share": float((margins > 24 * math.log(2)).double().mean()),
        "median_margin": float(margins.median()),
        "images": size,
        "validation_natural_accuracy": left(held_out, 100),
        "validation_fgsm_accuracy": left(held_out, 100, **usual),
    }


def test_fosc_is_watched_where_training_stops_its_attack(tmp_path):
    recipe = dataclasses.replace(
        SMALL, attack="linf 0.1", epochs=2, watch_fosc=True, validation_size=30
    )
    epochs = [r for r in rows_of(recipe, tmp_path) if r["measured"] == "epoch"]
    for row in epochs:
        deciles = [row[f"fosc_d{i}"] for i in range(11)]
        assert deciles == sorted(deciles) and deciles[0] >= -1e-6
        assert deciles[0] <= row["fosc_mean"] <= deciles[-1]
        assert 0 <= row["validation_attack_accuracy"] <= 1
    plain = dataclasses.replace(recipe, watch_fosc=False, validation_size=0)
    one, two = (trained(r, "cpu", tmp_path)[0] for r in (recipe, plain))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)  # looking does not move the weights


def test_bins_share_the_images_and_surrogates_are_trained_once(tmp_path):
    recipe = dataclasses.replace(
        SMALL,
        attack="linf 0.1",
        fosc_bins=4,
        white_box=True,
        surrogate_epochs=1,
    )
    rows = rows_of(recipe, tmp_path)
    bins = [r for r in rows if r["measured"] == "bin"]
    assert len(bins) == 2 * 2 * 4
    last = [r for r in bins if r["pool"] == "last" and r["by"] == "fosc"]
    assert sum(r["images"] for r in last) == 40
    values = [r["value"] for r in last]
    assert values == sorted(values)
    climbed = [r for r in rows if r["measured"] == "step"]
    right = sum(r["accuracy"] * r["images"] for r in last) / 40
    strengths = [r for r in rows if r["measured"] == "strength"]
    same = [r for r in strengths if (r["steps_taken"], r["step_radii"]) == (10, 0.25)]
    assert same[0]["accuracy"] == pytest.approx(right)
    assert same[0]["loss_q50"] == pytest.approx(climbed[-1]["loss_q50"])
    names = {r.training_key for r in recipe.surrogates.values()}
    assert names <= {path.stem for path in tmp_path.glob("*.safetensors")}
    dynamic = dataclasses.replace(recipe, fosc_max=0.5, loss_weighted=True)
    assert {r.training_key for r in dynamic.surrogates.values()} == names


def test_the_spectrum_agrees_with_itself_and_with_the_row(tmp_path):
    """On as many images as the table's eigenvalue, Lanczos gives the table's."""
    pytest.importorskip("pyhessian")
    rows = rows_of(dataclasses.replace(SMALL, spectrum_size=60, epochs=2), tmp_path)
    found = [row for row in rows if row["measured"] == "spectrum"]
    values = {row["way"]: row["value"] for row in found if row["of"] == "eigenvalue"}
    [last] = final(rows)
    assert values["Lanczos, 40 images"] == pytest.approx(last["top_eigenvalue"])
    top = values["Lanczos, 40 images"]
    assert values["PyHessian, 40 images"] == pytest.approx(top, rel=0.02)
    assert values["smallest, 40 images"] < top
    assert values["Lanczos, 60 images"] != top
    density = [(r["place"], r["value"]) for r in found if r["of"] == "density"]
    place, value = np.array(density).T
    assert np.trapezoid(value, place) == pytest.approx(1, abs=0.05)


def test_a_recipe_says_what_it_departs_in():
    assert str(Recipe(rho=0.1)) == "Recipe(rho=0.1)"
