"""Strict grading against math-verify: right answers per CPU second and agreement with labels, on whole outputs of models.

    python -m tests.bench.grade [--cases FILE]

The cases are the whole outputs of tests/cases/outputs.jsonl (fields output, gold, correct), or of a labelled file with the fields pred,
gold, expected, kind, source and tag: those of kind "extract" that are neither derived by a rule nor disputed. Each grader runs in a process of its own, three times in turn; CPU seconds are those of the process and of all its workers,
with imports and without. math-verify is called as its README says: verify(parse(gold), parse(output)).
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
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def ours(cases):
    from common import grading
    from common.grading import sympy_worker as worker

    grading.is_correct(r"\\boxed{x+1}", "1+x")  # starts a worker
    start = cpu() + sum(_alive(worker.workers))
    verdicts = [judgement.correct for judgement in grading.grade_many(*zip(*cases))]
    spent = cpu() + sum(_alive(worker.workers)) - start
    return verdicts, spent


def _alive(workers):
    """CPU seconds of workers that have not ended."""
    for process in (worker.process for worker in workers if worker.process):
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        yield (int(fields[11]) + int(fields[12])) / 100


def math_verify(cases):
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    verify(parse("$x+1$"), parse("$1+x$"))
    start, verdicts = cpu(), []
    for text, gold in cases:
        try:
            verdicts.append(
                bool(
                    verify(
                        parse(gold if "$" in gold or "boxed" in gold else f"${gold}$"), parse(text)
                    )
                )
            )
        except Exception:  # it raises on a few inputs
            verdicts.append(False)
    return verdicts, cpu() - start


GRADERS = {function.__name__: function for function in (ours, math_verify)}


def read(path):
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    if "output" in rows[0]:
        return [
            ((row["output"], row["gold"]), row["correct"]) for row in rows if not row.get("choices")
        ]
    rows = [
        row
        for row in rows
        if row["kind"] == "extract"
        and row["source"] != "derived"
        and not row["tag"].startswith("disputed")
    ]
    return [((row["pred"], row["gold"]), row["expected"]) for row in rows]


def main(path):
    labelled = read(path)
    runs = {name: [] for name in GRADERS}
    for _ in range(ROUNDS):
        for name in GRADERS:
            command = [
                sys.executable,
                "-m",
                "tests.bench.grade",
                "--cases",
                str(path),
                "--grader",
                name,
            ]
            ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(ran.stdout))
    print(f"{len(labelled)} outputs, {ROUNDS} runs of each grader in turn")
    print(
        f"{'':<14}{'agreement':>10}{'wrong taken':>13}{'right lost':>12}{'per CPU s':>11}{'with imports':>14}"
    )
    speed = {}
    for name, results in runs.items():
        pairs = list(zip(results[0]["verdicts"], (label for _, label in labelled)))
        agree, taken, lost = (
            sum(map(test, pairs))
            for test in (lambda p: p[0] == p[1], lambda p: p[0] > p[1], lambda p: p[0] < p[1])
        )
        speed[name] = [
            len(labelled) / statistics.median(result[key] for result in results)
            for key in ("seconds", "in_all")
        ]
        print(
            f"{name:<14}{100 * agree / len(pairs):>9.1f}%{taken:>13}{lost:>12}{speed[name][0]:>11.0f}{speed[name][1]:>14.0f}"
        )
    ratios = [one / other for one, other in zip(speed["ours"], speed["math_verify"])]
    print(
        f"answers per CPU second, ours / math-verify: {ratios[0]:.2f}, with imports {ratios[1]:.2f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=CASES, type=Path, help="labelled outputs, JSONL")
    parser.add_argument(
        "--grader", choices=GRADERS, help=argparse.SUPPRESS
    )  # in the processes that are measured
    options = parser.parse_args()
    if not options.cases.exists():
        parser.error(f"--cases: there is no file {options.cases}")
    if not options.grader:
        main(options.cases)
    else:
        verdicts, seconds = GRADERS[options.grader]([case for case, _ in read(options.cases)])
        if options.grader == "ours":
            from common.grading import sympy_worker as worker

            for one in worker.workers:
                one.stop()  # a process that has ended counts among the children
        print(json.dumps({"verdicts": verdicts, "seconds": seconds, "in_all": cpu()}))
