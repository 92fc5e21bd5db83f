"""Cells that a reader sees show a method on a toy, and that the package agrees."""

import ast
import contextlib
import importlib
import io
import json
import symtable
from dataclasses import replace

import pytest
import torch

from widemin import attacks, hessian, landscape, paths, training
from widemin.attacks import Linf
from widemin.book.notebooks import chapters

NOTEBOOKS = sorted(path.stem for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"))
FOLDED = {"remove-cell", "remove-input", "hide-cell", "hide-input"}
CORE = ("attacks", "training", "evaluation", "hessian", "landscape", "models")


def split(notebook):
    """Return a notebook's cells by what a page shows of them: code seen, the rest."""
    text = (paths.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8")
    seen, rest = {}, {}
    for cell in json.loads(text)["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        if cell["cell_type"] == "code":
            kept = rest if tags & {*FOLDED, "parameters"} else seen
            code = (line for line in cell["source"] if line[:1] != "%")
            kept[cell["id"]] = "".join(code)
    return seen, rest


def of_the_core(tree):
    """Return the names that imports take from the core: its modules, what they hold."""
    taken = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                package, module, *_ = f"{node.module}.{alias.name}".split(".")
                if package == "widemin" and module in CORE:
                    taken.add(alias.asname or alias.name)
    return taken


def checks(cells):
    """Return the cells that call the core and assert something, of those seen."""
    found, taken = [], set()
    for name, source in cells.items():
        tree = ast.parse(source)
        taken |= of_the_core(tree)
        called = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = node.func
                while isinstance(function, ast.Attribute):
                    function = function.value
                called.add(getattr(function, "id", ""))
        if called & taken and any(isinstance(n, ast.Assert) for n in ast.walk(tree)):
            found.append(name)
    return found


def assigned(cells):
    """Return the names that cells set, outside functions and by no import."""
    tables = (symtable.symtable(*cell[::-1], "exec") for cell in cells.items())
    symbols = [symbol for table in tables for symbol in table.get_symbols()]
    return {s.get_name() for s in symbols if s.is_assigned() and not s.is_imported()}


def run(notebook):
    """Run the cells of a notebook that are seen, and no others, in one namespace."""
    scope = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for name, source in split(notebook)[0].items():
            exec(compile(source, name, "exec"), scope)


def test_methods_are_shown_and_checked():
    found = {name: checks(split(name)[0]) for name in NOTEBOOKS}
    assert all(len(cells) >= 3 for cells in found.values())
    assert sum(map(len, found.values())) >= 25


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_cell_that_is_seen_is_read_at_a_glance(notebook):
    for source in split(notebook)[0].values():
        assert 3 <= len(list(filter(str.strip, source.splitlines()))) <= 12, source


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_toy_takes_no_name_of_the_chapter(notebook):
    """A cell of the chapter that is run again finds its own values."""
    seen, rest = split(notebook)
    both = assigned(seen) & assigned(rest) - {"_"}
    assert not both


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_figure_is_drawn_in_six_lines(notebook):
    for source in split(notebook)[1].values():
        if "figures.panels" in source:
            assert len(source.splitlines()) <= 6, source


@pytest.mark.parametrize("notebook", chapters())
def test_what_is_seen_runs_without_what_is_not(notebook):
    run(notebook)


def times(factor, field=""):
    """Return a mistake: a function's answer, or a field of it, is off by a factor."""

    def mistake(function):
        def wrong(*args, **options):
            given = function(*args, **options)
            if field:
                return replace(given, **{field: factor * getattr(given, field)})
            return factor * given

        return wrong

    return mistake


def without(function):
    """Return a context that does nothing, in place of one that moves weights."""
    return lambda *_: contextlib.nullcontext()


# Modules whose names their packages give to functions.
PGD = importlib.import_module("widemin.attacks.pgd")
WIDTH = importlib.import_module("widemin.landscape.width")
# What is planted: the cell that must notice, where it is, and what it does instead.
MISTAKES = {
    "FGSM downhill": ("w-toy-fgsm", Linf, "steepest", times(-1)),
    "a loss of the other sign": ("w-toy-fade", attacks, "cross_entropy", times(-1)),
    "no clipping": (
        "w-toy-fade",
        attacks,
        "clipped_cross_entropy",
        lambda _: attacks.cross_entropy,
    ),
    "twice the distance": (
        "w-toy-width",
        landscape,
        "nearest_level",
        times(2, "distance"),
    ),
    "logits unscaled": ("w-toy-scale", landscape, "logit_scale", without),
    "twice the radius of SAM": (
        "s-toy-sam",
        training,
        "perturbed_weights",
        lambda climb: lambda model, rho: climb(model, 2 * rho),
    ),
    "SAM without its climb": ("s-toy-sam", training, "perturbed_weights", without),
    "attacks of one step": (
        "s-toy-cost",
        PGD,
        "pgd_path",
        lambda path: lambda *a, **options: path(*a, **options | {"steps": 1}),
    ),
    "FOSC of the other sign": ("cell-06", attacks, "fosc", times(-1)),
    "a stop where FOSC is large": ("d-toy-agrees", PGD, "fosc", times(-1)),
    "FOSC over the box of no box": (
        "d-toy-clip",
        attacks,
        "fosc_box",
        lambda _: (
            lambda ball, g, x, x_adv: (
                attacks.fosc(ball, g, x_adv - x),
                ball.support(g),
            )
        ),
    ),
    "products with twice the Hessian": (
        "h-toy-product",
        hessian,
        "hessian_product",
        lambda product: lambda *given: times(2)(product(*given)),
    ),
    "twice the eigenvalue": ("h-toy-power", hessian, "lanczos", times(2, "values")),
    "twice the batch sharpness": (
        "h-toy-sharpness",
        hessian,
        "batch_sharpness",
        times(2),
    ),
    "no momentum": (
        "h-toy-limit",
        training.SGD,
        "step",
        lambda step: lambda self: (self.velocities.clear(), step(self)),
    ),
    "nodes that are weights": (
        "flat-toy-measures",
        WIDTH,
        "node_norms",
        lambda norms: lambda model: torch.ones_like(norms(model)),
    ),
    "half the relative flatness": (
        "flat-toy-relative",
        landscape,
        "relative_flatness",
        times(0.5),
    ),
    "the scale left in": ("flat-toy-scale", landscape, "logit_scale", without),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_core_is_seen_in_the_chapter(name, monkeypatch):
    cell, owner, attribute, mistake = MISTAKES[name]
    [notebook] = [n for n in NOTEBOOKS if cell in checks(split(n)[0])]
    monkeypatch.setattr(owner, attribute, mistake(getattr(owner, attribute)))
    with pytest.raises(AssertionError) as raised:
        run(notebook)
    assert raised.traceback[-1].frame.code.raw.co_filename == cell
