"""TRL reads the rows of 03 as they are: the tokens and labels that its SFTTrainer makes of them
beside the kit's, token by token.
"""

import functools

import datasets
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from common.core import prompts, special_tokens
from common.core.tokenizer import load_tokenizer
from common.data import training_sets
from common.data.sources import make_row
from common.tiny.base import build_tokenizer
from common.train import checkpoints, tokens
from tests.conftest import SHARED

trl = pytest.importorskip("trl")

pytestmark = [pytest.mark.extra, pytest.mark.slow]

TEMPLATES = {"tiny": "chatml", "qwen2.5-math": "chatml", "deepseek-llm": "deepseek"}
TEXTS = [  # of questions, responses and critiques
    "plain",
    "",
    " ",
    "  two spaces around  ",
    "ends with newlines\n\n",
    "a<|im_end|>\n<|im_start|>assistant\nConclusion: right [END]<|im_end|>",
    "<|endoftext|>x<｜end▁of▁sentence｜><｜begin▁of▁sentence｜>",
    "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467 na\xefve \xbd e\u0301 \u4e2d\u6587",
    "\u0301combining",
    "\ttab\r\ncr",
    "User: q\n\nAssistant: no",
    "{{ bos_token }}{% endfor %}{content}",
    "(1) 3 + 4 = 7 right",
    " 17",
    "'s x",
    "\xa0\u2028\x85\x00",
    ": \\boxed{½}",
]
NEWLINES = ["\nbegins with a newline", "\n\n", "\r\n"]


def rows_of(arm, texts, system=prompts.SYSTEM):
    """Rows as 03 writes them: each text once as question, response and critique, and a row long
    enough to be cut.
    """
    rows = []
    for i, question in enumerate(texts):
        critique = texts[i - 2] + "." * 300 * (i == 0)
        row = make_row(question, texts[i - 1], None, "s", "g") | {
            "critique": critique,
            "critique_id": str(i),
            "verdict": "right",
        }
        prompt, completion = training_sets.TRAINING_SETS[arm].format_row(
            row, training_sets.BuildInputs(system, answers={row["question_id"]: texts[i - 3]})
        )
        rows.append(
            {
                "id": f"{arm} {i} {system}",
                "prompt": prompt,
                "completion": [{"role": "assistant", "content": completion}],
            }
        )
    return rows


def every_row(texts=TEXTS):
    """Of every arm; without a system message, as 03 --system '' writes them; and with an empty one,
    which it never writes.
    """
    rows = [
        row
        for arm in training_sets.TRAINING_SETS
        for system in (prompts.SYSTEM, "")
        for row in rows_of(arm, texts, system)
    ]
    empty = {"role": "system", "content": ""}
    return rows + [
        row | {"id": row["id"] + "empty", "prompt": [empty, *row["prompt"]]}
        for row in rows_of("cft", texts, "")
    ]


@functools.cache
def words_of(name):
    if name == "tiny":
        return build_tokenizer()
    if not (SHARED / "tokenizers" / name).is_dir():
        pytest.skip("../shared is not there")
    return load_tokenizer(SHARED / "tokenizers" / name)


def kits(rows, tokenizer, template, cutoff):
    """{row id: (input_ids, labels)} as 04 trains on them."""
    made = {}
    for example in tokens.examples(rows, tokenizer, template, cutoff)[0]:
        input_ids, labels = tokens.collate([example])
        made[example["id"]] = input_ids[0].tolist(), labels[0].tolist()
    return made


def with_what_follows(made, tokenizer, template, cutoff):
    """ChatML's form ends a turn with a newline.

    TRL trains on it, too; the kit ends where a model stops.
    """
    after = tokenizer("\n", add_special_tokens=False).input_ids if template == "chatml" else []
    return {
        name: ((ids + after)[:cutoff], (labels + after)[:cutoff])
        for name, (ids, labels) in made.items()
    }


def trls(rows, tokenizer, template, cutoff, folder):
    """The trainer that reads a checkpoint folder of the kit by itself, and {row id:
    (input_ids, labels)} that it trains on.
    """
    net = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            architectures=["LlamaForCausalLM"],
        )
    )
    checkpoints.write(net.config, net.state_dict(), tokenizer, template, folder / "step-000001")
    settings = trl.SFTConfig(
        str(folder / "trl"), max_length=cutoff, use_cpu=True, bf16=False, report_to=[]
    )
    trainer = trl.SFTTrainer(
        str(folder / "step-000001"), settings, train_dataset=datasets.Dataset.from_list(rows)
    )
    return trainer, {row["id"]: (row["input_ids"], row["labels"]) for row in trainer.train_dataset}


@pytest.mark.parametrize("cutoff", [None, 60], ids=["whole", "cut"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_trl_trains_on_the_same_tokens(tmp_path, name, cutoff):
    """A row whose prompt alone fills the cutoff is dropped by both.

    But for rows that hold the text of a special token, which TRL reads as that token.
    """
    tokenizer, template, rows = words_of(name), TEMPLATES[name], every_row()
    special = {row["id"] for row in rows if special_tokens.count_rows([row], tokenizer)}
    ours = kits(rows, tokenizer, template, cutoff or 10**6)
    _, theirs = trls(rows, tokenizer, template, cutoff, tmp_path)
    expected = with_what_follows(ours, tokenizer, template, cutoff)
    differing = {
        name for name in theirs.keys() | expected if theirs.get(name) != expected.get(name)
    }
    assert differing and differing <= special and len(special) < len(rows) / 2
    cut = sum(len(ids) == cutoff for ids, _ in ours.values())
    assert (
        len(ours) == len(rows) and not cut
        if cutoff is None
        else 20 < len(ours) < len(rows) and cut > 5
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_label_more_or_less_would_be_seen(tmp_path, name):
    """The comparison above, with a token of one row wrong, masked or unmasked."""
    tokenizer, template, rows = words_of(name), TEMPLATES[name], rows_of("cft", TEXTS[:3])
    _, theirs = trls(rows, tokenizer, template, None, tmp_path)
    for at, label in ((-1, tokens.IGNORE), (0, 5)):
        ours = kits(rows, tokenizer, template, 10**6)
        assert theirs == with_what_follows(ours, tokenizer, template, None)
        ours[rows[1]["id"]][1][at] = label
        assert theirs != with_what_follows(ours, tokenizer, template, None)
        assert (
            sum(
                theirs[row["id"]] != with_what_follows(ours, tokenizer, template, None)[row["id"]]
                for row in rows
            )
            == 1
        )


def test_where_an_answer_begins_with_a_newline_the_kit_keeps_the_prompt(tmp_path):
    """TRL tokenises prompt and answer as one text, and Qwen's tokenizer then makes one token of the
    newline that ends the prompt and those that begin the answer. A model that is asked never sees
    that token there: the kit trains on what 05 sends.
    """
    tokenizer, template, rows = words_of("qwen2.5-math"), "chatml", rows_of("sft", NEWLINES)
    ours = kits(rows, tokenizer, template, 10**6)
    _, theirs = trls(rows, tokenizer, template, None, tmp_path)
    assert theirs.keys() == ours.keys() and theirs != with_what_follows(
        ours, tokenizer, template, None
    )
    merged = 0
    for row in rows:
        sent = tokenizer(prompts.render(row["prompt"], template)).input_ids
        (ids, labels), (their_ids, _) = ours[row["id"]], theirs[row["id"]]
        assert ids[: len(sent)] == sent and labels == [tokens.IGNORE] * len(sent) + ids[len(sent) :]
        assert tokenizer.decode(their_ids) == tokenizer.decode(ids) + "\n"  # the text is the same
        merged += their_ids[: len(sent)] != sent
    assert merged == 2  # a line end of two characters stays apart


@pytest.mark.parametrize("name", TEMPLATES)
def test_collators_give_the_same_labels(tmp_path, name):
    """Rows of different lengths, padded by TRL and by the kit: nothing of the padding is
    supervised, nothing else is lost.
    """
    tokenizer, rows = words_of(name), rows_of("cft", TEXTS)
    trainer, _ = trls(rows, tokenizer, TEMPLATES[name], None, tmp_path)
    examples = tokens.examples(rows, tokenizer, TEMPLATES[name], 10**6)[0]
    input_ids, labels = tokens.collate(examples)
    ours = [
        (e["input_ids"].tolist(), labels[i, : len(e["input_ids"])].tolist())
        for i, e in enumerate(examples)
    ]
    batch = trainer.data_collator([{"input_ids": ids, "labels": marks} for ids, marks in ours])
    real = batch["attention_mask"].bool()
    assert batch["labels"].tolist() == labels.tolist() and 0 < real.sum() < real.numel()
    assert (
        batch["input_ids"][real].tolist() == input_ids[real].tolist()
        and (labels[~real] == tokens.IGNORE).all()
    )
