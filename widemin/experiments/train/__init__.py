"""A recipe's network trained, alone or beside others.

A training under way is kept every minute, and at once when it is asked to stop; it
goes on bit for bit.
"""

from widemin.experiments.train.alone import share_done, train
from widemin.experiments.train.basics import (
    Curve,
    Facts,
    Trained,
    build,
    read_checkpoint,
    spent_seconds,
    write_checkpoint,
)
from widemin.experiments.train.together import VARIED, family, train_together

__all__ = [
    "VARIED",
    "Curve",
    "Facts",
    "Trained",
    "build",
    "family",
    "read_checkpoint",
    "share_done",
    "spent_seconds",
    "train",
    "train_together",
    "write_checkpoint",
]
