"""What a model costs, and until when it can be asked.

The kit's table is prices.json, of November 2026. It has the form that --prices reads, that of
litellm's model_prices_and_context_window.json: USD per token. A prompt of more than 100,000 tokens
may cost more than either says.
"""

import json
import re
from datetime import date
from pathlib import Path

from common.core.errors import InputError

TABLE = Path(__file__).with_name("prices.json")
AS_OF = "November 2026"
MAX_BYTES = 32_000_000  # litellm's file has about 2 MB
# gpt-6-luna-2026-09-22, claude-haiku-5-5-20261007
SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
COSTS = {  # field of an entry: the field that counts if it is absent
    "input_cost_per_token": "",
    "cache_read_input_token_cost": "input_cost_per_token",
    "cache_creation_input_token_cost": "input_cost_per_token",
    "output_cost_per_token": "",
}


def look_up(model: str, path: str | Path | None = None) -> tuple:
    """Return the prices of a model and the day of its shutdown, each None if not known.

    Prices are USD per million tokens, in the order of COSTS. The file of --prices wins.
    """
    listed = _find_entry(read_table(TABLE), model)
    entry = {}
    if path:
        entry = _find_entry(read_table(path), model)
    day = parse_day((listed | entry).get("deprecation_date"))
    return _read_prices(entry or listed, model), day


def read_table(path: str | Path) -> dict:
    """Return {name: entry} of a file in litellm's form. InputError if it is none."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        table = json.loads(content)
        return {name: entry for name, entry in table.items() if isinstance(entry, dict)}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"--prices {path} cannot be read: {error}.\n"
            "Expected is litellm's model_prices_and_context_window.json: "
            '{"MODEL": {"input_cost_per_token": 1e-07, "output_cost_per_token": 5e-07}}'
        ) from None


def parse_day(text) -> date | None:
    """Return the day of YYYY-MM-DD, None for anything else."""
    try:
        return date.fromisoformat(str(text))
    except ValueError:
        return None


def describe_shutdown(model: str, day: date | None) -> str:
    """Return the sentence for the day of a shutdown, "" without one."""
    if day is None:
        return ""
    verb = "was" if day <= date.today() else "will be"
    return f"{model} {verb} shut down on {day.day} {day:%B %Y} by its maker"


def _find_entry(table, model):
    """Return the entry of a model, by its name with or without provider and day of the snapshot.

    Of several providers the dearest counts. {}: there is none.
    """
    name = model.rpartition("/")[2]  # openai/gpt-6-luna, as resellers call it
    for asked_name in (model, name, SNAPSHOT.sub("", name)):
        if asked_name in table:
            return table[asked_name]
        entries = [entry for key, entry in table.items() if key.endswith(f"/{asked_name}")]
        if entries:
            return max(entries, key=lambda entry: _read_prices(entry, model) or ())
    return {}


def _read_prices(entry, model):
    """Return the prices of an entry, None if it lacks one. InputError if they are no prices."""
    prices = []
    for field, substitute in COSTS.items():
        usd = entry.get(field, entry.get(substitute))
        if usd is None:
            return None
        if type(usd) not in (int, float) or not 0 <= usd < 1:  # bool is an int, too
            raise InputError(
                f"--prices: {field} of {model} is {str(usd)[:40]!r}.\nExpected are USD per token, "
                "for example 1e-07. Fix the file, or give --price-in and --price-out instead."
            )
        prices.append(round(usd * 1e6, 9))
    return tuple(prices)
