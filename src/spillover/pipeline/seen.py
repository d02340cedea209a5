"""One way through all judged answers: as they pass they are written down for people, counted, and some kept to show."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self

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

    def write(self, out: Path) -> None:
        source = _Source(self._batches())
        frames = register_io_source(lambda *_: source, schema=source.first.schema)
        try:
            frames.sink_parquet(out, row_group_size=ROWS, compression_level=1)
        except pl.exceptions.ComputeError:
            if source.error is not None:
                raise source.error from None
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


class _Source:
    """Batches as polars takes them; what goes wrong with them is kept, since polars makes another error of it.

    It is no generator: polars, when it is interrupted, would let go of one in a moment in which the generator's end
    would be interrupted as well.
    """

    def __init__(self, batches: Iterator[pl.DataFrame]) -> None:
        self.first = next(batches)
        self.error: BaseException | None = None
        self._batches = chain([self.first], batches)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> pl.DataFrame:
        try:
            return next(self._batches)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise


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
