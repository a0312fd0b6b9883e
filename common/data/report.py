"""The page to read before training: what the training sets were made of, and how good it is.

Names of teachers, sources and sets are hostile text: on the page they are one escaped line.
"""

import re
from operator import itemgetter
from pathlib import Path

import numpy as np

from common.core.files import write_atomic
from common.core.tables import interval, markdown, percent
from common.data import chart, critique_quality

EXPLANATION = (
    "A response is right if its final answer equals the gold, by the strict grader; a critique may "
    "fault its reasoning with good reason. Agrees: verdicts that agree with the gold. Accepts: "
    "wrong responses with the verdict right. The intervals take critiques as independent: if a few "
    "questions have many, they are too narrow."
)


def write(
    run: Path, rows: list, correct: dict, summaries: list, left_out: dict, notes: list
) -> None:
    """Write 03_report.md and 03_report.png. Equal input gives equal bytes.

    rows: critiqued rows of selection.add_lengths, at least one. correct: of
    critique_quality.grade_responses. summaries: of selection.summarize, at least one.
    left_out: {reason: number of rows}.
    """
    unit = summaries[0]["length_unit"]
    lengths = {}
    for kind in ("response", "critique", "row"):
        lengths[kind] = [row[f"{kind}_length"] for row in rows]
    tables = {}
    for field in ("teacher", "source", "generator"):
        tables[field] = critique_quality.confusion_table(rows, correct, field)
    chart.draw(run / "03_report.png", lengths, unit, tables["teacher"])
    n_responses = len(set(map(itemgetter("id"), rows)))
    n_questions = len(set(map(itemgetter("question_id"), rows)))
    parts = [
        f"# Training data of {cell(run.name)}",
        f"{len(rows):,} critiques of {n_responses:,} responses to {n_questions:,} questions.",
        "![Lengths, and verdicts against golds](03_report.png)",
        "## Training sets",
        _sets_table(summaries, unit),
        "## Left out",
        markdown(["reason", "rows"], list(map(list, left_out.items())), 1),
        "## Verdicts",
        EXPLANATION,
        *(_verdict_table(field, table) for field, table in tables.items()),
        f"## Lengths in {unit}",
        _length_table(lengths),
        "## Notes",
        *(f"- {cell(note, 1_000)}" for note in notes),
    ]
    write_atomic(run / "03_report.md", "\n\n".join(parts) + "\n")


def cell(text: str, limit: int = 100) -> str:
    """Return any text as one line that Markdown shows as it is.

    Nothing in it ends a cell, or opens a tag, a link or a formula.

    >>> cell("a|b\\n<i>")
    'a\\\\|b \\\\<i\\\\>'
    """
    return re.sub(r"([\\`*\[\]<>|&$~#])", r"\\\1", chart.shorten(text, limit))


def _sets_table(summaries, unit):
    head = ["set", "rows", "questions", "verdict right", unit, "learned", "longest row"]
    lines = []
    for summary in summaries:
        right = "-" if summary["right"] is None else summary["right"]
        learned = summary["completion"]
        lines.append(
            [
                cell(summary["arm"]),
                summary["rows"],
                summary["questions"],
                right,
                summary["prompt"] + learned,
                learned,
                summary["longest"],
            ]
        )
    return markdown(head, lines, 1)


def _verdict_table(field, table):
    lines = []
    for name, line in table.items():
        cells = [cell(name), line["critiques"]]
        cells += [line[case] for case in critique_quality.CASES]
        for share, low, high in (line["agrees"], line["accepts"]):
            cells += [percent(share), interval(low, high)]
        lines.append(cells)
    cases = [case.replace("_", ", verdict ") for case in critique_quality.CASES]
    shares = ["agrees %", "95% interval", "accepts %", "95% interval"]
    return markdown([field, "critiques", *cases, *shares], lines, 1)


def _length_table(lengths):
    lines = []
    for kind, values in lengths.items():
        percentiles = np.percentile(values, [50, 95, 100]).astype(int)
        n_over = np.greater(values, chart.CUTOFF).sum()
        lines.append([kind, *percentiles, n_over])
    head = ["of a", "median", "95th percentile", "longest", f"number over {chart.CUTOFF}"]
    return markdown(head, lines, 1)
