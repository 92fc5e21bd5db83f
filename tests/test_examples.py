"""Scripts that readers take along: short, each run alone, with a known outcome."""

import os
import re
import runpy
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from widemin import paths
from widemin.experiments import frame

SCRIPTS = sorted((paths.BOOK / "examples").glob("*.py"))
NAMES = [path.stem for path in SCRIPTS]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Run a script alone, once, where there is no data set; return what it prints."""
    heard = {}

    def run(name):
        if name not in heard:
            folder = tmp_path_factory.mktemp(name)
            here = {"PYTHONPATH": str(paths.ROOT), "WIDEMIN_DATA": str(folder)}
            here |= {"WIDEMIN_CACHE": str(folder), "MPLBACKEND": "Agg"}
            done = subprocess.run(
                [sys.executable, "-W", "error", paths.BOOK / "examples" / f"{name}.py"],
                cwd=folder,
                env=os.environ | here,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            assert not done.stderr
            heard[name] = done.stdout, folder
        return heard[name]

    return run


def test_there_are_five_and_a_module_of_at_most_forty_lines():
    assert len(SCRIPTS) == 6
    for path in SCRIPTS:
        assert len(path.read_text().splitlines()) <= 40, path.name


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_on_one_page_and_can_be_taken_along(name):
    pages = [*paths.BOOK.glob("*.md"), *paths.BOOK.glob("api/*.md")]
    texts = [page.read_text() for page in pages]
    shown = [
        text for text in texts if re.search(rf"literalinclude}} .*/{name}\.", text)
    ]
    assert len(shown) == 1
    assert re.search(rf"{{download}}`[^`]*<[./]*examples/{name}\.py>`", shown[0])


def test_a_network_evaluated(said):
    text, _ = said("evaluate_your_network")
    table = {
        name: float(value)
        for name, value in re.findall(r"^(.+?) accuracy +(\d\.\d+)", text, re.M)
    }
    assert table["natural"] > 0.85 and len(table) >= 4
    assert 0.3 < table["worst case"] <= min(table.values())
    right, worst = (f"{table[name]:.0%}" for name in ("natural", "worst case"))
    assert f"without an attack: {right}; under all: {worst}." in text
    assert text.endswith("Signs of masked gradients: none.\n")


def test_a_step_of_sam_is_that_written_out(said):
    text, _ = said("sam_in_your_loop")
    right, apart = re.search(r"SAM: ([\d.]+)%.*out: (\S+)", text, re.DOTALL).groups()
    assert float(right) > 80
    assert float(apart) < 1e-6


def test_the_spectrum_is_that_of_the_whole_hessian(said):
    text, _ = said("hessian_spectrum")
    names = runpy.run_path(str(paths.BOOK / "examples" / "hessian_spectrum.py"))
    model, x, y = names["model"].double(), names["x"].double(), names["y"]
    shapes = {name: p.shape for name, p in model.named_parameters()}
    w = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def loss(w):
        parts = w.split([shape.numel() for shape in shapes.values()])
        at = {n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, at, (x,)), y)

    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, w))
    top = [float(v) for v in re.findall(r"^top eigenvalue +([\d.]+)", text, re.M)]
    assert top == pytest.approx(values.flip(0)[:3].tolist(), abs=2e-3)
    low = float(re.search(r"bottom eigenvalue +(-[\d.]+)", text)[1])
    assert low == pytest.approx(float(values[0]), abs=2e-3)
    trace, error = re.search(r"trace +([\d.]+), standard error ([\d.]+)", text).groups()
    assert float(trace) == pytest.approx(float(values.sum()), abs=4 * float(error))
    share, near = re.search(r"About (\d+)% .* within ([\d.]+) of", text).groups()
    exact = (values.abs() < float(near)).double().mean()
    assert float(share) / 100 == pytest.approx(float(exact), abs=0.02)


def test_the_masked_network_is_caught_and_the_sound_one_is_not(said):
    text, _ = said("find_masked_gradients")
    sound, sure = re.findall(r"^(.+): (\d+) of \d+ signs", text, re.M)
    assert sound == ("as trained", "0")
    assert sure[0] == "logits times 100" and int(sure[1]) >= 3
    signs = re.findall(r"^  (.+): ([\d.]+) against ([\d.]+)$", text, re.M)
    assert len(signs) == int(sure[1])
    assert "images with an all-zero gradient" in {name for name, _, _ in signs}
    for _, value, against in signs:
        assert float(value) > float(against)


def test_a_figure_has_every_network_of_the_table(said):
    text, folder = said("draw_from_published_tables")
    rows = frame("01", "paper")
    count = int((rows["measured"] == "final").sum())
    assert text == f"ratio.png shows {count} networks of 01_width_of_minima.\n"
    assert (folder / "ratio.png").stat().st_size > 5_000
