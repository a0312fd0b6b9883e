r"""Find the answer in a model output, as written.

It is the last box, else what follows the last answer cue, else the last number. Of an answer to
multiple choice it is an option letter.
"""

import re
from collections.abc import Iterator

from common.core.thinking import OPEN, without_thinking

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
NUMBER = re.compile(  # -1,234.5, 1 1/2, $5, 20 %; not the 2 or the 10 of 2^10, 10!, 3x, 2π, 2:30
    r"(?<![\w.)\]}^:])[-+−]?\$?(?:\d+ \d+/\d+|\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+|/\d+)?"
    r"(?![\d!^π√]|:\d|[a-fi-knp-rt-z](?![a-z]))(?:\s?\\?[%°])?",
    re.I,
)

# ---- boxes ----

BRACE = re.compile(r"\\{1,4}(?:boxed|fbox)\s{0,9}\{|\\.|[{}]", re.S)
BARE_BOX = (  # \boxed 8, \boxed x, \boxed\frac{1}{2}
    r"\\(?:boxed|fbox)\s{0,9}(\d[\d.,]*\d|\d|[a-zA-Z](?![a-zA-Z])|\\[a-z]+(?:\{[^{}]*\})*)"
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
    r"\.(?=\s|$)|。|</?[a-z]\w*>|\s\((?=(?:since|because|as|which|or|not)\b)"
    r"|,?\s(?=(?:because|since|so|which|where|I hope)\b)|,\s(?!and\b|or\b)(?=[a-z]{2,}\s)"
)
BARE_MATH_LINE = re.compile(  # x = 3/4; no words, no sum of money
    r"(?=.*\d)(?!.*(?:(?<!\\)\b[A-Za-z]{2,}|[$€:])).{0,80}", re.S
)

# ---- option letters ----

SOLUTION = re.compile(r"\bsolution\W{0,3}:", re.I)
NO_OPTION = re.compile(r"\W*(?:none|neither|not|either)\b", re.I)
REJECTED = r"\W*is (?:wrong|incorrect|false|not)\b"
TEXT_COMMAND = r"\\(?:text|math)\w*\s*\{|\\&"
FORMULA = r"[\s}]*(?:[-+*/^_=<>]|\\(?:cdot|times|frac|pm|le|ge)(?![a-z]))"  # C+1, C_1
LEAD = r"(?i:\\(?:text|math)\w*\s*\{|(?:the )?(?:options?|choices?)(?![a-z])|both\b|[\W_])*"
SECOND = (  # A and B, A / B, A, (B)
    r"[\s)*_}}]*(?:,|;|/|&|\band\b|\bor\b|(?=\())[\s(*_}}]*(?i:(?:option|choice)[\s_]*)?\(?"
    r"[{letters}](?![A-Za-z0-9'’])"
)
STATED = (  # option B (the second) is therefore correct
    r"(?i:option|choice)[\s_*(\\]*([{letters}])[\s_*)]*(?:[:(][^.\n]{{0,80}})?\s"
    r"(?i:is (?:the |therefore |thus |indeed )*(?:correct|right|best|true|only)\b)"
)
# "I" and "A" before a word are English; in brackets they are options.
LONE = r"\(([{letters}])\)|(?<![^\W_]|['’])(?!I\b)([{letters}])(?![\w'’])(?!\s[a-z])"


def find_answer(text: str) -> tuple[str | None, str]:
    """Return (the answer as written or None, "boxed", "cue", "last number" or "none")."""
    text = _final_text(text)
    box = _last_box(text)
    if box:
        return box, "boxed"
    for answer in _answers_after_cues(text):
        return answer, "cue"
    line = text.strip().rpartition("\n")[2].strip()
    if BARE_MATH_LINE.fullmatch(line):
        return line, "last number"
    end, answer = 0, None
    for pattern in (MATHS, NUMBER):
        for match in pattern.finditer(text[-5_000:]):
            if match.end() > end and re.search(r"\w\W*\w|\d", match[0]):
                end, answer = match.end(), match[0]
    return answer, "last number" if answer else "none"


def find_option(text: str, letters: str, lower_case: bool) -> tuple[str | None, str]:
    """Return (an option letter or None, how it was found).

    The letter is boxed, after a cue, called correct, at the start of the output ("D. ..."), or the
    last lone one. Two options at once, or a formula, are no letter and are returned as written.
    lower_case: a "c" in a box or after a cue is C.
    """
    text = _final_text(text)
    box = _last_box(text)
    option = _read_option(box, letters, lower_case)
    if option:
        return option, "boxed"
    for answer in [*_solutions(text), *_answers_after_cues(text)]:
        option = _read_option(answer, letters, lower_case)
        if option:
            return option, "cue"
    if box:
        return box, "boxed"
    stated = re.findall(STATED.format(letters=letters), text)
    if stated:
        return stated[-1], "cue"
    opening = re.match(rf"\W*([{letters}])[).:]", text)
    if opening:
        return opening[1], "last number"
    lone = re.findall(LONE.format(letters=letters), text)
    return ("".join(lone[-1]), "last number") if lone else (None, "none")


def _read_option(answer, letters, lower_case):
    """Return a letter, or the answer itself if it says that none or several fit, or None."""
    if NO_OPTION.match(answer):
        return answer
    lower = f"|[{letters.lower()}](?!\\s)" if lower_case else ""
    option = re.match(rf"{LEAD}([{letters}]{lower})(?![A-Za-z0-9'’])", answer)
    if not option:
        return None
    rest = answer[option.end() :]
    plain = re.sub(TEXT_COMMAND, lambda command: "&" if command[0] == r"\&" else " ", rest)
    several = (
        re.match(SECOND.format(letters=letters), plain)
        or re.match(FORMULA, rest)
        or answer[: option.start(1)].endswith(("-", "+"))
        or re.match(REJECTED, plain)
    )
    return answer if several else option[1].upper()


def _solutions(text):
    """Return what follows each "Solution:", from the last one to the first."""
    ends = [cue.end() for cue in SOLUTION.finditer(text)]
    return [text[end : end + 2_000].partition("\n")[0] for end in ends[:-101:-1]]


def _final_text(text):
    """Return a text without reasoning blocks, and without what follows an end mark.

    The first block may lack its opening and the last one its close.
    """
    answer = OPEN.split(without_thinking(text), maxsplit=1)[0]
    return re.split(END, answer, maxsplit=1)[0]


def _last_box(text):
    r"""Return the content of the last closed \boxed{...} that is not empty, or "".

    Escaped braces do not count.
    """
    content, openings = "", []
    for brace in BRACE.finditer(text):
        if brace[0] == "}" and openings:
            opening = openings.pop()
            if len(opening[0]) > 1:
                content = text[opening.end() : brace.start()].strip() or content
        elif brace[0].endswith("{") and brace[0] != r"\{":
            openings.append(brace)
    return content or (re.findall(BARE_BOX, text) or [""])[-1]


def _answers_after_cues(text) -> Iterator[str]:
    """Yield what the cues introduce, from the last one: mathematics, else the sentence."""
    for cue in list(CUE.finditer(text))[:-100:-1]:
        rest = text[cue.end() : cue.end() + 2_000]
        math = MATHS.match(rest)
        if math and not re.match(r"\s*(?:=|\\approx)", rest[math.end() :]):
            yield math[0]
            continue
        sentence = SENTENCE_END.split(rest.partition("\n")[0])[0]
        end = re.split(r"\s(?:is|are)\s", sentence)[-1].strip(" *_`")  # "The largest n is 34"
        prose = re.sub(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+", " ", end)
        if len(re.findall(r"[A-Za-z]{2,}", prose)) > 2:  # "Jane started growing Sphere 3 hours ago"
            end = (re.findall(MATH, end) or NUMBER.findall(end) or [end])[-1]
        if re.search(r"\w", end):
            yield end
