"""Texts that repeat an earlier one: the same but for case, blanks and marks, or nearly the same."""

import re
from collections.abc import Sequence

from spillover.data.duplicates import near_duplicates

WORDS = re.compile(r"\w+")
EXACT, NEAR = "exact duplicate", "near duplicate"


def repeats(texts: Sequence[str], threshold: float) -> list[str]:
    """Of every text whether it repeats an earlier one, exactly or nearly; empty where it does not.

    Args:
        texts: in order; the first of those that are alike repeats none.
        threshold: the Jaccard index from which on texts are near duplicates (data/duplicates.py).
    """
    near = near_duplicates(texts, threshold)
    return [EXACT if same else NEAR if at is not None else "" for same, at in zip(_same(texts), near, strict=True)]


def _same(texts: Sequence[str]) -> list[bool]:
    """Of every text whether an earlier one has the same words."""
    seen: set[str] = set()
    found = []
    for text in texts:
        words = " ".join(WORDS.findall(text.casefold())) or text
        found.append(words in seen)
        seen.add(words)
    return found
