"""Code in a model folder is never run, and nobody is asked whether it may be."""

import builtins
import json
import shutil

import pytest

from common.core.errors import InputError
from common.core.tokenizer import load_tokenizer
from common.generate.local import Local
from common.train import model


@pytest.fixture
def hostile(tmp_path, tiny_model, monkeypatch):
    """A folder of an unknown architecture whose files name code to run, and where it would show."""
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("the user was asked"))
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(tiny_model, folder)
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')")
    auto_map = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    change(folder / "config.json", model_type="strange", auto_map=auto_map)
    tokenizer = {"AutoTokenizer": ["code.T", "code.T"]}
    change(folder / "tokenizer_config.json", tokenizer_class="T", auto_map=tokenizer)
    return folder, marker


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_no_code_of_a_model_folder_is_run(hostile):
    folder, marker = hostile
    for load in (load_tokenizer, model.read_config):
        with pytest.raises(InputError):
            load(folder)
    change(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", auto_map={})
    with pytest.raises(InputError):
        _ = Local(str(folder)).model
    assert not marker.exists()
