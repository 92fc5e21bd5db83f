"""The verdicts of an edition: for the book, for README.md and for machines."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from widemin import paths
from widemin.book import notebooks
from widemin.experiments import provenance, results
from widemin.papers import claims
from widemin.papers.claims.verdict import rendered
from widemin.papers.claims.words import SAID, sentence

PAPER = "paper"
CHAPTER = {"khritankov": "01", "wei": "02", "wang": "03", "kamath": "04", "ours": "05"}
_PAGE = Path(__file__).with_name("verdicts.md.jinja").read_text("utf-8")
UNJUDGED = {"outcome": "not yet run", "ours": ""}  # our own claims by revision 1


def executed(edition: str, chapter: str) -> Path:
    """Return the path of an executed chapter of an edition."""
    return paths.BUILD / edition / "chapters" / f"{chapter}.ipynb"


def all_claims(edition: str) -> dict[str, dict[str, Any]]:
    """Return the verdicts on all claims: those that no page shows are by no rows."""
    shown = of_edition(edition)
    return {n: shown.get(n) or claims.show(n, []).data() for n in claims.criteria()}


def of_edition(edition: str) -> dict[str, dict[str, Any]]:
    """Return the verdicts that an edition's chapters show, by claim, in their order.

    What `claims.Verdict.data` says; `preset` is that of the page where it names none.
    """
    shown: dict[str, dict[str, Any]] = {}
    for page in (executed(edition, chapter) for chapter in notebooks.chapters()):
        if page.exists():
            cells = json.loads(page.read_text())["cells"]
            preset = notebooks.parameters(cells).get("preset", "")
            outputs = [output for cell in cells for output in cell.get("outputs", [])]
            told = [output.get("metadata", {}).get("widemin") for output in outputs]
            for v in filter(None, told):
                shown[v["claim"]] = v | {"preset": v["preset"] or preset}
    return {claim: shown[claim] for claim in claims.criteria() if claim in shown}


def judging(
    number: str, table: pd.DataFrame, lists: Mapping[str, Any], preset: str
) -> Callable[..., claims.Verdict]:
    """Return a function from a claim's id to its verdict by a chapter's rows.

    By the page's rows and those at the paper's settings; of claims on linear models
    it takes what these gave, too. `number` is the chapter's, e.g. "01".
    """
    [chapter] = notebooks.find(number)
    evidence = []
    if preset != PAPER and set(table.get("dataset", ())) - {"digits"}:
        for further in notebooks.lists_of(chapter, PAPER):
            there = results.table_of(further["recipes"], paths.PUBLISHED)
            evidence.append(claims.Runs(PAPER, further, there))
    evidence.append(claims.Runs(preset, lists, table))
    return lambda name, simulated=None: claims.show(name, evidence, simulated)


def as_page(edition: str) -> str:
    """Return all claims by paper, decided ones first; those not run, and revision 1."""
    told, rank = all_claims(edition), claims.OUTCOMES.index
    told = dict(sorted(told.items(), key=lambda of: rank(of[1]["outcome"])))
    about: dict[str, Any] = {"told": told, "before": claims.revision_1()}
    about |= {"link": _link, "statement": _statement}
    about |= {"criteria": claims.criteria(), "plain": claims.plain}
    return rendered(_PAGE, part="verdicts", **about)


def _statement(name: str) -> str:
    """Return a claim in words, and whether it is none that the paper measures."""
    statement = claims.plain(claims.criteria()[name].statement)
    return statement + str(SAID["marked"][claims.kind_of(name)])


def _link(name: str, verdict: Mapping[str, Any]) -> str:
    """Return a link to a verdict, or to its chapter where that does not show it."""
    if verdict["preset"]:
        return f"{{ref}}`{name} <{claims.anchor(name)}>`"
    return f"[{name}]({_section(name, False, '')})"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def by_chance(edition: str) -> str:
    """Return the numbers of rank and sign parts that pass, here and by chance."""
    about = {"told": of_edition(edition), "compare": claims.COMPARE}
    return rendered(_PAGE, **about, odds=claims.odds, sentence=sentence)


def in_words(edition: str, page: str = "verdicts.md", between: str = " ") -> str:
    """Return the counts of outcomes, our own checks apart, in markdown."""
    return between.join(_counts(all_claims(edition), page))


def _counts(told: Mapping[str, dict[str, Any]], page: str) -> list[str]:
    """Return a sentence on the claims of each kind."""
    texts = []
    for kind, forms in SAID["counted"].items():
        mine = [name for name in told if claims.kind_of(name) == kind]
        words = [told[name]["outcome"] for name in mine]
        counts = [(words.count(word), word) for word in claims.OUTCOMES]
        listed = ", ".join(f"**{count}** {word}" for count, word in counts if count)
        total = f"{len(mine)} {forms[len(mine) != 1]}"
        total = f"[{total}]({page})" if page and kind == "claim" else total
        if mine:
            texts.append(f"Of {total}: {listed}.")
    return texts


def tally(edition: str, chapter: str) -> str:
    """Return the counts of outcomes of a chapter's claims, in markdown."""
    told, listed = all_claims(edition), claims.criteria()
    own = {n: v for n, v in told.items() if CHAPTER[listed[n].paper] == chapter[:2]}
    return " ".join(_counts(own, "../verdicts.md"))


def as_data(edition: str) -> dict[str, Any]:
    """Return all claims and what became of them, as book/verdicts.schema.json says."""
    before, listed = claims.revision_1(), []
    fixed = provenance.last_changed(paths.BOOK / "claims.csv")
    for name, v in all_claims(edition).items():
        claim = claims.criteria()[name]
        lines = {part.part: part.line for part in claims.parts()[claim.id]}
        own = [p | {"last_changed": fixed.get(lines[p["part"]])} for p in v["parts"]]
        old = before.get(claim.id, UNJUDGED)
        old = {name: old[name] for name in UNJUDGED}
        listed.append(
            {
                "id": claim.id,
                "paper": claim.paper,
                "kind": v["kind"],
                "statement": claim.statement,
                "outcome": v["outcome"],
                "printed": v["paper"],
                "ours": {"text": v["ours"]} | v["basis"],
                "parts": own,
                "revision_1": {"criterion": claim.criterion} | old,
                "page": _section(name, bool(v["preset"]), ".html"),
            }
        )
    return {"edition": edition, "source": provenance.source(), "claims": listed}


def _section(name: str, there: bool, suffix: str) -> str:
    """Return the address of a claim's verdict, or else of its chapter."""
    [chapter] = notebooks.find(CHAPTER[claims.criteria()[name].paper])
    return f"chapters/{chapter}{suffix}" + f"#{claims.anchor(name)}" * there


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in markdown."""
    cells = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in cells
    )
