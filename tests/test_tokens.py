"""Which tokens are supervised, and how a global batch is cut."""

import random

import pytest

from common import tokens
from common.model import load_tokenizer
from common.tiny.base import tokenizer
from tests.conftest import SHARED

ROW = {
    "id": "r", "prompt": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Start with 3\n(1) + 4"}],
    "completion": [{"role": "assistant", "content": "Critique:\nCheck each line:\n(1) 3 + 4 = 7 right\n\nConclusion: right [END]"}],
}


def test_labels_are_exactly_the_completion_and_its_end_token():
    words = tokenizer()
    (example,), counts = tokens.examples([ROW], words, "chatml", cutoff=512)
    input_ids, labels = tokens.collate([example], words.pad_token_id)
    supervised = words.decode(labels[0][labels[0] != tokens.IGNORE])
    prompt = words.decode(input_ids[0][labels[0] == tokens.IGNORE])
    assert supervised == ROW["completion"][0]["content"] + "<|im_end|>"
    assert prompt == ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nStart with 3\n(1) + 4"
                      "<|im_end|>\n<|im_start|>assistant\n")
    assert tokens.n_supervised(example) == (labels != tokens.IGNORE).sum() and not counts


@pytest.mark.parametrize("name, template, end", [("qwen2.5-math", "chatml", "<|im_end|>"), ("deepseek-llm", "deepseek", "<｜end▁of▁sentence｜>")])
def test_labels_with_real_tokenizers(name, template, end):
    if not (SHARED / "tokenizers" / name).is_dir():
        pytest.skip("../shared is not there")
    real = load_tokenizer(SHARED / "tokenizers" / name)
    row = ROW | {"completion": [{"role": "assistant", "content": "Critique:\n\\boxed{½} is naïve 🙂\n\nConclusion: wrong [END]"}]}
    (example,), _ = tokens.examples([row], real, template, cutoff=512)
    text = real.decode(example["input_ids"][example["n_prompt"]:])
    assert text == (" " if template == "deepseek" else "") + row["completion"][0]["content"] + end
    assert (example["input_ids"][0] == real.bos_token_id) == (template == "deepseek")  # as generation will see it


def test_padding_is_on_the_right_and_not_supervised():
    examples = [{"input_ids": [5, 6, 7], "n_prompt": 1}, {"input_ids": [8, 9], "n_prompt": 1}]
    input_ids, labels = tokens.collate(examples, pad_id=0)
    assert input_ids.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert labels.tolist() == [[-100, 6, 7], [-100, 9, -100]]


def test_overlong_rows_are_cut_or_dropped_and_counted():
    words = tokenizer()
    (whole,), _ = tokens.examples([ROW], words, "chatml", cutoff=512)
    length, n_prompt = len(whole["input_ids"]), whole["n_prompt"]
    (cut,), counts = tokens.examples([ROW], words, "chatml", cutoff=length - 1)
    assert cut["input_ids"].tolist() == whole["input_ids"].tolist()[:-1] and counts == {"cut": 1}
    assert tokens.examples([ROW], words, "chatml", length - 1, "drop")[0] == []
    for overlong in ("truncate", "drop"):  # a row without one supervised token would give a loss of 0/0
        kept, counts = tokens.examples([ROW], words, "chatml", n_prompt, overlong)
        assert kept == [] and counts == {"dropped: no completion token left": 1}
    assert tokens.examples([ROW], words, "chatml", length)[1] == {}


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("rows, batch, cap", [(100, 16, 300), (37, 16, 10_000), (5, 512, 64), (1, 4, 8), (64, 64, 1)])
def test_plan_holds_each_row_once_an_epoch_and_every_rank_as_many_microbatches(rows, batch, cap, ranks):
    rng = random.Random(rows)
    lengths = [rng.randint(3, 60) for _ in range(rows)]
    plan = tokens.plan(lengths, batch, epochs=2, seed=1, ranks=ranks, tokens_per_microbatch=cap)
    assert len(plan) == 2 * -(-rows // batch)
    for epoch in (plan[: len(plan) // 2], plan[len(plan) // 2 :]):
        assert sorted(i for step in epoch for rank in step for group in rank for i in group) == list(range(rows))
    for step in plan:
        assert len(step) == ranks and len({len(rank) for rank in step}) == 1
        for group in (g for rank in step for g in rank if len(g) > 1):
            assert max(lengths[i] for i in group) * len(group) <= cap  # a single over-long row must stand alone


def test_global_batches_do_not_depend_on_ranks_or_cap():
    lengths = [random.Random(i).randint(3, 60) for i in range(50)]
    batches = lambda ranks, cap: [sorted(i for rank in step for g in rank for i in g) for step in tokens.plan(lengths, 8, 1, 3, ranks, cap)]
    assert batches(1, 1000) == batches(4, 70)
    assert batches(1, 1000) != [sorted(i for r in s for g in r for i in g) for s in tokens.plan(lengths, 8, 1, 4, 1, 1000)]


def test_length_grouping_beats_random_batches():
    """Lognormal lengths as in FACTS of the field (prompt + critique): at most 8 % padding against about half."""
    rng = random.Random(0)
    lengths = [int(rng.lognormvariate(6.4, 0.6)) + 20 for _ in range(2048)]
    plan = tokens.plan(lengths, 512, 1, 0, 8, 16_384)
    assert tokens.padding_share(plan, lengths) < 0.08
    random_order = [[[list(range(at, at + 8))] for at in range(0, 2048, 8)]]
    assert tokens.padding_share(random_order, lengths) > 0.4


def test_padding_share_by_hand():
    """Lengths 2 and 4 in one group: 8 padded tokens, 6 real ones."""
    assert tokens.padding_share([[[[0, 1]]]], [2, 4]) == pytest.approx(2 / 8)
