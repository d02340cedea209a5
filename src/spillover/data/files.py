"""Datasets from files, in the shapes that are about. Every wrong row is named by its line.

    messages      {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    pairs         {"prompt": "...", "completion": "..."}, {"prompt": ..., "response": ...}, {"user": ..., "assistant":
                  ...} or {"instruction": ..., "output": ...}; `system` may stand beside them
    message pairs {"prompt": [messages], "completion": [messages]}, as TRL has them
    CSV           pairs, the first line names the columns

The first row says which shape a file has. A message's content is a text, or a text as `{"content_type": "text",
"parts": ["..."]}`. Files may be compressed (`.jsonl.gz`, `.csv.gz`). Rows with tools or images are refused: only texts
are trained on. Of a file, no more than a row is in memory at a time.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from spillover.data.lines import is_text, json_value, read_lines, shown
from spillover.data.tables import listed, read_table
from spillover.errors import DataError
from spillover.records import Conversation, Message, Role

DATA = "data.jsonl"
"""The rows in a dataset's folder."""
ROLES = get_args(Role)
PAIRS = (("prompt", "completion"), ("prompt", "response"), ("user", "assistant"), ("instruction", "output"))
"""What the two halves of a pair may be called."""
REMEDY = (
    'A row is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}, '
    'or a pair such as {"prompt": "...", "completion": "..."}.'
)
TOOLS = ("tools", "tool_calls", "tool_call_id", "tool_choice", "functions", "function_call", "parallel_tool_calls")
TOOL_ROLES = ("tool", "function")
MEDIA = ("image", "audio", "video", "file")
"""What the names of keys, roles and parts say of tools and of what is no text."""

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, `path:line`, and what it says."""


def dataset_file(path: Path) -> Path:
    """The file with a dataset's rows: the path itself, or `data.jsonl` in it where it is a dataset's folder."""
    return path / DATA if os.path.isdir(path) else path


def read_conversations(path: Path) -> list[Conversation]:
    """All rows of a dataset, in order.

    Raises:
        DataError: the file cannot be read or has no rows, or a row is wrong; names the file, the line and the remedy.
    """
    return [conversation for _, conversation in stream_conversations(path)]


def stream_conversations(path: Path) -> Iterator[tuple[str, Conversation]]:
    """The rows of a dataset's file or folder, one at a time, each with its place, `path:line`.

    Raises:
        DataError: as `read_conversations` does, when it comes to what is wrong.
    """
    shape: tuple[str, ...] = ()
    for where, row in _rows(_found(path)):
        shape = shape or _shape(row, where)
        yield where, _conversation(row, shape, where)
    if not shape:
        raise DataError("the dataset has no rows", where=path, remedy=REMEDY)


def _found(path: Path) -> Path:
    file = dataset_file(path)
    if file != path and not os.path.lexists(file):
        remedy = "Give the path of a chat JSONL file, or of a folder that `spillover data` has written."
        raise DataError(f"is a folder without {DATA}", where=path, remedy=remedy)
    return file


def write_conversations(path: Path, rows: Iterable[Conversation]) -> None:
    """Writes rows as chat JSONL, UTF-8, one a line."""
    text = "".join(json.dumps(row.as_row(), ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def _rows(path: Path) -> Iterator[Row]:
    is_csv = path.name.removesuffix(".gz").endswith(".csv")
    return _csv_rows(path) if is_csv else _json_rows(path)


def _json_rows(path: Path) -> Iterator[Row]:
    for number, text in read_lines(path, "Give the path of a chat JSONL file."):
        if text.strip():
            yield f"{path}:{number}", _json(text, f"{path}:{number}")


def _json(text: str, where: str) -> dict[str, Any]:
    """A row, without the keys that say nothing (null): exports have every key in every row."""
    row = json_value(text, where, REMEDY)
    if not isinstance(row, dict):
        raise DataError("is no JSON object and has no list of messages", where=where, remedy=REMEDY)
    return _told(row)


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


def _csv_rows(path: Path) -> Iterator[Row]:
    for where, row in read_table(read_lines(path, "Give the path of a CSV file."), str(path), _check_columns):
        yield where, {name: cell for name, cell in row.items() if name != "system" or cell}


def _check_columns(columns: Sequence[str], where: str) -> None:
    if not any(set(pair) <= set(columns) for pair in PAIRS) or len(set(columns)) < len(columns):
        known = ", or ".join(" and ".join(pair) for pair in PAIRS)
        what = f"the columns are {listed(columns)}"
        raise DataError(what, where=where, remedy=f"The first line names them: {known}; and system, if there is one.")


def _shape(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """A row's shape: the keys that hold its turns, and `lists` for a pair of lists of messages."""
    if "messages" in row:
        return ("messages",)
    for pair in PAIRS:
        if all(key in row for key in pair):
            return (*pair, "lists") if all(isinstance(row[key], list) for key in pair) else pair
    raise DataError("has no list of messages, and is no pair", where=where, remedy=REMEDY)


def _conversation(row: Mapping[str, Any], shape: tuple[str, ...], where: str) -> Conversation:
    if _shape(row, where) != shape:
        what = f"has another shape than the first row, which has {' and '.join(shape[:2])}"
        raise DataError(what, where=where, remedy="Put rows of one shape into a file of their own.")
    is_pair_of_texts = shape in PAIRS
    extra = [key for key in row if key not in shape and not (is_pair_of_texts and key == "system")]
    if extra:
        what = f"unknown key {shown(extra[0])}: a row has {' and '.join(shape[:2])} and nothing else"
        raise _refused(what, where, *extra)
    turns = _pair(row, shape, where) if is_pair_of_texts else _listed(row, shape, where)
    if turns[-1]["role"] != "assistant":
        raise DataError("does not end in an assistant's turn", where=where, remedy=REMEDY)
    if turns[0]["role"] == "assistant":
        raise DataError("begins with an assistant's turn: nothing was asked", where=where, remedy=REMEDY)
    return Conversation(turns)


def _pair(row: Mapping[str, Any], shape: tuple[str, ...], where: str) -> tuple[Message, ...]:
    """The turns of a pair of texts."""
    said = (("system", "system"), (shape[0], "user"), (shape[1], "assistant"))
    return tuple(_message({"role": role, "content": row[key]}, where) for key, role in said if key in row)


def _listed(row: Mapping[str, Any], shape: tuple[str, ...], where: str) -> tuple[Message, ...]:
    """The turns of a list of messages, or of two lists of which the second is learnt."""
    for key in shape[:2]:
        if not isinstance(row[key], list) or not row[key]:
            raise DataError(f"has no list of messages in {key!r}", where=where, remedy=REMEDY)
    lists = [tuple(_message(message, where) for message in row[key]) for key in shape[:2]]
    if len(lists) == 2 and any(message["role"] != "user" for message in lists[0][-1:]):
        raise DataError("the prompt does not end in a user's turn", where=where, remedy=REMEDY)
    return tuple(message for some in lists for message in some)


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise DataError("a message must have role and content, and nothing else", where=where, remedy=REMEDY)
    message = _told(message)
    _check_weight(message, where)
    extra = [key for key in message if key not in ("role", "content", "weight")]
    if extra or not {"role", "content"} <= set(message):
        found = f" (got {', '.join(map(shown, extra[:3]))})" if extra else ""
        raise _refused(f"a message must have role and content, and nothing else{found}", where, *extra)
    role, content = message["role"], _content(message["content"], where)
    if role not in ROLES:
        raise _refused(f"unknown role {shown(role)}", where, role, remedy=f"Roles are {', '.join(ROLES)}.")
    if not is_text(content):
        raise DataError(f"the {role}'s content is no text", where=where, remedy=REMEDY)
    if role == "assistant" and not content.strip():
        raise DataError("has an empty answer", where=where, remedy="Remove the row or give it an answer.")
    return Message(role=role, content=content)


def _check_weight(message: Mapping[str, Any], where: str) -> None:
    """OpenAI's `weight` says whether an assistant's turn is trained on. That it is, is what happens here anyway."""
    if message.get("weight", 1) != 1:
        raise DataError(
            f"a message has the weight {shown(message['weight'])}: which turns bear loss is not a row's to say here",
            where=where,
            remedy="Remove `weight`. Where only the last turn of a row is to bear loss, set `train.turns: last`.",
        )


def _content(content: Any, where: str) -> Any:
    """A content's text, where it is a text in one part: as ChatGPT exports it, or as OpenAI's interface has it."""
    if isinstance(content, list):
        return _part(content, where)
    if not isinstance(content, dict):
        return content
    parts = content.get("parts")
    if set(content) != {"content_type", "parts"} or content["content_type"] != "text" or not isinstance(parts, list):
        what = 'a content is neither a text nor {"content_type": "text", "parts": ["..."]}'
        raise _refused(what, where, content.get("content_type"))
    if len(parts) != 1:
        what = f"a content has {len(parts)} parts: how they belong together is not said"
        raise DataError(what, where=where, remedy="Make them one part.")
    return parts[0]


def _part(parts: list[Any], where: str) -> Any:
    """The text of a list of one text; any other list as it is."""
    names = [name for part in parts if isinstance(part, dict) for name in (part.get("type"), *part)]
    if any(map(_other, names)):
        raise _refused("a content is no text", where, *names)
    is_one = len(parts) == 1 and isinstance(parts[0], dict) and set(parts[0]) == {"type", "text"}
    return parts[0]["text"] if is_one and parts[0]["type"] == "text" else parts


def _refused(what: str, where: str, *names: Any, remedy: str = REMEDY) -> DataError:
    """An error about something named so, which says whether it is tools or media that is not taken here."""
    other = next(filter(None, map(_other, names)), "")
    if not other:
        return DataError(what, where=where, remedy=remedy)
    remedy = "Only texts are trained on here: leave such rows out."
    return DataError(f"{what}: the row has {other}", where=where, remedy=remedy)


def _other(name: Any) -> str:
    """What a key, a role or a part of this name has that is no text: `tools`, `an image`; empty for anything else."""
    if name in TOOLS or name in TOOL_ROLES:
        return "tools"
    words = name.lower().replace("-", "_").split("_") if isinstance(name, str) else ()
    found = next((kind for kind in MEDIA if kind in words or f"{kind}s" in words), "")
    return f"{'an' if found[0] in 'aeiou' else 'a'} {found}" if found else ""
