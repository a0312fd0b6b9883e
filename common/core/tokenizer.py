"""A tokenizer, and the folder of a model, from a path or a hub id."""

from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.core.errors import InputError


def load_tokenizer(folder):
    """The folder's tokenizer, with a pad token; InputError where the folder has none."""
    # transformers 5 makes an empty tokenizer of a folder without one, so look before loading.
    if not any(
        (Path(folder) / name).is_file()
        for name in ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt")
    ):
        raise InputError(
            f"{folder} holds no tokenizer (no tokenizer.json, vocab.json or tokenizer.model).\nCopy the base "
            "model's there: AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the tokenizer of {folder} cannot be read ({type(error).__name__}: {str(error)[:200]})\n"
            "Copy the base model's tokenizer files there once more."
        ) from error
    stored = Path(folder) / "tokenizer.json"
    if (
        stored.is_file()
    ):  # transformers 5 picks the class by architecture, which is not always what the folder holds
        probe = "Question:\nIs 12 + 30 = 42?\n\nSolution:\nYes, \\boxed{42}."
        if (
            tokenizer(probe, add_special_tokens=False).input_ids
            != Tokenizer.from_file(str(stored)).encode(probe, add_special_tokens=False).ids
        ):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def local_folder(name, weights=True):
    """A folder as it is; a hub id is downloaded first (by one process of a node; the others find it in the cache), without
    its weights where they are not needed."""
    check = with_weights if weights else str
    if Path(name).is_dir():
        if (Path(name) / "adapter_config.json").is_file():
            raise InputError(
                f"{name} is an adapter, not a model.\nMerge it: the command that trained it, with --merge; then give {name}/merged"
            )
        if not (Path(name) / "config.json").is_file():
            raise InputError(
                f"{name} is not a model folder: it has no config.json.\nGive the folder of a saved model."
            )
        return check(str(name))
    if Path(name).is_absolute() or str(name).startswith((".", "runs/")) or str(name).count("/") > 1:
        raise InputError(
            f"there is no model folder {name}\nGive the folder of a saved model: --model FOLDER (the tiny base is made by 01_sample.py)"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        unread = ["*.bin", "*.pth", "*.gguf", "original/*"] + ([] if weights else ["*.safetensors"])
        return check(snapshot_download(name, ignore_patterns=unread))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"model {name!r} is neither a folder here nor to be had from the hub; give --model FOLDER or a hub id\n"
            f"({type(error).__name__}: {str(error)[:400]})"
        ) from error


def with_weights(folder):
    if not list(Path(folder).glob("*.safetensors")):
        raise InputError(
            f"{folder} holds no *.safetensors weights.\nSave the model once more with save_pretrained."
        )
    return folder
