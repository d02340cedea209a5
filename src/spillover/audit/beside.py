"""Work of an audit in processes of their own, beside the rest: bandit, and what holds rows against each other."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from spillover.data.vulnerability import Found, scan

T = TypeVar("T")
Waiting = Future[list[Found]] | list[Found]


class Beside:
    """One other process, which is started when it first gets work, and does it piece by piece in order.

    It is spawned, since threads of the tokenizer would not survive a fork: a script that audits at its top level needs
    Python's usual `if __name__ == "__main__":`.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def is_running(self) -> bool:
        """Whether it was started."""
        return self._pool is not None

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Begins some work, which can be pickled; in a new process if the one before has died."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            return self._pool.submit(work)
        except BrokenProcessPool:
            self._pool = None
            return self.start(work)

    def finish(self, waiting: Future[T], instead: Callable[[], T]) -> T:
        """What came of it, as soon as it is there; if the process died over it, what is done `instead`."""
        try:
            return waiting.result()
        except BrokenProcessPool:
            return instead()


class Scanner:
    """Scans lists of codes, in another process from the first full list on.

    Args:
        beside: the other process.
        full: how many codes make it worth to start a process, which takes a second.
    """

    def __init__(self, beside: Beside, full: int) -> None:
        self.beside, self.full = beside, full

    def start(self, codes: list[str]) -> Waiting:
        """Begins to scan."""
        if len(codes) < self.full and not self.beside.is_running:
            return scan(codes)
        return self.beside.start(partial(scan, codes))

    def found(self, waiting: Waiting, codes: int) -> list[Found]:
        """What was found, as soon as it is; None for all codes of a list over which the other process died."""
        return waiting if isinstance(waiting, list) else self.beside.finish(waiting, lambda: [None] * codes)
