"""The one door that all requests pass: pauses, a limit that is cut and grows, pacing by headers; by hand and before a server."""

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.generate.budget import Budget
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.rate_limiter import TokenBucket, RateLimiter
from common.generate.requests import Request, Sampling, complete
from tests.faults import FaultServer

# --- the bucket -----------------------------------------------------------------------------------------------------


def bucket(level, rate, most=None):
    made = TokenBucket(level)
    made.rate, made.most = rate, most or level
    return made, made.at  # and now


def test_a_bucket_fills_with_time_up_to_its_size():
    """By hand: 2 a second, at most 10."""
    made, now = bucket(10, 2.0)
    made.level = -3
    assert made.wait(now) == pytest.approx(1.5, abs=0.01)
    assert made.wait(now + 1) == pytest.approx(0.5, abs=0.01) and made.level == pytest.approx(-1)
    assert made.wait(now + 2) == 0 and made.level == pytest.approx(1)
    assert made.wait(now + 1000) == 0 and made.level == 10


def test_what_is_larger_than_the_bucket_still_goes():
    """A request of more tokens than the limit allows a minute must not wait for ever: its debt is waited for after it."""
    made, now = bucket(5, 1.0)
    assert made.wait(now) == 0
    made.level -= 100
    assert made.wait(now) == pytest.approx(95, abs=0.01)
    assert made.wait(now + 95.1) == 0


# --- the gate, by hand ----------------------------------------------------------------------------------------------

FREE = Budget("a model of one's own")


def test_the_first_few_go_alone_until_one_is_answered():
    """A wrong key or URL should cost few requests; a limit below that holds anyhow."""
    gate = RateLimiter(100, FREE)
    assert gate.limit == 8 and RateLimiter(3, FREE).limit == 3
    gate.answered()
    assert gate.limit == 100


def test_a_refusal_cuts_to_seven_tenths_of_what_was_in_flight_and_answers_let_it_grow():
    gate = RateLimiter(100, FREE)
    gate.answered()
    gate.in_flight = 50
    gate.refused(time.monotonic(), 1.0)
    assert gate.limit == pytest.approx(35)
    for _ in range(35):
        gate.answered()
    assert 38 < gate.limit < 45
    for _ in range(10_000):
        gate.answered()
    assert gate.limit == 100
    for _ in range(100):  # nothing in flight, refused again and again: one still goes
        gate.in_flight = 0
        gate.refused(time.monotonic(), 0.0)
    assert gate.limit == 1


def test_those_on_their_way_when_a_pause_began_cut_once():
    """50 refusals of one moment are one refusal: cut 50 times, a run would crawl for minutes."""
    gate = RateLimiter(100, FREE)
    gate.answered()
    gate.in_flight, sent = 50, time.monotonic()
    for _ in range(50):
        gate.refused(sent, 1.0)
    assert gate.limit == pytest.approx(35) and gate.refusals == 1
    until = gate.paused_until
    gate.refused(sent, 5.0)  # but who asks for longer gets it,
    assert gate.paused_until > until + 3 and gate.refusals == 1
    until = gate.paused_until
    gate.refused(sent, 0.5)  # and who asks for less takes nothing away
    assert gate.paused_until == until


def test_without_a_word_the_pause_doubles_to_a_minute():
    """0.5, 1, 2, ... 60 s, a quarter more or less; an answer in between begins anew."""
    gate, pauses = RateLimiter(100, FREE), []
    for _ in range(12):
        gate.paused_until = 0.0
        gate.refused(time.monotonic(), None)
        pauses.append(gate.paused_until - time.monotonic())
    for n, seconds in enumerate(pauses):
        assert 0.7 * min(60, 0.5 * 2**n) < seconds < 1.3 * min(60, 0.5 * 2**n)
    gate.answered()
    gate.paused_until = 0.0
    gate.refused(time.monotonic(), None)
    assert gate.paused_until - time.monotonic() < 0.7


def headers(limit, remaining, name="requests"):
    return {f"x-ratelimit-limit-{name}": limit, f"x-ratelimit-remaining-{name}": remaining}


def test_headers_make_buckets():
    """By hand: 600 a minute at 95 % are 9.5 a second. What others take of a shared limit is gone."""
    gate = RateLimiter(100, FREE)
    gate.in_flight = 3
    gate.observe(headers("600", "20") | headers("6000", "500", "tokens"))
    assert gate.buckets["requests"].rate == pytest.approx(9.5) and gate.buckets[
        "tokens"
    ].rate == pytest.approx(95)
    assert gate.buckets["requests"].level == 17 and gate.buckets["tokens"].level == 500
    gate.observe(headers("600", "4"))
    assert gate.buckets["requests"].level == 4
    gate.observe(
        headers("600", "50")
    )  # that much may be left for somebody who came before; time fills it
    assert gate.buckets["requests"].level == 4 and gate.buckets["requests"].most == 50
    gate.observe(headers("60", "4"))  # a limit may change
    assert gate.buckets["requests"].rate == pytest.approx(0.95)


@pytest.mark.parametrize(
    "hostile",
    [
        {},
        *(
            headers(*pair)
            for pair in [
                ("0", "0"),
                ("many", "5"),
                ("600", "few"),
                ("600", None),
                (None, "5"),
                ("-600", "5"),
                ("600", "-5"),
                ("nan", "nan"),
                ("inf", "5"),
                ("1e99", "5"),
                ("600", "1e99"),
                ("", ""),
            ]
        ),
    ],
)
def test_headers_that_make_no_sense_are_left_out(hostile):
    """A rate of 0, a NaN or a negative limit would stop every request, or none, for good."""
    gate = RateLimiter(100, FREE)
    gate.observe(hostile)
    assert gate.buckets == {}


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 10))


def test_no_more_than_the_limit_in_the_order_they_came():
    async def scene():
        gate, going = RateLimiter(3, FREE), []

        async def one(n):
            assert await gate.enter(1, 0.0)
            going.append(n)
            assert gate.in_flight <= 3
            await asyncio.sleep(0.01)
            gate.leave(0.0)

        await asyncio.gather(*map(one, range(12)))
        return gate, going

    gate, going = run(scene())
    assert going == list(range(12)) and gate.in_flight == 0


def test_nobody_enters_in_a_pause_and_then_they_come_one_by_one():
    """After a pause a burst would be refused again: a limit's worth of requests is spread over a second."""

    async def scene():
        gate, times = RateLimiter(8, FREE), []
        gate.in_flight = 8
        gate.refused(time.monotonic(), 0.4)  # the limit is then 5.6
        gate.in_flight = 0
        began = time.monotonic()
        for _ in range(4):
            assert await gate.enter(1, 0.0)
            times.append(time.monotonic() - began)
        return times

    times = run(scene())
    assert (
        times[0] >= 0.39 and all(b - a > 0.15 for a, b in zip(times, times[1:])) and times[-1] < 3
    )


def test_a_gate_that_closes_sends_all_away():
    """Who waits, for whatever, and who comes later: a run that ends must not hang on one of them."""

    async def scene():
        gate = RateLimiter(1, FREE)
        gate.refused(time.monotonic(), 300.0)
        waiting = [asyncio.create_task(gate.enter(1, 0.0)) for _ in range(5)]
        await asyncio.sleep(0.01)
        gate.close()
        return await asyncio.gather(*waiting, gate.enter(1, 0.0)), gate

    entered, gate = run(scene())
    assert entered == [False] * 6 and gate.in_flight == 0 and not gate.broke


def test_who_gave_up_waiting_holds_no_place():
    async def scene():
        gate = RateLimiter(1, FREE)
        assert await gate.enter(1, 0.0)
        gone, stays = (asyncio.create_task(gate.enter(1, 0.0)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        gate.leave(0.0)
        return await stays, gate.in_flight

    assert run(scene()) == (True, 1)


def test_a_budget_is_never_passed_whatever_comes_back():
    """Each holds its worst case; what it then cost is spent before the next is let in. Never below nothing, at any moment."""

    async def scene(seed):
        rng = random.Random(seed)
        budget = Budget("m", 1, 1, limit=10.0)
        gate = RateLimiter(20, budget)
        gate.answered()

        async def one(usd):
            while await gate.enter(1, usd):
                assert budget.left() >= -1e-9
                await asyncio.sleep(rng.uniform(0, 0.002))
                lost = rng.random() < 0.3
                budget.lost, budget.spent = (
                    budget.lost + usd * lost,
                    budget.spent + usd * rng.random() * (not lost),
                )
                gate.leave(
                    usd
                )  # as the engine does: what came of a request is noted before its place is given to another
                if not lost:
                    return

        await asyncio.gather(*(one(rng.uniform(0.1, 1.0)) for _ in range(60)))
        return gate, budget

    for seed in range(5):
        gate, budget = run(scene(seed))
        assert (
            gate.broke
            and 8.9 < budget.spent + budget.lost <= 10 + 1e-9
            and budget.out == pytest.approx(0)
        )


# --- before a server with a rate limit ------------------------------------------------------------------------------


def ask(server, folder, n=150, concurrency=64):
    """-> the records of n prompts."""
    with Journal(folder / f"{server.port}.jsonl") as journal:
        return complete(
            Client("m", server.url, concurrency),
            [Request(f"prompt {i}") for i in range(n)],
            Sampling(),
            journal,
        )


def rated(folder, n, burst, retry_after, with_headers):
    """n prompts at 6,000 requests a minute. -> (records, the server's stats)"""
    with FaultServer(
        rpm=6000, burst=burst, limit_headers=with_headers, retry_after=retry_after, latency=0.05
    ) as server:
        return ask(server, folder, n), server.stats()


def at_a_rate_limit(tmp_path, with_headers, n, burst, refused, forms):
    """By headers next to nothing is refused; without them, a share that the cuts bound, however the server says when to come
    back. No refusal is counted against a row."""
    with ThreadPoolExecutor(4) as threads:
        for got, stats in threads.map(
            lambda form: rated(tmp_path, n, burst, form, with_headers), forms
        ):
            assert (
                not any("error" in record for record in got)
                and stats["paid"] == n
                and stats["paid_twice"] == 0
            )
            assert stats["refused"] / stats["asked"] <= refused, stats


def test_every_prompt_is_answered_at_a_rate_limit_by_headers(tmp_path):
    at_a_rate_limit(tmp_path, True, 200, 60, 0.05, ("seconds", None))


def test_every_prompt_is_answered_at_a_rate_limit_without_headers(tmp_path):
    at_a_rate_limit(tmp_path, False, 80, 15, 0.45, ("seconds", "ms", "date", None))


def refused_shares(folder):
    """A limit of tokens, of which each request takes 1/20; and a limit of requests that another run shares, where each sees in
    the headers what the other took. -> the share of requests that was refused, of each"""
    folder.mkdir()
    with (
        FaultServer(tpm=6_000_000, limit_headers=True, latency=0.02) as of_tokens,
        FaultServer(rpm=6000, burst=30, limit_headers=True, latency=0.05) as shared,
        ThreadPoolExecutor(3) as threads,
    ):
        of_tokens._buckets["tokens"].size = of_tokens._buckets["tokens"].level = (
            20 * 2_100
        )  # no minute's worth
        tasks = [threads.submit(ask, of_tokens, folder / "tokens", 60)]
        tasks += [threads.submit(ask, shared, folder / name, 50) for name in ("one", "other")]
        assert not any("error" in record for task in tasks for record in task.result())
        return [server.refused / len(server.asked) for server in (of_tokens, shared)]


def test_other_limits(tmp_path):
    """Without a look at the headers a third of both is refused. Three times at most: where the machine stands still, so do the
    clocks by which both sides fill their buckets."""
    assert any(
        tokens < 0.2 and shared < 0.28
        for tokens, shared in (refused_shares(tmp_path / str(n)) for n in range(3))
    )


def uses_up_no_try(tmp_path):
    """Three 429s in a row for a prompt, of an engine that tries twice."""
    with FaultServer(
        fault=lambda body, nth: "429" if nth < 3 else None, retry_after="ms"
    ) as server:
        engine = Client("m", server.url, 4)
        engine.tries = 2
        with Journal(tmp_path / "j.jsonl") as journal:
            (record,) = complete(engine, [Request("prompt")], Sampling(), journal)
        assert "error" not in record and len(server.asked) == 4


def pauses_everybody(tmp_path, fault):
    """The first answer asks for a second's rest while 11 others are on their way or wait: none of these may follow. It comes
    when the first eight have come, however long that takes, and their answers well after it."""
    server, refused = (
        FaultServer(
            fault=lambda body, nth: fault if body["prompt"] == "prompt 0" and nth == 0 else None
        ),
        [],
    )
    answer = server._completion

    async def in_this_order(request):
        response = await answer(request)
        while len(server.asked) < 8 or response.status == 200 and not refused:
            await asyncio.sleep(0.01)
        if response.status == 200:
            await asyncio.sleep(refused[0] + 0.7 - time.monotonic())
        else:
            refused.append(time.monotonic())
        return response

    server._completion = in_this_order
    with server:
        got = ask(server, tmp_path, 12, 12)
        times = sorted(entry["at"] for entry in server.asked)
        assert not any("error" in record for record in got) and len(times) == 13
        assert (
            times[7] <= refused[0] and times[8] >= refused[0] + 0.95
        )  # the first eight, and then the pause


def test_a_refusal_pauses_everybody_and_uses_up_no_try(tmp_path):
    """Three scenes that mostly wait, at once."""
    with ThreadPoolExecutor(3) as threads:
        scenes = [
            threads.submit(pauses_everybody, tmp_path, fault) for fault in ("429", "overloaded")
        ]
        scenes.append(threads.submit(uses_up_no_try, tmp_path))
        for scene in scenes:
            scene.result()
