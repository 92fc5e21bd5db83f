"""Chapter 4: everything against batch size, and the spectrum."""

from widemin.papers.kamath.figures.batches import (
    COUNTERED,
    EXPLAINED,
    beside_printed,
    by_batch_size,
    by_run,
    explanations,
    from_end_to_end,
    with_settings,
)
from widemin.papers.kamath.figures.spectrum import (
    densities,
    eigenvalue_differences,
    eigenvalue_of_each,
    eigenvalues,
    with_limit,
)

__all__ = [
    "COUNTERED",
    "EXPLAINED",
    "beside_printed",
    "by_batch_size",
    "by_run",
    "densities",
    "eigenvalue_differences",
    "eigenvalue_of_each",
    "eigenvalues",
    "explanations",
    "from_end_to_end",
    "with_limit",
    "with_settings",
]
