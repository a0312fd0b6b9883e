"""Training sets in the forms that other trainers read. (TRL reads the rows of 03 as they are.)

alpaca    a JSON list of {instruction, input, output, system}, for LLaMA-Factory,
          which asks the instruction; the input is empty.
messages  JSONL of {messages: [system, user, assistant]}, for ms-swift as it is, and for
          LLaMA-Factory as sharegpt.

`dataset_info.json` tells LLaMA-Factory what the folder holds:
--dataset_dir FOLDER --dataset cft_alpaca --template qwen. Both then train on the tokens of 04 with
ChatML, and on the newline after <|im_end|>. They differ in rows above the cutoff: ms-swift drops
them. LLaMA-Factory cuts the prompt's end if the answer is shorter than half the cutoff, else the
answer or both.
"""

from pathlib import Path

from common.core import files
from common.core.errors import InputError


def _alpaca(row):
    """Return the user's text in one piece: LLaMA-Factory puts no newline to it."""
    texts = {message["role"]: message["content"] for message in row["prompt"]}
    return {
        "instruction": texts["user"],
        "input": "",
        "output": row["completion"][0]["content"],
        "system": texts.get("system", ""),
    }


def _messages(row):
    return {"messages": row["prompt"] + row["completion"]}


ALPACA_COLUMNS = dict(prompt="instruction", query="input", response="output", system="system")
MESSAGES_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
# form: (a row of 03 -> its record, what writes a file of them, the file's ending, its entry in
# dataset_info.json besides its name)
FORMS = {
    "alpaca": (
        _alpaca,
        files.write_json,
        ".json",
        {"formatting": "alpaca", "columns": ALPACA_COLUMNS},
    ),
    "messages": (
        _messages,
        files.write_jsonl,
        ".jsonl",
        {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": MESSAGES_TAGS},
    ),
}


def check(names: list) -> None:
    """Raise InputError for a form that is not in FORMS."""
    if set(names) - FORMS.keys():
        raise InputError(f"--export {' '.join(names)}: expected some of {' '.join(FORMS)}.")


def write(folder: Path, sets: dict, names: list) -> None:
    """Write training sets, one file for each set and form, and dataset_info.json.

    sets: {label: rows of 03}, a row's prompt being [system, user] or [user]. names: of FORMS.
    Files of these sets in other forms are written anew, too, so that no export is older than
    03_data. dataset_info.json lists every export in the folder.

    A row without a system message gets the trainer's own one (of Qwen: "You are Qwen, ..."), unless
    that is switched off there: LLaMA-Factory --default_system '', ms-swift --system ''.
    """
    info = {}
    for name, (to_record, write_file, suffix, entry) in FORMS.items():
        for label, rows in sets.items():
            path = folder / f"{label}_{name}{suffix}"
            if name in names or path.exists():
                write_file(path, [to_record(row) for row in rows])
        for path in sorted(folder.glob(f"*_{name}{suffix}")):
            info[path.stem] = {"file_name": path.name} | entry
    if info:
        files.write_json(folder / "dataset_info.json", info)
