"""The critique-only loss against other ways to the same number:

CPU seconds, peak memory, loss and gradient.

    python -m tests.bench.loss

One micro-batch of two rows (1,458 token slots, 628 of them supervised), vocabulary 151,936, hidden
size 256, float32, one thread; forward and backward of lm_head and cross-entropy. Each way in a
process of its own, three passes, in turn.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from common.train.loss import completion_nll
from common.train.tokens import IGNORE, supervised

VOCABULARY, HIDDEN, LENGTH, PROMPT = 151_936, 256, 729, 415


def ours(hidden, labels, weight, n):
    return completion_nll(hidden, *supervised(labels), weight, scale=1 / n)


def full_logits(hidden, labels, weight, n):
    """What transformers does with labels=: every position's logits, in float32."""
    return (
        functional.cross_entropy(
            functional.linear(hidden[:, :-1], weight).float().flatten(0, 1),
            labels[:, 1:].flatten(),
            ignore_index=IGNORE,
            reduction="sum",
        )
        / n
    )


def selected_logits(hidden, labels, weight, n):
    keep = labels[:, 1:] != IGNORE
    return (
        functional.cross_entropy(
            functional.linear(hidden[:, :-1][keep], weight).float(),
            labels[:, 1:][keep],
            reduction="sum",
        )
        / n
    )


def checkpointed_chunks(hidden, labels, weight, n):
    keep = labels[:, 1:] != IGNORE

    def chunk_loss(h, t):
        return functional.cross_entropy(functional.linear(h, weight).float(), t, reduction="sum")

    chunks = zip(hidden[:, :-1][keep].split(110), labels[:, 1:][keep].split(110))
    return sum(checkpoint(chunk_loss, h, t, use_reentrant=False) for h, t in chunks) / n


WAYS = {f.__name__: f for f in (ours, full_logits, selected_logits, checkpointed_chunks)}


def peak_mb():
    """The most memory since it was last forgotten (Linux)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def measure(way):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden = torch.randn(2, LENGTH, HIDDEN, requires_grad=True)
    weight = (0.02 * torch.randn(VOCABULARY, HIDDEN)).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (2, LENGTH))
    labels[:, :PROMPT] = IGNORE
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making these
    before, began = peak_mb(), time.process_time()
    loss = WAYS[way](hidden, labels, weight, 2 * (LENGTH - PROMPT))
    loss.backward()
    return {
        "seconds": time.process_time() - began,
        "mb": peak_mb() - before,
        "loss": loss.item(),
        "norm": (hidden.grad.norm() ** 2 + weight.grad.norm() ** 2).sqrt().item(),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        sys.exit()
    runs = {way: [] for way in WAYS}
    for _ in range(3):
        for way in WAYS:
            runs[way].append(
                json.loads(
                    subprocess.run(
                        [sys.executable, "-m", "tests.bench.loss", way],
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                )
            )
    print(
        "| way | CPU s | against ours | extra MB at the peak | against ours | loss | gradient norm "
        "|\n|---|---:|---:|---:|---:|---:|---:|"
    )
    seconds, mb = (
        {way: statistics.median(r[what] for r in rs) for way, rs in runs.items()}
        for what in ("seconds", "mb")
    )
    for way in WAYS:
        print(
            f"| {way} | {seconds[way]:.2f} | {seconds[way] / seconds['ours']:.2f} | {mb[way]:.0f} "
            f"| {mb[way] / mb['ours']:.2f} | "
            f"{runs[way][0]['loss']:.5f} | {runs[way][0]['norm']:.6f} |"
        )
