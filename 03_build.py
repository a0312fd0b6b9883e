#!/usr/bin/env python3
# %% [markdown]
"""
# 03 Build: critiques -> training sets

In: `02_critiques/` (and `02_answers/`). Out: `03_data/<set>.jsonl`, one training set each, and
`03_report.md` and `.png`, a page about the data to read before training.

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

# %% Settings: these, and those of RunConfig (name, preset)
from dataclasses import dataclass

from common.core.config import RunConfig, configure, setting


@dataclass
class Config(RunConfig):
    arms: list[str] = setting(
        [],
        "training sets to build, also the controls cft-shuffled cft-verdict cft-self-critique "
        "(default: all but those, if their inputs exist)",
    )
    rows: int = setting(50_000, "rows in each training set", minimum=1)
    suffix: str = setting("", "call the training sets NAME-SUFFIX, besides those of other settings")
    seed: int = setting(0, "of the choice and order of rows", minimum=0)
    teacher: list[str] = setting([], "whose critiques and answers (default: of all)", group="data")
    limit: int | None = setting(None, "only the first so many critiques", minimum=1, group="data")
    min_critique_words: int = setting(
        3, "leave out critiques with fewer words before the conclusion", minimum=0, group="data"
    )
    select: str = setting(
        "random",
        "which rows, if there are more: random; longest or shortest critiques; "
        "length-matched: critiques about as long as their response",
        choices=["random", "longest", "shortest", "length-matched"],
        group="data",
    )
    wrong_share: float | None = setting(
        None, "share of rows with verdict wrong (default: any)", minimum=0, maximum=1, group="data"
    )
    per_question: int | None = setting(
        None, "rows of one question at most; not with --wrong-share", minimum=1, group="data"
    )
    max_tokens: int | None = setting(
        None,
        "leave out critiques whose training row, prompt included, is longer "
        "(04 cuts or drops at its --cutoff, 2048)",
        minimum=1,
        group="data",
    )
    tokenizer: str = setting(
        "Qwen/Qwen2.5-Math-7B",
        "whose tokens are counted: folder, hub id, or base (the run's)",
        group="data",
    )
    mix: str | None = setting(
        None, "a run of 01 whose responses are the other half of the set mix", group="data"
    )
    decontaminate: list[str] = setting(
        [],
        "leave out questions of these benchmarks: names of common/data/test_sets.py, all, or a "
        ".jsonl file (the paper: none)",
        group="data",
    )
    benchmarks_dir: str | None = setting(
        None, "read DIR/NAME/test.jsonl instead of the hub", group="data"
    )
    export: list[str] = setting(
        [],
        "write the sets also for other trainers: alpaca (LLaMA-Factory), messages (ms-swift)",
        group="data",
    )
    system: str = setting(
        "You are a helpful assistant.", "system message of every row; '' for none", group="data"
    )


config = configure(Config, "03")

# %% Check the settings
from common.core import files, manifests, special_tokens, untrusted
from common.core.errors import InputError
from common.core.tables import count
from common.data import (
    decontamination,
    exports,
    grades,
    report,
    selection,
    sources,
    test_sets,
    training_sets,
)
from common.teacher.critiques import SELF

run = manifests.run_folder(config.name)
labels = training_sets.label_sets(config.arms, config.suffix)  # {training set: its label}
exports.check(config.export)
if config.per_question and config.wrong_share is not None:
    raise InputError(
        f"--per-question {config.per_question} and --wrong-share {config.wrong_share} together: "
        "which rows are then the first is not defined.\nGive one of them."
    )

# %% Read the critiques, the teacher's own answers, the responses of another run
input_files = manifests.outputs(run, "02_critiques")
lock = files.lock_stage(run / "03_data")
critiques, self_critiques = selection.read_critiques(input_files)
responses = []  # for their golds alone: a critique that came with the data has one of them only
for path in run.glob("01_responses/*.jsonl"):
    responses += files.iter_jsonl(path)
golds = grades.collect_golds(critiques + self_critiques + responses)
teachers = selection.select_teachers(critiques, config.teacher)
critiques = [row for row in critiques if row["teacher"] in teachers]
rows = critiques[: config.limit] + self_critiques
rows, left_out = selection.usable_critiques(rows, config.min_critique_words)

answer_files = sorted(run.glob("02_answers/*.jsonl"))
answers = selection.read_answers(answer_files, teachers)
mix_files = []
if config.mix:
    mix_files = manifests.outputs(manifests.run_folder(config.mix), "01_responses")
other_responses = selection.read_finished_responses(mix_files)
input_files += answer_files + mix_files

# %% Leave out the questions of the test sets
questions = {row["question_id"]: row["question"] for row in rows + other_responses}
tests = decontamination.load_test_sets(config.decontaminate, config.benchmarks_dir, config.seed)
matches = decontamination.find_matches(questions, tests)
notes = decontamination.describe_matches(matches)
compared = ", ".join(tests) or "none (--decontaminate all)"
notes.append(f"test sets with which the questions were compared: {compared}")
input_files += test_sets.list_local_files(config.benchmarks_dir, tests)
removed = {match["question_id"] for match in matches if match["removed"]}
clean_rows = [row for row in rows if row["question_id"] not in removed]
other_responses = [row for row in other_responses if row["question_id"] not in removed]
left_out["rows whose question is in a test set"] = len(rows) - len(clean_rows)

# %% Measure how long the rows are
tokenizer = selection.load_length_tokenizer(config.tokenizer, run)
rows = selection.add_lengths(clean_rows, tokenizer, config.system)
if config.max_tokens:
    if not tokenizer:
        raise InputError("--max-tokens cannot be counted without one: --tokenizer FOLDER")
    rows = [row for row in rows if row["row_length"] <= config.max_tokens]
left_out["too long (--max-tokens)"] = len(clean_rows) - len(rows)
n_special = special_tokens.count_rows(rows + other_responses, tokenizer) if tokenizer else 0
if n_special:
    notes.append(f"{count(n_special, 'row')} with text such as <|im_end|>, trained as plain text")

# %% Grade the responses against their golds
correct, gold_counts = grades.grade_responses(rows, golds)
notes.append(f"responses against their golds: {gold_counts}")
source_names = {str(row["source"]) for row in rows + other_responses}
notes += sources.describe_sources(source_names)
for note in notes:
    print(f"note: {note}")
for reason, number in left_out.items():
    if number:
        print(f"left out: {number} {reason}")

# %% Put the rows in one order, for all training sets
# Differs from the paper: random rows. The paper says sampled, but its builder takes the longest
# critiques (--select longest).
by_teacher = [row for row in rows if row["teacher"] != SELF]
ordered = selection.order_rows(by_teacher, config.select, config.seed)
print(f"{count(len(ordered), 'critique')} of {', '.join(teachers)}")
if not ordered:
    raise InputError("no critique is left; the reasons are above.")
inputs = training_sets.BuildInputs(
    system=config.system,
    answers=answers,
    correct=correct,
    self_critiques=[row for row in rows if row["teacher"] == SELF],
    other_responses=selection.order_rows(other_responses, "random", config.seed),
    wrong_share=config.wrong_share,
    per_question=config.per_question,
)

# %% Build the training sets
built, summaries = {}, {}
question_ids = {row["id"]: row["question_id"] for row in rows + other_responses}
for name, label in labels.items():
    set_rows = training_sets.build_training_set(name, ordered, inputs, config.rows)
    if not set_rows:
        fix = training_sets.TRAINING_SETS[name].fix.format(name=config.name)
        if config.arms:
            raise InputError(f"{label}: no row fits.\nTake it out of --arms, or {fix}")
        print(f"{label}: left out, no row fits; {fix}")
        continue
    texts = training_sets.training_texts(set_rows)
    if not config.arms and texts == training_sets.training_texts(built.get(labels["cft"], [])):
        print(f"{label}: left out, its rows are those of {labels['cft']}")
        continue
    built[label] = [row | {"arm": label} for row in set_rows]
    summaries[label] = selection.summarize(label, set_rows, tokenizer, question_ids)
    print(f"{label}: {selection.describe_summary(summaries[label])}")
if not built:
    raise InputError("no training set could be built; the reasons are above.")

# %% Write them, what other trainers read, and the page
for label, set_rows in built.items():
    path = run / "03_data" / f"{label}.jsonl"
    files.write_jsonl(path, set_rows)
    manifests.write_manifest(
        path, config, input_files, teachers=teachers, left_out=left_out, **summaries[label]
    )
exports.write(run / "03_export", built, config.export)
matches_file = run / "03_contaminated.jsonl"
matches_file.unlink(missing_ok=True)  # of an earlier build
if config.decontaminate:
    files.write_jsonl(matches_file, matches)
report.write(run, rows, correct, list(summaries.values()), left_out, notes)
print(f"wrote {', '.join(built)} in {run / '03_data'}; what they hold: {run / '03_report.md'}")

# %% One row, as the model will see it
label = labels.get("cft")
if label not in built:
    label = next(iter(built))
example = built[label][0]
print(f"\nThe first row of {label}, whose last message is learned:")
for message in example["prompt"] + example["completion"]:
    print(f"--- {message['role']}:\n{untrusted.printable(message['content'][:1500])}")
chosen = f" --arms {' '.join(built)}" if config.arms else ""
print(f"next: python 04_train.py --name {config.name}{chosen}")
lock.release(force=True)
