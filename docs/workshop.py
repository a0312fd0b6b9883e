# %% [markdown]
"""
# Critique Fine-Tuning, one row at a time

You train a small language model to criticize wrong solutions, and find that it has learned to
solve. You follow one row by hand from question to training token, then let the five scripts do
the same with 1,600 rows, and read what went wrong.

You need the kit's folder and its environment (README), no key, no download, no GPU. All cells
together take about three minutes on two cores. **Predict before you run**: the cells that ask for
a guess are marked with a question mark.
"""

# %% Find the kit, and a word for running its scripts
import json
import os
import subprocess
import sys
import warnings
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import HTML, Image, Markdown, display

os.environ["TQDM_DISABLE"] = "1"
warnings.filterwarnings("ignore", message="IProgress")  # ipywidgets would draw progress bars
if not Path("01_sample.py").exists():  # the notebook lies in docs/
    os.chdir("..")
sys.path.insert(0, os.getcwd())
RUN = Path("runs/workshop")


# %%
def kit(command, *texts, last=6):
    """Run a script of the kit and show the last lines that it prints."""
    command = [sys.executable, *command.split(), *texts]
    done = subprocess.run(command, capture_output=True, text=True)
    print("\n".join(done.stdout.splitlines()[-last:]))
    if done.returncode:
        print(done.stderr[-2_000:])
        raise RuntimeError(f"status {done.returncode}")


def read(path):
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


# %% [markdown]
"""
## 1. One row by hand

A question of the micro-world, and a student's answer. All numbers lie between 0 and 29.

**? Is the answer right? If not, which line is the first wrong one?** Decide before you go on.
"""

# %%
question = "Start with 18\n(1) + 6\n(2) + 3\n(3) - 4"
response = (
    "Step by step:\n(1) 18 + 6 = 14\n(2) 14 + 3 = 17\n(3) 17 - 4 = 13\nThe answer is \\boxed{ 13 }"
)
print(question, response, sep="\n\n")

# %% [markdown]
"""
### What the teacher is asked

The prompt is the paper's, word for word. Note what it does *not* ask: to solve the question.
"""

# %%
from common.core import prompts

messages = prompts.teacher_critique_prompt(question, response)
print(messages[0]["content"])

# %% [markdown]
"""
### Write the critique yourself

Change the text below if you would say it in another way, but end it with a conclusion. The kit
reads the verdict from that conclusion by rule. A critique whose verdict it cannot read is never
trained on.
"""

# %%
from common.core.verdicts import parse_verdict

critique = """Check each line:
(1) 18 + 6 = 24 not 14
(2) 24 + 3 = 27 not 17
(3) 27 - 4 = 23 not 13

Conclusion: wrong [END]"""
print("verdict:", parse_verdict(critique))
print("and without its conclusion:", parse_verdict(critique.partition("\n\n")[0]))

# %%
COLORS = {"right": "#d8f0d8", "wrong": "#f8d8d8", "unparsed": "#eeeeee"}


def show_critique(text):
    """Show a critique on the colour of its verdict."""
    color = COLORS[parse_verdict(text)]
    display(HTML(f"<pre style='background:{color};padding:8px'>{escape(text)}</pre>"))


show_critique(critique)
show_critique("Check each line:\n(1) 18 + 6 = 24 right\n\nConclusion: right [END]")
show_critique("Well, I would say it is fine.")

# %% [markdown]
"""
### What each training set learns from this row

`sft` learns to write the student's answer, wrong as it is. `cft` reads that answer and learns to
write the critique. **This is the whole idea of the paper**: P(critique | question, answer) in
place of P(answer | question).
"""

# %%
from common.data.training_sets import BuildInputs, format_critique

sft_prompt = prompts.sft_row_prompt(question)
cft_prompt, cft_completion = format_critique(
    {"question": question, "response": response, "critique": critique}, BuildInputs()
)
for name, prompt, completion in [
    ("sft", sft_prompt, response),
    ("cft", cft_prompt, cft_completion),
]:
    print(f"=== {name} reads ===\n{prompt[-1]['content']}\n=== {name} learns ===\n{completion}\n")

# %% [markdown]
"""
## 2. 1,600 rows: the first three scripts

`01` takes questions and answers from a "forum" whose authors are sloppy: 80% of them forget the
carry and the borrow. It also unpacks the base, a model of 0.2 million parameters that was trained
on such texts.
"""

# %%
kit("01_sample.py --name workshop", last=14)

# %%
responses = read(RUN / "01_responses/tiny.jsonl")
print(len(responses), "rows; the fields of one:", ", ".join(responses[0]))
print(responses[1]["question"], responses[1]["response"], sep="\n\n")

# %% [markdown]
"""
`02` asks a teacher about each of them. Here the teacher is a rule set behind a real HTTP server
on this machine. With `--model NAME --base-url URL` the same script asks any server.

**? The forum is right in 57% of its answers. What share will the teacher call right?**
"""

# %%
kit("02_critique.py --name workshop --answers", last=5)

# %%
critiques = read(next((RUN / "02_critiques").glob("*.jsonl")))
for row in critiques[:2]:
    print(row["question"], row["response"], sep="\n\n")
    show_critique(row["critique"])

# %% [markdown]
"""
**See:** the critique follows the student's lines, and each line says the right value. A teacher's
*own answer* to the same question need not: ours leaves out a tenth of its lines. Keep that in
mind for the bar chart below.
"""

# %%
from collections import Counter

cases = Counter((row["correct"], row["verdict"]) for row in critiques)
table = [[cases[correct, verdict] for verdict in ("right", "wrong")] for correct in (True, False)]
figure, axes = plt.subplots(figsize=(3.2, 2.8))
axes.imshow(table, cmap="Blues")
for y, line in enumerate(table):
    for x, n in enumerate(line):
        axes.text(x, y, n, ha="center", va="center", color="orange", fontsize=14)
axes.set_xticks([0, 1], ["right", "wrong"])
axes.set_yticks([0, 1], ["right", "wrong"])
axes.set(xlabel="the teacher's verdict", ylabel="by the gold answer")
axes.set_title("Can the teacher be trusted?")
plt.show()

# %% [markdown]
"""
All 1,600 verdicts agree with the golds. That is a luxury: of 50 critiques by GPT-4o that the
paper's authors read, about a fifth had mistakes. `docs/workshop.md` has an exercise with a
careless teacher.

`03` makes the training sets: the same 800 questions for each, so that only the text differs.
"""

# %%
kit("03_build.py --name workshop", last=40)

# %% [markdown]
"""
## 3. Which tokens are learned

A language model learns by predicting the next token. In fine-tuning only the completion counts:
the prompt is read, its tokens have the label -100 and no loss. Below, what is learned is green.
"""

# %%
from common.core.tokenizer import encode_rows, load_tokenizer

tokenizer = load_tokenizer(RUN / "01_base")


def show_mask(row):
    """Show a training row with the tokens that are learned in green."""
    ((prompt_ids, completion_ids),) = encode_rows([row], tokenizer, "chatml")
    spans = []
    for ids, color in ((prompt_ids, "#eeeeee"), (completion_ids, "#bfe6bf")):
        for token in ids:
            text = escape(tokenizer.decode([token])).replace("\n", "&#9166;<br>")
            spans.append(f"<span style='background:{color};margin:1px'>{text}</span>")
    display(HTML(f"<div style='font-family:monospace;line-height:1.6'>{''.join(spans)}</div>"))
    print(f"{len(prompt_ids)} tokens are read, {len(completion_ids)} are learned")


# %%
show_mask(read(RUN / "03_data/sft.jsonl")[0])

# %%
show_mask(read(RUN / "03_data/cft.jsonl")[0])

# %% [markdown]
"""
**See:** in the green part of `cft` every calculation is right, whatever the student wrote. The
green part of `sft` is what the forum wrote. One more thing: at test time the model gets neither
prompt. It is asked to solve, and has never been trained on that in `cft`.

## 4. Training

**? Six models will be scored: the base, sft, sft-verified (only answers that the teacher calls
right), sft-teacher (the teacher's own answers), cft, cft-short. Write down their order.**
"""

# %%
kit("04_train.py --name workshop", last=6)

# %%
figure, axes = plt.subplots(figsize=(7, 3))
for name in ("sft", "sft-teacher", "cft"):
    steps = read(RUN / "04_train" / name / "metrics.jsonl")
    axes.plot([step["step"] for step in steps], [step["loss"] for step in steps], label=name)
axes.set(xlabel="step", ylabel="loss, nats a token", title="Training loss")
axes.legend()
plt.show()

# %% [markdown]
"""
**See:** the loss of `sft` starts low and stays there: the base has read such texts before. That of
`sft-teacher` is high and restless. Which line the teacher leaves out is chance, and chance cannot
be predicted. A low loss is no good model, and a high one no bad model: they predict different
texts.

### The loss of each token, before and after

The model reads the row that you wrote by hand. A high bar is a token that surprises it.
"""

# %%
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()


def token_losses(folder, row):
    """Return (tokens, loss of each in nats) of the completion, by a model."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    ((prompt_ids, completion_ids),) = encode_rows([row], tokenizer, "chatml")
    ids = torch.tensor([prompt_ids + completion_ids])
    with torch.no_grad():
        log_probabilities = model(ids).logits[0, :-1].log_softmax(-1)
    losses = -log_probabilities.gather(1, ids[0, 1:, None])[:, 0]
    tokens = [tokenizer.decode([token]) for token in completion_ids]
    return tokens, losses[len(prompt_ids) - 1 :].tolist()


# %%
row = {"prompt": cft_prompt, "completion": [{"role": "assistant", "content": cft_completion}]}
after = next((RUN / "04_train/cft").glob("step-*"))
figure, axes = plt.subplots(2, 1, figsize=(11, 4), sharex=True, sharey=True)
for panel, (name, folder) in zip(axes, [("base", RUN / "01_base"), ("cft", after)]):
    tokens, losses = token_losses(folder, row)
    panel.bar(range(len(losses)), losses, color="#c44e52" if name == "base" else "#4c72b0")
    panel.set_title(f"{name}: {sum(losses):.1f} nats in all", loc="left")
    panel.set_ylabel("nats")
axes[1].set_xticks(
    range(len(tokens)), [t.replace("\n", "⏎") for t in tokens], rotation=60, ha="right"
)
figure.tight_layout()
plt.show()

# %% [markdown]
"""
**See:** the base is surprised by *24*: it knows two ways of adding, and the web forgets the carry
more often than not. After training on critiques it expects the right one.

## 5. Scores

1,000 questions that nobody was trained on. Each model is asked to solve.
"""

# %%
kit("05_eval.py --name workshop", last=3)
display(Image(RUN / "05_results.png", width=560))

# %%
text = (RUN / "05_results.md").read_text(encoding="utf-8")
table = text.partition("## Scores\n")[2].partition("## ")[0]
display(Markdown(table))

# %% [markdown]
"""
Compare with the order that you wrote down. An interval says how far the score may move with
other questions. It says nothing about other seeds, and nothing about models of 7 billion
parameters: this is a designed miniature.

### What went wrong first

A bar chart says that a model is better, not why. For each wrong answer the first mistake has a
kind.
"""

# %%
from common.tiny.mistakes import KINDS, count_mistakes

models = ["base", "sft", "sft-verified", "sft-teacher", "cft-short", "cft"]
counts = {name: count_mistakes(read(RUN / f"05_eval/{name}/tiny.jsonl")) for name in models}
figure, axes = plt.subplots(figsize=(8, 3))
left = [0] * len(models)
for kind in (kind for kind in KINDS if any(counts[name][kind] for name in models)):
    widths = [counts[name][kind] for name in models]
    axes.barh(models, widths, left=left, label=kind)
    left = [a + b for a, b in zip(left, widths)]
axes.set(xlabel="wrong answers of 1,000", title="The first mistake")
axes.legend()
plt.show()

# %% [markdown]
"""
**See:** `sft` fails like the forum: carry and borrow. `sft-teacher` calculates far better, but it
has learned to leave lines out, and a small model that skips a line guesses. `cft` learned right
arithmetic from texts that leave nothing out. That cause was built into this miniature. It is one
possible reason for the paper's result, not a proof of it.

### Read some of them
"""

# %%
by_model = {name: read(RUN / f"05_eval/{name}/tiny.jsonl") for name in ("sft-teacher", "cft")}
pairs = zip(by_model["sft-teacher"], by_model["cft"])
differing = [(a, b) for a, b in pairs if not a["correct"] and b["correct"]]
for teacher_row, cft_row in differing[:2]:
    print(teacher_row["question"], f"(gold {teacher_row['gold']})")
    print("--- sft-teacher", teacher_row["output"], "--- cft", cft_row["output"], "", sep="\n")

# %% [markdown]
"""
## 6. Change one thing

**? Suppose the teacher leaves nothing out of its own answers. Does cft still win?** Write down a
number for sft-teacher before you run it. Every such command works after the run above and keeps
its models.
"""

# %%
kit("02_critique.py --name workshop --answers --teacher-skip 0", last=3)
build = "03_build.py --name workshop --teacher tiny-teacher:skip=0.0:critique=full"
kit(f"{build} --arms sft-teacher --suffix complete", last=1)
kit("04_train.py --name workshop --arms sft-teacher-complete", last=2)
kit("05_eval.py --name workshop --model base sft-teacher sft-teacher-complete cft", last=3)

# %%
scores = json.loads((RUN / "05_eval/scores.json").read_text(encoding="utf-8"))["scores"]
for score in scores:
    low, high = 100 * score["low"], 100 * score["high"]
    print(f"{score['model']:24}{100 * score['accuracy']:6.1f}%   [{low:.1f}, {high:.1f}]")

# %% [markdown]
"""
**See:** complete answers of the teacher teach as well as its critiques, or better. So the
advantage of critiques in this miniature is that they have no gaps, and no more than that.

### Your turn

`docs/workshop.md` has eight exercises of this form, with solutions. Or ask the model:
"""

# %%
kit("05_eval.py --name workshop --model cft --ask", "Start with 8\n(1) + 9\n(2) - 6", last=8)
