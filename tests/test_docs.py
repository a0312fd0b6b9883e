"""Every command of README and docs is one that its script takes; links lead to files that exist."""

import ast
import json
import re
import shlex
import sys
from datetime import date
from pathlib import Path

import pytest

from common.core.config import configure
from common.core.errors import InputError
from common.data import sources, test_sets, training_sets
from common.generate import prices

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPT = re.compile(r"(0[1-5])_\w+\.py$")


def shell_commands(text):
    """Return the words of each command that starts one of the scripts, in the page's shell blocks.

    >>> shell_commands("```bash\\npython 01_sample.py --limit 3  # few\\n```")
    [['01_sample.py', '--limit', '3']]
    """
    commands = []
    for block in re.findall(r"```(?:bash|powershell)\n(.*?)```", text, flags=re.DOTALL):
        block = block.replace("\\\n", " ")
        for part in re.split(r"\n|&&|;", block):
            words = shlex.split(part, comments=True)
            starts = [i for i, word in enumerate(words) if SCRIPT.search(word)]
            if starts:
                commands.append(words[starts[0] :])
    return commands


def settings_of(script):
    """Return the Config class of a script, without running the rest of it."""
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    is_class = [isinstance(node, ast.ClassDef) for node in tree.body]
    cell = tree.body[: is_class.index(True) + 1]  # constants of the settings cell come along
    names = {}
    exec(compile(ast.Module(cell, []), script, "exec"), names)
    return names["Config"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_that_its_script_takes(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = []
    for script, *arguments in shell_commands(page.read_text(encoding="utf-8")):
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        try:
            configure(settings_of(script), SCRIPT.search(script)[1])
        except (InputError, SystemExit) as error:
            refused.append(f"{script} {shlex.join(arguments)}: {error}")
    assert not refused, "\n".join(refused)


def test_no_command_names_a_model_that_is_shut_down():
    """As of the day on which the paper's teachers go; docstrings and error texts count, too."""
    assert prices.look_up("gpt-4o-2024-11-20")[1] == date(2027, 1, 14)
    files = [*PAGES, *ROOT.glob("0*.py"), *(ROOT / "common").rglob("*.py")]
    for path in files:
        for model in re.findall(r"--model[ =](\S+)", path.read_text(encoding="utf-8")):
            day = prices.look_up(model.strip("`'\",.)"))[1]
            assert day is None or day > date(2027, 1, 14), (path, model)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "common" / "README.md"], ids=lambda page: str(page)
)
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_every_file_of_common_has_a_line_in_its_readme():
    page = (ROOT / "common" / "README.md").read_text(encoding="utf-8")
    files = [path.name for path in (ROOT / "common").rglob("*.py") if path.name != "__init__.py"]
    assert not [name for name in files if f"`{name}`" not in page]


def test_the_rows_of_contributing_are_rows_of_the_tables():
    """Each example makes a row of its table: Python with the names of its file, or JSON."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = vars(test_sets) | vars(training_sets)
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        definitions, _, row = block.rpartition("\n\n\n")
        exec(definitions, names)
        (made,) = eval("{" + row + "}", names).values()
        assert isinstance(made, test_sets.TestSet | training_sets.TrainingSet)
    (row,) = re.findall(r"```json\n(.*),\n```", text)
    (made,) = json.loads("{" + row + "}").values()
    assert sources.Dataset(**made).path == "ORG/MYDATA"
