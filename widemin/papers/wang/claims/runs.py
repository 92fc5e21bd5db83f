"""The runs of chapter 3 by defence, and differences between defences."""

from __future__ import annotations

import math

import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import final

ATTACKS = ("fgsm", "pgd10", "pgd20", "cw")  # the columns of its tables

# The same by this book's own rule of steps, where the paper's attacks were not run.
OURS = {"fgsm": "fgsm", "pgd20": "pgd", "cw": "pgd_margin"}


def attack_columns(rows: pd.DataFrame) -> dict[str, str]:
    """Return the columns of the table's attacks, by attack: the paper's, or ours."""
    own = {way: f"wang_{way}_accuracy" for way in ATTACKS}
    if (
        set(own.values()) <= set(rows)
        and rows[list(own.values())].notna().to_numpy().all()
    ):
        return own
    return {way: f"{name}_accuracy" for way, name in OURS.items()}


def unswitched(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs with no switch turned."""
    if rows.empty:
        return rows
    turned = rows["fosc_from_start"].astype(bool) | rows["loss_weighted"].astype(bool)
    turned |= rows["rate_decay"].astype(float) > 0
    return rows[~turned & rows["step_schedule"].isin(["", "rising"])]


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the name of their defence, as the paper has it."""
    names = {"standard": "unsecured", "adversarial": "standard", "dynamic": "dynamic"}
    defence = rows["method"].map(names)
    rising = rows["step_schedule"].eq("rising")
    return rows.assign(defence=defence.mask(rising, "curriculum"))


def runs_of(table: pd.DataFrame, *kinds: str) -> pd.DataFrame:
    """Return final rows of standard and of equally long other training."""
    rows = final(table)
    if rows.empty:
        return rows
    rows = named(unswitched(rows))
    kinds = kinds or ("standard", "dynamic")
    rows = rows[rows["defence"].isin(kinds)]
    epochs = rows.loc[rows["defence"] == "standard", "epochs"]
    rows = rows[rows["epochs"].isin(epochs)]
    return rows if set(rows["defence"]) == set(kinds) else rows.iloc[:0]


def lead_over(
    rows: pd.DataFrame, column: str, than: str = "standard"
) -> tuple[float, float]:
    """Return dynamic training's mean less another defence's, and its standard error."""
    arms = [rows[rows["defence"] == name] for name in ("dynamic", than)]
    if not all(arm[column].notna().any() for arm in arms):
        return math.nan, math.nan
    return claims.difference(arms[0], arms[1], column)[:2]


def all_above(found: dict[str, tuple[float, float]], errors: float) -> bool:
    """Return whether every difference is above 0 by so many standard errors."""
    return all(gain > max(0.0, errors * error) for gain, error in found.values())


def listed(found: dict[str, tuple[float, float]]) -> str:
    """Return leads in points, by attack, with their standard errors."""
    names = {"pgd10": "PGD-10", "pgd20": "PGD-20", "cw": "C&W", "fgsm": "FGSM"}
    return ", ".join(
        f"{names.get(name, name)} {in_points(*lead)}" for name, lead in found.items()
    )


def in_points(gain: float, error: float, digits: int = 1) -> str:
    """Return a lead in points with its standard error; one seed has none.

    >>> in_points(0.012, 0.004), in_points(-0.01, math.nan)
    ('+1.2 ± 0.4', '-1.0 (1 seed)')
    """
    said = f"{100 * gain:+.{digits}f}"
    known = not math.isnan(error)
    return f"{said} ± {100 * error:.{digits}f}" if known else f"{said} (1 seed)"


def printed_lead(dataset: str, attack: str, than: str = "standard") -> float:
    """Return dynamic's lead in the paper's table 1, in points."""
    table = claims.paper_table("dynamic_table1")
    table = table[table["dataset"] == dataset].set_index("defense")
    column = "cw_inf" if attack == "cw" else attack
    return float(table.loc["dynamic", column] - table.loc[than, column])


def costs(table: pd.DataFrame) -> dict[str, float]:
    """Return the gradients an image that the shortest run of each defence took."""
    rows = final(table)
    found = dict.fromkeys(["standard", "dynamic", "curriculum"], math.nan)
    if rows.empty:
        return found
    means = named(unswitched(rows)).groupby(["defence", "epochs"])["gradients"].mean()
    for defence in set(found) & set(means.index.get_level_values("defence")):
        found[defence] = float(means[defence].iloc[0])
    return found
