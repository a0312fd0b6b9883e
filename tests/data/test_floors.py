"""Floors: by hand, and those of the table against the test sets."""

import pytest

from common.data import floors, test_sets
from common.data.test_sets import TEST_SETS
from tests.conftest import SHARED


def items(*golds):
    return [{"gold": gold} for gold in golds]


def test_a_floor_by_hand():
    """Strict: 3 gets two right. The paper's grader takes 0.01, 0.04 and 0.02 for equal: three."""
    floor = floors.measure_floor(test_sets.PLAIN, items("3", "3", "0.04", "0.02", "0"))
    strict, lax = ("3", 2), ("0", 3)
    assert (floor["answer"], floor["correct"]) == strict
    assert (floor["paper_answer"], floor["paper_correct"]) == lax
    assert floor["n"] == 5


def test_among_options_it_is_the_most_frequent_letter():
    floor = floors.measure_floor(TEST_SETS["gpqa"], items("B", "C", "B", "D", "A"))
    assert (floor["answer"], floor["correct"], floor["paper_correct"]) == ("B", 2, 2)


def test_a_set_with_many_golds_is_not_measured_on_the_spot():
    assert floors.find_floor("mine", items(*map(str, range(501)))) is None
    assert floors.find_floor("mine", items("1", "1", "2"))["correct"] == 2


@pytest.mark.parametrize("name", ["aime24", "amc23", "gsm8k", "mmlu_pro"])
def test_the_stored_floors_are_those_of_the_sets(name):
    folder = SHARED / "benchmarks"
    if not test_sets.local_path(name, folder).is_file():
        pytest.skip("needs the shared copies of the test sets")
    measured = floors.measure_floor(TEST_SETS[name], test_sets.load_items(name, folder))
    assert floors.find_floor(name, []) == measured


def test_every_set_that_is_no_secret_has_a_floor_of_its_size():
    for name, test_set in TEST_SETS.items():
        if test_set.digest:  # a copy was at hand
            assert floors.find_floor(name, [])["n"] == test_set.items
