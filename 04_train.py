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

# %% Settings: these, and those of RunConfig (name, preset)
from dataclasses import dataclass

from common.core.config import RunConfig, configure, setting


@dataclass
class Config(RunConfig):
    model: str | None = setting(None, "base model: folder or hub id (default: 01_base)")
    arms: list[str] = setting(
        [], "which training sets (default: all of 03_data); cft+sft trains on the rows of both"
    )
    dry_run: bool = setting(False, "say what the training takes and stop; no weights are loaded")
    gpus: int | None = setting(
        None, "dry run: how many GPUs (default: the processes started)", minimum=1
    )
    gpu: str = setting("H100", "dry run: which, by its name in common/train/estimate.py")
    limit: int | None = setting(
        None, "train on at most this many rows of each training set", minimum=1, group="data"
    )
    template: str = setting(
        "auto",
        "chat template; auto: by the tokenizer; own: its own, which an Instruct model knows",
        choices=["auto", "chatml", "deepseek", "own"],
        group="data",
    )
    cutoff: int = setting(2048, "tokens per row", minimum=1, group="data")
    overlong: str = setting(
        "truncate",
        "rows over the cutoff: cut at the end, or dropped",
        choices=["truncate", "drop"],
        group="data",
    )
    holdout: int = setting(
        0, "rows put aside, on which each checkpoint's loss is measured", minimum=0, group="data"
    )
    method: str = setting(
        "full",
        "what is trained: all weights, or adapters on a frozen base, in 4 bits with qlora",
        choices=["full", "lora", "qlora"],
        group="training",
    )
    lora_rank: int = setting(
        32, "of the adapters, on every linear layer but the head", minimum=1, group="training"
    )
    after: str | None = setting(
        None, "start from the last checkpoint of this set instead of the base", group="training"
    )
    seed: int = setting(0, "of the row order, and of new adapters", minimum=0, group="training")
    learning_rate: float = setting(5e-6, "peak", minimum=0, maximum=1, group="training")
    warmup_ratio: float = setting(
        0.1,
        "share of the steps with rising learning rate; then cosine to 0",
        minimum=0,
        maximum=1,
        group="training",
    )
    weight_decay: float = setting(
        0.0, "of AdamW, whose betas are 0.9 and 0.999", minimum=0, group="training"
    )
    epochs: int = setting(1, "passes over the rows", minimum=1, group="training")
    global_batch: int = setting(
        512, "rows per optimizer step, over all processes", minimum=1, group="training"
    )
    tokens_per_microbatch: int = setting(
        16_384,
        "padded tokens that one process takes at a time; memory grows with it",
        minimum=1,
        group="training",
    )
    activation_checkpointing: str = setting(
        "auto",
        "compute activations again in the backward pass: of all layers, of none, or of as many "
        "as the GPU's memory asks for",
        choices=["auto", "on", "off"],
        group="training",
    )
    compile: bool = setting(
        False,
        "fuse the layers' small operations (torch.compile): minutes at the start",
        group="training",
    )
    threads: int = setting(
        0, "CPU threads of torch; 0: torch's own choice", minimum=0, group="training"
    )
    save_every: int = setting(
        2,
        "a checkpoint every so many steps, and at the end; 0: only at the end",
        minimum=0,
        group="checkpoints",
    )
    keep_last: int = setting(
        0, "keep only so many newest checkpoints; 0: all", minimum=0, group="checkpoints"
    )
    state_minutes: float = setting(
        20.0,
        "what a resume needs, every so many minutes (the newest is kept); 0: only when stopped",
        minimum=0,
        group="checkpoints",
    )


config = configure(Config, "04")

# %% Start
from pathlib import Path

import torch

from common.core import files, manifests, prompts
from common.core.errors import InputError
from common.core.tokenizer import load_tokenizer, local_folder
from common.core.trainings import check_settings, last_checkpoint
from common.train import adapters, checkpoints, distributed, estimate, tokens, training_log
from common.train import training_run as plans
from common.train.loop import adamw, check_stop, mean_loss, stop_signals, training_steps
from common.train.model import compile_layers
from common.train.model import load as load_sharded

run = manifests.run_folder(config.name)
torch.set_num_threads(config.threads or torch.get_num_threads())
rank, world, device = distributed.init_distributed()
if config.dry_run:
    world = config.gpus or world
elif config.gpus:
    raise InputError(
        f"--gpus {config.gpus} says for how many GPUs to plan, and there is no --dry-run.\n"
        f"Add it; to train on them: torchrun --nproc-per-node {config.gpus} 04_train.py"
    )
log = distributed.log
full, four_bits = config.method == "full", config.method == "qlora"

# %% The training sets and the base model
set_names = plans.choose_sets(run, config.arms)
source = config.model or manifests.require(run / "01_base")
if config.after:
    source = last_checkpoint(run, config.after)
base = local_folder(source, weights=not config.dry_run)
base_id = None
if not config.dry_run:  # process 0 reads it, since a 7B is 15 GB
    base_id = distributed.broadcast(files.model_id(Path(base)) if rank == 0 else None)
shape = estimate.model_shape(base, 0 if full else config.lora_rank, four_bits)
dtype = distributed.compute_dtype(device)  # of saved models, too; training keeps float32

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
    paths = plans.set_files(run, set_name)
    rows = plans.read_rows(paths, config.limit)
    examples, counts = tokens.examples(rows, tokenizer, template, config.cutoff, config.overlong)
    plans.check_rows(set_name, len(examples), len(rows), counts, config)
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
    folder = f"{set_name}-after-{config.after}" if config.after else set_name
    return plans.TrainingRun(
        set_name=set_name,
        files=paths,
        examples=examples,
        counts=counts,
        holdout=holdout,
        plan=plan,
        folder=run / "04_train" / folder,
        save_steps=plans.regular_steps(config.save_every, len(plan)) | {len(plan)},
    )


# %% Prepare all of them first, so that a mistake costs no training
trainings = [prepare(set_name) for set_name in set_names]
for training in trainings:
    plans.check_warmup(training, config)
    log(training_log.plan_line(training))
    log(training_log.supervised_text(training.examples[0], tokenizer))
    if config.dry_run:
        log(estimate.dry_run(shape, training, config, world))
if config.dry_run:
    raise SystemExit

# %% A folder that exists must hold the same training
for training in trainings:
    training.settings = plans.result_settings(training, config, base_id, template)
    check_settings(training.folder / "settings.json", training.settings)

# %% Disk and libraries
needed = estimate.disk(shape, plans.count_writes(trainings, config), dtype.itemsize)
files.check_disk(run, sum(needed.values()))
if four_bits:
    adapters.check_bitsandbytes(device)


# %% One training, from the base or from where it was stopped
def train(training, stop_status):
    capacity = estimate.device_memory(device)
    recomputed = estimate.recomputed_layers(shape, training, config, world, capacity)
    if full:
        model = load_sharded(base, device, recomputed)
    else:  # adapters on a frozen base
        options = four_bits, recomputed, config.seed
        model = adapters.load(base, device, config.lora_rank, *options)
    if config.compile:
        compile_layers(model)
    plans.write_settings(training, base)
    optimizer = adamw(model, config.weight_decay, eight_bit=four_bits)
    start = checkpoints.load_state(model, optimizer, training.folder)
    record = training_log.TrainingLog(training, start)
    check_stop(stop_status(), f"before step {start + 1} of {training.set_name}")
    steps = training_steps(
        model,
        optimizer,
        training.examples,
        training.plan,
        config.learning_rate,
        config.warmup_ratio,
        start,
        skipped=training_log.count_skipped(record.metrics),
    )
    form = tokenizer, template, dtype, config.keep_last, config.state_minutes
    with checkpoints.Saver(model, optimizer, training, *form) as saver:
        for update in steps:
            after_step(update, stop_status, training, model, record, saver)


# %% After a step: its line in the log, perhaps a checkpoint, and perhaps what a resume needs
def after_step(update, stop_status, training, model, record, saver):
    step, n_steps = update.step, len(training.plan)
    row = vars(update) | estimate.progress(update, shape, training, world, device)
    saving = step in training.save_steps
    if saving and training.holdout:
        row["holdout_loss"] = mean_loss(model, training.holdout, config.tokens_per_microbatch)
    record.add(row)
    if step == n_steps:
        record.draw()  # before the last checkpoint, which says that the training is finished
    if saving:
        saver.write_checkpoint(step)
    status = stop_status()  # 130 or 143 when somebody asks to stop
    if step < n_steps and (status or saver.state_is_due()):
        saver.save_state(step)
    if status:
        record.draw()
    check_stop(status, f"after step {step} of {n_steps} of {training.set_name}")


# %% Train each set
if rank == 0:
    lock = files.lock_stage(run / "04_train")
with stop_signals() as stop_status:
    for training in trainings:
        if training.last_checkpoint.exists():
            log(f"{training.set_name}: {training.last_checkpoint} exists, nothing to do")
        else:
            train(training, stop_status)
        checkpoints.finish(training.folder, config.keep_last)


# %% Merge the adapters, and write the manifests
def finish_training(training):
    if not full:
        log(adapters.merge_if_possible(training.last_checkpoint, base, dtype, shape.parameters))
    if not manifests.manifest_path(training.folder).exists():
        manifests.write_manifest(
            training.folder,
            config,
            training.files,
            base=str(base),
            base_id=base_id,
            processes=world,
            checkpoints=checkpoints.checkpoint_names(training.folder),
        )
    log(f"wrote {training.last_checkpoint}")


if rank == 0:
    for training in trainings:
        finish_training(training)
    lock.release(force=True)
log(f"next: python 05_eval.py --name {config.name}")
distributed.end_distributed()
