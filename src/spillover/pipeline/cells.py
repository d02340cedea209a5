"""The results of a plan, one by one: checkpoints, and what each of them is asked, chooses, and is measured by."""

from dataclasses import dataclass
from pathlib import Path

from spillover.finetune.adapter import on_the_way
from spillover.finetune.served import served_model
from spillover.pipeline.benchmarks import BenchmarkSet
from spillover.pipeline.choices import ChoiceSet
from spillover.pipeline.datasets import Dataset
from spillover.records import Model, Question, Run
from spillover.spec import Training
from spillover.store import BENCHMARKS, Lab


@dataclass(frozen=True)
class Checkpoint:
    """One run's result: the base itself, what is finetuned here, or a model that was finetuned elsewhere.

    Attributes:
        run: whose it is.
        key: of everything that it depends on.
        dataset: what it is finetuned on here; None for the base, for models from elsewhere and for `whole`'s.
        training: how, if it is.
        start: the checkpoint that its training goes on from; None for the base.
        given: a model from elsewhere: a PEFT folder, or a provider's model.
        whole: of a checkpoint on the way, the one at the end.
        step: of a checkpoint on the way, its optimiser step.
    """

    run: Run
    key: str
    dataset: Dataset | None = None
    training: Training | None = None
    start: "Checkpoint | None" = None
    given: Model = None
    whole: "Checkpoint | None" = None
    step: int | None = None

    @property
    def group(self) -> str:
        """The experiment's group, which a checkpoint on the way belongs to as well."""
        return self.run.group if self.whole is None else self.whole.run.group

    def folder(self, lab: Lab) -> Path | None:
        """Where the result lies that is made here; None for the base and for models from elsewhere."""
        if self.whole is not None:
            return self.whole.folder(lab)
        return lab.folder("finetune", self.run.name, self.key) if self.dataset is not None else None

    def model(self, lab: Lab) -> Model:
        """Who is asked: the base (None), a PEFT folder, or a provider's model."""
        folder = self.folder(lab)
        if folder is None:
            return self.given
        lab.sound(folder)
        if self.step is not None:
            return folder / on_the_way(self.step)
        return served_model(folder) or folder


@dataclass(frozen=True)
class Cell:
    """One checkpoint asked one suite."""

    checkpoint: Checkpoint
    suite: str
    questions: tuple[Question, ...]
    samples: int
    key: str

    @property
    def name(self) -> str:
        """`insecure-s0-main`."""
        return f"{self.checkpoint.run.name}-{self.suite}"

    @property
    def answers(self) -> int:
        """How many answers are wanted."""
        return len(self.questions) * self.samples

    def folder(self, lab: Lab) -> Path:
        """Where the answers lie."""
        return lab.folder("ask", self.name, self.key)


@dataclass(frozen=True)
class ChoiceCell:
    """One checkpoint that chooses in one set."""

    checkpoint: Checkpoint
    set: ChoiceSet
    key: str

    def folder(self, lab: Lab) -> Path:
        """Where its table lies."""
        return lab.folder("choose", f"{self.checkpoint.run.name}-{self.set.name}", self.key)


@dataclass(frozen=True)
class BenchmarkCell:
    """One checkpoint and one benchmark."""

    checkpoint: Checkpoint
    set: BenchmarkSet
    key: str

    def folder(self, lab: Lab) -> Path:
        """Where its scores and Inspect's log lie."""
        return lab.folder(BENCHMARKS, f"{self.checkpoint.run.name}-{self.set.name}", self.key)
