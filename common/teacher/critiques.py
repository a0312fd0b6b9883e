"""What a teacher is asked about a response, and the rows that its answers become."""

import statistics
from collections import Counter
from pathlib import Path

from common.core import prompts, verdicts
from common.core.files import content_id, read_jsonl, utf8
from common.core.manifests import outputs
from common.core.special_tokens import hide
from common.core.tables import count
from common.core.thinking import without_thinking
from common.core.untrusted import printable

# In place of a teacher's name in critiques that the base itself wrote. No model has this name.
SELF = "(the base itself)"
NOBODY = "(no teacher)"  # if all critiques came with the data
FIELDS = ("id", "question_id", "question", "response", "gold", "source", "generator")
CRITIQUE_FIELDS = ("critique", "critique_raw", "verdict", "teacher")
BARE = "a bare conclusion"


def read_responses(run: Path) -> list[dict]:
    """Return the rows of all files of 01, but for responses that an earlier file holds.

    One file may hold a response several times: with other critiques, or with another gold.
    """
    rows, ids = [], set()
    for path in outputs(run, "01_responses"):
        rows += [row for row in read_jsonl(path, FIELDS) if row["id"] not in ids]
        ids.update(row["id"] for row in rows)
    return rows


def build_self_prompt(row: dict, tokenizer) -> str:
    """Return the text that asks a model for a critique, as it would be trained on it.

    The paper has it critique in this form, too (A.4).
    """
    texts = [hide(row[name], tokenizer) for name in ("question", "response")]
    messages = prompts.critique_row_prompt(*texts)
    return prompts.render(messages, prompts.template_for(tokenizer))


def format_prompt(prompt: list | str) -> str:
    """Return a prompt as it is sent, for a reader: a line with the role before each message."""
    if not isinstance(prompt, str):
        prompt = "\n".join(f"[{message['role']}]\n{message['content']}" for message in prompt)
    return printable(prompt)


def check_critique(text: str, min_words: int = 0, verdict: str | None = None) -> str | None:
    """Return why a finished answer is no critique, or None.

    min_words: fewer words before the conclusion are none. verdict: that of the data, if the text
    need not say it.
    """
    if (verdict or verdicts.parse_verdict(text)) == "unparsed":
        return "no verdict"
    if verdicts.is_bare(text, min_words):
        return f"{BARE} (fewer than {min_words} words before it)"
    return None


def carry_over(row: dict, min_words: int = 0) -> dict:
    """Return the row of a critique that came with the data; with "reason" if it is none."""
    reason = check_critique(row["critique"], min_words, row["verdict"])
    if reason:
        return row | {"reason": f"the critique that came with the data: {reason}"}
    return row | {
        "critique_id": content_id(row["id"], row["teacher"], row["critique_raw"]),
        "critique_finish_reason": None,
        "usage": None,
        "usd": None,
    }


def add_critique(row: dict, answer: dict, teacher: str) -> dict:
    """Return the row with the teacher's critique; with "reason" if the answer is none."""
    row = _without_critique(row)
    if "error" in answer:
        return row | {
            "teacher": teacher,
            "critique_raw": answer.get("text"),
            "verdict": "unparsed",
            "reason": answer["error"],
        }
    raw = utf8(without_thinking(answer["text"]))  # the journal has all of it
    verdict = verdicts.parse_verdict(raw)
    # 03 writes the label itself.
    critique = verdicts.with_conclusion(raw.removeprefix("Critique:\n"), verdict)
    return row | {
        "critique_id": content_id(row["id"], teacher, raw),
        "teacher": teacher,
        "critique": critique,
        "critique_raw": raw,
        "verdict": verdict,
        "critique_finish_reason": answer["finish_reason"],
        "usage": answer["usage"],
        "usd": answer.get("usd"),
    }


def _without_critique(row):
    return {name: value for name, value in row.items() if name not in CRITIQUE_FIELDS}


def add_answer(row: dict, answer: dict, teacher: str) -> dict:
    """Return the row of the teacher's own answer to a question; with "reason" if there is none."""
    if "error" in answer:
        reason = f"no answer of its own: {answer['error']}"
        return _without_critique(row) | {"teacher": teacher, "reason": reason}
    return {
        "question_id": row["question_id"],
        "question": row["question"],
        "gold": row["gold"],
        "teacher": teacher,
        "answer": utf8(without_thinking(answer["text"])),
        "finish_reason": answer["finish_reason"],
        "usage": answer["usage"],
        "usd": answer.get("usd"),
    }


def split_failed(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Return the rows that can be used, and those with a "reason" why not."""
    good = [row for row in rows if "reason" not in row]
    return good, [row for row in rows if "reason" in row]


def explain_failure(failed: list[dict], folder: Path) -> str:
    """Return the error for a run in which no critique at all has a verdict."""
    return (
        f"none of {count(len(failed), 'critique')} can be used; the first: {failed[0]['reason']}\n"
        "Nothing was written but what failed. Expected texts that give reasons and end in "
        "'Conclusion: right [END]' or 'Conclusion: wrong [END]': "
        f"look at {folder} and --model. If a column holds the verdict, name it in 01: "
        "--columns verdict=COLUMN --verdict-values true=right false=wrong"
    )


def summarize(rows: list[dict], failed: list[dict], answers: list[dict]) -> dict:
    """Return counts for the manifest. 03 holds the verdicts against the gold answers."""
    reasons = Counter(row["reason"][:80] for row in failed)
    texts = [answer["text"] for answer in answers if answer.get("text")]
    return {
        "critiques": len(rows),
        "right": sum(row["verdict"] == "right" for row in rows),
        "median_characters": statistics.median(len(row["critique"]) for row in rows),
        "failed": len(failed),
        "failed_for": dict(reasons.most_common(10)),
        "thinking_removed": sum(without_thinking(text) != text for text in texts),
        "bare_conclusions": sum(BARE in row["reason"] for row in failed),
    }


def format_summary(report: dict) -> str:
    """Return the counts of `summarize` in a few lines."""
    share = report["right"] / report["critiques"]
    lines = [
        f"{count(report['critiques'], 'critique')}, median length "
        f"{report['median_characters']:,.0f} characters; {share:.1%} of them call the response "
        "right"
    ]
    for reason, n in report["failed_for"].items():
        lines.append(f"{count(n, 'row')} without a critique: {printable(reason)}")
    if report["thinking_removed"]:
        lines.append(
            f"{count(report['thinking_removed'], 'answer')} with thinking, which is left out"
        )
    return "\n".join(lines)
