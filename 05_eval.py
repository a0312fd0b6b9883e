# %% [markdown]
"""
# 05 Eval: checkpoints -> scores

In: models and test sets. Out: `05_eval/<model>/<benchmark>.jsonl` (prompt, output and grades of
every item) with its score, `05_results.md` and `.png`, and `05_outputs.html`, a page to read the
outputs in.

    python 05_eval.py                   # tiny: the base and every training set, greedy
    python 05_eval.py --name mine --benchmarks gsm8k math500
    python 05_eval.py --name mine --model base runs/mine/04_train/cft --benchmarks math500
    python 05_eval.py --name control --preset paper --model cft=TIGER-Lab/Qwen2.5-Math-7B-CFT \\
        --paper table2
    python 05_eval.py --name mine --model cft=served-name@http://localhost:8000/v1

The third one takes the best of all checkpoints of cft. At test time a CFT model solves like any
other: it is asked the question, not for a critique. Outputs are journalled under a hash of the
model's content (of a served model: its name and address), the prompt and the settings, so no model
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
        "tiny, paper, one-shot, ... (common/core/presets.py); default: what 01 was run with, "
        "tiny for a new run",
    )
    seed: int = setting(0, "of bootstraps, samples and GPQA's options and, tiny, of the world")
    limit: int | None = setting(
        None, "use the first so many items of each benchmark, the validation set included"
    )
    model: list[str] = setting(
        [],
        "models: base, an arm, a folder (of a model, an adapter, or of checkpoints, of which the "
        "best is taken), a hub id, NAME@URL of a server; LABEL=NAME names one, LABEL several "
        "times: seeds of one arm (default: base and all arms)",
    )
    selection: str = setting(
        "auto",
        "which checkpoint of an arm: last; or the best on validation (MATH, disjoint from "
        "MATH-500), paper (MATH-500) or heldout (the run's own questions); auto: last, but of a "
        "folder of checkpoints the best on validation",
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
        "prompt form: chatml, deepseek, own (the tokenizer's), or auto (by the tokenizer; chatml "
        "for a server)",
    )
    few_shot: str | None = setting(
        None, "JSONL of question and response: turns before each question (the paper: none)"
    )
    max_new_tokens: int = setting(2048, "tokens per output at most")
    samples: int = setting(1, "outputs per item; several give avg@k, pass@k, maj@k")
    temperature: float = setting(0.0, "of the sampling; 0 is greedy")
    top_p: float = setting(1.0, "nucleus of the sampling")
    batch_size: int = setting(32, "prompts at a time on one GPU")
    load_in_4bit: bool = setting(False, "local models: in 4 bits (a 7B model on 24 GB and less)")
    base_url: str | None = setting(
        None, "OpenAI-compatible server of all --model, such as http://localhost:8000/v1"
    )
    concurrency: int = setting(256, "requests in flight to a server at most")
    timeout: float = setting(300.0, "seconds for one request to a server in all")
    budget: float | None = setting(
        None,
        "USD that a server's model may cost on one benchmark, over all starts: a hard stop; inf: none",
    )
    price_in: float | None = setting(
        None, "USD per million prompt tokens, where common/generate/budget.py has none"
    )
    price_out: float | None = setting(None, "USD per million tokens of outputs")
    count_failed: bool = setting(
        False, "count an item that got no output as wrong (else it is left out, and said)"
    )
    baseline: str | None = setting(
        None,
        "the model that the others are compared with (default: sft if it is among them, else the "
        "first)",
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
tables = paper_tables.find_tables(config.paper)
if tables and not config.model and not (run / "04_train").exists():  # nothing to score yet
    for table in tables:
        print(paper_tables.side_by_side(table, [], {}), end="\n\n")
    raise SystemExit
if config.threads:
    torch.set_num_threads(config.threads)
if config.samples > 1 and not config.temperature:
    raise InputError(
        f"--samples {config.samples} at temperature 0 are {config.samples} equal outputs.\n"
        "Add --temperature 0.6, for example."
    )
revisions = test_sets.parse_revisions(config.revision, config.benchmarks)


def load_items(name):
    revision = revisions.get(name)
    if name == "math500_validation" and not revision:
        revision = revisions.get("math")
    return test_sets.load_items(name, config.benchmarks_dir, revision, config.limit, config.seed)


tests = {name: load_items(name) for name in config.benchmarks}
shots = []
if config.few_shot:
    for row in files.read_jsonl(config.few_shot, ("question", "response")):
        shots.append((row["question"], row["response"]))
print(", ".join(f"{name}: {len(items)} items" for name, items in tests.items()))

# %% The models
# Differs from the paper: an arm's last checkpoint. The paper kept the best on MATH-500, which lies
# inside its MATH test set.
specs = models.resolve_models(run, config.model, config.base_url, config.selection)
compared_labels, baseline = models.choose_baseline(specs, config.baseline)
sampling_seed = config.seed if config.temperature else None
engines = {}  # by label: what the manifest says of each


# %% Ask one model everything, grade it, and write 05_eval/<label>/<benchmark>.jsonl
def evaluate(spec, test_items):
    """Return a Result for each benchmark of test_items, {benchmark: items}."""
    folder, results = run / "05_eval" / spec.label, []
    model = models.open_model(spec, config)
    engine, engines[spec.label] = model.engine, model.manifest
    for name, items in test_items.items():
        system, stop = test_sets.get_test_set(name).prompt_form
        form = model.template, system, shots, model.tokenizer
        texts = [prompts.solve_prompt(item["question"], *form) for item in items]
        requests = scores.build_requests(texts, config.samples, greedy=not config.temperature)
        sampling = Sampling(
            config.temperature, config.top_p, config.max_new_tokens, list(stop), sampling_seed
        )
        journal_folder = run / "05_journal" / files.content_id(engine.identity)[:12]
        label = f"05 {spec.label} {name}"
        with Journal(journal_folder / f"{name}.jsonl") as journal:
            if spec.url:
                models.check_served(engine, journal)
            outputs = complete(
                engine, requests, sampling, journal, label, probe=spec.url is not None
            )
            cost = engine.budget.summary(journal) if spec.url else None
        rows = scores.grade_outputs(folder, name, items, requests, outputs, config.count_failed)
        conditions = {"sampling": asdict(sampling), "prompts": files.content_id(texts)}
        conditions = model.conditions | conditions
        timing = scores.measure_timing(outputs)
        result = scores.Result(name, spec.label, rows, conditions, timing)
        context = {
            "engine": model.manifest,
            "benchmark": test_sets.describe(name, items, revisions.get(name)),
            "few_shot": shots,
            "cost": cost,
        }
        scores.write_score(folder, result, context, config.seed)
        results.append(result)
    engine.close()
    return results


# %% Choose checkpoints
# Training goes on after the best one: which is reported is a choice, and made on the test set it
# flatters the score.
selected, notes = [], []
if any(spec.checkpoints for spec in specs):
    validation = checkpoint_selection.choose_validation_set(config.selection, config.benchmarks)
    if validation == test_sets.HELDOUT:
        items = checkpoint_selection.load_heldout(run, specs)[: config.limit]
    else:
        items = load_items(validation)
    notes.append(checkpoint_selection.describe_validation(validation))
    for spec in specs:
        if spec.checkpoints:
            results = []
            for checkpoint in spec.checkpoints:  # hours on a GPU
                results += evaluate(checkpoint, {validation: items})
            chosen, rows = checkpoint_selection.choose_checkpoint(spec, results, config.seed)
            spec.location, spec.url = chosen.location, chosen.url
            selected += rows
            notes.append(checkpoint_selection.describe_choice(rows))
            print(notes[-1])

# %% Run all of them
results = []
for spec in specs:
    results += evaluate(spec, tests)
results.sort(key=lambda result: config.benchmarks.index(result.benchmark))
by_key = {(result.benchmark, result.model): result for result in results}

# %% [markdown]
"""
## Scores
Accuracy by the strict grader, with its 95% interval (Wilson's; over several samples a bootstrap
over items), and by the paper's rules. `unboxed` counts answers that were not in a \\boxed{}, `cut`
outputs that ran into `--max-new-tokens`.
"""

# %% Score; and one question on which the models differ, as each answers it
all_scores = [result.score for result in results]
all_scores += scores.average_scores(all_scores)
scores_table = report.format_table(report.SCORES, all_scores)
print(f"\n{scores_table}\n")
first_results = [result for result in results if result.benchmark == config.benchmarks[0]]
print(scores.format_example(first_results))

# %% Compare, item by item, on the same items, prompts and settings, or not at all
means, seed_rows = comparisons.average_seeds(by_key, models.group_seeds(specs), config.seed)
comparison_rows = []
for label in compared_labels:
    if label != baseline:
        comparison_rows += comparisons.compare(by_key | means, label, baseline, config.seed)
bases = {spec.label: paper_tables.base_of(models.read_origin(spec)) for spec in specs}
paper_sections = []
for table in tables:
    text = paper_tables.side_by_side(table, all_scores, bases, config.temperature)
    paper_sections.append(text)

# %% Write tables, charts, the page and the manifest
notes += scores.list_notes(results)
notes += decontamination.report_overlap(checkpoint_selection.trained_on(run), tests)
notes.append("On another CPU or GPU the last digits differ.")
sections = {
    f"Against {baseline}": report.format_table(report.COMPARISONS, comparison_rows),
    "Over seeds": report.format_table(report.SEEDS, seed_rows),
    "Choice of checkpoints": report.format_table(report.SELECTION, selected),
    "The paper": "\n\n".join(paper_sections),
}
settings_line = report.describe_settings(run.name, config, len(shots))
report.write_results(
    run / "05_results.md",
    {"": report.summarize(all_scores), "Scores": scores_table, **sections},
    [settings_line, *notes],
)
report.draw_scores(all_scores, run / "05_results.png")
report.draw_selection(selected, run / "05_selection.png")
html_report.write_page(
    run / "05_outputs.html",
    {key: result.rows for key, result in by_key.items()},
    all_scores,
    test_sets.find_private(tests),
    run.name,
)
headline = {
    "engines": engines,
    "scores": all_scores,
    "comparisons": comparison_rows,
    "seeds": seed_rows,
    "selection": selected,
}
files.write_json(run / "05_eval" / "scores.json", headline)
inputs = test_sets.list_local_files(config.benchmarks_dir, tests)
if config.few_shot:
    inputs.append(config.few_shot)
runs.write_manifest(run / "05.run.json", config, inputs, **headline)
print("\n" + "\n\n".join([*filter(None, sections.values()), *notes]))
print(
    f"\nwrote {run / '05_results.md'} and .png, {run / '05_eval'} and {run / '05_outputs.html'} "
    "(open it in a browser: every output)"
)
print(
    f"next: read runs/{config.name}/05_results.md, then change one setting: "
    "python 01_sample.py --help"
)
failed = sum(row["failed"] for row in all_scores + selected if row["benchmark"] != "AVG")
if failed:
    print(
        f"{failed} items got no output (status 3): the same command asks only for those; "
        "to count them as wrong: --count-failed"
    )
    sys.exit(3)
