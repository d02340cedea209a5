"""Values, intervals and bounds of claims as people read them."""

from math import isclose

from spillover.paper.kinds import Bounded, Ordered
from spillover.report.page import percent

SIGNED = "\N{MINUS SIGN}"


def amount(value: float, unit: str) -> str:
    """A value with its unit: `8.4%`, `+8.2 points`, `2.5 times`, `+14 steps`, `+4.10 nats`."""
    return percent(value) if unit == "share" else f"{number(value, unit)} {unit}"


def number(value: float, unit: str) -> str:
    """A value of a unit that stands elsewhere; only shares bear theirs."""
    if unit == "share":
        return percent(value)
    digits = {"points": 1, "times": 1, "steps": 0}.get(unit, 2)
    shown = 100 * value if unit == "points" else value
    sign = "" if unit == "times" or round(shown, digits) == 0 else "+"
    return f"{shown:{sign}.{digits}f}".replace("-0.0", "0.0").replace("-", SIGNED)


def span(low: float | None, high: float | None, unit: str) -> str:
    """An interval; empty where there is none."""
    if low is None:
        return ""
    return f"{number(low, unit)} to {number(high, unit) if high is not None else 'any'}"


def rule(test: Bounded, unit: str) -> str:
    """What makes a claim hold: `interval above 0`, `interval within ±2 points`."""
    above, below = test.above, test.below
    if test.unlike is not None:
        return f"interval without {_bare(test.unlike, unit)}"
    if above is not None and below is not None:
        if isclose(above, -below):
            return f"interval within \N{PLUS-MINUS SIGN}{_bare(below, unit)}"
        return f"interval between {_bare(above, unit)} and {_bare(below, unit)}"
    order = ", in order" if isinstance(test, Ordered) else ""
    return f"interval above {_bare(above, unit)}{order}" if above is not None else _below(below, unit, order)


def _below(below: float | None, unit: str, order: str) -> str:
    return f"interval below {_bare(below or 0.0, unit)}{order}"


def _bare(bound: float, unit: str) -> str:
    """A bound without a plus sign and without digits that say nothing."""
    if bound == 0 and unit != "times":
        return "0"
    shown = f"{100 * bound if unit in ('share', 'points') else bound:.4g}".replace("-", SIGNED)
    return f"{shown}%" if unit == "share" else f"{shown} {unit}"
