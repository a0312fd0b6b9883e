r"""Processes that compare symbolic answers and can be killed.

sympy may take hours or all memory on a short answer (9^{9^{9^9}}), and its own time limits need the main thread. So symbolic.py runs in
`python -m common.grading.sympy_worker`, which speaks JSON lines over stdin and stdout: no multiprocessing (its children re-run the script
they were started from) and no pickle. Importing this file imports neither sympy nor math-verify.
"""

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

WORKERS = min(
    os.cpu_count() or 1, 8
)  # at most: one is started for each thread that asks at the same time
MEMORY_BYTES = (
    512 * 2**20
)  # address space of a worker, where the system can limit it; 150 MB are its imports
BACKSTOP_SECONDS = 20  # a worker ends itself then, should its parent have died


class Worker:
    """A process that is started by the first question, and again at once after a kill."""

    def __init__(self):
        self.process, self.lines, self.ready = None, None, False

    def ask(self, question: list, seconds: float):
        """The answer to [function of symbolic.py, arguments]. Raises TimeoutError where there is none after so many seconds, the start
        included, or where the process died of the question; RuntimeError where the process cannot start."""
        end = time.monotonic() + seconds
        if self.process is not None and self.process.poll() is not None:
            self.stop()  # it ended between two questions
        if self.process is None:
            self._start()
        if not self.ready:
            self.ready = (
                self._line(end) == "ready\n"
            )  # when it is late, it goes on starting, for the next question
            if not self.ready and self.process.poll() is not None:
                self.stop()
                raise RuntimeError(
                    "the process that compares symbolic answers did not start: pip install -r requirements.txt"
                )
        reply = None
        try:
            if self.ready:
                self.process.stdin.write(json.dumps(question) + "\n")
                self.process.stdin.flush()
                reply = self._line(end)
        except OSError:  # it has just died
            pass
        finally:
            if self.ready and reply in (
                None,
                "null\n",
            ):  # also after an interrupt: a late reply must never answer the next question
                self.stop()
                self._start()
        if reply in (None, "null\n"):
            raise TimeoutError(f"no result within {seconds:.1f} s and {MEMORY_BYTES >> 20} MB")
        return json.loads(reply)

    def _line(self, end: float) -> str | None:
        """The next line of output, or None when there is none in time or the output has ended."""
        try:
            return self.lines.get(timeout=max(end - time.monotonic(), 0.001))
        except queue.Empty:
            return None

    def _start(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "common.grading.sympy_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, encoding="utf-8", cwd=root, env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # an interrupt at the keyboard is for the parent
        )  # fmt: skip
        self.lines, self.ready = queue.Queue(), False
        threading.Thread(target=_pump, args=(self.process.stdout, self.lines), daemon=True).start()

    def stop(self) -> None:
        """End the process; the next question starts a fresh one."""
        process, self.process, self.ready = self.process, None, False
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                try:
                    pipe.close()
                except OSError:  # what was still buffered for the dead process
                    pass


def _pump(pipe, lines: queue.Queue) -> None:
    """Lines of a pipe into a queue, which unlike a pipe can be waited on with a limit on every system; None at the end."""
    try:
        for line in pipe:
            lines.put(line)
    except (OSError, ValueError):  # the pipe was closed by a kill
        pass
    lines.put(None)


def _new_workers() -> None:
    """Also after a fork: a child must not talk into its parent's pipes."""
    global workers, idle
    workers, idle = (
        [Worker() for _ in range(WORKERS)],
        queue.LifoQueue(),
    )  # last in, first out: one thread keeps to one process
    for worker in reversed(workers):
        idle.put(worker)


def ask(question: list, seconds: float) -> tuple:
    """(the answer of a free worker, the seconds that it took: waiting for one does not count). Raises what Worker.ask raises. Safe from
    several threads."""
    worker = idle.get()
    try:
        started = time.monotonic()
        return worker.ask(question, seconds), time.monotonic() - started
    finally:
        idle.put(worker)


_new_workers()
atexit.register(lambda: [worker.stop() for worker in workers])
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_workers)


def serve() -> None:
    """Answer JSON lines [name, arguments...] with what that function of symbolic.py returns, or null, until stdin ends."""
    replies, sys.stdout = (
        sys.stdout,
        sys.stderr,
    )  # whatever a library prints must not be taken for a reply
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, ValueError, OSError):  # not on this system: the time limit remains
        pass
    from common.grading import symbolic

    functions = {"equal": symbolic.equal, "same_by_paper": symbolic.same_by_paper}
    symbolic.equal(
        r"\sqrt{8}", r"2\sqrt{2}"
    )  # grammar tables and caches: part of the start, not of the first answer
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        if hasattr(signal, "alarm"):
            signal.alarm(BACKSTOP_SECONDS)
        try:
            name, *arguments = json.loads(line)
            reply = bool(functions[name](*arguments))
        except (MemoryError, RecursionError):
            reply = None
        except (
            Exception
        ):  # sympy raises dozens of types on what it cannot do; not shown to be equal is not equal
            reply = False
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    serve()
