"""The micro-world's teacher: rules behind a real OpenAI-compatible HTTP server on loopback.

It answers the paper's two teacher prompts. Its style is part of the model name, as with any
server that serves several models: "tiny-teacher:skip=0.2:critique=full", or with ":errors=0.2".
  skip      the share of the lines before the last that its own answers leave out
  critique  full: redoes every line
            terse: leaves lines out with probability skip, never the first wrong one
            brief: the first wrong line and the right result
            verdict: the conclusion alone
  errors    the share of critiques in which it calculates as sloppily as the web
"""

import json
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from common.tiny import world

_QUESTION = re.compile(r"Start with (\d+)((?:\n\(\d\) [-+*] \d)+)")
_STEP = re.compile(r"\(\d\) ([-+*]) (\d)")
_LINE = re.compile(r"\((\d)\) \d+ [-+*] \d = (\d+)")
_BOXED = re.compile(r"\\boxed\{ (\d+) \}")


def model_name(skip: float, critique: str, errors: float = 0.0) -> str:
    """Return the name under which a teacher of this style is served."""
    name = f"tiny-teacher:skip={skip}:critique={critique}"
    return f"{name}:errors={errors}" if errors else name


# Differs from the paper: the tiny teacher ends its answers in a box, as the web does, although
# the prompt asks for 'Answer: ...'.
def answer(problem: world.Problem, skip: float) -> str:
    """Return a right solution; each line before the last is left out with probability `skip`."""
    values = world.chain(problem)
    shown = world.draw_lines(random.Random(f"answer {problem.question}"), values, skip)
    return world.solution(problem, values, shown)


def critique(
    problem: world.Problem, response: str, skip: float, style: str, errors: float = 0.0
) -> str:
    """Return a critique of a response, in one of the four styles.

    In a share `errors` of them the teacher is mistaken, if there is something to be mistaken
    about (a carry, a borrow, the larger tables).
    """
    mistaken = random.Random(f"errors {problem.question} {response}").random() < errors
    values = world.chain(problem, sloppy=mistaken)
    last = len(values) - 1
    student = _student_values(response, last)
    wrong = [i for i, value in enumerate(values) if student.get(i, value) != value]
    if style == "terse":
        rng = random.Random(f"critique {problem.question} {response}")
        shown = world.draw_lines(rng, values, skip).union(wrong[:1])
    elif style == "brief":
        shown = {*wrong[:1], last}
    else:
        shown = set(range(len(values)))
    text = world.critique(problem, values, student, shown)
    return text.rpartition("\n")[2] if style == "verdict" else text


def _student_values(response, last):
    """Return {line from 0: value} of a response.

    Its box counts as line `last`, also if that line is missing or says otherwise.
    """
    values = {int(number) - 1: int(value) for number, value in _LINE.findall(response)}
    values.pop(last, None)
    if boxed := _BOXED.findall(response):
        values[last] = int(boxed[-1])
    return values


def reply(model: str, messages: list) -> str:
    """Return the teacher's text for one request; ValueError for a prompt of another world."""
    settings = dict(part.split("=", 1) for part in model.split(":")[1:])
    skip = float(settings["skip"])
    text = messages[-1]["content"]
    question = _QUESTION.search(text)
    if not question:
        raise ValueError("the tiny teacher knows only the micro-world's questions")
    steps = tuple((op, int(operand)) for op, operand in _STEP.findall(question[2]))
    problem = world.Problem(int(question[1]), steps)
    _, label, response = text.partition("Solution:\n")
    if not label:
        return answer(problem, skip)
    errors = float(settings.get("errors", 0))
    return critique(problem, response, skip, settings["critique"], errors)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps a client's connection open
    disable_nagle_algorithm = True  # headers and body are two writes; do not wait between them

    def do_POST(self):  # noqa: N802, the name that http.server calls
        """Answer a chat completion; 400 for anything else."""
        try:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = 200, _completion(request["model"], request["messages"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            status, body = 400, {"error": {"message": str(error)}}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def _completion(model, messages):
    """Return a chat completion as an OpenAI-compatible server does; a word counts as a token."""
    text = reply(model, messages)
    n_in = sum(len(message["content"].split()) for message in messages)
    message = {"role": "assistant", "content": text}
    return {
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": n_in, "completion_tokens": len(text.split())},
    }


def serve() -> str:
    """Serve on a free loopback port until this process ends; return the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"
