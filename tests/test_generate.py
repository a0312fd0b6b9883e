"""Local generation: greedy, seeded sampling, stops, resume. The server engine, against a real HTTP server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.files import InputError
from common.generate import Request, Sampling, complete, cut_at_stop
from common.generate.journal import Journal
from common.generate.local import Local, StopStrings
from common.generate.server import Server
from common.tiny import world
from common.tiny.base import tokenizer

PROMPTS = [p.question for p in world.problems("train", 0, 12)]


@pytest.fixture(scope="module")
def engine(tiny_model):
    return Local(tiny_model, batch_size=5)


def texts(engine, prompts, sampling, samples=1, done=frozenset()):
    requests = [Request(p, sample=k) for p in prompts for k in range(samples)]
    keys = [f"{hash((p, k)) % 16**15:015x}" for p in prompts for k in range(samples)]
    answers = dict(pair for batch in engine.generate(requests, keys, sampling, done) for pair in batch)
    return [answers.get(i, {}).get("text") for i in range(len(requests))]


def test_greedy_equals_unbatched_generation(engine, tiny_model):
    """Left padding and length sorting must not change a text (float32)."""
    model, words = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    got = texts(engine, PROMPTS, Sampling(max_new_tokens=12))
    for prompt, text in zip(PROMPTS, got):
        ids = words(prompt, return_tensors="pt").input_ids
        out = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1]:]
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
    """2,000 draws of one first token: frequencies within 4 standard errors of softmax(logits / T), top-p cut off."""
    prompt, n = PROMPTS[0], 2000
    ids = engine.tokenizer(prompt, return_tensors="pt").input_ids
    p = torch.softmax(engine.model(ids).logits[0, -1].double() / 0.7, -1)
    order = p.argsort(descending=True)
    kept = order[: int((p[order].cumsum(0) < 0.5).sum()) + 1]  # the fewest tokens that hold half of the mass
    engine.batch_size = n
    drawn = texts(engine, [prompt], Sampling(temperature=0.7, top_p=0.5, max_new_tokens=1), samples=n)
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
    assert texts(engine, PROMPTS, Sampling(max_new_tokens=12, stop=[stop])) == [cut_at_stop(t, [stop])[0] for t in whole]


def test_stop_criterion_sees_a_string_across_tokens():
    words = tokenizer()
    ids = torch.tensor([words("zz[END] and on").input_ids])
    assert StopStrings(["[END]"], words, 0)(ids[:, : len(words("zz[END]").input_ids)], None).tolist() == [True]
    assert StopStrings(["[END]"], words, 0)(ids[:, :3], None).tolist() == [False]


def test_finish_reasons_and_token_counts(engine):
    """A text that ends by its end token counts that token; one that runs into the limit says length."""
    batch = next(engine.generate([Request(p) for p in PROMPTS[:5]], list("abcde"), Sampling(max_new_tokens=3), set()))
    assert {a["finish_reason"] for _, a in batch} == {"length"} and {a["usage"]["completion_tokens"] for _, a in batch} == {3}
    ids = engine.model.generate(engine.tokenizer(PROMPTS[0], return_tensors="pt").input_ids, max_new_tokens=1, do_sample=False)
    first = engine.tokenizer.decode(ids[0, -1:])
    engine.tokenizer.add_tokens([])
    answer = dict(next(engine.generate([Request(PROMPTS[0])], ["a"], Sampling(max_new_tokens=3, stop=[first]), set())))[0]
    assert (answer["text"], answer["finish_reason"], answer["usage"]["completion_tokens"]) == ("", "stop", 1)


def test_resume_asks_only_for_what_is_missing_and_gives_the_same(engine, tmp_path):
    requests = [Request(p) for p in PROMPTS]
    sampling = Sampling(temperature=1.0, max_new_tokens=6, seed=3)
    with Journal(tmp_path / "whole.jsonl") as journal:
        whole = complete(engine, requests, sampling, journal)
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:20])  # killed inside a batch and a line
    with Journal(tmp_path / "part.jsonl") as journal:
        assert complete(engine, requests, sampling, journal) == whole
    keys = [json.loads(line)["key"] for line in (tmp_path / "part.jsonl").read_bytes().splitlines()]
    assert len(keys) == len(set(keys)) == 12
    with Journal(tmp_path / "part.jsonl") as journal:
        other = complete(engine, requests, Sampling(temperature=1.0, max_new_tokens=6, seed=4), journal)
    assert other != whole and len((tmp_path / "part.jsonl").read_bytes().splitlines()) == 24


def test_cut_at_stop_takes_the_earliest():
    assert cut_at_stop("a [END] b </s>", ["</s>", "[END]"]) == ("a ", True)
    assert cut_at_stop("nothing", ["</s>"]) == ("nothing", False)


# --- server ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def server():
    """A real HTTP server that answers by what the prompt says; yields (base URL, requests seen)."""
    seen, busy = [], {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body.get("prompt") or body["messages"][-1]["content"]
            seen.append((self.path, body))
            status, message, finish = 200, {"role": "assistant", "content": f"echo {prompt} [END] tail"}, "stop"
            if prompt == "busy once" and not busy.setdefault(prompt, 0):
                busy[prompt], status = 1, 503
            status = {"bad": 400, "key": 401}.get(prompt, status)
            if prompt == "empty":
                message["content"] = ""
            choice = {"index": 0, "finish_reason": "length" if prompt == "cut" else finish}
            choice |= {"text": message["content"]} if "prompt" in body else {"message": message}
            data = b"not json" if prompt == "broken" else json.dumps(
                {"id": "x", "object": "o", "created": 1, "model": body["model"], "choices": [] if prompt == "none" else [choice],
                 "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
                if status == 200 else {"error": {"message": "no"}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", seen
    http.shutdown()
    http.server_close()


def ask(url, prompts, journal, sampling=Sampling(), model="m"):
    with Journal(journal) as records:
        return complete(Server(model, url, 4), [Request(p) for p in prompts], sampling, records)


def test_every_kind_of_answer_is_handled(server, tmp_path):
    """Failures fail their row only, are not recorded, and are asked again by the next run; good rows are not."""
    url, seen = server
    prompts = ["one", "broken", "none", "empty", "bad", "cut", "busy once", "two"]
    chat = [[{"role": "user", "content": p}] for p in prompts]
    got = dict(zip(prompts, ask(url, chat, tmp_path / "j.jsonl")))
    assert [p for p in prompts if "error" in got[p]] == ["broken", "none", "empty", "bad"]
    assert got["one"]["text"] == "echo one [END] tail" and got["cut"]["finish_reason"] == "length"
    assert got["busy once"]["text"] and got["two"]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4}
    n = len(seen)
    ask(url, chat, tmp_path / "j.jsonl")
    assert sorted(body["messages"][-1]["content"] for _, body in seen[n:]) == ["bad", "broken", "empty", "none"]


def test_raw_prompts_go_to_completions_and_stops_are_applied_here(server, tmp_path):
    url, seen = server
    sampling = Sampling(temperature=0.5, top_p=0.9, max_new_tokens=7, stop=["a", "b", "c", "d", "[END]"], seed=1)
    (answer,) = ask(url, ["<|im_start|>x"], tmp_path / "j.jsonl", sampling)
    path, body = seen[0]
    assert path == "/v1/completions" and body["prompt"] == "<|im_start|>x" and body["max_tokens"] == 7
    assert (body["temperature"], body["top_p"], body["stop"]) == (0.5, 0.9, ["a", "b", "c", "d", "[END]"])
    assert answer["text"] == "echo <|im_st" or "[END]" not in answer["text"]


def test_another_model_never_reuses_and_another_url_does(server, tmp_path):
    url, seen = server
    ask(url, ["one"], tmp_path / "j.jsonl")
    ask(url + "/", ["one"], tmp_path / "j.jsonl")
    assert len(seen) == 1
    ask(url, ["one"], tmp_path / "j.jsonl", model="other")
    assert len(seen) == 2


def test_a_refused_key_ends_the_run_and_keeps_the_rest(server, tmp_path, monkeypatch):
    url, _ = server
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-value")
    ask(url, ["one"], tmp_path / "j.jsonl")
    with pytest.raises(InputError, match="OPENAI_API_KEY") as error:
        ask(url, ["one", "key", "two"], tmp_path / "j.jsonl")
    assert "sk-very-secret" not in str(error.value) + (tmp_path / "j.jsonl").read_text()
    assert "echo one" in (tmp_path / "j.jsonl").read_text()


def test_no_server_and_no_key_says_what_to_give(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match="--base-url"):
        next(Server("gpt-4o").generate([Request("x")], ["k"], Sampling(), set()))
