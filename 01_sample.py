# %% [markdown]
"""
# 01 Sample: question -> response

In: a source of questions, with or without responses.
Out: `runs/NAME/01_responses/LABEL.jsonl`, one noisy response a row. Each command writes one file.

    python 01_sample.py                   # tiny: the micro-world, its base and its forum
    python 01_sample.py --preset paper    # the released WebInstruct-CFT-50K, with its critiques
    python 01_sample.py --preset paper --name numina --source numina        # 50,000 at random
    python 01_sample.py --preset paper --name mine --source my.jsonl --columns question=problem
    python 01_sample.py --preset paper --name drawn --source my.jsonl --model Qwen/Qwen2.5-Math-7B

The last one draws responses to the questions of a file (`--samples 4`: four to each), under
`torchrun` on all GPUs. One-Shot CFT gives such a command for each generator of one question. A
server is asked in ChatML, a model here in the form that its tokenizer knows.

CFT trains on responses that may be wrong; what makes them useful is the critique that 02 adds.
The tiny preset starts from a base model that was pretrained on a small web, in which half of the
solutions hold an error. That of the default seed is shipped; any other is trained first (a minute
or two). It then takes forum answers to new questions, 57 % of them right.
"""

# %% Settings: these, and those of EngineConfig (name, preset, budget, concurrency, ...)
from dataclasses import dataclass

from common.core.config import EngineConfig, configure, setting


@dataclass
class Config(EngineConfig):
    source: str = setting(
        "webinstruct-cft-50k",
        "tiny; a name in common/data/sources.json; a hub id; a file (.jsonl .json .csv .tsv "
        ".parquet); NAME=FILE: a known source, downloaded",
    )
    model: str | None = setting(
        None,
        "draw responses from this model instead: folder, hub id, served name; base: the tiny base",
    )
    base_url: str | None = setting(
        None, "OpenAI-compatible server of --model, such as http://localhost:8000/v1"
    )
    label: str | None = setting(
        None, "name of the output file (default: by --model, else by --source)"
    )
    rows: int = setting(
        50_000, "rows at most, a random sample of the source by seed", minimum=1, group="data"
    )
    limit: int | None = setting(None, "read only the first so many rows", minimum=1, group="data")
    seed: int = setting(0, "of the sample, draws, world and base", minimum=0, group="data")
    columns: list[str] = setting(
        [],
        "which column holds which field: question=problem gold=meta.answer ...",
        group="data",
    )
    verdict_values: list[str] = setting(
        [], "what a verdict column's values mean: true=right false=wrong", group="data"
    )
    revision: str | None = setting(None, "revision of a hub source", group="data")
    allow_test_data: bool = setting(
        False, "train on a test set of critics, such as processbench", group="data"
    )
    samples: int = setting(1, "responses per question", minimum=1, group="generation")
    temperature: float = setting(0.7, "of the draws; 0 is greedy", minimum=0, group="generation")
    top_p: float = setting(1.0, "nucleus of the draws", minimum=0, maximum=1, group="generation")
    max_new_tokens: int = setting(2048, "tokens per response", minimum=1, group="generation")
    pretrain: bool = setting(
        False, "train the base of the default seed, too, which is shipped", group="miniature"
    )
    base_steps: int = setting(2000, "pretraining steps of the base", minimum=1, group="miniature")
    base_knows_gaps: float = setting(
        0.0, "share of the web that leaves lines out", minimum=0, maximum=1, group="miniature"
    )


config = configure(Config, "01")

# %% The run's folder and the output
import sys
from collections import Counter
from pathlib import Path

from common.core import files, manifests, prompts, untrusted
from common.core.config import parse_extra_body
from common.core.errors import InputError
from common.core.special_tokens import hide
from common.core.tables import count
from common.core.thinking import without_thinking
from common.data import readers, sources
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, complete
from common.train import distributed

distributed.start()  # under torchrun the GPUs share the draws; the first process does the rest
run = manifests.run_folder(config.name)
extra_body = parse_extra_body(config.extra_body)
tiny = config.source == "tiny"
if config.preset.startswith("tiny") != tiny:
    raise InputError(
        f"--preset {config.preset} does not fit --source {config.source}: the tiny presets have "
        "the small limits of the micro-world, which is the source tiny.\n"
        "Add --preset paper: the paper's values. Later scripts keep the run's preset."
    )
source_name, dataset = sources.parse_source(config.source)
sources.check_use(config.source, config.allow_test_data)
for line in sources.describe_sources({source_name}):
    print(f"note: {line}")
default_label = config.model or source_name
if default_label.endswith(readers.READABLE):
    default_label = Path(default_label).stem
label = manifests.file_label(config.label or default_label)
output = run / "01_responses" / f"{label}.jsonl"
previous = manifests.read_manifest(output).get("config", vars(config))
if (previous["source"], previous["model"]) != (config.source, config.model):
    raise InputError(
        f"{output} was made by --source {previous['source']} --model {previous['model']}.\n"
        "Each command writes a file of its own: add --label NAME."
    )
if distributed.is_main():
    lock = files.lock_stage(output.parent)

# %% [markdown]
"""
## The tiny base
Any other run starts from a model that exists. The miniature has its own: a Qwen2 of 0.2 M
parameters, trained by the loop of 04 on documents in the very prompts that later stages use.
"""

# %% Take the tiny base, or pretrain it
if tiny:
    import torch

    from common.tiny import base

    torch.set_num_threads(1)  # more threads are slower for so small a model
    base_folder = run / "01_base"
    if distributed.world_size() > 1:
        manifests.require(base_folder)  # one process makes it
    settings = config.seed, config.base_steps, config.base_knows_gaps, config.pretrain
    accuracy = base.provide(base_folder, *settings)
    print(f"base: {base_folder}, {accuracy:.1%} of 200 new questions right")

# %% Read the source
rows, counts = sources.load_rows(
    config.source,
    columns=config.columns,
    verdict_values=config.verdict_values,
    revision=config.revision,
    limit=config.limit,
    size=config.rows,
    seed=config.seed,
    need_response=config.model is None,
)
print(f"{config.source}: {count(len(rows), 'row')}{sources.describe_counts(counts)}")

# %% [markdown]
"""
## Responses of a model
With `--model` the source gives only questions, and the responses are drawn (Table 6: from the base
itself). Each sample has its own seed, and all of them are journalled. So a killed run goes on from
where it was, and draws the same.
"""

# %% Open the model
if config.base_url:
    from common.generate.budget import Budget
    from common.generate.client import Client

    budget = Budget(config.model, config.price_in, config.price_out, config.budget)
    engine = Client(config.model, config.base_url, config.concurrency, config.timeout, budget)
    template = "chatml"
elif config.model:
    from common.generate.local import Local

    folder = run / "01_base" if config.model == "base" else config.model
    engine = Local(folder, config.batch_size, config.max_new_tokens)
    template = prompts.template_for(engine.tokenizer)

# %% Draw the responses
cost, failures = {}, []
if config.model:
    questions = {(row["question_id"], row["gold"]): row for row in rows}  # each is asked once
    draws, requests = [], []
    for row in questions.values():
        question = hide(row["question"], engine.tokenizer)
        prompt = prompts.solve_prompt(question, template)
        for k in range(config.samples):
            draws.append((row, k))
            requests.append(Request(prompt, sample=k))
    settings = config.temperature, config.top_p, config.max_new_tokens
    sampling = Sampling(*settings, prompts.STOP, config.seed, extra_body or None)
    with Journal(run / "01_journal.jsonl") as journal:
        answers = complete(engine, requests, sampling, journal, "01 sample")
        if config.base_url:
            cost = budget.summary(journal)
distributed.leave_to_main()

# %% Turn them into rows
if config.model:
    rows, counts = [], Counter()
    for (row, k), answer in zip(draws, answers):
        if "error" in answer:
            failures.append(answer["error"])
            continue
        response = without_thinking(answer["text"])
        counts["with thinking, which was removed"] += response != answer["text"]
        if not response.strip():
            counts["empty, or all of it thinking"] += 1
            continue
        counts["truncated at --max-new-tokens"] += answer["finish_reason"] == "length"
        fields = (row["question"], response, row["gold"], row["source"], config.model)
        rows.append(sources.make_row(*fields, k, answer["finish_reason"]))
    rows = sources.drop_duplicates(rows, counts)
    print(f"{config.model}: {count(len(rows), 'response')}{sources.describe_counts(counts)}")
if not rows:
    raise InputError(f"{config.model} gave no usable response.")

# %% Write the rows
files.write_jsonl(output, rows)
inputs = [dataset.path] if Path(dataset.path).is_file() else []
manifests.write_manifest(output, config, inputs, rows=len(rows), counts=counts, **cost)
print(untrusted.printable(f"\nthe first:\n{rows[0]['question']}\n-> {rows[0]['response']}\n"))
print(f"wrote {output}: {count(len(rows), 'response')}")
print(f"next: python 02_critique.py --name {config.name}")
lock.release(force=True)
if failures:
    first = untrusted.printable(failures[0])
    print(f"{len(failures)} failed: run the same command again. The first: {first}")
    sys.exit(3)
