"""Local generation.

Greedy, seeded sampling, stops, resume. For any engine: what is asked again, and when a run ends.
"""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.core.errors import InputError, Stopped
from common.core.files import content_id
from common.generate.client import Client
from common.generate.decoder import Decoder, Row
from common.generate.journal import Journal
from common.generate.local import Local
from common.generate.requests import Request, Sampling, Task, complete, cut_at_stop
from common.teacher import critiques
from common.tiny import world
from common.tiny.base import build_tokenizer
from tests.faults import FaultServer
from tests.runs import rows, timeless, write_rows

GREEDY = Sampling()
PROMPTS = [p.question for p in world.problems("train", 0, 12)]


@pytest.fixture(scope="module")
def engine(tiny_model):
    return Local(tiny_model, batch_size=5)


def generated(engine, prompts, sampling, samples=1):
    """-> the answer to each sample of each prompt, from the engine alone.

    No journal, nothing is asked again.
    """
    tasks = [
        Task(Request(p, sample=k), sampling, engine.identity)
        for p in prompts
        for k in range(samples)
    ]
    answers = {}
    engine.generate(tasks, lambda task, answer: answers.setdefault(task.key, answer), lambda: None)
    return [answers[task.key] for task in tasks]


def texts(engine, prompts, sampling, samples=1):
    return [answer["text"] for answer in generated(engine, prompts, sampling, samples)]


def test_greedy_equals_unbatched_generation(engine, tiny_model):
    """Left padding and length sorting must not change a text (float32)."""
    model, words = (
        AutoModelForCausalLM.from_pretrained(tiny_model),
        AutoTokenizer.from_pretrained(tiny_model),
    )
    got = texts(engine, PROMPTS, Sampling(max_new_tokens=12))
    for prompt, text in zip(PROMPTS, got):
        ids = words(prompt, return_tensors="pt").input_ids
        out = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert text == words.decode(out, skip_special_tokens=True)


def test_a_sample_depends_on_its_own_key_only(engine):
    """Not on the batch, the order or what was done before; and samples of one prompt differ."""
    sampling = Sampling(temperature=1.0, max_new_tokens=10)
    first = texts(engine, PROMPTS, sampling, samples=2)
    engine.batch_size = 24
    assert texts(engine, PROMPTS, sampling, samples=2) == first
    engine.batch_size = 5
    backwards = texts(engine, PROMPTS[::-1], sampling, samples=2)
    assert [t for pair in zip(backwards[::2][::-1], backwards[1::2][::-1]) for t in pair] == first
    assert sum(a != b for a, b in zip(first[::2], first[1::2])) >= 10


def test_samples_follow_the_models_distribution(engine):
    """2,000 draws of one first token.

    Frequencies within 4 standard errors of softmax(logits / T), top-p cut off.
    """
    prompt, n = PROMPTS[0], 2000
    ids = engine.tokenizer(prompt, return_tensors="pt").input_ids
    p = torch.softmax(engine.model(ids).logits[0, -1].double() / 0.7, -1)
    order = p.argsort(descending=True)
    kept = order[
        : int((p[order].cumsum(0) < 0.5).sum()) + 1
    ]  # the fewest tokens that hold half of the mass
    engine.batch_size = n
    drawn = texts(
        engine, [prompt], Sampling(temperature=0.7, top_p=0.5, max_new_tokens=1), samples=n
    )
    engine.batch_size = 5
    expected = p[kept] / p[kept].sum()
    counts = torch.zeros(len(kept), dtype=torch.double)
    names = [engine.tokenizer.decode([i], skip_special_tokens=True) for i in kept.tolist()]
    for text in drawn:
        counts[names.index(text)] += 1  # ValueError: a token outside the nucleus was drawn
    if len(set(names)) == len(names):
        error = (expected * (1 - expected) / n).sqrt()
        assert ((counts / n - expected).abs() < 4 * error + 1e-9).all()


def test_stop_strings_end_a_text_and_are_not_in_it(engine):
    whole = texts(engine, PROMPTS, Sampling(max_new_tokens=12))
    stop = whole[0][5:8]
    assert texts(engine, PROMPTS, Sampling(max_new_tokens=12, stop=[stop])) == [
        cut_at_stop(t, [stop])[0] for t in whole
    ]


def test_a_stop_string_is_found_across_tokens_and_at_its_last_one():
    """[END] is seven tokens here, in whatever pieces they come; what is drawn beyond it is no part
    of the text.
    """
    words = build_tokenizer()
    new = words("zz[END] and on").input_ids
    last = len(words("zz[END]").input_ids)
    for piece in range(1, len(new) + 1):
        decoder, row = (
            Decoder(None, words, Sampling(stop=["no", "[END]"]), [], 512, 1),
            Row(0, [5], 99, None),
        )
        pieces = [new[at : at + piece] for at in range(0, len(new), piece)]
        ended = [decoder._extend(row, part) for part in pieces[: -(-last // piece)]]
        assert ended == [None] * (len(ended) - 1) + ["stop"] and row.ids == new[:last]
        row.finish_reason = "stop"
        assert decoder._answer(row)["text"] == "zz"


def test_finish_reasons_and_token_counts(engine):
    """A text that ends by its end token counts that token; one that runs into the limit says
    length.
    """
    cut = generated(engine, PROMPTS[:5], Sampling(max_new_tokens=3))
    assert {a["finish_reason"] for a in cut} == {"length"} and {
        a["usage"]["completion_tokens"] for a in cut
    } == {3}
    ids = engine.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    first = engine.tokenizer.decode(
        engine.model.generate(ids, max_new_tokens=1, do_sample=False)[0, -1:]
    )
    (answer,) = generated(engine, PROMPTS[:1], Sampling(max_new_tokens=3, stop=[first]))
    assert (answer["text"], answer["finish_reason"], answer["usage"]["completion_tokens"]) == (
        "",
        "stop",
        1,
    )
    assert answer["usage"]["prompt_tokens"] == ids.shape[1]  # padding is none of them


def test_resume_asks_only_for_what_is_missing_and_gives_the_same(engine, tmp_path):
    requests = [Request(p) for p in PROMPTS]
    sampling = Sampling(temperature=1.0, max_new_tokens=6, seed=3)
    with Journal(tmp_path / "whole.jsonl") as journal:
        whole = complete(engine, requests, sampling, journal)
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_bytes(
        b"".join(lines[:7]) + lines[7][:20]
    )  # killed inside a batch and a line
    with Journal(tmp_path / "part.jsonl") as journal:
        assert timeless(complete(engine, requests, sampling, journal)) == timeless(whole)
    keys = [json.loads(line)["key"] for line in (tmp_path / "part.jsonl").read_bytes().splitlines()]
    assert len(keys) == len(set(keys)) == 12
    with Journal(tmp_path / "part.jsonl") as journal:
        other = complete(
            engine, requests, Sampling(temperature=1.0, max_new_tokens=6, seed=4), journal
        )
    assert (
        timeless(other) != timeless(whole)
        and len((tmp_path / "part.jsonl").read_bytes().splitlines()) == 24
    )


def test_cut_at_stop_takes_the_earliest():
    assert cut_at_stop("a [END] b </s>", ["</s>", "[END]"]) == ("a ", True)
    assert cut_at_stop("nothing", ["</s>"]) == ("nothing", False)


# --- what is asked again: any engine --------------------------------------------------------------


class Script:
    """An engine in memory.

    The answers that each prompt will get, one after the other. Last prompts are asked first.

    asked: (prompt, tokens at most) of each request. stop_after: so many requests, then the server
    is gone.
    """

    identity = "script"

    def __init__(self, answers, stop_after=None):
        self.answers, self.stop_after, self.asked, self.approved = answers, stop_after, [], []

    def approve(self, tasks, journal):
        self.approved.append(sum(not task.settled for task in tasks))

    def outstanding(self):
        return False

    def status(self):
        return ""

    def generate(self, tasks, deliver, show):
        for task in reversed(tasks):
            while not task.settled:
                if len(self.asked) == self.stop_after:
                    raise Stopped("the server is gone", 4)
                self.asked.append((task.request.prompt, task.sampling.max_new_tokens))
                deliver(
                    task, dict(self.answers[task.request.prompt].pop(0))
                )  # IndexError: asked too often


def says(text, finish="stop", **more):
    return {"text": text, "finish_reason": finish, "usage": None, **more}


def run(engine, prompts, folder, retries=3, retry_failed=False, **settings):
    """Ask for critiques as 02 does, 100 tokens each. -> their records"""
    requests = [Request(p, check=critiques.check_critique) for p in prompts]
    with Journal(folder / "journal.jsonl") as journal:
        return complete(
            engine,
            requests,
            Sampling(0.3, max_new_tokens=100),
            journal,
            "",
            retries,
            retry_failed,
            **settings,
        )


GOOD, BAD = says("It adds up.\n\nConclusion: right [END]"), says("It adds up.")
CUT, EMPTY = says("It adds", "length"), says(" \n")
FILTERED = says(GOOD["text"], "content_filter")
THOUGHT, APART = says("<think>It adds up."), says("", reasoning=12)
CHECKED = says("<think>No.\n\nConclusion: wrong [END]</think>" + GOOD["text"])
UNSAID = says("<think>Yes.\n\nConclusion: right [END]</think>It adds up.")
ONLY_THINKING = "only thinking, raise --max-new-tokens"
ODD, REFUSED = says(GOOD["text"], "abort"), says("", refusal="I cannot help with that.")
# the answers that are used up -> the tokens that were asked for, and why there is no critique
# (None: there is one)
CASES = {
    "good": ([GOOD], [100], None),
    "verdictless once": ([BAD, GOOD], [100, 100], None),
    "verdictless for good": ([BAD] * 4, [100] * 4, "no verdict"),
    "good at the last attempt": ([BAD, EMPTY, BAD, GOOD], [100] * 4, None),
    "empty for good": ([EMPTY] * 4, [100] * 4, "empty"),
    "cut once": ([CUT, GOOD], [100, 250], None),
    "cut twice": ([CUT, CUT], [100, 250], "cut at 250 tokens"),
    "cut later": ([BAD, CUT, GOOD], [100, 100, 250], None),
    "cut, then without a verdict": ([CUT, BAD, BAD, BAD], [100, 250, 250, 250], "no verdict"),
    "cut, and again after another fault": ([CUT, EMPTY, CUT], [100, 250, 250], "cut at 250 tokens"),
    "cut at the last attempt": ([BAD, BAD, BAD, CUT], [100] * 4, "cut at 100 tokens"),
    "thinking before a critique": ([CHECKED], [100], None),
    "a verdict in the thinking alone": ([UNSAID] * 4, [100] * 4, "no verdict"),
    "only thinking once": ([THOUGHT, GOOD], [100, 250], None),
    "only thinking, sent apart": ([APART, APART], [100, 250], ONLY_THINKING),
    "only thinking, cut": ([CUT | {"text": "<think>It"}] * 2, [100, 250], ONLY_THINKING),
    "cut, then only thinking": ([CUT, THOUGHT], [100, 250], ONLY_THINKING),
    "refused": ([REFUSED], [100], "refused: I cannot help with that."),
    "refused later": ([BAD, REFUSED], [100, 100], "refused: I cannot help with that."),
    "filtered, though with a verdict": ([FILTERED], [100], "refused: content filter"),
    "no finish reason": ([says(GOOD["text"], None)], [100], None),
    "another word for an end": ([says(GOOD["text"], "eos_token")], [100], None),
    "another word for a limit": ([says("It adds", "MAX_TOKENS"), GOOD], [100, 250], None),
    "broken off": ([ODD, GOOD], [100, 100], None),
    "always broken off": ([ODD] * 4, [100] * 4, "not finished (finish_reason abort)"),
    "an unknown finish reason": (
        [says(GOOD["text"], "tool_calls")] * 4,
        [100] * 4,
        "not finished (finish_reason tool_calls)",
    ),
    "a request that cannot be answered": ([{"error": "400 too long"}], [100], "400 too long"),
    "nothing for money, once": (
        [{"lost": 0.25, "model": "m"}, GOOD],
        [100, 100],
        None,
    ),  # no answer, and no attempt either
    "the same after another fault": ([BAD, {"error": "400 flagged"}], [100, 100], "400 flagged"),
}


@pytest.mark.parametrize("answers, tokens, reason", CASES.values(), ids=CASES)
def test_what_is_asked_again(tmp_path, answers, tokens, reason):
    """And a second run asks for nothing, whatever came out: the journal tells it the same."""
    engine = Script({"p": list(answers)})
    (record,) = run(engine, ["p"], tmp_path)
    assert engine.asked == [("p", n) for n in tokens] and engine.approved == [1]
    assert record.get("error") == reason and {
        k: v for k, v in record.items() if k not in ("key", "error", "seconds")
    } == {k: v for k, v in answers[-1].items() if k != "error"}
    kept = rows(tmp_path / "journal.jsonl")
    assert [{k: v for k, v in a.items() if k != "key"} for a in timeless(kept)] == answers and len(
        {a["key"] for a in kept}
    ) == len(answers)
    again = Script({})
    assert run(again, ["p"], tmp_path) == [record] and again.asked == [] and again.approved == []


@pytest.mark.parametrize("answers, tokens, reason", CASES.values(), ids=CASES)
def test_a_run_that_was_ended_anywhere_goes_on_there(tmp_path, answers, tokens, reason):
    """An attempt that was paid for is neither repeated nor forgotten."""
    for n in range(len(answers)):
        (tmp_path / str(n)).mkdir()
        left = {"p": list(answers)}
        with pytest.raises(Stopped):
            run(Script(left, stop_after=n), ["p"], tmp_path / str(n))
        assert len(rows(tmp_path / str(n) / "journal.jsonl")) == n
        engine = Script(left)
        (record,) = run(engine, ["p"], tmp_path / str(n))
        assert (
            engine.asked == [("p", tokens) for tokens in tokens[n:]]
            and record.get("error") == reason
        )


def test_records_come_in_the_order_of_the_requests_and_equal_requests_are_asked_once(tmp_path):
    engine = Script({"p": [GOOD], "q": [BAD, BAD, GOOD], "r": [CUT, CUT]})
    records = run(engine, ["p", "q", "p", "r", "q"], tmp_path)
    assert [r.get("error") for r in records] == [None, None, None, "cut at 250 tokens", None]
    assert (
        records[0] == records[2]
        and records[1] == records[4]
        and len({r["key"] for r in records}) == 3
    )
    assert [prompt for prompt, _ in engine.asked] == [
        "r",
        "r",
        "q",
        "q",
        "q",
        "p",
    ] and engine.approved == [3]


def test_whatever_makes_another_answer_is_asked_for_itself(tmp_path):
    """A sample, a setting, another model: none of them gets what another one said."""

    def ask(sampling=GREEDY, identity="script", **request):
        engine = Script({"p": [says(f"text {len(names)}")]})
        engine.identity = identity
        with Journal(tmp_path / "journal.jsonl") as journal:
            (record,) = complete(engine, [Request("p", **request)], sampling, journal)
        names.append((record["key"], record["text"]))
        return len(engine.asked)

    names = []
    others = [
        dict(sample=1),
        dict(identity="another"),
        *(
            dict(sampling=Sampling(**{name: value}))
            for name, value in dict(
                temperature=0.5, top_p=0.5, max_new_tokens=7, stop=["x"], seed=3
            ).items()
        ),
    ]
    assert [ask(), *(ask(**other) for other in others)] == [1] * 8 and len(set(names)) == 8
    assert [ask(), *(ask(**other) for other in others)] == [0] * 8 and names[8:] == names[:8]


def test_without_a_check_whatever_the_model_says_is_the_result(tmp_path):
    """01 and 05 score what a model does, be it unfinished or empty; only a failure is asked for
    again, by the next run.
    """
    answers = dict(zip("pqrst", [CUT, EMPTY, REFUSED, ODD, {"error": "400 too long"}]))
    with Journal(tmp_path / "journal.jsonl") as journal:
        records = complete(
            Script({p: [a] for p, a in answers.items()}),
            [Request(p) for p in answers],
            Sampling(),
            journal,
        )
    assert [r.get("error") for r in records] == [None] * 4 + ["400 too long"]
    assert [r["text"] for r in records[:4]] == ["It adds", " \n", "", ODD["text"]]
    assert len(rows(tmp_path / "journal.jsonl")) == 5
    engine = Script({"t": [GOOD]})
    with Journal(tmp_path / "journal.jsonl") as journal:
        again = complete(engine, [Request(p) for p in answers], Sampling(), journal)
    assert [p for p, _ in engine.asked] == ["t"] and again[:4] == records[:4]
    assert timeless(again)[4] == {
        "key": records[4]["key"],
        **GOOD,
    }  # the same key, so the same seed: the text of a run without a failure


def test_an_output_that_was_broken_off_is_none_where_only_finished_ones_count(tmp_path):
    """A server's abort is no wrong answer.

    05 leaves it out, keeps it, and the next run asks again.
    """

    def ask(engine, prompts):
        with Journal(tmp_path / "journal.jsonl") as journal:
            return complete(
                engine, [Request(p, must_finish=True) for p in prompts], Sampling(), journal
            )

    broken = {
        "a": says("half", "abort"),
        "f": says("", "content_filter"),
        "n": says("half", "error"),
        "c": CUT,
        "s": GOOD,
    }
    records = ask(Script({p: [a] for p, a in broken.items()}), broken)
    assert [r.get("error") for r in records] == [
        f"not finished (finish_reason {why})" for why in ("abort", "content_filter", "error")
    ] + [None, None]
    engine = Script({"a": [GOOD], "f": [GOOD], "n": [says("half", "abort")]})
    assert [r.get("error") for r in ask(engine, broken)] == [
        None,
        None,
        "not finished (finish_reason abort)",
        None,
        None,
    ]
    assert sorted(p for p, _ in engine.asked) == ["a", "f", "n"]
    assert [r.get("error") for r in ask(Script({"n": [GOOD]}), broken)] == [None] * 5


def test_a_journal_line_that_is_no_answer_is_asked_for(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        (first,) = complete(Script({"p": [GOOD]}), [Request("p")], Sampling(), journal)
    (tmp_path / "journal.jsonl").write_text(json.dumps({"key": first["key"]}) + "\n")
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert (
            complete(Script({"p": [GOOD]}), [Request("p")], Sampling(), journal)[0]["text"]
            == GOOD["text"]
        )


def test_a_failure_that_may_pass_fails_the_row_and_is_not_kept(tmp_path):
    """A server that was down for a minute must not fail a row for all runs to come."""
    engine = Script(
        {"p": [{"error": "503", "passing": True}], "q": [BAD, {"error": "503", "passing": True}]}
    )
    p, q = run(engine, ["p", "q"], tmp_path)
    assert p["error"] == q["error"] == "503" and len(engine.asked) == 3
    assert [a["text"] for a in rows(tmp_path / "journal.jsonl")] == [BAD["text"]]
    engine = Script({"p": [GOOD], "q": [BAD, BAD, GOOD]})  # of its four attempts q has three left
    assert ["error" in r for r in run(engine, ["p", "q"], tmp_path)] == [False, False] and len(
        engine.asked
    ) == 4


@pytest.mark.parametrize(
    "failed, later, tokens",
    [
        ([REFUSED], [GOOD], [100]),
        ([BAD] * 4, [GOOD], [100]),
        ([BAD] * 4, [BAD, BAD, BAD, GOOD], [100] * 4),
        ([CUT, CUT], [GOOD], [250]),
        ([CUT, CUT], [CUT], [250]),
        ([BAD, REFUSED], [CUT, GOOD], [100, 250]),
        ([{"error": "400"}], [GOOD], [100]),
        ([{"error": "400"}], [{"error": "400 again"}], [100]),
        ([BAD, {"error": "400"}], [BAD, GOOD], [100, 100]),
        ([BAD] * 4, [EMPTY] * 4, [100] * 4),
    ],
)
def test_what_failed_for_good_is_asked_again_with_retry_failed(tmp_path, failed, later, tokens):
    """As often as the first time; a run without it then finds what came of that, good or bad, and
    asks nobody.
    """
    (first,) = run(Script({"p": list(failed)}), ["p"], tmp_path)
    assert "error" in first and run(Script({}), ["p"], tmp_path) == [first]
    engine = Script({"p": list(later)})
    (second,) = run(engine, ["p"], tmp_path, retry_failed=True)
    assert engine.asked == [("p", n) for n in tokens] and ("error" in second) == (
        later[-1] is not GOOD
    )
    assert run(Script({}), ["p"], tmp_path) == [second]
    if "error" not in second:
        assert run(Script({}), ["p"], tmp_path, retry_failed=True) == [second]


def test_more_retries_ask_on_and_fewer_do_not(tmp_path):
    assert run(Script({"p": [BAD] * 2}), ["p"], tmp_path, retries=1)[0]["error"] == "no verdict"
    assert run(Script({}), ["p"], tmp_path, retries=0)[0]["error"] == "no verdict"
    assert "error" not in run(Script({"p": [BAD, GOOD]}), ["p"], tmp_path, retries=3)[0]
    assert "error" not in run(Script({}), ["p"], tmp_path, retries=0)[0]  # what was good stays good


# --- when a run ends early ------------------------------------------------------------------------


BADS = [
    BAD,
    EMPTY,
    CUT,
    REFUSED,
    FILTERED,
    ODD,
    {"error": "400"},
    {"error": "503", "passing": True},
]  # what is bad


@pytest.mark.parametrize(
    "good, bad, share, retries, asked",
    [
        (0, 300, 0.2, 0, 41),
        (159, 41, 0.2, 0, 200),
        (160, 140, 0.2, 0, None),
        (0, 40, 0.2, 0, None),
        (0, 300, 0.2, 3, 161),
        (0, 300, 1.0, 0, None),
        (0, 300, 0.995, 0, 200),
        (10, 1, 0.0, 0, 11),
        (200, 100, 0.0, 0, None),
    ],
)
def test_too_many_bad_answers_among_the_first_200_end_the_run(
    tmp_path, good, bad, share, retries, asked
):
    """At the first one too many, not after 200.

    With a wrong model or template every further answer is money lost.

    good: so many prompts get a good answer first; then bad: so many get bad ones only. The first
    answer of a row counts: with retries, here one row after the other, more are asked.
    """
    scripted = {f"good {n}": [GOOD] for n in range(good)}
    scripted |= {f"bad {n}": [BAD if retries else BADS[n % len(BADS)]] * 4 for n in range(bad)}
    engine = Script(scripted)
    if asked is None:
        assert (
            sum(
                "error" in r
                for r in run(engine, list(scripted)[::-1], tmp_path, retries, bad_share=share)
            )
            == bad
        )
        return
    with pytest.raises(
        Stopped,
        match=f"{int(share * 200) + 1} of .* rows cannot be used",
    ) as end:
        run(engine, list(scripted)[::-1], tmp_path, retries, bad_share=share)
    assert (
        end.value.status == 4
        and "--max-bad-share 1" in str(end.value)
        and str(tmp_path / "journal.jsonl") in str(end.value)
    )
    assert len(engine.asked) == asked


def test_bad_answers_of_earlier_starts_count(tmp_path):
    """Else a script that starts 02 again and again would pay for 41 bad answers each time."""
    prompts = [f"{n}" for n in range(300)]
    with pytest.raises(Stopped, match="the server is gone"):
        run(
            Script({p: [REFUSED] for p in prompts}, stop_after=40), prompts, tmp_path, bad_share=0.2
        )
    engine = Script({p: [GOOD] for p in prompts} | {"201": [REFUSED]})
    with pytest.raises(Stopped, match="41 of 99 rows .*refused: I cannot"):
        run(engine, prompts, tmp_path, bad_share=0.2)
    assert len(engine.asked) == 59  # 259 to 202 were good, and 201 was the 41st bad one
    engine = Script({})
    with pytest.raises(Stopped, match="41 of 99 rows cannot be used; the newest: refused") as end:
        run(engine, prompts, tmp_path, bad_share=0.2)
    assert engine.asked == [] and engine.approved == [] and end.value.status == 4
    engine = Script({p: [REFUSED] for p in prompts})
    assert (
        sum("error" in r for r in run(engine, prompts, tmp_path, bad_share=1.0)) == 242
        and len(engine.asked) == 201
    )


def test_what_nobody_agreed_to_is_not_asked(tmp_path):
    class Costly(Script):
        def approve(self, tasks, journal):
            raise InputError("give --budget")

    engine = Costly({})
    with pytest.raises(InputError, match="--budget"):
        run(engine, ["p"], tmp_path)
    assert engine.asked == [] and rows(tmp_path / "journal.jsonl") == []


# --- with a server --------------------------------------------------------------------------------


def ask(url, prompts, folder, model="m", **settings):
    """As 01 and 05 do."""
    engine = Client(model, url, concurrency=4)
    engine.tries = 1
    with Journal(folder / "journal.jsonl") as journal:
        return complete(
            engine,
            [Request([{"role": "user", "content": p}]) for p in prompts],
            Sampling(),
            journal,
            **settings,
        )


def test_what_a_servers_failures_leave_in_the_journal(tmp_path):
    """A row that cannot be answered is known from then on; what may pass is not.

    Both are asked for again, no good row.
    """
    faults = {
        "flagged": "invalid-prompt",
        "long": "context",
        "down": "503",
        "torn": "broken-json",
        "none": "no-choices",
        "cut": "cut",
        "empty": "empty",
    }
    with FaultServer(fault=lambda body, nth: faults.get(body["messages"][-1]["content"])) as server:
        prompts = ["one", *faults, "two"]
        got = dict(zip(prompts, ask(server.url, prompts, tmp_path)))
        assert [p for p in prompts if "error" in got[p]] == [
            "flagged",
            "long",
            "down",
            "torn",
            "none",
        ]
        assert (
            got["cut"]["finish_reason"] == "length"
            and got["empty"]["text"] == ""
            and got["one"]["model"] == "m"
        )
        kept = rows(tmp_path / "journal.jsonl")
        assert len(kept) == 6 and [r["error"][:3] for r in kept if "error" in r] == ["400"] * 2
        server.asked.clear()
        faults.clear()
        again = ask(server.url, prompts, tmp_path, retry_failed=False)
        assert ["error" in r for r in again] == [p in ("flagged", "long") for p in prompts]
        assert sorted(e["prompt"] for e in server.asked) == ["down", "none", "torn"]
        server.asked.clear()
        assert not any("error" in r for r in ask(server.url, prompts, tmp_path))
        assert sorted(e["prompt"] for e in server.asked) == ["flagged", "long"]
        assert not any(
            "error" in r for r in ask("http://127.0.0.1:9/v1", prompts, tmp_path)
        )  # all of it is in the journal


# --- the key of an attempt ------------------------------------------------------------------------


def key_of(**settings):
    return Task(Request("p"), Sampling(**settings), "m").key


def test_further_fields_are_part_of_the_key_and_none_leaves_the_old_one():
    """Journals that were paid for before there were such fields are found again."""
    settings = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 2048, "stop": [], "seed": None}
    assert key_of() == key_of(extra_body={}) == content_id("m", "p", settings, 0, 0)
    keys = {key_of(extra_body=body) for body in (None, {"top_k": 1}, {"top_k": 2}, {"top_k": "1"})}
    assert len(keys) == 4


def test_an_answer_of_another_server_is_kept_and_told(tmp_path, capsys):
    """Old answers have no address; those of this server are nothing to tell."""
    with FaultServer() as first, FaultServer() as second:
        told = []
        for server in (first, first, second):
            with Journal(tmp_path / "journal.jsonl") as journal:
                client = Client("m", server.url)
                message = [{"role": "user", "content": "1+1?"}]
                complete(client, [Request(message)], Sampling(), journal)
            told.append(capsys.readouterr().out)
        assert len(first.asked) == 1 and second.asked == []
    (record,) = rows(tmp_path / "journal.jsonl")
    assert record["server"] == first.url
    assert ["--name" in text for text in told] == [False, False, True]
    assert first.url in told[2] and second.url in told[2]
    del record["server"]
    write_rows(tmp_path / "journal.jsonl", [record])
    with Journal(tmp_path / "journal.jsonl") as journal:
        complete(Client("m", "http://127.0.0.1:9/v1"), [Request(message)], Sampling(), journal)
    assert "--name" not in capsys.readouterr().out


def test_what_failed_before_is_forgiven_with_retry_failed(tmp_path):
    """The printed way on after a fix of the server: the old bad answers count no more."""
    prompts = [f"{n}" for n in range(60)]
    with pytest.raises(Stopped, match="--retry-failed"):
        run(Script({p: [BAD] for p in prompts}), prompts, tmp_path, 0, bad_share=0.2)
    engine = Script({p: [GOOD] for p in prompts})
    answers = run(engine, prompts, tmp_path, 0, retry_failed=True, bad_share=0.2)
    assert not [answer for answer in answers if "error" in answer]
