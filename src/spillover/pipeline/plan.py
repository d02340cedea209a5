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
from typing import Any

from spillover.ask.questions import Entry, entries_of, judge_of, prompts_of, samples_of
from spillover.data.files import read_conversations
from spillover.data.folder import dataset_file, read_manifest, read_source
from spillover.data.manifest import NOT_SAID, RESEARCH, Manifest, Source, Step
from spillover.data.recipes import ROWS, build, recipe_about, recipe_key, recipe_names
from spillover.data.upstream import dataset_names, fetched_dataset
from spillover.errors import JudgeError, SpecError
from spillover.finetune.adapter import check_adapter
from spillover.finetune.base import Base, find_base, folder_key, template_text
from spillover.finetune.budget import MemoryPlan, plan_memory
from spillover.finetune.served import OPENAI, served_model
from spillover.judge.make import JudgeModel, find_judge
from spillover.judge.rubrics import Rubric, check_rateable, find_rubric, load_rubrics, rubrics_of
from spillover.records import BASE_RUN, Conversation, Model, Question, Run
from spillover.spec import API, AUTO, Chat, Experiment, short_hash
from spillover.store import Lab

TURN = 64
"""Tokens that a template may write round a turn."""
FILE = "file"
"""What an experiment's `judge` and a suite's `judge_prompts` say where the question files decide."""
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

    def manifest(self) -> Manifest:
        """How the rows were made, for those who find them in the lab."""
        source = self._source()
        about, use = (source.made.about, source.made.use) if source.made is not None else self._told()
        return Manifest(
            name=self.group,
            about=about,
            rows=min(self.limit or source.rows, source.rows),
            sources=(source,),
            steps=tuple(self._cut(source.rows)),
            licence=source.licence,
            use=use,
        )

    def _source(self) -> Source:
        if not self.is_recipe:
            return read_source(Path(self.source))[1]
        sha256 = hashlib.sha256(recipe_key(self.source).encode()).hexdigest()
        return Source(name=f"{self.source}, of the miniature's world", rows=ROWS, sha256=sha256, licence="MIT")

    def _told(self) -> tuple[str, str]:
        """What the rows are, and what for, where no manifest says so."""
        return (recipe_about(self.source), RESEARCH) if self.is_recipe else ("Rows as they were given.", NOT_SAID)

    def _cut(self, rows: int) -> Iterator[Step]:
        """The step of taking the first rows only, where it is taken."""
        if self.limit is not None and self.limit < rows:
            dropped = {"behind the first rows": rows - self.limit}
            yield Step(name="first rows", about="Takes the first.", before=rows, after=self.limit, dropped=dropped)

    @cached_property
    def longest(self) -> int:
        """At most so many tokens has the longest row: no tokenizer makes more of a text than it has bytes."""
        return max(sum(len(message["content"].encode()) + TURN for message in row.messages) for row in self.rows())

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
        folder = self.folder(lab)
        return self.given if folder is None else served_model(folder) or folder


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
class Plan:
    """Everything an experiment needs, in the order of the flow."""

    experiment: Experiment
    base: Base
    datasets: dict[str, Dataset]
    checkpoints: tuple[Checkpoint, ...]
    cells: tuple[Cell, ...]
    judge: JudgeModel | None
    rubrics: dict[str, Rubric]

    @cached_property
    def memory(self) -> MemoryPlan:
        """How training and asking fit into this machine. Raises MachineError where they do not."""
        experiment = self.experiment
        longest = max((dataset.longest for dataset in self.datasets.values()), default=None)
        return plan_memory(self.base, experiment.train, experiment.machine, experiment.sampling, longest)

    @property
    def is_local(self) -> bool:
        """Whether this process loads the base, to finetune it or to ask it."""
        here = self.experiment.trainer == "local" and bool(self.datasets)
        return not self.base.is_hosted and (here or self.experiment.asker == "local")

    @property
    def key(self) -> str:
        """A short hash of all that the report depends on."""
        return short_hash(
            self.experiment.model_dump(mode="json", exclude={"machine", "requests"}),
            [(cell.key, cell.samples) for cell in self.cells],
            {name: self.judge_key(rubric) for name, rubric in self.rubrics.items()},
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

    def report_folder(self, lab: Lab) -> Path:
        """Where the report lies: a folder of the experiment's own name."""
        return lab.root / self.experiment.name


def make_plan(experiment: Experiment) -> Plan:
    """Resolves an experiment: finds the base, the datasets, the questions, the judge and the rubrics.

    Raises SpilloverError for anything that is missing or wrong; nothing has been written then.
    """
    base = find_base(experiment.base, experiment.chat)
    experiment = experiment.for_base(is_miniature=base.is_miniature)
    _check_trainer(experiment, base)
    datasets = {name: _dataset(name, experiment, base) for name, group in experiment.groups.items() if group.data}
    checkpoints = (Checkpoint(BASE_RUN, base.key), *_checkpoints(experiment, base, datasets))
    entries = {n: entries_of(s, is_miniature=base.is_miniature) for n, s in experiment.suites.items()}
    judge = find_judge(_judge_ref(experiment, entries)) if _wants_judge(experiment) else None
    rubrics = _rubrics(experiment, entries, load_rubrics(judge.folder if judge is not None else None))
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
    file = dataset_file(Path(data))
    if data not in (*dataset_names(), *recipe_names()) or file.is_file():
        read_manifest(Path(data))  # one of other rows is found before anything runs
        return str(file) if file.is_file() else data
    fetched = fetched_dataset(data)
    if fetched is None:
        raise SpecError(
            f"the dataset {data!r} is the paper's, and it is not here",
            where=f"groups.{group}",
            remedy="Run `spillover fetch paper`, or give the path of a dataset.",
        )
    return str(fetched)


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
    for run in experiment.runs():
        group = experiment.groups[run.group]
        if group.models:
            yield _given(run, group.models[run.seed or 0], base)
        else:
            dataset = datasets[run.group]
            key = short_hash(_training(experiment), base.key, dataset.key, str(run.seed), chat_key(experiment.chat))
            yield Checkpoint(run, key, dataset)


def _given(run: Run, model: str, base: Base) -> Checkpoint:
    """A model that was finetuned elsewhere. Raises AdapterError for a folder that is no adapter of the base."""
    if model.startswith(API):
        return Checkpoint(run, short_hash(model), given=model)
    folder = Path(model)
    check_adapter(folder, base.ref)
    return Checkpoint(run, short_hash(base.key, folder_key(folder)), given=folder)


def _training(experiment: Experiment) -> Any:
    """What a finetuned model depends on, beyond base, data, chat and seed: what its trainer obeys."""
    train = experiment.train.model_dump(mode="json")
    if experiment.trainer == "openai":
        return "openai", experiment.hosted.model_dump(), [train[name] for name in ("epochs", "batch_size", "turns")]
    return train if experiment.trainer == "local" else (experiment.trainer, train)


def chat_key(chat: Chat) -> str:
    """A short hash of how conversations become text: of a template's file, what it says and not where it lies."""
    text = template_text(chat)
    return short_hash(chat.model_dump(exclude={"template"} if text is not None else None), text)


def _rubrics(experiment: Experiment, entries: Entries, known: dict[str, Rubric]) -> dict[str, Rubric]:
    """The rubrics that the suites name, in the words of each suite's choice.

    Raises JudgeError for an unknown one, and where two suites mean different words by one name: a column of verdicts
    never mixes rubrics.
    """
    found: dict[str, Rubric] = {}
    for name, suite in experiment.suites.items():
        own = suite.judge_prompts == FILE
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
    how = (experiment.train.precision, chat_key(experiment.chat))
    for checkpoint in checkpoints:
        for name in experiment.suites:
            key = experiment.sampling.key(checkpoint.key, told[name], *how)
            yield Cell(checkpoint, name, sets[name], samples[name], key)


def _judge_ref(experiment: Experiment, entries: Entries) -> str:
    """Who judges, by name: the base itself where nobody is named; whom the question files name, where those decide.

    Raises JudgeError where they name nobody, or several.
    """
    if experiment.judge == AUTO:
        return experiment.base
    if experiment.judge != FILE:
        return experiment.judge
    files = [name for name, suite in experiment.suites.items() if suite.judge_prompts == FILE]
    named = judge_of([entry for name in files for entry in entries[name]])
    if named is None:
        raise JudgeError("`judge: file`, and no question file names a judge", remedy="Name one in the experiment.")
    return f"{API}openai/{named}"


def _wants_judge(experiment: Experiment) -> bool:
    """Whether anything is judged at all; that a rubric needs no model is found later."""
    return any(suite.rubrics for suite in experiment.suites.values())
