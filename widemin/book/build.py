"""The book rendered: `book` holds what ran here, `site` the committed tables.

Each edition is put together in a folder of its own below _build, built by jupyter-book
with warnings as errors, and moved into place when it is whole.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from widemin import paths
from widemin.book import front, notebooks, verdicts
from widemin.book.sources import figures, stage
from widemin.book.verdicts import executed
from widemin.experiments import disk, provenance

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class BuildFailed(RuntimeError):
    """A page, a PDF or README.md could not be made; the message says why."""


def render(edition: str) -> tuple[Path, bool]:
    """Build an edition's pages; return its front page and whether it was built anew.

    Where jupyter-book warns or fails, BuildFailed, the earlier pages stay in place.
    """
    home = paths.BUILD / edition
    stamp, html = stage(edition, home / "source"), home / "html"
    front, kept = html / "index.html", html / ".digest"
    if front.exists() and kept.exists() and kept.read_text() == stamp:
        return front, False
    made = _sphinx(home, "html")
    shutil.rmtree(html, ignore_errors=True)
    made.rename(html)
    shutil.rmtree(home / "work", ignore_errors=True)
    data = json.dumps(verdicts.as_data(edition), indent=1, ensure_ascii=False)
    (html / "verdicts.json").write_text(data + "\n")
    for name in ("verdicts.schema.json", "claims.csv"):
        shutil.copy(paths.BOOK / name, html)
    kept.write_text(stamp)
    return front, True


# Between these two lines README.md holds findings of the published edition.
_OPEN, _CLOSE = "<!-- verdicts -->", "<!-- end of verdicts -->"


def write_readme(edition: str) -> None:
    """Write an edition's findings and its figure of one attack for README.md."""
    path = paths.ROOT / "README.md"
    told = f"{_OPEN}\n{front.page(edition, 'readme.md.jinja').strip()}\n{_CLOSE}"
    between = re.compile(f"{_OPEN}.*{_CLOSE}", re.DOTALL)
    text, there = between.subn(lambda _: told, path.read_text(), count=1)
    if not there:
        raise BuildFailed(f"{path} must have the lines {_OPEN} and {_CLOSE}")
    drawn = dict(_figures(edition))["fig-ways"]
    with disk.atomic(path) as part:
        part.write_text(text)
    with disk.atomic(paths.BOOK / "images" / "one_attack.svg") as part:
        # Without the date: what is drawn again is the same file.
        part.write_text(re.sub(r" *<dc:date>.*</dc:date>\n", "", drawn))


def print_pdf(edition: str) -> Path:
    """Print a rendered edition as one PDF, by Chromium; return where it is."""
    home, html = paths.BUILD / edition, paths.BUILD / edition / "html"
    book, target = _sphinx(home, "singlehtml") / "intro.html", home / "widemin.pdf"
    cited = (paths.ROOT / "CITATION.cff").read_text()
    about = yaml.load(cited, yaml.BaseLoader) | {"source": provenance.source()}
    with disk.atomic(target) as part:
        for last in (False, True):  # then with the numbers of the first's pages
            with _page() as page:
                page.goto(book.absolute().as_uri(), timeout=0)
                page.evaluate((paths.BOOK / "print.js").read_text(), about)
                page.pdf(path=part, format="A4", outline=last, tagged=last)
            marks = rb"(\d+) 0 obj\n<</Type /Page\n|/(\S+) \[(\d+) 0 R /XYZ"
            found = re.findall(marks, part.read_bytes())
            pages = [page for page, *_ in found if page]
            about["pages"] = {n.decode(): pages.index(p) + 1 for _, n, p in found if n}
    shutil.rmtree(home / "work", ignore_errors=True)
    shutil.copy(target, html)
    for path in html.rglob("*.html"):  # links to it are comments until then
        path.write_text(re.sub("<!--pdf (.*?)-->", r"\1", path.read_text()))
    return target


@contextmanager
def _page() -> Iterator[Any]:
    """Open an empty page in a Chromium of its own; BuildFailed where that fails."""
    from playwright.sync_api import Error, sync_playwright

    if not (browser := next(filter(None, map(shutil.which, BROWSERS)), None)):
        raise BuildFailed(f"a PDF must be printed by one of {', '.join(BROWSERS)}")
    try:
        with sync_playwright() as playwright:
            yield playwright.chromium.launch(executable_path=browser).new_page()
    except Error as error:
        raise BuildFailed(f"{browser} failed: {error.message[-500:]}") from error


def write_figures(edition: str) -> Path:
    """Write each named figure of an edition as SVG and PDF; return their folder."""
    folder = paths.BUILD / edition / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    with _page() as page:
        for name, drawn in _figures(edition):
            (folder / f"{name}.svg").write_text(drawn)
            page.set_content(f"<style>* {{margin: 0}}</style>{drawn}")
            box = page.locator("svg").bounding_box() or {"width": 800, "height": 600}
            width, height = (f"{box[side] + 1}px" for side in ("width", "height"))
            target = folder / f"{name}.pdf"
            page.pdf(path=target, width=width, height=height, print_background=True)
    return folder


def _figures(edition: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the SVG of each figure in an edition's chapters."""
    for chapter in notebooks.chapters():
        page = executed(edition, chapter)
        notebook = json.loads(page.read_text()) if page.exists() else {"cells": []}
        for about, shown in figures(notebook):
            name = about["figure"].get("name")
            if name and (drawn := "".join(shown.get("image/svg+xml", ""))):
                yield name, drawn


def _sphinx(home: Path, builder: str) -> Path:
    """Run jupyter-book on an edition's sources; return where the pages are."""
    work, log = home / "work", home / "build.log"
    shutil.rmtree(work, ignore_errors=True)
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(home / "source")]
    command += ["--config", str(home / "_config.yml"), "--path-output", str(work)]
    command += f"-W -n --keep-going --all -q --builder {builder}".split()
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    with log.open("w") as said:
        done = subprocess.run(command, stdout=said, stderr=said, env=environment)
    html = work / "_build" / builder
    if done.returncode or not (html / "index.html").exists():
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        end = "\n".join(lines[-15:])
        raise BuildFailed(f"jupyter-book failed; {log} has it all. It ends:\n{end}")
    # The one script and the fonts that formulas need, to be read offline.
    package = Path(str(files("sphinx-mathjax-offline"))) / "static" / "mathjax"
    mathjax, fonts = html / "_static" / "mathjax", "output/chtml/fonts/woff-v2"
    shutil.copytree(package / fonts, mathjax / fonts, dirs_exist_ok=True)
    shutil.copy(package / "tex-chtml.js", mathjax)
    # What no page asks for: maps to sources, catalogues, fonts of old browsers.
    for unused in (*html.rglob("*.map"), *html.rglob("*.[mp]o"), *html.rglob("*.ttf")):
        unused.unlink()
    return html
