"""Small models and images with known answers; no test needs network or GPU."""

import os

import pytest
import torch
from torch import nn

torch.set_num_threads(1)


# What takes longest, so that the others are done beside it.
FIRST = ("test_faults.py", "test_experiments.py", "test_networks.py")


def pytest_collection_modifyitems(items):
    """Put files that take long first; the order is otherwise as it was."""
    at = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: at.get(item.path.name, len(FIRST)))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("WIDEMIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def grey(generator):
    """Eight grey images, so that no attack of radius 0.1 meets 0 or 1."""
    x = 0.4 + 0.2 * torch.rand(8, 1, 4, 4, generator=generator)
    return x, torch.randint(2, (8,), generator=generator)


@pytest.fixture
def linear(grey, generator):
    """A linear model on two classes: every attack has a closed form."""
    x, y = grey
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 16, generator=generator))
        model[1].bias.zero_()
    return model, x, y


@pytest.fixture
def smooth(generator):
    """A small curved network with batch norm and dropout, in training mode."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Softplus(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(64, 3),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model.train()


class Sine(nn.Module):
    """The sine, as a layer."""

    def forward(self, x):
        return x.sin()


@pytest.fixture
def wavy(generator):
    """A network whose loss has many local maxima in an image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), Sine(), nn.Linear(32, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model[1].weight.mul_(3)
    return model


@pytest.fixture(scope="session")
def mnist_here():
    """Skip where real MNIST is not at hand."""
    folder = os.environ.get("WIDEMIN_DATA")
    if not folder or not os.path.isdir(os.path.join(folder, "MNIST")):
        pytest.skip("WIDEMIN_DATA does not name a folder with MNIST")
    return folder
