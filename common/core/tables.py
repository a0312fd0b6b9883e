"""Numbers and tables as Markdown text."""


def cell(value) -> str:
    """Return a value as text, None as "-"."""
    return "-" if value is None else str(value)


def count(n: int, noun: str) -> str:
    """Return a number of things in words: "0 rows", "1 row", "2,000 rows"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def percent(share, sign: bool = False) -> str:
    """Return a share in percent: 0.5 as "50.0", with a sign as "+50.0", None as "-"."""
    if share is None:
        return "-"
    return f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"


def interval(low, high, sign: bool = False) -> str:
    """Return an interval of shares in percent: "40.0 to 60.0", or "-" if there is none."""
    if low is None:
        return "-"
    return f"{percent(low, sign)} to {percent(high, sign)}"


def markdown(head: list, rows: list, left: int = 2) -> str:
    """Return a table: the first `left` columns are text, the others numbers. "" without rows."""
    if not rows:
        return ""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    lines = []
    for cells in [head, rule, *rows]:
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
