"""Find the option letter that an output of multiple choice gives.

A letter counts where it is chosen: in a box, after a cue, called correct, or last in the output
behind a word such as "option" or "is". What is rejected or excluded, and what only has a letter in
its name (vitamin C, point A), is no choice.
"""

import re

from common.grading.extraction import answers_after_cues, final_text, find_boxes

SOLUTION = re.compile(r"\bsolution\W{0,3}:", re.I)
NO_OPTION = re.compile(r"\W*(?:none|neither|not|either)\b", re.I)
REJECTED = (  # A is wrong, A isn't, A and D fail
    r"[\s)*_}]*(?:(?:and|or|,)\s*\(?[A-Z]\)?\s*)?"
    r"(?:(?:is|are)(?:n['’]t| (?:wrong|incorrect|false|not|ruled|eliminated)\b)|fails?\b"
    r"|(?:does|do|can|could)(?:n['’]t|not| not)\b)"
)
EXCLUDED = (  # not A, over A, rather than option D
    r"(?i)(?:\b(?:(?:not|never|cannot)(?: be)?|over|than|unlike|instead of|except|versus"
    r"|vs\.?|eliminates?|excludes?|rejects?|rules? out|without|both|and|or"
    r"|(?:all|any\w*|every\w*|options?|choices?|answers?) but)|n['’]t(?: be)?)[\s(*_$]*"
    r"(?:(?:option|choice|answer)[\s(*_]*)?$"
)
TEXT_COMMAND = r"\\(?:text|math)\w*\s*\{|\\&"
FORMULA = r"[\s}]*(?:[-+*/^_=<>]|\\(?:cdot|times|frac|pm|le|ge|to)(?![a-z]))"  # C+1, C_1
LEAD = r"(?i:\\(?:text|math)\w*\s*\{|(?:the )?(?:options?|choices?)(?![a-z])|both\b|[\W_])*"
SECOND = (  # A and B, A / B, A, (B)
    r"[\s)*_}}]*(?:,|;|/|&|\band\b|\bor\b|(?=\())[\s(*_}}]*(?i:(?:option|choice)[\s_]*)?\(?"
    r"[{letters}](?![A-Za-z0-9'’])"
)
STATED = (  # option B (the second) is therefore correct; only B; I choose B over A
    r"(?:\b(?i:option|choice)[\s_*(\\]*|(?:^|[.,;:!?\n]|\b(?:so|thus|hence|that))[\s*(]*)"
    r"([{letters}])[\s_*)]*"
    r"(?:[:(][^.\n]{{0,80}})?\s(?i:is (?:the |therefore |thus |indeed )*"
    r"(?:correct|right|best|true|only)\b)"
    r"|\b(?i:only|choose|pick|select|go with|matches|prefer)\s(?i:(?:option|choice|answer)\s)?"
    r"[\s*(]*([{letters}])(?![\w'’])"
    r"|\b([{letters}])[\s)*]*(?:over|rather than|instead of)\s"
)
OPENING = r"\W*([{letters}])(?:[).:]|\W*$)"
# "I" and "A" before a word are English; in brackets they are options.
LONE = r"\(([{letters}])\)|(?<![A-Za-zÀ-ɏ0-9'’])(?!I\b)([{letters}])(?![\w'’])(?!\s[a-z])"
BEFORE_LETTER = (  # a bare letter behind any other word is a name: vitamin C
    r"(?:^|[^\w\s][\s*_(]*|\n\s*"
    r"|\b(?i:options?|choices?|answer|is|be|it|but|with|pick|choose|select"
    r"|as|so|to|letter|hence|thus|therefore|think|say|only|conclude|solution|get|leaving|us)[\s_*]*"
    r"|['’]s\s+|[a-z]{3,}(?<!i)s\s+|[\u3040-\ud7ff]\s*)$"
)


def find_option(text: str, letters: str, lower_case: bool) -> tuple[str | None, str]:
    """Return (an option letter or None, how it was found).

    The letter is boxed, after a cue, called correct, at the start of the output ("D. ..."), or the
    last lone one. Two options at once, or a formula, are no letter and are returned as written.
    lower_case: a "c" in a box or after a cue is C.
    """
    text = final_text(text)
    boxes = find_boxes(text)
    box = boxes[-1].content if boxes else ""
    option = _read_option(box, letters, lower_case)
    if option in list(letters):
        return option, "boxed"
    rest = text[boxes[-1].end :] if option else text  # a letter beats an earlier boxed formula
    for answer in [*_solutions(rest), *answers_after_cues(rest)]:
        option = _read_option(answer, letters, lower_case)
        if option:
            return option, "cue"
    if box:
        return box, "boxed"
    return _without_cue(text, letters, lower_case)


def _without_cue(text, letters, lower_case):
    stated = re.findall(STATED.format(letters=letters), text)
    if stated:
        return "".join(stated[-1]), "cue"
    start = letters + letters.lower() if lower_case else letters
    opening = re.match(OPENING.format(letters=start), text)
    if opening:
        return opening[1].upper(), "last number"
    chosen = None
    for lone in re.finditer(LONE.format(letters=letters), text):
        if _is_chosen(text, lone, letters):
            chosen = lone[1] or lone[2]
    return chosen, "last number" if chosen else "none"


def _is_chosen(text, lone, letters):
    """Return whether a lone letter is neither rejected, nor a name, nor the head of a walk."""
    before, after = text[max(lone.start() - 60, 0) : lone.start()], text[lone.end() :][:60]
    if re.search(EXCLUDED, before) or re.match(REJECTED, after):
        return False
    if lone[2] and not re.search(BEFORE_LETTER, before):
        return False
    return not _ends_a_walk(text, lone, letters)


def _ends_a_walk(text, lone, letters):
    """Return whether the output was cut behind the head of an option, after that of the last."""
    if re.search(r"\w", text[lone.end() :]):
        return False
    place = letters.index(lone[1] or lone[2])
    head = rf"(?:^|[.!?:]\s+|\n)\W*(?:option |choice )?\(?{letters[place - 1]}[):]"
    return place > 0 and bool(re.search(head, text[: lone.start()], re.I))


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
