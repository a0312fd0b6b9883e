"""Figures as PNG files."""

from pathlib import Path

from common.core.errors import cannot_write
from common.core.files import part_of


def new_figure(**settings):
    """Return an empty matplotlib figure. matplotlib is imported when something is drawn."""
    from matplotlib.figure import Figure

    return Figure(layout="constrained", **settings)


def save_figure(figure, path: Path):
    """Write a matplotlib figure atomically, the same bytes for the same figure."""
    part = part_of(path)
    try:
        figure.savefig(part, format="png", dpi=150, metadata={"Software": None})
        part.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
