"""What a kind of run takes, counted by hand, and the table of it in the book."""

import dataclasses
import io

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import gpu, rates
from widemin import data, paths
from widemin.book import sources
from widemin.experiments import progress
from widemin.experiments.train import build


def test_operations_of_a_kind_of_run():
    plain = progress.operations("cifar10", "preactresnet18")
    found = {name: rates.operations(recipe) for name, recipe in rates.RECIPES.items()}
    assert found["PreActResNet-18"] == plain
    assert found["PreActResNet-18, SAM"] == 2 * plain
    assert found["PreActResNet-18, PGD-10"] == pytest.approx((1 + 20 / 3) * plain)


def test_a_gradient_in_the_image_is_two_thirds_of_one_in_the_weights():
    recipe = dataclasses.replace(rates.RECIPES["PreActResNet-18"], width=8)
    shape = data.DATASETS["cifar10"].shape
    model = build(recipe).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(3, *shape, requires_grad=True)).sum().backward()
    whole = progress.operations("cifar10", "preactresnet18", 8)
    assert counter.get_total_flops() == pytest.approx(3 * 2 / 3 * whole)


def test_rates_become_a_table_by_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path)
    assert "python -m tests.benchmarks.rates" in sources.MARKS["rates"]("site")
    row = {"run": "M1", "dataset": "mnist", "batch_size": 64, "images_a_second": 9876.5}
    row |= {"seconds_an_epoch": 6.1, "share_of_peak": 0.268, "torch": "2", "date": "d"}
    machines = [
        {"device": "cpu", "hardware": "A core"},
        {"device": "cuda", "hardware": "A GPU"},
    ]
    table = pd.DataFrame([row | machine for machine in machines])
    table.to_csv(tmp_path / "rates.csv", index=False)
    found = sources.MARKS["rates"]("site")
    assert "One core of A core, torch 2, d:" in found and "On A GPU" in found
    assert "| M1 (MNIST) | 64 | 9,876 | 6\u00a0s | 27\u00a0% |" in found


def test_without_a_gpu_make_gpu_says_so_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        gpu.main([])
    found = capsys.readouterr()
    assert ended.value.code == 2 and not found.out
    assert found.err == "make gpu needs a GPU that torch can use; there is none\n"


@pytest.mark.slow
def test_what_make_gpu_does_can_be_tried_on_a_cpu(capsys):
    """Every part of it but the tests, which are found; the rows are of the table."""
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--device", "cpu", "--small"])
    assert ended.value.code == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    table = pd.read_csv(paths.PUBLISHED / "benchmarks.csv")
    assert list(found) == list(table)
    assert len(found) == len(gpu.GOALS) + 1
    assert (found["ratio_q25"] <= found["ratio_q75"]).all()
