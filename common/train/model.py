"""A causal language model from a Hugging Face folder, sharded with FSDP2.

The model is built on the meta device, sharded, and filled from the safetensors files, each process
reading its own slices. Master weights are float32; a GPU computes in bfloat16 (float16 if it has
none) and sums gradients in float32. One process on a CPU has nothing to shard.
"""

import types

import torch
import torch.distributed as dist
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.utils import logging as transformers_logging

from common.core.errors import InputError, failed
from common.core.tokenizer import require_weights
from common.train import distributed
from common.train.loss import completion_nll

transformers_logging.disable_progress_bar()  # "Writing model shards" at every checkpoint

FULL_PRECISION = (
    "Take the model that they were made from, in float32, bfloat16 or float16 "
    "(--method qlora quantizes it by itself)."
)
SOFTCAP = "final_logit_softcapping"
OTHER_ARCHITECTURE = (
    "Take another architecture; docs/data-and-training.md names those that are tested."
)
PLAIN_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def read_config(folder):
    """Return the model's configuration, without dropout.

    Dropout's random numbers would differ from one number of processes to another. Raises InputError
    if the architecture is unknown or its weights are quantized.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        fix = "Give the folder of a causal language model that this version of transformers knows."
        raise failed(f"{folder}/config.json cannot be read", error, fix) from error
    quantized = getattr(config, "quantization_config", None)
    if quantized:
        raise InputError(
            f"{folder} holds quantized weights ({_read_field(quantized, 'quant_method')}), which "
            f"cannot be trained, nor an adapter merged into them.\n{FULL_PRECISION}"
        )
    _read_stored(folder)
    for name in vars(config):
        if name.endswith(("dropout", "pdrop")) and getattr(config, name):
            setattr(config, name, 0.0)
    return config


def _read_field(config, name):
    """Return a field of a part of config.json, which may be a dict."""
    return config.get(name) if isinstance(config, dict) else getattr(config, name, None)


def _read_stored(folder) -> dict:
    """Return what the safetensors files say of each weight; raise InputError if one is no plain
    number: read as one it would be another.
    """
    try:
        stored: dict = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except Exception as error:  # a torn file raises whatever its bytes lead to
        summary = f"{folder}: its safetensors files cannot be read"
        raise failed(summary, error, "Fetch or save the model once more.") from error
    for name, tensor in stored.items():
        dtype = tensor.properties.dtype
        is_weight = "weight" in name or dtype.is_floating_point  # others are masks, positions
        if is_weight and dtype not in PLAIN_TYPES:
            raise InputError(f"{folder}: {name} is stored as {dtype}.\n{FULL_PRECISION}")
    return stored


def build_on_meta(config):
    """Return the model without its weights: it takes no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def layers_of(model) -> torch.nn.ModuleList:
    """Return the list of transformer layers."""
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList):
            return module
    raise InputError(f"{type(model).__name__} has no list of layers.\n{OTHER_ARCHITECTURE}")


def load(folder, device: torch.device, recomputed: int = 0):
    """Return a sharded model with float32 master weights.

    recomputed: of how many layers the activations are computed again (estimate.memory).
    Its method `completion_loss(input_ids, positions, targets, scale=1.0)` gives the loss.
    """
    config = read_config(folder)
    model = build_on_meta(config)
    make_trainable(model, recomputed)
    if device.type == "cuda" or dist.get_world_size() > 1:
        _shard(model, device)
    model.to_empty(device=device)
    model.tie_weights()
    _rebuild_buffers(model)
    _fill_weights(model, folder)
    check_loss(model, folder)
    return model


def _shard(model, device) -> None:
    """Share the weights out among the processes, a layer at a time."""
    policy = MixedPrecisionPolicy()
    if device.type == "cuda":
        dtype = distributed.compute_dtype(device)
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for layer in layers_of(model):
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy, reshard_after_forward=False)
    register_fsdp_forward_method(model, "completion_loss")


def make_trainable(model, recomputed: int = 0) -> None:
    """Give a model its `completion_loss`, and forwards that are faster or keep less.

    The first `recomputed` layers keep only their input for the backward pass. If there are any,
    memory is short: then the others do not keep what is cheap to compute again.
    """
    _replace_forward(model, LlamaRMSNorm, _rms_norm)
    layers = layers_of(model)
    if recomputed:
        _replace_forward(layers[recomputed:], LlamaMLP, _gated_product)
    for i in range(recomputed):
        layers[i] = checkpoint_wrapper(layers[i], preserve_rng_state=False)
    model.completion_loss = types.MethodType(_completion_loss, model)
    model.train()


def compile_layers(model) -> None:
    """Let torch fuse the small operations of each layer, at its first forward pass (minutes).

    Raises InputError if there is no compiler for the CPU's code.
    """
    if next(model.parameters()).device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception as error:
            fix = "Install g++, or leave --compile out."
            raise failed("--compile found no C++ compiler", error, fix) from error
    for layer in layers_of(model):
        layer.compile(dynamic=True)


def _replace_forward(model, module_type, forward) -> None:
    """Replace the forward of each module that does what `module_type` does.

    transformers copies Llama's modules, word for word, into most architectures.
    """
    for module in model.modules():
        if _code(type(module)) == _code(module_type):
            module.forward = types.MethodType(forward, module)


def _code(module_type) -> tuple:
    code = module_type.forward.__code__
    return code.co_code, code.co_names, code.co_consts


def _rms_norm(norm, hidden):
    """Return what LlamaRMSNorm does, on a GPU in one kernel instead of six."""
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _gated_product(mlp, hidden):
    """Return what LlamaMLP does, keeping gate and up only for the backward pass.

    The activation and the product are computed again; the matrix product by down_proj is not,
    since computing again ends with its input.
    """

    def down(gate, up):
        return mlp.down_proj(mlp.act_fn(gate) * up)

    gate, up = mlp.gate_proj(hidden), mlp.up_proj(hidden)
    return checkpoint(down, gate, up, use_reentrant=False, preserve_rng_state=False)


def _completion_loss(model, input_ids, positions, targets, scale=1.0):
    """Return loss.completion_nll. A forward method, so that FSDP gathers what it needs."""
    config = model.config.get_text_config()
    hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    # Cohere multiplies its logits, Granite divides them, Gemma 2 bounds them.
    factor = getattr(config, "logit_scale", None) or 1
    factor /= getattr(config, "logits_scaling", None) or 1
    if factor != 1:
        hidden = hidden * factor
    softcap = getattr(config, SOFTCAP, None)
    head = model.get_output_embeddings()
    return completion_nll(hidden, positions, targets, head.weight, head.bias, scale, softcap)


@torch.no_grad()
def check_loss(model, folder) -> None:
    """Raise InputError unless the model's own loss on a few tokens is the same.

    An architecture may do with its logits what `_completion_loss` does not know. Every process
    calls this.
    """
    ids = torch.arange(32, device=next(model.parameters()).device)[None]
    loss = model.completion_loss(ids, ids[0, :-1], ids[0, 1:], 1 / 31).item()
    expected = model(input_ids=ids, labels=ids, use_cache=False).loss.item()
    if hasattr(model, "reshard"):
        model.reshard()
    if not abs(loss - expected) <= 0.01 * expected:  # bfloat16 differs by less; NaN is no number
        raise InputError(
            f"{folder}: {type(model).__name__} has a loss of {expected:.3f} on a few tokens, which "
            f"is {loss:.3f} here: it does more with its logits than the kit.\n"
            "Take another base model."
        )


@torch.no_grad()
def _rebuild_buffers(model) -> None:
    """Compute again what no checkpoint holds, such as the rotary frequencies.

    Raises InputError for a buffer that the architecture does not compute whatever was in it before.
    """
    for parameter in model.parameters():
        parameter._is_hf_initialized = True  # the files hold it
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            buffer, results = getattr(module, name), []
            for filling in (0, 1):
                buffer.fill_(filling)
                model._init_weights(module)
                results.append(buffer.clone())
            if not torch.equal(*results):
                raise InputError(
                    f"{type(model).__name__}: the kit cannot rebuild "
                    f"{type(module).__name__}.{name}, which no checkpoint holds.\n"
                    f"{OTHER_ARCHITECTURE}"
                )


def without_tied_head(model, state: dict) -> dict:
    """Return a state dict as it is on disk: a tied lm_head is the embedding, stored once."""
    if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        state.pop("lm_head.weight", None)
    return state


def _fill_weights(model, folder) -> None:
    """Stream the safetensors files into the sharded parameters, each process its own slices."""
    state = without_tied_head(model, get_model_state_dict(model))
    stored = _read_stored(require_weights(folder))
    for name, tensor in state.items():
        size = getattr(stored.get(name), "size", None)
        if size != tensor.shape:
            raise InputError(
                f"{folder}: {name} is {tuple(tensor.shape)} by config.json and "
                f"{tuple(size) if size else 'missing'} in the files, "
                f"which hold {sorted(stored)[:3]} ...\n"
                "Take config.json and weights of the same model. An architecture whose weights "
                "transformers renames on loading (mixtures of experts, for example) cannot be "
                "trained here."
            )
    buffers = {name for name, _ in model.named_buffers()}
    for name in sorted(stored.keys() - state.keys() - buffers - {"lm_head.weight"}):
        if not name.endswith("rotary_emb.inv_freq"):
            raise InputError(
                f"{folder}: config.json has no place for {name}, which the files hold.\n"
                "Take config.json and weights of the same model."
            )
    state_dict_loader.load(state, storage_reader=HuggingFaceStorageReader(str(folder)))
