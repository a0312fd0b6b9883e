"""The strict grader on answers that attack it: code run, CPU seconds, memory, raised, verdicts.

    python -m tests.bench.hostile [--where main|thread|notebook] [--only GLOB]

For each case of tests/hostile.py (none is right): grade(text, gold), grade with the sides swapped,
extract_answer(text), then three ordinary answers, the last one new each time. A process of its own
calls them: from its main thread, from another thread, or from a cell of a real ipykernel (without
nbclient: inside asyncio.run).

Measured: a call's CPU seconds, those of the caller's workers and of their start included, and what
the caller and all its descendants hold over what it held before its first call (resident memory in
/proc every 20 ms; shared pages count in each process). A call that takes two minutes or four times
the memory is killed, and a fresh caller goes on with the next case. Exit status 1 if a promise is
broken: no code is run, no call takes over 6 CPU seconds or 1 GB or raises, nothing is graded
correct, and the ordinary grades stay right.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

from tests.bench.grade import cpu, cpu_of
from tests.hostile import box, cases

SECONDS, MB = 6, 1024
HARD_WALL_SECONDS, HARD_MB = 120, 4 * MB
BROKEN = {
    "code run": lambda call: call["ran"],
    "over 6 s": lambda call: call["seconds"] > SECONDS,
    "over 1 GB": lambda call: call["mb"] > MB,
    "raised": lambda call: "error" in call,
    "wrongly correct": lambda call: call.get("correct", False),
    "wrong afterwards": lambda call: bool(call.get("wrong")),
}


def made(marker):
    """Whether a case has run code; its mark is removed."""
    if not os.path.exists(marker):
        return False
    os.unlink(marker)
    return True


def calls_of(k, text, gold):
    """{what is called: function -> what is reported of it}"""
    from common import grading

    swapped = box(gold) if type(gold) is str else gold
    new = box(rf"\sqrt{{{8 * (k + 3) ** 2}}}"), rf"{2 * (k + 3)}\sqrt{{2}}"
    ordinary = (r"\boxed{1/2}", "0.5"), (r"\boxed{\sqrt{8}}", r"2\sqrt{2}"), new

    def verdict(text, gold):
        result = grading.grade(text, gold)
        return {
            "correct": result.correct is not False,
            "timed_out": result.timed_out is not False,
        }

    def extract():
        is_text = type(grading.extract_answer(text)) in (str, type(None))
        return {} if is_text else {"error": "gave no string"}

    def after():
        return {"wrong": [pair for pair in ordinary if grading.is_correct(*pair) is not True]}

    return {
        "grade": lambda: verdict(text, gold),
        "swapped": lambda: verdict(swapped, text),
        "extract": extract,
        "after": after,
    }


def call_all(place, log, only, first, marker):
    """Run the cases from the `first` one on; each call is announced and reported in the log."""
    from common.grading import sympy_worker

    selected = [case for case in cases(marker) if fnmatchcase(case[0], only)]
    with open(log, "a") as file:

        def tell(**event):
            print(json.dumps(event), file=file, flush=True)

        tell(pid=os.getpid(), place=place)
        time.sleep(0.5)  # its memory is measured
        for k, (name, text, gold) in list(enumerate(selected))[first:]:
            for what, call in calls_of(k, text, gold).items():
                tell(case=k, name=name, call=what, began=time.time())
                start = cpu() + cpu_of(sympy_worker.workers)
                try:
                    outcome = call()
                except BaseException as error:  # some cases raise SystemExit or KeyboardInterrupt
                    message = traceback.format_exception_only(type(error), error)[-1]
                    outcome = {"error": message.strip()[:160]}
                seconds = cpu() + cpu_of(sympy_worker.workers) - start
                tell(seconds=seconds, ran=made(marker), **outcome)
        tell(done=True)


def caller(where, *arguments):
    if where == "main":
        call_all("the main thread", *arguments)
    elif where == "thread":
        ThreadPoolExecutor(1).submit(call_all, "a thread", *arguments).result()
    elif all(map(find_spec, ("nbclient", "nbformat", "ipykernel"))):
        import nbclient
        from nbformat.v4 import new_code_cell, new_notebook

        code = (
            "from tests.bench.hostile import call_all\n"
            f"call_all('a cell of ' + type(get_ipython().kernel).__module__, *{arguments})"
        )
        nbclient.NotebookClient(
            new_notebook(cells=[new_code_cell(code)]), kernel_name="python3"
        ).execute()
    else:

        async def cell():
            call_all("asyncio.run (without nbclient and ipykernel)", *arguments)

        asyncio.run(cell())


def memory(root, known):
    """{pid: MB} of `root` and its descendants.

    known {pid: start} holds those seen once; they stay in it if their parent goes.
    """
    megabytes, to_do = {}, [root, *known]
    while to_do:
        pid = to_do.pop()
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            if known.setdefault(pid, fields[19]) != fields[19]:
                raise OSError(known.pop(pid))  # its number is another process's now
            megabytes[pid] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids = map(int, children.read_text().split())
                to_do += [child for child in pids if child not in known]
    return megabytes


def watch(where, only, first, marker, calls):
    """Have a fresh caller go on from the `first` case.

    Returns the case to go on from after it, None at the end.
    """
    root, known, base, rest, event = None, {}, 0, "", {}
    with tempfile.NamedTemporaryFile("w+") as log:
        command = [
            sys.executable,
            "-m",
            "tests.bench.hostile",
            "--caller",
            json.dumps([where, log.name, only, first, marker]),
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            while "done" not in event:
                died, seen = process.poll() is not None, calls[-1:]
                *lines, rest = (rest + log.read()).split("\n")
                for event in map(json.loads, lines):
                    if "place" in event:
                        root, base = event["pid"], sum(memory(event["pid"], known).values())
                        print(
                            f"from {event['place']}:",
                            f"{base:.0f} MB before"
                            if base
                            else "without /proc, memory is not measured",
                        )
                    elif "name" in event:
                        calls.append(event | {"mb": 0})
                        seen.append(calls[-1])
                    elif "seconds" in event:
                        calls[-1].update(event)
                mb = sum(memory(root, known).values()) - base
                for call in seen:
                    call["mb"] = max(call["mb"], mb)
                taken = (
                    time.time() - calls[-1]["began"] if calls and "seconds" not in calls[-1] else 0
                )
                if taken and (died or taken > HARD_WALL_SECONDS or mb > HARD_MB):
                    calls[-1].update(
                        {"seconds": taken, "ran": made(marker)}
                        | ({"error": "the caller died"} if died else {})
                    )
                    return calls[-1]["case"] + 1
                if died and "done" not in event:
                    sys.exit("the caller died between two calls")
                time.sleep(0.02)
            process.wait(30)
        finally:
            for pid in memory(root, known):
                with suppress(OSError):
                    os.kill(pid, 9)
            process.kill()
            process.wait()


def main(where, only):
    marker = os.path.join(
        tempfile.gettempdir(), "hm" + "".join(chr(97 + byte % 23) for byte in os.urandom(8))
    )
    calls, first = [], 0
    while first is not None:
        first = watch(where, only, first, marker, calls)
    for title, key, n in ("slowest", "seconds", 8), ("largest", "mb", 5):
        print(title)
        for call in sorted(calls, key=lambda call: -call[key])[:n]:
            show(call, "timed out" * call.get("timed_out", False))
    counts = dict.fromkeys(BROKEN, 0)
    for call in calls:
        promises = [promise for promise, is_broken in BROKEN.items() if is_broken(call)]
        for promise in promises:
            counts[promise] += 1
        if promises:
            causes = call.get("error", ""), call.get("wrong", "")
            show(call, "BROKEN:", ", ".join(promises), *causes)
    counts["code run"] += made(marker)
    broken = not calls or any(counts.values())
    counts["timed out"] = sum(call.get("timed_out", False) for call in calls)
    print(
        "BROKEN" if broken else "kept",
        f"from {where}: {len({call['case'] for call in calls})} cases,",
        f"{sum(call['call'] != 'after' for call in calls)} calls,",
        ", ".join(f"{what} {n}" for what, n in counts.items()),
    )
    return broken


def show(call, *more):
    print(f"{call['seconds']:7.2f} s {call['mb']:5.0f} MB  {call['call']:8}{call['name']}", *more)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--where", choices=("main", "thread", "notebook"), default="main")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of cases: 'inject/*'")
    parser.add_argument("--caller", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not any(fnmatchcase(name, options.only) for name, *_ in cases("")):
        parser.error(f"--only {options.only}: no case has such a name")
    sys.exit(
        caller(*json.loads(options.caller)) if options.caller else main(options.where, options.only)
    )
