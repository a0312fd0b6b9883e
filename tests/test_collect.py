"""02_critique.py as a user runs it, against a server that fails.

Its files, exit statuses, signals, kills, money and secrets.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.core import verdicts
from tests.faults import TEXTS, FaultServer
from tests.runs import kill_when, n_lines, rows, run_script, write_rows

KEY = "sk-very-secret"
SCENES = []
# Starts a script with a limit to the size of a file (0: none) and with the signals of a shell; its
# number goes to the file pid.
LAUNCHER = """
import os, resource, signal, sys
if int(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
signal.signal(signal.SIGINT, signal.default_int_handler)
with open("pid", "w") as f:
    f.write(str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def scene(function):
    SCENES.append(function)
    return function


@pytest.fixture(scope="module")
def played(request, tmp_path_factory):
    """All scenes that were asked for, at once.

    A script starts slowly and then mostly waits. -> {scene: its future}
    """
    plays = [
        i.callspec.params["play"]
        for i in request.session.items
        if i.path == request.path and "played" in i.fixturenames
    ]
    with ThreadPoolExecutor(5) as threads:
        return {
            play: threads.submit(play, tmp_path_factory.mktemp(play.__name__)) for play in plays
        }


def responses(folder, n):
    """A run `x` of n responses. -> its folder"""
    made = [
        {
            "id": f"{i}",
            "question_id": f"q{i}",
            "question": f"What is {i} + 1?",
            "gold": None,
            "response": f"It is \\boxed{{{i + 1}}}.",
            "source": "mine",
            "generator": None,
            "sample": 0,
            "finish_reason": "stop",
        }
        for i in range(n)
    ]
    return write_rows(folder / "runs" / "x" / "01_responses.jsonl", made).parent


COMMAND = ["02_critique.py", "--name", "x", "--preset", "paper"]


def collect(folder, url, *flags, model="teacher", limit=0, **environment):
    """-> CompletedProcess of 02, as a user would start it. limit: bytes that a file may have."""
    prefix = [sys.executable, "-c", LAUNCHER, str(limit)]
    server = ["--base-url", url] if url else []
    return run_script(
        folder,
        *COMMAND,
        "--model",
        model,
        *server,
        *flags,
        prefix=prefix,
        timeout=120,
        **environment,
    )


def ends(done, status, *said):
    """The status, what stdout or stderr say, and that it is no traceback."""
    text = done.stdout + done.stderr
    assert done.returncode == status and "Traceback" not in text, (
        f"{done.returncode}\n{text[-3000:]}"
    )
    assert all(part in text for part in said), text[-3000:]
    return text


def started(folder, threads, *arguments, **options):
    """Start 02 in another thread. -> (future of its CompletedProcess, the number of its process)"""
    running = threads.submit(collect, folder, *arguments, **options)
    wait(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    number = int((folder / "pid").read_text())
    (folder / "pid").unlink()
    return running, number


def wait(ready, seconds=60):
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


def number_of(body):
    """The row that a request asks about."""
    return int(body["messages"][-1]["content"].split("What is ")[1].split(" + 1?")[0])


def nowhere():
    """A URL where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def written(run):
    """02_critiques.jsonl without what a batch or another attempt may change."""
    return [
        {k: v for k, v in row.items() if k not in ("usage", "usd")}
        for row in rows(run / "02_critiques.jsonl")
    ]


def assert_whole(run, server, n):
    """Each response has its critique once, in the order of the responses, as the server gave it;
    nothing else is there.
    """
    got = rows(run / "02_critiques.jsonl")
    assert [row["id"] for row in got] == [f"{i}" for i in range(n)] and rows(
        run / "02_failed.jsonl"
    ) == []
    texts = {number_of(e["body"]): server.text(e["body"]) for e in server.asked}
    for row in got:
        assert row["critique_raw"] == texts[int(row["id"])]
        assert row["verdict"] == verdicts.parse_verdict(row["critique_raw"])
        assert row["critique"].endswith(f"\n\nConclusion: {row['verdict']} [END]")
        assert (
            row["teacher"] == "teacher"
            and row["critique_finish_reason"] == "stop"
            and row["question_id"] == f"q{row['id']}"
        )
    assert not [p.name for p in run.iterdir() if ".part" in p.name]
    keys = [record["key"] for record in rows(run / "02_journal.jsonl") if "error" not in record]
    assert len(keys) == len(set(keys))


def texts_of(run):
    return "".join(path.read_text(encoding="utf-8") for path in run.iterdir() if path.is_file())


# --- the whole thing ------------------------------------------------------------------------------


@scene
def faults_of_every_kind_leave_no_trace(folder):
    """All rows come.

    Another start, with another server that is not even there and other concurrency, asks for
    nothing and writes the same bytes.
    """
    run, n = responses(folder, 80), 80
    names = [
        "429",
        "500",
        "503",
        "408",
        "reset-before",
        "reset-inside",
        "broken-json",
        "no-choices",
        "empty",
        "cut",
        "verdictless",
    ]
    with FaultServer(faults=dict.fromkeys(names, 0.02), seed=5, latency=0.02) as server:
        done = collect(folder, server.url, "--concurrency", 20, OPENAI_API_KEY=KEY)
        text = ends(
            done, 0, "80 responses", "estimate: 80 requests", "next: python 03_build.py --name x"
        )
        assert_whole(run, server, n)
        assert (
            server.stats()["paid_twice"] == 0
            and server.stats()["asked"] > n
            and server.asked[0]["key"] == f"Bearer {KEY}"
        )
        assert KEY not in text + texts_of(run)
        made = json.loads((run / "02.run.json").read_text())
        assert (made["rows"], made["teachers"], made["partial"], made["usd"]) == (
            n,
            ["teacher"],
            False,
            None,
        )
        assert made["report"]["critiques"] == n
    before = (run / "02_critiques.jsonl").read_bytes()
    ends(collect(folder, nowhere(), "--concurrency", 3), 0)
    assert (run / "02_critiques.jsonl").read_bytes() == before


@scene
def rows_that_fail_are_named_and_asked_again_on_demand(folder):
    """Status 3, and why for each in 02_failed.jsonl; --retry-failed asks for these, and for nothing
    else.
    """
    run, faults = (
        responses(folder, 40),
        {3: "context", 5: "refusal", 7: "verdictless", 9: "cut", 11: "filter-400"},
    )
    with FaultServer(fault=lambda body, nth: faults.get(number_of(body))) as server:
        ends(collect(folder, server.url), 3, "5 ", "02_failed.jsonl")
        assert len(server.asked) == 40 + 3 + 1
        failed = {int(row["id"]): row for row in rows(run / "02_failed.jsonl")}
        reasons = {
            3: "maximum context length",
            5: "I'm sorry",
            7: "no verdict",
            9: "cut at 8000 tokens",
            11: "content_filter",
        }
        assert list(failed) == list(faults) and all(
            reasons[i] in failed[i]["reason"] for i in faults
        )
        assert failed[7]["critique_raw"] and failed[7]["response"] == "It is \\boxed{8}."
        assert [int(row["id"]) for row in rows(run / "02_critiques.jsonl")] == [
            i for i in range(40) if i not in faults
        ]
        faults.clear()
        ends(collect(folder, server.url, "--retry-failed"), 0)
        assert len(server.asked) == 44 + 5
        assert_whole(run, server, 40)


@scene
def another_teacher_and_answers_stand_beside(folder):
    """The first teacher's rows stay; the teacher's own answers go to a file of their own; where the
    server is may come from the environment.
    """
    run = responses(folder, 12)
    with FaultServer() as server:
        ends(collect(folder, None, OPENAI_BASE_URL=server.url, OPENAI_API_KEY=KEY), 0)
        ends(collect(folder, server.url, "--answers", model="other", OPENAI_BASE_URL=nowhere()), 0)
        pairs = [(row["id"], row["teacher"]) for row in rows(run / "02_critiques.jsonl")]
        assert [name for name, _ in pairs] == [f"{i // 2}" for i in range(24)] and len(
            set(pairs)
        ) == 24
        assert [row["question_id"] for row in rows(run / "02_answers.jsonl")] == [
            f"q{i}" for i in range(12)
        ]
        assert {row["teacher"] for row in rows(run / "02_answers.jsonl")} == {
            "other"
        } and server.paid() == 12 + 24
        assert server.asked[0]["key"] == f"Bearer {KEY}" and KEY not in texts_of(run)


# --- what ends it ---------------------------------------------------------------------------------


@scene
def a_refused_key_is_not_repeated(folder):
    """The server says it in full.

    4, nothing written but the journal; with --partial what there is, and the rest as failed.
    """
    run, answered = responses(folder, 30), []

    def fault(body, nth):
        answered.append(1)
        return None if len(answered) <= 10 else "key"

    with FaultServer(fault=fault, latency=0.01) as server:
        done = collect(folder, server.url, "--concurrency", 4, OPENAI_API_KEY=KEY)
        text = ends(done, 4, "OPENAI_API_KEY", "same command again")
        assert KEY not in text + texts_of(run) and server.asked[0]["key"] == f"Bearer {KEY}"
        assert not [
            name
            for name in ("02_critiques.jsonl", "02_failed.jsonl", "02.run.json")
            if (run / name).exists()
        ]
        text = ends(
            collect(folder, server.url, "--partial", OPENAI_API_KEY=KEY), 4, "OPENAI_API_KEY"
        )
        assert KEY not in text + texts_of(run)
        failed = rows(run / "02_failed.jsonl")
        assert len(rows(run / "02_critiques.jsonl")) == 10 and len(failed) == 20
        assert json.loads((run / "02.run.json").read_text())["partial"] is True
        assert all("not asked" in row["reason"] for row in failed) and server.paid() == 10


@scene
def a_refused_parameter_is_named_by_its_flag(folder):
    """A reasoning model.

    The first rows cost nothing, the message says --reasoning, and with it the run goes through.
    """
    run = responses(folder, 20)
    with FaultServer(
        fault=lambda body, nth: "max_tokens" if "max_tokens" in body else None
    ) as server:
        ends(collect(folder, server.url), 2, "--reasoning")
        assert len(server.asked) <= 16
        ends(collect(folder, server.url, "--reasoning"), 0)
        assert_whole(run, server, 20)


@scene
def nobody_there_is_4(folder):
    responses(folder, 20)
    began = time.monotonic()
    ends(collect(folder, nowhere()), 4, "no server answers", "--base-url")
    assert time.monotonic() - began < 40


@scene
def a_second_process_is_refused(folder):
    """Both would pay for the same rows. The first goes on; Ctrl-C twice gives up what hangs."""
    responses(folder, 20)
    with FaultServer(latency=600) as server, ThreadPoolExecutor(1) as threads:
        running, process = started(folder, threads, server.url)
        wait(lambda: server.asked)
        ends(collect(folder, server.url), 2, "another process")
        os.kill(process, signal.SIGINT)
        time.sleep(0.7)
        assert not running.done()
        began = time.monotonic()
        os.kill(process, signal.SIGINT)
        ends(running.result(60), 130, "interrupted", "same command again")
        assert time.monotonic() - began < 15 and server.paid() == 0


# --- signals and kills ----------------------------------------------------------------------------


def interrupted(folder, number, status):
    """One signal in the middle.

    What is in flight comes in and is kept, and nothing more is sent.
    """
    run = responses(folder, 60)
    with FaultServer(latency=0.4) as server, ThreadPoolExecutor(1) as threads:
        running, process = started(folder, threads, server.url, "--concurrency", 6)
        wait(lambda: server.paid() >= 6)
        time.sleep(0.1)
        sent = len(server.asked)
        os.kill(process, number)
        ends(running.result(60), status, "interrupted", "same command again")
        assert sent <= len(server.asked) <= sent + 6  # one may be on its way
        assert n_lines(run / "02_journal.jsonl") == server.paid() == len(server.asked)
        assert not (run / "02_critiques.jsonl").exists()


@scene
def one_ctrl_c_loses_nothing(folder):
    interrupted(folder, signal.SIGINT, 130)


@scene
def one_sigterm_loses_nothing(folder):
    interrupted(folder, signal.SIGTERM, 143)


@scene
def kills_after_what_was_delivered_cost_nothing(folder):
    """kill -9 three times, when all that was paid had arrived.

    None of 60 answers is paid twice, none is lost.
    """
    run, n, room = responses(folder, 60), 60, []

    def latency(body):
        return room.pop() if room else 600  # for the rest nothing is even generated

    with FaultServer(latency=latency) as server:
        for until in (13, 27, 44):
            room += [0.0] * (until - server.paid())
            kill_when(
                lambda: server.paid() == until == n_lines(run / "02_journal.jsonl"),
                folder,
                *COMMAND,
                "--model",
                "teacher",
                "--base-url",
                server.url,
                "--concurrency",
                7 if until % 2 else 1,
                timeout=60,
            )
        server.latency = 0
        ends(collect(folder, server.url), 0)
        assert_whole(run, server, n)
        assert server.paid() == n and server.stats()["paid_twice"] == 0


@scene
def kills_without_warning_cost_what_was_in_flight(folder):
    """kill -9 at any moment, also in the middle of a line.

    At most what was in flight is paid again.
    """
    run, n = responses(folder, 80), 80
    with FaultServer(latency=lambda body: 0.02 + number_of(body) % 7 / 50) as server:
        for until in (15, 45):
            kill_when(
                lambda: n_lines(run / "02_journal.jsonl") >= until,
                folder,
                *COMMAND,
                "--model",
                "teacher",
                "--base-url",
                server.url,
                "--concurrency",
                8,
                timeout=60,
            )
        ends(collect(folder, server.url), 0)
        assert_whole(run, server, n)
        assert server.paid() <= n + 2 * 8 and server.stats()["paid_twice"] <= 2 * 8


@scene
def a_full_disk_is_5_and_then_it_goes_on(folder):
    """Full within the journal.

    Whole lines stay. Full within the result: no half of it. Then there is room.
    """
    run, n = responses(folder, 60), 60
    with FaultServer(latency=0.01) as server:
        ends(
            collect(folder, server.url, "--concurrency", 4, limit=8000),
            5,
            "disk",
            "same command again",
        )
        kept = (run / "02_journal.jsonl").read_bytes()
        assert (
            10 < len(rows(run / "02_journal.jsonl")) < n
            and kept.endswith(b"\n")
            and not (run / "02_critiques.jsonl").exists()
        )
        ends(collect(folder, server.url, limit=35_000), 5, "02_critiques.jsonl")
        assert (run / "02_journal.jsonl").read_bytes().startswith(kept) and not list(
            run.glob("02_critiques*")
        )
        ends(collect(folder, server.url), 0)
        assert_whole(run, server, n)
        assert (
            server.paid() <= n + 8 and server.stats()["paid_twice"] <= 8
        )  # what was in flight when it was full


# --- money ----------------------------------------------------------------------------------------


@scene
def money_is_asked_for_first_and_never_exceeded(folder):
    """The estimate, and then 2 with nothing sent; a budget is a hard stop over all starts; what is
    resumed costs nothing more.
    """
    run, n = responses(folder, 40), 40
    prices = ["--price-in", 10, "--price-out", 1000, "--max-new-tokens", 100]
    with FaultServer(latency=0.01, faults={"reset-before": 0.05, "verdictless": 0.05}) as server:

        def usd():  # what the server would write on the bill
            return (
                sum(
                    len(e["prompt"]) // 4 * 10 + len(said(e)) // 4 * 1000
                    for e in server.asked
                    if e["paid"]
                )
                / 1e6
            )

        def said(entry):
            return TEXTS[entry["fault"]](server.text(entry["body"]))[0]

        done = collect(folder, server.url, model="gpt-4o-mini")
        ends(done, 2, "estimate: 40 requests", "nothing was sent", "--budget USD", "--yes")
        assert not server.asked and not (run / "02_critiques.jsonl").exists()
        ends(
            collect(folder, server.url, *prices, "--budget", 0.8),
            4,
            "--budget 0.8",
            "larger --budget",
        )
        assert 0.3 < usd() <= 0.8 and not (run / "02_critiques.jsonl").exists()
        ends(collect(folder, server.url, *prices, "--budget", 40), 0, "were spent before")
        assert_whole(run, server, n)
        made = json.loads((run / "02.run.json").read_text())
        assert (
            server.stats()["paid_twice"] == 0
            and made["usd"] == pytest.approx(usd())
            and KEY not in texts_of(run)
        )
        assert 0 < sum(row["usd"] for row in rows(run / "02_critiques.jsonl")) <= made["usd"]


# --- the Batch API --------------------------------------------------------------------------------


@scene
def a_batch_writes_what_a_live_run_writes(folder):
    """Lines that fail, come twice, never, or from elsewhere.

    The same file in the end, and no key in any of them.
    """
    n = 40
    runs = [responses(folder / name, n) for name in ("live", "batch")]
    options = {
        "line_error": 0.1,
        "duplicate": 0.2,
        "foreign": 2,
        "garbage": 2,
        "missing": 0.1,
        "expire": 0.2,
    }

    def once(body, nth):
        return "verdictless" if number_of(body) == 4 and not nth else None

    prices = ["--price-in", 1, "--price-out", 2, "--budget", 9]
    with FaultServer() as server, FaultServer(batch=options, fault=once) as other:
        ends(collect(folder / "live", server.url, *prices), 0)
        text = ends(collect(folder / "batch", other.url, *prices, "--batch", OPENAI_API_KEY=KEY), 0)
        assert written(runs[0]) == written(runs[1]) and rows(runs[1] / "02_failed.jsonl") == []
        assert KEY not in text + texts_of(runs[1])
        assert other.stats()["paid_twice"] == 0 and [
            number_of(e["body"]) for e in other.asked if e["path"] != "batch"
        ] == [4]
        usd = [json.loads((run / "02.run.json").read_text())["usd"] for run in runs]
        assert 0.5 * usd[0] < usd[1] < 0.6 * usd[0]  # half, and one row twice


@scene
def a_batch_outlives_kill_9_and_ctrl_c(folder):
    """Killed when the server has made the batch and said nothing yet; then interrupted while it
    waits: one batch, paid once.
    """
    run, n, made, go_on = responses(folder, 30), 30, threading.Event(), threading.Event()

    def crash():
        made.set()
        go_on.wait(60)

    server, listed = FaultServer(batch={"seconds": 8, "crash": crash}), threading.Event()
    find = server._list
    server._list = lambda request: listed.set() or find(request)
    with server, ThreadPoolExecutor(1) as threads:
        kill_when(
            made.is_set,
            folder,
            *COMMAND,
            "--model",
            "teacher",
            "--base-url",
            server.url,
            "--batch",
            timeout=60,
        )
        server.batch["crash"] = lambda: None
        go_on.set()
        running, process = started(folder, threads, server.url, "--batch")
        wait(listed.is_set)
        time.sleep(0.3)  # it has found its batch, and waits for it
        os.kill(process, signal.SIGINT)
        ends(running.result(60), 130, "interrupted", "same command again")
        ends(
            collect(folder, server.url),
            2,
            "a batch of an earlier start is not collected",
            "--batch",
        )
        ends(collect(folder, server.url, "--batch"), 0)
        ends(collect(folder, server.url), 0, "nothing is asked")
        assert_whole(run, server, n)
        assert len(server.batches) == 1 and server.paid() == n and len(server.asked) == n


@pytest.mark.parametrize("play", SCENES, ids=lambda play: play.__name__)
def test_scene(played, play):
    played[play].result()
