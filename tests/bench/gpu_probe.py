"""Each choice of the training and decoding code alone, on one GPU: milliseconds and memory.

    python -m tests.bench.gpu_probe                  # all parts, at most 15 minutes on one H200
    python -m tests.bench.gpu_probe decoding saving  # two of them
    python -m tests.bench.gpu_probe --shape tiny     # the same in seconds, also on a CPU

matmul      the FLOP/s that a plain product reaches: the ceiling of all that follows
attention   forward and backward by each kernel, of a shape seen before and of new ones
recompute   layers of the 7B forward and backward: all, half or none of them computed again
fused       RMSNorm and SwiGLU in several kernels, in one, and a layer compiled
loss        lm_head and the loss, by the logits alive at a time
decoding    a 7B's step by batch size, with the mask made ready or at each step
saving      a checkpoint's copy to the host, pageable or pinned, and its way to the disk

What a variant cannot do here is a line of the table, and the next one follows. A part that would
begin after --minutes is left out.
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm

from common.generate import decoder
from common.generate.requests import Request, Sampling, Task
from common.tiny.base import build_tokenizer
from common.train import distributed, loss
from common.train.model import make_trainable
from tests.bench import simulated_memory

SHAPES = {
    "7B": simulated_memory.SHAPES["7B"],
    "tiny": dict(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=512,
    ),
}


class Probe:
    """What the parts measure with: a shape, its sizes, and a device."""

    def __init__(self, shape: str):
        self.full = shape == "7B"
        self.device = distributed.local_device()
        self.cuda = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.config = Qwen2Config(**SHAPES[shape], max_position_embeddings=8192)
        self.repeats = 5 if self.full else 1
        self.n_tokens = 16_384 if self.full else 64  # of a micro-batch
        self.length = 512 if self.full else 16  # of a row

    def random(self, *size):
        """Return normal numbers that a gradient is wanted of."""
        return torch.randn(*size, device=self.device, dtype=self.dtype, requires_grad=True)

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def measure(self, part, variant, function, note=lambda seconds: "", warm=True):
        """Print a line: the median of the repeats in ms, and the memory beside what was there."""
        gc.collect()
        try:
            if warm:
                function()
            base = 0
            if self.cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                base = torch.cuda.memory_allocated()
            times = []
            for _ in range(self.repeats):
                self.wait()
                start = time.perf_counter()
                function()
                self.wait()
                times.append(time.perf_counter() - start)
            peak = torch.cuda.max_memory_allocated() - base if self.cuda else 0
            seconds = sorted(times)[len(times) // 2]
            cells = f"{1000 * seconds:,.2f} | {peak / 2**30:.2f} | {note(seconds)}"
        except Exception as error:  # a kernel that is not built in, memory: the next variant
            cells = f"- | - | {type(error).__name__}: {str(error).splitlines()[0][:80]}"
        print(f"| {part} | {variant} | {cells} |", flush=True)


def matmul(probe):
    size = 8192 if probe.full else 64
    left, right = probe.random(size, size), probe.random(size, size)

    def note(seconds):
        return f"{2 * size**3 / seconds / 1e12:,.0f} TFLOP/s"

    probe.measure("matmul", f"{size} x {size}", lambda: left.detach() @ right.detach(), note)


def attention(probe):
    """Queries without a mask; the shapes of a training's micro-batches are all different."""
    config = probe.config
    size = config.hidden_size // config.num_attention_heads

    def step(length):
        rows = max(1, probe.n_tokens // length)
        query = probe.random(rows, config.num_attention_heads, length, size)
        key = probe.random(rows, config.num_key_value_heads, length, size)
        value = probe.random(rows, config.num_key_value_heads, length, size)
        out = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        )
        out.sum().backward()

    lengths = iter(range(probe.length + 1, 10 * probe.length))

    def new_shape():
        step(next(lengths))

    kernels = SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION
    kernels += SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH
    torch.backends.cuda.enable_cudnn_sdp(True)
    for kernel in kernels:
        with sdpa_kernel([kernel]):
            probe.measure("attention", f"{kernel.name}, one shape", lambda: step(probe.length))
            probe.measure("attention", f"{kernel.name}, new shapes", new_shape, warm=False)
    torch.backends.cuda.enable_cudnn_sdp(False)


def small_model(probe, n_layers, recomputed):
    """Return a model of some of the layers, as 04 trains it, on one device without sharding."""
    config = Qwen2Config(**probe.config.to_dict() | {"num_hidden_layers": n_layers})
    with torch.device(probe.device):
        model = Qwen2ForCausalLM._from_config(config, dtype=probe.dtype)
    make_trainable(model, recomputed)
    return model


def recompute(probe):
    n_layers = 4 if probe.full else 2
    rows = probe.n_tokens // probe.length
    ids = torch.zeros(rows, probe.length, dtype=torch.long, device=probe.device)
    for recomputed in (n_layers, n_layers // 2, 0):
        model = small_model(probe, n_layers, recomputed)
        weights = sum(p.numel() for p in model.model.layers.parameters())

        def step(model=model):
            model.model(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()
            model.zero_grad()

        def note(seconds, weights=weights):
            return f"{6 * weights * ids.numel() / seconds / 1e12:,.0f} TFLOP/s of the layers"

        probe.measure("recompute", f"{recomputed} of {n_layers} layers", step, note)
        del model, step


def fused(probe):
    config = probe.config
    hidden = probe.random(1, probe.n_tokens, config.hidden_size)
    with torch.device(probe.device):
        norm = Qwen2RMSNorm(config.hidden_size).to(probe.dtype)
        mlp = Qwen2MLP(config).to(probe.dtype)
    gate = probe.random(1, probe.n_tokens, config.intermediate_size)
    up = probe.random(1, probe.n_tokens, config.intermediate_size)
    shape = (config.hidden_size,)
    variants = {
        "RMSNorm, transformers'": lambda: norm(hidden),
        "RMSNorm, F.rms_norm": lambda: functional.rms_norm(hidden, shape, norm.weight, 1e-6),
        "SwiGLU, silu and product": lambda: functional.silu(gate) * up,
        "MLP, transformers'": lambda: mlp(hidden),
    }
    if probe.cuda:  # on a CPU that takes a compiler, and minutes
        compiled_norm, compiled_mlp = torch.compile(norm), torch.compile(mlp)
        variants["RMSNorm, compiled"] = lambda: compiled_norm(hidden)
        variants["MLP, compiled"] = lambda: compiled_mlp(hidden)
    for name, forward in variants.items():
        probe.measure("fused", name, lambda forward=forward: forward().sum().backward())


def loss_chunks(probe):
    config = probe.config
    n = probe.n_tokens // 2
    hidden = probe.random(1, probe.n_tokens, config.hidden_size)
    weight = probe.random(config.vocab_size, config.hidden_size)
    positions = torch.arange(n, device=probe.device)
    targets = torch.randint(config.vocab_size, (n,), device=probe.device)
    usual = dict(loss.CHUNK)
    for power in (26, 27, 28, 29):
        loss.CHUNK[probe.device.type] = 2**power if probe.full else 2 ** (power - 14)

        def step():
            loss.completion_nll(hidden, positions, targets, weight).backward()

        def note(seconds):
            flops = 6 * n * config.vocab_size * config.hidden_size
            return f"{flops / seconds / 1e12:,.0f} TFLOP/s"

        probe.measure("loss", f"chunks of 2^{power} logits", step, note)
    loss.CHUNK.update(usual)


def decoding(probe):
    tokenizer = build_tokenizer()
    with torch.device(probe.device):
        model = Qwen2ForCausalLM._from_config(probe.config, dtype=probe.dtype).eval()
    n_new = 64 if probe.full else 8
    sizes = (32, 64, 128, 256) if probe.full else (2, 4)
    for batch_size in sizes:
        for ready in (True, False):
            model._can_compile_fullgraph = ready
            count = []
            engine = decoder.Decoder(
                model, tokenizer, Sampling(), set(), 8192, batch_size, count.append
            )
            tasks = []
            for n in range(batch_size):
                request = Request("7 " * (100 + n % 8), sample=n)
                tasks.append(Task(request, Sampling(max_new_tokens=n_new), "probe"))

            def step(engine=engine, tasks=tasks):
                list(engine.generate(tasks))

            def note(seconds, batch_size=batch_size):
                return f"{batch_size * n_new / seconds:,.0f} tokens/s"

            masks = "ready masks" if ready else "a mask a step"
            probe.measure("decoding", f"{batch_size} texts, {masks}", step, note)


def saving(probe):
    size = 2**29 if probe.full else 2**10  # bfloat16 numbers: 1 GiB
    weight = torch.zeros(size, dtype=torch.bfloat16, device=probe.device)
    pinned = torch.empty(size, dtype=torch.bfloat16, pin_memory=probe.cuda)

    def note(seconds):
        return f"{2 * size / seconds / 1e9:,.1f} GB/s"

    def to_fresh_memory():
        return weight.to("cpu", copy=True)

    probe.measure("saving", "copy, pageable", to_fresh_memory, note)
    probe.measure("saving", "copy, pinned", lambda: pinned.copy_(weight), note)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        probe.measure("saving", "write", lambda: save_file({"w": pinned}, path), note)


PARTS = {
    "matmul": matmul,
    "attention": attention,
    "decoding": decoding,
    "recompute": recompute,
    "loss": loss_chunks,
    "fused": fused,
    "saving": saving,
}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {' '.join(PARTS)}")
    parser.add_argument("--shape", choices=list(SHAPES), default="7B")
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {' '.join(unknown)}; the parts are {' '.join(PARTS)}")
    probe = Probe(options.shape)
    if probe.full and not probe.cuda:
        parser.error("there is no CUDA device here; --shape tiny runs everywhere")
    name = torch.cuda.get_device_name() if probe.cuda else "CPU"
    print(f"torch {torch.__version__}, {name}\n")
    print("| part | variant | ms | GiB | |\n|---|---|---:|---:|---|")
    start = time.monotonic()
    for part in options.parts or PARTS:
        if time.monotonic() - start > 60 * options.minutes:
            print(f"| {part} | - | - | - | left out: {options.minutes} minutes are over |")
            continue
        PARTS[part](probe)
        gc.collect()
        if probe.cuda:
            torch.cuda.empty_cache()
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
