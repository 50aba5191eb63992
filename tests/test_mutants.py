"""The list of mutants keeps up with the code that it breaks."""

import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.promise)
def test_each_mutant_has_its_one_place_in_the_code(mutant):
    assert (mutants.PACKAGE / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
