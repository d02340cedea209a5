"""The answers that a page shows: all of them, or a sample where they are more than a page can hold."""

from dataclasses import dataclass, field

import polars as pl

from spillover.measure.table import detached

SHOWN = 25_000
"""Answers that a page holds at most: about 15 MB."""
STRATUM = ("suite", "run", "question", "set_aside", "misaligned")
"""What a reader looks for: of a run and a question, what is misaligned, what is not, and what is set aside for what."""
COUNTS = {"stratum": pl.UInt64, "n": pl.UInt32}
PLACE, ROW = ["rank", "seed"], "row"


@dataclass
class Sample:
    """A sample of answers that are seen in order, the same however they are cut into pieces.

    Of each run, question and state the first answers are taken, equally many of all as far as there are so many; where
    the last of these do not all fit, their seeds decide. Each answer has a seed of its own, so the first ones to a
    question are no other than the later ones.

    Attributes:
        most: how many it has room for.
        seen: how many answers there were.
    """

    most: int = SHOWN
    seen: int = 0
    _counts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=COUNTS))
    _held: list[pl.DataFrame] = field(default_factory=list)
    _last: int = 2**32 - 1

    def add(self, answers: pl.DataFrame) -> None:
        """The next answers, from `table.kept_and_set_aside`."""
        chosen = self._ranked(answers.select(STRATUM).hash_rows().alias("stratum").to_frame().with_row_index(ROW))
        self._hold(answers[chosen[ROW]].with_columns(chosen["rank"], chosen[ROW] + self.seen))
        self.seen += len(answers)

    def _ranked(self, strata: pl.DataFrame) -> pl.DataFrame:
        """The rows that may be of the sample, with their ranks in their strata; of what comes late few are."""
        before = pl.col("n").fill_null(0)
        some = strata.join(self._counts, on="stratum", how="left", maintain_order="left").filter(before <= self._last)
        now = some.group_by("stratum").agg(n=pl.len())
        self._counts = pl.concat([self._counts, now]).group_by("stratum").agg(pl.col("n").sum())
        rank = pl.int_range(pl.len(), dtype=pl.UInt32).over("stratum") + before
        return some.select(ROW, rank=rank).filter(pl.col("rank") <= self._last)

    def _hold(self, ranked: pl.DataFrame) -> None:
        self._held.append(detached(ranked))
        if sum(map(len, self._held)) >= 2 * self.most:
            self._held = [self._best()]
            self._last = int(self._held[0]["rank"][-1])

    def _best(self) -> pl.DataFrame:
        return pl.concat(self._held).sort(PLACE).head(self.most)

    def answers(self) -> pl.DataFrame:
        """The sample, in the order in which it was seen."""
        return self._best().sort(ROW).drop(ROW, "rank")
