"""An engine over any OpenAI-compatible server (vLLM, the OpenAI API), through the openai client.

`request_body` is what is sent of a prompt, `read_answer` what is kept of the answer. `_Run` keeps
many requests in flight, hands on each answer as it comes, and decides which failure ends the run.
"""

import asyncio
import json
import math
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from common.core.errors import InputError, Stopped
from common.core.files import utf8
from common.core.tables import count
from common.core.untrusted import printable
from common.generate import responses
from common.generate.budget import Budget, estimate_tokens, format_usd, prompt_text
from common.generate.model_list import warn_of_shutdown
from common.generate.rate_limiter import RateLimiter
from common.generate.requests import State, cut_at_stop, read_finish
from common.generate.responses import ErrorKind
from common.generate.transport import bound_answer, bound_batch
from common.train import distributed

# Failures before the first good answer until the run ends: each of them may have been paid. If
# nobody listens, four take a few seconds, with the pauses in between.
MAX_FIRST_FAILURES = {ErrorKind.WEB_PAGE: 24, ErrorKind.UNCERTAIN: 24, ErrorKind.NO_CONNECTION: 4}
# Equal refusals of different prompts, with no good answer in between, until the run ends.
MAX_EQUAL_REFUSALS, MAX_FIRST_REFUSALS = 8, 2
MAX_ALONE = 20  # waits of one request for a rate limit while others are answered
REFUSALS = (ErrorKind.REFUSED, ErrorKind.FORBIDDEN)
PAUSES = (ErrorKind.RATE_LIMIT, ErrorKind.NO_CONNECTION)
GO_ON = "To go on, run the same command again: what was answered is kept."


class Client:
    """A model behind a URL. Messages go to /v1/chat/completions, raw text to /v1/completions.

    The identity is the model's name alone: the same model behind another URL reuses what is in the
    journal. concurrency: requests in flight at most; timeout: seconds for one request in all. The
    key comes from OPENAI_API_KEY.
    """

    tries = 6  # of one request; a wait for the rate limit or for a lost server is none
    tokenizer = None  # the server has its own
    patience = 600  # seconds without a good answer until the run ends

    def __init__(self, model, base_url=None, concurrency=256, timeout=300, budget=None):
        if not model:
            raise InputError(
                "no model was named for the server.\n"
                "Add --model NAME (and --base-url for your own server)"
            )
        if distributed.world_size() > 1:
            raise InputError(
                "a server was to be asked by several processes.\n"
                "One process asks it, with --concurrency: start with plain python, not torchrun."
            )
        self.model = self.identity = model
        self.base_url = responses.check_base_url(base_url)
        self.server = (self.base_url or "the OpenAI API").rstrip("/")  # of each answer
        self.concurrency, self.timeout = concurrency, timeout
        self.patience = max(self.patience, timeout + 60)
        self.budget = budget or Budget(model)
        self.key = os.environ.get("OPENAI_API_KEY", "").strip()
        self.secret = responses.secret_of(self.key)  # removed from all that is kept

    # --- what is sent, what is kept ---------------------------------------------------------------

    def request_body(self, task) -> dict:
        """Return the JSON of a request, the same live and in a batch."""
        sampling, prompt = task.sampling, task.request.prompt
        body, extra = {"model": self.model}, sampling.extra_body or {}
        limit = "max_tokens"
        if task.request.is_raw:
            body["prompt"] = utf8(prompt)
        else:
            body["messages"] = [m | {"content": utf8(m["content"])} for m in prompt]
            if not self.base_url or "reasoning_effort" in extra:  # as OpenAI's own models want it
                limit = "max_completion_tokens"
        body[limit] = sampling.max_new_tokens
        if sampling.temperature is not None:
            body["temperature"] = sampling.temperature
        if sampling.top_p not in (None, 1.0):  # the default of all servers; some refuse both
            body["top_p"] = sampling.top_p
        if sampling.seed is not None:  # one per sample: with one for all, equal prompts are equal
            body["seed"] = int(task.key[:7], 16)
        if sampling.stop:  # OpenAI's own takes four; read_answer applies them all
            body["stop"] = sampling.stop if self.base_url else sampling.stop[:4]
        return body | extra

    def read_answer(self, task, body, batch=False) -> dict:
        """Return what is journalled of an answer's JSON: text before a stop string, usage, USD."""
        answer = responses.parse_answer(body, task.request.is_raw)
        for name in ("text", "refusal"):
            if name in answer:
                answer[name] = responses.redact(answer[name], self.secret, limit=None)
        stop, word = task.sampling.stop, answer["finish_reason"]
        answer["text"], is_cut = cut_at_stop(answer["text"], stop)
        answer["finish_reason"] = "stop" if is_cut else read_finish(word)
        if answer.pop("stop_reason", None) in stop or is_cut:
            answer["stop_string"] = True  # one of them ended it
        if answer["finish_reason"] == "content_filter" != word:
            answer.setdefault("refusal", word)
        answer["model"], answer["server"] = self.model, self.server
        if self.budget.prices:
            answer["usd"] = self.budget.charge(task, answer["usage"], batch)
        return answer

    def open_api(self, sync=False):
        """Return the openai client. aiohttp holds many connections at a third of httpx's CPU.

        What comes is bounded in bytes, and a redirect is not followed.
        """
        host, n = urlsplit(self.base_url or "").hostname, self.concurrency
        kinds: Any = openai.AsyncOpenAI, openai.DefaultAioHttpClient, bound_answer
        if sync:
            kinds = openai.OpenAI, openai.DefaultHttpxClient, bound_batch
        open_client, open_transport, bound = kinds
        transport = open_transport(
            limits=httpx2.Limits(max_connections=n, max_keepalive_connections=n),
            headers={"Accept-Encoding": "identity"},
            follow_redirects=False,
            event_hooks={"response": [bound]},
            # A proxy of the environment must not see requests to this machine.
            trust_env=host not in ("127.0.0.1", "localhost", "::1"),
        )
        return open_client(
            http_client=transport,
            base_url=self.base_url,
            api_key=self.key or "none",
            max_retries=0,  # the retries are those of _Run
            timeout=httpx2.Timeout(self.timeout, connect=min(10, self.timeout)),
        )

    # --- the engine -------------------------------------------------------------------------------

    def approve(self, tasks, journal):
        """Print what the open tasks will cost. InputError without a key or an agreement."""
        if not self.base_url and not self.key:
            raise InputError(
                "no server and no key were given.\n"
                "Add --base-url http://HOST:PORT/v1, or export OPENAI_API_KEY=..."
            )
        if not re.fullmatch("[!-~]*", self.key):
            raise InputError(
                "OPENAI_API_KEY holds a character that no key has (a space, a line end, ...).\n"
                "Export it again."
            )
        commercial = (self.base_url or "https").startswith("https")
        self.budget.approve(tasks, journal, commercial)
        warn_of_shutdown(self)

    def outstanding(self):
        return False

    def close(self):
        """Nothing is held between two runs."""

    def status(self) -> str:
        """Return failed requests by kind, requests in flight and USD, for the progress bar."""
        text = f", in flight {self.run.limiter.in_flight}"
        for kind, n in self.run.n_failed.items():
            text += f", {kind.name.lower()} {n}"
        return f"{text}, {format_usd(self.budget.spent)}" if self.budget.prices else text

    def generate(self, tasks, deliver, show=lambda: None):
        """Ask for all tasks that are not settled, again and again until each is.

        deliver(task, answer) records each answer before its worker goes on. Ends early by raising
        Stopped, or what deliver raised, after the requests in flight have come in.
        """
        _allow_sockets(self.concurrency + 100)
        todo = [task for task in tasks if not task.settled]
        self.run = run = _Run(self, deliver, show)
        run.n_good = sum(task.state is State.GOOD for task in tasks)
        # A loop in a thread of its own: a notebook's thread has one that runs.
        with ThreadPoolExecutor(1) as thread, _on_signal(run.interrupt):
            running = thread.submit(asyncio.run, run.ask_all(todo))
            while not wait([running], timeout=0.5).done:
                pass  # a signal is handled between two waits
            running.result()
        if run.ending:
            raise run.ending


class _Run:
    """One call of generate: its workers, the counts of what came, and why it ends.

    Four rules end it, with everything that was answered kept:
    - a wrong key, model, URL or setting, which no request can get past: at once, once two
      different prompts are refused in equal words, or if refusals are all that came;
    - as many failures as MAX_FIRST_FAILURES before the first good answer;
    - `patience` seconds without a good answer;
    - no room in the budget.
    """

    def __init__(self, client, deliver, show):
        self.client, self.deliver, self.show = client, deliver, show
        self.limiter = RateLimiter(client.concurrency, client.budget)
        self.ending = None  # the error that ends the run
        self.halt = asyncio.Event()  # set with it
        self.signals = []  # that came and were not heeded yet
        self.workers = set()  # those that have not ended
        self.n_good = 0
        self.n_failed = Counter()  # requests, by ErrorKind
        self.last_good = time.monotonic()
        self.refused = []  # since the last good answer: (task, kind, reason, its own words)
        self.failing = set()  # tasks at which the server has failed since then
        self.exhausted = False  # no task is left that was not asked yet

    # --- workers ----------------------------------------------------------------------------------

    async def ask_all(self, tasks):
        """Ask for all tasks, `concurrency` at a time; end when each is settled or the run stops."""
        client = self.client
        async with client.open_api() as self.api:
            asyncio.get_running_loop().call_later(15, self.limiter.open_wide)
            queue = iter(tasks)
            for _ in tasks[: client.concurrency]:
                self.workers.add(asyncio.create_task(self._work(queue)))
            while self.workers:
                self.show()
                if self.signals:
                    self._heed(self.signals.pop())
                if time.monotonic() - self.last_good > client.patience:
                    self.end(f"no good answer from {client.server} for {client.patience:.0f} s.")
                _, self.workers = await asyncio.wait(self.workers, timeout=0.2)
            if self.n_good:
                self._blame_rows()
            elif self.refused:  # without any good answer it may be the settings' fault
                _, kind, reason, _ = self.refused[0]
                self._refuse_all(kind, reason)

    async def _work(self, queue):
        try:
            for task in queue:
                while not task.settled:
                    answer = await self._ask(task)
                    if answer is None:
                        break
                    self.deliver(task, answer)
                    if "text" in answer:  # what was refused before was a fault of those rows
                        self._blame_rows()
                if self.ending:
                    return
            self.exhausted = True
        except Exception as error:  # a full disk, too many bad answers, or a fault of ours
            self.stop(error)

    async def _ask(self, task):
        """Return an answer to deliver, {"error"} if none can come.

        None: the run is ending, or the request is set aside until others have been answered.
        """
        n_failures = n_alone = first_failure = 0
        worst = self.client.budget.worst(task)
        tokens = estimate_tokens(task.request.prompt) + task.sampling.max_new_tokens
        while await self.limiter.enter(tokens, worst):
            sent = time.monotonic()
            try:
                return await self._send(task, sent)
            except asyncio.CancelledError:  # the second Ctrl-C: it may be paid all the same
                self._record_loss(task)
                raise
            except Exception as error:  # handled before its place is given to another
                kind, reason = self._handle(error, task, sent)
            finally:
                self.limiter.leave(worst)
            if kind in responses.ROWS:
                return {"error": reason}
            if kind in REFUSALS:
                self._set_aside(task, kind, reason)
                return None
            n_alone += kind is ErrorKind.RATE_LIMIT and self.last_good > sent
            if n_alone >= MAX_ALONE:
                return {"error": reason, "passing": True}
            first_failure = first_failure or sent
            is_outage = kind is ErrorKind.RETRY and self._is_outage()
            if kind in PAUSES or (is_outage and self.last_good < first_failure):
                continue  # the limiter lets it in again after the pause
            n_failures += 1
            if n_failures >= self.client.tries:
                return {"error": reason, "passing": True}
            await self._back_off(n_failures)
        if not self.ending:  # the limiter has closed by itself
            self.stop(self.client.budget.exhausted())
        return None

    async def _send(self, task, sent):
        body = self.client.request_body(task)
        path = "/completions" if task.request.is_raw else "/chat/completions"
        async with asyncio.timeout(self.client.timeout):
            response = await self.api.post(path, cast_to=httpx2.Response, body=body)
        self.limiter.observe(response.headers)
        if "html" in response.headers.get("content-type", ""):
            raise responses.WebPageError
        answer = self.client.read_answer(task, json.loads(response.content))
        self.n_good += 1
        self.last_good = time.monotonic()
        self.failing.clear()
        self.limiter.succeeded(self.last_good - sent)
        return answer

    async def _back_off(self, n_failures):
        """Sleep up to 1, 2, 4, ... 30 s: by full jitter not all ask again at once."""
        seconds = random.uniform(0, min(30.0, 0.5 * 2**n_failures))
        with suppress(TimeoutError):
            await asyncio.wait_for(self.halt.wait(), seconds)

    # --- failures ---------------------------------------------------------------------------------

    def _handle(self, error, task, sent):
        """Do what a failed request means for all: pace, budget, end. Return its kind and reason."""
        client = self.client
        prompt = prompt_text(task.request.prompt)
        kind, reason = responses.classify_error(error, client.secret, prompt)
        if kind in REFUSALS and task.enlarged:
            kind = ErrorKind.ROW  # a model may have no more room than was asked for at first
        self.n_failed[kind] += 1
        headers = getattr(getattr(error, "response", None), "headers", {})
        self.limiter.observe(headers)
        if kind is ErrorKind.RETRY:
            self.failing.add(task)
            self._note_outage(sent, reason)
        elif kind is ErrorKind.UNCERTAIN:
            self._record_loss(task)
        elif kind in PAUSES:
            seconds = responses.parse_retry_after(headers)
            self.limiter.refused(sent, seconds)
            if (seconds or 0) > client.patience:  # a daily limit
                self.end(f"{client.server} asks to wait {seconds:.0f} s ({reason}).")
        elif kind.exit_status and kind not in REFUSALS:
            self._refuse_all(kind, reason)
        n_failed = self.n_failed[kind]
        if not self.n_good and n_failed >= MAX_FIRST_FAILURES.get(kind, math.inf):
            self.end(
                f"{count(n_failed, 'request')} to {client.server} brought no answer: "
                f"{reason}\nCheck --base-url, --model and --timeout."
            )
        return kind, reason

    # --- whose fault it is: the row's, if others are answered -------------------------------------

    def _set_aside(self, task, kind, reason):
        """Keep a refused request until a good answer comes; end the run if too many are equal."""
        words = _words(reason) - _words(str(task.request.prompt))
        self.refused.append((task, kind, reason, words))
        # Equal but for ids, numbers, and the prompt's own words.
        equal = {str(refused[0].request.prompt) for refused in self.refused if refused[3] == words}
        if len(equal) >= (MAX_EQUAL_REFUSALS if self.n_good else MAX_FIRST_REFUSALS):
            self._refuse_all(kind, reason)

    def _refuse_all(self, kind, reason):
        client = self.client
        self.end(f"{client.server} refuses {client.model!r}: {reason}", kind.exit_status)

    def _blame_rows(self):
        """Deliver what was set aside as failures of the rows, unless the run ends."""
        if self.ending:
            return
        refused, self.refused = self.refused, []
        for task, kind, reason, _ in refused:  # its fix is for a whole run
            self.deliver(task, {"error": reason.removesuffix(kind.fix).rstrip()})

    def _note_outage(self, sent, reason):
        """Let all wait if the server fails at several requests, and answers none between them."""
        if not self._is_outage():
            return
        self.limiter.refused(sent, None)
        if len(self.failing) == 2:
            print(
                f"\n{self.client.server} fails ({printable(reason)}); waiting for it, at most "
                f"{self.client.patience:.0f} s without an answer",
                file=sys.stderr,
            )

    def _is_outage(self):
        """Tell an outage from requests at which the server always fails, which are then left."""
        return len(self.failing) > 1 and not (self.exhausted and self.n_good)

    def _record_loss(self, task):
        """Count a request without an answer, which may have been paid, against the budget."""
        worst = self.client.budget.worst(task)
        if worst:
            self.client.budget.lost += worst
            self.deliver(task, {"lost": worst, "model": self.client.model})

    # --- the end ----------------------------------------------------------------------------------

    def end(self, reason, status=4):
        self.stop(Stopped(f"{reason}\n{GO_ON}", status))

    def stop(self, error):
        """Send nothing more, let the requests in flight come in, then raise `error`."""
        if not self.ending:
            self.ending = error
            self.halt.set()
            self.limiter.close()
            asyncio.get_running_loop().call_soon(self._announce)  # once its own request has left

    def _announce(self):
        if n := self.limiter.in_flight:
            print(
                f"\nstopping: nothing more is sent; waiting for {count(n, 'answer')} in flight "
                "(Ctrl-C gives up what may be paid)",
                file=sys.stderr,
            )

    def interrupt(self, number, frame):
        """Stop at Ctrl-C or SIGTERM; the second one gives up what is in flight."""
        self.signals.append(number)  # this is another thread than that of the workers

    def _heed(self, number):
        if self.ending:
            for worker in self.workers:
                worker.cancel()
        self.end("interrupted.", 128 + number)


def _words(text):
    """Return the words of a text, without those that hold a digit."""
    return set(re.findall(r"\b[a-z_]+\b", text.lower()))


@contextmanager
def _on_signal(handler):
    """Call the handler at Ctrl-C and SIGTERM. Only the main thread may set one."""
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, handler))
        yield


def _allow_sockets(n):
    """Raise the number of files that this process may open, which is 256 on some systems."""
    with suppress(ImportError, ValueError, OSError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(n, hard)), hard))
