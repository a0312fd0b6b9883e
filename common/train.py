"""The training loop: one generator that yields after each optimizer step. 04 logs and saves; 01 pretrains with it."""

import math
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

from common.tokens import collate, n_supervised


@dataclass(frozen=True)
class Update:
    """One optimizer step: step from 1, mean loss per supervised token (nats), gradient norm before clipping."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int  # real tokens in the global batch, prompts included
    supervised: int  # of which completion tokens
    seconds: float


def learning_rate_at(step, steps, peak, warmup_ratio, floor=0.0):
    """Linear warm-up, then cosine to `floor` x peak; step from 0. As transformers' schedule, so the first rate is 0."""
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def adamw(model, weight_decay=0.0, betas=(0.9, 0.999)):
    return torch.optim.AdamW(model.parameters(), lr=0.0, betas=tuple(betas), weight_decay=weight_decay, fused=True)


def training_steps(model, optimizer, examples, plan, pad_id, peak, warmup_ratio=0.1, max_grad_norm=1.0, start=0, floor=0.0):
    """Train through `plan` (common.tokens.plan), yielding an Update after each step.

    The loss of a step is the sum over all ranks and micro-batches divided by the global count of supervised tokens,
    so the curve is the same on any number of processes. FSDP averages gradients over ranks, hence the factor `world`.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    device = next(model.parameters()).device
    for step in range(start, len(plan)):
        began = time.perf_counter()
        rows = [examples[i] for micro_batches in plan[step] for indexes in micro_batches for i in indexes]
        supervised = sum(n_supervised(e) for e in rows)
        total = torch.zeros((), device=device)
        for indexes in plan[step][rank]:
            batch = [examples[i] for i in indexes] or [{"input_ids": [pad_id], "n_prompt": 1}]  # empty: join in, add 0
            loss = model.completion_loss(*collate(batch, pad_id, device))
            (loss * (world / supervised)).backward()
            total += loss.detach()
        dist.all_reduce(total)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        rate = learning_rate_at(step, len(plan), peak, warmup_ratio, floor)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        yield Update(step + 1, total.item() / supervised, norm.full_tensor().item(), rate,
                     sum(len(e["input_ids"]) for e in rows), supervised, time.perf_counter() - began)
