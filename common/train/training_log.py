"""What a training shows of itself: log lines, metrics.jsonl and the loss curve."""

import json
import math
from pathlib import Path

import torch.distributed as dist
from matplotlib.figure import Figure

from common.core.figures import save_figure
from common.core.files import append_line, write_jsonl
from common.train.tokens import packing_efficiency, padding_share


class TrainingLog:
    """The metrics of one training, a row a step: kept in metrics.jsonl, printed, and drawn.

    Process 0 writes the files and prints; the others only remember.
    """

    def __init__(self, training, start: int):
        """Read the metrics of the steps up to `start`; later ones are run again."""
        self.training = training
        self.path = training.folder / "metrics.jsonl"
        self.writes = dist.get_rank() == 0
        self.metrics = read_metrics(self.path, start, repair=self.writes)

    @property
    def skipped(self) -> int:
        """Return how many steps had no finite loss and gradient."""
        return sum(bool(row["skipped"]) for row in self.metrics)

    @property
    def best(self) -> str | None:
        """Return the name of the checkpoint with the lowest held-out loss so far."""
        return best_checkpoint(self.metrics)

    def add(self, row: dict) -> None:
        """Append a step, and print its line."""
        self.metrics.append(row)
        if self.writes:
            print(step_line(self.metrics, len(self.training.plan)))
            append_line(self.path, row)

    def draw(self) -> None:
        """Write loss.png."""
        if self.writes:
            picture = self.training.folder / "loss.png"
            loss_curve(self.metrics, picture, self.training.set_name)


def read_metrics(path: Path, last_step: float = math.inf, repair: bool = False) -> list[dict]:
    """Return the rows of a metrics file up to `last_step`, [] if there is no file.

    A line that a kill cut off is skipped: its step is run again. repair: also write the file anew
    without what was left out.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("step", math.inf) <= last_step:
            rows.append(row)
    if repair:
        write_jsonl(path, rows)
    return rows


def best_checkpoint(metrics: list[dict]) -> str | None:
    """Return the checkpoint with the lowest held-out loss, None if none was measured."""
    measured = [row for row in metrics if math.isfinite(row.get("held_out_loss", math.nan))]
    if not measured:
        return None
    best = min(measured, key=lambda row: row["held_out_loss"])
    return f"step-{best['step']:06d}"


# --- lines ----------------------------------------------------------------------------------------


def plan_line(training) -> str:
    """Return one training set before its training: rows, tokens, steps, what was truncated."""
    lengths, plan = training.lengths, training.plan
    efficiency = sum(packing_efficiency(step, lengths) for step in plan) / len(plan)
    parts = [
        f"{training.set_name}: {len(lengths)} rows",
        f"{sum(lengths) / len(lengths):.0f} tokens a row",
        f"{len(plan)} steps",
        f"padding {padding_share(plan, lengths):.1%}",
        f"packing efficiency {efficiency:.1%}",
    ]
    parts += [f"{n} {reason}" for reason, n in training.counts.items()]
    if training.holdout:
        parts.append(f"{len(training.holdout)} held out")
    return ", ".join(parts)


def step_line(metrics: list[dict], steps: int) -> str:
    """Return the log line of the last step.

    "step 12/98 loss 0.4213 lr 4.60e-06 grad_norm 1.200 tokens/s 41.0k packing 96% ..."
    """
    row = metrics[-1]
    recent = metrics[-10:]
    seconds_left = (steps - row["step"]) * sum(r["seconds"] for r in recent) / len(recent)
    parts = [
        f"step {row['step']}/{steps}",
        f"loss {row['loss']:.4f}",
        f"lr {row['learning_rate']:.2e}",
        f"grad_norm {row['grad_norm']:.3f}",
        f"tokens/s {row['tokens'] / row['seconds'] / 1000:.1f}k",
        f"packing {row['useful']:.0%}",
    ]
    if row["mfu"]:
        parts.append(f"MFU {row['mfu']:.1%}")
    parts += [f"memory {row['memory_gb']:.1f} GB", f"eta {duration(seconds_left)}"]
    if "held_out_loss" in row:
        parts.append(f"held-out loss {row['held_out_loss']:.4f}")
    if row["skipped"]:
        parts.append(f"NOT FINITE, skipped; rows {' '.join(row['skipped'][:5])}")
    return " ".join(parts)


def duration(seconds: float) -> str:
    """Return a time in a unit that is easy to read.

    >>> duration(17), duration(600), duration(9000)
    ('17 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def summary(training, merged: bool) -> str:
    """Return the line that ends a training: what was written, and what one should know of it."""
    metrics = read_metrics(training.folder / "metrics.jsonl", len(training.plan))
    line = f"wrote {training.last_checkpoint / 'merged' if merged else training.last_checkpoint}"
    skipped = sum(bool(row["skipped"]) for row in metrics)
    if skipped:
        line += f"; {skipped} of {len(metrics)} steps were skipped, as not finite"
    best = best_checkpoint(metrics)
    if best:
        line += f"; lowest held-out loss at {best}"
    return line


def supervised_text(example: dict, tokenizer) -> str:
    """Return one row as the model sees it, what it learns to write between >>> and <<<."""
    prompt = tokenizer.decode(example["input_ids"][: example["n_prompt"]])
    completion = tokenizer.decode(example["input_ids"][example["n_prompt"] :])
    return f"  {_shorten(prompt)!r}\n  >>> {_shorten(completion)!r} <<<"


def _shorten(text: str, width: int = 160) -> str:
    """Return a long text without its middle."""
    return text if len(text) <= 2 * width else f"{text[:width]} [...] {text[-width:]}"


# --- the picture ----------------------------------------------------------------------------------


def loss_curve(metrics: list[dict], path: Path, title: str) -> None:
    """Draw the loss per supervised token (nats) over the steps, as a PNG."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    steps = [row["step"] for row in metrics]
    axes.plot(steps, [row["loss"] for row in metrics], linewidth=1.5, label="training rows")
    measured = [row for row in metrics if "held_out_loss" in row]
    if measured:
        steps = [row["step"] for row in measured]
        losses = [row["held_out_loss"] for row in measured]
        axes.plot(steps, losses, "o-", markersize=4, label="held-out rows")
        axes.legend()
    axes.set(xlabel="optimizer step", ylabel="loss per completion token (nats)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    save_figure(figure, path)
