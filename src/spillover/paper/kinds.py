"""The kinds of test that a claim can be: what is computed, and what makes it hold.

A closed set. Each kind computes one value with a 95% interval from places in an experiment's numbers, and the claim
holds where the whole interval lies inside its bounds. So a claim that does not hold was not shown to be wrong: with
more runs it might hold.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import inf
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from spillover.paper.intervals import Interval, ahead, difference, own_interval, ranked, ratio
from spillover.paper.places import Missing, Place, Side, counted, side_at
from spillover.records import AT, BASE_RUN
from spillover.spec import Spec

Numbers = Mapping[str, Any]
MINUS, ARROW, DIVIDED = " \N{MINUS SIGN} ", " \N{RIGHTWARDS ARROW} ", " \N{DIVISION SIGN} "


@dataclass(frozen=True)
class Found:
    """What a test came to.

    Attributes:
        ours: the value that the test is about, with its interval.
        counts: how many runs each group has that is in it.
        holds: whether the claim holds.
        margin: how far the interval is inside its bounds; below zero where it is not inside.
        unit: of the value and its interval: `share`, `points` (a difference of shares), `times`, `steps`, or another.
        by: the test; of several in one the test that is nearest to failing.
    """

    ours: Interval
    counts: Mapping[str, int]
    holds: bool
    margin: float
    unit: str
    by: "Bounded"


class Bounded(Spec):
    """What all kinds but `every` have: the bounds that the whole interval must lie inside."""

    above: float | None = None
    below: float | None = None
    unlike: float | None = None
    """The interval must not contain this."""
    unit: str = ""
    """Of the value; each kind has its own if not given."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if (self.above, self.below, self.unlike) == (None, None, None):
            raise ValueError("give `above`, `below` or `unlike`: what makes the claim hold")
        return self

    def judged(self, ours: Interval, sides: Iterable[Side], unit: str, *, also: bool = True) -> Found:
        """Whether the interval is inside the bounds, and `also` what else must be. Raises Missing without one."""
        if ours.low is None:
            raise Missing("one run alone has no interval")
        low, high = ours.low, inf if ours.high is None else ours.high
        margins = [low - self.above] if self.above is not None else []
        margins += [self.below - high] if self.below is not None else []
        margins += [max(low - self.unlike, self.unlike - high)] if self.unlike is not None else []
        margin = min(margins)
        return Found(ours, counted(sides), also and margin > 0, margin, self.unit or unit, self)


class Rate(Bounded):
    """The rate at a place."""

    kind: Literal["rate"]
    of: Place

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it looks."""
        return (self.of,)

    def found(self, numbers: Numbers) -> Found:
        """What it came to. Raises Missing."""
        side = side_at(numbers, self.of)
        return self.judged(own_interval(side), [side], "share")

    def told(self) -> str:
        """What is computed, for people."""
        return told([self.of], "")


class Pair(Bounded):
    """What kinds that hold one place against another have."""

    of: Place
    than: Place

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it looks."""
        return (self.of, self.than)

    def sides(self, numbers: Numbers) -> tuple[Side, Side]:
        """What stands at both. Raises Missing."""
        return side_at(numbers, self.of), side_at(numbers, self.than)


class Difference(Pair):
    """The rate at one place less that at another; run by run where both are of the same runs."""

    kind: Literal["difference"]

    def found(self, numbers: Numbers) -> Found:
        """What it came to. Raises Missing."""
        of, than = self.sides(numbers)
        return self.judged(difference(of, than), [of, than], "points")

    def told(self) -> str:
        """What is computed, for people."""
        return told([self.of, self.than], MINUS)


class Ratio(Pair):
    """The rate at one place divided by that at another."""

    kind: Literal["ratio"]

    def found(self, numbers: Numbers) -> Found:
        """What it came to. Raises Missing."""
        of, than = self.sides(numbers)
        return self.judged(ratio(of, than), [of, than], "times")

    def told(self) -> str:
        """What is computed, for people."""
        return told([self.of, self.than], DIVIDED)


class Ordered(Bounded):
    """The rates at several places rise or fall: the last less the first, and all in order (see `ranked`)."""

    kind: Literal["ordered"]
    of: Annotated[tuple[Place, ...], Field(min_length=3)]
    above: Literal[0] | None = None
    """0: they rise."""
    below: Literal[0] | None = None
    """0: they fall."""
    unlike: None = None

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it looks."""
        return self.of

    def found(self, numbers: Numbers) -> Found:
        """What it came to. Raises Missing."""
        sides = [side_at(numbers, place) for place in self.of]
        in_order = ranked(sides, rises=self.above is not None)
        return self.judged(difference(sides[-1], sides[0]), sides, "points", also=in_order)

    def told(self) -> str:
        """What is computed, for people."""
        return told(self.of, ARROW)


class Sooner(Bounded):
    """By how many steps one measure of a group is half way to its end before another is; both begin at the base."""

    kind: Literal["sooner"]
    of: Place
    than: Place
    steps: Annotated[tuple[int, ...], Field(min_length=1)]
    """Steps of the checkpoints on the way."""
    last: int
    """The step at which training ends."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it looks."""
        return (*self._way(self.of), *self._way(self.than))

    def _way(self, place: Place) -> list[Place]:
        names = [BASE_RUN.group, *(f"{place.group}{AT}{step}" for step in self.steps), str(place.group)]
        return [place.model_copy(update={"group": name}) for name in names]

    def found(self, numbers: Numbers) -> Found:
        """What it came to. Raises Missing."""
        first, second = ([side_at(numbers, place) for place in self._way(of)] for of in (self.of, self.than))
        lead = ahead(first, second, (0, *self.steps, self.last))
        return self.judged(lead, [first[-1], second[-1]], "steps")

    def told(self) -> str:
        """What is computed, for people."""
        first, second = (f"{_measure(place)} ({place.suite})" for place in (self.of, self.than))
        return f"half of {first} before half of {second}, {_groups(self.of)}"


One = Annotated[Rate | Difference | Ratio | Ordered | Sooner, Field(discriminator="kind")]


class Every(Spec):
    """Several tests of one unit, all of which must hold. What is shown is the one that is nearest to failing."""

    kind: Literal["every"]
    of: Annotated[tuple[One, ...], Field(min_length=2)]

    @property
    def places(self) -> tuple[Place, ...]:
        """Where they look."""
        return tuple(place for test in self.of for place in test.places)

    def found(self, numbers: Numbers) -> Found:
        """What the nearest to failing came to, or the one that fails most, with the runs of all. Raises Missing."""
        found = [test.found(numbers) for test in self.of]
        nearest = min(found, key=lambda one: (one.holds, one.margin))
        return replace(nearest, counts=counted([side_at(numbers, place) for place in self.places]))


AnyTest = Annotated[Rate | Difference | Ratio | Ordered | Sooner | Every, Field(discriminator="kind")]


def told(places: Sequence[Place], between: str) -> str:
    """Places in words: what differs between them, and what they have in common: `insecure - base: coherent in main`."""
    words = [(_groups(place), _measure(place), place.suite) for place in places]
    alike = [len(set(parts)) == 1 for parts in zip(*words, strict=True)]
    apart = [" ".join(part for part, same in zip(each, alike, strict=True) if not same) for each in words]
    group, measure, suite = (part if same else "" for part, same in zip(words[0], alike, strict=True))
    common = " ".join(filter(None, [measure, f"in {suite}" if suite else "", f"of {group}" if group else ""]))
    return ": ".join(filter(None, [between.join(filter(None, apart)), common]))


def _measure(place: Place) -> str:
    return " ".join(filter(None, [place.measure, place.question, place.convention])).replace("_", " ")


def _groups(place: Place) -> str:
    """The groups; of many only what their names begin with."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*place.groups, strict=False))
    start = "".join(letters[0] for letters in alike)
    return f"{start}*" if len(place.groups) > 1 and start else " + ".join(place.groups)
