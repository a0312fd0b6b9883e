"""The door that all requests pass: pauses, a limit that is cut and grows, pacing by headers.

First by hand, with times that are given; then before a server.
"""

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.generate.budget import Budget
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.rate_limiter import RateLimiter, TokenBucket
from common.generate.requests import Request, Sampling, complete
from tests.faults import FaultServer

# --- the bucket -----------------------------------------------------------------------------------


def make_bucket(level, rate, capacity=None):
    """Return a bucket, and the time at which it has this level."""
    bucket = TokenBucket(level)
    bucket.rate, bucket.capacity = rate, capacity or level
    return bucket, bucket.updated


def test_a_bucket_fills_with_time_up_to_its_capacity():
    """By hand: 2 a second, at most 10."""
    bucket, now = make_bucket(10, 2.0)
    bucket.level = -3
    assert bucket.wait(now) == pytest.approx(1.5, abs=0.01)
    assert bucket.wait(now + 1) == pytest.approx(0.5, abs=0.01)
    assert bucket.level == pytest.approx(-1)
    assert bucket.wait(now + 2) == 0 and bucket.level == pytest.approx(1)
    assert bucket.wait(now + 1000) == 0 and bucket.level == 10


def test_a_request_that_is_larger_than_the_bucket_still_goes():
    """More tokens than the limit allows a minute must not wait for ever: the next one waits."""
    bucket, now = make_bucket(5, 1.0)
    assert bucket.wait(now) == 0
    bucket.level -= 100
    assert bucket.wait(now) == pytest.approx(95, abs=0.01)
    assert bucket.wait(now + 95.1) == 0


# --- the limiter, by hand -------------------------------------------------------------------------

FREE = Budget("a model of one's own")


def test_the_first_few_go_alone_until_one_is_answered():
    """A wrong key or URL should cost few requests; a limit below that holds anyhow."""
    limiter = RateLimiter(100, FREE)
    assert limiter.limit == 8 and RateLimiter(3, FREE).limit == 3
    limiter.succeeded()
    assert limiter.limit == 100


def test_a_refusal_cuts_to_seven_tenths_of_what_was_in_flight_and_answers_let_it_grow():
    limiter = RateLimiter(100, FREE)
    limiter.succeeded()
    limiter.in_flight = 50
    limiter.refused(time.monotonic(), 1.0)
    assert limiter.limit == pytest.approx(35)
    for _ in range(35):
        limiter.succeeded()
    assert 38 < limiter.limit < 45
    for _ in range(10_000):
        limiter.succeeded()
    assert limiter.limit == 100
    for _ in range(100):  # nothing in flight, refused again and again: one still goes
        limiter.in_flight = 0
        limiter.refused(time.monotonic(), 0.0)
    assert limiter.limit == 1


def test_requests_on_their_way_when_a_pause_began_cut_once():
    """50 refusals of one moment are one refusal: cut 50 times, a run would crawl for minutes."""
    limiter = RateLimiter(100, FREE)
    limiter.succeeded()
    limiter.in_flight, sent = 50, time.monotonic()
    for _ in range(50):
        limiter.refused(sent, 1.0)
    assert limiter.limit == pytest.approx(35) and limiter.refusals == 1
    until = limiter.paused_until
    limiter.refused(sent, 5.0)  # a longer pause counts,
    assert limiter.paused_until > until + 3 and limiter.refusals == 1
    until = limiter.paused_until
    limiter.refused(sent, 0.5)  # a shorter one takes nothing away
    assert limiter.paused_until == until


def test_if_the_server_names_no_time_the_pause_doubles_to_a_minute():
    """0.5, 1, 2, ... 60 s, a quarter more or less; an answer in between begins anew."""
    limiter = RateLimiter(100, FREE)
    for n in range(12):
        limiter.paused_until = 0.0
        limiter.refused(time.monotonic(), None)
        seconds = limiter.paused_until - limiter.pause_began
        expected = min(60, 0.5 * 2**n)
        assert 0.75 * expected <= seconds <= 1.25 * expected + 0.01
    limiter.succeeded()
    limiter.paused_until = 0.0
    limiter.refused(time.monotonic(), None)
    assert limiter.paused_until - limiter.pause_began < 0.7


def make_headers(limit, remaining, name="requests"):
    return {f"x-ratelimit-limit-{name}": limit, f"x-ratelimit-remaining-{name}": remaining}


def test_headers_make_buckets():
    """By hand: 600 a minute at 95 % are 9.5 a second. What others take of a limit is gone."""
    limiter = RateLimiter(100, FREE)
    limiter.in_flight = 3
    limiter.observe(make_headers("600", "20") | make_headers("6000", "500", "tokens"))
    requests, tokens = limiter.buckets["requests"], limiter.buckets["tokens"]
    assert requests.rate == pytest.approx(9.5) and tokens.rate == pytest.approx(95)
    assert requests.level == 17 and tokens.level == 500
    limiter.observe(make_headers("600", "4"))
    assert requests.level == 4
    limiter.observe(make_headers("600", "50"))  # as an earlier request saw it; time fills the level
    assert requests.level == 4 and requests.capacity == 50
    limiter.observe(make_headers("60", "4"))  # a limit may change
    assert requests.rate == pytest.approx(0.95)


def test_headers_that_make_no_sense_are_left_out():
    """A rate of 0, a NaN or a negative limit would stop every request, or none, for good."""
    pairs = [
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
    for headers in [{}, *(make_headers(*pair) for pair in pairs)]:
        limiter = RateLimiter(100, FREE)
        limiter.observe(headers)
        assert limiter.buckets == {}, headers


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def let_others_run():
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_more_than_the_limit_in_the_order_they_came():
    async def play():
        limiter, order = RateLimiter(3, FREE), []

        async def work(n):
            assert await limiter.enter(1, 0.0)
            order.append(n)
            assert limiter.in_flight <= 3
            await let_others_run()
            limiter.leave(0.0)

        await asyncio.gather(*map(work, range(12)))
        return limiter, order

    limiter, order = run(play())
    assert order == list(range(12)) and limiter.in_flight == 0


def test_nobody_enters_in_a_pause_and_then_they_come_one_by_one():
    """After a pause a burst would be refused again: a limit's worth is spread over a second."""

    async def play():
        limiter, times = RateLimiter(8, FREE), []
        limiter.in_flight = 8
        limiter.refused(time.monotonic(), 0.4)  # the limit is then 5.6
        limiter.in_flight = 0
        for _ in range(4):
            assert await limiter.enter(1, 0.0)
            times.append((time.monotonic(), limiter.next_send))
        return limiter.paused_until, times

    until, times = run(play())
    assert times[0][0] >= until - 0.01
    for (_, next_send), (entered, _) in zip(times, times[1:]):
        assert entered >= next_send - 0.01
    steps = [later - earlier for (_, earlier), (_, later) in zip(times, times[1:])]
    assert all(step > 0.15 for step in steps)


def test_a_limiter_that_closes_sends_all_away():
    """Who waits, and who comes later: a run that ends must not hang on one of them."""

    async def play():
        limiter = RateLimiter(1, FREE)
        limiter.refused(time.monotonic(), 300.0)
        waiting = [asyncio.create_task(limiter.enter(1, 0.0)) for _ in range(5)]
        await let_others_run()
        limiter.close()
        return await asyncio.gather(*waiting, limiter.enter(1, 0.0)), limiter

    entered, limiter = run(play())
    assert entered == [False] * 6 and limiter.in_flight == 0


def test_a_worker_that_gave_up_waiting_holds_no_place():
    async def play():
        limiter = RateLimiter(1, FREE)
        assert await limiter.enter(1, 0.0)
        first, second = (asyncio.create_task(limiter.enter(1, 0.0)) for _ in range(2))
        await let_others_run()
        first.cancel()
        limiter.leave(0.0)
        return await second, limiter.in_flight

    assert run(play()) == (True, 1)


def test_a_budget_is_never_passed():
    """Each holds its worst case; its cost is spent before the next is let in. Never below 0."""

    async def play(seed):
        rng = random.Random(seed)
        budget = Budget("m", 1, 1, limit=10.0)
        limiter = RateLimiter(20, budget)
        limiter.succeeded()

        async def work(usd):
            while await limiter.enter(1, usd):
                assert budget.remaining() >= -1e-9
                await asyncio.sleep(rng.uniform(0, 0.002))
                lost = rng.random() < 0.3
                if lost:
                    budget.lost += usd
                else:
                    budget.spent += usd * rng.random()
                limiter.leave(usd)  # after its cost is noted, as the client does
                if not lost:
                    return

        await asyncio.gather(*(work(rng.uniform(0.1, 1.0)) for _ in range(60)))
        return limiter, budget

    for seed in range(5):
        limiter, budget = run(play(seed))
        assert limiter.closed and 8.9 < budget.spent + budget.lost <= 10 + 1e-9
        assert budget.reserved == pytest.approx(0)


# --- before a server with a rate limit ------------------------------------------------------------


def ask(server, folder, n=150, concurrency=64):
    """Return the records of n prompts."""
    requests = [Request(f"prompt {i}") for i in range(n)]
    with Journal(folder / f"{server.port}.jsonl") as journal:
        return complete(Client("m", server.url, concurrency), requests, Sampling(), journal)


def ask_at_a_rate_limit(folder, n, burst, has_headers, retry_afters):
    """Ask n prompts at 6,000 requests a minute, once for each form of Retry-After, at once.

    Return the largest share that was refused. No refusal is counted against a row.
    """

    def play(retry_after):
        with FaultServer(
            rpm=6000, burst=burst, limit_headers=has_headers, retry_after=retry_after, latency=0.05
        ) as server:
            records, stats = ask(server, folder, n), server.stats()
        assert not any("error" in record for record in records)
        assert stats["paid"] == n and stats["paid_twice"] == 0
        return stats["refused"] / stats["asked"]

    with ThreadPoolExecutor(4) as threads:
        return max(threads.map(play, retry_afters))


def test_every_prompt_is_answered_at_a_rate_limit_by_headers(tmp_path):
    """Next to nothing is refused. Three tries: if the machine stops, so do both clocks."""
    for n in range(3):
        (tmp_path / str(n)).mkdir()
        share = ask_at_a_rate_limit(tmp_path / str(n), 200, 60, True, ("seconds", None))
        if share <= 0.05:
            return
    pytest.fail(f"{share:.0%} were refused")


def test_every_prompt_is_answered_at_a_rate_limit_without_headers(tmp_path):
    """The cuts bound the share that is refused, in every form of Retry-After."""
    assert ask_at_a_rate_limit(tmp_path, 80, 15, False, ("seconds", "ms", "date", None)) <= 0.45


def refused_shares(folder):
    """Return the shares of requests that two servers refused.

    The one limits tokens, of which each request takes 1/20. The other limits requests, and another
    run shares the limit: each sees in the headers what the other took.
    """
    folder.mkdir()
    with (
        FaultServer(tpm=6_000_000, limit_headers=True, latency=0.02) as of_tokens,
        FaultServer(rpm=6000, burst=30, limit_headers=True, latency=0.05) as shared,
        ThreadPoolExecutor(3) as threads,
    ):
        bucket = of_tokens._buckets["tokens"]
        bucket.size = bucket.level = 20 * 2_100  # no minute's worth
        running = [threads.submit(ask, of_tokens, folder / "tokens", 60)]
        running += [threads.submit(ask, shared, folder / name, 50) for name in ("a", "b")]
        for future in running:
            assert not any("error" in record for record in future.result())
        return [server.refused / len(server.asked) for server in (of_tokens, shared)]


def test_other_limits(tmp_path):
    """Without a look at the headers a third of both is refused.

    Three times at most: if the machine stands still, so do the clocks by which both sides fill
    their buckets.
    """
    for n in range(3):
        tokens, shared = refused_shares(tmp_path / str(n))
        if tokens < 0.2 and shared < 0.28:
            return
    pytest.fail(f"refused: {tokens:.0%} at a limit of tokens, {shared:.0%} at a shared limit")


def test_a_refusal_uses_up_no_try(tmp_path):
    """Three 429s in a row for a prompt, of an engine that tries twice."""
    with FaultServer(
        fault=lambda body, nth: "429" if nth < 3 else None, retry_after="ms"
    ) as server:
        engine = Client("m", server.url, 4)
        engine.tries = 2
        with Journal(tmp_path / "j.jsonl") as journal:
            (record,) = complete(engine, [Request("prompt")], Sampling(), journal)
        assert "error" not in record and len(server.asked) == 4


@pytest.mark.parametrize("fault", ["429", "overloaded"])
def test_a_refusal_pauses_everybody(tmp_path, fault):
    """The first answer asks for a second's rest while 11 others are on their way or wait.

    None of these may follow. It comes when the first eight have come, however long that takes, and
    their answers well after it.
    """

    def first_is_refused(body, nth):
        return fault if body["prompt"] == "prompt 0" and nth == 0 else None

    server, refused = FaultServer(fault=first_is_refused), []
    answer = server._completion

    async def in_this_order(request):
        response = await answer(request)
        while len(server.asked) < 8 or (response.status == 200 and not refused):
            await asyncio.sleep(0.01)
        if response.status == 200:
            await asyncio.sleep(refused[0] + 0.7 - time.monotonic())
        else:
            refused.append(time.monotonic())
        return response

    server._completion = in_this_order
    with server:
        records = ask(server, tmp_path, 12, 12)
        times = sorted(entry["at"] for entry in server.asked)
    assert not any("error" in record for record in records) and len(times) == 13
    assert times[7] <= refused[0]  # the first eight,
    assert times[8] >= refused[0] + 0.95  # and then the pause
