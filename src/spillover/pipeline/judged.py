"""Every answer of an experiment with its verdicts, some tens of thousands at a time: there may be millions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import polars as pl

from spillover.batches import ahead, batched
from spillover.errors import LabError
from spillover.judge.judge import TruthJudge
from spillover.measure.table import READ, MissingVerdictsError, judged, lookup, with_pairs
from spillover.pipeline.parts import missing_spans, parts, schema, verdict_frame
from spillover.pipeline.plan import Plan
from spillover.pipeline.verdicts import Verdicts, find_verdicts
from spillover.records import ANSWER_COLUMNS, Pair
from spillover.store import Lab

TRUTH = "truth_"
COLUMNS = {**schema(ANSWER_COLUMNS), "pair": pl.String}
"""The columns of parts of answers."""
TOGETHER = 16
"""Parts of answers, each of at most a few thousand, that make a batch."""
Made = TypeVar("Made")
Parts = Sequence[tuple[int, Path]]
"""Parts of answers, and how many samples of each are wanted."""


def wanted_parts(plan: Plan, lab: Lab) -> Iterator[Parts]:
    """The parts of every answer that the plan wants, in the order of its cells, some at a time.

    Raises LabError where answers were not asked yet.
    """
    for cell in plan.cells:
        if any(missing_spans(cell, lab)):
            raise LabError(
                "answers are missing", where=cell.folder(lab), remedy="Run `spillover ask` with this experiment first."
            )
    yield from batched(((cell.samples, path) for cell in plan.cells for path in parts(cell.folder(lab))), TOGETHER)


def read_answers(some: Parts) -> pl.DataFrame:
    """Their answers."""
    return with_pairs(_wanted(some).collect(engine="streaming"))


def read_pairs(some: Parts) -> pl.DataFrame:
    """Of their answers the suite, the outcome and the pair, null in parts that do not name it yet: no texts."""
    return _wanted(some).select("pair", "suite", "outcome").collect(engine="streaming")


def _wanted(some: Parts) -> pl.LazyFrame:
    return pl.concat(_first([path for _, path in each], samples) for samples, each in groupby(some, lambda one: one[0]))


def _first(paths: list[Path], samples: int) -> pl.LazyFrame:
    """The first samples of some parts. Those of before there were variants and pairs lack columns."""
    return pl.scan_parquet(paths, schema=COLUMNS, missing_columns="insert").filter(pl.col("sample") < samples)


@dataclass(frozen=True)
class JudgedAnswers:
    """An experiment's answers with their verdicts; on a miniature also with ground truth, in columns `truth_RUBRIC`."""

    plan: Plan
    lab: Lab

    @cached_property
    def _found(self) -> dict[str, Verdicts]:
        folders = (self.plan.verdict_folder(self.lab, rubric) for rubric in self.plan.rubrics.values())
        return dict(zip(self.plan.rubrics, ahead(find_verdicts, folders), strict=True))

    @cached_property
    def _rubrics(self) -> dict[str, list[str]]:
        """By suite, the rubrics that its answers are judged by, and the ground truth that grades them."""
        graded = self.graded
        return {
            name: [*suite.rubrics, *(TRUTH + one for one in suite.rubrics if one in graded)]
            for name, suite in self.plan.experiment.suites.items()
        }

    @cached_property
    def graded(self) -> list[str]:
        """The rubrics that the world's ground truth can grade."""
        of_models = [name for name, rubric in self.plan.rubrics.items() if rubric.by == "model"]
        return of_models if self.plan.of_world else []

    def batches(self, work: Callable[[pl.DataFrame], Made]) -> Iterator[Made]:
        """What `work` makes of each batch of them, in the order of the plan's cells; it is called by several threads.

        Raises LabError where answers or verdicts are missing.
        """
        self._found  # noqa: B018  # once, before there are threads
        return ahead(lambda some: work(self.judged(read_answers(some))), wanted_parts(self.plan, self.lab))

    def judged(self, asked: pl.DataFrame, *, tables: bool = False) -> pl.DataFrame:
        """Some answers with their verdicts; where it is wished, with the tables that these were read from.

        Raises LabError where verdicts are missing.
        """
        # Mostly all rubrics judge the same pairs in the same order.
        like = next((one.rows(asked["pair"]) for one in self._found.values()), None)
        found = {name: partial(one.with_tables if tables else one.of, like=like) for name, one in self._found.items()}
        truth = {TRUTH + name: lookup(self._truth(name, asked)) for name in self.graded}
        try:
            return judged(asked, {**found, **truth}, self._rubrics)
        except MissingVerdictsError as error:
            raise LabError(
                "verdicts are missing",
                where=self.plan.verdict_folder(self.lab, self.plan.rubrics[error.rubric]),
                remedy="Run `spillover judge` with this experiment first.",
            ) from None

    def _truth(self, rubric: str, asked: pl.DataFrame) -> pl.DataFrame:
        """What the world's grammar says of the answers that a rubric judges."""
        suites = [suite for suite, names in self._rubrics.items() if rubric in names]
        given = asked.filter(pl.col("suite").is_in(suites), pl.col("outcome").is_null())
        different = given.select(READ, "answer").unique(maintain_order=True)
        pairs, told = [Pair(q, a) for q, a in different.iter_rows()], self.plan.rubrics[rubric]
        return verdict_frame(pairs, TruthJudge().judge(pairs, told), "truth", told)
