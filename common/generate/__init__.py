"""Prompts -> texts, through a journal. An engine (`local`, `server`) only generates; what is recorded is decided here."""

from dataclasses import asdict, dataclass, field

from tqdm import tqdm

from common.files import content_id


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; max_new_tokens counts tokens; generation ends before the first of `stop`.

    With a seed the same prompt and sample index draw the same text again, where the engine can.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 2048
    stop: list = field(default_factory=list)
    seed: int | None = None


@dataclass(frozen=True)
class Request:
    """prompt: raw text, or messages. `sample` tells samples of one prompt apart, `attempt` repeated tries of one."""

    prompt: str | list
    sample: int = 0
    attempt: int = 0


def cut_at_stop(text, stop):
    """-> (text before the first stop string, whether there was one)."""
    found = [at for s in stop if (at := text.find(s)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def complete(engine, requests, sampling, journal, label=""):
    """-> one record per request, in order: {"key", "text", "finish_reason", "usage"}; `error` instead where it failed.

    A record's key is a hash of the model's identity, the prompt, the sampling settings, the sample index and the
    attempt. What the journal holds under its key is not asked again; a failure is not recorded, so a restart asks again.
    """
    settings = asdict(sampling)
    keys = [content_id(engine.identity, r.prompt, settings, r.sample, r.attempt) for r in requests]
    done = {i for i, key in enumerate(keys) if key in journal}
    failed = {}
    with tqdm(total=len(keys), initial=len(done), desc=label, unit="row", disable=len(done) == len(keys)) as bar:
        for answers in engine.generate(requests, keys, sampling, done):
            journal.append([{"key": keys[i], **answer} for i, answer in answers if "error" not in answer])
            failed.update((i, answer) for i, answer in answers if "error" in answer)
            bar.update(len(answers))
    return [failed[i] if i in failed else journal[key] for i, key in enumerate(keys)]
