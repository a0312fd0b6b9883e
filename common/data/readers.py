"""Records of a local file or of a dataset on the hub, as a stream, and a random sample of one."""

import csv
import heapq
import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from common.core.errors import InputError, failed
from common.core.files import iter_jsonl

READABLE = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MAX_CELL = 2**24  # characters in a cell of a CSV file
EXPECTED_JSON = "Expected a list of objects, or one object a line, with the same fields in each."


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


def read_records(
    path: str, config=None, split="train", revision=None, streaming=True, file=None
) -> Iterator:
    """Yield the records of a local file (READABLE), or of a dataset of the hub, as dicts.

    split: of the hub; "a+b" is one after the other. file: the one file to read of the hub's.
    Nothing of a stream is kept on disk. Raises InputError if it cannot be read, also if the
    connection breaks off on the way.
    """
    kind = Path(path).suffix.lower()
    if kind in (".jsonl", ".json"):
        yield from _read_json(Path(path))
    elif kind in (".csv", ".tsv"):
        yield from _read_csv(Path(path))
    elif kind == ".parquet":
        yield from _load_dataset("parquet", path, data_files=path, split="train", streaming=True)
    else:
        for part in split.split("+"):
            options = dict(split=part, revision=revision, data_files=file, streaming=streaming)
            yield from _load_dataset(path, path, name=config, **options)


def _load_dataset(builder, place, **options):
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        yield from load_dataset(builder, **options)
    except (OSError, ValueError, DatasetsError) as error:
        raise failed(
            f"{place} could not be read",
            error,
            "Check the name and the connection. If its page on the hub asks for it, request access "
            "and log in: hf auth login. Or download it and name the file: --source FILE.parquet "
            "(NAME=FILE.parquet for a source that the kit knows), --benchmarks-dir DIR for a test "
            "set (not for GPQA, which is only read from the hub)",
        ) from error


def _read_json(path):
    """Yield the objects of a list, or one a line, whichever the file holds."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            is_list = file.read(2**16).lstrip().startswith("[")
        records = json.loads(path.read_text(encoding="utf-8-sig")) if is_list else iter_jsonl(path)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}).\n{EXPECTED_JSON}") from error
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise InputError(
                f"{path}, item {number} is no object: {str(record)[:80]}\n{EXPECTED_JSON}"
            )
        yield record


def _read_csv(path):
    """Yield the rows; the columns are parted by what is most frequent in the header."""
    csv.field_size_limit(MAX_CELL)
    rows = None
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            start, header = 0, file.readline()
            if header.startswith("sep="):  # a line that Excel writes for itself
                start, header = file.tell(), file.readline()
            file.seek(start)
            unquoted = re.sub('"[^"]*"', "", header)
            delimiter = max(",;\t", key=unquoted.count)
            rows = csv.DictReader(file, delimiter=delimiter, strict=True)
            for row in rows:
                if None in row:
                    raise ValueError("more cells than the header; a text with commas needs quotes")
                yield {name: cell or None for name, cell in row.items()}
    except (OSError, ValueError, csv.Error) as error:
        line = rows.line_num if rows else 1
        raise InputError(
            f"{path} cannot be read, in line {line} or some lines below ({error}).\n"
            "Expected CSV in UTF-8, with the names of the columns in its first line. From Excel: "
            "save as 'CSV UTF-8', or iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW.csv"
        ) from error
