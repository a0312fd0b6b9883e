"""Critique -> verdict. A critique is asked to end in `Conclusion: right/wrong [END]` (paper, appendix A.1). Teachers write that line
in many forms, and about 7 % of GPT-4o's cannot be read.

Only what stands after the last "Conclusion" label counts, never an opinion in the body; what is contradictory, hedged, cut or
missing is "unparsed".
"""

# Differs from the paper: its script counts what cannot be read as wrong; here it is kept apart and never trained on.
import re
from collections.abc import Iterator
from itertools import islice

# What may stand around a label or a verdict word on its line: markdown, quotes, TeX and HTML wrappers, emoji.
MARKUP = r"(?:[^\S\n]|[^\w\s.,;:!?()\[\]/\\|=+<–—-]|_|</?[a-z][^<>\n]{0,60}>|\\[a-z]+\{|\\[(\[])"
# A label opens its line or follows the end of a sentence: "In conclusion, ..." and "the student's conclusion" are body text.
LABEL = re.compile(r"(?<![a-z])conclusions?(?![a-z])", re.I)
LABEL_LEFT = re.compile(
    rf"(?:\A[^\S\n]*(?:[-+|]|\d{{1,2}}[.)])?|(?<=[.!?:;)\]}}$])){MARKUP}*(?:(?:critique|final|overall|my){MARKUP}+)*\Z", re.I
)
LABEL_RIGHT = re.compile(
    rf"{MARKUP}*(?:\n|\Z|[:：=|–—-]+|is\b(?:\s+that\b)?|(?={MARKUP}*(?:right|correct|wrong|incorrect)\b))", re.I
)
END = re.compile(r"(\*{0,3})\\?[\[(<]\s*END\s*\\?[\])>]\1|\*\*\s*END\s*\*\*|\b(?-i:END)\s*\Z|\[(?:EN?)?\s*\Z", re.I)
HEAD = re.compile(
    r"""(?:(?:therefore|thus|so|hence|overall)\s?,?\s)?
    (?P<subject>(?:(?:the|this|that|his|her|their|student's|student|final|overall|given|provided|proposed|above)\s)*
        (?:(?:reasoning|approach|method|work)\sand\s(?:the\s)?(?:final\s)?)?(?:solution|answer|response|work|student|result|it)
        (?:\s(?:to\sthe\s(?:problem|question)|of\s\S{1,40}|and\s(?:the\s)?(?:final\s)?(?:answer|solution|reasoning)))?
        \s(?:is|are|was|were)\s)?
    (?:(?:completely|entirely|fully|indeed|therefore|mathematically|actually|clearly|absolutely|also|both)\s)*
    (?P<word>right|correct|wrong|incorrect)
    (?=\s?(?:$|[].,;:!(–—])|\s-\s|\s(?:because|since|due|as)\b|(?(subject)\sand\b|(?!)))""",
    re.X,
)
# Words after the verdict that speak against it. "wrong because the correct answer is 5" is no contradiction, "is correct" is one.
AGAINST = {
    "right": re.compile(r"\b(?:wrong|incorrect|but|however|except|although|though|partly|partially)\b"),
    "wrong": re.compile(
        r"(?<!\bthe )\b(?:right|correct)\b(?!\s[a-z])|\b(?:is|are|was|were)\s(?:\w+ly\s)?(?:right|correct)\b|\bpart(?:ly|ially)\b"
    ),
}
AGAINST_MARKS = {"right": "❌✗✘✖", "wrong": "✅✓✔"}


def _plain(text: str) -> str:
    """Lower-case words without markup; "not right" reads "wrong", "isn't wrong" reads "right"."""
    text = re.sub(r"</?[a-z][^<>\n]{0,60}>|&\w+;|\\(?:text)?color\{\w+\}|\\[a-z]+(?=\{)|\\[()\[\]]", "", text.lower().replace("’", "'"))
    text = re.sub(r"[^\w\s.,;:!?()\[\]/'+=\\–—-]|_", "", re.sub(r"\n\s*\n", " ; ", text.strip()))
    text = text.replace("n't", " not").replace("students'", "student's").replace("it's ", "it is ")
    text = re.sub(r"\s+", " ", text).strip(" '.,;:=–—-[]()")
    return re.sub(r"\bnot (?:(right|correct)|wrong|incorrect)\b", lambda match: "wrong" if match[1] else "right", text)


def _labels(critique: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each label from the last to the first, with the markup before and the separator behind it."""
    for match in reversed(list(LABEL.finditer(critique))):
        before = critique[max(match.start() - 100, 0) : match.start()]  # bounded, so a degenerate text stays linear
        before = before.rpartition("\n")[2] if "\n" in before or match.start() < 100 else "x" + before
        left, right = LABEL_LEFT.search(before), LABEL_RIGHT.match(critique, match.end(), match.end() + 100)
        if left and right:
            lead = left[0] if left.start() == 0 else re.sub(r"\A\S+(?=\s)", "", left[0])  # what touches the body closes the body's markup
            yield match.start() - len(lead), right.end()


def _read(said: str) -> str:
    """The verdict of what stands between a label and its end marker."""
    plain = _plain(said)
    head = HEAD.match(plain)
    if not head:
        return "unparsed"
    verdict = "right" if head["word"] in ("right", "correct") else "wrong"
    against = AGAINST[verdict].search(plain, head.end()) or any(mark in said for mark in AGAINST_MARKS[verdict])
    return "unparsed" if against else verdict


def _split(tail: str) -> tuple[str, bool, str]:
    """A label's tail -> (what is said, whether an end marker closes it, what follows the marker)."""
    end = END.search(tail)
    return (tail[: end.start()], True, tail[end.end() :]) if end else (tail, False, "")


def parse(critique: str) -> str:
    """-> "right", "wrong" or "unparsed": the verdict behind the last conclusion label. An earlier conclusion line that says the other
    word is a contradiction: "unparsed". Example: "... \\n\\n**Conclusion:** wrong [END]" -> "wrong"."""
    verdicts, until = [], len(critique)
    for start, end in islice(_labels(critique), 50):
        tail = critique[end:until] if not verdicts else critique[end : min(until, end + 300)].lstrip().partition("\n")[0]
        verdicts.append(_read(_split(tail)[0]))
        until = start
    return verdicts[0] if verdicts and set(verdicts) <= {verdicts[0], "unparsed"} else "unparsed"


def normalise(critique: str, verdict: str) -> str:
    """The critique with its closing conclusion, in whatever form, written as exactly "\\n\\nConclusion: right [END]" (or wrong); it is
    appended where there is none. What follows the end marker is dropped (generation stops there). A conclusion longer than a line
    of ten words holds reasons: it is kept, and the line is appended. Twice gives the same as once."""
    if verdict not in ("right", "wrong"):
        raise ValueError(f"verdict is {verdict!r}, expected 'right' or 'wrong'")
    until, first = len(critique), True
    for start, end in _labels(critique):
        said, closed, after = _split(critique[end:until])
        short = len(_plain(said).split()) <= 10 and (closed or not _plain(said) or _read(said) != "unparsed")
        if not short or _plain(after) and not first:
            until = end + len(said) if first and closed else until
            break
        until, first = start, False  # a conclusion line, or one of several that were repeated
    body = critique[:until].rstrip()
    return f"{body}\n\nConclusion: {verdict} [END]" if body else f"Conclusion: {verdict} [END]"
