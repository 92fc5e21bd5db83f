"""pytest reads this for docstrings' examples: torch is there, and one seed."""

import os

import pytest
import torch

# Commands that tests start take one thread each: tests run beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def same_seed():
    """Seed the global generator, from which torch.nn and the examples draw."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def torch_is_there(doctest_namespace):
    """Let examples use torch where their module does not import it itself."""
    doctest_namespace["torch"] = torch
