"""Shared by the tests of the scripts: run or kill one, compare run folders."""

import hashlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import torch
from safetensors import safe_open

from common.core.errors import InputError

ROOT = Path(__file__).parent.parent
STAGES = ("01_sample.py", "02_critique.py", "03_build.py", "04_train.py", "05_eval.py")
# The tiny preset in miniature. 24 rows a set are 6 steps of 4; checkpoints after 2, 4 and 6, a
# training state after each step.
SMALL = {
    "01_sample.py": ["--limit", "48", "--base-steps", "1"],
    "02_critique.py": [],
    "03_build.py": ["--rows", "24"],
    "04_train.py": [
        "--global-batch",
        "4",
        "--learning-rate",
        "3e-3",
        "--save-every",
        "2",
        "--state-minutes",
        "1e-9",
    ],
    "05_eval.py": ["--limit", "8", "--max-new-tokens", "12", "--batch-size", "2"],
}


def _process(folder, name, arguments, prefix, environment):
    """Start a script as a user does: from a folder of theirs, without PYTHONPATH.

    The hub and the GPU are out of reach.
    """
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OPENAI_BASE_URL")}
    env |= {"OPENAI_API_KEY": "", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    command = [*(prefix or [sys.executable]), str(ROOT / name), *map(str, arguments)]
    return dict(args=command, cwd=folder, env=env)


def run_process(folder, name, *arguments, prefix=(), timeout=300, **environment):
    """Run a script as a process of its own. -> CompletedProcess

    It is for kills, signals, torchrun and real exit statuses.
    """
    process = _process(folder, name, arguments, prefix, environment)
    return subprocess.run(**process, capture_output=True, text=True, timeout=timeout)


def run_script(folder, name, *arguments, prefix=(), timeout=300, **environment):
    """Run a script of the kit in `folder`, whatever its status. -> CompletedProcess

    It runs inside this process, which pays for imports once: they are 9 CPU seconds of each start.
    With a `prefix`, such as torchrun's, it is a process of its own.
    """
    if prefix:
        return run_process(folder, name, *arguments, prefix=prefix, timeout=timeout, **environment)
    out, err = io.StringIO(), io.StringIO()
    with (
        _in_place(folder, name, arguments, environment),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        status = _run_inside(ROOT / name, err)
    return subprocess.CompletedProcess([name, *arguments], status, out.getvalue(), err.getvalue())


@contextmanager
def _in_place(folder, name, arguments, environment):
    """Set the working directory, arguments and environment that a script expects; restore them."""
    before = os.getcwd(), sys.argv, sys.excepthook, torch.get_num_threads(), torch.get_rng_state()
    os.chdir(folder)
    sys.argv = [str(ROOT / name), *map(str, arguments)]
    variables = {"OPENAI_API_KEY": "", **environment}
    try:
        with mock.patch.dict(os.environ, variables):
            if "OPENAI_BASE_URL" not in environment:
                os.environ.pop("OPENAI_BASE_URL", None)
            yield
    finally:
        folder_before, sys.argv, sys.excepthook, threads, rng_state = before
        os.chdir(folder_before)
        torch.set_num_threads(threads)
        torch.set_rng_state(rng_state)
        if torch.distributed.is_initialized():  # of a script that ended in an error
            torch.distributed.destroy_process_group()


def _run_inside(script, err):
    """Run the script's file as __main__. -> the exit status that a shell would see"""
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=err)
            return 1
        return end.code or 0
    except InputError as error:
        print(f"\nerror: {error}", file=err)
        return error.status
    except Exception:
        traceback.print_exc(file=err)
        return 1
    return 0


def must_run(folder, name, *arguments, **options):
    """run_script that has to end well. -> what it printed."""
    done = run_script(folder, name, *arguments, **options)
    assert done.returncode == 0, (
        f"{name} {' '.join(map(str, arguments))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout


def kill_when(ready, folder, name, *arguments, timeout=300):
    """Start the script and kill -9 it once `ready()` holds; it fails the test to end before."""
    log = Path(folder) / "killed.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            **_process(folder, name, arguments, (), {}), stdout=out, stderr=out
        )
        until = time.monotonic() + timeout
        try:
            while not ready():
                assert process.poll() is None, (
                    f"{name} ended with {process.returncode} before the kill:"
                    f" {log.read_text()[-3000:]}"
                )
                assert time.monotonic() < until, (
                    f"{name} was not ready for the kill: {log.read_text()[-3000:]}"
                )
                time.sleep(0.002)
        finally:
            process.kill()
            status = process.wait()
    log.unlink()
    assert status == -9, f"{name} had ended with status {status} when it was killed"


def rows(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def timeless(records):
    """Records of a journal without the seconds that each took."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def n_lines(path):
    """Whole lines of a file that may be growing, 0 where it is not there."""
    return Path(path).read_bytes().count(b"\n") if Path(path).exists() else 0


def write_rows(path, records):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def make_base(run, model):
    """Put a model and its record in the place of the base that 01 pretrains, so that it exists."""
    shutil.copytree(model, run / "01_base")
    made = {"seed": 0, "steps": 1, "gappy_share": 0.0, "accuracy": 0.0, "extra_steps": 0}
    (run / "01_base" / "base.json").write_text(json.dumps(made))


def tensors(path):
    """{name: (shape, dtype, hash of the bytes)} of a safetensors file."""
    with safe_open(path, "pt") as f:
        found = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 it is no dict
    return {
        n: (tuple(t.shape), str(t.dtype), hashlib.sha256(t.view(torch.uint8).numpy()).hexdigest())
        for n, t in found.items()
    }


def _timeless(value):
    """JSON without what depends on when and by which command it was made."""
    if isinstance(value, list):
        return [_timeless(v) for v in value]
    if isinstance(value, dict):
        return {
            k: _timeless(v)
            for k, v in value.items()
            if k not in ("seconds", "finished", "command", "cost")
        }
    return value


def _content(path):
    if path.suffix == ".safetensors":
        return tensors(path)
    if path.name == "metrics.jsonl":
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "memory_gb")}
            for row in rows(path)
        ]
    if "journal" in str(path):  # answers are recorded as they arrive, in whatever order and time
        return sorted(map(json.dumps, timeless(rows(path))))
    if path.name.endswith((".score.json", "scores.json")):
        return _timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.name in ("05_results.md", "05_outputs.html"):
        return re.sub(r"\| [\d-]+ \|$", "| seconds |", path.read_text(encoding="utf-8"), flags=re.M)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(run):
    """Return {file: content} of a run folder, but for locks and manifests, which hold times."""
    files = [
        p
        for p in sorted(Path(run).rglob("*"))
        if p.is_file() and not re.search(r"(^|\.)run\.json$|\.lock$", p.name)
    ]
    return {str(p.relative_to(run)): _content(p) for p in files}
