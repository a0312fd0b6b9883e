"""LoRA, QLoRA and 8-bit AdamW: training, what stands on disk, resuming, merging; each against plain
peft and transformers.
"""

import importlib
import json
import math
import os
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers import decoders as token_decoders
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from common.core import files, prompts, trainings
from common.core.errors import InputError
from common.core.tokenizer import load_tokenizer, local_folder
from common.tiny import world
from common.tiny.base import build_tokenizer
from common.train import adapters, checkpoints, distributed, estimate, loop, tokens
from common.train.loop import adamw, training_steps
from common.train.model import load as load_model
from tests.runs import must_run, rows, run_script, write_rows

CPU = torch.device("cpu")
WORDS = build_tokenizer()
# A rank of 32 makes matrices of 4,096 numbers, from which on bitsandbytes keeps moments in 8 bits;
# B of keys and values has half.
SIZES = dict(
    vocab_size=len(WORDS),
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=128,
    max_position_embeddings=512,
)
RANK, ALPHA = 32, 64
LINEAR = {
    "self_attn.q_proj": (128, 128),
    "self_attn.k_proj": (128, 64),
    "self_attn.v_proj": (128, 64),
    "self_attn.o_proj": (128, 128),
    "mlp.gate_proj": (128, 128),
    "mlp.up_proj": (128, 128),
    "mlp.down_proj": (128, 128),
}
NF4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.float32,
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """{tied: folder of a base with random weights}"""
    made = {}
    for tied in (True, False):
        made[tied] = tmp_path_factory.mktemp("bases") / f"tied-{tied}"
        torch.manual_seed(0)
        Qwen2ForCausalLM(
            Qwen2Config(**SIZES, tie_word_embeddings=tied, initializer_range=0.05)
        ).save_pretrained(made[tied])
        WORDS.save_pretrained(made[tied])
    return made


@pytest.fixture(scope="module")
def examples():
    return tokens.examples(world.web_documents(0, 48), WORDS, "chatml", 256)[0]


def plan_of(examples, ranks=1, most=256):
    return tokens.batch_plan([len(e["input_ids"]) for e in examples], 8, 1, 0, ranks, most)


def frozen(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}


def trained(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def fit(base, examples, four_bits=False, eight_bit=False, recomputed=0, state=None, save_at=None):
    """6 steps of 8 rows. -> model, optimizer, updates, start. Ends after a state is saved."""
    model = adapters.load(base, CPU, RANK, four_bits, recomputed, seed=0)
    optimizer = adamw(model, 0.01, eight_bit=eight_bit)
    start, updates = checkpoints.load_state(model, optimizer, state) if state else 0, []
    for update in training_steps(model, optimizer, examples, plan_of(examples), 1e-2, start=start):
        updates.append(update)
        if update.step == save_at:
            checkpoints.save_state(model, optimizer, update.step, state)
            break
    return SimpleNamespace(model=model, optimizer=optimizer, updates=updates, start=start)


def logits(model, examples):
    with torch.no_grad():
        return torch.cat(
            [model(input_ids=e["input_ids"][None].long()).logits[0] for e in examples[:4]]
        )


def plain(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)


# --- training, saving, merging --------------------------------------------------------------------


@pytest.mark.parametrize(
    "tied, four_bits, eight_bit, recomputed",
    [
        (True, False, False, 1),
        (False, False, True, 0),
        (True, True, True, 2),
        (False, True, False, 0),
        (False, True, True, 1),
    ],
)
def test_trains_saves_reloads_and_merges(
    bases, examples, tmp_path, tied, four_bits, eight_bit, recomputed
):
    model = adapters.load(bases[tied], CPU, RANK, four_bits, recomputed)
    before, started = frozen(model), trained(model)
    optimizer = adamw(model, eight_bit=eight_bit)
    losses = [u.loss for u in training_steps(model, optimizer, examples, plan_of(examples), 1e-2)]
    assert losses[-1] < losses[0] - 0.2

    # the base stays bit for bit, every adapter moves
    after = frozen(model)
    assert before.keys() == after.keys() and all(
        torch.equal(before[name], after[name]) for name in before
    )
    assert not any(torch.equal(started[name], p) for name, p in trained(model).items())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    moments = {
        (p.numel() >= 4096, moment.dtype)
        for p, state in optimizer.state.items()
        for moment in state.values()
        if torch.is_tensor(moment) and moment.shape == p.shape
    }
    assert moments == (
        {(True, torch.uint8), (False, torch.float32)}
        if eight_bit
        else {(True, torch.float32), (False, torch.float32)}
    )

    # the folder is peft's own: plain names, the adapters and nothing else, the base by name
    folder = tmp_path / "step-000006"
    checkpoints.save(model, WORDS, "chatml", folder, torch.float32)
    stored = load_file(folder / "adapter_model.safetensors")
    expected = {
        f"base_model.model.model.layers.{layer}.{name}.lora_{half}.weight": (RANK, wide)
        if half == "A"
        else (out, RANK)
        for layer in range(2)
        for name, (wide, out) in LINEAR.items()
        for half in "AB"
    }
    assert {name: tuple(t.shape) for name, t in stored.items() if ".lora_" in name} == expected
    said = json.loads((folder / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(bases[tied]) and (
        said["r"],
        said["lora_alpha"],
        said["task_type"],
    ) == (RANK, ALPHA, "CAUSAL_LM")
    assert set(said["target_modules"]) == {
        f"model.layers.{layer}.{name}" for layer in range(2) for name in LINEAR
    }
    ours = logits(
        model, examples
    )  # in training mode: there is no dropout, and bitsandbytes packs its weights anew in eval mode
    own_base = (
        plain(bases[tied], quantization_config=NF4, device_map={"": "cpu"})
        if four_bits
        else plain(bases[tied])
    )
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(own_base, folder).train(), examples),
        ours,
        atol=1e-5,
        rtol=0,
    )

    # merged into the full-precision base, also where four bits of it were trained
    adapters.merge(folder, bases[tied], torch.float32)
    merged = logits(plain(folder / "merged"), examples)
    full = logits(PeftModel.from_pretrained(plain(bases[tied]), folder), examples)
    torch.testing.assert_close(merged, full, atol=1e-5, rtol=0)
    assert (merged - logits(plain(bases[tied]), examples)).abs().max() > 0.1
    assert not list((folder / "merged").glob("adapter*")) and not list(tmp_path.glob("**/*.part"))
    assert plain(folder / "merged").config.tie_word_embeddings == tied


@pytest.mark.parametrize("tied", [True, False])
def test_adapter_file_of_four_bits_holds_adapters_only(bases, tmp_path, tied):
    """The base's scales and code books are none of the adapter's: on a 7B base they are 0.1 GB in
    each checkpoint.
    """
    model = adapters.load(bases[tied], CPU, RANK, four_bits=True)
    checkpoints.save(model, WORDS, "chatml", tmp_path / "step-000001", torch.float32)
    assert [
        name
        for name in load_file(tmp_path / "step-000001" / "adapter_model.safetensors")
        if ".lora_" not in name
    ] == []


def test_training_state_of_four_bits_holds_no_base(bases, tmp_path):
    import torch.distributed.checkpoint as dcp

    model = adapters.load(bases[True], CPU, RANK, four_bits=True)
    checkpoints.save_state(model, adamw(model), 1, tmp_path)
    stored = dcp.FileSystemReader(tmp_path / "state-000001").read_metadata().state_dict_metadata
    assert [name for name in stored if "base_layer" in name] == []


def test_merged_folder_is_written_in_the_dtype_asked_for(bases, tmp_path):
    """bfloat16 is the rounded sum, not a sum of rounded parts; tokenizer and stop tokens are the
    checkpoint's.
    """
    model = adapters.load(bases[False], CPU, RANK)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_(0, 0.02, generator=torch.Generator().manual_seed(p.numel()))
    for name in ("step-000001", "step-000002"):
        checkpoints.save(model, WORDS, "chatml", tmp_path / name, torch.float32)
    adapters.merge(tmp_path / "step-000001", bases[False], torch.float32)
    adapters.merge(tmp_path / "step-000002", bases[False], torch.bfloat16)
    exact, half = (
        load_file(tmp_path / name / "merged" / "model.safetensors")
        for name in ("step-000001", "step-000002")
    )
    assert exact.keys() == half.keys() == set(load_file(bases[False] / "model.safetensors"))
    assert all(torch.equal(half[name], exact[name].to(torch.bfloat16)) for name in exact)
    weight = "model.layers.1.mlp.up_proj.weight"
    adapter = load_file(tmp_path / "step-000001" / "adapter_model.safetensors")
    a, b = (
        adapter[f"base_model.model.{weight.replace('weight', half)}.weight"]
        for half in ("lora_A", "lora_B")
    )
    torch.testing.assert_close(
        exact[weight], load_file(bases[False] / "model.safetensors")[weight] + ALPHA / RANK * b @ a
    )
    again = AutoTokenizer.from_pretrained(tmp_path / "step-000002" / "merged")
    assert again.chat_template == prompts.JINJA["chatml"]
    stops = GenerationConfig.from_pretrained(tmp_path / "step-000002" / "merged").eos_token_id
    assert stops == again.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def half(request, monkeypatch):
    """The CPU computes as a GPU does: with bfloat16, and one without."""
    monkeypatch.setattr(distributed, "compute_dtype", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("four_bits", [False, True])
def test_adapters_are_float32_on_a_half_precision_base(bases, half, four_bits):
    """At a learning rate of 1e-4 most updates of bfloat16 adapters would round away."""
    model = adapters.load(bases[True], CPU, RANK, four_bits)
    assert model.get_input_embeddings().weight.dtype == half
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("four_bits", [False, True])
def test_half_precision_follows_the_float32_curve(bases, examples, half, monkeypatch, four_bits):
    ours = fit(bases[True], examples, four_bits).updates
    monkeypatch.undo()
    exact = fit(bases[True], examples, four_bits).updates
    for update, expected in zip(ours, exact, strict=True):
        assert not update.skipped
        assert update.loss == pytest.approx(expected.loss, rel=0.01)
        assert update.grad_norm == pytest.approx(expected.grad_norm, rel=0.1)


def count_passes(monkeypatch):
    """Return a list that gets the loss of each pass over a step's rows."""
    passes, total_loss = [], loop._total_loss

    def counting(*arguments):
        passes.append(total_loss(*arguments))
        return passes[-1]

    monkeypatch.setattr(loop, "_total_loss", counting)
    return passes


def test_a_loss_scale_that_overflows_is_halved_until_it_does_not(bases, examples, monkeypatch):
    """No step is lost, and each is what it is in float32."""
    plan = plan_of(examples)[:2]
    model = adapters.load(bases[True], CPU, RANK)
    exact = list(training_steps(model, adamw(model), examples, plan, 1e-2))
    monkeypatch.setattr(distributed, "compute_dtype", lambda device: torch.float16)
    monkeypatch.setattr(loop, "LOSS_SCALE", 2.0**27)
    model = adapters.load(bases[True], CPU, RANK)
    passes = count_passes(monkeypatch)
    scaled = list(training_steps(model, adamw(model), examples, plan, 1e-2))
    assert len(passes) > len(scaled)  # it did overflow
    for update, expected in zip(scaled, exact, strict=True):
        assert not update.skipped
        assert update.loss == pytest.approx(expected.loss, rel=0.01)
        assert update.grad_norm == pytest.approx(expected.grad_norm, rel=0.1)


def test_a_loss_that_is_not_finite_is_no_matter_of_its_scale(bases, examples, monkeypatch):
    """Its step is skipped, after one pass."""
    monkeypatch.setattr(distributed, "compute_dtype", lambda device: torch.float16)
    model = adapters.load(bases[True], CPU, RANK)
    model.get_input_embeddings().weight.data.fill_(math.nan)
    passes = count_passes(monkeypatch)
    (update,) = training_steps(model, adamw(model), examples, plan_of(examples)[:1], 1e-2)
    assert update.skipped and len(passes) == 1


def test_activations_keep_the_type_of_the_base(bases, examples, monkeypatch):
    """peft would cast each input of an adapter to float32, and autocast cast it back."""
    monkeypatch.setattr(distributed, "compute_dtype", lambda device: torch.bfloat16)
    model = adapters.load(bases[True], CPU, RANK)
    batch = tokens.micro_batch(examples[:4], CPU)
    n_activation = batch[0].numel() * SIZES["hidden_size"]

    class CountCasts(TorchDispatchMode):
        n_casts = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **kwargs or {})
            if function is torch.ops.aten._to_copy.default and args[0].dtype == torch.bfloat16:
                self.n_casts += result.dtype == torch.float32 and result.numel() == n_activation
            return result

    with CountCasts() as counter:
        model.completion_loss(*batch)
    assert counter.n_casts == 1 + 2 * SIZES["num_hidden_layers"]  # the norms


# --- against plain peft ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tied, four_bits, recomputed",
    [(True, False, 0), (False, False, 1), (True, True, 2)],
)
def test_first_step_against_plain_peft(bases, examples, monkeypatch, tied, four_bits, recomputed):
    """Oracle: peft's own model, with the same adapters, on Hugging Face's mean loss.

    B starts at 0, so that A would get no gradient: both are made random.
    """
    model = adapters.load(bases[tied], CPU, RANK, four_bits, recomputed)
    base = (
        plain(bases[tied], quantization_config=NF4, device_map={"": "cpu"})
        if four_bits
        else plain(bases[tied])
    )
    oracle = get_peft_model(
        base,
        LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=[name.split(".")[1] for name in LINEAR],
            task_type="CAUSAL_LM",
        ),
    )
    theirs = {
        name.removeprefix("base_model.model."): p
        for name, p in oracle.named_parameters()
        if p.requires_grad
    }
    ours = {
        name.replace("_checkpoint_wrapped_module.", ""): p
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    assert ours.keys() == theirs.keys() and len(ours) == 28
    with torch.no_grad():
        for n, name in enumerate(ours):
            ours[name].normal_(0, 0.02, generator=torch.Generator().manual_seed(n))
            theirs[name].copy_(ours[name])
    monkeypatch.setattr(loop, "MAX_GRAD_NORM", 1e9)
    plan = plan_of(examples)[:1]
    input_ids, labels = tokens.collate([examples[i] for group in plan[0][0] for i in group])
    assert len(plan[0][0]) > 1  # ours goes through several micro-batches
    (theirs_loss := oracle.train()(input_ids=input_ids, labels=labels).loss).backward()
    norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 1e9)
    gradients = {}

    class Look(torch.optim.SGD):
        def step(self):
            gradients.update({name: p.grad.clone() for name, p in ours.items()})

    (update,) = training_steps(model, Look(ours.values(), lr=0), examples, plan, 0.0, 0.0)
    assert update.loss == pytest.approx(
        theirs_loss.item(), abs=1e-5
    ) and update.grad_norm == pytest.approx(norm.item(), rel=1e-4)
    for name, p in theirs.items():
        assert p.grad.abs().max() > 0
        torch.testing.assert_close(gradients[name], p.grad, atol=1e-6, rtol=1e-3)


def test_8bit_adamw_follows_the_32bit_one(bases, examples):
    exact, eight = (fit(bases[True], examples, eight_bit=on) for on in (False, True))
    for a, b in zip(exact.updates, eight.updates, strict=True):
        assert b.loss == pytest.approx(a.loss, abs=5e-3)
    assert any(
        a.loss != b.loss for a, b in zip(exact.updates, eight.updates)
    )  # it is another optimizer


def test_new_adapters_depend_on_the_seed_alone(bases, examples):
    """Two arms in one call: what was trained, or drawn, before does not matter."""
    first = trained(adapters.load(bases[True], CPU, RANK, seed=3))
    fit(bases[False], examples)
    torch.rand(17)
    again, other = (trained(adapters.load(bases[True], CPU, RANK, seed=seed)) for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)
    assert all((p == 0).all() for name, p in first.items() if "lora_B" in name)


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("four_bits, eight_bit", [(False, False), (False, True), (True, True)])
def test_resumed_training_is_the_undisturbed_one(bases, examples, tmp_path, four_bits, eight_bit):
    """Bit for bit: losses, norms, adapters; with weight decay, and with moments in 8 bits and in
    32.
    """
    whole = fit(bases[True], examples, four_bits, eight_bit)
    fit(bases[True], examples, four_bits, eight_bit, state=tmp_path, save_at=3)
    resumed = fit(bases[True], examples, four_bits, eight_bit, state=tmp_path)
    assert resumed.start == 3 and [u.step for u in resumed.updates] == [4, 5, 6]
    assert [(u.loss, u.grad_norm) for u in resumed.updates] == [
        (u.loss, u.grad_norm) for u in whole.updates[3:]
    ]
    expected = trained(whole.model)
    assert all(torch.equal(expected[name], p) for name, p in trained(resumed.model).items())
    assert all(
        torch.equal(a, b)
        for a, b in zip(frozen(whole.model).values(), frozen(resumed.model).values(), strict=True)
    )


def test_state_of_another_rank_is_refused(bases, examples, tmp_path):
    fit(bases[True], examples, state=tmp_path, save_at=1)
    model = adapters.load(bases[True], CPU, 8)
    with pytest.raises(
        InputError,
        match=r"(?s)Size mismatch.*32, 128.*8, 128.*q_proj.*mv ",
    ):
        checkpoints.load_state(model, adamw(model), tmp_path)


# --- a tokenizer without ChatML's markers ---------------------------------------------------------


def deepseek_like(folder, spare):
    """A byte-level tokenizer with DeepSeek's bos and eos and no <|im_end|>, on a model with `spare`
    unused embedding rows.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    inner.pre_tokenizer, inner.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        token_decoders.ByteLevel(),
    )
    inner.add_special_tokens(
        [AddedToken(t, special=True) for t in ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<｜begin▁of▁sentence｜>",
        eos_token="<｜end▁of▁sentence｜>",
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(**SIZES | {"vocab_size": 258 + spare}, tie_word_embeddings=True)
    ).save_pretrained(folder)
    return load_tokenizer(folder)


def test_chatml_with_markers_in_unused_rows(tmp_path):
    tokenizer = deepseek_like(tmp_path / "base", spare=3)
    assert prompts.template_for(tokenizer) == "deepseek"
    prompts.add_chatml_markers(
        "chatml", tokenizer, estimate.model_shape(tmp_path / "base").vocabulary, trainable=True
    )
    prompts.check_template("chatml", tokenizer)
    assert tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [258, 259]
    documents = world.web_documents(0, 16)
    made, counts = tokens.examples(documents, tokenizer, "chatml", 512)
    assert not counts
    for example, row in zip(made, documents, strict=True):
        ids = example["input_ids"].tolist()
        assert (
            ids[-1] == 259
            and ids[: example["n_prompt"]].count(258) == 3
            and ids[example["n_prompt"] :].count(259) == 1
        )
        assert (
            tokenizer.decode(ids[example["n_prompt"] :])
            == row["completion"][0]["content"] + "<|im_end|>"
        )
    tokens.check_fit(made, 261, 512, tmp_path / "base")

    model = load_model(tmp_path / "base", CPU)
    before = model.get_input_embeddings().weight.detach().clone()
    for _ in training_steps(model, adamw(model), made, plan_of(made, most=2048), 1e-2, 0.0):
        pass
    checkpoints.save(model, tokenizer, "chatml", tmp_path / "step-000002", torch.float32)
    again = load_tokenizer(tmp_path / "step-000002")
    text = "<|im_start|>user\nx<|im_end|>\n"
    between, newline = (
        tokenizer("user\nx", add_special_tokens=False).input_ids,
        tokenizer("\n", add_special_tokens=False).input_ids,
    )
    assert again(text).input_ids == tokenizer(text).input_ids == [258, *between, 259, *newline]
    assert prompts.template_for(again) == "chatml"  # so 05 asks in the form that was trained
    chat = again.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == text + "<|im_start|>assistant\n"
    assert GenerationConfig.from_pretrained(tmp_path / "step-000002").eos_token_id == [
        259,
        tokenizer.eos_token_id,
    ]
    moved = (plain(tmp_path / "step-000002").get_input_embeddings().weight - before).abs().amax(1)
    assert moved[258] > 0 and moved[259] > 0  # the new rows learn
    assert (
        tuple(before.shape)
        == (261, 128)
        == tuple(plain(tmp_path / "step-000002").get_input_embeddings().weight.shape)
    )


@pytest.mark.parametrize("spare, full", [(1, True), (0, True), (3, False)])
def test_chatml_is_refused_without_room_and_with_adapters(tmp_path, spare, full):
    """New rows of a frozen embedding would stay random."""
    tokenizer = deepseek_like(tmp_path, spare)
    prompts.add_chatml_markers("chatml", tokenizer, estimate.model_shape(tmp_path).vocabulary, full)
    assert len(tokenizer) == 258
    with pytest.raises(InputError, match=r"(?s)no <\|im_end\|>.*Leave --template out"):
        prompts.check_template("chatml", tokenizer)
    prompts.check_template("deepseek", tokenizer)


# --- refusals -------------------------------------------------------------------------------------


def test_an_adapter_is_no_base(bases, tmp_path):
    """Nor a model to score: the error names what makes one of it. A merged one is."""
    model = adapters.load(bases[True], CPU, RANK)
    folder = tmp_path / "step-000001"
    checkpoints.save(model, WORDS, "chatml", folder, torch.float32)
    for weights in (True, False):  # a dry run reads no weights
        with pytest.raises(InputError, match=f"(?s){folder} is no model folder.*{folder}/merged"):
            local_folder(folder, weights)
    adapters.merge(folder, bases[True], torch.float32)
    assert local_folder(folder / "merged") == str(folder / "merged")


@pytest.mark.skipif(
    not os.path.exists("/proc/meminfo"), reason="free memory is read from Linux's /proc"
)
def test_too_little_memory_to_merge_is_said(bases, tmp_path):
    """Nothing is merged then; the line names the two sizes."""
    folder = tmp_path / "step-000001"
    checkpoints.save(adapters.load(bases[True], CPU, RANK), WORDS, "chatml", folder, torch.float32)
    line = adapters.merge_if_possible(folder, bases[True], torch.float32, 10**15)
    assert re.search("4000000.00 GB, and .* GB are free", line)
    assert not (folder / "merged").exists()
    line = adapters.merge_if_possible(folder, bases[True], torch.float32, 1_000_000)
    assert str(folder / "merged") in line and (folder / "merged").exists()


# --- the script -----------------------------------------------------------------------------------

LORA = [
    "04_train.py",
    "--name",
    "a",
    "--method",
    "lora",
    "--lora-rank",
    8,
    "--global-batch",
    4,
    "--learning-rate",
    1e-2,
    "--save-every",
    2,
    "--state-minutes",
    1e-9,
]


def run_of(folder, base):
    """runs/a with two hand-made training sets of 24 rows: 6 steps of 4. -> runs/a"""
    run, documents = folder / "runs" / "a", world.web_documents(0, 48)
    for n, arm in enumerate(("cft", "sft")):
        write_rows(
            run / "03_data" / f"{arm}.jsonl",
            [row | {"arm": arm} for row in documents[24 * n : 24 * n + 24]],
        )
    shutil.copytree(base, folder / "base")
    return run


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory, tiny_model):
    """Both arms on one process, in one call, merged."""
    folder = tmp_path_factory.mktemp("lora")
    run = run_of(folder, tiny_model)
    return SimpleNamespace(
        folder=folder, run=run, printed=must_run(folder, *LORA, "--model", "base")
    )


def test_script_writes_adapters_and_merged_models(lora_run):
    base = load_file(lora_run.folder / "base" / "model.safetensors")
    for arm in ("cft", "sft"):
        folder = lora_run.run / "04_train" / arm
        assert {p.name for p in folder.iterdir()} == {
            "settings.json",
            "metrics.jsonl",
            "trained_on.jsonl",
            "run.json",
            "loss.png",
            *(f"step-00000{n}" for n in (2, 4, 6)),
        }
        parts = {
            "adapter_config.json",
            "adapter_model.safetensors",
            "chat_template.jinja",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        }
        assert {p.name for p in (folder / "step-000004").iterdir()} == parts
        assert {p.name for p in (folder / "step-000006").iterdir()} == parts | {
            "merged"
        }  # the last one alone is merged
        said = json.loads((folder / "step-000006" / "adapter_config.json").read_text())
        assert (
            said["base_model_name_or_path"] == str((lora_run.folder / "base").resolve())
            and said["r"] == 8
        )
        losses = [m["loss"] for m in rows(folder / "metrics.jsonl")]
        assert len(losses) == 6 and losses[-1] < losses[0] - 0.2
        merged = load_file(folder / "step-000006" / "merged" / "model.safetensors")
        assert merged.keys() == base.keys() and {t.dtype for t in merged.values()} == {
            torch.float32
        }
        changed = {name for name in base if not torch.equal(base[name], merged[name])}
        assert changed == {
            name for name in base if re.search(r"layers\.\d\..*_proj\.weight$", name)
        }
        assert f"merged: runs/a/04_train/{arm}/step-000006/merged" in lora_run.printed
        manifest = json.loads((folder / "run.json").read_text())
        assert manifest["checkpoints"] == ["step-000002", "step-000004", "step-000006"]


def test_05_scores_the_merged_model(lora_run):
    must_run(
        lora_run.folder,
        "05_eval.py",
        "--name",
        "a",
        "--model",
        "cft",
        "--benchmarks",
        "tiny",
        "--limit",
        2,
        "--max-new-tokens",
        4,
    )
    engine = json.loads((lora_run.run / "05_results.run.json").read_text())["engines"]["cft"]
    merged = lora_run.run / "04_train" / "cft" / "step-000006" / "merged"
    assert lora_run.folder / engine["folder"] == merged and engine["content"] == files.model_id(
        merged
    )


def test_a_model_is_trained_and_asked_in_its_own_template(tmp_path, tiny_model):
    """The folder keeps the template; 05 asks by the one that the training names."""
    run = run_of(tmp_path, tiny_model)
    own = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer = load_tokenizer(tmp_path / "base")
    tokenizer.chat_template = own
    tokenizer.save_pretrained(tmp_path / "base")
    own_template = "--arms", "cft", "--template", "own", "--model", "base"
    printed = must_run(tmp_path, *LORA, *own_template)
    assert "[assistant]" in printed.split(">>>")[0] and "<|im_start|>" not in printed
    checkpoint = run / "04_train" / "cft" / "step-000006"
    assert load_tokenizer(checkpoint / "merged").chat_template == own
    assert trainings.read_settings(checkpoint.parent / "settings.json")["template"] == "own"
    eval_arguments = "--name", "a", "--model", "cft", "--limit", 2, "--max-new-tokens", 4
    must_run(tmp_path, "05_eval.py", *eval_arguments)
    engines = json.loads((run / "05_results.run.json").read_text())["engines"]
    assert engines["cft"]["template"] == "own"


def test_merging_where_the_base_lies_elsewhere(lora_run, tmp_path):
    """Trained here, merged on a machine with more memory, as the error about memory proposes:
    --model says where the base is, and settings.json that it is the same one.
    """
    shutil.copytree(lora_run.folder, tmp_path / "there")
    merged = tmp_path / "there" / "runs" / "a" / "04_train" / "cft" / "step-000006" / "merged"
    shutil.rmtree(merged)
    config = merged.parent / "adapter_config.json"
    config.write_text(config.read_text().replace(str(lora_run.folder / "base"), "/nowhere/base"))
    (tmp_path / "there" / "base").rename(tmp_path / "there" / "moved")
    done = run_script(tmp_path / "there", *LORA, "--model", "moved", "--arms", "cft")
    assert "Traceback" not in done.stderr, done.stderr[-600:]
    assert done.returncode == 0
    assert_close_files(
        merged / "model.safetensors",
        lora_run.run / "04_train" / "cft" / "step-000006" / "merged" / "model.safetensors",
    )


def assert_close_files(ours, expected):
    ours, expected = load_file(ours), load_file(expected)
    assert ours.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], atol=1e-4, rtol=0)


def test_qlora_with_8bit_adamw_and_merge(tmp_path, tiny_model):
    """Merged into the base as it stands on disk: base plus alpha / rank x B A, in float32."""
    run = run_of(tmp_path, tiny_model)
    must_run(
        tmp_path,
        *LORA,
        "--model",
        "base",
        "--arms",
        "cft",
        "--method",
        "qlora",
        "--save-every",
        0,
    )
    (folder,) = (run / "04_train" / "cft").glob("step-*")
    losses = [m["loss"] for m in rows(run / "04_train" / "cft" / "metrics.jsonl")]
    assert folder.name == "step-000006" and losses[-1] < losses[0] - 0.2
    base, merged = (
        load_file(path / "model.safetensors") for path in (tmp_path / "base", folder / "merged")
    )
    adapter = load_file(folder / "adapter_model.safetensors")
    for name, weight in base.items():
        a, b = (
            adapter.get(f"base_model.model.{name.replace('.weight', half)}")
            for half in (".lora_A.weight", ".lora_B.weight")
        )
        assert (a is None) == ("_proj.weight" not in name)
        torch.testing.assert_close(merged[name], weight if a is None else weight + 2 * b @ a)
    assert trainings.last_checkpoint(run, "cft") == folder / "merged" and local_folder(
        folder / "merged"
    )
    settings = json.loads((run / "04_train" / "cft" / "settings.json").read_text())
    assert settings["method"] == "qlora"


# --- without a working bitsandbytes ---------------------------------------------------------------


def test_a_bitsandbytes_that_is_not_there_stops_before_any_work(tmp_path, tiny_model, monkeypatch):
    run = run_of(tmp_path, tiny_model)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # Python then finds no such package
    stopped = run_script(tmp_path, *LORA, "--model", "base", "--method", "qlora")
    assert stopped.returncode == 2 and "Traceback" not in stopped.stderr
    assert "bitsandbytes" in stopped.stderr and "--method lora" in stopped.stderr
    assert "step 1/" not in stopped.stdout and not list(run.rglob("settings.json"))


def test_a_bitsandbytes_whose_library_fails_is_named(monkeypatch):
    """Its Python side imports, as it does with a library for another CUDA; it fails when it is
    used.
    """

    def fails(*_, **__):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", fails)
    with pytest.raises(
        InputError,
        match=r"(?s)does not work on this cpu \(RuntimeError: no kernel image.*--method lora",
    ):
        adapters.check_bitsandbytes(CPU)
    monkeypatch.undo()
    adapters.check_bitsandbytes(CPU)


def test_a_broken_bitsandbytes_breaks_adapters_only(tiny_model, monkeypatch):
    """peft imports bitsandbytes where it is found, and fails as that does; what trains all weights
    must not need it.
    """

    class Broken:
        def find_spec(self, name, *_):
            if name == "peft":
                raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "peft")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    importlib.reload(adapters)  # 04 imports it whatever the method
    with pytest.raises(InputError, match="(?s)OSError: libcudart.*bitsandbytes"):
        adapters.load(tiny_model, CPU, 4)
