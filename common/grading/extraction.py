r"""Find the answer in a model output, as written.

It is the last box, else what follows the last answer cue, else the last number. Words that bound,
negate or compute belong to the answer: "no more than 5". The numbers of steps and of list items
are no answers.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from common.core.thinking import OPEN, without_thinking
from common.grading.normalize_latex import fold_width

# ---- what follows the output ----

END = (  # what follows these was not meant: </s>, [END]
    r"(?<=\S)\s*(?:<\|(?:im_end|endoftext|eot_id|end_of_text|end)\|>|</s>|\(END\)|\\?\[END\\?\]"
    r"|\*\*END\*\*)"
)

# ---- mathematics and numbers in running text ----

ALIGNED = r"\{(?:align|equation|gather)\*?\}"
MATH = (  # $x$, \(x\), \[x\]; "$200 and $70" is no mathematics
    r"\$\$.+?\$\$|\$ [^$\n]+ \$|\$(?!\s)(?:\\.|[^$\\\n])+?(?<!\s)\$(?!\d)"
    rf"|\\\(.+?\\\)|\\\[.+?\\\]|\\begin{ALIGNED}.+?\\end{ALIGNED}"
)
MATHS = re.compile(  # $x$ and $y$, $5$ %
    rf"(?:{MATH})(?:\s*(?:,|and\b|or\b)+\s*(?:{MATH}))*(?:\s?(?:\\?%|percent\b))?", re.S
)
LETTERS = "A-Za-zÀ-ɏ"  # Chinese is written without a space before a number
NUMBER = re.compile(  # -1,234.5, 1 1/2, $5, 20 %; not the 2 or the 10 of 2^10, 10!, 3x, 2π, 2:30
    rf"(?<![{LETTERS}\d_.)\]}}^:])[-+−]?\$?(?:\d+ \d+/\d+|\d[\d,]*(?:\.\d+)?|\.\d+)"
    r"(?:e[-+]?\d+|/\d+)?"
    r"(?![\d!^π√]|:\d|[a-fi-knp-rt-z](?![a-z]))(?:\s?\\?[%°])?",
    re.I,
)
COMPOUND = re.compile(  # 12 dollars and 50 cents
    r"\d+ (?:dollars?|feet|foot|pounds?|hours?|minutes?) (?:and )?"
    r"\d+ (?:cents?|inch|inches|ounces?|minutes?|seconds?)\b"
)
STEP = (  # Step 5, the item "5. ...", not 5, cannot be 5: no candidates for the last number
    r"(?:(?<![A-Za-z])(?:step|part|case|option|question|problem|example|method|equation|figure"
    r"|table|item|section|line|round|stage|phase|chapter|page)s?[ #(]*"
    r"|(?:\bnot|n['’]t|\bcannot|\bnever)(?: be| equal| equal to| exceed| reach)? |\bthan "
    r"|\bbetween (?:\S{1,12} and )?)$"
)
ITEM = r"[.):]\*{0,2}\s+\S"
OPERATION = re.compile(  # the square root of 5, no more than 5
    r"(?:\b(?:not|no|never|cannot|least|most|than|over|under|above|below|nearly|almost|up to|half"
    r"|twice|double|triple|times|root|reciprocal|logarithm|absolute value|inverse"
    r"|opposite|negative|minus|factorial|square"
    r"|cube|maybe|perhaps|possibly|either)|n['’]t)"
    r"(?: (?:of|be|to|the|a|as|equal|by|large|many|much))*[ $*]*$",
    re.I,
)

# ---- boxes ----

BRACE = re.compile(r"\\{1,4}(?:boxed|f(?:rame)?box)\s{0,9}\{|\\.|[{}]", re.S)
BARE_BOX = (  # \boxed 8, \boxed x, \boxed\frac{1}{2}
    r"\\(?:boxed|f(?:rame)?box)\s{0,9}(\d[\d.,]*\d|\d|[a-zA-Z](?![a-zA-Z])|\\[a-z]+(?:\{[^{}]*\})*)"
)
RETRACTION = (
    r"(?i)\b(?:wait|actually|instead|correct\w*|mistake|should be|not|check\w*|first)\b|\bno,"
)

# ---- cues ----

CUE = re.compile(
    r"""(?: (?<![A-Za-z])answers?(?![A-Za-z])[ *_]{0,5}                 # the answer is, Answer:
            (?:to[ ](?:the|this)[ ](?:question|problem)[ *_]{0,5})?
            (?:is\b|are\b|:|=|(?=[$\\]))
      | (?<![A-Za-z])(?:ans|result)[ *_]{0,5}:
      | \b(?:correct|right|best)[ ](?:choice|option)\b[ *_]{0,5}(?:is\b|:)
      | <answer> | ^A: | 答案(?:是|为|：|:)
      | \#\#\#\#                                                        # 18, but no heading
        (?!\#|\s*(?:step|part|solution|[\d.]+\.?[ ]+[a-z]{2,}[ ]+[a-z]))
        (?=\s?[-$\\\d]|[ ][^\n]{1,60}$)
    )(?:</?[bi]>|</?strong>|[\s:*_>}]|therefore\b|thus\b)*""",
    re.I | re.M | re.X,
)
SENTENCE_END = re.compile(
    r"\.(?=\s|$)|。|!(?=[\s*_]*$|\s+[A-Z])|</?[a-z]\w*>"
    r"|\s\((?=(?:since|because|as|which|or(?! maybe| perhaps| possibly)|not)\b)"
    r"|,?\s(?=(?:because|since|so|which|where|I hope)\b)|,\s(?!and\b|or\b)(?=[a-z]{2,}\s)"
)
BARE_MATH_LINE = re.compile(  # x = 3/4; no words, no sum of money
    r"(?=.*\d)(?!.*(?:(?<!\\)\b[A-Za-z]{2,}|[$€:\u3040-\ud7ff])).{0,80}", re.S
)


def find_answer(text: str) -> tuple[str | None, str]:
    """Return (the answer as written or None, "boxed", "cue", "last number" or "none")."""
    text = final_text(text)
    boxes = find_boxes(text)
    if boxes:
        return boxes[-1].content, "boxed"
    for answer in answers_after_cues(text):
        return answer, "cue"
    line = re.sub(r"^\(?[a-z]\)\s+", "", text.strip().rpartition("\n")[2].strip())  # b) 7
    if BARE_MATH_LINE.fullmatch(line) and not re.fullmatch(r"\d+[.)]", line):
        return line, "last number"
    answer = _last_number(text[-5_000:])
    return answer, "last number" if answer else "none"


def _last_number(text):
    end, answer = 0, None
    for pattern in (MATHS, COMPOUND, NUMBER):
        for match in pattern.finditer(text):
            if match.end() <= end or not re.search(r"\w\W*\w|\d", match[0]):
                continue
            if not _is_counted(text, match):
                end, answer = match.end(), match[0]
    return answer


def _is_counted(text, number):
    """Return whether a number counts steps or items, or is said not to be the answer."""
    before = text[max(number.start() - 30, 0) : number.start()]
    if re.search(STEP, before, re.I):
        return True
    if before.rpartition("\n")[2].strip(" >*#("):
        return False
    return bool(re.match(ITEM, text[number.end() :])) or _ends_a_list(text, number)


def _ends_a_list(text, number):
    """Return whether the output was cut behind the head of an item: "4. d", "5."."""
    if not number[0].isdecimal() or not re.fullmatch(r"[.)]\s*", text[number.end() :]):
        return False
    return bool(re.search(rf"(?m)^\W*{int(number[0]) - 1}[.)]", text))


def without_cut_number(text: str) -> str:
    """Return an output that its limit ended, without a number that touches the end.

    Of "so it is 12" nobody knows whether 125 was meant.

    >>> without_cut_number("3 + 4 = 7, so it is 12"), without_cut_number("It is 12.")
    ('3 + 4 = 7, so it is ', 'It is 12.')
    """
    return text.rstrip("0123456789.,") if text[-1:].isdecimal() else text


def final_text(text: str) -> str:
    """Return a text without reasoning blocks, and without what follows an end mark.

    The first block may lack its opening and the last one its close.
    """
    answer = OPEN.split(without_thinking(text), maxsplit=1)[0]
    return fold_width(re.split(END, answer, maxsplit=1)[0])


class Box(NamedTuple):
    r"""The content of a \boxed{...}, and the offsets of the box in the text."""

    content: str
    start: int
    end: int


def find_boxes(text: str) -> list[Box]:
    r"""Return the closed boxes of a final text that are not empty and in no other box.

    Escaped braces do not count. Without such a box it is the last \boxed 8, if any.
    """
    boxes, openings = [], []
    for brace in BRACE.finditer(text):
        if brace[0] == "}" and openings:
            opening = openings.pop()
            content = text[opening.end() : brace.start()].strip()
            if len(opening[0]) > 1 and content:
                while boxes and boxes[-1].start > opening.start():
                    boxes.pop()
                boxes.append(Box(content, opening.start(), brace.end()))
        elif brace[0].endswith("{") and brace[0] != r"\{":
            openings.append(brace)
    bare = [] if boxes else list(re.finditer(BARE_BOX, text))[-1:]
    return boxes or [Box(box[1], box.start(), box.end()) for box in bare]


def find_listed_boxes(text: str) -> str:
    r"""Return all boxes of an output as one list, or "".

    Questions of several parts are answered so: the mean is \boxed{1}, the variance is \boxed{2}.
    It is no list if two boxes are far apart, or if the text between them corrects the first one.
    """
    text = final_text(text)
    boxes = find_boxes(text)
    for box, following in pairwise(boxes):
        between = text[box.end : following.start]
        if len(between) > 300 or re.search(RETRACTION, between):
            return ""
    return ", ".join(box.content for box in boxes) if len(boxes) > 1 else ""


def answers_after_cues(text: str) -> Iterator[str]:
    """Yield what the cues introduce, from the last one: mathematics, else the sentence."""
    for cue in list(CUE.finditer(text))[:-100:-1]:
        rest = text[cue.end() : cue.end() + 2_000]
        math = MATHS.match(rest)
        if math and not re.match(r"\s*(?:=|\\approx)", rest[math.end() :]):
            yield math[0]
            continue
        sentence = SENTENCE_END.split(rest.partition("\n")[0])[0]
        end = re.split(r"\s(?:is|are)\s", sentence)[-1].strip(" *_`")  # "The largest n is 34"
        end = re.sub(r"^not [^,]{1,40}? but (?:rather )?", "", end)  # not 8 but 9
        if re.search(r"\w", end):
            yield _without_prose(end)


def _without_prose(phrase):
    """Return the mathematics or number of a phrase of many words, unless they change its value."""
    prose = re.sub(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+", " ", phrase)
    if len(re.findall(r"[A-Za-z]{2,}", prose)) <= 2:
        return phrase
    values = list(re.finditer(MATH, phrase)) or list(NUMBER.finditer(phrase))
    if not values or OPERATION.search(phrase[: values[-1].start()]):
        return phrase
    return values[-1][0]
