"""What 05 shows.

The tables' text, and pictures that open and show the bars and points they should.
"""

from functools import partial
from types import SimpleNamespace

import matplotlib.colors
import matplotlib.image
import pytest

from common.core import stats
from common.core.tables import percent
from common.evaluate import report

scores_table = partial(report.format_table, report.SCORES)
comparisons_table = partial(report.format_table, report.COMPARISONS)
seeds_table = partial(report.format_table, report.SEEDS)
selection_table = partial(report.format_table, report.SELECTION)

BASE = {
    "benchmark": "tiny",
    "model": "base",
    "n": 1000,
    "samples": 1,
    "accuracy": 0.513,
    "low": 0.482,
    "high": 0.5439,
    "paper_accuracy": 0.52,
    "unboxed": 3,
    "truncated": 0,
    "failed": 0,
    "tokens": 23444,
    "seconds": 1.26,
}
SFT = BASE | {
    "model": "sft",
    "accuracy": 0.45,
    "low": 0.4194,
    "high": 0.481,
    "paper_accuracy": 0.45,
    "unboxed": 0,
    "seconds": None,
}
CFT = BASE | {
    "model": "cft",
    "accuracy": 0.98701,
    "low": 0.9778,
    "high": 0.99249,
    "paper_accuracy": 0.98701,
    "truncated": 12,
}


def test_scores_table_by_hand():
    """Shares are printed as per cent with one decimal."""
    head, _, *lines = scores_table([BASE, SFT, CFT]).splitlines()
    assert head == (
        "| benchmark | model | n | strict % | 95% interval | paper's grader % "
        "| unboxed | truncated | tokens |"
    )
    assert lines == [
        "| tiny | base | 1000 | 51.3 | 48.2 to 54.4 | 52.0 | 3 | 0 | 23444 |",
        "| tiny | sft | 1000 | 45.0 | 41.9 to 48.1 | 45.0 | 0 | 0 | 23444 |",
        "| tiny | cft | 1000 | 98.7 | 97.8 to 99.2 | 98.7 | 3 | 12 | 23444 |",
    ]


def test_columns_that_say_nothing_are_left_out_and_others_are_not():
    many = BASE | {
        "samples": 16,
        "failed": 2,
        "pass_accuracy": 0.8,
        "pass_low": 0.7,
        "pass_high": 0.9,
        "majority_accuracy": 0.6,
        "majority_low": 0.5,
        "majority_high": 0.71,
    }
    head, _, line = scores_table([many]).splitlines()
    assert head == (
        "| benchmark | model | n | strict % | 95% interval | pass@k % | maj@k % | "
        "paper's grader % | unboxed | tokens | no output |"
    )
    assert line == (
        "| tiny | base | 1000 | 51.3 | 48.2 to 54.4 | 80.0 [70.0 to 90.0] | "
        "60.0 [50.0 to 71.0] | 52.0 | 3 | 23444 | 2 |"
    )
    none = BASE | {
        "n": 0,
        "failed": 9,
        "accuracy": None,
        "low": None,
        "high": None,
        "paper_accuracy": None,
    }
    assert scores_table([none]).splitlines()[2] == "| tiny | base | 3 | 23444 | 9 |"


def test_comparisons_table_by_hand():
    rows = [
        {
            "benchmark": "tiny",
            "model": "cft",
            "baseline": "sft",
            "difference": 0.449,
            "low": 0.416,
            "high": 0.482,
            "wins": 462,
            "losses": 13,
            "both": 481,
            "neither": 44,
            "p": 1e-9,
            "holm": 2e-9,
            "outcome": "better",
            "comparisons": 2,
        },
        {
            "benchmark": "AVG",
            "model": "cft",
            "baseline": "sft",
            "difference": -0.001,
            "low": -0.02,
            "high": 0.0,
            "p": 0.0471,
            "holm": 1.0,
            "outcome": "not distinguishable",
            "comparisons": 2,
        },
        {"benchmark": "gsm8k", "model": "cft", "baseline": "sft", "refused": "other items"},
    ]
    assert comparisons_table(rows).splitlines()[2:] == [
        "| tiny | cft against sft | +44.9 | +41.6 to +48.2 | 462 | 13 | 481 | 44 | <0.001 | <0.001 "
        "| better (comparisons: 2) | - |",
        "| AVG | cft against sft | -0.1 | -2.0 to +0.0 | - | - | - | - | 0.047 | 1.000 "
        "| not distinguishable (comparisons: 2) | - |",
        "| gsm8k | cft against sft | - | - | - | - | - | - | - | - | - | other items |",
    ]
    assert comparisons_table([]) == ""


def test_seeds_and_selection_tables_by_hand():
    row = {
        "benchmark": "tiny",
        "model": "cft",
        "runs": 2,
        "accuracies": [0.47, 0.52],
        "mean": 0.495,
        "sd": 0.0354,
        "low": 0.177,
        "high": 0.813,
    }
    assert seeds_table(
        [row, {"benchmark": "x", "model": "cft", "runs": 2, "refused": "other items"}]
    ).splitlines()[2:] == [
        "| tiny | cft | 2 | 47.0 52.0 | 49.5 | 3.5 | 17.7 to 81.3 | - |",
        "| x | cft | 2 | - | - | - | - | other items |",
    ]
    assert selection_table(STEPS).splitlines()[2:] == [
        "| cft | 10 | 500 | 90.2 | 87.3 to 92.5 | +5.8 | +3.2 to +8.4 | <0.001 | told apart |",
        "| cft | 20 | 500 | 96.0 | 93.9 to 97.4 | - | - | - | chosen |",
        "| cft | 30 | 500 | 95.6 | 93.4 to 97.1 | +0.4 | +0.0 to +1.0 | 0.500 "
        "| not distinguishable |",
    ]


STEP = {"arm": "cft", "benchmark": "tiny_validation", "n": 500, "chosen": False}
STEPS = [
    STEP
    | {
        "step": 10,
        "accuracy": 0.902,
        "low": 0.873,
        "high": 0.925,
        "difference": 0.058,
        "difference_low": 0.032,
        "difference_high": 0.084,
        "p": 1e-6,
        "holm": 2e-6,
        "outcome": "told apart",
    },
    STEP
    | {
        "step": 20,
        "accuracy": 0.96,
        "low": 0.939,
        "high": 0.974,
        "chosen": True,
        "outcome": "chosen",
    },
    STEP
    | {
        "step": 30,
        "accuracy": 0.956,
        "low": 0.934,
        "high": 0.971,
        "difference": 0.004,
        "difference_low": 0,
        "difference_high": 0.01,
        "p": 0.5,
        "holm": 0.5,
        "outcome": "not distinguishable",
    },
]


@pytest.mark.parametrize(
    "x, sign, text",
    [
        (0, False, "0.0"),
        (1, False, "100.0"),
        (0.12345, False, "12.3"),
        (0.005, True, "+0.5"),
        (-0.25, True, "-25.0"),
        (0.0, True, "+0.0"),
        (None, True, "-"),
    ],
)
def test_percent(x, sign, text):
    assert percent(x, sign) == text


# --- pictures -------------------------------------------------------------------------------------


def picture(path, width, height):
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (height, width) and [p.name for p in path.parent.iterdir()] == [
        path.name
    ]
    return pixels[..., :3]


def coloured(pixels, colour):
    return (abs(pixels - matplotlib.colors.to_rgb(colour)).sum(axis=2) < 0.02).nonzero()


def test_chart(tmp_path):
    """Three bars: 1 + 3 x 0.95 = 3.85 inches wide, 4 high. The cft bar (blue, 98.7 %) is about
    twice as high as the highest other one (51.3 %)."""
    report.draw_scores([BASE, SFT, CFT], tmp_path / "chart.png")
    pixels = picture(tmp_path / "chart.png", 577, 600)
    bottom = coloured(pixels, "#4c72b0")[0].max()
    heights = [bottom - coloured(pixels, color)[0].min() for color in ("#4c72b0", "#9aa5b1")]
    assert heights[0] / heights[1] == pytest.approx(98.7 / 51.3, rel=0.03)


@pytest.mark.parametrize(
    "scores, width, height",
    [
        ([BASE], 450, 600),
        ([BASE, BASE | {"benchmark": "gsm8k"}], 450, 1200),
        ([BASE] * 5 + [SFT | {"benchmark": "math500"}], 862, 1200),
        ([BASE | {"model": "a--very-long-folder-name" * 2}, SFT], 450, 600),
        ([BASE | {"benchmark": str(n)} for n in range(7)], 450, 4200),
        ([BASE, CFT | {"n": 0, "benchmark": "none"}], 450, 600),
    ],
)
def test_chart_grows_with_bars_and_benchmarks(tmp_path, scores, width, height):
    """One panel a benchmark, each max(3, 1 + 0.95 x the most bars of one) inches wide
    and 4 high (x 150 dpi).
    """
    report.draw_scores(scores, tmp_path / "chart.png")
    picture(tmp_path / "chart.png", width, height)


@pytest.mark.parametrize("n", [1, 4, 10, 1000])
def test_chart_of_nothing_right_and_everything_right(tmp_path, n):
    """The very scores 05 makes.

    A chart is drawn after hours of generation, so it must take any of them.
    """
    scores = []
    for correct in (0, n):
        low, high = stats.wilson(correct, n)
        scores.append(BASE | {"n": n, "accuracy": correct / n, "low": low, "high": high})
    report.draw_scores(scores, tmp_path / "chart.png")
    picture(tmp_path / "chart.png", 450, 600)


def test_selection_chart(tmp_path):
    """A line over the steps.

    The chosen point is a filled disc of 9 points, 276 pixels at 150 dpi, some of which its ring and
    the line had.
    """

    def blue(steps):
        report.draw_selection(steps, tmp_path / "steps.png")
        return coloured(picture(tmp_path / "steps.png", 975, 600), "C0")

    one, two = blue(STEPS[1:2]), blue(STEPS)
    assert len(one[0]) > 276 and two[1].max() - two[1].min() > 500


def test_the_page():
    page = report.format_page(
        ["First.", "", "Second."], {"Scores": "| a |", "Empty": ""}, ["Note é.", "Two."]
    )
    assert page == "# Results\n\nFirst.\n\nSecond.\n\n## Scores\n\n| a |\n\nNote é.\n\nTwo.\n"


def test_the_page_begins_with_the_result_and_its_picture():
    """The best first; what was not scored is left out."""
    lost = BASE | {"model": "lost", "n": 0}
    words, lines, picture = report.summarize([BASE, CFT, lost, SFT | {"benchmark": "x"}], [])
    assert words == "Right answers on tiny: cft 98.7 %, base 51.3 %." and not lines
    assert picture.endswith("(05_results.png)")


def pair(benchmark, outcome="better", model="cft"):
    row = {"benchmark": benchmark, "model": model, "baseline": "base", "difference": 0.193}
    row |= {"accuracy": 0.571, "baseline_accuracy": 0.378}
    return row | {"low": 0.15, "high": 0.236, "outcome": outcome}


def test_a_conclusion_in_words_by_hand():
    """Of two benchmarks one differs; a refused pair says nothing."""
    refused = {"benchmark": "x", "model": "z", "baseline": "base", "refused": "why"}
    rows = [pair("x"), pair("y", "not distinguishable"), pair("AVG"), refused]
    points = "cft 57.1, base 37.8: +19.3 points on AVG [+15.0 to +23.6], better"
    _, lines, _ = report.summarize([BASE], rows)
    assert lines == f"- {points}; of 2 benchmarks 1 differ."
    _, lines, _ = report.summarize([BASE], [pair("x"), pair("x", "worse", "sft")])
    assert lines.split("\n") == [
        "- cft 57.1, base 37.8: +19.3 points on x [+15.0 to +23.6], better.",
        "- sft 57.1, base 37.8: +19.3 points on x [+15.0 to +23.6], worse.",
    ]


def test_right_answers_of_cut_outputs_and_the_floor_stand_in_the_table():
    row = CFT | {"truncated_right": 4, "floor": 0.029, "paper_floor": 0.11, "remarks": "stale"}
    head, _, line = scores_table([row]).splitlines()
    assert head.endswith("| floor % | unboxed | truncated | tokens | remarks |")
    assert line.endswith("| 2.9, paper's 11.0 | 3 | 12 (4 right) | 23444 | stale |")


def test_the_settings_name_the_templates_that_were_used():
    config = SimpleNamespace(
        temperature=0.0, samples=1, max_new_tokens=9, limit=50, template="auto"
    )
    engines = {"a": {"template": "chatml"}, "b": {"template": "deepseek"}}
    line = report.describe_settings("r", config, engines)
    assert "chatml and deepseek" in line and "a sample of 50" in line
