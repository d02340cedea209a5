"""Many requests to one model of a provider: split, sent side by side, written down, and accounted for one by one."""

import asyncio
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from spillover.ask.access import Access
from spillover.ask.asker import Reply
from spillover.ask.capabilities import Capabilities, probe, read_capabilities, write_capabilities
from spillover.ask.connection import PAUSE, Choice, Connection, Request, no_answer
from spillover.ask.failures import Failure
from spillover.errors import ProviderError
from spillover.records import Message
from spillover.spec import API, Sampling

HOPELESS = 50
"""So many requests that fail one after the other, each after its retries, are an outage and no accident."""


@dataclass(frozen=True)
class Wanted:
    """A conversation and how its replies are drawn: one a seed."""

    messages: tuple[Message, ...]
    sampling: Sampling
    seeds: tuple[int, ...]
    tops: int = 0


class Client:
    """A provider's model, asked from code that knows nothing of event loops.

    Args:
        ref: PROVIDER/MODEL, as inspect_ai spells it.
        access: connections, retries and timeout; where requests that succeeded are looked up and written down; and
            the file in which is kept what models can do, and put where it is missing.
        known: what the model can do, where that need not be looked up.
        pause: seconds before the first new try of a request; they double with every further one.
        args: further arguments of the provider (inspect_ai's model_args).

    Raises:
        ProviderError: there is no such provider, a key is missing, or a package is.
    """

    def __init__(
        self,
        ref: str,
        access: Access,
        known: Capabilities | None = None,
        *,
        pause: float = PAUSE,
        **args: Any,
    ) -> None:
        self.ref = ref.removeprefix(API)
        self.requests, self.journal = access.requests, access.journal
        self._known, self._kept = known, access.capabilities
        self._use = access.usage.of(self.ref)
        self._connection = Connection(self.ref, access.requests, pause, self._use, **args)
        self._runner = asyncio.Runner()
        self._failed_in_a_row = 0
        self._end = weakref.finalize(self, _shut, self._runner, self._connection, with_server=True)

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the model can do: as told or written down, else found out now. Raises ProviderError."""
        known = self._known or read_capabilities(self._kept, self.ref)
        if known is None:
            known = self._runner.run(probe(self._connection))
            write_capabilities(self._kept, known)
        return known

    def ask(self, wanted: Sequence[Wanted], *, keep: bool = True) -> list[list[Choice]]:
        """The replies, shaped as `wanted` and its seeds. What failed in the end is a choice with its outcome.

        Args:
            wanted: the conversations.
            keep: whether the journal is read and written; if not, everything is sent, now.

        Raises:
            ProviderError: no request can succeed, or the provider has stopped answering. What came is written down.
        """
        size = self.capabilities.choices
        parts = [(one, one.seeds[at : at + size]) for one in wanted for at in range(0, len(one.seeds), size)]
        found = iter(self._runner.run(self._all(parts, keep=keep)))
        return [[c for _ in range(0, len(one.seeds), size) for c in next(found)] for one in wanted]

    def close(self, *, with_server: bool = True) -> None:
        """Closes the connections; and, unless others need it, the server that was started for this model."""
        if self._end.detach() is not None:
            _shut(self._runner, self._connection, with_server=with_server)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _all(self, parts: Sequence[tuple[Wanted, tuple[int, ...]]], *, keep: bool) -> list[list[Choice]]:
        """The choices of every part, in order, with so many connections at once."""
        results: list[list[Choice]] = [[] for _ in parts]
        todo = iter(enumerate(parts))

        async def work() -> None:
            for place, (wanted, seeds) in todo:
                results[place] = await self._part(wanted, seeds, keep=keep)

        workers = [asyncio.create_task(work()) for _ in range(min(self.requests.connections, len(parts)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return results

    async def _part(self, wanted: Wanted, seeds: tuple[int, ...], *, keep: bool) -> list[Choice]:
        """A choice a seed. Those that the provider leaves out are asked for again."""
        choices: list[Choice] = []
        for attempt in range(self.requests.retries + 1):
            missing = seeds[len(choices) :]
            request = Request(wanted.messages, wanted.sampling, missing[0], len(missing), wanted.tops)
            try:
                choices += (await self._request(request, keep=keep))[: len(missing)]
            except Failure as failed:
                self._count_failure(failed)
                return choices + [no_answer(failed.outcome)] * len(missing)
            if len(choices) == len(seeds):
                self._failed_in_a_row = 0
                return choices
            await self._connection.pause(attempt)
        self._count_failure(Failure("failed: too few choices"))
        return choices + [no_answer("failed: too few choices")] * (len(seeds) - len(choices))

    async def _request(self, request: Request, *, keep: bool) -> list[Choice]:
        """The choices of one request: those of the journal, else the provider's, which are then written there."""
        key = request.key(self.ref)
        known = self.journal.get(key) if keep else None
        if known is not None:
            self._use.found += 1
            return [Choice(Reply(*reply), table) for reply, table in known]
        choices = await self._connection.send(request, seeded=self.capabilities.seeds)
        if choices and keep:
            self.journal.put(key, [(_fields(choice.reply), choice.table) for choice in choices])
        return choices

    def _count_failure(self, failed: Failure) -> None:
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= HOPELESS:
            raise ProviderError(
                f"the last {HOPELESS} requests all failed, each after its retries ({failed.outcome}): {failed.said}",
                where=API + self.ref,
                remedy="What was answered is kept: run the same command again to go on.",
            )


def _fields(reply: Reply) -> tuple[str, int, bool, str | None]:
    return reply.text, reply.tokens, reply.truncated, reply.outcome


def _shut(runner: asyncio.Runner, connection: Connection, *, with_server: bool) -> None:
    runner.run(connection.close(with_server=with_server))
    runner.close()
