# %% [markdown]
"""
# 02 Critique: response -> critique with a verdict

In: `01_responses.jsonl`. Out: `02_critiques.jsonl`, the same rows with a teacher's critique and its verdict;
`02_failed.jsonl`, rows without one and why; with `--answers`, `02_answers.jsonl`, the teacher's own answers.

    python 02_critique.py                                                              # tiny: a rule-based teacher
    python 02_critique.py --name mine --model gpt-4o-2024-11-20                        # needs OPENAI_API_KEY, costs money
    python 02_critique.py --name mine --model Qwen/Qwen2.5-72B-Instruct --base-url http://localhost:8000/v1

The teacher is asked with the paper's prompt; the verdict is read from its last line. Rows that came with a critique
pass through and nobody is asked. Every answer is journalled as it arrives: a killed run asks only for what is missing.
"""

# %% Settings
from dataclasses import dataclass

from common.config import configure, setting


@dataclass
class Config:
    name: str | None = setting(None, "the run: files in runs/NAME (default: the preset's name)")
    preset: str = setting("tiny", "tiny or paper (common/presets.py); default: what 01 was run with, tiny for a new run")
    seed: int = setting(0, "not used here: a teacher's answers are not seeded")
    limit: int | None = setting(None, "use at most this many responses")
    model: str | None = setting("gpt-4o-2024-11-20", "the teacher's name on the server")
    base_url: str | None = setting(None, "OpenAI-compatible server; tiny: the rule-based teacher (default: the OpenAI API)")
    answers: bool = setting(False, "also ask for the teacher's own answer to every question, for the sft-teacher arm")
    temperature: float = setting(0.3, "of the teacher")
    top_p: float = setting(0.95, "of the teacher")
    max_new_tokens: int = setting(3200, "tokens per critique or answer at most")
    attempts: int = setting(3, "how often to ask for a critique that is cut or has no verdict")
    concurrency: int = setting(16, "requests in flight")
    teacher_skip: float = setting(0.1, "tiny: share of lines the teacher leaves out of its own answers (0 to 1)")
    critique_style: str = setting("full", "tiny: how critiques are written", choices=["full", "terse", "brief", "verdict"])


config = configure(Config, "02")

# %% Read the responses
from common import files, prompts, verdicts
from common.files import InputError
from common.generate import Request, Sampling, complete
from common.generate.journal import Journal
from common.generate.server import Server

run = files.run_folder(config.name)
rows = files.read_jsonl(files.stage_file(run, "01_responses.jsonl"))[: config.limit]
if config.base_url == "tiny" and (foreign := [row["source"] for row in rows if row["source"] != "tiny"]):
    raise InputError(f"the tiny teacher knows only the micro-world's questions, not those of {foreign[0]}.\n"
                     "Name a teacher: --preset paper --model NAME (and --base-url for your own server)")
to_ask = [row for row in rows if "critique" not in row]
print(f"{len(rows)} responses, {len(rows) - len(to_ask)} of them with a critique already")

# %% [markdown]
"""
## The teacher
For the tiny preset it is a set of rules behind a real HTTP server on this machine; the client below is the one that
asks GPT-4o.
"""

# %% Start the tiny teacher, or name the real one
if config.base_url == "tiny":
    from common.tiny import teacher

    config.model = teacher.model_name(config.teacher_skip, config.critique_style)
    base_url, stop_teacher = teacher.serve()
else:
    base_url, stop_teacher = config.base_url, lambda: None
engine = Server(config.model, base_url, config.concurrency)
sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)


def why_bad(answer):
    """None where a critique can be used, else the reason."""
    if "error" in answer:
        return answer["error"]
    if answer["finish_reason"] != "stop":
        return f"cut (finish_reason {answer['finish_reason']})"
    return "no verdict" if verdicts.parse(answer["text"]) == "unparsed" else None


# %% Ask for critiques
# Differs from the paper: what is cut or has no verdict is asked again, each attempt kept; the released script asks once.
got = {}  # response id -> its last answer
with Journal(run / "02_journal.jsonl") as journal:
    waiting = to_ask
    for attempt in range(config.attempts if to_ask else 0):
        asked = [Request(prompts.teacher_critique_prompt(r["question"], r["response"]), attempt=attempt) for r in waiting]
        got |= {r["id"]: a for r, a in zip(waiting, complete(engine, asked, sampling, journal, "02 critiques"))}
        waiting = [row for row in waiting if why_bad(got[row["id"]])]
        if not waiting:
            break

# %% Ask for the teacher's own answers
questions = list({row["question_id"]: row for row in rows}.values()) if config.answers else []
with Journal(run / "02_journal.jsonl") as journal:
    to_answer = [Request(prompts.teacher_answer_prompt(row["question"])) for row in questions]
    own = complete(engine, to_answer, sampling, journal, "02 answers") if to_answer else []
stop_teacher()


# %% One row each: carried critiques as they are, new ones with their verdict; the rest to 02_failed.jsonl
def critiqued(row):
    """-> (row with its critique, None) or (row, reason why it has none)."""
    if "critique" in row:
        usage = finish = None
        raw, verdict, who = row["critique_raw"], row["verdict"], row["teacher"]
        reason = "the critique that came with the data has no verdict" if verdict == "unparsed" else None
    else:
        answer, who = got[row["id"]], config.model
        reason, raw, usage, finish = why_bad(answer), answer.get("text"), answer.get("usage"), answer.get("finish_reason")
        verdict = "unparsed" if reason else verdicts.parse(raw)
    if reason:
        return row | {"teacher": who, "critique_raw": raw, "verdict": "unparsed"}, reason
    return row | {
        "critique_id": files.content_id(row["id"], who, raw), "teacher": who, "critique": verdicts.normalise(raw, verdict),
        "critique_raw": raw, "verdict": verdict, "critique_finish_reason": finish, "usage": usage, "usd": None,
    }, None


judged = [critiqued(row) for row in rows]
good = [row for row, reason in judged if not reason]
failed = [row | {"reason": reason} for row, reason in judged if reason]

# %% Nothing is written unless there is something of each kind
if not good:
    hint = ("Expected texts that end in 'Conclusion: right [END]' or 'Conclusion: wrong [END]'. Where a column holds the verdict, name "
            "it in 01: --columns verdict=COLUMN --verdict-values true=right false=wrong") if "verdict" in failed[0]["reason"] else (
            "Check --model and --base-url, then run the same command again.")
    raise InputError(f"not one of {len(rows)} critiques has a verdict; the first: {failed[0]['reason']}\n{hint}")
answered = [{"question_id": row["question_id"], "question": row["question"], "gold": row["gold"], "teacher": config.model,
             "answer": a["text"], "finish_reason": a["finish_reason"], "usage": a["usage"]}
            for row, a in zip(questions, own) if a.get("finish_reason") == "stop"]
if questions and not answered:
    raise InputError(f"{config.model} answered none of {len(own)} questions; the first: {own[0]}\n"
                     "Check --model and --base-url, or leave --answers out.")

# %% Write
files.write_jsonl(run / "02_critiques.jsonl", good)
files.write_jsonl(run / "02_failed.jsonl", failed)
if answered:
    files.write_jsonl(run / "02_answers.jsonl", answered)
    print(f"wrote {run / '02_answers.jsonl'}: {len(answered)} answers, {len(own) - len(answered)} failed or cut")
n_right = sum(row["verdict"] == "right" for row in good)
files.write_manifest(run / "02.run.json", config, [run / "01_responses.jsonl"], rows=len(good), failed=len(failed),
                     right=n_right, wrong=len(good) - n_right, output_sha256=files.file_hash(run / "02_critiques.jsonl"),
                     tokens=sum(sum((row["usage"] or {}).values()) for row in good))
print(f"wrote {run / '02_critiques.jsonl'}: {len(good)} critiques, {n_right / len(good):.1%} judge the response right")
if failed:
    print(f"wrote {run / '02_failed.jsonl'}: {len(failed)} rows without a usable critique; the first: {failed[0]['reason']}")
print(f"next: python 03_build.py --name {config.name}")
