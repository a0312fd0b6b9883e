"""IFEval in 05: the two protocols, graded rows, and the paper's Table 8 for comparison."""

from dataclasses import replace

from common.core import prompts
from common.core.thinking import without_thinking
from common.ifeval.grading import MAX_CHARACTERS, grade

PROTOCOLS = {  # template, tokens at most, strings that end an answer
    # The first author's public record (Wyyyb/CriticCoT), whose numbers are Table 8's.
    "paper": ("none", 2048, ["</s>", "<|im_end|>", "<|endoftext|>"]),
    "chat": ("own", 1280, []),  # lm-eval's
}
NOTE = (
    "ifeval (protocol, grading): a prompt is right if all its instructions are followed, strictly. "
    "Its floor is the best of four answers that say nothing. Three items are wrong in the set "
    "itself: 337 asks for 400 words and checks 336; 2078 asks for exactly one bullet point and for "
    "a few; 30 asks for small letters and checks the quotation marks twice."
)


def use_protocol(model, sampling, config) -> tuple:
    """Return an OpenModel and Sampling as config's protocol has them.

    Its conditions name protocol and grading, so that scores of two protocols are not compared.
    """
    template, limit, stop = PROTOCOLS[config.ifeval_protocol]
    if template == "own" and model.tokenizer:
        prompts.check_template(template, model.tokenizer)
    rules = f"{config.ifeval_protocol}, {config.ifeval_grading}"
    conditions = model.conditions | {"template": template, "ifeval": rules}
    if sampling.max_new_tokens < limit:
        print(
            f"note: answers to IFEval are cut at {sampling.max_new_tokens:,} tokens by "
            f"--max-new-tokens; the protocol has {limit:,}"
        )
        limit = sampling.max_new_tokens
    settings = replace(sampling, max_new_tokens=limit, stop=stop)
    return replace(model, conditions=conditions), settings


def grade_row(row: dict, text: str, grading: str) -> None:
    """Add to a row which instructions its output follows; correct: all of them, strictly.

    correct_paper is by the grading "reference". text: the output, with what its prompt opened.
    """
    answer = without_thinking(text)
    row |= grade(answer, row["gold"], grading)
    row["correct"] = all(row["strict"])
    row["correct_paper"] = all(grade(answer, row["gold"])["strict"])
    row["extracted"] = f"followed: {row['strict']}"
    row["extraction_method"] = "whole output" if answer.strip() else "none"
    row["timed_out"] = len(answer) > MAX_CHARACTERS


def list_shares(scores: list) -> list:
    """Return a row of results for each further share of IFEval, as if it were a benchmark."""
    rows = []
    for score in scores:
        for name in ("strict_instruction", "loose_prompt", "loose_instruction"):
            if name not in score:
                continue
            low, high = score[f"{name}_interval"]
            row = {"accuracy": score[name], "low": low, "high": high}
            row["floor"] = score[f"{name}_floor"]
            is_reference = "reference" in score["benchmark"]
            row |= {f"paper_{key}": value if is_reference else None for key, value in row.items()}
            benchmark = score["benchmark"].replace("strict_prompt", name)
            rows.append(row | {"benchmark": benchmark, "model": score["model"], "n": score["n"]})
    return rows
