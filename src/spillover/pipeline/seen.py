"""One way through all judged answers: as they pass they are written down for people, counted, and some kept to show."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl
from polars.io.plugins import register_io_source

from spillover.measure.table import kept_and_set_aside
from spillover.measure.tally import tally, together
from spillover.pipeline.judged import COLUMNS, TRUTH, JudgedAnswers
from spillover.report.sample import Sample

ROWS = 50_000
"""Rows of answers.parquet that are packed together, and lie in memory until they are."""


@dataclass(frozen=True)
class Seen:
    """What a report has to know of its answers.

    Attributes:
        answers: how many there are.
        tally: what is measured of them, see `measure.tally`.
        graded: rubric to what its judge and the ground truth say of each answer, with the answer's pair.
        shown: those that the page shows, with the tables that their verdicts were read from.
    """

    answers: int
    tally: pl.DataFrame
    graded: dict[str, pl.DataFrame]
    shown: pl.DataFrame


def go_through(judged: JudgedAnswers, out: Path) -> Seen:
    """Goes through an experiment's answers once, and writes all of them to a file.

    Raises LabError where answers or verdicts are missing.
    """
    seen = _Passing(judged)
    seen.write(out)
    sample = judged.judged(seen.sample.answers().select(*COLUMNS), tables=True)
    return Seen(
        seen.sample.seen,
        together(seen.tallies),
        {name: pl.concat(some) for name, some in seen.graded.items()},
        kept_and_set_aside(_for_people(sample), judged.plan.experiment.thresholds),
    )


@dataclass
class _Passing:
    judged: JudgedAnswers
    tallies: list[pl.DataFrame] = field(default_factory=list)
    graded: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    sample: Sample = field(default_factory=Sample)
    error: BaseException | None = None

    def write(self, out: Path) -> None:
        batches = self._batches()
        first = next(batches)

        def source(*_: object) -> Iterator[pl.DataFrame]:
            yield first
            yield from self._told(batches)

        try:
            register_io_source(source, schema=first.schema).sink_parquet(out, row_group_size=ROWS, compression_level=1)
        except pl.exceptions.ComputeError:
            if self.error is not None:
                raise self.error from None
            raise

    def _told(self, batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The batches; what goes wrong with them is kept, since polars makes another error of it."""
        try:
            yield from batches
        except BaseException as error:
            self.error = error
            raise

    def _batches(self) -> Iterator[pl.DataFrame]:
        """What is written for people, batch by batch."""
        for batch in self.judged.batches(self._batch):
            self.tallies.append(batch.tally)
            for name, some in batch.graded.items():
                self.graded.setdefault(name, []).append(some)
            self.sample.add(batch.shown)
            yield batch.shown

    def _batch(self, frame: pl.DataFrame) -> "_Batch":
        plan = self.judged.plan
        counted = tally(frame, list(plan.rubrics), plan.experiment.thresholds)
        graded = {name: _graded(frame, name) for name in self.judged.graded}
        return _Batch(counted, graded, kept_and_set_aside(_for_people(frame), plan.experiment.thresholds))


class _Batch(NamedTuple):
    """What there is to know of some answers; as in `Seen`, but that all of them are shown."""

    tally: pl.DataFrame
    graded: dict[str, pl.DataFrame]
    shown: pl.DataFrame


def _graded(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    truth = TRUTH + name
    return frame.select("pair", name, f"{name}_reason", truth, f"{truth}_reason")


def _for_people(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns that people get: of ground truth only the values, since it has no probabilities."""
    return frame.drop(pl.selectors.matches(f"^{TRUTH}.*_(label|reason|table|judge|rubric)$"))
