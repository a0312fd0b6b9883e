"""The engine over a server, against real HTTP with faults.

Every kind of answer, what ends a run, what is kept and reused.
"""

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.core.errors import InputError, Stopped
from common.generate.budget import Budget
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.requests import N_FIRST, Request, Sampling, Task, complete
from common.teacher import critiques
from tests.faults import FaultServer, prompt_of
from tests.runs import rows, timeless

KEY = "sk-very-secret"
SCENES = []


def scene(function):
    """A test that mostly waits; see `played`."""
    SCENES.append(function)
    return function


def chat(prompts):
    return [
        Request([{"role": "user", "content": str(p)}], check=critiques.check_critique)
        for p in prompts
    ]


def make(url, concurrency=64, timeout=300, model="m", budget=None, **attributes):
    """An engine; attributes: tries, patience."""
    engine = Client(model, url, concurrency, timeout, budget)
    for name, value in attributes.items():
        setattr(engine, name, value)
    return engine


SAMPLING = Sampling(max_new_tokens=100)


def ask(engine, prompts, path, sampling=SAMPLING, **settings):
    with Journal(path) as journal:
        return complete(
            engine,
            chat(prompts),
            sampling,
            journal,
            **{"retries": 3, "retry_failed": False, **settings},
        )


def by_name(name):
    """A fault hook: the prompt "FAULT first" has that fault once, "FAULT always" each time."""

    def fault(body, nth):
        which, when = prompt_of(body).split()
        return (
            None
            if which == "good" or when == "first" and nth
            else int(which)
            if which in name
            else which
        )

    return fault


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "j.jsonl"


# --- every kind of answer -------------------------------------------------------------------------

AGAIN = [
    "500",
    "502",
    "503",
    "408",
    "409",
    "no-choices",
    "null-choices",
    "error-in-200",
    "broken-json",
    "html",
    "reset-before",
    "reset-inside",
    "hang",
]  # nothing usable came back: tried again, not journalled
PAUSE = ["429", "overloaded", "529"]
BAD = [
    "verdictless",
    "contradicting",
    "both",
    "null-content",
    "empty",
]  # paid: journalled, then asked for again
CUT = ["cut"]
FINAL = {
    "context": "--max-new-tokens",
    "filter-400": "content_filter",
    "invalid-prompt": "flagged",
    "content_filter": "refused",
    "refusal": "I'm sorry",
}


@scene
def what_fails_once_is_asked_once_more(journal):
    """One run with each kind of fault.

    The second request answers the row, or none can; nothing is lost or paid twice.
    """
    prompts = [
        f"{fault} first"
        for fault in (*AGAIN, *PAUSE, *BAD, *CUT, *FINAL, "no-usage", "good", "499")
    ]
    with FaultServer(fault=by_name({"499"})) as server:
        got = dict(zip(prompts, ask(make(server.url, timeout=1.5), prompts, journal)))
        asked = {p: sum(e["prompt"] == p for e in server.asked) for p in prompts}
        once = {f"{fault} first" for fault in (*FINAL, "no-usage", "good", "499")}
        assert asked == {p: 1 if p in once else 2 for p in prompts}
        failed = {p for p in prompts if "error" in got[p]}
        assert failed == {f"{fault} first" for fault in (*FINAL, "499")}
        assert all(reason in got[f"{fault} first"]["error"] for fault, reason in FINAL.items())
        assert (
            got["no-usage first"]["usage"] is None
            and got["good first"]["usage"]["completion_tokens"] > 0
        )
        assert server.stats()["paid_twice"] == 0
        lines = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
        assert len(lines) == len(set(lines)) == len(prompts) + len(BAD) + len(CUT)
        n = len(server.asked)
        assert (
            ask(make(server.url), prompts, journal) == list(got.values()) and len(server.asked) == n
        )  # final is final
        ask(make(server.url), prompts, journal, retry_failed=True)
        assert sorted(e["prompt"] for e in server.asked[n:]) == sorted(failed)


@scene
def nothing_is_retried_without_bound(journal):
    """Faults that never end.

    Two tries of what brought nothing, four attempts at what was bad, two at what was cut.
    """
    prompts = [f"{fault} always" for fault in (*AGAIN, *BAD, *CUT, "refusal", "context")]
    with FaultServer(fault=by_name(())) as server:
        engine = make(server.url, timeout=1, tries=2)
        got = dict(zip(prompts, ask(engine, prompts, journal)))
        asked = {p: sum(e["prompt"] == p for e in server.asked) for p in prompts}
        bounds = ((AGAIN, 2), (BAD, 4), (CUT, 2), (["refusal", "context"], 1))
        most = {f"{fault} always": n for faults, n in bounds for fault in faults}
        # Before the first answer two failing requests are an outage, whose first try is none.
        free = {p for p in most if asked[p] == most[p] + 1 and p.split()[0] in AGAIN}
        assert {p: n - (p in free) for p, n in asked.items()} == most
        assert all("error" in record for record in got.values())
        reasons = {
            "hang": "--timeout",
            "500": "500",
            "html": "a web page",
            "no-choices": "no choices",
            "reset-before": "Disconnect",
            "verdictless": "no verdict",
            "empty": "empty",
            "null-content": "empty",
            "cut": "cut at 250 tokens",
        }
        assert all(
            reason in got[f"{fault} always"]["error"] for fault, reason in reasons.items()
        ), got
        assert len(rows(journal)) == 4 * len(BAD) + 2 + 2
        n, server.fault = len(server.asked), None
        again = dict(zip(prompts, ask(make(server.url), prompts, journal)))
        answered = {
            p for p in prompts if "error" not in again[p]
        }  # asked again where nothing came back, and there alone
        assert (
            {e["prompt"] for e in server.asked[n:]}
            == {f"{fault} always" for fault in AGAIN}
            == answered
        )


def test_a_cut_answer_gets_more_room_once(journal):
    """2.5 times the tokens; what is then bad for another reason keeps that room, and what is cut
    again is no brief critique.
    """
    faults = {
        "a": ["cut"],
        "b": ["cut", "verdictless"],
        "c": ["verdictless", "cut"],
        "d": ["cut", "cut"],
        "e": ["empty", "cut", "cut"],
    }
    with FaultServer(
        fault=lambda body, nth: dict(enumerate(faults[prompt_of(body)])).get(nth)
    ) as server:
        got = dict(zip(faults, ask(make(server.url), faults, journal)))
        tokens = {
            p: [e["body"]["max_tokens"] for e in server.asked if e["prompt"] == p] for p in faults
        }
        assert tokens == {
            "a": [100, 250],
            "b": [100, 250, 250],
            "c": [100, 100, 250],
            "d": [100, 250],
            "e": [100, 100, 250],
        }
        assert [p for p in faults if "error" in got[p]] == ["d", "e"]
        n, server.fault = len(server.asked), None
        assert not any(
            "error" in r for r in ask(make(server.url), faults, journal, retry_failed=True)
        )
        assert [(e["prompt"], e["body"]["max_tokens"]) for e in server.asked[n:]] == [
            ("d", 250),
            ("e", 250),
        ]  # no more than that


def test_more_room_than_the_model_has_fails_its_row_alone(journal):
    """gpt-4-turbo writes 4,096 tokens at most.

    The 400 at the second, larger request is no fault of the settings. It would end this run and
    each one after it.
    """

    def fault(body, nth):
        return (
            ("max_tokens" if body["max_tokens"] > 100 else "cut")
            if prompt_of(body) == "long"
            else None
        )

    with FaultServer(fault=fault) as server:
        got = ask(make(server.url), ["long", *range(30)], journal)
        assert "error" in got[0] and not any("error" in record for record in got[1:])


def test_a_row_that_asks_for_too_much_names_the_flag(journal):
    """Too long for the context, as OpenAI says it and as vLLM does (max_tokens), among others."""

    def fault(body, nth):
        return {"0": "context", "1": "max_tokens", "2": 499}.get(prompt_of(body))

    with FaultServer(fault=fault) as server:
        got = ask(make(server.url), range(30), journal)
    errors = [record["error"] for record in got if "error" in record]
    assert ["--max-new-tokens" in error for error in errors] == [True, True, False]
    assert not any("--base-url" in error for error in errors)


def test_an_answer_is_kept_when_a_refusal_before_it_ends_the_run(journal):
    """The good answer shows that the refusal was the row's fault: one bad row too many."""

    def fault(body, nth):
        return 499 if prompt_of(body) == "0" else None

    with FaultServer(fault=fault) as server:
        budget = Budget("m", 1, 1, limit=5)
        with pytest.raises(Stopped, match="cannot be used"):
            ask(make(server.url, 1, budget=budget), range(9), journal, bad_share=0.0)
        assert server.paid() == 1 and budget.lost == 0
    assert ["text" in record for record in rows(journal)] == [True, False]


def test_texts_of_any_kind_are_kept_as_they_came(journal):
    """A lone surrogate, a NUL, other line ends and a megabyte.

    One line of the journal each, and read back the same.
    """
    said = {
        "surrogate": "\ud800 x",
        "nul": "a\x00b",
        "ends": "a\u2028b\u0085c\r\nd\x0be",
        "long": "x" * 10**6,
        "emoji": "🧑‍🧒",
    }
    with FaultServer(
        text=lambda body: f"{said[prompt_of(body)]}\n\nConclusion: right [END]"
    ) as server:
        first = ask(make(server.url), said, journal)
        again = ask(make(server.url), said, journal)
        assert (
            first == again
            and [r["text"].split("\n\nConcl")[0] for r in first] == list(said.values())
            and server.paid() == 5
        )


def test_prompts_of_any_kind_are_sent(journal):
    """A response from the web may hold a lone surrogate, which no JSON in UTF-8 can.

    Its row is asked for all the same.
    """
    with FaultServer() as server:
        got = ask(
            make(server.url, tries=2), ["a \ud800 b", "a\x00b", "🧑‍🧒", " ", "x" * 10**6], journal
        )
        assert not any("error" in record for record in got) and len(server.asked) == 5


def test_bodies_are_what_the_settings_say(journal):
    """Chat and raw prompts, stop strings, a seed per sample, and what a reasoning model takes."""
    with FaultServer() as server, Journal(journal) as records:
        sampling = Sampling(
            temperature=0.5,
            top_p=0.9,
            max_new_tokens=7,
            stop=["a", "b", "c", "d", "settles"],
            seed=1,
        )
        raw = complete(
            make(server.url), [Request("raw", sample=k) for k in (0, 1)], sampling, records
        )
        cut = complete(
            make(server.url),
            [Request([{"role": "user", "content": "talk"}])],
            Sampling(stop=["settles"]),
            records,
        )
        effort = {"reasoning_effort": "low", "top_k": 3}
        thinking = Sampling(None, None, max_new_tokens=9, extra_body=effort)
        complete(
            make(server.url), [Request([{"role": "user", "content": "think"}])], thinking, records
        )
    one, two, talk, think = (entry["body"] for entry in server.asked)
    assert one.pop("seed") != two.pop("seed")
    assert (
        one
        == two
        == {
            "model": "m",
            "prompt": "raw",
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": sampling.stop,
        }
    )
    assert talk["messages"] == [{"role": "user", "content": "talk"}] and "seed" not in talk
    assert think == {
        "model": "m",
        "messages": [{"role": "user", "content": "think"}],
        "max_completion_tokens": 9,
        **effort,
    }
    assert [e["path"] for e in server.asked] == ["/v1/completions"] * 2 + [
        "/v1/chat/completions"
    ] * 2
    assert len(raw) == 2 and "settles" not in cut[0]["text"] and cut[0]["finish_reason"] == "stop"
    assert cut[0]["stop_string"]


def test_what_ended_a_text_is_read_from_the_server_if_it_says_so():
    """vLLM cuts the text itself and names the stop string; an end token has none, or a number."""
    engine, sampling = make("http://h/v1"), Sampling(stop=["[END]"])
    task = Task(Request("p"), sampling, "m")
    for reason, ended_by_string in (("[END]", True), (None, False), (7, False), ("other", False)):
        choice = {"text": "a", "finish_reason": "stop", "stop_reason": reason}
        answer = engine.read_answer(task, {"choices": [choice]})
        assert answer.get("stop_string", False) is ended_by_string
        assert answer["finish_reason"] == "stop" and "stop_reason" not in answer


# --- what ends a run ------------------------------------------------------------------------------

ENDS = {
    "quota": (4, "balance"),
    "key": (4, "OPENAI_API_KEY"),
    "forbidden": (4, "OPENAI_API_KEY"),
    "model": (2, "--model"),
    "max_tokens": (2, "--reasoning"),
    "temperature": (2, "--temperature"),
    402: (4, "balance"),
    501: (2, "--base-url"),
}


@pytest.mark.parametrize("fault", ENDS)
def test_what_no_row_can_get_past_ends_the_run_at_once(journal, monkeypatch, fault):
    """After ten answers.

    Those in flight are kept, next to nothing more is sent, and the message says how to go on.
    """
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    answered = []

    def hook(body, nth):
        answered.append(body)
        return None if len(answered) <= 10 else fault

    (status, mend), sampling = ENDS[fault], Sampling(temperature=0.3, max_new_tokens=100)
    with FaultServer(fault=hook, latency=0.01) as server:
        with pytest.raises(Stopped) as end:
            ask(make(server.url, 8), range(60), journal, sampling)
        assert (
            end.value.status == status
            and mend in str(end.value)
            and "run the same command again" in str(end.value)
        )
        assert KEY not in str(end.value) + journal.read_text() and KEY in server.asked[0]["key"]
        assert len(server.asked) <= 26 and len(rows(journal)) == server.paid() == 10
        server.fault = None
        assert (
            not any("error" in r for r in ask(make(server.url), range(60), journal, sampling))
            and server.paid() == 60
        )


def test_a_wrong_key_costs_few_requests(journal):
    with FaultServer(fault=lambda body, nth: "key") as server:
        with pytest.raises(Stopped):
            ask(make(server.url, 256), range(300), journal)
        assert len(server.asked) <= 16


@scene
def too_many_bad_answers_end_the_run(journal):
    """40 of the first 200 may be bad, 41 may not; the next run says so without a request, unless
    that is what is wanted.
    """
    bad = {str(n) for n in range(0, 205, 5)}  # 41 of the first 205
    with FaultServer(
        fault=lambda body, nth: "verdictless" if prompt_of(body) in bad else None
    ) as server:
        engine = make(server.url, 1)
        assert not any(
            "error" in r
            for r in ask(engine, [n for n in range(200) if n % 5], journal, bad_share=0.2)
        )  # 160
        got = ask(engine, sorted(bad)[:40], journal, bad_share=0.2, retries=0)
        assert sum("error" in r for r in got) == 40 and N_FIRST == 200
    fresh = journal.with_name("fresh.jsonl")
    with FaultServer(
        fault=lambda body, nth: "verdictless" if int(prompt_of(body)) % 4 == 0 else None
    ) as server:
        for _ in range(2):
            with pytest.raises(Stopped, match="cannot be used") as end:
                ask(make(server.url, 8), range(400), fresh, bad_share=0.2, retries=0)
            assert (
                end.value.status == 4
                and "--max-bad-share 1" in str(end.value)
                and str(fresh) in str(end.value)
            )
            assert 41 <= len(server.asked) == len(rows(fresh)) <= 210
        got = ask(make(server.url), range(400), fresh, bad_share=1.0, retries=0)
        assert sum("error" in r for r in got) == 100 and server.paid() == 400


@scene
def a_server_that_asks_to_wait_for_longer_than_the_patience_ends_the_run(journal):
    """A daily limit: an hour's silence would look like a hang."""
    with FaultServer(fault=lambda body, nth: "429") as server:  # Retry-After: 1
        with pytest.raises(Stopped, match="asks to wait 1 s") as end:
            ask(make(server.url, patience=0.9), range(20), journal)
        assert end.value.status == 4 and len(server.asked) <= 16


@scene
def refusals_without_end_are_waited_for_up_to_the_patience(journal):
    with FaultServer(fault=lambda body, nth: "429", retry_after="ms") as server:
        with pytest.raises(Stopped, match="no good answer from .* for 2 s") as end:
            ask(make(server.url, patience=2), range(20), journal)
        assert end.value.status == 4 and len(server.asked) < 60


@scene
def a_wait_for_its_turn_is_no_failure(journal):
    """At 4 requests a second the last of 24 is sent after longer than the patience.

    One 500 then is one try of six.
    """

    def fault(body, nth):
        return "500" if prompt_of(body) == "23" and not nth else None

    with FaultServer(rpm=240, burst=8, limit_headers=True, fault=fault) as server:
        got = ask(make(server.url, 24, patience=3), range(24), journal)
        assert not any("error" in r for r in got) and server.refused <= 2


def test_web_pages_are_no_answers_and_cost_nothing(journal):
    """A wrong path or a login page, with status 200.

    300 rows must not be asked for six times each, nor eat the budget.
    """
    with FaultServer(fault=lambda body, nth: "html") as server:
        engine = make(server.url, budget=Budget("m", 1, 1, limit=5))
        with pytest.raises(Stopped, match="web page.*\n.*--base-url") as end:
            ask(engine, range(300), journal)
        assert (
            end.value.status == 4
            and len(server.asked) <= 40
            and engine.budget.lost == 0
            and journal.read_bytes() == b""
        )


def test_when_nothing_ever_comes_back_the_run_ends(journal):
    """Each may have been paid: 24 say enough. After one good answer it is a row's own matter."""
    with FaultServer(fault=lambda body, nth: "reset-inside") as server:
        with pytest.raises(Stopped, match="24 requests .* brought no answer"):
            ask(make(server.url), range(300), journal)
        assert len(server.asked) <= 40
    with FaultServer(
        fault=lambda body, nth: None if prompt_of(body) == "0" else "reset-inside"
    ) as server:
        got = ask(make(server.url, concurrency=1, tries=1), range(40), journal)
        assert [n for n, record in enumerate(got) if "error" not in record] == [0]


def test_the_first_200_are_those_that_came_first(journal):
    """Late answers must not lift a stopped run over the rule, nor another order of rows."""

    def fault(body, nth):
        return "verdictless" if int(prompt_of(body)) < 100 else None

    with FaultServer(fault=fault) as server:
        with pytest.raises(Stopped, match="cannot be used"):
            ask(make(server.url, 64), range(400), journal, bad_share=0.2, retries=0)
        ask(make(server.url), range(100, 390), journal)  # 290 good ones, later; ten are left to ask
        n = len(server.asked)
        for prompts in (range(400), range(399, -1, -1)):
            with pytest.raises(Stopped, match="of 200 rows cannot be used"):
                ask(make(server.url), prompts, journal, bad_share=0.2, retries=0)
        assert len(server.asked) == n


@pytest.mark.parametrize("key", ["x", "none", "EMPTY"])
def test_a_placeholder_of_a_key_is_no_secret(journal, monkeypatch, key):
    """Servers of one's own are asked with such; taken out of answers it would break their very
    field names ("te***t").
    """
    monkeypatch.setenv("OPENAI_API_KEY", key)
    text = "x is none, the set is EMPTY.\n\nConclusion: right [END]"
    with FaultServer(text=lambda body: text) as server:
        (record,) = ask(make(server.url), ["a"], journal)
    assert record["text"] == text


def test_a_key_in_an_answer_is_not_kept(journal, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer(text=lambda body: f"Your key is {KEY}.\n\nConclusion: right [END]") as server:
        (record,) = ask(make(server.url), ["a"], journal)
    assert record["text"].startswith("Your key is ***.") and KEY not in journal.read_text()


def test_a_second_run_says_that_nothing_is_asked(journal, capsys):
    with FaultServer() as server:
        ask(make(server.url), range(3), journal)
        ask(make(server.url), range(3), journal)
        assert "holds 3 answers" in capsys.readouterr().out and len(server.asked) == 3


# --- the journal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 5])
def test_an_answer_is_on_disk_before_its_worker_asks_again(journal, concurrency):
    """Good or bad: kill -9 at any moment loses what is in flight and nothing else."""
    seen = []

    def hook(body, nth):
        seen.append(journal.read_bytes().count(b"\n"))
        return "verdictless" if nth == 0 and int(prompt_of(body)) % 2 else None

    with FaultServer(fault=hook, latency=0.005) as server:
        ask(make(server.url, concurrency), range(30), journal)
    assert len(seen) == 45 and all(n > at - concurrency for at, n in enumerate(seen))


def test_other_concurrency_server_or_order_reuse_all_and_other_settings_nothing(journal):
    with FaultServer() as server, FaultServer() as other:
        first = ask(make(server.url), range(20), journal)
        assert (
            ask(make(other.url + "/", 3, 77), reversed(range(20)), journal) == first[::-1]
            and not other.asked
        )
        more = ask(make(server.url), range(5, 25), journal)
        assert more[:15] == first[5:] and server.paid() == 25
        for n, (model, sampling) in enumerate(
            [
                ("m2", Sampling(max_new_tokens=100)),
                ("m", Sampling(max_new_tokens=101)),
                ("m", Sampling(temperature=0.1, max_new_tokens=100)),
            ],
            1,
        ):
            ask(make(server.url, model=model), range(20), journal, sampling)
            assert server.paid() == 25 + 20 * n


def test_samples_never_share_and_equal_requests_are_paid_once(journal):
    with FaultServer() as server, Journal(journal) as records:
        requests = [Request("prompt", sample=k) for k in (0, 1, 2, 0, 1, 2)]
        got = complete(make(server.url), requests, Sampling(temperature=1.0, seed=1), records)
        assert server.paid() == 3 and got[:3] == got[3:] and len({r["key"] for r in got}) == 3
        assert len({r["text"] for r in got}) == 3  # each with a seed of its own
        complete(make(server.url), requests[:2], Sampling(temperature=1.0, seed=1), records)
        assert server.paid() == 3


def test_a_restart_asks_for_what_is_missing(journal):
    """Cut off in the middle of a line, between the attempts of a row, with lines that are no
    records.
    """
    with FaultServer(
        fault=lambda body, nth: "verdictless" if int(prompt_of(body)) < 5 and nth < 2 else None
    ) as server:
        whole = ask(make(server.url, 1), range(20), journal)
        lines = journal.read_bytes().splitlines(keepends=True)
        assert len(lines) == 30
        for kept, tail in ((1, b""), (2, lines[2][:30]), (16, b"[]\n"), (29, lines[29][:-1])):
            journal.write_bytes(b"".join(lines[:kept]) + tail)
            n = len(server.asked)
            server.fault = lambda body, nth: None  # what is asked again now is good at once
            got = ask(make(server.url), range(20), journal)
            assert not any("error" in r for r in got) and len(server.asked) - n <= 20
            assert [a == b for a, b in zip(timeless(got), timeless(whole))].count(False) <= 5
        assert len(server.asked) == n  # the last had all but a newline


# --- the connection -------------------------------------------------------------------------------


def test_the_limit_of_requests_in_flight_is_kept_and_used(journal):
    with FaultServer(latency=0.3) as server:
        ask(make(server.url, 24), range(80), journal)
        assert 16 <= server.peak <= 24


@scene
def a_request_has_its_time_in_all(journal):
    """A server that sends a byte now and then keeps any timeout between bytes at rest."""

    def drip(connection):
        connection.recv(65536)
        try:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
            )
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.1)
        except OSError:
            pass

    def listen(listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=[connection], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen, args=[listener], daemon=True).start()
        (record,) = ask(
            make(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout=0.5, tries=2),
            ["x"],
            journal,
        )
        listener.shutdown(socket.SHUT_RDWR)
    assert "--timeout" in record["error"] and journal.read_bytes() == b""


@scene
def a_server_that_goes_away_and_comes_back(journal):
    """For a second nobody listens: rows wait, no row fails, and no good answer is paid twice."""
    with FaultServer(latency=0.02) as server, ThreadPoolExecutor(1) as thread:
        running = thread.submit(ask, make(server.url, 10), range(100), journal)
        while server.paid() < 50:
            time.sleep(0.01)
        server.stop()
        time.sleep(1)
        n = len(server.asked)
        server.start(port=server.port)
        got = running.result(timeout=60)
        assert (
            not any("error" in r for r in got)
            and len(server.asked) > n
            and server.stats()["paid_twice"] == 0
        )
        assert server.paid() <= 100 + 10


@scene
def a_server_that_does_not_come_back(journal):
    with FaultServer(latency=0.02) as server, ThreadPoolExecutor(1) as thread:
        running = thread.submit(ask, make(server.url, 10, patience=1.5), range(1000), journal)
        while server.paid() < 50:
            time.sleep(0.01)
        server.stop()
        with pytest.raises(Stopped, match="no good answer from .* for") as end:
            running.result(timeout=60)
        assert end.value.status == 4 and len(rows(journal)) >= 40


@scene
def nobody_there_is_said_within_seconds(journal):
    """For one row as for fifty: four refused connections are no reason to wait for the patience."""

    def one(n):
        with pytest.raises(Stopped, match="4 requests to .* brought no answer") as end:
            ask(make(url), range(n), journal.with_name(f"{n}.jsonl"))
        return end.value

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with ThreadPoolExecutor(2) as threads:
        assert all(
            end.status == 4 and "--base-url" in str(end) for end in threads.map(one, (1, 50))
        )


def test_the_environment_names_server_and_key(journal, monkeypatch):
    """--base-url wins over OPENAI_BASE_URL; a proxy of the environment sees no request to this
    machine, and no key.
    """
    with FaultServer() as server, FaultServer() as other:
        monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")  # as a file read into a variable may be
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        ask(make(None), ["a"], journal)
        ask(make(other.url), ["b"], journal)
        assert [e["prompt"] for e in server.asked] == ["a"] and [
            e["prompt"] for e in other.asked
        ] == ["b"]
        assert server.asked[0]["key"] == f"Bearer {KEY}" and KEY not in journal.read_text()


@pytest.mark.parametrize(
    "model, key, mend",
    [
        (None, "sk-1", "--model"),
        ("m", "", "--base-url"),
        *(("m", key, "OPENAI_API_KEY") for key in ("sk-1\nsk-2", "sk-ключ", "sk 1")),
    ],
)
def test_what_cannot_be_sent_is_refused_before(journal, monkeypatch, model, key, mend):
    """No model, no key, or a key that no HTTP header can hold."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match=mend) as error:
        ask(make(None, model=model), ["a"], journal)
    assert error.value.status == 2 and (not key or key not in str(error.value))


def test_in_a_notebook_and_in_another_thread(journal):
    """A notebook's thread has an event loop that runs; a thread that is not the main one may set no
    signal handler.
    """

    async def cell():
        return ask(make(server.url), range(10), journal.with_name("cell.jsonl"))

    with FaultServer() as server:
        got = asyncio.run(cell())
        with ThreadPoolExecutor(1) as thread:
            assert timeless(got) == timeless(
                thread.submit(ask, make(server.url), range(10), journal).result()
            )
        assert not any("error" in r for r in got)


def test_a_fault_of_ours_ends_the_run_and_is_seen(journal):
    """An exception in the check of a text.

    Not swallowed by a worker, and what was answered stays.
    """

    def check(text):
        raise ZeroDivisionError("ours")

    with FaultServer() as server, Journal(journal) as records, pytest.raises(ZeroDivisionError):
        complete(
            make(server.url),
            [Request(f"p {n}", check=check) for n in range(30)],
            Sampling(),
            records,
        )
    assert 1 <= len(rows(journal)) == server.paid() <= 30


@pytest.fixture(scope="module")
def played(request, tmp_path_factory):
    """All scenes that were asked for, at once. -> {scene: its future}"""
    plays = [
        i.callspec.params["play"]
        for i in request.session.items
        if i.path == request.path and "played" in i.fixturenames
    ]
    with ThreadPoolExecutor(5) as threads:
        return {
            play: threads.submit(play, tmp_path_factory.mktemp("scene") / "j.jsonl")
            for play in plays
        }


@pytest.mark.parametrize("play", SCENES, ids=lambda play: play.__name__)
def test_scene(played, play):
    played[play].result()
