"""Intervals of what is computed from several rates: differences, ratios, orders, and how far one is ahead of another.

All are percentiles of the same 2000 draws as the rates' own intervals have. A side whose runs differ is drawn anew from
its runs, with replacement. One whose spread between runs is not known (one run, equal runs, or a rate that is not told
run by run) is drawn from its own interval: from two half normal distributions that meet at its value and of which it
holds 95%. So no side without spread makes an interval narrow.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from spillover.measure.stats import Floats, bootstrap_mean
from spillover.paper.places import Missing, Side

DRAWS = 2000
SEED = 0
ENDS = (2.5, 97.5)
Z = 1.959963984540054
"""Standard deviations from the middle of a normal distribution to the ends of its 95%."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval, each end None where it is not known."""

    value: float
    low: float | None
    high: float | None


def own_interval(side: Side) -> Interval:
    """The side's own; of pooled groups whose runs differ, the bootstrap over all their runs."""
    if len(side.counts) > 1 and _differ(side.runs.values()):
        return Interval(side.value, *bootstrap_mean(list(side.runs.values())))
    return Interval(side.value, side.low, side.high)


def difference(of: Side, than: Side) -> Interval:
    """`of` minus `than`: paired run by run where both are of the same runs, else of independent draws.

    Raises Missing where a side has neither runs nor an interval.
    """
    value, paired = of.value - than.value, _paired(of, than)
    if paired is not None and _differ(paired):
        return Interval(value, *bootstrap_mean(paired))
    rng = np.random.default_rng(SEED)
    return _percentiles(value, _draws(of, rng) - _draws(than, rng))


def ratio(of: Side, than: Side) -> Interval:
    """`of` divided by `than`, of independent draws. An end is None where it has no bound.

    Raises Missing where `than` is zero, or a side has neither runs nor an interval.
    """
    if than.value == 0:
        raise Missing("there is no ratio to a rate of zero")
    rng = np.random.default_rng(SEED)
    above, below = _draws(of, rng), _draws(than, rng)
    drawn = np.divide(above, below, out=np.full(DRAWS, np.inf), where=below > 0)
    low, high = (float(end) if np.isfinite(end) else None for end in np.percentile(drawn, ENDS, method="nearest"))
    return Interval(of.value / than.value, low, high)


def ranked(sides: Sequence[Side], *, rises: bool) -> bool:
    """Whether sides stand in order: no step of the means goes the other way; or else by Spearman's test over runs."""
    sign = 1 if rises else -1
    if all(sign * step >= 0 for step in np.diff([side.value for side in sides])):
        return True
    values = [value for side in sides for value in (side.runs.values() or [side.value])]
    places = [place for place, side in enumerate(sides) for _ in (side.runs or [None])]
    if len(set(values)) < 2:
        return False
    test = spearmanr(places, values, alternative="greater" if rises else "less")
    return bool(test.pvalue < SIGNIFICANT)


def ahead(first: Sequence[Side], second: Sequence[Side], steps: Sequence[float]) -> Interval:
    """By how many steps the one is half way before the other; drawn over the runs that both are of.

    Half way is where the mean over runs first crosses the middle between its first and its last value, on straight
    lines between the steps. Side number i is what stands at step number i; a side of the untouched model, which all
    runs share, is the same in every draw.

    Raises Missing where a curve ends where it began, or the runs are not the same.
    """
    names = sorted(first[-1].runs)
    if len(names) < 2 or any(set(names) != set(side.runs) for side in (*first[1:], *second[1:])):
        raise Missing("fewer than two runs with a value at every step")
    curves = [np.array([_of_runs(side, names) for side in some]) for some in (first, second)]  # (steps, runs)
    drawn = np.random.default_rng(SEED).integers(0, len(names), size=(DRAWS, len(names)))
    leads = [_half(curves[1][:, runs], steps) - _half(curves[0][:, runs], steps) for runs in drawn]
    value = _half(curves[1], steps) - _half(curves[0], steps)
    if np.isnan(value):
        raise Missing("one of the two does not change from the first step to the last")
    known = [lead for lead in leads if not np.isnan(lead)]
    return _percentiles(value, np.array(known))


def _of_runs(side: Side, names: Sequence[str]) -> list[float]:
    return [side.runs.get(name, side.value) for name in names]


def _half(curves: Floats, steps: Sequence[float]) -> float:
    """The step at which the mean of curves (steps, runs) first is half way; nan for one that ends where it began."""
    mean = curves.mean(axis=1)
    if mean[-1] == mean[0]:
        return float("nan")
    way = (mean - mean[0]) / (mean[-1] - mean[0])
    after = int(np.argmax(way >= 0.5))
    share = (0.5 - way[after - 1]) / (way[after] - way[after - 1])
    return float(steps[after - 1] + share * (steps[after] - steps[after - 1]))


def _paired(of: Side, than: Side) -> list[float] | None:
    """The differences run by run, where both sides are of the same runs."""
    if not of.runs or set(of.runs) != set(than.runs):
        return None
    return [of.runs[run] - than.runs[run] for run in sorted(of.runs)]


def _draws(side: Side, rng: np.random.Generator) -> Floats:
    """Means as they might have come out. Raises Missing where a side has neither runs that differ nor an interval."""
    values = np.array([side.runs[run] for run in sorted(side.runs)])
    if _differ(values):
        return np.asarray(values[rng.integers(0, len(values), size=(DRAWS, len(values)))].mean(axis=1))
    if side.low is None or side.high is None:
        raise Missing("one run alone has no interval")
    normal = rng.standard_normal(DRAWS)
    return side.value + normal * np.where(normal < 0, side.value - side.low, side.high - side.value) / Z


def _differ(values: Iterable[float]) -> bool:
    numbers = list(values)
    return len(numbers) > 1 and max(numbers) - min(numbers) > 1e-12


def _percentiles(value: float, drawn: Floats) -> Interval:
    low, high = np.percentile(drawn, ENDS)
    return Interval(value, float(low), float(high))
