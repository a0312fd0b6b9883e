"""What a training will take, by arithmetic: FLOPs, memory, disk, time.

The weights are never loaded: a model's configuration is enough.
"""

import math
import re
import resource
from dataclasses import dataclass

import torch

from common.core.errors import InputError
from common.train import loss, tokens
from common.train.model import build_on_meta, layers_of, read_config
from common.train.training_run import count_writes

# Dense bfloat16 TFLOP/s (float32 accumulation) and GiB of memory, from the makers' data sheets, by
# what CUDA calls the device.
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
    "T4": (65, 16),  # in float16: it has no bfloat16
    "A10G": (70, 24),
    "RTX 6000 Ada": (364, 48),
    "RTX A6000": (155, 48),
    "RTX 5090": (210, 32),
    "RTX 4090": (165, 24),
    "RTX 3090": (71, 24),
}
# Share of the GPUs' peak that a training of 7B may reach, by arithmetic (the paper's hour is 0.05).
# It is lower for adapters: they add reads and writes of memory, but few FLOPs.
MFU = {"full": 0.4, "lora": 0.3, "qlora": 0.3}
DISK_SPEED = 1e9  # bytes/s that a local SSD writes or reads, and that are hashed
ROOM = 0.9  # share of a GPU's memory that is planned with: CUDA, NCCL and gaps take the rest
NF4_BYTES = 0.52  # per parameter of a base in 4 bits, its scales included


def peak_flops(device_name: str) -> float | None:
    """Return a GPU's FLOP/s in bfloat16; None if it, a slice or a lesser card, is not in GPUS."""
    if re.search(r"MIG|Laptop| Ti\b| D\b", device_name):
        return None
    for name, (tera_flops, _) in GPUS.items():
        if re.search(rf"\b{name}\b", device_name):
            return 1e12 * tera_flops
    return None


@dataclass(frozen=True)
class Shape:
    """A model's size by its configuration: counts of parameters unless said otherwise."""

    parameters: int  # in total, a tied head once
    matmul: int  # of the layers' matrices
    layer: int  # of one layer
    layers: int  # how many
    hidden: int  # widths from here on
    attention: int  # heads x head size
    key_value: int
    intermediate: int
    vocabulary: int
    positions: int | None  # tokens of context
    adapters: int = 0  # trainable, on a frozen base; 0: all weights are trained
    four_bits: bool = False  # the frozen base

    @property
    def root(self) -> int:
        """Return the parameters outside the layers: embedding, head, norm."""
        return self.parameters - self.layers * self.layer


def model_shape(folder, adapter_rank: int = 0, four_bits: bool = False) -> Shape:
    """Read a model folder's config.json. adapter_rank 0: all weights are trained."""
    config = read_config(folder).get_text_config()
    model = build_on_meta(config)
    layers = layers_of(model)
    matrices = [p for p in layers.parameters() if p.dim() == 2]
    attention, key_value = attention_widths(config)
    return Shape(
        parameters=_count(model.parameters()),
        matmul=_count(matrices),
        layer=_count(layers[0].parameters()),
        layers=len(layers),
        hidden=config.hidden_size,
        attention=attention,
        key_value=key_value,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        positions=getattr(config, "max_position_embeddings", None),
        adapters=sum(adapter_rank * sum(p.shape) for p in matrices),
        four_bits=four_bits,
    )


def attention_widths(config) -> tuple[int, int]:
    """Return heads x head size, of the queries and of the keys."""
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    return heads * head_size, key_value_heads * head_size


def _count(parameters) -> int:
    return sum(p.numel() for p in parameters)


def flops(shape: Shape, lengths: list, supervised: int) -> float:
    """Return the floating-point operations of training on rows of these lengths.

    `supervised` of their tokens pass lm_head. A matrix costs 2 per parameter and token forwards,
    2 for the gradient of its input and, if it is trained, 2 for its own. Causal attention costs
    half of the full one's 4 x length^2 x width forwards, and twice that backwards. Neither padding
    nor what activation checkpointing computes again is counted, so this is the numerator of MFU.
    """
    matrix = 4 if shape.adapters else 6
    per_token = matrix * shape.matmul + 6 * shape.adapters
    attention = 6 * shape.layers * shape.attention * sum(n * n for n in lengths)
    head = matrix * shape.hidden * shape.vocabulary * supervised
    return per_token * sum(lengths) + head + attention


def memory(shape: Shape, world: int, n: int, recomputed: int) -> dict:
    """Return {part: bytes} on each GPU with micro-batches of `n` padded tokens.

    recomputed: of how many layers the activations are computed again (model.make_trainable). An
    upper estimate, since not everything is at its largest at the same time.
    """
    # What one layer keeps for its backward pass, in bytes per token: input and output of two
    # RMSNorms, queries, keys, values and output of attention, gate, activation, up and their
    # product. Measured in tests/train/test_estimate.py.
    per_token = 8 * shape.hidden + 4 * shape.attention
    per_token += 4 * shape.key_value + 8 * shape.intermediate
    if shape.adapters:
        base_bytes = NF4_BYTES if shape.four_bits else 2
        moments = 2 if shape.four_bits else 8  # qlora trains with 8-bit moments
        parts = {
            "base (frozen)": base_bytes * shape.layer * shape.layers + 2 * shape.root,
            "adapters, gradients, AdamW moments": shape.adapters * (4 + 4 + moments),
        }
        # Each adapter keeps its own cast of its input.
        per_token += 6 * shape.hidden + 2 * shape.attention
    else:
        parts = {
            "weights and AdamW moments (float32, sharded)": 12 * shape.parameters / world,
            "gradients (float32, sharded)": 4 * shape.parameters / world,
            "gathered: embedding, head, 2 layers (bfloat16)": 2 * (shape.root + 2 * shape.layer),
            "their gradients before the reduction": 6 * shape.root,
        }
    activations = shape.layers * per_token
    if recomputed:  # the input of each, and one that is being computed again
        activations = recomputed * 2 * shape.hidden + per_token
        # The others compute activation and product again.
        activations += (shape.layers - recomputed) * (per_token - 4 * shape.intermediate)
    parts[f"activations of {n:,} tokens"] = n * activations
    # float32, and once more in bfloat16
    parts["logits of one chunk"] = 6 * min(loss.CHUNK["cuda"], n * shape.vocabulary)
    return parts


def recomputed_layers(shape: Shape, training, config, world: int, capacity: float) -> int:
    """Return of how many layers the activations are computed again.

    By `auto` as few as GPUs of `capacity` bytes leave no room for.
    """
    n = largest_batch(training, config)
    room = {"on": 0, "off": math.inf, "auto": ROOM * capacity}[config.activation_checkpointing]
    for recomputed in range(shape.layers):
        if sum(memory(shape, world, n, recomputed).values()) <= room:
            return recomputed
    return shape.layers


def largest_batch(training, config) -> int:
    """Return the padded tokens of the largest micro-batch."""
    return max(config.tokens_per_microbatch, max(training.lengths))


def device_memory(device: torch.device) -> float:
    """Return the bytes of a GPU; of a CPU infinity, since activations are small beside it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return math.inf


def disk(shape: Shape, counts: dict, bytes_each: int) -> dict:
    """Return {kind: bytes on disk} of `counts` (training_run.count_writes).

    An adapter's checkpoint is float32; a state has three float32 numbers a trained weight.
    """
    trained = shape.adapters or shape.parameters
    sizes = {
        "checkpoints": trained * (4 if shape.adapters else bytes_each),
        "training states": trained * 12,
        "merged models": shape.parameters * bytes_each,
    }
    return {kind: n * sizes[kind] for kind, n in counts.items()}


def saving_minutes(shape: Shape, training, config, minutes: float) -> float:
    """Return how long a training of `minutes` of steps waits besides, for files of 16-bit weights.

    The base is hashed and loaded. A checkpoint is written behind the steps, so only what the disk
    needs longer than they do counts, and the last one; a state stops the steps.
    """
    n_states = minutes // config.state_minutes if config.state_minutes else 0
    counts = {"checkpoints": len(training.save_steps), "training states": n_states}
    sizes = disk(shape, counts, 2)
    written = sizes["checkpoints"] / DISK_SPEED / 60
    last = written / counts["checkpoints"]
    start_and_states = 2 * 2 * shape.parameters + sizes["training states"]
    return start_and_states / DISK_SPEED / 60 + max(last, written - minutes)


def progress(update, shape: Shape, training, world: int, device: torch.device) -> dict:
    """Return what a step adds to the metrics.

    mfu: model FLOPs over what the GPUs could do in that time, 0 to 1; None if their peak is not
    known. memory_gb: the largest so far, of the GPU or, on a CPU, of the process.
    """
    mfu = peak = None
    if device.type == "cuda":
        peak = peak_flops(torch.cuda.get_device_name(device))
        used = torch.cuda.max_memory_allocated(device)
    else:
        used = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak:
        rows = tokens.step_rows(training.plan[update.step - 1])
        lengths = [training.lengths[i] for i in rows]
        mfu = flops(shape, lengths, update.supervised) / (update.seconds * world * peak)
    return {"mfu": mfu, "memory_gb": round(used / 1e9, 3)}


# --- the dry run ----------------------------------------------------------------------------------


def dry_run(shape: Shape, training, config, world: int) -> str:
    """Return the lines of what one training takes on `world` GPUs named config.gpu."""
    if config.gpu not in GPUS:
        raise InputError(f"--gpu {config.gpu} is not known.\nExpected one of: {', '.join(GPUS)}")
    tera_flops, capacity = GPUS[config.gpu]
    supervised = sum(map(tokens.n_supervised, training.examples))
    operations = config.epochs * flops(shape, training.lengths, supervised)
    mfu = MFU[config.method]
    minutes = operations / (mfu * world * 1e12 * tera_flops) / 60
    saving = saving_minutes(shape, training, config, minutes)
    recomputed = recomputed_layers(shape, training, config, world, capacity * 2**30)
    parts = memory(shape, world, largest_batch(training, config), recomputed)
    counts = count_writes([training], config)
    lines = [
        f"parameters: {shape.parameters:,}, trained {shape.adapters or shape.parameters:,}",
        f"supervised tokens: {supervised:,} of {sum(training.lengths):,}",
        f"FLOPs: {operations:.3g}",
        f"time, estimated: {minutes + saving:.1f} minutes",
        f"  steps: {minutes:.1f} minutes at an assumed {mfu:.0%} MFU of {world} x {config.gpu}",
        f"  hashing, loading, saving: {saving:.1f} minutes at {DISK_SPEED / 1e9:g} GB/s",
        f"memory per GPU: at most about {_gib(sum(parts.values()))} of {capacity}",
        f"  activations computed again: of {recomputed} of {shape.layers} layers",
    ]
    lines += [f"  {part}: {_gib(size)}" for part, size in parts.items()]
    for kind, size in disk(shape, counts, 2).items():
        lines.append(f"disk for {counts[kind]} {kind}: {size / 1e9:.4g} GB")
    return "\n".join(f"  {line}" for line in lines)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
