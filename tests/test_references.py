"""Every citation has an entry, every entry a citation and a place to read it."""

import re

from pybtex.database import parse_file

from widemin import paths

ENTRIES = parse_file(str(paths.BOOK / "references.bib")).entries


def cited():
    pages = [*paths.BOOK.rglob("*.md"), *paths.NOTEBOOKS.glob("*.ipynb")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    found = re.findall(r"\{cite[a-z:]*\}`([^`]*)`", text)
    return {key.strip() for keys in found for key in keys.split(",")}


def test_citations_and_entries_are_the_same():
    assert cited() == set(ENTRIES)


def test_an_entry_can_be_read_somewhere():
    links = {"doi", "eprint", "url"}
    assert [k for k, e in ENTRIES.items() if not links & set(e.fields)] == [
        "khritankov"
    ]
    for key, entry in ENTRIES.items():
        assert entry.persons["author"], key
        if "eprint" in entry.fields:
            assert entry.fields["archiveprefix"] == "arXiv", key
            assert re.fullmatch(r"\d{4}\.\d{4,5}", entry.fields["eprint"]), key


def test_the_poster_has_its_three_authors_and_is_called_one():
    poster = ENTRIES["khritankov"]
    names = [person.last_names for person in poster.persons["author"]]
    assert names == [["Khritankov"], ["Veprikov"], ["Smirnov"]]
    assert poster.fields["title"].endswith("A Simple Training Technique")
    assert poster.fields["howpublished"].startswith("Poster")
    assert not {"year", "booktitle", "journal"} & set(poster.fields)
