"""What a training shows: a line a step, and the loss curve as a picture that opens and shows what
it should.
"""

from types import SimpleNamespace

import matplotlib.image

from common.core import files
from common.train import training_log
from common.train.training_log import read_metrics


def test_step_line_by_hand():
    """8,192 tokens in 0.2 s are 41.0 thousand a second."""
    row = dict(
        step=12,
        loss=0.42134,
        learning_rate=4.6e-6,
        grad_norm=1.2,
        tokens=8192,
        seconds=0.2,
        packing_efficiency=0.956,
        mfu=0.5,
        memory_gb=27.04,
        skipped=[],
    )
    line = (
        "step 12/98 loss 0.4213 lr 4.60e-06 grad_norm 1.200 tokens/s 41.0k packing 96% "
        "memory 27.0 GB eta 0.3 min"
    )
    assert training_log.step_line(row, 98, 0.3) == line + " MFU 50.0%"
    row["mfu"] = None
    assert training_log.step_line(row, 98, 0.3) == line
    assert (
        training_log.step_line(row | {"holdout_loss": 0.5}, 98, 0.3)
        == line + " holdout loss 0.5000"
    )
    assert (
        training_log.step_line(row | {"skipped": ["a", "b"]}, 98, 0.3)
        == line + " NOT FINITE, skipped; rows a b"
    )


def test_what_is_left_counts_saving(tmp_path, monkeypatch, capsys):
    """Resumed after step 2 of 12: steps 3 and 4 took 90 s each, saving included, so 8 take 12
    minutes, whatever the seconds of the steps alone.
    """
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=1000.0)
    monkeypatch.setattr(training_log, "time", clock)
    training = SimpleNamespace(folder=tmp_path, plan=range(12), set_name="cft")
    record = training_log.TrainingLog(training, start=2)
    row = dict(loss=0.4, learning_rate=4e-6, grad_norm=1.0, tokens=8000, seconds=2.0)
    row |= dict(packing_efficiency=0.9, mfu=None, memory_gb=1.0, skipped=[])
    for step in (3, 4):
        clock.now += 90
        record.add({"step": step} | row)
    assert "eta 12.0 min" in capsys.readouterr().out.splitlines()[-1]


def picture(path, width, height):
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (height, width) and [p.name for p in path.parent.iterdir()] == [
        path.name
    ]
    return pixels[..., :3]


def test_loss_curve(tmp_path):
    """6 x 3.5 inches at 150 dpi; the falling curve's line is lower on the right than on the left
    (rows count from the top).
    """
    training_log.loss_curve(
        [{"step": i, "loss": 2 - i / 10} for i in range(1, 20)], tmp_path / "loss.png", "cft"
    )
    pixels = picture(tmp_path / "loss.png", 900, 525)
    blue = (abs(pixels - matplotlib.colors.to_rgb("C0")).sum(axis=2) < 0.05).nonzero()
    left, right = blue[1].min(), blue[1].max()
    assert (
        right - left > 500
        and blue[0][blue[1] == left].mean() < blue[0][blue[1] == right].mean() - 200
    )


def test_one_point_makes_a_curve(tmp_path):
    training_log.loss_curve([{"step": 1, "loss": 0.0}], tmp_path / "loss.png", "sft")
    picture(tmp_path / "loss.png", 900, 525)


def test_read_metrics_drops_later_and_torn_lines_for_good(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path, 3, repair=True) == []
    for step in range(1, 6):
        files.append_line(path, {"step": step, "loss": step / 10})
    with open(path, "a") as f:
        f.write('{"step": 6, "lo')
    rows = read_metrics(path, 3, repair=True)
    assert rows == [{"step": n, "loss": n / 10} for n in (1, 2, 3)] == files.read_jsonl(path)
    files.append_line(path, {"step": 4, "loss": 9})
    assert [row["loss"] for row in files.read_jsonl(path)] == [0.1, 0.2, 0.3, 9]
