"""Where questions and noisy responses come from: hub datasets and local files, in one row schema.

A row: id, question_id, question, gold, response, source, generator, sample, finish_reason. If the
data brings a critique, also critique (normalized), critique_raw, verdict and teacher.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from common.core import verdicts
from common.core.config import parse_pairs
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


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub, and which of our fields each of its columns holds.

    unpack: for records whose columns are not our fields: a record -> {field: value}.
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
    # Split once only: a response may itself contain "Solution:".
    form = "(?:Question:\n)?(.*?)\n\nSolution:\n(.*?)\n?"
    match = re.fullmatch(form, str(record.get("input")), re.DOTALL)
    if not match or "output" not in record:
        raise ValueError("its columns input and output have no 'Question: ... Solution: ...'")
    return {
        "question": match[1],
        "response": match[2],
        "critique": record["output"].removeprefix("Critique:\n"),
    }


def unpack_acemath(record: dict) -> dict:
    """Return question (the first user turn) and response of a row of AceMath's SFT data.

    Raises ValueError if there are more turns: the response would need their history.

    >>> unpack_acemath({"messages": [{"role": "user", "content": "q"}], "answer": "a"})
    {'question': 'q', 'response': 'a'}
    """
    turns = [turn for turn in record.get("messages", []) if turn["role"] != "system"]
    roles = [turn["role"] for turn in turns]
    if roles != ["user"]:
        raise ValueError(f"expected one user message in its column messages, not {roles}")
    return {"question": turns[0]["content"], "response": record.get("answer")}


def _webinstruct_cft(config):
    return HubDataset(
        path="TIGER-Lab/WebInstruct-CFT",
        config=config,
        unpack=unpack_webinstruct_cft,
        license="Apache-2.0",
    )


# Columns as the hub serves them.
SOURCES = {
    "webinstruct-cft-50k": _webinstruct_cft("WebInstruct-CFT-50K"),
    "webinstruct-cft-4k": _webinstruct_cft("WebInstruct-CFT-4K"),
    "webinstruct-cft-600k": _webinstruct_cft("WebInstruct-CFT-600K"),
    "webinstruct": HubDataset(
        path="TIGER-Lab/WebInstructSub",
        columns={"question": "question", "response": "answer"},
        license="Apache-2.0",
    ),
    "metamath": HubDataset(
        path="meta-math/MetaMathQA",
        columns={"question": "query", "response": "response"},
        license="MIT",
    ),
    "numina": HubDataset(
        path="AI-MO/NuminaMath-CoT",
        columns={"question": "problem", "response": "solution"},
        license="Apache-2.0",
    ),
    "acemath": HubDataset(
        path="nvidia/AceMath-Instruct-Training-Data",
        split="math_sft",
        unpack=unpack_acemath,
        license="CC-BY-NC-4.0",
    ),
}


def describe_license(source: str) -> str:
    """Return a line on the license of a source of the table, "" for any other."""
    if source not in SOURCES:
        return ""
    line = f"{source}: {SOURCES[source].license}"
    if "-NC" in line:
        line += ": for non-commercial use only, which may bind what is trained on it, too"
    return line


def parse_source(source: str) -> tuple[str, HubDataset, Path | None]:
    """Return what the rows of a --source are called, its dataset, and its file if it is one.

    The name is one of the table (also for its hub id, and for NAME=FILE), a file's or a hub id.

    >>> parse_source("meta-math/MetaMathQA")[0], parse_source("metamath=x/data.parquet")[0]
    ('metamath', 'metamath')
    >>> parse_source("org/name")[0]
    'org/name'
    """
    path = Path(source)
    if path.is_file():
        return path.name, HubDataset(""), path
    name, _, file = source.partition("=")
    for table_name, dataset in SOURCES.items():
        if name in (table_name, dataset.path):
            return table_name, dataset, Path(file) if file else None
    if source.count("/") != 1 or path.suffix in readers.READABLE:
        raise InputError(
            f"--source {source!r} is no file here and no known source; "
            f"known: tiny, {', '.join(SOURCES)},\n"
            f"a hub id such as org/name, or a file ({', '.join(readers.READABLE)}); "
            "NAME=FILE for a known source that you downloaded"
        )
    return source, HubDataset(source), None


# --- reading ------------------------------------------------------------------------------------


def load_rows(
    source: str,
    columns: Iterable[str] = (),
    verdict_values: Iterable[str] = (),
    revision: str | None = None,
    limit: int | None = None,
    size: int | None = None,
    seed: int = 0,
    need_response: bool = True,
    drop_bad: bool = False,
) -> tuple[list[dict], Counter]:
    """Return the rows of a source, checked and without exact duplicates, and counts.

    source: a name of the table, a hub id or a local file; the rows keep its order.
    columns: "field=column" for the FIELDS; a local file's columns that are named like a field
    need none. verdict_values: "value=right" or "value=wrong" for a mapped verdict column (JSON
    spelling: true=right). limit: read only so many records. size: of those a random sample by
    seed, in bounded memory.
    Raises InputError for a bad row; with drop_bad it is left out and counted.
    """
    column_map = parse_pairs(columns, "--columns", FIELDS)
    verdict_map = parse_pairs(verdict_values, "--verdict-values")
    name, dataset, path = parse_source(source)
    columns_seen = set()
    records = _read_records(dataset, path, revision, columns_seen)
    sample, n_read = readers.sample_records(islice(records, limit), size, seed)
    if not sample:
        raise InputError(f"{source} holds no rows.\nA JSONL file has one JSON object per line.")
    counts = Counter()
    if n_read > len(sample):
        counts[f"of {n_read:,} rows, a random sample (--rows)"] = len(sample)
    required = ("question", "response") if need_response else ("question",)
    mapping = _map_columns(source, dataset, columns_seen, column_map, required)
    reader = RowReader(name, dataset.unpack, mapping, verdict_map, required, counts)
    rows = drop_duplicates(_read_rows(reader, sample, source, drop_bad), counts)
    if not rows:
        raise InputError(f"{source} holds no usable rows ({dict(counts) or 'it is empty'}).")
    return rows, counts


def _read_rows(reader, sample, source, drop_bad):
    rows = []
    for number, record in sample:
        place = f"{source}, row {number}"
        try:
            rows.append(reader.read(record, place))
        except ValueError as error:
            if not drop_bad:
                raise InputError(
                    f"{place}: {error}\n"
                    "Fix the row, or add --drop-bad to leave such rows out and count them."
                ) from None
            reader.counts["bad rows dropped"] += 1
    return rows


def _read_records(dataset, path, revision, columns):
    """Yield the records; add the names of all their columns to `columns`."""
    if path:
        records = readers.read_local(path)
    else:
        records = readers.read_hub(dataset.path, dataset.config, dataset.split, revision)
    for record in records:
        columns.update(record)
        yield record


def _map_columns(source, dataset, columns_seen, column_map, required):
    """Return {field: its column}: as --columns says, then as the table, then by equal names.

    A source of the table does not go by equal names: NuminaMath-CoT has a column "source", which
    is the contest.
    """
    if dataset.unpack:
        columns_seen = {"question", "response", "critique"}
    equal_names = {name: name for name in FIELDS if name in columns_seen}
    mapping = {name: name for name in required} | (dataset.columns or equal_names) | column_map
    for name, column in mapping.items():
        if column not in columns_seen:
            raise InputError(
                f"{source} has no column {column!r} for {name}; "
                f"its columns are {', '.join(sorted(columns_seen))}\n"
                f"Name the right one: --columns {name}=COLUMN"
            )
    # Without this line a gold under another name would be missed in silence.
    pairs = [f"{name}={column}" for name, column in mapping.items()]
    unused = sorted(columns_seen - set(mapping.values()))
    print(f"columns: {', '.join(pairs)}; not used: {', '.join(unused) or 'none'}")
    return mapping


# --- rows ---------------------------------------------------------------------------------------


def make_row(
    question: str,
    response: str | None,
    gold,
    source: str,
    generator: str,
    sample: int = 0,
    finish_reason: str | None = None,
) -> dict:
    """Return one row of 01. The gold is text or None; ids are hashes of the content."""
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


@dataclass
class RowReader:
    """Makes rows from the records of one source, and counts what is unusual about them."""

    name: str
    unpack: Callable | None
    mapping: dict  # field -> column
    verdict_map: dict  # value of the verdict's column -> "right" or "wrong"
    required: tuple
    counts: Counter

    def read(self, record: dict, place: str) -> dict:
        """Return one checked row; raise ValueError that says what is bad about it."""
        if self.unpack:
            record = self.unpack(record)
        values = {}
        for name, column in self.mapping.items():
            values[name] = self._check(name, record.get(column))
        row = make_row(
            values["question"],
            values.get("response"),
            values.get("gold"),
            str(values.get("source") or self.name),
            str(values.get("generator") or "unknown"),
            finish_reason=values.get("finish_reason"),
        )
        if values.get("critique"):
            row |= self._read_critique(values, place)
        return row

    def _check(self, name, value):
        """Return a field's value, None for NaN, which pandas writes if there is none."""
        if name in self.required and not (isinstance(value, str) and value.strip()):
            raise ValueError(f"no {name} (column {self.mapping[name]!r} holds {value!r})")
        if isinstance(value, (list, dict)):
            raise ValueError(
                f"{name} is no text or number "
                f"(column {self.mapping[name]!r} holds {str(value)[:60]})"
            )
        is_nan = isinstance(value, float) and value != value
        return None if is_nan else value

    def _read_critique(self, values, place):
        """Return the fields of a critique that came with the data.

        Its verdict is the column's; if that is empty or does not exist, the text's.
        """
        raw = utf8(str(values["critique"])).removeprefix("Critique:\n")  # 03 writes it again
        verdict = stated = verdicts.parse_verdict(raw)
        if values.get("verdict") is not None:
            verdict = self._read_verdict(values["verdict"], place)
            if stated not in ("unparsed", verdict):
                self.counts["critiques with another verdict in the text than in the column"] += 1
        return {
            "critique": raw if verdict == "unparsed" else verdicts.with_conclusion(raw, verdict),
            "critique_raw": raw,
            "verdict": verdict,
            "teacher": str(values.get("teacher") or "unknown"),
        }

    def _read_verdict(self, value, place):
        """Return right, wrong or unparsed; raise InputError if the value's meaning is not known."""
        text = value if isinstance(value, str) else json.dumps(value)
        verdict = self.verdict_map.get(text, text)
        if verdict in (*verdicts.VERDICTS, "unparsed"):
            return verdict
        # Both meanings: one alone was once copied as it was, and turned every label round.
        example = "true=right false=wrong"
        if text not in ("true", "false"):
            quoted = shlex.quote(text)
            example = f"{quoted}=right (or {quoted}=wrong)"
        raise InputError(
            f"{place}: column {self.mapping['verdict']!r} holds the verdict {text!r}; "
            f"expected right or wrong\nSay what its values mean: --verdict-values {example} ..."
        )


def drop_duplicates(rows: list[dict], counts: Counter) -> list[dict]:
    """Return the first of equal rows: same response, critique, teacher and gold.

    A row that equals an earlier one in all but its verdict is left out, too, whatever its gold:
    the id of a critique would otherwise stand for two verdicts. Both are counted in `counts`.
    """
    first_verdicts, golds, kept_rows = {}, set(), []
    for row in rows:
        critique_key = (row["id"], row.get("critique_raw"), row.get("teacher"))
        verdict = row.get("verdict")
        if first_verdicts.setdefault(critique_key, verdict) != verdict:
            counts["rows dropped whose verdict contradicts an equal one"] += 1
        elif (critique_key, row["gold"]) in golds:
            counts["exact duplicates dropped"] += 1
        else:
            golds.add((critique_key, row["gold"]))
            kept_rows.append(row)
    return kept_rows


def describe_counts(counts: Counter) -> str:
    """Return ", 3 bad rows dropped" and so on."""
    return "".join(f", {n:,} {text}" for text, n in counts.items() if n)
