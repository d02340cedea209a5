"""Judged answers as a tally: rows that no rate tells apart are counted together.

A rate asks of a value only on which side of a threshold it lies, so all values between two thresholds are alike to it.
Millions of answers come to some dozens of rows for each run and question, and whatever is measured of these is what it
would be of the answers.
"""

from collections.abc import Sequence
from itertools import pairwise

import polars as pl

from spillover.measure.metrics import MIDDLE
from spillover.measure.sweep import COHERENT_FROM, MISALIGNED_BELOW
from spillover.measure.table import BY, N, detached
from spillover.spec import Thresholds

HASHES = (0, 1)
"""Seeds of two hashes of 64 bits, by which rows are told apart: seven times as fast as by their many texts."""
CELL = ("group", "run", "suite", "question")
"""What rates are told apart by."""


def tally(frame: pl.DataFrame, rubrics: Sequence[str], thresholds: Thresholds) -> pl.DataFrame:
    """What measuring has to know of judged answers, equal rows once, in the order of their first; `n` counts them.

    Args:
        frame: what `table.judged` gives.
        rubrics: whose verdicts are measured.
        thresholds: where values are cut, beside the places that all experiments are looked at.
    """
    places = cuts(thresholds)
    said = [f"{rubric}_{what}" for rubric in rubrics for what in ("label", "reason", *BY)]
    coarse = [_coarse(frame[rubric], places) for rubric in rubrics]
    rows = frame.select(*CELL, "outcome", *said).with_columns(coarse)
    alike = rows.select(pl.lit(rows.hash_rows(seed)).alias(f"hash{seed}") for seed in HASHES).with_row_index("first")
    groups = alike.group_by(pl.exclude("first"), maintain_order=True).agg(pl.first("first"), pl.len().alias(N))
    return detached(rows[groups["first"]].with_columns(groups[N]))


def together(tallies: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Tallies as one."""
    whole = pl.concat(tallies)
    return detached(whole.group_by(pl.exclude(N), maintain_order=True).agg(pl.col(N).sum()))


def cuts(thresholds: Thresholds) -> list[float]:
    """Every place at which a value can be cut, in order."""
    return sorted({*MISALIGNED_BELOW, *COHERENT_FROM, MIDDLE, thresholds.misaligned, thresholds.coherent})


def _coarse(values: pl.Series, cuts: Sequence[float]) -> pl.Series:
    """The values, those between two neighbouring cuts all as their middle; one that lies on a cut stays."""
    places = pl.Series(cuts, dtype=pl.Float64)
    ends = pairwise([cuts[0] - 1, *cuts, cuts[-1] + 1])
    # Below the first cut, on it, between it and the second, on that, ...
    stand_for = pl.Series(value for low, high in ends for value in ((low + high) / 2, high))
    number = places.search_sorted(values, "left") + places.search_sorted(values, "right")
    return (
        stand_for.gather(number).zip_with(values.is_not_null(), pl.Series([None], dtype=pl.Float64)).alias(values.name)
    )
