# %% [markdown]
"""
# 02 Critique: response -> critique with a verdict

In: `01_responses.jsonl`. Out: `02_critiques.jsonl`, the same rows with a teacher's critique and its verdict;
`02_failed.jsonl`, rows without one and why; with `--answers`, `02_answers.jsonl`, the teacher's own answers.

    python 02_critique.py                                                              # tiny: a rule-based teacher
    python 02_critique.py --name mine --model gpt-4o-mini --budget 5                   # needs OPENAI_API_KEY, costs money
    python 02_critique.py --name mine --model gpt-4o-mini --budget 5 --batch           # half the price, within 24 hours
    python 02_critique.py --name mine --model Qwen/Qwen2.5-72B-Instruct --base-url http://localhost:8000/v1
    python 02_critique.py --name mine --self-critique base                             # a control: the base's own critiques

The teacher is asked with the paper's prompt; the verdict is read from its last line. Rows that came with a critique pass
through and nobody is asked. Every answer is journalled as it arrives, so whatever ends a run, the same command goes on
where it was; a kill loses what was in flight. Another `--model` adds its critiques to those that stand. Status 0: all
rows; 3: some failed (02_failed.jsonl; 03 goes on without them); 2: input; 4: key, quota, budget, server; 5: disk; 130: Ctrl-C.
"""

# %% Settings
from dataclasses import dataclass, replace

from common.core.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting(
        "tiny",
        "tiny, paper, one-shot, ... (common/core/presets.py); default: what 01 was run with, tiny for a new run",
    )
    seed: int = setting(0, "of --self-critique; a teacher's answers are not seeded")
    limit: int | None = setting(None, "use at most this many responses")
    model: str | None = setting("gpt-4o-2024-11-20", "the teacher's name on the server")
    base_url: str | None = setting(
        None,
        "OpenAI-compatible server (default: OPENAI_BASE_URL, or the OpenAI API); tiny: a set of rules",
    )
    answers: bool = setting(
        False, "also ask for the teacher's own answer to every question, for the sft-teacher arm"
    )
    prompt: str = setting(
        "paper",
        "how the teacher is asked: as in the paper, or as in One-Shot CFT",
        choices=["paper", "one-shot"],
    )
    self_critique: str | None = setting(
        None,
        "instead of a teacher, this model, loaded here (folder, hub id, or base: the run's own), is asked as "
        "in training; for the control arm cft-self-critique of 03",
    )
    carried_only: bool = setting(
        False, "ask nobody: responses that came without a critique are left out"
    )
    ask_carried: bool = setting(False, "also ask about responses that came with a critique")
    temperature: float = setting(0.3, "of the teacher")
    top_p: float = setting(0.95, "of the teacher")
    max_new_tokens: int = setting(
        3200, "tokens per critique or answer at most (cut ones: 2.5 times as many, once)"
    )
    reasoning: bool = setting(
        False,
        "the teacher is a reasoning model: send max_completion_tokens, no temperature, no top_p",
    )
    retries: int = setting(3, "how often to ask again for what is cut, empty or without a verdict")
    max_bad_share: float = setting(
        0.2, "stop when more than this share of the first 200 answers cannot be used"
    )
    retry_failed: bool = setting(False, "ask again for rows that failed for good in an earlier run")
    partial: bool = setting(
        False, "write what there is when the run is stopped; the rest goes to 02_failed.jsonl"
    )
    batch_size: int = setting(32, "prompts per batch of --self-critique")
    concurrency: int = setting(256, "requests in flight at most")
    timeout: float = setting(300.0, "seconds for one request in all")
    batch: bool = setting(
        False,
        "by the server's Batch API (half the price, within 24 hours); what comes back bad is asked live",
    )
    batch_tokens: int = setting(
        2_000_000, "prompt tokens in the Batch API's queue at once; your account's limit"
    )
    budget: float | None = setting(
        None, "USD that this teacher may cost in this run, over all starts: a hard stop"
    )
    yes: bool = setting(False, "go on without a budget")
    price_in: float | None = setting(
        None, "USD per million prompt tokens, where common/generate/budget.py has another or none"
    )
    price_out: float | None = setting(None, "USD per million tokens of answers")
    teacher_skip: float = setting(
        0.1, "tiny: share of lines the teacher leaves out of its own answers (0 to 1)"
    )
    teacher_errors: float = setting(
        0.0, "tiny: share of the critiques in which the teacher calculates as sloppily as the web"
    )
    critique_style: str = setting(
        "full", "tiny: how critiques are written", choices=["full", "terse", "brief", "verdict"]
    )


config = configure(Config, "02")

# %% Read the responses
import sys

from common.core import files, prompts, runs
from common.core.errors import InputError, Stopped
from common.generate.batch import Batch
from common.generate.budget import Budget, format_usd
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, complete
from common.teacher import critiques

run = runs.run_folder(config.name)
everything = files.read_jsonl(
    runs.stage_file(run, "01_responses.jsonl"),
    ("id", "question_id", "question", "response", "gold", "source", "generator"),
)
rows = everything[: config.limit]
if (
    config.base_url == "tiny"
    and not config.self_critique
    and (foreign := [row["source"] for row in rows if row["source"] != "tiny"])
):
    raise InputError(
        f"the tiny teacher knows only the micro-world's questions, not those of {foreign[0]}.\n"
        "Name a teacher: --preset paper --model NAME (and --base-url for your own server)"
    )
itself = config.self_critique
given = [] if itself else [row for row in rows if "critique" in row]
to_ask = (
    []
    if config.carried_only
    else [row for row in rows if config.ask_carried or itself or "critique" not in row]
)
to_ask = list(
    {(row["id"], str(row["gold"])): row for row in to_ask}.values()
)  # of two golds both, in one request
with_answers = config.answers and not (itself or config.carried_only)
questions = list({row["question_id"]: row for row in rows}.values()) if with_answers else []
print(
    f"{len(rows)} responses, {len(given)} of them with a critique already"
    + ", the others are left out" * config.carried_only
)
if not given and not to_ask:
    raise InputError(
        "not one response came with a critique, so --carried-only leaves nothing.\nAsk a teacher: --model NAME (--base-url URL); "
        "or name the column that holds the critiques in 01: --columns critique=COLUMN"
    )

# %% [markdown]
"""
## The teacher
For the tiny preset it is a set of rules behind a real HTTP server here; the client below is the one that asks GPT-4o.
"""

# %% Start the tiny teacher, or name the real one; or load the model that critiques itself
model, base_url, engine, stop_teacher = config.model, config.base_url, None, lambda: None
temperature, top_p = (None, None) if config.reasoning else (config.temperature, config.top_p)
sampling = Sampling(temperature, top_p, config.max_new_tokens)
settings = dict(
    retries=config.retries, retry_failed=config.retry_failed, bad_share=config.max_bad_share
)
if itself:
    from common.generate.local import Local

    model, engine = (
        critiques.SELF,
        Local(runs.stage_file(run, "01_base") if itself == "base" else itself, config.batch_size),
    )
    sampling, settings = (
        replace(sampling, stop=prompts.STOP, seed=config.seed),
        {},
    )  # asked once: a critique without a verdict is its own fault
elif config.base_url == "tiny":
    from common.tiny import teacher

    if config.model != "tiny-teacher":
        raise InputError(
            f"--model {config.model} needs a server of its own: add --base-url (OpenAI's is https://api.openai.com/v1)"
        )
    model = teacher.model_name(config.teacher_skip, config.critique_style, config.teacher_errors)
    base_url, stop_teacher = teacher.serve()
budget = Budget(model, config.price_in, config.price_out, config.budget, config.yes)
engine = engine or Client(model, base_url, config.concurrency, config.timeout, budget)

# %% Ask for critiques, and for the teacher's own answers
# Differs from the paper: what is cut or has no verdict is asked again, each attempt kept; the released script asks once.
requests = [
    Request(
        critiques.build_prompt(row, config.prompt, engine.tokenizer if itself else None),
        check=critiques.check_critique,
    )
    for row in to_ask
]
requests += [
    Request(prompts.teacher_answer_prompt(row["question"]), check=lambda text: None)
    for row in questions
]
files.check_disk(
    run, 8_000 * len(requests), ""
)  # an answer of 2 to 4 KB, in the journal and in its row
stopped = None
with Journal(run / "02_journal.jsonl") as journal:
    batch = Batch(engine, run / "02_batches.jsonl", config.batch_tokens)
    if batch.outstanding() and not config.batch:
        raise InputError(
            f"a batch of an earlier start is not collected yet, and may have been paid: add --batch.\nTo give it up, and "
            f"pay for its requests again: rm {run / '02_batches.jsonl'}"
        )
    try:
        if config.batch and not itself:
            complete(batch, requests, sampling, journal, "02 batch", **settings)
        got = complete(engine, requests, sampling, journal, "02 critique", **settings)
    except Stopped as end:
        if not config.partial:
            raise
        stopped, got = end, end.answers
    cost = budget.summary(journal)
stop_teacher()

# %% One row each: carried critiques as they are, new ones with their verdict; the rest to 02_failed.jsonl
judged = [
    critiques.carry_over(row)
    for row in given
    if row["verdict"] != "unparsed" or not config.ask_carried
]
judged += [critiques.make_row(row, answer, model) for row, answer in zip(to_ask, got)]
good = [row for row, reason in judged if not reason]
failed = [row | {"reason": reason} for row, reason in judged if reason]
own, unanswered = critiques.make_answer_rows(questions, got[len(to_ask) :], model)


# %% Write, beside what other teachers have written
def write(name, new, key, teachers):
    """New rows, in place of what these teachers had there."""
    files.write_jsonl(
        run / name, critiques.beside(new, files.read_jsonl_if_exists(run / name), teachers, everything, key)
    )
    print(
        f"wrote {run / name}: {len(new)} rows{f' of {teachers[0]}' if len(teachers) == 1 else ''}"
    )


teachers = sorted({row["teacher"] for row in good + failed})
if to_ask or good:
    write("02_failed.jsonl", failed + unanswered, "id", teachers)
if not good:
    raise stopped or Stopped(
        critiques.explain_no_critiques(failed, run / "02_failed.jsonl" if to_ask else None, itself),
        3 if to_ask else 2,
    )
write("02_critiques.jsonl", good, "id", teachers)
if not itself and (config.answers or (run / "02_answers.jsonl").exists()):
    write("02_answers.jsonl", own, "question_id", [model] if config.answers else [])

# %% Report
report = critiques.summarize(good, failed)
last = (
    runs.read_manifest(run, "02").get("teachers", [])
    if itself
    else sorted({row["teacher"] for row in good})
)  # those that 03 takes
runs.write_manifest(
    run / "02.run.json",
    config,
    [run / "01_responses.jsonl"],
    rows=len(good),
    report=report,
    **cost,
    teachers=last,
    answers=len(own),
    unanswered=len(unanswered),
    server=None if itself else engine.base_url,
    partial=stopped is not None,
    output_sha256=files.file_hash(run / "02_critiques.jsonl"),
)
print(critiques.format_summary(report))
if budget.prices and (to_ask or questions):
    perhaps = (
        f", perhaps {format_usd(budget.lost)} more for requests that failed" if budget.lost else ""
    )
    print(f"cost of {model} in this run: {format_usd(budget.spent)}{perhaps}")
print(f"next: python 03_build.py --name {config.name}")
if stopped:
    raise stopped
if (failed or unanswered) and not itself:
    print(
        f"{len(failed)} responses have no critique, {len(unanswered)} questions no answer of the teacher (status 3): "
        f"{run / '02_failed.jsonl'} says why, --retry-failed asks again"
    )
    sys.exit(3)
