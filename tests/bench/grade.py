"""Strict grading against math-verify: answers per CPU second and agreement with labels.

    python -m tests.bench.grade [--cases FILE]

The cases are the whole outputs of tests/cases/outputs.jsonl (fields output, gold, correct), or of a
labelled file with the fields pred, gold, expected, kind, source and tag. Of such a file it takes
kind "extract", neither derived by a rule nor disputed.

Each grader runs in a process of its own, three times in turn. CPU seconds are those of the process
and of all its workers, with imports and without. math-verify is called as its README says:
verify(parse(gold), parse(output)).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).resolve().parents[1] / "cases/outputs.jsonl"
ROUNDS = 3


def cpu() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def ours(cases):
    from common import grading
    from common.grading import sympy_worker

    grading.is_correct(r"\\boxed{x+1}", "1+x")  # starts a worker
    start = cpu() + cpu_of(sympy_worker.workers)
    results = grading.grade_many(*zip(*cases))
    seconds = cpu() + cpu_of(sympy_worker.workers) - start
    for worker in sympy_worker.workers:
        worker.stop()  # a process that has ended counts among the children
    return [result.correct for result in results], seconds


def cpu_of(workers) -> float:
    """CPU seconds of workers that have not ended."""
    ticks = 0
    for worker in workers:
        if worker.process:
            fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def math_verify(cases):
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    verify(parse("$x+1$"), parse("$1+x$"))
    start, verdicts = cpu(), []
    for text, gold in cases:
        if "$" not in gold and "boxed" not in gold:
            gold = f"${gold}$"
        try:
            verdicts.append(bool(verify(parse(gold), parse(text))))
        except Exception:  # it raises on a few inputs
            verdicts.append(False)
    return verdicts, cpu() - start


GRADERS = {function.__name__: function for function in (ours, math_verify)}


def read(path):
    """[((output, gold), label)] of a file of cases."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    if "output" in rows[0]:
        rows = [row for row in rows if not row.get("choices")]
        return [((row["output"], row["gold"]), row["correct"]) for row in rows]
    return [
        ((row["pred"], row["gold"]), row["expected"])
        for row in rows
        if row["kind"] == "extract"
        and row["source"] != "derived"
        and not row["tag"].startswith("disputed")
    ]


def run(name, path):
    command = [sys.executable, "-m", "tests.bench.grade", "--cases", str(path), "--grader", name]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout)


def main(path):
    labels = [label for _, label in read(path)]
    runs = {name: [] for name in GRADERS}
    for _ in range(ROUNDS):
        for name in GRADERS:
            runs[name].append(run(name, path))
    print(f"{len(labels)} outputs, {ROUNDS} runs of each grader in turn")
    columns = ("agreement", "wrong taken", "right lost", "per CPU s", "with imports")
    print(f"{'':<14}" + "".join(f"{column:>14}" for column in columns))
    speeds = {}
    for name, results in runs.items():
        pairs = list(zip(results[0]["verdicts"], labels))
        agreement = sum(verdict == label for verdict, label in pairs) / len(pairs)
        accepted = sum(verdict and not label for verdict, label in pairs)
        lost = sum(label and not verdict for verdict, label in pairs)
        speeds[name] = [
            len(labels) / statistics.median(result[key] for result in results)
            for key in ("seconds", "in_all")
        ]
        speed, with_imports = speeds[name]
        print(
            f"{name:<14}{agreement:>14.1%}{accepted:>14}{lost:>14}{speed:>14.0f}{with_imports:>14.0f}"
        )
    ratios = [first / second for first, second in zip(speeds["ours"], speeds["math_verify"])]
    print(f"ours / math-verify: {ratios[0]:.2f}, with imports {ratios[1]:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=CASES, type=Path, help="labelled outputs, JSONL")
    parser.add_argument(
        "--grader", choices=GRADERS, help=argparse.SUPPRESS
    )  # in a measured process
    options = parser.parse_args()
    if not options.cases.exists():
        parser.error(f"--cases: there is no file {options.cases}")
    if not options.grader:
        main(options.cases)
    else:
        verdicts, seconds = GRADERS[options.grader]([case for case, _ in read(options.cases)])
        print(json.dumps({"verdicts": verdicts, "seconds": seconds, "in_all": cpu()}))
