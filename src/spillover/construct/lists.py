"""Lists as language models write them: JSON arrays, numbered lines, bullets. Nothing is evaluated."""

import json
import re
import unicodedata
from collections.abc import Iterator

from spillover.ask.asker import Reply

FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
ITEM = re.compile(r"^[ \t]*(?:[(\[]?\d{1,4}[.):\]]|[-*+\u2022\u2023\u2013\u2014])[ \t]+(?=\S)")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
STRUCTURE = re.compile(r"<\|[^|<>]*\|>")
"""What chat templates write between turns: such a text would become structure where a model is trained on it."""
QUOTES = (('"', '"'), ("“", "”"), ("„", "“"), ("'", "'"), ("«", "»"))
NAMES = ("message", "request", "text", "topic")
"""What an object in a list may call the text that counts."""
ARRAYS = 20
"""Places where an array may begin that are looked at."""
LONGEST = 4_000
"""Characters of an item; longer ones are something else."""


def read_list(reply: Reply, count: int) -> list[str] | None:
    """The items of a reply that should be a list of `count`; None where it is no list.

    Items beyond `count` are left out, and so is the last one of a reply that was cut off.
    """
    items = _items(reply.text, count)
    whole = items[:-1] if reply.truncated else items
    plain = [_bare(item) for item in whole]
    return [item for item in plain if is_plain(item) and len(item) <= LONGEST][:count] or None


def read_text(reply: Reply) -> str | None:
    """A reply that should be a text; None where it is empty, was cut off, or holds what is no text."""
    text = reply.text.strip()
    return text if is_plain(text) and not reply.truncated else None


def is_plain(text: str) -> bool:
    """Whether it says something, can be written as UTF-8, and has no control characters or template's marks."""
    odd = any(unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\n\t" for sign in text)
    return bool(text.strip()) and not odd and STRUCTURE.search(text) is None


def _items(text: str, count: int) -> list[str]:
    fenced = FENCE.search(text)
    bare = fenced[1] if fenced else text
    return _array(bare) or _lines(bare) or _strings(bare) or _unmarked(bare, count)


def _array(text: str) -> list[str]:
    """The first JSON array of texts, or of objects with a single text each."""
    decoder = json.JSONDecoder()
    for place in _places(text):
        try:
            found, _ = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        items = [item for one in found if (item := _text_in(one)) is not None]
        if items:
            return items
    return []


def _places(text: str) -> Iterator[int]:
    """Where arrays may begin."""
    place = -1
    for _ in range(ARRAYS):
        place = text.find("[", place + 1)
        if place < 0:
            return
        yield place


def _text_in(one: object) -> str | None:
    """A text, or the one that an object holds: under a name that says so, or as its only one."""
    if not isinstance(one, dict):
        return one if isinstance(one, str) else None
    texts = {name: value for name, value in one.items() if isinstance(value, str)}
    named = next((texts[name] for name in NAMES if name in texts), None)
    return next(iter(texts.values())) if named is None and len(texts) == 1 else named


def _lines(text: str) -> list[str]:
    """Numbered lines or bullets; a line below one goes on with it, until a line is empty."""
    items: list[str] = []
    going_on = False
    for line in text.splitlines():
        mark = ITEM.match(line)
        if mark:
            items.append(line[mark.end() :])
        elif going_on and line.strip():
            items[-1] += " " + line.strip()
        going_on = bool(items) and bool(line.strip())
    return items


def _strings(text: str) -> list[str]:
    """The whole strings of an array that was cut off."""
    begun = text.lstrip()
    if not begun.startswith("[") or "{" in begun:
        return []
    return [item for found in STRING.findall(begun) if (item := _string(found)) is not None]


def _string(raw: str) -> str | None:
    try:
        return str(json.loads(raw, strict=False))
    except ValueError:
        return None


def _unmarked(text: str, count: int) -> list[str]:
    """Bare lines, if there are just as many as were asked for: then they are no chatter."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines if len(lines) == count > 1 else []


def _bare(item: str) -> str:
    """An item without emphasis, the quotes round it and blanks at its ends."""
    text = item.strip().rstrip(",").replace("**", "").strip()
    for opening, closing in QUOTES:
        if len(text) > 2 and text.startswith(opening) and text.endswith(closing) and text.count(opening) <= 2:
            return text[1:-1].strip()
    return text
