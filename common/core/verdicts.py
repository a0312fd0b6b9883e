"""Critique -> verdict. A critique is asked to end in `Conclusion: right/wrong [END]` (paper, appendix A.1). Teachers write that
line in many forms, and about 7 % of GPT-4o's cannot be read.

Only what stands after the last "Conclusion" label counts, never an opinion in the body; what is contradictory, hedged, cut or
missing is "unparsed".
"""

# Differs from the paper: its script counts what cannot be read as wrong; here it is kept apart and never trained on.
import json
import re
from collections.abc import Iterator
from itertools import islice

VERDICTS = ("right", "wrong")  # all else, "unparsed" or none at all, is none
WORD = r"(?:right|correct|wrong|incorrect)"  # what a verdict is called
# What may stand around a label or a verdict word on its line: markdown, quotes, TeX and HTML wrappers, emoji.
MARKUP = r"(?:[^\S\n]|[^\w\s.,;:!?()\[\]/\\|=+<–—-]|_|</?[a-z][^<>\n]{0,60}>|\\[a-z]+\*?\{|\\[(\[])"
# A label opens its line, follows the end of a sentence, or is an XML tag. "In conclusion, ...", "the student's conclusion" and
# a quotation ('She ends: "Conclusion: right"') are body text.
KIND = r"(?:critique|final|overall|my)"
LABEL = re.compile(r"conclusions?(?![a-z])", re.I)
LABEL_LEFT = re.compile(
    rf"(?:\A[^\S\n]*(?:[-+|]|\d{{1,2}}[.)])?{MARKUP}*|(?<=[.!?;)\]}}$]){MARKUP}*|(?<=:)(?:(?![\"'“„‘«]){MARKUP})*)"
    rf"(?:{KIND}{MARKUP}+)*\Z|(?:\A|(?<=[.!?>]))[^\S\n]*<(?:{KIND}_)?\Z", re.I
)  # fmt: skip
LABEL_RIGHT = re.compile(
    rf"{MARKUP}*(?:\n|\Z|(?<=>)|[:：=|–—-]+|is\b(?:\s+that\b)?|(?={MARKUP}*{WORD}\b))", re.I
)
STATED = re.compile(
    rf'"(?:{KIND}[ _])?conclusion"\s*:\s*"([^"\n]{{1,200}})"', re.I
)  # JSON among text: may only contradict
LATER = re.compile(
    rf"conclusions?\W{{0,6}}[:：=]\W{{0,6}}({WORD})\b", re.I
)  # "Corrected conclusion: wrong": the same
END = re.compile(
    r"(\*{0,3})\\?[\[(<【［（]\s*/?END\s*\\?[\])>】］）]\1|\*\*\s*END\s*\*\*|\b(?-i:END)\s*\Z|\[/?(?:EN?)?\s*\Z",
    re.I,
)
# Passed over in a subject: 'The student's answer, "not enough information", is correct'. No hedge "(mostly)", no part "(a)".
VALUE = re.compile(
    r"(\b(?:student's|final)(?: (?!of\b)\w+){1,2}|\b\w+(?= of )),? (?:of )?\*{0,2}(?:[\"“”„`$][^\"“”„`$\n]{1,80}[\"“”„`$]"
    r"|\\\([^\n]{1,80}?\\\)|\((?:[^a-z()\n]|[a-z](?![a-z])){3,80}\)|\(?(?-i:[A-J])\)?|(?<=, )\d[^\s,]{0,20}(?=,))\*{0,2},?"
    r"(?= (?:is|was|isn't|wasn't|cannot|can't)\b)", re.I
)  # fmt: skip
# The sentences that state a verdict, tried in turn on plain text. An end or a reason follows the word, and no hedge.
HEDGE = r"n?or|if|unless|when|only|provided|assuming|mostly|largely|probably|perhaps|maybe|i think|in (?:part|some)|by luck"
CLOSED = rf"(?![ ,(–—-]*(?:{HEDGE}|as far|for the most)\b)(?: ?(?:$|[].,;:!(–—])| - | (?:because|since|due|as)\b)"
SURELY = r"(?:(?:completely|entirely|fully|indeed|therefore|mathematically|actually|clearly|absolutely|also|both) )*"
SUBJECT = (
    r"(?:(?:the|this|that|his|her|their|student's|student|final|overall|given|provided|proposed|above) )*"
    r"(?:(?:reasoning|explanation|approach|method|work) and (?:the )?(?:final )?)?"
    r"(?:solution|answer|response|work|student|result|it)(?: to the (?:problem|question)"
    r"| (?:given|provided|presented|proposed|obtained|found|reached) by (?:the )?student"
    r"| and (?:the )?(?:final )?(?:answer|solution|reasoning|explanation)"
    r"| of (?:\S{1,40}|\S{1,20} = \S{1,20}|\S{0,20}\d\S{0,20} [^\W\d_]{1,3}(?:/\S{1,8})?))?"  # "of 48", "of x = 3", "of 5 m/s"
)
SENTENCES = [
    rf"{SURELY}(?P<word>{WORD}){CLOSED}",
    rf"{SUBJECT} (?:is|are|was|were) {SURELY}(?P<word>{WORD})(?:{CLOSED}| and\b(?! {WORD}))",
    rf"the student (?:is|was) (?P<word>{WORD}) (?:that (?:(?! and )[^.,;:!?])+|to (?:choose|pick|select) (?:option )?\(?[a-j])$",
    rf"the student (?:got|gets|has) (?:it|this|the (?:final )?(?:answer|question|problem)) (?P<word>{WORD}){CLOSED}",
    r"the student (?:correctly [^.,;:!?]{1,80} and )?(?:arrived at|reached|obtained|got|found|has) the "
    rf"(?P<word>{WORD}) (?:final )?(?:answer|solution|result){CLOSED}",
    # A part that is right says nothing of the rest; one that is wrong decides, unless the answer is spoken of apart.
    rf"the student's (?:explanation|claim|reasoning) (?:is|was) {SURELY}(?P<word>wrong|incorrect){CLOSED}"
    r"(?!.*\b(?:but|however|although|though|yet|while|even|despite|(?<!right )(?<!correct )(?:answer|result))\b)",
]
# Words after the verdict that speak against it. "wrong because the correct answer is 5" is no contradiction, "is correct" is one.
AGAINST = {
    "right": r"\b(?:wrong|incorrect|but|however|except|although|though|yet|part(?:ial)?ly|incomplete|flawed)\b",
    "wrong": r"(?<!the )\b(?:right|correct)\b(?! [a-z])|\b(?:is|are|was|were) (?:\w+ly )?(?:right|correct)\b|\bpart(?:ial)?ly\b",
}
AGAINST_MARKS = {"right": "❌✗✘✖", "wrong": "✅✓✔"}


def _prose(critique: str) -> str:
    """A critique that is one JSON object, as prose: its values, then its conclusion. Any other critique stays as it is."""
    text = critique.strip("` \r\n\t").removeprefix("json").lstrip()
    if not text.startswith("{"):
        return critique
    text = END.sub("", text).rstrip("` \r\n\t")
    text = re.sub(
        r'(?<!\\)\\(?!["\\/nu])', r"\\\\", text
    )  # a lone backslash is TeX: "\frac" holds no form feed
    try:
        values = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return critique
    labels = re.findall(rf'"((?:{KIND}[ _])?conclusion)"\s*:', text, re.I)
    if (
        len(labels) != 1 or labels[0] not in values
    ):  # a nested one is a quotation: in one line it is no label
        return " ".join(critique.split())
    said = f"Conclusion: {values.pop(labels[0])}"
    return "\n\n".join(
        [v if isinstance(v, str) else f"{k}: {v}" for k, v in values.items()] + [said]
    )


def _plain(text: str) -> str:
    """Lower-case words without markup; "not right" reads "wrong", "isn't wrong" reads "right"."""
    text = VALUE.sub(r"\1", text.replace("’", "'")).lower()
    text = re.sub(
        r"</?[a-z][^<>\n]{0,60}>|&\w+;|\\(?:text)?color\{\w+\}|\\[a-z]+(?=\{)|\\[()\[\]]", "", text
    )
    text = re.sub(r"[^\w\s.,;:!?()\[\]/'+=\\–—-]|_", "", re.sub(r"\n\s*\n", " ; ", text.strip()))
    text = text.replace("n't", " not").replace("students'", "student's").replace("it's ", "it is ")
    text = re.sub(r"\s+", " ", text).strip(" '.,;:=–—-[]()")
    text = re.sub(
        r"\b(?:(right|correct) ?/ ?(?:right|correct)|(wrong|incorrect) ?/ ?(?:wrong|incorrect))\b",
        r"\1\2",
        text,
    )
    text = re.sub(
        rf"\bnot (?:only ({WORD}),? but also|just (wrong|incorrect),? but)\b", r"\1\2 and", text
    )
    text = re.sub(
        r"\b(?:can ?|ca |could )not be (?:considered )?(?:right|correct)\b", "is wrong", text
    )
    return re.sub(
        r"\bnot (?:(right|correct)|wrong|incorrect)\b",
        lambda match: "wrong" if match[1] else "right",
        text,
    )


def _labels(critique: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each label from the last to the first, with the markup before and the separator behind it."""
    for match in reversed(list(LABEL.finditer(critique))):
        before = critique[
            max(match.start() - 100, 0) : match.start()
        ]  # bounded, so a degenerate text stays linear
        before = (
            before.rpartition("\n")[2] if "\n" in before or match.start() < 100 else "x" + before
        )
        left, right = (
            LABEL_LEFT.search(before),
            LABEL_RIGHT.match(critique, match.end(), match.end() + 100),
        )
        if left and right:
            lead = (
                left[0] if left.start() == 0 else re.sub(r"\A\S+(?=\s)", "", left[0])
            )  # what touches the body is its markup
            yield match.start() - len(lead), right.end()


def _read(said: str) -> str:
    """The verdict of what stands between a label and its end marker."""
    if said.strip() in VERDICTS:
        return said.strip()  # as asked for: most of them, and 50,000 are read at every restart
    opening = (
        r"(?:(yes|no) ?[,.:;–—-] )?(?:(?:therefore|thus|so|hence|overall|unfortunately) ?,? )?(.*)"
    )
    lead, plain = re.match(opening, _plain(said)).groups()
    head = next(filter(None, (re.match(sentence, plain) for sentence in SENTENCES)), None)
    if not head:
        return "unparsed"
    verdict = "right" if head["word"] in ("right", "correct") else "wrong"
    against = re.search(AGAINST[verdict], plain[head.end("word") :]) or any(
        mark in said for mark in AGAINST_MARKS[verdict]
    )
    return "unparsed" if against or lead == {"right": "no", "wrong": "yes"}[verdict] else verdict


def _split(tail: str) -> tuple[str, bool, str]:
    """A label's tail -> (what is said, whether an end marker closes it, what follows the marker)."""
    end = END.search(tail)
    return (tail[: end.start()], True, tail[end.end() :]) if end else (tail, False, "")


def parse_verdict(critique: str) -> str:
    """-> "right", "wrong" or "unparsed": the verdict behind the last conclusion label. An earlier conclusion line that says the
    other word is a contradiction: "unparsed". Example: "... \\n\\n**Conclusion:** wrong [END]" -> "wrong"."""
    critique = _prose(critique)
    verdicts, until = [], len(critique)
    for start, end in islice(_labels(critique), 50):
        tail = (
            critique[end:until]
            if not verdicts
            else critique[end : min(until, end + 300)].lstrip().partition("\n")[0]
        )
        said, _, after = _split(tail)
        verdicts += [_read(said), *map(_read, LATER.findall(after))]
        until = start
    verdicts += map(_read, STATED.findall(critique) if verdicts else [])
    return verdicts[0] if verdicts and set(verdicts) <= {verdicts[0], "unparsed"} else "unparsed"


def with_conclusion(critique: str, verdict: str) -> str:
    """The critique with its closing conclusion, however written, as exactly "\\n\\nConclusion: right [END]" (or wrong); it is
    appended where there is none. What follows the end marker is dropped (generation stops there). A conclusion longer than a
    line of ten words holds reasons: it is kept, and the line is appended. Twice gives the same as once."""
    if verdict not in VERDICTS:
        raise ValueError(f"verdict is {verdict!r}, expected 'right' or 'wrong'")
    critique = _prose(critique)
    until, first = len(critique), True
    for start, end in _labels(critique):
        said, closed, after = _split(critique[end:until])
        short = len(_plain(said).split()) <= 10 and (
            closed or not _plain(said) or _read(said) != "unparsed"
        )
        if not short or _plain(after) and not first:
            until = end + len(said) if first and closed else until
            break
        until, first = start, False  # a conclusion line, or one of several that were repeated
    body = critique[:until].rstrip()
    return f"{body}\n\nConclusion: {verdict} [END]" if body else f"Conclusion: {verdict} [END]"
