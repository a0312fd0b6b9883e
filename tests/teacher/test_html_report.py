"""The page of critiques: its groups and counts by hand, hostile texts, its bound; in a browser."""

import urllib.parse
from collections import Counter

import pytest

from common.core import files
from common.core.errors import InputError
from common.teacher import html_report
from tests.pages import HOSTILE, Elements, unpacked
from tests.runs import write_rows


def row(i, correct, verdict="right", **changes):
    return {
        "id": f"r{i}",
        "teacher": "a",
        "question": f"What is {i}+1?",
        "response": f"It is \\boxed{{{i + 1}}}.",
        "gold": str(i + 1),
        "source": "sums",
        "generator": None,
        "finish_reason": "stop",
        "correct": correct,
        "critique": f"Fine.\n\nConclusion: {verdict} [END]",
        "verdict": verdict,
        "critique_finish_reason": "stop",
    } | changes


# By hand: 2 wrong responses are accepted, 1 right one is rejected, 3 verdicts agree, 2 have no
# grade (the second is a row of an earlier version), 2 have no critique.
A = [
    row(1, False),
    row(2, False),
    row(3, True, "wrong"),
    row(4, True),
    row(5, False, "wrong"),
    row(6, None, gold=None),
]
B = [row(7, True, teacher="b"), row(8, True, teacher="b")]
del B[1]["correct"]
FAILED = [
    row(9, True, "unparsed", reason="no verdict", critique_raw="Hm."),
    {name: value for name, value in row(10, None).items() if "critique" not in name}
    | {"reason": "400 flagged"},
]
del FAILED[0]["critique"], FAILED[1]["verdict"]
CASES = {"wrong_right": 2, "right_wrong": 1, "right_right": 2, "wrong_wrong": 1}
CASES |= {"no_gold": 2, "failed": 2}


def write(run, critiques, failed=(), **settings):
    """Write {teacher: rows}, the failed rows and the page of a run; return the page's bytes."""
    for name, rows in critiques.items():
        write_rows(run / "02_critiques" / f"{name}.jsonl", rows)
    write_rows(run / "02_failed" / "a.jsonl", failed)
    html_report.write_page(run, **settings)
    return (run / "02_critiques.html").read_bytes()


def test_all_rows_of_all_teachers_in_their_groups(tmp_path):
    """The page holds the rows as they are. Equal rows give equal bytes."""
    html = write(tmp_path / "mine", {"a": A, "b": B}, FAILED)
    contents, items = unpacked(html)
    assert contents == {"title": "Critiques of mine", "step": 1, "teachers": ["a", "b"]}
    assert Counter(item.pop("case") for item in items) == CASES
    assert items == [*A, *B, *FAILED]
    assert write(tmp_path / "mine", {"a": A, "b": B}, FAILED) == html


def test_hostile_text_is_no_markup(tmp_path):
    """Whatever the texts, the document has the elements of the empty page; the texts come back."""
    names = ("id", "teacher", "question", "response", "gold", "source", "critique", "reason")
    hostile = [row(i, True) | dict.fromkeys(names, text) for i, text in enumerate(HOSTILE)]
    html = write(tmp_path / "hostile", {"a": hostile})
    _, items = unpacked(html)
    assert [[item[name] for name in names] for item in items] == [
        [text] * len(names) for text in HOSTILE
    ]
    page, empty = Elements(html.decode()), Elements(write(tmp_path / "empty", {}).decode())
    assert page.tags == empty.tags and page.scripts[1:] == empty.scripts[1:]
    assert len(page.scripts) == 2


def test_a_page_is_bounded(tmp_path):
    """100 rows of equal size in 4.5 times the bound: every fifth, and the page says so."""
    rows = [row(i, True) for i in range(100, 200)]
    size = sum(len(files.json_line(line)) for line in rows)
    contents, items = unpacked(write(tmp_path / "x", {"a": rows}, max_bytes=int(size / 4.5)))
    assert contents["step"] == 5
    assert [item["id"] for item in items] == [f"r{i}" for i in range(100, 200, 5)]


def test_a_row_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="teacher"):
        write(tmp_path / "x", {"a": [{"id": "r1"}]})


@pytest.mark.extra
def test_filters_in_a_browser(tmp_path, browser):
    """The counts on the buttons are the hand counts; teacher and search change them."""
    write(tmp_path / "x", {"a": A, "b": B}, FAILED)

    def read_page(**state):
        browser.get("about:blank")
        address = (tmp_path / "x" / "02_critiques.html").as_uri()
        browser.get(f"{address}#{urllib.parse.urlencode(state)}")
        browser.find_element("css selector", "#count:not(:empty)")
        buttons = browser.find_elements("css selector", "fieldset b")
        return browser.find_element("id", "count").text, [int(button.text) for button in buttons]

    counts = [10, 2, 1, 3, 2, 2]
    cases = ("all", "accepts", "rejects", "agree", "no_gold", "failed")
    for case, count in zip(cases, counts):
        assert read_page(case=case) == (f"{count} of 10 items", counts)
    assert read_page(case="toString") == ("10 of 10 items", counts)
    assert read_page(teacher="b", case="agree") == ("1 of 10 items", [2, 0, 0, 1, 1, 0])
    assert read_page(text="IS 1+") == ("1 of 10 items", [1, 1, 0, 0, 0, 0])
    assert read_page(text="flagged")[0] == "1 of 10 items"
    read_page(case="failed", item=9)
    assert "Hm." in browser.find_element("id", "detail").text
    browser.find_element("css selector", "input[value=accepts]").click()
    browser.find_element("xpath", "//*[@id='count'][starts-with(., '2 of')]")
    assert not browser.get_log("browser")

    hostile = [row(i, True, response=text, critique=text) for i, text in enumerate(HOSTILE[:5])]
    write(tmp_path / "x", {"a": hostile, "b": []})
    for i, text in enumerate(HOSTILE[:5]):
        read_page(item=i + 1)
        script = "return [...document.querySelectorAll('#detail section pre')].at(-1).textContent"
        assert browser.execute_script(script) == text
    assert not browser.find_elements("css selector", "img, #detail script")
