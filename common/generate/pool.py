"""Processes that generate for the local engine, one per GPU, each a `python -m common.generate.worker`.

They speak JSON lines over stdin and stdout: no multiprocessing (its children re-run the flat script they were started
from) and no pickle. Each takes whole chunks from one queue, so that a faster one takes more of them.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections import deque
from pathlib import Path

from common.core.errors import Stopped


class Worker:
    """A process with a model of its own. settings: Local's arguments, and `threads` for torch."""

    def __init__(self, settings):
        path = os.pathsep.join(
            filter(None, [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")])
        )
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "common.generate.worker",
            ],  # -P: modules of this kit, not of the working directory
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(settings["threads"])},
            start_new_session=True,  # an interrupt at the keyboard is for the parent
        )
        self.said = deque(maxlen=20)  # its last lines on stderr
        self.listener = threading.Thread(
            target=lambda: self.said.extend(self.process.stderr), daemon=True
        )
        self.listener.start()
        self.first = [json.dumps(settings)]

    def work(self, chunks, found):
        """Do chunks of the queue until it is empty: (number, index, answer) into `found`, or the exception that ended it."""
        try:
            while True:
                number, chunk = chunks.get_nowait()
                self.process.stdin.write("\n".join([*self.first, json.dumps(chunk)]) + "\n")
                self.process.stdin.flush()
                self.first = []
                for reply in map(json.loads, self.process.stdout):
                    if reply == "done":
                        break
                    if isinstance(reply, dict):
                        raise Stopped(reply["failed"], reply["status"])
                    found.put((number, *reply))
                else:
                    raise EOFError
        except queue.Empty:
            pass
        except (OSError, ValueError, EOFError):
            self.process.kill()
            self.listener.join(5)
            found.put(
                Stopped(
                    f"a process that generates has ended (status {self.process.wait()}); what it said last:\n"
                    f"{''.join(self.said) or '(nothing)'}\nWhat was answered is kept: the same command goes on.",
                    4,
                )
            )
        except Exception as error:  # raised again by the thread that asked
            found.put(error)


class Pool:
    """One worker for each of `settings`, started when there is a chunk for it, ended with the pool or the process."""

    def __init__(self, settings):
        self.settings, self.workers = settings, []
        weakref.finalize(self, _end, self.workers)

    def texts(self, chunks):
        """Yields (number of the chunk, index, answer) of chunks {"prompts", "keys", "limits", ...} as each text ends.

        Raises what a worker raised; Stopped (status 4) where one has died. Whatever ends it early ends the workers.
        """
        todo, found = queue.SimpleQueue(), queue.SimpleQueue()
        for numbered in enumerate(chunks):
            todo.put(numbered)
        self.workers += [
            Worker(settings) for settings in self.settings[len(self.workers) : len(chunks)]
        ]
        threads = [
            threading.Thread(target=worker.work, args=(todo, found), daemon=True)
            for worker in self.workers
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in range(sum(len(chunk["keys"]) for chunk in chunks)):
                reply = found.get()
                if isinstance(reply, Exception):
                    raise reply
                yield reply
            for thread in threads:
                thread.join()  # its worker's "done" is read
        except BaseException:
            _end(self.workers)
            raise


def _end(workers):
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
    workers.clear()
