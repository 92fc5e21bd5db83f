"""pytest reads this for docstrings' examples: torch is there, and one seed."""

import pytest
import torch


@pytest.fixture(autouse=True)
def same_seed():
    """Seed the global generator, from which torch.nn and the examples draw."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def torch_is_there(doctest_namespace):
    """Let examples use torch where their module does not import it itself."""
    doctest_namespace["torch"] = torch
