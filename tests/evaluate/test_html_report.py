"""The page of outputs.

Its data come back as they were, no text becomes markup, what is private stays out; its filters in a
browser.
"""

import base64
import hashlib
import json
import random
import re
import time
import urllib.parse

import pytest

from common.evaluate import html_report
from tests.pages import HOSTILE, Elements, unpacked


def row(i, strict=True, **changes):
    return {
        "id": f"q{i}",
        "benchmark": "sums",
        "question": f"What is {i}+1?",
        "prompt": f"Solve.\nWhat is {i}+1?<|im_end|>\n",
        "output": f"It is \\boxed{{{i + 1}}}.",
        "finish_reason": "stop",
        "n_tokens": 7,
        "extracted": str(i + 1),
        "extraction_method": "boxed",
        "gold": str(i + 1),
        "correct": strict,
        "correct_paper": strict,
        "timed_out": False,
        "sample": 0,
    } | changes


def score(model, benchmark="sums", **changes):
    return {
        "benchmark": benchmark,
        "model": model,
        "n": 2,
        "accuracy": 0.5,
        "low": 0.1,
        "high": 0.9,
        "paper_accuracy": 0.5,
    } | changes


def write(folder, rows, scores=(), **settings):
    html_report.write_page(folder / "page.html", rows, list(scores), **settings)
    return (folder / "page.html").read_bytes()


def test_round_trip(tmp_path):
    """By hand.

    Two models, two items, the second model's rows in another order, its prompt another one, one row
    missing.
    """
    base = [row(1), row(2, False, correct_paper=True)]
    cft = [
        row(2, prompt="User: What is 2+1?"),
        row(3, None, output="", finish_reason="failed"),
    ]
    rows = {("sums", "base"): base, ("sums", "cft"): cft}
    contents, items = unpacked(
        write(tmp_path, rows, [score("base", extra="not kept")], title="Run 1")
    )
    assert contents == {
        "title": "Run 1",
        "scores": [score("base")],
        "private": [],
        "benchmarks": [{"name": "sums", "models": ["base", "cft"], "samples": [0], "n": 3}],
    }
    assert [item["id"] for item in items] == ["q1", "q2", "q3"] and [
        item["gold"] for item in items
    ] == ["2", "3", "4"]
    assert items[1]["prompts"] == ["Solve.\nWhat is 2+1?<|im_end|>\n", "User: What is 2+1?"]
    answer = {name: base[1][name] for name in html_report.ANSWER}
    assert items[1]["answers"] == [
        [answer | {"prompt": 0}],
        [answer | {"correct": True, "prompt": 1}],
    ]
    assert (
        items[0]["answers"][1] == [None]
        and items[2]["answers"][0] == [None]
        and items[2]["answers"][1][0]["correct"] is None
    )


def test_samples_of_an_item(tmp_path):
    """k rows of one id are its samples."""
    rows = [row(1, sample=number, output=str(number)) for number in (0, 2)]
    contents, items = unpacked(write(tmp_path, {("sums", "m"): rows}))
    assert contents["benchmarks"][0]["samples"] == [0, 2] and contents["benchmarks"][0]["n"] == 1
    assert [answer["output"] for answer in items[0]["answers"][0]] == ["0", "2"]


def test_hostile_text_is_no_markup(tmp_path):
    """Whatever the texts, names and title, the document has the elements of the empty page.

    And the texts come back.
    """
    rows = {
        (name, name): [
            row(
                i,
                prompt=text,
                output=text,
                question=text,
                gold=text,
                extracted=text,
                extraction_method=text,
                finish_reason=text,
                id=text,
            )
            for i, text in enumerate(HOSTILE)
        ]
        for name in HOSTILE
    }
    html = write(
        tmp_path,
        rows,
        [score(text, benchmark=text) for text in HOSTILE],
        private=HOSTILE[-1:],
        title=HOSTILE[0],
    )
    contents, items = unpacked(html)
    assert (
        contents["title"] == HOSTILE[0]
        and [b["name"] for b in contents["benchmarks"]] == HOSTILE[:-1]
    )
    assert [item["answers"][0][0]["output"] for item in items[: len(HOSTILE)]] == HOSTILE and items[
        0
    ]["prompts"] == HOSTILE[:1]
    found, empty = Elements(html.decode()), Elements(write(tmp_path, {}).decode())
    assert (
        found.tags == empty.tags
        and found.scripts[1:] == empty.scripts[1:]
        and len(found.scripts) == 2
    )
    assert not re.search(rb"broken|onerror|right to left", html)


def test_nothing_is_loaded_and_one_script_runs(tmp_path):
    """The policy names the hash of the script on the page.

    No element has a source, a style or a handler of its own.
    """
    html = write(tmp_path, {("sums", "m"): [row(1)]}).decode()
    found = Elements(html)
    assert (
        f"'sha256-{base64.b64encode(hashlib.sha256(found.scripts[1].encode()).digest()).decode()}'"
        in html
    )
    assert "default-src 'none'" in html and not re.search(
        r"https?:|url\(|@import|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", html
    )
    assert not [
        a
        for _, attributes in found.tags
        for a, _ in attributes
        if a in ("src", "href", "style") or a.startswith("on")
    ]


def test_private_benchmarks_are_left_out(tmp_path):
    secret = {
        "prompt": "secret",
        "output": "secret",
        "question": "secret",
        "gold": "secret",
        "extracted": "secret",
        "id": "secret",
    }
    rows = {("sums", "m"): [row(1)], ("gpqa", "m"): [row(1, **secret)]}
    contents, items = unpacked(
        write(tmp_path, rows, [score("m"), score("m", benchmark="gpqa")], private=("gpqa",))
    )
    assert contents["private"] == ["gpqa"] and len(contents["scores"]) == 2
    assert "secret" not in json.dumps([contents, items]) and [
        b["name"] for b in contents["benchmarks"]
    ] == ["sums"]


def test_equal_input_gives_equal_bytes(tmp_path):
    rows = {("sums", m): [row(i) for i in range(50)] for m in "ab"}
    assert write(tmp_path, rows, [score("a")]) == write(tmp_path, rows, [score("a")])


def test_size_of_a_big_page(tmp_path):
    """3,000 items, 4 models.

    Prompts of 2,000 random letters are stored once an item, so the page is near what they hold.
    """
    letters = random.Random(0)
    prompts = [f"Solve.\n{letters.randbytes(1000).hex()}\nend" for _ in range(3000)]
    rows = {
        ("sums", m): [row(i, prompt=prompt) for i, prompt in enumerate(prompts)] for m in "abcd"
    }
    information = sum(map(len, prompts)) / 2  # bytes: a letter of hex is four bits
    assert (
        len(write(tmp_path, rows)) < 4 / 3 * 1.35 * information
    )  # base64; gzip, and everything but the prompts


# --- in a browser ---------------------------------------------------------------------------------


@pytest.mark.extra
def test_filters_in_a_browser(tmp_path, browser):
    """Counts of the page against counts by Python.

    Keys and paging; hostile texts shown as they are.
    """
    dice = random.Random(0)
    rows = {}
    for m in ("base", "cft"):
        rows["sums", m] = [
            row(
                i,
                dice.choice([True, False, None]),
                correct_paper=dice.choice([True, False]),
                extraction_method=dice.choice(["boxed", "cue", "none"]),
                finish_reason=dice.choice(["stop", "length"]),
                timed_out=dice.random() < 0.2,
                sample=s,
                output=dice.choice(["Seven (7.0)", "eight"]),
            )
            for i in range(120)
            for s in (0, 1)
        ]
    rows["hostile", "m"] = [
        row(i, output=text, question=text, gold=text) for i, text in enumerate(HOSTILE)
    ]
    write(tmp_path, rows, [score("base"), score("m", "hostile")], title="<b>Title</b>")

    def shown(**state):
        browser.get("about:blank")
        browser.get((tmp_path / "page.html").as_uri() + "#" + urllib.parse.urlencode(state))
        browser.find_element("css selector", "#count:not(:empty)")
        return browser.find_element("id", "count").text

    def expected(a_is=lambda a: True, pair=lambda a, b: True, sample=1):
        pairs = [
            (a, b)
            for a, b in zip(rows["sums", "base"], rows["sums", "cft"])
            if a["sample"] == sample
        ]
        return f"{sum(bool(a_is(a) and pair(a, b)) for a, b in pairs)} of 120 items"

    def known(test):
        return lambda a, b: (
            a["correct"] is not None
            and b["correct"] is not None
            and test(a["correct"], b["correct"])
        )

    def graders(a, b):
        return any(r["correct"] is not None and r["correct"] != r["correct_paper"] for r in (a, b))

    two = {"a": "base", "b": "cft", "sample": 1}
    for outcome, test in {
        "right": lambda a: a["correct"] is True,
        "wrong": lambda a: a["correct"] is False,
        "failed": lambda a: a["correct"] is None,
        "unboxed": lambda a: a["correct"] is not None and a["extraction_method"] != "boxed",
        "timeout": lambda a: a["timed_out"],
        "cut": lambda a: a["finish_reason"] == "length",
    }.items():
        assert shown(outcome=outcome, **two) == expected(test)
    for pair, test in {
        "differ": lambda a, b: a != b,
        "a": lambda a, b: a and not b,
        "b": lambda a, b: b and not a,
    }.items():
        assert shown(pair=pair, **two) == expected(pair=known(test))
    assert shown(graders="disagree", **two) == expected(pair=graders)
    assert shown(graders="disagree", a="base") == expected(
        pair=lambda a, b: graders(a, a), sample=0
    )
    assert shown(text="SEVEN (7.", **two) == expected(
        pair=lambda a, b: "Seven" in a["output"] + b["output"]
    )
    assert shown(text="What is 17+", outcome="right", **two) == expected(
        lambda a: a["correct"] and a["id"] == "q17"
    )
    assert (
        shown(**two, item=120) == "120 of 120 items"
        and browser.find_element("id", "page").text == "101–120"
    )

    shown(**two, item=50)
    browser.find_element("tag name", "body").send_keys("j")
    assert (
        browser.find_element("css selector", "#detail h2").text.startswith("Item 51")
        and browser.find_element("id", "page").text == "51–100"
    )
    browser.switch_to.active_element.send_keys("kk")
    assert browser.find_element("css selector", "#detail h2").text.startswith("Item 49")
    time.sleep(0.5)  # the address follows at rest
    assert "item=49" in browser.current_url and "a=base&b=cft&sample=1" in browser.current_url
    for i, text in enumerate(HOSTILE[:5]):
        shown(benchmark="hostile", item=i + 1)
        assert (
            browser.execute_script(
                "return [...document.querySelectorAll('#detail section pre')].at(-1).textContent"
            )
            == text
        )
    assert browser.title == "<b>Title</b>" and not browser.find_elements(
        "css selector", "img, #detail script, b b"
    )
    assert not browser.get_log("browser")
