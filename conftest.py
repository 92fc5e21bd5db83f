"""pytest reads this for the examples in docstrings: each starts from the same seed."""

import pytest
import torch


@pytest.fixture(autouse=True)
def same_seed():
    """Seed the global generator, from which torch.nn and the examples draw."""
    torch.manual_seed(0)
