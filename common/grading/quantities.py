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

from common.grading.read_numbers import NUMBER, read_number, word_values

# The one table of what pint lacks, or takes for something else, in pint's own format.
DEFINITIONS = r"""
percentage = [percentage] = % = percent = pct
per_mille = [per_mille] = ‰
dollar = [dollar] = $ = USD
cent = 0.01 * dollar
euro = [euro] = EUR
sterling = [sterling] = GBP
rupee = [rupee] = INR = Rs
yuan = [yuan] = CNY = RMB = 元
yen = [yen] = JPY
celsius = [celsius] = Celsius
fahrenheit = [fahrenheit] = Fahrenheit
magnitude = [magnitude] = mag
jansky = 1e-26 * kilogram / second**2 = Jy
solar_mass = 1.98841e30 * kilogram = Msun
solar_radius = 6.957e8 * meter = Rsun
solar_luminosity = 3.828e26 * watt = Lsun
earth_mass = 5.97217e24 * kilogram = Mearth
earth_radius = 6.3781e6 * meter = Rearth
jupiter_mass = 1.89812e27 * kilogram = Mjup = Mjupiter
jupiter_radius = 7.1492e7 * meter = Rjup = Rjupiter
@alias astronomical_unit = AU
@alias joule = Nm
@alias foot = '
@alias inch = '' = "
@alias ohm = \Omega
@alias degree = ° = deg = 度
@alias gram = gm = gms = 克
@alias kilometer_per_hour = kmph = kmh
@alias meter = 米
@alias centimeter = 厘米
@alias kilometer = 公里 = 千米
@alias kilogram = 千克
@alias hour = 小时
@alias minute = 分钟
"""
PREFIXES = ("", "kilo", "centi", "milli", "mega", "giga", "tera", "nano", "micro", "pico", "femto")
BARE_LETTERS = set("mshgLlNJWVAKCFTMu")  # behind a number and a space, without \text
# Units of two lower-case letters that are read as units without \text, too.
SHORT = """
    cm mm km nm pm fm in ft yd mi kg mg lb oz ms ns ps fs hr yr ml dl gal hp lm cc ly pc am"""
JOINED = {"cm", "mm", "km", "nm", "kg"}  # 2cm; but 2ft, 2in and 2min may be products
# Words that compare, doubt, negate or name a base: 12 less is not 12.
CHANGES = """
    too less fewer most least greater larger smaller higher lower bigger than
    above below under over beyond up upward upwards onward onwards short ago bc bce to
    almost nearly about roughly ish maybe perhaps possibly probably doubtful uncertain unsure
    unlikely unclear unknown impossible undefined wrong incorrect invalid inaccurate false rejected
    not no never none nor excluded except excluding without and or if is are was were remainder
    plus minus negative inverse double triple twice factorial repeating recurring kilo mega giga
    micro milli myriad mil mill guess likely cannot could might should imaginary exclusive doubled
    halved tripled two three four five six seven eight nine ten mod modulo base
    binary ternary octal decimal hexadecimal hex
    以上 以下 多 以内"""
SCALES = word_values("""
    hundred 100  thousand 1000  million 1e6  billion 1e9  trillion 1e12  quadrillion 1e15
    quintillion 1e18  dozen 12  score 20
    gross 144  lakh 1e5  crore 1e7  grand 1000  mln 1e6  bn 1e9  百 100  千 1000  万 1e4  亿 1e8
    half 1/2  halve 1/2  third 1/3  quarter 1/4  fourth 1/4  fifth 1/5  sixth 1/6  seventh 1/7
    eighth 1/8  ninth 1/9  tenth 1/10  hundredth 1/100  thousandth 1/1000""")
MONEY = {"dollar", "euro", "sterling", "rupee", "yuan", "yen"}
MONEY_SCALES = word_values("k 1000  K 1000  M 1e6  B 1e9")  # $5M
DIMENSIONS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
POWERS = {"squared": 2, "cubed": 3}
NO_COUNT = r"more$|\^ ?\{? ?0"  # 12 more, m^0

MAX_NAME, MAX_QUANTITY = 30, 500  # characters of a unit's name, of a quantity
MAX_POWERS, LARGEST = 8, 10**34  # of all units together, size of each
WORD = r"(?:§?[kMm]? ?\\Omega(?![a-z])|(?:§?\\mu ?)?(?<![\\A-Za-z])§?[^\W\d_]+\.?|[%‰°$\"]|''?)"
POWER = r"(?: ?\^ ?\{? ?-?\d ?\}?|(?<=[a-z])\d(?!\d))?"
FACTOR = re.compile(rf"(/|§?\bper\b)|({WORD})({POWER})")
TAIL = rf"(?:1 ?/ ?)?{WORD}{POWER}(?:[ ()*/-]|\\(?:cdot|times)(?![a-z])|{WORD}{POWER})*"
VALUE_END = r"(?:\d\.?|[}})!]|\\pi|\\infty|(?<=[^A-Za-z\\])[a-z](?= +(?:§|[a-z]{4}))|.(?= *§))"
QUANTITY = re.compile(rf"(?P<value>[^§]*?{VALUE_END})(?P<gap> ?(?:\((?=§))?)(?P<tail>{TAIL})")
TEMPERATURE = r"(?:°|§?degrees?) ?§?([CFK])(?:elsius|ahrenheit|elvin)?(?![A-Za-z])"
SCALE_NAMES = {"C": "celsius", "F": "fahrenheit", "K": "kelvin"}
RELATIVE = {("percentage", 1), ("per_mille", 1)}  # they may not be left out
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
    size: Fraction = Fraction(1)
    unit: frozenset = frozenset()
    words: frozenset = frozenset()
    is_letter: bool = False


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint  # takes 0.3 s, which an answer without units should not

    new_registry: Any = pint.UnitRegistry  # its annotations know no Fraction
    registry = new_registry(on_redefinition="ignore", non_int_type=Fraction)
    registry.load_definitions(DEFINITIONS.strip().splitlines())
    return registry


@lru_cache(maxsize=10_000)
def find_unit(name: str) -> str | None:
    """Return pint's name of a unit or symbol, such as "kilometer" for km, or None."""
    if len(name) > MAX_NAME:
        return None
    for spelling in (name, name.lower()) if len(name) > 1 else (name,):  # Meters, PSI
        for prefix, unit, _ in _registry().parse_unit_name(spelling):
            if prefix in PREFIXES and 1 / LARGEST < root_units({prefix + unit: 1})[0] < LARGEST:
                return prefix + unit
    return None


def root_units(powers: dict[str, int]) -> tuple[Fraction, frozenset]:
    """Return (size in root units, {(root unit, power)}) of a product of pint's units.

    By hand: km/h is 1000 m / 3600 s, so it is (5/18, {("meter", 1), ("second", -1)}). More than
    MAX_POWERS of them are kept as they are.
    """
    if not 0 < sum(map(abs, powers.values())) <= MAX_POWERS:
        return Fraction(1), frozenset(powers.items())
    registry = _registry()
    size, root = registry.get_root_units(registry.UnitsContainer(powers))
    return Fraction(size), frozenset(root._units.items())


def read_quantity(answer: str) -> Quantity:
    """Return an answer in normal form as a quantity; without unit and words it is its own value.

    >>> read_quantity("5 km").size, read_quantity("12 §red §apples").words
    (Fraction(1000, 1), frozenset({'red', 'apple'}))
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
    if not all(map(_may_be_bare, bare)):
        return True
    if len(names) > 1 or not bare:
        return bool(bare) and not gap and tail[0].isalpha()
    is_short = len(bare[0]) == 1 or len(bare[0]) < 4 and bare[0].islower()
    return is_short and not (_is_number(value) and (gap or bare[0] in JOINED))


def _is_number(value):
    """Return whether a value is a number or a time of day, such as 7:30."""
    return read_number(value) is not None or bool(re.fullmatch(r"\d+:\d\d", value))


def _may_be_bare(name):
    """Return whether a name without \\text is no product: psi, kW and apples, but not xy."""
    if len(name) > 3 or name in SHORT.split() or name in BARE_LETTERS:
        return True
    return len(name) > 1 and (len(name) > 2 or not name.islower()) and find_unit(name) is not None


def _read_tail(value, tail):
    """Return the quantity, or None if a word changes the value or describes no number."""
    tail = re.sub(r"left[- ]?§?over", "left", tail)
    tail = re.sub(TEMPERATURE, lambda scale: f"§{SCALE_NAMES[scale[1]]}", tail)
    if re.search(NO_COUNT, tail):
        return None
    scale, powers, words = Fraction(1), Counter(), set()
    sign, dimension, last = 1, 1, ""
    for division, name, power in FACTOR.findall(tail):
        word = re.sub("[§ ]", "", name).rstrip(".").replace("\\mu", "µ")
        singular = _singular(word)
        factor = _read_scale(word, "" if words else singular, powers)
        if division:
            sign = -1
        elif factor:
            scale *= factor**sign
        elif singular in DIMENSIONS:
            dimension = DIMENSIONS[singular]
        elif singular in POWERS and last:  # meters squared
            powers[last] *= POWERS[singular]
        elif _changes_value(word, singular, sign):
            return None
        elif _unit_of(word, words, powers):  # kg of gold, % per year
            last = find_unit(word)
            powers[last] += sign * int(re.sub(r"[^-\d]", "", power) or dimension)
            dimension = 1
        elif last or _is_number(value):
            words.add(singular)
        else:
            return None
    if dimension > 1:  # square units
        words.add(str(dimension))
    size, unit = root_units(_powers_of(powers))
    is_letter = bool(re.fullmatch(r"[^\W\d_]", tail))
    return Quantity(value, scale, size, unit, frozenset(words), is_letter)


def _unit_of(word, words, powers):
    """Return the unit that a word names; None behind a description or a percentage."""
    return None if words or powers["percentage"] else find_unit(word)


def _powers_of(powers):
    return {name: power for name, power in powers.items() if power}


def _singular(word):
    return word.lower().removesuffix("s") if len(word) > 3 else word.lower()


def _read_scale(word, singular, powers):
    """Return what a word multiplies a value by, 0 if it is no such word."""
    is_money = word in MONEY_SCALES and MONEY & powers.keys()
    return MONEY_SCALES[word] if is_money else SCALES.get(singular, 0)


def _changes_value(word, singular, sign):
    return singular in POWERS or (word.lower() in CHANGES.split() and sign > 0)


def agree(gold: Quantity, answer: Quantity) -> bool:
    """Return whether what is behind two values allows them to be equal.

    Units must be of one kind. A unit or description may be left out, but no % and no ‰.
    """
    if not (gold.words <= answer.words or answer.words <= gold.words):
        return False
    if gold.unit and answer.unit:
        return gold.unit == answer.unit
    apples = gold.unit and answer.words or answer.unit and gold.words  # 5 km and 5 apples
    return not apples and not (gold.unit | answer.unit) & RELATIVE


def ratio(gold: Quantity, answer: Quantity) -> Fraction:
    """Return how often the answer's unit and scale word hold the gold's: for m and km 1000."""
    scale = answer.scale / gold.scale
    return scale * answer.size / gold.size if gold.unit and answer.unit else scale


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
    quantities = [read_quantity(piece) for piece in pieces]
    first, sizes = quantities[0], [quantity.size for quantity in quantities]
    if {quantity.unit for quantity in quantities} != {first.unit or None}:
        return answer
    numbers = [read_number(quantity.value) for quantity in quantities]
    if None in numbers or sizes != sorted(set(sizes), reverse=True):
        return answer
    total = sum(number * size / first.size for number, size in zip(numbers, sizes) if number)
    return multiply("1", Fraction(total)) + pieces[0].removeprefix(first.value)
