"""What a training shows of itself: log lines, metrics.jsonl and the loss curve."""

import json
import math
import time
from pathlib import Path

from common.core.figures import new_figure, save_figure
from common.core.files import append_line, write_jsonl
from common.core.tables import count
from common.train import distributed
from common.train.tokens import packing_efficiency


class TrainingLog:
    """The metrics of one training, a row a step: written to metrics.jsonl, printed, drawn.

    Process 0 writes and prints; the others only remember.
    """

    def __init__(self, training, start: int):
        """Read the metrics of the steps up to `start`; later ones are run again."""
        self.training = training
        self.path = training.folder / "metrics.jsonl"
        self.writes = distributed.is_main()
        self.start = start
        self.start_time = time.monotonic()  # from here on saving counts, too
        self.metrics = read_metrics(self.path, start, repair=self.writes)
        if start:
            distributed.log(f"{training.set_name}: going on after step {start}")

    def add(self, row: dict) -> None:
        """Append a step; print ten lines of a training, and each skipped step."""
        self.metrics.append(row)
        n_steps = len(self.training.plan)
        if not self.writes:
            return
        append_line(self.path, row)
        is_tenth = row["step"] * 10 // n_steps > (row["step"] - 1) * 10 // n_steps
        if is_tenth or row["skipped"]:
            step_minutes = (time.monotonic() - self.start_time) / (row["step"] - self.start) / 60
            minutes_left = (n_steps - row["step"]) * step_minutes
            print(f"{self.training.set_name}: {step_line(row, n_steps, minutes_left)}")

    def draw(self) -> None:
        if self.writes:
            picture = self.training.folder / "loss.png"
            loss_curve(self.metrics, picture, self.training.set_name)


def read_metrics(path: Path, last_step: int, repair: bool) -> list:
    """Return the rows of a metrics file up to `last_step`; repair: leave the others out for good.

    A line that a kill cut off is skipped: its step is run again.
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


def count_skipped(metrics: list) -> int:
    """Return how many steps had no finite loss and gradient."""
    return sum(bool(row["skipped"]) for row in metrics)


def plan_line(training) -> str:
    """Return rows, tokens, steps and what was truncated."""
    lengths, plan = training.lengths, training.plan
    efficiency = sum(packing_efficiency(step, lengths) for step in plan) / len(plan)
    line = (
        f"{training.set_name}: {count(len(lengths), 'row')}, "
        f"{sum(lengths) / len(lengths):.0f} tokens a row, {len(plan)} steps, "
        f"packing efficiency {efficiency:.1%}"
    )
    for reason, n in training.counts.items():
        line += f", {n} {reason}"
    if training.holdout:
        line += f", {len(training.holdout)} held out"
    return line


def step_line(row: dict, n_steps: int, minutes_left: float) -> str:
    """Return "step 12/98 loss 0.4213 lr 4.60e-06 grad_norm 1.200 tokens/s 41.0k ..."."""
    speed = row["tokens"] / row["seconds"] / 1000
    line = (
        "step {step}/{n_steps} loss {loss:.4f} lr {learning_rate:.2e} grad_norm {grad_norm:.3f} "
        "tokens/s {speed:.1f}k packing {packing_efficiency:.0%} memory {memory_gb:.1f} GB "
        "eta {minutes_left:.1f} min"
    ).format(**row, n_steps=n_steps, speed=speed, minutes_left=minutes_left)
    if row["mfu"]:
        line += f" MFU {row['mfu']:.1%}"
    if "holdout_loss" in row:
        line += f" holdout loss {row['holdout_loss']:.4f}"
    if row["skipped"]:
        line += f" NOT FINITE, skipped; rows {' '.join(row['skipped'][:5])}"
    return line


def supervised_text(example: dict, tokenizer) -> str:
    """Return one row as the model sees it, what it learns to write between >>> and <<<."""
    n_prompt = example["n_prompt"]
    prompt = tokenizer.decode(example["input_ids"][:n_prompt])
    completion = tokenizer.decode(example["input_ids"][n_prompt:])
    pieces = [tokenizer.decode([i]) for i in example["input_ids"][: n_prompt + 4].tolist()]
    return (
        f"  {_shorten(prompt)!r}\n  >>> {_shorten(completion)!r} <<<\n"
        f"  tokens where they meet: {pieces[-8:-4]} >>> {pieces[-4:]}"
    )


def _shorten(text, width=160):
    return text if len(text) <= 2 * width else f"{text[:width]} [...] {text[-width:]}"


def loss_curve(metrics: list, path: Path, title: str) -> None:
    """Draw the loss per supervised token (nats) over the steps, as a PNG."""
    figure = new_figure(figsize=(6, 3.5))
    axes = figure.add_subplot()
    for field, style, label in (("loss", "-", "training rows"), ("holdout_loss", "o-", "holdout")):
        measured = [row for row in metrics if field in row]
        steps = [row["step"] for row in measured]
        axes.plot(steps, [row[field] for row in measured], style, markersize=4, label=label)
    if measured:  # a holdout
        axes.legend()
    axes.set(xlabel="optimizer step", ylabel="loss per completion token (nats)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    save_figure(figure, path)
