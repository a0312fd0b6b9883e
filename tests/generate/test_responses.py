"""What a server sends, read with distrust.

Each kind of failure comes from a real server; hostile bodies and headers are written by hand.
"""

import asyncio
import json
import time
from email.utils import formatdate

import httpx2
import pytest

from common.core.errors import InputError
from common.generate.client import Client
from common.generate.requests import read_finish
from common.generate.responses import (
    BodyError,
    ErrorKind,
    check_base_url,
    classify_error,
    classify_status,
    parse_answer,
    parse_retry_after,
)
from tests.faults import FaultServer

KEY = "sk-very-secret"


def wrong_cases(function, cases):
    """Return (arguments, expected, result) of the cases for which function(*arguments) is wrong."""
    results = [(arguments, expected, function(*arguments)) for arguments, expected in cases]
    return [case for case in results if case[1] != case[2]]


# --- failures -------------------------------------------------------------------------------------

BODY = {"code": None, "message": "no", "param": None, "type": "x"}
CONTEXT = (
    "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens. "
    "Please reduce the length."
)
UNSUPPORTED = "Unsupported parameter: 'max_tokens' is not supported with this model."
CONTEXT_CODE = {"code": "context_length_exceeded", "param": "messages", "message": CONTEXT}
# status, what the body says, whether it has Retry-After, kind, what the reason must hold
STATUSES = [
    (401, {"code": "invalid_api_key"}, False, "ACCOUNT", "OPENAI_API_KEY"),
    (402, {"message": "Insufficient balance"}, False, "ACCOUNT", "Insufficient balance"),
    (403, {}, False, "FORBIDDEN", "OPENAI_API_KEY"),
    (429, {"code": "insufficient_quota"}, True, "ACCOUNT", "insufficient_quota"),
    (400, {"code": "billing_hard_limit_reached"}, False, "ACCOUNT", "balance"),
    (429, {"code": "rate_limit_exceeded"}, False, "RATE_LIMIT", "429 rate_limit_exceeded"),
    (429, {}, True, "RATE_LIMIT", "429"),
    (529, {}, False, "RATE_LIMIT", "529"),
    (503, {}, True, "RATE_LIMIT", "503"),
    (503, {}, False, "RETRY", "503"),
    *((status, {}, False, "RETRY", str(status)) for status in (408, 409, 500, 502, 504, 520, 599)),
    (500, {}, True, "RETRY", "500"),
    (404, {"code": "model_not_found"}, False, "SETTINGS", "--model"),
    (400, {"code": "model_not_found"}, False, "SETTINGS", "--model"),
    (404, {"message": "Not Found"}, False, "REFUSED", "--base-url"),
    (405, {}, False, "REFUSED", "/v1"),
    (501, {}, False, "SETTINGS", "--base-url"),
    (400, {"param": "max_tokens", "code": "unsupported_parameter"}, False, "REFUSED", "--reaso"),
    (400, {"message": UNSUPPORTED}, False, "REFUSED", "--reasoning"),
    (400, {"param": "temperature", "code": "bad"}, False, "REFUSED", "--temperature none"),
    (422, {"message": '"temperature" must be 1'}, False, "REFUSED", "--temperature 1"),
    (400, {"param": "top_p"}, False, "REFUSED", "--top-p none"),
    (400, {"param": "max_completion_tokens"}, False, "REFUSED", "--max-new-tokens"),
    (400, CONTEXT_CODE, False, "TOO_LONG", "--max-new-tokens"),
    (
        400,
        {"message": f"'max_tokens' is too large: 3200. {CONTEXT}"},
        False,
        "REFUSED",
        "too large",
    ),
    (
        429,
        {"message": "Request too large for m: limit 10, requested 12"},
        False,
        "TOO_LONG",
        "too large",
    ),
    (
        429,
        {"message": "Too many tokens, please wait"},
        False,
        "RATE_LIMIT",
        "wait",
    ),
    (429, {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}, False, "ACCOUNT", "1113"),
    (429, {"message": "Your account is suspended"}, False, "ACCOUNT", "suspended"),
    (412, {"message": "Account suspended: monthly spending limit"}, False, "ACCOUNT", "limit"),
    (400, {"message": "输入内容可能包含敏感内容"}, False, "ROW", "400"),
    (400, {"code": "SensitiveContentDetected"}, False, "ROW", "Sensitive"),
    (400, {"code": "content_filter"}, False, "ROW", "content_filter"),
    (400, {"code": "invalid_prompt"}, False, "ROW", "invalid_prompt"),
    (400, {}, False, "REFUSED", "400"),
    (413, {}, False, "REFUSED", "413"),
    (422, {}, False, "REFUSED", "422"),
]


def test_the_kind_of_a_status_with_its_body():
    """A wrong kind burns the budget on hopeless retries, or ends a run for one row."""
    wrong = []
    for status, body, has_wait, kind, holds in STATUSES:
        result, reason = classify_status(status, BODY | body, has_wait)
        if result is not ErrorKind[kind] or holds not in reason:
            wrong.append((status, body, kind, result, reason))
    assert not wrong


def test_the_kinds_that_end_a_run():
    ends = {kind.name: kind.exit_status for kind in ErrorKind if kind.exit_status}
    assert ends == {"REFUSED": 2, "FORBIDDEN": 4, "SETTINGS": 2, "ACCOUNT": 4}


def test_a_body_of_any_shape_has_the_kind_of_its_status():
    """Proxies answer with HTML, null or anything else."""
    bodies = [
        None,
        "plain text",
        ["a", "list"],
        17,
        {},
        {"code": 5, "message": ["x"], "param": {"a": 1}},
        {"code": None, "message": None},
        {"message": "x" * 10**6},
        {"message": "two\nlines\r\n"},
    ]
    for body in bodies:
        kinds = [classify_status(status, body)[0].name for status in (500, 429, 401, 400)]
        assert kinds == ["RETRY", "RATE_LIMIT", "ACCOUNT", "REFUSED"], body


LIVE = {
    "RATE_LIMIT": ["429", "overloaded", "529"],
    "RETRY": ["500", "502", "503", "408", "409", "error-in-200"],
    "ROW": ["filter-400", "invalid-prompt"],
    "TOO_LONG": ["context"],
    "REFUSED": ["max_tokens", "temperature", 499],
    "ACCOUNT": ["quota", "key"],
    "FORBIDDEN": ["forbidden"],
    "SETTINGS": ["model"],
    "UNCERTAIN": [
        "reset-before",
        "reset-inside",
        "broken-json",
        "html",
        "no-choices",
        "null-choices",
        "hang",
    ],
}


def failures(url, faults, timeout=300):
    """Return {fault: the exception of a request that ends so}, asked over the client's own API."""

    async def ask(api, fault):
        messages = [{"role": "user", "content": str(fault)}]
        body = {"model": "m", "messages": messages, "max_tokens": 9, "temperature": 0.3}
        try:
            async with asyncio.timeout(timeout):
                response = await api.chat.completions.with_raw_response.create(**body)
            parse_answer(json.loads(response.content), raw=False)
        except Exception as error:
            return error

    async def ask_all():
        async with Client("m", url, 50).open_api() as api:
            return await asyncio.gather(*(ask(api, fault) for fault in faults))

    return dict(zip(faults, asyncio.run(ask_all())))


def test_every_failure_of_a_real_server_has_its_kind():
    """The client wraps what the transport raises, and its wrapping changes: ask a real server."""
    expected = {fault: kind for kind, faults in LIVE.items() for fault in faults}
    by_name = {str(fault): fault for fault in expected}
    with FaultServer(fault=lambda body, nth: by_name[body["messages"][-1]["content"]]) as server:
        raised = failures(server.url, expected, timeout=2)
        kinds = {fault: classify_error(error)[0].name for fault, error in raised.items()}
        assert kinds == expected
        port = server.port
    (refused,) = failures(f"http://127.0.0.1:{port}/v1", ["nobody is there"]).values()
    kind, reason = classify_error(refused)
    assert kind is ErrorKind.NO_CONNECTION and "Connect" in reason


REPEATS = [  # a body that repeats a text, and its status; None: an answer with status 200
    (lambda text: {"choices": [], "error": text}, None),
    (lambda text: {"choices": [{"text": 5, "x": text}]}, None),
    (lambda text: {"message": text}, 400),
    (lambda text: text, 500),
]


@pytest.mark.parametrize("body, status", REPEATS)
def test_a_key_that_a_server_repeats_is_hidden(body, status):
    """Also if the message is cut in the middle of the key: its first half is a leak, too."""
    for position in range(0, 500, 3):
        repeated = body("x" * position + KEY + "y" * 300)
        if status:
            reason = classify_status(status, repeated, key=KEY)[1]
        else:
            with pytest.raises(ValueError) as error:
                parse_answer(repeated, raw=True)
            reason = classify_error(error.value, KEY)[1]
        assert "sk-v" not in reason and len(reason) < 600


def test_a_long_key_that_is_repeated_is_hidden_each_time():
    """13 times 164 characters: a body that is cut before its keys are removed ends inside one."""
    key = "sk-very-secret" + "v" * 150
    with pytest.raises(ValueError) as error:
        parse_answer({"echo": key * 13}, raw=False)
    assert "vvv" not in classify_error(error.value, key)[1]


# --- how long to wait -----------------------------------------------------------------------------

WAITS = [
    ({}, None),
    ({"retry-after": "7"}, 7),
    ({"Retry-After": "1.5"}, 1.5),
    ({"retry-after": "0"}, 0),
    ({"retry-after": "-3"}, 0),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
    ({"retry-after": "soon"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "9" * 400}, float("inf")),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
    ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
]


def test_seconds_that_a_refusal_asks_for():
    """A header that cannot be read must neither crash the run nor make it wait for ever."""
    cases = [((httpx2.Headers(headers),), seconds) for headers, seconds in WAITS]
    assert not wrong_cases(parse_retry_after, cases)


def test_a_date_to_wait_for():
    headers = httpx2.Headers({"retry-after": formatdate(time.time() + 3000, usegmt=True)})
    assert 2000 <= parse_retry_after(headers) <= 3000
    assert parse_retry_after({}) is None


# --- answers --------------------------------------------------------------------------------------


def answer(usage=None, **choice):
    message = {"role": "assistant", "content": "text"}
    choice = {"index": 0, "finish_reason": "stop", "message": message} | choice
    return {"choices": [choice], "usage": usage}


def test_what_is_no_answer_is_a_value_error():
    """Any other exception, or a text that is no string, would break the journal or the verdict."""
    bodies = [
        None,
        5,
        "text",
        [],
        [answer()],
        {},
        {"choices": None},
        {"choices": []},
        {"choices": {}},
        {"choices": "text"},
        {"choices": [None]},
        {"choices": ["text"]},
        {"choices": [[]]},
        {"error": {"message": "overloaded"}},
        {"choices": [], "error": "x" * 10**5},
        answer(message={"content": {"text": "a"}}),
        answer(message={"content": 5}),
        answer(message={"content": False}),
        answer(message=7),
    ]
    for body in bodies:
        with pytest.raises(ValueError) as error:
            parse_answer(body, raw=False)
        assert len(str(error.value)) < 5_000


GOOD = {"text": "text", "finish_reason": "stop", "usage": None}
REFUSAL = {"content": None, "refusal": "I cannot."}
ANSWERS = [
    (answer(), GOOD),
    (answer(message={"content": None}), GOOD | {"text": ""}),
    (answer(message={}), GOOD | {"text": ""}),
    (answer(message=None), GOOD | {"text": ""}),
    (answer(message={"content": "\ud800\x00 é"}), GOOD | {"text": "\ud800\x00 é"}),
    (answer(message={"content": ["a", {"text": "b"}]}), GOOD | {"text": "ab"}),
    (answer(finish_reason=None), GOOD | {"finish_reason": None}),
    (answer(finish_reason=7), GOOD | {"finish_reason": None}),
    (answer(finish_reason=["stop"]), GOOD | {"finish_reason": None}),
    (answer(message=REFUSAL), GOOD | {"text": "", "refusal": "I cannot."}),
    (answer(message={"content": "text", "refusal": ""}), GOOD),
    (answer(message={"content": "text", "refusal": {"why": 1}}), GOOD | {"refusal": "{'why': 1}"}),
    ({"choices": [answer()["choices"][0], {"index": 1}]}, GOOD),
]


def test_answers_of_a_chat():
    cases = [((body, False), expected) for body, expected in ANSWERS]
    assert not wrong_cases(parse_answer, cases)


def test_answers_of_a_raw_prompt():
    """A chat's message in place of a text is no answer: it would be journalled as empty."""
    cut = {"text": "a", "finish_reason": "length"}
    assert parse_answer({"choices": [cut]}, raw=True) == cut | {"usage": None}
    for choice in ({"text": None}, {"text": ["a"]}, answer()["choices"][0]):
        with pytest.raises(ValueError):
            parse_answer({"choices": [choice]}, raw=True)


USED = {"prompt_tokens": 5, "completion_tokens": 7}
USAGES = [
    (USED, USED),
    (USED | {"total_tokens": 12}, USED),
    (USED | {"prompt_tokens": 0}, USED | {"prompt_tokens": 0}),
    (USED | {"prompt_tokens_details": None}, USED),
    (USED | {"prompt_tokens_details": {"cached_tokens": 0}}, USED),
    (USED | {"prompt_tokens_details": {"cached_tokens": 4}}, USED | {"cached_tokens": 4}),
    (USED | {"prompt_tokens_details": [4]}, USED),
    (USED | {"prompt_tokens_details": {"cache_write_tokens": 3}}, USED | {"cache_write_tokens": 3}),
    # Reasoning within completion_tokens (OpenAI), and besides them (xAI, Gemini): 5 + 7 + 90.
    (USED | {"total_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 6}}, USED),
    (USED | {"total_tokens": 102}, USED | {"completion_tokens": 97}),
    (USED | {"total_tokens": 3}, USED),
    (USED | {"total_tokens": "102"}, USED | {"completion_tokens": 97}),
    ({"prompt_tokens": "5", "completion_tokens": "7"}, USED),
    (USED | {"total_tokens": 10**12}, USED),
]
BAD_COUNTS = (-1, 5.0, True, None, "five", float("nan"), 10**400)
BAD_USAGES = [None, 5, "12", [], {}, {"prompt_tokens": 5}]
BAD_USAGES += [USED | {"prompt_tokens": n} for n in BAD_COUNTS]
BAD_USAGES += [USED | {"prompt_tokens_details": {"cached_tokens": n}} for n in ("four", -4, 0.5)]


def test_usage_is_whole_numbers_or_nothing():
    """A negative or textual count would let the budget be passed, or stop the run."""
    cases = USAGES + [(usage, None) for usage in BAD_USAGES]
    results = [(usage, parse_answer(answer(usage), raw=False)["usage"]) for usage, _ in cases]
    assert results == cases


# --- the server's URL -----------------------------------------------------------------------------

ENVIRONMENTS = [  # --base-url, OPENAI_BASE_URL, the URL that is used
    (None, None, None),
    (None, "", None),
    (None, "http://env:1/v1", "http://env:1/v1"),
    ("http://flag:2/v1", "http://env:1/v1", "http://flag:2/v1"),
    ("https://[::1]:8000/v1", None, "https://[::1]:8000/v1"),
]


@pytest.mark.parametrize("flag, environment, expected", ENVIRONMENTS)
def test_the_flag_wins_over_the_environment(monkeypatch, flag, environment, expected):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if environment is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", environment)
    assert check_base_url(flag) == expected


BAD_URLS = [
    "localhost:8000/v1",
    "ftp://host/v1",
    "http://",
    "http:///v1",
    "host",
    "http://[::1/v1",
    "http://host:port/v1",
    "http://host:99999/v1",
    f"http://user:{KEY}@host/v1",
    "http://user@host/v1",
    f"http://host/v1?api-key={KEY}",
    f"ftp://user:{KEY}@host/v1",
    f"user:{KEY}@host:8000/v1",
]


def test_a_url_that_leads_nowhere_or_holds_a_secret_is_refused(monkeypatch):
    """It would be written to manifests and logs. The message must not repeat the secret."""
    for url in BAD_URLS:
        for flag, environment in ((url, ""), (None, url)):
            monkeypatch.setenv("OPENAI_BASE_URL", environment)
            with pytest.raises(InputError, match="--base-url") as error:
                check_base_url(flag)
            assert KEY not in str(error.value)


def test_the_words_of_the_prompt_are_no_sign():
    """A server may repeat what was asked: "overdue" is then no word about the account."""
    body = {"error": {"message": "invalid input: Is my library book overdue?"}}
    prompt = "Question:\nIs my library book overdue?"
    assert classify_status(400, body, prompt=prompt)[0] is ErrorKind.REFUSED
    assert classify_status(400, body)[0] is ErrorKind.ACCOUNT


def test_what_is_called_by_a_code_is_that_whatever_the_status():
    """Gateways give 500, or 200, for a key, a quota or a filter; their prose says anything."""
    codes = {"insufficient_quota": "ACCOUNT", "invalid_api_key": "ACCOUNT", "content_filter": "ROW"}
    for code, kind in codes.items():
        body = {"error": {"code": code, "message": "?"}}
        assert classify_status(500, body)[0].name == kind
        assert classify_error(BodyError(body["error"]))[0].name == kind
    prose = {"error": {"message": "upstream failed: a content filter was restarted"}}
    assert classify_status(500, prose)[0] is ErrorKind.RETRY


def test_an_error_in_a_form_of_its_own_inside_a_200():
    """Some servers have no field "error", and codes that are no HTTP status."""
    kinds = {
        '{"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}': "ACCOUNT",
        '{"error_code": 18, "error_msg": "Open api qps request limit reached"}': "RETRY",
        '{"code": 11200, "message": "AppIdNoAuthError"}': "RETRY",
        '{"error": {"code": 429, "message": "slow down"}}': "RATE_LIMIT",
    }
    for text, kind in kinds.items():
        with pytest.raises(BodyError) as error:
            parse_answer(json.loads(text), raw=False)
        assert classify_error(error.value)[0].name == kind, text


def test_how_servers_say_that_a_text_ended():
    words = {
        "stop": ["stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE", None],
        "length": ["length", "max_tokens", "MAX_TOKENS", "model_length"],
        "content_filter": ["content_filter: PROHIBITED_CONTENT", "SAFETY", "sensitive", "refusal"],
    }
    for end, names in words.items():
        assert {read_finish(name) for name in names} == {end}, end
    for name in ("tool_calls", "network_error", "abort", "pause_turn", "MALFORMED_FUNCTION_CALL"):
        assert read_finish(name) == name


def test_thinking_with_a_text_of_its_own_is_no_text():
    part = {"type": "reasoning", "text": "hm Conclusion: wrong"}
    content = [part, {"type": "text", "text": "Fine."}]
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    answer = parse_answer(body, raw=False)
    assert answer["text"] == "Fine." and answer["reasoning"] > 0
