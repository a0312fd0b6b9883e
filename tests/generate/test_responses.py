"""What a server says, read with distrust: each kind of failure from a real server, and hostile bodies and headers by hand."""

import asyncio
import json
import time
from email.utils import formatdate

import httpx2
import pytest

from common.core.errors import InputError
from common.generate.client import Client
from common.generate.responses import (
    classify_error,
    classify_status,
    parse_answer,
    parse_retry_after,
    check_base_url,
)
from tests.faults import FaultServer

# --- failures -------------------------------------------------------------------------------------------------------

BODY = {"code": None, "message": "no", "param": None, "type": "x"}
CONTEXT = "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens. Please reduce the length."
MEANINGS = [  # status, what the body says, whether it has Retry-After, kind, what the reason must hold
    (401, {"code": "invalid_api_key"}, False, 4, "OPENAI_API_KEY"),
    (402, {"message": "Insufficient balance"}, False, 4, "Insufficient balance"),
    (403, {}, False, 4, "OPENAI_API_KEY"),
    (429, {"code": "insufficient_quota"}, True, 4, "insufficient_quota"),
    (400, {"code": "billing_hard_limit_reached"}, False, 4, "balance"),
    (429, {"code": "rate_limit_exceeded"}, False, "pause", "429 rate_limit_exceeded no"),
    (429, {}, True, "pause", "429"),
    (529, {}, False, "pause", "529"),
    (503, {}, True, "pause", "503"),
    (503, {}, False, "again", "503"),
    *((status, {}, False, "again", str(status)) for status in (408, 409, 500, 502, 504, 520, 599)),
    (500, {}, True, "again", "500"),
    (404, {"code": "model_not_found"}, False, 2, "--model teacher"),
    (400, {"code": "model_not_found"}, False, 2, "--model teacher"),
    (404, {"message": "Not Found"}, False, 2, "--base-url"),
    (405, {}, False, 2, "/v1"),
    (501, {}, False, 2, "--base-url"),
    (400, {"param": "max_tokens", "code": "unsupported_parameter"}, False, 2, "--reasoning"),
    (
        400,
        {"message": "Unsupported parameter: 'max_tokens' is not supported with this model."},
        False,
        2,
        "--reasoning",
    ),
    (400, {"param": "temperature", "code": "unsupported_value"}, False, 2, "--temperature 1"),
    (422, {"message": '"temperature" must be 1'}, False, 2, "--temperature 1"),
    (400, {"param": "top_p"}, False, 2, "--top-p 1"),
    (400, {"param": "max_completion_tokens"}, False, 2, "--max-new-tokens"),
    (
        400,
        {"code": "context_length_exceeded", "param": "messages", "message": CONTEXT},
        False,
        "row",
        "context_length",
    ),
    (
        400,
        {"message": f"'max_tokens' is too large: 3200. {CONTEXT}"},
        False,
        "row",
        "too large",
    ),  # vLLM's
    (400, {"code": "content_filter"}, False, "row", "content_filter"),
    (400, {"code": "invalid_prompt"}, False, "row", "invalid_prompt"),
    (400, {}, False, "row", "400 no"),
    (413, {}, False, "row", "413"),
    (422, {}, False, "row", "422"),
]


@pytest.mark.parametrize("status, said, overload, kind, holds", MEANINGS)
def test_a_status_with_its_body_means(status, said, overload, kind, holds):
    """A wrong kind burns the budget on hopeless retries, or ends a run for one row."""
    found, reason = classify_status(status, BODY | said, "teacher", overload)
    assert found == kind and holds in reason


@pytest.mark.parametrize(
    "body",
    [
        None,
        "plain text",
        ["a", "list"],
        17,
        {},
        {"code": 5, "message": ["x"], "param": {"a": 1}},
        {"code": None, "message": None},
        {"message": "x" * 10**6},
        {"message": "two\nlines\r\n"},
    ],
)
def test_bodies_of_any_shape_have_a_meaning(body):
    """Proxies answer with HTML, null or whatever; the kind is then the status's."""
    assert [classify_status(status, body, "m")[0] for status in (500, 429, 401, 400)] == [
        "again",
        "pause",
        4,
        "row",
    ]


LIVE = {
    "429": "pause",
    "overloaded": "pause",
    "529": "pause",
    "500": "again",
    "502": "again",
    "503": "again",
    "408": "again",
    "409": "again",
    "context": "row",
    "filter-400": "row",
    "invalid-prompt": "row",
    "quota": 4,
    "key": 4,
    "forbidden": 4,
    "model": 2,
    "max_tokens": 2,
    "temperature": 2,
    418: "row",
} | dict.fromkeys(
    (
        "reset-before",
        "reset-inside",
        "broken-json",
        "html",
        "no-choices",
        "null-choices",
        "error-in-200",
        "hang",
    ),
    "unsure",
)


def failures(url, faults, timeout=300):
    """-> {fault: what a request that ends so raises}, each asked over the engine's own client."""

    async def one(api, fault):
        try:
            async with asyncio.timeout(timeout):
                body = {
                    "model": "m",
                    "messages": [{"role": "user", "content": str(fault)}],
                    "max_tokens": 9,
                    "temperature": 0.3,
                }
                response = await api.chat.completions.with_raw_response.create(**body)
            parse_answer(json.loads(response.content), raw=False)
        except Exception as error:
            return error

    async def every():
        async with Client("m", url, 50).client() as api:
            return await asyncio.gather(*(one(api, fault) for fault in faults))

    return dict(zip(faults, asyncio.run(every())))


def test_every_failure_of_a_real_server_has_its_kind():
    """The client wraps what the transport raises, and its wrapping changes: only the real thing shows the kind."""
    named = {str(fault): fault for fault in LIVE}
    with FaultServer(fault=lambda body, nth: named[body["messages"][-1]["content"]]) as server:
        raised = failures(server.url, LIVE, timeout=2)
        assert {fault: classify_error(error, "m")[0] for fault, error in raised.items()} == LIVE
        port = server.port
    (refused,) = failures(f"http://127.0.0.1:{port}/v1", ["nobody is there"]).values()
    assert (
        classify_error(refused, "m")[0] == "gone" and "Connect" in classify_error(refused, "m")[1]
    )


KEY = "sk-very-secret"


@pytest.mark.parametrize(
    "body, status",
    [
        (lambda text: {"choices": [], "error": text}, None),
        (lambda text: {"choices": [{"text": 5, "x": text}]}, None),
        (lambda text: {"message": text}, 400),
        (lambda text: text, 500),
    ],
)
def test_a_key_is_hidden_wherever_a_server_repeats_it(body, status):
    """Also where the message is cut in the middle of the key: its first half is a leak, too."""
    for at in range(0, 500, 3):
        said = body("x" * at + KEY + "y" * 300)
        if status:
            reason = classify_status(status, said, "m", key=KEY)[1]
        else:
            with pytest.raises(ValueError) as error:
                parse_answer(said, raw=True)
            reason = classify_error(error.value, "m", KEY)[1]
        assert "sk-v" not in reason and len(reason) < 600


# --- how long to wait -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers, seconds",
    [
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
    ],
)
def test_seconds_that_a_refusal_asks_for(headers, seconds):
    """A header that cannot be read must neither crash the run nor make it wait for ever; a date of the past is now."""
    assert parse_retry_after(httpx2.Headers(headers)) == seconds


def test_a_date_to_wait_for():
    assert (
        27
        <= parse_retry_after(
            httpx2.Headers({"retry-after": formatdate(time.time() + 30, usegmt=True)})
        )
        <= 30
    )
    assert parse_retry_after({}) is None


# --- answers --------------------------------------------------------------------------------------------------------


def answer(usage=None, **choice):
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "text"},
    } | choice
    return {"choices": [choice], "usage": usage}


GOOD = {"text": "text", "finish_reason": "stop", "usage": None}


@pytest.mark.parametrize(
    "body",
    [
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
        answer(message={"content": ["a", "list"]}),
        answer(message={"content": {"text": "a"}}),
        answer(message={"content": 5}),
        answer(message={"content": False}),
        answer(message=[]),
        answer(message=7),
    ],
)
def test_what_is_no_answer_is_a_value_error(body):
    """Any other exception, or a text that is no string, would break the journal or the verdict's parser."""
    with pytest.raises(ValueError) as error:
        parse_answer(body, raw=False)
    assert len(str(error.value)) < 5_000


@pytest.mark.parametrize(
    "body, expected",
    [
        (answer(), GOOD),
        (answer(message={"content": None}), GOOD | {"text": ""}),
        (answer(message={}), GOOD | {"text": ""}),
        (answer(message=None), GOOD | {"text": ""}),
        (answer(message={"content": "\ud800\x00 é"}), GOOD | {"text": "\ud800\x00 é"}),
        (answer(finish_reason=None), GOOD | {"finish_reason": None}),
        (answer(finish_reason=7), GOOD | {"finish_reason": None}),
        (answer(finish_reason=["stop"]), GOOD | {"finish_reason": None}),
        (
            answer(message={"content": None, "refusal": "I cannot."}),
            GOOD | {"text": "", "refusal": "I cannot."},
        ),
        (answer(message={"content": "text", "refusal": ""}), GOOD),
        (
            answer(message={"content": "text", "refusal": {"why": 1}}),
            GOOD | {"refusal": "{'why': 1}"},
        ),
        ({"choices": [answer()["choices"][0], {"index": 1}]}, GOOD),
    ],
)
def test_answers_of_a_chat(body, expected):
    assert parse_answer(body, raw=False) == expected


def test_answers_of_a_raw_prompt():
    """A chat's message where a text belongs is no answer: it would be journalled as empty."""
    cut = {"text": "a", "finish_reason": "length"}
    assert parse_answer({"choices": [cut]}, raw=True) == cut | {"usage": None}
    for choice in ({"text": None}, {"text": ["a"]}, answer()["choices"][0]):
        with pytest.raises(ValueError):
            parse_answer({"choices": [choice]}, raw=True)


USED = {"prompt_tokens": 5, "completion_tokens": 7}


@pytest.mark.parametrize(
    "usage, expected",
    [
        (USED, USED),
        (USED | {"total_tokens": 12}, USED),
        (USED | {"prompt_tokens": 0}, USED | {"prompt_tokens": 0}),
        (USED | {"prompt_tokens_details": None}, USED),
        (USED | {"prompt_tokens_details": {"cached_tokens": 0}}, USED),
        (USED | {"prompt_tokens_details": {"cached_tokens": 4}}, USED | {"cached_tokens": 4}),
        (USED | {"prompt_tokens_details": [4]}, USED),
        *((bad, None) for bad in (None, 5, "12", [], {}, {"prompt_tokens": 5})),
        *(
            (USED | {"prompt_tokens": n}, None)
            for n in (-1, 5.0, True, None, "5", float("nan"), 10**400)
        ),
        *((USED | {"prompt_tokens_details": {"cached_tokens": n}}, None) for n in ("4", -4, 0.5)),
    ],
)
def test_usage_is_whole_numbers_or_nothing(usage, expected):
    """A negative or textual count would let the budget be passed, or stop the run with a TypeError."""
    assert parse_answer(answer(usage), raw=False)["usage"] == expected


# --- the server's URL -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, environment, expected",
    [
        (None, None, None),
        (None, "", None),
        (None, "http://env:1/v1", "http://env:1/v1"),
        ("http://flag:2/v1", "http://env:1/v1", "http://flag:2/v1"),
        ("https://[::1]:8000/v1", None, "https://[::1]:8000/v1"),
    ],
)
def test_the_flag_wins_over_the_environment(monkeypatch, given, environment, expected):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if environment is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", environment)
    assert check_base_url(given) == expected


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "ftp://host/v1",
        "http://",
        "http:///v1",
        "host",
        "http://[::1/v1",
        "http://host:port/v1",
        "http://host:99999/v1",
        "http://user:sk-very-secret@host/v1",
        "http://user@host/v1",
        "http://host/v1?api-key=sk-very-secret",
        "ftp://user:sk-very-secret@host/v1",
        "user:sk-very-secret@host:8000/v1",
    ],
)
@pytest.mark.parametrize("where", ["flag", "environment"])
def test_a_url_that_leads_nowhere_or_holds_a_secret_is_refused(monkeypatch, url, where):
    """It would be written to manifests and logs, or end in a traceback; the message must not repeat the secret either."""
    monkeypatch.setenv("OPENAI_BASE_URL", url if where == "environment" else "")
    with pytest.raises(InputError, match="--base-url") as error:
        check_base_url(url if where == "flag" else None)
    assert "sk-very-secret" not in str(error.value)
