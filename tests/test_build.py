"""The data stage end to end, 01 to 03 as a user starts them: what only the scripts can show of sources, choice, arms, controls and exports."""

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
BUILD = [
    "03_build.py",
    "--preset",
    "paper",
    "--name",
    "own",
    "--tokenizer",
]  # and the folder of a tokenizer
OUTPUTS = re.compile(r"03_(data/|export/|report\.|contaminated\.)")


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
    {"problem": f"{ADA} boxes holding seven each tomorrow"},
    {"prompt": [f"{TEN} a b c d e f g h", "And now?"]},
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
CRITIQUES = {  # response and teacher: how long the critique is, in words, and its verdict. The longest come first.
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
]
ANSWERS = {"1": A, "2": A, "3": A, "4": B, "8": A, "9": B}  # question: whose own answer
OTHERS = {  # a run of 01: one question that is asked already, two that stand in the exam, one response that was cut
    "x1": make_row(QUESTIONS["1"], "Two, says another.", None, "numina", "g"),
    "x8": make_row(QUESTIONS["8"], "It is 20.", None, "numina", "g"),
    "x9": make_row(QUESTIONS["9"], "It is 15 or so.", None, "numina", "g"),
    "y": make_row("What is y?", "It is y.", None, "numina", "g"),
    "z": make_row("What is z?", "It is z.", None, "own", "g", finish_reason="stop"),
    "cut": make_row("What is cut?", "It is", None, "numina", "g", finish_reason="length"),
    "blank": make_row("What is blank?", " \n", None, "numina", "g"),
    "none": make_row("What is none?", None, None, "numina", "g"),
}
# --select longest --per-question 1 --wrong-share 0.5: the longest that go together, one of each question; of five rows two are wrong.
EXPECTED = {
    "sft": [
        "1a",
        "2a",
        "3a",
        "7b",
    ],  # 1a called wrong; 4a, another wrong one, was cut; of 7 the wrong one, which was lacking
    "sft-verified": ["1a", "2a", "3a", "7a"],  # 1a by its second teacher
    "sft-teacher": ["1 teacher-a", "2 teacher-a", "3 teacher-a", "4 teacher-b"],
    "cft": ["1a teacher-a", "2a teacher-a", "3a teacher-a", "4a teacher-b", "7a teacher-a"],
    "cft-short": [
        "7b teacher-b",
        "4a teacher-b",
        "3a teacher-a",
        "2a teacher-a",
        "1a teacher-b",
    ],  # answers are shorter than all: the shortest first
    "cft-clean": [
        "1a teacher-b",
        "2a teacher-b",
        "3a teacher-a",
        "4a teacher-b",
    ],  # 7 has two golds
    "cft-self-critique": [f"1a {SELF}", f"7a {SELF}"],  # that of 3a is too long
}
CONTROLS = ["cft-shuffled", "cft-verdict", "cft-self-critique"]
ALL = [
    "sft",
    "sft-verified",
    "sft-teacher",
    "cft",
    "cft-short",
    "cft-clean",
    "sft-other",
    "mix",
    *CONTROLS,
]
LEFT_OUT = {
    "duplicate critiques": 2,
    "critiques without a verdict": 1,
    "rows with an empty critique": 1,
    "rows whose question is in a test set": 3,
    "rows of --mix without a finished response": 3,
    "rows of --mix whose question is in a test set": 2,
    "too short (--min-tokens)": 1,
    "too long (--max-tokens)": 1,
}


def chatml(row):
    """(prompt, completion) of a row of 03 as text, written out."""
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in row["prompt"])
    return turns + "<|im_start|>assistant\n", row["completion"][0]["content"] + "<|im_end|>"


def counter(folder):
    """A function of a row of 03: (tokens of its prompt, of its completion), by the tokenizer in `folder` alone."""
    words = AutoTokenizer.from_pretrained(folder)
    return lambda row: tuple(
        len(words(text, add_special_tokens=False).input_ids) for text in chatml(row)
    )


def cft_row(row):
    user = f"{prompts.CRITIQUE_INSTRUCTION}\nQuestion:\n{row['question']}\n\nSolution:\n{row['response']}\n"
    return {
        "prompt": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": user},
        ],
        "completion": [{"role": "assistant", "content": f"Critique:\n{row['critique']}"}],
    }


@pytest.fixture(scope="module")
def everything(tmp_path_factory, tiny_model):
    """One command that uses every setting of 03, in a folder of its own: run(), printed, the folder. again() gives it once more elsewhere."""
    length = counter(tiny_model)

    def build():
        folder = tmp_path_factory.mktemp("everything")
        run = folder / "runs" / "own"
        write_rows(run / "02_critiques.jsonl", [*CRITIQUES.values(), *UNUSABLE])
        write_rows(
            run / "02_answers.jsonl",
            [
                {
                    "question_id": content_id(QUESTIONS[n]),
                    "teacher": teacher,
                    "answer": f"{n}, says {teacher}.",
                }
                for n, teacher in ANSWERS.items()
            ]
            + [
                {"question_id": content_id(QUESTIONS["7"]), "teacher": A, "answer": text}
                for text in (" \n", None)
            ],
        )
        write_rows(folder / "runs" / "other" / "01_responses.jsonl", OTHERS.values())
        write_rows(folder / "exam.jsonl", EXAM)
        kept = [
            sum(length(cft_row(CRITIQUES[key]))) for key in (("7b", B), ("1a", A))
        ]  # both bounds are inclusive
        printed = must_run(
            folder,
            *BUILD,
            tiny_model,
            "--teacher",
            "all",
            "--select",
            "longest",
            "--wrong-share",
            0.5,
            "--per-question",
            1,
            "--min-tokens",
            kept[0],
            "--max-tokens",
            kept[1],
            "--mix",
            "other",
            "--decontaminate",
            "exam.jsonl",
            "--export",
            "alpaca",
            "messages",
            "--arms",
            *ALL,
        )
        return SimpleNamespace(
            folder=folder,
            run=run,
            printed=printed,
            data={path.stem: rows(path) for path in (run / "03_data").iterdir()},
        )

    first = build()
    first.again, first.length = build, length
    return first


def named(arm, built):
    """What a row was made of, in the names of RESPONSES, CRITIQUES and ANSWERS."""
    responses = {row["id"]: name for name, row in (RESPONSES | OTHERS).items()}
    said = {
        (row["id"], row["critique"]): f"{name} {teacher}"
        for (name, teacher), row in CRITIQUES.items()
    }
    found = []
    for row in built:
        name, text = responses[row["response_id"]], row["completion"][0]["content"]
        if arm == "sft-teacher":
            found.append(text.removesuffix(".").replace(", says", ""))
        else:
            found.append(
                said[row["response_id"], text.removeprefix("Critique:\n")]
                if text.startswith("Critique:\n")
                else name
            )
    return found


@pytest.mark.parametrize("arm", EXPECTED)
def test_arms_are_those_written_by_hand(everything, arm):
    assert named(arm, everything.data[arm]) == EXPECTED[arm]


def test_a_mix_holds_the_cft_rows_and_as_many_of_the_other_run_or_all_it_has(everything):
    """Not those in the exam, nor cut ones; in the mix none of a question that is there already."""
    cft, other, mix = (everything.data[arm] for arm in ("cft", "sft-other", "mix"))
    critiques, sft = (
        [row for row in mix if (row["verdict"] is None) is other_half]
        for other_half in (False, True)
    )
    assert [row["completion"] for row in critiques] == [row["completion"] for row in cft] and [
        mix[1],
        mix[3],
    ] == sft  # in turn, as far as they go
    assert sorted(named("sft-other", other)) == ["x1", "y", "z"] and sorted(named("mix", sft)) == [
        "y",
        "z",
    ]
    assert {row["verdict"] for row in other} == {None}
    mix = critiques + sft
    instruction = {
        row["completion"][0]["content"]: row["prompt"][1]["content"].partition("\n")[0]
        for row in mix[5:]
    }
    assert instruction == {
        "It is y.": prompts.SFT_TEACHER_INSTRUCTION,
        "It is z.": prompts.SFT_INSTRUCTION,
    }  # by source: numina, own


def test_controls_differ_from_cft_in_one_thing(everything):
    cft, shuffled, verdict = (
        everything.data[arm] for arm in ("cft", "cft-shuffled", "cft-verdict")
    )
    for control in (shuffled, verdict):
        assert [row["prompt"] for row in control] == [row["prompt"] for row in cft]
    texts = [[row["completion"][0]["content"] for row in arm] for arm in (cft, shuffled)]
    assert sorted(texts[0]) == sorted(texts[1]) and not any(a == b for a, b in zip(*texts))
    assert [row["completion"][0]["content"] for row in verdict] == [
        f"Critique:\nConclusion: {row['verdict']} [END]" for row in cft
    ]
    for row in cft + shuffled + verdict:
        assert row["completion"][0]["content"].endswith(f"Conclusion: {row['verdict']} [END]")


def test_what_was_left_out_is_the_same_in_print_page_and_manifest(everything):
    """Self-critiques are not counted: they belong to no arm but their own."""
    page = (everything.run / "03_report.md").read_text()
    printed = {
        why: int(n) for n, why in re.findall(r"^left out: (\d+) (.*)$", everything.printed, re.M)
    }
    assert (
        printed
        == LEFT_OUT
        == {why: n for why, n in manifest(everything.run)["left_out"].items() if n}
    )
    assert {why: int(n) for why, n in table(page, "Left out")} == LEFT_OUT
    assert (
        "\n11 critiques of 7 responses to 5 questions.\n" in page
        and f"by critiques: {A} (5), {B} (4), {SELF} (2)\n" in page
    )
    assert (
        "conflicting golds (questions) 1" in page
        and "Responses: graded 5, timed out 0, without a gold 0" in page
    )


def test_the_sizes_of_the_arms_are_the_same_in_print_page_and_manifest(everything):
    """Tokens are counted again, by the tokenizer alone."""
    made, page = manifest(everything.run), (everything.run / "03_report.md").read_text()
    assert (
        made["length_unit"] == "tokens"
        and made["teachers"] == [A, B]
        and [arm["arm"] for arm in made["arms"]] == ALL
    )
    question_of = {row["id"]: row["question_id"] for row in [*RESPONSES.values(), *OTHERS.values()]}
    for arm, line in zip(made["arms"], table(page, "Training sets"), strict=True):
        built = everything.data[arm["arm"]]
        n_prompt, n_written = map(sum, zip(*map(everything.length, built)))
        verdicts = [row["verdict"] for row in built]
        right = None if None in verdicts else verdicts.count("right")
        questions = len({question_of[row["response_id"]] for row in built})
        longest = max(sum(everything.length(row)) for row in built)
        assert arm == {
            "arm": arm["arm"],
            "rows": len(built),
            "questions": questions,
            "right": right,
            "prompt": n_prompt,
            "completion": n_written,
            "longest": longest,
        }
        assert [*line[:3], line[4], line[5], line[8]] == [
            arm["arm"],
            str(len(built)),
            str(questions),
            *(f"{n:,}" for n in (n_prompt + n_written, n_written, longest)),
        ]
        judged = "" if right is None else f", {right / len(built):.0%} with the verdict right"
        assert (
            f"\n{arm['arm']}: {len(built)} rows of {questions} questions{judged}, {n_prompt + n_written:,} tokens, "
            in everything.printed
        )
        assert made["rows"][arm["arm"]] == len(built)
        assert made["output_sha256"][arm["arm"]] == file_hash(
            everything.run / "03_data" / f"{arm['arm']}.jsonl"
        )
    assert "note: the training sets differ in size" in everything.printed
    assert {path.rsplit("/", 1)[-1]: digest for path, digest in made["inputs"].items()} == {
        "02_critiques.jsonl": file_hash(everything.run / "02_critiques.jsonl"),
        "02_answers.jsonl": file_hash(everything.run / "02_answers.jsonl"),
        "01_responses.jsonl": file_hash(
            everything.folder / "runs" / "other" / "01_responses.jsonl"
        ),
        "exam.jsonl": file_hash(everything.folder / "exam.jsonl"),
    }


def test_questions_of_ones_own_test_set_are_gone_from_every_arm(everything):
    """8 is literally there, 9 nearly; 2 is listed for a look and trained on. Every match stands in a file."""
    ids = {content_id(QUESTIONS[n]): n for n in QUESTIONS}
    found = rows(everything.run / "03_contaminated.jsonl")
    exam = [EXAM[0]["question"], EXAM[1]["problem"], EXAM[2]["prompt"][0]]
    assert sorted(
        (
            ids[m["question_id"]],
            m["benchmark"],
            m["item_question"],
            round(m["ratio"], 3),
            m["how"],
            m["removed"],
        )
        for m in found
    ) == [
        ("2", "exam", exam[2], 0.556, "10-gram", False),
        ("8", "exam", exam[0], 1.0, "exact", True),
        ("9", "exam", exam[1], 0.667, "10-gram", True),
    ]
    for arm, built in everything.data.items():
        text = json.dumps([row["prompt"] for row in built])
        assert QUESTIONS["8"] not in text and ADA not in text, arm
    assert all(
        TEN in json.dumps(everything.data[arm])
        for arm in ("sft", "sft-teacher", "cft", "mix", "cft-verdict")
    )
    line = "exam: 2 questions removed, which match 2 of its 4 items (1 of them word for word); 1 borderline ones kept"
    assert (
        f"note: {line}\n" in everything.printed
        and f"- {line}\n" in (everything.run / "03_report.md").read_text()
    )


def test_the_licence_of_acemath_is_in_print_and_page(everything):
    line = "acemath: CC-BY-NC-4.0: for non-commercial use only"
    assert (
        f"note: {line}" in everything.printed
        and f"- {line}" in (everything.run / "03_report.md").read_text()
    )


def test_exports_say_what_the_arms_say(everything):
    folder = everything.run / "03_export"
    expected = {
        f"{arm}_{form}": f"{arm}_{form}.{ending}"
        for arm in ALL
        for form, ending in (("alpaca", "json"), ("messages", "jsonl"))
    }
    assert {path.name for path in folder.iterdir()} == {"dataset_info.json", *expected.values()}
    info = json.loads((folder / "dataset_info.json").read_text())
    assert {name: about["file_name"] for name, about in info.items()} == expected
    for arm, built in everything.data.items():
        alpaca = json.loads((folder / f"{arm}_alpaca.json").read_text())
        assert [
            (r["system"], r["instruction"] + "\n" + r["input"], r["output"]) for r in alpaca
        ] == [
            (*(m["content"] for m in row["prompt"]), row["completion"][0]["content"])
            for row in built
        ]
        assert [r["messages"] for r in rows(folder / f"{arm}_messages.jsonl")] == [
            row["prompt"] + row["completion"] for row in built
        ]


def test_the_same_command_elsewhere_gives_the_same_bytes(everything):
    """Data, exports, page, picture and the matches."""
    first, second = outputs(everything.run), outputs(everything.again().run)
    assert len(first) == 11 + 23 + 3 and second == first


# --- a user's mistakes ------------------------------------------------------------------------------------------------


def conflicting_ids(run):
    first, *others = rows(run / "02_critiques.jsonl")
    write_rows(run / "02_critiques.jsonl", [first, first | {"question": "Another?"}, *others])


def all_called_right(run):
    write_rows(
        run / "02_critiques.jsonl",
        [row | {"verdict": "right"} for row in list(CRITIQUES.values())[4:13]],
    )


def nothing(run):
    """Leave it as it is."""


MISTAKES = {  # flags, what stderr has to hold, how to mend it, what brings the mistake about
    "unknown export": (
        ["--export", "alpaca", "parquet"],
        "unknown export forms ['parquet']",
        "--export alpaca messages",
        nothing,
    ),
    "unknown test set": (
        ["--decontaminate", "nope"],
        "unknown test sets ['nope']",
        "math500",
        nothing,
    ),
    "the tiny test set": (
        ["--decontaminate", "gsm8k", "tiny"],
        "tiny cannot be checked",
        "Name other test sets",
        nothing,
    ),
    "unknown run to mix": (
        ["--mix", "nope"],
        "runs/nope/01_responses.jsonl is not there",
        "python 01_sample.py --name nope",
        nothing,
    ),
    "an id for two texts": (
        [],
        "names two texts",
        "Make the file again with 01 and 02",
        conflicting_ids,
    ),
    "a share that leaves nothing": (
        ["--arms", "sft-verified", "cft", "--wrong-share", "0.5"],
        "cft: no row (rows with a critique with a verdict, under --wrong-share: 9;",
        "--wrong-share",
        all_called_right,
    ),
}


def refused(folder, model, flags, seen, mend, prepare):
    """The run is as it was, and the message says what was seen and how to go on."""
    run = folder / "runs" / "own"
    prepare(run)
    before = contents(folder) | {"manifest": manifest(run)}
    done = run_script(folder, *BUILD, model, *flags)
    assert (
        done.returncode == 2
        and seen in done.stderr
        and mend in done.stderr
        and "Traceback" not in done.stderr
    ), done.stderr
    assert contents(folder) | {"manifest": manifest(run)} == before


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_leaves_what_stands(everything, tiny_model, tmp_path, mistake):
    shutil.copytree(everything.folder, tmp_path, dirs_exist_ok=True)
    refused(tmp_path, tiny_model, *mistake)


def test_a_mistake_after_the_comparison_leaves_its_matches_as_they_were(
    everything, tiny_model, tmp_path
):
    """03_contaminated.jsonl speaks of the data that stands, which 03 held against another test set."""
    shutil.copytree(everything.folder, tmp_path, dirs_exist_ok=True)
    write_rows(tmp_path / "one" / "test.jsonl", EXAM[:1])
    refused(
        tmp_path,
        tiny_model,
        ["--decontaminate", "one/test.jsonl", "--max-tokens", 1],
        "is left; the reasons",
        "the reasons are above",
        nothing,
    )


# --- several settings, a run's own base, the base's own critiques -----------------------------------------------------------

N = 24
ASKED = [
    make_row(
        f"What is {n} + 1?",
        f"It is {n + 1 + n % 2}.",
        str(n + 1),
        "own",
        "somebody",
        finish_reason="stop",
    )
    for n in range(N)
]
# Half of what the model learns to write has no verdict, so that a trained one gives both kinds as its own critiques.
SHORT = [
    critiqued(row, A, *[("So.\n\nConclusion: right [END]", "right"), ("?", "wrong")][n % 2])
    for n, row in enumerate(ASKED)
]
SHORT += [critiqued(row, B, "No.\n\nConclusion: wrong [END]", "wrong") for row in ASKED[:4]]
TRAIN = ["--global-batch", 4, "--epochs", 10, "--learning-rate", "1e-2", "--save-every", 0]
HALF, WHOLE = (["--rows", 8, "--seed", 1, "--suffix", "half"], ["--rows", 8, "--seed", 2])
BUILD_OWN = [*BUILD, "base"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model):
    """A run with a base that 03 built with two settings and 04 trained on one arm of each: its folder and what was printed. To be copied."""
    folder = tmp_path_factory.mktemp("settings")
    run = folder / "runs" / "own"
    runs.make_base(run, tiny_model)
    write_rows(run / "01_responses.jsonl", ASKED)
    write_rows(run / "02_critiques.jsonl", SHORT)
    write_rows(
        run / "02_answers.jsonl",
        [
            {"question_id": row["question_id"], "teacher": A, "answer": f"{row['gold']}."}
            for row in ASKED
        ],
    )
    (run / "02.run.json").write_text(json.dumps({"teachers": [A], "inputs": {}}))
    printed = [must_run(folder, *BUILD_OWN, *flags) for flags in (HALF, WHOLE)]
    printed.append(
        must_run(folder, "04_train.py", "--name", "own", "--arms", "cft-half", "cft", *TRAIN)
    )
    return SimpleNamespace(folder=folder, run=run, printed=printed)


@pytest.fixture
def copied(settings, tmp_path):
    shutil.copytree(settings.folder, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs" / "own"


def test_another_seed_takes_other_rows_in_each_arm(settings):
    for arm in ("sft", "sft-verified", "sft-teacher", "cft"):
        one, two = (
            {row["response_id"] for row in rows(settings.run / "03_data" / f"{name}.jsonl")}
            for name in (f"{arm}-half", arm)
        )
        assert len(one) == len(two) == 8 and one != two, arm


def test_arms_of_two_settings_stand_beside_each_other_and_are_trained_in_one_call(settings):
    made = manifest(settings.run)
    stand = {path.stem for path in (settings.run / "03_data").iterdir()}
    assert set(made["rows"]) | set(made["earlier"]) == stand and set(made["rows"]) == {
        arm for arm in stand if not arm.endswith("-half")
    }
    for arm, about in made["earlier"].items():
        assert arm.endswith("-half") and about["sha256"] == file_hash(
            settings.run / "03_data" / f"{arm}.jsonl"
        )
        assert (about["config"]["suffix"], about["config"]["seed"], about["config"]["rows"]) == (
            "half",
            1,
            8,
        )
        assert list(about["inputs"]) == ["runs/own/02_critiques.jsonl", "runs/own/02_answers.jsonl"]
        assert {row["arm"] for row in rows(settings.run / "03_data" / f"{arm}.jsonl")} == {arm}
    assert "cft-half: 8 rows" in settings.printed[0] and "\ncft: 8 rows" in settings.printed[1]
    assert "sft-half, sft-verified-half, sft-teacher-half, cft-half, " in settings.printed[1]
    assert manifest(settings.run, "04")["checkpoints"] == {
        "cft-half": ["step-000020"],
        "cft": ["step-000020"],
    }
    for arm in ("cft-half", "cft"):
        trained = json.loads((settings.run / "04_train" / arm / "settings.json").read_text())
        assert trained["data_sha256"] == [file_hash(settings.run / "03_data" / f"{arm}.jsonl")]


def test_a_training_set_that_was_changed_or_removed_is_no_longer_offered(copied):
    """The others of those settings are."""
    folder, stood = copied.parent.parent, set(manifest(copied)["earlier"])
    changed = copied / "03_data" / "cft-half.jsonl"
    write_rows(changed, rows(changed)[1:])
    (copied / "03_data" / "sft-half.jsonl").unlink()
    must_run(folder, *BUILD_OWN, *WHOLE)
    assert set(manifest(copied)["earlier"]) == stood - {"cft-half", "sft-half"}
    done = run_script(
        folder,
        "04_train.py",
        "--name",
        "own",
        "--dry-run",
        "--arms",
        "cft-half",
        "sft-half",
        *TRAIN,
    )
    assert (
        done.returncode == 2
        and "03 built no arms ['cft-half', 'sft-half']" in done.stderr
        and "Give some of those: --arms sft" in done.stderr
    )
    assert "sft-verified-half" in done.stderr


def test_a_training_set_that_was_changed_since_is_not_trained_on_unsaid(copied):
    """A line was taken out by hand: 03.run.json, the page and the exports speak of another set."""
    changed = copied / "03_data" / "cft.jsonl"
    write_rows(changed, rows(changed)[1:])
    done = run_script(
        copied.parent.parent, "04_train.py", "--name", "own", "--dry-run", "--arms", "cft", *TRAIN
    )
    assert done.returncode == 0 and "note: cft.jsonl is not as 03 wrote it" in done.stdout


SELF_CRITIQUE = [
    "02_critique.py",
    "--preset",
    "paper",
    "--name",
    "own",
    "--max-new-tokens",
    20,
    "--self-critique",
]


def test_a_base_that_writes_no_critique_leaves_the_teachers_rows(copied):
    """It is untrained. Its arm is then refused, and the others are built as before."""
    folder, stood, before = (
        copied.parent.parent,
        (copied / "02_critiques.jsonl").read_bytes(),
        outputs(copied),
    )
    done = run_script(folder, *SELF_CRITIQUE, "base")
    assert done.returncode == 3 and "base gave not one verdict on 24 responses" in done.stderr
    assert (copied / "02_critiques.jsonl").read_bytes() == stood
    assert [(row["id"], row["teacher"]) for row in rows(copied / "02_failed.jsonl")] == [
        (row["id"], SELF) for row in ASKED
    ]
    done = run_script(folder, *BUILD_OWN, *WHOLE, "--arms", "cft", "cft-self-critique")
    assert (
        done.returncode == 2
        and "cft-self-critique: no row (rows with a critique by the base itself: 0; --rows asks for 8)"
        in done.stderr
    )
    assert outputs(copied) == before
    assert (
        "have no critique" not in must_run(folder, *BUILD_OWN, *WHOLE) and outputs(copied) == before
    )


@pytest.fixture(scope="module")
def self_critiqued(settings, tmp_path_factory):
    """A trained checkpoint has critiqued the responses itself, and 03 has built from what there is."""
    folder = tmp_path_factory.mktemp("self")
    shutil.copytree(settings.folder, folder, dirs_exist_ok=True)
    printed = [
        must_run(
            folder,
            *SELF_CRITIQUE,
            "runs/own/04_train/cft/step-000020",
            "--temperature",
            1,
            "--top-p",
            1,
        ),
        must_run(
            folder,
            *BUILD_OWN,
            "--seed",
            2,
            "--rows",
            16,
            "--arms",
            "cft",
            "mix",
            "cft-self-critique",
            "--mix",
            "own",
        ),
    ]
    return SimpleNamespace(run=folder / "runs" / "own", printed=printed)


def test_critiques_of_the_model_itself_are_an_arm_of_their_own(self_critiqued):
    """Those without a verdict are counted, status 0; the base is a teacher of no other arm."""
    run, critiques = self_critiqued.run, rows(self_critiqued.run / "02_critiques.jsonl")
    own, failed = (
        [row for row in critiques if row["teacher"] == SELF],
        rows(run / "02_failed.jsonl"),
    )
    assert (
        0 < len(own) < N
        and len(own) + len(failed) == N
        and {row["teacher"] for row in failed} == {SELF}
    )
    assert (
        f"{len(own)} critiques, " in self_critiqued.printed[0]
        and f"{len(failed)} rows failed" in self_critiqued.printed[0]
    )
    assert manifest(run, "02")["report"]["failed"] == len(failed) and [
        row for row in critiques if row["teacher"] != SELF
    ] == sorted(SHORT, key=lambda row: [r["id"] for r in ASKED].index(row["id"]))
    cft, by_itself = (
        rows(run / "03_data" / f"{arm}.jsonl") for arm in ("cft", "cft-self-critique")
    )
    assert {row["completion"][0]["content"] for row in cft} <= {
        f"Critique:\n{row['critique']}" for row in SHORT
    }
    said = {row["id"]: f"Critique:\n{row['critique']}" for row in own}
    by_itself = {row["response_id"]: row["completion"][0]["content"] for row in by_itself}
    assert by_itself == said or len(by_itself) == 16 and by_itself.items() <= said.items()
    shared = list(dict.fromkeys(row["response_id"] for row in cft if row["response_id"] in said))
    assert (
        shared and [response for response in by_itself if response in shared] == shared
    )  # in the order of cft


def test_a_mix_of_a_run_with_itself_never_has_a_question_twice(self_critiqued):
    """The other half are the questions that the critiques leave over, fewer than were asked for, which is said."""
    run, question_of = self_critiqued.run, {row["id"]: row["question"] for row in ASKED}
    halves = {
        kind: [
            question_of[row["response_id"]]
            for row in rows(run / "03_data" / "mix.jsonl")
            if row["completion"][0]["content"].startswith("Critique:") is kind
        ]
        for kind in (True, False)
    }
    assert len(halves[True]) == 16 and len(halves[False]) == len(set(halves[False])) > 0
    assert set(halves[False]) == set(question_of.values()) - set(halves[True])
    assert re.search(
        r"^mix: \d+ rows of 24 questions, .* --rows asks for 32\)$", self_critiqued.printed[1], re.M
    )
    assert "runs/own/01_responses.jsonl" in manifest(run)["inputs"]


def test_the_teachers_of_the_last_run_are_still_those_after_a_self_critique(self_critiqued):
    """03 takes those of 02's last run (here teacher-a), and the base is none."""
    assert manifest(self_critiqued.run)["teachers"] == [A]


# --- 01: samples of a source, beside other sources and generators -----------------------------------------------------------

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
    """01 again and again in one run: [(rows, manifest, printed)] after each command."""
    folder = tmp_path_factory.mktemp("sampled")
    write_rows(folder / "own.jsonl", OWN_RESPONSES)
    write_rows(
        folder / "asked.jsonl", [{"question": question} for question in ("One?", "Two?", "Three?")]
    )

    def says(body):
        question = re.search(r"<\|im_start\|>user\n(.*)<\|im_end\|>", body["prompt"])[1]
        return DRAWN[body["model"], question]

    found, own, asked = (
        [],
        ["--source", "own.jsonl", "--rows", 5],
        ["--source", "asked.jsonl", "--add", "--base-url"],
    )
    with FaultServer(text=says) as server:
        for flags in (
            [*own, "--seed", 4],
            [*asked, server.url, "--model", "g1"],
            [*asked, server.url, "--model", "g2"],
            [*own, "--seed", 5, "--add"],
            [*own, "--seed", 4],
        ):
            printed = must_run(folder, "01_sample.py", "--preset", "paper", "--name", "own", *flags)
            found.append(
                (
                    rows(folder / "runs" / "own" / "01_responses.jsonl"),
                    manifest(folder / "runs" / "own", "01"),
                    printed,
                )
            )
    return found


def drawn(rows):
    return [(row["generator"], row["response"]) for row in rows]


def test_a_sample_of_a_local_file_depends_on_the_seed_alone(sampled):
    first, another, again = sampled[0][0], sampled[3][0][-5:], sampled[4][0]
    assert first == again and {row["source"] for row in first} == {"own.jsonl"}
    assert len(first) == len(another) == 5 and first != another
    order = [row["response"] for row in OWN_RESPONSES]
    assert [row["response"] for row in another] == sorted(
        (row["response"] for row in another), key=order.index
    )
    assert "5 of 12 rows, a random sample (--rows)" in sampled[0][2]


def test_responses_of_other_generators_stand_beside_the_first(sampled):
    """Thinking is stripped, an answer that never comes is counted as empty, and so is a response that stands already."""
    first = sampled[0][0]
    assert sampled[1][0][:5] == first and drawn(sampled[1][0][5:]) == [
        ("g1", "It is 1."),
        ("g1", "It is 3."),
    ]
    assert "2 responses, 1 empty, or all of it thinking" in sampled[1][2]
    assert sampled[2][0][:7] == sampled[1][0] and drawn(sampled[2][0][7:]) == [
        ("g2", "It is one."),
        ("g2", "It is two."),
    ]
    assert [one["equal"] for one in sampled[2][1]["commands"]] == [0, 0, 1] and sampled[2][1][
        "rows"
    ] == 9
    assert (
        "7 rows of other sources and models stand before them; 0 that" in sampled[2][2]
        and "1 rows are equal to one that stands" in sampled[2][2]
    )
    assert all(row["id"] == content_id(row["question"], row["response"]) for row in sampled[2][0])


def test_a_source_that_is_sampled_again_replaces_its_own_rows(sampled):
    """Here the first of three, whose place is then the last; the manifest keeps what made the others."""
    assert (
        sampled[3][0][:4] == sampled[2][0][5:]
        and {row["source"] for row in sampled[3][0][4:]} == {"own.jsonl"}
        and len(sampled[3][0]) == 9
    )
    assert [
        (of["config"]["source"], of["config"]["model"], of["rows"])
        for of in sampled[3][1]["commands"]
    ] == [("asked.jsonl", "g1", 2), ("asked.jsonl", "g2", 2), ("own.jsonl", None, 5)]
    assert "5 that this source and model gave before are replaced" in sampled[3][2]


def test_without_add_all_rows_are_replaced(sampled):
    assert {row["source"] for row in sampled[4][0]} == {"own.jsonl"} and [
        of["rows"] for of in sampled[4][1]["commands"]
    ] == [5]


def test_golds_that_conflict_are_said_by_03_whoever_drew_or_judged_the_responses(tmp_path):
    """A file of questions with two golds for one: both come through 01 --model and 02, asked and paid once, and no response is held
    against either, also not after another teacher was asked."""
    write_rows(
        tmp_path / "asked.jsonl",
        [
            {"question": question, "gold": gold}
            for question, gold in (("One?", 1), ("Two?", 2), ("One?", 11), ("Two?", None))
        ],
    )
    with FaultServer(text=lambda body: "It is 1.\n\nConclusion: right [END]") as server:
        for flags in (
            ["01_sample.py", "--preset", "paper", "--source", "asked.jsonl", "--model", "m"],
            ["02_critique.py", "--model", "a"],
            ["02_critique.py", "--model", "b"],
        ):
            must_run(tmp_path, *flags, "--name", "own", "--base-url", server.url)
        assert server.paid() == 6 == len(server.asked)
    run = tmp_path / "runs" / "own"
    for teachers in ("a", "b", "all"):
        printed = must_run(
            tmp_path, "03_build.py", "--name", "own", "--teacher", teachers, "--arms", "cft"
        )
        assert (
            "note: 1 questions have conflicting golds" in printed
            and "graded 1, timed out 0, without a gold 0" in (run / "03_report.md").read_text()
        )
        assert len(rows(run / "03_data" / "cft.jsonl")) == 2  # both teachers say the same


def test_acemath_says_its_licence_also_where_it_was_downloaded(tmp_path):
    """From a folder of the hub dataset's name in the working directory, which is read as the hub is."""
    folder = tmp_path / "nvidia" / "AceMath-Instruct-Training-Data"
    (folder / "data").mkdir(parents=True)
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(
            [{"messages": [{"role": "user", "content": "2+2?"}], "answer": "4"}]
        ),
        folder / "data" / "math.parquet",
    )
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: math_sft\n    path: data/*.parquet\n---\n"
    )
    printed = must_run(
        tmp_path,
        "01_sample.py",
        "--preset",
        "paper",
        "--name",
        "ace",
        "--source",
        "acemath",
        HF_HOME=str(tmp_path / "cache"),
    )
    assert "licence of acemath: CC-BY-NC-4.0: for non-commercial use only" in printed
    (row,) = rows(tmp_path / "runs" / "ace" / "01_responses.jsonl")
    assert (row["question"], row["response"], row["source"]) == ("2+2?", "4", "acemath")
    downloaded = must_run(
        tmp_path,
        "01_sample.py",
        "--preset",
        "paper",
        "--name",
        "file",
        "--source",
        f"acemath={folder / 'data' / 'math.parquet'}",
    )
    assert "licence of acemath: CC-BY-NC-4.0" in downloaded and rows(
        tmp_path / "runs" / "file" / "01_responses.jsonl"
    ) == [row]


# --- One-Shot CFT in miniature ------------------------------------------------------------------------------------------


def test_one_question_many_responses_two_teachers(tmp_path, tiny_model):
    """A row for each response and teacher, a checkpoint for each epoch; the run keeps its preset."""
    run = tmp_path / "runs" / "one"
    runs.make_base(run, tiny_model)
    must_run(
        tmp_path,
        "01_sample.py",
        "--preset",
        "tiny-one-shot",
        "--name",
        "one",
        "--base-steps",
        1,
        "--samples",
        6,
        "--max-new-tokens",
        24,
    )
    responses = rows(run / "01_responses.jsonl")
    assert len({row["question_id"] for row in responses}) == 1 and {
        row["generator"] for row in responses
    } == {"base"}
    assert 2 <= len(responses) == len({row["id"] for row in responses}) <= 6
    for style in ("full", "brief"):
        must_run(tmp_path, "02_critique.py", "--name", "one", "--critique-style", style)
    must_run(tmp_path, "03_build.py", "--name", "one")
    critiques = {
        (row["id"], f"Critique:\n{row['critique']}"): row["teacher"]
        for row in rows(run / "02_critiques.jsonl")
    }
    built = [
        (row["response_id"], critiques[row["response_id"], row["completion"][0]["content"]])
        for row in rows(run / "03_data" / "cft.jsonl")
    ]
    teachers = [f"tiny-teacher:skip=0.1:critique={style}" for style in ("brief", "full")]
    assert sorted(built) == sorted(
        (row["id"], teacher) for row in responses for teacher in teachers
    )
    assert list(manifest(run)["rows"]) == ["cft"]
    must_run(
        tmp_path, "04_train.py", "--name", "one", "--epochs", 2, "--global-batch", len(responses)
    )
    assert manifest(run, "04")["checkpoints"] == {"cft": ["step-000002", "step-000004"]}
    settings = json.loads((run / "04_train" / "cft" / "settings.json").read_text())
    assert (settings["learning_rate"], settings["overlong"], settings["weight_decay"]) == (
        5e-5,
        "drop",
        0.05,
    )
    printed = must_run(
        tmp_path,
        "05_eval.py",
        "--name",
        "one",
        "--limit",
        8,
        "--max-new-tokens",
        12,
        "--batch-size",
        2,
        "--selection",
        "last",
        "--model",
        "cft",
    )
    assert "| tiny | cft | 8 |" in printed
    assert {
        stage: manifest(run, stage)["config"]["preset"] for stage in ("01", "02", "03", "04", "05")
    } == dict.fromkeys(("01", "02", "03", "04", "05"), "tiny-one-shot")
