"""The journal: what was paid for is never lost, and found again."""

import signal

import pytest

from common.core import files
from common.generate.journal import Journal
from tests.core.test_files import child


def test_a_journal_finds_its_records_again(tmp_path):
    path = tmp_path / "new" / "journal.jsonl"
    records = [
        {"key": "a", "text": "é\n\u2028"},
        {"key": "b", "text": "half an emoji \ud83d"},
        {"key": "c", "text": ""},
    ]
    with Journal(path) as journal:
        for n, record in enumerate(records, 1):
            journal.append(record)
            # It is in the file before append returns.
            assert path.read_bytes().count(b"\n") == n
        assert journal.records["b"] == records[1]
    with Journal(path) as journal:
        assert list(journal.records.values()) == records and not journal.skipped


def test_of_equal_keys_the_last_counts(tmp_path):
    """An answer that was asked for again after a failure stands for good; both stay in the file."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for record in (
            {"key": "a", "error": "400"},
            {"key": "b", "text": "2"},
            {"key": "a", "text": "1"},
        ):
            journal.append(record)
        assert journal.records["a"] == {"key": "a", "text": "1"}
    with Journal(path) as journal:
        assert journal.records == {"a": {"key": "a", "text": "1"}, "b": {"key": "b", "text": "2"}}
    assert [row["key"] for row in files.read_jsonl(path)] == ["a", "b", "a"]


LINES = b'{"key": "a", "text": "1"}\n{"key": "b", "text": "\xc3\xa9"}\n'


@pytest.mark.parametrize("cut", [2, 3, 4, 20, 26])
def test_a_torn_last_line_is_cut_off_and_the_next_record_is_whole(tmp_path, capsys, cut):
    """Of the second line's 27 bytes some are missing (4: in the middle of the é).

    The next record must not stick to the rest.
    """
    path = tmp_path / "journal.jsonl"
    path.write_bytes(LINES[:-cut])
    with Journal(path) as journal:
        assert set(journal.records) == {"a"} and not journal.skipped
        journal.append({"key": "c", "text": "2"})
    assert [row["key"] for row in files.read_jsonl(path)] == [
        "a",
        "c",
    ] and capsys.readouterr().err == ""


def test_a_last_line_that_lacks_its_newline_alone_is_kept(tmp_path):
    """It is whole and was paid for; the next record starts a line of its own."""
    path = tmp_path / "journal.jsonl"
    path.write_bytes(LINES[:-1])
    with Journal(path) as journal:
        assert set(journal.records) == {"a", "b"} and path.read_bytes() == LINES
        journal.append({"key": "c", "text": "2"})
    assert path.read_bytes() == LINES + b'{"key": "c", "text": "2"}\n'


@pytest.mark.parametrize("tail", [b"5", b"[1]", b'{"text": "no key"}', b'{"key": []}'])
def test_a_last_line_that_is_json_but_no_record_is_cut_off(tmp_path, tail):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(LINES + tail)
    with Journal(path) as journal:
        journal.append({"key": "c", "text": "2"})
    assert [row["key"] for row in files.read_jsonl(path)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "bad",
    [
        b"\x00\x00\x00\n",
        b'{"key": \n',
        b"[1]\n",
        b'{"text": "no key"}\n',
        b'{"key": []}\n',
        b"\xff\xfe\n",
        b"\n",
        b'"key"\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_bad_line_in_the_middle_is_skipped_and_reported(tmp_path, capsys, bad):
    """What stands after it was paid for, too; the line stays, for whoever wants to look at it."""
    path = tmp_path / "journal.jsonl"
    lines = LINES + bad + LINES.replace(b'"a"', b'"c"').replace(b'"b"', b'"d"') + bad
    path.write_bytes(lines)
    with Journal(path) as journal:
        assert set(journal.records) == set("abcd") and journal.skipped == [3, 6]
    assert f"{path}: 2 unreadable lines skipped, the first is line 3" in capsys.readouterr().err
    assert path.read_bytes() == lines


def test_a_second_process_may_not_open_a_journal(tmp_path):
    """Two writers would pay for every row twice."""
    path = tmp_path / "journal.jsonl"
    code = """
import sys
from common.core.errors import InputError
from common.generate.journal import Journal
try:
    Journal(sys.argv[1]).close()
    print("opened")
except InputError as error:
    print("refused:", error)
"""
    with Journal(path) as journal:
        journal.append({"key": "a"})
        output, _ = child(code, path).communicate(timeout=60)
        assert output.startswith("refused:") and str(path) in output
    assert child(code, path).communicate(timeout=60)[0] == "opened\n"


def test_kill_9_loses_no_record_that_was_reported(tmp_path):
    """The writer says each key only after append returned; it is killed in full flow."""
    path = tmp_path / "journal.jsonl"
    code = """
import sys
from common.generate.journal import Journal
journal = Journal(sys.argv[1])
for n in range(10**9):
    journal.append({"key": f"{n}", "text": "x" * 5000})
    print(n, flush=True)
"""
    writer = child(code, path)
    reported = [int(writer.stdout.readline()) for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    # Not communicate(): it would miss what readline() has buffered.
    reported += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    writer.communicate()
    with Journal(path) as journal:  # the dead writer's lock is gone, too
        assert reported == list(range(len(reported))) and not journal.skipped
        assert all(f"{n}" in journal.records for n in reported)


def test_a_full_disk_ends_the_run_and_leaves_no_part_of_a_record(tmp_path):
    """A file size limit stands in for it: the kernel takes a part of the write.

    Afterwards, with room, it goes on.
    """
    path = tmp_path / "journal.jsonl"
    code = """
import resource, sys
from pathlib import Path
from common.core.errors import Stopped
from common.generate.journal import Journal
path = Path(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
with Journal(path) as journal:
    for n in range(4):
        try:
            journal.append({"key": f"{n}", "text": "x" * 400})
        except Stopped as end:
            print(end.status, sorted(journal.records), str(end).replace("\\n", " "))
    print(path.read_bytes().count(b"\\n"), path.read_bytes().endswith(b"\\n"))
    journal.append({"key": "small", "text": ""})
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    journal.append({"key": "after", "text": "x" * 400})
"""
    output, errors = child(code, path).communicate(timeout=60)
    third, fourth, content = output.splitlines()
    assert third == fourth, output + errors
    assert third.startswith(f"5 ['0', '1'] {path}") and "Make room" in third
    assert content == "2 True"
    assert [row["key"] for row in files.read_jsonl(path)] == ["0", "1", "small", "after"]
