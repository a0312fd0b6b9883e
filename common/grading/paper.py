r"""Grade by the rules of the paper's released evaluation code.

This gives a second column next to the strict score, and nothing else.

Where it is lax, so that its score is no measure of right answers:
- Numbers are equal if they agree after rounding BOTH to one decimal (27.04 = 27.01,
  0.04 = 0 = -0.012), or within 1e-4, relatively, integers too (28799 = 28800), or if one is 100
  times the other (50 = 0.5); every % sign is dropped.
- 10^{n} anywhere in both answers decides alone, unless \times precedes it:
  3\cdot10^{5} = 4\cdot10^{5}.
- Braces and parentheses do not count: (-\infty,0) = (-\infty,0], (1,2) = 1,2.
- What follows the last "=" is compared alone: y'+ry=0 is 0, a=5 is b=5.
- Words taken for units are deleted if nothing is joined to them, letters too: \boxed{3 c} is 3,
  \boxed{a+b} is +b, (a) = (d). A gold of such words alone (east) is met by any answer.
- Its parser reads as far as it can and drops the rest: 1,78 = 1,-2 and 4210_5 = 4210_6.
- A gold A to E is met by the first such letter behind the last "answer is", or the last one of a
  text without it.
Where it is too strict: \fbox, an unclosed last box, \displaystyle, mixed numbers, 1{,}234, lists in
another order.
"""

# Differs from the paper: LaTeX goes to math-verify's grammar in a limited worker, not to sympy's
# parse_latex and parse_expr (an eval).
import re
from functools import lru_cache, partial
from math import isclose

from common.grading import sympy_worker
from common.grading.normalize_latex import compile_rules, rewrite
from common.grading.read_numbers import NUMBER_WORDS

MAX_TEXT, MAX_ANSWER = 1_000_000, 2_000  # longer answers are compared as strings
SECONDS = 4.0  # of CPU time, for all symbolic comparisons of one answer

UNIT_WORDS = (  # a dot is any character in them
    "east;degree;mph;kmph;ft;m sqaure; m east;sq m;deg;mile;q .;monkey;prime;ratio;"
    "profit of rs;rd;o;gm;p . m;lb;tile;per;dm;lt;gain;ab;way;west;a .;b .;c .;d .;e .;f .;"
    "g .;h .;t;a;h;no change;men;soldier;pie;bc;excess;st;inches;noon;percent;by;gal;kmh;c;"
    "acre;rise;a . m;th;π r 2;sq;mark;l;toy;coin;sq . m;gallon;° f;profit;minw;yr;women;feet;"
    "am;pm;hr;cu cm;square;v â € ™;are;rupee;rounds;cubic;cc;mtr;s;ohm;number;kmph;day;hour;"
    "minute;min;second;man;woman;sec;cube;mt;sq inch;mp;∏ cm ³;hectare;more;sec;unit;cu . m;"
    "cm 2;rs .;rs;kg;g;month;km;m;cm;mm;apple;liter;loss;yard;pure;year;increase;decrease;d;"
    "less;Surface;litre;pi sq m;s .;metre;meter;inch"
)
UNITS = UNIT_WORDS.split(";")
UNITS += [unit + "s" for unit in UNITS]
UNIT_RULES = compile_rules([(rf"(^|\W){unit}($|\W)", r"\1\2") for unit in UNITS])
LETTERS = set("ABCDE")
OTHER_BRACKET = {"[]": "(", "()": "["}
LABEL = r"^\s*[^=]{0,2}\s*="  # x=, a_=
IN_BRACKETS = r"[(\[].+[)\]]"
MATRIX = r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}"
TIMES_TEN = r"(?<!\d)(\d+(?:\.\d*)?)\\times10\^\{?([+-]?\d+)\}?"  # 3\times10^{8}
TEN = r"10\^\{([+-]?\d+)\}"  # 10^{8}

# The released clean-up, in its order: what comes before the units, ...
COMMANDS = compile_rules(
    [
        (r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}"),
        (r"\\end\{array\}", r"\\end{pmatrix}"),
        ("bmatrix", "pmatrix"),
        ("[td]frac", "frac"),
        (r"\\(ne|le|ge)q", r"\\\1"),
        (r"\\left|\\right", ""),
        (r"\\([{}])", r"\1"),
    ]
)
# ... between units and number words, ...
DELIMITERS = compile_rules([(r"\^\{\\circ\}|\^\\circ|\\?\$|\\[()]", "")])
NAMES = compile_rules(
    [  # ... after number words, ...
        (r"\\text\{(.*?)\}", r"\1"),
        (r"[xyz](?:=|\\in|\\to)", ""),
        (r"\\emptyset", "{}"),
        (r"\(-\\infty,\\infty\)", r"\\mathbb{R}"),
        (r"\\?%", ""),
        (r"([ {])\.", r"\g<1>0."),
        ("infinity", r"\\infty"),
    ]
)
FONTS = compile_rules(
    [("and", ""), (r"\\mathbf", ""), (r"\\mbox\{.*?\}", "")]
)  # ... after infinity, ...
NUMBERS = compile_rules(
    [  # ... and at the end
        (r"(\d+)\.0*([^\d])", r"\1\2"),
        (r"(\d+)\.0*$", r"\1"),
        (r"^\.", "0."),
        (r"^[^=]{0,2}=([^=]*)$", r"\1"),
        (r"\\sqrt(\w+)", r"\\sqrt{\1}"),
        (" ", ""),
        (r"\\frac([^{])\{", r"\\frac{\1}{"),
        (r"\\frac([^{])([^{])", r"\\frac{\1}{\2}"),
        (r"^(-?\d+|[^/]*sqrt[^/]*)/(-?\d+|[^/]*sqrt[^/]*)$", r"\\frac{\1}{\2}"),
    ]
)


def is_correct(text: str, gold: str, units: bool = True) -> bool:
    """Return whether a whole model output gives the gold answer by the released rules.

    units=False: as for Minerva-Math, where unit words stay. What needs longer than SECONDS is
    wrong, and so is anything that is not a string. Nothing raises.
    """
    return _grade(text, gold, units)[0]


def grade_many(
    texts: list, golds: list, units: bool = True, choices: str = ""
) -> list[tuple[bool, bool]]:
    """Return (is_correct(), whether it ran out of time) for every pair; equal pairs count once.

    With choices ("ABCD") the gold is compared with extract_option(); without a letter it is wrong.
    """
    if choices:
        options = [extract_option(text, choices) for text in texts]
        return [(option == gold, False) for option, gold in zip(options, golds, strict=True)]
    return sympy_worker.map_unique(partial(_grade, units=units), texts, golds)


def extract_option(text: str, letters: str) -> str | None:
    """Return the option letter that the released MMLU-Pro code reads, None if it guesses at random.

    For GPQA the paper's text says as much; its chain is taken to be the same.
    """
    stated = re.search(rf"answer is \(?([{letters}])\)?", text)
    if stated:
        return stated[1]
    last = re.search(rf"^.*[aA]nswer:\s*([{letters}])", text, re.M)  # of the first line with one
    if last:
        return last[1]
    lone = re.findall(rf"\b([{letters}])\b", text)
    return lone[-1] if lone else None


def _grade(text, gold, units):
    """Return (correct, timed out)."""
    if type(text) is not str or type(gold) is not str or not gold.strip():
        return False, False
    text = text[-MAX_TEXT:]
    gold = _clean(_clean(gold[:MAX_TEXT], units), units)
    answer = _clean(_clean(_extract(text), units), units)
    if gold in LETTERS and answer not in LETTERS:
        answer = _extract_letter(text)
    elif set(gold) <= LETTERS:
        answer = re.sub("[^A-E]", "", answer)
    try:
        return _Comparison().equal(answer, gold), False
    except (TimeoutError, RecursionError):
        return False, True


def _extract_letter(text):
    """Return the first lone A to E behind the last "answer is" or "choice is".

    Of a text without them this is the last one.
    """
    if text.count("choice is") > 1 or text.count("answer is") > 1:
        text = text.split("\n\n")[0]
    *before, end = re.split("choice is|answer is", text.strip("\n"))
    letters = re.findall(r"\b([A-E])\b", end.upper())
    if not letters:
        return end.strip("\n .:/")
    return letters[0] if before else letters[-1]


def _extract(text):
    """Return the last box, else what follows the last cue, else the last number, else ""."""
    cue = "he answer is" if "he answer is" in text else "final answer is"
    if "final answer is $" in text and "$. I hope" in text:
        answer = text.split("final answer is $", 1)[1].split("$. I hope", 1)[0]
    elif "boxed" in text:
        answer = _box_content(text.rpartition("boxed")[2])
    elif cue in text:
        answer = text.rpartition(cue)[2]
    else:
        answer = (re.findall(r"-?\d*\.?\d+", text.replace(",", "")) or [""])[-1]
    answer = re.sub(r"\n\s*", "", answer.strip())
    return answer.removeprefix(":").removesuffix(".").removesuffix("/")


def _box_content(text):
    """Return what the brace at the start of a text encloses, or, without one, what precedes a $."""
    if not text.startswith("{"):
        return text.split("$")[0]
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return text[1:position]
    return text[1:]


def _clean(answer, units):
    """Return an answer after the released clean-up."""
    answer = answer.strip().replace("\n", "").rstrip(".").replace(r"\!", "")
    return answer if len(answer) > MAX_ANSWER else _rewritten(answer, units)


@lru_cache(maxsize=10_000)  # models give the same answers, and gold is compared with each
def _rewritten(answer, units):
    answer = rewrite(answer, COMMANDS)
    answer = re.sub(r"\\text\{.*?\}$", "", answer).strip() or answer
    if units and re.search("[A-Za-z]", answer):
        for unit, edges in UNIT_RULES * 2:
            answer = unit.sub(edges, answer) or answer
    answer = rewrite(_number_in_words(rewrite(answer, DELIMITERS)), NAMES)
    if r"\infty" not in answer:
        answer = answer.replace("inf", r"\infty")
    answer = rewrite(answer, FONTS)
    if "i" not in answer:
        answer = answer.replace("j", "i")
    return rewrite(answer, NUMBERS)


def _number_in_words(answer):
    """Return the number that the number words of a text form; a text without them stays.

    By hand: twenty-one apples is 21, two hundred five is 205, 025 is 25.
    """
    if answer.isascii() and answer.isdigit():
        return str(int(answer))
    words = answer.replace("-", " ").lower().split()
    values = [NUMBER_WORDS[word] for word in words if word in NUMBER_WORDS]
    if not values:
        return answer
    hundreds = values.index(100) if 100 in values else 0
    if hundreds:
        return str(sum(values[:hundreds]) * 100 + sum(values[hundreds + 1 :]))
    return str(sum(values))


def _number(answer):
    try:
        return float(answer.replace(",", ""))
    except ValueError:
        return None


def _scientific(answer):
    r"""Return the value of 3e8, or of the first a\times10^{n} anywhere, or the answer itself."""
    try:
        if "e" in answer.lower().replace("times", ""):
            return float(answer)
        factor, exponent = re.findall(TIMES_TEN, answer)[0]
        return float(factor) * _power_of_ten(exponent)
    except (ValueError, IndexError):
        return answer


def _decimal(answer):
    """Return six decimals of a number with an e, or of the first 10^{n} anywhere, or the answer.

    What precedes 10^{n} is lost.
    """
    try:
        exponential = "e" in answer.lower()
        value = float(answer) if exponential else _power_of_ten(re.findall(TEN, answer)[0])
    except (ValueError, IndexError):
        return answer
    return f"{value:f}".rstrip("0").rstrip(".")


def _power_of_ten(exponent):
    return float(f"1e{int(exponent[:7])}")


def _count_digits(answer):
    """Return how many digits are written: the released code takes them for the significant ones."""
    if "e" in answer.lower():
        answer = f"{float(answer):f}"
    return sum(map(str.isdigit, answer.rstrip("0").rstrip(".")))


def _difference(equation):
    left, right = equation.split("=")
    return f"{left.strip()} - ({right.strip()})"


def _matrix_rows(side):
    matrix = re.fullmatch(MATRIX, side)
    return matrix and [row.strip() for row in matrix[1].split(r"\\") if row.strip()]


class _Comparison:
    """Equality by the released rules, within one allowance of time."""

    def __init__(self):
        self.sympy = sympy_worker.Allowance(SECONDS)

    def equal(self, answer, gold):
        """Return whether two cleaned strings are equal.

        They may be so as text, letters or numbers, else by their characters, parts or values.
        """
        if answer.strip().lower() == gold.strip().lower():
            return True
        if re.findall(r"\b([A-E])\b", answer.upper())[-1:] == [gold]:
            return True
        value, number = _number(answer), _number(gold)
        if value is not None and number is not None:
            targets = number / 100, number, number * 100
            close = any(isclose(value, target, rel_tol=1e-4) for target in targets)
            return close or round(value, 1) == round(number, 1)
        if not answer or max(len(answer), len(gold)) > MAX_ANSWER:
            return False
        if "pmatrix" in answer and "pmatrix" not in gold:  # {1,2} written for a vector
            vectors = [vector.strip("{}") for vector in re.findall(r"\{.*,.*\}", gold)]
            columns = [vector.replace(",", "\\") for vector in vectors]
            gold = ", ".join(rf"\begin{{pmatrix}}{column}\end{{pmatrix}}" for column in columns)
        return (
            self._same_characters(answer, gold)
            or self._same_list(answer, gold)
            or self._same_matrix(answer, gold)
            or self._same_value(answer, gold)
        )

    def _same_characters(self, answer, gold):
        other = OTHER_BRACKET.get(answer[0] + answer[-1])
        if other and gold[:1] != other:
            answer, gold = answer.strip("[]()"), gold.strip("[]()")
        answer, gold = (re.sub(r"[{}()]", "", side).lower() for side in (answer, gold))
        return answer == gold

    def _same_list(self, answer, gold):
        """Compare lists in brackets of any kind element by element."""
        bracketed = re.match(IN_BRACKETS, answer) and re.match(IN_BRACKETS, gold)
        return bracketed and self._all(answer[1:-1].split(","), gold[1:-1].split(","))

    def _same_matrix(self, answer, gold):
        rows, gold_rows = _matrix_rows(answer), _matrix_rows(gold)
        if rows is None or gold_rows is None or len(rows) != len(gold_rows):
            return False
        return all(
            self._all(row.split("&"), gold_row.split("&")) for row, gold_row in zip(rows, gold_rows)
        )

    def _all(self, answers, golds):
        return len(answers) == len(golds) and all(map(self.equal, answers, golds))

    def _same_value(self, answer, gold):
        return (
            _scientific(answer) == _scientific(gold)
            or self._same_equation(answer, gold)
            or _decimal(answer) == _decimal(gold)
            or self._symbolic(answer, gold)
            or self._same_digits(answer, gold)
        )

    def _same_equation(self, answer, gold):
        """Compare two equations, a labelled value with a bare one, or what follows the last =."""
        signs = answer.count("="), gold.count("=")
        if signs == (0, 0):
            return False
        if signs == (1, 1):
            difference, other = _difference(answer), _difference(gold)
            if self._symbolic(difference, other) or self._symbolic(f"-({difference})", other):
                return True
        bare = re.sub(LABEL, "", answer), re.sub(LABEL, "", gold)
        if sum(signs) == 1 and bare != (answer, gold) and self.equal(*bare):
            return True
        ends = [side.rpartition("=")[2].replace("{", "(") for side in (answer, gold)]
        return self.equal(*ends)

    def _same_digits(self, answer, gold):
        """Compare numbers, also powers of ten, to as many digits as the one with fewer has."""
        try:
            value = float(_scientific(answer.replace(",", "")))
            number = float(_scientific(gold.replace(",", "")))
            digits = min(_count_digits(answer), _count_digits(gold))
        except ValueError:
            return False
        scale = max(abs(value), abs(number))
        return abs(value - number) <= scale * 0.5 * 10.0 ** (1 - digits)

    def _symbolic(self, answer, gold):
        return self.sympy.ask("same_by_paper", answer, gold)
