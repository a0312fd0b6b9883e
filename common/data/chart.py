"""The picture of the training data: how long its texts are, and verdicts against golds."""

import textwrap

import numpy as np
from matplotlib.figure import Figure

from common.core.figures import save_figure

CUTOFF = 2_048  # tokens a row at most (paper's yaml): 04 cuts or drops longer ones
BLUE, RED = "#4c72b0", "#c44e52"
MEASURES = (  # of a line of critique_quality.confusion_table
    ("agrees", "verdicts that agree with the gold", "o", BLUE),
    ("accepts", "wrong responses with the verdict right", "D", RED),
)


def shorten(text: str, limit: int) -> str:
    """Return one line of printable characters, without the middle of a text that is too long."""
    printable = "".join(c if c.isprintable() else " " for c in text[:10_000])
    line = " ".join(printable.split()) or "(no name)"
    half = limit // 2
    return line if len(line) <= limit else f"{line[: half - 1]}…{line[-half:]}"


def draw(path, lengths: dict, unit: str, teachers: dict) -> None:
    """Draw the lengths and, if there are golds, the verdicts of each teacher against them.

    lengths: {kind of text: lengths in `unit`}. teachers: {name: its line of the confusion table}.
    """
    n_panels = 2 if teachers else 1
    height = max(3.2, 1.4 + 0.4 * len(teachers))  # inches
    figure = Figure(figsize=(6.5 * n_panels, height), layout="constrained")
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    _draw_lengths(panels[0], lengths, unit)
    if teachers:
        _draw_verdicts(panels[1], teachers)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2)
    save_figure(figure, path)


def _label(name):
    """Return a name as the picture can show it: two lines, letters that its font has, no TeX."""
    text = "\n".join(textwrap.wrap(shorten(name, 60), 30))
    shown = "".join(c if ord(c) < 0x250 or c == "…" else "?" for c in text)
    return shown.replace("$", r"\$")


def _draw_lengths(axes, lengths, unit):
    # To the 99th percentile: one text of a million would leave nothing to see.
    right = max(float(np.percentile(values, 99)) for values in lengths.values())
    for kind, values in lengths.items():
        axes.hist(
            values,
            bins=np.linspace(0, max(1.0, right), 51),
            weights=np.full(len(values), 100 / len(values)),
            histtype="stepfilled",
            alpha=0.45,
            label=f"{kind} (median {np.median(values):,.0f})",
        )
    if unit == "tokens" and right > CUTOFF:
        label = f"cutoff of a row ({CUTOFF:,})"
        axes.axvline(CUTOFF, color=RED, linestyle="--", linewidth=1, label=label)
    axes.set_xlabel(f"{unit}, to the 99th percentile (longer ones are not shown)", fontsize=8)
    axes.set_ylabel("% of texts", fontsize=8)


def _draw_verdicts(axes, teachers):
    for offset, (key, label, marker, color) in zip((-0.12, 0.12), MEASURES):
        shares = [line[key] for line in teachers.values()]
        percents, low, high = 100 * np.array(shares, dtype=float).T  # None becomes NaN: not drawn
        axes.errorbar(
            percents,
            np.arange(len(teachers)) + offset,
            xerr=[percents - low, high - percents],
            fmt=marker,
            color=color,
            markersize=4.5,
            elinewidth=1,
            label=label,
        )
    axes.set(xlim=(-2, 102), ylim=(len(teachers) - 0.4, -0.6))
    axes.set_yticks(range(len(teachers)), [_label(name) for name in teachers])
    axes.set_xlabel("% (bars: 95% interval)", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
