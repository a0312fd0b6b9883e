"""The local engine against plain model.generate in input order, at the same batch size: seconds, tokens/s, what is computed in vain.

    python -m tests.bench.generate [--lengths FILE --tokenizer FOLDER] [--prompts 500] [--batch-size 32]
    python -m tests.bench.generate --gpu            # Qwen2.5-7B's shape in bfloat16: tokens/s of both

500 prompts whose lengths and whose texts' lengths are those of real questions and chain-of-thought answers (FILE: JSONL with
question and response; default: answers of Qwen2.5-Math to MATH problems where they are at hand, else lognormal ones of the
same median and spread). What is generated is real work of a real Qwen2 with random weights, made to count down: the embeddings
are independent normal, what the layers add is small, and the output row of word k - 1 is the embedding of word k. A prompt
that ends in the word n17 is then answered with n16 ... n0 and the end token, by both engines, which is checked.
On a CPU seconds are CPU seconds of one thread, so that what else the machine does is no part of them.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from common.generate.local import Local
from common.generate.requests import Request, Sampling, Task

SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL = SHARED / "responses" / "qwen25math_math100.jsonl"
LONGEST = 2112  # tokens of a text at most
SMALL = dict(
    vocab_size=LONGEST + 8,
    hidden_size=256,
    intermediate_size=1024,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=1,
)
SEVEN_B = dict(
    vocab_size=152_064,
    hidden_size=3584,
    intermediate_size=18_944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
)


def lengths(file, tokenizer, n):
    """-> n pairs (tokens of the prompt, tokens of the text), and where they come from."""
    if file and not Path(tokenizer).is_dir():
        raise SystemExit(f"no tokenizer at {tokenizer} to measure {file} with: --tokenizer FOLDER")
    if file:
        words = AutoTokenizer.from_pretrained(tokenizer)
        rows = [json.loads(line) for line in open(file, encoding="utf-8")]
        pairs = [
            (len(words(r["question"]).input_ids) + 30, len(words(r["response"]).input_ids) + 1)
            for r in rows
            if r["response"]
        ]
        picked = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:n].tolist()
        return [
            (p, min(t, LONGEST)) for p, t in (pairs[i] for i in picked)
        ], f"{Path(file).name}, 30 tokens of template added to a prompt"
    g = torch.Generator().manual_seed(0)
    draw = lambda median, sigma, most: (
        (median * torch.randn(n, generator=g).mul(sigma).exp()).clamp(12, most).int().tolist()
    )
    return list(
        zip(draw(75, 0.6, 600), draw(346, 0.5, LONGEST))
    ), "lognormal, median 75 and 346 tokens (no file of real ones)"


def counting(shape, device, dtype):
    """A random Qwen2 that counts down, and its tokenizer: words n0 n1 ..., a filler word and the end token."""
    torch.manual_seed(0)
    words = {f"n{k}": k for k in range(LONGEST)} | {"word": LONGEST, "<end>": LONGEST + 1}
    tokenizer = Tokenizer(WordLevel(words, unk_token="word"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    config = Qwen2Config(
        **shape,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=LONGEST + 1,
        pad_token_id=LONGEST + 1,
        initializer_range=0.01,
    )
    with torch.device(device):
        model = Qwen2ForCausalLM._from_config(config, dtype=dtype)
    with torch.no_grad():
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        head.zero_()
        for start in range(0, len(embedding), 16_384):
            embedding[start : start + 16_384].normal_()
        for layer in (
            model.model.layers
        ):  # what they add is a few per cent of an embedding, however wide they are
            for out in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                out.mul_(0.1)
        head[: LONGEST - 1] = embedding[1:LONGEST]
        head[LONGEST + 1] = embedding[0]
    return model.eval(), PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", padding_side="left"
    )


clock = time.perf_counter if "--gpu" in sys.argv else time.process_time


class Meter:
    """Counts what passes through a model: seconds in its forward (of a CPU; a GPU works on), slots of prompts, row-steps of texts."""

    def __init__(self, model):
        self.seconds = self.prompt_slots = self.steps = self.row_steps = 0
        self.forward, model.forward = model.forward, self

    def __call__(self, *arguments, **named):
        began, rows = clock(), named["input_ids"].shape
        out = self.forward(*arguments, **named)
        self.seconds += clock() - began
        if rows[1] > 1:
            self.prompt_slots += rows.numel()
        else:
            self.steps, self.row_steps = self.steps + 1, self.row_steps + rows[0]
        return out


def by_generate(model, tokenizer, prompts, batch_size):
    """Static batches in input order. -> texts"""
    texts = []
    for at in range(0, len(prompts), batch_size):
        inputs = tokenizer(prompts[at : at + batch_size], return_tensors="pt", padding=True).to(
            model.device
        )
        inputs.pop("token_type_ids", None)
        out = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
        texts += tokenizer.batch_decode(
            out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True
        )
    return texts


def by_engine(engine, prompts):
    tasks, found = (
        [
            Task(Request(prompt, sample=n), Sampling(max_new_tokens=LONGEST), "bench")
            for n, prompt in enumerate(prompts)
        ],
        {},
    )
    engine.generate(tasks, lambda task, answer: found.update({task.key: answer["text"]}))
    return [found[task.key] for task in tasks]


def timed(model, function, *arguments):
    plain = model.forward
    meter, began = Meter(model), clock()
    texts = function(*arguments)  # both hand over texts: nothing is left on the device
    meter.total, model.forward = clock() - began, plain
    return texts, meter


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lengths", default=REAL if REAL.exists() else None)
    parser.add_argument(
        "--tokenizer", default=SHARED / "tokenizers" / "qwen2.5-math", help="folder; with --lengths"
    )
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=0, help="default: 32, with --gpu 64")
    parser.add_argument("--gpu", action="store_true")
    config = parser.parse_args()
    torch.set_num_threads(1)
    batch_size = config.batch_size or (64 if config.gpu else 32)
    pairs, source = lengths(config.lengths, config.tokenizer, config.prompts)
    if config.gpu:  # half of each text, and static batches for every fourth batch only: an eager 7B step takes some 25 ms
        pairs, source = [(p, max(t // 2, 1)) for p, t in pairs], source + ", texts half as long"
    device, dtype = ("cuda:0", torch.bfloat16) if config.gpu else ("cpu", torch.float32)
    model, tokenizer = counting(SEVEN_B if config.gpu else SMALL, device, dtype)
    prompts = ["word " * (p - 1) + f"n{t - 1}" for p, t in pairs]
    expected = [" ".join(f"n{k}" for k in range(t - 2, -1, -1)) for _, t in pairs]
    print(
        f"{len(pairs)} prompts of {sum(p for p, _ in pairs):,} tokens, texts of {sum(t for _, t in pairs):,} "
        f"(longest {max(t for _, t in pairs)}); {source}\n"
        f"model: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters, {dtype}, {device}"
        f"{' ' + torch.cuda.get_device_name() if config.gpu else ', one thread'}; batch size {batch_size}",
        flush=True,
    )
    folder = (
        tempfile.TemporaryDirectory()
    )  # the engine reads configuration and tokenizer there; the weights it is given
    model.config.save_pretrained(folder.name)
    tokenizer.save_pretrained(folder.name)
    (Path(folder.name) / "none.safetensors").touch()
    engine = Local(folder.name, batch_size, processes=1)
    engine.model = model
    picked = range(len(pairs))
    if config.gpu:
        picked = [n for n in picked if n // batch_size % 4 == 0]
    by_engine(engine, ["n9", "n20"])  # warm
    by_generate(model, tokenizer, ["n9", "n20"], 2)
    mine, ours = timed(model, by_engine, engine, prompts)
    theirs, plain = timed(
        model, by_generate, model, tokenizer, [prompts[n] for n in picked], batch_size
    )
    print(
        f"texts: {sum(a == b for a, b in zip(mine, expected))} of {len(mine)} of the engine's and "
        f"{sum(theirs[i] == expected[n] for i, n in enumerate(picked))} of {len(theirs)} of generate's are the countdown asked for"
    )
    print(
        "\n| | texts | tokens | seconds | tokens/s | outside forward | steps | row-steps | in vain | prompt slots | padding |"
    )
    print("|---|" + "---:|" * 10)
    rate = {}
    for name, meter, which in (
        ("engine", ours, range(len(pairs))),
        ("model.generate", plain, picked),
    ):
        tokens, asked = sum(pairs[n][1] for n in which), sum(pairs[n][0] for n in which)
        rate[name], needed = (
            tokens / meter.total,
            tokens - len(which),
        )  # the prompt's forward gives the first token
        print(
            f"| {name} | {len(which)} | {tokens:,} | {meter.total:.1f} | {rate[name]:,.0f} | "
            f"{'-' if config.gpu else f'{1 - meter.seconds / meter.total:.1%}'} | {meter.steps:,} | {meter.row_steps:,} | "
            f"{1 - needed / meter.row_steps:.0%} | {meter.prompt_slots:,} | {1 - asked / meter.prompt_slots:.0%} |"
        )
    print(f"\nratio: {rate['engine'] / rate['model.generate']:.2f}x the tokens per second.")
    print(
        f"Where the rest goes: the engine's steps have {ours.row_steps / ours.steps:.1f} rows of {batch_size} on average, because at the "
        "end of each chunk the last, longest texts are left alone; their steps are cheap on a CPU, less so on a GPU."
    )
    if mine != expected or theirs != [expected[n] for n in picked]:
        raise SystemExit("the texts differ")


if __name__ == "__main__":
    main()
