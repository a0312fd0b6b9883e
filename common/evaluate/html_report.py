"""One HTML file in which to read what the models wrote: filters, two models side by side. It opens from a disk and loads nothing.

Outputs are hostile text. They lie in the page as base64 of gzipped JSON lines, letters that no markup can be made of; the page's script
shows them as text nodes only; and its Content-Security-Policy allows that one script, by its hash, and no connection at all.
"""

import base64
import gzip
import hashlib
import io
import json
import re
from collections import Counter
from os.path import commonprefix
from pathlib import Path

from common.core.files import write_atomic

TEMPLATE = Path(__file__).with_suffix(".html")
ANSWER = (
    "output",
    "finish_reason",
    "n_tokens",
    "extracted",
    "how",
    "strict",
    "paper",
    "timed_out",
)  # of a row, what differs by model
SCORE = ("benchmark", "model", "n", "accuracy", "low", "high", "paper_accuracy")


def write_page(path, rows, scores, private=(), title=None):
    """Write the page: rows {(benchmark, model): rows of 05_eval}, scores as in scores.json, shares from 0 to 1.

    private: benchmarks whose questions and outputs must not be spread; of them the page holds the scores alone. A row's `question`,
    `paper` and `sample` may be missing. title: by default the name of the folder that the page is in. Equal input gives equal bytes.
    """
    title = title or Path(path).parent.name or "Evaluation"
    template = TEMPLATE.read_text(encoding="utf-8")
    script = re.search("<script>(.*?)</script>", template, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    head, tail = template.replace("@SCRIPT@", digest).split("@DATA@")
    write_atomic(path, [head, _pack(_records(rows, scores, list(private), title)), tail])


def _records(rows, scores, private, title):
    """Yield the lines of the page's data: first the table of contents, then one line an item."""
    contents, items = [], []
    for benchmark in dict.fromkeys(b for b, _ in rows if b not in private):
        answers = {model: rows[b, model] for b, model in rows if b == benchmark}
        samples = sorted({row.get("sample") or 0 for each in answers.values() for row in each})
        joined = _join(list(answers.values()), samples)
        items += [{"benchmark": len(contents), **item} for item in joined]
        contents.append(
            {"name": benchmark, "models": list(answers), "samples": samples, "n": len(joined)}
        )
    named = {b for b, _ in rows} | {score["benchmark"] for score in scores}
    yield {
        "title": title,
        "scores": [{k: score.get(k) for k in SCORE} for score in scores],
        "benchmarks": contents,
        "private": [b for b in dict.fromkeys(private) if b in named],
    }
    yield from items


def _join(answers, samples):
    """The rows of all models of one benchmark, by item, in the first model's order.

    `answers` of an item: for each model its answers by sample, None where there is none. What all models share is kept once, and
    an answer says by number which of the item's `prompts` was its own (templates differ). A test set may hold a question twice:
    the second row of an id belongs to a second item.
    """
    items = {}  # (id, how many before it have this id) -> item
    for m, rows in enumerate(answers):
        seen = Counter()
        for row in rows:
            sample = row.get("sample") or 0
            key = row["id"], seen[row["id"], sample]
            seen[row["id"], sample] += 1
            item = items.setdefault(
                key,
                {
                    "id": row["id"],
                    "question": None,
                    "gold": row.get("gold"),
                    "prompts": [],
                    "answers": [[None] * len(samples) for _ in answers],
                },
            )
            item["question"] = item["question"] or row.get("question")
            answer = {name: row.get(name) for name in ANSWER}
            if (prompt := row.get("prompt")) is not None:
                if prompt not in item["prompts"]:
                    item["prompts"].append(prompt)
                answer["prompt"] = item["prompts"].index(prompt)
            item["answers"][m][samples.index(sample)] = answer
    items = list(items.values())
    unknown = [item for item in items if not item["question"] and item["prompts"]]
    for item, question in zip(unknown, _questions([item["prompts"][0] for item in unknown])):
        item["question"] = question
    return items


def _questions(prompts):
    """Prompts without the lines that all of them begin and end with: chat template, instructions, worked examples.

    >>> _questions(["Solve.\\nWhat is 1+1?<|im_end|>\\n", "Solve.\\nWhere is Rome?<|im_end|>\\n"])
    ['What is 1+1?', 'Where is Rome?']
    """
    if len(set(prompts)) < 2:  # nothing to compare
        return prompts
    start = commonprefix(prompts).rfind("\n") + 1
    shared = commonprefix([prompt[start:][::-1] for prompt in prompts])[::-1]
    mark = re.search(r"\n|<[|｜]", shared)  # not before it: questions may all end in "?"
    end = len(shared) - mark.start() if mark else 0
    return [prompt[start : len(prompt) - end].strip() or prompt for prompt in prompts]


def _pack(records):
    """Records -> JSON lines -> gzip without a date -> base64. ASCII throughout, so that lone surrogates, too, come back as they were."""
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=packed, mtime=0) as lines:
        for record in records:
            lines.write(_json(record).encode() + b"\n")
    return base64.b64encode(packed.getbuffer()).decode()


def _json(record):
    try:
        return json.dumps(record, separators=(",", ":"), allow_nan=False)
    except ValueError:  # NaN, which no browser reads: null
        return json.dumps(
            json.loads(json.dumps(record), parse_constant=lambda name: None), separators=(",", ":")
        )
