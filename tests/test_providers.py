"""Twelve providers' manners, each asked by 02 as a user would: nothing paid is lost or paid twice,
nothing thought is learned, and what is refused is said in the server's own words.
"""

import shutil
from dataclasses import dataclass
from datetime import date, timedelta

import pytest

from common.core import verdicts
from common.core.manifests import file_label
from common.generate.client import Client
from tests.faults import good_text
from tests.providers import (
    KEY,
    LONG,
    MARK,
    PROVIDERS,
    THINKS_BESIDE,
    THINKS_IN_TEXT,
    ProviderServer,
    number_of,
)
from tests.runs import must_run, rows, run_script, write_rows

COMMAND = ["02_critique.py", "--name", "x"]
N = 60
EXTRAS = {0: "poison", 31: "poison", 5: "very " * (LONG // 5), 12: "crash"}  # in the questions


def question(number):
    return f"What is {number} + 1? {EXTRAS.get(number, '')}".strip()


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A run `x` of 60 responses, which 01 has read from a file. -> its folder of runs"""
    folder = tmp_path_factory.mktemp("sampled")
    source = [
        {"question": question(i), "response": f"It is \\boxed{{{i + i % 3}}}.", "gold": str(i + 1)}
        for i in range(N)
    ]
    write_rows(folder / "own.jsonl", source)
    must_run(folder, "01_sample.py", "--name", "x", "--preset", "paper", "--source", "own.jsonl")
    return folder / "runs"


@pytest.fixture
def folder(sampled, tmp_path):
    shutil.copytree(sampled, tmp_path / "runs")
    return tmp_path


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    """Give up after seconds, not minutes; two tries a request."""
    start = Client.__init__

    def start_impatient(self, *arguments, **options):
        start(self, *arguments, **options)
        self.patience = 8

    monkeypatch.setattr(Client, "__init__", start_impatient)
    monkeypatch.setattr(Client, "tries", 2)


def ask(folder, server, *flags, model=None, key=KEY):
    """Run 02 inside this process, and return its CompletedProcess."""
    named = ["--model", model or server.provider.model, "--base-url", server.url]
    named += ["--budget", "inf"]  # some of the models have a price
    return run_script(folder, *COMMAND, *named, *flags, OPENAI_API_KEY=key)


def printed(done):
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text[-3000:]
    assert KEY not in text
    return text


def rows_of(folder, stage, server):
    path = folder / "runs" / "x" / stage / f"{file_label(server.provider.model)}.jsonl"
    return {number_of(row["question"]): row for row in rows(path)} if path.exists() else {}


def journal_of(folder):
    path = folder / "runs" / "x" / "02_journal.jsonl"
    return rows(path) if path.exists() else []


def answers_of(server):
    """Return {row: the critique that the server gave, without what it thought}."""
    return {number_of(entry["prompt"]): good_text(entry["body"]) for entry in server.asked}


# --- what goes well -------------------------------------------------------------------------------


def assert_critiques(folder, server):
    """Each row that can be answered has the server's text, verdict and usage."""
    critiques, texts = rows_of(folder, "02_critiques", server), answers_of(server)
    assert set(critiques) == set(range(N)) - set(server.provider.row_refusals)
    for number, row in critiques.items():
        verdict = verdicts.parse_verdict(texts[number])
        assert row["verdict"] == verdict
        assert row["critique"] == verdicts.with_conclusion(texts[number], verdict)
    reads_usage = server.provider.usage(4, 2) is not None
    tokens = [(row["usage"] or {}).get("completion_tokens") for row in critiques.values()]
    assert all(isinstance(count, int) for count in tokens) == reads_usage


def assert_failures(folder, server):
    """The rows that cannot be answered say why in the server's words, and were asked little."""
    refusals = server.provider.row_refusals
    failed = rows_of(folder, "02_failed", server)
    assert set(failed) == set(refusals)
    for number, row in failed.items():
        # The words end where a number of the request is filled in.
        assert refusals[number].message.split("{")[0] in row["reason"]
    asked = [number_of(entry["prompt"]) for entry in server.asked if entry["fault"] != "loading"]
    assert all(asked.count(number) <= 8 for number in refusals)


def assert_paid_once(folder, server):
    """Nothing was paid twice, lost, or counted as perhaps paid."""
    refusals = server.provider.row_refusals
    assert server.stats()["paid_twice"] == 0
    assert server.paid() == N - len(refusals) + bool(server.provider.only_thinking)
    assert not [record for record in journal_of(folder) if "lost" in record]


def assert_raw_is_kept(folder, server):
    """The journal has what was thought in the text, and how long it was beside the text."""
    answers = [record for record in journal_of(folder) if "text" in record]
    in_text = [record for record in answers if MARK in record["text"]]
    beside = [record for record in answers if (record.get("reasoning") or 0) >= len(MARK)]
    styles = set(server.provider.messages)
    assert bool(in_text) == bool(styles & THINKS_IN_TEXT)
    assert bool(beside) == bool(styles & THINKS_BESIDE)


def assert_learns_no_thought(folder, tokenizer):
    """03 trains on all critiques, and on nothing that was thought."""
    must_run(folder, "03_build.py", "--name", "x", "--tokenizer", tokenizer)
    data = folder / "runs" / "x" / "03_data"
    critiques = sum(len(rows(path)) for path in data.parent.glob("02_critiques/*.jsonl"))
    assert len(rows(data / "cft.jsonl")) == critiques
    for path in data.glob("*.jsonl"):
        text = path.read_text(encoding="utf-8")
        assert not [sign for sign in (MARK, "think>", "<|channel|>") if sign in text]


@pytest.mark.parametrize("name", PROVIDERS)
def test_sixty_rows(name, folder, tiny_model):
    """What can be answered is, once; a second start of the same command asks for nothing good."""
    with ProviderServer(name) as server:
        refusals = server.provider.row_refusals
        done = ask(folder, server, *server.provider.flags)
        text = printed(done)
        assert done.returncode == (3 if refusals else 0), text[-3000:]
        assert_critiques(folder, server)
        assert_failures(folder, server)
        assert_paid_once(folder, server)
        assert_raw_is_kept(folder, server)
        assert server.n_listed <= 1

        before = rows_of(folder, "02_critiques", server)
        n_asked = len(server.asked)
        again = ask(folder, server, *server.provider.flags)
        assert again.returncode == done.returncode, printed(again)[-3000:]
        assert rows_of(folder, "02_critiques", server) == before
        assert_paid_once(folder, server)
        assert len(server.asked) - n_asked <= 8 * len(refusals)
    assert_learns_no_thought(folder, tiny_model)


def test_an_effort_of_none_takes_a_temperature(folder):
    """A model of OpenAI that does not reason is asked as any other, with max_completion_tokens."""
    with ProviderServer("openai") as server:
        done = ask(folder, server, "--reasoning-effort", "none", "--limit", 4)
        assert done.returncode == 3, printed(done)[-3000:]
        body = server.asked[0]["body"]
        assert body["temperature"] == 0.3 and body["reasoning_effort"] == "none"
        assert body["max_completion_tokens"] == 3200 and "max_tokens" not in body


# --- dates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model, days, is_told", [("gpt-soon", 30, True), ("gpt-late", 300, False)])
def test_a_shutdown_is_told_in_time(model, days, is_told, folder):
    """GET /v1/models names the day, which is said before the first request is refused or paid."""
    with ProviderServer("openai") as server:
        done = ask(folder, server, "--reasoning-effort", "low", "--limit", 4, model=model)
        day = date.today() + timedelta(days=days)
        assert (f"{day.day} {day:%B %Y}" in printed(done)) == is_told
        assert server.n_listed == 1


# --- what no request gets past --------------------------------------------------------------------


@dataclass
class Wrong:
    """A setting or an account with which no row is answered."""

    provider: str
    status: int
    words: str  # the server's own
    fix: str  # the flag, or the variable, that the user is told
    flags: tuple = ()  # beside those of the provider
    is_bare: bool = False  # without those of the provider
    model: str | None = None
    key: str = KEY
    broke: bool = False

    @property
    def label(self):
        what = {"key": self.key != KEY, "broke": self.broke, "model": bool(self.model)}
        named = [name for name, applies in what.items() if applies]
        return "-".join([self.provider, *named, *[f for f in self.flags if f[:2] == "--"]])


EXTRA = "--extra-body"
EXTREME = ("--reasoning-effort", "extreme")
NO_THINKING = (EXTRA, '{"enable_thinking": false}')
SETTINGS = [
    Wrong("openai", 2, "Use 'max_completion_tokens'", "--reasoning-effort", is_bare=True),
    Wrong("anthropic", 2, "cannot both be specified", "--top-p none", is_bare=True),
    Wrong("dashscope", 2, "must be set to false", EXTRA, is_bare=True),
    Wrong("openai", 2, "'extreme'", "--reasoning-effort", EXTREME, is_bare=True),
    Wrong("mistral", 2, "Extra inputs are not permitted", EXTRA, NO_THINKING),
    Wrong("mistral", 2, "Extra inputs", "--reasoning-effort", ("--reasoning-effort", "low")),
    Wrong("tgi", 2, "must be > 0.0 and < 1.0", "--top-p", ("--top-p", "0"), is_bare=True),
    Wrong("tgi", 2, "must be strictly positive", "--temperature", ("--temperature", "0")),
    Wrong("vllm-parser", 2, "is too large", "--max-new-tokens", ("--max-new-tokens", "40000")),
    Wrong("vllm", 2, "a valid dictionary", EXTRA, (EXTRA, '{"chat_template_kwargs": 5}')),
    Wrong("llamacpp", 2, "Failed to parse grammar", EXTRA, (EXTRA, '{"grammar": "root"}')),
    Wrong("transformers", 2, "Unexpected keys", EXTRA, NO_THINKING),
    Wrong(
        "transformers", 2, "Unsupported fields", "--reasoning-effort", ("--reasoning-effort", "low")
    ),
]
KEYS = [
    Wrong(name, 4, provider.wrong_key.message.split("{")[0], "OPENAI_API_KEY", key="sk-no")
    for name, provider in PROVIDERS.items()
    if provider.wrong_key
]
MODELS = [
    Wrong(name, 2, provider.wrong_model.message.format(model="none"), "--model", model="none")
    for name, provider in PROVIDERS.items()
    if provider.wrong_model
]
ACCOUNTS = [
    Wrong(name, 4, provider.broke.message.split("{")[0], "--base-url", broke=True)
    for name, provider in PROVIDERS.items()
    if provider.broke
]


@pytest.mark.parametrize(
    "wrong", SETTINGS + KEYS + MODELS + ACCOUNTS, ids=lambda wrong: wrong.label
)
def test_what_is_wrong_for_all_ends_at_once(wrong, folder):
    """A few requests, two at a time; nothing is paid, and no row is blamed for it."""
    with ProviderServer(wrong.provider, wrong.broke, loads=False) as server:
        flags = () if wrong.is_bare else server.provider.flags
        flags = (*flags, *wrong.flags, "--concurrency", 2)
        done = ask(folder, server, *flags, model=wrong.model, key=wrong.key)
        text = printed(done)
        assert done.returncode == wrong.status, text[-3000:]
        assert wrong.words in text and wrong.fix in text, text[-3000:]
        assert 1 <= len(server.asked) <= 4 and server.paid() == 0
    assert not [record for record in journal_of(folder) if "error" in record]
    run = folder / "runs" / "x"
    assert not list(run.glob("02_failed/*")) and not list(run.glob("02_critiques/*"))


def test_two_moderated_rows_come_first(folder):
    """Both are refused in the same words before any answer: they are still rows."""
    (path,) = (folder / "runs" / "x" / "01_responses").glob("*.jsonl")
    write_rows(path, sorted(rows(path), key=lambda row: "poison" not in row["question"]))
    with ProviderServer("azure") as server:
        done = ask(folder, server, "--concurrency", 1, "--limit", 6)
        assert done.returncode == 3, printed(done)[-3000:]
        assert set(rows_of(folder, "02_failed", server)) == {0, 31}
        assert len(rows_of(folder, "02_critiques", server)) == 4
