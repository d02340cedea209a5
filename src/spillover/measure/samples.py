"""Benchmarks: what the scores of samples come to, run by run."""

import polars as pl

from spillover.measure.suites import RATES

SCORES = {
    "group": pl.String,
    "run": pl.String,  # Run.name
    "suite": pl.String,  # the benchmark's name
    "sample": pl.String,  # its id in the task
    "epoch": pl.Int32,  # 1, 2, ...: which time it was asked
    "measure": pl.String,
    "value": pl.Float64,  # null where there is a reason
    "reason": pl.String,  # null where there is a value
}
"""Columns of a table of scores, in order: a row for each sample, epoch and measure."""


def of_samples(scores: pl.DataFrame) -> pl.DataFrame:
    """The mean of each measure over a run's samples, a sample's being the mean over its epochs: rows of `RATES`.

    `answers` counts the samples that were asked, `kept` those with a value; those without one are set aside.
    """
    each = scores.group_by("suite", "group", "run", "measure", "sample", maintain_order=True).agg(
        pl.col("value").mean()
    )
    found = each.group_by("suite", "group", "run", "measure", maintain_order=True).agg(
        answers=pl.len(), kept=pl.col("value").count(), rate=pl.col("value").mean()
    )
    return found.select(pl.col(name).cast(kind) for name, kind in RATES.items())


def shares(scores: pl.DataFrame) -> set[tuple[str, str]]:
    """The suites and measures that are shares of samples: every sample has 0 or 1, and was asked once."""
    told = scores.group_by("suite", "measure").agg(
        whole=pl.col("value").drop_nulls().is_in([0.0, 1.0]).all() & (pl.col("epoch") == 1).all()
    )
    return {(row["suite"], row["measure"]) for row in told.iter_rows(named=True) if row["whole"]}
