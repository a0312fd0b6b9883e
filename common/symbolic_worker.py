"""LaTeX equality by math-verify (sympy), in a process of its own that can be killed.

sympy may take hours or all memory on a short answer (9^{9^{9^9}}), and its own time limits need the main thread. So the comparison
runs in `python -m common.symbolic_worker`, which speaks JSON lines over stdin and stdout: no multiprocessing (its children re-run
the script they were started from) and no pickle. Importing this file imports neither sympy nor math-verify.
"""

import atexit
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

START_SECONDS = 60.0  # import of sympy and one comparison to warm up: 2-4 s on an idle core
MEMORY_BYTES = 2 * 2**30  # address space of the worker, where the system can limit it
BACKSTOP_SECONDS = 20  # the worker ends itself then, should its parent have died


class Worker:
    """One worker process, started at the first comparison and again after each kill. Safe from several threads."""

    def __init__(self):
        self.lock, self.process, self.lines = threading.Lock(), None, None

    def equal(self, gold: str, answer: str, seconds: float) -> tuple[bool, float]:
        """(whether two LaTeX expressions are equal, the seconds it took, without waiting or start). Raises TimeoutError when it is not
        known after `seconds`, or when the worker died of the question; RuntimeError when no worker can be started (math-verify missing)."""
        with self.lock:
            if self.process is not None and self.process.poll() is not None:
                self._kill()  # it ended between two questions
            if self.process is None:
                self._start()
            started = time.monotonic()
            reply = self._ask(json.dumps([gold, answer]) + "\n", seconds)
            if reply not in ("true\n", "false\n"):
                self._kill()
                raise TimeoutError(f"no result within {seconds:.1f} s")
            return reply == "true\n", time.monotonic() - started

    def _ask(self, question: str, seconds: float) -> str | None:
        """The next line of the worker's output; None, and the worker is gone, when there is none in time or its output has ended."""
        reply = None
        try:
            self.process.stdin.write(question)
            self.process.stdin.flush()
            reply = self.lines.get(timeout=seconds)
        except (queue.Empty, OSError):
            pass
        finally:
            if reply is None:  # also after an interrupt: a late reply must never answer the next question
                self._kill()
        return reply

    def _start(self) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "common.symbolic_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, encoding="utf-8", cwd=root, env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # an interrupt at the keyboard is for the parent
        )  # fmt: skip
        self.lines = queue.Queue()
        threading.Thread(target=_pump, args=(self.process.stdout, self.lines), daemon=True).start()
        if self._ask("", START_SECONDS) != "ready\n":
            self._kill()
            raise RuntimeError("the process that compares symbolic answers did not start: pip install -r requirements.txt")

    def _kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                try:
                    pipe.close()
                except OSError:  # what was still buffered for the dead process
                    pass

    def stop(self) -> None:
        """End the process; the next comparison starts a fresh one."""
        with self.lock:
            self._kill()


def _pump(pipe, lines: queue.Queue) -> None:
    """Lines of a pipe into a queue, which unlike a pipe can be waited on with a limit on every system; None at the end."""
    try:
        for line in pipe:
            lines.put(line)
    except (OSError, ValueError):  # the pipe was closed by a kill
        pass
    lines.put(None)


worker = Worker()
atexit.register(lambda: worker.stop())


def _after_fork() -> None:
    """A forked child must not talk into its parent's pipes."""
    global worker
    worker = Worker()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ---- the other side: what runs in the worker process ----


def _numbers_differ(gold, answer) -> bool:
    """True for two numbers more than 1e-12 apart, relatively: verify() rounds, so that 1/2^98 and 1/2^99 are both zero to it."""
    try:
        if gold.free_symbols or answer.free_symbols:
            return False
        difference, size = abs((gold - answer).evalf(30)), abs(gold.evalf(30))
        return bool(difference > 1e-12 * size)
    except (AttributeError, TypeError, ValueError, NotImplementedError, ArithmeticError):  # sets, relations, matrices
        return False


def compare(gold: str, answer: str) -> bool:
    """math-verify's answer to gold = answer, for two LaTeX strings without delimiters. Only its LaTeX grammar is used, never sympy's
    parse_expr, which is eval."""
    from math_verify import LatexExtractionConfig, parse, verify

    sides = [
        parse(f"${side}$", [LatexExtractionConfig()], fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None)
        for side in (gold, answer)
    ]
    if not all(sides) or _numbers_differ(sides[0][0], sides[1][0]):
        return False
    return bool(verify(*sides, float_rounding=12, allow_set_relation_comp=True, timeout_seconds=None))


def serve() -> None:
    """Answer one JSON line [gold, answer] with true or false each, until stdin ends."""
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not be taken for a reply
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, ValueError, OSError):  # not on this system: the time limit remains
        pass
    logging.disable(logging.CRITICAL)
    compare(r"\sqrt{8}", r"2\sqrt{2}")  # grammar tables and caches: part of the start, not of the first answer
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        if hasattr(signal, "alarm"):
            signal.alarm(BACKSTOP_SECONDS)
        try:
            equal = compare(*json.loads(line))
        except Exception:  # sympy raises dozens of types on what it cannot read; not read is not equal
            equal = False
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        print(json.dumps(equal), file=replies, flush=True)


if __name__ == "__main__":
    serve()
