"""Where questions and noisy responses come from: hub datasets and local files, in one row schema.

A row: id, question_id, question, gold, response, source, generator, sample, finish_reason. If the
data brings a critique, also critique (normalized), critique_raw, verdict and teacher.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from common.core import verdicts
from common.core.config import parse_pairs
from common.core.errors import InputError
from common.core.files import content_id, utf8
from common.core.tables import count
from common.core.thinking import without_thinking
from common.data import readers, record_forms
from common.tiny import world

FIELDS = ("question", "response", "gold", "critique", "verdict", "teacher", "source")
FIELDS += ("generator", "finish_reason")


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """A row of sources.json: a dataset of the hub, and which of its columns hold our fields.

    A local file or another dataset of the hub is one with nothing but its path.
    """

    path: str
    config: str | None = None
    split: str = "train"  # "a+b" is one after the other
    file: str | None = None  # the one file to read, of several in a folder of the hub
    columns: dict = field(default_factory=dict)  # our field -> its column
    form: str = "any"  # of record_forms.FORMS, for columns that are not our fields
    license: str = ""
    note: str = ""  # what to know before one uses it
    is_test: bool = False  # a test set of critics: no source of training rows


_TABLE = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
SOURCES = {name: Dataset(**row) for name, row in json.loads(_TABLE).items()}
TEST_SOURCES = tuple(name for name, dataset in SOURCES.items() if dataset.is_test)


def is_on_hub(name: str) -> bool:
    """Tell if a source of the table can be read without a file of one's own."""
    return not SOURCES[name].path.startswith("github.com/")


def describe_sources(names: set) -> list:
    """Return a line for each source of the table among the names: its licence, what to know."""
    lines = []
    for name in sorted(SOURCES.keys() & names):
        dataset = SOURCES[name]
        lines.append(f"{name}: {'; '.join(filter(None, [dataset.license, dataset.note]))}")
    return lines


def check_use(source: str, allow_test_data: bool):
    """Raise InputError for a test set of critics, unless it is allowed."""
    name, dataset = parse_source(source)
    if dataset.is_test and not allow_test_data:
        raise InputError(
            f"--source {source}: {name} is a test set ({dataset.note}). A model that is trained on "
            "it cannot be tested on it.\nIf you want it all the same: --allow-test-data"
        )


def parse_source(source: str) -> tuple:
    """Return what the rows of a --source are called, and its dataset.

    The name is one of the table (also for its hub id, and for NAME=FILE), a file's or a hub id.

    >>> parse_source("meta-math/MetaMathQA")[0], parse_source("metamath=x/data.parquet")[0]
    ('metamath', 'metamath')
    >>> parse_source("org/name")[0], parse_source("data/my.jsonl")[0]
    ('org/name', 'my.jsonl')
    """
    name, _, file = source.partition("=")
    for table_name, dataset in SOURCES.items():
        if name in (table_name, dataset.path):
            return table_name, replace(dataset, path=file, file=None) if file else dataset
    path = Path(source)
    if path.suffix.lower() in readers.READABLE:
        return path.name, Dataset(source)
    if source != "tiny" and (source.count("/") != 1 or path.is_file()):
        raise InputError(
            f"--source {source!r} is neither a known source nor a file that can be read.\n"
            f"Expected tiny, {', '.join(SOURCES)} (or NAME=FILE for one that you downloaded), "
            f"a hub id such as org/name, or a file: {', '.join(readers.READABLE)}"
        )
    return source, Dataset(source)


# --- reading ------------------------------------------------------------------------------------


def load_rows(
    source: str,
    columns=(),
    verdict_values=(),
    revision=None,
    limit=None,
    size=50_000,
    seed=0,
    need_response=True,
) -> tuple:
    """Return the rows of a source, checked and without exact duplicates, and counts.

    source: tiny, a name of the table, a hub id or a local file; the rows keep its order.
    columns: "field=column" for the FIELDS; a local file's columns that are named like a field
    need none. verdict_values: "value=right" or "value=wrong" for a mapped verdict column (JSON
    spelling: true=right). limit: read only so many records. size: of those a random sample by
    seed, in bounded memory.
    A row that cannot be used is left out and counted, and the first is printed. InputError if half
    of them cannot be used.
    """
    column_map = parse_pairs(columns, "--columns", FIELDS)
    verdict_map = parse_pairs(verdict_values, "--verdict-values")
    name, dataset = parse_source(source)
    if source == "tiny":
        records = world.forum_rows(seed, limit or size)
    else:
        place = (dataset.path, dataset.config, dataset.split, revision)
        records = readers.read_records(*place, file=dataset.file)
    sample, n_read = readers.sample_records(islice(records, limit), size, seed)
    if not sample:
        raise InputError(f"{source} holds no rows.\nExpected at least one record with a question.")
    unpacked, bad = _unpack(source, dataset, sample)
    required = ("question", "response") if need_response else ("question",)
    mapping = _map_columns(source, dataset, unpacked, column_map, required)
    counts = Counter({"not in the random sample (--rows)": n_read - len(sample)})
    rows = []
    for number, record in unpacked:
        try:
            values = _read_values(record, mapping, required, counts)
            rows.append(_build_row(values, name, verdict_map, counts))
        except ValueError as error:
            bad.append(f"row {number}: {error}")
    _report_bad(source, bad, len(sample))
    counts["bad rows dropped"] = len(bad)
    return drop_duplicates(rows, counts), counts


def _unpack(source, dataset, sample):
    """Return [(number, record's fields)], and a line for each record of another form.

    Raises InputError if all of them are.
    """
    unpack, unpacked, bad = record_forms.FORMS[dataset.form], [], []
    for number, record in sample:
        try:
            unpacked.append((number, unpack(record)))
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            bad.append(f"row {number}: {error!r}; its columns are: {', '.join(record)}")
    if not unpacked:
        _report_bad(source, bad, len(sample))
    return unpacked, bad


def read_questions(name: str, folder=None) -> list:
    """Return the questions of a test set of critics, each once.

    folder: read it from folder/NAME/test.jsonl, not from the hub.
    """
    source = f"{name}={Path(folder, name, 'test.jsonl')}" if folder else name
    rows, _ = load_rows(source, size=sys.maxsize, need_response=False)
    return list(dict.fromkeys(row["question"] for row in rows))


def _map_columns(source, dataset, sample, column_map, required):
    """Return {field: its column}: as --columns says, then as the table, then by equal names.

    A source of the table does not go by equal names: NuminaMath-CoT has a column "source", which
    is the contest.
    """
    present = set()
    for _, record in sample:
        present.update(record)
    equal_names = {name: name for name in FIELDS if name in present}
    mapping = dict(zip(required, required)) | (dataset.columns or equal_names) | column_map
    for name, column in mapping.items():
        is_path = any(record_forms.look_up(record, column) is not None for _, record in sample)
        if column not in present and not is_path:
            raise InputError(
                f"{source} has no column {column!r} for {name}; "
                f"its columns are: {', '.join(sorted(present))}\n"
                f"Name the right one: --columns {name}=COLUMN (or a path: a.b, turns.0.text)"
            )
    # Without this line a gold under another name would be missed in silence.
    pairs = [f"{name}={column}" for name, column in mapping.items()]
    unused = sorted(present.difference(mapping.values(), ["other_turns"]))
    print(f"columns: {', '.join(pairs)}; not used: {', '.join(unused) or 'none'}")
    return mapping


def _report_bad(source, bad, n_rows):
    if not bad:
        return
    text = f"{len(bad)} of {count(n_rows, 'row')} cannot be used, the first: {source}, {bad[0]}"
    if 2 * len(bad) >= n_rows:
        fix = "name the right columns: --columns question=COLUMN response=COLUMN"
        raise InputError(f"{text}\nFix the rows, or {fix}")
    print(text)


# --- rows ---------------------------------------------------------------------------------------


def make_row(
    question: str, response, gold, source: str, generator: str, sample=0, finish_reason=None
) -> dict:
    """Return one row of 01. Response and gold may be None; ids are hashes of the content."""
    question = utf8(question)  # tokenizers and Parquet take no lone surrogates
    if response:
        response = utf8(response)
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


def _read_values(record, mapping, required, counts):
    """Return {field: value} of a record; raise ValueError that says what is bad about it."""
    values = dict.fromkeys(FIELDS)
    for name, column in mapping.items():
        value = record_forms.look_up(record, column)
        if name == "gold":
            value = _read_gold(value, counts)
        if isinstance(value, bytes):
            value = value.decode()
        if value != value:  # NaN, which pandas writes if there is none
            value = None
        # OpenCodeReasoning-2 has a "-" for a question that is withheld.
        is_text = isinstance(value, str) and value.strip().strip("-")
        if isinstance(value, list | dict) or (name in required and not is_text):
            raise ValueError(f"no {name} (column {column!r} holds {str(value)[:60]!r})")
        values[name] = value
    counts["with a system message, not used"] += bool(record.get("system"))
    counts["with other turns, left out"] += bool(record.get("other_turns"))
    return values


def _read_gold(value, counts):
    """Return a gold that is a text or a number, None for another; what is odd is counted."""
    if isinstance(value, list) and len(value) == 1:
        counts["golds in a list of one, taken out of it"] += 1
        value = value[0]
    if isinstance(value, bytes):
        counts["golds of bytes, read as text"] += 1
        value = value.decode(errors="ignore") or None
    is_nan = value != value or str(value).lower() == "nan"
    if isinstance(value, list | dict) or is_nan:
        counts["golds left out: a list, an object or NaN"] += 1
        return None
    return value


def _build_row(values, source, verdict_map, counts):
    response = values["response"]
    if response:
        response = without_thinking(response)
        if not response.strip():
            raise ValueError("its response is all thinking")
        counts["responses whose thinking was removed"] += response != values["response"]
    texts = values["question"], response, values["gold"]
    origin = str(values["source"] or source), str(values["generator"] or "unknown")
    row = make_row(*texts, *origin, finish_reason=values["finish_reason"])
    raw_critique = utf8(str(values["critique"] or ""))
    critique = without_thinking(raw_critique)
    counts["critiques whose thinking was removed"] += critique != raw_critique
    if critique.strip():
        row |= _build_critique(critique, values, verdict_map, counts)
    return row


def _build_critique(critique, values, verdict_map, counts):
    """Return the fields of a critique that came with the data.

    Its verdict is the column's; if that is empty or does not exist, the text's.
    """
    raw = critique.removeprefix("Critique:\n")  # 03 writes it again
    verdict = stated = verdicts.parse_verdict(raw)
    if values["verdict"] is not None:
        verdict = _read_verdict(values["verdict"], verdict_map)
        if stated not in ("unparsed", verdict):
            counts["critiques with another verdict in the text than in the column"] += 1
    return {
        "critique": raw if verdict == "unparsed" else verdicts.with_conclusion(raw, verdict),
        "critique_raw": raw,
        "verdict": verdict,
        "teacher": str(values["teacher"] or "unknown"),
    }


def _read_verdict(value, verdict_map):
    """Return right, wrong or unparsed; raise InputError if the value's meaning is not known."""
    text = value if isinstance(value, str) else json.dumps(value)
    verdict = verdict_map.get(text, text)
    if verdict not in (*verdicts.VERDICTS, "unparsed"):
        # Both meanings: one alone was once copied, and turned every label round.
        raise InputError(
            f"the column of verdicts holds {text!r}; expected right or wrong\n"
            "Say what its values mean, in this form: --verdict-values true=right false=wrong"
        )
    return verdict


def drop_duplicates(rows: list, counts: Counter) -> list:
    """Return the first of equal rows: same question, response, gold, critique and teacher.

    The others, whatever their verdict, are counted in `counts`.
    """
    unique = {}
    for row in rows:
        key = row["id"], row["gold"], row.get("critique_raw"), row.get("teacher")
        unique.setdefault(key, row)
    counts["duplicates dropped"] = len(rows) - len(unique)
    return list(unique.values())


def describe_counts(counts: Counter) -> str:
    """Return ", 3 bad rows dropped" and so on."""
    return "".join(f", {n:,} {text}" for text, n in counts.items() if n)
