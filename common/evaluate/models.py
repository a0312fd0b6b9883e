"""What --model and --seeds name: the base, training sets of the run, folders, hub ids, servers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.core import prompts, trainings
from common.core.errors import InputError
from common.core.manifests import changed_inputs, file_label, require
from common.core.special_tokens import hide
from common.core.tokenizer import load_tokenizer, local_folder
from common.generate.budget import Budget
from common.generate.local import Local


@dataclass
class ModelSpec:
    """A model to score.

    label: its name in tables and its folder in 05_eval. location: a folder or a served name. url:
    of its server, None for a local model. step: of a checkpoint. checkpoints: by step, if one of
    them is still to be chosen.
    """

    label: str
    location: str
    url: str | None = None
    step: int | None = None
    checkpoints: tuple = ()


def resolve_models(run: Path, names: list, seeds: list, base_url=None, choose=False) -> tuple:
    """Return the ModelSpecs to score, and {label: labels of its runs} of each mean over seeds.

    names: base, a training set, a folder, a hub id or a served name; NAME@URL is served there,
    LABEL=NAME is called LABEL. Without names and seeds: the base and all training sets of the run.
    seeds: LABEL=NAME,NAME,... for several trainings of one set. choose: keep all checkpoints of a
    training, to choose one later; else take its last one.
    """
    if not names and not seeds:
        require(run / "04_train")
        names = ["base", *trainings.list_trained(run)]
    specs = [_resolve(run, name, base_url, choose) for name in names]
    groups = {}
    for text in seeds:
        label, _, members = text.partition("=")
        group = []
        for number, name in enumerate(members.split(","), 1):
            group.append(_resolve(run, f"{label}.{number}={name}", base_url, choose))
        if len({(spec.location, spec.url) for spec in group}) < 2:
            raise InputError(
                f"--seeds {text!r} does not name several models.\n"
                "Expected LABEL=NAME,NAME,...: a model for each seed, named as in --model."
            )
        groups[label] = [spec.label for spec in group]
        specs += group
    labels = [spec.label for spec in specs] + list(groups)
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise InputError(
            f"two of the models would be called {' and '.join(repeated)}.\n"
            "Give them other names: --model LABEL=NAME ... (seeds of one set: --seeds LABEL=A,B)"
        )
    return specs, groups


def choose_baselines(specs: list, groups: dict, baselines: list) -> tuple:
    """Return the labels to compare (seeds of one set as one), and the baselines.

    The default is sft if it is among them, else the first.
    """
    members = {label for labels in groups.values() for label in labels}
    labels = [spec.label for spec in specs if spec.label not in members] + list(groups)
    for name in baselines:
        if name not in labels:
            raise InputError(f"--baseline {name!r} is none of the models: {' '.join(labels)}")
    return labels, list(dict.fromkeys(baselines)) or ["sft" if "sft" in labels else labels[0]]


def _resolve(run, name, base_url, choose):
    label, location, url = _split_name(name, base_url)
    if url:
        return ModelSpec(label or file_label(location), location, url)
    try:
        return _resolve_local(run, label, location, choose)
    except InputError as error:
        names = " ".join(["base", *trainings.list_trained(run)])
        raise InputError(
            f"{error}\nThe names of this run: --model {names}; of the hub: ORG/NAME; "
            "of a server: NAME@http://..."
        ) from error


def _resolve_local(run, label, location, choose):
    if location == "base":
        return ModelSpec(label or "base", local_folder(trainings.find_base(run)))
    folder, last = Path(location), None
    # Without a "/" no model of the hub is meant.
    if location in trainings.list_trained(run) or not ("/" in location or folder.exists()):
        folder, last = run / "04_train" / location, trainings.last_checkpoint(run, location)
    label = label or file_label("-".join(folder.parts[-2:]).removeprefix("04_train-"))
    steps = sorted(folder.glob("step-*[0-9]"))
    if steps and choose:
        return ModelSpec(label, str(folder), checkpoints=_list_checkpoints(label, steps))
    if steps:
        location = str(last or steps[-1])
    elif not (folder / "adapter_config.json").is_file():
        location = local_folder(location)
    return ModelSpec(label, location)


def _list_checkpoints(label, steps):
    checkpoints = []
    for path in steps:  # an adapter's last one unmerged, as the others
        step = int(path.name.removeprefix("step-"))
        checkpoints.append(ModelSpec(f"{label}-{path.name}", str(path), step=step))
    return tuple(checkpoints)


def _split_name(name, base_url):
    """Return (LABEL or "", NAME, URL or None) of "LABEL=NAME@URL"; a folder may hold the signs."""
    label, equals, location = name.partition("=")
    if not equals or Path(name).exists():
        label, location = "", name
    location, server, address = location.partition("@http")
    if not location or (label and label != file_label(label)):
        raise InputError(
            f"--model {name!r} is not NAME, NAME@URL or LABEL=NAME, "
            "with a LABEL of letters, digits, '.', '_' and '-'"
        )
    return label, location, f"http{address}" if server else base_url


def read_origin(location: str) -> str:
    """Return what tells of a model's base: its name, and what its training wrote down."""
    base = _read_training(location).get("base")
    return f"{location} {read_origin(base)}" if base else location


def read_trained_template(location: str) -> str:
    """Return the template that 04 trained a model with; "auto" if it is no model of 04."""
    return _read_training(location).get("template", "auto")


def _read_training(location):
    """Return the settings of the training that a checkpoint is of; {} if there are none."""
    for folder in Path(location).parents[:2]:  # a merged adapter is one level lower
        path = folder / "settings.json"
        if path.is_file():
            return trainings.read_settings(path)
    return {}


def is_stale(location: str) -> bool:
    """Return whether 03 has rebuilt the rows that a checkpoint of this kit was trained on."""
    return any(map(changed_inputs, _training_folders(location)))


def _training_folders(location):
    """Return the folders that may be a checkpoint's training; a merged adapter is a level lower."""
    return Path(location).parents[:2]


@dataclass
class OpenModel:
    """A model that can be asked.

    tokenizer: usually None of a server. conditions: what two scores must have in common to be
    compared; its "template" is that of the prompts. manifest: what the manifests say of it.
    """

    engine: Any
    tokenizer: Any
    conditions: dict
    manifest: dict

    def write_prompts(self, questions: list, system: str) -> list:
        """Return the text that asks each question; what looks like a special token is plain."""
        form = self.conditions["template"], system, self.tokenizer
        hidden = [hide(question, self.engine.tokenizer) for question in questions]
        return [prompts.solve_prompt(question, *form) for question in hidden]


def open_model(spec: ModelSpec, config) -> OpenModel:
    """Return the model behind a spec; config: the settings of 05."""
    template = config.template
    if template == "auto":
        template = read_trained_template(spec.location)
    if spec.url:
        from common.generate.client import Client  # openai takes half a second

        budget = Budget(spec.location, config.price_in, config.price_out, config.budget)
        engine = Client(spec.location, spec.url, config.concurrency, config.timeout, budget)
        # A name says little of what is served: another server is another model.
        engine.identity = f"{spec.location} at {spec.url}"
        tokenizer = None
        if template == "own":
            tokenizer = load_tokenizer(local_folder(spec.location, weights=False))
        manifest = {"served": spec.location, "server": spec.url, "identity": engine.identity}
        conditions = {"engine": "server"}
    else:
        engine = Local(spec.location, config.batch_size, config.max_new_tokens)
        tokenizer, manifest = engine.tokenizer, engine.settings
        conditions = {"engine": "local"}
        conditions |= {"dtype": manifest["dtype"], "attention": manifest["attention"]}
    if template == "auto":
        template = prompts.template_for(tokenizer) if tokenizer else "chatml"
    prompts.check_template(template, tokenizer)
    conditions["template"] = template
    return OpenModel(engine, tokenizer, conditions, manifest | conditions)
