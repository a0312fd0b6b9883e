"""Generation by several processes under the real torchrun: equal texts, kills, errors.

This file is also the script that they run.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.core.config import _end_script
from common.core.errors import Stopped
from common.generate.journal import Journal
from common.generate.local import Local
from common.generate.requests import Request, Sampling, complete
from common.tiny import world
from common.train import distributed
from tests.runs import ROOT, n_lines, rows

N = 64


def break_engine(engine, fault):
    """Let an engine fail at its first answer, or stop after 8 until it is killed."""
    generate = engine.generate

    def broken(tasks, deliver, show):
        n_delivered = 0

        def deliver_some(task, answer):
            nonlocal n_delivered
            if fault == "full":
                raise Stopped("the disk is full", 5)
            if n_delivered == 8:
                signal.pause()
            n_delivered += 1
            deliver(task, answer)

        generate(tasks, deliver_some, show)

    engine.generate = broken


def generate(model, folder, fault):
    """Answer N prompts and write the records that this process gets back."""
    distributed.start()
    (folder / f"pid{distributed.rank()}").write_text(str(os.getpid()))
    engine = Local(model, batch_size=4)
    if fault == "stall" or (fault == "full" and distributed.rank() == 1):
        break_engine(engine, fault)
    requests = [Request(problem.question) for problem in world.problems("train", 0, N)]
    with Journal(folder / "journal.jsonl") as journal:
        sampling = Sampling(1.0, max_new_tokens=24, seed=0)
        records = complete(engine, requests, sampling, journal, "test")
    (folder / f"records{distributed.rank()}.json").write_text(json.dumps(records))
    print(f"process {distributed.rank()} of {distributed.world_size()} prints")
    distributed.leave_to_main()
    print("the main process goes on")


def start_processes(n, model, folder, fault=""):
    """Start `n` processes under torchrun."""
    folder.mkdir(exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", n, __file__, model, folder, fault]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def texts(folder, rank=0):
    records = json.loads((folder / f"records{rank}.json").read_text())
    return [(record["key"], record["text"], record["usage"]) for record in records]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, tiny_model):
    """The texts of one process, without torchrun."""
    folder = tmp_path_factory.mktemp("one")
    generate(tiny_model, folder, fault="")
    return texts(folder)


@pytest.mark.slow
def test_two_processes_give_the_texts_of_one_also_after_a_kill(one_process, tiny_model, tmp_path):
    """kill -9 of torchrun and all of its processes; then three, which read both journals."""
    files = [tmp_path / "journal.jsonl", tmp_path / "journal.rank1.jsonl"]
    process = start_processes(2, tiny_model, tmp_path, fault="stall")
    while [n_lines(file) for file in files] != [8, 8]:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.kill()
    for file in tmp_path.glob("pid*"):
        os.kill(int(file.read_text()), signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("records*"))
    process = start_processes(3, tiny_model, tmp_path)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert texts(tmp_path, 0) == texts(tmp_path, 1) == texts(tmp_path, 2) == one_process
    assert sum(len(rows(file)) for file in tmp_path.glob("*.jsonl")) == N
    assert "process 0 of 3 prints" in printed and "process 1" not in printed
    assert printed.count("the main process goes on") == 1


@pytest.mark.slow
def test_an_error_of_one_process_ends_all(tiny_model, tmp_path):
    process = start_processes(2, tiny_model, tmp_path, fault="full")
    printed, _ = process.communicate(timeout=200)
    assert process.returncode != 0 and "the disk is full" in printed
    assert "exitcode  : 5" in printed  # what torchrun says of the process that failed
    assert not list(tmp_path.glob("records*"))


if __name__ == "__main__":
    sys.excepthook = _end_script
    generate(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
