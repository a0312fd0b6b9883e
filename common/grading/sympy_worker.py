r"""Ask processes that compare symbolic answers and can be killed.

sympy may take hours or all memory on a short answer (9^{9^{9^9}}), and its own time limits need the
main thread. So symbolic.py runs as a program of its own, which speaks JSON lines over stdin and
stdout. There is no multiprocessing, whose children run the calling script again, and no pickle.
Importing this file imports neither sympy nor math-verify.
"""

import atexit
import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

WORKERS = min(os.cpu_count() or 1, 8)  # at most; each thread that asks starts one
PAIRS_OF_A_WORKER = 2_000
MEMORY_BYTES = 512 * 2**20  # address space of a worker, if the system can limit it; imports: 150 MB
SYMBOLIC = Path(__file__).with_name("symbolic.py")
# The last resort, for a process that the system gives no time. What an answer may take is CPU time,
# which is the same on an idle and on a busy machine.
WALL_SECONDS = 300
NO_ANSWER = "[null, 0]"


class Starved(TimeoutError):
    """The system gave a process too little time: nothing is known about the answer."""


class Worker:
    """A process that compares answers. A question starts it, if it does not run."""

    def __init__(self):
        self.process: Any = None

    def ask(self, question: list, seconds: float) -> tuple[bool, float]:
        """Return the answer to [function of symbolic.py, arguments], and its seconds of CPU.

        Raises TimeoutError if it needs more than `seconds` of CPU time, its start left out, or if
        the process died of it; Starved if there is no answer within WALL_SECONDS; RuntimeError if
        the process cannot start.
        """
        reply = ""
        try:
            if not self._is_running():
                self._start()
            print(json.dumps([seconds, *question]), file=self.process.stdin, flush=True)
            reply = self._read_line()
        except BrokenPipeError:  # it has just died
            pass
        finally:  # even after an interrupt: a late reply must never answer the next question
            if not reply:
                self.stop()
        answer, used = json.loads(reply or NO_ANSWER)
        if answer is None:
            limits = f"{seconds:.1f} s of CPU time and {MEMORY_BYTES >> 20} MB"
            raise TimeoutError(f"no result within {limits}")
        return answer, used

    def _is_running(self):
        return self.process is not None and self.process.poll() is None

    def _start(self):
        self.stop()
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SYMBOLIC), str(MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # an interrupt at the keyboard is for the parent
        )
        if not self._read_line():
            raise RuntimeError(
                "the process that compares symbolic answers did not start: "
                "pip install -r requirements.txt"
            )

    def _read_line(self):
        """Return the next line of the process, "" if it has ended."""
        replies = select.poll()
        replies.register(self.process.stdout)
        if not replies.poll(WALL_SECONDS * 1000):
            raise Starved(f"no result within {WALL_SECONDS} s")
        return self.process.stdout.readline()

    def stop(self) -> None:
        """End the process, if it runs."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()


def _make_workers():
    """Make the workers, and again after a fork: a child must not talk into its parent's pipes."""
    global workers, idle, repeat_lock
    workers = [Worker() for _ in range(WORKERS)]
    repeat_lock = threading.Lock()
    idle = queue.LifoQueue()  # last in, first out: one thread keeps to one process
    for worker in reversed(workers):
        idle.put(worker)


def _stop_workers():
    for worker in workers:
        worker.stop()


def ask(question: list, seconds: float) -> tuple[bool, float]:
    """Return the answer of an idle worker, and the seconds of CPU that it took.

    What is starved is asked once more, while no other worker runs. Raises what Worker.ask raises.
    Threads may call it at the same time.
    """
    worker = idle.get()
    try:
        return worker.ask(question, seconds)
    except Starved:
        pass
    finally:
        idle.put(worker)
    with repeat_lock:
        all_workers = [idle.get() for _ in workers]
        try:
            return all_workers[0].ask(question, seconds)
        finally:
            for worker in reversed(all_workers):
                idle.put(worker)


class Allowance:
    """The seconds of CPU that all symbolic comparisons of one answer may take together."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def ask(self, *question) -> bool:
        """Return the answer to a question. Raises TimeoutError if the allowance is used up."""
        answer, seconds = ask(list(question), max(self.seconds, 0.01))
        self.seconds -= seconds
        return answer


def map_unique(function: Callable, texts: list, golds: list) -> list:
    """Return function(text, gold) of every pair: equal pairs once, many of them several at a time.

    A further process takes a second of CPU to start, which pays off for PAIRS_OF_A_WORKER.
    """
    pairs = list(zip(texts, golds, strict=True))
    unique = list(dict.fromkeys(pairs))
    n_threads = min(WORKERS, 1 + len(unique) // PAIRS_OF_A_WORKER)
    with ThreadPoolExecutor(n_threads) as threads:
        results = dict(zip(unique, threads.map(function, *zip(*unique))))
    return [results[pair] for pair in pairs]


_make_workers()
atexit.register(_stop_workers)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_workers)
