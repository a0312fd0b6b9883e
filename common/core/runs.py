"""What 05 still takes from here: it moves to manifests.py."""

from common.core.errors import MAKERS, InputError
from common.core.files import file_hash, write_json
from common.core.manifests import environment
from common.core.manifests import run_folder as run_folder


def stage_file(run, name):
    path = run / name
    if not path.exists():
        raise InputError(
            f"{path} does not exist; {MAKERS[name[:2]]} makes it.\n"
            f"Run: python {MAKERS[name[:2]]} --name {run.name}"
        )
    return path


def write_manifest(path, config, inputs=(), **headline):
    write_json(
        path,
        {
            "config": vars(config),
            "inputs": {str(p): file_hash(p) for p in inputs},
            **environment(),
            **headline,
        },
    )
