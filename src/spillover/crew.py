"""Processes that work side by side, each with workers of its own that it keeps.

Small models are made of small operations, at whose ends all threads of a process wait for each other; processes do
not. They are forked by a server that has loaded the libraries once (multiprocessing's forkserver), so that a new one is
there at once, and they end with whoever made them, however that ends.
"""

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from spillover.errors import MachineError, SpilloverError

Hear = Callable[[int, tuple[Any, ...]], None]
Share = tuple[Any, ...]
KEPT = 4
"""Workers that a process keeps: each may hold a model, and one of each stage's kind is enough."""
TOLD, DONE, FAILED = "told", "done", "failed"


def unheard(share: int, told: tuple[Any, ...]) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Lost:
    """What comes of a share that nobody could do, however often it was begun.

    Attributes:
        why: in words.
        for_memory: whether it may have been too large.
    """

    why: str
    for_memory: bool = False


class Hands(ABC):
    """Whoever does one kind of work: this process, several beside it, or the nodes of a cluster.

    Attributes:
        size: how much is done at once.
    """

    size: int

    @abstractmethod
    def each(self, method: str, shares: Iterable[Share], hear: Hear = unheard) -> Iterator[tuple[int, Any]]:
        """Has each share done, and gives its number and what came of it as soon as it is there.

        Args:
            method: the worker's, called with what the share holds and, last, a function that tells `hear` something.
            shares: taken one by one, whenever there is somebody to do the next.
            hear: is given the share's number and what its worker told.

        A share that was lost with the node of a cluster, however often it was begun, gives a `Lost`.

        Raises:
            SpilloverError: a worker's own, once what had been begun was done and given.
            MachineError: a process died.
        """

    def carried(self, folder: Path) -> Any:
        """What a share holds in place of a folder: itself, where whoever works finds it."""
        return folder

    def do(self, method: str, shares: Sequence[Share], hear: Hear = unheard) -> list[Any]:
        """What came of each share, in their order; otherwise as `each`."""
        found = dict(self.each(method, shares, hear))
        return [found[number] for number in range(len(shares))]


def load_meanwhile(libraries: Sequence[str]) -> None:
    """Begins what the first `Processes` would wait for: loading its libraries. It must be given the same ones."""
    forkserver.set_forkserver_preload(list(libraries))
    resource_tracker.ensure_running()  # first, because whoever starts it unblocks what is blocked here
    # The server keeps this mask: an interrupt is for the one that sends the work; loading, it would end the server.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Alone(Hands):
    """This process, which does one share after the other.

    Args:
        make: makes the worker when there is something to do.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.size = 1
        self._make = make

    @cached_property
    def _worker(self) -> Any:
        return self._make()

    def each(self, method: str, shares: Iterable[Share], hear: Hear = unheard) -> Iterator[tuple[int, Any]]:
        """As `Hands.each`."""
        for number, share in enumerate(shares):
            yield number, getattr(self._worker, method)(*share, lambda *told, of=number: hear(of, told))


class Processes:
    """Some processes that are sent work of any kind.

    Args:
        size: how many.
        libraries: modules that are loaded before processes are forked. None of them may start threads that matter.
        start: what each does first; it must be possible to pickle it.

    Attributes:
        size: how many.
        ends: where each is written to and read from; none once they are closed.
    """

    def __init__(self, size: int, libraries: Sequence[str] = (), start: Callable[[], object] | None = None) -> None:
        context = multiprocessing.get_context("forkserver")
        load_meanwhile(libraries)
        self.size = size
        self.ends: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, start), daemon=True)
            process.start()
            theirs.close()
            self.ends.append(ours)
            self._processes.append(process)

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        for process, end in zip(self._processes, self.ends, strict=True):
            process.terminate()
            process.join()
            end.close()
        self._processes, self.ends = [], []


class Pool:
    """The processes of a command: started when they are first needed, they stay until its end."""

    def __init__(self) -> None:
        self._known: dict[int, Processes] = {}

    def close(self) -> None:
        """Ends them, whatever they do."""
        for processes in self._known.values():
            processes.close()

    def processes(self, size: int, libraries: Sequence[str], start: Callable[[], object]) -> Processes:
        """So many processes, made as `Processes` says; new ones where the last had to be ended."""
        known = self._known.get(size)
        if known is None or not known.ends:
            known = self._known[size] = Processes(size, libraries, start)
        return known


class Crew(Hands):
    """Some processes, for one kind of work.

    Args:
        make: makes a process's worker when it first has something to do; it must be possible to pickle it. A worker
            that was made in the same way before is taken again, unless several others have worked since.
        processes: who works.
    """

    def __init__(self, make: Callable[[], Any], processes: Processes) -> None:
        self.size = processes.size
        self._made_of, self._processes = pickle.dumps(make), processes

    def each(self, method: str, shares: Iterable[Share], hear: Hear = unheard) -> Iterator[tuple[int, Any]]:
        """As `Hands.each`. Processes that are left in the midst of their work are ended."""
        todo = enumerate(shares)
        busy: dict[Any, int] = {}
        errors: dict[int, Exception] = {}

        def begin(end: Connection) -> None:
            for number, share in itertools.islice(todo, 1):
                _send(end, (self._made_of, method, share))
                busy[end] = number

        try:
            for end in self._processes.ends:
                begin(end)
            while busy:
                for ready in wait(list(busy)):
                    kind, content = _received(ready)
                    if kind == TOLD:
                        hear(busy[ready], content)
                        continue
                    number = busy.pop(ready)
                    if kind == FAILED:
                        errors[number] = content
                    if not errors:
                        begin(ready)  # type: ignore[arg-type]  # what it was given
                    if kind == DONE:
                        yield number, content
        finally:
            if busy:
                self._processes.close()
        if errors:
            raise errors[min(errors)]


def _send(end: Connection, message: tuple[Any, ...]) -> None:
    end.send_bytes(pickle.dumps(message))  # plainly: torch would hand tensors over as files that both must keep open


def _received(end: Any) -> tuple[str, Any]:
    try:
        kind, content = pickle.loads(end.recv_bytes())
    except (EOFError, ConnectionError):
        what = "a process that worked beside this one has ended, perhaps for want of memory"
        raise MachineError(what, remedy="Set machine.processes to 1 and run the same command again.") from None
    return kind, content


def worker_of(workers: dict[bytes, Any], made_of: bytes) -> Any:
    """The worker that was made so, or a new one; of all of them a few are kept, those that worked last."""
    worker = workers.pop(made_of, None)
    if worker is None:
        if len(workers) == KEPT:
            del workers[next(iter(workers))]
        worker = pickle.loads(made_of)()
    workers[made_of] = worker
    return worker


def _end_with_its_maker() -> None:
    """Ends this process as soon as the one that sends the work is gone, in the midst of whatever it does."""
    maker = multiprocessing.parent_process()
    if maker is not None:
        wait([maker.sentinel])
        os._exit(1)


def _serve(end: Connection, start: Callable[[], object] | None) -> None:
    """What a process does: one piece of work after the other, until nobody is there to send any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever interrupts tells the one that sends the work
    threading.Thread(target=_end_with_its_maker, daemon=True).start()
    workers: dict[bytes, Any] = {}
    if start is not None:
        start()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            made_of, method, share = pickle.loads(end.recv_bytes())
            try:
                worker = worker_of(workers, made_of)
                message = (DONE, getattr(worker, method)(*share, lambda *told: _send(end, (TOLD, told))))
            except SpilloverError as error:
                message = (FAILED, error)
            except Exception as error:  # a bug: its traceback must not get lost on the way
                message = (FAILED, RuntimeError("".join(traceback.format_exception(error))))
            _send(end, message)
