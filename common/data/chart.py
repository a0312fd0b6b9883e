"""The picture of the training data: verdicts by source and against golds, lengths, tokens of each set."""

import math
import textwrap
from itertools import zip_longest

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from common.core.figures import save_figure

CUTOFF = 2_048  # tokens a row at most (paper's yaml): 04 cuts or drops longer ones
TEACHERS, SOURCES = (
    10,
    12,
)  # shown at most, those with the most critiques; a page stays a page whatever a column holds
GREY, BLUE, RED = "#9aa5b1", "#4c72b0", "#c44e52"


def named(groups, key):
    """The teachers or sources that are shown, sorted: those with the most critiques."""
    other, most = {"teacher": ("source", TEACHERS), "source": ("teacher", SOURCES)}[key]
    totals = [g for g in groups if g[other] is None and g[key] is not None]
    return sorted(g[key] for g in sorted(totals, key=lambda g: -g["critiques"])[:most])


def n_named(groups, key):
    return len({g[key] for g in groups} - {None})


def short(name, most):
    """One line of at most `most` characters, printable ones; the middle of longer texts is left out."""
    line = (
        " ".join("".join(c if c.isprintable() else " " for c in str(name)[:10_000]).split())
        or "(no name)"
    )
    head = (most - 1) // 2
    return line if len(line) <= most else line[:head] + "…" + line[head + 1 - most :]


def picture(path, groups, arms, lengths, unit):
    """Two panels a row, as high as what they hold. -> whether there is one; without a panel no older picture stands."""
    sources, colours = (
        named(groups, "source"),
        {teacher: f"C{number}" for number, teacher in enumerate(named(groups, "teacher"))},
    )
    judged = [
        g
        for g in groups
        if g["source"] is None and g["teacher"] in colours and g["agrees"][0] is not None
    ]
    panels = []  # (height in inches, how to draw it)
    if groups:
        height = 1.2 + max(0.35, 0.1 * len(colours)) * len(sources) + 0.08 * len(colours)
        panels.append((height, lambda axes: _verdicts(axes, groups, sources, colours)))
    if judged:
        panels.append((1.2 + 0.4 * len(judged), lambda axes: _against_gold(axes, judged, colours)))
    if lengths:
        panels.append((3.2, lambda axes: _histogram(axes, lengths, unit)))
    if arms:
        panels.append((1.2 + 0.3 * len(arms), lambda axes: _tokens(axes, arms, unit)))
    if not panels:
        path.unlink(missing_ok=True)
        return False
    columns = min(2, len(panels))
    heights = [
        max(3.0, *(height for height, _ in panels[i : i + 2])) for i in range(0, len(panels), 2)
    ]
    figure = Figure(figsize=(6.5 * columns, sum(heights)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)  # inches
    for axes, panel in zip_longest(
        figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights).flat, panels
    ):
        if panel is None:  # the place that is left over
            axes.set_axis_off()
            continue
        panel[1](axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    save_figure(figure, path)
    return True


def _label(name, lines=1):
    """A name in the picture, 30 letters a line: those that its font has, and no TeX."""
    text = "\n".join(textwrap.wrap(short(name, 30 * lines), 30))
    return "".join(c if ord(c) < 0x250 or c == "…" else "?" for c in text).replace("$", r"\$")


def _head(axes, title, entries):
    """The legend, of so many entries, in two columns above the panel, and the title above that."""
    axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, frameon=False)
    axes.set_title(title, fontsize=10, loc="left", pad=8 + 11 * math.ceil(entries / 2))


def _verdicts(axes, groups, sources, colours):
    """A dot a teacher and source with its interval; the teachers of a source stand below each other."""
    step = 0.7 / len(colours)
    for number, (teacher, colour) in enumerate(colours.items()):
        own = {
            g["source"]: g["positive"]
            for g in groups
            if g["teacher"] == teacher and g["positive"][0] is not None
        }
        middle = step * (number - (len(colours) - 1) / 2)
        _dots(
            axes,
            [
                (place + middle, own[source])
                for place, source in enumerate(sources)
                if source in own
            ],
            "o",
            colour,
            _label(teacher),
        )
    for place in range(len(sources) - 1):
        axes.axhline(place + 0.5, color="#e5e5e5", linewidth=0.8, zorder=0)
    _per_cent(axes, sources, "responses called right, % (bars: 95% interval)")
    number = n_named(groups, "source")
    _head(
        axes,
        "Verdicts by source"
        + (f", the largest {SOURCES} of {number:,}" if number > SOURCES else ""),
        len(colours),
    )


def _against_gold(axes, judged, colours):
    for marker, key, middle, label in (
        ("o", "agrees", -0.12, "verdicts that agree with the gold"),
        ("D", "accepts", 0.12, "of the wrong responses, those called right"),
    ):
        for place, g in enumerate(judged):
            _dots(
                axes,
                [(place + middle, g[key])] if g[key][0] is not None else [],
                marker,
                colours[g["teacher"]],
                None,
            )
        axes.plot([], [], marker, color="black", markersize=4.5, label=label)
    _per_cent(axes, [g["teacher"] for g in judged], "% (bars: 95% interval)")
    _head(axes, "Verdicts against golds", 2)


def _dots(axes, points, marker, colour, label):
    """points: (place from the top, (share, low, high))."""
    x = [100 * share for _, (share, _, _) in points]
    sides = [
        [100 * (share - low) for _, (share, low, _) in points],
        [100 * (high - share) for _, (share, _, high) in points],
    ]
    axes.errorbar(
        x,
        [place for place, _ in points],
        xerr=sides,
        fmt=marker,
        color=colour,
        markersize=4.5,
        elinewidth=1,
        label=label,
    )


def _per_cent(axes, names, text):
    axes.set(xlim=(-2, 102), xticks=range(0, 101, 20), ylim=(len(names) - 0.4, -0.6))
    axes.set_yticks(range(len(names)), [_label(name, lines=2) for name in names])
    axes.set_xlabel(text, fontsize=8)
    axes.grid(axis="x", alpha=0.3)


def _histogram(axes, lengths, unit):
    """To the 99th percentile of the kind with the longest tail: one text of a million would leave nothing to see."""
    top = max(1.0, *(float(np.percentile(values, 99)) for values in lengths.values()))
    for name, values in lengths.items():
        axes.hist(
            values,
            bins=np.linspace(0, top, 51),
            weights=np.full(len(values), 100 / len(values)),
            histtype="stepfilled",
            alpha=0.45,
            label=f"{_label(name)} (median {np.median(values):,.0f})",
        )
    cut = unit == "tokens" and CUTOFF < top
    if cut:
        axes.axvline(
            CUTOFF, color=RED, linestyle="--", linewidth=1, label=f"cutoff of a row ({CUTOFF:,})"
        )
    axes.set_xlabel(f"{unit}, to the 99th percentile (longer ones are not shown)", fontsize=8)
    axes.set_ylabel("% of texts", fontsize=8)
    _head(axes, "Lengths", len(lengths) + cut)


def _tokens(axes, arms, unit):
    places, learned, prompts = (
        range(len(arms)),
        [a["completion"] for a in arms],
        [a["prompt"] for a in arms],
    )
    axes.barh(places, prompts, color=GREY, height=0.7, label="prompt")
    axes.barh(places, learned, left=prompts, color=BLUE, height=0.7, label="completion (learned)")
    longest = max(1, *(a["prompt"] + a["completion"] for a in arms))
    for place, a in zip(places, arms):
        axes.text(
            a["prompt"] + a["completion"] + 0.01 * longest,
            place,
            f"{a['rows']:,} rows",
            va="center",
            fontsize=7,
        )
    axes.set(xlim=(0, 1.25 * longest), ylim=(len(arms) - 0.4, -0.6))
    axes.set_yticks(places, [_label(a["arm"]) for a in arms])
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_xlabel(unit, fontsize=8)
    _head(axes, "Training sets", 2)
