"""Defaults < preset < keyword overrides < flags; mistakes end with status 2."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import pytest

from common.core import config as configuration
from common.core import files
from common.core.config import configure, setting
from common.core.errors import InputError, Stopped
from common.core.presets import PRESETS
from tests.conftest import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob("0*.py"))


@dataclasses.dataclass
class Config:
    """Its settings are among those that the presets know for 04."""

    name: str | None = setting(None, "the run")
    preset: str = setting("tiny", "the preset")
    seed: int = setting(7, "100 % of the randomness")
    limit: int | None = setting(None, "rows", minimum=1)
    model: str | None = setting(None, "a model")
    arms: list[str] = setting([], "a list")
    learning_rate: float = setting(5e-6, "a number")
    global_batch: int = setting(512, "a whole number")
    tokens_per_microbatch: int = setting(16_384, "a whole number")
    save_every: int = setting(2, "a whole number")
    threads: int = setting(0, "a whole number")
    drop_bad: bool = setting(False, "a switch that is off")
    keep_bad: bool = setting(True, "a switch that is on")
    select: str = setting("random", "a choice", choices=["random", "longest"])


@pytest.fixture
def settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # a run of the reader's own would hand its preset and seed on

    def read(*flags, program="04_train.py", **overrides):
        monkeypatch.setattr(sys, "argv", [program, *flags])
        return configure(Config, "04", **overrides)

    return read


@pytest.mark.parametrize(
    "flags, overrides, rate, batch, model, seed",
    [
        ([], {}, 3e-4, 16, None, 7),
        (["--preset", "paper"], {}, 5e-6, 512, "Qwen/Qwen2.5-Math-7B", 7),
        (["--learning-rate", "1e-3", "--seed", "9"], {}, 1e-3, 16, None, 9),
        (["--preset=paper", "--learning-rate=1e-3", "--model=m"], {}, 1e-3, 512, "m", 7),
        ([], {"preset": "paper"}, 5e-6, 512, "Qwen/Qwen2.5-Math-7B", 7),
        ([], {"preset": "paper", "learning_rate": 0.5}, 0.5, 512, "Qwen/Qwen2.5-Math-7B", 7),
        (
            ["--preset", "paper", "--seed", "3"],
            {"preset": "tiny", "global_batch": 1},
            5e-6,
            1,
            "Qwen/Qwen2.5-Math-7B",
            3,
        ),
    ],
)
def test_a_default_gives_way_to_the_preset_and_that_to_flags_and_overrides(
    settings, flags, overrides, rate, batch, model, seed
):
    """For 04 tiny sets rate 3e-4 and batch 16, paper only a model; the rest are Config's own."""
    config = settings(*flags, **overrides)
    assert (config.learning_rate, config.global_batch, config.model, config.seed) == (
        rate,
        batch,
        model,
        seed,
    )


def test_the_run_is_called_as_the_preset_unless_it_is_named(settings):
    assert [
        settings().name,
        settings("--preset", "paper").name,
        settings("--name", "mine").name,
        settings(name="x").name,
    ] == ["tiny", "paper", "mine", "x"]


def test_lists_and_switches(settings):
    config = settings("--arms", "cft", "sft", "--drop-bad", "--keep-bad")
    assert (config.arms, config.drop_bad, config.keep_bad) == (["cft", "sft"], True, True)
    assert (settings().drop_bad, settings().keep_bad) == (False, True)
    assert settings("--no-keep-bad").keep_bad is False


def test_a_list_is_not_shared_between_two_configs(settings):
    settings().arms.append("cft")
    assert settings().arms == [] and settings("--preset", "paper").arms == []


@pytest.mark.parametrize("program", ["/x/ipykernel_launcher.py", "/x/colab_kernel_launcher.py"])
def test_a_notebook_kernels_own_arguments_are_ignored(settings, program):
    config = settings(
        "-f", "/x/kernel-1.json", "--HistoryManager.hist_file=:memory:", program=program, seed=5
    )
    assert (config.seed, config.preset) == (5, "tiny")


@pytest.mark.parametrize(
    "flags, overrides, says",
    [
        (["--preset", "papr"], {}, r"unknown preset 'papr'.*tiny, paper"),
        ([], {"preset": "7b"}, "unknown preset '7b'"),
        (["--name", "../other"], {}, "not a plain name"),
        (["--name", "/tmp/x"], {}, "not a plain name"),
        (["--name", ""], {}, "not a plain name"),  # --name "$RUN" of a shell without RUN
        ([], {"name": ""}, "not a plain name"),
        ([], {"name": "a/b"}, "not a plain name"),
        (["--limit", "0"], {}, "--limit 0"),
        (["--limit", "-3"], {}, "--limit -3"),
        ([], {"limit": 0}, "--limit 0"),
    ],
)
def test_mistakes_are_input_errors(settings, flags, overrides, says):
    with pytest.raises(InputError, match=says):
        settings(*flags, **overrides)


def test_a_keyword_that_is_no_setting_is_named(settings):
    with pytest.raises(TypeError, match="learning_rte"):
        settings(learning_rte=1)


def test_a_run_keeps_the_preset_and_seed_that_01_gave_it(settings, tmp_path):
    """Else a forgotten flag would build, train or score something else than was sampled."""
    manifest = {"finished": "2026-01-01", "config": {"preset": "paper", "seed": 5, "rows": 3}}
    files.write_json(tmp_path / "runs" / "mine" / "01_responses" / "a.run.json", manifest)
    inherited = settings("--name", "mine")
    assert (inherited.preset, inherited.seed) == ("paper", 5)
    changed = settings("--name", "mine", "--preset", "tiny", "--seed", "6")
    assert (changed.preset, changed.seed) == ("tiny", 6)
    assert settings("--name", "other").preset == "tiny"


def test_a_run_of_the_old_layout_is_refused_by_every_script(settings, tmp_path):
    files.write_json(tmp_path / "runs" / "mine" / "01.run.json", {"commit": "6aaaad3"})
    with pytest.raises(InputError, match="6aaaad3.*\n.*--name"):
        settings("--name", "mine")
    assert settings("--name", "other").name == "other"


@pytest.mark.parametrize(
    "flags",
    [
        ["--nme", "x"],
        ["--nam", "x"],
        ["--learning", "1"],
        ["--pre", "paper"],
        ["extra"],
        ["--seed", "one"],
        ["--seed", "1.5"],
        ["--select", "best"],
        ["--seed"],
        ["--limit", "None"],
    ],
    ids=" ".join,
)
def test_a_wrong_flag_stops_and_is_named(settings, capsys, flags):
    """Status 2, by argparse or as an InputError, never another error."""
    with pytest.raises((SystemExit, InputError)) as caught:
        settings(*flags)
    assert caught.type is InputError or caught.value.code == 2
    assert flags[0].lstrip("-") in str(caught.value) + capsys.readouterr().err


def test_a_mistake_ends_a_script_with_status_2_and_no_traceback(script):
    result = script("03_build.py", "--preset", "7b")
    assert result.returncode == 2 and "tiny, paper" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "error, status",
    [(InputError("no rows"), 2), (Stopped("disk", 5), 5), (KeyboardInterrupt(), 130)],
    ids=repr,
)
def test_the_error_decides_the_status(settings, monkeypatch, capfd, error, status):
    """configure() has hooked itself in; os._exit is what ends the process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    statuses = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    settings()
    sys.excepthook(type(error), error, None)
    assert statuses == [status] and f"error: {error}" in capfd.readouterr().err


def test_another_error_keeps_its_traceback(settings, monkeypatch, capfd):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    settings()
    try:
        raise KeyError("x")
    except KeyError as error:
        sys.excepthook(KeyError, error, error.__traceback__)
    text = capfd.readouterr().err
    assert "Traceback" in text and "KeyError: 'x'" in text


# --- one setting ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Ranges:
    name: str | None = setting(None, "the run")
    preset: str = setting("tiny", "the preset", group="data")
    share: float | None = setting(
        None, "100 % of it", minimum=0, maximum=1, group="what you will use"
    )
    count: int = setting(4, "a count", minimum=1, group="training")
    degrees: float = setting(20.5, "a temperature", minimum=-100, maximum=50, group="training")
    words: list[str] = setting(["a", "b"], "a list", group="training")
    switch: bool = setting(False, "a switch", group="training")
    chosen: str = setting("x", "a choice (default: what is best)", choices=["x", "y"])


@pytest.fixture
def ranges(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def read(*flags):
        monkeypatch.setattr(sys, "argv", ["04_train.py", *flags])
        return configure(Ranges, "04")

    monkeypatch.setitem(PRESETS, "tiny", {"04": {"count": 2}})
    return read


def test_a_range_holds_its_ends(ranges):
    assert (ranges("--share", "0").share, ranges("--share", "1").share) == (0, 1)
    assert ranges("--degrees", "-40").degrees == -40 and ranges().share is None
    for flags, expected in {
        ("--share", "-0.1"): "0 to 1",
        ("--share", "1.1"): "0 to 1",
        ("--share", "nan"): "0 to 1",
        ("--count", "0"): "1 or more",
        ("--degrees", "50.5"): "-100 to 50",
    }.items():
        with pytest.raises(InputError, match=rf"^{flags[0]} .*: expected {expected}"):
            ranges(*flags)


def test_none_is_a_value_of_an_optional_number(ranges):
    """Of no other: a count has to be one."""
    assert ranges("--share", "0.5").share == 0.5 and ranges("--share", "none").share is None
    for flags in (["--count", "none"], ["--share", "None"], ["--share", "x"]):
        with pytest.raises(SystemExit) as end:
            ranges(*flags)
        assert end.value.code == 2


def test_a_name_that_was_given_is_known(ranges):
    """Not from the settings, which a manifest holds."""
    for flags, is_named in (([], False), (["--name", "tiny"], True)):
        config = ranges(*flags)
        assert config.is_named == is_named and config.name == "tiny"
        assert "is_named" not in vars(config)


def test_extra_fields_are_a_json_object_without_those_of_the_kit():
    assert configuration.parse_extra_body("") == {}
    assert configuration.parse_extra_body('{"a": {"b": [1, null]}}') == {"a": {"b": [1, None]}}
    bad = ["x", "[]", "[[1]]", "1", '"a"', "null", "{'a': 1}", "[" * 100_000]
    for text in [*bad, *(json.dumps({name: 1}) for name in configuration.OWN_FIELDS)]:
        with pytest.raises(InputError, match="--extra-body"):
            configuration.parse_extra_body(text)


def test_help_shows_groups_ranges_and_one_default(ranges, capsys):
    """In the order of GROUPS; the preset's value is the default."""
    with pytest.raises(SystemExit):
        ranges("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert text.index("what you will use: --name") < text.index(" data: --preset")
    assert text.index(" data: --preset") < text.index(" training: --count")
    assert "100 % of it (0 to 1)" in text and "a count (1 or more; default: 2)" in text
    assert "a temperature (-100 to 50; default: 20.5)" in text and "(default: ['a', 'b'])" in text
    assert "a switch (default: False)" in text and text.count("default: what is best") == 1
    assert "default: x" not in text


# --- the five scripts ----------------------------------------------------------------------------


@functools.cache
def config_of(name):
    """The Config of a script: only what stands before it reads its settings is executed."""
    source = (ROOT / name).read_text(encoding="utf-8").split("config = configure(")[0]
    space = {"__name__": "settings_cell"}
    exec(compile(source, name, "exec"), space)
    return space["Config"]


def fields_of(name):
    return {field.name: field for field in dataclasses.fields(config_of(name))}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_preset_sets_only_what_the_script_has(name, preset):
    """argparse takes a default of an unknown flag silently: a typing error would go unseen."""
    fields = fields_of(name)
    for setting_name, value in PRESETS[preset].get(name[:2], {}).items():
        assert setting_name in fields, f"{preset}, {name}: no setting {setting_name}"
        field = fields[setting_name]
        default = field.default_factory() if field.default is dataclasses.MISSING else field.default
        assert default is None or isinstance(value, type(default)), (
            f"{preset}, {name}: {setting_name}={value!r}"
        )


def test_presets_are_for_the_scripts_that_exist():
    assert len(SCRIPTS) == 5 and all(
        set(stages) <= {name[:2] for name in SCRIPTS} for stages in PRESETS.values()
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_all_scripts_take_the_common_flags(name):
    assert {"name", "preset", "seed", "limit"} <= set(fields_of(name))


RANGES = {  # in every script that has the setting
    "concurrency": "1 or more",
    "timeout": "1 or more",
    "budget": "0 or more",
    "price_in": "0 or more",
    "price_out": "0 or more",
    "retries": "0 or more",
    "max_bad_share": "0 to 1",
    "temperature": "0 or more",
    "top_p": "0 to 1",
    "max_new_tokens": "1 or more",
    "samples": "1 or more",
    "rows": "1 or more",
    "wrong_share": "0 to 1",
    "max_tokens": "1 or more",
    "warmup_ratio": "0 to 1",
    "global_batch": "1 or more",
    "cutoff": "1 or more",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_number_out_of_its_range_is_refused(monkeypatch, tmp_path, script):
    """As a flag or a keyword: a timeout of 0 or a NaN budget would fail late, or never."""
    monkeypatch.chdir(tmp_path)
    numeric = (int, float, int | None, float | None)
    for name, field in fields_of(script).items():
        if field.type not in numeric:
            continue
        expected = configuration._range(field.metadata)
        assert expected and RANGES.get(name, expected) == expected, name
        minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
        flag = f"--{name.replace('_', '-')}"
        outside = [minimum - 1, maximum + 1] if maximum < float("inf") else [minimum - 1]
        if "float" in str(field.type):
            outside.append(float("nan"))
        for value in outside:
            for flags, overrides in (([f"{flag}={value}"], {}), ([], {name: value})):
                monkeypatch.setattr(sys, "argv", [script, *flags])
                with pytest.raises(InputError, match=rf"^{flag} {value}.*expected {expected}"):
                    configure(config_of(script), script[:2], **overrides)
        monkeypatch.setattr(sys, "argv", [script, flag, str(minimum)])
        assert getattr(configure(config_of(script), script[:2]), name) == minimum


@pytest.fixture(scope="module")
def helps():
    """{script: [exit status, its --help, is torch loaded]}, all from one process."""
    code = """
import contextlib, io, json, runpy, sys
helps = {}
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            runpy.run_path(name, run_name="__main__")
        except SystemExit as end:
            helps[name] = [end.code, text.getvalue(), "torch" in sys.modules]
print(json.dumps(helps))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *SCRIPTS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_documents_every_setting_and_does_not_load_torch(name, helps):
    """torch takes seconds to import. White space is left out: argparse wraps lines."""
    status, text, torch_loaded = helps[name]
    text = "".join(text.split())
    assert status == 0 and not torch_loaded
    for field in fields_of(name).values():
        described = "".join(field.metadata["help"].split())
        assert f"--{field.name.replace('_', '-')}" in text and described in text, field.name
