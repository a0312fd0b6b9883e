"""The memory of one training step on one of several GPUs, simulated, beside the dry run's estimate.

    python -m tests.bench.simulated_memory                    # Qwen2.5-7B on 8 GPUs
    python -m tests.bench.simulated_memory --shape small      # a width of 256, in seconds

04's own model, loss, FSDP and AdamW run on fake tensors (shapes without numbers) in a fake
process group: nothing is computed or sent. Every storage is counted from its making to its end. The
NCCL and CUDA libraries (some 2 GiB) and the allocator's fragments are no part of it.
"""

import argparse
import json
import tempfile
import weakref

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2Config

from common.train import estimate, loss, model
from common.train.loop import adamw

SHAPES = {
    "7B": dict(
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152_064,
    ),
    "small": dict(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=4096,
    ),
}


class Storages(TorchDispatchMode):
    """Knows all storages that are alive; `peak` is the most bytes they had together."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self.alive = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        before = len(self.alive)
        for leaf in tree_leaves(result):
            if isinstance(leaf, DTensor):
                leaf = leaf._local_tensor
            if isinstance(leaf, torch.Tensor):
                self.alive.add(leaf.untyped_storage())
        if len(self.alive) > before:
            # FSDP gives up gathered weights by a size of 0: each is asked for its size again.
            self.peak = max(self.peak, sum(storage.nbytes() for storage in self.alive))
        return result


class Gpu:
    """Stands for a GPU where 04 chooses the types of a GPU; the tensors are fake ones of a CPU."""

    type = "cuda"


class FusedNorm(torch.autograd.Function):
    """The root mean square norm as a GPU has it: it keeps its input, and no form of it."""

    @staticmethod
    def forward(ctx, hidden, weight, eps):
        ctx.save_for_backward(hidden, weight)
        return torch.nn.functional.rms_norm(hidden, weight.shape, weight, eps)

    @staticmethod
    def backward(ctx, slope):
        hidden, weight = ctx.saved_tensors
        return torch.empty_like(hidden), torch.empty_like(weight), None


def fused_norm(norm, hidden):
    return FusedNorm.apply(hidden, norm.weight, norm.variance_epsilon)


def simulate(config, world, rows, length, recomputed):
    """Return the peak bytes of two steps of full training on one of `world` GPUs."""
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    loss.CHUNK["cpu"] = loss.CHUNK["cuda"]
    model._rms_norm = fused_norm
    net = model.build_on_meta(config)
    model.make_trainable(net, recomputed)
    model._shard(net, Gpu())
    with FakeTensorMode(allow_non_fake_inputs=True), Storages() as storages:
        net.to_empty(device="cpu")
        optimizer = adamw(net)
        for _ in range(2):
            ids = torch.zeros(rows, length, dtype=torch.long)
            positions = torch.arange(rows * length // 2)
            targets = torch.zeros(rows * length // 2, dtype=torch.long)
            net.completion_loss(ids, positions, targets).backward()
            optimizer.step()
            optimizer.zero_grad()
    dist.destroy_process_group()
    return storages.peak


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=list(SHAPES), default="7B")
    parser.add_argument("--world", type=int, default=8)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--recomputed", type=int, help="of how many layers; default: all")
    options = parser.parse_args(arguments)
    config = Qwen2Config(**SHAPES[options.shape], tie_word_embeddings=False)
    recomputed = options.recomputed
    if recomputed is None:
        recomputed = config.num_hidden_layers
    n_tokens = options.rows * options.length
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        shape = estimate.model_shape(folder)
    parts = estimate.memory(shape, options.world, n_tokens, recomputed)
    simulated = simulate(config, options.world, options.rows, options.length, recomputed)
    print(json.dumps({"simulated": simulated, "estimated": sum(parts.values())}))
    for part, size in parts.items():
        print(f"{size / 2**30:7.2f} GiB {part}")
    print(f"{sum(parts.values()) / 2**30:7.2f} GiB estimated")
    print(f"{simulated / 2**30:7.2f} GiB simulated")


if __name__ == "__main__":
    main()
