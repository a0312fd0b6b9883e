"""Which critiqued rows are trained on: which are usable, how long they are, in which order."""

import math
import random
import shlex
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from common.core import files, prompts, runs
from common.core.errors import InputError
from common.core.tokenizer import load_tokenizer, local_folder
from common.core.verdicts import VERDICTS
from common.data import training_sets
from common.teacher.critiques import SELF
from common.train import tokens

# --- what 02 and another run left -----------------------------------------------------------------


def select_teachers(rows, asked, last):
    """-> (teachers, their rows). asked: names, ["all"], or none: then those of 02's last run, or else all. The base is no teacher."""
    there = sorted({row["teacher"] for row in rows} - {SELF})
    teachers = (
        there
        if asked == ["all"]
        else list(dict.fromkeys(asked)) or [name for name in last or () if name in there] or there
    )
    if not there or set(teachers) - set(there):
        raise InputError(
            f"02_critiques.jsonl holds no critique of {', '.join(sorted(set(teachers) - set(there))) or 'a teacher'}, but of: "
            f"--teacher {shlex.join(there) or '(none; the base is none: run 02_critique.py with a teacher)'}"
        )
    return teachers, [row for row in rows if row["teacher"] in teachers]


def is_text(value) -> bool:
    """Return True for a string that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def read_answers(path: Path, teachers: list[str]) -> dict[str, str]:
    """Return {question_id: a teacher's own answer}; of several teachers the first one's.

    {} if 02 was not run with --answers.
    """
    rows = files.read_jsonl_if_exists(path, ("question_id", "teacher", "answer"))
    answers = {}
    for teacher in teachers:
        for row in rows:
            if row["teacher"] == teacher and is_text(row["answer"]):
                answers.setdefault(row["question_id"], row["answer"])
    return answers


def read_other_responses(path: Path, seed: int) -> tuple[list, int]:
    """Return (the finished responses of another run in random order, how many rows were left out).

    The rows have no critique and no verdict: None.
    """
    fields = ("id", "question_id", "question", "response", "source", "finish_reason")
    rows = files.read_jsonl(path, fields)
    finished = {}
    n_left_out = 0
    for row in rows:
        is_usable = is_text(row["question"]) and is_text(row["response"])
        if is_usable and row["finish_reason"] != "length":
            finished[row["id"]] = row | {"critique_id": None, "verdict": None}
        else:
            n_left_out += 1
    return order_rows(list(finished.values()), "random", seed), n_left_out


# --- what is usable -------------------------------------------------------------------------------


def usable_critiques(rows: list) -> tuple[list, Counter]:
    """Return (the critiqued rows that can be trained on, counts of why the others cannot).

    A file from several sources may hold a critique twice, one without a verdict, or blank texts.
    Raises InputError if an id names two texts.
    """
    usable, hashes, counts = {}, {}, Counter()
    for row in rows:
        problem = _find_problem(row)
        if problem:
            counts[problem] += 1
            continue
        _check_ids(row, hashes)
        if row["critique_id"] in usable:
            counts["duplicate critiques"] += 1
        else:
            usable[row["critique_id"]] = row
    return list(usable.values()), counts


def _find_problem(row):
    for name in ("question", "response", "critique"):
        if not is_text(row.get(name)):
            return f"rows with an empty {name}"
    if row.get("verdict") not in VERDICTS:
        return "critiques without a verdict"
    return None


def _check_ids(row, hashes):
    """Raise InputError if an id of the row named another text in a row before; add to `hashes`."""
    texts = {
        "question_id": (row["question"],),
        "id": (row["question"], row["response"]),
        "critique_id": (row["id"], row["critique"], row["verdict"]),
    }
    for key, text in texts.items():
        text_hash = files.content_id(*text)  # as ids are: whatever form of Unicode
        if hashes.setdefault(row[key], text_hash) != text_hash:
            raise InputError(
                f"the {key} {row[key]} names two texts; one is {' | '.join(text)[:200]!r}.\n"
                "Expected an id that is a hash of what it names. Make the file again with 01 and 02."
            )


# --- lengths --------------------------------------------------------------------------------------


def load_length_tokenizer(config, run):
    """Return the tokenizer that counts tokens, None if lengths must be in characters.

    None, with a note, if the run has no base or the hub id is out of reach, and no setting needs
    tokens; InputError if one does.
    """
    name = config.tokenizer
    try:
        if name == "base":
            name = str(runs.stage_file(run, "01_base"))
        folder = name if Path(name).is_dir() else local_folder(name, weights=False)
        tokenizer = load_tokenizer(folder)  # such a folder needs no model
        prompts.check_template(prompts.template_for(tokenizer), tokenizer)
        return tokenizer
    except InputError as error:
        needs_tokens = config.min_tokens or config.max_tokens or config.select != "random"
        is_hub_id = config.tokenizer.count("/") == 1
        if needs_tokens or not (is_hub_id or config.tokenizer == "base"):
            raise InputError(f"{error}\nTokens are counted with it: --tokenizer FOLDER") from error
        print(
            f"note: lengths are in characters, since the tokenizer {config.tokenizer} is not here "
            "(--tokenizer FOLDER)"
        )
    return None


class Lengths:
    """How long texts are as they stand in training: tokens, or characters where there is no tokenizer. Equal texts are counted once."""

    def __init__(self, tokenizer=None):
        self.tokenizer, self.unit, self.known = (
            tokenizer,
            "tokens" if tokenizer else "characters",
            {},
        )
        self.template = tokenizer and prompts.template_for(tokenizer)

    def completions(self, texts):
        """-> the length of each, with the end token that is learned, too."""
        if not self.tokenizer:
            return [len(text) for text in texts]
        return self._count(
            [prompts.render_completion(text, self.template, self.tokenizer) for text in texts],
            special=False,
        )

    def prompts(self, some):
        """-> the length of each prompt (messages)."""
        if not self.tokenizer:
            return [sum(len(message["content"]) for message in messages) for messages in some]
        return self._count(
            [prompts.render(messages, self.template) for messages in some], special=True
        )

    def _count(self, texts, special):
        keys = [hash((text, special)) for text in texts]  # the texts themselves would be held twice
        new = {key: text for key, text in zip(keys, texts) if key not in self.known}
        self.known.update(zip(new, tokens.lengths(list(new.values()), self.tokenizer, special)))
        return [self.known[key] for key in keys]


class Length(NamedTuple):
    """How long a critiqued row is in training."""

    response: int
    critique: int
    row: int  # the whole cft row, prompt included


def measure_lengths(rows: list, lengths, system: str) -> dict[str, Length]:
    """Return {critique_id: Length} in the unit of `lengths`."""
    examples = [training_sets.format_cft(row, system) for row in rows]
    prompt_lengths = lengths.prompts([prompt for prompt, _ in examples])
    critique_lengths = lengths.completions([completion for _, completion in examples])
    response_lengths = lengths.completions([row["response"] for row in rows])
    measured = {}
    for row, prompt, critique, response in zip(
        rows, prompt_lengths, critique_lengths, response_lengths
    ):
        measured[row["critique_id"]] = Length(response, critique, prompt + critique)
    return measured


def lengths_by_kind(rows: list, lengths: dict) -> dict[str, list[int]]:
    """Return {"response": lengths of the distinct responses, "critique": ..., "cft row": ...}."""
    by_critique = [lengths[row["critique_id"]] for row in rows]
    by_response = {row["id"]: length.response for row, length in zip(rows, by_critique)}
    return {
        "response": list(by_response.values()),
        "critique": [length.critique for length in by_critique],
        "cft row": [length.row for length in by_critique],
    }


def within_length_limits(rows: list, low, high, lengths: dict) -> tuple[list, Counter]:
    """Return (rows whose cft row is `low` to `high` long, None: no limit; counts of the others)."""
    within, counts = [], Counter()
    for row in rows:
        length = lengths[row["critique_id"]].row
        if low and length < low:
            counts["too short (--min-tokens)"] += 1
        elif high and length > high:
            counts["too long (--max-tokens)"] += 1
        else:
            within.append(row)
    return within, counts


# --- the order ------------------------------------------------------------------------------------


def order_rows(rows, select, seed, length=None, responses=()):
    """All rows in the order in which the arms take them. length: as `measure_lengths` gives it, not needed for "random".

    Ties, and everything with "random", by a shuffle of the responses, not of the critiques: runs that differ only in how critiques are
    written, or in which of them failed or were left out, then train on the same responses. responses: ids of all there are, at least
    those of the rows. The second critiques of the responses, the third ones and so on are shuffled for themselves.
    """
    critiques, keyed = (
        {},
        [],
    )  # {response id: its rows}; [(place of the response in the shuffle of the kth critiques, k, row)]
    for row in sorted(rows, key=lambda row: str(row["critique_id"])):
        critiques.setdefault(row["id"], []).append(row)
    ids = sorted(critiques.keys() | set(responses))
    for k in range(max(map(len, critiques.values()), default=0)):
        shuffled = ids.copy()
        random.Random(f"{seed} {k}" if k else seed).shuffle(shuffled)
        keyed += [
            (place, k, critiques[name][k])
            for place, name in enumerate(shuffled)
            if len(critiques.get(name, ())) > k
        ]
    rows = [row for _, _, row in sorted(keyed, key=lambda each: each[:2])]
    key = {
        "longest": lambda one: -one.critique,
        "shortest": lambda one: one.critique,
        "length-matched": lambda one: abs(math.log(one.critique / one.response)),
    }
    return (
        rows
        if select == "random"
        else sorted(rows, key=lambda row: key[select](length[row["critique_id"]]))
    )


# --- what a training set holds --------------------------------------------------------------------


def summarize(label: str, rows: list, lengths, question_ids: dict) -> dict:
    """Return counts of a training set, and its lengths in the unit of `lengths`.

    rows, questions; right: rows whose response has the verdict right, None if a row has no verdict;
    prompt, completion: sums; longest: the longest row. question_ids: {response id: question_id}.
    """
    prompt_lengths = lengths.prompts([row["prompt"] for row in rows])
    completions = [row["completion"][0]["content"] for row in rows]
    completion_lengths = lengths.completions(completions)
    verdicts = Counter(row["verdict"] for row in rows)
    return {
        "arm": label,
        "rows": len(rows),
        "questions": len({question_ids[row["response_id"]] for row in rows}),
        "right": None if None in verdicts else verdicts["right"],
        "prompt": sum(prompt_lengths),
        "completion": sum(completion_lengths),
        "longest": max(map(sum, zip(prompt_lengths, completion_lengths))),
    }


def describe_summary(summary: dict, unit: str) -> str:
    """Return a training set's summary as one line."""
    length = summary["prompt"] + summary["completion"]
    line = f"{summary['rows']:,} rows of {summary['questions']:,} questions"
    if summary["right"] is not None:
        line += f", {summary['right'] / summary['rows']:.0%} with the verdict right"
    return f"{line}, {length:,} {unit}, {summary['completion']:,} of them learned"
