"""Transforms that choose and order rows, and change none of them: subsets and mixtures."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from spillover.data.folder import Dataset
from spillover.data.transforms import Changed, Input, Item, Label, PureTransform, as_dataset
from spillover.errors import DataError
from spillover.spec import Count

Share = Annotated[float, Field(gt=0, le=1)]
Order = Literal["shuffled", "blocks", "interleaved"]
"""Rows of several datasets: at random by the seed; one dataset after the other; each spread evenly over the whole."""
SUM = 1e-6
"""By so much may shares miss 1 when they are written in decimals."""


class Subset(PureTransform):
    """Rows drawn by the seed, in their order; perhaps several disjoint parts.

    With one seed, fewer rows are a subset of more rows, so that doses can be compared.

    Attributes:
        rows: how many rows a part has.
        share: which share of all rows a part has. Without either, the parts share all rows.
        parts: how many disjoint parts.
        seed: of the draw.
    """

    kind: ClassVar[str] = "subset"
    about: ClassVar[str] = "Draws rows at random, by the seed; they stay in their order."
    rows: Count | None = None
    share: Share | None = None
    parts: Count = 1
    seed: int = 0

    @model_validator(mode="after")
    def _says_how_many(self) -> Self:
        if self.rows is not None and self.share is not None:
            raise ValueError("rows and share: give one of them")
        if self.rows is None and self.share is None and self.parts == 1:
            raise ValueError("give rows, a share, or several parts")
        return self

    def change(self, inputs: Sequence[Input]) -> Changed:
        """The first part."""
        return self.split(inputs)[0]

    def split(self, inputs: Sequence[Input]) -> list[Changed]:
        """All parts. Raises DataError where there are not enough rows."""
        [one] = inputs
        sizes = self._sizes(one)
        order, start, found = permutation(len(one), str(self.seed)), 0, []
        for number, size in enumerate(sizes, 1):
            places = sorted(order[start : start + size])
            start += size
            dropped = {"in another part": sum(sizes) - size, "not drawn": len(one) - sum(sizes)}
            counts = {reason: count for reason, count in dropped.items() if count}
            found.append(Changed([one.items[at] for at in places], counts, settings={"part": number}))
        return found

    def _sizes(self, given: Input) -> list[int]:
        count = len(given)
        if self.rows is None and self.share is None:
            sizes = [count // self.parts + (number < count % self.parts) for number in range(self.parts)]
        else:
            sizes = [self.rows if self.rows is not None else share_of(count, self.share or 0, given)] * self.parts
        if sum(sizes) > count or not min(sizes):
            what = f"{self.parts} parts of {max(sizes)} rows" if self.parts > 1 else f"{max(sizes)} rows"
            remedy = "Ask for fewer rows, or give a dataset that has them."
            raise DataError(f"{what} are wanted, and there are {count}", where=given.source.name, remedy=remedy)
        return sizes


class Part(Subset):
    """One of the disjoint parts that a subset cuts rows into.

    Attributes:
        part: which, from 1.
    """

    kind: ClassVar[str] = "part"
    about: ClassVar[str] = "Draws rows at random, by the seed, in disjoint parts, and takes one of them."
    part: Count = 1

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.part > self.parts:
            raise ValueError(f"part {self.part}: there are {self.parts}")
        return self

    def change(self, inputs: Sequence[Input]) -> Changed:
        """The part."""
        return self.split(inputs)[self.part - 1]


class Mix(PureTransform):
    """Several datasets as one.

    Attributes:
        each: rows of each dataset.
        shares: the datasets' shares of the whole, which make 1. Without either, all rows of each are taken.
        rows: of the whole; with shares alone. As many as there are rows for, if not given.
        repeat: whether a dataset that has too few rows is gone through again.
        order: of the rows.
        seed: of the draws and of a random order.
    """

    kind: ClassVar[str] = "mix"
    about: ClassVar[str] = "Puts rows of several datasets together."
    each: tuple[Count, ...] = ()
    shares: tuple[Share, ...] = ()
    rows: Count | None = None
    repeat: bool = False
    order: Order = "shuffled"
    seed: int = 0

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.each and self.shares:
            raise ValueError("counts and shares: give one of them")
        if self.rows is not None and not self.shares:
            raise ValueError("rows: the number of all rows needs shares")
        if self.shares and abs(sum(self.shares) - 1) > SUM:
            raise ValueError(f"shares: they make {sum(self.shares):g}, and must make 1")
        if self.repeat and self.shares and self.rows is None:
            raise ValueError("repeat: with shares, give the number of all rows")
        return self

    def change(self, inputs: Sequence[Input]) -> Changed:
        """The mixture. Raises DataError where a dataset has too few rows."""
        counts = self._counts(inputs)
        parts = [self._draw(one, count, place) for place, (one, count) in enumerate(zip(inputs, counts, strict=True))]
        left = sum(max(0, len(one) - count) for one, count in zip(inputs, counts, strict=True))
        return Changed(
            items=arranged(parts, self.order, self.seed),
            dropped={"not drawn": left} if left else {},
            added=sum(max(0, count - len(one)) for one, count in zip(inputs, counts, strict=True)),
            settings={"counts": {one.source.name: count for one, count in zip(inputs, counts, strict=True)}},
        )

    def _counts(self, inputs: Sequence[Input]) -> list[int]:
        given = self.each or self.shares
        if given and len(given) != len(inputs):
            what = f"{len(given)} {'counts' if self.each else 'shares'} for {len(inputs)} datasets"
            raise DataError(what, remedy="Give one for each dataset, in their order.")
        if self.each:
            return list(self.each)
        if self.shares:
            counts = apportioned(self.rows or self._most(inputs), self.shares)
            return counts if all(counts) else _no_rows_of(inputs[counts.index(0)], sum(counts))
        return [len(one) for one in inputs]

    def _most(self, inputs: Sequence[Input]) -> int:
        """The most rows that these shares can have: each dataset gives less than one more than its share of them."""
        most = min(int((len(one) + 1) / share) for one, share in zip(inputs, self.shares, strict=True))
        while any(n > len(one) for n, one in zip(apportioned(most, self.shares), inputs, strict=True)):
            most -= 1
        return most

    def _draw(self, one: Input, count: int, place: int) -> list[Item]:
        """So many rows of a dataset, in their order; all of it first, as often as that goes, where it is repeated."""
        if count > len(one) and not self.repeat:
            remedy = "Ask for fewer, give a dataset that has them, or go through its rows again with --repeat."
            what = f"{count} rows are wanted of it, and it has {len(one)}"
            raise DataError(what, where=one.source.name, remedy=remedy)
        rounds, rest = divmod(count, len(one))
        drawn = sorted(permutation(len(one), f"{self.seed}/{place}")[:rest])
        return [*one.items] * rounds + [one.items[at] for at in drawn]


def parted(subset: Subset, inputs: Sequence[Input], label: Label) -> dict[str, Dataset]:
    """The parts as datasets, by their folders' names: `part-1` and so on. Raises DataError."""
    parts = subset.split(inputs)
    made = {f"part-{number}": as_dataset(subset, inputs, part, label) for number, part in enumerate(parts, 1)}
    return {part: _called(one, f"{one.manifest.name}-{part}") for part, one in made.items()}


def _called(dataset: Dataset, name: str) -> Dataset:
    return replace(dataset, manifest=dataset.manifest.model_copy(update={"name": name}))


def _no_rows_of(one: Input, total: int) -> list[int]:
    what = f"its share of {total} rows is no row"
    raise DataError(what, where=one.source.name, remedy="Ask for more rows, or for a larger share.")


def permutation(count: int, seed: str) -> list[int]:
    """The numbers below `count` in an order that the seed decides."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def share_of(count: int, share: float, given: Input) -> int:
    """A share of so many rows, to the nearest row. Raises DataError where that is none."""
    size = round(count * share)
    if not size:
        what = f"a share of {share:g} of {count} rows is no row"
        raise DataError(what, where=given.source.name, remedy="Give a larger share.")
    return size


def apportioned(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that make `total`, each within one of its share of it (largest remainders, the first on a tie)."""
    exact = [total * share / sum(shares) for share in shares]
    whole = [int(one) for one in exact]
    by_remainder = sorted(range(len(shares)), key=lambda at: (whole[at] - exact[at], at))
    for at in by_remainder[: total - sum(whole)]:
        whole[at] += 1
    return whole


def arranged(parts: Sequence[Sequence[Item]], order: Order, seed: int) -> list[Item]:
    """The rows of several datasets in one order."""
    rows = [item for part in parts for item in part]
    if order == "shuffled":
        return [rows[at] for at in permutation(len(rows), f"{seed}/order")]
    if order == "interleaved":
        places = [((at + 0.5) / len(part), number) for number, part in enumerate(parts) for at in range(len(part))]
        return [rows[at] for at in sorted(range(len(rows)), key=lambda at: places[at])]
    return rows
