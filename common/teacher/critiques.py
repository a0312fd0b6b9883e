"""A teacher's answers -> critiqued rows, beside those of other teachers; and the report on them."""

import statistics
from collections import Counter

from common.core import prompts, verdicts
from common.core.files import content_id, utf8
from common.data import critique_quality

SELF = "(the base itself)"  # in place of a teacher's name in critiques that it wrote; it is none, and none is called like that
GRADED = 5_000  # responses graded at most for the report: hard golds take 15 ms each


def build_prompt(row, form, tokenizer=None):
    """What is asked about a response: a teacher by messages, as in the paper or in One-Shot CFT (form "one-shot"); a model that critiques
    itself (its tokenizer is given) with the text that it would be trained on, which is also how the paper has it critique (A.4)."""
    if tokenizer:
        return prompts.render(
            prompts.critique_row_prompt(row["question"], row["response"]),
            prompts.template_for(tokenizer),
        )
    return prompts.teacher_critique_prompt(
        row["question"], row["response"], one_shot=form == "one-shot"
    )


def check_critique(text):
    """Why a finished answer is no critique, or None."""
    return "no verdict" if verdicts.parse_verdict(text) == "unparsed" else None


def carry_over(row):
    """A row whose critique came with the data -> (row of 02, None), or (failed row, reason)."""
    if row["verdict"] == "unparsed":
        return row, "the critique that came with the data has no verdict"
    return row | {
        "critique_id": content_id(row["id"], row["teacher"], row["critique_raw"]),
        "critique": verdicts.with_conclusion(row["critique_raw"], row["verdict"]),
        "critique_finish_reason": None,
        "usage": None,
        "usd": None,
    }, None


def make_row(row, answer, teacher):
    """A row and the record of the teacher's answer -> (row of 02, None), or (failed row, reason)."""
    raw = answer.get("text")
    row = {
        k: v for k, v in row.items() if k not in ("critique", "critique_raw", "verdict", "teacher")
    }  # of the data's own
    if "error" in answer:
        return row | {"teacher": teacher, "critique_raw": raw, "verdict": "unparsed"}, answer[
            "error"
        ]
    raw = utf8(raw)
    verdict = verdicts.parse_verdict(raw)
    return row | {
        "critique_id": content_id(row["id"], teacher, raw),
        "teacher": teacher,
        "critique": verdicts.with_conclusion(
            raw.removeprefix("Critique:\n"), verdict
        ),  # 03 writes that line itself
        "critique_raw": raw,
        "verdict": verdict,
        "critique_finish_reason": answer["finish_reason"],
        "usage": answer["usage"],
        "usd": answer.get("usd"),
    }, None


def make_answer_rows(questions, answers, teacher):
    """Rows with a question, and the record of the teacher's own answer to each -> (rows of 02_answers.jsonl, failed rows)."""
    good, failed = [], []
    for row, answer in zip(questions, answers):
        if "error" in answer:
            failed.append(
                row | {"teacher": teacher, "reason": f"no answer of its own: {answer['error']}"}
            )
        else:
            good.append(
                {
                    "question_id": row["question_id"],
                    "question": row["question"],
                    "gold": row["gold"],
                    "teacher": teacher,
                    "answer": utf8(answer["text"]),
                    "finish_reason": answer["finish_reason"],
                    "usage": answer["usage"],
                    "usd": answer.get("usd"),
                }
            )
    return good, failed


def explain_no_critiques(failed, path, itself):
    """What to say where not one critique has a verdict. path: of the failed rows, where they were written. itself: the model that
    critiqued itself, if one did."""
    if itself:
        return (
            f"{itself} gave not one verdict on {len(failed)} responses, the first: {failed[0]['reason']}\nIt cannot critique, so that "
            f"there is no arm cft-self-critique of it. What it wrote is in {path}; its form is what it was trained on: --max-new-tokens may cut it."
        )
    return (
        f"not one of {len(failed)} critiques has a verdict; the first: {failed[0]['reason']}\nExpected texts that end in 'Conclusion: "
        "right [END]' or 'Conclusion: wrong [END]'. Where a column holds the verdict, name it in 01: --columns verdict=COLUMN "
        "--verdict-values true=right false=wrong"
        + (f"; else look at --model and {path}." if path else ".")
    )


def beside(new, old, teachers, now, key):
    """New rows, of `teachers`, beside those of others that stand: by the order of what was asked about, then as they came.

    now: the rows of 01 that are there; old rows of others are dropped, and what 01 says today of a response (its gold, source, generator)
    holds for all of its critiques. key: "id", or "question_id" for the teachers' own answers.
    """
    place, today = {}, {}
    for at, row in enumerate(now):
        place.setdefault(row[key], at)
        today.setdefault(row[key], {}).setdefault(
            str(row["gold"]), {name: row[name] for name in ("gold", "source", "generator")}
        )
    kept = []
    for row in old:
        if row["teacher"] not in teachers and row[key] in place:
            said = today[row[key]]  # by gold: of two golds that conflict, both stay
            kept.append(
                row
                | {
                    name: value
                    for name, value in said.get(
                        str(row.get("gold")), next(iter(said.values()))
                    ).items()
                    if name in row
                }
            )
    return sorted(kept + new, key=lambda row: place[row[key]])


def summarize(rows, failed):
    """What came of the critiques, for the manifest: verdicts, lengths in characters, finish reasons, verdict against gold."""
    lengths = [len(row["critique"]) for row in rows]
    golden = [row for row in rows if row["gold"] is not None and str(row["gold"]).strip()]
    golden = golden[:: -(-len(golden) // GRADED) or 1]
    return {
        "critiques": len(rows),
        "failed": len(failed),
        "right": sum(row["verdict"] == "right" for row in rows),
        "characters": {
            "shortest": min(lengths),
            "median": int(statistics.median(lengths)),
            "longest": max(lengths),
        },
        "tokens": sum(
            usage["prompt_tokens"] + usage["completion_tokens"]
            for row in rows
            if (usage := row["usage"])
        ),
        "finish_reasons": dict(Counter(str(row["critique_finish_reason"]) for row in rows)),
        "failed_for": dict(Counter(row["reason"][:80] for row in failed).most_common(10)),
        "against_gold": dict(
            critique_quality.count_cases(
                golden, critique_quality.grade_responses(golden, critique_quality.collect_golds(rows))[0]
            )
        ),
    }


def format_summary(report):
    """The report in a few lines."""

    def listed(counts):
        return ", ".join(f"{name} {n:,}" for name, n in counts.items())

    n, gold = report["critiques"], report["against_gold"]
    lines = [
        f"{n:,} critiques, {report['right'] / n:.1%} of them call the response right; {report['failed']:,} rows failed",
        f"characters: {listed(report['characters'])}; tokens, prompts included: {report['tokens']:,}; finish reasons: "
        f"{listed(report['finish_reasons'])}",
    ]
    if gold:
        agree = gold.get("right called right", 0) + gold.get("wrong called wrong", 0)
        lines.append(
            f"verdict and gold agree on {agree / sum(gold.values()):.1%} of {sum(gold.values()):,}: {listed(gold)}"
        )
    return "\n".join(lines + [f"failed: {listed(report['failed_for'])}"] * bool(report["failed"]))
