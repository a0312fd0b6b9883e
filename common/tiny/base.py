"""The tiny base model: a Qwen2 of 0.2 M parameters and a tokenizer of whole words, both in the form of any HF folder."""

import json
import os
import shutil

import torch
from tokenizers import AddedToken, pre_tokenizers
from tqdm import tqdm
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer, set_seed

from common import grading
from common.core import prompts
from common.core.errors import InputError
from common.core.files import write_atomic
from common.generate.local import Local
from common.generate.requests import Request, Sampling, Task
from common.tiny import world
from common.train import checkpoints, tokens
from common.train.loop import adamw, training_steps
from common.train.model import init_distributed, load

BATCH = 16  # documents per pretraining step
PASSED = 0.3  # accuracy of a base that has passed its phase transition

# A fixed phrase is one token, which keeps rows short; a number is one token (" 17"), so arithmetic is a lookup to learn.
PHRASES = [
    "<|im_start|>system\n",
    "<|im_start|>user\n",
    "<|im_start|>assistant\n",
    prompts.SYSTEM,
    prompts.SOLVE_SYSTEM,
    prompts.SFT_INSTRUCTION + "\n",
    prompts.SFT_TEACHER_INSTRUCTION + "\n",
    prompts.CRITIQUE_INSTRUCTION + "\nQuestion:\n",
    "\n\nSolution:\n",
    "Critique:\n",
    "Check each line:",
    "Step by step:",
    "Start with",
    "\nThe answer is \\boxed{",
    "\n\nConclusion:",
    " [END]",
    " not shown",
]
WORDS = ["\n", " }", " +", " -", " *", " =", " right", " wrong", " not"]
WORDS += [f"\n({i})" for i in range(1, 5)] + [f" {n}" for n in range(world.LARGEST + 1)]


def build_tokenizer():
    """Qwen2's tokenizer over the 256 bytes and no merges, with every word of the world added as one token.

    A word carries the white space before it, so decoding gives the text back byte for byte; text from outside the
    world falls apart into bytes. Qwen2's own class, because AutoTokenizer gives a Qwen2 model no other.
    """
    words = Qwen2Tokenizer(
        vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))},
        merges=[],
        chat_template=prompts.JINJA["chatml"],
        model_max_length=512,
    )
    words.add_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<|endoftext|>", "<|im_end|>")]
    )
    words.add_tokens([AddedToken(t, normalized=False) for t in PHRASES + WORDS])
    return words


def write_untrained(folder, seed):
    """Write a randomly initialised base with its tokenizer into `folder`."""
    words = build_tokenizer()
    set_seed(seed)
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=192,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)


def pretrain(folder, seed, steps, gappy_share=0.0):
    """Make the tiny base in `folder` unless it stands there. -> its accuracy on 200 questions it has not seen.

    Whole documents of the web, loss on what follows the prompt, through the loop that 04 uses. Copying and arithmetic
    click together at some step (loss 0.35 -> 0.1); a base from before that is useless, so it is then trained on.
    """
    settings = {"seed": seed, "steps": steps, "gappy_share": gappy_share}
    made = folder / "base.json"
    if made.exists():
        stands = json.loads(made.read_text())
        if {k: stands[k] for k in settings} != settings:
            raise InputError(
                f"{folder} was made with {stands}, now {settings} is asked for.\n"
                f"A run has one base: use another --name, or delete {folder.parent}"
            )
        return stands["accuracy"]
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    write_untrained(part / "init", seed)
    _fit(
        part / "init",
        part / "base",
        world.web_documents(seed, steps * BATCH, gappy_share),
        seed,
        "pretraining the base",
    )
    accuracy, extra = _accuracy(part / "base", seed), 0
    while accuracy < PASSED and extra < 3:
        extra += 1
        print(
            f"the base solves {accuracy:.1%}: it has not passed its phase transition, so 500 more steps",
            flush=True,
        )
        more = world.web_documents(f"{seed} {extra}", 500 * BATCH, gappy_share)
        _fit(part / "base", part / "base", more, seed, "pretraining on")
        accuracy = _accuracy(part / "base", seed)
    write_atomic(
        part / "base" / "base.json",
        json.dumps(settings | {"accuracy": accuracy, "extra_steps": 500 * extra}),
    )
    os.replace(part / "base", folder)
    shutil.rmtree(part)
    return accuracy


def _fit(source, folder, documents, seed, label):
    """Train the model of `source` on the documents; the result goes to `folder`."""
    _, _, device = init_distributed()
    words = build_tokenizer()
    rows, _ = tokens.examples(documents, words, "chatml", cutoff=512)
    plan = tokens.batch_plan(
        [len(e["input_ids"]) for e in rows], BATCH, 1, seed, 1, tokens_per_microbatch=2048
    )
    model = load(source, device)
    optimizer = adamw(model, weight_decay=0.01, betas=(0.9, 0.98))
    for update in tqdm(
        training_steps(model, optimizer, rows, plan, peak=4e-3, warmup_ratio=0.04),
        total=len(plan),
        desc=label,
        unit="step",
    ):
        pass
    checkpoints.save(model, words, "chatml", folder, torch.float32)


def _accuracy(folder, seed, n=200):
    """Greedy accuracy on forum questions, which the web does not hold (the test questions are left alone)."""
    items, sampling = world.problems("train", seed, n), Sampling(0.0, 1.0, 96, prompts.STOP)
    asked = {
        Task(Request(prompts.solve_prompt(p.question, "chatml")), sampling, "base"): world.gold(p)
        for p in items
    }
    right = []
    Local(folder, batch_size=n).generate(
        asked, lambda task, answer: right.append(grading.is_correct(answer["text"], asked[task]))
    )
    return sum(right) / n
