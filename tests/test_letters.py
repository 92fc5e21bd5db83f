"""Every figure as it is shown: no wider than the screen, its letters large enough."""

import json
import re
from xml.etree import ElementTree

import pytest

from tests.test_book import book, browser, cache, needs_chromium, site  # noqa: F401
from widemin.book import notebooks, sources, verdicts

pytestmark = pytest.mark.slow
SVG = "{http://www.w3.org/2000/svg}"
LEAST = 11  # CSS pixels, as shown
GREYS = {"#808080", "#666666"}

# Where a page shows its figures, how wide, and whether anything moves sideways.
SHOWN = """() => [...document.querySelectorAll('figure img, .cell_output img')].map(
    image => {
        const box = image.getBoundingClientRect(), figure = image.closest('figure');
        const over = figure ? figure.scrollWidth - figure.clientWidth : 0;
        return {name: figure?.id || image.alt, file: image.currentSrc,
                width: box.width, right: box.right, over};
    })"""
# The size of each piece of text of a drawing, by the units of its width.
LETTERS = """() => [...document.querySelectorAll('text')].flatMap(text =>
    (text.children.length ? [...text.children] : [text])
        .filter(piece => piece.textContent.trim()).map(piece => {
            const at = text.getScreenCTM();
            const size = parseFloat(getComputedStyle(piece).fontSize);
            return [size * Math.hypot(at.a, at.b), piece.textContent];
        }))"""


def shown(page, address):
    """The figures of a page, each with its smallest letters."""
    page.goto(address)
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    figures = page.evaluate(SHOWN)
    for figure in figures:
        page.goto(figure["file"])
        natural = page.evaluate(
            "document.documentElement.getBoundingClientRect().width"
        )
        sizes = page.evaluate(LETTERS)
        assert sizes, figure
        scale = figure["width"] / natural
        figure["least"] = min((round(scale * size, 1), text) for size, text in sizes)
    return figures


@needs_chromium
@pytest.mark.parametrize(
    ("edition", "width"), [("book", 390), ("site", 390), ("site", 1280)]
)
def test_every_figure_fits_and_can_be_read(edition, width, request):
    html = request.getfixturevalue(edition)
    wrong, seen = [], 0
    with browser(viewport={"width": width, "height": 900}) as context:
        page = context.new_page()
        for chapter in notebooks.pages():
            path = html / "chapters" / f"{chapter}.html"
            for figure in shown(page, path.as_uri()):
                fits = figure["right"] <= width and figure["over"] <= 0
                narrow = "/phones/" in figure["file"]
                named = not figure["name"].startswith("fig-") or narrow == (width < 577)
                seen += 1
                if not (fits and named and figure["least"][0] >= LEAST):
                    wrong.append(figure)
    assert seen > 30 and not wrong, wrong


@needs_chromium
def test_a_table_that_does_not_fit_a_phone_says_so_until_its_end(request):
    with browser(viewport={"width": 390, "height": 900}) as context:
        page = context.new_page()
        name = "02_sam_and_adversarial_training.html"
        site = request.getfixturevalue("site")
        page.goto((site / "chapters" / name).as_uri())
        wide = page.locator(".cell_output .output.text_html.more")
        assert wide.count() > 0
        first = wide.first.element_handle()
        assert first.get_attribute("tabindex") == "0"
        first.evaluate("box => box.scrollTo(10000, 0)")
        page.wait_for_function("box => !box.classList.contains('more')", arg=first)


def in_legends(drawing):
    """Yield names and colours of a drawing's legends, as SVG draws them in turn."""
    for legend in ElementTree.fromstring(drawing).iter(f"{SVG}g"):
        colour = None
        for element in legend.iter() if "legend" in legend.get("id", "") else ():
            inked = re.search(r"stroke: (#\w{6})", element.get("style", ""))
            if element.tag == f"{SVG}text":
                yield "".join(element.itertext()), colour
            elif inked:
                colour = inked[1]


@pytest.mark.parametrize("chapter", notebooks.chapters())
def test_one_name_has_one_colour_in_all_figures_of_a_chapter(chapter, site):  # noqa: F811
    found, drawn = {}, json.loads(verdicts.executed("site", chapter).read_text())
    for _, data in sources.figures(drawn):
        for name, colour in in_legends("".join(data.get("image/svg+xml", "<svg/>"))):
            # Grey in a legend: the name goes by its mark alone.
            if colour is not None and colour not in GREYS:
                found.setdefault(name, set()).add(colour)
    assert len(found) > 3
    assert not {name: colours for name, colours in found.items() if len(colours) > 1}
