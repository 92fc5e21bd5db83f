"""Data sets are whole, in [0, 1], split as the papers say, or named as broken."""

import hashlib
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner
from scipy import ndimage

from widemin import data, paths
from widemin.cli import main
from widemin.data import DataError, augment, load


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, and a folder of our own for data."""
    import urllib.error
    import urllib.request

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("WIDEMIN_DATA", str(tmp_path / "data"))


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    x, y, classes = (load("digits", "test").__dict__[k] for k in ("x", "y", "classes"))
    official = load_digits()
    assert x.shape == (400, 1, 8, 8)
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    torch.testing.assert_close(
        x[:, 0], torch.from_numpy(official.images[-400:]).float() / 16
    )
    assert y.tolist() == official.target[-400:].tolist()
    assert classes == tuple("0123456789")


def test_parts_are_disjoint_and_together_everything():
    parts = {part: load("digits", part) for part in data.PARTS}
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 1197,
        "validation": 200,
        "test": 400,
    }
    everything = load("digits", "train", size=1397)
    both = torch.cat([parts["train"].x, parts["validation"].x])
    assert torch.equal(everything.x, both)


def test_a_size_takes_the_first_images():
    assert torch.equal(load("digits", size=5).x, load("digits").x[:5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "minst"}, "unknown dataset 'minst' .did you mean 'mnist'"),
        ({"name": "digits", "part": "tset"}, "unknown part 'tset'"),
        ({"name": "digits", "size": 5000}, "size must be between 1 and 1397"),
        ({"name": "digits", "part": "test", "size": 401}, "between 1 and 400"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_a_missing_data_set_says_where_it_was_sought_and_what_to_do(tmp_path):
    with pytest.raises(DataError) as error:
        load("mnist")
    for part in ("'mnist'", str(tmp_path / "data"), "WIDEMIN_DATA", "--preset smoke"):
        assert part in str(error.value)


def test_an_altered_file_is_named(tmp_path):
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in data.DATASETS["mnist"].md5:
        (folder / name).write_bytes(b"not an idx file")
    with pytest.raises(DataError, match="train-images-idx3-ubyte is truncated or alt"):
        load("mnist")
    (folder / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="train-images-idx3-ubyte is missing"):
        load("mnist")


@pytest.fixture
def mnist(monkeypatch):
    """A made-up MNIST with known pixels as files, its sums published."""
    made = {}
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        pixels = (torch.arange(count) % 256).to(torch.uint8)
        images = pixels[:, None].expand(count, 784).contiguous().numpy().tobytes()
        labels = (torch.arange(count) % 10).to(torch.uint8).numpy().tobytes()
        files = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">4i", 2051, count, 28, 28)
            + images,
            f"{prefix}-labels-idx1-ubyte": struct.pack(">2i", 2049, count) + labels,
        }
        made |= files
    sums = {name: hashlib.md5(content).hexdigest() for name, content in made.items()}
    known = replace(data.DATASETS["mnist"], md5=sums)
    monkeypatch.setitem(data.DATASETS, "mnist", known)
    data._torchvision.cache_clear()
    yield made
    data._torchvision.cache_clear()


def test_idx_files_are_read_in_the_official_layout(tmp_path, mnist):
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in mnist.items():
        (folder / name).write_bytes(content)
    train, validation = load("mnist", size=512), load("mnist", "validation")
    assert train.x.shape == (512, 1, 28, 28)
    assert train.x[255].unique().tolist() == [1.0]
    assert train.y[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert len(validation) == 5_000
    assert validation.x[0, 0, 0, 0].item() == pytest.approx(55_000 % 256 / 255)


@pytest.fixture
def download(mnist, monkeypatch):
    """MNIST can be downloaded, file after file; what there is is written over."""
    official, begun, go_on = torchvision.datasets.MNIST, Event(), Event()
    go_on.set()
    calls = []

    class Slow(official):
        raw_folder = property(lambda self: f"{self.root}/MNIST/raw")

        def __init__(self, root, train=True, download=False):
            calls.extend([root] * download)
            raw = Path(root, "MNIST", "raw")
            for name, content in mnist.items() if download else ():
                raw.mkdir(parents=True, exist_ok=True)
                (raw / name).write_bytes(content)
                begun.set()
                assert go_on.wait(60)
            super().__init__(root, train)

    monkeypatch.setattr(torchvision.datasets, "MNIST", Slow)
    return begun, go_on, calls


def test_who_comes_while_another_downloads_waits(download, monkeypatch):
    begun, go_on, calls = download
    go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(load, "mnist", "test", size=5)
        assert begun.wait(60)
        asked, lock = Event(), paths.lock

        def asks(path):
            asked.set()
            return lock(path)

        monkeypatch.setattr(paths, "lock", asks)
        second = pool.submit(load, "mnist", "train", size=6)
        there = asked.wait(60)  # in the way of the first, which holds it
        with pytest.raises(TimeoutError):
            second.result(timeout=0.3)
        go_on.set()
        assert (len(first.result(60)), len(second.result(60))) == (5, 6)
    assert there and len(calls) == 1


def test_half_a_download_is_completed(tmp_path, download, mnist):
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    name, content = next(iter(mnist.items()))
    (folder / name).write_bytes(content)
    assert len(load("mnist", "test", size=5)) == 5


def test_nothing_is_written_over_an_altered_file(tmp_path, download):
    """Though others are missing: it may be somebody's own."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"my own")
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is truncated or alt"):
        load("mnist")
    assert (folder / "t10k-labels-idx1-ubyte").read_bytes() == b"my own"


def test_whole_data_need_no_place_to_write(tmp_path, mnist, monkeypatch):
    """They may lie where nobody can lock or download anything."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in mnist.items():
        (folder / name).write_bytes(content)

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(paths, "lock", refuse)
    assert len(load("mnist", "test", size=5)) == 5
    (folder / "t10k-labels-idx1-ubyte").unlink()
    data._torchvision.cache_clear()
    with pytest.raises(DataError, match=r"is missing .* \(.*Permission denied\)"):
        load("mnist", "test", size=5)


def test_a_tilde_is_home(tmp_path, monkeypatch):
    """Where no shell expands it: in a file of settings, in a parameter cell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, call in (("WIDEMIN_DATA", paths.data), ("WIDEMIN_CACHE", paths.cache)):
        monkeypatch.setenv(name, "~/of widemin")
        assert call() == tmp_path / "of widemin"
    assert paths.results() == tmp_path / "of widemin" / "results"
    assert paths.results("~/runs") == tmp_path / "runs"
    with pytest.raises(DataError, match=f"{tmp_path}/data/MNIST"):
        load("mnist", root=Path("~/data"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "t.csv").write_bytes(b"key\n\xe9\n")
    found = CliRunner().invoke(main, ["status", "--preset=smoke", "--results=~/runs"])
    assert f"{tmp_path}/runs/t.csv must be a table of runs" in found.stderr
    assert found.exit_code == 2


def test_cifar100_is_read_from_its_archive(tmp_path, monkeypatch):
    """A made-up archive with the official layout: fine labels, planes of colour."""
    import pickle

    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    sums = {}
    for name, count in (("train", 50_000), ("test", 10_000)):
        red = (np.arange(count) % 256).astype(np.uint8)
        planes = [red, np.full(count, 51, np.uint8), np.zeros(count, np.uint8)]
        pixels = np.repeat(np.stack(planes, 1), 1024, axis=1)
        content = pickle.dumps(
            {
                "data": pixels,
                "fine_labels": (np.arange(count) % 100).tolist(),
                "coarse_labels": [0] * count,
            }
        )
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"fine_label_names": [str(i) for i in range(100)]})
    (folder / "meta").write_bytes(meta)
    sums["meta"] = hashlib.md5(meta).hexdigest()
    official = torchvision.datasets.CIFAR100
    monkeypatch.setattr(official, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(official, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(official, "meta", {**official.meta, "md5": sums["meta"]})
    data._torchvision.cache_clear()
    train, test = load("cifar100", size=300), load("cifar100", "test")
    held_out = load("cifar100", "validation")
    data._torchvision.cache_clear()
    assert train.x.shape == (300, 3, 32, 32)
    assert train.x[255].amax((1, 2)).tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert train.y[98:102].tolist() == [98, 99, 0, 1]
    assert len(test) == 10_000 and len(held_out) == 10_000
    assert int(held_out.y[0]) == 40_000 % 100
    assert held_out.x[0, 0, 0, 0].item() == pytest.approx(40_000 % 256 / 255)


def test_real_mnist_has_the_papers_sizes(mnist_here, monkeypatch):
    monkeypatch.setenv("WIDEMIN_DATA", mnist_here)
    data._torchvision.cache_clear()
    sizes = [len(load("mnist", part)) for part in data.PARTS]
    assert sizes == [55_000, 5_000, 10_000]
    first = load("mnist", size=3)
    assert first.y.tolist() == [5, 0, 4]
    assert 0 <= first.x.min() and first.x.max() == 1


def test_every_augmented_image_is_a_shift_or_a_mirrored_shift(generator):
    x = torch.rand(32, 2, 6, 6, generator=generator)
    found = augment(x, generator, padding=2)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    mirrored = torch.nn.functional.pad(x.flip(3), (2, 2, 2, 2), mode="reflect")
    kinds = set()
    for index in range(32):
        matches = [
            (flip, top, left)
            for flip, source in enumerate((padded, mirrored))
            for top in range(5)
            for left in range(5)
            if torch.equal(
                found[index], source[index, :, top : top + 6, left : left + 6]
            )
        ]
        assert matches
        kinds.update(matches)
    assert len(kinds) > 20  # each image has its own
    assert {flip for flip, _, _ in kinds} == {0, 1}


def test_padding_zero_only_mirrors(generator):
    x = torch.rand(64, 1, 4, 4, generator=generator)
    found = augment(x, generator, padding=0)
    same = (found == x).flatten(1).all(1)
    mirror = (found == x.flip(3)).flatten(1).all(1)
    assert (same | mirror).all()
    assert 10 < int(same.sum()) < 54


def test_turned_images_are_what_scipy_makes_of_the_same_draws(generator):
    x = torch.rand(16, 2, 9, 9, generator=generator, dtype=torch.float64)
    state = generator.get_state()
    found = data.turn(x, generator)
    generator.set_state(state)
    draws = torch.rand(4, 16, generator=generator, dtype=torch.float64) * 2 - 1
    mirrored = 0
    for image, ours, (turned, right, down, sign) in zip(x, found, draws.T, strict=True):
        angle, side = np.radians(10 * turned.item()), np.sign(sign.item())
        cos, sin = np.cos(angle), np.sin(angle)
        # scipy's axes are rows, columns; a fifth of 9 pixels is 1.8.
        matrix = np.array([[cos, side * sin], [-sin, side * cos]])
        offset = 4 - matrix @ [4, 4] + 1.8 * np.array([down.item(), right.item()])
        for plain, other in zip(image.numpy(), ours.numpy(), strict=True):
            expected = ndimage.affine_transform(
                plain, matrix, offset, order=1, mode="nearest"
            )
            np.testing.assert_allclose(other, expected, atol=1e-9)
        mirrored += side < 0
    assert 3 <= mirrored <= 13
