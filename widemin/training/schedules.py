"""How the learning rate falls in the course of training."""

from collections.abc import Callable

# The factor on the learning rate after the fraction t of training, t in [0, 1).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    # Wei et al.: a tenth at epochs 75 and 90 of 100.
    "drop-75-90": lambda t: 0.1 ** ((t >= 0.75) + (t >= 0.9)),
    # Wang et al.: a tenth at 20 and 40 of 50 (MNIST), at 60 and 100 of 120 (CIFAR-10).
    "drop-40-80": lambda t: 0.1 ** ((t >= 0.4) + (t >= 0.8)),
    "drop-50-83": lambda t: 0.1 ** ((t >= 0.5) + (t >= 5 / 6)),
    # Kamath et al., Benchmark: halved every 5 of 100 epochs.
    "halve-20": lambda t: 0.5 ** int(20 * t),
    # Up over the first fifth, flat to the half, linearly down to 0.
    "trapezoid": lambda t: min(5 * t, 1.0, 2 * (1 - t)),
}
