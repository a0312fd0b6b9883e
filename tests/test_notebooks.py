"""Each script as a notebook, and under %run in a kernel: the files that a shell leaves."""

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

from common.core import prompts
from tests.faults import FaultServer
from tests.runs import ROOT, SMALL, STAGES, contents, n_lines, rows

pytestmark = pytest.mark.extra

# The flags of SMALL as the keywords that a reader writes into the settings cell
OVERRIDES = {
    "01_sample.py": "limit=48, base_steps=1",
    "02_critique.py": "",
    "03_build.py": "rows=24",
    "04_train.py": "global_batch=4, learning_rate=3e-3, save_every=2, state_every=3",
    "05_eval.py": "limit=8, max_new_tokens=12, batch_size=2",
}


def notebook(name, overrides):
    """The script converted by jupytext, with overrides in its call of configure()."""
    book = jupytext.read(ROOT / name, fmt="py:percent")
    call = f'configure(Config, "{name[:2]}")'
    (settings,) = [cell for cell in book.cells if cell.cell_type == "code" and call in cell.source]
    settings.source = settings.source.replace(
        call, call.replace(")", f", {overrides})" if overrides else ")")
    )
    return book


def execute(book, folder, allow_errors=False):
    """Run all cells in a kernel of their own, started in `folder`. -> the output of the code cells, as text."""
    client = nbclient.NotebookClient(
        book,
        timeout=300,
        kernel_name="python3",
        allow_errors=allow_errors,
        resources={"metadata": {"path": str(folder)}},
    )
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": "",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    client.execute(env=env)
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(
        o.get("text") or f"{o['ename']}: {o['evalue']}"
        for o in outputs
        if o.output_type in ("stream", "error")
    )


def forget(run, number):
    """Remove what a stage made (the base stands)."""
    for path in [p for p in run.glob(f"{number}*") if p.name != "01_base"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("name", STAGES)
def test_script_as_a_notebook(finished, run_copy, name):
    forget(run_copy, name[:2])
    book = notebook(name, OVERRIDES[name])
    assert book.cells[0].cell_type == "markdown" and book.cells[0].source.startswith(
        f"# {name[:2]} "
    )
    printed = execute(book, run_copy.parent.parent)
    assert "next: " in printed
    assert contents(run_copy) == contents(finished.run)
    assert (run_copy / f"{name[:2]}.run.json").exists()


def test_scripts_under_run_in_one_kernel(finished, run_copy):
    """Flags count there; what one script leaves in the kernel does not trouble the next."""
    for name in STAGES:
        forget(run_copy, name[:2])
    cells = [
        nbformat.v4.new_code_cell(" ".join(["%run", f'"{ROOT / name}"', *SMALL[name]]))
        for name in STAGES
    ]
    printed = execute(nbformat.v4.new_notebook(cells=cells), run_copy.parent.parent)
    assert printed.count("next: ") == 5
    assert contents(run_copy) == contents(finished.run)


def test_a_mistake_leaves_the_kernel_alive(finished, run_copy):
    """A shell's script ends with status 2; a kernel shows the message and goes on."""
    book = notebook("03_build.py", "limit=0")
    book.cells = [cell for cell in book.cells if "configure(" in cell.source]
    book.cells.append(
        nbformat.v4.new_code_cell(f'%run "{ROOT / "03_build.py"}" --name ../elsewhere')
    )
    after = 'config = configure(Config, "03", limit=5)\nprint(config.limit, config.rows, "alive")'
    book.cells.append(nbformat.v4.new_code_cell(after))
    printed = execute(book, run_copy.parent.parent, allow_errors=True)
    assert "InputError: --limit 0" in printed and "'../elsewhere'" in printed
    assert "5 800 alive" in printed  # the keyword, and the preset's rows
    assert rows(run_copy / "03_data" / "cft.jsonl") == rows(finished.run / "03_data" / "cft.jsonl")


def test_the_stop_button_keeps_what_was_answered_and_the_kernel(run_copy):
    """The cell ends with a message, all that was paid is in the journal, and the next %run asks for the rest only.

    A row that fails ends a script with status 3, which %run shows and passes over: 03 goes on without that row.
    """
    folder, journal = run_copy.parent.parent, run_copy / "02_journal.jsonl"
    forget(run_copy, "02")
    last = rows(run_copy / "01_responses.jsonl")[-1]
    last = prompts.teacher_critique_prompt(last["question"], last["response"])[-1]["content"]
    with FaultServer(latency=0.1) as server:
        book = notebook(
            "02_critique.py", f"base_url='{server.url}', model='m', answers=False, concurrency=2"
        )
        book.cells.insert(
            0, nbformat.v4.new_code_cell("import os; open('pid', 'w').write(str(os.getpid()))")
        )
        again = f"--base-url {server.url} --model m --no-answers"
        for script, flags in (("02_critique.py", again), ("03_build.py", "--rows 24 --arms cft")):
            book.cells.append(
                nbformat.v4.new_code_cell(
                    f'%run "{ROOT / script}" {flags}\nprint("{script} is through")'
                )
            )
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(execute, book, folder, allow_errors=True)
            while n_lines(journal) < 5:
                assert not running.done(), running.result()
                time.sleep(0.01)
            server.fault = lambda body, nth: (
                400 if body["messages"][-1]["content"] == last else None
            )
            os.kill(int((folder / "pid").read_text()), signal.SIGINT)
            printed = running.result()
    assert "Stopped: interrupted." in printed and "asks for nothing that came in" in printed
    assert (
        "1 responses have no critique, 0 questions no answer of the teacher (status 3)" in printed
    )
    assert "02_critique.py is through" in printed and "03_build.py is through" in printed
    assert (
        len(server.asked) == len({e["prompt"] for e in server.asked}) == 48 and server.paid() == 47
    )
    assert (
        len(rows(run_copy / "02_critiques.jsonl")) == 47
        and len(rows(run_copy / "03_data" / "cft.jsonl")) == 24
    )
