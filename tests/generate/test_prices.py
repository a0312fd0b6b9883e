"""Prices by name, from the kit's table or litellm's file, and the days of shutdowns.

The figures below were looked up by hand in November 2026; a price that changes changes both.
"""

import json
from datetime import date, timedelta

import pytest

from common.core.errors import InputError
from common.generate import budget, prices
from common.generate.budget import Budget

A_PRICE = {"input_cost_per_token": 3e-7, "output_cost_per_token": 6e-7}


def write(folder, table):
    path = folder / "prices.json"
    path.write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
    return path


# --- the kit's table ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, expected",
    [  # USD per million tokens: prompt, read from the cache, written to it, answer
        ("gpt-6-luna", (0.10, 0.01, 0.125, 0.50)),
        ("gpt-6-sol", (2, 0.20, 2.50, 10)),
        ("gpt-6.1-terra", (1, 0.05, 1.25, 5)),
        ("gpt-6.1-sol", (2, 0.10, 2.50, 10)),
        ("openai/gpt-6-luna", (0.10, 0.01, 0.125, 0.50)),
        ("gpt-6-luna-2026-09-22", (0.10, 0.01, 0.125, 0.50)),
        ("claude-haiku-5-5", (0.10, 0.01, 0.125, 0.50)),
        ("claude-sonnet-5-5-20260928", (2, 0.10, 2.50, 10)),
        ("gemini-3.5-flash-lite", (0.30, 0.03, 0.30, 2.50)),
        ("somebodys-model", None),
        ("luna", None),
        ("", None),
    ],
)
def test_prices_of_the_table(model, expected):
    found, day = prices.look_up(model)
    assert found == (expected and pytest.approx(expected)) and day is None


@pytest.mark.parametrize(
    "model, day",
    [
        ("gpt-4o-2024-11-20", date(2027, 1, 14)),  # the paper's teacher
        ("gpt-4o-mini", date(2027, 1, 14)),
        ("openai/gpt-4.1-mini-2025-04-14", date(2027, 1, 14)),
        ("gpt-5-nano", date(2026, 12, 11)),
        ("o4-mini-2025-04-16", date(2026, 10, 23)),
        ("gpt-4o-2024-05-13", date(2026, 10, 23)),  # earlier than gpt-4o itself
        ("claude-sonnet-4-20250514", date(2026, 6, 15)),
    ],
)
def test_days_of_shutdown(model, day):
    assert prices.look_up(model)[1] == day


def test_a_snapshot_that_is_shut_down_by_itself_has_no_price_of_its_model():
    """gpt-4o-2024-05-13 cost twice what gpt-4o does."""
    assert prices.look_up("gpt-4o-2024-05-13")[0] is None and prices.look_up("gpt-4o")[0]


def test_the_table_is_sound():
    """Each entry has a price with its source, or a day; what is offered is no retired model."""
    table = prices.read_table(prices.TABLE)
    fields = {*prices.COSTS, "deprecation_date", "litellm_provider", "source"}
    for name, entry in table.items():
        day = prices.parse_day(entry.get("deprecation_date"))
        assert set(entry) <= fields and ("deprecation_date" in entry) == (day is not None), name
        assert day or (entry["source"].count(";") and prices.look_up(name)[0]), name
    assert len(budget.TEACHERS) == 3
    assert not [t for t in budget.TEACHERS if prices.look_up(t.split()[1])[1]]


def test_three_teachers_to_choose_from():
    text = budget.teacher_choices()
    assert prices.AS_OF in text
    for flags in budget.TEACHERS:
        assert flags in text
    assert "$0.10 in, $0.50 out" in text and "$0.30 in, $2.50 out" in text


# --- litellm's file -------------------------------------------------------------------------------


def test_a_file_of_prices_wins_over_the_table(tmp_path):
    """As litellm writes it: USD per token, besides much that is not read here."""
    table = {
        "sample_spec": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "mode": "x, y"},
        "gpt-6-luna": A_PRICE | {"cache_read_input_token_cost": 1e-8, "supports_vision": True},
        "deepseek/their-model": A_PRICE | {"deprecation_date": "2027-02-03"},
    }
    path = write(tmp_path, table)
    assert prices.look_up("gpt-6-luna", path) == (pytest.approx((0.3, 0.01, 0.3, 0.6)), None)
    assert prices.look_up("their-model", path)[1] == date(2027, 2, 3)
    assert prices.look_up("gpt-6-sol", path)[0][0] == 2  # not in the file
    bought = Budget("openai/gpt-6-luna", limit=1, price_file=path)
    assert bought.cost({"prompt_tokens": 10**6, "completion_tokens": 10**6}) == pytest.approx(0.9)
    flags_win = Budget("gpt-6-luna", 1, 2, price_file=path)
    assert flags_win.prices == (1, 1, 1, 2)


@pytest.mark.parametrize("model", ["m", "x/m", "x/m-2026-01-31", "y/z/m", "m-20260131"])
def test_names_with_and_without_a_provider(tmp_path, model):
    table = {"a/other-m": A_PRICE, "x/m": A_PRICE, "mm": A_PRICE | {"output_cost_per_token": 0.5}}
    assert prices.look_up(model, write(tmp_path, table))[0] == pytest.approx((0.3, 0.3, 0.3, 0.6))


def test_of_several_providers_the_dearest_counts(tmp_path):
    """A budget is a promise: which of them is asked cannot be told from the name."""
    free = {"input_cost_per_token": 0, "output_cost_per_token": 0}
    path = write(tmp_path, {"a/m": free, "b/m": A_PRICE, "c/m": {}, "d/n": free})
    assert prices.look_up("m", path)[0][3] == pytest.approx(0.6)
    assert prices.look_up("a/m", path)[0] == (0, 0, 0, 0)
    assert Budget("n", limit=0, price_file=path).prices == (0, 0, 0, 0)


def test_the_day_of_the_table_holds_where_the_file_has_none(tmp_path):
    path = write(tmp_path, {"gpt-4o-mini": A_PRICE, "gpt-5": {"deprecation_date": "soon"}})
    assert prices.look_up("gpt-4o-mini", path) == (
        pytest.approx((0.3, 0.3, 0.3, 0.6)),
        date(2027, 1, 14),
    )
    assert prices.look_up("gpt-5", path) == (None, None)


BAD_FILES = {
    "no JSON": "not: json",
    "empty": "",
    "a list": "[1, 2]",
    "a number": "3",
    "deep": "[" * 200_000,
    "no UTF-8": "\udcff",
    "a huge number": '{"m": ' + "9" * 10_000 + "}",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_table_is_said(tmp_path, kind):
    path = tmp_path / "prices.json"
    path.write_bytes(BAD_FILES[kind].encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match="--prices .*prices.json"):
        Budget("m", limit=1, price_file=path)


def test_a_file_that_is_missing_or_endless_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(prices, "MAX_BYTES", 1000)
    for path in (tmp_path / "none.json", tmp_path, write(tmp_path, "{}" + " " * 2000), "/dev/zero"):
        with pytest.raises(InputError, match="--prices"):
            prices.read_table(path)


@pytest.mark.parametrize("usd", [-1e-7, True, "1e-7", [], 2, float("nan"), float("inf")])
@pytest.mark.parametrize("field", prices.COSTS)
def test_what_is_no_price_is_said(tmp_path, usd, field):
    """The file, the field and what stands there; two USD per token are two million per million."""
    path = write(tmp_path, {"m": A_PRICE | {field: usd}, "ok": A_PRICE, "n": None, "o": "x"})
    with pytest.raises(InputError, match=f"{field} of m"):
        prices.look_up("m", path)
    assert prices.look_up("ok", path)[0] and not prices.look_up("n", path)[0]


# --- what is said ---------------------------------------------------------------------------------


def test_a_shutdown_is_told_as_past_or_to_come():
    today = date.today()
    assert prices.describe_shutdown("m", None) == ""
    assert "m was shut down" in prices.describe_shutdown("m", today)
    assert "m will be shut down" in prices.describe_shutdown("m", today + timedelta(days=1))
    assert "14 January 2027" in prices.describe_shutdown("m", date(2027, 1, 14))
