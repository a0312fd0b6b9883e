r"""An output without what the model thought before it answered.

Thinking is at the start of an output, or before its last closing mark, or in marks of its own in
the middle of an answer. A mark that an answer only talks about, in code, in quotes or in a
sentence, closes nothing; an opening mark alone inside an answer opens nothing. Time is linear in
the text.
"""

import re
from bisect import bisect

THOUGHT = r"(?:\w{1,20}:)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)"
HARMONY = r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*"
# What opens thinking, what closes it. Models are named where one family alone writes so.
FORMS = (
    # <think>, <thinking depth="2">, <seed:think>, <|begin_of_thought|>, <|START_THINKING|>
    (
        rf"<\|?(?:begin_of_|start_)?{THOUGHT}(?:\s[^<>]{{0,200}})?(?<!/)\|?>",
        rf"<\|?(?:/|end_of_|end_){THOUGHT}\s{{0,9}}\|?>",
    ),
    (r"\[(?-i:THINK)\]", r"\[/(?-i:THINK)\]"),  # Mistral
    ("◁think▷", "◁/think▷"),  # Kimi
    (  # gpt-oss: a channel for each kind of text
        rf"{HARMONY}(?:analysis|commentary)",
        rf"{HARMONY}final[^<]{{0,50}}(?:<\|constrain\|>[^<]{{0,50}})?<\|message\|>",
    ),
    (r"(?-i:\Aanalysis(?=[A-Z]))", r"(?-i:assistantfinal)"),  # the same without its marks
    (r"<\|channel>\s*thought", r"<channel\|>"),  # Gemma
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
)
OPEN = re.compile("|".join(opening for opening, _ in FORMS), re.I)
CLOSE = re.compile("|".join(closing for _, closing in FORMS), re.I)
MESSAGE_END = re.compile(r"<\|(?:end|return|call|start)\|>")  # of gpt-oss

FENCE = re.compile(r"^[ >]{0,12}(?:```|~~~)", re.M)
# Around a mark, on its line: `</think>`, "</think>", r"<think>.*</think>"
QUOTE_LEFT = re.compile(r"(?<!\w)(?:r(?=\"))?([`'\"])[^`'\"\n]{0,80}\Z")
QUOTE_RIGHT = re.compile(r"[^`'\"\n]{0,80}([`'\"])(?!\w)")
# "It forgot its </think> tag": words on both sides
WORD_BEFORE = re.compile(r"\w \Z")
WORD_AFTER = re.compile(r" [a-z]|[,.;:)](?:\s|\Z)")


def without_thinking(text: str) -> str:
    """Return an output without its thinking, "" if all of it is thinking.

    >>> without_thinking("<think>2? No, 3.</think> It is 3."), without_thinking("<think>2? No,")
    ('It is 3.', '')
    >>> without_thinking("<|channel|>analysis<|message|>2?<|end|><|channel|>final<|message|>3.")
    '3.'
    >>> without_thinking("2+3=5.\\n<think>Is it?</think>\\nSo 5.")
    '2+3=5.\\n\\nSo 5.'
    """
    closes = _find_closes(text)
    opening = OPEN.search(text) if closes else None
    if opening and text[: opening.start()].strip() and opening.end() <= closes[0].start():
        return _without_blocks(text, closes)
    if closes:
        close = closes[-1]
        text = text[close.end() :].lstrip()
        if close[0].endswith("<|message|>"):
            text = MESSAGE_END.split(text, maxsplit=1)[0].rstrip()
    return "" if OPEN.match(text.lstrip()) else text


def _without_blocks(text, closes):
    """Return an answer without each block from an opening mark to the next closing one."""
    ends = [close.end() for close in closes]
    pieces, position = [], 0
    for opening in OPEN.finditer(text):
        following = bisect(ends, opening.end())
        if opening.start() >= position and following < len(ends):
            pieces.append(text[position : opening.start()])
            position = ends[following]
    return "".join([*pieces, text[position:]])


def _find_closes(text):
    """Return the matches of the closing marks that are no mentions of one."""
    # Each closing mark holds one of these, most texts hold none, and a search takes longer.
    if not ("<" in text or "[/" in text or "◁/" in text or "assistantfinal" in text):
        return []
    closes = list(CLOSE.finditer(text))
    fences = [fence.start() for fence in FENCE.finditer(text)]
    return [close for close in closes if not _is_mention(text, close, close is closes[0], fences)]


def _is_mention(text, close, is_first, fences):
    """Tell if a closing mark is in code, in the middle of a sentence, or in quotes."""
    n_before = bisect(fences, close.start())
    in_code = n_before % 2 and (len(fences) - n_before) % 2
    before = text[max(close.start() - 100, 0) : close.start()]
    after = text[close.end() : close.end() + 100]
    # What comes first may have ended the thinking in the middle of a line.
    in_sentence = not is_first and WORD_BEFORE.search(before) and WORD_AFTER.match(after)
    left, right = QUOTE_LEFT.search(before), QUOTE_RIGHT.match(after)
    in_quotes = left and right and left[1] == right[1]
    return in_code or in_sentence or in_quotes
