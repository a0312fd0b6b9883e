"""A model behind a URL: its client, what is sent to it and what is kept of its answers, live and by the Batch API alike."""

import json
import os
from urllib.parse import urlsplit

import httpx2
import openai

from common.core.errors import InputError, Stopped
from common.core.files import utf8
from common.generate.budget import Budget, format_usd
from common.generate.requests import cut_at_stop
from common.generate.responses import parse_answer, check_base_url


class Endpoint:
    """The identity is the model's name alone: the same model behind another URL reuses what is journalled. concurrency:
    requests in flight at most; timeout: seconds for one request in all. The key comes from OPENAI_API_KEY.
    """

    def __init__(self, model, base_url=None, concurrency=256, timeout=300, budget=None):
        if not model:
            raise InputError(
                "no model was named for the server.\nSay which: --model NAME (and --base-url for your own server)"
            )
        self.model, self.identity, self.concurrency, self.timeout = (
            model,
            model,
            concurrency,
            timeout,
        )
        self.budget = budget or Budget(model)
        self.base_url = check_base_url(base_url)
        self.key = (os.environ.get("OPENAI_API_KEY") or "").strip()
        # What is taken out of all that is kept. A placeholder for a server of one's own ("EMPTY", "x") is no secret, but a word of answers.
        self.secret = self.key if len(self.key) >= 12 else ""

    def where(self):
        return self.base_url or "the OpenAI API"

    def approve(self, tasks, journal):
        """Print what the open tasks will cost; InputError where nobody has agreed to it, or where there is no key."""
        if not self.base_url and not self.key:
            raise InputError(
                "no server and no key: give --base-url http://HOST:PORT/v1, or export OPENAI_API_KEY=..."
            )
        if not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise InputError(
                "OPENAI_API_KEY holds a character that no key has (a space, a line end, ...).\nExport it again."
            )
        self.budget.approve(
            tasks, journal, commercial=(self.base_url or "https").startswith("https")
        )

    def close(self):
        """Nothing is held between two runs."""

    def root(self):
        """What the server says that its model is (vLLM: the folder), or "" where it says nothing, or is not there."""
        try:
            with self.client(openai.OpenAI, openai.DefaultHttpxClient) as api:
                listed = json.loads(
                    api.with_options(timeout=5).models.with_raw_response.list().content
                )["data"]
            return next(
                (str(model.get("root") or "") for model in listed if model.get("id") == self.model),
                "",
            )
        except Exception:  # whatever a server, or what is no server, answers
            return ""

    def client(self, Client=openai.AsyncOpenAI, Http=openai.DefaultAioHttpClient):
        """The openai client, its hidden retries off; aiohttp holds hundreds of connections at a third of httpx's CPU."""
        here = urlsplit(self.base_url or "").hostname in ("127.0.0.1", "localhost", "::1")
        http = Http(
            trust_env=not here,  # a proxy of the environment must not see loopback requests
            limits=httpx2.Limits(
                max_connections=self.concurrency, max_keepalive_connections=self.concurrency
            ),
        )
        return Client(
            base_url=self.base_url,
            api_key=self.key or "none",
            max_retries=0,
            http_client=http,
            timeout=httpx2.Timeout(self.timeout, connect=min(10, self.timeout)),
        )

    def request_body(self, task):
        """-> the JSON of a request, the same live and in a batch."""
        sampling, prompt = task.sampling, task.request.prompt
        if isinstance(prompt, str):
            body = {"model": self.model, "prompt": utf8(prompt)}
        else:
            body = {
                "model": self.model,
                "messages": [m | {"content": utf8(m["content"])} for m in prompt],
            }
        if sampling.temperature is None:
            return body | {"max_completion_tokens": sampling.max_new_tokens}
        body |= {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.seed is not None:
            body["seed"] = int(
                task.key[:7], 16
            )  # one per sample: with one for all, equal prompts draw equal texts
        if sampling.stop:
            body["stop"] = (
                sampling.stop if self.base_url else sampling.stop[:4]
            )  # OpenAI's own takes four; all apply below
        return body

    def finish(self, task, body, batch=False):
        """The JSON of an answer -> what is journalled: text before a stop string, usage, model and USD."""
        answer = parse_answer(body, raw=isinstance(task.request.prompt, str))
        answer["text"], stopped = cut_at_stop(answer["text"], task.sampling.stop)
        if stopped:
            answer["finish_reason"] = "stop"
        usd = self.budget.cost(answer["usage"], batch)
        if self.budget.prices:  # no usage was told, or more than can be: the most that can be
            usd = min(self.budget.worst(task), float("inf") if usd is None else usd)
        self.budget.spent += usd or 0.0
        return answer | {"model": self.model} | ({"usd": usd} if usd is not None else {})

    def no_budget(self):
        budget = self.budget
        lost = (
            f", perhaps {format_usd(budget.lost)} more for requests that failed"
            if budget.lost
            else ""
        )
        return Stopped(
            f"--budget {budget.limit:g} has no room for another answer at its worst: {format_usd(budget.spent)} are spent{lost}.\n"
            "Run the same command with a larger --budget: it goes on where it was.",
            4,
        )
