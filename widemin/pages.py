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

import pandas as pd
import yaml

from widemin import ledger, notebooks, paths, provenance, verdicts
from widemin.verdicts import executed, markdown

EDITIONS = {
    "book": "Computed on this machine; each chapter names its preset.",
    "site": "Published edition, drawn from committed tables; each chapter names the "
    "hardware they come from.",
}
_NOT_STAGED = ("results", "networks", "chapters", "*.csv", "*.json", "__pycache__")


class BuildFailed(RuntimeError):
    """jupyter-book refused the book; the message ends with its own words."""


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
    data = json.dumps(verdicts.as_data(edition), indent=1, ensure_ascii=False)
    (home / "html" / "verdicts.json").write_text(data + "\n")
    shutil.copy(paths.BOOK / "verdicts.schema.json", home / "html")
    kept.write_text(stamp)
    return front, True


def _stage(edition: str, source: Path) -> str:
    """Put an edition's sources together; return the digest of all of them."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(paths.BOOK, source, ignore=shutil.ignore_patterns(*_NOT_STAGED))
    (source / "chapters").mkdir()
    for chapter in notebooks.chapters():
        page = executed(edition, chapter)
        if page.exists():
            shutil.copy(page, source / "chapters")
        else:
            stub = source / "chapters" / f"{chapter}.md"
            stub.write_text(_stub(chapter))
    for name, mark, content in (
        ("intro", "<!-- counts -->", verdicts.in_words(edition)),
        ("verdicts", "<!-- verdicts -->", verdicts.as_page(edition)),
        ("ledger", "<!-- ledger -->", differences(edition)),
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
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    labels = re.findall(r"^(\([\w-]+\)=)$", text, re.MULTILINE)
    opening = "".join(notebook["cells"][0]["source"])
    # Its sections are not there: what links to them from other pages ends here.
    opening = re.sub(r"\[([^\]]+)\]\(#[^)]+\)", r"\1", opening)
    opening = "\n".join([*(label for label in labels if label not in opening), opening])
    return (
        f"{opening}\n\n:::{{note}}\nThis chapter has not run on this machine. "
        f"`widemin run {chapter[:2]}` runs it in under a minute.\n:::\n"
    )


def differences(edition: str) -> str:
    """Return the ledger in markdown, measured on the rows of the edition's pages."""
    heads = ["", "the paper", "the released code", "here", "the other side does"]
    rows = []
    for entry in ledger.ENTRIES:
        [chapter] = notebooks.find(entry.chapter)
        page = executed(edition, chapter)
        values = notebooks.defaults(chapter)
        if page.exists():
            values = notebooks.parameters(json.loads(page.read_text())["cells"])
        where = f"{{ref}}`{int(entry.chapter)} <{entry.section}>`"
        folder = paths.results(values["results_dir"])
        done = ledger.effect(entry, notebooks.recipes(chapter, values), folder)
        rows.append([where, entry.text, entry.code, entry.here, done])
    return markdown(heads, rows)


def benchmarks() -> str:
    """Return the measured speeds in markdown: ratio, quartiles and goal of each row."""
    path = paths.PUBLISHED / "benchmarks.csv"
    if not path.exists():
        return "Not measured yet: `make bench` writes the table."
    rows = pd.read_csv(path, keep_default_na=False)
    lines = ["| work | against | times faster | goal | on |", "|---|---|---|---|---|"]
    for row in rows.to_dict("records"):
        spread = f"{row['ratio']} ({row['ratio_q25']} to {row['ratio_q75']})"
        work = f"{row['work']}; {row['note']}" if row["note"] else row["work"]
        machine = f"{row['hardware']}, torch {row['torch']}, {row['date']}"
        cells = [work, row["peer"], spread, str(row["goal"]), machine]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Between these two lines README.md holds the verdicts of the published edition.
_OPEN, _CLOSE = "<!-- verdicts -->", "<!-- end of verdicts -->"


def write_readme(edition: str) -> None:
    """Write an edition's verdicts and its figure of one attack for README.md."""
    path = paths.ROOT / "README.md"
    before, rest = path.read_text().split(_OPEN)
    after = rest.split(_CLOSE)[1]
    table = verdicts.as_readme(edition)
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
