"""Text of a stranger on a terminal. What Markdown makes of it: tests/data/test_report.py."""

from common.core.untrusted import printable


def test_no_control_character_reaches_a_terminal():
    """ESC clears a screen, CR and BS overwrite, CSI may be one byte, U+202E turns lines round."""
    hostile = "a\x1b[2Jb\x1b]0;title\x07c\rd\be\x9b31mf\u202eg\x00h\x7f\ud800"
    text = printable(hostile)
    assert text.isprintable() and text.encode()
    assert [letter for letter in "abcdefgh" if letter not in text] == []
    assert "\\x1b[2J" in text and "\\u202e" in text


def test_ordinary_text_stays_as_it_is():
    for text in ("1\t2\n3", "π ≤ 4, 漢字\u3000مرحبا 🙂", "a\u00a0b", ""):
        assert printable(text) == text
