"""Processes that work side by side, each with a worker of its own that it keeps.

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
from functools import cached_property
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from spillover.errors import MachineError, SpilloverError

Hear = Callable[[int, tuple[Any, ...]], None]
Share = tuple[Any, ...]
TOLD, DONE, FAILED = "told", "done", "failed"


def _unheard(share: int, told: tuple[Any, ...]) -> None:
    """Nobody listens."""


class Hands(ABC):
    """Whoever does one kind of work: this process, or several beside it.

    Attributes:
        size: how much is done at once.
    """

    size: int

    @abstractmethod
    def each(self, method: str, shares: Iterable[Share], hear: Hear = _unheard) -> Iterator[tuple[int, Any]]:
        """Has each share done, and gives its number and what came of it as soon as it is there.

        Args:
            method: the worker's, called with what the share holds and, last, a function that tells `hear` something.
            shares: taken one by one, whenever there is somebody to do the next.
            hear: is given the share's number and what its worker told.

        Raises:
            SpilloverError: a worker's own, once what had been begun was done and given.
            MachineError: a process died.
        """

    def do(self, method: str, shares: Sequence[Share], hear: Hear = _unheard) -> list[Any]:
        """What came of each share, in their order; otherwise as `each`."""
        found = dict(self.each(method, shares, hear))
        return [found[number] for number in range(len(shares))]


def load_meanwhile(libraries: Sequence[str]) -> None:
    """Begins what the first `Crew` would wait for: loading its libraries. It must be given the same ones."""
    forkserver.set_forkserver_preload(list(libraries))
    forkserver.ensure_running()


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

    def each(self, method: str, shares: Iterable[Share], hear: Hear = _unheard) -> Iterator[tuple[int, Any]]:
        """As `Hands.each`."""
        for number, share in enumerate(shares):
            yield number, getattr(self._worker, method)(*share, lambda *told, of=number: hear(of, told))


class Crew(Hands):
    """Some processes that are sent one kind of work.

    Args:
        make: makes a process's worker when it first has something to do; it must be possible to pickle it.
        size: how many processes.
        libraries: modules that are loaded before processes are forked. None of them may start threads that matter.
    """

    def __init__(self, make: Callable[[], Any], size: int, libraries: Sequence[str] = ()) -> None:
        context = multiprocessing.get_context("forkserver")
        load_meanwhile(libraries)
        self.size = size
        self._ends: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def each(self, method: str, shares: Iterable[Share], hear: Hear = _unheard) -> Iterator[tuple[int, Any]]:
        """As `Hands.each`. Call it again only when all is done."""
        todo = enumerate(shares)
        busy: dict[Any, int] = {}
        errors: dict[int, Exception] = {}

        def begin(end: Connection) -> None:
            for number, share in itertools.islice(todo, 1):
                _send(end, (method, share))
                busy[end] = number

        for end in self._ends:
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
        if errors:
            raise errors[min(errors)]

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        for process, end in zip(self._processes, self._ends, strict=True):
            process.terminate()
            process.join()
            end.close()


def _send(end: Connection, message: tuple[Any, ...]) -> None:
    end.send_bytes(pickle.dumps(message))  # plainly: torch would hand tensors over as files that both must keep open


def _received(end: Any) -> tuple[str, Any]:
    try:
        kind, content = pickle.loads(end.recv_bytes())
    except (EOFError, ConnectionError):
        what = "a process that worked beside this one has ended, perhaps for want of memory"
        raise MachineError(what, remedy="Set machine.processes to 1 and run the same command again.") from None
    return kind, content


def _end_with_its_maker() -> None:
    """Ends this process as soon as the one that sends the work is gone, in the midst of whatever it does."""
    maker = multiprocessing.parent_process()
    if maker is not None:
        wait([maker.sentinel])
        os._exit(1)


def _serve(end: Connection, make: Callable[[], Any]) -> None:
    """What a process does: one piece of work after the other, until nobody is there to send any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever interrupts tells the one that sends the work
    threading.Thread(target=_end_with_its_maker, daemon=True).start()
    worker: Any = None
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            method, share = pickle.loads(end.recv_bytes())
            try:
                worker = make() if worker is None else worker
                message = (DONE, getattr(worker, method)(*share, lambda *told: _send(end, (TOLD, told))))
            except SpilloverError as error:
                message = (FAILED, error)
            except Exception as error:  # a bug: its traceback must not get lost on the way
                message = (FAILED, RuntimeError("".join(traceback.format_exception(error))))
            _send(end, message)
