"""What a server sends, read with distrust: answers, errors and what they mean, how long to wait."""

import os
import re
import time
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai

from common.core.errors import InputError
from common.generate.transport import TooLargeError

# The flag for each field of a request that a server may refuse.
FLAGS = {
    "max_tokens": "--max-new-tokens N, or --reasoning-effort LEVEL (sends max_completion_tokens)",
    "max_completion_tokens": "--max-new-tokens N, or leave --reasoning-effort out",
    "temperature": "--temperature none, --temperature 1 or --reasoning-effort LEVEL",
    "top_p": "--top-p none, --top-p 1 or --reasoning-effort LEVEL",
    "reasoning_effort": "another --reasoning-effort, or none of it",
    "model": "--model NAME",
    "seed": "another server",
    "stop": "another server",
}
NOT_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    httpx2.ConnectError,
)


class ErrorKind(Enum):
    """What a failed request means. Its value: a name, and the status of a run that it ends."""

    RATE_LIMIT = "the server wants fewer requests: all wait", None
    NO_CONNECTION = "nobody listens, for now: all wait", None
    RETRY = "the server fails: this request is tried again; if all fail, all wait", None
    UNCERTAIN = "no answer, and it may have been paid: it is tried again", None
    ROW = "this request can never be answered", None
    REFUSED = "the row's fault if others are answered, the settings' if they are refused, too", 2
    FORBIDDEN = "the same of 403: the account may not do it", 4
    SETTINGS = "no request can be answered: URL, or who answers there", 2
    ACCOUNT = "no request can be answered: key, credit, quota", 4

    @property
    def exit_status(self) -> int | None:
        return self.value[1]


# What an error is called or says, in any provider's spelling, with the meaning that this has
# whatever the HTTP status; the first that fits. Letters only: "content_filter" is "contentfilter".
SIGNS = (
    (
        ErrorKind.ACCOUNT,
        r"insufficientquota|billing(hard)?limit|accountdeactivated|creditbalance|arrearage"
        r"|insufficient(funds|credit|balance)|outofcredit|paymentrequired|morecredits|overdue"
        r"|invalidapikey|incorrectapikey|apikeynotvalid|apikeyinvalid|unauthorized",
    ),
    (ErrorKind.SETTINGS, r"modelnotfound"),
    (
        ErrorKind.ROW,
        r"contentfilter|contentpolicy|contentmanagement|moderat|flagged|datainspection|safety"
        r"|inappropriate|prohibitedcontent|invalidprompt|usagepolic|outputblocked|blockedby",
    ),
    (
        ErrorKind.ROW,
        r"(request|prompt|input)(is|was)?too(large|long)|contextlength|contextsize|contextwindow"
        r"|maximumcontext|toolong|reducethelength|mustbereduced|stringabovemaxlength"
        r"|toomany(input)?tokens|tokencountexceeds|maxmodellen",
    ),
)
STATUS_KINDS = {
    401: ErrorKind.ACCOUNT,
    402: ErrorKind.ACCOUNT,
    403: ErrorKind.FORBIDDEN,
    408: ErrorKind.RETRY,
    409: ErrorKind.RETRY,
    425: ErrorKind.RETRY,
    429: ErrorKind.RATE_LIMIT,
    529: ErrorKind.RATE_LIMIT,
}
CHECK_ACCOUNT = "Check OPENAI_API_KEY, the account's balance, and --base-url"
FIXES = {
    ErrorKind.ACCOUNT: CHECK_ACCOUNT,
    ErrorKind.FORBIDDEN: CHECK_ACCOUNT,
    ErrorKind.SETTINGS: "Check --model {model} and --base-url (most end in /v1)",
    ErrorKind.REFUSED: "Check --model {model}, --base-url (most end in /v1), and --extra-body",
}
# Keys that are none: servers of one's own want some word, which answers may hold by chance.
PLACEHOLDERS = {"", "empty", "none", "null", "dummy", "test", "token", "key", "secret", "nokey"}


class BodyError(ValueError):
    """An error inside an answer with status 200: nothing was generated, and nothing paid."""

    def __init__(self, error):
        super().__init__("an error came instead of an answer")
        self.error = error


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


def parse_answer(body: Any, raw: bool) -> dict:
    """Return {"text", "finish_reason", "usage"} of an answer's JSON, and "refusal" if there is one.

    raw: the prompt was raw text, no messages. ValueError if the JSON is no answer at all.
    """
    if not isinstance(body, dict):
        raise ValueError("the answer is no JSON object")
    choices = body.get("choices")
    if body.get("error") and not choices:
        raise BodyError(body["error"])
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError(f"no choices in the answer, but {str(body)[:2000]}")
    choice = choices[0]
    message = choice if raw else choice.get("message")
    if not isinstance(message, dict):
        message = {"content": message}
    content = message.get("text" if raw else "content")
    text, n_thought = _join_parts(content)
    if text is None or (raw and not isinstance(content, str)):
        raise ValueError(f"no text in the answer, but {str(choice)[:2000]}")
    answer = {
        "text": text,
        "finish_reason": _text_or_none(choice.get("finish_reason")),
        "usage": _parse_usage(body.get("usage")),
    }
    n_thought += len(str(message.get("reasoning_content") or message.get("reasoning") or ""))
    if n_thought:
        answer["reasoning"] = n_thought  # characters
        answer["text"] = text.lstrip("\n")  # what separates it from the thinking
    if message.get("refusal"):
        answer["refusal"] = str(message["refusal"])
    return answer


def _text_or_none(value):
    return value if isinstance(value, str) else None


def _join_parts(content) -> tuple:
    """Return the text of a message's content, and how many characters of it are thinking.

    It is a string, nothing (a refusal), or a list of parts. The text is None if it is none of them.
    """
    if content is None:
        return "", 0
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        return None, 0
    text, n_thought = "", 0
    for part in content:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text += part["text"]
        elif isinstance(part, str):
            text += part
        else:
            n_thought += len(str(part))
    return text, n_thought


def _parse_usage(usage) -> dict | None:
    """Return the token counts of an answer, None if any is no sensible whole number."""
    if not isinstance(usage, dict):
        return None
    counts = {name: _number(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")}
    details = usage.get("prompt_tokens_details")
    for name in ("cached_tokens", "cache_write_tokens"):
        if isinstance(details, dict) and details.get(name):
            counts[name] = _number(details[name])
    if not all(map(_is_count, counts.values())):
        return None
    # completion_tokens holds the reasoning, too (OpenAI). If it does not (xAI, Gemini), the total
    # is larger than the two counts.
    total = _number(usage.get("total_tokens"))
    if _is_count(total):
        n_generated = total - counts["prompt_tokens"]
        counts["completion_tokens"] = max(counts["completion_tokens"], n_generated)
    return counts


def _number(value) -> Any:
    """Return a whole number that is written as text, and anything else as it is."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) else value


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


def secret_of(key: str) -> str:
    """Return what must never be written of a key: all of it, "" if it is a mere placeholder.

    A server may repeat the key, in its messages or in a text. A placeholder is one of a few words,
    or shorter than four characters: answers hold these by chance.
    """
    is_placeholder = re.sub(r"\W|_", "", key).lower() in PLACEHOLDERS or len(key) < 4
    return "" if is_placeholder else key


def redact(text: str, key: str, limit: int | None = 400) -> str:
    """Return at most `limit` characters of a server's text, without the key."""
    return (text.replace(key, "***") if key else text)[:limit]


def classify_error(error: BaseException, model: str, key: str = "") -> tuple[ErrorKind, str]:
    """Return the kind of a failed request, and the reason in a server's words."""
    if isinstance(error, TimeoutError):
        return ErrorKind.UNCERTAIN, "no answer in time (--timeout)"
    if isinstance(error, WebPageError):
        reason = "a web page came instead of an answer: is --base-url right? (most end in /v1)"
        return ErrorKind.RETRY, reason
    if isinstance(error, BodyError):
        code = str(error.error.get("code")) if isinstance(error.error, dict) else ""
        status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else 500
        return classify_status(status, error.error, model, key=key)
    if isinstance(error, openai.APIStatusError):
        if error.status_code < 400:
            host = urlsplit(error.response.headers.get("location", "")).netloc
            reason = f"{error.status_code}: the server sends elsewhere, to {host[:99] or 'nowhere'}"
            return ErrorKind.SETTINGS, f"{reason}\n{FIXES[ErrorKind.SETTINGS].format(model=model)}"
        has_wait = "retry-after" in error.response.headers
        return classify_status(error.status_code, error.body, model, has_wait, key)
    kind = ErrorKind.UNCERTAIN  # broken JSON, no choices: it was generated and cannot be read
    if isinstance(error, openai.APIConnectionError):
        while error.__cause__ and not isinstance(error, aiohttp.ClientError | TooLargeError):
            error = error.__cause__  # the transport's own: the client calls most of them a timeout
        if isinstance(error, NOT_CONNECTED):
            kind = ErrorKind.NO_CONNECTION
    return kind, redact(f"{type(error).__name__}: {error}", key)


def classify_status(
    status: int, body, model: str, has_wait: bool = False, key: str = ""
) -> tuple[ErrorKind, str]:
    """Return the kind and the reason of an HTTP status with its body, live or a line of a batch.

    has_wait: the response says when to come back. In this order: what the error says; its status;
    any other refusal (4xx) is judged by what else is answered.
    """
    names, message = _describe(body)
    reason = redact(" ".join(f"{status} {names} {message}".split()), key)
    fields = _refused_fields(names, message)
    kind = _find_kind(status, f"{names} {message}", has_wait)
    if kind is ErrorKind.ROW and {"max_tokens", "max_completion_tokens"} & set(fields):
        kind = ErrorKind.REFUSED  # more than the model may write, whatever the prompt
    fix = FIXES.get(kind, "").format(model=model)
    if fields and kind is ErrorKind.REFUSED:
        flags = "; ".join(FLAGS[field] for field in fields)
        fix = f"The server refuses {' and '.join(fields)}: give {flags}"
    return kind, f"{reason}\n{fix}" if fix else reason


def _find_kind(status, text, has_wait):
    if status == 501:
        return ErrorKind.SETTINGS
    if status >= 500 and status != 529:
        is_busy = status == 503 and has_wait
        return ErrorKind.RATE_LIMIT if is_busy else ErrorKind.RETRY
    if status == 429 and _asks_too_much(text):
        return ErrorKind.ROW
    letters = re.sub(r"[^a-z]", "", text.lower())
    for kind, sign in SIGNS:
        if re.search(sign, letters):
            return kind
    return STATUS_KINDS.get(status, ErrorKind.REFUSED)


def _describe(body) -> tuple[str, str]:
    """Return what an error's body calls it (code, type, field), and what it says, as text.

    {"error": {...}}, {"detail": ...}, {"message": ...}, a list of one of them, or plain text.
    """
    body = _unwrap(body)
    if not isinstance(body, dict):
        return "", str(body or "")
    names = [body.get(name) for name in ("code", "type", "status", "param")]
    if isinstance(body.get("loc"), list):  # FastAPI: where the fault is
        names += [f"'{part}'" for part in body["loc"]]
    messages = [body[name] for name in ("message", "msg", "detail", "error") if body.get(name)]
    message = messages[0] if messages else body
    if messages and isinstance(message, list | dict):
        more_names, message = _describe(message)
        names.append(more_names)
    return " ".join(str(name) for name in names if name), str(message)


def _unwrap(body):
    """Return the error itself: of {"error": {...}}, of a list its first one."""
    for _ in range(3):
        if isinstance(body, list) and body:
            body = body[0]
        elif isinstance(body, dict) and isinstance(body.get("error"), dict | list):
            body = body["error"]
    return body


def _asks_too_much(message) -> bool:
    """Tell a request over the limit of a minute, which can never pass, from one too many."""
    numbers = re.search(r"[Ll]imit:? (\d+).*[Rr]equested:? (\d+)", message)
    return bool(numbers) and int(numbers[2]) > int(numbers[1])


def _refused_fields(names, message) -> list:
    """Return the fields of the request that a server names."""
    fields = []
    for name in FLAGS:
        bare = rf"\b{name}\b" if "_" in name else rf"['\"`]{name}['\"`]"
        if re.search(rf"(^|[\s'\"]){name}([\s'\"]|$)", names) or re.search(bare, message):
            fields.append(name)
    return fields
