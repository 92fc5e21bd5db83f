"""The book as a reader gets it: no warnings, whole, and readable offline."""

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jsonschema
import pandas as pd
import psutil
import pytest
import yaml

from tests.printed import Printed
from tests.test_api import PAGES
from tests.test_claims import FREE
from tests.test_tree import public
from widemin import paths
from widemin.book import build, front, notebooks, verdicts
from widemin.papers.claims import criteria
from widemin.papers.claims.parts import SAID, STATISTICS, parts

WIDEMIN = paths.ROOT / ".venv" / "bin" / "widemin"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
UNDECIDED = {"not decidable at this scale", "not yet run"}
# They compare networks of 50 epochs by PGD of up to 40 steps, two seeds each.
UNRUN = {"D4", "D5", "N3", "N4", "N5", "N6"}
pytestmark = pytest.mark.slow


def widemin(*arguments, cache):
    command = [shutil.which("widemin") or str(WIDEMIN), *arguments]
    environment = os.environ | {"WIDEMIN_CACHE": str(cache)}
    return subprocess.run(
        command, cwd=paths.ROOT, capture_output=True, text=True, env=environment
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The cache of `make book` where there is one, so that nothing is trained twice."""
    return os.environ.get("WIDEMIN_BOOK_CACHE") or tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def book(cache):
    done = widemin("run", "all", "--preset", "smoke", cache=cache)
    assert done.returncode == 0, done.stderr
    return paths.BUILD / "book" / "html"


@pytest.fixture(scope="module")
def site(cache):
    done = widemin("book", "--edition", "site", cache=cache)
    assert done.returncode == 0, done.stderr
    return paths.BUILD / "site" / "html"


class Page(HTMLParser):
    """What a page links to, its anchors, and its images without words."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.mute = [], set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[k] for k in ("id", "name") if found.get(k)}
        for key in ("href", "src"):
            if found.get(key):
                self.links.append(found[key])
        if tag == "img" and not found.get("alt"):
            self.mute.append(found.get("src"))


@functools.cache
def anchors(page):
    return Page(page).anchors


def test_a_book_of_which_no_chapter_has_run_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    front, fresh = build.render("book")  # warnings, such as a lost link, are errors
    assert fresh and (front.parent / "verdicts.json").exists()
    page = front.parent / "chapters" / "02_sam_and_adversarial_training.html"
    assert "has not run on this machine" in page.read_text()


@pytest.mark.parametrize("chapter", notebooks.chapters())
def test_a_page_is_drawn_from_the_last_run_alone(chapter, book, cache, tmp_path):
    """As it is while a sweep is under way, in whatever order its runs end."""
    last = notebooks.plan(chapter, "smoke")[-1].key
    (tmp_path / "runs").mkdir()
    shutil.copy(Path(cache) / "results" / "runs" / f"{last}.json", tmp_path / "runs")
    here = {"device": "none", "results_dir": str(tmp_path)}
    values = notebooks.resolve(chapter, "smoke", here)
    notebooks.execute(chapter, values, tmp_path / "page.ipynb", "")
    assert "**smoke**: 1 of" in (tmp_path / "page.ipynb").read_text()


def test_chapters_have_figures_and_cards_or_lines_of_claims(book):
    for chapter in notebooks.chapters():
        text = (book / "chapters" / f"{chapter}.html").read_text()
        assert len(re.findall(r"<figure", text)) >= 2, chapter
        assert len(re.findall(r'id="verdict-[a-z]\d+"', text)) >= 2, chapter
        assert "Preset <strong>smoke</strong>" in text
        assert "Traceback" not in text


@pytest.mark.parametrize("edition", ["book", "site"])
def test_no_page_shows_a_warning(edition, request):
    request.getfixturevalue(edition)
    for chapter in notebooks.pages():
        notebook = json.loads(verdicts.executed(edition, chapter).read_text())
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                assert output.get("name") != "stderr", output["text"]


@pytest.mark.parametrize("edition", ["book", "site"])
def test_the_primer_shows_every_cell_and_its_figure(edition, request):
    page = request.getfixturevalue(edition) / "chapters" / "00_primer.html"
    text, cells = page.read_text(), []
    for cell in json.loads((paths.NOTEBOOKS / "00_primer.ipynb").read_text())["cells"]:
        cells += ["".join(cell["source"])] if cell["cell_type"] == "code" else []
    assert len(re.findall(r'class="cell_input ', text)) == len(cells) - 1
    assert "Show source" not in text and "Traceback" not in text
    drawn = sum("plt.subplots" in source for source in cells)
    assert len(re.findall(r"<img [^>]*\.svg", text)) == drawn


@pytest.mark.parametrize("edition", ["book", "site"])
def test_a_claim_has_one_box_on_one_page(edition, request):
    html = request.getfixturevalue(edition)
    pages = (html / "chapters").glob("*.html")
    text = "".join(page.read_text() for page in pages)
    boxes = re.findall(r'id="(verdict-[a-z]\d+)"', text)
    assert len(boxes) == len(set(boxes)) >= 50


def test_every_verdict_of_smoke_is_undecided(book):
    """But for what rests on no run, or is counted: the same in every run."""
    shown = verdicts.of_edition("book").values()
    assert len(shown) >= 50
    for verdict in shown:
        kinds = {
            STATISTICS[part.statistic]["kind"] for part in parts()[verdict["claim"]]
        }
        if criteria()[verdict["claim"]].decidable_from not in FREE and kinds != {
            "exact"
        }:
            assert verdict["outcome"] in UNDECIDED, verdict


def test_a_second_call_trains_and_draws_nothing(book, cache):
    before = (book / "index.html").stat().st_mtime_ns
    done = widemin("run", "all", "--preset", "smoke", cache=cache)
    assert "0 to compute" in done.stderr
    assert "Drawing" not in done.stderr and "Unchanged" in done.stderr
    assert (book / "index.html").stat().st_mtime_ns == before


def words_of(process):
    """Return the words of a process's command; none of one that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_signal_while_pages_are_drawn_ends_their_kernels(book, cache, tmp_path):
    shutil.copytree(Path(cache) / "results", tmp_path / "rows")
    page = verdicts.executed("book", notebooks.chapters()[0])
    before = page.read_bytes()
    call = ["run", "01", "--results", str(tmp_path / "rows")]
    process = subprocess.Popen(
        [shutil.which("widemin") or str(WIDEMIN), *call],
        cwd=paths.ROOT,
        env=os.environ | {"WIDEMIN_CACHE": str(cache)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        kernels = []
        while not kernels:
            assert process.poll() is None
            children = psutil.Process(process.pid).children(recursive=True)
            kernels = [c for c in children if "ipykernel" in words_of(c)]
        process.terminate()
        _, said = process.communicate(timeout=600)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 143
    assert said.splitlines()[-1] == "Stopped; what is finished or begun is kept."
    assert "Traceback" not in said
    assert not psutil.wait_procs(children, timeout=600)[1]
    assert page.read_bytes() == before
    assert not list(page.parent.glob("*.part"))


@pytest.mark.parametrize("edition", ["book", "site"])
def test_every_internal_link_resolves_and_every_image_has_words(edition, request):
    html = request.getfixturevalue(edition)
    # The theme leaves templates of its own among the static files.
    found = [p for p in html.rglob("*.html") if "_static" not in p.parts]
    parsed = {path: Page(path) for path in found}
    broken = []
    for path, page in parsed.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path))
            target = target.resolve()
            if not target.exists():
                broken.append((path.name, link))
            elif parts.fragment and target in parsed:
                if parts.fragment not in parsed[target].anchors:
                    broken.append((path.name, link))
        assert not page.mute, (path.name, page.mute)
    assert not broken


def test_each_page_says_which_edition_it_is(book, site):
    """That of tiny digits says on each page what it is worth; no other does."""
    amber = "Smoke edition: tiny digits, decides nothing."
    for html, words in ((book, amber), (site, "Published edition")):
        for path in whole_pages(html):
            text = path.read_text()
            assert words in text and (amber in text) == (html == book), path


def whole_pages(html):
    """Every page of the theme: what the front page is reached by is none."""
    found = (p for p in html.rglob("*.html") if "_static" not in p.parts)
    return [p for p in found if "http-equiv" not in p.read_text()[:400]]


def test_each_page_says_what_it_is_about_to_machines(site):
    described = set()
    for path in whole_pages(site):
        text = path.read_text()
        assert len(re.findall("<title>", text)) == 1, path
        [title] = re.findall("<title>(.*?)</title>", text)
        assert title.count("Wide minima and adversarial robustness") == 1, path
        assert not title.startswith(" "), path
        facts = dict(
            re.findall(r'<meta (?:name|property)="(\S+)" content="(.*?)"', text)
        )
        assert len(facts["description"]) > 20 and facts["og:title"], path
        assert facts["og:type"] == ("website" if path.stem == "intro" else "article")
        assert "og:url" not in facts  # it is known to none
        [icon] = re.findall(r'<link rel="icon" href="(.*?)"', text)
        for picture in (icon, facts["og:image"]):
            assert (path.parent / picture).exists(), path
        described.add(facts["description"])
    assert len(described) > 0.9 * len(whole_pages(site))


def test_the_front_page_says_what_was_found(site):
    text = (site / "intro.html").read_text()
    told = json.loads((site / "verdicts.json").read_text())["claims"]
    cards = re.findall(r'paper-card.*?class="strip-counts"', text, re.DOTALL)
    assert len(cards) == 5
    for card, paper in zip(cards, verdicts.CHAPTER, strict=True):
        mine = [claim for claim in told if claim["paper"] == paper]
        links = re.findall(
            r'<li><a class="outcome-\S+" href="(\S+)" title="(\w+),', card
        )
        assert links == [(claim["page"], claim["id"]) for claim in mine]
        for link, _ in links:
            page, _, anchor = link.partition("#")
            assert not anchor or anchor in anchors(site / page)
    answer = re.search(r'class="answer.*?</div>', text, re.DOTALL)[0]
    assert "own settings yes, but not enough" in answer
    assert re.search(r"\d+ of \d+ cells of the papers. tables \(\d+\.\d.%\)", text)
    for word in ("MIT", "0.1.0", "The widemin authors"):
        assert word in text[text.index('id="cite-it"') :]


def test_the_front_page_of_tiny_digits_shows_no_finding(book):
    text = (book / "intro.html").read_text()
    assert "This edition answers nothing." in text and "rest on tiny digits" in text
    assert "yes, but" not in text and text.count("on tiny digits: it decides") == 1
    outcomes = set(re.findall(r'<li><a class="outcome-(\S+)"', text))
    assert "unrun" in outcomes and "not-reproduced" not in outcomes
    assert "CIFAR" not in text and "clipped probabilities: " not in text


def test_the_verdicts_page_lists_every_claim(site):
    text = (site / "verdicts.html").read_text()
    for name in ("W1", "W13", "S12", "D14", "H16"):
        assert f">{name}</" in text


def test_the_readme_shows_the_published_verdicts(site):
    readme = (paths.ROOT / "README.md").read_text()
    assert front.page("site", "readme.md.jinja").strip() in readme


def test_all_but_a_few_named_claims_have_been_run(site):
    found = verdicts.of_edition("site").values()
    unrun = {
        v["claim"]
        for v in found
        if all(part["word"] == "not yet run" for part in v["parts"])
    }
    assert unrun == UNRUN


def test_claims_without_rows_are_planned_and_have_no_card(site):
    pages = "".join(p.read_text() for p in (site / "chapters").glob("*.html"))
    text = (site / "verdicts.html").read_text()
    [listed] = re.findall(r"<h2>Planned, not yet run(.*?)<h2>", text, re.DOTALL)
    for name in UNRUN:
        [kind] = re.findall(rf'class="([^"]*)" id="verdict-{name.lower()}"', pages)
        assert "planned" in kind and "admonition" not in kind
        assert f"#verdict-{name.lower()}" in listed
    planned = re.findall(r"<td>.*?runs at the preset.*?</td>", listed, re.S)
    assert len(planned) == len(UNRUN)


@pytest.mark.parametrize("edition", ["book", "site"])
def test_no_chapter_wears_a_badge_for_the_age_of_its_commit(edition, request):
    """But for instruments revised since: the search for distances was."""
    html = request.getfixturevalue(edition)
    for path in (html / "chapters").glob("*.html"):
        text = path.read_text()
        assert ">stale<" not in text and "source several" not in text
        said = re.findall(r"older instrument</span>(.*)</p>", text)
        assert {one.partition(":")[2].strip() for one in said} <= {"distance."}


@pytest.mark.parametrize("edition", ["book", "site"])
def test_verdicts_can_be_read_by_a_machine(edition, request):
    html = request.getfixturevalue(edition)
    data = json.loads((html / "verdicts.json").read_text())
    jsonschema.validate(data, json.loads((html / "verdicts.schema.json").read_text()))
    assert [claim["id"] for claim in data["claims"]] == list(criteria())
    found = verdicts.of_edition(edition)
    for claim in data["claims"]:
        page, _, anchor = claim["page"].partition("#")
        assert anchor in anchors(html / page), claim["page"]
        assert claim["outcome"] == found[claim["id"]]["outcome"]


def test_every_term_has_a_definition(site):
    page = (site / "notation.html").read_text()
    terms = page.count('<dt id="term-')
    assert terms >= 10 and page.count("<dd>") >= terms


@pytest.mark.parametrize("name", PAGES)
def test_every_public_function_has_a_place_on_its_modules_page(site, name):
    page = site / "api" / f"{name}.html"
    wanted = {f"widemin.{name}.{one.__name__}" for one in public(name)}
    assert wanted <= anchors(page)


def test_pages_and_site_are_small(site):
    for path in site.rglob("*.html"):
        assert path.stat().st_size < 1.5e6, path
    # 6 MB of them are the package's own files, line by line.
    files = [p for p in site.rglob("*") if p.is_file() and p.suffix != ".pdf"]
    assert sum(p.stat().st_size for p in files) < 30e6


def test_plain_papermill_runs_a_chapter(tmp_path, cache):
    papermill = shutil.which("papermill") or str(WIDEMIN.with_name("papermill"))
    source = paths.NOTEBOOKS / "01_width_of_minima.ipynb"
    command = [papermill, str(source), str(tmp_path / "out.ipynb"), "-p", "epochs", "1"]
    environment = os.environ | {"WIDEMIN_CACHE": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "epochs = 1" in (tmp_path / "out.ipynb").read_text()


@contextlib.contextmanager
def browser(**options):
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
    flags += ["--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium.new_context(offline=True, **options)
        chromium.close()


needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_verdicts_can_be_narrowed_and_are_seen_whole(site, width):
    found = verdicts.of_edition("site")
    wanted = [v for v in found.values() if v["outcome"] == "not reproduced"]
    with browser(viewport={"width": width, "height": 900}) as context:
        page = context.new_page()
        page.goto((site / "verdicts.html").as_uri())
        assert page.locator(".verdict-filter output").inner_text() == "61 of 61 claims"
        page.get_by_label("outcome").select_option("not reproduced")
        assert page.locator("tbody tr:visible").count() == len(wanted)
        page.get_by_label("paper").select_option("Wei et al.")
        ours = [v for v in wanted if v["claim"].startswith("S")]
        assert page.locator("tbody tr:visible").count() == len(ours)
        assert page.locator("h2:visible", has_text="Wang").count() == 0
        for cell in page.locator("tbody tr:visible td").all():
            box = cell.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_card_has_one_word_one_class_and_its_sign(site, theme):
    classes = SAID["class"]
    signs = dict(zip(classes, "✓◐✗↔?…", strict=True))
    shown = verdicts.of_edition("site")
    seen = {}
    with browser(color_scheme=theme) as context:
        for path in sorted((site / "chapters").glob("0[1-5]*.html")):
            page = context.new_page()
            page.goto(path.as_uri())
            seen |= page.evaluate("""Object.fromEntries(
                [...document.querySelectorAll(".admonition.verdict")].map((card) => [
                    card.id.slice(8).toUpperCase(),
                    [[...card.classList].filter((name) => name.startsWith("outcome-")),
                     [...card.querySelectorAll(".outcome")].map((at) => [
                        at.innerText, getComputedStyle(at, "::before").content,
                        getComputedStyle(at).backgroundColor,
                        getComputedStyle(card).borderLeftColor])]]))""")
            page.close()
    assert len(seen) == len(shown) - len(UNRUN)
    for name, (own, badges) in seen.items():
        word = shown[name]["outcome"]
        [(text, sign, fill, edge)] = badges
        assert own == [classes[word]] and text == word and fill == edge
        assert signs[word] in sign, (name, sign)
    assert len({badges[0][2] for _, badges in seen.values()}) == len(
        {shown[name]["outcome"] for name in seen}
    )


@needs_chromium
def test_what_a_card_folds_opens_by_key_by_address_and_in_print(site):
    chapter = (site / "chapters" / "01_width_of_minima.html").as_uri()
    with browser(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto(chapter)
        fold = page.locator("#verdict-w2-parts")
        table = fold.locator("table")
        assert not table.is_visible()
        heights = page.locator(".admonition.verdict").evaluate_all(
            "cards => cards.map((card) => card.offsetHeight)"
        )
        assert sum(heights) / len(heights) < 260  # with all of it open, 600
        fold.locator("summary").focus()
        page.keyboard.press("Enter")
        assert table.is_visible()
        page.keyboard.press("Enter")
        assert not table.is_visible()
        page.emulate_media(media="print")
        assert table.bounding_box()["height"] > 50
        page.emulate_media(media="screen")
        page.goto(f"{chapter}#verdict-w2-parts")
        assert table.is_visible()


def heading(page):
    """The title of a page, without the sign that links to it."""
    found = re.search(r"<h1>([^\n]*?)<a class=\"headerlink", page.read_text())
    return re.sub(r"<.*?>", "", found[1])


def the_pages(html):
    """Every page that a reader turns to."""
    found = [
        p for folder in ("", "api/", "chapters/") for p in html.glob(f"{folder}*.html")
    ]
    return sorted(path for path in found if path.stem not in ("index", "genindex"))


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["book", "site"])
def test_in_a_browser_without_a_network(edition, width, request):
    html = request.getfixturevalue(edition)
    with browser(viewport={"width": width, "height": 900}) as context:
        for path in the_pages(html):
            page = context.new_page()
            wrong: list[str] = []
            page.on("requestfailed", lambda r, wrong=wrong: wrong.append(r.url))
            page.on("pageerror", lambda e, wrong=wrong: wrong.append(str(e)))
            page.on(
                "console",
                lambda m, wrong=wrong: m.type == "error" and wrong.append(m.text),
            )
            page.goto(path.as_uri())
            if path.parent.name == "chapters":
                page.wait_for_function("window.MathJax && MathJax.startup.promise")
                page.evaluate("MathJax.startup.promise")
                assert page.locator("mjx-container").count() > 0, path.name
            scroll = page.evaluate("document.documentElement.scrollWidth")
            assert not wrong and scroll <= width, path.name
            page.close()


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(site, theme):
    from axe_playwright_python.sync_playwright import Axe

    # Themes differ in their colours alone.
    options = {"runOnly": ["color-contrast"]} if theme == "dark" else None
    with browser(color_scheme=theme) as context:
        for path in the_pages(site):
            page = context.new_page()
            page.goto(path.as_uri())
            found = Axe().run(page, options=options).response["violations"]
            serious = [v for v in found if v["impact"] in ("serious", "critical")]
            words = [
                f"{v['id']}: {node['html'][:200]}"
                for v in serious
                for node in v["nodes"][:3]
            ]
            assert not words, (path.name, words)
            page.close()


@needs_chromium
def test_the_book_can_be_printed_and_its_figures_taken_along(site, cache):
    done = widemin("book", "--edition", "site", "--pdf", "--figures", cache=cache)
    assert done.returncode == 0, done.stderr
    data = (site.parent / "widemin.pdf").read_bytes()
    assert data.startswith(b"%PDF") and (site / "widemin.pdf").read_bytes() == data
    printed = Printed(data)
    marks = [(title, page) for title, page, _ in printed.bookmarks()]
    names = [heading(site / "chapters" / f"{name}.html") for name in notebooks.pages()]
    assert [title for title, _ in marks if title in names] == names
    assert all(below for title, _, below in printed.bookmarks() if title in names)
    cited = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    authors = [author["name"] for author in cited["authors"]]
    front = printed.words(1)
    for said in (heading(site / "intro.html"), cited["version"], *authors):
        assert said.replace(" ", "") in front.replace(" ", ""), (said, front)
    assert "Contents" in printed.words(2)
    begin = next(page for _, page in marks)
    numbers = [n for page in range(2, begin) for n in printed.links(page)]
    assert set(dict(marks).values()) <= set(numbers) and numbers == sorted(numbers)
    told = "".join(printed.words(page) for page in range(2, begin))
    for title, page in marks:  # in the contents, with the page where the chapter begins
        assert f"{title}{page}".replace(" ", "") in told.replace(" ", ""), title
        assert title.replace(" ", "") in printed.words(page).replace(" ", "")
    for page in range(2, len(printed.pages) + 1):
        assert printed.words(page).startswith(str(page)), page
    a4 = rb"/MediaBox \[0 0 59[456][.\d]* 84[12]"
    assert all(re.search(a4, page) for page in printed.pages)
    for page in (site / "intro.html", site / "api" / "attacks.html"):
        assert 'href="' + "../" * (page.parent != site) + 'widemin.pdf"' in (
            page.read_text()
        )
        assert "<!--pdf" not in page.read_text()
    drawn = sorted(path.name for path in (site.parent / "figures").iterdir())
    assert len(drawn) > 60 and {"fig-ways.svg", "fig-ways.pdf"} <= set(drawn)


@needs_chromium
def test_a_search_without_a_network_finds_a_term(site):
    with browser() as context:
        page = context.new_page()
        page.goto((site / "search.html").as_uri() + "?q=FOSC")
        page.wait_for_selector("#search-results li a")
        found = page.locator("#search-results li a").all_inner_texts()
        assert "3. Dynamic adversarial training" in found


@needs_chromium
def test_dark_mode_switches(site):
    with browser() as context:
        page = context.new_page()
        page.goto((site / "intro.html").as_uri())
        seen = set()
        for _ in range(3):
            seen.add(page.evaluate("document.documentElement.dataset.theme"))
            page.locator("button.theme-switch-button:visible").first.click()
        assert seen == {"light", "dark"}


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_first_screen_has_answer_buttons_and_slider(site, theme):
    size = {"width": 1280, "height": 900}
    with browser(viewport=size, color_scheme=theme) as context:
        page = context.new_page()
        page.goto((site / "intro.html").as_uri())
        for what in (".answer", ".buttons", ".logit-slider", ".front-slider table"):
            box = page.locator(what).bounding_box()
            assert box["y"] > 0 and box["y"] + box["height"] <= 900, what
        for button in page.locator(".buttons a").all():
            address = button.get_attribute("href")
            assert address.startswith(("http", "#")) or (site / address).exists()


@needs_chromium
def test_what_is_narrowed_stands_in_the_address(site):
    found = verdicts.of_edition("site").values()
    wanted = [v["claim"] for v in found if v["outcome"] == "not reproduced"]
    with browser() as context:
        page = context.new_page()
        address = (site / "verdicts.html").as_uri()
        page.goto(f"{address}?outcome=not+reproduced")
        assert page.locator("tbody tr:visible").count() == len(wanted)
        page.get_by_label("paper").select_option("Our own")
        assert page.url == f"{address}?outcome=not+reproduced&paper=Our+own"
        page.get_by_label("outcome").select_option("partly")
        page.reload()
        partly = [v["claim"] for v in found if v["outcome"] == "partly"]
        ours = [name for name in partly if name.startswith("N")]
        assert page.locator("tbody tr:visible").count() == len(ours) > 0
        page.get_by_label("outcome").select_option("")
        page.get_by_label("paper").select_option("")
        assert page.url == address
        page.goto(f"{address}?outcome=nonsense")
        assert page.locator(".verdict-filter output").inner_text() == "61 of 61 claims"


@needs_chromium
@pytest.mark.parametrize("where", ["intro.html", "chapters/01_width_of_minima.html"])
def test_the_slider_moves_what_the_scale_moves(site, where):
    with browser() as context:
        page = context.new_page()
        page.goto((site / where).as_uri())
        colours = {
            row.locator("th").inner_text(): row.get_attribute("class")
            for row in page.locator("table.logit-scale tbody tr").all()
        }
        assert colours["FGSM, cross-entropy float32"] == "fading"
        assert colours["FGSM, margin"] == colours["PGD, margin"] == "lasting"
        assert page.locator(".logit-slider output").inner_text() == "logits times 1"
        slider = page.locator(".logit-slider input")
        rows = page.locator("table.logit-scale tbody tr")

        def shown():
            cells = [row.locator("td:visible").all_inner_texts() for row in rows.all()]
            names = [row.locator("th").inner_text() for row in rows.all()]
            return {n: float(c) for n, [c] in zip(names, cells, strict=True)}

        before = shown()
        slider.focus()
        page.keyboard.press("End")
        after = shown()
        fading = "FGSM, clipped probabilities"
        assert page.locator(".logit-slider output").inner_text() == "logits times 64"
        assert after["no attack"] == before["no attack"]
        assert after[fading] > before[fading] + 10


def test_numbers_of_a_figure_can_be_downloaded(site):
    page = site / "chapters" / "01_width_of_minima.html"
    [link] = re.findall(r'href="([^"]*fig-scale\.csv)"', page.read_text())
    numbers = pd.read_csv(page.parent / link)
    assert {"FGSM, margin", "no attack"} <= set(numbers["series"])
    assert numbers["y"].between(0, 100).all()


def test_every_caption_leads_to_the_lines_that_draw(site):
    for chapter in notebooks.chapters():
        page = site / "chapters" / f"{chapter}.html"
        captions = re.findall(r"<figcaption>.*?</figcaption>", page.read_text(), re.S)
        assert captions
        for caption in captions:
            links = re.findall(r'href="(\S+)\.html#L-(\d+)" title="(\S+)"', caption)
            assert links and ".papers." in links[0][2]
            for file, line, name in links:
                source = paths.ROOT / f"{file.removeprefix('../code/')}.py"
                there = source.read_text().splitlines()[int(line) - 1]
                assert there.startswith(f"def {name.rpartition('.')[2]}(")


def test_source_files_are_pages_line_by_line(site):
    page = (site / "code" / "widemin" / "attacks" / "pgd.html").read_text()
    text = re.sub(r"<[^>]+>", "", page[page.index('<div class="highlight') :])
    source = (paths.ROOT / "widemin" / "attacks" / "pgd.py").read_text().splitlines()
    for number in (1, len(source)):
        assert f"{number}{unescape(source[number - 1])}" in unescape(text)
