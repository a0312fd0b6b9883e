# %% [markdown]
"""
# 03 Build: critiques -> training sets

In: `02_critiques.jsonl` (and `02_answers.jsonl`). Out: `03_data/<set>.jsonl`, one training set each,
and `03_report.md` and `.png`, a page about the data to read before training.

| set | prompt | the model learns to write |
|---|---|---|
| sft | question | the noisy response |
| sft-verified | question | a response with the teacher's verdict right |
| sft-teacher | question | the teacher's own answer |
| cft | question and noisy response | the critique |
| cft-short | the same | the critiques that are about as long as SFT answers (Table 10) |
| cft-clean | the same | critiques whose verdict agrees with the gold |
| sft-other | question | the responses of another run, `--mix` |
| mix | as in both | cft and sft-other in one set (Table 9) |

    python 03_build.py                                                 # tiny: 800 rows in each set
    python 03_build.py --name mine --arms cft sft --rows 5000 --decontaminate all
    python 03_build.py --name mine --arms cft --wrong-share 0.5 --suffix half       # also: cft-half
    python 03_build.py --name mine --arms cft-shuffled cft-verdict       # controls: only if named

Rows are put in one order, by seed, and each training set (an arm of the comparison, hence `--arms`)
takes the first that fit. With one response a question sft, sft-teacher and cft share their
questions, and sft-verified has more of those that were answered right. The sets have equal rows,
not equal tokens; the page says how many.
"""

# %% Settings
from dataclasses import dataclass

from common.core.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting(
        "tiny",
        "tiny, paper, one-shot, ... (common/core/presets.py); "
        "default: what 01 was run with, tiny for a new run",
    )
    seed: int = setting(0, "of the choice and order of rows")
    limit: int | None = setting(None, "use only the first so many critiques of the file")
    teacher: list[str] = setting(
        [], "whose critiques and answers, or all (default: those of the last run of 02)"
    )
    arms: list[str] = setting(
        [],
        "training sets to build, also the controls cft-shuffled cft-verdict cft-self-critique "
        "(default: all but those, if their inputs exist)",
    )
    rows: int = setting(50_000, "rows in each training set")
    select: str = setting(
        "random",
        "which rows, if there are more: random; longest or shortest critiques; "
        "length-matched: critiques about as long as their response",
        choices=["random", "longest", "shortest", "length-matched"],
    )
    wrong_share: float | None = setting(
        None, "share of rows whose response has the verdict wrong, 0 to 1 (default: as it comes)"
    )
    per_question: int | None = setting(None, "rows of one question at most")
    min_tokens: int | None = setting(
        None, "leave out critiques whose training row, prompt included, is shorter"
    )
    max_tokens: int | None = setting(None, "or longer (04 cuts or drops at its --cutoff, 2048)")
    tokenizer: str = setting(
        "Qwen/Qwen2.5-Math-7B", "whose tokens are counted: folder, hub id, or base (the run's)"
    )
    mix: str | None = setting(None, "a run of 01 whose responses are the other half of the set mix")
    decontaminate: list[str] = setting(
        [],
        "leave out questions of these benchmarks: names of common/data/test_sets.py, all, or a "
        ".jsonl file (the paper: none)",
    )
    benchmarks_dir: str | None = setting(None, "read DIR/NAME/test.jsonl instead of the hub")
    export: list[str] = setting(
        [], "write the sets also for other trainers: alpaca (LLaMA-Factory), messages (ms-swift)"
    )
    suffix: str = setting("", "call the training sets NAME-SUFFIX, besides those of other settings")
    system: str = setting(
        "You are a helpful assistant.", "system message of every row; '' for none"
    )


config = configure(Config, "03")

# %% Check the settings
from common.core import files, runs
from common.core.errors import InputError
from common.data import (
    critique_quality,
    decontamination,
    exports,
    report,
    selection,
    sources,
    training_sets,
)
from common.teacher import critiques

run = runs.run_folder(config.name)
matches_file = run / "03_contaminated.jsonl"
labels = training_sets.label_sets(config.arms, config.suffix)  # {training set: its label}
if config.min_tokens and config.max_tokens and config.min_tokens > config.max_tokens:
    raise InputError(
        f"--min-tokens {config.min_tokens} is more than --max-tokens {config.max_tokens}.\n"
        "Give the smaller one first."
    )
exports.check(config.export)

# %% Read the critiques, the teacher's own answers, the responses of another run
runs.check_inputs(run, "02")
all_rows = files.read_jsonl(
    runs.stage_file(run, "02_critiques.jsonl"),
    ("id", "question_id", "critique_id", "teacher", "gold", "source", "generator", "finish_reason"),
)
failed = files.read_jsonl_if_exists(run / "02_failed.jsonl")
teachers, teacher_rows = selection.select_teachers(
    all_rows, config.teacher, runs.read_manifest(run, "02").get("teachers")
)
rows, left_out = selection.usable_critiques(teacher_rows[: config.limit])
self_critiques, _ = selection.usable_critiques(
    [row for row in all_rows if row["teacher"] == critiques.SELF]
)
answers = selection.read_answers(run / "02_answers.jsonl", teachers)
mix_file, other_responses = None, []
if config.mix:
    mix_file = runs.stage_file(runs.run_folder(config.mix), "01_responses.jsonl")
    other_responses, n_unfinished = selection.read_other_responses(mix_file, config.seed)
    left_out["rows of --mix without a finished response"] = n_unfinished
n_right = sum(row["verdict"] == "right" for row in rows)
print(
    f"{len(rows)} critiques of {', '.join(teachers)}: {n_right} with the verdict right, "
    f"{len(rows) - n_right} wrong; {len(answers)} answers of the teacher"
)
n_failed = len({row["id"] for row in failed if row["teacher"] in teachers})
if n_failed:
    print(
        f"note: of {n_failed} responses a critique, or an answer to their question, by one of "
        f"{', '.join(teachers)} is missing ({run / '02_failed.jsonl'} says why)"
    )

# %% Leave out the questions of the test sets
notes = []
for source in sorted({str(row["source"]) for row in rows + other_responses}):
    license_note = sources.describe_license(source)
    if license_note:
        notes.append(license_note)
test_sets, contaminated = {}, []
if config.decontaminate:
    questions = {row["question_id"]: row["question"] for row in rows + other_responses}
    test_sets = decontamination.load_test_sets(
        config.decontaminate, config.benchmarks_dir, config.seed
    )
    contaminated = decontamination.find_matches(questions, test_sets)
    lines = decontamination.describe_summary(decontamination.summarize(contaminated, test_sets))
    notes += lines or ["no question of a test set was found"]
    notes.append(f"compared with {', '.join(test_sets)}; every match: {matches_file}")
elif {row["source"] for row in rows} != {"tiny"}:
    notes.append(
        "the questions were not compared with any test set (--decontaminate all); "
        "05 says which it finds among them word for word"
    )
removed = {match["question_id"] for match in contaminated if match["removed"]}
clean_rows = [row for row in rows if row["question_id"] not in removed]
clean_responses = [row for row in other_responses if row["question_id"] not in removed]
left_out["rows whose question is in a test set"] = len(rows) - len(clean_rows)
left_out["rows of --mix whose question is in a test set"] = len(other_responses) - len(
    clean_responses
)

# %% Measure how long the rows are
counter = selection.Lengths(selection.load_length_tokenizer(config, run))
lengths = selection.measure_lengths(clean_rows + self_critiques, counter, config.system)
limits = (config.min_tokens, config.max_tokens)
rows, out_of_limits = selection.within_length_limits(clean_rows, *limits, lengths)
left_out |= out_of_limits
ids = {row["id"] for row in rows}
self_critiques = [row for row in self_critiques if row["id"] in ids]
self_critiques, _ = selection.within_length_limits(self_critiques, *limits, lengths)

# %% Grade the responses against their golds
golds = critique_quality.collect_golds(all_rows)
correct, gold_counts = critique_quality.grade_responses(rows, golds)
n_conflicting = gold_counts["conflicting golds (questions)"]
if n_conflicting:
    notes.append(
        f"{n_conflicting} questions have conflicting golds, so their responses are not graded"
    )
if correct and not any(correct.values()):
    notes.append(
        f"not one of {len(correct)} responses gives its gold: "
        "does the column of the gold hold the final answer alone?"
    )
n_equal = len(rows) - len({(row["id"], row["critique"]) for row in rows})
if n_equal:
    notes.append(
        f"{n_equal} critiques equal another of the same response word for word; "
        "a training set takes such a text once"
    )
for note in notes:
    print(f"note: {note}")
for reason, number in left_out.items():
    if number:
        print(f"left out: {number} {reason}")
if not rows:
    raise InputError(f"no critique of {', '.join(teachers)} is left; the reasons are above.")

# %% Put the rows in one order, for all training sets
# Differs from the paper: random rows. The paper says sampled, but its builder takes the longest
# critiques (--select longest).
response_ids = {row["id"] for row in all_rows + failed}
ordered = selection.order_rows(rows, config.select, config.seed, lengths, response_ids)
inputs = training_sets.BuildInputs(
    config.system,
    answers,
    correct,
    lengths,
    self_critiques,
    clean_responses,
    config.wrong_share,
    config.per_question,
)

# %% Build the training sets
built, summaries = {}, {}
question_ids = {row["id"]: row["question_id"] for row in all_rows + clean_responses}
for name, label in labels.items():
    set_rows, n_fitting = training_sets.build_training_set(name, ordered, inputs, config.rows)
    shortfall = training_sets.explain_shortfall(name, set_rows, n_fitting, inputs, config.rows)
    if not set_rows and config.arms:
        fix = training_sets.TRAINING_SETS[name].fix.format(name=config.name)
        raise InputError(f"{label}: no row{shortfall}\nTake it out of --arms, or {fix}")
    if not set_rows:
        print(f"{label}: left out, no row{shortfall}")
    elif not config.arms and training_sets.same_texts(set_rows, built.get(labels["cft"], [])):
        print(f"{label}: left out, its rows are those of {labels['cft']}")
    else:
        built[label] = [row | {"arm": label} for row in set_rows]
        summaries[name] = selection.summarize(label, set_rows, counter, question_ids)
        print(f"{label}: {selection.describe_summary(summaries[name], counter.unit)}{shortfall}")
if not built:
    raise InputError("no training set could be built; the reasons are above.")
for note in training_sets.describe_differences(summaries):
    print(f"note: {note}")

# %% Write them, the page, and what other trainers read
paths = {label: run / "03_data" / f"{label}.jsonl" for label in built}
for label, path in paths.items():
    files.write_jsonl(path, built[label])
matches_file.unlink(missing_ok=True)  # of an earlier build
if config.decontaminate:
    files.write_jsonl(matches_file, contaminated)
report.write(
    run / "03_report.md",
    run / "03_report.png",
    rows + self_critiques if labels.get("cft-self-critique") in built else rows,
    correct,
    gold_counts,
    left_out,
    summaries.values(),
    selection.lengths_by_kind(rows, lengths),
    counter.unit,
    notes,
)
exports.write(run / "03_export", built, config.export)
print(f"wrote {', '.join(map(str, paths.values()))}, and {run / '03_report.md'} and .png")

# %% The manifest
input_files = [
    run / "02_critiques.jsonl",
    *([run / "02_answers.jsonl"] if answers else []),
    *([mix_file] if config.mix else []),
]
input_files += decontamination.list_local_files(
    config.decontaminate, config.benchmarks_dir, test_sets
)
earlier = runs.earlier(run, built)
runs.write_manifest(
    run / "03.run.json",
    config,
    input_files,
    arms=[*summaries.values()],
    teachers=teachers,
    left_out=left_out,
    length_unit=counter.unit,
    rows={name: len(set_rows) for name, set_rows in built.items()},
    earlier=earlier,
    output_sha256={name: files.file_hash(path) for name, path in paths.items()},
    responses={"number": len(response_ids), "ids": files.content_id(*sorted(response_ids))},
)  # which the order is made of
if earlier:
    print(
        f"{', '.join(earlier)} are from earlier commands: {run / '03.run.json'} says how they were "
        "made, 04 trains them if --arms names them"
    )
print(f"next: python 04_train.py --name {config.name}")
