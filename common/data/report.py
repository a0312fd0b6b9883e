"""The page to read before training: what the training sets were made of, and how far their critiques can be trusted.

Names of teachers, sources and arms are hostile text: in the page they are one escaped line, in the picture no TeX.
"""

import re
from collections import Counter

import numpy as np

from common.core.files import write_atomic
from common.core.tables import interval, markdown, percent
from common.core.verdicts import VERDICTS
from common.data import chart, critique_quality

CASES = ("right_right", "right_wrong", "wrong_right", "wrong_wrong")


def write(
    path_md,
    path_png,
    rows,
    right=None,
    gold_counts=None,
    counts=None,
    arms=(),
    lengths=None,
    unit="characters",
    notes=(),
):
    """Write 03_report.md and 03_report.png; sections and panels without content are left out, and without a panel the picture.

    rows: critiqued rows of 02. right, gold_counts: what critique_quality.grade_responses gave. counts: {reason: how many were left out for it}. arms: dicts
    of arm, rows, questions, right (rows judged right, None where no verdict applies) and, as sums in `unit`, prompt, completion (what is
    learned), longest (one row). lengths: {"response": [...], "critique": [...], ...} in `unit`, "tokens" or "characters". notes: lines.
    Equal input gives equal bytes.
    """
    groups, lengths = (
        critique_quality.confusion_table(rows, right or {}),
        {name: values for name, values in (lengths or {}).items() if len(values)},
    )
    pictured = chart.picture(path_png, groups, arms, lengths, unit)
    sections = {
        "What it was made from": _made_from(rows),
        "Left out": markdown(
            ["reason", "number"],
            [[cell(reason), f"{n:,}"] for reason, n in (counts or {}).items() if n],
            1,
        ),
        "Training sets": _arms_table(arms, unit),
        "Verdicts: % of responses called right (of how many)": _by_source(
            groups, "positive", ("called_right", "called_wrong")
        ),
        "Verdicts against golds": _golds(groups, gold_counts),
        "Wrong responses: % called right (of how many)": _by_source(
            groups, "accepts", ("wrong_right", "wrong_wrong"), 2
        ),
        "Verdicts that agree with the gold, % (of how many)": _by_source(
            groups, "agrees", CASES, 2
        ),
        "Teachers against each other": _pairs_table(
            critique_quality.teacher_agreement(rows), chart.named(groups, "teacher")
        ),
        f"Lengths in {unit}": _lengths_table(lengths, unit),
        "Notes": "\n".join(f"- {cell(note, 1_000)}" for note in notes),
    }
    body = [f"## {heading}\n\n{text}" for heading, text in sections.items() if text]
    picture = [f"![The same as a picture]({path_png.name})"] * pictured
    write_atomic(
        path_md,
        "\n\n".join([f"# Training data of {cell(path_md.parent.name)}", *picture, *body]) + "\n",
    )


def cell(name, most=100):
    """Any text as one line that Markdown shows as it is: nothing in it ends a cell, opens a tag, a link or a formula.

    >>> cell("a|b\\n<i>")
    'a\\\\|b \\\\<i\\\\>'
    """
    return re.sub(r"([\\`*\[\]<>|&$~#])", r"\\\1", chart.short(name, most))


def _made_from(rows):
    if not rows:
        return ""
    responses = {row["id"]: row for row in rows}.values()
    unread = sum(row.get("verdict") not in VERDICTS for row in rows)
    lines = [
        f"{len(rows):,} critiques of {len(responses):,} responses to {len({row['question_id'] for row in rows}):,} questions"
        + (f"; {unread:,} have no verdict and count as neither right nor wrong." if unread else ".")
    ]
    for what, counted in (
        ("Teachers, by critiques", Counter(str(row["teacher"]) for row in rows)),
        ("Sources, by responses", Counter(str(row["source"]) for row in responses)),
        ("Generators, by responses", Counter(str(row["generator"]) for row in responses)),
    ):
        names = sorted(counted, key=lambda name: (-counted[name], name))
        more = f", and {len(names) - chart.SOURCES:,} more" if len(names) > chart.SOURCES else ""
        lines.append(
            f"- {what}: "
            + ", ".join(f"{cell(name)} ({counted[name]:,})" for name in names[: chart.SOURCES])
            + more
        )
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def _arms_table(arms, unit):
    head = [
        "arm",
        "rows",
        "questions",
        "judged right %",
        unit,
        "of it learned",
        "learned %",
        "a row",
        "longest row",
    ]
    return markdown(
        head,
        [
            [
                cell(a["arm"]),
                f"{a['rows']:,}",
                f"{a['questions']:,}",
                _ratio(a["right"], a["rows"]),
                f"{(both := a['prompt'] + a['completion']):,}",
                f"{a['completion']:,}",
                _ratio(a["completion"], both),
                f"{both / a['rows']:,.0f}" if a["rows"] else "-",
                f"{a['longest']:,}",
            ]
            for a in arms
        ],
        1,
    )


def _ratio(k, n):
    return percent(k / n if n and k is not None else None)


def _by_source(groups, key, counted, least=1):
    """A row a source, a column a teacher: a share in per cent (and of how many, the sum of `counted`). "" for less than `least` sources,
    and where nothing was counted."""
    cells = {
        (g["teacher"], g["source"]): f"{percent(g[key][0])} ({sum(g[of] for of in counted):,})"
        for g in groups
        if g[key][0] is not None
    }
    teachers, sources = _shown(groups, "teacher"), _shown(groups, "source")
    if not cells or len(sources) < least:
        return ""
    return markdown(
        ["source", *teachers.values()],
        [[label, *(cells.get((t, s), "-") for t in teachers)] for s, label in sources.items()],
        1,
    )


def _shown(groups, what):
    """{name: how it is written} of the teachers or sources that are shown; None, all of them, last where they are several."""
    names = {name: cell(name) for name in chart.named(groups, what)}
    return names | ({None: f"all {chart.n_named(groups, what):,}"} if len(names) > 1 else {})


def _golds(groups, gold_counts):
    teachers = _shown(groups, "teacher")
    totals = [
        g
        for g in groups
        if g["source"] is None and g["agrees"][0] is not None and g["teacher"] in teachers
    ]
    graded = (
        ["Responses: " + ", ".join(f"{cell(what)} {n:,}" for what, n in gold_counts.items()) + "."]
        if gold_counts
        else []
    )
    if not totals:
        return graded[0] if gold_counts and gold_counts["conflicting golds (questions)"] else ""
    head = [
        "teacher",
        *(case.replace("_", " called ") for case in CASES),
        "agrees %",
        "95% interval",
        "of wrong ones, called right %",
        "95% interval",
    ]
    table = markdown(
        head,
        [
            [
                teachers[g["teacher"]],
                *(f"{g[case]:,}" for case in CASES),
                percent(g["agrees"][0]),
                interval(*g["agrees"][1:]),
                percent(g["accepts"][0]),
                interval(*g["accepts"][1:]),
            ]
            for g in totals
        ],
        1,
    )
    said = (
        "A response is right where its final answer equals the gold, by the strict grader; a critique may fault its reasoning with good "
        "reason. The intervals take critiques as independent: where a few questions have many, they are too narrow."
    )
    return "\n\n".join([said, table, *graded])


def _pairs_table(pairs, names):
    head = [
        "teacher A",
        "teacher B",
        "responses",
        "both: right",
        "only A",
        "only B",
        "both: wrong",
        "agree %",
        "95% interval",
        "kappa",
    ]
    shown = [p for p in pairs if {p["a"], p["b"]} <= set(names)]
    table = markdown(
        head,
        [
            [
                cell(p["a"]),
                cell(p["b"]),
                *(f"{p[key]:,}" for key in ("n", "both_right", "only_a", "only_b", "both_wrong")),
                percent(p["agrees"][0]),
                interval(*p["agrees"][1:]),
                "-" if p["kappa"] is None else f"{p['kappa']:.2f}",
            ]
            for p in shown
        ],
    )
    return (
        table
        if len(shown) == len(pairs)
        else f"{table}\n\nOf {len(pairs):,} pairs those of the {len(names)} teachers with the most critiques."
    )


def _lengths_table(lengths, unit):
    over = [f"over {chart.CUTOFF:,} %"] * (unit == "tokens")
    return markdown(
        ["of a", "number", "5th percentile", "median", "95th percentile", "longest", *over],
        [
            [
                cell(name),
                f"{len(values):,}",
                *(f"{x:,.0f}" for x in np.percentile(values, [5, 50, 95, 100])),
                *[percent(float(np.mean(np.array(values) > chart.CUTOFF)))] * len(over),
            ]
            for name, values in lengths.items()
        ],
        1,
    )
