# %% [markdown]
"""
# 04 Train: training sets -> checkpoints

In: `03_data/<arm>.jsonl` and a base model. Out: `04_train/<arm>/step-000050/` (Hugging Face folders), `metrics.jsonl`
and `loss.png`, for each arm.

    python 04_train.py                                                     # tiny: five arms of 50 steps on a CPU
    torchrun --nproc-per-node 8 04_train.py --preset paper                 # Qwen2.5-Math-7B on 8 GPUs (qlora: on one of 24 GB)
    python 04_train.py --preset paper --dry-run --gpus 8 --gpu H100        # what that takes, without a GPU
    python 04_train.py --name mine --model FOLDER_OR_HUB_ID --arms cft --save-every 20
    python 04_train.py --name mine --arms cft+sft                          # one set of two (Table 9); --after sft: two stages

The loss is taken on completion tokens only: for cft that is P(critique | question, noisy response), summed over the global
batch and divided by its supervised tokens, so the curve is the same on 1 process or N. A killed run goes on where it was.
"""

# %% Settings
from dataclasses import dataclass

from common.core.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting(
        "tiny",
        "tiny, paper, lora, qlora, one-shot (common/core/presets.py); default: what 01 was run with, tiny for a new run",
    )
    seed: int = setting(0, "of the row order, and of new adapters")
    limit: int | None = setting(None, "train on at most this many rows of each training set")
    model: str | None = setting(None, "base model: folder or hub id (default: the run's 01_base)")
    arms: list[str] = setting(
        [], "which arms (default: those 03 built last); cft+sft trains on the rows of both"
    )
    after: str | None = setting(
        None, "start from the last checkpoint of this arm instead of the base"
    )
    template: str = setting("auto", "chat template: chatml, deepseek, or auto (by the tokenizer)")
    method: str = setting(
        "full",
        "what is trained: all weights, or adapters on a frozen base, in 4 bits with qlora",
        choices=["full", "lora", "qlora"],
    )
    lora_rank: int = setting(32, "of the adapters, which sit on every linear layer but the head")
    lora_alpha: int = setting(64, "adapters are scaled by this / rank")
    merge: bool = setting(
        False,
        "write the base with the last checkpoint's adapter added: step-N/merged, a plain model",
    )
    learning_rate: float = setting(5e-6, "peak")
    warmup_ratio: float = setting(
        0.1, "share of the steps with rising learning rate; then cosine to 0"
    )
    epochs: int = setting(1, "passes over the rows")
    global_batch: int = setting(512, "rows per optimizer step, over all processes")
    cutoff: int = setting(2048, "tokens per row")
    overlong: str = setting(
        "truncate", "rows over the cutoff: cut at the end, or dropped", choices=["truncate", "drop"]
    )
    optimizer: str = setting(
        "adamw", "adamw8bit (bitsandbytes) is for adapters", choices=["adamw", "adamw8bit"]
    )
    weight_decay: float = setting(0.0, "of AdamW, whose betas are 0.9 and 0.999")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    tokens_per_microbatch: int = setting(
        16_384, "padded tokens that one process takes at a time; memory grows with it"
    )
    activation_checkpointing: bool = setting(
        True, "compute activations again in the backward pass to save memory"
    )
    holdout: int = setting(0, "rows put aside, on which each checkpoint's loss is measured")
    save_every: int = setting(
        2, "a checkpoint every so many steps or epochs, and at the end; 0: only at the end"
    )
    save_unit: str = setting("step", "of --save-every", choices=["step", "epoch"])
    keep_last: int = setting(0, "keep only so many newest checkpoints; 0: all")
    keep_best: bool = setting(False, "keep the checkpoint with the lowest held-out loss, too")
    state_every: int = setting(
        20, "what a resume needs, every so many steps (the newest is kept); 0: only when stopped"
    )
    dry_run: bool = setting(False, "say what the training takes and stop; no weights are loaded")
    gpus: int | None = setting(None, "dry run: how many GPUs (default: the processes started)")
    gpu: str = setting("H100", "dry run: which, by its name in common/train/estimate.py")
    mfu: float = setting(0.4, "dry run: share of the GPUs' peak that useful computation reaches")
    threads: int = setting(0, "CPU threads of torch; 0: torch's own choice")


config = configure(Config, "04")

# %% Start
import json
from types import SimpleNamespace

import torch

from common.core import files, prompts, runs
from common.core.errors import InputError, Stopped
from common.core.tokenizer import load_tokenizer, local_folder
from common.train import adapters, checkpoints, estimate, model, tokens, training_log
from common.train.loop import adamw, check_flags, mean_loss, stop_signals, training_steps

run = runs.run_folder(config.name)
torch.set_num_threads(config.threads or torch.get_num_threads())
rank, world, device = model.init_distributed()
world = config.gpus or world if config.dry_run else world
log = print if rank == 0 else lambda *text: None
full = config.method == "full"
check_flags(config, world)

# %% The arms, the base model, its tokenizer
newest, built = runs.built(run)
arms = list(dict.fromkeys(config.arms)) or newest
if unknown := [
    arm
    for arm in arms
    if not set(arm.split("+")) <= set(built) or len(set(arm.split("+"))) < len(arm.split("+"))
]:
    raise InputError(
        f"03 built no arms {unknown}; it built: {' '.join(built)}\nGive some of those: --arms {newest[0]}"
    )
base = local_folder(
    runs.last_checkpoint(run, config.after)
    if config.after
    else config.model or runs.stage_file(run, "01_base"),
    weights=not config.dry_run,
)
tokenizer = load_tokenizer(base)
shape = estimate.model_shape(base, 0 if full else config.lora_rank, config.method == "qlora")
template = prompts.template_for(tokenizer) if config.template == "auto" else config.template
prompts.add_chatml_markers(template, tokenizer, shape.vocabulary, full)
prompts.check_template(template, tokenizer)
base_id = None if config.dry_run else files.model_id(base)
dtype = (
    torch.float32 if device.type == "cpu" else torch.bfloat16
)  # of saved models; training keeps float32
# What may change between a run and its resume without changing the result, up to rounding:
FREE = (
    "name",
    "preset",
    "arms",
    "model",
    "threads",
    "tokens_per_microbatch",
    "activation_checkpointing",
    "save_every",
    "save_unit",
    "keep_last",
    "keep_best",
    "state_every",
    "merge",
    "dry_run",
    "gpus",
    "gpu",
    "mfu",
)

# %% [markdown]
"""
## From rows to a plan
`tokens.examples` marks where each prompt ends; `tokens.batch_plan` cuts each global batch into micro-batches of adjacent
lengths, so that little is padding. The plan depends on the seed alone, which is why a resume needs no data state.
"""


# %% One arm: what it trains on, in which order, and where it is saved
def prepare(arm):
    data = [runs.stage_file(run, f"03_data/{part}.jsonl") for part in arm.split("+")]
    rows = [
        row
        for file in data
        for row in files.read_jsonl(file, ("id", "prompt", "completion"))[: config.limit]
    ]
    examples, counts = tokens.examples(rows, tokenizer, template, config.cutoff, config.overlong)
    if len(examples) <= config.holdout:
        raise InputError(
            f"{arm}: {len(examples)} of {len(rows)} rows are left ({dict(counts)}), {config.holdout} to be held out.\n"
            f"Raise --cutoff ({config.cutoff} tokens), lower --holdout, or build more: python 03_build.py --name {config.name}"
        )
    tokens.check_fit(examples, shape.vocabulary, shape.positions, base)
    examples, held = tokens.split_holdout(examples, config.holdout, config.seed)
    lengths = [len(e["input_ids"]) for e in examples]
    plan = tokens.batch_plan(
        lengths,
        config.global_batch,
        config.epochs,
        config.seed,
        world,
        config.tokens_per_microbatch,
    )
    if len(plan) == 1 and config.warmup_ratio:
        raise InputError(
            f"{arm}: {len(examples)} rows are one step of --global-batch {config.global_batch}, and warm-up gives the first step "
            "a learning rate of 0.\nTake a smaller --global-batch, or --warmup-ratio 0."
        )
    every = config.save_every * (len(plan) // config.epochs if config.save_unit == "epoch" else 1)
    settings = {
        k: v
        for k, v in vars(config).items()
        if k not in FREE and not (full and k.startswith("lora"))
    }
    settings |= {
        "base_id": base_id,
        "data_sha256": [files.file_hash(file) for file in data],
        "template": template,
        "steps": len(plan),
    }
    if changed := [
        file.name
        for file, sha in zip(data, settings["data_sha256"])
        if built[file.stem] not in (None, sha)
    ]:
        log(f"note: {' '.join(changed)} is not as 03 wrote it")
    folder = run / "04_train" / (f"{arm}-after-{config.after}" if config.after else arm)
    return SimpleNamespace(
        arm=arm,
        data=data,
        examples=examples,
        counts=counts,
        held=held,
        lengths=lengths,
        plan=plan,
        settings=settings,
        saves={len(plan), *(range(every, len(plan), every) if every else ())},
        folder=folder,
        last=folder / f"step-{len(plan):06d}",
    )


# %% Prepare all arms first, so that a mistake costs no training
jobs = [prepare(arm) for arm in arms]
for job in jobs:
    log(
        f"{training_log.plan_line(job)}\n{training_log.supervised_text(job.examples[0], tokenizer)}"
    )
    if config.dry_run:
        log(estimate.table(shape, job, config, world) + "\n")
if config.dry_run:
    raise SystemExit
for job in jobs:
    runs.check_settings(job.folder / "settings.json", job.settings)
n_checkpoints, n_states, n_merged = zip(
    *(checkpoints.remaining_writes(job, config) for job in jobs)
)
needed = estimate.disk(
    shape, sum(n_checkpoints), max(n_states), sum(n_merged), dtype.itemsize
)  # an arm's states go before the next arm
files.check_disk(run, needed, ", or save less often: a larger --save-every")
if any(n_merged):
    log(adapters.check_memory_to_merge(shape.parameters))
if config.method == "qlora" or config.optimizer == "adamw8bit":
    adapters.check_bitsandbytes(device)


# %% The training of one arm
def train(job, asked_to_stop):
    if rank == 0:
        files.write_atomic(
            job.folder / "settings.json",
            json.dumps(job.settings | {"base": str(base)}, indent=1) + "\n",
        )
    if full:
        net = model.load(base, device, config.activation_checkpointing)
    else:
        net = adapters.load(
            base,
            device,
            config.lora_rank,
            config.lora_alpha,
            config.method == "qlora",
            config.activation_checkpointing,
            config.seed,
        )
    optimizer = adamw(net, config.weight_decay, eight_bit=config.optimizer == "adamw8bit")
    start = checkpoints.load_state(net, optimizer, job.folder)
    checkpoints.clear(job.folder)
    metrics = training_log.read_metrics(job.folder / "metrics.jsonl", start, repair=rank == 0)
    if start:
        log(f"{job.arm}: going on after step {start}")
    steps = training_steps(
        net,
        optimizer,
        job.examples,
        job.plan,
        config.learning_rate,
        config.warmup_ratio,
        config.max_grad_norm,
        start,
        skipped=sum(bool(m["skipped"]) for m in metrics),
    )
    writer = checkpoints.Writer()
    if stop := asked_to_stop():
        raise Stopped(
            f"stopped before step {start + 1} of {job.arm}. The same command goes on.", stop
        )
    for update in steps:
        last = update.step == len(job.plan)
        row = vars(update) | {"arm": job.arm} | estimate.progress(update, shape, job, world, device)
        if job.held and update.step in job.saves:
            row["held_out_loss"] = mean_loss(net, job.held, config.tokens_per_microbatch)
        metrics.append(row)
        log(training_log.step_line(metrics, len(job.plan)))
        if rank == 0:
            files.append_line(job.folder / "metrics.jsonl", row)
        if (
            rank == 0 and update.step in job.saves
        ):  # before the last checkpoint, whose presence means that the arm is done
            training_log.loss_curve(metrics, job.folder / "loss.png")
        if update.step in job.saves:
            writer.wait()
            writer.start(
                checkpoints.write,
                checkpoints.snapshot(net, dtype if full else torch.float32),
                tokenizer,
                template,
                job.folder / f"step-{update.step:06d}",
                config.keep_last,
                training_log.best_checkpoint(metrics) if config.keep_best else None,
            )
        if last:
            writer.wait()
        stop = asked_to_stop()
        if not last and (stop or config.state_every and update.step % config.state_every == 0):
            writer.wait()  # a state says that the checkpoints before it stand
            checkpoints.save_state(net, optimizer, update.step, job.folder)
        if stop and rank == 0:
            training_log.loss_curve(metrics, job.folder / "loss.png")
        if stop:
            raise Stopped(
                f"stopped after step {update.step} of {len(job.plan)} of {job.arm}, which is saved.\nThe same command goes on from there.",
                stop,
            )


# %% Train each arm, and merge its adapter
alone = (
    files.lock(run / "04_train" / "training", reentrant=True) if rank == 0 else None
)  # kept until the process ends
with stop_signals() as asked_to_stop:
    for job in jobs:
        if job.last.exists():
            log(f"{job.arm}: {job.last} stands, nothing to do")
        else:
            train(job, asked_to_stop)
            log(f"{job.arm}: trained")
        checkpoints.finish(job.folder, config.keep_last, config.keep_best)
for job in jobs:
    if config.merge and rank == 0 and not (job.last / "merged").exists():
        adapters.merge(job.last, base, dtype)

# %% Write the manifest
if rank == 0:
    runs.write_manifest(
        run / "04.run.json",
        config,
        list(dict.fromkeys(file for job in jobs for file in job.data)),
        base=str(base),
        base_id=base_id,
        processes=world,
        checkpoints={job.folder.name: checkpoints.checkpoint_names(job.folder) for job in jobs},
    )
for job in jobs:
    log(
        f"wrote {job.last / 'merged' if config.merge else job.last}{training_log.remarks(training_log.read_metrics(job.folder / 'metrics.jsonl', len(job.plan)))}"
    )
log(f"next: python 05_eval.py --name {config.name}")
model.end_distributed()
