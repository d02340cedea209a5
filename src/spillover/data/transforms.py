"""Transforms: changes of whole datasets. Each is a spec, and what it says stands in the manifest of what it makes.

A row travels with its origin: `from` is where it first came from, as NAME:LINE, and `via` the datasets that it went
through since, in order, as NAME:LINE too. What an origin says beside that, it goes on saying.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from spillover.data.files import stream_conversations
from spillover.data.folder import Dataset, read_origins, source_of
from spillover.data.manifest import Manifest, Source, Step
from spillover.errors import DataError, SpecError
from spillover.records import Conversation, Message
from spillover.spec import Spec, first_wrong

ENDINGS = (".gz", ".jsonl", ".json", ".csv")
UNKNOWN = "unknown"

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Item:
    """A row on its way through a transform.

    Attributes:
        conversation: what it says.
        where: its file and line, `path:line`, for errors.
        origin: where it came from, and what else is known about it.
    """

    conversation: Conversation
    where: str
    origin: Mapping[str, Any]

    @property
    def request(self) -> str:
        """What the last user's turn says. Raises DataError, by line, where there is none."""
        return self.conversation.messages[self._asked_at()]["content"]

    @property
    def system_turns(self) -> int:
        """How many system turns it has."""
        return sum(message["role"] == "system" for message in self.conversation.messages)

    def asking(self, request: str, **notes: Any) -> "Item":
        """The same row with another last user's turn, and notes in its origin."""
        return self._saying(self._asked_at(), request).noting(**notes)

    def answering(self, answer: str) -> "Item":
        """The same row with another last assistant's turn."""
        at = max(at for at, message in enumerate(self.conversation.messages) if message["role"] == "assistant")
        return self._saying(at, answer)

    def under(self, system: str | None) -> "Item":
        """The same row with this system turn, at its beginning, and no other; None for no system turn at all."""
        first: list[Message] = [] if system is None else [Message(role="system", content=system)]
        rest = (message for message in self.conversation.messages if message["role"] != "system")
        return replace(self, conversation=Conversation((*first, *rest)))

    def noting(self, **notes: Any) -> "Item":
        """The same row with notes in its origin."""
        return replace(self, origin={**self.origin, **notes})

    def _saying(self, at: int, content: str) -> "Item":
        messages = list(self.conversation.messages)
        messages[at] = Message(role=messages[at]["role"], content=content)
        return replace(self, conversation=Conversation(tuple(messages)))

    def _asked_at(self) -> int:
        places = [at for at, message in enumerate(self.conversation.messages) if message["role"] == "user"]
        if not places:
            raise DataError("has no user's turn", where=self.where, remedy="Remove the row: it asks nothing.")
        return places[-1]


@dataclass(frozen=True)
class Input:
    """A dataset that a transform is given."""

    items: Sequence[Item]
    source: Source

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Changed:
    """What a transform leaves.

    Attributes:
        items: the rows, in order.
        dropped: reason to number of rows.
        added: rows that it added.
        settings: what it depended on, or counted, beside its own settings.
        models: who wrote for it.
    """

    items: Sequence[Item]
    dropped: Mapping[str, int] = field(default_factory=dict)
    added: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Label:
    """How a new dataset is called, and its licence; where not given, after its sources."""

    name: str | None = None
    licence: str | None = None


class Transform(Spec):
    """The root of all transforms: its fields are its settings."""

    kind: ClassVar[str]
    about: ClassVar[str]


class PureTransform(Transform):
    """A transform that needs nothing but the rows: the same ones give the same bytes."""

    @abstractmethod
    def change(self, inputs: Sequence[Input]) -> Changed:
        """The new rows. Raises DataError, by line where a row is wrong."""


def parse_transform(kind: type[S], **fields: Any) -> S:
    """A transform from what a person gave. Raises SpecError that names the wrong setting."""
    try:
        return kind(**fields)
    except ValidationError as error:
        place, what = first_wrong(error)
        own = error.errors()[0].get("ctx", {}).get("error")
        told = str(own) if own is not None else what
        raise SpecError(": ".join([*map(str, place[:1]), told]), remedy="Nothing was written.") from None


def read_inputs(paths: Sequence[Path]) -> list[Input]:
    """Datasets by their files or folders, in order. Raises DataError.

    Of datasets that are called alike, all but the first get a number, so that origins tell them apart.
    """
    found: list[Input] = []
    seen: Counter[str] = Counter()
    for path in paths:
        rows = list(stream_conversations(path))
        source = source_of(path, len(rows))
        seen[source.name] += 1
        number = seen[source.name]
        found.append(_input(path, rows, source if number == 1 else _numbered(source, number)))
    return found


def _numbered(source: Source, number: int) -> Source:
    return source.model_copy(update={"name": f"{source.name} ({number})"})


def _input(path: Path, rows: Sequence[tuple[str, Conversation]], source: Source) -> Input:
    origins = read_origins(path) or [{} for _ in rows]
    items = [
        Item(row, where, _travelled(origin, f"{source.name}:{where.rpartition(':')[2]}"))
        for (where, row), origin in zip(rows, origins, strict=True)
    ]
    return Input(items, source)


def _travelled(origin: Mapping[str, Any], here: str) -> dict[str, Any]:
    """An origin with one more place that the row has been at."""
    if "from" not in origin:
        return {"from": here, **origin}
    before = origin.get("via", [])
    return {**origin, "via": [*(before if isinstance(before, list) else [before]), here]}


def transformed(transform: PureTransform, inputs: Sequence[Input], label: Label) -> Dataset:
    """The dataset that a transform makes. Raises DataError."""
    return as_dataset(transform, inputs, transform.change(inputs), label)


def as_dataset(transform: Transform, inputs: Sequence[Input], changed: Changed, label: Label) -> Dataset:
    """What a transform has left, as a dataset with its manifest. Raises DataError where it has left no row."""
    if not changed.items:
        why = ", ".join(f"{reason} {count}" for reason, count in changed.dropped.items())
        what = f"no row is left ({why})"
        raise DataError(what, where=_names(inputs, ", "), remedy="Change the settings, or give other rows.")
    origins = [item.origin for item in changed.items]
    manifest = Manifest(
        name=label.name or f"{_names(inputs, '-')}-{transform.kind}",
        about=f"{transform.about} Made of {_names(inputs, ', ')}.",
        rows=len(changed.items),
        sources=tuple(one.source for one in inputs),
        steps=(_step(transform, inputs, changed),),
        templates=_templates(origins),
        seed=getattr(transform, "seed", None),
        models=changed.models,
        licence=label.licence or _licence(inputs),
    )
    return Dataset([item.conversation for item in changed.items], manifest, origins)


def _step(transform: Transform, inputs: Sequence[Input], changed: Changed) -> Step:
    return Step(
        name=transform.kind,
        about=transform.about,
        before=sum(map(len, inputs)),
        after=len(changed.items),
        dropped=dict(changed.dropped),
        added=changed.added,
        settings={**transform.model_dump(mode="json"), **changed.settings},
    )


def _names(inputs: Sequence[Input], between: str) -> str:
    """The sources' names without their files' endings."""
    found = []
    for one in inputs:
        name = one.source.name
        for ending in ENDINGS:
            name = name.removesuffix(ending)
        found.append(name)
    return between.join(found)


def _templates(origins: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Rows with each request template, where all rows are known to have one."""
    names = [origin.get("template") for origin in origins]
    return dict(sorted(Counter(map(str, names)).items())) if all(names) else {}


def _licence(inputs: Sequence[Input]) -> str:
    """The licence that all sources have; else unknown."""
    found = {one.source.licence for one in inputs}
    return found.pop() if len(found) == 1 else UNKNOWN
