"""What 05 shows: tables in Markdown, charts as PNG. Shares come in as 0..1 and are printed in per cent, differences in points."""

import math

from matplotlib.figure import Figure

from common.core.figures import save_figure
from common.core.files import write_atomic
from common.core.tables import interval, markdown, percent


def _p(p):
    return "<.001" if p < 0.001 else f"{p:.3f}"[1:] if p < 0.9995 else "1"


def scores_table(scores):
    """A row a score; columns that say nothing (no samples, nothing failed) are left out."""
    sampled, failed = any(s["samples"] > 1 for s in scores), any(s["failed"] for s in scores)
    head = [
        "benchmark",
        "model",
        "n",
        "strict %",
        "95% interval",
        "paper's grader %",
        "unboxed",
        "cut",
        "tokens",
        "seconds",
    ]
    rows = []
    for s in scores:
        row = [
            s["benchmark"],
            s["model"],
            s["n"],
            percent(s["accuracy"]),
            interval(s["low"], s["high"]),
            percent(s["paper_accuracy"]),
            s["unboxed"],
            s["cut"],
            f"{s['tokens']:,}",
            "-" if s["seconds"] is None else f"{s['seconds']:.0f}",
        ]
        if sampled:
            row[3:3] = [s["samples"]]
            row[6:6] = [
                f"{percent(s.get(f'{kind}_accuracy'))} [{interval(s.get(f'{kind}_low'), s.get(f'{kind}_high'))}]"
                if f"{kind}_accuracy" in s
                else "-"
                for kind in ("pass", "majority")
            ]
        rows.append(row + [s["failed"]] * failed)
    if sampled:
        head[3:5] = ["k", "avg@k strict %", "95% interval", "pass@k %", "maj@k %"]
    return markdown(head + ["no output"] * failed, rows)


def comparisons_table(comparisons):
    """A row a comparison, or why there is none; the four counts only where items are right or wrong as a whole."""
    head = [
        "benchmark",
        "model against baseline",
        "points",
        "95% interval",
        "right: only model",
        "only baseline",
        "both",
        "neither",
        "p (McNemar; of means: sign flips)",
        "Holm",
        "by Holm's p",
    ]
    rows = []
    for c in comparisons:
        pair = f"{c['model']} against {c['baseline']}"
        if "refused" in c:
            rows.append([c["benchmark"], pair, *["-"] * 8, f"not compared: {c['refused']}"])
            continue
        cells = [c.get(key, "") for key in ("wins", "losses", "both", "neither")]
        rows.append(
            [
                c["benchmark"],
                pair,
                percent(c["difference"], True),
                interval(c["low"], c["high"], True),
                *cells,
                _p(c["p"]),
                _p(c["holm"]),
                c["word"],
            ]
        )
    return markdown(head, rows)


def seeds_table(rows):
    """A row a benchmark and arm: each run's score, and the interval over runs beside the one over items."""
    head = [
        "benchmark",
        "arm",
        "runs",
        "each, %",
        "mean %",
        "sd, points",
        "95% over runs (t)",
        "95% over items",
    ]
    return markdown(
        head,
        [
            [
                r["benchmark"],
                r["model"],
                r["runs"],
                " ".join(percent(a) for a in r["accuracies"]),
                percent(r["mean"]),
                f"{100 * r['sd']:.1f}",
                interval(r["low"], r["high"]),
                interval(r["items_low"], r["items_high"]),
            ]
            if "mean" in r
            else [
                r["benchmark"],
                r["model"],
                r["runs"],
                *["-"] * 4,
                f"not put together: {r['refused'] or 'items without an output'}",
            ]
            for r in rows
        ],
    )


def selection_table(rows):
    """A row a checkpoint: its score on the validation set, and what the chosen one is ahead of it."""
    head = [
        "arm",
        "step",
        "n",
        "strict %",
        "95% interval",
        "chosen minus this",
        "95% interval",
        "p",
        "Holm, all pairs",
        "by Holm's p",
    ]
    return markdown(
        head,
        [
            [
                r["arm"],
                r["step"],
                r["n"],
                percent(r["accuracy"]),
                interval(r["low"], r["high"]),
                *(
                    ["", "", "", "", "chosen"]
                    if r["chosen"]
                    else [
                        percent(r["difference"], True),
                        interval(r["difference_low"], r["difference_high"], True),
                        _p(r["p"]),
                        _p(r["holm"]),
                        "told apart" if r["holm"] < 0.05 else "not distinguishable",
                    ]
                ),
            ]
            for r in rows
        ],
    )


def chart(scores, path):
    """Bars of the strict score with 95 % intervals, one panel a benchmark, three a row; a diamond where the paper's grader differs."""
    names = list(dict.fromkeys(s["benchmark"] for s in scores))
    panels = [
        [s for s in scores if s["benchmark"] == name and s["accuracy"] is not None]
        for name in names
    ]
    wide, columns = max(3.0, 1.0 + 0.95 * max(map(len, panels))), min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(wide * columns, 4 * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).flat
    for name, bars, axes in zip(
        names, panels, every
    ):  # every last: zip would take one too many of it
        heights = [100 * s["accuracy"] for s in bars]
        errors = [
            [100 * (s["accuracy"] - s["low"]) for s in bars],
            [100 * (s["high"] - s["accuracy"]) for s in bars],
        ]
        colours = ["#4c72b0" if s["model"].startswith("cft") else "#9aa5b1" for s in bars]
        axes.bar(range(len(bars)), heights, yerr=errors, capsize=4, color=colours, width=0.7)
        for x, s in enumerate(bars):
            axes.text(x, 100 * s["high"] + 1.5, percent(s["accuracy"]), ha="center", fontsize=9)
        differing = [
            (x, 100 * s["paper_accuracy"])
            for x, s in enumerate(bars)
            if abs(s["paper_accuracy"] - s["accuracy"]) > 0.0005
        ]
        if differing:
            axes.plot(*zip(*differing), "D", color="#c44e52", markersize=5, label="paper's grader")
            axes.legend(fontsize=8, loc="upper left")
        axes.set_xticks(range(len(bars)), [s["model"] for s in bars], rotation=25, ha="right")
        n = {s["n"] for s in bars}
        axes.set(
            ylim=(0, 110),
            yticks=range(0, 101, 20),
            ylabel="accuracy, % (bars: 95% interval)",
            title=name if len(n) != 1 else f"{name} (n = {n.pop()})",
        )
        axes.spines[["top", "right"]].set_visible(False)
    for axes in every:  # panels that are left over
        axes.set_axis_off()
    save_figure(figure, path)


def selection_chart(rows, path):
    """Score by training step with 95 % intervals, a line an arm; the chosen checkpoint is filled. Without rows no picture stands."""
    if not rows:
        return path.unlink(missing_ok=True)
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, arm in enumerate(dict.fromkeys(r["arm"] for r in rows)):
        own, colour = [r for r in rows if r["arm"] == arm], f"C{number}"
        x, y = [r["step"] for r in own], [100 * r["accuracy"] for r in own]
        errors = [
            [100 * (r["accuracy"] - r["low"]) for r in own],
            [100 * (r["high"] - r["accuracy"]) for r in own],
        ]
        axes.errorbar(
            x,
            y,
            errors,
            fmt="o-",
            color=colour,
            markerfacecolor="white",
            capsize=3,
            linewidth=1.5,
            label=arm,
        )
        axes.plot(
            *zip(*((r["step"], 100 * r["accuracy"]) for r in own if r["chosen"])),
            "o",
            color=colour,
            markersize=9,
            zorder=3,
        )
    axes.set(
        xlabel="optimizer step",
        ylabel="accuracy, % (bars: 95% interval)",
        title=f"{rows[0]['benchmark']} (n = {rows[0]['n']}); filled: chosen",
    )
    figure.legend(loc="outside right upper")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def settings_line(name, config, shots):
    """What all scores of a run have in common, in a line."""
    how = (
        f"temperature {config.temperature:g}, {config.samples} samples an item"
        if config.temperature
        else "greedy"
    )
    return (
        f"Run {name}: {how}, {shots}-shot, at most {config.max_new_tokens} new tokens, template {config.template}"
        + (f", the first {config.limit} items of each set" if config.limit else "")
        + (", in 4 bits" if config.load_in_4bit else "")
        + (", exact (float32, one at a time)" if config.exact else "")
        + "; each score's own manifest is 05_eval/MODEL/BENCHMARK.score.json."
    )


def write(path, sections, notes):
    """05_results.md: {heading: Markdown}, and what one must know to read it."""
    body = [f"## {heading}\n\n{text}" for heading, text in sections.items() if text]
    write_atomic(path, "\n\n".join(["# Results", *body, *notes]) + "\n")
