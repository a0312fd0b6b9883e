"""Generation by any OpenAI-compatible server (vLLM, the OpenAI API), through the openai client: many requests in flight, each
answer handed on as it comes, every failure by its kind."""

import asyncio
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress

from common.core.errors import Stopped
from common.generate.budget import format_usd, estimate_tokens
from common.generate.endpoint import Endpoint
from common.generate.rate_limiter import RateLimiter
from common.generate.responses import WebPage, classify_error, parse_retry_after


class Client(Endpoint):
    """Engine over an endpoint: messages go to /v1/chat/completions, raw text to /v1/completions."""

    tries, pauses = 6, 50  # of one request: failures, and refusals while others are served
    patience = 600  # seconds without any answer until the run ends

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.patience = max(self.patience, self.timeout + 60)
        self.counts, self.rate_limiter, self.n_todo, self.spent_before, self.connections_lost = (
            Counter(),
            None,
            0,
            0.0,
            0,
        )

    def outstanding(self):
        return False

    def status(self):
        """For the progress bar: retries, refusals, requests in flight, USD spent of what it is projected to be."""
        text = f", retried {self.counts['retried']}, 429s {self.counts['429']}"
        text += (
            f", in flight {self.rate_limiter.in_flight}{self.rate_limiter.waits()}"
            if self.rate_limiter
            else ""
        )
        if self.connections_lost >= 5:
            text += f", no connection (giving up in {self.patience - (time.monotonic() - self.last_good):.0f} s)"
        if not self.budget.prices:
            return text
        each = (self.budget.spent - self.spent_before) / max(1, self.counts["done"])
        projected = self.budget.spent + each * (self.n_todo - self.counts["done"])
        return f"{text}, {format_usd(self.budget.spent)}" + (
            f" of {format_usd(projected)}" if self.counts["done"] else ""
        )

    def generate(self, tasks, deliver, show=lambda: None):
        """Ask for all tasks that are not settled, again and again until each is; deliver(task, answer) records every answer
        before its worker goes on. Ends early by raising Stopped (or what deliver raised), after those in flight came in.
        """
        _allow_sockets(self.concurrency + 100)
        todo = [task for task in tasks if not task.settled]
        self.deliver, self.ending, self.counts, self.workers, self.loop = (
            deliver,
            None,
            Counter(),
            [],
            None,
        )
        self.n_todo, self.spent_before = len(todo), self.budget.spent
        self.last_good, self.heard, self.connections_lost, self.useless = (
            time.monotonic(),
            False,
            0,
            0,
        )
        with (
            ThreadPoolExecutor(1) as thread,
            self._signals(),
        ):  # a loop of its own, in a thread: a notebook's is taken
            running = thread.submit(asyncio.run, self._run(todo))
            told = False
            while not wait([running], timeout=0.5).done:
                show()
                if self.ending and not told:
                    told = True
                    print(
                        f"\nstopping: nothing more is sent; waiting for {self.rate_limiter.in_flight} answers in flight "
                        "(Ctrl-C gives them up; they may be paid)",
                        file=sys.stderr,
                    )
                if time.monotonic() - self.last_good > self.patience:
                    self._call(
                        self.stop,
                        Stopped(
                            f"no answer from {self.where()} for {self.patience:.0f} s.\n"
                            "Run the same command again later: what was answered is kept.",
                            4,
                        ),
                    )
            running.result()
        if self.ending:
            raise self.ending

    async def _run(self, todo):
        self.loop, self.halt, self.rate_limiter = (
            asyncio.get_running_loop(),
            asyncio.Event(),
            RateLimiter(self.concurrency, self.budget),
        )
        if self.ending:
            return
        async with self.client() as api:
            self.create = {
                True: api.completions.with_raw_response.create,
                False: api.chat.completions.with_raw_response.create,
            }
            self.loop.call_later(15, self.rate_limiter.open_wide)
            line = iter(todo)
            self.workers += [
                asyncio.create_task(self._work(line))
                for _ in range(min(self.concurrency, len(todo)))
            ]
            await asyncio.gather(*self.workers, return_exceptions=True)

    def stop(self, why):
        """Send nothing more, let those in flight come in, then raise `why`."""
        self.ending = self.ending or why
        self.halt.set()
        self.rate_limiter.close()

    def _call(self, function, *arguments):
        """From another thread into the run's loop; nowhere before that has begun, or once it has ended."""
        with suppress(AttributeError, RuntimeError):
            self.loop.call_soon_threadsafe(function, *arguments)

    @contextmanager
    def _signals(self):
        """Ctrl-C or SIGTERM: the first sends nothing more, the second gives up what is in flight. Main thread only."""

        def interrupted(number, frame):
            if self.ending:
                self._call(lambda: [worker.cancel() for worker in self.workers])
                return
            self.ending = Stopped(
                "interrupted.\nRun the same command again: it goes on where it was, and asks for nothing that "
                "came in.",
                128 + number,
            )  # seen by a run that has not begun yet, too
            self._call(lambda: self.stop(self.ending))

        numbers = (
            (signal.SIGINT, signal.SIGTERM)
            if threading.current_thread() is threading.main_thread()
            else ()
        )
        before = {number: signal.signal(number, interrupted) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _work(self, line):
        try:
            for task in line:
                while not task.settled and not self.ending:
                    answer = await self._ask(task)
                    if answer is None:
                        return
                    self.deliver(task, answer)
                self.counts["done"] += task.settled
                if self.ending:
                    return
        except (
            Exception
        ) as error:  # a full disk, too many bad answers, or a fault of ours: the run ends with it
            self.stop(error)

    async def _ask(self, task):
        """-> an answer to deliver ({"error"} where there can be none), or None: the run is ending. Every loop has a bound."""
        tries, pauses, since, worst = 0, 0, time.monotonic(), self.budget.worst(task)
        tokens = estimate_tokens(task.request.prompt) + task.sampling.max_new_tokens
        while await self.rate_limiter.enter(tokens, worst):
            sent = time.monotonic()
            try:
                return await self._send(task)
            except asyncio.CancelledError:  # the second Ctrl-C: it may be paid all the same
                self._lose(task, worst)
                raise
            except Exception as error:
                kind, reason = classify_error(error, self.model, self.secret)
                headers = getattr(getattr(error, "response", None), "headers", None)
                if kind == 2 and task.larger and error.status_code == 400:
                    kind = "row"  # a model may have no more room than was asked for at first
                kind = self._failed(
                    error, kind, reason, headers, sent, task, worst
                )  # before its place is given to another
            finally:
                self.rate_limiter.leave(worst)
            if kind == "row":
                return {"error": reason}
            pauses += kind == "pause"
            tries += kind in ("again", "unsure", "gone")
            if (
                tries >= self.tries
                or pauses >= self.pauses
                and time.monotonic() - since > self.patience
            ):
                return {"error": reason, "passing": True}
            if kind != "pause" and not self.ending:
                self.counts["retried"] += 1
                await self._sleep(
                    random.uniform(0, min(30.0, 0.5 * 2**tries))
                )  # full jitter: not all at once again
        if self.rate_limiter.broke:
            self.stop(self.no_budget())
        return None

    async def _send(self, task):
        began = time.monotonic()
        async with asyncio.timeout(self.timeout):
            response = await self.create[isinstance(task.request.prompt, str)](
                **self.request_body(task)
            )
        self._heard(response.headers)
        if "html" in response.headers.get("content-type", ""):
            raise WebPage
        content = (
            response.content.replace(self.secret.encode(), b"***")
            if self.secret
            else response.content
        )  # a server may repeat it
        answer = self.finish(task, json.loads(content))
        self.last_good, self.useless = time.monotonic(), None
        self.rate_limiter.answered(self.last_good - began)
        return answer

    async def _sleep(self, seconds):
        with suppress(TimeoutError):
            await asyncio.wait_for(self.halt.wait(), seconds)

    def _heard(self, headers):
        self.heard, self.connections_lost = True, 0
        self.rate_limiter.observe(headers)

    def _lose(self, task, worst):
        """A request came to nothing that may have been paid: its worst case counts against the budget."""
        if worst:
            self.budget.lost += worst
            self.deliver(task, {"lost": worst, "model": self.model})

    def _failed(self, error, kind, reason, headers, sent, task, worst):
        """What a failed request means for all: the pace, the budget, the end of the run. -> kind, "pause" in an outage."""
        if headers is not None:
            self._heard(headers)
        self.connections_lost += kind == "gone"
        outage = kind == "gone" and (
            self.connections_lost >= 5 or not self.heard
        )  # one lost connection is the row's alone
        if kind == "unsure":
            self._lose(task, worst)
        if self.useless is not None and (
            kind == "unsure" or isinstance(error, WebPage)
        ):  # None: there was a good answer
            self.useless += 1
            if self.useless >= 24:
                self.stop(
                    Stopped(
                        f"{self.useless} requests to {self.where()} brought no answer that can be read, none did: {reason}\n"
                        "Check --base-url, --model and --timeout, then run the same command again.",
                        4,
                    )
                )
        if isinstance(kind, int):
            self.stop(
                Stopped(
                    f"{self.where()} cannot be asked for {self.model!r}: {reason}, then run the same command again: "
                    "what was answered is kept.",
                    kind,
                )
            )
        if kind == "pause" or outage:
            seconds = parse_retry_after(headers or {})
            self.counts["429"] += kind == "pause"
            self.rate_limiter.refused(sent, seconds)
            if outage and not self.heard and self.rate_limiter.refusals >= 3:
                self.stop(
                    Stopped(
                        f"no server answers at {self.where()} ({reason}).\nCheck --base-url, then run the same command "
                        "again.",
                        4,
                    )
                )
            elif (seconds or 0) > self.patience:
                self.stop(
                    Stopped(
                        f"{self.where()} asks to wait {seconds:.0f} s ({reason}).\nRun the same command again then: "
                        "what was answered is kept.",
                        4,
                    )
                )
        return "pause" if outage else kind


def _allow_sockets(n):
    """Raise the number of files that this process may have open, which is 256 on some systems, as far as it may be."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < n:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (n if hard == resource.RLIM_INFINITY else min(n, hard), hard)
        )
