"""Text that models, servers and data sets wrote, made harmless for a terminal and for Markdown."""

import re
import unicodedata


def printable(text: str) -> str:
    """Return a text that a terminal may show; its control characters are written out.

    An escape sequence could clear the screen, or hide what was printed before it.

    >>> printable("a\\x1b[2Jb\\n")
    'a\\\\x1b[2Jb\\n'
    """
    characters = []
    for character in text:
        if unicodedata.category(character)[0] == "C" and character not in "\n\t":
            character = character.encode("unicode_escape").decode()
        characters.append(character)
    return "".join(characters)


def escape(text: str, limit: int = 100) -> str:
    """Return any text as one line that Markdown shows as it is.

    Nothing in it ends a cell, or opens a tag, a link or a formula.

    >>> escape("a|b\\n<i>")
    'a\\\\|b \\\\<i\\\\>'
    """
    return re.sub(r"([\\`*\[\]<>|&$~#])", r"\\\1", shorten(text, limit))


def shorten(text: str, limit: int) -> str:
    """Return one line of printable characters, without the middle of a text that is too long."""
    characters = [c if c.isprintable() else " " for c in text[:10_000]]
    line = " ".join("".join(characters).split()) or "(no name)"
    if len(line) <= limit:
        return line
    half = limit // 2
    return f"{line[: half - 1]}…{line[-half:]}"
