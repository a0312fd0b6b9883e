"""The 25 kinds by hand, and texts and test sets that mean harm."""

from importlib.util import find_spec

import pytest

from common.ifeval.checkers import CHECKERS, GRADINGS, check_instruction

HAS_LIBRARIES = bool(find_spec("langdetect") and find_spec("punkt"))
needs_libraries = pytest.mark.skipif(not HAS_LIBRARIES, reason="needs requirements-ifeval.txt")
NEED_LIBRARIES = (
    "language:response_language",
    "length_constraints:number_sentences",
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
)
LEAST, LESS = {"relation": "at least"}, {"relation": "less than"}
FIRST = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Rain"}
PIZZA = {"prompt_to_repeat": "Praise pizza."}
GERMAN = "Der Regen fällt auf die Straße, und niemand ist heute unterwegs."
ENGLISH = "The rain falls on the street and nobody is out today"
CASES = {  # kind: its arguments, texts that follow it, texts that do not
    "keywords:existence": (
        {"keywords": ["rain", "sun"]},
        ["Sunny, then RAIN", "rain sun"],
        ["rain", "son and rain", ""],
    ),
    "keywords:frequency": (
        LEAST | {"keyword": "rain", "frequency": 2},
        ["Rain, rain", "rainrain"],  # parts of words count
        ["rain"],
    ),
    "keywords:forbidden_words": (
        {"forbidden_words": ["rain", "sun"]},
        ["rainy sunset"],  # whole words only
        ["the SUN", "no rain."],
    ),
    "keywords:letter_frequency": (
        {"let_relation": "at least", "letter": "#", "let_frequency": 2},
        ["#a #b"],
        ["#a"],
    ),
    "language:response_language": ({"language": "de"}, [GERMAN, "12 ..."], [ENGLISH]),
    "length_constraints:number_sentences": (
        LESS | {"num_sentences": 3},
        ["Dr. Ray is in. He waits.", "One"],
        ["One. Two. Three."],
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na *** b\n***"],  # blank at an end
        ["a\n\nb", "a *** *** b", "a***b***c"],
    ),
    "length_constraints:number_words": (
        LESS | {"num_words": 3},
        ["two words", "a - b"],
        ["it's it"],  # it, s, it
    ),
    "length_constraints:nth_paragraph_first_word": (
        FIRST,
        ["Sun.\n\nRain, all day.", "Sun\n\n'\"rain' or not", "Sun\n\n 'rain'"],
        ["Rain\n\nSun", "Sun\n\nRain\n\nSun", "Sun\n\nThe rain", "\n\nSun\n\nRain"],
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        ["[a] and [b]", "[[a] [] b]"],
        ["[a]", "[a [b]", "[a\n] [b]"],
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S Thanks", "p. p. s"],
        ["P.S. Thanks", "PPS"],
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  *b", "-\n-"],
        ["* a", "** a\n* b", "* a\n* b\n- c", "a * b\n* c"],
    ),
    "detectable_format:constrained_response": (
        {},
        ["I think: My answer is yes."],
        ["my answer is yes.", "My answer is perhaps."],
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and **b**", "*a* **b**"],
        ["*a*", "* * *b*", "*a\n* *b*"],
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Day", "num_sections": 2},
        ["Day 1\nSun\nDay 2\nRain", "Day1Day2"],
        ["Day 1", "Day one\nDay two", "day 1 day 2"],
    ),
    "detectable_format:json_format": (
        {},
        ['{"a": [1]}', '```json\n{"a": 1}\n```', "``` 1 ```"],
        ["{'a': 1}", 'Here: {"a": 1}', "[" * 99_999],
    ),
    "detectable_format:title": (
        {},
        ["<<Rain>>\nIt rains", "<< a >> b >>"],
        ["<Rain>", "<<>>", "<< >>", "<<a\n>>", ">>a<<"],
    ),
    "combination:two_responses": (
        {},
        ["Rain ****** Sun", "******\nRain\n******\nSun\n******"],
        ["Rain", "Rain ****** Rain", "a ****** ****** b", "a ****** b ****** c"],
    ),
    "combination:repeat_prompt": (
        PIZZA,
        ["praise pizza.\nIt is round."],
        ["Sure. Praise pizza.", "Praise"],
    ),
    "startend:end_checker": (
        {"end_phrase": "Any questions?"},
        ['Bye. any questions?" '],
        ["Any questions? No."],
    ),
    "startend:quotation": ({}, [' "a" ', '""'], ['"', '"a', "'a'"]),
    "change_case:capital_word_frequency": (
        {"capital_relation": "at least", "capital_frequency": 3},
        ["NASA and the U.S. of A.", "I DON'T", "R2-D2 (CANNOT)"],  # I, DO, N'T; CAN, NOT
        ["NASA-JPL Is IN", "1 2 3"],
    ),
    "change_case:english_capital": (
        {},
        ["THE WEATHER IS NICE AND WE ARE ALL GOING OUT FOR A LONG WALK"],
        [ENGLISH, "1 2 3", ""],
    ),
    "change_case:english_lowercase": ({}, [ENGLISH.lower()], [ENGLISH, GERMAN.lower()]),
    "punctuation:no_comma": ({}, ["no; none.", "،"], ["a, b"]),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_kind_by_hand(kind):
    if kind in NEED_LIBRARIES and not HAS_LIBRARIES:
        pytest.skip("needs requirements-ifeval.txt")
    arguments, followed, missed = CASES[kind]
    check_instruction(kind, arguments)
    assert [text for text in followed if not CHECKERS[kind](text, **arguments)] == []
    assert [text for text in missed if CHECKERS[kind](text, **arguments)] == []


def test_the_cases_are_all_kinds():
    assert CASES.keys() == CHECKERS.keys() and len(CHECKERS) == 25


def test_repaired_takes_the_paragraph_that_it_counted():
    """A blank first paragraph hides the second from the reference."""
    kind, text = "length_constraints:nth_paragraph_first_word", "\n\nSun\n\nRain"
    assert not GRADINGS["reference"][kind](text, **FIRST)
    assert GRADINGS["repaired"][kind](text, **FIRST)
    assert not GRADINGS["repaired"][kind]("\n\nRain\n\nSun", **FIRST)


@needs_libraries
def test_repaired_tells_the_language_of_capitals_by_small_letters():
    """langdetect takes these capitals for Vietnamese, and their small letters for English."""
    kind, text = "change_case:english_capital", "THE QUICK BROWN FOX"
    assert not GRADINGS["reference"][kind](text)
    assert GRADINGS["repaired"][kind](text)
    assert not GRADINGS["repaired"][kind](text.lower())
    assert not GRADINGS["repaired"][kind](GERMAN.upper())


UNUSABLE = [
    ("punctuation:no_dots", {}),
    ("no_comma", {}),
    (["punctuation:no_comma"], {}),
    ("punctuation:no_comma", {"num_words": 1}),
    ("length_constraints:number_words", {"num_words": 3}),
    ("length_constraints:number_words", LESS),
    ("length_constraints:number_words", LESS | {"num_words": "3"}),
    ("length_constraints:number_words", LESS | {"num_words": 3.5}),
    ("length_constraints:number_words", LESS | {"num_words": True}),
    ("length_constraints:number_words", LESS | {"num_words": 0}),
    ("length_constraints:number_words", {"relation": "at most", "num_words": 3}),
    ("length_constraints:number_words", {"relation": ["less than"], "num_words": 3}),
    ("detectable_format:number_bullet_lists", {"num_bullets": "2"}),
    ("keywords:existence", {"keywords": []}),
    ("keywords:existence", {"keywords": "rain"}),
    ("keywords:existence", {"keywords": [1]}),
    ("keywords:forbidden_words", {"forbidden_words": [" "]}),
    ("language:response_language", {"language": "Elvish"}),
    ("language:response_language", {"language": None}),
    ("startend:end_checker", {"end_phrase": ""}),
]


@pytest.mark.parametrize("kind, arguments", UNUSABLE)
def test_what_cannot_be_checked_is_an_error(kind, arguments):
    with pytest.raises((ValueError, TypeError)):
        check_instruction(kind, arguments)


def test_words_of_a_test_set_are_no_regular_expressions():
    """ "(a+)+$" as a pattern would not end on this text, and "." would be found in any."""
    text = "a" * 5000 + "b"
    assert not CHECKERS["keywords:existence"](text, keywords=["(a+)+$"])
    assert not CHECKERS["keywords:existence"](text, keywords=["."])
    assert CHECKERS["keywords:forbidden_words"](text, forbidden_words=["(a+)+$", "a.*"])
    assert not CHECKERS["detectable_format:multiple_sections"](
        "(a+)+ 1", section_spliter="(a+)+$", num_sections=1
    )


N = 30_000
HOSTILE = {
    "brackets": "[" * N,
    "angles": "<" * N,
    "titles": "<<a" * N,
    "stars": "*" * N,
    "stars and letters": "*a" * N,
    "blank lines": "\n" * N,
    "blanks": " " * N,
    "blank lines with blanks": " \n" * N,
    "stops": "." * N,
    "initials": "p. " * N,
    "quotes": "\"'" * N,
    "apostrophes": "a'" * N,
    "a word": "x" * N,
    "digits": "SECTION" + "1" * N,
    "combining": "a" + "\u0301" * N,
    "null": "\0" * N,
    "surrogates": "\ud800" * N,
    "objects": '{"a":' * N,
    "a number": "1" * N,
    "capitals": "I'M CANNOT, " * (N // 10),
    "addresses": "a@" * N,
    "links": "http://" * (N // 7),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_more_than_linear_time(name):
    """With a pattern that tries every start to the end of the text this takes minutes."""
    for kind, (arguments, _, _) in CASES.items():
        if kind not in NEED_LIBRARIES or HAS_LIBRARIES:
            CHECKERS[kind](HOSTILE[name], **arguments)
