"""Training sets in the forms that other trainers read. (TRL reads the rows of 03 as they are.)

alpaca    a JSON list of {instruction, input, output, system}, for LLaMA-Factory: it asks instruction + newline + input.
messages  JSONL of {messages: [system, user, assistant]}, for ms-swift as it is and LLaMA-Factory as sharegpt.

`dataset_info.json` tells LLaMA-Factory what stands in the folder: --dataset_dir FOLDER --dataset cft_alpaca --template qwen.
Both then train on the tokens of 04 with ChatML and on the newline after <|im_end|>. They differ in rows above the cutoff:
ms-swift drops them, LLaMA-Factory cuts the prompt's end where the answer is shorter than half the cutoff, else the answer or both.
"""

from common.core import files, prompts
from common.core.errors import InputError

# What dataset_info.json says of a file, by its form.
ALPACA = {
    "formatting": "alpaca",
    "columns": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
    },
}
MESSAGES = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def _alpaca(row):
    """The user's text is cut at a newline that LLaMA-Factory puts back; where one side would be empty it puts none."""
    *system, user, answer = (message["content"] for message in row["prompt"] + row["completion"])
    instruction, _, rest = user.partition("\n")
    if user.startswith(
        prompts.CRITIQUE_INSTRUCTION + "\n"
    ):  # as the released data has it, which ends with two newlines
        instruction, rest = (
            prompts.CRITIQUE_INSTRUCTION,
            user.removeprefix(prompts.CRITIQUE_INSTRUCTION + "\n"),
        )
    if not instruction or not rest:
        instruction, rest = user, ""
    return {"instruction": instruction, "input": rest, "output": answer, "system": "".join(system)}


def _messages(row):
    return {"messages": row["prompt"] + row["completion"]}


def _json_list(path, rows):
    lines = ["," * (i > 0) + files.json_line(row) for i, row in enumerate(rows)]
    files.write_atomic(path, ["[\n", *lines, "]\n"])


FORMS = {
    "alpaca": (_alpaca, "json", _json_list, ALPACA),
    "messages": (_messages, "jsonl", files.write_jsonl, MESSAGES),
}


def check(forms):
    """InputError for a form that is not in FORMS."""
    if unknown := [form for form in forms if form not in FORMS]:
        raise InputError(
            f"unknown export forms {unknown}; the forms are: --export {' '.join(FORMS)}"
        )


def write(folder, sets, forms):
    """Write training sets into `folder`, one file per arm and form, and dataset_info.json. -> the paths, that one last.

    sets: {arm: rows of 03}, a row's prompt being [system, user] or [user]. forms: names of FORMS, otherwise InputError; what
    stands of these arms in other forms is written anew, too, so that no export is older than 03_data.
    dataset_info.json lists every export that stands in the folder, so those of other arms stay readable.
    A row without a system message gets the trainer's own one (of Qwen: "You are Qwen, ..."), unless that is switched off
    there: LLaMA-Factory --default_system '', ms-swift --system ''.
    """
    check(forms)
    written = []
    for form, (convert, ending, write_rows, _) in FORMS.items():
        for arm, rows in sets.items():
            path = folder / f"{arm}_{form}.{ending}"
            if (
                form in forms or path.exists()
            ):  # what stands is of an earlier build, and written anew
                write_rows(path, map(convert, rows))
                written.append(path)
    if written:
        written.append(folder / "dataset_info.json")
        files.write_json(
            written[-1],
            {
                file.stem: {"file_name": file.name} | entry
                for form, (_, ending, _, entry) in FORMS.items()
                for file in sorted(folder.glob(f"*_{form}.{ending}"))
            },
        )
    return written
