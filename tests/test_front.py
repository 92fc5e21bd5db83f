"""The front page, README.md, and where the book's repository is."""

import json
import re
import subprocess

import pytest
import yaml

from tests.test_verdicts import page as executed_page
from widemin import paths
from widemin.book import SAID, coverage, front, notebooks, sources, verdicts
from widemin.papers import claims
from widemin.papers.claims.verdict import kind_of
from widemin.papers.figures import WAYS
from widemin.papers.khritankov import figures

SLIDER = """<table border="1" class="dataframe dataframe logit-scale">
  <thead>
    <tr style="text-align: right;"><th></th><th>times 1</th><th>times 64</th></tr>
  </thead>
  <tbody>
    <tr>
      <th>FGSM, clipped probabilities</th>
      <td>13.9</td>
      <td>98.1</td>
    </tr>
    <tr>
      <th>FGSM, margin</th>
      <td>8.2</td>
      <td>8.3</td>
    </tr>
  </tbody>
</table>"""


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """A checkout of its own, and a function that says where it was cloned from."""
    for name, text in (
        ("_config.yml", "repository: {url: ''}"),
        ("pyproject.toml", 'name = "widemin"'),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(paths, "ROOT", tmp_path)

    def clone(address):
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
        call = ["git", "-C", tmp_path, "remote", "add", "origin", address]
        subprocess.run(call, check=True)

    return clone


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("https://github.com/someone/widemin", "https://github.com/someone/widemin"),
        (
            "https://github.com/someone/widemin.git",
            "https://github.com/someone/widemin",
        ),
        ("https://github.com/someone/widemin/", "https://github.com/someone/widemin"),
        (
            "https://me:s3cret@github.com/someone/widemin.git",
            "https://github.com/someone/widemin",
        ),
        (
            "https://gh_to@ken@github.com/someone/widemin",
            "https://github.com/someone/widemin",
        ),
        (
            "git@github.com:someone/wide.minima.git",
            "https://github.com/someone/wide.minima",
        ),
        ("github.com:someone/widemin.git", "https://github.com/someone/widemin"),
        (
            "ssh://git@github.com:22/someone/widemin.git",
            "https://github.com/someone/widemin",
        ),
        (
            "git@gitlab.com:group/sub/widemin.git",
            "https://gitlab.com/group/sub/widemin",
        ),
        (
            "ssh://git@codeberg.org/someone/widemin.git",
            "https://codeberg.org/someone/widemin",
        ),
        ("https://example.org/someone/widemin.git", ""),
        ("https://github.com.example.org/someone/widemin", ""),
        ("https://example.org/github.com/someone/widemin", ""),
        ("https://notgithub.com/someone/widemin", ""),
        ("https://github.com/widemin", ""),
        ("/srv/github.com/widemin", ""),
        ("../widemin", ""),
    ],
)
def test_the_address_is_that_of_origin_on_a_public_host(origin, address, public):
    origin(address)
    assert front.repository() == public


def test_what_the_settings_name_goes_before_origin(origin):
    origin("https://github.com/someone/widemin")
    named = "repository: {url: 'https://me:s3cret@gitlab.com/us/book.git'}"
    (paths.ROOT / "_config.yml").write_text(named)
    assert front.repository() == "https://gitlab.com/us/book"
    named = "repository: {url: 'https://git.example.org/us/book'}"
    (paths.ROOT / "_config.yml").write_text(named)
    assert front.repository() == "https://git.example.org/us/book"


def test_without_a_remote_or_git_there_is_no_address(origin, monkeypatch):
    subprocess.run(["git", "init", "-q", paths.ROOT], check=True)
    assert front.repository() == ""
    monkeypatch.setenv("PATH", "")
    assert front.repository() == ""


@pytest.mark.parametrize(
    ("address", "services"),
    [
        ("https://github.com/us/book", ["Colab", "Binder"]),
        ("https://gitlab.com/group/sub/book", ["Binder"]),
        ("https://codeberg.org/us/book", []),
        ("https://git.example.org/us/book", []),
        ("", []),
    ],
)
def test_a_chapter_runs_on_services_that_know_its_host(address, services):
    found = front.launch(address, "00_primer")
    assert list(found) == services
    for link in found.values():
        assert link.endswith("notebooks/00_primer.ipynb") and "{" not in link
    if "gitlab" in address:
        assert "/gl/group%2Fsub%2Fbook/main?" in found["Binder"]


def test_notebooks_of_the_pages_name_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(front, "repository", lambda: "https://codeberg.org/us/book")
    edition(monkeypatch, tmp_path, ("W7", "fails"))
    path = verdicts.executed("site", notebooks.chapters()[0])
    notebook = json.loads(path.read_text())
    notebook["cells"][0]["source"] = 'repository = ""\n'
    path.write_text(json.dumps(notebook))
    sources.stage("site", tmp_path / "site" / "source")
    for copy in (tmp_path / "site" / "source").rglob(path.name):
        assert r"repository = \"https://codeberg.org/us/book\"" in copy.read_text()
    assert len(list((tmp_path / "site" / "source").rglob(path.name))) == 2
    settings = yaml.safe_load((tmp_path / "site" / "_config.yml").read_text())
    theme = settings["sphinx"]["config"]["html_theme_options"]
    assert theme["repository_url"] == "https://codeberg.org/us/book"
    assert theme["use_repository_button"] is False


def edition(monkeypatch, tmp_path, *found, preset="site"):
    """Write chapter 1 of an edition with a slider; return its front page."""
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    cover = {"a table": coverage.Cover(8, 2, 1, 6, 0, 3, 24, 9.5, 1.5)}
    monkeypatch.setattr(coverage, "of_all", lambda _: cover)
    path = executed_page("site", *found)
    notebook = json.loads(path.read_text().replace('\\"site\\"', f'\\"{preset}\\"'))
    table = {"outputs": [{"data": {"text/html": SLIDER.splitlines(keepends=True)}}]}
    notebook["cells"].append({"cell_type": "code", "metadata": {}} | table)
    path.write_text(json.dumps(notebook))
    return front.page("site")


def test_the_front_page_has_a_card_a_paper_and_a_block_a_claim(tmp_path, monkeypatch):
    text = edition(monkeypatch, tmp_path, ("W1", "passes"), ("W7", "fails"))
    cards = text.split(":class-card: paper-card")[1:]
    assert len(cards) == 5
    told = verdicts.all_claims("site")
    for card, (paper, about) in zip(cards, SAID["papers"].items(), strict=True):
        mine = [n for n, claim in claims.criteria().items() if claim.paper == paper]
        blocks = re.findall(r'<li><a class="outcome-([a-z-]+)" href="(\S+)"', card)
        others = sum(kind_of(name) in ("argued", "control") for name in mine)
        said = f", {others} of them arguments or checks of our own" * (others > 0)
        assert len(blocks) == len(mine)
        assert f'<p class="strip-counts">{len(mine)} claims{said}: ' in card
        labels = re.findall(
            r' title="(\w+), ([a-z ]+): .*?" aria-label="\1, \2: ', card
        )
        assert [(n, told[n]["outcome"]) for n in mine] == labels
        words = [word for _, word in labels]
        for word in set(words):
            assert re.search(rf"[:,] {words.count(word)} {word}(,|<)", card), word
        assert all(
            link.startswith(f"chapters/{about['file']}.html") for _, link in blocks
        )
        assert "{cite:t}" in card or paper == "ours"
    assert ("reproduced", "chapters/01_width_of_minima.html#verdict-w1") in re.findall(
        r'class="outcome-([a-z-]+)" href="(\S+)"', text
    )
    assert (
        "**2 of 8 cells of the papers' tables (25.0 %) were run at the papers" in text
    )


def test_the_answer_is_given_where_the_verdicts_carry_it(tmp_path, monkeypatch):
    decided = [("W6", "passes"), ("W7", "fails"), ("W13", "fails")]
    text = edition(monkeypatch, tmp_path, *decided)
    assert "yes, but not enough" in text and "does\nnot answer it" not in text
    for other in (("W6", "fails"), ("W7", "inconclusive")):
        text = edition(monkeypatch, tmp_path, *(dict(decided) | dict([other])).items())
        assert "yes, but not enough" not in text and "does\nnot answer it" in text


def test_the_slider_reads_its_own_table(tmp_path, monkeypatch):
    text = edition(monkeypatch, tmp_path, ("W7", "fails"))
    assert "leaves 13.9 % right at first and 98.1 % at the end" in text
    assert "leaves 8.2 % right at first and 8.3 % at the end" in text
    assert "<th>images still right (%)</th>" in text


def test_a_smoke_edition_answers_nothing_and_says_so(tmp_path, monkeypatch):
    decided = [("W6", "passes"), ("W7", "fails"), ("W13", "fails")]
    text = edition(monkeypatch, tmp_path, *decided, preset="smoke")
    assert front.kind("site") == "smoke" and "**This edition answers nothing.**" in text
    assert "yes, but not enough" not in text and "rest on tiny digits" in text
    sources.stage("site", tmp_path / "site" / "source")
    banner = (tmp_path / "site" / "_config.yml").read_text()
    assert "Smoke edition: tiny digits, decides nothing." in banner
    edition(monkeypatch, tmp_path, *decided, preset="lab")
    sources.stage("site", tmp_path / "site" / "source")
    assert "Smoke edition" not in (tmp_path / "site" / "_config.yml").read_text()


def test_buttons_lead_to_the_repository_or_to_pages_that_exist(tmp_path, monkeypatch):
    def buttons():
        text = edition(monkeypatch, tmp_path, ("W7", "fails"))
        return dict(
            reversed(b)
            for b in re.findall(
                r'^<a class="sd-btn.*?" href="(.*?)">(.*?)</a>', text, re.MULTILINE
            )
        )

    monkeypatch.setattr(front, "repository", lambda: "https://github.com/us/book")
    there = buttons()
    assert list(there) == ["Read", "Run on Colab", "Run on Binder", "Code", "Cite"]
    assert there["Code"] == "https://github.com/us/book"
    monkeypatch.setattr(front, "repository", lambda: "")
    there = buttons()
    assert list(there) == ["Read", "Run", "Code", "Cite"]
    pages = {"chapters/00_primer.html", "rerun.html", "api/index.html", "#cite-it"}
    assert set(there.values()) == pages


def test_each_finding_is_of_a_claim_and_names_its_parts():
    for name, forms in SAID["findings"].items():
        letters = {part.part for part in claims.parts()[name]} | {"ours"}
        assert set(forms) <= set(claims.OUTCOMES)
        for form in forms.values():
            assert set(re.findall(r"{(\w+)}", form)) <= letters, name
    assert len(SAID["findings"]) == 10
    for paper, about in SAID["papers"].items():
        assert claims.criteria()[about["told"]].paper == paper
        assert about["file"] in notebooks.chapters()
        assert verdicts.CHAPTER[paper] == about["file"][:2]


def test_a_finding_with_another_outcome_is_a_statement_and_its_word(
    tmp_path, monkeypatch
):
    edition(monkeypatch, tmp_path, ("W7", "passes"))
    lines = front.page("site", "readme.md.jinja").splitlines()
    told = [line for line in lines if line.startswith("- ")]
    assert len(told) == 10
    assert "- **Reproduced** (W7): *Accuracy under FGSM is real robustness.*" in told
    edition(monkeypatch, tmp_path, ("W7", "fails"))
    text = front.page("site", "readme.md.jinja")
    assert "- **Not reproduced** (W7): *Accuracy under FGSM is real" in text
    assert "leaves fewer images right, by 50.00 points.\n" in text


def test_bars_are_orange_where_the_gradient_fades():
    script = (paths.BOOK / "_static" / "scale.js").read_text()
    pattern = re.compile(re.search(r"fades = /(.*?)/\.test", script)[1])
    fading = {WAYS[name] for name in figures._FADING} | {WAYS["pgd_accuracy"]}
    assert {name for name in WAYS.values() if pattern.search(name)} == fading
    assert f'"{WAYS["natural_accuracy"]}"' in script


def test_the_card_of_links_is_small():
    assert (paths.BOOK / "_static" / "card.png").stat().st_size < 50_000


def test_the_pdf_is_offered_once_it_is_there(tmp_path, monkeypatch):
    """Until it was printed its button is a comment, which printing opens."""
    text = edition(monkeypatch, tmp_path, ("W7", "fails"))
    button = re.search("<!--pdf (<a .*?>PDF</a>)-->", text)[1]
    assert 'href="widemin.pdf"' in button and text.count("widemin.pdf") == 1
