"""The paper's tables: every cell, their averages, and the page with scores of ours."""

import json

import pytest

from common.data.test_sets import TEST_SETS
from common.evaluate.paper_tables import TABLES, base_of, side_by_side
from tests.conftest import SHARED

NAMES = {
    "MATH": "math",
    "MATH-500": "math500",
    "Minerva-Math": "minerva_math",
    "GSM8K": "gsm8k",
    "OlympiadBench": "olympiadbench",
    "AIME24": "aime24",
    "AMC23": "amc23",
    "TheoremQA": "theoremqa",
    "MMLU-Pro": "mmlu_pro",
    "GPQA": "gpqa",
    "AVG": "AVG",
    "IF_Eval_strict": "ifeval strict_instruction (paper, reference)",
    "IF_Eval_loose": "ifeval loose_instruction (paper, reference)",
    "MT-Bench": "mt_bench",
}
SIX = ["math", "minerva_math", "gsm8k", "olympiadbench", "aime24", "amc23", "AVG"]
ROWS = {
    "table2": 15,
    "table3": 15,
    "table4": 3,
    "table5": 6,
    "table6": 3,
    "table7": 3,
    "table8": 6,
    "table9": 4,
    "table10": 5,
    "table11": 10,
}


def plain(name):
    """Letters and digits of a printed name, without what the tables here leave out."""
    return "".join(c for c in name.replace("WebInstruct", "").lower() if c.isalnum())


@pytest.mark.skipif(
    not (SHARED / "paper" / "tables.json").exists(),
    reason="needs the shared copy of the paper's tables",
)
@pytest.mark.parametrize("name", ROWS)
def test_every_cell_is_the_papers(name):
    theirs, ours = json.loads((SHARED / "paper" / "tables.json").read_text())[name], TABLES[name]
    rows = [row for row in theirs["rows"] if not str(row.get("method")).startswith("delta")]
    assert ours.columns == [NAMES[column] for column in theirs["columns"]] and len(
        ours.rows
    ) == len(rows)
    for row, printed in zip(ours.rows, rows):
        assert row.values == [printed[column] for column in theirs["columns"]], row.name
        assert row.temperature == printed.get("temperature")
        name = " ".join(
            str(printed[key]) for key in ("model", "dataset", "method") if key in printed
        )
        assert plain(row.name.split(", T ")[0]) == plain(
            name.replace("Qwen2.5-Math-Base", "Qwen2.5-Math-7B Base")
        )


def test_shapes():
    assert {name: len(table.rows) for name, table in TABLES.items()} == ROWS
    for name, table in TABLES.items():
        assert (
            table.name == name
            and table.title
            and all(len(row.values) == len(table.columns) for row in table.rows)
        )
        assert set(table.columns) <= {*TEST_SETS, "AVG"} or name == "table8"
        scored = [(row.base, row.model, row.temperature) for row in table.rows]
        assert len(set(scored)) == len(scored)  # a score of ours has one place
        assert any(row.model == "cft" and row.base == "Qwen2.5-Math-7B" for row in table.rows)
        assert [row.name for row in table.rows if row.temperature is not None] == (
            [row.name for row in table.rows] if name == "table11" else []
        )
    assert [
        t.columns
        for n, t in TABLES.items()
        if n in ("table2", "table5", "table6", "table7", "table9", "table10")
    ] == [SIX] * 6


def test_some_cells_by_hand():
    """Typed from the paper's text.

    Qwen2.5-Math-7B-CFT has 48.1 on average and 67.5 on AMC23; self-generated responses 55.1; mixing
    and two stages 54.8 and 51.6; single-pass self-critique falls from 77.2 to 73.5 on MATH.
    """
    cells = {
        (t.name, row.base, row.model, row.temperature): dict(zip(t.columns, row.values))
        for t in TABLES.values()
        for row in t.rows
    }
    base = "Qwen2.5-Math-7B"
    assert cells["table3", base, "cft", None] == {
        "math": 80.2,
        "gpqa": 39.4,
        "theoremqa": 40.4,
        "mmlu_pro": 47.5,
        "olympiadbench": 41.6,
        "aime24": 20.0,
        "amc23": 67.5,
        "AVG": 48.1,
    }
    assert cells["table3", None, "llama-3.1-70b-instruct", None]["AVG"] == 40.4
    assert cells["table3", base, "rstar-math-greedy", None]["gpqa"] is None
    assert (
        cells["table6", base, "cft-self", None]["AVG"] == 55.1
        and cells["table7", base, "cft-mini", None]["AVG"] == 52.0
    )
    assert (
        cells["table9", base, "mix", None]["AVG"] == 54.8
        and cells["table9", base, "two-stage", None]["AVG"] == 51.6
    )
    assert [cells["table11", base, "single-pass-self-critique", t]["math"] for t in (0.1, 0.6)] == [
        77.2,
        73.5,
    ]
    assert cells["table2", "Qwen2.5-7B", "cft", None]["AVG"] - cells[
        "table2", "Qwen2.5-7B", "sft-verified", None
    ]["AVG"] == pytest.approx(10.4)
    assert cells["table8", base, "cft", None] == {
        "ifeval strict_instruction (paper, reference)": 0.335,
        "ifeval loose_instruction (paper, reference)": 0.362,
        "mt_bench": 6.49,
    }
    assert (
        cells["table4", base, "cft", None]["math500"] == 79.6
        and cells["table10", base, "cft-short", None]["AVG"] == 55.2
    )


MODELS = {
    "table2": ["base", "sft", "sft-verified", "sft-teacher", "cft"] * 3,
    "table4": ["simplerl-zero", "simplerl", "cft"],
    "table5": ["metamath-sft", "metamath-cft", "numina-sft", "numina-cft", "sft", "cft"],
    "table6": ["base", "cft-self", "cft"],
    "table7": ["sft-verified", "cft-mini", "cft"],
    "table9": ["cft", "mix", "two-stage", "acemath-sft"],
    "table8": ["base", "qwen2.5-math-7b-instruct", "sft", "sft-verified", "sft-teacher", "cft"],
    "table10": ["sft", "sft-verified", "sft-teacher", "cft", "cft-short"],
}


@pytest.mark.parametrize("name", MODELS)
def test_names_of_ours(name):
    assert [row.model for row in TABLES[name].rows] == MODELS[name]


def test_bases():
    assert [row.base for row in TABLES["table2"].rows] == ["DeepSeek-Math-7B"] * 5 + [
        "Qwen2.5-7B"
    ] * 5 + ["Qwen2.5-Math-7B"] * 5
    assert [row.base for row in TABLES["table3"].rows] == [None] * 9 + ["Qwen2.5-Math-7B"] * 6
    assert all(
        row.base == "Qwen2.5-Math-7B"
        for name in ROWS
        if name not in ("table2", "table3")
        for row in TABLES[name].rows
    )


def test_rows_that_two_tables_share_agree():
    """The same model on the same benchmark: CFT is in seven tables."""
    seen = {}
    for table in TABLES.values():
        for row in table.rows:
            for column, value in zip(table.columns, row.values):
                if column != "AVG" and not row.temperature and row.base == "Qwen2.5-Math-7B":
                    assert seen.setdefault((row.model, column), value) == value, (
                        table.name,
                        row.name,
                        column,
                    )
    assert seen["cft", "minerva_math"] == 42.3


def test_avg_is_the_mean_of_the_columns_printed():
    """Half a printed digit of the average.

    The one exception is the paper's own (312.4/6 = 52.07, printed as 52.0).
    """
    off = []
    for table in TABLES.values():
        for row in table.rows:
            if table.columns[-1] == "AVG" and row.values[-1] is not None:
                mean = sum(row.values[:-1]) / len(row.values[:-1])
                if abs(mean - row.values[-1]) > 0.0501:
                    off.append((table.name, row.name, round(mean, 3), row.values[-1]))
    assert off == [("table7", "GPT-4o-mini-CFT", 52.067, 52.0)]


def ours(model, benchmark, paper, low=0.0, high=1.0, n=100, strict=0.5):
    """Return a score as 05 writes it."""
    return {
        "model": model,
        "benchmark": benchmark,
        "n": n,
        "samples": 1,
        "accuracy": strict,
        "low": 0.0,
        "high": 1.0,
        "paper_accuracy": paper,
        "paper_low": low,
        "paper_high": high,
    }


TABLE4 = """\
### Table 4 of the paper: CFT and reinforcement learning

| paper | math500 | minerva_math | olympiadbench | aime24 | amc23 | AVG |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| SimpleRL-Zero | 77.2 | 33.5 | 37.9 | 33.3 | 62.5 | 48.9 |
| SimpleRL | 82.4 | 39.7 | 43.3 | 26.7 | 62.5 | 50.9 |
| CFT | 79.6 | 42.3 | 41.6 | 20.0 | 67.5 | 50.2 |

"""


def test_the_page_with_scores():
    """wilson(393, 500) = (0.748, 0.820): 79.6 is inside. 90 of 272 = 33.1: 42.3 is outside. The
    interval of 30.0 on 30 items holds 20.0 at its very end, as printed.
    """
    scores = [
        ours("cft", "math500", 0.786, 0.748, 0.8196, n=500, strict=0.75),
        ours("cft", "minerva_math", 90 / 272, 0.278, 0.389, n=272, strict=0.301),
        ours("cft", "olympiadbench", 0.416, 0.32, 0.51, strict=0.4),
        ours("cft", "aime24", 0.3, 0.2004, 0.48, n=30, strict=0.25),
        ours("simplerl", "amc23", 0.625, 0.45, 0.75, n=40, strict=0.6),
        ours("sft", "math500", 0.1),  # belongs to other tables
        ours("cft", "gsm8k", 0.9),
    ]
    bases = {"cft": "Qwen2.5-Math-7B", "simplerl": "Qwen2.5-Math-7B"}
    table = side_by_side(TABLES["table4"], scores, bases)
    assert table.startswith(TABLE4)
    lines = [line for line in table.splitlines() if line.startswith(("| Sim", "| CFT"))][3:]
    assert lines == [
        "| SimpleRL (simplerl) | amc23 | 62.5 | 62.5 | 60.0 | 40 | 45.0 to 75.0 | +0.0 | inside |",
        "| CFT (cft) | math500 | 79.6 | 78.6 | 75.0 | 500 | 74.8 to 82.0 | -1.0 | inside |",
        "| CFT (cft) | minerva_math | 42.3 | 33.1 | 30.1 | 272 | 27.8 to 38.9 | -9.2 | outside |",
        "| CFT (cft) | olympiadbench | 41.6 | 41.6 | 40.0 | 100 | 32.0 to 51.0 | +0.0 | inside |",
        "| CFT (cft) | aime24 | 20.0 | 30.0 | 25.0 | 30 | 20.0 to 48.0 | +10.0 | inside |",
    ]


def test_the_average_is_over_the_tables_own_columns():
    """Only a model that has all of them gets one, whatever else it was asked."""
    columns = [name for name in TABLES["table4"].columns if name != "AVG"]
    counts = dict.fromkeys(("unboxed", "truncated", "timed_out", "paper_timed_out"), 0)
    counts |= dict.fromkeys(("failed", "tokens", "seconds"), 0)
    scores = [ours("cft", name, 0.5) | counts for name in [*columns, "gsm8k"]]
    scores += [ours("simplerl", name, 1.0) | counts for name in columns[:-1]]
    lines = compare("table4", scores, "Qwen2.5-Math-7B")
    assert ("CFT (cft)", "AVG", "50.2", "50.0") in lines
    assert not [line for line in lines if line[0].startswith("SimpleRL") and line[1] == "AVG"]


def test_the_page_without_scores():
    page = side_by_side(TABLES["table4"], [ours("sft", "math500", 0.1)], {"sft": ""})
    assert page.startswith(TABLE4) and "simplerl-zero, simplerl, cft" in page[len(TABLE4) :]
    assert "paper's row" not in page
    other = side_by_side(TABLES["table4"], [ours("cft", "math500", 0.8)], {"cft": "Qwen2.5-1.5B"})
    assert other == page


def compare(name, scores, origin, temperature=0.0):
    """Return row, benchmark, paper and ours of each line; all models have the same origin."""
    origins = {score["model"]: origin for score in scores}
    parts = side_by_side(TABLES[name], scores, origins, temperature).split("| paper's row")
    cells = []
    for line in parts[-1].splitlines()[2:] if len(parts) > 1 else []:
        if line.startswith("| "):
            cells.append(tuple(line.removeprefix("| ").split(" | ")[:4]))
    return cells


def test_another_base_is_never_ours():
    cft, gpt = ours("cft", "gsm8k", 0.75), ours("gpt-4o-2024-08-06", "math", 0.8)
    papers = {"Qwen2.5-7B": "88.8", "DeepSeek-Math-7B": "74.5", "Qwen2.5-Math-7B": "90.9"}
    for base, paper in papers.items():
        assert compare("table2", [cft], base) == [(f"{base} CFT (cft)", "gsm8k", paper, "75.0")]
    assert compare("table2", [cft], "Qwen2.5-1.5B") == []
    name = "GPT-4o (2024-08-06) (gpt-4o-2024-08-06)"
    assert compare("table3", [cft, gpt], "Qwen2.5-7B") == [(name, "math", "81.1", "80.0")]


def test_an_unknown_base_is_taken_to_be_the_papers_main_one():
    cft = ours("cft", "gsm8k", 0.75)
    line = ("Qwen2.5-Math-7B CFT (cft)", "gsm8k", "90.9", "75.0")
    assert compare("table2", [cft], "/models/mine") == [line]


ORIGINS = [
    ("runs/x/04_train/cft/step-97 /cache/models--Qwen--Qwen2.5-Math-7B/1a2b", "Qwen2.5-Math-7B"),
    ("TIGER-Lab/Qwen2.5-Math-7B-CFT", "Qwen2.5-Math-7B"),
    ("deepseek-ai/deepseek-math-7b-base", "DeepSeek-Math-7B"),
    ("Qwen/Qwen2.5-7B", "Qwen2.5-7B"),
    ("Qwen/Qwen2.5-Math-1.5B", "another"),
    ("meta-llama/Llama-3.1-8B", "another"),
    ("runs/tiny/01_base", "Qwen2.5-Math-7B"),
    ("/models/mine", "Qwen2.5-Math-7B"),
]


def test_the_base_by_its_name():
    assert [base_of(origin) for origin, _ in ORIGINS] == [base for _, base in ORIGINS]


def test_temperatures():
    """Table 11: greedy unless the score says otherwise."""
    row = "Direct inference, T {} (cft)"
    greedy = compare("table11", [ours("cft", "math", 0.8)], "")
    assert greedy == [(row.format("0.0"), "math", "80.2", "80.0")]
    warm = compare("table11", [ours("cft", "math", 0.75)], "", temperature=0.6)
    assert warm == [(row.format("0.6"), "math", "75.2", "75.0")]
    assert compare("table11", [ours("cft", "math", 0.75)], "", temperature=1.0) == []
    page = side_by_side(TABLES["table2"], [ours("cft", "math", 0.75)], {}, 0.6)
    assert "temperature 0.6" in page


def test_a_cell_that_the_paper_leaves_empty():
    scores = [ours("rstar-math-greedy", "gpqa", 0.4, 0.33, 0.47, n=198)]
    page = side_by_side(TABLES["table3"], scores, {})
    assert "| rStar-Math@Greedy | 78.4 | - | - | - | 47.1 | 26.7 | 47.5 | - |" in page
    assert "(rstar-math-greedy) | gpqa | - | 40.0 | 50.0 | 198 | 33.0 to 47.0 | - | - |" in page


def test_table_8_has_units_of_its_own():
    page = side_by_side(TABLES["table8"], [], {})
    assert "| Qwen2.5-Math-7B SFT | 0.315 | 0.33 | 5.23 |" in page
