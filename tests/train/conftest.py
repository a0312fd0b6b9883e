"""Shared by the tests of training: each of them runs in a process group of one process."""

from types import SimpleNamespace

import pytest

from common.train import distributed, model


@pytest.fixture(autouse=True)
def process_group():
    """Start the group before each test: a script that ran in this process ends it."""
    distributed.init_distributed()


@pytest.fixture
def load_sharded(monkeypatch):
    """model.load as one process of several calls it; this one holds all the shards."""

    def load(*args):
        with monkeypatch.context() as several:
            several.setattr(model, "dist", SimpleNamespace(get_world_size=lambda: 2))
            return model.load(*args)

    return load
