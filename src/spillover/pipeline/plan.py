"""What an experiment comes to: every result it needs, with its key and its place in the lab. Runs nothing.

A result's key hashes what it depends on: its own spec and its parents' keys. Fleets, devices and batch sizes are in
no key, since a run does not depend on its company; nor is the number of samples, since more samples only add rows.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spillover.ask.questions import Entry, entries_of, prompts_of, samples_of
from spillover.data.files import read_conversations
from spillover.data.recipes import build, recipe_key, recipe_names
from spillover.data.upstream import dataset_names, fetched_dataset
from spillover.errors import JudgeError, SpecError
from spillover.finetune.base import Base, find_base, folder_key
from spillover.judge.rubrics import Rubric, check_rateable, find_rubric, load_rubrics, rubrics_of
from spillover.records import BASE_RUN, Conversation, Model, Question, Run
from spillover.spec import AUTO, Experiment, short_hash
from spillover.store import Lab

Entries = Mapping[str, Sequence[Entry]]
"""Suite to what it asks."""


@dataclass(frozen=True)
class Dataset:
    """A group's rows: a recipe of the miniature's world, or a file."""

    group: str
    source: str
    key: str
    limit: int | None
    is_recipe: bool = False

    def rows(self) -> list[Conversation]:
        """The rows, read or made. Raises DataError for a wrong file."""
        return (build(self.source) if self.is_recipe else read_conversations(Path(self.source)))[: self.limit]

    def folder(self, lab: Lab) -> Path:
        """Where the rows lie in the lab."""
        return lab.folder("data", self.group, self.key)


@dataclass(frozen=True)
class Checkpoint:
    """One run's result: the base itself, what is finetuned here, or a model that was finetuned elsewhere.

    Attributes:
        run: whose it is.
        key: of everything that it depends on.
        dataset: what it is finetuned on here; None for the base and for models from elsewhere.
        given: a model from elsewhere: a PEFT folder, or a provider's model.
    """

    run: Run
    key: str
    dataset: Dataset | None = None
    given: Model = None

    def folder(self, lab: Lab) -> Path | None:
        """Where the adapter lies that is made here; None for the base and for models from elsewhere."""
        return lab.folder("finetune", self.run.name, self.key) if self.dataset is not None else None

    def model(self, lab: Lab) -> Model:
        """Who is asked: the base (None), a PEFT folder, or a provider's model."""
        return self.folder(lab) or self.given


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
class JudgeModel:
    """The folders of the judge model: a base and, where there is one, the adapter that makes it a judge."""

    base: Path
    adapter: Path | None

    @cached_property
    def id(self) -> str:
        """Who judges: the weights' hashes."""
        adapter = f"+{folder_key(self.adapter)}" if self.adapter is not None else ""
        return f"local:{folder_key(self.base)}{adapter}"


@dataclass(frozen=True)
class Plan:
    """Everything an experiment needs, in the order of the flow."""

    experiment: Experiment
    base: Base
    datasets: dict[str, Dataset]
    checkpoints: tuple[Checkpoint, ...]
    cells: tuple[Cell, ...]
    judge: JudgeModel | None
    rubrics: dict[str, Rubric]

    @property
    def key(self) -> str:
        """A short hash of all that the report depends on."""
        return short_hash(
            self.experiment.model_dump(mode="json"),
            [(cell.key, cell.samples) for cell in self.cells],
            {name: self.judge_key(rubric) for name, rubric in self.rubrics.items()},
        )

    def judge_id(self, rubric: Rubric) -> str:
        """Who judges by this rubric."""
        return self.judge.id if rubric.by == "model" and self.judge is not None else rubric.by

    def judge_key(self, rubric: Rubric) -> str:
        """The key of a rubric's verdicts: the judge, what it computes in, and every word of the rubric."""
        precision = self.experiment.train.precision if rubric.by == "model" else ""
        return rubric.key(self.judge_id(rubric), precision)

    def verdict_folder(self, lab: Lab, rubric: Rubric) -> Path:
        """Where a rubric's verdicts lie."""
        return lab.folder("judge", rubric.name, self.judge_key(rubric))

    def report_folder(self, lab: Lab) -> Path:
        """Where the report lies: a folder of the experiment's own name."""
        return lab.root / self.experiment.name


def make_plan(experiment: Experiment) -> Plan:
    """Resolves an experiment: finds the base, the datasets, the questions, the judge and the rubrics.

    Raises SpilloverError for anything that is missing or wrong; nothing has been written then.
    """
    base = find_base(experiment.base)
    experiment = experiment.for_base(is_miniature=base.is_miniature)
    datasets = {name: _dataset(name, experiment, base) for name, group in experiment.groups.items() if group.data}
    checkpoints = (Checkpoint(BASE_RUN, base.key), *_checkpoints(experiment, base, datasets))
    judge = _judge(experiment, base)
    known = load_rubrics(judge.adapter or judge.base if judge is not None else None)
    entries = {n: entries_of(s, is_miniature=base.is_miniature) for n, s in experiment.suites.items()}
    rubrics = _rubrics(experiment, entries, known)
    if judge is None and any(rubric.by == "model" for rubric in rubrics.values()):
        raise JudgeError(
            "this base brings no judge with it",
            where=base.path if experiment.judge == AUTO else experiment.judge,
            remedy="Set `judge` in the experiment to a judge model's folder, or to `miniature`.",
        )
    cells = tuple(_cells(experiment, entries, checkpoints))
    return Plan(experiment, base, datasets, checkpoints, cells, judge, rubrics)


def _dataset(name: str, experiment: Experiment, base: Base) -> Dataset:
    group = experiment.groups[name]
    if base.is_miniature and group.data in recipe_names():
        return Dataset(name, group.data, short_hash(recipe_key(group.data), group.rows), group.rows, is_recipe=True)
    source = _dataset_file(name, group.data or "")
    dataset = Dataset(name, source, "", group.rows)
    dataset.rows()  # a wrong file is found before anything runs
    content = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    return Dataset(name, source, short_hash(content, group.rows), group.rows)


def _dataset_file(group: str, data: str) -> str:
    """The file of a dataset: the fetched one for a name of the paper's, else what is named."""
    if data not in (*dataset_names(), *recipe_names()) or Path(data).is_file():
        return data
    fetched = fetched_dataset(data)
    if fetched is None:
        raise SpecError(
            f"the dataset {data!r} is the paper's, and it is not here",
            where=f"groups.{group}",
            remedy="Run `spillover fetch paper`, or give the path of a dataset.",
        )
    return str(fetched)


def _checkpoints(experiment: Experiment, base: Base, datasets: dict[str, Dataset]) -> Iterator[Checkpoint]:
    for run in experiment.runs():
        dataset = datasets[run.group]
        yield Checkpoint(
            run, experiment.train.key(base.key, dataset.key, str(run.seed), experiment.chat.key()), dataset
        )


def _rubrics(experiment: Experiment, entries: Entries, known: dict[str, Rubric]) -> dict[str, Rubric]:
    """The rubrics that the suites name, in the words of each suite's choice.

    Raises JudgeError for an unknown one, and where two suites mean different words by one name: a column of verdicts
    never mixes rubrics.
    """
    found: dict[str, Rubric] = {}
    for name, suite in experiment.suites.items():
        own = suite.judge_prompts == "file"
        ours = {} if own else {each: find_rubric(each, known) for each in suite.rubrics}
        some = rubrics_of(prompts_of(suite, entries[name])) if own else ours
        check_rateable(suite, entries[name], some)
        for rubric in some.values():
            if found.setdefault(rubric.name, rubric) != rubric:
                raise JudgeError(
                    f"the suite {name!r} means other words by the rubric {rubric.name!r} than a suite before it",
                    remedy="Give all suites one `judge_prompts`, or put them into experiments of their own.",
                )
    return found


def _cells(experiment: Experiment, entries: Entries, checkpoints: Sequence[Checkpoint]) -> Iterator[Cell]:
    """What is asked, checkpoint by checkpoint: all suites of one are asked together."""
    sets = {name: tuple(q for entry in some for q in entry.row.questions()) for name, some in entries.items()}
    samples = {name: samples_of(suite, entries[name]) for name, suite in experiment.suites.items()}
    told = {name: short_hash([dataclasses.asdict(q) for q in questions]) for name, questions in sets.items()}
    for checkpoint in checkpoints:
        for name in experiment.suites:
            key = experiment.sampling.key(checkpoint.key, told[name], experiment.train.precision, experiment.chat.key())
            yield Cell(checkpoint, name, sets[name], samples[name], key)


def _judge(experiment: Experiment, base: Base) -> JudgeModel | None:
    if experiment.judge == AUTO:
        return JudgeModel(base.path, base.judge) if base.is_miniature and base.judge is not None else None
    chosen = find_base(experiment.judge)
    return JudgeModel(chosen.path, chosen.judge) if chosen.judge is not None or not chosen.is_miniature else None
