"""Shared by all tests: one thread, the markers, and a fresh folder to run the scripts in."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported anywhere
os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is: no test reaches the hub

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


def pytest_collection_modifyitems(items):
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture
def script(tmp_path):
    """Run one of the scripts in a folder of its own.

    script("01_sample.py", "--limit", 3) -> CompletedProcess
    """
    from tests import runs

    def run(name, *arguments, folder=tmp_path, **options):
        return runs.run_script(folder, name, *arguments, **options)

    return run


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium, if there is one and selenium can drive it."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium, or no chromedriver, here")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1280,900",
        f"user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    opened.implicitly_wait(10)
    yield opened
    opened.quit()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A randomly initialised tiny base in a Hugging Face folder; copy it before changing it."""
    from common.tiny.base import write_untrained

    folder = tmp_path_factory.mktemp("model") / "base"
    write_untrained(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_model):
    """Make a whole run of the tiny preset in miniature; copy it before changing it.

    -> folder (its working directory), run (folder/runs/tiny), printed ({script: its output}). The
    base is untrained: to pretrain one takes a minute or two and changes nothing of the plumbing.
    """
    from tests import runs

    folder = tmp_path_factory.mktemp("finished")
    run = folder / "runs" / "tiny"
    runs.make_base(run, tiny_model)
    printed = {name: runs.must_run(folder, name, *runs.SMALL[name]) for name in runs.STAGES}
    return SimpleNamespace(folder=folder, run=run, printed=printed)


@pytest.fixture
def run_copy(finished, tmp_path):
    """A copy of the finished run to change at will: tmp_path/runs/tiny."""
    shutil.copytree(finished.run, tmp_path / "runs" / "tiny")  # modification times come along
    return tmp_path / "runs" / "tiny"
