"""The five scripts end to end: what they leave behind, a second time, on two processes, and on input of one's own."""

import json
import re
import shutil
import sys

import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import arms, prompts
from common.files import content_id, file_hash, model_id
from tests.runs import SMALL, STAGES, Completions, contents, must_run, rows, run_script, write_rows

ARMS = ("sft", "sft-verified", "sft-teacher", "cft")
MODELS = ("base", *ARMS)
FIELDS_01 = ["id", "question_id", "question", "gold", "response", "source", "generator", "sample", "finish_reason"]
FIELDS_02 = [*FIELDS_01, "critique_id", "teacher", "critique", "critique_raw", "verdict", "critique_finish_reason", "usage", "usd"]


# --- what a run leaves ----------------------------------------------------------------------------------------------

def test_every_file_of_the_floor_plan(finished):
    expected = {"01_responses.jsonl", "02_critiques.jsonl", "02_answers.jsonl", "02_failed.jsonl", "05_results.md",
                "05_results.png", "05_eval/scores.json", *(f"0{n}.run.json" for n in range(1, 6))}
    for arm in ARMS:
        expected |= {f"03_data/{arm}.jsonl", f"04_train/{arm}/metrics.jsonl", f"04_train/{arm}/loss.png"}
        expected |= {f"04_train/{arm}/step-00000{n}/model.safetensors" for n in (2, 4, 6)}  # 24 rows in batches of 4
    expected |= {f"05_eval/{model}/tiny.jsonl" for model in MODELS}
    there = {str(p.relative_to(finished.run)) for p in finished.run.rglob("*")}
    assert expected <= there
    assert not [p for p in there if ".part" in p or "/state" in p], "left-overs of an unfinished write, or of a finished training"
    for image in finished.run.rglob("*.png"):
        assert image.read_bytes().startswith(b"\x89PNG")


def test_each_script_names_the_next(finished):
    last = {name: printed.strip().splitlines()[-1] for name, printed in finished.printed.items()}
    for name, after in zip(STAGES, STAGES[1:]):
        assert last[name] == f"next: python {after} --name tiny"
    assert last["05_eval.py"].startswith("next: ")


def test_rows_of_01_and_02(finished):
    """02 keeps 01's rows, fields and order, and adds; ids are hashes of the content."""
    responses, critiques = rows(finished.run / "01_responses.jsonl"), rows(finished.run / "02_critiques.jsonl")
    assert len(responses) == 48 and len({r["id"] for r in responses}) == 48
    for response, critique in zip(responses, critiques, strict=True):
        assert list(response) == FIELDS_01 and list(critique) == FIELDS_02
        assert {k: critique[k] for k in FIELDS_01} == response
        assert response["question_id"] == content_id(response["question"])
        assert response["id"] == content_id(response["question"], response["response"])
        assert critique["critique_id"] == content_id(critique["id"], critique["teacher"], critique["critique_raw"])
        assert critique["verdict"] in ("right", "wrong")
    assert {r["verdict"] for r in critiques} == {"right", "wrong"}
    answers = rows(finished.run / "02_answers.jsonl")
    assert [a["question_id"] for a in answers] == [r["question_id"] for r in responses]  # each question was asked once
    assert rows(finished.run / "02_failed.jsonl") == []


def test_rows_of_03(finished):
    """Prompt-completion messages with an explicit system message, tied to the row of 02 that they were made of."""
    critiques = {r["id"]: r for r in rows(finished.run / "02_critiques.jsonl")}
    answers = {a["question_id"]: a["answer"] for a in rows(finished.run / "02_answers.jsonl")}
    for arm in ARMS:
        built = rows(finished.run / "03_data" / f"{arm}.jsonl")
        assert len(built) == 24 and len({r["id"] for r in built}) == 24
        for row in built:
            of = critiques[row["response_id"]]
            assert list(row) == ["id", "prompt", "completion", "arm", "response_id", "verdict"]
            assert row["arm"] == arm and row["verdict"] == of["verdict"]
            assert [m["role"] for m in row["prompt"]] == ["system", "user"]
            assert row["prompt"][0]["content"] == "You are a helpful assistant."
            assert of["question"] in row["prompt"][1]["content"]
            (completion,) = row["completion"]
            assert completion["role"] == "assistant"
            if arm == "cft":
                assert of["response"] in row["prompt"][1]["content"]
                assert completion["content"] == "Critique:\n" + of["critique"]
                assert completion["content"].endswith(f"\n\nConclusion: {of['verdict']} [END]")
            else:
                assert completion["content"] == (answers[of["question_id"]] if arm == "sft-teacher" else of["response"])


def test_arms_share_their_questions(finished):
    used = {arm: [r["response_id"] for r in rows(finished.run / "03_data" / f"{arm}.jsonl")] for arm in ARMS}
    assert used["sft"] == used["cft"] == used["sft-teacher"]
    right = {r["id"] for r in rows(finished.run / "02_critiques.jsonl") if r["verdict"] == "right"}
    shared = [i for i in used["sft"] if i in right]  # the others are filled up with the next right ones
    assert 0 < len(shared) < 24 and used["sft-verified"][: len(shared)] == shared and set(used["sft-verified"]) <= right


def test_checkpoint_is_a_plain_hugging_face_folder(finished):
    folder = finished.run / "04_train" / "cft" / "step-000006"
    model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    row = rows(finished.run / "03_data" / "cft.jsonl")[0]
    text = words.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    assert text == prompts.render(row["prompt"], "chatml")
    stops = words.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.generation_config.eos_token_id == stops and model.generation_config.pad_token_id is not None
    ids = words(text, return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]
    base = AutoModelForCausalLM.from_pretrained(finished.run / "01_base").state_dict()
    trained = model.state_dict()
    assert base.keys() == trained.keys() and not all(base[k].equal(trained[k]) for k in base)


def test_rows_and_scores_of_05(finished):
    """The prompt is the text that was sent, written out here; the scores can be counted again from the rows."""
    scores = {s["model"]: s for s in json.loads((finished.run / "05_eval" / "scores.json").read_text())["scores"]}
    assert list(scores) == list(MODELS)
    fields = ["id", "benchmark", "prompt", "output", "finish_reason", "n_tokens", "extracted", "how", "gold", "strict", "timed_out"]
    form = re.compile(r"<\|im_start\|>system\nPlease reason step by step, and put your final answer within \\boxed\{\}\.<\|im_end\|>\n"
                      r"<\|im_start\|>user\n(.*)<\|im_end\|>\n<\|im_start\|>assistant\n", re.S)
    for name in MODELS:
        got = rows(finished.run / "05_eval" / name / "tiny.jsonl")
        assert len(got) == 8 and set(fields) <= set(got[0])
        for row in got:
            assert row["id"] == content_id(form.fullmatch(row["prompt"])[1]) and row["n_tokens"] <= 12
        assert [r["id"] for r in got] == [r["id"] for r in rows(finished.run / "05_eval" / "base" / "tiny.jsonl")]
        assert scores[name]["n"] == 8 and scores[name]["correct"] == sum(r["strict"] for r in got)
        assert scores[name]["cut"] == sum(r["finish_reason"] == "length" for r in got)
    trained_on = {r["question_id"] for r in rows(finished.run / "01_responses.jsonl")}
    assert not trained_on & {r["id"] for r in got}


def test_manifests_are_true(finished):
    """Each names its command, and every hash in it is that of the file that stands there now."""
    made = {n: json.loads((finished.run / f"0{n}.run.json").read_text()) for n in range(1, 6)}
    for n, name in enumerate(STAGES, 1):
        assert made[n]["command"] == [name, *SMALL[name]] and made[n]["config"]["name"] == "tiny"
        assert made[n]["versions"]["torch"] and {"finished", "seconds", "commit", "uncommitted_changes", "gpu"} <= set(made[n])
        for path, digest in made[n]["inputs"].items():
            assert file_hash(finished.folder / path) == digest
    assert [p.rsplit("/", 1)[-1] for n in range(1, 6) for p in made[n]["inputs"]] == [
        "01_responses.jsonl", "02_critiques.jsonl", "02_answers.jsonl", *(f"{arm}.jsonl" for arm in ARMS)]
    assert made[1]["output_sha256"] == file_hash(finished.run / "01_responses.jsonl")
    assert made[2]["output_sha256"] == file_hash(finished.run / "02_critiques.jsonl")
    assert made[3]["output_sha256"] == {arm: file_hash(finished.run / "03_data" / f"{arm}.jsonl") for arm in ARMS}
    assert made[2]["rows"] == made[2]["right"] + made[2]["wrong"] == 48
    assert made[4]["base_id"] == model_id(finished.run / "01_base") and made[4]["processes"] == 1
    for arm in ARMS:
        folder = finished.folder / made[5]["engines"][arm]["folder"]
        assert folder.name == "step-000006" and made[5]["engines"][arm]["content"] == model_id(folder)
    assert list(made[4]["checkpoints"]) == list(ARMS) == list(arms.ARMS)


def test_a_second_time_nothing_is_done_again(finished, run_copy):
    def times():
        return {p: p.stat().st_mtime_ns for stage in ("01_base", "04_train") for p in (run_copy / stage).rglob("*")}

    before, made = contents(run_copy), times()
    for name in STAGES:
        must_run(run_copy.parent.parent, name, *SMALL[name])
    assert contents(run_copy) == before  # the journals among them: nobody was asked again
    assert times() == made


# --- 1 process and 2 ------------------------------------------------------------------------------------------------

def test_two_processes_give_the_curve_of_one(finished, run_copy):
    """The same global batches; on two processes each is cut into micro-batches of about a row, some of them empty."""
    shutil.rmtree(run_copy / "04_train")
    two_processes = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["04_train.py", "--arms", "cft", *SMALL["04_train.py"], "--tokens-per-microbatch", 90]
    must_run(run_copy.parent.parent, *command, prefix=two_processes)
    assert json.loads((run_copy / "04.run.json").read_text())["processes"] == 2
    one, two = (rows(run / "04_train" / "cft" / "metrics.jsonl") for run in (finished.run, run_copy))
    assert [m["step"] for m in one] == [m["step"] for m in two] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(one, two):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4) and b["grad_norm"] == pytest.approx(a["grad_norm"], abs=1e-4)
        assert all(b[k] == a[k] for k in ("tokens", "supervised", "learning_rate"))
    assert one[-1]["loss"] < one[0]["loss"] - 0.1  # a curve that moves: the weights stay equal too


# --- input of one's own ---------------------------------------------------------------------------------------------

OWN = [{"problem": f"What is {n} + {n}?", "solution": f"It is {2 * n + n % 2}.", "critique": f"The sum is {2 * n}.",
        "ok": n % 2 == 0} for n in range(6)]
COLUMNS = ["--columns", "question=problem", "response=solution", "verdict=ok", "--verdict-values", "true=right", "false=wrong"]


@pytest.mark.parametrize(("preset", "kind"), [("paper", "jsonl"), ("paper", "parquet")])
def test_local_file_with_critiques(tmp_path, preset, kind):
    """Critiques and a boolean verdict come with the data; 02 and 03 are started with the commands that were printed."""
    source = tmp_path / f"own.{kind}"
    if kind == "jsonl":
        write_rows(source, OWN)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(OWN), source)
    printed = must_run(tmp_path, "01_sample.py", "--source", source.name, *COLUMNS, "--name", "own", "--preset", preset)
    for name in ("02_critique.py", "03_build.py"):
        following = re.search(r"^next: python (\S+) (.*)$", printed, re.M)
        assert following[1] == name
        printed = must_run(tmp_path, name, *following[2].split())
    run = tmp_path / "runs" / "own"
    critiques = rows(run / "02_critiques.jsonl")
    assert [r["question"] for r in critiques] == [r["problem"] for r in OWN]
    assert [r["verdict"] for r in critiques] == ["right", "wrong"] * 3
    assert critiques[1]["critique_raw"] == "The sum is 2."
    assert critiques[1]["critique"] == "The sum is 2.\n\nConclusion: wrong [END]"
    assert sorted(r["response_id"] for r in rows(run / "03_data" / "cft.jsonl")) == sorted(r["id"] for r in critiques)
    assert {r["verdict"] for r in rows(run / "03_data" / "sft-verified.jsonl")} == {"right"}


def test_01_draws_from_a_server(tmp_path):
    """Each sample has a seed of its own; a question that the server refuses is counted, and asked alone the next time."""
    write_rows(tmp_path / "questions.jsonl", [{"question": f"What is {n}?", "gold": str(n)} for n in range(3)])
    command = ["01_sample.py", "--preset", "paper", "--source", "questions.jsonl", "--model", "served", "--name", "drawn", "--samples", 2, "--base-url"]
    with Completions(status=lambda body: 400 if "What is 1?" in body["prompt"] else 200) as server:
        printed = must_run(tmp_path, *command, server.url)
        assert "2 failed" in printed and len(rows(tmp_path / "runs/drawn/01_responses.jsonl")) == 4
        assert {a["path"] for a in server.asked} == {"/v1/completions"} and {a["model"] for a in server.asked} == {"served"}
        server.status = lambda body: 200
        server.asked.clear()
        must_run(tmp_path, *command, server.url)
        assert len(server.asked) == 2 and len({a["seed"] for a in server.asked}) == 2
        assert all(a["prompt"] == prompts.solve_prompt("What is 1?", "chatml") for a in server.asked)
    got = rows(tmp_path / "runs" / "drawn" / "01_responses.jsonl")
    expected = [(f"What is {n}?", str(n), k) for n in range(3) for k in (0, 1)]
    assert [(r["question"], r["gold"], r["sample"]) for r in got] == expected
    assert {r["generator"] for r in got} == {"served"} and len({r["response"] for r in got}) > 1


def test_05_asks_a_server(tmp_path):
    """Local test sets in the hub's columns; an item that fails ends the run, which then asks for that item only."""
    gsm8k = [{"question": f"Half of {2 * n}?", "answer": f"So #### {n}"} for n in range(4)]
    write_rows(tmp_path / "sets" / "gsm8k" / "test.jsonl", gsm8k)
    write_rows(tmp_path / "sets" / "math500" / "test.jsonl", [{"problem": "What is $1+1$?", "answer": "2"}])
    command = ["05_eval.py", "--model", "served", "--name", "mine", "--benchmarks", "gsm8k", "math500", "--benchmarks-dir", "sets",
               "--limit", 4, "--base-url"]
    with Completions(text=lambda body: "It is \\boxed{2}. [END] It is \\boxed{3}",
                     status=lambda body: 400 if "Half of 6?" in body["prompt"] else 200) as server:
        stopped = run_script(tmp_path, *command, server.url)
        assert stopped.returncode == 2 and "1 of 4 items of gsm8k got no output" in stopped.stderr
        server.status = lambda body: 200
        server.asked.clear()
        must_run(tmp_path, *command, server.url)
        assert len(server.asked) == 2 and all(a["temperature"] == 0 for a in server.asked)
    graded = rows(tmp_path / "runs" / "mine" / "05_eval" / "served" / "gsm8k.jsonl")
    assert [(r["gold"], r["strict"], r["output"]) for r in graded] == [(str(n), n == 2, "It is \\boxed{2}. ") for n in range(4)]
    assert (tmp_path / "runs" / "mine" / "05_results.md").read_text().count("| served |") == 2


def test_empty_outputs_are_outputs(tmp_path):
    """A model may answer nothing at all: these items are wrong, which is a score (0 of 6), not a failure."""
    write_rows(tmp_path / "sets" / "math500" / "test.jsonl", [{"problem": f"What is {n}?", "answer": str(n)} for n in range(6)])
    with Completions(text=lambda body: "") as server:
        must_run(tmp_path, "05_eval.py", "--model", "served", "--name", "mine", "--benchmarks", "math500",
                 "--benchmarks-dir", "sets", "--base-url", server.url)
    graded = rows(tmp_path / "runs" / "mine" / "05_eval" / "served" / "math500.jsonl")
    assert [(r["output"], r["strict"]) for r in graded] == [("", False)] * 6
    assert "| math500 | served | 6 | 0.0 |" in (tmp_path / "runs" / "mine" / "05_results.md").read_text()
