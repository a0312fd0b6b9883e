"""Where questions and noisy responses come from: hub datasets and local files, in one row schema.

A row: id, question_id, question, gold, response, source, generator, sample, finish_reason; where the data brings a
critique also critique (normalised), critique_raw, verdict and teacher.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from common import verdicts
from common.files import InputError, content_id, read_jsonl

FIELDS = ("question", "response", "gold", "critique", "verdict", "teacher", "source", "generator")


@dataclass(frozen=True)
class Hub:
    """A dataset of the hub: its id, config and split, and which of our fields each column holds."""

    path: str
    config: str | None = None
    columns: dict = field(default_factory=dict)  # our field -> their column
    split: str = "train"
    packed: bool = False  # question, response and critique in the form of WebInstruct-CFT (see `unpack`)


READABLE = (".jsonl", ".json", ".parquet")
# Columns as the hub serves them.
SOURCES = {
    "webinstruct-cft-50k": Hub("TIGER-Lab/WebInstruct-CFT", "WebInstruct-CFT-50K", packed=True),
    "webinstruct-cft-4k": Hub("TIGER-Lab/WebInstruct-CFT", "WebInstruct-CFT-4K", packed=True),
    "webinstruct-cft-600k": Hub("TIGER-Lab/WebInstruct-CFT", "WebInstruct-CFT-600K", packed=True),
    "webinstruct": Hub("TIGER-Lab/WebInstructSub", None, {"question": "question", "response": "answer"}),
    "metamath": Hub("meta-math/MetaMathQA", None, {"question": "query", "response": "response"}),
    "numina": Hub("AI-MO/NuminaMath-CoT", None, {"question": "problem", "response": "solution"}),
}


def unpack(record):
    """A row of WebInstruct-CFT -> question, response, critique.

    >>> unpack({"input": "Question:\\nq\\n\\nSolution:\\na\\n", "output": "Critique:\\nc"})
    {'question': 'q', 'response': 'a', 'critique': 'c'}
    """
    if not all(isinstance(record.get(column), str) for column in ("input", "output")):
        raise ValueError(f"no text in its columns input and output; it has {', '.join(record)}")
    question, found, response = record["input"].removeprefix("Question:\n").partition("\n\nSolution:\n")
    if not found:
        raise ValueError("its input column has no 'Question: ... Solution: ...'")
    # Split once only: a response may itself contain "Solution:".
    return {"question": question, "response": response.removesuffix("\n"),
            "critique": record["output"].removeprefix("Critique:\n")}


def parse_map(pairs, flag):
    """["question=problem", ...] -> {"question": "problem"}."""
    result = {}
    for pair in pairs:
        ours, found, theirs = pair.partition("=")
        if not found or not ours or not theirs:
            raise InputError(f"{flag}: cannot read {pair!r}; expected name=value, for example {flag} question=problem")
        result[ours] = theirs
    return result


def rows(source, columns=(), verdict_values=(), revision=None, limit=None, need_response=True, drop_bad=False):
    """-> (rows, counts): at most `limit` rows of a hub source, hub id or local file, checked, without exact duplicates.

    columns: pairs "field=column" for the FIELDS; a local file's own field names are taken as they are. verdict_values:
    pairs "value=right" or "value=wrong" for a mapped verdict column (JSON spelling: true=right). A bad row raises
    InputError, or is dropped and counted with drop_bad.
    """
    given, values = parse_map(columns, "--columns"), parse_map(verdict_values, "--verdict-values")
    if unknown := sorted(set(given) - set(FIELDS)):
        raise InputError(f"--columns: no field called {', '.join(unknown)}; the fields are {', '.join(FIELDS)}")
    if not set(values.values()) <= {"right", "wrong"}:
        raise InputError(f"--verdict-values: a value means right or wrong, not {sorted(set(values.values()))}")
    records, origin, hub = _records(source, revision)
    records = list(islice(records, limit))
    seen_columns = {column for record in records for column in record}
    mapping = _mapping(source, given, hub, seen_columns, need_response)
    result, seen, counts = [], set(), Counter()
    for number, record in enumerate(records, 1):
        where = f"{source}, row {number}"
        try:
            row = _row(unpack(record) if hub.packed else record, where, mapping, values, origin, need_response, counts)
        except ValueError as error:
            if not drop_bad:
                raise InputError(f"{where}: {error}\n"
                                 "Mend the row, or add --drop-bad to leave such rows out and count them.") from None
            counts["bad rows dropped"] += 1
            continue
        key = (row["id"], row.get("critique_raw"))
        if key in seen:
            counts["exact duplicates dropped"] += 1
        else:
            seen.add(key)
            result.append(row)
    if not result:
        raise InputError(f"{source} holds no usable rows ({dict(counts) or 'it is empty'}).")
    return result, counts


def _records(source, revision):
    """-> (iterable of dicts, name of the origin, the Hub entry; an empty one for a local file)."""
    path = Path(source)
    if path.is_file():
        return _read_local(path), path.name, Hub("")
    if source in SOURCES:
        hub = SOURCES[source]
    elif source.count("/") == 1 and not source.startswith((".", "/")) and path.suffix not in READABLE:
        hub = Hub(source)
    else:
        raise InputError(f"--source {source!r} is no file here and no known source; known: tiny, {', '.join(SOURCES)},\n"
                         "a hub id such as org/name, or a .jsonl, .json or .parquet file")
    import datasets

    try:
        stream = datasets.load_dataset(hub.path, hub.config, split=hub.split, streaming=True, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise InputError(f"{hub.path} could not be read from the hub ({type(error).__name__}: {str(error)[:200]})\n"
                         "Check the name and the connection, or download it and give the file: --source data.parquet") from error
    return stream, source if hub.packed else hub.path, hub


def _mapping(source, given, hub, seen_columns, need_response):
    """Which column holds which field: as given, else as the hub entry says, else columns that bear a field's name."""
    own = {name: name for name in FIELDS if name in seen_columns}
    mapping = (dict.fromkeys(("question", "response", "critique")) if hub.packed else own | hub.columns) | given
    columns = ", ".join(sorted(seen_columns))
    for name, column in given.items():
        if seen_columns and column not in seen_columns:
            raise InputError(f"{source} has no column {column!r} for {name}; its columns are {columns}\n"
                             f"Name the right one: --columns {name}=COLUMN")
    for name in ("question", "response") if need_response else ("question",):
        if seen_columns and name not in mapping:
            raise InputError(f"{source} has no column {name!r}; its columns are {columns}\n"
                             f"Say which it is: --columns {name}=COLUMN")
    return {name: column or name for name, column in mapping.items()}


def _read_local(path):
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    if path.suffix == ".json":
        try:
            records = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not JSON ({error}).") from error
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise InputError(f"{path}: expected a JSON list of objects; a file with one object per line is .jsonl")
        return records
    if path.suffix == ".parquet":
        import pyarrow.lib
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path).to_pylist()
        except (pyarrow.lib.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} is not a readable Parquet file ({error}).") from error
    raise InputError(f"{path}: expected a file that ends in {', '.join(READABLE)}")


def _row(record, where, mapping, values, origin, need_response, counts):
    """One checked row; ValueError says what is bad about it."""
    get = {name: record.get(column) for name, column in mapping.items()}
    for name in ("question", "response") if need_response else ("question",):
        if not isinstance(get[name], str) or not get[name].strip():
            raise ValueError(f"no {name} (column {mapping[name]!r} holds {get[name]!r})")
    if not isinstance(get.get("critique") or "", str):
        raise ValueError(f"the critique is no text (column {mapping['critique']!r} holds {get['critique']!r})")
    row = make_row(get["question"], get.get("response"), get.get("gold"), get.get("source") or origin,
                   get.get("generator") or "unknown")
    if get.get("critique"):
        row |= _critique(get, where, values, mapping, counts)
    elif get.get("verdict") is not None:
        counts["verdicts without a critique, not used"] += 1
    return row


def make_row(question, response, gold, source, generator, sample=0, finish_reason=None):
    """One row of 01. Golds are text or null; ids are hashes of the content."""
    return {
        "id": content_id(question, response), "question_id": content_id(question), "question": question,
        "gold": None if gold is None else str(gold), "response": response, "source": source, "generator": generator,
        "sample": sample, "finish_reason": finish_reason,
    }


def _critique(get, where, values, mapping, counts):
    """A critique that came with the data; its verdict from the mapped column where there is one, else from the text."""
    raw, stated = get["critique"], verdicts.parse(get["critique"])
    verdict = stated
    if "verdict" in mapping and get["verdict"] is not None:
        value = get["verdict"] if isinstance(get["verdict"], str) else json.dumps(get["verdict"])
        verdict = values.get(value, value)
        if verdict not in ("right", "wrong", "unparsed"):
            example = "true=right false=wrong" if value in ("true", "false") else f"{value}=right (or {value}=wrong) ..."
            raise InputError(f"{where}: column {mapping['verdict']!r} holds the verdict {value!r}; expected right or wrong\n"
                             f"Say what its values mean: --verdict-values {example}")
        counts["verdict column and critique text disagree"] += stated not in ("unparsed", verdict)
    return {
        "critique": raw if verdict == "unparsed" else verdicts.normalise(raw, verdict), "critique_raw": raw,
        "verdict": verdict, "teacher": str(get.get("teacher") or "unknown"),
    }
