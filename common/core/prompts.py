"""Every prompt and chat template of the kit.

Messages are lists of {"role", "content"}; `render` turns them into the exact text a model sees.
Sources: the paper (A.1), the released evaluation scripts and YAML
(TIGER-AI-Lab/CritiqueFineTuning@44b83b8).
"""

import signal
import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError

from common.core.errors import InputError, failed

# Training prompts. The system line is the released YAML's template default; every row has it.
SYSTEM = "You are a helpful assistant."
CRITIQUE_INSTRUCTION = (
    "Please critique whether the following solution to the question is correct.\n\n"
)
# Of original answers, and of the teacher's
SFT_INSTRUCTION = "Please reason step by step to solve the following question."
SFT_TEACHER_INSTRUCTION = "Please analyze and answer the following question step by step:"
# The sources whose answers a model wrote; all others have SFT_INSTRUCTION. AceMath's is inferred.
SFT_INSTRUCTIONS = dict.fromkeys(("metamath", "numina", "acemath"), SFT_TEACHER_INSTRUCTION)

# Evaluation prompt of the maths benchmarks, also used to sample responses from a base model.
SOLVE_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
# The last four because models trained on critiques close with [END] (released evaluate script).
STOP = ["</s>", "<|im_end|>", "<|endoftext|>", "(END)", "\\[END\\]", "**END**", "[END]"]
# MMLU-Pro and GPQA, as the released scripts ask them.
MMLU_SYSTEM = (
    'Please reason step by step, and put your answer with "the answer is (X)" '
    "where X is the correct letter choice."
)
MMLU_STOP = ["</s>", "<|im_end|>", "<|endoftext|>", "Question:"]
GPQA_STOP = [
    "USER:",
    "ASSISTANT:",
    "### Instruction:",
    "Response:",
    "Problem:",
    "<|eot_id|>",
    "####",
]

# Prompts for the teacher (02).
TEACHER_CRITIQUE = (
    "You are a science expert. A student is trying to solve a question, please explain briefly "
    "whether his answer is correct or not. Finally, conclude your judgement with "
    "'Conclusion: right/wrong [END]'"
)
ONE_SHOT_CRITIQUE = (  # One-Shot CFT (arXiv 2506.03295)
    "You are a mathematics expert. Analyze if the student's solution to the given question is "
    "correct. Follow these steps: "
    "1. Identify the key mathematical concepts and correct approach. "
    "2. Check each step of the student's solution. "
    "3. If incorrect, point out errors and provide the correct solution, putting your final "
    "answer within \\boxed{}. "
    'Conclude with "Conclusion: right/wrong [END]"'
)
TEACHER_ANSWER = (
    "You are a science expert. You need to answer a given question clearly and conclude your "
    "answer with 'Answer: [YOUR ANSWER]'"
)


# --- messages ------------------------------------------------------------------------------------


def _chat(user, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": user}]


def question_and_solution(question: str, response: str) -> str:
    """Return the `input` column of the released data: "Question:\\n{q}\\n\\nSolution:\\n{a}\\n"."""
    return f"Question:\n{question}\n\nSolution:\n{response}\n"


def critique_row_prompt(question: str, response: str, system: str = SYSTEM) -> list:
    """Return the prompt of a CFT training row.

    The YAML's framework joins instruction and input with one newline, so there are three.
    """
    return _chat(CRITIQUE_INSTRUCTION + "\n" + question_and_solution(question, response), system)


def sft_row_prompt(question: str, instruction: str = SFT_INSTRUCTION, system: str = SYSTEM) -> list:
    """Return the prompt of an SFT training row."""
    return _chat(f"{instruction}\n{question}", system)


def extract_question(messages: list) -> str:
    """Return the question of a training row's prompt.

    In a critique row it ends at the first "Solution:", even if the question itself holds one.

    >>> extract_question(critique_row_prompt("1+1?", "2")), extract_question(sft_row_prompt("1+1?"))
    ('1+1?', '1+1?')
    """
    text = messages[-1]["content"]
    if not text.startswith(CRITIQUE_INSTRUCTION):
        return text.partition("\n")[2]
    text = text.removeprefix(f"{CRITIQUE_INSTRUCTION}\nQuestion:\n")
    return text.partition("\n\nSolution:\n")[0]


def teacher_critique_prompt(question: str, response: str, one_shot: bool = False) -> list:
    """Return the request for a critique: one user message (paper, A.1), or One-Shot CFT's.

    The released script moved the first part into a system message.
    """
    if one_shot:
        return _chat(
            f"{ONE_SHOT_CRITIQUE}\n\nQuestion:\n{question}\n\nStudent's Solution:\n{response}\n"
        )
    return _chat(f"{TEACHER_CRITIQUE}\n\n{question_and_solution(question, response)}")


def teacher_answer_prompt(question: str) -> list:
    """Return the request for the teacher's own answer."""
    return _chat(f"Question:\n{question}\n", TEACHER_ANSWER)


def solve_prompt(
    question: str, template: str, system: str = SOLVE_SYSTEM, tokenizer: Any = None
) -> Any:
    """Return the text that asks a model to solve, byte for byte the released evaluation's.

    template: "none" is the bare question. "own" is the tokenizer's; without one messages are
    returned, for a server that has its own.

    >>> print(solve_prompt("1+1?", "deepseek"))
    User: 1+1?
    Please reason step by step, and put your final answer within \\boxed{}.
    <BLANKLINE>
    Assistant:
    """
    if template == "none":
        return question
    if template == "deepseek" and system == SOLVE_SYSTEM:
        # The released form: the system line closes the question.
        question, system = f"{question}\n{SOLVE_SYSTEM}", ""
    messages = _chat(question, system)
    if template == "own" and tokenizer is None:
        return messages
    return render(messages, template, tokenizer)


@contextmanager
def _time_limit():
    """End a model's own template after TEMPLATE_SECONDS of CPU: it may hold any loop.

    Only the main thread can do so; in another one there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise InputError(
            f"the model's own chat template took more than {TEMPLATE_SECONDS} s for a prompt.\n"
            f"{LEAVE_OUT}"
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, TEMPLATE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# --- chat templates ------------------------------------------------------------------------------

# A saved tokenizer carries them, too.
JINJA = {
    "chatml": (
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "deepseek": (
        "{{ bos_token or '' }}{% for m in messages %}"
        "{% if m['role'] == 'user' %}{{ 'User: ' + m['content'] + '\n\n' }}"
        "{% elif m['role'] == 'assistant' %}{{ 'Assistant: ' + m['content'] + eos_token }}"
        "{% else %}{{ m['content'] + '\n\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    ),
}
TEMPLATE_SECONDS = 5  # of CPU, for one prompt in a model's own template
TEMPLATES = {name: Template(source) for name, source in JINJA.items()}
TEMPLATE_NEEDS = dict(chatml="<|im_end|>", deepseek="eos_token", own="chat template")
LEAVE_OUT = (
    "Leave --template out (of IFEval: --ifeval-protocol paper), or correct chat_template in the "
    "model's tokenizer_config.json."
)
PROBE = "The answer is 2."  # what a model's own template does with an answer is tried with it
CHATML_MARKERS = ["<|im_start|>", "<|im_end|>"]


def template_for(tokenizer) -> str:
    """Return "chatml" if <|im_end|> is one token of the vocabulary (Qwen), else "deepseek"."""
    return "chatml" if "<|im_end|>" in tokenizer.get_vocab() else "deepseek"


def check_template(template: str, tokenizer):
    """Raise InputError unless the tokenizer can write the template; None is a server's, unknown.

    A marker in pieces would be trained as ordinary text.
    """
    if template == "own":
        usable = bool(getattr(tokenizer, "chat_template", None))
    else:
        usable = tokenizer is None or end_token(template, tokenizer) in tokenizer.get_vocab()
    if not usable:
        raise InputError(
            f"this model's tokenizer has no {TEMPLATE_NEEDS[template]}, "
            f"so --template {template} cannot be used.\n{LEAVE_OUT}"
        )


def add_chatml_markers(template: str, tokenizer, embedding_rows: int, trainable: bool):
    """Add ChatML's markers to a tokenizer without them (DeepSeek), if the embedding has room.

    They take embedding rows that no token uses, which have to be `trainable` to become anything.
    Otherwise nothing is added, and check_template says why ChatML cannot be used.
    """
    room = len(tokenizer) + len(CHATML_MARKERS) <= embedding_rows
    missing = template == "chatml" and template_for(tokenizer) != "chatml"
    if missing and trainable and room:
        tokenizer.add_special_tokens({"additional_special_tokens": CHATML_MARKERS})


def end_token(template: str, tokenizer) -> str:
    """Return the token that closes an answer: supervised in training, it stops the saved model."""
    if template == "own":
        return _answer_form(tokenizer, tokenizer.chat_template)[1]
    return "<|im_end|>" if template == "chatml" else tokenizer.eos_token


def render(messages: list, template: str, tokenizer: Any = None) -> str:
    """Return the prompt text, up to where the assistant begins, without a tokenizer's bos.

    tokenizer: needed by the template "own".

    >>> render([{"role": "user", "content": "1+1?"}], "chatml")
    '<|im_start|>user\\n1+1?<|im_end|>\\n<|im_start|>assistant\\n'
    """
    if template != "own":
        return TEMPLATES[template].render(messages=messages, add_generation_prompt=True)
    if messages[0]["role"] == "system" and not _takes_system(tokenizer, tokenizer.chat_template):
        system, user = [message["content"] for message in messages]
        messages = _chat(f"{system}\n\n{user}")  # as Gemma 3's template writes it
    return _render_own(messages, tokenizer)


def render_completion(text: str, template: str, tokenizer) -> str:
    """Return the supervised text: the answer and its end token.

    DeepSeek's own template puts a space before the answer.
    """
    before = " " if template == "deepseek" else ""
    if template == "own":
        before = _answer_form(tokenizer, tokenizer.chat_template)[0]
    return before + text + end_token(template, tokenizer)


# --- a tokenizer's own template -------------------------------------------------------------------


def _render_own(messages, tokenizer, is_prompt=True):
    """Return the text of messages; is_prompt: with the beginning of an answer."""
    # Llama's templates would write today's date: every day another prompt.
    options = dict(tokenize=False, add_generation_prompt=is_prompt, date_string="26 Jul 2024")
    try:
        with _time_limit():
            text = tokenizer.apply_chat_template(messages, **options)
    except TemplateError as error:
        raise failed(
            "the model's own chat template takes no such prompt", error, LEAVE_OUT
        ) from error
    bos = tokenizer.bos_token
    if bos and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]:
        return text.removeprefix(bos)  # the tokenizer itself puts it before every text
    return text


@lru_cache(maxsize=8)
def _takes_system(tokenizer, chat_template):
    """Return whether the template writes a system message; some refuse it or leave it out."""
    try:
        return PROBE in _render_own(_chat("1+1?", PROBE), tokenizer)
    except InputError:
        return False


@lru_cache(maxsize=8)
def _answer_form(tokenizer, chat_template):
    """Return what the template writes before an answer, and the end token after it."""
    prompt = _render_own(_chat("1+1?"), tokenizer)
    answered = [*_chat("1+1?"), {"role": "assistant", "content": PROBE}]
    text = _render_own(answered, tokenizer, is_prompt=False)
    before, _, after = text.removeprefix(prompt).partition(PROBE)
    special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    ends = [token for token in special if after.startswith(token)]
    if not text.startswith(prompt) or not ends:
        raise InputError(
            f"the model's own chat template ends its prompt with {prompt[-30:]!r} and writes an "
            f"answer as {text[-60:]!r}: it goes on otherwise than the prompt, or no special token "
            f"ends it. So it cannot be trained in it.\n{LEAVE_OUT}"
        )
    return before, max(ends, key=len)
