"""A user's mistakes: status 2, what was seen and how to mend it on stderr, no traceback, and the run as it was before."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.runs import SMALL, Completions, contents, rows, run_script, write_rows


def nothing(folder):
    """Leave the finished run as it is."""


def without(*names):
    """Remove files or folders of the run."""
    def prepare(folder):
        for path in [folder / "runs" / "tiny" / name for name in names]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return prepare


def source(*lines):
    """my.jsonl in the working directory, of these lines."""
    def prepare(folder):
        (folder / "my.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return prepare


def model_without(pattern):
    """A model folder `incomplete`, and no arm trained yet."""
    def prepare(folder):
        shutil.copytree(folder / "runs" / "tiny" / "01_base", folder / "incomplete", ignore=shutil.ignore_patterns(pattern))
        shutil.rmtree(folder / "runs" / "tiny" / "04_train")
    return prepare


def torn_critiques(folder):
    path = folder / "runs" / "tiny" / "02_critiques.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")


def critiques_without_verdict(folder):
    path = folder / "runs" / "tiny" / "01_responses.jsonl"
    unclear = {"critique": "Hard to say.", "critique_raw": "Hard to say.", "verdict": "unparsed", "teacher": "somebody"}
    write_rows(path, [row | unclear for row in rows(path)])


def larger_base(folder):
    """A base of 25 MB, of which 10,000 checkpoints a row fill any disk, and no arm trained yet."""
    run = folder / "runs" / "tiny"
    config = Qwen2Config.from_pretrained(run / "01_base", hidden_size=512, intermediate_size=2048)
    Qwen2ForCausalLM(config).save_pretrained(run / "01_base")
    shutil.rmtree(run / "04_train")


QUESTION_AND_RESPONSE = '{"question": "1+1?", "response": "2"}'
DRAW = ["01_sample.py", *SMALL["01_sample.py"], "--model"]
OWN = ["01_sample.py", "--preset", "paper", "--name", "own", "--source", "my.jsonl"]


@dataclass(frozen=True)
class Mistake:
    """prepare: brings the mistake about. seen and mend: what stderr has to hold."""

    command: list
    seen: list
    mend: str
    prepare: Callable = nothing


MISTAKES = {
    # A stage that has not run
    "02 before 01": Mistake(["02_critique.py"], ["01_responses.jsonl is not there"], "python 01_sample.py --name tiny",
                            without("01_responses.jsonl")),
    "03 before 02": Mistake(["03_build.py"], ["02_critiques.jsonl is not there"], "python 02_critique.py --name tiny",
                            without("02_critiques.jsonl")),
    "04 before 03": Mistake(["04_train.py"], ["03.run.json is not there"], "python 03_build.py --name tiny",
                            without("03.run.json", "03_data", "04_train")),
    "05 before 04": Mistake(["05_eval.py"], ["04_train is not there"], "python 04_train.py --name tiny", without("04_train")),
    # Rows
    "not JSON": Mistake(OWN, ["my.jsonl, line 2", "is not JSON", '{"question": "2+2?"'], "sed -i 2d my.jsonl",
                        source(QUESTION_AND_RESPONSE, '{"question": "2+2?"')),
    "torn stage file": Mistake(["03_build.py"], ["02_critiques.jsonl, line 48", "is not JSON"],
                               "sed -i 48d runs/tiny/02_critiques.jsonl", torn_critiques),
    "empty file": Mistake(OWN, ["my.jsonl holds no rows"], "one JSON object per line", source()),
    "no question": Mistake(OWN, ["my.jsonl, row 2", "no question", "' '"], "--drop-bad",
                           source(QUESTION_AND_RESPONSE, '{"question": " ", "response": "4"}')),
    "no response": Mistake(OWN, ["my.jsonl, row 2", "no response", "None"], "--drop-bad",
                           source(QUESTION_AND_RESPONSE, '{"question": "2+2?", "response": null}')),
    "critique that is no text": Mistake(OWN, ["my.jsonl, row 1", "critique", "5"], "--drop-bad",
                                        source('{"question": "2+2?", "response": "4", "critique": 5}')),
    "column that is not there": Mistake([*OWN, "--columns", "question=problem"], ["'problem'", "question, response"],
                                        "--columns question=", source(QUESTION_AND_RESPONSE)),
    "no verdicts": Mistake(["02_critique.py", "--name", "tiny", "--preset", "paper"], ["not one of 48 critiques has a verdict"],
                           "--verdict-values", critiques_without_verdict),
    # Names
    "unknown preset": Mistake(["01_sample.py", "--preset", "nope"], ["'nope'", "tiny, paper"], "--preset"),
    "run name with a path": Mistake(["01_sample.py", "--name", "../elsewhere"], ["'../elsewhere'"], "--name my-run"),
    "unknown benchmark": Mistake(["05_eval.py", "--benchmarks", "nope"], ["'nope'", "tiny gsm8k"], "--benchmarks"),
    "unknown arm in 03": Mistake(["03_build.py", "--arms", "cft", "nope"], ["'nope'", "sft-verified"], "--arms"),
    # before the arms that are known have been trained for hours
    "unknown arm in 04": Mistake(["04_train.py", "--arms", "cft", "nope"], ["nope", "sft-verified"], "--arms", without("04_train")),
    "unknown model in 05": Mistake(["05_eval.py", "--model", "nope"], ["'nope'"], "--model"),
    "misspelt flag": Mistake(["03_build.py", "--row", "5"], ["--row"], "--help"),
    # Numbers
    "limit 0": Mistake(["03_build.py", "--limit", "0"], ["--limit 0"], "1 or more"),
    "epochs 0": Mistake(["04_train.py", "--epochs", "0"], ["--epochs 0"], "1 or more", without("04_train")),
    "concurrency 0": Mistake(["02_critique.py", "--concurrency", "0"], ["--concurrency 0"], "1 or more",
                             without("02_journal.jsonl")),
    # Models
    "04, no tokenizer": Mistake(["04_train.py", "--model", "incomplete"], ["incomplete", "tokenizer"], "save",
                                model_without("token*")),
    "04, no weights": Mistake(["04_train.py", "--model", "incomplete"], ["incomplete", "safetensors"], "save_pretrained",
                              model_without("*.safetensors")),
    "01, no weights": Mistake([*DRAW, "incomplete"], ["incomplete", "safetensors"], "save_pretrained",
                              model_without("*.safetensors")),
    "unknown template": Mistake([*DRAW, "base", "--template", "nope"], ["'nope'", "chatml deepseek"], "--template"),
    # What stands
    "another base": Mistake(["01_sample.py", *SMALL["01_sample.py"], "--seed", "5"],
                            ["01_base", "'seed': 0", "'seed': 5"], "--name"),
    "another arm": Mistake(["04_train.py", *SMALL["04_train.py"], "--epochs", "2"], ["04_train/sft", "epochs 1 -> 2"],
                           "rm -r runs/tiny/04_train/sft"),
    "full disk": Mistake(["04_train.py", "--arms", "cft", "--global-batch", "1", "--epochs", "10000", "--save-every", "1"],
                         ["GB for its checkpoints", "GB are free"], "--save-every", larger_base),
    "one step": Mistake(["04_train.py", "--arms", "cft", "--global-batch", "512"], ["24 rows are one step", "learning rate of 0"],
                        "--warmup-ratio 0"),
    "unknown baseline": Mistake(["05_eval.py", "--baseline", "sft-teachr"], ["'sft-teachr'", "base sft"], "--baseline"),
    "share above 1": Mistake(["02_critique.py", "--teacher-skip", "3"], ["--teacher-skip 3.0", "0 to 1"], "--teacher-skip"),
    "negative count": Mistake(["04_train.py", "--save-every", "-1"], ["--save-every -1", "0 or more"], "--save-every"),
    # Servers
    "no server and no key": Mistake(["02_critique.py", "--name", "tiny", "--preset", "paper"], ["no server and no key"],
                                    "export OPENAI_API_KEY="),
}


def assert_refused(folder, done, before, seen, mend):
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    for text in [*seen, mend]:
        assert text in done.stderr, done.stderr
    after = {name: content for name, content in contents(folder).items() if not (content == [] and "journal" in name)}
    assert after == before  # an empty journal apart, which waits for its first answer


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake(run_copy, mistake):
    folder = run_copy.parent.parent
    mistake.prepare(folder)
    before = contents(folder)
    assert_refused(folder, run_script(folder, *mistake.command), before, mistake.seen, mistake.mend)


@pytest.fixture(scope="module", autouse=True)
def no_server(finished, tmp_path_factory):
    """02 with a server that is not there. The client tries for some 15 seconds, so it is started before the other tests."""
    folder = tmp_path_factory.mktemp("no server")
    shutil.copytree(finished.run, folder / "runs" / "tiny")
    before = contents(folder)
    with ThreadPoolExecutor(1) as pool:
        command = ["02_critique.py", "--model", "somebody", "--base-url", "http://127.0.0.1:9/v1"]
        yield folder, before, pool.submit(run_script, folder, *command)


def test_no_server_there(no_server):
    folder, before, running = no_server
    assert_refused(folder, running.result(), before, ["'somebody'", "APIConnectionError"], "--base-url")


def test_a_server_that_refuses_the_key(tmp_path):
    source(QUESTION_AND_RESPONSE)(tmp_path)
    before = contents(tmp_path)
    with Completions(status=lambda body: 401) as server:
        done = run_script(tmp_path, *OWN, "--model", "somebody", "--base-url", server.url, OPENAI_API_KEY="sk-wrong")
    assert server.asked[0]["key"] == "Bearer sk-wrong"
    assert_refused(tmp_path, done, before, ["'somebody'", "AuthenticationError"], "OPENAI_API_KEY")
