r"""Numbers and units: exact values of what is written as a number, and the unit behind a value. No float, no eval."""

import re
from collections import Counter
from fractions import Fraction

MAX_DIGITS = 4_000  # of a number, and the largest power of ten

NUM = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
RATIONAL = re.compile(
    rf"""(?P<sign>[-+]?)\s*(?:
      (?P<whole>\d+)(?:\s*\\frac\{{(?P<n1>\d+)\}}\{{(?P<d1>\d+)\}} | \s(?P<n2>\d+)\s?/\s?(?P<d2>\d+))
    | \\frac\{{\s*(?P<n3>{NUM})\s*\}}\{{\s*(?P<d3>{NUM})\s*\}} | \(?(?P<n4>{NUM})\)?\s*/\s*\(?(?P<d4>{NUM})\)?
    | (?:(?P<n5>{NUM})\s*(?:\\times|\\cdot|\*|x)\s*)?10\s*\^\s*[{{(]?\s*(?P<e1>[-+]?\d+)\s*[}})]?
    | (?P<n6>{NUM})(?:[eE](?P<e2>[-+]?\d+))?
    | (?P<before>\d*\.\d*)(?:\\(?:overline|bar|dot)\s*\{{?\s*(?P<again>\d+)\s*\}}?|\((?P<again2>\d+)\)) )""",
    re.X,
)


def read_number(answer: str) -> Fraction | None:
    """The exact value of an integer, decimal, repeating decimal, fraction, mixed number or power of ten in normal form (normalize_latex.normalize);
    None for anything else or too large."""
    match = RATIONAL.fullmatch(answer) if len(answer) <= MAX_DIGITS else None
    if not match:
        return None
    part = {
        name.rstrip("123456"): value
        for name, value in match.groupdict().items()
        if value is not None
    }
    if "again" in part:  # 0.1\overline{6} = (16 - 1) / 90
        fixed, again = part["before"].replace(".", ""), part["again"]
        scale = 10 ** len(part["before"].partition(".")[2])
        value = Fraction(int(fixed + again) - int(fixed or 0), scale * (10 ** len(again) - 1))
        return -value if part["sign"] == "-" else value
    exponent, denominator = part.get("e", "0"), Fraction(part.get("d", "1"))
    if len(exponent) > 5 or abs(int(exponent)) > MAX_DIGITS or not denominator:
        return None
    value = Fraction(part.get("whole", "0")) + Fraction(
        part.get("n", "1")
    ) / denominator * Fraction(10) ** int(exponent)
    return -value if part["sign"] == "-" else value


SYMBOLS = {  # every spelling of a unit -> its name; a final s of a word is dropped first
    spelling: spellings.split()[0]
    for spellings in """
    %  percent  percentage  pct | °  degree  deg | m  meter  metre | cm  centimeter  centimetre | mm  millimeter  millimetre
    km  kilometer  kilometre | nm  nanometer | in  inch  inche | ft  feet  foot | yd  yds  yard | mi  mile | kg  kilogram | g  gram | mg  milligram
    lb  lbs  pound | oz  ounce | s  sec  second | ms | min  minute | h  hr  hrs  hour | day | week | month | year  yr | L  l  liter  litre | mL  ml
    gal  gallon | N  newton | J  joule | kJ | W  watt | kW | V  volt | A  amp  ampere | K  kelvin | C  celsius | F  fahrenheit | Pa | kPa | atm
    Hz  hertz | kHz | MHz | GHz | mol  mole | rad  radian | eV | keV | MeV | GeV | T | ohm  \\Omega | mph | kph  kmph | $  dollar | cent | pc | M
    mA | mV | kV | mW | MW | GW | ns | ps | fs | kN | MN | MPa | GPa | nF | pF | mT | C  °C | F  °F
    cal | kcal | dB | erg | dyne | cc | ly | rpm | sq | am  AM | pm  PM""".replace("\n", "|").split(
        "|"
    )
    for spelling in spellings.split()
}
SHORT = "|".join(
    symbol for symbol in SYMBOLS if len(symbol) in (2, 3) and symbol.isalpha()
)  # longer ones are words
NO_UNITS = (  # they change the value
    "base|hundred|thousand|million|billion|trillion|dozen|times|hal[fv]|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
    "|factorial|repeating|recurring|negative|below|plus|minus|double|triple|inverse|wrong|undefined|binary|lakh|crore|gross|score|tens(?![a-z])"
)
WORD = rf"(?:(?:{SHORT})(?![A-Za-z])|(?!(?i:{NO_UNITS}))[A-Za-z]{{4,}}(?![A-Za-z]))"
TOKEN = rf"(?:{WORD}|° ?[CF](?![A-Za-z])|\\mu ?[msgAFL](?![A-Za-z])|[%°]|\\Omega(?![a-z])|[A-Za-z](?![A-Za-z]))"
POWER = r"(?: ?\^ ?\{? ?-?\d ?\}?|\d(?!\d))?"  # normalize() leaves single spaces
ONE = re.compile(rf"(/|\bper\b)|(?<![A-Za-z\\])({TOKEN})({POWER})")
CHAIN = rf"{TOKEN}{POWER}(?:(?: ?(?:/|\\cdot|\\times|\*|-|\bper\b) ?| )\(?{TOKEN}{POWER}\)?)*"
VALUE_END = rf"(?:\d\.?|[}})!]|\\pi|\\infty|(?<=[^A-Za-z\\])[a-z](?=\s+(?:{WORD})))"
UNIT = re.compile(rf"(?P<value>.*?{VALUE_END})(?P<gap> ?)(?P<unit>{CHAIN})")
FACTORS, GLUED = (
    {"mg", "ms", "hr"},
    {"ft", "in", "pc", "cc", "ly", "mi", "min", "am", "pm"},
)  # 2mg may be a product
KINDS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cubed": 3}
COMPOUND = {"mph": {"mi": 1, "h": -1}, "kph": {"km": 1, "h": -1}}


def split_unit(answer: str) -> tuple[str, str]:
    """(the value, the name of its unit or ""): 12 feet -> ("12", "ft"); 5 percent -> ("5", "%"); 3 kg m/s -> ("3", "kg*m*s^-1").

    A unit is a known symbol or any word of four letters. A single letter may be a variable: it is a unit only behind a number and a
    space, or as part of a longer unit."""
    match = UNIT.fullmatch(answer) if len(answer) <= 500 else None
    if (
        not match
        or re.search(r"\\(?:sin|cos|tan|cot|sec|csc|log|ln)(?![a-z])[^{}]*$", match["value"])
        and match["unit"][:1] == "°"
    ):
        return answer, ""
    value, unit = match["value"].strip(), match["unit"]
    tokens = [token for _, token, _ in ONE.findall(unit) if token]
    letters = [token for token in tokens if len(token) == 1 and token.isalpha()]
    factor = len(tokens) == 1 and (letters or tokens[0] in FACTORS)
    if factor and (
        not match["gap"]
        or read_number(value) is None
        or letters
        and "^" in unit
        and letters[0] not in "ms"
    ):
        return answer, ""
    if (
        not match["gap"]
        and unit[0].isalpha()
        and (len(tokens) > 1 or tokens[0] in GLUED or read_number(value) is None)
    ):
        return answer, ""  # 2mg may be a product, and \frac{1}{3}mL^2
    if any(letter not in SYMBOLS for letter in letters) or re.search(
        r"(?<![A-Za-z\\])[A-Za-z]{4,}", value
    ):
        return answer, ""
    return value, _name(unit)


def _name(unit: str) -> str:
    """One name for one unit: square inches -> in^2, kg m/s^2 -> kg*m*s^-2, miles per hour -> h^-1*mi."""
    powers, sign, coming = Counter(), 1, 1
    name = ""
    for divide, token, power in ONE.findall(unit):
        if divide:
            sign = -1
        elif token.lower() in KINDS:  # square meters, meters squared
            if token.endswith("d") and name:
                powers[name] *= KINDS[token.lower()]
            else:
                coming = KINDS[token.lower()]
        else:
            token = token.replace(" ", "")
            word = token if token in SYMBOLS else token.lower()
            name = SYMBOLS.get(word) or SYMBOLS.get(word.removesuffix("s"), word.removesuffix("s"))
            over = COMPOUND.get(name)
            for part, exponent in (
                over.items() if over else [(name, int(re.sub(r"[^-\d]", "", power) or coming))]
            ):
                powers[part] += sign * exponent
            coming = 1
    if {"C", "F", "K"} & powers.keys():
        del powers["°"]  # degrees Celsius
    return "*".join(
        f"{name}^{power}" if power != 1 else name for name, power in sorted(powers.items())
    )
