"""Intervals and tests over runs. A run is the unit of replication: its answers are not independent of each other."""

from itertools import chain, combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

MOST_SPLITS = 200_000
"""A permutation test enumerates up to this many splits, and samples splits beyond."""
SAMPLED_SPLITS = 20_000
"""Splits that are sampled where there are too many to enumerate."""
ONE_RUN = "one run: spread between runs cannot be estimated"
EQUAL_RUNS = "all runs have the same rate: the interval is that of one run's answers"
COVERAGE_OF_FEW = {2: 50, 3: 75, 4: 80}
"""In how many of 100 cases a "95%" bootstrap over so few runs that differ holds the truth."""

Floats = NDArray[np.float64]


def bootstrap_mean(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean over runs.

    The authors' (`common/first_plot.py`): a fresh `default_rng(0)`, 2000 resamples of the runs, the 2.5th and 97.5th
    percentiles with numpy's linear interpolation.

    Args:
        values: one number a run.
        weights: the runs' weights in the mean; equal if not given.
        resamples: how many times the runs are drawn with replacement.
        seed: of the generator, which is made anew at each call.
        level: the interval's nominal coverage.
    """
    rates = np.asarray(values, dtype=np.float64)
    shares = np.ones_like(rates) if weights is None else np.asarray(weights, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(rates), size=(resamples, len(rates)))  # (resamples, runs)
    means = (rates * shares)[drawn].sum(axis=1) / shares[drawn].sum(axis=1)
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def clopper_pearson(hits: float, answers: float) -> tuple[float, float]:
    """The exact 95% binomial interval of a share (Clopper and Pearson 1934); it has width even for zero hits.

    Args:
        hits: answers that count; need not be whole, where it is an average.
        answers: the denominator, more than zero.
    """
    low = betaincinv(hits, answers - hits + 1, 0.025) if hits > 0 else 0.0
    high = betaincinv(hits + 1, answers - hits, 0.975) if hits < answers else 1.0
    return float(low), float(high)


def interval(values: ArrayLike, answers: ArrayLike, weights: ArrayLike | None = None) -> tuple[float, float, str]:
    """The 95% interval of a rate that is the mean of the runs' rates, and a note on what it is worth.

    Runs that differ: the authors' bootstrap over runs, exactly. It is too narrow for few runs; it covers 50, 75, 80,
    83, 86 and 90% for 2, 3, 4, 5, 6 and 10 runs where the spread between runs rules, which up to 4 runs the note says.

    One run: Clopper-Pearson over its answers. It holds for that run, and knows nothing of others.

    Several runs with one and the same rate, mostly zero: the bootstrap would give an interval without width. Such runs
    say no more of the spread between runs than one does, so they get the interval of one: Clopper-Pearson over the
    mean number of answers a run. With k runs of m answers that is a design effect of k (Kish 1965), an intra-run
    correlation of (k-1)/(m-1). All k*m answers as one sample would assume none, and fails where runs differ: for a
    rate of 0.2%, a correlation of 0.05 and 6 runs of 800 answers it covers 38%, this 81% (simulated as in
    `tests/test_measure.py`). The price: 1 of 4800 answers makes the runs differ, and its bootstrap interval, up to
    0.06%, is narrower than that of 0 of 4800, up to 0.46%.

    Args:
        values: the rate of each run.
        answers: the denominator of each run's rate.
        weights: the runs' weights in the mean; equal if not given.
    """
    rates, counts = np.asarray(values, dtype=np.float64), np.asarray(answers, dtype=np.float64)
    if np.ptp(rates) > 1e-12:
        low, high = bootstrap_mean(rates, weights)
        return low, high, _note_on_few(len(rates))
    low, high = clopper_pearson(float(rates[0] * counts.mean()), float(counts.mean()))
    return low, high, ONE_RUN if len(rates) == 1 else EQUAL_RUNS


def _note_on_few(runs: int) -> str:
    covered = COVERAGE_OF_FEW.get(runs)
    return f"{runs} runs: a bootstrap over so few is too narrow, it covers about {covered}%" if covered else ""


def permutation_test(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> float:
    """The two-sided p value of the difference between the means of two groups of runs.

    The share of the ways to split all runs into groups of these sizes whose means differ at least as much (Fisher
    1935; Good 2005). Exact where `is_exact`; else over sampled splits, as (hits + 1) / (sampled + 1) (Phipson and
    Smyth 2010).

    Args:
        a: one number a run.
        b: one number a run of the other group.
        seed: of the sampled splits.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    pooled, size = np.concatenate([first, second]), len(first)
    exact = is_exact(size, len(second))
    parts = _all_splits(len(pooled), size) if exact else _sampled_splits(len(pooled), size, seed)
    sums = pooled[parts].sum(axis=1)
    differences = np.abs(sums / size - (pooled.sum() - sums) / len(second))
    tolerance = 1e-9 * float(np.abs(pooled).max())
    hits = int(np.count_nonzero(differences >= abs(first.mean() - second.mean()) - tolerance))
    return hits / len(parts) if exact else (hits + 1) / (len(parts) + 1)


def is_exact(size_a: int, size_b: int) -> bool:
    """Whether `permutation_test` enumerates every split of groups of these sizes."""
    return comb(size_a + size_b, size_a) <= MOST_SPLITS


def least_p(size_a: int, size_b: int) -> float:
    """The least p value that `permutation_test` can give for groups of these sizes.

    Of two groups of equal size the mirrored split differs just as much, so the least is two splits.
    """
    least = (2 if size_a == size_b else 1) / comb(size_a + size_b, size_a)
    return least if is_exact(size_a, size_b) else max(least, 1 / (SAMPLED_SPLITS + 1))


def _all_splits(total: int, size: int) -> NDArray[np.intp]:
    """The indices of the first group, one row a split: (splits, size)."""
    indices = chain.from_iterable(combinations(range(total), size))
    return np.fromiter(indices, dtype=np.intp, count=comb(total, size) * size).reshape(-1, size)


def _sampled_splits(total: int, size: int, seed: int) -> NDArray[np.intp]:
    """As `_all_splits`, for SAMPLED_SPLITS splits drawn at random."""
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(total), (SAMPLED_SPLITS, 1)), axis=1)[:, :size]


def holm(p_values: ArrayLike) -> list[float]:
    """The p values corrected for their number (Holm 1979), in the order given: monotone and at most 1."""
    raw = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    corrected: Floats = np.empty_like(raw)
    corrected[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in corrected]
