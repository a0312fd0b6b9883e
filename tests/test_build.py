"""The data stage end to end, 01 to 03 as a user starts them: what only the scripts can show of sources, choice, arms, controls and exports."""

import json
import re
import shutil
from collections import Counter
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

from common import prompts
from common.files import content_id, file_hash
from common.sources import make_row
from tests import runs
from tests.faults import FaultServer
from tests.runs import contents, must_run, rows, run_script, write_rows

A, B, SELF = "teacher-a", "teacher-b", "self"
BUILD = ["03_build.py", "--preset", "paper", "--name", "own", "--tokenizer"]  # and the folder of a tokenizer
OUTPUTS = re.compile(r"03_(data/|export/|report\.|contaminated\.)")


def critiqued(row, teacher, critique, verdict):
    return row | {"critique_id": content_id(row["id"], teacher, critique), "teacher": teacher, "critique": critique, "critique_raw": critique,
                  "verdict": verdict, "critique_finish_reason": "stop", "usage": None, "usd": None}


def outputs(run):
    """{file: its content} of what 03 wrote, but for the manifest."""
    return {name: content for name, content in contents(run).items() if OUTPUTS.match(name)}


def manifest(run, stage="03"):
    return json.loads((run / f"{stage}.run.json").read_text())


def table(page, heading):
    """The cells of the table under a heading of 03_report.md, without its head."""
    lines = page.split(f"## {heading}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# --- everything at once, on rows whose arms can be written by hand ------------------------------------------------------

TEN = "ten words that the exam and this question have exactly"  # shared with an item: a 10-gram
ADA = "how many apples does Ada buy when she takes three"
QUESTIONS = {  # borderline: 2 * 10 shared words of 18 + 18 are 0.56; near: of 15 + 15, 0.67
    "1": "What is 1 + 1?", "2": f"{TEN} but then goes on in some other way", "3": "What is 3?", "4": "What is 4?", "5": "What is 5?", "6": "6?",
    "7": "What is 7?", "8": "What is 17 + 4?", "9": f"{ADA} bags of five today please",
}
EXAM = [{"question": "WHAT is 17+4"}, {"problem": f"{ADA} boxes holding seven each tomorrow"}, {"prompt": [f"{TEN} a b c d e f g h", "And now?"]},
        {"question": "Name the capital of France."}]
RESPONSES = {  # number of the question and a letter: the answer, the gold, the source
    "1a": ("2", "2", "own"), "1b": ("3", "2", "own"), "2a": ("5", "4", "acemath"), "3a": ("3", "3", "own"), "4a": ("5", "4", "own"),
    "5a": ("5", "5", "own"), "6a": ("6", "6", "own"), "7a": ("7", "7", "own"), "7b": ("7, 8", "8", "own"), "8a": ("21", "21", "own"),
    "9a": ("15", "15", "acemath"),
}
RESPONSES = {name: make_row(QUESTIONS[name[0]], f"It is {answer}.", gold, source, "somebody", finish_reason="length" if name == "4a" else "stop")
             for name, (answer, gold, source) in RESPONSES.items()}
CRITIQUES = {  # response and teacher: how long the critique is, in words, and its verdict. The longest come first.
    ("5a", A): (900, "right"), ("8a", A): (300, "wrong"), ("8a", B): (290, "right"), ("9a", A): (280, "right"),
    ("1a", A): (100, "wrong"), ("1a", B): (90, "right"), ("1b", A): (80, "wrong"), ("2a", A): (70, "right"), ("2a", B): (60, "wrong"),
    ("3a", A): (50, "right"), ("4a", B): (40, "wrong"), ("7a", A): (30, "right"), ("7b", B): (20, "wrong"), ("6a", A): (0, "wrong"),
    ("1a", SELF): (15, "right"), ("3a", SELF): (16, "wrong"), ("8a", SELF): (17, "right"), ("9a", SELF): (18, "wrong"),
}
CRITIQUES = {key: critiqued(RESPONSES[key[0]], key[1], f"{'so ' * length}it is.\n\nConclusion: {verdict} [END]", verdict)
             for key, (length, verdict) in CRITIQUES.items()}
UNUSABLE = [CRITIQUES["3a", A], CRITIQUES["3a", A], critiqued(RESPONSES["3a"], B, "Hard to say.", "unparsed"),
            critiqued(RESPONSES["4a"], A, " \n", "wrong")]
ANSWERS = {"1": A, "2": A, "3": A, "4": B, "8": A, "9": B}  # question: whose own answer
OTHERS = {  # a run of 01: one question that is asked already, two that stand in the exam, one response that was cut
    "x1": make_row(QUESTIONS["1"], "Two, says another.", None, "numina", "g"), "x8": make_row(QUESTIONS["8"], "It is 20.", None, "numina", "g"),
    "x9": make_row(QUESTIONS["9"], "It is 15 or so.", None, "numina", "g"),
    "y": make_row("What is y?", "It is y.", None, "numina", "g"), "z": make_row("What is z?", "It is z.", None, "own", "g", finish_reason="stop"),
    "cut": make_row("What is cut?", "It is", None, "numina", "g", finish_reason="length"),
}
# --select longest --per-question 1 --wrong-share 0.5: the longest of each question, then as many right as wrong ones in that order.
EXPECTED = {
    "sft": ["1a", "2a"],  # 1a called wrong; 4a, the other wrong one, was cut
    "sft-verified": ["1a", "2a", "3a", "7a"],  # 1a by its second teacher
    "sft-teacher": ["1 teacher-a", "2 teacher-a", "3 teacher-a", "4 teacher-b"],
    "cft": ["1a teacher-a", "2a teacher-a", "3a teacher-a", "4a teacher-b"],
    "cft-short": ["7b teacher-b", "3a teacher-a"],  # answers are the shortest of all: 7b, 4a, 3a, 2a, 1b, of which one is right
    "cft-clean": ["1a teacher-b", "2a teacher-b", "3a teacher-a", "4a teacher-b"],  # 7 has two golds
    "cft-self-critique": ["1a self", "3a self"],
}
CONTROLS = ["cft-shuffled", "cft-verdict", "cft-self-critique"]
ALL = ["sft", "sft-verified", "sft-teacher", "cft", "cft-short", "cft-clean", "mix", *CONTROLS]
LEFT_OUT = {"duplicate critiques": 2, "critiques without a verdict": 1, "rows with an empty critique": 1,
            "rows whose question stands in a test set": 3, "too short (--min-tokens)": 1, "too long (--max-tokens)": 1}


def chatml(row):
    """(prompt, completion) of a row of 03 as text, written out."""
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in row["prompt"])
    return turns + "<|im_start|>assistant\n", row["completion"][0]["content"] + "<|im_end|>"


def counter(folder):
    """A function of a row of 03: (tokens of its prompt, of its completion), by the tokenizer in `folder` alone."""
    words = AutoTokenizer.from_pretrained(folder)
    return lambda row: tuple(len(words(text, add_special_tokens=False).input_ids) for text in chatml(row))


def cft_row(row):
    user = f"{prompts.CRITIQUE_INSTRUCTION}\nQuestion:\n{row['question']}\n\nSolution:\n{row['response']}\n"
    return {"prompt": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": user}],
            "completion": [{"role": "assistant", "content": f"Critique:\n{row['critique']}"}]}


@pytest.fixture(scope="module")
def everything(tmp_path_factory, tiny_model):
    """One command that uses every setting of 03, in a folder of its own: run(), printed, the folder. again() gives it once more elsewhere."""
    length = counter(tiny_model)

    def build():
        folder = tmp_path_factory.mktemp("everything")
        run = folder / "runs" / "own"
        write_rows(run / "02_critiques.jsonl", [*CRITIQUES.values(), *UNUSABLE])
        write_rows(run / "02_answers.jsonl", [{"question_id": content_id(QUESTIONS[n]), "teacher": teacher, "answer": f"{n}, says {teacher}."}
                                              for n, teacher in ANSWERS.items()])
        write_rows(folder / "runs" / "other" / "01_responses.jsonl", OTHERS.values())
        write_rows(folder / "exam.jsonl", EXAM)
        kept = [sum(length(cft_row(CRITIQUES[key]))) for key in (("7b", B), ("1a", A))]  # both bounds are inclusive
        printed = must_run(folder, *BUILD, tiny_model, "--teacher", "all", "--select", "longest", "--wrong-share", 0.5, "--per-question", 1,
                           "--min-tokens", kept[0], "--max-tokens", kept[1], "--mix", "other", "--decontaminate", "exam.jsonl",
                           "--export", "alpaca", "messages", "--arms", *ALL)
        return SimpleNamespace(folder=folder, run=run, printed=printed, data={path.stem: rows(path) for path in (run / "03_data").iterdir()})

    first = build()
    first.again, first.length = build, length
    return first


def named(arm, built):
    """What a row was made of, in the names of RESPONSES, CRITIQUES and ANSWERS."""
    responses = {row["id"]: name for name, row in (RESPONSES | OTHERS).items()}
    said = {(row["id"], row["critique"]): f"{name} {teacher}" for (name, teacher), row in CRITIQUES.items()}
    found = []
    for row in built:
        name, text = responses[row["response_id"]], row["completion"][0]["content"]
        if arm == "sft-teacher":
            found.append(text.removesuffix(".").replace(", says", ""))
        else:
            found.append(said[row["response_id"], text.removeprefix("Critique:\n")] if text.startswith("Critique:\n") else name)
    return found


@pytest.mark.parametrize("arm", EXPECTED)
def test_arms_are_those_written_by_hand(everything, arm):
    assert named(arm, everything.data[arm]) == EXPECTED[arm]


def test_a_mix_holds_the_cft_rows_and_as_many_of_the_other_run_or_all_it_has(everything):
    """Not those of a question that is there, nor in the exam, nor cut."""
    cft, mix = everything.data["cft"], everything.data["mix"]
    assert [row["completion"] for row in mix[:4]] == [row["completion"] for row in cft]
    assert sorted(named("mix", mix[4:])) == ["y", "z"] and {row["verdict"] for row in mix[4:]} == {None}
    instruction = {row["completion"][0]["content"]: row["prompt"][1]["content"].partition("\n")[0] for row in mix[4:]}
    assert instruction == {"It is y.": prompts.SFT_TEACHER_INSTRUCTION, "It is z.": prompts.SFT_INSTRUCTION}  # by source: numina, own


def test_controls_differ_from_cft_in_one_thing(everything):
    cft, shuffled, verdict = (everything.data[arm] for arm in ("cft", "cft-shuffled", "cft-verdict"))
    for control in (shuffled, verdict):
        assert [row["prompt"] for row in control] == [row["prompt"] for row in cft]
    texts = [[row["completion"][0]["content"] for row in arm] for arm in (cft, shuffled)]
    assert sorted(texts[0]) == sorted(texts[1]) and not any(a == b for a, b in zip(*texts))
    assert [row["completion"][0]["content"] for row in verdict] == [f"Critique:\nConclusion: {row['verdict']} [END]" for row in cft]
    for row in cft + shuffled + verdict:
        assert row["completion"][0]["content"].endswith(f"Conclusion: {row['verdict']} [END]")


def test_what_was_left_out_is_the_same_in_print_page_and_manifest(everything):
    """Self-critiques are not counted: they belong to no arm but their own."""
    page = (everything.run / "03_report.md").read_text()
    printed = {why: int(n) for n, why in re.findall(r"^left out: (\d+) (.*)$", everything.printed, re.M)}
    assert printed == LEFT_OUT == {why: n for why, n in manifest(everything.run)["left_out"].items() if n}
    assert {why: int(n) for why, n in table(page, "Left out")} == LEFT_OUT
    assert "\n9 critiques of 7 responses to 5 questions.\n" in page and f"by critiques: {A} (5), {B} (4)\n" in page
    assert "conflicting golds (questions) 1" in page and "Responses: graded 5, timed out 0, without a gold 0" in page


def test_the_sizes_of_the_arms_are_the_same_in_print_page_and_manifest(everything):
    """Tokens are counted again, by the tokenizer alone."""
    made, page = manifest(everything.run), (everything.run / "03_report.md").read_text()
    assert made["length_unit"] == "tokens" and made["teachers"] == [A, B] and [arm["arm"] for arm in made["arms"]] == ALL
    question_of = {row["id"]: row["question_id"] for row in [*RESPONSES.values(), *OTHERS.values()]}
    for arm, line in zip(made["arms"], table(page, "Training sets"), strict=True):
        built = everything.data[arm["arm"]]
        n_prompt, n_written = map(sum, zip(*map(everything.length, built)))
        verdicts = [row["verdict"] for row in built]
        right = None if None in verdicts else verdicts.count("right")
        questions = len({question_of[row["response_id"]] for row in built})
        longest = max(sum(everything.length(row)) for row in built)
        assert arm == {"arm": arm["arm"], "rows": len(built), "questions": questions, "right": right, "prompt": n_prompt, "completion": n_written,
                       "longest": longest}
        assert [*line[:3], line[4], line[5], line[8]] == [arm["arm"], str(len(built)), str(questions),
                                                        *(f"{n:,}" for n in (n_prompt + n_written, n_written, longest))]
        judged = "" if right is None else f", {right / len(built):.0%} judged right"
        assert f"\n{arm['arm']}: {len(built)} rows of {questions} questions{judged}, {n_prompt + n_written:,} tokens, " in everything.printed
        assert made["rows"][arm["arm"]] == len(built)
        assert made["output_sha256"][arm["arm"]] == file_hash(everything.run / "03_data" / f"{arm['arm']}.jsonl")
    assert "note: the arms differ in size" in everything.printed
    assert {path.rsplit("/", 1)[-1]: digest for path, digest in made["inputs"].items()} == {
        "02_critiques.jsonl": file_hash(everything.run / "02_critiques.jsonl"), "02_answers.jsonl": file_hash(everything.run / "02_answers.jsonl"),
        "01_responses.jsonl": file_hash(everything.folder / "runs" / "other" / "01_responses.jsonl")}


def test_questions_of_ones_own_test_set_are_gone_from_every_arm(everything):
    """8 is literally there, 9 nearly; 2 is listed for a look and trained on. Every match stands in a file."""
    ids = {content_id(QUESTIONS[n]): n for n in QUESTIONS}
    found = rows(everything.run / "03_contaminated.jsonl")
    exam = [EXAM[0]["question"], EXAM[1]["problem"], EXAM[2]["prompt"][0]]
    assert sorted((ids[m["question_id"]], m["benchmark"], m["item_question"], round(m["ratio"], 3), m["how"], m["removed"]) for m in found) == [
        ("2", "exam", exam[2], 0.556, "10-gram", False), ("8", "exam", exam[0], 1.0, "exact", True), ("9", "exam", exam[1], 0.667, "10-gram", True)]
    for arm, built in everything.data.items():
        text = json.dumps([row["prompt"] for row in built])
        assert QUESTIONS["8"] not in text and ADA not in text and (TEN in text or arm in ("cft-short", "cft-self-critique")), arm
    line = "exam: 2 questions removed, which match 2 of its 4 items (1 of them word for word); 1 borderline ones kept"
    assert f"note: {line}\n" in everything.printed and f"- {line}\n" in (everything.run / "03_report.md").read_text()


def test_the_licence_of_acemath_is_in_print_and_page(everything):
    line = "acemath: CC-BY-NC-4.0: for non-commercial use only"
    assert f"note: {line}" in everything.printed and f"- {line}" in (everything.run / "03_report.md").read_text()


def test_exports_say_what_the_arms_say(everything):
    folder = everything.run / "03_export"
    expected = {f"{arm}_{form}": f"{arm}_{form}.{ending}" for arm in ALL for form, ending in (("alpaca", "json"), ("messages", "jsonl"))}
    assert {path.name for path in folder.iterdir()} == {"dataset_info.json", *expected.values()}
    info = json.loads((folder / "dataset_info.json").read_text())
    assert {name: about["file_name"] for name, about in info.items()} == expected
    for arm, built in everything.data.items():
        alpaca = json.loads((folder / f"{arm}_alpaca.json").read_text())
        assert [(r["system"], r["instruction"] + "\n" + r["input"], r["output"]) for r in alpaca] == [
            (*(m["content"] for m in row["prompt"]), row["completion"][0]["content"]) for row in built]
        assert [r["messages"] for r in rows(folder / f"{arm}_messages.jsonl")] == [row["prompt"] + row["completion"] for row in built]


def test_the_same_command_elsewhere_gives_the_same_bytes(everything):
    """Data, exports, page, picture and the matches."""
    first, second = outputs(everything.run), outputs(everything.again().run)
    assert len(first) == 10 + 21 + 3 and second == first
