"""One training of 04: its rows, its batch plan, and where and when it is saved."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch.distributed as dist

from common.core import runs
from common.core.errors import InputError
from common.core.files import file_hash, read_jsonl, write_json
from common.train import tokens

# Settings that may change between a run and its resume: they do not change the result.
FREE_SETTINGS = {
    "name",
    "preset",
    "arms",
    "model",
    "threads",
    "tokens_per_microbatch",
    "activation_checkpointing",
    "save_every",
    "save_unit",
    "keep_last",
    "keep_best",
    "state_every",
    "merge",
    "dry_run",
    "gpus",
    "gpu",
    "mfu",
}


@dataclass
class TrainingRun:
    """What a training consists of, ready to start."""

    set_name: str  # of the training set; "cft+sft" for the rows of two
    files: list[Path]  # of 03 that hold its rows
    examples: list[dict]  # tokens.examples
    counts: Counter  # what was dropped or truncated
    holdout: list[dict]  # examples put aside
    plan: tokens.BatchPlan
    folder: Path  # 04_train/<set>
    save_steps: set[int]  # a checkpoint is written after these
    state_steps: set[int]  # what a resume needs is written after these

    @cached_property
    def lengths(self) -> list[int]:
        """Return the tokens of each example."""
        return [len(e["input_ids"]) for e in self.examples]

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint of a step."""
        return self.folder / f"step-{step:06d}"

    @property
    def last_checkpoint(self) -> Path:
        """Return the folder of the last checkpoint: if it exists, the training is finished."""
        return self.checkpoint(len(self.plan))


# --- training sets --------------------------------------------------------------------------------


def choose_sets(run: Path, set_names: list[str]) -> list[str]:
    """Return the training sets to train on: those given, or those that 03 built last.

    "cft+sft" is the rows of two. Raises InputError if 03 did not build one of them.
    """
    newest, built = runs.built(run)
    for set_name in set_names:
        parts = set_name.split("+")
        if set(parts) - set(built) or len(set(parts)) < len(parts):
            raise InputError(
                f"03 built no training set {set_name}; it built: {' '.join(built)}\n"
                f"Give some of those: --arms {newest[0]}"
            )
    return list(dict.fromkeys(set_names)) or newest


def folder_name(set_name: str, after: str | None) -> str:
    """Return the name of a training's folder; after: the set of its first stage."""
    return f"{set_name}-after-{after}" if after else set_name


def read_rows(files: list[Path], limit: int | None) -> list[dict]:
    """Return the rows of the training sets, at most `limit` of each."""
    rows = []
    for path in files:
        rows += read_jsonl(path, ("id", "prompt", "completion"))[:limit]
    return rows


def all_files(trainings: list[TrainingRun]) -> list[Path]:
    """Return the files of all trainings, each once."""
    files = []
    for training in trainings:
        files += training.files
    return list(dict.fromkeys(files))


def changed_since_03(run: Path, files: list[Path]) -> list[str]:
    """Return the names of files that are not as 03 wrote them."""
    hashes = runs.built(run)[1]
    return [path.name for path in files if hashes[path.stem] not in (None, file_hash(path))]


# --- when it is saved -----------------------------------------------------------------------------


def regular_steps(interval: int, n_steps: int) -> set[int]:
    """Return every so-many-th step before the last one; interval 0: none."""
    return set(range(interval, n_steps, interval)) if interval else set()


def save_steps(n_steps: int, config) -> set[int]:
    """Return the steps after which a checkpoint is written: the last one always."""
    interval = config.save_every
    if config.save_unit == "epoch":
        interval *= n_steps // config.epochs
    return regular_steps(interval, n_steps) | {n_steps}


class Writes(NamedTuple):
    """How many folders a training writes that exist together."""

    checkpoints: int
    states: int
    merged: int


def remaining_writes(training: TrainingRun, config) -> Writes:
    """Return what there still is to write. An old checkpoint goes once the new one exists."""
    merged = (training.last_checkpoint / "merged").exists()
    to_merge = int(config.merge and not merged)
    if training.last_checkpoint.exists():
        return Writes(0, 0, to_merge)
    checkpoints = sum(not training.checkpoint(step).exists() for step in training.save_steps)
    if config.keep_last:
        checkpoints = min(checkpoints, config.keep_last + config.keep_best + 1)
    states = 2 if len(training.state_steps) > 1 else 1  # one if the run is stopped
    return Writes(checkpoints, states, to_merge)


def all_remaining_writes(trainings: list[TrainingRun], config) -> Writes:
    """Return what all trainings still write: a training's states go before the next one starts."""
    writes = [remaining_writes(training, config) for training in trainings]
    return Writes(
        checkpoints=sum(w.checkpoints for w in writes),
        states=max(w.states for w in writes),
        merged=sum(w.merged for w in writes),
    )


# --- what the result depends on -------------------------------------------------------------------


def result_settings(config, files: list[Path], **facts) -> dict:
    """Return the settings that the result depends on, and further facts it depends on."""
    settings = {}
    for name, value in vars(config).items():
        unused = config.method == "full" and name.startswith("lora")
        if name not in FREE_SETTINGS and not unused:
            settings[name] = value
    return settings | facts | {"data_sha256": [file_hash(path) for path in files]}


def write_settings(training: TrainingRun, settings: dict, base) -> None:
    """Write settings.json, by which a resume knows that it goes on with the same training."""
    if dist.get_rank() == 0:
        write_json(training.folder / "settings.json", settings | {"base": str(base)})


# --- checks ---------------------------------------------------------------------------------------


def check_enough_rows(set_name: str, n_examples: int, n_rows: int, counts: Counter, config) -> None:
    """Raise InputError if no row is left to train on."""
    if n_examples <= config.holdout:
        raise InputError(
            f"{set_name}: {n_examples} of {n_rows} rows are left ({dict(counts)}), "
            f"{config.holdout} to be held out.\n"
            f"Raise --cutoff ({config.cutoff} tokens), lower --holdout, or build more: "
            f"python 03_build.py --name {config.name}"
        )


def check_warmup(set_name: str, n_examples: int, n_steps: int, config) -> None:
    """Raise InputError if the only step would have a learning rate of 0."""
    if n_steps == 1 and config.warmup_ratio:
        raise InputError(
            f"{set_name}: {n_examples} rows are one step of --global-batch {config.global_batch}, "
            "and warm-up gives the first step a learning rate of 0.\n"
            "Take a smaller --global-batch, or --warmup-ratio 0."
        )
