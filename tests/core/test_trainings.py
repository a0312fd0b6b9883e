"""What a run's trainings were made with, and which checkpoint of them is the newest."""

import json

import pytest

from common.core import files, trainings
from common.core.errors import InputError


def test_last_checkpoint_is_the_newest_whole_one(tmp_path, capsys):
    folder = tmp_path / "04_train" / "cft"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match="04_train.py --name .* --arms cft"):
        trainings.last_checkpoint(tmp_path, "cft")
    files.write_json(folder / "settings.json", {"steps": 100})
    with pytest.raises(InputError, match="no checkpoint"):
        trainings.last_checkpoint(tmp_path, "cft")
    for name in ("step-000098", "step-000100", "step-000012", "step-000102.part", "state-000200"):
        (folder / name).mkdir()
    assert trainings.last_checkpoint(tmp_path, "cft").name == "step-000100"
    assert capsys.readouterr().out == ""
    files.write_json(folder / "settings.json", {"steps": 120})
    assert trainings.last_checkpoint(tmp_path, "cft").name == "step-000100"
    assert "step-000100 of 120 steps" in capsys.readouterr().out
    (folder / "step-000100" / "merged").mkdir()
    assert trainings.last_checkpoint(tmp_path, "cft").name == "merged"


def test_settings_that_differ_stop_a_training(tmp_path):
    path = tmp_path / "04_train" / "cft" / "settings.json"
    settings = {"seed": 0, "rate": 5e-6, "list": ["é"]}
    trainings.check_settings(path, settings)
    assert not path.exists()
    files.write_json(path, settings)
    trainings.check_settings(path, settings)
    for change, text in (({"rate": 1e-5}, "rate 5e-06 -> 1e-05"), ({"new": 1}, "new None -> 1")):
        with pytest.raises(InputError, match=text) as caught:
            trainings.check_settings(path, settings | change)
        assert "--name" in str(caught.value) and "rm " not in str(caught.value)
    assert json.loads(path.read_text()) == settings


def test_the_base_is_what_the_trainings_began_with(tmp_path):
    def train(name, **settings):
        files.write_json(tmp_path / "04_train" / name / "settings.json", settings)

    with pytest.raises(InputError, match="04_train"):
        trainings.find_base(tmp_path)
    (tmp_path / "01_base").mkdir()
    assert trainings.find_base(tmp_path) == str(tmp_path / "01_base")
    train("cft", base="m")
    train("sft", base="m")
    train("second", base="runs/x/04_train/sft/step-000012", after="sft")
    assert trainings.find_base(tmp_path) == "m"
    train("other", base="n")
    with pytest.raises(InputError, match="2 bases.*'m', 'n'.*\n?.*--model"):
        trainings.find_base(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "", "\ufeff{}"])
def test_torn_settings_are_named(tmp_path, text):
    path = tmp_path / "04_train" / "cft" / "settings.json"
    files.write_atomic(path, text)
    with pytest.raises(InputError, match="cannot be read") as caught:
        trainings.read_settings(path)
    assert str(path) in str(caught.value) and "rm " not in str(caught.value)


def test_checkpoints_of_unknown_settings_are_refused(tmp_path):
    """Whoever loses settings.json must not have its checkpoints taken for those of other rows."""
    path = tmp_path / "04_train" / "cft" / "settings.json"
    trainings.check_settings(path, {"seed": 0})
    (path.parent / "step-000002").mkdir(parents=True)
    with pytest.raises(InputError, match="settings.json is missing"):
        trainings.check_settings(path, {"seed": 0})
