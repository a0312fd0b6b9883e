# %% [markdown]
"""
# 03 Build: critiques -> training sets

In: `02_critiques.jsonl` (and `02_answers.jsonl`). Out: `03_data/<arm>.jsonl`, one training set per arm of Table 2:

| arm | prompt | the model learns to write |
|---|---|---|
| sft | question | the noisy response |
| sft-verified | question | a response that the teacher judged right |
| sft-teacher | question | the teacher's own answer |
| cft | question and noisy response | the critique |

    python 03_build.py                                       # tiny: 800 rows for each of the four arms
    python 03_build.py --name mine --arms cft sft --rows 5000

Seconds. Responses are put in one order, by seed, and each arm takes the first that fit: sft, sft-teacher and cft share their
questions, sft-verified has more of those that were answered right. Arms have equal rows, not equal tokens.
"""

# %% Settings
from dataclasses import dataclass

from common.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting("tiny", "tiny or paper (common/presets.py); default: what 01 was run with, tiny for a new run")
    seed: int = setting(0, "of the choice and order of rows")
    limit: int | None = setting(None, "use at most this many critiques")
    teacher: list[str] = setting([], "whose critiques and answers (default: those of the last run of 02)")
    arms: list[str] = setting([], "which arms: sft sft-verified sft-teacher cft (default: all whose inputs exist)")
    rows: int = setting(50_000, "rows per arm")
    select: str = setting("random", "which rows, when there are more: random, or longest critiques first", choices=["random", "longest"])
    system: str = setting("You are a helpful assistant.", "system message of every row; '' for none")


config = configure(Config, "03")

# %% Read the critiques
import random

from common import arms, files
from common.files import InputError

run = files.run_folder(config.name)
files.check_inputs(run, "02")
everyones = files.read_jsonl(files.stage_file(run, "02_critiques.jsonl"))
made = files.read_manifest(run, "02")
teachers = config.teacher or made.get("teachers") or sorted({row["teacher"] for row in everyones})
if missing := set(teachers) - {row["teacher"] for row in everyones}:
    raise InputError(f"{run / '02_critiques.jsonl'} holds no critique of {', '.join(sorted(missing))}, but of: "
                     f"--teacher {' '.join(sorted({row['teacher'] for row in everyones}))}")
critiques = [row for row in everyones if row["teacher"] in teachers][: config.limit]
answers_file = run / "02_answers.jsonl"
rows_of_answers = files.read_jsonl(answers_file) if answers_file.exists() else []
answers = {a["question_id"]: a["answer"] for a in rows_of_answers if a["teacher"] in teachers}
n_right = sum(row["verdict"] == "right" for row in critiques)
failed_file = run / "02_failed.jsonl"
failed = files.read_jsonl(failed_file) if failed_file.exists() and failed_file.stat().st_size else []
if n_missing := len({row["id"] for row in failed if row["teacher"] in teachers}):
    print(f"note: {n_missing} responses have no critique, or no answer, of {', '.join(teachers)} and are left out "
          f"({failed_file} says why)")
print(f"{len(critiques)} critiques of {', '.join(teachers)}, {n_right} right, {len(critiques) - n_right} wrong; {len(answers)} teacher's answers")

if unknown := [name for name in config.arms if name not in arms.ARMS]:
    raise InputError(f"unknown arms {unknown}; the arms are: --arms {' '.join(arms.ARMS)}")
if "sft-teacher" in config.arms and not answers:
    raise InputError(f"the arm sft-teacher needs {answers_file}.\nRun: python 02_critique.py --name {config.name} --answers")

# %% Choose rows once for all arms
# Differs from the paper: random rows. The paper says sampled, but its builder takes the longest critiques (--select longest).
# By response, not by critique: runs that differ only in how critiques are written then train on the same responses.
order = sorted(critiques, key=lambda row: (row["id"], row["critique_id"]))
random.Random(config.seed).shuffle(order)
if config.select == "longest":
    order.sort(key=lambda row: -len(row["critique"]))

# %% Build and write each arm
built = {}
for name in config.arms or arms.ARMS:
    rows, fitting = arms.build(name, order, answers, config.rows, config.system)
    if not rows:
        print(f"{name}: left out, no row has {arms.ARMS[name].needs}")
        continue
    built[name] = len(rows)
    files.write_jsonl(run / "03_data" / f"{name}.jsonl", rows)
    few = f" (all that have {arms.ARMS[name].needs}; {config.rows} were asked for)" if fitting < config.rows else ""
    print(f"{name}: {len(rows)} rows{few}")
if len(set(built.values())) > 1:
    print("note: the arms differ in size, so their scores compare different amounts of data")

# %% Write the manifest
if not built:
    raise InputError("no arm could be built; the reasons stand above.")
files.write_manifest(run / "03.run.json", config, [run / "02_critiques.jsonl"] + ([answers_file] if answers else []),
                     rows=built, output_sha256={n: files.file_hash(run / "03_data" / f"{n}.jsonl") for n in built})
print(f"wrote {', '.join(str(run / '03_data' / f'{name}.jsonl') for name in built)}")
print(f"next: python 04_train.py --name {config.name}")
