"""Grade a model output against a gold answer: a sealed box.

    grade(text, gold) -> GradeResult(correct, extracted, extraction_method, timed_out)
    is_correct(text, gold) -> bool
    extract_answer(text) -> str | None
    grade_many(texts, golds) -> list[GradeResult]
    paper.is_correct(text, gold) -> bool, by the rules of the paper's released code

Inside: extraction -> spelling -> quantities and structure -> symbols.
"""

from common.grading.extraction import without_thinking
from common.grading.grader import GradeResult, extract_answer, grade, grade_many, is_correct

__all__ = [
    "GradeResult",
    "extract_answer",
    "grade",
    "grade_many",
    "is_correct",
    "without_thinking",
]
