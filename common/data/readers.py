"""Records of a local file or of a dataset on the hub, as a stream, and a random sample of one."""

import heapq
import random
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path

from common.core.errors import InputError
from common.core.files import iter_jsonl

READABLE = (".jsonl", ".parquet")


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
    """Yield the records of a local file; raise InputError if it is no such file."""
    if path.suffix == ".jsonl":
        yield from iter_jsonl(path)
    elif path.suffix == ".parquet":
        yield from _read_parquet(path)
    else:
        raise InputError(
            f"{path}: expected a file that ends in {' or '.join(READABLE)}\n"
            "One object per line is .jsonl; from a JSON list: "
            f"jq -c '.[]' {path} > {path.with_suffix('.jsonl')}"
        )


def _read_parquet(path):
    import pyarrow.lib
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1000):
            yield from batch.to_pylist()
    except (pyarrow.lib.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file ({error}).") from error


def read_hub(
    path: str, config: str | None, split: str, revision: str | None, streaming: bool = True
) -> Iterator:
    """Yield the records of a dataset of the hub; nothing of a stream is kept on disk.

    Raises InputError if it cannot be read, also if the connection breaks off on the way.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        yield from load_dataset(path, config, split=split, streaming=streaming, revision=revision)
    except (OSError, ValueError, DatasetsError) as error:
        raise InputError(
            f"{path} could not be read from the hub ({type(error).__name__}: {str(error)[:200]})\n"
            "Check the name and the connection. If its page asks for it, request access and log "
            "in: hf auth login. Or download it and name the file: --source FILE.parquet "
            "(NAME=FILE.parquet for a source that the kit knows), --benchmarks-dir DIR for a test "
            "set (not for GPQA, which is only read from the hub)"
        ) from error
