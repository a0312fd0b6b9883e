"""Prompts -> texts, through a journal.

An engine (`local`, `client`, `batch`) only generates; what counts as an answer is decided here.
Under torchrun each process generates its stride, and all of them get all records.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from tqdm import tqdm

from common.core.errors import InputError, Stopped
from common.core.files import content_id
from common.core.tables import count
from common.core.thinking import without_thinking
from common.train import distributed

# Too many bad ones among the first answers end a run: a wrong model must not burn a budget.
N_FIRST = 200


@dataclass(frozen=True)
class Sampling:
    """How to draw a text. temperature 0 is greedy; max_new_tokens counts tokens.

    Generation ends before the first of `stop`. With a seed the same prompt and sample index draw
    the same text again, if the engine can. temperature and top_p None are not sent: reasoning
    models refuse them. extra_body: further fields of a server's requests.
    """

    temperature: float | None = 0.0
    top_p: float | None = 1.0
    max_new_tokens: int = 2048
    stop: list = field(default_factory=list)
    seed: int | None = None
    extra_body: dict | None = None

    def identity(self) -> dict:
        """Return all that decides the text; of journals without extra_body the keys stay."""
        settings = dict(vars(self))
        if not self.extra_body:
            del settings["extra_body"]
        return settings


@dataclass(frozen=True, slots=True)  # slots: there are 50,000 of them
class Request:
    """A prompt (raw text, or messages); `sample` tells the samples of one prompt apart.

    check(text) returns why a text cannot be used, or None. Without a check whatever the model
    writes is the result (01, 05). With one (02) an answer must also have finished and hold text
    besides thinking, or it is asked for again; check gets the text without thinking.
    must_finish: without a check too, an answer that neither stopped nor ran into its limit (a
    server's abort, a content filter) is no result (05).
    """

    prompt: str | list
    sample: int = 0
    check: Callable | None = None
    must_finish: bool = False

    @property
    def is_raw(self) -> bool:
        return isinstance(self.prompt, str)


class State(Enum):
    """Where a task is."""

    OPEN = auto()  # no answer yet
    BAD = auto()  # its answer cannot be used; another attempt may help
    TRUNCATED = auto()  # it was cut, or is all thinking; an attempt with more tokens may help
    GOOD = auto()
    FAILED = auto()  # no further attempt helps, or none is left


def cut_at_stop(text: str, stop: list) -> tuple[str, bool]:
    """Return the text before the first stop string, and whether there was one."""
    positions = [text.find(string) for string in stop if string in text]
    return (text[: min(positions)], True) if positions else (text, False)


# Parts of the words by which servers say how a text ended.
LENGTH = "length|maxtokens|maxoutputtokens"
FILTERED = (
    "filter|safety|recitation|prohibited|blocklist|spii|refus|sensitive|guardrail|moderat|toxic"
)
UNFINISHED = "tool|function|malformed|pause|abort|cancel|error|insufficient|interrupt|timeout"


def read_finish(word: str | None) -> str | None:
    """Return "stop", "length" or "content_filter" for how a server says that a text ended.

    The list of what is not finished is closed, the words for an end are not ("eos", "end_turn",
    "STOP", or nothing at all). An unfinished one is returned as it is.
    """
    plain = re.sub("[^a-z]", "", (word or "").lower())
    if re.search(FILTERED, plain):
        return "content_filter"
    if re.search(UNFINISHED, plain):
        return word
    if re.search(LENGTH, plain):
        return "length"
    return "stop"


class Task:
    """A request on its way.

    attempt, sampling, key: of the next attempt (of the one after the last, once settled). answer:
    the newest; reason: why it cannot be used. enlarged: it was cut and has 2.5 times the tokens.
    """

    def __init__(self, request, sampling, identity):
        self.request, self.sampling, self.identity = request, sampling, identity
        self.attempt = self.last_attempt = 0
        self.state, self.answer, self.reason = State.OPEN, {}, None
        self.enlarged = False
        self._set_key()

    @property
    def settled(self) -> bool:
        return self.state in (State.GOOD, State.FAILED)

    def _set_key(self):
        """Name the attempt by all that decides its text. Journals that were paid for hold it."""
        prompt, sample = self.request.prompt, self.request.sample
        settings = self.sampling.identity()
        self.key = content_id(self.identity, prompt, settings, sample, self.attempt)

    def replay(self, journal, retries: int, retry_failed: bool) -> dict:
        """Take what the journal holds of this request, attempt by attempt.

        Return {key: why the answer cannot be used, None if it can} of the first one.
        """
        first_reason = {}
        while True:
            answer = journal.records.get(self.key, {})
            if "text" not in answer and (retry_failed or "error" not in answer):
                break
            self._take(answer)
            first_reason = first_reason or {self.key: self.reason}
            if self.state is State.GOOD:
                return first_reason
            self._advance()  # a failure, too: an earlier --retry-failed may have gone on from it
        self.last_attempt = retries
        if retry_failed:
            self.last_attempt += self.attempt
            self.state = State.OPEN
        elif self.attempt > retries:
            self.state = State.FAILED
        return first_reason

    def settle(self, answer):
        """Note a new answer; the task is then settled, or at its next attempt."""
        self._take(answer)
        if self.settled:
            return
        if self.attempt >= self.last_attempt:
            self.state = State.FAILED
        else:
            self._advance()

    def _advance(self):
        if self.state is State.TRUNCATED:
            n_tokens = self.sampling.max_new_tokens * 5 // 2
            self.sampling = replace(self.sampling, max_new_tokens=n_tokens)
            self.enlarged = True
        self.attempt += 1
        self._set_key()

    def _take(self, answer):
        self.answer = answer
        self.state, self.reason = self._judge_answer(answer)

    def _judge_answer(self, answer):
        """Return the state after an answer, and why it cannot be used (None: it can)."""
        if "error" in answer:
            return State.FAILED, answer["error"]
        finish = read_finish(answer.get("finish_reason"))
        if self.request.check:
            return self._check_text(answer, finish)
        if self.request.must_finish and finish not in ("stop", "length"):
            return State.BAD, f"not finished (finish_reason {finish})"
        return State.GOOD, None

    def _check_text(self, answer, finish):
        if answer.get("refusal") or finish == "content_filter":
            return State.FAILED, f"refused: {answer.get('refusal') or 'content filter'}"[:300]
        text = without_thinking(answer["text"])
        has_thought = answer["text"].strip() or answer.get("reasoning")
        only_thinking = has_thought and not text.strip()
        if only_thinking or finish == "length":
            # More room once; what needs still more is no brief critique.
            state = State.FAILED if self.enlarged else State.TRUNCATED
            cut = f"cut at {self.sampling.max_new_tokens} tokens"
            return state, "only thinking, raise --max-new-tokens" if only_thinking else cut
        if finish != "stop":
            return State.BAD, f"not finished (finish_reason {finish})"
        reason = self.request.check(text) if text.strip() else "empty"
        return (State.BAD if reason else State.GOOD), reason

    def record(self) -> dict:
        """Return the last answer {"key", "text", ...}, with "error" if it cannot be used."""
        if self.reason:
            return self.answer | {"error": self.reason}
        return self.answer


class _Recorder:
    """The journal's side of a run: records each answer, and ends it if too many are bad."""

    def __init__(self, tasks, journal, retries, retry_failed, bad_share):
        self.tasks, self.journal = tasks, journal
        self.max_bad = bad_share * N_FIRST
        reasons = {}  # of the first answer to each row in the journal
        for task in tasks:
            reasons |= task.replay(journal, retries, retry_failed)
        self.answered = {task for task in tasks if task.attempt and not retry_failed}
        in_order = [reasons[key] for key in journal.records if key in reasons]
        # What failed before is meant to be asked again with --retry-failed: it counts no more.
        self.first_reasons = [] if retry_failed else in_order[:N_FIRST]
        self.counts = Counter(task.state for task in tasks if task.settled)

    def deliver(self, task, answer):
        """Record an answer before the engine goes on, or {"lost"}: USD that brought none."""
        if "lost" in answer:
            self.journal.append({"key": f"lost {len(self.journal.records)}", **answer})
            return
        passing = answer.pop("passing", False)  # it may be answered next time, so it is not kept
        answer = {"key": task.key, **answer}
        if not passing:
            self.journal.append(answer)
        task.settle(answer)
        self.counts[task.state] += 1
        if task.settled:  # the main process shows its own share for all
            self.bar.update(min(distributed.world_size(), self.bar.total - self.bar.n))
        if len(self.first_reasons) < N_FIRST and task not in self.answered:
            self.first_reasons.append(task.reason)
        self.answered.add(task)
        self.refuse_bad()

    def refuse_bad(self):
        """Raise Stopped if too many of the first answers cannot be used."""
        bad, n_first = [reason for reason in self.first_reasons if reason], len(self.first_reasons)
        if len(bad) > self.max_bad:
            raise Stopped(
                f"the first answers to {len(bad)} of {count(n_first, 'row')} cannot be "
                f"used; the newest: {bad[-1]}\nLook at {self.journal.path}: is it the right model, "
                "template, --max-new-tokens? After a fix on the server add --retry-failed. "
                "To go on all the same: --max-bad-share 1",
                4,
            )

    def generate(self, engine, label):
        """Let the engine ask for what is not settled, under a progress bar."""
        is_terminal = sys.stderr.isatty()  # a log gets a line now and then

        def show():
            counts = [f"{state.name.lower()} {n}" for state, n in self.counts.items()]
            status = (", ".join(counts) + engine.status()).removeprefix(", ")
            self.bar.set_postfix_str(status, refresh=is_terminal)
            self.bar.update(0)  # now and then a log gets a line before the first text, too

        with tqdm(
            total=len(self.tasks),
            initial=self.counts.total(),
            desc=label,
            unit="row",
            disable=not distributed.is_main(),
            mininterval=0.1 if is_terminal else 10,
        ) as self.bar:
            engine.generate(self.tasks, self.deliver, show)
            show()


def _tell_other_server(engine, tasks, journal):
    """Say if answers of the journal came from another address than the engine's."""
    servers = {task.answer.get("server") for task in tasks} - {None, engine.server}
    if servers:
        print(
            f"{journal.path} holds answers of {engine.identity} from {', '.join(sorted(servers))}: "
            f"they are kept, and not asked of {engine.server}. To ask anew: --name NEW"
        )


def refuse_greedy(engine, sampling: Sampling):
    """Raise InputError if three draws at temperature 2 are one text.

    Some servers ignore the temperature without a message.
    """
    n_tokens = min(32, sampling.max_new_tokens)
    hot = replace(sampling, temperature=2.0, top_p=1.0, max_new_tokens=n_tokens, stop=[])
    tasks = [Task(Request("Once upon a time", -1 - n), hot, engine.identity) for n in range(3)]
    engine.generate(tasks, lambda task, answer: "lost" in answer or task.settle(answer))
    texts = [task.answer.get("text") for task in tasks]
    if texts[0] and len(set(texts)) == 1:
        raise InputError(
            f"{engine.identity} ignores the temperature: three draws at temperature 2 are the same "
            f"text, {texts[0][:60]!r}.\nSamples of it would all be one greedy answer: "
            "use a server that samples (vLLM), or --temperature 0."
        )


def complete(
    engine,
    requests,
    sampling,
    journal,
    label="",
    retries=0,
    retry_failed=True,
    bad_share=1.0,
    probe=False,
) -> list[dict]:
    """Return one record per request, in order: {"key", "text", "finish_reason", "usage"}.

    A record that cannot be used has "error" besides. What the journal holds is not asked again. A
    bad answer is asked for again up to `retries` times, a cut one once with 2.5 times the tokens.
    retry_failed: ask again for what failed for good in an earlier run. probe: refuse an engine that
    draws the same text again and again at a high temperature, if the sampling has one.

    Raises Stopped if the run ends before the last row, also after more than `bad_share` bad ones
    among the first answers. What was answered is then in the journal.
    """
    by_key, order = {}, []  # equal requests are one task: asked, and paid, once
    for request in requests:
        task = Task(request, sampling, engine.identity)
        order.append(by_key.setdefault(task.key, task))
    tasks = list(by_key.values())
    recorder = _Recorder(tasks, journal, retries, retry_failed, bad_share)
    if getattr(engine, "server", None):
        _tell_other_server(engine, tasks, journal)
    if engine.outstanding() or not all(task.settled for task in tasks):
        recorder.refuse_bad()
        engine.approve(tasks, journal)
        if probe and sampling.temperature:
            refuse_greedy(engine, sampling)
        recorder.generate(engine, label)
    elif tasks:
        print(f"{label}: nothing is asked, {journal.path} holds {count(len(tasks), 'answer')}")
    distributed.barrier()
    journal.read_others()
    for task in tasks:
        if not task.settled:  # another process has asked for it
            task.replay(journal, retries, retry_failed=False)
    return [task.record() for task in order]
