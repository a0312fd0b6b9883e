"""Where questions and noisy responses come from: hub datasets and local files, in one row schema, read as a stream.

A row: id, question_id, question, gold, response, source, generator, sample, finish_reason; where the data brings a
critique also critique (normalised), critique_raw, verdict and teacher.
"""

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from common.core import verdicts
from common.core.errors import InputError
from common.core.files import content_id, utf8
from common.data import readers

FIELDS = (
    "question",
    "response",
    "gold",
    "critique",
    "verdict",
    "teacher",
    "source",
    "generator",
    "finish_reason",
)


@dataclass(frozen=True)
class Hub:
    """A dataset of the hub: its id, config and split, which of our fields each column holds, its licence.

    unpack: for records whose columns are not our fields -> a dict of those.
    """

    path: str
    config: str | None = None
    columns: dict = field(default_factory=dict)  # our field -> their column
    split: str = "train"
    unpack: Callable | None = None
    licence: str = ""


def webinstruct_cft(record):
    """A row of WebInstruct-CFT -> question, response, critique.

    >>> webinstruct_cft({"input": "Question:\\nq\\n\\nSolution:\\na\\n", "output": "Critique:\\nc"})
    {'question': 'q', 'response': 'a', 'critique': 'c'}
    """
    if not all(isinstance(record.get(column), str) for column in ("input", "output")):
        raise ValueError(f"no text in its columns input and output; it has {', '.join(record)}")
    question, found, response = (
        record["input"].removeprefix("Question:\n").partition("\n\nSolution:\n")
    )
    if not found:
        raise ValueError("its input column has no 'Question: ... Solution: ...'")
    # Split once only: a response may itself contain "Solution:".
    return {
        "question": question,
        "response": response.removesuffix("\n"),
        "critique": record["output"].removeprefix("Critique:\n"),
    }


def acemath(record):
    """A row of AceMath's SFT data -> question (the first user turn), response. Other turns would need their history: ValueError.

    >>> acemath({"messages": [{"role": "user", "content": "q"}], "answer": "a"})
    {'question': 'q', 'response': 'a'}
    """
    turns = [
        turn
        for turn in record.get("messages") or ()
        if isinstance(turn, dict) and turn.get("role") != "system"
    ]
    if len(turns) != 1 or turns[0].get("role") != "user":
        raise ValueError(
            f"expected one user message in its column messages, seen {[turn.get('role') for turn in turns]}; it has {', '.join(record)}"
        )
    return {"question": turns[0].get("content"), "response": record.get("answer")}


WEBINSTRUCT_CFT = dict(
    path="TIGER-Lab/WebInstruct-CFT", unpack=webinstruct_cft, licence="Apache-2.0"
)
# Columns as the hub serves them.
SOURCES = {
    "webinstruct-cft-50k": Hub(config="WebInstruct-CFT-50K", **WEBINSTRUCT_CFT),
    "webinstruct-cft-4k": Hub(config="WebInstruct-CFT-4K", **WEBINSTRUCT_CFT),
    "webinstruct-cft-600k": Hub(config="WebInstruct-CFT-600K", **WEBINSTRUCT_CFT),
    "webinstruct": Hub(
        "TIGER-Lab/WebInstructSub",
        None,
        {"question": "question", "response": "answer"},
        licence="Apache-2.0",
    ),
    "metamath": Hub(
        "meta-math/MetaMathQA", None, {"question": "query", "response": "response"}, licence="MIT"
    ),
    "numina": Hub(
        "AI-MO/NuminaMath-CoT",
        None,
        {"question": "problem", "response": "solution"},
        licence="Apache-2.0",
    ),
    "acemath": Hub(
        "nvidia/AceMath-Instruct-Training-Data",
        split="math_sft",
        unpack=acemath,
        licence="CC-BY-NC-4.0",
    ),
}


def describe_license(source):
    """A line on the licence of a source's rows (a name of the table, or a hub id that stands in it), "" where none is known."""
    known = {key: hub.licence for name, hub in SOURCES.items() for key in (name, hub.path)}.get(
        source, ""
    )
    warning = (
        ": for non-commercial use only, which may bind what is trained on it, too"
        if "-NC" in known
        else ""
    )
    return f"{source}: {known}{warning}" if known else ""


def parse_map(pairs, flag):
    """["question=problem", ...] -> {"question": "problem"}."""
    result = {}
    for pair in pairs:
        ours, found, theirs = pair.partition("=")
        if not found or not ours or not theirs:
            raise InputError(
                f"{flag}: cannot read {pair!r}; expected name=value, for example {flag} question=problem"
            )
        result[ours] = theirs
    return result


def load_rows(
    source,
    columns=(),
    verdict_values=(),
    revision=None,
    limit=None,
    size=None,
    seed=0,
    need_response=True,
    drop_bad=False,
):
    """-> (rows, counts): rows of a hub source, hub id or local file, checked, without exact duplicates, in the source's order.

    limit: read only so many records. size: of those a random sample, by seed, in one pass that holds no more than that; counts
    then has how many there were. columns: pairs "field=column" for the FIELDS; a local file's own field names are taken as they
    are. verdict_values: pairs "value=right" or "value=wrong" for a mapped verdict column (JSON spelling: true=right). A bad row
    raises InputError, or is dropped and counted with drop_bad.
    """
    given, values = parse_map(columns, "--columns"), parse_map(verdict_values, "--verdict-values")
    if unknown := sorted(set(given) - set(FIELDS)):
        raise InputError(
            f"--columns: no field called {', '.join(unknown)}; the fields are {', '.join(FIELDS)}"
        )
    if not set(values.values()) <= set(verdicts.VERDICTS):
        raise InputError(
            f"--verdict-values: a value means right or wrong, not {sorted(set(values.values()))}"
        )
    stream, origin, hub = _records(source, revision)
    seen_columns = set()
    taken, n_read = readers.sample_records(
        _watched(islice(stream, limit), seen_columns), size, seed
    )
    if not taken:
        raise InputError(f"{source} holds no rows.\nA JSONL file has one JSON object per line.")
    mapping = _mapping(source, given, hub, seen_columns, need_response)
    if not hub.unpack:
        used = [
            name if name == column else f"{name}={column}"
            for name, column in mapping.items()
            if column in seen_columns
        ]
        print(
            f"columns: {', '.join(used)}; not used: {', '.join(sorted(seen_columns - set(mapping.values()))) or 'none'}"
        )
    result, seen, counts = [], {}, Counter()
    if n_read > len(taken):
        counts[f"of {n_read:,} rows, a random sample (--rows)"] = len(taken)
    for number, record in taken:
        where = f"{source}, row {number}"
        try:
            row = _row(
                hub.unpack(record) if hub.unpack else record,
                where,
                mapping,
                values,
                origin,
                need_response,
                counts,
            )
        except ValueError as error:
            if not drop_bad:
                raise InputError(
                    f"{where}: {error}\n"
                    "Mend the row, or add --drop-bad to leave such rows out and count them."
                ) from None
            counts["bad rows dropped"] += 1
            continue
        *text, gold = key(row)
        verdict, golds = seen.setdefault(tuple(text), (row.get("verdict"), set()))
        if verdict != row.get("verdict"):
            counts["rows dropped whose verdict contradicts an equal one"] += 1
        elif gold in golds:
            counts["exact duplicates dropped"] += 1
        else:
            result.append(row)
            golds.add(gold)
    if not result:
        raise InputError(f"{source} holds no usable rows ({dict(counts) or 'it is empty'}).")
    return result, counts


def key(row):
    """What makes two rows one: the response, the critique that came with it and its teacher, and the gold."""
    return row["id"], row.get("critique_raw"), row.get("teacher"), row["gold"]


def _watched(stream, columns):
    """The records; the names of all their columns are added to `columns`."""
    for record in stream:
        columns.update(record)
        yield record


def called(source):
    """What the rows of a --source are called: a known name, also of its hub id or of a downloaded file (NAME=FILE); a file's name; a hub id.

    >>> called("meta-math/MetaMathQA"), called("metamath=x/data.parquet"), called("x/my.jsonl"), called("org/name")
    ('metamath', 'metamath', 'my.jsonl', 'org/name')
    """
    name = {hub.path: name for name, hub in reversed(SOURCES.items())}.get(
        source, source.partition("=")[0]
    )
    if name in SOURCES:
        return name
    return (
        Path(source).name
        if Path(source).is_file() or Path(source).suffix in readers.READABLE
        else source
    )


def identity(source):
    """What tells a --source from others, however it is spelled: a known source's name, a hub id, a file's path from here."""
    file = Path(
        source.partition("=")[2] if not Path(source).is_file() and "=" in source else source
    )
    return os.path.relpath(file.resolve()) if file.is_file() else called(source)


def _records(source, revision):
    """-> (iterable of dicts, what the rows are called, the Hub entry; an empty one for a local file)."""
    name = called(source)
    file = Path(
        source.partition("=")[2] if name in SOURCES and not Path(source).is_file() else source
    )
    if file.is_file():
        return readers.read_local(file), name, SOURCES.get(name, Hub(""))
    if name in SOURCES and "=" not in source:
        hub = SOURCES[name]
    elif (
        source.count("/") == 1
        and not source.startswith((".", "/"))
        and file.suffix not in readers.READABLE
    ):
        hub = Hub(source)
    else:
        raise InputError(
            f"--source {source!r} is no file here and no known source; known: tiny, {', '.join(SOURCES)},\n"
            "a hub id such as org/name, or a .jsonl, .json or .parquet file; NAME=FILE for a known source that you downloaded"
        )
    return readers.read_hub(hub.path, hub.config, hub.split, revision, name), name, hub


def _mapping(source, given, hub, seen_columns, need_response):
    """Which column holds which field: as given, else as the hub entry says, or where there is none columns that bear a field's name.

    (NuminaMath-CoT has a column "source", the contest: a known source goes by its own name.)"""
    own = {name: name for name in FIELDS if name in seen_columns}
    if hub.unpack and given:
        raise InputError(
            f"{source} has a form of its own, so that --columns {' '.join(given)} cannot be given.\nLeave --columns out."
        )
    mapping = (
        dict.fromkeys(("question", "response", "critique")) if hub.unpack else hub.columns or own
    ) | given
    columns = ", ".join(sorted(seen_columns))
    for name, column in (hub.columns | given).items():
        if column not in seen_columns:
            raise InputError(
                f"{source} has no column {column!r} for {name}; its columns are {columns}\n"
                f"Name the right one: --columns {name}=COLUMN"
            )
    for name in ("question", "response") if need_response else ("question",):
        if name not in mapping:
            raise InputError(
                f"{source} has no column {name!r}; its columns are {columns}\n"
                f"Say which it is: --columns {name}=COLUMN"
            )
    return {name: column or name for name, column in mapping.items()}


def _row(record, where, mapping, values, origin, need_response, counts):
    """One checked row; ValueError says what is bad about it."""
    get = {name: record.get(column) for name, column in mapping.items()}
    get = {
        name: None if isinstance(value, float) and value != value else value
        for name, value in get.items()
    }  # NaN: pandas' word for none
    for name in ("question", "response") if need_response else ("question",):
        if not isinstance(get[name], str) or not get[name].strip():
            raise ValueError(f"no {name} (column {mapping[name]!r} holds {get[name]!r})")
    if isinstance(get.get("gold"), (list, dict)):
        raise ValueError(
            f"the gold is no text or number (column {mapping['gold']!r} holds {str(get['gold'])[:60]})"
        )
    if not isinstance(get.get("critique") or "", str):
        raise ValueError(
            f"the critique is no text (column {mapping['critique']!r} holds {get['critique']!r})"
        )
    row = make_row(
        get["question"],
        get.get("response"),
        get.get("gold"),
        str(get.get("source") or origin),
        str(get.get("generator") or "unknown"),
        finish_reason=get.get("finish_reason"),
    )
    if get.get("critique"):
        row |= _critique(get, where, values, mapping, counts)
    elif get.get("verdict") is not None:
        counts["verdicts without a critique, not used"] += 1
    return row


def make_row(question, response, gold, source, generator, sample=0, finish_reason=None):
    """One row of 01. Golds are text or null; ids are hashes of the content."""
    question, response = (
        utf8(question),
        response and utf8(response),
    )  # tokenizers and Parquet take no lone surrogates
    return {
        "id": content_id(question, response),
        "question_id": content_id(question),
        "question": question,
        "gold": None if gold is None else str(gold),
        "response": response,
        "source": source,
        "generator": generator,
        "sample": sample,
        "finish_reason": finish_reason,
    }


def _critique(get, where, values, mapping, counts):
    """A critique that came with the data; its verdict from the mapped column where there is one, else from the text."""
    raw = utf8(get["critique"]).removeprefix("Critique:\n")  # which 03 writes before each
    stated = verdicts.parse_verdict(raw)
    verdict = stated
    if "verdict" in mapping and get["verdict"] is None:
        counts["verdicts read from the critique's text, where the column holds none"] += 1
    elif "verdict" in mapping:
        value = get["verdict"] if isinstance(get["verdict"], str) else json.dumps(get["verdict"])
        verdict = values.get(value, value)
        if verdict not in (*verdicts.VERDICTS, "unparsed"):
            example = (
                "true=right false=wrong"
                if value in ("true", "false")
                else f"{shlex.quote(value)}=right (or {shlex.quote(value)}=wrong) ..."
            )
            raise InputError(
                f"{where}: column {mapping['verdict']!r} holds the verdict {value!r}; expected right or wrong\n"
                f"Say what its values mean: --verdict-values {example}"
            )
        counts["critiques whose text says another verdict than the column, which counts"] += (
            stated not in ("unparsed", verdict)
        )
    return {
        "critique": raw if verdict == "unparsed" else verdicts.with_conclusion(raw, verdict),
        "critique_raw": raw,
        "verdict": verdict,
        "teacher": str(get.get("teacher") or "unknown"),
    }
