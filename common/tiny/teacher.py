"""The micro-world's teacher: rules behind a real OpenAI-compatible HTTP server on loopback.

It answers the paper's two teacher prompts. How it writes rides in the model name, as with any server that serves
several models: "tiny-teacher:skip=0.2:critique=full" (":errors=0.2" where it makes some).
  skip      the share of the lines before the last that its own answers leave out
  critique  full: redoes every line; terse: leaves lines out with probability skip, never the first wrong one;
            brief: the first wrong line and the right result; verdict: the conclusion alone
  errors    the share of critiques in which it calculates as sloppily as the web, and judges by that
"""

import json
import random
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from common.core import prompts
from common.tiny import world

CRITIQUES = ("full", "terse", "brief", "verdict")
_QUESTION = re.compile(r"Start with (\d+)((?:\n\(\d\) [-+*] \d)+)")
_LINE = re.compile(r"\((\d)\) \d+ [-+*] \d = (\d+)")


def model_name(skip, critique, errors=0.0):
    return f"tiny-teacher:skip={skip}:critique={critique}" + (f":errors={errors}" if errors else "")


# Differs from the paper: the tiny teacher ends its answers in a box, as the web does, although the prompt asks for 'Answer: ...'.
def answer(problem, skip):
    """All lines right; each line before the last is left out with probability `skip`."""
    rng = random.Random(f"answer {problem.question}")
    values = world.chain(problem)
    # The n-th random number belongs to the n-th line, so a larger skip leaves out a superset of the lines.
    shown = {i for i in range(len(values)) if rng.random() >= skip}
    return world.solution(problem, values, shown)


def critique(problem, response, skip, style, errors=0.0):
    """Judge a response, in one of the CRITIQUES styles; the teacher is mistaken in a share `errors` of them, where there is something
    to be mistaken about (a carry, a borrow, the larger tables)."""
    mistaken = random.Random(f"errors {problem.question} {response}").random() < errors
    values = world.chain(problem, sloppy=mistaken)
    student = {int(n) - 1: int(value) for n, value in _LINE.findall(response)}
    boxed = re.findall(r"\\boxed\{ (\d+) \}", response)
    last = len(values) - 1
    if boxed:
        student[last] = int(
            boxed[-1]
        )  # the answer counts, also where the last line is missing or says otherwise
    else:
        student.pop(last, None)
    wrong = [i for i, value in enumerate(values) if i in student and student[i] != value]
    shown = set(range(len(values)))
    if style == "terse":
        rng = random.Random(f"critique {problem.question} {response}")
        shown = {i for i in shown if rng.random() >= skip} | set(wrong[:1])
    if style == "brief":
        shown = set(wrong[:1]) | {last}
    text = world.critique(problem, values, student, shown)
    return text[text.index("Conclusion:") :] if style == "verdict" else text


def reply(model, messages):
    """The teacher's text for one request; ValueError where it is not a prompt of this world."""
    settings = dict(part.split("=", 1) for part in model.split(":")[1:])
    text = messages[-1]["content"]
    found = _QUESTION.search(text)
    if not model.startswith("tiny-teacher:") or not found:
        raise ValueError("the tiny teacher knows only the micro-world's questions")
    steps = re.findall(r"\(\d\) ([-+*]) (\d)", found[2])
    problem = world.Problem(int(found[1]), tuple((op, int(n)) for op, n in steps))
    for opening, label in (
        (prompts.TEACHER_CRITIQUE, "\n\nSolution:\n"),
        (prompts.ONE_SHOT_CRITIQUE, "\n\nStudent's Solution:\n"),
    ):
        if text.startswith(opening):
            return critique(
                problem,
                text.split(label, 1)[1],
                float(settings["skip"]),
                settings["critique"],
                float(settings.get("errors", 0)),
            )
    return answer(problem, float(settings["skip"]))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps a client's connection open
    disable_nagle_algorithm = True  # headers and body are two writes; do not wait between them

    def _send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        """Answer a chat completion; 400 for anything else."""
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = reply(body["model"], body["messages"])
            n_in, n_out = (
                sum(len(m["content"].split()) for m in body["messages"]),
                len(text.split()),
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            return self._send(
                400, {"error": {"message": str(error), "type": "invalid_request_error"}}
            )
        self._send(
            200,
            {
                "id": "tiny",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": text},
                    }
                ],
                "usage": {
                    "prompt_tokens": n_in,
                    "completion_tokens": n_out,
                    "total_tokens": n_in + n_out,
                },
            },
        )

    def log_message(self, *arguments):
        pass


def serve():
    """Start the server on a free loopback port. -> (base URL, function that stops it)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop():
        server.shutdown()
        server.server_close()

    return f"http://127.0.0.1:{server.server_port}/v1", stop
