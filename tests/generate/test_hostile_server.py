"""Servers that attack: endless bodies, compressed bombs, redirects, the key sent back in disguise.

What they may cost is bounded: bytes are counted at the server, memory in this process.
"""

import gzip
import json
import resource
import socket
import threading
from contextlib import suppress

import pytest

from common.core.errors import Stopped
from common.generate import transport
from common.generate.client import Client
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, complete

KEY = "k-7Q!x"
ANSWER = {"choices": [{"finish_reason": "stop", "message": {"content": "text"}}]}


class RawServer:
    """A server of one manner: it reads a request, and calls write(send) for the response."""

    def __init__(self, write):
        self.write, self.n_requests, self.n_bytes = write, 0, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        def send(data):
            connection.sendall(data)
            self.n_bytes += len(data)

        with connection:
            if b"chat/completions" in connection.recv(65536):
                self.n_requests += 1
                with suppress(OSError):  # the client has had enough
                    self.write(send)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()


def head(*lines, status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def ask(url, path, **attributes):
    engine = Client("m", url, timeout=20)
    for name, value in ({"tries": 1} | attributes).items():
        setattr(engine, name, value)
    with Journal(path) as journal:
        return complete(engine, [Request([{"role": "user", "content": "q"}])], Sampling(), journal)


def test_an_endless_body_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1_000_000)

    def write(send):
        send(head("Content-Type: application/json"))
        while True:
            send(b" " * 65536)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with RawServer(write) as server:
        (record,) = ask(server.url, tmp_path / "journal.jsonl")
        assert "error" in record and server.n_bytes < 20_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_compressed_body_is_not_opened(tmp_path):
    bomb = gzip.compress(b" " * 200_000_000)

    def write(send):
        send(head("Content-Encoding: gzip", f"Content-Length: {len(bomb)}"))
        send(bomb)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with RawServer(write) as server:
        (record,) = ask(server.url, tmp_path / "journal.jsonl")
        assert "gzip" in record["error"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_not_followed(status, tmp_path):
    with RawServer(lambda send: None) as other:
        location = f"Location: {other.url}/chat/completions"
        with RawServer(lambda send: send(head(location, status=status))) as server:
            with pytest.raises(Stopped) as end:
                ask(server.url, tmp_path / "journal.jsonl")
            assert end.value.status == 2 and "sends elsewhere" in str(end.value)
        assert other.n_requests == 0


def test_a_redirect_to_no_url_is_told_as_any(tmp_path):
    response = head("Location: http://[::1", status="302 Found")
    with RawServer(lambda send: send(response)) as server, pytest.raises(Stopped) as end:
        ask(server.url, tmp_path / "journal.jsonl")
    assert end.value.status == 2


def escaped(text):
    return "".join(f"\\u{ord(c):04x}" for c in text)


@pytest.mark.parametrize("spelling", [str, escaped])
def test_a_key_that_comes_back_is_written_nowhere(spelling, tmp_path, monkeypatch):
    """Also a short one, and one in the escapes of JSON."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    body = json.dumps(ANSWER).replace("text", f"it is {spelling(KEY)}!").encode()
    body = body.replace(b"\\\\u", b"\\u")
    form = head("Content-Type: application/json", f"Content-Length: {len(body)}")
    with RawServer(lambda send: send(form + body)) as server:
        (record,) = ask(server.url, tmp_path / "journal.jsonl")
    assert record["text"] == "it is ***!"
    assert KEY not in (tmp_path / "journal.jsonl").read_text()
