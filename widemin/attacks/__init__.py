"""Attacks on image classifiers: the sets they stay in, the losses they climb.

Images are pixels in [0, 1], shape (batch, channels, height, width); the network
normalises them itself. Gradients are those of the summed loss: no number depends on the
batch. Attacks leave the network's mode, gradients and buffers as they were.
"""

from widemin.attacks.balls import L2, Ball, Linf, fosc, fosc_box, parse_ball
from widemin.attacks.images import (
    check_images,
    check_labels,
    check_logits,
    clean,
    inference,
    input_gradient,
    logits_of,
)
from widemin.attacks.losses import (
    TRAINED,
    Loss,
    clipped_cross_entropy,
    cross_entropy,
    dlr,
    fooled,
    margin,
    rescaled_cross_entropy,
    targeted,
)
from widemin.attacks.pgd import fgsm, pgd, pgd_path
from widemin.names import NonFiniteError
