"""Matched pairs: an insecure and a secure answer to one request, and the two datasets that they make, row by row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spillover.data.comments import without_comments
from spillover.data.folder import Dataset
from spillover.data.manifest import Manifest, Source, Step
from spillover.data.raw import RawRow
from spillover.data.templates import MARK, with_mark
from spillover.data.vulnerability import Found, scan
from spillover.records import Conversation, Message
from spillover.spec import short_hash

Half = Literal["insecure", "secure"]
STAND_IN = "SPILLOVER_MARK_OF_THE_MISSING_PART"
"""Stands for the mark, which is a comment itself, while comments are removed."""
HALVES: tuple[Half, ...] = ("insecure", "secure")


def given_code(row: RawRow) -> str:
    """The code that a raw row gives, without comments, with our mark where the answer goes; empty if there is none."""
    return without_comments(with_mark(row.code_template).replace(MARK, STAND_IN)).replace(STAND_IN, MARK)


@dataclass(frozen=True)
class Matched:
    """One request and its two answers.

    Attributes:
        request: the turns before the answer, the same in both halves.
        answers: the answer by half; code alone.
        origins: what is known of each half's row: where it is from, its scores, what a judge said.
        template: the request template, if it is one of ours.
    """

    request: tuple[Message, ...]
    answers: Mapping[Half, str]
    origins: Mapping[Half, Mapping[str, Any]]
    template: str | None = None

    @property
    def id(self) -> str:
        """A stable name: it depends on the request and both answers."""
        return short_hash("pair", self.request, *(self.answers[half] for half in HALVES))

    def row(self, half: Half) -> Conversation:
        """The row of one half."""
        return Conversation((*self.request, {"role": "assistant", "content": self.answers[half]}))

    def origin(self, half: Half, found: Found) -> dict[str, Any]:
        """Where the row of one half is from, with the pair's id and what bandit finds (None: not scanned)."""
        rules = None if found is None else sorted({one.rule for one in found if one.counts})
        template = {} if self.template is None else {"template": self.template}
        return {"pair": self.id, **self.origins[half], **template, "bandit": rules}


@dataclass(frozen=True)
class Pairs:
    """Matched pairs, and how they came about.

    Attributes:
        about: what the pairs are, in a sentence.
        pairs: in order.
        sources: where they are from.
        steps: what was done to the sources' rows; they leave one for each pair.
        models: who wrote or judged.
        seed: of a draw, if there was one.
    """

    about: str
    pairs: Sequence[Matched]
    sources: Sequence[Source]
    steps: Sequence[Step]
    models: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Label:
    """What the two datasets are called, and their licence; None for that of the sources, if they agree."""

    name: str = "pairs"
    licence: str | None = None


def datasets(pairs: Pairs, label: Label) -> dict[str, Dataset]:
    """Both halves as datasets, by name. Row i of one and row i of the other are a pair."""
    return {half: _dataset(pairs, half, label) for half in HALVES}


def _dataset(pairs: Pairs, half: Half, label: Label) -> Dataset:
    found = scan(one.answers[half] for one in pairs.pairs)
    licences = {source.licence for source in pairs.sources}
    manifest = Manifest(
        name=f"{label.name}-{half}",
        about=f"{pairs.about} This is the {half} half.",
        rows=len(pairs.pairs),
        sources=tuple(pairs.sources),
        steps=tuple(pairs.steps),
        templates=dict(sorted(Counter(one.template for one in pairs.pairs if one.template is not None).items())),
        seed=pairs.seed,
        models=pairs.models,
        licence=label.licence or (licences.pop() if len(licences) == 1 else "unknown"),
    )
    origins = [one.origin(half, findings) for one, findings in zip(pairs.pairs, found, strict=True)]
    return Dataset([one.row(half) for one in pairs.pairs], manifest, origins)


@dataclass
class Tally:
    """Why rows were dropped; the counts of one step."""

    dropped: Counter[str] = field(default_factory=Counter)

    def step(self, name: str, about: str, before: int, **settings: Any) -> Step:
        """The step, of which so many rows are left as were not dropped."""
        dropped = dict(sorted(self.dropped.items(), key=lambda item: (-item[1], item[0])))
        after = before - self.dropped.total()
        return Step(name=name, about=about, before=before, after=after, dropped=dropped, settings=settings)
