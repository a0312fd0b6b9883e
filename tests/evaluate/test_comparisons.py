"""Comparisons: by hand, what is refused, and what several seeds may be called."""

import math

import numpy as np
import pytest

from common.evaluate import comparisons
from tests.evaluate.test_scores import result


def compare(*given, models=("a",), baselines=("b",)):
    return comparisons.compare({(r.benchmark, r.model): r for r in given}, models, baselines)


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
    (found,) = compare(result([1] * 9, "a"), result([0] * 9, "b"), models=["b"], baselines=["a"])
    assert found["outcome"] == "worse" and found["difference"] == -1


def test_several_benchmarks_are_corrected_and_averaged():
    """p of 8:0 is 2/256, of 6:0 2/64; AVG's is that of its interval, 4.3 standard errors off zero.

    Holm multiplies them by 2, 1 and 3. AVG: differences 8/16 and 6/12 have half widths 0.240 and
    0.274 above 0.444 and 0.429; the distances below 0.296 and 0.345 give sqrt(a^2 + b^2)/2.
    """
    names = {"gsm8k": 8, "math500": 6}
    given = [
        result([int(m == "a")] * n + [0] * n, m, name) for name, n in names.items() for m in "ab"
    ]
    first, second, average = compare(*given)
    assert (first["p"], first["holm"]) == (2 / 256, 4 / 256)
    assert (second["p"], second["holm"]) == (2 / 64, 2 / 64)
    assert average["holm"] == 3 * average["p"] < 0.003
    assert {row["comparisons"] for row in (first, second, average)} == {3}
    assert average["benchmark"] == "AVG" and average["outcome"] == "better"
    below = [row["difference"] - row["low"] for row in (first, second)]
    assert average["difference"] == 0.5
    assert (average["accuracy"], average["baseline_accuracy"]) == (0.5, 0)
    assert average["low"] == pytest.approx(0.5 - math.hypot(*below) / 2)


def test_p_is_corrected_for_every_model_and_benchmark_of_the_table():
    """6:0 of 20 items is 2/64 = 0.031, a difference by itself; not as one of two models'."""
    wins, equal, base = [1] * 6 + [0] * 14, [0] * 20, [0] * 20
    given = result(wins, "a"), result(equal, "c"), result(base, "b")
    (alone,) = compare(*given)
    assert (alone["outcome"], alone["comparisons"]) == ("better", 1)
    first, second = compare(*given, models=["a", "b", "c"])
    assert (first["model"], second["model"]) == ("a", "c")
    assert first["holm"] == 4 / 64 and first["comparisons"] == 2
    assert first["outcome"] == second["outcome"] == "not distinguishable"


@pytest.mark.slow
def test_of_equal_models_a_table_seldom_calls_any_better():
    """Five equal models, six test sets and AVG, 200 tables: a false word in at most 5 % of them.

    Up to three standard errors. Corrected for each model alone, and AVG not at all: 48 tables.
    """
    rng, false_tables = np.random.default_rng(0), 0
    for _ in range(200):
        results = {}
        for benchmark in ("aime24", "amc23", "gsm8k", "math500", "minerva_math", "olympiadbench"):
            chance = rng.random(60)
            for model in "abcdef":
                rights = (rng.random(60) < chance).tolist()
                results[benchmark, model] = result(rights, model, benchmark)
        rows = comparisons.compare(results, list("abcde"), "f")
        assert len(rows) == 35
        false_tables += any(row["outcome"] != "not distinguishable" for row in rows)
    assert false_tables <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_with_several_baselines_no_pair_is_compared_twice():
    """Three models, two of them baselines: 3 pairs, and p is corrected for all of them."""
    rights = {"a": [1] * 8, "b": [0] * 8, "c": [1] * 8}
    given = [result(right, name) for name, right in rights.items()]
    rows = compare(*given, models=["a", "b", "c"], baselines=["b", "a"])
    pairs = [(row["model"], row["baseline"]) for row in rows]
    assert pairs == [("a", "b"), ("c", "b"), ("c", "a")]
    assert [row["comparisons"] for row in rows] == [3, 3, 3]
    assert rows[0]["holm"] == 3 * 2 / 256


def test_a_refused_comparison_is_none():
    """What was not compared is not counted."""
    other = result([1, 0, 1], "c")
    compared, refused = compare(
        result([1] * 9, "a"), result([0] * 9, "b"), other, models=["a", "c"]
    )
    assert compared["comparisons"] == 1 and "comparisons" not in refused


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
    """Two runs, 2/4 and 3/4: mean 0.625, sd 0.177, Student's half width 12.706 x 0.177/sqrt(2) =
    1.588, cut at 0 and 1. Their mean by item is compared with another set's. A single run of the
    other set has no spread: nothing is said of seeds."""
    runs = {
        ("tiny", "cft.1"): result([1, 1, 0, 0], "cft.1"),
        ("tiny", "cft.2"): result([1, 1, 1, 0], "cft.2"),
        ("tiny", "b"): result([0] * 4, "b"),
    }
    groups = {"cft": ["cft.1", "cft.2"]}
    merged, (row,) = comparisons.average_seeds(runs, groups)
    assert row["mean"] == 0.625 and row["accuracies"] == [0.5, 0.75]
    assert row["sd"] == pytest.approx(0.17678, abs=1e-4)
    assert (row["low"], row["high"]) == (0, 1)
    assert merged["tiny", "cft"].shares() == [1, 1, 0.5, 0]
    (compared,) = comparisons.compare(runs | merged, ["cft"], ["b"])
    assert compared["difference"] == 0.625
    assert not {"wins", "runs_low"} & set(compared)
    fewer_items = runs | {("tiny", "cft.2"): result([1, 1, 1], "cft.2")}
    _, (refused,) = comparisons.average_seeds(fewer_items, groups)
    assert refused["refused"] == "other items"


def compare_seeds(first, second, benchmarks=("tiny",)):
    """Compare two means of runs; a run is how many of 40 items it has right, by benchmark."""
    results, groups = {}, {"a": [], "b": []}
    for name, runs in (("a", first), ("b", second)):
        for number, counts in enumerate(runs):
            label = f"{name}.{number}"
            groups[name].append(label)
            for benchmark, correct in zip(benchmarks, counts):
                rights = [1] * correct + [0] * (40 - correct)
                results[benchmark, label] = result(rights, label, benchmark)
    merged, _ = comparisons.average_seeds(results, groups)
    return comparisons.compare(results | merged, ["a"], ["b"])


def test_a_mean_over_seeds_is_better_only_if_the_seeds_say_so():
    """39 and 40 against 0 and 1 of 40: Welch's half width is 4.30 x 0.0177, with 2 degrees of
    freedom. 39 and 10 against the same: 12.7 x 0.36. The items alone are sure both times."""
    (sure,) = compare_seeds([[39], [40]], [[0], [1]])
    (unsure,) = compare_seeds([[39], [10]], [[0], [1]])
    assert sure["holm"] < 0.001 and unsure["holm"] < 0.001
    assert sure["outcome"] == "better, over seeds too"
    assert unsure["outcome"] == "better on these items, not distinguishable over seeds"
    assert (unsure["runs_low"], unsure["runs_high"]) == (-1, 1)


def test_equal_seeds_are_no_certainty():
    """Twice 21 against twice 15 of 40: no spread at all, but 15 points of 40 items are not sure.

    Wilson's distances are 0.150 below 21/40 and 0.155 above 15/40; over two runs each and both
    sides sqrt((0.150^2 + 0.155^2)/2) = 0.152. The items alone: 6:0, p = 2/64.
    """
    (row,) = compare_seeds([[21], [21]], [[15], [15]])
    assert row["outcome"] == "better on these items, not distinguishable over seeds"
    assert row["runs_low"] == pytest.approx(0.15 - 0.1523, abs=5e-4)


def test_the_average_over_benchmarks_has_the_seeds_interval_of_its_own_mean():
    """Seed 1: (39/40 + 39/40)/2 = 0.975; seed 2: (1 + 0.25)/2 = 0.625. Welch's half width, 12.7 x
    0.175 and more, cut at 1, and on the other side of zero."""
    average = compare_seeds([[39, 39], [40, 10]], [[0, 0], [0, 0]], ["gsm8k", "math500"])[-1]
    assert average["benchmark"] == "AVG" and average["difference"] == pytest.approx(0.8)
    assert (average["runs_low"], average["runs_high"]) == (-1, 1)
    assert average["outcome"] == "better on these items, not distinguishable over seeds"
