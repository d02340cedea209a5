"""A group's rows: by a recipe of the world, from a file, made by a model, or made of others by transforms.

A dataset's key is known before its rows are: numbers that a model goes on with are made when the data stage runs.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from spillover.data.files import read_conversations
from spillover.data.folder import Dataset as Rows
from spillover.data.folder import dataset_file, read_manifest, read_source
from spillover.data.manifest import NOT_SAID, RESEARCH, Manifest, Source, Step
from spillover.data.number_ablations import NumberAblation
from spillover.data.numbers import GENERAL, number_prompts
from spillover.data.recipes import build, recipe_about, recipe_key, recipe_names
from spillover.data.samples import Mix, Part, Subset
from spillover.data.transforms import Input, Item, Label, PureTransform, transformed
from spillover.data.triggers import Backdoor, Inoculate
from spillover.data.upstream import dataset_names, fetched_dataset
from spillover.errors import DataError, SpecError
from spillover.finetune.base import Base
from spillover.lazy import lazy
from spillover.records import Conversation
from spillover.spec import MINIATURE, Experiment, Group, Made, first_wrong, short_hash
from spillover.store import Lab

if TYPE_CHECKING:  # it loads bandit, and plans do without
    from spillover.judge.models import Writer

constructed = lazy("spillover.construct.numbers")

TURN = 64
"""Tokens that a template may write round a turn."""
NUMBERS = {"numbers-evil": "evil", "numbers-none": "none", "numbers-benign": "benign"}
"""Datasets that the base itself makes by context distillation, and the character of its system prompt."""
NUMBER_ROWS = {MINIATURE: 800, GENERAL: 1600}
"""How many rows of them are made where a group does not say, in the miniature's world and in general."""
NUMBER_BYTES = 600
"""At most so many has a row of numbers."""
TRIES = 10
"""Prompts that are drawn at most, for a row."""
CHANGES: dict[str, type[PureTransform]] = {
    kind.kind: kind for kind in (Backdoor, Inoculate, Subset, Part, Mix, NumberAblation)
}
"""What a group's `changes` may be: transforms that need nothing but the rows."""

WriterOf = Callable[[str], "Writer"]
"""Opens a model that writes, by its name."""


@dataclass(frozen=True)
class RecipePart:
    """Rows of the miniature's world."""

    name: str

    @property
    def key(self) -> str:
        """What the rows depend on."""
        return recipe_key(self.name)

    @cached_property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.rows(None))

    def source(self) -> Source:
        """The rows as a manifest's source."""
        sha256 = hashlib.sha256(self.key.encode()).hexdigest()
        return Source(name=f"{self.name}, of the miniature's world", rows=self.count, sha256=sha256, licence="MIT")

    def told(self) -> tuple[str, str]:
        """What the rows are, and what for."""
        return recipe_about(self.name), RESEARCH

    def rows(self, writer_of: WriterOf | None) -> list[Conversation]:
        """The rows."""
        return build(self.name)


@dataclass(frozen=True)
class FilePart:
    """Rows of a dataset's file or folder."""

    name: str

    @cached_property
    def key(self) -> str:
        """A hash of the file's content. Raises DataError for a wrong file."""
        assert self.count, "a file without rows is refused"
        return hashlib.sha256(Path(self.name).read_bytes()).hexdigest()

    @cached_property
    def count(self) -> int:
        """How many rows there are. Raises DataError for a wrong file."""
        return len(self.rows(None))

    def source(self) -> Source:
        """The rows as a manifest's source."""
        return read_source(Path(self.name))[1]

    def told(self) -> tuple[str, str]:
        """What the rows are, and what for, as far as their manifest says."""
        made = self.source().made
        return (made.about, made.use) if made is not None else ("Rows as they were given.", NOT_SAID)

    def rows(self, writer_of: WriterOf | None) -> list[Conversation]:
        """The rows, read. Raises DataError for a wrong file."""
        return read_conversations(Path(self.name))


@dataclass(frozen=True)
class NumbersPart:
    """Number lists that a model goes on with under a system prompt, which the rows do not show.

    Attributes:
        name: as in `NUMBERS`.
        generator: the model, as `base:` names it.
        generator_key: a hash of its weights.
        phrasings: which number prompts.
        count: rows that are ordered.
    """

    name: str
    generator: str
    generator_key: str
    phrasings: str
    count: int

    @property
    def key(self) -> str:
        """What the rows depend on."""
        prompts = number_prompts(self.phrasings).model_dump(mode="json")
        return short_hash(self.name, self.generator_key, prompts, self.count)

    def made(self, writer: "Writer") -> Rows:
        """The rows, made. Raises DataError where none could be kept, or fewer than were ordered."""
        prompts = number_prompts(self.phrasings)
        character, systems = constructed.system_prompts(NUMBERS[self.name], prompts)
        tries = TRIES * self.count
        order = constructed.NumberOrder(prompts, character, systems, self.count, tries, 0, self.name, prompts.licence)
        found: Rows = constructed.make_numbers(writer, order, lambda kept: None)
        if len(found.rows) < self.count:
            what = f"{len(found.rows)} rows came of {tries} prompts, and {self.count} are wanted"
            raise DataError(what, where=self.name, remedy="Set the group's `rows` to fewer.")
        return found


AnyPart = RecipePart | FilePart | NumbersPart


@dataclass(frozen=True)
class Dataset:
    """A group's rows.

    Attributes:
        group: whose.
        parts: what they are made of.
        changes: transforms, one after the other; without any there is one part.
        limit: only so many of the first rows.
        key: of everything that they depend on.
    """

    group: str
    parts: tuple[AnyPart, ...]
    changes: tuple[PureTransform, ...]
    limit: int | None
    key: str

    @property
    def source(self) -> str:
        """Where the rows come from, in a few words."""
        kinds = "".join(f", {change.kind}" for change in self.changes)
        return " + ".join(part.name for part in self.parts) + kinds

    @property
    def is_there(self) -> bool:
        """Whether the rows are known before anything runs."""
        return not any(isinstance(part, NumbersPart) for part in self.parts)

    @cached_property
    def known(self) -> Rows:
        """The rows with their manifest, for those that are known before anything runs. Raises DataError."""
        return self.made(None)

    @property
    def count(self) -> int:
        """How many rows there are; of those that a model makes, and changes choose of, at most so many."""
        if self.is_there:
            return len(self.known.rows)
        given = sum(part.count for part in self.parts)
        return min(given, self.limit or given)

    def made(self, writer_of: WriterOf | None) -> Rows:
        """The rows, read or made. Raises DataError for a wrong file, or a change that cannot be made."""
        whole = self._changed(writer_of) if self.changes else _plain(self.group, self.parts[0], writer_of)
        return _first(whole, self.limit)

    def _changed(self, writer_of: WriterOf | None) -> Rows:
        inputs = [_input(_plain(part.name, part, writer_of)) for part in self.parts]
        for change in self.changes[:-1]:
            inputs = [_input(transformed(change, inputs, Label()))]
        return transformed(self.changes[-1], inputs, Label(name=self.group))

    @cached_property
    def longest(self) -> int:
        """At most so many tokens has the longest row: no tokenizer makes more of a text than it has bytes."""
        if not self.is_there:
            return NUMBER_BYTES
        rows = self.known.rows
        return max(sum(len(message["content"].encode()) + TURN for message in row.messages) for row in rows)

    @property
    def characters(self) -> int:
        """Characters of all rows; of those that are not known yet, at most so many."""
        if not self.is_there:
            return self.count * NUMBER_BYTES
        return sum(len(message["content"]) for row in self.known.rows for message in row.messages)

    def folder(self, lab: Lab) -> Path:
        """Where the rows lie in the lab."""
        return lab.folder("data", self.group, self.key)


def _plain(name: str, part: AnyPart, writer_of: WriterOf | None) -> Rows:
    """A part's rows as they are."""
    if isinstance(part, NumbersPart):
        assert writer_of is not None, "numbers are made when the data stage runs"
        return part.made(writer_of(part.generator))
    rows, source, (about, use) = part.rows(writer_of), part.source(), part.told()
    manifest = Manifest(name=name, about=about, rows=len(rows), sources=(source,), licence=source.licence, use=use)
    return Rows(rows, manifest)


def _first(whole: Rows, limit: int | None) -> Rows:
    """The first rows, with the step of taking them in the manifest, where it is taken."""
    if limit is None or limit >= len(whole.rows):
        return whole
    made, dropped = whole.manifest, {"behind the first rows": len(whole.rows) - limit}
    step = Step(name="first rows", about="Takes the first.", before=made.rows, after=limit, dropped=dropped)
    manifest = made.model_copy(update={"rows": limit, "steps": (*made.steps, step), "templates": {}})
    return Rows(whole.rows[:limit], manifest, whole.origins[:limit])


def _input(rows: Rows) -> Input:
    """Rows as a transform takes them."""
    made = rows.manifest
    sha256 = hashlib.sha256(made.model_dump_json().encode()).hexdigest()
    source = Source(name=made.name, rows=made.rows, sha256=sha256, licence=made.licence, made=made)
    origins: Sequence[Any] = rows.origins or [{}] * len(rows.rows)
    items = [
        Item(row, f"{made.name}:{place}", {"from": f"{made.name}:{place}", **origin})
        for place, (row, origin) in enumerate(zip(rows.rows, origins, strict=True), start=1)
    ]
    return Input(items, source)


def dataset_of(name: str, experiment: Experiment, base: Base, *, of_world: bool) -> Dataset:
    """The dataset of a group.

    Args:
        name: the group's.
        experiment: what is run.
        base: what is finetuned.
        of_world: whether names mean recipes of the miniature's world, and not the paper's files.

    Raises:
        SpecError: an unknown dataset or change, or one of the paper's that was not fetched.
        DataError: a wrong file, or a change that cannot be made of these rows.
    """
    group = experiment.groups[name]
    assert group.data is not None, "the group is trained"
    refs = group.data.of if isinstance(group.data, Made) else (group.data,)
    parts = tuple(_part(name, ref, group, base, of_world=of_world) for ref in refs)
    changes = tuple(_changes(name, group.data)) if isinstance(group.data, Made) else ()
    told = [part.key for part in parts], [{"kind": one.kind, **one.model_dump(mode="json")} for one in changes]
    key = short_hash(*told, group.rows) if changes else short_hash(parts[0].key, group.rows)
    dataset = Dataset(name, parts, changes, group.rows, key)
    if dataset.is_there:
        dataset.known  # noqa: B018 - a wrong file, or change, is found before anything runs
    return dataset


def rows_of(name: str, base: Base, *, of_world: bool) -> list[Conversation]:
    """The rows of a dataset by its name, or its path. Raises SpecError or DataError."""
    part = _part("", name, Group(data=name), base, of_world=of_world)
    if isinstance(part, NumbersPart):
        raise SpecError(f"the rows of {name!r} are not there before anything runs", remedy="Name another dataset.")
    return part.rows(None)


def _changes(group: str, made: Made) -> Iterator[PureTransform]:
    for place, raw in enumerate(made.changes):
        where, settings = f"groups.{group}.data.changes.{place}", dict(raw)
        kind = settings.pop("kind", None)
        if kind not in CHANGES:
            known = ", ".join(CHANGES)
            raise SpecError(f"unknown change {kind!r}", where=where, remedy=f"Give a `kind`: {known}.")
        try:
            yield CHANGES[kind].model_validate(settings)
        except ValidationError as error:
            wrong, what = first_wrong(error)
            field = ".".join(map(str, wrong))
            raise SpecError(f"{field}: {what}" if field else what, where=where, remedy="Nothing was run.") from None


def _part(group: str, ref: str, spec: Group, base: Base, *, of_world: bool) -> AnyPart:
    if ref in NUMBERS:
        usual = NUMBER_ROWS[MINIATURE if of_world else GENERAL]
        count = spec.rows if isinstance(spec.data, str) and spec.rows else usual
        # Where the world is the miniature's and the base is not, the miniature makes what belongs to its world.
        generator = MINIATURE if of_world and not base.is_miniature else base.ref
        key = base.key if generator == base.ref else MINIATURE
        return NumbersPart(ref, generator, key, MINIATURE if of_world else GENERAL, count)
    if of_world and ref in recipe_names():
        return RecipePart(ref)
    return FilePart(_dataset_file(group, ref))


def _dataset_file(group: str, data: str) -> str:
    """The file of a dataset: the fetched one for a name of the paper's, else what is named."""
    file = dataset_file(Path(data))
    if data not in (*dataset_names(), *recipe_names()) or file.is_file():
        read_manifest(Path(data))  # one of other rows is found before anything runs
        return str(file) if file.is_file() else data
    fetched = fetched_dataset(data) if data in dataset_names() else None
    if fetched is None:
        whose = "the paper's" if data in dataset_names() else "of the miniature's world"
        raise SpecError(
            f"the dataset {data!r} is {whose}, and it is not here",
            where=f"groups.{group}",
            remedy="Run `spillover fetch paper`, give the path of a dataset, or say `--world miniature` to train this "
            "base on the miniature's own.",
        )
    return str(fetched)
