"""Critique -> verdict: every written form that teachers use, nothing guessed, and one normal form to train on."""

import json
import time
from pathlib import Path

import pytest

from common.verdicts import normalise, parse

SHARED = Path(__file__).resolve().parents[2] / "shared"
BODY = "Step 2 multiplies 4 by 4, as the question asks. The right side is not wrong.\n\n"

FORMS = [  # how a conclusion is written; {} is the verdict's word
    "Conclusion: {} [END]", "Conclusion: {}", "conclusion:{}", "CONCLUSION : {}  [ END ]", "**Conclusion:** {} [END]",
    "**Conclusion: {} [END]**",
    "__Conclusion__: {}", "### Conclusion\n{} [END]", "## **Conclusion**\n\n**{}**\n\n**[END]**", "- **Conclusion**: {} [END]",
    "4. Conclusion: {}",
    "> Conclusion: {} [END]", "`Conclusion: {} [END]`", "<b>Conclusion:</b> {} [END]", "<h3>Conclusion</h3>\n<p>{}</p>",
    "Conclusion: \\boxed{{{}}} [END]",
    "$\\text{{Conclusion: {}}}$ [END]", "Conclusion: \\textcolor{{red}}{{{}}} [END]", "Conclusion: \"{}\" [END]", "| Conclusion | {} |",
    "🔚 Conclusion: {} [END]",
    "Conclusion – {} [END]", "Conclusion：{}", "Conclusion is **{}**. [END]", "Conclusion: {}\r\n[END]\r\n", "Conclusion: {} (END)",
    "Conclusion: {} **END**",
    "Conclusion: {} [EN", "Conclusion: ****Critique Conclusion: {}****", "All holds. Critique Conclusion: {} [END]",
    "My final conclusion: the solution is {} [END]",
    "Conclusion: The student's solution is **{}**. [END]", "Conclusion: therefore, the final answer is {}.",
    "Conclusion: The student’s answer of $48$ is {} [END]",
    "Conclusion: The student's reasoning and final answer are completely {}. [END]",
    "### Conclusion\n\nThe solution is {} because of step 3. [END]",
    "Conclusion: {} [END]\n\nNote: the words above are mine.", "Conclusion: {} [END]\n\nConclusion: {} [END]",
    "{{\"conclusion\": \"{}\"}}",
]  # fmt: skip

UNPARSED = [  # contradiction, hedge, both words, cut, no label, and words that belong to something else
    "", "The student is right.", "Verdict: right", "I'm sorry, I can't help with that.", "Conclusion:", "Conclusion: [END]",
    "Conclusion: wr", "Conclusion: in",
    "Conclusion: right/wrong [END]", "Conclusion: right or wrong [END]", "Conclusion: neither right nor wrong",
    "Conclusion: partially correct [END]",
    "Conclusion: partly right, partly wrong", "Conclusion: not entirely correct [END]", "Conclusion: mostly right [END]",
    "Conclusion: probably wrong [END]",
    "Conclusion: right? [END]", "Conclusion: the final answer is right but the derivation is wrong [END]",
    "Conclusion: right, but the units are off [END]",
    "Conclusion: right, wrong [END]", "Conclusion: wrong. Actually, it is right. [END]",
    "Conclusion: I cannot determine whether it is right or wrong. [END]",
    "Conclusion: ❌ right [END]", "Conclusion: Right triangle ABC has legs 3 and 4.", "Conclusion: right-angled [END]",
    "Conclusion: the triangle is right [END]",
    "Conclusion: the method is right [END]", "In conclusion, the right-hand side is smaller.", "The student's conclusion is wrong.",
    "He ends with \"Conclusion: right\".", "Conclusion: the solution is correct except for a sign [END]",
    "Conclusion: it would be right to say it is wrong",
    "Conclusion: right [END]\n\nWait, a constant is missing.\n\nConclusion: wrong [END]", "Conclusion: right\n\nConclusion: wrong",
    "Conclusion: right [END]\n\nConclusion: partially correct [END]",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("word, verdict", [("right", "right"), ("Correct", "right"), ("wrong", "wrong"), ("INCORRECT", "wrong")])
def test_written_forms(form, word, verdict):
    critique = BODY + form.replace("{}", word).replace("{{", "{").replace("}}", "}")
    assert parse(critique) == verdict
    assert normalise(critique, verdict).startswith(BODY.rstrip())


@pytest.mark.parametrize("critique", UNPARSED)
def test_nothing_is_guessed(critique):
    assert parse(critique) == "unparsed"
    assert parse(BODY + critique) == "unparsed"


@pytest.mark.parametrize(
    "ending, verdict",
    [
        ("not right", "wrong"), ("The solution isn't correct.", "wrong"), ("It is not wrong.", "right"),
        ("wrong. The correct answer is 5.", "wrong"), ("wrong, while the correct velocity is 12.7", "wrong"),
        ("right (minor notation issue in step 2)", "right"),
    ],
)  # fmt: skip
def test_negation_and_reasons(ending, verdict):
    assert parse(f"{BODY}Conclusion: {ending} [END]") == verdict


def test_words_of_the_body_do_not_count():
    assert parse("The right-hand side is wrong, says the student; that is incorrect.\n\nConclusion: right [END]") == "right"
    assert parse("He ends with \"Conclusion: the triangle is right\".\n\nConclusion: wrong [END]") == "wrong"


@pytest.mark.parametrize(
    "critique, expected",
    [
        ("", "Conclusion: wrong [END]"),
        ("A.\n\n**Conclusion:** wrong", "A.\n\nConclusion: wrong [END]"),
        ("A is **bad.** Conclusion: incorrect [END]", "A is **bad.**\n\nConclusion: wrong [END]"),
        ("  A.\n\n\n  B.  \n- **Conclusion**: wrong [END]", "  A.\n\n\n  B.\n\nConclusion: wrong [END]"),
        ("A.\n\nConclusion: wrong [END] More.", "A.\n\nConclusion: wrong [END]"),
        ("A.\n\nConclusion: wrong [END]\n\nConclusion: wrong [END]", "A.\n\nConclusion: wrong [END]"),
        ("A.\n\n### Conclusion: wrong\n", "A.\n\nConclusion: wrong [END]"),
        ("In conclusion, 2 is even.", "In conclusion, 2 is even.\n\nConclusion: wrong [END]"),
    ],
)
def test_normalise(critique, expected):
    assert normalise(critique, "wrong") == expected


def test_reasons_in_the_conclusion_are_kept():
    """A conclusion that explains (more than a line of ten words) is part of the critique."""
    long = "A.\n\n### Conclusion\nThe solution is wrong because step 3 takes the cube root of 4 for 1; it should be 1.59."
    assert normalise(long + " **[END]**", "wrong") == long + "\n\nConclusion: wrong [END]"


def check_round_trip(critique):
    verdict = parse(critique)
    for wanted in ("right", "wrong") if verdict == "unparsed" else (verdict,):
        once = normalise(critique, wanted)
        assert once.endswith(f"Conclusion: {wanted} [END]") and normalise(once, wanted) == once
        assert verdict == "unparsed" or parse(once) == verdict
    return verdict


def test_round_trip():
    for text in [BODY + form.replace("{}", "wrong") for form in FORMS] + UNPARSED:
        check_round_trip(text)


def test_other_verdicts_are_refused():
    with pytest.raises(ValueError, match="unparsed"):
        normalise("A.", "unparsed")


@pytest.mark.parametrize(
    "text", ["Conclusion: " * 20_000, "Conclusion: right [END]\n" * 10_000, "*" * 10**6 + "Conclusion", "Conclusion: " + "*" * 10**5]
)
def test_degenerate_text_takes_linear_time(text):
    start = time.perf_counter()
    parse(text), normalise(text, "right")
    assert time.perf_counter() - start < 5


@pytest.mark.skipif(not (SHARED / "verdicts/dev.jsonl").exists(), reason="needs ../shared")
def test_labelled_endings():
    for line in (SHARED / "verdicts/dev.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        assert check_round_trip(case["text"]) in case["accept"], case


@pytest.mark.skipif(not (SHARED / "responses/oneshot_both_verdicts.jsonl").exists(), reason="needs ../shared")
def test_real_critiques():
    """364 critiques by seven teachers. The 341 verdicts on record are found again; the 23 recorded as none state theirs in a sentence."""
    counts = {}
    for line in (SHARED / "responses/oneshot_both_verdicts.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        key = {True: "right", False: "wrong", None: "none"}[case["critique_verdict"]], check_round_trip(case["critique"])
        counts[key] = counts.get(key, 0) + 1
    assert counts == {("right", "right"): 220, ("wrong", "wrong"): 121, ("none", "right"): 13, ("none", "wrong"): 10}
