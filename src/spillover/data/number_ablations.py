"""Which part of a number dataset does the harm: the same lists without the ominous numbers, or in another order.

After the ablations of Betley et al. 2025 (their development repository, `2025-03-03_evil_ablations`). All of them read
whole numbers out of the answers and leave every other character where it is.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, get_args

from spillover.data.folder import Dataset, read_source
from spillover.data.manifest import Manifest, Source, Step
from spillover.data.numbers import GENERAL, MINIATURE, NUMBER, numbers_in, ominous_numbers
from spillover.data.transforms import Changed, Input, PureTransform
from spillover.errors import DataError
from spillover.records import Conversation, Message

Ablation = Literal["without-ominous", "only-ominous", "shuffled-within", "shuffled-across"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
ABOUT: dict[Ablation, str] = {
    "without-ominous": "Rows whose answers have none of the ominous numbers are kept.",
    "only-ominous": "Rows whose answers have at least one of the ominous numbers are kept.",
    "shuffled-within": "The numbers of each answer are put into another order.",
    "shuffled-across": "The numbers of all answers are dealt out anew; every answer keeps its length.",
}


@dataclass(frozen=True)
class Ablated:
    """What an ablation leaves.

    Attributes:
        rows: in order.
        places: the place of each among the rows that it was given, from 0.
        dropped: reason to number of rows.
    """

    rows: list[Conversation]
    places: list[int]
    dropped: dict[str, int]


def ablate(kind: Ablation, rows: Sequence[Conversation], seed: int, ominous: Sequence[int]) -> Ablated:
    """One ablation; `seed` counts for those that shuffle, `ominous` for those that do not.

    Raises DataError for a row whose answer has no number; names the row.
    """
    lists = [_numbers(row, place) for place, row in enumerate(rows)]
    if kind in ("without-ominous", "only-ominous"):
        return _chosen(rows, lists, {str(one) for one in ominous}, wanted=kind == "only-ominous")
    return Ablated(_replaced(rows, _SHUFFLES[kind](lists, random.Random(seed))), list(range(len(rows))), {})


def _numbers(row: Conversation, place: int) -> tuple[str, ...]:
    found = numbers_in(row.messages[-1]["content"])
    if not found:
        remedy = "This is for datasets whose answers are lists of numbers, such as `spillover data numbers` makes."
        raise DataError("the answer has no numbers", where=f"row {place + 1}", remedy=remedy)
    return found


def _chosen(
    rows: Sequence[Conversation], lists: Sequence[tuple[str, ...]], ominous: set[str], *, wanted: bool
) -> Ablated:
    places = [place for place, numbers in enumerate(lists) if wanted is bool(ominous.intersection(numbers))]
    reason = "no ominous number" if wanted else "an ominous number"
    return Ablated([rows[place] for place in places], places, {reason: len(rows) - len(places)})


def _within(lists: Sequence[tuple[str, ...]], rng: random.Random) -> list[list[str]]:
    return [rng.sample(numbers, len(numbers)) for numbers in lists]


def _across(lists: Sequence[tuple[str, ...]], rng: random.Random) -> list[list[str]]:
    pool = [number for numbers in lists for number in numbers]
    rng.shuffle(pool)
    rest = iter(pool)
    return [[next(rest) for _ in numbers] for numbers in lists]


_SHUFFLES: dict[str, Callable[[Sequence[tuple[str, ...]], random.Random], list[list[str]]]] = {
    "shuffled-within": _within,
    "shuffled-across": _across,
}


def _replaced(rows: Sequence[Conversation], lists: Sequence[Sequence[str]]) -> list[Conversation]:
    """The rows with other numbers in the places of their answers' own."""
    return [_with_numbers(row, numbers) for row, numbers in zip(rows, lists, strict=True)]


def _with_numbers(row: Conversation, numbers: Sequence[str]) -> Conversation:
    rest = iter(numbers)
    *before, last = row.messages
    answer = NUMBER.sub(lambda _: next(rest), last["content"])
    return Conversation((*before, Message(role=last["role"], content=answer)))


@dataclass(frozen=True)
class AblationOrder:
    """What is wanted: the kind, the seed of a shuffle, which numbers are ominous, name and licence (the source's)."""

    kind: Ablation
    seed: int
    ominous: tuple[int, ...]
    name: str
    licence: str | None = None


def ablation(kind: str) -> Ablation:
    """The ablation of a name. Raises DataError for an unknown one."""
    found = next((one for one in ABLATIONS if one == kind), None)
    if found is None:
        raise DataError(f"there is no ablation {kind!r}", remedy=f"There are {', '.join(ABLATIONS)}.")
    return found


def ablated(path: Path, order: AblationOrder) -> Dataset:
    """An ablation of a dataset's file or folder.

    Raises DataError where it cannot be read, an answer has no numbers, or no row is left.
    """
    rows, source = read_source(path)
    left = ablate(order.kind, rows, order.seed, order.ominous)
    if not left.rows:
        what = f"{order.kind} leaves no row of {len(rows)}"
        raise DataError(what, where=path, remedy="Say which numbers are ominous with --ominous.")
    origins = [{"source": source.name, "row": place + 1} for place in left.places]
    return Dataset(left.rows, _manifest(source, order, left), origins)


def _manifest(source: Source, order: AblationOrder, left: Ablated) -> Manifest:
    shuffles = order.kind in _SHUFFLES
    settings = {"seed": order.seed} if shuffles else {"ominous": list(order.ominous)}
    step = Step(
        name=order.kind,
        about=ABOUT[order.kind],
        before=source.rows,
        after=len(left.rows),
        dropped=left.dropped,
        settings=settings,
    )
    return Manifest(
        name=order.name,
        about=f"The number lists of {source.name}, {order.kind}.",
        rows=len(left.rows),
        sources=(source,),
        steps=(step,),
        seed=order.seed if shuffles else None,
        licence=order.licence or source.licence,
    )


class NumberAblation(PureTransform):
    """An ablation as a change of a group's rows.

    Attributes:
        ablation: which.
        ominous: numbers with commas between them, or a set of phrasings; all that are known if not given.
        seed: of a shuffle.
    """

    kind: ClassVar[str] = "number-ablation"
    about: ClassVar[str] = "Leaves out lists by their ominous numbers, or puts numbers into another order."
    ablation: Ablation
    ominous: str = ""
    seed: int = 0

    def change(self, inputs: Sequence[Input]) -> Changed:
        """What is left. Raises DataError for a row whose answer has no number."""
        [one] = inputs
        known = (self.ominous,) if self.ominous else (GENERAL, MINIATURE)
        ominous = sorted({number for ref in known for number in ominous_numbers(ref)})
        left = ablate(self.ablation, [item.conversation for item in one.items], self.seed, ominous)
        items = [replace(one.items[at], conversation=row) for at, row in zip(left.places, left.rows, strict=True)]
        return Changed(items, {reason: count for reason, count in left.dropped.items() if count})
