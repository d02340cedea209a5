"""A Ray cluster as hands: what its nodes have, and work that gets done there though processes and nodes are lost.

Whoever sends the work holds the lab and writes it; a node needs nothing but the package, and gives back what it made.
So a node that is lost leaves nothing half done, and what it was doing is begun again on another.
"""

import contextlib
import itertools
import logging
import pickle
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spillover.crew import DONE, FAILED, Hands, Hear, Lost, Share, unheard, worker_of
from spillover.errors import ClusterError, MachineError, SpilloverError
from spillover.lazy import lazy
from spillover.packed import pack

ray = lazy("ray")
exceptions = lazy("ray.exceptions")
scheduling = lazy("ray.util.scheduling_strategies")

TRIES = 4
"""How often work is begun whose node or process is lost, before it is given up."""
KNOCK = 10.0
"""Seconds within which a cluster must take a connection."""
AUTO = "auto"
POLL = 0.5
"""Seconds between two looks at what nodes tell."""
PATIENCE = 900.0
"""Seconds that work waits for a node that could do it, where none is left: clusters that grow need some minutes."""
CARRIED = 16
"""Folders that the cluster keeps at once for those who will need them, besides those that work has begun on."""
INSTALL = "Install it with `pip install 'spillover[ray]'`, the same version on every node."

_WORKERS: dict[bytes, Any] = {}
"""The workers of a Ray process, which does one share after the other and keeps what worked last."""


@dataclass(frozen=True)
class Needs:
    """What one piece of work takes of a node: processors, cards, and bytes of memory."""

    cpus: float
    gpus: float = 0
    memory: int = 0

    def __str__(self) -> str:
        parts = [
            _counted(self.cpus, "processor"),
            _counted(self.gpus, "card"),
            f"{self.memory / 2**30:.1f} GiB of memory",
        ]
        there = (self.cpus, self.gpus, self.memory)
        return ", ".join(part for part, needed in zip(parts, there, strict=True) if needed)

    def times(self, node: "Node") -> int:
        """How often it fits into a node."""
        rooms = [(node.cpus, self.cpus), (node.gpus, self.gpus), (node.memory, self.memory)]
        return int(min(there // needed for there, needed in rooms if needed))


def _counted(count: float, name: str) -> str:
    return f"{count:g} {name}" if count == 1 else f"{count:g} {name}s"


@dataclass(frozen=True)
class Node:
    """A node that is alive, and what it was told to give: processors, cards, bytes of memory."""

    id: str
    name: str
    cpus: float
    gpus: float
    memory: float


class Cluster:
    """A connection to a Ray cluster.

    Args:
        address: `auto` for the cluster that this machine belongs to, `HOST:PORT`, or `ray://HOST:PORT`.
        say: is given sentences that a person should read.
        show: is given what is going on where, in a few words.

    Raises:
        ClusterError: Ray is not installed, there is no such cluster, or its versions are others.
    """

    def __init__(
        self, address: str, say: Callable[[str], None] = print, show: Callable[[str], None] = lambda _: None
    ) -> None:
        self.say, self.show = say, show
        _connect(address)
        self.ear: Any = ray.remote(num_cpus=0, max_restarts=2)(_Ear).remote()

    def close(self) -> None:
        """Leaves the cluster, which ends what this process had begun there."""
        ray.shutdown()

    def nodes(self) -> list[Node]:
        """The nodes that are alive now."""
        return _nodes()

    def ask_each(self, question: Callable[..., Any], *told: Any) -> list[tuple[Node, Any]]:
        """What a function answers on each node, which is given all of it that it may see of its first card.

        Raises SpilloverError where one raises it there, and ClusterError where a node has another version of this
        package or of Ray's, or none.
        """
        asked = [(node, _asked_at(node, question, told)) for node in self.nodes() if node.cpus or node.gpus]
        return [(node, _answer(node, reference)) for node, reference in asked]

    def places(self, needs: Needs) -> int:
        """How much can be done at once. Raises MachineError where no node has what one piece of work needs."""
        found = sum(needs.times(node) for node in self.nodes())
        if not found:
            what = f"no node of the cluster has what a worker needs: {needs}"
            raise MachineError(what, remedy="Add larger nodes, start Ray with --memory, or run a smaller experiment.")
        return found

    def hands(
        self, make: Callable[[], Any], needs: Needs, size: int, start: Callable[[], object] | None = None
    ) -> Hands:
        """Whoever does one kind of work there.

        Args:
            make: makes a process's worker, as for `crew.Crew`.
            needs: what a piece of work takes.
            size: how much is done at once, as far as whoever shares work out is concerned; nodes come and go.
            start: what each process does first; it must be possible to pickle it.
        """
        return _ClusterHands(self, make, needs, size, start)

    def heard(self) -> dict[int, tuple[Any, ...]]:
        """What was told since, by number. Nothing where the one that listens was lost: it is made again."""
        with contextlib.suppress(exceptions.RayError):
            told: dict[int, tuple[Any, ...]] = ray.get(self.ear.heard.remote(), timeout=10)
            return told
        return {}


class _Ear:
    """An actor that nodes tell how far they are."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[Any, ...]] = {}

    def tell(self, number: int, told: tuple[Any, ...]) -> None:
        self._told[number] = told

    def heard(self) -> dict[int, tuple[Any, ...]]:
        told, self._told = self._told, {}
        return told


def _connect(address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, namespace="spillover", logging_level=logging.ERROR, log_to_driver=False)
    except ModuleNotFoundError:
        raise ClusterError("Ray is not installed", remedy=INSTALL) from None
    except Exception as error:  # it raises ConnectionError, RuntimeError, ValueError and others
        # Its first sentence: the next ones tell of options that Ray's own commands have.
        what = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        remedy = "Start one with `ray start --head`, and name it as `--cluster auto` there or `--cluster HOST:PORT`."
        raise ClusterError(f"cannot be joined: {what}", where=f"the cluster {address}", remedy=remedy) from None


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself would try for minutes, and then end the process."""
    if address != AUTO:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdigit():
            raise ConnectionError("an address is `auto`, HOST:PORT or ray://HOST:PORT")
        socket.create_connection((host, int(port)), timeout=KNOCK).close()


def _nodes() -> list[Node]:
    """The nodes that are alive, by their hosts' names; several on one host also by how their ids begin."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    hosts = Counter(str(node["NodeManagerHostname"]) for node in alive)
    return [_node(node, hosts) for node in alive]


def _node(told: dict[str, Any], hosts: Counter[str]) -> Node:
    there, host = told["Resources"], str(told["NodeManagerHostname"])
    name = host if hosts[host] == 1 else f"{host}/{told['NodeID'][:4]}"
    return Node(told["NodeID"], name, there.get("CPU", 0), there.get("GPU", 0), there.get("memory", 0))


def _asked_at(node: Node, question: Callable[..., Any], told: tuple[Any, ...]) -> Any:
    there = scheduling.NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
    card = {"num_gpus": 0.01} if node.gpus else {}
    asking = ray.remote(num_cpus=0, max_retries=TRIES, scheduling_strategy=there, **card)(_reply)
    return asking.remote(version("spillover"), question, *told)


def _reply(asking: str, question: Callable[..., Any], *told: Any) -> tuple[str, Any]:
    here = version("spillover")
    if here != asking:
        what = f"this node has spillover {here}, and the one that sends the work {asking}"
        return FAILED, ClusterError(what, where=socket.gethostname(), remedy=INSTALL)
    try:
        return DONE, question(*told)
    except SpilloverError as error:
        return FAILED, error


def _answer(node: Node, reference: Any) -> Any:
    try:
        kind, content = ray.get(reference)
    except exceptions.RayError as error:
        what = f"cannot work: {_first_line(error)}"
        raise ClusterError(what, where=f"node {node.name}", remedy=INSTALL) from None
    if kind == FAILED:
        raise content
    return content


def _first_line(error: Exception) -> str:
    lines = [line for line in str(getattr(error, "cause", None) or error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@dataclass
class _Begun:
    """A share that is being done: the last time of so many."""

    number: int
    share: Share
    tries: int = 0
    at: str = ""


@dataclass
class _Desk:
    """What is to be done, what is being done, and what went wrong."""

    todo: Iterator[tuple[int, Share]]
    again: deque[_Begun] = field(default_factory=deque)
    busy: dict[Any, _Begun] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)

    def next(self) -> _Begun | None:
        """The next share to begin: first those that were lost. None where nothing is left, or after a mistake."""
        if self.errors:
            return None
        if self.again:
            return self.again.popleft()
        return next((_Begun(number, share) for number, share in itertools.islice(self.todo, 1)), None)


class _ClusterHands(Hands):
    """All nodes of a cluster that have what the work needs."""

    def __init__(
        self, cluster: Cluster, make: Callable[[], Any], needs: Needs, size: int, start: Callable[[], object] | None
    ) -> None:
        self.size, self._cluster, self._needs = size, cluster, needs
        self._made_of, self._start = pickle.dumps(make), pickle.dumps(start)
        self._carried: dict[Path, Any] = {}

    def carried(self, folder: Path) -> Any:
        """A folder as nodes can be sent it: with its files, which the cluster keeps while somebody may need them."""
        if folder not in self._carried:
            if len(self._carried) > CARRIED:
                del self._carried[next(iter(self._carried))]
            self._carried[folder] = ray.put(pack(folder))
        return self._carried[folder]

    def each(self, method: str, shares: Iterable[Share], hear: Hear = unheard) -> Iterator[tuple[int, Any]]:
        """As `Hands.each`. What a node was doing that is lost is begun again, so often; then it is given as `Lost`."""
        desk, waiting = _Desk(enumerate(shares)), _Waiting()
        try:
            self._fill(desk, method)
            while desk.busy:
                done, _ = ray.wait(list(desk.busy), num_returns=1, timeout=POLL)
                self._listen(desk, hear)
                for reference in done:
                    waiting.over()
                    yield from self._received(desk, reference)
                waiting.check(self._cluster, self._needs)
                self._fill(desk, method)
        finally:
            for reference in desk.busy:
                ray.cancel(reference, force=True)
            self._cluster.show("")
        if desk.errors:
            raise desk.errors[min(desk.errors)]

    def _fill(self, desk: _Desk, method: str) -> None:
        """Sends work until there is some for every node, and a little more, so that none waits for the next."""
        there = max(1, sum(self._needs.times(node) for node in self._cluster.nodes()))
        most = there + max(1, there // 4)
        while len(desk.busy) < most and (one := desk.next()) is not None:
            one.tries += 1
            desk.busy[self._send(method, one)] = one

    def _send(self, method: str, one: _Begun) -> Any:
        needs = {"num_cpus": self._needs.cpus, "num_gpus": self._needs.gpus, "memory": self._needs.memory or None}
        # Lost work is begun again by us, within bounds; a process with a card stays, as one without does.
        task = ray.remote(max_retries=0, max_calls=0, **needs)(_work)
        return task.remote(self._made_of, self._start, self._cluster.ear, one.number, method, *one.share)

    def _listen(self, desk: _Desk, hear: Hear) -> None:
        doing = {one.number: one for one in desk.busy.values()}
        for number, told in self._cluster.heard().items():
            if number not in doing:
                continue
            doing[number].at = told[0]
            if told[1:]:
                hear(number, told[1:])
        places = Counter(one.at for one in doing.values() if one.at)
        self._cluster.show(", ".join(f"{name} {count}" for name, count in sorted(places.items())))

    def _received(self, desk: _Desk, reference: Any) -> Iterator[tuple[int, Any]]:
        one = desk.busy.pop(reference)
        try:
            kind, content = ray.get(reference)
        except exceptions.RayTaskError as error:  # a bug of ours: its traceback must not get lost on the way
            desk.errors[one.number] = RuntimeError(str(error))
        except exceptions.RayError as error:
            yield from self._lost(desk, one, error)
        else:
            if kind == FAILED:
                desk.errors[one.number] = content
            else:
                yield one.number, content

    def _lost(self, desk: _Desk, one: _Begun, error: Exception) -> Iterator[tuple[int, Any]]:
        why, where = _why(error), f" on {one.at}" if one.at else ""
        for_memory = isinstance(error, exceptions.OutOfMemoryError | exceptions.WorkerCrashedError)
        if one.tries < (2 if for_memory else TRIES):
            self._cluster.say(f"lost{where}: {why}; it is begun again")
            one.at = ""
            desk.again.append(one)
        else:
            yield one.number, Lost(f"{why}{where}, {one.tries} times", for_memory)


def _why(error: Exception) -> str:
    kinds = [
        (exceptions.OutOfMemoryError, "the node's memory did not suffice"),
        (exceptions.WorkerCrashedError, "the process that did it was killed, perhaps for want of memory"),
        (exceptions.NodeDiedError, "the node is gone"),
        (exceptions.ObjectLostError, "what it had made is gone with its node"),
    ]
    return next((told for kind, told in kinds if isinstance(error, kind)), _first_line(error))


class _Waiting:
    """Since when no node could do the work."""

    def __init__(self) -> None:
        self.over()

    def over(self) -> None:
        """Something was done."""
        self._since: float | None = None

    def check(self, cluster: Cluster, needs: Needs) -> None:
        """Raises ClusterError where for too long there has been no node that could."""
        if any(needs.times(node) for node in cluster.nodes()):
            return self.over()
        now = time.monotonic()
        if self._since is None:
            self._since = now
            cluster.say("no node is left that could go on; waiting for one")
        if now - self._since > PATIENCE:
            what = f"no node with {needs} has come back for {PATIENCE / 60:.0f} minutes"
            remedy = "What was finished is kept: bring nodes back and run the same command again."
            raise ClusterError(what, remedy=remedy)
        return None


def _work(made_of: bytes, start: bytes, ear: Any, number: int, method: str, *share: Any) -> tuple[str, Any]:
    """What a node does with a share."""
    tell = _Told(ear, number)
    tell.now()
    if not _WORKERS and (begin := pickle.loads(start)) is not None:
        begin()
    try:
        return DONE, getattr(worker_of(_WORKERS, made_of), method)(*share, tell)
    except SpilloverError as error:
        return FAILED, error


class _Told:
    """Tells whoever sent the work how far it is, not more often than it looks."""

    def __init__(self, ear: Any, number: int) -> None:
        self._ear, self._number, self._last = ear, number, 0.0
        self._here = _name_here()

    def now(self, *told: Any) -> None:
        self._last = time.monotonic()
        self._ear.tell.remote(self._number, (self._here, *told))

    def __call__(self, *told: Any) -> None:
        if time.monotonic() - self._last > POLL:
            self.now(*told)


def _name_here() -> str:
    here = ray.get_runtime_context().get_node_id()
    return next((node.name for node in _nodes() if node.id == here), here[:8])
