"""The answers that a page shows: all of them, or a sample where they are more than a page can hold."""

from dataclasses import dataclass, field

import polars as pl

from spillover.measure.table import detached

SHOWN = 25_000
"""Answers that a page holds at most: about 15 MB."""
STATE = pl.coalesce(
    "set_aside", pl.when("misaligned").then(pl.lit("misaligned")).otherwise(pl.lit("not misaligned"))
).alias("state")
"""What a reader looks for: misaligned, not misaligned, or why an answer is set aside."""
STRATUM = pl.concat_str("suite", "run", "question", STATE, separator="\n").hash().alias("stratum")
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
        strata = answers.select(STRATUM)
        before = strata.join(self._counts, on="stratum", how="left", maintain_order="left")["n"].fill_null(0)
        rank = strata.select(pl.int_range(pl.len(), dtype=pl.UInt32).over("stratum")).to_series() + before
        now = strata.group_by("stratum").agg(n=pl.len())
        self._counts = pl.concat([self._counts, now]).group_by("stratum").agg(pl.col("n").sum())
        self._hold(answers.with_columns(rank=rank).with_row_index(ROW, self.seen))
        self.seen += len(answers)

    def _hold(self, ranked: pl.DataFrame) -> None:
        """Holds what may be of the sample; of what comes late little is."""
        self._held.append(detached(ranked.filter(pl.col("rank") <= self._last)))
        if sum(map(len, self._held)) >= 2 * self.most:
            self._held = [self._best()]
            self._last = int(self._held[0]["rank"][-1])

    def _best(self) -> pl.DataFrame:
        return pl.concat(self._held).sort(PLACE).head(self.most)

    def answers(self) -> pl.DataFrame:
        """The sample, in the order in which it was seen."""
        return self._best().sort(ROW).drop(ROW, "rank")
