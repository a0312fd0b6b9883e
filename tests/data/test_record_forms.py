"""The forms in which other tools write their records, and local files of every kind."""

import json

import pytest

from common.core.errors import InputError
from common.data import record_forms, sources
from common.data.readers import read_records


def turn(speaker, text, keys=("role", "content")):
    return dict(zip(keys, (speaker, text)))


SHAREGPT = ("from", "value")
USER, ANSWER, SYSTEM = turn("user", "2+3?"), turn("assistant", "5"), turn("system", "Be brief.")
MORE = [turn("user", "And 3+4?"), turn("assistant", "7")]
PARTS = turn("user", [{"type": "text", "text": "2"}, {"type": "text", "text": "+3?"}])
THOUGHT = turn("assistant", [{"type": "thinking", "thinking": "6?"}, {"type": "text", "text": "5"}])
DIALOGUES = [  # (turns, question, response, system, other turns)
    ([USER, ANSWER], "2+3?", "5", None, 0),
    ([SYSTEM, USER, ANSWER], "2+3?", "5", "Be brief.", 0),
    ([USER, ANSWER, *MORE], "And 3+4?", "7", None, 2),
    ([USER, ANSWER, MORE[0]], "2+3?", "5", None, 1),
    ([USER], "2+3?", None, None, 0),
    ([USER, turn("assistant", None), turn("tool", "5"), ANSWER], "2+3?", "5", None, 2),
    ([turn("human", "2+3?", SHAREGPT), turn("gpt", "5", SHAREGPT)], "2+3?", "5", None, 0),
    ([PARTS, ANSWER], "2\n+3?", "5", None, 0),
    ([USER, THOUGHT], "2+3?", "5", None, 0),
    ([turn("assistant", "Hello!"), USER, ANSWER], "2+3?", "5", None, 1),
]


@pytest.mark.parametrize("turns, question, response, system, others", DIALOGUES)
def test_a_dialogue_is_its_last_question_and_answer(turns, question, response, system, others):
    record = {"id": 1, "some_name": turns, "gold": "5"}
    expected = {"question": question, "response": response}
    expected |= {"system": system, "other_turns": others}
    assert record_forms.unpack_record(record) == record | expected


def test_two_dialogues_are_ambiguous_and_named_by_paths(tmp_path):
    """Preference data: which of the two is meant can only be said by its user."""
    record = {"chosen": [USER, ANSWER], "rejected": [USER, turn("assistant", "6")]}
    assert record_forms.unpack_record(record) == record
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(record))
    columns = ["question=rejected.0.content", "response=rejected.-1.content"]
    (row,), _ = sources.load_rows(str(path), columns)
    assert (row["question"], row["response"]) == ("2+3?", "6")


@pytest.mark.parametrize(
    "turns", [[ANSWER], [turn("user", [{"type": "image_url", "image_url": "x"}]), ANSWER]]
)
def test_turns_without_a_question_are_no_row(turns):
    with pytest.raises(ValueError):
        record_forms.unpack_record({"messages": turns})


def test_alpaca_joins_its_input():
    record = {"instruction": "Add.", "input": "2, 3", "output": "5"}
    assert record_forms.unpack_record(record)["question"] == "Add.\n\n2, 3"
    assert record_forms.unpack_record(record | {"input": ""})["question"] == "Add."
    assert record_forms.unpack_record(record | {"question": "2+3?"})["question"] == "2+3?"


def test_a_record_that_was_built_for_critiques_is_one():
    """Training rows of this kit, exported for another trainer, or of the paper under a new name."""
    prompt = "Please critique.\n\nQuestion:\nq\n\nSolution:\na"
    expected = {"question": "q", "response": "a", "critique": "c"}
    for record in (
        {"instruction": prompt, "output": "Critique:\nc"},
        {"messages": [turn("user", prompt), turn("assistant", "Critique:\nc")]},
    ):
        assert record_forms.unpack_record(record) == record | expected


ROWS = [{"question": 'a "b", c', "response": "1\n2"}, {"question": "é\u2028", "response": "r"}]
FILES = {
    "list.json": json.dumps(ROWS, indent=2),
    "lines.json": "".join(json.dumps(row) + "\n" for row in ROWS),
    "list.jsonl": "\n [" + ",".join(map(json.dumps, ROWS)) + "]",
    "bom.jsonl": "\ufeff" + json.dumps(ROWS),
    "comma.csv": 'question,response\n"a ""b"", c","1\n2"\né\u2028,r\n',
    "excel.csv": '\ufeffquestion;response\r\n"a ""b"", c";"1\n2"\r\né\u2028;r\r\n',
    "sep.CSV": 'sep=;\nquestion;response\n"a ""b"", c";"1\n2"\né\u2028;r\n',
    "tab.tsv": 'question\tresponse\n"a ""b"", c"\t"1\n2"\né\u2028\tr\n',
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_what_it_is(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8", newline="")
    assert list(read_records(str(path))) == ROWS


def test_an_empty_cell_is_no_gold_and_a_long_one_is_read(tmp_path):
    path = tmp_path / "d.csv"
    long = "x" * 300_000
    path.write_text(f"question,response,gold\nq,{long},\np,r,7\n")
    rows, _ = sources.load_rows(str(path))
    assert [row["gold"] for row in rows] == [None, "7"] and rows[0]["response"] == long


def test_a_dotted_path_leads_into_a_column(tmp_path):
    """A column of that very name comes first."""
    records = [{"q": {"text": "x"}, "r": ["a", "b"], "meta.gold": "5", "meta": {"gold": "6"}}]
    path = tmp_path / "d.json"
    path.write_text(json.dumps(records))
    columns = ["question=q.text", "response=r.1", "gold=meta.gold"]
    (row,), _ = sources.load_rows(str(path), columns)
    assert (row["question"], row["response"], row["gold"]) == ("x", "b", "5")


def test_delimiters_in_quotes_of_the_header_are_none(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('question,response,"notes; a; b; c"\nq,r,n\n')
    assert list(read_records(str(path))) == [
        {"question": "q", "response": "r", "notes; a; b; c": "n"}
    ]


def test_why_a_record_is_no_row_is_said(tmp_path):
    image = turn("user", [{"type": "image_url", "image_url": "x"}])
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"messages": [image, ANSWER]}))
    with pytest.raises(InputError, match="image_url"):
        sources.load_rows(str(path))
    good = json.dumps({"messages": [USER, ANSWER]})
    path.write_text(f"{good}\n{good.replace('5', '6')}\n{path.read_text()}")
    rows, counts = sources.load_rows(str(path))
    assert len(rows) == 2 and counts["bad rows dropped"] == 1
