"""A run's stages: where they are, what stands there and what made it."""

import json
import sys
from types import SimpleNamespace

import pytest

from common.core import errors, files, runs
from common.core.errors import InputError
from common.core.files import file_hash
from tests.conftest import ROOT
from tests.runs import write_rows


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "a/b", "../a", "/tmp/a", "a\\b", "-x", ".hidden", "a b", "a\n", "~", "é"],
)
def test_run_folder_refuses_what_is_no_plain_name(name):
    assert runs.run_folder("a.b-c_1").parts == ("runs", "a.b-c_1")
    with pytest.raises(InputError, match="not a plain name"):
        runs.run_folder(name)


@pytest.mark.parametrize("number, maker", errors.MAKERS.items())
def test_a_missing_stage_file_names_the_script_that_makes_it(tmp_path, number, maker):
    run, name = tmp_path / "mine", f"{number}_thing/x.jsonl"
    with pytest.raises(InputError, match=rf"(?s){name}.*python {maker} --name mine") as caught:
        runs.stage_file(run, name)
    assert (ROOT / maker).is_file(), caught.value
    (run / f"{number}_thing").mkdir(parents=True)
    (run / name).write_text("{}\n")
    assert runs.stage_file(run, name) == run / name


def test_read_manifest(tmp_path):
    """A stage that has not run has none; later scripts take that for nothing known."""
    assert runs.read_manifest(tmp_path, "02") == {}
    files.write_atomic(tmp_path / "02.run.json", '{"teachers": ["é"]}')
    assert (
        runs.read_manifest(tmp_path, "02") == {"teachers": ["é"]}
        and runs.read_manifest(tmp_path, "03") == {}
    )


def test_a_manifest_says_what_made_the_output_and_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret-2")
    monkeypatch.setattr(sys, "argv", ["/home/somebody/03_build.py", "--rows", "5"])
    (tmp_path / "in.jsonl").write_bytes(b"abc")
    runs.write_manifest(
        tmp_path / "03.run.json",
        SimpleNamespace(rows=5, name="é"),
        [tmp_path / "in.jsonl"],
        right=3,
    )
    text = (tmp_path / "03.run.json").read_text(encoding="utf-8")
    made = json.loads(text)
    assert (
        made["command"] == ["03_build.py", "--rows", "5"]
        and made["config"] == {"rows": 5, "name": "é"}
        and made["right"] == 3
    )
    # SHA-256 of "abc": FIPS 180-2, appendix B.1
    assert made["inputs"] == {
        str(
            tmp_path / "in.jsonl"
        ): "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
    assert made["versions"]["python"] == sys.version.split()[0] and "torch" in made["versions"]
    assert (
        made["finished"].endswith("Z")
        and made["seconds"] >= 0
        and {"commit", "uncommitted_changes", "gpu"} <= set(made)
    )
    assert "secret" not in text and "somebody" not in text


def test_an_input_that_changed_since_stops_the_next_stage(tmp_path, monkeypatch):
    """03 must not build from critiques of responses that have been replaced."""
    monkeypatch.chdir(tmp_path)
    run = runs.run_folder("r")
    files.write_jsonl(run / "01_responses.jsonl", [{"a": 1}])
    runs.write_manifest(
        run / "02.run.json", SimpleNamespace(name="r"), [run / "01_responses.jsonl"]
    )
    runs.check_inputs(run, "02")
    files.write_jsonl(run / "01_responses.jsonl", [{"a": 2}])
    with pytest.raises(
        InputError,
        match="(?s)01_responses.jsonl has changed since 02_critique.py.*python 02_critique.py --name r",
    ):
        runs.check_inputs(run, "02")
    runs.check_inputs(run, "03")  # a stage that has not run has read nothing


def test_earlier_sets_are_known_as_long_as_they_stand(tmp_path):
    data = tmp_path / "03_data"
    data.mkdir()
    for name in ("old", "cft", "sft", "stray"):
        (data / f"{name}.jsonl").write_text(name)
    made = {"config": {"seed": 1}, "inputs": {"x": "1"}, "finished": "then", "commit": "c"}
    last = made | {
        "rows": {"cft": 1, "sft": 1},
        "output_sha256": {name: file_hash(data / f"{name}.jsonl") for name in ("cft", "sft")},
        "earlier": {
            "old": made | {"sha256": file_hash(data / "old.jsonl")},
            "gone": made | {"sha256": "1"},
        },
    }
    (tmp_path / "03.run.json").write_text(json.dumps(last))
    (data / "sft.jsonl").write_text("changed")
    assert runs.earlier(tmp_path, {}) == {
        "old": last["earlier"]["old"],
        "cft": made | {"sha256": last["output_sha256"]["cft"]},
    }
    assert set(runs.earlier(tmp_path, {"cft": 1})) == {"old"}
    assert runs.earlier(tmp_path / "none", {}) == {}


def test_what_04_may_train(tmp_path):
    """What 03 built last, and by name what earlier commands built; a run that has no 03 says so."""
    (tmp_path / "03.run.json").write_text(json.dumps({"rows": {"sft": 3, "cft": 2}}))
    assert runs.built(tmp_path) == (["sft", "cft"], {"sft": None, "cft": None})
    made = {
        "rows": {"cft": 2},
        "output_sha256": {"cft": "1"},
        "earlier": {"cft-half": {"sha256": "2"}},
    }
    (tmp_path / "03.run.json").write_text(json.dumps(made))
    assert runs.built(tmp_path) == (["cft"], {"cft": "1", "cft-half": "2"})
    (tmp_path / "in").write_text("changed")
    (tmp_path / "03.run.json").write_text(
        json.dumps(made | {"inputs": {str(tmp_path / "in"): "0"}})
    )
    with pytest.raises(InputError, match="in has changed since 03_build.py read it"):
        runs.built(tmp_path)
    with pytest.raises(InputError, match="03.run.json is not there"):
        runs.built(tmp_path / "none")


def command(run, rows, source, model=None, equal=0):
    """As 01 --add does it: the rows of a command beside those that stand. -> the lines it prints"""
    made = {"source": source, "called": source.rpartition("/")[2], "model": model}
    kept, lines = runs.standing(run, made)
    write_rows(run / "01_responses.jsonl", [row for _, some in kept for row in some] + rows)
    commands = [one for one, _ in kept] + [made | {"rows": len(rows), "equal": equal}]
    files.write_json(
        run / "01.run.json",
        {"commands": commands, "output_sha256": file_hash(run / "01_responses.jsonl")},
    )
    return lines


def test_a_command_replaces_its_own_rows_alone(tmp_path):
    """Whatever the rows say of themselves: two parts of one data set name the same source and generator."""
    a, b, c, again = (
        [{"source": "s", "generator": "g", "n": n + i} for i in range(2)] for n in (10, 20, 30, 40)
    )
    (
        command(tmp_path, a, "a.jsonl"),
        command(tmp_path, b, "b.jsonl", equal=1),
        command(tmp_path, c, "a.jsonl", "m"),
    )
    assert files.read_jsonl(tmp_path / "01_responses.jsonl") == a + b + c
    first, note = command(tmp_path, again[:1], "a.jsonl")
    assert (
        first
        == "4 rows of other sources and models stand before them; 2 that this source and model gave before are replaced"
    )
    assert note.startswith("note: rows of b.jsonl were left out as equal to others")
    assert files.read_jsonl(tmp_path / "01_responses.jsonl") == b + c + again[:1]
    assert len(command(tmp_path, [], "b.jsonl")) == len(command(tmp_path, b, "b.jsonl")) == 1
    assert files.read_jsonl(tmp_path / "01_responses.jsonl") == c + again[:1] + b


def test_two_files_of_one_name_are_said(tmp_path):
    assert (
        len(command(tmp_path, [{"n": 1}], "x/a.jsonl"))
        == len(command(tmp_path, [{"n": 2}], "x/a.jsonl", "m"))
        == 1
    )
    assert (
        "note: x/a.jsonl and y/a.jsonl are both called a.jsonl"
        in command(tmp_path, [{"n": 3}], "y/a.jsonl")[1]
    )


def test_rows_that_01_did_not_write_stop_it(tmp_path):
    write_rows(tmp_path / "01_responses.jsonl", [{"n": 1}])
    with pytest.raises(InputError, match="is not as 01_sample.py wrote it.*\n.*leave --add out"):
        runs.standing(tmp_path, {"source": "a.jsonl", "called": "a.jsonl", "model": None})
    files.write_json(
        tmp_path / "01.run.json", {"output_sha256": file_hash(tmp_path / "01_responses.jsonl")}
    )  # nor says which command did
    with pytest.raises(InputError, match="is not as 01_sample.py wrote it"):
        runs.standing(tmp_path, {"source": "a.jsonl", "called": "a.jsonl", "model": None})
    (tmp_path / "01_responses.jsonl").unlink()
    (tmp_path / "01.run.json").unlink()
    assert (
        runs.standing(tmp_path, {"source": "a.jsonl", "called": "a.jsonl", "model": None})[0] == []
    )
