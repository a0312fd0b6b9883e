"""Generation by a server's Batch API: half the price, within 24 hours.

https://platform.openai.com/docs/guides/batch
"""

import json
import time

import openai

from common.core.errors import Stopped
from common.core.files import content_id, json_line
from common.core.tables import count
from common.generate.budget import BATCH_DISCOUNT, estimate_tokens
from common.generate.client import GO_ON
from common.generate.journal import Journal
from common.generate.responses import ROWS, classify_error, classify_status, redact

# Of one part. The OpenAI API takes 50,000 lines and 200 MB.
MAX_LINES, MAX_BYTES = 50_000, 150_000_000
ENDED = ("completed", "failed", "expired", "cancelled")


class Batch:
    """Engine over the Batch API of a `Client`: part after part, within the queue and the budget.

    path: the state, a Journal of parts. A part is noted before its batch is created, and the batch
    carries the part's name in its metadata. What a crash leaves unsaid is found again in the
    server's list, so no part is paid twice. A request that a batch does not answer well stays
    unsettled: the live engine finishes it.
    """

    def __init__(self, client, path, queue_tokens):
        self.client, self.identity = client, client.identity
        self.path, self.queue_tokens = path, queue_tokens
        self.state = ""

    def approve(self, tasks, journal):
        self.journal = journal
        self.client.approve(tasks, journal)

    def outstanding(self) -> bool:
        """Return whether a batch of an earlier start has not been collected."""
        if not self.path.exists():
            return False
        with Journal(self.path) as parts:
            return not all("collected" in part for part in parts.records.values())

    def status(self) -> str:
        return f", batch {self.state}"

    def generate(self, tasks, deliver, show):
        """Collect what earlier starts have sent, then send the rest."""
        self.deliver, self.show = deliver, show
        self.open = {task.key: task for task in tasks if not task.settled}
        try:
            with Journal(self.path) as self.parts, self.client.open_api(sync=True) as api:
                self.api = api.with_options(max_retries=5)
                for part in list(self.parts.records.values()):
                    if part.get("collected") in (None, "in part"):
                        self._collect(part)
                n_poor = 0  # parts in a row that brought little: what is then open is asked live
                while self.open and n_poor < 2:
                    part = self._submit(self._next_part())
                    n_answers = self._collect(part)
                    n_poor = 0 if n_answers >= 0.1 * len(part["keys"]) else n_poor + 1
        except KeyboardInterrupt:
            raise Stopped(
                f"interrupted; a batch that was sent goes on at the server.\n{GO_ON}", 130
            ) from None
        # The last three: the server's replies are none of a Batch API.
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            kind, reason = classify_error(error, self.client.secret)
            raise Stopped(
                f"no batch at {self.client.server}: {reason}\nCheck --base-url, and leave --batch "
                f"out if the server has no Batch API. {GO_ON}",
                kind.exit_status or 4,
            ) from None

    # --- one part ---------------------------------------------------------------------------------

    def _next_part(self):
        """Return the tasks of the next part."""
        budget, part = self.client.budget, []
        n_tokens, n_bytes, usd = 0, 0, 0.0
        for task in self.open.values():
            n_tokens += estimate_tokens(task.request.prompt)
            n_bytes += len(self._line(task))
            usd += budget.worst(task) * BATCH_DISCOUNT
            if usd > budget.remaining() and not part:
                raise budget.exhausted()
            too_large = n_bytes > MAX_BYTES or n_tokens > self.queue_tokens
            if part and (too_large or usd > budget.remaining() or len(part) == MAX_LINES):
                break
            part.append(task)
        return part

    def _line(self, task) -> bytes:
        line = {"custom_id": task.key, "method": "POST", "url": _endpoint(task)}
        return json_line(line | {"body": self.client.request_body(task)}).encode()

    def _submit(self, tasks):
        """Upload a part and create its batch. Return the part's record."""
        keys = [task.key for task in tasks]
        name = content_id(self.identity, keys, len(self.parts.records))
        content = b"".join(self._line(task) for task in tasks)
        file = self.api.files.create(file=(f"{name}.jsonl", content), purpose="batch")
        part = self._note({"key": name, "keys": keys, "file": file.id})
        batches, url = self.api.with_options(max_retries=0).batches, _endpoint(tasks[0])
        metadata = {"cft_part": name}
        try:
            batch_id = batches.create(
                input_file_id=file.id, endpoint=url, completion_window="24h", metadata=metadata
            ).id
        except openai.APIConnectionError:  # the reply is lost: was a batch created?
            time.sleep(1)
            batch_id = self._find(name)
            if not batch_id:
                raise
        return self._note(part, batch=batch_id)

    def _note(self, part, **news):
        part = part | news
        self.parts.append(part)
        return part

    def _find(self, name):
        """Return the id of the batch that carries a part's name, or None."""
        for batch in self.api.batches.list(limit=100):
            if (batch.metadata or {}).get("cft_part") == name:
                return batch.id
        return None

    # --- its results ------------------------------------------------------------------------------

    def _collect(self, part) -> int:
        """Wait for a part's batch, deliver what it brings, and return how many answers came."""
        batch_id = part.get("batch") or self._find(part["key"])
        if not batch_id:  # the run ended between noting the part and creating its batch
            self._note(part, collected="never created")
            return 0
        batch = self._wait(batch_id)
        n_answers, n_unused = self._read_results(part, batch)
        collected = batch.status
        if n_unused:
            collected = "in part"
            print(f"note: {count(n_unused, 'answer')} of {batch_id} left for a run that asks so")
        self._note(part, batch=batch_id, collected=collected)
        if batch.status == "failed":
            errors = (batch.errors.data if batch.errors else None) or []
            reasons = "; ".join(f"{error.code}: {error.message}" for error in errors)
            raise Stopped(
                f"the batch {batch_id} failed: {redact(reasons, self.client.secret)}\n"
                "Give a smaller --batch-tokens if it was too large, or leave --batch out. "
                f"{GO_ON}",
                4,
            )
        return n_answers

    def _wait(self, batch_id):
        """Return a batch, once it has ended."""
        pause = 0.2
        while True:
            batch = self.api.batches.retrieve(batch_id)
            self.state = batch.status
            self.show()
            if batch.status in ENDED:
                return batch
            time.sleep(pause)
            pause = min(30.0, pause * 1.5)

    def _read_results(self, part, batch):
        """Deliver each answer of the batch's files.

        Return how many came, and how many are to requests that this run does not make.
        """
        n_answers = n_unused = 0
        for file in (batch.output_file_id, batch.error_file_id):
            content = self.api.files.content(file).content if file else b""
            for line in content.splitlines():
                try:
                    record = json.loads(line)
                    key = str(record["custom_id"])
                    response = record["response"] or {}  # None: expired, cancelled
                    status = int(response.get("status_code") or 500)
                    body = response.get("body")
                except Exception:  # whatever a stranger's line may cause
                    continue
                if key in self.open:  # else it is foreign, comes twice, or was taken before
                    n_answers += self._take(key, status, body)
                elif status == 200 and key in part["keys"] and key not in self.journal.records:
                    n_unused += 1
        return n_answers, n_unused

    def _take(self, key, status, body) -> bool:
        """Deliver one line if it is an answer, and return whether it is; else it stays open."""
        task = self.open[key]
        try:
            if status == 200:
                answer = self.client.read_answer(task, body, batch=True)
            else:
                kind, reason = classify_status(status, body, key=self.client.secret)
                if kind not in ROWS:
                    return False
                answer = {"error": reason}
        except (ValueError, AttributeError, TypeError):  # not what a server of this API sends
            return False
        del self.open[key]
        self.deliver(task, answer)
        return True


def _endpoint(task) -> str:
    return "/v1/completions" if task.request.is_raw else "/v1/chat/completions"
