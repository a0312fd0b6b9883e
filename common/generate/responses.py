"""What a server says, read with distrust: answers, failures and what each means for the run, how long to wait."""

import os
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai

from common.core.errors import InputError

# Our flag for each field of a request; a server that refuses the field refuses every row.
FLAGS = {
    "max_tokens": "--reasoning (sends max_completion_tokens instead, and neither temperature nor top_p)",
    "temperature": "--reasoning, or --temperature 1",
    "top_p": "--reasoning, or --top-p 1",
    "max_completion_tokens": "no --reasoning, or a smaller --max-new-tokens",
    "model": "--model NAME",
    "seed": "another server",
    "stop": "another server",
}
LENGTH = (
    "context length",
    "context_length",
    "maximum context",
    "too long",
    "reduce the length",
    "string_above_max_length",
)


def check_base_url(base_url):
    """The URL that a --base-url (or None: OPENAI_BASE_URL, else the OpenAI API) leads to; None for the client's default."""
    url = base_url or os.environ.get("OPENAI_BASE_URL") or None
    if url and ("@" in url or "?" in url):
        raise InputError(
            "--base-url (or OPENAI_BASE_URL) holds a name, a password or a query, which would be written to logs and "
            "manifests.\nGive it without, and the key in the environment: export OPENAI_API_KEY=..."
        )
    try:
        parts = urlsplit(url or "https://api.openai.com/v1")
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise InputError(
            f"--base-url {url!r} is no URL of a server; expected for example http://localhost:8000/v1"
        )
    return url


def parse_answer(body, raw):
    """The JSON of an answer, live or from a batch -> {"text", "finish_reason", "usage"} and "refusal" where there is one.

    raw: whether a raw prompt was asked. ValueError where it is no answer at all. Nothing of a server is taken on trust.
    """
    if not isinstance(body, dict):
        raise ValueError("the answer is no JSON object")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError(f"no choices in the answer, but {str(body.get('error') or body)[:2000]}")
    choice, message = choices[0], choices[0].get("message")
    text = (
        choice.get("text")
        if raw
        else message.get("content")
        if isinstance(message, dict)
        else message
    )
    if not isinstance(text, str | None) or raw and text is None:
        raise ValueError(f"no text in the answer, but {str(choice)[:2000]}")
    finish = choice.get("finish_reason")
    answer = {
        "text": text or "",
        "finish_reason": finish if isinstance(finish, str) else None,
        "usage": _usage(body.get("usage")),
    }
    if isinstance(message, dict) and message.get("refusal"):
        answer["refusal"] = str(message["refusal"])
    return answer


def _usage(usage):
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    counts = {
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
    }
    if isinstance(details, dict) and details.get("cached_tokens"):
        counts["cached_tokens"] = details["cached_tokens"]
    return counts if all(type(n) is int and 0 <= n < 10**9 for n in counts.values()) else None


def parse_retry_after(headers):
    """How long a refusal asks to wait (Retry-After-Ms; Retry-After in seconds or as a date), None where it does not say."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / scale
        except KeyError:
            continue
        except ValueError:
            try:
                seconds = parsedate_to_datetime(headers[name]).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                continue
        if seconds == seconds:
            return max(0.0, seconds)
    return None


class WebPage(Exception):
    """HTML with status 200: a wrong path, a login page, a proxy's notice."""


def redact(text, key):
    """A server may repeat the key in what it says, which goes to logs and journals; it may also say too much."""
    return (text.replace(key, "***") if key else text)[:400]


def classify_error(error, model, key=""):
    """What a failed request means. -> (kind, reason), kind one of

    pause: the server wants less; again: nothing was paid, try again; unsure: try again, though it may have been paid;
    gone: no connection; row: this request can never be answered; status 2 or 4: none can, and the run ends with it.
    """
    if isinstance(error, TimeoutError):
        return "unsure", "no answer in time (--timeout)"
    if isinstance(error, WebPage):
        return (
            "again",
            "a web page came instead of an answer: is --base-url right? (most end in /v1)",
        )
    if isinstance(error, openai.APIStatusError):
        return classify_status(
            error.status_code, error.body, model, "retry-after" in error.response.headers, key
        )
    if isinstance(error, openai.APIConnectionError):
        cause = error
        while cause.__cause__ and not isinstance(
            cause, aiohttp.ClientError
        ):  # the client says timeout for most of these
            cause = cause.__cause__
        gone = isinstance(
            cause,
            aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | httpx2.ConnectError,
        )
        return "gone" if gone else "unsure", redact(f"{type(cause).__name__}: {cause}", key)
    return "unsure", redact(
        f"{type(error).__name__}: {error}", key
    )  # broken JSON, no choices: was generated, cannot be read


def classify_status(status, body, model, overload=False, key=""):
    """`classify_error` of an HTTP status with its body, live or a line of a batch. overload: it says when to come back."""
    body = body if isinstance(body, dict) else {"message": body}
    code, message = str(body.get("code") or ""), str(body.get("message") or "")
    reason = redact(" ".join(f"{status} {code} {message}".split()), key)
    if status in (401, 402, 403) or code in (
        "insufficient_quota",
        "billing_hard_limit_reached",
        "account_deactivated",
    ):
        return 4, f"{reason}\nCheck OPENAI_API_KEY, the account's balance, and --base-url"
    if status in (429, 529) or status == 503 and overload:
        return "pause", reason
    if status in (408, 409) or status >= 500 and status != 501:
        return "again", reason
    if status in (404, 405, 501) or code == "model_not_found":
        return 2, f"{reason}\nCheck --model {model} and --base-url (most end in /v1)"
    named = [
        name
        for name in FLAGS
        if name == body.get("param") or f"'{name}'" in message or f'"{name}"' in message
    ]
    if named and not any(sign in f"{code} {message}".lower() for sign in LENGTH):
        return 2, f"{reason}\nThe server refuses {named[0]}: give {FLAGS[named[0]]}"
    return "row", reason
