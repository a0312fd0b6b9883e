"""A run: where it lives, what each stage left there and by what it was made (its manifest, 0N.run.json)."""

import json
from itertools import islice
from pathlib import Path

from common.core.errors import MAKERS, InputError
from common.core.files import file_hash, read_jsonl_if_exists, write_json
from common.core.manifests import environment
from common.core.manifests import run_folder as run_folder


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
