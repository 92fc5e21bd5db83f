"""The primer says what the module does: it runs, and planted mistakes stop it."""

import ast
import copy
import json
import re
from contextlib import contextmanager

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from widemin import attacks, data, evaluation, hessian, paths, training
from widemin.book import notebooks
from widemin.evaluation import accuracy

CELLS = json.loads((paths.NOTEBOOKS / f"{notebooks.PRIMER}.ipynb").read_text())["cells"]
CODE = {c["id"]: "".join(c["source"]) for c in CELLS if c["cell_type"] == "code"}
SEEN = {name: source for name, source in CODE.items() if name != "install"}
DRAWN = {name for name, source in SEEN.items() if "plt.subplots" in source}


def run(name, scope):
    """Execute a cell as a kernel does; IPython's own lines are for it alone."""
    source = re.sub("^%", "# ", CODE[name], flags=re.M)
    exec(compile(source, name, "exec"), scope)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the cells have defined, all of them run, without any data set at hand."""
    scope, empty = {}, str(tmp_path_factory.mktemp("empty"))
    with (
        pytest.MonkeyPatch.context() as patch,
        matplotlib.rc_context({"backend": "Agg"}),
        torch.random.fork_rng(),
    ):
        patch.setenv("WIDEMIN_DATA", empty)
        for name in CODE:
            run(name, scope)
        plt.close("all")
    return scope


def sections():
    """Return the source of each numbered section."""
    found = []
    for cell in CELLS:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and re.search(r"^## ", text, re.M):
            found.append((re.search(r"^## (.*)", text, re.M)[1], []))
        elif cell["cell_type"] == "code" and found:
            found[-1][1].append(cell)
    return [(title, cells) for title, cells in found if title[0].isdigit()]


def test_the_primer_runs_without_any_download(ran):
    assert ran["losses"][-1] < ran["losses"][0]


def test_each_section_ends_by_asking_the_module_for_the_same():
    assert len(sections()) == 7
    for title, cells in sections():
        last = ast.parse("".join(cells[-1]["source"]))
        asserted = [n for n in ast.walk(last) if isinstance(n, ast.Assert)]
        named = {n.id for n in ast.walk(last) if isinstance(n, ast.Name)}
        assert asserted, title
        assert named & {"attacks", "evaluation", "hessian", "training"}, title


def test_each_section_has_a_figure_and_a_sentence_after_it():
    for title, cells in sections():
        assert {cell["id"] for cell in cells} & DRAWN, title
    order = [cell["id"] for cell in CELLS]
    for name in DRAWN:
        reads = CELLS[order.index(name) + 1]
        assert reads["cell_type"] == "markdown" and reads["id"].endswith("-read")


@pytest.mark.parametrize("name", SEEN)
def test_cells_are_seen_short_and_fit_the_page(name):
    [cell] = [cell for cell in CELLS if cell["id"] == name]
    assert not cell["metadata"].get("tags") and not cell["outputs"]
    lines = [line for line in SEEN[name].splitlines() if line.strip()]
    assert 4 <= len(lines) <= (6 if name in DRAWN else 12)
    assert max(map(len, lines)) <= 78
    if name in DRAWN:
        assert cell["metadata"]["mystnb"]["image"]["alt"]


def test_the_first_cell_is_that_of_the_chapters():
    chapter = paths.NOTEBOOKS / f"{notebooks.chapters()[0]}.ipynb"
    cells = json.loads(chapter.read_text())["cells"]
    assert [c for c in cells if c["id"] == "install"] == [
        c for c in CELLS if c["id"] == "install"
    ]
    assert next(iter(CODE)) == "install"


def test_what_is_printed_is_what_was_counted(ran):
    """The numbers in the page's figures and lines, by straight calls of the module."""
    model, test, ball = ran["model"], ran["test"], attacks.Linf(ran["epsilon"])
    for moved, share in (
        (test.x, ran["left"]["no attack"][0]),
        (
            attacks.fgsm(model, test.x, test.y, ball),
            ran["left"]["FGSM, cross-entropy"][0],
        ),
    ):
        right = evaluation.correct(model, moved, test.y)
        assert 100 * accuracy.share(right) == pytest.approx(float(share))
    values = {name: found[0] for name, found in ran["valleys"].items()}
    for name, trained in ran["networks"].items():
        draws = torch.Generator().manual_seed(1)
        theirs = hessian.top_eigenvalues(
            trained, ran["train"].x, ran["train"].y, generator=draws, tolerance=1e-3
        )
        assert values[name] == pytest.approx(theirs.values.item(), rel=0.01)


def test_the_text_says_how_float32_rounds():
    """24 ln 2 for the true class; past about 100 nothing is left of the other."""
    for gap, loss, slope in (
        (16.7, 0.0, True),
        (16.5, None, True),
        (104.0, 0.0, False),
    ):
        z = torch.tensor([[gap, 0.0]], requires_grad=True)
        value = attacks.cross_entropy(z, torch.tensor([0])).sum()
        (gradient,) = torch.autograd.grad(value, z)
        assert (value == 0) == (loss == 0.0) == (gradient[0, 0] == 0)
        assert bool(gradient[0, 1] != 0) == slope


def test_exercises_have_the_answers_of_their_solutions(ran):
    model, test = ran["model"], ran["test"]
    a = torch.randn(16, generator=torch.Generator().manual_seed(0))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        linear[1].weight.copy_(torch.stack([a, torch.zeros(16)]))
    x, y = torch.full((1, 1, 4, 4), 0.5), torch.tensor([0])
    least = evaluation.margins(linear, x, y) - 0.1 * a.abs().sum()
    for attack in (attacks.fgsm, attacks.pgd):
        moved = attack(linear, x, y, attacks.Linf(0.1))
        assert torch.allclose(evaluation.margins(linear, moved, y), least, atol=1e-5)

    shares, x = [], test.x.double()
    for factor in ran["factors"]:
        loud = copy.deepcopy(model).double()
        for weight in loud[3].parameters():
            weight.data *= factor
        moved = ran["fgsm"](loud, x, test.y, ran["epsilon"])
        shares.append(100 * accuracy.share(evaluation.correct(loud, moved, test.y)))
    in_float32, natural = ran["left"]["FGSM, cross-entropy"], ran["left"]["no attack"]
    assert shares[1] < float(in_float32[1]) - 10  # it fails later
    assert shares[-1] > float(natural[0]) - 2  # and in the end as well

    other = copy.deepcopy(model)
    for weight in other[1].parameters():
        weight.data *= 4
    other[3].weight.data /= 4
    assert torch.equal(other(test.x), model(test.x))
    ball = attacks.Linf(0.1)
    moved = [attacks.fgsm(m, test.x, test.y, ball) for m in (model, other)]
    assert torch.equal(*moved)
    assert abs(ran["sharpest"](other)[0] / ran["sharpest"](model)[0] - 1) > 0.5


def test_the_digit_that_comes_with_the_book_is_the_first_test_image(mnist_here):
    from pathlib import Path

    first = data.load("mnist", "test", size=1, root=Path(mnist_here))
    kept = torch.from_numpy(plt.imread(paths.BOOK / "images" / "mnist_test_0.png"))
    assert torch.equal(kept, first.x[0, 0]) and first.y.item() == 7


@contextmanager
def unnormalised(model, rho):
    """Climb by rho times the gradient, whatever its length."""
    before = [weight.detach().clone() for weight in model.parameters()]
    for weight in model.parameters():
        weight.data += rho * weight.grad
    yield
    for weight, value in zip(model.parameters(), before, strict=True):
        weight.data = value


# (cell that must fail, what holds the name, name, what takes its place)
MISTAKES = {
    "half the learning rate": (
        "p-train-check",
        training.SCHEDULES,
        "constant",
        lambda t: 0.5,
    ),
    "FGSM without its sign": (
        "p-fgsm-check",
        attacks.Linf,
        "steepest",
        lambda ball, gradient: gradient,
    ),
    "FGSM downhill": (
        "p-seven-check",
        attacks.Linf,
        "steepest",
        lambda ball, gradient: -gradient.sign(),
    ),
    "PGD without its projection": (
        "p-pgd-check",
        attacks.Linf,
        "project",
        lambda ball, delta: delta,
    ),
    "the margin to the second class, not the best": (
        "p-margin-check",
        accuracy,
        "margin",
        lambda z, y: z.sort(1).values[:, -3] - z.gather(1, y[:, None])[:, 0],
    ),
    "a margin that saturates": (
        "p-vanish-check",
        attacks,
        "margin",
        lambda z, y: attacks.cross_entropy(z, y),
    ),
    "a Hessian of the sum": (
        "p-sharp-check",
        hessian,
        "summed",
        lambda loss, z, y: 1197 * nn.functional.cross_entropy(z, y, reduction="sum"),
    ),
    "SAM that does not divide by the length": (
        "p-sam-check",
        training,
        "perturbed_weights",
        unnormalised,
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_module_stops_the_primer(mistake, ran, monkeypatch):
    cell, holder, name, wrong = MISTAKES[mistake]
    with torch.random.fork_rng():
        run(cell, dict(ran))  # as it is, it passes
        patch = monkeypatch.setitem if isinstance(holder, dict) else monkeypatch.setattr
        patch(holder, name, wrong)
        with pytest.raises(AssertionError):
            run(cell, dict(ran))


def test_every_check_has_a_mistake_planted():
    checks = {name for name in SEEN if name.endswith("-check")}
    assert checks == {cell for cell, *_ in MISTAKES.values()}
