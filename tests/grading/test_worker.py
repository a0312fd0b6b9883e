"""The processes that compare symbolic answers: time, memory, death, start."""

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.grading import symbolic
from common.grading.grader import GradeResult, grade, is_correct
from common.grading.sympy_worker import MEMORY_BYTES, Worker
from tests import hostile

HARMONIC = r"\sum_{n=1}^{10^9} \frac{1}{n^3}"  # sympy adds a thousand million terms


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.stop()


def test_an_answer(worker):
    assert worker.ask(["equal", r"\sqrt{8}", r"2\sqrt{2}"], 30) is True
    assert worker.ask(["equal", "x", "y"], 30) is False
    assert worker.ask(["equal", "\x00", "{"], 30) is False  # what cannot be read is not equal


def test_time_is_limited_and_the_next_answer_comes_from_a_new_process(worker):
    worker.ask(["equal", "x", "y"], 30)
    before, start = worker.process.pid, time.monotonic()
    with pytest.raises(TimeoutError, match="no result within 1.0 s"):
        worker.ask(["equal", HARMONIC, "2"], 1)
    assert time.monotonic() - start < 2
    assert worker.ask(["equal", "1+x", "x+1"], 30) is True and worker.process.pid != before


def test_the_start_counts(worker):
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        worker.ask(["equal", "x", "x"], 0.05)  # sympy is not yet imported
    assert time.monotonic() - start < 1
    pid = worker.process.pid
    assert (
        worker.ask(["equal", "x", "x"], 30) is True and worker.process.pid == pid
    )  # it went on starting


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="address space is limited on Linux"
)
def test_memory_is_limited(worker):
    worker.ask(["equal", "x", "y"], 30)
    limits = Path(f"/proc/{worker.process.pid}/limits").read_text()
    assert re.search(rf"Max address space\s+{MEMORY_BYTES}\s+{MEMORY_BYTES}\s", limits)


def test_inputs_that_try_to_run_something_reach_the_grammar(worker, tmp_path):
    """Past all that stands before it: the rules of words and lengths would stop most of them."""
    for name, text, gold in hostile.cases(str(tmp_path / "ran")):
        if name.startswith("inject/") and type(text) is str and len(text) < 2_000:
            inner = text.removeprefix(r"\boxed{").removesuffix("}")
            for question in (
                ["equal", inner, "x+1"],
                ["equal", "x+1", inner],
                ["same_by_paper", inner, "q+3"],
            ):
                with contextlib.suppress(TimeoutError):
                    assert worker.ask(question, 3) is False, name
    assert not list(tmp_path.iterdir())


def test_a_dead_process_is_replaced(worker):
    worker.ask(["equal", "x", "y"], 30)
    worker.process.kill()
    worker.process.wait()
    assert worker.ask(["equal", "1+x", "x+1"], 30) is True


def test_a_process_that_cannot_start_says_what_to_do(worker, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="pip install -r requirements.txt"):
        worker.ask(["equal", "x", "y"], 30)


def test_a_timeout_is_reported_apart():
    assert grade(rf"\boxed{{{HARMONIC}}}", "2") == GradeResult(False, HARMONIC, "boxed", True)
    assert is_correct(r"\boxed{\sqrt{8}}", r"2\sqrt{2}")


def test_nothing_is_evaluated(monkeypatch):
    """sympify of a string is eval in sympy, and the grammar calls it for every number: here nothing reaches eval or exec."""

    def refuse(*arguments, **names):
        raise AssertionError("eval of model text")

    pairs = [(r"\frac{x^2-1}{x-1}", "x+1"), ("x<1", "1>x"), (r"\{1, x\}", r"\{x, 1\}")]
    assert all(
        symbolic.equal(*pair) for pair in pairs
    )  # imports what is imported late: imports run code
    monkeypatch.setattr("builtins.eval", refuse)
    monkeypatch.setattr("builtins.exec", refuse)
    assert all(symbolic.equal(*pair) for pair in pairs)
    assert not symbolic.equal("__import__('os').system('true')", "x") and not symbolic.equal(
        r"\operatorname{exec}(1)", "1"
    )


def test_a_worker_ends_when_its_parent_is_gone():
    script = """if True:
        import os
        from common.grading.sympy_worker import Worker
        worker = Worker()
        worker.ask(["equal", "x", "x"], 30)
        print(worker.process.pid, flush=True)
        os.kill(os.getpid(), 9)"""
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout)
    for _ in range(100):
        listed = subprocess.run(
            ["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True
        ).stdout
        if "symbolic.py" not in listed:
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent by 10 s")
