"""Rows -> token ids and labels, and the batch plan: global batches cut into micro-batches."""

import random
from bisect import bisect_left
from collections import Counter
from functools import partial

import torch
from torch.nn.utils.rnn import pad_sequence

from common.core import special_tokens, verdicts
from common.core.errors import InputError
from common.core.tokenizer import encode_rows

IGNORE = -100  # label of a position that is not supervised (torch's cross-entropy default)


# Differs from the paper: a row is cut at its end. Its framework (LLaMA-Factory) shares the cutoff
# out between prompt and answer: an answer under half of it stays whole, and the end of the prompt
# goes, "assistant" included.
def examples(
    rows: list, tokenizer, template: str, cutoff: int, overlong: str = "truncate"
) -> tuple[list, Counter]:
    """Return (examples, counts of what was dropped, truncated or is read in another way).

    An example is {"id", "input_ids" (int32 tensor), "n_prompt"}. A row longer than `cutoff` tokens
    is truncated at its end, or dropped (overlong). A row whose prompt alone fills the cutoff is
    always dropped, since nothing of it would be supervised.
    """
    encoded, counts = [], Counter()
    n_special = special_tokens.count_rows(rows, tokenizer)
    if n_special:
        counts["with text such as <|im_end|>, trained as plain text"] = n_special
    for row, (prompt, completion) in zip(rows, encode_rows(rows, tokenizer, template)):
        room = cutoff - len(prompt)
        if room <= 0:
            counts["dropped: no completion token left"] += 1
            continue
        if len(completion) > room:
            if overlong == "drop":
                counts["dropped: over-long"] += 1
                continue
            counts["truncated"] += 1
            completion = completion[:room]
            verdict = verdicts.parse_verdict(row["completion"][0]["content"])
            if verdicts.parse_verdict(tokenizer.decode(completion)) != verdict:
                counts["truncated so that the verdict is lost"] += 1
        input_ids = torch.tensor(prompt + completion, dtype=torch.int32)
        encoded.append({"id": row["id"], "input_ids": input_ids, "n_prompt": len(prompt)})
    return encoded, counts


def check_fit(examples: list[dict], vocabulary: int, positions: int | None, base: str) -> None:
    """Raise InputError if a row exceeds the model's context, or a token its embedding."""
    longest = max(len(e["input_ids"]) for e in examples)
    if positions and longest > positions:
        raise InputError(
            f"{base}: a row has {longest} tokens, the model takes {positions}.\n"
            f"Give --cutoff {positions}, or a base with more."
        )
    largest = max(int(e["input_ids"].max()) for e in examples)
    if largest >= vocabulary:
        raise InputError(
            f"{base}: its tokenizer writes token {largest}, but its embedding has "
            f"{vocabulary} rows (0 to {vocabulary - 1}).\n"
            "Tokenizer and weights are of different models: copy the tokenizer files of the model "
            "that the weights are of."
        )


def split_holdout(examples: list[dict], n: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Return (training examples, holdout of n examples), chosen by the seed, both in order."""
    chosen = set(random.Random(f"held out {seed}").sample(range(len(examples)), n))
    training = [e for i, e in enumerate(examples) if i not in chosen]
    return training, [examples[i] for i in sorted(chosen)]


def n_supervised(example: dict) -> int:
    """Return how many of the example's tokens are supervised: its completion's."""
    return len(example["input_ids"]) - example["n_prompt"]


def collate(batch: list) -> tuple:
    """Return input_ids and labels, both [B, T] int64, right-padded with token 0.

    No real token sees the padding. There is no attention mask: causal attention never looks right,
    and without a mask sdpa keeps its fast causal path. labels[b, t] is input_ids[b, t] on
    completion tokens and IGNORE elsewhere (the shift by one is the loss's). An example is
    supervised on its whole completion, the first token and the end token included.
    """
    rows = [torch.as_tensor(example["input_ids"], dtype=torch.long) for example in batch]
    input_ids = pad_sequence(rows, batch_first=True)
    labels = pad_sequence(rows, batch_first=True, padding_value=IGNORE)
    for row, example in zip(labels, batch):
        row[: example["n_prompt"]] = IGNORE
    return input_ids, labels


def supervised(labels: torch.Tensor) -> tuple:
    """Return positions and targets, both [N], of a batch's supervised tokens.

    A position counts through the whole batch, B x T. Position t predicts the label at t + 1.
    """
    is_target = labels != IGNORE
    is_target[:, 0] = False  # no position predicts it
    (places,) = is_target.flatten().nonzero(as_tuple=True)
    return places - 1, labels.flatten()[places]


def micro_batch(batch: list, device: torch.device) -> tuple:
    """Return input_ids, positions and targets on the device.

    They are made on the CPU, and copied from pinned memory, so that nothing waits for a GPU.
    """
    input_ids, labels = collate(batch)
    tensors = input_ids, *supervised(labels)
    if device.type == "cuda":
        tensors = [tensor.pin_memory() for tensor in tensors]
    return tuple(tensor.to(device, non_blocking=True) for tensor in tensors)


def batch_plan(
    lengths: list, global_batch: int, epochs: int, seed: int, ranks: int, tokens_per_microbatch: int
) -> list:
    """Return what each optimizer step trains on.

    A list (steps) of lists (ranks) of lists (micro-batches) of row indexes. Each epoch is a seeded
    shuffle cut into global batches; the last one may be smaller. Inside a global batch rows of
    adjacent lengths share a micro-batch of at most `tokens_per_microbatch` padded tokens. Every
    rank gets the same number of micro-batches, as sharded training needs; an empty one is a rank's
    share of a batch with too few rows. The gradient does not depend on the cut, because the loss is
    a token sum over the batch's token count.
    """
    steps = []
    for epoch in range(epochs):
        order = list(range(len(lengths)))
        random.Random(f"{seed} {epoch}").shuffle(order)
        for start in range(0, len(order), global_batch):
            rows = order[start : start + global_batch]
            steps.append(_split_batch(rows, lengths, ranks, tokens_per_microbatch))
    return steps


def _split_batch(rows, lengths, ranks, budget):
    rows = sorted(rows, key=lambda i: (-lengths[i], i))
    n_groups = len(_groups(rows, lengths, budget))
    n_groups = -(-n_groups // ranks) * ranks  # rounded up to a multiple of the ranks
    # The smallest budget that needs no more micro-batches: then all are about as full.
    budgets = range(lengths[rows[0]], budget)
    groups_at = partial(_groups, rows, lengths)
    even = bisect_left(budgets, True, key=lambda b: len(groups_at(b)) <= n_groups)
    groups = groups_at(budgets[even] if even < len(budgets) else budget)
    while len(groups) < n_groups:  # halve the costliest until every rank gets as many
        costliest = max(groups, key=lambda group: (len(group) > 1, _cost(group, lengths)))
        groups.remove(costliest)
        half = (len(costliest) + 1) // 2
        groups += [costliest[:half], costliest[half:]]  # of one row: that row and nothing
    groups.sort(key=lambda group: -_cost(group, lengths))
    # The i-th micro-batches of all ranks are of similar size.
    return [groups[rank::ranks] for rank in range(ranks)]


def _groups(rows, lengths, budget):
    """Group rows, longest first, to at most `budget` padded tokens; a longer row is alone."""
    groups = []
    for i in rows:
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _cost(group, lengths):
    """Return a micro-batch's padded tokens, 0 if it is empty."""
    return len(group) * max((lengths[i] for i in group), default=0)


def step_rows(step: list) -> list[int]:
    """Return the row indexes of one step of the plan, over all ranks."""
    return [i for micro_batches in step for group in micro_batches for i in group]


def packing_efficiency(step: list, lengths: list) -> float:
    """Return the share of one step's token slots that hold real tokens, 0 to 1.

    Padding counts against it, and so does a rank's waiting, since the i-th micro-batches of all
    ranks last as long as the largest of them.
    """
    slots = 0
    for simultaneous in zip(*step):  # the i-th micro-batches of all ranks
        slots += len(step) * max(_cost(group, lengths) for group in simultaneous)
    return sum(lengths[i] for i in step_rows(step)) / slots
