"""Verdict by verdict the reference's, on GPT-4's published responses and on texts made of them.

The 834 verdicts are stored in the shared folder. lm-eval's checkers, where they are installed,
decide on any text: their nltk gets punkt's sentences in place of data that it would download, and
counts "#" and "!" where it would draw a letter.
"""

import importlib
import json
import random
import sys
from difflib import get_close_matches
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest

from common.ifeval.grading import grade, measure, pack_instructions
from common.ifeval.language_tools import count_capital_words, split_sentences
from tests.conftest import SHARED

pytest.importorskip("langdetect")
pytest.importorskip("punkt")
FOLDER = SHARED / "ifeval"
TEST_SET = SHARED / "benchmarks" / "ifeval" / "test.jsonl"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs GPT-4's shared responses")
CONSTANTS = (
    ".",
    '"a"',
    '"<<a>>"',
    "I am sorry but I cannot help with that.",
    '"<<A>>\n\n***\n\n* *b*\n\n******\n\n[c]"',
    "THE DOG IS IN\n\nTHE GARDEN.\n\nP.S. SECTION 1",
)


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def items():
    """The test set, with golds and GPT-4's responses; one prompt was corrected after these."""
    responses = {
        row["prompt"]: row["response"] for row in read_jsonl(FOLDER / "gpt4_responses.jsonl")
    }
    items = []
    for record in read_jsonl(TEST_SET):
        prompt = record["prompt"]
        if record["key"] == 2785:
            (prompt,) = get_close_matches(prompt, responses, 1)
        gold = pack_instructions(record)["instructions"]
        items.append(SimpleNamespace(record=record, gold=gold, response=responses[prompt]))
    return items


def test_all_verdicts_are_the_references(items):
    """417 of 541 prompts and 698 of 834 instructions strictly; loosely 431 and 714."""
    stored = {
        row.pop("key"): row for row in json.loads((FOLDER / "gpt4_verdicts.json").read_text())
    }
    graded = {item.record["key"]: grade(item.response, item.gold) for item in items}
    assert graded == stored
    shares = measure([[verdicts] for verdicts in graded.values()])
    counts = {"strict_prompt": 417 / 541, "strict_instruction": 698 / 834}
    counts |= {"loose_prompt": 431 / 541, "loose_instruction": 714 / 834}
    assert {name: shares[name] for name in counts} == pytest.approx(counts)


def test_what_is_repaired_changes_two_verdicts(items):
    """Both are texts in capitals whose language is told by their small letters."""
    changed = []
    for item in items:
        reference = grade(item.response, item.gold)
        if grade(item.response, item.gold, "repaired") != reference:
            changed.append(item.record["key"])
    assert changed == [3456, 3617]


@pytest.mark.slow
def test_a_blank_line_before_a_text_changes_nothing_that_is_repaired(items):
    """By the reference all nine passing answers of one kind fail behind it."""
    lost = 0
    for item in items:
        blank = "\n\n" + item.response
        strict = grade(item.response, item.gold, "repaired")["strict"]
        assert grade(blank, item.gold, "repaired")["strict"] == strict
        before, after = grade(item.response, item.gold), grade(blank, item.gold)
        lost += sum(before["strict"]) - sum(after["strict"])
    assert lost == 9


@pytest.mark.parametrize("text, followed", [(".", 222), ('"a"', 249), ('"<<a>>"', 286)])
def test_instructions_that_a_constant_answer_follows(items, text, followed):
    assert sum(sum(grade(text, item.gold)["strict"]) for item in items) == followed


# --- lm-eval ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lm_eval():
    """lm-eval's graders of IFEval, without the rest of its package and without nltk's data."""
    if not (find_spec("lm_eval") and find_spec("nltk")):
        pytest.skip("needs lm-eval[ifeval]")
    import langdetect
    import nltk

    (folder,) = find_spec("lm_eval").submodule_search_locations
    with pytest.MonkeyPatch.context() as patch:
        for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"):
            module = ModuleType(name)  # an empty one: importing the real one takes long
            module.__path__ = [folder + name.removeprefix("lm_eval").replace(".", "/")]
            patch.setitem(sys.modules, name, module)
        patch.setattr(nltk.data, "find", lambda path: path)
        patch.setattr(nltk.tokenize, "sent_tokenize", lambda text, language: split_sentences(text))
        patch.setattr(langdetect.DetectorFactory, "seed", 0)
        instructions = importlib.import_module("lm_eval.tasks.ifeval.instructions")
        tokenizer = SimpleNamespace(tokenize=split_sentences)
        patch.setattr(instructions.instructions_util, "_get_sentence_tokenizer", lambda: tokenizer)
        letters = instructions.LetterFrequencyChecker
        build = letters.build_description

        def build_as_asked(self, *, letter, **others):
            build(self, letter=letter, **others)
            self._letter = letter.lower()

        patch.setattr(letters, "build_description", build_as_asked)
        yield importlib.import_module("lm_eval.tasks.ifeval.utils")


def differences(lm_eval, items, texts):
    """Return the key, text and kinds of each item that lm-eval grades otherwise."""
    others = []
    for item, text in zip(items, texts):
        scored = lm_eval.process_results(item.record, [text])
        verdicts = grade(text, item.gold)
        theirs = scored["inst_level_strict_acc"], scored["inst_level_loose_acc"]
        if theirs != (verdicts["strict"], verdicts["loose"]):
            others.append((item.record["key"], text, item.record["instruction_id_list"], theirs))
    return others


def test_every_sixth_response_is_graded_as_by_lm_eval(lm_eval, items):
    sample = items[::6]
    assert differences(lm_eval, sample, [item.response for item in sample]) == []


@pytest.mark.slow
@pytest.mark.parametrize("text", CONSTANTS)
def test_a_constant_answer_is_graded_as_by_lm_eval(lm_eval, items, text):
    assert differences(lm_eval, items, [text] * len(items)) == []


def delete_line(text, rng):
    lines = text.split("\n")
    del lines[rng.randrange(len(lines))]
    return "\n".join(lines)


def delete_part(text, rng):
    start = rng.randrange(len(text))
    return text[:start] + text[start + rng.randrange(200) :]


def double_part(text, rng):
    start = rng.randrange(len(text))
    end = start + rng.randrange(200)
    return text[:end] + text[start:]


def insert(text, rng):
    place = rng.randrange(len(text) + 1)
    signs = [",", "*", "**", "\n\n", "\n* ", "***", "******", "<<b>>", "[c]", '"', "A. ", "#"]
    return text[:place] + rng.choice(signs) + text[place:]


def swap_case(text, rng):
    return rng.choice([str.upper, str.lower, str.title, str.swapcase])(text)


def wrap(text, rng):
    before, after = rng.choice(
        [('"', '"'), ("\n\n", ""), ("Sure:\n", "\nBye"), ("```json\n", "```")]
    )
    return before + text + after


EDITS = (delete_line, delete_part, double_part, insert, swap_case, wrap)


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_a_response_with_one_edit_is_graded_as_by_lm_eval(lm_eval, items, edit):
    texts = []
    for item in items:
        rng = random.Random(f"{edit.__name__} {item.record['key']}")
        texts.append(edit(item.response, rng))
    assert differences(lm_eval, items, texts) == []


@pytest.mark.slow
def test_capital_words_are_nltks(lm_eval, items):
    """Tokens of nltk's word_tokenize, on the responses as they are, in capitals and in titles."""
    import nltk

    for item in items:
        for text in (item.response, item.response.upper(), item.response.title()):
            tokens = nltk.word_tokenize(text)
            assert count_capital_words(text) == sum(map(str.isupper, tokens))
