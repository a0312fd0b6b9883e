"""04 gives the same result everywhere: on one process or two, after a stop, in one call or several,
next to a bad row.

A run here is a process of its own, with signals and a status like any other, but it is forked from
a server that has imported torch and transformers already: 0.6 s instead of 6. One test starts the
real torchrun. Faults are put in at exact moments (`fault=`), so that no test depends on how fast
the machine is.
"""

import json
import multiprocessing
import os
import random
import re
import resource
import runpy
import shutil
import signal
import socket
import sys
import time
from functools import partial
from types import SimpleNamespace

import matplotlib.figure  # noqa: F401  what 04 imports, so that the server of the forks has it
import peft  # noqa: F401
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from common.core import files, trainings
from common.core.tokenizer import encode_rows
from common.tiny import world
from common.tiny.base import build_tokenizer
from common.train import estimate, loop, model, tokens
from tests.runs import ROOT, contents, n_lines, rows, write_rows

CPU = torch.device("cpu")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.train.test_loop"])
ROWS = {
    arm: [row | {"id": f"{arm}-{n}"} for n, row in enumerate(world.web_documents(arm, 24))]
    for arm in ("cft", "sft")
}
# 24 rows in batches of 7, 7, 7 and 3: on two processes each batch has an odd number of rows. A rate
# that moves the weights.
FOUR = ["--global-batch", 7, "--learning-rate", 3e-3, "--save-every", 2, "--state-minutes", 0]
CFT = ["--arms", "cft", *FOUR]
BOTH = ["--arms", "cft", "sft", *FOUR]
GOES_ON = "The same command goes on from there."


# --- running 04 -----------------------------------------------------------------------------------


def _there(folder, log, environment):
    """Make this process one that was started in that folder, what it prints going to a file."""
    os.chdir(folder)
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = sys.__stdout__ = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _script(arguments):
    """04 with these arguments, which ends as the interpreter ends it."""
    sys.argv = ["04_train.py", *arguments]
    try:
        runpy.run_path(str(ROOT / "04_train.py"), run_name="__main__")
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)


def _child(folder, log, arguments, environment, fault):
    _there(folder, log, environment)
    if fault:
        fault()
    _script(arguments)


def _torchrun(folder, arguments):
    """The real launcher in a session of its own; its processes are forks that run this file, which
    then runs 04.
    """
    os.setsid()
    _there(folder, "printed-0", {"HF_HUB_OFFLINE": "1"})
    from torch.distributed.run import main

    main(
        [
            "--standalone",
            "--nproc-per-node=2",
            "--start-method=fork",
            "--run-path",
            __file__,
            *arguments,
        ]
    )


def start(run, *arguments, ranks=1, fault=None, **environment):
    """Start 04 for `run` (folder/runs/tiny) as one process, or as `ranks` processes in the way of
    torchrun. -> the processes.
    """
    environment |= {"HF_HUB_OFFLINE": "1"}
    if ranks > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(ranks),
            "TORCHELASTIC_RUN_ID": "here",
        }
    return [
        _forked(
            _child,
            run.parent.parent,
            f"printed-{rank}",
            [*map(str, arguments)],
            environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}),
            fault,
        )
        for rank in range(ranks)
    ]


def _forked(target, *arguments):
    process = FORKS.Process(target=target, args=arguments)
    with pytest.MonkeyPatch.context() as environment:  # of the server, which the first start starts
        environment.setenv("CUDA_VISIBLE_DEVICES", "")
        environment.setenv("PYTHONPATH", str(ROOT))
        process.start()
    return process


def end_of(run, started, timeout=60):
    """-> status: that of the process or a list of all ranks', printed: what rank 0 printed, all:
    what all did.
    """
    for process in started:
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
    texts = [(run.parent.parent / f"printed-{rank}").read_text() for rank in range(len(started))]
    status = [process.exitcode for process in started]
    return SimpleNamespace(
        status=status if len(status) > 1 else status[0], printed=texts[0], all="\n".join(texts)
    )


def run_04(run, *arguments, **options):
    """Run 04 to its end, whatever that is."""
    return end_of(run, start(run, *arguments, **options))


def train_04(run, *arguments, **options):
    """run_04 that has to end well. -> what it printed."""
    done = run_04(run, *arguments, **options)
    assert not any(done.status if isinstance(done.status, list) else [done.status]), (
        f"{done.status}\n{done.all[-4000:]}"
    )
    return done.printed


def workplace(folder, base, **arms):
    """A run folder that is ready for 04, with `base` as its 01_base (a link: nobody writes there).

    -> the run folder.
    """
    run = folder / "runs" / "tiny"
    arms = arms or ROWS
    for arm, made in arms.items():
        write_rows(run / "03_data" / f"{arm}.jsonl", made)
    (run / "01_base").symlink_to(base)
    return run


def arm_of(run, arm="cft"):
    return run / "04_train" / arm


def metrics(run, arm="cft"):
    return rows(arm_of(run, arm) / "metrics.jsonl")


def losses(run, arm="cft", what="loss"):
    return [m[what] for m in metrics(run, arm)]


def weights(run, step=4, arm="cft", name="model.safetensors"):
    return load_file(arm_of(run, arm) / f"step-{step:06d}" / name)


def standing(run, arm="cft"):
    return sorted(path.name for path in arm_of(run, arm).iterdir())


def assert_close(run, other, arm="cft", name="model.safetensors"):
    """Same numbers to 1e-4: the sums are of the same terms in another order."""
    assert losses(run, arm) == pytest.approx(losses(other, arm), abs=1e-4)
    assert losses(run, arm, "grad_norm") == pytest.approx(losses(other, arm, "grad_norm"), abs=1e-4)
    ours, theirs = weights(run, arm=arm, name=name), weights(other, arm=arm, name=name)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert (ours[key] - theirs[key]).abs().max() < 1e-4, key


# --- faults: what is done in a child before the script begins -------------------------------------


def signals(step, *numbers, ranks=(0,)):
    """During that step (from 1) the process gets these signals, on these ranks."""
    whole = loop.training_steps

    def steps(*arguments, **options):
        for update in whole(*arguments, **options):
            if update.step == step and dist.get_rank() in ranks:
                for number in numbers:
                    os.kill(os.getpid(), number)
            yield update

    loop.training_steps = steps


def signal_after_the_last_look(number):
    """When the last step is over and its look for signals is, too."""
    whole = loop.training_steps

    def steps(*arguments, **options):
        yield from whole(*arguments, **options)
        os.kill(os.getpid(), number)

    loop.training_steps = steps


def signal_at_load(nth, number):
    """While the model of the nth arm is loaded."""
    whole, seen = model.load, []

    def load(*arguments, **options):
        seen.append(None)
        if len(seen) == nth:
            os.kill(os.getpid(), number)
        return whole(*arguments, **options)

    model.load = load


def pause_after(step, seconds):
    """What runs beside the training has so much time after that step."""
    whole = loop.training_steps

    def steps(*arguments, **options):
        for update in whole(*arguments, **options):
            yield update
            time.sleep(seconds if update.step == step else 0)

    loop.training_steps = steps


def slow_disk(seconds=0.4, times=3):
    """The first fsyncs take their time."""
    whole, seen = os.fsync, []

    def fsync(file):
        seen.append(None)
        time.sleep(seconds if len(seen) <= times else 0)
        return whole(file)

    os.fsync = fsync


def file_limit(size):
    """No file can grow beyond so many bytes: a write fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# --- the same on one process and on two -----------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model):
    """Two arms of four steps on one process; look, do not touch."""
    run = workplace(tmp_path_factory.mktemp("undisturbed"), tiny_model)
    train_04(run, *BOTH)
    return run


@pytest.fixture
def run(tmp_path, tiny_model):
    return workplace(tmp_path, tiny_model)


ONE_ROW = ["--tokens-per-microbatch", 1]


@pytest.mark.parametrize("flags", [[], [*ONE_ROW, "--activation-checkpointing", "on"]])
def test_two_processes_give_the_curve_and_the_weights_of_one(run, undisturbed, flags):
    """A cap of 1 makes micro-batches of one row: odd numbers of them over two processes, so that
    one is empty in each step.
    """
    train_04(run, *CFT, *flags, ranks=2)
    assert_close(run, undisturbed)
    assert losses(run)[0] > losses(run)[-1] + 0.3  # a curve that moves
    assert standing(run) == standing(undisturbed)
    for ours, theirs in zip(metrics(run), metrics(undisturbed), strict=True):
        assert all(
            ours[k] == theirs[k]
            for k in ("step", "tokens", "supervised", "learning_rate", "skipped")
        )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["on", "off"])
def test_two_processes_train_an_untied_head(tmp_path, tiny_model, mode):
    config = Qwen2Config.from_pretrained(tiny_model, tie_word_embeddings=False)
    torch.manual_seed(0)
    untied = shutil.copytree(tiny_model, tmp_path / "untied")
    Qwen2ForCausalLM(config).save_pretrained(untied)
    one, two = (workplace(tmp_path / name, untied) for name in ("one", "two"))
    train_04(one, *CFT)
    train_04(two, *CFT, *ONE_ROW, "--activation-checkpointing", mode, ranks=2)
    assert_close(two, one)
    assert "lm_head.weight" in weights(two)


def test_two_processes_train_the_adapters_of_one(tmp_path, tiny_model):
    """Each process averages the adapters' gradients over all, so all keep the same adapters."""
    one, two = (workplace(tmp_path / name, tiny_model) for name in ("one", "two"))
    lora = [*CFT, "--method", "lora", "--lora-rank", 4]
    train_04(one, *lora)
    train_04(two, *lora, "--tokens-per-microbatch", 1, ranks=2)
    assert_close(two, one, name="adapter_model.safetensors")
    moved = [
        t for name, t in weights(two, name="adapter_model.safetensors").items() if "lora_B" in name
    ]
    assert len(moved) == 14 and all(
        t.abs().max() > 1e-3 for t in moved
    )  # they start as zeros; 7 matrices in each of 2 layers


@pytest.mark.slow
def test_adapters_of_two_processes_go_on_and_are_merged_on_one(tmp_path, tiny_model):
    one, two = (workplace(tmp_path / name, tiny_model) for name in ("one", "two"))
    lora = [*CFT, "--method", "qlora", "--lora-rank", 4]
    train_04(one, *lora)
    assert run_04(two, *lora, ranks=2, fault=partial(signals, 2, signal.SIGTERM)).status == [
        143,
        143,
    ]
    assert "going on after step 2" in train_04(two, *lora)
    assert_close(two, one, name="adapter_model.safetensors")
    assert (arm_of(two) / "step-000004" / "merged" / "model.safetensors").exists()


# --- resume ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("saved_on", "resumed_on"), [(2, 1), (1, 2)])
def test_resume_on_another_number_of_processes(run, undisturbed, saved_on, resumed_on):
    """One process alone gets the signal: all stop after the same step.

    The resume's disk is slow, which shows whether two processes write one file.
    """
    stopped = run_04(
        run, *CFT, ranks=saved_on, fault=partial(signals, 2, signal.SIGTERM, ranks=[saved_on - 1])
    )
    assert stopped.status == ([143, 143] if saved_on == 2 else 143), stopped.all
    assert "state-000002" in standing(run) and losses(run, what="step") == [1, 2]
    assert "going on after step 2" in train_04(run, *CFT, ranks=resumed_on, fault=slow_disk)
    assert_close(run, undisturbed)
    assert standing(run) == standing(undisturbed) and losses(run, what="step") == [1, 2, 3, 4]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_after_the_step_and_the_same_command_goes_on(
    run, undisturbed, number, status
):
    stopped = run_04(run, *CFT, fault=partial(signals, 3, number))
    assert stopped.status == status, stopped.printed
    assert (
        "stopped after step 3 of 4 of cft" in stopped.printed
        and GOES_ON in stopped.printed
        and "Traceback" not in stopped.printed
    )
    assert standing(run) == [
        "loss.png",
        "metrics.jsonl",
        "settings.json",
        "state-000003",
        "step-000002",
        "trained_on.jsonl",
    ]
    assert "going on after step 3" in train_04(run, *CFT)
    assert contents(arm_of(run)) == contents(arm_of(undisturbed))  # byte for byte


def test_a_second_ctrl_c_interrupts_at_once(run, undisturbed):
    """Between the two nothing is finished: step 2 is not even in the metrics."""
    stopped = run_04(run, *CFT, fault=partial(signals, 2, signal.SIGINT, signal.SIGINT))
    assert (
        stopped.status == 130
        and "interrupted" in stopped.printed
        and "Traceback" not in stopped.printed
    )
    assert standing(run) == ["metrics.jsonl", "settings.json", "trained_on.jsonl"]
    assert losses(run, what="step") == [1]
    train_04(run, *CFT)
    assert contents(arm_of(run)) == contents(arm_of(undisturbed))


def test_ctrl_c_under_torchrun_comes_twice_and_counts_once(run):
    """The terminal sends it to all processes and torchrun sends it on: still the step is finished
    and saved.
    """
    stopped = run_04(
        run, *CFT, ranks=2, fault=partial(signals, 2, signal.SIGINT, signal.SIGINT, ranks=(0, 1))
    )
    assert stopped.status == [130, 130] and "Traceback" not in stopped.all, stopped.all
    assert "state-000002" in standing(run) and losses(run, what="step") == [1, 2]


def test_a_signal_in_the_last_step_of_an_arm(run, undisturbed):
    """The checkpoint stands, so there is nothing to resume; the next start trains the other arm."""
    stopped = run_04(run, *BOTH, fault=partial(signals, 4, signal.SIGTERM))
    assert stopped.status == 143 and "stopped after step 4 of 4 of cft" in stopped.printed
    assert {*standing(run), "run.json"} == {*standing(undisturbed)}
    assert not arm_of(run, "sft").exists()
    assert "step-000004 exists, nothing to do" in train_04(run, *BOTH)
    assert contents(run) == contents(undisturbed)


@pytest.mark.parametrize("moment", ["after the last look", "while the next arm is loaded"])
def test_a_signal_between_two_arms_is_not_lost(run, undisturbed, moment):
    """It may end the process at once, since nothing is lost, but it must end it."""
    fault = (
        partial(signal_after_the_last_look, signal.SIGTERM)
        if moment == "after the last look"
        else partial(signal_at_load, 2, signal.SIGTERM)
    )
    assert run_04(run, *BOTH, fault=fault).status in (143, -signal.SIGTERM)
    assert not (arm_of(run, "sft") / "metrics.jsonl").exists()
    train_04(run, *BOTH)
    assert contents(run) == contents(undisturbed)


def test_torchrun_hands_the_signals_on(run):
    """The real launcher, stopped twice:
    SIGTERM to it alone, then Ctrl-C as a terminal sends it, to all of its processes.
    """
    many = [*map(str, [*CFT, "--epochs", 60])]  # 240 steps
    last = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        launcher, before = _forked(_torchrun, run.parent.parent, many), last
        until = time.monotonic() + 60
        while (
            n_lines(arm_of(run) / "metrics.jsonl") <= before + 1
            and launcher.is_alive()
            and time.monotonic() < until
        ):
            time.sleep(0.01)
        if launcher.is_alive():
            os.kill(launcher.pid, number) if number == signal.SIGTERM else os.killpg(
                launcher.pid, number
            )
        done = end_of(run, [launcher], 60)
        last = len(metrics(run))
        assert (
            done.status != 0
            and f"stopped after step {last} of 240 of cft" in done.printed
            and GOES_ON in done.printed
        ), done.printed[-5000:]
        assert (
            f"state-{last:06d}" in standing(run)
            and losses(run, what="step") == list(range(1, last + 1))
            and last > before
        )
        assert before == 0 or f"going on after step {before}" in done.printed
    stopped = run_04(
        run, *many, fault=partial(signals, last + 1, signal.SIGTERM)
    )  # and on one process
    assert stopped.status == 143 and f"going on after step {last}" in stopped.printed


# --- several arms, mixed and two-stage training, epochs, limit ------------------------------------


def test_arms_in_one_call_are_the_arms_of_one_call_each(run, undisturbed):
    """Neither the order nor what was trained before in the same process matters."""
    train_04(run, "--arms", "sft", *FOUR)
    train_04(run, "--arms", "cft", *FOUR)
    assert contents(run) == contents(undisturbed)


def test_two_stages_are_a_training_that_starts_from_the_first_ones_checkpoint(
    run, undisturbed, tmp_path
):
    shutil.copytree(arm_of(undisturbed), arm_of(run))
    train_04(run, "--arms", "sft", "--after", "cft", *FOUR)
    plain = workplace(tmp_path / "plain", arm_of(undisturbed) / "step-000004")
    train_04(plain, "--arms", "sft", *FOUR)
    assert losses(run, "sft-after-cft") == losses(plain, "sft")
    assert (
        losses(run, "sft-after-cft")[0] < losses(undisturbed, "sft")[0] - 0.1
    )  # the first stage helped
    ours, theirs = weights(run, arm="sft-after-cft"), weights(plain, arm="sft")
    assert all(ours[k].equal(theirs[k]) for k in theirs)
    assert (
        trainings.find_base(run) == "runs/tiny/01_base"
    )  # what 05 scores the arms against, whatever the second stage started from
    assert standing(run) == standing(undisturbed), "the first stage is as it was"


def test_a_mixed_arm_is_the_rows_of_both(run, tmp_path, tiny_model):
    """48 rows in one seeded order; with --limit, so many of each."""
    both = workplace(
        tmp_path / "both",
        tiny_model,
        mix=ROWS["cft"] + ROWS["sft"],
        some=ROWS["cft"][:9] + ROWS["sft"][:9],
    )
    train_04(run, "--arms", "cft+sft", *FOUR)
    train_04(both, *FOUR)
    assert len(metrics(run, "cft+sft")) == 7  # 48 rows in batches of 7
    assert losses(run, "cft+sft") == losses(both, "mix")
    assert weights(run, 7, "cft+sft")["model.norm.weight"].equal(
        weights(both, 7, "mix")["model.norm.weight"]
    )
    shutil.rmtree(run / "04_train")
    train_04(run, "--arms", "cft+sft", "--limit", 9, *FOUR)
    assert losses(run, "cft+sft") == losses(both, "some")


def test_each_epoch_has_all_rows_once_in_an_order_of_its_own(run):
    lengths = [random.Random(0).randrange(20, 90) for _ in range(24)]
    plan = tokens.batch_plan(lengths, 7, 3, 0, 2, 100)
    epochs = [
        [sorted(i for rank in step for group in rank for i in group) for step in plan[at : at + 4]]
        for at in (0, 4, 8)
    ]
    for epoch in epochs:
        assert [len(step) for step in epoch] == [7, 7, 7, 3] and sorted(sum(epoch, [])) == list(
            range(24)
        )
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    train_04(run, *CFT, "--epochs", 3)
    assert [m["step"] for m in metrics(run)] == list(range(1, 13))
    seen = losses(run, what="supervised")
    assert (
        sum(seen[:4]) == sum(seen[4:8]) == sum(seen[8:])
        and len({tuple(seen[at : at + 4]) for at in (0, 4, 8)}) == 3
    )


# --- against plain torch --------------------------------------------------------------------------


def by_hand(folder, examples, plan, peak, weight_decay):
    """Oracle:
    Hugging Face's loss, torch's AdamW, one unsharded model, one batch at a time. -> its weights.
    """
    plain = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(
        plain.parameters(), lr=peak, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay
    )
    for step in plan:
        input_ids, labels = tokens.collate(
            [examples[i] for rank in step for group in rank for i in group]
        )
        plain(input_ids=input_ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return plain.state_dict()


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_weights_are_those_of_plain_torch(tiny_model, weight_decay, monkeypatch):
    """At a constant rate.

    Decay of 0.5 at 1e-2 over three steps shrinks every weight by 1.5 %.
    """
    examples, _ = tokens.examples(ROWS["cft"], build_tokenizer(), "chatml", 512)
    plan = tokens.batch_plan([len(e["input_ids"]) for e in examples], 8, 1, 0, 1, 300)
    net = model.load(str(tiny_model), CPU)
    monkeypatch.setattr(loop, "learning_rate_at", lambda *_: 1e-2)
    for _ in loop.training_steps(net, loop.adamw(net, weight_decay), examples, plan, 1e-2):
        pass
    expected = by_hand(tiny_model, examples, plan, 1e-2, weight_decay)
    for name, tensor in net.state_dict().items():
        assert (tensor - expected[name]).abs().max() < 2e-4, name


# --- rows put aside -------------------------------------------------------------------------------


def test_held_out_rows_are_not_trained_on_and_measured_right(run, tmp_path, tiny_model):
    """Oracle for the measure: transformers' loss of each saved checkpoint.

    Oracle for the training: a run on the other rows that puts none aside, bit for bit. On two
    processes the same.
    """
    remaining, held = tokens.split_holdout(ROWS["cft"], 5, 0)
    assert len(remaining) == 19 and not {r["id"] for r in remaining} & {r["id"] for r in held}
    train_04(run, *CFT, "--holdout", 5)
    assert [m["step"] for m in metrics(run) if "holdout_loss" in m] == [
        2,
        3,
    ]  # 19 rows in batches of 7: three steps, saved at 2 and 3
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    examples, _ = tokens.examples(held, tokenizer, "chatml", 512)
    for step in (2, 3):
        plain = AutoModelForCausalLM.from_pretrained(arm_of(run) / f"step-{step:06d}")
        with torch.no_grad():
            expected = plain(
                **dict(zip(("input_ids", "labels"), tokens.collate(examples)))
            ).loss.item()
        assert metrics(run)[step - 1]["holdout_loss"] == pytest.approx(expected, abs=1e-5)
    other = workplace(tmp_path / "other", tiny_model, cft=remaining)
    train_04(other, *CFT)
    assert losses(run) == losses(other) and all(
        weights(run, 3)[k].equal(t) for k, t in weights(other, 3).items()
    )
    two = workplace(tmp_path / "two", tiny_model)
    train_04(two, *CFT, "--holdout", 5, "--tokens-per-microbatch", 1, ranks=2)
    assert losses(two) == pytest.approx(losses(run), abs=1e-4)
    for ours, theirs in zip(metrics(two), metrics(run)):
        assert ours.get("holdout_loss") == pytest.approx(theirs.get("holdout_loss"), abs=1e-4)


# --- steps without a finite loss ------------------------------------------------------------------


def rows_of_steps(n, batch, seed=0):
    """The rows of each step, by the documented order: a shuffle seeded by seed and epoch."""
    order = list(range(n))
    random.Random(f"{seed} 0").shuffle(order)
    return [order[at : at + batch] for at in range(0, n, batch)]


@pytest.fixture(scope="module")
def poisoned_base(tmp_path_factory, tiny_model):
    """An untied base whose embedding of "Z" is NaN: only rows that hold a Z have no finite loss."""
    folder, tokenizer = tmp_path_factory.mktemp("poisoned"), build_tokenizer()
    torch.manual_seed(0)
    net = Qwen2ForCausalLM(Qwen2Config.from_pretrained(tiny_model, tie_word_embeddings=False))
    with torch.no_grad():
        net.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("Z")] = torch.nan
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def poisoned(folder, base, *which):
    """A run whose rows of these numbers hold a Z in the question."""
    made = [json.loads(json.dumps(row)) for row in ROWS["cft"]]
    for n in which:
        made[n]["prompt"][-1]["content"] += " Z"
    return workplace(folder, base, cft=made)


SIX = [
    "--arms",
    "cft",
    "--global-batch",
    4,
    "--learning-rate",
    3e-3,
    "--save-every",
    1,
    "--state-minutes",
    0,
]  # 24 rows, six steps


@pytest.mark.parametrize("ranks", [1, 2])
def test_steps_without_a_finite_loss_are_skipped(tmp_path, poisoned_base, ranks):
    """Two rows of step 3 and one of step 5: the metrics name their rows, the weights stay."""
    steps = rows_of_steps(24, 4)
    bad = [steps[2][0], steps[2][2], steps[4][1]]
    run = poisoned(tmp_path, poisoned_base, *bad)
    train_04(run, *SIX, "--tokens-per-microbatch", 1, ranks=ranks)
    names = [sorted(f"cft-{n}" for n in step) for step in steps]
    skipped = [sorted(m["skipped"]) for m in metrics(run)]
    assert skipped == [[], [], names[2], [], names[4], []]
    assert [m["loss"] == m["loss"] for m in metrics(run)] == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]  # NaN is not itself
    at = {step: weights(run, step) for step in range(1, 7)}
    for before, after, same in (
        (1, 2, False),
        (2, 3, True),
        (3, 4, False),
        (4, 5, True),
        (5, 6, False),
    ):
        assert same == all(
            at[before][k].nan_to_num().equal(at[after][k].nan_to_num()) for k in at[before]
        ), (before, after)
    assert all(t.isfinite().all() for name, t in at[6].items() if "embed" not in name)


@pytest.mark.parametrize(("ranks", "minutes"), [(1, 0), (1, 1e-9), (2, 0)])
def test_the_third_such_step_stops_and_names_the_rows(tmp_path, poisoned_base, ranks, minutes):
    """And stops again when the same command is given once more, from a state or from the start: the
    rows are still the same.
    """
    steps = rows_of_steps(24, 4)
    bad = [steps[0][3], steps[1][0], steps[3][1], steps[3][2]]
    run = poisoned(tmp_path, poisoned_base, *bad)
    names = {f"cft-{n}" for n in steps[3]}
    for _ in range(2 // ranks):
        stopped = run_04(run, *SIX, "--state-minutes", minutes, ranks=ranks)
        assert 2 in ([stopped.status] if ranks == 1 else stopped.status), stopped.all
        message = stopped.all[stopped.all.index("error: ") :]
        assert "step 4" in message and set(re.findall(r"cft-\d+", message)) == names
        assert not {"step-000004", "step-000005"} & {*standing(run)} and [
            bool(m["skipped"]) for m in metrics(run)
        ] == [True, True, False]


@pytest.mark.slow
def test_the_third_such_step_is_the_last_one(tmp_path, poisoned_base):
    """A run that stops with an error must not look finished to the next start, though there was
    time to write its last checkpoint.
    """
    steps = rows_of_steps(24, 4)
    run = poisoned(tmp_path, poisoned_base, steps[1][0], steps[3][0], steps[5][0])
    assert [run_04(run, *SIX, fault=partial(pause_after, 6, 0.3)).status for _ in range(2)] == [
        2,
        2,
    ]


@pytest.mark.slow
def test_a_resume_counts_the_steps_that_were_skipped_before(tmp_path, poisoned_base):
    steps = rows_of_steps(24, 4)
    run = poisoned(tmp_path, poisoned_base, steps[0][0], steps[1][0], steps[3][0])
    assert run_04(run, *SIX, fault=partial(signals, 3, signal.SIGTERM)).status == 143
    stopped = run_04(run, *SIX)
    assert (
        stopped.status == 2
        and "going on after step 3" in stopped.printed
        and f"cft-{steps[3][0]}" in stopped.printed[stopped.printed.index("error: ") :]
    )


def test_a_gradient_that_is_not_finite_is_skipped_too(tmp_path, poisoned_base):
    """The final norm scaled by 1e-22 and lm_head by 1e22 give the same logits, but a gradient whose
    norm overflows."""
    stored = load_file(poisoned_base / "model.safetensors")
    stored["model.norm.weight"] *= 1e-22
    stored["lm_head.weight"] *= 1e22
    shutil.copytree(poisoned_base, tmp_path / "base")
    save_file(stored, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    run = workplace(tmp_path, tmp_path / "base", cft=ROWS["cft"])
    stopped = run_04(run, *SIX)
    assert stopped.status == 2
    *skipped, third = rows_of_steps(24, 4)[:3]
    for m, batch in zip(metrics(run), skipped, strict=True):
        assert 0 < m["loss"] < 20 and m["grad_norm"] == float("inf")
        assert sorted(m["skipped"]) == sorted(f"cft-{n}" for n in batch)
    assert set(re.findall(r"cft-\d+", stopped.printed[stopped.printed.index("error: ") :])) == {
        f"cft-{n}" for n in third
    }
    assert all(
        t.nan_to_num().equal(stored[name].nan_to_num()) for name, t in weights(run, 2).items()
    )


# --- bad input ------------------------------------------------------------------------------------


def a_base(folder, source, change):
    shutil.copytree(source, folder / "changed")
    change(folder / "changed")
    return ["--model", "changed"]


def set_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def small_embedding(base):
    """300 rows; the tokenizer's ids go to 317."""
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config.from_pretrained(base, vocab_size=300)).save_pretrained(base)


def pad_out_of_range(base):
    """A pad token that was added to the tokenizer alone: no row holds it, but every micro-batch
    may.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(base)


def no_end_nor_pad(base):
    set_json(base / "tokenizer_config.json", eos_token=None, pad_token=None)


def no_weights(base):
    (base / "model.safetensors").unlink()


BAD = {
    "ids out of the embedding": (["--model", small_embedding], "300", ["317", "tokenizer"]),
    "no weights": (["--model", no_weights], "safetensors", ["save_pretrained"]),
    "weights that do not fit config.json": (
        ["--model", lambda base: set_json(base / "config.json", intermediate_size=200)],
        "(192, 96)",
        ["(200, 96)", "config.json"],
    ),
    "an unknown template": (["--template", "llama"], "--template llama", ["chatml", "deepseek"]),
    "no end token for the deepseek template": (
        ["--template", "deepseek", "--model", no_end_nor_pad],
        "eos_token",
        ["tokenizer_config.json"],
    ),
    "--holdout of all rows": (["--holdout", 24], "24 of 24", ["--holdout"]),
    "an arm that 03 did not build": (["--arms", "cft+sft+other"], "cft+sft+other", ["--arms sft"]),
    "a first stage that was not trained": (["--after", "sft"], "04_train", ["04_train.py"]),
    "one step with a warm-up": (
        ["--global-batch", 24],
        "24 rows, all in one step",
        ["--warmup-ratio 0"],
    ),
    "GPUs of a plan, without a plan": (["--gpus", 8], "--gpus 8", ["--dry-run", "torchrun"]),
    "a cutoff below every prompt": (["--cutoff", 5], "0 of 24", ["--cutoff"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_stops_before_any_training(run, tiny_model, case):
    """Status 2; what was seen, and what to do; nothing trained, nothing written."""
    flags, seen, says = BAD[case]
    flags = [
        flag
        for at in flags
        for flag in (a_base(run.parent.parent, tiny_model, at)[1:] if callable(at) else [at])
    ]
    done = run_04(run, *CFT, *flags)
    assert done.status == 2, done.printed[-3000:]
    message = done.printed[done.printed.index("error: ") :]
    assert seen in message and all(word in message for word in says), message
    assert (
        "Traceback" not in done.printed
        and "step 1/" not in done.printed
        and not arm_of(run).joinpath("metrics.jsonl").exists()
    )


@pytest.mark.parametrize("change", [pad_out_of_range, no_end_nor_pad])
def test_a_pad_token_that_the_model_does_not_have(run, tiny_model, undisturbed, change):
    """What stands in the padding changes no number, so any token would do; else it is an input
    error, not an IndexError.
    """
    done = run_04(run, *CFT, *a_base(run.parent.parent, tiny_model, change))
    assert done.status in (0, 2), done.printed[-1500:]
    if done.status == 0:
        assert losses(run) == losses(undisturbed)
    else:
        assert (
            "pad" in done.printed[done.printed.index("error: ") :] and "step 1/" not in done.printed
        )


def test_an_arm_named_twice(run):
    """Is trained once, or refused."""
    done = run_04(run, "--arms", "cft", "cft", *FOUR)
    assert done.status == 2 or done.status == 0 and done.printed.count("step 1/4") == 1, (
        done.printed[-1500:]
    )


def test_a_batch_smaller_than_the_processes(run, tmp_path, tiny_model):
    """One process of two has nothing to do in each step: the numbers are those of one process."""
    flags = [*CFT, "--limit", 4, "--global-batch", 1]
    train_04(run, *flags, ranks=2)
    alone = workplace(tmp_path / "alone", tiny_model)
    train_04(alone, *flags)
    assert_close(run, alone)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, tiny_model):
    """A run stopped after its second step: a state stands. Copy it."""
    run = workplace(tmp_path_factory.mktemp("stopped"), tiny_model)
    assert run_04(run, *CFT, fault=partial(signals, 2, signal.SIGTERM)).status == 143
    return run


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


SPOILED = {
    "settings.json": lambda arm: cut(arm / "settings.json", 30),
    "settings.json is no object": lambda arm: (arm / "settings.json").write_text("[]"),
    "state without metadata": lambda arm: (arm / "state-000002" / ".metadata").unlink(),
    "state with torn metadata": lambda arm: cut(arm / "state-000002" / ".metadata", 100),
    "state with torn weights": lambda arm: cut(next((arm / "state-000002").glob("*.distcp")), 1000),
    "state without weights": lambda arm: next((arm / "state-000002").glob("*.distcp")).unlink(),
}


@pytest.mark.parametrize("what", SPOILED)
def test_spoiled_files_of_a_training_are_named(run, stopped, what):
    """Status 2, which folder, and how to start over; the rest stays as it was."""
    shutil.copytree(arm_of(stopped), arm_of(run))
    SPOILED[what](arm_of(run))
    before = contents(run / "04_train" / "cft" / "step-000002"), losses(run)
    done = run_04(run, *CFT)
    assert done.status == 2, done.printed[-1500:]
    message = done.printed[done.printed.index("error: ") :]
    assert (
        ("04_train/cft" if "settings" in what else "state-000002") in message
        and "mv " in message
        and "Traceback" not in message
    )
    assert (contents(run / "04_train" / "cft" / "step-000002"), losses(run)) == before


def test_lines_of_metrics_that_a_kill_tore_do_not_stop_a_resume(run, stopped, undisturbed):
    shutil.copytree(arm_of(stopped), arm_of(run))
    with open(arm_of(run) / "metrics.jsonl", "a") as f:
        f.write('{"step": 3, "loss": 5.\n\n7\n[3]\n{"step": 4, "lo')
    train_04(run, *CFT)
    assert contents(arm_of(run)) == contents(arm_of(undisturbed))


def test_a_state_of_another_architecture(run, stopped, tiny_model):
    """Where settings.json, which would have told, says the other model's content."""
    shutil.copytree(arm_of(stopped), arm_of(run))
    other = run.parent.parent / "wider"
    Qwen2ForCausalLM(
        Qwen2Config.from_pretrained(tiny_model, intermediate_size=128)
    ).save_pretrained(other)
    build_tokenizer().save_pretrained(other)
    settings = json.loads((arm_of(run) / "settings.json").read_text()) | {
        "base_id": files.model_id(other)
    }
    (arm_of(run) / "settings.json").write_text(json.dumps(settings))
    done = run_04(run, *CFT, "--model", "wider")
    assert (
        done.status == 2
        and "Size mismatch" in done.printed
        and "state-000002" in done.printed
        and "mv " in done.printed
    )


@pytest.mark.parametrize(
    "flags",
    [["--seed", 1], ["--learning-rate", 1e-3], ["--holdout", 3], ["--limit", 20], ["--epochs", 2]],
)
def test_a_state_of_other_settings(run, stopped, flags):
    """What would change the result is named, with the value that stands and the one given."""
    shutil.copytree(arm_of(stopped), arm_of(run))
    done = run_04(run, *CFT, *flags)
    assert (
        done.status == 2
        and flags[0].strip("-").replace("-", "_") in done.printed
        and "--name" in done.printed
    )
    assert standing(run) == standing(stopped)


# --- dry run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dry(tmp_path_factory, tiny_model):
    """A dry run for 2 GPUs of a base without weights.

    -> the run, what was printed, {label: figure} of the first arm.
    """
    run = workplace(
        tmp_path_factory.mktemp("dry"),
        shutil.copytree(
            tiny_model,
            tmp_path_factory.mktemp("bare") / "base",
            ignore=shutil.ignore_patterns("*.safetensors"),
        ),
    )
    before = contents(run)
    printed = train_04(
        run,
        *BOTH,
        "--dry-run",
        "--gpus",
        2,
        "--holdout",
        5,
        "--cutoff",
        60,
        "--overlong",
        "drop",
        "--epochs",
        2,
    )
    assert contents(run) == before and sorted(p.name for p in run.iterdir()) == [
        "01_base",
        "03_data",
    ]
    first = printed.split("\nsft: ")[0]
    table = dict(re.findall(r"^ +(\S.*?): (.*)$", first, re.M))
    return SimpleNamespace(printed=printed, first_line=first.splitlines()[0], table=table)


def test_dry_run_counts_rows_tokens_and_steps(dry):
    """Counted again here from the rows: 5 put aside of those that fit, twice over the rest."""
    fit, dropped = [], 0
    for prompt, completion in encode_rows(ROWS["cft"], build_tokenizer(), "chatml"):
        dropped += len(prompt) + len(completion) > 60 > len(prompt)
        fit += [(len(prompt), len(completion))] * (len(prompt) + len(completion) <= 60)
    used, _ = tokens.split_holdout(fit, 5, 0)
    assert dropped and len(fit) > 12
    facts = f"{len(used)} rows", f"{dropped} dropped: over-long", "5 held out"
    assert all(fact in dry.first_line for fact in facts)
    assert f"{2 * -(-len(used) // 7)} steps" in dry.first_line
    supervised, total = sum(c for _, c in used), sum(p + c for p, c in used)
    assert dry.table["supervised tokens"] == f"{supervised:,} of {total:,}"


def test_dry_run_says_memory_disk_flops_and_time(dry):
    """215,904 parameters: checkpoints in bfloat16, states of three float32 numbers a parameter."""
    assert dry.table["parameters"].startswith("215,904")
    assert dry.table["memory per GPU"].endswith("GiB of 80")
    assert dry.table["disk for 2 checkpoints"] == f"{2 * 2 * 215_904 / 1e9:.4g} GB"
    assert dry.table["disk for 1 training states"] == f"{12 * 215_904 / 1e9:.4g} GB"
    assert float(dry.table["FLOPs"]) > 6 * 2 * 215_904 * 500
    assert "2 x H100" in dry.table["steps"]
    minutes = [float(dry.table[label].split()[0]) for label in dry.table if "saving" in label]
    assert float(dry.table["time, estimated"].split()[0]) >= minutes[0] >= 0
    assert "\nsft: " in dry.printed  # the other training set, too


def test_dry_run_disk_is_what_is_written(run, tiny_model):
    """The bytes that the table counts, against those of the files: a checkpoint's weights and a
    state, in float32 on a CPU.
    """
    assert run_04(run, *CFT, fault=partial(signals, 3, signal.SIGTERM)).status == 143
    shape = estimate.model_shape(str(tiny_model))
    on_disk = sum(
        p.stat().st_size for p in arm_of(run).rglob("*") if p.suffix in (".safetensors", ".distcp")
    )
    sizes = estimate.disk(shape, {"checkpoints": 1, "training states": 1}, 4)
    assert sum(sizes.values()) == pytest.approx(on_disk, rel=0.1)


if __name__ == "__main__":  # a process of _torchrun
    _script(sys.argv[1:])
