"""What a training leaves on disk: checkpoints as Hugging Face folders, written in the background, and training states.

A checkpoint is taken as a CPU copy on process 0 while the others wait, and written while training goes on. Everything
appears under its final name at once or not at all.
"""

import copy
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, GenerationConfig

from common.core import prompts
from common.core.errors import InputError, cannot_write
from common.train.model import without_tied_head
from common.train.training_log import best_checkpoint, read_metrics

TRAINABLE = StateDictOptions(ignore_frozen_params=True)  # of an adapter run, the adapters alone


# --- checkpoints ----------------------------------------------------------------------------------------------------


def _trained(model, state):
    """Of a state dict what is trained: bitsandbytes counts the scales of a frozen base's 4 bits to the state, too."""
    return (
        {k: v for k, v in state.items() if "lora_" in k} if hasattr(model, "peft_config") else state
    )


def snapshot(model, dtype):
    """What a checkpoint holds, on process 0 (the others get None): an empty model, or the adapter's configuration, and a CPU
    copy of the trained weights in `dtype`, one tensor gathered at a time."""
    weights = {}
    state = _trained(model, get_model_state_dict(model, options=TRAINABLE))
    for name, tensor in without_tied_head(model, state).items():
        tensor = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()
        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if dist.get_rank() == 0:
            weights[name] = tensor.to("cpu", copy=True)
    if dist.get_rank() > 0:
        return None
    if not hasattr(model, "peft_config"):
        with torch.device(
            "meta"
        ):  # here and not where it is written: it sets torch's default type for all threads
            return AutoModelForCausalLM.from_config(model.config, dtype=dtype), weights
    adapter = copy.deepcopy(model.peft_config["default"])
    adapter.inference_mode, adapter.target_modules = True, sorted(adapter.target_modules)
    return adapter, weights


def write(taken, tokenizer, template, folder, keep_last=0, best=None):
    """Write a snapshot as a folder that transformers and peft read: weights, configuration, tokenizer, chat template,
    stop tokens. Of the arm's other checkpoints the last `keep_last` stay (0: all) and `best`."""
    part = empty_part(folder)
    shell, weights = taken
    tokenizer.chat_template = prompts.JINJA[template]
    try:
        if isinstance(shell, torch.nn.Module):
            shell.save_pretrained(part, state_dict=weights)
        else:
            part.mkdir(parents=True)
            save_file(
                {
                    f"base_model.model.{name.replace('.default', '')}": t.contiguous()
                    for name, t in weights.items()
                },
                part / "adapter_model.safetensors",
            )
            shell.save_pretrained(part)
        generation_config(tokenizer, template).save_pretrained(part)
        tokenizer.save_pretrained(part)
        publish(part, folder)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error) from error
    drop_older(folder.parent, keep_last, best)


def generation_config(tokenizer, template):
    """How the model is to end: with the template's end token, or its own."""
    end = tokenizer.convert_tokens_to_ids(prompts.end_token(template, tokenizer))
    stops = [end] + [tokenizer.eos_token_id] * (tokenizer.eos_token_id not in (None, end))
    return GenerationConfig(
        eos_token_id=stops, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    )


def save(model, tokenizer, template, folder, dtype):
    """Write the model as it is now, and wait for it. Every process calls this: gathering is collective."""
    taken = snapshot(model, dtype)
    if taken:
        write(taken, tokenizer, template, Path(folder))
    dist.barrier()


class Writer:
    """A thread of process 0 that writes one checkpoint at a time; what went wrong comes up when the next one begins."""

    def __init__(self):
        self.thread, self.writing = ThreadPoolExecutor(1), None

    def wait(self):
        """Until nothing is being written, on all processes. Called before a snapshot, so that one copy at most is in memory."""
        writing, self.writing = self.writing, None
        if writing:
            writing.result()
        dist.barrier()

    def start(self, function, *arguments):
        if dist.get_rank() == 0:
            self.writing = self.thread.submit(function, *arguments)


def checkpoint_names(folder):
    """The checkpoints that stand in an arm's folder, in order."""
    return sorted(found.name for found in folder.glob("step-*[0-9]"))


def remaining_writes(job, config):
    """Numbers of checkpoints, training states and merged models that an arm still has to write and that stand together."""
    missing = sum(not (job.folder / f"step-{step:06d}").exists() for step in job.saves)
    kept = (
        min(missing, config.keep_last + config.keep_best + 1) if config.keep_last else missing
    )  # an old one goes once the new one stands
    written = (len(job.plan) - 1) // config.state_every if config.state_every else 0
    states = 0 if job.last.exists() else 2 if written > 1 else 1  # one where the run is stopped
    return (
        (0 if job.last.exists() else kept),
        states,
        int(config.merge and not (job.last / "merged").exists()),
    )


def drop_older(folder, keep_last, best=None):
    """Of an arm's checkpoints the last `keep_last` stay (0: all), and `best`."""
    for name in checkpoint_names(folder)[:-keep_last] if keep_last else []:
        if name != best:
            remove(folder / name)


def clear(folder):
    """Remove what a kill left half-written or half-removed."""
    for left in [*folder.glob("*.part"), *folder.glob("*.old")] if dist.get_rank() == 0 else []:
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def finish(folder, keep_last, keep_best):
    """A trained arm needs no training state, and of its checkpoints those that are kept; whatever a kill left of it goes."""
    if dist.get_rank() == 0:
        clear(folder)
        for state in folder.glob("state-*[0-9]"):
            shutil.rmtree(state)
        drop_older(
            folder,
            keep_last,
            best_checkpoint(read_metrics(folder / "metrics.jsonl"))
            if keep_best
            else None,
        )


# --- training state -------------------------------------------------------------------------------------------------


def save_state(model, optimizer, step, folder):
    """What a resume needs beside the data order (which the seed gives): weights and AdamW moments, sharded, atomic."""
    folder = Path(folder)
    final = folder / f"state-{step:06d}"
    part = folder / "state.part"
    if dist.get_rank() == 0:
        shutil.rmtree(part, ignore_errors=True)
    dist.barrier()
    weights, moments = get_state_dict(model, optimizer, options=TRAINABLE)
    try:
        dcp.save({"model": _trained(model, weights), "optimizer": moments}, checkpoint_id=part)
    except CheckpointException as error:
        raise cannot_write(final, next(iter(error.failures.values()))[0]) from error
    if dist.get_rank() == 0:
        publish(part, final)
        for old in folder.glob("state-*[0-9]"):
            if old != final:
                shutil.rmtree(old)
    dist.barrier()


def load_state(model, optimizer, folder):
    """Take up the newest saved state, also on another number of processes. -> the step it was saved after, 0 if none."""
    states = sorted(Path(folder).glob("state-*[0-9]"))
    if not states:
        return 0
    weights, moments = get_state_dict(model, optimizer, options=TRAINABLE)
    weights = _trained(model, weights)
    try:
        stored = dcp.FileSystemReader(states[-1]).read_metadata().state_dict_metadata
        for name, tensor in weights.items():
            seen = getattr(stored.get(f"model.{name}"), "size", None)
            if seen != tensor.shape:
                raise InputError(
                    f"{states[-1]} is a state of another model: {name} is {seen and tuple(seen)} there and {tuple(tensor.shape)} "
                    f"here.\nUse another --name, or start over: rm -r {folder}"
                )
        state = {"model": weights, "optimizer": moments}
        dcp.load(state, checkpoint_id=states[-1])
    except (OSError, EOFError, pickle.UnpicklingError, CheckpointException) as error:
        raise InputError(
            f"{states[-1]} cannot be read ({type(error).__name__}: {str(error)[-200:]})\n"
            f"Without it the training starts over: rm -r {states[-1]}"
        ) from error
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=StateDictOptions(ignore_frozen_params=True, strict=False),
    )
    return int(states[-1].name.split("-")[1])


# --- atomic folders -------------------------------------------------------------------------------------------------


def empty_part(folder):
    """An empty place to write a folder in; what a killed write left there is removed."""
    part = Path(folder).with_name(Path(folder).name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    return part


def publish(part, folder):
    for file in part.iterdir():
        with open(file, "rb") as f:
            os.fsync(f.fileno())
    remove(Path(folder))  # a resume writes the checkpoints after its state once more
    os.replace(part, folder)


def remove(folder):
    """Remove a folder so that no half of it ever stands under its name."""
    if folder.exists():
        gone = folder.with_name(folder.name + ".old")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(folder, gone)
        shutil.rmtree(gone)
