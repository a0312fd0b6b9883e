"""Intervals cover the truth as often as they say, by simulation (tests/bench/coverage.py)."""

import pytest

from tests.bench.coverage import KINDS, least, measure


def low_cells(kind, draws, every=1):
    """Return the cells of a kind that cover the truth too seldom, with their coverage."""
    coverage = measure(kind, draws, every)
    assert coverage
    return {cell: share for cell, share in coverage.items() if share < least(draws)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_cells_cover_the_truth(kind):
    """Every seventh cell, of a fixed seed. 200 draws: 89.4 % of 95 must be covered."""
    assert low_cells(kind, draws=200, every=7) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_covers_the_truth(kind):
    """2,000 draws a cell; the bootstraps of before covered 0 to 60 % in the cells of few items."""
    assert low_cells(kind, draws=2000) == {}
