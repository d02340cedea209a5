"""What the scores of an evaluation come to. Every answer counts by itself: epochs are never reduced before.

Inspect leaves scores without a value out of a metric, and says how many those were.
"""

import math
from collections import Counter
from collections.abc import Sequence

from inspect_ai.scorer import Metric, SampleScore, Value, metric

from spillover.measure.stats import interval

SHARE, MEAN, LABELS = "share", "average", "labels"


def share_of(hits: int, answers: int) -> dict[str, float]:
    """A share with its 95% interval; that of one run: Clopper-Pearson over its answers. Not a number of no answers."""
    if not answers:
        return {SHARE: math.nan, "low": math.nan, "high": math.nan}
    low, high, _ = interval([hits / answers], [answers])
    return {SHARE: hits / answers, "low": low, "high": high}


def average_of(values: Sequence[float]) -> float:
    """The mean of some values; not a number where there are none."""
    return math.fsum(values) / len(values) if values else math.nan


def labels_of(chosen: Sequence[str]) -> dict[str, float]:
    """The share of each label, the most frequent first."""
    return {label: count / len(chosen) for label, count in Counter(chosen).most_common()}


@metric(scores="unreduced")
def share() -> Metric:
    """The share of answers with a score of 1 among those with 1 or 0, and its interval."""

    def measured(scores: list[SampleScore]) -> Value:
        return share_of(sum(one.score.as_float() == 1 for one in scores), len(scores))

    return measured


@metric(scores="unreduced")
def average() -> Metric:
    """The mean of the scores from 0 to 100."""

    def measured(scores: list[SampleScore]) -> Value:
        return average_of([one.score.as_float() for one in scores])

    return measured


@metric(scores="unreduced")
def labels() -> Metric:
    """The share of each label."""

    def measured(scores: list[SampleScore]) -> Value:
        return labels_of([one.score.as_str() for one in scores])

    return measured
