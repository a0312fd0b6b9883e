"""One training of 04: its rows, its batch plan, where and when it is saved, what it depends on."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from common.core import manifests
from common.core.errors import InputError
from common.core.files import content_id, file_hash, read_jsonl, write_json, write_jsonl
from common.core.prompts import extract_question
from common.core.tables import count
from common.core.trainings import sort_sets
from common.train import distributed

# Others may change between a run and its resume.
RESULT_SETTINGS = (
    "seed",
    "limit",
    "after",
    "method",
    "lora_rank",
    "learning_rate",
    "warmup_ratio",
    "epochs",
    "global_batch",
    "cutoff",
    "overlong",
    "weight_decay",
    "holdout",
)


@dataclass
class TrainingRun:
    """What a training consists of, ready to start."""

    set_name: str  # of the training set; "cft+sft" for the rows of two
    files: list  # of 03 that hold its rows
    examples: list  # tokens.examples
    counts: Counter  # of tokens.examples
    holdout: list  # examples put aside
    plan: list  # tokens.batch_plan
    folder: Path  # 04_train/<set>
    save_steps: set  # a checkpoint is written after these
    settings: dict = field(default_factory=dict)  # what the result depends on

    @cached_property
    def lengths(self) -> list:
        return [len(e["input_ids"]) for e in self.examples]

    def checkpoint(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    @property
    def last_checkpoint(self) -> Path:
        """Return the folder of the last checkpoint: if it exists, the training is finished."""
        return self.checkpoint(len(self.plan))


def choose_sets(run: Path, set_names: list) -> list:
    """Return the training sets given, which 03 must have built, or all; "cft+sft": two in one."""
    built = sort_sets(path.stem for path in manifests.outputs(run, "03_data"))
    for set_name in set_names:
        parts = set_name.split("+")
        if set(parts) - set(built) or len(set(parts)) < len(parts):
            raise InputError(
                f"03 built no training set {set_name}; it built: {' '.join(built)}\n"
                f"Give some of those: --arms {built[0]}"
            )
    return list(dict.fromkeys(set_names)) or built


def set_files(run: Path, set_name: str) -> list:
    """Return a training set's files of 03. What those were made from must not have changed."""
    paths = [run / "03_data" / f"{part}.jsonl" for part in set_name.split("+")]
    for path in paths:
        manifests.check_inputs(path)
    return paths


def read_rows(files: list, limit: int | None = None) -> list:
    """Return the rows of the training sets, at most `limit` of each."""
    rows = []
    for path in files:
        rows += read_jsonl(path, ("id", "prompt", "completion"))[:limit]
    return rows


def regular_steps(interval: int, n_steps: int) -> set:
    """Return every so-many-th step before the last one; interval 0: none."""
    return set(range(interval, n_steps, interval)) if interval else set()


def check_rows(set_name: str, n_examples: int, n_rows: int, counts: Counter, config) -> None:
    """Raise InputError if no row is left to train on."""
    if n_examples <= config.holdout:
        raise InputError(
            f"{set_name}: {n_examples} of {count(n_rows, 'row')} can be trained on "
            f"({dict(counts)}), and {config.holdout} are to be held out.\n"
            f"Raise --cutoff ({config.cutoff} tokens), lower --holdout, or build more: "
            f"python 03_build.py --name {config.name}"
        )


def check_warmup(training: TrainingRun, config) -> None:
    """Raise InputError if the only step would have a learning rate of 0."""
    if len(training.plan) == 1 and config.warmup_ratio:
        raise InputError(
            f"{training.set_name}: {count(len(training.examples), 'row')}, all in one step of "
            f"--global-batch {config.global_batch}, and warm-up gives it a learning rate of 0.\n"
            "Take a smaller --global-batch, or --warmup-ratio 0."
        )


def count_writes(trainings: list, config) -> dict:
    """Return how many checkpoints, states and merged models will yet exist at the same time.

    An old one goes once the new one exists; a training's states go before the next one starts.
    """
    checkpoints = states = merged = 0
    for training in trainings:
        if config.method != "full" and not (training.last_checkpoint / "merged").exists():
            merged += 1
        if training.last_checkpoint.exists():
            continue
        missing = sum(not training.checkpoint(step).exists() for step in training.save_steps)
        checkpoints += min(missing, config.keep_last + 1) if config.keep_last else missing
        states = 2 if config.state_minutes else 1
    return {"checkpoints": checkpoints, "training states": states, "merged models": merged}


def result_settings(training: TrainingRun, config, base_id: str | None, template: str) -> dict:
    """Return all that decides the result of a training, which a resume compares."""
    settings = {name: getattr(config, name) for name in RESULT_SETTINGS}
    if config.method == "full":
        del settings["lora_rank"]
    return settings | {
        "template": template,
        "steps": len(training.plan),
        "base_id": base_id,
        "data_sha256": [file_hash(path) for path in training.files],
    }


def write_settings(training: TrainingRun, base: str) -> None:
    """Write settings.json, which a resume compares, and trained_on.jsonl for 05.

    The latter has each question once: {"question_id", "question"}; those of a first stage, too.
    """
    if not distributed.is_main():
        return
    ids = {example["id"] for example in training.examples}
    questions = {}
    for row in read_rows(training.files):
        if row["id"] in ids:
            question = extract_question(row["prompt"])
            name = content_id(question)
            questions[name] = {"question_id": name, "question": question}
    first_stage = training.settings["after"]
    if first_stage:
        for row in read_jsonl(training.folder.parent / first_stage / "trained_on.jsonl"):
            questions[row["question_id"]] = row
    write_jsonl(training.folder / "trained_on.jsonl", questions.values())
    write_json(training.folder / "settings.json", training.settings | {"base": str(base)})
