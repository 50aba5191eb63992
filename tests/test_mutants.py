"""The list of mutants keeps up with the code that it breaks."""

import mutants
import mutation
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.promise)
def test_each_mutant_finds_its_place_and_changes_something(mutant):
    assert mutant.source()
    for name in mutant.tests.split():
        assert (mutants.TESTS / f"{name}.py").is_file()


def test_no_promise_is_listed_twice():
    promises = [mutant.promise for mutant in mutants.MUTANTS]
    assert len(promises) == len(set(promises))


@pytest.mark.parametrize(
    ("module", "name", "operator", "why"),
    [
        ("gone.py", "x", mutation.never("y"), "there is no module gone.py"),
        ("ids.py", "RandomIds.gone", mutation.never("y"), "0 things are called gone"),
        ("ids.py", "RandomIds._key", mutation.never("gone"), "nothing in RandomIds._key fits"),
        ("ids.py", "RandomIds.adopts", mutation.value("False"), "the operator changes nothing"),
    ],
)
def test_a_mutant_that_leads_nowhere_says_where_it_got_lost(module, name, operator, why):
    with pytest.raises(mutation.NoSuchPlace, match=why):
        mutation.mutated(module, name, operator)
