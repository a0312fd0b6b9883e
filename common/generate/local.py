"""Generation with transformers on this machine: one process per GPU, each with a batch that is refilled as texts end."""

import gc
import json
import os
import warnings
from contextlib import closing
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig

from common.core.errors import InputError, Stopped
from common.core.files import content_id, model_id
from common.core.tokenizer import load_tokenizer, local_folder
from common.generate.decoder import Decoder
from common.generate.pool import Pool
from common.generate.requests import Sampling
from common.train.model import build_on_meta

SPREAD = 8  # a set is cut into so many chunks, the GPUs of a node, unless these would be
SMALLEST, LARGEST = (
    2,
    8,
)  # fewer batches, in which no finished row could be followed by another, or more: what a kill can cost


class Local:
    """Engine over a Hugging Face folder, a peft adapter's folder or a hub id, for raw text prompts.

    exact: float32 and one prompt at a time, for texts that rounding does not touch; otherwise bfloat16 on a GPU, float32 on a
    CPU. load_in_4bit: the base in 4-bit NormalFloat. processes: 0 is one per GPU that is visible (CPU: 1).
    Weights are loaded when the first text has to be generated. device: of a process that such an engine started.
    """

    def __init__(
        self, model, batch_size=32, exact=False, load_in_4bit=False, processes=0, device=None
    ):
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ:
            raise InputError(
                "this script uses all GPUs of the node by itself.\nStart it with plain python, not with torchrun."
            )
        self.folder = (
            str(model) if (Path(model) / "adapter_config.json").is_file() else local_folder(model)
        )
        self.base = _base_of(self.folder)  # None: no adapter
        cuda = torch.cuda.is_available()
        self.device, self.dtype = (
            device or ("cuda:0" if cuda else "cpu"),
            torch.bfloat16 if cuda and not exact else torch.float32,
        )
        self.batch_size, self.exact, self.load_in_4bit = (
            1 if exact else batch_size,
            exact,
            load_in_4bit,
        )
        self.processes = processes or max(torch.cuda.device_count(), 1)
        own = any(
            (Path(self.folder) / name).is_file()
            for name in ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt")
        )
        self.tokenizer = load_tokenizer(self.folder if own or not self.base else self.base)
        self.pool = None

    @cached_property
    def identity(self):
        """24 hex digits of all that decides what is computed, but the batch size, which each answer names: model_id(folder) of a plain model
        in float32."""
        more = [model_id(self.base)] if self.base else []
        more += (
            [str(self.dtype)] * (self.dtype != torch.float32)
            + ["nf4"] * self.load_in_4bit
            + ["exact"] * self.exact
        )
        more += ["cuda"] * (self.device != "cpu")
        return content_id(model_id(self.folder), *more) if more else model_id(self.folder)

    @property
    def settings(self):
        """What a score's manifest says of the engine; no weights are loaded for it."""
        cuda = self.device != "cpu"
        return {
            "folder": self.folder,
            "content": self.identity,
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": self._attention,
            "batch_size": self.batch_size,
            "load_in_4bit": self.load_in_4bit,
            "exact": self.exact,
            "processes": self.processes,
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "adapter_of": self.base,
        }

    @cached_property
    def _config(self):
        return _readable(
            self.base or self.folder, lambda: AutoConfig.from_pretrained(self.base or self.folder)
        )

    @cached_property
    def _attention(self):
        return build_on_meta(self._config).config._attn_implementation

    @cached_property
    def model(self):
        """The model on its device, loaded by whoever asks first."""
        model = _readable(self.base or self.folder, self._load)
        if getattr(model, "_is_stateful", False):
            raise InputError(
                f"{self.folder}: {type(model).__name__} keeps a state beside keys and values, which the local engine cannot "
                "rearrange.\nServe it, for example with vLLM, and give --base-url."
            )
        return model.eval()

    def _load(self):
        quantised = {}
        if self.load_in_4bit:  # 4-bit NormalFloat, its scales quantised again (QLoRA, arXiv 2305.14314), as in training
            _check_4bit(torch.device(self.device))
            quantised["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=self.dtype,
            )
        model, seen = AutoModelForCausalLM.from_pretrained(
            self.base or self.folder,
            dtype=self.dtype,
            device_map={"": self.device},
            output_loading_info=True,
            **quantised,
        )
        if missing := sorted(
            seen["missing_keys"]
        ):  # transformers makes up what is not there, with a warning only
            raise ValueError(
                f"its files lack {len(missing)} of the model's weights, such as {missing[:3]}"
            )
        for module in model.modules() if self.load_in_4bit else ():
            module.support_avx512bf16_for_cpu = (
                False  # there bitsandbytes repacks: bfloat16 scales, and widths of 64 only
            )
        if self.base:
            from peft import PeftModel

            with warnings.catch_warnings(
                action="ignore", category=FutureWarning
            ):  # peft calls transformers by an old name
                warnings.filterwarnings(
                    "error", "Found missing adapter keys"
                )  # what is not there would be an adapter that does nothing
                model = PeftModel.from_pretrained(model, self.folder)
            if not self.load_in_4bit:  # 4-bit weights would be rounded once more
                model = model.merge_and_unload()
        return model

    def approve(self, tasks, journal):
        """Costs nothing; the weights are loaded here, so that no text has to wait for them."""
        if self.processes == 1:
            _ = self.model

    def close(self):
        """Give up the weights and the processes: the next model needs their room."""
        self.pool = None
        if self.__dict__.pop("model", None) is not None:
            gc.collect()  # transformers' modules may hold each other
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def outstanding(self):
        return False

    def status(self):
        return ""

    def generate(self, tasks, deliver, show=lambda: None):
        """deliver(task, answer) for each task that is not settled, as soon as its text ends, from this thread.

        Chunks are cut from all tasks, whatever the number of processes, and skipped when all is done; a chunk in which
        anything is missing runs as a whole. So a resumed run meets the same batches and, in bfloat16 too, the same text.
        """
        order = sorted(tasks, key=lambda task: (-len(task.request.prompt), task.key))
        size = min(
            max(-(-len(order) // SPREAD), SMALLEST * self.batch_size), LARGEST * self.batch_size
        )
        n = -(-len(order) // size)
        chunks = [
            chunk
            for chunk in (order[at::n] for at in range(n))
            if not all(task.settled for task in chunk)
        ]  # prompts of all lengths
        asked = [
            {
                "prompts": [task.request.prompt for task in chunk],
                "keys": [task.key for task in chunk],
                "limits": [task.sampling.max_new_tokens for task in chunk],
                "sampling": vars(chunk[0].sampling),
            }
            for chunk in chunks
        ]
        if n < self.processes and len(order) > self.batch_size:
            print(
                f"note: at --batch-size {self.batch_size} {len(order)} prompts are {n} chunks: {n} of {self.processes} processes have work"
            )
        if self.pool or min(self.processes, len(chunks)) > 1:
            answers = self._everywhere(asked)
        else:
            answers = (
                (n, *found) for n, chunk in enumerate(asked) for found in self.texts(**chunk)
            )
        with closing(
            answers
        ):  # what deliver raises must end the processes now, not when the exception is forgotten
            for n, at, answer in answers:
                if not chunks[n][at].settled:
                    deliver(chunks[n][at], answer | {"batch_size": self.batch_size})
                    show()

    def _everywhere(self, asked):
        """The answers to chunks from processes that this engine keeps as long as it lives."""
        if not self.pool:
            devices = [f"cuda:{n}" for n in range(torch.cuda.device_count())] or ["cpu"]
            settings = {
                "model": self.folder,
                "exact": self.exact,
                "load_in_4bit": self.load_in_4bit,
                "processes": 1,
                "threads": max(torch.get_num_threads() // self.processes, 1),
            }
            self.pool = Pool(
                [settings | {"device": devices[n % len(devices)]} for n in range(self.processes)]
            )
        return self.pool.texts([chunk | {"batch_size": self.batch_size} for chunk in asked])

    def texts(self, prompts, keys, limits, sampling, batch_size=None):
        """Yields (index, answer) of a chunk, by this process. Stopped (status 4) where the GPU's memory is not enough."""
        sampling, batch_size = Sampling(**sampling), batch_size or self.batch_size
        most = getattr(self._config.get_text_config(), "max_position_embeddings", None) or 2**31
        decoder = Decoder(
            self.model, self.tokenizer, sampling, self._ends(sampling.stop), most, batch_size
        )
        try:
            yield from decoder.texts(prompts, keys, limits)
        except torch.OutOfMemoryError as error:
            raise Stopped(
                f"the GPU's memory is not enough for {batch_size} texts at a time ({str(error)[:200]})\n"
                "Give a smaller --batch-size; what was answered is kept.",
                4,
            ) from error

    def _ends(self, stop):
        """What ends a text: the model's own stop tokens, and each stop string that is one token of its vocabulary."""
        own = Path(self.folder) / "generation_config.json"  # an adapter's, where it has one
        own = (
            GenerationConfig.from_pretrained(self.folder)
            if own.is_file()
            else self.model.generation_config
        )
        own = own.eos_token_id or self.tokenizer.eos_token_id
        vocabulary = self.tokenizer.get_vocab()
        return {i for i in (own if isinstance(own, list) else [own]) if i is not None} | {
            vocabulary[s] for s in stop if s in vocabulary
        }


def _base_of(folder):
    """The folder of the model that an adapter was trained on; None for a folder that is no adapter."""
    stated = Path(folder) / "adapter_config.json"
    if not stated.is_file():
        return None
    name = _readable(
        folder,
        lambda: json.loads(stated.read_text(encoding="utf-8")).get("base_model_name_or_path"),
    )
    try:
        return local_folder(name)
    except (InputError, TypeError) as error:  # TypeError: it names none
        raise InputError(
            f"{folder} is an adapter of {name!r}, which cannot be found ({str(error).splitlines()[0]})\n"
            f"Say where that model is: base_model_name_or_path in {folder}/adapter_config.json; or merge where it was "
            "trained (--merge) and give the merged folder."
        ) from error


def _readable(folder, read):
    """read(), with InputError for what a wrong or torn folder raises."""
    try:
        return read()
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{folder} does not fit this GPU's memory ({str(error)[:200]})\nTry --load-in-4bit."
        ) from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        ImportError,
        UserWarning,
        SafetensorError,
    ) as error:
        raise InputError(
            f"{folder} cannot be loaded ({type(error).__name__}: {str(error)[:400]})\nGive the folder of a causal language "
            "model that this version of transformers knows, or save or fetch it once more."
        ) from error


def _check_4bit(device):
    from common.train.adapters import check_bitsandbytes

    try:
        check_bitsandbytes(device)
    except InputError as error:
        raise InputError(
            f"{str(error).splitlines()[0]}\nLeave --load-in-4bit out, or install the build for your CUDA: "
            "pip install -U bitsandbytes; python -m bitsandbytes says what is missing."
        ) from error
