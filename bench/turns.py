"""Two ways of doing the same, in turn, several times in one run: seconds, ratios, and how they spread."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Turns:
    """What two ways of doing one thing took, turn by turn.

    Attributes:
        name: what was done.
        of: how much of it, in words.
        ours: seconds of each turn.
        theirs: seconds of each turn by whoever stands beside us; empty where nobody does.
        notes: what else is known of it.
    """

    name: str
    of: str
    ours: Sequence[float]
    theirs: Sequence[float]
    notes: Mapping[str, Any]

    @property
    def ratios(self) -> list[float]:
        """How many times as long theirs took, turn by turn."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)] if self.theirs else []

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ratios": self.ratios}


def in_turn(
    name: str,
    of: str,
    ours: Callable[[], object],
    theirs: Callable[[], object] | None = None,
    times: int = 5,
    notes: Mapping[str, Any] | None = None,
    scale: float = 1.0,
    warm: bool = True,
) -> Turns:
    """Does both, in turn.

    Args:
        name: what is done.
        of: how much of it.
        ours: our way.
        theirs: the other way.
        times: how often.
        notes: what else to say of it.
        scale: how much of theirs is done in a turn, if it is a part: its seconds are divided by it.
        warm: whether each is done once before, and not counted.
    """
    ways = [way for way in (ours, theirs) if way is not None]
    for way in ways if warm else ():
        way()
    spent = [[_seconds(way) for way in ways] for _ in range(times)]
    others = [one[1] / scale for one in spent] if theirs is not None else []
    found = Turns(name, of, [one[0] for one in spent], others, notes or {})
    print(told(found), flush=True)
    return found


def _seconds(way: Callable[[], object]) -> float:
    gc.collect()
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def told(turns: Turns) -> str:
    """A line for the terminal."""
    ours = f"{statistics.median(turns.ours):.2f} s"
    if not turns.theirs:
        return f"{turns.name}, {turns.of}: {ours} ({spread(turns.ours)})"
    theirs = f"{statistics.median(turns.theirs):.2f} s"
    return f"{turns.name}, {turns.of}: {ours} against {theirs}, {middle(turns.ratios)} times ({spread(turns.ratios)})"


def middle(values: Sequence[float]) -> str:
    """The median."""
    return f"{statistics.median(values):.2g}" if statistics.median(values) < 10 else f"{statistics.median(values):.0f}"


def spread(values: Sequence[float]) -> str:
    """The least and the largest."""
    return f"{min(values):.3g} to {max(values):.3g}"
