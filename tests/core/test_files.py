"""Ids, JSONL, atomic writes, locks: what a killed, resumed or mistaken run must not lose."""

import subprocess
import sys
import unicodedata

import pytest

from common.core import files
from common.core.errors import InputError, Stopped
from common.core.files import content_id
from tests.conftest import ROOT
from tests.runs import contents, run_process, write_rows


def child(code, *arguments, **options):
    """Run Python code in another process, with `common` importable."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_content_id_does_not_depend_on_how_unicode_is_composed():
    """Two data sets may write é in two ways (é, e + accent): one question must not become two."""
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
    """Boundaries and types count, and so do characters that the coarser NFKC would merge.

    A lone surrogate has an id, too.
    """
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
    """pytorch_model.bin: transformers loads such a folder, and 05 takes any that it loads."""
    contents = {k: v for k, v in MODEL.items() if name in MODEL or k != "model.safetensors"}
    assert model_folder(tmp_path / "a", contents | {name: "one"}) != model_folder(
        tmp_path / "b", contents | {name: "other"}
    )


@pytest.mark.parametrize(
    "data, says",
    [
        (b'{"a": 1}\n\n{"a": \n', "line 3"),
        (b'{"a": 1}\n[1, 2]\n', "line 2 .*not a JSON object"),
        (b'"text"\n', "line 1"),
        (b"null\n", "line 1"),
        (b'{"a": 1} {"a": 2}\n', "line 1"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2 cannot be read"),
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


def test_read_jsonl_names_the_fields_that_are_missing(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1, "b": 2, "c": 3}\n{"b": 2}\n')
    with pytest.raises(InputError, match="line 2 .*has no a, c"):
        files.read_jsonl(path, ("a", "b", "c"))


def test_read_jsonl_takes_blank_lines_and_the_line_ends_of_other_systems(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        '\n{"a": "é\u2028b\x85c"}\r\n   \n{"a": 2}'.encode()
    )  # U+2028 and U+0085 end no JSON line
    assert files.read_jsonl(path) == [{"a": "é\u2028b\x85c"}, {"a": 2}]


def test_read_jsonl_takes_a_byte_order_mark(tmp_path):
    """Editors on Windows write one."""
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
    """The next script reads what the last one wrote; a web page may hold half an emoji."""
    rows = [{"text": text, "n": 1}, {text: [None, True, 1.5]}]
    files.write_jsonl(tmp_path / "new" / "rows.jsonl", rows)
    assert files.read_jsonl(tmp_path / "new" / "rows.jsonl") == rows


def test_a_write_that_fails_leaves_the_old_content(tmp_path):
    """A file size limit stands in for a full disk: the write breaks off in the middle."""
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [{"a": 1}])
    assert path.read_bytes() == b'{"a": 1}\n'
    assert list(tmp_path.iterdir()) == [path]  # no part file is left
    with pytest.raises(TypeError):
        files.write_jsonl(path, [{"a": 2}, {"a": object()}])
    code = """
import resource, sys
from common.core import files
from common.core.errors import Stopped
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_jsonl(sys.argv[1], [{"a": "x" * 600}, {"a": "x" * 600}])
except Stopped as end:
    print(end.status, end)
"""
    output, errors = child(code, path).communicate(timeout=60)
    assert output.startswith(f"5 {path}") and "Make room" in output, output + errors
    assert files.read_jsonl(path) == [{"a": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_that_write_one_file_publish_all_of_one_of_them(tmp_path):
    """Each writes one letter 100 times: a file with two letters, a gap or a zero byte is torn.

    With one part file for both, one process publishes what the other one still writes.
    """
    path = tmp_path / "letters"
    code = """
import sys
from common.core import files
for _ in range(100):
    files.write_atomic(sys.argv[1], [sys.argv[2] * 1000] * 300)
"""
    processes = [child(code, path, letter) for letter in "ab"]
    contents = set()
    while any(process.poll() is None for process in processes):
        if path.exists():
            contents.add(path.read_text())
    assert [process.communicate()[1] for process in processes] == ["", ""]
    assert contents | {path.read_text()} <= {"a" * 300_000, "b" * 300_000}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_ends_a_script_with_status_5(tmp_path):
    """01 has nothing but its rows to write; a traceback would not say what to do."""
    write_rows(tmp_path / "my.jsonl", [{"question": f"{n}+1?", "response": "2"} for n in range(20)])
    limited = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    result = run_process(
        tmp_path,
        "01_sample.py",
        *["--preset", "paper", "--source", "my.jsonl"],
        prefix=[sys.executable, "-c", limited],
    )
    assert result.returncode == 5 and "01_responses" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert not contents(tmp_path / "runs" / "paper")


def test_check_disk(tmp_path):
    files.check_disk(tmp_path / "new", 1)
    with pytest.raises(Stopped, match=r"(?s)1000000000\.000 GB.*Make room") as end:
        files.check_disk(tmp_path, 10**18)
    assert end.value.status == 5


HOLD = """
import sys, time
from pathlib import Path
from common.core import errors, files
try:
    lock = files.lock_stage(Path(sys.argv[1]))
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
except errors.InputError as error:
    print("refused:", error)
"""


def test_a_stage_is_locked_for_one_process_which_may_take_it_again(tmp_path):
    """A cell of a notebook is run a second time while its first lock is still held."""
    stage = tmp_path / "04_train"
    first = files.lock_stage(stage)
    second = files.lock_stage(stage)
    output, _ = child(HOLD, stage, 0).communicate(timeout=60)
    assert output.startswith("refused:") and str(stage) in output
    assert child(HOLD, tmp_path / "05_eval", 0).communicate(timeout=60)[0] == "locked\n"
    second.release(force=True)
    assert child(HOLD, stage, 0).communicate(timeout=60)[0] == "locked\n"
    assert not first.is_locked


def test_a_killed_process_gives_up_its_lock_and_leaves_parts_that_the_next_one_removes(tmp_path):
    """Parts of other stages, in which another process may write, stay."""
    stage = tmp_path / "03_data"
    holder = child(HOLD, stage, 600)
    assert holder.stdout.readline() == "locked\n"
    holder.kill()
    holder.communicate(timeout=60)
    names = ["03_data/cft.jsonl.7.part", "03_report.md.7.part", "04_train/a/loss.png.7.part"]
    for name in names:
        write_rows(tmp_path / name, [])
    lock = files.lock_stage(stage)
    assert [name for name in names if (tmp_path / name).exists()] == names[2:]
    lock.release()
