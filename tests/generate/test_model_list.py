"""GET /v1/models before the first request: a day of shutdown is said, all else changes nothing."""

import gzip
import json
import threading
import time
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common.generate import model_list, transport
from common.generate.budget import Budget
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, complete
from tests.faults import FaultServer


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def list_server(reply):
    """A server that only knows GET, answered by reply(handler). -> its URL, [(path, key)] asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            with suppress(OSError):  # the client went away
                reply(self)

        def log_message(self, *arguments):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()


def send(handler, body, status=200, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def listed(day, model="m"):
    entries = [{"id": "other", "shutdown_date": "2020-01-01"}, {"id": model, "shutdown_date": day}]
    body = json.dumps({"object": "list", "data": entries}).encode()
    return lambda handler: send(handler, body, Content_Type="application/json")


def warn(reply, capsys, model="m"):
    with list_server(reply) as (url, asked):
        client = Client(model, url, 2, 300, Budget(model))
        model_list.warn_of_shutdown(client)
        model_list.warn_of_shutdown(client)
    assert [path for path, key in asked] == ["/v1/models"]  # once
    return capsys.readouterr().out


@pytest.mark.parametrize("days, said", [(-400, True), (0, True), (60, True), (61, False)])
def test_a_day_within_sixty_days_is_said(capsys, days, said):
    day = date.today() + timedelta(days=days)
    printed = warn(listed(day.isoformat()), capsys)
    assert (str(day.year) in printed and "m " in printed) == said and bool(printed) == said


def test_what_the_table_has_said_is_not_said_again(capsys, monkeypatch):
    known = Budget("gpt-4o-mini").shutdown.isoformat()
    monkeypatch.setattr(model_list, "NOTICE", timedelta(days=10_000))
    assert not warn(listed(known, "gpt-4o-mini"), capsys, "gpt-4o-mini")
    assert "2027" in warn(listed("2027-01-15", "gpt-4o-mini"), capsys, "gpt-4o-mini")


def drip(handler):
    """Headers and a body that never end, a byte now and then."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 100_000)


def bomb(handler):
    """100 MB of blanks in 100 KB, though nothing compressed was asked for."""
    send(handler, gzip.compress(b" " * 100_000_000), Content_Encoding="gzip")


def compressed(handler):
    """A list with a day, compressed though nothing compressed was asked for: of what size?"""
    body = gzip.compress(
        json.dumps({"data": [{"id": "m", "shutdown_date": "2020-01-01"}]}).encode()
    )
    send(handler, body, Content_Encoding="gzip")


OTHERS = {
    "compressed": compressed,
    "no such route": lambda handler: send(handler, b'{"detail": "Not Found"}', 404),
    "refused": lambda handler: send(handler, b"{}", 401),
    "broken": lambda handler: send(handler, b"{}", 500),
    "no date": listed(None),
    "another form of date": listed(["2020-01-01"]),
    "no JSON": lambda handler: send(handler, b"<html>"),
    "a list": lambda handler: send(handler, b"[]"),
    "no data": lambda handler: send(handler, b"{}"),
    "names alone": lambda handler: send(handler, b'{"data": ["m"]}'),
    "deep": lambda handler: send(handler, b"[" * 100_000),
    "silence": lambda handler: time.sleep(3),
    "a drip": drip,
    "endless": endless,
    "a bomb": bomb,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_reply_changes_nothing(capsys, monkeypatch, kind):
    monkeypatch.setattr(model_list, "SECONDS", 0.5)
    assert warn(OTHERS[kind], capsys) == ""


def test_a_list_of_any_size_is_not_read_to_its_end(capsys, monkeypatch):
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 100)
    assert warn(listed("2020-01-01"), capsys) == ""


def test_it_is_asked_before_the_first_request_and_not_without_one(tmp_path, monkeypatch):
    """Three starts: a prompt is asked, the same is in the journal, another is asked."""
    n_before = []
    with FaultServer() as server, Journal(tmp_path / "j.jsonl") as journal:
        monkeypatch.setattr(
            "common.generate.client.warn_of_shutdown", lambda _: n_before.append(len(server.asked))
        )
        for prompts in (["a"], ["a"], ["a", "b"]):
            client = Client("m", server.url, 2, budget=Budget("m", 0, 0))
            complete(client, map(Request, prompts), Sampling(max_new_tokens=5), journal)
    assert n_before == [0, 1] and len(server.asked) == 2
