"""The front page: an edition's answer, slider and papers; where the book is at home."""

import json
import re
from urllib.parse import quote

import jinja2
import yaml

from widemin import paths
from widemin.book import SAID, coverage, notebooks, verdicts
from widemin.experiments import provenance
from widemin.papers import claims

_AT_HOME = re.compile(
    r"(?:(?:https?|ssh|git)://)?(?:[^/]*@)?(github\.com|gitlab\.com|codeberg\.org)"
    r"(?::\d+)?[:/]/?([\w.-]+(?:/[\w.-]+)+?)(?:\.git)?/?"
)


def repository() -> str:
    """Return the public address of the repository; "" where none is known.

    That of _config.yml, else the checkout's `origin` on a host that all can read.
    """
    config = yaml.safe_load((paths.ROOT / "_config.yml").read_text())
    named = config["repository"]["url"]
    home = _AT_HOME.fullmatch(named or provenance.origin())
    return f"https://{home[1]}/{home[2]}" if home else named


def launch(address: str, chapter: str) -> dict[str, str]:
    """Return where a chapter can be run, by name: by services that know its host."""
    host, _, name = address.partition("://")[2].partition("/")
    named = {"name": name, "quoted": quote(name, safe=""), "chapter": chapter}
    forms = SAID["launch"].get(host, {})
    return {service: form.format(**named) for service, form in forms.items()}


def is_smoke(edition: str) -> bool:
    """Return True where each chapter that ran did so at the preset `smoke`."""
    pages = [verdicts.executed(edition, name) for name in notebooks.chapters()]
    cells = [json.loads(p.read_text())["cells"] for p in pages if p.exists()]
    return {notebooks.parameters(c).get("preset") for c in cells} == {"smoke"}


def _title(chapter: str) -> str:
    """Return a chapter's title without its number."""
    cells = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())["cells"]
    heading = re.compile(r"^# (?:(?:Chapter )?\d+\W+)?(.+)$", re.MULTILINE)
    return heading.findall("".join(cells[0]["source"]))[0]


def page(edition: str, part: str) -> str:
    """Return a part of the front page, as its template in book/_templates says it."""
    [first] = notebooks.find("01")
    drawn = verdicts.executed(edition, first)
    cells = json.loads(drawn.read_text())["cells"] if drawn.exists() else []
    shown = [out.get("data", {}) for cell in cells for out in cell.get("outputs", [])]
    tables = ("".join(data.get("text/html", "")) for data in shown)
    slider = next((table for table in tables if "logit-scale" in table), "")
    rows = re.findall(r"<tr>\s*<th>(.+?)</th>(.*?)</tr>", slider, re.DOTALL)
    told = {v["id"]: v for v in verdicts.as_data(edition)["claims"]}
    folder = paths.PUBLISHED if edition == "site" else paths.results()
    loader = jinja2.FileSystemLoader(paths.BOOK / "_templates")
    pages = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template(f"{part}.md.jinja").render(
        smoke=is_smoke(edition),
        told=told,
        here={name: verdicts.here(name, v) for name, v in told.items()},
        finding=lambda name: verdicts.finding(name, told[name]),
        plain=claims.plain,
        papers=SAID["papers"],
        chapters={name[:2]: (name, _title(name)) for name in notebooks.chapters()},
        slider=slider,
        rows={name: re.findall("<td>(.*?)</td>", found) for name, found in rows},
        share=coverage.share(coverage.of_all(folder)),
        counts=verdicts.in_words(edition),
        address=repository(),
        launch=launch(repository(), notebooks.PRIMER),
        cite=yaml.safe_load((paths.ROOT / "CITATION.cff").read_text()),
        source=provenance.source(),
        dates=sorted({d for v in told.values() for d in v["ours"].get("date", [])}),
    )
