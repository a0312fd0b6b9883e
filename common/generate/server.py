"""Generation by any OpenAI-compatible server (vLLM, the OpenAI API), through the openai client."""

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
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
        base_url = base_url or os.environ.get("OPENAI_BASE_URL")
        key = os.environ.get("OPENAI_API_KEY")
        if not base_url and not key:
            raise InputError("no server and no key: give --base-url http://HOST:PORT/v1, or export OPENAI_API_KEY=...")
        self.model, self.identity, self.concurrency = model, model, concurrency
        here = urlsplit(base_url or "").hostname in ("127.0.0.1", "localhost", "::1")
        client = openai.DefaultHttpxClient(trust_env=not here)  # a proxy of the environment must not see loopback requests
        self.client = openai.OpenAI(base_url=base_url, api_key=key or "none", max_retries=5, timeout=timeout, http_client=client)

    def generate(self, requests, keys, sampling, done):
        """Yield [(index, answer)] as answers arrive; an answer is {"text", "finish_reason", "usage"} or {"error"}."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            waiting = {pool.submit(self._ask, r.prompt, sampling, keys[i]): i for i, r in enumerate(requests) if i not in done}
            try:
                for future in as_completed(waiting):
                    yield [(waiting[future], future.result())]
            except FATAL as error:
                raise InputError(f"the server refused model {self.model!r} ({type(error).__name__}: {str(error)[:300]})\n"
                                 "Check --model, --base-url and OPENAI_API_KEY, then run the same command again: "
                                 "what was answered is kept.") from error
            finally:
                pool.shutdown(cancel_futures=True)

    def _ask(self, prompt, sampling, key):
        settings = dict(model=self.model, max_tokens=sampling.max_new_tokens, temperature=sampling.temperature,
                        top_p=sampling.top_p)
        if sampling.seed is not None:
            settings["seed"] = int(key[:7], 16)  # one per sample: with one for all, equal prompts draw equal texts
        if sampling.stop:
            settings["stop"] = sampling.stop[:4]  # the OpenAI API takes four; all of them are applied again below
        try:
            if isinstance(prompt, str):
                done = self.client.completions.create(prompt=prompt, **settings)
            else:
                done = self.client.chat.completions.create(messages=prompt, **settings)
            choice = done.choices[0]
            text = choice.text if isinstance(prompt, str) else choice.message.content
        except FATAL:
            raise
        except (openai.OpenAIError, ValueError, TypeError, IndexError, AttributeError) as error:
            return {"error": f"{type(error).__name__}: {str(error)[:300]}"}  # a broken answer is this row's failure only
        if not text:
            return {"error": f"empty answer (finish_reason {choice.finish_reason})"}
        text, stopped = cut_at_stop(text, sampling.stop)
        usage = done.usage and {"prompt_tokens": done.usage.prompt_tokens, "completion_tokens": done.usage.completion_tokens}
        return {"text": text, "finish_reason": "stop" if stopped else choice.finish_reason, "usage": usage}
