"""A causal language model from a Hugging Face folder, sharded with FSDP2; checkpoints and training state.

One path for 1 process or N: a process group always exists, the model is always built on the meta device, sharded, and
filled from the safetensors files, each process reading its own slices. Master weights are float32; on a GPU the
computation is bfloat16 with float32 gradient reduction.
"""

import json
import os
import shutil
import types
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from common import prompts
from common.files import InputError
from common.loss import completion_nll

transformers_logging.disable_progress_bar()  # "Writing model shards" at every checkpoint

# Models whose logits are more than lm_head(hidden): training them on the plain product would be silently wrong.
LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def init_distributed():
    """Start the process group torchrun describes, or one of a single process. -> (rank, world size, device)."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if cuda else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return dist.get_rank(), dist.get_world_size(), device


def load_tokenizer(folder):
    """The folder's tokenizer, with a pad token; InputError where the folder has none."""
    # transformers 5 makes an empty tokenizer of a folder without one, so look before loading.
    if not any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt")):
        raise InputError(f"{folder} holds no tokenizer (no tokenizer.json, vocab.json or tokenizer.model).\nCopy the base "
                         "model's there: AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the tokenizer of {folder} cannot be read ({type(error).__name__}: {str(error)[:200]})\n"
                         "Copy the base model's tokenizer files there once more.") from error
    stored = Path(folder) / "tokenizer.json"
    if stored.is_file():  # transformers 5 picks the class by architecture, which is not always what the folder holds
        probe = "Question:\nIs 12 + 30 = 42?\n\nSolution:\nYes, \\boxed{42}."
        if tokenizer(probe, add_special_tokens=False).input_ids != Tokenizer.from_file(str(stored)).encode(
                probe, add_special_tokens=False).ids:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def local_folder(name):
    """A folder as it is; a hub id is downloaded first (by one process of a node; the others find it in the cache)."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise InputError(f"{name} is not a model folder: it has no config.json.\nGive the folder of a saved model.")
        return _with_weights(str(name))
    if Path(name).is_absolute() or str(name).startswith((".", "runs/")) or str(name).count("/") > 1:
        raise InputError(f"there is no model folder {name}\nGive the folder of a saved model: --model FOLDER (the tiny base is made by 01_sample.py)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return _with_weights(snapshot_download(name, ignore_patterns=["*.bin", "*.pth", "*.gguf", "original/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"model {name!r} is neither a folder here nor to be had from the hub; give --model FOLDER or a hub id\n"
                         f"({type(error).__name__}: {str(error)[:400]})") from error


def _with_weights(folder):
    if not list(Path(folder).glob("*.safetensors")):
        raise InputError(f"{folder} holds no *.safetensors weights.\nSave the model once more with save_pretrained.")
    return folder


def load(folder, device, activation_checkpointing=False):
    """A sharded model with float32 master weights and a `completion_loss(input_ids, labels)` method."""
    config = AutoConfig.from_pretrained(folder)
    for name in LOGIT_CHANGES:
        if getattr(config, name, None):
            raise InputError(f"{folder}: this architecture changes its logits ({name}); the kit's loss does not do that.")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    layers = next((m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList)), None)
    if layers is None:
        raise InputError(f"{folder}: found no list of layers to shard in {type(model).__name__}.")
    if activation_checkpointing:
        for i, layer in enumerate(layers):
            layers[i] = checkpoint_wrapper(layer)
    bf16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = bf16 if device.type == "cuda" else MixedPrecisionPolicy()
    for layer in layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy, reshard_after_forward=False)
    model.to_empty(device=device)
    _rebuild_buffers(model, config, device)
    _fill(model, folder)
    model.completion_loss = types.MethodType(_completion_loss, model)
    register_fsdp_forward_method(model, "completion_loss")
    model.train()
    return model


def _completion_loss(model, input_ids, labels):
    """Sum of the completion's negative log-likelihood, float32; a forward method, so FSDP gathers what it needs."""
    hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    return completion_nll(hidden, labels, head.weight, head.bias)


def _rebuild_buffers(model, config, device):
    """to_empty leaves garbage in buffers that no checkpoint holds (the rotary frequencies): compute them again."""
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            try:
                fresh = type(module)(config)  # rotary embeddings are made of the config alone
            except TypeError as error:
                raise InputError(f"{type(model).__name__}: the kit cannot rebuild {type(module).__name__}.{name}, which no checkpoint "
                                 "holds.\nTake another architecture; the README names those that are tested.") from error
            getattr(module, name).copy_(getattr(fresh, name).to(device))


def _weights(model, state=None):
    """The state dict that stands on disk: a tied lm_head is the embedding and is not stored twice."""
    state = get_model_state_dict(model) if state is None else state
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return state


def _fill(model, folder):
    """Stream the safetensors files into the sharded parameters."""
    state = _weights(model)
    reader = HuggingFaceStorageReader(_with_weights(folder))
    stored = reader.read_metadata().state_dict_metadata
    if missing := sorted(set(state) - set(stored)):
        raise InputError(f"{folder}: its safetensors files lack {len(missing)} of the model's weights, "
                         f"such as {missing[:3]}; they hold {sorted(stored)[:3]} ...\n"
                         "Weights are read under the names they are stored with; an architecture that transformers renames on loading "
                         "(mixtures of experts, for example) cannot be trained here.")
    dcp.load(state, storage_reader=reader)


def save_hf(model, tokenizer, template, folder, dtype):
    """Write a plain Hugging Face folder, atomically: weights in `dtype`, tokenizer, chat template, stop tokens.

    Every process calls it (gathering is collective); process 0 writes.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = _weights(model, get_model_state_dict(model, options=options))
    if dist.get_rank() == 0:
        folder = Path(folder)
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        with torch.device("meta"):
            shell = AutoModelForCausalLM.from_config(model.config, dtype=dtype)
        end = tokenizer.convert_tokens_to_ids(prompts.end_token(template, tokenizer))
        stops = [end] + [tokenizer.eos_token_id] * (tokenizer.eos_token_id not in (None, end))
        shell.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id,
                                                   bos_token_id=tokenizer.bos_token_id)
        shell.save_pretrained(part, state_dict={k: v.to(dtype) for k, v in state.items()})
        tokenizer.chat_template = prompts.JINJA[template]
        tokenizer.save_pretrained(part)
        shutil.rmtree(folder, ignore_errors=True)  # a resume writes the checkpoints after its state once more
        os.replace(part, folder)
    dist.barrier()


def save_state(model, optimizer, step, folder):
    """What a resume needs beside the data order (which the seed gives): weights and AdamW moments, sharded, atomic."""
    folder = Path(folder)
    final, part = folder / f"state-{step:06d}", folder / "state.part"
    if dist.get_rank() == 0:
        shutil.rmtree(part, ignore_errors=True)
    dist.barrier()
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=part)
    if dist.get_rank() == 0:
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
        for old in folder.glob("state-*"):
            if old != final:
                shutil.rmtree(old)
    dist.barrier()


def load_state(model, optimizer, folder):
    """Take up the newest saved state, also on another number of processes. -> the step it was saved after, 0 if none."""
    states = sorted(Path(folder).glob("state-*"))
    if not states:
        return 0
    weights, moments = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=states[-1])
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
    return int(states[-1].name.split("-")[1])


def drop_states(folder):
    """A finished arm needs none of its training states."""
    if dist.get_rank() == 0:
        for state in Path(folder).glob("state*"):
            shutil.rmtree(state)


def checkpoint_bytes(folder, n_checkpoints, n_states, dtype):
    """Disk that `n_checkpoints` weight folders and `n_states` training states of this model take, in bytes."""
    sizes = [json.loads(_header(f)) for f in Path(folder).glob("*.safetensors")]
    parameters = sum(_count(t["shape"]) for header in sizes for name, t in header.items() if name != "__metadata__")
    return parameters * (n_checkpoints * torch.empty((), dtype=dtype).element_size() + n_states * 12)


def _header(file):
    with open(file, "rb") as f:
        return f.read(int.from_bytes(f.read(8), "little"))


def _count(shape):
    n = 1
    for size in shape:
        n *= size
    return n
