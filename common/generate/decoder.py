"""Decoding with a transformers model: finished rows leave a batch, and new ones fill its places.

A static batch runs until its longest text ends: with real lengths most of its work is thrown away.
Here all rows advance by STEPS tokens, and the host waits for the device once, at their end. Then it
looks which texts have ended, takes those rows out of the cache, cuts off the columns that no row
uses any more, and puts the next prompts in.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import TopPLogitsWarper
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import create_masks_for_generate

from common.core.files import utf8
from common.core.special_tokens import encode
from common.generate.requests import Sampling, Task, cut_at_stop

# Neither of the first two is sharp: 4 to 32 steps and 1/2 to 1/32 of the batch differ by 10%
# (128 texts of 100 tokens, batches of 16 and 32, CPU).
STEPS = 8  # tokens between two looks: a finished row computes up to STEPS - 1 tokens in vain
REFILL = 8  # prompts are read once 1/REFILL of the batch is free: all rows wait for that forward
ROOM = 64  # the cache grows by so many columns: an allocator can use equal sizes again


@dataclass(eq=False)
class Row:
    """A prompt on its way to a text.

    limit: how many tokens the text may have. ids: its tokens so far, but for the newest, which is
    not yet fed to the model. finish_reason: "stop" or "length" once it has ended.
    """

    task: Task
    prompt: list
    limit: int
    random: torch.Generator
    ids: list = field(default_factory=list)
    finish_reason: str = ""

    def n_columns(self) -> int:
        """Return how many columns of the cache this row fills."""
        return len(self.prompt) + len(self.ids)


class Columns(DynamicLayer):
    """One layer's keys and values, [B, heads, columns, d], in a buffer with free columns at right.

    A token is written in place; transformers' own layer copies the whole cache for each one.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys, values, used):
        super().__init__()
        self.keys = keys
        self.values = values
        self.used = used
        self.is_initialized = True

    def update(self, keys, values, *_, **__):
        start = self.used
        self.used += keys.shape[-2]
        self.keys[:, :, start : self.used] = keys
        self.values[:, :, start : self.used] = values
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_seq_length(self):
        return self.used


def _joined(parts, width, n_free):
    """Return a cache of rows from several caches, one below the other.

    parts: (cache, ..., its rows) each. The rows keep their last `width` columns, right-aligned, in
    buffers with `n_free` more at least. Free columns are zero: masked, yet never NaN. The old
    layers are given up one by one, so that two whole caches are never held.
    """
    size = ROOM * math.ceil((width + n_free) / ROOM)
    layers = []
    for old_layers in zip(*(cache.layers for cache, *_ in parts)):
        keys, values = [], []
        for old, (*_, rows) in zip(old_layers, parts):
            used = old.get_seq_length()
            padding = (0, 0, width - used, size - width)  # at the left a negative one cuts off
            keys.append(pad(old.keys[rows, :, :used], padding))
            values.append(pad(old.values[rows, :, :used], padding))
            old.keys = old.values = None
        layers.append(Columns(torch.cat(keys), torch.cat(values), width))
    return Cache(layers=layers)


def _at_step(masks, step, end):
    """Return what `Decoder._masks` has for one step, whose token is in column `end` - 1."""
    if isinstance(masks, dict):
        return {kind: _at_step(mask, step, end) for kind, mask in masks.items()}
    if masks.dim() == 2:
        return masks[:, :end]
    return masks[:, :, step : step + 1, :end]


def draw(scores: torch.Tensor, sampling: Sampling, uniforms: torch.Tensor) -> torch.Tensor:
    """Return the next tokens [B] by `scores` [B, V]: the greatest, or drawn with a temperature.

    A drawn token is the one that `uniforms` [B], float64 in [0, 1), points at in the cumulated
    probabilities, after temperature and top-p as transformers applies them.
    Each row has random numbers of its own, by its key. So its text depends neither on the rows
    that share its batch, nor on their order or a resume. torch's one global generator cannot do
    that.
    """
    if not sampling.temperature:
        return scores.argmax(-1)
    scores = scores / sampling.temperature
    if sampling.top_p is not None and sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)  # type: ignore
    cumulated = torch.softmax(scores.double(), dim=-1).cumsum(dim=-1)
    tokens = torch.searchsorted(cumulated, uniforms[:, None] * cumulated[:, -1:], right=True)
    return tokens.clamp(max=scores.shape[-1] - 1)[:, 0]


@dataclass
class Decoder:
    """Texts of one model for text prompts.

    end_tokens: ids that end a text; context: tokens that prompt and text may have together.
    count: called with the number of new tokens of the batch, every few steps.
    """

    model: Any
    tokenizer: Any
    sampling: Sampling
    end_tokens: set
    context: int
    batch_size: int
    count: Callable = lambda n: None

    def generate(self, tasks: list):
        """Yield (task, answer) as each text ends: {"text", "finish_reason", "usage"}.

        A prompt that the model cannot take gets {"error"}. A task's key is the seed of its row.
        The arguments alone decide what shares a batch, not the clock. So the same tasks get the
        same texts again, in bfloat16 too.
        """
        waiting = []
        for task in tasks:
            prompt = self._prompt_ids(task.request.prompt)
            room = self.context - len(prompt)
            if prompt and room > 0:
                limit = min(task.sampling.max_new_tokens, room)
                random = torch.Generator().manual_seed(int(task.key[:15], 16))
                waiting.append(Row(task, prompt, limit, random))
            else:
                bounds = f"the model reads 1 to {self.context - 1}"
                yield task, {"error": f"the prompt has {len(prompt)} tokens, {bounds}"}
        waiting.sort(key=lambda row: -len(row.prompt))
        for row in self._finished_rows(deque(waiting)):
            yield row.task, self._answer(row)

    def _finished_rows(self, waiting):
        """Yield each row as its text ends."""
        rows = []
        parts: list = []  # of the batch: (cache, its newest tokens, which of its rows go on)
        while waiting or rows:
            n_free = self.batch_size - len(rows)
            if waiting and n_free * REFILL >= self.batch_size:
                new_rows = [waiting.popleft() for _ in range(min(n_free, len(waiting)))]
                parts.append((*self._read(new_rows), slice(None)))
                rows = rows + new_rows
            n_steps = min(STEPS, max(row.limit - len(row.ids) for row in rows))
            newest = torch.cat([ids[places] for _, ids, places in parts])
            cache = _joined(parts, max(row.n_columns() for row in rows), n_steps)
            block = self._advance(cache, newest, rows, n_steps)
            newest = block[:, -1]
            new_ids = block[:, :-1].tolist()  # the host waits for the device here only
            self.count(len(rows) * n_steps)
            for row, ids in zip(rows, new_ids):
                row.finish_reason = self._extend(row, ids)
                if row.finish_reason:
                    yield row
            places = [place for place, row in enumerate(rows) if not row.finish_reason]
            rows = [rows[place] for place in places]
            parts = [(cache, newest, self._on_device(torch.tensor(places)))] if rows else []

    def _prompt_ids(self, prompt):
        """Return a prompt's token ids; one that holds the begin token gets no second one."""
        begin = self.tokenizer.bos_token
        has_begin = begin and prompt.startswith(begin)
        return encode([utf8(prompt)], self.tokenizer, begin=not has_begin)[0]

    def _read(self, rows):
        """Return (cache of the rows' prompts, left-padded, the first token of each text, [B])."""
        width = max(row.n_columns() for row in rows)
        ids = [[0] * (width - len(row.prompt)) + row.prompt for row in rows]
        positions = self._positions(rows, 0)
        cache = Cache(layer_class_to_replicate=DynamicLayer)
        mask = (positions >= 0).long()
        uniforms = self._uniforms(rows, 1)
        ids = self._on_device(torch.tensor(ids))
        return cache, self._next_tokens(ids, mask, positions, cache, uniforms[:, 0])

    def _advance(self, cache, newest, rows, n_steps):
        """Feed each row's newest token and what follows it, n_steps times; return all, [B, 1 + n].

        The masks are made ready for STEPS tokens at once. transformers would make one for each
        step, and let the host wait to see whether it is needed at all.
        """
        start = cache.get_seq_length()
        positions = self._positions(rows, STEPS)
        masks = self._masks(positions, cache)
        uniforms = self._uniforms(rows, n_steps)
        block = [newest]
        for step in range(n_steps):
            end = start + step + 1
            inputs = block[-1][:, None], _at_step(masks, step, end), positions[:, end - 1 : end]
            block.append(self._next_tokens(*inputs, cache, uniforms[:, step]))
        return torch.stack(block, 1)

    @torch.inference_mode()
    def _next_tokens(self, ids, mask, positions, cache, uniforms):
        """Feed `ids` [B, n] at `positions` as the newest columns; return what follows, [B]."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            # A row may run on after its end: no position beyond the model's last.
            position_ids=positions.clamp(0, self.context - 1),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return draw(output.logits[:, -1].float(), self.sampling, uniforms)

    def _masks(self, positions, cache):
        """Return the attention masks of the next STEPS tokens as this model reads them.

        They are [B, 1, STEPS, columns], or {kind of layer: that}. A model that transformers gives
        no ready masks makes its own from [B, columns].
        """
        mask = (positions >= 0).long()
        if not self.model._can_compile_fullgraph:
            return mask
        create = getattr(self.model, "create_masks_for_generate", create_masks_for_generate)
        shape = torch.empty(len(mask), STEPS, 0, dtype=self.model.dtype, device=mask.device)
        return create(
            config=self.model.config,
            inputs_embeds=shape,
            attention_mask=mask,
            past_key_values=cache,
            position_ids=positions[:, -STEPS:],
        )

    def _on_device(self, tensor):
        """Return a copy on the model's device; from pinned memory the host need not wait for it."""
        if self.model.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.model.device, non_blocking=True)

    def _positions(self, rows, n):
        """Return the position in its text of each column that is filled, and of the next n.

        [B, columns + n]; the columns before a row's first token have negative ones.
        """
        lengths = [row.n_columns() for row in rows]
        columns = torch.arange(-max(lengths), n)
        return self._on_device(columns + torch.tensor(lengths)[:, None])

    def _uniforms(self, rows, n):
        """Return the rows' next n random numbers, [B, n], float64 in [0, 1).

        Those of a row are the same whatever the n.
        """
        numbers = [torch.rand(n, generator=row.random, dtype=torch.double) for row in rows]
        return self._on_device(torch.stack(numbers))

    def _text(self, ids):
        """Return the text of `ids` before the first stop string, and whether there was one."""
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return cut_at_stop(text, self.sampling.stop)

    def _extend(self, row, new_ids):
        """Give the row its new tokens, up to its end; return "stop", "length" or None (not ended).

        To decode each text anew for each token would take longer than the model. So the newest
        tokens say whether a stop string can be among them; only then is the text up to each of
        them looked at. A string of n bytes has at most n tokens; 8 more, as some tokenizers treat
        the first ones of a text in another way.
        """
        n_tail = 8 + max((len(stop.encode()) for stop in self.sampling.stop), default=0)
        _, may_stop = self._text(row.ids[-n_tail:] + new_ids)
        for token in new_ids:
            row.ids.append(token)
            if token in self.end_tokens or (may_stop and self._text(row.ids)[1]):
                return "stop"
            if len(row.ids) == row.limit:
                return "length"
        return None

    def _answer(self, row):
        """Return the answer; end token and stop string are counted, but are not in its text.

        stop_string is true if one of the stop strings ended it.
        """
        text, is_cut = self._text(row.ids)
        if not is_cut and row.ids[-1] in self.end_tokens:
            text, _ = self._text(row.ids[:-1])
        usage = {"prompt_tokens": len(row.prompt), "completion_tokens": len(row.ids)}
        answer = {"text": text, "finish_reason": row.finish_reason, "usage": usage}
        return answer | {"stop_string": True} if is_cut else answer
