"""Files: content ids, JSONL rows, atomic writes, locks."""

import hashlib
import json
import os
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from common.core.errors import InputError, Stopped, cannot_write

MODEL_FILES = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")


def content_id(*parts) -> str:
    """Return 24 hex digits of the SHA-256 of the parts as canonical JSON.

    Unicode is normalized (NFC), so that a composed and a decomposed é are one; all else counts.
    """
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    data = unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:24]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_id(folder: Path) -> str:
    """Return an id of what a model folder, of any name, computes: weights, config, tokenizer."""
    hashes = []
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and path.suffix in MODEL_FILES:
            hashes.append([path.name, file_hash(path)])
    return content_id(hashes)


def read_jsonl(path: Path, fields: Sequence = ()) -> list:
    """Return all rows of a JSONL file.

    Raises InputError if there is none, and with its line if one is no object with `fields`.
    """
    rows = list(iter_jsonl(path, fields))
    if not rows:
        raise InputError(f"{path} holds no rows.\nA JSONL file has one JSON object per line.")
    return rows


def iter_jsonl(path: Path, fields: Sequence = ()) -> Iterator:
    """Yield the rows of a JSONL file one after the other; raises as read_jsonl does."""
    number, line = 1, b""
    try:
        with open(path, "rb") as lines:
            for line in lines:
                if line.strip():
                    yield _parse_row(line.decode("utf-8-sig"), fields)
                number += 1
    except (OSError, ValueError, RecursionError) as error:
        start = line[:80].decode(errors="replace")
        raise InputError(
            f"{path}, line {number} cannot be read ({error}): {start!r}\n"
            f"Expected one JSON object a line, in UTF-8, with: {', '.join(fields) or 'any fields'}."
        ) from error


def _parse_row(line, fields):
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    missing = [name for name in fields if name not in row]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    return row


def write_jsonl(path: Path, rows: Iterable):
    """Write the rows, one a line, atomically."""
    write_atomic(path, map(json_line, rows))


def append_line(path: Path, row: dict):
    """Add a row at the end of a JSONL file."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json_line(row))
    except OSError as error:
        raise cannot_write(path, error) from None


def json_line(row: dict) -> str:
    """Return one line of JSONL."""
    return _to_json(row) + "\n"


def _to_json(value, indent=None):
    """Return a value as JSON; a lone surrogate, which a server may send, is escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def utf8(text: str) -> str:
    """Return the text with a question mark for what UTF-8 cannot hold (a lone surrogate)."""
    return text.encode("utf-8", "replace").decode()


def part_of(path: Path) -> Path:
    """Return where a file is written before it gets its name: another file in each process.

    No reader takes a part. That of a killed process is removed by the next lock_stage.
    """
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def write_atomic(path: Path, text: Iterable[str]):
    """Write text, or its pieces: `path` holds either its old content or all of the new one."""
    path = Path(path)
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8", newline="") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            part.unlink()


def write_json(path: Path, value):
    """Write a value as indented JSON, atomically."""
    write_atomic(path, _to_json(value, indent=1) + "\n")


def lock(path: Path, reentrant: bool = False) -> FileLock:
    """Keep others from writing what belongs to `path`, until this process ends or releases it.

    reentrant: this process may take it once more, as a notebook does whose cell is run twice.
    """
    # Absolute: a relative path means another file once the working directory has changed.
    file_lock = FileLock(Path(f"{path}.lock").absolute(), is_singleton=reentrant)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file_lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process is writing {path}.\nWait for it to end (a notebook: run its last "
            "cell, or restart it), then run the same command again. Or use another --name."
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from None
    return file_lock


def lock_stage(folder: Path) -> FileLock:
    """Keep other processes from a stage of a run, until this one ends or releases the lock.

    folder: where the stage writes, such as runs/NAME/03_data. The lock file is 03_data.lock. With
    the lock held nobody else writes files of this stage, so parts left by a kill are removed.
    """
    file_lock = lock(folder, reentrant=True)
    stage = folder.name[:3]
    for pattern in (f"{stage}*.part", f"{stage}*/**/*.part"):
        for part in folder.parent.glob(pattern):
            if part.is_file():
                part.unlink()
    return file_lock


def check_disk(folder: Path, needed: int):
    """Raise Stopped (status 5) if the disk has less than `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise Stopped(
            f"{folder} needs {needed / 1e9:.3f} GB, {free / 1e9:.3f} GB are free on that disk.\n"
            "Make room, or save less (in 04: a larger --save-every).",
            5,
        )
