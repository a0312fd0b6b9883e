"""The training loop: one generator that yields after each optimizer step. 04 logs and saves; 01 pretrains with it."""

import math
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from common.core.errors import InputError, Stopped
from common.train import tokens
from common.train.estimate import GPUS
from common.train.tokens import collate, n_supervised, packing_efficiency

MOST_SKIPPED = 3  # steps without a finite loss and gradient, before a run stops


@dataclass(frozen=True)
class Update:
    """One optimizer step: step from 1, mean loss per supervised token (nats), gradient norm before clipping."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int  # real tokens in the global batch, prompts included
    supervised: int  # of which completion tokens
    useful: float  # share of the processes' token slots that held real tokens, 0 to 1
    seconds: float
    skipped: list[str] = field(
        default_factory=list
    )  # not empty: nothing was learned; the ids of the rows at fault


def learning_rate_at(step, steps, peak, warmup_ratio, floor=0.0):
    """Linear warm-up, then cosine to `floor` x peak; step from 0. As transformers' schedule, so the first rate is 0."""
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def adamw(model, weight_decay=0.0, betas=(0.9, 0.999), eight_bit=False):
    """AdamW over what is trainable; eight_bit: bitsandbytes' with its moments in 8 bits, for adapters."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    if eight_bit:
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(trainable, lr=0.0, betas=tuple(betas), weight_decay=weight_decay)
    return torch.optim.AdamW(
        trainable, lr=0.0, betas=tuple(betas), weight_decay=weight_decay, fused=True
    )


def check_flags(config, world):
    """InputError for settings of 04 that do not go together."""
    full = config.method == "full"
    for wrong, says in [
        (
            config.global_batch < world,
            f"--global-batch {config.global_batch} is smaller than the {world} processes.\nGive one of at least {world}.",
        ),
        (
            full and config.optimizer == "adamw8bit",
            "--optimizer adamw8bit is for adapters.\nGive --method lora or qlora with it, or --optimizer adamw.",
        ),
        (
            full and config.merge,
            "--merge adds an adapter to its base, and --method full trains none.\nGive --method lora or qlora, or leave it out.",
        ),
        (
            config.keep_best and not config.holdout,
            "--keep-best goes by the held-out loss.\nGive rows for it: --holdout 200",
        ),
        (
            config.keep_best and not config.keep_last,
            "--keep-best spares a checkpoint that --keep-last would remove; without that all are kept.\n"
            "Give both: --keep-best --keep-last 1",
        ),
        (
            not math.isfinite(config.learning_rate),
            f"--learning-rate {config.learning_rate}: expected a finite number, such as 5e-6",
        ),
        (
            config.gpu not in GPUS,
            f"--gpu {config.gpu} is not known.\nExpected one of: {', '.join(GPUS)}",
        ),
        (
            not config.mfu,
            "--mfu 0 would take for ever.\nExpected more than 0, at most 1; the paper's own hour is about 0.05.",
        ),
        (
            config.gpus and not config.dry_run,
            f"--gpus is for --dry-run.\nStart so many processes: torchrun --nproc-per-node {config.gpus} 04_train.py ...",
        ),
    ]:
        if wrong:
            raise InputError(says)


def training_steps(
    model,
    optimizer,
    examples,
    plan,
    peak,
    warmup_ratio=0.1,
    max_grad_norm=1.0,
    start=0,
    floor=0.0,
    skipped=0,
):
    """Train through `plan` (common.tokens.batch_plan), yielding an Update after each step.

    The loss of a step is the sum over all ranks and micro-batches divided by the global count of supervised tokens,
    so the curve is the same on any number of processes. FSDP averages gradients over ranks, hence the factor `world`.
    A step whose loss or gradient is not finite is skipped; the third one (`skipped`: those before a resume) is an
    InputError that names the rows, raised in place of its Update. max_grad_norm 0: gradients are not clipped.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    lengths = [len(e["input_ids"]) for e in examples]
    device = next(model.parameters()).device
    for step in range(start, len(plan)):
        began = time.perf_counter()
        rows = [i for micro_batches in plan[step] for group in micro_batches for i in group]
        supervised = sum(n_supervised(examples[i]) for i in rows)
        total = torch.zeros((), device=device)
        for group in plan[step][rank]:
            loss = _loss(model, examples, group, device, world / supervised)
            loss.backward()
            total += loss.detach()
        dist.all_reduce(total)
        norm = _clipped(model, max_grad_norm, world)
        rate = learning_rate_at(step, len(plan), peak, warmup_ratio, floor)
        for param_group in optimizer.param_groups:
            param_group["lr"] = rate
        loss, norm, culprits = total.item() / world, norm.item(), []
        if math.isfinite(loss) and math.isfinite(norm):
            optimizer.step()
        else:
            culprits = _culprits(model, examples, plan[step][rank], device) or [
                examples[i]["id"] for i in rows
            ]
            if (skipped := skipped + 1) >= MOST_SKIPPED:
                raise InputError(_not_finite(step + 1, loss, norm, culprits, len(rows)))
        optimizer.zero_grad()
        yield Update(
            step + 1,
            loss,
            norm,
            rate,
            sum(lengths[i] for i in rows),
            supervised,
            packing_efficiency(plan[step], lengths),
            time.perf_counter() - began,
            culprits,
        )


def _loss(model, examples, group, device, scale):
    """One micro-batch's part; an empty one joins in, as sharded training needs, and adds 0."""
    batch = [examples[i] for i in group] or [{"input_ids": [0], "n_prompt": 1}]
    return model.completion_loss(*collate(batch, device), scale)


def _clipped(model, max_grad_norm, world):
    """Clip, and return the gradient norm over all processes. Adapters are whole on every rank: average them here."""
    whole = [p for p in model.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    if world > 1 and whole:
        flat = torch.cat([p.grad.flatten() for p in whole])
        dist.all_reduce(flat)
        for p, part in zip(whole, flat.div_(world).split([p.numel() for p in whole])):
            p.grad.copy_(part.view_as(p))
    norm = torch.nn.utils.clip_grad_norm_(
        [p for p in model.parameters() if p.requires_grad], max_grad_norm or math.inf
    )
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@torch.no_grad()
def mean_loss(model, examples, tokens_per_microbatch):
    """Mean loss per supervised token over all of `examples`, without training: nats."""
    device, lengths = next(model.parameters()).device, [len(e["input_ids"]) for e in examples]
    (step,) = tokens.batch_plan(
        lengths, len(examples), 1, 0, dist.get_world_size(), tokens_per_microbatch
    )
    total = sum(_loss(model, examples, group, device, 1.0) for group in step[dist.get_rank()])
    dist.all_reduce(total)
    _reshard(model)
    return total.item() / sum(map(n_supervised, examples))


def _reshard(model):
    """A forward pass without a backward one leaves FSDP's root gathered; optimizer and checkpoints need it sharded."""
    if hasattr(model, "reshard"):
        model.reshard()


@torch.no_grad()
def _culprits(model, examples, groups, device):
    """Ids of the rows whose own loss is not finite, over all ranks, which look through as many rows each."""
    mine, found = [i for group in groups for i in group], []
    counts = [None] * dist.get_world_size()
    dist.all_gather_object(counts, len(mine))
    for i in mine + [None] * (max(counts) - len(mine)):
        loss = _loss(model, examples, [] if i is None else [i], device, 1.0)
        if i is not None and not torch.isfinite(loss):
            found.append(examples[i]["id"])
    _reshard(model)
    of_all = [None] * dist.get_world_size()
    dist.all_gather_object(of_all, found)
    return [name for some in of_all for name in some]


def _not_finite(step, loss, norm, culprits, n_rows):
    which = (
        "each of these rows alone has no finite loss"
        if len(culprits) < n_rows
        else "no row stands out, so all of the batch"
    )
    return (
        f"step {step}: loss {loss}, gradient norm {norm}, the third step without a finite one; the weights are as they were "
        f"before those steps.\nRow ids ({which}): {' '.join(culprits[:20])}{' ...' if len(culprits) > 20 else ''}\n"
        "Look at those rows and at the base model's weights; a smaller --learning-rate helps where the loss grew before."
    )


# --- ending early ---------------------------------------------------------------------------------------------------


@contextmanager
def stop_signals():
    """SIGTERM and Ctrl-C wait for the end of a step: yields a function that says, after each step and on all ranks
    alike, the status to end with (143, 130), or 0. A second Ctrl-C interrupts at once, but under torchrun, which sends
    on what the terminal has sent already. A signal after the last time it was asked is a Stopped at the end."""
    got, before = [], {}

    def note(number, frame):
        if number == signal.SIGINT and got and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt
        got.append(128 + number)

    def agreed():
        device = (
            torch.device("cuda", torch.cuda.current_device())
            if dist.get_backend() == "nccl"
            else "cpu"
        )
        status = torch.tensor(max(got, default=0), device=device)
        dist.all_reduce(status, dist.ReduceOp.MAX)
        return int(status)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, note)
    except ValueError:
        pass  # not the main thread: signals are not ours to handle
    try:
        yield agreed
        if got:
            raise Stopped(
                "stopped after the last step.\nEverything is trained; the same command does what is left.",
                max(got),
            )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
