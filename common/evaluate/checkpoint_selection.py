"""Which checkpoint of a training is reported: the best on a validation set, and by how much it is told apart from the rest."""

from itertools import combinations
from pathlib import Path

from common.core import files, prompts, runs, stats
from common.core.errors import InputError
from common.core.files import content_id
from common.data import decontamination, test_sets
from common.evaluate import comparisons, scores

HELDOUT = 500  # questions at most


def validation_set(choice, names, run, models=(), folder=None, revisions=None, limit=None, seed=0):
    """-> (name, items, a line that says what this means). choice: "validation" (or "auto") is disjoint from what is reported; "paper" is MATH-500, as
    in the paper; "heldout" are questions of the run with golds that no arm was trained on. names: the benchmarks that are reported."""
    choice = choice.replace("auto", "validation")
    tiny = set(names) <= set(test_sets.TINY)
    if choice == "heldout":
        for checkpoint in (c for one in models for c in one.checkpoints):
            if (
                checkpoint.url
                or (run / "04_train").resolve() not in Path(checkpoint.where).resolve().parents
            ):
                raise InputError(
                    f"{checkpoint.where} is no checkpoint of {run}: what it was trained on is not known, so nothing is known to be held "
                    "out.\nTake --selection validation."
                )
        return (
            choice,
            heldout(run)[:limit],
            (
                "Checkpoints were chosen on questions of the run that no arm was trained on. sft-verified takes the questions that were answered "
                "right first, so these are harder than the rest: good to choose by, no score to report."
            ),
        )
    name = {"validation": ("math500_validation", "tiny_validation"), "paper": ("math500", "tiny")}[
        choice
    ][tiny]
    if choice == "validation" and {"math", "math500_validation", "tiny_validation"} & set(names):
        raise InputError(
            f"checkpoints are chosen on {name}, which lies inside what is reported ({' '.join(names)}).\n"
            "Report --benchmarks math500 instead of math; or choose as the paper did, on the test: --selection paper"
        )
    # Differs from the paper: by default checkpoints are chosen on questions that are not reported.
    line = f"Checkpoints were chosen on {name}, which is no part of what is reported."
    if choice == "paper":
        line = (
            f"Checkpoints were chosen on {name}, as in the paper: "
            + ("it is the test set itself" if tiny else "it lies inside the MATH test")
            + ", so that the scores there are those of the luckiest checkpoint."
        )
    revision = (revisions or {}).get(name) or (revisions or {}).get(
        "math" if name == "math500_validation" else name
    )
    return name, test_sets.load_items(name, folder, revision, limit, seed), line


def trained_on(run):
    """{arm: the questions that it was trained on, `decontamination.normalize_question`}, read from its training sets; None where those have changed since.

    An arm of a second stage was trained on what its first stage was, too."""
    built = {files.file_hash(file): file for file in (run / "03_data").glob("*.jsonl")}
    found, after = {}, {}
    for path in sorted((run / "04_train").glob("*/settings.json")):
        settings, arm = runs.read_settings(path), path.parent.name
        after[arm] = settings.get("after")
        shas = settings.get("data_sha256", ["?"])
        found[arm] = (
            {
                decontamination.normalize_question(prompts.extract_question(row["prompt"]))
                for sha in shas
                for row in files.iter_jsonl(built[sha], ("prompt",))
            }
            if set(shas) <= set(built)
            else None
        )
    for arm in [arm for arm in found if after[arm]]:
        first = found.get(after[arm])
        found[arm] = None if first is None or found[arm] is None else found[arm] | first
    return found


def unequal(run, arms):
    """A line where arms that are compared were trained for different numbers of steps, [] otherwise."""
    steps = {
        path.parent.name: runs.read_settings(path).get("steps")
        for path in sorted((run / "04_train").glob("*/settings.json"))
    }
    steps = {arm: n for arm, n in steps.items() if arm in arms}
    if len(set(steps.values())) < 2:
        return []
    return [
        "The arms were trained for different numbers of steps, so they differ in more than in their kind: "
        f"{', '.join(f'{arm} {n}' for arm, n in steps.items())}."
    ]


def heldout(run):
    """Questions of 01 with a gold on which no arm was trained, in the order of 01."""
    rows = files.read_jsonl(
        runs.stage_file(run, "01_responses.jsonl"), ("id", "question_id", "question", "gold")
    )
    runs.stage_file(run, "04_train")
    trained = trained_on(run)
    if changed := [arm for arm, questions in trained.items() if questions is None]:
        folder = run / "04_train" / changed[0]
        raise InputError(
            f"{folder} was trained on other data than stands in {run / '03_data'} now, so that what is held out is not known.\n"
            f"Train it again (rm -r {folder}; python 04_train.py --name {run.name}), or take --selection validation."
        )
    known, left, golds = set().union(*trained.values()), {}, {}
    for row in rows:
        if (
            str(row["gold"] or "").strip()
            and decontamination.normalize_question(row["question"]) not in known
        ):
            left.setdefault(row["question_id"], row)
            golds.setdefault(row["question_id"], set()).add(str(row["gold"]))
    left = [
        row for name, row in left.items() if len(golds[name]) == 1
    ]  # of two golds nobody knows which is meant
    if not left:
        raise InputError(
            f"every question of {run} that has a gold was trained on, or none has one: nothing is held out.\n"
            "Build with fewer rows (03_build.py --rows N) and train again; or take --selection validation"
        )
    return [
        {"id": content_id(row["question"]), "question": row["question"], "gold": str(row["gold"])}
        for row in left[:HELDOUT]
    ]


def choose(candidate, results, name, seed=0):
    """The checkpoint with the highest score, of equals the earliest; its lead over each of the others, paired.

    The best is picked by looking at all of them, so p is corrected (Holm) for all pairs of checkpoints, not only for those with the best.
    -> (its folder or served name, its URL, [{"step", "accuracy", "low", "high", "difference", "p", "holm", ...}], a line that says it)
    """
    table, values = [], []
    for checkpoint in candidate.checkpoints:
        result = results[name, checkpoint.label]
        right = list(result.values().values())
        if len(right) < len(scores.by_item(result.rows)):
            raise InputError(
                f"{checkpoint.label}: {len(scores.by_item(result.rows)) - len(right)} items of {name} have no output, so that no "
                "checkpoint can be chosen.\nRun the same command again: it asks only for those."
            )
        score = scores.score(result, seed)
        table.append(
            {
                "arm": candidate.label,
                "benchmark": name,
                "step": checkpoint.step,
                "model": checkpoint.label,
                "chosen": False,
            }
            | {key: score[key] for key in ("n", "accuracy", "low", "high", "failed")}
        )
        values.append(right)
    best = max(range(len(table)), key=lambda i: (table[i]["accuracy"], -i))
    table[best]["chosen"] = True
    pairs = list(combinations(range(len(table)), 2))
    ps = {pair: comparisons.paired_p(values[pair[0]], values[pair[1]], seed) for pair in pairs}
    corrected = dict(zip(pairs, stats.holm([ps[pair] for pair in pairs])))
    others = [i for i in range(len(table)) if i != best]
    for i in others:
        table[i] |= dict(
            zip(
                ("difference", "difference_low", "difference_high"),
                stats.paired_difference(values[best], values[i], seed=seed),
            )
        )
        table[i] |= {
            "p": ps[min(i, best), max(i, best)],
            "holm": corrected[min(i, best), max(i, best)],
        }
    apart = sum(table[i]["holm"] < 0.05 for i in others)
    of = f", chosen of {len(table)} checkpoints" if len(table) > 1 else ""
    line = f"{candidate.label}: step {table[best]['step']}{of}, {100 * table[best]['accuracy']:.1f}% of {table[best]['n']}"
    if others:
        near = table[min(others, key=lambda i: table[i]["difference"])]
        lead, low, high = (
            100 * near[key] for key in ("difference", "difference_low", "difference_high")
        )
        line += (
            f" (the best of {len(table)}, so it flatters); told apart from {apart} of the {len(others)} others (Holm over all pairs); "
            f"the nearest is step {near['step']}, {lead:+.1f} [{low:+.1f}, {high:+.1f}] points"
        )
    if equal := [
        str(row["step"])
        for row in table
        if row["accuracy"] == table[best]["accuracy"] and not row["chosen"]
    ]:
        line += f"; equal to it, and later: step {' '.join(equal)}"
    if failed := sum(row["failed"] for row in table):
        line += f"; {failed} items got no output and count as wrong"
    return candidate.checkpoints[best].where, candidate.checkpoints[best].url, table, line
