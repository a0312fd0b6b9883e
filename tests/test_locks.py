"""Two processes on one run: of the same stage the second one is refused before it does anything."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.runs import ROOT, SMALL, contents, must_run, rows, run_process, run_script

FOLDERS = {
    "01_sample.py": "01_responses",
    "02_critique.py": "02_critiques",
    "03_build.py": "03_data",
    "04_train.py": "04_train",
    "05_eval.py": "05_eval",
}
HOLD = """
import sys
from pathlib import Path
from common.core import files
lock = files.lock_stage(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder):
    """Let another process hold the lock of a stage, until it is killed as kill -9 does it."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "locked\n"
        yield
        process.kill()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_stage_that_another_process_runs_is_refused_until_that_is_killed(run_copy, name):
    """Even with another label, training set or benchmark: summaries and tables are the run's."""
    folder = run_copy.parent.parent
    before = contents(run_copy)
    with another_process(run_copy / FOLDERS[name]):
        done = run_script(folder, name, *SMALL[name])
        assert done.returncode == 2 and FOLDERS[name] in done.stderr, done.stderr
        assert "same command again" in done.stderr and contents(run_copy) == before
    must_run(folder, name, *SMALL[name])


def test_two_builds_at_once_never_mix(run_copy):
    """Both had one part file: one of them ended as if the disk were full."""
    folder = run_copy.parent.parent
    flags = ["--arms", "cft", "--rows", "24", "--suffix"]
    command = [sys.executable, str(ROOT / "03_build.py"), *flags]
    builds = {}
    for suffix in ("a", "b"):
        builds[suffix] = subprocess.Popen([*command, suffix], cwd=folder, stderr=subprocess.PIPE)
    errors = {suffix: build.communicate()[1] for suffix, build in builds.items()}
    statuses = {suffix: build.returncode for suffix, build in builds.items()}
    assert 0 in statuses.values() and set(statuses.values()) <= {0, 2}, errors
    for suffix, status in statuses.items():
        built = run_copy / "03_data" / f"cft-{suffix}.jsonl"
        assert built.exists() == (status == 0)
        if status:
            run_process(folder, "03_build.py", *flags, suffix)
        assert len(rows(built)) == 24


def test_a_stage_does_not_wait_for_another_one(run_copy):
    folder = run_copy.parent.parent
    with another_process(run_copy / "04_train"):
        must_run(folder, "03_build.py", *SMALL["03_build.py"])
