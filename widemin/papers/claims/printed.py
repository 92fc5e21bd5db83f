"""What the papers' own tables say of a part, computed as it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from widemin.papers.claims.criterion import paper_table
from widemin.papers.claims.parts import Part
from widemin.statistics import spearman

_COLUMNS = {
    "linf 1/255": "linf_1_255",
    "linf 2/255": "linf_2_255",
    "l2 16/255": "l2_16_255",
    "l2 32/255": "l2_32_255",
}


def printed(part: Part) -> float | None:
    """Return a part's statistic in the paper's table, a fraction; None without."""
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
        return _of_wei(part)
    if part.claim in ("D7", "D8", "D9", "D10"):
        return _of_wang(part, given)
    return None


def _of_wei(part: Part) -> Any:
    """Return what tables 1 and 2 of Wei et al. say of a part."""
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


def _of_wang(part: Part, given: Mapping[str, str]) -> Any:
    """Return what tables 1 to 3 of Wang et al. say of a part."""
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
