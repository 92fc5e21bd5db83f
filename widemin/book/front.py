"""The front page and README.md from templates; where the book's repository is."""

import json
import re
from urllib.parse import quote

import jinja2
import yaml

from widemin import paths
from widemin.book import SAID, coverage, notebooks, verdicts
from widemin.experiments import provenance
from widemin.papers import claims


def repository() -> str:
    """Return the public address that _config.yml or else `origin` names; "" without."""
    config = yaml.safe_load((paths.ROOT / "_config.yml").read_text())
    named = str(config["repository"]["url"])
    origin = provenance.git("remote", "get-url", "origin").strip()
    home = re.fullmatch(SAID["public"], named or origin)
    return f"https://{home[1]}/{home[2]}" if home else named


def launch(address: str, chapter: str) -> dict[str, str]:
    """Return the addresses that run a chapter, by service; of services for its host."""
    host, _, name = address.partition("://")[2].partition("/")
    named = {"name": name, "quoted": quote(name, safe=""), "chapter": chapter}
    return {k: v.format(**named) for k, v in SAID["launch"].get(host, {}).items()}


def kind(edition: str) -> str:
    """Return `smoke` where each chapter that ran did so at that preset, or edition."""
    pages = [verdicts.executed(edition, name) for name in notebooks.chapters()]
    cells = [json.loads(p.read_text())["cells"] for p in pages if p.exists()]
    ran = {notebooks.parameters(c).get("preset") for c in cells}
    return "smoke" if ran == {"smoke"} else edition


def page(edition: str, template: str = "front.md.jinja") -> str:
    """Return the front page below its title, or what README.md says of an edition."""
    drawn = verdicts.executed(edition, notebooks.chapters()[0])
    cells = json.loads(drawn.read_text())["cells"] if drawn.exists() else []
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    folder = paths.PUBLISHED if edition == "site" else paths.results()
    loader = jinja2.FileSystemLoader(paths.BOOK / "_templates")
    pages = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template(template).render(
        said=SAID,
        edition=kind(edition),
        told={v["id"]: v for v in verdicts.as_data(edition)["claims"]},
        plain=claims.plain,
        tables=["".join(o.get("data", {}).get("text/html", "")) for o in outputs],
        share=coverage.share(coverage.of_all(folder)),
        counts=verdicts.in_words(edition, ""),
        address=repository(),
        launch=launch(repository(), notebooks.PRIMER),
        cite=yaml.safe_load((paths.ROOT / "CITATION.cff").read_text()),
    )
