"""What each preset changes against the defaults of the scripts' Configs, which are the paper's values."""

# The paper's 7B recipe. The released responses carry their critiques, so 02 asks nobody and costs nothing.
PAPER = {
    "01": dict(),
    "02": dict(),
    "03": dict(),
    "04": dict(model="Qwen/Qwen2.5-Math-7B"),
    "05": dict(),
}

# One-Shot CFT (arXiv 2506.03295), the same 7B base: many responses to one question, one row per response and teacher, 50 epochs.
ONE_SHOT = {
    "01": dict(
        source="", limit=1, samples=10, temperature=0.6, top_p=0.95, add=True
    ),  # --source: the file with the question
    "02": dict(prompt="one-shot"),
    "03": dict(arms=["cft"], teacher=["all"], rows=600, max_tokens=2048),
    "04": dict(
        PAPER["04"],
        epochs=50,
        warmup_ratio=0.05,
        weight_decay=0.05,
        overlong="drop",
        save_every=1,
        save_unit="epoch",
    ),
    "05": dict(
        benchmarks=["math500", "minerva_math", "olympiadbench", "aime24", "aime25", "amc23"],
        selection="validation",
    ),
}
# A laptop CPU, no key, no download, minutes: the micro-world of common/tiny.
TINY = {
    "01": dict(
        source="tiny", limit=1600, temperature=1.0, max_new_tokens=96, batch_size=250, threads=1
    ),
    "02": dict(
        model="tiny-teacher",
        base_url="tiny",
        answers=True,
        max_new_tokens=96,
        batch_size=250,
        concurrency=8,
    ),
    "03": dict(rows=800, tokenizer="base"),
    # 800 / 16 = 50 updates; a learning rate for 0.2 M parameters
    "04": dict(
        learning_rate=3e-4,
        global_batch=16,
        tokens_per_microbatch=2048,
        save_every=0,
        threads=1,
        activation_checkpointing=False,
    ),
    "05": dict(benchmarks=["tiny"], max_new_tokens=96, batch_size=250, threads=1),
}

PRESETS = {
    "tiny": TINY,
    "paper": PAPER,
    # Differs from the paper: adapters on the frozen base, on one GPU of 40 GB (lora) or 24 GB (qlora). Adapters want a larger learning rate.
    "lora": PAPER | {"04": PAPER["04"] | dict(method="lora", learning_rate=1e-4, merge=True)},
    "qlora": PAPER
    | {
        "04": PAPER["04"]
        | dict(
            method="qlora",
            learning_rate=1e-4,
            merge=True,
            optimizer="adamw8bit",
            tokens_per_microbatch=8192,
        )
    },
    "one-shot": ONE_SHOT,
    # Of the micro-world: 100 samples of the base on one question; more generators and teachers as in README.
    "tiny-one-shot": {
        "01": TINY["01"] | dict(limit=1, model="base", samples=100, add=True),
        "02": TINY["02"] | dict(prompt="one-shot", answers=False),
        "03": TINY["03"] | dict(arms=["cft"], teacher=["all"], rows=600, max_tokens=512),
        "04": TINY["04"]
        | dict(learning_rate=5e-5)
        | {
            k: ONE_SHOT["04"][k]
            for k in (
                "epochs",
                "warmup_ratio",
                "weight_decay",
                "overlong",
                "save_every",
                "save_unit",
            )
        },
        "05": TINY["05"] | dict(selection="validation"),
    },
}
