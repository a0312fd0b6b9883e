"""What a training leaves on disk: checkpoints as Hugging Face folders, and training states.

A checkpoint is taken as a CPU copy on process 0 while the others wait, and written in the
background while training goes on. Everything appears under its final name at once or not at all.
"""

import copy
import os
import pickle
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor
from transformers import GenerationConfig, PreTrainedConfig

from common.core import prompts
from common.core.errors import InputError, cannot_write
from common.train import distributed
from common.train.model import without_tied_head

# What a state's .metadata is made of: module -> names.
STATE_TYPES = {
    "pathlib": ("PosixPath",),
    "torch": ("Size", "float32", "bfloat16", "float16", "uint8", "int8", "int32", "int64", "bool"),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
}
# Of an adapter run, the adapters alone; not strict, so that they are loaded without their base.
TRAINABLE = StateDictOptions(ignore_frozen_params=True, strict=False)


# --- checkpoints ----------------------------------------------------------------------------------


def snapshot(model, dtype: torch.dtype, weights: dict) -> tuple[Any, dict] | None:
    """Return a CPU copy of (configuration, {name: weight in `dtype`}) of a model or an adapter.

    weights: those of the snapshot before, which are overwritten, or an empty dict. Every process
    calls this, since gathering is collective: one tensor at a time. It is returned on process 0,
    None on the others.
    """
    state = _only_trained(model, get_model_state_dict(model, options=TRAINABLE))
    for name, tensor in without_tied_head(model, state).items():
        tensor = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()
        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if _is_adapter(model):
            name = f"base_model.model.{name.replace('.default', '')}"  # as peft reads it
        if dist.get_rank() == 0:
            if name not in weights:  # a GPU copies into pinned memory ten times as fast
                pinned = tensor.is_cuda
                weights[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
            weights[name].copy_(tensor, non_blocking=True)
    if dist.get_rank() > 0:
        return None
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
    if _is_adapter(model):
        configuration = copy.deepcopy(model.peft_config["default"])
        configuration.inference_mode = True
        configuration.target_modules = sorted(configuration.target_modules)
    else:
        configuration = copy.deepcopy(model.config)
        configuration.dtype = dtype
        configuration.architectures = [type(model).__name__.removeprefix("FSDP")]
    return configuration, weights


def _is_adapter(model):
    return hasattr(model, "peft_config")


def _only_trained(model, state):
    """Leave out the scales of a frozen base's 4 bits, which bitsandbytes counts to the state."""
    if not _is_adapter(model):
        return state
    return {name: tensor for name, tensor in state.items() if "lora_" in name}


def write(
    configuration, weights: dict, tokenizer, template: str, folder: Path, keep_last: int = 0
) -> None:
    """Write a snapshot, tokenizer, template and stop tokens as transformers and peft read them."""
    part = empty_part(folder)
    tokenizer.chat_template = prompts.JINJA.get(template, tokenizer.chat_template)
    try:
        if isinstance(configuration, PreTrainedConfig):
            save_file(weights, part / "model.safetensors", {"format": "pt"})
        else:
            save_file(weights, part / "adapter_model.safetensors")
        configuration.save_pretrained(part)
        generation_config(tokenizer, template).save_pretrained(part)
        tokenizer.save_pretrained(part)
        publish(part, folder)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error) from error
    drop_older(folder.parent, keep_last)


def generation_config(tokenizer, template: str) -> GenerationConfig:
    """Let the model end with the template's end token, or its own."""
    stops = [tokenizer.convert_tokens_to_ids(prompts.end_token(template, tokenizer))]
    if tokenizer.eos_token_id not in (None, *stops):
        stops.append(tokenizer.eos_token_id)
    return GenerationConfig(
        eos_token_id=stops, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    )


def save(model, tokenizer, template: str, folder, dtype: torch.dtype) -> None:
    """Write the model as it is now, and wait for it. Every process calls this."""
    copied = snapshot(model, dtype, {})
    if copied:
        write(*copied, tokenizer, template, Path(folder))
    dist.barrier()


class Saver:
    """Writes the checkpoints of one training, in the background, and its states.

    A thread of process 0 writes one at a time; an error in it is raised by the next `wait`.
    """

    def __init__(
        self, model, optimizer, training, tokenizer, template, dtype, keep_last=0, state_minutes=0.0
    ):
        """dtype: of the saved model; an adapter is saved in float32."""
        self.model = model
        self.optimizer = optimizer
        self.training = training
        self.form = tokenizer, template
        self.dtype = torch.float32 if _is_adapter(model) else dtype
        self.keep_last = keep_last
        self.state_minutes = state_minutes
        self.state_time = time.monotonic()
        self.weights: dict = {}  # of the last checkpoint
        self.thread = ThreadPoolExecutor(1)
        self.writing: Future | None = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.thread.shutdown()  # also after an error: what is being written is whole

    def wait(self) -> None:
        """Return once nothing is being written, on all processes."""
        writing, self.writing = self.writing, None
        if writing:
            writing.result()
        dist.barrier()

    def write_checkpoint(self, step: int) -> None:
        """Begin to write the checkpoint of a step; the last one is waited for."""
        self.wait()  # so that one copy at most is in memory
        copied = snapshot(self.model, self.dtype, self.weights)
        if copied:
            folder = self.training.checkpoint(step)
            self.writing = self.thread.submit(write, *copied, *self.form, folder, self.keep_last)
        if step == len(self.training.plan):
            self.wait()

    def state_is_due(self) -> bool:
        """Return, in all processes alike, whether the last state is `state_minutes` old."""
        late = time.monotonic() - self.state_time >= 60 * self.state_minutes
        return bool(self.state_minutes and distributed.maximum(late))

    def save_state(self, step: int) -> None:
        """Save what a resume needs. A state promises the checkpoints before it: wait for them."""
        self.wait()
        save_state(self.model, self.optimizer, step, self.training.folder)
        self.state_time = time.monotonic()


def checkpoint_names(folder: Path) -> list:
    """Return the names of the checkpoints in a training's folder, in order."""
    return sorted(path.name for path in folder.glob("step-*[0-9]"))


def drop_older(folder: Path, keep_last: int) -> None:
    """Remove all of a training's checkpoints but the last `keep_last`; 0: keep all."""
    if keep_last:
        for name in checkpoint_names(folder)[:-keep_last]:
            remove(folder / name)


def finish(folder: Path, keep_last: int) -> None:
    """Remove a finished training's states, checkpoints not to be kept, and what a kill left."""
    if dist.get_rank() > 0:
        return
    for pattern in ("state-*[0-9]", "*.part", "*.old"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    drop_older(folder, keep_last)


# --- training states ------------------------------------------------------------------------------


def _state(model, optimizer):
    weights, moments = get_state_dict(model, optimizer, options=TRAINABLE)
    return {"model": _only_trained(model, weights), "optimizer": moments}


def save_state(model, optimizer, step: int, folder: Path) -> None:
    """Save weights and AdamW moments, sharded, and remove the state before.

    A resume needs no more: the seed gives the data order.
    """
    final = folder / f"state-{step:06d}"
    part = folder / "state.part"
    if dist.get_rank() == 0:
        shutil.rmtree(part, ignore_errors=True)
    dist.barrier()
    try:
        state_dict_saver.save(_state(model, optimizer), checkpoint_id=part)
    except CheckpointException as error:
        raise cannot_write(final, next(iter(error.failures.values()))[0]) from error
    if dist.get_rank() == 0:
        publish(part, final)
        for older in folder.glob("state-*[0-9]"):
            if older != final:
                shutil.rmtree(older)
    dist.barrier()


class _MetadataReader(pickle.Unpickler):
    """Reads where the tensors of a state are. A state of a stranger could name any function."""

    def find_class(self, module_name, global_name):
        if global_name not in STATE_TYPES.get(module_name, ()):
            raise pickle.UnpicklingError(f"{module_name}.{global_name} has no place in a state")
        return super().find_class(module_name, global_name)


class _Reader(FileSystemReader):
    def read_metadata(self, *args, **kwargs):
        with open(Path(self.path) / ".metadata", "rb") as file:
            metadata = _MetadataReader(file).load()
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata


class _Planner(DefaultLoadPlanner):
    def load_bytes(self, read_item, value):
        """Take a number of AdamW, looked at first: the planner unpickles whatever it is."""
        torch.load(value, weights_only=True)
        value.seek(0)
        super().load_bytes(read_item, value)


def load_state(model, optimizer, folder: Path) -> int:
    """Load a training's newest state, of any number of processes; return its step, 0 if none."""
    states = sorted(folder.glob("state-*[0-9]"))
    if not states:
        return 0
    newest = states[-1]
    state = _state(model, optimizer)
    try:
        state_dict_loader.load(state, storage_reader=_Reader(newest), planner=_Planner())
    except (OSError, EOFError, pickle.UnpicklingError, CheckpointException) as error:
        raise InputError(
            f"{newest} cannot be read ({type(error).__name__}: {str(error)[-200:]})\n"
            "Without it the training starts over; move it away: "
            f"mv {newest} {newest.with_name('unreadable-' + newest.name)}"
        ) from error
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=TRAINABLE,
    )
    return int(newest.name.split("-")[1])


# --- atomic folders -------------------------------------------------------------------------------


def empty_part(folder: Path) -> Path:
    """Make the folder to write in before it is published; what a kill left there is removed."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def publish(part: Path, folder: Path) -> None:
    """Give a written folder its final name, once its bytes are on the disk."""
    for path in part.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    remove(folder)  # a resume writes the checkpoints after its state once more
    os.replace(part, folder)


def remove(folder: Path) -> None:
    """Remove a folder so that no half of it is ever under its name."""
    if folder.exists():
        doomed = folder.with_name(folder.name + ".old")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(folder, doomed)
        shutil.rmtree(doomed)
