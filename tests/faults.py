"""An OpenAI-compatible server on loopback that plays the teacher and fails on request.

It proves that a client never pays twice, loses no answer, keeps to rate limits and survives every
fault. In a test it runs in this process, in a thread with an event loop of its own:

    with FaultServer(fault=lambda body, nth: "503" if nth == 0 else None) as server:
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        ...
        assert server.paid() == 1 and server.asked[0]["status"] == 503

A benchmark starts it as a process, which prints its URL first and counts at GET /stats (outside
/v1):

    python -m tests.faults '{"latency": "lognormal", "faults": {"429": 0.05}, "port": 8123}'

text(body) -> the good answer. fault(body, nth) -> the fault of the nth (from 0) request for this
very prompt, a name of FAULTS or an HTTP status, or None for the good answer; it may be reassigned
while the server runs. faults: {name: share} instead, drawn by seed, prompt and nth. A prompt is
told by its last message or its raw text; requests that the rate limit refuses are no nth. latency:
seconds, a function of the body, or "lognormal". rpm, burst, tpm, limit_headers, retry_after
("seconds", "ms", "date" or None): the rate limit. batches: whether there is a batch API; batch: how
it behaves, see BATCH_OPTIONS.

asked: a dict for each request to the two completion endpoints and each line of a batch, in the
order of arrival. A client that goes away before its answer was generated pays nothing; one that
goes away after that has paid. A line of a batch is delivered once its file was read. What a hook
raises is raised again where the `with` block ends.
"""

import asyncio
import hashlib
import itertools
import json
import math
import random
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate

from aiohttp import web

ENDPOINTS = ("/v1/chat/completions", "/v1/completions")
LONGEST = 600  # seconds that anything hangs
ENTRIES = web.RequestKey("entries", list)  # of the log: what a request delivers

INVALID = "invalid_request_error"
ERRORS = {  # fault: status, code, type, param, message
    "429": (
        429,
        "rate_limit_exceeded",
        "requests",
        None,
        "Rate limit reached for {model}. Please try again later.",
    ),
    "500": (
        500,
        None,
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    "502": (502, None, "server_error", None, "Bad gateway."),
    "503": (503, None, "server_error", None, "Service unavailable."),
    "overloaded": (
        503,
        None,
        "server_error",
        None,
        "The engine is currently overloaded, please try again later.",
    ),
    "529": (529, None, "overloaded_error", None, "Overloaded"),
    "408": (408, None, "timeout", None, "Request timeout."),
    "409": (409, None, "conflict", None, "The resource was locked by another request."),
    "filter-400": (
        400,
        "content_filter",
        INVALID,
        None,
        "The response was filtered by the content policy.",
    ),
    "context": (
        400,
        "context_length_exceeded",
        INVALID,
        "messages",
        "This model's maximum context length is 4096 tokens. "
        "However, your messages resulted in 5000 tokens. Please reduce the length of the messages.",
    ),
    "invalid-prompt": (
        400,
        "invalid_prompt",
        INVALID,
        None,
        "Your prompt was flagged. Please try another prompt.",
    ),
    "quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        None,
        "You exceeded your current quota, please check your plan.",
    ),
    "key": (
        401,
        "invalid_api_key",
        INVALID,
        None,
        "Incorrect API key provided: {key}.",
    ),  # in full, as a careless server would
    "forbidden": (403, None, INVALID, None, "You are not allowed to sample from this model."),
    "model": (404, "model_not_found", INVALID, None, "The model `{model}` does not exist."),
    "max_tokens": (
        400,
        "unsupported_parameter",
        INVALID,
        "max_tokens",
        "Unsupported parameter: 'max_tokens' is not supported "
        "with this model. Use 'max_completion_tokens' instead.",
    ),
    "temperature": (
        400,
        "unsupported_value",
        INVALID,
        "temperature",
        "Unsupported value: 'temperature' does not support "
        "{temperature} with this model. Only the default (1) value is supported.",
    ),
}


def _opinion(text):
    return text.rsplit("Conclusion:", 1)[0].rstrip()


TEXTS = {  # fault: the good text -> (text, finish_reason)
    None: lambda text: (text, "stop"),
    "cut": lambda text: (text[: len(text) // 2], "length"),
    "cut-small": lambda text: (text[: len(text) // 2], "length"),
    "verdictless": lambda text: (_opinion(text), "stop"),
    "contradicting": lambda text: (
        f"{_opinion(text)}\n\nConclusion: right [END]\n\nNo.\n\nConclusion: wrong [END]",
        "stop",
    ),
    "both": lambda text: (f"{_opinion(text)}\n\nConclusion: right/wrong [END]", "stop"),
    "null-content": lambda text: (None, "stop"),
    "empty": lambda text: ("", "stop"),
    "content_filter": lambda text: ("", "content_filter"),
}
REFUSED = {
    "text": None,
    "message": {
        "role": "assistant",
        "content": None,
        "refusal": "I'm sorry, I can't help with that.",
    },
}
ANSWERS = {  # fault: the whole answer -> what is sent in its place with status 200
    None: lambda answer: answer,
    "no-choices": lambda answer: answer | {"choices": []},
    "null-choices": lambda answer: answer | {"choices": None},
    "no-usage": lambda answer: {k: v for k, v in answer.items() if k != "usage"},
    "refusal": lambda answer: answer | {"choices": [answer["choices"][0] | REFUSED]},
    "error-in-200": lambda answer: error("500")[1],
    "broken-json": lambda answer: json.dumps(answer)[: len(json.dumps(answer)) // 2],
    "html": lambda answer: "<html><body><h1>Please log in to this network</h1></body></html>",
}
ON_THE_WIRE = {
    "reset-before",
    "reset-inside",
    "hang",
    "broken-json",
    "html",
}  # what a line of a batch cannot have
FAULTS = {*ERRORS, *TEXTS, *ANSWERS, *ON_THE_WIRE}
UNPAID = {
    "no-choices",
    "null-choices",
    "null-content",
    "empty",
    "content_filter",
    "error-in-200",
    "html",
}  # though 200: no text
APPLIES = {  # fault: whether a request gets it; to others the server gives the good answer
    "cut-small": lambda body: (
        (body.get("max_tokens") or body.get("max_completion_tokens") or math.inf) < 5000
    ),
    "max_tokens": lambda body: "max_tokens" in body,
    "temperature": lambda body: body.get("temperature", 1) != 1,
}

BATCH_OPTIONS = {
    "seconds": 0.2,  # from the creation to the end
    "missing": 0,
    "line_error": 0,
    "expire": 0,  # shares of lines: in neither file, error 500, not executed in time
    "expire_all": False,  # without it only the server's first batch expires
    "duplicate": 0,  # share of output lines written twice
    "garbage": 0,
    # numbers of output lines that are no JSON, or have a custom_id that nobody asked for
    "foreign": 0,
    "shuffle": True,  # output lines in no order
    "fail": None,  # the code of the error with which each batch fails
    "max_tokens_enqueued": math.inf,  # a larger batch fails
    "reset_after_create": 0,
    "drop_files": 0,  # of how many first POSTs: made but not answered; answered 503 and not made
    "crash": lambda: None,  # called when a batch was made, before the answer
}
BATCH_FIELDS = [
    "model",
    "errors",
    "output_file_id",
    "error_file_id",
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
    "usage",
]  # None until there is something to say


def prompt_of(body):
    """What tells a prompt from others: the last message, or the raw prompt."""
    prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return prompt if isinstance(prompt, str) else json.dumps(prompt)


def good_text(body):
    """Return a critique by the prompt alone, or an answer by the whole raw request and its seed."""
    content = prompt_of(body) if "messages" in body else repr(body)
    number = int(hashlib.md5(content.encode()).hexdigest(), 16)
    if "messages" not in body:
        return f"It is \\boxed{{ {number % 30} }}"
    return (
        f"The solution sets the problem up and then takes {number % 7 + 2} steps. "
        f"I did each of them again and got {number % 997} in the last one, which settles it."
        f"\n\nConclusion: {'right' if number % 2 else 'wrong'} [END]"
    )


def error(fault, body=None, key=None):
    """-> (status, JSON) of a fault, or of a plain status."""
    status, code, kind, param, message = ERRORS.get(fault) or (
        fault,
        None,
        "refused",
        None,
        "no, thank you",
    )
    asked = (
        {"model": None, "temperature": None}
        | (body or {})
        | {"key": (key or "").removeprefix("Bearer ")}
    )
    message = message.format_map(asked)
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}


def reading(answer):
    """A handler that sends what answer(request) says."""

    async def handler(request):
        return web.json_response(answer(request))

    return handler


class Bucket:
    """A token bucket: `level` is what may be taken now."""

    def __init__(self, per_minute, size):
        self.limit, self.size, self.level, self._at = per_minute, size, size, time.monotonic()

    def wait(self, cost):
        """-> seconds until it holds `cost`, 0 if it does; nothing is taken."""
        now = time.monotonic()
        self.level, self._at = min(self.size, self.level + (now - self._at) * self.limit / 60), now
        return max(0, cost - self.level) * 60 / self.limit


class FaultServer:
    """with FaultServer(...) as server: server.url -> "http://127.0.0.1:PORT/v1"."""

    def __init__(
        self,
        text=None,
        fault=None,
        faults=None,
        latency=0.0,
        seed=0,
        rpm=None,
        burst=None,
        limit_headers=False,
        retry_after="seconds",
        tpm=None,
        batches=True,
        batch=None,
    ):
        self.text, self.fault, self.faults, self.latency, self.seed = (
            text or good_text,
            fault,
            faults or {},
            latency,
            seed,
        )
        self.limit_headers, self.retry_after, self.has_batches = limit_headers, retry_after, batches
        self.batch = BATCH_OPTIONS | (batch or {})
        if unknown := set(self.faults) - FAULTS | set(self.batch) - set(BATCH_OPTIONS):
            raise ValueError(f"unknown: {unknown}")
        self._buckets = {"requests": Bucket(rpm, burst or max(1, rpm / 10))} if rpm else {}
        self._buckets |= {"tokens": Bucket(tpm, tpm)} if tpm else {}
        self.asked, self.batches, self._files, self._tasks, self._bugs = [], [], [], {}, []
        self.peak = self.refused = self._uploads = 0
        self._nth, self._ids, self._unanswered = Counter(), itertools.count(), set()
        # The loop outlives stop(): a batch goes on while the server cannot be reached.
        self._loop, self._open, self._runner, self.port = (
            asyncio.new_event_loop(),
            asyncio.Event(),
            None,
            0,
        )
        self._open.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # --- what a test uses -------------------------------------------------------------------------

    def start(self, port=None):
        """Listen, at the port it had before unless another is named."""
        if not self._thread.is_alive():
            self._thread.start()
        self._do(self._listen(port or self.port))

    def stop(self):
        """Close the port and all connections at once, whatever is in flight."""
        if self._runner:
            self._do(self._runner.cleanup())
        self._runner = None

    def pause(self):
        """From now on answers are generated and paid but held back, until resume()."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def resume(self):
        self._loop.call_soon_threadsafe(self._open.set)

    @property
    def in_flight(self):
        """How many requests are in the log and have no answer yet."""
        return len(self._unanswered)

    def paid(self, prompt=None):
        """-> how many answers (of that prompt) were paid."""
        return sum(entry["paid"] for entry in self.asked if prompt in (None, entry["prompt"]))

    def good(self, prompt):
        """-> how many good answers of that prompt were delivered."""
        return self._good()[prompt]

    def batch_lines(self, name):
        """-> the custom_ids that a batch asked for."""
        return [line["custom_id"] for line in self._lines(self._find(self.batches, name))]

    def stats(self):
        good = self._good()
        return {
            "asked": len(self.asked),
            "paid": self.paid(),
            "good": len(good),
            "paid_twice": good.total() - len(good),
            "peak": self.peak,
            "refused": self.refused,
        }

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *raised):
        self.stop()
        self._do(self._end_batches())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._bugs:
            raise self._bugs[0]

    # --- the server -------------------------------------------------------------------------------

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self, port):
        posts = dict.fromkeys(ENDPOINTS, self._completion)
        gets = {
            "/v1/models": self._models,
            "/stats": reading(lambda _: self.stats()),
        }
        if self.has_batches:
            posts |= {
                "/v1/files": self._upload,
                "/v1/batches": self._create,
                "/v1/batches/{id}/cancel": reading(self._cancel),
            }
            gets |= {
                "/v1/files/{id}": reading(lambda request: self._file(request)["about"]),
                "/v1/files/{id}/content": self._content,
                "/v1/batches": reading(self._list),
                "/v1/batches/{id}": reading(self._batch),
            }
        app = web.Application(middlewares=[self._deliver], client_max_size=2**30)
        app.add_routes([web.post(path, handler) for path, handler in posts.items()])
        app.add_routes([web.get(path, handler) for path, handler in gets.items()])
        # The timeout is the patience with handlers when it stops; 0 would be without end.
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
        self._runner, self.port = runner, runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    @web.middleware
    async def _deliver(self, request, handler):
        """Send what the handler answers, and note in the log what it delivered."""
        entries = []
        try:
            response = await handler(request)
            await self._open.wait()
            # Noted before it is written: a client that has the answer may look here at once.
            self._unanswered.discard(id(request))
            entries = [entry for entry in request.get(ENTRIES, ()) if not entry["delivered"]]
            for entry in entries:
                entry["delivered"] = True
            await response.prepare(request)
            await response.write_eof()
            return response
        except BaseException as problem:
            for entry in entries:
                entry["delivered"] = False
            if isinstance(problem, ConnectionError):
                return web.Response()  # to a client that is gone
            if isinstance(problem, Exception) and not isinstance(problem, web.HTTPException):
                self._bugs.append(problem)
            raise
        finally:
            self._unanswered.discard(id(request))

    async def _hang_up(self, request):
        """Close the connection. aiohttp cancels the handler for that, which waits for it here."""
        await self._open.wait()
        self._unanswered.discard(id(request))
        request.transport.close()
        await asyncio.sleep(LONGEST)

    def _log(self, path, body, key):
        entry = {
            "path": path,
            "body": body,
            "prompt": prompt_of(body),
            "key": key,
            "status": None,
            "fault": None,
            "paid": False,
            "delivered": False,
            "at": time.monotonic(),
            "id": next(self._ids),
        }
        self.asked.append(entry)
        return entry

    def _good(self):
        """-> Counter {prompt: its good answers}"""
        return Counter(
            e["prompt"]
            for e in self.asked
            if e["status"] == 200 and e["fault"] is None and e["delivered"]
        )

    # --- completions ------------------------------------------------------------------------------

    async def _models(self, request):
        return web.json_response({"object": "list", "data": []})

    async def _completion(self, request):
        entry = self._log(request.path, await request.json(), request.headers.get("Authorization"))
        request[ENTRIES] = [entry]
        self._unanswered.add(id(request))
        self.peak = max(self.peak, self.in_flight)
        wait, headers = self._take(entry), self._limits() | {"x-request-id": f"req-{entry['id']}"}
        if wait:
            self.refused += 1
            entry["status"], answer = error("429", entry["body"])
            return web.json_response(answer, status=429, headers=headers | self._retry_header(wait))
        await asyncio.sleep(self._decide(entry))  # the latency
        fault = entry["fault"]
        if fault == "hang":
            await asyncio.sleep(LONGEST)
        if fault in ("hang", "reset-before"):
            await self._hang_up(request)
        answer = self._answer(entry)
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        headers["Content-Type"] = "text/html" if fault == "html" else "application/json"
        if fault == "reset-inside":
            await self._open.wait()
            response = web.StreamResponse(headers=headers | {"Content-Length": str(len(data))})
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
            await self._hang_up(request)
        headers |= {"429": self._retry_header(0.1), "overloaded": {"Retry-After": "1"}}.get(
            fault, {}
        )
        return web.Response(body=data, status=entry["status"], headers=headers)

    def _decide(self, entry):
        """Choose the fault of a request, by how often its prompt was asked before.

        -> the seconds that it takes.
        """
        body, prompt = entry["body"], entry["prompt"]
        nth = self._nth[prompt]
        self._nth[prompt] += 1
        fault = (
            self.fault(body, nth) if self.fault else self._draw(self.faults, "fault", prompt, nth)
        )
        if fault not in FAULTS and not isinstance(fault, int):
            raise ValueError(f"unknown fault {fault!r}")
        entry["fault"] = fault if APPLIES.get(fault, lambda body: True)(body) else None
        if self.latency == "lognormal":
            return self._random("latency", prompt, nth).lognormvariate(
                -0.18, 0.6
            )  # the mean is e^(-0.18 + 0.6^2 / 2) = 1
        return self.latency(body) if callable(self.latency) else self.latency

    def _answer(self, entry):
        """-> the JSON of the answer, or the text in its place.

        The log then says its status and whether it is paid.
        """
        body, fault = entry["body"], entry["fault"]
        if fault in ERRORS or isinstance(fault, int):
            entry["status"], answer = error(fault, body, entry["key"])
            return answer
        chat, (text, finish) = "messages" in body, TEXTS.get(fault, TEXTS[None])(self.text(body))
        choice = (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if chat
            else {"text": text}
        )
        read, written = len(entry["prompt"]) // 4, max(1, len(text or "") // 4)
        answer = {
            "id": f"cmpl-{entry['id']}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": body.get("model"),
            "choices": [{"index": 0, "logprobs": None, "finish_reason": finish} | choice],
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
        }
        entry |= {"status": 200, "paid": fault not in UNPAID}
        return ANSWERS.get(fault, ANSWERS[None])(answer)

    def _random(self, *what):
        return random.Random(
            repr((self.seed, *what))
        )  # the same in every process, unlike one seeded by hash()

    def _draw(self, shares, *what):
        """-> a name of {name: share}, or None."""
        rest = max(0, 1 - sum(shares.values()))
        return self._random(*what).choices([*shares, None], [*shares.values(), rest])[0]

    def _take(self, entry):
        """Take a request out of the rate limit.

        -> 0, or the seconds after which there is room; then nothing was taken.
        """
        tokens = entry["body"].get("max_tokens") or entry["body"].get("max_completion_tokens") or 0
        costs = {"requests": 1, "tokens": len(entry["prompt"]) / 4 + tokens}
        wait = max((bucket.wait(costs[name]) for name, bucket in self._buckets.items()), default=0)
        if not wait:
            for name, bucket in self._buckets.items():
                bucket.level -= costs[name]
        return wait

    def _limits(self):
        headers = {}
        for name, bucket in self._buckets.items() if self.limit_headers else ():
            headers[f"x-ratelimit-reset-{name}"] = f"{round(bucket.wait(bucket.size), 3)}s"
            headers[f"x-ratelimit-remaining-{name}"] = str(int(bucket.level))
            headers[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
        return headers

    def _retry_header(self, seconds):
        return {
            "seconds": {"Retry-After": str(max(1, math.ceil(seconds)))},
            "ms": {"retry-after-ms": str(math.ceil(seconds * 1000))},
            "date": {"Retry-After": formatdate(math.ceil(time.time() + seconds), usegmt=True)},
            None: {},
        }[self.retry_after]

    # --- files and batches ------------------------------------------------------------------------

    def _find(self, things, name):
        found = [thing for thing in things if thing["id"] == name]
        if not found:
            raise web.HTTPNotFound(text=json.dumps(error(404)[1]), content_type="application/json")
        return found[0]

    def _file(self, request):
        return self._find(self._files, request.match_info["id"])

    def _batch(self, request):
        return self._find(self.batches, request.match_info["id"])

    def _store(self, content, purpose, filename, entries=()):
        """Keep a file; reading it delivers these entries of the log.

        -> what the API says about it
        """
        about = {
            "id": f"file-{len(self._files) + 1}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }
        self._files.append(
            {"id": about["id"], "about": about, "content": content, "entries": entries}
        )
        return about

    async def _upload(self, request):
        form = await request.post()
        self._uploads += 1
        if self._uploads <= self.batch["drop_files"]:
            return web.json_response(error("503")[1], status=503)
        return web.json_response(
            self._store(form["file"].file.read(), form["purpose"], form["file"].filename)
        )

    async def _content(self, request):
        file = self._file(request)
        request[ENTRIES] = file["entries"]
        return web.Response(body=file["content"])

    async def _create(self, request):
        wanted, now = await request.json(), int(time.time())
        self._find(self._files, wanted["input_file_id"])
        batch = dict.fromkeys(BATCH_FIELDS) | {
            "id": f"batch_{len(self.batches) + 1}",
            "object": "batch",
            "status": "validating",
            "endpoint": wanted["endpoint"],
            "input_file_id": wanted["input_file_id"],
            "completion_window": wanted["completion_window"],
            "created_at": now,
            "expires_at": now + 86400,
            "request_counts": dict.fromkeys(("total", "completed", "failed"), 0),
            "metadata": wanted.get("metadata"),
        }
        self.batches.append(batch)
        self._tasks[batch["id"]] = asyncio.create_task(
            self._work(batch, request.headers.get("Authorization"))
        )
        self.batch["crash"]()
        if len(self.batches) <= self.batch["reset_after_create"]:
            await self._hang_up(request)
        return web.json_response(batch)

    def _list(self, request):
        newest, after, limit = (
            self.batches[::-1],
            request.query.get("after"),
            int(request.query.get("limit", 20)),
        )
        first = newest.index(self._find(newest, after)) + 1 if after else 0
        return {
            "object": "list",
            "data": newest[first : first + limit],
            "has_more": first + limit < len(newest),
        }

    def _cancel(self, request):
        batch = self._batch(request)
        if batch["status"] not in ("validating", "in_progress"):
            raise web.HTTPConflict(text=json.dumps(error(409)[1]), content_type="application/json")
        self._stage(batch, "cancelling")
        self._tasks[batch["id"]].cancel()
        return batch

    def _lines(self, batch):
        content = self._find(self._files, batch["input_file_id"])["content"]
        return [json.loads(line) for line in content.splitlines() if line.strip()]

    def _stage(self, batch, status):
        batch |= {"status": status, f"{status}_at": int(time.time())}

    def _wrong_with(self, batch, lines):
        """-> the code with which the batch fails, or None."""
        messages = [
            m
            for line in lines
            for m in line["body"].get("messages") or [{"content": line["body"]["prompt"]}]
        ]
        wrong = {
            "token_limit_exceeded": sum(len(message["content"]) for message in messages) / 4
            > self.batch["max_tokens_enqueued"],
            "duplicate_custom_id": len({line["custom_id"] for line in lines}) < len(lines),
            "invalid_url": any(line["url"] != batch["endpoint"] for line in lines),
            "mismatched_model": len({line["body"]["model"] for line in lines}) > 1,
        }
        return self.batch["fail"] or next((code for code, found in wrong.items() if found), None)

    async def _work(self, batch, key):
        """The life of a batch.

        A fifth of its time for validation, a fifth at the end, its lines in ten parts in between.
        """
        seconds, todo, done, end = self.batch["seconds"], self._lines(batch), [], "completed"
        part = max(1, math.ceil(len(todo) / 10))
        try:
            await asyncio.sleep(0.2 * seconds)
            if code := self._wrong_with(batch, todo):
                problem = {
                    "code": code,
                    "message": f"It cannot be executed: {code}.",
                    "line": None,
                    "param": None,
                }
                batch["errors"] = {"object": "list", "data": [problem]}
                return self._stage(batch, "failed")
            self._stage(batch, "in_progress")
            while todo:
                await asyncio.sleep(0.06 * seconds)
                done += [self._line(line, batch, key) for line in todo[:part]]
                todo = todo[part:]
                self._count(batch, done, todo)
            self._stage(batch, "finalizing")
            await asyncio.sleep(0.2 * seconds)
            if any(entry["fault"] == "expire" for _, _, entry in done):
                end = "expired"
        except asyncio.CancelledError:
            if batch["status"] != "cancelling":  # nobody asked for that: the server is closed
                raise
            end = "cancelled"
            done += [("error", self._record(line, None, "batch_cancelled"), None) for line in todo]
        except Exception:  # of a hook; _end_batches() reports it
            self._stage(batch, "failed")
            raise
        for kind in ("output", "error"):
            self._write(batch, kind, done)
        self._count(batch, done, [])
        self._stage(batch, end)

    def _line(self, line, batch, key):
        """Execute a line, or do to it what the options say.

        -> (the file it goes to or None, what that says, log entry)
        """
        entry = self._log("batch", line["body"], key)
        fates = {name: self.batch[name] for name in ("missing", "line_error", "expire")}
        if batch is not self.batches[0] and not self.batch["expire_all"]:
            fates["expire"] = 0
        entry["fault"] = fate = self._draw(fates, "fate", batch["id"], line["custom_id"])
        if fate in ("missing", "expire"):
            return (
                ("error" if fate == "expire" else None),
                self._record(line, None, "batch_expired"),
                entry,
            )
        if not fate:
            self._decide(entry)
        if fate or entry["fault"] in ON_THE_WIRE:
            entry["status"], answer = error("500")
        else:
            answer = self._answer(entry)
        response = {
            "status_code": entry["status"],
            "request_id": f"req-{entry['id']}",
            "body": answer,
        }
        return "output" if entry["status"] == 200 else "error", self._record(line, response), entry

    def _record(self, line, response, code=None):
        problem = (
            {"code": code, "message": "This request could not be executed before the batch ended."}
            if code
            else None
        )
        return {
            "id": f"batch_req_{next(self._ids)}",
            "custom_id": line["custom_id"],
            "response": response,
            "error": problem,
        }

    def _count(self, batch, done, todo):
        failed = sum(kind == "error" for kind, _, _ in done)
        batch["request_counts"] = {
            "total": len(done) + len(todo),
            "completed": len(done) - failed,
            "failed": failed,
        }

    def _write(self, batch, kind, done):
        """Make the output or the error file, if anything goes there, with what the options put into
        the output.
        """
        records = [record for to, record, _ in done if to == kind]
        if not records:
            return
        lines = [json.dumps(record) for record in records]
        if kind == "output":
            rng = self._random("output", batch["id"])
            lines += [line for line in lines if rng.random() < self.batch["duplicate"]]
            lines += [
                json.dumps(records[0] | {"custom_id": f"foreign-{n}"})
                for n in range(self.batch["foreign"])
            ]
            lines += ['{"id": "batch_req_'] * self.batch["garbage"]
            if self.batch["shuffle"]:
                rng.shuffle(lines)
        content = "".join(f"{line}\n" for line in lines).encode()
        entries = [entry for to, _, entry in done if to == kind and entry]
        batch[f"{kind}_file_id"] = self._store(
            content, "batch_output", f"{batch['id']}_{kind}.jsonl", entries
        )["id"]

    async def _end_batches(self):
        for task in self._tasks.values():
            task.cancel()
        ends = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._bugs += [end for end in ends if isinstance(end, Exception)]


if __name__ == "__main__":
    options = json.loads(sys.argv[1]) if sys.argv[1:] else {}
    port = options.pop("port", None)
    server = FaultServer(**options)
    server.start(port)
    print(server.url, flush=True)
    threading.Event().wait()  # until it is killed
