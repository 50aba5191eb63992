"""docs/attacks.md says what was tried to break us, and what happens now: every try has a word and a
test, or it says that there is none. That the tests ran is in test_requirements.py."""

import re
from collections import Counter
from pathlib import Path

import pytest
from evidence import is_written, proofs_on

PAGE = Path(__file__).resolve().parent.parent / "docs" / "attacks.md"
TEXT = PAGE.read_text("utf-8")

#: What became of a try or a finding, and whether a test has to show it.
STATES = {"holds": True, "mended": True, "in part": True, "documented": False, "open": False}
#: For a try that was made by hand, once.
NO_TEST = "no test of its own"

ROWS = {
    number: (anchor, what, found, proof)
    for anchor, number, what, found, proof in re.findall(
        r'^\| (?:<a id="([^"]+)"></a>)?([A-Z]*-?\d+) \| (.+?) \| (.+?) \| (.+?) \|$',
        TEXT,
        re.MULTILINE,
    )
}
TRIES = [str(n) for n in range(1, 85)]
FINDINGS = [
    f"{kind}{n}"
    for kind, last in (("B", 22), ("W", 17), ("L", 9), ("PF-", 4))
    for n in range(1, last + 1)
]


def state_of(number):
    word = re.match(r"\*\*([a-z ]+)\*\*", ROWS[number][2])
    return word and word[1]


def test_every_try_and_every_finding_has_one_row_in_its_order():
    written = re.findall(r"^\| (?:<a [^|]*</a>)?([A-Z]*-?\d+) \|", TEXT, re.MULTILINE)
    assert written == TRIES + FINDINGS
    assert list(ROWS) == written, "four cells each"


@pytest.mark.parametrize("number", TRIES + FINDINGS)
def test_a_row_says_what_happens_and_names_a_test_or_that_there_is_none(number):
    anchor, what, found, proof = ROWS[number]
    assert anchor == ("" if number in TRIES else number.lower())
    assert len(what) > 15
    state = state_of(number)
    assert state in STATES
    named = proofs_on(proof)
    assert bool(named) != (proof == NO_TEST)
    if not named and STATES[state]:
        assert "tried" in found, "then it was seen once, and the row says so"
    if state in ("in part", "documented", "open"):
        assert re.search(r"\]\(", found) or len(found) > 80, "what it means, or where that is said"


def test_what_is_open_below_is_not_called_mended_above():
    """A try that led to a finding says no more than the finding."""
    for number in TRIES:
        about = re.findall(r"\[[A-Z0-9]+\]\(#([a-z0-9]+)\)", ROWS[number][2])
        states = {state_of(each.upper()) for each in about}
        if state_of(number) in ("holds", "mended"):
            assert "open" not in states, number
        elif state_of(number) == "open":
            assert states <= {"open"}, number
        else:
            assert states - {"mended"}, number


def test_the_summary_counts_the_rows():
    for of, numbers in (("tries", TRIES), ("findings", FINDINGS)):
        counts = Counter(map(state_of, numbers))
        cells = " | ".join(str(counts[state]) for state in STATES)
        assert f"\n| {len(numbers)} {of} | {cells} |\n" in TEXT


@pytest.mark.parametrize("proof", dict.fromkeys(proofs_on(TEXT)))
def test_a_test_that_is_named_is_there(proof):
    assert is_written(proof)


def test_whatever_names_a_test_is_seen():
    assert TEXT.count("::test_") == len(proofs_on(TEXT))
