"""How well a detector finds what is there: precision, recall, and the area under its curve, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from spillover.measure.stats import Floats, clopper_pearson

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number between 0 and 1 with its 95% interval.

    Attributes:
        value: the estimate.
        low: the interval's lower end.
        high: its upper end.
        of: the rows behind it: a share's denominator.
    """

    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True)
class Detection:
    """A detector held against what is true.

    Attributes:
        rows: all of them.
        true: rows where it is there.
        flagged: rows that the detector flags.
        hits: rows that it flags and where it is there.
        precision: hits among the flagged; None where nothing is flagged.
        recall: hits among the true; None where there are none.
        auc: how often a true row ranks above another one; None where one kind is missing.
    """

    rows: int
    true: int
    flagged: int
    hits: int
    precision: Estimate | None
    recall: Estimate | None
    auc: Estimate | None


def share(hits: int, of: int) -> Estimate | None:
    """A share with its exact 95% interval (Clopper and Pearson 1934); None of nothing."""
    return Estimate(hits / of, *clopper_pearson(hits, of), of) if of else None


def detection(flagged: Sequence[bool], ranks: Sequence[float], true: Sequence[bool]) -> Detection:
    """A detector held against what is true.

    Args:
        flagged: whether it flags a row.
        ranks: how strongly it speaks of a row, higher for more: any numbers, only their order counts.
        true: whether it is there.
    """
    hits = sum(one and other for one, other in zip(flagged, true, strict=True))
    return Detection(
        len(true), sum(true), sum(flagged), hits, share(hits, sum(flagged)), share(hits, sum(true)), auc(ranks, true)
    )


def auc(ranks: Sequence[float], true: Sequence[bool]) -> Estimate | None:
    """The chance that a true row ranks above a row that is not, a tie counting half; with DeLong's interval.

    It is the area under the ROC curve. The variance is that of DeLong, DeLong and Clarke-Pearson (1988), by midranks
    (Sun and Xu 2014); the interval is normal and cut at 0 and 1. It has no width where all rows are told apart.
    None where there are not two rows of each kind.
    """
    values, positive = np.asarray(ranks, dtype=np.float64), np.asarray(true, dtype=bool)
    above, below = values[positive], values[~positive]
    if min(len(above), len(below)) < 2:
        return None
    overall = rankdata(values)
    beaten: Floats = (overall[positive] - rankdata(above)) / len(below)  # of each true row: the others it ranks above
    beaten_by: Floats = 1 - (overall[~positive] - rankdata(below)) / len(above)
    value = float(beaten.mean())
    error = float(np.sqrt(beaten.var(ddof=1) / len(above) + beaten_by.var(ddof=1) / len(below)))
    width = float(norm.ppf((1 + LEVEL) / 2)) * error
    return Estimate(value, max(0.0, value - width), min(1.0, value + width), len(values))
