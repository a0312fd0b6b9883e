"""Which critiqued rows are trained on: which are usable, how long they are, in which order."""

import math
import shlex
from collections import Counter
from operator import itemgetter
from pathlib import Path

from common.core import files, manifests, prompts
from common.core.errors import InputError
from common.core.tables import count
from common.core.tokenizer import encode_rows, load_tokenizer, local_folder
from common.core.verdicts import VERDICTS, is_bare
from common.data import training_sets

RESPONSE_FIELDS = ("id", "question_id", "source", "generator", "finish_reason", "gold")


def read_critiques(paths: list) -> tuple:
    """Return (the critiques by teachers, the base's own ones) of the files of 02.

    Raises InputError if the responses have changed since 02 read them.
    """
    by_teachers, by_base = [], []
    for path in paths:
        manifests.check_inputs(path)
        rows = by_base if path.stem == "self-critique" else by_teachers
        rows += files.iter_jsonl(path, (*RESPONSE_FIELDS, "critique_id", "teacher"))
    return by_teachers, by_base


def select_teachers(rows: list, names: list) -> list:
    """Return the named teachers, all if none is named; InputError if there is no such critique."""
    available = sorted({row["teacher"] for row in rows})
    missing = set(names) - set(available)
    if missing or not available:
        raise InputError(
            f"02_critiques holds no critique by {', '.join(sorted(missing)) or 'a teacher'}.\n"
            f"Expected some of: --teacher {shlex.join(available)}; 02_critique.py asks a teacher."
        )
    return names or available


def _is_text(value):
    return isinstance(value, str) and bool(value.strip())


def read_answers(paths: list, teachers: list) -> dict:
    """Return {question_id: a teacher's own answer}; of several teachers the first one's."""
    rows = []
    for path in paths:
        rows += files.iter_jsonl(path, ("question_id", "teacher", "answer"))
    answers = {}
    for teacher in teachers:
        for row in rows:
            if row["teacher"] == teacher and _is_text(row["answer"]):
                answers.setdefault(row["question_id"], row["answer"])
    return answers


def read_finished_responses(paths: list) -> list:
    """Return the finished responses of another run, once each, without critique and verdict."""
    finished = {}
    for path in paths:
        for row in files.read_jsonl(path, RESPONSE_FIELDS):
            is_complete = _is_text(row["question"]) and _is_text(row["response"])
            if is_complete and row["finish_reason"] != "length":
                finished[row["id"]] = row | {"critique_id": None, "verdict": None}
    return list(finished.values())


def usable_critiques(rows: list, min_words: int = 0) -> tuple:
    """Return (the critiqued rows that can be trained on, counts of why the others cannot).

    A file from several sources may hold a critique twice, one without a verdict, or blank texts.
    min_words: fewer words before the conclusion are no critique.
    """
    usable, counts = {}, Counter()
    for row in rows:
        problem = _find_problem(row, min_words)
        if not problem and row["critique_id"] in usable:
            problem = "duplicate critiques"
        if problem:
            counts[problem] += 1
        else:
            usable[row["critique_id"]] = row
    return list(usable.values()), counts


def _find_problem(row, min_words):
    for name in ("question", "response", "critique"):
        if not _is_text(row.get(name)):
            return f"rows with an empty {name}"
    if row.get("verdict") not in VERDICTS:
        return "critiques without a verdict"
    if is_bare(row["critique"], min_words):
        return f"bare conclusions (--min-critique-words {min_words})"
    return ""


def load_length_tokenizer(name: str, run: Path):
    """Return the tokenizer that counts tokens: of a folder, a hub id, or "base" (the run's).

    None, with a note, if it cannot be had: then lengths are in characters.
    """
    folder = name
    try:
        if name == "base":
            folder = manifests.require(run / "01_base")
        if not Path(folder).is_dir():
            folder = local_folder(name, weights=False)
        tokenizer = load_tokenizer(folder)
        prompts.check_template(prompts.template_for(tokenizer), tokenizer)
        return tokenizer
    except InputError as error:
        print(f"note: lengths are in characters (--tokenizer FOLDER), since {error}")


def row_lengths(rows: list, tokenizer) -> list:
    """Return (prompt length, completion length) of training rows, as 04 tokenizes them.

    The end token counts, for it is learned. Characters if the tokenizer is None.
    """
    if tokenizer:
        pairs = encode_rows(rows, tokenizer, prompts.template_for(tokenizer))
        return [(len(prompt), len(completion)) for prompt, completion in pairs]
    lengths = []
    for row in rows:
        n_prompt = sum(len(message["content"]) for message in row["prompt"])
        lengths.append((n_prompt, len(row["completion"][0]["content"])))
    return lengths


def add_lengths(rows: list, tokenizer, system: str) -> list:
    """Return critiqued rows with their lengths in training, in the unit of row_lengths.

    response_length, critique_length; row_length: of the whole cft row, prompt included.
    """
    inputs = training_sets.BuildInputs(system)
    critiques, responses = [], []
    for row in rows:
        prompt, critique = training_sets.format_critique(row, inputs)
        critiques.append({"prompt": prompt, "completion": [{"content": critique}]})
        responses.append({"prompt": [], "completion": [{"content": row["response"]}]})
    measured = []
    columns = rows, row_lengths(critiques, tokenizer), row_lengths(responses, tokenizer)
    for row, (prompt, critique), (_, response) in zip(*columns):
        lengths = {"response_length": response, "critique_length": critique}
        measured.append(row | lengths | {"row_length": prompt + critique})
    return measured


SORT_KEYS = {  # for --select
    "random": lambda row: 0,
    "longest": lambda row: -row["critique_length"],
    "shortest": lambda row: row["critique_length"],
    "length-matched": lambda row: abs(math.log(row["critique_length"] / row["response_length"])),
}


def order_rows(rows: list, select: str, seed: int) -> list:
    """Return the rows in the order in which every training set takes them.

    With "random", and among equal lengths, by a hash of the seed and the response's id. So a row's
    place depends on no other response: runs that differ only in how critiques are written, or in
    which of them failed, train on the same responses. The second, third, ... critiques of a
    response have places of their own.
    """
    n_critiques, places = Counter(), []
    for row in sorted(rows, key=itemgetter("critique_id", "id")):
        k = n_critiques[row["id"]]
        n_critiques[row["id"]] += 1
        parts = (seed, k, row["id"]) if k else (seed, row["id"])
        places.append((SORT_KEYS[select](row), files.content_id(*parts), row))
    places.sort(key=itemgetter(0, 1))
    return [row for _, _, row in places]


def summarize(label: str, rows: list, tokenizer, question_ids: dict) -> dict:
    """Return counts of a training set, and its lengths.

    right: rows with the verdict right, None if a row has no verdict. prompt, completion: sums;
    longest: the longest row. question_ids: {response id: question_id}.
    """
    lengths = row_lengths(rows, tokenizer)
    n_prompt, n_completion = map(sum, zip(*lengths))
    verdicts = Counter(row["verdict"] for row in rows)
    return {
        "arm": label,
        "rows": len(rows),
        "questions": len({question_ids[row["response_id"]] for row in rows}),
        "right": None if None in verdicts else verdicts["right"],
        "length_unit": "tokens" if tokenizer else "characters",
        "prompt": n_prompt,
        "completion": n_completion,
        "longest": max(map(sum, lengths)),
    }


def describe_summary(summary: dict) -> str:
    """Return a training set's summary as one line."""
    total = summary["prompt"] + summary["completion"]
    return (
        f"{count(summary['rows'], 'row')} of {count(summary['questions'], 'question')}, "
        f"{total:,} {summary['length_unit']}, {summary['completion']:,} of them learned"
    )
