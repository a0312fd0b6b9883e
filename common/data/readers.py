"""Records of a local file or of a dataset on the hub, as a stream, and a random sample of one."""

import heapq
import json
import random
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path

from common.core.errors import InputError
from common.core.files import iter_jsonl

READABLE = (".jsonl", ".json", ".parquet")


def sample_records(records: Iterable, size: int | None, seed: int) -> tuple[list, int]:
    """Return a random sample of `size` records (None: all), and how many there were.

    The sample is [(number in the stream from 1, record)] in the stream's order. Each record is as
    likely as any other, in one pass that holds no more than `size`: those with the `size` smallest
    random numbers. So a smaller sample of the same seed is part of a larger one.
    """
    if size is None:
        numbered = list(enumerate(records, 1))
        return numbered, len(numbered)
    rng = random.Random(f"sample {seed}")
    heap, n_read = [], 0  # the largest random number is first to leave
    for n_read, record in enumerate(records, 1):
        entry = (-rng.random(), n_read, record)
        if len(heap) < size:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    numbered = [(number, record) for _, number, record in heap]
    return sorted(numbered, key=itemgetter(0)), n_read


def read_local(path: Path) -> Iterator[dict]:
    """Yield the records of a local file; raise InputError if it is no such file.

    A .json is one list and is read whole.
    """
    if path.suffix == ".jsonl":
        yield from iter_jsonl(path)
    elif path.suffix == ".json":
        yield from _read_json_list(path)
    elif path.suffix == ".parquet":
        yield from _read_parquet(path)
    else:
        raise InputError(f"{path}: expected a file that ends in {', '.join(READABLE)}")


def _read_json_list(path):
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}).") from error
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise InputError(
            f"{path}: expected a JSON list of objects; a file with one object per line is .jsonl"
        )
    return records


def _read_parquet(path):
    import pyarrow.lib
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1000):
            yield from batch.to_pylist()
    except (pyarrow.lib.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file ({error}).") from error


def read_hub(dataset, revision: str | None) -> Iterator[dict]:
    """Yield the records of a HubDataset (sources.py), streamed: nothing is kept on disk.

    Raises InputError if it cannot be read, also if the connection breaks off on the way.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        yield from load_dataset(
            dataset.path, dataset.config, split=dataset.split, streaming=True, revision=revision
        )
    except (OSError, ValueError, DatasetNotFoundError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise InputError(
            f"{dataset.path} could not be read from the hub ({reason})\n"
            "Check the name and the connection, or download it and name the file: "
            "--source FILE.parquet (NAME=FILE.parquet for a source that the kit knows)"
        ) from error
