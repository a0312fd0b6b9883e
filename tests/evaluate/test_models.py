"""What --model names; which of several checkpoints is chosen: test_best_checkpoint.py."""

import json
import shutil
from types import SimpleNamespace

import pytest

from common.core import manifests
from common.core.errors import InputError
from common.evaluate import models, paper_tables
from common.evaluate.models import ModelSpec, choose_baselines, resolve_models


def names(run, *models, **settings):
    """Return [(label, what is scored, relative to the run, steps of its checkpoints)]."""
    specs, _ = resolve(run, *models, **settings)
    lines = []
    for spec in specs:
        steps = [checkpoint.step for checkpoint in spec.checkpoints]
        lines.append((spec.label, spec.location.replace(f"{run}/", ""), steps))
    return lines


def resolve(run, *models, seeds=(), **settings):
    return resolve_models(run, list(models), list(seeds), **settings)


def test_training_sets_and_folders(run):
    base, cft = ("base", "01_base", []), ("cft", "04_train/cft/step-000006", [])
    assert names(run) == [base, ("sft", "04_train/sft/step-000006", []), cft]
    assert names(run, "cft", "base") == [cft, base]
    assert names(run, f"{run}/04_train/cft/step-000004") == [
        ("cft-step-000004", "04_train/cft/step-000004", [])
    ]
    assert names(run, "mine=cft", "other=base") == [("mine", cft[1], []), ("other", base[1], [])]


def test_a_training_is_its_last_checkpoint_or_all_of_them(run):
    folder = f"{run}/04_train/cft"
    assert names(run, folder) == names(run, "cft") == [("cft", "04_train/cft/step-000006", [])]
    for name in (folder, "cft", f"cft={folder}"):
        assert names(run, name, choose=True) == [("cft", "04_train/cft", [2, 4, 6])]
    (spec,), _ = resolve(run, f"x={folder}", choose=True)
    labels = [checkpoint.label for checkpoint in spec.checkpoints]
    assert labels == ["x-step-000002", "x-step-000004", "x-step-000006"]
    shutil.copytree(folder, run.parent / "other" / "04_train" / "cft")
    assert names(run, f"{run.parent}/other/04_train/cft")[0][0] == "cft"


def test_servers(run):
    urls = ["org/name", "x=m@https://h:8000/v1", "m@http://k/v1"]
    specs, _ = resolve(run, *urls, base_url="http://all/v1")
    assert [(spec.label, spec.location, spec.url) for spec in specs] == [
        ("org-name", "org/name", "http://all/v1"),
        ("x", "m", "https://h:8000/v1"),
        ("m", "m", "http://k/v1"),
    ]


def test_seeds(run):
    folders = [f"{run}/04_train/{name}/step-000006" for name in ("sft", "cft")]
    specs, groups = resolve(run, "base", seeds=[f"cft={','.join(folders)}"])
    assert [spec.label for spec in specs] == ["base", "cft.1", "cft.2"]
    assert groups == {"cft": ["cft.1", "cft.2"]}
    assert choose_baselines(specs, groups, []) == (["base", "cft"], ["base"])
    served, _ = resolve(run, seeds=["cft=a@http://h/v1,b@http://h/v1"])
    assert [(spec.location, spec.url) for spec in served] == [
        ("a", "http://h/v1"),
        ("b", "http://h/v1"),
    ]
    trainings = f"x={run}/04_train/sft,{run}/04_train/cft"  # seeds, each with a choice
    both, _ = resolve(run, seeds=[trainings], choose=True)
    assert [(spec.label, len(spec.checkpoints)) for spec in both] == [("x.1", 3), ("x.2", 3)]


def test_the_baseline(run):
    specs, groups = resolve(run, "base", "cft", "sft")
    assert choose_baselines(specs, groups, []) == (["base", "cft", "sft"], ["sft"])
    assert choose_baselines(specs, groups, ["cft", "base", "cft"])[1] == ["cft", "base"]
    with pytest.raises(InputError, match="--baseline 'nobody'.*base cft sft"):
        choose_baselines(specs, groups, ["cft", "nobody"])


WRONG_NAMES = [
    (["cft", "cft"], [], "would be called cft"),
    (["x="], [], "is not NAME"),
    (["a/b=cft"], [], "is not NAME"),
    (["@http://h"], [], "is not NAME"),
    (["x" * 101 + "=cft"], [], "is not NAME"),
    (["./nowhere"], [], "--model base sft cft"),
    (["cft.1=cft"], ["cft=sft,base"], "would be called cft.1"),
    (["cft"], ["cft=sft,base"], "would be called cft"),
    ([], ["cft=sft,sft"], "does not name several"),
    ([], ["cft=sft"], "does not name several"),
    ([], ["sft"], "is not NAME"),
]


def test_names_that_cannot_be_meant(run):
    for given, seeds, fact in WRONG_NAMES:
        with pytest.raises(InputError) as error:
            resolve(run, *given, seeds=seeds)
        assert fact in str(error.value), (given, seeds)


def test_an_engine_and_its_template(run, tiny_model):
    """A tokenizer without a template cannot write one.

    A server's prompts need a tokenizer of the model's name.
    """
    config = SimpleNamespace(
        template="own",
        batch_size=2,
        max_new_tokens=8,
        price_in=None,
        price_out=None,
        budget=None,
        concurrency=1,
        timeout=9,
    )
    local = ModelSpec("x", str(run / "01_base"))
    model = models.open_model(local, config)
    assert model.tokenizer.chat_template and model.conditions == {
        "dtype": "float32",
        "attention": "sdpa",
        "engine": "local",
        "template": "own",
    }
    with pytest.raises(InputError, match="./m"):
        models.open_model(ModelSpec("x", "./m", "http://h/v1"), config)
    for file in (run / "01_base").glob("chat_template*"):
        file.unlink()
    with pytest.raises(InputError, match="chat template"):
        models.open_model(local, config)
    config.template = "auto"
    served = models.open_model(ModelSpec("x", "m", "http://h/v1"), config)
    assert served.engine.identity == served.manifest["identity"] == "m at http://h/v1"
    assert served.tokenizer is None
    assert served.conditions == {"engine": "server", "template": "chatml"}


def test_what_a_model_was_trained_from(run):
    """Its training's settings say it, through the set it was trained after; else its name."""
    location = f"{run}/04_train/cft/step-000006"
    assert models.read_origin(location) == f"{location} {run / '01_base'}"
    assert models.read_origin(f"{location}/merged").endswith(str(run / "01_base"))
    write_settings(run, "sft", base=location, after="cft")
    write_settings(run, "cft", base="/hub/models--Qwen--Qwen2.5-7B/snapshots/1")
    second = models.read_origin(f"{run}/04_train/sft/step-000006")
    assert second.endswith("/hub/models--Qwen--Qwen2.5-7B/snapshots/1")
    assert paper_tables.base_of(second) == "Qwen2.5-7B"
    assert models.read_origin("Qwen/Qwen2.5-Math-7B-CFT") == "Qwen/Qwen2.5-Math-7B-CFT"
    (run / "04_train" / "cft" / "settings.json").write_text("[torn")
    with pytest.raises(InputError, match="settings.json"):
        resolve(run, "cft")


def write_settings(run, name, **settings):
    path = run / "04_train" / name / "settings.json"
    path.write_text(json.dumps({"steps": 6, **settings}))


def test_a_bare_name_is_never_looked_for_on_the_hub(run, monkeypatch):
    """sft-verified is a set of the paper, cftt a misspelt one: the message lists what is trained.

    A folder of that name counts more, but for a training of the run.
    """
    asked = []
    monkeypatch.setattr(models, "local_folder", lambda name: asked.append(name) or name)
    for name in ("sft-verified", "cftt", "x=cftt"):
        with pytest.raises(InputError, match="--model base sft cft;") as error:
            resolve(run, name)
        assert f"--arms {name.removeprefix('x=')}" in str(error.value)
    assert asked == []
    resolve(run, "org/name")
    for name in ("mine", "cft"):
        (run.parent.parent / name).mkdir()
    resolve(run, "mine")
    assert names(run, "cft") == [("cft", "04_train/cft/step-000006", [])]
    assert asked == ["org/name", "mine"]


def test_a_checkpoint_is_stale_if_its_rows_have_been_built_again(run):
    rows, folder = run / "03_data" / "cft.jsonl", run / "04_train" / "cft"
    rows.parent.mkdir()
    rows.write_text("1")
    manifests.write_manifest(folder, SimpleNamespace(), [rows])
    locations = [f"{folder}/step-000006", f"{folder}/step-000004/merged"]
    assert [models.is_stale(location) for location in locations] == [False, False]
    rows.write_text("2")
    assert [models.is_stale(location) for location in locations] == [True, True]
    assert not models.is_stale(f"{run}/04_train/sft/step-000006")
    assert not models.is_stale("org/name")
