"""The 25 kinds of instruction of IFEval: a table, kind -> how a text is checked.

Written from the public description (arXiv 2311.07911) and measured against the reference checkers,
verdict by verdict. `CHECKERS` decides as these do, with what is wrong in them; `REPAIRED` replaces
two of them. A third one is repaired in both: the reference draws a letter at random where an item
asks for "#" or "!" (keys 1122 and 1129); here the sign is counted.

A checker's parameters, after the text, are the arguments of its kind. Texts are hostile: every
search takes time linear in the text, and no text of a test set is read as a regular expression.
"""

import inspect
import json
import operator
import re

from common.ifeval.language_tools import count_capital_words, detect_language, split_sentences

RELATIONS = {"less than": operator.lt, "at least": operator.ge}
LANGUAGES = (  # that langdetect can tell
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr "
    "ne nl no pa pl pt ro ru sk sl so sq sv sw ta te th tl tr uk ur vi zh-cn zh-tw"
)
ALLOWED_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
JSON_FENCE = re.compile(r"\A(?:```json)?(?:```Json)?(?:```JSON)?(?:```)?")
FIRST_WORD = re.compile(r"""\s*'*"*([^\s.,?!'"]*)""")
ENGLISH = ("en", None)  # None: nothing tells the language, which the reference lets pass


# --- keywords -----------------------------------------------------------------------------------


def _find_all(word, text):
    return re.findall(re.escape(word), text, re.IGNORECASE)


def has_keywords(text, keywords):
    return all(_find_all(word, text) for word in keywords)


def repeats_keyword(text, relation, keyword, frequency):
    return RELATIONS[relation](len(_find_all(keyword, text)), frequency)


def avoids_words(text, forbidden_words):
    words = "|".join(map(re.escape, forbidden_words))
    return not re.search(rf"(?i)\b(?:{words})\b", text)


def repeats_letter(text, let_relation, letter, let_frequency):
    return RELATIONS[let_relation](text.lower().count(letter.lower()), let_frequency)


# --- language, length ---------------------------------------------------------------------------


def is_in_language(text, language):
    return detect_language(text) in (language, None)


def counts_sentences(text, relation, num_sentences):
    return RELATIONS[relation](len(split_sentences(text)), num_sentences)


def counts_words(text, relation, num_words):
    return RELATIONS[relation](len(re.findall(r"\w+", text)), num_words)


def _split_parts(text, divider):
    """Return the parts of a text, without a blank first or last one; none if another is blank."""
    parts = list(map(str.strip, text.split(divider)))
    return list(filter(None, parts)) if all(parts[1:-1]) else []


def counts_paragraphs(text, num_paragraphs):
    return len(_split_parts(text, "***")) == num_paragraphs


def starts_paragraph(text, num_paragraphs, nth_paragraph, first_word):
    """Blank paragraphs are not counted, but the nth is taken among all, as in the reference."""
    paragraphs = text.split("\n\n")
    if not len(list(filter(str.strip, paragraphs))) == num_paragraphs >= nth_paragraph:
        return False
    words = FIRST_WORD.findall(paragraphs[nth_paragraph - 1])
    return words[0].lower() == first_word.lower()


def starts_paragraph_repaired(text, **arguments):
    """Blank paragraphs are neither counted nor taken."""
    paragraphs = filter(str.strip, text.split("\n\n"))
    return starts_paragraph("\n\n".join(paragraphs), **arguments)


# --- content, format ----------------------------------------------------------------------------


def has_placeholders(text, num_placeholders):
    return len(re.findall(r"\[[^\[\]\n]*\]", text)) >= num_placeholders


def has_postscript(text, postscript_marker):
    """The marker in any case, and with a space after each of its stops: P. P. S"""
    marker = re.escape(postscript_marker.strip().lower())
    return re.search(marker.replace(r"\.", r"\.\s?"), text.lower())


def counts_bullets(text, num_bullets):
    stars = re.findall(r"(?m)^[^\S\n]*\*[^*].*$", text)
    dashes = re.findall(r"(?m)^[^\S\n]*-", text)
    return len(stars + dashes) == num_bullets


def is_allowed_answer(text):
    return any(answer in text for answer in ALLOWED_ANSWERS)


def has_highlights(text, num_highlights):
    """Counts *this* and **this**, and reads the stars of **this** twice, as the reference does."""
    highlights = re.findall(r"\*([^\n*]*)\*", text) + re.findall(r"\*\*([^\n*]*)\*\*", text)
    return len(list(filter(str.strip, highlights))) >= num_highlights


def has_sections(text, section_spliter, num_sections):
    return len(re.findall(re.escape(section_spliter) + r"\s?\d+", text)) >= num_sections


def has_title(text):
    for line in text.split("\n"):
        title, _, _ = line.partition("<<")[2].rpartition(">>")
        if title.lstrip("<").rstrip(">").strip():
            return True
    return False


def is_json(text):
    try:
        json.loads(JSON_FENCE.sub("", text.strip()).removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


# --- whole answers ------------------------------------------------------------------------------


def gives_two_responses(text):
    responses = _split_parts(text, "******")
    return len(responses) == len(set(responses)) == 2


def repeats_prompt(text, prompt_to_repeat):
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends_with(text, end_phrase):
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def is_quoted(text):
    return re.fullmatch(r'(?s)".*"', text.strip())


# --- case, punctuation --------------------------------------------------------------------------


def is_capital(text):
    return text.isupper() and detect_language(text) in ENGLISH


def is_capital_repaired(text):
    """The language of a text in capitals is told by its small letters."""
    return text.isupper() and detect_language(text.lower()) in ENGLISH


def is_lowercase(text):
    return text.islower() and detect_language(text) in ENGLISH


def repeats_capital_words(text, capital_relation, capital_frequency):
    return RELATIONS[capital_relation](count_capital_words(text), capital_frequency)


def has_no_comma(text):
    return "," not in text


# --- the tables ---------------------------------------------------------------------------------

CHECKERS = {
    "keywords:existence": has_keywords,
    "keywords:frequency": repeats_keyword,
    "keywords:forbidden_words": avoids_words,
    "keywords:letter_frequency": repeats_letter,
    "language:response_language": is_in_language,
    "length_constraints:number_sentences": counts_sentences,
    "length_constraints:number_paragraphs": counts_paragraphs,
    "length_constraints:number_words": counts_words,
    "length_constraints:nth_paragraph_first_word": starts_paragraph,
    "detectable_content:number_placeholders": has_placeholders,
    "detectable_content:postscript": has_postscript,
    "detectable_format:number_bullet_lists": counts_bullets,
    "detectable_format:constrained_response": is_allowed_answer,
    "detectable_format:number_highlighted_sections": has_highlights,
    "detectable_format:multiple_sections": has_sections,
    "detectable_format:json_format": is_json,
    "detectable_format:title": has_title,
    "combination:two_responses": gives_two_responses,
    "combination:repeat_prompt": repeats_prompt,
    "startend:end_checker": ends_with,
    "startend:quotation": is_quoted,
    "change_case:capital_word_frequency": repeats_capital_words,
    "change_case:english_capital": is_capital,
    "change_case:english_lowercase": is_lowercase,
    "punctuation:no_comma": has_no_comma,
}
REPAIRED = CHECKERS | {
    "length_constraints:nth_paragraph_first_word": starts_paragraph_repaired,
    "change_case:english_capital": is_capital_repaired,
}
GRADINGS = {"reference": CHECKERS, "repaired": REPAIRED}


def check_instruction(kind: str, arguments: dict):
    """Raise ValueError or TypeError unless the kind is known and has all its arguments, usable.

    What nobody checks would be a pass for every model.
    """
    if kind not in CHECKERS:
        raise ValueError(f"unknown kind of instruction {kind!r}")
    inspect.signature(CHECKERS[kind]).bind("", **arguments)
    for name, value in arguments.items():
        if not _is_usable(name, value):
            raise ValueError(f"{kind} {name}={value!r}")


def _is_usable(name, value):
    if name.startswith(("num_", "nth_")) or name.endswith("frequency"):
        return type(value) is int and value > 0
    if name.endswith("relation"):
        return value in RELATIONS
    if name == "language":
        return value in LANGUAGES.split()
    texts = value if name.endswith("words") else [value]
    return isinstance(texts, list) and bool(texts) and all(map(str.strip, texts))
