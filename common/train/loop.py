"""The training loop: a generator that yields after each optimizer step.

04 logs and saves; 01 pretrains the tiny base with it.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from common.core.errors import InputError, Stopped
from common.train import distributed, tokens

MAX_GRAD_NORM = 1.0  # the paper's framework's default
# Float16 has no number under 6e-8, which most gradients are: the loss is multiplied by this, the
# gradients of the weights are divided by it. Where it is too much for float16, it is halved.
LOSS_SCALE = 2.0**16
MAX_SKIPPED = 3  # steps without a finite loss and gradient, before a run stops


@dataclass(frozen=True)
class Update:
    """One optimizer step: step from 1, mean loss per supervised token (nats)."""

    step: int
    loss: float
    grad_norm: float  # before clipping
    learning_rate: float
    tokens: int  # real tokens in the global batch, prompts included
    supervised: int  # completion tokens among them
    packing_efficiency: float  # share of the token slots with real tokens, 0 to 1
    seconds: float
    skipped: list[str]  # if not empty, nothing was learned: the ids of the step's rows


def learning_rate_at(step: int, steps: int, peak: float, warmup_ratio: float) -> float:
    """Return the rate of a step (from 0): linear warm-up, then cosine to 0.

    As transformers' schedule, so the first rate is 0.
    """
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.5 * (1 + math.cos(math.pi * progress)))


def adamw(model, weight_decay=0.0, betas=(0.9, 0.999), eight_bit=False) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters; eight_bit: bitsandbytes', with 8-bit moments."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    if eight_bit:
        from bitsandbytes.optim.adamw import AdamW8bit

        return AdamW8bit(trainable, lr=0.0, betas=betas, weight_decay=weight_decay)
    return torch.optim.AdamW(trainable, lr=0.0, betas=betas, weight_decay=weight_decay, fused=True)


# --- steps ----------------------------------------------------------------------------------------


def training_steps(
    model,
    optimizer: torch.optim.Optimizer,
    examples: list,
    plan: list,
    peak: float,
    warmup_ratio: float = 0.1,
    start: int = 0,
    skipped: int = 0,
) -> Iterator[Update]:
    """Train through `plan` (tokens.batch_plan) from step `start`; yield an Update after each step.

    The loss of a step is the sum over all ranks and micro-batches, divided by the global count of
    supervised tokens, so the curve is the same on any number of processes. A step whose loss or
    gradient is not finite is skipped; the third one (`skipped` before a resume) is an InputError.
    """
    lengths = [len(e["input_ids"]) for e in examples]
    computed = distributed.compute_dtype(next(model.parameters()).device)
    loss_scale = LOSS_SCALE if computed == torch.float16 else 1.0
    for step in range(start, len(plan)):
        start_time = time.perf_counter()
        rows = tokens.step_rows(plan[step])
        supervised = sum(tokens.n_supervised(examples[i]) for i in rows)
        loss, norm, loss_scale = _gradients(model, examples, plan[step], supervised, loss_scale)
        rate = learning_rate_at(step, len(plan), peak, warmup_ratio)
        skipped_ids = []
        if math.isfinite(loss) and math.isfinite(norm):
            _update_weights(optimizer, rate)
        else:
            skipped_ids = [examples[i]["id"] for i in rows]
            skipped += 1
            if skipped >= MAX_SKIPPED:
                raise _not_finite(step + 1, loss, norm, skipped_ids)
        optimizer.zero_grad()
        yield Update(
            step=step + 1,
            loss=loss,
            grad_norm=norm,
            learning_rate=rate,
            tokens=sum(lengths[i] for i in rows),
            supervised=supervised,
            packing_efficiency=tokens.packing_efficiency(plan[step], lengths),
            seconds=time.perf_counter() - start_time,
            skipped=skipped_ids,
        )


def _gradients(model, examples, step, supervised, loss_scale):
    """Leave a step's gradients in the model, clipped; return loss, norm and the loss scale."""
    world = dist.get_world_size()
    while True:
        loss = _total_loss(model, examples, step, loss_scale * world / supervised)
        loss /= loss_scale * world
        norm = _clip_gradients(model, loss_scale)
        if loss_scale == 1 or math.isfinite(norm) or not math.isfinite(loss):
            return loss, norm, loss_scale
        loss_scale /= 2
        model.zero_grad()


def _update_weights(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _total_loss(model, examples, step, scale):
    """Return the sum of all ranks' losses; where gradients are on, run backwards, too.

    FSDP averages gradients over the ranks, so the scale of a training has their number as a factor.
    A rank with an empty micro-batch joins in, as sharded training needs, and adds 0.
    """
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    groups = step[dist.get_rank()]
    for number, group in enumerate(groups, 1):
        if hasattr(model, "reshard"):  # sharded: embedding and head stay gathered until the last
            model.set_reshard_after_backward(number == len(groups), recurse=False)
        batch = [examples[i] for i in group] or [{"input_ids": [0], "n_prompt": 1}]
        loss = model.completion_loss(*tokens.micro_batch(batch, device), scale)
        if torch.is_grad_enabled():
            loss.backward()
        total += loss.detach()
    dist.all_reduce(total)
    return total.item()


def _clip_gradients(model, loss_scale) -> float:
    """Divide the gradients by `loss_scale`, clip them; return their norm over all processes."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    world = dist.get_world_size()
    for p in trainable:
        if world > 1 and not isinstance(p, DTensor):  # an adapter: each rank holds all of it
            dist.all_reduce(p.grad)
            p.grad /= world
        if loss_scale > 1:
            p.grad /= loss_scale
    norm = torch.nn.utils.clip_grad_norm_(trainable, MAX_GRAD_NORM)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()


@torch.no_grad()
def mean_loss(model, examples: list, tokens_per_microbatch: int) -> float:
    """Return the mean loss per supervised token over all of `examples` (nats), without training."""
    lengths = [len(e["input_ids"]) for e in examples]
    world = dist.get_world_size()
    (step,) = tokens.batch_plan(lengths, len(examples), 1, 0, world, tokens_per_microbatch)
    total = _total_loss(model, examples, step, scale=1.0)
    if hasattr(model, "reshard"):
        # Without a backward pass FSDP's root stays gathered; optimizer and checkpoints need it
        # sharded.
        model.reshard()
    return total / sum(map(tokens.n_supervised, examples))


def _not_finite(step, loss, norm, ids):
    return InputError(
        f"step {step}: loss {loss}, gradient norm {norm}, the third step without a finite one; "
        "nothing was learned in them (`skipped` in metrics.jsonl names their rows).\n"
        f"Ids of its first 20 rows: {' '.join(ids[:20])}\n"
        "Look at those rows and at the base model's weights; a smaller --learning-rate helps if "
        "the loss grew before."
    )


# --- ending early ---------------------------------------------------------------------------------


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Let SIGTERM and Ctrl-C wait for the end of a step.

    Yields a function that returns, on all ranks alike, the status to end with: 143, 130, or 0 if
    nobody asked to stop. Every rank has to call it after each step. A second Ctrl-C interrupts at
    once, except under torchrun, which sends on what the terminal has sent already. A signal after
    the last call raises Stopped at the end.
    """
    statuses: list[int] = []

    def note(number, frame):
        repeated = number == signal.SIGINT and statuses
        if repeated and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt
        statuses.append(128 + number)

    handlers = {n: signal.signal(n, note) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: distributed.maximum(max(statuses, default=0))
        if statuses:
            raise Stopped(
                "stopped after the last step.\n"
                "Everything is trained; the same command does what is left.",
                max(statuses),
            )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def check_stop(status: int, moment: str) -> None:
    """Raise Stopped if somebody asked to stop. moment: "after step 12 of 50 of cft"."""
    if status:
        raise Stopped(
            f"stopped {moment}; what was trained is saved.\nThe same command goes on from there.",
            status,
        )
