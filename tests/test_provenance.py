"""A row names the commit of the project's own repository, or none."""

import os
import subprocess
from types import SimpleNamespace

import pytest
import torch

import widemin
from widemin import paths
from widemin.experiments import provenance, results

OURS = '[project]\nname = "widemin"\n'


@pytest.fixture
def source(monkeypatch):
    """Return the `source` of rows computed by the package in a folder."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def source(root):
        monkeypatch.setattr(paths, "ROOT", root)
        return provenance.source.__wrapped__()

    return source


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    who += ["-c", "protocol.file.allow=always"]
    call = ["git", *who, *words]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(folder, **files):
    """Make a repository of its own with these files; return its commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
        git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", str(folder))
    return git(folder, "describe", "--always")


def test_a_checkout_names_its_commit(tmp_path, source, monkeypatch):
    """Also from a hook of another repository, which says so in the environment."""
    commit = repository(tmp_path / "ours", pyproject_toml=OURS)
    assert source(tmp_path / "ours") == f"{widemin.__version__}+{commit}"
    repository(tmp_path / "theirs")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "theirs" / ".git" / "index"))
    assert source(tmp_path / "ours") == f"{widemin.__version__}+{commit}"
    (tmp_path / "ours" / "pyproject.toml").write_text(f"{OURS}#")
    assert source(tmp_path / "ours") == f"{widemin.__version__}+{commit}-dirty"


def test_a_submodule_and_a_second_work_tree_name_the_projects_commit(tmp_path, source):
    commit = repository(tmp_path / "ours", pyproject_toml=OURS)
    repository(tmp_path / "course")
    git(tmp_path / "course", "submodule", "add", "-q", tmp_path / "ours", "widemin")
    git(tmp_path / "ours", "worktree", "add", "-q", tmp_path / "second")
    for root in (tmp_path / "course" / "widemin", tmp_path / "second"):
        assert source(root) == f"{widemin.__version__}+{commit}"


def test_another_repository_is_never_named(tmp_path, source):
    theirs = tmp_path / "course"
    repository(theirs, pyproject_toml='[project]\nname = "course"\n')
    copy, installed = theirs / "material" / "widemin", theirs / ".venv" / "packages"
    for folder in (copy, installed):
        folder.mkdir(parents=True)
    (copy / "pyproject.toml").write_text(OURS)  # unpacked, without .git
    git(theirs, "add", "-A")
    git(theirs, "commit", "-q", "-m", "material")
    notes = tmp_path / "unpacked"
    repository(notes, notes_md="of my own")
    (notes / "pyproject.toml").write_text(OURS)
    for root in (copy, installed, theirs, notes):  # theirs: the package alone laid in
        assert source(root) == widemin.__version__
        assert provenance.last_changed.__wrapped__(root / "pyproject.toml") == {}


def test_without_git_the_version_stands_alone(tmp_path, source, monkeypatch):
    repository(tmp_path / "ours", pyproject_toml=OURS)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source(tmp_path / "ours") == widemin.__version__


def test_the_block_of_a_published_row_is_that_of_its_run():
    """Numbers of threads are text there too, or a row would never meet its block."""
    rows = [rows[-1] for rows in results.published().values() if "threads" in rows[-1]]
    assert rows and {row["threads"] for row in rows} <= {str(n) for n in range(1, 257)}
    assert all(provenance.block(row) for row in rows)


@pytest.mark.parametrize(
    ("convolutions", "products", "precision"),
    [
        (False, False, "float32"),
        (True, False, "float32, TF32 in convolutions"),
        (True, True, "float32, TF32 in convolutions and matrix products"),
    ],
)
def test_rows_of_a_gpu_say_where_tf32_is_allowed(
    monkeypatch, convolutions, products, precision
):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", convolutions)
    matmul = SimpleNamespace(allow_tf32=products)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    row = provenance.provenance("cuda")
    assert (row["hardware"], row["precision"]) == ("a GPU", precision)
    assert row["flags"] == "compute capability 9.0"
