"""Records of a local file or of a dataset on the hub, as a stream, and a random sample of one."""

import heapq
import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from common.core.errors import InputError
from common.core.files import iter_jsonl

READABLE = (".jsonl", ".parquet")


def sample_records(records: Iterable, size: int, seed: int) -> tuple[list, int]:
    """Return a random sample of at most `size` records, and how many there were.

    The sample is [(number in the stream from 1, record)] in the stream's order. Each record is as
    likely as any other, in one pass that holds no more than `size`: those with the `size` smallest
    random numbers. So a smaller sample of the same seed is part of a larger one.
    """
    rng = random.Random(f"sample {seed}")
    numbers = itertools.count(1)
    drawn = ((rng.random(), number, record) for record, number in zip(records, numbers))
    smallest = heapq.nsmallest(size, drawn)
    sample = sorted((number, record) for _, number, record in smallest)
    return sample, next(numbers) - 1


def read_records(path: str, config=None, split="train", revision=None, streaming=True) -> Iterator:
    """Yield the records of a .jsonl or .parquet file, or of a dataset of the hub.

    Nothing of a stream is kept on disk. Raises InputError if it cannot be read, also if the
    connection breaks off on the way.
    """
    if path.endswith(".jsonl"):
        yield from iter_jsonl(Path(path))
        return
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    file = None
    if path.endswith(".parquet"):
        path, config, split, file = "parquet", None, "train", path
    try:
        yield from load_dataset(
            path, config, split=split, revision=revision, data_files=file, streaming=streaming
        )
    except (OSError, ValueError, DatasetsError) as error:
        raise InputError(
            f"{file or path} could not be read ({type(error).__name__}: {str(error)[:200]})\n"
            "Check the name and the connection. If its page on the hub asks for it, request access "
            "and log in: hf auth login. Or download it and name the file: --source FILE.parquet "
            "(NAME=FILE.parquet for a source that the kit knows), --benchmarks-dir DIR for a test "
            "set (not for GPQA, which is only read from the hub)"
        ) from error
