r"""The paper's grader: the rules of its released evaluation code, for a second column beside the strict score, and for nothing else.

Where it is lax, so that its score is no measure of right answers:
- Numbers are equal when they agree after rounding BOTH to one decimal (27.04 = 27.01, 0.04 = 0 = -0.012), or within 1e-4, relatively,
  integers too (28799 = 28800), or when one is 100 times the other (50 = 0.5); every % sign is dropped.
- 10^{n} anywhere in both answers decides alone, unless \times stands there: 3\cdot10^{5} = 4\cdot10^{5}.
- Braces and parentheses do not count: (-\infty,0) = (-\infty,0], (1,2) = 1,2.
- What follows the last "=" is compared alone: y'+ry=0 is 0, a=5 is b=5.
- Words taken for units are deleted wherever they stand alone, letters too: \boxed{3 c} is 3, \boxed{a+b} is +b, (a) = (d). A gold of
  such words alone (east) is met by any answer.
- Its parser reads as far as it can and drops the rest: 1,78 = 1,-2 and 4210_5 = 4210_6.
- A gold A to E is met by the first such letter behind the last "answer is", or the last one of a text without it.
Where it is too strict: \fbox, an unclosed last box, \displaystyle, mixed numbers, 1{,}234, lists in another order.
"""

# Differs from the paper: LaTeX goes to math-verify's grammar in a limited worker, not to sympy's parse_latex and parse_expr (an eval).
import re
from concurrent.futures import ThreadPoolExecutor
from math import isclose

from common.grading import sympy_worker as worker

MAX_TEXT, MAX_ANSWER = 1_000_000, 2_000  # longer answers are compared as strings
SECONDS = 3.0  # for all symbolic comparisons of one answer

UNITS = (
    "east;degree;mph;kmph;ft;m sqaure; m east;sq m;deg;mile;q .;monkey;prime;ratio;profit of rs;rd;o;gm;p . m;lb;tile;per;dm;lt;gain;ab;"
    "way;west;a .;b .;c .;d .;e .;f .;g .;h .;t;a;h;no change;men;soldier;pie;bc;excess;st;inches;noon;percent;by;gal;kmh;c;acre;rise;"
    "a . m;th;π r 2;sq;mark;l;toy;coin;sq . m;gallon;° f;profit;minw;yr;women;feet;am;pm;hr;cu cm;square;v â € ™;are;rupee;rounds;cubic;"
    "cc;mtr;s;ohm;number;kmph;day;hour;minute;min;second;man;woman;sec;cube;mt;sq inch;mp;∏ cm ³;hectare;more;sec;unit;cu . m;cm 2;rs .;"
    "rs;kg;g;month;km;m;cm;mm;apple;liter;loss;yard;pure;year;increase;decrease;d;less;Surface;litre;pi sq m;s .;metre;meter;inch"
).split(";")
UNITS = [
    re.compile(rf"(^|\W){unit}($|\W)") for unit in UNITS + [unit + "s" for unit in UNITS]
]  # a dot is any character there
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = (
    dict(zip(ONES.split(), range(20)))
    | dict(zip(TENS.split(), range(20, 100, 10)))
    | {"hundred": 100}
)


def is_correct(text, gold, units: bool = True) -> bool:
    """Whether a whole model output gives the gold answer by the released rules. units=False: as for Minerva-Math, where unit words stay.
    What needs longer than SECONDS, and anything that is not a string, is wrong; nothing raises."""
    try:
        return _graded(text, gold, units)
    except (TimeoutError, RecursionError):
        return False


def _graded(text, gold, units):
    if type(text) is not str or type(gold) is not str or not gold.strip():
        return False
    text, gold = text[-MAX_TEXT:], _clean(_clean(gold[:MAX_TEXT], units), units)
    answer = _clean(_clean(_extract(text), units), units)
    if gold in list("ABCDE") and answer not in list("ABCDE"):
        answer = _letter(text)
    elif set(gold) <= set("ABCDE"):
        answer = re.sub("[^A-E]", "", answer)
    return _Grader().equal(answer, gold)


def extract_option(text: str, letters: str) -> str | None:
    """The option letter that the released MMLU-Pro code reads, None where it guesses at random. (For GPQA the paper's text says as much;
    its chain is taken to be the same.)"""
    if said := re.search(rf"answer is \(?([{letters}])\)?", text):
        return said[1]
    if cues := list(
        re.finditer(rf"(?=[aA]nswer:\s*([{letters}]))", text)
    ):  # the last one of the first line that has one
        end = text.find("\n", cues[0].start()) % (len(text) + 1)
        return [cue for cue in cues if cue.start() < end][-1][1]
    return (re.findall(rf"\b([{letters}])\b", text) or [None])[-1]


def grade_many(texts, golds, units: bool = True, choices: str = "") -> list[tuple[bool, bool]]:
    """(is_correct(), whether it ran out of time) for every pair, equal pairs once; with choices ("ABCD") the letter that extract_option() reads, none
    being wrong."""
    if choices:
        return [
            (extract_option(text, choices) == gold, False)
            for text, gold in zip(texts, golds, strict=True)
        ]

    def timed(pair):
        try:
            return _graded(*pair, units), False
        except (TimeoutError, RecursionError):
            return False, True

    pairs = list(zip(texts, golds, strict=True))
    unique = list(dict.fromkeys(pairs))
    with ThreadPoolExecutor(worker.WORKERS) as threads:
        graded = dict(zip(unique, threads.map(timed, unique)))
    return [graded[pair] for pair in pairs]


def _letter(text: str) -> str:
    """The first lone A to E behind the last "answer is" or "choice is", or the last one of a text without them."""
    text = (
        text.split("\n\n")[0]
        if any(text.count(cue) > 1 for cue in ("choice is", "answer is"))
        else text
    )
    *before, said = re.split("choice is|answer is", text.strip("\n"))
    letters = re.findall(r"\b([A-E])\b", said.upper())
    return letters[0 if before else -1] if letters else said.strip("\n .:/")


def _extract(text: str) -> str:
    """The last box, or what follows the last "he answer is" or "final answer is", or the last number; "" when there is none."""
    if "final answer is $" in text and "$. I hope" in text:
        answer = text.split("final answer is $", 1)[1].split("$. I hope", 1)[0]
    elif "boxed" in text:
        answer, depth = text.rpartition("boxed")[2], 0
        if not answer.startswith("{"):
            answer = answer.split("$")[0]
        for position, character in enumerate(answer):
            depth += (character == "{") - (character == "}")
            if not depth and answer[0] == "{":
                answer = answer[1:position]
                break
        else:
            answer = answer.removeprefix("{")
    elif cue := next((cue for cue in ("he answer is", "final answer is") if cue in text), None):
        answer = text.rpartition(cue)[2]
    else:
        answer = (re.findall(r"-?\d*\.?\d+", text.replace(",", "")) or [""])[-1]
    answer = re.sub(r"\n\s*", "", answer.strip())
    return re.sub(r"/$", "", re.sub(r"\.$", "", answer.removeprefix(":")))


def _clean(answer: str, units: bool) -> str:
    """The released clean-up, in its order."""
    answer = answer.strip().replace("\n", "").rstrip(".").replace(r"\!", "")
    if len(answer) > MAX_ANSWER:
        return answer
    answer = re.sub(r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}", answer).replace(
        r"\end{array}", r"\end{pmatrix}"
    )
    answer = re.sub(r"[td]frac", "frac", answer.replace("bmatrix", "pmatrix"))
    answer = (
        re.sub(r"\\left|\\right", "", re.sub(r"\\(ne|le|ge)q", r"\\\1", answer))
        .replace(r"\{", "{")
        .replace(r"\}", "}")
    )
    answer = re.sub(r"\\text\{.*?\}$", "", answer).strip() or answer
    for unit in UNITS * 2 if units else ():
        answer = unit.sub(r"\1\2", answer) or answer
    answer = _number_in_words(re.sub(r"\^\{\\circ\}|\^\\circ|\\?\$|\\[()]", "", answer))
    answer = re.sub(r"[xyz](?:=|\\in|\\to)", "", re.sub(r"\\text\{(.*?)\}", r"\1", answer))
    answer = (
        answer.replace(r"\emptyset", "{}")
        .replace(r"(-\infty,\infty)", r"\mathbb{R}")
        .replace(r"\%", "")
        .replace("%", "")
    )
    answer = answer.replace(" .", " 0.").replace("{.", "{0.").replace("infinity", r"\infty")
    if r"\infty" not in answer:
        answer = answer.replace("inf", r"\infty")
    answer = re.sub(r"\\mbox\{.*?\}", "", answer.replace("and", "").replace(r"\mathbf", ""))
    if "i" not in answer:
        answer = answer.replace("j", "i")
    answer = re.sub(r"(\d+)\.0*$", r"\1", re.sub(r"(\d+)\.0*([^\d])", r"\1\2", answer))
    answer = re.sub(r"^[^=]{0,2}=([^=]*)$", r"\1", re.sub(r"^\.", "0.", answer))
    answer = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", answer).replace(" ", "")
    answer = re.sub(
        r"\\frac([^{])([^{])", r"\\frac{\1}{\2}", re.sub(r"\\frac([^{])\{", r"\\frac{\1}{", answer)
    )
    return (
        re.sub(r"^(-?\d+|.*sqrt.*)/(-?\d+|[^/]*sqrt[^/]*)$", r"\\frac{\1}{\2}", answer)
        if answer.count("/") == 1
        else answer
    )


def _number_in_words(answer: str) -> str:
    """The number that the number words of a text form, all others ignored: twenty-one apples is 21; 025 is 25; other texts stay."""
    if answer.isascii() and answer.isdigit():
        return str(int(answer))
    values = [WORDS[word] for word in answer.replace("-", " ").lower().split() if word in WORDS]
    if not values:
        return answer
    hundreds = values.index(100) if 100 in values else 0
    return str(
        (sum(values[:hundreds]) * 100 if hundreds else 0) + sum(values[hundreds + (hundreds > 0) :])
    )


def _number(answer: str) -> float | None:
    try:
        return float(answer.replace(",", ""))
    except ValueError:
        pass
    try:
        return (
            float(answer.replace(",", "").removesuffix("%").removesuffix("\\")) / 100
            if answer.endswith("%")
            else None
        )
    except ValueError:
        return None


POWER = re.compile(r"(?<!\d)(\d+(?:\.\d*)?)\\times10\^\{?([+-]?\d+)\}?")
TEN = re.compile(r"10\^\{([+-]?\d+)\}")


def _scientific(answer: str) -> float | str:
    """The value of 3e8, or of the first a\\times10^{n} anywhere in an answer; any other answer itself."""
    try:
        if "e" in answer.lower().replace("times", ""):
            return float(answer)
        found = POWER.search(answer)
        return float(found[1]) * _power_of_ten(found[2]) if found else answer
    except ValueError:
        return answer


def _decimal(answer: str) -> str:
    """Six decimals of a number with an e, or of the first 10^{n} anywhere in an answer (what stands before it is lost); others themselves."""
    try:
        found = TEN.search(answer)
        value = (
            float(answer) if "e" in answer.lower() else _power_of_ten(found[1]) if found else None
        )
    except ValueError:
        return answer
    return answer if value is None else f"{value:f}".rstrip("0").rstrip(".")


def _power_of_ten(exponent: str) -> float:
    return float(f"1e{int(exponent[:7])}")


def _digits(answer: str) -> int:
    """How many digits are written: what the released code takes for the significant ones."""
    text = f"{float(answer):f}" if "e" in answer.lower() else answer
    return sum(character.isdigit() for character in text.rstrip("0").rstrip("."))


class _Grader:
    """Equality by the released rules, within one allowance of time."""

    def __init__(self):
        self.seconds = SECONDS

    def equal(self, answer: str, gold: str) -> bool:
        """Whether two cleaned strings are equal: as text, letters or numbers, else by their characters, parts or values."""
        if answer.strip().lower() == gold.strip().lower():
            return True
        if (
            gold in list("ABCDE")
            and (letters := re.findall(r"\b([A-E])\b", answer.upper()))
            and letters[-1] == gold
        ):
            return True
        if None not in (numbers := (_number(answer), _number(gold))):
            value, right = numbers
            close = any(
                isclose(value, other, rel_tol=1e-4) for other in (right / 100, right, right * 100)
            )
            return close or "%" not in answer + gold and round(value, 1) == round(right, 1)
        if not answer or max(len(answer), len(gold)) > MAX_ANSWER:
            return False
        if "pmatrix" in answer and "pmatrix" not in gold:  # {1,2} written for a vector
            gold = ", ".join(
                rf"\begin{{pmatrix}}{m.strip('{}').replace(',', chr(92))}\end{{pmatrix}}"
                for m in re.findall(r"\{.*,.*\}", gold)
            )
        return (
            self._same_characters(answer, gold)
            or self._parts(answer, gold)
            or self._values(answer, gold)
        )

    def _same_characters(self, answer: str, gold: str) -> bool:
        sides = [answer, gold]
        if any(
            answer[:1] == o and answer[-1:] == c and gold[:1] != other
            for o, c, other in ("[](", "()[")
        ):
            sides = [side.strip("[]()") for side in sides]
        answer, gold = (re.sub(r"[{}()]", "", side).lower() for side in sides)
        return answer == gold

    def _parts(self, answer: str, gold: str) -> bool:
        """Lists in brackets of any kind, and matrices, element by element."""
        if all(re.match(r"[(\[].+[)\]]", side) for side in (answer, gold)) and self._all(
            answer[1:-1], gold[1:-1], ","
        ):
            return True
        edges = r"\begin{pmatrix}", r"\end{pmatrix}"
        if not all(
            side.startswith(edges[0]) and side.endswith(edges[1]) for side in (answer, gold)
        ):
            return False
        rows = [
            [row for row in side[len(edges[0]) : -len(edges[1])].split(r"\\") if row.strip()]
            for side in (answer, gold)
        ]
        return len(rows[0]) == len(rows[1]) and all(
            self._all(one.strip(), other.strip(), "&") for one, other in zip(*rows)
        )

    def _all(self, answer: str, gold: str, separator: str) -> bool:
        answers, golds = answer.split(separator), gold.split(separator)
        return len(answers) == len(golds) and all(self.equal(*pair) for pair in zip(answers, golds))

    def _values(self, answer: str, gold: str) -> bool:
        if _scientific(answer) == _scientific(gold):
            return True
        labels = [side.partition("=")[0].strip() for side in (answer, gold)]
        if answer.count("=") == gold.count("=") == 1:
            sides = [
                "{} - ({})".format(*map(str.strip, side.split("="))) for side in (answer, gold)
            ]
            if self._symbolic(*sides) or self._symbolic(f"-({sides[0]})", sides[1]):
                return True
        elif (
            answer.count("=") == 1
            and len(labels[0]) <= 2
            and "=" not in gold
            and self.equal(answer.partition("=")[2], gold)
        ):
            return True
        elif (
            gold.count("=") == 1
            and len(labels[1]) <= 2
            and "=" not in answer
            and self.equal(answer, gold.partition("=")[2])
        ):
            return True
        if "=" in answer + gold and self.equal(
            *(side.rpartition("=")[2].replace("{", "(") for side in (answer, gold))
        ):
            return True
        return (
            _decimal(answer) == _decimal(gold)
            or self._symbolic(answer, gold)
            or self._significant(answer, gold)
        )

    def _symbolic(self, answer: str, gold: str) -> bool:
        same, seconds = worker.ask(["same_by_paper", answer, gold], max(self.seconds, 0.01))
        self.seconds -= seconds
        return same

    def _significant(self, answer: str, gold: str) -> bool:
        """Two numbers, powers of ten among them, to as many digits as the one with fewer has."""
        values = [_scientific(side.replace(",", "")) for side in (answer, gold)]
        try:
            values, digits = [float(value) for value in values], min(_digits(answer), _digits(gold))
        except ValueError:
            return False
        scale = max(map(abs, values))
        return abs(values[0] - values[1]) <= scale * 0.5 * 10.0 ** (1 - digits)
