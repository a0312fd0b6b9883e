"""When the next request may be sent: one door that all workers of a client pass."""

import asyncio
import random
import time
from collections import deque

from common.generate.budget import Budget


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

    def __init__(self, ceiling: int, budget: Budget, first: int = 8):
        self.ceiling, self.budget = ceiling, budget
        self.limit = min(ceiling, first)
        self.in_flight = 0
        self.closed = False
        self.slowed = False  # a refusal has been seen
        self.refusals = 0  # since the last answer
        self.pause_began = self.paused_until = self.next_send = 0.0
        self.latency = 1.0  # of an answer, in seconds, at most 1
        self.buckets: dict[str, TokenBucket] = {}
        self.waiting = deque()
        self._timer = None

    async def enter(self, tokens: int, usd: float) -> bool:
        """Wait for the turn. Return False if nothing more is sent; else `leave` must be called.

        tokens: the request's share of a token limit; usd: its worst cost, reserved until `leave`.
        """
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append((turn, tokens, usd))
        self._admit()
        return await turn

    def leave(self, usd: float):
        self.in_flight -= 1
        self.budget.reserved -= usd
        self._admit()

    def close(self):
        """Send all away who wait, now and later."""
        self.closed = True
        self._admit()

    def seconds_to_wait(self, now: float) -> float:
        """Return the seconds until the pause ends and the headers' limits allow another request."""
        waits = [bucket.wait(now) for bucket in self.buckets.values()]
        return max(0.0, self.paused_until - now, self.next_send - now, *waits)

    def _admit(self):
        """Let in all who may go now, in the order they came; look again when the next one may."""
        while self.waiting:
            turn, tokens, usd = self.waiting[0]
            now = time.monotonic()
            if not self.closed and self.in_flight >= self.limit:
                return
            if not self.closed and usd > self.budget.remaining():
                if self.in_flight:
                    return  # they may cost less than they reserved
                self.closed = True
            seconds = 0.0 if self.closed else self.seconds_to_wait(now)
            if seconds > 0:
                self._admit_later(seconds)
                return
            self.waiting.popleft()
            if turn.cancelled():
                continue
            turn.set_result(not self.closed)
            if not self.closed:
                self._take(now, tokens, usd)

    def _admit_later(self, seconds):
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._admit)

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
            self._admit()

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
        for name in ("requests", "tokens"):
            limit = _parse_number(headers.get(f"x-ratelimit-limit-{name}"))
            remaining = _parse_number(headers.get(f"x-ratelimit-remaining-{name}"))
            if limit and remaining is not None:
                self._update_bucket(name, limit, remaining)

    def _update_bucket(self, name, limit, remaining):
        if name not in self.buckets:  # `remaining` may not count what is in flight
            uncounted = self.in_flight if name == "requests" else 0
            self.buckets[name] = TokenBucket(remaining - uncounted)
        bucket = self.buckets[name]
        bucket.rate = 0.95 * limit / 60
        bucket.capacity = max(bucket.capacity, remaining)
        bucket.level = min(bucket.level, remaining)  # others may share the limit


def _parse_number(text) -> float | None:
    """Return a number from 0 to 1e12, or None: headers are a stranger's."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if 0 <= value <= 1e12 else None
