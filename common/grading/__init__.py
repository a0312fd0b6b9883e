r"""Grade a model output against a gold answer: a sealed box.

Public, and all that the rest of the kit uses:

    grade(text, gold) -> GradeResult(correct, extracted, extraction_method, timed_out)
    is_correct(text, gold) -> bool
    grade_many(texts, golds) -> list[GradeResult]      equal pairs once, several at a time
    extract_answer(text) -> str | None
    without_thinking(text) -> str                      an output without its reasoning block
    without_cut_number(text) -> str                    a cut output without the number at its end
    paper.is_correct(text, gold) -> bool               by the rules of the paper's released code
    paper.grade_many, paper.extract_option

The path of one answer through the files:

    grader              checks the arguments, chooses between letters and mathematics
    extraction          finds the answer in the output: a box, a cue, the last number
    options             finds the letter, of multiple choice
    equivalence         compares it with the gold by an ordered list of rules, which use
      normalize_latex   one spelling for what is written in many ways (spellings.json)
      parse_structure   lists, tuples, matrices, intervals, inequalities, labels
      quantities        values with units (pint's tables) or a description: 5 km is 5000 m
      read_numbers      exact rational numbers
      text_answers      numbers in words (number_words.lark), truth values, "The function is odd"
    sympy_worker        asks a process that can be killed, for what no rule decides
      symbolic          the program that runs there: values at fixed points, by sympy
    paper               the paper's lax grader, apart from all this but for the last two and the
                        table of number words

By hand: the output is "So the answer is $\boxed{\dfrac12\text{ cm}}$." and the gold is 0.5.
extraction finds "\dfrac12\text{ cm}" in the box. normalize_latex makes it "\frac{1}{2} cm".
No label, list or bracket is in it. quantities splits it into "\frac{1}{2}" and cm; a unit may be
left out, and 1/2 is exactly 0.5. So it is correct, and sympy was not asked.

A new kind of comparison is a method of equivalence._Comparison that returns True, False or, if it
does not apply, None. Its place in VALUE_RULES says when it is tried.

Hostile text: what a model wrote is only ever matched and parsed. No eval, sympify, parse_expr or
pickle sees it. Lengths, depths and numbers of digits are bounded here. The process that runs sympy
is bounded in CPU time and memory. An answer that it cannot decide in 4 seconds is wrong, and says
timed_out. What is neither a string nor a number is wrong without its methods being called.
"""

from common.core.thinking import without_thinking
from common.grading.extraction import without_cut_number
from common.grading.grader import GradeResult, extract_answer, grade, grade_many, is_correct

__all__ = [
    "GradeResult",
    "extract_answer",
    "grade",
    "grade_many",
    "is_correct",
    "without_cut_number",
    "without_thinking",
]
