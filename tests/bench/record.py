"""Record the SHA-256 of every content file of two chains: a change of the code must change none.

    python -m tests.bench.record /tmp/record > before.json
    python -m tests.bench.record /tmp/record2 > after.json && diff before.json after.json

The first chain is the default one, seed 0. The second reads real critiques of ../shared/responses
through 01 to 03, then trains and evaluates a small random model. Journals, manifests, metrics and
pages are left out, since they hold wall time; rows of 05 are hashed without their fields of time. A
folder that exists is hashed as it is.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SHARED = ROOT.parent / "shared"
TOKENIZER = SHARED / "tokenizers" / "qwen2.5-math"
COLUMNS = ["gold=gold_answer", "verdict=critique_verdict"]
VERDICTS = ["true=right", "false=wrong"]
IGNORED = ("seconds", "grader")  # wall time, and a hash of the grading code


def run(folder, script, *arguments):
    """Run one script in `folder`; stop when it fails."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    print(f"{done.returncode} {' '.join(command[1:])}", file=sys.stderr)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


def random_model(folder):
    """Write a Qwen2 of 10 M random parameters (seed 0) with the real tokenizer of Qwen2.5-Math."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)


def real_sources(folder):
    """Write the 80 rows of sample_280.jsonl that have a critique. -> the two source files"""
    with_critiques = folder / "sample_80.jsonl"
    lines = (SHARED / "responses" / "sample_280.jsonl").read_text(encoding="utf-8").splitlines()
    with_critiques.write_text(
        "".join(line + "\n" for line in lines if json.loads(line).get("critique")), encoding="utf-8"
    )
    return with_critiques, SHARED / "responses" / "oneshot_both_verdicts.jsonl"


def default_chain(folder):
    for script in ("01_sample.py", "02_critique.py", "03_build.py", "04_train.py", "05_eval.py"):
        run(folder, script)


def real_chain(folder):
    model = folder / "model"
    random_model(model)
    for source in real_sources(folder):
        run(
            folder,
            "01_sample.py",
            "--preset",
            "paper",
            "--name",
            "real",
            "--source",
            source,
            "--columns",
            *COLUMNS,
            "--verdict-values",
            *VERDICTS,
        )
    run(folder, "02_critique.py", "--name", "real", "--existing-critiques", "only")
    run(
        folder,
        "03_build.py",
        "--name",
        "real",
        "--tokenizer",
        TOKENIZER,
        "--rows",
        "200",
    )
    run(
        folder,
        "04_train.py",
        "--name",
        "real",
        "--model",
        model,
        "--arms",
        "cft",
        "sft",
        "--global-batch",
        "50",
        "--save-every",
        "0",
        "--threads",
        "1",
    )
    run(
        folder,
        "05_eval.py",
        "--name",
        "real",
        "--model",
        f"base={model}",
        "cft",
        "sft",
        "--benchmarks",
        "gsm8k",
        "math500",
        "--benchmarks-dir",
        SHARED / "benchmarks",
        "--limit",
        "12",
        "--max-new-tokens",
        "24",
    )


def is_content(path):
    """Tell a content file (rows and weights) from a journal, a manifest or a page."""
    if path.suffix not in (".jsonl", ".safetensors"):
        return False
    return "journal" not in str(path) and path.name != "metrics.jsonl"


def digest(path):
    if path.suffix == ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    result = hashlib.sha256()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for field in IGNORED:
            row.pop(field, None)
        result.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return result.hexdigest()


def main():
    folder = Path(sys.argv[1])
    chains = {"default": default_chain, "real": real_chain}
    for name, chain in chains.items():
        if not (folder / name).exists() and (name == "default" or SHARED.exists()):
            (folder / name).mkdir(parents=True)
            chain(folder / name)
    files = [
        path for path in sorted(folder.rglob("runs/**/*")) if path.is_file() and is_content(path)
    ]
    print(json.dumps({str(path.relative_to(folder)): digest(path) for path in files}, indent=1))


if __name__ == "__main__":
    main()
