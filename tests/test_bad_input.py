"""A user's mistakes.

The status, what was seen and how to fix it on stderr, no traceback, and the run as it was before.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.faults import FaultServer
from tests.runs import SMALL, contents, rows, run_script, write_rows

TEACHER = "tiny-teacher-skip-0.1-critique-full"  # as a file name


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
        shutil.copytree(
            folder / "runs" / "tiny" / "01_base",
            folder / "incomplete",
            ignore=shutil.ignore_patterns(pattern),
        )
        shutil.rmtree(folder / "runs" / "tiny" / "04_train")

    return prepare


def torn_critiques(folder):
    path = folder / "runs" / "tiny" / "02_critiques" / f"{TEACHER}.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")


def critiques_without_verdict(folder):
    path = folder / "runs" / "tiny" / "01_responses" / "tiny.jsonl"
    unclear = {
        "critique": "Hard to say.",
        "critique_raw": "Hard to say.",
        "verdict": "unparsed",
        "teacher": "somebody",
    }
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
ASK = ["02_critique.py", "--name", "tiny", "--preset", "paper"]
NOBODY = ["--base-url", "http://127.0.0.1:9/v1"]  # nothing listens there


@dataclass(frozen=True)
class Mistake:
    """prepare.

    Brings the mistake about. seen and fix: what stderr has to hold. status: 2 for input, 4 server,
    5 disk.
    """

    command: list
    seen: list
    fix: str
    prepare: Callable = nothing
    status: int = 2


MISTAKES = {
    # A stage that has not run
    "02 before 01": Mistake(
        ["02_critique.py"],
        ["runs/tiny/01_responses"],
        "python 01_sample.py --name tiny",
        without("01_responses"),
    ),
    "03 before 02": Mistake(
        ["03_build.py"],
        ["runs/tiny/02_critiques"],
        "python 02_critique.py --name tiny",
        without("02_critiques"),
    ),
    "04 before 03": Mistake(
        ["04_train.py"],
        ["runs/tiny/03_data"],
        "python 03_build.py --name tiny",
        without("03_data", "04_train"),
    ),
    "05 before 04": Mistake(
        ["05_eval.py"],
        ["runs/tiny/04_train"],
        "python 04_train.py --name tiny",
        without("04_train"),
    ),
    # Rows
    "not JSON": Mistake(
        OWN,
        ["my.jsonl, line 2", "cannot be read", '{"question": "2+2?"'],
        "Expected one JSON object a line",
        source(QUESTION_AND_RESPONSE, '{"question": "2+2?"'),
    ),
    "torn stage file": Mistake(
        ["03_build.py"],
        [f"02_critiques/{TEACHER}.jsonl, line 48", "cannot be read"],
        "Expected one JSON object a line",
        torn_critiques,
    ),
    "empty file": Mistake(OWN, ["my.jsonl holds no rows"], "at least one record", source()),
    "no question": Mistake(
        OWN,
        ["my.jsonl, row 2", "no question", "' '"],
        "--columns",
        source(QUESTION_AND_RESPONSE, '{"question": " ", "response": "4"}'),
    ),
    "no response": Mistake(
        OWN,
        ["my.jsonl, row 2", "no response", "None"],
        "--columns",
        source(QUESTION_AND_RESPONSE, '{"question": "2+2?", "response": null}'),
    ),
    "critique that is no text": Mistake(
        OWN,
        ["my.jsonl, row 1", "critique"],
        "--columns",
        source('{"question": "2+2?", "response": "4", "critique": ["no"]}'),
    ),
    "column that is not there": Mistake(
        [*OWN, "--columns", "question=problem"],
        ["'problem'", "question, response"],
        "--columns question=",
        source(QUESTION_AND_RESPONSE),
    ),
    "no verdicts": Mistake(
        ["02_critique.py", "--name", "tiny", "--preset", "paper"],
        ["48 critiques", "no verdict"],
        "--verdict-values",
        critiques_without_verdict,
    ),
    # Names
    "unknown preset": Mistake(
        ["01_sample.py", "--preset", "nope"], ["'nope'", "tiny, paper"], "--preset"
    ),
    "run name with a path": Mistake(
        ["01_sample.py", "--name", "../elsewhere"], ["'../elsewhere'"], "--name my-run"
    ),
    "unknown benchmark": Mistake(
        ["05_eval.py", "--benchmarks", "nope"],
        ["'nope'", "tiny tiny_validation gsm8k"],
        "--benchmarks",
    ),
    "unknown arm in 03": Mistake(
        ["03_build.py", "--arms", "cft", "nope"], ["'nope'", "sft-verified"], "--arms"
    ),
    # before the arms that are known have been trained for hours
    "unknown arm in 04": Mistake(
        ["04_train.py", "--arms", "cft", "nope"],
        ["nope", "sft-verified"],
        "--arms",
        without("04_train"),
    ),
    "unknown model in 05": Mistake(
        ["05_eval.py", "--model", "nope"], ["nope", "sft"], "--model base"
    ),
    "unknown teacher in 03": Mistake(
        ["03_build.py", "--teacher", "somebody"],
        ["02_critiques", "somebody"],
        "--teacher tiny-teacher:skip=0.1:critique=full",
    ),
    "misspelt flag": Mistake(["03_build.py", "--row", "5"], ["--row"], "--help"),
    # Numbers
    "limit 0": Mistake(["03_build.py", "--limit", "0"], ["--limit 0"], "1 or more"),
    "epochs 0": Mistake(
        ["04_train.py", "--epochs", "0"], ["--epochs 0"], "1 or more", without("04_train")
    ),
    "concurrency 0": Mistake(
        ["02_critique.py", "--concurrency", "0"],
        ["--concurrency 0"],
        "1 or more",
        without("02_journal.jsonl"),
    ),
    "a flag that is gone": Mistake(
        ["02_critique.py", "--attempts", "3"], ["--attempts 3"], "--help"
    ),
    # Models
    "04, no tokenizer": Mistake(
        ["04_train.py", "--model", "incomplete"],
        ["incomplete", "tokenizer"],
        "Copy",
        model_without("token*"),
    ),
    "04, no weights": Mistake(
        ["04_train.py", "--model", "incomplete"],
        ["incomplete", "safetensors"],
        "save_pretrained",
        model_without("*.safetensors"),
    ),
    "01, no weights": Mistake(
        [*DRAW, "incomplete"],
        ["incomplete", "safetensors"],
        "save_pretrained",
        model_without("*.safetensors"),
    ),
    # What stands
    "another base": Mistake(
        ["01_sample.py", *SMALL["01_sample.py"], "--seed", "5"],
        ["01_base", "'seed': 0", "'seed': 5"],
        "--name",
    ),
    "another arm": Mistake(
        ["04_train.py", *SMALL["04_train.py"], "--epochs", "2"],
        ["04_train/", "epochs 1 -> 2"],
        "mv runs/tiny/04_train/",
    ),
    "full disk": Mistake(
        [
            "04_train.py",
            "--arms",
            "cft",
            "--global-batch",
            "1",
            "--epochs",
            "10000",
            "--save-every",
            "1",
        ],
        ["runs/tiny needs", "GB are free on that disk"],
        "Make room, or save less (in 04: a larger --save-every)",
        larger_base,
        status=5,
    ),
    "one step": Mistake(
        ["04_train.py", "--arms", "cft", "--global-batch", "512"],
        ["24 rows, all in one step", "learning rate of 0"],
        "--warmup-ratio 0",
    ),
    "unknown baseline": Mistake(
        ["05_eval.py", "--baseline", "sft-teachr"], ["'sft-teachr'", "base sft"], "--baseline"
    ),
    "share above 1": Mistake(
        ["02_critique.py", "--teacher-skip", "3"],
        ["--teacher-skip 3.0", "0 to 1"],
        "--teacher-skip",
    ),
    "negative count": Mistake(
        ["04_train.py", "--save-every", "-1"], ["--save-every -1", "0 or more"], "--save-every"
    ),
    # Servers
    "no server and no key": Mistake(
        [*ASK, "--model", "m"],
        ["no server and no key"],
        "--base-url http://HOST:PORT/v1, or export OPENAI_API_KEY=",
    ),
    "no teacher": Mistake(ASK, ["no model was named", "48 responses", "$"], "--model gpt-"),
    "a foreign teacher for the miniature": Mistake(
        ["02_critique.py", "--model", "gpt-9", *NOBODY],
        ["gpt-9", "nothing was sent", "runs/tiny"],
        "--ask-miniature",
        without("02_journal.jsonl"),
    ),
    "extra fields that are no object": Mistake(
        [*ASK, *NOBODY, "--model", "m", "--extra-body", '["enable_thinking"]'],
        ["enable_thinking", "JSON object"],
        """--extra-body '{"enable_thinking": false}'""",
    ),
    "extra fields that have a flag": Mistake(
        [*ASK, *NOBODY, "--model", "m", "--extra-body", '{"max_tokens": 99999}'],
        ["'max_tokens'"],
        "--help",
    ),
    "no server there": Mistake(
        [*ASK, *NOBODY, "--model", "m"],
        ["http://127.0.0.1:9/v1", "Connect"],
        "Check --base-url",
        status=4,
    ),
    "no server there for 05": Mistake(
        ["05_eval.py", "--limit", "20", "--model", "m", *NOBODY],
        ["http://127.0.0.1:9/v1", "Connect"],
        "Check --base-url",
        status=4,
    ),
    "a URL without http": Mistake(
        [*ASK, "--base-url", "localhost:8000/v1"],
        ["'localhost:8000/v1'"],
        "http://localhost:8000/v1",
    ),
    "a key in the URL": Mistake(
        [*ASK, "--base-url", "http://me:secret@127.0.0.1:9/v1"],
        ["holds a name, a password or a query"],
        "export OPENAI_API_KEY=",
    ),
    "another model than the tiny teacher": Mistake(
        ["02_critique.py", "--model", "gpt-4o"], ["gpt-4o"], "--base-url"
    ),
    "no teacher's name": Mistake(
        [*ASK, *NOBODY, "--model", ""], ["no model was named"], "--model NAME"
    ),
    # Money
    "money without a budget": Mistake(
        [*ASK, *NOBODY, "--model", "gpt-4o-mini"],
        ["costs money", "nothing was sent"],
        "--budget USD (a hard stop), or --budget inf",
    ),
    "budget without a price": Mistake(
        [*ASK, *NOBODY, "--model", "m", "--budget", "1"], ["the price of 'm'"], "--price-in 0.15"
    ),
    "half a price": Mistake(
        [*ASK, *NOBODY, "--price-in", "1"],
        ["--price-in and --price-out go together"],
        "--price-out 0.60",
    ),
    "budget of nothing": Mistake(
        [*ASK, *NOBODY, "--model", "gpt-4o", "--budget", "0"],
        ["--budget 0 has no room"],
        "a larger --budget",
        status=4,
    ),
}


def assert_refused(folder, done, before, seen, fix, status=2):
    assert done.returncode == status, done.stderr[-3000:]
    assert "Traceback" not in done.stderr and "secret" not in done.stderr
    for text in [*seen, fix]:
        assert text in done.stderr, done.stderr
    after = contents(folder)
    for name in list(after):
        is_empty_journal = after[name] == [] and "journal" in name
        # 02 says there why it has no critique.
        if is_empty_journal or "02_failed" in name or name.endswith("02_critiques.html"):
            del after[name]
            before.pop(name, None)
    assert after == before


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake(run_copy, mistake):
    folder = run_copy.parent.parent
    mistake.prepare(folder)
    before = contents(folder)
    assert_refused(
        folder,
        run_script(folder, *mistake.command),
        before,
        mistake.seen,
        mistake.fix,
        mistake.status,
    )


KEY = "sk-very-secret-value"
SERVED = {  # what the server says to every request: the status, what stderr holds, the fix
    "key": (
        4,
        ["'somebody'", "401 invalid_api_key", "Incorrect API key provided: ***."],
        "Check OPENAI_API_KEY",
    ),
    "quota": (
        4,
        ["429 insufficient_quota", "You exceeded your current quota"],
        "the account's balance",
    ),
    "model": (
        2,
        ["404 model_not_found", "The model `somebody` does not exist."],
        "Check --model and --base-url (most end in /v1)",
    ),
    "max_tokens": (2, ["The server refuses max_tokens"], "--reasoning"),
}


@pytest.mark.parametrize("fault", SERVED)
def test_a_server_that_refuses_everything(tmp_path, fault):
    """It is asked a few times, not once for each row; the key is in no message and in no file."""
    status, seen, fix = SERVED[fault]
    write_rows(tmp_path / "my.jsonl", [{"question": f"{n}+1?"} for n in range(300)])
    before = contents(tmp_path)
    with FaultServer(fault=lambda body, nth: fault) as server:
        done = run_script(
            tmp_path, *OWN, "--model", "somebody", "--base-url", server.url, OPENAI_API_KEY=KEY
        )
    assert {entry["key"] for entry in server.asked} == {f"Bearer {KEY}"} and len(server.asked) <= 16
    assert_refused(tmp_path, done, before, [*seen, "what was answered is kept"], fix, status)
    assert KEY not in done.stdout + done.stderr + "".join(
        p.read_text() for p in tmp_path.rglob("*") if p.is_file()
    )
