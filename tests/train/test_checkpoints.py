"""What 04 leaves on disk: which checkpoints stand, that each is the weights of its step, and that
no kill, signal or full disk leaves half of one under its name.

Runs are started as in tests.train.test_loop: real processes, with faults at exact moments.
"""

import errno
import os
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from common.tiny.base import build_tokenizer
from common.train import adapters, checkpoints, tokens
from common.train.loop import adamw, training_steps
from common.train.model import load as load_model
from tests.runs import contents, n_lines, tensors
from tests.train.test_loop import (
    BOTH,
    CFT,
    CPU,
    GOES_ON,
    ROWS,
    arm_of,
    file_limit,
    losses,
    run_04,
    signals,
    standing,
    train_04,
    weights,
    workplace,
)

PARAMETERS = 215_904  # of the tiny base
SAVED_ON_THE_WAY = [*CFT, "--state-minutes", 1e-9]  # after each step


@pytest.fixture
def run(tmp_path, tiny_model):
    return workplace(tmp_path, tiny_model)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model):
    """One arm of four steps, checkpoints after 2 and 4; look, do not touch."""
    run = workplace(tmp_path_factory.mktemp("undisturbed"), tiny_model)
    train_04(run, *CFT)
    return run


def steps(run, arm="cft"):
    return [
        int(name.removeprefix("step-"))
        for name in standing(run, arm)
        if name.startswith("step-") and name[-1].isdigit()
    ]


def assert_whole(run):
    """Each checkpoint that bears its name loads, with all of its files and finite weights."""
    for step in steps(run):
        folder = arm_of(run) / f"step-{step:06d}"
        assert {p.name for p in folder.iterdir()} == {
            "config.json",
            "model.safetensors",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        }, folder
        assert all(t.isfinite().all() for t in load_file(folder / "model.safetensors").values())


def assert_goes_on(run, undisturbed, *arguments):
    """The same command without the fault leaves what nobody disturbed."""
    assert_whole(run)
    train_04(run, *arguments)
    assert contents(arm_of(run)) == contents(arm_of(undisturbed)) and standing(run) == standing(
        undisturbed
    )


# --- faults ---------------------------------------------------------------------------------------


def when_appearing(name, act):
    """Just before a folder gets its final name, all of it written."""
    whole = checkpoints.publish

    def publish(part, folder):
        if folder.name == name:
            act(folder)
        whole(part, folder)

    checkpoints.publish = adapters.publish = publish


def killed(folder, once=None):
    """kill -9, where `once` is given as soon as that file or folder stands beside (a second, if it
    does not come).
    """
    until = time.monotonic() + 1
    while once and not (folder.parent / once).exists() and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)


def full(folder, once):
    until = time.monotonic() + 1
    while not (folder.parent / once).exists() and time.monotonic() < until:
        time.sleep(0.005)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def terminated(folder):
    """SIGTERM, and some time in which it can be heeded."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)


def killed_while_removing(name):
    """kill -9 when that folder has lost its weights, but not yet itself."""
    whole = shutil.rmtree

    def rmtree(path, *arguments, **options):
        if Path(path).name.startswith(name) and Path(path).exists():  # or what it was renamed to
            (Path(path) / "model.safetensors").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(path, *arguments, **options)

    shutil.rmtree = rmtree


def free_disk(size):
    whole = shutil.disk_usage
    shutil.disk_usage = lambda path: whole(path)._replace(free=size)


def all_of(*faults):
    for fault in faults:
        fault()


# --- which checkpoints stand ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--save-every", 0], [4]),
        (["--save-every", 1, "--keep-last", 2], [3, 4]),
        (["--save-every", 3, "--keep-last", 1], [4]),
        (["--save-every", 4, "--epochs", 2], [4, 8]),
    ],
)
def test_checkpoints_that_stand_at_the_end(run, flags, expected):
    train_04(run, *CFT, *flags)
    assert steps(run) == expected
    assert_whole(run)


# --- a checkpoint is the weights of its step ------------------------------------------------------


def saver_in(folder, model, optimizer, n_steps, dtype=torch.float32):
    """Return a Saver of a training of so many steps whose checkpoints go to `folder`."""
    training = SimpleNamespace(
        plan=range(n_steps), folder=folder, checkpoint=lambda step: folder / f"step-{step:06d}"
    )
    return checkpoints.Saver(model, optimizer, training, build_tokenizer(), "chatml", dtype)


def test_a_checkpoint_written_late_holds_the_weights_of_its_step(tiny_model, tmp_path, monkeypatch):
    """Written only after the last step, it equals one for which the training waited."""
    tokenizer = build_tokenizer()
    examples, _ = tokens.examples(ROWS["cft"], tokenizer, "chatml", 512)
    plan = tokens.batch_plan([len(e["input_ids"]) for e in examples], 7, 1, 0, 1, 2048)
    model, over = load_model(str(tiny_model), CPU), threading.Event()
    optimizer, write = adamw(model), checkpoints.write

    def write_late(*arguments):
        assert over.wait(60)
        write(*arguments)

    saver = saver_in(tmp_path, model, optimizer, n_steps=9)
    for update in training_steps(model, optimizer, examples, plan, 1e-2):
        if update.step == 2:
            checkpoints.save(model, tokenizer, "chatml", tmp_path / "now", torch.float32)
            monkeypatch.setattr(checkpoints, "write", write_late)
            saver.write_checkpoint(2)
            monkeypatch.undo()
    over.set()
    saver.wait()
    checkpoints.save(model, tokenizer, "chatml", tmp_path / "end", torch.float32)
    now, late, end = (contents(tmp_path / name) for name in ("now", "step-000002", "end"))
    assert now == late != end


def test_writing_in_the_background_changes_nothing_that_is_computed(tmp_path):
    """transformers makes an empty model under another default dtype, which is the whole process's.

    A tensor made in the meantime by the training would be bfloat16, too, and two processes would
    then sum different types. 24 layers take a while.
    """
    tokenizer = build_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=24,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    model, types = load_model(str(tmp_path / "base"), CPU), set()
    saver = saver_in(tmp_path, model, None, n_steps=9, dtype=torch.bfloat16)
    saver.write_checkpoint(1)
    while not (tmp_path / "step-000001").exists():
        tensor = torch.zeros(())
        types.add((tensor.dtype, tensor.device.type))
    saver.wait()
    assert types == {(torch.float32, "cpu")}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "step-000001").dtype == torch.bfloat16


def test_one_copy_of_the_weights_at_most_is_in_memory(tiny_model, tmp_path, monkeypatch):
    """The dry run promises as much; two of a 7B model would be 30 GB.

    The second checkpoint takes the memory of the first, once that is written.
    """
    model, whole, copies = load_model(str(tiny_model), CPU), checkpoints.write, []

    def write_slowly(configuration, weights, *arguments):
        copies.append({name: tensor.data_ptr() for name, tensor in weights.items()})
        time.sleep(0.3)
        whole(configuration, weights, *arguments)

    monkeypatch.setattr(checkpoints, "write", write_slowly)
    saver = saver_in(tmp_path, model, None, n_steps=2)
    for step in (1, 2):
        saver.write_checkpoint(step)
        with torch.no_grad():
            model.get_input_embeddings().weight += 1
    assert copies[0] == copies[1] and len(copies) == 2
    first, second = (
        load_file(tmp_path / f"step-00000{step}" / "model.safetensors") for step in (1, 2)
    )
    name = "model.embed_tokens.weight"
    torch.testing.assert_close(second[name], first[name] + 1)


def test_a_state_is_due_after_so_many_minutes(tiny_model, tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=50.0)
    monkeypatch.setattr(checkpoints, "time", clock)
    monkeypatch.setattr(checkpoints, "save_state", lambda *_: None)
    training = SimpleNamespace(folder=tmp_path)
    saver = checkpoints.Saver(
        load_model(str(tiny_model), CPU), None, training, None, "", torch.float32, state_minutes=20
    )
    due = []
    for clock.now in (50.0, 50 + 1199, 50 + 1200):
        due.append(saver.state_is_due())
    saver.save_state(7)
    for clock.now in (50 + 1200 + 1199, 50 + 2400):
        due.append(saver.state_is_due())
    assert due == [False, False, True, False, True]
    saver.state_minutes = 0
    assert not saver.state_is_due()


@pytest.mark.slow
def test_adapters_are_resumed_and_merged(tmp_path, tiny_model):
    """Stopped after step 2 and killed in the merge: the checkpoints and the merged model are those
    of an undisturbed run.
    """
    lora = [*CFT, "--method", "lora", "--lora-rank", 4, "--learning-rate", 1e-2]
    once, again = (workplace(tmp_path / name, tiny_model) for name in ("once", "again"))
    train_04(once, *lora)
    assert run_04(again, *lora, fault=partial(signals, 2, signal.SIGTERM)).status == 143
    assert (
        run_04(again, *lora, fault=partial(when_appearing, "merged", killed)).status
        == -signal.SIGKILL
    )
    assert "step-000004 exists, nothing to do" in train_04(again, *lora)
    assert losses(once) == losses(again) and standing(once) == standing(again)
    for name in (
        "step-000002/adapter_model.safetensors",
        "step-000004/adapter_model.safetensors",
        "step-000004/merged/model.safetensors",
    ):
        assert tensors(arm_of(once) / name) == tensors(arm_of(again) / name)
    assert not list(arm_of(again).rglob("*.part"))


# --- kills ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("step-000002", "step-000002.part"),
        ("state-000002", "state.part"),
        ("step-000004", "step-000004.part"),
    ],
)
def test_killed_before_the_last_move(run, undisturbed, name, left):
    """All is written but the name."""
    assert (
        run_04(run, *SAVED_ON_THE_WAY, fault=partial(when_appearing, name, killed)).status
        == -signal.SIGKILL
    )
    assert left in standing(run) and name not in standing(run)
    assert_goes_on(run, undisturbed, *SAVED_ON_THE_WAY)


def test_a_checkpoint_and_a_state_of_the_same_step(run, undisturbed):
    """The state stands before the checkpoint does.

    Killed in between, the run has to write that checkpoint still.
    """
    fault = partial(when_appearing, "step-000002", partial(killed, once="state-000002"))
    assert run_04(run, *SAVED_ON_THE_WAY, fault=fault).status == -signal.SIGKILL
    assert_goes_on(run, undisturbed, *SAVED_ON_THE_WAY)


@pytest.mark.slow
def test_a_checkpoint_that_failed_is_written_by_the_next_start(run, undisturbed):
    """The disk is full for the checkpoint of step 2, while the state of step 2 found room."""
    stopped = run_04(
        run,
        *SAVED_ON_THE_WAY,
        fault=partial(when_appearing, "step-000002", partial(full, once="state-000002")),
    )
    assert stopped.status == 5 and "No space left" in stopped.printed and 2 not in steps(run)
    assert_goes_on(run, undisturbed, *SAVED_ON_THE_WAY)


def test_killed_while_an_old_checkpoint_is_removed(run):
    """Half of a folder must not stand under the name of a checkpoint, not even of one that was to
    go.
    """
    command = [*CFT, "--keep-last", 1]
    assert (
        run_04(run, *command, fault=partial(killed_while_removing, "step-000002")).status
        == -signal.SIGKILL
    )
    assert 4 in steps(run)
    train_04(run, *command)
    assert steps(run) == [4]


# --- signals --------------------------------------------------------------------------------------


def slow_write(lines, seconds):
    """A checkpoint is written once the metrics have so many lines, and then for so long."""
    whole = checkpoints.write

    def write(configuration, taken, tokenizer, template, folder, *more):
        until = time.monotonic() + 10
        while n_lines(folder.parent / "metrics.jsonl") < lines and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(seconds)
        whole(configuration, taken, tokenizer, template, folder, *more)

    checkpoints.write = write


def test_a_signal_while_a_checkpoint_is_written(run, undisturbed):
    """The checkpoint of step 2 is still being written when the run stops after step 3: it is waited
    for.
    """
    stopped = run_04(
        run,
        *CFT,
        fault=partial(all_of, partial(slow_write, 3, 0.5), partial(signals, 3, signal.SIGTERM)),
    )
    assert stopped.status == 143 and GOES_ON in stopped.printed
    assert standing(run) == [
        "loss.png",
        "metrics.jsonl",
        "settings.json",
        "state-000003",
        "step-000002",
        "trained_on.jsonl",
    ]
    assert weights(run, 2)["model.norm.weight"].equal(weights(undisturbed, 2)["model.norm.weight"])
    assert_goes_on(run, undisturbed, *CFT)


def test_a_signal_while_the_last_checkpoint_is_written(run, undisturbed):
    """Training is over, and with --state-minutes 0 nothing else holds its result: it is written
    before the run ends.
    """
    stopped = run_04(run, *BOTH, fault=partial(when_appearing, "step-000004", terminated))
    assert stopped.status in (143, -signal.SIGTERM) and not arm_of(run, "sft").exists()
    assert_whole(run)
    assert 4 in steps(run), "the training is lost"
    assert contents(arm_of(run)) == contents(arm_of(undisturbed))


# --- full disks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "limit", "flags"),
    [
        ("loss.png", 10_000, ["--save-every", 0]),
        ("step-000002", 500_000, []),
        ("state-000001", 1_500_000, ["--save-every", 0, "--state-minutes", 1e-9]),
    ],
)
def test_a_file_that_cannot_be_written(run, undisturbed, what, limit, flags):
    """Weights take 0.86 MB here, a state 2.6.

    Status 5, what could not be written and why, and nothing half under a final name.
    """
    stopped = run_04(run, *CFT, *flags, fault=partial(file_limit, limit))
    assert stopped.status == 5, stopped.printed[-1500:]
    message = stopped.printed[stopped.printed.index("error: ") :]
    assert (
        what in message
        and "File too large" in message
        and "Make room" in message
        and "Traceback" not in message
    ), message
    assert what not in standing(run)
    assert_goes_on(run, undisturbed, *CFT)


@pytest.mark.slow
def test_metrics_that_cannot_be_written(run):
    """Some 380 bytes a step; what is printed, a file here, takes less."""
    command = [*CFT, "--epochs", 3, "--save-every", 0]
    stopped = run_04(run, *command, fault=partial(file_limit, 3000))
    assert (
        stopped.status == 5
        and "metrics.jsonl cannot be written" in stopped.printed
        and "File too large" in stopped.printed
    ), stopped.printed
    train_04(run, *command)
    assert losses(run, what="step") == list(range(1, 13))


def test_a_full_disk_ends_two_processes(run):
    """Process 0 writes, and the other must not wait for it for ever."""
    stopped = run_04(run, *CFT, ranks=2, fault=partial(file_limit, 500_000))
    assert 5 in stopped.status and all(stopped.status), stopped.all[-1500:]
    assert steps(run) == []


@pytest.mark.parametrize(("free", "status"), [(2 * 4 + 2 * 12 - 1, 5), (2 * 4 + 2 * 12 + 1, 0)])
def test_the_disk_is_checked_before_the_first_step(run, free, status):
    """Two checkpoints, and two states at a time, of an arm of float32 numbers (bytes are counted
    per parameter here).
    """
    done = run_04(run, *SAVED_ON_THE_WAY, fault=partial(free_disk, free * PARAMETERS))
    assert done.status == status
    if status:
        assert (
            "0.007 GB" in done.printed
            and "--save-every" in done.printed
            and "step 1/" not in done.printed
        )
        assert not (run / "04_train").exists() and sorted(p.name for p in run.iterdir()) == [
            "01_base",
            "03_data",
        ]


def test_states_of_two_arms_never_stand_together(run):
    """Two arms need room for all four checkpoints, but only one arm has states at any time; a run
    that fits is not refused.
    """
    train_04(
        run,
        *BOTH,
        "--state-minutes",
        1e-9,
        fault=partial(free_disk, (4 * 4 + 2 * 12 + 2) * PARAMETERS),
    )
    assert steps(run, "cft") == steps(run, "sft") == [2, 4]
