"""Outputs -> graded rows -> scores: what is counted, by which grader, and in which words."""

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from common import grading
from common.core import runs, stats
from common.core.errors import InputError
from common.core.files import content_id, file_hash, read_jsonl, write_json, write_jsonl
from common.data import test_sets
from common.generate.requests import Request
from common.grading import paper

JUDGED = ("extracted", "how", "strict", "timed_out", "paper", "paper_timed_out")


@dataclass
class Result:
    """What one model said to one benchmark, graded. conditions: what must be equal where two results are compared; took: see took()."""

    benchmark: str
    model: str
    rows: list
    conditions: dict = field(default_factory=dict)
    took: dict = field(default_factory=dict)
    score: dict | None = None
    runs: tuple = ()  # of a mean over several trainings: the accuracy of each

    def values(self, grader="strict"):
        """{item id: share of its samples that are right, 0..1}, of the items that were answered, in the test set's order."""
        by_item = {}
        for row in self.rows:
            by_item.setdefault(row["id"], []).append(row[grader])
        return {i: sum(right) / len(right) for i, right in by_item.items() if None not in right}


# --- rows -----------------------------------------------------------------------------------------------------------


@lru_cache
def grader_id(name):
    """12 hex digits of the code that grades a benchmark and of its rules: another grader is another score."""
    benchmark = test_sets.get_test_set(name)
    files = sorted((Path(__file__).parent.parent / "grading").glob("*.py"))
    return content_id(
        [file_hash(f) for f in files], benchmark.tolerance, benchmark.units, benchmark.choices
    )[:12]


def requests(prompts, samples, greedy):
    """`samples` Requests of each prompt, side by side. Equal prompts (MMLU-Pro repeats questions) draw samples of their own; greedily they are
    one output, and asked once."""
    seen, asked = Counter(), []
    for prompt in prompts:
        first = 0 if greedy else samples * seen[prompt]
        asked += [Request(prompt, sample=first + k, must_finish=True) for k in range(samples)]
        seen[prompt] += 1
    return asked


def graded(folder, name, items, requests, outputs, count_failed=False):
    """Grade what complete() gave for the requests (the samples of an item stand together) and write `folder`/<name>.jsonl. -> its rows

    An item without an output has strict and paper null, or false where count_failed is set, and says why in `error`. Of a private benchmark
    no text is written, neither the questions nor outputs, which may repeat them.
    """
    benchmark, k, grader = test_sets.get_test_set(name), len(requests) // len(items), grader_id(name)
    rows = []
    for number, (request, output) in enumerate(zip(requests, outputs, strict=True)):
        item, failed = items[number // k], output.get("error")
        rows.append(
            {
                "id": item["id"],
                "benchmark": name,
                "sample": number % k,
                "question": item["question"],
                "prompt": request.prompt,
                "output": "" if failed else output["text"],
                "finish_reason": "failed" if failed else output["finish_reason"],
                "n_tokens": (output.get("usage") or {}).get("completion_tokens"),
                **dict.fromkeys(JUDGED),
                "gold": item["gold"],
                "grader": grader,
                **({"error": failed} if failed else {}),
            }
        )
    known = {} if benchmark.private else _known(folder / f"{name}.jsonl", grader)
    todo = [row for row in rows if "error" not in row and (row["output"], row["gold"]) not in known]
    texts, golds = [row["output"] for row in todo], [row["gold"] for row in todo]
    strict = grading.grade_many(texts, golds, benchmark.tolerance, benchmark.choices or None)
    by_rules = paper.grade_many(texts, golds, benchmark.units, benchmark.choices)
    for row, judged, by_paper in zip(todo, strict, by_rules):
        known[row["output"], row["gold"]] = (
            judged.extracted,
            judged.extraction_method,
            judged.correct,
            judged.timed_out,
            *by_paper,
        )
    for row in rows:
        lost = (
            (None, "none", False, False, False, False)
            if count_failed
            else (None, "none", None, False, None, False)
        )
        row |= dict(zip(JUDGED, lost if "error" in row else known[row["output"], row["gold"]]))
    kept = (
        dict.fromkeys(("question", "prompt", "output", "error", "extracted"))
        if benchmark.private
        else {}
    )
    write_jsonl(
        folder / f"{name}.jsonl",
        [row | {key: None for key in kept.keys() & row.keys()} for row in rows],
    )
    return rows


def _known(path, grader):
    """{(output, gold): how it was judged} of rows that stand there and were judged by this very grader, in time."""
    try:
        return {
            (row["output"], row["gold"]): tuple(row[key] for key in JUDGED)
            for row in read_jsonl(path)
            if row["grader"] == grader
            and "error" not in row
            and not row["timed_out"]
            and not row["paper_timed_out"]
        }
    except (OSError, InputError, KeyError, TypeError):  # torn, or of another version: graded again
        return {}


# --- scores ---------------------------------------------------------------------------------------------------------


def took(outputs):
    """What the outputs of complete() say of their making: seconds in all, of whichever run, and the batch sizes of a local model."""
    each = {output["key"]: output for output in outputs if "key" in output}.values()
    return {
        "seconds": round(sum(output.get("seconds", 0) for output in each), 1),
        "batch_sizes": sorted({output["batch_size"] for output in each if "batch_size" in output}),
    }


def score(result, seed=0):
    """-> the score of a Result, all shares 0..1. n: items that were answered; failed: those that were not. accuracy: by the strict
    grader, the mean over samples where there are several; its interval is Wilson's, with samples a bootstrap over items."""
    rows, name = result.rows, result.benchmark
    values, k = list(result.values().values()), 1 + max(row["sample"] for row in rows)
    said = [row for row in rows if row["finish_reason"] != "failed"]
    counts = {
        "unboxed": sum(row["how"] != "boxed" for row in said),
        "cut": sum(row["finish_reason"] == "length" for row in said),
        "timed_out": sum(row["timed_out"] for row in said),
        "paper_timed_out": sum(row["paper_timed_out"] for row in said),
        "failed": len({row["id"] for row in rows if row["finish_reason"] == "failed"}),
        "tokens": sum(row["n_tokens"] or 0 for row in rows),
        "seconds": result.took.get("seconds"),
    }
    if test_sets.get_test_set(name).choices:  # nobody asked for a box
        counts["unboxed"] = sum(row["how"] == "none" for row in said)
    found = {"benchmark": name, "model": result.model, "n": len(values), "samples": k} | counts
    if not values:
        return found | {"accuracy": None, "low": None, "high": None, "paper_accuracy": None}
    found |= _interval("", values, seed) | _interval(
        "paper_", list(result.values("paper").values()), seed
    )
    if k == 1:
        found["correct"] = int(sum(values))
    if k > 1:
        groups = [
            group
            for group in by_item(rows).values()
            if all(row["strict"] is not None for row in group)
        ]
        found |= _interval(
            "pass_", [float(any(row["strict"] for row in group)) for group in groups], seed
        )
        found |= _interval("majority_", [majority(group) for group in groups], seed)
    return found


def _interval(prefix, values, seed):
    """Wilson's where every item is right or wrong as a whole, which a bootstrap of few items, or of zeros, gets too narrow; else a bootstrap."""
    if set(values) <= {0, 1}:
        mean, (low, high) = sum(values) / len(values), stats.wilson(int(sum(values)), len(values))
    else:
        mean, low, high = stats.mean_interval(values, seed=seed)
    return {f"{prefix}accuracy": mean, f"{prefix}low": low, f"{prefix}high": high}


def with_guesses(rows, items):
    """MMLU-Pro's accuracy by the paper's rules as the released code counts it: where no letter can be read it guesses, here in expectation.
    -> (share 0..1, number of guesses)"""
    options = {item["id"]: item["options"] for item in items}
    letters = test_sets.get_test_set(rows[0]["benchmark"]).choices
    answered = [row for row in rows if row["strict"] is not None]
    unread = [
        row
        for row in answered
        if row["finish_reason"] != "failed" and not paper.extract_option(row["output"], letters)
    ]
    return (
        sum(row["paper"] for row in answered) + sum(1 / options[row["id"]] for row in unread)
    ) / len(answered), len(unread)


def by_item(rows):
    found = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return found


def majority(rows):
    """maj@k of one item's samples: 1.0 where the answer given most often is right, 0.0 where it is not, the right ones' share of the
    leading answers where several lead. An output without an answer has no vote."""
    votes = [row for row in rows if row["extracted"] is not None]
    right = sum(row["strict"] for row in votes)
    wrong = Counter(row["extracted"].strip() for row in votes if not row["strict"])
    if not right or not wrong:
        return float(right > 0)
    if (
        sum(wrong.values()) >= right >= max(wrong.values())
    ):  # only then does it matter which of the wrong answers mean the same
        groups = {}
        for answer, n in wrong.items():
            same = next(
                (g for g in groups if grading.is_correct(f"\\boxed{{{answer}}}", g)), answer
            )
            groups[same] = groups.get(same, 0) + n
        wrong = groups
    most = max(right, *wrong.values())
    leading = [n for n in wrong.values() if n == most]
    return 0.0 if right < most else 1 / (1 + len(leading))


def averages(scores):
    """AVG, the plain mean of the accuracies, as in the paper's tables, of each model that has a score on all of several benchmarks.
    -> score dicts with benchmark "AVG"."""
    found, names = [], {s["benchmark"] for s in scores}
    for model in dict.fromkeys(s["model"] for s in scores):
        own = [s for s in scores if s["model"] == model and s["accuracy"] is not None]
        if len(own) == len(names) > 1:
            row = {
                "benchmark": "AVG",
                "model": model,
                "n": sum(s["n"] for s in own),
                "samples": max(s["samples"] for s in own),
            }
            row |= {
                key: sum(s[key] or 0 for s in own)
                for key in (
                    "unboxed",
                    "cut",
                    "timed_out",
                    "paper_timed_out",
                    "failed",
                    "tokens",
                    "seconds",
                )
            }
            for keys in (
                ("accuracy", "low", "high"),
                ("paper_accuracy", "paper_low", "paper_high"),
            ):
                row |= zip(keys, stats.average_interval([[s[key] for key in keys] for s in own]))
            found.append(row)
    return found


def write_score(folder, result, about, seed=0):
    """Score a Result and write `folder`/<benchmark>.score.json: the score with all that is needed to make it again."""
    result.score = score(result, seed)
    write_json(
        folder / f"{result.benchmark}.score.json",
        {
            "score": result.score,
            "grader": grader_id(result.benchmark),
            "conditions": result.conditions,
            "took": result.took,
            **about,
            **runs.environment(),
        },
    )


# --- in words -------------------------------------------------------------------------------------------------------


def example(results, most=600):
    """The first item of a benchmark on which its Results differ, and what each model said; nothing of a private one."""
    if test_sets.get_test_set(results[0].benchmark).private:
        return f"({results[0].benchmark}: no example, its texts are shown and stored nowhere)"
    differ = [
        i
        for i, rows in enumerate(zip(*(result.rows for result in results)))
        if len({row["strict"] for row in rows}) > 1
    ]
    rows = [result.rows[differ[0] if differ else 0] for result in results]
    lines = [f"{rows[0]['question']}\n(gold {rows[0]['gold']})"]
    for result, row in zip(results, rows):
        lines.append(
            f"--- {result.model}: { {True: 'right', False: 'wrong', None: 'no output'}[row['strict']] }\n{row['output'][:most]}"
        )
    return "\n".join(lines)


def notes(scores, results, items):
    """What one must know to read the scores."""
    own = [s for s in scores if s["benchmark"] != "AVG"]
    if all(s["benchmark"] in test_sets.TINY for s in own):
        found = [
            "A designed miniature, not evidence for 7B models: its teacher leaves lines out of its own answers, and "
            "imitating text with gaps costs a small model its step-by-step habit, while critiques follow the student's lines."
        ]
    else:
        found = [
            "strict: mathematical equivalence, and the score to believe. The paper's grader is laxer: its column is for the paper's tables alone."
        ]
    for s in own:
        rows = results[s["benchmark"], s["model"]].rows
        if s["failed"]:
            how = (
                "count as wrong"
                if rows and all(row["strict"] is not None for row in rows)
                else "are not among the n"
            )
            why = next(row["error"] for row in rows if row.get("error"))
            found.append(
                f"{s['model']}, {s['benchmark']}: {s['failed']} items got no output and {how}; the first: {why[:200]}"
            )
        if s["timed_out"]:
            found.append(
                f"{s['model']}, {s['benchmark']}: {s['timed_out']} answers could not be compared in time and count as wrong."
            )
        if s["paper_timed_out"]:
            found.append(
                f"{s['model']}, {s['benchmark']}: the paper's grader ran out of time on {s['paper_timed_out']} answers, which count as wrong there."
            )
        if test_sets.get_test_set(s["benchmark"]).choices and s["n"]:
            share, guesses = with_guesses(rows, items[s["benchmark"]])
            found.append(
                f"{s['model']}, {s['benchmark']}: {100 * share:.1f}% by the paper's rules if, as the released code does, a letter is guessed for "
                f"the {guesses} outputs in which it finds none."
            )
    return found


def for_paper(table, scores, bases, temperature):
    """{(model, benchmark): what paper_tables.side_by_side wants}, AVG over the table's own columns where all of them are scored. bases:
    {model: the paper's base that it was trained from}"""
    mine = [
        s
        for s in scores
        if s["benchmark"] in table.columns and s["benchmark"] != "AVG" and s["accuracy"] is not None
    ]
    columns = [column for column in table.columns if column != "AVG"]
    whole = [
        row
        for model in bases
        for row in averages([s for s in mine if s["model"] == model])
        if row["model"] == model
        and {s["benchmark"] for s in mine if s["model"] == model} == set(columns)
    ]
    return {
        (s["model"], s["benchmark"]): {
            "paper": s["paper_accuracy"],
            "strict": s["accuracy"],
            "low": s["paper_low"],
            "high": s["paper_high"],
            "n": s["n"],
            "temperature": temperature,
            "base": bases[s["model"]],
        }
        for s in mine + whole
    }
