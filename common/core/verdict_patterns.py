"""The patterns of verdicts.py, each with an example that it matches.

A conclusion is read in three steps: find its label, reduce its text to plain words, and match
those with one of a few sentences.
"""

import re

WORD = r"(?:right|correct|wrong|incorrect)"

# What may surround a label or a verdict on its line: markdown, quotes, HTML and TeX wrappers,
# emoji. Examples: `**`, `<b>`, `\textbf{`, `✅`.
MARKUP = (
    r"(?:[^\S\n]"  # a space
    r"|[^\w\s.,;:!?()\[\]/\\|=+<–—-]|_"  # a symbol
    r"|</?[a-z][^<>\n]{0,60}>"  # an HTML tag
    r"|\\[a-z]+\*?\{|\\[(\[])"  # the start of a TeX wrapper
)
KIND = r"(?:critique|final|overall|my)"  # "Final conclusion: right"
LABEL = re.compile(r"conclusions?(?![a-z])", re.I)
# Before a label: the start of its line, the end of a sentence, or the start of an XML tag.
# "In conclusion, ...", "the student's conclusion" and a quotation are body text.
LABEL_LEFT = re.compile(
    r"(?:"
    # `- **` or `2. ` or `### ` at the start of the line
    rf"\A[^\S\n]*(?:[-+|]|\d{{1,2}}[.)])?{MARKUP}*"
    # "... is 5. Conclusion: wrong"
    rf"|(?<=[.!?;)\]}}$]){MARKUP}*"
    # "Verdict: **Conclusion: wrong**", but not 'She ends: "Conclusion: right"'
    rf"|(?<=:)(?:(?![\"'“„‘«]){MARKUP})*"
    rf")(?:{KIND}{MARKUP}+)*\Z"
    # "<conclusion>wrong" or "<final_conclusion>wrong"
    rf"|(?:\A|(?<=[.!?>]))[^\S\n]*<(?:{KIND}_)?\Z",
    re.I,
)
# After a label: the end of its line, "Conclusion:", "Conclusion -", "The conclusion is that", or
# "Conclusion **wrong**".
LABEL_RIGHT = re.compile(
    rf"{MARKUP}*(?:\n|\Z|(?<=>)|[:：=|–—-]+|is\b(?:\s+that\b)?|(?={MARKUP}*{WORD}\b))", re.I
)
# "[END]", "**END**", "【END】", "[END" at the end of a truncated text
END = re.compile(
    r"(\*{0,3})\\?[\[(<【［（]\s*/?END\s*\\?[\])>】］）]\1"
    r"|\*\*\s*END\s*\*\*"
    r"|\b(?-i:END)\s*\Z"
    r"|\[/?(?:EN?)?\s*\Z",
    re.I,
)
# Two more ways to conclude. They may only contradict a label: '"conclusion": "wrong"' in JSON
# among other text, and "Corrected conclusion: wrong" after an end marker.
STATED = re.compile(rf'"(?:{KIND}[ _])?conclusion"\s*:\s*"([^"\n]{{1,200}})"', re.I)
LATER = re.compile(rf"conclusions?\W{{0,6}}[:：=]\W{{0,6}}({WORD})\b", re.I)


def _opposite(match):
    """Return "wrong" for "not right", "right" for "not wrong"."""
    return "wrong" if match[1] else "right"


# A value in a subject, passed over: 'The student's answer, "not enough information", is correct'.
# A hedge "(mostly)" and a part "(a)" stay.
VALUE = re.compile(
    r"(\b(?:student's|final)(?: (?!of\b)\w+){1,2}|\b\w+(?= of )),? (?:of )?\*{0,2}"
    r"(?:[\"“”„`$][^\"“”„`$\n]{1,80}[\"“”„`$]"  # "7 m", `x`, $x$
    r"|\\\([^\n]{1,80}?\\\)"  # \(x\)
    r"|\((?:[^a-z()\n]|[a-z](?![a-z])){3,80}\)"  # (x = 3)
    r"|\(?(?-i:[A-J])\)?"  # B or (B)
    r"|(?<=, )\d[^\s,]{0,20}(?=,))"  # , 48,
    r"\*{0,2},?(?= (?:is|was|isn't|wasn't|cannot|can't)\b)",
    re.I,
)
# <b>wrong</b>, &nbsp;, \textcolor{red}{wrong}, \boxed{wrong}, \(wrong\)
WRAPPER = r"</?[a-z][^<>\n]{0,60}>|&\w+;|\\(?:text)?color\{\w+\}|\\[a-z]+(?=\{)|\\[()\[\]]"
# Rewritten then, in this order
REWRITES = [
    (r"\n\s*\n", " ; "),  # a paragraph
    (r"[^\w\s.,;:!?()\[\]/'+=\\–—-]|_", ""),  # **wrong**, _wrong_, wrong ❌
    ("n't", " not"),
    ("students'", "student's"),
    ("it's ", "it is "),
    (r"\s+", " "),
    # "right/correct" says one thing in two words
    (
        r"\b(?:(right|correct) ?/ ?(?:right|correct)|(wrong|incorrect) ?/ ?(?:wrong|incorrect))\b",
        r"\1\2",
    ),
    # "not only right, but also elegant" reads "right and elegant"
    (rf"\bnot (?:only ({WORD}),? but also|just (wrong|incorrect),? but)\b", r"\1\2 and"),
    (r"\b(?:can ?|ca |could )not be (?:considered )?(?:right|correct)\b", "is wrong"),
    (r"\bnot (?:(right|correct)|wrong|incorrect)\b", _opposite),
]

HEDGE = (
    r"n?or|if|unless|when|only|provided|assuming|mostly|largely|probably|perhaps|maybe|i think"
    r"|in (?:part|some)|by luck"
)
# After the verdict: an end or a reason ("wrong.", "wrong because ..."), and no hedge
CLOSED = (
    rf"(?![ ,(–—-]*(?:{HEDGE}|as far|for the most)\b)"
    r"(?: ?(?:$|[].,;:!(–—])| - | (?:because|since|due|as)\b)"
)
SURELY = (
    r"(?:(?:completely|entirely|fully|indeed|therefore|mathematically|actually|clearly|absolutely"
    r"|also|both) )*"
)
# "the student's final answer", "the reasoning and the solution of x = 3", "it"
SUBJECT = (
    r"(?:(?:the|this|that|his|her|their|student's|student|final|overall|given|provided|proposed"
    r"|above) )*"
    r"(?:(?:reasoning|explanation|approach|method|work) and (?:the )?(?:final )?)?"
    r"(?:solution|answer|response|work|student|result|it)"
    r"(?: to the (?:problem|question)"
    r"| (?:given|provided|presented|proposed|obtained|found|reached) by (?:the )?student"
    r"| and (?:the )?(?:final )?(?:answer|solution|reasoning|explanation)"
    # "of 48", "of x = 3", "of 5 m/s"
    r"| of (?:\S{1,40}|\S{1,20} = \S{1,20}|\S{0,20}\d\S{0,20} [^\W\d_]{1,3}(?:/\S{1,8})?))?"
)
# What a conclusion opens with, "no, ...", "therefore, ...", and the rest of it
OPENING = re.compile(
    r"(?:(yes|no) ?[,.:;–—-] )?(?:(?:therefore|thus|so|hence|overall|unfortunately) ?,? )?(.*)",
    re.S,
)
# The sentences that state a verdict, tried in turn on plain words
SENTENCES = [
    re.compile(pattern)
    for pattern in (
        # "completely wrong."
        rf"{SURELY}(?P<word>{WORD}){CLOSED}",
        # "the student's answer is clearly wrong because"
        rf"{SUBJECT} (?:is|are|was|were) {SURELY}(?P<word>{WORD})(?:{CLOSED}| and\b(?! {WORD}))",
        # "the student is right that x is 3", "the student was wrong to choose option (b)"
        rf"the student (?:is|was) (?P<word>{WORD}) (?:that (?:(?! and )[^.,;:!?])+"
        r"|to (?:choose|pick|select) (?:option )?\(?[a-j])$",
        # "the student got it wrong"
        r"the student (?:got|gets|has) (?:it|this|the (?:final )?(?:answer|question|problem)) "
        rf"(?P<word>{WORD}){CLOSED}",
        # "the student correctly added and got the correct answer"
        r"the student (?:correctly [^.,;:!?]{1,80} and )?"
        r"(?:arrived at|reached|obtained|got|found|has) the "
        rf"(?P<word>{WORD}) (?:final )?(?:answer|solution|result){CLOSED}",
        # "the student's reasoning is wrong". A part that is right says nothing of the rest; a part
        # that is wrong decides, unless the answer is spoken of apart.
        r"the student's (?:explanation|claim|reasoning) (?:is|was) "
        rf"{SURELY}(?P<word>wrong|incorrect){CLOSED}"
        r"(?!.*\b(?:but|however|although|though|yet|while|even|despite"
        r"|(?<!right )(?<!correct )(?:answer|result))\b)",
    )
]
# What contradicts a verdict: an answer before it ("no, it is right"), marks, and words after it:
# "right, but incomplete". "wrong because the correct answer is 5" is no contradiction, "wrong ...
# is correct" is one.
CONTRADICTIONS = {
    "right": (
        "no",
        "❌✗✘✖",
        r"\b(?:wrong|incorrect|but|however|except|although|though|yet|part(?:ial)?ly|incomplete"
        r"|flawed)\b",
    ),
    "wrong": (
        "yes",
        "✅✓✔",
        r"(?<!the )\b(?:right|correct)\b(?! [a-z])"
        r"|\b(?:is|are|was|were) (?:\w+ly )?(?:right|correct)\b"
        r"|\bpart(?:ial)?ly\b",
    ),
}
