# %% [markdown]
"""
# 05 Eval: checkpoints -> scores

In: models and test sets. Out: `05_eval/<model>/<benchmark>.jsonl` (the exact prompt, output and grades of every item) with its
score and manifest, `05_results.md` and `.png`, and `05_outputs.html`, a page to read the outputs in.

    python 05_eval.py                                                  # tiny: the base and every arm, greedy
    python 05_eval.py --name mine --benchmarks gsm8k math500           # the base and the last checkpoint of each arm
    python 05_eval.py --name mine --model base runs/mine/04_train/cft --benchmarks math500     # the best of all checkpoints
    python 05_eval.py --name control --preset paper --model cft=TIGER-Lab/Qwen2.5-Math-7B-CFT --paper table2
    python 05_eval.py --name mine --model cft=served-name@http://localhost:8000/v1

At test time a CFT model solves like any other: it is asked the question, not for a critique. Outputs are journalled
under a hash of the model's content (of a served model: its name and address), the prompt and the settings, so no model
gets another one's answers, and what is already scored is not run again.
"""

# %% Settings
from dataclasses import dataclass

from common.core.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting(
        "tiny",
        "tiny, paper, one-shot, ... (common/core/presets.py); default: what 01 was run with, tiny for a new run",
    )
    seed: int = setting(0, "of bootstraps, samples and GPQA's options and, tiny, of the world")
    limit: int | None = setting(
        None, "use the first so many items of each benchmark, the validation set included"
    )
    model: list[str] = setting(
        [],
        "models: base, an arm, a folder (of a model, an adapter, or of checkpoints, of which the best is taken), a hub "
        "id, NAME@URL of a server; LABEL=NAME names one, LABEL several times: seeds of one arm (default: base and all arms)",
    )
    selection: str = setting(
        "auto",
        "which checkpoint of an arm: last; or the best on validation (MATH, disjoint from MATH-500), paper (MATH-500) or "
        "heldout (the run's own questions); auto: last, but of a folder of checkpoints the best on validation",
        choices=("auto", "last", "validation", "paper", "heldout"),
    )
    benchmarks: list[str] = setting(
        ["math", "minerva_math", "gsm8k", "olympiadbench", "aime24", "amc23"],
        "which test sets: tiny, or of "
        "common/data/test_sets.py: also math500 aime25 theoremqa mmlu_pro gpqa",
    )
    benchmarks_dir: str | None = setting(None, "read DIR/NAME/test.jsonl instead of the hub")
    revision: list[str] = setting([], "revisions of the hub's test sets: NAME=REVISION ...")
    paper: list[str] = setting(
        [], "print these tables of the paper beside the scores: table2 ... table11"
    )
    template: str = setting(
        "auto",
        "prompt form: chatml, deepseek, own (the tokenizer's), or auto (by the tokenizer; chatml for a server)",
    )
    few_shot: str | None = setting(
        None, "JSONL of question and response: turns before each question (the paper: none)"
    )
    max_new_tokens: int = setting(2048, "tokens per output at most")
    samples: int = setting(1, "outputs per item; several give avg@k, pass@k, maj@k")
    temperature: float = setting(0.0, "of the sampling; 0 is greedy")
    top_p: float = setting(1.0, "nucleus of the sampling")
    batch_size: int = setting(32, "prompts at a time on one GPU")
    exact: bool = setting(
        False,
        "local models: float32 and one prompt at a time, for texts that rounding does not touch",
    )
    load_in_4bit: bool = setting(False, "local models: in 4 bits (a 7B model on 24 GB and less)")
    processes: int = setting(0, "processes of a local model; 0: one per GPU of this machine")
    base_url: str | None = setting(
        None, "OpenAI-compatible server of all --model, such as http://localhost:8000/v1"
    )
    concurrency: int = setting(256, "requests in flight to a server at most")
    timeout: float = setting(300.0, "seconds for one request to a server in all")
    budget: float | None = setting(
        None, "USD that a server's model may cost on one benchmark, over all starts: a hard stop"
    )
    yes: bool = setting(False, "a server's model that costs money: go on without a budget")
    price_in: float | None = setting(
        None, "USD per million prompt tokens, where common/generate/budget.py has none"
    )
    price_out: float | None = setting(None, "USD per million tokens of outputs")
    count_failed: bool = setting(
        False, "count an item that got no output as wrong (else it is left out, and said)"
    )
    baseline: str | None = setting(
        None,
        "the model that the others are compared with (default: sft where it is among them, else the first)",
    )
    threads: int = setting(0, "CPU threads of torch; 0: torch's own choice")


config = configure(Config, "05")

# %% The test sets
import sys
from dataclasses import asdict

import torch

from common.core import files, prompts, runs
from common.core.errors import InputError
from common.data import decontamination, test_sets
from common.evaluate import (
    checkpoint_selection,
    comparisons,
    html_report,
    models,
    paper_tables,
    report,
    scores,
)
from common.generate.journal import Journal
from common.generate.requests import Sampling, complete

run = runs.run_folder(config.name)
printed = paper_tables.named(config.paper)
if printed and not config.model and not (run / "04_train").exists():  # nothing to score yet
    print("\n\n".join(paper_tables.side_by_side(table, {}) for table in printed))
    raise SystemExit
if config.threads:
    torch.set_num_threads(config.threads)
if config.samples > 1 and not config.temperature:
    raise InputError(
        f"--samples {config.samples} at temperature 0 are {config.samples} equal outputs.\nAdd --temperature 0.6, for example."
    )
revisions = test_sets.parse_revisions(config.revision, config.benchmarks)
source = dict(folder=config.benchmarks_dir, limit=config.limit, seed=config.seed)
tests = {
    name: test_sets.load_items(name, revision=revisions.get(name), **source)
    for name in config.benchmarks
}
shots = (
    [
        (row["question"], row["response"])
        for row in files.read_jsonl(config.few_shot, ("question", "response"))
    ]
    if config.few_shot
    else []
)
print(", ".join(f"{name}: {len(items)} items" for name, items in tests.items()))

# %% The models
# Differs from the paper: an arm's last checkpoint. The paper kept the best on MATH-500, which lies inside its MATH test set.
specs = models.candidates(run, config.model, config.base_url, config.selection)
arms, baseline = models.compared(specs, config.baseline)


# %% Ask one model everything, grade, and keep it
engines = {}  # by label: what the manifest says of each


def evaluate(one, sets):
    """sets: {benchmark: items}. -> {(benchmark, label): Result}; rows and score are 05_eval/<label>/<benchmark>.jsonl and .score.json."""
    found, folder = {}, run / "05_eval" / one.label
    engine, words, template, kind = models.open_engine(one, config)
    engines[one.label] = engine.settings | kind
    for name, items in sets.items():
        system, stop = test_sets.get_test_set(name).prompt_form
        texts = [
            prompts.solve_prompt(item["question"], template, system, shots, words) for item in items
        ]
        asked = scores.requests(texts, config.samples, greedy=not config.temperature)
        sampling = Sampling(
            config.temperature,
            config.top_p,
            config.max_new_tokens,
            stop,
            config.seed if config.temperature else None,
        )
        with Journal(
            run / "05_journal" / files.content_id(engine.identity)[:12] / f"{name}.jsonl"
        ) as journal:
            if one.url:
                models.check_served(engine, journal)
            outputs = complete(
                engine, asked, sampling, journal, f"05 {one.label} {name}", probe=bool(one.url)
            )
            cost = engine.budget.summary(journal) if one.url else None
        rows = scores.graded(folder, name, items, asked, outputs, config.count_failed)
        conditions = kind | {"sampling": asdict(sampling), "prompts": files.content_id(texts)}
        found[name, one.label] = result = scores.Result(
            name, one.label, rows, conditions, scores.took(outputs)
        )
        about = {
            "engine": engines[one.label],
            "benchmark": test_sets.describe(name, items, revisions.get(name)),
            "few_shot": shots,
            "cost": cost,
        }
        scores.write_score(folder, result, about, config.seed)
    engine.close()
    return found


# %% Choose checkpoints
# Training goes on after the best one: which is reported is a choice, and made on the test set it flatters the score.
selected, notes = [], []
if any(one.checkpoints for one in specs):
    validation, items, line = checkpoint_selection.validation_set(
        config.selection, config.benchmarks, run, specs, revisions=revisions, **source
    )
    notes.append(line)
for one in specs:
    if one.checkpoints:
        tried = {
            key: result
            for checkpoint in one.checkpoints
            for key, result in evaluate(checkpoint, {validation: items}).items()
        }
        one.where, one.url, table, line = checkpoint_selection.choose(
            one, tried, validation, config.seed
        )
        selected += table
        notes.append(line)
        print(line)

# %% Run all of them
by_model = [evaluate(one, tests) for one in specs]
found = {
    (name, label): result
    for name in tests
    for each in by_model
    for (of, label), result in each.items()
    if of == name
}

# %% [markdown]
"""
## Scores
Accuracy by the strict grader, with its 95% interval (Wilson's; over several samples a bootstrap over items), and by the paper's
rules. `unboxed` counts answers that were not in a \\boxed{}, `cut` outputs that ran into `--max-new-tokens`.
"""

# %% Score; and one question on which the models differ, as each answers it
scored = [result.score for result in found.values()]
scored += scores.averages(scored)
print(f"\n{report.scores_table(scored)}\n")
print(
    scores.example(
        [result for result in found.values() if result.benchmark == config.benchmarks[0]]
    )
)

# %% Compare, item by item, on the same items, prompts and settings, or not at all
merged, by_seed = comparisons.over_seeds(found, models.seeds(specs), config.seed)
compared = [
    row
    for arm in arms
    if arm != baseline
    for row in comparisons.compare(found | merged, arm, baseline, config.seed)
]
bases = {one.label: paper_tables.base_of(models.origin(one)) for one in specs}
beside = [
    paper_tables.side_by_side(table, scores.for_paper(table, scored, bases, config.temperature))
    for table in printed
]

# %% Write tables, charts, the page and the manifest
said = notes + scores.notes(scored, found, tests) + checkpoint_selection.unequal(run, arms)
said += decontamination.report_overlap(
    checkpoint_selection.trained_on(run), tests, config.benchmarks_dir, revisions, config.seed
)
sections = {
    "Scores": report.scores_table(scored),
    f"Against {baseline}": report.comparisons_table(compared),
    "Over seeds": report.seeds_table(by_seed),
    "Choice of checkpoints": report.selection_table(selected),
    "The paper": "\n\n".join(beside),
}
report.write(
    run / "05_results.md", sections, [report.settings_line(run.name, config, len(shots)), *said]
)
report.chart(scored, run / "05_results.png")
report.selection_chart(selected, run / "05_selection.png")
html_report.write_page(
    run / "05_outputs.html",
    {key: result.rows for key, result in found.items()},
    scored,
    test_sets.find_private(tests),
    run.name,
)
headline = {
    "engines": engines,
    "scores": scored,
    "comparisons": compared,
    "seeds": by_seed,
    "selection": selected,
}
files.write_json(run / "05_eval" / "scores.json", headline)
read = [config.few_shot] if config.few_shot else []
runs.write_manifest(
    run / "05.run.json",
    config,
    test_sets.list_local_files(config.benchmarks_dir, tests) + read,
    **headline,
)
print(
    "\n"
    + "\n\n".join(
        [*(text for heading, text in sections.items() if text and heading != "Scores"), *said]
    )
)
print(
    f"\nwrote {run / '05_results.md'} and .png, {run / '05_outputs.html'} (open it in a browser: every output), and {run / '05_eval'}"
)
print(
    f"next: read runs/{config.name}/05_results.md, then change one setting: python 01_sample.py --help"
)
if failed := sum(row["failed"] for row in scored + selected if row["benchmark"] != "AVG"):
    print(
        f"{failed} items got no output (status 3): the same command asks only for those; where it cannot help: --count-failed"
    )
    sys.exit(3)
