"""Imports point down: scripts -> packages of a chapter -> core; other reads are named here."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Which packages, or single modules of them, each package may read besides itself.
MAY_READ = {
    "core": set(),
    "grading": {"core"},
    "ifeval": {"core"},
    "train": {"core"},
    "teacher": {"core"},
    "data": {"core", "grading", "ifeval", "tiny.world"},
    "generate": {"core", "train"},
    "evaluate": {
        "core",
        "grading",
        "ifeval",
        "generate",
        "train",
        "data.test_sets",
        "data.decontamination",
        "tiny.mistakes",
    },
    "tiny": {"core", "grading", "generate", "train"},
}


def imported(path):
    """Return the modules of common/ that a file imports, such as core.files."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "common":
            base = node.module.removeprefix("common").lstrip(".")
            names = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            modules |= {base} if base.count(".") else names
    return modules


def test_packages_read_only_what_lies_below_them():
    wrong = []
    for path in sorted((ROOT / "common").rglob("*.py")):
        package = path.relative_to(ROOT / "common").parts[0]
        if package not in MAY_READ:
            continue
        allowed = MAY_READ[package] | {package}
        for module in sorted(imported(path)):
            if not {module, module.split(".")[0], ".".join(module.split(".")[:2])} & allowed:
                wrong.append(f"{path.relative_to(ROOT)} reads common.{module}")
    assert not wrong, "\n".join(wrong)


def test_modules_do_not_read_each_other_in_a_circle():
    graph = {}
    for path in sorted((ROOT / "common").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "common").with_suffix("").parts)
        graph[name] = imported(path)
    done, circles = set(), []

    def visit(name, trail):
        if name in trail:
            circles.append(" -> ".join([*trail[trail.index(name) :], name]))
        elif name in graph and name not in done:
            for module in graph[name]:
                visit(module, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    assert not circles, "\n".join(circles)
