"""Cross-entropy on completion tokens only, without ever holding the full logits."""

import torch
from torch.nn import functional

# Logits alive at a time: at a vocabulary of 151,936 these are 220 and 1,766 rows of them.
CHUNK = {"cpu": 2**25, "cuda": 2**28}


def completion_nll(
    hidden: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> torch.Tensor:
    """Return `scale` times the sum of -log p(target) over the supervised positions.

    hidden [B, T, H]; positions and targets [N] of tokens.supervised; weight [V, H] and bias [V] or
    None of the lm_head. softcap: the bound c if logits are c tanh(logit / c), as in Gemma 2.
    Returns a float32 scalar, 0 if no position is supervised.

    Only supervised rows go through lm_head, a chunk at a time. With scale = 1 / (number of
    supervised tokens) it equals Hugging Face's loss to float32 rounding.
    """
    rows = max(1, CHUNK.get(hidden.device.type, 2**28) // len(weight))
    supervised = hidden.flatten(0, 1).index_select(0, positions)
    options = scale, softcap, rows, torch.is_grad_enabled()
    return _ChunkedNLL.apply(supervised, targets, weight, bias, *options)


class _ChunkedNLL(torch.autograd.Function):
    """The gradients are formed in the forward pass, while a chunk's logits exist.

    So lm_head is passed once. What waits for the backward pass is a row of H per token and one
    weight gradient, summed in float32.
    """

    @staticmethod
    def forward(ctx, hidden, targets, weight, bias, scale, softcap, rows, training):
        """hidden: [N, H]; targets: [N]; rows: how many tokens' logits are held at a time."""
        needed = [training and needs for needs in ctx.needs_input_grad]
        grad_hidden = torch.empty_like(hidden) if needed[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needed[2] else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needed[3] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            h, labels = hidden[chunk], targets[chunk, None]
            # One buffer of float32: the logits, their log-probabilities, then their gradient.
            logits = functional.linear(h, weight, bias).float()
            slopes = _bound(logits, softcap) if softcap else None
            log_p = torch.log_softmax(logits, 1, out=logits)
            total -= log_p.gather(1, labels).sum()
            if any(needed):
                one_hot = torch.ones_like(labels, dtype=torch.float32)
                grad_logits = log_p.exp_().scatter_add_(1, labels, -one_hot)
                if slopes is not None:
                    grad_logits *= slopes
                grad_logits = grad_logits.to(h.dtype)
                if grad_hidden is not None:
                    grad_hidden[chunk] = (grad_logits @ weight).mul_(scale)
                if grad_weight is not None:
                    _add_product(grad_weight, grad_logits, h, scale)
                if grad_bias is not None:
                    grad_bias.add_(grad_logits.sum(0), alpha=scale)
                del grad_logits
            del logits, log_p, slopes  # or two chunks' would be alive at a time
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total * scale

    @staticmethod
    def backward(ctx, grad):
        # In place: the weight's gradient is large.
        hidden, weight, bias = (None if g is None else g.mul_(grad) for g in ctx.saved_tensors)
        return hidden, None, weight, bias, None, None, None, None


def _bound(logits, softcap):
    """Make softcap * tanh(logits / softcap) of the logits, in place; return the slopes."""
    tanh = logits.div_(softcap).tanh_()
    slopes = 1 - tanh * tanh
    logits *= softcap
    return slopes


def _add_product(total, left, right, scale) -> None:
    """Add `scale` times left^T right to a float32 total, which a GPU does in the product."""
    if left.dtype == torch.float32:
        total.addmm_(left.T, right, alpha=scale)
    elif left.is_cuda:
        torch.addmm(total, left.T, right, alpha=scale, out_dtype=torch.float32, out=total)
    else:
        total.add_(left.T @ right, alpha=scale)
