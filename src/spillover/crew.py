"""Processes that work side by side, each with a worker of its own that it keeps.

Small models are made of small operations, at whose ends all threads of a process wait for each other; processes do
not. They are forked by a server that has loaded the libraries once (multiprocessing's forkserver), so that a new one is
there at once, and they end with whoever made them, however that ends.
"""

import contextlib
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from spillover.errors import MachineError, SpilloverError

Hear = Callable[[int, tuple[Any, ...]], None]
TOLD, DONE, FAILED = "told", "done", "failed"


class Crew:
    """Some processes that are sent one kind of work.

    Args:
        make: makes a process's worker when it first has something to do; it must be possible to pickle it.
        size: how many processes.
        libraries: modules that are loaded before processes are forked. None of them may start threads that matter.
    """

    def __init__(self, make: Callable[[], Any], size: int, libraries: Sequence[str] = ()) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(libraries))
        self._ends: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return len(self._ends)

    def do(self, method: str, shares: Sequence[tuple[Any, ...]], hear: Hear = lambda share, told: None) -> list[Any]:
        """Has each share done by a process of its own.

        Args:
            method: the worker's, called with what the share holds and, last, a function that tells `hear` something.
            shares: at most as many as there are processes.
            hear: is given the share's number and what its worker told.

        Returns:
            what the workers returned, in the order of the shares.

        Raises:
            SpilloverError: a worker's own, once all have stopped.
            MachineError: a process died.
        """
        busy: dict[Any, int] = {}
        for number, (end, share) in enumerate(zip(self._ends, shares, strict=False)):
            _send(end, (method, share))
            busy[end] = number
        results: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        while busy:
            for end in wait(list(busy)):  # type: ignore[assignment]  # what it was given
                kind, content = _received(end)
                if kind == TOLD:
                    hear(busy[end], content)
                else:
                    (results if kind == DONE else errors)[busy.pop(end)] = content
        if errors:
            raise errors[min(errors)]
        return [results[number] for number in range(len(shares))]

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


def _serve(end: Connection, make: Callable[[], Any]) -> None:
    """What a process does: one piece of work after the other, until nobody is there to send any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever interrupts tells the one that sends the work
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
