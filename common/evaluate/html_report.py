"""One HTML file to read outputs in: filters, two models side by side. It loads nothing.

Outputs are hostile text. The page holds them as base64 of gzipped JSON lines, letters that no
markup can be made of. Its script shows them as text nodes only, and its Content-Security-Policy
allows that one script, by its hash, and no connection at all.
"""

import base64
import gzip
import hashlib
import io
import json
import re
from pathlib import Path

from common.core.files import write_atomic

TEMPLATE = Path(__file__).with_suffix(".html")
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
    template = TEMPLATE.read_text(encoding="utf-8")
    script = re.findall("<script>(.*?)</script>", template, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    head, tail = template.replace("@SCRIPT@", digest).split("@DATA@")
    write_atomic(path, [head, _pack(_records(rows, scores, private, title)), tail])


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


def _pack(records):
    """Return records as JSON lines, gzipped without a date, in base64.

    They are ASCII throughout, so that lone surrogates come back as they were.
    """
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=packed, mtime=0) as lines:
        for record in records:
            line = json.dumps(record, separators=(",", ":"), allow_nan=False)
            lines.write(line.encode() + b"\n")
    return base64.b64encode(packed.getbuffer()).decode()
