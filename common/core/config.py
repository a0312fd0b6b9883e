"""A script's Config: settings as flags in a shell (or under %run), as keywords in a notebook."""

import copy
import json
import math
import os
import sys
from argparse import ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from common.core.errors import InputError
from common.core.manifests import refuse_old_layout, run_folder, started_with
from common.core.presets import PRESETS
from common.core.untrusted import printable

# The headings of --help, in this order
GROUPS = ("what you will use", "data", "generation", "server and money")
GROUPS += ("training", "checkpoints", "statistics", "miniature")
# Fields of a request that the kit sets itself, by flags that journal and budget know of.
OWN_FIELDS = ("model", "messages", "prompt", "stream", "n", "temperature", "top_p", "stop")
OWN_FIELDS += ("max_tokens", "max_completion_tokens")
# sys.argv belongs to these programs, not to the script.
CONSOLES = ("kernel_launcher.py", "pydevconsole.py", "ipython", "ipython3")


def setting(
    default: Any,
    help: str,
    choices: Sequence = (),
    minimum: float = -math.inf,
    maximum: float = math.inf,
    group: str = GROUPS[0],
) -> Any:
    """Return a field of a Config: its default is the paper's value, its help says its unit.

    minimum, maximum: the range, both ends included. group: its heading in --help, one of GROUPS.
    """
    metadata = dict(help=help, choices=choices, minimum=minimum, maximum=maximum, group=group)
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class RunConfig:
    """The settings of every script."""

    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting(
        "tiny",
        "tiny, paper, lora, qlora, one-shot (common/core/presets.py); "
        "default: what 01 was run with, tiny for a new run",
    )


@dataclass
class EngineConfig(RunConfig):
    """The settings of scripts that generate text, with a server or with a model here."""

    budget: float | None = setting(
        None,
        "USD a model may cost over all starts (05: for each benchmark): a hard stop; inf: no limit",
        minimum=0,
    )
    extra_body: str = setting(
        "", "further fields of each request to a server, a JSON object", group="generation"
    )
    batch_size: int | None = setting(
        None,
        "prompts at a time of a model on this machine (default: auto, by the GPU's memory)",
        minimum=1,
        group="generation",
    )
    concurrency: int = setting(
        256, "requests in flight at most", minimum=1, group="server and money"
    )
    timeout: float = setting(
        300.0, "seconds for one request in all", minimum=1, group="server and money"
    )
    price_in: float | None = setting(
        None,
        "USD per million prompt tokens (default: common/generate/prices.json)",
        minimum=0,
        group="server and money",
    )
    price_out: float | None = setting(
        None, "USD per million tokens of outputs", minimum=0, group="server and money"
    )


def configure(config_class: Any, stage: str, **overrides: Any) -> Any:
    """Return the settings of a script ("01" to "05"), as an instance of its Config class.

    A flag, or in a notebook a keyword, beats the preset, and the preset beats a field's default.
    What 01 was run with is the default preset and seed of the scripts after it.
    An unknown or abbreviated flag ends the script with status 2, and so does a value out of range.
    """
    sys.excepthook = _end_script
    if sys.platform == "win32":
        raise InputError(
            "native Windows lacks what training and grading need.\n"
            "Use WSL: https://learn.microsoft.com/windows/wsl/install"
        )
    flags = [] if Path(sys.argv[0]).name.endswith(CONSOLES) else sys.argv[1:]
    started, preset = _choose_preset(flags, overrides)
    preset_values = copy.deepcopy(PRESETS[preset].get(stage, {}))  # a list of it may be changed
    defaults = vars(config_class()) | preset_values
    parser = _build_parser(config_class, defaults)
    # argparse reads a default that is text as it reads a flag.
    parser.set_defaults(**defaults | started | {"preset": preset} | overrides)
    settings, unknown = parser.parse_known_args(flags)
    if unknown:
        raise InputError(
            f"unknown flag: {' '.join(unknown)}\n"
            "Every flag is written out in full; --help lists them."
        )
    config = config_class(**vars(settings))
    config_class.is_named = config.name is not None  # of the class: it is no setting
    if config.name is None:
        config.name = preset
    for definition in fields(config_class):
        _check_range(definition, getattr(config, definition.name))
    return config


def _choose_preset(flags, overrides):
    """Return what 01 was run with, {} for a new run, and the preset that holds.

    They are needed before the other flags are read: --help shows the preset's values.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default=overrides.get("preset"))
    parser.add_argument("--name", default=overrides.get("name"))
    settings, _ = parser.parse_known_args(flags)
    if settings.name is None:
        settings.name = settings.preset or "tiny"
    run = run_folder(settings.name)
    refuse_old_layout(run)
    started = started_with(run)
    preset = settings.preset or started.get("preset", "tiny")
    if preset not in PRESETS:
        raise InputError(
            f"unknown preset {preset!r}; the presets are: {', '.join(PRESETS)}\n"
            "Leave --preset out for tiny, the default."
        )
    return started, preset


def _build_parser(config_class, defaults):
    """Return the parser of a Config's flags; --help begins with the script's first cell."""
    parser = ArgumentParser(
        allow_abbrev=False,
        usage="%(prog)s [--SETTING VALUE ...]",
        formatter_class=RawDescriptionHelpFormatter,
        description=sys.modules["__main__"].__doc__,
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for definition in fields(config_class):
        name, metadata = definition.name, definition.metadata
        text, notes = metadata["help"], [_range(metadata)]
        if "default:" not in text and defaults[name] not in (None, [], ""):
            notes.append(f"default: {defaults[name]}")
        if any(notes):
            text += f" ({'; '.join(filter(None, notes))})"
        options: dict[str, Any] = {"help": text.replace("%", "%%")}
        value_type = (get_args(definition.type) or [definition.type])[0]  # int of `int | None`
        if value_type is bool:
            options["action"] = BooleanOptionalAction
        elif value_type in (int, float) and value_type is not definition.type:
            options["type"] = _optional(value_type)
        else:
            options["type"] = value_type
        if isinstance(defaults[name], list):
            options["nargs"] = "+"
        groups[metadata["group"]].add_argument(_flag(definition), **options)
    return parser


def _optional(number_type):
    """Return the type of a number's flag that takes "none" or "auto", too."""

    def read(text):
        return None if text in ("none", "auto") else number_type(text)

    read.__name__ = f"{number_type.__name__} (or none)"  # argparse says "invalid ... value"
    return read


def _check_range(definition, value):
    """Raise InputError for a value out of its range; None is "not given"."""
    metadata = definition.metadata
    valid = not metadata["choices"] or value in metadata["choices"]
    if isinstance(value, int | float):  # a NaN is in no range
        valid = metadata["minimum"] <= value <= metadata["maximum"]
    if not valid:
        raise InputError(f"{_flag(definition)} {value}: expected {_range(metadata)}.")


def _flag(definition):
    return f"--{definition.name.replace('_', '-')}"


def _range(metadata):
    """Return the values of a setting in words, "" if any will do."""
    minimum, maximum = metadata["minimum"], metadata["maximum"]
    if metadata["choices"]:
        return f"one of {', '.join(metadata['choices'])}"
    if maximum < math.inf:
        return f"{minimum} to {maximum}"
    return f"{minimum} or more" if minimum > -math.inf else ""


def _end_script(kind, error, trace):
    """End a script after a user's mistake with its message and status, without a traceback."""
    if not issubclass(kind, InputError | KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stdout.flush()
    message = printable(str(error)) or "interrupted. The same command goes on where it was."
    # Not sys.stderr: torch.distributed wraps this hook and swallows what goes there.
    print(f"\nerror: {message}", file=sys.__stderr__, flush=True)
    os._exit(getattr(error, "status", 130))  # an excepthook cannot set the status otherwise


def parse_pairs(texts: Iterable, flag: str, names: Iterable = ()) -> dict:
    """Return {"question": "problem"} for the values ["question=problem"] of a flag.

    Raises InputError for a text of another form, and for a name that is not among `names`.
    """
    expected = f"NAME=VALUE, NAME one of: {', '.join(names) or 'any'}"
    pairs = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value or (names and name not in names):
            raise InputError(f"{flag} {text!r}: expected {expected}")
        pairs[name] = value
    return pairs


def parse_extra_body(text: str) -> dict:
    """Return the JSON object of --extra-body, {} for "".

    Raises InputError for anything else, and for a field that the kit sets itself.
    """
    try:
        extra = json.loads(text or "{}")
    except (ValueError, RecursionError):
        extra = None
    if not isinstance(extra, dict):
        raise InputError(
            f"--extra-body {text[:200]!r}: expected a JSON object, for example\n"
            """--extra-body '{"enable_thinking": false}'"""
        )
    reserved = [name for name in OWN_FIELDS if name in extra]
    if reserved:
        raise InputError(
            f"--extra-body has {reserved[0]!r}, which the kit sets itself.\n"
            "Leave it out: temperature, top_p and the number of tokens have flags (--help)."
        )
    return extra
