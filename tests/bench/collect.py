"""02 against the method of the paper's released code, in one run.

The same 2,000 requests to the same server with faults.

    python -m tests.bench.collect [requests]

The server (tests/faults.py, a process of its own) takes a lognormal time of mean 1 s and fails 2 %
of what it is asked. The released generate_critique_by_api.py starts 20 processes, each asking for
its share one after the other with the openai client's defaults, and prints and drops what fails;
here it writes a file per process, without the bug that keeps only the last one. Prints both times,
their ratio, the rows that can be used, what was paid for twice, and CPU time per request.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FAULTS = [
    "429",
    "500",
    "503",
    "reset-before",
    "reset-inside",
    "broken-json",
    "no-choices",
    "empty",
    "cut",
    "verdictless",
]
RELEASED = """
import json, sys
import openai
url, start, end, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
client = openai.OpenAI(base_url=url, api_key="none")
with open(out, "w") as f:
    for n in range(start, end):
        prompt = open(sys.argv[5]).readlines()[n]
        try:
            done = client.chat.completions.create(
                model="teacher", messages=json.loads(prompt), temperature=0.3, top_p=0.95,
                max_tokens=3200)
            f.write(json.dumps({"n": n, "critique": done.choices[0].message.content}) + "\\n")
        except Exception as error:
            print("failed", n, error)
"""


def serve(**options):
    """-> (process, base URL) of a fault server."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults", json.dumps(options)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def stats(url):
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as response:
        return json.load(response)


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write_run(folder, n):
    """A run with n responses to critique. -> its folder."""
    run = Path(folder) / "runs" / "bench"
    (run / "01_responses").mkdir(parents=True)
    rows = [
        {
            "id": f"{i}",
            "question_id": f"q{i}",
            "question": f"What is {i} + 1?",
            "gold": None,
            "response": f"It is {i + 1}." * 20,
            "source": "bench",
            "generator": None,
            "sample": 0,
            "finish_reason": "stop",
        }
        for i in range(n)
    ]
    (run / "01_responses" / "bench.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    return run


def ours(folder, url, n, *flags):
    """Run 02. -> (seconds, CPU seconds of its process, its exit status)."""
    write_run(folder, n)
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
        url,
        *flags,
    ]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        print(done.stderr[-2000:])
    print(done.stderr.replace("\r", "\n").strip().rsplit("\n", 1)[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu, done.returncode


def released(folder, url, n, processes=20):
    """20 processes, one request at a time each. -> (seconds, rows written, rows with a verdict)."""
    sys.path.insert(0, str(ROOT))
    from common.core import prompts, verdicts

    asked = [
        prompts.teacher_critique_prompt(f"What is {i} + 1?", f"It is {i + 1}." * 20)
        for i in range(n)
    ]
    (Path(folder) / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in asked))
    share = -(-n // processes)
    began = time.monotonic()
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                RELEASED,
                url,
                str(i * share),
                str(min(n, (i + 1) * share)),
                f"{folder}/{i}.jsonl",
                f"{folder}/prompts.jsonl",
            ],
            stdout=subprocess.DEVNULL,
        )
        for i in range(processes)
    ]
    for process in running:
        process.wait()
    seconds = time.monotonic() - began
    texts = [row["critique"] for i in range(processes) for row in read(f"{folder}/{i}.jsonl")]
    verdict_of = [verdicts.parse_verdict(text or "") for text in texts]
    return seconds, len(texts), sum(verdict != "unparsed" for verdict in verdict_of)


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    options = dict(
        latency="lognormal", faults={name: 0.02 / len(FAULTS) for name in FAULTS}, retry_after=None
    )
    times = {}
    for name, method in (("02", ours), ("released method", released)):
        server, url = serve(**options)
        with tempfile.TemporaryDirectory() as folder:
            result = method(folder, url, n)
            if name == "02":
                rows = read(f"{folder}/runs/bench/02_critiques/teacher.jsonl")
                print(
                    f"02: {result[0]:.1f} s, {len(rows)} of {n} rows, status {result[2]}, "
                    f"{1000 * result[1] / n:.1f} ms CPU a request"
                )
            else:
                print(
                    f"released method: {result[0]:.1f} s, {result[1]} of {n} rows, "
                    f"{result[2]} of them with a verdict"
                )
        times[name] = result[0]
        print(f"  the server says: {stats(url)}")
        server.kill()
    print(f"ratio: {times['released method'] / times['02']:.1f}")
