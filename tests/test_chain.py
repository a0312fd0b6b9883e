"""The five scripts end to end.

What they leave behind, a second time, on two processes, and on input of one's own.
"""

import json
import re
import shutil
import sys

import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import grading
from common.core import manifests, prompts
from common.core.files import content_id, file_hash
from common.core.manifests import file_label
from common.data.sources import make_row
from tests.faults import FaultServer
from tests.runs import SMALL, STAGES, contents, must_run, rows, run_script, write_rows

ARMS = (
    "sft",
    "sft-verified",
    "sft-teacher",
    "cft",
    "cft-short",
)  # cft-clean would be cft again: the tiny teacher is always right
MODELS = ("base", *ARMS)
FIELDS_01 = [
    "id",
    "question_id",
    "question",
    "gold",
    "response",
    "source",
    "generator",
    "sample",
    "finish_reason",
]
FIELDS_02 = [
    *FIELDS_01,
    "critique_id",
    "teacher",
    "critique",
    "critique_raw",
    "verdict",
    "critique_finish_reason",
    "usage",
    "usd",
]


# --- what a run leaves ----------------------------------------------------------------------------


TEACHER = "tiny-teacher-skip-0.1-critique-full"  # as a file name


def rows_of(run, folder):
    """Return the rows of all files of a stage's folder."""
    return [row for path in sorted((run / folder).glob("*.jsonl")) for row in rows(path)]


def test_every_file_of_the_floor_plan(finished):
    expected = {
        "01_responses/tiny.jsonl",
        "01_responses/tiny.run.json",
        f"02_critiques/{TEACHER}.jsonl",
        f"02_critiques/{TEACHER}.run.json",
        f"02_answers/{TEACHER}.jsonl",
        f"02_failed/{TEACHER}.jsonl",
        "03_report.md",
        "03_report.png",
        "05_eval/scores.json",
        "05_results.md",
        "05_results.png",
        "05_results.run.json",
        "05_outputs.html",
    }
    for name in ARMS:
        expected |= {f"03_data/{name}.jsonl", f"03_data/{name}.run.json"}
        files = ("settings.json", "metrics.jsonl", "loss.png", "trained_on.jsonl", "run.json")
        expected |= {f"04_train/{name}/{file}" for file in files}
        for step in (2, 4, 6):  # 24 rows in batches of 4
            expected.add(f"04_train/{name}/step-00000{step}/model.safetensors")
    for model in MODELS:
        expected |= {f"05_eval/{model}/tiny.jsonl", f"05_eval/{model}/tiny.score.json"}
    existing = {str(path.relative_to(finished.run)) for path in finished.run.rglob("*")}
    assert expected <= existing, sorted(expected - existing)
    # Nothing is left over of an unfinished write, or of a finished training.
    assert not [path for path in existing if ".part" in path or "/state" in path]
    for image in finished.run.rglob("*.png"):
        assert image.read_bytes().startswith(b"\x89PNG")


def test_each_script_names_the_next(finished):
    last = {name: printed.strip().splitlines()[-1] for name, printed in finished.printed.items()}
    for name, after in zip(STAGES, STAGES[1:]):
        assert last[name] == f"next: python {after} --name tiny"
    assert last["05_eval.py"].startswith("next: ")


def test_rows_of_01_and_02(finished):
    """02 keeps 01's rows, fields and order, and adds; ids are hashes of the content."""
    responses = rows_of(finished.run, "01_responses")
    critiques = rows_of(finished.run, "02_critiques")
    assert len(responses) == 48 and len({r["id"] for r in responses}) == 48
    for response, critique in zip(responses, critiques, strict=True):
        assert list(response) == FIELDS_01 and list(critique) == FIELDS_02
        assert {k: critique[k] for k in FIELDS_01} == response
        assert response["question_id"] == content_id(response["question"])
        assert response["id"] == content_id(response["question"], response["response"])
        assert critique["critique_id"] == content_id(
            critique["id"], critique["teacher"], critique["critique_raw"]
        )
        assert critique["verdict"] in ("right", "wrong")
    assert {r["verdict"] for r in critiques} == {"right", "wrong"}
    own = rows_of(finished.run, "02_answers")
    assert list(own[0]) == [
        "question_id",
        "question",
        "gold",
        "teacher",
        "answer",
        "finish_reason",
        "usage",
        "usd",
    ]
    assert [a["question_id"] for a in own] == [
        r["question_id"] for r in responses
    ]  # each question was asked once
    assert rows_of(finished.run, "02_failed") == []


def test_rows_of_03(finished):
    """Prompt-completion messages with an explicit system message, tied to the row of 02 that they
    were made of.
    """
    critiques = {r["id"]: r for r in rows_of(finished.run, "02_critiques")}
    own = {a["question_id"]: a["answer"] for a in rows_of(finished.run, "02_answers")}
    for arm in ARMS:
        built = rows(finished.run / "03_data" / f"{arm}.jsonl")
        assert len(built) == 24 and len({r["id"] for r in built}) == 24
        for row in built:
            of = critiques[row["response_id"]]
            assert list(row) == ["id", "prompt", "completion", "arm", "response_id", "verdict"]
            assert row["arm"] == arm and row["verdict"] == (
                None if arm == "sft-teacher" else of["verdict"]
            )
            assert [m["role"] for m in row["prompt"]] == ["system", "user"]
            assert row["prompt"][0]["content"] == "You are a helpful assistant."
            assert of["question"] in row["prompt"][1]["content"]
            (completion,) = row["completion"]
            assert completion["role"] == "assistant"
            if arm.startswith("cft"):
                assert of["response"] in row["prompt"][1]["content"]
                assert completion["content"] == "Critique:\n" + of["critique"]
                assert completion["content"].endswith(f"\n\nConclusion: {of['verdict']} [END]")
            else:
                assert completion["content"] == (
                    own[of["question_id"]] if arm == "sft-teacher" else of["response"]
                )


def test_arms_share_their_questions(finished):
    used = {
        arm: [r["response_id"] for r in rows(finished.run / "03_data" / f"{arm}.jsonl")]
        for arm in ARMS
    }
    assert used["sft"] == used["cft"] == used["sft-teacher"]
    right = {r["id"] for r in rows_of(finished.run, "02_critiques") if r["verdict"] == "right"}
    shared = [
        i for i in used["sft"] if i in right
    ]  # the others are filled up with the next right ones
    assert (
        0 < len(shared) < 24
        and used["sft-verified"][: len(shared)] == shared
        and set(used["sft-verified"]) <= right
    )


def test_checkpoint_is_a_plain_hugging_face_folder(finished):
    folder = finished.run / "04_train" / "cft" / "step-000006"
    model, words = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    row = rows(finished.run / "03_data" / "cft.jsonl")[0]
    text = words.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    assert text == prompts.render(row["prompt"], "chatml")
    stops = words.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert (
        model.generation_config.eos_token_id == stops
        and model.generation_config.pad_token_id is not None
    )
    ids = words(text, return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]
    base = AutoModelForCausalLM.from_pretrained(finished.run / "01_base").state_dict()
    trained = model.state_dict()
    assert base.keys() == trained.keys() and not all(base[k].equal(trained[k]) for k in base)


def test_rows_and_scores_of_05(finished):
    """The prompt is the text that was sent, written out here; the scores can be counted again from
    the rows.
    """
    scores = {
        s["model"]: s
        for s in json.loads((finished.run / "05_eval" / "scores.json").read_text())["scores"]
    }
    assert list(scores) == list(MODELS)
    fields = [
        "id",
        "benchmark",
        "sample",
        "question",
        "prompt",
        "output",
        "finish_reason",
        "n_tokens",
        "extracted",
        "extraction_method",
        "gold",
        "correct",
        "correct_paper",
        "timed_out",
    ]
    form = re.compile(
        r"<\|im_start\|>system\nPlease reason step by step, and put your final answer within \\boxed\{\}\.<\|im_end\|>\n"
        r"<\|im_start\|>user\n(.*)<\|im_end\|>\n<\|im_start\|>assistant\n",
        re.S,
    )
    for name in MODELS:
        got = rows(finished.run / "05_eval" / name / "tiny.jsonl")
        assert len(got) == 8 and set(fields) <= set(got[0])
        for row in got:
            assert (
                row["id"] == content_id(form.fullmatch(row["prompt"])[1]) and row["n_tokens"] <= 12
            )
        assert [r["id"] for r in got] == [
            r["id"] for r in rows(finished.run / "05_eval" / "base" / "tiny.jsonl")
        ]
        assert scores[name]["n"] == 8 and scores[name]["correct"] == sum(r["correct"] for r in got)
        assert scores[name]["truncated"] == sum(r["finish_reason"] == "length" for r in got)
    (responses,) = (finished.run / "01_responses").glob("*.jsonl")
    trained_on = {row["question_id"] for row in rows(responses)}
    assert not trained_on & {r["id"] for r in got}


def test_manifests_are_true(finished):
    """Each names its command, and every hash in it is that of the file that is there now."""
    run = finished.run
    outputs = {
        "01_sample.py": [run / "01_responses" / "tiny.jsonl"],
        "02_critique.py": [run / "02_critiques" / f"{TEACHER}.jsonl"],
        "03_build.py": [run / "03_data" / f"{name}.jsonl" for name in ARMS],
        "04_train.py": [run / "04_train" / name for name in ARMS],
    }
    for script, paths in outputs.items():
        for path in paths:
            made = manifests.read_manifest(path)
            assert made["command"] == [script, *SMALL[script]] and made["config"]["name"] == "tiny"
            facts = {"versions", "finished", "seconds", "commit", "uncommitted_changes", "gpu"}
            assert facts <= set(made) and made["versions"]["torch"]
            if path.is_file():
                assert made["output_sha256"] == file_hash(path)
            for name, digest in made["inputs"].items():
                assert file_hash(finished.folder / name) == digest, name
    critiques = manifests.read_manifest(outputs["02_critique.py"][0])
    assert list(critiques["inputs"]) == ["runs/tiny/01_responses/tiny.jsonl"]
    assert critiques["teacher"] == "tiny-teacher:skip=0.1:critique=full"
    assert critiques["usd"] is critiques["usd_perhaps_lost"] is None


def test_report_of_02_can_be_counted_again(finished):
    """The tiny teacher knows the golds, so it never calls a right answer wrong."""
    made = manifests.read_manifest(finished.run / "02_critiques" / f"{TEACHER}.jsonl")
    critiques = rows_of(finished.run, "02_critiques")
    lengths = sorted(len(row["critique"]) for row in critiques)
    n_right = sum(grading.is_correct(row["response"], row["gold"]) for row in critiques)
    assert made["report"] == {
        "critiques": 48,
        "right": n_right,
        "median_characters": (lengths[23] + lengths[24]) / 2,
        "failed": 0,
        "failed_for": {},
    }
    printed = finished.printed["02_critique.py"]
    assert "96 requests" in printed and "cost of" not in printed
    assert "48 critiques" in printed and f"{n_right / 48:.1%} of them" in printed


def test_a_second_time_nothing_is_done_again(finished, run_copy):
    def times():
        return {
            p: p.stat().st_mtime_ns
            for stage in ("01_base", "04_train")
            for p in (run_copy / stage).rglob("*")
        }

    before, made = contents(run_copy), times()
    for name in STAGES:
        must_run(run_copy.parent.parent, name, *SMALL[name])
    assert contents(run_copy) == before  # the journals among them: nobody was asked again
    assert times() == made


# --- 1 process and 2 ------------------------------------------------------------------------------


def test_two_processes_give_the_curve_of_one(finished, run_copy):
    """The same global batches; on two processes each is cut into micro-batches of about a row, some
    of them empty.
    """
    shutil.rmtree(run_copy / "04_train")
    two_processes = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command = ["04_train.py", "--arms", "cft", *SMALL["04_train.py"], "--tokens-per-microbatch", 90]
    must_run(run_copy.parent.parent, *command, prefix=two_processes)
    assert manifests.read_manifest(run_copy / "04_train" / "cft")["processes"] == 2
    one, two = (
        rows(run / "04_train" / "cft" / "metrics.jsonl") for run in (finished.run, run_copy)
    )
    assert [m["step"] for m in one] == [m["step"] for m in two] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(one, two):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4) and b["grad_norm"] == pytest.approx(
            a["grad_norm"], abs=1e-4
        )
        assert all(b[k] == a[k] for k in ("tokens", "supervised", "learning_rate"))
    assert one[-1]["loss"] < one[0]["loss"] - 0.1  # a curve that moves: the weights stay equal too


# --- input of one's own ---------------------------------------------------------------------------

OWN = [
    {
        "problem": f"What is {n} + {n}?",
        "solution": f"It is {2 * n + n % 2}.",
        "critique": f"The sum is {2 * n}.",
        "ok": n % 2 == 0,
    }
    for n in range(6)
]
COLUMNS = [
    "--columns",
    "question=problem",
    "response=solution",
    "verdict=ok",
    "--verdict-values",
    "true=right",
    "false=wrong",
]


@pytest.mark.parametrize(("preset", "kind"), [("paper", "jsonl"), ("paper", "parquet")])
def test_local_file_with_critiques(tmp_path, preset, kind):
    """Critiques and a boolean verdict come with the data; 02 and 03 are started with the commands
    that were printed.
    """
    source = tmp_path / f"own.{kind}"
    if kind == "jsonl":
        write_rows(source, OWN)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(OWN), source)
    printed = must_run(
        tmp_path,
        "01_sample.py",
        "--source",
        source.name,
        *COLUMNS,
        "--name",
        "own",
        "--preset",
        preset,
    )
    for name in ("02_critique.py", "03_build.py"):
        following = re.search(r"^next: python (\S+) (.*)$", printed, re.M)
        assert following[1] == name
        printed = must_run(tmp_path, name, *following[2].split())
    run = tmp_path / "runs" / "own"
    critiques = rows(run / "02_critiques" / "carried.jsonl")
    assert [r["question"] for r in critiques] == [r["problem"] for r in OWN]
    assert [r["verdict"] for r in critiques] == ["right", "wrong"] * 3
    assert critiques[1]["critique_raw"] == "The sum is 2."
    assert critiques[1]["critique"] == "The sum is 2.\n\nConclusion: wrong [END]"
    assert sorted(r["response_id"] for r in rows(run / "03_data" / "cft.jsonl")) == sorted(
        r["id"] for r in critiques
    )
    assert {r["verdict"] for r in rows(run / "03_data" / "sft-verified.jsonl")} == {"right"}


def test_01_draws_from_a_server(tmp_path):
    """Each sample has a seed of its own; a question that the server refuses is counted, and asked
    alone the next time.
    """
    write_rows(
        tmp_path / "questions.jsonl",
        [{"question": f"What is {n}?", "gold": str(n)} for n in range(3)],
    )
    command = [
        "01_sample.py",
        "--preset",
        "paper",
        "--source",
        "questions.jsonl",
        "--model",
        "served",
        "--name",
        "drawn",
        "--samples",
        2,
        "--base-url",
    ]
    with FaultServer(
        fault=lambda body, nth: 400 if "What is 1?" in body["prompt"] else None
    ) as server:
        first = run_script(tmp_path, *command, server.url)
        assert (
            first.returncode == 3
            and "2 failed" in first.stdout
            and "the first failure: 400 no, thank you" in first.stdout
        )
        assert "next: python 02_critique.py --name drawn" in first.stdout
        assert len(rows(tmp_path / "runs/drawn/01_responses/served.jsonl")) == 4
        assert {(e["path"], e["body"]["model"]) for e in server.asked} == {
            ("/v1/completions", "served")
        }
        server.fault = None
        server.asked.clear()
        must_run(tmp_path, *command, server.url)
        assert len(server.asked) == 2 and len({e["body"]["seed"] for e in server.asked}) == 2
        assert all(
            e["prompt"] == prompts.solve_prompt("What is 1?", "chatml") for e in server.asked
        )
    got = rows(tmp_path / "runs/drawn/01_responses/served.jsonl")
    expected = [(f"What is {n}?", str(n), k) for n in range(3) for k in (0, 1)]
    assert [(r["question"], r["gold"], r["sample"]) for r in got] == expected
    assert {r["generator"] for r in got} == {"served"} and len({r["response"] for r in got}) > 1


def test_05_asks_a_server(tmp_path):
    """Local test sets in the hub's columns; an item without an output is left out and said (status
    3), and alone asked for the next time.
    """
    gsm8k = [{"question": f"Half of {2 * n}?", "answer": f"So #### {n}"} for n in range(4)]
    write_rows(tmp_path / "sets" / "gsm8k" / "test.jsonl", gsm8k)
    write_rows(
        tmp_path / "sets" / "math500" / "test.jsonl", [{"problem": "What is $1+1$?", "answer": "2"}]
    )
    command = [
        "05_eval.py",
        "--name",
        "mine",
        "--benchmarks",
        "gsm8k",
        "math500",
        "--benchmarks-dir",
        "sets",
        "--limit",
        4,
        "--price-in",
        1,
        "--price-out",
        2,
        "--budget",
        1,
    ]
    with FaultServer(
        text=lambda body: "It is \\boxed{2}. [END] It is \\boxed{3}",
        fault=lambda body, nth: (
            400 if "Half of 6?" in body["prompt"] and body["model"] == "served" else None
        ),
    ) as server:
        models = ["--model", f"served@{server.url}", f"sft=other@{server.url}"]
        partly = run_script(tmp_path, *command, *models)
        assert (
            partly.returncode == 3
            and "1 items got no output (status 3): the same command asks only for those"
            in partly.stdout
        )
        assert "$0.0" in partly.stderr  # the progress bar counts what it costs
        assert (
            "served, gsm8k: 1 items got no output and are not among the n; the first: 400 no, thank you"
            in partly.stdout
            and "| gsm8k | served | 3 | 33.3 |" in partly.stdout
        )
        assert (
            "| gsm8k | served against sft |" in partly.stdout
            and "items without an output of served" in partly.stdout
        )
        lost = rows(tmp_path / "runs" / "mine" / "05_eval" / "served" / "gsm8k.jsonl")[3]
        assert (lost["correct"], lost["correct_paper"], lost["finish_reason"], lost["error"]) == (
            None,
            None,
            "failed",
            "400 no, thank you",
        )
        counted = run_script(tmp_path, *command, *models, "--count-failed")
        assert (
            counted.returncode == 3
            and "| gsm8k | served | 4 | 25.0 |" in counted.stdout
            and "and count as wrong" in counted.stdout
        )
        server.fault = None
        server.asked.clear()
        printed = must_run(tmp_path, *command, *models)
        assert (
            len(server.asked) == 1
            and "Half of 6?" in server.asked[0]["prompt"]
            and server.asked[0]["body"]["temperature"] == 0
        )
    assert (
        "| gsm8k | served against sft | +0.0 | +0.0 to +0.0 | 0 | 0 | 1 | 3 | 1 | 1 | not distinguishable |"
        in printed
    )
    graded = rows(tmp_path / "runs" / "mine" / "05_eval" / "served" / "gsm8k.jsonl")
    assert [(r["gold"], r["correct"], r["output"]) for r in graded] == [
        (str(n), n == 2, "It is \\boxed{2}. ") for n in range(4)
    ]
    assert (tmp_path / "runs" / "mine" / "05_results.md").read_text().count(
        "| served |"
    ) == 3  # and AVG
    paid = rows(
        tmp_path
        / "runs"
        / "mine"
        / "05_journal"
        / content_id(f"served at {server.url}")[:12]
        / "math500.jsonl"
    )
    assert [r["usd"] for r in paid] == [
        (r["usage"]["prompt_tokens"] + 2 * r["usage"]["completion_tokens"]) / 1e6 for r in paid
    ]


def test_a_server_that_ignores_the_temperature_is_refused(tmp_path):
    """Three draws at temperature 2 that are one text.

    K samples of it would be one greedy answer. Another one may sample.
    """
    write_rows(
        tmp_path / "sets" / "math500" / "test.jsonl", [{"problem": "What is $1+1$?", "answer": "2"}]
    )
    command = [
        "05_eval.py",
        "--benchmarks",
        "math500",
        "--benchmarks-dir",
        "sets",
        "--samples",
        4,
        "--model",
    ]
    with FaultServer(text=lambda body: "It is \\boxed{2}.") as server:
        refused = run_script(tmp_path, *command, f"m@{server.url}", "--temperature", 0.6)
        assert (
            refused.returncode == 2
            and "ignores the temperature" in refused.stderr
            and len(server.asked) == 3
        )
        assert {e["body"]["temperature"] for e in server.asked} == {2.0} and len(
            {e["body"]["seed"] for e in server.asked}
        ) == 3
        greedy = run_script(tmp_path, *command, f"m@{server.url}")
        assert greedy.returncode == 2 and "4 equal outputs" in greedy.stderr
    with FaultServer(
        text=lambda body: f"It is \\boxed{{{body['seed'] % 2}}}, by {body['seed']}."
    ) as server:
        printed = must_run(tmp_path, *command, f"m@{server.url}", "--temperature", 0.6)
        assert len(server.asked) == 7 and "| math500 | m | 1 | 4 | 0.0 |" in printed
        assert {e["body"]["temperature"] for e in server.asked} == {2.0, 0.6}
        must_run(tmp_path, *command, f"m@{server.url}", "--temperature", 0.6)
        assert len(server.asked) == 7  # all is there: not even the probe is sent


def test_two_models_in_one_folder_are_two_models(finished, run_copy):
    """The folder that is scored gets other weights, as a second training would leave it.

    Nothing of the first one's answers is used; with the first weights back nothing is generated,
    and its scores come back to the digit.
    """
    folder, model = run_copy.parent.parent, run_copy.parent.parent / "model"
    shutil.copytree(run_copy / "04_train" / "cft" / "step-000006", model)
    command = ["05_eval.py", *SMALL["05_eval.py"], "--model", "model"]

    def scored():
        printed = must_run(folder, *command)
        score = run_copy / "05_eval" / "model" / "tiny.score.json"
        return (
            printed,
            json.loads(score.read_text())["engine"]["content"],
            rows(score.with_name("tiny.jsonl")),
        )

    first = scored()
    shutil.copy(run_copy / "04_train" / "sft" / "step-000006" / "model.safetensors", model)
    second = scored()
    shutil.copy(run_copy / "04_train" / "cft" / "step-000006" / "model.safetensors", model)
    third = scored()
    assert first[1:] == third[1:] and first[1] != second[1] and first[2] != second[2]
    assert second[2] == rows(
        run_copy / "05_eval" / "sft" / "tiny.jsonl"
    )  # it is the sft arm's last checkpoint
    assert (
        "nothing is asked" in first[0] and "nothing is asked" in third[0]
    )  # cft was scored before, under its own name


def test_empty_outputs_are_outputs(tmp_path):
    """A model may answer nothing at all.

    These items are wrong, which is a score (0 of 6), not a failure.
    """
    write_rows(
        tmp_path / "sets" / "math500" / "test.jsonl",
        [{"problem": f"What is {n}?", "answer": str(n)} for n in range(6)],
    )
    with FaultServer(text=lambda body: "") as server:
        must_run(
            tmp_path,
            "05_eval.py",
            "--model",
            "served",
            "--name",
            "mine",
            "--benchmarks",
            "math500",
            "--benchmarks-dir",
            "sets",
            "--base-url",
            server.url,
        )
    graded = rows(tmp_path / "runs" / "mine" / "05_eval" / "served" / "math500.jsonl")
    assert [(r["output"], r["correct"]) for r in graded] == [("", False)] * 6
    assert (
        "| math500 | served | 6 | 0.0 |"
        in (tmp_path / "runs" / "mine" / "05_results.md").read_text()
    )


# --- teachers -------------------------------------------------------------------------------------

THREE = [
    make_row(f"What is {n} + 1?", f"It is {n + 1}.", str(n + 1), "own", "somebody")
    for n in range(3)
]
A, B = "https://a/teacher", "b"  # the names of two teachers
CARRIED = THREE[1] | {
    "critique": "Came along.\n\nConclusion: wrong [END]",
    "critique_raw": "Came along.",
    "verdict": "wrong",
    "teacher": "carrier",
}


def write_responses(run, responses):
    write_rows(run / "01_responses" / "own.jsonl", responses)


@pytest.fixture
def taught(tmp_path):
    """Make a run `own` of THREE responses, and a server that speaks for every teacher.

    -> (run, server, ask). ask(teacher, *flags, status=0) runs 02 and returns what it printed.
    Critiques name the teacher and its temperature.
    """
    run = tmp_path / "runs" / "own"
    write_responses(run, THREE)

    def answer(body):
        is_critique = body["messages"][-1]["content"].startswith(prompts.TEACHER_CRITIQUE)
        end = "" if is_critique else " It is 5."
        return f"By {body['model']} at {body['temperature']}.{end}\n\nConclusion: right [END]"

    with FaultServer(text=answer) as server:

        def ask(teacher, *flags, status=0):
            command = ["02_critique.py", "--preset", "paper", "--name", "own", "--model", teacher]
            done = run_script(tmp_path, *command, "--base-url", server.url, *flags)
            assert done.returncode == status, done.stderr[-3000:]
            return done.stdout

        yield run, server, ask


def texts_by(run, teacher, folder="02_critiques", field="critique_raw"):
    """Return [(number of the response, first line of the text)] of a teacher's file."""
    numbers = {row["id"]: n for n, row in enumerate(THREE)}
    numbers |= {row["question_id"]: n for n, row in enumerate(THREE)}
    found = []
    for row in rows(run / folder / f"{file_label(teacher)}.jsonl"):
        number = numbers[row["id" if "id" in row else "question_id"]]
        found.append((number, row[field] and row[field].partition("\n")[0]))
    return found


def test_a_teacher_who_is_asked_again_replaces_its_own_rows_and_nobody_elses(taught):
    run, server, ask = taught
    ask(A, "--answers")
    assert texts_by(run, A) == [(n, f"By {A} at 0.3.") for n in range(3)]
    before = contents(run)
    ask(B, "--limit", 2)
    assert texts_by(run, B) == [(n, f"By {B} at 0.3.") for n in range(2)]
    after = contents(run)
    kept = [name for name in before if file_label(A) in name]
    assert len(kept) == 3 and all(before[name] == after[name] for name in kept)
    ask(A, "--answers", "--temperature", 0.7)
    assert texts_by(run, A) == [(n, f"By {A} at 0.7.") for n in range(3)]
    answers = texts_by(run, A, "02_answers", "answer")
    assert answers == [(n, f"By {A} at 0.7. It is 5.") for n in range(3)]
    for row in rows(run / "02_critiques" / f"{file_label(A)}.jsonl"):
        expected = content_id(row["id"], row["teacher"], row["critique_raw"])
        assert row["critique_id"] == expected and list(row) == FIELDS_02
    n = len(server.asked)
    ask(B)  # two of three are in the journal
    assert len(server.asked) == n + 1 == 6 + 2 + 6 + 1


def test_each_teacher_has_its_own_failures(taught):
    """Another teacher's run must not make a first one's failures disappear."""
    run, server, ask = taught

    def fault(body, nth):
        flagged = body["model"] == A and "2 + 1" in str(body["messages"])
        return "invalid-prompt" if flagged else None

    server.fault = fault
    printed = ask(A, "--answers", status=3)
    assert "2 rows" in printed and "02_failed" in printed and "--retry-failed" in printed
    assert texts_by(run, A) == [(n, f"By {A} at 0.3.") for n in (0, 1)]
    failures = run / "02_failed" / f"{file_label(A)}.jsonl"
    failed, unanswered = rows(failures)
    for row in (failed, unanswered):
        assert row["id"] == THREE[2]["id"] and row["teacher"] == A
        assert "400 invalid_prompt" in row["reason"]
    assert failed["verdict"] == "unparsed"
    assert len(rows(run / "02_answers" / f"{file_label(A)}.jsonl")) == 2
    must_run(run.parent.parent, "03_build.py", "--name", "own")
    ask(B)
    assert len(texts_by(run, B)) == 3 and rows(failures) == [failed, unanswered]
    n, server.fault = len(server.asked), None
    ask(A, "--answers", status=3)  # it failed for good: nothing is asked without --retry-failed
    assert len(server.asked) == n
    ask(A, "--answers", "--retry-failed")
    assert len(server.asked) == n + 2 and len(texts_by(run, A)) == 3 and rows(failures) == []


def test_a_teacher_without_one_good_row_leaves_what_exists(taught):
    run, server, ask = taught
    ask(A)
    before = contents(run)
    server.fault = lambda body, nth: "verdictless"
    ask(B, "--retries", 0, status=3)
    assert not (run / "02_critiques" / "b.jsonl").exists()
    assert len(rows(run / "02_failed" / "b.jsonl")) == 3
    after = contents(run)
    assert all(before[name] == after[name] for name in before if file_label(A) in name)


def test_03_builds_from_the_teachers_that_it_is_told(taught):
    """By default from all; a teacher who wrote nothing is refused and the others are named."""
    run, _, ask = taught
    ask(A, "--answers")
    ask(B)

    def build(*flags):
        shutil.rmtree(run / "03_data", ignore_errors=True)
        must_run(run.parent.parent, "03_build.py", "--name", "own", *flags)
        completions = {}
        for path in (run / "03_data").glob("*.jsonl"):
            texts = [row["completion"][0]["content"].split(" at")[0] for row in rows(path)]
            completions[path.stem] = sorted(texts)
        return completions

    built = build()
    assert built["cft"] == sorted([f"Critique:\nBy {A}", f"Critique:\nBy {B}"] * 3)
    assert len(built["sft"]) == 3  # a response is imitated once, for any number of critiques
    built = build("--teacher", A)
    assert built["cft"] == [f"Critique:\nBy {A}"] * 3 and built["sft-teacher"] == [f"By {A}"] * 3
    flags = ["--name", "own", "--teacher", A, "nobody", "no one"]
    wrong = run_script(run.parent.parent, "03_build.py", *flags)
    assert wrong.returncode == 2
    assert all(name in wrong.stderr for name in ("nobody", "no one", f"--teacher {B} {A}"))


def test_a_critique_that_came_along_passes_and_nobody_is_asked(taught):
    run, server, ask = taught
    write_responses(run, [THREE[0], CARRIED, THREE[2]])
    assert "3 responses, 1 of them with a critique already" in ask(B)
    assert [n for n, _ in texts_by(run, B)] == [0, 2] and len(server.asked) == 2
    (passed,) = rows(run / "02_critiques" / "carried.jsonl")
    assert set(passed) == set(FIELDS_02)
    assert passed == CARRIED | {
        "critique_id": content_id(CARRIED["id"], "carrier", "Came along."),
        "critique_finish_reason": None,
        "usage": None,
        "usd": None,
    }
    printed = must_run(run.parent.parent, "03_build.py", "--name", "own")
    assert "3 critiques" in printed and "carrier" in printed


def test_a_teacher_is_asked_about_all_only_if_told_so(taught):
    """The critique that came along stays in its own file; the teacher's row holds nothing of it."""
    run, server, ask = taught
    write_responses(run, [THREE[0], CARRIED, THREE[2]])
    ask(B, "--existing-critiques", "redo")
    assert texts_by(run, B) == [(n, f"By {B} at 0.3.") for n in range(3)]
    assert texts_by(run, "carried") == [(1, "Came along.")] and len(server.asked) == 3
    assert "Came along" not in json.dumps([entry["body"] for entry in server.asked])
    row = rows(run / "02_critiques" / "b.jsonl")[1]
    assert list(row) == FIELDS_02 and {k: row[k] for k in FIELDS_01} == THREE[1]
    assert row["critique"] == f"By {B} at 0.3.\n\nConclusion: right [END]"


def test_03_goes_on_without_a_teacher_whose_rows_all_failed(taught):
    """The one carried critique has no verdict, which 02 has said."""
    run, _, ask = taught
    write_responses(run, [THREE[0], CARRIED | {"verdict": "unparsed"}])
    ask(B, status=3)
    assert not (run / "02_critiques" / "carried.jsonl").exists()
    must_run(run.parent.parent, "03_build.py", "--name", "own")


def test_a_response_that_came_with_two_critiques_is_asked_about_once(taught):
    run, server, ask = taught
    second = CARRIED | {"critique_raw": "And again.", "teacher": "another"}
    write_responses(run, [CARRIED, second])
    ask(B, "--existing-critiques", "redo")
    assert len(server.asked) == len(texts_by(run, B)) == 1
    assert len({row["critique_id"] for row in rows(run / "02_critiques" / "carried.jsonl")}) == 2
