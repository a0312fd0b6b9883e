"""The test sets: questions, golds, order, exact prompts, floors, and messages about bad files."""

import json
from dataclasses import replace

import datasets
import pytest

from common import grading
from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id, read_jsonl
from common.data import test_sets
from common.data.test_sets import MATH_CONFIGS, TEST_SETS, load_items
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
    """GSM8K: what follows the last ####; MATH: the content of the solution's last \\boxed."""
    items = local(name, records)
    assert [(item["question"], item["gold"]) for item in items] == expected
    assert [item["id"] for item in items] == [content_id(item["question"]) for item in items]
    assert f"{name} has" in capsys.readouterr().out


def test_limit_takes_a_sample_of_the_whole_set(local):
    """300 of 1,000: the mean place is 500 +- 17 (289 / sqrt(300)), of the first ones it is 150."""
    records = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(1000)]

    def places(limit, seed=0):
        return [int(item["gold"]) for item in local("gsm8k", records, limit=limit, seed=seed)]

    sample = places(300)
    assert len(sample) == 300 and sample == sorted(set(sample))
    assert 430 < sum(sample) / 300 < 570
    assert sample == places(300) != places(300, seed=1)
    assert set(places(30)) < set(sample)
    assert places(2000) == list(range(1000))


BAD_ROWS = [  # (test set, its third or second row, facts of the message)
    ("gsm8k", {"problem": "q", "answer": "#### 1"}, ["'question'", "problem, answer", "openai/"]),
    ("gsm8k", {"question": "q"}, ["'answer'"]),
    ("gsm8k", {"question": "q", "answer": None}, []),
    ("gsm8k", {"question": "", "answer": "#### 1"}, ["question"]),
    ("gsm8k", {"question": "q", "answer": "####"}, ["gold"]),
    ("math", {"problem": "p"}, ["'solution'"]),
    ("math", {"problem": "p", "solution": "no box"}, ["gold"]),
    ("math500", {"problem": None, "answer": "1"}, ["question"]),
    ("math500", {"problem": "p", "answer": ""}, ["gold"]),
]


def test_a_row_that_cannot_be_used_is_named(local):
    """Never scored against an empty gold: every model would fail it, or an empty answer pass."""
    good = {"gsm8k": GSM8K, "math": MATH, "math500": MATH500}
    for name, bad, facts in BAD_ROWS:
        with pytest.raises(InputError) as error:
            local(name, good[name] + [bad])
        place = f"{name}, row {len(good[name]) + 1}"
        assert [fact for fact in [place, *facts] if fact not in str(error.value)] == []


def test_a_missing_file_and_an_unknown_name(tmp_path):
    with pytest.raises(InputError, match="gsm8k.test.jsonl"):
        load_items("gsm8k", tmp_path)
    with pytest.raises(InputError, match="'gms8k'.*--benchmarks tiny tiny_validation gsm8k math"):
        load_items("gms8k", tmp_path)
    with pytest.raises(InputError, match="'heldout'"):
        load_items("heldout")


def make_hub_folder(folder, configs, split):
    """A folder that `datasets` reads like a dataset of the hub; the other split says "other"."""
    head = "---\nconfigs:\n"
    for config, records in configs.items():
        head += f"- config_name: {config}\n  data_files:\n"
        for name in ("train", "test"):
            head += f"  - split: {name}\n    path: {config}/{name}.jsonl\n"
        others = []
        for record in records:
            columns = record.keys() & {"question", "problem"}
            others.append(record | dict.fromkeys(columns, "other"))
        write(folder / config / f"{split}.jsonl", records)
        write(folder / config / f"{'train' if split == 'test' else 'test'}.jsonl", others)
    (folder / "README.md").write_text(head + "---\n")


def test_the_hub_is_read_by_name_config_and_split(tmp_path, monkeypatch):
    """Folders of the hub's names stand in for it; MATH's configs are joined in their order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    hub = {
        "gsm8k": {"main": GSM8K},
        "math500": {"default": MATH500},
        "math": {config: [MATH[0] | {"problem": config}] for config in MATH_CONFIGS},
        "gpqa": {"gpqa_diamond": GPQA},
        "olympiadbench": {"OE_TO_maths_en_COMP": OTHERS["olympiadbench"][0]},
    }
    for name, configs in hub.items():
        make_hub_folder(tmp_path / TEST_SETS[name].path, configs, TEST_SETS[name].split)
    for name, questions in [
        ("gsm8k", ["q1", "q2"]),
        ("math500", ["p1"]),
        ("math", list(MATH_CONFIGS)),
        ("olympiadbench", ["Find $x$."]),
    ]:
        assert [item["question"] for item in load_items(name)] == questions
    sample = [item["question"] for item in load_items("math", limit=2)]
    assert len(sample) == 2 and set(sample) < set(MATH_CONFIGS)
    (item,) = load_items("gpqa", folder="nowhere")  # never from a local file
    assert item["question"].startswith("Which?\nAnswer Choices: (A) ")
    cached = [path for path in (tmp_path / "cache").rglob("*gpqa*") if path.suffix != ".lock"]
    assert cached == []


# --- every other form ---------------------------------------------------------------------------

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
    """As the released code has them: True/False golds, options without "N/A", maths stripped."""
    records, expected = OTHERS[name]
    items = local(name, records)
    assert [(item["question"], item["gold"]) for item in items] == expected


@pytest.mark.parametrize("name", OTHERS)
def test_the_stem_is_the_records_own_question(local, name):
    """Without options, suffix or stripping, also if it occurs twice."""
    records = OTHERS[name][0] * 2
    items = local(name, records)
    test_set = TEST_SETS[name]
    if test_set.prepare:
        records = [test_set.prepare(record, 0) for record in records]
    assert [item["stem"] for item in items] == [record[test_set.question] for record in records]
    assert len({item["id"] for item in items}) == len(items)


def test_what_lies_in_a_folder(local, tmp_path):
    local("math", MATH)
    write(tmp_path / "gpqa" / "test.jsonl", GPQA)
    assert test_sets.list_public(tmp_path) == [
        "math",
        "math500_validation",
    ]  # cut out of it; GPQA is the hub's


def test_gpqa_options_are_shuffled_by_the_seed(monkeypatch):
    """The gold's letter is the right option's, and over seeds each; one seed gives one order."""
    monkeypatch.setattr(test_sets, "_read_hub", lambda test_set: GPQA)
    golds = set()
    for seed in range(40):
        (item,) = load_items("gpqa", seed=seed)
        assert f"({item['gold']}) right" in item["question"]
        assert [item] == load_items("gpqa", seed=seed)
        golds.add(item["gold"])
    assert golds == set("ABCD")


def test_equal_questions_are_different_items(local):
    """Also those that differ only in how an accent is coded, which have one content id."""
    items = local("gsm8k", GSM8K + GSM8K[:1])
    assert len({item["id"] for item in items}) == 3 and items[0]["id"] == content_id("q1")
    spellings = ("caf\u00e9", "cafe\u0301", "caf\u00e9")
    items = local("gsm8k", [{"question": text, "answer": "#### 1"} for text in spellings])
    assert len({item["id"] for item in items}) == 3


def test_a_gold_is_text_or_a_number(local):
    for gold in (27.0, 27):
        assert local("amc23", [{"question": "p", "answer": gold}])[0]["gold"] == str(gold)
    for gold in (None, True, [1]):
        with pytest.raises(InputError, match="amc23, row 1.*gold"):
            local("amc23", [{"question": "p", "answer": gold}])


def test_a_set_of_other_content_is_noted(local, capsys, monkeypatch):
    digest = test_sets.compute_digest(local("gsm8k", GSM8K[::-1]))  # whatever the order
    for known_digest, is_noted in [("d543867faeb640a8", True), (digest, False)]:
        row = replace(TEST_SETS["gsm8k"], items=2, digest=known_digest)
        monkeypatch.setitem(TEST_SETS, "gsm8k", row)
        capsys.readouterr()
        local("gsm8k", GSM8K)
        assert (f"2 items {digest}" in capsys.readouterr().out) == is_noted


# --- the real sets ------------------------------------------------------------------------------

REAL = [name for name in TEST_SETS if (SHARED / "benchmarks" / name).is_dir()] or [
    pytest.param("", marks=pytest.mark.skip("../shared is not there"))
]


@pytest.mark.parametrize("name", REAL)
def test_the_real_sets_are_whole(name, capsys):
    """The usual number of items with the table's digest, no id twice, and no note printed."""
    items = load_items(name, SHARED / "benchmarks")
    assert len(items) == TEST_SETS[name].items == len({item["id"] for item in items})
    assert TEST_SETS[name].digest and not capsys.readouterr().out
    for item in items:
        assert all(isinstance(item[field], str) for field in ("id", "question", "gold"))
        assert item["question"].strip() and item["gold"].strip()


@pytest.mark.parametrize("n_items", [10, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", REAL)
def test_real_golds_are_right_and_a_constant_is_not(name, n_items):
    """Each gold as the output, or boxed, is right by the strict grader; boxed by the paper's.

    "0", or the letter A, gives the floor: its share among the golds.
    """
    items, test_set = load_items(name, SHARED / "benchmarks"), test_sets.get_test_set(name)
    items = items[:: max(1, len(items) // n_items)]
    golds = [item["gold"] for item in items]

    def grade(outputs):
        results = grading.grade_many(outputs, golds, test_set.tolerance, test_set.choices or None)
        return [result.correct for result in results]

    boxed = golds if test_set.choices else [f"So it is $\\boxed{{{gold}}}$." for gold in golds]
    by_paper = paper.grade_many(boxed, golds, units=test_set.units, choices=test_set.choices)
    for grades in (grade(golds), grade(boxed), [correct for correct, _ in by_paper]):
        assert [gold for gold, correct in zip(golds, grades) if not correct] == []
    constant = "A" if test_set.choices else "\\boxed{0}"
    n_equal = sum(gold in ("A", "0", "0.0", "$0$") for gold in golds)
    assert sum(grade([constant] * len(golds))) == n_equal


needs_shared = pytest.mark.skipif(
    not (SHARED / "benchmarks" / "math").is_dir(), reason="../shared is not there"
)


@needs_shared
def test_real_prompts_byte_for_byte():
    """82 prompts and stop strings, as the released code itself wrote them."""
    path = SHARED / "paper" / "expected_prompts.jsonl"
    sets = {name: load_items(name, SHARED / "benchmarks") for name in REAL}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        system, stop = test_sets.get_test_set(row["benchmark"]).prompt_form
        template = {"qwen": "chatml", "deepseek": "deepseek"}[row["base"]]
        question = sets[row["benchmark"]][row["index"]]["question"]
        assert prompts.solve_prompt(question, template, system) == row["prompt"]
        assert stop == row["stop"]
    assert len(rows) == 82


@needs_shared
def test_the_validation_set_is_part_of_math_and_disjoint_from_math500():
    """It is cut out of MATH by the ids that the kit ships: the same 500 as in its own file."""

    def ids(name, folder):
        return {item["id"] for item in load_items(name, folder)}

    part = ids("math500_validation", SHARED / "benchmarks")
    rows = read_jsonl(SHARED / "benchmarks" / "math500_validation" / "test.jsonl")
    assert part == {content_id(row["problem"].strip()) for row in rows} and len(part) == 500
    assert not part & ids("math500", SHARED / "benchmarks")


@needs_shared
def test_the_two_sources_of_a_math_gold_agree():
    """MATH-500 is part of MATH, its answers in a column: an oracle for golds cut from solutions."""
    golds = {item["question"]: item["gold"] for item in load_items("math", SHARED / "benchmarks")}
    pairs = [
        (golds[item["question"]], item["gold"])
        for item in load_items("math500", SHARED / "benchmarks")
    ]
    differing = [pair for pair in pairs if pair[0].replace(" ", "") != pair[1].replace(" ", "")]
    assert [pair for pair in differing if not grading.is_correct(*pair)] == []


def test_tiny_items_are_the_worlds_test_questions_of_the_seed():
    def ids(items):
        return {item["id"] for item in items}

    items = load_items("tiny")
    assert len(items) == len(ids(items)) == 1000
    assert items == load_items("tiny") and ids(items) > ids(load_items("tiny", limit=7))
    assert ids(items) != ids(load_items("tiny", seed=1))
    assert set(items[0]) == {"id", "question", "stem", "gold"}
    assert all(item["gold"].isdigit() for item in items)
    validation = load_items("tiny_validation")
    assert len(validation) == 500 and not ids(validation) & ids(items)
    assert set(test_sets.NAMES) == {"tiny", "tiny_validation", *TEST_SETS}


# --- sets of the user's own -----------------------------------------------------------------------


@pytest.fixture
def own_sets(monkeypatch):
    monkeypatch.setattr(test_sets, "OWN_SETS", {})


def test_an_own_set_is_read_from_any_table(own_sets, tmp_path):
    """The same two items as JSON lines, a JSON list and CSV have the same ids."""
    records = [{"question": "1+1?", "gold": 2, "note": "x"}, {"question": "Pi?", "gold": "3.14"}]
    write(tmp_path / "a.jsonl", records)
    (tmp_path / "b.json").write_text(json.dumps(records))
    (tmp_path / "c.csv").write_text("question,gold\n1+1?,2\nPi?,3.14\n")
    flags = [f"{path.stem}={path}" for path in sorted(tmp_path.iterdir())]
    assert test_sets.add_own_sets(["gsm8k", *flags], 0.01) == ["gsm8k", "a", "b", "c"]
    first, second, third = (load_items(name) for name in "abc")
    assert first == second == third
    assert [item["gold"] for item in first] == ["2", "3.14"]
    assert test_sets.get_test_set("a").tolerance == 0.01
    assert test_sets.list_local_files(None, ["a", "gsm8k"]) == [tmp_path / "a.jsonl"]


def test_choices_of_an_own_set_are_asked_and_graded_as_letters(own_sets, tmp_path):
    choices = ["red", "blue"]
    write(tmp_path / "a.jsonl", [{"question": "Sky?", "choices": choices, "gold": "B"}])
    (tmp_path / "b.csv").write_text('question;choices;gold\nSky?;"[""red"", ""blue""]";B\n')
    test_sets.add_own_sets([f"a={tmp_path}/a.jsonl", f"b={tmp_path}/b.csv"])
    (item,) = load_items("a")
    assert load_items("b") == [item]
    assert item["question"] == "Sky?\nAnswer Choices: (A) red (B) blue"
    assert item["stem"] == "Sky?"
    letters = test_sets.get_test_set("a").choices
    assert grading.grade("It is \\boxed{B}.", item["gold"], choices=letters).correct


BAD_OWN_ROWS = [  # a row, facts of the message
    ({"problem": "q", "answer": "1"}, ["'question'", "problem, answer", "question and gold"]),
    ({"question": "q", "gold": ""}, ["row 2"]),
    ({"question": "q", "gold": "A"}, ["'choices'"]),
    ({"question": "q", "gold": "C", "choices": ["x", "y"]}, ["row 2", "AB"]),
    ({"question": "q", "gold": "x", "choices": ["x", "y"]}, ["AB"]),
    ({"question": "q", "gold": "A", "choices": "x|y"}, ["row 2"]),
    ({"question": "q", "gold": "A", "choices": "7"}, ["row 2"]),
]


def test_a_row_of_an_own_set_that_cannot_be_used_is_named(own_sets, tmp_path):
    good = {"question": "p", "gold": "B", "choices": ["x", "y"]}
    for number, (bad, facts) in enumerate(BAD_OWN_ROWS):
        path = tmp_path / f"{number}.jsonl"
        write(path, [good, bad])
        test_sets.add_own_sets([f"set{number}={path}"])
        with pytest.raises(InputError) as error:
            load_items(f"set{number}")
        assert [fact for fact in facts if fact not in str(error.value)] == [], bad


def test_a_name_that_cannot_be_a_set_and_an_empty_file(own_sets, tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [])
    for flags in (
        [f"gsm8k={path}"],
        [f"../x={path}"],
        ["x=ORG/SET"],
        [f"AVG={path}"],
        [f"x={path}", f"x={path}"],
        [f"x={tmp_path}/none.csv"],
    ):
        with pytest.raises(InputError):
            test_sets.add_own_sets(flags)
    test_sets.add_own_sets([f"x={path}"])
    with pytest.raises(InputError, match="x has no questions"):
        load_items("x")
