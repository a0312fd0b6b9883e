"""Make docs/workshop.ipynb from docs/workshop.py: run every cell, keep what it shows.

    python -m tests.workshop

It takes some three minutes on two cores, and needs what tests/requirements.txt installs.
"""

import os
from pathlib import Path

import jupytext
import nbclient
import nbformat

ROOT = Path(__file__).parent.parent
SOURCE, NOTEBOOK = ROOT / "docs/workshop.py", ROOT / "docs/workshop.ipynb"


def run_workshop(folder: Path) -> nbformat.NotebookNode:
    """Return the notebook with its outputs; its run is made in folder/runs/workshop.

    Raises nbclient's CellExecutionError for a cell that fails.
    """
    book = jupytext.read(SOURCE, fmt="py:percent")
    for number, cell in enumerate(book.cells):
        cell["id"] = f"cell-{number}"  # else random: the file would change with each making
    book.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    for path in (ROOT / "common", *ROOT.glob("0*.py")):
        (folder / path.name).symlink_to(path)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    client = nbclient.NotebookClient(
        book, timeout=1_200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment)
    for cell in book.cells:
        cell.metadata = {}  # times of execution
    return book


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(run_workshop(Path(folder)), NOTEBOOK)
    print(f"wrote {NOTEBOOK.relative_to(ROOT)}: {NOTEBOOK.stat().st_size / 1000:.0f} kB")
