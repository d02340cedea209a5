"""Chat JSONL files: one `{"messages": [...]}` a line. Every wrong row is named by its line."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from spillover.errors import DataError
from spillover.records import Conversation, Message, Role

ROLES = get_args(Role)
REMEDY = 'A row is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}.'


def read_conversations(path: Path) -> list[Conversation]:
    """All rows of a chat JSONL file, in order.

    Raises:
        DataError: the file cannot be read or has no rows, or a row is wrong; names the file, the line and the remedy.
    """
    rows = [_conversation(line, f"{path}:{number}") for number, line in _lines(path)]
    if not rows:
        raise DataError("the dataset has no rows", where=path, remedy=REMEDY)
    return rows


def write_conversations(path: Path, rows: Iterable[Conversation]) -> None:
    """Writes rows as chat JSONL, UTF-8, one a line."""
    text = "".join(json.dumps(row.as_row(), ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, remedy="Give the path of a chat JSONL file."
        ) from None
    for number, line in enumerate(raw.split(b"\n"), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError("is not UTF-8", where=f"{path}:{number}", remedy="Save the file as UTF-8.") from None
        if text.strip():
            yield number, text


def _conversation(line: str, where: str) -> Conversation:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON: {getattr(error, 'msg', error)}", where=where, remedy=REMEDY) from None
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list) or not row["messages"]:
        raise DataError("has no list of messages", where=where, remedy=REMEDY)
    if len(row) > 1:
        extra = next(key for key in row if key != "messages")
        raise DataError(f"unknown key {extra!r}: a row has messages and nothing else", where=where, remedy=REMEDY)
    messages = row["messages"]
    turns = tuple(_message(message, where) for message in messages)
    if turns[-1]["role"] != "assistant":
        raise DataError("does not end in an assistant's turn", where=where, remedy=REMEDY)
    if turns[0]["role"] == "assistant":
        raise DataError("begins with an assistant's turn: nothing was asked", where=where, remedy=REMEDY)
    return Conversation(turns)


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        raise DataError("a message must have role and content, and nothing else", where=where, remedy=REMEDY)
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise DataError(f"unknown role {role!r}", where=where, remedy=f"Roles are {', '.join(ROLES)}.")
    if not _is_text(content):
        raise DataError(f"the {role}'s content is no text", where=where, remedy=REMEDY)
    if role == "assistant" and not content.strip():
        raise DataError("has an empty answer", where=where, remedy="Remove the row or give it an answer.")
    return Message(role=role, content=content)


def _is_text(content: Any) -> bool:
    """Whether it is a string that can be written down: JSON can escape half a character, and UTF-8 has no halves."""
    return isinstance(content, str) and not any("\ud800" <= character <= "\udfff" for character in content)
