"""The five scripts end to end: what they leave, a second time, on two processes, on other input."""

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
from common.core.files import content_id, file_hash, model_id
from common.data.sources import make_row
from tests.faults import FaultServer
from tests.runs import SMALL, STAGES, contents, must_run, rows, run_script, write_rows

# cft-clean would be cft again: the tiny teacher is always right.
SETS = ("sft", "sft-verified", "sft-teacher", "cft", "cft-short")
MODELS = ("base", *SETS)
TEACHER = "tiny-teacher:skip=0.1:critique=full"
RESPONSES = "01_responses/tiny.jsonl"
CRITIQUES = f"02_critiques/{manifests.file_label(TEACHER)}.jsonl"
ANSWERS = f"02_answers/{manifests.file_label(TEACHER)}.jsonl"
FAILED = f"02_failed/{manifests.file_label(TEACHER)}.jsonl"
FIELDS_01 = [
    *("id", "question_id", "question", "gold", "response"),
    *("source", "generator", "sample", "finish_reason"),
]
FIELDS_02 = [
    *(*FIELDS_01, "correct"),
    *("critique_id", "teacher", "critique", "critique_raw", "verdict"),
    *("critique_finish_reason", "usage", "usd"),
]


# --- what a run leaves ---------------------------------------------------------------------------


def test_every_file_of_the_floor_plan(finished):
    expected = {RESPONSES, CRITIQUES, ANSWERS, FAILED, "02_critiques.html"}
    expected |= {"03_report.md", "03_report.png"}
    expected |= {"05_results.md", "05_results.png", "05_outputs.html", "05_eval/scores.json"}
    for name in SETS:
        folder = f"04_train/{name}"
        expected |= {f"03_data/{name}.jsonl", f"03_data/{name}.run.json"}
        expected |= {f"{folder}/{file}" for file in ("metrics.jsonl", "loss.png", "run.json")}
        steps = (2, 4, 6)  # 24 rows in batches of 4
        expected |= {f"{folder}/step-00000{step}/model.safetensors" for step in steps}
    for model in MODELS:
        expected |= {f"05_eval/{model}/tiny.jsonl", f"05_eval/{model}/tiny.score.json"}
    paths = {str(path.relative_to(finished.run)) for path in finished.run.rglob("*")}
    assert expected <= paths
    unfinished = [path for path in paths if ".part" in path or "/state" in path]
    assert not unfinished
    for image in finished.run.rglob("*.png"):
        assert image.read_bytes().startswith(b"\x89PNG")


def test_each_script_names_the_next(finished):
    last = {name: printed.strip().splitlines()[-1] for name, printed in finished.printed.items()}
    for name, following in zip(STAGES, STAGES[1:]):
        assert last[name] == f"next: python {following} --name tiny"
    assert last["05_eval.py"].startswith("next: ")


def test_rows_of_01_and_02(finished):
    """02 keeps 01's rows, fields and order, and adds; ids are hashes of the content."""
    responses, critiques = rows(finished.run / RESPONSES), rows(finished.run / CRITIQUES)
    assert len(responses) == 48 and len({row["id"] for row in responses}) == 48
    for response, critique in zip(responses, critiques, strict=True):
        assert list(response) == FIELDS_01 and list(critique) == FIELDS_02
        assert {field: critique[field] for field in FIELDS_01} == response
        assert response["question_id"] == content_id(response["question"])
        assert response["id"] == content_id(response["question"], response["response"])
        parts = (critique["id"], critique["teacher"], critique["critique_raw"])
        assert critique["critique_id"] == content_id(*parts)
        correct = grading.is_correct(response["response"], response["gold"])
        assert critique["correct"] is correct
        assert critique["verdict"] == ("right" if correct else "wrong")
    assert {row["verdict"] for row in critiques} == {"right", "wrong"}
    answers = rows(finished.run / ANSWERS)
    assert {"question_id", "question", "gold", "teacher", "answer"} <= set(answers[0])
    asked = [row["question_id"] for row in answers]
    assert asked == [row["question_id"] for row in responses]  # each question was asked once
    assert rows(finished.run / FAILED) == []


def test_rows_of_03(finished):
    """Prompt and completion, tied to the row of 02 that they were made of."""
    critiques = {row["id"]: row for row in rows(finished.run / CRITIQUES)}
    answers = {row["question_id"]: row["answer"] for row in rows(finished.run / ANSWERS)}
    for name in SETS:
        built = rows(finished.run / "03_data" / f"{name}.jsonl")
        assert len(built) == 24 and len({row["id"] for row in built}) == 24
        for row in built:
            source = critiques[row["response_id"]]
            assert list(row) == ["id", "prompt", "completion", "arm", "response_id", "verdict"]
            verdict = None if name == "sft-teacher" else source["verdict"]
            assert (row["arm"], row["verdict"]) == (name, verdict)
            system, user = row["prompt"]
            assert system == {"role": "system", "content": "You are a helpful assistant."}
            assert user["role"] == "user" and source["question"] in user["content"]
            (completion,) = row["completion"]
            assert completion["role"] == "assistant"
            if name.startswith("cft"):
                assert source["response"] in user["content"]
                assert completion["content"] == "Critique:\n" + source["critique"]
                assert completion["content"].endswith(f"\n\nConclusion: {verdict} [END]")
            elif name == "sft-teacher":
                assert completion["content"] == answers[source["question_id"]]
            else:
                assert completion["content"] == source["response"]


def test_sets_share_their_questions(finished):
    used = {}
    for name in SETS:
        built = rows(finished.run / "03_data" / f"{name}.jsonl")
        used[name] = [row["response_id"] for row in built]
    assert used["sft"] == used["cft"] == used["sft-teacher"]
    critiques = rows(finished.run / CRITIQUES)
    right = {row["id"] for row in critiques if row["verdict"] == "right"}
    shared = [name for name in used["sft"] if name in right]
    assert 0 < len(shared) < 24
    assert used["sft-verified"][: len(shared)] == shared  # then come the next right ones
    assert set(used["sft-verified"]) <= right


def test_checkpoint_is_a_plain_hugging_face_folder(finished):
    folder = finished.run / "04_train" / "cft" / "step-000006"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = rows(finished.run / "03_data" / "cft.jsonl")[0]
    text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    assert text == prompts.render(row["prompt"], "chatml")
    stops = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.generation_config.eos_token_id == stops
    assert model.generation_config.pad_token_id is not None
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]
    base = AutoModelForCausalLM.from_pretrained(finished.run / "01_base").state_dict()
    trained = model.state_dict()
    assert base.keys() == trained.keys()
    assert not all(base[name].equal(trained[name]) for name in base)


def test_rows_and_scores_of_05(finished):
    """The prompt is the text that was sent; the scores can be counted again from the rows."""
    scores = json.loads((finished.run / "05_eval" / "scores.json").read_text())["scores"]
    by_model = {score["model"]: score for score in scores}
    assert sorted(by_model) == sorted(MODELS)
    fields = {
        *("id", "benchmark", "sample", "question", "prompt", "output", "finish_reason"),
        *("n_tokens", "extracted", "extraction_method", "gold", "correct", "correct_paper"),
        "timed_out",
    }
    form = re.compile(
        r"<\|im_start\|>system\nPlease reason step by step, and put your final answer within "
        r"\\boxed\{\}\.<\|im_end\|>\n<\|im_start\|>user\n(.*)<\|im_end\|>\n"
        r"<\|im_start\|>assistant\n",
        re.DOTALL,
    )
    trained_on = {row["question_id"] for row in rows(finished.run / RESPONSES)}
    ids = [row["id"] for row in rows(finished.run / "05_eval" / "base" / "tiny.jsonl")]
    assert len(ids) == 8 and not trained_on & set(ids)
    for name in MODELS:
        graded = rows(finished.run / "05_eval" / name / "tiny.jsonl")
        assert [row["id"] for row in graded] == ids and fields <= set(graded[0])
        for row in graded:
            assert row["id"] == content_id(form.fullmatch(row["prompt"])[1])
            assert row["n_tokens"] <= 12
        score = by_model[name]
        assert score["n"] == 8
        assert score["correct"] == sum(row["correct"] for row in graded)
        truncated = sum(row["finish_reason"] == "length" for row in graded)
        assert score["truncated"] == truncated


def test_manifests_are_true(finished):
    """Each names its command, and every hash in it is that of the file as it is now."""
    outputs = [RESPONSES, CRITIQUES, *(f"03_data/{name}.jsonl" for name in SETS)]
    files = [finished.run / output for output in outputs]
    made = {file: manifests.read_manifest(file) for file in files}
    for name in SETS:
        file = finished.run / "04_train" / name / "run.json"
        made[file] = json.loads(file.read_text())
    made[finished.run / "05_results.md"] = manifests.read_manifest(finished.run / "05_results.md")
    for file, manifest in made.items():
        stage = int(str(file.relative_to(finished.run))[:2]) - 1
        assert manifest["command"] == [STAGES[stage], *SMALL[STAGES[stage]]]
        assert manifest["config"]["name"] == "tiny" and manifest["versions"]["torch"]
        assert {"finished", "seconds", "commit", "gpu"} <= set(manifest)
        for path, digest in manifest["inputs"].items():
            assert file_hash(finished.folder / path) == digest
        if file in files:
            assert manifest["output_sha256"] == file_hash(file)
    critiques = made[finished.run / CRITIQUES]
    assert (critiques["teacher"], critiques["usd"]) == (TEACHER, None)
    training = made[finished.run / "04_train" / "cft" / "run.json"]
    assert training["base_id"] == model_id(finished.run / "01_base")
    assert training["processes"] == 1
    engines = made[finished.run / "05_results.md"]["engines"]
    for name in SETS:
        folder = finished.folder / engines[name]["folder"]
        assert folder.name == "step-000006" and engines[name]["content"] == model_id(folder)


def test_a_second_time_nothing_is_done_again(finished, run_copy):
    def times():
        paths = [
            *(run_copy / "01_base").rglob("*"),
            *(run_copy / "04_train").rglob("*.safetensors"),
        ]
        return {path: path.stat().st_mtime_ns for path in paths}

    before, made = contents(run_copy), times()
    for name in STAGES:
        must_run(run_copy.parent.parent, name, *SMALL[name])
    assert contents(run_copy) == before  # the journals among them: nobody was asked again
    assert times() == made


# --- 1 process and 2 -----------------------------------------------------------------------------

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_two_processes_give_the_curve_of_one(finished, run_copy):
    """The same global batches; on two processes some micro-batches are empty."""
    shutil.rmtree(run_copy / "04_train")
    command = ["04_train.py", "--arms", "cft", *SMALL["04_train.py"], "--tokens-per-microbatch", 90]
    must_run(run_copy.parent.parent, *command, prefix=TORCHRUN)
    manifest = json.loads((run_copy / "04_train" / "cft" / "run.json").read_text())
    assert manifest["processes"] == 2
    one = rows(finished.run / "04_train" / "cft" / "metrics.jsonl")
    two = rows(run_copy / "04_train" / "cft" / "metrics.jsonl")
    assert [row["step"] for row in one] == [row["step"] for row in two] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(one, two):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], abs=1e-4)
        assert all(b[key] == a[key] for key in ("tokens", "supervised", "learning_rate"))
    # A curve that moves: the weights stay equal too.
    assert max(abs(row["loss"] - one[0]["loss"]) for row in one) > 0.02


# --- input of one's own --------------------------------------------------------------------------

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
    *("--columns", "question=problem", "response=solution", "verdict=ok"),
    *("--verdict-values", "true=right", "false=wrong"),
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_local_file_with_critiques(tmp_path, kind):
    """Critiques and a boolean verdict come with the data; 02 and 03 run as the scripts printed."""
    source = tmp_path / f"own.{kind}"
    if kind == "jsonl":
        write_rows(source, OWN)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(OWN), source)
    run_flags = ["--name", "own", "--preset", "paper"]
    printed = must_run(tmp_path, "01_sample.py", "--source", source.name, *COLUMNS, *run_flags)
    for name in ("02_critique.py", "03_build.py"):
        following = re.search(r"^next: python (\S+) (.*)$", printed, re.MULTILINE)
        assert following[1] == name
        printed = must_run(tmp_path, name, *following[2].split())
    run = tmp_path / "runs" / "own"
    critiques = rows(run / "02_critiques" / "carried.jsonl")
    assert [row["question"] for row in critiques] == [row["problem"] for row in OWN]
    assert [row["verdict"] for row in critiques] == ["right", "wrong"] * 3
    assert critiques[1]["critique_raw"] == "The sum is 2."
    assert critiques[1]["critique"] == "The sum is 2.\n\nConclusion: wrong [END]"
    used = {row["response_id"] for row in rows(run / "03_data" / "cft.jsonl")}
    assert used == {row["id"] for row in critiques}
    assert {row["verdict"] for row in rows(run / "03_data" / "sft-verified.jsonl")} == {"right"}


def test_01_draws_from_a_server(tmp_path):
    """Each sample has a seed of its own; a refused question is counted, and asked alone later."""
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
            and "400 refused no, thank you" in first.stdout
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
    """An item without an output is left out (status 3), and alone asked for the next time."""
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
            and "1 item got no output (status 3): the same command asks only for those"
            in partly.stdout
        )
        assert "$0.0" in partly.stderr  # the progress bar counts what it costs
        assert (
            "served, gsm8k: 1 item got no output, left out of the n; "
            "the first: 400 refused no, thank you"
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
            "400 refused no, thank you",
        )
        counted = run_script(tmp_path, *command, *models, "--count-failed")
        assert (
            counted.returncode == 3
            and "| gsm8k | served | 4 | 25.0 |" in counted.stdout
            and "counted as wrong" in counted.stdout
        )
        server.fault = None
        server.asked.clear()
        printed = must_run(tmp_path, *command, *models)
        assert (
            len(server.asked) == 1
            and "Half of 6?" in server.asked[0]["prompt"]
            and server.asked[0]["body"]["temperature"] == 0
        )
    assert "| gsm8k | served against sft | +0.0 |" in printed
    headline = json.loads((tmp_path / "runs" / "mine" / "05_eval" / "scores.json").read_text())
    (compared,) = [row for row in headline["comparisons"] if row["benchmark"] == "gsm8k"]
    assert (compared["both"], compared["neither"], compared["holm"]) == (1, 3, 1)
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
    """Three draws at temperature 2 that are one text: k samples would be one greedy answer."""
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
        assert len(server.asked) == 7 and "| math500 | m | 1 | 0.0 |" in printed
        assert {e["body"]["temperature"] for e in server.asked} == {2.0, 0.6}
        must_run(tmp_path, *command, f"m@{server.url}", "--temperature", 0.6)
        assert len(server.asked) == 7  # all is there: not even the probe is sent


def test_two_models_in_one_folder_are_two_models(finished, run_copy):
    """The folder gets other weights: nothing of the first model's answers is used.

    With the first weights back nothing is generated, and its scores are the same to the digit.
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
    """A model may answer nothing at all: a score of 0 of 6, not a failure."""
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


# --- teachers ------------------------------------------------------------------------------------

THREE = [
    make_row(f"What is {n} + 1?", f"It is {n + 1}.", str(n + 1), "own", "somebody")
    for n in range(3)
]
A, B = "https://a/teacher", "b"  # the names of two teachers


@pytest.fixture
def taught(tmp_path):
    """Make a run `own` of THREE responses, and a server that speaks for every teacher.

    -> run, server, ask: ask(teacher, *flags, status=0) runs 02 and returns what it printed.
    Critiques name the teacher and its temperature.
    """
    run = tmp_path / "runs" / "own"
    write_rows(run / "01_responses" / "own.jsonl", THREE)

    def reply(body):
        is_critique = body["messages"][-1]["content"].startswith(prompts.TEACHER_CRITIQUE)
        answer = "" if is_critique else " It is 5."
        return f"By {body['model']} at {body['temperature']}.{answer}\n\nConclusion: right [END]"

    with FaultServer(text=reply) as server:

        def ask(teacher, *flags, status=0):
            command = ["02_critique.py", "--preset", "paper", "--name", "own", "--model", teacher]
            done = run_script(tmp_path, *command, "--base-url", server.url, *flags)
            assert done.returncode == status, done.stderr[-3000:]
            return done.stdout

        yield run, server, ask


def critiques_of(run, teacher, folder="02_critiques", field="critique_raw"):
    """Return [(number of the response, first line of what the teacher wrote)]."""
    numbers = {row[key]: n for n, row in enumerate(THREE) for key in ("id", "question_id")}
    found = []
    for row in rows(run / folder / f"{manifests.file_label(teacher)}.jsonl"):
        found.append((numbers[row["question_id"]], row[field].partition("\n")[0]))
    return found


def test_a_teacher_writes_its_own_files_and_nobody_elses(taught):
    run, server, ask = taught
    ask(A, "--answers")
    first = contents(run)
    ask(B)
    assert critiques_of(run, A) == [(n, f"By {A} at 0.3.") for n in range(3)]
    assert critiques_of(run, B) == [(n, f"By {B} at 0.3.") for n in range(3)]
    files = {name for name in first if re.fullmatch("02_.*/.*", name)}
    assert len(files) == 3 and all(contents(run)[name] == first[name] for name in files)
    ask(A, "--answers", "--temperature", 0.7)
    assert critiques_of(run, A) == [(n, f"By {A} at 0.7.") for n in range(3)]
    answers = critiques_of(run, A, "02_answers", "answer")
    assert answers == [(n, f"By {A} at 0.7. It is 5.") for n in range(3)]
    ask(B)  # all of it is in the journal
    assert len(server.asked) == 6 + 3 + 6
    ask(B, "--limit", 1)  # a first look
    assert len(critiques_of(run, A)) == 3 and critiques_of(run, B) == [(0, f"By {B} at 0.3.")]


def test_03_takes_all_teachers_or_those_that_it_is_told(taught):
    """A teacher who wrote nothing is refused and the others are named."""
    run, _, ask = taught
    ask(A, "--answers")
    ask(B)

    def build(*flags):
        shutil.rmtree(run / "03_data", ignore_errors=True)
        must_run(run.parent.parent, "03_build.py", "--name", "own", *flags)
        built = {}
        for path in (run / "03_data").glob("*.jsonl"):
            built[path.stem] = [row["completion"][0]["content"] for row in rows(path)]
        return built

    both = build()
    starts = [text.split(" at")[0] for text in both["cft"]]
    assert sorted(starts) == sorted([f"Critique:\nBy {A}", f"Critique:\nBy {B}"] * 3)
    assert len(both["sft"]) == 3  # a response is imitated once, whoever judged it
    assert [text.split(" at")[0] for text in both["sft-teacher"]] == [f"By {A}"] * 3
    only = build("--teacher", B)
    assert [text.split(" at")[0] for text in only["cft"]] == [f"Critique:\nBy {B}"] * 3
    assert "sft-teacher" not in only  # B gave no answers
    command = ["03_build.py", "--name", "own"]
    wrong = run_script(run.parent.parent, *command, "--teacher", A, "nobody")
    assert wrong.returncode == 2
    assert "nobody" in wrong.stderr and A in wrong.stderr and "--teacher" in wrong.stderr
    wrong = run_script(run.parent.parent, *command, "--teacher", B, "--arms", "sft-teacher")
    assert wrong.returncode == 2 and "02_critique.py --name own --answers" in wrong.stderr


def test_an_old_run_is_refused_by_every_later_stage(run_copy):
    """The error names the commit that made it, and how the journal is kept."""
    (run_copy / "01.run.json").write_text(json.dumps({"commit": "6aaaad3"}))
    before = contents(run_copy)
    for name in STAGES[1:]:
        done = run_script(run_copy.parent.parent, name)
        assert done.returncode == 2 and "6aaaad3" in done.stderr, done.stderr
        assert "--name" in done.stderr and "02_journal.jsonl" in done.stderr
    assert contents(run_copy) == before
