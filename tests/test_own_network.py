"""The page "Use it on your own network", pasted line by line."""

import code
import contextlib
import importlib.util
import io
import re
import warnings
from importlib import metadata

import pytest
import torch

from widemin import paths

PAGE = (paths.BOOK / "own_network.md").read_text(encoding="utf-8")
# A block, what it needs beyond the package's own requirements, what it prints.
BLOCK = r"(?:^% needs (\w+)\n)?^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?"
BLOCKS = re.findall(BLOCK, PAGE, re.DOTALL | re.MULTILINE)
PEERS = {"torchattacks": "torchattacks", "foolbox": "foolbox", "pyhessian": "PyHessian"}


def there(need):
    """Return True for what this machine has of what a block needs."""
    if need == "cuda":
        return torch.cuda.is_available()
    return not need or importlib.util.find_spec(need) is not None


class Session(code.InteractiveConsole):
    """A Python session into which text is pasted; an error is raised."""

    def showtraceback(self):
        raise

    def showsyntaxerror(self, *_, **__):
        raise

    def paste(self, text):
        """Paste lines, and an empty one; return what was printed."""
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard):
            waiting = [self.push(line) for line in [*text.splitlines(), ""]][-1]
        assert not waiting, text
        return heard.getvalue()


@pytest.fixture(scope="module")
def pasted():
    """What each block printed, and what it named, by its place on the page."""
    session, found = Session({}), {}
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # the peers' own
        for i, (need, text, _) in enumerate(BLOCKS):
            if there(need):
                before = session.locals.copy()
                said = session.paste(text)
                new = session.locals.items()
                found[i] = said, {k: v for k, v in new if v is not before.get(k)}
    return found


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+\.\d+", text)]


def test_every_block_is_pasted_but_those_that_say_what_they_need(pasted):
    needs = {need for need, _, _ in BLOCKS}
    assert needs == {"", "cuda", *PEERS}
    missing = {need for need in needs if not there(need)}
    assert len(pasted) == sum(need not in missing for need, _, _ in BLOCKS)
    assert len([1 for need, _, _ in BLOCKS if not need]) >= 15


def test_what_the_page_shows_is_what_is_printed(pasted):
    shown = [i for i, (_, _, out) in enumerate(BLOCKS) if out]
    assert len(shown) == 2
    for i in shown:
        printed = pasted[i][0].splitlines()
        # AutoAttack is run where it is installed; the page shows what all have.
        printed = [line for line in printed if not line.startswith("AutoAttack")]
        wanted = BLOCKS[i][2].splitlines()
        assert len(printed) == len(wanted)
        for one, other in zip(printed, wanted, strict=True):
            assert numbers(one) == pytest.approx(numbers(other), abs=0.04), other
            words = (re.sub(r"[\d. -]+", " ", line) for line in (one, other))
            assert next(words) == next(words)


def named(pasted, name):
    """Return the names that blocks call, by what they need."""
    found = {}
    for i, (_, names) in pasted.items():
        if name in names:
            found[BLOCKS[i][0] or "ours"] = names[name]
    return found


@pytest.mark.parametrize(
    ("name", "peers", "tolerance"),
    [
        ("accuracy", {"torchattacks", "foolbox"}, {"abs": 0.03}),
        ("worst", {"torchattacks"}, {"abs": 0.03}),
        ("distance", {"foolbox"}, {"rel": 0.05}),
        ("eigenvalue", {"pyhessian"}, {"rel": 0.02}),
    ],
)
def test_libraries_agree(pasted, name, peers, tolerance):
    found = named(pasted, name)
    ours = found.pop("ours")
    assert set(found) == {peer for peer in peers if there(peer)}
    assert 0 < ours < 10
    for peer, value in found.items():
        assert value == pytest.approx(ours, **tolerance), peer


def test_the_two_steps_of_sam_are_one():
    [ours] = [text for _, text, _ in BLOCKS if "rho=0.05" in text]
    [alone] = [text for _, text, _ in BLOCKS if "_foreach_copy_" in text]
    ends = []
    for text in (ours, alone):
        session = Session({})
        session.paste(BLOCKS[0][1])
        before = [w.detach().clone() for w in session.locals["model"].parameters()]
        session.paste(text)
        after = session.locals["model"].parameters()
        ends.append([b - a for a, b in zip(before, after, strict=True)])
    assert max(float(step.detach().abs().max()) for step in ends[0]) > 1e-3
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_versions_of_peers_are_those_installed():
    for module, name in PEERS.items():
        version = re.search(rf"{name} (\d[\d.]*\d)", PAGE)[1]
        with contextlib.suppress(metadata.PackageNotFoundError):
            assert metadata.version(name) == version, module
