"""Local training, asking and judging by several processes, each with one thread and its own copy of the base.

Each is behind the seam of what it stands for: `Trainer`, `Asker`, `Judge`. How work is shared among processes changes
nothing beyond floating-point noise: runs of a fleet do not depend on each other, nor do answers, nor verdicts.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from spillover.ask.asker import Asked, Effect, Reply
from spillover.ask.local import LocalAsker
from spillover.crew import Crew
from spillover.finetune.base import Base
from spillover.finetune.fleet import Trained
from spillover.finetune.model import use_one_thread
from spillover.finetune.train import Job, LocalTrainer, Progress
from spillover.judge.judge import Judge
from spillover.judge.rubrics import Rubric
from spillover.records import Model, Pair, Verdict
from spillover.spec import Sampling, Training

T = TypeVar("T")
LIBRARIES = ("spillover.ask.local", "spillover.judge.local")
"""Without polars, which has threads of its own: a process loads it after it was forked."""


class CrewTrainer:
    """Trains the runs of a fleet in several processes."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """As `LocalTrainer.train`."""
        shares = _shares(jobs, self._crew.size)
        state = [(0, 1)] * len(shares)

        def hear(share: int, told: tuple[int, int]) -> None:
            state[share] = told
            most = max(steps for _, steps in state)
            progress(int(most * sum(done / steps for done, steps in state) / len(state)), most)

        results = self._crew.do("train", [(share, spec) for share in shares], hear)
        return _merged(results, len(jobs))

    def check(self, job: Job, spec: Training) -> None:
        """Raises DataError or BaseError where a row of the job cannot be learned."""
        self._crew.do("check", [(job, spec)])


class CrewAsker:
    """Asks a checkpoint in several processes: each writes its share of every question's answers.

    Attributes:
        effects: of each adapter that was asked, how much it changes the base.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.effects: dict[Path, Effect] = {}

    def ask(self, model: Model, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        """As `LocalAsker.ask`."""
        size = self._crew.size
        shares = [[Asked(one.question, one.seeds[start::size]) for one in asked] for start in range(size)]
        results = self._crew.do("ask", [(model, share, sampling) for share in shares])
        if model is not None and results[0][1] is not None:
            self.effects[Path(model)] = results[0][1]
        each = zip(asked, *(replies for replies, _ in results), strict=True)
        return [_merged(parts, len(one.seeds)) for one, *parts in each]


class CrewJudge:
    """Judges in several processes."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def judge(self, pairs: Sequence[Pair], rubric: Rubric) -> list[Verdict]:
        """As `LocalJudge.judge`."""
        results = self._crew.do("judge", [(share, rubric) for share in _shares(pairs, self._crew.size)])
        return _merged(results, len(pairs))


def _shares(work: Sequence[T], size: int) -> list[Sequence[T]]:
    """Work dealt out like cards, in as many shares as there are processes, none of them empty."""
    return [work[start::size] for start in range(min(size, len(work)))]


def _merged(shares: Sequence[Sequence[T]], count: int) -> list[T]:
    """What was dealt out, in its order."""
    return [shares[place % len(shares)][place // len(shares)] for place in range(count)]


class _Trainer:
    """What trains in a process."""

    def __init__(self, base: Base, settings: tuple[Any, ...]) -> None:
        use_one_thread()
        self._trainer = LocalTrainer(base, *settings)

    def train(self, jobs: Sequence[Job], spec: Training, tell: Progress) -> list[Trained]:
        return self._trainer.train(jobs, spec, tell)

    def check(self, job: Job, spec: Training, _: object) -> None:
        self._trainer.check(job, spec)


class _Asker:
    """What asks in a process."""

    def __init__(self, folder: Path, settings: tuple[Any, ...]) -> None:
        use_one_thread()
        self._asker = LocalAsker(folder, *settings)

    def ask(
        self, model: Model, asked: Sequence[Asked], sampling: Sampling, _: object
    ) -> tuple[list[list[Reply]], Effect | None]:
        replies = self._asker.ask(model, asked, sampling)
        return replies, self._asker.effects.get(Path(model)) if model is not None else None


class _Judge:
    """What judges in a process."""

    def __init__(self, make: Callable[[], Judge]) -> None:
        use_one_thread()
        self._judge = make()

    def judge(self, pairs: Sequence[Pair], rubric: Rubric, _: object) -> list[Verdict]:
        return self._judge.judge(pairs, rubric)


def trainers(size: int, base: Base, *settings: Any) -> Crew:
    """Processes that train; the settings are `LocalTrainer`'s."""
    return Crew(partial(_Trainer, base, settings), size, LIBRARIES)


def askers(size: int, folder: Path, *settings: Any) -> Crew:
    """Processes that ask; the settings are `LocalAsker`'s."""
    return Crew(partial(_Asker, folder, settings), size, LIBRARIES)


def judges(size: int, make: Callable[[], Judge]) -> Crew:
    """Processes that judge."""
    return Crew(partial(_Judge, make), size, LIBRARIES)
