"""The page before training: its tables by hand, hostile names, pictures, equal bytes."""

import random
import re
import warnings

import matplotlib.colors
import matplotlib.image
import pytest

from common.core import untrusted
from common.data import report

ROW = {"question": "", "gold": "1", "response": "", "critique": ""}
HOSTILE = [
    "a|b\nc",
    "<script>alert(1)</script>",
    "$x^{",
    "\\frac{$a$}$",
    "漢字 مرحبا 🙂",
    "x" * 500,
    "",
    "[l](javascript:1)",
    "`$\\undefined$`",
    "\\|\\",
    "\u202egnp.exe\x00\x1b[2J",
    "\ud800",
    "| --- |",
    "![i](http://x/y.png)",
    "&lt;b&gt;",
    "**b** ~~s~~",
]
SUMMARY = {
    "arm": "sft",
    "rows": 4,
    "questions": 3,
    "right": 3,
    "length_unit": "tokens",
    "prompt": 1_000,
    "completion": 3_000,
    "longest": 2_049,
}


def critiqued(name, source, teacher, verdict, length=900):
    row = {"id": name, "question_id": f"q{name}", "source": source, "generator": "g"}
    lengths = {"response_length": 10, "critique_length": 20, "row_length": length}
    return ROW | row | lengths | {"teacher": teacher, "verdict": verdict}


def random_rows(teachers, sources, n=10, seed=0):
    """Return n responses a source, each judged by every teacher, and which of them are right."""
    rng, rows, correct = random.Random(seed), [], {}
    for s, source in enumerate(sources):
        for i in range(n):
            correct[f"{s}-{i}"] = rng.random() < 0.5
            for teacher in teachers:
                verdict = rng.choice(["right", "wrong"])
                rows.append(critiqued(f"{s}-{i}", source, teacher, verdict))
    return rows, correct


def write_report(folder, rows, correct, **arguments):
    folder.mkdir(exist_ok=True)
    defaults = {"summaries": [SUMMARY], "left_out": {}, "notes": []}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that the font lacks, a layout that does not fit
        report.write(folder, rows, correct, **defaults | arguments)
    return (folder / "03_report.md").read_text(encoding="utf-8")


def section(text, heading):
    pattern = rf"^## {re.escape(heading)}\n\n(.*?)(?=\n\n## |\Z)"
    return re.search(pattern, text, re.DOTALL | re.MULTILINE)[1].strip()


def table_lines(text, heading, number=0):
    """Return the lines of one of a section's tables, without its head."""
    tables = re.findall(r"(?:^\|.*\n?)+", section(text, heading), re.MULTILINE)
    return tables[number].splitlines()[2:]


# --- the page -------------------------------------------------------------------------------------


def test_the_page_by_hand(tmp_path):
    """Teacher a judged three responses, b two of them; response 1 is right, 2 and 3 are wrong."""
    rows = [
        critiqued("1", "s", "a", "right", 100),
        critiqued("2", "s", "a", "right", 2_048),
        critiqued("3", "z", "a", "wrong", 3_000),
        critiqued("1", "s", "b", "right", 2_049),
        critiqued("2", "s", "b", "wrong"),
        critiqued("4", "z", "b", "wrong"),
    ]
    text = write_report(
        tmp_path / "run",
        rows,
        {"1": True, "2": False, "3": False},
        left_out={"too long": 12, "too short": 0},
        summaries=[SUMMARY, SUMMARY | {"arm": "sft-teacher", "right": None}],
        notes=["AceMath: CC-BY-NC-4.0, not for commercial use"],
    )
    assert text.startswith("# Training data of run\n\n6 critiques of 4 responses to 4 questions.\n")
    assert "](03_report.png)\n" in text
    assert table_lines(text, "Left out") == ["| too long | 12 |", "| too short | 0 |"]
    assert table_lines(text, "Training sets") == [
        "| sft | 4 | 3 | 3 | 4000 | 3000 | 2049 |",
        "| sft-teacher | 4 | 3 | - | 4000 | 3000 | 2049 |",
    ]
    assert table_lines(text, "Verdicts") == [
        "| a | 3 | 1 | 0 | 1 | 1 | 66.7 | 20.8 to 93.9 | 50.0 | 9.5 to 90.5 |",
        "| b | 3 | 1 | 0 | 0 | 1 | 100.0 | 34.2 to 100.0 | 0.0 | 0.0 to 79.3 |",
    ]
    assert table_lines(text, "Verdicts", 1) == [
        "| s | 4 | 2 | 0 | 1 | 1 | 75.0 | 30.1 to 95.4 | 50.0 | 9.5 to 90.5 |",
        "| z | 2 | 0 | 0 | 0 | 1 | 100.0 | 20.7 to 100.0 | 0.0 | 0.0 to 79.3 |",
    ]
    (generator,) = table_lines(text, "Verdicts", 2)
    assert generator.startswith("| g | 6 |")
    assert table_lines(text, "Lengths in tokens") == [
        "| response | 10 | 10 | 10 | 0 |",
        "| critique | 20 | 20 | 20 | 0 |",
        "| row | 1474 | 2762 | 3000 | 2 |",
    ]
    assert section(text, "Notes") == "- AceMath: CC-BY-NC-4.0, not for commercial use"


# --- hostile text ---------------------------------------------------------------------------------


def columns(line):
    """Return how many cells a line of a table has: by pipes without a backslash before them."""
    return len(re.findall(r"(?:\\.|[^|\\])*\|", line)) - 1


def test_a_cell_is_one_line_that_opens_nothing():
    for name in HOSTILE:
        text = untrusted.escape(name)
        assert text.isprintable() and 0 < len(text) <= 120, name
        assert columns(f"| {text} | 1 |") == 2, name
        plain = re.sub(r"\\.", "", text)
        assert not set(plain) & set("<>[]`*|$&~#\\"), name


def test_shorten_leaves_both_ends_and_cell_the_letters():
    assert untrusted.shorten("abcdefghij", 10) == "abcdefghij"
    assert untrusted.shorten("abcdefghijk", 10) == "abcd…ghijk"
    assert untrusted.shorten(" a\n\tb ", 10) == "a b"
    assert untrusted.shorten("\n", 10) == "(no name)"
    text = "a|b <i> $x$ \\y `c` _d_"
    assert re.sub(r"\\(.)", r"\1", untrusted.escape(text)) == text


def test_hostile_names_break_neither_table_nor_picture(tmp_path):
    """As teachers, sources, generators, sets and notes."""
    for names in (HOSTILE[:8], HOSTILE[8:]):
        rows, correct = random_rows(names, names)
        rows = [row | {"generator": row["source"]} for row in rows]
        text = write_report(
            tmp_path,
            rows,
            correct,
            left_out={"too long": 1},
            summaries=[SUMMARY | {"arm": name} for name in names],
            notes=names,
        )
        tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
        assert [len(table.splitlines()) - 2 for table in tables] == [8, 1, 8, 8, 8, 3]
        for table in tables:
            assert len({columns(line) for line in table.splitlines()}) == 1
        assert "<" not in re.sub(r"\\.", "", text)
        assert len(re.findall("^#", text, re.MULTILINE)) == 6
        assert len(text.splitlines()) == text.count("\n")
        read_picture(tmp_path)


def test_a_column_of_many_names_stays_a_page(tmp_path):
    """30 sources, 30 teachers: those with the most critiques are shown."""
    names = [f"n{i:02}" for i in range(30)]
    rows, correct = random_rows(names, names, 1)
    rows += random_rows(names[5:17], names[8:20], 1)[0]
    text = write_report(tmp_path, rows, correct)
    for number, largest in enumerate((names[5:17], names[8:20])):
        lines = table_lines(text, "Verdicts", number)
        assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in largest]
    assert read_picture(tmp_path).shape[0] < 1_500


# --- the picture ----------------------------------------------------------------------------------


def read_picture(folder):
    pixels = matplotlib.image.imread(folder / "03_report.png")
    assert not list(folder.glob("*.part"))
    assert 400 < pixels.shape[0] < 4_000 and 900 < pixels.shape[1] < 2_000
    return pixels[..., :3]


def find_color(pixels, color):
    """Return rows and columns of the pixels of a color."""
    return (abs(pixels - matplotlib.colors.to_rgb(color)).sum(axis=2) < 0.02).nonzero()


def test_without_golds_the_picture_has_lengths_alone(tmp_path):
    rows, _ = random_rows(["t"], ["s"])
    write_report(tmp_path, rows, {})
    assert not find_color(read_picture(tmp_path)[80:, 975:], report.BLUE)[0].size


def test_a_dot_is_at_its_share(tmp_path):
    """Of 4 verdicts 1, 2 or 3 agree with the gold: the dot moves to the right by equal steps."""
    places = []
    for k in (1, 2, 3):
        rows = [critiqued(str(i), "s", "t", "right" if i < k else "wrong") for i in range(4)]
        write_report(tmp_path, rows, dict.fromkeys("0123", True))
        y, x = find_color(read_picture(tmp_path)[80:, 975:], report.BLUE)  # below the legend
        heights = [(x == column).sum() for column in range(x.max() + 1)]
        places.append(heights.index(max(heights)))
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=3)
    assert places[1] - places[0] > 100


def test_one_huge_text_leaves_the_others_to_be_seen(tmp_path):
    """The axis ends at the 99th percentile, though 1 of 1,000 texts has a million tokens."""
    rows = [critiqued(str(n), "s", "t", "right", n) for n in [*range(1, 1_000), 1_000_000]]
    assert "| 1000000 |" in write_report(tmp_path, rows, {})
    seen_through = [0.45 * c + 0.55 for c in matplotlib.colors.to_rgb("C2")]
    _, bars = find_color(read_picture(tmp_path)[80:], seen_through)
    assert len(set(bars)) > 700


def test_equal_input_gives_equal_bytes(tmp_path):
    rows, correct = random_rows(["b", "a", "c"], ["z", "y"])
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name / "run", rows, correct, left_out={"x": 1}, notes=["n"])
    for file in ("03_report.md", "03_report.png"):
        first, second = (tmp_path / name / "run" / file for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
