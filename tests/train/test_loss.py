"""The critique-only loss against Hugging Face's own."""

import os
import subprocess
import sys

import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from common.train import loss, model
from common.train.loss import CHUNK
from common.train.tokens import IGNORE, supervised
from tests.conftest import ROOT

SIZES = dict(
    vocab_size=97,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    intermediate_size=48,
    max_position_embeddings=64,
)


def completion_nll(hidden, labels, weight, bias=None, scale=1.0):
    return loss.completion_nll(hidden, *supervised(labels), weight, bias, scale)


def batch():
    g = torch.Generator().manual_seed(0)
    input_ids = torch.randint(0, 97, (3, 20), generator=g)
    labels = input_ids.clone()
    labels[0, :7] = labels[1, :19] = labels[2, 4:9] = IGNORE  # a prompt, all but one, a hole
    return input_ids, labels


@pytest.mark.parametrize(
    "make, config",
    [
        (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=True)),
        (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False)),
    ],
)
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
    ours = completion_nll(hidden, labels, model.lm_head.weight) / n
    ours.backward()
    assert ours.item() == pytest.approx(expected_loss, abs=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], atol=1e-6, rtol=1e-4)


def test_a_batch_without_supervised_tokens_is_zero_and_differentiable():
    hidden = torch.randn(2, 5, 8, requires_grad=True)
    weight = torch.randn(11, 8, requires_grad=True)
    total = completion_nll(hidden, torch.full((2, 5), IGNORE), weight)
    total.backward()
    assert total.item() == 0 and hidden.grad.abs().sum() == 0 and weight.grad.abs().sum() == 0


def test_bias_and_bfloat16():
    hidden, labels = torch.randn(2, 6, 8), torch.randint(0, 11, (2, 6))
    weight, bias = torch.randn(11, 8), torch.randn(11)
    exact = torch.nn.functional.cross_entropy(
        (hidden[:, :-1] @ weight.T + bias).reshape(-1, 11),
        labels[:, 1:].reshape(-1),
        reduction="sum",
    )
    assert completion_nll(hidden, labels, weight, bias).item() == pytest.approx(
        exact.item(), rel=1e-5
    )
    half = completion_nll(hidden.bfloat16(), labels, weight.bfloat16(), bias.bfloat16())
    assert half.dtype == torch.float32 and half.item() == pytest.approx(exact.item(), rel=0.02)


# --- through the loaded model ---------------------------------------------------------------------


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("recomputed", [0, 1, 2])
@pytest.mark.parametrize("sharded", [True, False])
def test_loaded_model_has_hugging_faces_loss_and_gradient(
    tmp_path, tied, recomputed, sharded, load_sharded
):
    """completion_loss with a scale, sharded parameters and all, against model(labels=) on the same
    folder.
    """
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(**SIZES, tie_word_embeddings=tied, initializer_range=0.3)
    ).save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    input_ids, labels = batch()
    (theirs := plain(input_ids=input_ids, labels=labels).loss).backward()
    load = load_sharded if sharded else model.load
    net = load(tmp_path, torch.device("cpu"), recomputed)
    n = (labels[:, 1:] != IGNORE).sum().item()
    ours = net.completion_loss(input_ids, *supervised(labels), 1 / n)
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5) and theirs.item() > 4.5
    expected = {name: p.grad for name, p in plain.named_parameters()}
    seen = {
        name.replace("_checkpoint_wrapped_module.", ""): whole(p.grad)
        for name, p in net.named_parameters()
    }
    assert seen.keys() == expected.keys() and ("lm_head.weight" in seen) == (not tied)
    for name in expected:
        torch.testing.assert_close(seen[name], expected[name], atol=1e-5, rtol=1e-4)
    net.zero_grad()
    net.completion_loss(
        input_ids, *supervised(labels), 3 / n
    ).backward()  # the scale is the gradient's too
    for name, p in net.named_parameters():
        torch.testing.assert_close(
            whole(p.grad),
            3 * expected[name.replace("_checkpoint_wrapped_module.", "")],
            atol=3e-5,
            rtol=1e-4,
        )


# --- chunks ---------------------------------------------------------------------------------------


def plain_nll(hidden, labels, weight, scale=1.0):
    """The same by one plain product."""
    logits = (hidden[:, :-1] @ weight.T).float().flatten(0, 1)
    return scale * torch.nn.functional.cross_entropy(
        logits, labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum"
    )


def gradients(function, hidden, labels, weight, **options):
    hidden, weight = (
        hidden.detach().clone().requires_grad_(),
        weight.detach().clone().requires_grad_(),
    )
    loss = function(hidden, labels, weight, **options)
    loss.backward()
    return loss.item(), hidden.grad, weight.grad


@pytest.mark.parametrize("supervised", [1, 6, 7, 8, 13, 14, 15, 28])
def test_chunk_boundaries(monkeypatch, supervised):
    """Chunks of 7 rows: one row, one chunk, one less, one more, and so at two and four; the
    vocabulary does not divide the budget.
    """
    monkeypatch.setitem(CHUNK, "cpu", 7 * 11 + 10)
    g = torch.Generator().manual_seed(supervised)
    hidden, weight = torch.randn(2, 15, 8, generator=g), torch.randn(11, 8, generator=g)
    labels = torch.full((2, 15), IGNORE)
    place = torch.randperm(28, generator=g)[:supervised]
    labels[place // 14, 1 + place % 14] = torch.randint(0, 11, (supervised,), generator=g)
    for a, b in zip(
        gradients(completion_nll, hidden, labels, weight, scale=0.3),
        gradients(plain_nll, hidden, labels, weight, scale=0.3),
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_budget_below_one_row_still_takes_a_row(monkeypatch):
    monkeypatch.setitem(CHUNK, "cpu", 3)
    hidden, labels, weight = torch.randn(1, 4, 8), torch.randint(0, 11, (1, 4)), torch.randn(11, 8)
    assert completion_nll(hidden, labels, weight).item() == pytest.approx(
        plain_nll(hidden, labels, weight).item(), rel=1e-5
    )


def test_weight_gradient_in_bfloat16_is_summed_in_float32(monkeypatch):
    """600 chunks of one row, hidden states that have much in common, as a trained model's: then a
    bfloat16 sum stops growing. Within 1 % of the float32 gradient of the same numbers, and at least
    four times as close as the naive sum.
    """
    monkeypatch.setitem(CHUNK, "cpu", 1)
    g = torch.Generator().manual_seed(0)
    hidden = (0.5 * torch.randn(1, 601, 32, generator=g) + torch.randn(32, generator=g)).bfloat16()
    weight, labels = (
        (0.2 * torch.randn(64, 32, generator=g)).bfloat16(),
        torch.randint(0, 64, (1, 601), generator=g),
    )
    _, exact_hidden, exact = gradients(completion_nll, hidden.float(), labels, weight.float())
    _, ours_hidden, ours = gradients(completion_nll, hidden, labels, weight)
    naive = torch.zeros_like(weight)
    for t in range(600):
        naive += gradients(completion_nll, hidden[:, t : t + 2], labels[:, t : t + 2], weight)[2]

    def error(other):
        return ((other.float() - exact).norm() / exact.norm()).item()

    assert ours.dtype == torch.bfloat16 and error(ours) < 0.01 and error(naive) > 4 * error(ours)
    assert ((ours_hidden.float() - exact_hidden).norm() / exact_hidden.norm()).item() < 0.01


# --- no more than is needed -----------------------------------------------------------------------


class Made(TorchDispatchMode):
    """Notes every operation and the shapes that come out of it."""

    def __enter__(self):
        self.seen = []
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        several = out if isinstance(out, (tuple, list)) else [out]
        self.seen += [
            (function.overloadpacket.__name__, tuple(t.shape))
            for t in several
            if torch.is_tensor(t)
        ]
        return out


def made(hidden, labels, weight, backward=True):
    with Made() as noted:
        loss = completion_nll(hidden, labels, weight)
        if backward:
            loss.backward()
    return noted.seen


def test_full_logits_are_never_formed(monkeypatch):
    """196 positions in chunks of 16: no tensor of the vocabulary's width has more rows."""
    monkeypatch.setitem(CHUNK, "cpu", 16 * 11)
    hidden, weight = torch.randn(4, 50, 8), torch.randn(11, 8)
    seen = made(hidden.requires_grad_(), torch.randint(0, 11, (4, 50)), weight.requires_grad_())
    rows = [shape[0] for _, shape in seen if len(shape) == 2 and shape[1] == 11]
    assert max(rows) == 16
    assert sum(shape == (16, 11) for op, shape in seen if op == "mm") == 196 // 16


def test_nothing_waits_for_the_device():
    """No number and no count of rows is read back, which would stop the host until it is there."""
    hidden, weight = torch.randn(2, 9, 8, requires_grad=True), torch.randn(23, 8)
    batch = supervised(torch.randint(0, 23, (2, 9)))
    with Made() as noted:
        loss.completion_nll(hidden, *batch, weight.requires_grad_(), scale=0.5).backward()
    names = {name for name, _ in noted.seen}
    assert names and not names & {"_local_scalar_dense", "nonzero", "masked_select", "item"}


def test_a_frozen_head_gets_no_gradient(monkeypatch):
    monkeypatch.setitem(CHUNK, "cpu", 5 * 23)
    hidden, labels = torch.randn(2, 9, 8), torch.randint(0, 23, (2, 9))
    weight = torch.randn(23, 8)
    _, expected, _ = gradients(plain_nll, hidden, labels, weight)
    hidden.requires_grad_()
    seen = made(hidden, labels, weight)
    torch.testing.assert_close(hidden.grad, expected, atol=1e-5, rtol=1e-5)
    assert weight.grad is None and not [
        op for op, shape in seen if shape == (23, 8) and op not in ("t", "detach", "alias", "view")
    ]
    assert [
        op
        for op, shape in made(hidden, labels, weight.requires_grad_())
        if shape == (23, 8) and op == "zeros_like"
    ]  # so it would show


def test_a_frozen_body_gets_no_gradient():
    """The other way round: the head alone is trained."""
    hidden, labels, weight = (
        torch.randn(2, 9, 8),
        torch.randint(0, 23, (2, 9)),
        torch.randn(23, 8, requires_grad=True),
    )
    _, _, expected = gradients(plain_nll, hidden, labels, weight)
    completion_nll(hidden, labels, weight).backward()
    torch.testing.assert_close(weight.grad, expected, atol=1e-5, rtol=1e-5)
    assert hidden.grad is None


def test_without_grad_none_is_formed():
    """Nor with grad where nothing is trained. Shapes: 16 supervised rows, 23 tokenizer, width 8."""
    hidden, labels = torch.randn(2, 9, 8, requires_grad=True), torch.randint(0, 23, (2, 9))
    weight = torch.randn(23, 8, requires_grad=True)
    with torch.no_grad():
        seen = made(hidden, labels, weight, backward=False)
        value = completion_nll(hidden, labels, weight)
    assert not value.requires_grad and value.item() == pytest.approx(
        plain_nll(hidden, labels, weight).item(), rel=1e-5
    )
    frozen = made(hidden.detach(), labels, weight.detach(), backward=False)
    trained = made(hidden, labels, weight, backward=False)

    def gradients_of(operations):  # the logits' is formed of their exponentials, in place
        return [op for op, _ in operations if op == "exp_"]

    assert gradients_of(seen) == gradients_of(frozen) == [] and len(gradients_of(trained)) == 1
    assert (23, 8) not in [shape for op, shape in seen if op != "detach"] and (
        "zeros_like",
        (23, 8),
    ) in trained


def test_the_gradient_follows_what_is_done_with_the_loss():
    """Scaled from outside, added to another one."""
    hidden, labels, weight = torch.randn(2, 9, 8), torch.randint(0, 23, (2, 9)), torch.randn(23, 8)
    _, once_hidden, once = gradients(completion_nll, hidden, labels, weight)
    _, hidden_of, weight_of = gradients(
        lambda h, y, w: -2.5 * completion_nll(h, y, w) + completion_nll(h, y, w, scale=0.5),
        hidden,
        labels,
        weight,
    )
    torch.testing.assert_close(weight_of, -2 * once, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden_of, -2 * once_hidden, atol=1e-5, rtol=1e-5)


# VmHWM, because ru_maxrss begins at what the parent of a process had.
PEAK = """
import re, sys
import torch
from torch.nn.functional import cross_entropy
from common.train.loss import completion_nll
from common.train.tokens import supervised
torch.set_num_threads(1)
hidden = torch.randn(1, 1001, 32, requires_grad=True)
weight = torch.randn(151_936, 32, requires_grad=True)
labels = torch.randint(0, 151_936, (1, 1001))
def naive(hidden, labels, weight):
    logits = (hidden[:, :-1] @ weight.T)[0]
    return cross_entropy(logits, labels[0, 1:], reduction="sum")
cross_entropy(torch.randn(4, 4, requires_grad=True), torch.zeros(4, dtype=torch.long)).backward()
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
if sys.argv[1] == "naive":
    value = naive(hidden, labels, weight)
else:
    value = completion_nll(hidden, *supervised(labels), weight)
value.backward()
print(value.item(), peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="measured by Linux's /proc")
def test_peak_memory_at_a_real_vocabulary():
    """1,000 rows of 151,936 logits are 0.61 GB; the plain path holds three times that at once, ours
    one chunk of 220 rows, a seventh of it.
    """
    out = {}
    for way in ("naive", "ours"):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, way],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        out[way] = [float(x) for x in done.stdout.split()]
    assert out["naive"][1] > 1_200_000  # kB: it was measured
    assert out["ours"][1] <= out["naive"][1] / 7
