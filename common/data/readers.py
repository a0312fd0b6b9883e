"""Records of a local file or of a dataset on the hub, as a stream, and a random sample of one."""

import heapq
import json
import random

from common.core.errors import InputError
from common.core.files import iter_jsonl

READABLE = (".jsonl", ".json", ".parquet")


def sample_records(records, size, seed):
    """A random sample of `size` records (None: all), each as likely, in one pass that holds no more than that.

    -> ([(number in the stream from 1, record)] in the stream's order, how many there were). A smaller sample of the same
    seed is part of a larger one.
    """
    rng, n_read = random.Random(f"sample {seed}"), 0

    def numbered():
        nonlocal n_read
        for n_read, record in enumerate(records, 1):
            yield rng.random(), n_read, record

    found = list(numbered()) if size is None else heapq.nsmallest(size, numbered())
    return [
        (number, record) for _, number, record in sorted(found, key=lambda entry: entry[1])
    ], n_read


def read_local(path):
    """The records of a local file, one after the other; a .json is one list and is read whole. InputError for what is no such file."""
    if path.suffix == ".jsonl":
        yield from iter_jsonl(path)
    elif path.suffix == ".json":
        try:
            records = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not JSON ({error}).") from error
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise InputError(
                f"{path}: expected a JSON list of objects; a file with one object per line is .jsonl"
            )
        yield from records
    elif path.suffix == ".parquet":
        import pyarrow.lib
        import pyarrow.parquet

        try:
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1000):
                yield from batch.to_pylist()
        except (pyarrow.lib.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} is not a readable Parquet file ({error}).") from error
    else:
        raise InputError(f"{path}: expected a file that ends in {', '.join(READABLE)}")


def read_hub(path, config, split, revision, name):
    """The records of a dataset of the hub, streamed: nothing is kept on disk. InputError where it, or the connection, is not there."""
    import datasets

    try:
        yield from datasets.load_dataset(
            path, config, split=split, streaming=True, revision=revision
        )
    except (
        OSError,
        ValueError,
        datasets.exceptions.DatasetNotFoundError,
    ) as error:  # also of a connection that breaks off on the way
        raise InputError(
            f"{path} could not be read from the hub ({type(error).__name__}: {str(error)[:200]})\n"
            "Check the name and the connection, or download it and give the file: "
            f"--source {'' if name == path else name + '='}data.parquet"
        ) from error
