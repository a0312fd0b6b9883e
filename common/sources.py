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


# Columns as the hub serves them. WebInstruct-CFT packs question and solution into one column (see `unpack`).
SOURCES = {
    "webinstruct-cft-50k": Hub("TIGER-Lab/WebInstruct-CFT", "WebInstruct-CFT-50K"),
    "webinstruct-cft-4k": Hub("TIGER-Lab/WebInstruct-CFT", "WebInstruct-CFT-4K"),
    "webinstruct-cft-600k": Hub("TIGER-Lab/WebInstruct-CFT", "WebInstruct-CFT-600K"),
    "webinstruct": Hub("TIGER-Lab/WebInstructSub", None, {"question": "question", "response": "answer"}),
    "metamath": Hub("meta-math/MetaMathQA", None, {"question": "query", "response": "response"}),
    "numina": Hub("AI-MO/NuminaMath-CoT", None, {"question": "problem", "response": "solution"}),
}


def unpack(record):
    """A row of WebInstruct-CFT -> question, response, critique.

    >>> unpack({"input": "Question:\\nq\\n\\nSolution:\\na\\n", "output": "Critique:\\nc"})
    {'question': 'q', 'response': 'a', 'critique': 'c'}
    """
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
    mapping, values = parse_map(columns, "--columns"), parse_map(verdict_values, "--verdict-values")
    if unknown := sorted(set(mapping) - set(FIELDS)):
        raise InputError(f"--columns: no field called {', '.join(unknown)}; the fields are {', '.join(FIELDS)}")
    records, origin, defaults = _records(source, revision)
    mapping = defaults | mapping
    result, seen, counts = [], set(), Counter()
    for number, record in enumerate(islice(records, limit), 1):
        where = f"{source}, row {number}"
        try:
            row = _row(record, where, mapping, values, origin, need_response, counts)
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
    """-> (iterable of dicts, name of the origin, default column map)."""
    path = Path(source)
    if path.is_file():
        records = _read_local(path)
        own = {name: name for name in FIELDS if any(name in r for r in records[:1000])}
        return records, path.name, own
    if source in SOURCES:
        hub = SOURCES[source]
    elif source.count("/") == 1 and not source.startswith((".", "/")) and not path.suffix:
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
    if hub.path == "TIGER-Lab/WebInstruct-CFT":
        return map(unpack, stream), source, {name: name for name in ("question", "response", "critique")}
    return stream, hub.path, hub.columns


def _read_local(path):
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    if path.suffix == ".json":
        try:
            records = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not JSON ({error}).") from error
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise InputError(f"{path}: expected a JSON list of objects; a file with one object per line is .jsonl")
        return records
    if path.suffix == ".parquet":
        import pyarrow.lib
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path).to_pylist()
        except pyarrow.lib.ArrowInvalid as error:
            raise InputError(f"{path} is not a Parquet file ({error}).") from error
    raise InputError(f"{path}: expected a file that ends in .jsonl, .json or .parquet")


def _row(record, where, mapping, values, origin, need_response, counts):
    for name, column in mapping.items():
        if column not in record and name not in ("source", "generator"):
            # A map that names no column at all is a mistake, not a bad row: --drop-bad does not hide it.
            raise InputError(f"{where} has no column {column!r} for {name}; its columns are {', '.join(record)}\n"
                             f"Name the right one: --columns {name}=COLUMN")
    get = {name: record.get(column) for name, column in mapping.items()}
    for name in ("question", "response") if need_response else ("question",):
        if name not in mapping:
            raise InputError(f"{where} has no column {name!r}; its columns are {', '.join(record)}\n"
                             f"Say which it is: --columns {name}=COLUMN")
        if not isinstance(get[name], str) or not get[name].strip():
            raise ValueError(f"no {name} (column {mapping[name]!r} holds {get[name]!r})")
    row = make_row(get["question"], get.get("response"), get.get("gold"), get.get("source") or origin,
                   get.get("generator") or "unknown")
    if get.get("critique"):
        row |= _critique(get, values, mapping, counts)
    return row


def make_row(question, response, gold, source, generator, sample=0, finish_reason=None):
    """One row of 01. Golds are text or null; ids are hashes of the content."""
    return {
        "id": content_id(question, response), "question_id": content_id(question), "question": question,
        "gold": None if gold is None else str(gold), "response": response, "source": source, "generator": generator,
        "sample": sample, "finish_reason": finish_reason,
    }


def _critique(get, values, mapping, counts):
    """A critique that came with the data; its verdict from the mapped column where there is one, else from the text."""
    raw, stated = get["critique"], verdicts.parse(get["critique"])
    verdict = stated
    if "verdict" in mapping and get["verdict"] is not None:
        value = get["verdict"] if isinstance(get["verdict"], str) else json.dumps(get["verdict"])
        verdict = values.get(value, value)
        if verdict not in ("right", "wrong", "unparsed"):
            raise InputError(f"column {mapping['verdict']!r} holds the verdict {value!r}; expected right or wrong\n"
                             f"Say what its values mean: --verdict-values {value}=right ...")
        counts["verdict column and critique text disagree"] += stated not in ("unparsed", verdict)
    return {
        "critique": raw if verdict == "unparsed" else verdicts.normalise(raw, verdict), "critique_raw": raw,
        "verdict": verdict, "teacher": get.get("teacher") or "unknown",
    }
