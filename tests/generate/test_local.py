"""The local engine: refilled batches against one prompt at a time, architectures, processes, adapters, 4 bits, limits."""

import json
import os
import shutil
import signal
import threading

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
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
from common.generate.local import Local
from common.generate.pool import Pool, Worker, _end
from common.generate.requests import Request, Sampling, Task, complete, cut_at_stop
from common.tiny import world
from common.tiny.base import build_tokenizer
from common.train import adapters

WORDS = build_tokenizer()
PROMPTS = [
    " ".join([p.question] * (1 + n % 3))[n % 40 :]
    for n, p in enumerate(world.problems("train", 0, 64))
]  # 25 to 150 tokens
SMALL = dict(
    vocab_size=len(WORDS),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=64,
    max_position_embeddings=512,
    initializer_range=0.2,
    bos_token_id=None,
    eos_token_id=WORDS.eos_token_id,
    pad_token_id=WORDS.pad_token_id,
)
GPT2 = {
    k: SMALL[k]
    for k in ("vocab_size", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id")
}
CONFIGS = {
    "gpt2": GPT2Config(**GPT2, n_embd=32, n_layer=2, n_head=4, n_positions=512),
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
}


def made(config, folder):
    """A random model with the tiny base's tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    WORDS.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made(CONFIGS["qwen2"], tmp_path_factory.mktemp("random") / "qwen2")


def answers(engine, prompts, sampling, samples=1):
    """-> what the engine answers to each sample of each prompt, in their order, without the batch size that each of them names."""
    tasks = [Task(Request(p, sample=k), sampling, "any") for p in prompts for k in range(samples)]
    found = {}
    engine.generate(tasks, lambda task, answer: found.update({task.key: answer}))
    assert all(
        "error" in answer or answer["batch_size"] == engine.batch_size for answer in found.values()
    )
    return [
        {key: value for key, value in found[task.key].items() if key != "batch_size"}
        for task in tasks
    ]


def oracle(model, prompt, sampling):
    """One prompt alone by model.generate, its tokens then read one by one: the definition of what an answer is."""
    ids = WORDS(prompt, return_tensors="pt").input_ids
    new = model.generate(
        ids,
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        eos_token_id=WORDS.eos_token_id,
    )
    new = new[0, ids.shape[1] :].tolist()
    for n, token in enumerate(new, 1):
        text, stopped = cut_at_stop(WORDS.decode(new[:n], skip_special_tokens=True), sampling.stop)
        if stopped or token == WORDS.eos_token_id:
            break
    return {
        "text": text,
        "finish_reason": "stop" if stopped or token == WORDS.eos_token_id else "length",
        "usage": {"prompt_tokens": ids.shape[1], "completion_tokens": n},
    }


# --- the same texts, whatever shares a batch ------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_refilled_batches_give_the_texts_of_each_prompt_alone(name, tmp_path):
    """Float32. The stop strings are bits of the texts themselves, so that rows end at many different tokens and others follow."""
    engine = Local(made(CONFIGS[name], tmp_path), batch_size=4)
    prompts = PROMPTS if name == "qwen2" else PROMPTS[:24]
    whole = [
        oracle(engine.model, prompt, Sampling(max_new_tokens=40))["text"] for prompt in prompts
    ]
    stops = [text[at : at + 3] for text, at in zip(whole[::3], range(3, 99, 7))]
    stops = [
        stop for stop in stops if stop.strip() and "\ufffd" not in stop
    ]  # half a character is no text yet
    sampling = Sampling(max_new_tokens=40, stop=stops)
    expected = [oracle(engine.model, prompt, sampling) for prompt in prompts]
    assert (
        len({e["usage"]["completion_tokens"] for e in expected}) >= 6
        and len({e["usage"]["prompt_tokens"] for e in expected}) >= 10
    )
    assert answers(engine, prompts, sampling) == expected


def test_one_chunk_of_all_prompts_is_refilled_many_times(folder, monkeypatch):
    """64 prompts through 4 places: the same texts as in chunks of 8, and as one by one; fewer rows are computed than in static batches."""
    engine, rows, reads = Local(folder, batch_size=4), [], []
    limits = [1 + 13 * n % 40 for n in range(64)]
    forward, read = Decoder._forward, Decoder._read
    monkeypatch.setattr(
        Decoder,
        "_forward",
        lambda self, ids, *more: rows.append(len(ids)) or forward(self, ids, *more),
    )
    monkeypatch.setattr(
        Decoder, "_read", lambda self, fresh: reads.append(len(fresh)) or read(self, fresh)
    )
    found = dict(engine.texts(PROMPTS, ["0"] * 64, limits, vars(Sampling())))
    assert [found[n] for n in range(64)] == [
        oracle(engine.model, p, Sampling(max_new_tokens=m)) for p, m in zip(PROMPTS, limits)
    ]
    assert sum(reads) == 64 and len(reads) > 20 and max(rows) == 4
    order = sorted(range(64), key=lambda n: -len(WORDS(PROMPTS[n]).input_ids))
    static = sum(4 * max(limits[n] for n in order[at : at + 4]) for at in range(0, 64, 4))
    assert sum(limits) <= sum(rows) < 0.85 * static


def test_sampling_is_the_inverse_of_the_cumulated_probabilities(folder):
    """Oracle: one prompt at a time without a cache, all of the row's random numbers drawn at once, top-p by hand."""
    sampling = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=21, seed=1)
    engine = Local(folder, batch_size=3)
    got = answers(engine, PROMPTS[:8], sampling)
    for prompt, answer in zip(PROMPTS, got):
        key = Task(Request(prompt), sampling, "any").key
        uniforms = torch.rand(
            21, generator=torch.Generator().manual_seed(int(key[:15], 16)), dtype=torch.double
        )
        ids, n = WORDS(prompt).input_ids, len(WORDS(prompt).input_ids)
        for u in uniforms:
            p = torch.softmax(engine.model(torch.tensor([ids])).logits[0, -1].double() / 0.8, -1)
            order = p.argsort(descending=True)
            p[order[int((p[order].cumsum(0) < 0.9).sum()) + 1 :]] = 0
            ids.append(int((p.cumsum(0) <= u * p.sum()).sum()))
            if ids[-1] == WORDS.eos_token_id:
                break
        assert (
            answer["text"] == WORDS.decode(ids[n:], skip_special_tokens=True)
            and answer["usage"]["completion_tokens"] == len(ids) - n
        )
    assert answers(Local(folder, exact=True), PROMPTS[:8], sampling) == got


def test_an_end_token_is_counted_and_not_shown(folder, tmp_path):
    """A token of the first text becomes an end token, by the folder's generation_config.json: each text that holds it ends before
    it, and counts it. Oracle: model.generate with these end tokens."""
    shutil.copytree(folder, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(folder)

    def alone(prompt, ends):
        ids = torch.tensor([WORDS(prompt).input_ids])
        return plain.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=ends)[
            0, ids.shape[1] :
        ].tolist()

    ends = [WORDS.eos_token_id, alone(PROMPTS[0], WORDS.eos_token_id)[3]]
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    expected = [alone(prompt, ends) for prompt in PROMPTS[:16]]
    got = answers(
        Local(tmp_path / "model", batch_size=4), PROMPTS[:16], Sampling(max_new_tokens=24)
    )
    assert [a["usage"]["completion_tokens"] for a in got] == [len(ids) for ids in expected]
    assert [a["finish_reason"] for a in got] == [
        "stop" if ids[-1] in ends else "length" for ids in expected
    ]
    assert [a["text"] for a in got] == [
        WORDS.decode(ids[:-1] if ids[-1] in ends else ids, skip_special_tokens=True)
        for ids in expected
    ]
    assert got[0]["finish_reason"] == "stop" and got[0]["usage"]["completion_tokens"] <= 4


# --- processes ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(folder):
    engine = Local(folder, batch_size=4, processes=2)
    yield engine
    if engine.pool:
        _end(engine.pool.workers)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_two_processes_give_what_one_gives(folder, two, temperature):
    """And deliver is called by this thread alone."""
    sampling, threads = Sampling(temperature, max_new_tokens=24, stop=["zz"]), set()
    expected = answers(Local(folder, batch_size=4), PROMPTS, sampling)
    tasks, found = [Task(Request(p), sampling, "any") for p in PROMPTS], {}
    two.generate(
        tasks,
        lambda task, answer: (threads.add(threading.get_ident()), found.update({task.key: answer})),
    )
    got = [{k: v for k, v in found[task.key].items() if k != "batch_size"} for task in tasks]
    assert got == expected and threads == {threading.get_ident()}
    assert len(two.pool.workers) == 2 and "model" not in vars(
        two
    )  # this process has loaded nothing


def test_a_process_that_dies_is_reported_and_the_same_command_goes_on(
    folder, two, tmp_path, monkeypatch
):
    requests, sampling = [Request(p) for p in PROMPTS], Sampling(max_new_tokens=24)
    with Journal(tmp_path / "whole.jsonl") as journal:
        whole = complete(Local(folder, batch_size=4), requests, sampling, journal)
    texts = lambda records: [(r["key"], r["text"], r["usage"]) for r in records]
    status, seen = two.status, []

    def status_that_kills():  # it is asked for after each answer
        seen.append(0)
        if len(seen) == 9:
            os.kill(two.pool.workers[0].process.pid, signal.SIGKILL)
        return ""

    monkeypatch.setattr(two, "status", status_that_kills)
    with Journal(tmp_path / "two.jsonl") as journal:
        with pytest.raises(
            Stopped, match="has ended .status -9.(.|\n)*same command goes on"
        ) as end:
            complete(two, requests, sampling, journal)
        kept = len(journal.records)
        assert end.value.status == 4 and 9 <= kept < 64 and two.pool.workers == []
        monkeypatch.setattr(two, "status", status)
        assert (
            texts(complete(two, requests, sampling, journal)) == texts(whole)
            and len(journal.records) == 64
        )


def test_an_interrupt_ends_the_processes_and_keeps_what_was_delivered(two):
    delivered = []

    def deliver(task, answer):
        delivered.append(task)
        if len(delivered) == 3:
            raise KeyboardInterrupt

    tasks = [Task(Request(p), Sampling(max_new_tokens=24), "any") for p in PROMPTS[:16]]
    with pytest.raises(KeyboardInterrupt):
        two.generate(tasks, deliver)
    assert len(delivered) == 3 and two.pool.workers == []


def test_a_process_ends_when_its_parent_has_gone(folder):
    """In the middle of a chunk that would take minutes. And what goes wrong in it comes back in words."""
    settings = {
        "model": str(folder),
        "exact": False,
        "load_in_4bit": False,
        "processes": 1,
        "threads": 1,
        "device": "cpu",
    }
    chunk = {
        "prompts": ["How?", "zz"],
        "keys": ["0", "1"],
        "limits": [400, 1],
        "sampling": vars(Sampling()),
        "batch_size": 1,
    }
    worker = Worker(settings)
    worker.process.stdin.write("\n".join(map(json.dumps, [settings, *[chunk] * 99])) + "\n")
    worker.process.stdin.flush()
    assert json.loads(worker.process.stdout.readline())[1]["usage"]["completion_tokens"] > 0
    worker.process.stdin.close()
    assert worker.process.wait(10) == 0
    with pytest.raises(InputError, match="there is no model folder"):
        next(Pool([settings | {"model": "runs/nowhere"}]).texts([chunk]))


def test_an_engine_that_is_closed_gives_up_its_weights_and_loads_them_again(folder, two):
    engine, sampling = Local(folder, batch_size=4), Sampling(max_new_tokens=4)
    first = answers(engine, PROMPTS[:3], sampling)
    engine.close()
    assert "model" not in vars(engine) and answers(engine, PROMPTS[:3], sampling) == first
    answers(two, PROMPTS, sampling)
    processes = [worker.process for worker in two.pool.workers]
    two.close()
    assert (
        len(processes) == 2 and all(process.wait(10) for process in processes) and two.pool is None
    )


def test_a_lone_surrogate_is_a_question_mark(folder):
    assert answers(Local(folder), ["How \ud800?"], Sampling(max_new_tokens=2)) == answers(
        Local(folder), ["How ??"], Sampling(max_new_tokens=2)
    )


def test_torchrun_is_refused(folder, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="not with torchrun"):
        Local(folder)


# --- what is loaded, and when ---------------------------------------------------------------------------------------


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
            "load_in_4bit": False,
            "exact": False,
            "processes": 1,
            "device": "cpu",
            "adapter_of": None,
        }
        (tmp_path / "model" / "model.safetensors").unlink()
        assert (
            complete(engine, requests, sampling, journal) == first
            and engine.tokenizer("zz").input_ids
        )
        with pytest.raises(InputError, match="cannot be loaded"):
            complete(engine, [Request("another")], sampling, journal)


def test_weights_that_are_not_there_are_not_made_up(folder, adapter, tmp_path):
    """transformers fills them with random numbers, and peft with zeros; both only warn."""
    shutil.copytree(folder, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lack 1 of the model's weights.*up_proj"):
        Local(tmp_path / "model").model
    weights = load_file(adapter / "adapter_model.safetensors")
    del weights[next(name for name in weights if "up_proj" in name)]
    save_file(
        weights, _with(adapter, tmp_path / "lora") / "adapter_model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match="missing adapter keys.*up_proj"):
        Local(tmp_path / "lora").model


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


def test_an_adapter_gives_the_texts_of_the_merged_model(folder, adapter, tmp_path):
    adapters.merge(
        _with(adapter, tmp_path / "lora", WORDS, GenerationConfig(eos_token_id=WORDS.eos_token_id)),
        folder,
        torch.float32,
    )
    sampling = Sampling(max_new_tokens=16)
    engine, merged = Local(adapter, batch_size=4), Local(tmp_path / "lora" / "merged", batch_size=4)
    got = answers(engine, PROMPTS[:12], sampling)
    assert (
        got
        == answers(merged, PROMPTS[:12], sampling)
        != answers(Local(folder, batch_size=4), PROMPTS[:12], sampling)
    )
    assert (
        engine.settings["adapter_of"] == str(folder)
        and engine.tokenizer.get_vocab() == WORDS.get_vocab()
    )  # it has none of its own


def _with(adapter, folder, *parts):
    shutil.copytree(adapter, folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def test_other_weights_and_other_arithmetic_have_another_identity(folder, adapter, tmp_path):
    """An adapter's base counts, also where it stands under the same name."""
    shutil.copytree(folder, tmp_path / "base")
    moved = _with(adapter, tmp_path / "lora")
    stated = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(
        json.dumps(stated | {"base_model_name_or_path": str(tmp_path / "base")})
    )
    names = [
        Local(folder).identity,
        Local(folder, load_in_4bit=True).identity,
        Local(adapter).identity,
        Local(moved).identity,
        Local(moved, load_in_4bit=True).identity,
    ]
    engine = Local(folder)
    engine.dtype = torch.bfloat16
    made(CONFIGS["qwen2"], tmp_path / "base")
    (tmp_path / "base" / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert (
        len({*names, engine.identity, Local(moved).identity, Local(folder, exact=True).identity})
        == 8
    )
    assert Local(folder, batch_size=3).identity == names[0] == model_id(folder)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(
        InputError,
        match="is an adapter of '.*base', which cannot be found(.|\n)*base_model_name_or_path in .*--merge",
    ):
        Local(moved)


@pytest.mark.parametrize("what", ["model", "adapter"])
def test_a_base_in_4_bits_is_what_transformers_makes_of_it(folder, adapter, what):
    """Oracle: the same base quantised by hand through transformers, without the engine; the rounding moves the texts."""
    engine = Local(folder if what == "model" else adapter, batch_size=4, load_in_4bit=True)
    assert "Linear4bit" in {type(m).__name__ for m in engine.model.modules()}
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    plain = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=nf4, dtype=torch.float32, device_map={"": "cpu"}
    )
    for module in plain.modules():
        module.support_avx512bf16_for_cpu = False
    if what == "adapter":
        plain.load_adapter(str(adapter))
    sampling = Sampling(max_new_tokens=12)
    got = answers(engine, PROMPTS[:6], sampling)
    assert got == [oracle(plain, p, sampling) for p in PROMPTS[:6]]
    assert got != answers(Local(folder), PROMPTS[:6], sampling)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_is_a_failed_row_and_a_text_ends_at_the_models_length(
    folder, tmp_path
):
    """512 positions: of 511 tokens one is left for the text; GPT-2 has no 513th position at all, so running on would crash."""
    zz = lambda n: "z" * n  # a token each
    for engine in (
        Local(folder, batch_size=2),
        Local(made(CONFIGS["gpt2"], tmp_path), batch_size=2),
    ):
        engine._end_tokens = lambda stop: set()
        got = answers(
            engine, [zz(600), zz(511), "How?", zz(512), zz(500), ""], Sampling(max_new_tokens=40)
        )
        assert [got[n]["error"] for n in (0, 3, 5)] == [
            f"the prompt has {n} tokens, the model reads 1 to 511" for n in (600, 512, 0)
        ]
        assert [got[n]["usage"]["completion_tokens"] for n in (1, 2, 4)] == [1, 40, 12]
        assert {got[n]["finish_reason"] for n in (1, 2, 4)} == {"length"}


def test_a_prompt_that_begins_with_the_begin_token_gets_no_second_one(folder):
    engine = Local(folder)
    words = Tokenizer(WordLevel({"<s>": 0, "a": 1, "b": 2}, unk_token="b"))
    engine.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    engine.tokenizer.backend_tokenizer.pre_tokenizer = Whitespace()
    engine.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    assert engine.tokenizer("<s> a").input_ids == [0, 0, 1]  # what the tokenizer itself does
    decoder = Decoder(None, engine.tokenizer, Sampling(), [], 512, 1)
    assert decoder._prompt_ids(["<s> a", "a b", "<s>"]) == [[0, 1], [0, 1, 2], [0]]
    assert [
        a["usage"]["prompt_tokens"]
        for a in answers(engine, ["<s> a", "a b"], Sampling(max_new_tokens=1))
    ] == [2, 3]


def test_too_little_memory_says_what_to_change(folder, monkeypatch):
    def full(*unused):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(Decoder, "_read", full)
    with pytest.raises(Stopped, match="smaller --batch-size") as end:
        answers(Local(folder), PROMPTS[:2], Sampling())
    assert end.value.status == 4


def test_chunks_spread_over_a_node_and_hold_a_few_batches_at_most(folder):
    """500 prompts at 32: 8 chunks of 62 or 63; 10,000: 40 of 250, so that a kill costs 8 batches at most; 20: one chunk."""
    for n, batch, expected in (
        (500, 32, 8),
        (500, 64, 4),
        (10_000, 32, 40),
        (20, 32, 1),
        (20, 1, 7),
        (0, 4, 0),
    ):
        engine, sizes = Local(folder, batch_size=batch), []
        engine.texts = lambda **chunk: sizes.append(len(chunk["keys"])) or []
        engine.generate([Task(Request(f"{k}"), Sampling(), "any") for k in range(n)], None)
        assert len(sizes) == expected and sum(sizes) == n and max(sizes, default=0) <= 8 * batch
