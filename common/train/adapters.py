"""LoRA and QLoRA: small trainable matrices on a frozen base, by peft and bitsandbytes.

The base is not sharded: each process holds all of it, in bfloat16 or 4 bits (on a CPU float32), and the adapters in
float32. The training loop averages their gradients over the processes.
"""

import re
import warnings
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig

from common.core.errors import InputError
from common.core.tokenizer import load_tokenizer
from common.train.checkpoints import empty_part, publish
from common.train.model import make_trainable, read_config


def load(folder, device, rank, alpha, four_bits=False, activation_checkpointing=False, seed=0):
    """A frozen base with trainable adapters on every linear layer but the head; the interface of common.model.load."""
    LoraConfig = _peft().LoraConfig
    compute = torch.bfloat16 if device.type == "cuda" else torch.float32
    # 4-bit NormalFloat, its scales quantised again (QLoRA, arXiv 2305.14314)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        config=read_config(folder),
        dtype=compute,
        device_map={"": device},
        **({"quantization_config": nf4} if four_bits else {}),
    )
    torch.manual_seed(seed)  # the same adapters on every process, whatever was trained before
    model.add_adapter(
        LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for p in model.parameters():
        if (
            p.requires_grad
        ):  # transformers makes them in the base's type, in which small updates are lost
            p.data = p.data.float()
    hub = re.search(
        r"models--(.+?)--(.+?)/snapshots/", str(folder)
    )  # what saved adapters call their base
    model.peft_config["default"].base_model_name_or_path = (
        f"{hub[1]}/{hub[2]}" if hub else str(Path(folder).resolve())
    )
    make_trainable(model, activation_checkpointing)
    model.completion_loss = torch.autocast(
        device.type, torch.bfloat16, enabled=device.type == "cuda"
    )(model.completion_loss)
    return model


def _peft():
    """peft, which imports bitsandbytes where that is installed: needed by adapters only, and broken where that is."""
    try:
        import peft
    except Exception as error:
        raise InputError(
            f"peft cannot be imported ({type(error).__name__}: {str(error)[:300]})\nMend what it names; where that is "
            "bitsandbytes and you need none: pip uninstall bitsandbytes"
        ) from error
    return peft


def check_bitsandbytes(device):
    """InputError where bitsandbytes cannot work on this device; it says so only when it is used."""
    try:
        from bitsandbytes import functional

        functional.dequantize_4bit(
            *functional.quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4")
        )
    except Exception as error:  # whatever its libraries raise
        raise InputError(
            f"bitsandbytes does not work on this {device.type} ({type(error).__name__}: {str(error)[:300]})\n"
            "Train without it: --method lora --optimizer adamw; or install the build for your CUDA: "
            "pip install -U bitsandbytes; python -m bitsandbytes says what is missing."
        ) from error


def merge(folder, base, dtype):
    """Write `folder`/merged: the adapter of a peft folder added to `base` in float32, on the CPU, saved in `dtype` as a
    plain Hugging Face folder. The base is the full-precision one, also where the adapter was trained on 4 bits of it."""
    peft, out = _peft(), Path(folder) / "merged"
    part = empty_part(out)
    with warnings.catch_warnings(
        action="ignore", category=FutureWarning
    ):  # peft calls transformers by an old name
        merged = peft.PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder
        ).merge_and_unload()
    merged.generation_config = GenerationConfig.from_pretrained(folder)
    merged.to(dtype).save_pretrained(part)
    load_tokenizer(folder).save_pretrained(part)
    publish(part, out)


def check_memory_to_merge(n_parameters):
    """-> a line that says what a merge needs; InputError where this machine has less free."""
    needed = f"merging holds the base in float32 on the CPU: {4 * n_parameters / 1e9:.2f} GB"
    if Path("/proc/meminfo").exists():  # Linux
        free = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
        if free < 4 * n_parameters:
            raise InputError(
                f"{needed}, and {free / 1e9:.2f} GB are free.\nTrain with --no-merge; the same command with --merge, "
                "on a machine with more memory, then merges what stands."
            )
    return needed
