"""The Hessian of the mean loss with respect to the weights.

Products with vectors, eigenvalues at both ends with their residuals, trace and
spectral density. Batch norm and dropout are in inference mode; weight decay is not
part of the loss.
"""

from widemin.hessian.density import density, quadrature, trace
from widemin.hessian.eigenvalues import (
    Eigenvalues,
    bottom_eigenvalues,
    lanczos,
    top_eigenvalues,
)
from widemin.hessian.products import FORWARD_FROM, Product, hessian_product

__all__ = [
    "FORWARD_FROM",
    "Eigenvalues",
    "Product",
    "bottom_eigenvalues",
    "density",
    "hessian_product",
    "lanczos",
    "quadrature",
    "top_eigenvalues",
    "trace",
]
