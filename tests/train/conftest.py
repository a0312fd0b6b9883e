"""Shared by the tests of training: each of them runs in a process group of one process."""

import pytest

from common.train import distributed


@pytest.fixture(autouse=True)
def process_group():
    """Start the group before each test: a script that ran in this process ends it."""
    distributed.init_distributed()
