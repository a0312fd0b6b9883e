"""Outputs -> graded rows -> scores: what is counted, and by which grader."""

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path

from common import grading
from common.core import stats
from common.core.files import content_id, file_hash, write_json, write_jsonl
from common.core.manifests import environment
from common.core.special_tokens import reveal
from common.core.tables import count
from common.core.thinking import OPEN
from common.core.untrusted import escape, printable
from common.data import test_sets
from common.evaluate import instruction_following
from common.generate.budget import prompt_text
from common.generate.requests import Request
from common.grading import paper
from common.ifeval.grading import measure

NO_GRADE = {
    "extracted": None,
    "extraction_method": "none",
    "correct": None,
    "timed_out": False,
    "correct_paper": None,
    "paper_timed_out": False,
}
OPENED_THINKING = re.compile(rf"(?:{OPEN.pattern})\s*\Z", re.I)  # at the end of a prompt
COUNTS = ("n", "failed", "truncated", "tokens")
# What a row of a private benchmark must not hold: outputs may repeat the question.
TEXTS = ("question", "prompt", "output", "error", "extracted")
EXAMPLE_CHARACTERS = 600
TINY_NOTE = (
    "This is a designed miniature, not evidence for 7B models. Its teacher leaves lines out of its "
    "own answers; critiques follow the student's lines."
)
GRADERS_NOTE = (
    "strict: mathematical equivalence, the score to believe. The paper's grader is laxer: its "
    "column is for the paper's tables alone."
)
REMARKS_NOTE = (
    "Floor: one and the same answer to every question, the best of 0, A, ., 0.01 and the most "
    "frequent gold; a score at it is no sign of any ability. Truncated: ran into --max-new-tokens; "
    "what is right among them was not finished. Stopped early: a stop string came before "
    "any answer."
)
STOP_STRING = "stop string"  # finish_reason of an output that one of them has ended
MANY = 0.05  # a share of outputs that is worth a remark
OUTCOMES = {True: "right", False: "wrong", None: "no output"}


@dataclass
class Result:
    """The graded answers of one model to one benchmark.

    conditions: what must be equal if two results are compared. runs: of a mean over several
    trainings, (accuracy, low, high) of each.
    """

    benchmark: str
    model: str
    rows: list
    conditions: dict
    score: dict = field(default_factory=dict)
    runs: tuple = ()

    def by_item(self) -> dict:
        """Return {item id: its rows}, in the test set's order, without items that failed."""
        items = {}
        for row in self.rows:
            items.setdefault(row["id"], []).append(row)
        return {key: rows for key, rows in items.items() if None not in _column(rows, "correct")}

    def shares(self, grader: str = "correct") -> list:
        """Return the share of right samples, 0..1, of each item in by_item."""
        groups = self.by_item().values()
        return [sum(_column(rows, grader)) / len(rows) for rows in groups]

    def has_failed_items(self) -> bool:
        """Return whether an item has no output, unless failed items count as wrong."""
        return None in _column(self.rows, "correct")


# --- rows -----------------------------------------------------------------------------------------


def grader_id(name: str) -> str:
    """Return 12 hex digits of the code that grades a benchmark and of its rules."""
    benchmark = test_sets.get_test_set(name)
    package = "ifeval" if benchmark.instructions else "grading"
    sources = sorted((Path(__file__).parent.parent / package).glob("*.py"))
    hashes = [file_hash(path) for path in sources]
    return content_id(hashes, benchmark.tolerance, benchmark.units, benchmark.choices)[:12]


def build_requests(prompts: list, samples: int, greedy: bool) -> list:
    """Return `samples` requests for each prompt, those of one prompt in a row.

    Equal prompts (MMLU-Pro repeats questions) draw samples of their own. If greedy they are one
    output, which is asked for once.
    """
    earlier, requests = Counter(), []
    for prompt in prompts:
        first = 0 if greedy else samples * earlier[str(prompt)]
        for number in range(first, first + samples):
            requests.append(Request(prompt, sample=number, must_finish=True))
        earlier[str(prompt)] += 1
    return requests


def grade_outputs(
    folder: Path, name: str, items, requests, outputs, count_failed=False, ifeval="reference"
) -> list:
    """Grade outputs of complete() by both graders, write `folder`/<name>.jsonl, return its rows.

    An item without an output says why in `error`; it has correct and correct_paper null, or false
    if count_failed is set. ifeval: the grading of IFEval. Rows of a private benchmark are written
    without any text.
    """
    benchmark, grader = test_sets.get_test_set(name), grader_id(name)
    samples = len(requests) // len(items)
    rows = []
    for number, (request, output) in enumerate(zip(requests, outputs, strict=True)):
        item = items[number // samples]
        row = {
            "id": item["id"],
            "benchmark": name,
            "sample": number % samples,
            "question": item["question"],
            "prompt": reveal(prompt_text(request.prompt)),
            "output": output.get("text", ""),
            "finish_reason": output.get("finish_reason"),
            "n_tokens": (output.get("usage") or {}).get("completion_tokens"),
            **NO_GRADE,
            "gold": item["gold"],
            "grader": grader,
        }
        if "error" in output:
            row |= {"output": "", "finish_reason": "failed", "error": output["error"]}
        elif "stop_string" in output:
            row["finish_reason"] = STOP_STRING
        rows.append(row)
    graded = [row for row in rows if count_failed or "error" not in row]
    if benchmark.instructions:
        for row in graded:
            instruction_following.grade_row(row, _begin_with_thinking(row), ifeval)
    else:
        _grade(benchmark, graded)
    hidden = dict.fromkeys(TEXTS) if benchmark.private else {}
    write_jsonl(folder / f"{name}.jsonl", [row | hidden for row in rows])
    return rows


def _grade(benchmark, rows):
    """Add to rows what both graders say of them."""
    texts, golds = _column(rows, "output"), _column(rows, "gold")
    complete = map(_complete, rows)
    choices = benchmark.choices or None
    strict_grades = grading.grade_many(complete, golds, benchmark.tolerance, choices)
    paper_grades = paper.grade_many(texts, golds, benchmark.units, benchmark.choices)
    for row, strict, (correct_paper, timed_out) in zip(rows, strict_grades, paper_grades):
        row |= asdict(strict)
        row |= {"correct_paper": correct_paper, "paper_timed_out": timed_out}


def _begin_with_thinking(row):
    """Return an output after the <think> that its prompt opened: if cut inside, it is no answer."""
    opened = OPENED_THINKING.search(row["prompt"][-200:])
    return opened[0] + row["output"] if opened else row["output"]


def _complete(row):
    """Return an output as it is graded: it ends before the number at which its limit cut it."""
    text = _begin_with_thinking(row)
    return grading.without_cut_number(text) if row["finish_reason"] == "length" else text


# --- scores ---------------------------------------------------------------------------------------


def score(result: Result) -> dict:
    """Return the score of a Result; all shares are 0..1.

    n: items that were answered; failed: those that were not. accuracy: by the strict grader, the
    mean over samples if there are several. Its interval is over items (stats.mean_interval).
    Of outputs: unboxed, truncated, and how many of these are right; stopped_early, those that a
    stop string ended before there was any answer, as far as the engine says so.
    """
    rows, shares = result.rows, result.shares()
    samples = 1 + max(_column(rows, "sample"))
    rules = result.conditions.get("ifeval")
    summary = {
        "benchmark": f"ifeval strict_prompt ({rules})" if rules else result.benchmark,
        "model": result.model,
        "n": len(shares),
        "samples": samples,
        "failed": len({row["id"] for row in rows if row["finish_reason"] == "failed"}),
        "tokens": sum(filter(None, _column(rows, "n_tokens"))),
        **_count_outputs(result),
    }
    if not shares:
        return summary | {"accuracy": None, "low": None, "high": None, "paper_accuracy": None}
    summary |= _named("", stats.mean_interval(shares))
    summary |= _named("paper_", stats.mean_interval(result.shares("correct_paper")))
    if rules:
        summary |= measure(list(result.by_item().values()))
    if samples == 1:
        return summary | {"correct": int(sum(shares))}
    passed = [float(share > 0) for share in shares]
    summary |= _named("pass_", stats.mean_interval(passed))
    if rules:  # nothing to vote on
        return summary
    voted = [majority(group) for group in result.by_item().values()]
    return summary | _named("majority_", stats.mean_interval(voted))


def _count_outputs(result):
    """Return how many outputs a Result has, and how many of them are odd in some way."""
    benchmark = test_sets.get_test_set(result.benchmark)
    outputs = [row for row in result.rows if row["finish_reason"] != "failed"]
    unboxed = [row for row in outputs if row["extraction_method"] != "boxed"]
    if benchmark.choices or benchmark.instructions:  # nobody asks for a box
        unboxed = [row for row in unboxed if row["extraction_method"] == "none"]
    truncated = [row for row in outputs if row["finish_reason"] == "length"]
    stopped = [row for row in outputs if row["finish_reason"] == STOP_STRING]
    return {
        "outputs": len(outputs),
        "unboxed": len(unboxed),
        "unboxed_right": _column(unboxed, "correct").count(True),
        "truncated": len(truncated),
        "truncated_right": _column(truncated, "correct").count(True),
        "stopped_early": _column(stopped, "extraction_method").count("none"),
        "timed_out": sum(_column(outputs, "timed_out")),
        "paper_timed_out": sum(_column(outputs, "paper_timed_out")),
    }


def add_remarks(score: dict, floor: dict | None, stale: bool) -> dict:
    """Return a score with what a reader must know of it, in "remarks", and the floor as shares.

    floor: of floors.find_floor. A score is at the floor if it is not above the interval that the
    constant answer would have with as many items. stale: see models.is_stale.
    """
    remarks = ["trained on other rows than 03 has now"] if stale else []
    for key in ("truncated", "unboxed", "stopped_early"):
        share = score[key] / max(score["outputs"], 1)
        if share > MANY:
            remarks.append(f"{share:.0%} {key.replace('_', ' ')}")
    for prefix, grader in (("", "strict"), ("paper_", "paper's grader")):
        if floor and score["n"]:
            share = floor[f"{prefix}correct"] / floor["n"]
            _, high = stats.wilson(round(share * score["n"]), score["n"])
            score = score | {f"{prefix}floor": share}
            if score[f"{prefix}accuracy"] <= high:
                remarks.append(f"at the floor ({grader})")
    floors = (floor or {}).get("shares", {})
    return score | floors | {"remarks": "; ".join(remarks) or None}


def _column(rows, key):
    return [row[key] for row in rows]


def _named(prefix, interval):
    """Return (mean, low, high) as fields of a score, their names with a prefix."""
    mean, low, high = interval
    return {f"{prefix}accuracy": mean, f"{prefix}low": low, f"{prefix}high": high}


def majority(rows: list) -> float:
    """Return maj@k of one item's samples.

    It is 1.0 if the answer given most often is right, 0.0 if it is wrong, and if several lead the
    right answer's share among them. An output without an answer has no vote.
    """
    votes = [row for row in rows if row["extracted"] is not None]
    right = sum(_column(votes, "correct"))
    wrong = Counter(row["extracted"].strip() for row in votes if not row["correct"])
    # Only if the sum of the wrong answers reaches the right one does it matter which are equal.
    if wrong.total() >= right >= max(wrong.values(), default=0):
        wrong = _merge_equal(wrong)
    if not right or right < max(wrong.values(), default=0):
        return 0.0
    return 1 / (1 + list(wrong.values()).count(right))


def _merge_equal(answers):
    """Return a Counter of answers in which those that mean the same are one."""
    merged = Counter()
    for answer, n in answers.items():
        boxed = f"\\boxed{{{answer}}}"
        equal = [other for other in merged if grading.is_correct(boxed, other)]
        merged[equal[0] if equal else answer] += n
    return merged


def average_scores(scores: list) -> list:
    """Return a score "AVG" of each model that has a score on all of several benchmarks.

    It is the plain mean of the accuracies, as in the paper's tables.
    """
    benchmarks = set(_column(scores, "benchmark"))
    averages = []
    for model in dict.fromkeys(_column(scores, "model")):
        rows = [row for row in scores if row["model"] == model and row["n"]]
        if len(rows) == len(benchmarks) > 1:
            averages.append({"benchmark": "AVG", "model": model} | _average(rows))
    return averages


def _average(rows):
    average = {}
    for key in COUNTS:
        average[key] = sum(_column(rows, key))
    for prefix in ("", "paper_"):
        fields = itemgetter(f"{prefix}accuracy", f"{prefix}low", f"{prefix}high")
        average |= _named(prefix, stats.average_interval([fields(row) for row in rows]))
    return average


def write_score(folder: Path, result: Result, engine: dict):
    """Score a Result and write `folder`/<benchmark>.score.json. engine: what made its outputs."""
    result.score = score(result)
    manifest = {
        "score": result.score,
        "grader": grader_id(result.benchmark),
        "conditions": result.conditions,
        "engine": engine,
    }
    path = folder / f"{result.benchmark}.score.json"
    write_json(path, manifest | environment())


# --- text -----------------------------------------------------------------------------------------


def format_example(results: list) -> str:
    """Return the first item on which models differ (the last one if none), and their outputs.

    Nothing of a private benchmark is shown.
    """
    name = results[0].benchmark
    if test_sets.get_test_set(name).private:
        return f"({name}: no example, its texts are shown and stored nowhere)"
    for rows in zip(*(result.rows for result in results)):
        if len(set(_column(rows, "correct"))) > 1:
            break
    lines = [rows[0]["question"], f"(gold {rows[0]['gold']})"]
    for result, row in zip(results, rows):
        lines.append(f"--- {result.model}: {OUTCOMES[row['correct']]}")
        lines.append(row["output"][:EXAMPLE_CHARACTERS])
    return printable("\n".join(lines))


def list_notes(results: list) -> list:
    """Return sentences that a reader of the scores must know."""
    tiny = all(result.benchmark in test_sets.TINY for result in results)
    notes = [TINY_NOTE if tiny else GRADERS_NOTE, REMARKS_NOTE]
    if any("ifeval" in result.conditions for result in results):
        notes.append(instruction_following.NOTE)
    for result in results:
        errors = [row["error"] for row in result.rows if "error" in row]
        if errors:
            effect = "left out of the n" if result.has_failed_items() else "counted as wrong"
            notes.append(
                f"{result.model}, {result.benchmark}: {count(result.score['failed'], 'item')} got "
                f"no output, {effect}; the first: {escape(errors[0], 200)}"
            )
    return notes
