# %% [markdown]
"""
# 01 Sample: question -> response

In: a source of questions, with or without responses. Out: `runs/<name>/01_responses.jsonl`, one noisy response a row.

    python 01_sample.py                                        # tiny: the micro-world, its base and its forum
    python 01_sample.py --preset paper                         # the released WebInstruct-CFT-50K, with its critiques
    python 01_sample.py --preset paper --name mine --source my.jsonl --columns question=problem response=solution
    python 01_sample.py --preset paper --name numina --source numina             # 50,000 of its rows, a random sample by seed
    python 01_sample.py --preset paper --name mine --source my.jsonl --model Qwen/Qwen2.5-Math-7B --samples 4   # draw responses
    python 01_sample.py --preset one-shot --name one --source question.jsonl --model NAME --base-url URL        # once for each generator

CFT trains on responses that may be wrong; what makes them useful is the critique that 02 adds. The tiny preset first
pretrains a base model on a small web, where half of the solutions hold an error (a minute or two), then takes forum
answers to new questions, 56 % of them right.
"""

# %% Settings
from dataclasses import dataclass

from common.core.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files go to runs/NAME (default: the preset's name)")
    preset: str = setting(
        "tiny",
        "tiny, paper, one-shot, ... (common/core/presets.py); default: what 01 was run with, tiny for a new run",
    )
    seed: int = setting(0, "of the world, the base and the sampling")
    limit: int | None = setting(
        None, "read at most this many rows of the source, from its beginning"
    )
    rows: int = setting(
        50_000,
        "take at most this many of those, a random sample by seed (one pass over the source, in bounded memory)",
    )
    source: str = setting(
        "webinstruct-cft-50k",
        "tiny; a name in common/data/sources.py; a hub id; a .jsonl, .json or .parquet file; "
        "NAME=FILE: a known source, downloaded",
    )
    revision: str | None = setting(None, "revision of a hub source")
    columns: list[str] = setting(
        [], "which column holds which field: question=problem response=solution ..."
    )
    verdict_values: list[str] = setting(
        [], "what a verdict column's values mean: true=right false=wrong"
    )
    drop_bad: bool = setting(
        False,
        "leave rows without question or response out, counted (also among --rows), instead of stopping",
    )
    model: str | None = setting(
        None,
        "draw responses from this model instead: folder, hub id, served name; `base`: the tiny base",
    )
    base_url: str | None = setting(
        None, "OpenAI-compatible server of --model, such as http://localhost:8000/v1"
    )
    add: bool = setting(
        False,
        "keep the rows that stand, but for those of this very --source and --model (without it all are replaced)",
    )
    template: str = setting(
        "auto", "prompt form: chatml, deepseek, or auto (by the tokenizer; chatml for a server)"
    )
    samples: int = setting(1, "responses per question")
    temperature: float = setting(0.7, "of the sampling; 0 is greedy")
    top_p: float = setting(1.0, "nucleus of the sampling")
    max_new_tokens: int = setting(2048, "tokens per response at most")
    batch_size: int = setting(32, "prompts per batch of a local model")
    concurrency: int = setting(256, "requests in flight to a server at most")
    timeout: float = setting(300.0, "seconds for one request to a server in all")
    budget: float | None = setting(
        None, "USD that the server's model may cost in this run, over all starts: a hard stop"
    )
    yes: bool = setting(False, "a server's model that costs money: go on without a budget")
    price_in: float | None = setting(
        None, "USD per million prompt tokens, where common/generate/budget.py has another or none"
    )
    price_out: float | None = setting(None, "USD per million tokens of responses")
    threads: int = setting(0, "CPU threads of torch; 0: torch's own choice")
    base_steps: int = setting(2000, "tiny: pretraining steps of the base")
    base_knows_gaps: float = setting(
        0.0, "tiny: share of the web's authors who leave lines out as the teacher does"
    )


config = configure(Config, "01")

# %% The run's folder
import os
import sys

import torch

from common.core import files, prompts, runs
from common.core.errors import InputError
from common.data import readers, sources
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, complete
from common.grading import without_thinking

run = runs.run_folder(config.name)
tiny = config.source == "tiny"
if config.preset.startswith("tiny") and not tiny:
    raise InputError(
        f"the preset {config.preset} is the micro-world, with its small limits, and does not fit --source {config.source}\n"
        "Add --preset paper: the paper's values, which further flags change. Later scripts take the run's preset."
    )
if tiny and not config.limit:
    raise InputError("the micro-world has no end: say how many questions, for example --limit 1600")
if config.threads:
    torch.set_num_threads(config.threads)

# %% [markdown]
"""
## The tiny base
Any other run starts from a model that exists. The miniature makes its own: a Qwen2 of 0.2 M parameters, trained with
the loop of 04 on documents in the very prompts that later stages use.
"""

# %% Pretrain the tiny base, unless it stands
if tiny:
    from common.tiny import base, world

    base_accuracy = base.pretrain(
        run / "01_base", config.seed, config.base_steps, config.base_knows_gaps
    )
    print(f"base: {run / '01_base'}, {base_accuracy:.1%} of 200 held-out questions right")

# %% Read the source
if tiny:
    taken, _ = readers.sample_records(
        world.forum_rows(config.seed, config.limit), config.rows, config.seed
    )
    source_rows = [sources.make_row(**row, source="tiny", generator="forum") for _, row in taken]
    read_counts = {}
else:
    source_rows, read_counts = sources.load_rows(
        config.source,
        config.columns,
        config.verdict_values,
        config.revision,
        config.limit,
        config.rows,
        config.seed,
        need_response=config.model is None,
        drop_bad=config.drop_bad,
    )
    license_line = sources.describe_license(sources.parse_source(config.source)[0])
    if license_line:
        print(f"license of {license_line}")
print(
    f"{config.source}: {len(source_rows)} rows"
    + "".join(f", {n} {what}" for what, n in read_counts.items() if n)
)

# %% [markdown]
"""
## Responses of a model
With `--model` the source gives only questions, and the responses are drawn (Table 6: from the base itself). Each sample
has its own seed, and all of them are journalled, so a killed run goes on where it was and draws the same.
"""

# %% Draw responses from a model
if config.model:
    if config.base_url:
        from common.generate.budget import Budget
        from common.generate.client import Client

        budget = Budget(config.model, config.price_in, config.price_out, config.budget, config.yes)
        engine = Client(config.model, config.base_url, config.concurrency, config.timeout, budget)
        template = "chatml" if config.template == "auto" else config.template
    else:
        from common.generate.local import Local

        engine = Local(
            run / "01_base" if config.model == "base" else config.model, config.batch_size
        )
        template = (
            prompts.template_for(engine.tokenizer) if config.template == "auto" else config.template
        )
    prompts.check_template(template, getattr(engine, "tokenizer", None))
    questions = {
        (row["question_id"], row["gold"]): row for row in source_rows
    }  # of two golds both; equal requests are asked once
    asked = [(row, k) for row in questions.values() for k in range(config.samples)]
    requests = [
        Request(prompts.solve_prompt(row["question"], template), sample=k) for row, k in asked
    ]
    sampling = Sampling(
        config.temperature, config.top_p, config.max_new_tokens, prompts.STOP, config.seed
    )
    with Journal(run / "01_journal.jsonl") as journal:
        answers = complete(engine, requests, sampling, journal, "01 sample")
        cost = budget.summary(journal) if config.base_url else {}

# %% The rows: drawn responses, or those of the source
rows, counts = source_rows, read_counts
if config.model:
    failed = [a["error"] for a in answers if "error" in a]
    drawn = [
        sources.make_row(
            row["question"], text, row["gold"], row["source"], config.model, k, a["finish_reason"]
        )
        for (row, k), a in zip(asked, answers)
        if "error" not in a and (text := without_thinking(a["text"])).strip()
    ]
    rows = list({sources.key(row): row for row in reversed(drawn)}.values())[
        ::-1
    ]  # the first of equal responses
    counts = {
        "failed": len(failed),
        "empty, or all of it thinking": len(asked) - len(failed) - len(drawn),
        "equal responses": len(drawn) - len(rows),
        "cut at max_new_tokens": sum(row["finish_reason"] == "length" for row in rows),
    }
    print(f"{len(rows)} responses" + "".join(f", {n} {what}" for what, n in counts.items() if n))
    if failed:
        print(
            f"the first failure: {failed[0]}\nrun the same command again to ask for the {len(failed)} that failed (status 3)"
        )
    n_questions, n_different = (len({row[key] for row in rows}) for key in ("question_id", "id"))
    if config.samples > 1 and config.temperature > 0 and 1 < n_questions == n_different:
        print(
            f"note: all samples of a question are equal: {config.model} or its server ignores --temperature"
        )
    if not rows:
        raise InputError(f"{config.model} gave no usable response.")

# %% Beside those that other commands took (One-Shot CFT: ten generators of one question)
local = [file for file in (config.source, config.source.partition("=")[2]) if os.path.isfile(file)]
made = {
    "source": sources.identity(config.source),
    "called": "tiny" if tiny else sources.parse_source(config.source)[0],
    "model": config.model,
    "inputs": {file: files.file_hash(file) for file in local},
    "config": vars(config),
}
kept, lines = runs.standing(run, made) if config.add else ([], [])
known = {sources.key(row) for _, some in kept for row in some}
new = [row for row in rows if sources.key(row) not in known]
if n_equal := len(rows) - len(new):
    lines.append(f"{n_equal} rows are equal to one that stands, and left out")
print("".join(f"{line}\n" for line in lines), end="")
commands = [one for one, _ in kept] + [made | {"rows": len(new), "equal": n_equal}]
rows = [row for _, some in kept for row in some] + new

# %% Write the rows
files.write_jsonl(run / "01_responses.jsonl", rows)
runs.write_manifest(
    run / "01.run.json",
    config,
    local,
    rows=len(rows),
    output_sha256=files.file_hash(run / "01_responses.jsonl"),
    counts=dict(counts),
    questions=len({row["question_id"] for row in rows}),
    commands=commands,
    with_critique=sum("critique" in row for row in rows),
    **(cost if config.model else {}),
)
print(f"wrote {run / '01_responses.jsonl'}: {len(rows)} responses")
print(f"next: python 02_critique.py --name {config.name}")
if config.model and failed:
    sys.exit(3)
