"""IFEval in 05: protocols, rows, shares, comparisons, and the whole script on a dozen items."""

import json
import sys
from types import SimpleNamespace

import pytest

from common.core.errors import InputError
from common.data import test_sets
from common.evaluate import comparisons, instruction_following, scores
from common.evaluate.models import OpenModel
from common.generate.requests import Request, Sampling
from common.ifeval import language_tools
from tests.conftest import ROOT
from tests.faults import FaultServer
from tests.ifeval.test_checkers import needs_libraries
from tests.runs import must_run, rows, run_script, write_rows

CASES = [json.loads(line) for line in (ROOT / "tests/cases/ifeval.jsonl").read_text().splitlines()]
ANSWERS = {case["prompt"]: case["response"] for case in CASES}
NO_COMMA, QUOTED = ["punctuation:no_comma", {}], ["startend:quotation", {}]
RULES = {"ifeval": "paper, reference"}


def items(*golds):
    return [
        {"id": f"i{number}", "question": "q", "gold": json.dumps(gold)}
        for number, gold in enumerate(golds)
    ]


def grade(tmp_path, items, texts, prompt="q", **settings):
    outputs = [{"text": text, "finish_reason": "stop"} for text in texts]
    requests = [Request(prompt) for _ in items]
    return scores.grade_outputs(tmp_path, "ifeval", items, requests, outputs, **settings)


def result_of(graded, model="m", rules="paper, reference"):
    result = scores.Result("ifeval", model, graded, {"ifeval": rules})
    result.score = scores.score(result)
    return result


TWO = items([NO_COMMA, QUOTED], [NO_COMMA])


def test_a_row_holds_a_verdict_for_each_instruction(tmp_path):
    """A prompt is right if all of its instructions are followed, strictly."""
    first, second = grade(tmp_path, TWO, ["a", "b, c\nd"])
    assert (first["strict"], first["loose"], first["correct"]) == ([True, False], [True, False], 0)
    assert (second["strict"], second["loose"], second["correct"]) == ([False], [True], False)
    assert [row["correct_paper"] for row in (first, second)] == [False, False]
    assert rows(tmp_path / "ifeval.jsonl") == [first, second]


def test_the_papers_column_is_the_reference(tmp_path):
    """A blank first paragraph: wrong by the reference, right once it is repaired."""
    second = ["length_constraints:nth_paragraph_first_word"]
    second.append({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "rain"})
    (row,) = grade(tmp_path, items([second]), ["\n\nSun\n\nRain"], ifeval="repaired")
    assert (row["correct"], row["correct_paper"]) == (True, False)


def test_thinking_is_no_part_of_an_answer(tmp_path):
    """Nor if the prompt opened it; an output that is all thinking follows nothing."""
    texts = ["<think>a, b</think>c", "<think>no end"]
    assert [row["correct"] for row in grade(tmp_path, TWO[1:] * 2, texts)] == [True, False]
    texts = ["a, b</think>c", "no end"]
    graded = grade(tmp_path, TWO[1:] * 2, texts, prompt="q<think>\n")
    assert [row["correct"] for row in graded] == [True, False]


def test_a_text_beyond_all_bounds_follows_nothing_and_is_counted(tmp_path):
    graded = grade(tmp_path, TWO, ["a" * 1_000_000, "b"])
    assert [row["correct"] for row in graded] == [False, True]
    assert result_of(graded).score["timed_out"] == 1


def test_a_score_by_hand(tmp_path):
    """Of two prompts one is right, of their three instructions two; loosely all but one."""
    score = result_of(grade(tmp_path, TWO, ["a", "b"])).score
    assert score["benchmark"] == "ifeval strict_prompt (paper, reference)"
    shares = [score["strict_prompt"], score["strict_instruction"], score["accuracy"]]
    assert shares == pytest.approx([1 / 2, 2 / 3, 1 / 2])
    assert (score["unboxed"], score["n"]) == (0, 2)
    floor = {"n": 10, "correct": 2, "paper_correct": 2, "shares": {}}
    floor["shares"] = dict.fromkeys(
        ("strict_instruction_floor", "loose_prompt_floor", "loose_instruction_floor"), 0.25
    )
    row, *_ = further = instruction_following.list_shares([scores.add_remarks(score, floor, False)])
    assert [row["benchmark"].split()[1] for row in further] == [
        "strict_instruction",
        "loose_prompt",
        "loose_instruction",
    ]
    assert row["accuracy"] == pytest.approx(2 / 3) and row["floor"] == 0.25
    assert row["low"] < row["accuracy"] == row["paper_accuracy"] < row["high"]
    score = scores.add_remarks(score, floor, False)
    score["benchmark"] = "ifeval strict_prompt (paper, repaired)"
    assert instruction_following.list_shares([score])[0]["paper_accuracy"] is None


def test_an_item_without_an_output_is_left_out_or_follows_nothing(tmp_path):
    outputs = [{"text": "a"}, {"error": "400"}]
    asked = [Request("q")] * 2
    for count_failed, n, share in ((False, 1, 1 / 2), (True, 2, 1 / 3)):
        graded = scores.grade_outputs(tmp_path, "ifeval", TWO, asked, outputs, count_failed)
        score = result_of(graded).score
        assert (score["n"], score["failed"]) == (n, 1)
        assert score["strict_instruction"] == pytest.approx(share)
    nothing = scores.grade_outputs(tmp_path, "ifeval", TWO, asked, [{"error": "400"}] * 2)
    assert result_of(nothing).score["accuracy"] is None


def test_models_are_compared_by_prompts_and_not_across_protocols(tmp_path):
    """Of eight prompts six are won, none lost: McNemar's p is 2/64; of two rows Holm's 4/64."""
    eight = items(*[[NO_COMMA]] * 8)
    good = grade(tmp_path, eight, ["a"] * 8)
    bad = grade(tmp_path, eight, ["a"] * 2 + ["a,"] * 6)
    results = {}
    for label, graded, rules in (
        ("good", good, "paper, reference"),
        ("good too", good, "paper, reference"),
        ("bad", bad, "paper, reference"),
        ("chat", good, "chat, reference"),
        ("repaired", good, "paper, repaired"),
    ):
        results["ifeval", label] = result_of(graded, label, rules)
    models = ["good", "good too", "chat", "repaired", "bad"]
    first, second, *refused = comparisons.compare(results, models, ["bad"])
    assert (first["wins"], first["losses"], first["p"]) == (6, 0, 2 / 64)
    assert first["holm"] == second["holm"] == pytest.approx(4 / 64)
    assert ["refused" in row for row in refused] == [True, True]


# --- protocols ----------------------------------------------------------------------------------


def settings(protocol="paper", grading="reference"):
    return SimpleNamespace(ifeval_protocol=protocol, ifeval_grading=grading)


def open_model(tokenizer):
    engine = SimpleNamespace(tokenizer=tokenizer)
    return OpenModel(engine, tokenizer, {"template": "chatml", "engine": "server"}, {})


def test_by_the_papers_protocol_a_prompt_is_sent_as_it_is():
    model, sampling = instruction_following.use_protocol(
        open_model(None), Sampling(max_new_tokens=4096), settings()
    )
    assert model.write_prompts([" Rain? \n"], "a system line") == [" Rain? \n"]
    assert sampling.max_new_tokens == 2048
    assert sampling.stop == ["</s>", "<|im_end|>", "<|endoftext|>"]
    assert model.conditions["ifeval"] == "paper, reference"


def test_by_the_chat_protocol_a_server_gets_messages():
    model, sampling = instruction_following.use_protocol(
        open_model(None), Sampling(max_new_tokens=2048), settings("chat", "repaired")
    )
    assert model.write_prompts(["Rain?"], "") == [[{"role": "user", "content": "Rain?"}]]
    assert (sampling.max_new_tokens, sampling.stop) == (1280, [])
    assert model.conditions["ifeval"] == "chat, repaired"


def test_fewer_tokens_may_be_asked_for():
    _, sampling = instruction_following.use_protocol(
        open_model(None), Sampling(max_new_tokens=12), settings("chat")
    )
    assert sampling.max_new_tokens == 12


def test_a_tokenizer_without_a_template_of_its_own_cannot_chat():
    tokenizer = SimpleNamespace(chat_template=None)
    with pytest.raises(InputError, match="--ifeval-protocol paper"):
        instruction_following.use_protocol(open_model(tokenizer), Sampling(), settings("chat"))


# --- the test set -------------------------------------------------------------------------------


def test_a_question_keeps_its_blanks_and_a_bad_row_is_named(tmp_path, capsys):
    path = tmp_path / "ifeval" / "test.jsonl"
    path.parent.mkdir()
    write_rows(path, [CASES[0] | {"prompt": "Rain?\n"}])
    (item,) = test_sets.load_items("ifeval", tmp_path)
    assert item["question"] == "Rain?\n" and json.loads(item["gold"]) == [NO_COMMA, QUOTED]
    for change in (
        {"instruction_id_list": ["punctuation:no_dots", QUOTED[0]]},
        {"kwargs": [{"num_words": 3}, {}]},
        {"kwargs": [{}]},
    ):
        write_rows(path, [CASES[0], CASES[1] | CASES[0] | change])
        with pytest.raises(InputError, match="ifeval, row 2"):
            test_sets.load_items("ifeval", tmp_path)


def test_a_missing_library_is_named_with_the_command_that_brings_it(monkeypatch):
    for name in ("punkt", "langdetect"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "punkt", object())
            patch.setitem(sys.modules, "langdetect", object())
            patch.setitem(sys.modules, name, None)
            language_tools.load_libraries.cache_clear()
            with pytest.raises(InputError, match=f"{name}(.|\n)*requirements-ifeval.txt"):
                language_tools.load_libraries()
    language_tools.load_libraries.cache_clear()


# --- the script ---------------------------------------------------------------------------------


def score_of(folder, model):
    return json.loads((folder / "05_eval" / model / "ifeval.score.json").read_text())["score"]


@needs_libraries
def test_the_script_on_a_dozen_items(tmp_path):
    """Verdicts by hand: strictly 5 of 12 prompts and 17 of 25 instructions; loosely 9 and 22."""
    write_rows(tmp_path / "sets" / "ifeval" / "test.jsonl", CASES)
    run = tmp_path / "runs" / "mine"
    common = ["05_eval.py", "--name", "mine", "--preset", "paper", "--benchmarks", "ifeval"]
    common += ["--benchmarks-dir", "sets", "--paper", "table8"]

    def answer(body):
        asked = body.get("prompt") or body["messages"][0]["content"]
        return ANSWERS.get(asked, "") if body["model"] == "good" else "."

    with FaultServer(text=answer) as server:
        models = ["--model", f"base=dot@{server.url}", f"cft=good@{server.url}"]
        must_run(tmp_path, *common, *models)
        graded = rows(run / "05_eval" / "cft" / "ifeval.jsonl")
        score, page = score_of(run, "cft"), (run / "05_results.md").read_text()
        n_asked = len(server.asked)
        assert [row["strict"] for row in graded] == [case["strict"] for case in CASES]
        assert [row["loose"] for row in graded] == [case["loose"] for case in CASES]
        assert {row["body"]["max_tokens"] for row in server.asked} == {2048}
        must_run(tmp_path, *common, *models)
        assert score_of(run, "cft") == score and len(server.asked) == n_asked
        chat = ["--ifeval-protocol", "chat", "--ifeval-grading", "repaired"]
        must_run(tmp_path, *common, *models, *chat)
        assert len(server.asked) == 2 * n_asked and "messages" in server.asked[-1]["body"]
    assert score["strict_prompt"] == pytest.approx(5 / 12)
    assert score["strict_instruction"] == pytest.approx(17 / 25)
    assert score["loose_prompt"] == pytest.approx(9 / 12)
    assert score["loose_instruction"] == pytest.approx(22 / 25)
    for name in ("strict_prompt", "strict_instruction", "loose_prompt", "loose_instruction"):
        assert f"| ifeval {name} (paper, reference) | cft | 12 |" in page
    assert "Qwen2.5-Math-7B CFT (cft) | ifeval strict_instruction (paper, reference) | 33.5" in page
    assert all(key in page for key in ("337", "2078", "30 asks"))
    repaired = score_of(run, "cft")
    assert repaired["benchmark"] == "ifeval strict_prompt (chat, repaired)"
    assert repaired["strict_prompt"] == pytest.approx(6 / 12)
    assert "No score of this run belongs here" in (run / "05_results.md").read_text()


def test_the_script_says_first_that_a_library_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect", None)
    language_tools.load_libraries.cache_clear()
    write_rows(tmp_path / "sets" / "ifeval" / "test.jsonl", CASES)
    settings = ["--benchmarks", "ifeval", "--benchmarks-dir", "sets", "--model", "m@http://x"]
    done = run_script(tmp_path, "05_eval.py", "--name", "mine", "--preset", "paper", *settings)
    language_tools.load_libraries.cache_clear()
    assert done.returncode == 2 and "requirements-ifeval.txt" in done.stderr
