r"""One spelling for what TeX, models and data sets write in many ways; the mathematics is untouched."""

import re

SIGNS = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": "/", "⁄": "/", "∞": r"\infty ",
     "∪": r"\cup ", "∩": r"\cap ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ",
     "∓": r"\mp ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "√": r"\sqrt ", "∠": r"\angle ", "⟨": "(", "⟩": ")",
     "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "", "’": "'", "′": "'", "“": '"', "”": '"', "º": "°", "…": r"\cdots ",
     "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅛": r"\frac{1}{8}"}
    | {letter: rf"\{name} " for letter, name in zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega "
        "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split(),
    )}
)  # fmt: skip
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

NAMES = "sqrt|pi|infty|arcsin|arccos|arctan|arcsec|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|theta|alpha|beta|lambda|omega|sigma|phi"


def _braced(part: str) -> str:
    return part if part[0] == "{" else f"{{{part}}}"


TOKEN = r"(\\[A-Za-z]+|\w|\{(?:[^{}]|\{[^{}]*\})*\})"  # an argument in TeX
REWRITES = [
    # TeX that only sets type
    (r"\\\\\[[^\]]*\]", r"\\\\"),  # \\[4pt]
    (r"\\(?:tiny|small|[lL]arge|huge|bf|it|rm|sf|tt|(?:display|text|script)style|(?:no)?limits|q?quad|thinspace|strut)(?![A-Za-z])", " "),
    (r"(?<!\\)\\[][,!;:() ]|~", " "),
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?", " "), (r"\s+", " "),
    (r"\\begin\{(cases|array)\}(?:\s*\{[lcr| ]*\})?", r"\\begin{\1}"),
    (r"\{,\}", ","),
    # one command for each operation
    (r"\\[dtc](frac|binom)", r"\\\1"), (r"\\big(cup|cap)(?![a-z])", r"\\\1"), (r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}", r"\\frac{\1}{\2}"), (r"\\%", "%"),
    (r"\\lbrace(?![a-z])", r"\\{"), (r"\\rbrace(?![a-z])", r"\\}"), (r"\\lbrack(?![a-z])", "["), (r"\\rbrack(?![a-z])", "]"),
    (r"\\langle(?![a-z])", "("), (r"\\rangle(?![a-z])", ")"), (r"\\[lr]?vert(?![a-z])|\\[lr]?[|](?![a-z])|\\mid(?![a-z])", "|"),
    (r"\\leq(?:slant|q)?(?![a-z])|<=", r"\\le "), (r"\\geq(?:slant|q)?(?![a-z])|>=", r"\\ge "), (r"\\neq(?![a-z])|!=|\\not\s*=", r"\\ne "),
    (r"\\lt(?![a-z])", "<"), (r"\\gt(?![a-z])", ">"), (r"\\(?:simeq|sim|thickapprox)(?![a-z])", r"\\approx "),
    (r"\\(?:varnothing|O)(?![a-z])|\\\{\s*\\\}", r"\\emptyset"), (r"\\var(phi|epsilon|theta|rho|sigma|pi)(?![a-z])", r"\\\1"),
    (r"\\backslash(?![a-z])", r"\\setminus"), (r"\\(?:Reals|R)(?![a-z])", r"\\mathbb{R}"),
    (r"\\math(?:bb|cal|frak)\s*(?:\{\s*(\w)\s*\}|(\w))", r"\\mathbb{\1\2}"),
    (r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![a-z])|\\circ(?=\s*$)", "°"), (r"\^\s*\{?\s*\\prime\s*\}?", "'"),
    (r"\\[lc]?dots(?![a-z])|\.\.\.", r"\\cdots "),
    (r"(?<=\d)\s*\^\s*\{?\s*(?:\\(?:text|math)\w*\s*\{)?\s*(?:th|st|nd|rd)\b\s*\}?\}?", ""),  # 12^{th}
    (r"\\(?:text|math|mbox|hbox|operatorname|boxed|fbox|underline|emph|ensuremath)(?!bb)\w*\*?\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 "),
    (r"(?<=\d)\s*(?:th|st|nd|rd)\b", ""), (r"(?<=\d)\s*thousand\b", r"\\times 10^{3}"), (r"(?<=\d)\s*million\b", r"\\times 10^{6}"),
    (r"(?<=\d)\s*billion\b", r"\\times 10^{9}"), (r"(?<=\d)\s*trillion\b", r"\\times 10^{12}"),
    (r"\\(?:bold|boldsymbol|bm)\s*\{([^{}]*)\}", r"\1"),
    (r"\\(?:pmod|mod|bmod)(?![a-z])\s*\{?\s*(\w+)\s*\}?|\(\s*mod\s*(\w+)\s*\)", r"\\pmod{\1\2}"),
    (rf"\\(frac|binom)\s*{TOKEN}\s*{TOKEN}", lambda tex: rf"\{tex[1]}{_braced(tex[2])}{_braced(tex[3])}"),  # \frac12, \frac\pi4
    # plain text for TeX: sqrt(3), x**2, x^(1/2), np.arcsin(1), -inf
    (r"(?<=[\w)}])\s*\*\*\s*(?=[\w({-])", "^"), (r"(?<=[\w)}])\s*\^\s*\(([^()]*)\)", r"^{\1}"),
    (r"(?<![A-Za-z\\])(?:np|math|numpy)\.(?=[a-z])", ""),
    (r"(?<![\\A-Za-z])inf(?:inity)?(?![A-Za-z])", r"\\infty "), (rf"(?<![\\A-Za-z])({NAMES})(?![A-Za-z])", r"\\\1 "),
    (r"\\((?:sin|cos|tan)h?|cot|sec|csc|log|ln)\s+\^", r"\\\1^"),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"), (r"\\sqrt\s*(\d+|\w|\\[a-z]+)", r"\\sqrt{\1}"),
    (r"\(\s*(\w+)\s*\)\s*_", r"\1_"),  # (4210)_5
    # words around an answer
    (r"^\s*(?:[Tt]herefore|[Tt]hus|[Ss]o|[Hh]ence),?\s+", ""),
    (r"^\s*(?:[Tt]he )?(?:[Ff]inal |[Cc]orrect )?[Aa]nswer\s*(?:is|:)\s*", ""),
    (r"^\s*(?:[Tt]he )?(?:open |closed |ordered )?(?:interval|set|point|function|value|number|pair|matrix|vector|equation|integer)s?:?\s+"
     r"(?=[\\(\[{\d-])", ""),
    (r"^\s*(?:approximately|approx\.?|about|roughly|exactly|simply|only|equal to|just|\\approx)\s+(?=\S)", ""),
    (r"\s*(?:,\s*or|\()\s*(?:approx\.?|approximately|about|or about|roughly|\\approx)\s[^()]*\)?\s*$", ""),  # (approximately 12.7)
    (r",?\s*\(?\bfor (?:all|any|every|each)\b[^=;]*?\)?(?=,?\s*(?:and|or)\b[^=]*=|;|$)", ""),  # f(x) = 1 for all x
    (r"^\s*\\\{\s*\w\s*(?:\\in\s*\\mathbb\{R\}\s*)?[|:]([^{}|]*)\\\}[\s.,;]*$", r"\1"),  # {x | 0 < x < 1} is 0 < x < 1
    (r"\bi\.e\.,?", ","), (r"\s+", " "),
]  # fmt: skip
REWRITES = [(re.compile(pattern), replacement) for pattern, replacement in REWRITES]
ESCAPED_TWICE = re.compile(
    r"\\\\(?=(?:[dtc]?frac|sqrt|pi|cdot|times|left|right|text|infty|pm|cup)(?![A-Za-z]))"
)
THOUSANDS = re.compile(
    r"(?<=\d)(?: ?\{ ?, ?\}|,\\!|,\\,|\\[,!;: ]|~)\s?(?=\d{3}(?!\d))"
)  # 1{,}234  1,\!234  1\,234
ALIGNED = re.compile(r"\\(?:begin|end)\{(?:align|aligned|equation|gather|split)\*?\}")
GROUPED = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?(?:\s*[A-Za-z%°].*)?")
CURRENCY = re.compile(
    r"(\\\$|[€£¥])\s*(-?[\d.,]*\d)|^\s*\$\s?(-?[\d.,]*\d)(?=[^$]*$)|(?<![\d.,$])(\d[\d.,]*)\s?\\\$"
)
MONEY = {"€": "euros", "£": "pounds sterling", "¥": "yen"}
WHERE = re.compile(r"(?<=\S)\s*[,(]?\s*\bwhere\b.*$")


def normalize(answer: str) -> str:
    """An answer in normal form: without TeX that only sets type, with one command for each operation."""
    answer = re.sub(
        "[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda raised: "^{" + raised[0].translate(RAISED) + "}", answer
    )
    answer = re.sub(
        "[₀₁₂₃₄₅₆₇₈₉]+", lambda lowered: "_{" + lowered[0].translate(LOWERED) + "}", answer
    ).translate(SIGNS)
    answer = THOUSANDS.sub("", re.sub(r"\s+", " ", answer))
    answer = CURRENCY.sub(
        lambda money: f"{money[2] or money[3] or money[4]} {MONEY.get(money[1], 'dollars')} ",
        answer,
    )
    answer = re.sub(r"\\?\$", " ", answer)
    if ALIGNED.search(answer):  # x &= 3 + 4 \\\\ &= 7
        answer = re.sub(r"&|\\\\", " ", ALIGNED.sub(" ", answer))
    if r"\begin" not in answer:
        answer = ESCAPED_TWICE.sub(r"\\", answer)
    for pattern, replacement in REWRITES:
        answer = pattern.sub(replacement, answer)
    answer = re.sub(r"^([\"'`])(.*)\1$", r"\2", answer.strip(" *:").rstrip(" .,;:*\\")).strip()
    if GROUPED.fullmatch(answer):
        answer = re.sub(r"(?<=\d)[, ](?=\d{3})", "", answer)
    return answer


def remove_spaces(answer: str) -> str:
    """Without spaces (except between digits) and without braces around a single token: the form in which strings are compared."""
    return re.sub(
        r"([_^])\{(\w)\}|(?<=\d)(_)\{(\d+)\}",
        r"\1\2\3\4",
        re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", answer),
    )
