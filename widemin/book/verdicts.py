"""The verdicts of an edition: for the book, for README.md and for machines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from widemin import paths
from widemin.book import notebooks
from widemin.experiments import provenance, results
from widemin.names import written
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
    """Return all claims as a table, with their words by both revisions."""
    found, before = of_edition(edition), claims.revision_1()
    rows = []
    for claim in claims.criteria().values():
        v, old = found.get(claim.id, {}), before[claim.id]["outcome"]
        word, kind = v.get("outcome", NOT_RUN), claims.kind_of(claim.id)
        rows.append(
            [
                f"{{ref}}`{claim.id} <{claims.anchor(claim.id)}>`"
                if v
                else f"[{claim.id}]({_section(claim, False, '')})",
                claims.plain(claim.statement) + _KINDS[kind],
                word,
                _upper(v.get("ours", "")),
                _rests(v),
                old,
                _why(claim, v) if word != old else "",
            ]
        )
    heads = ["", "claim", "outcome", "here", "rests on", "by revision 1"]
    return markdown([*heads, "why another"], rows)


_KINDS = {"claim": "", "argued": " (argued)", "control": " (our own check)"}


def _rests(verdict: dict[str, Any]) -> str:
    """Return seeds, device and preset that a verdict rests on; "" without runs."""
    basis = verdict.get("basis", {})
    if "seeds" not in basis:
        return ""
    seeds = f"{basis['seeds']} seed{'s' * (basis['seeds'] > 1)}"
    where = [seeds, *map(written, basis.get("device", []))]
    return f"{', '.join(where)} (`{verdict['preset']}`)"


def _why(claim: claims.Claim, verdict: dict[str, Any]) -> str:
    """Return what makes a claim's word, where it is not that of revision 1."""
    return f"{_upper(claims.plain(claim.revised))}. {verdict.get('reason', '')}"


def by_chance(edition: str) -> str:
    """Return how many parts judged by rank or sign pass, and would by chance."""
    decided = [
        (claim, part)
        for claim, verdict in of_edition(edition).items()
        for part in verdict["parts"]
        if part["word"] in ("passes", "fails", "inconclusive") and "chance" in part
    ]
    if not decided:
        return "No part that is judged by a rank or a sign is decided yet."
    expected = sum(part["chance"] for _, part in decided)
    passed = sum(part["word"] == "passes" for _, part in decided)
    rows = [
        [
            f"{claim}{part['part']}",
            claims.plain(part["criterion"]),
            claims.odds(part["chance"]),
            part["word"],
        ]
        for claim, part in decided
    ]
    table = markdown(["part", "passes if", "by chance", ""], rows)
    return (
        "A part that asks for a rank or a sign may come out on the side asked for "
        f"although there is no effect. Of {len(decided)} such parts that are decided "
        f"{passed} pass. Without any effect {expected:.1f} would have such a value, "
        "and fewer would have the whole interval on that side.\n\n"
        f"::::{{dropdown}} Each of them\n{table}\n::::"
    )


def in_words(edition: str, page: str = "verdicts.md") -> str:
    """Return how many claims came out how, our own checks apart, in markdown."""
    return " ".join(_counts(list(claims.criteria()), of_edition(edition), page))


# What the front page tells, a claim that is decided each.
HEADLINES = "W2 W7 W6 W12 S2 S8 D12 H8".split()


def headlines(edition: str) -> str:
    """Return what became of the claims that the front page tells."""
    return "\n".join(_told(name, of_edition(edition)) for name in HEADLINES)


def _told(name: str, found: dict[str, dict[str, Any]]) -> str:
    """Return a claim, its word and what was measured as a point of a list."""
    said = claims.plain(claims.criteria()[name].statement)
    if name not in found:
        return f"- {name}, {said}: **{NOT_RUN}**."
    v = found[name]
    link = f"{{ref}}`{name} <{claims.anchor(name)}>`"
    return f"- {link}, {said}: **{v['outcome']}**. {_upper(v['ours'])}."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def tallies(edition: str) -> str:
    """Return the same as a list."""
    counts = _counts(list(claims.criteria()), of_edition(edition), "")
    return "\n".join(f"- {text}" for text in counts)


def _counts(names: list[str], found: dict[str, dict[str, Any]], page: str) -> list[str]:
    """Return a sentence on the claims of each kind."""
    texts = []
    for kind, (one, many) in {
        "claim": ("claim", "claims"),
        "argued": ("argument", "arguments that no paper measures"),
        "control": ("check of our own", "checks of our own"),
    }.items():
        mine = [name for name in names if claims.kind_of(name) == kind]
        words = [found.get(name, {}).get("outcome", NOT_RUN) for name in mine]
        counts = [(words.count(word), word) for word in claims.OUTCOMES]
        listed = ", ".join(f"**{count}** {word}" for count, word in counts if count)
        total = f"{len(mine)} {one if len(mine) == 1 else many}"
        total = f"[{total}]({page})" if page and kind == "claim" else total
        if mine:
            texts.append(f"Of {total}: {listed}.")
    return texts


def in_short(edition: str, chapter: str, named: list[str]) -> str:
    """Return what became of a chapter's claims as a box in markdown.

    Args:
        edition: book or site.
        chapter: Its name.
        named: Claims to be told one by one.
    """
    found = of_edition(edition)
    mine = [n for n, c in claims.criteria().items() if CHAPTER[c.paper] == chapter[:2]]
    lines = [" ".join(_counts(mine, found, "../verdicts.md")), ""]
    lines += [_told(name, found) for name in named if name in found]
    return "\n".join([":::{admonition} In short", *lines, ":::"])


def as_readme(edition: str) -> str:
    """Return an edition's verdicts as the table in README.md."""
    rows = [
        [
            name,
            claims.plain(claims.criteria()[name].statement)
            + _KINDS[claims.kind_of(name)],
            v["outcome"],
            re.sub(r"(?<![\w)\]-])-(?=\d)", "−", _upper(v["ours"])),
        ]
        for name, v in of_edition(edition).items()
    ]
    return markdown(["", "claim", "outcome", "here"], rows)


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
