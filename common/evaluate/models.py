"""What --model names: a base, trained sets of the run, folders, hub ids, served models."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.core import prompts, runs, trainings
from common.core.errors import InputError
from common.core.tokenizer import load_tokenizer, local_folder
from common.data import training_sets
from common.generate.budget import Budget
from common.generate.client import Client
from common.generate.local import Local

LABEL_CHARACTERS = 100  # a label is a folder's name, too


@dataclass
class ModelSpec:
    """A model to score.

    label: its name in tables and its folder in 05_eval. location: a folder or a served name. url:
    of its server, None for a local model. group: what several seeds have in common. checkpoints:
    ModelSpecs in the order of their steps, if one of them is still to be chosen.
    """

    label: str
    location: str
    url: str | None = None
    group: str = ""
    step: int | None = None
    checkpoints: tuple = ()


def resolve_models(run, names, base_url=None, selection="auto") -> list[ModelSpec]:
    """Return the models of these names, by default the base and all trained sets of the run.

    A name is base, a trained set, a folder, a hub id or a served name; NAME@URL is served there,
    LABEL=NAME is called LABEL. A trained set is its last checkpoint; a folder of checkpoints, and
    with a selection by a validation set a trained set too, are all of them. Several names of one
    LABEL are seeds of one training set; with such a selection, and steps in their names,
    checkpoints of one training.
    """
    choose = selection not in ("auto", "last")
    names = names or ["base", *training_sets.list_trained(runs.stage_file(run, "04_train"))]
    by_label = {}
    for name in names:
        spec = _resolve(run, name, base_url, selection)
        by_label.setdefault(spec.label, []).append(spec)
    specs = []
    for label, group in by_label.items():
        specs += _joined(label, group, choose)
    labels = list(group_seeds(specs))
    for spec in specs:  # only now are the labels final
        labels.append(spec.label)
        for checkpoint in spec.checkpoints:
            checkpoint.label = f"{spec.label}--step-{checkpoint.step:06d}"
            labels.append(checkpoint.label)
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise InputError(
            f"two of the models would be called {' and '.join(repeated)}.\n"
            "Give them other names: --model LABEL=NAME ..."
        )
    return specs


def _resolve(run, name, base_url, selection):
    """Return the ModelSpec of one name."""
    label, location, url = _split_name(name, base_url)
    if url:
        spec = ModelSpec(label or _file_label(location), location, url)
    elif location in (*training_sets.TRAINING_SETS, *training_sets.list_trained(run / "04_train")):
        spec = ModelSpec(label or location, str(trainings.last_checkpoint(run, location)))
        if selection not in ("auto", "last"):
            spec.checkpoints = _list_checkpoints(run / "04_train" / location)
    elif location == "base":
        spec = ModelSpec(label or "base", local_folder(trainings.find_base(run)))
    elif any(Path(location).glob("step-*[0-9]")):
        spec = _resolve_training(run, label, Path(location), selection)
    else:
        spec = _resolve_folder(run, label, location, name)
    spec.group = label
    spec.step = _step_of(spec.location)
    return spec


def _resolve_training(run, label, folder, selection):
    """Return the ModelSpec of a folder of checkpoints, 04_train/<set> of this or another run."""
    checkpoints = _list_checkpoints(folder)
    if not label:
        here = folder.resolve().parent == (run / "04_train").resolve()
        parts = [part for part in folder.parts[-3:] if part not in ("04_train", "/")]
        label = _file_label(parts[-1] if here else "/".join(parts[-2:]))
    if selection == "last":
        return ModelSpec(label, checkpoints[-1].location)
    return ModelSpec(label, str(folder), checkpoints=checkpoints)


def _resolve_folder(run, label, location, name):
    """Return the ModelSpec of a model's or an adapter's folder, or of a hub id."""
    trainings = sorted(path.parent.name for path in Path(location).glob("*/settings.json"))
    if trainings:
        raise InputError(
            f"{location} holds the trainings {' '.join(trainings)}.\n"
            f"Name one of them: --model {location.rstrip('/')}/{trainings[0]}"
        )
    folder = location
    if not (Path(location) / "adapter_config.json").is_file():
        try:
            folder = local_folder(location)
        except InputError as error:
            names = " ".join(["base", *training_sets.list_trained(run / "04_train")])
            server = "; a server: NAME@http://..." if "@" in location else ""
            hint = f"The names of this run: --model {names}{server}"
            raise InputError(f"{error}\n{hint}") from error
    return ModelSpec(label or _file_label("/".join(Path(location).parts[-2:])), folder)


def _split_name(name, base_url):
    """Return (LABEL or "", NAME, URL or None) of "LABEL=NAME@URL"; a folder may hold the signs."""
    label, equals, location = name.partition("=")
    if not equals or Path(name).exists():
        label, location = "", name
    location, server, address = location.partition("@http")
    url = f"http{address}" if server else base_url
    plain = label == _file_label(label) and len(label) <= LABEL_CHARACTERS
    if not location or not plain or label.endswith(".json"):
        raise InputError(
            f"--model {name!r} is not NAME, NAME@URL or LABEL=NAME, "
            "with a LABEL of letters, digits, '.', '_', '-' and '+'"
        )
    return label, location, url


def _file_label(name):
    return re.sub(r"[^\w.+-]+", "--", name)[-LABEL_CHARACTERS:].strip("-.")


def _step_of(name):
    steps = re.findall(r"(?:step|checkpoint)[-_]?(\d+)", name)
    return int(steps[-1]) if steps else None


def _list_checkpoints(folder):
    """Return the checkpoints by step; an adapter's last one is taken unmerged, as the others."""
    folders = sorted(folder.glob("step-*[0-9]"))
    return tuple(ModelSpec(path.name, str(path), step=_step_of(path.name)) for path in folders)


def _joined(label, group, choose):
    if len(group) == 1:
        return group
    if not all(c.group for c in group):
        raise InputError(
            f"{len(group)} models would be called {label!r}: "
            f"{', '.join(c.location for c in group)}\n"
            "Give them names: --model LABEL=NAME ... (one LABEL for several: seeds of one arm)"
        )
    if len({(c.location if c.url else Path(c.location).resolve(), c.url) for c in group}) < len(
        group
    ):
        raise InputError(
            f"{label!r} names the same model twice: "
            f"{', '.join(c.location for c in group)}\nEach seed is a model of its own."
        )
    steps = [c.step for c in group]
    if (
        choose
        and None not in steps
        and len(set(steps)) == len(steps)
        and not any(c.checkpoints for c in group)
    ):
        return [ModelSpec(label, label, checkpoints=tuple(sorted(group, key=lambda c: c.step)))]
    trainings = [
        Path(c.location) if c.checkpoints else Path(c.location).parent for c in group if not c.url
    ]
    if len(set(trainings)) < len(trainings):
        print(
            f"note: {label}: several are checkpoints of one training, "
            "whose spread is not that of seeds"
        )
    for number, c in enumerate(group, 1):
        c.label = f"{label}.{number}"
    return group


def group_seeds(specs) -> dict[str, list[str]]:
    """Return {label: labels of its seeds} of those that have several."""
    groups = {}
    for spec in specs:
        if spec.group:
            groups.setdefault(spec.group, []).append(spec.label)
    return {name: labels for name, labels in groups.items() if len(labels) > 1}


def choose_baseline(specs, baseline=None) -> tuple[list[str], str]:
    """Return what is compared (seeds of one training set as one), and the baseline.

    The default is sft if it is among them, else the first.
    """
    seeds = group_seeds(specs)
    names = list(dict.fromkeys(c.group if c.group in seeds else c.label for c in specs))
    baseline = baseline or ("sft" if "sft" in names else names[0])
    if baseline not in names:
        raise InputError(f"--baseline {baseline!r} is none of the models: {' '.join(names)}")
    return names, baseline


def read_origin(spec: ModelSpec) -> str:
    """Return what tells of a model's base: its name, and what its training or peft wrote down."""
    folder = str(spec.location)
    names = [folder]
    for _ in range(3):  # a set trained after another one names that other one
        training, adapter = (
            Path(folder).parent / "settings.json",
            Path(folder) / "adapter_config.json",
        )
        base = None
        if training.is_file():
            base = trainings.read_settings(training).get("base")
        elif adapter.is_file():
            base = trainings.read_settings(adapter).get("base_model_name_or_path")
        if base:
            folder = str(base)
            names.append(folder)
    return " ".join(names)


# --- engines --------------------------------------------------------------------------------------


def check_served(engine, journal) -> None:
    """Raise InputError if a server has another model under the name of the journal's answers.

    Few servers say which model it is (vLLM: `root`).
    """
    root, earlier = engine.root(), journal.records.get("served", {}).get("root")
    if root and earlier and root != earlier:
        raise InputError(
            f"{engine.identity} is {root} now, and {earlier} when it was asked before.\n"
            "Give each model a served name of its own, such as its checkpoint's "
            "(vllm serve FOLDER --served-model-name cft-000040), and ask under that."
        )
    if root and not earlier:
        journal.append({"key": "served", "root": root})


@dataclass
class OpenedModel:
    """A model that can be asked. tokenizer: usually None of a server.

    conditions: what two scores must have in common to be compared. manifest: what made its outputs.
    """

    engine: Any
    tokenizer: object
    template: str
    conditions: dict
    manifest: dict


def open_model(spec: ModelSpec, config) -> OpenedModel:
    """Open the engine of a model and find the template of its prompts."""
    if spec.url:
        engine, tokenizer = _open_server(spec, config)
        conditions = {"engine": "server"}
        manifest = {"served": spec.location, "server": spec.url, "identity": engine.identity}
    else:
        engine = Local(spec.location, config.batch_size, config.load_in_4bit)
        tokenizer = engine.tokenizer
        manifest = engine.settings
        conditions = {key: manifest[key] for key in ("dtype", "attention", "load_in_4bit")}
        conditions["engine"] = "local"
    template = config.template
    if template == "auto":
        template = prompts.template_for(tokenizer) if tokenizer else "chatml"
    prompts.check_template(template, tokenizer, allow_own=True)
    conditions["template"] = template
    return OpenedModel(engine, tokenizer, template, conditions, manifest | conditions)


def _open_server(spec, config):
    budget = Budget(spec.location, config.price_in, config.price_out, config.budget)
    engine = Client(spec.location, spec.url, config.concurrency, config.timeout, budget)
    # A name says little of what is served: another server is another model.
    engine.identity = f"{spec.location} at {spec.url}"
    if config.template != "own":
        return engine, None
    try:
        return engine, load_tokenizer(local_folder(spec.location, weights=False))
    except InputError as error:
        raise InputError(
            f"--template own needs the tokenizer of {spec.location} here.\n{error}"
        ) from error
