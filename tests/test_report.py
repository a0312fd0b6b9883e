"""What a run shows: the table's text, and pictures that open and show the bars they should."""

import json

import matplotlib.image
import pytest

from common import report, stats

BASE = {"benchmark": "tiny", "model": "base", "n": 1000, "accuracy": 0.513, "low": 0.482, "high": 0.5439, "unboxed": 3, "cut": 0}
SFT = BASE | {"model": "sft", "accuracy": 0.45, "low": 0.4194, "high": 0.481, "unboxed": 0}
CFT = BASE | {"model": "cft", "accuracy": 0.98701, "low": 0.9778, "high": 0.99249, "cut": 12,
              "difference": 0.53701, "difference_low": 0.506, "difference_high": 0.5681}
WORSE = BASE | {"model": "base", "difference": -0.0314, "difference_low": -0.0626, "difference_high": 0.0}


def test_table_by_hand():
    """Shares are printed as per cent with one decimal, differences in points with their sign; the baseline's own cells are empty."""
    assert report.table([WORSE, SFT, CFT], "sft") == """\
| benchmark | model | n | accuracy % | 95% interval | minus sft, points | 95% interval | unboxed | cut |
|---|---|---:|---:|---:|---:|---:|---:|---:|
| tiny | base | 1000 | 51.3 | 48.2 to 54.4 | -3.1 | -6.3 to +0.0 | 3 | 0 |
| tiny | sft | 1000 | 45.0 | 41.9 to 48.1 |  |  | 0 | 0 |
| tiny | cft | 1000 | 98.7 | 97.8 to 99.2 | +53.7 | +50.6 to +56.8 | 3 | 12 |"""


def test_table_without_a_baseline():
    assert report.table([SFT], None) == """\
| benchmark | model | n | accuracy % | 95% interval | unboxed | cut |
|---|---|---:|---:|---:|---:|---:|
| tiny | sft | 1000 | 45.0 | 41.9 to 48.1 | 0 | 0 |"""


@pytest.mark.parametrize("x, sign, text", [(0, False, "0.0"), (1, False, "100.0"), (0.12345, False, "12.3"), (0.005, True, "+0.5"),
                                           (-0.25, True, "-25.0"), (0.0, True, "+0.0")])
def test_percent(x, sign, text):
    assert report.percent(x, sign) == text


def test_step_line_by_hand():
    """8,192 tokens in 0.2 s are 41.0 thousand a second; 86 steps of 0.2 s are 17 s."""
    row = dict(step=12, loss=0.42134, learning_rate=4.6e-6, grad_norm=1.2, tokens=8192, seconds=0.2, useful=0.956, mfu=0.5, memory_gb=27.04, skipped=[])
    line = "step 12/98 loss 0.4213 lr 4.60e-06 grad_norm 1.200 tokens/s 41.0k useful 96% MFU 50.0% memory 27.0 GB eta 17 s"
    assert report.step_line([row], 98) == line
    assert report.step_line([row | {"held_out_loss": 0.5}], 98) == line + " held-out loss 0.5000"
    assert " MFU" not in report.step_line([row | {"mfu": None}], 98)
    assert report.step_line([row | {"skipped": ["a", "b"]}], 98) == line + " NOT FINITE, skipped; 2 rows: a b"


def picture(path, width, height):
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (height, width) and [p.name for p in path.parent.iterdir()] == [path.name]
    return pixels[..., :3]


def test_loss_curve(tmp_path):
    """6 x 3.5 inches at 150 dpi; the falling curve's line is lower on the right than on the left (rows count from the top)."""
    report.loss_curve([{"step": i, "loss": 2 - i / 10, "arm": "cft"} for i in range(1, 20)], tmp_path / "loss.png")
    pixels = picture(tmp_path / "loss.png", 900, 525)
    blue = (abs(pixels - matplotlib.colors.to_rgb("C0")).sum(axis=2) < 0.05).nonzero()
    left, right = blue[1].min(), blue[1].max()
    assert right - left > 500 and blue[0][blue[1] == left].mean() < blue[0][blue[1] == right].mean() - 200


def test_one_point_makes_a_curve(tmp_path):
    report.loss_curve([{"step": 1, "loss": 0.0, "arm": "sft"}], tmp_path / "loss.png")
    picture(tmp_path / "loss.png", 900, 525)


def bar_top(pixels, colour):
    return (abs(pixels - matplotlib.colors.to_rgb(colour)).sum(axis=2) < 0.02).nonzero()[0].min()


def test_chart(tmp_path):
    """Three bars: 1 + 3 x 0.95 = 3.85 inches wide, 4 high. The cft bar (blue, 98.7 %) is about twice as high as the others (51.3 %)."""
    report.chart([WORSE, SFT, CFT], tmp_path / "chart.png")
    pixels = picture(tmp_path / "chart.png", 577, 600)
    bottom = (abs(pixels - matplotlib.colors.to_rgb("#4c72b0")).sum(axis=2) < 0.02).nonzero()[0].max()
    heights = [bottom - bar_top(pixels, colour) for colour in ("#4c72b0", "#9aa5b1")]
    assert heights[0] / heights[1] == pytest.approx(98.7 / 51.3, rel=0.03)


@pytest.mark.parametrize("scores, width", [
    ([BASE], 450), ([BASE, BASE | {"benchmark": "gsm8k"}], 900), ([BASE] * 5 + [SFT | {"benchmark": "math500"}], 1725),
    ([BASE | {"model": "a--very-long-folder-name" * 2}, SFT], 450)])
def test_chart_grows_with_bars_and_benchmarks(tmp_path, scores, width):
    """One panel a benchmark, each max(3, 1 + 0.95 x the most bars of one) inches wide: 3; 2 x 3; 2 x 5.75; 3 (inches x 150 dpi)."""
    report.chart(scores, tmp_path / "chart.png")
    picture(tmp_path / "chart.png", width, 600)


@pytest.mark.parametrize("n", [1, 4, 10, 1000])
def test_chart_of_nothing_right_and_everything_right(tmp_path, n):
    """The very scores 05 makes; a chart is drawn after hours of generation, so it must take any of them."""
    scores = []
    for correct in (0, n):
        low, high = stats.wilson(correct, n)
        scores.append(BASE | {"n": n, "accuracy": correct / n, "low": low, "high": high})
    report.chart(scores, tmp_path / "chart.png")
    picture(tmp_path / "chart.png", 450, 600)


def test_results_file_and_json(tmp_path):
    report.write_results(tmp_path / "05_results.md", [SFT], None, ["Note one: é.", "Note two."])
    text = (tmp_path / "05_results.md").read_text(encoding="utf-8")
    assert text == f"# Results\n\n{report.table([SFT], None)}\n\nNote one: é.\n\nNote two.\n"
    assert json.loads(report.as_json({"scores": [SFT], "é": None})) == {"scores": [SFT], "é": None} and report.as_json("é") == '"é"\n'
