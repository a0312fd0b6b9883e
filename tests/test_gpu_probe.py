"""The probe for a GPU runs: a lease of one is too dear to find out that it does not."""

import pytest

from tests.bench import gpu_probe


@pytest.mark.slow
def test_each_part_measures_something_on_a_cpu(capsys):
    """A line is | part | variant | ms | GiB | note |, with - for what cannot be done here."""
    gpu_probe.main(["--shape", "tiny"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    measured = {row[0].removeprefix("| ") for row in rows if len(row) > 4 and row[2] != "-"}
    assert measured >= set(gpu_probe.PARTS)
