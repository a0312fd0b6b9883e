"""Cross-entropy on completion tokens only, without ever holding the full logits."""

import torch
from torch.nn import functional

from common.train.tokens import IGNORE

# Logits alive at a time: at a vocabulary of 151,936 these are 220 and 883 rows of them.
CHUNK = {"cpu": 2**25, "cuda": 2**27}


def completion_nll(
    hidden: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
) -> torch.Tensor:
    """Return `scale` times the sum of -log p(label) over the supervised positions.

    hidden [B, T, H]; labels [B, T], IGNORE at each position that is not supervised; weight [V, H]
    and bias [V] or None of the lm_head. Returns a float32 scalar, 0 if no position is supervised.

    Position t predicts the label at t + 1. Only supervised rows go through lm_head, a chunk at a
    time. With scale = 1 / (number of supervised tokens) it equals Hugging Face's loss to float32
    rounding.
    """
    keep = labels[:, 1:] != IGNORE
    rows = max(1, CHUNK.get(hidden.device.type, 2**27) // len(weight))
    supervised = hidden[:, :-1][keep], labels[:, 1:][keep]
    return _ChunkedNLL.apply(*supervised, weight, bias, scale, rows, torch.is_grad_enabled())


class _ChunkedNLL(torch.autograd.Function):
    """The gradients are formed in the forward pass, while a chunk's logits exist.

    So lm_head is passed once. What waits for the backward pass is a row of H per token and one
    weight gradient, summed in float32.
    """

    @staticmethod
    def forward(ctx, hidden, targets, weight, bias, scale, rows, training):
        """hidden: [N, H]; targets: [N]; rows: how many tokens' logits are held at a time."""
        needed = [training and needs for needs in ctx.needs_input_grad]
        grad_hidden = torch.empty_like(hidden) if needed[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needed[2] else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needed[3] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            h = hidden[chunk]
            logits = functional.linear(h, weight, bias).float().requires_grad_(any(needed))
            with torch.enable_grad():
                loss = functional.cross_entropy(logits, targets[chunk], reduction="sum")
            total += loss.detach()
            if any(needed):
                (grad_logits,) = torch.autograd.grad(loss, logits, torch.full_like(loss, scale))
                grad_logits = grad_logits.to(h.dtype)
                if grad_hidden is not None:
                    grad_hidden[chunk] = grad_logits @ weight
                if grad_weight is not None and h.dtype == torch.float32:
                    grad_weight.addmm_(grad_logits.T, h)
                elif grad_weight is not None:
                    grad_weight += grad_logits.T @ h
                if grad_bias is not None:
                    grad_bias += grad_logits.sum(0)
                del grad_logits
            del logits, loss  # or two chunks' would be alive at a time
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total * scale

    @staticmethod
    def backward(ctx, grad):
        # In place: the weight's gradient is large.
        hidden, weight, bias = (None if g is None else g.mul_(grad) for g in ctx.saved_tensors)
        return hidden, None, weight, bias, None, None, None
