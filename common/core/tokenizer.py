"""A tokenizer, and the folder of a model, from a path or a hub id."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.core import prompts
from common.core.errors import InputError

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt")
OTHER_FORMATS = ["*.bin", "*.pth", "*.gguf", "original/*"]  # of weights on the hub, not downloaded
TOKENIZER_ROWS = 1000  # rows per call of the tokenizer, which spreads them over the cores
PROBE = "Question:\nIs 12 + 30 = 42?\n\nSolution:\nYes, \\boxed{42}."


def load_tokenizer(folder):
    """Return the folder's tokenizer, with a pad token; raise InputError if the folder has none."""
    folder = Path(folder)
    # transformers 5 makes an empty tokenizer of a folder without one, so look before loading.
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(
            f"{folder} holds no tokenizer (no tokenizer.json, vocab.json or tokenizer.model).\n"
            "Copy the base model's there: "
            "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the tokenizer of {folder} cannot be read ({type(error).__name__}: "
            f"{str(error)[:200]})\nCopy the base model's tokenizer files there once more."
        ) from error
    # transformers 5 picks the class by architecture, which may split text in another way.
    stored = folder / "tokenizer.json"
    if stored.is_file() and _probe_ids(tokenizer) != _stored_probe_ids(stored):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _probe_ids(tokenizer):
    return tokenizer(PROBE, add_special_tokens=False).input_ids


def _stored_probe_ids(path):
    return Tokenizer.from_file(str(path)).encode(PROBE, add_special_tokens=False).ids


def encode_rows(rows: list, tokenizer, template: str) -> Iterator:
    """Yield (prompt ids, completion ids) of each row of 03.

    The completion's ids end with the template's end token. The two are tokenized apart, because at
    test time the model goes on from exactly the prompt's ids.
    Example (ChatML): [<|im_start|> system ... assistant \\n] and [Critique : ... [END] <|im_end|>].
    """
    for start in range(0, len(rows), TOKENIZER_ROWS):
        prompt_texts, completion_texts = [], []
        for row in rows[start : start + TOKENIZER_ROWS]:
            completion = row["completion"][0]["content"]
            prompt_texts.append(prompts.render(row["prompt"], template))
            completion_texts.append(prompts.render_completion(completion, template, tokenizer))
        prompt_ids = tokenizer(prompt_texts).input_ids
        completion_ids = tokenizer(completion_texts, add_special_tokens=False).input_ids
        yield from zip(prompt_ids, completion_ids)


def local_folder(name, weights: bool = True) -> str:
    """Return the folder of a model; a hub id is downloaded first.

    One process of a node downloads, the others find it in the cache. weights: whether they are
    needed. Raises InputError if it is no model, or has no weights although they are needed.
    """
    folder = Path(name)
    if folder.is_dir():
        _check_model_folder(folder)
    elif folder.is_absolute() or str(name).startswith((".", "runs/")) or str(name).count("/") > 1:
        raise InputError(
            f"there is no model folder {name}\nGive the folder of a saved model: --model FOLDER "
            "(the tiny base is made by 01_sample.py)"
        )
    else:
        name = _download(str(name), weights)
    return require_weights(str(name)) if weights else str(name)


def _check_model_folder(folder):
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder} is an adapter, not a model.\nMerge it: the command that trained it, "
            f"once more; then give {folder}/merged"
        )
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} is not a model folder: it has no config.json.\n"
            "Give the folder of a saved model."
        )


def _download(name, weights):
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    unused = OTHER_FORMATS if weights else [*OTHER_FORMATS, "*.safetensors"]
    try:
        return snapshot_download(name, ignore_patterns=unused)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"model {name!r} is neither a folder here nor to be had from the hub; "
            f"give --model FOLDER or a hub id\n({type(error).__name__}: {str(error)[:400]})"
        ) from error


def require_weights(folder: str) -> str:
    """Return the folder; raise InputError if it holds no *.safetensors."""
    if not list(Path(folder).glob("*.safetensors")):
        raise InputError(
            f"{folder} holds no *.safetensors weights.\nSave the model once more with "
            "save_pretrained."
        )
    return folder
