"""Rows of any source have one schema; a bad source is an error, a bad row is one or is counted."""

import itertools
import json
import tracemalloc
from collections import Counter

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from common.core import prompts
from common.core.errors import InputError
from common.core.files import json_line
from common.data import record_forms, sources
from common.data.readers import sample_records

RIGHT, WRONG = "Fine.\n\nConclusion: right [END]", "No, 2.\n\nConclusion: wrong [END]"
GOOD = {
    "question": "1+1?",
    "response": "2",
    "gold": "2",
    "critique": RIGHT,
    "source": "web",
    "generator": "m",
    "teacher": "t",
}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """read(records, name, columns=...) -> (rows, counts): write a file and read it as a source."""
    monkeypatch.chdir(tmp_path)

    def read(records, name="data.jsonl", **settings):
        write(tmp_path / name, records)
        return sources.load_rows(str(tmp_path / name), **settings)

    return read


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json_line(r) for r in records))


def test_unpack_gives_back_what_was_packed():
    """Through the very function that packs training prompts; only the first separator splits."""
    solution = "\n\nSolution:\n"
    questions = ["q", "Question:\nq", "q\n\n", "Solution:\nq"]
    responses = ["a", f"a{solution}b", "Solution:\nx", solution, "", "a\n\n", "Question:\nq"]
    critiques = ["c", "Critique:\nc", "c\n"]
    for values in itertools.product(questions, responses, critiques):
        expected = dict(zip(("question", "response", "critique"), values))
        question, response, critique = values
        record = {
            "input": prompts.question_and_solution(question, response),
            "output": "Critique:\n" + critique,
        }
        assert record_forms.unpack_critique_record(record) == expected


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """hub(name, records): a folder of that name, which `datasets` reads as it reads the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def make(name, records, config="default"):
        write(tmp_path / name / "data" / "train.parquet", records)
        (tmp_path / name / "README.md").write_text(
            f"---\nconfigs:\n- config_name: {config}\n"
            "  data_files:\n  - split: train\n    path: data/*.parquet\n---\n"
        )

    return make


PACKED = [
    {
        "instruction": prompts.CRITIQUE_INSTRUCTION,
        "input": prompts.question_and_solution("q", f"a{i}"),
        "output": "Critique:\n" + RIGHT,
    }
    for i in range(3)
]


def test_the_released_data_is_read_from_the_hub(hub):
    hub("TIGER-Lab/WebInstruct-CFT", PACKED + PACKED[:1], config="WebInstruct-CFT-50K")
    rows, counts = sources.load_rows("webinstruct-cft-50k")
    assert [(r["question"], r["response"], r["critique"], r["verdict"]) for r in rows] == [
        ("q", f"a{i}", RIGHT, "right") for i in range(3)
    ]
    assert counts["duplicates dropped"] == 1 and {r["source"] for r in rows} == {
        "webinstruct-cft-50k"
    }


def test_a_hub_row_that_cannot_be_unpacked_is_a_bad_row(hub):
    hub(
        "TIGER-Lab/WebInstruct-CFT",
        [PACKED[0], PACKED[1] | {"input": "no separator"}, PACKED[2]],
        config="WebInstruct-CFT-50K",
    )
    rows, counts = sources.load_rows("webinstruct-cft-50k")
    assert [r["response"] for r in rows] == ["a0", "a2"] and counts["bad rows dropped"] == 1


@pytest.mark.parametrize("name", ["org/name", "teknium/OpenHermes-2.5"])
def test_any_hub_dataset_is_read_with_a_column_map(hub, name):
    """Names on the hub often end in a version, whose dot begins no file type."""
    hub(name, [{"problem": "p", "solution": "s", "other": 1}])
    (row,), _ = sources.load_rows(name, ["question=problem", "response=solution"])
    assert (row["question"], row["response"], row["source"]) == ("p", "s", name)


@pytest.mark.parametrize(
    "source, path, columns",
    [
        ("metamath", "meta-math/MetaMathQA", ("query", "response")),
        ("numina", "AI-MO/NuminaMath-CoT", ("problem", "solution")),
        ("webinstruct", "TIGER-Lab/WebInstructSub", ("question", "answer")),
    ],
)
def test_columns_of_the_known_sources(hub, source, path, columns):
    """As their cards give them. Two have a column "source" (contest, site): it is not ours."""
    record = dict(zip(columns, ("q", "r")))
    hub(path, [record | {"original_question": "no", "messages": [], "source": "cn_k12"}])
    (row,), _ = sources.load_rows(source)
    assert (row["question"], row["response"], row["source"]) == ("q", "r", source)


def test_two_teachers_who_say_the_same_are_two_rows(read):
    rows, counts = read([GOOD, GOOD | {"teacher": "u"}, GOOD | {"source": "elsewhere"}])
    assert [row["teacher"] for row in rows] == ["t", "u"] and +counts == {"duplicates dropped": 1}


def test_a_file_of_no_known_name_is_refused_and_one_of_a_known_name_needs_its_columns(tmp_path):
    write(tmp_path / "d.jsonl", [GOOD])
    with pytest.raises(InputError, match="another="):
        sources.load_rows(f"another={tmp_path / 'd.jsonl'}")
    with pytest.raises(InputError, match="(?s)'query' for question.*--columns question="):
        sources.load_rows(f"metamath={tmp_path / 'd.jsonl'}")


@pytest.mark.parametrize("field", ["critique", "source"])
@pytest.mark.parametrize("value", [["5"], {"answer": 5}])
def test_a_field_is_a_text_or_a_number(read, field, value):
    with pytest.raises(InputError, match=f"row 1: no {field}"):
        read([GOOD | {field: value}])


def test_a_finish_reason_comes_along_and_odd_names_are_text(read):
    (row,), _ = read([GOOD | {"finish_reason": "length", "source": 1, "generator": 3}])
    assert (row["finish_reason"], row["source"], row["generator"]) == ("length", "1", "3")


def test_columns_that_are_not_used_are_printed(read, capsys):
    """A gold under another name would be missed in silence."""
    read([{"question": "q", "solution": "r", "gold_answer": "3"}], columns=["response=solution"])
    printed = capsys.readouterr().out
    assert "response=solution" in printed and "not used: gold_answer\n" in printed


def test_a_known_source_that_was_downloaded_is_read_as_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data.parquet", PACKED)
    rows, _ = sources.load_rows("webinstruct-cft-50k=data.parquet")
    assert [row["source"] for row in rows] == ["webinstruct-cft-50k"] * 3 and rows[0][
        "critique"
    ] == RIGHT
    with pytest.raises(InputError, match="50k=data.parquet has no column 'output'"):
        sources.load_rows("webinstruct-cft-50k=data.parquet", ["gold=output"])


def test_a_known_source_by_its_hub_id_is_the_same_source(hub):
    """The SFT instruction and the licence go by its name."""
    hub("meta-math/MetaMathQA", [{"query": "q", "response": "r"}])
    assert sources.load_rows("meta-math/MetaMathQA") == sources.load_rows("metamath")


def acemath_record(*messages, answer="a"):
    return {
        "messages": [{"role": role, "content": text} for role, text in messages],
        "answer": answer,
    }


def test_a_file_inside_a_hub_dataset(hub, tmp_path):
    """The critiques of Table 5, a list in a file of their own name; One-Shot's, as messages."""
    folder = tmp_path / "ubowang" / "ali_data_0127_bk"
    hub("ubowang/ali_data_0127_bk", [{"not": "this"}])
    (folder / "MetaMath_80k_critique_gpt-4o-1120_0124.json").write_text(json.dumps(PACKED))
    rows, _ = sources.load_rows("metamath-cft")
    assert [(row["response"], row["critique"]) for row in rows] == [
        (f"a{i}", RIGHT) for i in range(3)
    ]
    prompt = "Analyze.\n\nQuestion:\nq\n\nStudent's Solution:\na"
    record = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": WRONG},
        ]
    }
    folder = tmp_path / "TIGER-Lab" / "One-Shot-CFT-Data"
    folder.mkdir(parents=True)
    write(folder / "DSR-CFT-p0.jsonl", [record])
    write(folder / "DSR-CFT-p1.jsonl", [{"not": "this"}])
    (row,), _ = sources.load_rows("one-shot-cft")
    assert (row["question"], row["response"], row["critique_raw"]) == ("q", "a", WRONG)
    assert row["source"] == "one-shot-cft"


def test_opencodereasoning_gives_its_judgement_as_the_verdict(hub, tmp_path):
    """A question that is withheld makes a bad row; thinking is taken from both texts."""
    texts = {"r1_generation": "<think>t</think>code", "qwq_critique": "<think>t</think>It fails."}
    records = [
        texts | {"question": "q", "judgement": "wrong"},
        texts | {"question": "p", "judgement": "right"},
        texts | {"question": "-", "judgement": "right"},
        texts | {"question": "-1 + 2?", "judgement": "right"},
    ]
    name = "nvidia/OpenCodeReasoning-2"
    hub(name, records, config="train")
    card = tmp_path / name / "README.md"
    card.write_text(card.read_text().replace("split: train", "split: python"))
    rows, counts = sources.load_rows("opencodereasoning-2")
    assert [(row["question"], row["verdict"]) for row in rows] == [
        ("q", "wrong"),
        ("p", "right"),
        ("-1 + 2?", "right"),
    ]
    assert {row["response"] for row in rows} == {"code"} and counts["bad rows dropped"] == 1
    assert rows[0]["critique"].startswith("It fails.")


TEST_RECORDS = {  # (a record of each test set of critics as published, question, response)
    "processbench": (
        {"id": "gsm8k-0", "generator": "m", "problem": "q", "steps": ["1", "2"], "label": -1},
        "1\n\n2",
    ),
    "criticbench": ({"question": "q", "response": "r", "correctness": True}, "r"),
    "realcritic": ({"question": "q", "response": "r"}, "r"),
    "prm800k": ({"instruction": "q", "responses": ["a"], "next_response": "b"}, "a\nb"),
}


@pytest.mark.parametrize("name", sources.TEST_SOURCES)
def test_a_test_set_of_critics_is_read_only_if_it_is_allowed(tmp_path, name):
    record, response = TEST_RECORDS[name]
    write(tmp_path / "f.jsonl", [record])
    write(tmp_path / name / "test.jsonl", [record, record])
    for source in (name, f"{name}={tmp_path}/f.jsonl", sources.SOURCES[name].path):
        with pytest.raises(InputError, match="--allow-test-data"):
            sources.check_use(source, allow_test_data=False)
        sources.check_use(source, allow_test_data=True)
    (row,), _ = sources.load_rows(f"{name}={tmp_path}/f.jsonl")
    assert (row["question"], row["response"]) == ("q", response)
    assert sources.read_questions(name, tmp_path) == ["q"]


def test_a_record_of_another_form_is_passed_over_unless_half_are(tmp_path):
    record, _ = TEST_RECORDS["processbench"]
    path = tmp_path / "processbench" / "test.jsonl"
    write(path, [record, {"problem": "no steps"}, record | {"problem": "p"}])
    assert sources.read_questions("processbench", tmp_path) == ["q", "p"]
    write(path, [record, {"problem": "no steps"}])
    with pytest.raises(InputError, match="row 2.*steps.*problem"):
        sources.read_questions("processbench", tmp_path)


def test_each_form_is_that_of_a_source_and_each_source_has_one():
    assert {dataset.form for dataset in sources.SOURCES.values()} == set(record_forms.FORMS)


def test_columns_that_nobody_has_seen_are_said_to_be_unverified():
    seen, unseen = sources.describe_sources({"prm800k", "metamath-cft"})[::-1]
    assert "unverified" in unseen and "unverified" not in seen


def test_acemath_is_read_from_its_maths_split_with_a_warning(tmp_path, hub):
    """Messages and answer, as its card says.

    A row of several turns is a bad one: its answer needs what came before.
    """
    path = "nvidia/AceMath-Instruct-Training-Data"
    records = [
        acemath_record(("user", "q")),
        acemath_record(("system", "s"), ("user", "q2")),
        acemath_record(("user", "q3"), ("assistant", "x"), ("user", "q4")),
    ]
    hub(path, records)
    card = tmp_path / path / "README.md"
    card.write_text(card.read_text().replace("split: train", "split: math_sft"))
    rows, counts = sources.load_rows("acemath")
    values = [(row["question"], row["response"], row["source"]) for row in rows]
    assert values == [("q", "a", "acemath"), ("q2", "a", "acemath")]
    assert counts["bad rows dropped"] == 1
    license, other = sources.describe_sources({"metamath", "acemath", "my.jsonl"})
    assert license.startswith("acemath: CC-BY-NC-4.0") and "non-commercial" in license
    assert other == "metamath: MIT"


def test_a_sample_is_the_same_for_its_seed_and_another_for_another():
    records = [f"r{i}" for i in range(1000)]
    sample, n_read = sample_records(iter(records), 100, seed=1)
    assert n_read == 1000 and len(sample) == 100 and sample == sorted(sample)
    assert all(records[number - 1] == record for number, record in sample)
    assert sample == sample_records(iter(records), 100, seed=1)[0]
    assert len(set(sample) & set(sample_records(iter(records), 100, seed=2)[0])) < 40
    larger, _ = sample_records(iter(records), 200, seed=1)
    assert set(sample) < set(larger)
    for size in (1000, 2000):
        assert sample_records(iter(records), size, 1) == (list(enumerate(records, 1)), 1000)
    assert sample_records(iter([]), 5, 1) == ([], 0)


def test_each_record_is_as_likely_to_be_picked():
    """Each of 20 is in a quarter of 2,000 samples of 5, up to 5 standard deviations (97 of 500)."""
    counts = Counter()
    for seed in range(2000):
        counts.update(number for number, _ in sample_records(range(20), 5, seed)[0])
    assert set(counts) == set(range(1, 21))
    assert all(abs(count - 500) < 97 for count in counts.values())


def test_a_sample_holds_no_more_than_its_size():
    """A million records of 10 kB would be 10 GB."""
    tracemalloc.start()
    records = ({"text": str(i) * 1000} for i in range(100_000))
    picked, n_read = sample_records(records, 100, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(picked), n_read) == (100, 100_000) and peak < 5e6


@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet"])
def test_a_random_sample_of_a_file(tmp_path, name):
    path = str(tmp_path / name)
    records = [{"question": f"q{i}", "response": "r", "odd": None} for i in range(2500)]
    records[1234]["odd"] = 1234
    write(tmp_path / name, records)

    def numbers(**settings):
        rows, _ = sources.load_rows(path, size=50, **settings)
        return [int(row["question"][1:]) for row in rows]

    _, counts = sources.load_rows(path, size=50, seed=3)
    assert counts["not in the random sample (--rows)"] == 2450
    sample = numbers(seed=3)
    assert len(sample) == 50 and sample == sorted(sample) and max(sample) > 1500
    assert sample == numbers(seed=3) != numbers(seed=4)
    assert set(numbers(limit=60, seed=3)) < set(range(60))  # the limit is of what is read


@pytest.mark.parametrize("source", ["webinstruct-cft", "a/b/c", "./here/none", "/no/such", ""])
def test_an_unknown_source_is_answered_with_the_known_ones(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="webinstruct-cft-50k"):
        sources.load_rows(source)


def test_all_file_types_give_the_same_rows(read):
    """Whole rows, rows with null as parquet has it, and rows without a key."""
    records = [
        GOOD,
        {"question": "q", "response": "r", "gold": None},
        {"question": "q2", "response": "½ 🙂\n"},
    ]
    rows = [read(records, name)[0] for name in ("data.parquet", "data.jsonl")]
    for row in (*rows[0], *rows[1]):
        del row["source"]
    assert len(rows[0]) == 3 and rows[0] == rows[1]


def test_half_a_character_is_a_question_mark(read):
    """A lone surrogate: what no tokenizer and no UTF-8 file can hold."""
    (row,), _ = read(
        [{"question": "q \ud83d", "response": "r \ude00", "critique": "\ud83d " + RIGHT}]
    )
    assert (row["question"], row["response"], row["critique_raw"]) == ("q ?", "r ?", "? " + RIGHT)
    assert row["id"] == sources.make_row("q ?", "r ?", None, "s", "g")["id"]


@pytest.mark.parametrize(
    "gold, expected, counted",
    [
        (["5"], "5", "golds in a list of one, taken out of it"),
        (["5", "6"], None, "golds left out: a list, an object or NaN"),
        ([], None, "golds left out: a list, an object or NaN"),
        ({"answer": 5}, None, "golds left out: a list, an object or NaN"),
        (float("nan"), None, "golds left out: a list, an object or NaN"),
        (b"5", "5", "golds of bytes, read as text"),
        (b"\xff", None, "golds of bytes, read as text"),
        ("NaN", None, "golds left out: a list, an object or NaN"),
        ("[5, 6]", "[5, 6]", None),
        (0, "0", None),
        (False, "False", None),
    ],
)
def test_an_odd_gold_is_counted(read, gold, expected, counted):
    """As Parquet files hold them; of several values none can be told to be the answer."""
    (row,), counts = read([GOOD | {"gold": gold}], "data.parquet")
    assert row["gold"] == expected
    assert {text for text in +counts if text.startswith("golds")} == ({counted} - {None})


def test_thinking_is_no_part_of_a_response_or_a_critique(read):
    """As in the text of R1, whose template has opened the mark already."""
    thought = "6? No, 5.</think>\n\n"
    records = [
        GOOD | {"response": "<think>" + thought + "5", "critique": thought + RIGHT},
        GOOD | {"response": "<think>It never ends"},
        GOOD | {"response": "4", "critique": "<think>Conclusion: wrong"},
        GOOD | {"response": "3", "critique": None},
    ]
    rows, counts = read(records)
    assert [row["response"] for row in rows] == ["5", "4", "3"]
    assert [row.get("critique_raw") for row in rows] == [RIGHT, None, None]
    assert "think" not in json_line({"rows": rows})
    assert counts["bad rows dropped"] == 1
    assert counts["responses whose thinking was removed"] == 1
    assert counts["critiques whose thinking was removed"] == 2


def test_nan_is_no_gold(read):
    """pandas writes it for a missing number; as a text it would make every response wrong."""
    (row, other), _ = read(
        [
            GOOD | dict.fromkeys(("gold", "generator", "finish_reason", "teacher"), float("nan")),
            GOOD | {"gold": 0, "response": "r"},
        ]
    )
    assert (row["gold"], row["generator"], row["finish_reason"], row["teacher"], other["gold"]) == (
        None,
        "unknown",
        None,
        "unknown",
        "0",
    )


def test_a_critique_is_headed_once(read):
    """03 writes the line that the released data has already."""
    (row,), _ = read([GOOD | {"critique": f"Critique:\n{RIGHT}"}])
    assert row["critique"] == row["critique_raw"] == RIGHT


def test_a_verdict_that_the_column_lacks_is_read_from_the_text(read):
    rows, _ = read([GOOD | {"verdict": None}, GOOD | {"response": "3", "verdict": "wrong"}])
    assert [row["verdict"] for row in rows] == ["right", "wrong"]


def test_a_row_has_the_whole_schema(read):
    (row, other), counts = read(
        [
            GOOD,
            {
                "question": "q",
                "response": "r",
                "gold": 0.5,
                "critique": "",
                "source": "",
                "generator": None,
                "teacher": "",
            },
        ]
    )
    assert list(row) == [
        "id",
        "question_id",
        "question",
        "gold",
        "response",
        "source",
        "generator",
        "sample",
        "finish_reason",
        "critique",
        "critique_raw",
        "verdict",
        "teacher",
    ]
    assert (row["gold"], row["source"], row["generator"], row["verdict"], row["teacher"]) == (
        "2",
        "web",
        "m",
        "right",
        "t",
    )
    assert "critique" not in other and (other["gold"], other["source"], other["generator"]) == (
        "0.5",
        "data.jsonl",
        "unknown",
    )
    assert not any(counts.values())


def test_a_column_map(read):
    records = [{"problem": "q", "solution": "r", "question": "not this", "label": 3}]
    (row,), _ = read(records, columns=["question=problem", "response=solution", "gold=label"])
    assert (row["question"], row["response"], row["gold"]) == ("q", "r", "3")


BAD_SOURCES = [  # (records, settings, facts of the message)
    ([{"q": "1", "response": "r"}], {}, ["'question'", "q, response", "--columns question="]),
    ([{"question": "q"}], {}, ["'response'", "--columns response="]),
    ([{}], {}, ["'question'"]),
    ([{}], {"columns": ["question=q"]}, ["'q' for question"]),
    ([GOOD], {"columns": ["question=problem"]}, ["'problem' for question"]),
    ([GOOD], {"columns": ["gold=answer"]}, ["'answer' for gold"]),
    ([GOOD], {"columns": ["source=answer"]}, ["'answer' for source"]),
    ([GOOD], {"columns": ["questoin=question"]}, ["questoin", "question, response"]),
    ([GOOD], {"columns": ["question"]}, ["--columns", "'question'"]),
    ([GOOD], {"columns": ["=x"]}, ["--columns", "'=x'"]),
    ([GOOD], {"verdict_values": ["true"]}, ["--verdict-values", "'true'"]),
    ([{"question": " ", "response": "r"}], {}, ["row 1", "1 of 1 row", "--columns"]),
    ([GOOD, GOOD | {"question": 5}], {}, ["row 2", "question", "holds '5'"]),
    ([GOOD, GOOD | {"response": None}], {}, ["row 2", "response"]),
    ([GOOD, GOOD | {"response": "\n"}], {}, ["row 2", "response"]),
    ([GOOD, {"question": "q"}], {}, ["row 2"]),
]


def test_a_bad_source_is_an_error_with_its_place(read):
    for records, settings, facts in BAD_SOURCES:
        with pytest.raises(InputError) as error:
            read(records, **settings)
        assert [fact for fact in facts if fact not in str(error.value)] == [], str(error.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"response": None},
        {"response": ""},
        {"question": "\n"},
        {"question": 5},
        {"question": None},
        {"response": ["r"]},
    ],
)
def test_bad_rows_are_dropped_and_counted(read, bad):
    rows, counts = read([GOOD, GOOD | bad, GOOD | {"response": "4"}])
    assert [row["response"] for row in rows] == ["2", "4"] and counts["bad rows dropped"] == 1


@pytest.mark.parametrize("absent", ["question", "response"])
def test_a_row_without_the_key_is_a_bad_row_too(read, absent):
    """JSON often leaves a key out; other rows show that the column exists."""
    rows, counts = read(
        [GOOD, {k: v for k, v in GOOD.items() if k != absent}, GOOD | {"response": "4"}]
    )
    assert [row["response"] for row in rows] == ["2", "4"] and counts["bad rows dropped"] == 1


def test_questions_alone_where_responses_will_be_drawn(read):
    (row,), _ = read([{"question": "q"}], need_response=False)
    assert row["response"] is None


@pytest.mark.parametrize(
    "name, data",
    [
        ("d.jsonl", b""),
        ("d.json", b'[{"question": "q", "response": "r"}'),
        ("d.jsonl", b'[{"question": "q", "response": "r"}, 5]'),
        ("d.json", b'{\n"question": "q", "response": "r"}'),
        ("d.json", b"[" * 100_000),
        ("d.parquet", b""),
        ("d.parquet", b"PAR1 no PAR1"),
        ("d.parquet", b"PAR1" + b"\xff" * 40 + (40).to_bytes(4, "little") + b"PAR1"),
        ("d.csv", b"question,response\nq,r,5\n"),
        ("d.csv", b'question,response\nq,"r\n'),
        ("d.csv", "question,response\nq,é\n".encode("cp1252")),
        ("d.csv", b""),
        ("d", b"x"),
    ],
    ids=range(13),
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        sources.load_rows(str(tmp_path / name))


def test_limit_and_order(read):
    records = [{"question": f"q{i}", "response": "r"} for i in range(9)]
    assert [row["question"] for row in read(records, limit=4)[0]] == ["q0", "q1", "q2", "q3"]


def test_only_exact_duplicates_are_dropped(read):
    """Two critiques of one response are two rows; the ids are of question and response only."""
    again = [
        GOOD,
        GOOD | {"critique": WRONG},
        GOOD | {"response": "2 "},
        GOOD | {"gold": "other"},
        GOOD,
    ]
    rows, counts = read(again)
    assert [(r["response"], r.get("verdict"), r["gold"]) for r in rows] == [
        ("2", "right", "2"),
        ("2", "wrong", "2"),
        ("2 ", "right", "2"),
        ("2", "right", "other"),
    ]
    assert +counts == {"duplicates dropped": 1} and rows[0]["id"] == rows[1]["id"] != rows[2]["id"]
    assert len({r["question_id"] for r in rows}) == 1


@pytest.mark.parametrize(
    "critique, verdict",
    [
        (RIGHT, "right"),
        (WRONG, "wrong"),
        ("So:\n\n**Conclusion:** Incorrect.", "wrong"),
        ("Hm.", "unparsed"),
    ],
)
def test_the_verdict_is_read_from_the_text_where_no_column_gives_it(read, critique, verdict):
    for extra in ({}, {"verdict": None}):
        (row,), _ = read([GOOD | {"critique": critique} | extra])
        assert (row["verdict"], row["critique_raw"]) == (verdict, critique)
        assert verdict == "unparsed" or row["critique"].endswith(f"Conclusion: {verdict} [END]")


@pytest.mark.parametrize(
    "value, values, verdict",
    [
        (True, ["true=right", "false=wrong"], "right"),
        (False, ["true=right", "false=wrong"], "wrong"),
        ("right", [], "right"),
        ("wrong", [], "wrong"),
        ("unparsed", [], "unparsed"),
        (0, ["0=wrong"], "wrong"),
        ("Correct", ["Correct=right"], "right"),
        ("right", ["right=wrong"], "wrong"),
    ],
)
@pytest.mark.parametrize(
    "critique", [RIGHT, "No conclusion here.", "Two ends.\n\n**Conclusion**: wrong\n[END]  "]
)
def test_a_verdict_column_decides_and_the_critique_ends_in_it(
    read, value, values, verdict, critique
):
    (row,), counts = read(
        [GOOD | {"critique": critique, "judged": value}],
        columns=["verdict=judged"],
        verdict_values=values,
    )
    assert (row["verdict"], row["critique_raw"]) == (verdict, critique)
    if verdict != "unparsed":
        assert (
            row["critique"].endswith(f"\n\nConclusion: {verdict} [END]")
            and row["critique"].count("[END]") == 1
        )
    stated = "right" if critique == RIGHT else "wrong" if "wrong" in critique else verdict
    assert counts["critiques with another verdict in the text than in the column"] == (
        stated != verdict
    )


@pytest.mark.parametrize(
    "value, values",
    [(True, []), ("yes", ["no=wrong"]), (True, ["True=right"]), ("yes", ["yes=correct"])],
)
def test_a_verdict_value_without_a_meaning_stops(read, value, values):
    with pytest.raises(InputError, match="--verdict-values"):
        read([GOOD | {"judged": value}], columns=["verdict=judged"], verdict_values=values)


def test_a_boolean_verdict_without_its_meaning_is_answered_with_both(read):
    """A hint for one value only was once copied as it stood and turned every label round."""
    with pytest.raises(InputError, match="--verdict-values true=right false=wrong"):
        read([GOOD | {"critique": "c", "verdict": False}])
    with pytest.raises(
        InputError, match="'is right'.*(?s:.*)--verdict-values true=right"
    ):  # as a shell reads it
        read([GOOD | {"critique": "c", "verdict": "is right"}])


def test_a_verdict_without_a_critique_is_not_used(read):
    (row,), _ = read([{"question": "q", "response": "r", "verdict": "right"}])
    assert "verdict" not in row
