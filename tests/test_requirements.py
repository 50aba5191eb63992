"""docs/security.md says how each requirement is met, and by which tests that is proven. Neither it
nor docs/attacks.md names a test that did not run: this file comes last."""

import re
from pathlib import Path

import pytest
from evidence import Run, is_written, proofs_on

from nocookie.testing.audit.requirements import CHECKS, NOT_FROM_OUTSIDE, TITLES

DOCS = Path(__file__).resolve().parent.parent / "docs"
TEXT = (DOCS / "security.md").read_text("utf-8")
ATTACKS = (DOCS / "attacks.md").read_text("utf-8")
PROOFS = list(dict.fromkeys(proofs_on(TEXT + ATTACKS)))

#: What a row may say. The last names no test.
STATES = ("met", "in part", "not met")

#: The check that the reference application does not pass, because it does not promise that.
UNPROMISED = {54}

ROWS = {
    int(number): (state.strip(), title.strip(), how.strip(), proof.strip())
    for number, title, state, how, proof in re.findall(
        r"^\| REQ-(\d\d) \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", TEXT, re.MULTILINE
    )
}


def test_every_requirement_has_its_row_in_the_words_of_the_audit():
    assert {number: title for number, (_, title, _, _) in ROWS.items()} == TITLES
    assert list(ROWS) == sorted(TITLES)


@pytest.mark.parametrize("number", TITLES)
def test_a_row_says_how_it_is_proven_or_why_it_is_not(number):
    state, _, how, proof = ROWS[number]
    assert state in STATES
    named = proofs_on(proof)
    assert bool(named) == (state != "not met")
    if state != "met":
        assert len(how) > 30, "what is missing, and what to do"


def test_the_rows_of_the_audit_are_those_that_it_checks():
    marked = {number for number, row in ROWS.items() if row[3].startswith("audit")}
    assert marked == CHECKS.keys() - UNPROMISED
    assert not marked & NOT_FROM_OUTSIDE.keys()


def test_the_summary_counts_the_rows():
    counts = {state: sum(row[0] == state for row in ROWS.values()) for state in STATES}
    said = dict(re.findall(r"^- \*\*([a-z ]+)\*\*, (\d+):", TEXT, re.MULTILINE))
    assert said == {state: str(count) for state, count in counts.items()}


@pytest.mark.parametrize("proof", PROOFS)
def test_what_is_named_as_a_proof_ran_and_passed(proof, run):
    assert run.fault_of(proof) is None, f"{proof} {run.fault_of(proof)}"


# -- the judge can say no ------------------------------------------------------------------------

THIS = "test_requirements.py::test_the_summary_counts_the_rows"


def run_of(*nodes, whole=True, **more):
    run = Run()
    run.is_whole = whole
    if nodes:
        run.collected[THIS] = set(nodes)
    for name, value in more.items():
        setattr(run, name, set(value))
    return run


@pytest.mark.parametrize(
    ("run_", "fault"),
    [
        (run_of(), "was not collected"),
        (run_of("a", "b"), "was skipped"),
        (run_of("a", "b", whole=False), "was skipped"),
        (run_of("a", "b", passed="a"), None),
        (run_of("a", "b", passed="a", failed="b"), "failed"),
        (run_of("a", "b", passed="a", deselected="b", needs_server="b"), None),
        (run_of("a", deselected="a", needs_server="a"), None),
        (run_of("a", "b", deselected="a", needs_server="a", without_server="b"), None),
        (run_of("a", deselected="a"), "did not run"),
        (run_of("a", "b", deselected="a", needs_server="a"), "did not run"),
        (run_of("a", deselected="a", whole=False), None),
        (run_of(whole=False), None),
    ],
)
def test_a_proof_is_what_ran_and_passed(run_, fault):
    assert run_.fault_of(THIS) == fault


def report(outcome, when="call", why=None):
    return pytest.TestReport("a", ("test_requirements.py", 1, "a"), {}, outcome, why, when)


@pytest.mark.parametrize(
    ("reports", "fault"),
    [
        ([report("passed", "setup"), report("passed"), report("passed", "teardown")], None),
        ([report("passed", "setup"), report("passed"), report("failed", "teardown")], "failed"),
        ([report("failed", "setup")], "failed"),
        ([report("passed", "setup"), report("failed")], "failed"),
        ([report("passed", "setup"), report("passed", "teardown")], "was skipped"),
        ([report("skipped", "setup", ("x.py", 1, "Skipped: not as root"))], "was skipped"),
        ([report("skipped", "setup", ("x.py", 1, "Skipped: NOT TESTED: memcached"))], None),
        ([], "was skipped"),
    ],
)
def test_only_a_test_that_went_through_has_passed(reports, fault):
    run = run_of("a")
    for one in reports:
        run.report(one)
    assert run.fault_of(THIS) == fault


def test_a_proof_that_is_not_written_is_none():
    assert is_written(THIS)
    assert is_written("stores/test_memory.py::test_expiry_is_decided_on_read"), "of a suite"
    for proof in (
        "test_requirements.py::test_of_nothing",
        "test_of_nothing.py::test_the_summary_counts_the_rows",
        "test_ids.py::test_expiry_is_decided_on_read",
    ):
        assert not is_written(proof)
        assert run_of(whole=False).fault_of(proof) == "is not there"


def test_this_run_is_recorded(run):
    assert THIS in run.collected
    assert "test_requirements.py::test_a_proof_is_what_ran_and_passed" in run.collected
