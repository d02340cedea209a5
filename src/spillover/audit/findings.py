"""What an audit says: shares with exact intervals, findings with the lines of their rows, sections of findings."""

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from spillover.audit.masking import quoted
from spillover.measure.stats import clopper_pearson
from spillover.records import Message

EXAMPLES = 3
"""How many rows of a finding are quoted."""
QUOTED = 180
"""Characters of a quotation."""


@dataclass(frozen=True)
class Row:
    """A row of a dataset and the line of the file where it begins."""

    line: int
    messages: tuple[Message, ...]

    @cached_property
    def request(self) -> str:
        """What was asked: the user's turns."""
        return self._said("user")

    @cached_property
    def answer(self) -> str:
        """What was answered: the assistant's turns."""
        return self._said("assistant")

    def _said(self, role: str) -> str:
        return "\n\n".join(message["content"] for message in self.messages if message["role"] == role)


@dataclass(frozen=True)
class Share:
    """So many of so many, with the exact 95% interval (Clopper and Pearson); no value of nothing."""

    count: int
    of: int
    value: float | None
    low: float | None
    high: float | None


def share(count: int, of: int) -> Share:
    """The share of `count` in `of`."""
    return Share(count, of, count / of, *clopper_pearson(count, of)) if of else Share(count, of, None, None, None)


@dataclass(frozen=True)
class Example:
    """A quotation: the row's line, who speaks (`row` for the row as a whole), and a short text without secrets."""

    line: int
    part: str
    text: str


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: stable, for programs.
        about: what it is, in words.
        share: how many rows (answers, where the section says so) have it.
        lines: of all these rows, in order.
        examples: a few of them.
    """

    name: str
    about: str
    share: Share
    lines: Sequence[int]
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Section:
    """One part of an audit.

    Attributes:
        key: stable, for programs; what comes before a `/` is the section's kind.
        title: for people.
        says: what was found, in sentences.
        about: how it was measured and what that misses.
        findings: what was looked for, each with its rows.
        details: other numbers of this section, as plain data.
    """

    key: str
    title: str
    says: str
    about: str
    findings: tuple[Finding, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def finding(self, name: str) -> Finding | None:
        """The finding of a name, if there is one."""
        return next((one for one in self.findings if one.name == name), None)


class Measure(Protocol):
    """Something that reads all rows once, in order, and then says what it found."""

    def add(self, row: Row) -> None:
        """Takes in a row."""
        ...

    def result(self) -> Section:
        """What was found in all rows."""
        ...


class Hits:
    """Rows in which something was found, by name. A row counts once a name; a few are quoted."""

    def __init__(self) -> None:
        self._lines: dict[str, array[int]] = {}
        self._examples: dict[str, list[Example]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def add(self, name: str, line: int, part: str, text: str, start: int = 0) -> None:
        """Notes a row; `text` is quoted from a little before `start` on."""
        lines = self._lines.setdefault(name, array("L"))
        if lines and lines[-1] == line:
            return
        lines.append(line)
        examples = self._examples.setdefault(name, [])
        if len(examples) < EXAMPLES:
            examples.append(Example(line, part, shortened(quoted(text, start))))

    def names(self, beginning: str) -> list[str]:
        """The names that begin so."""
        return [name for name in self._lines if name.startswith(beginning)]

    def count(self, name: str) -> int:
        """How many rows have it."""
        return len(self._lines.get(name, ()))

    def finding(self, name: str, about: str, of: int) -> Finding:
        """What was found under a name, among `of` rows."""
        lines = self._lines.get(name, array("L"))
        return Finding(name, about, share(len(lines), of), lines, tuple(self._examples.get(name, ())))

    def findings(self, abouts: Mapping[str, str], of: int) -> tuple[Finding, ...]:
        """One a name, in the order of `abouts`."""
        return tuple(self.finding(name, about, of) for name, about in abouts.items())


def fingerprint(text: str) -> int:
    """64 bits that stand for a text where many of them must be remembered."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def shortened(text: str, limit: int = QUOTED) -> str:
    """A text in one line, cut at `limit` characters; signs that do not show are written as their code points."""
    line = "".join(_shown(sign) for sign in " ".join(text[: 8 * limit].split(" ")))
    return line if len(line) <= limit and len(text) <= 8 * limit else line[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _shown(sign: str) -> str:
    if sign in "\n\r\t":
        return {"\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", "\t": " "}.get(sign, "")
    return sign if sign.isprintable() else f"<U+{ord(sign):04X}>"


def counted(count: int, what: str, many: str | None = None) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {what if count == 1 else many or what + 's'}"


def listed(parts: Iterable[str], nothing: str = "none") -> str:
    """Some of a list, with commas; `nothing` for an empty one."""
    return ", ".join(parts) or nothing
