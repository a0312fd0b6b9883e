"""Exports: LLaMA-Factory and ms-swift put together the texts that the kit trains on."""

import json

import pytest

from common.core import files, prompts
from common.core.errors import InputError
from common.data import exports

TEXTS = [
    "",
    "\n",
    "\n\n",
    " ",
    "two\nlines",
    "\nfirst",
    "last\n",
    "a\n\nSolution:\nb\n",
    "<|im_end|>\n<|im_start|>assistant\n",
    "½ 🙂 \u2028 \x85 \x00",
    "\r\n",
    prompts.CRITIQUE_INSTRUCTION,
    prompts.CRITIQUE_INSTRUCTION + "\n",
    '"}]',
    "\ud800",
]


def row(prompt, completion):
    answer = [{"role": "assistant", "content": completion}]
    return {
        "id": "r",
        "prompt": prompt,
        "completion": answer,
        "arm": "cft",
        "response_id": "i",
        "verdict": "right",
    }


def sets_of(system, texts=TEXTS):
    """Return rows as 03 writes them: each question with each response; one without instruction."""
    pairs = [(a, b) for a in texts for b in texts]
    return {
        "cft": [
            row(prompts.critique_row_prompt(q, r, system), f"Critique:\n{r}{q}") for q, r in pairs
        ],
        "sft": [
            row(prompts.sft_row_prompt(q, prompts.SFT_INSTRUCTION, system), r) for q, r in pairs
        ],
        "sft-teacher": [
            row(prompts.sft_row_prompt(q, prompts.SFT_TEACHER_INSTRUCTION, system), r)
            for q, r in pairs
        ],
        "bare": [
            row(
                [*prompts.sft_row_prompt("", system=system)[:-1], {"role": "user", "content": q}], r
            )
            for q, r in pairs
        ],
    }


def asked(row):
    """Return a row's (system, the user's text, the answer); no system message is ""."""
    texts = {m["role"]: m["content"] for m in row["prompt"] + row["completion"]}
    return texts.get("system", ""), texts["user"], texts["assistant"]


def read_alpaca(path):
    """As LLaMA-Factory's AlpacaDatasetConverter does: an empty part is left out of the join."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [
        (
            r["system"],
            "\n".join(part for part in (r["instruction"], r["input"]) if part),
            r["output"],
        )
        for r in rows
    ]


def read_messages(path):
    return [asked({"prompt": row["messages"], "completion": []}) for row in files.read_jsonl(path)]


@pytest.mark.parametrize("system", [prompts.SYSTEM, "", "two\nlines "])
@pytest.mark.parametrize(
    "form, ending, read", [("alpaca", "json", read_alpaca), ("messages", "jsonl", read_messages)]
)
def test_every_text_comes_back_as_it_was(tmp_path, form, ending, read, system):
    sets = sets_of(system)
    exports.write(tmp_path, sets, [form])
    files = {f"{name}_{form}.{ending}": rows for name, rows in sets.items()}
    assert {path.name for path in tmp_path.iterdir()} == {"dataset_info.json", *files}
    for name, rows in files.items():
        assert read(tmp_path / name) == [asked(row) for row in rows]
        assert len(rows) == len(TEXTS) ** 2


def test_alpaca_rows_by_hand(tmp_path):
    rows = [
        row(
            prompts.critique_row_prompt("1 + 1?", "It is 3."),
            "Critique:\nNo.\n\nConclusion: wrong [END]",
        ),
        row(prompts.sft_row_prompt("1 + 1?\nSay why.", system=""), "2"),
        row(prompts.sft_row_prompt(""), "2"),
    ]
    exports.write(tmp_path, {"cft": rows}, ["alpaca"])
    assert json.loads((tmp_path / "cft_alpaca.json").read_text(encoding="utf-8")) == [
        {
            "instruction": "Please critique whether the following solution to the question is "
            "correct.\n\n\nQuestion:\n1 + 1?\n\nSolution:\nIt is 3.\n",
            "input": "",
            "output": "Critique:\nNo.\n\nConclusion: wrong [END]",
            "system": "You are a helpful assistant.",
        },
        {
            "instruction": "Please reason step by step to solve the following question.\n"
            "1 + 1?\nSay why.",
            "input": "",
            "output": "2",
            "system": "",
        },
        {
            "instruction": "Please reason step by step to solve the following question.\n",
            "input": "",
            "output": "2",
            "system": "You are a helpful assistant.",
        },
    ]


def test_dataset_info_lists_what_stands_there(tmp_path):
    sets = sets_of(prompts.SYSTEM, ["q"])
    exports.write(tmp_path, {name: sets[name] for name in ("cft", "sft-teacher")}, ["alpaca"])
    assert set(json.loads((tmp_path / "dataset_info.json").read_text())) == {
        "cft_alpaca",
        "sft-teacher_alpaca",
    }
    exports.write(tmp_path, {"cft": sets["cft"]}, ["messages"])  # the others' entries stay
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["cft_alpaca"] == {
        "file_name": "cft_alpaca.json",
        "formatting": "alpaca",
        "columns": {
            "prompt": "instruction",
            "query": "input",
            "response": "output",
            "system": "system",
        },
    }
    assert info["cft_messages"] == {
        "file_name": "cft_messages.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
    assert {name: entry["file_name"] for name, entry in info.items()} == {
        "cft_alpaca": "cft_alpaca.json",
        "sft-teacher_alpaca": "sft-teacher_alpaca.json",
        "cft_messages": "cft_messages.jsonl",
    }
    assert {file.name for file in tmp_path.iterdir()} == {
        entry["file_name"] for entry in info.values()
    } | {"dataset_info.json"}


def test_forms_together_and_one_after_the_other_give_the_same_files(tmp_path):
    sets, contents = sets_of("", ["q", "½\n"]), []
    for folder, calls in (("one", [["alpaca", "messages"]]), ("two", [["messages"], ["alpaca"]])):
        for forms in calls:
            exports.write(tmp_path / folder, sets, forms)
        contents.append({file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()})
    assert contents[0] == contents[1] and len(contents[0]) == 9


def test_an_arm_that_is_built_again_is_exported_again(tmp_path):
    """Else its export would hold the rows of an earlier build, whatever was taken out since."""
    first, second = sets_of("", ["q"]), sets_of("", ["other"])
    exports.write(tmp_path, {name: first[name] for name in ("cft", "sft-teacher")}, ["alpaca"])
    exports.write(tmp_path, {"cft": second["cft"]}, [])
    exports.write(
        tmp_path / "fresh", {"cft": second["cft"], "sft-teacher": first["sft-teacher"]}, ["alpaca"]
    )
    for name in ("cft_alpaca.json", "sft-teacher_alpaca.json", "dataset_info.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_an_unknown_form_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="--export alpaca csv.* alpaca messages"):
        exports.check(["alpaca", "csv"])
    exports.write(tmp_path / "03_export", sets_of("", ["q"]), [])
    assert not (tmp_path / "03_export").exists()
