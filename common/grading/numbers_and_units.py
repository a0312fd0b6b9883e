r"""Read numbers and units: the exact value of a number, and the unit behind a value.

There is no float and no eval.
"""

import re
from collections import Counter
from fractions import Fraction

MAX_DIGITS = 4_000  # of a number, and the largest power of ten

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
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


UNITS = r"""
    %  percent  percentage  pct | °  degree  deg | m  meter  metre | cm  centimeter  centimetre
    mm  millimeter  millimetre | km  kilometer  kilometre | nm  nanometer | in  inch  inche
    ft  feet  foot | yd  yds  yard | mi  mile | kg  kilogram | g  gram | mg  milligram
    lb  lbs  pound | oz  ounce | s  sec  second | ms | min  minute | h  hr  hrs  hour | day | week
    month | year  yr | L  l  liter  litre | mL  ml | gal  gallon | N  newton | J  joule | kJ
    W  watt | kW | V  volt | A  amp  ampere | K  kelvin | C  celsius | F  fahrenheit | Pa | kPa
    atm | Hz  hertz | kHz | MHz | GHz | mol  mole | rad  radian | eV | keV | MeV | GeV | T
    ohm  \Omega | mph | kph  kmph | $  dollar | cent | pc | M | mA | mV | kV | mW | MW | GW | ns
    ps | fs | kN | MN | MPa | GPa | nF | pF | mT | C  °C | F  °F | cal | kcal | dB | erg | dyne
    cc | ly | rpm | sq | am  AM | pm  PM"""
SYMBOLS = {}  # each spelling of a unit -> its name; a final s of a word is dropped first
for spellings in re.split(r"\n|\|", UNITS.strip()):
    for spelling in spellings.split():
        SYMBOLS[spelling] = spellings.split()[0]
SHORT = "|".join(re.findall(r"(?<!\S)[A-Za-z]{2,3}(?!\S)", UNITS))  # longer ones are words
NO_UNITS = (  # they change the value
    "base|hundred|thousand|million|billion|trillion|dozen|times|hal[fv]|third|quarter|fourth|fifth"
    "|sixth|seventh|eighth|ninth|tenth|factorial|repeating|recurring|negative|below|plus|minus"
    "|double|triple|inverse|wrong|undefined|binary|lakh|crore|gross|score|tens(?![a-z])"
)
WORD = rf"(?:(?:{SHORT})(?![A-Za-z])|(?!(?i:{NO_UNITS}))[A-Za-z]{{4,}}(?![A-Za-z]))"
TOKEN = (
    rf"(?:{WORD}|° ?[CF](?![A-Za-z])|\\mu ?[msgAFL](?![A-Za-z])|[%°]|\\Omega(?![a-z])"
    r"|[A-Za-z](?![A-Za-z]))"
)
POWER = r"(?: ?\^ ?\{? ?-?\d ?\}?|\d(?!\d))?"  # normal form has single spaces
FACTOR = re.compile(rf"(/|\bper\b)|(?<![A-Za-z\\])({TOKEN})({POWER})")
PRODUCT = (  # kg m/s^2, miles per hour
    rf"{TOKEN}{POWER}(?:(?: ?(?:/|\\cdot|\\times|\*|-|\bper\b) ?| )\(?{TOKEN}{POWER}\)?)*"
)
VALUE_END = rf"(?:\d\.?|[}})!]|\\pi|\\infty|(?<=[^A-Za-z\\])[a-z](?=\s+(?:{WORD})))"
QUANTITY = re.compile(rf"(?P<value>.*?{VALUE_END})(?P<gap> ?)(?P<unit>{PRODUCT})")
FUNCTION = r"\\(?:sin|cos|tan|cot|sec|csc|log|ln)(?![a-z])[^{}]*$"  # \sin 30
LONG_WORD = r"(?<![A-Za-z\\])[A-Za-z]{4,}"
AMBIGUOUS = {"mg", "ms", "hr"}  # 2 mg may be a product
AMBIGUOUS_JOINED = {"ft", "in", "pc", "cc", "ly", "mi", "min", "am", "pm"}  # as may 2ft
DIMENSIONS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cubed": 3}
COMPOUND = {"mph": {"mi": 1, "h": -1}, "kph": {"km": 1, "h": -1}}


def split_unit(answer: str) -> tuple[str, str]:
    """Return (value, name of the unit or "").

    A unit is a known symbol or any word of four letters. A single letter may be a variable: it is a
    unit only behind a number and a space, or as part of a longer unit.

    >>> split_unit("12 feet"), split_unit("5 percent"), split_unit("3 kg m/s"), split_unit("5m")
    (('12', 'ft'), ('5', '%'), ('3', 'kg*m*s^-1'), ('5m', ''))
    """
    match = QUANTITY.fullmatch(answer) if len(answer) <= 500 else None
    if not match:
        return answer, ""
    value, unit = match["value"].strip(), match["unit"]
    angle = unit[0] == "°" and re.search(FUNCTION, value)
    if angle or re.search(LONG_WORD, value) or _is_factor(value, match["gap"], unit):
        return answer, ""
    return value, _name(unit)


def _is_factor(value, gap, unit):
    r"""Return whether what looks like a unit may be a factor, as in 2mg, 5m and \frac{1}{3}mL^2."""
    first, *further = [token for _, token, _ in FACTOR.findall(unit) if token]
    letters = [token for token in (first, *further) if len(token) == 1 and token.isalpha()]
    if not SYMBOLS.keys() >= set(letters):
        return True
    joined = not gap and unit[0].isalpha()
    if further:
        return joined
    no_number = read_number(value) is None
    if first in AMBIGUOUS or letters:
        return not gap or no_number or first not in {"m", "s"} and bool(letters) and "^" in unit
    return joined and (no_number or first in AMBIGUOUS_JOINED)


def _name(unit):
    """Return one name for one unit: in^2 for square inches, kg*m*s^-2 for kg m/s^2."""
    powers, sign, dimension, name = Counter(), 1, 1, ""
    for division, token, power in FACTOR.findall(unit):
        word = token.lower()
        if division:
            sign = -1
        elif word in DIMENSIONS and token.endswith("d") and name:  # meters squared
            powers[name] *= DIMENSIONS[word]
        elif word in DIMENSIONS:  # square meters
            dimension = DIMENSIONS[word]
        else:
            name = _unit_name(token.replace(" ", ""))
            exponent = int(re.sub(r"[^-\d]", "", power) or dimension)
            for part, factor in COMPOUND.get(name, {name: exponent}).items():
                powers[part] += sign * factor
            dimension = 1
    if {"C", "F", "K"} & powers.keys():
        del powers["°"]  # degrees Celsius
    names = [f"{name}^{power}" if power != 1 else name for name, power in sorted(powers.items())]
    return "*".join(names)


def _unit_name(token):
    if token in SYMBOLS:
        return SYMBOLS[token]
    word = token.lower()
    singular = word.removesuffix("s")
    return SYMBOLS.get(word) or SYMBOLS.get(singular, singular)
