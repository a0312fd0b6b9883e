"""Twelve providers' manners, behind one scripted server: FaultServer with another tongue.

    with ProviderServer("mistral") as server:
        ...  # ask server.url for server.provider.model, with server.provider.flags and KEY
        assert server.stats()["paid_twice"] == 0

A manner is a row of PROVIDERS: how a good answer looks, which requests are refused and in which
words, how errors are wrapped. All of them see the same rows, whose questions hold what a server may
choke on: the word poison (moderation), a very long text, the word crash. Shapes are those of public
documentation and of public bug reports; each row names what is special about it.

vLLM counts once: with a reasoning parser and without one it is the same provider.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

from aiohttp import web

from tests.faults import FaultServer

KEY = "sk-very-secret"
LONG = 3000  # characters of a prompt that no provider with a limit takes
ROOM = 5000  # tokens that a model needs which thinks for long
LOADING_SECONDS = 0.4


def number_of(prompt):
    """Return the row that a prompt asks about."""
    match = re.search(r"What is (\d+) \+ 1\?", prompt)
    assert match, prompt
    return int(match[1])


# --- what a model thought -------------------------------------------------------------------------

MARK = "recompute it in my head"


def thought_before(text):
    """Return thinking that comes to the opposite verdict first: who reads it learns the wrong."""
    verdict = "wrong" if text.endswith("right [END]") else "right"
    return f"Okay, let me {MARK}.\n\nConclusion: {verdict} [END]\n\nWait, I should check that."


def plain(text):
    return {"content": text}


def in_parts(text):
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": thought_before(text)}]}
    return {"content": [thinking, {"type": "text", "text": text}]}


def in_text_parts(text):
    return {"content": [{"type": "text", "text": text}]}


def beside_content(text):
    thought = thought_before(text)
    return {"content": f"\n\n{text}", "reasoning": thought, "reasoning_content": thought}


def in_details(text):
    thought = thought_before(text)
    details = [{"type": "reasoning.text", "text": thought, "index": 0}]
    return {"content": text, "reasoning": thought, "reasoning_details": details}


def no_thoughts(text):
    return {"content": text, "reasoning_content": ""}


def in_tags(text):
    return {"content": f"<think>\n{thought_before(text)}\n</think>\n\n{text}"}


def empty_tags(text):
    return {"content": f"<think>\n\n</think>\n\n{text}"}


def closed_only(text):
    """The template has opened the block already: the server sees the rest."""
    return {"content": f"{thought_before(text)}\n</think>\n\n{text}"}


def in_channels(text):
    thought = f"<|channel|>analysis<|message|>{thought_before(text)}<|end|>"
    return {"content": f"{thought}<|start|>assistant<|channel|>final<|message|>{text}"}


def only_beside(text):
    return {"content": None, "reasoning_content": thought_before(text)}


def only_opened(text):
    return {"content": f"<think>\n{thought_before(text)}"}


THINKS_IN_TEXT = {in_tags, closed_only, in_channels}
THINKS_BESIDE = {in_parts, beside_content, in_details}


# --- what an answer cost --------------------------------------------------------------------------


def bare_usage(read, written):
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def detailed_usage(read, written):
    return bare_usage(read, written) | {
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": written // 2},
    }


def null_details(read, written):
    return bare_usage(read, written) | {
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def total_with_thoughts(read, written):
    return bare_usage(read, written) | {"total_tokens": read + written + 333}


def usage_as_text(read, written):
    counts = {name: str(count) for name, count in bare_usage(read, written).items()}
    return counts | {"cost": "0.00012"}


def no_usage(read, written):
    return None


# --- how an error is wrapped ----------------------------------------------------------------------


class Refusal(NamedTuple):
    """What a server answers in place of a critique. `body` goes out as it is, if there is one."""

    status: int
    message: str
    code: object = None
    body: dict | str | None = None


def openai_error(refusal):
    fields = {"type": "invalid_request_error", "param": None, "code": refusal.code}
    return {"error": {"message": refusal.message} | fields}


def azure_error(refusal):
    error = {"message": refusal.message, "type": None, "param": "prompt", "code": refusal.code}
    if refusal.code == "content_filter":
        filtered = {"violence": {"filtered": True, "severity": "medium"}}
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": filtered}
        error |= {"status": 400, "innererror": inner}
    return {"error": error}


def anthropic_error(refusal):
    fields = {"type": "invalid_request_error", "param": None}
    return {"error": {"code": refusal.code, "message": refusal.message} | fields}


def google_error(refusal):
    error = {"code": refusal.status, "message": refusal.message, "status": refusal.code}
    return [{"error": error}]


def mistral_error(refusal):
    if refusal.status == 401:
        return {"detail": refusal.message}
    if refusal.status == 422:
        place = ["body", refusal.code]
        return {"detail": [{"type": "extra_forbidden", "loc": place, "msg": refusal.message}]}
    fields = {"type": "invalid_request_error", "param": None, "code": refusal.code}
    return {"object": "error", "message": refusal.message} | fields


def openrouter_error(refusal):
    code = refusal.code or refusal.status
    metadata = {"raw": "upstream connect error", "provider_name": "Somebody"}
    error = {"message": refusal.message, "code": code, "metadata": metadata}
    return {"error": error, "user_id": "user_2x"}


def dashscope_error(refusal):
    names = {"id": "chatcmpl-f5a1", "request_id": "f5a1"}
    error = {"code": refusal.code, "param": None, "message": refusal.message, "type": refusal.code}
    return {"error": error} | names


def text_error(refusal):
    kinds = {422: "validation", 429: "overloaded"}
    kind = kinds.get(refusal.status)
    return {"error": refusal.message} | ({"error_type": kind} if kind else {})


def vllm_error(refusal):
    if refusal.status == 401:
        return {"error": refusal.message}
    fields = {"type": "BadRequestError", "param": refusal.code, "code": refusal.status}
    return {"error": {"message": refusal.message} | fields}


def flat_error(refusal):
    fields = {"type": "BadRequestError", "param": None, "code": refusal.status}
    return {"object": "error", "message": refusal.message} | fields


def llamacpp_error(refusal):
    kind = refusal.code or "invalid_request_error"
    return {"error": {"code": refusal.status, "message": refusal.message, "type": kind}}


def detail_error(refusal):
    return {"detail": refusal.message}


# --- what a server refuses in every request -------------------------------------------------------


class Rule(NamedTuple):
    """Requests that are refused, whatever they ask about."""

    applies: Callable
    refusal: Refusal


def has(field):
    return lambda body: field in body


def has_both(first, second):
    return lambda body: first in body and second in body


def _effort_is_unknown(body):
    return body.get("reasoning_effort", "low") not in ("none", "low", "medium", "high", "xhigh")


def _is_reasoning_with(field):
    """A temperature is only for a model that does not reason."""
    return lambda body: field in body and body.get("reasoning_effort") != "none"


def _top_p_is_no_share(body):
    return not 0 < body.get("top_p", 0.5) < 1


def _is_greedy(body):
    return body.get("temperature") == 0


def _still_thinks(body):
    return body.get("enable_thinking") is not False


def _wants_more_than_the_context(body):
    return (body.get("max_tokens") or 0) > 32768


def _kwargs_are_no_object(body):
    return not isinstance(body.get("chat_template_kwargs", {}), dict)


OPENAI_RULES = (
    Rule(
        has("max_tokens"),
        Refusal(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "unsupported_parameter",
        ),
    ),
    Rule(
        _effort_is_unknown,
        Refusal(
            400,
            "Unsupported value: 'reasoning_effort' does not support 'extreme' with this model. "
            "Supported values are: 'none', 'low', 'medium', 'high', and 'xhigh'.",
            "unsupported_value",
        ),
    ),
    Rule(
        _is_reasoning_with("temperature"),
        Refusal(
            400,
            "Unsupported value: 'temperature' does not support 0.3 with this model. "
            "Only the default (1) value is supported.",
            "unsupported_value",
        ),
    ),
    Rule(
        _is_reasoning_with("top_p"),
        Refusal(400, "Unsupported parameter: 'top_p' is not supported with this model."),
    ),
)
ANTHROPIC_RULES = (
    Rule(
        has_both("temperature", "top_p"),
        Refusal(
            400,
            "`temperature` and `top_p` cannot both be specified for this model. "
            "Please use only one.",
            "invalid_request_error",
        ),
    ),
)
MISTRAL_RULES = (
    Rule(has("enable_thinking"), Refusal(422, "Extra inputs are not permitted", "enable_thinking")),
    Rule(
        has("max_completion_tokens"),
        Refusal(422, "Extra inputs are not permitted", "max_completion_tokens"),
    ),
)
DASHSCOPE_RULES = (
    Rule(
        _still_thinks,
        Refusal(
            400,
            "parameter.enable_thinking must be set to false for non-streaming calls",
            "invalid_parameter_error",
        ),
    ),
)
TGI_RULES = (
    Rule(
        _top_p_is_no_share,
        Refusal(422, "Input validation error: `top_p` must be > 0.0 and < 1.0"),
    ),
    Rule(
        _is_greedy,
        Refusal(422, "Input validation error: `temperature` must be strictly positive"),
    ),
)
VLLM_RULES = (
    Rule(
        _wants_more_than_the_context,
        Refusal(
            400,
            "'max_tokens' or 'max_completion_tokens' is too large: {max_tokens}. This model's "
            "maximum context length is 32768 tokens and your request has {n_tokens} input tokens.",
            "max_tokens",
        ),
    ),
    Rule(
        _kwargs_are_no_object,
        Refusal(
            400,
            "[{{'type': 'dict_type', 'loc': ('body', 'chat_template_kwargs'), "
            "'msg': 'Input should be a valid dictionary', 'input': 5}}]",
        ),
    ),
)
LLAMACPP_RULES = (Rule(has("grammar"), Refusal(400, "Failed to parse grammar")),)
TRANSFORMERS_RULES = (
    Rule(
        has("reasoning_effort"),
        Refusal(422, "Unsupported fields in the request: {{'reasoning_effort'}}"),
    ),
    Rule(
        has("enable_thinking"),
        Refusal(422, "Unexpected keys in the request: {{'enable_thinking'}}"),
    ),
)


# --- GET /v1/models -------------------------------------------------------------------------------


def listed(model):
    return {"object": "list", "data": [{"id": model, "object": "model", "owned_by": "system"}]}


def listed_with_dates(model):
    """OpenAI's list: a date on which a model is shut down, or null."""
    soon, late = (str(date.today() + timedelta(days=days)) for days in (30, 300))
    dates = {model: None, "gpt-soon": soon, "gpt-late": late}
    return {"object": "list", "data": [{"id": m, "shutdown_date": d} for m, d in dates.items()]}


def bare_list(model):
    return [{"id": model, "object": "model", "type": "chat", "context_length": 8192}]


def typed_list(model):
    return {"data": [{"type": "model", "id": model, "display_name": model}], "has_more": False}


def prefixed_list(model):
    return listed(f"models/{model}")


def no_list(model):
    return None


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Provider:
    """One provider's manners. A refusal that is None does not happen there."""

    model: str
    flags: tuple = ()  # of 02, with which the server answers
    error: Callable = openai_error  # refusal -> body
    messages: tuple = (plain,)  # text -> message: row after row another
    finish: str | None = "stop"
    usage: Callable = bare_usage
    rules: tuple = ()
    only_thinking: tuple | None = None  # message and finish_reason of row 7, unless it has ROOM
    moderated: Refusal | None = None
    too_long: Refusal | None = None
    crash: Refusal | None = None  # at each attempt
    busy: Refusal | None = None  # at the first attempt of row 50
    loading: Refusal | None = None  # at all that comes in the first moment
    wrong_key: Refusal | None = None
    wrong_model: Refusal | None = None
    broke: Refusal | None = None  # no money is left
    retry_after: str = "seconds"  # how a 429 says when to come back; "ms": in milliseconds
    models: Callable = listed

    @property
    def row_refusals(self):
        """The refusals of single rows: {number: Refusal}."""
        rows = {0: self.moderated, 31: self.moderated, 5: self.too_long, 12: self.crash}
        return {number: refusal for number, refusal in rows.items() if refusal}


INVALID_KEY = "Incorrect API key provided: {key}."
RATE_LIMIT = "Rate limit reached for {model}. Please try again in 100ms."
PROVIDERS = {
    # A reasoning model. A 429 may also mean that a request can never pass.
    "openai": Provider(
        model="gpt-6-luna",
        retry_after="ms",
        flags=("--reasoning-effort", "low"),
        usage=detailed_usage,
        rules=OPENAI_RULES,
        moderated=Refusal(
            400,
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy. "
            "Please try again with a different prompt.",
            "invalid_prompt",
        ),
        too_long=Refusal(
            429,
            "Request too large for {model} in organization org-x on tokens per min (TPM): Limit "
            "30000, Requested 39448. The input or output tokens must be reduced in order to run "
            "successfully.",
            "rate_limit_exceeded",
        ),
        busy=Refusal(429, RATE_LIMIT, "rate_limit_exceeded"),
        wrong_key=Refusal(401, INVALID_KEY, "invalid_api_key"),
        wrong_model=Refusal(
            404,
            "The model `{model}` does not exist or you do not have access to it.",
            "model_not_found",
        ),
        broke=Refusal(
            429,
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
        ),
        models=listed_with_dates,
    ),
    # Moderation of each prompt.
    "azure": Provider(
        model="my-deployment",
        retry_after="ms",
        error=azure_error,
        usage=detailed_usage,
        moderated=Refusal(
            400,
            "The response was filtered due to the prompt triggering Azure OpenAI's content "
            "management policy. Please modify your prompt and retry.",
            "content_filter",
        ),
        too_long=Refusal(
            400,
            "This model's maximum context length is 4096 tokens. However, your messages resulted "
            "in {n_tokens} tokens. Please reduce the length of the messages.",
            "context_length_exceeded",
        ),
        busy=Refusal(
            429,
            "Requests to the ChatCompletions_Create Operation have exceeded the call rate limit of "
            "your current pricing tier. Please retry after 1 second.",
            "429",
        ),
        wrong_key=Refusal(
            401,
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to "
            "provide a valid key for an active subscription.",
            "401",
        ),
        wrong_model=Refusal(
            404,
            "The API deployment for this resource does not exist. If you created the deployment "
            "within the last 5 minutes, please wait a moment and try again.",
            "DeploymentNotFound",
        ),
    ),
    # Names of fields in backticks; a lack of credit is a 400; 529 without Retry-After. The endpoint
    # itself says stop; gateways before it pass end_turn on.
    "anthropic": Provider(
        model="claude-sonnet-4-6",
        flags=("--top-p", "none"),
        error=anthropic_error,
        finish="end_turn",
        rules=ANTHROPIC_RULES,
        moderated=Refusal(
            400, "Output blocked by content filtering policy", "invalid_request_error"
        ),
        too_long=Refusal(
            400,
            "prompt is too long: {n_tokens} tokens > 2000 maximum",
            "invalid_request_error",
        ),
        busy=Refusal(529, "Overloaded", "overloaded_error"),
        wrong_key=Refusal(401, "invalid x-api-key", "authentication_error"),
        wrong_model=Refusal(404, "model: {model}", "not_found_error"),
        broke=Refusal(
            400,
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & "
            "Billing to upgrade or purchase credits.",
            "invalid_request_error",
        ),
        models=typed_list,
    ),
    # Errors in a list; a wrong key is a 400; finish reasons in capitals; a blocked prompt is a 200
    # without content.
    "gemini": Provider(
        model="gemini-3-flash",
        error=google_error,
        finish="STOP",
        usage=total_with_thoughts,
        moderated=Refusal(
            200,
            "PROHIBITED_CONTENT",
            body={
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "PROHIBITED_CONTENT",
                        "message": {"role": "assistant"},
                    }
                ],
                "usage": {"prompt_tokens": 90, "completion_tokens": 0, "total_tokens": 90},
            },
        ),
        too_long=Refusal(
            400,
            "The input token count ({n_tokens}) exceeds the maximum number of tokens allowed "
            "(700).",
            "INVALID_ARGUMENT",
        ),
        busy=Refusal(503, "The model is overloaded. Please try again later.", "UNAVAILABLE"),
        wrong_key=Refusal(
            400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"
        ),
        wrong_model=Refusal(
            404,
            "models/{model} is not found for API version v1main, or is not supported for "
            "generateContent.",
            "NOT_FOUND",
        ),
        models=prefixed_list,
    ),
    # Content in parts; fields that are not known are refused, in `detail`.
    "mistral": Provider(
        model="magistral-medium-latest",
        error=mistral_error,
        messages=(in_parts, in_text_parts, plain),
        rules=MISTRAL_RULES,
        too_long=Refusal(
            400,
            "Prompt contains {n_tokens} tokens and 0 draft tokens, too large for model with 700 "
            "maximum context length",
            "3051",
        ),
        busy=Refusal(429, "Service tier capacity exceeded for this model.", "3505"),
        wrong_key=Refusal(401, "Unauthorized"),
        wrong_model=Refusal(400, "Invalid model: {model}", "1500"),
    ),
    # eos; thinking in the text; the list of models is bare.
    "together": Provider(
        model="deepseek-ai/DeepSeek-R1",
        messages=(in_tags,),
        finish="eos",
        too_long=Refusal(
            422,
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: "
            "{n_tokens} `inputs` tokens and {max_tokens} `max_new_tokens`",
        ),
        busy=Refusal(429, RATE_LIMIT, "rate_limit"),
        wrong_key=Refusal(
            401,
            "Invalid API key provided. You can find your API key in the settings.",
            "invalid_api_key",
        ),
        wrong_model=Refusal(
            400,
            "Unable to access non-serverless model {model}. Please create a dedicated endpoint.",
            "model_not_available",
        ),
        broke=Refusal(
            402, "Credit limit exceeded, please navigate to your billing settings.", "credit_limit"
        ),
        models=bare_list,
    ),
    # Errors inside a 200, of an outage too; moderation is a 403; counts as text.
    "openrouter": Provider(
        model="qwen/qwen3-235b",
        flags=("--price-in", "1", "--price-out", "5", "--budget", "5"),
        error=openrouter_error,
        messages=(in_details,),
        finish="stop_sequence",
        usage=usage_as_text,
        moderated=Refusal(
            403,
            "qwen/qwen3-235b requires moderation on Somebody. Your input was flagged for "
            '"violence". No credits were charged.',
        ),
        too_long=Refusal(
            400,
            "This endpoint's maximum context length is 700 tokens. However, you requested about "
            "{n_tokens} tokens.",
        ),
        busy=Refusal(200, "Provider returned error", 429),
        loading=Refusal(200, "Provider returned error", 502),
        wrong_key=Refusal(401, "No auth credentials found"),
        wrong_model=Refusal(400, "{model} is not a valid model ID"),
        broke=Refusal(
            402,
            "This request requires more credits, or fewer max_tokens. You requested up to "
            "{max_tokens} tokens, but can only afford 210.",
        ),
    ),
    # Thinking has to be switched off; a lack of money is a 400.
    "dashscope": Provider(
        model="qwen3-32b",
        flags=("--extra-body", '{"enable_thinking": false}'),
        error=dashscope_error,
        messages=(no_thoughts, empty_tags),
        usage=detailed_usage,
        rules=DASHSCOPE_RULES,
        moderated=Refusal(
            400, "Input data may contain inappropriate content.", "data_inspection_failed"
        ),
        too_long=Refusal(
            400,
            "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 700]",
            "invalid_parameter_error",
        ),
        busy=Refusal(
            429,
            "Requests rate limit exceeded, please try again later.",
            "limit_requests",
        ),
        wrong_key=Refusal(401, "Incorrect API key provided.", "invalid_api_key"),
        wrong_model=Refusal(
            404, "The model `{model}` does not exist or you do not have access.", "model_not_found"
        ),
        broke=Refusal(
            400,
            "Access denied, please make sure your account is in good standing.",
            "Arrearage",
        ),
    ),
    # An error is a text; no top_p of 1 and none of 0; the template opens the thinking; it loads.
    "tgi": Provider(
        model="tgi",
        flags=("--top-p", "1"),
        error=text_error,
        messages=(closed_only,),
        finish="eos_token",
        rules=TGI_RULES,
        too_long=Refusal(
            422,
            "Input validation error: `inputs` must have less than 700 tokens. Given: {n_tokens}",
        ),
        busy=Refusal(429, "Model is overloaded"),
        loading=Refusal(503, "Model tgi is currently loading"),
        wrong_key=Refusal(401, "Invalid credentials in Authorization header"),
        models=no_list,
    ),
    # Thinking beside the content, and sometimes nothing else.
    "vllm-parser": Provider(
        model="Qwen/Qwen3-32B",
        error=vllm_error,
        messages=(beside_content,),
        usage=null_details,
        rules=VLLM_RULES,
        only_thinking=(only_beside, "stop"),
        too_long=Refusal(
            400,
            "This model's maximum context length is 700 tokens. However, your request has "
            "{n_tokens} input tokens. Please reduce the length of the input messages.",
            "input_tokens",
        ),
        wrong_key=Refusal(401, "Unauthorized"),
        wrong_model=Refusal(404, "The model `{model}` does not exist.", "model"),
    ),
    # All thinking is in the text, of whatever model; errors as older versions wrap them.
    "vllm": Provider(
        model="openai/gpt-oss-20b",
        error=flat_error,
        messages=(in_tags, closed_only, in_channels, plain),
        usage=null_details,
        rules=VLLM_RULES,
        only_thinking=(only_opened, "length"),
        too_long=Refusal(
            400,
            "This model's maximum context length is 700 tokens. However, you requested {n_tokens} "
            "tokens in the messages. Please reduce the length of the messages.",
        ),
        wrong_model=Refusal(404, "The model `{model}` does not exist."),
    ),
    # It loads, and says so.
    "llamacpp": Provider(
        model="qwen2.5-coder-1.5b.gguf",
        error=llamacpp_error,
        messages=(beside_content, plain),
        rules=LLAMACPP_RULES,
        too_long=Refusal(
            400,
            "request ({n_tokens} tokens) exceeds the available context size (700 tokens), try "
            "increasing it",
            "exceed_context_size_error",
        ),
        loading=Refusal(503, "Loading model", "unavailable_error"),
        wrong_key=Refusal(401, "Invalid API Key", "authentication_error"),
    ),
    # No usage; unknown fields are refused in `detail`; an error of the model's is plain text.
    "transformers": Provider(
        model="Qwen/Qwen2.5-7B-Instruct",
        error=detail_error,
        usage=no_usage,
        rules=TRANSFORMERS_RULES,
        crash=Refusal(500, "Internal Server Error", body="Internal Server Error"),
    ),
}


# --- the server -----------------------------------------------------------------------------------


class ProviderServer(FaultServer):
    """A FaultServer with a provider's manners: the same log, the same counts of what was paid.

    broke: the account has no money. loads: whether it is loading at first, if it ever is. n_listed:
    how often the list of models was asked for.
    """

    def __init__(self, name, broke=False, loads=True):
        super().__init__(batches=False)
        self.provider, self.broke, self.loads = PROVIDERS[name], broke, loads
        self.retry_after = self.provider.retry_after
        self.n_listed, self._attempts, self._loaded_at = 0, Counter(), 0.0

    async def _models(self, request):
        self.n_listed += 1
        payload = self.provider.models(self.provider.model)
        if payload is None:
            return web.json_response({"error": "Not Found"}, status=404)
        return web.json_response(payload)

    def _decide(self, entry):
        """Choose what a request gets, before the headers are made. -> the seconds that it takes."""
        entry["refusal"], entry["fault"] = self._refusal(entry)
        return 0

    def _refusal(self, entry):
        """-> the Refusal of a request and its name in the log; two Nones for a good answer."""
        self._loaded_at = self._loaded_at or time.monotonic() + LOADING_SECONDS
        for name, refusal, applies in self._refusals_of_all(entry):
            if refusal and applies:
                return refusal, name
        prompt = entry["prompt"]
        self._attempts[prompt] += 1
        for name, refusal, applies in self._refusals_of_rows(prompt):
            if refusal and applies:
                return refusal, name
        return None, None

    def _refusals_of_all(self, entry):
        """-> what every request meets until something is put right: (name, Refusal, whether)."""
        provider, body = self.provider, entry["body"]
        return [
            ("key", provider.wrong_key, entry["key"] != f"Bearer {KEY}"),
            ("broke", provider.broke, self.broke),
            ("loading", provider.loading, self.loads and time.monotonic() < self._loaded_at),
            ("model", provider.wrong_model, body["model"] != provider.model),
            *[("rule", rule.refusal, rule.applies(body)) for rule in provider.rules],
        ]

    def _refusals_of_rows(self, prompt):
        """-> what single rows meet; the name 429 brings the header Retry-After with it."""
        provider = self.provider
        is_first = self._attempts[prompt] == 1
        busy = "429" if provider.busy and provider.busy.status == 429 else "busy"
        return [
            ("moderated", provider.moderated, "poison" in prompt),
            ("too-long", provider.too_long, len(prompt) > LONG),
            ("crash", provider.crash, "crash" in prompt),
            (busy, provider.busy, is_first and number_of(prompt) == 50),
        ]

    def _answer(self, entry):
        """-> the JSON of the answer, or the text in its place; the log says what it cost."""
        body, refusal = entry["body"], entry["refusal"]
        if refusal:
            entry["status"] = refusal.status
            return refusal.body or self.provider.error(self.filled_in(refusal, entry))
        return self._completed(entry, self.text(body), body)

    def filled_in(self, refusal, entry):
        """Return the refusal in the words for one request."""
        body = entry["body"]
        values = {
            "model": body["model"],
            "key": (entry["key"] or "").removeprefix("Bearer "),
            "n_tokens": 50 + len(entry["prompt"]),
            "max_tokens": body.get("max_tokens") or body.get("max_completion_tokens"),
        }
        return refusal._replace(message=refusal.message.format_map(values))

    def _completed(self, entry, text, body):
        provider, number = self.provider, number_of(entry["prompt"])
        message = provider.messages[number % len(provider.messages)](text)
        finish = provider.finish
        room = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        if provider.only_thinking and number == 7 and room < ROOM:
            make_message, finish = provider.only_thinking
            message, entry["fault"] = make_message(text), "only-thinking"
        entry |= {"status": 200, "paid": True}
        answer = {
            "id": f"cmpl-{entry['id']}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [
                {"index": 0, "finish_reason": finish, "message": {"role": "assistant"} | message}
            ],
        }
        usage = provider.usage(len(entry["prompt"]) // 4, len(json.dumps(message)) // 4)
        return answer | ({"usage": usage} if usage else {})
