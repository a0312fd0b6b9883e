"""What is thinking and what is answer: the manners of models, mentions, hostile text."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.core.thinking import without_thinking

ROOT = Path(__file__).parents[2]
MANNERS = {
    # tags
    "<think>2? No, 3.</think>\n\nIt is 3.": "It is 3.",
    "<think>\nOkay.\n</think>\n\nIt is 3.\n\nConclusion: right [END]": (
        "It is 3.\n\nConclusion: right [END]"
    ),
    " \n<THINKING>x</Thinking>It is 3.": "It is 3.",
    "<thought>x</thought>It is 3.": "It is 3.",
    "<reasoning depth='2' lang=\"en\">x</reasoning >It is 3.": "It is 3.",
    "<seed:think>x<seed:cot_budget_reflect>y</seed:cot_budget_reflect></seed:think>3": "3",
    "<mm:think>x</mm:think>3": "3",
    "[THINK]x[/THINK]It is 3.": "It is 3.",
    "◁think▷x◁/think▷It is 3.": "It is 3.",
    "<|begin_of_thought|>x<|end_of_thought|> 3": "3",
    "<|START_THINKING|>x<|END_THINKING|>3": "3",
    "<|inner_prefix|>x<|inner_suffix|>3": "3",
    "<|channel>thought\nx<channel|>3": "3",
    # no closing, no opening, several
    "<think>2?": "",
    "<seed:think>2?": "",
    "[THINK] 2?": "",
    "no opening</think> so 3": "so 3",
    "no opening\n</think>\n\nIt is 3.": "It is 3.",
    "<think></think>": "",
    "<think>\n\n</think>\n\n": "",
    "</think>": "",
    "[THINK]a[/THINK]b[THINK]c[/THINK]d": "d",
    "<think>a</think>\n<think>b": "",
    "<think>so the tag <think> opens, </think> closes</think>3": "3",
    # in the middle of an answer
    "Step 1: 2+3=5.\n<thinking>is it?</thinking>\nStep 2: so 5.": "Step 1: 2+3=5.\n\nStep 2: so 5.",
    "a <think>x</think>b <think>y</think>c": "a b c",
    "a <reflection>x</reflection> b": "a  b",
    "a [THINK]x[/THINK] b\n<think>y": "a  b\n<think>y",
    # gpt-oss
    "<|channel|>analysis<|message|>2?<|end|>"
    "<|start|>assistant<|channel|>final<|message|>3<|return|>": "3",
    "<|channel|>analysis<|message|>2?<|end|><|channel|>commentary<|message|>x<|end|>"
    "<|start|>assistant<|channel|>final <|constrain|>json<|message|>3": "3",
    "<|channel|>final<|message|>3": "3",
    "<|start|>assistant<|channel|>analysis<|message|>2?<|end|>": "",
    "<|channel|>analysis<|message|>2?": "",
    "<|channel|>commentary<|message|>I will look.<|end|>": "",
    "<|channel|>final<|message|>3<|end|><|start|>assistant<|channel|>analysis<|message|>4?": "3",
    "analysisWe need 3.assistantfinalIt is 3.": "It is 3.",
    "analysisWe need 3": "",
    # no thinking at all
    "It is 3.": "It is 3.",
    "  It is 3.\n": "  It is 3.\n",
    "": "",
    "Analysis: it is 3.": "Analysis: it is 3.",
    "[Reasoning] It is 3.": "[Reasoning] It is 3.",
    "<thinker>x": "<thinker>x",
    "<think/>It is 3.": "<think/>It is 3.",
    "a < think > b and c": "a < think > b and c",
}
ANSWER = "The code keeps {} of the model.\n\nConclusion: wrong [END]"
MENTIONS = [
    "`<think>` and `</think>`",
    "the text from '<think>' to '</think>'",
    'the pattern r"<think>.*?</think>"',
    'text.split("</think>")[-1]',
    "`[/THINK]`",
    "\n```python\n<think>\n</think>\n```\n",
    "\n```\nuser: 2+3?\n<think>5</think>\n```\nand\n~~~\nx\n~~~\n",
    "an opening <think> without end",
    "<|channel|>analysis in front",
]


@pytest.mark.parametrize("text", MANNERS, ids=repr)
def test_what_is_left_is_the_answer(text):
    assert without_thinking(text) == MANNERS[text]
    assert without_thinking(MANNERS[text]) == MANNERS[text]


@pytest.mark.parametrize("mention", MENTIONS, ids=repr)
@pytest.mark.parametrize(
    "thought", ["", "<think>Wrong?</think>\n\n", "Wrong?\n</think>\n"], ids=repr
)
def test_a_mark_that_an_answer_talks_about_stays(thought, mention):
    answer = ANSWER.format(mention)
    assert without_thinking(thought + answer) == answer


def test_a_mark_in_a_sentence_after_the_thinking_stays():
    answer = "The response forgot its </think> tag, so it is cut. Conclusion: wrong [END]"
    assert without_thinking(f"<think>No end?</think>{answer}") == answer


@pytest.mark.parametrize(
    "thought",
    [
        "it's f'(x)</think>g'(x) = 2",
        '"42"</think>"g"(x)',
        "```python\nx = 1\n</think>Ok\n```\ny\n```",
        "the tag </think> closes this, so more</think>Ok",
        "`x</think>Ok",
        "well </think> ok",
    ],
    ids=repr,
)
def test_what_looks_like_a_quotation_in_thinking_hides_no_end(thought):
    answer = thought.rpartition("</think>")[2].lstrip()
    assert without_thinking(thought) == without_thinking(f"<think>{thought}") == answer


HOSTILE = """
import resource
from common.core.thinking import without_thinking

resource.setrlimit(resource.RLIMIT_CPU, (15, 15))
for part in (
    "<think>", "</think>", "`</think>` ", "<", "<think ", "<a:", "```\\n</think>\\n", "analysis",
    "word </think> word ", "<|channel|>final", "<|start|>assistant    ", "'\\"`", " ", "</think",
):
    text = part * (300_000 // len(part))
    for hostile in (text, "<think>" + text, text + "</think>", text + "x</think>x" + text):
        without_thinking(hostile)
"""


def test_hostile_text_takes_linear_time():
    """Quadratic time would be minutes; the system ends the process after 15 s of CPU."""
    done = subprocess.run([sys.executable, "-c", HOSTILE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
