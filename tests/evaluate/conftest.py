"""Shared by the tests of 05's models and checkpoints."""

import json
import shutil

import pytest


@pytest.fixture
def run(tmp_path, tiny_model, monkeypatch):
    """A run with a base and two trained arms of three checkpoints each, to be named from its
    working directory.
    """
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "r"
    shutil.copytree(tiny_model, run / "01_base")
    for arm in ("sft", "cft"):
        for step in (2, 4, 6):
            shutil.copytree(tiny_model, run / "04_train" / arm / f"step-{step:06d}")
        (run / "04_train" / arm / "settings.json").write_text(
            json.dumps({"steps": 6, "base": str(run / "01_base")})
        )
    return run
