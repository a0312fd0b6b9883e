"""The presets: what each changes of the scripts' defaults, which are the paper's values."""

# The paper's 7B recipe. The released responses carry their critiques, so 02 costs nothing.
# Differs from the paper: a checkpoint of 15 GB every 10 steps, not every 2.
PAPER = {"04": dict(model="Qwen/Qwen2.5-Math-7B", save_every=10)}
# Differs from the paper: adapters on the frozen base, which want a larger learning rate.
LORA_TRAINING = dict(model="Qwen/Qwen2.5-Math-7B", method="lora", learning_rate=1e-4)
LORA = {"04": LORA_TRAINING}  # one GPU of 40 GB
QLORA = {"04": LORA_TRAINING | dict(method="qlora", tokens_per_microbatch=8192)}  # of 24 GB

# One-Shot CFT (arXiv 2506.03295): many responses to one question, one row for each response and
# teacher, 50 epochs.
# save_every: an epoch, 600 rows in batches of 512
ONE_SHOT_TRAINING = dict(
    epochs=50, warmup_ratio=0.05, weight_decay=0.05, overlong="drop", save_every=2
)
ONE_SHOT = {
    # source: the file with the question
    "01": dict(source="", limit=1, samples=10, temperature=0.6, top_p=0.95),
    "02": dict(prompt="one-shot"),
    "03": dict(arms=["cft"], rows=600, max_tokens=2048),
    "04": PAPER["04"] | ONE_SHOT_TRAINING,
    "05": dict(
        benchmarks=["math500", "minerva_math", "olympiadbench", "aime24", "aime25", "amc23"],
        selection="validation",
    ),
}

# A laptop CPU, no key, no download, minutes: the micro-world of common/tiny.
TINY_GENERATION = dict(max_new_tokens=96, batch_size=250)
TINY = {
    "01": TINY_GENERATION | dict(source="tiny", limit=1600, temperature=1.0),
    "02": TINY_GENERATION
    # a style of its critiques is the bare verdict
    | dict(model="tiny-teacher", base_url="tiny", answers=True, concurrency=8)
    | dict(min_critique_words=0),
    "03": dict(rows=800, tokenizer="base", min_critique_words=0),
    # 800 / 16 = 50 updates; a learning rate for 0.2 M parameters
    "04": dict(
        learning_rate=3e-4,
        global_batch=16,
        tokens_per_microbatch=1024,
        save_every=0,
        threads=1,
    ),
    "05": TINY_GENERATION | dict(benchmarks=["tiny"]),
}
# Of the micro-world: 100 samples of the base on one question. docs/reproduce.md adds more.
TINY_ONE_SHOT = {
    "01": TINY["01"] | dict(limit=1, model="base", samples=100),
    "02": TINY["02"] | dict(prompt="one-shot", answers=False),
    "03": TINY["03"] | dict(arms=["cft"], rows=600, max_tokens=512),
    "04": TINY["04"] | ONE_SHOT_TRAINING | dict(learning_rate=5e-5, save_every=38),
    "05": TINY["05"] | dict(selection="validation"),
}

PRESETS = {"tiny": TINY, "paper": PAPER, "lora": LORA, "qlora": QLORA, "one-shot": ONE_SHOT}
PRESETS["tiny-one-shot"] = TINY_ONE_SHOT
