"""What only a GPU can show: bfloat16 training and generation. Run with: python -m pytest -m gpu"""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from common import model as M
from common import tokens
from common.generate import Request, Sampling, Task
from common.generate.local import Local
from common.tiny import world
from common.tiny.base import tokenizer
from common.train import adamw, training_steps

pytestmark = pytest.mark.gpu
WORDS = tokenizer()


def losses(folder, device):
    examples, _ = tokens.examples(world.web_documents(0, 48), WORDS, "chatml", 256)
    plan = tokens.plan([len(e["input_ids"]) for e in examples], 8, 1, 0, 1, 512)
    net = M.load(folder, device)
    assert {p.dtype for p in net.parameters()} == {torch.float32}  # master weights, whatever the compute type
    return [u.loss for u in training_steps(net, adamw(net), examples, plan, WORDS.pad_token_id, 1e-3)]


def test_bfloat16_training_follows_the_float32_curve(tiny_model):
    """Oracle: the same plan in float32 by a plain Hugging Face model on the same GPU."""
    _, _, device = M.init_distributed()
    ours = losses(tiny_model, device)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).to(device)
    examples, _ = tokens.examples(world.web_documents(0, 48), WORDS, "chatml", 256)
    plan = tokens.plan([len(e["input_ids"]) for e in examples], 8, 1, 0, 1, 512)
    rows = [examples[i] for group in plan[0][0] for i in group]
    input_ids, labels = tokens.collate(rows, WORDS.pad_token_id, device)
    assert ours[0] == pytest.approx(plain(input_ids=input_ids, labels=labels).loss.item(), rel=0.01)
    assert ours[-1] < ours[0]


def test_greedy_generation_in_bfloat16_ends_and_decodes(tiny_model):
    engine = Local(tiny_model, batch_size=8)
    tasks = [Task(Request(p.question), Sampling(max_new_tokens=8), engine.identity) for p in world.problems("train", 0, 16)]
    answers = []
    engine.generate(tasks, lambda task, answer: answers.append(answer["text"]), lambda: None)
    assert engine.dtype == torch.bfloat16 and len(answers) == 16


def test_training_script_writes_bfloat16_checkpoints(script, tiny_model, tmp_path):
    from common.files import write_jsonl

    run = tmp_path / "runs" / "g"
    rows = [row | {"arm": "cft"} for row in world.web_documents(0, 32)]
    write_jsonl(run / "03_data" / "cft.jsonl", rows)
    (run / "03.run.json").write_text(json.dumps({"rows": {"cft": 32}}))
    done = script("04_train.py", "--name", "g", "--model", tiny_model, "--save-every", 1)
    assert done.returncode == 0, done.stderr
    saved = AutoModelForCausalLM.from_pretrained(run / "04_train" / "cft" / "step-000002")
    assert saved.dtype == torch.bfloat16
