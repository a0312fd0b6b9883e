"""What only a GPU can show: bfloat16 training and generation, adapters, memory.

Run with: python -m pytest -m gpu
"""

import pytest
import torch
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from common.core.files import write_jsonl
from common.generate.local import Local
from common.generate.requests import Request, Sampling, Task
from common.tiny import world
from common.tiny.base import build_tokenizer
from common.train import adapters, checkpoints, distributed, estimate, loss, tokens
from common.train.loop import adamw, training_steps
from common.train.model import load as load_model

pytestmark = pytest.mark.gpu
WORDS = build_tokenizer()


@pytest.fixture(scope="module")
def examples():
    return tokens.examples(world.web_documents(0, 48), WORDS, "chatml", 256)[0]


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """Heads of 64 and a size at which memory is more than the allocator's rounding:

    4 layers of width 1024, 0.1 B parameters.
    """
    folder = tmp_path_factory.mktemp("larger")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32_000,
        hidden_size=1024,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=4,
        intermediate_size=4096,
        tie_word_embeddings=False,
        max_position_embeddings=2048,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def long_rows(n, length, vocabulary=32_000):
    g = torch.Generator().manual_seed(0)
    return [
        {
            "id": str(i),
            "input_ids": torch.randint(0, vocabulary, (length,), generator=g),
            "n_prompt": length // 2,
        }
        for i in range(n)
    ]


def losses(model, examples, rate=1e-3):
    plan = tokens.batch_plan([len(e["input_ids"]) for e in examples], 8, 1, 0, 1, 512)
    return [u.loss for u in training_steps(model, adamw(model), examples, plan, rate)]


def test_bfloat16_training_follows_the_float32_curve(tiny_model, examples):
    """Oracle: the same first step in float32 by a plain Hugging Face model on the same GPU."""
    _, _, device = distributed.init_distributed()
    model = load_model(tiny_model, device)
    assert {p.dtype for p in model.parameters()} == {
        torch.float32
    }  # master weights, whatever the compute type
    ours = losses(model, examples)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).to(device)
    plan = tokens.batch_plan([len(e["input_ids"]) for e in examples], 8, 1, 0, 1, 512)
    rows = [examples[i] for group in plan[0][0] for i in group]
    input_ids, labels = (tensor.to(device) for tensor in tokens.collate(rows))
    assert ours[0] == pytest.approx(plain(input_ids=input_ids, labels=labels).loss.item(), rel=0.01)
    assert ours[-1] < ours[0]


@pytest.mark.parametrize("four_bits", [False, True])
def test_adapters_train_in_bfloat16_and_merge(tiny_model, examples, tmp_path, four_bits):
    _, _, device = distributed.init_distributed()
    adapters.check_bitsandbytes(device)
    model = adapters.load(tiny_model, device, 8, four_bits)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    ours = losses(model, examples, 1e-2)
    assert ours[-1] < ours[0]
    checkpoints.save(model, WORDS, "chatml", tmp_path / "step-000001", torch.float32)
    adapters.merge(tmp_path / "step-000001", tiny_model, torch.bfloat16)
    assert (
        AutoModelForCausalLM.from_pretrained(tmp_path / "step-000001" / "merged").dtype
        == torch.bfloat16
    )


class Operations(TorchDispatchMode):
    """Notes the name of each operation."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_attention_takes_the_flash_kernel(larger):
    """Nothing is forced: what torch chooses for these shapes, and what ran."""
    _, _, device = distributed.init_distributed()
    query = torch.randn(2, 16, 512, 64, device=device, dtype=torch.bfloat16)
    key = query[:, :4]
    chosen = torch._fused_sdp_choice(query, key, key, is_causal=True, enable_gqa=True)
    assert SDPBackend(chosen) == SDPBackend.FLASH_ATTENTION
    model = load_model(larger, device)
    batch = tokens.micro_batch(long_rows(2, 512), device)
    with Operations() as operations:
        model.completion_loss(*batch).backward()
    attention = {name for name in operations.names if "attention" in name}
    assert attention and all("flash" in name for name in attention)


def test_head_gradient_is_summed_in_float32_by_the_product(monkeypatch):
    """bfloat16, many chunks: within 1% of the gradient of the same numbers in float32."""
    monkeypatch.setitem(loss.CHUNK, "cuda", 64 * 1000)
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 4096, 64, generator=g).bfloat16()
    weight = (0.2 * torch.randn(1000, 64, generator=g)).bfloat16()
    positions, targets = torch.arange(4096), torch.randint(0, 1000, (4096,), generator=g)
    gradients = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        leaf = weight.to(device, dtype).requires_grad_()
        batch = positions.to(device), targets.to(device)
        loss.completion_nll(hidden.to(device, dtype), *batch, leaf, scale=0.5).backward()
        gradients.append(leaf.grad.float().cpu())
    exact, ours = gradients
    assert (ours - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("recomputed", [0, 1, 4])
def test_memory_is_what_the_dry_run_says(larger, recomputed):
    """An upper estimate, and not an idle one: what was used is at least half of it."""
    _, _, device = distributed.init_distributed()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    model, rows = load_model(larger, device, recomputed), long_rows(8, 2048)
    for _ in training_steps(model, adamw(model), rows, [[[list(range(8))]]] * 2, 1e-5):
        pass
    used = torch.cuda.max_memory_allocated(device) - before
    said = sum(estimate.memory(estimate.model_shape(larger), 1, 8 * 2048, recomputed).values())
    assert said / 2 < used <= 1.05 * said


def answers(engine, n=64):
    by_task = {}
    for number, problem in enumerate(world.problems("train", 0, n)):
        sampling = Sampling(max_new_tokens=8 + 5 * number % 40)
        by_task[Task(Request(problem.question), sampling, "any")] = None
    engine.generate(list(by_task), by_task.__setitem__)
    return [{**answer, "batch_size": None} for answer in by_task.values()]


def test_generation_in_bfloat16_is_the_same_again_and_in_float32_that_of_one_prompt_alone(
    tiny_model,
):
    """64 prompts through 8 places, with refills.

    Rounding may move bfloat16 texts, so they are compared with themselves.
    """
    engine = Local(tiny_model, batch_size=8)
    texts = answers(engine)
    assert engine.dtype == torch.bfloat16
    assert engine.settings["device"] == torch.cuda.get_device_name()
    assert {answer["usage"]["completion_tokens"] for answer in texts} > {8, 13}
    assert answers(Local(tiny_model, batch_size=8)) == texts
    engines = [Local(tiny_model, batch_size=8), Local(tiny_model, batch_size=1)]
    for engine in engines:
        engine.dtype = torch.float32
    assert answers(engines[0]) == answers(engines[1])
    assert engines[0].identity != Local(tiny_model).identity


def test_training_script_writes_bfloat16_checkpoints(script, tiny_model, tmp_path):
    run = tmp_path / "runs" / "g"
    write_jsonl(
        run / "03_data" / "cft.jsonl", [row | {"arm": "cft"} for row in world.web_documents(0, 32)]
    )
    done = script("04_train.py", "--name", "g", "--model", tiny_model, "--save-every", 1)
    assert done.returncode == 0, done.stderr
    saved = AutoModelForCausalLM.from_pretrained(run / "04_train" / "cft" / "step-000002")
    assert saved.dtype == torch.bfloat16
