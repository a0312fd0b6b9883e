"""Questions from the command line: the answers are for the screen, and nothing is kept."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from common.core.errors import InputError
from common.data import test_sets
from common.evaluate.models import open_model
from common.generate.journal import Journal
from common.generate.requests import Request, Sampling, complete
from common.train import distributed


def answer_questions(specs: list, config, sampling: Sampling) -> list:
    """Return the answers of the only model in specs to config.ask, asked as a maths test set asks.

    What got no answer is the reason, in brackets.
    """
    if len(specs) != 1 or distributed.world_size() > 1:
        raise InputError(
            f"--ask is answered by one model in one process; there are {len(specs)} models.\n"
            'Name one: python 05_eval.py --model NAME --ask "What is 2 + 3?"'
        )
    model = open_model(specs[0], config)
    system, stop = test_sets.MATH_FORM
    texts = model.write_prompts(config.ask, system)
    requests = [Request(text, must_finish=True) for text in texts]
    sampling = replace(sampling, stop=list(stop))
    with TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl") as journal:
        outputs = complete(model.engine, requests, sampling, journal, "05 --ask")
    model.engine.close()
    return [output.get("text") or f"({output.get('error', 'nothing')})" for output in outputs]
