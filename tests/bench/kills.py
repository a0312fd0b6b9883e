"""kill -9 three times on the way through 2,000 requests, then once to the end.

What was paid twice, what was lost.

    python -m tests.bench.kills [requests]

Once with everything delivered before each kill (the server answers nothing new for a moment), once
without warning. Paid is what the server has generated; an answer is lost where it was delivered and
the journal does not hold it.
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter

from tests.bench.collect import FAULTS, ROOT, write_run
from tests.faults import FaultServer

SHARES = {name: 0.02 / len(FAULTS) for name in FAULTS}

if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for warned in (True, False):
        with (
            tempfile.TemporaryDirectory() as folder,
            FaultServer(latency="lognormal", retry_after=None, faults=SHARES) as server,
        ):
            run = write_run(folder, n)
            command = [
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
            ]
            in_flight, kept = [], []
            for kill in (1, 2, 3):
                server.fault = None
                process = subprocess.Popen(
                    command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                while server.paid() < kill * n / 4:
                    time.sleep(0.05)
                if warned:
                    server.fault = lambda body, nth: "hang"
                    while any(
                        a["paid"] and not a["delivered"] and a["fault"] != "reset-inside"
                        for a in server.asked
                    ):
                        time.sleep(0.05)
                    # Those sent before have their answers, and the client has taken them in.
                    time.sleep(8)
                in_flight.append(server.in_flight)
                process.kill()
                process.wait()
                journal = (run / "02_journal.jsonl").read_bytes()
                kept.append(journal.count(b"\n"))
            server.fault = None
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            answers = Counter(a["prompt"] for a in server.asked if a["paid"] and a["fault"] is None)
            rows = (run / "02_critiques" / "teacher.jsonl").read_text().splitlines()
            twice = sum(count - 1 for count in answers.values())
            print(
                f"{'everything delivered before' if warned else 'without warning'}: "
                f"status {done.returncode}, {len(rows)} rows; in the journal at the kills {kept}, "
                f"in flight {in_flight}; good answers paid twice: {twice}; of {server.paid()} paid"
            )
