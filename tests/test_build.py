"""The data stage end to end, 01 to 03 as a user starts them: what only the scripts can show."""

import json
import re
import shutil
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

from common.core import prompts
from common.core.files import content_id, file_hash
from common.data.sources import make_row
from common.teacher.critiques import SELF
from tests import runs
from tests.faults import FaultServer
from tests.runs import contents, must_run, rows, run_script, write_rows

A, B = "teacher-a", "teacher-b"
BUILD = ["03_build.py", "--preset", "paper", "--name", "own", "--min-critique-words", 2]
BUILD += ["--tokenizer"]  # and a tokenizer


def critiqued(row, teacher, critique, verdict):
    return row | {
        "critique_id": content_id(row["id"], teacher, critique),
        "teacher": teacher,
        "critique": critique,
        "critique_raw": critique,
        "verdict": verdict,
        "critique_finish_reason": "stop",
        "usage": None,
        "usd": None,
    }


def outputs(run):
    """Return {file: its content} of what 03 wrote, but for the manifests."""
    return {name: content for name, content in contents(run).items() if name.startswith("03_")}


def manifest(output):
    return json.loads(output.with_suffix(".run.json").read_text())


def read_sets(run):
    return {path.stem: rows(path) for path in (run / "03_data").glob("*.jsonl")}


def table(page, heading):
    """Return the cells of the table under a heading of 03_report.md, without its head."""
    text = page.split(f"## {heading}\n\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# --- everything at once, on rows whose arms can be written by hand --------------------------------

TEN = "ten words that the exam and this question have exactly"  # shared with an item: a 10-gram
ADA = "how many apples does Ada buy when she takes three"
# borderline: 2 * 10 shared words of 18 + 18 are 0.56; near: of 15 + 15, 0.67
QUESTIONS = {
    "1": "What is 1 + 1?",
    "2": f"{TEN} but then goes on in some other way",
    "3": "What is 3?",
    "4": "What is 4?",
    "5": "What is 5?",
    "6": "6?",
    "7": "What is 7?",
    "8": "What is 17 + 4?",
    "9": f"{ADA} bags of five today please",
}
EXAM = [
    {"question": "WHAT is 17+4"},
    {"question": f"{ADA} boxes holding seven each tomorrow"},
    {"question": f"{TEN} a b c d e f g h"},
    {"question": "Name the capital of France."},
]
RESPONSES = {  # number of the question and a letter: the answer, the gold, the source
    "1a": ("2", "2", "own"),
    "1b": ("3", "2", "own"),
    "2a": ("5", "4", "acemath"),
    "3a": ("3", "3", "own"),
    "4a": ("5", "4", "own"),
    "5a": ("5", "5", "own"),
    "6a": ("6", "6", "own"),
    "7a": ("7", "7", "own"),
    "7b": ("7, 8", "8", "own"),
    "8a": ("21", "21", "own"),
    "9a": ("15", "15", "acemath"),
}
RESPONSES = {
    name: make_row(
        QUESTIONS[name[0]],
        f"It is {answer}.",
        gold,
        source,
        "somebody",
        finish_reason="length" if name == "4a" else "stop",
    )
    for name, (answer, gold, source) in RESPONSES.items()
}
# Response and teacher: how long the critique is, in words, and its verdict. The longest first.
CRITIQUES = {
    ("5a", A): (900, "right"),
    ("8a", A): (300, "wrong"),
    ("8a", B): (290, "right"),
    ("9a", A): (280, "right"),
    ("1a", A): (100, "wrong"),
    ("1a", B): (90, "right"),
    ("1b", A): (80, "wrong"),
    ("2a", A): (70, "right"),
    ("2a", B): (60, "wrong"),
    ("3a", A): (50, "right"),
    ("4a", B): (40, "wrong"),
    ("7a", A): (30, "right"),
    ("7b", B): (20, "wrong"),
    ("6a", A): (0, "wrong"),
    ("1a", SELF): (85, "right"),
    ("3a", SELF): (901, "wrong"),
    ("7a", SELF): (35, "wrong"),
    ("8a", SELF): (86, "right"),
    ("9a", SELF): (87, "wrong"),
}
CRITIQUES = {
    key: critiqued(
        RESPONSES[key[0]], key[1], f"{'so ' * length}it is.\n\nConclusion: {verdict} [END]", verdict
    )
    for key, (length, verdict) in CRITIQUES.items()
}
UNUSABLE = [
    CRITIQUES["3a", A],
    CRITIQUES["3a", A],
    critiqued(RESPONSES["3a"], B, "Hard to say.", "unparsed"),
    critiqued(RESPONSES["4a"], A, " \n", "wrong"),
    critiqued(RESPONSES["5a"], B, "Wrong.\n\nConclusion: wrong [END]", "wrong"),
]
ANSWERS = {"1": A, "2": A, "3": A, "4": B, "8": A, "9": B}  # question: whose own answer
# A run of 01: one question that exists already, two that are in the exam, one cut response.
OTHERS = {
    "x1": make_row(QUESTIONS["1"], "Two, says another.", None, "numina", "g"),
    "x8": make_row(QUESTIONS["8"], "It is 20.", None, "numina", "g"),
    "x9": make_row(QUESTIONS["9"], "It is 15 or so.", None, "numina", "g"),
    "y": make_row("What is y?", "It is y.", None, "numina", "g"),
    "z": make_row("What is z?", "It is z.", None, "own", "g", finish_reason="stop"),
    "cut": make_row("What is cut?", "It is", None, "numina", "g", finish_reason="length"),
    "blank": make_row("What is blank?", " \n", None, "numina", "g"),
    "none": make_row("What is none?", None, None, "numina", "g"),
}
# --select longest --per-question 1: of each question the longest that fits.
EXPECTED = {
    "sft": ["1a", "2a", "3a", "7a", "6a"],  # 4a was cut
    "sft-verified": ["1a", "2a", "3a", "7a"],  # 1a by its second teacher; 6a is called wrong
    "sft-teacher": ["1 teacher-a", "2 teacher-a", "3 teacher-a", "4 teacher-b"],
    "cft": [
        "1a teacher-a",
        "2a teacher-a",
        "3a teacher-a",
        "4a teacher-b",
        "7a teacher-a",
        "6a teacher-a",
    ],
    "cft-short": [  # answers are shorter than all: the shortest first
        "6a teacher-a",
        "7b teacher-b",
        "4a teacher-b",
        "3a teacher-a",
        "2a teacher-b",
        "1b teacher-a",
    ],
    "cft-clean": [  # 7 has two golds
        "1a teacher-b",
        "2a teacher-b",
        "3a teacher-a",
        "4a teacher-b",
    ],
    "cft-self-critique": [f"1a {SELF}", f"7a {SELF}"],  # that of 3a is too long
}
CONTROLS = ["cft-shuffled", "cft-verdict", "cft-self-critique"]
ALL = [
    *("sft", "sft-verified", "sft-teacher", "cft", "cft-short", "cft-clean", "sft-other", "mix"),
    *CONTROLS,
]
LEFT_OUT = {
    "duplicate critiques": 2,
    "critiques without a verdict": 1,
    "rows with an empty critique": 1,
    "bare conclusions (--min-critique-words 2)": 1,
    "rows whose question is in a test set": 5,
    "too long (--max-tokens)": 2,
}


def read_counter(folder):
    """Return a function of a row of 03: (tokens of its prompt, of its completion).

    By the tokenizer in `folder` alone, with ChatML written out.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def count(row):
        prompt = ""
        for message in row["prompt"]:
            prompt += f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
        completion = f"{row['completion'][0]['content']}<|im_end|>"
        texts = (f"{prompt}<|im_start|>assistant\n", completion)
        return tuple(len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts)

    return count


def cft_row(row):
    user = (
        f"{prompts.CRITIQUE_INSTRUCTION}\nQuestion:\n{row['question']}\n\n"
        f"Solution:\n{row['response']}\n"
    )
    return {
        "prompt": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": user},
        ],
        "completion": [{"role": "assistant", "content": f"Critique:\n{row['critique']}"}],
    }


def write_inputs(folder):
    """Write what 03 reads: two teachers, the base as its own critic, another run, an exam."""
    run = folder / "runs" / "own"
    by_teacher = {A: [], B: [], SELF: []}
    for row in [*CRITIQUES.values(), *UNUSABLE]:
        by_teacher[row["teacher"]].append(row)
    for teacher, name in ((A, A), (B, B), (SELF, "self-critique")):
        write_rows(run / "02_critiques" / f"{name}.jsonl", by_teacher[teacher])
    answers = {A: [], B: []}
    for number, teacher in ANSWERS.items():
        answers[teacher].append((number, f"{number}, says {teacher}."))
    answers[A] += [("7", " \n"), ("7", None)]
    for teacher, texts in answers.items():
        records = [
            {"question_id": content_id(QUESTIONS[number]), "teacher": teacher, "answer": text}
            for number, text in texts
        ]
        write_rows(run / "02_answers" / f"{teacher}.jsonl", records)
    write_rows(folder / "runs" / "other" / "01_responses" / "g.jsonl", OTHERS.values())
    write_rows(folder / "exam.jsonl", EXAM)
    return run


@pytest.fixture(scope="module")
def everything(tmp_path_factory, tiny_model):
    """One command that uses nearly every setting of 03, in a folder of its own.

    -> folder, run, printed, data, and build() to do it once more elsewhere.
    """
    count = read_counter(tiny_model)
    longest = sum(count(cft_row(CRITIQUES["1a", A])))  # the limit is inclusive

    def build():
        folder = tmp_path_factory.mktemp("everything")
        run = write_inputs(folder)
        flags = ["--select", "longest", "--per-question", 1, "--max-tokens", longest]
        flags += ["--mix", "other", "--decontaminate", "exam.jsonl"]
        flags += ["--export", "alpaca", "messages", "--arms", *ALL]
        printed = must_run(folder, *BUILD, tiny_model, *flags)
        return SimpleNamespace(folder=folder, run=run, printed=printed, data=read_sets(run))

    built = build()
    built.build, built.count = build, count
    return built


def name_rows(label, built):
    """Return what rows were made of, in the names of RESPONSES, CRITIQUES and ANSWERS."""
    responses = {row["id"]: name for name, row in (RESPONSES | OTHERS).items()}
    critiques = {
        (row["id"], f"Critique:\n{row['critique']}"): f"{name} {teacher}"
        for (name, teacher), row in CRITIQUES.items()
    }
    names = []
    for row in built:
        text = row["completion"][0]["content"]
        if label == "sft-teacher":
            names.append(text.removesuffix(".").replace(", says", ""))
        elif text.startswith("Critique:\n"):
            names.append(critiques[row["response_id"], text])
        else:
            names.append(responses[row["response_id"]])
    return names


@pytest.mark.parametrize("label", EXPECTED)
def test_sets_are_those_written_by_hand(everything, label):
    assert name_rows(label, everything.data[label]) == EXPECTED[label]


def test_a_mix_holds_the_cft_rows_and_as_many_of_the_other_run_or_all_it_has(everything):
    """Not those in the exam, nor cut ones; in the mix none of a question that is there already."""
    cft, other, mix = (everything.data[label] for label in ("cft", "sft-other", "mix"))
    critiques = [row for row in mix if row["verdict"] is not None]
    sft = [row for row in mix if row["verdict"] is None]
    assert [row["completion"] for row in critiques] == [row["completion"] for row in cft]
    assert [mix[1], mix[3]] == sft  # in turn, as far as they go
    assert sorted(name_rows("sft-other", other)) == ["x1", "y", "z"]
    assert sorted(name_rows("mix", sft)) == ["y", "z"]
    assert {row["verdict"] for row in other} == {None}
    for row in sft:  # the instruction is that of the source: numina, own
        instruction = row["prompt"][1]["content"].partition("\n")[0]
        is_y = row["completion"][0]["content"] == "It is y."
        assert instruction == (prompts.SFT_TEACHER_INSTRUCTION if is_y else prompts.SFT_INSTRUCTION)


def test_controls_differ_from_cft_in_one_thing(everything):
    cft, shuffled, verdict = (
        everything.data[label] for label in ("cft", "cft-shuffled", "cft-verdict")
    )

    def completions(built):
        return [row["completion"][0]["content"] for row in built]

    for control in (shuffled, verdict):
        assert [row["prompt"] for row in control] == [row["prompt"] for row in cft]
    assert sorted(completions(shuffled)) == sorted(completions(cft))
    assert not any(a == b for a, b in zip(completions(shuffled), completions(cft)))
    for row in cft + shuffled + verdict:
        assert row["completion"][0]["content"].endswith(f"Conclusion: {row['verdict']} [END]")
    for row in verdict:
        text = f"Critique:\nConclusion: {row['verdict']} [END]"
        assert row["completion"][0]["content"] == text


def test_what_was_left_out_is_the_same_in_print_page_and_manifest(everything):
    page = (everything.run / "03_report.md").read_text()
    printed = re.findall(r"^left out: (\d+) (.*)$", everything.printed, re.M)
    assert {reason: int(number) for number, reason in printed} == LEFT_OUT
    recorded = manifest(everything.run / "03_data" / "cft.jsonl")["left_out"]
    assert {reason: number for reason, number in recorded.items() if number} == LEFT_OUT
    assert {reason: int(number) for reason, number in table(page, "Left out")} == LEFT_OUT
    assert "\n12 critiques of 8 responses to 6 questions.\n" in page
    assert [line[:2] for line in table(page, "Verdicts")[:3]] == [
        [SELF, "2"],
        [A, "6"],
        [B, "4"],
    ]
    assert "6 graded, 3 right, 0 timed out, 2 without a clear gold" in page


def test_the_sizes_of_the_sets_are_the_same_in_print_page_and_manifest(everything):
    """Tokens are counted again, by the tokenizer alone."""
    page = (everything.run / "03_report.md").read_text()
    question_ids = {row["id"]: row["question_id"] for row in (RESPONSES | OTHERS).values()}
    lines = {line[0]: line[1:] for line in table(page, "Training sets")}
    assert list(lines) == ALL
    for label, built in everything.data.items():
        path = everything.run / "03_data" / f"{label}.jsonl"
        recorded = manifest(path)
        lengths = [everything.count(row) for row in built]
        verdicts = [row["verdict"] for row in built]
        expected = {
            "arm": label,
            "rows": len(built),
            "questions": len({question_ids[row["response_id"]] for row in built}),
            "right": None if None in verdicts else verdicts.count("right"),
            "prompt": sum(prompt for prompt, _ in lengths),
            "completion": sum(completion for _, completion in lengths),
            "longest": max(map(sum, lengths)),
            "length_unit": "tokens",
            "teachers": [A, B],
            "output_sha256": file_hash(path),
        }
        assert {name: recorded[name] for name in expected} == expected
        total = expected["prompt"] + expected["completion"]
        right = "-" if expected["right"] is None else expected["right"]
        numbers = [expected["rows"], expected["questions"], right, total]
        numbers += [expected["completion"], expected["longest"]]
        assert lines[label] == list(map(str, numbers))
        assert (
            f"\n{label}: {len(built)} rows of {expected['questions']} questions, {total:,} tok"
            in (everything.printed)
        )


def test_a_manifest_names_what_the_set_was_made_from(everything):
    inputs = manifest(everything.run / "03_data" / "cft.jsonl")["inputs"]
    critiques, other = "runs/own/02_critiques", "runs/other/01_responses"
    answers = [f"runs/own/02_answers/{teacher}.jsonl" for teacher in (A, B)]
    files = [f"{critiques}/{name}.jsonl" for name in ("self-critique", A, B)]
    files += [*answers, f"{other}/g.jsonl", "exam.jsonl"]
    assert inputs == {name: file_hash(everything.folder / name) for name in files}


def test_the_first_row_of_cft_is_shown(everything):
    first = everything.data["cft"][0]
    shown = everything.printed.partition("The first row of cft,")[2]
    for message in first["prompt"] + first["completion"]:
        assert message["content"][:1500] in shown


def test_questions_of_ones_own_test_set_are_gone_from_every_set(everything):
    """8 is there word for word, 9 nearly; 2 is listed and trained on. Each match is listed."""
    numbers = {content_id(question): number for number, question in QUESTIONS.items()}
    exam = [item["question"] for item in EXAM]
    matches = []
    for match in rows(everything.run / "03_contaminated.jsonl"):
        fields = [match[name] for name in ("benchmark", "item_question", "how", "removed")]
        matches.append((numbers[match["question_id"]], *fields, round(match["ratio"], 2)))
    assert sorted(matches) == [
        ("2", "exam.jsonl", exam[2], "10-gram", False, 0.56),
        ("8", "exam.jsonl", exam[0], "exact", True, 1.0),
        ("9", "exam.jsonl", exam[1], "10-gram", True, 0.67),
    ]
    for label, built in everything.data.items():
        text = json.dumps([row["prompt"] for row in built])
        assert QUESTIONS["8"] not in text and ADA not in text, label
    for label in ("sft", "sft-teacher", "cft", "mix", "cft-verdict"):
        assert TEN in json.dumps(everything.data[label])
    page = (everything.run / "03_report.md").read_text()
    (note,) = re.findall(r"^note: (exam.jsonl: 2 questions.*)$", everything.printed, re.M)
    assert f"- {note}\n" in page


def test_the_license_of_acemath_is_in_print_and_page(everything):
    (note,) = re.findall(r"^note: (acemath: .*CC-BY-NC.*)$", everything.printed, re.M)
    assert f"- {note}" in (everything.run / "03_report.md").read_text()


def test_exports_say_what_the_sets_say(everything):
    folder = everything.run / "03_export"
    expected = {}
    for label in ALL:
        expected[f"{label}_alpaca"] = f"{label}_alpaca.json"
        expected[f"{label}_messages"] = f"{label}_messages.jsonl"
    assert {path.name for path in folder.iterdir()} == {"dataset_info.json", *expected.values()}
    info = json.loads((folder / "dataset_info.json").read_text())
    assert {name: entry["file_name"] for name, entry in info.items()} == expected
    for label, built in everything.data.items():
        messages = [row["prompt"] + row["completion"] for row in built]
        assert [row["messages"] for row in rows(folder / f"{label}_messages.jsonl")] == messages
        for row, turns in zip(json.loads((folder / f"{label}_alpaca.json").read_text()), messages):
            assert [row["system"], row["instruction"], row["output"]] == [
                turn["content"] for turn in turns
            ]


def test_the_same_command_elsewhere_gives_the_same_bytes(everything):
    """Data, exports, page, picture and the matches."""
    first, second = outputs(everything.run), outputs(everything.build().run)
    assert len(first) == 11 + 23 + 3 and second == first


def test_a_teacher_can_be_chosen(everything, tiny_model, tmp_path):
    shutil.copytree(everything.folder, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "runs" / "own"
    must_run(tmp_path, *BUILD, tiny_model, "--teacher", B, "--arms", "cft", "--suffix", "b")
    built = rows(run / "03_data" / "cft-b.jsonl")
    expected = {f"{name} {B}" for name, teacher in CRITIQUES if teacher == B}
    assert set(name_rows("cft-b", built)) == expected
    assert manifest(run / "03_data" / "cft-b.jsonl")["teachers"] == [B]


def test_self_critiques_move_no_row_of_another_set(everything, tiny_model, tmp_path):
    shutil.copytree(everything.folder, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "runs" / "own"
    built = []
    for suffix in ("with", "without"):
        must_run(tmp_path, *BUILD, tiny_model, "--arms", "cft", "--rows", 5, "--suffix", suffix)
        cft = rows(run / "03_data" / f"cft-{suffix}.jsonl")
        built.append([row["id"] for row in cft])
        (run / "02_critiques" / "self-critique.jsonl").unlink(missing_ok=True)
    assert len(built[0]) == 5 and built[0] == built[1]


# --- a user's mistakes ----------------------------------------------------------------------------


def all_called_right(run):
    for path in (run / "02_critiques").glob("*.jsonl"):
        write_rows(path, [row | {"verdict": "right"} for row in rows(path)[-4:]])


def only_self_critiques(run):
    for teacher in (A, B):
        (run / "02_critiques" / f"{teacher}.jsonl").unlink()


def change_nothing(run):
    """Leave it as it is."""


MISTAKES = {  # flags, facts that stderr has to hold, what brings the mistake about
    "unknown export": (["--export", "alpaca", "parquet"], ["parquet", "--export"], change_nothing),
    "unknown test set": (["--decontaminate", "nope"], ["nope", "math500"], change_nothing),
    "the tiny test set": (["--decontaminate", "tiny"], ["tiny", "--decontaminate"], change_nothing),
    "unknown run to mix": (
        ["--mix", "nope"],
        ["runs/nope/01_responses", "python 01_sample.py --name nope"],
        change_nothing,
    ),
    "unknown teacher": (["--teacher", "nobody"], ["nobody", f"--teacher {A} {B}"], change_nothing),
    "no teacher": ([], ["02_critique.py"], only_self_critiques),
    "two limits": (
        ["--per-question", 1, "--wrong-share", 0.5],
        ["--per-question 1", "--wrong-share 0.5"],
        change_nothing,
    ),
    "a share that leaves nothing": (
        ["--arms", "sft-verified", "cft", "--wrong-share", 0.5],
        ["cft: no row", "--wrong-share", "--arms"],
        all_called_right,
    ),
    "another test set, and nothing left": (
        # 03_contaminated.jsonl speaks of the data that exists, which an earlier 03 compared.
        ["--decontaminate", "one/test.jsonl", "--max-tokens", 1],
        ["no critique is left"],
        change_nothing,
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_changes_nothing(everything, tiny_model, tmp_path, mistake):
    """The run is as it was, and the message says what was seen and how to go on."""
    flags, facts, prepare = mistake
    shutil.copytree(everything.folder, tmp_path, dirs_exist_ok=True)
    write_rows(tmp_path / "one" / "test.jsonl", EXAM[:1])
    prepare(tmp_path / "runs" / "own")
    before = contents(tmp_path)
    done = run_script(tmp_path, *BUILD, tiny_model, *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [fact for fact in facts if fact not in done.stderr] == [], done.stderr
    assert contents(tmp_path) == before


# --- several settings, the base's own critiques ---------------------------------------------------

N = 24
ASKED = [
    make_row(f"What is {n} + 1?", f"It is {n + 1 + n % 2}.", str(n + 1), "own", "somebody")
    | {"finish_reason": "stop"}
    for n in range(N)
]
# Half of what the model learns to write has no verdict, so a trained one gives both kinds itself.
TEXTS = [("So.\n\nConclusion: right [END]", "right"), ("?", "wrong")]
SHORT = [critiqued(row, A, *TEXTS[n % 2]) for n, row in enumerate(ASKED)]
TRAIN = ["--global-batch", 4, "--epochs", 10, "--learning-rate", "1e-2", "--save-every", 0]
BUILD_OWN = [*BUILD, "base", "--min-critique-words", 0]


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model):
    """A run with a base that 03 built with two settings."""
    folder = tmp_path_factory.mktemp("settings")
    run = folder / "runs" / "own"
    runs.make_base(run, tiny_model)
    write_rows(run / "01_responses" / "own.jsonl", ASKED)
    write_rows(run / "02_critiques" / f"{A}.jsonl", SHORT)
    answers = [
        {"question_id": row["question_id"], "teacher": A, "answer": f"{row['gold']}."}
        for row in ASKED
    ]
    write_rows(run / "02_answers" / f"{A}.jsonl", answers)
    half = ["--rows", 8, "--seed", 1, "--suffix", "half"]
    whole = ["--rows", 8, "--seed", 2]
    for flags in (half, whole):
        must_run(folder, *BUILD_OWN, *flags)
    return SimpleNamespace(folder=folder, run=run)


def test_another_seed_takes_other_rows_in_each_set(settings):
    data = read_sets(settings.run)
    for label in ("sft", "sft-verified", "sft-teacher", "cft"):
        half, whole = (
            {row["response_id"] for row in data[name]} for name in (f"{label}-half", label)
        )
        assert len(half) == len(whole) == 8 and half != whole, label


def test_each_set_has_a_manifest_of_its_own(settings):
    data = read_sets(settings.run)
    for label, built in data.items():
        path = settings.run / "03_data" / f"{label}.jsonl"
        recorded = manifest(path)
        assert recorded["output_sha256"] == file_hash(path)
        suffix, seed = ("half", 1) if label.endswith("-half") else ("", 2)
        assert (recorded["config"]["suffix"], recorded["config"]["seed"]) == (suffix, seed)
        assert {row["arm"] for row in built} == {label}


def test_critiques_that_changed_since_are_found_out(settings, tmp_path):
    """02 says which responses it critiqued: if they are others now, 03 asks to run it again."""
    shutil.copytree(settings.folder, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "runs" / "own"
    responses = run / "01_responses" / "own.jsonl"
    made_from = {"inputs": {f"runs/own/01_responses/{responses.name}": file_hash(responses)}}
    (run / "02_critiques" / f"{A}.run.json").write_text(json.dumps(made_from))
    must_run(tmp_path, *BUILD_OWN, "--arms", "cft")
    write_rows(responses, ASKED[1:])
    done = run_script(tmp_path, *BUILD_OWN, "--arms", "cft")
    assert done.returncode == 2
    assert "own.jsonl has changed" in done.stderr and "02_critique.py" in done.stderr


@pytest.mark.slow
def test_critiques_of_the_model_itself_are_a_set_of_their_own(settings, tmp_path):
    """By a trained checkpoint; those without a verdict are counted, and 02 ends with status 0."""
    shutil.copytree(settings.folder, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "runs" / "own"
    must_run(tmp_path, "04_train.py", "--name", "own", "--arms", "cft", *TRAIN)
    checkpoint = "runs/own/04_train/cft/step-000020"
    flags = [
        "--preset",
        "paper",
        "--name",
        "own",
        "--max-new-tokens",
        20,
        "--min-critique-words",
        0,
    ]
    flags += ["--self-critique", checkpoint, "--temperature", 1, "--top-p", 1]
    must_run(tmp_path, "02_critique.py", *flags)
    own = rows(run / "02_critiques" / "self-critique.jsonl")
    assert 0 < len(own) < N and {row["teacher"] for row in own} == {SELF}
    assert rows(run / "02_critiques" / f"{A}.jsonl") == SHORT
    must_run(tmp_path, *BUILD_OWN, "--rows", 16, "--arms", "cft", "cft-self-critique")
    data = read_sets(run)
    teachers_texts = {f"Critique:\n{row['critique']}" for row in SHORT}
    assert {row["completion"][0]["content"] for row in data["cft"]} <= teachers_texts
    texts = {row["id"]: f"Critique:\n{row['critique']}" for row in own}
    by_itself = data["cft-self-critique"]
    for row in by_itself:
        assert row["completion"][0]["content"] == texts[row["response_id"]]
    assert len(by_itself) == min(16, len(own))
    shared = [row["response_id"] for row in data["cft"] if row["response_id"] in texts]
    assert [row["response_id"] for row in by_itself][: len(shared)] == shared  # the same order


def test_a_mix_of_a_run_with_itself_never_has_a_question_twice(settings, tmp_path):
    """The other half are the questions that the critiques leave over, however few."""
    shutil.copytree(settings.folder, tmp_path, dirs_exist_ok=True)
    flags = ["--rows", 16, "--arms", "mix", "--mix", "own"]
    must_run(tmp_path, *BUILD_OWN, *flags)
    question_ids = {row["id"]: row["question_id"] for row in ASKED}
    mix = rows(tmp_path / "runs" / "own" / "03_data" / "mix.jsonl")
    halves = {True: set(), False: set()}
    for row in mix:
        is_critique = row["completion"][0]["content"].startswith("Critique:")
        halves[is_critique].add(question_ids[row["response_id"]])
    assert len(halves[True]) == 16 and len(mix) == N
    assert halves[False] == set(question_ids.values()) - halves[True]


# --- 01: samples of a source, next to other generators --------------------------------------------

OWN_RESPONSES = [{"question": f"What is {n}?", "response": f"It is {n}."} for n in range(12)]
DRAWN = {  # (model, question): the raw text
    ("g1", "One?"): "<think>Two? No.</think>\n\nIt is 1.",
    ("g1", "Two?"): "<think>Two, or",
    ("g1", "Three?"): "It is 3.",
    ("g2", "One?"): "It is one.",
    ("g2", "Two?"): "It is two.",
    ("g2", "Three?"): "It is 3.",
}


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """One run with responses of a file and of two generators, and another run with another seed.

    -> run, printed [of each command], again: the folder of the other run's responses
    """
    folder = tmp_path_factory.mktemp("sampled")
    write_rows(folder / "own.jsonl", OWN_RESPONSES)
    questions = [{"question": question} for question in ("One?", "Two?", "Three?")]
    write_rows(folder / "asked.jsonl", questions)

    def answer(body):
        question = re.search(r"<\|im_start\|>user\n(.*)<\|im_end\|>", body["prompt"])[1]
        return DRAWN[body["model"], question]

    def sample(name, *flags):
        return must_run(folder, "01_sample.py", "--preset", "paper", "--name", name, *flags)

    own = ["--source", "own.jsonl", "--rows", 5, "--seed"]
    with FaultServer(text=answer) as server:
        asked = ["--source", "asked.jsonl", "--base-url", server.url, "--model"]
        printed = [sample("own", *own, 4), sample("own", *asked, "g1"), sample("own", *asked, "g2")]
    for name, seed in (("same", 4), ("another", 5)):
        sample(name, *own, seed)
    return SimpleNamespace(runs=folder / "runs", printed=printed)


def read_responses(sampled, name):
    return {
        path.stem: rows(path) for path in (sampled.runs / name / "01_responses").glob("*.jsonl")
    }


def test_a_sample_of_a_local_file_depends_on_the_seed_alone(sampled):
    first = read_responses(sampled, "own")["own"]
    (same,), (another,) = (read_responses(sampled, name).values() for name in ("same", "another"))
    assert first == same != another
    assert {row["source"] for row in first} == {"own.jsonl"}
    assert len(first) == len(another) == 5
    order = [row["response"] for row in OWN_RESPONSES]
    places = [order.index(row["response"]) for row in another]
    assert places == sorted(places)
    assert "5 rows, 7 not in" in sampled.printed[0]


def test_each_generator_has_a_file_of_its_own(sampled):
    """Thinking is stripped, and an answer that never comes is counted as empty."""
    responses = read_responses(sampled, "own")
    assert set(responses) == {"own", "g1", "g2"}
    assert [row["response"] for row in responses["g1"]] == ["It is 1.", "It is 3."]
    assert [row["response"] for row in responses["g2"]] == ["It is one.", "It is two.", "It is 3."]
    for name in ("g1", "g2"):
        assert {row["generator"] for row in responses[name]} == {name}
        for row in responses[name]:
            assert row["id"] == content_id(row["question"], row["response"])
    assert "1 empty" in sampled.printed[1]


def test_conflicting_golds_leave_their_responses_ungraded(tmp_path):
    """A file of questions with two golds for one, through 01 --model and 02: both come through.

    The question is asked and paid once, and no response is graded by either gold, whoever judges.
    """
    golds = [("One?", 1), ("Two?", 2), ("One?", 11), ("Two?", None)]
    write_rows(
        tmp_path / "asked.jsonl", [{"question": question, "gold": gold} for question, gold in golds]
    )
    commands = [
        ["01_sample.py", "--preset", "paper", "--source", "asked.jsonl", "--model", "m"],
        ["02_critique.py", "--model", "a"],
        ["02_critique.py", "--model", "b"],
    ]
    with FaultServer(text=lambda body: "It is 1.\n\nConclusion: right [END]") as server:
        for command in commands:
            must_run(tmp_path, *command, "--name", "own", "--base-url", server.url)
        assert server.paid() == 6 == len(server.asked)
    run = tmp_path / "runs" / "own"
    for teachers in (["a"], ["b"], ["a", "b"]):
        flags = ["--name", "own", "--arms", "cft", "--teacher", *teachers]
        must_run(tmp_path, "03_build.py", *flags)
        page = (run / "03_report.md").read_text()
        assert "1 graded, 0 right, 0 timed out, 1 without a clear gold" in page
        assert len(rows(run / "03_data" / "cft.jsonl")) == 2  # both teachers say the same


def test_acemath_says_its_license_also_if_it_was_downloaded(tmp_path):
    """From a folder of the hub dataset's name in the working directory, read as the hub is."""
    folder = tmp_path / "nvidia" / "AceMath-Instruct-Training-Data"
    (folder / "data").mkdir(parents=True)
    record = {"messages": [{"role": "user", "content": "2+2?"}], "answer": "4"}
    file = folder / "data" / "math.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), file)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n"
        "  data_files:\n  - split: math_sft\n    path: data/*.parquet\n---\n"
    )
    sampled_rows = []
    for name, source in (("hub", "acemath"), ("file", f"acemath={file}")):
        flags = ["--preset", "paper", "--name", name, "--source", source]
        must_run(tmp_path, "01_sample.py", *flags, HF_HOME=str(tmp_path / "cache"))
        (path,) = (tmp_path / "runs" / name / "01_responses").glob("*.jsonl")
        sampled_rows.append(rows(path))
    assert sampled_rows[0] == sampled_rows[1]
    (row,) = sampled_rows[0]
    assert (row["question"], row["response"], row["source"]) == ("2+2?", "4", "acemath")


# --- One-Shot CFT in miniature --------------------------------------------------------------------


def test_one_question_many_responses_two_teachers(tmp_path, tiny_model):
    """A row for each response and teacher, a checkpoint for each epoch; the preset stays."""
    run = tmp_path / "runs" / "one"
    runs.make_base(run, tiny_model)

    def script(name, *flags):
        return must_run(tmp_path, name, "--name", "one", *flags)

    script(
        "01_sample.py",
        *("--preset", "tiny-one-shot", "--base-steps", 1, "--samples", 6, "--max-new-tokens", 24),
    )
    (responses_file,) = (run / "01_responses").glob("*.jsonl")
    responses = rows(responses_file)
    assert len({row["question_id"] for row in responses}) == 1
    assert {row["generator"] for row in responses} == {"base"}
    assert 2 <= len(responses) == len({row["id"] for row in responses}) <= 6
    for style in ("full", "brief"):
        script("02_critique.py", "--critique-style", style)
    script("03_build.py")
    assert [path.name for path in (run / "03_data").glob("*.jsonl")] == ["cft.jsonl"]
    critiques = {}
    for path in (run / "02_critiques").glob("*.jsonl"):
        for row in rows(path):
            critiques[row["id"], f"Critique:\n{row['critique']}"] = row["teacher"]
    built = []
    for row in rows(run / "03_data" / "cft.jsonl"):
        teacher = critiques[row["response_id"], row["completion"][0]["content"]]
        built.append((row["response_id"], teacher))
    expected = []
    for style in ("brief", "full"):
        teacher = f"tiny-teacher:skip=0.1:critique={style}"
        expected += [(row["id"], teacher) for row in responses]
    assert sorted(built) == sorted(expected)
    script("04_train.py", "--epochs", 2, "--global-batch", len(responses), "--save-every", 2)
    checkpoints = sorted(path.name for path in (run / "04_train" / "cft").glob("step-*"))
    assert checkpoints == ["step-000002", "step-000004"]
    trained = json.loads((run / "04_train" / "cft" / "settings.json").read_text())
    names = ("learning_rate", "overlong", "weight_decay")
    assert [trained[name] for name in names] == [5e-5, "drop", 0.05]
    assert manifest(run / "03_data" / "cft.jsonl")["config"]["preset"] == "tiny-one-shot"
