"""Where a command's local work is done: by this machine's processes, or by the nodes of a cluster.

Results do not depend on it beyond floating-point noise, and nothing of it is in a key.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from spillover.cluster import Cluster, Needs, Node
from spillover.crew import Alone, Crew, Hands, Pool
from spillover.display import Display
from spillover.errors import ClusterError
from spillover.finetune.base import Base
from spillover.finetune.budget import (
    GIB,
    RESERVE,
    MemoryPlan,
    cores,
    memory_of,
    plan_memory,
    processes_for,
    processes_on,
    weights_of,
)
from spillover.lazy import lazy
from spillover.pipeline.plan import Plan
from spillover.spec import Machine

models = lazy("spillover.finetune.model")

LIBRARIES = ("spillover.pipeline.hands", "spillover.judge.local")
"""What processes find loaded when they are forked. Nothing of it loads polars, which has threads of its own."""
JUDGING = 2 * GIB
"""What judging takes beside a model's weights: its prompts are read in pieces."""


class Staff(ABC):
    """Whoever does a command's local work.

    Attributes:
        lost: what nobody could do, in words: work that was begun several times and each time lost.
        is_away: whether it works on other machines, to which folders are carried.
    """

    is_away = False

    def __init__(self) -> None:
        self.lost: list[str] = []

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sends everybody home."""

    @abstractmethod
    def memory(self, plan: Plan) -> MemoryPlan:
        """How a plan's training and asking fit into what works. Raises MachineError where they do not."""

    @abstractmethod
    def hands(self, make: Callable[[], Any], plan: Plan, base: Base) -> Hands:
        """Whoever does one kind of a plan's work, with a base; `make` makes a worker, and can be pickled."""


class OwnStaff(Staff):
    """This machine, which has a few processes where a base is small."""

    def __init__(self) -> None:
        super().__init__()
        self._pool = Pool()

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def memory(self, plan: Plan) -> MemoryPlan:
        """As `Staff.memory`."""
        return plan.memory

    def hands(self, make: Callable[[], Any], plan: Plan, base: Base) -> Hands:
        """As `Staff.hands`."""
        size = plan.memory.processes if base is plan.base else processes_for(base, plan.experiment.machine)
        if size == 1:
            return Alone(make)
        start = partial(models.use_threads, max(1, cores() // size))
        return Crew(make, self._pool.processes(size, LIBRARIES, start))


@dataclasses.dataclass(frozen=True)
class _Room:
    """What each of a cluster's workers may have: processors, cards, bytes, and of which kind of device."""

    cpus: float
    gpus: float
    memory: float
    where: str


class ClusterStaff(Staff):
    """The nodes of a cluster: a worker for each card, or for as many processors as one needs where there is none."""

    is_away = True

    def __init__(self, address: str, display: Display) -> None:
        super().__init__()
        self._cluster = Cluster(address, display.say, display.show)
        self._rooms: dict[tuple[str, Machine], _Room] = {}
        self._counts: dict[tuple[str, Machine], int] = {}

    def __exit__(self, *_: object) -> None:
        self._cluster.close()

    def memory(self, plan: Plan) -> MemoryPlan:
        """As `Staff.memory`: of the node that has the least, since any may be given any work."""
        room = self._room(plan.base, plan.experiment.machine)
        known = {"memory_gb": room.memory / GIB, "device": room.where, "processes": 1}
        experiment = plan.experiment.model_copy(update={"machine": plan.experiment.machine.model_copy(update=known)})
        found = plan_memory(plan.base, experiment.train, experiment.machine, experiment.sampling, plan.longest)
        needs = Needs(room.cpus, room.gpus, int(found.needed + RESERVE))
        return dataclasses.replace(found, processes=self._places(plan.base, plan, needs))

    def hands(self, make: Callable[[], Any], plan: Plan, base: Base) -> Hands:
        """As `Staff.hands`."""
        room = self._room(base, plan.experiment.machine)
        is_own = base is plan.base
        needed = self.memory(plan).needed if is_own else weights_of(base, plan.experiment.train.precision) + JUDGING
        needs = Needs(room.cpus, room.gpus, int(needed + RESERVE))
        start = partial(models.use_threads, max(1, int(room.cpus))) if not room.gpus else None
        return self._cluster.hands(make, needs, self._places(base, plan, needs), start)

    def _places(self, base: Base, plan: Plan, needs: Needs) -> int:
        """How many workers there were when a base was first needed: what is done at once does not depend on losses.

        Raises MachineError where no node has what one needs.
        """
        known = (base.key, plan.experiment.machine)
        if known not in self._counts:
            self._counts[known] = self._cluster.places(needs)
        return self._counts[known]

    def _room(self, base: Base, machine: Machine) -> _Room:
        known = (base.key, machine)
        if known not in self._rooms:
            nodes = self._cluster.ask_each(memory_of, machine)
            self._rooms[known] = _on_cards(nodes) or _on_processors(nodes, base, machine)
        return self._rooms[known]


def _on_cards(nodes: Sequence[tuple[Node, tuple[str, float]]]) -> _Room | None:
    """A worker for each card, where any node has one; nodes without are left alone."""
    free = [(node, left) for node, (where, left) in nodes if node.gpus and where != "cpu"]
    if not free:
        return None
    return _Room(1, 1, min(left for _, left in free), "cuda:0")


def _on_processors(nodes: Sequence[tuple[Node, tuple[str, float]]], base: Base, machine: Machine) -> _Room:
    """As many workers a node as processes would work side by side there, all of one size."""
    free = [(node.cpus, min(left, node.memory or left)) for node, (_, left) in nodes if node.cpus]
    if not free:
        raise ClusterError("no node of the cluster has processors to give", remedy="Start Ray with --num-cpus.")
    cpus = max(1, min(int(count / processes_on(base, machine, int(count), left)) for count, left in free))
    return _Room(cpus, 0, min(left / max(1, count // cpus) for count, left in free), "cpu")
