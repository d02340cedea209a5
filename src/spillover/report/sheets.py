"""Panels by suite or by group: which numbers stand where, and how much room they take on a page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, Literal

import polars as pl

from spillover.report.canvas import inches, is_share
from spillover.report.figures import SPREAD, WIDEST, known, legend_name, question_label

NARROWEST = 6.7
"""Inches. Narrower figures leave too little room for captions."""
LONGEST = 2.4
"""Inches that a row's name may take before it is wrapped."""
UPRIGHT, ROW = 2.75, 0.3
"""Inches: the height of an upright panel's axes, and of a row that holds one mark."""
LYING, ALONE = 1.9, 5.6
"""Inches: the width of the axes of panels that list rows, beside others and alone."""
MARGIN = 0.85
"""Inches beside an upright panel's axes."""


@dataclass(frozen=True)
class Panel:
    """One measure of some suites and groups.

    Attributes:
        measure: its name in `numbers["suites"]`.
        label: what stands above the panel.
        suites: which suites, in order. With `by="suite"` they are the categories.
        groups: which groups, in order; empty for all that were asked. With `by="group"` they are the categories, and
            two suites or more are columns.
        by: what the categories are.
        names: what the suites are called, in their order; empty for their own names.
    """

    measure: str
    label: str
    suites: tuple[str, ...]
    groups: tuple[str, ...] = ()
    by: Literal["suite", "group"] = "suite"
    names: tuple[str, ...] = ()

    def called(self, suite: str) -> str:
        """A suite's name for people."""
        return dict(zip(self.suites, self.names, strict=False)).get(suite, question_label(suite))


@dataclass(frozen=True)
class Mark:
    """What one group says of one suite, and where it stands: a category, and a column in it."""

    category: int
    column: int
    suite: str
    group: str
    entry: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Sheet:
    """A panel with its numbers: what its categories and columns are, and how much room they need."""

    panel: Panel
    suites: Mapping[str, Any]
    rates: pl.DataFrame

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups that were asked any of the panel's suites."""
        found = [self.suites[suite]["groups"] for suite in self.panel.suites if suite in self.suites]
        asked = dict.fromkeys(name for groups in found for name, told in groups.items() if self.panel.measure in told)
        return tuple(name for name in self.panel.groups or asked if name in asked)

    @property
    def by_suite(self) -> bool:
        """Whether the categories are suites."""
        return self.panel.by == "suite"

    @property
    def columns(self) -> tuple[str, ...]:
        """What stands side by side in a category."""
        return self.groups if self.by_suite else self.panel.suites

    @property
    def share(self) -> bool:
        """Whether values are percentages."""
        return is_share(self.panel.measure)

    @property
    def scale(self) -> float:
        """What values are multiplied with."""
        return 100.0 if self.share else 1.0

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """All that may be drawn."""
        return tuple(self._marks())

    def _marks(self) -> Iterator[Mark]:
        for s, suite in enumerate(self.panel.suites):
            told = self.suites[suite]["groups"] if suite in self.suites else {}
            for g, group in enumerate(self.groups):
                entry = told.get(group, {}).get(self.panel.measure)
                if entry is not None:
                    yield Mark(*((s, g) if self.by_suite else (g, s)), suite, group, entry)

    @cached_property
    def labels(self) -> list[str]:
        """The categories' names; a group's with its runs."""
        if self.by_suite:
            return [self.panel.called(suite) for suite in self.panel.suites]
        return [legend_name(group, self.counts(group)) for group in self.groups]

    def of(self, group: str) -> list[Mark]:
        """A group's marks."""
        return [mark for mark in self.marks if mark.group == group]

    def counts(self, group: str) -> list[int]:
        """The numbers of runs behind a group's marks."""
        return [mark.entry["runs"] for mark in self.of(group)]

    @property
    def unit(self) -> float:
        """Inches of a category that stands upright: room for its columns and for its name's longest word."""
        words = [inches(word) + 0.2 for label in self.labels for word in label.split()]
        return max([1.0, 0.2 * len(self.columns), *words])

    @property
    def across(self) -> float:
        """Inches of the whole panel where it stands upright."""
        return MARGIN + self.unit * len(self.labels)

    @property
    def names(self) -> float:
        """Inches that the names of rows take."""
        return min(LONGEST, max((inches(label) for label in self.labels), default=0.0)) + 0.1

    @property
    def listed(self) -> float:
        """Inches from the first row to the last."""
        return max(ROW if len(self.columns) < 2 else 1.2 * ROW, 0.14 * len(self.columns)) * max(len(self.labels), 1)

    @property
    def column(self) -> float:
        """The width of a column, where a category is 1 wide."""
        return SPREAD / max(len(self.columns), 3)

    def at(self, mark: Mark) -> float:
        """Where a mark stands along the categories' axis."""
        return mark.category + (mark.column - (len(self.columns) - 1) / 2) * self.column

    @cached_property
    def runs(self) -> pl.DataFrame:
        """The single runs that have a value."""
        own = (pl.col("measure") == self.panel.measure) & pl.col("group").is_in(self.groups)
        return self.rates.filter(own & pl.col("suite").is_in(self.panel.suites) & pl.col("rate").is_finite())

    @property
    def values(self) -> list[float]:
        """All values that are drawn, with their intervals."""
        told = [mark.entry[end] for mark in self.marks for end in ("value", "low", "high")]
        return [self.scale * value for value in [*told, *self.runs["rate"]] if known(value)]


@dataclass(frozen=True)
class Page:
    """Where panels stand: side by side as long as the page is wide enough, then below each other."""

    sheets: tuple[Sheet, ...]

    @cached_property
    def upright(self) -> bool:
        """Whether categories stand side by side."""
        return all(sheet.by_suite and sheet.across <= WIDEST for sheet in self.sheets)

    @cached_property
    def beside(self) -> int:
        """How many panels stand side by side, the rows being about equally long."""
        count = len(self.sheets)
        fit = next((some for some in range(count, 1, -1) if sum(self._widths(some)) <= WIDEST), 1)
        return ceil(count / ceil(count / fit))

    @property
    def down(self) -> int:
        """How many rows of panels there are."""
        return ceil(len(self.sheets) / self.beside)

    @property
    def width(self) -> float:
        """Inches of the figure."""
        return max(NARROWEST, sum(self._widths(self.beside)))

    def _widths(self, beside: int) -> list[float]:
        """Inches of each column of panels, with names."""
        columns = [self.sheets[start::beside] for start in range(beside)]
        if self.upright:
            return [max(sheet.across for sheet in column) for column in columns]
        named = [max(sheet.names * self.is_named(sheet, beside) for sheet in column) for column in columns]
        return [names + (ALONE if beside == 1 else LYING) + 0.35 for names in named]

    def is_named(self, sheet: Sheet, beside: int = 0) -> bool:
        """Whether the panel names its categories: not where its neighbour does, to the left or below."""
        beside = beside or self.beside
        index = self.sheets.index(sheet)
        if self.upright:
            below = self.sheets[index + beside : index + beside + 1]
            return not below or below[0].labels != sheet.labels
        return index % beside == 0 or self.sheets[index - 1].labels != sheet.labels

    def axes_widths(self) -> list[float]:
        """How wide the axes of each column of panels are, to each other."""
        return [width - MARGIN for width in self._widths(self.beside)] if self.upright else [1.0] * self.beside

    def axes_heights(self) -> list[float]:
        """Inches of the axes in each row of panels."""
        rows = [self.sheets[start : start + self.beside] for start in range(0, len(self.sheets), self.beside)]
        return [UPRIGHT if self.upright else max(sheet.listed for sheet in row) for row in rows]

    def stretched(self, index: int) -> float:
        """Inches that a panel's column takes, which are more than it needs where the page is wider than its panels."""
        widths = self._widths(self.beside)
        return self.width * widths[index % self.beside] / sum(widths)

    def room(self, index: int) -> float:
        """Inches that a panel's label may take."""
        if self.upright:
            return self.stretched(index) - MARGIN / 2 - 0.1
        named = self.sheets[index].names if self.is_named(self.sheets[index]) else 0.0
        return self.stretched(index) - named - 0.25
