r"""Equality of two LaTeX expressions, in sympy: what runs inside the worker process of worker.py.

The LaTeX grammar is that of math-verify (latex2sympy2_extended), without its clean-up of units and case, which would turn
\frac{1}{m} t into \frac{1}{m} and C into c, and without sympy's parse_expr, which is eval. Expressions are compared by their values at
fixed points, to 30 digits with the loss of significance tracked: two expressions that agree at all of them are taken as the same
function, and a single point decides that they differ. Sets, and relations that are not a multiple of each other, go to math-verify.
"""

import logging
import random
import re
from math import isclose

import sympy
import sympy.parsing.sympy_parser
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from math_verify import verify
from sympy.core.function import AppliedUndef
from sympy.core.relational import (
    Equality,
    GreaterThan,
    LessThan,
    Relational,
    StrictGreaterThan,
    StrictLessThan,
)

logging.disable(logging.CRITICAL)


def _number(text: str, *_, **__):
    """In place of parse_expr: the grammar hands each number to sympify, and sympify of a string is parse_expr, which is eval."""
    if text.isidentifier():  # sympy's own modules do so with names
        return sympy.Symbol(text)
    if not re.fullmatch(r"\d+(?:\.\d*)?|\.\d+", text, re.ASCII):
        raise sympy.SympifyError(text)
    return sympy.Rational(text)


sympy.parsing.sympy_parser.parse_expr = _number

DIGITS = 30  # of a value
SPANS = (
    [(0, 1)] * 3 + [(1, 4)] * 2 + [(-3, 3)] * 5
)  # where the points lie; then come small integers
WIDE = [(10, 60), (60, 900), (-900, -10)]  # and these, where nothing grows like an exponential
LARGEST = (
    10**60
)  # beyond it lies a pole at one of the points, or what hides the other terms of a sum
SYMBOL = r"(\\[a-z]+|[A-Za-z])(_(?:\w|\{\w*\}))?"
RENAMED = [  # names that the grammar takes for numbers, or does not read; derivatives by the time
    (rf"\\frac\{{\s*d\s*\^\s*\{{?2\}}?\s*\{{?{SYMBOL}\}}?\s*\}}\{{\s*d\s*t\s*\^\s*\{{?2\}}?\s*\}}", r"\\ddot{\1}\2"),
    (rf"\\frac\{{\s*d\s*\{{?{SYMBOL}\}}?\s*\}}\{{\s*d\s*t\s*\}}", r"\\dot{\1}\2"),
    (r"\\gamma(?![a-z])", r"\\upsilon"), (r"\\Gamma(?![a-z])", r"\\Upsilon"),
    (r"(?<![\\A-Za-z])E_", r"\\varrho_"), (r"(?<![\\A-Za-z])e_", r"\\varsigma_"),
    (r"\^\s*(?:T|\{\s*T\s*\})", r"^{\\Psi}"),  # no transpose
]  # fmt: skip
FUNCTION = re.compile(  # \sin\theta (a+b) and \ln 2/2: the argument ends there
    r"(\\(?:sin|cos|tan|log|ln)(?![a-z])(?:\^\{?-?\d\}?)?\s*(?:\\[a-z]+|[a-z]|\d+(?=\s*/)))(?=\s*[(/])"
)
BIG = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)
AGREE = 4  # points, of those where both have a value, that make two expressions equal


def parse(text: str, mixed: bool = True):
    """A sympy object, or None for what the grammar cannot read. mixed: 1\\frac{1}{2} is 3/2, not 1/2."""
    text = re.sub(
        r"(?<!\\sum)(?<!\\prod)_\{([^{}=]+)\}", lambda name: f"_{{{_coded(name[1])}}}", text
    )  # L_{\odot}
    if re.search(r"\d_|\\angle|\\(?:sum|prod).*[A-Za-z]_", text):
        return None  # number bases, angles and the terms of a sequence mean nothing to the grammar
    text = re.sub(r"([A-Za-z])('+)", lambda prime: f"{prime[1]}_{{prime{len(prime[2])}}}", text)
    text = re.sub(r"(?<![\\A-Za-z])([fgh])\s*\(([^()]*)\)", _call, text)
    text = re.sub(
        r"(?<![\d.^_])(\d+)\s*/\s*(\d+)(?=\s*(?:\\[a-z]|[A-Za-z(]))", r"\\frac{\1}{\2}", text
    )  # 4/3 \pi r^3
    text = re.sub(r"\\[A-Za-z]+|I", lambda word: r"\varpi " if word[0] == "I" else word[0], text)
    if not mixed:
        text = re.sub(r"(?<=\d)\s*\\frac", r"\\cdot\\frac", text)
    text = re.sub(r"\\lg(?![a-z])", r"\\log_{10}", text)
    if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text):
        text = re.sub(r"(\d+(?:\.\d+)?)\s*°", r"{(\1\\pi/180)}", text)
    if re.search(r"[^\d)}\s.]\s*°", text):
        return None
    text = text.replace("°", "")
    text = FUNCTION.sub(r"{\1}", text)
    for name, other in RENAMED:
        text = re.sub(name, other, text)
    try:
        parsed = latex2sympy(
            text,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except (MemoryError, RecursionError):
        raise  # not decided
    except Exception:  # the grammar raises plain Exception, and sympy dozens of types
        return None
    if isinstance(parsed, sympy.MatrixExpr):
        parsed = parsed.doit()
    if isinstance(parsed, (sympy.Expr, sympy.MatrixBase)):
        parsed = _plain(parsed)
    if isinstance(parsed, Relational):
        parsed = parsed.func(*(_plain(side) for side in parsed.args), evaluate=False)
    return parsed


def _call(call: re.Match) -> str:
    """f(x+1) as a name of its own: the grammar takes it for a product. A call of a number stays."""
    argument = re.sub(r"\\[a-z]+", "", call[2])
    return (
        rf"\varrho_{{{call[1]}of{_coded(call[2])}}}" if re.search("[A-Za-z]", argument) else call[0]
    )


def _coded(name: str) -> str:
    """A name of letters and digits, another one for each text: n-1 is not n+1."""
    name = re.sub(r"\s", "", name)
    return (
        name.replace("\\", "")
        if re.fullmatch(r"[\w\\]*", name)
        else re.sub(r"\W", lambda sign: f"u{ord(sign[0])}", name)
    )


def _plain(expression):
    """With exact numbers for decimals, i as the imaginary unit, f(x) and derivatives as opaque names, and sums carried out, but for
    those with a symbol in their limits."""
    if expression.has(*BIG):
        expression = expression.as_dummy()  # the name of a summation index does not matter
    if any(not _bounds(part) for part in expression.atoms(*BIG)):
        expression = expression.doit()
    named = {
        part: sympy.Symbol(_coded(str(part)))
        for part in expression.atoms(AppliedUndef, sympy.Derivative)
    }
    exact = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    return expression.xreplace({**named, **exact, sympy.Symbol("i"): sympy.I})


def _bounds(part) -> set:
    """The symbols in the limits of a sum, product, integral or limit."""
    ends = [end for limit in getattr(part, "limits", [part.args[1:]]) for end in limit[1:]]
    return set().union(*(end.free_symbols for end in ends if isinstance(end, sympy.Expr)))


def equal(gold: str, answer: str, tolerance: float = 0) -> bool:
    """Whether two LaTeX strings without delimiters mean the same; tolerance: relative, for numbers whose gold is no integer."""
    one, other = parse(gold), parse(answer)
    if one is None or other is None:
        return False
    if isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        return _same_value(one, other) or bool(tolerance) and _close(one, other, tolerance)
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        return one.shape == other.shape and all(_same_value(*pair) for pair in zip(one, other))
    if (
        isinstance(one, Equality)
        and isinstance(other, Equality)
        and (_multiple(one, other) or one.free_symbols != other.free_symbols)
    ):
        return _multiple(one, other)
    if isinstance(one, ORDER) and isinstance(other, ORDER):
        return isinstance(one, STRICT) == isinstance(other, STRICT) and _multiple(
            one, other, positive=True
        )
    return bool(
        verify(
            [one], [other], float_rounding=12, allow_set_relation_comp=True, timeout_seconds=None
        )
    )


STRICT = (StrictLessThan, StrictGreaterThan)
ORDER = (*STRICT, LessThan, GreaterThan)


def _points(one, other):
    """Fixed values for the symbols of two expressions: the same in every run, different for each symbol; integers of both parities."""
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    grows = (one + other).has(
        sympy.exp, sympy.sinh, sympy.cosh, sympy.tanh, sympy.factorial, sympy.gamma, sympy.binomial
    ) or any(power.exp.free_symbols for power in (one + other).atoms(sympy.Pow))
    for number, (low, high) in enumerate(SPANS if grows else SPANS + WIDE):
        yield {
            symbol: low + (high - low) * sympy.Rational(_draw(symbol, number, 996) + 1, 998)
            for symbol in symbols
        }
    for number in range(6):
        yield {symbol: sympy.Integer(2 + (_draw(symbol, 0, 7) + number) % 7) for symbol in symbols}


def _draw(symbol, number: int, below: int) -> int:
    return random.Random(f"{symbol.name} {number}").randrange(below)


def _roots_defined(expression, point: dict) -> bool:
    """Whether no root or logarithm of a negative number is taken: \\sqrt{a}\\sqrt{b} is \\sqrt{ab} where both sides are real."""
    taken = [
        power.base
        for power in expression.atoms(sympy.Pow)
        if not power.exp.is_integer and power.base.free_symbols
    ]
    taken += [
        logarithm.args[0] for logarithm in expression.atoms(sympy.log) if logarithm.free_symbols
    ]
    return all(
        (value := _value(part, point)) is None or not _zero(value[1]) or value[0] >= 0
        for part in taken
    )


def _value(expression, point: dict):
    """(real part, imaginary part) as Floats, or None where the expression has no finite value."""
    if point and expression.has(*BIG):  # sums up to n: at whole numbers
        if not all(number.is_Integer for number in point.values()):
            return None
        expression = expression.subs(point).doit()
    value = expression.evalf(DIGITS, subs=point)
    if value.free_symbols or value.has(sympy.nan, sympy.zoo, sympy.oo, sympy.S.NegativeInfinity):
        return None
    parts = value.as_real_imag()
    fine = all(
        (part.is_Float or part.is_Rational) and (not point or abs(part) < LARGEST) for part in parts
    )
    return parts if fine else None


def _hides_terms(number) -> bool:
    """Whether a power in it is so large or small that what is added to it would be lost: e^{300} + 1."""
    sizes = [abs(power.evalf(5)) for power in number.atoms(sympy.Pow, sympy.exp)]
    return not all(
        size.is_Float and 1 / LARGEST < size < LARGEST or size.is_Rational for size in sizes
    )


def _zero(part) -> bool:
    """Zero, or nothing left of a difference: sympy gives such a value the precision 1."""
    return part == 0 or part.is_Float and part._prec <= 10


def _same_value(one, other) -> bool:
    if one == other:
        return True
    if one.is_Rational and other.is_Rational:
        return False
    if not one.free_symbols | other.free_symbols:
        one, other = one.doit(), other.doit()
        if one.is_Rational and other.is_Rational:
            return one == other
        if _hides_terms(one) or _hides_terms(other):
            return False
        values = [_value(side, {}) for side in (one, other)]
        return (
            None not in values
            and (difference := _value(one - other, {})) is not None
            and all(map(_zero, difference))
        )
    real, complex_, over_c = 0, 0, (one + other).has(sympy.I)
    for point in _points(one, other):
        first, second = _value(one, point), _value(other, point)
        if first is None or second is None:
            continue
        is_real = _zero(first[1]) and _zero(second[1])
        if _zero(first[1]) != _zero(second[1]) or not (
            over_c or _roots_defined(one, point) and _roots_defined(other, point)
        ):
            continue  # not both are defined here, over the reals
        difference = _value(one - other, point)
        if difference is None or not all(map(_zero, difference)):
            return False
        real, complex_ = real + is_real, complex_ + (not is_real)
    return max(real, complex_) >= AGREE


def _close(gold, answer, tolerance: float) -> bool:
    """Two real numbers, the gold no integer, within a relative tolerance."""
    values = [_value(side, {}) if not side.free_symbols else None for side in (gold, answer)]
    if None in values or not all(_zero(value[1]) for value in values) or gold.is_integer:
        return False
    return bool(abs(values[0][0] - values[1][0]) <= min(tolerance, 1) * abs(values[0][0]))


def _multiple(one, other, positive: bool = False) -> bool:
    """Whether lhs - rhs of two relations differ by a constant factor (for inequalities: written as lhs > rhs, a positive one)."""
    sides = [
        (r.lhs - r.rhs) * (-1 if isinstance(r, (StrictLessThan, LessThan)) else 1)
        for r in (one, other)
    ]
    factor, agree = None, 0
    for point in _points(*sides):
        values = [_value(side, point) for side in sides]
        if (
            None in values
            or any(map(_zero, values[1]))
            and _zero(values[1][0])
            and _zero(values[1][1])
        ):
            continue
        if factor is None:
            factor = sides[0].subs(point) / sides[1].subs(point)
            if positive and not (factor.evalf(DIGITS).is_extended_positive):
                return False
            continue
        difference = _value(sides[0] - factor * sides[1], point)
        if difference is None or not all(map(_zero, difference)):
            return False
        agree += 1
    return factor is not None and factor != 0 and agree >= AGREE


def same_by_paper(answer: str, gold: str) -> bool:
    """The symbolic part of the paper's grader: equal, or both sides of an equation up to the sign, or numbers within 1e-4, or matrices
    to three decimals."""
    if not (answer + gold).isascii() or r"\approx" in answer + gold:
        return False  # its parsers stop there
    one, other = (parse(_as_far_as_read(side), mixed=False) for side in (answer, gold))
    if isinstance(one, Equality) and isinstance(other, Equality):
        return _same_value(abs(one.lhs - one.rhs), abs(other.lhs - other.rhs))
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        return one.shape == other.shape and all(
            _same_value(a, b) or round(a, 3) == round(b, 3) for a, b in zip(one, other)
        )
    if isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        return (
            _same_value(one, other)
            or not one.free_symbols | other.free_symbols
            and isclose(one, other, rel_tol=1e-4)
        )
    return isinstance(one, Relational) and one.canonical == getattr(other, "canonical", None)


def _as_far_as_read(answer: str) -> str:
    """Its parser reads as far as it can and drops the rest: of a list the first element, of (0,1)\\cup(5,6) cut at commas 1."""
    answer = re.sub(r"\\,|\\$", "", answer)
    depth = 0
    for token in re.finditer(
        r"[(\[{]|[)\]}]|;|(?<!\d),|,(?!\d{3}(?!\d))|(?<=\d)_",
        answer if r"\begin" not in answer else "",
    ):
        depth += 1 if token[0] in "([{" else -1 if token[0] in ")]}" else 0
        if depth < 0 or not depth and token[0] in ",;_":
            return answer[: token.start()]
    return answer
