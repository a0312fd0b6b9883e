"""The page of critiques: what teachers wrote about each response, beside what its gold says."""

from itertools import islice
from pathlib import Path

from common.core import page
from common.core.files import iter_jsonl

VIEW = Path(__file__).with_suffix(".js")
MAX_BYTES = 60_000_000  # of rows: some 7,000 real critiques, in a page of 10 to 20 MB
FIELDS = ("id", "teacher", "question", "response", "gold")


def write_page(run: Path, max_bytes: int = MAX_BYTES) -> None:
    """Write 02_critiques.html: the rows of all teachers, failed ones too.

    If their files are larger than max_bytes in all: every second row, every third, ...
    """
    paths = [*run.glob("02_critiques/*.jsonl"), *run.glob("02_failed/*.jsonl")]
    step = 1 + sum(path.stat().st_size for path in paths) // max_bytes
    rows = list(islice(_read_rows(sorted(paths)), 0, None, step))
    teachers = sorted({row["teacher"] for row in rows})
    contents = {"title": f"Critiques of {run.name}", "step": step, "teachers": teachers}
    page.write_page(run / "02_critiques.html", VIEW, [contents, *rows])


def _read_rows(paths):
    for path in paths:
        for row in iter_jsonl(path, FIELDS):
            yield row | {"case": compare_with_gold(row)}


def compare_with_gold(row: dict) -> str:
    """Return the group of a row of 02, by which the page filters.

    "failed": no critique; "no_gold": nothing to compare with, or the grader took too long; else
    the response by its gold and by its verdict, such as "wrong_right".
    """
    if "reason" in row:
        return "failed"
    if row.get("correct") is None:
        return "no_gold"
    truth = "right" if row["correct"] else "wrong"
    return f"{truth}_{row['verdict']}"
