"""The micro-world: what its sloppy authors get wrong, what its teacher says over HTTP, and how its words become tokens."""

import http.client
import json
import os
import random
import re
import subprocess
import sys

import openai
import pytest
from transformers import AutoTokenizer

from common import grading
from common.core import prompts, verdicts
from common.core.errors import InputError
from common.core.tokenizer import load_tokenizer
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, complete
from common.tiny import base, teacher, world
from common.tiny.world import Problem, calculate
from tests.conftest import ROOT

P = Problem(
    17, (("+", 5), ("-", 7), ("*", 1))
)  # right: 22, 15, 15; sloppy: 12, 15 (2 - 7 borrows nothing: 5 + 10), 15
QUESTION = re.compile(r"Start with \d+(?:\n\(\d\) [-+*] \d)+")


def problems(n, seeds=(0,), split="train"):
    return [problem for seed in seeds for problem in world.problems(split, seed, n)]


@pytest.mark.parametrize(
    "value, op, operand, right, sloppy",
    [
        (17, "+", 5, 22, 12),
        (14, "+", 5, 19, 19),
        (15, "+", 5, 20, 10),
        (9, "+", 9, 18, 8),  # the carry is forgotten
        (23, "-", 7, 16, 26),
        (27, "-", 7, 20, 20),
        (20, "-", 2, 18, 28),
        (9, "-", 9, 0, 0),  # the borrow is forgotten
        (3, "*", 7, 21, 18),
        (3, "*", 6, 18, 15),
        (3, "*", 5, 15, 15),
        (0, "*", 9, 0, 0),
        (1, "*", 9, 9, 8),  # one row short from 6 on
    ],
)
def test_calculations_by_hand(value, op, operand, right, sloppy):
    assert (calculate(value, op, operand), calculate(value, op, operand, sloppy=True)) == (
        right,
        sloppy,
    )


def test_a_chain_its_solution_and_its_critique_by_hand():
    assert (
        world.chain(P) == [22, 15, 15]
        and world.chain(P, sloppy=True) == [12, 15, 15]
        and world.gold(P) == "15"
    )
    assert P.question == "Start with 17\n(1) + 5\n(2) - 7\n(3) * 1"
    assert world.solution(P, [12, 15, 15], {0, 1}) == (
        "Step by step:\n(1) 17 + 5 = 12\n(2) 12 - 7 = 15\n(3) 15 * 1 = 15\nThe answer is \\boxed{ 15 }"
    )
    assert (
        world.solution(P, [22, 15, 15], shown=set())
        == "Step by step:\n(3) 15 * 1 = 15\nThe answer is \\boxed{ 15 }"
    )
    assert world.critique(P, [22, 15, 15], {0: 12, 2: 15}, {0, 1, 2}) == (
        "Check each line:\n(1) 17 + 5 = 22 not 12\n(2) 22 - 7 = 15 not shown\n(3) 15 * 1 = 15 right\n\nConclusion: right [END]"
    )


def test_the_splits_share_no_question_whatever_the_seed():
    found = {split: {p.question for p in problems(100, range(12), split)} for split in world.SPLITS}
    assert all(len(questions) > 600 for questions in found.values())  # of 1,200 drawn
    assert (
        not found["web"] & found["train"]
        and not found["web"] & found["test"]
        and not found["train"] & found["test"]
    )
    ranges = [i for split in world.SPLITS.values() for i in split]
    assert sorted(ranges) == list(range(100))


@pytest.mark.parametrize("split", world.SPLITS)
def test_every_value_is_a_word_of_the_world(split):
    """0 to 29, calculated either way: any other number would be a word that no document holds."""
    found = problems(400, split=split)
    assert len({p.question for p in found}) == 400
    for p in found:
        assert 2 <= len(p.steps) <= 4 and all(
            2 <= operand <= 9 and op in "+-*" for op, operand in p.steps
        )
        assert all(0 <= v <= 29 for v in [p.start, *world.chain(p), *world.chain(p, sloppy=True)])


@pytest.fixture(scope="module")
def documents():
    return world.web_documents(0, 1500) + world.web_documents(1, 200, gappy_share=1.0)


def test_web_documents(documents):
    """None holds a question of the other splits; a quarter are critiques; about 60 % of the authors calculate sloppily."""
    asked = [QUESTION.search(row["prompt"][-1]["content"])[0] for row in documents]
    others = {p.question for split in ("train", "test") for p in problems(300, range(5), split)}
    assert not set(asked) & others
    texts = [row["completion"][0]["content"] for row in documents]
    assert all(int(n) <= 29 for text in texts for n in re.findall(r"\d+", text))
    assert 0.2 < sum(t.startswith("Critique:\n") for t in texts) / len(texts) < 0.3
    assert all(
        t.startswith("Critique:\n")
        and verdicts.parse_verdict(t) != "unparsed"
        or t.startswith("Step by step:\n")
        for t in texts
    )
    assert {m["role"] for row in documents for m in row["prompt"]} == {"system", "user"} and len(
        documents[0]["completion"]
    ) == 1
    whole, gappy = [
        [
            t.count("=") == q.count("\n")
            for q, t in zip(asked[a:b], texts[a:b])
            if t.startswith("Step")
        ]
        for a, b in ((0, 1500), (1500, 1700))
    ]
    assert all(whole) and sum(gappy) / len(gappy) < 0.6


def test_forum_rows():
    """80 % sloppy authors leave about 57 % of the answers right (the figure of 01); golds are right, all lines are shown."""
    rows = list(world.forum_rows(0, 600))
    assert [set(row) for row in rows] == [{"question", "response", "gold"}] * 600
    assert 0.51 < sum(grading.is_correct(row["response"], row["gold"]) for row in rows) / 600 < 0.63
    assert [row["gold"] for row in rows] == [world.gold(p) for p in problems(600)]
    assert all(row["response"].count("=") == row["question"].count("\n") for row in rows)


def test_the_world_is_the_same_in_every_process_and_another_for_another_seed():
    code = "import json; from common.tiny import world; print(json.dumps([list(world.forum_rows(3, 20)), world.web_documents(3, 20)]))"
    made = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        ).stdout
        for seed in "12"
    ]
    assert made[0] == made[1] and json.loads(made[0]) == [
        list(world.forum_rows(3, 20)),
        world.web_documents(3, 20),
    ]
    assert list(world.forum_rows(4, 20)) != list(world.forum_rows(3, 20))


SLOPPY = (
    "Step by step:\n(1) 17 + 5 = 12\n(2) 12 - 7 = 15\n(3) 15 * 1 = 16\nThe answer is \\boxed{ 16 }"
)
FULL = "Check each line:\n(1) 17 + 5 = 22 not 12\n(2) 22 - 7 = 15 right\n(3) 15 * 1 = 15 not 16\n\nConclusion: wrong [END]"


@pytest.mark.parametrize(
    "style, skip, text",
    [
        ("full", 0.9, FULL),
        ("terse", 0.0, FULL),
        ("verdict", 0.0, "Conclusion: wrong [END]"),
        ("terse", 1.0, "Check each line:\n(1) 17 + 5 = 22 not 12\n\nConclusion: wrong [END]"),
        (
            "brief",
            0.0,
            "Check each line:\n(1) 17 + 5 = 22 not 12\n(3) 15 * 1 = 15 not 16\n\nConclusion: wrong [END]",
        ),
    ],
)
def test_each_style_of_critique_by_hand(style, skip, text):
    assert teacher.critique(P, SLOPPY, skip, style) == text


@pytest.mark.parametrize("style", teacher.CRITIQUES)
def test_the_verdict_is_whether_the_answer_is_the_gold(style):
    """On forum answers, and on answers that are changed, missing or at odds with their last line: the box alone counts."""
    rng = random.Random(0)
    for row, p in zip(world.forum_rows(0, 400), problems(400)):
        other = row["response"].rpartition("{")[0] + "{ %d }" % rng.randint(0, 29)
        for response in (
            row["response"],
            other,
            other.replace("= " + row["gold"], "= 1"),
            row["response"].split("\nThe answer")[0],
            "?",
        ):
            boxed = re.findall(r"\\boxed\{ (\d+) \}", response)
            expected = "right" if boxed and boxed[-1] == row["gold"] else "wrong"
            assert verdicts.parse_verdict(teacher.critique(p, response, 0.3, style)) == expected, (
                response
            )


def test_a_teacher_who_makes_errors_calculates_as_sloppily_as_the_web():
    """In about that share of the critiques, the same ones each time; where nothing can go wrong its critique is right all the same."""
    mistaken = teacher.critique(P, SLOPPY, 0.0, "full", errors=1.0)
    assert (
        mistaken
        == "Check each line:\n(1) 17 + 5 = 12 right\n(2) 12 - 7 = 15 right\n(3) 15 * 1 = 15 not 16\n\nConclusion: wrong [END]"
    )
    said = [
        [
            teacher.critique(p, row["response"], 0.0, "full", errors)
            for row, p in zip(world.forum_rows(0, 2000), problems(2000))
        ]
        for errors in (0.0, 0.3, 1.0)
    ]
    can_err = sum(a != c for a, c in zip(said[0], said[2]))
    assert (
        can_err > 1000 and abs(sum(a != b for a, b in zip(said[0], said[1])) / can_err - 0.3) < 0.07
    )
    assert all(b in (a, c) for a, b, c in zip(*said))
    name = teacher.model_name(0.1, "full", 0.3)
    assert (
        name == "tiny-teacher:skip=0.1:critique=full:errors=0.3"
        and teacher.model_name(0.1, "full") == "tiny-teacher:skip=0.1:critique=full"
    )
    row, p = next(world.forum_rows(0, 1)), problems(1)[0]
    for one_shot in (False, True):  # it answers both prompts
        asked = prompts.teacher_critique_prompt(row["question"], row["response"], one_shot)
        assert teacher.reply(name, asked) == teacher.critique(
            p, row["response"] + "\n", 0.1, "full", 0.3
        )


def test_a_terse_critique_always_shows_the_first_wrong_line():
    for row, p in zip(world.forum_rows(1, 200), problems(200, [1])):
        full = teacher.critique(p, row["response"], 0.0, "full").split("\n")
        wrong = [line for line in full if " not " in line][:1]
        for skip in (0.3, 0.7, 1.0):
            terse = teacher.critique(p, row["response"], skip, "terse").split("\n")
            assert set(wrong) <= set(terse) <= set(full) and terse[-1] == full[-1]


def test_the_teachers_own_answers():
    """Right, whole at skip 0; a larger skip leaves out the same lines and more, never the last one."""
    for p in problems(300):
        shown = [teacher.answer(p, skip).split("\n") for skip in (0.0, 0.1, 0.2, 0.5, 1.0)]
        assert (
            "\n".join(shown[0]) == world.solution(p, world.chain(p), set(range(len(p.steps))))
            and len(shown[-1]) == 3
        )
        assert all(
            set(more) >= set(less) and less[-2:] == shown[0][-2:]
            for more, less in zip(shown, shown[1:])
        )
    gaps = [len(p.steps) + 2 - len(teacher.answer(p, 0.3).split("\n")) for p in problems(300)]
    assert sum(gaps) / sum(len(p.steps) - 1 for p in problems(300)) == pytest.approx(
        0.3, abs=0.06
    )  # n = 600: sd 0.019


@pytest.fixture(scope="module")
def served():
    url, stop = teacher.serve()
    yield url
    stop()


FOREIGN = [
    prompts.teacher_critique_prompt("What is 1+1?", "2"),
    prompts.teacher_answer_prompt("Name a prime."),
    [{"role": "user", "content": ""}],
]


def ask(url, asked, folder):
    """The tiny teacher's answers, through the engine of 02."""
    engine = Client(teacher.model_name(0.0, "full"), url, concurrency=4)
    engine.tries = 1
    with Journal(folder / "journal.jsonl") as journal:
        return complete(engine, [Request(p) for p in asked], Sampling(0.3, 0.95, 99), journal)


def test_served_through_the_engine_of_02(served, tmp_path):
    """Critiques, own answers and a foreign question, which the engine reports as that row's failure."""
    asked = [
        prompts.teacher_critique_prompt(P.question, SLOPPY),
        prompts.teacher_answer_prompt(P.question),
        FOREIGN[0],
    ]
    critique, own, foreign = ask(served, asked, tmp_path)
    assert (critique["text"], critique["finish_reason"]) == (FULL, "stop") and critique["usage"][
        "completion_tokens"
    ] > 10
    assert "usd" not in critique and critique["model"] == teacher.model_name(0.0, "full")
    assert own["text"] == world.solution(P, world.chain(P), {0, 1, 2})
    assert foreign["error"] == "400 the tiny teacher knows only the micro-world's questions"


def test_a_foreign_question_is_answered_with_400(served):
    client = openai.OpenAI(base_url=served, api_key="none", max_retries=0)
    for foreign in FOREIGN:
        with pytest.raises(openai.BadRequestError, match="knows only the micro-world"):
            client.chat.completions.create(model=teacher.model_name(0.1, "full"), messages=foreign)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model="gpt-4o", messages=prompts.teacher_answer_prompt(P.question)
        )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"model": 5, "messages": []}',
        b'{"model": "tiny-teacher:skip=0", "messages": [{}]}',
        b'{"model": "tiny-teacher:skip=x:critique=full", "messages": [{"content": "Start with 1\\n(1) + 1"}]}',
        b'{"model": "tiny-teacher:skip=0:critique=full", "messages": [{"content": null}]}',
    ],
)
def test_a_broken_request_is_answered_with_400(served, body):
    connection = http.client.HTTPConnection(served.split("/")[2], timeout=20)
    connection.request("POST", "/v1/chat/completions", body)
    assert connection.getresponse().status == 400
    connection.close()


def test_a_proxy_in_the_environment_is_not_asked(served, monkeypatch, tmp_path):
    """The default run needs no network; many offices set a proxy, which cannot reach this machine's loopback."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    (answer,) = ask(served, [prompts.teacher_answer_prompt(P.question)], tmp_path)
    assert answer["text"] == world.solution(P, world.chain(P), {0, 1, 2})


@pytest.fixture(scope="module")
def words():
    return base.build_tokenizer()


def test_a_word_is_one_token(words):
    """By hand: step by step, (1), 12, +, 7, =, 19, the answer is \\boxed{, 19, }, [end of text]: eleven."""
    text = "Step by step:\n(1) 12 + 7 = 19\nThe answer is \\boxed{ 19 }<|im_end|>"
    assert [words.decode([i]) for i in words(text).input_ids] == [
        "Step by step:",
        "\n(1)",
        " 12",
        " +",
        " 7",
        " =",
        " 19",
        "\nThe answer is \\boxed{",
        " 19",
        " }",
        "<|im_end|>",
    ]


def test_documents_are_whole_words_and_come_back(words, documents):
    """An id below 256 is a byte: a document with one holds a word that the tokenizer lacks, and rows grow long."""
    for row in documents[:300] + documents[-50:]:
        text = prompts.render(row["prompt"], "chatml") + prompts.render_completion(
            row["completion"][0]["content"], "chatml", words
        )
        ids = words(text).input_ids
        assert min(ids) >= 256 and words.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Any other text: naïve ½ 🙂 한.\n\n",
        "  12345 \t(9) x",
        "Start with 300",
        "\x00\u2028 <|im_start|>",
    ],
)
def test_foreign_text_falls_into_bytes_and_comes_back(words, text):
    assert words.decode(words(text).input_ids) == text


def test_the_saved_tokenizer_is_read_back_identically(words, tiny_model, documents):
    """AutoTokenizer chooses its own class for a Qwen2 model; a user's server will do the same."""
    texts = [
        prompts.render(row["prompt"], "chatml") + row["completion"][0]["content"]
        for row in documents[:100]
    ] + ["naïve ½\n 300"]
    for again in (AutoTokenizer.from_pretrained(tiny_model), load_tokenizer(tiny_model)):
        assert [again(t).input_ids for t in texts] == [words(t).input_ids for t in texts] and len(
            again
        ) == len(words)
        assert (again.eos_token_id, again.pad_token_id) == (
            words.eos_token_id,
            words.pad_token_id,
        ) and again.chat_template == prompts.JINJA["chatml"]


def test_a_base_that_stands_is_not_made_again_nor_taken_for_another(tmp_path):
    stands = {"seed": 0, "steps": 5, "gappy_share": 0.0, "accuracy": 0.5, "extra_steps": 0}
    (tmp_path / "base.json").write_text(json.dumps(stands))
    assert base.pretrain(tmp_path, 0, 5) == 0.5
    for other in ((1, 5, 0.0), (0, 6, 0.0), (0, 5, 0.1)):
        with pytest.raises(InputError, match="another --name"):
            base.pretrain(tmp_path, *other)


def test_a_base_is_made_whole(tmp_path, monkeypatch):
    """The path of the default run's first two minutes, in two steps: pretraining, its score on 200 questions, the folder."""
    monkeypatch.setattr(
        base, "PASSED", 0.0
    )  # two steps teach nothing; do not train on until it passes
    accuracy = base.pretrain(tmp_path / "01_base", 3, 2)
    assert 0 <= accuracy < 0.2
    assert json.loads((tmp_path / "01_base" / "base.json").read_text()) == {
        "seed": 3,
        "steps": 2,
        "gappy_share": 0.0,
        "accuracy": accuracy,
        "extra_steps": 0,
    }
    assert (tmp_path / "01_base" / "model.safetensors").exists() and not (
        tmp_path / "01_base.part"
    ).exists()
