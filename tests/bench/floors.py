"""Measure the floors of the test sets: python -m tests.bench.floors [DIR]   (3 minutes)

DIR holds NAME/test.jsonl, ../shared/benchmarks by default. Writes common/data/floors.json.
"""

import json
import sys
from pathlib import Path

from common.core.files import write_atomic
from common.data import floors, test_sets

if __name__ == "__main__":
    folder = sys.argv[1] if sys.argv[1:] else "../shared/benchmarks"
    lines = []
    for name in test_sets.list_public(folder):
        items = test_sets.load_items(name, folder)
        floor = floors.measure_floor(test_sets.get_test_set(name), items)
        lines.append(f"{json.dumps(name)}: {json.dumps(floor)}")
        print(lines[-1], flush=True)
    path = Path(floors.__file__).with_suffix(".json")
    write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")
