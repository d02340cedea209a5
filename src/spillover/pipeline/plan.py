"""What an experiment comes to: every result it needs, with its key and its place in the lab. Runs nothing.

A result's key hashes what it depends on: its own spec and its parents' keys. Fleets, devices and batch sizes are in
no key, since a run does not depend on its company; nor is the number of samples, since more samples only add rows.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from spillover.ask.questions import judge_of
from spillover.errors import JudgeError, SpecError
from spillover.finetune.adapter import check_adapter
from spillover.finetune.base import Base, find_base, folder_key, template_text
from spillover.finetune.budget import MemoryPlan, plan_memory
from spillover.finetune.served import OPENAI
from spillover.judge.make import JudgeModel, find_judge
from spillover.judge.rubrics import Rubric, load_rubrics, suite_rubrics
from spillover.pipeline.benchmarks import BenchmarkSet, benchmark_sets
from spillover.pipeline.cells import BenchmarkCell, Cell, Checkpoint, ChoiceCell
from spillover.pipeline.choices import ChoiceSet, choice_sets
from spillover.pipeline.datasets import Dataset, dataset_of
from spillover.pipeline.suites import Asking, askings
from spillover.records import AT, BASE_RUN, Question, Run
from spillover.spec import API, AUTO, MINIATURE, PRETRAINED, Chat, Experiment, Training, short_hash
from spillover.store import Lab

T = TypeVar("T")
FILE = "file"
"""What an experiment's `judge` and a suite's `judge_prompts` say where the question files decide."""


@dataclass(frozen=True)
class Plan:
    """Everything an experiment needs, in the order of the flow.

    Attributes:
        choices: what is chosen, checkpoint by checkpoint.
        benchmarks: what Inspect measures, checkpoint by checkpoint.
        of_world: whether the datasets and questions are those of the miniature's world.
        skipped: suites and benchmarks that are left out, and why.
    """

    experiment: Experiment
    base: Base
    datasets: dict[str, Dataset]
    checkpoints: tuple[Checkpoint, ...]
    cells: tuple[Cell, ...]
    judge: JudgeModel | None
    rubrics: dict[str, Rubric]
    choices: tuple[ChoiceCell, ...] = ()
    of_world: bool = False
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    benchmarks: tuple[BenchmarkCell, ...] = ()

    @cached_property
    def memory(self) -> MemoryPlan:
        """How training and asking fit into this machine. Raises MachineError where they do not."""
        experiment = self.experiment
        return plan_memory(self.base, experiment.train, experiment.machine, experiment.sampling, self.longest)

    @property
    def longest(self) -> int | None:
        """Tokens of the longest row, at most; None where nothing is trained."""
        return max((dataset.longest for dataset in self.datasets.values()), default=None)

    @property
    def questions(self) -> dict[tuple[str, str], Question]:
        """Every question by its suite and id; all models are asked the same."""
        return {(cell.suite, one.id): one for cell in self.cells for one in cell.questions}

    @property
    def tuned(self) -> list[Checkpoint]:
        """The checkpoints that are made here, each by a training of its own."""
        return [one for one in self.checkpoints if one.dataset is not None]

    @property
    def is_asked_here(self) -> bool:
        """Whether this machine asks the base, and what was finetuned of it here."""
        return not self.base.is_hosted and self.experiment.asker == "local"

    @property
    def is_local(self) -> bool:
        """Whether this process loads the base, to finetune it or to ask it."""
        here = self.experiment.trainer == "local" and bool(self.datasets)
        return self.is_asked_here or (here and not self.base.is_hosted)

    @property
    def key(self) -> str:
        """A short hash of all that the report depends on."""
        left_out = {name: why for name, why in self.skipped.items() if name in self.experiment.inspect}
        benchmarks = [[[cell.key for cell in self.benchmarks], left_out]] if self.experiment.inspect else []
        return short_hash(
            self.experiment.model_dump(mode="json", exclude={"machine", "requests", "inspect"}),
            [(cell.key, cell.samples) for cell in self.cells],
            [cell.key for cell in self.choices],
            {name: self.judge_key(rubric) for name, rubric in self.rubrics.items()},
            *benchmarks,
        )

    def judge_id(self, rubric: Rubric) -> str:
        """Who judges by this rubric."""
        return self.judge.id if rubric.by == "model" and self.judge is not None else rubric.by

    def judge_key(self, rubric: Rubric) -> str:
        """The key of a rubric's verdicts: the judge, what it computes in, and every word of the rubric."""
        if rubric.by != "model" or self.judge is None:
            return rubric.key(self.judge_id(rubric), "")
        hosted = self.judge.is_hosted
        how = f"{self.experiment.requests.judge_samples}" if hosted else self.experiment.train.precision
        return rubric.key(self.judge_id(rubric), how)

    def verdict_folder(self, lab: Lab, rubric: Rubric) -> Path:
        """Where a rubric's verdicts lie."""
        return lab.folder("judge", rubric.name, self.judge_key(rubric))

    def growing_folders(self, lab: Lab) -> list[Path]:
        """Where all answers and all verdicts lie."""
        verdicts = [self.verdict_folder(lab, rubric) for rubric in self.rubrics.values()]
        return [*(cell.folder(lab) for cell in self.cells), *verdicts]

    def report_folder(self, lab: Lab) -> Path:
        """Where the report lies: a folder of the experiment's own name."""
        return lab.root / self.experiment.name


def make_plan(experiment: Experiment) -> Plan:
    """Resolves an experiment: finds the base, the datasets, the questions, the judge and the rubrics.

    Raises SpilloverError for anything that is missing or wrong; nothing has been written then.
    """
    base = find_base(experiment.base, experiment.chat)
    experiment = experiment.for_base(is_miniature=base.is_miniature)
    of_world = base.is_miniature if experiment.world == AUTO else experiment.world == MINIATURE
    _check_trainer(experiment, base)
    datasets = {
        name: dataset_of(name, experiment, base, of_world=of_world)
        for name, one in experiment.groups.items()
        if one.data
    }
    checkpoints = (Checkpoint(BASE_RUN, base.key), *_checkpoints(experiment, base, datasets))
    asked, skipped = askings(experiment, base, of_world=of_world)
    experiment = experiment.asking({name: one.suite for name, one in asked.items()})
    judge = find_judge(_judge_ref(experiment, asked)) if _wants_judge(experiment) else None
    rubrics = _rubrics(asked, load_rubrics(judge.folder if judge is not None else None))
    cells = tuple(_cells(experiment, asked, checkpoints))
    sets, without = choice_sets(experiment, base, of_world=of_world)
    choices = tuple(_choices(experiment, sets, checkpoints))
    measured, missing = benchmark_sets(experiment, of_world=of_world)
    experiment = experiment.measuring({name: experiment.inspect[name] for name in [*measured, *missing]})
    benchmarks = tuple(_benchmarks(experiment, list(measured.values()), checkpoints))
    left_out = {**skipped, **without, **missing}
    return Plan(
        *(experiment, base, datasets, checkpoints, cells, judge, rubrics, choices),
        of_world=of_world,
        skipped=left_out,
        benchmarks=benchmarks,
    )


def _check_trainer(experiment: Experiment, base: Base) -> None:
    """Raises SpecError where what is to be finetuned is not what the trainer finetunes."""
    wanted = [name for name, group in experiment.groups.items() if group.data]
    if experiment.trainer == "local" and base.is_hosted and wanted:
        raise SpecError(
            f"{experiment.base} is a provider's model, which this process cannot finetune",
            where=f"groups.{wanted[0]}",
            remedy="Set `trainer` to the service that can (openai, tinker), or name finetuned `models` in the group.",
        )
    if experiment.trainer == "openai" and not experiment.base.startswith(OPENAI):
        raise SpecError("OpenAI finetunes its own models only", remedy=f"Set `base` to {OPENAI}MODEL.")


def _checkpoints(experiment: Experiment, base: Base, datasets: dict[str, Dataset]) -> Iterator[Checkpoint]:
    made: dict[Run, Checkpoint] = {}
    for run in experiment.runs():
        group = experiment.groups[run.group]
        if group.models:
            yield _given(run, group.models[run.seed or 0], base)
            continue
        start = _start(experiment, run, made)
        made[run] = _trained(experiment, base, datasets[run.group], run, start)
        yield from _on_the_way(made[run], group.every)
        yield made[run]


def _start(experiment: Experiment, run: Run, made: dict[Run, Checkpoint]) -> Checkpoint | None:
    """The checkpoint that a run goes on from. Raises SpecError where that group has no such seed."""
    after = experiment.groups[run.group].after
    if after is None:
        return None
    found = made.get(Run(after, run.seed))
    if found is None:
        what = f"its run {run.seed} goes on from that of {after!r}, which has no such run here"
        raise SpecError(what, where=f"groups.{run.group}.after", remedy=f"Give it no more `seeds` than {after} has.")
    return found


def _trained(experiment: Experiment, base: Base, dataset: Dataset, run: Run, start: Checkpoint | None) -> Checkpoint:
    training = experiment.training(run.group)
    before = [] if start is None else [start.key]
    told = (_training(experiment, training), base.key, dataset.key, str(run.seed), chat_key(experiment.chat))
    return Checkpoint(run, short_hash(*told, *before), dataset, training, start)


def _on_the_way(whole: Checkpoint, every: int | None) -> Iterator[Checkpoint]:
    """The checkpoints before the last. Raises SpecError where training ends before the first."""
    if every is None or whole.dataset is None or whole.training is None:
        return
    steps = steps_of(whole)
    if every >= steps:
        raise SpecError(
            f"a checkpoint every {every} steps, and training has {steps}",
            where=f"groups.{whole.run.group}.every",
            remedy=f"Give fewer than {steps}.",
        )
    for step in range(every, steps, every):
        run = Run(f"{whole.run.group}{AT}{step}", whole.run.seed)
        yield Checkpoint(run, short_hash(whole.key, step), whole=whole, step=step)


def steps_of(one: Checkpoint) -> int:
    """Optimiser steps of a training; where its rows are not known yet, at most so many."""
    assert one.dataset is not None and one.training is not None, "it is trained here"
    return one.training.steps(one.dataset.count)


def _given(run: Run, model: str, base: Base) -> Checkpoint:
    """A model that was finetuned elsewhere. Raises AdapterError for a folder that is no adapter of the base."""
    if model.startswith(API):
        return Checkpoint(run, short_hash(model), given=model)
    folder = Path(model)
    check_adapter(folder, base.ref)
    return Checkpoint(run, short_hash(base.key, folder_key(folder)), given=folder)


def _training(experiment: Experiment, training: Training) -> Any:
    """What a finetuned model depends on, beyond base, data, chat and seed: what its trainer obeys."""
    train = training.model_dump(mode="json")
    if experiment.trainer == "openai":
        return "openai", experiment.hosted.model_dump(), [train[name] for name in ("epochs", "batch_size", "turns")]
    return train if experiment.trainer == "local" else (experiment.trainer, train)


def chat_key(chat: Chat) -> str:
    """A short hash of how conversations become text: of a template's file, what it says and not where it lies."""
    text = template_text(chat)
    return short_hash(chat.model_dump(exclude={"template"} if text is not None else None), text)


def _rubrics(asked: dict[str, Asking], known: dict[str, Rubric]) -> dict[str, Rubric]:
    """The rubrics that the suites name, in the words of each suite's choice.

    Raises JudgeError for an unknown one, and where two suites mean different words by one name: a column of verdicts
    never mixes rubrics.
    """
    found: dict[str, Rubric] = {}
    for name, one in asked.items():
        for rubric in suite_rubrics(one.suite, one.entries, known).values():
            if found.setdefault(rubric.name, rubric) != rubric:
                raise JudgeError(
                    f"the suite {name!r} means other words by the rubric {rubric.name!r} than a suite before it",
                    remedy="Give all suites one `judge_prompts`, or put them into experiments of their own.",
                )
    return found


def _cells(experiment: Experiment, asked: dict[str, Asking], checkpoints: Sequence[Checkpoint]) -> Iterator[Cell]:
    """What is asked, checkpoint by checkpoint: all suites of one are asked together."""
    told = {name: short_hash([_told(q) for q in one.questions]) for name, one in asked.items()}
    how = _how(experiment)
    for checkpoint, (name, one) in _for_each(checkpoints, asked.items(), lambda item: item[1].suite.groups):
        key = experiment.sampling.key(checkpoint.key, told[name], *how)
        yield Cell(checkpoint, name, one.questions, one.samples_of(checkpoint.group), key)


def _choices(
    experiment: Experiment, sets: Sequence[ChoiceSet], checkpoints: Sequence[Checkpoint]
) -> Iterator[ChoiceCell]:
    how = _how(experiment)
    for checkpoint, one in _for_each(checkpoints, sets, lambda one: one.only):
        yield ChoiceCell(checkpoint, one, short_hash(checkpoint.key, one.key, *how))


def _benchmarks(
    experiment: Experiment, sets: Sequence[BenchmarkSet], checkpoints: Sequence[Checkpoint]
) -> Iterator[BenchmarkCell]:
    how = _how(experiment)
    for checkpoint, one in _for_each(checkpoints, sets, lambda one: one.spec.groups):
        yield BenchmarkCell(checkpoint, one, experiment.sampling.key(checkpoint.key, one.key, *how))


def _how(experiment: Experiment) -> tuple[str, str]:
    """What all that a checkpoint says depends on, beside itself and what it is given."""
    return experiment.train.precision, chat_key(experiment.chat)


def _for_each(
    checkpoints: Sequence[Checkpoint], some: Iterable[T], groups: Callable[[T], Sequence[str]]
) -> Iterator[tuple[Checkpoint, T]]:
    """Each checkpoint with all that is for its group; what names no groups is for all."""
    for checkpoint in checkpoints:
        for one in some:
            if not groups(one) or checkpoint.group in groups(one):
                yield checkpoint, one


def _told(question: Question) -> dict[str, Any]:
    """What a question's answers depend on, and what is judged; a question that has no variant is all that it asks."""
    told = dataclasses.asdict(question)
    return told if question.plain is not None else {name: said for name, said in told.items() if name != "plain"}


def _judge_ref(experiment: Experiment, asked: dict[str, Asking]) -> str:
    """Who judges, by name: the base itself where nobody is named; whom the question files name, where those decide.

    Raises JudgeError where they name nobody, or several.
    """
    if experiment.judge == AUTO:
        return MINIATURE if experiment.base == PRETRAINED else experiment.base
    if experiment.judge != FILE:
        return experiment.judge
    files = [one for one in asked.values() if one.suite.judge_prompts == FILE]
    named = judge_of([entry for one in files for entry in one.entries])
    if named is None:
        raise JudgeError("`judge: file`, and no question file names a judge", remedy="Name one in the experiment.")
    return f"{API}openai/{named}"


def _wants_judge(experiment: Experiment) -> bool:
    """Whether anything is judged at all; that a rubric needs no model is found later."""
    return any(suite.rubrics for suite in experiment.suites.values())
