# %% [markdown]
"""
# 04 Train: training sets -> checkpoints

In: `03_data/<set>.jsonl` and a base model. Out, for each training set:
`04_train/<set>/step-000050/` (Hugging Face folders), `metrics.jsonl` and `loss.png`.

    python 04_train.py                                      # tiny: five sets of 50 steps on a CPU
    torchrun --nproc-per-node 8 04_train.py --preset paper  # Qwen2.5-Math-7B on 8 GPUs
    python 04_train.py --preset paper --dry-run --gpus 8 --gpu H100  # what that takes
    python 04_train.py --name mine --model FOLDER_OR_HUB_ID --arms cft --save-every 20
    python 04_train.py --name mine --arms cft+sft           # one set of two (Table 9)
    python 04_train.py --name mine --arms cft --after sft   # two stages

The loss is taken on completion tokens only: for cft that is P(critique | question, noisy response).
It is summed over the global batch and divided by its supervised tokens, so the curve is the same on
1 process or N. A killed run goes on where it was.
"""

# %% Settings
from dataclasses import dataclass

from common.core.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting(
        "tiny",
        "tiny, paper, lora, qlora, one-shot (common/core/presets.py); "
        "default: what 01 was run with, tiny for a new run",
    )
    seed: int = setting(0, "of the row order, and of new adapters")
    limit: int | None = setting(None, "train on at most this many rows of each training set")
    model: str | None = setting(None, "base model: folder or hub id (default: the run's 01_base)")
    arms: list[str] = setting(
        [],
        "which training sets (default: those 03 built last); cft+sft trains on the rows of both",
    )
    after: str | None = setting(
        None, "start from the last checkpoint of this set instead of the base"
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
import torch

from common.core import files, prompts, runs
from common.core.tokenizer import load_tokenizer, local_folder
from common.core.trainings import check_settings, last_checkpoint
from common.train import adapters, checkpoints, distributed, estimate, model, tokens, training_log
from common.train import training_run as plans
from common.train.loop import (
    adamw,
    check_flags,
    check_stop,
    mean_loss,
    stop_signals,
    training_steps,
)

run = runs.run_folder(config.name)
torch.set_num_threads(config.threads or torch.get_num_threads())
rank, world, device = distributed.init_distributed()
if config.dry_run:
    world = config.gpus or world
log = print if rank == 0 else lambda *text: None
full = config.method == "full"
check_flags(config, world)

# %% The training sets and the base model
set_names = plans.choose_sets(run, config.arms)
source = config.model or runs.stage_file(run, "01_base")
if config.after:
    source = last_checkpoint(run, config.after)
base = local_folder(source, weights=not config.dry_run)
base_id = None if config.dry_run else files.model_id(base)
shape = estimate.model_shape(base, 0 if full else config.lora_rank, config.method == "qlora")
# The type of saved models; training keeps float32.
dtype = torch.float32 if device.type == "cpu" else torch.bfloat16

# %% Its tokenizer and chat template
tokenizer = load_tokenizer(base)
template = prompts.template_for(tokenizer) if config.template == "auto" else config.template
prompts.add_chatml_markers(template, tokenizer, shape.vocabulary, full)
prompts.check_template(template, tokenizer)

# %% [markdown]
"""
## From rows to a batch plan
`tokens.examples` marks where each prompt ends; `tokens.batch_plan` cuts each global batch into
micro-batches of adjacent lengths, so that little is padding. The plan depends on the seed alone,
which is why a resume needs no data state.
"""


# %% One training: its rows, in which order, and where it is saved
def prepare(set_name):
    paths = [runs.stage_file(run, f"03_data/{part}.jsonl") for part in set_name.split("+")]
    rows = plans.read_rows(paths, config.limit)
    examples, counts = tokens.examples(rows, tokenizer, template, config.cutoff, config.overlong)
    plans.check_enough_rows(set_name, len(examples), len(rows), counts, config)
    tokens.check_fit(examples, shape.vocabulary, shape.positions, base)
    examples, holdout = tokens.split_holdout(examples, config.holdout, config.seed)
    plan = tokens.batch_plan(
        [len(e["input_ids"]) for e in examples],
        config.global_batch,
        config.epochs,
        config.seed,
        world,
        config.tokens_per_microbatch,
    )
    plans.check_warmup(set_name, len(examples), len(plan), config)
    return plans.TrainingRun(
        set_name=set_name,
        files=paths,
        examples=examples,
        counts=counts,
        holdout=holdout,
        plan=plan,
        folder=run / "04_train" / plans.folder_name(set_name, config.after),
        save_steps=plans.save_steps(len(plan), config),
        state_steps=plans.regular_steps(config.state_every, len(plan)),
    )


# %% Prepare all of them first, so that a mistake costs no training
trainings = [prepare(set_name) for set_name in set_names]
for training in trainings:
    log(training_log.plan_line(training))
    log(training_log.supervised_text(training.examples[0], tokenizer))
    if config.dry_run:
        log(estimate.table(shape, training, config, world) + "\n")
if config.dry_run:
    raise SystemExit

# %% What the result depends on: a training of the same name must be the same one
settings = {}
for training in trainings:
    facts = dict(base_id=base_id, template=template, steps=len(training.plan))
    settings[training.set_name] = plans.result_settings(config, training.files, **facts)
    check_settings(training.folder / "settings.json", settings[training.set_name])
    for name in plans.changed_since_03(run, training.files):
        log(f"note: {name} is not as 03 wrote it")

# %% Disk, memory and libraries
to_write = plans.all_remaining_writes(trainings, config)
needed = estimate.disk(shape, *to_write, dtype.itemsize)
files.check_disk(run, needed, ", or save less often: a larger --save-every")
if config.merge:
    log(adapters.check_memory_to_merge(shape.parameters))
if config.method == "qlora" or config.optimizer == "adamw8bit":
    adapters.check_bitsandbytes(device)


# %% The model, with all of its weights trained, or adapters
def load_model():
    if full:
        return model.load(base, device, config.activation_checkpointing)
    return adapters.load(
        base,
        device,
        config.lora_rank,
        config.lora_alpha,
        config.method == "qlora",
        config.activation_checkpointing,
        config.seed,
    )


# %% One training, from the base or from where it was stopped
def train(training, stop_status):
    plans.write_settings(training, settings[training.set_name], base)
    net = load_model()
    optimizer = adamw(net, config.weight_decay, eight_bit=config.optimizer == "adamw8bit")
    saver = checkpoints.Saver(
        net, optimizer, training, tokenizer, template, dtype, config.keep_last
    )
    start = saver.resume()
    record = training_log.TrainingLog(training, start)
    if start:
        log(f"{training.set_name}: going on after step {start}")
    check_stop(stop_status(), f"before step {start + 1} of {training.set_name}")
    steps = training_steps(
        net,
        optimizer,
        training.examples,
        training.plan,
        config.learning_rate,
        config.warmup_ratio,
        config.max_grad_norm,
        start,
        skipped=record.skipped,
    )
    for update in steps:
        after_step(update, training, net, record, saver)
        status = stop_status()
        unfinished = update.step < len(training.plan)
        if update.step in training.state_steps or (status and unfinished):
            saver.save_state(update.step)
        if status:
            record.draw()
        check_stop(
            status, f"after step {update.step} of {len(training.plan)} of {training.set_name}"
        )


# %% After a step: its line in the log, and perhaps a checkpoint
def after_step(update, training, net, record, saver):
    row = vars(update) | {"arm": training.set_name}
    row |= estimate.progress(update, shape, training, world, device)
    saving = update.step in training.save_steps
    if saving and training.holdout:
        row["held_out_loss"] = mean_loss(net, training.holdout, config.tokens_per_microbatch)
    record.add(row)
    if saving:
        record.draw()  # before the last checkpoint, which says that the training is finished
        saver.write_checkpoint(update.step, record.best if config.keep_best else None)


# %% Train each set, and merge its adapter
# The lock is kept until the process ends.
lock = files.lock(run / "04_train" / "training", reentrant=True) if rank == 0 else None
with stop_signals() as stop_status:
    for training in trainings:
        if training.last_checkpoint.exists():
            log(f"{training.set_name}: {training.last_checkpoint} exists, nothing to do")
        else:
            train(training, stop_status)
            log(f"{training.set_name}: trained")
        checkpoints.finish(training.folder, config.keep_last, config.keep_best)
if config.merge and rank == 0:
    for training in trainings:
        adapters.merge_once(training.last_checkpoint, base, dtype)

# %% Write the manifest
if rank == 0:
    runs.write_manifest(
        run / "04.run.json",
        config,
        plans.all_files(trainings),
        base=str(base),
        base_id=base_id,
        processes=world,
        checkpoints={t.folder.name: checkpoints.checkpoint_names(t.folder) for t in trainings},
    )
for training in trainings:
    log(training_log.summary(training, config.merge))
log(f"next: python 05_eval.py --name {config.name}")
distributed.end_distributed()
