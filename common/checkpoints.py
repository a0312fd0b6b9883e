"""What a training leaves on disk: checkpoints as Hugging Face folders, written in the background, and training states.

A checkpoint is taken as a CPU copy on process 0 while the others wait, and written while training goes on. Everything
appears under its final name at once or not at all.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, GenerationConfig

from common import prompts
from common.files import InputError, Stopped
from common.model import without_tied_head

TRAINABLE = StateDictOptions(ignore_frozen_params=True)  # of an adapter run, the adapters alone


# --- checkpoints ----------------------------------------------------------------------------------------------------

def snapshot(model, dtype):
    """A CPU copy of the trained weights in `dtype` on process 0 ({} on the others), one tensor gathered at a time."""
    copy = {}
    for name, tensor in without_tied_head(model, get_model_state_dict(model, options=TRAINABLE)).items():
        tensor = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()
        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if dist.get_rank() == 0:
            copy[name] = tensor.to("cpu", copy=True)
    return copy


def write(weights, model, tokenizer, template, folder, keep_last=0, best=None):
    """Write a snapshot as a folder that transformers and peft read: weights, configuration, tokenizer, chat template,
    stop tokens. An adapter's weights become a peft folder. Of the arm's other checkpoints the last `keep_last` stay (0: all)
    and `best`."""
    part = part_of(folder)
    if adapter := getattr(model, "peft_config", {}).get("default"):
        part.mkdir(parents=True)
        save_file({f"base_model.model.{name.replace('.default', '')}": t.contiguous() for name, t in weights.items()},
                  part / "adapter_model.safetensors")
        adapter.inference_mode = True
        adapter.save_pretrained(part)
    else:
        with torch.device("meta"):
            shell = AutoModelForCausalLM.from_config(model.config, dtype=next(iter(weights.values())).dtype)
        shell.save_pretrained(part, state_dict=weights)
    generation_config(tokenizer, template).save_pretrained(part)
    tokenizer.chat_template = prompts.JINJA[template]
    tokenizer.save_pretrained(part)
    appear(part, folder)
    for name in names(folder.parent)[:-keep_last] if keep_last else []:
        if name != best:
            shutil.rmtree(folder.with_name(name))


def generation_config(tokenizer, template):
    """How the model is to end: with the template's end token, or its own."""
    end = tokenizer.convert_tokens_to_ids(prompts.end_token(template, tokenizer))
    stops = [end] + [tokenizer.eos_token_id] * (tokenizer.eos_token_id not in (None, end))
    return GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id)


def save(model, tokenizer, template, folder, dtype):
    """Write the model as it is now, and wait for it. Every process calls this: gathering is collective."""
    weights = snapshot(model, dtype)
    if dist.get_rank() == 0:
        write(weights, model, tokenizer, template, folder)
    dist.barrier()


class Writer:
    """A thread of process 0 that writes one checkpoint at a time; what went wrong comes up when the next one begins."""

    def __init__(self):
        self.thread, self.writing = ThreadPoolExecutor(1), None

    def wait(self):
        """Until nothing is being written, on all processes. Called before a snapshot, so that one copy at most is in memory."""
        writing, self.writing = self.writing, None
        if writing:
            try:
                writing.result()
            except OSError as error:
                raise Stopped(f"a checkpoint cannot be written ({error}).\nMake room, then run the same command again.", 5) from error
        dist.barrier()

    def start(self, function, *arguments):
        if dist.get_rank() == 0:
            self.writing = self.thread.submit(function, *arguments)


def names(folder):
    """The checkpoints that stand in an arm's folder, in order."""
    return sorted(found.name for found in folder.glob("step-*[0-9]"))


def to_come(job, config):
    """Numbers of checkpoints, training states and merged models that an arm still has to write and that stand together."""
    missing = sum(not (job.folder / f"step-{step:06d}").exists() for step in job.saves)
    kept = min(missing, config.keep_last + config.keep_best + 1) if config.keep_last else missing  # an old one goes once the new one stands
    return kept, 2 if config.state_every else 1, int(config.merge)


def best(metrics):
    """The checkpoint with the lowest held-out loss."""
    step = min((m for m in metrics if "held_out_loss" in m), key=lambda m: m["held_out_loss"])["step"]
    return f"step-{step:06d}"


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
        dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=part)
    except (OSError, dcp.api.CheckpointException) as error:
        raise Stopped(f"{final} cannot be written ({str(error)[:300]}).\nMake room, then run the same command again.", 5) from error
    if dist.get_rank() == 0:
        appear(part, final)
        for old in folder.glob("state-*"):
            if old != final:
                shutil.rmtree(old)
    dist.barrier()


def load_state(model, optimizer, folder):
    """Take up the newest saved state, also on another number of processes. -> the step it was saved after, 0 if none."""
    states = sorted(Path(folder).glob("state-*"))
    if not states:
        return 0
    weights, moments = get_state_dict(model, optimizer, options=TRAINABLE)
    stored = dcp.FileSystemReader(states[-1]).read_metadata().state_dict_metadata
    for name, tensor in weights.items():
        seen = getattr(stored.get(f"model.{name}"), "size", None)
        if seen != tensor.shape:
            raise InputError(f"{states[-1]} is a state of another model: {name} is {seen and tuple(seen)} there and {tuple(tensor.shape)} here.\n"
                             f"Use another --name, or start over: rm -r {folder}")
    state = {"model": weights, "optimizer": moments}
    dcp.load(state, checkpoint_id=states[-1])
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"],
                   options=StateDictOptions(ignore_frozen_params=True, strict=False))
    return int(states[-1].name.split("-")[1])


def drop_states(folder):
    """A finished arm needs none of its training states."""
    if dist.get_rank() == 0:
        for state in Path(folder).glob("state*"):
            shutil.rmtree(state)


# --- atomic folders -------------------------------------------------------------------------------------------------

def part_of(folder):
    """An empty place to write a folder in; what a killed write left there is removed."""
    part = Path(folder).with_name(Path(folder).name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    return part


def appear(part, folder):
    for file in part.iterdir():
        with open(file, "rb") as f:
            os.fsync(f.fileno())
    shutil.rmtree(folder, ignore_errors=True)  # a resume writes the checkpoints after its state once more
    os.replace(part, folder)
