"""What --model names: a base, arms of the run, folders, hub ids, served models; checkpoints of one training, seeds of one arm."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.core import prompts, runs
from common.core.errors import InputError
from common.core.tokenizer import load_tokenizer, local_folder
from common.data import training_sets
from common.generate.budget import Budget
from common.generate.client import Client
from common.generate.local import Local

LONGEST = 100  # characters of a label, which is a folder's name, too


@dataclass
class Candidate:
    """label: its name in tables and its folder in 05_eval. url: of its server, None for a local model. arm: what several seeds have in
    common. checkpoints: Candidates in the order of their steps, of which one is to be chosen."""

    label: str
    where: str
    url: str | None = None
    arm: str = ""
    step: int | None = None
    checkpoints: tuple = ()


def candidates(run, names, base_url=None, selection="auto"):
    """-> [Candidate] of the names, by default the base and all arms of the run.

    A name is base, an arm, a folder, a hub id or a served name; NAME@URL is served there, LABEL=NAME is called LABEL. An arm stands for
    its last checkpoint; a folder of checkpoints, and with a selection by a validation set an arm too, for all of them, of which one will
    be chosen. Several names of one LABEL are seeds of one arm; with such a selection, and steps in their names, checkpoints of one
    training.
    """
    choose = selection not in ("auto", "last")
    found = [
        _read(run, name, base_url, selection)
        for name in names or ["base", *training_sets.list_trained(runs.stage_file(run, "04_train"))]
    ]
    by_label = {}
    for candidate in found:
        by_label.setdefault(candidate.label, []).append(candidate)
    joined = [one for label, group in by_label.items() for one in _joined(label, group, choose)]
    for one in joined:  # only now are the labels final
        for checkpoint in one.checkpoints:
            checkpoint.label = f"{one.label}--step-{checkpoint.step:06d}"
    every = [c.label for one in joined for c in (one, *one.checkpoints)] + list(seeds(joined))
    if twice := sorted({label for label in every if every.count(label) > 1}):
        raise InputError(
            f"two of the models would be called {' and '.join(twice)}.\nGive them other names: --model LABEL=NAME ..."
        )
    return joined


def _read(run, name, base_url, selection):
    label, where, url = _split(name, base_url)
    if url:
        return Candidate(label or _plain(where), where, url, arm=label, step=_step(where))
    if where in (*training_sets.TRAINING_SETS, *training_sets.list_trained(run / "04_train")):
        last = runs.last_checkpoint(run, where)
        found = Candidate(label or where, str(last), arm=label, step=_step(str(last)))
        return (
            found
            if selection in ("auto", "last")
            else _with_checkpoints(found, run / "04_train" / where)
        )
    if where == "base":
        return Candidate(label or "base", local_folder(runs.trained_from(run)), arm=label)
    if Path(where).is_dir() and list(Path(where).glob("step-*[0-9]")):
        own = Path(where).resolve().parent == (run / "04_train").resolve()
        parts = [part for part in Path(where).parts[-3:] if part not in ("04_train", "/")]
        found = Candidate(label or _plain("/".join(parts[-1 if own else -2 :])), where, arm=label)
        if selection != "last":
            return _with_checkpoints(found, Path(where))
        where = str(sorted(Path(where).glob("step-*[0-9]"))[-1])
        return Candidate(found.label, where, arm=label, step=_step(where))
    if inner := sorted(file.parent.name for file in Path(where).glob("*/settings.json")):
        raise InputError(
            f"{where} holds the trainings {' '.join(inner)}.\nName one of them: --model {where.rstrip('/')}/{inner[0]}"
        )
    try:
        folder = where if (Path(where) / "adapter_config.json").is_file() else local_folder(where)
    except InputError as error:
        ours = " ".join(["base", *training_sets.list_trained(run / "04_train")])
        raise InputError(
            f"{error}\nThe names of this run: --model {ours}"
            + ("; a server: NAME@http://..." if "@" in where else "")
        ) from error
    return Candidate(
        label or _plain("/".join(Path(where).parts[-2:])), folder, arm=label, step=_step(where)
    )


def _split(name, base_url):
    """ "LABEL=NAME@URL" -> (LABEL or "", NAME, URL or None); a folder may have either sign in its name."""
    label, equals, where = name.partition("=")
    if not equals or Path(name).exists():
        label, where = "", name
    where, _, url = where.rpartition("@http") if "@http" in where else (where, "", "")
    if not where or label != _plain(label) or len(label) > LONGEST or label.endswith(".json"):
        raise InputError(
            f"--model {name!r} is not NAME, NAME@URL or LABEL=NAME, with a LABEL of letters, digits, '.', '_', '-' and '+'"
        )
    return label, where, f"http{url}" if url else base_url


def _plain(name):
    return re.sub(r"[^\w.+-]+", "--", name)[-LONGEST:].strip("-.")


def _step(name):
    found = re.findall(r"(?:step|checkpoint)[-_]?(\d+)", name)
    return int(found[-1]) if found else None


def _with_checkpoints(candidate, folder):
    """By step; a merged adapter (the last) is taken as it was trained, like those before it."""
    for step in sorted(folder.glob("step-*[0-9]")):
        candidate.checkpoints += (Candidate(step.name, str(step), step=_step(step.name)),)
    return candidate


def _joined(label, group, choose):
    if len(group) == 1:
        return group
    if not all(c.arm for c in group):
        raise InputError(
            f"{len(group)} models would be called {label!r}: {', '.join(c.where for c in group)}\n"
            "Give them names: --model LABEL=NAME ... (one LABEL for several: seeds of one arm)"
        )
    if len({(c.where if c.url else Path(c.where).resolve(), c.url) for c in group}) < len(group):
        raise InputError(
            f"{label!r} names the same model twice: {', '.join(c.where for c in group)}\nEach seed is a model of its own."
        )
    steps = [c.step for c in group]
    if (
        choose
        and None not in steps
        and len(set(steps)) == len(steps)
        and not any(c.checkpoints for c in group)
    ):
        return [Candidate(label, label, checkpoints=tuple(sorted(group, key=lambda c: c.step)))]
    trainings = [
        Path(c.where) if c.checkpoints else Path(c.where).parent for c in group if not c.url
    ]
    if len(set(trainings)) < len(trainings):
        print(
            f"note: {label}: several are checkpoints of one training, whose spread is not that of seeds"
        )
    for number, c in enumerate(group, 1):
        c.label = f"{label}.{number}"
    return group


def seeds(found):
    """{label: labels of its seeds} where there are several."""
    groups = {c.arm: [other.label for other in found if other.arm == c.arm] for c in found if c.arm}
    return {arm: labels for arm, labels in groups.items() if len(labels) > 1}


def compared(found, baseline=None):
    """-> (what is compared, seeds of one arm as one; the baseline: sft where it is among them, else the first, or the one that is asked for)."""
    names = list(dict.fromkeys(c.arm if c.arm in seeds(found) else c.label for c in found))
    baseline = baseline or ("sft" if "sft" in names else names[0])
    if baseline not in names:
        raise InputError(f"--baseline {baseline!r} is none of the models: {' '.join(names)}")
    return names, baseline


def origin(one):
    """What tells of the base of a model: its name, and what a training of the kit, or peft, wrote down beside it."""
    said, seen = [str(one.where)], str(one.where)
    for _ in range(3):  # an arm trained after another one says that other one
        for file, key in (
            (Path(seen).parent / "settings.json", "base"),
            (Path(seen) / "adapter_config.json", "base_model_name_or_path"),
        ):
            if file.is_file() and (base := runs.read_settings(file).get(key)):
                seen = str(base)
                said.append(seen)
                break
    return " ".join(said)


def check_served(engine, journal):
    """InputError where a server says that another model has taken the name under which answers are journalled. Few say it (vLLM: `root`)."""
    root, before = engine.root(), journal.records.get("served", {}).get("root")
    if root and before and root != before:
        raise InputError(
            f"{engine.identity} is {root} now, and {before} when it was asked before.\nGive each model a served name of its own, "
            "such as its checkpoint's (vllm serve FOLDER --served-model-name cft-000040), and ask under that."
        )
    if root and not before:
        journal.append({"key": "served", "root": root})


def open_engine(one, config):
    """-> (engine, tokenizer (None: a server's), template, what two scores must have in common to be compared)."""
    if one.url:
        budget = Budget(one.where, config.price_in, config.price_out, config.budget, config.yes)
        engine, words, kind = (
            Client(one.where, one.url, config.concurrency, config.timeout, budget),
            None,
            {"engine": "server"},
        )
        engine.identity = f"{one.where} at {one.url}"  # a name says little of what is served: another server is another model
        engine.settings = {"served": one.where, "server": one.url, "identity": engine.identity}
        if config.template == "own":
            try:
                words = load_tokenizer(local_folder(one.where, weights=False))
            except InputError as error:
                raise InputError(
                    f"--template own writes the prompts here, with the tokenizer of {one.where}.\n{error}"
                ) from error
    else:
        engine = Local(
            one.where, config.batch_size, config.exact, config.load_in_4bit, config.processes
        )
        words, kind = (
            engine.tokenizer,
            {key: engine.settings[key] for key in ("dtype", "attention", "load_in_4bit")}
            | {"engine": "local"},
        )
    template = (
        config.template
        if config.template != "auto"
        else prompts.template_for(words)
        if words
        else "chatml"
    )
    prompts.check_template(template, words, allow_own=True)
    return engine, words, template, kind | {"template": template}
