"""What a server sends, read with distrust: answers, errors and what they mean, how long to wait."""

import os
import time
from email.utils import parsedate_to_datetime
from enum import Enum
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai

from common.core.errors import InputError

# The flag for each field of a request; a server that refuses the field refuses every row.
FLAGS = {
    "max_tokens": "--reasoning-effort LEVEL (sends max_completion_tokens)",
    "temperature": "--temperature none, --temperature 1 or --reasoning-effort LEVEL",
    "top_p": "--top-p none, --top-p 1 or --reasoning-effort LEVEL",
    "max_completion_tokens": "no --reasoning-effort, or a smaller --max-new-tokens",
    "model": "--model NAME",
    "seed": "another server",
    "stop": "another server",
}
TOO_LONG = (  # of a prompt or its answer; OpenAI refuses one over the account's limit with a 429
    "request too large",
    "context length",
    "context_length",
    "maximum context",
    "too long",
    "reduce the length",
    "string_above_max_length",
)
NOT_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    httpx2.ConnectError,
)


class ErrorKind(Enum):
    """What a failed request means. Its value is the status with which the run ends, if it must."""

    RATE_LIMIT = "wait", None  # the server wants fewer requests
    NO_CONNECTION = "connect", None  # nobody listens, for now
    RETRY = "retry", None  # nothing was paid
    UNCERTAIN = "uncertain", None  # it may have been paid
    ROW = "row", None  # this request can never be answered
    SETTINGS = "settings", 2  # no request can be answered: model, URL or a field of the request
    ACCESS = "access", 4  # no request can be answered: key, quota, balance

    @property
    def exit_status(self) -> int | None:
        return self.value[1]


STATUS_KINDS = {
    401: ErrorKind.ACCESS,
    402: ErrorKind.ACCESS,
    403: ErrorKind.ACCESS,
    404: ErrorKind.SETTINGS,
    405: ErrorKind.SETTINGS,
    408: ErrorKind.RETRY,
    409: ErrorKind.RETRY,
    429: ErrorKind.RATE_LIMIT,
    501: ErrorKind.SETTINGS,
    529: ErrorKind.RATE_LIMIT,
}
CODE_KINDS = {  # of the error in the body; they say more than the status
    "insufficient_quota": ErrorKind.ACCESS,
    "billing_hard_limit_reached": ErrorKind.ACCESS,
    "account_deactivated": ErrorKind.ACCESS,
    "model_not_found": ErrorKind.SETTINGS,
}
FIXES = {
    ErrorKind.ACCESS: "Check OPENAI_API_KEY, the account's balance, and --base-url",
    ErrorKind.SETTINGS: "Check --model {model} and --base-url (most end in /v1)",
}


class WebPageError(Exception):
    """HTML with status 200: a wrong path, a login page, a proxy's notice."""


def check_base_url(base_url: str | None) -> str | None:
    """Return the server's URL: --base-url, else OPENAI_BASE_URL, else None for the OpenAI API.

    InputError if it is no URL, or if it holds a secret.
    """
    url = base_url or os.environ.get("OPENAI_BASE_URL") or None
    if url is None:
        return None
    if "@" in url or "?" in url:
        raise InputError(
            "--base-url (or OPENAI_BASE_URL) holds a name, a password or a query, which would be "
            "written to logs and manifests.\nGive it without, and the key in the environment: "
            "export OPENAI_API_KEY=..."
        )
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise InputError(
            f"--base-url {url!r} is no URL of a server.\n"
            "Expected for example --base-url http://localhost:8000/v1"
        )
    return url


# --- answers --------------------------------------------------------------------------------------


def parse_answer(body, raw: bool) -> dict:
    """Return {"text", "finish_reason", "usage"} of an answer's JSON, and "refusal" if there is one.

    raw: the prompt was raw text, no messages. ValueError if the JSON is no answer at all.
    """
    if not isinstance(body, dict):
        raise ValueError("the answer is no JSON object")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError(f"no choices in the answer, but {str(body.get('error') or body)[:2000]}")
    choice = choices[0]
    message = choice.get("message")
    if raw:
        text = choice.get("text")
    elif isinstance(message, dict):
        text = message.get("content")
    else:
        text = message
    if text is None and not raw:
        text = ""  # a refusal, or nothing was written
    if not isinstance(text, str):
        raise ValueError(f"no text in the answer, but {str(choice)[:2000]}")
    finish = choice.get("finish_reason")
    answer = {
        "text": text,
        "finish_reason": finish if isinstance(finish, str) else None,
        "usage": _parse_usage(body.get("usage")),
    }
    if isinstance(message, dict) and message.get("refusal"):
        answer["refusal"] = str(message["refusal"])
    return answer


def _parse_usage(usage) -> dict | None:
    """Return the token counts of an answer, None if any is no sensible whole number."""
    if not isinstance(usage, dict):
        return None
    counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
    details = usage.get("prompt_tokens_details")
    for name in ("cached_tokens", "cache_write_tokens"):
        if isinstance(details, dict) and details.get(name):
            counts[name] = details[name]
    if not all(map(_is_count, counts.values())):
        return None
    # completion_tokens holds the reasoning, too (OpenAI). If it does not (xAI, Gemini), the total
    # is larger than the two counts.
    total = usage.get("total_tokens")
    if _is_count(total):
        n_generated = total - usage["prompt_tokens"]
        counts["completion_tokens"] = max(usage["completion_tokens"], n_generated)
    return counts


def _is_count(number):
    return type(number) is int and 0 <= number < 10**9  # bool is an int, too


# --- errors ---------------------------------------------------------------------------------------


def parse_retry_after(headers) -> float | None:
    """Return the seconds that a refusal asks to wait, None if it does not say.

    Retry-After-Ms is in milliseconds, Retry-After in seconds or a date.
    """
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) / scale
        except ValueError:
            seconds = _seconds_until(text)
        if seconds is not None and seconds == seconds:  # no NaN
            return max(0.0, seconds)
    return None


def _seconds_until(date) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


def redact(text: str, key: str) -> str:
    """Return at most 400 characters of a server's text, without the key.

    A server may repeat the key in its messages, which go to logs and journals.
    """
    return (text.replace(key, "***") if key else text)[:400]


def classify_error(error: BaseException, model: str, key: str = "") -> tuple[ErrorKind, str]:
    """Return the kind of a failed request, and the reason in a server's words."""
    if isinstance(error, TimeoutError):
        return ErrorKind.UNCERTAIN, "no answer in time (--timeout)"
    if isinstance(error, WebPageError):
        reason = "a web page came instead of an answer: is --base-url right? (most end in /v1)"
        return ErrorKind.RETRY, reason
    if isinstance(error, openai.APIStatusError):
        has_wait = "retry-after" in error.response.headers
        return classify_status(error.status_code, error.body, model, has_wait, key)
    kind = ErrorKind.UNCERTAIN  # broken JSON, no choices: it was generated and cannot be read
    if isinstance(error, openai.APIConnectionError):
        while error.__cause__ and not isinstance(error, aiohttp.ClientError):
            error = error.__cause__  # the transport's own: the client calls most of them a timeout
        if isinstance(error, NOT_CONNECTED):
            kind = ErrorKind.NO_CONNECTION
    return kind, redact(f"{type(error).__name__}: {error}", key)


def classify_status(
    status: int, body, model: str, has_wait: bool = False, key: str = ""
) -> tuple[ErrorKind, str]:
    """Return the kind and the reason of an HTTP status with its body, live or a line of a batch.

    has_wait: the response says when to come back.
    """
    body = body if isinstance(body, dict) else {"message": body}
    code = str(body.get("code") or "")
    message = str(body.get("message") or "")
    reason = redact(" ".join(f"{status} {code} {message}".split()), key)
    kind = CODE_KINDS.get(code) or STATUS_KINDS.get(status)
    if kind is None and status >= 500:
        kind = ErrorKind.RATE_LIMIT if status == 503 and has_wait else ErrorKind.RETRY
    if kind in FIXES:
        return kind, f"{reason}\n{FIXES[kind].format(model=model)}"
    if kind is ErrorKind.RETRY:
        return kind, reason
    if _is_too_long(f"{code} {message}"):
        return ErrorKind.ROW, reason
    if kind is ErrorKind.RATE_LIMIT:
        return kind, reason
    field = _refused_field(body, message)
    if field:
        fix = f"The server refuses {field}: give {FLAGS[field]}"
        return ErrorKind.SETTINGS, f"{reason}\n{fix}"
    return ErrorKind.ROW, reason


def _is_too_long(text) -> bool:
    return any(sign in text.lower() for sign in TOO_LONG)


def _refused_field(body, message) -> str | None:
    """Return the field of the request that a server refuses, or None."""
    for name in FLAGS:
        if name == body.get("param") or f"'{name}'" in message or f'"{name}"' in message:
            return name
    return None
