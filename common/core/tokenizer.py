"""A tokenizer, and the folder of a model, from a path or a hub id."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.core import prompts
from common.core.errors import InputError, failed
from common.core.special_tokens import encode, hide

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt")
OTHER_FORMATS = ["*.bin", "*.pth", "*.gguf", "original/*"]  # of weights on the hub, not downloaded
TOKENIZER_ROWS = 1000  # rows per call of the tokenizer, which spreads them over the cores
PROBE = "Question:\nIs 12 + 30 = 42?\n\nSolution:\nYes, \\boxed{42}."


def load_tokenizer(folder):
    """Return the folder's tokenizer, with a pad token; raise InputError if the folder has none."""
    folder = Path(folder)
    try:
        # transformers 5 makes an empty tokenizer of a folder without one.
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise OSError(f"none of {', '.join(TOKENIZER_FILES)}")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "Copy the base model's tokenizer files there."
        raise failed(f"{folder} holds no tokenizer that can be read", error, fix) from error
    # transformers 5 picks the class by architecture, which may split text in another way.
    stored = folder / "tokenizer.json"
    if stored.is_file():
        expected = Tokenizer.from_file(str(stored)).encode(PROBE, add_special_tokens=False).ids
        if tokenizer(PROBE, add_special_tokens=False).input_ids != expected:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode_rows(rows: list, tokenizer, template: str) -> Iterator:
    """Yield (prompt ids, completion ids) of each row of 03.

    The completion's ids end with the template's end token. Text of a row that looks like a special
    token is plain text. The two are tokenized apart, because at
    test time the model goes on from exactly the prompt's ids.
    Example (ChatML): [<|im_start|> system ... assistant \\n] and [Critique : ... [END] <|im_end|>].
    """
    for start in range(0, len(rows), TOKENIZER_ROWS):
        prompt_texts, completion_texts = [], []
        for row in rows[start : start + TOKENIZER_ROWS]:
            prompt = [m | {"content": hide(m["content"], tokenizer)} for m in row["prompt"]]
            prompt_texts.append(prompts.render(prompt, template, tokenizer))
            completion = hide(row["completion"][0]["content"], tokenizer)
            completion_texts.append(prompts.render_completion(completion, template, tokenizer))
        prompt_ids = encode(prompt_texts, tokenizer)
        completion_ids = encode(completion_texts, tokenizer, begin=False)
        yield from zip(prompt_ids, completion_ids)


def local_folder(name, weights: bool = True) -> str:
    """Return the folder of a model; a hub id is downloaded first.

    One process of a node downloads, the others find it in the cache. weights: whether they are
    needed. Raises InputError if it is no model, or has no weights although they are needed.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _download(str(name), weights)
    elif not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} is no model folder: it has no config.json.\n"
            "Give the folder of a saved model; an adapter is merged by the command that trained "
            f"it, once more: {folder}/merged"
        )
    return require_weights(str(folder)) if weights else str(folder)


def _download(name, weights):
    from huggingface_hub import snapshot_download

    unused = OTHER_FORMATS if weights else [*OTHER_FORMATS, "*.safetensors"]
    try:
        return snapshot_download(name, ignore_patterns=unused)
    except (OSError, ValueError) as error:  # ValueError: it is no id of a model
        summary = f"model {name!r} is neither a folder here nor to be had from the hub"
        raise failed(summary, error, "Give a FOLDER or a hub id.") from error


def require_weights(folder: str) -> str:
    """Return the folder; raise InputError if it holds no *.safetensors."""
    if not list(Path(folder).glob("*.safetensors")):
        raise InputError(
            f"{folder} holds no *.safetensors weights.\nSave the model once more with "
            "save_pretrained."
        )
    return folder
