"""The test sets: questions, golds, order, exact prompts, floors, and what is said where a file is not what it should be."""

import json

import pytest

from common import grading
from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id
from common.data import test_sets
from common.data.test_sets import TEST_SETS, MATH_CONFIGS, load_items
from common.grading import paper
from tests.conftest import SHARED

GSM8K = [
    {"question": "q1", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"},
    {"question": "q2", "answer": "Long.\n#### 1,234"},
]
MATH = [
    {
        "problem": "p1",
        "solution": "First \\boxed{1}, then $\\boxed{\\frac{1}{\\sqrt{2}}}$.",
        "level": "Level 1",
        "type": "Algebra",
    }
]
MATH500 = [{"problem": "p1", "answer": "\\left( 3, \\frac{\\pi}{2} \\right)", "solution": "x"}]


@pytest.fixture
def local(tmp_path):
    """Write DIR/NAME/test.jsonl and read it."""

    def read(name, records, **settings):
        write(tmp_path / name / "test.jsonl", records)
        return load_items(name, tmp_path, **settings)

    return read


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize(
    "name, records, expected",
    [
        ("gsm8k", GSM8K, [("q1", "5"), ("q2", "1,234")]),
        ("math", MATH, [("p1", "\\frac{1}{\\sqrt{2}}")]),
        ("math500", MATH500, [("p1", "\\left( 3, \\frac{\\pi}{2} \\right)")]),
    ],
)
def test_question_and_gold_by_hand(local, capsys, name, records, expected):
    """GSM8K: what follows the last ####; MATH: the content of the last \\boxed of the solution."""
    found = local(name, records)
    assert [(item["question"], item["gold"]) for item in found] == expected
    assert [item["id"] for item in found] == [content_id(item["question"]) for item in found]
    assert (
        f"{name} has {len(records)} items here, {TEST_SETS[name].items} are usual"
        in capsys.readouterr().out
    )


def test_limit_takes_the_first_and_says_nothing(local, capsys):
    records = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(9)]
    assert [item["gold"] for item in local("gsm8k", records, limit=3)] == ["0", "1", "2"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "name, bad, says",
    [
        (
            "gsm8k",
            {"problem": "q", "answer": "#### 1"},
            "row 3 lacks 'question'; it has problem, answer.*openai/gsm8k",
        ),
        ("gsm8k", {"question": "q"}, "row 3 lacks 'answer'"),
        ("gsm8k", {"question": "q", "answer": None}, "row 3"),
        ("gsm8k", {"question": "", "answer": "#### 1"}, "row 3 has no question"),
        ("gsm8k", {"question": "q", "answer": "####"}, "row 3 has no gold"),
        ("math", {"problem": "p"}, "row 2 lacks 'solution'"),
        ("math", {"problem": "p", "solution": "no box"}, "row 2 has no gold"),
        ("math500", {"problem": None, "answer": "1"}, "row 2 has no question"),
        ("math500", {"problem": "p", "answer": ""}, "row 2 has no gold"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(local, name, bad, says):
    """Never scored against an empty gold: every model would fail that item, or every empty answer would pass."""
    good = {"gsm8k": GSM8K, "math": MATH, "math500": MATH500}[name]
    with pytest.raises(InputError, match=f"(?s){name}, {says}"):
        local(name, good + [bad])


def test_a_missing_file_and_an_unknown_name(tmp_path):
    with pytest.raises(InputError, match="(?s)gsm8k.test.jsonl is not there.*--benchmarks-dir"):
        load_items("gsm8k", tmp_path)
    with pytest.raises(
        InputError,
        match="unknown benchmark 'gms8k'; the benchmarks are: --benchmarks tiny tiny_validation gsm8k math math500",
    ):
        load_items("gms8k", tmp_path)
    with pytest.raises(InputError, match="--selection heldout"):
        load_items("heldout")


def test_the_hub_is_read_by_name_config_and_split(tmp_path, monkeypatch):
    """Folders of the hub's names in the working folder stand in for the hub; MATH's configs are joined in the table's order."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = {
        "gsm8k": {"main": GSM8K},
        "math500": {"default": MATH500},
        "math": {c: [MATH[0] | {"problem": c}] for c in MATH_CONFIGS},
        "gpqa": {"gpqa_diamond": GPQA},
        "olympiadbench": {"OE_TO_maths_en_COMP": OTHERS["olympiadbench"][0]},
    }
    for name, configs in table.items():
        folder, head = tmp_path / TEST_SETS[name].path, "---\nconfigs:\n"
        for config, records in configs.items():
            write(folder / config / "test.jsonl", records)
            other = "train" if TEST_SETS[name].split == "test" else "test"
            if other == "test":
                (folder / config / "test.jsonl").rename(folder / config / "train.jsonl")
            write(
                folder / config / f"{other}.jsonl",
                [
                    record | dict.fromkeys(record.keys() & {"question", "problem"}, "other")
                    for record in records
                ],
            )
            head += f"- config_name: {config}\n  data_files:\n" + "".join(
                f"  - split: {s}\n    path: {config}/{s}.jsonl\n" for s in ("train", "test")
            )
        (folder / "README.md").write_text(head + "---\n")
    assert [item["question"] for item in load_items("gsm8k")] == ["q1", "q2"]
    assert [item["question"] for item in load_items("math500")] == ["p1"]
    assert [item["question"] for item in load_items("math")] == list(MATH_CONFIGS)
    assert [item["question"] for item in load_items("math", limit=2)] == list(MATH_CONFIGS[:2])
    assert [item["question"] for item in load_items("olympiadbench")] == ["Find $x$."]
    assert load_items("gpqa", folder="nowhere")[0]["question"].startswith(
        "Which?\nAnswer Choices: (A) "
    )  # never from a local file
    assert not [
        f for f in (tmp_path / "cache").rglob("*gpqa*") if f.suffix != ".lock"
    ]  # and not even cached


# --- every other form -----------------------------------------------------------------------------------------------

GPQA = [
    {
        "Question": "Which?",
        "Correct Answer": "right\n",
        "Incorrect Answer 1": "w1",
        "Incorrect Answer 2": "w2",
        "Incorrect Answer 3": "w3",
    }
]
PRO = {"question": " Which?", "options": ["x", "N/A", "y"], "answer": "B", "answer_index": 1}
OTHERS = {  # name -> (records, [(question as it is asked, gold)])
    "minerva_math": (
        [{"question": " Find $m$ in $\\mathrm{kg}$.", "answer": "1.6"}],
        [("Find $m$ in $\\mathrm{kg}$.", "1.6")],
    ),
    "olympiadbench": (
        [{"question": "Find $x$.\n", "final_answer": ["$2n$"], "context": None}],
        [("Find $x$.", "$2n$")],
    ),
    "aime24": ([{"problem": "p", "answer": "025"}], [("p", "025")]),
    "aime25": ([{"problem": "p", "answer": "7"}], [("p", "7")]),
    "amc23": ([{"question": "p", "answer": 27.0}], [("p", "27.0")]),
    "theoremqa": (
        [
            {"Question": "Is it?", "Answer": "True", "Answer_type": "bool"},
            {"Question": "How many?", "Answer": "[0, 5]"},
        ],
        [
            ("Is it? Answer with \\boxed{True} or \\boxed{False}. (True or False)", "True"),
            ("How many?", "[0, 5]"),
        ],
    ),
    "mmlu_pro": (
        [PRO],
        [("Question:\n Which?\nOptions:\nA. x\nB. y\nAnswer: Let's think step by step.\n", "B")],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_forms_by_hand(local, name):
    """As the released code has them: True/False golds, options without "N/A", maths questions stripped."""
    records, expected = OTHERS[name]
    found = local(name, records)
    assert [(item["question"], item["gold"]) for item in found] == expected
    assert all(("options" in item) == bool(TEST_SETS[name].choices) for item in found)
    if name == "mmlu_pro":
        assert found[0]["options"] == 2


@pytest.mark.parametrize("name", OTHERS)
def test_a_question_alone_is_the_records_own(local, tmp_path, name):
    """Without options, suffix or stripping, under the same ids, also of questions that occur twice."""
    records = OTHERS[name][0] * 2
    asked = local(name, records)
    column = next(column for column in ("question", "problem", "Question") if column in records[0])
    assert test_sets.load_questions(name, tmp_path) == [
        {"id": item["id"], "question": record[column]} for item, record in zip(asked, records)
    ]


def test_what_lies_in_a_folder(local, tmp_path):
    local("math", MATH)
    write(tmp_path / "gpqa" / "test.jsonl", GPQA)
    assert [name for name in TEST_SETS if test_sets.is_local(name, tmp_path)] == [
        "math",
        "math500_validation",
    ]  # cut out of it; GPQA is the hub's


def test_gpqa_options_are_shuffled_by_the_seed(monkeypatch):
    """The right one is where the gold says, for every seed; over seeds it stands everywhere; one seed gives one order."""
    monkeypatch.setattr(test_sets, "_hub", lambda benchmark, revision: GPQA)
    golds = set()
    for seed in range(40):
        (item,) = load_items("gpqa", seed=seed)
        assert f"({item['gold']}) right" in item["question"] and [item] == load_items(
            "gpqa", seed=seed
        )
        golds.add(item["gold"])
    assert golds == set("ABCD") and test_sets.find_private(["gsm8k", "gpqa"]) == ["gpqa"]


def test_equal_questions_are_different_items(local):
    """Also those that differ only in how an accent is coded, which have one content id."""
    found = local("gsm8k", GSM8K + GSM8K[:1])
    assert len({item["id"] for item in found}) == 3 and found[0]["id"] == content_id("q1")
    found = local(
        "gsm8k",
        [{"question": q, "answer": "#### 1"} for q in ("caf\u00e9", "cafe\u0301", "caf\u00e9")],
    )
    assert len({item["id"] for item in found}) == 3


@pytest.mark.parametrize(
    "gold, says",
    [
        (27.0, None),
        (27, None),
        (None, "no gold"),
        (float("nan"), "no gold"),
        (True, "no gold"),
        ([1], "no gold"),
    ],
)
def test_a_gold_is_text_or_a_number(local, gold, says):
    if says is None:
        assert local("amc23", [{"question": "p", "answer": gold}])[0]["gold"] == str(gold)
    else:
        with pytest.raises(InputError, match=says):
            local("amc23", [{"question": "p", "answer": gold}])


def test_a_gold_that_is_none_of_the_options_is_refused(local):
    with pytest.raises(InputError, match="mmlu_pro, row 1: its gold 'C' is none of its 3 options"):
        local("mmlu_pro", [PRO | {"answer": "C"}])  # one of the three is N/A


def test_a_set_of_other_content_is_noted(local, capsys, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(TEST_SETS, "gsm8k", replace(TEST_SETS["gsm8k"], items=2))
    local("gsm8k", GSM8K)
    assert (
        "gsm8k has other questions or golds than the copy the kit was checked with"
        in capsys.readouterr().out
    )
    known = test_sets.compute_digest(local("gsm8k", GSM8K[::-1]))  # in whatever order
    monkeypatch.setitem(TEST_SETS, "gsm8k", replace(TEST_SETS["gsm8k"], items=2, digest=known))
    capsys.readouterr()
    local("gsm8k", GSM8K)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "given, names, expected",
    [
        ([], ["gsm8k"], {}),
        (["abc"], ["tiny", "gsm8k"], {"gsm8k": "abc"}),
        (["gsm8k=a", "math=b"], ["math", "gsm8k"], {"gsm8k": "a", "math": "b"}),
        (["abc"], ["math", "gsm8k"], None),
        (["aime24=a"], ["gsm8k"], None),
        (["gsm8k="], ["gsm8k"], None),
        (["abc"], ["tiny"], None),
    ],
)
def test_revisions(given, names, expected):
    if expected is not None:
        assert test_sets.parse_revisions(given, names) == expected
    else:
        with pytest.raises(InputError, match="expected NAME=REVISION"):
            test_sets.parse_revisions(given, names)


# --- the real sets --------------------------------------------------------------------------------------------------

REAL = [name for name in TEST_SETS if (SHARED / "benchmarks" / name).is_dir()] or [
    pytest.param("", marks=pytest.mark.skip("../shared is not there"))
]


@pytest.mark.parametrize("name", REAL)
def test_the_real_sets_are_whole(name, capsys):
    """The usual number of items with the digest of the table, none of them twice (an id would stand for two items), no note printed."""
    found = load_items(name, SHARED / "benchmarks")
    assert len(found) == TEST_SETS[name].items == len({item["id"] for item in found})
    assert TEST_SETS[name].digest and not capsys.readouterr().out
    assert all(
        isinstance(item[k], str) and item[k].strip()
        for item in found
        for k in ("id", "question", "gold")
    )


@pytest.mark.parametrize("name", REAL)
def test_real_golds_are_right_and_a_constant_is_not(name):
    """Each gold as the whole output, or boxed, is right by the strict grader, and boxed by the paper's. "0", or the letter A, gives the
    floor: its share among the golds."""
    found, benchmark = load_items(name, SHARED / "benchmarks"), test_sets.get_test_set(name)
    found = found if len(found) <= 1000 else found[:: len(found) // 500]
    golds = [item["gold"] for item in found]
    boxed = golds if benchmark.choices else [f"So it is $\\boxed{{{gold}}}$." for gold in golds]
    for grades in (
        [
            j.correct
            for j in grading.grade_many(
                golds, golds, benchmark.tolerance, benchmark.choices or None
            )
        ],
        [
            j.correct
            for j in grading.grade_many(
                boxed, golds, benchmark.tolerance, benchmark.choices or None
            )
        ],
        [
            right
            for right, _ in paper.grade_many(
                boxed, golds, units=benchmark.units, choices=benchmark.choices
            )
        ],
    ):
        assert [gold for gold, right in zip(golds, grades) if not right] == []
    constant = "A" if benchmark.choices else "\\boxed{0}"
    strict = sum(
        j.correct
        for j in grading.grade_many(
            [constant] * len(golds), golds, benchmark.tolerance, benchmark.choices or None
        )
    )
    assert strict == sum(gold in ("A", "0", "0.0", "$0$") for gold in golds)


def test_real_prompts_byte_for_byte():
    """82 prompts and stop strings, as the released code itself wrote them."""
    path = SHARED / "paper" / "expected_prompts.jsonl"
    if not path.is_file():
        pytest.skip("../shared is not there")
    sets = {name: load_items(name, SHARED / "benchmarks") for name in REAL}
    expected = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in expected:
        system, stop = test_sets.get_test_set(row["benchmark"]).prompt_form
        template = {"qwen": "chatml", "deepseek": "deepseek"}[row["base"]]
        assert (
            prompts.solve_prompt(sets[row["benchmark"]][row["index"]]["question"], template, system)
            == row["prompt"]
        )
        assert stop == row["stop"]
    assert len(expected) == 82


def test_the_validation_set_is_part_of_math_and_disjoint_from_math500(tmp_path):
    """It is cut out of MATH by the ids that the kit ships: the same 500 as in the file of its own."""
    if not REAL or not (SHARED / "benchmarks" / "math").is_dir():
        pytest.skip("../shared is not there")
    (tmp_path / "math").symlink_to(SHARED / "benchmarks" / "math")
    cut = {item["id"] for item in load_items("math500_validation", tmp_path)}
    assert (
        cut == {item["id"] for item in load_items("math500_validation", SHARED / "benchmarks")}
        and len(cut) == 500
    )
    assert not cut & {item["id"] for item in load_items("math500", SHARED / "benchmarks")}


def test_the_two_sources_of_a_math_gold_agree():
    """MATH-500 is part of MATH, with its answers in a column: an oracle for golds cut out of solutions."""
    if not (SHARED / "benchmarks" / "math").is_dir():
        pytest.skip("../shared is not there")
    whole = {item["question"]: item["gold"] for item in load_items("math", SHARED / "benchmarks")}
    part = load_items("math500", SHARED / "benchmarks")
    assert all(item["question"] in whole for item in part)
    differing = [
        item
        for item in part
        if whole[item["question"]].replace(" ", "") != item["gold"].replace(" ", "")
    ]
    assert all(grading.is_correct(whole[i["question"]], i["gold"]) for i in differing), differing


def test_tiny_items_are_the_worlds_test_questions_of_the_seed():
    first = load_items("tiny")
    assert (
        len(first) == len({item["id"] for item in first}) == 1000
        and first == load_items("tiny")
        and first[:7] == load_items("tiny", limit=7)
    )
    assert {item["id"] for item in first} != {item["id"] for item in load_items("tiny", seed=1)}
    assert set(first[0]) == {"id", "question", "gold"} and all(
        item["gold"].isdigit() for item in first
    )
    validation = load_items("tiny_validation")
    assert len(validation) == 500 and not {item["id"] for item in validation} & {
        item["id"] for item in first
    }
    assert set(test_sets.NAMES) == {"tiny", "tiny_validation", *TEST_SETS}
