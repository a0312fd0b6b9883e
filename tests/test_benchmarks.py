"""The test sets: questions, golds, order and what is said where a file is not what it should be."""

import json

import pytest

from common import answers, benchmarks
from common.benchmarks import BENCHMARKS, MATH_CONFIGS, items
from common.files import InputError, content_id
from tests.conftest import SHARED

GSM8K = [{"question": "q1", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}, {"question": "q2", "answer": "Long.\n#### 1,234"}]
MATH = [{"problem": "p1", "solution": "First \\boxed{1}, then $\\boxed{\\frac{1}{\\sqrt{2}}}$.", "level": "Level 1", "type": "Algebra"}]
MATH500 = [{"problem": "p1", "answer": "\\left( 3, \\frac{\\pi}{2} \\right)", "solution": "x"}]


@pytest.fixture
def local(tmp_path):
    """Write DIR/NAME/test.jsonl and read it."""

    def read(name, records, **settings):
        write(tmp_path / name / "test.jsonl", records)
        return items(name, tmp_path, **settings)

    return read


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("name, records, expected", [
    ("gsm8k", GSM8K, [("q1", "5"), ("q2", "1,234")]), ("math", MATH, [("p1", "\\frac{1}{\\sqrt{2}}")]),
    ("math500", MATH500, [("p1", "\\left( 3, \\frac{\\pi}{2} \\right)")]),
])
def test_question_and_gold_by_hand(local, capsys, name, records, expected):
    """GSM8K: what follows the last ####; MATH: the content of the last \\boxed of the solution."""
    found = local(name, records)
    assert [(item["question"], item["gold"]) for item in found] == expected
    assert [item["id"] for item in found] == [content_id(item["question"]) for item in found]
    assert f"{name} has {len(records)} items here, {BENCHMARKS[name].items} are usual" in capsys.readouterr().out


def test_limit_takes_the_first_and_says_nothing(local, capsys):
    records = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(9)]
    assert [item["gold"] for item in local("gsm8k", records, limit=3)] == ["0", "1", "2"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name, bad, says", [
    ("gsm8k", {"problem": "q", "answer": "#### 1"}, "row 3 lacks 'question'; it has problem, answer.*openai/gsm8k"),
    ("gsm8k", {"question": "q"}, "row 3 lacks 'answer'"), ("gsm8k", {"question": "q", "answer": None}, "row 3"),
    ("gsm8k", {"question": "", "answer": "#### 1"}, "row 3 has no question"), ("gsm8k", {"question": "q", "answer": "####"}, "row 3 has no gold"),
    ("math", {"problem": "p"}, "row 2 lacks 'solution'"), ("math", {"problem": "p", "solution": "no box"}, "row 2 has no gold"),
    ("math500", {"problem": None, "answer": "1"}, "row 2 has no question"), ("math500", {"problem": "p", "answer": ""}, "row 2 has no gold"),
])
def test_a_row_that_cannot_be_used_is_named(local, name, bad, says):
    """Never scored against an empty gold: every model would fail that item, or every empty answer would pass."""
    good = {"gsm8k": GSM8K, "math": MATH, "math500": MATH500}[name]
    with pytest.raises(InputError, match=f"(?s){name}, {says}"):
        local(name, good + [bad])


def test_a_missing_file_and_an_unknown_name(tmp_path):
    with pytest.raises(InputError, match="(?s)gsm8k.test.jsonl is not there.*--benchmarks-dir"):
        items("gsm8k", tmp_path)
    with pytest.raises(InputError, match="unknown benchmark 'gms8k'; the benchmarks are: --benchmarks tiny gsm8k math math500"):
        items("gms8k", tmp_path)


def test_the_hub_is_read_by_name_config_and_split(tmp_path, monkeypatch):
    """Folders of the hub's names in the working folder stand in for the hub; MATH's configs are joined in the table's order."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = {"gsm8k": {"main": GSM8K}, "math500": {"default": MATH500}, "math": {c: [MATH[0] | {"problem": c}] for c in MATH_CONFIGS}}
    for name, configs in table.items():
        folder, head = tmp_path / BENCHMARKS[name].path, "---\nconfigs:\n"
        for config, records in configs.items():
            write(folder / config / "test.jsonl", records)
            write(folder / config / "train.jsonl", [record | {"question": "train", "problem": "train"} for record in records])
            head += f"- config_name: {config}\n  data_files:\n" + "".join(f"  - split: {s}\n    path: {config}/{s}.jsonl\n" for s in ("train", "test"))
        (folder / "README.md").write_text(head + "---\n")
    assert [item["question"] for item in items("gsm8k")] == ["q1", "q2"]
    assert [item["question"] for item in items("math500")] == ["p1"]
    assert [item["question"] for item in items("math")] == list(MATH_CONFIGS)
    assert [item["question"] for item in items("math", limit=2)] == list(MATH_CONFIGS[:2])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_real_sets_are_whole(name, capsys):
    """The usual number of items, none of them twice (an id would stand for two items), no note printed."""
    if not (SHARED / "benchmarks" / name).is_dir():
        pytest.skip("../shared is not there")
    found = items(name, SHARED / "benchmarks")
    assert len(found) == BENCHMARKS[name].items == len({item["id"] for item in found})
    assert all(isinstance(item[k], str) and item[k].strip() for item in found for k in item) and not capsys.readouterr().out


def test_the_two_sources_of_a_math_gold_agree():
    """MATH-500 is part of MATH, with its answers in a column: an oracle for golds cut out of solutions."""
    if not (SHARED / "benchmarks" / "math").is_dir():
        pytest.skip("../shared is not there")
    whole = {item["question"]: item["gold"] for item in items("math", SHARED / "benchmarks")}
    part = items("math500", SHARED / "benchmarks")
    assert all(item["question"] in whole for item in part)
    differing = [item for item in part if whole[item["question"]].replace(" ", "") != item["gold"].replace(" ", "")]
    assert all(answers.grade(whole[i["question"]], i["gold"]) for i in differing), differing


def test_tiny_items_are_the_worlds_test_questions_of_the_seed():
    first = items("tiny")
    assert len(first) == len({item["id"] for item in first}) == 1000 and first == items("tiny") and first[:7] == items("tiny", limit=7)
    assert {item["id"] for item in first} != {item["id"] for item in items("tiny", seed=1)}
    assert set(first[0]) == {"id", "question", "gold"} and all(item["gold"].isdigit() for item in first)
    assert set(benchmarks.NAMES) == {"tiny", *BENCHMARKS}
