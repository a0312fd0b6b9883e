# %% [markdown]
"""
# 03 Build: critiques -> training sets

In: `02_critiques.jsonl` (and `02_answers.jsonl`). Out: `03_data/<arm>.jsonl`, one training set per arm, and `03_report.md` and
`.png`, a page about the data to read before training.

| arm | prompt | the model learns to write |
|---|---|---|
| sft | question | the noisy response |
| sft-verified | question | a response that the teacher judged right |
| sft-teacher | question | the teacher's own answer |
| cft | question and noisy response | the critique |
| cft-short | the same | the critiques that are about as long as SFT answers (Table 10) |
| cft-clean | the same | critiques whose verdict agrees with the gold |
| sft-other | question | the responses of another run, `--mix` |
| mix | as in both | cft and sft-other in one set (Table 9) |

    python 03_build.py                                                       # tiny: 800 rows for each arm
    python 03_build.py --name mine --arms cft sft --rows 5000 --decontaminate all
    python 03_build.py --name mine --arms cft --wrong-share 0.5 --suffix half          # the arm cft-half, beside the others
    python 03_build.py --name mine --arms cft-shuffled cft-verdict                     # controls: built where they are named

Responses are put in one order, by seed, and each arm takes the first that fit: with one response a question sft, sft-teacher and
cft share their questions, sft-verified has more of those that were answered right. Arms have equal rows, not equal tokens; the report says how many.
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
    seed: int = setting(0, "of the choice and order of rows")
    limit: int | None = setting(None, "use only the first so many critiques of the file")
    teacher: list[str] = setting(
        [], "whose critiques and answers, or all (default: those of the last run of 02)"
    )
    arms: list[str] = setting(
        [],
        "which arms, also of the controls cft-shuffled cft-verdict cft-self-critique (default: all but those, where "
        "their inputs exist)",
    )
    rows: int = setting(50_000, "rows per arm")
    select: str = setting(
        "random",
        "which rows, when there are more: random; longest or shortest critiques; length-matched: critiques about as "
        "long as their response",
        choices=["random", "longest", "shortest", "length-matched"],
    )
    wrong_share: float | None = setting(
        None, "share of rows whose response is judged wrong, 0 to 1 (default: as it comes)"
    )
    per_question: int | None = setting(None, "rows of one question at most")
    min_tokens: int | None = setting(
        None, "leave out critiques whose training row, prompt included, is shorter"
    )
    max_tokens: int | None = setting(None, "or longer (04 cuts or drops at its --cutoff, 2048)")
    tokenizer: str = setting(
        "Qwen/Qwen2.5-Math-7B", "whose tokens are counted: folder, hub id, or base (the run's)"
    )
    mix: str | None = setting(None, "a run of 01 whose responses are the other half of the arm mix")
    decontaminate: list[str] = setting(
        [],
        "leave out questions that stand in these benchmarks: names of common/data/test_sets.py, all, or a "
        ".jsonl file (the paper: none)",
    )
    benchmarks_dir: str | None = setting(None, "read DIR/NAME/test.jsonl instead of the hub")
    export: list[str] = setting(
        [], "write the arms also for other trainers: alpaca (LLaMA-Factory), messages (ms-swift)"
    )
    suffix: str = setting(
        "", "call the arms NAME-SUFFIX, so that they stand beside those of other settings"
    )
    system: str = setting(
        "You are a helpful assistant.", "system message of every row; '' for none"
    )


config = configure(Config, "03")

# %% Settings that cannot be meant
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
labels = training_sets.label_sets(config.arms, config.suffix)  # {arm: what it is called here}
if config.min_tokens and config.max_tokens and config.min_tokens > config.max_tokens:
    raise InputError(
        f"--min-tokens {config.min_tokens} is more than --max-tokens {config.max_tokens}.\nGive the smaller one first."
    )
exports.check(config.export)

# %% Read the critiques, the teacher's own answers, the responses of another run
runs.check_inputs(run, "02")
written = files.read_jsonl(
    runs.stage_file(run, "02_critiques.jsonl"),
    ("id", "question_id", "critique_id", "teacher", "gold", "source", "generator", "finish_reason"),
)
failed = files.read_jsonl_if_exists(run / "02_failed.jsonl")
teachers, theirs = selection.select_teachers(
    written, config.teacher, runs.read_manifest(run, "02").get("teachers")
)
readable, left_out = selection.usable_critiques(theirs[: config.limit])
by_base, _ = selection.usable_critiques([row for row in written if row["teacher"] == critiques.SELF])
answers = selection.read_answers(run / "02_answers.jsonl", teachers)
mix_file = (
    runs.stage_file(runs.run_folder(config.mix), "01_responses.jsonl") if config.mix else None
)
finished, left_out["rows of --mix without a finished response"] = (
    selection.read_other_responses(mix_file, config.seed) if config.mix else ([], 0)
)
n_right = sum(row["verdict"] == "right" for row in readable)
print(
    f"{len(readable)} critiques of {', '.join(teachers)}, {n_right} right, {len(readable) - n_right} wrong; {len(answers)} teacher's answers"
)
if n_missing := len({row["id"] for row in failed if row["teacher"] in teachers}):
    print(
        f"note: of {n_missing} responses a critique, or an answer to their question, by one of {', '.join(teachers)} is missing "
        f"({run / '02_failed.jsonl'} says why)"
    )

# %% Questions of the test sets
notes = [
    line
    for source in sorted({str(row["source"]) for row in readable + finished})
    if (line := sources.describe_license(source))
]
tests, contaminated, removed = {}, [], set()
if config.decontaminate:
    tests = decontamination.load_test_sets(config.decontaminate, config.benchmarks_dir, config.seed)
    contaminated = decontamination.find_matches(
        {row["question_id"]: row["question"] for row in readable + finished}, tests
    )
    notes += decontamination.describe_summary(decontamination.summarize(contaminated, tests)) or [
        "no question of a test set was found"
    ]
    notes.append(
        f"held against {', '.join(tests)}; every match is written with the arms: {matches_file}"
    )
    removed = {match["question_id"] for match in contaminated if match["removed"]}
elif {row["source"] for row in readable} != {"tiny"}:
    notes.append(
        "the questions were not held against any test set (--decontaminate all); 05 says which it finds among them word for word"
    )
clean, others = (
    [row for row in some if row["question_id"] not in removed] for some in (readable, finished)
)
left_out["rows whose question stands in a test set"] = len(readable) - len(clean)
left_out["rows of --mix whose question stands in a test set"] = len(finished) - len(others)

# %% How long the rows are
lengths = selection.Lengths(selection.load_length_tokenizer(config, run))
length = selection.measure_lengths(clean + by_base, lengths, config.system)
rows, out_of_bounds = selection.within_length_limits(clean, config.min_tokens, config.max_tokens, length)
left_out |= out_of_bounds
there = {row["id"] for row in rows}
self_critiques, _ = selection.within_length_limits(
    [row for row in by_base if row["id"] in there], config.min_tokens, config.max_tokens, length
)

# %% Which responses give the gold answer, and what is left
gives_gold, graded = critique_quality.grade_responses(rows, critique_quality.collect_golds(written))
remarks = list(notes)
if n_conflicting := graded["conflicting golds (questions)"]:
    remarks.append(
        f"{n_conflicting} questions have conflicting golds, so their responses are held against none"
    )
if gives_gold and not any(gives_gold.values()):
    remarks.append(
        f"not one of {len(gives_gold)} responses gives its gold: does the gold's column hold the final answer alone?"
    )
if n_same := len(rows) - len({(row["id"], row["critique"]) for row in rows}):
    remarks.append(
        f"{n_same} critiques are word for word another of the same response; an arm takes such a text once"
    )
for line in [f"note: {line}" for line in remarks] + [
    f"left out: {n} {why}" for why, n in left_out.items() if n
]:
    print(line)
if not rows:
    raise InputError(f"not one critique of {', '.join(teachers)} is left; the reasons stand above.")

# %% Put the rows in one order, for all arms
# Differs from the paper: random rows. The paper says sampled, but its builder takes the longest critiques (--select longest).
responses = {row["id"] for row in written + failed}
ordered = selection.order_rows(rows, config.select, config.seed, length, responses)
given = training_sets.BuildInputs(
    config.system,
    answers,
    gives_gold,
    length,
    self_critiques,
    others,
    config.wrong_share,
    config.per_question,
)

# %% Build each arm
built, summaries = {}, {}
question_of = {row["id"]: row["question_id"] for row in written + others}
for name, label in labels.items():
    arm_rows, n_fitting = training_sets.build_training_set(name, ordered, given, config.rows)
    few = training_sets.explain_shortfall(name, arm_rows, n_fitting, given, config.rows)
    if not arm_rows and config.arms:
        raise InputError(
            f"{label}: no row{few}\nTake it out of --arms, or {training_sets.TRAINING_SETS[name].mend.format(name=config.name)}"
        )
    if not arm_rows:
        print(f"{label}: left out, no row{few}")
    elif not config.arms and training_sets.same_texts(arm_rows, built.get(labels["cft"])):
        print(f"{label}: left out, its rows are those of {labels['cft']}")
    else:
        built[label] = [row | {"arm": label} for row in arm_rows]
        summaries[name] = selection.summarize(label, arm_rows, lengths, question_of)
        print(f"{label}: {selection.describe_summary(summaries[name], lengths.unit)}{few}")
if not built:
    raise InputError("no arm could be built; the reasons stand above.")
for line in training_sets.describe_differences(summaries):
    print(f"note: {line}")

# %% Write them, the page, what other trainers read
paths = {name: run / "03_data" / f"{name}.jsonl" for name in built}
for name, path in paths.items():
    files.write_jsonl(path, built[name])
matches_file.unlink(missing_ok=True)  # of an earlier build
if config.decontaminate:
    files.write_jsonl(matches_file, contaminated)
shown = rows + self_critiques if labels.get("cft-self-critique") in built else rows
report.write(
    run / "03_report.md",
    run / "03_report.png",
    shown,
    gives_gold,
    graded,
    left_out,
    summaries.values(),
    selection.lengths_by_kind(rows, length),
    lengths.unit,
    remarks,
)
exports.write(run / "03_export", built, config.export)
print(f"wrote {', '.join(map(str, paths.values()))}, and {run / '03_report.md'} and .png")

# %% The manifest
inputs = [
    run / "02_critiques.jsonl",
    *([run / "02_answers.jsonl"] if answers else []),
    *([mix_file] if config.mix else []),
]
inputs += decontamination.list_local_files(config.decontaminate, config.benchmarks_dir, tests)
earlier = runs.earlier(run, built)
runs.write_manifest(
    run / "03.run.json",
    config,
    inputs,
    arms=[*summaries.values()],
    teachers=teachers,
    left_out=left_out,
    length_unit=lengths.unit,
    rows={name: len(some) for name, some in built.items()},
    earlier=earlier,
    output_sha256={name: files.file_hash(path) for name, path in paths.items()},
    responses={"number": len(responses), "ids": files.content_id(*sorted(responses))},
)  # which the order is made of
if earlier:
    print(
        f"from earlier commands stand {', '.join(earlier)}: {run / '03.run.json'} says how they were made, "
        "04 trains them where --arms names them"
    )
print(f"next: python 04_train.py --name {config.name}")
