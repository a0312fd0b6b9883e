"""What a training shows of itself: log lines and the loss curve."""

import json
import math

from matplotlib.figure import Figure

from common.core.figures import save_figure
from common.core.files import write_jsonl
from common.train.tokens import packing_efficiency, padding_share


def plan_line(job):
    """One arm before its training: rows, tokens, steps, what was dropped or cut."""
    useful = sum(packing_efficiency(step, job.lengths) for step in job.plan) / len(job.plan)
    return (
        f"{job.arm}: {len(job.examples)} rows, {sum(job.lengths) / len(job.lengths):.0f} tokens a row, {len(job.plan)} steps, "
        f"padding {padding_share(job.plan, job.lengths):.1%}, useful {useful:.1%}"
        + "".join(f", {n} {what}" for what, n in job.counts.items())
        + (f", {len(job.held)} held out" if job.held else "")
    )


def step_line(metrics, steps):
    """One line of training, of the last of `metrics`: "step 12/98 loss 0.4213 lr 4.6e-06 grad_norm 1.20 tokens/s 41.0k ..."."""
    m, recent = metrics[-1], [row["seconds"] for row in metrics[-10:]]
    left = (steps - m["step"]) * sum(recent) / len(recent)
    eta = (
        f"{left:.0f} s"
        if left < 120
        else f"{left / 60:.0f} min"
        if left < 7200
        else f"{left / 3600:.1f} h"
    )
    return (
        f"step {m['step']}/{steps} loss {m['loss']:.4f} lr {m['learning_rate']:.2e} grad_norm {m['grad_norm']:.3f} "
        f"tokens/s {m['tokens'] / m['seconds'] / 1000:.1f}k useful {m['useful']:.0%} "
        + (f"MFU {m['mfu']:.1%} " if m["mfu"] else "")
        + f"memory {m['memory_gb']:.1f} GB eta {eta}"
        + (f" held-out loss {m['held_out_loss']:.4f}" if "held_out_loss" in m else "")
        + (
            f" NOT FINITE, skipped; {len(m['skipped'])} rows: {' '.join(m['skipped'][:5])}"
            if m["skipped"]
            else ""
        )
    )


def remarks(metrics):
    """What one should know of a finished training: skipped steps, the checkpoint with the lowest held-out loss."""
    skipped, best = sum(bool(m["skipped"]) for m in metrics), best_checkpoint(metrics)
    return (
        f"; {skipped} of {len(metrics)} steps were skipped, their loss or gradient was not finite"
        if skipped
        else ""
    ) + (f"; lowest held-out loss at {best}" if best else "")


def supervised_text(example, tokenizer, most=160):
    """One row as the model sees it, what it learns to write between >>> and <<<; the middle of long texts left out."""

    def short(text):
        return text if len(text) <= 2 * most else f"{text[:most]} [...] {text[-most:]}"

    ids, n_prompt = example["input_ids"], example["n_prompt"]
    return f"  {short(tokenizer.decode(ids[:n_prompt]))!r}\n  >>> {short(tokenizer.decode(ids[n_prompt:]))!r} <<<"


def loss_curve(metrics, path):
    """Loss per supervised token (nats) over the steps, as a PNG."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        [m["step"] for m in metrics],
        [m["loss"] for m in metrics],
        linewidth=1.5,
        label="training rows",
    )
    if held := [m for m in metrics if "held_out_loss" in m]:
        axes.plot(
            [m["step"] for m in held],
            [m["held_out_loss"] for m in held],
            "o-",
            markersize=4,
            label="held-out rows",
        )
        axes.legend()
    axes.set(
        xlabel="optimizer step", ylabel="loss per completion token (nats)", title=metrics[0]["arm"]
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def read_metrics(path, last_step=math.inf, repair=False):
    """Return the rows of a metrics file up to `last_step`, [] if there is no file.

    A line that a kill cut off is skipped: its step is run again. repair: also write the file anew without what was left out.
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


def best_checkpoint(metrics):
    """The name of the checkpoint with the lowest held-out loss, None where none was measured."""
    measured = [m for m in metrics if math.isfinite(m.get("held_out_loss", math.nan))]
    return (
        f"step-{min(measured, key=lambda m: m['held_out_loss'])['step']:06d}" if measured else None
    )
