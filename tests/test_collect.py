"""02_critique.py as a user runs it, against a server that fails.

Its files, exit statuses, signals, kills, money and secrets. Only kills, signals and a full disk
need a process of their own.
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.core import verdicts
from tests.faults import TEXTS, FaultServer
from tests.runs import kill_when, n_lines, rows, run_process, run_script, write_rows

ROOT = Path(__file__).parent.parent
CASES = Path(__file__).parent / "cases"
KEY = "sk-very-secret"
COMMAND = ["02_critique.py", "--name", "x", "--preset", "paper"]
# Starts a script with a limit to the size of a file, as if the disk were full.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def make_responses(folder, n):
    """Make a run `x` of n responses and return its folder."""
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
    run = folder / "runs" / "x"
    write_rows(run / "01_responses" / "mine.jsonl", made)
    return run


def flags_for(url, model="teacher"):
    return ["--model", model, *(["--base-url", url] if url else [])]


def collect(folder, url, *flags, model="teacher", **environment):
    """Run 02 inside this process, and return its CompletedProcess."""
    return run_script(folder, *COMMAND, *flags_for(url, model), *flags, **environment)


def critiques_of(run, teacher="teacher"):
    return rows(run / "02_critiques" / f"{teacher}.jsonl")


def failed_of(run, teacher="teacher"):
    return rows(run / "02_failed" / f"{teacher}.jsonl")


def manifest_of(run, teacher="teacher"):
    return json.loads((run / "02_critiques" / f"{teacher}.run.json").read_text())


def ends(done, status, *parts):
    """Assert the status, what is printed, and that it is no traceback; return what is printed."""
    text = done.stdout + done.stderr
    assert done.returncode == status and "Traceback" not in text, (
        f"{done.returncode}\n{text[-3000:]}"
    )
    missing = [part for part in parts if part not in text]
    assert not missing, f"{missing} are not in:\n{text[-3000:]}"
    return text


def wait_for(ready, seconds=120):
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


class Process:
    """02 as a process, for signals. stderr: its lines so far."""

    def __init__(self, folder, *flags):
        # A shell's child gets Ctrl-C; the child of a test runner may have been told to ignore it.
        start = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        start += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        script = [str(ROOT / COMMAND[0]), *COMMAND[1:]]
        self.process = subprocess.Popen(
            [sys.executable, "-c", start, *script, *map(str, flags)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stderr = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.stderr.append(line)

    def interrupt(self, number, announced="stopping"):
        """Send a signal and wait until the script says that it has seen it."""
        self.process.send_signal(number)
        wait_for(lambda: announced in "".join(self.stderr))

    def wait(self):
        stdout = self.process.stdout.read()
        status = self.process.wait(120)
        self.reader.join()
        return subprocess.CompletedProcess([], status, stdout, "".join(self.stderr))


def number_of(body):
    """Return the row that a request asks about."""
    return int(body["messages"][-1]["content"].split("What is ")[1].split(" + 1?")[0])


def nowhere():
    """Return a URL where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def assert_whole(run, server, n):
    """Assert that each response has its critique once, in their order, as the server gave it."""
    critiques = critiques_of(run)
    assert [row["id"] for row in critiques] == [f"{i}" for i in range(n)] and failed_of(run) == []
    texts = {number_of(entry["body"]): server.text(entry["body"]) for entry in server.asked}
    for row in critiques:
        assert row["critique_raw"] == texts[int(row["id"])]
        assert row["verdict"] == verdicts.parse_verdict(row["critique_raw"])
        assert row["critique"].endswith(f"\n\nConclusion: {row['verdict']} [END]")
        assert row["teacher"] == "teacher" and row["critique_finish_reason"] == "stop"
        assert row["question_id"] == f"q{row['id']}"
    assert not [path for path in run.rglob("*") if ".part" in path.name]
    keys = [record["key"] for record in rows(run / "02_journal.jsonl") if "error" not in record]
    assert len(keys) == len(set(keys))


def texts_of(run):
    return "".join(path.read_text(encoding="utf-8") for path in run.rglob("*") if path.is_file())


# --- the whole thing ------------------------------------------------------------------------------


def test_faults_of_every_kind_leave_no_trace(tmp_path):
    """All rows come. Another start, with other concurrency and a server that is not there, asks for
    nothing and writes the same bytes.
    """
    run, n = make_responses(tmp_path, 80), 80
    names = ["429", "500", "503", "408", "reset-before", "reset-inside", "broken-json"]
    names += ["no-choices", "empty", "cut", "verdictless"]
    with FaultServer(faults=dict.fromkeys(names, 0.02), seed=5, latency=0.02) as server:
        done = collect(tmp_path, server.url, "--concurrency", 20, OPENAI_API_KEY=KEY)
        text = ends(done, 0, "80 responses", "80 requests", "next: python 03_build.py --name x")
        assert_whole(run, server, n)
        stats = server.stats()
        assert stats["paid_twice"] == 0 and stats["asked"] > n
        assert server.asked[0]["key"] == f"Bearer {KEY}" and KEY not in text + texts_of(run)
        made = manifest_of(run)
        assert made["teacher"] == "teacher" and made["usd"] is None
        assert made["report"]["critiques"] == n
    before = (run / "02_critiques" / "teacher.jsonl").read_bytes()
    ends(collect(tmp_path, nowhere(), "--concurrency", 3), 0)
    assert (run / "02_critiques" / "teacher.jsonl").read_bytes() == before


def test_the_messages_that_are_sent_are_printed_first(tmp_path):
    """Role and content of the first request, as the server receives them, before the estimate."""
    make_responses(tmp_path, 3)
    with FaultServer() as server:
        text = ends(collect(tmp_path, server.url, "--concurrency", 1), 0)
        (message,) = server.asked[0]["body"]["messages"]
        shown = f"[{message['role']}]\n{message['content']}"
        assert shown in text and text.index(shown) < text.index("estimate")


def test_rows_that_fail_are_named_and_asked_again_on_demand(tmp_path):
    """Status 3, and the reason of each; --retry-failed asks for these, and for nothing else."""
    run = make_responses(tmp_path, 40)
    faults = {3: "context", 5: "refusal", 7: "verdictless", 9: "cut", 11: "filter-400"}
    reasons = {
        3: "maximum context length",
        5: "I'm sorry",
        7: "no verdict",
        9: "cut at 8000 tokens",
        11: "content_filter",
    }
    with FaultServer(fault=lambda body, nth: faults.get(number_of(body))) as server:
        ends(collect(tmp_path, server.url), 3, "5 ", "02_failed", "--retry-failed")
        assert len(server.asked) == 40 + 3 + 1
        failed = {int(row["id"]): row for row in failed_of(run)}
        assert list(failed) == list(faults)
        assert all(reason in failed[i]["reason"] for i, reason in reasons.items())
        assert failed[7]["critique_raw"] and failed[7]["response"] == "It is \\boxed{8}."
        good = [int(row["id"]) for row in critiques_of(run)]
        assert good == [i for i in range(40) if i not in faults]
        faults.clear()
        ends(collect(tmp_path, server.url, "--retry-failed"), 0)
        assert len(server.asked) == 44 + 5
        assert_whole(run, server, 40)


def test_each_teacher_has_its_files(tmp_path):
    """Another teacher leaves the first one's file as it is; the environment may name the server."""
    run = make_responses(tmp_path, 12)
    with FaultServer() as server:
        ends(collect(tmp_path, None, OPENAI_BASE_URL=server.url, OPENAI_API_KEY=KEY), 0)
        before = (run / "02_critiques" / "teacher.jsonl").read_bytes()
        environment = {"OPENAI_BASE_URL": nowhere()}
        ends(collect(tmp_path, server.url, "--answers", model="a/b", **environment), 0)
        assert (run / "02_critiques" / "teacher.jsonl").read_bytes() == before
        answers = rows(run / "02_answers" / "a-b.jsonl")
        assert [row["question_id"] for row in answers] == [f"q{i}" for i in range(12)]
        assert {row["teacher"] for row in answers + critiques_of(run, "a-b")} == {"a/b"}
        assert server.paid() == 12 + 24
        assert server.asked[0]["key"] == f"Bearer {KEY}" and KEY not in texts_of(run)
        ends(collect(tmp_path, server.url, model="a-b"), 2, "a/b", "--name")


def test_critiques_that_came_with_the_data(tmp_path):
    """They are kept in a file of their own: the others are asked for, or all, or none."""
    run = make_responses(tmp_path, 4)
    path = run / "01_responses" / "mine.jsonl"
    text = "Old, and long enough."
    carried = {"critique": text, "critique_raw": text, "teacher": "data"}
    data = rows(path)
    data[1] |= carried | {"verdict": "right"}
    data[2] |= carried | {"verdict": "unparsed"}
    write_rows(path, data)
    with FaultServer() as server:
        ends(collect(tmp_path, server.url, "--existing-critiques", "only"), 3)
        assert server.asked == [] and not (run / "02_critiques" / "teacher.jsonl").exists()
        for choice, asked in (("keep", ["0", "3"]), ("redo", ["0", "1", "2", "3"])):
            ends(collect(tmp_path, server.url, "--existing-critiques", choice), 3)
            assert [row["id"] for row in critiques_of(run)] == asked
            assert [row["id"] for row in critiques_of(run, "carried")] == ["1"]
            assert [row["id"] for row in failed_of(run, "carried")] == ["2"]
        assert server.paid() == 4 and text not in json.dumps(critiques_of(run))


def test_a_response_is_asked_about_once(tmp_path):
    """It came with two critiques, which both stay; of two golds both rows stay, in one request.

    Each row has the grade of its response against its own gold.
    """
    run = make_responses(tmp_path, 2)
    path = run / "01_responses" / "mine.jsonl"
    first, second = rows(path)
    carried = {"critique": "Old, and long enough.", "verdict": "right"}
    pair = [first | carried | {"critique_raw": name, "teacher": name} for name in ("A", "B")]
    write_rows(path, [*pair, second | {"gold": "2"}, second | {"gold": "3"}])
    with FaultServer() as server:
        ends(collect(tmp_path, server.url, "--existing-critiques", "redo"), 0)
        assert sorted(number_of(entry["body"]) for entry in server.asked) == [0, 1]
    assert [(row["id"], row["gold"], row["correct"]) for row in critiques_of(run)] == [
        ("0", None, None),
        ("1", "2", True),
        ("1", "3", False),
    ]
    ids = {row["critique_id"] for row in critiques_of(run, "carried")}
    assert len(ids) == len(critiques_of(run, "carried")) == 2


def test_a_teacher_without_one_good_row_leaves_what_exists(tmp_path):
    """Its failures are written, and say why; no file of another teacher changes."""
    run = make_responses(tmp_path, 6)
    with FaultServer() as server:
        ends(collect(tmp_path, server.url), 0)
        before = {path: path.read_bytes() for path in run.glob("02_*/teacher.*")}
        server.fault = lambda body, nth: "verdictless"
        done = collect(tmp_path, server.url, "--retries", 0, "--max-bad-share", 1, model="other")
        ends(done, 3, "6 critiques", "02_failed")
        assert not (run / "02_critiques" / "other.jsonl").exists()
        assert {row["reason"] for row in failed_of(run, "other")} == {"no verdict"}
        assert len(before) == 3 and all(path.read_bytes() == before[path] for path in before)


def test_a_journal_of_an_earlier_version_is_used_as_it_is(tmp_path):
    """It was paid for. These are lines of a run of commit 6aaaad3, and the responses to them."""
    run = tmp_path / "runs" / "tiny"
    shutil.copytree(CASES / "old_journal", run)
    done = run_script(tmp_path, "02_critique.py")
    ends(done, 0, "nothing is asked")
    journal = rows(run / "02_journal.jsonl")
    assert journal == rows(CASES / "old_journal" / "02_journal.jsonl")
    (path,) = (run / "02_critiques").glob("*.jsonl")
    texts = {record["text"] for record in journal}
    critiques, answers = rows(path), rows(run / "02_answers" / path.name)
    assert len(critiques) == 3 and {row["critique_raw"] for row in critiques} <= texts
    assert len(answers) == 3 and {row["answer"] for row in answers} <= texts


# --- what is a critique ---------------------------------------------------------------------------


def test_what_a_teacher_thought_is_in_no_row(tmp_path):
    """The journal has it, the manifest counts it; what is all thinking gets more room, once."""
    run, n = make_responses(tmp_path, 12), 12

    def think(body):
        number, tokens = number_of(body), body["max_tokens"]
        if number == 3 or (number == 2 and tokens < 8000):
            return "<think>Conclusion: wrong [END]"
        thought = "<think>Secret.\n\nConclusion: wrong [END]</think>\n\n" if number < 6 else ""
        return f"{thought}Row {number} adds up.\n\nConclusion: right [END]"

    with FaultServer(text=think) as server:
        ends(collect(tmp_path, server.url, "--answers", "--limit", 12), 3)
    good = critiques_of(run)
    assert [row["id"] for row in good] == [f"{i}" for i in range(n) if i != 3]
    assert {row["verdict"] for row in good} == {"right"}
    written = (path.read_text() for path in run.glob("02_[ac]*/*.jsonl"))
    assert not [text for text in written if "Secret" in text or "think>" in text]
    assert "Secret" in (run / "02_journal.jsonl").read_text()
    # of critiques and of answers: rows 0 to 5 each, row 3 without an answer after it
    assert manifest_of(run)["report"]["thinking_removed"] == 12
    reasons = {row["reason"] for row in failed_of(run)}
    assert all("only thinking, raise --max-new-tokens" in reason for reason in reasons)
    asked = [entry["body"]["max_tokens"] for entry in server.asked]
    assert sorted(asked) == [3200] * 24 + [8000] * 4


def test_a_bare_conclusion_is_asked_again_and_counted_apart(tmp_path):
    run, bare = make_responses(tmp_path, 6), "Conclusion: right [END]"
    path = run / "01_responses" / "mine.jsonl"
    data = rows(path)
    carried = {"critique": bare, "critique_raw": bare, "verdict": "right", "teacher": "data"}
    write_rows(path, [*data[:5], data[5] | carried])
    text = {1: bare, 2: f"Yes. {bare}", 3: f"It adds up. {bare}"}

    def write(body):
        return text.get(number_of(body), f"It is as it should be. {bare}")

    with FaultServer(text=write) as server:
        ends(collect(tmp_path, server.url, "--max-bad-share", 1), 3)
        assert [row["id"] for row in critiques_of(run)] == ["0", "3", "4"]
        assert manifest_of(run)["report"]["bare_conclusions"] == 2
        assert len(server.asked) == 3 + 2 * 4
        (row,) = failed_of(run, "carried")
        assert "--min-critique-words" in row["reason"] or "bare conclusion" in row["reason"]
        ends(collect(tmp_path, server.url, "--min-critique-words", 0), 0)
        assert len(server.asked) == 11 and len(critiques_of(run)) == 5
        assert [row["id"] for row in critiques_of(run, "carried")] == ["5"]


def test_further_fields_reach_the_server_and_are_asked_anew(tmp_path):
    run = make_responses(tmp_path, 3)
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20}
    with FaultServer() as server:
        ends(collect(tmp_path, server.url), 0)
        for _ in range(2):
            flags = ["--extra-body", json.dumps(extra), "--reasoning-effort", "low"]
            ends(collect(tmp_path, server.url, *flags), 0)
        flags = ["--reasoning-effort", "none", "--top-p", "none", "--answers", "--limit", 1]
        ends(collect(tmp_path, server.url, *flags), 0)
        bodies = [entry["body"] for entry in server.asked]
    plain, effort, without = bodies[:3], bodies[3:6], bodies[6:]
    assert len(without) == 2 and manifest_of(run)["config"]["reasoning_effort"] == "none"
    assert all(body["temperature"] == 0.3 and body["top_p"] == 0.95 for body in plain)
    for body in effort:
        assert body.items() >= (extra | {"reasoning_effort": "low"}).items()
        assert not {"temperature", "top_p", "max_tokens"} & set(body)
    for body in without:
        assert body["temperature"] == 0.3 and "top_p" not in body
        assert body["reasoning_effort"] == "none"


# --- which teacher --------------------------------------------------------------------------------


def test_no_teacher_is_asked_that_was_not_named(tmp_path):
    """But critiques that came with the data need none."""
    run = make_responses(tmp_path, 3)
    with FaultServer() as server:
        environment = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY}
        text = ends(run_script(tmp_path, *COMMAND, **environment), 2, "--model NAME", "$")
        assert text.count("--model ") >= 4 and not (run / "02_journal.jsonl").exists()
        path, old = run / "01_responses" / "mine.jsonl", "Old, and long enough."
        carried = {"critique": old, "critique_raw": old, "verdict": "right", "teacher": "data"}
        write_rows(path, [row | carried for row in rows(path)])
        ends(run_script(tmp_path, *COMMAND, **environment), 0)
        assert len(critiques_of(run, "carried")) == 3 and server.asked == []


def test_the_micro_world_is_asked_about_on_purpose(tmp_path):
    """Not by a forgotten --name: the preset of a run is the tiny one unless 01 says another."""
    run = make_responses(tmp_path, 3)
    run.rename(run.with_name("tiny"))
    with FaultServer() as server:
        command = ["02_critique.py", *flags_for(server.url)]
        ends(run_script(tmp_path, *command), 2, "teacher", "runs/tiny", "--ask-miniature", "--name")
        assert server.asked == []
        ends(run_script(tmp_path, *command, "--ask-miniature"), 0)
        ends(run_script(tmp_path, *command, "--name", "tiny", "--answers"), 0)
        assert server.paid() == 6


def test_another_address_is_told_and_nothing_is_asked_of_it(tmp_path):
    """A second start says nothing of 0 rows or 0 requests: they are there."""
    run = make_responses(tmp_path, 4)
    with FaultServer() as first, FaultServer() as second:
        assert "--name NEW" not in ends(collect(tmp_path, first.url, "--answers"), 0)
        before = critiques_of(run)
        again = ends(collect(tmp_path, first.url, "--answers"), 0, "nothing is asked")
        moved = ends(collect(tmp_path, second.url, "--answers"), 0, first.url, "--name NEW")
        assert second.asked == [] and len(first.asked) == 8 and critiques_of(run) == before
        for text in (again, moved):
            assert not re.search(r"\b0 (rows|requests|critiques|tokens)", text)


# --- what ends it ---------------------------------------------------------------------------------


def test_a_refused_key_is_not_repeated(tmp_path):
    """The server says it in full. Status 4, and nothing is written but the journal."""
    run, answered = make_responses(tmp_path, 30), []

    def fault(body, nth):
        answered.append(1)
        return None if len(answered) <= 10 else "key"

    with FaultServer(fault=fault, latency=0.01) as server:
        done = collect(tmp_path, server.url, "--concurrency", 4, OPENAI_API_KEY=KEY)
        text = ends(done, 4, "OPENAI_API_KEY", "same command again")
        assert KEY not in text + texts_of(run) and server.asked[0]["key"] == f"Bearer {KEY}"
        assert not list(run.glob("02_critiques/*")) and not list(run.glob("02_failed/*"))
        assert n_lines(run / "02_journal.jsonl") == server.paid() == 10


def test_a_refused_parameter_is_named_by_its_flag(tmp_path):
    """A reasoning model: the first rows cost nothing, and with an effort the run goes through."""
    run = make_responses(tmp_path, 20)
    with FaultServer(
        fault=lambda body, nth: "max_tokens" if "max_tokens" in body else None
    ) as server:
        ends(collect(tmp_path, server.url), 2, "--reasoning-effort")
        assert len(server.asked) <= 16
        ends(collect(tmp_path, server.url, "--reasoning-effort", "low"), 0)
        assert_whole(run, server, 20)


def test_nobody_there_is_4(tmp_path):
    make_responses(tmp_path, 20)
    ends(collect(tmp_path, nowhere()), 4, "Connect", "--base-url")


# --- signals and kills ----------------------------------------------------------------------------


def test_a_second_process_is_refused_and_two_ctrl_c_give_up_what_hangs(tmp_path):
    """Both processes would pay for the same rows."""
    make_responses(tmp_path, 20)
    with FaultServer(latency=600) as server:
        first = Process(tmp_path, *flags_for(server.url))
        wait_for(lambda: server.asked)
        ends(collect(tmp_path, server.url), 2, "another process")
        first.interrupt(signal.SIGINT)
        assert first.process.poll() is None
        first.process.send_signal(signal.SIGINT)
        ends(first.wait(), 130, "interrupted", "same command again")
        assert server.paid() == 0


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_loses_nothing(tmp_path, number, status):
    """What is in flight comes in and is kept, and nothing more is sent."""
    run = make_responses(tmp_path, 60)
    with FaultServer() as server:
        server.pause()
        process = Process(tmp_path, *flags_for(server.url), "--concurrency", 6)
        wait_for(lambda: server.paid() == 6)  # generated, paid, and held back
        process.interrupt(number)
        server.resume()
        ends(process.wait(), status, "interrupted", "same command again")
        assert len(server.asked) == server.paid() == n_lines(run / "02_journal.jsonl") == 6
        assert not (run / "02_critiques").exists()


def kill(folder, server, ready, concurrency):
    command = [*COMMAND, *flags_for(server.url), "--concurrency", concurrency]
    kill_when(ready, folder, *command, timeout=120)


@pytest.mark.parametrize("kills", [(13,), pytest.param((13, 27, 44), marks=pytest.mark.slow)])
def test_kills_after_what_was_delivered_cost_nothing(tmp_path, kills):
    """kill -9 when all that was paid had arrived: no answer is paid twice, none is lost."""
    run, n, room = make_responses(tmp_path, 60), 60, []

    def latency(body):
        return room.pop() if room else 600  # for the rest nothing is even generated

    with FaultServer(latency=latency) as server:
        for until in kills:

            def delivered(until=until):
                return server.paid() == until == n_lines(run / "02_journal.jsonl")

            room += [0.0] * (until - server.paid())
            kill(tmp_path, server, delivered, 7 if until % 2 else 1)
        server.latency = 0
        ends(collect(tmp_path, server.url), 0)
        assert_whole(run, server, n)
        assert server.paid() == n and server.stats()["paid_twice"] == 0


@pytest.mark.slow
def test_kills_without_warning_cost_what_was_in_flight(tmp_path):
    """kill -9 at any moment, also in the middle of a line: at most that is paid again."""
    run, n = make_responses(tmp_path, 80), 80
    with FaultServer(latency=lambda body: 0.02 + number_of(body) % 7 / 50) as server:
        for until in (15, 45):

            def reached(until=until):
                return n_lines(run / "02_journal.jsonl") >= until

            kill(tmp_path, server, reached, 8)
        ends(collect(tmp_path, server.url), 0)
        assert_whole(run, server, n)
        assert server.paid() <= n + 2 * 8 and server.stats()["paid_twice"] <= 2 * 8


def test_a_full_disk_is_5_and_then_it_goes_on(tmp_path):
    """Full within the journal: whole lines stay. Full within the result: no half of it."""
    run, n = make_responses(tmp_path, 60), 60

    def collect_with_a_limit(limit, *flags):
        prefix = [sys.executable, "-c", LIMITED, str(limit)]
        return run_process(tmp_path, *COMMAND, *flags_for(server.url), *flags, prefix=prefix)

    with FaultServer(latency=0.01) as server:
        done = collect_with_a_limit(8000, "--concurrency", 4)
        ends(done, 5, "disk", "same command again")
        kept = (run / "02_journal.jsonl").read_bytes()
        assert 10 < len(rows(run / "02_journal.jsonl")) < n and kept.endswith(b"\n")
        assert not (run / "02_critiques").exists()
        ends(collect_with_a_limit(35_000), 5, "02_critiques")
        assert (run / "02_journal.jsonl").read_bytes().startswith(kept)
        assert not list(run.glob("02_critiques/*"))
        ends(collect(tmp_path, server.url), 0)
        assert_whole(run, server, n)
        stats = server.stats()  # what was in flight when it was full
        assert stats["paid_twice"] <= 8 and server.paid() <= n + 8


# --- money ----------------------------------------------------------------------------------------


def server_usd(server, price_in, price_out):
    """Return what the server would write on the bill."""
    usd = 0.0
    for entry in server.asked:
        if entry["paid"]:
            text = TEXTS[entry["fault"]](server.text(entry["body"]))[0]
            usd += len(entry["prompt"]) // 4 * price_in + len(text) // 4 * price_out
    return usd / 1e6


def test_money_is_asked_for_first_and_never_exceeded(tmp_path):
    """The estimate, and then 2 with nothing sent; a budget is a hard stop over all starts."""
    run, n = make_responses(tmp_path, 40), 40
    prices = ["--price-in", 10, "--price-out", 1000, "--max-new-tokens", 100]
    with FaultServer(latency=0.01, faults={"reset-before": 0.05, "verdictless": 0.05}) as server:
        done = collect(tmp_path, server.url, model="gpt-4o-mini")
        ends(done, 2, "40 requests", "nothing was sent", "--budget USD", "--budget inf")
        assert not server.asked and not (run / "02_critiques").exists()
        done = collect(tmp_path, server.url, *prices, "--budget", 0.8)
        ends(done, 4, "--budget 0.8", "larger --budget")
        assert 0.3 < server_usd(server, 10, 1000) <= 0.8 and not (run / "02_critiques").exists()
        ends(collect(tmp_path, server.url, *prices, "--budget", 40), 0, "spent before")
        assert_whole(run, server, n)
        usd = manifest_of(run)["usd"]
        assert server.stats()["paid_twice"] == 0 and KEY not in texts_of(run)
        assert usd == pytest.approx(server_usd(server, 10, 1000))
        assert 0 < sum(row["usd"] for row in critiques_of(run)) <= usd


def test_prices_come_from_a_file_of_litellms_form(tmp_path):
    run = make_responses(tmp_path, 3)
    table = {"other/teacher": {"input_cost_per_token": 1e-5, "output_cost_per_token": 1e-3}}
    (tmp_path / "prices.json").write_text(json.dumps(table))
    with FaultServer() as server:
        ends(collect(tmp_path, server.url, "--prices", "no.json"), 2, "no.json")
        ends(collect(tmp_path, server.url, "--prices", "prices.json"), 2, "--budget USD")
        assert not server.asked
        ends(collect(tmp_path, server.url, "--prices", "prices.json", "--budget", 40), 0)
        assert manifest_of(run)["usd"] == pytest.approx(server_usd(server, 10, 1000))


# --- the Batch API --------------------------------------------------------------------------------


def test_a_batch_writes_what_a_live_run_writes(tmp_path):
    """Lines that fail, come twice, never, or from elsewhere: the same file in the end."""
    n = 40
    live, batched = (make_responses(tmp_path / name, n) for name in ("live", "batch"))
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

    def without_cost(run):
        costs = ("usage", "usd")
        return [{k: v for k, v in row.items() if k not in costs} for row in critiques_of(run)]

    prices = ["--price-in", 1, "--price-out", 2, "--budget", 9]
    with FaultServer() as server, FaultServer(batch=options, fault=once) as other:
        ends(collect(tmp_path / "live", server.url, *prices), 0)
        flags = [*prices, "--batch"]
        text = ends(collect(tmp_path / "batch", other.url, *flags, OPENAI_API_KEY=KEY), 0)
        assert without_cost(live) == without_cost(batched) and failed_of(batched) == []
        assert KEY not in text + texts_of(batched)
        asked_live = [number_of(e["body"]) for e in other.asked if e["path"] != "batch"]
        assert other.stats()["paid_twice"] == 0 and asked_live == [4]
        usd_live, usd_batched = (manifest_of(run)["usd"] for run in (live, batched))
        assert 0.5 * usd_live < usd_batched < 0.6 * usd_live  # half, and one row twice


@pytest.mark.slow
def test_a_batch_outlives_kill_9_and_ctrl_c(tmp_path):
    """Killed when the server has made the batch and said nothing yet; then interrupted while it
    waits: one batch, paid once.
    """
    run, n = make_responses(tmp_path, 30), 30
    made, go_on, retrieved = threading.Event(), threading.Event(), threading.Event()

    def crash():
        made.set()
        go_on.wait(60)

    server = FaultServer(batch={"seconds": 8, "crash": crash})
    find = server._batch

    def note_retrieved(request):
        retrieved.set()
        return find(request)

    server._batch = note_retrieved
    with server:
        flags = [*flags_for(server.url), "--batch"]
        kill_when(made.is_set, tmp_path, *COMMAND, *flags, timeout=120)
        server.batch["crash"] = lambda: None
        go_on.set()
        process = Process(tmp_path, *flags)
        wait_for(retrieved.is_set)  # it has found its batch, and waits for it
        process.process.send_signal(signal.SIGINT)
        ends(process.wait(), 130, "interrupted", "same command again")
        ends(collect(tmp_path, server.url), 2, "is not collected", "--batch")
        ends(collect(tmp_path, server.url, "--batch"), 0)
        ends(collect(tmp_path, server.url), 0, "nothing is asked")
        assert_whole(run, server, n)
        assert len(server.batches) == 1 and server.paid() == n and len(server.asked) == n
