"""Fleets in local hands: begun at the same time, given as they are done, split where they were too large."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from spillover.crew import Hands, Lost
from spillover.finetune.trainer import Job, Trained
from spillover.packed import pack
from spillover.spec import Training

Fleet = tuple[Sequence[Job], Training]
"""Runs that are trained together, and how."""
Progress = Callable[[float], None]
"""Is given how many runs' worth of training is done, of all."""


def train_all(
    fleets: Sequence[Fleet], hands: Hands, progress: Progress, *, away: bool
) -> Iterator[tuple[int, list[Trained | Lost]]]:
    """What each run of each fleet learns: by the fleet's number, as soon as all of it is there.

    A fleet of several runs that was lost, perhaps for want of memory, is tried in halves.

    Args:
        fleets: what is trained. All fleets are independent of each other.
        hands: who trains: `TrainingHand`s, or `AwayTrainingHand`s on other machines.
        progress: is told how far all are.
        away: whether they are on other machines.
    """
    state = _State(fleets, progress)
    todo = [(number, range(len(jobs))) for number, (jobs, _) in enumerate(fleets)]
    while todo:
        halves: list[tuple[int, range]] = []
        hear = state.listener(todo)
        shares = ((_packed(jobs, hands) if away else jobs, spec) for jobs, spec in state.shares(todo))
        for share, result in hands.each("train", shares, hear):
            number, places = todo[share]
            if isinstance(result, Lost) and result.for_memory and len(places) > 1:
                half = len(places) // 2
                halves += [(number, places[:half]), (number, places[half:])]
            elif state.put(number, places, result):
                yield number, state.found[number]
        todo = halves


@dataclass
class _State:
    """What is there of each fleet, run by run."""

    fleets: Sequence[Fleet]
    progress: Progress
    found: list[list[Any]] = field(init=False)
    _done: dict[tuple[int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.found = [[None] * len(jobs) for jobs, _ in self.fleets]

    def shares(self, todo: Sequence[tuple[int, range]]) -> Iterator[Fleet]:
        for number, places in todo:
            jobs, spec = self.fleets[number]
            yield jobs[places.start : places.stop], spec

    def listener(self, todo: Sequence[tuple[int, range]]) -> Callable[[int, tuple[Any, ...]], None]:
        def hear(share: int, told: tuple[Any, ...]) -> None:
            number, places = todo[share]
            self._tell(number, places, told[0] / told[1])

        return hear

    def _tell(self, number: int, places: range, part: float) -> None:
        self._done[number, places.start] = len(places) * part
        self.progress(sum(self._done.values()))

    def put(self, number: int, places: range, result: Any) -> bool:
        """Whether all of the fleet is there now."""
        jobs = self.fleets[number][0]
        for at, place in enumerate(places):
            self.found[number][place] = result if isinstance(result, Lost) else _delivered(result[at], jobs[place])
        self._tell(number, places, 1)
        return None not in self.found[number]


def _delivered(made: Any, job: Job) -> Trained:
    """What came of a job; from another machine with what was kept on the way, which is put into the job's folder."""
    if isinstance(made, Trained):
        return made
    trained, kept = made
    if kept is not None and job.folder is not None:
        kept.write(job.folder)
    found: Trained = trained
    return found


def _packed(jobs: Sequence[Job], hands: Hands) -> list[Any]:
    """Jobs for another machine: what they go on from travels with them."""
    return [(job, pack(job.start) if job.start is not None else None) for job in jobs]
