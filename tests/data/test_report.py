"""The page before training: its tables by hand, hostile names that break nothing, pictures that open, equal bytes for equal input."""

import random
import re
import warnings

import matplotlib.colors
import matplotlib.image
import pytest

from common.data import chart, report

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
ARMS = [
    {
        "arm": "sft",
        "rows": 4,
        "questions": 3,
        "right": 3,
        "prompt": 1_000,
        "completion": 3_000,
        "longest": 2_049,
    },
    {
        "arm": "cft",
        "rows": 0,
        "questions": 0,
        "right": None,
        "prompt": 0,
        "completion": 0,
        "longest": 0,
    },
]


def rows(teachers, sources, n=10, seed=0):
    """n responses a source, two a question, each judged by every teacher -> rows, which are right."""
    rng, made, right = random.Random(seed), [], {}
    for s, source in enumerate(sources):
        for i in range(n):
            right[f"{s}-{i}"] = rng.random() < 0.5
            made += [
                ROW
                | {
                    "id": f"{s}-{i}",
                    "question_id": f"{s}-{i // 2}",
                    "source": source,
                    "generator": "g",
                    "teacher": teacher,
                    "verdict": rng.choice(["right", "wrong"]),
                }
                for teacher in teachers
            ]
    return made, right


def write_report(folder, *arguments, **more):
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that the font lacks, a layout that does not fit
        report.write(folder / "03_report.md", folder / "03_report.png", *arguments, **more)
    return (folder / "03_report.md").read_text(encoding="utf-8")


def section(text, heading):
    return re.search(
        rf"^## {re.escape(heading)}\n\n(.*?)(?=\n\n## |\Z)", text, re.DOTALL | re.MULTILINE
    )[1].strip()


def test_the_page_by_hand(tmp_path):
    """Teacher a judged three responses, b two of them; response 1 is right, 2 and 3 are wrong."""
    made = [
        ROW
        | {
            "id": i,
            "question_id": "q" + i,
            "source": source,
            "generator": "g",
            "teacher": teacher,
            "verdict": verdict,
        }
        for i, source, teacher, verdict in [
            ("1", "s", "a", "right"),
            ("2", "s", "a", "right"),
            ("3", "z", "a", "wrong"),
            ("1", "s", "b", "right"),
            ("2", "s", "b", "wrong"),
            ("4", "z", "b", "unparsed"),
        ]
    ]
    lengths = {"response": [10, 20, 30], "critique": [100, 2_048, 3_000, 2_049]}
    text = write_report(
        tmp_path / "run",
        made,
        {"1": True, "2": False, "3": False},
        {"graded": 3, "without a gold": 1_000},
        {"too long": 12_345, "too short": 0},
        ARMS,
        lengths,
        "tokens",
        ["AceMath: CC-BY-NC-4.0, not for commercial use"],
    )
    assert text.startswith(
        "# Training data of run\n\n![The same as a picture](03_report.png)\n\n## What it was made from\n"
    )
    assert (
        section(text, "What it was made from")
        == """\
6 critiques of 4 responses to 4 questions; 1 have no verdict and count as neither right nor wrong.

- Teachers, by critiques: a (3), b (3)
- Sources, by responses: s (2), z (2)
- Generators, by responses: g (4)"""
    )
    assert section(text, "Left out").splitlines()[2:] == ["| too long | 12,345 |"]
    assert (
        section(text, "Training sets")
        == """\
| arm | rows | questions | judged right % | tokens | of it learned | learned % | a row | longest row |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| sft | 4 | 3 | 75.0 | 4,000 | 3,000 | 75.0 | 1,000 | 2,049 |
| cft | 0 | 0 | - | 0 | 0 | - | - | 0 |"""
    )
    assert (
        section(text, "Verdicts: % of responses called right (of how many)")
        == """\
| source | a | b | all 2 |
| --- | ---: | ---: | ---: |
| s | 100.0 (2) | 50.0 (2) | 75.0 (4) |
| z | 0.0 (1) | - | 0.0 (1) |
| all 2 | 66.7 (3) | 50.0 (2) | 60.0 (5) |"""
    )
    assert section(text, "Verdicts against golds").splitlines()[2:] == [
        "| teacher | right called right | right called wrong | wrong called right | wrong called wrong | agrees % | 95% interval "
        "| of wrong ones, called right % | 95% interval |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| a | 1 | 0 | 1 | 1 | 66.7 | 20.8 to 93.9 | 50.0 | 9.5 to 90.5 |",
        "| b | 1 | 0 | 0 | 1 | 100.0 | 34.2 to 100.0 | 0.0 | 0.0 to 79.3 |",
        "| all 2 | 2 | 0 | 1 | 2 | 80.0 | 37.6 to 96.4 | 33.3 | 6.1 to 79.2 |",
        "",
        "Responses: graded 3, without a gold 1,000.",
    ]
    assert section(text, "Wrong responses: % called right (of how many)").splitlines()[2:] == [
        "| s | 100.0 (1) | 0.0 (1) | 50.0 (2) |",
        "| z | 0.0 (1) | - | 0.0 (1) |",
        "| all 2 | 50.0 (2) | 0.0 (1) | 33.3 (3) |",
    ]
    assert section(text, "Verdicts that agree with the gold, % (of how many)").splitlines()[2:] == [
        "| s | 50.0 (2) | 100.0 (2) | 75.0 (4) |",
        "| z | 100.0 (1) | - | 100.0 (1) |",
        "| all 2 | 66.7 (3) | 100.0 (2) | 80.0 (5) |",
    ]
    assert section(text, "Teachers against each other").splitlines()[2:] == [
        "| a | b | 2 | 1 | 1 | 0 | 0 | 50.0 | 9.5 to 90.5 | 0.00 |"
    ]
    assert (
        section(text, "Lengths in tokens")
        == """\
| of a | number | 5th percentile | median | 95th percentile | longest | over 2,048 % |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| response | 3 | 11 | 20 | 29 | 30 | 0.0 |
| critique | 4 | 392 | 2,048 | 2,857 | 3,000 | 50.0 |"""
    )
    assert section(text, "Notes") == "- AceMath: CC-BY-NC-4.0, not for commercial use"


def test_sections_and_panels_without_content_are_left_out(tmp_path):
    text = write_report(tmp_path, *rows(["t"], ["s"]), lengths={"critique": []})
    assert re.findall("^## (.*)", text, re.MULTILINE) == [
        "What it was made from",
        "Verdicts: % of responses called right (of how many)",
        "Verdicts against golds",
    ]
    text = write_report(tmp_path, rows(["t"], ["s"])[0], lengths={"response": [3]})
    assert (
        re.findall("^## (.*)", text, re.MULTILINE)
        == [
            "What it was made from",
            "Verdicts: % of responses called right (of how many)",
            "Lengths in characters",
        ]
        and "over 2,048" not in text
    )
    assert (
        write_report(tmp_path, [], notes=["nothing"])
        == f"# Training data of {tmp_path.name}\n\n## Notes\n\n- nothing\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["03_report.md"]  # the older picture is gone


# --- hostile text ---------------------------------------------------------------------------------------------------


def columns(line):
    """How many cells a line of a table has: pipes that no backslash stands before."""
    return len(re.findall(r"(?:\\.|[^|\\])*\|", line)) - 1


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cell_is_one_line_that_opens_nothing(name):
    text = report.cell(name)
    assert text.isprintable() and 0 < len(text) <= 120 and columns(f"| {text} | 1 |") == 2
    plain = re.sub(r"\\.", "", text)
    assert not set(plain) & set("<>[]`*|$&~#\\")


def test_short_keeps_both_ends_and_cell_the_letters():
    assert (
        chart.short("abcdefghij", 10) == "abcdefghij"
        and chart.short("abcdefghijk", 10) == "abcd…ghijk"
    )
    assert (
        chart.short(" a\n\tb ", 10) == "a b"
        and chart.short(None, 10) == "None"
        and chart.short("\n", 10) == "(no name)"
    )
    assert (
        re.sub(r"\\(.)", r"\1", report.cell("a|b <i> $x$ \\y `c` _d_")) == "a|b <i> $x$ \\y `c` _d_"
    )


def test_hostile_names_break_neither_table_nor_picture(tmp_path):
    """As teachers, sources, generators, arms, reasons, lengths and notes: every table keeps its columns, no line begins with a heading of
    theirs, and the picture is drawn without a warning."""
    for names in (HOSTILE[:8], HOSTILE[8:]):
        made, right = rows(names, names)
        made = [row | {"generator": row["source"]} for row in made]
        arms = [ARMS[0] | {"arm": name} for name in names]
        text = write_report(
            tmp_path,
            made,
            right,
            {names[0]: 1},
            dict.fromkeys(names, 1),
            arms,
            {name: [1, 5_000] for name in names},
            "tokens",
            names,
        )
        tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
        assert len(tables) == 8 and all(
            len({columns(line) for line in table.splitlines()}) == 1 for table in tables
        )
        assert [len(table.splitlines()) for table in tables] == [10, 10, 11, 11, 11, 11, 30, 10]
        assert (
            "<" not in re.sub(r"\\.", "", text)
            and len(re.findall("^#", text, re.MULTILINE)) == 11
            and len(text.splitlines()) == text.count("\n")
        )
        assert picture(tmp_path).shape[1] == 1950


def test_a_column_of_many_names_stays_a_page(tmp_path):
    """300 sources of which 12 are larger, 30 teachers of which 10 are: those are shown, and the line of all counts all."""
    sources = [f"source {i}" for i in range(300)]
    made, right = rows(["t"], sources, 1)
    big, more = rows(["t"], sources[100:112], 2, seed=1)
    made += [row | {"id": "big" + row["id"]} for row in big]
    text = section(
        write_report(tmp_path, made, right), "Verdicts: % of responses called right (of how many)"
    ).splitlines()
    assert [line.split(" | ")[0] for line in text[2:]] == [
        f"| source {i}" for i in range(100, 112)
    ] + ["| all 300"] and "(324) |" in text[-1]
    assert picture(tmp_path).shape[0] < 1_500
    made, right = rows([f"teacher {i:02}" for i in range(30)], ["s"])
    made += rows([f"teacher {i:02}" for i in range(5, 15)], ["s"], 2)[0]
    text = write_report(tmp_path, made, right)
    assert (
        "| source | teacher 05 |" in text
        and "| teacher 14 | all 30 |" in text
        and "teacher 15 |" not in text
    )
    *pairs, _, said = section(text, "Teachers against each other").splitlines()
    assert (
        len(pairs) == 2 + 10 * 9 / 2
        and said == "Of 435 pairs those of the 10 teachers with the most critiques."
    )


# --- the picture ----------------------------------------------------------------------------------------------------


def picture(folder):
    pixels = matplotlib.image.imread(folder / "03_report.png")
    assert (
        not list(folder.glob("*.part"))
        and 400 < pixels.shape[0] < 4_000
        and 900 < pixels.shape[1] < 2_000
    )
    return pixels[..., :3]


def coloured(pixels, colour):
    return (abs(pixels - matplotlib.colors.to_rgb(colour)).sum(axis=2) < 0.02).nonzero()


@pytest.mark.parametrize(
    "teachers, sources, arms, shape",
    [(1, 1, 0, (450, 1950)), (1, 1, 4, (930, 1950)), (5, 7, 4, None), (8, 10, 12, None)],
)
def test_pictures_open_and_are_as_large_as_what_they_hold(tmp_path, teachers, sources, arms, shape):
    made, right = rows(
        [f"teacher-{i}" for i in range(teachers)], [f"source-{i}" for i in range(sources)]
    )
    write_report(
        tmp_path,
        made,
        right,
        arms=[
            ARMS[0] | {"arm": "a-long-name-of-a-mixture-of-training-sets-" * 2 + str(i)}
            for i in range(arms)
        ],
        lengths={"response": [5, 6, 7]} if arms else None,
    )
    pixels = picture(tmp_path)
    assert shape is None or pixels.shape[:2] == shape
    every = [coloured(pixels, f"C{i}")[0].size for i in range(teachers)]
    assert min(every) > 100  # each teacher's dots are there


def test_the_bars_of_the_arms_are_as_long_as_their_tokens(tmp_path):
    """One panel: 1,000 grey and 3,000 blue, so the blue part is three times as wide."""
    write_report(tmp_path, [], arms=ARMS[:1], unit="tokens")
    pixels = picture(tmp_path)[200:, :]  # below the legend
    grey, blue = (coloured(pixels, colour)[1] for colour in ("#9aa5b1", "#4c72b0"))
    assert (blue.max() - blue.min()) / (grey.max() - grey.min()) == pytest.approx(
        3, rel=0.02
    ) and grey.max() < blue.min()


def test_a_dot_stands_at_its_share(tmp_path):
    """One teacher; of 4 called right 1, 2 or 3: the dot moves to the right by equal steps. (The only round blot of that colour.)"""
    places = []
    for k in (1, 2, 3):
        made = [
            ROW
            | {
                "id": str(i),
                "question_id": "q",
                "source": "s",
                "generator": "g",
                "teacher": "t",
                "verdict": "right" if i < k else "wrong",
            }
            for i in range(4)
        ]
        write_report(tmp_path, made)
        y, x = coloured(picture(tmp_path)[150:, :], "C0")  # below the legend
        widths = [(x == column).sum() for column in range(x.max() + 1)]
        places.append(widths.index(max(widths)))
    assert (
        places[1] - places[0] == pytest.approx(places[2] - places[1], abs=3)
        and places[1] - places[0] > 150
    )


def test_one_huge_text_leaves_the_others_to_be_seen(tmp_path):
    """The axis ends at the 99th percentile: bars in most of the width, where 1 of 1,000 texts is a million characters long."""
    lengths = {"response": [*range(1, 1_000), 1_000_000]}
    text = write_report(tmp_path, [], lengths=lengths)
    assert "| 1,000,000 |" in text
    bars = coloured(
        picture(tmp_path)[150:], [0.45 * c + 0.55 for c in matplotlib.colors.to_rgb("C0")]
    )  # on white, seen through
    assert len(set(bars[1])) > 700


def test_equal_input_gives_equal_bytes(tmp_path):
    made, right = rows(["b", "a", "c"], ["z", "y"])
    for name in ("one", "two"):
        write_report(
            tmp_path / name / "",
            made,
            right,
            {"graded": 1},
            {"x": 1},
            ARMS,
            {"response": [1, 2, 900]},
            "tokens",
            ["n"],
        )
    (tmp_path / "two" / "03_report.md").write_text(
        (tmp_path / "two" / "03_report.md").read_text().replace("of two", "of one")
    )
    for file in ("03_report.md", "03_report.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
