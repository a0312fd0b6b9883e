"""Every prompt and chat template of the kit, in one place.

Messages are lists of {"role", "content"}; `render` turns them into the exact text a model sees. Sources: the paper
(A.1), the released evaluation scripts and YAML (TIGER-AI-Lab/CritiqueFineTuning@44b83b8).
"""

from common.core.errors import InputError

# Training prompts. The system line is the released YAML's template default; it stands in every row.
SYSTEM = "You are a helpful assistant."
CRITIQUE_INSTRUCTION = (
    "Please critique whether the following solution to the question is correct.\n\n"
)
SFT_INSTRUCTION = "Please reason step by step to solve the following question."  # original answers
SFT_TEACHER_INSTRUCTION = (
    "Please analyze and answer the following question step by step:"  # teacher answers
)
# By the source of a response, where it is not SFT_INSTRUCTION: these sets were written by models. AceMath's is inferred.
SFT_INSTRUCTIONS = dict.fromkeys(("metamath", "numina", "acemath"), SFT_TEACHER_INSTRUCTION)

# Evaluation prompt of the maths benchmarks, also used to sample responses from a base model.
SOLVE_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
# The last four because models trained on critiques close with [END] (released evaluate script).
STOP = ["</s>", "<|im_end|>", "<|endoftext|>", "(END)", "\\[END\\]", "**END**", "[END]"]
# MMLU-Pro and GPQA, as the released scripts ask them.
MMLU_SYSTEM = 'Please reason step by step, and put your answer with "the answer is (X)" where X is the correct letter choice.'
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
    "You are a science expert. A student is trying to solve a question, please explain briefly whether his answer is "
    "correct or not. Finally, conclude your judgement with 'Conclusion: right/wrong [END]'"
)
ONE_SHOT_CRITIQUE = (  # One-Shot CFT (arXiv 2506.03295)
    "You are a mathematics expert. Analyze if the student's solution to the given question is correct. Follow these steps: "
    "1. Identify the key mathematical concepts and correct approach. 2. Check each step of the student's solution. "
    "3. If incorrect, point out errors and provide the correct solution, putting your final answer within \\boxed{}. "
    'Conclude with "Conclusion: right/wrong [END]"'
)
TEACHER_ANSWER = (
    "You are a science expert. You need to answer a given question clearly and conclude your answer with "
    "'Answer: [YOUR ANSWER]'"
)


def _chat(user, system=None):
    return ([{"role": "system", "content": system}] if system else []) + [
        {"role": "user", "content": user}
    ]


def question_and_solution(question, response):
    """The `input` column of the released data: "Question:\\n{q}\\n\\nSolution:\\n{a}\\n"."""
    return f"Question:\n{question}\n\nSolution:\n{response}\n"


def critique_row_prompt(question, response, system=SYSTEM):
    """CFT training prompt. The YAML's framework joins instruction and input with one newline, so three stand there."""
    return _chat(CRITIQUE_INSTRUCTION + "\n" + question_and_solution(question, response), system)


def sft_row_prompt(question, instruction=SFT_INSTRUCTION, system=SYSTEM):
    return _chat(f"{instruction}\n{question}", system)


def question_of(messages):
    """The question of a training row's prompt, as far as it can be told: up to the first "Solution:" of a critique row.

    >>> question_of(critique_row_prompt("1+1?", "2")), question_of(sft_row_prompt("1+1?"))
    ('1+1?', '1+1?')
    """
    text = messages[-1]["content"]
    if text.startswith(CRITIQUE_INSTRUCTION):
        return text.removeprefix(f"{CRITIQUE_INSTRUCTION}\nQuestion:\n").partition(
            "\n\nSolution:\n"
        )[0]
    return text.partition("\n")[2]


def teacher_critique_prompt(question, response, one_shot=False):
    """One user message (paper, A.1; the released script moved the first part into a system message), or One-Shot CFT's."""
    if one_shot:
        return _chat(
            f"{ONE_SHOT_CRITIQUE}\n\nQuestion:\n{question}\n\nStudent's Solution:\n{response}\n"
        )
    return _chat(f"{TEACHER_CRITIQUE}\n\n{question_and_solution(question, response)}")


def teacher_answer_prompt(question):
    return _chat(f"Question:\n{question}\n", TEACHER_ANSWER)


def solve_prompt(question, template, system=SOLVE_SYSTEM, shots=(), tokenizer=None):
    """The text that asks a model to solve, byte for byte the released evaluation's.

    shots: (question, response) pairs that stand before it as earlier turns. tokenizer: of the template "own".

    >>> solve_prompt("1+1?", "deepseek")
    'User: 1+1?\\nPlease reason step by step, and put your final answer within \\\\boxed{}.\\n\\nAssistant:'
    """
    turns = [text for shot in shots for text in shot] + [question]
    if (
        template == "deepseek" and system == SOLVE_SYSTEM
    ):  # the released form: the system line closes each question
        turns[::2] = [f"{text}\n{system}" for text in turns[::2]]
        system = None
    messages = _chat(turns[0], system) + [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns) if i
    ]
    return own_render(messages, tokenizer) if template == "own" else render(messages, template)


def own_render(messages, tokenizer):
    """By the tokenizer's own chat template, without the first token that the tokenizer itself puts before every text."""
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja: a template may refuse a system line
        raise InputError(
            f"the tokenizer's own chat template cannot write this prompt ({type(error).__name__}: {str(error)[:200]})\n"
            "Take another: --template chatml or deepseek"
        ) from error
    bos = tokenizer.bos_token
    return (
        text.removeprefix(bos)
        if bos and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
        else text
    )


# --- chat templates -------------------------------------------------------------------------------------------------

# jinja is what a saved tokenizer carries; `render` below must say the same (a test compares them).
JINJA = {
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "deepseek": (
        "{{ bos_token or '' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ 'User: ' + m['content'] + '\n\n' }}"
        "{% elif m['role'] == 'assistant' %}{{ 'Assistant: ' + m['content'] + eos_token }}"
        "{% else %}{{ m['content'] + '\n\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    ),
}
TEMPLATES = tuple(JINJA)


def template_for(tokenizer):
    """ "chatml" where the vocabulary has <|im_end|> as one token (Qwen), else "deepseek" (its own User/Assistant form)."""
    return "chatml" if "<|im_end|>" in tokenizer.get_vocab() else "deepseek"


def check_template(template, tokenizer, own=False):
    """InputError unless the template exists and the tokenizer (None: a server's, unknown) can write it.

    A marker in pieces would be trained as ordinary text. own: whether the tokenizer's own template may be taken (05 alone).
    """
    if template == "own" and own:
        if tokenizer is None or not tokenizer.chat_template:
            raise InputError(
                f"--template own: {'no tokenizer is at hand' if tokenizer is None else 'this tokenizer has no chat template'}.\n"
                "Take one of: --template chatml deepseek, or auto"
            )
        return
    if template not in TEMPLATES:
        raise InputError(
            f"unknown chat template {template!r}; expected one of: --template {' '.join(('auto', *TEMPLATES, *['own'] * own))}"
        )
    if tokenizer and template == "chatml" and template_for(tokenizer) != "chatml":
        pieces = tokenizer("<|im_end|>", add_special_tokens=False).input_ids
        raise InputError(
            f"this tokenizer has no <|im_end|> (it makes {len(pieces)} pieces of it), so ChatML cannot be used.\n"
            "Leave --template out: a DeepSeek base is trained with its own form and end token."
        )
    if tokenizer and template != "chatml" and not tokenizer.eos_token:
        raise InputError(
            "this tokenizer has no end token (eos_token), so that a model could not learn to end.\n"
            "Name it in tokenizer_config.json, or take a base with <|im_end|>."
        )


def make_room(template, tokenizer, embedding_rows, trainable):
    """ChatML for a tokenizer without its markers (DeepSeek): they are added as new tokens, where the embedding has rows that
    no token uses. The rows start as they are and have to be `trainable`; otherwise check_template speaks."""
    markers = ["<|im_start|>", "<|im_end|>"]
    if (
        template == "chatml"
        and template_for(tokenizer) != "chatml"
        and trainable
        and len(tokenizer) + len(markers) <= embedding_rows
    ):
        tokenizer.add_special_tokens({"additional_special_tokens": markers})


def end_token(template, tokenizer):
    """The token that closes an answer: supervised in training, a stop token of the saved model."""
    return "<|im_end|>" if template == "chatml" else tokenizer.eos_token


def render(messages, template):
    """Messages -> the prompt text, up to where the assistant begins to write. A tokenizer's bos is not in the text."""
    if template == "chatml":
        turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
        return "".join(turns) + "<|im_start|>assistant\n"
    if template == "deepseek":
        form = {"system": "{}\n\n", "user": "User: {}\n\n", "assistant": "Assistant: {}\n\n"}
        return "".join(form[m["role"]].replace("{}", m["content"]) for m in messages) + "Assistant:"
    raise ValueError(f"unknown chat template {template!r}; expected one of {TEMPLATES}")


def render_completion(text, template, tokenizer):
    """The supervised text: the answer and its end token. DeepSeek's own template puts a space before the answer."""
    return (" " if template == "deepseek" else "") + text + end_token(template, tokenizer)
