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
        and found["outcome"] == "not distinguishable"
    )
    (found,) = compare(result([1] * 9, "a"), result([0] * 9, "b"))
    assert found["p"] == pytest.approx(2 / 512) and found["outcome"] == "better"
    (found,) = compare(result([1] * 9, "a"), result([0] * 9, "b"), model="b", baseline="a")
    assert found["outcome"] == "worse" and found["difference"] == -1


def test_several_benchmarks_are_corrected_and_averaged():
    """p of 8:0 is 2/256, of 6:0 2/64.

    Holm doubles the smaller; AVG is the mean of the differences.
    """
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
        and average["outcome"] == "better"
    )


def test_what_is_not_the_same_is_not_compared():
    base = result([1, 0], "b", prompts="x", dtype="float32")
    cases = [
        (result([1, 0], "a", prompts="x", dtype="bfloat16"), "dtype bfloat16 / float32"),
        (result([1, 0], "a", prompts="y", dtype="float32"), "prompts y / x"),
        (result([1, 0], "a", prompts="x"), "dtype None / float32"),
        (result([1, 0, 1], "a", prompts="x", dtype="float32"), "other items"),
        (result([1, None], "a", prompts="x", dtype="float32"), "without an output of a"),
    ]
    for other, reason in cases:
        (row,) = compare(other, base)
        assert reason in row["refused"] and "p" not in row
    (missing,) = compare(result([1], "a"))
    assert "refused" in missing


def test_one_benchmark_that_is_refused_leaves_no_average():
    names = ("gsm8k", "math500")
    given = [result([1, 0], model, name) for name in names for model in "ab"]
    given[0].conditions = {"dtype": "float32"}
    assert [row["benchmark"] for row in compare(*given)] == list(names)


def test_seeds_by_hand():
    """Two runs: 2/4 and 3/4: mean 0.625, sd 0.177, Student's half width 12.706 x 0.177/sqrt(2) =
    1.588, cut at 0 and 1. Their mean by item is compared with another set's."""
    runs = {
        ("tiny", "cft.1"): result([1, 1, 0, 0], "cft.1"),
        ("tiny", "cft.2"): result([1, 1, 1, 0], "cft.2"),
        ("tiny", "b"): result([0] * 4, "b"),
    }
    merged, (found,) = comparisons.average_seeds(runs, {"cft": ["cft.1", "cft.2"]})
    assert (
        found["mean"] == 0.625
        and found["sd"] == pytest.approx(0.17678, abs=1e-4)
        and found["accuracies"] == (0.5, 0.75)
    )
    assert (found["low"], found["high"]) == (0, 1)
    assert merged["tiny", "cft"].shares() == [1, 1, 0.5, 0]
    (compared,) = comparisons.compare(runs | merged, "cft", "b")
    assert (
        compared["difference"] == 0.625
        and "wins" not in compared
        and (compared["runs_low"], compared["runs_high"])
        == (pytest.approx(0.625 - 1.588, abs=1e-3), 1)
    )
    _, (refused,) = comparisons.average_seeds(
        {**runs, ("tiny", "cft.2"): result([1, 1, 1], "cft.2")}, {"cft": ["cft.1", "cft.2"]}
    )
    assert refused["refused"] == "other items"


def seeds(second, benchmark="tiny"):
    """Return results of 40 items: a's first seed has 39 right, b none."""
    return {
        (benchmark, "a.1"): result([0] + [1] * 39, "a.1", benchmark),
        (benchmark, "a.2"): result(second, "a.2", benchmark),
        (benchmark, "b"): result([0] * 40, "b", benchmark),
    }


def compare_seeds(runs):
    merged, _ = comparisons.average_seeds(runs, {"a": ["a.1", "a.2"]})
    return comparisons.compare(runs | merged, "a", "b")


def test_a_mean_over_seeds_is_better_only_if_the_seeds_say_so():
    """39 and 40 of 40: 0.9875 -+ 12.706 x 0.0177/sqrt(2) = 0.159; 39 and 10: 0.6125 -+ 4.6.

    The items alone are sure both times.
    """
    (sure,) = compare_seeds(seeds([1] * 40))
    (unsure,) = compare_seeds(seeds([1] * 10 + [0] * 30))
    assert sure["outcome"] == "better, over seeds too" and sure["holm"] < 0.001
    assert unsure["outcome"] == "better on these items, not distinguishable over seeds"
    assert unsure["holm"] < 0.001


def test_the_average_over_benchmarks_has_the_seeds_interval_of_its_own_mean():
    """Seed 1: (39/40 + 39/40)/2 = 0.975; seed 2: (1 + 0.25)/2 = 0.625: mean 0.8, sd 0.2475,
    half width 12.706 x 0.2475/sqrt(2) = 2.22: cut at 1, and on the other side of zero."""
    runs = seeds([1] * 40, "gsm8k") | seeds([1] * 10 + [0] * 30, "math500")
    average = compare_seeds(runs)[-1]
    assert average["benchmark"] == "AVG" and average["difference"] == pytest.approx(0.8)
    assert average["runs_low"] == -1.0 and average["runs_high"] == 1.0
    assert average["outcome"] == "better on these items, not distinguishable over seeds"
