"""The append-only record of generated text."""

import glob
import json
import os
import sys
import threading
from pathlib import Path

from common.core.errors import Stopped
from common.core.files import json_line, lock
from common.core.tables import count
from common.train import distributed


class Journal:
    """Text that was generated or paid for, line by line under its "key" as it arrives.

    Of equal keys the last counts. Append-only; a record is one write, so kill -9 loses nothing that
    was recorded (a power cut: the last second). A torn last line is cut off at the next start, a
    bad line elsewhere is reported and skipped. A second process that opens it gets an InputError.

    Under torchrun each process but the first writes a file of its own, <journal>.rank1.jsonl. All
    files are read, whatever the number of processes now.
    """

    def __init__(self, path: str | Path):
        self.main_path = self.path = Path(path)
        if not distributed.is_main():
            self.path = self.main_path.with_suffix(f".rank{distributed.rank()}.jsonl")
        self._lock = lock(self.path)
        self.records, self.skipped = {}, []
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (close() closes it)
        self._read_own()
        self.read_others()
        self._closed, self._broken = threading.Event(), None
        self._syncing = threading.Thread(target=self._sync, daemon=True)
        self._syncing.start()

    def _read_own(self):
        line = b"\n"
        for number, (line, record) in enumerate(_read_lines(self.path), 1):
            if record:
                self.records[record["key"]] = record
            elif line.endswith(b"\n"):
                self.skipped.append(number)
            else:
                self._file.truncate(self._file.seek(-len(line), os.SEEK_END))
                line = b"\n"
        if not line.endswith(b"\n"):
            self._file.write(b"\n")  # a kill took the newline alone
        if self.skipped:
            print(
                f"{self.path}: {count(len(self.skipped), 'unreadable line')} skipped, "
                f"the first is line {self.skipped[0]}",
                file=sys.stderr,
            )

    def read_others(self):
        """Take in what other processes, of this run or an earlier one, wrote to their files.

        An answer counts more than an error, which may have been asked again.
        """
        pattern = glob.escape(self.main_path.stem) + ".rank*.jsonl"
        paths = {self.main_path, *self.main_path.parent.glob(pattern)} - {self.path}
        for path in sorted(path for path in paths if path.exists()):
            for _, record in _read_lines(path):  # a torn line is for its own process to repair
                if record and "text" not in self.records.get(record["key"], {}):
                    self.records[record["key"]] = record

    def _sync(self):
        """Sync once a second, never in the way of an answer: on some disks it takes a while."""
        synced = self._file.tell()
        while not self._closed.wait(1):
            if self._file.tell() != synced:
                synced = self._file.tell()
                try:
                    os.fsync(self._file.fileno())
                except OSError as error:  # a disk may say only now that it is full
                    self._broken = error

    def append(self, record):
        """Record a dict with a "key", in one write.

        Stopped (status 5) if the disk does not take it: then no part of it stays.
        """
        data, end = json_line(record).encode(), self._file.tell()
        try:
            if self._broken or self._file.write(data) != len(data):
                raise self._broken or OSError("short write")
        except OSError as error:
            self._file.truncate(end)
            self._file.seek(end)
            raise Stopped(
                f"{self.path} cannot be written ({error}): is the disk full?\n"
                "Make room, then run the same command again: all answers before are kept.",
                5,
            ) from None
        self.records[record["key"]] = record

    def close(self):
        self._closed.set()
        self._syncing.join()
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()
        self._lock.release()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def _read_lines(path):
    """Yield (line, record) of a journal; the record is {} if the line holds none."""
    with open(path, "rb") as lines:
        for line in lines:
            try:
                record = json.loads(line)
                hash(record["key"])
            except (ValueError, KeyError, TypeError, RecursionError):
                record = {}
            yield line, record
