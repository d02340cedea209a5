"""CSV tables, row by row: the first line names the columns, and a cell in quotes may go over several lines."""

import csv
from collections.abc import Callable, Iterator, Sequence

from spillover.data.lines import Line, check_size, shown
from spillover.errors import DataError

QUOTES = 'Put texts with commas, quotes or line breaks into quotes, and write a quote in them as "".'
CheckColumns = Callable[[Sequence[str], str], None]
"""Raises DataError where the columns, named at `path:line`, are not those that are needed."""


def read_table(lines: Iterator[Line], name: str, check: CheckColumns) -> Iterator[tuple[str, dict[str, str]]]:
    """A table's rows below its first line, each with the place where it begins, `name:line`.

    Raises:
        DataError: a line is no CSV, has too many or too few cells, or what `check` says of the columns.
    """
    table = _cells(lines, name)
    where, columns = next(table, ("", []))
    if where:
        check(columns, where)
    for where, cells in table:
        if len(cells) != len(columns):
            what = f"has {len(cells)} cells, and there are {len(columns)} columns"
            raise DataError(what, where=where, remedy=QUOTES)
        yield where, dict(zip(columns, cells, strict=True))


def listed(columns: Sequence[str]) -> str:
    """Columns as an error names them: without what a terminal would obey, and not all of very many."""
    told = [name if name.isprintable() and len(name) <= 40 else shown(name) for name in columns[:12]]
    return ", ".join(told + ["..."] * (len(columns) > 12))


class _Lines:
    """Lines as the csv module takes them; knows where the row began that is being read, and how long it is."""

    def __init__(self, lines: Iterator[Line], name: str) -> None:
        self.lines, self.name = lines, name
        self.first, self.number, self.size = 1, 0, 0

    @property
    def where(self) -> str:
        return f"{self.name}:{self.first}"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, text = next(self.lines)
        self.size += len(text)
        check_size(self.size, self.where)
        return text

    def begin(self) -> None:
        """The next line begins a row."""
        self.first, self.size = self.number + 1, 0


def _cells(lines: Iterator[Line], name: str) -> Iterator[tuple[str, list[str]]]:
    """The table's rows as cells, and where each begins."""
    source = _Lines(lines, name)
    try:
        for cells in csv.reader(source, strict=True):
            if cells:
                yield source.where, cells
            source.begin()
    except csv.Error as error:
        raise DataError(f"is no CSV: {_why(error)}", where=source.where, remedy=QUOTES) from None


def _why(error: csv.Error) -> str:
    """What is wrong, in words for people where Python's are for programmers."""
    told = str(error)
    if "field larger" in told:
        return f"a cell has more than {csv.field_size_limit():,} characters, or its quotes are not closed"
    return "a carriage return stands alone" if "new-line character" in told else told
