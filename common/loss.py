"""Cross-entropy on completion tokens only, without ever holding the full logits."""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from common.tokens import IGNORE

CHUNK = 1024  # rows of logits alive at a time: 1024 x 151,936 x 4 bytes = 0.6 GB


def completion_nll(hidden, labels, weight, bias=None):
    """Sum of -log p(label) over the supervised positions: a float32 scalar, 0 where there is none.

    hidden [B, T, H]; labels [B, T] with IGNORE where nothing is supervised; weight [V, H], the lm_head's.
    Position t predicts the label at t + 1. Only supervised rows go through lm_head, CHUNK at a time, and a chunk's
    logits are formed again in the backward pass. Equals HF's loss x its token count to float32 rounding.
    """
    keep = labels[:, 1:] != IGNORE
    rows, targets = hidden[:, :-1][keep], labels[:, 1:][keep]
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for h, t in zip(rows.split(CHUNK), targets.split(CHUNK)):
        total = total + checkpoint(_chunk_nll, h, t, weight, bias, use_reentrant=False)
    return total


def _chunk_nll(rows, targets, weight, bias):
    return F.cross_entropy(F.linear(rows, weight, bias).float(), targets, reduction="sum")
