r"""Read numbers: the exact value of what is written in digits.

There is no float and no eval.
"""

import re
from fractions import Fraction

MAX_DIGITS = 4_000  # of a number, and the largest power of ten

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"


def word_values(table: str) -> dict:
    """Return {word: value} of a table of words, each with its value behind it."""
    return {word: Fraction(value) for word, value in re.findall(r"(\S+) (\S+)", table)}


NUMBER_WORDS = word_values("""
    zero 0  one 1  two 2  three 3  four 4  five 5  six 6  seven 7  eight 8  nine 9  ten 10
    eleven 11  twelve 12  thirteen 13  fourteen 14  fifteen 15  sixteen 16  seventeen 17
    eighteen 18  nineteen 19  twenty 20  thirty 30  forty 40  fifty 50  sixty 60  seventy 70
    eighty 80  ninety 90  hundred 100""")
RATIONAL = re.compile(
    rf"""(?P<sign>[-+]?)\s*(?:
      (?P<whole>\d+)(?:\s*\\frac\{{(?P<n1>\d+)\}}\{{(?P<d1>\d+)\}}   # 1\frac{1}{2}
                      | \s(?P<n2>\d+)\s?/\s?(?P<d2>\d+))             # 1 1/2
    | \\frac\{{\s*(?P<n3>{NUMBER})\s*\}}\{{\s*(?P<d3>{NUMBER})\s*\}}
    | \(?(?P<n4>{NUMBER})\)?\s*/\s*\(?(?P<d4>{NUMBER})\)?            # 2/(-3)
    | (?:(?P<n5>{NUMBER})\s*(?:\\times|\\cdot|\*|x)\s*)?             # 2.5 \times 10^{{3}}
      10\s*\^\s*[{{(]?\s*(?P<e1>[-+]?\d+)\s*[}})]?
    | (?P<n6>{NUMBER})(?:[eE](?P<e2>[-+]?\d+))?                      # 12, 2.5e3
    | (?P<fixed>\d*)\.(?P<decimals>\d*)                              # 0.1\overline{{6}}, 0.1(6)
      (?:\\(?:overline|bar|dot)\s*\{{?\s*(?P<period1>\d+)\s*\}}?|\((?P<period2>\d+)\)) )""",
    re.X,
)


def read_number(answer: str) -> Fraction | None:
    """Return the exact value of a number in normal form, None for anything else or too large.

    It may be an integer, decimal, repeating decimal, fraction, mixed number or power of ten.
    By hand: 0.1666... is (16 - 1) / 90 = 1/6.
    """
    match = RATIONAL.fullmatch(answer) if len(answer) <= MAX_DIGITS else None
    if not match:
        return None
    part = {name.rstrip("123456"): digits for name, digits in match.groupdict().items() if digits}
    if "period" in part:
        value = _repeating(part.get("fixed", ""), part.get("decimals", ""), part["period"])
    else:
        exponent, denominator = part.get("e", "0"), Fraction(part.get("d", "1"))
        if len(exponent) > 5 or abs(int(exponent)) > MAX_DIGITS or not denominator:
            return None
        fraction = Fraction(part.get("n", "1")) / denominator
        value = Fraction(part.get("whole", "0")) + fraction * Fraction(10) ** int(exponent)
    return -value if match["sign"] == "-" else value


def _repeating(fixed, decimals, period):
    difference = int(fixed + decimals + period) - int(fixed + decimals or "0")
    return Fraction(difference, 10 ** len(decimals) * (10 ** len(period) - 1))
