"""04's training loop against transformers.Trainer and trl.SFTTrainer: same rows, model,
hyper-parameters, machine and run.

    python -m tests.bench.train                        # loop, vocabulary, planning: 12 minutes, CPU
    python -m tests.bench.train vocabulary --rounds 1  # one of them
    python -m tests.bench.train --gpu                  # lora, full and checks, on a CUDA device
    python -m tests.bench.train --gpu --shape tiny     # tries those three out, also on a CPU

loop        3 M parameters, vocabulary 512: identical micro-batches, then each tool's own order of
            the rows.
vocabulary  the same layers under a vocabulary of 151,936: time and memory of lm_head and the loss.
planning    no training: packing efficiency on 1 to 8 GPUs, of `tokens.batch_plan` and of the
            upstream layout.
lora, full  Qwen2.5's shapes with random weights, in bfloat16: MFU, memory beside its estimate,
            minutes on 8 x H100.
checks      which attention torch chooses without a mask; the loss on this device beside
            float32 on a CPU.

Each contender trains in a process of its own; they take turns, and medians are printed. Tokens are
real ones, not padding. On a CPU tokens/s go by CPU time, which other users of the machine disturb
less than wall time. TRL is fetched into a temporary folder where it is not installed. Where a bar
is missed, a line says so and the status is 1.
"""

import argparse
import gc
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median

import torch
import transformers
from torch.nn.attention import SDPBackend
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, Qwen2Config

from common.core import prompts
from common.core.files import read_jsonl
from common.core.tokenizer import load_tokenizer
from common.tiny.base import build_tokenizer
from common.train import distributed, estimate, model, tokens
from common.train import loop as training_loop
from common.train.loop import adamw, training_steps

ROOT = Path(__file__).parent.parent.parent
SHARED = ROOT.parent / "shared"  # real critiques and a real tokenizer, where they are at hand
TRL = "trl==1.16.0"
KIT, HF, SFT = "the kit", "transformers.Trainer", "trl.SFTTrainer"
CUDA = torch.cuda.is_available()
RATE = 1e-5 if CUDA else 1e-3  # constant
UNTIMED = 1 if CUDA else 0  # first steps: on a GPU libraries choose and load their kernels in them
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
)
SHAPES = {  # Qwen2.5's configurations by number, the largest first; then small ones
    "7B": (3584, 28, 28, 4, 18944, 152064, False),
    "3B": (2048, 36, 16, 2, 11008, 151936, True),
    "1.5B": (1536, 28, 12, 2, 8960, 151936, True),
    "0.5B": (896, 24, 14, 2, 4864, 151936, True),
    "tiny": (64, 2, 4, 2, 192, 512, False),
    "512": (256, 4, 4, 2, 768, 512, False),
    "151936": (256, 4, 4, 2, 768, 151936, False),
}
missed = []


def bar(holds, what):
    print(f"{'holds ' if holds else 'MISSED'} {what}", flush=True)
    if not holds:
        missed.append(what)


# --- rows and models ------------------------------------------------------------------------------


def lengths_of(n, mean_length, cutoff=2048):
    """n pairs (prompt tokens, completion tokens), each lognormal with this mean."""
    draw, sigma = random.Random(0), 0.5
    lengths = [
        max(1, min(cutoff // 2, round(mean_length * draw.lognormvariate(-(sigma**2) / 2, sigma))))
        for _ in range(2 * n)
    ]
    return list(zip(lengths[::2], lengths[1::2]))


def rows_of(job):
    """Random rows in the kit's form.

    Some tokens are more frequent than others, so that there is something to learn.
    """
    seeded, weights = (
        torch.Generator().manual_seed(0),
        1 / (torch.arange(SHAPES[job["shape"]][5]) + 10.0),
    )
    return [
        {
            "id": str(i),
            "input_ids": torch.multinomial(
                weights, p + c, replacement=True, generator=seeded
            ).int(),
            "n_prompt": p,
        }
        for i, (p, c) in enumerate(lengths_of(job["rows"], job["mean_length"]))
    ]


def real_lengths():
    """-> tokens of critique rows built from the real critiques at hand, cut at 2048; [] where there
    are none.
    """
    tokenizer = SHARED / "tokenizers" / "qwen2.5-math"
    found = {
        (r["question"], r["response"], r["critique"])
        for file in SHARED.glob("responses/*.jsonl")
        for r in read_jsonl(file)
        if r.get("critique")
    }
    if not found or not tokenizer.is_dir():
        return []
    rows = [
        {
            "id": "",
            "prompt": prompts.critique_row_prompt(question, response),
            "completion": [{"role": "assistant", "content": f"Critique:\n{critique}"}],
        }
        for question, response, critique in sorted(found)
    ]
    return [
        len(e["input_ids"])
        for e in tokens.examples(rows, load_tokenizer(tokenizer), "chatml", 2048)[0]
    ]


def config_of(shape):
    return Qwen2Config(**dict(zip(SIZES, SHAPES[shape])), max_position_embeddings=4096)


def write_model(scratch, shape, dtype=torch.float32):
    """A random Qwen2 in a Hugging Face folder, made on the GPU where there is one. -> the folder"""
    folder = Path(scratch) / shape
    if not folder.exists():
        torch.manual_seed(0)
        with torch.device("cuda" if CUDA else "cpu"):
            AutoModelForCausalLM.from_config(config_of(shape), dtype=dtype).save_pretrained(folder)
        gc.collect()
        torch.cuda.empty_cache()
    return str(folder)


# --- a contender, in a process of its own ---------------------------------------------------------


class Meter:
    """The time after each step, and the most memory since the model was loaded."""

    def __init__(self, net):
        with torch.no_grad():
            # From_pretrained only maps the file: touch the weights, or they count as extra memory.
            for p in net.parameters():
                p.mul_(1)
        gc.collect()
        torch.cuda.reset_peak_memory_stats() if CUDA else Path("/proc/self/clear_refs").write_text(
            "5"
        )  # forget the peak of loading
        self.loaded, self.times = self.peak(), []

    def peak(self):
        """Bytes.

        On a CPU (Linux) not ru_maxrss, which begins with what the parent process holds.
        """
        return (
            torch.cuda.max_memory_allocated()
            if CUDA
            else 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        )

    def note(self):
        if CUDA:
            torch.cuda.synchronize()
        self.times.append((time.perf_counter(), time.process_time()))

    def result(self, losses, tokens_of_steps):
        seconds, cpu = (end - begin for begin, end in zip(self.times[UNTIMED], self.times[-1]))
        return {
            "seconds": seconds,
            "cpu": cpu,
            "tokens": sum(tokens_of_steps[UNTIMED:]),
            "peak": self.peak(),
            "extra": self.peak() - self.loaded,
            "losses": losses,
        }


def as_they_stand(job):
    """For each step its micro-batches of rows, in the order of the rows, which fill whole steps."""
    n, size, each = job["rows"], job["at_once"], job["accumulation"]
    return [
        [list(range(at, at + size)) for at in range(step, step + size * each, size)]
        for step in range(0, n, size * each)
    ]


def layers_recomputed(job):
    """All of them, as the peers, or none."""
    return SHAPES[job["shape"]][1] if job["checkpointing"] else 0


def train_kit(job, rows):
    """As 04 does."""
    _, _, device = distributed.init_distributed()
    if job["lora"]:
        from common.train import adapters

        net = adapters.load(job["folder"], device, 32, recomputed=layers_recomputed(job))
    else:
        net = model.load(job["folder"], device, layers_recomputed(job))
    meter, updates = Meter(net), []
    meter.note()
    plan = (
        [[groups] for groups in as_they_stand(job)]
        if job["sequential"]
        else tokens.batch_plan(
            [len(r["input_ids"]) for r in rows],
            job["at_once"] * job["accumulation"],
            1,
            0,
            1,
            job["tokens_at_once"],
        )
    )
    training_loop.learning_rate_at = lambda *_: RATE  # constant, as the peers
    for update in training_steps(net, adamw(net), rows, plan, RATE):
        meter.note()
        updates.append(update)
    return meter.result([u.loss for u in updates], [u.tokens for u in updates])


def train_peer(job, rows):
    """Trainer with transformers' own padding collator; SFTTrainer with its own, on rows that are
    tokenised already.
    """
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

    ids = [r["input_ids"].tolist() for r in rows]
    data = {
        "input_ids": ids,
        "labels": [[tokens.IGNORE] * r["n_prompt"] + i[r["n_prompt"] :] for r, i in zip(rows, ids)],
    }
    if job["contender"].startswith(SFT):
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        cls, arguments, more = SFTTrainer, SFTConfig, {"train_dataset": Dataset.from_dict(data)}
        job["settings"] |= {"max_length": 2048}
    else:
        cls, arguments, more = (
            Trainer,
            TrainingArguments,
            {
                "train_dataset": [dict(zip(data, row)) for row in zip(*data.values())],
                "data_collator": DataCollatorForSeq2Seq(build_tokenizer()),
            },
        )
    if job["sequential"]:
        cls = type(
            cls.__name__,
            (cls,),
            {
                "_get_train_sampler": lambda self, dataset=None: SequentialSampler(
                    self.train_dataset
                )
            },
        )
    net = AutoModelForCausalLM.from_pretrained(
        job["folder"],
        dtype=torch.bfloat16 if job["lora"] and CUDA else torch.float32,
        device_map={"": 0 if CUDA else "cpu"},
    )
    if job["lora"]:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)  # the same adapters as the kit's
        net = get_peft_model(
            net, LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    meter = Meter(net)
    settings = dict(
        output_dir=job["scratch"],
        per_device_train_batch_size=job["at_once"],
        gradient_accumulation_steps=job["accumulation"],
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=0.0,
        max_grad_norm=1.0,
        gradient_checkpointing=job["checkpointing"],
        bf16=CUDA,
        use_cpu=not CUDA,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    clock = type(
        "Clock",
        (TrainerCallback,),
        dict.fromkeys(["on_train_begin", "on_step_end"], lambda *args, **kwargs: meter.note()),
    )
    trainer = cls(
        net,
        arguments(**settings | job["settings"]),
        processing_class=build_tokenizer(),
        callbacks=[clock()],
        **more,
    )
    trainer.train()
    tokens_of_steps = [
        sum(len(ids[i]) for group in groups for i in group) for groups in as_they_stand(job)
    ]  # in another order only their sum holds
    return meter.result(
        [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], tokens_of_steps
    )


def check(job, rows):
    """-> the mean loss in float32 on a CPU by a plain model, and here by the kit; the attention
    that torch chooses.
    """
    from common.train import adapters

    _, _, device = distributed.init_distributed()
    input_ids, labels = tokens.collate(rows)
    plain = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=torch.float32)
    found = {"plain": plain(input_ids=input_ids, labels=labels).loss.item()}
    for name, net in {
        "full": model.load(job["folder"], device, 2),
        "lora": adapters.load(job["folder"], device, 32, False, 2),
    }.items():
        scale = 1 / sum(map(tokens.n_supervised, rows))
        loss = net.completion_loss(*tokens.micro_batch(rows, device), scale)
        loss.backward()
        found[name] = loss.item()
    query = torch.randn(2, 4, 128, 64, device=device, dtype=torch.bfloat16)
    chosen = torch._fused_sdp_choice(
        query, query[:, :2], query[:, :2], is_causal=True, enable_gqa=True
    )
    return found | {"attention": SDPBackend(chosen).name}


# --- the contenders in turn, and their table ------------------------------------------------------


def trl_in_reach(scratch):
    """Set the contenders' environment. -> whether TRL can be imported there."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")]), f"{scratch}/trl"]
    os.environ.update(
        {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
        | ({} if CUDA else {"OMP_NUM_THREADS": "1"})
    )
    if importlib.util.find_spec("trl"):
        return True
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", paths[-1], TRL],
        capture_output=True,
        text=True,
    )
    if fetched.returncode:
        print(
            f"{TRL} is not to be had here, so its rows are left out: "
            f"{fetched.stderr.strip()[-300:]}"
        )
    return not fetched.returncode


def child(job):
    """Run a job in a process of its own.

    -> its result; None and a line where a peer fails on a GPU, as for want of memory.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.train", "--job", json.dumps(job)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if not done.returncode:
        return json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{job['contender']} failed: {done.stderr.strip()[-1000:]}", flush=True)
    if job["contender"] in (HF, SFT) and CUDA:
        return None
    raise SystemExit(1)


def compare(title, job, contenders, rounds):
    """contenders: {name: what differs from `job`}, the kit first.

    -> {name: medians}, printed as a table.

    A ratio is the median of the rounds' ratios, so that a slow minute of the machine falls on both
    sides.
    """
    job = {"settings": {}, "sequential": False, "lora": False, "checkpointing": False} | job
    runs = {name: [] for name in contenders}
    for n in range(rounds):
        for name, change in contenders.items():
            if n < change.get("at_most", rounds) and None not in runs[name]:
                runs[name].append(child(job | {"contender": name} | change))
    speed = {
        name: [r["tokens"] / r["seconds" if CUDA else "cpu"] for r in of]
        for name, of in runs.items()
        if None not in of
    }
    found = {}
    print(
        f"\n{title}\n\n| | tokens/s | the kit's / these (least, most) | seconds | CPU seconds | "
        "extra memory, MB | these / the kit's "
        "| first loss | last loss |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name in speed:
        ratios = [kit / this for kit, this in zip(speed[KIT], speed[name])]
        row = found[name] = {
            what: median(r[what] for r in runs[name])
            for what in ("seconds", "cpu", "extra", "peak")
        }
        row |= {
            "speed": median(speed[name]),
            "ratio": median(ratios),
            "memory": row["extra"] / found[KIT]["extra"],
            "losses": runs[name][0]["losses"],
        }
        print(
            f"| {name} | {row['speed']:,.0f} | {row['ratio']:.2f} ({min(ratios):.2f}, "
            f"{max(ratios):.2f}) | {row['seconds']:.1f} | {row['cpu']:.1f} | "
            f"{row['extra'] / 1e6:,.0f} | {row['memory']:.2f} | {row['losses'][0]:.4f} | "
            f"{row['losses'][-1]:.4f} |"
        )
    print(flush=True)
    return found


def same_losses(found):
    worst = max(
        abs(a - b) for row in found.values() for a, b in zip(row["losses"], found[KIT]["losses"])
    )
    bar(worst < 5e-4, f"the losses of all steps agree to 3 decimals: at most {worst:.1e} apart")


# --- the parts on a CPU ---------------------------------------------------------------------------


def loop(options, scratch, peers):
    job = dict(
        shape="512",
        folder=write_model(scratch, "512"),
        scratch=scratch,
        rows=32,
        mean_length=250,
        at_once=4,
        accumulation=4,
    )
    same = compare(
        "Vocabulary 512, identical micro-batches of 4 random rows, 4 a step",
        job | {"sequential": True},
        dict.fromkeys([KIT, *peers], {}),
        options.rounds,
    )
    same_losses(same)
    for name in peers:
        bar(
            same[name]["ratio"] >= 1,
            f"on identical micro-batches the kit is not slower than {name}: "
            f"{same[name]['ratio']:.2f}x",
        )
    # Two more for information, once: sorted by length beyond a step, so that steps are not random
    # rows; packed to 2048 tokens.
    extra = {
        HF: (
            "group_by_length",
            {"settings": {"train_sampling_strategy": "group_by_length"}, "at_most": 1},
        ),
        SFT: ("packing", {"settings": {"packing": True}, "at_once": 2, "at_most": 1}),
    }
    own = compare(
        "Vocabulary 512, each tool's own order of the rows; the kit's micro-batches: at most 4096 "
        "padded tokens",
        job | {"tokens_at_once": 4096},
        dict.fromkeys([KIT, *peers], {})
        | {f"{name}, {extra[name][0]}": extra[name][1] for name in peers},
        options.rounds,
    )
    for name in peers:
        bar(
            own[name]["ratio"] >= 1.2,
            f"in its own order the kit is at least 1.2 times as fast as {name}: "
            f"{own[name]['ratio']:.2f}x",
        )
    print(
        "planning alone, the kit's own order against its random micro-batches: "
        f"{own[KIT]['speed'] / same[KIT]['speed']:.2f}x"
    )


def vocabulary(options, scratch, peers):
    job = dict(
        shape="151936",
        folder=write_model(scratch, "151936"),
        scratch=scratch,
        rows=16,
        mean_length=160,
        at_once=4,
        accumulation=2,
        sequential=True,
    )
    found = compare(
        "Vocabulary 151,936, identical micro-batches of 4 rows, 2 a step (on a CPU TRL scores all "
        "positions, on a GPU the supervised ones)",
        job,
        {KIT: {}, HF: {}} | dict.fromkeys(peers[1:], {"at_most": 1}),
        options.rounds,
    )
    same_losses(found)
    bar(
        found[HF]["ratio"] >= 2,
        f"with a large vocabulary the kit is at least twice as fast as {HF}: "
        f"{found[HF]['ratio']:.2f}x",
    )
    bar(
        found[HF]["memory"] >= 2,
        f"and takes at most half its extra memory: {1 / found[HF]['memory']:.2f} of it",
    )


def planning(options, scratch, peers):
    """Upstream: 512 rows in random order, 8 at a time on each GPU."""
    for name, lengths in {
        "real": real_lengths(),
        "lognormal": [p + c for p, c in lengths_of(4096, 350)],
    }.items():
        if not lengths:
            continue
        print(
            f"\nPacking efficiency at 512 rows a step, {name} lengths: {len(lengths):,} "
            f"rows of {mean(lengths):.0f} tokens (median "
            f"{median(lengths):.0f}, {min(lengths)} to {max(lengths)}), in 4 random orders\n\n| "
            "GPUs | tokens.batch_plan | upstream | gain |\n|---|---|---|---|"
        )
        for ranks in range(1, 9):
            shares = []
            for step in (
                step
                for seed in range(4)
                for step in tokens.batch_plan(lengths, 512, 1, seed, ranks, 16_384)[
                    : len(lengths) // 512
                ]
            ):
                rows = [i for groups in step for group in groups for i in group]
                random.Random(0).shuffle(rows)
                eights = [rows[at : at + 8] for at in range(0, 512, 8)] + [[]] * (-64 % ranks)
                shares.append(
                    [
                        tokens.packing_efficiency(cut, lengths)
                        for cut in (step, [eights[rank::ranks] for rank in range(ranks)])
                    ]
                )
            plan, upstream = map(mean, zip(*shares))
            print(f"| {ranks} | {plan:.1%} | {upstream:.1%} | {plan / upstream:.2f}x |", flush=True)
    print()


# --- the parts on a GPU ---------------------------------------------------------------------------


def on_gpu(title, shape, adapted, options, scratch, peers):
    """-> the kit's MFU, 0 to 1; nan where the device's peak is not known."""
    rows, each = (256, 8) if CUDA else (32, 2)
    job = dict(
        shape=shape,
        folder=write_model(scratch, shape, torch.bfloat16),
        scratch=scratch,
        rows=rows,
        mean_length=350,
        at_once=8,
        accumulation=each,
        tokens_at_once=16_384,
        lora=adapted,
        checkpointing=True,
    )
    found = compare(
        f"{title}, {shape}, activation checkpointing; {KIT}: planned micro-batches of at most "
        f"16,384 padded tokens; the others: 8 random rows, {each} a step",
        job,
        {KIT: {}} | dict.fromkeys([f"{KIT}, 8 random rows", *peers], {"sequential": True}),
        options.rounds,
    )
    size, pairs = estimate.model_shape(job["folder"], 32 if adapted else 0), lengths_of(rows, 350)
    lengths = [p + c for p, c in pairs]
    of_a_token = estimate.flops(size, lengths, sum(c for _, c in pairs)) / sum(lengths)
    peak = (estimate.peak_flops(torch.cuda.get_device_name()) if CUDA else None) or float("nan")
    for name, row in found.items():
        print(
            f"{name}: MFU {row['speed'] * of_a_token / peak:.1%}, peak memory "
            f"{row['peak'] / 2**30:.1f} GiB"
        )
    expected = sum(estimate.memory(size, 1, 16_384, size.layers).values())
    print(
        f"the estimate of the kit's memory: {expected / 2**30:.1f} GiB"
        + ("" if CUDA else " on a GPU")
    )
    if CUDA:
        bar(found[KIT]["peak"] <= expected, "the kit's peak memory is within its estimate")
    return found[KIT]["speed"] * of_a_token / peak


def lora(options, scratch, peers):
    on_gpu("LoRA of rank 32", options.shape or "7B", True, options, scratch, peers)


def full(options, scratch, peers):
    """The largest shape that fits; its MFU then stands for that of the paper's run:
    50,000 rows, 7B, 8 GPUs.
    """
    sizes = {}
    for shape in ("7B", "3B", "1.5B", "0.5B"):
        config_of(shape).save_pretrained(f"{scratch}/config of {shape}")
        sizes[shape] = estimate.model_shape(f"{scratch}/config of {shape}")
    room = 0.95 * torch.cuda.mem_get_info()[1] if CUDA else 0
    fits = [
        shape
        for shape, size in sizes.items()
        if sum(estimate.memory(size, 1, 16_384, size.layers).values()) < room
    ]
    mfu = on_gpu("All weights", options.shape or fits[0], False, options, scratch, peers)
    pairs = lengths_of(50_000, 350)
    lengths = [p + c for p, c in pairs]
    flops, peak = (
        estimate.flops(sizes["7B"], lengths, sum(c for _, c in pairs)),
        estimate.peak_flops("H100"),
    )
    efficiency = {
        ranks: mean(
            tokens.packing_efficiency(step, lengths)
            for step in tokens.batch_plan(lengths, 64 * ranks, 1, 0, ranks, 16_384)
        )
        for ranks in (1, 8)
    }
    print(
        f"50,000 rows of {mean(lengths):.0f} tokens at 7B on 8 x H100: {flops:.3g} FLOPs / (8 x "
        f"{peak:.3g} FLOP/s x MFU {mfu:.1%} x packing efficiency {efficiency[8]:.1%} / "
        f"{efficiency[1]:.1%} on one GPU) = "
        f"{flops / (8 * peak * mfu * efficiency[8] / efficiency[1]) / 60:.1f} minutes, if the "
        "exchange between GPUs is hidden"
    )


def checks(options, scratch, peers):
    found = child(
        dict(
            contender="checks",
            shape="512",
            folder=write_model(scratch, "512"),
            rows=8,
            mean_length=150,
        )
    )
    if CUDA:
        bar(found["attention"] == "FLASH_ATTENTION", f"attention takes {found['attention']}")
    for name in ("full", "lora"):
        apart = abs(found[name] / found["plain"] - 1)
        bar(
            apart < 0.01,
            f"loss ({name}) {found[name]:.5f} here, {found['plain']:.5f} in float32 on a CPU by a "
            f"plain model: {apart:.1e} apart, at most 1e-2",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="part",
        help="default: loop vocabulary planning; with --gpu: lora full checks",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument(
        "--shape",
        choices=list(SHAPES),
        help="of lora and full; default: 7B, and the largest that fits",
    )
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if job := options.job:
        if not CUDA:
            torch.set_num_threads(1)
        act = (
            check
            if job["contender"] == "checks"
            else train_kit
            if job["contender"].startswith(KIT)
            else train_peer
        )
        print(json.dumps(act(job, rows_of(job))))
        raise SystemExit
    known = {part.__name__: part for part in (loop, vocabulary, planning, lora, full, checks)}
    parts = options.parts or list(known)[3 if options.gpu else 0 :][:3]
    if unknown := set(parts) - set(known):
        parser.error(f"unknown: {' '.join(unknown)}; the parts are {' '.join(known)}")
    if {"lora", "full"} & set(parts) and not CUDA and options.shape != "tiny":
        parser.error("there is no CUDA device here; --shape tiny tries it out on a CPU")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        peers = [HF, SFT] if trl_in_reach(scratch) else [HF]
        print(
            f"torch {torch.__version__}, transformers {transformers.__version__}, "
            f"{torch.cuda.get_device_name() if CUDA else 'one CPU thread'}"
        )
        for part in parts:
            known[part](options, scratch, peers)
    print(
        f"\n{(time.monotonic() - began) / 60:.1f} minutes; {len(missed)} missed"
        + "".join(f"\n- {what}" for what in missed)
    )
    raise SystemExit(bool(missed))
