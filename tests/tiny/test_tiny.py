"""The micro-world: its sloppy authors, its teacher over HTTP, and its words as tokens."""

import doctest
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

# Right: 22, 15, 15; sloppy: 12, 15 (2 - 7 borrows nothing: 5 + 10), 15
P = Problem(17, (("+", 5), ("-", 7), ("*", 1)))
QUESTION = re.compile(r"Start with \d+(?:\n\(\d\) [-+*] \d)+")


def problems(n, seeds=(0,), split="train"):
    return [problem for seed in seeds for problem in world.problems(split, seed, n)]


def test_calculations_by_hand():
    cases = [  # value, operator, operand, right, sloppy
        (17, "+", 5, 22, 12),  # the carry is forgotten
        (14, "+", 5, 19, 19),
        (15, "+", 5, 20, 10),
        (9, "+", 9, 18, 8),
        (23, "-", 7, 16, 26),  # the borrow is forgotten
        (27, "-", 7, 20, 20),
        (20, "-", 2, 18, 28),
        (9, "-", 9, 0, 0),
        (3, "*", 7, 21, 18),  # one row short from 6 on
        (3, "*", 6, 18, 15),
        (3, "*", 5, 15, 15),
        (0, "*", 9, 0, 0),
        (1, "*", 9, 9, 8),
    ]
    for value, op, operand, right, sloppy in cases:
        case = f"{value} {op} {operand}"
        assert calculate(value, op, operand) == right, case
        assert calculate(value, op, operand, sloppy=True) == sloppy, case


def test_a_chain_its_solution_and_its_critique_by_hand():
    assert world.chain(P) == [22, 15, 15]
    assert world.chain(P, sloppy=True) == [12, 15, 15]
    assert world.gold(P) == "15"
    assert P.question == "Start with 17\n(1) + 5\n(2) - 7\n(3) * 1"
    assert world.solution(P, [12, 15, 15], {0, 1}) == (
        "Step by step:\n(1) 17 + 5 = 12\n(2) 12 - 7 = 15\n(3) 15 * 1 = 15\n"
        "The answer is \\boxed{ 15 }"
    )
    last_line = world.solution(P, [22, 15, 15], shown=set())
    assert last_line == "Step by step:\n(3) 15 * 1 = 15\nThe answer is \\boxed{ 15 }"
    assert world.critique(P, [22, 15, 15], {0: 12, 2: 15}, {0, 1, 2}) == (
        "Check each line:\n(1) 17 + 5 = 22 not 12\n(2) 22 - 7 = 15 not shown\n"
        "(3) 15 * 1 = 15 right\n\nConclusion: right [END]"
    )


def test_docstrings_are_true():
    assert doctest.testmod(world) == (0, 3)


def test_the_splits_share_no_question_whatever_the_seed():
    questions = {}
    for split in world.SPLITS:
        questions[split] = {p.question for p in problems(100, range(12), split)}
        assert len(questions[split]) > 600  # of 1,200 drawn
    assert not questions["web"] & questions["train"]
    assert not questions["web"] & questions["test"]
    assert not questions["train"] & questions["test"]
    percentiles = [i for split in world.SPLITS.values() for i in split]
    assert sorted(percentiles) == list(range(100))


@pytest.mark.parametrize("split", world.SPLITS)
def test_every_value_is_a_word_of_the_world(split):
    """0 to 29, calculated either way: any other number is a word that no document holds."""
    drawn = problems(400, split=split)
    assert len({p.question for p in drawn}) == 400
    for p in drawn:
        assert 2 <= len(p.steps) <= 4
        assert all(op in "+-*" and 2 <= operand <= 9 for op, operand in p.steps)
        values = [p.start, *world.chain(p), *world.chain(p, sloppy=True)]
        assert min(values) >= 0 and max(values) <= 29


@pytest.fixture(scope="module")
def documents():
    return world.web_documents(0, 1500) + world.web_documents(1, 200, gappy_share=1.0)


def whole_solutions(rows):
    """Return for each solution among the rows whether it shows every line of its problem."""
    whole = []
    for row in rows:
        question = QUESTION.search(row["prompt"][-1]["content"])[0]
        text = row["completion"][0]["content"]
        if text.startswith("Step by step:\n"):
            whole.append(text.count("=") == question.count("\n"))
    return whole


def test_web_documents(documents):
    """None holds a question of another split; a quarter are critiques."""
    questions = {QUESTION.search(row["prompt"][-1]["content"])[0] for row in documents}
    for split in ("train", "test"):
        assert not questions & {p.question for p in problems(300, range(5), split)}
    texts = [row["completion"][0]["content"] for row in documents]
    critiques = [text for text in texts if text.startswith("Critique:\n")]
    solutions = [text for text in texts if text.startswith("Step by step:\n")]
    assert len(critiques) + len(solutions) == len(texts)
    assert 0.2 < len(critiques) / len(texts) < 0.3
    assert all(verdicts.parse_verdict(text) != "unparsed" for text in critiques)
    assert all(int(n) <= 29 for text in texts for n in re.findall(r"\d+", text))
    assert {m["role"] for row in documents for m in row["prompt"]} == {"system", "user"}
    assert len(documents[0]["completion"]) == 1
    assert all(whole_solutions(documents[:1500]))
    gappy = whole_solutions(documents[1500:])
    assert sum(gappy) / len(gappy) < 0.6


def test_forum_rows():
    """80% sloppy authors leave about 57% of the answers right (the figure of 01).

    Golds are right, all lines are shown.
    """
    rows = list(world.forum_rows(0, 600))
    assert [set(row) for row in rows] == [{"question", "response", "gold", "generator"}] * 600
    n_correct = sum(grading.is_correct(row["response"], row["gold"]) for row in rows)
    assert 0.51 < n_correct / 600 < 0.63
    assert [row["gold"] for row in rows] == [world.gold(p) for p in problems(600)]
    assert all(row["response"].count("=") == row["question"].count("\n") for row in rows)


def test_the_world_is_the_same_in_every_process_and_another_for_another_seed():
    code = (
        "import json; from common.tiny import world; "
        "print(json.dumps([list(world.forum_rows(3, 20)), world.web_documents(3, 20)]))"
    )
    here = [list(world.forum_rows(3, 20)), world.web_documents(3, 20)]
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        printed = subprocess.check_output(command, cwd=ROOT, env=environment)
        assert json.loads(printed) == here
    assert list(world.forum_rows(4, 20)) != list(world.forum_rows(3, 20))


SLOPPY = (
    "Step by step:\n(1) 17 + 5 = 12\n(2) 12 - 7 = 15\n(3) 15 * 1 = 16\nThe answer is \\boxed{ 16 }"
)
FIRST_WRONG = "Check each line:\n(1) 17 + 5 = 22 not 12\n"
WRONG = "\n\nConclusion: wrong [END]"
FULL = FIRST_WRONG + "(2) 22 - 7 = 15 right\n(3) 15 * 1 = 15 not 16" + WRONG


def test_each_style_of_critique_by_hand():
    cases = [
        ("full", 0.9, FULL),
        ("terse", 0.0, FULL),
        ("terse", 1.0, FIRST_WRONG.strip() + WRONG),
        ("brief", 0.0, FIRST_WRONG + "(3) 15 * 1 = 15 not 16" + WRONG),
        ("verdict", 0.0, WRONG.strip()),
    ]
    for style, skip, text in cases:
        assert teacher.critique(P, SLOPPY, skip, style) == text, style


@pytest.mark.parametrize("style", ["full", "terse", "brief", "verdict"])
def test_the_verdict_is_right_if_the_box_holds_the_gold(style):
    """The box alone counts: on forum answers, and on answers changed, cut or in two minds."""
    rng = random.Random(0)
    for row, p in zip(world.forum_rows(0, 400), problems(400)):
        changed = row["response"].rpartition("{")[0] + f"{{ {rng.randint(0, 29)} }}"
        in_two_minds = changed.replace("= " + row["gold"], "= 1")
        cut = row["response"].split("\nThe answer")[0]
        for response in (row["response"], changed, in_two_minds, cut, "?"):
            boxed = re.findall(r"\\boxed\{ (\d+) \}", response)
            expected = "right" if boxed and boxed[-1] == row["gold"] else "wrong"
            critique = teacher.critique(p, response, 0.3, style)
            assert verdicts.parse_verdict(critique) == expected, response


def test_a_teacher_who_makes_errors_calculates_as_sloppily_as_the_web():
    """It is mistaken in about that share of the critiques, in the same ones each time.

    If nothing can go wrong its critique is right all the same.
    """
    assert teacher.critique(P, SLOPPY, 0.0, "full", errors=1.0) == (
        "Check each line:\n(1) 17 + 5 = 12 right\n(2) 12 - 7 = 15 right\n(3) 15 * 1 = 15 not 16"
        + WRONG
    )
    n_can_err = n_errs = 0
    for row, p in zip(world.forum_rows(0, 2000), problems(2000)):
        right, mixed, mistaken = (
            teacher.critique(p, row["response"], 0.0, "full", errors) for errors in (0.0, 0.3, 1.0)
        )
        assert mixed in (right, mistaken)
        n_can_err += right != mistaken
        n_errs += right != mixed
    assert n_can_err > 1000
    assert n_errs / n_can_err == pytest.approx(0.3, abs=0.07)


def test_the_model_name_holds_the_style_and_both_prompts_are_answered():
    assert teacher.model_name(0.1, "full") == "tiny-teacher:skip=0.1:critique=full"
    name = teacher.model_name(0.1, "full", 0.3)
    assert name == "tiny-teacher:skip=0.1:critique=full:errors=0.3"
    row, p = next(world.forum_rows(0, 1)), problems(1)[0]
    for one_shot in (False, True):
        messages = prompts.teacher_critique_prompt(row["question"], row["response"], one_shot)
        critique = teacher.critique(p, row["response"] + "\n", 0.1, "full", 0.3)
        assert teacher.reply(name, messages) == critique


def test_a_terse_critique_always_shows_the_first_wrong_line():
    for row, p in zip(world.forum_rows(1, 200), problems(200, [1])):
        full = teacher.critique(p, row["response"], 0.0, "full").split("\n")
        first_wrong = [line for line in full if " not " in line][:1]
        for skip in (0.3, 0.7, 1.0):
            terse = teacher.critique(p, row["response"], skip, "terse").split("\n")
            assert set(first_wrong) <= set(terse) <= set(full) and terse[-1] == full[-1]


def test_the_teachers_own_answers():
    """They are right, whole at skip 0; a larger skip leaves out the same lines and more."""
    n_missing = n_lines = 0
    for p in problems(300):
        answers = [teacher.answer(p, skip).split("\n") for skip in (0.0, 0.1, 0.2, 0.5, 1.0)]
        every_line = set(range(len(p.steps)))
        assert "\n".join(answers[0]) == world.solution(p, world.chain(p), every_line)
        assert len(answers[-1]) == 3
        for longer, shorter in zip(answers, answers[1:]):
            assert set(longer) >= set(shorter)
            assert shorter[-2:] == answers[0][-2:]  # never the last line
        n_missing += len(p.steps) + 2 - len(teacher.answer(p, 0.3).split("\n"))
        n_lines += len(p.steps) - 1
    assert n_missing / n_lines == pytest.approx(0.3, abs=0.06)  # n = 600: sd 0.019


@pytest.fixture(scope="module")
def served():
    return teacher.serve()


FOREIGN = [
    prompts.teacher_critique_prompt("What is 1+1?", "2"),
    prompts.teacher_answer_prompt("Name a prime."),
    [{"role": "user", "content": ""}],
]


def ask(url, messages, folder):
    """Return the tiny teacher's answers, through the engine of 02."""
    engine = Client(teacher.model_name(0.0, "full"), url, concurrency=4)
    engine.tries = 1
    with Journal(folder / "journal.jsonl") as journal:
        requests = [Request(prompt) for prompt in messages]
        return complete(engine, requests, Sampling(0.3, 0.95, 99), journal)


def test_served_through_the_engine_of_02(served, tmp_path):
    """Critiques, own answers, and a foreign question, which is reported as that row's failure."""
    messages = [
        prompts.teacher_critique_prompt(P.question, SLOPPY),
        prompts.teacher_answer_prompt(P.question),
        FOREIGN[0],
    ]
    critique, answer, foreign = ask(served, messages, tmp_path)
    assert (critique["text"], critique["finish_reason"]) == (FULL, "stop")
    assert critique["usage"]["completion_tokens"] > 10
    assert "usd" not in critique and critique["model"] == teacher.model_name(0.0, "full")
    assert answer["text"] == world.solution(P, world.chain(P), {0, 1, 2})
    assert foreign["error"] == "400 the tiny teacher knows only the micro-world's questions"


def test_a_foreign_question_is_answered_with_400(served):
    client = openai.OpenAI(base_url=served, api_key="none", max_retries=0)
    name = teacher.model_name(0.1, "full")
    for foreign in FOREIGN:
        with pytest.raises(openai.BadRequestError, match="micro-world"):
            client.chat.completions.create(model=name, messages=foreign)
    messages = prompts.teacher_answer_prompt(P.question)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="gpt-4o", messages=messages)


def test_a_broken_request_is_answered_with_400(served):
    question = '"messages": [{"content": "Start with 1\\n(1) + 1"}]'
    bodies = [
        "",
        "{",
        "[]",
        "{}",
        '{"model": 5, "messages": []}',
        '{"model": "tiny-teacher:skip=0", "messages": [{}]}',
        '{"model": "tiny-teacher:skip=x:critique=full", ' + question + "}",
        '{"model": "tiny-teacher:skip=0:critique=full", "messages": [{"content": null}]}',
    ]
    for body in bodies:
        connection = http.client.HTTPConnection(served.split("/")[2], timeout=20)
        connection.request("POST", "/v1/chat/completions", body)
        assert connection.getresponse().status == 400, body
        connection.close()


def test_a_proxy_in_the_environment_is_not_asked(served, monkeypatch, tmp_path):
    """The default run needs no network.

    Many offices set a proxy, which cannot reach this machine's loopback.
    """
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    (answer,) = ask(served, [prompts.teacher_answer_prompt(P.question)], tmp_path)
    assert answer["text"] == world.solution(P, world.chain(P), {0, 1, 2})


@pytest.fixture(scope="module")
def tokenizer():
    return base.build_tokenizer()


def test_a_word_is_one_token(tokenizer):
    """By hand: step by step, (1), 12, +, 7, =, 19, the answer is \\boxed{, 19, }, end of text."""
    text = "Step by step:\n(1) 12 + 7 = 19\nThe answer is \\boxed{ 19 }<|im_end|>"
    words = ["Step by step:", "\n(1)", " 12", " +", " 7", " =", " 19"]
    words += ["\nThe answer is \\boxed{", " 19", " }", "<|im_end|>"]
    assert [tokenizer.decode([i]) for i in tokenizer(text).input_ids] == words


def test_documents_are_whole_words_and_come_back(tokenizer, documents):
    """An id below 256 is a byte: then a document holds a word that the tokenizer lacks."""
    for row in documents[:300] + documents[-50:]:
        completion = row["completion"][0]["content"]
        text = prompts.render(row["prompt"], "chatml")
        text += prompts.render_completion(completion, "chatml", tokenizer)
        ids = tokenizer(text).input_ids
        assert min(ids) >= 256 and tokenizer.decode(ids) == text


def test_foreign_text_falls_into_bytes_and_comes_back(tokenizer):
    texts = [
        "",
        "Any other text: naïve ½ 🙂 한.\n\n",
        "  12345 \t(9) x",
        "Start with 300",
        "\x00\u2028 <|im_start|>",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_saved_tokenizer_is_read_back_identically(tokenizer, tiny_model, documents):
    """AutoTokenizer chooses its own class for a Qwen2 model; a user's server will do the same."""
    texts = ["naïve ½\n 300"]
    for row in documents[:100]:
        texts.append(prompts.render(row["prompt"], "chatml") + row["completion"][0]["content"])
    for loaded in (AutoTokenizer.from_pretrained(tiny_model), load_tokenizer(tiny_model)):
        assert loaded(texts).input_ids == tokenizer(texts).input_ids
        assert len(loaded) == len(tokenizer)
        assert loaded.eos_token_id == tokenizer.eos_token_id
        assert loaded.pad_token_id == tokenizer.pad_token_id
        assert loaded.chat_template == prompts.JINJA["chatml"]


def test_a_base_that_exists_is_not_made_again_nor_used_for_other_settings(tmp_path):
    record = {"seed": 0, "steps": 5, "gappy_share": 0.0, "accuracy": 0.5, "extra_steps": 0}
    (tmp_path / "base.json").write_text(json.dumps(record))
    assert base.provide(tmp_path, 0, 5) == 0.5
    for settings in ((1, 5, 0.0), (0, 6, 0.0), (0, 5, 0.1)):
        with pytest.raises(InputError, match="--name"):
            base.provide(tmp_path, *settings)


def test_a_base_is_made_whole(tmp_path, monkeypatch):
    """The first two minutes of the default run, in two steps: pretraining, its score, the folder.

    Two steps teach nothing, so it must not train on until the phase transition.
    """
    monkeypatch.setattr(base, "PASSED", 0.0)
    accuracy = base.provide(tmp_path / "01_base", 3, 2)
    assert 0 <= accuracy < 0.2
    record = {"seed": 3, "steps": 2, "gappy_share": 0.0, "accuracy": accuracy, "extra_steps": 0}
    assert json.loads((tmp_path / "01_base" / "base.json").read_text()) == record
    assert (tmp_path / "01_base" / "model.safetensors").exists()
    assert not (tmp_path / "01_base.part").exists()


def test_the_shipped_base_is_the_one_of_the_default_seed(tmp_path):
    """Its architecture and tokenizer are those of the code; its accuracy is what it says."""
    folder = tmp_path / "01_base"
    accuracy = base.provide(folder, 0, 2000)
    base.write_untrained(tmp_path / "untrained", 0)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (tmp_path / "untrained" / name).read_bytes(), name
    assert base._accuracy(folder, 0) == pytest.approx(accuracy, abs=0.02)  # of another CPU


@pytest.mark.slow
def test_the_shipped_base_can_be_made_again(tmp_path):
    """Of the same quality: a few points, as another CPU gives other digits."""
    shipped = json.loads((base.SHIPPED / "base.json").read_text())
    made = base.provide(tmp_path / "01_base", 0, 2000, pretrain=True)
    assert made == pytest.approx(shipped["accuracy"], abs=0.12)
