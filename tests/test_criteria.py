"""Revision 2 of the criteria: readable, met by some preset, passed by the papers."""

import math
import operator
from collections import defaultdict
from string import ascii_lowercase

import numpy as np
import pandas as pd
import pytest

from widemin import paths
from widemin.book import notebooks, verdicts
from widemin.experiments import provenance
from widemin.experiments.columns import as_column, as_row
from widemin.names import check, check_choice
from widemin.papers import claims
from widemin.papers.claims import Cells, criteria
from widemin.papers.claims.parts import KINDS, SEEDS, STATISTICS
from widemin.papers.claims.rows import shortfall
from widemin.papers.claims.words import printed

COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


NETWORKS = 12  # fewer decide no correlation
EQUAL = ("dataset", "model", "augment", "ramp", "fosc_bins")


def judgeable(path=paths.BOOK / "claims.csv"):
    """Return the parts in a file by claim, or raise with the name of one that lacks."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    letters = defaultdict(list)
    for row in table[table["revision"] == "2"].to_dict("records"):
        letters[row["id"]].append(row["part"])
        check_part(f"{row['id']}{row['part']}", row)
    names = list(table.loc[table["revision"] == "1", "id"])
    for name in letters:
        check_choice("claim", name, names)
    for name in names:
        listed = letters[name]
        check(listed, f"claim {name} must have parts", f"none in {path.name}")
        ordered = listed == list(ascii_lowercase[: len(listed)])
        check(ordered, f"parts of {name} must be a, b, ...", listed)
    return claims.parts(path)


def check_part(name, row):
    """Raise for a row of claims.csv that says no part as it can be judged."""
    statistic = row["statistic"]
    for column in ("statement", "criterion", "fixed", "statistic"):
        check(row[column], f"{name} must have a {column}", "none")
    check_choice(f"kind of {name}", row["kind"], KINDS)
    check_choice(f"statistic of {name}", statistic, STATISTICS)
    check_choice(f"compare of {name}", row["compare"], COMPARE)
    low, high, kind = (STATISTICS[statistic][k] for k in ("low", "high", "kind"))
    threshold = number(f"threshold of {name}", row["threshold"])
    ends = f"the range of {statistic}, {low:g} to {high:g}"
    inside = low <= threshold <= high
    check(inside, f"threshold of {name} must lie in {ends}", f"{threshold:g}")
    told = kind != "ranked" or row["untrained"].split(":")[0] in ("excluded", "counted")
    wanted = f"untrained of {name} must be 'excluded: ...' or 'counted'"
    check(told, wanted, repr(row["untrained"]))
    for column in ("given", "needs"):
        for each in filter(str.strip, row[column].split(";")):
            wanted = f"{column} of {name} must be written 'a=1; b=2'"
            check("=" in each, wanted, repr(row[column]))
    each = filter(str.strip, row["needs"].split(";"))
    needs = dict(pair.strip().split("=", 1) for pair in each)
    least = {"seed": SEEDS} | ({"networks": NETWORKS} if kind == "ranked" else {})
    enough = kind == "exact" or row["runs"] in claims.SIMULATED
    for key, count in least.items():
        enough |= number(f"needs of {name}, {key}", needs.get(key, "0")) >= count
    wanted = f"{SEEDS} seeds, or for {NETWORKS} networks of a correlation"
    check(enough, f"needs of {name} must ask for {wanted}", repr(row["needs"]))


def number(name, text):
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number; got {text!r}") from None


def lacking(part, recipes):
    """Say why planned runs cannot decide a part; "" where they can."""
    if part.runs in claims.SIMULATED:
        return ""
    chosen = [recipe for recipe in recipes if is_chosen(part, recipe)]
    if not chosen:
        return "no run is planned"
    table = pd.DataFrame(
        [as_row(r) | {"key": r.key, "method": r.method} for r in chosen]
    )
    table["images"] = table["test_size"]  # as rows call it
    needs = {k: v for k, v in part.needs.items() if k not in EQUAL}
    return shortfall(table, needs)


def is_chosen(part, recipe):
    """A recipe has the values that a part asks for."""

    def same(name, value):
        return str(as_column(getattr(recipe, name))) in (value, f"{value}.0")

    if not all(same(k, v) for k, v in part.needs.items() if k in EQUAL):
        return False
    for name in ("rho", "attack"):
        value = part.given.get(name)
        plain = getattr(recipe, name) in (0, None)
        if value is not None and "," not in value and not (plain or same(name, value)):
            return False
    return True


def met(parts):
    """Return the parts of all claims, whose needs some preset meets, or raise."""
    plans = {
        chapter[:2]: [notebooks.lists_of(chapter, name) for name in notebooks.presets()]
        for chapter in notebooks.chapters()
    }
    for claim in criteria().values():
        for part in parts[claim.id]:
            lacks = set()
            for lists in plans[verdicts.CHAPTER[claim.paper]]:
                runs = []
                if part.runs not in claims.SIMULATED:
                    runs = [
                        r for each in lists for r in notebooks.named(each, part.runs)
                    ]
                lacks.add(lacking(part, runs))
            if "" not in lacks:
                raise ValueError(
                    f"needs of {part.name} must be met by some preset; got "
                    f"{'; '.join(sorted(lacks))}"
                )
    return parts


@pytest.fixture(scope="module")
def lines():
    path = paths.BOOK / "claims.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_every_claim_has_both_revisions_and_its_parts_can_be_judged():
    found = met(judgeable())
    assert set(found) == set(criteria())
    assert sum(claim.paper != "ours" for claim in criteria().values()) == 55
    # A control of our own is no claim of a paper.
    ours = {
        name for name, parts in found.items() if {p.kind for p in parts} == {"control"}
    }
    assert ours == {"S9", "S11", "S12", "D13", "D14", "H13", "H14", "H15", "H16"}
    argued = {n for n, parts in found.items() if any(p.kind == "argued" for p in parts)}
    assert argued == {"W6", "W7", "W8", "W11"}


def broken(lines, tmp_path, name, **values):
    """Write the file with a part changed, or without it."""
    table = lines.copy()
    at = (table["revision"] == "2") & (table["id"] + table["part"] == name)
    if not at.any():
        at = (table["revision"] == "2") & (table["id"] == name)
        table = table[~at]
    for column, value in values.items():
        table.loc[at, column] = value
    path = tmp_path / "claims.csv"
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("D11", {}, "claim D11 must have parts; got none in claims.csv"),
        ("W1a", {"statistic": ""}, "W1a must have a statistic; got none"),
        ("W1a", {"statistic": "spearmen"}, "statistic of W1a 'spearmen' .did you mean"),
        (
            "W1a",
            {"threshold": "1.2"},
            "threshold of W1a must lie in .* -1 to 1; got 1.2",
        ),
        ("W2a", {"threshold": "80"}, "threshold of W2a must lie in .* 0 to 1; got 80"),
        ("W2a", {"threshold": "nan"}, "threshold of W2a must lie in"),
        ("W2a", {"threshold": "most"}, "threshold of W2a must be a number; got 'most'"),
        ("W2a", {"compare": "="}, "unknown compare of W2a '='"),
        ("W2a", {"kind": "paper"}, "unknown kind of W2a 'paper'"),
        ("W2a", {"part": "z"}, r"parts of W2 must be a, b, ...; got \['z', 'b'\]"),
        ("W2a", {"criterion": ""}, "W2a must have a criterion; got none"),
        (
            "W2a",
            {"needs": "dataset=mnist; seed=2"},
            "needs of W2a must ask for 3 seeds",
        ),
        (
            "W6a",
            {"needs": "networks=11"},
            "needs of W6a must ask for 3 seeds, or for 12",
        ),
        (
            "W2a",
            {"needs": "seeds"},
            "needs of W2a must be written 'a=1; b=2'; got 'seeds'",
        ),
        (
            "H4a",
            {"untrained": ""},
            "untrained of H4a must be 'excluded: ...' or 'counted'",
        ),
    ],
)
def test_a_part_that_cannot_be_judged_is_named(lines, tmp_path, name, change, message):
    with pytest.raises(ValueError, match=message):
        judgeable(broken(lines, tmp_path, name, **change))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("W2a", {"needs": "dataset=mnist; seed=6"}, "needs of W2a must be met by some"),
        ("W2a", {"needs": "dataset=svhn; seed=3"}, "W2a .*no run is planned"),
        ("W2a", {"runs": "decisiv"}, "unknown runs 'decisiv' .did you mean 'decisive'"),
        (
            "H1a",
            {"needs": "dataset=mnist; batch_size=9; seed=3"},
            "it takes 9 batch sizes",
        ),
    ],
)
def test_needs_that_no_preset_meets_are_named(lines, tmp_path, name, change, message):
    there = claims.parts(broken(lines, tmp_path, name, **change))
    with pytest.raises(ValueError, match=message):
        met(there)


def test_one_seed_of_the_softer_sets_could_never_decide_s5():
    """As the plan once had it: sets beyond the first two with one seed."""
    [part] = [p for p in claims.parts()["S5"] if p.given.get("attack") == "linf 1/255"][
        1:
    ]
    [values, _] = notebooks.settings(["02_sam_and_adversarial_training"], "paper")[
        "02_sam_and_adversarial_training"
    ]
    lists = notebooks.lists_of("02_sam_and_adversarial_training", "paper")[0]
    runs = lists["table_recipes"]
    assert values["table_seeds"] == (3, 3, 3) and lacking(part, runs) == ""
    once = [run for run in runs if str(run.attack) != "linf 1/255" or run.seed == 0]
    assert lacking(part, once) == "it takes 3 seeds of every cell; there are 1"


def test_the_papers_own_numbers_pass():
    """A criterion that the paper's table fails would say nothing of a repetition."""
    seen = {}
    for parts in claims.parts().values():
        for part in parts:
            if (value := printed(part)) is not None:
                seen[part.name] = COMPARE[part.compare](value, part.threshold)
    # Statements that their own tables contradict are controls, no claims.
    lost = {name for name, passed in seen.items() if not passed}
    assert lost == {"W3b", "D8k", "D9c"}
    kinds = {p.name: p.kind for parts in claims.parts().values() for p in parts}
    assert {kinds[name] for name in lost} == {"control"}
    tables = {name.rstrip("abcdefghijklmnopqrstuvwxyz") for name in seen}
    assert tables == {
        *("W1", "W2", "W3", "W4", "W5", "W9", "W10", "W13"),
        *("S1", "S2", "S3", "S4", "S5", "S6", "S7", "D7", "D8", "D9", "D10"),
    }
    assert len(seen) > 100


def arms(one, other, *about):
    """Cells of two arms, a seed a row; `about` says where each was computed."""
    rows = [
        pd.DataFrame({"seed": range(len(values)), "arm": i, "a": values}).assign(**at)
        for i, (values, at) in enumerate(zip((one, other), about, strict=True))
    ]
    cells = Cells(pd.concat(rows), ["arm"], ["a"])
    return cells.of("a", arm=0) - cells.of("a", arm=1)


def test_seeds_are_paired_inside_one_block_only():
    here = dict.fromkeys(provenance.BLOCK, "here")
    there = here | {"hardware": "there"}
    one, other = [0.5, 0.7, 0.9], [0.4, 0.6, 0.8]
    paired = arms(one, other, here, here)
    assert paired == pytest.approx(0.1)  # every draw: the same seeds in both arms
    # Another processor, or rows that say less: draws with the spreads of both arms.
    wide = math.sqrt(2 * 0.2**2 * (2 / 3) / 3)
    for at in (there, {"hardware": "here"}, {}):
        apart = arms(one, other, here, at)
        assert apart[0] == pytest.approx(0.1)
        assert np.std(apart[1:]) == pytest.approx(wide, rel=0.05)
    # One seed of three on another processor is enough to unpair.
    mixed = here | {"hardware": ["here", "here", "there"]}
    assert np.std(arms(one, other, here, mixed)[1:]) == pytest.approx(wide, rel=0.05)
    # Of one cell all rows of a seed that is drawn count.
    rows = pd.DataFrame({"seed": [0, 0, 1, 1], "cell": 0, "a": [0.0, 1.0, 0.2, 0.8]})
    for rows_first in (rows, rows[::-1]):
        found = Cells(rows_first.assign(**here), ["cell"], ["a"])["a"]
        assert found == pytest.approx(np.full(found.shape, 0.5))
    # A seed that one arm lacks is drawn in the other alone.
    more = arms(one, [*other, 1.0], here, here)
    assert more[0] == pytest.approx(0.0) and np.nanstd(more[1:]) > 0.01
