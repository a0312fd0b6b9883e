"""A run's outputs: where they are, and the manifest that says what made each of them."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.core import files, manifests
from common.core.errors import InputError
from tests.conftest import ROOT

CONFIG = SimpleNamespace(name="mine", preset="paper", seed=5)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """runs/mine in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Path("runs/mine")


def add_responses(run, label, config=CONFIG, finished=None):
    output = run / "01_responses" / f"{label}.jsonl"
    files.write_jsonl(output, [{"id": label}])
    manifests.write_manifest(output, config)
    if finished:
        manifest = manifests.manifest_path(output)
        files.write_json(manifest, json.loads(manifest.read_text()) | {"finished": finished})
    return output


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "a/b", "../a", "/tmp/a", "a\\b", "-x", ".hidden", "a b", "a\n", "~", "é"],
)
def test_run_folder_refuses_what_is_no_plain_name(name):
    assert manifests.run_folder("a.b-c_1").parts == ("runs", "a.b-c_1")
    with pytest.raises(InputError, match="--name"):
        manifests.run_folder(name)


@pytest.mark.parametrize(
    "text, label",
    [
        ("gpt-4o-2024-11-20", "gpt-4o-2024-11-20"),
        ("Qwen/Qwen2.5-Math-7B", "Qwen-Qwen2.5-Math-7B"),
        ("/data/my rows.jsonl", "data-my-rows.jsonl"),
        ("../../etc/passwd", "etc-passwd"),
        ("..\\x\n", "x"),
        ("a" * 300, "a" * 100),
    ],
)
def test_a_label_is_a_plain_file_name(text, label):
    assert manifests.file_label(text) == label


@pytest.mark.parametrize("text", ["", "..", "/", "模型"])
def test_what_leaves_no_name_asks_for_one(text):
    with pytest.raises(InputError, match="--label"):
        manifests.file_label(text)


@pytest.mark.parametrize("maker", manifests.SCRIPTS)
def test_a_missing_file_names_the_script_that_makes_it(run, maker):
    path = run / f"{maker[:2]}_thing" / "x.jsonl"
    with pytest.raises(InputError, match=f"python {maker} --name mine"):
        manifests.require(path)
    assert (ROOT / maker).is_file()
    files.write_jsonl(path, [{}])
    assert manifests.require(path) == path


def test_outputs_are_the_sorted_rows_of_a_stage(run):
    with pytest.raises(InputError, match="python 01_sample.py --name mine"):
        manifests.outputs(run, "01_responses")
    (run / "01_responses").mkdir(parents=True)
    with pytest.raises(InputError, match="python 01_sample.py --name mine"):
        manifests.outputs(run, "01_responses")
    second, first = add_responses(run, "b"), add_responses(run, "a.b")
    assert manifests.outputs(run, "01_responses") == [first, second]


def test_a_run_of_the_old_layout_is_refused(run):
    """The error names the commit and the journal to copy, and nothing that deletes."""
    files.write_json(run / "01.run.json", {"commit": "6aaaad3"})
    with pytest.raises(InputError, match="6aaaad3") as caught:
        manifests.refuse_old_layout(run)
    message = str(caught.value)
    assert "--name" in message and "cp runs/mine/02_journal.jsonl" in message
    assert "rm " not in message


def test_a_manifest_says_what_made_the_output_and_holds_no_secret(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret-2")
    monkeypatch.setattr(sys, "argv", ["/home/somebody/03_build.py", "--rows", "5"])
    source, output = Path("in.jsonl"), run / "03_data" / "cft.v1.jsonl"
    files.write_atomic(source, "abc")
    files.write_atomic(output, "abc")
    manifests.write_manifest(output, SimpleNamespace(rows=5, name="é"), [source], right=3)
    text = (run / "03_data" / "cft.v1.run.json").read_text(encoding="utf-8")
    manifest = manifests.read_manifest(output)
    # SHA-256 of "abc": FIPS 180-2, appendix B.1
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest["config"] == {"rows": 5, "name": "é"}
    assert manifest["inputs"] == {"in.jsonl": sha256} and manifest["output_sha256"] == sha256
    assert manifest["command"] == ["03_build.py", "--rows", "5"]
    assert manifest["layout"] == 2 and manifest["right"] == 3
    assert manifest["versions"]["python"] == sys.version.split()[0]
    assert "torch" in manifest["versions"]
    assert manifest["finished"].endswith("Z") and manifest["seconds"] >= 0
    assert {"commit", "gpu"} <= set(manifest)
    assert "secret" not in text and "somebody" not in text


def test_a_folder_holds_its_manifest(run):
    folder = run / "04_train" / "cft"
    assert manifests.read_manifest(folder) == {}
    folder.mkdir(parents=True)
    manifests.write_manifest(folder, CONFIG)
    assert json.loads((folder / "run.json").read_text())["output_sha256"] is None
    assert manifests.read_manifest(folder)["config"]["seed"] == 5


def test_an_input_that_changed_since_is_named(run):
    """03 must not build from critiques of responses that have been replaced."""
    responses, critiques = add_responses(run, "a"), run / "02_critiques" / "teacher.jsonl"
    files.write_jsonl(critiques, [{}])
    manifests.check_inputs(critiques)  # without a manifest nothing is known
    manifests.write_manifest(critiques, CONFIG, [responses])
    manifests.check_inputs(critiques)
    files.write_jsonl(responses, [{"id": "b"}])
    with pytest.raises(InputError, match="a.jsonl has changed") as caught:
        manifests.check_inputs(critiques)
    assert "python 02_critique.py --name mine" in str(caught.value)


def test_a_run_keeps_the_preset_and_seed_of_its_newest_responses(run):
    assert manifests.started_with(run) == {}
    add_responses(run, "b", SimpleNamespace(preset="tiny", seed=1), "2025-01-02T00:00:00Z")
    add_responses(run, "a", SimpleNamespace(preset="lora", seed=2), "2025-01-03T00:00:00Z")
    add_responses(run, "c", SimpleNamespace(preset="tiny", seed=3), "2025-01-01T00:00:00Z")
    assert manifests.started_with(run) == {"preset": "lora", "seed": 2}
