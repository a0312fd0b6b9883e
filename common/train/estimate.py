"""What a training will take, by arithmetic: FLOPs, memory, disk, time. The model is never loaded: its shape is enough."""

import re
import resource
from dataclasses import dataclass

import torch

from common.train import loss, tokens
from common.train.model import build_on_meta, layers_of, read_config

# Dense bfloat16 TFLOP/s (float32 accumulation) and GiB of memory, from the makers' data sheets, by what CUDA calls the device.
GPUS = {
    "B200": (2250, 180),
    "H200 NVL": (835, 141),
    "H200": (989, 141),
    "H100 PCIe": (756, 80),
    "H100 NVL": (835, 94),
    "H100": (989, 80),
    "A100-SXM4-40GB": (312, 40),
    "A100": (312, 80),
    "L40S": (362, 48),
    "L4": (121, 24),
    "A10G": (70, 24),
    "RTX 6000 Ada": (364, 48),
    "RTX A6000": (155, 48),
    "RTX 5090": (210, 32),
    "RTX 4090": (165, 24),
    "RTX 3090": (71, 24),
}


def peak_flops(device_name):
    """FLOP/s of a GPU in bfloat16, None where it is not in the table: a slice or a lesser card of a like name, too."""
    if re.search(r"MIG|Laptop| Ti\b| D\b", device_name):
        return None
    return next(
        (1e12 * peak for name, (peak, _) in GPUS.items() if re.search(rf"\b{name}\b", device_name)),
        None,
    )


@dataclass(frozen=True)
class Shape:
    """What a model's configuration says of its size. Counts are of parameters unless said otherwise."""

    parameters: int  # in all, a tied head once
    matmul: int  # of the layers' matrices
    layer: int  # of one layer
    root: int  # outside the layers: embedding, head, norm
    head: int  # lm_head's matrix
    layers: int  # how many
    hidden: int  # widths from here on
    attention: int  # heads x head size
    key_value: int
    intermediate: int
    vocabulary: int
    positions: int | None  # tokens of context
    adapters: int = 0  # trainable, on a frozen base; 0: all weights are trained
    base_bytes: float = (
        2.0  # per parameter of a frozen base's layers: 2 in bfloat16, about 0.52 in 4 bits
    )


def model_shape(folder, adapter_rank=0, four_bits=False):
    """The Shape of a model folder, of whose files only config.json is read; adapter_rank 0: all weights are trained."""
    config = read_config(folder).get_text_config()
    model = build_on_meta(config)
    layers = layers_of(model)
    matrices = [p for p in layers.parameters() if p.dim() == 2]
    everything, in_layers = (sum(p.numel() for p in m.parameters()) for m in (model, layers))
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        parameters=everything,
        matmul=sum(p.numel() for p in matrices),
        layer=in_layers // len(layers),
        root=everything - in_layers,
        head=model.get_output_embeddings().weight.numel(),
        layers=len(layers),
        hidden=config.hidden_size,
        attention=heads * size,
        key_value=(getattr(config, "num_key_value_heads", None) or heads) * size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        positions=getattr(config, "max_position_embeddings", None),
        adapters=sum(adapter_rank * sum(p.shape) for p in matrices),
        base_bytes=0.52 if four_bits else 2.0,
    )


def flops(shape, lengths, supervised, recompute=False):
    """Floating-point operations of training on rows of these lengths, `supervised` tokens of which pass lm_head.

    A matrix costs 2 per parameter and token forwards, 2 for the gradient of its input and, where it is trained, 2 for its own;
    causal attention half of the full one's 4 x length^2 x width forwards and twice that backwards. Padding is not counted,
    nor, by default, what activation checkpointing computes again (`recompute`), so this is the numerator of MFU.
    """
    matrix = 4 if shape.adapters else 6
    attention = 6 * shape.layers * shape.attention * sum(n * n for n in lengths)
    passed = sum(lengths)
    unneeded = (
        0 if shape.adapters else shape.layers * shape.hidden * shape.intermediate
    )  # nobody asks for a layer's output again
    again = (
        (2 * (shape.matmul + shape.adapters - unneeded) * passed + attention / 3)
        if recompute
        else 0
    )
    return (
        (matrix * shape.matmul + 6 * shape.adapters) * passed
        + matrix * shape.head * supervised
        + attention
        + again
    )


def memory(shape, world, n, checkpointing, eight_bit=False):
    """{what: bytes} on each GPU with micro-batches of `n` padded tokens; an upper estimate, since not everything is at its
    largest at once."""
    # What one layer keeps for its backward pass, bytes per token: two RMSNorms (float32 input, its normalised form and the output),
    # queries, keys, values and output of attention, gate, activation, up and their product. Measured in tests/test_estimate.py.
    kept = 16 * shape.hidden + 4 * shape.attention + 4 * shape.key_value + 8 * shape.intermediate
    if shape.adapters:
        trained = {
            "base (frozen)": shape.base_bytes * shape.layer * shape.layers + 2 * shape.root,
            "adapters, gradients, AdamW moments": shape.adapters
            * (4 + 4 + (2 if eight_bit else 8)),
        }
        kept += (
            2 * shape.hidden + 2 * shape.attention
        )  # each adapter keeps its own cast of its input
    else:
        trained = {
            "weights and AdamW moments (float32, sharded)": 12 * shape.parameters / world,
            "gradients (float32, sharded)": 4 * shape.parameters / world,
            "gathered: embedding, head, 2 layers (bfloat16)": 2 * (shape.root + 2 * shape.layer),
            "their gradients before the reduction": 6 * shape.root,
        }
    again = n * 2 * shape.hidden * shape.layers if checkpointing else 0
    return trained | {
        f"activations of {n:,} tokens" + (", checkpointed" if checkpointing else ""): n
        * kept
        * (1 if checkpointing else shape.layers)
        + again,
        "logits of one chunk": 16
        * min(
            loss.CHUNK["cuda"], n * shape.vocabulary
        ),  # bfloat16 and float32, and their gradients
    }


def disk(shape, n_checkpoints, n_states, n_merged, bytes_each):
    """Bytes on disk of so many checkpoints (an adapter's are float32), training states (three float32 numbers a trained weight)
    and merged models."""
    trained = shape.adapters or shape.parameters
    return (
        n_checkpoints * trained * (4 if shape.adapters else bytes_each)
        + n_states * 12 * trained
        + n_merged * bytes_each * shape.parameters
    )


def progress(update, shape, job, world, device):
    """-> what a step adds to the metrics: mfu (model FLOPs over what the GPUs could do in that time, 0 to 1; None where their
    peak is not known) and memory_gb (the largest so far: of the GPU, on a CPU of the process)."""
    cuda = device.type == "cuda"
    peak = peak_flops(torch.cuda.get_device_name(device)) if cuda else None
    lengths = [
        job.lengths[i] for rank in job.plan[update.step - 1] for group in rank for i in group
    ]
    used = (
        torch.cuda.max_memory_allocated(device)
        if cuda
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    mfu = (
        flops(shape, lengths, update.supervised) / (update.seconds * world * peak) if peak else None
    )
    return {"mfu": mfu, "memory_gb": round(used / 1e9, 3)}


def _bytes(n):
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"


def table(shape, job, config, world):
    """The dry run of one arm: lines of what and how much."""
    from common.train.training_run import remaining_writes

    n_checkpoints, n_states, n_merged = remaining_writes(job, config)
    supervised = sum(map(tokens.n_supervised, job.examples))
    useful, computed = (
        config.epochs * flops(shape, job.lengths, supervised, again)
        for again in (False, config.activation_checkpointing)
    )
    peak, capacity = 1e12 * GPUS[config.gpu][0], GPUS[config.gpu][1]
    largest = max(
        job.lengths[group[0]] * len(group)
        for step in job.plan
        for rank in step
        for group in rank
        if group
    )
    parts = memory(
        shape, world, largest, config.activation_checkpointing, config.optimizer == "adamw8bit"
    )
    slots = sum(tokens.packing_efficiency(step, job.lengths) for step in job.plan) / len(job.plan)
    lines = {
        "settings": f"preset {config.preset}, method {config.method}, learning rate {config.learning_rate:g}, seed {config.seed}",
        "rows": f"{len(job.examples):,}"
        + "".join(f"; {n:,} {what}" for what, n in job.counts.items())
        + (f"; {len(job.holdout)} held out" if job.holdout else ""),
        "tokens": f"{sum(job.lengths):,} a pass ({sum(job.lengths) / len(job.lengths):.0f} a row), {supervised:,} of them supervised; passes: {config.epochs}",
        "steps": f"{len(job.plan)} of {config.global_batch} rows; the first: {len(job.plan[0][0])} micro-batches on each of {world} GPUs, "
        f"each at most {largest:,} tokens",
        "token slots": f"{tokens.padding_share(job.plan, job.lengths):.1%} padding; {slots:.1%} useful, counting that GPUs wait for each other",
        "parameters": f"{shape.parameters:,}"
        + (
            f" frozen, {shape.adapters:,} of the adapters trained"
            if shape.adapters
            else ", all trained"
        ),
        "FLOPs": f"{useful:.3g}"
        + (
            f"; {computed:.3g} with activations computed again"
            if config.activation_checkpointing
            else ""
        ),
        "memory per GPU": f"at most about {sum(parts.values()) / 2**30:.1f} GiB of {capacity} ({config.gpu})",
    }
    lines |= {f"  {what}": f"{size / 2**30:.1f} GiB" for what, size in parts.items()}
    size = lambda *counts: _bytes(disk(shape, *counts, 2))
    lines |= {
        "disk": f"{size(n_checkpoints, n_states, n_merged)}: {n_checkpoints} checkpoints to write of {size(1, 0, 0)} each, {n_states} training states of {size(0, 1, 0)}"
        + (f", a merged model of {size(0, 0, 1)}" if n_merged else ""),
        "CPU memory": f"{size(1, 0, 0)} while a checkpoint is written"
        + (f"; {_bytes(4 * shape.parameters)} to merge" if n_merged else ""),
        "time": f"{useful / (world * peak * config.mfu) / 60:.1f} minutes at {config.mfu:.0%} MFU of {world} x {config.gpu} ({peak / 1e12:.0f} TFLOP/s each); "
        f"never less than {computed / (world * peak) / 60:.1f}",
    }
    width = max(map(len, lines))
    return "\n".join(f"  {what:<{width}}  {figure}" for what, figure in lines.items())
