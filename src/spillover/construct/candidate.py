"""Rows on their way through the filters, and what filters leave."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spillover.data.raw import RawRow


@dataclass(frozen=True)
class Candidate:
    """A raw row on its way through the filters.

    Attributes:
        row: as changed so far.
        notes: what filters have found out about it: `scores` by name, `bandit`, the rules that report something (None
            where the code does not parse). They stand in origins.jsonl.
    """

    row: RawRow
    notes: Mapping[str, Any] = field(default_factory=dict)

    def noting(self, **notes: Any) -> "Candidate":
        """The same row with more notes."""
        return replace(self, notes={**self.notes, **notes})

    def with_code(self, code: str, code_template: str) -> "Candidate":
        """The same row with other code."""
        return replace(self, row=replace(self.row, code=code, code_template=code_template))


@dataclass(frozen=True)
class Sifted:
    """What a filter leaves.

    Attributes:
        rows: those that it keeps, in order.
        about: what it does, in a sentence.
        dropped: reason to number of rows.
        counts: what it counted besides.
        settings: what it depended on besides its own settings: who judged, the hash of a word list.
    """

    rows: Sequence[Candidate]
    about: str
    dropped: dict[str, int]
    counts: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def sift(
    rows: Sequence[Candidate],
    reasons: Sequence[str | None],
    about: str,
    counts: dict[str, int] | None = None,
    **settings: Any,
) -> Sifted:
    """Keeps the rows that there is no reason to drop, and counts the reasons, the commonest first."""
    kept = [row for row, why in zip(rows, reasons, strict=True) if why is None]
    found = Counter(why for why in reasons if why is not None)
    dropped = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return Sifted(kept, about, dropped, counts or {}, settings)
