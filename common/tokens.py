"""Rows -> token ids and labels, and the plan that cuts each global batch into micro-batches."""

import random
from collections import Counter

import torch

from common import prompts

IGNORE = -100  # label of a position that is not supervised (torch's cross-entropy default)


def encode(row, tokenizer, template):
    """One row of 03 -> (prompt ids, completion ids); the completion's ids end with the template's end token.

    The two are tokenised apart, because at test time the model goes on from exactly the prompt's ids.
    Example (ChatML): [<|im_start|> system ... assistant \\n] and [Critique : \\n ... [END] <|im_end|>].
    """
    prompt = prompts.render(row["prompt"], template)
    completion = prompts.render_completion(row["completion"][0]["content"], template, tokenizer)
    return tokenizer(prompt).input_ids, tokenizer(completion, add_special_tokens=False).input_ids


def examples(rows, tokenizer, template, cutoff, overlong="truncate"):
    """Rows -> (list of {"id", "input_ids", "n_prompt"}, counts of what was dropped or cut).

    A row longer than `cutoff` tokens is cut at the end (the paper) or dropped; one whose prompt alone fills the cutoff
    is always dropped, since nothing of it would be supervised.
    """
    kept, counts = [], Counter()
    for row in rows:
        prompt, completion = encode(row, tokenizer, template)
        if len(prompt) + len(completion) > cutoff:
            counts["over-long"] += 1
            if overlong == "drop" or len(prompt) >= cutoff:
                counts["dropped"] += 1
                continue
            counts["cut, so without a verdict or end token"] += 1
        ids = (prompt + completion)[:cutoff]
        kept.append({"id": row["id"], "input_ids": ids, "n_prompt": len(prompt)})
    return kept, counts


def n_supervised(example):
    return len(example["input_ids"]) - example["n_prompt"]


def collate(batch, pad_id, device="cpu"):
    """-> input_ids, labels, both [B, T] int64, right-padded.

    No attention mask: causal attention never looks right, so real tokens do not see the padding, and sdpa keeps its
    fast causal path. labels[b, t] is input_ids[b, t] on completion tokens and IGNORE elsewhere (the shift by one is the
    loss's). An example is supervised on its whole completion, the first token and the end token included.
    """
    length = max(len(e["input_ids"]) for e in batch)
    input_ids = torch.full((len(batch), length), pad_id, dtype=torch.long)
    labels = torch.full((len(batch), length), IGNORE, dtype=torch.long)
    for b, example in enumerate(batch):
        ids, n_prompt = torch.tensor(example["input_ids"]), example["n_prompt"]
        input_ids[b, : len(ids)] = ids
        labels[b, n_prompt : len(ids)] = ids[n_prompt:]
    return input_ids.to(device), labels.to(device)


def plan(lengths, global_batch, epochs, seed, ranks, tokens_per_microbatch):
    """What each optimizer step trains on: a list (steps) of lists (ranks) of lists (micro-batches) of row indexes.

    Each epoch is a seeded shuffle cut into global batches; the last one may be smaller. Inside a global batch rows of
    adjacent lengths share a micro-batch of at most `tokens_per_microbatch` padded tokens. Every rank gets the same
    number of micro-batches, as sharded training needs; an empty one is a rank's share of a batch with too few rows.
    The gradient does not depend on the cut, because the loss is a token sum over the batch's token count.
    """
    steps = []
    for epoch in range(epochs):
        order = list(range(len(lengths)))
        random.Random(f"{seed} {epoch}").shuffle(order)
        for at in range(0, len(order), global_batch):
            steps.append(_cut(order[at : at + global_batch], lengths, ranks, tokens_per_microbatch))
    return steps


def _cut(rows, lengths, ranks, tokens_per_microbatch):
    rows = sorted(rows, key=lambda i: (-lengths[i], i))
    groups = []
    for i in rows:  # longest first, so the first row of a group sets its padded length
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= tokens_per_microbatch:
            groups[-1].append(i)
        else:
            groups.append([i])
    while len(groups) % ranks:  # halve the costliest until every rank gets as many
        costliest = max(groups, key=lambda g: (len(g) > 1, lengths[g[0]] * len(g) if g else 0))
        groups.remove(costliest)
        half = (len(costliest) + 1) // 2
        groups += [costliest[:half], costliest[half:]] if len(costliest) > 1 else [costliest, []]
    groups.sort(key=lambda g: -(lengths[g[0]] * len(g)) if g else 0)
    return [groups[rank::ranks] for rank in range(ranks)]  # the i-th micro-batches of all ranks are of like size


def padding_share(steps, lengths):
    """Share of the planned tokens that is padding, 0 to 1."""
    groups = [g for step in steps for rank in step for g in rank if g]
    padded = sum(max(lengths[i] for i in g) * len(g) for g in groups)
    return 1 - sum(lengths[i] for g in groups for i in g) / padded
