"""Tables 2 to 11 of the paper (arXiv 2501.17703), from paper_tables.json, next to our scores.

Each of the paper's numbers is one run, graded by its own lax grader (common/grading/paper.py), of a
checkpoint chosen on MATH-500. The file's fields are attributes here. `columns` are our names of
the benchmarks, and "AVG"; `values` one a column, in the paper's units, None if it prints "-";
`base` what a row was trained from, if the paper says so; `model` the name of our model that its
score is compared with; `temperature` None but in Table 11; `notes` what is known against
its numbers, which is printed below them.
"""

import json
import re
from pathlib import Path
from types import SimpleNamespace

from common.core.errors import InputError
from common.core.tables import cell, interval, markdown, percent
from common.evaluate.scores import average_scores

BASES = ("DeepSeek-Math-7B", "Qwen2.5-7B", "Qwen2.5-Math-7B")  # the last is its main one
LEGEND = "ours: by the paper's grader; inside: its interval holds the paper's number."
HEAD = [
    "paper's row (our model)",
    "benchmark",
    "paper",
    "ours",
    "ours, strict",
    "n",
    "95% interval",
    "ours - paper",
    "paper's is",
]


def _read_tables():
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    tables = json.loads(text, object_hook=lambda row: SimpleNamespace(**DEFAULTS | row))
    return {table.name: table for table in tables}


DEFAULTS = {"temperature": None, "notes": ()}
TABLES = _read_tables()


def find_tables(names: list) -> list:
    """Return the tables of these names; InputError for an unknown one."""
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise InputError(
            f"the paper has no table {' '.join(unknown)} here.\nThere are: {' '.join(TABLES)}"
        )
    return [TABLES[name] for name in names]


def base_of(origin: str) -> str:
    """Return the paper's base that the text on a model's origin (models.read_origin) names.

    It is "another" if the text names a model of another size; if it names none, the paper's main
    one is assumed.
    """
    for base in BASES:
        if base.lower() in origin.lower():
            return base
    return "another" if re.search(r"\d\s?b\b", origin.lower()) else BASES[-1]


def side_by_side(table, scores: list, origins: dict, temperature: float = 0.0) -> str:
    """Return a table as Markdown, and below it each score of ours next to the paper's number.

    scores: as in scores.json; the AVG is taken over the table's own columns. origins: {model:
    text}, see base_of; a model is compared with rows of its own base only. By hand: 0.786
    [0.748, 0.820] of 500 items next to the paper's 79.6 is -1.0, and inside.
    """
    by_key = {(row["model"], row["benchmark"]): row for row in _scores_of_table(table, scores)}
    lines = []
    for row in table.rows:
        base = base_of(origins.get(row.model, ""))
        if row.base not in (None, base) or row.temperature not in (None, temperature):
            continue
        for column, value in zip(table.columns, row.values):
            if (row.model, column) in by_key:
                lines.append(_compare(row, column, value, by_key[row.model, column]))
    printed = [[row.name, *map(cell, row.values)] for row in table.rows]
    parts = [
        f"### Table {table.name.removeprefix('table')} of the paper: {table.title}",
        markdown(["paper", *table.columns], printed, left=1),
    ]
    if lines:
        parts.append(markdown(HEAD, lines))
        parts.append(f"{LEGEND} The paper's are greedy; ours: temperature {temperature:g}.")
    else:
        names = ", ".join(dict.fromkeys(row.model for row in table.rows))
        parts.append(f"No score of this run belongs here: it takes a model called {names}.")
    parts += [f"Note: {note}" for note in table.notes]
    return "\n\n".join(parts)


def _scores_of_table(table, scores):
    """Return the scores in the table's columns, with an AVG for models that have all of them."""
    columns = [column for column in table.columns if column != "AVG"]
    rows = [row for row in scores if row["benchmark"] in columns and row["n"]]
    if "AVG" in table.columns and {row["benchmark"] for row in rows} == set(columns):
        return rows + average_scores(rows)
    return rows


def _compare(row, column, value, score):
    """Return the cells of a line: the paper's number and ours, rounded as they are printed."""
    if column.startswith("ifeval"):  # printed as a share
        value = round(100 * value, 1)
    share = round(100 * score["paper_accuracy"], 1)
    low, high = round(100 * score["paper_low"], 1), round(100 * score["paper_high"], 1)
    difference, position = "-", "-"
    if value is not None:
        difference = f"{share - value:+.1f}"
        position = "inside" if low <= value <= high else "outside"
    return [
        f"{row.name} ({row.model})",
        column,
        cell(value),
        share,
        percent(score["accuracy"]),
        score["n"],
        interval(score["paper_low"], score["paper_high"]),
        difference,
        position,
    ]
