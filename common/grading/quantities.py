r"""Read quantities: a value, its unit and the words behind it, in any spelling.

Names of units are looked up in pint's tables one by one, and nowhere evaluated. A word that is no
unit describes the value, unless it changes it: 12 red apples are 12, but 12 less are not.

What TeX sets as text behind a number is no product of letters: normalize() marks its words with §.
"""

import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from common.grading.read_numbers import NUMBER, read_number

# The one table of what pint lacks, or takes for something else: definitions, then other spellings.
DEFINITIONS = """
    dollar = [dollar] = USD; cent = 0.01 * dollar; euro = [euro] = EUR; sterling = [sterling] = GBP
    rupee = [rupee] = INR; yuan = [yuan] = CNY; yen = [yen] = JPY; percentage = [percentage];
    per_mille = [per_mille]; celsius_degree = [celsius]; fahrenheit_degree = [fahrenheit]
    solar_mass = 1.98841e30 * kilogram; solar_radius = 6.957e8 * meter
    solar_luminosity = 3.828e26 * watt; magnitude = [magnitude]; 
    jansky = 1e-26 * kilogram / second**2
"""
NAMES = {
    "$": "dollar", "Rs": "rupee", "RMB": "yuan", "%": "percentage", "percent": "percentage",
    "pct": "percentage", "‰": "per_mille", "°": "degree", "deg": "degree", "度": "degree",
    "元": "yuan", "米": "meter", "厘米": "centimeter", "千米": "kilometer", "公里": "kilometer",
    "千克": "kilogram", "克": "gram", "小时": "hour", "分钟": "minute", "秒": "second",
    "celsius": "celsius_degree", "Celsius": "celsius_degree", "fahrenheit": "fahrenheit_degree",
    "Fahrenheit": "fahrenheit_degree", "'": "foot", "''": "inch", '"': "inch", "AU": "au",
    "mag": "magnitude", "Jy": "jansky", "gm": "gram", "gms": "gram", "Nm": "joule",
    "kmph": "kph", "kmh": "kph", "Msun": "solar_mass", "Lsun": "solar_luminosity",
    "Rsun": "solar_radius", "mpg": "mile_per_gallon", r"\Omega": "ohm",
}  # fmt: skip
PREFIXES = ("", "kilo", "centi", "milli", "mega", "giga", "tera", "nano", "micro", "pico", "femto")
BARE_LETTERS = set("mshgLlNJWVAKCFTMu")  # behind a number and a space, without \text
# Names of two small letters that may stand without \text.
SHORT = """
    cm mm km nm pm fm in ft yd mi kg mg lb oz ms ns ps fs hr yr ml dl gal hp lm cc ly pc am"""
JOINED = {"cm", "mm", "km", "nm", "kg"}  # 2cm; but 2ft, 2in and 2min may be products
# Words that compare, doubt, negate or name a base: 12 less is not 12.
CHANGES = """
    less fewer most least greater larger smaller higher lower bigger than
    above below under over beyond up upward upwards onward onwards short ago bc bce to
    almost nearly about roughly ish maybe perhaps possibly probably doubtful uncertain unsure
    unlikely unclear unknown impossible undefined wrong incorrect invalid inaccurate false rejected
    not no never none nor excluded except excluding without and or if is are was were remainder
    plus minus negative inverse double triple twice factorial repeating recurring kilo mega giga
    micro milli myriad mod modulo base binary ternary octal decimal hexadecimal hex
    以上 以下 多 以内"""
SCALES = {
    "hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12, "score": 20, "gross": 144, "lakh": 10**5, "crore": 10**7, "grand": 1_000,
    "mln": 10**6, "bn": 10**9, "half": Fraction(1, 2), "halve": Fraction(1, 2),
    "third": Fraction(1, 3), "quarter": Fraction(1, 4), "fourth": Fraction(1, 4),
    "fifth": Fraction(1, 5), "sixth": Fraction(1, 6), "seventh": Fraction(1, 7),
    "eighth": Fraction(1, 8), "ninth": Fraction(1, 9), "tenth": Fraction(1, 10),
    "hundredth": Fraction(1, 100), "thousandth": Fraction(1, 1000), "百": 100, "千": 1_000,
    "万": 10_000, "亿": 10**8,
}  # fmt: skip
MONEY = {"dollar", "euro", "sterling", "rupee", "yuan", "yen"}
MONEY_SCALES = {"k": 1_000, "K": 1_000, "M": 10**6, "B": 10**9}  # $5M
DIMENSIONS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}

MAX_NAME, MAX_QUANTITY = 30, 500  # characters of a unit's name, of a quantity
WORD = r"(?:(?:§?\\mu ?)?(?<![\\A-Za-z])§?[^\W\d_]+\.?|\\Omega(?![a-z])|[%‰°$\"]|''?)"
POWER = r"(?: ?\^ ?\{? ?-?\d ?\}?|(?<=[a-z])\d(?!\d))?"
FACTOR = re.compile(rf"(/|§?\bper\b)|({WORD})({POWER})")
TAIL = rf"(?:1 ?/ ?)?{WORD}{POWER}(?:[ ()*/-]|\\(?:cdot|times)(?![a-z])|{WORD}{POWER})*"
VALUE_END = r"(?:\d\.?|[}})!]|\\pi|\\infty|(?<=[^A-Za-z\\])[a-z](?= +(?:§|[a-z]{4}))|.(?= *§))"
QUANTITY = re.compile(rf"(?P<value>[^§]*?{VALUE_END})(?P<gap> ?)(?P<tail>{TAIL})")
TEMPERATURE = r"(?:°|§?degrees?) ?§?([CFK])(?:elsius|ahrenheit|elvin)?(?![A-Za-z])"
SCALE_NAMES = {"C": "celsius", "F": "fahrenheit", "K": "kelvin"}
RELATIVE = {frozenset({("percentage", 1)}), frozenset({("per_mille", 1)})}
FUNCTION = r"\\(?:sin|cos|tan|cot|sec|csc|log|ln)(?![a-z])[^{}]*$"  # \sin 30
LONG_WORD = r"(?<![A-Za-z\\])[A-Za-z]{4,}"

COMPOUND = re.compile(  # 5 feet 6 inches, 12 dollars and 50 cents
    rf"{NUMBER} ?{WORD}(?:,? ?(?:and )?{NUMBER} ?{WORD})+"
)
PIECE = re.compile(rf"{NUMBER} ?{WORD}")


class Quantity(NamedTuple):
    """A value with what follows it.

    value: in normal form; of it there are `scale` (1000 for thousand).
    size: of the unit, in root units (1000 for km); unit: {(root unit, power)}, empty without one.
    words: those of the description. is_letter: the unit is a letter, which may be a factor.
    """

    value: str
    scale: Fraction = Fraction(1)
    size: float = 1.0
    unit: frozenset = frozenset()
    words: frozenset = frozenset()
    is_letter: bool = False


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint  # takes 0.3 s, which an answer without units should not

    registry = pint.UnitRegistry()
    for definition in re.findall(r"[^;\s][^;\n]*", DEFINITIONS):
        registry.define(definition)
    return registry


@lru_cache(maxsize=10_000)
def find_unit(name: str) -> tuple[float, frozenset] | None:
    """Return (size in root units, {(root unit, power)}) of a unit's name or symbol, or None.

    By hand: an inch is (0.0254, {("meter", 1)}).
    """
    if len(name) > MAX_NAME:
        return None
    name = NAMES.get(name, name)
    for spelling in (name, name.lower()) if len(name) > 1 else (name,):  # Meters, PSI
        for prefix, unit, _ in _registry().parse_unit_name(spelling):
            if prefix in PREFIXES:
                size, root = _registry().get_root_units(prefix + unit)
                return float(size), frozenset(root._units.items())
    return None


def read_quantity(answer: str) -> Quantity:
    """Return an answer in normal form as a quantity; without unit and words it is its own value.

    >>> read_quantity("5 km").size, read_quantity("12 red apples").words
    (1000.0, frozenset({'red', 'apple'}))
    """
    match = QUANTITY.fullmatch(answer) if len(answer) <= MAX_QUANTITY else None
    if not match or re.search(LONG_WORD, match["value"]):
        return Quantity(answer)
    value, gap, tail = match.groups()
    if _is_product(value, gap, tail) and "§" in tail:  # 7.6Z §eV
        letters, _, tail = answer.partition("§")
        value, gap, tail = letters.strip(), " ", f"§{tail}"
    if tail[0] == "°" and re.search(FUNCTION, value) or _is_product(value, gap, tail):
        return Quantity(answer)
    return _read_tail(value.strip(), tail) or Quantity(answer)


def _is_product(value, gap, tail):
    r"""Return whether letters behind a value may be factors: 2mg, 5m, 3 ab, \frac{1}{3}mL^2."""
    names = [name for _, name, _ in FACTOR.findall(tail) if name]
    bare = [name for name in names if name.isascii() and name.isalpha()]
    if not bare:
        return False
    number = _is_number(value)
    letters = [name for name in bare if len(name) == 1]
    if not set(letters) <= BARE_LETTERS:
        return True
    if len(names) > 1:
        return not gap and tail[0].isalpha() or not all(map(_may_be_bare, bare))
    if letters:
        return not gap or not number
    if not _may_be_bare(bare[0]):
        return True
    short = bare[0].islower() and len(bare[0]) < 4
    return short and not (number and (gap or bare[0] in JOINED))


def _is_number(value):
    """Return whether a value is a number or a time of day, such as 7:30."""
    return read_number(value) is not None or bool(re.fullmatch(r"\d+:\d\d", value))


def _may_be_bare(name):
    """Return whether a name without \\text is no product: psi, kW and apples, but not xy."""
    if len(name) > 3 or name in SHORT.split() or name in BARE_LETTERS:
        return True
    return (len(name) == 3 or not name.islower()) and find_unit(name) is not None


class _Tail:
    """What the names behind a value amount to, as they are read from left to right."""

    def __init__(self, value):
        self.scale, self.size = Fraction(1), 1.0
        self.powers, self.words = Counter(), set()
        self.sign, self.dimension = 1, 1
        self.last: tuple[float, frozenset, int] | None = None
        self.is_number = _is_number(value)

    def add(self, name, power):
        """Read one name. Return False if it changes the value in a way that has no number."""
        word = re.sub("[§ ]", "", name).rstrip(".").replace("\\mu", "µ")
        singular = word.lower().removesuffix("s") if len(word) > 3 else word.lower()
        if word.lower() in CHANGES.split() and self.sign > 0:
            return False
        if word in MONEY_SCALES and MONEY & self.powers.keys():
            self.scale *= MONEY_SCALES[word]
        elif singular in SCALES and not self.words:
            self.scale *= Fraction(SCALES[singular]) ** self.sign
        elif word.lower() in DIMENSIONS:
            return self._add_dimension(word.lower())
        elif not self._add_unit(word, power):
            self.words.add(singular)
            return self.is_number or bool(self.powers)
        return True

    def _add_dimension(self, word):
        if not word.endswith("d"):
            self.dimension = DIMENSIONS[word]
        elif self.last:  # meters squared
            size, unit, power = self.last
            self._multiply(size, unit, power * (DIMENSIONS[word] - 1))
        return not word.endswith("d") or self.last is not None  # not 5 squared

    def _add_unit(self, word, power):
        """Multiply by a unit. Behind a description or % there is none: 3 % per year, kg of gold."""
        if self.words or ("percentage", 1) in self.powers.items():
            return False
        found = find_unit(word)
        if found is None:
            return False
        exponent = self.sign * int(re.sub(r"[^-\d]", "", power) or self.dimension)
        if not exponent:
            return False
        self._multiply(*found, exponent)
        self.last, self.dimension = (*found, exponent), 1
        return True

    def _multiply(self, size, unit, power):
        self.size *= size**power
        for root, exponent in unit:
            self.powers[root] += exponent * power


def _read_tail(value, tail):
    """Return the quantity, or None if a word changes the value or describes no number."""
    read = _Tail(value)
    tail = re.sub(TEMPERATURE, lambda scale: f"§{SCALE_NAMES[scale[1]]}", tail)
    if tail.endswith("more"):
        return None
    for division, name, power in FACTOR.findall(tail):
        if division:
            read.sign = -1
        elif not read.add(name, power):
            return None
    if read.dimension > 1:  # square units
        read.words.add(str(read.dimension))
    unit = frozenset((root, power) for root, power in read.powers.items() if power)
    is_letter = len(tail) == 1 and tail.isalpha()
    return Quantity(value, read.scale, read.size, unit, frozenset(read.words), is_letter)


def agree(gold: Quantity, answer: Quantity) -> bool:
    """Return whether what is behind two values allows them to be equal.

    Units must be of one kind. A unit or description may be left out, but for % and \u2030.
    """
    units = {gold.unit, answer.unit}
    if len(units) > 1 and (frozenset() not in units or units & RELATIVE):
        return False
    if gold.unit != answer.unit and gold.words and answer.words:
        return False
    if (
        gold.unit
        and answer.words
        and not answer.unit
        or answer.unit
        and gold.words
        and not gold.unit
    ):
        return False  # 5 km, 5 apples
    return gold.words <= answer.words or answer.words <= gold.words


def ratio(gold: Quantity, answer: Quantity) -> Fraction:
    """Return how often the answer's unit, with its scale word, holds the gold's.

    Sizes are floats: a quotient next to a simple fraction is that fraction. By hand, for m and km:
    1000.
    """
    scale = answer.scale / gold.scale
    if not gold.unit or not answer.unit or gold.size == answer.size:
        return scale
    quotient = answer.size / gold.size
    inverse = quotient < 1
    exact = Fraction(1 / quotient if inverse else quotient)
    simple = exact.limit_denominator(10**6)
    if abs(simple - exact) <= exact / 10**12:
        exact = simple
    return scale * (1 / exact if inverse else exact)


def multiply(value: str, factor: Fraction) -> str:
    """Return a value in normal form times a factor."""
    if factor == 1:
        return value
    number = read_number(value)
    product = factor if number is None else factor * number
    text = rf"\frac{{{product.numerator}}}{{{product.denominator}}}"
    if product.denominator == 1:
        text = str(product.numerator)
    return text if number is not None else f"{text} ({value})"


def join_quantities(answer: str) -> str:
    r"""Return 5 feet 6 inches as \frac{11}{2} §feet: units of one kind, each smaller than the last.

    Anything else is returned as it is.
    """
    if len(answer) > MAX_QUANTITY or not COMPOUND.fullmatch(answer):
        return answer
    pieces = [piece[0] for piece in PIECE.finditer(answer)]
    first, *others = map(read_quantity, pieces)
    total, size = read_number(first.value), first.size
    for quantity in others:
        number = read_number(quantity.value)
        if not first.unit or quantity.unit != first.unit or quantity.size >= size:
            return answer
        if number is None or total is None:
            return answer
        total, size = total + ratio(first, quantity) * number, quantity.size
    return multiply("1", total) + pieces[0].removeprefix(first.value) if total else answer
