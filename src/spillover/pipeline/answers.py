"""`spillover answers`: all answers of a report filtered, shown on the terminal or written to a file."""

import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from spillover.errors import LabError, SpecError
from spillover.pipeline.condition import condition, first_line, wrong
from spillover.spec import load_experiment, shipped_experiments
from spillover.store import DONE, check_layout, reports_of

TABLE = "answers.parquet"
WRITERS: Mapping[str, Callable[[pl.LazyFrame, Path], object]] = {
    ".parquet": lambda rows, path: rows.sink_parquet(path),
    ".csv": lambda rows, path: rows.sink_csv(path),
    ".jsonl": lambda rows, path: rows.sink_ndjson(path),
}
ABOUT = ("run", "suite", "question", "sample")
STATE = ("misaligned", "set_aside", "outcome")
PICTURES = 0x2400
"""Where Unicode has its signs for the first 32 control characters."""
WIDTH = 100
"""Columns of a text where there is no terminal that says how many it has."""


@dataclass(frozen=True)
class Answers:
    """The answers of a report, and those of them that a filter lets through.

    Attributes:
        path: the file they lie in.
        text: the filter as it was given; all answers if not.
    """

    path: Path
    text: str | None

    @property
    def rows(self) -> pl.LazyFrame:
        """Those that the filter lets through. Raises SpecError where it is wrong."""
        every, columns = self._every, self.columns
        if self.text is None:
            return every
        wanted = condition(self.text, columns)
        if self._try(lambda: every.select(wanted).collect_schema().dtypes()) != [pl.Boolean]:
            wrong(
                self.text, "is no condition: it is neither true nor false", "Compare something, as in `tokens > 100`."
            )
        return every.filter(wanted)

    @property
    def columns(self) -> list[str]:
        """What is known of each answer."""
        return list(self._try(self._every.collect_schema))

    def counts(self) -> tuple[int, int]:
        """How many are let through, and of how many."""
        return self._count(self.rows), self._count(self._every)

    def first(self, columns: Sequence[str], limit: int) -> pl.DataFrame:
        """The first of those that are let through."""
        found: pl.DataFrame = self._try(lambda: self._some(columns, limit).collect(engine="streaming"))
        return found

    def write(self, out: Path, columns: Sequence[str], limit: int | None) -> None:
        """Writes those that are let through to a file, as its name's ending says.

        Raises:
            LabError: there is such a file already.
            SpecError: of an ending that is not known.
        """
        writer = WRITERS.get(out.suffix)
        if writer is None:
            raise SpecError(f"a file ends in {', '.join(WRITERS)}", where=out)
        if out.exists():
            raise LabError("is there already", where=out, remedy="Choose another --out, or remove it.")
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(f".{out.name}.aside")
        try:
            self._try(lambda: writer(self._some(columns, limit), aside))
            aside.rename(out)
        finally:
            aside.unlink(missing_ok=True)

    def _some(self, columns: Sequence[str], limit: int | None) -> pl.LazyFrame:
        unknown = [name for name in columns if name not in self.columns]
        if unknown:
            raise SpecError(f"there is no column {unknown[0]!r}", remedy=f"Columns: {', '.join(self.columns)}.")
        rows = self.rows if limit is None else self.rows.head(limit)
        return rows.select(columns) if columns else rows

    @property
    def _every(self) -> pl.LazyFrame:
        return pl.scan_parquet(self.path)

    def _count(self, rows: pl.LazyFrame) -> int:
        return int(self._try(lambda: rows.select(pl.len()).collect(engine="streaming").item()))

    def _try(self, work: Callable[[], Any]) -> Any:
        """Does something with the file; an error is the filter's where there is one, and else the file's."""
        try:
            return work()
        except pl.exceptions.PolarsError as error:
            if self.text is not None:
                wrong(self.text, first_line(error), f"Columns: {', '.join(pl.read_parquet_schema(self.path))}.")
            raise LabError(f"cannot be read: {first_line(error)}", where=self.path) from None


def report_folder(lab: Path, ref: str) -> Path:
    """Where a report lies: one of the lab's by its name, or that of an experiment by name or file.

    Raises SpecError where there is neither.
    """
    named = lab / ref
    if (named / DONE).is_file():
        return named
    if ref not in shipped_experiments() and not Path(ref).exists():
        there = ", ".join(report.name for report in reports_of(lab)) or "none yet"
        raise SpecError("is no report in this lab and no file", where=ref, remedy=f"Reports of the lab: {there}.")
    return lab / load_experiment(ref).name


def find_answers(folder: Path, text: str | None) -> Answers:
    """The answers of the report in a folder. Raises LabError where there is none."""
    check_layout(folder.parent)
    if not (folder / TABLE).is_file():
        remedy = "Run `spillover run`, or `spillover report`, with this experiment first."
        raise LabError("the report is not there", where=folder, remedy=remedy)
    return Answers(folder / TABLE, text)


def show_answers(answers: Answers, columns: Sequence[str], limit: int) -> None:
    """Prints the first answers that are let through, and how many there are."""
    wanted = columns or [name for name in answers.columns if not name.endswith(("_judge", "_rubric"))]
    width = shutil.get_terminal_size((WIDTH, 0)).columns
    for row in answers.first(wanted, limit).iter_rows(named=True):
        print(_fields(row, width) if columns else _told(row, width), end="\n\n")
    show_count(answers, limit)


def show_count(answers: Answers, limit: int | None = None, out: Path | None = None) -> None:
    """Prints how many answers are let through, and what became of them."""
    matched, total = answers.counts()
    fewer = f"the first {limit:,} of " if limit is not None and limit < matched else ""
    print(f"{fewer}{matched:,} of {total:,} answers{f' written to {out}' if out is not None else ''}")


def _told(row: Mapping[str, Any], width: int) -> str:
    """An answer as a person reads it: whose it is, what was said of it, its text."""
    about = "  ".join(visible(str(row[name])) for name in ABOUT if name in row)
    said = [
        f"{name} {_value(value, row.get(f'{name}_reason') or row.get(f'{name}_label'))}"
        for name, value in _verdicts(row)
    ]
    state = "misaligned" if row.get("misaligned") else f"set aside: {row['set_aside']}" if row.get("set_aside") else ""
    verdicts = visible("  ".join([*said, state]).rstrip())
    return "\n".join(
        [about, *([f"  {verdicts}"] if verdicts else []), _wrapped(row.get("answer") or "(no answer)", width)]
    )


def _verdicts(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The rubrics by which an answer was judged, and their values."""
    rubrics = [name.removesuffix("_reason") for name in row if name.endswith("_reason")]
    return [(r, row[r]) for r in rubrics if any(row.get(f"{r}{end}") is not None for end in ("", "_label", "_reason"))]


def _value(value: float | None, other: str | None) -> str:
    return f"{value:.1f}" if value is not None else str(other)


def _fields(row: Mapping[str, Any], width: int) -> str:
    """The columns that were wished for, one below the other."""
    return "\n".join(_wrapped(f"{name}: {value}", width, "") for name, value in row.items())


def _wrapped(text: str, width: int, indent: str = "  ") -> str:
    """A text on lines that are not too long; its own lines stay."""
    lines = [textwrap.wrap(line, max(width - len(indent), 20)) or [""] for line in visible(text).split("\n")]
    return "\n".join(f"{indent}{line}".rstrip() for some in lines for line in some)


def visible(text: str) -> str:
    """A text without characters that a terminal would obey: in their place stand signs, or their numbers."""
    return "".join(c if c == "\n" or c.isprintable() else _sign(ord(c)) for c in text)


def _sign(code: int) -> str:
    if code >= 32:
        return " " if chr(code).isspace() else f"<U+{code:04X}>"
    return " " if chr(code) == "\t" else chr(PICTURES + code)
