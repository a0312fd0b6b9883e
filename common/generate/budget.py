"""What answers cost: prices, the estimate before anything is sent, and the budget that is never passed."""

import re

from common.core.errors import InputError

# USD per million tokens: in, in from the provider's cache, out. From the OpenAI API's price page as of August 2025: prices
# change, so look before a large run, and give --price-in and --price-out where they differ. The Batch API takes half.
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
AS_OF, BATCH = "August 2025", 0.5
CHARACTERS = 3.0  # per token: 2.5 to 3.7 in maths texts under Qwen's tokenizer (LaTeX is dense, English prose is not)
OUT = 330  # tokens per answer, before there are answers to take the mean of


def _length(prompt):
    """-> (characters, bytes) of a prompt, text or messages."""
    text = prompt if isinstance(prompt, str) else "".join(m["content"] for m in prompt)
    return len(text), len(text.encode("utf-8", "surrogatepass"))


def format_usd(usd):
    """USD for a reader: cents below one dollar are written out."""
    return f"${usd:.4f}" if abs(usd) < 1 else f"${usd:,.2f}"


def estimate_tokens(prompt):
    """Estimated tokens of a prompt."""
    return int(_length(prompt)[0] / CHARACTERS) + 8


class Budget:
    """The account of one model: its prices, what it has cost in this run, and what is out for requests in flight.

    limit: USD that the model may cost in this run of the kit, over all starts of the command. `spent` is what the journal
    holds; `lost` what failed requests may have cost (a timeout may have been paid); `out` the worst case of those in flight.
    """

    def __init__(self, model, price_in=None, price_out=None, limit=None, yes=False):
        if (price_in is None) != (price_out is None):
            raise InputError(
                "--price-in and --price-out go together: USD per million tokens, for example --price-in 0.15 --price-out 0.60"
            )
        name = model.rpartition("/")[2]  # openai/gpt-4o-mini, as resellers call it
        listed = PRICES.get(name) or PRICES.get(re.sub(r"-\d{4}-\d{2}-\d{2}$", "", name))
        self.prices = listed if price_in is None else (price_in, price_in, price_out)
        self.model, self.limit, self.yes = model, limit, yes
        self.spent = self.lost = self.out = 0.0
        self.projected = None
        if limit is not None and not self.prices:
            raise InputError(
                f"--budget needs the price of {model!r}, which is not in the kit's table.\n"
                "Give USD per million tokens: --price-in 0.15 --price-out 0.60 (0 and 0 for a server of your own)"
            )

    def cost(self, usage, batch=False):
        """USD of an answer, None where the price or the usage is not known."""
        if not self.prices or not usage:
            return None
        cached = min(usage.get("cached_tokens", 0), usage["prompt_tokens"])
        full, cheap, out = self.prices
        usd = (
            (usage["prompt_tokens"] - cached) * full
            + cached * cheap
            + usage["completion_tokens"] * out
        )
        return usd / 1e6 * (BATCH if batch else 1)

    def worst(self, task):
        """USD of a request at most: a token has at least one byte, and the answer may use all of max_new_tokens."""
        if not self.prices:
            return 0.0
        return (
            (_length(task.request.prompt)[1] + 64) * self.prices[0]
            + task.sampling.max_new_tokens * self.prices[2]
        ) / 1e6

    def summary(self, journal):
        """For a manifest: USD spent in this run, projected before the first request, perhaps paid for requests that failed."""
        self.count(journal)
        projected = self.spent if self.projected is None else self.projected
        figures = {"usd": self.spent, "usd_projected": projected, "usd_perhaps_lost": self.lost}
        return {name: round(usd, 6) if self.prices else None for name, usd in figures.items()}

    def left(self):
        return (
            float("inf") if self.limit is None else self.limit - self.spent - self.lost - self.out
        )

    def count(self, journal):
        """Take over what the journal says that this model has cost so far. -> mean tokens per answer, or the assumed."""
        mine = [r for r in journal.records.values() if r.get("model") == self.model]
        self.spent, self.lost = (
            sum(r.get("usd") or 0.0 for r in mine),
            sum(r.get("lost") or 0.0 for r in mine),
        )
        lengths = [r["usage"]["completion_tokens"] for r in mine if r.get("usage")]
        return sum(lengths) / len(lengths) if lengths else OUT

    def approve(self, tasks, journal, commercial):
        """Print the estimate. InputError where it would cost money that nobody has agreed to, or might (a commercial server)."""
        tasks = [task for task in tasks if not task.settled]
        mean_out = self.count(journal)
        n_in = sum(estimate_tokens(task.request.prompt) for task in tasks)
        n_out = sum(min(mean_out, task.sampling.max_new_tokens) for task in tasks)
        estimate = f"estimate: {len(tasks):,} requests, about {n_in:,} tokens in, {n_out:,.0f} out"
        if self.prices:
            usd = (n_in * self.prices[0] + n_out * self.prices[2]) / 1e6
            worst = sum(map(self.worst, tasks))
            self.projected = self.spent + usd if self.projected is None else self.projected
            estimate += (
                f": {format_usd(usd)} live, {format_usd(usd * BATCH)} by the Batch API, at most {format_usd(worst)} live ({self.model}, "
                f"${self.prices[0]:g} in and ${self.prices[2]:g} out per million tokens, prices of {AS_OF} or as given)"
            )
        if self.spent or self.lost:
            perhaps = (
                f" and perhaps {format_usd(self.lost)} for requests that failed"
                if self.lost
                else ""
            )
            estimate += f"; {format_usd(self.spent)} were spent before{perhaps}"
        print(estimate)
        agreed = self.yes or self.limit is not None
        if self.prices and any(self.prices) and not agreed:
            raise InputError(
                f"{self.model} costs money, and nothing was sent yet.\nGive --budget USD (a hard stop) or --yes (no limit)."
            )
        if not self.prices and commercial and not agreed:
            raise InputError(
                f"the price of {self.model!r} is not in the kit's table, and nothing was sent yet.\nGive --price-in and "
                "--price-out, USD per million tokens, with --budget; or --yes to go on without any count."
            )
