"""Tables 2 to 11 of the paper (arXiv 2501.17703) as data, and our scores beside them.

Each of the paper's numbers is one run, graded by its own lax grader (common/grading/paper.py), of a checkpoint chosen on MATH-500.
"""

import re
from dataclasses import dataclass

import numpy as np

from common.core.errors import InputError
from common.core.stats import wilson
from common.core.tables import markdown
from common.data.test_sets import TEST_SETS

ITEMS = {name: benchmark.items for name, benchmark in TEST_SETS.items()}
DECIMALS = {
    "ifeval_strict": 3,
    "ifeval_loose": 3,
    "mt_bench": 2,
}  # in the paper's own units; all other columns: per cent with one
BASES = ("DeepSeek-Math-7B", "Qwen2.5-7B", "Qwen2.5-Math-7B")

# A table | its title in our words | its columns; below it its rows: name | our name of the model | values. No name of ours: its own, in
# small letters; "-": the same, and not trained from the base that a row is named after, else from Qwen2.5-Math-7B. Read with care:
# - Table 7's "SFT" has the numbers of Table 2's SFT on responses judged right, so it is sft-verified here.
# - The base rows of Table 2 are partly from elsewhere: 91.6 on GSM8K is Qwen's own few-shot score; the released script gives 59.0.
PRINTED = """
table2 | CFT and three kinds of SFT from WebInstruct, on three bases | math minerva_math gsm8k olympiadbench aime24 amc23 AVG
  DeepSeek-Math-7B Base | base | 33.8 9.2 64.3 4.5 0.0 10.0 20.3
  DeepSeek-Math-7B SFT | sft | 26.3 12.1 34.7 6.2 0.0 17.5 16.1
  DeepSeek-Math-7B verified-SFT | sft-verified | 35.8 10.7 67.5 9.3 0.0 7.5 21.8
  DeepSeek-Math-7B GPT4o-SFT | sft-teacher | 31.7 11.8 70.9 8.9 3.3 17.5 24.0
  DeepSeek-Math-7B CFT | cft | 42.2 12.5 74.5 12.4 3.3 20.0 27.5
  Qwen2.5-7B Base | base | 49.8 15.1 85.4 26.3 10.0 37.5 37.4
  Qwen2.5-7B SFT | sft | 30.8 6.6 59.5 5.8 3.3 15.0 20.2
  Qwen2.5-7B verified-SFT | sft-verified | 61.5 16.2 70.8 30.1 13.3 37.5 38.2
  Qwen2.5-7B GPT4o-SFT | sft-teacher | 45.5 18.4 77.4 19.7 10.0 50.0 36.8
  Qwen2.5-7B CFT | cft | 71.1 27.9 88.8 35.7 13.3 55.0 48.6
  Qwen2.5-Math-7B Base | base | 55.4 13.6 91.6 16.1 10.0 40.0 37.8
  Qwen2.5-Math-7B SFT | sft | 59.0 13.2 77.4 19.9 3.3 37.5 35.1
  Qwen2.5-Math-7B verified-SFT | sft-verified | 62.0 12.5 78.8 22.1 16.7 50.0 40.4
  Qwen2.5-Math-7B GPT4o-SFT | sft-teacher | 73.2 25.7 90.0 37.6 13.3 62.5 50.4
  Qwen2.5-Math-7B CFT | cft | 80.2 42.3 90.9 41.6 20.0 67.5 57.1
table3 | CFT beside larger models and models trained on more data | math gpqa theoremqa mmlu_pro olympiadbench aime24 amc23 AVG
  GPT-4o (2024-08-06) | - | 81.1 51.6 54.7 74.7 43.3 9.3 47.5 51.7
  GPT-o1-mini | - | 90.0 60.0 57.2 80.3 65.3 56.7 95.0 72.1
  Deepseek-Math-7B-Instruct | - | 44.3 31.8 23.7 35.3 13.6 3.3 15.0 23.9
  Mathstral-7B-v0.1 | - | 56.6 32.2 28.4 42.5 21.5 6.7 42.4 32.9
  NuminaMath-7B-CoT | - | 55.2 30.6 28.6 38.6 19.9 6.7 30.0 29.9
  Llama-3.1-8B-Instruct | - | 51.9 30.4 30.3 48.3 14.4 6.7 30.0 30.3
  Llama-3.1-70B-Instruct | - | 65.7 42.2 51.3 62.8 14.4 16.7 30.0 40.4
  NuminaMath-72B-CoT | - | 68.0 35.3 24.9 55.0 35.0 3.3 52.5 39.1
  Qwen2.5-Math-72B-Instruct | - | 85.9 49.0 50.3 60.3 49.0 30.0 70.0 56.4
  Qwen2.5-Math-7B Base | base | 55.4 31.0 37.4 39.3 16.1 10.0 40.0 32.7
  Eurus-2-SFT | | 62.4 32.1 38.0 44.2 29.8 3.3 30.1 34.3
  rStar-Math@Greedy | | 78.4 - - - 47.1 26.7 47.5 -
  AceMath-Qwen2.5-Math | | 83.1 26.1 24.6 48.1 42.2 16.7 60.0 43.0
  Qwen2.5-Math-7B-Instruct | | 83.6 31.1 37.0 39.5 41.6 16.7 62.5 44.6
  Qwen2.5-Math-7B CFT | cft | 80.2 39.4 40.4 47.5 41.6 20.0 67.5 48.1
table4 | CFT and reinforcement learning | math500 minerva_math olympiadbench aime24 amc23 AVG
  SimpleRL-Zero | | 77.2 33.5 37.9 33.3 62.5 48.9
  SimpleRL | | 82.4 39.7 43.3 26.7 62.5 50.9
  CFT | cft | 79.6 42.3 41.6 20.0 67.5 50.2
table5 | SFT and CFT by where questions and responses come from | math minerva_math gsm8k olympiadbench aime24 amc23 AVG
  MetaMathQA SFT | metamath-sft | 57.5 23.9 79.5 20.0 6.7 37.5 37.5
  MetaMathQA CFT | metamath-cft | 74.4 42.3 85.7 36.4 23.3 57.5 53.3
  NuminaMath SFT | numina-sft | 70.8 28.3 88.3 36.3 10.0 50.0 47.3
  NuminaMath CFT | numina-cft | 74.2 32.8 89.1 37.2 23.3 62.5 53.2
  WebInstruct SFT | sft | 59.0 13.2 77.4 19.9 3.3 37.5 35.1
  WebInstruct CFT | cft | 80.2 42.3 90.9 41.6 20.0 67.5 57.1
table6 | CFT on critiques of the base's own responses and of WebInstruct's | math minerva_math gsm8k olympiadbench aime24 amc23 AVG
  Base | base | 55.4 13.6 91.6 16.1 10.0 40.0 37.8
  Self-generated | cft-self | 78.2 33.1 92.4 42.5 16.7 67.5 55.1
  Other-generated | cft | 80.2 42.3 90.9 41.6 20.0 67.5 57.1
table7 | CFT by the teacher that wrote the critiques | math minerva_math gsm8k olympiadbench aime24 amc23 AVG
  SFT | sft-verified | 62.0 12.5 78.8 22.1 16.7 50.0 40.4
  GPT-4o-mini-CFT | cft-mini | 73.9 36.4 84.5 35.1 20.0 62.5 52.0
  GPT-4o-1120-CFT | cft | 80.2 42.3 90.9 41.6 20.0 67.5 57.1
table8 | Following instructions: IFEval (share of instructions) and MT-Bench (1 to 10) | ifeval_strict ifeval_loose mt_bench
  Qwen2.5-Math-7B | base | 0.266 0.291 4.79
  Qwen2.5-Math-7B-Instruct | | 0.333 0.345 5.49
  Qwen2.5-Math-7B SFT | sft | 0.315 0.330 5.23
  Qwen2.5-Math-7B verified-SFT | sft-verified | 0.328 0.341 5.41
  Qwen2.5-Math-7B GPT4o-SFT | sft-teacher | 0.325 0.343 5.38
  Qwen2.5-Math-7B CFT | cft | 0.335 0.362 6.49
table9 | CFT together with SFT on good answers (AceMath) | math minerva_math gsm8k olympiadbench aime24 amc23 AVG
  Qwen2.5-Math-7B CFT | cft | 80.2 42.3 90.9 41.6 20.0 67.5 57.1
  Mix 50K CFT + 50K AceMath SFT | mix | 78.8 40.8 89.9 40.3 16.7 62.5 54.8
  CFT + 50K AceMath SFT (two-stage) | two-stage | 76.2 35.4 88.2 42.5 10.0 57.5 51.6
  AceMath SFT (50K) | acemath-sft | 73.7 33.1 90.2 35.1 13.3 52.5 49.7
table10 | CFT on rows as short as those of SFT | math minerva_math gsm8k olympiadbench aime24 amc23 AVG
  WebInstruct SFT | sft | 59.0 13.2 77.4 19.9 3.3 37.5 35.1
  WebInstruct verified-SFT | sft-verified | 62.0 12.5 78.8 22.1 16.7 50.0 40.4
  WebInstruct GPT4o-SFT | sft-teacher | 73.2 25.7 90.0 37.6 13.3 62.5 50.4
  WebInstruct CFT | cft | 80.2 42.3 90.9 41.6 20.0 67.5 57.1
  WebInstruct CFT-Short | cft-short | 78.4 40.4 90.4 40.1 16.7 65.0 55.2
table11 | The CFT model with and without critiquing itself, by temperature | math minerva_math
  Direct inference, T 0.0 | cft | 80.2 42.3
  Direct inference, T 0.1 | cft | 78.8 38.9
  Direct inference, T 0.3 | cft | 77.5 37.7
  Direct inference, T 0.6 | cft | 75.2 34.1
  Single-pass self-critique, T 0.1 | single-pass-self-critique | 77.2 36.7
  Single-pass self-critique, T 0.3 | single-pass-self-critique | 76.1 35.2
  Single-pass self-critique, T 0.6 | single-pass-self-critique | 73.5 34.3
  Two-stage self-critique, T 0.1 | two-stage-self-critique | 77.9 38.2
  Two-stage self-critique, T 0.3 | two-stage-self-critique | 75.8 35.4
  Two-stage self-critique, T 0.6 | two-stage-self-critique | 74.6 34.6
"""


@dataclass(frozen=True)
class Row:
    name: str  # as printed, or nearly
    base: str | None  # what it was trained from, where the paper trained or names it
    model: str  # the name under which our score stands beside it
    temperature: float | None  # None but in Table 11
    values: tuple  # one a column, in the paper's units; None where it prints "-"


@dataclass(frozen=True)
class Table:
    name: str  # "table2" to "table11"
    title: str
    columns: tuple  # our names of the benchmarks, and "AVG"
    rows: tuple


def _parse(block):
    (name, title, columns), *lines = (
        [cell.strip() for cell in line.split("|")] for line in block.splitlines()
    )
    rows = []
    for label, model, values in lines:
        base = (
            None
            if model == "-"
            else next((base for base in BASES if label.startswith(base + " ")), BASES[-1])
        )
        model = model.strip("-") or re.sub("[^a-z0-9.]+", "-", label.lower()).strip("-")
        temperature = re.search(", T (.*)", label)
        values = tuple(None if value == "-" else float(value) for value in values.split())
        rows.append(Row(label, base, model, float(temperature[1]) if temperature else None, values))
    return Table(name, title, tuple(columns.split()), tuple(rows))


TABLES = {table.name: table for table in map(_parse, re.split(r"\n(?=table)", PRINTED.strip()))}


def named(names):
    """The Tables of these names; InputError for one that is not here."""
    if unknown := [name for name in names if name not in TABLES]:
        raise InputError(
            f"the paper has no table {' '.join(unknown)} here; these are: --paper {' '.join(TABLES)}"
        )
    return [TABLES[name] for name in names]


def base_of(origin):
    """The paper's base that the text on a model's origin (candidates.origin) names; "another" where it names one of another size; None where
    it names none."""
    origin = origin.lower()
    known = next((base for base in BASES if base.lower() in origin), None)
    return known or ("another" if re.search(r"\d\s?b\b", origin) else None)


def average(values):
    """AVG as the paper has it: the plain mean of the columns printed (given without AVG itself); None where one of them is None.

    By hand: Table 4's CFT: (79.6 + 42.3 + 41.6 + 20.0 + 67.5)/5 = 50.2.
    """
    return None if None in values else sum(values) / len(values)


def side_by_side(table, ours):
    """A Table as Markdown, and below it each score of ours beside the number that the paper has for it. -> text.

    ours: {(model, benchmark or "AVG"): dict of paper, strict (share in 0..1 by the paper's grader, by the strict one), low, high (95 % of
    the former), n (items), temperature (default 0), base, as in Row: rows trained from another one get none of it; None: not known, taken
    for the paper's main one, which is said}; all but paper may be missing; in Table 8 the paper's units. Differences are of the numbers as
    printed. By hand: 0.786 [0.748, 0.820] of 500 beside the paper's 79.6 is -1.0, and inside.
    """
    bases = {score.get("base") or BASES[-1] for score in ours.values()} or set(BASES)
    possible = [row for row in table.rows if row.base is None or row.base in bases]
    lines = [[f"{row.name} ({row.model})", column, *_beside(value, score, column)]
             for row in possible for column, value in zip(table.columns, row.values)
             if (score := ours.get((row.model, column))) and row.base in (None, score.get("base") or BASES[-1])
             and row.temperature in (None, score.get("temperature", 0.0))]  # fmt: skip
    if lines:
        head = [
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
        found = [
            markdown(head, lines),
            "ours: by the paper's grader, with the interval of its items alone; inside: it holds the paper's.",
        ]
        if guessed := sorted(
            {model for (model, _), score in ours.items() if score.get("base", BASES) is None}
        ):
            found.append(
                f"What {', '.join(guessed)} was trained from is not known by its name, and taken to be {BASES[-1]}."
            )
        if (
            hot := max(score.get("temperature", 0.0) for score in ours.values())
        ) and table.name != "table11":
            found.append(f"ours at temperature {hot:g}: the paper's are greedy.")
    else:
        names = ", ".join(dict.fromkeys(row.model for row in possible))
        names = (
            f"of the names {names} (`--model NAME=FOLDER`)"
            if names
            else f"trained from what its rows were, not from {' or '.join(sorted(bases))}"
        )
        found = [
            f"No score of ours stands in this table: it has the benchmarks above, and models {names}."
        ]
    printed = markdown(
        ["paper", *table.columns],
        [[row.name, *map(_show, row.values, table.columns)] for row in table.rows],
        left=1,
    )
    return "\n\n".join(
        [
            f"## Table {table.name[5:]} of the paper: {table.title}",
            printed,
            *_half_widths(table, possible),
            *found,
        ]
    )


def _beside(paper, score, column):
    scale, digits = (1, DECIMALS[column]) if column in DECIMALS else (100, 1)
    found = [score.get(key) for key in ("paper", "strict", "low", "high")]
    ours, strict, low, high = (
        None if share is None else round(scale * share, digits) for share in found
    )
    n, items, interval = score.get("n"), ITEMS.get(column), None not in (low, high)
    return [_show(paper, column), _show(ours, column), _show(strict, column),
            "-" if n is None else f"{n} of {items}" if items not in (None, n) else str(n),
            f"{_show(low, column)} to {_show(high, column)}" if interval else "-",
            "-" if None in (paper, ours) else f"{ours - paper:+.{digits}f}",
            "-" if paper is None or not interval else "inside" if low <= paper <= high else "outside"]  # fmt: skip


def _half_widths(table, possible):
    """[the line on what the number of items alone allows at the scores of CFT], empty where no number of items is known."""
    row = max(
        (row for row in table.rows if row.model == "cft"),
        key=lambda row: (row in possible, row.values[0]),
    )
    known = {
        column: value / 100 for column, value in zip(table.columns, row.values) if column in ITEMS
    }
    widths = {
        column: 50 * np.ptp(wilson(share * ITEMS[column], ITEMS[column]))
        for column, share in known.items()
    }
    cells = [f"{column} {width:.1f} (n = {ITEMS[column]})" for column, width in widths.items()]
    if "AVG" in table.columns:
        cells.append(
            f"AVG {np.linalg.norm(list(widths.values())) / len(widths):.1f}"
        )  # benchmarks are independent: variances add
    return (
        [f"95% half width in points that the items alone give at {row.name}: {', '.join(cells)}."]
        if cells
        else []
    )


def _show(value, column):
    return "-" if value is None else f"{value:.{DECIMALS.get(column, 1)}f}"
