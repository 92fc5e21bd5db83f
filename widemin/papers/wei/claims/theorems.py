"""Claims settled by mathematics or linear models: S8, S11."""

from __future__ import annotations

import numpy as np

from widemin.papers.claims import Verdict
from widemin.papers.wei import theory


def S8() -> Verdict:
    """Theorems 4.1 to 4.5 against the exact solution of their own model."""
    p, eta, d, radius = 0.95, 0.1, 100, 1.0
    best = theory.optimum(p, eta, d)
    exact = theory.sam_optimum(p, eta, d, radius) - best
    derived = theory.sam_shift(p, eta, d, radius)
    printed = theory.printed_sam_shift(p, eta, d, radius)
    all_weights = theory.sam_optimum(p, eta, 10 * d, radius, "all") - best
    right = theory.equivalent_adversarial_epsilon(eta, d, radius)
    theirs = eta * radius**2 / (1.5 + radius**2)
    return Verdict(
        "S8",
        "partly",
        paper="five theorems",
        ours="4.1, 4.2 and 4.3 hold; the constant of 4.4 and 4.5 is too large by "
        f"{printed / derived:.0f} = 2d",
        evidence=f"At p = {p}, η = {eta}, d = {d}, radius {radius:g} the exact shift "
        f"is {exact:.4f}, 1/(3d) gives {derived:.4f} and the printed 2/3 gives "
        f"{printed:.2f}; the attack of equal effect is {right:.5f}, not {theirs:.2f}. "
        "4.2 "
        "needs an attack smaller than η that spares the robust feature. If SAM moves "
        "all weights, as it does in practice, the robust weight falls at d = "
        f"{10 * d}: "
        f"{all_weights:.4f}.",
        holds_up="not applicable",
        seeds="nothing: it is mathematics",
    )


def S11(ratios: dict[int, np.ndarray]) -> Verdict:
    """SAM puts more weight on the robust feature where theory says so, else less.

    Args:
        ratios: Number of weak features d to ratios, shape (seeds, radii), the first
            radius 0, of `theory.sam_on_samples` at p = 0.95 and eta = 0.1.
    """
    best = theory.optimum(0.95, 0.1, 1)
    held, said = [], []
    for d, found in sorted(ratios.items()):
        more = best**2 > 2 * d  # what theory predicts
        steps = np.diff(found, axis=1)
        held.append(bool((steps > 0).all() if more else (steps < 0).all()))
        change = 100 * (found[:, -1] / found[:, 0] - 1)
        said.append(
            f"{change.mean():+.1f} % at d = {d}, where theory predicts "
            f"{'more' if more else 'less'}"
        )
    runs = len(next(iter(ratios.values())))
    return Verdict(
        "S11",
        "reproduced" if all(held) else "partly" if any(held) else "not reproduced",
        paper="argued from a SAM that moves the robust weight alone",
        ours="robust over weak weights, largest radius against none: "
        f"{'; '.join(said)}",
        evidence=f"Linear models trained by SAM on the logistic loss of fresh samples, "
        f"{runs} seeds, the same samples for every radius. The theory is about "
        "expected "
        "accuracy and its worst case; SAM climbs each batch's own logistic loss.",
        holds_up="not applicable",
        seeds=f"nothing: all {runs} seeds agree" if _agree(ratios) else "more seeds",
    )


def _agree(ratios: dict[int, np.ndarray]) -> bool:
    """Return whether all seeds move the same way from the first radius to the last."""
    signs = [np.sign(found[:, -1] - found[:, 0]) for found in ratios.values()]
    return all(len(set(sign)) == 1 for sign in signs)
