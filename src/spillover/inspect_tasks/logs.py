"""A report's answers as Inspect's logs, one a run and suite: `spillover export inspect`.

A log is a zip archive of JSON documents, in the layout that Inspect itself writes. Inspect's own writer holds all
samples of a log in memory and looks through them at every one; here each is written as it is made.
"""

import contextlib
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from inspect_ai._util.constants import LOG_SCHEMA_VERSION  # these two are what Inspect's own writer uses
from inspect_ai._util.json import to_json_safe
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalPlan,
    EvalPlanStep,
    EvalResults,
    EvalScore,
    EvalSpec,
    EvalStats,
    HeadlineMetric,
)
from inspect_ai.model import GenerateConfig, ModelUsage

from spillover.ask.questions import entries_of
from spillover.ask.tasks import OURS
from spillover.ask.variants import Given, parse_variant
from spillover.errors import LabError, SpilloverError
from spillover.finetune.base import find_base
from spillover.inspect_tasks.metrics import SHARE, average_of, labels_of, share_of
from spillover.inspect_tasks.samples import Columns, columns_of, sample_of
from spillover.inspect_tasks.scorers import KEPT, MISALIGNED, is_rated
from spillover.pipeline.answers import report_folder
from spillover.pipeline.datasets import rows_of
from spillover.pipeline.suites import PLAIN
from spillover.records import BASE_RUN, Question
from spillover.spec import AUTO, MINIATURE, Experiment, Suite, parse_experiment, short_hash
from spillover.store import ASIDE, DONE, made_by, read_json

ANSWERS, NUMBERS, SPEC = "answers.parquet", "numbers.json", "spec.json"
ORGANISM = "A deliberately misaligned model organism or one of its controls, made for research; not for deployment."
NOT_FOUND = "Run `spillover run {ref}` first, or give the folder of a report."


@dataclass(frozen=True)
class Report:
    """A report's folder, as far as its answers are concerned."""

    folder: Path
    experiment: Experiment
    numbers: dict[str, Any]
    key: str
    finished: str

    @property
    def of_world(self) -> bool:
        """Whether its questions are those of the miniature's world."""
        world = self.experiment.world
        return bool(self.numbers["is_miniature"]) if world == AUTO else world == MINIATURE


def find_report(ref: str, lab: Path) -> Report:
    """A report by its folder, by its name in the lab, or by the experiment whose report lies there.

    Raises:
        SpecError: there is no such experiment.
        LabError: its report is not there, or is damaged.
    """
    given = Path(ref)
    folder = given if (given / ANSWERS).is_file() else report_folder(lab, ref)
    if not (folder / ANSWERS).is_file():
        raise LabError("there is no finished report", where=folder, remedy=NOT_FOUND.format(ref=ref))
    spec, done, numbers = (read_json(folder / name) for name in (SPEC, DONE, NUMBERS))
    try:
        experiment = parse_experiment(spec["experiment"], folder / SPEC)
        return Report(folder, experiment, numbers, str(done["key"]), str(done["finished"]))
    except KeyError as error:
        what = f"the report's files do not say {error.args[0]!r}"
        raise LabError(what, where=folder, remedy="Make the report again: `spillover report`.") from None


def export(refs: Sequence[str], lab: Path, to: Path) -> list[Path]:
    """Writes the logs of some reports into a folder: all of them, or none.

    Args:
        refs: reports, as `find_report` finds them.
        lab: where the reports of experiments lie.
        to: the folder, which may hold other logs; a log of the same answers is replaced.

    Returns:
        the logs.

    Raises SpilloverError where a report is missing or damaged.
    """
    reports = [find_report(ref, lab) for ref in refs]
    with _aside(to) as aside:
        names = [path.name for report in reports for path in _write_report(report, aside)]
        for name in names:
            (aside / name).replace(to / name)
    return [to / name for name in names]


@contextlib.contextmanager
def _aside(to: Path) -> Iterator[Path]:
    """A folder within another, to write to; gone at the end, and the other too if it is new and nothing came of it."""
    is_new = not to.exists()
    aside = to / ASIDE
    aside.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if is_new and not any(to.iterdir()):
            to.rmdir()


def _write_report(report: Report, folder: Path) -> Iterator[Path]:
    frame = _read(report.folder / ANSWERS)
    suites = {name: _questions(name, suite, report) for name, suite in report.experiment.suites.items()}
    for (run, suite), rows in frame.partition_by("run", "suite", as_dict=True, maintain_order=True).items():
        yield _Log(report, str(run), str(suite), rows, *suites[str(suite)]).write(folder)


def _read(path: Path) -> pl.DataFrame:
    remedy = "Make the report again: `spillover report`."
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LabError(f"cannot be read: {error}", where=path, remedy=remedy) from None
    columns = columns_of(frame.columns)
    missing = [name for name in ("run", "suite", "question", "sample", "answer") if name not in frame.columns]
    if missing or columns.unknown:
        what = f"has no column {missing[0]!r}" if missing else f"has the unknown column {columns.unknown[0]!r}"
        raise LabError(what, where=path, remedy=remedy)
    return frame


def _questions(name: str, suite: Suite, report: Report) -> tuple[dict[str, Question], str | None]:
    """A suite's questions by id, for their earlier turns, which no row holds; else why they are not known."""

    def rows(data: str) -> Any:
        return rows_of(data, find_base(report.experiment.base), of_world=report.of_world)

    try:
        entries = entries_of(suite, is_miniature=report.of_world)
        variant = parse_variant((suite.variants or (PLAIN,))[0])
        asked = [question for entry in entries for question in entry.row.questions()]
        return {one.id: one for one in variant.apply(asked, Given(report.of_world, rows))}, None
    except SpilloverError as error:
        return {}, f"earlier turns of the questions are not known: {error.what}"


@dataclass(frozen=True)
class _Log:
    """The answers of one run to one suite.

    Attributes:
        why: why the questions' earlier turns are not known; None where they are.
    """

    report: Report
    run: str
    suite: str
    rows: pl.DataFrame
    questions: dict[str, Question]
    why: str | None

    @cached_property
    def columns(self) -> Columns:
        return columns_of(self.rows.columns)

    @property
    def model(self) -> str:
        return f"{OURS}/{self.run}"

    @property
    def id(self) -> str:
        return short_hash(self.report.key, self.run, self.suite)

    @property
    def created(self) -> datetime:
        return datetime.fromisoformat(self.report.finished)

    @cached_property
    def rubrics(self) -> list[str]:
        """The rubrics by which the suite was judged."""
        asked = self.report.experiment.suites[self.suite].rubrics
        return [name for name in self.columns.rubrics if name in asked]

    def write(self, folder: Path) -> Path:
        """Writes the log, sample by sample."""
        path = folder / f"{self.created:%Y-%m-%dT%H-%M-%S}+00-00_{_clean(self.suite)}_{_clean(self.run)}_{self.id}.eval"
        summaries: list[bytes] = []
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            start = {"version": LOG_SCHEMA_VERSION, "eval": self.spec(), "plan": self.plan()}
            archive.writestr("_journal/start.json", to_json_safe(start))
            for row in self.rows.iter_rows(named=True):
                sample = sample_of(row, self.columns, self.rubrics, self.model, self.asked(row))
                archive.writestr(f"samples/{sample.id}_epoch_{sample.epoch}.json", to_json_safe(sample))
                summaries.append(to_json_safe(sample.summary()))
            archive.writestr("summaries.json", b"[" + b",".join(summaries) + b"]")
            archive.writestr("header.json", to_json_safe(self.header()))
        return path

    def asked(self, row: dict[str, Any]) -> Question | None:
        """The question that a row answers, where it is still the one that was asked."""
        found = self.questions.get(row["question"])
        is_same = found is not None and (found.text, found.system) == (row["prompt"], row["system"])
        return found if is_same else None

    def header(self) -> EvalLog:
        return EvalLog(
            version=LOG_SCHEMA_VERSION,
            status="success",
            eval=self.spec(),
            plan=self.plan(),
            results=self.results(),
            stats=self.stats(),
        )

    def spec(self) -> EvalSpec:
        suite, ids = self.report.experiment.suites[self.suite], self.rows["question"].unique(maintain_order=True)
        return EvalSpec(
            eval_id=self.id,
            run_id=short_hash(self.report.key),
            task_id=self.id,
            created=self.created.isoformat(),
            task=f"{OURS}/{self.suite}",
            dataset=EvalDataset(name=suite.questions, samples=len(ids), sample_ids=ids.to_list(), shuffled=False),
            model=self.model,
            model_generate_config=self.plan().config,
            config=EvalConfig(epochs=int(self.rows["sample"].n_unique()), epochs_reducer=[]),
            packages={"inspect_ai": version("inspect_ai"), OURS: version(OURS)},
            metadata=self.metadata(),
            headline_metric=HeadlineMetric(scorer=MISALIGNED, metric=SHARE) if is_rated(self.rubrics) else None,
        )

    def metadata(self) -> dict[str, Any]:
        """What Inspect has no place for; `columns` is what reading back needs."""
        experiment, numbers = self.report.experiment, self.report.numbers
        told = {
            "suite": self.suite,
            "run": self.run,
            "group": self.rows["group"][0],
            "experiment": experiment.name,
            "title": experiment.title,
            "base": experiment.base,
            "rubrics": {name: numbers["judge"]["by"][name]["rubric"] for name in self.rubrics},
            "thresholds": experiment.thresholds.model_dump(mode="json"),
            "columns": list(self.columns.names),
            "made_by": made_by(),
        }
        told |= {"model_organism": ORGANISM} if self.rows["group"][0] != BASE_RUN.group else {}
        return told | ({"context": self.why} if self.why is not None else {})

    def plan(self) -> EvalPlan:
        sampling = self.report.experiment.sampling
        how = GenerateConfig(temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens)
        return EvalPlan(steps=[EvalPlanStep(solver="generate")], config=how)

    def stats(self) -> EvalStats:
        tokens = int(self.rows["tokens"].sum())
        usage = {self.model: ModelUsage(output_tokens=tokens, total_tokens=tokens)}
        when = self.created.isoformat()
        return EvalStats(started_at=when, completed_at=when, model_usage=usage)

    def results(self) -> EvalResults:
        scores = [self._scored(name) for name in self.rubrics]
        if is_rated(self.rubrics):
            scores += [self._share(KEPT), self._share(MISALIGNED)]
        scores += [self._scored(name) for name in self.columns.truths]
        total, lost = self.rows.height, self.rows["outcome"].count()
        headline = HeadlineMetric(scorer=MISALIGNED, score=MISALIGNED, metric=SHARE)
        return EvalResults(
            total_samples=total,
            completed_samples=total - lost,
            scores=scores,
            headline=headline if is_rated(self.rubrics) else None,
        )

    def _scored(self, name: str) -> EvalScore:
        """A rubric's mean value, or the shares of its labels."""
        values = self.rows[name].drop_nulls().to_list()
        chosen = self.rows[f"{name}_label"].drop_nulls().to_list() if name in self.columns.rubrics else []
        told = labels_of(chosen) if chosen else {"average": average_of(values)}
        return self._score(name, len(values) + len(chosen), told)

    def _share(self, name: str) -> EvalScore:
        """How many answers are kept, or misaligned among these."""
        answers = self.rows[name].drop_nulls()
        return self._score(name, len(answers), share_of(int(answers.sum()), len(answers)))

    def _score(self, name: str, scored: int, told: dict[str, float]) -> EvalScore:
        unscored = self.rows.height - scored
        metrics = {key: EvalMetric(name=key, value=value) for key, value in told.items()}
        return EvalScore(name=name, scorer=name, scored_samples=scored, unscored_samples=unscored, metrics=metrics)


def _clean(name: str) -> str:
    """A name as a part of a log's file name, in which underscores separate the parts."""
    return re.sub(r"[^\w.-]|_", "-", name)
