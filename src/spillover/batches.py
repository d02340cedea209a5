"""Cutting work into pieces, and working on some of them at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
Made = TypeVar("Made")

THREADS = 2
"""Pieces that are worked on at once: more would lie in memory without being made sooner on two cores."""


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in order, in lists of `size`; the last may be shorter. Takes no more of them than it hands out."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def ahead(work: Callable[[T], Made], items: Iterable[T]) -> Iterator[Made]:
    """What `work` makes of each item, in their order; threads work on the next ones while one is in use.

    Raises what `work` raised, when it is that item's turn.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
