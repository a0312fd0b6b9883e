"""Comparisons: by hand, what is refused, and what several seeds may be called."""

import pytest

from common.evaluate import comparisons
from tests.evaluate.test_scores import result


def compare(*given, model="a", baseline="b"):
    return comparisons.compare({(r.benchmark, r.model): r for r in given}, model, baseline)


def test_a_comparison_by_hand():
    """a alone right 3 times, b alone once: difference 2/6, McNemar's p = 2 (1 + 4)/2^4 = 0.625."""
    (found,) = compare(result([1, 1, 1, 0, 1, 0], "a"), result([0, 0, 0, 1, 1, 0], "b"))
    assert {k: found[k] for k in ("wins", "losses", "both", "neither")} == {
        "wins": 3,
        "losses": 1,
        "both": 1,
        "neither": 1,
    }
    assert (
        found["difference"] == pytest.approx(1 / 3)
        and found["p"] == found["holm"] == 0.625
        and found["word"] == "not distinguishable"
    )
    (found,) = compare(result([1] * 9, "a"), result([0] * 9, "b"))
    assert found["p"] == pytest.approx(2 / 512) and found["word"] == "better"
    (found,) = compare(result([1] * 9, "a"), result([0] * 9, "b"), model="b", baseline="a")
    assert found["word"] == "worse" and found["difference"] == -1


def test_several_benchmarks_are_corrected_and_averaged():
    """p of 8:0 is 2/256, of 6:0 2/64: Holm doubles the smaller; AVG is the mean of the differences."""
    names = {"gsm8k": 8, "math500": 6}
    given = [
        result([int(m == "a")] * n + [0] * n, m, name) for name, n in names.items() for m in "ab"
    ]
    first, second, average = compare(*given)
    assert (first["p"], first["holm"]) == (2 / 256, 4 / 256) and (second["p"], second["holm"]) == (
        2 / 64,
        2 / 64,
    )
    assert (
        average["benchmark"] == "AVG"
        and average["difference"] == 0.5
        and average["word"] == "better"
    )


def test_what_is_not_the_same_is_not_compared():
    base = result([1, 0], "b", prompts="x", dtype="float32")
    for other, why in [
        (
            result([1, 0], "a", prompts="x", dtype="bfloat16"),
            "other conditions: dtype bfloat16 / float32",
        ),
        (result([1, 0], "a", prompts="y", dtype="float32"), "prompts y / x"),
        (result([1, 0, 1], "a", prompts="x", dtype="float32"), "other items"),
        (result([1, None], "a", prompts="x", dtype="float32"), "items without an output of a"),
        (result([1, 0], "a", prompts="x"), "dtype None / float32"),
    ]:
        (found,) = compare(other, base)
        assert why in found["refused"] and "p" not in found
    names = ("gsm8k", "math500")
    rows = compare(
        *[
            result([1, 0], m, n, dtype="x" if (m, n) == ("a", "gsm8k") else "y")
            for n in names
            for m in "ab"
        ]
    )
    assert [r["benchmark"] for r in rows] == list(
        names
    )  # one benchmark was refused, so there is no AVG of all
    (missing,) = compare(result([1], "a"))
    assert missing["refused"] == "no result of b, see Over seeds"


def test_seeds_by_hand():
    """Two runs: 2/4 and 3/4: mean 0.625, sd 0.177, Student's half width 12.706 x 0.177/sqrt(2) = 1.588, cut at 0 and 1. Their mean by item
    stands against another arm's, and the interval over seeds decides the word, too."""
    runs = {
        ("tiny", "cft.1"): result([1, 1, 0, 0], "cft.1"),
        ("tiny", "cft.2"): result([1, 1, 1, 0], "cft.2"),
        ("tiny", "b"): result([0] * 4, "b"),
    }
    merged, (found,) = comparisons.over_seeds(runs, {"cft": ["cft.1", "cft.2"]})
    assert (
        found["mean"] == 0.625
        and found["sd"] == pytest.approx(0.17678, abs=1e-4)
        and found["accuracies"] == [0.5, 0.75]
    )
    assert (found["low"], found["high"]) == (0, 1) and found["items_low"] <= 0.625 <= found[
        "items_high"
    ]
    assert list(merged["tiny", "cft"].values().values()) == [1, 1, 0.5, 0]
    (compared,) = comparisons.compare(runs | merged, "cft", "b")
    assert (
        compared["difference"] == 0.625
        and "wins" not in compared
        and (compared["runs_low"], compared["runs_high"])
        == (pytest.approx(0.625 - 1.588, abs=1e-3), 1)
    )
    _, (refused,) = comparisons.over_seeds(
        {**runs, ("tiny", "cft.2"): result([1, 1, 1], "cft.2")}, {"cft": ["cft.1", "cft.2"]}
    )
    assert refused["refused"] == "other items"


@pytest.mark.parametrize(
    "second, word",
    [
        ([1] * 40, "better, over seeds too"),
        ([1] * 10 + [0] * 30, "better on these items, not distinguishable over seeds"),
    ],
)
def test_a_mean_over_seeds_is_better_only_where_the_seeds_say_so(second, word):
    """39 and 40 of 40: 0.9875 -+ 12.706 x 0.0177/sqrt(2) = 0.159; 39 and 10: 0.6125 -+ 4.6. The items alone are sure both times."""
    runs = {
        ("tiny", "a.1"): result([0] + [1] * 39, "a.1"),
        ("tiny", "a.2"): result(second, "a.2"),
        ("tiny", "b"): result([0] * 40, "b"),
    }
    merged, _ = comparisons.over_seeds(runs, {"a": ["a.1", "a.2"]})
    (found,) = comparisons.compare(runs | merged, "a", "b")
    assert found["word"] == word and found["holm"] < 0.001
