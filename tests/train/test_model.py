"""Loading, sharding, saving, resuming; the training loop."""

import io
import json
import pickle
import shutil
from collections import Counter
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.checkpoint.metadata import BytesStorageMetadata
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    get_cosine_schedule_with_warmup,
)
from transformers.models.llama.modeling_llama import LlamaMLP

from common.core.errors import InputError
from common.core.files import model_id
from common.core.tokenizer import load_tokenizer, local_folder
from common.tiny import world
from common.tiny.base import build_tokenizer
from common.train import adapters, checkpoints, model, tokens
from common.train.loop import adamw, learning_rate_at, training_steps
from common.train.model import compile_layers, make_trainable
from common.train.model import load as load_model
from tests.runs import run_script, write_rows

CPU = torch.device("cpu")
WORDS = build_tokenizer()
SIZES = dict(
    vocab_size=len(WORDS),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    max_position_embeddings=256,
)


@pytest.fixture(scope="module")
def examples():
    return tokens.examples(world.web_documents(0, 48), WORDS, "chatml", 256)[0]


def folder_of(path, config):
    torch.manual_seed(0)
    made = (LlamaForCausalLM if isinstance(config, LlamaConfig) else Qwen2ForCausalLM)(config)
    made.save_pretrained(path)
    WORDS.save_pretrained(path)
    return made


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**SIZES, tie_word_embeddings=True),
        Qwen2Config(**SIZES, tie_word_embeddings=False),
        LlamaConfig(**SIZES, rope_theta=500_000.0),
    ],
    ids=["qwen2 tied", "qwen2", "llama"],
)
def test_loaded_model_is_the_stored_one(tmp_path, config, examples):
    """Same loss as from_pretrained's model: weights, tied head and the rotary buffers that meta
    loading loses.
    """
    plain = folder_of(tmp_path, config)
    loaded = load_model(str(tmp_path), CPU)
    input_ids, labels = tokens.collate(examples[:6])
    n = (labels[:, 1:] != tokens.IGNORE).sum().item()
    ours = loaded.completion_loss(input_ids, *tokens.supervised(labels)).item()
    assert ours / n == pytest.approx(
        plain(input_ids=input_ids, labels=labels).loss.item(), abs=1e-5
    )


# Weights so large, and bounds so low, that each change of the logits moves the loss.
LARGE = SIZES | dict(initializer_range=0.3, head_dim=8)
GEMMA_3 = Gemma3TextConfig(**LARGE, sliding_window=8, layer_types=["sliding_attention"] * 2)
CHANGED_LOGITS = {
    "gemma": GemmaConfig(**LARGE),
    "gemma 2": Gemma2Config(
        **LARGE, final_logit_softcapping=4.0, attn_logit_softcapping=2.0, sliding_window=8
    ),
    "gemma 3": GEMMA_3,
    "granite": GraniteConfig(**LARGE, logits_scaling=8, embedding_multiplier=12.0),
    "cohere": CohereConfig(**LARGE, logit_scale=0.3),
    "cohere 2": Cohere2Config(**LARGE, logit_scale=0.3, sliding_window=8),
}


@pytest.mark.parametrize("name", CHANGED_LOGITS)
def test_scaled_and_bounded_logits_against_transformers(tmp_path, name, examples):
    """Oracle: the loss and the gradients of transformers' own model, of all weights and of none."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CHANGED_LOGITS[name]).save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    input_ids, labels = tokens.collate(examples[:6])
    n = (labels[:, 1:] != tokens.IGNORE).sum().item()
    (expected := plain(input_ids=input_ids, labels=labels).loss).backward()
    ours = load_model(str(tmp_path), CPU)
    batch = tokens.micro_batch(examples[:6], CPU)
    (loss := ours.completion_loss(*batch, 1 / n)).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    theirs = dict(plain.named_parameters())
    for weight, p in ours.named_parameters():
        gradient = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
        torch.testing.assert_close(gradient, theirs[weight].grad, atol=1e-5, rtol=1e-3)
    adapted = adapters.load(str(tmp_path), CPU, 4)  # new adapters change nothing yet
    assert adapted.completion_loss(*batch, 1 / n).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_change_of_logits_that_the_kit_does_not_know_is_refused(tmp_path, monkeypatch, method):
    """Whatever it is: the model's own logits are looked at."""
    AutoModelForCausalLM.from_config(CHANGED_LOGITS["gemma 2"]).save_pretrained(tmp_path)
    monkeypatch.setattr(model, "SOFTCAP", "another name")
    with pytest.raises(InputError, match="Gemma2ForCausalLM"):
        METHODS[method](tmp_path)


def test_activation_checkpointing_changes_no_number(tiny_model, examples):
    batch = tokens.micro_batch(examples[:6], CPU)
    losses, norms = [], []
    for recomputed in (0, 1, 2):  # of its two layers: none, one, both
        model = load_model(tiny_model, CPU, recomputed)
        loss = model.completion_loss(*batch)
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [0, 1])
def test_compiled_layers_change_no_number(tiny_model, examples, recomputed):
    """Over three shapes: they are dynamic, so that not each batch is compiled anew."""
    batches = [tokens.micro_batch(examples[:n], CPU) for n in (6, 4, 9)]
    losses, norms = {}, {}
    for compiled in (False, True):
        model = load_model(tiny_model, CPU, recomputed)
        if compiled:
            compile_layers(model)
        losses[compiled] = []
        for batch in batches:
            loss = model.completion_loss(*batch)
            loss.backward()
            losses[compiled].append(loss.item())
        norms[compiled] = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    assert norms[True] == pytest.approx(norms[False], rel=1e-4)


def test_right_padding_without_a_mask_changes_no_loss(tiny_model, examples):
    model = load_model(tiny_model, CPU)
    together = model.completion_loss(*tokens.micro_batch(examples[:8], CPU)).item()
    alone = sum(
        model.completion_loss(*tokens.micro_batch([example], CPU)).item()
        for example in examples[:8]
    )
    assert together == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("recomputed", [0, 1, 2])
def test_saved_folder_is_a_plain_hugging_face_model(tmp_path, tied, recomputed):
    plain = folder_of(tmp_path / "base", Qwen2Config(**SIZES, tie_word_embeddings=tied))
    model = load_model(str(tmp_path / "base"), CPU, recomputed)
    checkpoints.save(model, WORDS, "chatml", tmp_path / "step-000001", torch.float32)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "step-000001")
    for name, tensor in plain.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "step-000001")
    end = reloaded.convert_tokens_to_ids("<|im_end|>")
    assert again.generation_config.eos_token_id == [end, reloaded.eos_token_id]
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert reloaded.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    )
    assert not list(tmp_path.glob("*.part"))


def test_bfloat16_folder_is_trained_in_float32(tmp_path):
    folder_of(tmp_path, Qwen2Config(**SIZES)).to(torch.bfloat16).save_pretrained(tmp_path)
    model = load_model(str(tmp_path), CPU)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def fit(folder, examples, steps=None, state=None, save_at=None, load=load_model, **options):
    plan = tokens.batch_plan(
        [len(e["input_ids"]) for e in examples], 8, 1, 0, 1, options.pop("cap", 256)
    )
    model = load(folder, CPU)
    optimizer = adamw(model)
    start = checkpoints.load_state(model, optimizer, state) if state else 0
    updates = []
    for update in training_steps(
        model, optimizer, examples, plan[:steps] if steps else plan, 1e-2, start=start, **options
    ):
        updates.append(update)
        if update.step == save_at:
            checkpoints.save_state(model, optimizer, update.step, state)
    return updates


def test_resumed_training_repeats_the_undisturbed_losses(tiny_model, examples, tmp_path):
    whole = fit(tiny_model, examples)
    assert len(whole) == 6 and whole[-1].loss < whole[0].loss
    fit(tiny_model, examples, state=tmp_path, save_at=3)
    resumed = fit(tiny_model, examples, state=tmp_path)
    assert [u.step for u in resumed] == [4, 5, 6]
    assert [(u.loss, u.grad_norm) for u in resumed] == [(u.loss, u.grad_norm) for u in whole[3:]]


def test_sharded_or_not_every_bit_is_the_same(tiny_model, examples, tmp_path, load_sharded):
    """Losses, gradient norms and states; a state of either goes on as the other's."""
    whole = fit(tiny_model, examples, state=tmp_path / "plain", save_at=3)
    sharded = fit(tiny_model, examples, state=tmp_path / "sharded", save_at=3, load=load_sharded)

    def numbers(updates):
        return [(u.step, u.loss, u.grad_norm) for u in updates]

    assert numbers(whole) == numbers(sharded)
    assert numbers(fit(tiny_model, examples, state=tmp_path / "sharded")) == numbers(whole[3:])
    resumed = fit(tiny_model, examples, state=tmp_path / "plain", load=load_sharded)
    assert numbers(resumed) == numbers(whole[3:])


def test_embedding_and_head_stay_gathered_until_a_steps_last_micro_batch(
    tiny_model, examples, load_sharded
):
    net, gathered = load_sharded(tiny_model, CPU), []
    loss = net.completion_loss

    def note(*batch):
        gathered.append(not isinstance(net.get_input_embeddings().weight, DTensor))
        return loss(*batch)

    net.completion_loss = note
    for _ in training_steps(net, adamw(net), examples, [[[[0, 1], [2], [3]]], [[[4], [5]]]], 1e-2):
        assert all(isinstance(p, DTensor) for p in net.parameters())
    assert gathered == [False, True, True, False, True]


def test_sharded_or_not_the_checkpoint_is_the_same(tiny_model, tmp_path, load_sharded):
    for name, load in (("plain", load_model), ("sharded", load_sharded)):
        net = load(tiny_model, CPU)
        checkpoints.save(net, WORDS, "chatml", tmp_path / name, torch.float32)
    assert model_id(tmp_path / "plain") == model_id(tmp_path / "sharded")


@pytest.mark.parametrize(
    ("config", "n_fused"),
    [(Qwen2Config(**SIZES), 5), (LlamaConfig(**SIZES), 5), (Gemma2Config(**SIZES, head_dim=8), 0)],
    ids=["qwen2", "llama", "gemma2"],
)
def test_norms_that_are_llamas_take_one_call(config, n_fused):
    """Two a layer and one at the end. Gemma's multiplies by 1 + weight, so it stays."""
    net = AutoModelForCausalLM.from_config(config)
    batch = torch.arange(6)[None]
    expected = net(batch).logits
    make_trainable(net)
    assert sum("forward" in vars(module) for module in net.modules()) == n_fused
    torch.testing.assert_close(net(batch).logits, expected)


class Kernels(TorchDispatchMode):
    """Counts each operation."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def test_gate_and_up_are_kept_and_no_matrix_product_is_computed_twice():
    """Of 6 tokens: gate and up of 48 numbers each, the input of 32; not activation nor product."""
    mlp = LlamaMLP(LlamaConfig(**SIZES)).double()
    hidden = torch.randn(6, 32, dtype=torch.float64, requires_grad=True)
    weights = {p.untyped_storage().data_ptr() for p in mlp.parameters()}
    counts, sizes = [], []
    for forward in (mlp, partial(model._gated_product, mlp)):
        stored = {}

        def note(tensor, stored=stored):
            stored[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with Kernels() as kernels, saved_tensors_hooks(note, lambda tensor: tensor):
            loss = forward(hidden).sum()
        sizes.append(sum(t.numel() for at, t in stored.items() if at not in weights))
        with kernels:
            loss.backward()
        counts.append(kernels.counts["mm"])
    assert counts == [9, 9]
    assert sizes == [6 * (32 + 4 * 48), 6 * (32 + 2 * 48)]
    assert torch.autograd.gradcheck(partial(model._gated_product, mlp), hidden)


class Planted:
    """What a stranger may put into a training state: reading it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("planted_in", ["metadata", "number"])
def test_a_state_of_a_stranger_runs_nothing(tiny_model, examples, tmp_path, planted_in):
    """Whether in the file that says where tensors are, or in place of a number of AdamW."""
    fit(tiny_model, examples, state=tmp_path / "t", save_at=3)
    (state,) = (tmp_path / "t").glob("state-*")
    ran = tmp_path / "ran"
    if planted_in == "metadata":
        (state / ".metadata").write_bytes(pickle.dumps(Planted(ran)))
    else:
        buffer = io.BytesIO()
        torch.save(Planted(ran), buffer)
        metadata = pickle.loads((state / ".metadata").read_bytes())
        for index, where in metadata.storage_data.items():
            if isinstance(metadata.state_dict_metadata[index.fqn], BytesStorageMetadata):
                file = state / where.relative_path
                content = file.read_bytes()
                where.offset, where.length = len(content), buffer.getbuffer().nbytes
                file.write_bytes(content + buffer.getvalue())
        (state / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(InputError, match="cannot be read"):
        fit(tiny_model, examples, state=tmp_path / "t")
    assert not ran.exists()


def test_microbatching_changes_neither_loss_nor_gradient(tiny_model, examples):
    """The loss is a token sum over the global count: one micro-batch of 8 rows or 8 of one row give
    the same steps.
    """
    one, many = fit(tiny_model, examples, cap=100_000), fit(tiny_model, examples, cap=1)
    for a, b in zip(one, many):
        assert a.loss == pytest.approx(b.loss, rel=1e-4) and a.grad_norm == pytest.approx(
            b.grad_norm, rel=1e-3
        )
        assert a.supervised == b.supervised


def test_first_loss_and_update_against_plain_torch(tiny_model, examples):
    """Oracle: the same steps with Hugging Face's loss and torch's AdamW on an unsharded model."""
    ours = fit(tiny_model, examples, warmup_ratio=0.0)[:2]
    plan = tokens.batch_plan([len(e["input_ids"]) for e in examples], 8, 1, 0, 1, 256)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.0)
    for step, update in enumerate(ours):
        rows = [examples[i] for group in plan[step][0] for i in group]
        input_ids, labels = tokens.collate(rows)
        loss = plain(input_ids=input_ids, labels=labels).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, len(plan), 1e-2, 0.0)
        optimizer.step()
        optimizer.zero_grad()
        assert update.loss == pytest.approx(
            loss.item(), rel=1e-4
        ) and update.grad_norm == pytest.approx(norm.item(), rel=1e-3)


@pytest.mark.parametrize("steps, ratio", [(98, 0.1), (7, 0.5), (50, 0.0), (1, 0.1)])
def test_schedule_is_transformers_cosine_with_warmup(steps, ratio):
    import math

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=5e-6)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(steps * ratio), steps)
    for step in range(steps):
        assert learning_rate_at(step, steps, 5e-6, ratio) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-15
        )
        optimizer.step()
        schedule.step()


# --- bad folders ----------------------------------------------------------------------------------


def test_errors_name_what_is_missing(tiny_model, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (bare / file).unlink(missing_ok=True)
    with pytest.raises(InputError, match="tokenizer"):
        load_tokenizer(bare)
    (bare / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        load_model(str(bare), CPU)
    with pytest.raises(InputError, match="config.json"):
        local_folder(tmp_path)
    with pytest.raises(InputError, match="neither a folder"):
        local_folder("runs/none/01_base")


UP = "model.layers.0.mlp.up_proj.weight"
METHODS = {
    "full": lambda folder: load_model(str(folder), CPU),
    "lora": lambda folder: adapters.load(str(folder), CPU, 4),
    "qlora": lambda folder: adapters.load(str(folder), CPU, 4, four_bits=True),
    "merge": lambda folder: adapters.merge(folder / "adapter", folder, torch.float32),
}


@pytest.fixture(params=METHODS)
def load_any(request):
    """Load a folder for a training by each method, and to merge an adapter into it."""
    return METHODS[request.param]


def change(folder, function, **fields):
    """Change the stored weights by a function, and fields of config.json."""
    weights = load_file(folder / "model.safetensors")
    function(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def quantized(dtype, largest, scale_name, name=UP):
    """A function that stores a weight as numbers up to `largest`, and their scale beside them."""

    def store(weights):
        weight = weights.pop(UP)
        scale = weight.abs().max() / largest
        weights[name] = (weight / scale).to(dtype)
        if scale_name:
            weights[scale_name] = scale.reshape(1, 1)

    return store


FLOAT8 = torch.float8_e4m3fn
# How quantized bases are stored: what is done to the weights, and quant_method in config.json.
FORMS = {
    "fp8, scale_inv": (quantized(FLOAT8, 448, f"{UP}_scale_inv"), "fp8"),
    "fp8, scale": (quantized(FLOAT8, 448, f"{UP}_scale"), "compressed-tensors"),
    "fp8, no word of it": (quantized(FLOAT8, 448, None), None),
    "fp8, no word but a scale": (quantized(torch.float8_e5m2, 57344, f"{UP}_scale"), None),
    "int8": (quantized(torch.int8, 127, UP.replace("weight", "SCB")), "bitsandbytes"),
    "int8, no word of it": (quantized(torch.int8, 127, None), None),
    "bnb-4bit": (quantized(torch.uint8, 255, f"{UP}.absmax"), "bitsandbytes"),
    "bnb-4bit, no word of it": (quantized(torch.uint8, 255, f"{UP}.absmax"), None),
    "gptq": (quantized(torch.int32, 127, None, UP.replace("weight", "qweight")), "gptq"),
    "awq": (quantized(torch.int32, 127, None, UP.replace("weight", "qweight")), "awq"),
    "float64": (quantized(torch.float64, 1, None), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_quantized_bases_are_refused(load_any, tmp_path, form):
    """Read as plain numbers they would be trained as something else without a word."""
    store, method = FORMS[form]
    folder_of(tmp_path, Qwen2Config(**SIZES))
    change(tmp_path, store, **({"quantization_config": {"quant_method": method}} if method else {}))
    with pytest.raises(InputError, match="quantiz"):
        load_any(tmp_path)


def save_adapter(folder):
    """Save a new adapter of the model in `folder` beside it."""
    checkpoints.save(METHODS["lora"](folder), WORDS, "chatml", folder / "adapter", torch.float32)


def test_a_missing_weight_is_refused(load_any, tmp_path):
    """transformers would make it up."""
    folder_of(tmp_path, Qwen2Config(**SIZES))
    save_adapter(tmp_path)
    change(tmp_path, lambda weights: weights.pop(UP))
    with pytest.raises(InputError, match="up_proj"):
        load_any(tmp_path)
    assert not list(tmp_path.glob("adapter/merged*"))


ODD_KEYS = {
    "a missing key": (lambda weights: weights.pop(UP), None),
    "an extra key": (lambda w: w.update({UP.replace("weight", "bias"): torch.ones(48)}), None),
}


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize(
    "form",
    [
        "fp8, scale_inv",
        "an extra key",
        *(pytest.param(form, marks=pytest.mark.slow) for form in [*FORMS, *ODD_KEYS][1:-1]),
    ],
)
def test_the_script_refuses_before_it_writes(tmp_path, form, method):
    """With status 2, and no file is left behind."""
    store, quantizer = (FORMS | ODD_KEYS)[form]
    folder_of(tmp_path / "base", Qwen2Config(**SIZES))
    fields = {"quantization_config": {"quant_method": quantizer}} if quantizer else {}
    change(tmp_path / "base", store, **fields)
    write_rows(tmp_path / "runs/a/03_data/cft.jsonl", world.web_documents(0, 8))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    arguments = "--name", "a", "--model", "base", "--method", method, "--global-batch", 4
    done = run_script(tmp_path, "04_train.py", *arguments)
    assert done.returncode == 2, done.stderr
    assert "base" in done.stderr.split("error:")[1]
    left = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.name for path in left} <= {"04_train.lock"}


def test_weights_without_a_place_are_refused(load_any, tmp_path):
    """But a tied head and rotary frequencies, which older folders hold, are read as before."""
    folder_of(tmp_path, Qwen2Config(**SIZES, tie_word_embeddings=True))
    save_adapter(tmp_path)
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    change(tmp_path, lambda weights: weights.update(frequencies))
    load_any(tmp_path)
    change(tmp_path, lambda weights: weights.update({UP.replace("weight", "bias"): torch.ones(2)}))
    with pytest.raises(InputError, match="up_proj.bias"):
        load_any(tmp_path)


def test_architectures_that_cannot_be_read_are_named(tmp_path):
    """Better an error than a model with garbage in an expert."""
    experts = dict(moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4)
    AutoModelForCausalLM.from_config(Qwen2MoeConfig(**SIZES, **experts)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="mixtures of experts"):
        load_model(str(tmp_path), CPU)


def test_a_buffer_that_nobody_computes_is_named(tmp_path, monkeypatch):
    """Better an error than a model with garbage in a buffer."""
    folder_of(tmp_path, Qwen2Config(**SIZES))
    monkeypatch.setattr(Qwen2ForCausalLM, "_init_weights", lambda self, module: None)
    with pytest.raises(InputError, match="inv_freq"):
        load_model(str(tmp_path), CPU)


def test_a_foreign_tokenizer_in_a_qwen2_folder_is_read_as_it_stands(tmp_path):
    """transformers 5 loads every Qwen2 folder's tokenizer as Qwen2's own class; a word-level one
    would fall to pieces.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(
        models.WordLevel({"<unk>": 0, "Question:": 1, "12": 2, "<eos>": 3}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder_of(tmp_path, Qwen2Config(**SIZES))
    PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>"
    ).save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)("Question: 12").input_ids == [1, 2]


def test_model_id_is_of_the_content(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "elsewhere")
    assert model_id(tmp_path / "elsewhere") == model_id(tiny_model)
