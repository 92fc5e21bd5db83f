"""verdicts.json: what published rows say is in range, and what is not is refused."""

import copy
import json

import jsonschema
import numpy as np
import pytest

from widemin import paths
from widemin.book import notebooks, verdicts
from widemin.experiments import results
from widemin.papers import claims

SCHEMA = json.loads((paths.BOOK / "verdicts.schema.json").read_text())
DECIDED = ("passes", "fails", "inconclusive")


@pytest.fixture(scope="module")
def document():
    """All verdicts by the published rows, as the site's verdicts.json has them."""
    shown = {}
    for paper, number in verdicts.CHAPTER.items():
        [chapter] = notebooks.find(number)
        lists = notebooks.lists_of(chapter, "site")[0]
        table = results.table_of(lists["recipes"], paths.PUBLISHED)
        judge = verdicts.judging(number, table, lists, "site")
        ratios = dict.fromkeys((20, 200), np.array([[1, 1.1], [1, 1.2], [1, 1.3]]))
        names = [n for n, claim in claims.criteria().items() if claim.paper == paper]
        shown |= {name: judge(name, ratios).data() for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdicts, "of_edition", lambda edition: shown)
        return json.loads(json.dumps(verdicts.as_data("site"), allow_nan=False))


def test_the_published_rows_keep_the_schema(document):
    jsonschema.validate(document, SCHEMA)
    assert len(document["claims"]) == 61
    for claim in document["claims"]:
        for part in claim["parts"]:
            if "interval" in part:
                low, high = part["interval"]
                assert low <= part["value"] <= high, (claim["id"], part)
            if part["word"] in DECIDED and part["statistic"] != "theorem":
                assert "interval" in part or "chance" in part or _exact(part), part
    words = {p["word"] for c in document["claims"] for p in c["parts"]}
    assert words == {*DECIDED, "not decidable at this scale", "not yet run"}


def _exact(part):
    """Counted, an identity, of a theorem's toy problem, or a share that never moves."""
    return part["statistic"] in ("count", "error", "share") or "n" not in part


def first(document, word, statistic=None):
    """The first claim and part with a word, or with a statistic."""
    for claim in document["claims"]:
        for part in claim["parts"]:
            if part["word"] == word and statistic in (None, part["statistic"]):
                return claim, part
    raise AssertionError(f"no part with {word}, {statistic}")


def changed(which, measured=None, /, *, without=(), **values):
    """A mistake: a part with other values, or without some."""

    def of(document):
        _, part = first(document, which, measured)
        for name in without:
            part.pop(name, None)
        part |= values

    return of


def outcome(word, becomes):
    """A mistake: a claim with such a part, all of them alike, has another word."""

    def of(document):
        claim, part = first(document, word)
        claim["parts"], claim["outcome"] = [part], becomes

    return of


def no_parts(document):
    document["claims"][0]["parts"] = []


NOT_RUN, LITTLE = "not yet run", "not decidable at this scale"
MISTAKES = {
    "an accuracy above 1": changed("fails", "accuracy", value=1.01),
    "an accuracy's interval below 0": changed(
        "fails", "accuracy", interval=[-0.1, 0.5]
    ),
    "the paper's accuracy in percent": changed("fails", "accuracy", paper=89.87),
    "a share above 1": changed("passes", "share", value=1.5),
    "a correlation above 1": changed("passes", "spearman", value=1.037),
    "a correlation's interval below -1": changed(
        "passes", "spearman", interval=[-1.2, 1]
    ),
    "a difference above 1": changed("passes", "difference", value=5.3),
    "a difference of correlations above 2": changed("passes", "rank_lead", value=2.5),
    "a ratio below 0": changed("passes", "ratio", value=-0.1),
    "an interval of no width": changed("passes", "spearman", interval=[0.5, 0.5]),
    "an interval of one end": changed("passes", "spearman", interval=[0.5]),
    "a chance above 1": changed("passes", "spearman", chance=1.5),
    "a value that is no number": changed("passes", "spearman", value="0.97"),
    "an unknown word": changed("passes", word="holds"),
    "an unknown comparison": changed("passes", compare="="),
    "an unknown kind of part": changed("passes", kind="claim"),
    "a decided word without a value": changed("passes", without=["value"]),
    "a decided word that lacks something": changed("passes", lacks="it takes 3 seeds"),
    "what would decide a decided word": changed("passes", would_decide="9 seeds"),
    "what would decide what cannot be": changed(LITTLE, would_decide="9 seeds"),
    "inconclusive without an interval": changed("inconclusive", without=["interval"]),
    "not decidable for no reason": changed(LITTLE, without=["lacks"]),
    "a value of rows that are not there": changed(NOT_RUN, value=0.5),
    "a part without its criterion": changed("passes", without=["criterion"]),
    "a part without its date": changed("passes", without=["fixed"]),
    "a part with more than is known": changed("passes", holds_up="yes"),
    "a claim without parts": no_parts,
    "reproduced without a part that passes": outcome("fails", "reproduced"),
    "not reproduced without a part that fails": outcome("passes", "not reproduced"),
    "partly with passes alone": outcome("passes", "partly"),
    "partly with failures alone": outcome("fails", "partly"),
    "inconclusive with failures alone": outcome("fails", "inconclusive"),
    "not decidable with passes alone": outcome("passes", LITTLE),
    "not yet run with passes alone": outcome("passes", NOT_RUN),
    "an unknown outcome": outcome("passes", "mostly"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_broken_document_is_refused(document, name):
    broken = copy.deepcopy(document)
    MISTAKES[name](broken)
    assert broken != document
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


@pytest.mark.parametrize("name", ["edition", "source", "claims"])
def test_a_document_is_whole(document, name):
    broken = {key: value for key, value in document.items() if key != name}
    with pytest.raises(jsonschema.ValidationError, match=f"'{name}' is a required"):
        jsonschema.validate(broken, SCHEMA)
