"""02 started again on 50,000 rows whose answers are all journalled but one.

Seconds until that one is asked, and peak memory.

    python -m tests.bench.restart [rows]

Questions and responses of 1.2 KB, critiques of 1.5 KB, as in the released data. Prints the time as
a ratio, too: against reading the two files alone (json.loads of each line), the least that any
restart has to do.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.core import prompts
from common.core.files import content_id
from common.generate.requests import Sampling
from tests.faults import FaultServer

ROOT = Path(__file__).parent.parent.parent


def peak_of(pid):
    """Peak memory of a process so far, in MB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    sampling = Sampling(0.3, 0.95, 3200).identity()
    with tempfile.TemporaryDirectory() as folder, FaultServer() as server:
        run = Path(folder) / "runs" / "bench"
        (run / "01_responses").mkdir(parents=True)
        with (
            open(run / "01_responses" / "bench.jsonl", "w") as rows,
            open(run / "02_journal.jsonl", "w") as journal,
        ):
            for i in range(n):
                question, response = f"What is {i} + 1? " * 18, f"Then {i} + 1 = {i + 1}. " * 40
                rows.write(
                    json.dumps(
                        {
                            "id": content_id(question, response),
                            "question_id": content_id(question),
                            "question": question,
                            "gold": None,
                            "response": response,
                            "source": "bench",
                            "generator": None,
                            "sample": 0,
                            "finish_reason": "stop",
                        }
                    )
                    + "\n"
                )
                key = content_id(
                    "teacher", prompts.teacher_critique_prompt(question, response), sampling, 0, 0
                )
                text = (
                    f"Step {i} holds, as {i} + 1 = {i + 1}. " * 40 + "\n\nConclusion: right [END]"
                )
                if i:
                    journal.write(
                        json.dumps(
                            {
                                "key": key,
                                "text": text,
                                "finish_reason": "stop",
                                "model": "teacher",
                                "usage": {"prompt_tokens": 400, "completion_tokens": 500},
                            }
                        )
                        + "\n"
                    )
        began = time.monotonic()
        for name in ("01_responses/bench.jsonl", "02_journal.jsonl"):
            with open(run / name, "rb") as lines:
                kept = [json.loads(line) for line in lines]
        reading = time.monotonic() - began
        del kept
        began = time.monotonic()
        running = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "02_critique.py"),
                "--name",
                "bench",
                "--preset",
                "paper",
                "--model",
                "teacher",
                "--base-url",
                server.url,
            ],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        at_start = []
        server.fault = lambda body, nth: at_start.append(peak_of(running.pid))
        running.communicate()
        took = time.monotonic() - began
        assert len(server.asked) == 1, "the journal's keys are not those of 02"
        first = server.asked[0]["at"] - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{n} rows, {(run / '02_journal.jsonl').stat().st_size / 1e6:.0f} MB of journal: "
            f"asked for the missing one after {first:.1f} s, {first / reading:.1f} times the "
            f"reading of the two files alone; peak memory then {at_start[0]:.0f} MB; "
            f"all written after {took:.1f} s, peak memory {peak:.0f} MB"
        )
