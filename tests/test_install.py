"""What `make` installs: all of the lock, or all of it that CUDA does not need."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from widemin import paths

ROOT = paths.ROOT
LOCKED = r"^([a-z0-9-]+)==(\S+)"


def dry_run(folder, *words):
    """What make would do where there is no .venv; no word of it is run."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    call = ["make", "-n", *words, f"PYTHON={sys.executable}"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(call, cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def locked(text):
    return dict(re.findall(LOCKED, text, re.MULTILINE))


def without_cuda(folder):
    """The part of the lock that TORCH=cpu installs, chosen by make's own line."""
    [line] = re.findall(
        r"sed -E .*requirements\.lock(?= >)", dry_run(folder, "book", "TORCH=cpu")
    )
    return subprocess.check_output(["sh", "-c", line], cwd=folder, text=True)


def test_cuda_is_the_default_and_cpu_the_only_other(tmp_path):
    said = dry_run(tmp_path, "book")
    assert "$uv pip sync" in said and "--torch-backend" not in said
    refused = subprocess.run(
        ["make", "-n", "book", "TORCH=rocm"], cwd=tmp_path, capture_output=True
    )
    assert refused.returncode == 2
    assert b"TORCH must be cpu or nothing; got rocm" in refused.stderr


def test_what_only_cuda_needs_is_left_out_and_nothing_else(tmp_path):
    whole = locked((ROOT / "requirements.lock").read_text())
    kept = without_cuda(tmp_path)
    assert locked(kept).items() <= whole.items()
    gone = whole.keys() - locked(kept).keys()
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu13"} <= gone
    # Each line of a hash that is left belongs to a package that is left.
    blocks = re.split(r"(?m)^(?=[a-z0-9-]+==)", kept)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)
    # Nothing that is kept and installed here asks for what is left out but by torch.
    for name in locked(kept):
        try:
            wanted = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:  # of another platform or group
            continue
        asked = {
            canonicalize_name(one.name)
            for one in wanted
            if one.marker is None or one.marker.evaluate({"extra": ""})
        }
        assert not asked & (gone - {"torch", "torchvision"}), name
    assert gone - {"torch", "torchvision"} <= cuda_closure()


def cuda_closure():
    """All that the installed torch asks for, and what that asks for."""
    waiting, found = ["torch"], set()
    while waiting:
        name = waiting.pop()
        extras = {""}
        if "[" in name:
            name, _, rest = name.partition("[")
            extras |= set(rest.strip("]").split(","))
        try:
            wanted = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue
        for one in wanted:
            marker = one.marker
            if marker and not any(marker.evaluate({"extra": e}) for e in extras):
                continue
            word = canonicalize_name(one.name)
            full = f"{word}[{','.join(one.extras)}]" if one.extras else word
            if full not in found:
                found |= {full, word}
                waiting.append(full)
    if "triton" not in found:
        pytest.skip("this torch was built without CUDA")
    return found


def wheel(folder, name, version):
    """Write a wheel of one line."""
    home = f"{name}-{version}.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {f"{name}.py": f"version = {version!r}\n"}
    files |= {f"{home}/METADATA": about, f"{home}/WHEEL": kind}
    files[f"{home}/RECORD"] = "".join(f"{file},,\n" for file in files)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)


def test_the_cpu_wheels_of_the_locked_versions_are_installed(tmp_path):
    """The line that make runs, against a folder of wheels in place of an index."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".venv" / "bin"))
    assert uv
    said = dry_run(tmp_path, "book", "TORCH=cpu")
    [line] = re.findall(r"\$uv (pip install .*--torch-backend cpu .*);", said)
    (tmp_path / "cpu.lock").write_text("")
    whole = locked((ROOT / "requirements.lock").read_text())
    for name in ("torch", "torchvision"):
        wheel(tmp_path, name, f"{whole[name]}+cpu")
    home = tmp_path / "venv"
    offline = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(tmp_path)}
    environment = os.environ | offline | {"VIRTUAL_ENV": str(home)}
    run = {"env": environment, "cwd": tmp_path, "check": True}
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, home], **run)
    subprocess.run([uv, *line.replace("$lock", "cpu.lock").split()], **run)
    for name in ("torch", "torchvision"):
        code = f"import {name}; print({name}.version)"
        found = subprocess.check_output(
            [home / "bin" / "python", "-c", code], text=True
        )
        assert found.strip() == f"{whole[name]}+cpu"


def test_without_a_network_one_line_says_so(tmp_path):
    dry_run(tmp_path, "book")
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin" / "uv"
    uv.write_text('#!/bin/sh\ntest "$1" = venv && exec mkdir -p .venv/bin\nexit 2\n')
    uv.chmod(0o755)
    path = f"{uv.parent}{os.pathsep}{os.environ['PATH']}"
    call = ["make", ".venv/.ready", f"PYTHON={sys.executable}"]
    done = subprocess.run(
        call,
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    [said] = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert said.startswith("Packages could not be had (is there a network?)")
    assert not (tmp_path / ".venv" / ".ready").exists()  # so that a later call goes on


@pytest.mark.parametrize("torch", ["", "cpu"])
@pytest.mark.parametrize("moved", [False, True])
def test_a_moved_environment_is_made_anew(moved, torch, tmp_path):
    """Whichever torch it has; one that stayed where it was made is kept."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(paths.ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".torch").write_text(torch)
    made_at = tmp_path / "elsewhere" if moved else tmp_path
    (tmp_path / ".venv" / ".ready").write_text(f"{made_at.resolve()}\n")
    call = ["make", "-n", "test", f"TORCH={torch}"]
    said = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True).stdout
    assert ("rm -rf .venv" in said) == moved
