"""The verdicts of an edition: for the book, for README.md and for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from widemin import paths
from widemin.book import notebooks
from widemin.experiments import provenance, results
from widemin.papers import claims

PAPER, NOT_RUN = "paper", "not yet run"
CHAPTER = {"khritankov": "01", "wei": "02", "wang": "03", "kamath": "04"}


def executed(edition: str, chapter: str) -> Path:
    """Return the path of an executed chapter of an edition."""
    return paths.BUILD / edition / "chapters" / f"{chapter}.ipynb"


def of_edition(edition: str) -> dict[str, dict[str, Any]]:
    """Return the verdicts that an edition's chapters show, by claim, in their order.

    What `claims.Verdict.data` says; `preset` is that of the page where it names none.
    """
    found: dict[str, dict[str, Any]] = {}
    for chapter in notebooks.chapters():
        found |= _shown(executed(edition, chapter))
    return {claim: found[claim] for claim in claims.criteria() if claim in found}


def _shown(page: Path) -> dict[str, dict[str, Any]]:
    """Return the verdicts that an executed chapter shows; none without it."""
    if not page.exists():
        return {}
    cells = json.loads(page.read_text())["cells"]
    preset = notebooks.parameters(cells).get("preset", "")
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    found = [output.get("metadata", {}).get("widemin") for output in outputs]
    return {v["claim"]: v | {"preset": v["preset"] or preset} for v in found if v}


def judging(
    number: str, table: pd.DataFrame, lists: Mapping[str, Any], preset: str
) -> Callable[..., claims.Verdict]:
    """Return what shows a claim's verdict by a page's rows and the paper's settings'.

    Args:
        number: Of the chapter, e.g. "01".
        table: The page's rows.
        lists: The page's lists of runs by name.
        preset: The page's.

    Returns:
        A function of a claim's id and, for linear models, of what they gave.
    """
    [chapter] = notebooks.find(number)
    own = claims.Runs(preset, lists, table)
    larger = []
    if preset != PAPER and set(table.get("dataset", ())) - {"digits"}:
        for further in notebooks.lists_of(chapter, PAPER):
            there = results.table_of(further["recipes"], paths.PUBLISHED)
            larger.append(claims.Runs(PAPER, further, there))
    return lambda name, simulated=None: claims.show(name, [*larger, own], simulated)


def as_page(edition: str) -> str:
    """Return the two tallies, all claims as a table, and what chance would do."""
    found, before = of_edition(edition), claims.revision_1()
    rows = []
    for claim in claims.criteria().values():
        v, old = found.get(claim.id, {}), before[claim.id]
        word = v.get("outcome", NOT_RUN)
        rows.append(
            [
                f"{{ref}}`{claim.id} <{claims.anchor(claim.id)}>`"
                if v
                else f"[{claim.id}]({_section(claim, False, '')})",
                claims.plain(claim.statement),
                "our own check" if claims.kind_of(claim.id) == "control" else "claim",
                word,
                v.get("paper", ""),
                f"{v['ours']}" if v else "",
                old["outcome"],
                _why(v) if word != old["outcome"] else "",
            ]
        )
    heads = ["", "claim", "kind", "outcome", "the paper", "ours", "by revision 1"]
    return "\n\n".join(
        [in_words(edition, ""), by_chance(found), markdown([*heads, "why"], rows)]
    )


def _why(verdict: dict[str, Any]) -> str:
    """Return what makes a claim's word, where it is not that of revision 1."""
    if not verdict:
        return "no rows"
    own = [p for p in verdict["parts"] if p["kind"] != "control"] or verdict["parts"]
    words = dict.fromkeys(p["word"] for p in own)
    texts = []
    for word in words:
        of = [p for p in own if p["word"] == word]
        first = f" ({of[0]['lacks']})" if "lacks" in of[0] else ""
        texts.append(f"{', '.join(p['part'] for p in of)} {word}{first}")
    return claims.plain("; ".join(texts))


def by_chance(found: dict[str, dict[str, Any]]) -> str:
    """Return how many parts judged by rank or sign would pass by chance."""
    decided = [
        part
        for verdict in found.values()
        for part in verdict["parts"]
        if part["word"] in ("passes", "fails", "inconclusive") and "chance" in part
    ]
    expected = sum(part["chance"] for part in decided)
    passed = sum(part["word"] == "passes" for part in decided)
    return (
        f"Of {len(decided)} parts decided by a rank or a sign {passed} pass; by chance "
        f"{expected:.1f} would."
    )


def in_words(edition: str, page: str = "verdicts.md") -> str:
    """Return how many claims came out how, our own checks apart, in markdown."""
    found = of_edition(edition)
    return _counts(list(claims.criteria()), found, page)


def _counts(names: list[str], found: dict[str, dict[str, Any]], page: str) -> str:
    texts = []
    for kind, called in (("claim", "claims"), ("control", "checks of our own")):
        mine = [name for name in names if claims.kind_of(name) == kind]
        words = [found.get(name, {}).get("outcome", NOT_RUN) for name in mine]
        counts = [(words.count(word), word) for word in claims.OUTCOMES]
        listed = ", ".join(f"**{count}** {word}" for count, word in counts if count)
        total = f"{len(mine)} {called}"
        total = f"[{total}]({page})" if page and kind == "claim" else total
        if mine:
            texts.append(f"Of {total}: {listed}.")
    return " ".join(texts)


def in_short(edition: str, chapter: str, named: list[str]) -> str:
    """Return what became of a chapter's claims as a box in markdown.

    Args:
        edition: book or site.
        chapter: Its name.
        named: Claims to be told one by one.
    """
    found = of_edition(edition)
    mine = [n for n, c in claims.criteria().items() if CHAPTER[c.paper] == chapter[:2]]
    lines = [_counts(mine, found, "../verdicts.md"), ""]
    for claim in (claims.criteria()[name] for name in named if name in found):
        verdict = found[claim.id]
        link = f"{{ref}}`{claim.id} <{claims.anchor(claim.id)}>`"
        said = f"{link}, {claims.plain(claim.statement)}: **{verdict['outcome']}**"
        lines.append(f"- {said}: {claims.plain(verdict['ours'])}.")
    return "\n".join([":::{admonition} In short", *lines, ":::"])


def as_readme(edition: str) -> str:
    """Return an edition's verdicts as the table in README.md."""
    rows = [
        [
            name,
            claims.plain(claims.criteria()[name].statement),
            v["outcome"],
            v["ours"],
        ]
        for name, v in of_edition(edition).items()
    ]
    return markdown(["", "claim", "outcome", "ours"], rows)


def as_data(edition: str) -> dict[str, Any]:
    """Return all claims and what became of them, as book/verdicts.schema.json says."""
    parts()  # a file that cannot be judged by is no data
    found, before = of_edition(edition), claims.revision_1()
    fixed = provenance.last_changed(paths.BOOK / "claims.csv")
    listed = []
    for claim in claims.criteria().values():
        v = found.get(claim.id) or claims.show(claim.id, []).data()
        of = {part.part: part for part in claims.parts()[claim.id]}
        told = [
            part | {"last_changed": fixed.get(of[part["part"]].line)}
            for part in v["parts"]
        ]
        record = {
            "id": claim.id,
            "paper": claim.paper,
            "kind": v["kind"],
            "statement": claim.statement,
            "outcome": v["outcome"],
            "printed": v["paper"],
            "ours": {"text": v["ours"]} | v["basis"],
            "parts": told,
            "revision_1": {
                "criterion": claim.criterion,
                "outcome": before[claim.id]["outcome"],
                "ours": before[claim.id]["ours"],
            },
            "page": _section(claim, claim.id in found, ".html"),
        }
        listed.append(record)
    return {"edition": edition, "source": provenance.source(), "claims": listed}


def _section(claim: claims.Claim, there: bool, suffix: str) -> str:
    """Return where a claim's verdict stands, or else its chapter."""
    [chapter] = notebooks.find(CHAPTER[claim.paper])
    page = f"chapters/{chapter}"
    return f"{page}{suffix}" + (f"#{claims.anchor(claim.id)}" if there else "")


def parts() -> dict[str, tuple[claims.Part, ...]]:
    """Return the parts of all claims, checked against what the presets plan.

    Raises:
        ValueError: A part that cannot be judged as it stands, names runs that its
            chapter does not list, or needs more than any preset plans.
    """
    found = claims.parts()
    plans = {
        chapter[:2]: [notebooks.lists_of(chapter, name) for name in notebooks.presets()]
        for chapter in notebooks.chapters()
    }
    for claim in claims.criteria().values():
        for part in found[claim.id]:
            lacks = {
                claims.lacking(part, _named(part, lists))
                for lists in plans[CHAPTER[claim.paper]]
            }
            if "" not in lacks:
                raise ValueError(
                    f"needs of {part.name} must be met by some preset; got "
                    f"{'; '.join(sorted(lacks))}"
                )
    return found


def _named(part: claims.Part, lists: list[dict[str, Any]]) -> list[Any]:
    """Return the runs that a part judges, of a preset and its further settings."""
    if part.runs in claims.SIMULATED:
        return []
    return [run for each in lists for run in notebooks.named(each, part.runs)]


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in markdown."""
    cells = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in cells
    )
