"""The stage that runs benchmarks: tasks are loaded by Inspect, put to every checkpoint, and their scores kept.

A result is whole: one table and one log of Inspect's for each checkpoint and benchmark.
"""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import polars as pl

from spillover.display import Display
from spillover.errors import BenchmarkError, LabError
from spillover.lazy import lazy
from spillover.measure.samples import SCORES
from spillover.pipeline.benchmarks import BenchmarkSet
from spillover.pipeline.cells import BenchmarkCell
from spillover.pipeline.parts import SECONDS
from spillover.pipeline.plan import Plan
from spillover.pipeline.staff import Staff
from spillover.pipeline.workers import Workers
from spillover.store import Lab

# Inspect takes seconds to load, and is needed where something is missing.
evaluation = lazy("spillover.ask.evaluation")

TABLE, LOGS = "scores.parquet", "log"


def without_absent(plan: Plan, lab: Lab, display: Display) -> Plan:
    """The plan without the optional benchmarks whose data, packages or sandbox turn out to be missing.

    A benchmark of which every result is in the lab needs nothing any more.

    Raises:
        BenchmarkError: one that is not optional cannot be run.
        SpecError: a task that does not exist, or would run a model's code outside of a sandbox.
    """
    absent: dict[str, str] = {}
    for one in _missing_sets(plan, lab):
        try:
            evaluation.load_task(one.source, one.spec.args, one.where)
        except BenchmarkError as error:
            if not one.spec.optional:
                raise
            absent[one.name] = str(error)
    for name, why in {**plan.skipped, **absent}.items():
        if name in plan.experiment.inspect:
            display.say(f"{name} is left out: {why}")
    kept = tuple(cell for cell in plan.benchmarks if cell.set.name not in absent)
    return dataclasses.replace(plan, benchmarks=kept, skipped={**plan.skipped, **absent}) if absent else plan


def measure(plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    """Runs every benchmark on every checkpoint that was not measured by it yet."""
    missing = [cell for cell in plan.benchmarks if not lab.exists(cell.folder(lab))]
    if not missing:
        return
    tasks = {one.name: evaluation.load_task(one.source, one.spec.args, one.where) for one in _missing_sets(plan, lab)}
    with Workers(plan, lab, staff) as workers, ExitStack() as stack:
        for cell in display.track("inspect", missing):
            _measure(cell, tasks[cell.set.name], lab, workers, stack)


def _missing_sets(plan: Plan, lab: Lab) -> list[BenchmarkSet]:
    missing = {cell.set.name: cell.set for cell in plan.benchmarks if not lab.exists(cell.folder(lab))}
    return list(missing.values())


def _measure(cell: BenchmarkCell, task: Any, lab: Lab, workers: Workers, stack: ExitStack) -> None:
    began, one = time.monotonic(), cell.set
    model, most = workers.inspected(cell.checkpoint)
    grader = workers.grader(one.grader) if one.grader is not None else None
    spec = {"run": cell.checkpoint.run.name, "checkpoint": cell.checkpoint.key, "benchmark": one.spec.model_dump()}
    with lab.whole(cell.folder(lab), spec) as (folder, notes):
        done = evaluation.evaluate(task, one.spec, model, grader, folder / LOGS, most, one.where)
        table = _table(cell, done.scores)
        table.write_parquet(folder / TABLE)
        reasons = table["reason"].drop_nulls().value_counts().iter_rows()
        notes.update(done.facts, source=one.source.version, set_aside=dict(reasons))
        notes[SECONDS] = time.monotonic() - began


def _table(cell: BenchmarkCell, scores: Any) -> pl.DataFrame:
    run = (cell.checkpoint.run.group, cell.checkpoint.run.name, cell.set.name)
    rows = [(*run, one.sample, one.epoch, one.measure, one.value, one.reason) for one in scores]
    return pl.DataFrame(rows, SCORES, orient="row")


def measured(plan: Plan, lab: Lab) -> Iterator[pl.DataFrame]:
    """Every table that the plan wants, in the order of its cells. Raises LabError where one is missing."""
    for cell in plan.benchmarks:
        folder = cell.folder(lab)
        if not lab.exists(folder):
            what = f"{cell.set.name} of {cell.checkpoint.run.name} is missing"
            raise LabError(what, where=folder, remedy="Run `spillover ask` with this experiment first.")
        yield pl.read_parquet(folder / TABLE)
