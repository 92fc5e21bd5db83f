"""The tree keeps its promises: layers, lock, environment, sizes, one truth each."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sphinx.pycode import ModuleAnalyzer

from widemin import paths

ROOT = paths.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What conda calls by another name.
CONDA = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
# From the bottom storey up; a module imports from lower storeys and from its own.
# Within the core, from lower rows or from its own package alone.
STOREYS = ["core", "experiments", "papers", "book", "cli"]
CORE = [
    {"paths", "names", "__init__"},
    {"data", "statistics", "seeding"},
    {"models"},
    {"attacks"},
    {"batches"},
    {"training", "hessian", "landscape"},
    {"evaluation"},
]
# Of papers, what reads tables alone: it is there in a blink.
NO_TORCH = {"papers", "statistics", "paths", "names"}


def modules():
    for path in sorted((ROOT / "widemin").rglob("*.py")):
        name = path.relative_to(ROOT / "widemin").with_suffix("").parts[0]
        if name != "__main__":
            yield name, path


def imports(path, everywhere):
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "widemin":
                yield from (f"widemin.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def storey(name):
    return STOREYS.index(name) if name in STOREYS else 0


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda v: str(v)[-24:])
def test_modules_import_only_what_lies_below(name, path):
    row = next((i for i, names in enumerate(CORE) if name in names), None)
    assert (row is None) == (storey(name) > 0), f"{name} has no place in the house"
    for imported in imports(path, everywhere=True):
        parts = imported.split(".")
        if parts[0] == "widemin" and len(parts) > 1:
            assert storey(parts[1]) <= storey(name), imported
            if row is not None:
                assert parts[1] in {name}.union(*CORE[:row]), imported
        if name in NO_TORCH:
            assert parts[0] != "torch", path


def required(*names):
    lines = list(PROJECT["project"]["dependencies"])
    extras = PROJECT["project"]["optional-dependencies"]
    for name in names:
        lines += (extras | PROJECT["dependency-groups"])[name]
    found = map(Requirement, lines)
    return {canonicalize_name(r.name): r.specifier for r in found}


def test_environment_yml_is_in_step():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [pip] = [item["pip"] for item in content if isinstance(item, dict)]
    lines = [item for item in content if isinstance(item, str)] + pip
    there = {}
    for line in lines:
        if line in ("pip", "-e ."):
            continue
        name, _, specifier = line.partition(" ")
        there[canonicalize_name(CONDA.get(name, name))] = specifier
    assert there.pop("python") == PROJECT["project"]["requires-python"]
    wanted = {name: str(spec) for name, spec in required("experiments", "book").items()}
    assert set(there) == set(wanted)
    for name, specifier in wanted.items():
        assert sorted(there[name].split(",")) == sorted(specifier.split(",")), name


def locked():
    text = (ROOT / "requirements.lock").read_text()
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_the_lock_holds_every_group_pinned_and_hashed_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "index-url" not in text
    pins = locked()
    extras = PROJECT["project"]["optional-dependencies"]
    for name, specifier in required(*extras, "dev").items():
        assert specifier.contains(pins[name]), name
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert all("--hash=sha256:" in block for block in blocks)


def test_this_environment_is_the_locks():
    from importlib.metadata import version

    for name in ("torch", "click", "jupyter-book", "papermill", "pandas"):
        if version(name).split("+")[0] != locked()[name]:
            pytest.skip(f"another environment: {name} {version(name)}")


def tracked():
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


def test_no_large_file_is_tracked():
    for path in tracked():
        if path.exists():
            assert path.stat().st_size <= 2**20, path


def test_the_top_level_is_what_the_house_says():
    allowed = {"book", "notebooks", "widemin", "tests", "environment.yml"}
    allowed |= {"_config.yml", "README.md", "pyproject.toml", "requirements.lock"}
    allowed |= {"Makefile", "LICENSE", "CITATION.cff", "CHANGELOG.md"}
    allowed |= {"CONTRIBUTING.md", "conftest.py"}
    top = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in top if not name.startswith(".")} <= allowed


def test_versions_agree():
    import widemin

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == widemin.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {widemin.__version__}" in changelog


def test_the_readme_and_ci_name_the_same_commands():
    readme = (ROOT / "README.md").read_text()
    ci = (ROOT / ".ci" / "run").read_text()
    for command in ("make book", "make test"):
        assert command in readme and command in ci
    workflows = (ROOT / ".github" / "workflows").glob("*.yml")
    steps = [
        step.get("run", "")
        for path in workflows
        for job in yaml.safe_load(path.read_text())["jobs"].values()
        for step in job["steps"]
    ]
    steps = [step.removesuffix(" TORCH=cpu") for step in steps]
    assert {"make test", "make book", "make labs", "make site"} <= {*steps}
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = re.findall(r"^ *make ([a-z]+)|`make ([a-z]+)`", readme, re.MULTILINE)
    named = {name for pair in named for name in pair if name}
    assert len(named) > 5 and named <= targets
    assert {step.split()[1] for step in steps if step.startswith("make ")} <= targets


INSTRUMENTS = ["attacks", "batches", "data", "evaluation", "hessian", "landscape"]
INSTRUMENTS += ["landscape.implicit_perturbation", "models", "seeding", "statistics"]
INSTRUMENTS += ["training"]
INSTRUMENTS += [f"papers.{name}.theory" for name in ("khritankov", "wang", "wei")]


def public(name):
    """Return a module's own public functions and classes."""
    module = importlib.import_module(f"widemin.{name}")
    names = getattr(module, "__all__", [n for n in vars(module) if n[0] != "_"])
    found = [getattr(module, n) for n in names]
    found = [f for f in found if inspect.isfunction(f) or inspect.isclass(f)]
    return [f for f in found if f.__module__.startswith(module.__name__)]


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_public_function_of_an_instrument_has_an_example(name):
    """So has every class; a record without one says of each field what it is."""
    assert public(name)
    for one in public(name):
        if inspect.isclass(one) and issubclass(one, Exception):
            continue
        fields = getattr(one, "__annotations__", {}) if inspect.isclass(one) else {}
        said = ModuleAnalyzer.for_module(one.__module__).find_attr_docs()
        told = bool(fields) and all((one.__name__, f) in said for f in fields)
        assert told or ">>>" in (inspect.getdoc(one) or ""), one.__name__


def test_a_file_fits_its_room():
    """What has outgrown it is split; the longest of today is the most there may be."""
    for path in (ROOT / "widemin").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


# What grows has to delete. A new chapter may raise the package's by what it needs, with
# the reason here.
# Chapter 5 and its instruments took 1,200; a front page of computed findings, drawings
# for phones and a PDF with contents 40.
CORE_LINES, LINES = 4_200, 15_340


def test_the_house_is_thin():
    lines = {path: len(path.read_text().splitlines()) for _, path in modules()}
    core = {path for name, path in modules() if storey(name) == 0}
    assert sum(lines[path] for path in core) <= CORE_LINES
    assert sum(lines.values()) <= LINES


def test_the_core_needs_torch_numpy_and_scipy_alone():
    assert set(required()) == {"torch", "numpy", "scipy"}
    peers = {"torch", "numpy", "scipy", "widemin", *sys.stdlib_module_names}
    for name, path in modules():
        if storey(name) == 0:
            tops = {imported.partition(".")[0] for imported in imports(path, False)}
            assert tops <= peers, path


def test_importing_attacks_brings_no_table_command_or_notebook():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import widemin.attacks"],
        capture_output=True,
        text=True,
        check=True,
    )
    named = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in named and "widemin.attacks.pgd" in named
    assert not named & {"pandas", "click", "papermill", "matplotlib", "torchvision"}
