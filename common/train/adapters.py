"""LoRA and QLoRA: small trainable matrices on a frozen base, by peft and bitsandbytes.

The base is not sharded: each process holds all of it, in 4 bits or in the type that its device
computes in, and the adapters in float32. The training loop averages their gradients over the
processes.
"""

import math
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig

from common.core.errors import InputError, failed
from common.core.tokenizer import load_tokenizer
from common.train import distributed
from common.train.checkpoints import empty_part, publish
from common.train.model import check_loss, make_trainable, read_config


def load(
    folder,
    device: torch.device,
    rank: int,
    four_bits: bool = False,
    recomputed: int = 0,
    seed: int = 0,
):
    """Return a frozen base with trainable adapters on every linear layer but the head.

    They are scaled by 2, as is usual (lora_alpha = 2 x rank). The model has the interface of
    model.load's.
    """
    peft = _import_peft()
    dtype = distributed.compute_dtype(device)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        trust_remote_code=False,
        config=read_config(folder),
        dtype=dtype,
        device_map={"": device},
        quantization_config=_nf4(dtype) if four_bits else None,
        output_loading_info=True,
    )
    model, report = loaded
    check_loaded(report, folder)
    torch.manual_seed(seed)  # the same adapters on every process, whatever was trained before
    model.add_adapter(
        peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    )
    for p in model.parameters():
        if p.requires_grad:  # made in the base's type, in which small updates are lost
            p.data = p.data.float()
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.cast_input_dtype_enabled = False  # autocast brings both to one type
    model.peft_config["default"].base_model_name_or_path = _base_name(folder)
    make_trainable(model, recomputed)
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    model.completion_loss = autocast(model.completion_loss)
    autocast(check_loss)(model, folder)
    return model


def check_loaded(report: dict, folder) -> None:
    """Raise InputError if transformers found weights without a place, or places without weights."""
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(map(str, report.get(problem) or []))
        if names:
            raise InputError(
                f"{folder}: {problem.replace('_', ' ')} between config.json and the files: "
                f"{', '.join(names[:3])} ({len(names)} in all).\n"
                "Take config.json and weights of the same model."
            )


def _nf4(dtype) -> BitsAndBytesConfig:
    """4-bit NormalFloat, its scales quantized again (QLoRA, 2305.14314)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _base_name(folder) -> str:
    """Return what saved adapters call their base: its hub id, or the folder's path."""
    in_cache = re.search(r"models--(.+?)--(.+?)/snapshots/", str(folder))
    return f"{in_cache[1]}/{in_cache[2]}" if in_cache else str(Path(folder).resolve())


def _import_peft():
    """peft imports bitsandbytes if that is installed, and is broken if that is."""
    try:
        import peft
    except Exception as error:
        fix = "Fix what it names; unless you need bitsandbytes: pip uninstall bitsandbytes"
        raise failed("peft cannot be imported", error, fix) from error
    return peft


def check_bitsandbytes(device: torch.device) -> None:
    """Raise InputError if bitsandbytes cannot work on this device: it says so only when used."""
    try:
        from bitsandbytes import functional

        ones = torch.ones(64, 64, device=device)
        functional.dequantize_4bit(*functional.quantize_4bit(ones, quant_type="nf4"))
    except Exception as error:  # whatever its libraries raise
        raise failed(
            f"bitsandbytes does not work on this {device.type}",
            error,
            "Leave it out (--method lora, no --load-in-4bit), or install the build for your CUDA: "
            "pip install -U bitsandbytes; python -m bitsandbytes says what is missing.",
        ) from error


def merge(folder: Path, base, dtype: torch.dtype) -> None:
    """Write `folder`/merged: the adapter of a peft folder added to `base`, a plain model folder.

    It is added in float32 on the CPU and saved in `dtype`. The base is the full-precision one, also
    if the adapter was trained on 4 bits of it.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        base,
        trust_remote_code=False,
        config=read_config(base),
        dtype=torch.float32,
        output_loading_info=True,
    )
    model, report = loaded
    check_loaded(report, base)
    merged = add_adapter(model, folder)
    merged_folder = Path(folder) / "merged"
    part = empty_part(merged_folder)
    merged.generation_config = GenerationConfig.from_pretrained(folder)
    merged.to(dtype).save_pretrained(part)
    load_tokenizer(folder).save_pretrained(part)
    publish(part, merged_folder)


def add_adapter(model, folder):
    """Return a model with the adapter of a peft folder added to its weights."""
    peft = _import_peft()
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # peft's, of an old name
        # Missing weights would make an adapter that does nothing; peft only warns.
        warnings.filterwarnings("error", "Found missing adapter keys")
        return peft.PeftModel.from_pretrained(model, folder).merge_and_unload()


def merge_if_possible(folder: Path, base, dtype: torch.dtype, n_parameters: int) -> str:
    """Merge an adapter unless it is; return where that is, or why there is no room for it."""
    if not (folder / "merged").exists():
        free = _free_memory()
        if free < 4 * n_parameters:
            return (
                f"note: {folder} is not merged: that holds the base in float32 on the CPU, "
                f"{4 * n_parameters / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free. "
                "The same command on a machine with more memory merges it."
            )
        merge(folder, base, dtype)
    return f"merged: {folder / 'merged'}"


def _free_memory() -> float:
    """Return the free memory in bytes; infinity if this is not Linux."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return math.inf
    return 1024 * int(re.findall(r"MemAvailable:\s+(\d+)", meminfo.read_text())[0])
