"""Generation with transformers on this machine: a refilled batch in each process.

Under torchrun each process has a GPU and does its stride of the chunks.
"""

import gc
import json
import math
import shlex
import time
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from common.core.errors import InputError, Stopped
from common.core.files import content_id, model_id
from common.core.tokenizer import load_tokenizer, local_folder
from common.generate.decoder import Decoder
from common.train import adapters, distributed
from common.train.estimate import attention_widths
from common.train.model import build_on_meta

ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}  # layers without a state
CHUNKS = 8  # a set is cut into so many chunks, the GPUs of a node, within these bounds:
MIN_BATCHES = 2  # in a chunk of one batch no finished row could be followed by another
MAX_BATCHES = 8  # what a kill can cost
CPU_BATCH = 32  # texts at a time; on a GPU as many as its memory holds, up to GPU_BATCH
GPU_BATCH = 256
LONG_PROMPT = 512  # tokens: for so many a text gets room before what is generated
MANY_TOKENS = 2_000_000  # from here on a server is worth its start
SERVER_SPEED = 12_500  # tokens/s that vLLM makes of an 8B on one H100, by published benchmarks


class Local:
    """Engine over a Hugging Face folder, a peft adapter's folder or a hub id, for raw text prompts.

    It computes in distributed.compute_dtype. Weights are loaded when the first text
    has to be generated.
    """

    def __init__(self, model, batch_size: int | None = None, max_new_tokens: int = 2048):
        """batch_size None: what the GPU's memory holds with texts of max_new_tokens."""
        is_adapter = (Path(model) / "adapter_config.json").is_file()
        self.folder = str(model) if is_adapter else local_folder(model)
        self.base = _base_of(self.folder) if is_adapter else None
        self.weights = self.base or self.folder
        self.device = distributed.local_device()
        self.cuda = self.device.type == "cuda"
        self.dtype = distributed.compute_dtype(self.device)
        self.batch_size = batch_size or self._fitting_batch(max_new_tokens)
        self.n_tokens = self.started = 0  # tokens generated since then
        has_tokenizer = (Path(self.folder) / "tokenizer_config.json").is_file()
        self.tokenizer = load_tokenizer(self.folder if has_tokenizer else self.weights)

    def _fitting_batch(self, max_new_tokens):
        """Return how many texts fit into memory together with the weights: 1, 2, 4, ... 256.

        A text of full length has keys and values in bfloat16, and half as much for what it takes
        to read prompts and to draw tokens. A tenth of the memory stays free.
        """
        if not self.cuda:
            return CPU_BATCH
        config = self._config.get_text_config()
        text = 4 * config.num_hidden_layers * attention_widths(config)[1]
        text *= 1.5 * (LONG_PROMPT + max_new_tokens)
        weights = sum(file.stat().st_size for file in Path(self.weights).glob("*.safetensors"))
        memory = torch.cuda.get_device_properties(self.device).total_memory
        size = (0.9 * memory - weights) / text
        return 2 ** int(math.log2(min(max(size, 1), GPU_BATCH)))

    @cached_property
    def identity(self) -> str:
        """Return 24 hex digits of all that decides what is computed, but the batch size.

        The batch size is named by each answer. A plain model in float32 has model_id(folder).
        """
        parts = [model_id(Path(self.folder))]
        if self.base:
            parts.append(model_id(Path(self.base)))
        if self.dtype != torch.float32:
            parts.append(str(self.dtype))
        if self.cuda:
            parts.append("cuda")
        return content_id(*parts) if len(parts) > 1 else parts[0]

    @property
    def settings(self) -> dict:
        """Return what a score's manifest says of the engine; no weights are loaded for it."""
        return {
            "folder": self.folder,
            "content": self.identity,
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": build_on_meta(self._config).config._attn_implementation,
            "batch_size": self.batch_size,
            "processes": distributed.world_size(),
            "device": torch.cuda.get_device_name(self.device) if self.cuda else "cpu",
            "adapter_of": self.base,
        }

    @cached_property
    def _config(self):
        def read():
            return AutoConfig.from_pretrained(self.weights, trust_remote_code=False)

        return _readable(self.weights, read)

    @cached_property
    def model(self):
        """Return the model on its device; the first caller loads it."""
        model = _readable(self.weights, self._load)
        kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
        if getattr(model, "_is_stateful", False) or not set(kinds) <= ATTENTION:
            raise InputError(
                f"{self.folder}: {type(model).__name__} keeps a state besides keys and values, "
                "which the local engine cannot rearrange.\n"
                "Serve it, for example with vLLM, and give --base-url."
            )
        return model.eval()

    def _load(self):
        placement = {"": self.device}
        model, report = AutoModelForCausalLM.from_pretrained(
            self.weights,
            trust_remote_code=False,
            dtype=self.dtype,
            device_map=placement,
            output_loading_info=True,
        )  # type: ignore
        # transformers makes up missing weights, with a warning only.
        if missing := sorted(report["missing_keys"]):
            n = len(missing)
            raise ValueError(f"its files lack {n} of the model's weights, such as {missing[:3]}")
        return adapters.add_adapter(model, self.folder) if self.base else model

    def approve(self, tasks, journal):
        """Load the weights, so that no text has to wait for them; generation costs nothing.

        For many tokens, name the server that makes them sooner.
        """
        distributed.note_idle_gpus()
        n_tokens = sum(task.sampling.max_new_tokens for task in tasks if not task.settled)
        if self.cuda and not self.base and n_tokens >= MANY_TOKENS:
            minutes = n_tokens / SERVER_SPEED / 60 / distributed.world_size()
            folder = shlex.quote(self.folder)
            print(
                f"note: up to {n_tokens:,} tokens. The progress line says how long they take here; "
                f"vLLM needs {minutes:,.0f} minutes if it makes {SERVER_SPEED:,} a second on a GPU:"
                f"\n  vllm serve {folder} --generation-config vllm\n"
                f"then this command with --model {folder} --base-url http://localhost:8000/v1"
            )
        _ = self.model

    def close(self):
        """Give up the weights: the next model needs their room."""
        self.__dict__.pop("model", None)
        gc.collect()  # transformers' modules may hold each other
        torch.cuda.empty_cache()

    def outstanding(self):
        return False

    def status(self):
        """Return the speed, and until the first text has ended how long all can take."""
        if not self.n_tokens:
            return ""
        speed = self.n_tokens / (time.monotonic() - self.started)
        text = f", {speed:,.0f} tokens/s"
        if not self.n_texts:
            text += f", at most {self.max_tokens / speed / 60:,.0f} min"
        return text

    def generate(self, tasks, deliver, show=lambda: None):
        """Call deliver(task, answer) for each open task of this process as its text ends.

        A chunk runs as a whole if anything of it is missing. So a resumed run has the same batches
        and, in bfloat16 too, the same text.
        """
        chunks = _chunks(tasks, self.batch_size)[distributed.rank() :: distributed.world_size()]
        chunks = [chunk for chunk in chunks if not all(task.settled for task in chunk)]
        self.max_tokens = sum(len(chunk) * chunk[0].sampling.max_new_tokens for chunk in chunks)
        self.n_tokens = self.n_texts = self.started = 0

        def count(n):
            if self.started:
                self.n_tokens += n
                show()
            else:  # before the first block most prompts were read
                self.started = time.monotonic()

        for chunk in chunks:
            for task, answer in self._texts(chunk, count):
                self.n_texts += 1
                if not task.settled:
                    deliver(task, answer | {"batch_size": self.batch_size})
                    show()

    def _texts(self, chunk, count):
        """Yield (task, answer) as each text ends; Stopped (status 4) if the GPU is too small."""
        sampling = chunk[0].sampling
        context = getattr(self._config.get_text_config(), "max_position_embeddings", None) or 2**31
        ends = self._end_tokens(sampling.stop)
        model, tokenizer = self.model, self.tokenizer
        decoder = Decoder(model, tokenizer, sampling, ends, context, self.batch_size, count)
        try:
            yield from decoder.generate(chunk)
        except torch.OutOfMemoryError as error:
            raise Stopped(
                f"the GPU's memory is not enough for {self.batch_size} texts at a time "
                f"({str(error)[:200]})\n"
                "Give a smaller --batch-size; what was answered is kept.",
                4,
            ) from error

    def _end_tokens(self, stop):
        """Return the ids that end a text.

        These are the stop tokens of the model, that of its tokenizer (either may be incomplete),
        and each stop string that is a single token.
        """
        settings = self.model.generation_config
        if (Path(self.folder) / "generation_config.json").is_file():  # an adapter's, if it has one
            settings = GenerationConfig.from_pretrained(self.folder)
        ends = settings.eos_token_id
        if not isinstance(ends, list):
            ends = [ends]
        vocabulary = self.tokenizer.get_vocab()
        stop_tokens = [vocabulary.get(text) for text in stop]
        return {*ends, self.tokenizer.eos_token_id, *stop_tokens} - {None}


def _chunks(tasks, batch_size):
    """Return the tasks in chunks of equal size, each with prompts of all lengths.

    They depend neither on what is done already nor on the number of processes.
    """
    order = sorted(tasks, key=lambda task: (-len(task.request.prompt), task.key))
    size = math.ceil(len(order) / CHUNKS)
    size = min(max(size, MIN_BATCHES * batch_size), MAX_BATCHES * batch_size)
    n_chunks = math.ceil(len(order) / size)
    return [order[first::n_chunks] for first in range(n_chunks)]


def _base_of(folder):
    """Return the folder of the model that an adapter was trained on."""
    path = Path(folder) / "adapter_config.json"
    config = _readable(folder, lambda: json.loads(path.read_text(encoding="utf-8")))
    base = str(config.get("base_model_name_or_path"))
    try:
        return local_folder(base)
    except InputError as error:
        raise InputError(
            f"{folder} is an adapter of {base}, which cannot be found.\n"
            f"Name that model's folder as base_model_name_or_path in {path}, or give the merged "
            "folder."
        ) from error


def _readable(folder, read):
    """Return read(); InputError for all that a wrong or torn folder raises."""
    try:
        return read()
    except Exception as error:  # OSError, KeyError, SafetensorError, UserWarning, ...
        raise InputError(
            f"{folder} cannot be loaded ({type(error).__name__}: {str(error)[:400]})\n"
            "Give the folder of a causal language model that this version of transformers knows. "
            "If it is torn, fetch it once more."
        ) from error
