"""Choose which checkpoint of a training is reported: the best on a validation set."""

from pathlib import Path

from common.core import files
from common.core.errors import InputError
from common.core.files import content_id
from common.core.manifests import outputs, require
from common.core.tables import count
from common.data import test_sets
from common.data.decontamination import normalize_question
from common.evaluate import comparisons, scores

HOLDOUT_QUESTIONS = 500  # at most
INSIDE_MATH = {"math", "math500_validation", "tiny_validation"}
# By selection: the set that checkpoints are chosen on, that of the miniature, what it means.
DISJOINT = "which is no part of what is reported"
LUCKIEST = "as in the paper: it lies inside the test set, so the scores are those of the luckiest"
UNSEEN = "questions of the run that were not trained on, harder than the rest"
VALIDATION_SETS = {
    # Differs from the paper: by default checkpoints are chosen on questions that are not reported.
    "validation": ("math500_validation", "tiny_validation", DISJOINT),
    "paper": ("math500", "tiny", LUCKIEST),
    "heldout": (test_sets.HELDOUT, test_sets.HELDOUT, UNSEEN),
}


def choose_validation_set(selection: str, benchmarks: list) -> tuple:
    """Return the name of the set that checkpoints are chosen on, and a sentence on what that means.

    selection: a key of VALIDATION_SETS. benchmarks: those that are reported.
    """
    name, tiny_name, meaning = VALIDATION_SETS[selection]
    if set(benchmarks) <= set(test_sets.TINY):
        name = tiny_name
    if selection == "validation" and INSIDE_MATH & set(benchmarks):
        raise InputError(
            f"{name}, on which checkpoints are chosen, lies inside {' '.join(benchmarks)}.\n"
            "Report --benchmarks math500 instead of math; "
            "or choose as the paper did, on the test: --selection paper"
        )
    return name, f"Checkpoints were chosen on {name}, {meaning}."


def read_trained_questions(run: Path) -> dict:
    """Return {training set: the normalized questions that its model was trained on}."""
    questions = {}
    for path in sorted((run / "04_train").glob("*/trained_on.jsonl")):
        rows = files.iter_jsonl(path, ("question",))
        questions[path.parent.name] = {normalize_question(row["question"]) for row in rows}
    return questions


def load_heldout(run: Path, specs: list, limit: int | None = None, seed: int = 0) -> list:
    """Return questions of 01 with a gold on which no model of the run was trained.

    They are a random sample of `limit`, and of HOLDOUT_QUESTIONS at most.

    specs: the models whose checkpoints are chosen; InputError if one was not trained in this run.
    """
    folder = require(run / "04_train")
    for spec in specs:
        if spec.checkpoints and Path(spec.location).resolve().parent != folder.resolve():
            raise InputError(
                f"{spec.location} was not trained in {run}: its training questions are not known.\n"
                "Use --selection validation."
            )
    trained = set().union(*read_trained_questions(run).values())
    golds = {}
    for path in outputs(run, "01_responses"):
        for row in files.iter_jsonl(path, ("question", "gold")):
            gold = str(row["gold"] or "").strip()
            if gold and normalize_question(row["question"]) not in trained:
                golds.setdefault(row["question"], set()).add(gold)
    items = []
    for question, values in golds.items():
        if len(values) == 1:  # of two golds nobody knows which is meant
            item = {"id": content_id(question), "question": question, "gold": values.pop()}
            items.append(item)
    if not items:
        raise InputError(
            f"every question of {run} that has a gold was trained on, or none has one.\n"
            "Build with fewer rows (03_build.py --rows N) and train under another --name; "
            "or use --selection validation"
        )
    return test_sets.sample_items(items, min(limit or HOLDOUT_QUESTIONS, HOLDOUT_QUESTIONS), seed)


def choose_checkpoint(spec, results: list) -> tuple:
    """Return the checkpoint with the highest score, of equals the earliest, and rows on all.

    results: of each of spec.checkpoints, on the validation set. A row has the chosen one's lead.
    The best is picked by looking at all of them, so p is corrected (Holm) for all pairs.
    """
    rows = {}  # by label
    for checkpoint, result in zip(spec.checkpoints, results):
        if result.has_failed_items():
            raise InputError(
                f"{checkpoint.label}: items of {result.benchmark} have no output, so that no "
                "checkpoint can be chosen.\nRun the same command again: it asks only for those."
            )
        names = {"arm": spec.label, "step": checkpoint.step, "model": checkpoint.label}
        rows[checkpoint.label] = scores.score(result) | names | {"chosen": False}
    best = max(spec.checkpoints, key=lambda checkpoint: rows[checkpoint.label]["accuracy"])
    rows[best.label] |= {"chosen": True, "outcome": "chosen"}
    by_key = {(result.benchmark, result.model): result for result in results}
    # Each is compared with those before it: the best is the last.
    order = sorted(rows, key=lambda label: label == best.label)
    for pair in comparisons.compare(by_key, order, order):
        if pair["model"] == best.label:
            row = rows[pair["baseline"]]
            row |= {"difference": pair["difference"], "difference_low": pair["low"]}
            row |= {"difference_high": pair["high"], "p": pair["p"], "holm": pair["holm"]}
            is_equal = pair["outcome"] == comparisons.EQUAL
            row["outcome"] = comparisons.EQUAL if is_equal else "told apart"
    return best, list(rows.values())


def describe_choice(rows: list) -> str:
    """Return a sentence on the checkpoint that was chosen of `rows`."""
    chosen = max(rows, key=lambda row: row["chosen"])
    return (
        f"{chosen['arm']}: step {chosen['step']}, {100 * chosen['accuracy']:.1f}% of "
        f"{chosen['n']}, the best of {count(len(rows), 'checkpoint')}, which flatters it."
    )
