"""Cross-entropy on completion tokens only, without ever holding the full logits."""

import torch
import torch.nn.functional as F

from common.train.tokens import IGNORE

CHUNK = {
    "cpu": 2**25,
    "cuda": 2**27,
}  # logits alive at a time; at a vocabulary of 151,936, 220 and 883 rows of them


def completion_nll(hidden, labels, weight, bias=None, scale=1.0):
    """`scale` times the sum of -log p(label) over the supervised positions: a float32 scalar, 0 where there is none.

    hidden [B, T, H]; labels [B, T] with IGNORE where nothing is supervised; weight [V, H], bias [V] or None, of the
    lm_head. Position t predicts the label at t + 1. Only supervised rows go through lm_head, a chunk at a time. Equals
    HF's loss to float32 rounding where scale is 1 / the number of supervised tokens.
    """
    keep = labels[:, 1:] != IGNORE
    rows = max(1, CHUNK.get(hidden.device.type, 2**27) // len(weight))
    return _ChunkedNLL.apply(
        hidden[:, :-1][keep],
        labels[:, 1:][keep],
        weight,
        bias,
        scale,
        rows,
        torch.is_grad_enabled(),
    )


class _ChunkedNLL(torch.autograd.Function):
    """The gradients are formed in the forward pass, while a chunk's logits are there: lm_head is passed once, and what
    waits for the backward pass is a row of H per token and one weight gradient, summed in float32."""

    @staticmethod
    def forward(ctx, hidden, targets, weight, bias, scale, rows, training):
        """-> the summed loss times `scale`. hidden: [N, H]; targets: [N]; rows: how many tokens' logits are held at a time."""
        needed = [training and needs for needs in ctx.needs_input_grad]
        grad_hidden = torch.empty_like(hidden) if needed[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needed[2] else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needed[3] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for at in range(0, len(hidden), rows):
            h = hidden[at : at + rows]
            logits = F.linear(h, weight, bias).float().requires_grad_(any(needed))
            with torch.enable_grad():
                loss = F.cross_entropy(logits, targets[at : at + rows], reduction="sum")
            total += loss.detach()
            if any(needed):
                grad_logits = torch.autograd.grad(loss, logits, torch.full_like(loss, scale))[0].to(
                    h.dtype
                )
                if grad_hidden is not None:
                    grad_hidden[at : at + rows] = grad_logits @ weight
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
        hidden, weight, bias = (
            None if g is None else g.mul_(grad) for g in ctx.saved_tensors
        )  # in place: the weight's is large
        return hidden, None, weight, bias, None, None, None
