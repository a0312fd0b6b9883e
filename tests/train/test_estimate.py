"""The dry run's arithmetic against what is counted: parameters of real models, FLOPs of a real
step, bytes that autograd keeps.
"""

import math
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from common.train import adapters, checkpoints, estimate
from common.train.model import load as load_model
from common.train.model import make_trainable
from common.train.tokens import supervised
from tests.bench.simulated_memory import fused_norm

CPU = torch.device("cpu")
SIZES = dict(
    vocab_size=318,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=128,
    max_position_embeddings=128,
)
# Qwen/Qwen2.5-Math-7B's config.json, and Qwen2.5-0.5B's, which ties its head
MATH_7B = Qwen2Config(
    vocab_size=152064,
    hidden_size=3584,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    intermediate_size=18944,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
)
HALF_B = Qwen2Config(
    vocab_size=151936,
    hidden_size=896,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    intermediate_size=4864,
    tie_word_embeddings=True,
)


def shape_of(config, folder, **options):
    config.save_pretrained(folder)  # a configuration is enough: no weights are read
    return estimate.model_shape(folder, **options)


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "make, config", [(Qwen2ForCausalLM, Qwen2Config), (LlamaForCausalLM, LlamaConfig)]
)
def test_counts_are_those_of_the_real_model(tmp_path, make, config, tied):
    made = make(config(**SIZES, tie_word_embeddings=tied))
    made.save_pretrained(tmp_path)
    shape = estimate.model_shape(tmp_path)
    assert shape.parameters == sum(
        p.numel() for p in made.parameters()
    )  # parameters() gives a tied weight once
    assert (
        shape.layer == sum(p.numel() for p in made.model.layers[1].parameters())
        and shape.layers == 3
    )
    assert shape.root == shape.parameters - 3 * shape.layer
    assert shape.matmul == sum(
        m.weight.numel() for m in made.model.layers.modules() if isinstance(m, torch.nn.Linear)
    )
    assert (shape.vocabulary, shape.attention, shape.key_value) == (318, 64, 32)


@pytest.mark.parametrize("four_bits", [False, True])
def test_adapters_are_counted_as_peft_makes_them(tmp_path, four_bits):
    Qwen2ForCausalLM(Qwen2Config(**SIZES)).save_pretrained(tmp_path)
    model = adapters.load(tmp_path, CPU, 8, four_bits)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (
        estimate.model_shape(tmp_path, 8, four_bits).adapters
        == trained
        == sum(
            8 * (m.in_features + m.out_features)
            for m in model.model.layers.modules()
            if hasattr(m, "lora_A")
        )
    )


def test_head_size_that_is_not_hidden_over_heads(tmp_path):
    """Qwen3 states head_dim: 4 heads of 32 on a width of 64."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    made = Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=32))
    made.config.save_pretrained(tmp_path)
    shape = estimate.model_shape(tmp_path)
    assert (shape.attention, shape.key_value) == (128, 64) and shape.parameters == sum(
        p.numel() for p in made.parameters()
    )


def test_qwen_math_7b_by_hand(tmp_path):
    """7,615,616,512 parameters on its model card.

    A layer's matrices: q and o 3584 x 3584, k and v 3584 x 512, three of 3584 x 18944; 28 layers of
    them are 6.525e9, the head 152064 x 3584 is 545e6.
    """
    shape = shape_of(MATH_7B, tmp_path)
    assert shape.parameters == 7_615_616_512
    assert shape.matmul == 28 * (2 * 3584**2 + 2 * 3584 * 512 + 3 * 3584 * 18944) == 6_525_288_448
    assert shape.vocabulary * shape.hidden == 152064 * 3584 == 544_997_376


# --- FLOPs ----------------------------------------------------------------------------------------


def test_flops_of_the_papers_run_by_hand(tmp_path):
    """50,000 rows of 700 tokens, half of them supervised:
    6 x 6.525e9 x 35e6 + 6 x 545e6 x 17.5e6 = 1.428e18; attention 6 x 28 layers x 3584 x 50,000 x
    700^2 = 1.5e16. The layers and attention once more where they are computed again.
    """
    shape, rows = shape_of(MATH_7B, tmp_path), [700] * 50_000
    attention = 6 * 28 * 3584 * 50_000 * 700**2
    by_hand = 6 * 6_525_288_448 * 35_000_000 + 6 * 544_997_376 * 17_500_000 + attention
    assert by_hand == pytest.approx(1.442e18, rel=1e-3) and attention == pytest.approx(
        1.475e16, rel=1e-3
    )
    assert estimate.flops(shape, rows, 17_500_000) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rank", [0, 8])
def test_flops_are_those_of_a_real_step(tmp_path, rank, tied):
    """Two rows of 50 tokens, 30 of each supervised, through the kit's own loss.

    torch's counter is corrected by hand: it counts attention whole, ours half (causal), and knows
    no in-place addmm_, by which the head's gradient is summed. What ours leaves out: the first
    layer's queries, keys and values need no gradient of their input if the embedding is frozen.
    """
    Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied)).save_pretrained(tmp_path)
    model = adapters.load(tmp_path, CPU, rank) if rank else load_model(tmp_path, CPU)
    model.config._attn_implementation = "eager"  # attention by two plain matrix products
    input_ids = torch.randint(0, 318, (2, 50), generator=torch.Generator().manual_seed(0))
    labels = input_ids.clone()
    labels[:, :20] = -100
    with FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.aten.addmm_: lambda to, a, b, **_: 2 * a[0] * a[1] * b[1]},
    ) as counter:
        model.completion_loss(input_ids, *supervised(labels)).backward()
    forward = 2 * 3 * 64 * 2 * 50**2  # causal attention: 3 layers, width 64, two rows
    counted = counter.get_total_flops() - forward * 3
    ours = estimate.flops(estimate.model_shape(tmp_path, rank), [50, 50], 60)
    if rank:
        ours -= 2 * 100 * (64 * 64 + 2 * 64 * 32 + 3 * rank * 64)
    assert counted == ours


def test_attention_is_by_the_square_of_each_rows_length(tmp_path):
    shape = shape_of(MATH_7B, tmp_path)
    long, short = estimate.flops(shape, [2000], 0), estimate.flops(shape, [1000, 1000], 0)
    assert long - short == pytest.approx(6 * 28 * 3584 * (2000**2 - 2 * 1000**2))


# --- memory ---------------------------------------------------------------------------------------


def kept_by_autograd(config, rank, tokens, recomputed):
    """Bytes of everything that a forward pass in bfloat16 saves for its backward pass, parameters
    and buffers excluded; with adapters in float32 under autocast, as on a GPU.
    """
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).to(torch.bfloat16).train()
    if rank:
        model.add_adapter(LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
        for p in model.parameters():
            p.data = p.data.float() if p.requires_grad else p.data
    make_trainable(model, recomputed)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}  # a storage is counted once, and held so that its address is not given away again

    def note(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage())
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, enabled=bool(rank)),
    ):
        model.model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    return sum(storage.nbytes() for at, storage in kept.items() if at not in own)


# Sixteenths of Qwen2.5-7B, Llama-2-7B, Qwen2.5-0.5B: (width, heads, key-value heads, intermediate)
@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("recomputed", [0, 1])
@pytest.mark.parametrize("sizes", [(224, 7, 1, 1184), (256, 8, 8, 688), (112, 7, 1, 608)])
def test_activations_are_what_autograd_keeps(tmp_path, monkeypatch, sizes, rank, recomputed):
    """Bytes a layer and token, as the slope over layers and tokens: what is kept once (rotary
    table, casts of adapters, the layer that is recomputed) falls out. By hand, full: 8h + 4a + 4kv
    + 8i and the softmax's sums; with adapters 14h + 6a + 4kv + 8i + 14r. Where memory is short the
    activation and the product, 4i, are not kept.
    """
    monkeypatch.setattr("common.train.model._rms_norm", fused_norm)
    hidden, heads, key_value, intermediate = sizes
    one, two, three = (
        Qwen2Config(
            vocab_size=32,
            hidden_size=hidden,
            num_attention_heads=heads,
            num_key_value_heads=key_value,
            intermediate_size=intermediate,
            attn_implementation="sdpa",
            num_hidden_layers=n,
        )
        for n in (1, 2, 3)
    )
    a, b, c, d = (
        kept_by_autograd(config, rank, tokens, recomputed)
        for config, tokens in ((two, 64), (two, 128), (three, 64), (three, 128))
    )
    measured = ((d - c) - (b - a)) / 64
    h, kv = hidden, hidden * key_value // heads
    by_hand = (
        12 * h + 4 * kv + 8 * intermediate + 4 * heads + (8 * h + 14 * rank if rank else 0)
    )  # the attention is as wide as h
    if recomputed:
        by_hand -= 4 * intermediate + (2 * rank if rank else 0)
    assert measured == pytest.approx(by_hand, rel=0.001)
    shapes = [shape_of(config, tmp_path, adapter_rank=rank) for config in (one, two)]
    first, second = (activations(shape, recomputed) for shape in shapes)
    assert second - first == pytest.approx(measured, rel=0.15)


def activations(shape, recomputed):
    """The estimate, in bytes a token."""
    parts = estimate.memory(shape, 1, 1000, recomputed)
    (size,) = (size for part, size in parts.items() if part.startswith("activations"))
    return size / 1000


@pytest.mark.parametrize(
    "mode, capacity, expected",
    [("on", 80, 28), ("off", 24, 0), ("auto", 141, 0), ("auto", 80, 5), ("auto", 24, 28)],
)
def test_as_few_layers_are_computed_again_as_memory_asks_for(tmp_path, mode, capacity, expected):
    """7B on 8 GPUs, 16,384 tokens at a time. By hand, per token and layer: 8h + 4a + 4kv + 8i are
    196,608 bytes, 120,832 without activation and product, 7,168 the input. What has to be there
    takes 24.8 GiB + 1.5 of logits: 72 GiB leave 45.7, which 5 x 7,168 + 196,608 + 23 x 120,832
    bytes a token fill with 43.5, one layer less with 45.3.
    """
    shape = shape_of(MATH_7B, tmp_path)
    config = SimpleNamespace(activation_checkpointing=mode, tokens_per_microbatch=16_384)
    training = SimpleNamespace(lengths=[100, 2048])
    recomputed = estimate.recomputed_layers(shape, training, config, 8, capacity * 2**30)
    assert recomputed == expected


def test_checkpointed_activations_are_one_layers_and_every_layers_input(tmp_path):
    shape = shape_of(MATH_7B, tmp_path)
    whole, all_recomputed = (
        next(
            size
            for what, size in estimate.memory(shape, 8, 16_384, recomputed).items()
            if what.startswith("activations")
        )
        for recomputed in (0, 28)
    )
    assert all_recomputed == pytest.approx(whole / 28 + 28 * 16_384 * 2 * 3584)


def test_memory_of_the_weights_by_hand(tmp_path):
    """Full: float32 weights and two moments, 12 bytes over 8 GPUs (10.6 GiB), gradients 4 (3.5
    GiB). LoRA: bfloat16 base 14.2 GiB, not sharded; four bits make 3.2 GiB of its layers and leave
    embedding and head (2.03 GiB) as they are.
    """
    parts = estimate.memory(shape_of(MATH_7B, tmp_path), 8, 16_384, 28).values()
    assert 12 * 7_615_616_512 / 8 in parts and 4 * 7_615_616_512 / 8 in parts
    assert (
        27 < sum(parts) / 2**30 < 40
    )  # FACTS of the field: about 27 GiB, to which ours adds gradients before the reduction
    for world in (1, 8):
        shape = estimate.model_shape(tmp_path, adapter_rank=32)
        parts = estimate.memory(shape, world, 8192, 28).values()
        assert any(part == pytest.approx(2 * 7_615_616_512) for part in parts)
        assert any(part == pytest.approx(16 * shape.adapters) for part in parts)
        four = estimate.memory(
            estimate.model_shape(tmp_path, 32, four_bits=True), world, 8192, 28
        ).values()
        assert any(part == pytest.approx((3.2 + 2.03) * 2**30, rel=0.02) for part in four)
        assert any(part == pytest.approx(10 * shape.adapters) for part in four)


def test_bytes_of_four_bits_are_those_of_bitsandbytes(tmp_path):
    """Half a byte, an 8-bit scale for 64 numbers and a float32 one for 64 x 256:
    0.516 bytes a parameter.
    """
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(
        torch.randn(2048, 1024), quant_type="nf4", compress_statistics=True
    )
    size = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert size / 2**21 == pytest.approx(0.5 + 1 / 64 + 4 / (64 * 256), rel=1e-4)
    assert pytest.approx(size / 2**21, rel=0.02) == estimate.NF4_BYTES


# --- disk -----------------------------------------------------------------------------------------


def test_disk_by_hand(tmp_path):
    """bfloat16 checkpoints of 15.2 GB, of which the paper's 49 make 746 GB; a state of three
    float32 numbers a weight, 91 GB. An adapter of rank 1 is 4 bytes for each of a matrix's rows and
    columns.
    """
    shape = shape_of(MATH_7B, tmp_path)
    counts = {"checkpoints": 49, "training states": 1}
    sizes = [49 * 2 * 7_615_616_512, 12 * 7_615_616_512]
    assert list(estimate.disk(shape, counts, 2).values()) == sizes
    small = estimate.model_shape(tmp_path, adapter_rank=1)
    assert small.adapters == 28 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    counts = {"checkpoints": 2, "training states": 1, "merged models": 1}
    sizes = [2 * 4 * small.adapters, 12 * small.adapters, 2 * 7_615_616_512]
    assert list(estimate.disk(small, counts, 2).values()) == sizes


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_disk_is_what_is_written(tmp_path, method):
    """A real checkpoint and state; the tokenizer, JSON and headers (well under 40 kB in a model of
    1.7 MB) come on top.
    """
    from common.tiny.base import build_tokenizer
    from common.train.loop import adamw

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            **SIZES | dict(hidden_size=128, intermediate_size=512, vocab_size=len(tokenizer))
        )
    ).save_pretrained(tmp_path / "base")
    rank = 0 if method == "full" else 32
    shape = estimate.model_shape(tmp_path / "base", rank, method == "qlora")
    model = (
        adapters.load(tmp_path / "base", CPU, rank, method == "qlora")
        if rank
        else load_model(tmp_path / "base", CPU)
    )
    ids = torch.ones(1, 4, dtype=torch.long)
    model.completion_loss(ids, *supervised(ids)).backward()
    optimizer = adamw(model)
    optimizer.step()
    checkpoints.save(model, tokenizer, "chatml", tmp_path / "step-000001", torch.float32)
    checkpoints.save_state(model, optimizer, 1, tmp_path)
    (weights,) = (tmp_path / "step-000001").glob("*.safetensors")
    state = sum(
        file.stat().st_size for file in (tmp_path / "state-000001").rglob("*") if file.is_file()
    )
    sizes = estimate.disk(shape, {"checkpoints": 1, "training states": 1}, 4)
    assert 0 <= weights.stat().st_size - sizes["checkpoints"] < 40_000
    assert 0 <= state - sizes["training states"] < 0.1 * state + 80_000


@pytest.mark.parametrize("n_checkpoints, by_hand", [(10, 0.5077 + 0.2538), (49, 0.5077 + 5.4388)])
def test_what_saving_adds_by_hand(tmp_path, n_checkpoints, by_hand):
    """Qwen2.5-Math-7B at 1 GB/s: 15.23 GB hashed and loaded are 0.508 minutes.

    10 checkpoints are 2.54 minutes of writing behind 7 of steps: the last one counts, 0.254.
    Of 49 they are 12.44: 5.44 more than the steps. A state of 91.4 GB after 5 minutes is 1.523.
    """
    shape = shape_of(MATH_7B, tmp_path)
    job = SimpleNamespace(save_steps=range(n_checkpoints))
    for state_minutes, more in ((0, 0), (20, 0), (5, 1.5231)):
        config = SimpleNamespace(state_minutes=state_minutes)
        minutes = estimate.saving_minutes(shape, job, config, 7.0)
        assert minutes == pytest.approx(by_hand + more, rel=1e-3)


# --- GPUs -----------------------------------------------------------------------------------------


# What torch.cuda.get_device_name says -> dense bfloat16 TFLOP/s of the data sheet.
@pytest.mark.parametrize(
    "name, peak",
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10G", 70),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA RTX A6000", 155),
        ("NVIDIA GeForce RTX 5090", 210),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 3090", 71),
    ],
)
def test_peaks_of_known_gpus(name, peak):
    assert estimate.peak_flops(name) == pytest.approx(1e12 * peak, rel=0.01)


@pytest.mark.parametrize(
    "name, right",
    [
        ("NVIDIA L40", 181),
        ("NVIDIA A10", 125),
        ("NVIDIA A40", 150),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA GB200", 2500),
        *(
            (other, None)
            for other in (
                "Tesla V100-SXM2-32GB",
                "NVIDIA H20",
                "Quadro RTX 6000",
                "NVIDIA RTX PRO 6000 Blackwell Server Edition",
                "NVIDIA GeForce RTX 4090 D",
                "NVIDIA GeForce RTX 4090 Laptop GPU",
                "NVIDIA GeForce RTX 5090 Laptop GPU",
                "NVIDIA GeForce RTX 3090 Ti",
                "NVIDIA GeForce GTX 1080",
                "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
                "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
                "AMD Instinct MI300X",
                "",
            )
        ),
    ],
)
def test_a_gpu_that_is_not_in_the_table_is_not_taken_for_another(name, right):
    """A wrong peak is a wrong MFU in every line of the log; None leaves it out.

    A MIG slice is a seventh of its GPU.
    """
    peak = estimate.peak_flops(name)
    assert peak is None or right and peak == pytest.approx(1e12 * right, rel=0.01)


def test_every_gpu_of_the_table_finds_itself():
    for name, (peak, _) in estimate.GPUS.items():
        assert estimate.peak_flops(f"NVIDIA {name}") == 1e12 * peak, name


# --- the table ------------------------------------------------------------------------------------


def test_progress_counts_the_rows_of_its_own_step(tmp_path, monkeypatch):
    """MFU of step 2 by hand: its two rows of 40 tokens, not step 1's of 100, over 2 GPUs that could
    do 1e9 FLOP/s for 0.5 s.
    """
    shape = shape_of(Qwen2Config(**SIZES), tmp_path)
    job = SimpleNamespace(lengths=[100, 100, 40, 40], plan=[[[[0]], [[1]]], [[[2]], [[3]]]])
    update = SimpleNamespace(step=2, supervised=30, seconds=0.5)
    on_cpu = estimate.progress(update, shape, job, 2, CPU)
    assert (
        on_cpu["mfu"] is None and 0.05 < on_cpu["memory_gb"] < 100
    )  # of this process, with torch in it
    for name, value in (("get_device_name", "NVIDIA Test"), ("max_memory_allocated", 3e9)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setitem(estimate.GPUS, "Test", (0.001, 1))
    seen = estimate.progress(update, shape, job, 2, SimpleNamespace(type="cuda"))
    by_hand = 6 * shape.matmul * 80 + 6 * 318 * 64 * 30 + 6 * 3 * 64 * 2 * 40**2
    assert seen["mfu"] == pytest.approx(by_hand / (0.5 * 2 * 1e9)) and seen["memory_gb"] == 3.0
    assert math.isfinite(seen["mfu"])
