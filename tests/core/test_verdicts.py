"""Critique -> verdict: every form that teachers write, nothing guessed, one form to train on."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from common.core import files
from common.core.verdicts import is_bare, parse_verdict, with_conclusion

SHARED = Path(__file__).resolve().parents[3] / "shared"
BODY = "Step 2 multiplies 4 by 4, as the question asks. The right side is not wrong.\n\n"
WORDS = {"right": "right", "Correct": "right", "wrong": "wrong", "INCORRECT": "wrong"}

FORMS = [  # ways to write a conclusion; {} is the word of the verdict
    "Conclusion: {} [END]",
    "Conclusion: {}",
    "conclusion:{}",
    "CONCLUSION : {}  [ END ]",
    "**Conclusion:** {} [END]",
    "**Conclusion: {} [END]**",
    "__Conclusion__: {}",
    "### Conclusion\n{} [END]",
    "## **Conclusion**\n\n**{}**\n\n**[END]**",
    "- **Conclusion**: {} [END]",
    "4. Conclusion: {}",
    "> Conclusion: {} [END]",
    "`Conclusion: {} [END]`",
    "<b>Conclusion:</b> {} [END]",
    "<h3>Conclusion</h3>\n<p>{}</p>",
    "Conclusion: \\boxed{{{}}} [END]",
    "$\\text{{Conclusion: {}}}$ [END]",
    "Conclusion: \\textcolor{{red}}{{{}}} [END]",
    'Conclusion: "{}" [END]',
    "| Conclusion | {} |",
    "🔚 Conclusion: {} [END]",
    "Conclusion – {} [END]",
    "Conclusion：{}",
    "Conclusion is **{}**. [END]",
    "Conclusion: {}\r\n[END]\r\n",
    "Conclusion: {} (END)",
    "Conclusion: {} **END**",
    "Conclusion: {} [EN",
    "Conclusion: ****Critique Conclusion: {}****",
    "All holds. Critique Conclusion: {} [END]",
    "My final conclusion: the solution is {} [END]",
    "Conclusion: The student's solution is **{}**. [END]",
    "Conclusion: therefore, the final answer is {}.",
    "Conclusion: The student’s answer of $48$ is {} [END]",
    "Conclusion: The student's reasoning and final answer are completely {}. [END]",
    "### Conclusion\n\nThe solution is {} because of step 3. [END]",
    "Conclusion: {} [END]\n\nNote: the words above are mine.",
    "Conclusion: {} [END]\n\nConclusion: {} [END]",
    '{{"conclusion": "{}"}}',
    "Conclusion：{}【END】",
    "Conclusion: {} [/END]",
    "Conclusion: {} ［END］",
    "Conclusion: {}/{} [END]",
    "<conclusion>{}</conclusion>",
    "<review>Done.</review><final_conclusion>\n{}\n</final_conclusion> [END]",
    "\\section*{{Conclusion}}\n{} [END]",
    "Conclusion: The student's final answer (y = 0.5x + 3) is therefore {} [END]",
    'Conclusion: The student\'s answer, "not enough information", is {}. [END]',
    "Conclusion: The student's answer “B” was {} [END]",
    "Conclusion: The student's answer, 5, is {}. [END]",
    "Conclusion: The student's answer (C) is {}. [END]",
    "Conclusion: The final answer of $x = 3$ is {} [END]",
    "Conclusion: The student's answer of 12 m/s is {}. [END]",
    "Conclusion: The solution provided by the student is {} and well organised. [END]",
    "Conclusion:\n\n**The answer given by the student is {}.** [END]",
    "Conclusion: The student got it {}. [END]",
    "Conclusion: The student was {} to choose option (D). [END]",
    "Conclusion: The student is {} that the matrix is singular. [END]",
    "Conclusion: The student arrived at the {} answer. [END]",
    "Conclusion: The student's answer is not only {} but also typical. [END]",
]

UNPARSED = [  # contradiction, hedge, both words, truncated, no label, words about something else
    "",
    "The student is right.",
    "Verdict: right",
    "I'm sorry, I can't help with that.",
    "Conclusion:",
    "Conclusion: [END]",
    "Conclusion: wr",
    "Conclusion: in",
    "Conclusion: right/wrong [END]",
    "Conclusion: right or wrong [END]",
    "Conclusion: neither right nor wrong",
    "Conclusion: partially correct [END]",
    "Conclusion: partly right, partly wrong",
    "Conclusion: not entirely correct [END]",
    "Conclusion: mostly right [END]",
    "Conclusion: probably wrong [END]",
    "Conclusion: right? [END]",
    "Conclusion: the final answer is right but the derivation is wrong [END]",
    "Conclusion: right, but the units are off [END]",
    "Conclusion: right, wrong [END]",
    "Conclusion: wrong. Actually, it is right. [END]",
    "Conclusion: I cannot determine whether it is right or wrong. [END]",
    "Conclusion: ❌ right [END]",
    "Conclusion: Right triangle ABC has legs 3 and 4.",
    "Conclusion: right-angled [END]",
    "Conclusion: the triangle is right [END]",
    "Conclusion: the method is right [END]",
    "In conclusion, the right-hand side is smaller.",
    "The student's conclusion is wrong.",
    'He ends with "Conclusion: right".',
    "Conclusion: the solution is correct except for a sign [END]",
    "Conclusion: it would be right to say it is wrong",
    "Conclusion: right [END]\n\nWait, a constant is missing.\n\nConclusion: wrong [END]",
    "Conclusion: right\n\nConclusion: wrong",
    "Conclusion: right [END]\n\nConclusion: partially correct [END]",
    '{"comment": "Fine.", "conclusion": "wrong"}\n\nConclusion: right [END]',
    "Conclusion: right [END]\n\nWait, that is in km/h.\n\nCorrected conclusion: wrong [END]",
    # what looks like a value in the subject, and whose answer it is
    "Conclusion: The answer of 5 being right is impossible [END]",
    'Conclusion: The claim "the student is right" is incorrect [END]',
    'Conclusion: The claim "the student is wrong" is incorrect',
    'Conclusion: The student\'s claim "the answer is wrong" is correct',
    "Conclusion: The student's claim that the answer is correct [END]",
    "Conclusion: The answer (B) is correct [END]",
    'Conclusion: The reference answer "5" is correct [END]',
    "Conclusion: The student's answer (mostly) is correct [END]",
    "Conclusion: The student's answer (a) is correct [END]",
    "Conclusion: The student's answer (2) is correct [END]",
    "Conclusion: The student's final answer (but not the reasoning) is correct",
    "Conclusion: The student's answer *probably* is correct",
    "Conclusion: The student's answer of 5 alone is right [END]",
    "Conclusion: The student's answer, if $g = 10$, is correct [END]",
    "Conclusion: The solution provided by the student's friend is correct",
    "Conclusion: The solution rejected by the student is wrong",
    "Conclusion: The answer given by the student is correct and the units are wrong",
    # one part of the solution
    "Conclusion: The student's explanation is correct [END]",
    "Conclusion: The student's reasoning is right. [END]",
    "Conclusion: The student's reasoning is wrong. The final answer, 5, agrees with the key. [END]",
    "Conclusion: The student's reasoning is wrong, yet 5 is what we want [END]",
    "Conclusion: The student has the right idea [END]",
    "Conclusion: The student is right about the sign [END]",
    "Conclusion: The student was right to choose substitution [END]",
    "Conclusion: The student is right that energy is conserved. The value is off. [END]",
    "Conclusion: The student is right that x = 2 is a root and missed x = -2 [END]",
    "Conclusion: The student is right to doubt it.",
    "Conclusion: The student arrived at the right answer to part (a)",
    "Conclusion: The student never arrived at the right answer",
    # hedges, contradictions, both words
    "Conclusion: No, the student's answer is correct [END]",
    "Conclusion: Yes, the student's answer is wrong [END]",
    "Conclusion: Yes.",
    "Conclusion: No. Correct. [END]",
    "Conclusion: The student's answer cannot be correct and wrong at the same time [END]",
    "Conclusion: The student's answer cannot be correct unless g is 10",
    "Conclusion: It cannot be correct to say the student is wrong",
    "Conclusion: The student's answer is not only correct [END]",
    "Conclusion: The student's answer is not just right but depends on g",
    "Conclusion: not only correct but also wrong in part",
    "Conclusion: The student's answer is not just wrong but right [END]",
    "Conclusion: wrong/incorrect/right",
    "Conclusion: not right/wrong",
    "Conclusion: not right, nor wrong",
    "Conclusion: The student got it right, by luck [END]",
    "Conclusion: The student got it almost right [END]",
    "Conclusion: right, mostly [END]",
    "Conclusion: right, if g = 10 [END]",
    "Conclusion: right (for the most part) [END]",
    "Conclusion: right as far as it goes [END]",
    "Conclusion: right, yet the units are missing [END]",
    "Conclusion: right, I think [END]",
    # the conclusion of somebody else, or cut
    'She ends with: "Conclusion: right [END]". It is not.',
    'She ends with: {"answer": "5", "conclusion": "right"}',
    '{"student": {"conclusion": "right"}, "is_correct": false}',
    '{"student_conclusion": "right", "is_correct": false}',
    '{"student_answer": "Conclusion: right", "is_correct": false}',
    '{"feedback": "Short.", "conclusion": "right/wrong"}',
    '{"feedback": "Short.", "conclusion": "wr',
    '{"conclusion": "right", "conclusion": "wrong"}',
    '{"conclusion": "wrong"}\n\nConclusion: right [END]',
    "She writes <conclusion>right</conclusion> and stops.",
    "<student_conclusion>right</student_conclusion>",
    "<conclusion>right</conclusion>\n<conclusion>wrong</conclusion>",
    "<conclusion>right/wrong</conclusion>",
    "\\section{Conclusion of the student}\nright",
]

ENDINGS = [
    ("not right", "wrong"),
    ("The solution isn't correct.", "wrong"),
    ("It is not wrong.", "right"),
    ("wrong. The correct answer is 5.", "wrong"),
    ("wrong, while the correct velocity is 12.7", "wrong"),
    ("right (minor notation issue in step 2)", "right"),
    ("Yes, the student's answer is correct.", "right"),
    ("No, the student's answer is incorrect.", "wrong"),
    ("The student's explanation isn't correct, since it says that respiration stops.", "wrong"),
    ("The student's claim is wrong. The correct answer is 5.", "wrong"),
    ("The student's answer cannot be correct, because a probability never exceeds 1.", "wrong"),
    ("The student's answer is not just wrong but physically impossible.", "wrong"),
    ("the answer is wrong/incorrect", "wrong"),
    ('The student\'s answer "5 is correct" is wrong', "wrong"),
    ('The student\'s answer, "the statement is false", is correct', "right"),
    ("The student correctly computed the slope and arrived at the right answer.", "right"),
    ("The student got the wrong answer, as the right one is 5", "wrong"),
]


def verdict_errors(cases):
    """Return (critique, verdict, expected) of the cases whose verdict is another one."""
    verdicts = [(text, parse_verdict(text), expected) for text, expected in cases]
    return [case for case in verdicts if case[1] != case[2]]


def with_word(form, word):
    return BODY + form.replace("{}", word).replace("{{", "{").replace("}}", "}")


def test_written_forms():
    cases = [(with_word(form, word), WORDS[word]) for form in FORMS for word in WORDS]
    assert not verdict_errors(cases)
    changed = [
        text
        for text, verdict in cases
        if not with_conclusion(text, verdict).startswith(BODY.rstrip())
    ]
    assert not changed


def test_nothing_is_guessed():
    assert not verdict_errors([(critique, "unparsed") for critique in UNPARSED])
    assert not verdict_errors([(BODY + critique, "unparsed") for critique in UNPARSED])


def test_negation_and_reasons():
    cases = [(f"{BODY}Conclusion: {ending} [END]", verdict) for ending, verdict in ENDINGS]
    assert not verdict_errors(cases)


def test_words_of_the_body_do_not_count():
    assert (
        parse_verdict(
            "The right-hand side is wrong, says the student; that is incorrect.\n\n"
            "Conclusion: right [END]"
        )
        == "right"
    )
    assert (
        parse_verdict(
            'He ends with "Conclusion: the triangle is right".\n\nConclusion: wrong [END]'
        )
        == "wrong"
    )


@pytest.mark.parametrize(
    "critique, expected",
    [
        ("", "Conclusion: wrong [END]"),
        ("A.\n\n**Conclusion:** wrong", "A.\n\nConclusion: wrong [END]"),
        ("A is **bad.** Conclusion: incorrect [END]", "A is **bad.**\n\nConclusion: wrong [END]"),
        (
            "  A.\n\n\n  B.  \n- **Conclusion**: wrong [END]",
            "  A.\n\n\n  B.\n\nConclusion: wrong [END]",
        ),
        ("A.\n\nConclusion: wrong [END] More.", "A.\n\nConclusion: wrong [END]"),
        (
            "A.\n\nConclusion: wrong [END]\n\nConclusion: wrong [END]",
            "A.\n\nConclusion: wrong [END]",
        ),
        ("A.\n\n### Conclusion: wrong\n", "A.\n\nConclusion: wrong [END]"),
        ("In conclusion, 2 is even.", "In conclusion, 2 is even.\n\nConclusion: wrong [END]"),
    ],
)
def test_with_conclusion(critique, expected):
    assert with_conclusion(critique, "wrong") == expected


@pytest.mark.parametrize(
    "critique, body",
    [
        (
            '{"feedback": "A is \\"bad\\".\\nSo is $\\\\frac12$.", "conclusion": "wrong"}',
            'A is "bad".\nSo is $\\frac12$.',
        ),
        (
            '{"feedback": "$\\frac12$ is bad.", "step": 2, "conclusion": "wrong [END]"}',
            "$\\frac12$ is bad.\n\nstep: 2",
        ),
        (
            '```json\n{\n  "Final conclusion": "The answer is wrong.",\n'
            '  "feedback": "A."\n}\n```\n[END]',
            "A.",
        ),
        ('{"conclusion": "wrong"}', ""),
        ("<critique>A.</critique>\n<conclusion>wrong</conclusion>", "<critique>A.</critique>"),
        ("<critique>A</critique><conclusion>wrong</conclusion> [END]", "<critique>A</critique>"),
        ("A.\n\n\\subsection*{Conclusion}\n\\textbf{wrong} [END]", "A."),
    ],
)
def test_other_formats_become_prose(critique, body):
    """Of JSON the values are kept, and lone backslashes are TeX; the tags of the body stay."""
    assert check_round_trip(critique) == "wrong"
    assert with_conclusion(critique, "wrong") == f"{body}\n\nConclusion: wrong [END]".lstrip()


def test_a_conclusion_in_a_nested_object_is_a_quotation():
    nested = {"student": {"conclusion": "right"}, "is_correct": False}
    assert check_round_trip(json.dumps(nested, indent=2)) == "unparsed"
    assert check_round_trip(json.dumps(nested | {"conclusion": "wrong"}, indent=2)) == "unparsed"


def test_reasons_in_the_conclusion_are_kept():
    """A conclusion that explains (more than a line of ten words) is part of the critique."""
    long = (
        "A.\n\n### Conclusion\n"
        "The solution is wrong because step 3 takes the cube root of 4 for 1; it should be 1.59."
    )
    assert with_conclusion(long + " **[END]**", "wrong") == long + "\n\nConclusion: wrong [END]"


def check_round_trip(critique):
    verdict = parse_verdict(critique)
    for verdict_to_write in ("right", "wrong") if verdict == "unparsed" else (verdict,):
        once = with_conclusion(critique, verdict_to_write)
        assert (
            once.endswith(f"Conclusion: {verdict_to_write} [END]")
            and with_conclusion(once, verdict_to_write) == once
        )
        assert verdict == "unparsed" or parse_verdict(once) == verdict
    return verdict


def test_round_trip():
    for text in [BODY + form.replace("{}", "wrong") for form in FORMS] + UNPARSED:
        check_round_trip(text)


def test_other_verdicts_are_refused():
    with pytest.raises(ValueError, match="unparsed"):
        with_conclusion("A.", "unparsed")


DEGENERATE = {
    "label": lambda n: "Conclusion: " * n,
    "conclusion": lambda n: "Conclusion: right [END]\n" * n,
    "markup before": lambda n: "*" * (50 * n) + "Conclusion",
    "markup after": lambda n: "Conclusion: " + "*" * (50 * n),
    "tag": lambda n: "<conclusion>" * n,
    "nested JSON": lambda n: '{"conclusion": ' * n,
    "backslashes": lambda n: "{" + "\\" * (50 * n) + "}",
    "quote": lambda n: "Conclusion: " + 'answer of "' * n,
    "words": lambda n: "Conclusion: the student correctly " + "a " * (5 * n),
}


def cpu_seconds(text):
    start = time.process_time()
    parse_verdict(text)
    with_conclusion(text, "right")
    return time.process_time() - start


@pytest.mark.parametrize("form", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_text_takes_linear_time(form):
    """Eight times the text takes about 8 times the CPU time, 64 times if it grew as the square."""
    short, long = form(1000), form(8000)
    assert min(cpu_seconds(long) for _ in range(2)) < 24 * cpu_seconds(short) + 0.05


@pytest.mark.skipif(not (SHARED / "verdicts/dev.jsonl").exists(), reason="needs ../shared")
def test_labelled_endings():
    cases = files.read_jsonl(SHARED / "verdicts/dev.jsonl")
    wrong = [case for case in cases if check_round_trip(case["text"]) not in case["accept"]]
    assert len(cases) == 48 and not wrong


@pytest.mark.skipif(
    not (SHARED / "responses/oneshot_both_verdicts.jsonl").exists(), reason="needs ../shared"
)
def test_real_critiques():
    """364 critiques by seven teachers.

    The 341 verdicts on record are found again; the 23 recorded as none state theirs in a sentence.
    """
    names = {True: "right", False: "wrong", None: "none"}
    counts = Counter()
    for case in files.read_jsonl(SHARED / "responses/oneshot_both_verdicts.jsonl"):
        counts[names[case["critique_verdict"]], check_round_trip(case["critique"])] += 1
    assert counts == {
        ("right", "right"): 220,
        ("wrong", "wrong"): 121,
        ("none", "right"): 13,
        ("none", "wrong"): 10,
    }


LENGTHS = {
    "Conclusion: right [END]": 0,
    "": 0,
    "12 + 30 = 42, not 43.\n\nConclusion: wrong [END]": 5,
    "12+30=42\n\n**Conclusion:** right\n\nConclusion: right [END]": 1,
    "It is -3. - Yes.\nConclusion: right": 4,
    "第二步算错了。\n\nConclusion: wrong [END]": 6,
    "둘째 단계\n\nConclusion: wrong [END]": 4,
    "No label, but words": 4,
    '{"critique": "It is two.", "conclusion": "right"}': 3,
}


def test_words_before_the_conclusion():
    for text, n_words in LENGTHS.items():
        bare_below = [n for n in range(1, 12) if is_bare(text, n)]
        assert bare_below == list(range(n_words + 1, 12)), text
    long = "a b c d e f " * 100 + "\n\nConclusion: right"
    assert not is_bare(long, 600) and is_bare(long, 601)
