# %% [markdown]
"""
# 02 Critique: response -> critique with a verdict

In: all files of `01_responses/`. Out, for each teacher: `02_critiques/<teacher>.jsonl`, the same
rows with a critique and its verdict; `02_failed/<teacher>.jsonl`, rows without one and why; with
`--answers`, `02_answers/<teacher>.jsonl`, the teacher's own answers. Critiques that came with the
data go to `carried.jsonl`, those of `--self-critique` to `self-critique.jsonl`. `02_critiques.html`
is a page to read them all in: where does the teacher say right, and the gold wrong?

    python 02_critique.py                                             # tiny: a rule-based teacher
    python 02_critique.py --name mine --model gpt-6-luna --reasoning-effort none --budget 5
    python 02_critique.py --name mine --model gpt-6-luna --budget 5 --batch      # half the price
    python 02_critique.py --name mine --model NAME --base-url http://localhost:8000/v1
    python 02_critique.py --name mine --self-critique base            # a control: by the base

The teacher is asked with the paper's prompt; the verdict is read from its conclusion. What it
thought before (`<think>`) is left out, and a bare conclusion is no critique. OpenAI's key is read
from OPENAI_API_KEY. Each answer is journalled as it arrives. After any end the same command goes on
where it was, and a kill loses what was in flight. Status 0: all rows; 3: some failed (03 goes on
without them); 2: input; 4: key, quota, budget, server; 5: disk; 130: Ctrl-C.
"""

# %% Settings: these, and those of EngineConfig (name, preset, budget, concurrency, ...)
from dataclasses import dataclass, replace

from common.core.config import EngineConfig, configure, setting

USE, DATA, GENERATION = "what you will use", "data", "generation"
SERVER, TINY = "server and money", "miniature"


@dataclass
class Config(EngineConfig):
    model: str | None = setting(None, "the teacher's name on the server", group=USE)
    base_url: str | None = setting(
        None, "server (default: OPENAI_BASE_URL, or the OpenAI API); tiny: a rule set", group=USE
    )
    answers: bool = setting(
        False, "also ask for the teacher's own answers, for the training set sft-teacher", group=USE
    )
    self_critique: str | None = setting(
        None,
        "ask no teacher but this model, loaded here (folder, hub id, or base: the run's own), as "
        "in training; for the training set cft-self-critique",
        group=USE,
    )
    limit: int | None = setting(None, "use at most this many responses", minimum=1, group=DATA)
    existing_critiques: str = setting(
        "keep",
        "critiques that came with the data: keep them and ask about the other responses, ask about "
        "all (redo), or ask about none (only)",
        choices=["keep", "redo", "only"],
        group=DATA,
    )
    retry_failed: bool = setting(False, "ask again for rows that failed for good", group=DATA)
    prompt: str = setting(
        "paper",
        "asked as in the paper or One-Shot CFT",
        choices=["paper", "one-shot"],
        group=GENERATION,
    )
    temperature: float | None = setting(
        0.3, "of the teacher; none: not sent", minimum=0, group=GENERATION
    )
    top_p: float | None = setting(
        0.95, "of the teacher; none: not sent", minimum=0, maximum=1, group=GENERATION
    )
    max_new_tokens: int = setting(
        3200, "tokens per answer (cut ones: 2.5 times as many, once)", minimum=1, group=GENERATION
    )
    reasoning_effort: str | None = setting(
        None, "such as low: sends no temperature and no top_p, but for none", group=GENERATION
    )
    min_critique_words: int = setting(
        3,
        "words before the conclusion at least; of 2,465 real critiques the shortest has 18",
        minimum=0,
        group=GENERATION,
    )
    retries: int = setting(
        3,
        "times to ask again for what is cut, empty, a bare conclusion or without a verdict",
        minimum=0,
        group=GENERATION,
    )
    max_bad_share: float = setting(
        0.2, "of the first 200; more bad ones end the run", minimum=0, maximum=1, group=GENERATION
    )
    seed: int = setting(0, "of --self-critique; a teacher has none", minimum=0, group=GENERATION)
    batch: bool = setting(False, "the Batch API: half the price, within 24 hours", group=SERVER)
    batch_tokens: int = setting(
        2_000_000,
        "prompt tokens in its queue at once; your account's limit",
        minimum=1,
        group=SERVER,
    )
    prices: str | None = setting(
        None, "litellm's file of prices (default: common/generate/prices.json)", group=SERVER
    )
    ask_miniature: bool = setting(
        False, "yes: ask a foreign teacher about the micro-world's questions", group=TINY
    )
    teacher_skip: float = setting(
        0.1, "share of lines that its own answers leave out", minimum=0, maximum=1, group=TINY
    )
    teacher_errors: float = setting(
        0.0, "share of critiques with sloppy arithmetic", minimum=0, maximum=1, group=TINY
    )
    critique_style: str = setting(
        "full",
        "how critiques are written",
        choices=["full", "terse", "brief", "verdict"],
        group=TINY,
    )


config = configure(Config, "02")

# %% Read the responses
import sys
from functools import partial

from common.core import files, manifests, prompts
from common.core.config import parse_extra_body
from common.core.errors import InputError, Stopped
from common.core.tables import count
from common.data import grades
from common.generate.batch import Batch
from common.generate.budget import Budget, teacher_choices
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, complete
from common.teacher import critiques, html_report
from common.train import distributed

distributed.start()  # --self-critique may run on several GPUs, by torchrun
run = manifests.run_folder(config.name)
extra_body = parse_extra_body(config.extra_body)
if config.reasoning_effort:
    extra_body["reasoning_effort"] = config.reasoning_effort
rows = critiques.read_responses(run)[: config.limit]
if distributed.is_main():
    lock = files.lock_stage(run / "02_critiques")
carried = [row for row in rows if "critique" in row]
print(f"{count(len(rows), 'response')}, {len(carried)} of them with a critique already")
not_critiqued = [row for row in rows if "critique" not in row]
to_ask = {"keep": not_critiqued, "redo": rows, "only": []}[config.existing_critiques]
if config.self_critique:
    carried, to_ask = [], rows
# Once, if several critiques came with a response. Rows of one response with two golds both stay.
to_ask = list({(row["id"], str(row["gold"])): row for row in to_ask}.values())
if not carried and not to_ask:
    raise InputError(
        "no response came with a critique, so --existing-critiques only leaves nothing.\n"
        "Ask a teacher: --model NAME (--base-url URL); or name the column that holds the critiques "
        "in 01: --columns critique=COLUMN"
    )

# %% [markdown]
"""
## The teacher
For the tiny preset it is a set of rules behind a real HTTP server here; the client below is the one
that asks GPT-4o.
"""

# %% Name the teacher; the tiny one is started
model, base_url = config.model, config.base_url
is_miniature = config.preset.startswith("tiny") and not config.is_named
is_foreign = (model, base_url) != ("tiny-teacher", "tiny")
if config.self_critique:
    model = critiques.SELF
elif not model:
    model = critiques.NOBODY
elif is_miniature and is_foreign and not config.ask_miniature:
    raise InputError(
        f"{run} is the miniature, and nothing was sent yet: should {model} be asked about "
        f"questions of its micro-world?\nYes: --ask-miniature. Your own run: --name NAME. Without "
        "--model and --base-url the miniature's own teacher is asked."
    )
elif base_url == "tiny":
    from common.tiny import teacher

    foreign = [row["source"] for row in to_ask if row["source"] != "tiny"]
    if foreign or config.model != "tiny-teacher":
        raise InputError(
            f"--base-url tiny has one model, tiny-teacher (here: {config.model}), which knows the "
            f"micro-world's questions only (here: {', '.join(foreign[:1]) or 'tiny'}).\n"
            "Name a teacher and its server: --model NAME --base-url URL "
            "(OpenAI's is https://api.openai.com/v1)"
        )
    model = teacher.model_name(config.teacher_skip, config.critique_style, config.teacher_errors)
    base_url = teacher.serve()
budget = Budget(model, config.price_in, config.price_out, config.budget, config.prices)
if config.self_critique:
    from common.generate.local import Local

    label, folder = "self-critique", config.self_critique
    if folder == "base":
        folder = manifests.require(run / "01_base")
    local = Local(folder, config.batch_size, config.max_new_tokens)
else:
    label = manifests.file_label(model)
    client = Client(model, base_url, config.concurrency, config.timeout, budget)
    if config.base_url == "tiny":
        client.server = "tiny"  # its port is another at each start
if to_ask and model == critiques.NOBODY:
    raise InputError(
        f"no model was named for {count(len(to_ask), 'response')} without a critique.\n"
        f"Name a teacher. {teacher_choices()}\n"
        "Or a server of your own: --model NAME --base-url http://localhost:8000/v1. Without a "
        "teacher: --existing-critiques only, or --self-critique MODEL."
    )
output = run / "02_critiques" / f"{label}.jsonl"
earlier = manifests.read_manifest(output).get("teacher", model)
if earlier != model:
    raise InputError(
        f"{output} holds critiques of {earlier}, and those of {model} would go to the same file.\n"
        "Use another --name for one of them."
    )

# %% Write the requests: for critiques, and for the teacher's own answers
requests, questions = [], {}
check = partial(critiques.check_critique, min_words=config.min_critique_words)
for row in to_ask:
    if config.self_critique:
        prompt = critiques.build_self_prompt(row, local.tokenizer)
    else:
        pair = row["question"], row["response"]
        prompt = prompts.teacher_critique_prompt(*pair, one_shot=config.prompt == "one-shot")
    requests.append(Request(prompt, check=check))
if config.answers and to_ask and not config.self_critique:
    questions = {row["question_id"]: row for row in rows}
for row in questions.values():
    prompt = prompts.teacher_answer_prompt(row["question"])
    requests.append(Request(prompt, check=lambda text: None))
if requests:
    print(f"the first of {count(len(requests), 'request')} to {model}:")
    print(critiques.format_prompt(requests[0].prompt), end="\n\n")

# %% Ask
# Differs from the paper: what is cut or has no verdict is asked again, each attempt kept; the
# released script asks once.
temperature, top_p = config.temperature, config.top_p
if extra_body.get("reasoning_effort", "none") != "none":
    temperature = top_p = None  # reasoning models refuse them
sampling = Sampling(temperature, top_p, config.max_new_tokens, extra_body=extra_body or None)
retries = (config.retries, config.retry_failed, config.max_bad_share)
files.check_disk(run, 8_000 * len(requests))  # answers of 2 to 4 KB, in the journal and in rows
with Journal(run / "02_journal.jsonl") as journal:
    if config.self_critique:  # asked once: a critique without a verdict is its own fault
        sampling = replace(sampling, stop=prompts.STOP, seed=config.seed)
        answers = complete(local, requests, sampling, journal, "02 self-critique")
    else:
        batch = Batch(client, run / "02_batches.jsonl", config.batch_tokens)
        if batch.outstanding() and not config.batch:
            raise InputError(
                "a batch of an earlier start is not collected yet, and may have been paid.\n"
                "Add --batch. To give it up, and pay for its requests again: "
                f"mv {batch.path} {batch.path}.given-up"
            )
        if config.batch:
            complete(batch, requests, sampling, journal, "02 batch", *retries)
        answers = complete(client, requests, sampling, journal, "02 critique", *retries)
    cost = budget.summary(journal)
distributed.leave_to_main()

# %% Grade each response against its gold, so that verdicts can be held against the grades
grades.add_grades(carried + to_ask)

# %% One row each: critiques that came with the data as they are, new ones with their verdict
min_words = config.min_critique_words
critiqued = {
    "carried": [critiques.carry_over(row, min_words) for row in carried],
    label: [critiques.add_critique(row, answer, model) for row, answer in zip(to_ask, answers)],
}
own_answers = [
    critiques.add_answer(row, answer, model)
    for row, answer in zip(questions.values(), answers[len(to_ask) :])
]

# %% Write a file for each teacher, and report
inputs = manifests.outputs(run, "01_responses")
answered, unanswered = critiques.split_failed(own_answers)
if answered:
    files.write_jsonl(run / "02_answers" / f"{label}.jsonl", answered)
    print(f"wrote {run / '02_answers' / label}.jsonl: {count(len(answered), 'row')}")
n_good = n_failed = 0
for name, rows in critiqued.items():
    if not rows:
        continue
    good, failed = critiques.split_failed(rows)
    if name == label:
        failed += unanswered
    files.write_jsonl(run / "02_failed" / f"{name}.jsonl", failed)
    n_good += len(good)
    n_failed += len(failed)
    if good:
        output = run / "02_critiques" / f"{name}.jsonl"
        report = critiques.summarize(good, failed, answers if name == label else [])
        files.write_jsonl(output, good)
        manifests.write_manifest(
            output, config, inputs, teacher=good[0]["teacher"], report=report, **cost
        )
        print(f"wrote {output}\n{critiques.format_summary(report)}")
html_report.write_page(run)
print(f"wrote {run / '02_critiques.html'}: each critique with its response and the gold")
lock.release(force=True)
if not n_good:
    if output.exists():
        print(f"note: {output} is of an earlier start and stays: 03 would build from it")
    raise Stopped(critiques.explain_failure(failed, run / "02_failed"), 3 if to_ask else 2)
if budget.prices and requests:
    print(f"cost of {model} in this run: {budget.describe_cost()}")
build = f"python 03_build.py --name {config.name}"
print(f"next: {build}")
if len(list((run / "02_critiques").glob("*.jsonl"))) > 1:
    print(
        "note: that uses the critiques of all teachers, and replaces the training sets. "
        f"To add a set from one teacher: {build} --teacher NAME --arms SET --suffix WORD"
    )
if n_failed and not config.self_critique:
    print(
        f"{count(n_failed, 'row')} without a critique or an answer of the teacher (status 3): "
        f"{run / '02_failed'} says why, --retry-failed asks again"
    )
    sys.exit(3)
