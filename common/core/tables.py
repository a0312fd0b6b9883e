"""Numbers and tables as Markdown text."""


def percent(x, sign=False):
    if x is None:
        return "-"
    return f"{100 * x:+.1f}" if sign else f"{100 * x:.1f}"


def interval(low, high, sign=False):
    return "-" if low is None else f"{percent(low, sign)} to {percent(high, sign)}"


def markdown(head, rows, left=2):
    """Cells as text; the first `left` columns are words, the others numbers. "" without rows."""
    if not rows:
        return ""
    lines = [head, [*["---"] * left, *["---:"] * (len(head) - left)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
