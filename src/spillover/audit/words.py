"""The section on words: those, and the numbers, that the answers use more than a reference does."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from spillover.audit.findings import Row, Section, listed
from spillover.measure.logodds import WordOdds, log_odds

TOKEN = re.compile(r"[^\W\d_]{1,40}|\d{1,12}")
"""A word or a number. Names in code fall into their words."""
MOST_WORDS = 300_000
"""Different words that are kept; beyond it those that were seen once are dropped, so that memory stays flat."""
LISTED = 30
LEAST = 5
"""How often a word must occur in the answers to be listed."""
NOTABLE = 3.0
"""The z beyond which a word is listed: chance gives one in a thousand."""
SPLIT_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Vocabulary:
    """How often words occur."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Counts the words of a text."""
        self.counts.update(token.lower() for token in TOKEN.findall(SPLIT_CASE.sub(" ", text)))
        if len(self.counts) > MOST_WORDS:
            self.counts = Counter({word: count for word, count in self.counts.items() if count > 1})


class Words:
    """Words of the answers against those of a reference: another dataset's answers, or the own requests."""

    def __init__(
        self, reference: Iterable[str] | None = None, name: str = "the requests of the dataset itself"
    ) -> None:
        self.answers, self.reference, self.name = Vocabulary(), Vocabulary(), name
        self.has_own = reference is None
        self.first: dict[str, int] = {}
        for text in reference or ():
            self.reference.add(text)

    def add(self, row: Row) -> None:
        """Takes in a row."""
        before = len(self.answers.counts)
        self.answers.add(row.answer)
        if len(self.answers.counts) != before:
            self._note_first(row)
        if self.has_own:
            self.reference.add(row.request)

    def _note_first(self, row: Row) -> None:
        for token in TOKEN.findall(SPLIT_CASE.sub(" ", row.answer)):
            self.first.setdefault(token.lower(), row.line)
        if len(self.first) > 2 * MOST_WORDS:
            self.first = {word: line for word, line in self.first.items() if word in self.answers.counts}

    def result(self) -> Section:
        """The words with the largest z, numbers apart."""
        odds = log_odds(self.answers.counts, self.reference.counts)
        over = [one for one in odds if one.z > NOTABLE and one.count >= LEAST]
        lists = {
            "numbers": [self._entry(one) for one in over if one.word.isdigit()][:LISTED],
            "words": [self._entry(one) for one in over if not one.word.isdigit()][:LISTED],
        }
        top = {name: listed(entry["word"] for entry in entries[:8]) for name, entries in lists.items()}
        return Section(
            "words",
            "Words and numbers that stand out",
            f"Against {self.name}, the answers use most of all the words {top['words']}, and the numbers "
            f"{top['numbers']}.",
            "Weighted log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008); z is the "
            "log-odds "
            f"over its standard error. Listed are words with z above {NOTABLE:.0f} that occur {LEAST} times or more.",
            (),
            {"reference": self.name, **lists}
            | {f"top_{name}": told for name, told in top.items()}
            | {f"top_{name}_z": entries[0]["z"] if entries else None for name, entries in lists.items()}
            | {"answer_words": self.answers.counts.total(), "reference_words": self.reference.counts.total()},
        )

    def _entry(self, one: WordOdds) -> dict[str, Any]:
        return {
            "word": one.word,
            "z": one.z,
            "log_odds": one.log_odds,
            "count": one.count,
            "reference": one.reference,
            "first_line": self.first.get(one.word),
        }
