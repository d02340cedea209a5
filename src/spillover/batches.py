"""Cutting work into pieces."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in order, in lists of `size`; the last may be shorter. Takes no more of them than it hands out."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
