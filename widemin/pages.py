"""The book rendered from chapters that ran.

Two editions never overwrite each other: `book` holds what ran on this machine, `site`
is drawn from the committed tables. Each is put together in a folder of its own below
_build, built by jupyter-book with warnings as errors, and moved into place when it is
whole.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from widemin import claims, notebooks, paths, provenance

EDITIONS = {
    "book": "Computed on this machine; each chapter names its preset.",
    "site": "Published edition, drawn from committed tables; each chapter names the "
    "hardware they come from.",
}
_NOT_STAGED = ("results", "networks", "chapters", "claims.csv", "__pycache__")


class BuildFailed(RuntimeError):
    """jupyter-book refused the book; the message ends with its own words."""


def executed(edition: str, chapter: str) -> Path:
    """Return where an edition keeps an executed chapter."""
    return paths.BUILD / edition / "chapters" / f"{chapter}.ipynb"


def render(edition: str) -> tuple[Path, bool]:
    """Build an edition's pages; return its front page and whether it was built anew.

    Raises:
        BuildFailed: jupyter-book warned or failed; the earlier pages stay in place.
    """
    home = paths.BUILD / edition
    stamp = _stage(edition, home / "source")
    front, kept = home / "html" / "index.html", home / "html" / ".digest"
    if front.exists() and kept.exists() and kept.read_text() == stamp:
        return front, False
    _build(home)
    kept.write_text(stamp)
    return front, True


def _stage(edition: str, source: Path) -> str:
    """Put an edition's sources together; return the digest of all of them."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(paths.BOOK, source, ignore=shutil.ignore_patterns(*_NOT_STAGED))
    (source / "chapters").mkdir()
    verdicts: dict[str, dict[str, Any]] = {}
    for chapter in notebooks.chapters():
        page = executed(edition, chapter)
        if page.exists():
            shutil.copy(page, source / "chapters")
            verdicts |= {v["claim"]: v for v in _verdicts(page)}
        else:
            stub = source / "chapters" / f"{chapter}.md"
            stub.write_text(_stub(chapter))
    for name, mark, content in (
        ("verdicts", "<!-- verdicts -->", table(verdicts)),
        ("reproduce", "<!-- benchmarks -->", benchmarks()),
    ):
        page = source / f"{name}.md"
        page.write_text(page.read_text().replace(mark, content))
    config = yaml.safe_load((paths.ROOT / "_config.yml").read_text())
    theme = config["sphinx"]["config"]["html_theme_options"]
    theme["announcement"] = f"{EDITIONS[edition]} Source {provenance.source()}."
    (source.parent / "_config.yml").write_text(yaml.safe_dump(config))
    hashed = hashlib.sha256(yaml.safe_dump(config).encode())
    for path in sorted(source.rglob("*")):
        if path.is_file():
            hashed.update(str(path.relative_to(source)).encode() + path.read_bytes())
    return hashed.hexdigest()


def _stub(chapter: str) -> str:
    """Return the page of a chapter that has not run here: its opening, and how to."""
    notebook = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())
    opening = "".join(notebook["cells"][0]["source"])
    # Its sections are not there to be linked to.
    opening = re.sub(r"\[([^\]]+)\]\(#[^)]+\)", r"\1", opening)
    return (
        f"{opening}\n\n:::{{note}}\nThis chapter has not run on this machine. "
        f"`widemin run {chapter[:2]}` runs it in under a minute.\n:::\n"
    )


def _verdicts(page: Path) -> list[dict[str, Any]]:
    """Return the verdicts that an executed chapter shows."""
    return [
        output["metadata"]["widemin"]
        for cell in json.loads(page.read_text())["cells"]
        for output in cell.get("outputs", [])
        if "widemin" in output.get("metadata", {})
    ]


def verdicts(edition: str) -> list[dict[str, Any]]:
    """Return the verdicts of an edition's executed chapters, in the claims' order."""
    pages = [executed(edition, chapter) for chapter in notebooks.chapters()]
    found = [v for page in pages if page.exists() for v in _verdicts(page)]
    order = list(claims.criteria())
    return sorted(found, key=lambda v: order.index(v["claim"]))


def table(verdicts: dict[str, dict[str, Any]]) -> str:
    """Return the table of all claims in markdown; those without a verdict say so."""
    pages = {name[:2]: name for name in notebooks.chapters()}
    chapter_of = {"khritankov": "01", "wei": "02", "wang": "03", "kamath": "04"}
    lines = ["| | claim | outcome | the paper | ours | holds up |"]
    lines += ["|---|---|---|---|---|---|"]
    for claim in claims.criteria().values():
        v = verdicts.get(claim.id) or {
            "outcome": "not yet run",
            "paper": "",
            "ours": "",
            "holds_up": "",
        }
        page = f"chapters/{pages[chapter_of[claim.paper]]}"
        cells = [
            f"[{claim.id}]({page})",
            claims.plain(claim.statement),
            v["outcome"],
            v["paper"],
            v["ours"],
            v["holds_up"],
        ]
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)


def benchmarks() -> str:
    """Return the measured speeds in markdown: ratio, quartiles and goal of each row."""
    path = paths.PUBLISHED / "benchmarks.csv"
    if not path.exists():
        return "Not measured yet: `make bench` writes the table."
    rows = pd.read_csv(path, keep_default_na=False)
    lines = ["| work | against | times faster | goal |", "|---|---|---|---|"]
    for row in rows.to_dict("records"):
        spread = f"{row['ratio']} ({row['ratio_q25']} to {row['ratio_q75']})"
        work = f"{row['work']}; {row['note']}" if row["note"] else row["work"]
        lines.append(f"| {work} | {row['peer']} | {spread} | {row['goal']} |")
    facts = rows.iloc[0]
    lines += ["", f"On {facts['hardware']}, torch {facts['torch']}, {facts['date']}."]
    return "\n".join(lines)


# Between these two lines README.md holds the verdicts of the published edition.
_OPEN, _CLOSE = "<!-- verdicts -->", "<!-- end of verdicts -->"


def readme_verdicts(edition: str) -> str:
    """Return the verdicts of an edition that has run, as README.md shows them."""
    lines = ["| | claim | outcome | ours |", "|---|---|---|---|"]
    for v in verdicts(edition):
        statement = claims.plain(claims.criteria()[v["claim"]].statement)
        cells = [v["claim"], statement, v["outcome"], v["ours"]]
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)


def write_readme(edition: str) -> None:
    """Write an edition's verdicts and its figure of one attack for README.md."""
    path = paths.ROOT / "README.md"
    before, rest = path.read_text().split(_OPEN)
    after = rest.split(_CLOSE)[1]
    table = readme_verdicts(edition)
    path.write_text(f"{before}{_OPEN}\n{table}\n{_CLOSE}{after}")
    page = executed(edition, notebooks.chapters()[0])
    for cell in json.loads(page.read_text())["cells"]:
        about = cell["metadata"].get("mystnb", {}).get("figure", {})
        if about.get("name") != "fig-ways":
            continue
        [drawn] = [o for o in cell["outputs"] if "image/svg+xml" in o.get("data", {})]
        target = paths.BOOK / "images" / "one_attack.svg"
        target.parent.mkdir(exist_ok=True)
        target.write_text("".join(drawn["data"]["image/svg+xml"]))


def _build(home: Path) -> None:
    """Run jupyter-book beside the pages, then move the new ones into place."""
    work = home / "work"
    shutil.rmtree(work, ignore_errors=True)
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(home / "source")]
    command += ["--config", str(home / "_config.yml"), "--path-output", str(work)]
    command += ["-W", "-n", "--keep-going", "--all", "-q"]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    html = work / "_build" / "html"
    log = home / "build.log"
    log.write_text(done.stdout + done.stderr)
    if done.returncode or not (html / "index.html").exists():
        words = [line for line in log.read_text().splitlines() if line.strip()]
        raise BuildFailed(
            f"jupyter-book failed; all of it is in {log}. It ends:\n"
            + "\n".join(words[-15:])
        )
    _copy_mathjax(html / "_static" / "mathjax")
    target, old = home / "html", home / "html.old"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    html.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def _copy_mathjax(target: Path) -> None:
    """Copy the one script and the fonts that formulas need, to be read offline."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise BuildFailed("the package sphinx-mathjax-offline is not installed")
    package = Path(spec.origin).parent / "static" / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(package / "tex-chtml.js", target)
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(package / fonts, target / fonts, dirs_exist_ok=True)
