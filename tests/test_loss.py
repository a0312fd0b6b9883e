"""The critique-only loss against Hugging Face's own."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from common import loss
from common.tokens import IGNORE

SIZES = dict(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
             intermediate_size=48, max_position_embeddings=64)


def batch():
    g = torch.Generator().manual_seed(0)
    input_ids = torch.randint(0, 97, (3, 20), generator=g)
    labels = input_ids.clone()
    labels[0, :7] = labels[1, :19] = labels[2, 4:9] = IGNORE  # a prompt, all but one, a hole
    return input_ids, labels


@pytest.mark.parametrize("make, config", [(Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=True)),
                                          (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False))])
@pytest.mark.parametrize("chunk", [1, 5, 1024])
def test_equals_hugging_face_loss_and_gradient(make, config, chunk, monkeypatch):
    monkeypatch.setitem(loss.CHUNK, "cpu", chunk * 97)
    torch.manual_seed(0)
    model = make(config)
    input_ids, labels = batch()
    n = (labels[:, 1:] != IGNORE).sum()
    model(input_ids=input_ids, labels=labels).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    expected_loss = model(input_ids=input_ids, labels=labels).loss.item()
    model.zero_grad()
    hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state
    ours = loss.completion_nll(hidden, labels, model.lm_head.weight) / n
    ours.backward()
    assert ours.item() == pytest.approx(expected_loss, abs=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], atol=1e-6, rtol=1e-4)


def test_a_batch_without_supervised_tokens_is_zero_and_differentiable():
    hidden = torch.randn(2, 5, 8, requires_grad=True)
    weight = torch.randn(11, 8, requires_grad=True)
    total = loss.completion_nll(hidden, torch.full((2, 5), IGNORE), weight)
    total.backward()
    assert total.item() == 0 and hidden.grad.abs().sum() == 0 and weight.grad.abs().sum() == 0


def test_full_logits_are_never_formed(monkeypatch):
    """The largest tensor that passes through cross-entropy has a chunk's rows, whatever the batch."""
    monkeypatch.setitem(loss.CHUNK, "cpu", 16 * 11)
    seen = []
    real = torch.nn.functional.cross_entropy
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda x, *a, **k: (seen.append(x.shape), real(x, *a, **k))[1])
    loss.completion_nll(torch.randn(4, 50, 8), torch.randint(0, 11, (4, 50)), torch.randn(11, 8))
    assert max(rows for rows, _ in seen) == 16 and sum(rows for rows, _ in seen) == 4 * 49


def test_bias_and_bfloat16():
    hidden, labels = torch.randn(2, 6, 8), torch.randint(0, 11, (2, 6))
    weight, bias = torch.randn(11, 8), torch.randn(11)
    exact = torch.nn.functional.cross_entropy((hidden[:, :-1] @ weight.T + bias).reshape(-1, 11), labels[:, 1:].reshape(-1), reduction="sum")
    assert loss.completion_nll(hidden, labels, weight, bias).item() == pytest.approx(exact.item(), rel=1e-5)
    half = loss.completion_nll(hidden.bfloat16(), labels, weight.bfloat16(), bias.bfloat16())
    assert half.dtype == torch.float32 and half.item() == pytest.approx(exact.item(), rel=0.02)
