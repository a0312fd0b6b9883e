"""Critique -> verdict: "right", "wrong" or "unparsed".

A critique is asked to end in `Conclusion: right/wrong [END]` (paper, appendix A.1). Teachers write
that line in many forms, and about 7 % of GPT-4o's cannot be read. The text after the last
"Conclusion" label counts, never an opinion in the body. What is hedged, truncated or missing is
"unparsed", and so is a critique whose conclusions contradict each other. The patterns, with an
example each, are in verdict_patterns.py.
"""

# Differs from the paper: its script counts a conclusion that cannot be read as wrong. Here it is
# kept apart and never trained on.
import json
import re
from itertools import islice

from common.core import verdict_patterns as patterns
from common.core.verdict_patterns import END, KIND

VERDICTS = ("right", "wrong")  # "unparsed" is none
RIGHT_WORDS = ("right", "correct")
WORD = re.compile(r"[぀-鿿가-힣]|\w[^\s぀-鿿가-힣]*")
MAX_LABELS = 50  # read of one critique; a degenerate one repeats itself thousands of times


def parse_verdict(critique: str) -> str:
    """Return "right", "wrong" or "unparsed": the verdict after the last conclusion label.

    An earlier conclusion line that says the other word is a contradiction: "unparsed".

    >>> parse_verdict("12 + 30 = 42, not 43.\\n\\n**Conclusion:** wrong [END]")
    'wrong'
    """
    critique = _as_prose(critique)
    verdicts = []
    until = len(critique)
    for start, end in islice(_labels(critique), MAX_LABELS):
        if verdicts:  # of an earlier conclusion only its line counts
            tail = critique[end : min(until, end + 300)].lstrip().partition("\n")[0]
        else:
            tail = critique[end:until]
        conclusion, _, after = _split_at_end_marker(tail)
        verdicts.append(_read_conclusion(conclusion))
        verdicts += map(_read_conclusion, patterns.LATER.findall(after))
        until = start
    if not verdicts:
        return "unparsed"
    verdicts += map(_read_conclusion, patterns.STATED.findall(critique))
    contradicted = set(verdicts) - {verdicts[0], "unparsed"}
    return "unparsed" if contradicted else verdicts[0]


def with_conclusion(critique: str, verdict: str) -> str:
    """Return the critique with its closing conclusion as exactly "\\n\\nConclusion: right [END]".

    (Or wrong, by `verdict`.) The line is appended if there is none. What follows the end marker is
    dropped: generation stops there. A conclusion longer than ten words holds reasons: it is kept,
    and the line is appended. Applied twice it gives the same as once.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"verdict is {verdict!r}, expected 'right' or 'wrong'")
    body = _without_conclusion(_as_prose(critique))
    line = f"Conclusion: {verdict} [END]"
    return f"{body}\n\n{line}" if body else line


def is_bare(critique: str, min_words: int) -> bool:
    """Tell if a critique has fewer words than `min_words` without its closing conclusion.

    Each Chinese, Japanese or Korean character is one.

    >>> text = "12 + 30 = 42, not 43.\\n\\nConclusion: wrong [END]"
    >>> is_bare(text, 5), is_bare(text, 6)
    (False, True)
    """
    start = critique[:300].lower()
    has_label = "conclusion" in start or "{" in start
    # Of most critiques the start is enough: a label has at most 100 characters before it.
    if not has_label and _has_words(start[:200], min_words):
        return False
    return not _has_words(_without_conclusion(_as_prose(critique)), min_words)


def _has_words(text, n_words):
    return len(list(islice(WORD.finditer(text), n_words))) == n_words


def _without_conclusion(critique):
    body_end = len(critique)
    last = True
    for start, end in _labels(critique):
        conclusion, closed, after = _split_at_end_marker(critique[end:body_end])
        text_follows = not last and bool(_plain(after))
        if text_follows or not _is_conclusion_line(conclusion, closed):
            if last and closed:
                body_end = end + len(conclusion)
            break
        body_end = start  # the line goes, and so do earlier ones if it was repeated
        last = False
    return critique[:body_end].rstrip()


def _is_conclusion_line(conclusion, closed):
    """Tell if this is nothing but a verdict: at most ten words, with an end marker or readable."""
    words = _plain(conclusion).split()
    if len(words) > 10:
        return False
    return closed or not words or _read_conclusion(conclusion) != "unparsed"


def _as_prose(critique):
    """Return a critique that is one JSON object as its values, then its conclusion.

    Any other critique stays as it is.
    """
    text = critique.strip("` \r\n\t").removeprefix("json").lstrip()
    if not text.startswith("{"):
        return critique
    text = END.sub("", text).rstrip("` \r\n\t")
    # A lone backslash is TeX: "\frac" holds no form feed.
    text = re.sub(r'(?<!\\)\\(?!["\\/nu])', r"\\\\", text)
    try:
        values = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return critique
    labels = re.findall(rf'"((?:{KIND}[ _])?conclusion)"\s*:', text, re.I)
    if len(labels) != 1 or labels[0] not in values:
        # A nested one is a quotation: in one line it is no label.
        return " ".join(critique.split())
    conclusion = f"Conclusion: {values.pop(labels[0])}"
    paragraphs = []
    for name, value in values.items():
        paragraphs.append(value if isinstance(value, str) else f"{name}: {value}")
    return "\n\n".join([*paragraphs, conclusion])


def _labels(critique):
    """Yield (start, end) of each conclusion label, from the last to the first.

    It includes the markup before the label and the separator after it.
    """
    for match in reversed(list(patterns.LABEL.finditer(critique))):
        # At most 100 characters are looked at, so that a degenerate text takes linear time.
        before = critique[max(match.start() - 100, 0) : match.start()]
        if "\n" in before:
            before = before.rpartition("\n")[2]
        elif match.start() >= 100:
            before = "x" + before  # not the start of a line
        left = patterns.LABEL_LEFT.search(before)
        right = patterns.LABEL_RIGHT.match(critique, match.end(), match.end() + 100)
        if left and right:
            markup = left[0]
            if left.start() > 0:  # what touches the body is the body's
                markup = re.sub(r"\A\S+(?=\s)", "", markup)
            yield match.start() - len(markup), right.end()


def _split_at_end_marker(tail):
    """Split what follows a label: (conclusion, does an end marker close it, text after it)."""
    end = END.search(tail)
    if end is None:
        return tail, False, ""
    return tail[: end.start()], True, tail[end.end() :]


def _plain(text):
    """Return lower-case words without markup: **Isn't wrong!** reads "right"."""
    text = patterns.VALUE.sub(r"\1", text.replace("’", "'")).lower()
    text = re.sub(patterns.WRAPPER, "", text).strip()
    for pattern, replacement in patterns.REWRITES:
        text = re.sub(pattern, replacement, text)
    return text.strip(" '.,;:=–—-[]()")


def _read_conclusion(conclusion):
    """Return the verdict of the text between a label and its end marker."""
    if conclusion.strip() in VERDICTS:  # most of them, and 50,000 are read at every restart
        return conclusion.strip()
    plain = _plain(conclusion)
    opening, plain = patterns.OPENING.findall(plain)[0]
    matches = (sentence.match(plain) for sentence in patterns.SENTENCES)
    sentence = next(filter(None, matches), None)
    if sentence is None:
        return "unparsed"
    verdict = "right" if sentence["word"] in RIGHT_WORDS else "wrong"
    answer, marks, words = patterns.CONTRADICTIONS[verdict]
    contradicted = (
        opening == answer
        or re.search(words, plain[sentence.end("word") :])
        or set(marks) & set(conclusion)
    )
    return "unparsed" if contradicted else verdict
