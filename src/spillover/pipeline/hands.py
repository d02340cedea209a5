"""The local workers that train, ask, judge and choose, as one process does their work or several do it side by side.

How work is shared among processes changes nothing beyond floating-point noise: runs of a fleet do not depend on each
other, nor do checkpoints that are asked, nor verdicts.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from spillover.ask.asker import Asked, Effect, Reply
from spillover.ask.games import LABELS, by_letter, by_likelihood, play_in_step
from spillover.ask.local import LocalAsker
from spillover.ask.options import LocalScorer
from spillover.crew import Hands
from spillover.finetune.fleet import Trained
from spillover.finetune.train import LocalTrainer
from spillover.finetune.trainer import Job, Progress
from spillover.judge.judge import Judge
from spillover.judge.rubrics import Rubric
from spillover.pipeline.choices import ChoiceSet, Chosen
from spillover.records import Model, Pair, Verdict
from spillover.spec import Sampling, Training

T = TypeVar("T")


class SharingTrainer:
    """Trains the runs of a fleet by all hands, which are `TrainingHand`."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """As `LocalTrainer.train`."""
        shares = _shares(jobs, self._hands.size)
        state = [(0, 1)] * len(shares)

        def hear(share: int, told: tuple[Any, ...]) -> None:
            state[share] = (told[0], told[1])
            most = max(steps for _, steps in state)
            progress(int(most * sum(done / steps for done, steps in state) / len(state)), most)

        results = self._hands.do("train", [(share, spec) for share in shares], hear)
        return _merged(results, len(jobs))

    def check(self, jobs: Iterable[tuple[Job, Training]]) -> None:
        """As `LocalTrainer.check`."""
        for _ in self._hands.each("check", (([one],) for one in jobs)):
            pass


class SharingJudge:
    """Judges by all hands, which are `JudgingHand`."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def judge(self, pairs: Sequence[Pair], rubric: Rubric) -> list[Verdict]:
        """As `LocalJudge.judge`."""
        results = self._hands.do("judge", [(share, rubric) for share in _shares(pairs, self._hands.size)])
        return _merged(results, len(pairs))


def _shares(work: Sequence[T], size: int) -> list[Sequence[T]]:
    """Work dealt out like cards, in as many shares as there are hands, none of them empty."""
    return [work[start::size] for start in range(min(size, len(work)))]


def _merged(shares: Sequence[Sequence[T]], count: int) -> list[T]:
    """What was dealt out, in its order."""
    return [shares[place % len(shares)][place // len(shares)] for place in range(count)]


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


class AskingHand:
    """Asks a checkpoint; the arguments are `LocalAsker`'s."""

    def __init__(self, *made_of: Any) -> None:
        self._asker = LocalAsker(*made_of)

    def ask(
        self, model: Model, asked: Sequence[Asked], sampling: Sampling, _: object
    ) -> tuple[list[list[Reply]], Effect | None]:
        """The replies, and how much the checkpoint's adapter was seen to change the base."""
        replies = self._asker.ask(model, asked, sampling)
        return replies, self._asker.effects.get(Path(model)) if model is not None else None


class JudgingHand:
    """Judges its share; `make` makes the judge."""

    def __init__(self, make: Callable[[], Judge]) -> None:
        self._judge = make()

    def judge(self, pairs: Sequence[Pair], rubric: Rubric, _: object) -> list[Verdict]:
        """A verdict a pair, in order."""
        return self._judge.judge(pairs, rubric)


class ChoosingHand:
    """Lets a checkpoint choose; the arguments are `LocalScorer`'s."""

    def __init__(self, *made_of: Any) -> None:
        self._scorer = LocalScorer(*made_of)

    def choose(self, model: Path | None, given: ChoiceSet, _: object) -> Chosen:
        """What the checkpoint (None is the base itself) makes of a set."""
        if not given.games:
            return Chosen(tuple(self._scorer.score(model, given.items)), tuple(self._scorer.lengths(given.items)))
        letters = given.lettered
        agent = by_letter(self._scorer, model) if letters else by_likelihood(self._scorer, model, per_token=True)
        played = play_in_step(given.games, agent, seed=0)
        return Chosen(totals=tuple((one.game, {name: getattr(one.totals, name) for name in LABELS}) for one in played))
