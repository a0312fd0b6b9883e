"""Files of a run: where they are, JSONL rows, content ids, manifests. All final files are written atomically."""

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import unicodedata
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

VERSIONED = ("torch", "transformers", "datasets", "openai", "math-verify", "sympy", "peft", "bitsandbytes")


class InputError(Exception):
    """What a user can mend: says what was seen, what was expected and how to go on. Scripts end with status 2."""

    status = 2


class Stopped(InputError):
    """A run that ends early. Status 3: rows failed; 4: key, quota, budget, server; 5: disk; 130: Ctrl-C; 143: SIGTERM."""

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status


# --- ids ------------------------------------------------------------------------------------------------------------

def content_id(*parts):
    """24 hex digits of the SHA-256 of the parts as canonical JSON, Unicode-normalised (NFC), otherwise as they are."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def file_hash(path):
    """SHA-256 of a file's bytes, hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def model_id(folder):
    """24 hex digits of what a model folder computes: its weights, config and tokenizer files, whatever it is called."""
    files = [f for f in sorted(Path(folder).iterdir()) if f.is_file() and f.suffix in (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")]
    return content_id([[f.name, file_hash(f)] for f in files])


# --- where a run lives ----------------------------------------------------------------------------------------------

def run_folder(name):
    """runs/<name>, which must be a plain folder name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(f"--name {name!r} is not a plain name (letters, digits, '.', '_', '-'; no path).\n"
                         "A run always lives in runs/NAME under this folder: give for example --name my-run")
    return Path("runs") / name


MAKERS = {"01": "01_sample.py", "02": "02_critique.py", "03": "03_build.py", "04": "04_train.py", "05": "05_eval.py"}


def stage_file(run, name):
    """A file that an earlier script makes; where it is missing the error names the script."""
    path = run / name
    if not path.exists():
        raise InputError(f"{path} is not there; {MAKERS[name[:2]]} makes it.\n"
                         f"Run: python {MAKERS[name[:2]]} --name {run.name} (with the --preset you use)")
    return path


def read_manifest(run, stage):
    """The manifest of a stage ("01" to "05"), {} where it has not run."""
    manifest = run / f"{stage}.run.json"
    return json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}


def read_settings(path):
    """A JSON file with the settings of a training, or an adapter's; InputError where it is torn."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {str(error)[:100]}).\nWith what {path.parent} was made cannot be known: "
                         f"train it again (rm -r {path.parent})") from error


def check_inputs(run, stage):
    """InputError where the files that a stage ("02", "03") was made from have changed since."""
    for path, known in read_manifest(run, stage).get("inputs", {}).items():
        if Path(path).is_file() and file_hash(path) != known:
            raise InputError(f"{path} has changed since {MAKERS[stage]} read it.\nRun: python {MAKERS[stage]} --name {run.name}")


def last_checkpoint(run, arm):
    """The newest checkpoint folder of an arm; says so where the training has not come to its end."""
    folder = stage_file(run, "04_train") / arm
    trained = sorted(file.parent.name for file in folder.parent.glob("*/settings.json"))
    if arm not in trained:
        raise InputError(f"{arm} is not an arm that was trained in {run}; these were: {' '.join(trained) or 'none'}\n"
                         f"Run: python 04_train.py --name {run.name} --arms {arm}")
    found = sorted(folder.glob("step-*[0-9]"))
    if not found:
        raise InputError(f"{folder} holds no checkpoint.\nRun: python 04_train.py --name {run.name} --arms {arm}")
    steps = read_settings(folder / "settings.json").get("steps", 0)
    if found[-1].name != f"step-{steps:06d}":
        print(f"note: {arm} is not trained to its end: {found[-1].name} of {steps} steps (python 04_train.py --name {run.name} goes on)")
    merged = found[-1] / "merged"  # of an adapter
    return merged if merged.exists() else found[-1]


def trained_on(run):
    """The folder of the base model that the run's arms were trained from."""
    if not (run / "04_train").exists() and (run / "01_base").exists():
        return run / "01_base"
    settings = [read_settings(file) for file in stage_file(run, "04_train").glob("*/settings.json")]
    bases = sorted({str(s.get("base")) for s in settings if not s.get("after")})  # a second stage starts from an arm of the run
    if len(bases) != 1:
        raise InputError(f"{run / '04_train'} was trained from {len(bases)} bases {bases}; say which to score: --model FOLDER ...\n"
                         f"(python 04_train.py --name {run.name} trains the arms)")
    return bases[0]


# --- rows -----------------------------------------------------------------------------------------------------------

def read_jsonl(path, fields=()):
    """All rows of a JSONL file, as dicts; InputError with file and line where one is not a JSON object, or lacks a field, and
    where there is none."""
    rows = list(iter_jsonl(path, fields))
    if not rows:
        raise InputError(f"{path} holds no rows.\nA JSONL file has one JSON object per line.")
    return rows


def rows_if_any(path):
    """The rows of a JSONL file that need not be there, nor hold any."""
    return read_jsonl(path) if path.exists() and path.stat().st_size else []


def iter_jsonl(path, fields=()):
    """The same, one row after the other."""
    try:
        lines = open(path, encoding="utf-8-sig", errors="strict")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).\nExpected a JSONL file, one JSON object per line.") from error
    with lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _row(line, path, number, fields)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text ({error}).") from error


def _row(line, path, number, fields):
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number} is not JSON ({error}): {line[:80]!r}\n"
                         f"Expected one JSON object per line; mend or delete that line: sed -i {number}d {shlex.quote(str(path))}") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number} is not a JSON object: {line[:80]!r}\n"
                         f"Expected {{...}}; mend or delete that line: sed -i {number}d {shlex.quote(str(path))}")
    if missing := [name for name in fields if name not in row]:
        raise InputError(f"{path}, line {number} has no {', '.join(missing)}: {line[:80]!r}\n"
                         + (f"{maker} writes that file; run it again" if (maker := MAKERS.get(Path(path).name[:2])) else
                            f"Expected the fields {', '.join(fields)}."))
    return row


def write_atomic(path, data):
    """Write text, or its pieces, so that `path` holds either its old content or all of the new one, whatever happens.

    Stopped (status 5) where the disk does not take it.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as f:
            f.writelines(piece.encode() for piece in ([data] if isinstance(data, str) else data))
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise cannot_write(path, error) from None


def cannot_write(path, error):
    return Stopped(f"{path} cannot be written ({error}).\nMake room, then run the same command again.", 5)


def utf8(text):
    """What UTF-8 cannot hold (a lone surrogate, from some page of the web) as a question mark."""
    return text.encode("utf-8", "replace").decode()


def json_line(row):
    """One line of JSONL; text that UTF-8 cannot hold (a lone surrogate, which a server may send) is escaped."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


def write_jsonl(path, rows):
    write_atomic(path, map(json_line, rows))


def lock(path, again=False):
    """Keep others from writing what belongs to `path`, until this process ends or releases it (a lock file beside it).

    again: this process itself may take it once more, as a notebook does whose cell is run a second time.
    """
    held = FileLock(f"{path}.lock", is_singleton=again)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process is writing {path}.\nWait for it to end, or use another --name.") from None
    except OSError as error:
        raise cannot_write(path, error) from None
    return held


def append_line(path, row):
    try:
        with open(path, "a", encoding="utf-8") as f:
            f.write(json_line(row))
    except OSError as error:
        raise cannot_write(path, error) from None


def kept_metrics(path, step, mend):
    """The rows of a metrics file up to `step`; `mend`: later ones, from after the state that a resume starts at, are removed."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            pass  # a line torn by a kill: its step is run again
    rows = [row for row in rows if isinstance(row, dict) and row.get("step", math.inf) <= step]
    if mend:
        write_jsonl(path, rows)
    return rows


def check_settings(path, settings):
    """InputError where something that was made with other settings stands."""
    if not path.exists() and (made := sorted(path.parent.glob("st*-*[0-9]"))):
        raise InputError(f"{path} is not there, but {made[-1].name} is: with which settings and data it was made cannot be known.\n"
                         f"Remove it: rm -r {path.parent}")
    if path.exists():
        try:
            stands = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({error}).\nWhat was made with it cannot be known: rm -r {path.parent}") from error
        changed = {k for k in settings if stands.get(k) != settings[k]}
        if changed:
            seen = ", ".join(f"{k} {stands.get(k)!r} -> {settings[k]!r}" for k in sorted(changed))
            raise InputError(f"{path.parent} was made with other settings or data: {seen}\n"
                             f"Use another --name, or remove it: rm -r {path.parent}")


def check_disk(folder, needed, mend):
    """Stopped (status 5) where the disk under `folder` has less than `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise Stopped(f"{folder} needs {needed / 1e9:.3f} GB, {free / 1e9:.3f} GB are free on that disk.\nMake room{mend}.", 5)


# --- manifest -------------------------------------------------------------------------------------------------------

def _git(*command):
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, timeout=10, cwd=Path(__file__).parent)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions():
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def environment():
    """What ran it: commit, versions, GPU."""
    status, torch = _git("status", "--porcelain", "--untracked-files=no"), sys.modules.get("torch")
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(status) if status is not None else None,
        "versions": _versions(),
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.time() - STARTED, 1),
    }


def write_json(path, value):
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_manifest(path, config, inputs=(), **headline):
    """0N.run.json beside a stage's output: what made it and what came out, enough to make it again."""
    write_json(path, {"config": vars(config), "inputs": {str(p): file_hash(p) for p in inputs}, **environment(), **headline})


STARTED = time.time()  # when this process began, near enough: files is the first room a script enters
