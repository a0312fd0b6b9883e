"""Where questions and noisy responses come from: hub datasets and local files, in one row schema.

A row: id, question_id, question, gold, response, source, generator, sample, finish_reason. If the
data brings a critique, also critique (normalized), critique_raw, verdict and teacher.
"""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from common.core import verdicts
from common.core.config import parse_pairs
from common.core.errors import InputError
from common.core.files import content_id, utf8
from common.data import readers
from common.tiny import world

FIELDS = ("question", "response", "gold", "critique", "verdict", "teacher", "source")
FIELDS += ("generator", "finish_reason")


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """A dataset of the hub, or a local file, and which of its columns hold our fields.

    unpack: a record -> {field: value}, for columns that are not our fields; it raises for a record
    of another form.
    """

    path: str
    config: str | None = None
    split: str = "train"
    columns: dict = field(default_factory=dict)  # our field -> its column
    unpack: Callable | None = None
    license: str = ""


def unpack_webinstruct_cft(record: dict) -> dict:
    """Return question, response and critique of a row of WebInstruct-CFT.

    >>> unpack_webinstruct_cft(
    ...     {"input": "Question:\\nq\\n\\nSolution:\\na\\n", "output": "Critique:\\nc"}
    ... )
    {'question': 'q', 'response': 'a', 'critique': 'c'}
    """
    packed = record["input"].removeprefix("Question:\n")
    # Split once only: a response may itself contain "Solution:".
    question, response = packed.split("\n\nSolution:\n", 1)
    critique = record["output"].removeprefix("Critique:\n")
    return {"question": question, "response": response.removesuffix("\n"), "critique": critique}


def unpack_acemath(record: dict) -> dict:
    """Return question (the user's turn) and response of a row of AceMath's SFT data.

    Raises ValueError for several turns: the response would need their history.

    >>> unpack_acemath({"messages": [{"role": "user", "content": "q"}], "answer": "a"})
    {'question': 'q', 'response': 'a'}
    """
    (turn,) = [turn for turn in record["messages"] if turn["role"] != "system"]
    return {"question": turn["content"], "response": record["answer"]}


def _webinstruct_cft(config):
    path = "TIGER-Lab/WebInstruct-CFT"
    return Dataset(path, config, unpack=unpack_webinstruct_cft, license="Apache-2.0")


# Columns as the hub serves them.
SOURCES = {
    "webinstruct-cft-50k": _webinstruct_cft("WebInstruct-CFT-50K"),
    "webinstruct-cft-4k": _webinstruct_cft("WebInstruct-CFT-4K"),
    "webinstruct-cft-600k": _webinstruct_cft("WebInstruct-CFT-600K"),
    "webinstruct": Dataset(
        "TIGER-Lab/WebInstructSub",
        columns={"question": "question", "response": "answer"},
        license="Apache-2.0",
    ),
    "metamath": Dataset(
        "meta-math/MetaMathQA", columns={"question": "query", "response": "response"}, license="MIT"
    ),
    "numina": Dataset(
        "AI-MO/NuminaMath-CoT",
        columns={"question": "problem", "response": "solution"},
        license="Apache-2.0",
    ),
    "acemath": Dataset(
        "nvidia/AceMath-Instruct-Training-Data",
        split="math_sft",
        unpack=unpack_acemath,
        license="CC-BY-NC-4.0, non-commercial, which may bind what is trained on it, too",
    ),
}


def describe_licenses(names: set) -> list:
    """Return a line on the license of each source of the table among the names."""
    return [f"{name}: {SOURCES[name].license}" for name in sorted(SOURCES.keys() & names)]


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
            return table_name, replace(dataset, path=file or dataset.path)
    path = Path(source)
    if path.suffix in readers.READABLE:
        return path.name, Dataset(source)
    if source != "tiny" and (source.count("/") != 1 or path.is_file()):
        raise InputError(
            f"--source {source!r} is neither a known source nor a file that can be read.\n"
            f"Expected tiny, {', '.join(SOURCES)} (or NAME=FILE for one that you downloaded), "
            "a hub id such as org/name, a .parquet file, or a .jsonl file of one object a line"
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
        records = _read_dataset(dataset, revision)
    sample, n_read = readers.sample_records(islice(records, limit), size, seed)
    if not sample:
        raise InputError(f"{source} holds no rows.\nA JSONL file has one JSON object per line.")
    required = ("question", "response") if need_response else ("question",)
    mapping = _map_columns(source, dataset, sample, column_map, required)
    counts = Counter({"not in the random sample (--rows)": n_read - len(sample)})
    rows, bad = [], []
    for number, record in sample:
        try:
            values = _read_values(record, mapping, required)
        except ValueError as error:
            bad.append(f"{source}, row {number}: {error}")
            continue
        rows.append(_build_row(values, name, verdict_map, counts))
    _report_bad(bad, len(sample))
    counts["bad rows dropped"] = len(bad)
    return drop_duplicates(rows, counts), counts


def _read_dataset(dataset, revision):
    """Yield the records, a nested one as its fields; one of another form as it is: a bad row."""
    for record in readers.read_records(dataset.path, dataset.config, dataset.split, revision):
        if dataset.unpack:
            with suppress(LookupError, TypeError, AttributeError, ValueError):
                record = dataset.unpack(record)
        yield record


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
        if column not in present:
            raise InputError(
                f"{source} has no column {column!r} for {name}; "
                f"its columns are: {', '.join(sorted(present))}\n"
                f"Name the right one: --columns {name}=COLUMN"
            )
    # Without this line a gold under another name would be missed in silence.
    pairs = [f"{name}={column}" for name, column in mapping.items()]
    unused = sorted(present.difference(mapping.values()))
    print(f"columns: {', '.join(pairs)}; not used: {', '.join(unused) or 'none'}")
    return mapping


def _report_bad(bad, n_rows):
    if not bad:
        return
    text = f"{len(bad)} of {n_rows} rows cannot be used, the first: {bad[0]}"
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


def _read_values(record, mapping, required):
    """Return {field: value} of a record; raise ValueError that says what is bad about it."""
    values = dict.fromkeys(FIELDS)
    for name, column in mapping.items():
        value = record.get(column)
        if value != value:  # NaN, which pandas writes if there is none
            value = None
        is_text = isinstance(value, str) and value.strip()
        if isinstance(value, list | dict) or (name in required and not is_text):
            raise ValueError(f"no {name} (column {column!r} holds {str(value)[:60]!r})")
        values[name] = value
    return values


def _build_row(values, source, verdict_map, counts):
    texts = values["question"], values["response"], values["gold"]
    origin = str(values["source"] or source), str(values["generator"] or "unknown")
    row = make_row(*texts, *origin, finish_reason=values["finish_reason"])
    if values["critique"]:
        row |= _build_critique(values, verdict_map, counts)
    return row


def _build_critique(values, verdict_map, counts):
    """Return the fields of a critique that came with the data.

    Its verdict is the column's; if that is empty or does not exist, the text's.
    """
    raw = utf8(str(values["critique"])).removeprefix("Critique:\n")  # 03 writes it again
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
