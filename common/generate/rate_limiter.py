"""When the next request may be sent: one door that all workers of a client pass."""

import asyncio
import random
import time
from contextlib import suppress

from common.generate.budget import Budget

FIRST_LIMIT = 8  # requests in flight until one is answered


class TokenBucket:
    """A rate limit from the server's headers; 95 % of it are used. It fills with time.

    level: what may be taken now; rate: what comes back in a second; capacity: its most.
    """

    def __init__(self, level: float):
        self.level = self.capacity = level
        self.rate = 0.0
        self.updated = time.monotonic()

    def wait(self, now: float) -> float:
        """Return the seconds until something may be taken.

        A request may take more than there is: the next one then waits for the debt.
        """
        filled = self.level + (now - self.updated) * self.rate
        self.level = min(self.capacity, filled)
        self.updated = now
        return 0.0 if self.level > 0 else -self.level / self.rate + 0.001


class RateLimiter:
    """At most `limit` requests in flight, none in a pause, no faster than the headers allow.

    The first few requests go alone: a wrong key costs few of them, and the limits come with the
    first answer. A refusal (429, overload) pauses all workers as long as the server asked, and
    cuts the limit to 0.7 of what was in flight. Each round of answers lets it grow by a quarter.
    """

    def __init__(self, ceiling: int, budget: Budget):
        self.ceiling, self.budget = ceiling, budget
        self.limit = min(ceiling, FIRST_LIMIT)
        self.in_flight = 0
        self.closed = False
        self.slowed = False  # a refusal has been seen
        self.refusals = 0  # since the last answer
        self.pause_began = self.paused_until = self.next_send = 0.0
        self.latency = 1.0  # of an answer, in seconds, at most 1
        self.buckets: dict[str, TokenBucket] = {}
        self.turn = asyncio.Lock()
        self.changed = asyncio.Event()  # a request has left, the limit has grown, or it is closed

    async def enter(self, tokens: int, usd: float) -> bool:
        """Wait for the turn. Return False if nothing more is sent; else `leave` must be called.

        tokens: the request's share of a token limit; usd: its worst cost, reserved until `leave`.
        """
        async with self.turn:  # in the order they came
            while not self.closed:
                if not self.in_flight and usd > self.budget.remaining():
                    self.closed = True  # those in flight may cost less than they reserved
                    break
                now = time.monotonic()
                seconds = self._seconds_to_wait(now, usd)
                if seconds == 0:
                    self._take(now, tokens, usd)
                    return True
                self.changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self.changed.wait()
        return False

    def leave(self, usd: float):
        self.in_flight -= 1
        self.budget.reserved -= usd
        self.changed.set()

    def close(self):
        """Send all away who wait, now and later."""
        self.closed = True
        self.changed.set()

    def _seconds_to_wait(self, now, usd):
        """Return the seconds until another request may go, None: until one has left."""
        if self.in_flight >= self.limit or usd > self.budget.remaining():
            return None
        waits = [bucket.wait(now) for bucket in self.buckets.values()]
        return max(0.0, self.paused_until - now, self.next_send - now, *waits)

    def _take(self, now, tokens, usd):
        self.in_flight += 1
        self.budget.reserved += usd
        for name, bucket in self.buckets.items():
            bucket.level -= tokens if name == "tokens" else 1
        if self.slowed:  # no burst: the limit is spread over the time of an answer
            self.next_send = now + self.latency / self.limit

    def succeeded(self, seconds: float = 1.0):
        """Note an answer that took so many seconds: more requests may be in flight."""
        self.refusals = 0
        self.latency = 0.9 * self.latency + 0.1 * min(seconds, 1.0)
        self.limit = min(self.ceiling, self.limit + max(4 / self.limit, 0.25))
        self.open_wide()

    def open_wide(self):
        """Let all go, unless there was a refusal."""
        if not self.slowed:
            self.limit = self.ceiling
            self.changed.set()

    def refused(self, sent: float, seconds: float | None):
        """Pause: the server refused what was sent at `sent` (time.monotonic).

        seconds: as long as the server asked, or None. Refusals of requests that were on their way
        when the pause began are the same refusal.
        """
        now = time.monotonic()
        if sent >= self.pause_began:
            self.pause_began = now
            self.slowed = True
            self.limit = max(1.0, 0.7 * min(self.limit, self.in_flight))
            self.refusals += 1
            if seconds is None:
                doubled = 0.5 * 2.0 ** (self.refusals - 1)
                seconds = min(60.0, doubled) * random.uniform(0.75, 1.25)
        self.paused_until = max(self.paused_until, now + (seconds or 0.0))

    def observe(self, headers):
        """Read x-ratelimit-limit-* and -remaining-* (requests and tokens, per minute)."""
        for name, uncounted in (("requests", self.in_flight), ("tokens", 0)):
            try:
                limit = float(headers.get(f"x-ratelimit-limit-{name}"))
                remaining = float(headers.get(f"x-ratelimit-remaining-{name}"))
            except (TypeError, ValueError):
                continue
            if not (0 < limit <= 1e12 and 0 <= remaining <= 1e12):
                continue  # headers are a stranger's
            if name not in self.buckets:  # `remaining` may not count what is in flight
                self.buckets[name] = TokenBucket(remaining - uncounted)
            bucket = self.buckets[name]
            bucket.rate = 0.95 * limit / 60
            bucket.capacity = max(bucket.capacity, remaining)
            bucket.level = min(bucket.level, remaining)  # others may share the limit
