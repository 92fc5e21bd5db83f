"""Numbers in prose stay whole: unit, interval and sign."""

from docutils.core import publish_doctree

from widemin.book import sphinx_ext


def bound(text):
    doctree = publish_doctree(text)
    sphinx_ext._bind(None, doctree, "page")
    return doctree.astext()


def test_a_line_does_not_end_inside_a_number():
    assert bound("from 95 % to 49.1 ± 5.2 %") == "from 95\xa0% to 49.1 ±\xa05.2\xa0%"


def test_a_percent_sign_stays_with_a_number_that_was_put_in():
    assert bound("**86** % of them") == "86\xa0% of them"


def test_a_minus_is_no_hyphen_and_a_hyphen_no_minus():
    assert bound("falls by -2.4 (-1 to PGD-10)") == "falls by −2.4 (−1 to PGD-10)"
    assert bound("on 2026-11-26, CIFAR-10, x-1") == "on 2026-11-26, CIFAR-10, x-1"


def test_code_is_left_as_it_is():
    assert bound("``run -1 95 %``") == "run -1 95 %"
    assert bound("::\n\n   run -1 95 %") == "run -1 95 %"
