"""Generation by a server's Batch API: half the price, within 24 hours (https://platform.openai.com/docs/guides/batch)."""

import json
import time

import openai

from common.core.errors import Stopped
from common.core.files import content_id, json_line
from common.generate.budget import BATCH, estimate_tokens
from common.generate.journal import Journal
from common.generate.responses import classify_error, classify_status, redact

LINES, BYTES = 50_000, 150_000_000  # of one part; the OpenAI API takes 50,000 lines and 200 MB
HOURS = 36  # a batch may take 24
ENDED = ("completed", "failed", "expired", "cancelled")


class Batch:
    """Engine over the Batch API of a `Client`: one part after the other, each within the queue's limit and the budget.

    path: the state, a Journal of parts. A part is noted before its batch is created, and the batch carries the part's name
    in its metadata: whatever a crash leaves unsaid is found again in the server's list, so that no part is paid twice.
    What a batch does not bring back well stays unsettled: the live engine finishes it.
    """

    def __init__(self, server, path, queue_tokens):
        self.server, self.identity, self.path, self.queue_tokens = (
            server,
            server.identity,
            path,
            queue_tokens,
        )
        self.state = ""

    def approve(self, tasks, journal):
        self.journal = journal
        self.server.approve(tasks, journal)

    def outstanding(self):
        """Whether a batch of an earlier start has not been collected."""
        with Journal(self.path) as parts:
            return any(not part.get("collected") for part in parts.records.values())

    def status(self):
        return f", batch {self.state}"

    def generate(self, tasks, deliver, show):
        """Collect what earlier starts have sent, then send the rest; deliver(task, answer) records each answer."""
        self.deliver, self.show = deliver, show
        self.open = {task.key: task for task in tasks if not task.settled}
        try:
            with (
                Journal(self.path) as self.parts,
                self.server.client(openai.OpenAI, openai.DefaultHttpxClient) as api,
            ):
                self.api = api.with_options(max_retries=5)
                for part in list(self.parts.records.values()):  # of a run that was ended
                    if part.get("collected") in (None, "in part"):
                        self._collect(part)
                few = 0  # parts of which little came back: what is then still missing is asked live
                while self.open and few < 2:
                    part = self._submit(self._next())
                    few = 0 if self._collect(part) >= 0.1 * len(part["keys"]) else few + 1
        except KeyboardInterrupt:
            raise Stopped(
                "interrupted; a batch that was sent goes on at the server.\nRun the same command again to collect it.",
                130,
            ) from None
        except (
            openai.OpenAIError,
            ValueError,
            TypeError,
            AttributeError,
        ) as error:  # the last three: no object of a Batch API
            kind, reason = classify_error(error, self.server.model, self.server.secret)
            if not isinstance(error, openai.OpenAIError) or getattr(error, "status_code", 0) in (
                404,
                405,
                501,
            ):
                kind, reason = 2, "it has no Batch API (files and batches).\nLeave --batch out"
            elif not isinstance(kind, int):
                kind, reason = 4, f"{reason}\nCheck --base-url and the network"
            raise Stopped(
                f"{self.server.where()}: {reason}, then run the same command again: what was answered is kept.",
                kind,
            ) from None

    def _next(self):
        """The tasks of the next part."""
        budget, part, n_tokens, n_bytes, usd = self.server.budget, [], 0, 0, 0.0
        for task in self.open.values():
            n_tokens += estimate_tokens(task.request.prompt)
            n_bytes += len(self._line(task))
            usd += budget.worst(task) * BATCH
            if len(part) == LINES or part and (n_bytes > BYTES or n_tokens > self.queue_tokens):
                break
            if usd > budget.left():
                if not part:
                    raise self.server.no_budget()
                break
            part.append(task)
        return part

    def _line(self, task):
        url = "/v1/completions" if isinstance(task.request.prompt, str) else "/v1/chat/completions"
        return json_line(
            {
                "custom_id": task.key,
                "method": "POST",
                "url": url,
                "body": self.server.request_body(task),
            }
        ).encode()

    def _submit(self, tasks):
        """-> the part's record, its batch created."""
        name = content_id(self.identity, [task.key for task in tasks], len(self.parts.records))
        file = self.api.files.create(
            file=(f"{name}.jsonl", b"".join(map(self._line, tasks))), purpose="batch"
        )
        part = {
            "key": name,
            "keys": [task.key for task in tasks],
            "file": file.id,
            "url": json.loads(self._line(tasks[0]))["url"],
            "tokens": sum(estimate_tokens(task.request.prompt) for task in tasks),
            "at": int(time.time()),
        }
        self.parts.append(part)
        once = self.api.with_options(
            max_retries=0
        )  # a lost reply may hide a batch that was created: look before another try
        for pause in (1, 5, 15, 60):
            try:
                batch = once.batches.create(
                    input_file_id=file.id,
                    endpoint=part["url"],
                    completion_window="24h",
                    metadata={"cft_part": name},
                ).id
            except (
                openai.APIConnectionError,
                openai.InternalServerError,
                openai.RateLimitError,
            ) as error:
                if classify_error(error, self.server.model, self.server.secret)[0] == 4:
                    raise
                time.sleep(pause)
                batch = self._find(name)
            if batch:
                return self._note(part, batch=batch)
        raise Stopped(
            f"{self.server.where()} creates no batch.\nRun the same command again later: what was answered is kept.",
            4,
        )

    def _note(self, part, **news):
        self.parts.append(part := part | news)
        return part

    def _find(self, name):
        """The id of the batch that carries a part's name, or None."""
        for batch in self.api.batches.list(limit=100):
            if (batch.metadata or {}).get("cft_part") == name:
                return batch.id
        return None

    def _collect(self, part):
        """Wait for a part's batch and deliver what it brings. -> how many answers."""
        batch_id = part.get("batch") or self._find(part["key"])
        if not batch_id:  # ended between noting the part and creating its batch
            self._note(part, collected="never created")
            return 0
        batch, n, others, ended = self._wait(part, batch_id), 0, 0, None
        keys = set(part["keys"])
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            content = self.api.files.content(file).content
            for line in (
                content.replace(self.server.secret.encode(), b"***")
                if self.server.secret
                else content
            ).splitlines():
                key, status, body = _fields(line)
                try:
                    if key in self.open:  # not so: foreign, twice, or taken before
                        n += self._take(key, status, body)
                    elif status == 200 and key in keys and key not in self.journal:
                        others += 1
                except Stopped as end:  # too many bad ones: all that was paid is taken in first
                    if end.status == 5:
                        raise
                    ended = end
        errors = (batch.errors.data if batch.errors else None) or []
        if (
            batch.status == "failed"
            and any(error.code == "token_limit_exceeded" for error in errors)
            and len(part["keys"]) > 1
        ):
            self.queue_tokens = (
                part["tokens"] // 2
            )  # the account's queue is smaller than --batch-tokens
            n = len(part["keys"])  # no fault of the rows
        elif batch.status == "failed":
            said = "; ".join(f"{error.code}: {error.message}" for error in errors)
            self._note(part, batch=batch_id, collected="failed")
            raise Stopped(
                f"the batch {batch_id} failed: {redact(said, self.server.secret)}\nMend that, or leave --batch out, then run the "
                "same command again.",
                4,
            )
        if others:
            print(
                f"{others} answers of {batch_id} are to requests that this run does not make; a later one finds them there"
            )
        self._note(part, batch=batch_id, collected="in part" if others else batch.status)
        if ended:
            raise ended
        return n

    def _wait(self, part, batch_id):
        pause = 0.2
        while True:
            try:
                batch = self.api.batches.retrieve(batch_id)
            except openai.NotFoundError:
                raise Stopped(
                    f"{self.server.where()} does not know {batch_id}, which was sent by an earlier start: is it the same key and "
                    f"--base-url?\nTo give it up, and pay for its requests again: rm {self.path}",
                    2,
                ) from None
            counts = batch.request_counts
            self.state = f"{batch.status} {f'{counts.completed}/{counts.total}' if counts else ''}"
            self.show()
            if batch.status in ENDED:
                return batch
            if time.time() - part["at"] > HOURS * 3600:
                raise Stopped(
                    f"the batch {batch_id} is {batch.status} after {HOURS} hours.\nRun the same command again later, or "
                    "cancel it.",
                    4,
                )
            time.sleep(pause)
            pause = min(30.0, pause * 1.5)

    def _take(self, key, status, body):
        """Deliver one line, where it is an answer; else its request stays open. -> whether it was one."""
        task = self.open[key]
        try:
            if status == 200:
                answer = self.server.finish(task, body, batch=True)
            else:
                kind, reason = classify_status(
                    status or 500,
                    body.get("error", body),
                    self.server.model,
                    key=self.server.secret,
                )
                answer = {"error": reason} if kind == "row" else None
        except (ValueError, AttributeError):
            return False
        if not answer:
            return False
        del self.open[key]
        self.deliver(task, answer)
        return True


def _fields(line):
    """A line of an output or error file -> (key, HTTP status, body), each None where the line has none."""
    try:
        line = json.loads(line)
        key, response = line.get("custom_id"), line.get("response")
        status, body = (
            (response.get("status_code"), response.get("body")) if response else (None, None)
        )  # expired, cancelled
    except (ValueError, AttributeError, RecursionError):
        return None, None, None
    return key if isinstance(key, str) else None, status if type(status) is int else None, body
