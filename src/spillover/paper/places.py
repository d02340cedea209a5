"""Places in an experiment's `numbers.json`, and what stands there: a value, its interval, and the runs behind it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import model_validator

from spillover.records import AT, BASE_RUN
from spillover.spec import Spec

HEADLINE = ("main", "misaligned")
NONE: Mapping[str, str] = MappingProxyType({})


class Missing(LookupError):
    """What a claim names is not there, or has no value; the text says what is missing where."""


class Place(Spec):
    """One measure of a group or of several that are one condition, then with all their runs together."""

    group: str | tuple[str, ...]
    """A group, `base`, or a group at a step of its training, `GROUP@STEP`. A list is pooled: all its runs count."""
    suite: str = "main"
    measure: str = "misaligned"
    question: str | None = None
    """Misaligned answers to this question of the headline suite alone."""
    convention: str | None = None
    """The headline's rate by another convention (`all_answers`, ...)."""
    threshold: tuple[Literal["misaligned", "coherent"], str] | None = None
    """The headline's rate where one of the judge's scales is cut elsewhere: `[misaligned, "10"]`."""

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        alone = [one for one in (self.question, self.convention, self.threshold) if one is not None]
        if not self.groups or (alone and (len(self.groups) > 1 or (self.suite, self.measure) != HEADLINE)):
            raise ValueError("a place is a suite's measure, or one group's `question`, `convention` or `threshold`")
        if len(alone) > 1:
            raise ValueError("give one of `question`, `convention` and `threshold`, not several")
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups, one or more."""
        return (self.group,) if isinstance(self.group, str) else self.group


@dataclass(frozen=True)
class Side:
    """What stands at a place.

    Attributes:
        value: the mean over runs.
        low: its 95% interval's lower end; None where there is none.
        high: the upper end; None with the lower.
        runs: run to its value, by names that are the same at every step of a training; empty where they are not told.
        counts: how many runs each group has.
    """

    value: float
    low: float | None
    high: float | None
    runs: Mapping[str, float]
    counts: Mapping[str, int]


def side_at(numbers: Mapping[str, Any], place: Place) -> Side:
    """What an experiment's numbers say at a place. Raises Missing."""
    return _pooled([_entry(numbers, place, group) for group in place.groups])


def _entry(numbers: Mapping[str, Any], place: Place, group: str) -> Side:
    """One group's. Raises Missing with the name that is not there."""
    found = _found(numbers, place, group)
    if found["value"] is None:
        raise Missing(f"{_of(place, group)} of {numbers['experiment']} has no value: {found.get('note', 'no answers')}")
    low, high = found["low"], found["high"]
    if low is None and group == BASE_RUN.group:  # one model that everybody shares: what it says is no sample of runs
        low = high = found["value"]
    by_run = {_trained(run): rate for run, rate in found.get("by_run", {}).items() if rate is not None}
    runs = len(by_run) if by_run else int(numbers["groups"][group]["runs"])
    return Side(found["value"], low, high, by_run, {_trained(group): runs})


def _found(numbers: Mapping[str, Any], place: Place, group: str) -> Mapping[str, Any]:
    """The rate as it stands there. Raises Missing."""
    experiment = numbers["experiment"]
    if place.threshold is not None:
        scale, cut = place.threshold
        at = _named(numbers.get("thresholds", {}).get(scale, {}), cut, f"threshold of {scale}", experiment)
        return dict(_named(at, group, "group", f"threshold {cut} of {experiment}"))
    if place.question is None and place.convention is None:
        suite = _named(numbers["suites"], place.suite, "suite", experiment, numbers.get("skipped", {}))
        measures = _named(suite["groups"], group, "group", f"suite {place.suite!r} of {experiment}")
        return dict(_named(measures, place.measure, "measure", f"{group} in suite {place.suite!r} of {experiment}"))
    headline = _named(numbers["groups"], group, "group", experiment)
    if place.question is not None:
        told = _named(headline["questions"], place.question, "question", f"{group} of {experiment}")["p_misaligned"]
    else:
        told = _named(headline["conventions"], str(place.convention), "convention", f"{group} of {experiment}")
    return dict(told)


def _named(inside: Mapping[str, Any], name: str, kind: str, where: str, skipped: Mapping[str, str] = NONE) -> Any:
    """What is called `name`. Raises Missing, with the reason why a suite was left out."""
    if name in inside:
        return inside[name]
    why = f"; it was left out: {skipped[name]}" if name in skipped else ""
    raise Missing(f"{where} has no {kind} {name!r}{why}")


def _of(place: Place, group: str) -> str:
    return f"{place.measure} of {group} in suite {place.suite!r}"


def _trained(name: str) -> str:
    """A group's or a run's name without the step: `insecure@40-s1` is the run `insecure-s1` on its way."""
    before, _, after = name.partition(AT)
    return before + after.lstrip("0123456789")


def _pooled(sides: list[Side]) -> Side:
    """Several groups as one: the mean over all runs, which is drawn over them where they differ.

    Runs that are all the same say nothing of the spread between runs, so they get the widest of their own intervals.
    """
    if len(sides) == 1:
        return sides[0]
    runs = {run: value for side in sides for run, value in side.runs.items()}
    value = sum(runs.values()) / len(runs)
    ends = [(side.low, side.high) for side in sides if side.low is not None and side.high is not None]
    low, high = (min(a for a, _ in ends), max(b for _, b in ends)) if len(ends) == len(sides) else (None, None)
    return Side(value, low, high, runs, counted(sides))


def counted(sides: Iterable[Side]) -> dict[str, int]:
    """How many runs each group has, over several places; a group that is at several counts once."""
    total: Counter[str] = Counter()
    for side in sides:
        total |= Counter(side.counts)
    return dict(total)
