r"""Model output -> its answer as written: the last box, else what follows the last answer cue, else the last number; or a letter."""

import re
from collections.abc import Iterator

OPEN, CLOSE = (  # of a reasoning block: <think>, <|begin_of_thought|>, [THINK], ◁think▷
    re.compile(
        rf"(?:<\|?|\[|◁){mark}(?:think(?:ing)?|thought|reasoning|reflection|scratchpad)(?:\|?>|\]|▷)",
        re.I,
    )
    for mark in ("(?:begin_of_)?", "(?:/|end_of_)")
)
END = re.compile(
    r"(?<=\S)\s*(?:<\|(?:im_end|endoftext|eot_id|end_of_text|end)\|>|</s>|\(END\)|\\?\[END\\?\]|\*\*END\*\*)"
)
CUE = re.compile(
    r"""(?: (?<![A-Za-z])answers?(?![A-Za-z])[ *_]{0,5}(?:to[ ](?:the|this)[ ](?:question|problem)[ *_]{0,5})?(?:is\b|are\b|:|=|(?=[$\\]))
      | (?<![A-Za-z])(?:ans|result)[ *_]{0,5}: | \b(?:correct|right|best)[ ](?:choice|option)\b[ *_]{0,5}(?:is\b|:)
      | <answer> | ^A: | 答案(?:是|为|：|:)
      | \#\#\#\#(?!\#|\s*(?:step|part|solution|[\d.]+\.?[ ]+[a-z]{2,}[ ]+[a-z]))(?=\s?[-$\\\d]|[ ][^\n]{1,60}$)  # 18, no heading
    )(?:</?[bi]>|</?strong>|[\s:*_>}]|therefore\b|thus\b)*""",
    re.I | re.M | re.X,
)
MATH = (
    r"\$\$.+?\$\$|\$ [^$\n]+ \$|\$(?!\s)(?:\\.|[^$\\\n])+?(?<!\s)\$(?!\d)"  # "$200 and $70" is no math
    r"|\\\(.+?\\\)|\\\[.+?\\\]|\\begin\{(?:align|equation|gather)\*?\}.+?\\end\{(?:align|equation|gather)\*?\}"
)
MATHS = re.compile(
    rf"(?:{MATH})(?:\s*(?:,|and\b|or\b)+\s*(?:{MATH}))*(?:\s?(?:\\?%|percent\b))?", re.S
)
NUMBER = re.compile(  # not the 2 or the 10 of 2^10, 10!, 3x, 2π, 2:30
    r"(?<![\w.)\]}^:])[-+−]?\$?(?:\d+ \d+/\d+|\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+|/\d+)?"
    r"(?![\d!^π√]|:\d|[a-fi-knp-rt-z](?![a-z]))(?:\s?\\?[%°])?",
    re.I,
)
SENTENCE_END = re.compile(
    r"\.(?=\s|$)|。|</?[a-z]\w*>|\s\((?=(?:since|because|as|which|or|not)\b)|,?\s(?=(?:because|since|so|which|where|I hope)\b)"
    r"|,\s(?!and\b|or\b)(?=[a-z]{2,}\s)"
)

FORMULA = re.compile(r"[\s}]*(?:[-+*/^_=<>]|\\(?:cdot|times|frac|pm|le|ge)(?![a-z]))")


def answer_of(text: str) -> tuple[str | None, str]:
    """(the answer as written or None, how it was found)."""
    text = _said(text)
    if box := _last_box(text):
        return box, "boxed"
    for answer in _cues(text):
        return answer, "cue"
    line = text.strip().rpartition("\n")[2].strip()
    if (
        len(line) <= 80
        and re.search(r"\d", line)
        and not re.search(r"(?<!\\)\b[A-Za-z]{2,}|[$€:]", line)
    ):
        return line, "last number"  # a last line that is bare mathematics: x = 3/4
    found = [
        match
        for pattern in (MATHS, NUMBER)
        for match in pattern.finditer(text[-5_000:])
        if re.search(r"\w\W*\w|\d", match[0])
    ]
    return (
        (max(found, key=lambda match: match.end())[0], "last number") if found else (None, "none")
    )


def option_of(text: str, letters: str, small: bool) -> tuple[str | None, str]:
    """(an option letter or None, how it was found): boxed, after a cue, said to be correct, opening the output ("D. ..."), or the last
    lone letter. Two options at once, or a formula, are not a letter, and come back as they stand. small: a boxed or stated "c" is C."""
    text = _said(text)
    lead = r"(?i:\\(?:text|math)\w*\s*\{|(?:the )?(?:options?|choices?)(?![a-z])|both\b|[\W_])*"
    lower = f"|[{letters.lower()}](?!\\s)" if small else ""
    option = re.compile(rf"{lead}([{letters}]{lower})(?![A-Za-z0-9'’])")
    second = re.compile(
        rf"[\s)*_}}]*(?:,|;|/|&|\band\b|\bor\b|(?=\())[\s(*_}}]*(?i:(?:option|choice)[\s_]*)?\(?[{letters}](?![A-Za-z0-9'’])"
    )
    box = _last_box(text)
    cues = list(re.finditer(r"\bsolution\W{0,3}:", text, re.I))[-100:]
    solutions = [text[cue.end() : cue.end() + 2_000].partition("\n")[0] for cue in cues]
    for answer, how in [
        (box, "boxed"),
        *((answer, "cue") for answer in [*solutions[::-1], *_cues(text)]),
    ]:
        if re.match(r"\W*(?:none|neither|not|either)\b", answer, re.I):
            return answer, how
        if match := option.match(answer):
            rest = re.sub(
                r"\\(?:text|math)\w*\s*\{|\\&",
                lambda tex: "&" if tex[0] == r"\&" else " ",
                answer[match.end() :],
            )
            formula = FORMULA.match(answer[match.end() :]) or answer[: match.start(1)].endswith(
                ("-", "+")
            )  # C+1, C_1, F = ma
            several = (
                second.match(rest)
                or formula
                or re.match(r"\W*is (?:wrong|incorrect|false|not)\b", rest)
            )
            return (answer if several else match[1].upper()), how
    if box:
        return box, "boxed"
    correct = r"is (?:the |therefore |thus |indeed )*(?:correct|right|best|true|only)\b"
    if stated := re.findall(
        rf"(?i:option|choice)[\s_*(\\]*([{letters}])[\s_*)]*(?:[:(][^.\n]{{0,80}})?\s(?i:{correct})",
        text,
    ):
        return stated[-1], "cue"
    opening = re.match(rf"\W*([{letters}])[).:]", text)
    # "I" and "A" before a word are English; in brackets they are options.
    lone = re.findall(
        rf"\(([{letters}])\)|(?<![^\W_]|['’])(?!I\b)([{letters}])(?![\w'’])(?!\s[a-z])", text
    )
    found = opening[1] if opening else "".join(lone[-1]) if lone else None
    return found, "last number" if found else "none"


def without_thinking(text: str) -> str:
    """A generator's answer without its reasoning block; "" where the block never ends, as there is no answer then.

    >>> without_thinking("<think>2? No, 3.</think>\\n\\nIt is 3."), without_thinking("<think>2? No,"), without_thinking("It is 3.")
    ('It is 3.', '', 'It is 3.')
    """
    ends = [found.end() for found in CLOSE.finditer(text)]
    return text[ends[-1] :].lstrip() if ends else "" if OPEN.match(text.lstrip()) else text


def _said(text: str) -> str:
    """Without reasoning blocks, of which the first may lack its opening and the last its close, and without what follows an end mark."""
    for close in list(CLOSE.finditer(text))[-1:]:
        text = text[close.end() :]
    if unclosed := OPEN.search(text):
        text = text[: unclosed.start()]
    return END.split(text, 1)[0]


def _last_box(text: str) -> str:
    r"""The content of the last closed \boxed{...} that is not empty, or "". One pass; escaped braces do not count."""
    last, stack = "", []
    for match in re.finditer(r"\\{1,4}(?:boxed|fbox)\s{0,9}\{|\\.|[{}]", text, re.S):
        if match[0] == "}" and stack:
            opening = stack.pop()
            if len(opening[0]) > 1 and (content := text[opening.end() : match.start()].strip()):
                last = content
        elif match[0][-1] == "{" and match[0] != r"\{":
            stack.append(match)
    bare = r"\\(?:boxed|fbox)\s{0,9}(\d[\d.,]*\d|\d|[a-zA-Z](?![a-zA-Z])|\\[a-z]+(?:\{[^{}]*\})*)"  # \boxed 8
    return last or (re.findall(bare, text) or [""])[-1]


def _cues(text: str) -> Iterator[str]:
    """What the answer cues introduce, from the last cue to the first: leading math, else the end of the sentence."""
    for cue in list(CUE.finditer(text))[:-100:-1]:
        rest = text[cue.end() : cue.end() + 2_000]
        if (math := MATHS.match(rest)) and not re.match(r"\s*(?:=|\\approx)", rest[math.end() :]):
            yield math[0]
            continue
        said = SENTENCE_END.split(rest.partition("\n")[0])[0]
        said = re.split(r"\s(?:is|are)\s", said)[-1].strip(" *_`")  # "The largest n is 34"
        words = re.findall(
            r"[A-Za-z]{2,}", re.sub(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+", " ", said)
        )
        if len(words) > 2 and (inner := re.findall(MATH, said) or NUMBER.findall(said)):
            said = inner[-1]  # "Jane started growing Sphere 3 hours ago"
        if re.search(r"\w", said):
            yield said
