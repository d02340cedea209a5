"""Datasets from files, in the shapes that are about. Every wrong row is named by its line.

    messages      {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    pairs         {"prompt": "...", "completion": "..."}, {"user": ..., "assistant": ...} or {"instruction": ...,
                  "output": ...}; `system` may stand beside them
    message pairs {"prompt": [messages], "completion": [messages]}, as TRL has them
    CSV           pairs, the first line names the columns

The first row says which shape a file has. A message's content is a text, or a text as `{"content_type": "text",
"parts": ["..."]}`. Files may be compressed (`.jsonl.gz`, `.csv.gz`).
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from spillover.errors import DataError
from spillover.records import Conversation, Message, Role

ROLES = get_args(Role)
PAIRS = (("prompt", "completion"), ("user", "assistant"), ("instruction", "output"))
"""What the two halves of a pair may be called."""
REMEDY = (
    'A row is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}, '
    'or a pair such as {"prompt": "...", "completion": "..."}.'
)
QUOTES = 'Put texts with commas, quotes or line breaks into quotes, and write a quote in them as "".'
BOM = b"\xef\xbb\xbf"

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, `path:line`, and what it says."""


def read_conversations(path: Path) -> list[Conversation]:
    """All rows of a dataset file, in order.

    Raises:
        DataError: the file cannot be read or has no rows, or a row is wrong; names the file, the line and the remedy.
    """
    is_csv = path.name.removesuffix(".gz").endswith(".csv")
    found = list(_csv_rows(path) if is_csv else _json_rows(path))
    if not found:
        raise DataError("the dataset has no rows", where=path, remedy=REMEDY)
    shape = _shape(found[0][1], found[0][0])
    return [_conversation(row, shape, where) for where, row in found]


def write_conversations(path: Path, rows: Iterable[Conversation]) -> None:
    """Writes rows as chat JSONL, UTF-8, one a line."""
    text = "".join(json.dumps(row.as_row(), ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).removeprefix(BOM)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        remedy = "Download it again, or give it its name without .gz."
        raise DataError("is no whole gzip file", where=path, remedy=remedy) from None
    except OSError as error:
        remedy = "Give the path of a chat JSONL file."
        raise DataError(f"cannot be read: {error.strerror}", where=path, remedy=remedy) from None


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError("is not UTF-8", where=where, remedy="Save the file as UTF-8.") from None


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_bytes(path).split(b"\n"), start=1):
        where = f"{path}:{number}"
        text = _text(line, where)
        if text.strip():
            yield where, _json(text, where)


def _json(text: str, where: str) -> dict[str, Any]:
    """A row, without the keys that say nothing (null): exports have every key in every row."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON: {getattr(error, 'msg', error)}", where=where, remedy=REMEDY) from None
    if not isinstance(row, dict):
        raise DataError("is no JSON object and has no list of messages", where=where, remedy=REMEDY)
    return _told(row)


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


def _csv_rows(path: Path) -> Iterator[Row]:
    table = _csv_cells(path)
    where, columns = next(table, ("", []))
    names = columns if len(set(columns)) == len(columns) else []
    if where and not any(set(pair) <= set(names) for pair in PAIRS):
        known = ", or ".join(" and ".join(pair) for pair in PAIRS)
        what = f"the columns are {', '.join(columns)}"
        raise DataError(what, where=where, remedy=f"The first line names them: {known}; and system, if there is one.")
    for where, cells in table:
        if len(cells) != len(columns):
            what = f"has {len(cells)} cells, and there are {len(columns)} columns"
            raise DataError(what, where=where, remedy=QUOTES)
        row = dict(zip(columns, cells, strict=True))
        yield where, {name: cell for name, cell in row.items() if name != "system" or cell}


def _csv_cells(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The table's lines as cells, and where each begins: a cell in quotes may go over several lines of the file."""
    lines = [_text(line, f"{path}:{number}") for number, line in enumerate(_bytes(path).split(b"\n"), start=1)]
    reader = csv.reader(io.StringIO("\n".join(lines), newline=""), strict=True)
    first = 1
    try:
        for cells in reader:
            if cells:
                yield f"{path}:{first}", cells
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"is no CSV: {error}", where=f"{path}:{first}", remedy=QUOTES) from None


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
    extra = next((key for key in row if key not in shape and not (is_pair_of_texts and key == "system")), None)
    if extra is not None:
        what = f"unknown key {extra!r}: a row has {' and '.join(shape[:2])} and nothing else"
        raise DataError(what, where=where, remedy=REMEDY)
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
    if set(message) - {"weight"} != {"role", "content"}:
        extra = ", ".join(repr(key) for key in message if key not in ("role", "content", "weight"))
        found = f" (got {extra})" if extra else ""
        raise DataError(f"a message must have role and content, and nothing else{found}", where=where, remedy=REMEDY)
    role, content = message["role"], _content(message["content"], where)
    if role not in ROLES:
        raise DataError(f"unknown role {role!r}", where=where, remedy=f"Roles are {', '.join(ROLES)}.")
    if not _is_text(content):
        raise DataError(f"the {role}'s content is no text", where=where, remedy=REMEDY)
    if role == "assistant" and not content.strip():
        raise DataError("has an empty answer", where=where, remedy="Remove the row or give it an answer.")
    return Message(role=role, content=content)


def _check_weight(message: Mapping[str, Any], where: str) -> None:
    """OpenAI's `weight` says whether an assistant's turn is trained on. That it is, is what happens here anyway."""
    if message.get("weight", 1) != 1:
        raise DataError(
            f"a message has the weight {message['weight']!r}: which turns bear loss is not a row's to say here",
            where=where,
            remedy="Remove `weight`. Where only the last turn of a row is to bear loss, set `train.turns: last`.",
        )


def _content(content: Any, where: str) -> Any:
    """A content's text, where it is a text in one part, as ChatGPT exports it."""
    if not isinstance(content, dict):
        return content
    parts = content.get("parts")
    if set(content) != {"content_type", "parts"} or content["content_type"] != "text" or not isinstance(parts, list):
        what = 'a content is neither a text nor {"content_type": "text", "parts": ["..."]}'
        raise DataError(what, where=where, remedy=REMEDY)
    if len(parts) != 1:
        what = f"a content has {len(parts)} parts: how they belong together is not said"
        raise DataError(what, where=where, remedy="Make them one part.")
    return parts[0]


def _is_text(content: Any) -> bool:
    """Whether it is a string that can be written down: JSON can escape half a character, and UTF-8 has no halves."""
    if not isinstance(content, str):
        return False
    try:
        content.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
