"""Generation by any OpenAI-compatible server (vLLM, the OpenAI API), through the openai client."""

import os
import queue
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import openai

from common.files import InputError
from common.generate import cut_at_stop

# What no retry mends: it would hit every row, so it ends the run (the journal keeps what was answered).
FATAL = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError, openai.APIConnectionError)


class Server:
    """Engine over a server: messages go to /v1/chat/completions, raw text to /v1/completions.

    The identity is the model's name alone: the same model behind another URL reuses what is journalled.
    """

    def __init__(self, model, base_url=None, concurrency=16, timeout=600):
        if not model:
            raise InputError("no model was named for the server.\nSay which: --model NAME (and --base-url for your own server)")
        self.model, self.identity, self.concurrency, self.timeout = model, model, concurrency, timeout
        self.retries = 5  # of the client, for connection errors, 408, 409, 429 and 5xx
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL")

    def _client(self):
        key = os.environ.get("OPENAI_API_KEY")
        if not self.base_url and not key:
            raise InputError("no server and no key: give --base-url http://HOST:PORT/v1, or export OPENAI_API_KEY=...")
        here = urlsplit(self.base_url or "").hostname in ("127.0.0.1", "localhost", "::1")
        http = openai.DefaultHttpxClient(trust_env=not here)  # a proxy of the environment must not see loopback requests
        return openai.OpenAI(base_url=self.base_url, api_key=key or "none", max_retries=self.retries, timeout=self.timeout, http_client=http)

    def generate(self, requests, keys, sampling, done):
        """Yield [(index, answer)] as answers arrive; an answer is {"text", "finish_reason", "usage"} or {"error"}."""
        todo = [i for i in range(len(requests)) if i not in done]
        if not todo:
            return  # everything is journalled: no key and no server needed
        finished, fatal = queue.SimpleQueue(), None
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            index = {pool.submit(self._ask, client, requests[i].prompt, sampling, keys[i]): i for i in todo}
            for future in index:
                future.add_done_callback(finished.put)
            try:
                for _ in todo:
                    future = finished.get()
                    if future.cancelled():
                        continue
                    if isinstance(future.exception(), FATAL):  # ask nothing new, but keep what is still answered
                        fatal = fatal or future.exception()
                        pool.shutdown(wait=False, cancel_futures=True)
                        continue
                    yield [(index[future], future.result())]
            finally:
                pool.shutdown(cancel_futures=True)
        if fatal:
            raise InputError(f"the server cannot be asked for model {self.model!r} ({type(fatal).__name__}: {str(fatal)[:300]})\n"
                             "Check --model, --base-url and OPENAI_API_KEY, then run the same command again: "
                             "what was answered is kept.") from fatal

    def _ask(self, client, prompt, sampling, key):
        settings = dict(model=self.model, max_tokens=sampling.max_new_tokens, temperature=sampling.temperature,
                        top_p=sampling.top_p)
        if sampling.seed is not None:
            settings["seed"] = int(key[:7], 16)  # one per sample: with one for all, equal prompts draw equal texts
        if sampling.stop:
            settings["stop"] = sampling.stop if self.base_url else sampling.stop[:4]  # OpenAI's own takes four; all apply below
        try:
            if isinstance(prompt, str):
                done = client.completions.create(prompt=prompt, **settings)
            else:
                done = client.chat.completions.create(messages=prompt, **settings)
            choice = done.choices[0]
            text = choice.text if isinstance(prompt, str) else choice.message.content
        except openai.APITimeoutError as error:  # a connection error by its class, yet of this row only
            return {"error": f"{type(error).__name__}: {error}"}
        except FATAL:
            raise
        except (openai.OpenAIError, ValueError, TypeError, IndexError, AttributeError) as error:
            return {"error": f"{type(error).__name__}: {str(error)[:300]}"}  # a broken answer is this row's failure only
        if text is None or not text and not isinstance(prompt, str):  # a raw prompt may be completed by nothing
            return {"error": f"empty answer (finish_reason {choice.finish_reason})"}
        text, stopped = cut_at_stop(text, sampling.stop)
        usage = done.usage and {"prompt_tokens": done.usage.prompt_tokens, "completion_tokens": done.usage.completion_tokens}
        return {"text": text, "finish_reason": "stop" if stopped else choice.finish_reason, "usage": usage}
