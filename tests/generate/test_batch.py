"""The Batch API as a server may behave.

Lines that fail, come twice, or not at all; batches that end early; crashes in between. What comes
out is what the live engine gives, and nothing is paid twice.
"""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.core.errors import Stopped
from common.generate.batch import Batch
from common.generate.budget import Budget
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, complete
from common.teacher import critiques
from tests.faults import FaultServer, good_text, prompt_of
from tests.runs import rows

N = 30
MANY = 2_000_000  # tokens in the queue


def collect(server, folder, n=N, queue=MANY, prompts=None, batch=Batch, **budget):
    """As 02 --batch does.

    What the batches do not bring back well is asked live. -> (records, USD of the engine)
    """
    prompts = [f"prompt {i}" for i in range(n)] if prompts is None else prompts
    requests = [
        Request([{"role": "user", "content": p}], check=critiques.check_critique) for p in prompts
    ]
    engine = Client("m", server.url, 8, budget=Budget("m", **budget))
    engine.tries = 2
    with Journal(folder / "journal.jsonl") as journal:
        settings = dict(
            sampling=Sampling(temperature=0.3, max_new_tokens=100),
            journal=journal,
            retries=3,
            retry_failed=False,
        )
        engines = ([batch(engine, folder / "batches.jsonl", queue)] if batch else []) + [engine]
        for one in engines:
            got = complete(one, requests, **settings)
        engine.budget.count(journal)
    return got, engine.budget.spent


def good(prompt):
    """The server's good answer."""
    return good_text({"messages": [{"content": prompt}]})


def plain(records):
    """What must be the same by batch and live."""
    return [{k: r.get(k) for k in ("key", "text", "finish_reason", "error")} for r in records]


def asked_in(server, path):
    return [e["prompt"] for e in server.asked if e["path"] == path]


FAST = {"seconds": 0.1}


@pytest.fixture
def impatient(monkeypatch):
    """The openai client's own pauses between tries, which add up to 15 s, at a tenth."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.05)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.8)


def test_a_batch_brings_what_a_live_run_brings_at_half_the_price(tmp_path):
    with FaultServer(batch=FAST) as server, FaultServer() as other:
        got, usd = collect(server, tmp_path / "batch", price_in=1, price_out=2, limit=1)
        live, full = collect(other, tmp_path / "live", batch=None, price_in=1, price_out=2, limit=1)
        assert plain(got) == plain(live) and [r["usage"] for r in got] == [r["usage"] for r in live]
        assert (
            usd == pytest.approx(full / 2)
            and len(asked_in(server, "batch")) == len(server.asked) == N
        )
        batch, line, sent = server.batches[0], server.asked[0], other.asked[0]
        assert (
            batch["endpoint"] == "/v1/chat/completions"
            and batch["completion_window"] == "24h"
            and len(server.batches) == 1
        )
        assert line["body"].keys() == sent["body"].keys()
        assert {e["prompt"] for e in server.asked} == {e["prompt"] for e in other.asked}
        assert (
            collect(server, tmp_path / "batch")[0] == got and len(server.batches) == 1
        )  # and that is all


CASES = {  # the server's options for batches, and what happens to lines
    "lines that fail": dict(batch={"line_error": 0.3}),
    "lines that come twice, foreign ones, and garbage": dict(
        batch={"duplicate": 0.5, "foreign": 3, "garbage": 3}
    ),
    "lines in neither file": dict(batch={"missing": 0.3}),
    "an expired batch": dict(batch={"expire": 0.6}),
    "batches that expire again and again": dict(batch={"expire": 0.97, "expire_all": True}),
    "nothing comes back": dict(batch={"missing": 1}),
    "a reply that was lost": dict(batch={"reset_after_create": 1}),
    "two uploads that failed": dict(batch={"drop_files": 2}),
    "all of it": dict(
        batch={
            "line_error": 0.1,
            "duplicate": 0.2,
            "foreign": 2,
            "garbage": 2,
            "missing": 0.1,
            "expire": 0.2,
        }
    ),
    "refused for now": dict(
        fault=lambda body, nth: "429" if not nth and int(prompt_of(body)[7:]) % 3 == 0 else None
    ),
}


def one_case(case, folder):
    options = CASES[case]
    with FaultServer(**options | {"batch": FAST | options.get("batch", {})}) as server:
        got, _ = collect(server, folder)
        assert (
            not any("error" in r for r in got)
            and server.stats()["paid_twice"] == 0
            and server.paid() == N
        )
        assert [r["text"] for r in got] == [good(f"prompt {i}") for i in range(N)]
        assert (
            len({r["key"] for r in rows(folder / "journal.jsonl")})
            == len(rows(folder / "journal.jsonl"))
            == N
        )
        last = {part["key"]: part for part in rows(folder / "batches.jsonl")}
        assert all(part.get("collected") for part in last.values()) and len(server.batches) <= 12
        n = len(server.asked), len(server.batches)
        collect(server, folder)
        assert (len(server.asked), len(server.batches)) == n


@pytest.fixture(scope="module")
def cases(request, tmp_path_factory):
    """All cases that were asked for, at once: they mostly wait. -> {case: its future}"""
    names = [
        i.callspec.params["case"]
        for i in request.session.items
        if i.path == request.path and "cases" in i.fixturenames
    ]
    with ThreadPoolExecutor(6) as threads:
        return {
            name: threads.submit(one_case, name, tmp_path_factory.mktemp("case")) for name in names
        }


@pytest.mark.parametrize("case", CASES)
def test_whatever_a_batch_does_all_rows_come_and_none_is_paid_twice(cases, case):
    """And no part is left over that the next start would wait for."""
    cases[case].result()


def test_what_comes_back_bad_is_asked_live_and_what_is_final_is_not(tmp_path):
    """Each bad answer was paid: it is journalled, and counts as an attempt."""
    faults = {
        "prompt 1": ["verdictless"],
        "prompt 2": ["cut"],
        "prompt 3": ["empty"] * 4,
        "prompt 4": ["context"],
        "prompt 5": ["refusal"],
        "prompt 6": ["no-choices"],
        "prompt 7": ["no-usage"],
    }
    with FaultServer(
        batch=FAST,
        fault=lambda body, nth: dict(enumerate(faults.get(prompt_of(body), []))).get(nth),
    ) as server:
        got, _ = collect(server, tmp_path, 10)
        reasons = {f"prompt {n}": r["error"] for n, r in enumerate(got) if "error" in r}
        assert {p[7:]: r.split(" ")[0].strip(":") for p, r in reasons.items()} == {
            "3": "empty",
            "4": "400",
            "5": "refused",
        }
        assert sorted(asked_in(server, "/v1/chat/completions")) == [
            "prompt 1",
            "prompt 2",
            *["prompt 3"] * 3,
        ]
        assert [e["body"]["max_tokens"] for e in server.asked if e["prompt"] == "prompt 2"] == [
            100,
            250,
        ]
        assert (
            len(rows(tmp_path / "journal.jsonl")) == 10 + 1 + 1 + 3
            and server.stats()["paid_twice"] == 0
        )


def test_parts_keep_to_the_queue(tmp_path):
    """One part after the other, each below --batch-tokens; a prompt that is larger than that goes
    alone.
    """
    prompts = [f"prompt {i} {'x' * 300}" for i in range(9)] + ["y" * 3000]
    with FaultServer(batch=FAST) as server:
        got, _ = collect(server, tmp_path, queue=350, prompts=prompts)
        assert not any("error" in r for r in got) and server.paid() == 10
        assert [len(server.batch_lines(b["id"])) for b in server.batches] == [3, 3, 3, 1]


def test_a_batch_that_fails_for_good_says_so(tmp_path):
    """billing_hard_limit_reached, say: status 4, and the next start creates it anew."""
    with FaultServer(batch=FAST | {"fail": "billing_hard_limit_reached"}) as server:
        with pytest.raises(Stopped, match="billing_hard_limit_reached") as end:
            collect(server, tmp_path)
        assert end.value.status == 4 and "--batch" in str(end.value) and len(server.batches) == 1
        server.batch["fail"] = None
        assert (
            not any("error" in r for r in collect(server, tmp_path)[0])
            and len(server.batches) == 2
            and server.paid() == N
        )


def test_a_part_that_is_larger_than_the_accounts_queue_says_how_to_make_it_smaller(tmp_path):
    """Nothing is paid, and with smaller parts the same command goes on."""
    with FaultServer(batch=FAST | {"max_tokens_enqueued": 10}) as server:
        with pytest.raises(Stopped, match="token_limit_exceeded") as end:
            collect(server, tmp_path, 8)
        assert "--batch-tokens" in str(end.value) and server.paid() == 0
        records, _ = collect(server, tmp_path, 8, queue=40)
        assert not any("error" in record for record in records) and server.paid() == 8
        assert len(server.batches) == 3


@pytest.mark.parametrize(
    "options, status, mend",
    [
        (dict(batches=False), 2, "no Batch API"),
        (None, 4, "same command again"),
    ],
)
def test_a_server_without_batches_gets_a_clear_message(tmp_path, impatient, options, status, mend):
    """vLLM has none; and where nobody listens that is another message."""
    with FaultServer(**options or {}) as server:
        if options is None:
            server.stop()
        with pytest.raises(Stopped, match=mend) as end:
            collect(server, tmp_path, 3)
        assert end.value.status == status and (status == 4 or "--batch" in str(end.value))


def test_refused_lines_end_in_the_message_of_the_live_run(tmp_path):
    """A parameter that every line is refused for.

    No third batch, and what the live engine says of it.
    """
    with FaultServer(batch=FAST, fault=lambda body, nth: "max_tokens") as server:
        with pytest.raises(Stopped, match="--reasoning") as end:
            collect(server, tmp_path)
        assert end.value.status == 2 and len(server.batches) == 2


def test_too_many_bad_lines_end_the_run_and_the_next_start_takes_the_rest_in(tmp_path):
    """Nothing is paid again: the batch stays uncollected at the server."""
    requests = [
        Request([{"role": "user", "content": f"prompt {i}"}], check=critiques.check_critique)
        for i in range(60)
    ]

    def ask(bad_share):
        with Journal(tmp_path / "journal.jsonl") as journal:
            batch = Batch(Client("m", server.url), tmp_path / "batches.jsonl", MANY)
            return complete(
                batch, requests, Sampling(), journal, retry_failed=False, bad_share=bad_share
            )

    with FaultServer(batch=FAST, text=lambda body: "I cannot say.") as server:
        with pytest.raises(Stopped, match="cannot be used"):
            ask(0.2)
        assert len(rows(tmp_path / "journal.jsonl")) == 41
        assert all("error" in record for record in ask(1.0))
        assert len(rows(tmp_path / "journal.jsonl")) == server.paid() == 60


# --- budget ---------------------------------------------------------------------------------------


def costly(body):
    return ".\n\nConclusion: right [END]".rjust(400, "x")  # 100 tokens: all that it may have


@pytest.mark.parametrize("budget, by_batch", [(5.0, 10), (2.75, 5), (0.4, 0)])
def test_a_part_is_no_larger_than_the_budget(tmp_path, budget, by_batch):
    """$1 an answer, 50 cents by batch.

    What may be needed at most has to be there when the part is sent.
    """
    with FaultServer(text=costly, batch=FAST | {"missing": 0.2}) as server:
        with pytest.raises(Stopped, match="--budget") as end:
            collect(server, tmp_path, price_in=0, price_out=1e4, limit=budget)
        assert end.value.status == 4 and 0.5 * server.paid() <= budget and server.paid() == by_batch
        assert len(rows(tmp_path / "journal.jsonl")) == by_batch
        collect(server, tmp_path, price_in=0, price_out=1e4, limit=15.0 + 0.1)
        assert server.paid() == N and server.stats()["paid_twice"] == 0


# --- crashes --------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing in between sees it."""


def killed_at(what, nth=1):
    """-> a Batch whose nth call of the method `what` is the last thing the process does."""
    calls = []

    def call(self, *arguments, **named):
        calls.append(what)
        if len(calls) == nth:
            raise Killed
        return getattr(Batch, what)(self, *arguments, **named)

    return type("Batch", (Batch,), {what: call})


@pytest.mark.parametrize(
    "what, nth, batches",
    [
        ("_submit", 1, 1),
        ("_note", 1, 1),
        ("_wait", 1, 1),
        ("_take", 1, 1),
        ("_take", 12, 1),
        ("_note", 2, 1),
        ("_submit", 2, 3),
        ("_take", 20, 3),
    ],
)
def test_a_crash_at_any_point_pays_for_nothing_twice(tmp_path, what, nth, batches):
    """Before the upload, between creating the batch and noting it, while it is waited for, inside
    its lines, before it is marked as collected, between two parts. The server's list tells what the
    process did not live to write.
    """
    queue = MANY if batches == 1 else 110
    with FaultServer(batch=FAST) as server:
        with pytest.raises(Killed):
            collect(server, tmp_path, queue=queue, batch=killed_at(what, nth))
        got, _ = collect(server, tmp_path, queue=queue)
        assert (
            not any("error" in r for r in got)
            and server.paid() == N
            and server.stats()["paid_twice"] == 0
        )
        assert len(server.batches) == batches and not asked_in(server, "/v1/chat/completions")


def test_a_server_that_is_away_while_a_batch_runs(tmp_path, impatient):
    """The run ends with 4 after some tries; the batch goes on, and the next start collects it."""
    with FaultServer(batch={"seconds": 2}) as server, ThreadPoolExecutor(1) as thread:
        running = thread.submit(collect, server, tmp_path)
        while not server.batches or server.batches[0]["status"] != "in_progress":
            time.sleep(0.01)
        server.stop()
        with pytest.raises(Stopped) as end:
            running.result(60)
        assert end.value.status == 4 and "same command again" in str(end.value)
        server.start(port=server.port)
        assert not any("error" in r for r in collect(server, tmp_path)[0])
        assert len(server.batches) == 1 and server.paid() == N


def test_other_settings_in_between_lose_no_batch_that_was_paid(tmp_path):
    """A run that is stopped while its batch works, then a smaller one to see what comes, then the
    first again: the answers that the second had no use for were paid, and must not be paid again.
    """
    with FaultServer(batch=FAST) as server:
        with pytest.raises(Killed):
            collect(server, tmp_path, batch=killed_at("_wait"))
        collect(server, tmp_path, 3)
        got, _ = collect(server, tmp_path)
        assert (
            not any("error" in r for r in got)
            and server.stats()["paid_twice"] == 0
            and server.paid() == N
        )


def test_a_server_that_does_not_know_the_batch_ends_the_run(tmp_path):
    """Another key or --base-url. The batch is still waited for, so nothing is paid twice."""
    with FaultServer(batch=FAST) as server, FaultServer(batch=FAST) as other:
        with pytest.raises(Killed):
            collect(server, tmp_path, batch=killed_at("_wait"))
        with pytest.raises(Stopped, match="--base-url") as end:
            collect(other, tmp_path)
        assert end.value.status == 2 and other.paid() == 0
        records, _ = collect(server, tmp_path)
        assert not any("error" in record for record in records) and server.paid() == N


USAGE = b'{"prompt_tokens": %s, "completion_tokens": 1}' % (b"9" * 400)
HOSTILE = [b"", b"null", b"[]", b"5", b'"text"', b"{}", b"\xff\xfe", b"[" * 100_000]
HOSTILE += [
    b'{"custom_id": %s, "response": {}}' % key for key in (b"5", b'["a"]', b"null", b"{}", b'"KEY"')
]
HOSTILE += [
    b'{"custom_id": "KEY", "response": %s}' % response
    for response in [
        b"5",
        b"[1]",
        b'"text"',
        b'{"status_code": "many"}',
        b'{"status_code": 429}',
        b'{"status_code": 1e999}',
        b'{"status_code": null, "body": 5}',
        b'{"status_code": true, "body": {}}',
        b'{"status_code": 500, "body": null}',
        b'{"status_code": 400, "body": [5]}',
        b'{"status_code": 200, "body": null}',
        b'{"status_code": 200, "body": {"choices": [{"message": {"content": [1]}}]}}',
        b'{"status_code": 200, "body": {"choices": [{"message": {"content": "x"}}], "usage": %s}}'
        % USAGE,
    ]
]


def test_hostile_lines_are_passed_over(tmp_path):
    """Each leaves its request open, or gives an answer; none ends the run with a traceback."""
    with FaultServer(batch=FAST) as server:
        store, seen = server._store, []

        def spoiled(content, purpose, filename, entries=()):
            if purpose == "batch_output" and not seen:
                lines = content.splitlines(keepends=True)
                key = json.loads(lines[0])["custom_id"].encode()
                seen.append(key)
                content = b"".join(
                    line.replace(b"KEY", key) + b"\n" for line in HOSTILE
                ) + b"".join(lines)
            return store(content, purpose, filename, entries)

        server._store = spoiled
        got, _ = collect(server, tmp_path, price_in=1, price_out=1, limit=math.inf)
        assert (
            seen and not any("error" in r for r in got[1:]) and got[1]["text"] == good("prompt 1")
        )
