"""Eigenvalues, spectra, widths and lines of a trained network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin import attacks, hessian, landscape
from widemin.batches import at_once
from widemin.data import images
from widemin.evaluation import share
from widemin.experiments.recipe import Recipe, stream
from widemin.landscape import implicit_perturbation
from widemin.seeding import seeded

GAPS = (0.1, 1.0)  # heights of the levels above a network's own loss, for widths
ADAPTIVE_RADIUS = 0.5  # of adaptive sharpness, in units of each weight
WEIGHT_LINE, IMAGE_LINE = 1.0, 16 / 255  # how far the loss is followed
POINTS = 17  # of each line
IMPLICIT_RHO = 0.2  # of SAM, whose step in the first layer is answered in pixels


def curvature_values(model: nn.Module, recipe: Recipe, device: str) -> dict[str, Any]:
    """Return training loss and accuracy, top Hessian eigenvalue and batch sharpness."""
    size = min(recipe.hessian_size, recipe.train_size)
    x, y = images(recipe.dataset, "train", size, device)
    draws = stream(recipe.seed, "probes")
    top = hessian.top_eigenvalues(model, x, y, generator=draws)
    batch = min(recipe.batch_size, recipe.train_size)
    many = images(recipe.dataset, "train", max(size, batch), device)
    draws = stream(recipe.seed, "batch sharpness")
    sharpness = hessian.batch_sharpness(model, *many, batch, generator=draws)
    with torch.no_grad(), attacks.inference(model):
        logits = torch.cat([model(part) for part in x.split(at_once(model, cpu=500))])
    return {
        "final_train_loss": float(F.cross_entropy(logits.double(), y)),
        "train_accuracy": share(logits.argmax(1) == y),
        "top_eigenvalue": float(top.values[0]),
        "eigenvalue_residual": float(top.residuals[0]),
        "hessian_products": top.products,
        "eigenvalue_converged": top.converged,
        "hessian_images": size,
        "batch_sharpness": sharpness,
    }


def spectrum(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return a row an eigenvalue, then one a point of the Hessian's density.

    The largest by Lanczos on as many images as every network of the table, by
    PyHessian's power iteration on the same, and by Lanczos on `spectrum_size` images;
    the smallest.
    """
    many = images(recipe.dataset, "train", recipe.spectrum_size, device)
    few = min(recipe.hessian_size, recipe.train_size)
    x, y = many[0][:few], many[1][:few]

    def draws() -> torch.Generator:
        return stream(recipe.seed, "probes")

    top, bottom = hessian.top_eigenvalues, hessian.bottom_eigenvalues
    by_way = {
        f"Lanczos, {few} images": top(model, x, y, generator=draws()),
        f"PyHessian, {few} images": pyhessian(model, x, y, draws()),
        f"Lanczos, {len(many[0])} images": top(model, *many, generator=draws()),
        f"smallest, {few} images": bottom(model, x, y, generator=draws()),
    }
    rows: list[dict[str, Any]] = []
    for way, pairs in by_way.items():
        row: dict[str, Any] = {"of": "eigenvalue", "way": way}
        row |= {"value": float(pairs.values[0]), "products": pairs.products}
        rows.append(row | {"residual": float(pairs.residuals[0])})
    low, high = 1.1 * rows[-1]["value"], 1.1 * rows[0]["value"]
    grid = torch.linspace(low, high, 101, dtype=torch.float64)
    values = hessian.density(model, x, y, grid, generator=draws(), probes=2, steps=60)
    for place, value in zip(grid.tolist(), values.tolist(), strict=True):
        rows.append({"of": "density", "place": place, "value": value})
    return rows


def pyhessian(
    model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, most: int = 100
) -> hessian.Eigenvalues:
    """Return the eigenvalue of largest magnitude by PyHessian 0.1, on a copy.

    It adds to the gradients that are there, keeps a graph alive through them and draws
    from the global generator.
    """
    from pyhessian import hessian as PyHessian

    peer = copy.deepcopy(model).eval()
    peer.zero_grad(set_to_none=True)
    seed = int(torch.randint(2**62, (), generator=generator))
    with seeded(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward")
        operator = PyHessian(peer, nn.CrossEntropyLoss(), data=(x, y), cuda=x.is_cuda)
        [value], [parts] = operator.eigenvalues(maxIter=most, tol=1e-7, top_n=1)
    peer.zero_grad(set_to_none=True)
    vector = torch.cat([part.detach().reshape(-1) for part in parts])
    left = hessian.hessian_product(peer, x, y)(vector) - value * vector
    return hessian.Eigenvalues(
        values=torch.tensor([value], dtype=torch.float64),
        residuals=left.norm().reshape(1),
        products=most,
        converged=bool(left.norm() <= 1e-2 * abs(value)),
        vectors=vector[None],
    )


def lines(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return the mean loss along the steepest lines, in weights and in images.

    In the weights, on training images, along the gradient: the distance is L2 over all
    weights, as SAM's radius. In the images, test images, along the sign of each one's
    gradient: the distance is L-infinity, in pixels.
    """
    size = min(recipe.line_size, recipe.train_size)
    x, y = images(recipe.dataset, "train", size, device)
    with attacks.inference(model):
        loss, start = landscape.weight_landscape(model, x, y)
        distances = torch.linspace(0, WEIGHT_LINE, POINTS, dtype=torch.float64)
        losses = landscape.along(loss, loss(start)[1], distances)
        pairs = zip(distances.tolist(), losses, strict=True)
        points = [("weights", far, float(value)) for far, value in pairs]
        x, y = images(recipe.dataset, "test", recipe.line_size, device)
        sign = attacks.input_gradient(model, x, y)[0].sign()
        for distance in torch.linspace(0, IMAGE_LINE, POINTS):
            with torch.no_grad():
                logits = model((x + distance * sign).clamp(0, 1))
            value = F.cross_entropy(logits.double(), y)
            points.append(("images", float(distance), float(value)))
    return [{"of": of, "distance": far, "loss": value} for of, far, value in points]


def implicit_values(model: nn.Module, recipe: Recipe, device: str) -> dict[str, float]:
    """Return the size in pixels of SAM's step in the first layer."""
    if not recipe.line_size:
        return {}
    size = min(recipe.line_size, recipe.train_size)
    x, y = images(recipe.dataset, "train", size, device)
    return implicit_perturbation.at_first_layer(model, x, y, IMPLICIT_RHO)


_WIDTHS = {  # at each of GAPS
    "weights": ("width_weights_0.1", "width_weights_1"),
    "nodes": ("width_nodes_0.1", "width_nodes_1"),
    "inputs": ("width_inputs_0.1", "width_inputs_1"),
}


def widths(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    of: str,
    columns: tuple[str, ...],
    recipe: Recipe,
    search: Callable[[landscape.Width | None], dict[str, Any]],
) -> dict[str, float]:
    """Return widths at each of GAPS, by column.

    `search` gives the options of the search by what was found one level below.
    """
    values, below = dict[str, float](), None
    for gap, column in zip(GAPS, columns, strict=True):
        draws, options = stream(recipe.seed, f"width of {of}"), search(below)
        below = landscape.width(model, x, y, gap=gap, of=of, generator=draws, **options)
        values[column] = below.width
    return values


def width_values(model: nn.Module, recipe: Recipe, device: str) -> dict[str, Any]:
    """Return widths and adaptive sharpness on the first training images.

    Columns are named after what is moved and how far above the loss the level is. The
    last direction found is the first one tried at the next level.
    """
    if not recipe.width_size:
        return {}
    x, y = images(recipe.dataset, "train", recipe.width_size, device)
    values: dict[str, Any] = {"width_images": len(x)}

    def search(below: landscape.Width | None) -> dict[str, Any]:
        first = {"first": below.direction, "starts": 0} if below else {"starts": 2}
        return first | {"random_directions": 1, "tolerance": 1e-3}

    for of, columns in _WIDTHS.items():
        values |= widths(model, x, y, of, columns, recipe, search)
    rise = landscape.adaptive_sharpness(model, x, y, rho=ADAPTIVE_RADIUS)
    return values | {"adaptive_sharpness": rise}
