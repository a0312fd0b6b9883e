"""A script's Config dataclass -> its settings: flags in a shell or under %run, keyword overrides in a notebook."""

import os
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import field, fields
from pathlib import Path

from transformers import HfArgumentParser

from common.core.errors import InputError
from common.core.presets import PRESETS
from common.core.runs import read_manifest, run_folder

# Settings that count something of which there must be one.
COUNTS = {
    "lora_rank",
    "lora_alpha",
    "gpus",
    "limit",
    "samples",
    "max_new_tokens",
    "batch_size",
    "concurrency",
    "timeout",
    "batch_tokens",
    "rows",
    "epochs",
    "global_batch",
    "cutoff",
    "tokens_per_microbatch",
    "base_steps",
    "per_question",
    "min_tokens",
    "max_tokens",
}
MAY_BE_ZERO = {
    "seed",
    "processes",
    "holdout",
    "keep_last",
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "save_every",
    "state_every",
    "threads",
    "temperature",
    "retries",
    "budget",
    "price_in",
    "price_out",
}
SHARES = {
    "mfu",
    "top_p",
    "warmup_ratio",
    "teacher_skip",
    "base_knows_gaps",
    "max_bad_share",
    "wrong_share",
    "teacher_errors",
}
CONSOLES = (
    "kernel_launcher.py",
    "pydevconsole.py",
    "ipython",
    "ipython3",
)  # sys.argv is theirs, not the script's


class _Help(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """--help shows a script's first cell as it is written, and the default of every flag."""


def setting(default, help, choices=None):
    """A field of a Config: its default is the paper's value, `help` is what --help prints (units included)."""
    metadata = {"help": help.replace("%", "%%")} | ({"choices": choices} if choices else {})
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def configure(Config, stage, **overrides):
    """Read the settings of a script ("01" to "05"): a field's default, then the preset, then flags or (in a notebook)
    keyword overrides.

    An unknown or abbreviated flag stops with status 2; so does, with a clear message, an unknown preset or run name.
    """
    sys.excepthook = _report
    arguments = [] if Path(sys.argv[0]).name.endswith(CONSOLES) else sys.argv[1:]
    first = ArgumentParser(
        add_help=False, allow_abbrev=False
    )  # the preset first, so that --help shows its values
    first.add_argument("--preset")
    first.add_argument("--name")
    early = vars(first.parse_known_args(arguments)[0])
    asked = overrides.get("preset") or early["preset"]
    started = _started_with(overrides.get("name") or early["name"] or asked or "tiny")
    preset = asked or started.get("preset", "tiny")
    parser = HfArgumentParser(
        Config,
        allow_abbrev=False,
        formatter_class=_Help,
        description=sys.modules["__main__"].__doc__,
    )
    if preset not in PRESETS:
        raise InputError(
            f"unknown preset {preset!r}; the presets are: {', '.join(PRESETS)}\n"
            "Leave --preset out for tiny, the default."
        )
    names = {f.name for f in fields(Config)}
    if unknown := sorted(set(overrides) - names):
        raise InputError(
            f"unknown settings {unknown}; this script knows: {', '.join(sorted(names))}"
        )
    parser.set_defaults(preset=preset, **PRESETS[preset][stage])
    if "seed" in started:
        parser.set_defaults(seed=started["seed"])
    parser.set_defaults(**overrides)  # argparse reads a default that is text as it reads a flag
    config, unread = parser.parse_args_into_dataclasses(
        arguments, return_remaining_strings=True, look_for_args_file=False
    )
    if unread:
        raise InputError(
            f"unknown flag or word: {' '.join(unread)}\nEvery flag is written out in full; --help lists them."
        )
    config.name = config.name or preset
    run_folder(config.name)  # an error before anything is loaded
    _check(config)
    return config


def _check(config):
    """InputError for a value out of its range. Flags are checked by argparse as far as types and choices go."""
    for f in fields(config):
        value, expected = getattr(config, f.name), None
        if f.metadata.get("choices") and value not in f.metadata["choices"]:
            expected = f"one of {', '.join(f.metadata['choices'])}"
        elif (
            f.name in COUNTS and value is not None and not value >= 1
        ):  # not: a NaN is out of range, too
            expected = "1 or more; leave it out for the default"
        elif f.name in SHARES and value is not None and not 0 <= value <= 1:
            expected = "0 to 1"
        elif f.name in MAY_BE_ZERO and value is not None and not value >= 0:
            expected = "0 or more"
        if expected:
            raise InputError(f"--{f.name.replace('_', '-')} {value}: expected {expected}.")


def _started_with(name):
    """The settings that 01 started a run with ({} where there is no such run): later scripts keep its preset and seed."""
    return read_manifest(run_folder(name), "01").get("config", {})


def _report(kind, error, trace):
    """A user's mistake ends a script with its message and its status, not with a traceback."""
    if not issubclass(kind, InputError | KeyboardInterrupt):
        return sys.__excepthook__(kind, error, trace)
    sys.stdout.flush()
    # Not sys.stderr: torch.distributed wraps this hook and swallows what goes there.
    print(
        f"\nerror: {str(error) or 'interrupted. The same command goes on where it was.'}",
        file=sys.__stderr__,
        flush=True,
    )
    os._exit(getattr(error, "status", 130))  # an excepthook cannot set the status otherwise
