"""Text that spells a special token, such as <|im_end|> in a response, is plain text.

Once a chat template is rendered, its own marks and such text of a question look alike. So `hide`
puts signs into a question, response or critique before it is rendered, and `encode` reads as
special tokens only what has none. Texts without special tokens have the ids that they always had.
"""

import re
from functools import lru_cache

HIDDEN = "\ufdd0"  # a noncharacter: Unicode keeps it for the inside of a program


def hide(text: str, tokenizer) -> str:
    """Return the text with HIDDEN between the characters of each special token.

    HIDDEN itself is taken out of it. No tokenizer: a server has its own, and gets the text as it
    is.
    """
    if tokenizer is None:
        return text
    pattern = _pattern(tokenizer, len(tokenizer))
    return pattern.sub(lambda match: match[0].replace("", HIDDEN), reveal(text))


def reveal(text: str) -> str:
    """Return the text before `hide`."""
    return text.replace(HIDDEN, "")


def encode(texts: list, tokenizer, begin: bool = True) -> list:
    """Return the token ids of each rendered text.

    begin: with what the tokenizer puts before every text. What it puts behind one, an end token, is
    left out: the text goes on. One with hidden special tokens is read piece by piece, cut at the
    marks of its template.
    """
    first_ids = _begin_ids(tokenizer) if begin else []
    encoded = tokenizer(texts, add_special_tokens=False).input_ids
    for text, ids in zip(texts, encoded):
        if HIDDEN in text:
            ids.clear()
            pieces = _pattern(tokenizer, len(tokenizer)).split(text)
            for i, piece in enumerate(pieces):
                is_text = i % 2 == 0  # between two of them is a mark
                options = dict(add_special_tokens=False, split_special_tokens=is_text)
                ids += tokenizer(reveal(piece), **options).input_ids
        ids[:0] = first_ids
    return encoded


def _begin_ids(tokenizer):
    plain = tokenizer("a", add_special_tokens=False).input_ids
    ids = tokenizer("a").input_ids
    return ids[: ids.index(plain[0])] if plain else ids


def count_rows(rows: list, tokenizer) -> int:
    """Return how many rows hold the text of a special token in any of their fields."""
    pattern = _pattern(tokenizer, len(tokenizer))
    return sum(bool(pattern.search(str(row))) for row in rows)


@lru_cache(maxsize=8)
def _pattern(tokenizer, n_tokens):
    """Return a pattern of all special tokens; n_tokens changes if the tokenizer gets more."""
    texts = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    texts.sort(key=len, reverse=True)  # one may begin with another one
    return re.compile(f"({'|'.join(map(re.escape, texts)) or '(?!)'})")
