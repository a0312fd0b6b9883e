"""Files: JSONL rows, content ids, locks, errors that say how to go on. All final files are written atomically."""

import hashlib
import json
import os
import shlex
import shutil
import unicodedata
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from common.core.errors import MAKERS, InputError, Stopped, cannot_write

# --- ids ------------------------------------------------------------------------------------------------------------


def content_id(*parts):
    """24 hex digits of the SHA-256 of the parts as canonical JSON, Unicode-normalised (NFC), otherwise as they are."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(
        unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
    ).hexdigest()[:24]


def file_hash(path):
    """SHA-256 of a file's bytes, hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def model_id(folder):
    """24 hex digits of what a model folder computes: its weights, config and tokenizer files, whatever it is called."""
    files = [
        f
        for f in sorted(Path(folder).iterdir())
        if f.is_file() and f.suffix in (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")
    ]
    return content_id([[f.name, file_hash(f)] for f in files])


# --- rows -----------------------------------------------------------------------------------------------------------


def read_jsonl(path, fields=()):
    """All rows of a JSONL file, as dicts; InputError with file and line where one is not a JSON object, or lacks a field, and
    where there is none."""
    rows = list(iter_jsonl(path, fields))
    if not rows:
        raise InputError(f"{path} holds no rows.\nA JSONL file has one JSON object per line.")
    return rows


def read_jsonl_if_exists(path, fields=()):
    """The rows of a JSONL file that need not be there, nor hold any."""
    return read_jsonl(path, fields) if path.exists() and path.stat().st_size else []


def iter_jsonl(path, fields=()):
    """The same, one row after the other."""
    try:
        lines = open(path, encoding="utf-8-sig", errors="strict")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}).\nExpected a JSONL file, one JSON object per line."
        ) from error
    with lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _row(line, path, number, fields)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is not UTF-8 text ({error}).\n"
                f"Convert it: iconv -f UTF-16 -t UTF-8 {shlex.quote(str(path))} > NEW (or -f LATIN1, ...)"
            ) from error


def _row(line, path, number, fields):
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}, line {number} is not JSON ({error}): {line[:80]!r}\n"
            f"Expected one JSON object per line; mend or delete that line: sed -i {number}d {shlex.quote(str(path))}"
        ) from error
    if not isinstance(row, dict):
        raise InputError(
            f"{path}, line {number} is not a JSON object: {line[:80]!r}\n"
            f"Expected {{...}}; mend or delete that line: sed -i {number}d {shlex.quote(str(path))}"
        )
    if missing := [name for name in fields if name not in row]:
        raise InputError(
            f"{path}, line {number} has no {', '.join(missing)}: {line[:80]!r}\n"
            + (
                f"{maker} writes that file; run it again"
                if (maker := MAKERS.get(Path(path).name[:2]))
                else f"Expected the fields {', '.join(fields)}."
            )
        )
    return row


def write_atomic(path, data):
    """Write text, or its pieces, so that `path` holds either its old content or all of the new one, whatever happens.

    Stopped (status 5) where the disk does not take it.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as f:
            f.writelines(piece.encode() for piece in ([data] if isinstance(data, str) else data))
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise cannot_write(path, error) from None


def utf8(text):
    """What UTF-8 cannot hold (a lone surrogate, from some page of the web) as a question mark."""
    return text.encode("utf-8", "replace").decode()


def json_line(row):
    """One line of JSONL; text that UTF-8 cannot hold (a lone surrogate, which a server may send) is escaped."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


def write_jsonl(path, rows):
    write_atomic(path, map(json_line, rows))


def lock(path, again=False):
    """Keep others from writing what belongs to `path`, until this process ends or releases it (a lock file beside it).

    again: this process itself may take it once more, as a notebook does whose cell is run a second time.
    """
    held = FileLock(f"{path}.lock", is_singleton=again)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process is writing {path}.\nWait for it to end, or use another --name."
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from None
    return held


def append_line(path, row):
    try:
        with open(path, "a", encoding="utf-8") as f:
            f.write(json_line(row))
    except OSError as error:
        raise cannot_write(path, error) from None


def write_json(path, value):
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def check_disk(folder, needed, mend):
    """Stopped (status 5) where the disk under `folder` has less than `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise Stopped(
            f"{folder} needs {needed / 1e9:.3f} GB, {free / 1e9:.3f} GB are free on that disk.\nMake room{mend}.",
            5,
        )
