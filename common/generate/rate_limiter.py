"""When the next request may be sent: one door that all workers of a server pass."""

import asyncio
import random
import time
from collections import deque


class TokenBucket:
    """A rate limit that the server tells in its headers, kept to at 95 %. Like the server's own it fills with time."""

    def __init__(self, level):
        self.level = self.most = level
        self.rate, self.at = 0.0, time.monotonic()

    def wait(self, now):
        """Seconds until something may be taken. What is taken may exceed what is there: the rest is waited for after it."""
        self.level = min(self.most, self.level + (now - self.at) * self.rate)
        self.at = now
        return 0.0 if self.level > 0 else -self.level / self.rate + 0.001


class RateLimiter:
    """At most `limit` requests in flight, none during a pause, no faster than the server's headers allow.

    The first few requests go alone: a wrong key costs few of them, and the limits come with the first answer. A refusal
    (429, overload) pauses everybody as long as the server asked, and cuts the limit to 0.7 of what was in flight; each
    round of answers lets it grow again by a quarter.
    """

    def __init__(self, most, budget, first=8):
        self.most, self.limit, self.budget = most, min(most, first), budget
        self.in_flight, self.refusals, self.cut, self.closed, self.broke = 0, 0, False, False, False
        self.paused_at = self.paused_until = self.next_send = 0.0
        self.latency = 1.0  # of an answer, in seconds; no more than one
        self.buckets, self.waiting, self._timer = {}, deque(), None

    async def enter(self, tokens, usd):
        """Wait for one's turn. -> False where nothing is to be sent any more; else `leave` must be called.

        tokens: what the request counts for a limit of tokens; usd: what it may cost, held until `leave`.
        """
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append((turn, tokens, usd))
        self._open()
        return await turn

    def leave(self, usd):
        self.in_flight -= 1
        self.budget.out -= usd
        self._open()

    def close(self):
        """Send away who waits, now and later."""
        self.closed = True
        self._open()

    def waits(self):
        """Why nothing is sent just now, for the progress bar."""
        now = time.monotonic()
        pause, pacing = (
            self.paused_until - now,
            max((b.wait(now) for b in self.buckets.values()), default=0.0),
        )
        return (
            f", pausing for {pause:.0f} s"
            if pause > 1
            else f", {pacing:.0f} s for the rate limit"
            if pacing > 1
            else ""
        )

    def _wait(self, now, usd):
        """Seconds until the next one may go, None: when somebody leaves. Closes where the budget has no room for it at all."""
        if self.in_flight >= self.limit:
            return None
        if usd > self.budget.left():
            self.closed = self.broke = not self.in_flight
            return None if self.in_flight else 0.0
        return max(
            self.paused_until - now,
            self.next_send - now,
            *(b.wait(now) for b in self.buckets.values()),
            0.0,
        )

    def _open(self):
        while self.waiting:
            turn, tokens, usd = self.waiting[0]
            now = time.monotonic()
            wait = 0.0 if self.closed else self._wait(now, usd)
            if wait is None:
                return
            if wait > 0:
                if self._timer:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(wait, self._open)
                return
            self.waiting.popleft()
            if not turn.cancelled():
                turn.set_result(not self.closed)
                if not self.closed:
                    self._take(now, tokens, usd)

    def _take(self, now, tokens, usd):
        self.in_flight += 1
        self.budget.out += usd
        for name, bucket in self.buckets.items():
            bucket.level -= tokens if name == "tokens" else 1
        if self.cut:  # after a refusal no burst: a limit's worth of requests is spread over the time of an answer
            self.next_send = now + self.latency / self.limit

    def answered(self, seconds=1.0):
        """The server gave an answer, after so many seconds: more may be in flight."""
        self.refusals, self.latency = 0, 0.9 * self.latency + 0.1 * min(seconds, 1.0)
        self.limit = min(self.most, self.limit + max(4 / self.limit, 0.25))
        self.open_wide()

    def open_wide(self):
        """No refusal so far: all may go."""
        if not self.cut:
            self.limit = self.most
            self._open()

    def refused(self, sent, seconds):
        """The server refused what was sent at `sent` (time.monotonic) and asked to wait so many seconds, or None."""
        now = time.monotonic()
        if (
            sent >= self.paused_at
        ):  # not one more of those that were on their way when the pause began
            self.paused_at, self.cut = now, True
            self.limit = max(1.0, 0.7 * min(self.limit, self.in_flight))
            self.refusals += 1
            if seconds is None:
                seconds = min(60.0, 0.5 * 2.0 ** (self.refusals - 1)) * random.uniform(0.75, 1.25)
        self.paused_until = max(self.paused_until, now + (seconds or 0.0))

    def observe(self, headers):
        """Read x-ratelimit-limit-* and -remaining-* (requests and tokens, per minute) of any response."""
        for name in ("requests", "tokens"):
            limit, remaining = (
                _number(headers.get(f"x-ratelimit-{what}-{name}"))
                for what in ("limit", "remaining")
            )
            if not limit or remaining is None:
                continue
            if name not in self.buckets:  # what is in flight may not be counted in what remains
                self.buckets[name] = TokenBucket(
                    remaining - (self.in_flight if name == "requests" else 0)
                )
            bucket = self.buckets[name]
            bucket.rate, bucket.most = 0.95 * limit / 60, max(bucket.most, remaining)
            bucket.level = min(bucket.level, remaining)  # others may share the limit


def _number(text):
    """-> a number from 0 to 1e12, or None: headers are a stranger's."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if 0 <= value <= 1e12 else None
