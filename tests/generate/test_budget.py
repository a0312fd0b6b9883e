"""What answers cost.

Hand-derived USD, the estimate, and a budget that the server's own count never passes.
"""

import math
import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from common.core.errors import InputError, Stopped
from common.generate.budget import CHARACTERS_PER_TOKEN, TOKENS_PER_ANSWER, Budget, estimate_tokens
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, Task, complete
from common.teacher import critiques
from tests.faults import ANSWERS, FaultServer, prompt_of


def tasks(prompts, tokens=100):
    return [Task(Request(prompt), Sampling(max_new_tokens=tokens), "m") for prompt in prompts]


def usage(read, written, cached=None):
    return {"prompt_tokens": read, "completion_tokens": written} | (
        {} if cached is None else {"cached_tokens": cached}
    )


# --- prices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, used, usd",
    [  # by hand: tokens times USD per million
        ("gpt-4o-mini", usage(1_000_000, 0), 0.15),
        ("gpt-4o-mini", usage(0, 1_000_000), 0.60),
        ("gpt-4o", usage(1000, 500), 0.0025 + 0.005),
        (
            "gpt-4o-2024-11-20",
            usage(1000, 500),
            0.0025 + 0.005,
        ),  # a dated name costs what the model does
        ("gpt-4o-2024-05-13", usage(1000, 500), None),  # unless it is shut down by itself
        ("gpt-6-luna", usage(1000, 500), 0.0001 + 0.00025),
        ("gpt-6-luna", usage(1000, 0, 200) | {"cache_write_tokens": 700}, 1e-5 + 2e-6 + 8.75e-5),
        ("gpt-6-luna", usage(10, 0, 9) | {"cache_write_tokens": 99}, 9 * 0.01e-6 + 0.125e-6),
        ("gpt-4o", usage(1000, 500, 600), 400 * 2.5e-6 + 600 * 1.25e-6 + 500 * 10e-6),
        ("gpt-4.1", usage(1000, 0, 1000), 0.0005),
        (
            "gpt-4o",
            usage(10, 0, 1000),
            10 * 1.25e-6,
        ),  # more cached than read: never less than nothing
        ("gpt-4o", None, None),
        ("somebodys-model", usage(5, 5), None),
        ("gpt-4o-2024", usage(5, 5), None),
    ],
)
def test_the_cost_of_an_answer(model, used, usd):
    """Cached tokens at their own price, a write to the cache at its own; a batch at half."""
    budget = Budget(model)
    assert budget.cost(used) == (usd if usd is None else pytest.approx(usd, rel=1e-12))
    assert budget.cost(used, batch=True) == (
        usd if usd is None else pytest.approx(usd / 2, rel=1e-12)
    )


def test_prices_that_are_given_win():
    """--price-in holds for cached tokens too.

    Nobody has said what these cost. 0 and 0 is a price.
    """
    assert Budget("gpt-4o", 1, 2).cost(usage(1_000_000, 1_000_000, 500_000)) == pytest.approx(3)
    assert Budget("own", 0, 0, limit=0).cost(usage(10**6, 10**6)) == 0


@pytest.mark.parametrize(
    "arguments, mend",
    [
        (dict(price_in=1), "--price-out"),
        (dict(price_out=0), "--price-in"),
        (dict(limit=5), "--price-in"),
    ],
)
def test_a_price_by_halves_is_refused(arguments, mend):
    """A budget that nothing is counted against would stop nothing."""
    with pytest.raises(InputError, match=mend):
        Budget("somebodys-model", **arguments)


@pytest.mark.parametrize("power", [15, 400])
def test_a_usage_beyond_belief_is_no_traceback(tmp_path, monkeypatch, power):
    """What a server says of its tokens is a stranger's number.

    Taken at its word, or as no usage at all, at the worst case.
    """
    monkeypatch.setitem(ANSWERS, "no-usage", lambda answer: answer | {"usage": usage(10**power, 1)})
    with (
        FaultServer(fault=lambda body, nth: "no-usage") as server,
        Journal(tmp_path / "j.jsonl") as journal,
    ):
        engine = Client("m", server.url, 2, budget=Budget("m", 1, 1, limit=1))
        engine.tries = 2
        (got,) = complete(engine, [Request("a")], Sampling(max_new_tokens=5), journal)
        assert "error" not in got and len(server.asked) == 1 and engine.budget.spent > 0


# --- the worst case -------------------------------------------------------------------------------


def most_tokens():
    """A tokenizer that makes one token of each byte, which no byte-level one (GPT-4o's, Qwen's)
    exceeds.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    return tokenizer


HOSTILE = [
    "",
    "a",
    "plain English words " * 50,
    "\\frac{x^{2}}{y_{1}}" * 40,
    "数学" * 500,
    "🧑‍🧑‍🧒‍🧒" * 100,
    "\u0300" * 999,
    "\x00" * 300,
    "é" * 100 + "\ufeff" * 100,
    "﷽" * 200,
    "\U0010ffff" * 100,
    "\n" * 1000,
    "<|im_end|>" * 200,
]


@pytest.mark.parametrize("prompt", HOSTILE, ids=range(len(HOSTILE)))
def test_the_worst_case_is_an_upper_bound(prompt):
    """Emoji and combining marks are several tokens a character.

    An estimate by characters would pass the budget.
    """
    n = len(most_tokens().encode(prompt).ids)
    for form in (prompt, [{"role": "system", "content": ""}, {"role": "user", "content": prompt}]):
        (task,) = tasks([form], tokens=100)
        assert Budget("m", 1e6, 0).worst(task) >= n + 20  # and the chat template's own tokens
        assert Budget("m", 0, 1e6).worst(task) == pytest.approx(100)


def test_the_worst_case_of_a_prompt_is_that_all_of_it_is_written_to_the_cache():
    (task,) = tasks(["x" * 936], tokens=0)
    assert Budget("gpt-6-luna").worst(task) == pytest.approx(1000 * 0.125e-6)


def test_a_lone_surrogate_has_a_price_too():
    """Responses come from the web; JSON can say what UTF-8 cannot."""
    (task,) = tasks(["\ud800" * 10])
    assert 30 <= Budget("m", 1e6, 0).worst(task) < 200 and Budget("own").worst(task) == 0


# --- the estimate ---------------------------------------------------------------------------------


def approve(capsys, tmp_path, budget, prompts, tokens=100, records=(), known=False):
    with Journal(tmp_path / "j.jsonl") as journal:
        for record in records:
            journal.append(record)
        try:
            budget.approve(tasks(prompts, tokens), journal, known)
        finally:
            printed = capsys.readouterr().out
    return printed


def test_the_figures_of_the_estimate(capsys, tmp_path):
    """By hand.

    300 characters at 3 a token and 8 for the template are 108 tokens; 10 prompts, $1 and $2 per
    million.
    """
    printed = approve(capsys, tmp_path, Budget("m", 1, 2, limit=5), ["x" * 300] * 10, tokens=1000)
    assert (
        "10 requests, about 1,080 tokens in, 3,300 out" in printed
        and CHARACTERS_PER_TOKEN == 3
        and TOKENS_PER_ANSWER == 330
    )
    usd = (1080 * 1 + 3300 * 2) / 1e6
    worst = 10 * ((300 + 64) * 1 + 1000 * 2) / 1e6
    assert f"${usd:.4f} live, ${usd / 2:.4f} by the Batch API, at most ${worst:.4f} live" in printed
    assert (
        estimate_tokens(
            [{"role": "system", "content": "x" * 150}, {"role": "user", "content": "x" * 150}]
        )
        == 108
    )


def test_the_estimate_learns_from_what_was_answered(capsys, tmp_path):
    """Of this model alone.

    The mean of 50 and 150 is 100. No more is expected than an answer may have.
    """
    records = [{"key": f"{n}", "model": "m", "usage": usage(5, n), "usd": 0.25} for n in (50, 150)]
    records += [
        {"key": "o", "model": "other", "usage": usage(5, 10**6), "usd": 99.0},
        {"key": "e", "error": "400"},
    ]
    budget = Budget("m", 1, 2, limit=5)
    printed = approve(capsys, tmp_path, budget, ["x"] * 3, tokens=1000, records=records)
    assert (
        "300 out" in printed
        and "spent before: $0.5000" in printed
        and budget.spent == 0.5
        and budget.remaining() == 4.5
    )
    assert "120 out" in approve(capsys, tmp_path, budget, ["x"] * 3, tokens=40)


@pytest.mark.parametrize("limit", [None, math.inf, 5])
def test_a_model_that_is_shut_down_is_not_asked_without_a_word(capsys, tmp_path, limit):
    """Whether the run then ends or goes on: o1 has no price any more, gpt-4o-mini still has."""
    for model, day in (("o1", "23 October 2026"), ("gpt-4o-mini", "14 January 2027")):
        said = ""
        with Journal(tmp_path / "j.jsonl") as journal:
            try:
                Budget(model, limit=limit).approve(tasks(["x"]), journal, True)
            except InputError as error:
                said = str(error)
        assert day in said + capsys.readouterr().out


@pytest.mark.parametrize(
    "budget, known, mend",
    [
        (lambda: Budget("gpt-4o"), False, "--budget USD"),
        (lambda: Budget("gpt-4o"), True, "--budget USD"),
        (lambda: Budget("own", 0, 1e-9), False, "--budget inf"),
        (lambda: Budget("gpt-9"), True, "--price-in"),
        (lambda: Budget("gpt-4o", limit=math.inf), True, None),
        (lambda: Budget("gpt-4o", limit=0), True, None),
        (lambda: Budget("own", 0, 0), False, None),
        (lambda: Budget("gpt-9"), False, None),
        (lambda: Budget("gpt-9", limit=math.inf), True, None),
    ],
)
def test_who_has_to_agree_before_anything_is_sent(capsys, tmp_path, budget, known, mend):
    """The estimate is printed first, also where it then stops."""
    try:
        approve(capsys, tmp_path, budget(), ["x"], known=known)
        assert mend is None
    except InputError as error:
        assert (
            mend
            and mend in str(error)
            and "nothing was sent yet" in str(error)
            and error.status == 2
        )


# --- the hard stop --------------------------------------------------------------------------------

# tokens of each answer below: all that it may have, so that the worst case is what it costs
WRITTEN = 100


def text(body):
    return ".\n\nConclusion: right [END]".rjust(4 * WRITTEN, "x")


def server_usd(server, price_in, price_out):
    """What the server would write on the bill."""
    paid = [entry for entry in server.asked if entry["paid"]]
    return (
        sum(
            len(e["prompt"]) // 4 * price_in + len(server.text(e["body"])) // 4 * price_out
            for e in paid
        )
        / 1e6
    )


def ask(
    server,
    journal,
    n=40,
    budget=4.0,
    price_in=0.0,
    price_out=1e6 / WRITTEN,
    concurrency=8,
    timeout=300,
    tries=2,
    retries=0,
):
    """Ask n prompts, of which each answer costs $1 unless another price is given.

    -> (records, how it ended)
    """
    requests = [
        Request(
            [{"role": "user", "content": f"prompt {i} {'é' * (i % 7)}"}],
            check=critiques.check_critique,
        )
        for i in range(n)
    ]
    engine = Client("m", server.url, concurrency, timeout, Budget("m", price_in, price_out, budget))
    engine.tries = tries
    with Journal(journal) as records:
        try:
            return complete(
                engine, requests, Sampling(max_new_tokens=WRITTEN), records, retries=retries
            ), None
        except Stopped as end:
            assert end.status == 4 and "--budget" in str(end) and "larger --budget" in str(end)
            return list(records.records.values()), end


def test_a_budget_buys_what_it_can_and_no_more(tmp_path):
    """$4 buy 4 answers at $1.

    The same budget again buys nothing, $6 buy 2 more: what is resumed is counted once.
    """
    with FaultServer(text=text, latency=0.05) as server:
        for budget, paid in ((4.0, 4), (4.0, 4), (6.5, 6), (0, 6)):
            answers, end = ask(server, tmp_path / "j.jsonl", n=12, budget=budget)
            assert end and server.paid() == paid and sum("text" in a for a in answers) == paid
        answers, end = ask(server, tmp_path / "j.jsonl", n=12, budget=12.0)
        assert end is None and server.paid() == 12 and not any("error" in a for a in answers)
        answers, end = ask(
            server, tmp_path / "j.jsonl", n=12, budget=0
        )  # nothing is left to ask: no budget is needed
        assert end is None and server.stats()["asked"] == 12


LOSSES = {  # how an answer that was paid does not arrive
    "a reset": (dict(fault=lambda body, nth: "reset-inside"), {}),
    "broken JSON": (dict(fault=lambda body, nth: "broken-json"), {}),
    "a timeout": (dict(), dict(timeout=0.4)),
    "no verdict": (dict(fault=lambda body, nth: "verdictless"), dict(retries=3)),
    "no usage": (dict(fault=lambda body, nth: "no-usage"), {}),
    "some of each": (
        dict(
            faults=dict.fromkeys(
                ["reset-inside", "broken-json", "reset-before", "no-usage", "503", "cut"], 0.1
            )
        ),
        dict(retries=3),
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_the_server_counts_never_passes_the_budget(tmp_path, loss):
    """An answer that was paid and lost has cost its price all the same, whoever waits for the room
    it had.
    """
    options, settings = LOSSES[loss]
    with FaultServer(text=text, **options) as server:
        if loss == "a timeout":
            server.pause()  # answers are generated, paid and held back
        _, end = ask(server, tmp_path / "j.jsonl", **settings)
        assert server_usd(server, 0, 1e6 / WRITTEN) <= 4.0 + 1e-9
        assert end and server.paid() >= 1
        server.resume()


def test_what_was_lost_is_counted_over_all_starts(tmp_path):
    """--budget is what the teacher may cost in this run, over all starts.

    A server that loses each answer is paid once.
    """
    with FaultServer(text=text, fault=lambda body, nth: "reset-inside") as server:
        for _ in range(3):
            ask(server, tmp_path / "j.jsonl", n=6)
        assert server_usd(server, 0, 1e6 / WRITTEN) <= 4.0 + 1e-9


def test_a_budget_holds_for_any_prices_and_faults(tmp_path):
    """Twelve runs with drawn prices, budgets and faults, each stopped and started again with half
    as much more.
    """

    def one(seed):
        rng = random.Random(seed)
        price_in, price_out, n = rng.uniform(0, 2e4), rng.uniform(0, 2e4), 20
        each = (70 * price_in + WRITTEN * price_out) / 1e6
        names = ("reset-before", "broken-json", "no-choices", "500", "verdictless", "empty")
        faults = {name: rng.uniform(0, 0.1) for name in names}
        with FaultServer(
            text=text, faults=faults, seed=seed, latency=lambda body: rng.uniform(0, 0.05)
        ) as server:
            for budget in (each * n * 0.2, each * n * 0.3):
                ask(
                    server,
                    tmp_path / f"{seed}.jsonl",
                    n,
                    budget,
                    price_in,
                    price_out,
                    rng.choice([1, 3, 20]),
                )
                yield budget, server_usd(server, price_in, price_out)

    with ThreadPoolExecutor(4) as threads:
        for runs in threads.map(lambda seed: list(one(seed)), range(12)):
            assert all(cost <= budget + 1e-9 for budget, cost in runs) and runs[1][1] > 0


def test_the_message_says_what_was_spent_and_lost(tmp_path):
    def fault(body, nth):
        return None if prompt_of(body).startswith("prompt 0") else "reset-inside"

    with FaultServer(text=text, fault=fault) as server:
        _, end = ask(server, tmp_path / "j.jsonl", n=3, budget=2.0, concurrency=1)
    assert re.search(r"--budget 2 .*\$1\.00, perhaps \$1\.00 more", str(end))
