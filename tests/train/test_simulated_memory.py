"""The dry run's memory beside a simulation that counts every storage."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [0, 5, 28])
def test_a_simulated_step_of_the_7b_fits_its_estimate(recomputed):
    """8 GPUs, 16,384 tokens, none, some (as `auto` on 80 GB) or all layers computed again.

    It runs in a process of its own, for its fake process group.
    """
    command = [
        sys.executable,
        "-m",
        "tests.bench.simulated_memory",
        "--recomputed",
        str(recomputed),
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sizes = json.loads(output.splitlines()[0])
    assert sizes["simulated"] <= sizes["estimated"] <= 1.35 * sizes["simulated"]
