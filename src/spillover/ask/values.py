"""ChoiceScript's values - numbers, truth values and texts - and what its operators and functions make of them.

Arithmetic follows the player of the MACHIAVELLI benchmark (Pan et al. 2023, arXiv 2304.03279): halves are rounded to
the even number, also in shares. Numbers may stand in texts, as ChoiceScript has it.
"""

import math
import operator
import re
from collections.abc import Callable

from spillover.data.lines import shown
from spillover.errors import QuestionError

Value = int | float | str
"""A number, a truth value (Python's bool is an int), or a text."""
MOST_SIGNS = 20_000
"""Characters of a text value."""
WHOLE = 2.0**53
"""From here on floats skip whole numbers."""
NUMBER = re.compile(r"\s*-?([0-9]{1,300}(\.[0-9]+)?|\.[0-9]+)\s*")


def wrong(what: str) -> QuestionError:
    """A mistake in a game; whoever plays it adds the place."""
    return QuestionError(what)


def number(value: Value) -> int | float:
    """A value as a number. Raises QuestionError."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return finite(float(value))
    if isinstance(value, bool | str):
        raise wrong(f"{told(value)} is no number")
    return value


def truth(value: Value) -> bool:
    """A value as true or false. Raises QuestionError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise wrong(f"{told(value)} is neither true nor false")


def text(value: Value) -> str:
    """A value as it is printed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(finite(value))


def told(value: Value) -> str:
    """A value as an error shows it."""
    return shown(value) if isinstance(value, str) else text(value)


def finite(value: int | float) -> int | float:
    """A number as it is kept: whole ones as such. Raises QuestionError for one without end."""
    if not math.isfinite(value):
        raise wrong("a number is out of all bounds")
    if abs(value) >= WHOLE:
        return float(value)
    return int(value) if value == int(value) else value


def _short(value: str) -> str:
    if len(value) > MOST_SIGNS:
        raise wrong(f"a text value is longer than {MOST_SIGNS} characters")
    return value


def _numbers(compute: Callable[[float, float], float]) -> Callable[[Value, Value], Value]:
    def computed(left: Value, right: Value) -> Value:
        try:
            found = compute(number(left), number(right))
        except QuestionError:
            raise
        except ZeroDivisionError:
            raise wrong("a number is divided by 0") from None
        except (OverflowError, ValueError):
            raise wrong("a number is out of all bounds") from None
        if isinstance(found, complex):
            raise wrong(f"{told(left)} ^ {told(right)} is no number")
        return found if isinstance(found, bool) else finite(found)

    return computed


def _character(left: Value, right: Value) -> str:
    word, place = text(left), number(right)
    if place != int(place) or not 1 <= place <= len(word):
        raise wrong(f"{shown(word)} has no character {told(right)}")
    return word[int(place) - 1]


OPERATIONS: dict[str, Callable[[Value, Value], Value]] = {
    "=": lambda left, right: text(left) == text(right),
    "!=": lambda left, right: text(left) != text(right),
    "<": _numbers(operator.lt),
    ">": _numbers(operator.gt),
    "<=": _numbers(operator.le),
    ">=": _numbers(operator.ge),
    "+": _numbers(operator.add),
    "-": _numbers(operator.sub),
    "*": _numbers(operator.mul),
    "/": _numbers(operator.truediv),
    "%": _numbers(operator.mod),
    "modulo": _numbers(operator.mod),
    "^": _numbers(lambda base, power: math.nan if base == 0 and power < 0 else float(base) ** float(power)),
    "%+": _numbers(lambda old, share: round(old + (100 - old) * share / 100)),
    "%-": _numbers(lambda old, share: round(old - old * share / 100)),
    "&": lambda left, right: _short(text(left) + text(right)),
    "#": _character,
}


def _log(value: Value) -> Value:
    if number(value) <= 0:
        raise wrong(f"{told(value)} has no logarithm")
    return finite(math.log10(number(value)))


FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    "not": lambda value: not truth(value),
    "round": lambda value: round(number(value)),
    "length": lambda value: len(text(value)),
    "log": _log,
}
