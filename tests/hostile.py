"""Answers that attack the grader: cases(marker) -> [(name, text, gold)], none of them right.

They run code (each injection would create the file `marker`), never end, fill the memory, overflow
the stack, raise, or come so near the gold that floating point sees no difference. The text is what
a model wrote, mostly one boxed answer, and the gold a plain answer; neither has to be a string. No
text's answer is its gold's: a grader that calls one correct is wrong. A name is "class/what".
`python -m tests.bench.hostile` measures the grader on them.
"""

import base64
import itertools
import math
import operator
import os
import pickle
import random
import time
from decimal import Decimal
from fractions import Fraction

# two semiprimes
P = "108237700820329926954329075536462899701601166049728472788729874919548956195945398712612841"
Q = "69929207175025870562215989116067482607931291449122723552470038064246353965768605497302287"
STR = [
    m
    for m in vars(str)
    if callable(getattr(str, m))
    and m not in ("__new__", "__getattribute__", "__getnewargs__", "__sizeof__")
]


# -- objects: their methods, not their values, are what is hostile


def thing(base=object, *arguments, **methods):
    return type("Thing", (base,), methods)(*arguments)


def failing(error=RuntimeError):
    def method(self, *arguments, **options):
        raise error("hostile")

    return method


def slow(value):
    return lambda self, *arguments: time.sleep(300) or value


def touching(path):
    return lambda self, *arguments: str(open(path, "w").close())


def every_method(act):
    """A str all of whose methods do `act`."""
    return thing(str, r"\boxed{8}", **dict.fromkeys(STR, act))


class Raises:
    __str__ = __repr__ = __format__ = failing()


class Unpickled:
    """Calls a function when it is unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce_ex__(self, protocol):
        return self.call[0], self.call[1:]


# -- spellings


def box(inner):
    return rf"\boxed{{{inner}}}"


def listed(pattern, numbers, join=","):
    """One item a number: % is the number, & the one after it."""
    return join.join(pattern.replace("%", str(n)).replace("&", str(n + 1)) for n in numbers)


def around(left, inner, right, n):
    return left * n + inner + right * n


def matrix(n, entry, kind="pmatrix"):
    rows = ["&".join(str(entry(i, j)) for j in range(n)) for i in range(n)]
    return rf"\begin{{{kind}}}" + r"\\".join(rows) + rf"\end{{{kind}}}"


def cases(marker):
    code = f"open('{marker}','w')"
    run = f"__import__('os').system('touch {marker}')"
    letters = "+".join(f"chr({ord(c)})" for c in marker)
    classes = (
        "[c for c in ().__class__.__base__.__subclasses__() if c.__name__=='_wrap_close']"
        "[0].__init__.__globals__['system']"
    )
    encoded = base64.b64encode(code.encode()).decode()
    noise = random.Random(7)
    itself, deep = [], []
    itself.append(itself)
    for _ in range(100_000):
        deep = [deep]
    factorial = math.factorial(2000) + 1  # 5,736 digits: more than int() and str() take
    tower, slow_terms = "9^{9^{9^9}}", r"\sin^{9}(%x)\cos^{9}(%x)+\sqrt{%+\sqrt{&+\sqrt{x}}}"
    mixed = [
        tower,
        "(10^{8})!",
        rf"\sqrt{{{P}}}",
        r"\sum_{n=1}^{10^{9}}n^{n}",
        "(a+b+c+d)^{200}",
        r"\int_0^1 x^{x^{x}}dx",
    ]
    harmonic, primes = (
        r"\sum_{n=1}^{2%}\frac{1}{n^{2}}",
        (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71),
    )
    tokens = [
        r"\frac",
        "{",
        "}",
        "1",
        "x",
        "^",
        "_",
        r"\sqrt",
        "(",
        ")",
        ",",
        " ",
        r"\left",
        r"\right",
        "=",
        r"\pm",
        "$",
        "&",
    ]
    grid, variables = (
        (lambda i, j: (i * 37 + j * j * 11 + 5 * i * j) % 101),
        (lambda i, j: f"x_{{{i},{j}}}"),
    )

    # what is in the box, and the gold if it is not 7
    boxed = {
        "inject": {
            "import": run,
            "to-seven": f"{code}.write('1234567')",
            "no-quotes": f"open({letters},chr(119))",
            "exec-base64": f"exec(__import__('base64').b64decode('{encoded}'))",
            "subclasses": f"{classes}('touch {marker}')",
            "f-string": f'f"{{{code}}}"',
            "nfkc-name": f"\U0001d52c\U0001d52d\U0001d522\U0001d52b('{marker}','w')",
            "second-line": f"1\n{code}",
            "globals": f"x.__class__.simplify.__globals__['__builtins__']['open']('{marker}','w')",
            "string-in-sin": f'sin("{code}")',
            "lambdify": f'lambdify(x,"{code}")(1)',
            "operatorname": rf"\operatorname{{open}}('{marker}','w')",
            "text": rf"\text{{{run}}}",
            "index": rf"\sqrt[{code}]{{2}}",
            "subscript": rf"x_{{\text{{{code}}}}}",
            "environment": rf"\begin{{{code}}}1\end{{{code}}}",
            "write18": rf"\immediate\write18{{touch {marker}}}",
            "shell": f"'; touch {marker}; $(touch {marker}) '",
            "quote-break": f"1'+{code}.name+'",
            "gold-only": ("7", run),
        },
        "tower": {
            "braces": tower,
            "plus-one": (tower + "+1", tower),
            "exp": r"\exp(\exp(\exp(100)))",
            "sum-is-8": "9^{9^{9}}-9^{9^{9}}+8",
            "parity": ("(-1)^{9^{9^{9}}}", "1"),
            "half": (r"\left(\frac{1}{2}\right)^{10^{10}}", "0"),
            "root": r"\sqrt[9^{9^9}]{9}",
            "floor": r"\lfloor 9.5^{9^{9}} \rfloor",
            "deep": around("9^{", "9", "}", 3000),
        },
        "enote": {
            "big": ("1e999999999", "1e999999998"),
            "small": ("1e-999999999999", "0"),
            "ratio": ("1e999999999/1e999999998", "11"),
            "digits": "1e" + "9" * 100_000,
            "list": (listed("1e99999%", range(1000, 1100)), listed("1e99999%", range(999, 1099))),
            "repeating": (
                r"0.\overline{" + "123456789" * 11_000 + "}",
                r"0.\overline{" + "123456789" * 10_999 + "123456788}",
            ),
        },
        "factorial": {
            "large": "(100000000)!",
            "nested": "((10!)!)!",
            "bangs": "5" + "!" * 10_000,
            "of-tower": "(9^{9^9})!",
            "symbolic": "(x+10^{6})!",
            "binomial": (r"\binom{200000}{100000}", r"\binom{200000}{99999}"),
            "binomials": r"\binom{\binom{\binom{30}{15}}{5}}{1000000}",
        },
        "bigop": {
            "sum": r"\sum_{n=1}^{10^9} n^n",
            "sums": listed(r"\sum_{x_{%}=1}^{1000}", range(6), "")
            + r"\frac{1}{x_{0}+x_{1}+x_{2}+x_{3}+x_{4}+x_{5}}",
            "product": r"\prod_{n=1}^{10^{5}}(x+n)",
            "endless-product": r"\prod_{n=1}^{\infty}\left(1+\frac{1}{n^{3}}\right)",
            "integral": r"\int \frac{\sin(x^{3})e^{x^{2}}}{\ln(x)+\sqrt{x^{5}+1}} dx",
            "integrals": (r"\int_0^1 x^{x} dx", r"\int_0^1 x^{-x} dx"),
            "limit": r"\lim_{x\to\infty} \frac{e^{e^{e^{x+e^{-x}}}}}{e^{e^{e^{x}}}}-e^{e^{x}}",
            "3000-terms": (
                listed(r"\sqrt{%}", range(2, 3002), "+"),
                listed(r"\sqrt{&}", range(3001, 1, -1), "+"),
            ),
        },
        "poly": {
            "shift": ("(x+1)^{5000}", "(x+2)^{5000}"),
            "ten-letters": ("(a+b+c+d+f+g+h+k+m+n)^{60}", "(a+b+c+d+f+g+h+k+m-n)^{60}"),
            "quintic": ("x^{5}-x-1=0", "x^{7}-x-1=0"),
            "equation": ("(x+1)^{2000}=(y+1)^{2000}", "(x+2)^{2000}=(y+1)^{2000}"),
            "surds": r"\frac{1}{" + listed(r"\sqrt{%}", primes, "+") + "}",
            "denesting": around(r"\sqrt{", "5+2", r"}+\sqrt{6}", 12),
            "trigonometry": (
                listed(r"\sin(%x)", range(1, 40), ""),
                listed(r"\cos(%x)", range(1, 40), ""),
            ),
            "bars": around("|x+", "1", "|", 40),
        },
        "matrix": {
            "power": matrix(2, lambda i, j: 2 - i - j) + "^{1000000000}",
            "powers": "((" + matrix(2, lambda i, j: 2 * i + j + 1) + "^{1000})^{1000})^{1000}",
            "determinant": matrix(
                9, lambda i, j: f"x+{i + j * j}" if i != j else f"y^{{{i + 1}}}", "vmatrix"
            ),
            "inverse": matrix(40, variables) + "^{-1}",
            "exponent": "e^{" + matrix(3, lambda i, j: "abcdfghkm"[3 * i + j]) + "}",
            "towers": matrix(3, lambda i, j: "9^{9^{9}}"),
            "last-entry": (
                matrix(40, grid),
                matrix(40, lambda i, j: 102 if i == j == 39 else grid(i, j)),
            ),
        },
        "numtheory": {
            "semiprime": (rf"\sqrt{{{P}}}", rf"\sqrt{{{Q}}}"),
            "gcd": r"\gcd(10^{10^{7}}, 9^{9^{9}})",
            "gcd-poly": r"\gcd((x+1)^{3000},(x+1)^{2999}(x-1))",
            "logarithm": r"\log_{10}(9^{9^{9}})",
            "sine": r"\sin(10^{10^{6}})",
            "ceiling": r"\lceil e^{10^{6}} \rceil",
            "floor": r"\lfloor \pi\cdot 10^{100000} \rfloor",
            "zeta": r"\zeta(-10^{6}-1)",
            "modulus": r"2^{10^{9}} \equiv 3 \pmod{10^{10^{9}}}",
        },
        "nest": {
            "fractions": around(r"\cfrac{1}{2+", "x", "}", 3000),
            "radicals": around(r"\sqrt{2+", "2", "}", 300),
            "parentheses": around("(", "8", ")", 100_000),
            "tuples": around("(1,", "2", ")", 2000),
            "begin": r"\begin{pmatrix}" * 10_000,
            "sums": r"\sum_{n=1}^{3}" * 300 + "n",
        },
        "huge": {
            "spaces": " " * 1_000_000,
            "open-braces": "{" * 1_000_000,
            "digits": ("1" * 1_000_000, "1" * 999_999 + "2"),
            "letters": ("a" * 1_000_000, "a" * 999_999 + "b"),
            "gold-only": ("8", "1" * 1_000_000),
            "thousands": ("1" + ",000" * 250_000, "1" + ",000" * 249_999 + ",001"),
            "latex": "".join(noise.choices(tokens, k=300_000)),
        },
        "regex": {
            what: token * n + "\x01"
            for what, token, n in [
                ("spaces", " ", 200_000),
                ("comma-spaces", ", ", 100_000),
                ("text", r"\text{", 50_000),
                ("rows", r"\\ ", 60_000),
                ("environments", r"\begin{}\end{}", 15_000),
                ("mixed-numbers", "1 1/2 ", 30_000),
                ("thousands", "1{,}000", 30_000),
            ]
        },
        "list": {
            "10000": (listed("%", range(10_000)), listed("&", range(10_000))),
            "tuple": (
                "(" + listed("%", range(10_000)) + ")",
                "(" + listed("%", range(9999, -1, -1)) + ")",
            ),
            "surds": (
                r"\{" + listed(r"\sqrt{%}x_{%}+%", range(2, 3002)) + r"\}",
                r"\{" + listed(r"\sqrt{%}x_{%}+&", range(3001, 1, -1)) + r"\}",
            ),
            "slow": (
                listed(slow_terms, range(2, 66)),
                listed(slow_terms.replace("{%+", "{&+"), range(2, 66)),
            ),
            "intervals": (
                listed("(%,&)", range(0, 2000, 2), r"\cup"),
                listed("(%,&)", range(0, 1998, 2), r"\cup") + r"\cup(1998,1999]",
            ),
            "plus-minus": ("1" + r"\pm 1" * 30, "1" + r"\pm 2" * 30),
            "plus-minus-fractions": (
                around(r"\frac{1\pm", "2", "}{2}", 25),
                around(r"\frac{1\pm", "3", "}{2}", 25),
            ),
        },
        "unicode": {
            "nul": ("7\x008", "79"),
            "surrogates": ("8\ud800", "9\udc00"),
            "right-to-left": ("\u202e21", "12"),
            "fullwidth": ("\uff14\uff12", "43"),
            "arabic": ("\u0661" * 5000, "\u0661" * 4999 + "\u0662"),
            "superscripts": "9\u2079\u2079\u2079\u2079\u2079\u2079",
            "half": ("3\u00bd", "31/2"),
            "nfkc": "\ufdfa" * 100_000,
        },
        "type": {},
        "intlimit": {
            "4301": ("1" * 4301, "1" * 4300 + "2"),
            "power": ("10^{4300}", "1" + "0" * 4299 + "1"),
            "fraction": (rf"\frac{{{'1' * 5000}}}{{{'3' * 5000}}}", "0." + "3" * 5000),
            "exponent": ("2^{" + "1" * 5000 + "}", "2^{" + "1" * 4999 + "2}"),
            "factorial": ("2000!", f"{factorial // 10**3000}{factorial % 10**3000:03000}"),
            "int": ("1" + "0" * 4999 + "1", 10**5000),
            "Fraction": (r"\frac{1}{1" + "0" * 4999 + "1}", Fraction(1, 10**5000)),
            "Decimal": ("0." + "3" * 9999 + "4", Decimal("0." + "3" * 10_000)),
        },
        "combo": {
            "each-just-cheap": (
                listed(harmonic, range(1000, 1060)),
                listed(harmonic + "+1", range(1000, 1060)),
            ),
            "200-towers": (
                listed("%^{9^{9^{9}}}", range(2, 202)),
                listed("%^{9^{9^{8}}}", range(2, 202)),
            ),
            "kinds": (",".join(mixed * 5), ",".join("7" * 30)),
            "cancel": (r"\frac{2^{10^9}}{2^{10^9-1}}", "3"),
            "short": (
                "((a+b+c+d+f)^{9}+(g+h+k+m+n)^{9})^{9}",
                "((a+b+c+d+f)^{9}+(g+h+k+m+n)^{9})^{9}-(a+n)^{81}",
            ),
            "equation": ("9^{9^{9}}x=(10^{8})!y", "9^{9^{9}}y=(10^{8})!x"),
            "ends": (
                r"\left[\sum_{n=1}^{10^{5}}\frac{1}{n},e^{e^{99}}\right)",
                r"\left[\sum_{n=1}^{10^{5}}\frac{1}{n^{2}},e^{e^{99}}\right]",
            ),
        },
        "nearmiss": {
            "ramanujan": (r"e^{\pi\sqrt{163}}", "262537412640768744"),
            "plus-tiny": ("1+10^{-400}", "1"),
            "sine": (r"\sin(10^{-30})", "10^{-30}"),
            "pi": ("3.14159265358979323846264338327950288419716939937510", r"\pi"),
            "fermat": ("1782^{12}+1841^{12}", "1922^{12}"),
            "exponential": ("e^{-10^{9}}", "0"),
            "ratio": (r"\frac{e^{e^{100}}+1}{e^{e^{100}}}", "1"),
            "series": (r"\sum_{n=1}^{10^{6}}\frac{1}{n^{2}}", r"\frac{\pi^{2}}{6}"),
            "coefficient": ("1.00000000000000000001x", "x"),
        },
    }
    # the whole text, and the gold if it is not 7
    whole = {
        "inject/unboxed": f"The final answer is {run}",
        "inject/pickled": pickle.dumps(Unpickled(open, marker, "w"), 4),
        "inject/reduce": Unpickled(open, marker, "w"),
        "inject/str-methods": every_method(touching(marker)),
        "inject/str-reduce": thing(
            str, r"\boxed{8}", __reduce_ex__=lambda self, protocol: (open, (marker, "w"))
        ),
        "inject/hooks": thing(
            _sympy_=touching(marker), _latex=touching(marker), __str__=touching(marker)
        ),
        "tower/unboxed": ("Answer: $9^{9^{9^{9}}}$", "9^9^9"),
        "nest/boxes-open": r"\boxed{" * 50_000,
        "nest/boxes": around(r"\boxed{", "8", "}", 50_000),
        "nest/closers": r"\boxed{8" + "}" * 1_000_000,
        "huge/prose": "bla " * 250_000 + box("8"),
        "combo/1000-boxes": (box(tower) + " and ") * 1000,
        "regex/answer-is": "answer is: " * 40_000,
        "regex/boxed": r"\boxed {" * 30_000,
        "regex/dollars": "$8" * 80_001,
        "regex/gaps": ("is" + " " * 500) * 400,
        "type/none": None,
        "type/no-gold": (box("8"), ""),
        "type/bytes": b"\xff\xfe\\boxed{8}",
        "type/nan": float("nan"),
        "type/int": 1 << 1_000_000,
        "type/fraction": Fraction(1, 10**5000),
        "type/decimal": Decimal((0, (1,), 999_999_999_999_999_999)),
        "type/signalling": Decimal("sNaN"),
        "type/itself": itself,
        "type/deep": deep,
        "type/list-endless": thing(
            list, [8], __iter__=lambda self: itertools.count(), __len__=lambda self: 10**15
        ),
        "type/raises": (Raises(), Raises()),
        "type/exits": thing(__str__=failing(SystemExit)),
        "type/interrupts": thing(__str__=failing(KeyboardInterrupt)),
        "type/sleeps": (thing(__str__=slow("8"), __repr__=slow("8")), [thing(__repr__=slow("8"))]),
        "type/recurses": thing(__str__=lambda self: str(self)),
        "type/memory": thing(__str__=lambda self: "8" * (3 * 10**9)),
        "type/class-lies": thing(__class__=property(lambda self: str)),
        "type/class-raises": thing(__class__=property(failing())),
        "type/equals": thing(
            __eq__=lambda self, other: True,
            __hash__=lambda self: hash("7"),
            __str__=lambda self: "8",
        ),
        "type/int-raises": thing(int, 8, __str__=failing(), __repr__=failing()),
        "type/str-raises": every_method(failing()),
        "type/str-equals": (
            thing(str, box("8"), __eq__=lambda self, other: True, __hash__=lambda self: hash("7")),
            "9",
        ),
        "type/unpickle-exits": Unpickled(os._exit, 9),
        "type/unpickle-memory": Unpickled(operator.mul, b"8", 3 * 10**9),
    }
    found = []
    for kind, answers in boxed.items():
        pairs = [
            (f"{kind}/{what}", answer if isinstance(answer, tuple) else (answer, "7"))
            for what, answer in answers.items()
        ]
        found += [(name, box(inner), gold) for name, (inner, gold) in pairs]
        found += [
            (name, *(case if type(case) is tuple else (case, "7")))
            for name, case in whole.items()
            if name.startswith(kind + "/")
        ]
    return found
