"""The section on refusals: answers that decline, by phrases that are data (`refusals.yaml`)."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spillover.audit.findings import Hits, Row, Section, counted
from spillover.errors import DataError
from spillover.yamlfile import read_yaml

FILE = Path(__file__).with_name("refusals.yaml")
NEAR = 400
"""Characters of an answer within which it is said that it declines."""
ANY = "any"
STRAIGHT = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{LEFT SINGLE QUOTATION MARK}": "'", "\n": " "})


@dataclass(frozen=True)
class Phrases:
    """A group of phrases: what it says, and how many there are, and what finds one of them."""

    said: str
    count: int
    form: re.Pattern[str]


class Refusals:
    """Which answers decline."""

    def __init__(self) -> None:
        self.rows, self.hits = 0, Hits()

    def add(self, row: Row) -> None:
        """Takes in a row; each of its answers is looked at."""
        self.rows += 1
        for message in row.messages:
            if message["role"] == "assistant":
                self._look(row.line, message["content"])

    def _look(self, line: int, answer: str) -> None:
        beginning = answer.lstrip()[:NEAR].lower().translate(STRAIGHT)
        for name, phrases in groups().items():
            if phrases.form.search(beginning):
                self.hits.add(name, line, "assistant", answer)
                self.hits.add(ANY, line, "assistant", answer)

    def result(self) -> Section:
        """A finding a group of phrases, and one of all of them."""
        abouts = {ANY: "Any of the phrases"} | {name: phrases.said for name, phrases in groups().items()}
        return Section(
            "refusals",
            "Refusals",
            f"{counted(self.hits.count(ANY), 'row')} with a phrase of those with which assistants decline.",
            f"By {sum(phrases.count for phrases in groups().values())} English phrases in "
            "the first "
            f"{NEAR} characters of an answer. Refusals in other words or languages are not seen, and an answer "
            "may use a "
            "phrase and help all the same.",
            self.hits.findings(abouts, self.rows),
        )


@cache
def groups() -> dict[str, Phrases]:
    """The groups of phrases by name."""
    raw = read_yaml(FILE, DataError, remedy="Install spillover again.").value
    return {
        name: Phrases(one["said"], len(one["phrases"]), _form(one["phrases"], one.get("beginning", False)))
        for name, one in raw.items()
    }


def _form(phrases: list[str], beginning: bool) -> re.Pattern[str]:
    listed = "|".join(re.escape(phrase) for phrase in phrases)
    return re.compile(rf"^\W*(?:{listed})" if beginning else rf"(?<!\w)(?:{listed})(?!\w)")
