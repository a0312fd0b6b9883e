"""What answers cost: prices, the estimate before anything is sent, and the budget, a hard limit."""

import math
import re

from common.core.errors import InputError, Stopped

# USD per million tokens: in, in from the provider's cache, out. From the OpenAI API's price page as
# of August 2025. Prices change: look before a large run, and give --price-in and --price-out if
# they differ. The Batch API takes half.
PRICES = {
    "gpt-4o": (2.50, 1.25, 10.00),
    "gpt-4o-2024-05-13": (5.00, 5.00, 15.00),
    "gpt-4o-mini": (0.15, 0.075, 0.60),
    "gpt-4.1": (2.00, 0.50, 8.00),
    "gpt-4.1-mini": (0.40, 0.10, 1.60),
    "gpt-4.1-nano": (0.10, 0.025, 0.40),
    "gpt-5": (1.25, 0.125, 10.00),
    "gpt-5-mini": (0.25, 0.025, 2.00),
    "gpt-5-nano": (0.05, 0.005, 0.40),
    "o4-mini": (1.10, 0.275, 4.40),
}
PRICES_AS_OF = "August 2025"
BATCH_DISCOUNT = 0.5
# 2.5 to 3.7 in maths texts under Qwen's tokenizer: LaTeX is dense, English prose is not.
CHARACTERS_PER_TOKEN = 3.0
TOKENS_PER_ANSWER = 330  # before there are answers to take the mean of


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


class Budget:
    """The account of one model: prices, cost so far, and what requests in flight may cost.

    limit: USD that the model may cost in this run of the kit, over all starts of the command;
    inf: as much as it takes.
    spent: what the journal holds; lost: what failed requests may have cost (a timeout may have
    been paid); reserved: the worst case of the requests in flight.
    """

    def __init__(self, model, price_in=None, price_out=None, limit=None):
        if (price_in is None) != (price_out is None):
            raise InputError(
                "--price-in and --price-out go together, and only one of them was given.\n"
                "Give USD per million tokens, for example --price-in 0.15 --price-out 0.60"
            )
        if price_in is None or price_out is None:
            self.prices = _listed_prices(model)
        else:
            self.prices = (price_in, price_in, price_out)
        self.model, self.limit = model, limit
        self.spent = self.lost = self.reserved = 0.0
        if not self.prices and limit not in (None, math.inf):
            raise InputError(
                f"--budget needs the price of {model!r}, which is not in the kit's table.\n"
                "Give USD per million tokens: --price-in 0.15 --price-out 0.60 "
                "(0 and 0 for a server of your own)"
            )

    def cost(self, usage: dict | None, batch: bool = False) -> float | None:
        """Return the USD of an answer, None if the price or the usage is not known."""
        if not self.prices or not usage:
            return None
        full, cached, out = self.prices
        n_cached = min(usage.get("cached_tokens", 0), usage["prompt_tokens"])
        n_full = usage["prompt_tokens"] - n_cached
        usd = (n_full * full + n_cached * cached + usage["completion_tokens"] * out) / 1e6
        return usd * BATCH_DISCOUNT if batch else usd

    def worst(self, task) -> float:
        """Return the most USD that a request may cost.

        A token has at least one byte, and the answer may use all of max_new_tokens.
        """
        if not self.prices:
            return 0.0
        n_bytes = len(prompt_text(task.request.prompt).encode("utf-8", "surrogatepass"))
        n_out = task.sampling.max_new_tokens
        return ((n_bytes + 64) * self.prices[0] + n_out * self.prices[2]) / 1e6

    def remaining(self) -> float:
        """Return the USD that another request may cost."""
        if self.limit is None:
            return float("inf")
        return self.limit - self.spent - self.lost - self.reserved

    def charge(self, task, usage: dict | None, batch: bool = False) -> float | None:
        """Add the cost of an answer to what is spent, and return it (None without prices).

        Without a usage, or with one that is too large, it is the worst case.
        """
        if not self.prices:
            return None
        usd = self.cost(usage, batch)
        worst = self.worst(task)
        usd = worst if usd is None else min(worst, usd)
        self.spent += usd
        return usd

    def count(self, journal) -> float:
        """Add up what this model has cost so far, and return its mean number of answer tokens."""
        records = [r for r in journal.records.values() if r.get("model") == self.model]
        self.spent = sum(record.get("usd") or 0.0 for record in records)
        self.lost = sum(record.get("lost") or 0.0 for record in records)
        usages = [record["usage"] for record in records if record.get("usage")]
        if not usages:
            return TOKENS_PER_ANSWER
        return sum(usage["completion_tokens"] for usage in usages) / len(usages)

    def summary(self, journal) -> dict:
        """Return USD for a manifest: spent in this run, and perhaps lost. None without prices."""
        self.count(journal)
        if not self.prices:
            return {"usd": None, "usd_perhaps_lost": None}
        return {"usd": round(self.spent, 6), "usd_perhaps_lost": round(self.lost, 6)}

    def describe_cost(self) -> str:
        """Return what the model has cost in this run, in words."""
        if not self.lost:
            return format_usd(self.spent)
        perhaps = f"perhaps {format_usd(self.lost)} more for requests that failed"
        return f"{format_usd(self.spent)}, {perhaps}"

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
        print(self._estimate([task for task in tasks if not task.settled], journal))
        if self.limit is not None:
            return
        if self.prices and any(self.prices):
            raise InputError(
                f"{self.model} costs money, and nothing was sent yet.\n"
                "Give --budget USD (a hard stop) or --budget inf (no limit)."
            )
        if not self.prices and commercial:
            raise InputError(
                f"the price of {self.model!r} is not in the kit's table, and nothing was sent yet."
                "\nGive --price-in and --price-out, USD per million tokens, with --budget; "
                "or --budget inf to go on without any count."
            )

    def _estimate(self, tasks, journal) -> str:
        mean_out = self.count(journal)
        n_in = sum(estimate_tokens(task.request.prompt) for task in tasks)
        n_out = sum(min(mean_out, task.sampling.max_new_tokens) for task in tasks)
        text = f"estimate: {len(tasks):,} requests, about {n_in:,} tokens in, {n_out:,.0f} out"
        if self.prices:
            price_in, _, price_out = self.prices
            usd = (n_in * price_in + n_out * price_out) / 1e6
            worst = sum(self.worst(task) for task in tasks)
            text += (
                f": {format_usd(usd)} live, {format_usd(usd * BATCH_DISCOUNT)} by the Batch API, "
                f"at most {format_usd(worst)} live ({self.model}, ${price_in:g} in and "
                f"${price_out:g} out per million tokens, prices of {PRICES_AS_OF} or as given)"
            )
        if self.spent or self.lost:
            text += f"; spent before: {self.describe_cost()}"
        return text


def _listed_prices(model):
    name = model.rpartition("/")[2]  # openai/gpt-4o-mini, as resellers call it
    undated = re.sub(r"-\d{4}-\d{2}-\d{2}$", "", name)
    return PRICES.get(name) or PRICES.get(undated)
