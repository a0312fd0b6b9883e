"""Which critiqued rows are trained on: which are usable, how long they are, in which order."""

import math
import shlex
from collections import Counter
from pathlib import Path

from common.core import files, manifests, prompts
from common.core.errors import InputError
from common.core.tokenizer import encode_rows, load_tokenizer, local_folder
from common.core.verdicts import VERDICTS
from common.data import training_sets

# --- what 02 and another run left -----------------------------------------------------------------


RESPONSE_FIELDS = ("id", "question_id", "source", "generator", "finish_reason", "gold")
CRITIQUE_FIELDS = (*RESPONSE_FIELDS, "critique_id", "teacher")


def select_teachers(rows: list, names: list) -> list:
    """Return the named teachers, all if none is named; InputError if there is no such critique."""
    available = sorted({row["teacher"] for row in rows})
    missing = [name for name in names if name not in available]
    if missing or not available:
        raise InputError(
            f"02_critiques holds no critique by {', '.join(missing) or 'a teacher'}.\n"
            f"Expected some of: --teacher {shlex.join(available)}; 02_critique.py asks a teacher."
        )
    return names or available


def is_text(value) -> bool:
    """Return True for a string that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def read_answers(paths: list, teachers: list) -> dict:
    """Return {question_id: a teacher's own answer}; of several teachers the first one's."""
    rows = []
    for path in paths:
        rows += files.read_jsonl_if_exists(path, ("question_id", "teacher", "answer"))
    answers = {}
    for teacher in teachers:
        for row in rows:
            if row["teacher"] == teacher and is_text(row["answer"]):
                answers.setdefault(row["question_id"], row["answer"])
    return answers


def read_finished_responses(paths: list) -> list:
    """Return the finished responses of another run, once each, without critique and verdict."""
    finished = {}
    for path in paths:
        for row in files.read_jsonl(path, RESPONSE_FIELDS):
            is_complete = is_text(row["question"]) and is_text(row["response"])
            if is_complete and row["finish_reason"] != "length":
                finished[row["id"]] = row | {"critique_id": None, "verdict": None}
    return list(finished.values())


# --- what is usable -------------------------------------------------------------------------------


def usable_critiques(rows: list) -> tuple:
    """Return (the critiqued rows that can be trained on, counts of why the others cannot).

    A file from several sources may hold a critique twice, one without a verdict, or blank texts.
    Raises InputError if an id names two texts.
    """
    usable, hashes, counts = {}, {}, Counter()
    for row in rows:
        problem = _find_problem(row)
        if not problem:
            _check_ids(row, hashes)
            if row["critique_id"] in usable:
                problem = "duplicate critiques"
        if problem:
            counts[problem] += 1
        else:
            usable[row["critique_id"]] = row
    return list(usable.values()), counts


def _find_problem(row):
    for name in ("question", "response", "critique"):
        if not is_text(row.get(name)):
            return f"rows with an empty {name}"
    return "" if row.get("verdict") in VERDICTS else "critiques without a verdict"


def _check_ids(row, hashes):
    """Raise InputError if an id of the row named another text in a row before."""
    texts = {
        "question_id": row["question"],
        "id": row["question"] + row["response"],
        "critique_id": row["id"] + row["critique"] + row["verdict"],
    }
    for key, text in texts.items():
        text_hash = files.content_id(text)  # as ids are: whatever form of Unicode
        if hashes.setdefault(row[key], text_hash) != text_hash:
            raise InputError(
                f"the {key} {row[key]} names two texts; one is {text[:200]!r}.\n"
                "An id is a hash of what it names. Make the rows again with 01 and 02."
            )


# --- lengths --------------------------------------------------------------------------------------


def load_length_tokenizer(config, run: Path):
    """Return the tokenizer that counts tokens, None if lengths must be in characters.

    None, with a note, if it is not here and no setting needs it; InputError if one does.
    """
    try:
        folder = config.tokenizer
        if folder == "base":
            folder = str(manifests.require(run / "01_base"))
        if not Path(folder).is_dir():
            folder = local_folder(folder, weights=False)
        tokenizer = load_tokenizer(folder)
        prompts.check_template(prompts.template_for(tokenizer), tokenizer)
        return tokenizer
    except InputError as error:
        is_path = config.tokenizer != "base" and config.tokenizer.count("/") != 1
        if is_path or config.max_tokens or config.select != "random":
            raise InputError(f"{error}\nTokens are counted with it: --tokenizer FOLDER") from error
    print(f"note: lengths are in characters: no tokenizer {config.tokenizer} (--tokenizer FOLDER)")
    return None


def row_lengths(rows: list, tokenizer) -> list:
    """Return (prompt length, completion length) of training rows, as 04 tokenizes them.

    The end token counts, for it is learned. Characters if the tokenizer is None.
    """
    if tokenizer is not None:
        encoded = encode_rows(rows, tokenizer, prompts.template_for(tokenizer))
        return [(len(prompt), len(completion)) for prompt, completion in encoded]
    lengths = []
    for row in rows:
        prompt = sum(len(message["content"]) for message in row["prompt"])
        lengths.append((prompt, len(row["completion"][0]["content"])))
    return lengths


def add_lengths(rows: list, tokenizer, system: str) -> list:
    """Return critiqued rows with their lengths in training, in the unit of row_lengths.

    response_length, critique_length; row_length: of the whole cft row, prompt included.
    """
    critique_rows, response_rows = [], []
    for row in rows:
        prompt, critique = training_sets.format_cft(row, system)
        critique_rows.append({"prompt": prompt, "completion": [{"content": critique}]})
        response_rows.append({"prompt": [], "completion": [{"content": row["response"]}]})
    critiques = row_lengths(critique_rows, tokenizer)
    responses = row_lengths(response_rows, tokenizer)
    measured = []
    for row, (prompt, critique), (_, response) in zip(rows, critiques, responses):
        lengths = {"response_length": response, "critique_length": critique}
        measured.append(row | lengths | {"row_length": prompt + critique})
    return measured


# --- the order ------------------------------------------------------------------------------------


SORT_KEYS = {  # for --select
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
    n_critiques, places = Counter(), {}
    for row in sorted(rows, key=lambda row: str(row["critique_id"])):
        k = n_critiques[row["id"]]
        n_critiques[row["id"]] += 1
        parts = (seed, k, row["id"]) if k else (seed, row["id"])
        places[id(row)] = files.content_id(*parts)
    ordered = sorted(rows, key=lambda row: places[id(row)])
    return ordered if select == "random" else sorted(ordered, key=SORT_KEYS[select])


# --- what a training set holds --------------------------------------------------------------------


def summarize(label: str, rows: list, tokenizer, question_ids: dict) -> dict:
    """Return counts of a training set, and its lengths.

    right: rows with the verdict right, None if a row has no verdict. prompt, completion: sums;
    longest: the longest row. question_ids: {response id: question_id}.
    """
    lengths = row_lengths(rows, tokenizer)
    verdicts = Counter(row["verdict"] for row in rows)
    return {
        "arm": label,
        "rows": len(rows),
        "questions": len({question_ids[row["response_id"]] for row in rows}),
        "right": None if None in verdicts else verdicts["right"],
        "prompt": sum(prompt for prompt, _ in lengths),
        "completion": sum(completion for _, completion in lengths),
        "longest": max(map(sum, lengths)),
    }


def describe_summary(summary: dict, unit: str) -> str:
    """Return a training set's summary as one line."""
    total = summary["prompt"] + summary["completion"]
    return (
        f"{summary['rows']:,} rows of {summary['questions']:,} questions, "
        f"{total:,} {unit}, {summary['completion']:,} of them learned"
    )
