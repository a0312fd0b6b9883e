"""Decoding with a transformers model: a batch whose finished rows leave and whose free places are filled.

A static batch runs until its longest text ends: with real lengths most of what it computes is thrown away. Here all rows
advance STEPS tokens without a word to the host; then the host looks which texts have ended, takes those rows out of the
cache, cuts off the columns that no row uses any more, and puts the next prompts in.
"""

from collections import deque

import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper
from transformers.cache_utils import Cache, DynamicLayer

from common.core.files import utf8
from common.generate.requests import cut_at_stop

# Neither is sharp: 4 to 32 steps and 1/2 to 1/32 of the batch differ by 10 % (128 texts of 100 tokens, batches of 16 and 32, CPU).
STEPS = 8  # tokens between two looks at the texts: a finished row computes up to STEPS - 1 tokens in vain
REFILL = 8  # new prompts are read once 1 / REFILL of the batch is free: each time costs a forward that the others wait for
ROOM = 64  # columns of the cache are taken in multiples of this: equal sizes are what an allocator can use again


class Row:
    """A prompt on its way. ids: its new tokens, the last of them not yet fed to the model; limit: how many there may be."""

    def __init__(self, index, prompt, limit, seed):
        self.index, self.prompt, self.limit, self.ids, self.ended = index, prompt, limit, [], None
        self.random = torch.Generator().manual_seed(seed)

    def columns(self):
        """How many columns of the cache this row fills."""
        return len(self.prompt) + max(len(self.ids) - 1, 0)


class Columns(DynamicLayer):
    """One layer's keys and values, [B, heads, columns, d], in a buffer with free columns at its right.

    A token is written in place, where transformers' own layer copies the whole cache for each one.
    """

    def __init__(self, keys=None, values=None, used=0):
        super().__init__()
        self.keys, self.values, self.used, self.is_initialized = (
            keys,
            values,
            used,
            keys is not None,
        )

    def update(self, keys, values, *unused, **unused_too):
        start, self.used = self.used, self.used + keys.shape[-2]
        if not self.is_initialized:
            self.keys, self.values, self.is_initialized = keys, values, True
        else:
            self.keys[:, :, start : self.used], self.values[:, :, start : self.used] = keys, values
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_seq_length(self):
        return self.used


def _rearranged(cache, keep, fresh, width, size):
    """The rows `keep` of `cache` and below them all rows of `fresh` (either may be None), their last `width` columns, in buffers
    of `size` columns. Layers are given up one by one, so that two whole caches are never held."""

    def joined(*parts):
        parts = [part for part in parts if part is not None]
        out = parts[0].new_zeros(
            sum(map(len, parts)), parts[0].shape[1], size, parts[0].shape[3]
        )  # masked, yet never NaN
        start = 0
        for part in parts:
            out[start : start + len(part), :, width - part.shape[2] : width] = part
            start += len(part)
        return out

    layers = []
    for old, new in zip((cache or fresh).layers, (fresh or cache).layers):
        kept = [
            None if cache is None else t[keep, :, max(old.used - width, 0) : old.used]
            for t in (old.keys, old.values)
        ]
        added = [None if fresh is None else t[:, :, : new.used] for t in (new.keys, new.values)]
        layers.append(Columns(joined(kept[0], added[0]), joined(kept[1], added[1]), width))
        old.keys = old.values = new.keys = new.values = None
    return Cache(layers=layers)


def draw(scores, sampling, uniforms):
    """-> the next tokens [B] by `scores` [B, V]: the greatest, or with a temperature those that `uniforms` [B], float64 in
    [0, 1), point at in the cumulated probabilities, after temperature and top-p as transformers applies them.

    Each row has its own random numbers, from its own key. So its text does not depend on which rows share its batch, on
    their order or on a resume, which torch's one global generator cannot give.
    """
    if not sampling.temperature:
        return scores.argmax(-1)
    scores = TemperatureLogitsWarper(float(sampling.temperature))(None, scores)
    if sampling.top_p is not None and sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    cdf = torch.softmax(scores.double(), dim=-1).cumsum(dim=-1)
    at = torch.searchsorted(cdf, uniforms[:, None] * cdf[:, -1:], right=True)
    return at.clamp(max=scores.shape[-1] - 1)[:, 0]


class Decoder:
    """Texts from one model for text prompts. ends: ids that end a text; most: tokens that prompt and text may have together."""

    def __init__(self, model, tokenizer, sampling, ends, most, batch_size):
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.ends, self.most, self.batch_size = set(ends), most, batch_size

    def texts(self, prompts, keys, limits):
        """Yields (index, answer) as each text ends; answer: {"text", "finish_reason", "usage"}, or {"error"} for a prompt that
        the model cannot take. keys: hex digits, the rows' seeds; limits: new tokens of each row, at most. What shares a batch
        depends on the arguments alone, not on the clock: the same chunk gives the same texts again, in bfloat16 too.
        """
        waiting = []
        for index, (key, limit, prompt) in enumerate(zip(keys, limits, self._ids(prompts))):
            if 0 < len(prompt) < self.most:
                waiting.append(
                    Row(index, prompt, min(limit, self.most - len(prompt)), int(key[:15], 16))
                )
            else:
                yield (
                    index,
                    {
                        "error": f"the prompt has {len(prompt)} tokens, the model reads 1 to {self.most - 1}"
                    },
                )
        waiting.sort(key=lambda row: -len(row.prompt))
        waiting, rows, cache, tokens = (
            deque(waiting),
            [],
            None,
            None,
        )  # tokens [B]: what each row is fed next
        while waiting or not all(row.ended for row in rows):
            keep, fresh, new = [at for at, row in enumerate(rows) if not row.ended], [], None
            free = self.batch_size - len(keep)
            if waiting and (not keep or free * REFILL >= self.batch_size):
                fresh = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                new, first = self._read(fresh)
                tokens = torch.cat([tokens[keep], first]) if keep else first
            elif len(keep) < len(rows):
                tokens = tokens[keep]
            changed = fresh or len(keep) < len(rows)
            rows = [rows[at] for at in keep] + fresh
            steps = min(STEPS, max(row.limit - max(len(row.ids), 1) for row in rows))
            width = max(row.columns() for row in rows) if changed else cache.get_seq_length()
            size = -(-(width + steps) // ROOM) * ROOM
            if changed or size > cache.layers[0].keys.shape[2]:
                cache = _rearranged(cache if keep else None, keep, new, width, size)
            block = self._advance(cache, rows, tokens, steps)
            tokens = block[:, -1]
            for row, ids in zip(rows, block.tolist()):  # the host waits for the device here only
                row.ended = self._end(
                    row, ids[bool(row.ids) :]
                )  # a row's first token is new, later ones were seen when drawn
                if row.ended:
                    yield row.index, self._answer(row)

    def _ids(self, prompts):
        """Token ids of each prompt; one that begins with the tokenizer's own begin token gets no second one."""
        bos = self.tokenizer.bos_token
        return [
            self.tokenizer(utf8(p), add_special_tokens=not (bos and p.startswith(bos))).input_ids
            for p in prompts
        ]

    @torch.inference_mode()
    def _read(self, rows):
        """-> the cache of the rows' prompts, left-padded, and the first token of each [B]."""
        width = max(len(row.prompt) for row in rows)
        ids = torch.tensor(
            [[0] * (width - len(row.prompt)) + row.prompt for row in rows], device=self.model.device
        )
        lengths = torch.tensor([len(row.prompt) for row in rows], device=self.model.device)
        positions = torch.arange(width, device=self.model.device) - (width - lengths)[:, None]
        cache = Cache(layer_class_to_replicate=Columns)
        scores = self._forward(ids, positions >= 0, positions.clamp(min=0), cache)
        return cache, draw(scores, self.sampling, self._uniforms(rows, 1)[:, 0])

    @torch.inference_mode()
    def _advance(self, cache, rows, tokens, steps):
        """Feed `tokens` [B] and what follows them, `steps` times. -> [B, 1 + steps]: `tokens` and what followed."""
        width, uniforms, tokens = cache.get_seq_length(), self._uniforms(rows, steps), [tokens]
        lengths = torch.tensor([row.columns() for row in rows], device=self.model.device)[:, None]
        mask = torch.arange(width + steps, device=self.model.device) >= width - lengths
        for step in range(steps):
            positions = (lengths + step).clamp(max=self.most - 1)  # a row may run on after its end
            scores = self._forward(
                tokens[-1][:, None], mask[:, : width + step + 1], positions, cache
            )
            tokens.append(draw(scores, self.sampling, uniforms[:, step]))
        return torch.stack(tokens, 1)

    def _forward(self, ids, mask, positions, cache):
        """-> float32 scores [B, V] of the token after the last column."""
        return (
            self.model(
                input_ids=ids,
                attention_mask=mask.long(),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )

    def _uniforms(self, rows, n):
        """The rows' next n random numbers, [B, n], float64 in [0, 1); each row's are the same whatever the n."""
        return torch.stack(
            [torch.rand(n, generator=row.random, dtype=torch.double) for row in rows]
        ).to(self.model.device)

    def _decoded(self, ids):
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _end(self, row, new):
        """Give the row its new tokens, up to its end. -> "stop", "length", or None where it goes on.

        Decoding each text anew for each token would take longer than the model: the newest tokens say whether a stop
        string can be among them, only then the text up to each of them is looked at. A string of n bytes has at most n
        tokens; a few more, as some tokenizers treat the first ones of a text in another way.
        """
        before = max((len(s.encode()) for s in self.sampling.stop), default=0) + 8
        near = (
            cut_at_stop(self._decoded(row.ids[-before:] + new), self.sampling.stop)[1]
            if self.sampling.stop
            else False
        )
        for token in new:
            row.ids.append(token)
            if (
                token in self.ends
                or near
                and cut_at_stop(self._decoded(row.ids), self.sampling.stop)[1]
            ):
                return "stop"
            if len(row.ids) == row.limit:
                return "length"
        return None

    def _answer(self, row):
        """The text ends before its end token or stop string; both are counted among its tokens."""
        text, _ = cut_at_stop(
            self._decoded(row.ids[:-1] if row.ids[-1] in self.ends else row.ids), self.sampling.stop
        )
        return {
            "text": text,
            "finish_reason": row.ended,
            "usage": {"prompt_tokens": len(row.prompt), "completion_tokens": len(row.ids)},
        }
