"""The picture of the training data: how long its texts are, and verdicts against golds."""

import numpy as np
from matplotlib.figure import Figure

from common.core.figures import save_figure

CUTOFF = 2_048  # tokens a row at most (paper's yaml): 04 cuts or drops longer ones
BLUE, RED = "#4c72b0", "#c44e52"
SHARES = {  # of a line of critique_quality.confusion_table
    "agrees": ("verdicts that agree with the gold", BLUE, 0),
    "accepts": ("wrong responses with the verdict right", RED, 0.2),
}


def shorten(text: str, limit: int) -> str:
    """Return one line of printable characters, without the middle of a text that is too long."""
    characters = [c if c.isprintable() else " " for c in text[:10_000]]
    line = " ".join("".join(characters).split()) or "(no name)"
    if len(line) <= limit:
        return line
    half = limit // 2
    return f"{line[: half - 1]}…{line[-half:]}"


def draw(path, lengths: dict, unit: str, teachers: dict) -> None:
    """Draw the lengths, and the verdicts of each teacher against the golds.

    lengths: {kind of text: lengths in `unit`}. teachers: {name: its line of the confusion table}.
    """
    height = 4 + len(teachers) / 4  # inches
    figure = Figure(figsize=(13, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_lengths(left, lengths, unit)
    for key in SHARES:
        _draw_shares(right, teachers, key)
    right.set_xlim(-2, 102)
    right.set_ylim(-0.8, len(teachers) - 0.2)
    right.set_xlabel("% (bars: 95% interval)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    save_figure(figure, path)


def _draw_lengths(axes, lengths, unit):
    # To the 99th percentile: one text of a million would leave nothing to see.
    right = np.percentile(list(lengths.values()), 99, axis=1).max()
    bins = np.linspace(0, right, 51)
    for kind, values in lengths.items():
        axes.hist(
            values,
            bins=bins,
            weights=[100 / len(values)] * len(values),
            histtype="stepfilled",
            alpha=0.45,
            label=kind,
        )
    if unit == "tokens" and right > CUTOFF:
        axes.axvline(CUTOFF, color=RED, linestyle="--", label="cutoff of a row")
    axes.set_xlabel(f"{unit}, to the 99th percentile (longer ones are not shown)")
    axes.set_ylabel("% of texts")


def _draw_shares(axes, teachers, key):
    """Draw one share of each teacher with its interval."""
    label, color, offset = SHARES[key]
    labels, shares = [], []
    for name, line in teachers.items():
        plain = name.encode("ascii", "replace").decode()  # letters that every font has
        labels.append(shorten(plain, 40))
        shares.append(line[key])
    shares = np.array(shares, dtype=float)  # None becomes NaN, which is not drawn
    percents, low, high = 100 * shares.T
    places = np.arange(len(labels))
    axes.errorbar(
        percents,
        places + offset,
        xerr=[percents - low, high - percents],
        fmt="o",
        color=color,
        label=label,
    )
    axes.set_yticks(places, labels, parse_math=False)
