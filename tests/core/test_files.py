"""Ids, JSONL, atomic writes, the journal, manifests: what a killed, resumed or mistaken run must not lose."""

import signal
import subprocess
import sys
import unicodedata

import pytest

from common.core import files
from common.core.errors import InputError, Stopped
from common.core.files import content_id
from common.generate.journal import Journal
from tests.conftest import ROOT
from tests.runs import run_script, write_rows


def child(code, *arguments, **options):
    """Run Python code in another process, with `common` importable."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_content_id_does_not_depend_on_how_unicode_is_composed():
    """The same text from two data sets may be composed (é) or not (e + accent): one question must not become two."""
    composed, decomposed = (
        unicodedata.normalize("NFC", "naïve é 한"),
        unicodedata.normalize("NFD", "naïve é 한"),
    )
    assert composed != decomposed and content_id(composed) == content_id(decomposed)
    assert content_id({"b": 1, "a": [composed]}) == content_id({"a": [decomposed], "b": 1})


def test_content_id_by_hand():
    """The parts as canonical JSON are ["abc"], seven bytes, whose SHA-256 begins so (sha256sum)."""
    assert content_id("abc") == "02f393ea9358560882c1fe79"


PARTS = [
    (),
    ("",),
    ("", ""),
    (None,),
    ("null",),
    ("ab",),
    ("a", "b"),
    ('a", "b',),
    (["a", "b"],),
    ("a ",),
    (1,),
    ("1",),
    (1.5,),
    (True,),
    ("½",),
    ("1⁄2",),
    ("x²",),
    ("x2",),
    ("\ud800",),
    ("\udfff",),
    ("?",),
    ({"a": 1},),
    ({"a": 2},),
    ([["a", "b"]],),
]


def test_content_id_tells_different_parts_apart():
    """Boundaries and types count, and so do characters that the coarser NFKC would merge; a lone surrogate has an id."""
    ids = [content_id(*parts) for parts in PARTS]
    assert len(set(ids)) == len(PARTS)
    assert all(len(i) == 24 and set(i) <= set("0123456789abcdef") for i in ids)


MODEL = {
    "model.safetensors": "weights",
    "config.json": "{}",
    "tokenizer.json": "words",
    "merges.txt": "a b",
    "tokenizer_config.json": "{}",
    "added_tokens.json": "{}",
}


def model_folder(path, contents):
    path.mkdir(parents=True)
    for name, text in contents.items():
        (path / name).write_text(text)
    return files.model_id(path)


def test_model_id_is_of_the_content_and_not_of_the_name(tmp_path):
    """Outputs are kept under it: a moved model finds its own, and no model finds another one's."""
    assert model_folder(tmp_path / "a", MODEL) == model_folder(
        tmp_path / "elsewhere" / "b", MODEL | {"README.md": "about"}
    )


@pytest.mark.parametrize("name", [*MODEL, "pytorch_model.bin"])
def test_model_id_changes_with_what_the_model_computes(tmp_path, name):
    """pytorch_model.bin: transformers loads such a folder too, and 05 takes any folder that it loads."""
    contents = {k: v for k, v in MODEL.items() if name in MODEL or k != "model.safetensors"}
    assert model_folder(tmp_path / "a", contents | {name: "one"}) != model_folder(
        tmp_path / "b", contents | {name: "other"}
    )


@pytest.mark.parametrize(
    "data, says",
    [
        (b'{"a": 1}\n\n{"a": \n', "line 3"),
        (b'{"a": 1}\n[1, 2]\n', "line 2 is not a JSON object"),
        (b'"text"\n', "line 1"),
        (b"null\n", "line 1"),
        (b'{"a": 1} {"a": 2}\n', "line 1"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "not UTF-8"),
        (b"", "no rows"),
        (b"\n \n", "no rows"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "line 1"),
        (b"[" * 100_000 + b"\n", "line 1"),
    ],
    ids=[
        "torn",
        "list",
        "string",
        "null",
        "two on a line",
        "latin",
        "empty",
        "blank",
        "endless number",
        "deep",
    ],
)
def test_read_jsonl_says_file_and_line(tmp_path, data, says):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says) as caught:
        files.read_jsonl(path)
    assert str(path) in str(caught.value)


def test_read_jsonl_takes_blank_lines_and_the_line_ends_of_other_systems(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        '\n{"a": "é\u2028b\x85c"}\r\n   \n{"a": 2}'.encode()
    )  # U+2028 and U+0085 end no JSON line
    assert files.read_jsonl(path) == [{"a": "é\u2028b\x85c"}, {"a": 2}]


def test_read_jsonl_takes_a_byte_order_mark(tmp_path):
    """Editors on Windows write one; to delete the first row, as the message would have it, is no mend."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert files.read_jsonl(path) == [{"a": 1}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\nb\r\n\tc",
        "\u2028\x85\x00\x7f",
        "🙂 é 한",
        '"\\u0041" \\n',
        "\ud800 alone",
        "[END]" * 3000,
    ],
    ids=["empty", "breaks", "separators", "unicode", "escapes", "lone surrogate", "long"],
)
def test_rows_come_back_as_they_were_written(tmp_path, text):
    """Whatever stands in the data, the next script reads what the last one wrote; a web page may hold half an emoji."""
    rows = [{"text": text, "n": 1}, {text: [None, True, 1.5]}]
    files.write_jsonl(tmp_path / "new" / "rows.jsonl", rows)
    assert files.read_jsonl(tmp_path / "new" / "rows.jsonl") == rows


def test_a_write_that_fails_leaves_the_old_content(tmp_path):
    """A file size limit stands in for a full disk: the write breaks off in the middle, as it would there."""
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [{"a": 1}])
    assert path.read_bytes() == b'{"a": 1}\n' and list(tmp_path.iterdir()) == [
        path
    ]  # no part file is left
    with pytest.raises(TypeError):
        files.write_jsonl(path, [{"a": 2}, {"a": object()}])
    code = (
        "import resource, sys; from common.core import files; from common.core.errors import Stopped; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: files.write_jsonl(sys.argv[1], [{'a': 'x' * 600}, {'a': 'x' * 600}])\n"
        "except Stopped as end: print(end.status, end)"
    )
    output, errors = child(code, path).communicate(timeout=60)
    assert output.startswith(f"5 {path} cannot be written") and "Make room" in output, (
        output + errors
    )
    assert files.read_jsonl(path) == [{"a": 1}] and [p.name for p in tmp_path.iterdir()] == [
        path.name
    ]


def test_a_full_disk_ends_a_script_with_status_5(tmp_path):
    """01 has nothing but its rows to write; a traceback would not say what to do."""
    write_rows(tmp_path / "my.jsonl", [{"question": f"{n}+1?", "response": "2"} for n in range(20)])
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); sys.argv = sys.argv[1:];"
        "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = ["01_sample.py", "--preset", "paper", "--source", "my.jsonl"]
    done = run_script(tmp_path, *command, prefix=[sys.executable, "-c", limited])
    assert done.returncode == 5 and "01_responses.jsonl cannot be written" in done.stderr, (
        done.stderr
    )
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "runs" / "paper").iterdir()) == []


def test_check_disk(tmp_path):
    files.check_disk(tmp_path / "new", 1, ", or else")
    with pytest.raises(Stopped, match=r"(?s)1000000000\.000 GB.*Make room, or else\.$") as end:
        files.check_disk(tmp_path, 10**18, ", or else")
    assert end.value.status == 5


# --- the journal ----------------------------------------------------------------------------------------------------


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
            assert (
                path.read_bytes().count(b"\n") == n
            )  # it stands in the file before append returns
        assert "a" in journal and "z" not in journal and journal["b"] == records[1]
    with Journal(path) as journal:
        assert [journal[key] for key in "abc"] == records and not journal.skipped


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
        assert journal["a"] == {"key": "a", "text": "1"}
    with Journal(path) as journal:
        assert journal.records == {"a": {"key": "a", "text": "1"}, "b": {"key": "b", "text": "2"}}
    assert [row["key"] for row in files.read_jsonl(path)] == ["a", "b", "a"]


LINES = b'{"key": "a", "text": "1"}\n{"key": "b", "text": "\xc3\xa9"}\n'


@pytest.mark.parametrize("cut", [2, 3, 4, 20, 26])
def test_a_torn_last_line_is_cut_off_and_the_next_record_is_whole(tmp_path, capsys, cut):
    """Of the second line's 27 bytes some are missing (4: in the middle of the é); the next record must not stick to the rest."""
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
    code = (
        "import sys; from common.core.errors import InputError; from common.generate.journal import *\ntry: Journal(sys.argv[1]).close(); print('opened')\n"
        "except InputError as error: print('refused:', error)"
    )
    with Journal(path) as journal:
        journal.append({"key": "a"})
        output, _ = child(code, path).communicate(timeout=60)
        assert output.startswith(f"refused: another process is writing {path}")
    assert child(code, path).communicate(timeout=60)[0] == "opened\n"


def test_kill_9_loses_no_record_that_was_reported(tmp_path):
    """The writer says each key only after append returned; it is killed in full flow."""
    path = tmp_path / "journal.jsonl"
    code = (
        "import sys; from common.generate.journal import Journal\njournal = Journal(sys.argv[1])\nfor n in range(10**9):\n"
        "    journal.append({'key': f'{n}', 'text': 'x' * 5000}); print(n, flush=True)"
    )
    writer = child(code, path)
    reported = [int(writer.stdout.readline()) for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    reported += [int(line) for line in writer.communicate()[0].split("\n")[:-1]]
    with Journal(path) as journal:  # the dead writer's lock is gone, too
        assert reported == list(range(len(reported))) and not journal.skipped
        assert all(f"{n}" in journal for n in reported)


def test_a_full_disk_ends_the_run_and_leaves_no_part_of_a_record(tmp_path):
    """A file size limit stands in for it: the kernel takes a part of the write. Afterwards, with room, it goes on."""
    path = tmp_path / "journal.jsonl"
    code = (
        "import resource, sys; from common.core.errors import Stopped; from common.generate.journal import Journal\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))\n"
        "with Journal(sys.argv[1]) as journal:\n"
        "    for n in range(4):\n        try: journal.append({'key': f'{n}', 'text': 'x' * 400})\n"
        "        except Stopped as end: print(end.status, sorted(journal.records), str(end).replace('\\n', ' '))\n"
        "    print(open(sys.argv[1], 'rb').read().count(b'\\n'), open(sys.argv[1], 'rb').read().endswith(b'\\n'))\n"
        "    journal.append({'key': 'small', 'text': ''})\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)); journal.append({'key': 'after', 'text': 'x' * 400})\n"
    )
    output, errors = child(code, path).communicate(timeout=60)
    ended, again, stands = output.splitlines()
    assert (
        ended == again
        and ended.startswith(f"5 ['0', '1'] {path} cannot be written")
        and "Make room" in ended
    ), output + errors
    assert stands == "2 True"
    assert [row["key"] for row in files.read_jsonl(path)] == ["0", "1", "small", "after"]


def test_a_lock_is_for_one_process_which_may_take_it_again(tmp_path):
    """A cell of a notebook is run a second time while its first lock is still held."""
    path = tmp_path / "04_train" / "training"
    code = "import sys; from common.core import errors, files\ntry: files.lock(sys.argv[1], reentrant=True); print('taken')\nexcept errors.InputError as e: print('refused:', e)"
    alone = files.lock(path, reentrant=True)
    alone = files.lock(path, reentrant=True)
    assert (
        child(code, path)
        .communicate(timeout=60)[0]
        .startswith(f"refused: another process is writing {path}")
    )
    alone.release(force=True)
    assert child(code, path).communicate(timeout=60)[0] == "taken\n"
