"""A run: where it lives, what each stage left there and by what it was made (its manifest, 0N.run.json)."""

import json
import re
from itertools import islice
from pathlib import Path

from common.core.errors import MAKERS, InputError
from common.core.files import file_hash, read_jsonl_if_exists, write_json
from common.core.manifests import environment as environment


def run_folder(name):
    """runs/<name>, which must be a plain folder name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"--name {name!r} is not a plain name (letters, digits, '.', '_', '-'; no path).\n"
            "A run always lives in runs/NAME under this folder: give for example --name my-run"
        )
    return Path("runs") / name


def stage_file(run, name):
    """A file that an earlier script makes; where it is missing the error names the script."""
    path = run / name
    if not path.exists():
        raise InputError(
            f"{path} is not there; {MAKERS[name[:2]]} makes it.\n"
            f"Run: python {MAKERS[name[:2]]} --name {run.name} (with the --preset you use)"
        )
    return path


def read_manifest(run, stage):
    """The manifest of a stage ("01" to "05"), {} where it has not run."""
    manifest = run / f"{stage}.run.json"
    return json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}


def check_inputs(run, stage):
    """InputError where the files that a stage ("02", "03") was made from have changed since."""
    for path, known in read_manifest(run, stage).get("inputs", {}).items():
        if Path(path).is_file() and file_hash(path) != known:
            raise InputError(
                f"{path} has changed since {MAKERS[stage]} read it.\nRun: python {MAKERS[stage]} --name {run.name}"
            )


# --- manifests ------------------------------------------------------------------------------------------------------


def write_manifest(path, config, inputs=(), **headline):
    """0N.run.json beside a stage's output: what made it and what came out, enough to make it again."""
    write_json(
        path,
        {
            "config": vars(config),
            "inputs": {str(p): file_hash(p) for p in inputs},
            **environment(),
            **headline,
        },
    )


# --- responses (01) -------------------------------------------------------------------------------------------------


def standing(run, made):
    """The rows that earlier commands took, for 01 --add. made: what the manifest will say of this one: source (what tells it from
    others), called (its name in the rows), model. -> ([(the same of a command that stays, its rows)], lines to print).

    What this very source and model gave before is replaced. InputError where the file is not as 01 wrote it.
    """
    path, last = run / "01_responses.jsonl", read_manifest(run, "01")
    if path.exists() and (file_hash(path) != last.get("output_sha256") or "commands" not in last):
        raise InputError(
            f"{path} is not as 01_sample.py wrote it, so it is not known which command took which of its rows.\n"
            "Put it back as it was; or leave --add out, so that it is written anew, and give the other commands again with --add "
            "(what a model drew is in the journal, and costs nothing)."
        )
    rows = iter(read_jsonl_if_exists(path))
    stand = [(one, list(islice(rows, one["rows"]))) for one in last.get("commands", [])]
    kept = [
        (one, some)
        for one, some in stand
        if (one["source"], one["model"]) != (made["source"], made["model"])
    ]
    n_kept, n_all = (sum(len(some) for _, some in of) for of in (kept, stand))
    lines = [
        f"{n_kept} rows of other sources and models stand before them; {n_all - n_kept} that this source and model gave before are replaced"
    ]
    if n_all > n_kept and (again := [one["source"] for one, _ in kept if one["equal"]]):
        lines.append(
            f"note: rows of {', '.join(again)} were left out as equal to others; if to one of those replaced now, read it again"
        )
    if namesakes := {
        one["source"]: None
        for one, _ in kept
        if one["called"] == made["called"] and one["source"] != made["source"]
    }:
        lines.append(
            f"note: {', '.join(namesakes)} and {made['source']} are both called {made['called']} in the rows and pages"
        )
    return kept, lines


# --- training sets (03) ---------------------------------------------------------------------------------------------


def built(run):
    """-> (the arms that 03 built last, {arm: SHA-256 of its file as 03 wrote it, where it said so} of all that it knows of)."""
    stage_file(run, "03.run.json")
    check_inputs(run, "02")
    check_inputs(run, "03")
    last = read_manifest(run, "03")
    newest = dict.fromkeys(last["rows"]) | last.get("output_sha256", {})
    return list(last["rows"]), newest | {
        name: about["sha256"] for name, about in last.get("earlier", {}).items()
    }


def earlier(run, built):
    """{arm: what made it} of training sets in 03_data that earlier commands built, and that still stand as they were."""
    last = read_manifest(run, "03")
    made = last.get("earlier", {}) | {
        name: {key: last[key] for key in ("config", "inputs", "finished", "commit")}
        | {"sha256": sha}
        for name, sha in last.get("output_sha256", {}).items()
    }
    stands = {
        file.stem: file_hash(file)
        for file in (run / "03_data").glob("*.jsonl")
        if file.stem not in built
    }
    return {name: about for name, about in made.items() if stands.get(name) == about["sha256"]}


# --- trainings (04) -------------------------------------------------------------------------------------------------


def read_settings(path):
    """A JSON file with the settings of a training, or an adapter's; InputError where it is torn."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {str(error)[:100]}).\nWith what {path.parent} was made cannot be known: "
            f"train it again (rm -r {path.parent})"
        ) from error


def check_settings(path, settings):
    """InputError where something that was made with other settings stands."""
    if not path.exists() and (made := sorted(path.parent.glob("st*-*[0-9]"))):
        raise InputError(
            f"{path} is not there, but {made[-1].name} is: with which settings and data it was made cannot be known.\n"
            f"Remove it: rm -r {path.parent}"
        )
    if path.exists():
        stands = read_settings(path)
        changed = {k for k in settings if stands.get(k) != settings[k]}
        if changed:
            seen = ", ".join(f"{k} {stands.get(k)!r} -> {settings[k]!r}" for k in sorted(changed))
            raise InputError(
                f"{path.parent} was made with other settings or data: {seen}\n"
                f"Use another --name, or remove it: rm -r {path.parent}"
            )


def last_checkpoint(run, arm):
    """The newest checkpoint folder of an arm; says so where the training has not come to its end."""
    folder = stage_file(run, "04_train") / arm
    trained = sorted(file.parent.name for file in folder.parent.glob("*/settings.json"))
    if arm not in trained:
        raise InputError(
            f"{arm} is not an arm that was trained in {run}; these were: {' '.join(trained) or 'none'}\n"
            f"Run: python 04_train.py --name {run.name} --arms {arm}"
        )
    found = sorted(folder.glob("step-*[0-9]"))
    if not found:
        raise InputError(
            f"{folder} holds no checkpoint.\nRun: python 04_train.py --name {run.name} --arms {arm}"
        )
    steps = read_settings(folder / "settings.json").get("steps", 0)
    if found[-1].name != f"step-{steps:06d}":
        print(
            f"note: {arm} is not trained to its end: {found[-1].name} of {steps} steps (python 04_train.py --name {run.name} goes on)"
        )
    merged = found[-1] / "merged"  # of an adapter
    return merged if merged.exists() else found[-1]


def trained_from(run):
    """The folder of the base model that the run's arms were trained from."""
    if not (run / "04_train").exists() and (run / "01_base").exists():
        return run / "01_base"
    settings = [read_settings(file) for file in stage_file(run, "04_train").glob("*/settings.json")]
    bases = sorted(
        {str(s.get("base")) for s in settings if not s.get("after")}
    )  # a second stage starts from an arm of the run
    if len(bases) != 1:
        raise InputError(
            f"{run / '04_train'} was trained from {len(bases)} bases {bases}; say which to score: --model FOLDER ...\n"
            f"(python 04_train.py --name {run.name} trains the arms)"
        )
    return bases[0]
