"""The append-only record of generated text."""

import json
import os
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from common.files import InputError, json_line


class Journal:
    """Text that was generated or paid for, kept line by line under its "key" as it arrives.

    Append-only; a record is one write, so kill -9 loses nothing that was recorded. A torn last line is cut off at the
    next start, a bad line elsewhere is counted and skipped. A second process that opens it gets an InputError.
    """

    def __init__(self, path):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"another process is writing {path}.\nWait for it to end, or use another --name.") from None
        self.records, self.skipped = {}, 0
        if path.exists():
            self._read(path)
        self._file = open(path, "ab", buffering=0)

    def _read(self, path):
        with open(path, "rb+") as f:
            for line in f:
                if not line.endswith(b"\n"):
                    f.seek(-len(line), os.SEEK_END)
                    f.truncate()
                    break
                try:
                    record = json.loads(line)
                    self.records[record["key"]] = record
                except (ValueError, KeyError, TypeError, RecursionError):
                    self.skipped += 1
        if self.skipped:
            print(f"{path}: {self.skipped} unreadable lines skipped", file=sys.stderr)

    def __contains__(self, key):
        return key in self.records

    def __getitem__(self, key):
        return self.records[key]

    def append(self, records):
        """Record a list of dicts, each with a "key", in one write."""
        data = "".join(map(json_line, records)).encode()
        if self._file.write(data) != len(data):
            raise OSError(f"short write to {self._file.name}: is the disk full?")
        self.records.update((r["key"], r) for r in records)

    def close(self):
        self._file.close()
        self._lock.release()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
