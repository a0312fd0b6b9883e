"""Records as others write them: messages, conversations, alpaca, critique prompts, single sets."""

import re
from typing import Any

TURN_FIELDS = (("role", "content"), ("from", "value"))  # OpenAI's, ShareGPT's
SYSTEM, USER = ("system", "developer"), ("user", "human", "prompter")
THOUGHT = ("thinking", "reasoning", "redacted_thinking")  # types of a turn's parts
ASSISTANT = ("assistant", "gpt", "model", "bot", "chatgpt")


def look_up(record: dict, path: str) -> Any:
    """Return what a column or a dotted path names in a record, None if there is nothing.

    >>> record = {"meta": {"answer": 5}, "turns": [{"text": "a"}, {"text": "b"}], "a.b": 1}
    >>> look_up(record, "meta.answer"), look_up(record, "turns.-1.text"), look_up(record, "a.b")
    (5, 'b', 1)
    """
    if path in record:
        return record[path]
    value: Any = record
    for key in path.split("."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (LookupError, TypeError, ValueError):
            return None
    return value


def unpack_record(record: dict) -> dict:
    """Return the record with a question and a response, if it has the form of another tool.

    That is alpaca's, or exactly one column with the turns of a dialogue: `messages` of OpenAI's
    form, `conversations` of ShareGPT's, of any name. A response that says of itself that it is a
    critique is unpacked as one. Columns that the record has itself are kept.
    Raises ValueError if the turns are no question with its answer.
    """
    fields = _read_pair(record)
    response = fields.get("response")
    if isinstance(response, str) and response.startswith("Critique:\n"):
        fields = unpack_critique(fields["question"], response)
    return fields | record


def unpack_critique_record(record: dict) -> dict:
    """Return question, response and critique of a record in alpaca's form or with messages.

    >>> unpack_critique_record({"input": "Question:\\nq\\n\\nSolution:\\na", "output": "c"})
    {'question': 'q', 'response': 'a', 'critique': 'c'}
    """
    fields = _read_pair(record)
    return unpack_critique(fields["question"], fields["response"])


def _read_pair(record):
    dialogues = [name for name, value in record.items() if _is_dialogue(value)]
    if "output" in record and ("instruction" in record or "input" in record):
        return _unpack_alpaca(record)
    return unpack_turns(record[dialogues[0]]) if len(dialogues) == 1 else {}


def _is_dialogue(value):
    return isinstance(value, list) and bool(value) and all(map(_read_turn, value))


def _read_turn(turn):
    """Return (speaker, text or parts) of a turn, None if it is no turn."""
    if isinstance(turn, dict):
        for speaker, text in TURN_FIELDS:
            if isinstance(turn.get(speaker), str) and text in turn:
                return turn[speaker].lower(), turn[text]
    return None


def unpack_turns(turns: list) -> dict:
    """Return question and response: the last turn of the assistant and the user's before it.

    Further fields: system, its text or None, and other_turns, how many are left out.
    The response is None if the assistant says nothing. ValueError if the user says nothing.

    >>> unpack_turns([{"from": "human", "value": "2+3?"}, {"from": "gpt", "value": "5"}])
    {'question': '2+3?', 'response': '5', 'system': None, 'other_turns': 0}
    """
    fields: dict = {"question": None, "response": None, "system": None}
    questions = []
    for speaker, content in map(_read_turn, turns):
        text = _join_parts(content)
        if speaker in SYSTEM:
            fields["system"] = text
        elif speaker in USER and text:
            questions.append(text)
        elif speaker in ASSISTANT and text and questions:
            fields |= {"question": questions[-1], "response": text}
    if not questions:
        raise ValueError("no turn of a user")
    fields["question"] = fields["question"] or questions[-1]
    n_taken = sum(value is not None for value in fields.values())
    return fields | {"other_turns": len(turns) - n_taken}


def _join_parts(content):
    """Return the text of a turn without its thinking. ValueError for an image or the like."""
    if isinstance(content, str) or content is None:
        return content or ""
    texts = []
    for part in content:
        kind = part.get("type", "text")
        if kind == "text":
            texts.append(part["text"])
        elif kind not in THOUGHT:
            raise ValueError(f"a turn holds a part of type {kind}, which is no text")
    return "\n".join(texts)


def _unpack_alpaca(record):
    parts = [record.get("instruction") or "", record.get("input") or ""]
    question = "\n\n".join(part for part in parts if part.strip())
    return {"question": question, "response": record["output"]}


def unpack_critique(prompt: str, critique: str) -> dict:
    """Return question, response and critique of a prompt that holds the first two.

    ValueError if it has another form.
    """
    _, _, packed = prompt.partition("Question:\n")
    # Split once only: a response may itself contain "Solution:".
    parts = re.split("\n\n(?:Student's )?Solution:\n", packed, maxsplit=1)
    if len(parts) < 2:
        raise ValueError("its prompt holds no 'Question:' with a 'Solution:' below it")
    question, response = parts
    critique = critique.removeprefix("Critique:\n")
    return {"question": question, "response": response.removesuffix("\n"), "critique": critique}


def unpack_acemath(record: dict) -> dict:
    """Return question (the user's turn) and response of a row of AceMath's SFT data.

    Raises ValueError for several turns: the response would need their history.

    >>> unpack_acemath({"messages": [{"role": "user", "content": "q"}], "answer": "a"})
    {'question': 'q', 'response': 'a'}
    """
    turn, *further = [turn for turn in record["messages"] if turn["role"] != "system"]
    if further:
        raise ValueError("it has several turns, and its answer needs all of them")
    return {"question": turn["content"], "response": record["answer"]}


def unpack_processbench(record: dict) -> dict:
    """Return question, response (its steps, a blank line between them) and generator."""
    response = "\n\n".join(record["steps"])
    return {"question": record["problem"], "response": response, "generator": record["generator"]}


def unpack_prm800k(record: dict) -> dict:
    """Return question and response: the steps so far and the next one."""
    response = "\n".join([*record["responses"], record["next_response"]])
    return {"question": record["instruction"], "response": response, "gold": record.get("answer")}


# The forms that a source may name: a record -> {field: value}. They raise for another form.
FORMS = {
    "any": unpack_record,
    "critique": unpack_critique_record,
    "acemath": unpack_acemath,
    "processbench": unpack_processbench,
    "prm800k": unpack_prm800k,
}
