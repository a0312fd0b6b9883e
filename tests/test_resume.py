"""kill -9 in the middle of a stage, then the same command again: the files of a run that nobody disturbed.

A kill comes when progress is visible on disk. `finished` is the undisturbed run wherever its settings serve.
"""

import json
import shutil

from safetensors import safe_open

from common import sources
from common.tiny import world
from tests.runs import SMALL, contents, kill_when, make_base, must_run, n_lines, rows, write_rows


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
        elif path.suffix == ".jsonl" and "journal" not in path.name and path.name != "metrics.jsonl":  # these two are appended to
            rows(path)


def assert_same(run, undisturbed):
    """Same files, byte for byte (manifests apart, tensors as tensors); nothing twice, nothing left over."""
    assert contents(run) == contents(undisturbed)
    assert not [p for p in run.rglob("*") if ".part" in p.name or p.name.startswith("state")]
    for path in run.rglob("*.jsonl"):
        names = [row.get("key") or row.get("critique_id") or row.get("id") or row.get("question_id") or row["step"] for row in rows(path)]
        assert len(set(names)) == len(names), f"{path} holds a row twice"


def test_01_draws_the_same_after_a_kill(tmp_path, tiny_model):
    command = ["01_sample.py", *SMALL["01_sample.py"], "--limit", 24, "--model", "base", "--samples", 2, "--batch-size", 4, "--max-new-tokens", 48]
    for folder in ("killed", "undisturbed"):
        make_base(tmp_path / folder / "runs" / "tiny", tiny_model)
    run, undisturbed = (tmp_path / folder / "runs" / "tiny" for folder in ("killed", "undisturbed"))
    kill_when(lambda: n_lines(run / "01_journal.jsonl") >= 8, tmp_path / "killed", *command)
    assert 8 <= n_lines(run / "01_journal.jsonl") < 48 and not (run / "01_responses.jsonl").exists()
    kept = (run / "01_journal.jsonl").read_bytes()
    (run / "01_journal.jsonl").write_bytes(kept[:-20])  # a kill in the middle of a write: the last record is torn
    for folder in ("killed", "undisturbed"):
        must_run(tmp_path / folder, *command)
    assert len(rows(run / "01_journal.jsonl")) == 48 and (run / "01_journal.jsonl").read_bytes().startswith(kept.rsplit(b"\n", 2)[0])
    assert len(rows(run / "01_responses.jsonl")) == 48  # equal ones are left out: each sample has its own random numbers
    assert_same(run, undisturbed)


def test_02_asks_for_the_rest_after_kills(tmp_path):
    """Killed among the critiques, then among the teacher's own answers; nothing that was answered is asked again."""
    responses = [sources.make_row(**row, source="tiny", generator="forum") for row in world.forum_rows(0, 400)]
    for folder in ("killed", "undisturbed"):
        write_rows(tmp_path / folder / "runs" / "tiny" / "01_responses.jsonl", responses)
    run, undisturbed = (tmp_path / folder / "runs" / "tiny" for folder in ("killed", "undisturbed"))
    journal, kept = run / "02_journal.jsonl", b""
    for until in (40, 440):
        kill_when(lambda: n_lines(journal) >= until, tmp_path / "killed", "02_critique.py", "--concurrency", 1)
        assert until <= n_lines(journal) < 800 and journal.read_bytes().startswith(kept) and not (run / "02_critiques.jsonl").exists()
        kept = journal.read_bytes()[: journal.read_bytes().rindex(b"\n") + 1]
    for folder in ("killed", "undisturbed"):
        must_run(tmp_path / folder, "02_critique.py")
    assert journal.read_bytes().startswith(kept)
    assert_same(run, undisturbed)


def test_04_trains_the_same_after_a_kill(finished, run_copy):
    """Killed after step 5 of the second arm, whose state is from step 3 and whose checkpoint of step 4 is written again."""
    folder, arm = run_copy.parent.parent, run_copy / "04_train" / "sft-verified"
    shutil.rmtree(run_copy / "04_train")
    kill_when(lambda: n_lines(arm / "metrics.jsonl") >= 5, folder, "04_train.py", *SMALL["04_train.py"])
    assert not (run_copy / "04_train" / "cft" / "step-000006").exists()
    assert_whole(run_copy)
    assert "sft: runs/tiny/04_train/sft/step-000006 stands" in must_run(folder, "04_train.py", *SMALL["04_train.py"])
    assert_same(run_copy, finished.run)


def test_04_finishes_what_a_kill_left_after_the_last_checkpoint(finished, run_copy):
    """The last checkpoint stands, but the curve is not drawn and the state not removed: the same command does both."""
    arm = run_copy / "04_train" / "cft"
    (arm / "loss.png").unlink()
    shutil.copytree(arm / "step-000004", arm / "state-000003")
    must_run(run_copy.parent.parent, "04_train.py", *SMALL["04_train.py"])
    assert_same(run_copy, finished.run)


def test_05_asks_for_the_rest_after_a_kill(finished, run_copy):
    """Killed while the second of five models is asked."""
    folder, journal = run_copy.parent.parent, run_copy / "05_eval" / "sft" / "tiny.journal.jsonl"
    shutil.rmtree(run_copy / "05_eval")
    kill_when(lambda: n_lines(journal) >= 2, folder, "05_eval.py", *SMALL["05_eval.py"])
    assert not (run_copy / "05_eval" / "cft").exists()
    assert_whole(run_copy)
    must_run(folder, "05_eval.py", *SMALL["05_eval.py"])
    assert_same(run_copy, finished.run)
