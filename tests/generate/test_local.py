"""The local engine: refilled batches, architectures, adapters, limits, strides."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GenerationConfig,
    GPT2Config,
    GraniteConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from common.core.errors import InputError, Stopped
from common.core.files import model_id
from common.generate.decoder import Decoder
from common.generate.journal import Journal
from common.generate.local import Local, _chunks
from common.generate.requests import Request, Sampling, Task, complete, cut_at_stop
from common.tiny import world
from common.tiny.base import build_tokenizer
from common.train import adapters, distributed

TOKENIZER = build_tokenizer()
END = TOKENIZER.eos_token_id
PROMPTS = []  # 25 to 150 tokens
for number, problem in enumerate(world.problems("train", 0, 64)):
    PROMPTS.append(" ".join([problem.question] * (1 + number % 3))[number % 40 :])
TOKENS = dict(
    vocab_size=len(TOKENIZER),
    initializer_range=0.2,
    bos_token_id=None,
    eos_token_id=END,
    pad_token_id=TOKENIZER.pad_token_id,
)
SMALL = TOKENS | dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=64,
    max_position_embeddings=512,
)
CONFIGS = {
    "gpt2": GPT2Config(**TOKENS, n_embd=32, n_layer=2, n_head=4, n_positions=512),
    "llama": LlamaConfig(**SMALL),
    "mistral, a window of 32": MistralConfig(**SMALL, sliding_window=32),
    "qwen2": Qwen2Config(**SMALL),
    "qwen2, a window of 32 in one layer": Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=32, max_window_layers=1
    ),
    "qwen3": Qwen3Config(**SMALL, head_dim=16),
    "phi": PhiConfig(**SMALL),
    "phi3": Phi3Config(**SMALL),
    "olmo2": Olmo2Config(**SMALL),
    "smollm3": SmolLM3Config(**SMALL),
    "gemma 2, a window of 32 in one layer, bounds": Gemma2Config(
        **SMALL,
        head_dim=8,
        sliding_window=32,
        final_logit_softcapping=4.0,
        attn_logit_softcapping=2.0,
    ),
    "gemma 3, a window of 32 in one layer": Gemma3TextConfig(
        **SMALL,
        head_dim=8,
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "granite": GraniteConfig(**SMALL, logits_scaling=8, embedding_multiplier=12.0),
    "cohere": CohereConfig(**SMALL, logit_scale=0.3),
    "cohere 2, a window of 32 in one layer": Cohere2Config(
        **SMALL, sliding_window=32, layer_types=["sliding_attention", "full_attention"]
    ),
}


def save_random(config, folder):
    """Write a random model with the tiny base's tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random(CONFIGS["qwen2"], tmp_path_factory.mktemp("random") / "qwen2")


def answers(engine, prompts, sampling):
    """Return the engine's answers, in order, without the batch size that each of them names."""
    tasks = [Task(Request(prompt), sampling, "any") for prompt in prompts]
    by_key = {}

    def deliver(task, answer):
        if "text" in answer:
            assert answer["batch_size"] == engine.batch_size
        by_key[task.key] = {k: v for k, v in answer.items() if k != "batch_size"}

    engine.generate(tasks, deliver)
    return [by_key[task.key] for task in tasks]


def generate_alone(model, prompt, sampling, ends=END):
    """Return the new ids of one prompt alone, by model.generate."""
    ids = TOKENIZER(prompt, return_tensors="pt").input_ids
    settings = dict(max_new_tokens=sampling.max_new_tokens, do_sample=False, eos_token_id=ends)
    return model.generate(ids, **settings)[0, ids.shape[1] :].tolist()


def oracle(model, prompt, sampling):
    """Return the answer by definition: the tokens of one prompt alone, read one by one."""
    ids = generate_alone(model, prompt, sampling)
    for n, token in enumerate(ids, 1):
        text = TOKENIZER.decode(ids[:n], skip_special_tokens=True)
        text, is_cut = cut_at_stop(text, sampling.stop)
        stopped = is_cut or token == END
        if stopped:
            break
    usage = {"prompt_tokens": len(TOKENIZER(prompt).input_ids), "completion_tokens": n}
    answer = {"text": text, "finish_reason": "stop" if stopped else "length", "usage": usage}
    return answer | ({"stop_string": True} if is_cut else {})


# --- the same texts, whatever shares a batch ------------------------------------------------------


SLOW = "granite", "cohere"  # decoded as Llama is


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CONFIGS]
)
def test_refilled_batches_give_the_texts_of_each_prompt_alone(name, tmp_path):
    """Float32. The stop strings are bits of the texts themselves.

    So rows end at many different tokens, and others follow.
    """
    engine = Local(save_random(CONFIGS[name], tmp_path), batch_size=4)
    prompts = PROMPTS[:32] if name == "qwen2" else PROMPTS[:16]
    greedy = Sampling(max_new_tokens=32)
    texts = [oracle(engine.model, prompt, greedy)["text"] for prompt in prompts[::3]]
    stops = [text[start : start + 3] for text, start in zip(texts, range(3, 99, 5))]
    # Half a character is no text yet.
    stops = [stop for stop in stops if stop.strip() and "\ufffd" not in stop]
    sampling = Sampling(max_new_tokens=32, stop=stops)
    expected = [oracle(engine.model, prompt, sampling) for prompt in prompts]
    assert len({answer["usage"]["completion_tokens"] for answer in expected}) >= 4
    assert len({answer["usage"]["prompt_tokens"] for answer in expected}) >= 8
    assert answers(engine, prompts, sampling) == expected


@pytest.mark.parametrize(
    "config",
    [
        Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]),
        MambaConfig(**TOKENS, hidden_size=32, num_hidden_layers=2),
    ],
    ids=["lfm2", "mamba"],
)
def test_a_model_with_a_state_besides_keys_and_values_is_refused(config, tmp_path):
    """Its rows cannot be taken out of a batch."""
    with pytest.raises(InputError, match="base-url"):
        _ = Local(save_random(config, tmp_path)).model


def test_one_batch_is_refilled_many_times(folder, monkeypatch):
    """64 prompts through 4 places: the same texts as one by one, fewer rows than static batches."""
    engine = Local(folder, batch_size=4)
    n_rows, n_read = [], []
    limits = [1 + 13 * n % 40 for n in range(64)]
    next_tokens, read = Decoder._next_tokens, Decoder._read

    def counting_next_tokens(self, ids, *rest):
        n_rows.append(len(ids))
        return next_tokens(self, ids, *rest)

    def counting_read(self, rows):
        n_read.append(len(rows))
        return read(self, rows)

    monkeypatch.setattr(Decoder, "_next_tokens", counting_next_tokens)
    monkeypatch.setattr(Decoder, "_read", counting_read)
    decoder = Decoder(engine.model, TOKENIZER, Sampling(), {END}, 512, batch_size=4)
    tasks = []
    for prompt, limit in zip(PROMPTS, limits):
        tasks.append(Task(Request(prompt), Sampling(max_new_tokens=limit), "any"))
    texts = dict(decoder.generate(tasks))
    for task in tasks:
        assert texts[task] == oracle(engine.model, task.request.prompt, task.sampling)
    assert sum(n_read) == 64 and len(n_read) > 20 and max(n_rows) == 4
    order = sorted(range(64), key=lambda n: -len(TOKENIZER(PROMPTS[n]).input_ids))
    static = 0
    for start in range(0, 64, 4):
        static += 4 * max(limits[n] for n in order[start : start + 4])
    assert sum(limits) <= sum(n_rows) < 0.85 * static


class Waits(TorchDispatchMode):
    """Counts the operations whose result a GPU's host would have to wait for."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        waits = aten.is_nonzero, aten.item, aten._local_scalar_dense, aten.nonzero
        self.n += func.overloadpacket in waits
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["qwen2", "qwen2, a window of 32 in one layer", "smollm3"])
def test_the_host_waits_for_no_step(name, tmp_path, monkeypatch):
    """24 prompts through 8 places, sampled. What is left: two looks for padding at each reading.

    Each of transformers' own masks waits once: one for each step, or two with a sliding window.
    """
    engine = Local(save_random(CONFIGS[name], tmp_path), batch_size=8)
    n_reads = 0
    read = Decoder._read

    def counting_read(self, rows):
        nonlocal n_reads
        n_reads += 1
        return read(self, rows)

    monkeypatch.setattr(Decoder, "_read", counting_read)
    sampling = Sampling(temperature=1.0, max_new_tokens=24, seed=0)
    with Waits() as waits:
        answers(engine, PROMPTS[:24], sampling)
    n_masks = len(set(getattr(engine.model.config, "layer_types", ["all"])))
    assert n_reads <= waits.n <= 2 * n_masks * n_reads
    ids = torch.tensor([TOKENIZER(PROMPTS[0]).input_ids])
    with Waits() as waits, torch.inference_mode():
        engine.model(ids, attention_mask=torch.ones_like(ids))
    assert waits.n  # it does count what transformers does


def test_sampling_is_the_inverse_of_the_cumulated_probabilities(folder):
    """Oracle: one prompt at a time without a cache, its random numbers at once, top-p by hand."""
    sampling = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=21, seed=1)
    engine = Local(folder, batch_size=3)
    drawn = answers(engine, PROMPTS[:8], sampling)
    for prompt, answer in zip(PROMPTS, drawn):
        seed = int(Task(Request(prompt), sampling, "any").key[:15], 16)
        generator = torch.Generator().manual_seed(seed)
        ids = TOKENIZER(prompt).input_ids
        n_prompt = len(ids)
        for uniform in torch.rand(21, generator=generator, dtype=torch.double):
            logits = engine.model(torch.tensor([ids])).logits[0, -1]
            p = torch.softmax(logits.double() / 0.8, -1)
            order = p.argsort(descending=True)
            p[order[int((p[order].cumsum(0) < 0.9).sum()) + 1 :]] = 0
            ids.append(int((p.cumsum(0) <= uniform * p.sum()).sum()))
            if ids[-1] == END:
                break
        assert answer["text"] == TOKENIZER.decode(ids[n_prompt:], skip_special_tokens=True)
        assert answer["usage"]["completion_tokens"] == len(ids) - n_prompt
    assert answers(Local(folder, batch_size=1), PROMPTS[:8], sampling) == drawn


def test_an_end_token_is_counted_and_not_shown(folder, tmp_path):
    """A token of the first text becomes an end token, by the folder's generation_config.json.

    That does not name the tokenizer's own, which ends a text all the same. Each text that holds it
    ends before it, and counts it. Oracle: model.generate with these ends.
    """
    shutil.copytree(folder, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    sampling = Sampling(max_new_tokens=24)
    ends = [END, generate_alone(model, PROMPTS[0], sampling)[3]]
    (tmp_path / "model" / "generation_config.json").write_text(
        json.dumps({"eos_token_id": ends[1:]})
    )
    drawn = answers(Local(tmp_path / "model", batch_size=4), PROMPTS[:16], sampling)
    for prompt, answer in zip(PROMPTS, drawn):
        ids = generate_alone(model, prompt, sampling, ends)
        ended = ids[-1] in ends
        assert answer["usage"]["completion_tokens"] == len(ids)
        assert answer["finish_reason"] == ("stop" if ended else "length")
        ids = ids[:-1] if ended else ids
        assert answer["text"] == TOKENIZER.decode(ids, skip_special_tokens=True)
    assert drawn[0]["finish_reason"] == "stop"
    assert drawn[0]["usage"]["completion_tokens"] <= 4


# --- strides of several processes (tests/train/test_distributed.py starts real ones) --------------


def test_chunks_spread_over_a_node_and_hold_a_few_batches_at_most():
    """500 prompts at 32 are 8 chunks of 62 or 63; 20 are one chunk.

    10,000 are 40 chunks of 250, so that a kill costs 8 batches at most.
    """
    cases = [(500, 32, 8), (500, 64, 4), (10_000, 32, 40), (20, 32, 1), (20, 1, 7), (0, 4, 0)]
    for n, batch_size, n_chunks in cases:
        tasks = [Task(Request(f"{k}"), Sampling(), "any") for k in range(n)]
        chunks = _chunks(tasks, batch_size)
        assert len(chunks) == n_chunks
        assert sorted(task.key for chunk in chunks for task in chunk) == sorted(
            task.key for task in tasks
        )
        assert max(map(len, chunks), default=0) <= 8 * batch_size
        assert max(map(len, chunks), default=0) - min(map(len, chunks), default=0) <= 1


def run_as(rank, n_processes, monkeypatch, folder, journal_path, sampling):
    """Return what complete() gives to one process of several; it does not wait for the others."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(n_processes))
    requests = [Request(prompt) for prompt in PROMPTS[:32]]
    with Journal(journal_path) as journal:
        return complete(Local(folder, batch_size=4), requests, sampling, journal)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_processes_share_the_work_and_give_what_one_gives(
    folder, tmp_path, monkeypatch, temperature
):
    """Three, two of which are killed before they have done all, then two, then one."""
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    sampling = Sampling(temperature, max_new_tokens=12, stop=["zz"], seed=0)
    whole = run_as(0, 1, monkeypatch, folder, tmp_path / "one.jsonl", sampling)
    path = tmp_path / "many.jsonl"

    def run(rank, n_processes):
        return run_as(rank, n_processes, monkeypatch, folder, path, sampling)

    def texts(records):
        fields = ("key", "text", "finish_reason", "usage")
        return [{name: record.get(name) for name in fields} for record in records]

    def n_lines(name):
        return (tmp_path / name).read_bytes().count(b"\n")

    third = run(2, 3)
    n_third = sum("text" in record for record in third)
    assert 0 < n_third < 32 and n_lines("many.rank2.jsonl") == n_third
    second = run(1, 3)
    n_second = n_lines("many.rank1.jsonl")
    assert sum("text" in record for record in second) == n_second + n_third
    with open(tmp_path / "many.rank1.jsonl", "rb+") as file:  # the kill tears its last line
        file.truncate(file.seek(0, 2) - 5)
    run(0, 2)
    assert texts(run(1, 2)) == texts(whole)
    n_all = sum(n_lines(path.name) for path in tmp_path.glob("many*.jsonl"))
    assert n_all == 32  # nothing was generated twice
    assert texts(run(0, 1)) == texts(whole)
    assert n_lines("many.jsonl") + n_lines("many.rank1.jsonl") + n_third == 32


# --- what is loaded, and when ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "memory, n_texts",
    [(150.1e9, 256), (85e9, 256), (42.4e9, 64), (25.3e9, 32), (15.8e9, 1)],
    ids=["H200", "H100", "A100-40GB", "RTX 4090", "T4"],
)
def test_a_batch_by_the_memory_of_a_gpu(folder, tmp_path, monkeypatch, memory, n_texts):
    """Qwen2.5-7B by hand: 15.23 GB of weights; a token's keys and values are 2 x 28 layers x 512.

    In bfloat16 these are 57,344 bytes; with half as much again 2,048 + 512 tokens are 220.2 MB.
    The H200 has 0.9 x 150.1 - 15.2 = 119.9 GB for them: 544. The others: 278, 104, 34, none.
    """
    shutil.copytree(folder, tmp_path / "model")
    with open(tmp_path / "model" / "model.safetensors", "wb") as file:
        file.truncate(15_231_233_024)  # no byte of it is on the disk
    engine = Local(tmp_path / "model", max_new_tokens=2048)
    assert engine.batch_size == 32  # on a CPU
    engine.cuda = True
    shape = dict(hidden_size=3584, num_hidden_layers=28)
    shape |= dict(num_attention_heads=28, num_key_value_heads=4)
    vars(engine)["_config"] = Qwen2Config(**shape)
    properties = SimpleNamespace(total_memory=memory)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert engine._fitting_batch(2048) == n_texts


def test_a_server_is_named_for_many_tokens(folder, capsys):
    """From two million tokens that are still to be generated, on a GPU."""
    engine = Local(folder)
    engine.cuda = True

    def notes(n_tasks):
        sampling = Sampling(max_new_tokens=2000)
        engine.approve([Task(Request(f"{n}"), sampling, "any") for n in range(n_tasks)], None)
        return capsys.readouterr().out

    assert f"vllm serve {folder} --generation-config vllm" in notes(1000)
    assert not notes(999)


def test_an_engine_that_is_closed_gives_up_its_weights_and_loads_them_again(folder):
    engine, sampling = Local(folder, batch_size=4), Sampling(max_new_tokens=4)
    first = answers(engine, PROMPTS[:3], sampling)
    engine.close()
    assert "model" not in vars(engine)
    assert answers(engine, PROMPTS[:3], sampling) == first


def test_a_lone_surrogate_is_a_question_mark(folder):
    engine, sampling = Local(folder), Sampling(max_new_tokens=2)
    assert answers(engine, ["How \ud800?"], sampling) == answers(engine, ["How ??"], sampling)


def test_what_is_journalled_costs_no_loading(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    requests, sampling = [Request(p) for p in PROMPTS[:6]], Sampling(max_new_tokens=4)
    with Journal(tmp_path / "journal.jsonl") as journal:
        first = complete(Local(tmp_path / "model"), requests, sampling, journal)
        engine = Local(tmp_path / "model")
        assert engine.settings == {
            "folder": str(tmp_path / "model"),
            "content": model_id(folder),
            "dtype": "float32",
            "attention": "sdpa",
            "batch_size": 32,
            "processes": 1,
            "device": "cpu",
            "adapter_of": None,
        }
        (tmp_path / "model" / "model.safetensors").unlink()
        assert complete(engine, requests, sampling, journal) == first
        assert engine.tokenizer("zz").input_ids
        with pytest.raises(InputError, match="cannot be loaded"):
            complete(engine, [Request("another")], sampling, journal)


def test_weights_that_are_not_there_are_not_made_up(folder, adapter, tmp_path):
    """transformers fills them with random numbers, and peft with zeros; both only warn."""
    shutil.copytree(folder, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="up_proj"):
        Local(tmp_path / "model").approve([], None)
    weights = load_file(adapter / "adapter_model.safetensors")
    del weights[next(name for name in weights if "up_proj" in name)]
    copy = copy_adapter(adapter, tmp_path / "lora")
    save_file(weights, copy / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="up_proj"):
        Local(copy).approve([], None)


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    """A LoRA adapter whose matrices are all random, so that it changes every text."""
    out = tmp_path_factory.mktemp("adapter") / "lora"
    lora = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora)
    torch.manual_seed(1)
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(out)
    return out


def copy_adapter(adapter, folder, *parts):
    """Copy an adapter's folder, and save tokenizers or settings into the copy."""
    shutil.copytree(adapter, folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def test_an_adapter_gives_the_texts_of_the_merged_model(folder, adapter, tmp_path):
    settings = GenerationConfig(eos_token_id=END)
    copy = copy_adapter(adapter, tmp_path / "lora", TOKENIZER, settings)
    adapters.merge(copy, folder, torch.float32)
    engine = Local(adapter, batch_size=4)
    assert engine.settings["adapter_of"] == str(folder)
    assert engine.tokenizer.get_vocab() == TOKENIZER.get_vocab()  # it has none of its own
    texts = []
    for each in (engine, Local(copy / "merged", batch_size=4), Local(folder, batch_size=4)):
        texts.append(answers(each, PROMPTS[:12], Sampling(max_new_tokens=16)))
    assert texts[0] == texts[1] != texts[2]


def test_other_weights_and_other_arithmetic_have_another_identity(folder, adapter, tmp_path):
    """An adapter's base counts, also another one under the same name."""
    shutil.copytree(folder, tmp_path / "base")
    moved = copy_adapter(adapter, tmp_path / "lora")
    config = json.loads((moved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "base")
    (moved / "adapter_config.json").write_text(json.dumps(config))
    identities = [
        Local(folder).identity,
        Local(adapter).identity,
        Local(moved).identity,
    ]
    engine = Local(folder)
    engine.dtype = torch.bfloat16
    identities.append(engine.identity)
    save_random(CONFIGS["qwen2"], tmp_path / "base")
    (tmp_path / "base" / "generation_config.json").write_text('{"eos_token_id": 5}')
    identities.append(Local(moved).identity)
    assert len(set(identities)) == 5
    assert Local(folder, batch_size=3).identity == identities[0] == model_id(folder)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(InputError, match="base_model_name_or_path(.|\n)*merged") as error:
        Local(moved)
    assert str(tmp_path / "base") in str(error.value)


# --- limits ---------------------------------------------------------------------------------------


def test_a_too_long_prompt_fails_and_a_text_ends_at_the_models_length(folder, tmp_path):
    """512 positions: of 511 tokens one is left for the text.

    GPT-2 has no 513th position at all, so to go on would crash.
    """
    prompts = ["z" * 600, "z" * 511, "How?", "z" * 512, "z" * 500, ""]  # a z is a token
    for model in (folder, save_random(CONFIGS["gpt2"], tmp_path)):
        engine = Local(model, batch_size=2)
        engine._end_tokens = lambda stop: set()
        texts = answers(engine, prompts, Sampling(max_new_tokens=40))
        for n, length in ((0, 600), (3, 512), (5, 0)):
            assert f"{length} tokens" in texts[n]["error"] and "1 to 511" in texts[n]["error"]
        for n, n_tokens in ((1, 1), (2, 40), (4, 12)):
            assert texts[n]["usage"]["completion_tokens"] == n_tokens
            assert texts[n]["finish_reason"] == "length"


def test_a_prompt_that_begins_with_the_begin_token_gets_no_second_one(folder):
    words = Tokenizer(WordLevel({"<s>": 0, "a": 1, "b": 2}, unk_token="b"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    tokenizer.backend_tokenizer.pre_tokenizer = Whitespace()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    assert tokenizer("<s> a").input_ids == [0, 0, 1]  # what the tokenizer itself does
    decoder = Decoder(None, tokenizer, Sampling(), [], 512, 1)
    ids = [decoder._prompt_ids(prompt) for prompt in ("<s> a", "a b", "<s>")]
    assert ids == [[0, 1], [0, 1, 2], [0]]
    engine = Local(folder)
    engine.tokenizer = tokenizer
    texts = answers(engine, ["<s> a", "a b"], Sampling(max_new_tokens=1))
    assert [answer["usage"]["prompt_tokens"] for answer in texts] == [2, 3]


def test_too_little_memory_says_what_to_change(folder, monkeypatch):
    def full(*unused):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(Decoder, "_read", full)
    with pytest.raises(Stopped, match="--batch-size") as end:
        answers(Local(folder), PROMPTS[:2], Sampling())
    assert end.value.status == 4


def test_the_speed_is_told_while_the_first_texts_are_written(folder):
    """4 texts of 40 tokens end after 40 steps; the first 8, with the prompts, are not timed."""
    engine = Local(folder, batch_size=4)
    tasks = [Task(Request(prompt), Sampling(max_new_tokens=40), "m") for prompt in PROMPTS[:4]]
    seen = []

    def show():
        seen.append((engine.n_texts, engine.status()))

    assert engine.status() == ""
    engine.generate(tasks, lambda task, answer: task.settle(answer), show)
    before = [status for n_texts, status in seen if not n_texts]
    assert len(before) > 1 and all("tokens/s, at most" in status for status in before)
    assert "tokens/s" in seen[-1][1] and "at most" not in seen[-1][1]
    assert engine.max_tokens == 4 * 40 and engine.n_tokens >= 4 * 32
