"""The axis below a figure of lines: where numbers stand, and which of them are written there without touching."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import ceil, floor, log10
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from spillover.report.canvas import inches, plain, same_height, wrapped
from spillover.report.figures import WIDEST

NARROWEST, MARGIN = 6.7, 1.15
"""Inches: of a figure, and of what stands beside its axes."""
EACH = 10
"""Up to so many numbers, each of those that have values is written if there is room."""
PAD = 0.05
"""The share of the axis that is left free at both ends."""


@dataclass(frozen=True)
class Scale:
    """An axis of numbers.

    Attributes:
        numbers: those that have values, in order.
        log: whether equal factors are equally far apart.
        names: what to write at some numbers instead of numbers.
    """

    numbers: tuple[float, ...]
    log: bool
    names: Mapping[float, str] = field(default_factory=dict)

    @property
    def _least(self) -> float:
        return next(x for x in self.numbers if x > 0)

    @property
    def _before(self) -> float:
        """How far 0 stands left of the least number, in powers of ten: nearly as far as the next to its right."""
        first, *more = [x for x in self.numbers if x > 0]
        return 0.9 * log10(more[0] / first) if more else 0.5

    def along(self, x: float) -> float:
        """Where a number stands, in any unit: itself, or its power of ten, with 0 a little before the least."""
        if not self.log:
            return x
        return self._before + log10(x / self._least) if x > 0 else 0.0

    def _back(self, place: float) -> float:
        """The number that stands at a place."""
        if not self.log:
            return place
        if self.numbers[0] == 0 and place < self._before:
            return place / self._before * self._least
        return float(self._least * 10 ** (place - self._before))

    @cached_property
    def _ends(self) -> tuple[float, float]:
        """The places of the axis's ends."""
        first, last = self.along(self.numbers[0]), self.along(self.numbers[-1])
        room = PAD * (last - first) or 0.5
        return first - room, last + room

    @property
    def _gap(self) -> float:
        """The least distance between two numbers, as a share of the axis."""
        places = [self.along(x) for x in self.names or self.numbers]
        return min((b - a for a, b in pairwise(sorted(places))), default=1.0) / (self._ends[1] - self._ends[0])

    @cached_property
    def width(self) -> float:
        """Inches of the figure: wide enough for names side by side."""
        word = max((inches(word) + 0.15 for name in self.names.values() for word in name.split()), default=0.0)
        return min(max(NARROWEST, MARGIN + word / self._gap), WIDEST)

    @property
    def gap(self) -> float:
        """Inches between the two closest numbers."""
        return self._gap * (self.width - MARGIN)

    @property
    def height(self) -> float:
        """Inches that the numbers or names take below the axis."""
        return 0.3 + 0.17 * max((name.count("\n") for name in self._named.values()), default=0)

    @cached_property
    def _named(self) -> dict[float, str]:
        wide = [wrapped(name, max(self.gap - 0.1, 0.3)) for name in self.names.values()]
        return dict(zip(self.names, same_height(wide), strict=True))

    def put(self, axes: Axes) -> None:
        """Makes this the axis below."""
        if self.log:
            zero: dict[str, Any] = {"linthresh": self._least, "linscale": 0.9 * self._before}
            axes.set_xscale("symlog", **zero) if self.numbers[0] == 0 else axes.set_xscale("log")
        axes.set_xlim(*map(self._back, self._ends))
        ticks = self._named or self._written()
        axes.xaxis.set_major_locator(FixedLocator(list(ticks)) if ticks else MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: ticks.get(x) or plain(round(x, 9))))
        axes.minorticks_off()

    def _written(self) -> dict[float, str]:
        """The numbers to write, if these are not simply round ones: those with values, or 1, 2, 5, 10 and so on."""
        if len(self.numbers) > EACH and not self.log:
            return {}
        numbers = list(self.numbers) if len(self.numbers) <= 2 * EACH else self._round()
        fit = self._fitting(numbers)
        return {x: plain(x) for x in fit if self.log or len(fit) == len(numbers)}

    def _round(self) -> list[float]:
        powers = range(floor(log10(self._least)), ceil(log10(self.numbers[-1])) + 1)
        every = [0.0, *(float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5))]
        return [x for x in every if self.numbers[0] <= x <= self.numbers[-1]]

    def _fitting(self, numbers: Sequence[float]) -> list[float]:
        """As many as do not touch, the last one always."""
        kept: list[float] = []
        for x in numbers:
            while kept and self._touch(kept[-1], x) and x == numbers[-1]:
                kept.pop()
            if not kept or not self._touch(kept[-1], x):
                kept.append(x)
        return kept

    def _touch(self, left: float, right: float) -> bool:
        unit = (self.width - MARGIN) / (self._ends[1] - self._ends[0])
        words = (inches(plain(left)) + inches(plain(right))) / 2
        return (self.along(right) - self.along(left)) * unit < words + 0.12


def scale_for(numbers: Sequence[float], log: bool, names: Mapping[float, str]) -> Scale:
    """The axis for all these numbers.

    Raises:
        ValueError: a number below 0 has no place on an axis of factors.
    """
    found = tuple(sorted({*numbers, *names})) or (0.0,)
    if log and found[0] < 0:
        raise ValueError(f"{found[0]} has no place on an axis of factors")
    return Scale(found, log and found[-1] > 0, dict(sorted(names.items())))
