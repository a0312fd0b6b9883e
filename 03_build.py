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

from common.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting("tiny", "tiny, paper, one-shot, ... (common/presets.py); default: what 01 was run with, tiny for a new run")
    seed: int = setting(0, "of the choice and order of rows")
    limit: int | None = setting(None, "use at most this many critiques")
    teacher: list[str] = setting([], "whose critiques and answers, or all (default: those of the last run of 02)")
    arms: list[str] = setting([], "which arms, also of the controls cft-shuffled cft-verdict cft-self-critique (default: all but those, where "
                                  "their inputs exist)")
    rows: int = setting(50_000, "rows per arm")
    select: str = setting("random", "which rows, when there are more: random; longest or shortest critiques; length-matched: critiques about as "
                                    "long as their response", choices=["random", "longest", "shortest", "length-matched"])
    wrong_share: float | None = setting(None, "share of rows whose response is judged wrong, 0 to 1 (default: as it comes)")
    per_question: int | None = setting(None, "rows of one question at most")
    min_tokens: int | None = setting(None, "leave out critiques whose training row, prompt included, is shorter")
    max_tokens: int | None = setting(None, "or longer (04 cuts or drops at its --cutoff, 2048)")
    tokenizer: str = setting("Qwen/Qwen2.5-Math-7B", "whose tokens are counted: folder, hub id, or base (the run's)")
    mix: str | None = setting(None, "a run of 01 whose responses are the other half of the arm mix")
    decontaminate: list[str] = setting([], "leave out questions that stand in these benchmarks: names of common/benchmarks.py, all, or a "
                                           ".jsonl file (the paper: none)")
    benchmarks_dir: str | None = setting(None, "read DIR/NAME/test.jsonl instead of the hub")
    export: list[str] = setting([], "write the arms also for other trainers: alpaca (LLaMA-Factory), messages (ms-swift)")
    suffix: str = setting("", "call the arms NAME-SUFFIX, so that they stand beside those of other settings")
    system: str = setting("You are a helpful assistant.", "system message of every row; '' for none")


config = configure(Config, "03")

# %% Read the critiques
import math
import re
from collections import Counter

from common import arms, benchmarks, choice, critiques, data_report, decontaminate, exports, files, quality, sources
from common.files import InputError

run = files.run_folder(config.name)
files.check_inputs(run, "02")
everyones = files.read_jsonl(files.stage_file(run, "02_critiques.jsonl"),
                             ("id", "question_id", "critique_id", "teacher", "gold", "source", "generator", "finish_reason"))
teachers, rows = choice.of_teachers(everyones, config.teacher, files.read_manifest(run, "02").get("teachers"))
rows, left_out = choice.usable(rows[: config.limit])
own, _ = choice.usable([row for row in everyones if row["teacher"] == critiques.SELF])
answers_file, failed = run / "02_answers.jsonl", files.rows_if_any(run / "02_failed.jsonl")
answers = {a["question_id"]: a["answer"] for teacher in teachers[::-1] for a in files.rows_if_any(answers_file) if a["teacher"] == teacher}
if n_missing := len({row["id"] for row in failed if row["teacher"] in teachers}):
    print(f"note: {n_missing} responses have no critique, or no answer, of {', '.join(teachers)} and are left out ({run / '02_failed.jsonl'} says why)")
verdicts = Counter(row["verdict"] for row in rows)
print(f"{len(rows)} critiques of {', '.join(teachers)}, {verdicts['right']} right, {verdicts['wrong']} wrong; {len(answers)} teacher's answers")
others, mix_file = [], config.mix and files.stage_file(files.run_folder(config.mix), "01_responses.jsonl")
if config.mix:
    found = files.read_jsonl(mix_file, ("id", "question_id", "question", "response", "source", "finish_reason"))
    others = list({row["id"]: row | {"critique_id": None, "verdict": None} for row in found if row["finish_reason"] != "length"}.values())
    others = choice.order(others, "random", config.seed)

# %% Settings that cannot be meant
if unknown := [name for name in config.arms if name not in arms.ARMS]:
    raise InputError(f"unknown arms {unknown}; the arms are: --arms {' '.join(arms.ARMS)}")
suffix = f"-{config.suffix}" if config.suffix else ""
if clash := [name for name in arms.ARMS if suffix and name + suffix in arms.ARMS or not re.fullmatch(r"(?!.*-after-)[\w.-]{1,80}", name + suffix)]:
    raise InputError(f"--suffix {config.suffix!r} would make {(clash[0] + suffix)[:99]!r} of {clash[0]}: another arm, or no plain name.\n"
                     "Take another: --suffix half")
if (config.min_tokens or 0) > (config.max_tokens or config.min_tokens or 0):
    raise InputError(f"--min-tokens {config.min_tokens} is more than --max-tokens {config.max_tokens}.\nGive the smaller one first.")
exports.check(config.export)

# %% Questions of the test sets
tests, contaminated, notes = {}, [], [line for source in sorted({str(row["source"]) for row in rows + others}) if (line := sources.licence(source))]
if config.decontaminate:
    tests = decontaminate.against(config.decontaminate, config.benchmarks_dir, seed=config.seed)
    contaminated = decontaminate.matches({row["question_id"]: row["question"] for row in rows + others}, tests)
    notes += decontaminate.lines(decontaminate.summary(contaminated, tests)) or ["no question of a test set was found"]
    notes.append(f"held against {', '.join(tests)}; every match: {run / '03_contaminated.jsonl'}")
    known = {match["question_id"] for match in contaminated if match["removed"]}
    for what, some in (("rows", rows), ("rows of --mix", others)):
        left_out[f"{what} whose question stands in a test set"] = sum(row["question_id"] in known for row in some)
    rows, others = ([row for row in some if row["question_id"] not in known] for some in (rows, others))
elif {row["source"] for row in rows} != {"tiny"}:
    notes.append("the questions were not held against any test set (--decontaminate all); 05 says which it finds among them word for word")
print("".join(f"note: {line}\n" for line in notes), end="")

# %% How long the rows are, and which answers are right
lengths = choice.Lengths(choice.tokenizer(config, run))
length = choice.measured(rows + own, lengths, config.system)
rows, too_long = choice.within(rows, config.min_tokens, config.max_tokens, length)
left = {row["id"] for row in rows}
own, _ = choice.within([row for row in own if row["id"] in left], config.min_tokens, config.max_tokens, length)
right, graded = quality.right(rows)
left_out.update(too_long)
if n_conflicting := graded["conflicting golds (questions)"]:
    print(f"note: {n_conflicting} questions have conflicting golds, so their responses are held against none")
if right and not any(right.values()):
    print(f"note: not one of {len(right)} responses gives its gold: does the gold's column hold the final answer alone?")
print("".join(f"left out: {n} {why}\n" for why, n in left_out.items() if n), end="")
if not rows:
    raise InputError(f"not one critique of {', '.join(teachers)} is left; the reasons stand above.")

# %% Choose rows once for all arms
# Differs from the paper: random rows. The paper says sampled, but its builder takes the longest critiques (--select longest).
ordered = choice.order(rows, config.select, config.seed, length, {row["id"] for row in everyones + failed})
given = arms.Given(config.system, answers, right, length, own, others, config.wrong_share, config.per_question)

# %% Build each arm
built, summary, sizes, question_of = {}, [], set(), {row["id"]: row["question_id"] for row in everyones + others}
for name in config.arms or [name for name in arms.ARMS if not arms.ARMS[name].control]:
    arm, (arm_rows, fitting) = arms.ARMS[name], arms.build(name, ordered, given, config.rows)
    if not arm_rows and name in config.arms:
        raise InputError(f"{name}: of {fitting} rows with {arm.needs} none is left.\nTake it out of --arms, or {arm.mend.format(name=config.name)}")
    if not arm_rows or name not in config.arms and arms.same(arm_rows, built.get("cft" + suffix)):
        print(f"{name}: left out, {'its rows are those of cft' if arm_rows else f'no row has {arm.needs}'}")
        continue
    label = name + suffix
    built[label] = [row | {"arm": label} for row in arm_rows]
    summary.append(choice.summary(label, arm_rows, lengths, question_of))
    sizes.add(len(arm_rows) / arm.parts)
    wanted = config.rows * arm.parts
    few = f" (all that have {arm.needs}{', at this --wrong-share' * (config.wrong_share is not None and arm.shared)}; {wanted} were asked for)"
    print(f"{label}: {choice.line(summary[-1], lengths.unit)}{few * (len(arm_rows) < wanted)}")
if not built:
    raise InputError("no arm could be built; the reasons stand above.")
if len(sizes) > 1:
    print("note: the arms differ in size, so their scores compare different amounts of data")
a_row = {one["arm"]: one["completion"] / one["rows"] for one in summary}
if a_row.get("cft-short" + suffix, 0) >= a_row.get("cft" + suffix, math.inf):
    print("note: a row of cft-short is no shorter than one of cft: here critiques are no longer than answers")

# %% Write them, the page, what other trainers read, the manifest
(run / "03_contaminated.jsonl").unlink(missing_ok=True)  # of an earlier build
if config.decontaminate:
    files.write_jsonl(run / "03_contaminated.jsonl", contaminated)
for name, some in built.items():
    files.write_jsonl(run / "03_data" / f"{name}.jsonl", some)
shown = rows + own * ("cft-self-critique" + suffix in built)
data_report.write(run / "03_report.md", run / "03_report.png", shown, right, graded, left_out, summary, choice.by_kind(rows, length), lengths.unit, notes)
exports.write(run / "03_export", built, config.export)
inputs = [answers_file] * bool(answers) + [mix_file] * bool(config.mix)
inputs += benchmarks.local_files(config.benchmarks_dir, tests, *(name for name in config.decontaminate if name.endswith(".jsonl")))
earlier = choice.earlier(run, built)
files.write_manifest(run / "03.run.json", config, [run / "02_critiques.jsonl", *inputs], arms=summary, teachers=teachers,
                     rows={name: len(some) for name, some in built.items()}, output_sha256={name: files.file_hash(run / "03_data" / f"{name}.jsonl") for name in built}, left_out=left_out,
                     length_unit=lengths.unit, earlier=earlier)
print(f"wrote {', '.join(str(run / '03_data' / f'{name}.jsonl') for name in built)}, and {run / '03_report.md'} and .png")
if earlier:
    print(f"from earlier commands stand {', '.join(earlier)}: {run / '03.run.json'} says how they were made, 04 trains them where --arms names them")
print(f"next: python 04_train.py --name {config.name}")
