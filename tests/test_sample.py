"""01: what its files are called, and that processes share the draws. Drawing: test_chain.py."""

import pytest

from tests import runs
from tests.runs import must_run, rows, run_process, run_script, write_rows

RECORD = {"question": "1+1?", "response": "2", "gold": "2"}


def sample(folder, *flags):
    return run_script(folder, "01_sample.py", "--preset", "paper", "--name", "own", *flags)


def test_each_command_writes_a_file_of_its_own(tmp_path):
    """Called like its source, or as --label says; the same label for another source is an error."""
    write_rows(tmp_path / "own.jsonl", [RECORD])
    write_rows(tmp_path / "more" / "own.jsonl", [RECORD | {"response": "3"}])
    assert sample(tmp_path, "--source", "own.jsonl").returncode == 0
    clash = sample(tmp_path, "--source", "more/own.jsonl")
    assert clash.returncode == 2 and "--label" in clash.stderr and "own.jsonl" in clash.stderr
    assert sample(tmp_path, "--source", "more/own.jsonl", "--label", "more").returncode == 0
    folder = tmp_path / "runs" / "own" / "01_responses"
    responses = {path.stem: [row["response"] for row in rows(path)] for path in folder.glob("*l")}
    assert responses == {"own": ["2"], "more": ["3"]}


def test_one_row_and_the_next_command_are_printed(tmp_path):
    write_rows(tmp_path / "own.jsonl", [RECORD])
    printed = sample(tmp_path, "--source", "own.jsonl").stdout
    assert "1+1?\n-> 2\n" in printed
    assert printed.splitlines()[-1] == "next: python 02_critique.py --name own"


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(tmp_path, tiny_model):
    flags = ["--model", "base", "--limit", "12", "--base-steps", "1", "--max-new-tokens", "24"]
    torchrun = ("torchrun", "--standalone", "--nproc-per-node", "2")
    for name, prefix in (("one", ()), ("two", torchrun)):
        runs.make_base(tmp_path / name / "runs" / "tiny", tiny_model)
        if prefix:
            result = run_process(tmp_path / name, "01_sample.py", *flags, prefix=prefix)
            assert result.returncode == 0, result.stderr[-3000:]
        else:
            must_run(tmp_path / name, "01_sample.py", *flags)
    files = [tmp_path / name / "runs/tiny/01_responses/base.jsonl" for name in ("one", "two")]
    assert rows(files[0]) == rows(files[1])
