"""Bandit beside the rest of the audit: small datasets are scanned here, large ones in a process of their own."""

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self

from spillover.data.vulnerability import Found, scan

Waiting = Future[list[Found]] | list[Found]


class Scanner:
    """Scans lists of codes, in another process from the first full list on.

    Args:
        full: how many codes make it worth to start a process, which takes a second.
    """

    def __init__(self, full: int) -> None:
        self.full = full
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self, codes: list[str]) -> Waiting:
        """Begins to scan."""
        if len(codes) < self.full and self._pool is None:
            return scan(codes)
        if self._pool is None:  # spawned: the tokenizer's threads would not survive a fork
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        return self._pool.submit(scan, codes)

    def found(self, waiting: Waiting, codes: int) -> list[Found]:
        """What was found, as soon as it is; None for all codes of a list over which the other process died."""
        try:
            return waiting if isinstance(waiting, list) else waiting.result()
        except BrokenProcessPool:
            self._pool = None
            return [None] * codes
