"""Numbers in words."""

from common.core.tables import count


def test_a_count_in_words():
    counts = [count(n, "row") for n in (0, 1, 2, 2000)]
    assert counts == ["0 rows", "1 row", "2 rows", "2,000 rows"]
