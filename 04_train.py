# %% [markdown]
"""
# 04 Train: training sets -> checkpoints

In: `03_data/<arm>.jsonl` and a base model. Out: `04_train/<arm>/step-000050/` (Hugging Face folders), `metrics.jsonl`
and `loss.png`, for each arm.

    python 04_train.py                                                     # tiny: four arms of 50 steps on a CPU
    torchrun --nproc-per-node 8 04_train.py --preset paper                 # Qwen2.5-Math-7B on 8 GPUs
    python 04_train.py --name mine --model FOLDER_OR_HUB_ID --arms cft --save-every 20

The loss is taken on completion tokens only: for cft that is P(critique | question, noisy response). It is a sum over the
global batch divided by its number of supervised tokens, so the curve is the same on 1 process or N. A killed run goes
on from its last saved state.
"""

# %% Settings
from dataclasses import dataclass

from common.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting("tiny", "tiny or paper (common/presets.py); default: what 01 was run with, tiny for a new run")
    seed: int = setting(0, "of the row order")
    limit: int | None = setting(None, "train on at most this many rows of each arm")
    model: str | None = setting(None, "base model: folder or hub id (default: the run's 01_base)")
    arms: list[str] = setting([], "which arms (default: those 03 built last)")
    template: str = setting("auto", "chat template: chatml, deepseek, or auto (by the tokenizer)")
    learning_rate: float = setting(5e-6, "peak")
    warmup_ratio: float = setting(0.1, "share of the steps with rising learning rate; then cosine to 0")
    epochs: int = setting(1, "passes over the rows")
    global_batch: int = setting(512, "rows per optimizer step, over all processes")
    cutoff: int = setting(2048, "tokens per row")
    overlong: str = setting("truncate", "rows over the cutoff: cut at the end, or dropped", choices=["truncate", "drop"])
    weight_decay: float = setting(0.0, "of AdamW, whose betas are 0.9 and 0.999")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    tokens_per_microbatch: int = setting(16_384, "padded tokens that one process takes at a time; memory grows with it")
    activation_checkpointing: bool = setting(True, "compute activations again in the backward pass to save memory")
    save_every: int = setting(2, "a checkpoint every so many steps, and at the end; 0: only at the end")
    state_every: int = setting(20, "what a resume needs, every so many steps (the newest is kept); 0: never")
    threads: int = setting(0, "CPU threads of torch; 0: torch's own choice")


config = configure(Config, "04")

# %% Start
import json
import time

import torch
from tqdm import tqdm

from common import files, model, prompts, report, tokens
from common.files import InputError
from common.train import adamw, training_steps

run = files.run_folder(config.name)
if config.threads:
    torch.set_num_threads(config.threads)
torch.manual_seed(config.seed)
rank, world, device = model.init_distributed()
log = print if rank == 0 else lambda *text: None

# %% The base model, its tokenizer, the arms
base = model.local_folder(config.model or files.stage_file(run, "01_base"))
tokenizer = model.load_tokenizer(base)
template = prompts.template_for(tokenizer) if config.template == "auto" else config.template
prompts.check_template(template, tokenizer)
files.check_inputs(run, "03")
built = list(json.loads(files.stage_file(run, "03.run.json").read_text())["rows"])
arms = config.arms or built
if unknown := [arm for arm in arms if arm not in built]:
    raise InputError(f"03 built no arms {unknown}; it built: {' '.join(built)}\nGive some of those: --arms {built[0]}")
base_id = files.model_id(base)
dtype = torch.bfloat16 if device.type == "cuda" else torch.float32  # of the saved weights; training keeps float32
# What may change between a run and its resume without changing the result, up to rounding:
FREE = ("name", "preset", "arms", "model", "threads", "tokens_per_microbatch", "activation_checkpointing", "save_every",
        "state_every")

# %% [markdown]
"""
## From rows to a plan
`tokens.examples` marks where each prompt ends; `tokens.plan` cuts each global batch into micro-batches of adjacent
lengths, so that little is padding. The plan depends on the seed alone, which is why a resume needs no data state.
"""


# %% One arm: what it trains on, in which order, and whether it stands already
def prepare(arm):
    """-> (folder, examples, plan, settings), or None where the arm is trained already."""
    data, folder = files.stage_file(run, f"03_data/{arm}.jsonl"), run / "04_train" / arm
    examples, counts = tokens.examples(files.read_jsonl(data)[: config.limit], tokenizer, template, config.cutoff, config.overlong)
    if not examples:
        raise InputError(f"{data}: no row is left ({dict(counts)}).\nRaise --cutoff ({config.cutoff} tokens).")
    lengths = [len(e["input_ids"]) for e in examples]
    plan = tokens.plan(lengths, config.global_batch, config.epochs, config.seed, world, config.tokens_per_microbatch)
    if len(plan) == 1 and config.warmup_ratio:
        raise InputError(f"{arm}: {len(examples)} rows are one step of --global-batch {config.global_batch}, and warm-up gives the first step "
                         "a learning rate of 0.\nTake a smaller --global-batch, or --warmup-ratio 0.")
    settings = {k: v for k, v in vars(config).items() if k not in FREE}
    settings |= {"base_id": base_id, "data_sha256": files.file_hash(data), "template": template, "steps": len(plan)}
    files.check_settings(folder / "settings.json", settings)
    settings["base"] = str(base)  # where 05 finds it; what counts is its content
    log(f"{arm}: {len(examples)} rows, {sum(lengths) / len(lengths):.0f} tokens a row, {len(plan)} steps, padding "
        f"{tokens.padding_share(plan, lengths):.1%}", "".join(f", {n} {what}" for what, n in counts.items()))
    log(report.supervised_text(examples[0], tokenizer))
    if (folder / f"step-{len(plan):06d}").exists():
        log(f"{arm}: {folder / f'step-{len(plan):06d}'} stands, nothing to do")
        model.drop_states(folder)
        return None
    return folder, examples, plan, settings


def bytes_to_write(folder, plan):
    """Disk that an arm still needs: the checkpoints that do not stand yet, and two training states."""
    saves = {len(plan)} | set(range(config.save_every, len(plan), config.save_every) if config.save_every else ())
    missing = sum(not (folder / f"step-{step:06d}").exists() for step in saves)
    return model.checkpoint_bytes(base, missing, 2 if config.state_every else 0, dtype)


# %% The training of one arm
def train(arm, folder, examples, plan, settings):
    if rank == 0:
        files.write_atomic(folder / "settings.json", json.dumps(settings, indent=1) + "\n")
    net = model.load(base, device, config.activation_checkpointing)
    optimizer = adamw(net, config.weight_decay)
    start = model.load_state(net, optimizer, folder)
    metrics = files.kept_metrics(folder / "metrics.jsonl", start)
    if start:
        log(f"{arm}: going on after step {start}")
    steps = training_steps(net, optimizer, examples, plan, tokenizer.pad_token_id, config.learning_rate,
                           config.warmup_ratio, config.max_grad_norm, start)
    for update in tqdm(steps, desc=f"04 {arm}", initial=start, total=len(plan), unit="step", disable=rank > 0):
        metrics.append(vars(update) | {"arm": arm})
        last = update.step == len(plan)
        if rank == 0:
            files.append_line(folder / "metrics.jsonl", metrics[-1])
            if last:  # before the last checkpoint, whose presence means that the arm is done
                report.loss_curve(metrics, folder / "loss.png")
            if update.step % 10 == 1 or last or device.type == "cuda":
                tqdm.write(report.step_line(update, len(plan)))
        if last or config.save_every and update.step % config.save_every == 0:
            model.save_hf(net, tokenizer, template, folder / f"step-{update.step:06d}", dtype)
        if not last and config.state_every and update.step % config.state_every == 0:
            model.save_state(net, optimizer, update.step, folder)
    model.drop_states(folder)


# %% Train each arm
prepared = {arm: prepare(arm) for arm in arms}  # all of them first, so that a mistake costs no training
needed = sum(bytes_to_write(folder, plan) for folder, _, plan, _ in filter(None, prepared.values()))
files.check_disk(run, needed, ", or save less often: a larger --save-every")
for arm in arms:
    began = time.time()
    if prepared[arm]:
        train(arm, *prepared[arm])
        log(f"{arm}: trained in {time.time() - began:.0f} s")

# %% Write the manifest
checkpoints = {arm: [f.name for f in sorted((run / "04_train" / arm).glob("step-*[0-9]"))] for arm in arms}
if rank == 0:
    files.write_manifest(run / "04.run.json", config, [run / "03_data" / f"{arm}.jsonl" for arm in arms],
                         base=str(base), base_id=base_id, processes=world, checkpoints=checkpoints)
for arm in arms:
    log(f"wrote {run / '04_train' / arm / checkpoints[arm][-1]}")
log(f"next: python 05_eval.py --name {config.name}")
