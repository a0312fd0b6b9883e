"""The local engine against plain model.generate in input order, at the same batch size.

    python -m tests.bench.generate [--lengths FILE --tokenizer FOLDER] [--prompts 500]
    python -m tests.bench.generate --gpu            # Qwen2.5-7B's shape in bfloat16

It prints seconds, tokens a second, and what is computed in vain. There are 500 prompts, whose
lengths and whose texts' lengths are those of real questions and chain-of-thought answers (FILE:
JSONL with question and response). The default are answers of Qwen2.5-Math to MATH problems, or
else lognormal lengths of the same median and spread.

The texts are real work of a real Qwen2 with random weights, made to count down. The embeddings are
independent normal, the layers add little, and the output row of word k - 1 is the embedding of
word k. So a prompt that ends in the word n17 is answered with n16 ... n0 and the end token, by both
engines, which is checked. On a CPU seconds are CPU seconds of one thread, so that what else the
machine does is no part of them.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from common.core.files import read_jsonl
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


def read_lengths(file, tokenizer, n):
    """Return n pairs (tokens of the prompt, tokens of the text), and where they come from."""
    generator = torch.Generator().manual_seed(0)
    if not file:

        def draw(median, sigma, maximum):
            normal = torch.randn(n, generator=generator)
            return (median * normal.mul(sigma).exp()).clamp(12, maximum).int().tolist()

        pairs = list(zip(draw(75, 0.6, 600), draw(346, 0.5, LONGEST)))
        return pairs, "lognormal, median 75 and 346 tokens (no file of real ones)"
    if not Path(tokenizer).is_dir():
        raise SystemExit(f"no tokenizer at {tokenizer} to measure {file} with: --tokenizer FOLDER")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    pairs = []
    for row in read_jsonl(file):
        if row["response"]:
            n_prompt = len(tokenizer(row["question"]).input_ids) + 30
            n_text = len(tokenizer(row["response"]).input_ids) + 1
            pairs.append((n_prompt, min(n_text, LONGEST)))
    order = torch.randperm(len(pairs), generator=generator)[:n].tolist()
    source = f"{Path(file).name}, 30 tokens of template added to a prompt"
    return [pairs[i] for i in order], source


def counting(shape, device, dtype):
    """Return a random Qwen2 that counts down, and its tokenizer.

    The words are n0 n1 ..., a filler word and the end token.
    """
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
        # They add a few per cent of an embedding, however wide they are.
        for layer in model.model.layers:
            for out in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                out.mul_(0.1)
        head[: LONGEST - 1] = embedding[1:LONGEST]
        head[LONGEST + 1] = embedding[0]
    return model.eval(), PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", padding_side="left"
    )


clock = time.perf_counter if "--gpu" in sys.argv else time.process_time


class Meter:
    """Counts what passes through a model.

    seconds: in its forward (on a CPU; a GPU works on); prompt_slots: tokens and padding of prompts;
    steps: forwards of one token for each row; row_steps: the rows of these.
    """

    def __init__(self, model):
        self.seconds = self.prompt_slots = self.steps = self.row_steps = 0
        self.forward, model.forward = model.forward, self

    def __call__(self, *arguments, **named):
        start = clock()
        n_rows, n_tokens = named["input_ids"].shape
        output = self.forward(*arguments, **named)
        self.seconds += clock() - start
        if n_tokens > 1:
            self.prompt_slots += n_rows * n_tokens
        else:
            self.steps += 1
            self.row_steps += n_rows
        return output


def by_generate(model, tokenizer, prompts, batch_size):
    """Return the texts of static batches in input order."""
    texts = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        inputs = tokenizer(batch, return_tensors="pt", padding=True).to(model.device)
        inputs.pop("token_type_ids", None)
        ids = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
        new_ids = ids[:, inputs.input_ids.shape[1] :]
        texts += tokenizer.batch_decode(new_ids, skip_special_tokens=True)
    return texts


def by_engine(engine, prompts):
    """Return the texts of the local engine."""
    sampling = Sampling(max_new_tokens=LONGEST)
    tasks = [Task(Request(prompt, sample=n), sampling, "bench") for n, prompt in enumerate(prompts)]
    texts = {}

    def deliver(task, answer):
        texts[task.key] = answer["text"]

    engine.generate(tasks, deliver)
    return [texts[task.key] for task in tasks]


def measure(model, function, *arguments):
    """Return the texts and a Meter; both engines hand over texts: nothing is left on the device."""
    forward = model.forward
    meter = Meter(model)
    start = clock()
    texts = function(*arguments)
    meter.total = clock() - start
    model.forward = forward
    return texts, meter


def format_row(name, pairs, meter, gpu):
    """Return a line of the table for the (prompt, text) lengths that an engine answered."""
    n_prompt_tokens = sum(prompt for prompt, _ in pairs)
    n_tokens = sum(text for _, text in pairs)
    n_needed = n_tokens - len(pairs)  # the prompt's forward gives the first token
    cells = [
        name,
        len(pairs),
        f"{n_tokens:,}",
        f"{meter.total:.1f}",
        f"{n_tokens / meter.total:,.0f}",
        "-" if gpu else f"{1 - meter.seconds / meter.total:.1%}",
        f"{meter.steps:,}",
        f"{meter.row_steps:,}",
        f"{1 - n_needed / meter.row_steps:.0%}",
        f"{meter.prompt_slots:,}",
        f"{1 - n_prompt_tokens / meter.prompt_slots:.0%}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lengths", default=REAL if REAL.exists() else None)
    parser.add_argument("--tokenizer", default=SHARED / "tokenizers" / "qwen2.5-math")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=0, help="default: 32, with --gpu 256")
    parser.add_argument("--gpu", action="store_true")
    config = parser.parse_args()
    torch.set_num_threads(1)
    batch_size = config.batch_size or (256 if config.gpu else 32)
    pairs, source = read_lengths(config.lengths, config.tokenizer, config.prompts)
    plain_numbers = range(len(pairs))
    device, dtype, shape = "cpu", torch.float32, SMALL
    if config.gpu:
        # An eager 7B step takes some 25 ms: half of each text, and every fourth static batch.
        device, dtype, shape = "cuda:0", torch.bfloat16, SEVEN_B
        pairs = [(prompt, max(text // 2, 1)) for prompt, text in pairs]
        plain_numbers = [n for n in plain_numbers if n // batch_size % 4 == 0]
        source += ", texts half as long"
    model, tokenizer = counting(shape, device, dtype)
    prompts = ["word " * (prompt - 1) + f"n{text - 1}" for prompt, text in pairs]
    expected = [" ".join(f"n{k}" for k in range(text - 2, -1, -1)) for _, text in pairs]
    print(
        f"{len(pairs)} prompts of {sum(prompt for prompt, _ in pairs):,} tokens, texts of "
        f"{sum(text for _, text in pairs):,} (longest {max(text for _, text in pairs)}); {source}\n"
        f"model: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters, {dtype}, "
        f"{torch.cuda.get_device_name() if config.gpu else 'CPU, one thread'}; "
        f"batch size {batch_size}",
        flush=True,
    )
    folder = tempfile.TemporaryDirectory()
    # The engine reads configuration and tokenizer there; the weights it is given.
    model.config.save_pretrained(folder.name)
    tokenizer.save_pretrained(folder.name)
    (Path(folder.name) / "none.safetensors").touch()
    engine = Local(folder.name, batch_size)
    engine.model = model
    by_engine(engine, ["n9", "n20"])  # warm
    by_generate(model, tokenizer, ["n9", "n20"], 2)
    texts, ours = measure(model, by_engine, engine, prompts)
    plain_prompts = [prompts[n] for n in plain_numbers]
    plain_texts, plain = measure(model, by_generate, model, tokenizer, plain_prompts, batch_size)
    print(
        "\n| | texts | tokens | seconds | tokens/s | outside forward | steps | row-steps |", end=""
    )
    print(" in vain | prompt slots | padding |\n|---|" + "---:|" * 10)
    plain_pairs = [pairs[n] for n in plain_numbers]
    print(format_row("engine", pairs, ours, config.gpu))
    print(format_row("model.generate", plain_pairs, plain, config.gpu))
    rate = sum(text for _, text in pairs) / ours.total
    plain_rate = sum(text for _, text in plain_pairs) / plain.total
    print(
        f"\nratio: {rate / plain_rate:.2f}x the tokens per second.\n"
        f"The engine's steps have {ours.row_steps / ours.steps:.1f} rows of {batch_size} on "
        "average: at the end of each chunk its longest texts are left alone."
    )
    if texts != expected or plain_texts != [expected[n] for n in plain_numbers]:
        raise SystemExit("the texts are not the countdowns that were asked for")


if __name__ == "__main__":
    main()
