"""What --model names; which of several checkpoints is chosen: test_best_checkpoint.py."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from common.core.errors import InputError
from common.evaluate import models, paper_tables
from common.evaluate.models import ModelSpec
from common.generate.client import Client
from common.generate.journal import Journal


def names(run, *given, **settings):
    """-> [(label, what is scored, relative to the run, steps of its checkpoints)]"""
    return [
        (c.label, str(c.location).replace(f"{run}/", ""), [p.step for p in c.checkpoints])
        for c in models.resolve_models(run, list(given), **settings)
    ]


def test_arms_and_folders(run):
    base, cft = ("base", "01_base", []), ("cft", "04_train/cft/step-000006", [])
    assert names(run) == [base, ("sft", "04_train/sft/step-000006", []), cft]
    assert names(run, "cft", "base") == [cft, base]
    assert names(run, f"{run}/04_train/cft/step-000004") == [
        ("cft--step-000004", "04_train/cft/step-000004", [])
    ]
    assert names(run, "mine=cft", "other=base") == [("mine", cft[1], []), ("other", base[1], [])]


def test_checkpoints_of_a_folder_and_of_an_arm(run):
    """A folder of checkpoints stands for all of them unless the last is asked for.

    An arm for its last unless there is a selection.
    """
    folder, steps = f"{run}/04_train/cft", [2, 4, 6]
    assert (
        names(run, folder, selection="auto")[0][2]
        == names(run, "cft", selection="validation")[0][2]
        == steps
    )
    assert (
        names(run, folder, selection="auto")[0][0]
        == names(run, "cft", selection="paper")[0][0]
        == "cft"
    )
    assert (
        names(run, folder, selection="last")
        == names(run, "cft", selection="last")
        == [("cft", "04_train/cft/step-000006", [])]
    )
    (found,) = models.resolve_models(run, [f"x={folder}"])
    assert [c.label for c in found.checkpoints] == [
        "x--step-000002",
        "x--step-000004",
        "x--step-000006",
    ]
    other = run.parent / "other" / "04_train" / "cft"
    shutil.copytree(folder, other)
    assert names(run, str(other))[0][0] == "other--cft"


def test_servers():
    (one, two, three) = models.resolve_models(
        SimpleNamespace(__truediv__=None),
        ["org/name", "x=m@https://h:8000/v1", "m@http://k/v1"],
        "http://all/v1",
    )
    assert (one.label, one.location, one.url) == ("org--name", "org/name", "http://all/v1")
    assert (two.label, two.location, two.url) == ("x", "m", "https://h:8000/v1") and (
        three.label,
        three.location,
        three.url,
    ) == ("m", "m", "http://k/v1")


def test_one_label_for_several(run, capsys):
    """Seeds; or, where a checkpoint is to be chosen and each has a step of its own, checkpoints."""
    folders = [f"{run}/04_train/{arm}/step-000006" for arm in ("sft", "cft")]
    found = models.resolve_models(run, [f"cft={folder}" for folder in folders] + ["base"])
    assert [c.label for c in found] == ["cft.1", "cft.2", "base"] and models.group_seeds(found) == {
        "cft": ["cft.1", "cft.2"]
    }
    served = [f"cft=step-{n}@http://h/v1" for n in (40, 20)]
    (one,) = models.resolve_models(run, served, selection="validation")
    assert [(c.label, c.location) for c in one.checkpoints] == [
        ("cft--step-000020", "step-20"),
        ("cft--step-000040", "step-40"),
    ]
    assert models.group_seeds(models.resolve_models(run, served)) == {"cft": ["cft.1", "cft.2"]}
    both = models.resolve_models(
        run, [f"cft={run}/04_train/sft", f"cft={run}/04_train/cft"], selection="validation"
    )  # seeds, each with a choice
    assert [(c.label, len(c.checkpoints)) for c in both] == [("cft.1", 3), ("cft.2", 3)]
    assert (
        len({p.label for c in both for p in c.checkpoints}) == 6
        and both[1].checkpoints[0].label == "cft.2--step-000002"
    )
    assert "note" not in capsys.readouterr().out
    models.resolve_models(run, [f"cft={run}/04_train/cft/step-00000{n}" for n in (2, 4)])
    assert "several are checkpoints of one training" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given, says",
    [
        (["cft", "cft"], "2 models would be called 'cft'"),
        (["x=cft", "x=cft"], "'x' names the same model twice"),
        (["x="], "is not NAME, NAME@URL or LABEL=NAME"),
        (["a/b=cft"], "is not NAME"),
        (["@http://h"], "is not NAME"),
        (["./nowhere"], "there is no model folder(.|\\n)*--model base sft cft"),
        (["x" * 101 + "=cft"], "is not NAME"),
        (["scores.json=cft"], "is not NAME"),
        (["runs/r/04_train"], "holds the trainings cft sft(.|\\n)*runs/r/04_train/cft"),
        (["cft=sft", "cft=base", "cft.1=cft"], "two of the models would be called cft.1"),
        (["cft=sft", "cft=runs/r/../r/04_train/sft/step-000006"], "same model twice"),
    ],
)
def test_names_that_cannot_be_meant(run, given, says):
    with pytest.raises(InputError, match=says):
        models.resolve_models(run, given)


def test_an_engine_and_its_template(run, tiny_model):
    """A tokenizer without a template cannot write one.

    A server's prompts need a tokenizer of the model's name.
    """
    config = SimpleNamespace(
        template="own",
        batch_size=2,
        load_in_4bit=False,
        price_in=None,
        price_out=None,
        budget=None,
        concurrency=1,
        timeout=9,
    )
    local = ModelSpec("x", str(run / "01_base"))
    model = models.open_model(local, config)
    assert model.template == "own" and model.tokenizer.chat_template
    assert model.conditions == {
        "dtype": "float32",
        "attention": "sdpa",
        "load_in_4bit": False,
        "engine": "local",
        "template": "own",
    }
    with pytest.raises(InputError, match="--template own .* ./m"):
        models.open_model(ModelSpec("x", "./m", "http://h/v1"), config)
    for file in (run / "01_base").glob("chat_template*"):
        file.unlink()
    with pytest.raises(InputError, match="chat template"):
        models.open_model(local, config)
    config.template = "auto"
    served = models.open_model(ModelSpec("x", "m", "http://h/v1"), config)
    assert served.engine.identity == "m at http://h/v1"
    assert (served.tokenizer, served.template) == (None, "chatml")
    assert served.conditions == {"engine": "server", "template": "chatml"}


@pytest.fixture
def listing():
    """A server that lists models as vLLM does, by what `listing.models` holds."""

    class Models(BaseHTTPRequestHandler):
        models = []

        def do_GET(self):
            body = json.dumps({"object": "list", "data": self.models}).encode()
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *unused):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Models) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Models.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield Models
        server.shutdown()


def test_another_model_under_a_served_name_is_refused(listing, tmp_path):
    """vLLM says which folder it serves.

    A server that says nothing, or is gone, is taken at its name.
    """
    engine = Client("m", listing.url)
    engine.identity = f"m at {listing.url}"
    with Journal(tmp_path / "j.jsonl") as journal:
        models.check_served(engine, journal)  # nothing is listed
        listing.models = [{"id": "other", "root": "/x"}, {"id": "m", "root": "/step-20"}]
        models.check_served(engine, journal)
        models.check_served(engine, journal)
        assert [record["root"] for record in journal.records.values()] == ["/step-20"]
        listing.models = [{"id": "m", "root": "/step-40"}]
        with pytest.raises(
            InputError,
            match="is /step-40 now, and /step-20 when(.|\n)*--served-model-name",
        ):
            models.check_served(engine, journal)
        listing.models = ["what?"]
        models.check_served(engine, journal)
        gone = Client("m", "http://127.0.0.1:9/v1")
        gone.identity = engine.identity
        models.check_served(gone, journal)


def test_what_a_model_was_trained_from(run):
    """Its training's settings say it, through the arm it was trained after; else its name."""
    where = run / "04_train" / "cft" / "step-000006"
    assert models.read_origin(ModelSpec("x", str(where))) == f"{where} {run / '01_base'}"
    (run / "04_train" / "sft" / "settings.json").write_text(
        json.dumps({"steps": 6, "base": str(where), "after": "cft"})
    )
    (run / "04_train" / "cft" / "settings.json").write_text(
        json.dumps({"steps": 6, "base": "/hub/models--Qwen--Qwen2.5-7B/snapshots/1"})
    )
    second = models.read_origin(ModelSpec("x", str(run / "04_train" / "sft" / "step-000006")))
    assert (
        second.endswith("/hub/models--Qwen--Qwen2.5-7B/snapshots/1")
        and paper_tables.base_of(second) == "Qwen2.5-7B"
    )
    assert (
        models.read_origin(ModelSpec("x", "TIGER-Lab/Qwen2.5-Math-7B-CFT"))
        == "TIGER-Lab/Qwen2.5-Math-7B-CFT"
    )
    (run / "04_train" / "cft" / "settings.json").write_text("[torn")
    with pytest.raises(InputError, match="settings.json cannot be read"):
        models.resolve_models(run, ["cft"])
