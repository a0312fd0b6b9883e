"""Prompts -> texts, through a journal. An engine (`local`, `server`, `batch`) only generates; what counts is decided here."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from common.core.errors import InputError, Stopped
from common.core.files import content_id

FIRST = 200  # answers among which too many bad ones end a run: a wrong model or template must not burn a budget


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; max_new_tokens counts tokens; generation ends before the first of `stop`.

    With a seed the same prompt and sample index draw the same text again, where the engine can. temperature and top_p
    None are not sent: reasoning models refuse them.
    """

    temperature: float | None = 0.0
    top_p: float | None = 1.0
    max_new_tokens: int = 2048
    stop: list = field(default_factory=list)
    seed: int | None = None


@dataclass(frozen=True, slots=True)  # slots: there are 50,000 of them
class Request:
    """prompt: raw text, or messages. `sample` tells samples of one prompt apart.

    check(text) -> why a text cannot be used, or None. Without a check whatever the model writes is the result (01, 05);
    with one (02) an answer must also have finished and hold text, or it is asked for again. finished: without a check, too,
    what neither stopped nor ran into its limit (a server's abort, a content filter) is no result (05).
    """

    prompt: str | list
    sample: int = 0
    check: Callable | None = None
    finished: bool = False


def cut_at_stop(text, stop):
    """-> (text before the first stop string, whether there was one)."""
    found = [at for s in stop if (at := text.find(s)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


class Task:
    """A request on its way. `key` and `sampling` are those of the attempt that is next (or was the last, once settled);
    `answer` is the newest, `reason` why it cannot be used, `final` whether asking again would gain nothing.
    """

    __slots__ = (
        "request",
        "sampling",
        "identity",
        "attempt",
        "key",
        "last",
        "answer",
        "reason",
        "final",
        "settled",
        "_cut",
        "larger",
    )

    def __init__(self, request, sampling, identity):
        self.request, self.sampling, self.identity, self.attempt = request, sampling, identity, 0
        self.answer, self.reason, self.final, self.settled = None, None, False, False
        self._cut, self.larger = False, False
        self._name()

    def _name(self):
        request = self.request
        self.key = content_id(
            self.identity, request.prompt, vars(self.sampling), request.sample, self.attempt
        )

    def follow(self, journal, retries, retry_failed):
        """Take what the journal holds of this request, attempt by attempt. -> {key: why it was bad (None: good)}"""
        reasons = {}
        while (
            self.key in journal
            and journal[self.key].keys() & {"text", "error"}
            and not (retry_failed and "error" in journal[self.key])
        ):
            self._take(journal[self.key])
            reasons[self.key] = self.reason
            if self.reason is None:
                self.settled = True
                return reasons
            self._advance()  # whatever ended it then: with retry_failed it may have been asked again
        self.last = retries + (self.attempt if retry_failed else 0)
        self.settled = (
            bool(reasons) and not retry_failed and (self.final or self.attempt > self.last)
        )
        return reasons

    def settle(self, answer):
        """Note a new answer; the task is then settled, or at its next attempt."""
        self._take(answer)
        if self.reason is None or self.final or self.attempt >= self.last:
            self.settled = True
        else:
            self._advance()

    def _advance(self):
        if self._cut and not self.larger:
            self.sampling, self.larger = (
                replace(self.sampling, max_new_tokens=self.sampling.max_new_tokens * 5 // 2),
                True,
            )
        self.attempt += 1
        self._name()

    def _take(self, answer):
        finish, check = answer.get("finish_reason"), self.request.check
        self.answer, self.final, self._cut = answer, False, False
        if "error" in answer:
            self.reason, self.final = answer["error"], True
        elif check is None:
            odd = self.request.finished and finish not in ("stop", "length")
            self.reason = f"not finished (finish_reason {finish})" if odd else None
        elif answer.get("refusal") or finish == "content_filter":
            self.reason, self.final = (
                f"refused: {answer.get('refusal') or 'content filter'}"[:300],
                True,
            )
        elif finish == "length":  # more room once; what needs still more is no brief critique
            self.reason, self.final, self._cut = (
                f"cut at {self.sampling.max_new_tokens} tokens",
                self.larger,
                True,
            )
        elif finish != "stop":
            self.reason = f"not finished (finish_reason {finish})"
        else:
            self.reason = check(answer["text"]) if answer["text"].strip() else "empty"

    def record(self):
        """-> the last answer, {"key", "text", "finish_reason", "usage", ...}; with "error" where it cannot be used."""
        if self.answer is None:
            return {"error": "not asked: the run was stopped before"}
        return self.answer | ({"error": self.reason} if self.reason else {})


class _Run:
    """The journal's side of a run: records each answer, counts what came, and ends it when too much of that is bad."""

    def __init__(self, tasks, journal, retries, retry_failed, bad_share):
        self.journal, self.bad_most = journal, bad_share * FIRST
        self.known = {
            key: why
            for task in tasks
            for key, why in task.follow(journal, retries, retry_failed).items()
        }
        self.first = [self.known[key] for key in journal.records if key in self.known][
            :FIRST
        ]  # as they came, in whatever order
        self.counts = Counter(
            "ok" if task.reason is None else "failed" for task in tasks if task.settled
        )

    def deliver(self, task, answer):
        """Called by the engine for each answer before it goes on, and with {"lost"} for USD that brought none."""
        if "lost" in answer:
            return self.journal.append({"key": f"lost {len(self.journal.records)}", **answer})
        now = time.monotonic()
        passing, answer = (
            answer.pop("passing", False),
            {"key": task.key, **answer, "seconds": round(now - self.last, 3)},
        )
        self.last = now  # seconds since the answer before: over a set of answers they sum up to the time that generating took
        if not passing:  # what may come otherwise next time is not kept
            self.journal.append(answer)
        again = task.answer is not None and "text" in answer
        self.counts.update(
            again=again, same=again and answer["text"] == task.answer.get("text") != ""
        )
        task.settle(answer)
        self.counts["ok" if task.reason is None else "failed" if task.settled else "bad"] += 1
        self.bar.update(task.settled)
        self.first += [task.reason] * (len(self.first) < FIRST)
        self.refuse_bad()

    def refuse_bad(self):
        bad = [reason for reason in self.first if reason]
        if len(bad) > self.bad_most:
            raise Stopped(
                f"{len(bad)} of the first {len(self.first)} answers cannot be used; the newest: {bad[-1]}\nLook at "
                f"{self.journal.path}: is it the right model, template, --max-new-tokens? Mended on the server: add "
                "--retry-failed. To go on all the same: --max-bad-share 1",
                4,
            )

    def generate(self, engine, tasks, label):
        """Let the engine ask for what is not settled, under a progress bar."""
        live = sys.stderr.isatty()  # a log gets a line now and then

        def show():
            counts = self.counts
            self.bar.set_postfix_str(
                f"ok {counts['ok']}, bad {counts['bad']}, failed {counts['failed']}{engine.status()}",
                refresh=live,
            )

        settled, self.last = sum(self.counts.values()), time.monotonic()
        with tqdm(
            total=len(tasks),
            initial=settled,
            desc=label,
            unit="row",
            mininterval=0.1 if live else 10,
        ) as self.bar:
            engine.generate(tasks, self.deliver, show)
            show()


def refuse_greedy(engine, sampling):
    """InputError where three draws at temperature 2 are one text: some servers ignore the temperature without a word."""
    hot, texts = (
        replace(
            sampling,
            temperature=2.0,
            top_p=1.0,
            max_new_tokens=min(32, sampling.max_new_tokens),
            stop=[],
        ),
        [],
    )
    tasks = [
        Task(Request("Once upon a time", sample=-1 - n), hot, engine.identity) for n in range(3)
    ]

    def deliver(task, answer):
        if "lost" not in answer:
            texts.append(answer.get("text"))
            task.last, task.settled = 0, True

    engine.generate(tasks, deliver)
    if len(texts) == 3 and len(set(texts)) == 1 and texts[0]:
        raise InputError(
            f"{engine.identity} ignores the temperature: three draws at temperature 2 are the same text, {texts[0][:60]!r}.\n"
            "Samples of it would all be one greedy answer: use a server that samples (vLLM), or --temperature 0."
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
):
    """-> one record per request, in order: {"key", "text", "finish_reason", "usage"}; `error` too where it is no good.

    What the journal holds is not asked again. A bad answer is asked for again up to `retries` times, cut ones once with
    2.5 times the tokens. More than `bad_share` bad ones among the FIRST answers: Stopped, which like any other end before
    the last row carries the records so far as `.answers`. retry_failed: ask again for what was final in an earlier run.
    probe: refuse an engine that draws the same text twice at a high temperature, where the sampling has one.
    """
    by_key, order = {}, []  # equal requests are one task: asked, and paid, once
    for request in requests:
        task = Task(request, sampling, engine.identity)
        order.append(by_key.setdefault(task.key, task))
    tasks = list(by_key.values())
    run = _Run(tasks, journal, retries, retry_failed, bad_share)
    if all(task.settled for task in tasks) and not engine.outstanding():
        if tasks:
            print(
                f"{label}: all {len(tasks):,} answers are in {journal.path}, nothing is asked".removeprefix(
                    ": "
                )
            )
        return [task.record() for task in order]
    others = sum(
        r.get("model") == engine.identity and key not in run.known and "lost" not in r
        for key, r in journal.records.items()
    )
    if others:
        print(
            f"note: {journal.path} holds {others:,} answers of {engine.identity} to other prompts or under other settings "
            "(--max-new-tokens, --temperature, ...): they are of no use here"
        )
    try:
        run.refuse_bad()
        engine.approve(tasks, journal)
        if probe and sampling.temperature:
            refuse_greedy(engine, sampling)
        run.generate(engine, tasks, label)
    except Stopped as end:
        end.answers = [task.record() for task in order]
        raise
    again, same = run.counts["again"], run.counts["same"]
    if sampling.temperature and same > max(1, again / 2):
        print(
            f"note: {same} of {again} answers asked for again came back word for word: does {engine.identity} or its server ignore "
            "the temperature?"
        )
    return [task.record() for task in order]
