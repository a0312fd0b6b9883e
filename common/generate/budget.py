"""What answers cost: prices, the estimate before anything is sent, and the budget, a hard limit."""

import math
import operator
import statistics

from common.core.errors import InputError, Stopped
from common.core.tables import count
from common.generate import prices

BATCH_DISCOUNT = 0.5
# 2.5 to 3.7 in maths texts under Qwen's tokenizer: LaTeX is dense, English prose is not.
CHARACTERS_PER_TOKEN = 3.0
TOKENS_PER_ANSWER = 330  # assumed before there are answers to take the mean of
REASONING_TOKENS = 1000  # assumed besides, if a reasoning effort was asked for
TEACHERS = (  # a choice of three makers, for who has named none
    "--model gpt-6-luna --reasoning-effort none",
    "--model claude-haiku-5-5 --base-url https://api.anthropic.com/v1/ "
    "--temperature none --top-p none",
    "--model gemini-3.5-flash-lite "
    "--base-url https://generativelanguage.googleapis.com/v1beta/openai/",
)


def prompt_text(prompt) -> str:
    """Return the text of a prompt, raw or messages."""
    if isinstance(prompt, str):
        return prompt
    return "".join(message["content"] for message in prompt)


def estimate_tokens(prompt) -> int:
    return int(len(prompt_text(prompt)) / CHARACTERS_PER_TOKEN) + 8  # 8 for the chat template


def format_usd(usd: float) -> str:
    """Return USD for a reader: cents below one dollar are written out."""
    return f"${usd:.4f}" if abs(usd) < 1 else f"${usd:,.2f}"


def teacher_choices() -> str:
    """Return three teachers with the flags to ask them, their prices and the prices' date."""
    lines = [f"USD per million tokens, as of {prices.AS_OF}:"]
    for flags in TEACHERS:
        usd = prices.look_up(flags.split()[1])[0]
        lines.append(f"  {flags} --budget 5   (${usd[0]:.2f} in, ${usd[3]:.2f} out)")
    return "\n".join(lines)


class Budget:
    """The account of one model: prices, cost so far, and what requests in flight may cost.

    limit: USD that the model may cost in this run of the kit, over all starts of the command;
    inf: as much as it takes.
    spent: what the journal holds; lost: what failed requests may have cost (a timeout may have
    been paid); reserved: the worst case of the requests in flight.
    """

    def __init__(self, model, price_in=None, price_out=None, limit=None, price_file=None):
        if (price_in is None) != (price_out is None):
            raise InputError(
                "--price-in and --price-out go together, and only one of them was given.\n"
                "Give USD per million tokens, for example --price-in 0.15 --price-out 0.60"
            )
        self.prices, self.shutdown = prices.look_up(model, price_file)
        if price_in is not None and price_out is not None:
            self.prices = (price_in, price_in, price_in, price_out)
        self.model, self.limit = model, limit
        self.server_asked = False  # for the day of the shutdown
        self.spent = self.lost = self.reserved = 0.0
        if not self.prices and limit not in (None, math.inf):
            raise InputError(
                f"--budget needs the price of {model!r}, which is not in the kit's table. "
                f"{prices.describe_shutdown(model, self.shutdown)}\n"
                "Give USD per million tokens: --price-in 0.15 --price-out 0.60 "
                "(0 and 0 for a server of your own)"
            )

    def cost(self, usage: dict | None, batch: bool = False) -> float | None:
        """Return the USD of an answer, None if the price or the usage is not known."""
        if not self.prices or not usage:
            return None
        n_read = usage["prompt_tokens"]
        n_cached = min(usage.get("cached_tokens", 0), n_read)
        n_cache_write = min(usage.get("cache_write_tokens", 0), n_read - n_cached)
        n_full = n_read - n_cached - n_cache_write
        counts = n_full, n_cached, n_cache_write, usage["completion_tokens"]
        usd = sum(map(operator.mul, counts, self.prices)) / 1e6
        return usd * BATCH_DISCOUNT if batch else usd

    def worst(self, task) -> float:
        """Return the most USD that a request may cost.

        A token has at least one byte, and the answer may use all of max_new_tokens.
        """
        if not self.prices:
            return 0.0
        n_bytes = len(prompt_text(task.request.prompt).encode("utf-8", "surrogatepass"))
        n_out = task.sampling.max_new_tokens
        return ((n_bytes + 64) * max(self.prices[:3]) + n_out * self.prices[3]) / 1e6

    def remaining(self) -> float:
        """Return the USD that another request may cost."""
        if self.limit is None:
            return float("inf")
        return self.limit - self.spent - self.lost - self.reserved

    def charge(self, task, usage: dict | None, batch: bool = False) -> float:
        """Add the cost of an answer to what is spent, and return it.

        Without a usage, or with one that is too large, it is the worst case.
        """
        usd = self.cost(usage, batch)
        worst = self.worst(task)
        if usd is None or usd > worst:
            usd = worst
        self.spent += usd
        return usd

    def count(self, journal) -> list[int]:
        """Add up what this model has cost so far, and return the tokens of each of its answers."""
        self.spent = self.lost = 0.0
        n_tokens = []
        for record in journal.records.values():
            if record.get("model") == self.model:
                self.spent += record.get("usd") or 0.0
                self.lost += record.get("lost") or 0.0
                if record.get("usage"):
                    n_tokens.append(record["usage"]["completion_tokens"])
        return n_tokens

    def summary(self, journal) -> dict:
        """Return USD for a manifest: spent in this run, and perhaps lost. None without prices."""
        self.count(journal)
        if not self.prices:
            return {"usd": None, "usd_perhaps_lost": None}
        return {"usd": round(self.spent, 6), "usd_perhaps_lost": round(self.lost, 6)}

    def describe_cost(self) -> str:
        """Return what the model has cost in this run, in words."""
        text = format_usd(self.spent)
        if self.lost:
            text += f", perhaps {format_usd(self.lost)} more for requests that failed"
        return text

    def exhausted(self) -> Stopped:
        """Return the error for a budget that another request does not fit into."""
        return Stopped(
            f"--budget {self.limit:g} has no room for another answer at its worst; spent so far: "
            f"{self.describe_cost()}.\n"
            "Run the same command with a larger --budget: it goes on where it was.",
            4,
        )

    def approve(self, tasks, journal, commercial: bool):
        """Print the estimate. InputError if it costs money, or might, and nobody has agreed to it.

        commercial: the server may be one that has to be paid.
        """
        if self.shutdown:
            print(prices.describe_shutdown(self.model, self.shutdown))
        print(self._estimate([task for task in tasks if not task.settled], journal))
        if self.limit is not None:
            return
        fix = "Give --budget USD (a hard stop), or --budget inf (no limit)"
        if self.prices and any(self.prices):
            raise InputError(f"{self.model} costs money, and nothing was sent yet.\n{fix}.")
        if not self.prices and commercial:
            raise InputError(
                f"the price of {self.model!r} is not in the kit's table, and nothing was sent yet."
                f"\n{fix}; a budget needs --price-in and --price-out, USD per million tokens."
            )

    def _estimate(self, tasks, journal) -> str:
        n_tokens = self.count(journal)
        assumed = TOKENS_PER_ANSWER + REASONING_TOKENS * any(map(_asks_reasoning, tasks))
        mean_out = statistics.fmean(n_tokens or [assumed])
        n_in = n_out = 0
        for task in tasks:
            n_in += estimate_tokens(task.request.prompt)
            n_out += min(mean_out, task.sampling.max_new_tokens)
        text = (
            f"estimate: {count(len(tasks), 'request')}, about {n_in:,} tokens in, {n_out:,.0f} out"
        )
        if not n_tokens:
            text += f" ({assumed:,} assumed for each, reasoning included)"
        if self.prices:
            price_in, _, _, price_out = self.prices
            usd = (n_in * price_in + n_out * price_out) / 1e6
            worst = sum(map(self.worst, tasks))
            text += (
                f": {format_usd(usd)} live, {format_usd(usd * BATCH_DISCOUNT)} by the Batch API, "
                f"at most {format_usd(worst)} live ({self.model}, ${price_in:g} in and "
                f"${price_out:g} out per million tokens, prices of {prices.AS_OF} or as given)"
            )
        if self.spent or self.lost:
            text += f"; spent before: {self.describe_cost()}"
        return text


def _asks_reasoning(task):
    extra = task.sampling.extra_body or {}
    return extra.get("reasoning_effort", "none") != "none"
