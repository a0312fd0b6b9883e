"""One of the processes of pool.py: it holds a model of its own and answers chunks of prompts."""

import json
import os
import queue
import sys
import threading

from common.core.errors import InputError


def serve():
    """Answer chunks on stdin, one a line after a line of settings, until it is closed: [index, answer] lines, then "done"."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not be taken for a reply
    lines = queue.SimpleQueue()

    def listen():
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # the parent has ended, perhaps in the middle of a chunk

    threading.Thread(target=listen, daemon=True).start()
    say = lambda reply: print(json.dumps(reply), file=replies, flush=True)
    settings = json.loads(lines.get())
    import torch

    from common.generate.local import Local

    try:
        torch.set_num_threads(settings.pop("threads"))
        if settings["device"] != "cpu":
            torch.cuda.set_device(settings["device"])
        engine = Local(**settings)
        while True:
            for found in engine.texts(**json.loads(lines.get())):
                say(found)
            say("done")
    except InputError as error:
        say({"failed": str(error), "status": error.status})


if __name__ == "__main__":
    serve()
