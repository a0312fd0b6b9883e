"""05 as a whole: seeds, the choice of checkpoints, and torchrun."""

import json
import shutil
import sys

import pytest

from tests.faults import FaultServer
from tests.runs import SMALL, contents, must_run, rows, run_script, write_rows

SETTINGS = SMALL["05_eval.py"]
MODELS = ["base", "sft", "sft-verified", "sft-teacher", "cft", "cft-short"]


def test_seeds_and_the_best_of_all_checkpoints(run_copy):
    """Two trainings as seeds, each with a choice among its checkpoints after 2, 4 and 6 steps."""
    trainings = [f"runs/tiny/04_train/{name}" for name in ("sft", "cft")]
    must_run(
        run_copy.parent.parent,
        "05_eval.py",
        *SETTINGS,
        "--model",
        "base",
        "--seeds",
        f"two={','.join(trainings)}",
        "--selection",
        "validation",
    )
    results = json.loads((run_copy / "05_eval" / "scores.json").read_text())
    assert [score["model"] for score in results["scores"]] == ["base", "two.1", "two.2"]
    assert [(row["model"], row["runs"]) for row in results["seeds"]] == [("two", 2)]
    compared = [(row["model"], row["baseline"]) for row in results["comparisons"]]
    assert compared == [("two", "base")] and "runs_low" not in results["comparisons"][0]
    selection = [(row["arm"], row["step"]) for row in results["selection"]]
    assert selection == [(name, step) for name in ("two.1", "two.2") for step in (2, 4, 6)]
    assert sum(row["chosen"] for row in results["selection"]) == 2
    page = (run_copy / "05_results.md").read_text()
    for heading in ("## Scores", "## Against base", "## Over seeds", "## Choice of checkpoints"):
        assert heading in page
    assert (run_copy / "05_selection.png").exists()


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(finished, run_copy):
    """torchrun shares the prompts out; process 0 alone grades, writes and prints."""
    for name in ("05_eval", "05_journal"):
        shutil.rmtree(run_copy / name)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    printed = must_run(run_copy.parent.parent, "05_eval.py", *SETTINGS, prefix=torchrun)
    assert printed.count("# Results") == 1
    for model in MODELS:
        path = f"05_eval/{model}/tiny.jsonl"
        assert rows(run_copy / path) == rows(finished.run / path)


def test_further_fields_reach_a_server_and_are_asked_anew(run_copy):
    """The fields are in each request, and in the manifest; answers without them are no answers."""
    body = {"top_k": 1, "chat_template_kwargs": {"enable_thinking": False}}
    with FaultServer() as server:
        model = ["--model", f"served=name@{server.url}", "--concurrency", "4"]
        must_run(run_copy.parent.parent, "05_eval.py", *SETTINGS, *model)
        plain = [entry["body"] for entry in server.asked]
        extra = ["--extra-body", json.dumps(body)]
        must_run(run_copy.parent.parent, "05_eval.py", *SETTINGS, *model, *extra)
        further = [entry["body"] for entry in server.asked[len(plain) :]]
    assert not [asked for asked in plain if "top_k" in asked]
    n_items = len(rows(run_copy / "05_eval" / "served" / "tiny.jsonl"))
    assert n_items <= len(further) == len(plain)
    assert all(asked.items() >= body.items() for asked in further)
    manifest = json.loads((run_copy / "05_results.run.json").read_text())
    assert json.loads(manifest["config"]["extra_body"]) == body


def test_a_test_set_of_the_users_own_is_scored_as_any_other(run_copy):
    """A server that answers everything with one box: of three golds, 7 and 7.05 (at 1 %) are it."""
    folder = run_copy.parent.parent
    rows_of_set = [{"question": f"{gold}?", "gold": gold} for gold in ("7", "7.05", "8")]
    write_rows(folder / "exam.jsonl", rows_of_set)
    with FaultServer(text=lambda body: "\\boxed{7}") as server:
        model = ["--model", f"served=name@{server.url}", "--benchmarks", "exam=exam.jsonl"]
        must_run(folder, "05_eval.py", *model, "--tolerance", "0.01")
    graded = rows(run_copy / "05_eval" / "served" / "exam.jsonl")
    assert [row["correct"] for row in graded] == [True, True, False]
    manifest = json.loads((run_copy / "05_results.run.json").read_text())
    assert "exam.jsonl" in manifest["inputs"] and set(manifest["digests"]) == {"exam"}


def test_ask_shows_the_answers_and_writes_nothing(run_copy):
    folder = run_copy.parent.parent
    before = contents(run_copy)
    with FaultServer(text=lambda body: "It is\x1b[2J four.") as server:
        printed = must_run(
            folder,
            "05_eval.py",
            "--model",
            f"served=name@{server.url}",
            "--ask",
            "What is 2 + 2?",
            "And 1 + 3?",
        )
        assert len(server.asked) == 2
    assert printed.count("four.") == 2 and "\x1b" not in printed
    assert contents(run_copy) == before
    printed = must_run(folder, "05_eval.py", "--model", "cft", "--ask", "2 + 2?")
    assert "2 + 2?\n-> " in printed and contents(run_copy) == before
    done = run_script(folder, "05_eval.py", "--ask", "2 + 2?")  # of six models
    assert done.returncode == 2 and "--model" in done.stderr
