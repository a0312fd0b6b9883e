"""What a server sends, read with distrust: answers, errors and what they mean, how long to wait."""

import math
import os
import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import aiohttp
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
NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
CHECK_ACCOUNT = "Check OPENAI_API_KEY, the account's balance, and --base-url"


class ErrorKind(Enum):
    """What a failed request means; the status of a run that it ends, and how to fix it."""

    RATE_LIMIT = "the server wants fewer requests: all wait"
    NO_CONNECTION = "nobody listens, for now: all wait"
    RETRY = "the server fails: this request is tried again; if all fail, all wait"
    WEB_PAGE = "a page came instead of an answer: it is tried again"
    UNCERTAIN = "no answer, and it may have been paid: it is tried again"
    ROW = "this request can never be answered"
    TOO_LONG = (
        "the same: its prompt and the answer have no room in the model's context",
        None,
        "Give a smaller --max-new-tokens, or take a server with a longer context",
    )
    REFUSED = (
        "the row's fault if others are answered, the settings' if they are refused, too",
        2,
        "Check --model, --base-url (most end in /v1), and --extra-body",
    )
    FORBIDDEN = "the same of 403: the account may not do it", 4, CHECK_ACCOUNT
    SETTINGS = (
        "no request can be answered: URL, or who answers there",
        2,
        "Check --model and --base-url (most end in /v1)",
    )
    ACCOUNT = "no request can be answered: key, credit, quota", 4, CHECK_ACCOUNT

    def __init__(self, meaning: str, exit_status: int | None = None, fix: str = ""):
        self.exit_status, self.fix = exit_status, fix


# What an error is called or says, in any provider's spelling, with the meaning that this has
# whatever the HTTP status; the first that fits. Letters only: "content_filter" is "contentfilter".
SIGNS = (
    (
        ErrorKind.ACCOUNT,
        r"insufficientquota|billing(hard)?limit|accountdeactivated|creditbalance|arrearage"
        r"|suspended|spendinglimit|余额不足|欠费"
        r"|insufficient(funds|credit|balance)|outofcredit|paymentrequired|morecredits|overdue"
        r"|invalidapikey|incorrectapikey|apikeynotvalid|apikeyinvalid|unauthorized",
    ),
    (ErrorKind.SETTINGS, r"modelnotfound"),
    (
        ErrorKind.ROW,
        r"contentfilter|contentpolicy|contentmanagement|moderat|flagged|datainspection|safety"
        r"|sensitive(content|information)|敏感|不安全|inappropriate|prohibitedcontent"
        r"|invalidprompt|usagepolic|outputblocked|blockedby",
    ),
    (
        ErrorKind.TOO_LONG,
        r"(request|prompt|input)(is|was)?too(large|long)|contextlength|contextsize|contextwindow"
        r"|maximumcontext|toolong|reducethelength|mustbereduced|stringabovemaxlength"
        r"|toomany(input)?tokens(?!pleasewait)|tokencountexceeds|maxmodellen",
    ),
)
ROWS = (ErrorKind.ROW, ErrorKind.TOO_LONG)  # a failure of this request alone
ERROR_FIELDS = ("code", "type", "status", "param", "loc", "message", "msg", "detail", "error")
ERROR_FIELDS += ("errors", "error_code", "error_msg", "base_resp", "status_code", "status_msg")
STATUS_KINDS = {
    401: ErrorKind.ACCOUNT,
    402: ErrorKind.ACCOUNT,
    403: ErrorKind.FORBIDDEN,
    408: ErrorKind.RETRY,
    409: ErrorKind.RETRY,
    425: ErrorKind.RETRY,
    429: ErrorKind.RATE_LIMIT,
    501: ErrorKind.SETTINGS,
    529: ErrorKind.RATE_LIMIT,
}
TEXT_PARTS = ("text", "output_text")  # any other part of an answer is thinking
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
    url = base_url or os.environ.get("OPENAI_BASE_URL")
    if not url:
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


def _get(body, name, kind: type = object) -> Any:
    """Return a field of a stranger's JSON, None if it is missing or of another kind."""
    value = body.get(name) if isinstance(body, dict) else None
    return value if isinstance(value, kind) else None


def parse_answer(body: Any, raw: bool) -> dict:
    """Return {"text", "finish_reason", "usage"} of an answer's JSON.

    Besides them, if the server says so: "refusal", and "stop_reason", the stop string that ended
    the text (vLLM). raw: the prompt was raw text, no messages. ValueError if the JSON is no answer.
    """
    choices = _get(body, "choices", list)
    if not choices and not _get(body, "usage") and _texts_of(body):
        raise BodyError(_get(body, "error") or body)
    if not choices or not isinstance(choices[0], dict):
        raise ValueError(f"no choices in the answer, but {body}")
    choice = choices[0]
    if raw:
        message, text, n_thought = choice, _get(choice, "text", str), 0
    else:
        message = choice.get("message") or {}
        text, n_thought = _join_parts(message)
    if text is None:
        raise ValueError(f"no text in the answer, but {choice}")
    answer = {
        "text": text,
        "finish_reason": _get(choice, "finish_reason", str),
        "usage": _parse_usage(body.get("usage")),
    }
    n_thought += len(str(_get(message, "reasoning_content") or _get(message, "reasoning") or ""))
    if n_thought:
        answer["reasoning"] = n_thought  # characters
        answer["text"] = text.lstrip("\n")  # what separates it from the thinking
    if _get(message, "refusal"):
        answer["refusal"] = str(message["refusal"])
    if _get(choice, "stop_reason", str):
        answer["stop_reason"] = choice["stop_reason"]
    return answer


def _join_parts(message) -> tuple:
    """Return the text of a message, and how many characters of its content are thinking.

    The content is a string, nothing (a refusal), or a list of parts. The text is None if it is none
    of them.
    """
    content = message.get("content", "") if isinstance(message, dict) else message
    if content is None or isinstance(content, str):
        return content or "", 0
    if not isinstance(content, list):
        return None, 0
    text, n_thought = "", 0
    for part in content:
        words = part if isinstance(part, str) else _get(part, "text", str)
        if words is None or _get(part, "type") not in (None, *TEXT_PARTS):
            n_thought += len(str(part))
        else:
            text += words
    return text, n_thought


def _parse_usage(usage) -> dict | None:
    """Return the token counts of an answer, None if any is no sensible whole number."""
    counts = {name: _count(usage, name) for name in ("prompt_tokens", "completion_tokens")}
    details = _get(usage, "prompt_tokens_details")
    for name in ("cached_tokens", "cache_write_tokens"):
        if _get(details, name):
            counts[name] = _count(details, name)
    if None in counts.values():
        return None
    # completion_tokens holds the reasoning, too (OpenAI). If it does not (xAI, Gemini), the total
    # is larger than the two counts.
    n_generated = (_count(usage, "total_tokens") or 0) - counts["prompt_tokens"]
    counts["completion_tokens"] = max(counts["completion_tokens"], n_generated)
    return counts


def _count(body, name) -> Any:
    """Return a whole number of at most nine digits, which may be written as text, or None."""
    digits = str(_get(body, name))
    return int(digits) if re.fullmatch(r"\d{1,9}", digits) else None


# --- errors ---------------------------------------------------------------------------------------


def parse_retry_after(headers) -> float | None:
    """Return the seconds that a refusal asks to wait, None if it does not say.

    Retry-After-Ms is in milliseconds, Retry-After in seconds or a date.
    """
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        seconds = _parse_seconds(headers.get(name, "")) / scale
        if not math.isnan(seconds):
            return max(0.0, seconds)
    return None


def _parse_seconds(text) -> float:
    """Return the seconds of a number, or until a date; NaN for anything else."""
    with suppress(ValueError):
        return float(text)
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(text).timestamp() - time.time()
    return math.nan


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


def classify_error(error: BaseException, key: str = "", prompt: str = "") -> tuple[ErrorKind, str]:
    """Return the kind of a failed request, and the reason in a server's words.

    prompt: what was asked, whose words an error may repeat.
    """
    if isinstance(error, TimeoutError):
        return ErrorKind.UNCERTAIN, "no answer in time (--timeout)"
    if isinstance(error, WebPageError):
        return ErrorKind.WEB_PAGE, "a web page came: is --base-url right? (most end in /v1)"
    if isinstance(error, BodyError):
        code = _count(error.error, "code") or 0
        status = code if 400 <= code < 600 else 200
        return classify_status(status, error.error, key=key, prompt=prompt)
    if isinstance(error, openai.APIStatusError):
        headers, body = error.response.headers, error.body
        if error.status_code < 400:
            place = headers.get("location", "nowhere").partition("?")[0]
            body = f"the server sends elsewhere, to {place}"
        has_wait = "retry-after" in headers
        return classify_status(error.status_code, body, has_wait, key, prompt)
    # The transport's own says more: the client calls most of them a timeout.
    while error.__cause__ and not isinstance(error, aiohttp.ClientError | TooLargeError):
        error = error.__cause__
    # Broken JSON, no choices: it was generated and cannot be read.
    kind = ErrorKind.NO_CONNECTION if isinstance(error, NOT_CONNECTED) else ErrorKind.UNCERTAIN
    return kind, redact(f"{type(error).__name__}: {error}", key)


def classify_status(
    status: int, body, has_wait: bool = False, key: str = "", prompt: str = ""
) -> tuple[ErrorKind, str]:
    """Return the kind and the reason of an HTTP status with its body, live or a line of a batch.

    has_wait: the response says when to come back. In this order: what the error says; its status;
    any other refusal (4xx) is judged by what else is answered.
    """
    texts = _texts_of(body)
    text = " ".join([str(status), *texts])
    # What fails by chance (5xx) may say anything; a code is a word.
    signs = texts if status < 500 else [part for part in texts if not re.search(r"\s", part)]
    kind = _find_kind(status, signs, has_wait, prompt)
    fields = []
    for field in FLAGS:
        quote = "" if "_" in field else "['\"`]"  # round a mere word
        if field in texts or re.search(rf"{quote}\b{field}\b{quote}", text):
            fields.append(field)
    if kind is ErrorKind.TOO_LONG and {"max_tokens", "max_completion_tokens"} & set(fields):
        kind = ErrorKind.REFUSED  # more than the model may write, whatever the prompt
    fix = kind.fix
    if fields and kind is ErrorKind.REFUSED:
        flags = "; ".join(FLAGS[field] for field in fields)
        fix = f"The server refuses {' and '.join(fields)}: give {flags}"
    reason = redact(" ".join(text.split()), key)
    return kind, f"{reason}\n{fix}".rstrip()


def _find_kind(status, texts, has_wait, prompt):
    if 300 <= status < 400:
        return ErrorKind.SETTINGS
    letters, prompt_letters = _letters(" ".join(texts)), _letters(prompt)
    for kind, sign in SIGNS:
        for match in re.finditer(sign, letters):
            if match[0] not in prompt_letters:  # the error may repeat the prompt
                return kind
    if status == 503 and has_wait:
        return ErrorKind.RATE_LIMIT
    is_refusal = 400 <= status < 500
    return STATUS_KINDS.get(status, ErrorKind.REFUSED if is_refusal else ErrorKind.RETRY)


def _letters(text):
    return re.sub(r"[^a-z\u4e00-\u9fff]", "", text.lower())


def _texts_of(body, depth=5) -> list[str]:
    """Return what an error's body calls it and says: {"error": {...}}, {"detail": [...]}, a text.

    Other fields are not read: they may repeat the prompt.
    """
    if isinstance(body, dict):
        body = [body.get(name) for name in ERROR_FIELDS]
    if not isinstance(body, list) or not depth:
        return [str(body)] if body else []
    texts = []
    for part in body:
        texts += _texts_of(part, depth - 1)
    return texts
