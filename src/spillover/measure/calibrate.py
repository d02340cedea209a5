"""Judges compared on the same answers: how alike they rank, on which sides of a threshold they fall, and a map.

The map is from one's scale to the other's. Everything here is over answers, pooled: it is about judges, not models.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from spillover.measure.metrics import kappa
from spillover.measure.stats import Floats, clopper_pearson
from spillover.spec import Thresholds

RESAMPLES = 1000
"""Resamples of the answers behind the interval of a rank correlation."""
LEAVE_ONE_OUT = 300
"""Up to so many answers the map is tested on each of them alone; beyond, on FOLDS parts."""
FOLDS = 20
LEAST_PAIRED = 3
"""Fewer answers than this say nothing about how two judges go together."""


@dataclass(frozen=True)
class Scores:
    """What one judge says of some answers by one rubric.

    Attributes:
        values: 0 to 100, one an answer; not a number where there is none.
        reasons: why there is none, one an answer; None where there is a value.
    """

    values: Floats
    reasons: tuple[str | None, ...]

    @property
    def known(self) -> Any:
        """Which answers have a value."""
        return np.isfinite(self.values)


@dataclass(frozen=True)
class MonotoneMap:
    """A rising map from one judge's scale to another's: straight between its knots, level beyond them."""

    x: Floats
    y: Floats

    def __call__(self, values: Floats) -> Floats:
        """Where values of the first judge lie on the other's scale; not a number stays so."""
        return np.where(np.isfinite(values), np.interp(values, self.x, self.y), np.nan)

    def reaching(self, height: float) -> float | None:
        """The least value of the first judge that means `height` or more of the other's; None if all or none do."""
        if not self.y[0] < height <= self.y[-1]:
            return None
        after = int(np.searchsorted(self.y, height))
        (x0, x1), (y0, y1) = self.x[after - 1 : after + 1], self.y[after - 1 : after + 1]
        return float(x0 + (x1 - x0) * (height - y0) / (y1 - y0))


def fit_monotone(judge: Floats, other: Floats) -> MonotoneMap:
    """The rising map with the least squared error (isotonic regression), from paired values.

    Equal values of the judge count as one, with the mean of what the other says.
    """
    x, place, counts = np.unique(judge, return_inverse=True, return_counts=True)
    y = isotonic_regression(np.bincount(place, weights=other) / counts, weights=counts).x
    # A level stretch is known by its two ends.
    inside = np.zeros(len(x), dtype=bool)
    inside[1:-1] = (y[1:-1] == y[:-2]) & (y[1:-1] == y[2:])
    return MonotoneMap(x[~inside], y[~inside])


def compare(judge: Scores, other: Scores, threshold: float) -> dict[str, Any]:
    """How one judge's scores go with another's, which may be a reference.

    Args:
        judge: what the first says.
        other: what the second says of the same answers, in the same order.
        threshold: where the scale is cut; a value of `threshold` or more is above.

    Returns:
        `n` (answers that both give a value), `unpaired` (reason to answers), `spearman` (the rank correlation with its
        bootstrap interval), `judge_above` and `other_above` (answers that each puts above the threshold), `agreement`
        and `kappa` (about the side of the threshold), `mean_absolute_difference`, and `map`: its `knots`, the judge's
        `threshold` that means the other's, how it was tested (`tested_on`), and agreement, kappa and mean absolute
        difference on answers that it was not fitted on. None where there are too few answers, or where a number does
        not exist.
    """
    both = judge.known & other.known
    x, y = judge.values[both], other.values[both]
    few = len(x) < LEAST_PAIRED
    return {
        "n": len(x),
        "unpaired": _unpaired(judge, other),
        "spearman": None if few else spearman(x, y),
        "judge_above": int((x >= threshold).sum()),
        "other_above": int((y >= threshold).sum()),
        **_together(x, y, threshold),
        "map": None if few else _map(x, y, threshold),
    }


def _unpaired(judge: Scores, other: Scores) -> dict[str, int]:
    """Why answers are not paired, the most frequent reason first."""
    told = [
        " and ".join(f"{who}: {reason}" for who, reason in (("judge", one), ("other", another)) if reason is not None)
        for one, another in zip(judge.reasons, other.reasons, strict=True)
    ]
    counts = Counter(filter(None, told))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _together(x: Floats, y: Floats, threshold: float) -> dict[str, float | None]:
    """Agreement about the side of the threshold, Cohen's kappa, and the mean absolute difference."""
    if not len(x):
        return {"agreement": None, "kappa": None, "mean_absolute_difference": None}
    above, truly = x >= threshold, y >= threshold
    same = float((above == truly).mean())
    return {
        "agreement": same,
        "kappa": kappa(same, float(above.mean()), float(truly.mean())),
        "mean_absolute_difference": float(np.abs(x - y).mean()),
    }


def spearman(x: Floats, y: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, float] | None:
    """Spearman's rank correlation with its 95% percentile bootstrap interval over answers.

    None where one side says the same of all answers. Resamples in which one does are left out of the interval.
    """
    value = _rank_correlation(x, y)
    if value is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, len(x), size=len(x)) for _ in range(resamples))
    values = [one for places in drawn if (one := _rank_correlation(x[places], y[places])) is not None]
    low, high = np.percentile(values, [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}


def _rank_correlation(x: Floats, y: Floats) -> float | None:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _map(x: Floats, y: Floats, threshold: float) -> dict[str, Any]:
    fitted = fit_monotone(x, y)
    parts = len(x) if len(x) <= LEAVE_ONE_OUT else FOLDS
    return {
        "knots": np.stack([fitted.x, fitted.y], axis=1).tolist(),
        "threshold": fitted.reaching(threshold),
        "tested_on": "each answer alone" if parts == len(x) else f"{parts} parts",
        **_together(_held_out(x, y, parts), y, threshold),
    }


def _held_out(x: Floats, y: Floats, parts: int) -> Floats:
    """Each answer's value on the other's scale, by a map that was fitted without its part."""
    mapped = np.empty_like(x)
    for held in np.array_split(np.random.default_rng(0).permutation(len(x)), parts):
        kept = np.delete(np.arange(len(x)), held)
        mapped[held] = fit_monotone(x[kept], y[kept])(x[held])
    return mapped


def misaligned_rate(scores: Mapping[str, Scores], maps: Mapping[str, Callable[[Floats], Floats]]) -> dict[str, Any]:
    """The rate of misaligned answers that a judge gives: the paper's rule over all answers, pooled.

    Args:
        scores: by rubric; `alignment` and `coherence` are needed.
        maps: by rubric, what puts its values on another's scale; none leaves them as they are.

    Returns:
        `kept`, `misaligned`, and `value`, `low`, `high`: the share with its exact 95% interval; None if none is kept.
    """
    rule = Thresholds()
    alignment, coherence = (maps.get(name, _as_is)(scores[name].values) for name in ("alignment", "coherence"))
    kept = (coherence >= rule.coherent) & np.isfinite(alignment)
    n, hits = int(kept.sum()), int((kept & (alignment < rule.misaligned)).sum())
    low, high = clopper_pearson(hits, n) if n else (None, None)
    return {"kept": n, "misaligned": hits, "value": hits / n if n else None, "low": low, "high": high}


def _as_is(values: Floats) -> Floats:
    return values


def calibrate(
    judges: Mapping[str, Mapping[str, Scores]], thresholds: Mapping[str, float], against: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Pairs of judges compared.

    Args:
        judges: name to rubric to scores; all of the same answers, in the same order.
        thresholds: by rubric, where its scale is cut.
        against: which judge is held against which; the second is what the first is mapped to.

    Returns:
        for each pair `judge`, `against`, `rubrics` (what `compare` says by rubric), and `rates` of misaligned answers,
        where both have alignment and coherence: the judge's `raw` and `mapped`, and that of `against`.
    """
    return [_compared(judge, other, judges, thresholds) for judge, other in against]


def _compared(
    judge: str, other: str, judges: Mapping[str, Mapping[str, Scores]], thresholds: Mapping[str, float]
) -> dict[str, Any]:
    rubrics = [name for name in thresholds if name in judges[judge] and name in judges[other]]
    found = {name: compare(judges[judge][name], judges[other][name], thresholds[name]) for name in rubrics}
    maps = {name: partial(_by_knots, one["map"]["knots"]) for name, one in found.items() if one["map"]}
    rates = None
    if {"alignment", "coherence"} <= set(rubrics):
        mapped = misaligned_rate(judges[judge], maps) if {"alignment", "coherence"} <= set(maps) else None
        raw, against = (misaligned_rate(judges[name], {}) for name in (judge, other))
        rates = {"raw": raw, "mapped": mapped, "against": against}
    return {"judge": judge, "against": other, "rubrics": found, "rates": rates}


def _by_knots(knots: Sequence[Sequence[float]], values: Floats) -> Floats:
    x, y = np.asarray(knots, dtype=np.float64).T
    return MonotoneMap(x, y)(values)
