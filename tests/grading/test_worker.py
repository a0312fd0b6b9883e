"""The processes that compare symbolic answers: time, memory, death, start."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.grading import symbolic, sympy_worker
from common.grading.grader import GradeResult, grade, grade_many, is_correct
from common.grading.sympy_worker import MEMORY_BYTES, Worker
from tests import hostile

HARMONIC = r"\sum_{n=1}^{10^9} \frac{1}{n^3}"  # sympy adds a thousand million terms
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


@pytest.fixture
def worker():
    """A worker of its own, for tests that harm it or look at its start."""
    worker = Worker()
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def shared_worker():
    worker = Worker()
    worker.ask(["equal", "x", "y"], 30)
    yield worker
    worker.stop()


def test_an_answer(shared_worker):
    assert shared_worker.ask(["equal", r"\sqrt{8}", r"2\sqrt{2}"], 30)[0] is True
    assert shared_worker.ask(["equal", "x", "y"], 30)[0] is False
    assert shared_worker.ask(["equal", "\x00", "{"], 30)[0] is False  # unreadable is not equal


def test_time_is_limited_and_the_next_answer_comes_from_a_new_process(shared_worker):
    before = shared_worker.process.pid
    with pytest.raises(TimeoutError, match="no result within 0.3 s"):
        shared_worker.ask(["equal", HARMONIC, "2"], 0.3)
    assert shared_worker.ask(["equal", "1+x", "x+1"], 30)[0] is True
    assert shared_worker.process.pid != before


def test_a_slow_start_is_not_charged(worker, tmp_path, monkeypatch):
    """Neither its CPU time nor its wait counts for the answer."""
    (tmp_path / "slow.py").write_text(
        "import runpy, sys, time\n"
        "until = time.process_time() + 0.5\n"
        "while time.process_time() < until: pass\n"
        "time.sleep(0.5)\n"
        f"runpy.run_path({str(sympy_worker.SYMBOLIC)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(sympy_worker, "SYMBOLIC", tmp_path / "slow.py")
    answer, used = worker.ask(["equal", "x", "x"], 0.4)
    assert answer is True and used < 0.4


def test_what_an_answer_takes_is_taken_from_its_allowance():
    allowance = sympy_worker.Allowance(30)
    assert allowance.ask("equal", "1+x", "x+1") and allowance.seconds < 30
    allowance.seconds = -1
    with pytest.raises(TimeoutError):
        allowance.ask("equal", HARMONIC, "2")


@linux
def test_an_answer_that_got_no_time_is_asked_once_more(monkeypatch):
    """A worker that the system does not run (here it is stopped) says nothing about its answer."""
    assert is_correct(r"\boxed{z+1}", "1+z")
    monkeypatch.setattr(sympy_worker, "WALL_SECONDS", 10)
    for worker in sympy_worker.workers:
        if worker.process:
            os.kill(worker.process.pid, signal.SIGSTOP)
    pairs = [(rf"\boxed{{{k}+z}}", f"z+{k}") for k in range(2, 6)]
    assert [result.correct for result in grade_many(*zip(*pairs))] == [True] * 4
    worker = sympy_worker.Worker()
    worker.ask(["equal", "x", "x"], 30)
    os.kill(worker.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(sympy_worker, "WALL_SECONDS", 0.2)
    with pytest.raises(sympy_worker.Starved):
        worker.ask(["equal", "x", "x"], 30)
    worker.stop()


@linux
def test_memory_is_limited(shared_worker):
    limits = Path(f"/proc/{shared_worker.process.pid}/limits").read_text()
    assert re.search(rf"Max address space\s+{MEMORY_BYTES}\s+{MEMORY_BYTES}\s", limits)


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_inputs_that_try_to_run_something_reach_the_grammar(step, shared_worker, tmp_path):
    """Past all that precedes it: the rules of words and lengths would stop most of them."""
    cases = hostile.cases(str(tmp_path / "ran"))
    texts = [text for name, text, _ in cases if name.startswith("inject/") and type(text) is str]
    for text in texts[::step]:
        inner = text.removeprefix(r"\boxed{").removesuffix("}")
        for question in (
            ["equal", inner, "x+1"],
            ["equal", "x+1", inner],
            ["same_by_paper", inner, "q+3"],
        ):
            with contextlib.suppress(TimeoutError):
                assert shared_worker.ask(question, 3)[0] is False, text
    assert not list(tmp_path.iterdir())


def test_a_dead_process_is_replaced(shared_worker):
    shared_worker.process.kill()
    shared_worker.process.wait()
    assert shared_worker.ask(["equal", "1+x", "x+1"], 30)[0] is True


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "import a_library_that_is_missing"])
def test_a_process_that_cannot_start_says_what_to_do(code, worker, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.setattr(sympy_worker, "SYMBOLIC", tmp_path / "broken.py")
    with pytest.raises(RuntimeError, match="pip install -r requirements.txt"):
        worker.ask(["equal", "x", "y"], 30)


def test_a_timeout_is_reported(monkeypatch):
    is_correct(r"\boxed{x+1}", "1+x")  # a worker has started
    monkeypatch.setattr("common.grading.equivalence.SYMBOLIC_SECONDS", 0.5)
    result = grade(rf"\boxed{{{HARMONIC}}}", "2")
    assert result == GradeResult(False, HARMONIC, "boxed", timed_out=True)
    monkeypatch.undo()
    assert is_correct(r"\boxed{\sqrt{8}}", r"2\sqrt{2}")


def test_nothing_is_evaluated(monkeypatch):
    """sympify of a string is eval in sympy, and the grammar calls it for every number.

    Here nothing reaches eval or exec.
    """

    def refuse(*arguments, **names):
        raise AssertionError("eval of model text")

    pairs = [(r"\frac{x^2-1}{x-1}", "x+1"), ("x<1", "1>x"), (r"\{1, x\}", r"\{x, 1\}")]
    assert all(symbolic.equal(*pair) for pair in pairs)  # imports run code: these come first
    monkeypatch.setattr("builtins.eval", refuse)
    monkeypatch.setattr("builtins.exec", refuse)
    assert all(symbolic.equal(*pair) for pair in pairs)
    assert not symbolic.equal("__import__('os').system('true')", "x")
    assert not symbolic.equal(r"\operatorname{exec}(1)", "1")


@linux
def test_a_worker_ends_when_its_parent_is_gone():
    script = """if True:
        import os
        from common.grading.sympy_worker import Worker
        worker = Worker()
        worker.ask(["equal", "x", "x"], 30)
        print(worker.process.pid, flush=True)
        os.kill(os.getpid(), 9)"""
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout)
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        ended, _, _ = select.select([os.pidfd_open(pid)], [], [], 30)
        assert ended, "the worker outlived its parent by 30 s"
