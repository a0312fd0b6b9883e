"""What each preset changes against the defaults of the scripts' Configs, which are the paper's values."""

# The paper's 7B recipe. The released responses carry their critiques, so 02 asks nobody and costs nothing.
PAPER = {"01": dict(), "02": dict(), "03": dict(), "04": dict(model="Qwen/Qwen2.5-Math-7B"), "05": dict()}

PRESETS = {
    # A laptop CPU, no key, no download, minutes: the micro-world of common/tiny.
    "tiny": {
        "01": dict(source="tiny", limit=1600, temperature=1.0, max_new_tokens=96, batch_size=250, threads=1),
        "02": dict(model="tiny-teacher", base_url="tiny", answers=True, concurrency=8),
        "03": dict(rows=800),
        # 800 / 16 = 50 updates; a learning rate for 0.2 M parameters
        "04": dict(learning_rate=3e-4, global_batch=16, tokens_per_microbatch=2048, save_every=0, threads=1,
                   activation_checkpointing=False),
        "05": dict(benchmarks=["tiny"], max_new_tokens=96, batch_size=250, threads=1),
    },
    "paper": PAPER,
    # Differs from the paper: adapters on the frozen base, on one GPU of 40 GB (lora) or 24 GB (qlora). Adapters want a larger learning rate.
    "lora": PAPER | {"04": PAPER["04"] | dict(method="lora", learning_rate=1e-4, merge=True)},
    "qlora": PAPER | {"04": PAPER["04"] | dict(method="qlora", learning_rate=1e-4, merge=True, optimizer="adamw8bit",
                                               tokens_per_microbatch=8192)},
}
