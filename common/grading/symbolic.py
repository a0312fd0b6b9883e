r"""Compare two LaTeX expressions in sympy: the program that sympy_worker.py starts, and can kill.

The LaTeX grammar is that of math-verify (latex2sympy2_extended). Its clean-up of units and case
is left out, because it turns \frac{1}{m} t into \frac{1}{m} and C into c. sympy's parse_expr is
replaced, because it is eval.

Expressions are compared by their values at fixed points, to 30 digits, with the loss of
significance tracked. Two expressions that agree at all the points count as the same function; a
single point decides that they differ. Sets go to math-verify, and so do relations that are no
multiple of each other.
"""

import json
import logging
import random
import re
import resource
import signal
import sys
import time
from contextlib import suppress
from functools import lru_cache
from math import isclose
from typing import Any

import sympy
import sympy.parsing.sympy_parser
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from math_verify import verify
from sympy.core.function import AppliedUndef

logging.disable(logging.CRITICAL)


def _number(text, *_, **__):
    """Return a number, in place of parse_expr, which is eval: the grammar has sympify call it."""
    if text.isidentifier():  # sympy's own modules do so with names
        return sympy.Symbol(text)
    if not re.fullmatch(r"\d+(?:\.\d*)?|\.\d+", text, re.ASCII):
        raise sympy.SympifyError(text)
    return sympy.Rational(text)


sympy.parsing.sympy_parser.parse_expr = _number

DIGITS = 30  # of a value
SPANS = [(0, 1)] * 3 + [(1, 4)] * 2 + [(-3, 3)] * 5  # the points lie here; small integers follow
WIDE = [(10, 60), (60, 900), (-900, -10)]  # and here, if nothing grows like an exponential
LARGEST = 10**60  # a larger value is near a pole, or hides the other terms of a sum
AGREE = 4  # expressions are equal if they agree at so many points
# 101_2, \angle A, \sum a_k, x°
UNREADABLE = r"\d_|\\angle|\\(?:sum|prod).*[A-Za-z]_|[^\d)}\s.]\s*°"
TRIGONOMETRY = r"\\(?:sin|cos|tan|cot|sec|csc)"
UNEVALUATED = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)
GROWING = (
    sympy.exp,
    sympy.sinh,
    sympy.cosh,
    sympy.tanh,
    sympy.factorial,
    sympy.gamma,
    sympy.binomial,
)
STRICT = (sympy.StrictLessThan, sympy.StrictGreaterThan)
INEQUALITIES = (*STRICT, sympy.LessThan, sympy.GreaterThan)


def _name_of(text):
    """Return a name of letters and digits, a different one for each text: n-1 is not n+1."""
    text = re.sub(r"[\s\\]", "", text)
    return re.sub(r"\W", lambda sign: f"u{ord(sign[0])}", text)


def _call(call):
    """Return f(x+1), which the grammar takes for a product, as one name; f(1) stays."""
    if not re.search("[A-Za-z]", re.sub(r"\\[a-z]+", "", call[2])):
        return call[0]
    return rf"\varrho_{{{call[1]}of{_name_of(call[2])}}}"


SYMBOL = r"(\\[a-z]+|[A-Za-z])(_(?:\w|\{\w*\}))?"
INDEX = r"(?<!\\sum)(?<!\\prod)_\{([^{}=]+)\}"  # L_{\odot}
NAMES = [  # the grammar drops primes, takes f(x) for a product and I for the imaginary unit
    (INDEX, lambda index: f"_{{{_name_of(index[1])}}}"),
    (r"([A-Za-z])('+)", lambda name: f"{name[1]}_{{prime{len(name[2])}}}"),
    (r"(?<![\\A-Za-z])([fgh])\s*\(([^()]*)\)", _call),
    (r"(?<![\\A-Za-z])([A-Z])\s*\[([^\[\]]*)\]", _call),  # E[X^2]
    (r"(?<![\d.^_])(\d+)\s*/\s*(\d+)(?=\s*(?:\\[a-z]|[A-Za-z(]))", r"\\frac{\1}{\2}"),  # 4/3 \pi r
    (r"\\[A-Za-z]+|I", lambda name: r"\varpi " if name[0] == "I" else name[0]),
    (r"\\lg(?![a-z])", r"\\log_{10}"),
]
RENAMED = [  # names that the grammar takes for numbers, or does not read; derivatives by the time
    ("°", ""),
    (  # \sin\theta (a+b) and \ln 2/2: the argument ends there
        r"(\\(?:sin|cos|tan|log|ln)(?![a-z])(?:\^\{?-?\d\}?)?(?:_\{?\w+\}?)?"
        r"\s*(?:\\[a-z]+|[a-z]|\{\w+\}|\d+(?=\s*/)))"
        r"(?=\s*[(/])",
        r"{\1}",
    ),
    (
        rf"\\frac\{{\s*d\s*\^\s*\{{?2\}}?\s*\{{?{SYMBOL}\}}?\s*\}}"
        r"\{\s*d\s*t\s*\^\s*\{?2\}?\s*\}",
        r"\\ddot{\1}\2",
    ),
    (rf"\\frac\{{\s*d\s*\{{?{SYMBOL}\}}?\s*\}}\{{\s*d\s*t\s*\}}", r"\\dot{\1}\2"),
    (r"\\gamma(?![a-z])", r"\\upsilon"),
    (r"\\Gamma(?![a-z])", r"\\Upsilon"),
    (r"(?<![\\A-Za-z])E_", r"\\varrho_"),
    (r"(?<![\\A-Za-z])e_", r"\\varsigma_"),
    (r"\^\s*(?:T|\{\s*T\s*\})", r"^{\\Psi}"),  # no transpose
]


@lru_cache(maxsize=1_000)  # a gold comes with each sample of its problem
def parse(text: str) -> Any:
    """Return a sympy object, or None for what the grammar cannot read."""
    if re.search(UNREADABLE, text):
        return None
    text = _rewrite(text, NAMES)
    if re.search(TRIGONOMETRY, text):
        text = re.sub(r"(\d+(?:\.\d+)?)\s*°", r"{(\1\\pi/180)}", text)
    try:
        parsed = latex2sympy(
            _rewrite(text, RENAMED),
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
        return _simplify(parsed)
    except (MemoryError, RecursionError):
        raise  # not decided
    except Exception:  # the grammar raises plain Exception, and sympy dozens of types
        return None


def _rewrite(text, rules):
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text


def _simplify(parsed):
    """Return an expression, a matrix or a relation with what _exact does, and anything else."""
    if isinstance(parsed, sympy.MatrixExpr):
        parsed = parsed.doit()
    if isinstance(parsed, sympy.Rel):
        return parsed.func(_exact(parsed.lhs), _exact(parsed.rhs), evaluate=False)
    if isinstance(parsed, (sympy.Expr, sympy.MatrixBase)):
        return _exact(parsed)
    return parsed


def _exact(expression):
    """Return an expression with exact numbers for decimals and i as the imaginary unit.

    f(x) and derivatives become opaque names. Sums are carried out if their limits are numbers.
    """
    if expression.has(*UNEVALUATED):
        expression = expression.as_dummy()  # the name of a summation index does not matter
    if not all(_symbols_in_limits(part) for part in expression.atoms(*UNEVALUATED)):
        expression = expression.doit()
    replacements = {sympy.Symbol("i"): sympy.I}
    for part in expression.atoms(AppliedUndef, sympy.Derivative):
        replacements[part] = sympy.Symbol(_name_of(str(part)))
    for number in expression.atoms(sympy.Float):
        replacements[number] = sympy.Rational(str(number))
    return expression.xreplace(replacements)


def _symbols_in_limits(part):
    """Return the symbols in the limits of a sum, product, integral or limit."""
    limits = getattr(part, "limits", [part.args[1:]])
    return sympy.Tuple(*(end for limit in limits for end in limit[1:])).free_symbols


def equal(gold: str, answer: str, tolerance: float = 0) -> bool:
    """Return whether two LaTeX strings without delimiters mean the same.

    tolerance: relative, for numbers if the gold is no integer.
    """
    first, second = parse(gold), parse(answer)
    if first is None or second is None:
        return False
    if _both(sympy.Expr, first, second):
        return _same_value(first, second) or tolerance > 0 and _close(first, second, tolerance)
    if _both(sympy.MatrixBase, first, second):
        return first.shape == second.shape and all(map(_same_value, first, second))
    if _both(INEQUALITIES, first, second):
        differences = first.gts - first.lts, second.gts - second.lts
        strict = isinstance(first, STRICT) == isinstance(second, STRICT)
        return strict and _same_up_to_factor(*differences, positive=True)
    if _both(sympy.Equality, first, second):
        if _same_up_to_factor(first.lhs - first.rhs, second.lhs - second.rhs):
            return True
        if first.free_symbols != second.free_symbols:
            return False
    return verify(
        [first], [second], float_rounding=12, allow_set_relation_comp=True, timeout_seconds=None
    )


def _both(kind, first, second):
    return isinstance(first, kind) and isinstance(second, kind)


def _points(first, second):
    """Yield values for the symbols of two expressions: integers of both parities among them.

    They are the same in every run and different for each symbol.
    """
    symbols, total = first.free_symbols | second.free_symbols, first + second
    powers = [power for power in total.atoms(sympy.Pow) if power.exp.free_symbols]
    spans = SPANS if powers or total.has(*GROWING) else SPANS + WIDE
    for number, (low, high) in enumerate(spans):
        yield {
            symbol: low + (high - low) * sympy.Rational(_draw(symbol, number, 996) + 1, 998)
            for symbol in symbols
        }
    for number in range(6):
        yield {symbol: sympy.Integer(2 + (_draw(symbol, 0, 7) + number) % 7) for symbol in symbols}


def _draw(symbol, number, below):
    return random.Random(f"{symbol.name} {number}").randrange(below)


def _value(expression, point) -> Any:
    """Return (real part, imaginary part) as Floats, or None without a finite value."""
    if point and expression.has(*UNEVALUATED):  # sums up to n: at integers
        if not all(number.is_Integer for number in point.values()):
            return None
        expression = expression.subs(point).doit()
    parts = expression.evalf(DIGITS, subs=point).as_real_imag()
    for part in parts:  # of nan and of infinity they are no numbers
        if not (part.is_Float or part.is_Rational) or point and not abs(part) < LARGEST:
            return None
    return parts


def _is_zero(part):
    """Return whether a number is zero, or what is left of a difference: its precision is 1."""
    return part == 0 or part.is_Float and part._prec <= 10


def _vanishes(expression, point):
    parts = _value(expression, point)
    return parts is not None and all(map(_is_zero, parts))


def _roots_defined(expression, point):
    r"""Return whether no root or logarithm of a negative number is taken.

    \sqrt{a}\sqrt{b} is \sqrt{ab} if both sides are real.
    """
    roots = [power.base for power in expression.atoms(sympy.Pow) if not power.exp.is_integer]
    logarithms = [logarithm.args[0] for logarithm in expression.atoms(sympy.log)]
    for radicand in roots + logarithms:
        parts = _value(radicand, point) if radicand.free_symbols else None
        if parts and _is_zero(parts[1]) and parts[0] < 0:
            return False
    return True


def _hides_terms(number):
    """Return whether a power in it would swallow what is added to it: e^{300} + 1."""
    sizes = [abs(power.evalf(5)) for power in number.atoms(sympy.Pow, sympy.exp)]
    return not all(
        size.is_Float and 1 / LARGEST < size < LARGEST or size.is_Rational for size in sizes
    )


def _same_value(first, second):
    if first == second:
        return True
    if first.free_symbols or second.free_symbols:
        return _same_function(first, second)
    return _same_number(first.doit(), second.doit())


def _same_number(first, second):
    if first.is_Rational and second.is_Rational:
        return first == second
    if _hides_terms(first) or _hides_terms(second):
        return False
    values = [_value(first, {}), _value(second, {})]
    return None not in values and _vanishes(first - second, {})


def _same_function(first, second):
    """Return whether two expressions agree at enough points, and differ at none."""
    complex_numbers = (first + second).has(sympy.I)
    agreed = 0
    for point in _points(first, second):
        values = [_value(first, point), _value(second, point)]
        if None in values:
            continue
        if _is_zero(values[0][1]) != _is_zero(values[1][1]):
            continue  # one is real, and the other is not
        if not complex_numbers and not (
            _roots_defined(first, point) and _roots_defined(second, point)
        ):
            continue  # not both are defined here, over the reals
        if not _vanishes(first - second, point):
            return False
        agreed += 1
    return agreed >= AGREE


def _close(gold, answer, tolerance):
    """Return whether two real numbers, the gold no integer, agree within a relative tolerance."""
    values = [_value(gold, {}), _value(answer, {})]
    if None in values or gold.is_integer:
        return False
    (real, imaginary), (other_real, other_imaginary) = values
    both_real = _is_zero(imaginary) and _is_zero(other_imaginary)
    return both_real and bool(abs(real - other_real) <= tolerance * abs(real))


def _same_up_to_factor(first, second, positive=False):
    """Return whether two expressions differ by a constant (or positive) factor other than 0."""
    for point in _points(first, second):
        values = [_value(first, point), _value(second, point)]
        if None in values or all(map(_is_zero, values[1])):
            continue
        factor = first.subs(point) / second.subs(point)
        if factor == 0 or positive and not factor.evalf(DIGITS).is_extended_positive:
            return False
        return _same_function(first, factor * second)
    return False


def same_by_paper(answer: str, gold: str) -> bool:
    """Return whether two strings are equal by the symbolic part of the paper's grader.

    They are equal, or both sides of an equation up to the sign, or numbers within 1e-4, or
    matrices to three decimals.
    """
    if not (answer + gold).isascii() or r"\approx" in answer + gold:
        return False  # its parsers stop there
    first, second = map(parse, map(_readable_start, (answer, gold)))
    if _both(sympy.Equality, first, second):
        return _same_value(abs(first.lhs - first.rhs), abs(second.lhs - second.rhs))
    if _both(sympy.MatrixBase, first, second):
        return first.shape == second.shape and all(map(_same_entry, first, second))
    if _both(sympy.Expr, first, second):
        if _same_value(first, second):
            return True
        symbols = first.free_symbols | second.free_symbols
        return not symbols and isclose(first, second, rel_tol=1e-4)
    return isinstance(first, sympy.Rel) and first.canonical == getattr(second, "canonical", None)


def _same_entry(first, second):
    return _same_value(first, second) or round(first, 3) == round(second, 3)


def _readable_start(answer):
    r"""Return what its parser reads, which drops the rest at the first thing that it cannot read.

    Of a list this is the first element, of (0,1)\cup(5,6) cut at commas 1. 1\frac{1}{2} is a
    product.
    """
    answer = re.sub(r"(?<=\d)\s*\\frac", r"\\cdot\\frac", re.sub(r"\\,|\\$", "", answer))
    if r"\begin" in answer:
        return answer
    depth = 0
    for token in re.finditer(r"[(\[{]|[)\]}]|;|(?<!\d),|,(?!\d{3}(?!\d))|(?<=\d)_", answer):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        if depth < 0 or not depth and token[0] in ",;_":
            return answer[: token.start()]
    return answer


FUNCTIONS = {"equal": equal, "same_by_paper": same_by_paper}


def serve(memory_bytes: int) -> None:
    """Answer JSON lines [seconds, name, arguments...] by what that function returns.

    A reply is [answer, seconds of CPU]; the answer is null if the memory did not suffice. A
    question that needs more CPU time than its seconds ends this process. So does the end of stdin.
    """
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no reply
    with suppress(ValueError, OSError):  # not on every system: the time limit remains
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    equal(r"\sqrt{8}", r"2\sqrt{2}")  # fills grammar tables and caches, as part of the start
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        seconds, *question = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        began = time.process_time()
        answer = _reply(*question)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps([answer, time.process_time() - began]), file=replies, flush=True)


def _reply(name, *arguments):
    try:
        return bool(FUNCTIONS[name](*arguments))
    except (MemoryError, RecursionError):
        return None
    except Exception:  # sympy raises dozens of types; not shown to be equal is not equal
        return False


if __name__ == "__main__":
    serve(int(sys.argv[1]))
