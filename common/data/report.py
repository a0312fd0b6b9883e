"""The page to read before training: what the training sets were made of, and how good it is.

Names of teachers, sources and sets are hostile text: on the page they are one escaped line, in the
picture no TeX.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from common.core.files import write_atomic
from common.core.tables import interval, markdown, percent
from common.data import chart, critique_quality

SHOWN = 12  # names, or rows of a table: those with the most critiques, whatever a column holds


def write(
    path_md: Path,
    path_png: Path,
    rows: list,
    correct: dict,
    gold_counts: dict,
    left_out: dict,
    summaries: list,
    unit: str,
    notes: list,
) -> None:
    """Write 03_report.md and 03_report.png. Equal input gives equal bytes.

    rows: critiqued rows of selection.add_lengths, at least one. correct, gold_counts: of
    critique_quality.grade_responses.
    left_out: {reason: number of rows}. summaries: of selection.summarize, one for each training
    set. notes: lines.
    """
    teachers = _largest(critique_quality.confusion_table(rows, correct, "teacher"))
    graded = {name: line for (name,), line in teachers.items() if line["agrees"][0] is not None}
    kinds = {"response": "response", "critique": "critique", "row": "cft row"}
    lengths = {name: [row[f"{kind}_length"] for row in rows] for kind, name in kinds.items()}
    chart.draw(path_png, lengths, unit, graded)
    sections = {
        "What it was made from": _describe_rows(rows, gold_counts),
        "Left out": _left_out_table(left_out),
        "Training sets": _sets_table(summaries, unit),
        "Verdicts": _verdict_section(rows, correct),
        "Teachers against each other": _agreement_table(rows),
        f"Lengths in {unit}": _length_table(lengths),
        "Notes": "\n".join(f"- {cell(note, 1_000)}" for note in notes),
    }
    title = f"# Training data of {cell(path_md.parent.name)}"
    parts = [title, f"![Lengths, and verdicts against golds]({path_png.name})"]
    for heading, text in sections.items():
        if text:
            parts.append(f"## {heading}\n\n{text}")
    write_atomic(path_md, "\n\n".join(parts) + "\n")


def cell(text: str, limit: int = 100) -> str:
    """Return any text as one line that Markdown shows as it is.

    Nothing in it ends a cell, or opens a tag, a link or a formula.

    >>> cell("a|b\\n<i>")
    'a\\\\|b \\\\<i\\\\>'
    """
    return re.sub(r"([\\`*\[\]<>|&$~#])", r"\\\1", chart.shorten(text, limit))


def _largest(table):
    """Return the SHOWN groups of a confusion table with the most critiques, in its order."""
    largest = sorted(table, key=lambda key: -table[key]["critiques"])[:SHOWN]
    return {key: table[key] for key in sorted(largest)}


def _describe_rows(rows, gold_counts):
    responses = {row["id"]: row for row in rows}.values()
    n_questions = len({row["question_id"] for row in rows})
    counts = {
        "Responses": gold_counts,
        "Teachers, by critiques": Counter(str(row["teacher"]) for row in rows),
        "Sources, by responses": Counter(str(row["source"]) for row in responses),
        "Generators, by responses": Counter(str(row["generator"]) for row in responses),
    }
    text = (
        f"{len(rows):,} critiques of {len(responses):,} responses to {n_questions:,} questions.\n"
    )
    for title, numbers in counts.items():
        largest = Counter(numbers).most_common(SHOWN)
        text += f"\n- {title}: " + ", ".join(f"{cell(name)} {n:,}" for name, n in largest)
    return text


def _line(*values):
    """Return the cells of a table's line: texts escaped, numbers with thousands marked."""
    return [cell(value) if isinstance(value, str) else f"{value:,}" for value in values]


def _share(share):
    """Return a share of critique_quality as two cells: per cent, and its interval."""
    return percent(share[0]), interval(*share[1:])


def _left_out_table(left_out):
    lines = [_line(reason, number) for reason, number in left_out.items() if number]
    return markdown(["reason", "number"], lines, 1)


def _sets_table(summaries, unit):
    head = ["set", "rows", "questions", "verdict right %", unit, "learned", "a row", "longest row"]
    lines = []
    for summary in summaries:
        n_rows, n_right, learned = summary["rows"], summary["right"], summary["completion"]
        right = percent(None if n_right is None else n_right / n_rows)
        total = summary["prompt"] + learned
        counts = (summary["arm"], n_rows, summary["questions"], right, total, learned)
        lines.append(_line(*counts, round(total / n_rows), summary["longest"]))
    return markdown(head, lines, 1)


def _verdict_section(rows, correct):
    """Return a line for each teacher, and for each source of a teacher if there are several."""
    lines = []
    for fields in (("teacher",), ("teacher", "source")):
        table = critique_quality.confusion_table(rows, correct, *fields)
        for key, line in _largest(table).items():
            counts = [line[case] for case in critique_quality.CASES]
            shares = [percent(line["called_right"][0])]
            shares += [*_share(line["agrees"]), *_share(line["accepts"])]
            lines.append(_line(", ".join(key), line["critiques"], *counts, *shares))
    if len(lines) == 2:  # one teacher, one source: both lines are the same
        lines.pop()
    head = ["teacher, source", "critiques"]
    head += [case.replace("_", ", verdict ") for case in critique_quality.CASES]
    head += ["verdict right %", "agrees %", "95% interval", "accepts %", "95% interval"]
    explanation = (
        "A response is right if its final answer equals the gold, by the strict grader; a critique "
        "may fault its reasoning with good reason. Agrees: verdicts that agree with the gold. "
        "Accepts: wrong responses with the verdict right. The intervals take critiques as "
        "independent: if a few questions have many, they are too narrow."
    )
    return f"{explanation}\n\n{markdown(head, lines, 1)}"


def _agreement_table(rows):
    lines = []
    for pair in critique_quality.teacher_agreement(rows)[:SHOWN]:
        kappa = "-" if pair["kappa"] is None else f"{pair['kappa']:.2f}"
        counts = (pair["n"], pair["a_right"], pair["b_right"], pair["agree"])
        lines.append(
            _line(pair["a"], pair["b"], *counts, percent(pair["agree"] / pair["n"]), kappa)
        )
    head = ["a", "b", "responses", "a: right", "b: right", "agree", "agree %", "kappa"]
    return markdown(head, lines)


def _length_table(lengths):
    lines = []
    for kind, values in lengths.items():
        percentiles = np.percentile(values, [5, 50, 95, 100]).round().astype(int)
        over = percent(float(np.mean(np.array(values) > chart.CUTOFF)))
        lines.append(_line(kind, len(values), *percentiles, over))
    head = ["of a", "number", "5th percentile", "median", "95th percentile", "longest"]
    return markdown([*head, f"over {chart.CUTOFF:,} %"], lines, 1)
