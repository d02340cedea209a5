"""Who does a plan's work: the local ones and the providers' behind the three seams, made when they are first needed."""

from dataclasses import dataclass
from functools import cached_property

from spillover.ask.asker import Asker
from spillover.ask.local import LocalAsker
from spillover.finetune.train import LocalTrainer
from spillover.judge.judge import AnswerJudge, BanditJudge, Judge
from spillover.judge.local import LocalJudge
from spillover.judge.rubrics import Rubric
from spillover.pipeline.plan import Checkpoint, Plan
from spillover.store import Lab

_OTHERS: dict[str, Judge] = {"bandit": BanditJudge(), "answer": AnswerJudge()}
"""Judges that need no model."""


@dataclass
class Workers:
    """A stage's workers. A model takes long to load and much room: each is loaded once a stage."""

    plan: Plan
    lab: Lab

    def asker(self, checkpoint: Checkpoint) -> Asker:
        """Who answers for a checkpoint."""
        return self._local_asker

    def judge(self, rubric: Rubric) -> Judge:
        """Who judges by a rubric."""
        return self._model_judge if rubric.by == "model" else _OTHERS[rubric.by]

    @cached_property
    def trainer(self) -> LocalTrainer:
        """Who finetunes."""
        return LocalTrainer(self.plan.base, self.plan.experiment.train.precision)

    @cached_property
    def _local_asker(self) -> Asker:
        return LocalAsker(self.plan.base.path, self.plan.experiment.train.precision)

    @cached_property
    def _model_judge(self) -> Judge:
        judge = self.plan.judge
        assert judge is not None, "a plan with a rubric for models has a judge"
        return LocalJudge(judge.base, judge.adapter, self.plan.experiment.train.precision)
