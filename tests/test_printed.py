"""book/results/papers/printed.csv, anew from the papers' own tables."""

import pandas as pd
import pytest

from widemin import paths
from widemin.papers import claims
from widemin.papers.claims import paper_table
from widemin.statistics import spearman

_COLUMNS = {
    "linf 1/255": "linf_1_255",
    "linf 2/255": "linf_2_255",
    "l2 16/255": "l2_16_255",
    "l2 32/255": "l2_32_255",
}


def _of_khritankov(part):
    """Return what table 2 of Khritankov et al. says of a part."""
    if part.claim not in ("W1", "W2", "W3", "W4", "W5", "W9", "W13"):
        return None
    wide = paper_table("wide_minima_table2")
    wide = wide.assign(ratio=wide["learning_rate"] / wide["batch_size"])
    learnt = wide[wide["acc_mean"] > 95]
    best = wide.loc[wide["adv_acc_mean"].idxmax()]
    share = learnt["epoch_mean"] / 120
    late = share[learnt["ratio"].between(0.004, 0.008)].mean()
    cells = list(zip(wide["batch_size"], wide["learning_rate"], strict=True))
    corner = wide[[c in ((128, 0.003), (128, 0.006), (64, 0.003)) for c in cells]]

    def rank(name):
        return spearman(learnt[name], learnt["adv_acc_mean"])

    rates = wide[wide["acc_mean"] >= 50].groupby("batch_size")["learning_rate"].max()
    alone = max(abs(rank(name)) for name in ("learning_rate", "batch_size"))
    return {
        "W1a": rank("ratio"),
        "W1b": rank("ratio") - alone,
        **dict.fromkeys(("W2a", "W2b", "W13a", "W13b"), best["adv_acc_mean"] / 100),
        **dict.fromkeys(
            ("W3a", "W3b"), (wide["acc_mean"].max() - best["acc_mean"]) / 100
        ),
        "W4a": late,
        "W4b": late,
        "W4c": late - share[learnt["ratio"] <= 0.002].mean(),
        "W5b": spearman(list(rates.index), rates),
        "W9a": abs(corner["adv_acc_mean"] - 17).mean() / 100,
        "W9b": corner["epoch_mean"].mean(),
    }.get(part.name)


def _of_wei(part):
    """Return what tables 1 and 2 of Wei et al. say of a part."""
    if part.kind != "printed" or part.claim not in ("S1", "S2", "S3", "S4", "S5", "S6"):
        return None
    hundred = part.needs["dataset"] == "cifar100"
    table = paper_table("sam_table1_cifar100" if hundred else "sam_table2_cifar10")
    kind = table["method"].str.slice(0, 2)
    base = table[kind == "ST"].iloc[0]
    sam = table[kind == "SA"].set_index("strength")
    trained = table[kind == "AT"]
    names = trained["method"].str.removeprefix("AT-").str.lower()
    trained = trained.set_index(names + " " + trained["strength"])
    column = _COLUMNS.get(part.given.get("test", ""), "natural")
    if part.claim in ("S1", "S2"):
        return (sam.loc[part.given["rho"], column] - base[column]) / 100
    if part.claim == "S3":
        return spearman([0, 1, 2, 3], [base[column], *sam[column]])
    if part.claim == "S4":
        robust = list(_COLUMNS.values())
        return (sam.loc["0.4", robust] - base[robust]).astype(float).mean() / 100
    if part.claim == "S5" and "attack" in part.given:
        return (trained.loc[part.given["attack"], "natural"] - base["natural"]) / 100
    if part.claim == "S5":
        rows = trained[trained.index.str.startswith(part.given["norm"])]
        return spearman([1, 2, 3, 4], rows["natural"])
    return (trained[column].mean() - sam.loc["0.4", column]) / 100


def _of_wang(part):
    """Return what tables 1 to 3 of Wang et al. say of a part."""
    if part.claim not in ("D7", "D8", "D9", "D10"):
        return None
    wide = part.needs.get("model") == "wideresnet"
    number = 3 if wide else 2 if part.claim == "D10" else 1
    table = paper_table(f"dynamic_table{number}")
    if not wide:
        table = table[table["dataset"] == part.needs["dataset"]]
    rows = table.set_index("defense").rename(index={"madry": "standard"})
    way = part.given.get("attack_name", "clean")
    column = {"cw": "cw_inf"}.get(way, way)
    if part.claim == "D10":
        other = rows.loc[["standard", "curriculum"], column].max()
    else:
        other = rows.loc["curriculum" if part.claim == "D8" else "standard", column]
    return (rows.loc["dynamic", column] - other) / 100


def test_what_papers_print_is_what_their_tables_say():
    path = paths.PUBLISHED / "papers" / "printed.csv"
    table = pd.read_csv(path, index_col="part")
    # What a paper states in words, as no table has it, has its words in the file.
    tables = table[table["said"].isna()]["value"]
    of = {"W": _of_khritankov, "S": _of_wei, "D": _of_wang, "H": lambda part: None}
    of["N"] = of["H"]  # our own: what was expected, in words
    values = {p.name: of[p.name[0]](p) for ps in claims.parts().values() for p in ps}
    values = {name: value for name, value in values.items() if value is not None}
    assert tables.to_dict() == pytest.approx(values, abs=1e-12)
    assert table.loc[["W10a", "S7a"], "value"].tolist() == [0.96, 0.0]
    ours = {part.name for n, ps in claims.parts().items() if n[0] == "N" for part in ps}
    assert set(table.index) - set(values) - ours == {
        *("W10a", "W10b", "S7a", "S7b"),
        *("S10a", "S10b"),
    }
