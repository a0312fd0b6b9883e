# %% [markdown]
"""
# 05 Eval: checkpoints -> scores

In: models and test sets. Out: `05_eval/<model>/<benchmark>.jsonl` (prompt, output and grades of
every item) with its score, `05_results.md` and `.png`, and `05_outputs.html`, a page to read the
outputs in.

    python 05_eval.py                   # tiny: the base and every training set, greedy
    python 05_eval.py --name mine --benchmarks gsm8k math500
    python 05_eval.py --name mine --selection validation --benchmarks math500
    python 05_eval.py --name control --preset paper --model cft=TIGER-Lab/Qwen2.5-Math-7B-CFT \\
        --paper table2
    python 05_eval.py --name mine --benchmarks exam=questions.jsonl   # a test set of your own
    python 05_eval.py --name mine --model cft --ask "What is 2 + 3?"  # nothing is scored
    python 05_eval.py --name mine --model cft=served-name@http://localhost:8000/v1
    python 05_eval.py --name mine --seeds cft=runs/a/04_train/cft,runs/b/04_train/cft
    torchrun --nproc-per-node 8 05_eval.py --name mine          # on all GPUs

`--selection` takes the best of all checkpoints. At test time a CFT model solves like any other: it
is asked the question, not for a critique. Outputs are journalled under a hash of the model's
content (of a served model: its name and address), the prompt and the settings, so no model gets
another one's answers, and what is already scored is not run again.
"""

# %% Settings: these, and those of EngineConfig (name, preset, budget, concurrency, ...)
from dataclasses import dataclass

from common.core.config import EngineConfig, configure, setting

USE, DATA, GENERATION = "what you will use", "data", "generation"
SERVER, CHECKPOINTS, STATISTICS = "server and money", "checkpoints", "statistics"


@dataclass
class Config(EngineConfig):
    model: list[str] = setting(
        [],
        "models: base, a training set, a folder, a hub id, NAME@URL of a server; LABEL=NAME "
        "names one (default: base and all training sets)",
        group=USE,
    )
    benchmarks: list[str] = setting(
        ["math", "minerva_math", "gsm8k", "olympiadbench", "aime24", "amc23"],
        "test sets: tiny; these six, math500 aime25 theoremqa mmlu_pro gpqa ifeval; NAME=FILE: "
        "your own (fields: question, gold, choices)",
        group=USE,
    )
    limit: int | None = setting(
        None, "score a random sample of so many items of each set", minimum=1, group=USE
    )
    ask: list[str] = setting(
        [], "only show one model's answers to these questions; nothing is written", group=USE
    )
    paper: list[str] = setting(
        [], "print these tables of the paper next to the scores: table2 ... table11", group=USE
    )
    seed: int = setting(0, "of samples, options, the miniature", minimum=0, group=USE)
    benchmarks_dir: str | None = setting(None, "DIR/NAME/test.jsonl instead of the hub", group=DATA)
    tolerance: float = setting(
        0.0, "of numbers in your own sets, 0.01 is 1%", minimum=0, maximum=0.5, group=DATA
    )
    template: str = setting(
        "auto",
        "prompt form; own: the tokenizer's; auto: by the tokenizer, chatml for a server",
        choices=["auto", "chatml", "deepseek", "own"],
        group=GENERATION,
    )
    ifeval_protocol: str = setting(
        "paper",
        "how IFEval is asked; paper: bare prompt, 2048 tokens; chat: own template, 1280",
        choices=["paper", "chat"],
        group=GENERATION,
    )
    ifeval_grading: str = setting(
        "reference",
        "IFEval's checkers; reference: with what is wrong in them; repaired: mended",
        choices=["reference", "repaired"],
        group=GENERATION,
    )
    max_new_tokens: int = setting(2048, "tokens per output at most", minimum=1, group=GENERATION)
    samples: int = setting(
        1, "outputs per item; several give avg@k, pass@k, maj@k", minimum=1, group=GENERATION
    )
    temperature: float = setting(0.0, "of the sampling; 0 is greedy", minimum=0, group=GENERATION)
    base_url: str | None = setting(
        None, "OpenAI-compatible server of all models: http://localhost:8000/v1", group=SERVER
    )
    selection: str = setting(
        "last",
        "which checkpoint of a training: last; or the best on validation (MATH, disjoint from "
        "MATH-500), paper (MATH-500) or heldout (the run's own questions)",
        choices=("last", "validation", "paper", "heldout"),
        group=CHECKPOINTS,
    )
    seeds: list[str] = setting(
        [],
        "LABEL=A,B,C: several trainings of one set, reported as their mean; A, B, C as in --model",
        group=STATISTICS,
    )
    baseline: list[str] = setting(
        [], "what others are compared with (default: sft, else the first model)", group=STATISTICS
    )
    count_failed: bool = setting(
        False, "count an item that got no output as wrong, not as missing", group=STATISTICS
    )


config = configure(Config, "05")

# %% Check the settings
import sys
from dataclasses import asdict, replace

import torch

from common.core import files, manifests
from common.core.config import parse_extra_body
from common.core.errors import InputError
from common.core.tables import count
from common.core.untrusted import printable
from common.data import decontamination, floors, test_sets
from common.evaluate import (
    ask,
    comparisons,
    html_report,
    instruction_following,
    models,
    paper_tables,
    report,
    scores,
)
from common.evaluate import checkpoint_selection as selection
from common.generate.journal import Journal
from common.generate.requests import Sampling, complete
from common.ifeval.language_tools import load_libraries
from common.tiny import mistakes
from common.train import distributed

distributed.start()
run = manifests.run_folder(config.name)
if config.preset.startswith("tiny"):
    torch.set_num_threads(1)  # more threads are slower for so small a model
if config.samples > 1 and not config.temperature:
    raise InputError(
        f"--samples {config.samples} at temperature 0 are {config.samples} equal outputs.\n"
        "Add --temperature 0.6, for example."
    )

# %% The models
# Differs from the paper: a training's last checkpoint. The paper kept the best on MATH-500, which
# lies inside its MATH test set.
choose = config.selection != "last" and not config.ask
specs, seed_groups = models.resolve_models(run, config.model, config.seeds, config.base_url, choose)
labels, baselines = models.choose_baselines(specs, seed_groups, config.baseline)
extra_body = parse_extra_body(config.extra_body) or None
sampling = Sampling(
    config.temperature,
    max_new_tokens=config.max_new_tokens,
    seed=config.seed if config.temperature else None,
    extra_body=extra_body,
)

# %% Only ask
if config.ask:
    for question, answer in zip(config.ask, ask.answer_questions(specs, config, sampling)):
        print(f"\n{question}\n-> {printable(answer)}")
    raise SystemExit

# %% The test sets
tables = paper_tables.find_tables(config.paper)
benchmarks = test_sets.add_own_sets(config.benchmarks, config.tolerance)


def load_items(name):
    return test_sets.load_items(name, config.benchmarks_dir, config.limit, config.seed)


tests = {name: load_items(name) for name in benchmarks}
if "ifeval" in tests:
    load_libraries()  # a missing one is seen before hours of generation
print(", ".join(f"{name}: {count(len(items), 'item')}" for name, items in tests.items()))
engines = {}  # by label: what the manifest says of each
if distributed.is_main():
    lock = files.lock_stage(run / "05_eval")


# %% Ask one model everything, grade it, and write 05_eval/<label>/<benchmark>.jsonl
def evaluate(spec, test_items):
    """Return a Result for each benchmark of test_items, {benchmark: items}, to process 0."""
    folder, results = run / "05_eval" / spec.label, []
    model = models.open_model(spec, config)
    engines[spec.label] = model.manifest
    journal_folder = run / "05_journal" / files.content_id(model.engine.identity)[:12]
    for name, items in test_items.items():
        system, stop = test_sets.get_test_set(name).prompt_form
        settings, solver = replace(sampling, stop=list(stop)), model
        if name == "ifeval":
            solver, settings = instruction_following.use_protocol(model, sampling, config)
        texts = solver.write_prompts([item["question"] for item in items], system)
        requests = scores.build_requests(texts, config.samples, greedy=not config.temperature)
        label, is_served = f"05 {spec.label} {name}", bool(spec.url)
        with Journal(journal_folder / f"{name}.jsonl") as journal:
            outputs = complete(model.engine, requests, settings, journal, label, probe=is_served)
        if not distributed.is_main():  # it has generated its share
            continue
        rules = config.count_failed, config.ifeval_grading
        rows = scores.grade_outputs(folder, name, items, requests, outputs, *rules)
        inputs = {
            "sampling": asdict(settings),
            "prompts": files.content_id(texts),
            "digest": test_sets.compute_digest(items),
        }
        result = scores.Result(name, spec.label, rows, inputs | solver.conditions)
        scores.write_score(folder, result, model.manifest)
        results.append(result)
    model.engine.close()
    return results


# %% Choose checkpoints
# Training goes on after the best one: which is reported is a choice, and made on the test set it
# flatters the score.
selected, notes = [], []
if any(spec.checkpoints for spec in specs):
    validation, note = selection.choose_validation_set(config.selection, benchmarks)
    notes.append(note)
    if validation == test_sets.HELDOUT:
        items = selection.load_heldout(run, specs, config.limit, config.seed)
    else:
        items = load_items(validation)
    for spec in specs:
        results = []
        for checkpoint in spec.checkpoints:  # hours on a GPU
            results += evaluate(checkpoint, {validation: items})
        if results:  # process 0 has them
            chosen, rows = selection.choose_checkpoint(spec, results)
            spec.location = chosen.location
            selected += rows
            notes.append(selection.describe_choice(rows))
            print(notes[-1])
        spec.location = distributed.broadcast(spec.location)

# %% Run all of them
results = []
for spec in specs:
    results += evaluate(spec, tests)
distributed.leave_to_main()
results.sort(key=lambda result: benchmarks.index(result.benchmark))
by_key = {(result.score["benchmark"], result.model): result for result in results}

# %% [markdown]
"""
## Scores
Accuracy by the strict grader, with its 95% interval over items (Wilson's; of several samples a
normal one with an item of 0 and an item of 1 added), and by the paper's rules. `unboxed` counts
answers that were not in a \\boxed{}, `truncated` outputs that ran into `--max-new-tokens`. The
floor is what one and the same answer to every question would score. For the miniature a table says
what went wrong first in the wrong answers.
"""

# %% Score; and one question on which the models differ, as each answers it
floor_by_name = {name: floors.find_floor(name, items) for name, items in tests.items()}
stale = [spec.label for spec in specs if models.is_stale(spec.location)]
all_scores = []
for result in results:
    floor = floor_by_name[result.benchmark]
    all_scores.append(scores.add_remarks(result.score, floor, result.model in stale))
all_scores += scores.average_scores(all_scores)
all_scores += instruction_following.list_shares(all_scores)
print(scores.format_example([r for r in results if r.benchmark == benchmarks[0]]))

# %% Compare, item by item, on the same items, prompts and settings, or not at all
means, seed_rows = comparisons.average_seeds(by_key, seed_groups)
comparison_rows = comparisons.compare(by_key | means, labels, baselines)
origins = {spec.label: models.read_origin(spec.location) for spec in specs}
paper_sections = []
for table in tables:
    text = paper_tables.side_by_side(table, all_scores, origins, config.temperature)
    paper_sections.append(text)

# %% Write tables, charts and the page
notes += scores.list_notes(results)
trained = selection.read_trained_questions(run)
notes += decontamination.report_overlap(trained, tests)
notes.append("Another CPU or GPU gives other digits: a small model may differ by some points.")
mistake_rows = [
    {"benchmark": "tiny", "model": result.model} | mistakes.count_mistakes(result.rows)
    for result in results
    if result.benchmark == "tiny"
]
sections = {
    "Scores": report.format_table(report.SCORES, all_scores),
    f"Against {' and '.join(baselines)}": report.format_table(report.COMPARISONS, comparison_rows),
    "First mistakes": report.format_table(report.MISTAKES, mistake_rows),
    "Over seeds": report.format_table(report.SEEDS, seed_rows),
    "Choice of checkpoints": report.format_table(report.SELECTION, selected),
    "The paper": "\n\n".join(paper_sections),
}
summary = report.summarize(all_scores, comparison_rows)
settings_line = report.describe_settings(run.name, config, engines)
page = report.format_page(summary, sections, [settings_line, *notes])
files.write_atomic(run / "05_results.md", page)
print(f"\n{page}")
report.draw_scores(all_scores, run / "05_results.png")
if selected:
    report.draw_selection(selected, run / "05_selection.png")
html_report.write_page(
    run / "05_outputs.html",
    {key: result.rows for key, result in by_key.items()},
    all_scores,
    [name for name in tests if test_sets.get_test_set(name).private],
    run.name,
)

# %% Write what the scores were made with
headline = {
    "digests": {name: test_sets.compute_digest(items) for name, items in tests.items()},
    "engines": engines,
    "scores": all_scores,
    "comparisons": comparison_rows,
    "seeds": seed_rows,
    "selection": selected,
}
files.write_json(run / "05_eval" / "scores.json", headline)
inputs = test_sets.list_local_files(config.benchmarks_dir, tests)
manifests.write_manifest(run / "05_results.md", config, inputs, **headline)
print(f"wrote {run}/05_results.md and .png, 05_eval and 05_outputs.html (every output)")
lock.release(force=True)
print("next: read 05_results.md, then change one setting: python 01_sample.py --help")
failed = sum(result.score["failed"] for result in results) + sum(row["failed"] for row in selected)
if failed:
    print(
        f"{count(failed, 'item')} got no output (status 3): the same command asks only for those; "
        "to count them as wrong: --count-failed"
    )
    sys.exit(3)
