"""Which critiqued rows are trained on: what can be used at all, how long it is, and in which order it is taken."""

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


def read_answers(path, teachers):
    """{question_id: a teacher's own answer, a text}; of several teachers the first one's. {} where 02 was not asked for them."""
    rows = files.read_jsonl_if_exists(path, ("question_id", "teacher", "answer"))
    return {
        row["question_id"]: row["answer"]
        for teacher in reversed(teachers)
        for row in rows
        if row["teacher"] == teacher and isinstance(row["answer"], str) and row["answer"].strip()
    }


def read_other_responses(path, seed):
    """The finished responses of another run, shuffled, as rows that nobody judged. -> (rows, how many of its rows are none)"""
    rows = files.read_jsonl(
        path, ("id", "question_id", "question", "response", "source", "finish_reason")
    )
    finished = [
        row | {"critique_id": None, "verdict": None}
        for row in rows
        if row["finish_reason"] != "length"
        and all(
            isinstance(row[name], str) and row[name].strip() for name in ("question", "response")
        )
    ]
    return order_rows(list({row["id"]: row for row in finished}.values()), "random", seed), len(
        rows
    ) - len(finished)


def load_length_tokenizer(config, run):
    """The tokenizer whose tokens are counted; None, with a note, where the run has no base or a hub id cannot be had, and no setting needs it."""
    try:
        name = runs.stage_file(run, "01_base") if config.tokenizer == "base" else config.tokenizer
        words = load_tokenizer(
            name if Path(name).is_dir() else local_folder(name, weights=False)
        )  # a tokenizer's folder needs no model
        prompts.check_template(prompts.template_for(words), words)
        return words
    except InputError as error:
        if (
            config.min_tokens
            or config.max_tokens
            or config.select != "random"
            or config.tokenizer != "base"
            and config.tokenizer.count("/") != 1
        ):
            raise InputError(f"{error}\nTokens are counted with it: --tokenizer FOLDER") from error
        print(
            f"note: lengths are in characters, as there is no tokenizer {config.tokenizer} to be had (--tokenizer FOLDER)"
        )


def usable_critiques(rows):
    """Critiqued rows -> (those that can be trained on, counts of why the others cannot).

    A file that several hands wrote may hold a critique twice, one without a verdict, or blank texts. InputError where an id
    stands for two texts.
    """
    kept, texts, counts = {}, {}, Counter()
    for row in rows:
        lacks = [
            name
            for name in ("question", "response", "critique")
            if not isinstance(row.get(name), str) or not row[name].strip()
        ]
        if lacks:
            counts[f"rows with an empty {lacks[0]}"] += 1
            continue
        if row.get("verdict") not in VERDICTS:
            counts["critiques without a verdict"] += 1
            continue
        for key, text in (
            ("question_id", (row["question"],)),
            ("id", (row["question"], row["response"])),
            ("critique_id", (row["id"], row["critique"], row["verdict"])),
        ):
            digest = files.content_id(*text)  # as ids are: whatever form of Unicode
            if texts.setdefault(row[key], digest) != digest:
                raise InputError(
                    f"the {key} {row[key]} stands for two texts, of which one is {' | '.join(text)[:200]!r}\n"
                    "An id is a hash of what it names: make the file again with 01 and 02."
                )
        counts["duplicate critiques"] += row["critique_id"] in kept
        kept.setdefault(row["critique_id"], row)
    return list(kept.values()), +counts


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
    """How long the response, the critique, and the whole cft row, prompt included, are in training."""

    response: int
    critique: int
    row: int


def measure_lengths(rows, lengths, system):
    """{critique_id: Length}"""
    asked, written = (
        zip(*(training_sets.format_cft(row, system) for row in rows)) if rows else ((), ())
    )
    of_critiques = lengths.completions(written)
    return {
        row["critique_id"]: Length(response, critique, prompt + critique)
        for row, response, critique, prompt in zip(
            rows,
            lengths.completions([row["response"] for row in rows]),
            of_critiques,
            lengths.prompts(asked),
        )
    }


def lengths_by_kind(rows, length):
    """{"response": lengths of the distinct responses, "critique": ..., "cft row": ...}, for the report."""
    found = [length[row["critique_id"]] for row in rows]
    responses = {row["id"]: one.response for row, one in zip(rows, found)}
    return {
        "response": list(responses.values()),
        "critique": [one.critique for one in found],
        "cft row": [one.row for one in found],
    }


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


def within_length_limits(rows, low, high, length):
    """-> (rows whose cft row, prompt included, is of low to high (None: no bound) in length, counts of the others)."""
    kept, counts = [], Counter()
    for row in rows:
        whole = length[row["critique_id"]].row
        if low and whole < low:
            counts["too short (--min-tokens)"] += 1
        elif high and whole > high:
            counts["too long (--max-tokens)"] += 1
        else:
            kept.append(row)
    return kept, counts


def summarize(name, rows, lengths, question_of):
    """What an arm holds; sums of prompts and of what is learned, and the longest row, in the unit of `lengths`. right: the rows whose
    response is judged right, None where some have no verdict."""
    asked, written = (
        lengths.prompts([row["prompt"] for row in rows]),
        lengths.completions([row["completion"][0]["content"] for row in rows]),
    )
    return {
        "arm": name,
        "rows": len(rows),
        "questions": len({question_of[row["response_id"]] for row in rows}),
        "right": None
        if None in {row["verdict"] for row in rows}
        else sum(row["verdict"] == "right" for row in rows),
        "prompt": sum(asked),
        "completion": sum(written),
        "longest": max(map(sum, zip(asked, written))),
    }


def describe_summary(arm, unit):
    """An arm's summary in words."""
    judged = "" if arm["right"] is None else f", {arm['right'] / arm['rows']:.0%} judged right"
    return (
        f"{arm['rows']:,} rows of {arm['questions']:,} questions{judged}, {arm['prompt'] + arm['completion']:,} {unit}, "
        f"{arm['completion']:,} of them learned"
    )
