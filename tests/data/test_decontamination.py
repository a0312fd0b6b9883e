"""Decontamination: the rule by hand, the fast way against all pairs, real questions in real test sets, what is refused."""

import json
import random
import re
import time
from difflib import SequenceMatcher

import pytest

from common.core.errors import InputError
from common.core.files import content_id
from common.data import decontamination, test_sets
from common.data.decontamination import (
    load_test_sets,
    tokenize_variants,
    find_matches,
    count_overlap,
    normalize_question,
    summarize,
)
from common.tiny import world
from tests.conftest import SHARED


def naive(questions, tests):
    """The rule on every pair: the oracle of the index and its bounds."""
    grams = lambda words: {tuple(words[i : i + 10]) for i in range(len(words) - 9)}

    def compared(item, question):
        """-> (ratio, how): 0 where they share no 10-gram."""
        if item == question:
            return 1.0, "exact"
        shared = not grams(question).isdisjoint(grams(item))
        return shared and SequenceMatcher(None, item, question, autojunk=False).ratio(), "10-gram"

    items = [
        (name, item, tokenize_variants(item["question"]))
        for name, found in tests.items()
        for item in found
    ]
    found = []
    for question_id, question in questions.items():
        mine = tokenize_variants(question)
        for name, item, others in items:
            ratio, how = max(
                (compared(theirs, words) for theirs in others for words in mine), default=(0.0, "")
            )
            if ratio >= 0.5:
                found.append(
                    {
                        "question_id": question_id,
                        "benchmark": name,
                        "item": item["id"],
                        "ratio": ratio,
                        "how": how,
                        "removed": ratio >= 0.6,
                    }
                )
    return found


def tokens(question):
    """Its words without options."""
    return (tokenize_variants(question) or [[]])[0]


def one(question, item, name="t"):
    """-> (ratio, how, removed) of a single pair, None where it does not match."""
    found = find_matches({"q": question}, {name: [{"id": "i", "question": item}]})
    return (found[0]["ratio"], found[0]["how"], found[0]["removed"]) if found else None


WORDS = [f"w{i}" for i in range(400)]


def text(*words):
    return " ".join(words)


# --- the rule by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_a_10_gram_is_found_wherever_it_stands(where):
    """10 of 15 words in common, in one block: 2 x 10 / 30 = 0.667. With 9 in common, 2 x 9 / 28 = 0.643 would do, but there is no 10-gram."""

    def with_others(common, name):
        others = [f"{name}{i}" for i in range(5)]
        k = {"start": 0, "middle": 2, "end": 5}[where]
        return text(*others[:k], *common, *others[k:])

    assert one(with_others(WORDS[:10], "a"), with_others(WORDS[:10], "b")) == (
        pytest.approx(2 / 3),
        "10-gram",
        True,
    )
    assert (
        SequenceMatcher(
            None, with_others(WORDS[:9], "a").split(), with_others(WORDS[:9], "b").split(), False
        ).ratio()
        > 0.6
    )
    assert one(with_others(WORDS[:9], "a"), with_others(WORDS[:9], "b")) is None
    assert one(text(*WORDS[:10], *"uvwxy"), text(*"abcde", *WORDS[:10])) == (
        pytest.approx(2 / 3),
        "10-gram",
        True,
    )  # at its start, at its end


@pytest.mark.parametrize(
    "common, others, ratio, removed",
    [
        (12, 8, 0.6, True),
        (11, 8, 22 / 38, False),
        (10, 10, 0.5, False),
        (10, 11, None, None),
        (30, 20, 0.6, True),
        (299, 200, 0.6 - 0.4 / 499, False),
    ],
)
def test_both_sides_of_the_thresholds(common, others, ratio, removed):
    """`common` words, then as many others on each side: 2 x common / (2 x (common + others)). 0.6 and 0.5 themselves count."""
    a, b = ([*WORDS[:common], *(f"{name}{i}" for i in range(others))] for name in "ab")
    assert SequenceMatcher(None, b, a, autojunk=False).ratio() == pytest.approx(ratio or 10 / 21)
    assert one(text(*a), text(*b)) == (ratio and (pytest.approx(ratio), "10-gram", removed))


def test_the_order_of_the_two_and_autojunk_are_as_stated():
    """difflib's ratio of a pair depends on both; the item is the first, the question the second, and no word is junk."""
    rng = random.Random(1)
    for _ in range(2000):
        a, b = ([*WORDS[:10], *rng.choices("abc", k=12)] for _ in range(2))
        ratios = [SequenceMatcher(None, *pair, autojunk=False).ratio() for pair in ((a, b), (b, a))]
        if ratios[0] != ratios[1]:
            break
    assert one(text(*b), text(*a))[0] == ratios[0] != one(text(*a), text(*b))[0] == ratios[1]
    long = WORDS[:10] + ["x"] * 190 + ["y"] * 50
    other = ["x"] * 190 + WORDS[:10] + ["z"] * 50
    assert (
        SequenceMatcher(None, other, long, autojunk=True).ratio()
        < 0.5
        < one(text(*long), text(*other))[0]
    )


def test_what_a_token_is():
    assert (
        tokens("Find $x^2$\u2014the CAF\u00c9's \u221a2, 1,000 na\u00efve")
        == "find x 2 the caf s 2 1 000 na ve".split()
    )
    assert one("What is 2 + 3?", "what is $2+3$") == (1.0, "exact", True)
    assert one("x + 3", "x - 3") == (
        1.0,
        "exact",
        True,
    )  # operators are no tokens: told apart by nothing
    assert (
        one("x + 3", "x + 31") is None and one("Solve it now.", "Solve it now please.") is None
    )  # under 10 tokens only by equality


@pytest.mark.parametrize(
    "question, item",
    [
        ("", ""),
        ("\u95ee\u9898\uff1f", "\u95ee\u9898\uff1f"),
        ("?!", "..."),
        ("", "What?"),
        ("What?", ""),
    ],
)
def test_without_tokens_nothing_matches(question, item, capsys):
    assert one(question, item) is None
    assert ("note: 1 questions have no letter a-z and no digit" in capsys.readouterr().out) == (
        not tokenize_variants(question)
    )


def test_empty_sets():
    assert (
        find_matches({}, {"t": [{"id": "i", "question": "q"}]})
        == []
        == find_matches({"q": text(*WORDS[:30])}, {})
        == find_matches({"q": "q"}, {"t": []})
    )
    assert (
        summarize([], {"t": []})
        == {"t": {"items": 0, "hit": 0, "exact": 0, "removed": 0, "borderline": 0}}
        and load_test_sets([]) == {}
    )


STEM = "Which of these gases at room temperature is the densest of them all?"


@pytest.mark.parametrize(
    "options",
    [
        "\nA: Neon \nB: Argon \nC: Radon \nD: Air ",
        "\nAnswer Choices: (A) Neon (B) Argon (C) Radon",
        "\n\nA. Neon\nB. Argon\nC. Radon",
        " A) Neon B) Argon C) Radon",
        "\n$\\textbf{(A)}\\ 1 \\qquad \\textbf{(B)}\\ 2 \\qquad \\textbf{(C)}\\ 3$",
        "\nOptions:\nA. x\nB. y\nC. z",
    ],
)
def test_options_are_left_out(options):
    assert tokens(STEM + options) == tokens(STEM) and one(STEM + options, STEM) == (
        1.0,
        "exact",
        True,
    ) == one(STEM, STEM + options)


@pytest.mark.parametrize(
    "question",
    [
        "Jar A. has 2 more than jar B. How many?",
        "He starts at vertex A. Then he walks to B. Find it.",
        "Is (A) or (B) right?",
        "C. A. B.",
        "\nA. x\nB. y\nC. z",
        "f(A) = B. See C. and D.",
    ],
)
def test_what_only_looks_like_options_stays(question):
    assert tokenize_variants(question) == [re.findall("[a-z0-9]+", question.lower())]


@pytest.mark.parametrize(
    "change",
    [
        str.lower,
        str.upper,
        lambda text: text.replace("(", "").replace(")", " -"),
        lambda text: text.replace(") ", ")"),
    ],
)
def test_options_that_are_spelled_otherwise_hide_no_copy(change):
    """Options are only told in some spellings. A copy in another one has the same words still, and the text with options is compared, too."""
    question = (
        STEM
        + "\nAnswer Choices: "
        + " ".join(
            f"({letter}) {gas * 6}"
            for letter, gas in zip("ABCD", ("neon ", "argon ", "radon ", "air "))
        )
    )
    assert (
        one(change(question), question) == (1.0, "exact", True) == one(question, change(question))
    )
    ratio, _, removed = one(change(question) + " Think it over.", question)
    assert ratio > 0.9 and removed


# --- what comes out -------------------------------------------------------------------------------------------------


def test_pairs_their_order_and_the_counts():
    """Two questions that hit several items, by hand: 20 common words of 20 + 25 (2 x 20/45 = 0.889), of 20 + 50 (40/70 = 0.571)."""
    base = WORDS[:20]
    tests = {
        "b": [
            {"id": "near", "question": text(*base, *"vwxyz")},
            {"id": "same", "question": text(*base).upper()},
            {"id": "other", "question": "x"},
        ],
        "a": [{"id": "far", "question": text(*base, *(f"v{i}" for i in range(30)))}],
    }
    questions = {"q2": "nothing", "q1": text(*base), "q0": text(*base, "!")}
    found = find_matches(questions, tests)
    expected = [
        ("b", "same", 1.0, "exact", True),
        ("b", "near", 40 / 45, "10-gram", True),
        ("a", "far", 40 / 70, "10-gram", False),
    ]
    assert [
        (m["question_id"], m["benchmark"], m["item"], m["ratio"], m["how"], m["removed"])
        for m in found
    ] == [(question_id, *row) for question_id in ("q1", "q0") for row in expected]
    assert found[0] == {
        "question_id": "q1",
        "question": text(*base),
        "benchmark": "b",
        "item": "same",
        "ratio": 1.0,
        "how": "exact",
        "removed": True,
        "item_question": text(*base).upper(),
    }
    assert summarize(found, tests) == {
        "b": {"items": 3, "hit": 2, "exact": 1, "removed": 2, "borderline": 0},
        "a": {"items": 1, "hit": 0, "exact": 0, "removed": 0, "borderline": 2},
    }


def test_no_text_of_a_private_set_comes_out():
    """Neither the item's nor the question that equals it; the ids do, and another benchmark's match of the same question shows it."""
    secret = text("secret", *WORDS[:12])
    item = [{"id": "i", "question": secret}]
    hidden, shown = find_matches({"q": secret}, {"gpqa": item, "gsm8k": item})
    assert "secret" not in json.dumps(hidden) and (
        hidden["question_id"],
        hidden["item"],
        hidden["ratio"],
    ) == ("q", "i", 1.0)
    assert shown["question"] == shown["item_question"] == secret


def test_overlap_is_literal_and_keeps_operators():
    items = [
        {"question": "Start with 12\n(1) + 7"},
        {"question": "Find $x + 1$."},
        {"question": "Other"},
    ]
    assert (
        count_overlap(set(map(normalize_question, ["start with 12 (1) + 7", "Find $x+1$."])), items)
        == 2
        and count_overlap({normalize_question("Start with 12\n(1) - 7")}, items) == 0
    )
    test = world.test_items(0, 300)
    assert (
        count_overlap({normalize_question(record["question"]) for record in test[:100]}, test)
        == 100
    )
    trained = {normalize_question(p.question) for p in world.problems("train", 0, 300)}
    assert count_overlap(trained, test) == 0 == count_overlap(set(), test)


def test_what_05_finds_among_what_was_trained_on(tmp_path):
    """Each arm for itself; of MMLU-Pro the question alone counts. What is not known is said."""
    items = test_sets.load_items("tiny", limit=5, seed=0)
    known = {normalize_question(item["question"].upper()) for item in items[:3]} | {
        normalize_question(" which  letter? ")
    }
    folder = tmp_path / "sets"
    write(
        folder / "mmlu_pro" / "test.jsonl",
        [{"question": "Which letter?", "options": ["a", "b"], "answer": "A"}],
    )
    sets = {"tiny": items, "mmlu_pro": test_sets.load_items("mmlu_pro", folder, limit=1)}
    unknown, tiny, mmlu = decontamination.report_overlap(
        {
            "cft": known,
            "sft": {normalize_question(items[0]["question"])},
            "other": {"x"},
            "old": None,
        },
        sets,
        folder,
    )
    assert "old" in unknown and "not known" in unknown
    assert tiny.startswith("tiny: of its 5 questions") and "cft 3, sft 1 (03" in tiny
    assert mmlu.startswith("mmlu_pro: of its 1 questions") and "cft 1 (03" in mmlu
    assert (
        decontamination.report_overlap({"other": {"x"}}, sets, folder)
        == decontamination.report_overlap({}, sets, folder)
        == []
    )


def test_a_summary_in_words():
    counts = {
        "math": {"items": 5000, "hit": 3199, "exact": 2941, "removed": 3550, "borderline": 125},
        "aime24": {"items": 30, "hit": 0, "exact": 0, "removed": 0, "borderline": 0},
        "amc23": {"items": 40, "hit": 0, "exact": 0, "removed": 0, "borderline": 1},
    }
    assert decontamination.describe_summary(counts) == [
        "math: 3,550 questions removed, which match 3,199 of its 5,000 items (2,941 of them word for word); 125 borderline ones kept",
        "amc23: 0 questions removed, which match 0 of its 40 items (0 of them word for word); 1 borderline ones kept",
    ]


# --- against all pairs ----------------------------------------------------------------------------------------------

SENTENCES = [
    "Let $a,$ $b,$ and $c$ be positive real numbers such that $a + b + c = {n}.$",
    "A train travels {n} miles in {m} hours.",
    "Which of the following statements is true according to the text?",
    "Express your answer as a common fraction.",
    "How many ways are there to put {n} balls in {m} boxes if the balls are distinguishable but the boxes are not?",
    "Find the minimum value of \\[\\frac{{a}}{{b}} + \\frac{{{n} b}}{{c}} + {m} c^2.\\]",
    "She sold half as many clips in May, {n} in all.",
    "Enter your answer in the form $(r,\\theta),$ where $r > 0$ and $0 \\le \\theta < 2 \\pi.$",
    "At the same rate, how many additional hours would it take to travel an additional {n} miles?",
]


def real_looking(seed, n):
    """Questions of one to four sentences of the list, edited: other numbers, words swapped, doubled, dropped, cut short, repeated."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        words = " ".join(
            rng.choice(SENTENCES).format(n=rng.randrange(3), m=rng.randrange(3))
            for _ in range(rng.randrange(1, 5))
        ).split()
        for _ in range(rng.randrange(6)):
            i, j = rng.randrange(len(words)), rng.randrange(len(words))
            words[i : i + 1] = rng.choice([[words[j]], [words[i]] * 2, [], ["new"]]) or ["an"]
        words = (
            words[: rng.randrange(len(words))]
            if rng.random() < 0.2
            else words * rng.choice([1, 1, 1, 2])
        )
        found.append(" ".join(words))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_index_and_its_bounds_lose_nothing(seed):
    """All pairs by the plain rule give the same ids, ratios and verdicts, in the same order within a benchmark but for the best first."""
    questions = dict(enumerate(real_looking(seed, 250)))
    tests = {
        name: [
            {"id": f"{name}{i}", "question": q}
            for i, q in enumerate(real_looking(10 * seed + k, 200))
        ]
        for k, name in enumerate("xy", 1)
    }
    found, expected = find_matches(questions, tests), naive(questions, tests)
    key = lambda m: (m["question_id"], m["benchmark"], m["item"])
    assert sorted(map(key, found)) == sorted(map(key, expected)) and len(expected) > 1000
    assert {m["how"] for m in expected} == {"exact", "10-gram"} and {
        m["removed"] for m in expected
    } == {True, False}
    left_out = lambda m: {k: v for k, v in m.items() if "question" not in k or k == "question_id"}
    assert sorted(map(left_out, found), key=key) == sorted(expected, key=key)


# --- hostile --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "question, items, hits",
    [
        ("x " * 50_000, ["x " * 400, "x " * 50_000], 1),
        ("x y " * 25_000, ["x z " * 25_000], 0),
        ("A. " * 33_000, ["A. " * 30_000], 1),
        ("$\\textbf{" * 11_000, ["textbf " * 10_000], 1),
        ("a" * 100_000, ["b" * 100_000], 0),
        (" \n" * 50_000 + "(A) " * 9, ["a"], 0),
        (
            text(*WORDS[:10], *(f"t{i} x{i}" for i in range(9_000))),
            [text(*WORDS[:10], *(f"t{i} y{i}" for i in range(9_000)))],
            1,
        ),
    ],
)
def test_a_very_long_question_does_not_hang(question, items, hits):
    """A pair that would take difflib minutes or hours is judged by its upper bound, quick_ratio, so removed rather than kept."""
    began = time.process_time()
    found = find_matches(
        {"q": question}, {"t": [{"id": str(i), "question": item} for i, item in enumerate(items)]}
    )
    assert len(found) == hits and time.process_time() - began < 3
    assert all(
        m["ratio"]
        == pytest.approx(
            SequenceMatcher(None, tokens(m["item_question"]), tokens(question), False).quick_ratio()
        )
        for m in found
    )


# --- which sets -----------------------------------------------------------------------------------------------------


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "b" / "gsm8k" / "test.jsonl", [{"question": "q1", "answer": "#### 1"}])
    write(
        tmp_path / "b" / "mmlu_pro" / "test.jsonl",
        [{"question": "Which?", "options": ["x", "N/A", "y"], "answer": "A"}] * 2,
    )
    write(tmp_path / "b" / "theoremqa" / "test.jsonl", [{"Question": "Is it?", "Answer": "True"}])
    write(tmp_path / "b" / "math" / "test.jsonl", [{"problem": "p", "solution": "\\boxed{1}"}])
    write(tmp_path / "b" / "gpqa" / "test.jsonl", [{"Question": "never from a file"}])
    return tmp_path / "b"


def test_the_questions_alone_under_the_ids_of_05(folder, capsys):
    tests = load_test_sets(["mmlu_pro", "theoremqa", "gsm8k", "mmlu_pro"], folder)
    assert {name: [item["question"] for item in found] for name, found in tests.items()} == {
        "mmlu_pro": ["Which?", "Which?"],
        "theoremqa": ["Is it?"],
        "gsm8k": ["q1"],
    }
    assert all(
        [item["id"] for item in found]
        == [item["id"] for item in test_sets.load_items(name, folder)]
        for name, found in tests.items()
    )


def test_all_are_those_that_lie_there(folder, capsys):
    assert list(load_test_sets(["all"], folder)) == [
        "gsm8k",
        "math",
        "math500_validation",
        "theoremqa",
        "mmlu_pro",
    ]  # the validation set is cut out of MATH
    assert (
        f"note: not checked, since not in {folder}: math500 minerva_math olympiadbench aime24 aime25 amc23 gpqa\n"
        in capsys.readouterr().out
    )


def test_all_without_a_folder_are_all_of_the_table(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        test_sets,
        "_read_hub",
        lambda benchmark, revision: asked.append((benchmark.path, revision)) or [],
    )
    assert list(load_test_sets(["all"])) == [name for name in test_sets.TEST_SETS if name != "gpqa"]
    assert "since it needs a login (name it): gpqa\n" in capsys.readouterr().out
    assert asked[0] == ("openai/gsm8k", None)


def test_gpqa_is_the_question_alone_with_the_seeds_ids(monkeypatch):
    record = {
        "Question": "Which?",
        "Correct Answer": "r",
        "Incorrect Answer 1": "1",
        "Incorrect Answer 2": "2",
        "Incorrect Answer 3": "3",
    }
    monkeypatch.setattr(test_sets, "_read_hub", lambda benchmark, revision: [record])
    for seed in (0, 1):
        assert load_test_sets(["gpqa"], seed=seed)["gpqa"] == [
            {"id": test_sets.load_items("gpqa", seed=seed)[0]["id"], "question": "Which?"}
        ]


def test_a_test_set_of_ones_own(tmp_path):
    rows = [
        {"question": "q", "prompt": "other"},
        {"problem": "p"},
        {"prompt": ["first turn", "second turn"]},
        {"problem": "p"},
    ]
    found = load_test_sets(
        [
            write(tmp_path / "exam.jsonl", rows),
            write(tmp_path / "mt_bench" / "test.jsonl", rows[2:3]),
        ]
    )
    assert {name: [item["question"] for item in items] for name, items in found.items()} == {
        "exam": ["q", "p", "first turn", "p"],
        "mt_bench": ["first turn"],
    }
    assert (
        found["exam"][1]["id"] == content_id("p")
        and len({item["id"] for item in found["exam"]}) == 4
    )


@pytest.mark.parametrize(
    "names, says",
    [
        (["gsm8k", "tiny"], "--decontaminate tiny.*micro-world never trains on a question"),
        (["tiny_validation"], "--decontaminate tiny_validation"),
        (["gms8k"], "--decontaminate gms8k.*gsm8k"),
        (["heldout"], "--decontaminate heldout"),
        (["{}/none.jsonl"], "none.jsonl cannot be read"),
        (
            ["{}/bad.jsonl"],
            "bad.jsonl, row 2 holds no text in a column question, problem, prompt; its columns are text",
        ),
        (["{}/empty.jsonl"], "empty.jsonl, row 1 holds no text"),
        (["{}/x/test.jsonl", "{}/y/x.jsonl"], "there is a test set x already"),
    ],
)
def test_what_is_refused(tmp_path, names, says):
    write(tmp_path / "bad.jsonl", [{"question": "q"}, {"text": "q"}])
    write(tmp_path / "empty.jsonl", [{"prompt": []}])
    write(tmp_path / "x" / "test.jsonl", [{"question": "q"}])
    write(tmp_path / "y" / "x.jsonl", [{"question": "q"}])
    with pytest.raises(InputError, match=f"(?s){says}"):
        load_test_sets([name.format(tmp_path) for name in names])


# --- the real sets --------------------------------------------------------------------------------------------------

here = pytest.mark.skipif(not (SHARED / "questions").is_dir(), reason="../shared is not there")


def trained(name):
    from common.core.files import read_jsonl

    return {
        str(i): row["question"] for i, row in enumerate(read_jsonl(SHARED / "questions" / name))
    }


@here
def test_what_mathS_training_questions_hold_of_its_test():
    """Known: 2,936 items of MATH's test, 320 of the validation set and none of MATH-500 are inside, but for white space. By tokens 5 more of
    MATH: a comma moved, ^{2} for ^2 (3), z^4 + z^2 + 1 for z^4 - z^2 + 1, which is in MATH-500; and options after one question."""
    questions, tests = (
        trained("simplerl_math_train_8523.jsonl"),
        load_test_sets(["math", "math500", "math500_validation", "gsm8k"], SHARED / "benchmarks"),
    )
    assert [
        count_overlap(set(map(normalize_question, questions.values())), tests[name])
        for name in tests
    ] == [
        2936,
        0,
        320,
        0,
    ]
    counts = summarize(find_matches(questions, tests), tests)
    assert [counts[name]["exact"] for name in tests] == [2941, 1, 320, 0]
    assert [counts[name]["hit"] for name in tests] == [3201, 84, 338, 0] and counts["math"][
        "removed"
    ] == 3550


@here
def test_gsm8ks_training_questions_hold_siblings_of_its_test():
    tests = load_test_sets(["gsm8k"], SHARED / "benchmarks")
    assert summarize(find_matches(trained("gsm8k_train_7473.jsonl"), tests), tests)["gsm8k"] == {
        "items": 1319,
        "hit": 4,
        "exact": 0,
        "removed": 5,
        "borderline": 0,
    }


@here
def test_mmlus_questions_are_found_in_mmlu_pro_without_their_options():
    """724 questions of MMLU with four options, of which MMLU-Pro has more and other ones."""
    from common.core.files import read_jsonl

    questions = {
        row["question"]: row["question"]
        for row in read_jsonl(SHARED / "responses" / "mrben_stem.jsonl")
    }
    tests = load_test_sets(["mmlu_pro"], SHARED / "benchmarks")
    assert (
        len(questions) == 724
        and summarize(find_matches(questions, tests), tests)["mmlu_pro"]["removed"] == 460
    )
