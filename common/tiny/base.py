"""The tiny base model: a Qwen2 of 0.2 M parameters and a tokenizer of whole words.

Both are written in the form of any Hugging Face folder.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from tqdm import tqdm
from transformers import AddedToken, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer, set_seed

from common import grading
from common.core import prompts
from common.core.errors import InputError
from common.core.files import write_atomic
from common.generate.local import Local
from common.generate.requests import Request, Sampling, Task
from common.tiny import world
from common.train import checkpoints, tokens
from common.train.distributed import init_distributed
from common.train.loop import adamw, training_steps
from common.train.model import load

BATCH = 16  # documents per pretraining step
# Made by `python 01_sample.py --pretrain`. Whoever starts from it has the base of the README, on
# every CPU, and does not wait for it.
SHIPPED = Path(__file__).with_name("shipped_base")
PASSED = 0.3  # accuracy of a base that has passed its phase transition

# A fixed phrase is one token, which keeps rows short. A number is one token (" 17"), so
# arithmetic is a lookup to learn.
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


def build_tokenizer() -> Qwen2Tokenizer:
    """Return Qwen2's tokenizer over the 256 bytes, no merges, each word of the world one token.

    A word carries the white space before it, so decoding gives the text back byte for byte. Text
    from outside the world falls apart into bytes. It has Qwen2's own class, because AutoTokenizer
    gives a Qwen2 model no other.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(
        vocab={character: i for i, character in enumerate(alphabet)},
        merges=[],
        chat_template=prompts.JINJA["chatml"],
        model_max_length=512,
    )
    for text in ("<|endoftext|>", "<|im_end|>"):
        tokenizer.add_tokens(AddedToken(text, special=True, normalized=False))
    for text in PHRASES + WORDS:
        tokenizer.add_tokens(AddedToken(text, normalized=False))
    return tokenizer


def write_untrained(folder: Path, seed: int) -> None:
    """Write a randomly initialized base with its tokenizer into `folder`."""
    tokenizer = build_tokenizer()
    end = tokenizer.get_vocab()["<|endoftext|>"]
    set_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=192,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        eos_token_id=end,
        pad_token_id=end,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def provide(
    folder: Path, seed: int, steps: int, gappy_share: float = 0.0, pretrain: bool = False
) -> float:
    """Make the tiny base in `folder` unless it exists; return its accuracy on 200 new questions.

    The shipped one is copied if it was made with these settings and `pretrain` is not set. Others
    are trained on whole documents of the web, loss on what follows the prompt, through the loop of
    04. Copying and arithmetic click together at some step (loss 0.35 -> 0.1). A base from before
    that is useless, so it is then trained on.
    """
    settings = {"seed": seed, "steps": steps, "gappy_share": gappy_share}
    if (folder / "base.json").exists():
        record = json.loads((folder / "base.json").read_text())
        if not settings.items() <= record.items():
            raise InputError(
                f"{folder} was made with {record}, this command says {settings}.\n"
                "A run has one base: use another --name."
            )
        return record["accuracy"]
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shipped = json.loads((SHIPPED / "base.json").read_text())
    if settings.items() <= shipped.items() and not pretrain:
        shutil.copytree(SHIPPED, part)
        os.replace(part, folder)
        return shipped["accuracy"]
    write_untrained(part, seed)
    documents = world.web_documents(seed, steps * BATCH, gappy_share)
    accuracy = _fit(part, documents, seed)
    rounds = 0
    while accuracy < PASSED and rounds < 3:
        rounds += 1
        print(f"the base solves {accuracy:.1%}: before its phase transition, so 500 more steps")
        documents = world.web_documents(f"{seed} {rounds}", 500 * BATCH, gappy_share)
        accuracy = _fit(part, documents, seed)
    record = settings | {"accuracy": accuracy, "extra_steps": 500 * rounds}
    write_atomic(part / "base.json", json.dumps(record))
    os.replace(part, folder)
    return accuracy


def _fit(folder, documents, seed):
    """Train the model in `folder` on the documents; return its accuracy."""
    _, _, device = init_distributed()
    tokenizer = build_tokenizer()
    rows, _ = tokens.examples(documents, tokenizer, "chatml", cutoff=512)
    lengths = [len(row["input_ids"]) for row in rows]
    plan = tokens.batch_plan(lengths, BATCH, 1, seed, 1, tokens_per_microbatch=1024)
    model = load(folder, device)
    optimizer = adamw(model, weight_decay=0.01, betas=(0.9, 0.98))
    steps = training_steps(model, optimizer, rows, plan, peak=4e-3, warmup_ratio=0.04)
    for _ in tqdm(steps, total=len(plan), desc="pretraining the base", unit="step"):
        pass
    checkpoints.save(model, tokenizer, "chatml", folder, torch.float32)
    return _accuracy(folder, seed)


def _accuracy(folder, seed):
    """Return the greedy accuracy on 200 forum questions, neither of the web nor of the test."""
    sampling = Sampling(0.0, 1.0, 96, prompts.STOP)
    golds, correct = {}, []
    for problem in world.problems("train", seed, 200):
        request = Request(prompts.solve_prompt(problem.question, "chatml"))
        golds[Task(request, sampling, "base")] = world.gold(problem)

    def deliver(task, answer):
        correct.append(grading.is_correct(answer["text"], golds[task]))

    Local(folder, batch_size=200).generate(golds, deliver)
    return sum(correct) / len(correct)
