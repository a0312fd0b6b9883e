"""The trainings of a run (04_train/<set>): their settings, their newest checkpoint, their base."""

import json
from pathlib import Path

from common.core.errors import InputError
from common.core.manifests import require

PAPER_ORDER = ("sft", "sft-verified", "sft-teacher", "cft", "cft-short", "cft-clean")

# In settings.json these are hashes; if one has changed, this is what has happened.
HASHES = {
    "data_sha256": "it was trained on other rows (03 has been run since)",
    "base_id": "it was trained from another base model",
}


def read_settings(path: Path) -> dict:
    """Return the settings of a training, or an adapter's; raise InputError if they are torn."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise _refuse(path.parent, f"{path} cannot be read ({error})") from error


def check_settings(path: Path, settings: dict):
    """Raise InputError if the folder holds a training with other settings, or unknown ones."""
    folder = path.parent
    if not path.exists() and list(folder.glob("st*-*[0-9]")):  # checkpoints or states
        raise _refuse(folder, f"{path} is missing, so how {folder} was trained is not known")
    existing = read_settings(path) if path.exists() else settings
    changes = []
    for name, value in settings.items():
        if existing.get(name) != value:
            changes.append(HASHES.get(name, f"{name} {existing.get(name)!r} -> {value!r}"))
    if changes:
        raise _refuse(folder, f"{folder} was trained otherwise: {'; '.join(changes)}")


def _refuse(folder, reason):
    return InputError(
        f"{reason}\nUse another --name, or move the training away and start it again: "
        f"mv {folder} {folder.parent.parent / 'moved-'}{folder.name}"
    )


def sort_sets(names) -> list[str]:
    """Return names of training sets in the order of the paper's Table 2; other sets come last."""
    names = set(names)
    return sorted(names, key=[*PAPER_ORDER, *sorted(names)].index)


def list_trained(run: Path) -> list[str]:
    """Return the names of the run's trainings."""
    return sort_sets(path.parent.name for path in run.glob("04_train/*/settings.json"))


def last_checkpoint(run: Path, training_set: str) -> Path:
    """Return the newest checkpoint folder; of an adapter that was merged, the merged model."""
    folder = run / "04_train" / training_set
    checkpoints = sorted(folder.glob("step-*[0-9]"))
    if not checkpoints:
        trained = " ".join(list_trained(run))
        raise InputError(
            f"{training_set} has no checkpoint in {folder.parent}; there are: {trained or 'none'}\n"
            f"Run: python 04_train.py --name {run.name} --arms {training_set}"
        )
    newest = checkpoints[-1]
    steps = read_settings(folder / "settings.json").get("steps", 0)
    if newest.name != f"step-{steps:06d}":
        print(
            f"note: {training_set} is not trained to its end: {newest.name} of {steps} steps "
            f"(python 04_train.py --name {run.name} goes on)"
        )
    merged = newest / "merged"
    return merged if merged.exists() else newest


def find_base(run: Path) -> str:
    """Return the base model that the run's models were trained from, first stages only.

    Raises InputError if there are several.
    """
    if not (run / "04_train").exists() and (run / "01_base").exists():
        return str(run / "01_base")
    settings = [read_settings(path) for path in require(run / "04_train").glob("*/settings.json")]
    bases = {str(s.get("base")) for s in settings if not s.get("after")}
    if len(bases) != 1:
        raise InputError(
            f"{run / '04_train'} was trained from {len(bases)} bases {sorted(bases)}.\n"
            "Say which to score: --model FOLDER"
        )
    return bases.pop()
