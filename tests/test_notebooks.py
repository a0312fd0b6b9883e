"""The scripts as notebooks, and under %run in a kernel, leave the files that a shell leaves."""

import os
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.core import prompts
from tests import hostile
from tests.faults import FaultServer
from tests.runs import ROOT, SMALL, STAGES, contents, n_lines, rows

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytestmark = pytest.mark.extra

# The flags of SMALL as the keywords that a reader writes into the settings cell
OVERRIDES = {
    "01_sample.py": "limit=48, base_steps=1",
    "02_critique.py": "",
    "03_build.py": "rows=24",
    "04_train.py": "global_batch=4, learning_rate=3e-3, save_every=2, state_minutes=1e-9",
    "05_eval.py": "limit=8, max_new_tokens=12, batch_size=2",
}


def notebook(name, overrides):
    """Return the script converted by jupytext, with overrides in its call of configure()."""
    book = jupytext.read(ROOT / name, fmt="py:percent")
    call = f'configure(Config, "{name[:2]}"'
    (settings,) = [cell for cell in book.cells if cell.cell_type == "code" and call in cell.source]
    if overrides:
        settings.source = settings.source.replace(call, f"{call}, {overrides}")
    return book


def code(source):
    return nbformat.v4.new_code_cell(source)


def execute(book, folder, allow_errors=False, timeout=300):
    """Run all cells in a kernel of their own, started in `folder`; return what they print."""
    client = nbclient.NotebookClient(
        book,
        timeout=timeout,
        kernel_name="python3",
        allow_errors=allow_errors,
        resources={"metadata": {"path": str(folder)}},
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": ""}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    client.execute(env=environment)
    printed = []
    for cell in book.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                printed.append(output.text)
            if output.output_type == "error":
                printed.append(f"{output.ename}: {output.evalue}")
    return "\n".join(printed)


def forget(run, number):
    """Remove all that a stage made, but not the base."""
    for path in run.glob(f"{number}*"):
        if path.name == "01_base":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def test_scripts_as_notebooks(finished, run_copy):
    """One kernel runs all five, and is emptied between them: to start one takes 9 CPU seconds."""
    cells = []
    for name in STAGES:
        forget(run_copy, name[:2])
        book = notebook(name, OVERRIDES[name])
        assert book.cells[0].cell_type == "markdown"
        assert book.cells[0].source.startswith(f"# {name[:2]} ")
        cells += [code("%reset -f"), *book.cells]
    printed = execute(nbformat.v4.new_notebook(cells=cells), run_copy.parent.parent)
    assert printed.count("next: ") == 5
    assert contents(run_copy) == contents(finished.run)


@pytest.mark.slow
def test_scripts_under_run_in_one_kernel(finished, run_copy):
    """Flags count there; what one script leaves in the kernel does not trouble the next."""
    cells = []
    for name in STAGES:
        forget(run_copy, name[:2])
        cells.append(code(" ".join(["%run", f'"{ROOT / name}"', *SMALL[name]])))
    printed = execute(nbformat.v4.new_notebook(cells=cells), run_copy.parent.parent)
    assert printed.count("next: ") == 5
    assert contents(run_copy) == contents(finished.run)


HOSTILE = """
import time
from common.grading import equivalence, grade, is_correct
from tests import hostile

equivalence.SYMBOLIC_SECONDS = 0.7
for name, text, gold in hostile.cases({marker!r}):
    began = time.process_time()
    result = grade(text, gold)
    print("graded", result.correct, time.process_time() - began, name)
print("afterwards", is_correct(r"\\boxed{{\\sqrt{{8}}}}", r"2\\sqrt{{2}}"))
"""


@pytest.mark.slow
def test_hostile_answers_in_a_kernel(tmp_path):
    """None is right, none runs code, each takes little of the kernel's CPU time."""
    marker = tmp_path / "ran"
    cell = code(HOSTILE.format(marker=str(marker)))
    printed = execute(nbformat.v4.new_notebook(cells=[cell]), tmp_path, timeout=1_800)
    graded = re.findall(r"^graded (\w+) (\S+) ", printed, re.M)
    assert len(graded) == len(hostile.cases(str(marker)))
    assert {verdict for verdict, _ in graded} == {"False"}
    assert max(float(seconds) for _, seconds in graded) < 6
    assert "afterwards True" in printed and not marker.exists()


def test_a_mistake_leaves_the_kernel_alive(finished, run_copy):
    """A shell's script ends with status 2; a kernel shows the message and goes on."""
    book = notebook("03_build.py", "limit=0")
    book.cells = [cell for cell in book.cells if "configure(" in cell.source]
    book.cells.append(code(f'%run "{ROOT / "03_build.py"}" --name ../elsewhere'))
    next_call = (
        'config = configure(Config, "03", limit=5)\nprint(config.limit, config.rows, "alive")'
    )
    book.cells.append(code(next_call))
    printed = execute(book, run_copy.parent.parent, allow_errors=True)
    assert "InputError: --limit 0" in printed and "'../elsewhere'" in printed
    assert "5 800 alive" in printed  # the keyword, and the preset's rows
    assert rows(run_copy / "03_data" / "cft.jsonl") == rows(finished.run / "03_data" / "cft.jsonl")


def test_the_stop_button_keeps_what_was_answered_and_the_kernel(run_copy):
    """The cell ends with a message, and all that was paid is in the journal.

    The next %run asks for the rest only. A row that fails ends a script with status 3, which %run
    shows and passes over: 03 goes on without that row.
    """
    folder, journal = run_copy.parent.parent, run_copy / "02_journal.jsonl"
    forget(run_copy, "02")
    last = rows(run_copy / "01_responses" / "tiny.jsonl")[-1]
    messages = prompts.teacher_critique_prompt(last["question"], last["response"])
    last_prompt = messages[-1]["content"]

    def refuse_the_last(body, nth):
        return 400 if body["messages"][-1]["content"] == last_prompt else None

    with FaultServer(latency=0.1) as server:
        overrides = f"base_url='{server.url}', model='m', answers=False, concurrency=2"
        overrides += ", ask_miniature=True"
        book = notebook("02_critique.py", overrides)
        book.cells.insert(0, code("import os; open('pid', 'w').write(str(os.getpid()))"))
        flags_02 = f"--base-url {server.url} --model m --no-answers --ask-miniature"
        for script, flags in (
            ("02_critique.py", flags_02),
            ("03_build.py", "--rows 24 --arms cft"),
        ):
            book.cells.append(code(f'%run "{ROOT / script}" {flags}\nprint("{script} is through")'))
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(execute, book, folder, allow_errors=True)
            while n_lines(journal) < 5:
                assert not running.done(), running.result()
                time.sleep(0.01)
            server.fault = refuse_the_last
            os.kill(int((folder / "pid").read_text()), signal.SIGINT)
            printed = running.result()
    assert "Stopped: " in printed and "(status 3)" in printed
    assert "02_critique.py is through" in printed and "03_build.py is through" in printed
    assert len(server.asked) == len({request["prompt"] for request in server.asked}) == 48
    assert server.paid() == 47
    assert len(rows(run_copy / "02_critiques" / "m.jsonl")) == 47
    assert len(rows(run_copy / "03_data" / "cft.jsonl")) == 24
