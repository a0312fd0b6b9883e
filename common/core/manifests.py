"""A run's files, and the manifest of each output: what made it and from what.

    runs/NAME/02_critiques/gpt-6-luna.jsonl      an output
    runs/NAME/02_critiques/gpt-6-luna.run.json   its manifest

A folder that is an output (04_train/cft) holds its manifest as run.json.
"""

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path

from common.core.errors import InputError
from common.core.files import file_hash, write_json

PROCESS_START = time.time()  # near enough: a script imports this module first
SCRIPTS = ("01_sample.py", "02_critique.py", "03_build.py", "04_train.py", "05_eval.py")
PACKAGES = ("torch", "transformers", "datasets", "openai")
PACKAGES += ("math-verify", "sympy", "peft", "bitsandbytes")


def run_folder(name: str) -> Path:
    """Return runs/<name>; raise InputError unless the name is a plain folder name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"--name {name!r} is not a plain name (letters, digits, '.', '_', '-'; no path).\n"
            "A run is always in runs/NAME under this folder: give for example --name my-run"
        )
    return Path("runs") / name


def file_label(text: str) -> str:
    """Return the text as a file name: letters, digits, '.', '_' and '-' only.

    >>> file_label("Qwen/Qwen2.5-Math-7B"), file_label("../my data.jsonl")
    ('Qwen-Qwen2.5-Math-7B', 'my-data.jsonl')
    """
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    if not label:
        raise InputError(
            f"{text!r} cannot name a file: it has no letter (a to z) and no digit.\n"
            "Give a name for its files: --label NAME"
        )
    return label[:100]


def require(path: Path) -> Path:
    """Return the path; raise InputError that names the script for it if it does not exist."""
    if not path.exists():
        run, script = _origin(path)
        raise InputError(
            f"{path} does not exist; {script} makes it.\n"
            f"Run: python {script} --name {run.name} (with the --preset you use)"
        )
    return path


def outputs(run: Path, stage_folder: str) -> list:
    """Return the .jsonl files of a stage's folder ("01_responses"), sorted by name.

    Raises InputError that names the script if there is none.
    """
    paths = sorted((run / stage_folder).glob("*.jsonl"))
    return paths or [require(run / stage_folder / "*.jsonl")]


def refuse_old_layout(run: Path):
    """Raise InputError if an earlier version of the kit made this run."""
    manifest = run / "01.run.json"
    if manifest.exists():
        raise InputError(
            f"{run} was made by an earlier version of the kit (commit "
            f"{_read_json(manifest).get('commit')}), which kept its files in other places.\n"
            "Use another --name. Take along what was paid for, then it is not asked for again: "
            f"cp {run}/02_journal.jsonl {run.parent}/NEW/"
        )


def _origin(path):
    """Return the run folder of an output, and the script that makes it."""
    run, number = re.findall(r"(.+?)/(0\d)_", path.as_posix())[-1]
    return Path(run), SCRIPTS[int(number) - 1]


def manifest_path(output: Path) -> Path:
    """Return where the manifest of an output, a file or a folder, is."""
    return output / "run.json" if output.is_dir() else output.with_suffix(".run.json")


def write_manifest(output: Path, config, inputs: Iterable = (), **headline):
    """Write what made an output: settings, hashes of the inputs, versions, command and time.

    headline: numbers about the output, as further fields.
    """
    manifest = {
        "layout": 2,  # 1 had one file and one manifest for each stage
        "config": vars(config),
        "inputs": {str(path): file_hash(Path(path)) for path in inputs},
        "output_sha256": file_hash(output) if output.is_file() else None,
        **environment(),
        **headline,
    }
    write_json(manifest_path(output), manifest)


def read_manifest(output: Path) -> dict:
    """Return the manifest of an output, {} if it has none."""
    return _read_json(manifest_path(output))


def changed_inputs(output: Path) -> list:
    """Return the files that have changed since the output was made from them."""
    changed = []
    for path, sha256 in read_manifest(output).get("inputs", {}).items():
        if Path(path).is_file() and file_hash(path) != sha256:
            changed.append(path)
    return changed


def check_inputs(output: Path):
    """Raise InputError if a file that the output was made from has changed since."""
    for path in changed_inputs(output):
        run, script = _origin(output)
        raise InputError(
            f"{path} has changed since {script} made {output} from it.\n"
            f"Run: python {script} --name {run.name}"
        )


def started_with(run: Path) -> dict:
    """Return the preset and seed that 01 was last run with, {} for a new run.

    The later scripts keep them, so that a forgotten flag does not build something else.
    """
    manifests = [_read_json(path) for path in (run / "01_responses").glob("*.run.json")]
    if not manifests:
        return {}
    config = max(manifests, key=itemgetter("finished"))["config"]
    return {"preset": config["preset"], "seed": config["seed"]}


def _read_json(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def environment() -> dict:
    """Return the command, the kit's commit, versions, GPU, and time of this process."""
    torch = sys.modules.get("torch")  # not imported for this: it takes seconds
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _commit(),
        "versions": _versions(),
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.time() - PROCESS_START, 1),
    }


def _versions():
    versions = {"python": platform.python_version()}
    for package in importlib.metadata.distributions():
        if package.name in PACKAGES:
            versions[package.name] = package.version
    return versions


def _commit():
    """Return the kit's commit, with "-dirty" if files have changed since; "" without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    except OSError:
        return ""
    return done.stdout.strip()
