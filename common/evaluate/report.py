"""Results for readers: tables in Markdown, charts as PNG.

Shares come in as 0..1 and are printed in per cent, differences in points.
"""

from functools import partial
from pathlib import Path

import numpy as np

from common.core.figures import new_figure, save_figure
from common.core.tables import cell, count, interval, markdown, percent
from common.evaluate.comparisons import EQUAL
from common.tiny.mistakes import KINDS

CFT_COLOR, OTHER_COLOR = "#4c72b0", "#9aa5b1"
AXIS_LABEL = "accuracy, % (bars: 95% interval)"


signed = partial(percent, sign=True)
signed_interval = partial(interval, sign=True)


def _estimate(share, low, high):
    return "-" if share is None else f"{percent(share)} [{interval(low, high)}]"


def _p(p):
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _shares(values):
    return " ".join(map(percent, values or ())) or "-"


def _floor(share, paper_share):
    return "-" if share is None else f"{percent(share)}, paper's {percent(paper_share)}"


def _count_right(n, n_right):
    """Return a count of outputs, and how many of them are right."""
    return f"{n} ({n_right} right)" if n_right else cell(n)


def _outcome(outcome, comparisons):
    if comparisons is None:
        return "-"
    return f"{outcome} (comparisons: {comparisons})"


# A table's columns: heading, how the cell is written, the fields of a row that it is made of.
SCORES = (
    ("benchmark", cell, "benchmark"),
    ("model", cell, "model"),
    ("n", cell, "n"),
    ("strict %", percent, "accuracy"),
    ("95% interval", interval, "low", "high"),
    ("pass@k %", _estimate, "pass_accuracy", "pass_low", "pass_high"),
    ("maj@k %", _estimate, "majority_accuracy", "majority_low", "majority_high"),
    ("paper's grader %", percent, "paper_accuracy"),
    ("floor %", _floor, "floor", "paper_floor"),
    ("unboxed", _count_right, "unboxed", "unboxed_right"),
    ("truncated", _count_right, "truncated", "truncated_right"),
    ("stopped early", cell, "stopped_early"),
    ("tokens", cell, "tokens"),
    ("no output", cell, "failed"),
    ("grader timed out", cell, "timed_out"),
    ("remarks", cell, "remarks"),
)
COMPARISONS = (
    ("benchmark", cell, "benchmark"),
    ("model against baseline", "{} against {}".format, "model", "baseline"),
    ("points", signed, "difference"),
    ("95% interval", signed_interval, "low", "high"),
    ("right: only model", cell, "wins"),
    ("only baseline", cell, "losses"),
    ("both", cell, "both"),
    ("neither", cell, "neither"),
    ("p (McNemar; of means: by the interval)", _p, "p"),
    ("Holm", _p, "holm"),
    ("by Holm's p", _outcome, "outcome", "comparisons"),
    ("not compared", cell, "refused"),
)
SEEDS = (
    ("benchmark", cell, "benchmark"),
    ("model", cell, "model"),
    ("runs", cell, "runs"),
    ("each, %", _shares, "accuracies"),
    ("mean %", percent, "mean"),
    ("sd, points", percent, "sd"),
    ("95% over runs (t)", interval, "low", "high"),
    ("not averaged", cell, "refused"),
)
SELECTION = (
    ("training set", cell, "arm"),
    ("step", cell, "step"),
    ("n", cell, "n"),
    ("strict %", percent, "accuracy"),
    ("95% interval", interval, "low", "high"),
    ("chosen minus this", signed, "difference"),
    ("its 95% interval", signed_interval, "difference_low", "difference_high"),
    ("p (Holm, all pairs)", _p, "holm"),
    ("by Holm's p", cell, "outcome"),
)
MISTAKES = (  # first ones, of wrong outputs of the micro-world
    ("benchmark", cell, "benchmark"),
    ("model", cell, "model"),
    *((kind, cell, kind) for kind in KINDS),
)


def format_table(columns: tuple, rows: list) -> str:
    """Return rows as Markdown. Columns in which no row has anything to say are left out."""
    head, body = [], []
    for heading, write, *fields in columns:
        cells = [write(*map(row.get, fields)) for row in rows]
        if set(cells) - {"-", "0"}:
            head.append(heading)
            body.append(cells)
    return markdown(head, [list(line) for line in zip(*body)])


def draw_scores(scores: list, path: Path):
    """Draw bars of the strict score, a panel for each benchmark, one below the other."""
    panels = _group(scores, "benchmark")
    if not panels:
        return
    width = max(3.0, 1.0 + 0.95 * max(map(len, panels.values())))
    figure = new_figure(figsize=(width, 4 * len(panels)))
    axes = figure.subplots(len(panels), squeeze=False).flatten()
    for axis, (name, bars) in zip(axes, panels.items()):
        heights, errors = _points(bars)
        places = np.arange(len(bars))
        colors = [CFT_COLOR if bar["model"].startswith("cft") else OTHER_COLOR for bar in bars]
        container = axis.bar(places, heights, yerr=errors, capsize=4, color=colors, width=0.7)
        axis.bar_label(container, fmt="%.1f", padding=2, fontsize=9)
        axis.set_xticks(places, [bar["model"] for bar in bars], rotation=25, ha="right")
        axis.set(ylim=(0, 110), title=f"{name} (n = {bars[0]['n']})", ylabel=AXIS_LABEL)
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def draw_selection(checkpoints: list, path: Path):
    """Draw the score by training step, a line for each training set; the chosen point is filled."""
    figure = new_figure(figsize=(6.5, 4))
    axes = figure.add_subplot()
    for name, rows in _group(checkpoints, "arm").items():
        heights, errors = _points(rows)
        steps = [row["step"] for row in rows]
        line, *_ = axes.errorbar(steps, heights, errors, fmt="o-", mfc="white", label=name)
        best = [row["chosen"] for row in rows].index(True)
        axes.plot(steps[best], heights[best], "o", color=line.get_color(), ms=9, zorder=3)
    title = f"{checkpoints[0]['benchmark']} (n = {checkpoints[0]['n']}); filled: chosen"
    axes.set(xlabel="optimizer step", ylabel=AXIS_LABEL, title=title)
    figure.legend(loc="outside right upper")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def _group(rows, key):
    """Return {value of key: its rows}, without rows that have no score."""
    groups = {}
    for row in rows:
        if row["n"]:
            groups.setdefault(row[key], []).append(row)
    return groups


def _points(rows):
    """Return accuracies in per cent, [n], and the distances to their intervals' ends, [2, n]."""
    table = [(row["accuracy"], row["low"], row["high"]) for row in rows]
    accuracy, low, high = 100 * np.array(table).T
    return accuracy, np.array([accuracy - low, high - accuracy])


def describe_settings(name: str, config, engines: dict) -> str:
    """Return a line on how the outputs were made. engines: {label: its manifest}."""
    limit = f", a sample of {count(config.limit, 'item')} of each set" if config.limit else ""
    templates = sorted({engine["template"] for engine in engines.values()})
    return (
        f"Run {name}: temperature {config.temperature:g} (0 is greedy), "
        f"{count(config.samples, 'output')} an item, at most {config.max_new_tokens} tokens, "
        f"template {' and '.join(templates)}{limit}."
    )


def summarize(scores: list, comparisons: list) -> list:
    """Return the result in words and as a picture, as paragraphs.

    First the accuracies on the first benchmark, the best first. Then a line for each AVG that was
    compared: "cft 57.1, base 37.8: +19.3 points on AVG [+15.0 to +23.6], better; of 6 benchmarks 4
    differ". Without an AVG there is a line for each benchmark.
    """
    name = scores[0]["benchmark"]
    rows = [score for score in scores if score["benchmark"] == name and score["n"]]
    rows.sort(key=lambda score: -score["accuracy"])
    accuracies = ", ".join(f"{row['model']} {percent(row['accuracy'])} %" for row in rows)
    compared = [row for row in comparisons if "refused" not in row]
    averages = [row for row in compared if row["benchmark"] == "AVG"]
    lines = []
    for row in averages or compared:
        model, baseline = row["model"], row["baseline"]
        line = f"- {model} {percent(row['accuracy'])}, {baseline} "
        line += f"{percent(row['baseline_accuracy'])}: {signed(row['difference'])} points on "
        line += f"{row['benchmark']} [{signed_interval(row['low'], row['high'])}], {row['outcome']}"
        if averages:
            pair = [r for r in compared if (r["model"], r["baseline"]) == (model, baseline)]
            n = sum(r["outcome"] != EQUAL for r in pair if r is not row)
            line += f"; of {len(pair) - 1} benchmarks {n} differ"
        lines.append(f"{line}.")
    picture = "![The scores in bars](05_results.png)"
    return [f"Right answers on {name}: {accuracies}.", "\n".join(lines), picture]


def format_page(summary: list, sections: dict, notes: list) -> str:
    """Return 05_results.md. sections: {heading: Markdown}; empty ones are left out.

    summary: paragraphs, before all else.
    """
    parts = ["# Results", *summary]
    for heading, text in sections.items():
        if text:
            parts += [f"## {heading}", text]
    return "\n\n".join([*filter(None, parts), *notes]) + "\n"
