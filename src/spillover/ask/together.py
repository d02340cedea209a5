"""Questions that come one by one, at the same time, asked together: a model in this process is fast in batches."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W")
R = TypeVar("R")

PATIENCE = 0.02
"""Seconds without a new question after which those that wait are asked."""


@dataclass
class Together(Generic[W, R]):
    """Collects what is wanted at the same time, and asks for it in batches, one at a time, in a thread of its own.

    Use it in one event loop.

    Attributes:
        ask: answers a batch, in order; it may take its time.
        most: how many a batch may hold.
    """

    ask: Callable[[Sequence[W]], Sequence[R]]
    most: int
    _waiting: list[tuple[W, asyncio.Future[R]]] = field(default_factory=list)
    _work: asyncio.Task[None] | None = None

    async def reply(self, wanted: W) -> R:
        """The answer. Raises whatever asking its batch raised."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, future))
        if self._work is None:
            self._work = asyncio.create_task(self._until_nothing_waits())
        return await future

    async def _until_nothing_waits(self) -> None:
        while self._waiting:
            await self._settled()
            batch, self._waiting = self._waiting[: self.most], self._waiting[self.most :]
            try:
                replies = await asyncio.to_thread(self.ask, [wanted for wanted, _ in batch])
            except Exception as error:  # each of those that wait is told
                _tell(batch, [error] * len(batch))
            else:
                _tell(batch, replies)
        self._work = None

    async def _settled(self) -> None:
        """Waits until a batch is full, or nothing new has come for a moment."""
        before = 0
        while before < len(self._waiting) < self.most:
            before = len(self._waiting)
            await asyncio.sleep(PATIENCE)


def _tell(batch: Sequence[tuple[W, asyncio.Future[R]]], replies: Sequence[R | Exception]) -> None:
    for (_, future), reply in zip(batch, replies, strict=True):
        if future.done():  # whoever wanted it has gone
            continue
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)
