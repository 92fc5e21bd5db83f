"""Revision 2 of the criteria: readable, met by some preset, passed by the papers."""

import math
import operator

import pandas as pd
import pytest

from widemin import paths
from widemin.book import notebooks, verdicts
from widemin.experiments import provenance
from widemin.papers import claims
from widemin.papers.claims import criteria, difference, paper_table
from widemin.statistics import spearman

COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
COLUMNS = {
    "linf 1/255": "linf_1_255",
    "linf 2/255": "linf_2_255",
    "l2 16/255": "l2_16_255",
    "l2 32/255": "l2_32_255",
}


@pytest.fixture(scope="module")
def lines():
    path = paths.BOOK / "claims.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_every_claim_has_both_revisions_and_its_parts_can_be_judged():
    found = verdicts.parts()
    assert set(found) == set(criteria()) and len(found) == 55
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
        claims.parts(broken(lines, tmp_path, name, **change))


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
def test_needs_that_no_preset_meets_are_named(
    lines, tmp_path, monkeypatch, name, change, message
):
    path = broken(lines, tmp_path, name, **change)
    there = claims.parts(path)
    monkeypatch.setattr(claims, "parts", lambda: there)
    with pytest.raises(ValueError, match=message):
        verdicts.parts()


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
    assert values["table_seeds"] == (3, 3, 3) and claims.lacking(part, runs) == ""
    once = [run for run in runs if str(run.attack) != "linf 1/255" or run.seed == 0]
    assert claims.lacking(part, once) == "it takes 3 seeds; there are 1"


def printed(part):
    """The statistic of a part, computed from the paper's own table, as a fraction."""
    wide, given = paper_table("wide_minima_table2"), part.given
    wide = wide.assign(ratio=wide["learning_rate"] / wide["batch_size"])
    learnt = wide[wide["acc_mean"] > 95]
    best = wide.loc[wide["adv_acc_mean"].idxmax()]
    corner = wide[
        wide[["batch_size", "learning_rate"]]
        .apply(tuple, axis=1)
        .isin([(128, 0.003), (128, 0.006), (64, 0.003)])
    ]
    within = learnt[learnt["ratio"].between(0.004, 0.008)]["epoch_mean"].mean() / 120
    if part.name == "W1a":
        return spearman(learnt["ratio"], learnt["adv_acc_mean"])
    if part.name == "W1b":
        alone = [
            abs(spearman(learnt[name], learnt["adv_acc_mean"]))
            for name in ("learning_rate", "batch_size")
        ]
        return spearman(learnt["ratio"], learnt["adv_acc_mean"]) - max(alone)
    if part.claim in ("W2", "W13") and part.kind == "printed":
        return best["adv_acc_mean"] / 100
    if part.claim == "W3":
        return (wide["acc_mean"].max() - best["acc_mean"]) / 100
    if part.name in ("W4a", "W4b"):
        return within
    if part.name == "W4c":
        low = learnt[learnt["ratio"] <= 0.002]["epoch_mean"].mean() / 120
        return within - low
    if part.name == "W5b":
        boundary = {
            size: max(rows.loc[rows["acc_mean"] >= 50, "learning_rate"])
            for size, rows in wide.groupby("batch_size")
        }
        return spearman(list(boundary), list(boundary.values()))
    if part.name == "W9a":
        return abs(corner["adv_acc_mean"] - 17).mean() / 100
    if part.name == "W9b":
        return corner["epoch_mean"].mean()
    if part.claim in ("S1", "S2", "S3", "S4", "S5", "S6") and part.kind == "printed":
        return of_wei(part)
    if part.claim in ("D7", "D8", "D9", "D10"):
        return of_wang(part, given)
    return None


def of_wei(part):
    hundred = part.needs["dataset"] == "cifar100"
    table = paper_table("sam_table1_cifar100" if hundred else "sam_table2_cifar10")
    kind = table["method"].str.slice(0, 2)
    base = table[kind == "ST"].iloc[0]
    sam = table[kind == "SA"].set_index("strength")
    trained = table[kind == "AT"]
    names = trained["method"].str.removeprefix("AT-").str.lower()
    trained = trained.set_index(names + " " + trained["strength"])
    column = COLUMNS.get(part.given.get("test"), "natural")
    if part.claim in ("S1", "S2"):
        return (sam.loc[part.given["rho"], column] - base[column]) / 100
    if part.claim == "S3":
        return spearman([0, 1, 2, 3], [base[column], *sam[column]])
    if part.claim == "S4":
        robust = list(COLUMNS.values())
        return (sam.loc["0.4", robust] - base[robust]).astype(float).mean() / 100
    if part.claim == "S5" and "attack" in part.given:
        return (trained.loc[part.given["attack"], "natural"] - base["natural"]) / 100
    if part.claim == "S5":
        rows = trained[trained.index.str.startswith(part.given["norm"])]
        return spearman([1, 2, 3, 4], rows["natural"])
    return (trained[column].mean() - sam.loc["0.4", column]) / 100


def of_wang(part, given):
    wide = part.needs.get("model") == "wideresnet"
    number = 3 if wide else 2 if part.claim == "D10" else 1
    table = paper_table(f"dynamic_table{number}")
    if not wide:
        table = table[table["dataset"] == part.needs["dataset"]]
    rows = table.set_index("defense").rename(index={"madry": "standard"})
    way = given.get("attack_name", "clean")
    column = {"cw": "cw_inf"}.get(way, way)
    if part.claim == "D10":
        other = rows.loc[["standard", "curriculum"], column].max()
    else:
        other = rows.loc["curriculum" if part.claim == "D8" else "standard", column]
    return (rows.loc["dynamic", column] - other) / 100


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
        *("W1", "W2", "W3", "W4", "W5", "W9", "W13"),
        *("S1", "S2", "S3", "S4", "S5", "S6", "D7", "D8", "D9", "D10"),
    }
    assert len(seen) > 100


def arm(values, **about):
    return pd.DataFrame({"seed": range(len(values)), "a": values}).assign(**about)


def test_seeds_are_paired_inside_one_block_only():
    here = dict.fromkeys(provenance.BLOCK, "here")
    there = here | {"hardware": "there"}
    one, other = [0.5, 0.7, 0.9], [0.4, 0.6, 0.8]
    mean, error, paired = difference(arm(one, **here), arm(other, **here), "a")
    assert (round(mean, 12), round(error, 12), paired) == (0.1, 0.0, True)
    # Another processor, or rows that say less: means with the spreads of both arms.
    wide = math.sqrt(2 * 0.2**2 / 3)
    for others in (there, {"hardware": "here"}, {}):
        mean, error, paired = difference(arm(one, **here), arm(other, **others), "a")
        assert (round(mean, 12), round(error, 12)) == (0.1, round(wide, 12))
        assert not paired
    # One seed of three on another processor is enough to unpair.
    mixed = pd.concat([arm(other, **here)[:2], arm(other, **there)[2:]])
    assert not difference(arm(one, **here), mixed, "a")[2]
    # Unpaired, every seed counts; paired, those of both arms.
    more = arm([0.4, 0.6, 0.8, 1.0], **here)
    assert difference(arm(one, **here), more, "a")[2]
    assert difference(arm(one, **here), more, "a")[0] == pytest.approx(0.1)
    assert difference(arm(one, **there), more, "a")[0] == pytest.approx(0.0)
    assert math.isnan(difference(arm([0.5]), arm([0.4]), "a")[1])
