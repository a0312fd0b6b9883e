"""The page of outputs: filters, two models side by side."""

from pathlib import Path

from common.core import page

VIEW = Path(__file__).with_suffix(".js")
# What of a row differs by model.
ANSWER = (
    "output",
    "finish_reason",
    "n_tokens",
    "extracted",
    "extraction_method",
    "correct",
    "correct_paper",
    "timed_out",
)
SCORE = ("benchmark", "model", "n", "accuracy", "low", "high", "paper_accuracy")


def write_page(path: Path, rows: dict, scores: list, private=(), title: str = ""):
    """Write the page. Equal input gives equal bytes.

    rows: {(benchmark, model): rows of 05_eval}; scores: as in scores.json, shares from 0 to 1.
    private: benchmarks whose texts must not be spread; the page holds only their scores.
    """
    page.write_page(path, VIEW, _records(rows, scores, private, title))


def _records(rows, scores, private, title):
    """Yield the lines of the page's data: first the table of contents, then one line an item."""
    benchmarks, items = [], []
    for name in dict.fromkeys(benchmark for benchmark, _ in rows):
        if name in private:
            continue
        answers = {model: rows[key, model] for key, model in rows if key == name}
        samples = sorted({row["sample"] for graded in answers.values() for row in graded})
        joined = _join_models(list(answers.values()), samples)
        items += [{"benchmark": len(benchmarks), **item} for item in joined]
        benchmarks.append(
            {"name": name, "models": list(answers), "samples": samples, "n": len(joined)}
        )
    yield {
        "title": title,
        "scores": [{key: score[key] for key in SCORE} for score in scores],
        "benchmarks": benchmarks,
        "private": list(private),
    }
    yield from items


def _join_models(answers, samples):
    """Join the rows of all models of one benchmark by item, in the first model's order.

    `answers` of an item: for each model its answers by sample, None if there is none. What all
    models share is kept once; an answer says by number which of the item's `prompts` it had, since
    templates differ. A test set may hold a question twice: the ids of its items differ.
    """
    items = {}
    for model, rows in enumerate(answers):
        for row in rows:
            item = {key: row[key] for key in ("id", "question", "gold")}
            item |= {"prompts": [], "answers": [[None] * len(samples) for _ in answers]}
            item = items.setdefault(row["id"], item)
            if row["prompt"] not in item["prompts"]:
                item["prompts"].append(row["prompt"])
            answer = {key: row[key] for key in ANSWER}
            answer["prompt"] = item["prompts"].index(row["prompt"])
            item["answers"][model][samples.index(row["sample"])] = answer
    return list(items.values())
