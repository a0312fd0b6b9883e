"""kill -9 in the middle of a stage, then the same command again: the files of a run that nobody disturbed.

A kill comes when progress is visible on disk. `finished` is the undisturbed run wherever its settings serve.
"""

import json
import shutil

import pytest
from safetensors import safe_open

from common.core.files import content_id, model_id
from common.data import sources
from common.tiny import world
from tests.faults import FaultServer
from tests.runs import (
    SMALL,
    contents,
    kill_when,
    make_base,
    must_run,
    n_lines,
    rows,
    run_script,
    write_rows,
)


def assert_whole(run):
    """What bears a final name is whole, also right after a kill: JSON that parses, tensors that load."""
    for path in run.rglob("*"):
        if ".part" in str(path.relative_to(run)) or not path.is_file():
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as f:
                assert list(f.keys()), path
        elif (
            path.suffix == ".jsonl" and "journal" not in path.name and path.name != "metrics.jsonl"
        ):  # these two are appended to
            rows(path)


def assert_same(run, undisturbed):
    """Same files, byte for byte (manifests apart, tensors as tensors); nothing twice, nothing left over."""
    assert contents(run) == contents(undisturbed)
    assert not [p for p in run.rglob("*") if ".part" in p.name or p.name.startswith("state")]
    for path in run.rglob("*.jsonl"):
        for key in (
            "key",
            "critique_id",
            "id",
            "question_id",
            "step",
        ):  # the first of them that the rows have tells them apart
            if names := [row[key] for row in rows(path) if key in row]:
                assert len(set(names)) == len(names), f"{path} holds a row twice"
                break


def test_01_draws_the_same_after_a_kill(tmp_path, tiny_model):
    command = [
        "01_sample.py",
        *SMALL["01_sample.py"],
        "--limit",
        24,
        "--model",
        "base",
        "--samples",
        2,
        "--batch-size",
        4,
        "--max-new-tokens",
        48,
    ]
    for folder in ("killed", "undisturbed"):
        make_base(tmp_path / folder / "runs" / "tiny", tiny_model)
    run, undisturbed = (tmp_path / folder / "runs" / "tiny" for folder in ("killed", "undisturbed"))
    journal = run / "01_journal.jsonl"
    kill_when(lambda: n_lines(journal) >= 8, tmp_path / "killed", *command)
    responses = run / "01_responses" / "base.jsonl"
    assert 8 <= n_lines(journal) < 48 and not responses.exists()
    kept = journal.read_bytes()
    journal.write_bytes(kept[:-20])  # a kill in the middle of a write: the last record is torn
    for folder in ("killed", "undisturbed"):
        must_run(tmp_path / folder, *command)
    assert len(rows(journal)) == 48 and journal.read_bytes().startswith(kept.rsplit(b"\n", 2)[0])
    # Equal ones would be left out: each sample has its own random numbers.
    assert len(rows(responses)) == 48
    assert_same(run, undisturbed)


def test_01_keeps_what_was_answered_when_the_server_ends_the_run(tmp_path):
    """A key is refused while others are on their way: their answers were paid for, and stay."""
    write_rows(tmp_path / "questions.jsonl", [{"question": f"What is {n}?"} for n in range(4)])
    command = [
        "01_sample.py",
        "--preset",
        "paper",
        "--name",
        "drawn",
        "--source",
        "questions.jsonl",
        "--model",
        "served",
        "--base-url",
    ]
    journal = tmp_path / "runs" / "drawn" / "01_journal.jsonl"
    responses = tmp_path / "runs" / "drawn" / "01_responses" / "served.jsonl"
    with FaultServer(
        fault=lambda body, nth: "key" if nth == 0 and "What is 1?" in body["prompt"] else None,
        latency=lambda body: 0 if "What is 1?" in body["prompt"] else 1,
    ) as server:
        stopped = run_script(tmp_path, *command, server.url)
        assert stopped.returncode == 4 and "Check OPENAI_API_KEY" in stopped.stderr
        assert "what was answered is kept" in stopped.stderr and not responses.exists()
        assert len(server.asked) == 4 and server.paid() == n_lines(journal) == 3
        must_run(tmp_path, *command, server.url)
        assert (
            server.paid() == len(server.asked) - 1 == n_lines(journal) == len(rows(responses)) == 4
        )


def test_02_asks_for_the_rest_after_kills(tmp_path):
    """Killed among the critiques, then among the teacher's own answers; nothing that was answered is asked again."""
    responses = [
        sources.make_row(**row, source="tiny", generator="forum")
        for row in world.forum_rows(0, 400)
    ]
    for folder in ("killed", "undisturbed"):
        write_rows(tmp_path / folder / "runs" / "tiny" / "01_responses.jsonl", responses)
    run, undisturbed = (tmp_path / folder / "runs" / "tiny" for folder in ("killed", "undisturbed"))
    journal, kept = run / "02_journal.jsonl", b""
    for until in (40, 440):
        kill_when(
            lambda: n_lines(journal) >= until,
            tmp_path / "killed",
            "02_critique.py",
            "--concurrency",
            1,
        )
        assert until <= n_lines(journal) < 800 and not (run / "02_critiques.jsonl").exists()
        assert journal.read_bytes().startswith(kept)
        kept = journal.read_bytes()[: journal.read_bytes().rindex(b"\n") + 1]
    for folder in ("killed", "undisturbed"):
        must_run(tmp_path / folder, "02_critique.py")
    assert journal.read_bytes().startswith(kept)
    assert_same(run, undisturbed)


@pytest.mark.parametrize("moment", ["after step 5", "after the last checkpoint"])
def test_04_trains_the_same_after_a_kill(finished, run_copy, moment):
    """Killed in the second of four arms: after step 5, whose state is from step 3 and whose checkpoint of step 4 is written
    again; or as soon as the last checkpoint stands, when the arm counts as trained but something may be left to do."""
    folder, arm = run_copy.parent.parent, run_copy / "04_train" / "sft-verified"
    shutil.rmtree(run_copy / "04_train")
    ready = {
        "after step 5": lambda: n_lines(arm / "metrics.jsonl") >= 5,
        "after the last checkpoint": lambda: (arm / "step-000006").exists(),
    }[moment]
    kill_when(ready, folder, "04_train.py", *SMALL["04_train.py"])
    assert not (run_copy / "04_train" / "cft" / "step-000006").exists()
    assert_whole(run_copy)
    assert "sft: runs/tiny/04_train/sft/step-000006 exists" in must_run(
        folder, "04_train.py", *SMALL["04_train.py"]
    )
    assert_same(run_copy, finished.run)


def test_05_asks_for_the_rest_after_a_kill(finished, run_copy):
    """Killed while the second of five models is asked."""
    folder, key = (
        run_copy.parent.parent,
        content_id(model_id(run_copy / "04_train" / "sft" / "step-000006"))[:12],
    )
    journal = run_copy / "05_journal" / key / "tiny.jsonl"
    shutil.rmtree(run_copy / "05_eval")
    shutil.rmtree(run_copy / "05_journal")
    kill_when(lambda: n_lines(journal) >= 2, folder, "05_eval.py", *SMALL["05_eval.py"])
    assert not (run_copy / "05_eval" / "cft").exists()
    assert_whole(run_copy)
    must_run(folder, "05_eval.py", *SMALL["05_eval.py"])
    assert_same(run_copy, finished.run)
