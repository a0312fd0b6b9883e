r"""Give one spelling to what TeX, models and data sets write in many ways.

The mathematics is untouched.
"""

import json
import re
import unicodedata
from pathlib import Path

# What is written, and how: {"\\le": ["\\leq", "≤", ...], ...}
SPELLINGS = {
    spelling: f"{name} " if re.fullmatch(r"\\[a-zA-Z]+", name) else name
    for name, spellings in json.loads(
        Path(__file__).with_name("spellings.json").read_text(encoding="utf-8")
    ).items()
    for spelling in spellings
}
SPELLING = re.compile(r"\\(?:[A-Za-z]+|\|)|[^\x00-\x7f]|[<>!]=")
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
WIDE = "[\u3000\uff01-\uffe6\u212a\u212b\u2103\u2109\u3300-\u33ff]+"  # not ², which would become 2
MONEY = {"€": "euros", "£": "sterling", "¥": "yen", "Rs": "rupees", "₹": "rupees"}
CODES = r"(?:USD|EUR|GBP|INR|CNY|RMB|JPY|Rs)\b\.?"
NAMES = (
    "sqrt|pi|infty|arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|csc|log|ln|exp"
    "|theta|alpha|beta|lambda|omega|sigma|phi"
)
SECANT = (  # sec x, but no seconds: 12 sec, m/sec^2
    r"(?<![\\A-Za-z§])((?:arc)?sec)(?=\s*(?:\^\s*\{?-?\d\}?\s*)?(?:[({\\]|[a-z](?![a-z])))"
)
ARGUMENT = r"(?:\{((?:[^{}]|\{[^{}]*\})*)\}|(\\[A-Za-z]+|\w))"  # {1} or 1
TEXT = r"\\(?:text|math(?:rm|it|sf|bf)|mbox|hbox|operatorname)\w*\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
GAP = r"(?:[\s/^{}()\d.~-]|\\(?:cdot|times|mu)(?![a-z])){0,30}"
UNITS_BEHIND = rf"(?<=[\w)}}%°.'!])(?<![{{_]){GAP}{TEXT}(?:{GAP}{TEXT})*"
GROUP = r"\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}"
UNITS_BELOW = rf"(?<=[\d}}]) ?\\frac{GROUP}{GROUP}"
SURE_UNITS = r"(?<![A-Za-z\\])(?:cm|mm|km|kg|mol|kJ|MeV|keV|GeV)(?![A-Za-z])"
CONNECTIVE = (
    r"\b(?:and|or|if|for|when|where|with|over|mod|modulo|is|are|to|about|roughly|approx\w*)\b"
)
MULTIPLES = {"K": "thousand", "k": "thousand", "M": "million", "B": "billion", "bn": "billion"}
WHERE = r"(?<=\S)\s*[,(]?\s*\bwhere\b.*$"  # names explained: 2a, where a is the side
ALIGNED = r"\\(?:begin|end)\{(?:align|aligned|equation|gather|split)\*?\}"
GROUPED = (  # 1,234 cm; 1'234'567; 1_000_000; 12,34,567
    r"[-+]?(?:\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+|(?:'\d{3})+|(?:_\d{3}){2,})"
    r"|\d{1,2}(?:,\d{2})+,\d{3})(?:\.\d+)?(?:\s*[§A-Za-z%°].*)?"
)


def compile_rules(rules: list) -> list:
    """Return the substitutions [(pattern, replacement)] with compiled patterns."""
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]


def rewrite(text: str, rules: list) -> str:
    """Return a text after the compiled substitutions, one after the other."""
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _currency(money):
    currency = (money[1] or "").rstrip(".")
    name = currency if currency.isalpha() and currency.isupper() else MONEY.get(currency, "dollars")
    return f"{money[2] or money[3] or money[4]} {name} "


def _fraction_of_units(fraction):
    r"""Return \frac{\text{kJ}}{\text{mol}} as \text{kJ}/\text{mol}."""
    above, below = fraction[1], fraction[2]
    if not re.search(rf"{TEXT}|{SURE_UNITS}", f"{above} {below}"):
        return fraction[0]
    above, below = (side if "\\" in side else rf"\text{{{side}}}" for side in (above, below))
    return f" {above}/{below}"


def _mark_words(text):
    """Return the words of a text with § before each, up to one that joins it with more."""
    words = re.split(CONNECTIVE, text[1], maxsplit=1)[0]
    marked = re.sub(r"(?<![\\A-Za-z])[^\W\d_]+", lambda word: f"§{word[0]}", words)
    return f" {marked}{text[1][len(words) :]} "


def _unit_of_body(unit):
    body = re.findall(BODY, unit[2])[0]
    return rf" \text{{ {unit[1]}{BODY_SIGNS.get(body, body.lower())}}}"


BODY_SIGNS = {r"\odot": "sun", "⊙": "sun", r"\oplus": "earth", "⊕": "earth"}
BODY = r"\\odot|⊙|\\oplus|⊕|(?i:sun|earth|jup(?:iter)?)"
INDEX = rf"(?:\\(?:text|mathrm)\s*\{{\s*(?:{BODY})\s*\}}|{BODY})"
UNIT_SPELLINGS = compile_rules(
    [
        (r"\\text\s*\{\s*\\AA\s*\}|\\AA(?![a-z])|\\mathring\s*\{?A\}?", " Å "),
        (  # M_\odot, R_{\text{Earth}}
            r"(?<=[\d}])(?:\s|\\[,;:! ]|~){0,9}"
            r"(?:\\(?:text|mathrm)\s*\{\s*)?([MLR])\s*\}?_\s*"
            rf"(\{{\s*{INDEX}\s*\}}|{INDEX})",
            _unit_of_body,
        ),
        (r"\^\s*\{?\s*\\prime\s*\\prime\s*\}?", "''"),
        (r"\{:\}", ":"),
    ]
)
SIGNS_OF_TEXT = compile_rules(
    [
        ("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda raised: f"^{{{raised[0].translate(RAISED)}}}"),
        ("[₀₁₂₃₄₅₆₇₈₉]+", lambda lowered: f"_{{{lowered[0].translate(LOWERED)}}}"),
        (r"\s+", " "),
        (r"(?<=\d)(?: ?\{ ?, ?\}|,\\!|,\\,|\\[,!;: ]|~)\s?(?=\d{3}(?!\d))", ""),  # 1{,}234  1\,234
        (  # $5, \$5, €5, 5\$
            rf"(\\\$|[€£¥₹]|{CODES})\s*(-?[\d.,]*\d)|^\s*\$\s?(-?[\d.,]*\d)(?=[^$]*$)"
            r"|(?<![\d.,$])(\d[\d.,]*)\s?\\\$",
            _currency,
        ),
        (r"\\?\$", " "),
    ]
)
ESCAPED_TWICE = compile_rules(
    [(r"\\\\(?=(?:[dtc]?frac|sqrt|pi|cdot|times|left|right|text|infty|pm|cup)(?![A-Za-z]))", r"\\")]
)
REWRITES = compile_rules(
    [
        # what separates
        (
            r"(?<=[\w)}\]]) *\\q?quad(?![a-z]) *(?=[-\d(]|\\(?:frac|sqrt|pi)(?![a-z])|[a-z] *=)",
            ", ",
        ),
        (r"\\q?quad(?![a-z])", " "),
        (r"\\(?:lor|vee)(?![a-z])|或者?", " or "),
        (r"和|以及", " and "),
        # TeX that only sets type
        (r"\\\\\[[^\]]*\]", r"\\\\"),  # \\[4pt]
        (
            r"\\(?:tiny|small|[lL]arge|huge|bf|it|rm|sf|tt|(?:display|text|script)style"
            r"|(?:no)?limits|thinspace|strut)(?![A-Za-z])",
            " ",
        ),
        (r"(?<!\\)\\[][,!;:() ]|~", " "),
        (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?", " "),
        (r"\s+", " "),
        (r"\\begin\{(cases|array)\}(?:\s*\{[lcr| ]*\})?", r"\\begin{\1}"),
        (r"\{,\}", ","),
        # one command for each operation
        (r"\\[dtc](frac|binom)", r"\\\1"),
        (r"\\big(cup|cap)(?![a-z])", r"\\\1"),
        (r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"\\%", "%"),
        (r"\\not\s*=", r"\\ne "),
        (r"\\\{\s*\\\}", r"\\emptyset"),
        (r"\\math(?:bb|cal|frak)\s*(?:\{\s*(\w)\s*\}|(\w))", r"\\mathbb{\1\2}"),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![a-z])|\\circ(?=\s*$)", "°"),
        (r"\^\s*\{?\s*\\prime\s*\}?", "'"),
        (r"\\[lc]?dots(?![a-z])|\.\.\.", r"\\cdots "),
        (  # 12^{th}
            r"(?<=\d)\s*\^\s*\{?\s*(?:\\(?:text|math)\w*\s*\{)?\s*(?:th|st|nd|rd)\b\s*\}?\}?",
            "",
        ),
        (r"\\(?:text|mathrm|operatorname)\s*\{\s*cis\s*\}", r"\\cis "),
        (UNITS_BELOW, _fraction_of_units),
        (  # joined to a number; 300 \text{ K} and 300\mathrm{K} are kelvin
            r"(?<=\d)\\text\{(K|k|M|B|bn)\}",
            lambda letter: f" §{MULTIPLES[letter[1]]} ",
        ),
        (UNITS_BEHIND, lambda texts: re.sub(TEXT, _mark_words, texts[0])),
        (
            r"\\(?:text|math|mbox|hbox|operatorname|boxed|fbox|underline|emph|ensuremath)(?!bb)"
            r"\w*\*?\s*\{((?:[^{}]|\{[^{}]*\})*)\}",
            r" \1 ",
        ),
        (r"(?<=\d)\s*(?:th|st|nd|rd)\b", ""),
        (r"\\(?:bold|boldsymbol|bm)\s*\{([^{}]*)\}", r"\1"),
        (
            r"\\(?:pmod|mod|bmod)(?![a-z])\s*\{?\s*(\w+)\s*\}?|\(\s*mod\s*(\w+)\s*\)",
            r"\\pmod{\1\2}",
        ),
        (rf"\\(frac|binom)\s*{ARGUMENT}\s*{ARGUMENT}", r"\\\1{\2\3}{\4\5}"),  # \frac12, \frac\pi4
        (  # 2 cis \frac{\pi}{3}
            r"\\?(?<![A-Za-z])cis\s*(?:\{([^{}]*)\}|\(([^()]*)\)|(\\frac\{[^{}]*\}\{[^{}]*\}))",
            r"(\\cos{\1\2\3} + i \\sin{\1\2\3})",
        ),
        # plain text for TeX: sqrt(3), x**2, x^(1/2), np.arcsin(1), -inf
        (r"(?<=[\w)}])\s*\*\*\s*(?=[\w({-])", "^"),
        (r"(?<=[\w)}])\s*\^\s*\(([^()]*)\)", r"^{\1}"),
        (r"(?<![A-Za-z\\])(?:np|math|numpy)\.(?=[a-z])", ""),
        (r"(?<![\\A-Za-z])inf(?:inity)?(?![A-Za-z])", r"\\infty "),
        (rf"(?<![\\A-Za-z§])({NAMES})(?![A-Za-z])", r"\\\1 "),
        (SECANT, r"\\\1 "),
        (r"\\((?:sin|cos|tan)h?|cot|sec|csc|log|ln)\s+\^", r"\\\1^"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*(\d+|\w|\\[a-z]+)", r"\\sqrt{\1}"),
        (r"\(\s*(\w+)\s*\)\s*_", r"\1_"),  # (4210)_5
        # words around an answer
        (r"(?i)(?<=:\d\d)\s*§?([ap])\.?\s?§?m\b\.?", lambda half: f" {half[1].lower()}m"),
        (r"^\s*(?:[Tt]herefore|[Tt]hus|[Ss]o|[Hh]ence),?\s+", ""),
        (r"^\s*(?:[Tt]he )?(?:[Ff]inal |[Cc]orrect )?[Aa]nswer\s*(?:is|:)\s*", ""),
        (
            r"^\s*(?:[Tt]he )?(?:open |closed |ordered )?(?:interval|set|point|function|value"
            r"|number|pair|matrix|vector|equation|integer)s?:?\s+(?=[\\(\[{\d-])"
            r"|^\s*(?:half-)?(?:open|closed)\s+(?=[(\[])",
            "",
        ),
        (
            r"^\s*(?:approximately|approx\.?|about|roughly|exactly|simply|only|equal to|just"
            r"|\\approx)\s+(?=\S)|^\s*大?约(?=\s*\d)",
            "",
        ),
        (  # (approximately 12.7)
            r"\s*(?:,\s*or|\()\s*(?:approx\.?|approximately|about|or about|roughly|\\approx)"
            r"\s[^()]*\)?[\s.]*$",
            "",
        ),
        (  # f(x) = 1 for all x
            r",?\s*\(?\bfor (?:all|any|every|each)\b[^=;]*?\)?(?=,?\s*(?:and|or)\b[^=]*=|;|$)",
            "",
        ),
        (  # {x | 0 < x < 1} is 0 < x < 1
            r"^\s*\\\{\s*\w\s*(?:\\in\s*\\mathbb\{R\}\s*)?[|:]([^{}|]*)\\\}[\s.,;]*$",
            r"\1",
        ),
        (r"\bi\.e\.,?", ","),
        (r"\s+", " "),
    ]
)


def fold_width(text: str) -> str:
    """Return a text with ASCII signs for full-width ones: ３，％ become 3,%."""
    return text if text.isascii() else re.sub(WIDE, _compatible, text)


def _compatible(wide):
    return unicodedata.normalize("NFKC", wide[0])


def normalize(answer: str) -> str:
    r"""Return an answer in normal form: no TeX that only sets type, one command an operation.

    >>> normalize(r"$\left( \dfrac12, \text{ 3 cm} \right)$.")
    '( \\frac{1}{2}, 3 cm )'
    """
    answer = SPELLING.sub(lambda spelling: SPELLINGS.get(spelling[0], spelling[0]), answer)
    answer = rewrite(fold_width(answer), [*UNIT_SPELLINGS, *SIGNS_OF_TEXT])
    if re.search(ALIGNED, answer):  # x &= 3 + 4 \\\\ &= 7
        answer = re.sub(r"&|\\\\", " ", re.sub(ALIGNED, " ", answer))
    if r"\begin" not in answer:
        answer = rewrite(answer, ESCAPED_TWICE)
        answer = re.sub(r"(?<=[\w)}\]]) ?\\\\ ?(?=[-\w(\\])", ", ", answer)  # 1 \\ 2 \\ 6
    answer = rewrite(answer, REWRITES).strip(" *:").rstrip(" .,;:*\\")
    answer = re.sub(r"^([\"'`])(.*)\1$", r"\2", answer).strip()
    if re.fullmatch(GROUPED, answer):
        answer = re.sub(r"(?<=\d)[, '_](?=\d{2})", "", answer)
    return answer


def remove_spaces(answer: str) -> str:
    """Return the form in which strings are compared: no spaces, but for those between digits.

    Braces around a single character go too: x_{1} is x_1, and 12_{10} is 12_10.
    """
    answer = re.sub(r"(?<!\d)\s+|\s+(?!\d)|§", "", answer)
    return re.sub(r"([_^])\{(\w)\}|(?<=\d)(_)\{(\d+)\}", r"\1\2\3\4", answer)
