"""The verdicts of an edition: for the book, for README.md and for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from widemin import paths
from widemin.book import notebooks
from widemin.experiments import provenance
from widemin.papers import claims

CHAPTER = {"khritankov": "01", "wei": "02", "wang": "03", "kamath": "04"}


def executed(edition: str, chapter: str) -> Path:
    """Return the path of an executed chapter of an edition."""
    return paths.BUILD / edition / "chapters" / f"{chapter}.ipynb"


def of_edition(edition: str) -> dict[str, dict[str, Any]]:
    """Return the verdicts that an edition's chapters show, by claim, in their order.

    What a `claims.Verdict` says; `preset` is that of the page where it names none.
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


def as_page(edition: str) -> str:
    """Return all claims as a markdown table; those without a verdict say so."""
    found = of_edition(edition)
    rows = []
    for claim in claims.criteria().values():
        v = found.get(claim.id, {})
        rows.append(
            [
                f"{{ref}}`{claim.id} <{claims.anchor(claim.id)}>`"
                if v
                else f"[{claim.id}]({_section(claim, False, '')})",
                claims.plain(claim.statement),
                v.get("outcome", claims.OUTCOMES[-1]),
                v.get("paper", ""),
                f"{v['ours']} (`{v['preset']}`)" if v else "",
                v.get("holds_up", ""),
            ]
        )
    return markdown(["", "claim", "outcome", "the paper", "ours", "holds up"], rows)


def in_words(edition: str) -> str:
    """Return how many claims came out how, as a sentence in markdown."""
    found = of_edition(edition)
    return _counts([found.get(claim, {}) for claim in claims.criteria()], "verdicts.md")


def _counts(found: list[dict[str, Any]], page: str) -> str:
    outcomes = [verdict.get("outcome", claims.OUTCOMES[-1]) for verdict in found]
    counts = [(outcomes.count(name), name) for name in claims.OUTCOMES]
    listed = ", ".join(f"**{count}** {name}" for count, name in counts if count)
    return f"Of [{len(outcomes)} claims]({page}): {listed}."


def in_short(edition: str, chapter: str, named: list[str]) -> str:
    """Return what became of a chapter's claims as a box in markdown.

    Args:
        edition: book or site.
        chapter: Its name.
        named: Claims to be told one by one.
    """
    found = of_edition(edition)
    mine = [c for c in claims.criteria().values() if CHAPTER[c.paper] == chapter[:2]]
    lines = [_counts([found.get(claim.id, {}) for claim in mine], "../verdicts.md"), ""]
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
    found = of_edition(edition)
    fixed = provenance.last_changed(paths.BOOK / "claims.csv")
    listed = []
    for claim in claims.criteria().values():
        v = found.get(claim.id, {})
        ours = {name: v.get(name) for name in ("value", "interval", "preset")}
        ours |= {"text": v.get("ours", "")} | v.get("basis", {})
        record = {
            "id": claim.id,
            "paper": claim.paper,
            "statement": claim.statement,
            "criterion": claim.criterion,
            "thresholds": claim.thresholds,
            "needs": claim.needs,
            "decidable_from": claim.decidable_from,
            "criterion_last_changed": fixed.get(claim.line),
            "outcome": v.get("outcome", claims.OUTCOMES[-1]),
            "printed": v.get("paper", ""),
            "ours": {name: value for name, value in ours.items() if value is not None},
            "evidence": v.get("evidence", ""),
            "stronger_test": claim.stronger_test,
            "holds_up": v.get("holds_up", "not tested"),
            "would_decide": v.get("seeds", ""),
            "page": _section(claim, bool(v), ".html"),
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
