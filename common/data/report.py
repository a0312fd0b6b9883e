"""The page to read before training: what the training sets were made of, and how good it is.

Names of teachers, sources and sets are hostile text: on the page they are one escaped line.
"""

from pathlib import Path

import numpy as np

from common.core.figures import new_figure, save_figure
from common.core.files import write_atomic
from common.core.tables import count, interval, markdown, percent
from common.core.untrusted import escape, shorten
from common.data import critique_quality

CUTOFF = 2_048  # tokens a row at most (paper's yaml): 04 cuts or drops longer ones
BLUE, RED = "#4c72b0", "#c44e52"
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
    grades.grade_responses. summaries: of selection.summarize, at least one.
    left_out: {reason: number of rows}.
    """
    unit = summaries[0]["length_unit"]
    lengths = {}
    for kind in ("response", "critique", "row"):
        lengths[kind] = [row[f"{kind}_length"] for row in rows]
    tables = {}
    for field in ("teacher", "source", "generator"):
        tables[field] = critique_quality.confusion_table(rows, correct, field)
    _draw(run / "03_report.png", lengths, unit, tables["teacher"])
    n_responses = len({row["id"] for row in rows})
    n_questions = len({row["question_id"] for row in rows})
    parts = [
        f"# Training data of {escape(run.name)}",
        f"{count(len(rows), 'critique')} of {count(n_responses, 'response')} to "
        f"{count(n_questions, 'question')}.",
        "![Lengths, and verdicts against golds](03_report.png)",
        "## Training sets",
        _sets_table(summaries, unit),
        "## Left out",
        markdown(["reason", "rows"], list(map(list, left_out.items())), 1),
        "## Verdicts",
        EXPLANATION,
        *map(_verdict_table, tables, tables.values()),
        f"## Lengths in {unit}",
        _length_table(lengths),
        "## Notes",
        *(f"- {escape(note, 1_000)}" for note in notes),
    ]
    write_atomic(run / "03_report.md", "\n\n".join(parts) + "\n")


def _sets_table(summaries, unit):
    head = ["set", "rows", "questions", "verdict right", unit, "learned", "longest row"]
    lines = []
    for summary in summaries:
        right = "-" if summary["right"] is None else summary["right"]
        learned = summary["completion"]
        row = [escape(summary["arm"]), summary["rows"], summary["questions"], right]
        lines.append([*row, summary["prompt"] + learned, learned, summary["longest"]])
    return markdown(head, lines, 1)


def _verdict_table(field, table):
    lines = []
    for name, line in table.items():
        cells = [escape(name), line["critiques"]]
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
        lines.append([kind, *percentiles, np.greater(values, CUTOFF).sum()])
    head = ["of a", "median", "95th percentile", "longest", f"number over {CUTOFF}"]
    return markdown(head, lines, 1)


# --- the picture ----------------------------------------------------------------------------------


def _draw(path, lengths, unit, teachers):
    """Draw the lengths, and the verdicts of each teacher against the golds."""
    figure = new_figure(figsize=(13, 4 + len(teachers) / 4))
    left, right = figure.subplots(1, 2)
    _draw_lengths(left, lengths, unit)
    _draw_shares(right, teachers)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    save_figure(figure, path)


def _draw_lengths(axes, lengths, unit):
    # To the 99th percentile: one text of a million would leave nothing to see.
    right = np.percentile(list(lengths.values()), 99, axis=1).max()
    bins = np.linspace(0, right, 51)
    for kind, values in lengths.items():
        weights = np.full(len(values), 100 / len(values))
        axes.hist(values, bins, weights=weights, histtype="stepfilled", alpha=0.45, label=kind)
    if unit == "tokens" and right > CUTOFF:
        axes.axvline(CUTOFF, color=RED, linestyle="--", label="cutoff of a row")
    axes.set_xlabel(f"{unit}, to the 99th percentile (longer ones are not shown)")
    axes.set_ylabel("% of texts")


def _draw_shares(axes, teachers):
    """Draw both shares of each teacher with their intervals."""
    places = np.arange(len(teachers))
    for key, color, offset, label in (
        ("agrees", BLUE, 0, "verdicts that agree with the gold"),
        ("accepts", RED, 0.2, "wrong responses with the verdict right"),
    ):
        # None becomes NaN, which is not drawn.
        shares = np.array([line[key] for line in teachers.values()], dtype=float)
        middle, low, high = 100 * shares.T
        errors = [middle - low, high - middle]
        axes.errorbar(middle, places + offset, xerr=errors, fmt="o", color=color, label=label)
    # In letters that every font has.
    names = [shorten(name.encode("ascii", "replace").decode(), 40) for name in teachers]
    axes.set_yticks(places, names, parse_math=False)
    axes.set_xlim(-2, 102)
    axes.set_ylim(-0.8, len(teachers) - 0.2)
    axes.set_xlabel("% (bars: 95% interval)")
