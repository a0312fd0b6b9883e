"""Rows -> token ids and labels, and the plan that cuts each global batch into micro-batches."""

import random
from collections import Counter

import torch

from common.core import prompts, verdicts
from common.core.errors import InputError

IGNORE = -100  # label of a position that is not supervised (torch's cross-entropy default)
AT_ONCE = 1000  # rows per call of the tokenizer, which spreads them over the cores


def encode(rows, tokenizer, template):
    """Rows of 03 -> one (prompt ids, completion ids) each; the completion's ids end with the template's end token.

    The two are tokenised apart, because at test time the model goes on from exactly the prompt's ids.
    Example (ChatML): [<|im_start|> system ... assistant \\n] and [Critique : \\n ... [END] <|im_end|>].
    """
    for at in range(0, len(rows), AT_ONCE):
        some = rows[at : at + AT_ONCE]
        asked = tokenizer([prompts.render(row["prompt"], template) for row in some]).input_ids
        written = [
            prompts.render_completion(row["completion"][0]["content"], template, tokenizer)
            for row in some
        ]
        yield from zip(asked, tokenizer(written, add_special_tokens=False).input_ids)


def lengths(texts, tokenizer, special):
    """How many tokens each text has; special: with what the tokenizer puts round it, as round a prompt."""
    for at in range(0, len(texts), AT_ONCE):
        yield from map(
            len, tokenizer(texts[at : at + AT_ONCE], add_special_tokens=special).input_ids
        )


# Differs from the paper: a row is cut at its end. Its framework (LLaMA-Factory) shares the cutoff out between prompt and answer, so that an
# answer under half of it stays whole and the end of the prompt goes, "assistant" included.
def examples(rows, tokenizer, template, cutoff, overlong="truncate"):
    """Rows -> (list of {"id", "input_ids" (int32 tensor), "n_prompt"}, counts of what was dropped or cut).

    A row longer than `cutoff` tokens is cut at the end (the paper) or dropped; one whose prompt alone fills the cutoff
    is always dropped, since nothing of it would be supervised.
    """
    kept, counts = [], Counter()
    for row, (prompt, completion) in zip(rows, encode(rows, tokenizer, template)):
        if len(prompt) >= cutoff:
            counts["dropped: no completion token left"] += 1
            continue
        if len(prompt) + len(completion) > cutoff:
            if overlong == "drop":
                counts["dropped: over-long"] += 1
                continue
            counts["cut"] += 1
            completion = completion[: cutoff - len(prompt)]
            counts["cut so that the verdict is lost"] += verdicts.parse_verdict(
                tokenizer.decode(completion)
            ) != verdicts.parse_verdict(row["completion"][0]["content"])
        kept.append(
            {
                "id": row["id"],
                "input_ids": torch.tensor(prompt + completion, dtype=torch.int32),
                "n_prompt": len(prompt),
            }
        )
    return kept, +counts


def check_fit(examples, vocabulary, positions, base):
    """InputError where a token has no row in the model's embedding, because the tokenizer is another model's, or a row is
    longer than the model's context."""
    if (longest := max(len(e["input_ids"]) for e in examples)) > (positions or longest):
        raise InputError(
            f"{base}: a row has {longest} tokens, the model takes {positions}.\nGive --cutoff {positions}, or a base with more."
        )
    if (largest := max(int(e["input_ids"].max()) for e in examples)) >= vocabulary:
        raise InputError(
            f"{base}: its tokenizer writes token {largest}, but its embedding has {vocabulary} rows (0 to {vocabulary - 1}).\n"
            "Tokenizer and weights are of different models: copy the tokenizer files of the model that the weights are of."
        )


def split_holdout(examples, n, seed):
    """-> (what is trained on, n examples held out), the choice by seed, each in the order of `examples`."""
    held = set(random.Random(f"held out {seed}").sample(range(len(examples)), n))
    return [e for i, e in enumerate(examples) if i not in held], [examples[i] for i in sorted(held)]


def n_supervised(example):
    return len(example["input_ids"]) - example["n_prompt"]


def collate(batch, device="cpu"):
    """-> input_ids, labels, both [B, T] int64, right-padded with token 0, which no real token sees.

    No attention mask: causal attention never looks right, so real tokens do not see the padding, and sdpa keeps its
    fast causal path. labels[b, t] is input_ids[b, t] on completion tokens and IGNORE elsewhere (the shift by one is the
    loss's). An example is supervised on its whole completion, the first token and the end token included.
    """
    length = max(len(e["input_ids"]) for e in batch)
    input_ids = torch.zeros((len(batch), length), dtype=torch.long)
    labels = torch.full((len(batch), length), IGNORE, dtype=torch.long)
    for b, example in enumerate(batch):
        ids, n_prompt = torch.as_tensor(example["input_ids"], dtype=torch.long), example["n_prompt"]
        input_ids[b, : len(ids)] = ids
        labels[b, n_prompt : len(ids)] = ids[n_prompt:]
    return input_ids.to(device), labels.to(device)


def batch_plan(lengths, global_batch, epochs, seed, ranks, tokens_per_microbatch):
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


def _cut(rows, lengths, ranks, most):
    rows = sorted(rows, key=lambda i: (-lengths[i], i))
    wanted = -(-len(_groups(rows, lengths, most)) // ranks) * ranks
    low, high = lengths[rows[0]], max(most, lengths[rows[0]])
    while (
        low < high
    ):  # the smallest budget that needs no more micro-batches: then all of them are about equally full
        budget = (low + high) // 2
        if len(_groups(rows, lengths, budget)) <= wanted:
            high = budget
        else:
            low = budget + 1
    groups = _groups(rows, lengths, min(most, high))
    while len(groups) < wanted:  # halve the costliest until every rank gets as many
        costliest = max(groups, key=lambda g: (len(g) > 1, _cost(g, lengths)))
        groups.remove(costliest)
        half = (len(costliest) + 1) // 2
        groups += [costliest[:half], costliest[half:]] if len(costliest) > 1 else [costliest, []]
    groups.sort(key=lambda g: -_cost(g, lengths))
    return [
        groups[rank::ranks] for rank in range(ranks)
    ]  # the i-th micro-batches of all ranks are of like size


def _groups(rows, lengths, budget):
    """Rows, longest first, in runs of at most `budget` padded tokens; a row above it stands alone."""
    groups = []
    for i in rows:
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _cost(group, lengths):
    """Padded tokens of a micro-batch, whose first row is its longest; 0 where it is empty."""
    return lengths[group[0]] * len(group) if group else 0


def padding_share(steps, lengths):
    """Share of the planned tokens that is padding, 0 to 1."""
    groups = [g for step in steps for rank in step for g in rank if g]
    padded = sum(max(lengths[i] for i in g) * len(g) for g in groups)
    return 1 - sum(lengths[i] for g in groups for i in g) / padded


def packing_efficiency(step, lengths):
    """Share of one step's token slots that hold real tokens, 0 to 1: padding counts against it, and so does a rank's
    waiting, since the i-th micro-batches of all ranks last as long as the largest of them."""
    slots = sum(
        max(max((lengths[i] for i in g), default=0) * len(g) for g in together)
        for together in zip(*step)
    )
    return sum(lengths[i] for rank in step for g in rank for i in g) / (slots * len(step))
