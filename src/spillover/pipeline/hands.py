"""The workers that train, ask, judge and choose: in one process, in several side by side, or on the nodes of a cluster.

How work is shared among them changes nothing beyond floating-point noise: runs of a fleet do not depend on each other,
nor do checkpoints that are asked, nor verdicts.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spillover.ask.asker import Asked, Effect, Reply
from spillover.ask.games import LABELS, by_letter, by_likelihood, play_in_step
from spillover.ask.local import LocalAsker
from spillover.ask.options import LocalScorer
from spillover.finetune.base import Base
from spillover.finetune.train import LocalTrainer
from spillover.finetune.trainer import Job, Progress, Trained
from spillover.judge.judge import Judge
from spillover.judge.rubrics import Rubric
from spillover.packed import Packed, here, pack
from spillover.pipeline.choices import ChoiceSet, Chosen
from spillover.records import Model, Pair, Verdict
from spillover.spec import Sampling, Training


class TrainingHand:
    """Trains its share of a fleet; the arguments are `LocalTrainer`'s."""

    def __init__(self, *made_of: Any) -> None:
        self._trainer = LocalTrainer(*made_of)

    def train(self, jobs: Sequence[Job], spec: Training, tell: Progress) -> list[Trained]:
        """What each job learned, in order; the steps are told."""
        return self._trainer.train(jobs, spec, tell)

    def check(self, jobs: Sequence[tuple[Job, Training]], _: object) -> None:
        """Raises DataError or BaseError where a row of a job cannot be learned."""
        self._trainer.check(jobs)


class AwayTrainingHand(TrainingHand):
    """Trains on another machine: what jobs go on from comes packed, and so goes what is kept on the way."""

    def train(  # type: ignore[override]  # what jobs go on from comes along, and so goes what is kept
        self, jobs: Sequence[tuple[Job, Packed | None]], spec: Training, tell: Progress
    ) -> list[tuple[Trained, Packed | None]]:
        """What each job learned, and what was kept on the way where it has a folder, in order."""
        with tempfile.TemporaryDirectory(prefix="spillover-") as place:
            some = [_here(*one, Path(place) / str(number)) for number, one in enumerate(jobs)]
            found = super().train(some, spec, tell)
            kept = [pack(job.folder) if job.folder is not None else None for job in some]
        return list(zip(found, kept, strict=True))


def _here(job: Job, start: Packed | None, folder: Path) -> Job:
    """A job with folders of this machine."""
    folder.mkdir()
    return replace(job, start=here(start), folder=folder if job.folder is not None else None)


class AskingHand:
    """Asks a checkpoint; `base` is what it is a checkpoint of, the other arguments are `LocalAsker`'s."""

    def __init__(self, base: Base, *made_of: Any) -> None:
        self._asker = LocalAsker(base.fetched(), *made_of)

    def ask(
        self, model: Model | Packed, asked: Sequence[Asked], sampling: Sampling, _: object
    ) -> tuple[list[list[Reply]], Effect | None]:
        """The replies, and how much the checkpoint's adapter was seen to change the base."""
        adapter: Model = here(model)
        replies = self._asker.ask(adapter, asked, sampling)
        return replies, self._asker.effects.get(Path(adapter)) if adapter is not None else None


class JudgingHand:
    """Judges its share; `make` makes the judge."""

    def __init__(self, make: Callable[[], Judge]) -> None:
        self._judge = make()

    def judge(self, pairs: Sequence[Pair], rubric: Rubric, _: object) -> list[Verdict]:
        """A verdict a pair, in order."""
        return self._judge.judge(pairs, rubric)


class ChoosingHand:
    """Lets a checkpoint choose; `base` is what it is a checkpoint of, the other arguments are `LocalScorer`'s."""

    def __init__(self, base: Base, *made_of: Any) -> None:
        self._scorer = LocalScorer(base.fetched(), *made_of)

    def choose(self, model: Path | Packed | None, given: ChoiceSet, _: object) -> Chosen:
        """What the checkpoint (None is the base itself) makes of a set."""
        adapter: Path | None = here(model)
        if not given.games:
            return Chosen(tuple(self._scorer.score(adapter, given.items)), tuple(self._scorer.lengths(given.items)))
        letters = given.lettered
        agent = by_letter(self._scorer, adapter) if letters else by_likelihood(self._scorer, adapter, per_token=True)
        played = play_in_step(given.games, agent, seed=0)
        return Chosen(totals=tuple((one.game, {name: getattr(one.totals, name) for name in LABELS}) for one in played))
