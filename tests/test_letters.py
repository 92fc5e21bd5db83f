"""Every figure as it is shown: no wider than the screen, its letters large enough."""

import json

import pytest

from tests.test_book import book, browser, cache, needs_chromium, site  # noqa: F401
from widemin import paths
from widemin.book import notebooks

pytestmark = pytest.mark.slow
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
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["book", "site"])
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


@pytest.mark.parametrize("chapter", notebooks.chapters())
def test_one_name_has_one_colour_in_all_figures_of_a_chapter(chapter, monkeypatch):
    """The chapter is drawn again from the published rows, and its legends are read."""
    import matplotlib.pyplot as plt
    from matplotlib import colors

    monkeypatch.setattr("builtins.display", lambda *_, **__: None, raising=False)
    text = (paths.NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    found: dict[str, set[str]] = {}
    for cell in cells:
        source = "".join(line for line in cell["source"] if line[:1] != "%")
        exec(compile(source, cell["id"], "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names |= notebooks.resolve(chapter, "site", {})
        for number in plt.get_fignums():
            for ax in plt.figure(number).axes:
                for artist, label in zip(*ax.get_legend_handles_labels(), strict=True):
                    colour = colour_of(artist)
                    # Grey in a legend: the name goes by its mark alone.
                    if colour is not None and colors.to_hex(colour) not in GREYS:
                        found.setdefault(label, set()).add(colors.to_hex(colour))
        plt.close("all")
    assert found
    assert not {label: of for label, of in found.items() if len(of) > 1}


def colour_of(artist):
    """The colour of a line, of marks all alike, or None."""
    if hasattr(artist, "get_color"):
        return artist.get_color()
    if hasattr(artist, "get_edgecolor") and len(artist.get_edgecolor()):
        return artist.get_edgecolor()[0]
    return None
