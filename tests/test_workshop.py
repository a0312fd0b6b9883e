"""The workshop's notebook runs from its first cell to its last, and the committed one is that."""

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")
pytest.importorskip("ipykernel")
workshop = pytest.importorskip("tests.workshop")
pytestmark = [pytest.mark.extra, pytest.mark.slow]


def sources(book):
    return [(cell.cell_type, cell.source) for cell in book.cells]


def test_the_notebook_runs_and_is_the_committed_one(tmp_path):
    """Scores may differ from CPU to CPU; the code may not, and no cell may fail."""
    made = workshop.run_workshop(tmp_path)
    committed = nbformat.read(workshop.NOTEBOOK, as_version=4)
    assert sources(made) == sources(committed)
    cells = [cell for cell in made.cells if cell.cell_type == "code"]
    assert len(cells) >= 20 and all(len(cell.source.splitlines()) <= 25 for cell in cells)
    pictures = [o for c in cells for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 4
    assert workshop.NOTEBOOK.stat().st_size < 1_000_000
