"""The stages: each makes what its part of the plan is missing in the lab, and touches nothing that is there.

data -> finetune -> ask -> judge. A stage reads what the stage before it wrote, and says what to run where that is
missing.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from spillover.crew import Staff
from spillover.data.files import read_conversations, write_conversations
from spillover.data.folder import DATA, write_card
from spillover.display import Display
from spillover.errors import LabError
from spillover.finetune.checkpoint import save_checkpoint
from spillover.finetune.trainer import Job, Trainer
from spillover.judge.judge import Judge
from spillover.judge.make import id_of
from spillover.judge.rubrics import Rubric
from spillover.measure.table import READ
from spillover.pipeline.cells import Checkpoint
from spillover.pipeline.datasets import Dataset
from spillover.pipeline.fleets import Rows, fleets_of, job_of
from spillover.pipeline.judged import answer_batches
from spillover.pipeline.parts import (
    FAILED,
    PART,
    SECONDS,
    parts,
    schema,
    verdict_frame,
    write_rows,
)
from spillover.pipeline.plan import Plan
from spillover.pipeline.workers import Workers, Writers
from spillover.records import VERDICT_COLUMNS, Conversation, Pair, pair_id
from spillover.spec import Training
from spillover.store import Lab


def make_data(plan: Plan, lab: Lab, display: Display) -> None:
    """Writes every group's rows as chat JSONL."""
    missing = [d for d in plan.datasets.values() if not lab.exists(d.folder(lab))]
    with contextlib.ExitStack() as stack:
        writer_of = Writers(lab, plan.experiment, stack)
        for dataset in display.track("data", missing):
            began = time.monotonic()
            made = dataset.known if dataset.is_there else dataset.made(writer_of)
            spec = {"group": dataset.group, "source": dataset.source, "key": dataset.key, "rows": len(made.rows)}
            with lab.whole(dataset.folder(lab), spec) as (folder, notes):
                write_conversations(folder / DATA, made.rows)
                write_card(folder, made.manifest)
                notes[SECONDS] = time.monotonic() - began


def finetune(plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    """Trains every run whose checkpoint is missing, in fleets of one group each, or of small groups with like rows.

    A fleet is trained whole if any of its members is missing, so that its company, and with it the last bit of every
    weight, does not depend on when an earlier attempt was interrupted.
    """
    missing = [checkpoint for checkpoint in plan.tuned if not _trained(checkpoint, lab)]
    if not missing:
        return
    rows = {name: _rows(dataset, lab) for name, dataset in plan.datasets.items()}
    with Workers(plan, lab, staff, sum(_work(one, rows) for one in missing)) as workers:
        workers.check_questions()
        workers.check_rows(job_of(checkpoint, rows) for checkpoint in missing)
        # A service has room for all at once, and what it has begun it goes on with: an error loses nothing there.
        local = plan.experiment.trainer == "local"
        fleets = fleets_of(plan.tuned, rows, plan.memory.fleet * plan.memory.processes) if local else [missing]
        todo = [fleet for fleet in fleets if any(not _trained(one, lab) for one in fleet)]
        with display.bar("finetune", sum(len(fleet) for fleet in todo)) as bar:
            for fleet in todo:
                _train_fleet(plan, lab, workers.trainer, fleet, rows, bar.within(len(fleet)))
        for warning in getattr(workers.trainer, "warnings", ()):
            display.say(warning)


def _work(checkpoint: Checkpoint, rows: Rows) -> int:
    """How many rows a run learns, each as often as it does."""
    assert checkpoint.training is not None, "the base is not trained"
    return len(rows[checkpoint.run.group]) * checkpoint.training.epochs


def _trained(checkpoint: Checkpoint, lab: Lab) -> bool:
    folder = checkpoint.folder(lab)
    return folder is None or lab.exists(folder)


def _train_fleet(
    plan: Plan, lab: Lab, trainer: Trainer, fleet: Sequence[Checkpoint], rows: Rows, progress: Any
) -> None:
    began, spec = time.monotonic(), plan.experiment.training(fleet[0].run.group)
    jobs = [job_of(one, rows, one.start.folder(lab) if one.start is not None else None) for one in fleet]
    with contextlib.ExitStack() as stack:
        open_jobs: dict[int, tuple[Path, dict[str, Any]]] = {}
        for place, checkpoint in enumerate(fleet):
            folder = checkpoint.folder(lab)
            if folder is not None and not lab.exists(folder):
                told = _trained_spec(plan, jobs[place], spec)
                open_jobs[place] = stack.enter_context(lab.whole(folder, told))
                jobs[place] = dataclasses.replace(jobs[place], folder=open_jobs[place][0])
        results = trainer.train(jobs, spec, progress)
        each = (time.monotonic() - began) / len(fleet)
        for place, (aside, notes) in open_jobs.items():
            save_checkpoint(aside, results[place], jobs[place], spec, plan.experiment.base)
            notes[SECONDS] = each
            notes["cut_rows"] = results[place].cut_rows


def _trained_spec(plan: Plan, job: Job, spec: Training) -> dict[str, Any]:
    return {
        "run": job.run.name,
        "base": plan.base.key,
        "commit": plan.base.commit,
        "data": job.source,
        "trainer": plan.experiment.trainer,
        "train": spec.model_dump(mode="json"),
        "goes_on_from": job.start.name if job.start is not None else None,
        "chat": plan.experiment.chat.model_dump(mode="json"),
    }


def _rows(dataset: Dataset, lab: Lab) -> list[Conversation]:
    need(lab, dataset.folder(lab), "dataset", "spillover train")
    return read_conversations(dataset.folder(lab) / DATA)


def need(lab: Lab, folder: Path, what: str, command: str) -> None:
    """Raises LabError where a result is not there that an earlier stage makes."""
    if not lab.exists(folder):
        raise LabError(f"the {what} is not there", where=folder, remedy=f"Run `{command}` with this experiment first.")


def answers(plan: Plan, lab: Lab) -> pl.DataFrame:
    """Every answer that the plan wants, in the order of its cells.

    Raises LabError where some were not asked yet.
    """
    return pl.concat(answer_batches(plan, lab))


def judge(plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    """Judges every (question, answer) pair that has no verdict yet, by each rubric of its suite; equal pairs once."""
    asked = answers(plan, lab)
    todo = {name: unjudged(plan, lab, asked, rubric) for name, rubric in plan.rubrics.items()}
    total = sum(len(pairs) for pairs in todo.values())
    if not total:
        return
    with Workers(plan, lab, staff, total) as workers, display.bar("judge", total) as bar:
        for name, pairs in todo.items():
            for block in _blocks(pairs):
                _judge_part(plan, lab, workers.judge(plan.rubrics[name]), plan.rubrics[name], block)
                bar.advance(len(block))


def _blocks(pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    return (pairs[start : start + PART] for start in range(0, len(pairs), PART))


def unjudged(plan: Plan, lab: Lab, asked: pl.DataFrame, rubric: Rubric) -> list[Pair]:
    """The different pairs that the rubric's suites hold and that have no verdict, or one that failed; in order."""
    suites = [name for name, suite in plan.experiment.suites.items() if rubric.name in suite.rubrics]
    given = asked.filter(pl.col("suite").is_in(suites), pl.col("outcome").is_null())
    wanted = given.select(READ, "answer").unique(maintain_order=True)
    there = set(verdicts(plan, lab, rubric).filter(pl.col("reason").ne_missing(FAILED))["pair"])
    return [Pair(q, a) for q, a in wanted.iter_rows() if pair_id(q, a) not in there]


def _judge_part(plan: Plan, lab: Lab, judge: Judge, rubric: Rubric, pairs: Sequence[Pair]) -> None:
    began = time.monotonic()
    found = judge.judge(pairs, rubric)
    by = id_of(judge, plan.judge) if rubric.by == "model" and plan.judge is not None else rubric.by
    frame = verdict_frame(pairs, found, by, rubric)
    spec = {"rubric": rubric.model_dump(mode="json"), "judge": by}
    folder = plan.verdict_folder(lab, rubric)
    name = f"part-{len(parts(folder)):06d}.parquet"
    with lab.part(folder, name, spec) as aside:
        write_rows(aside, frame, time.monotonic() - began, frame.filter(pl.col("reason") == FAILED).height)


def verdicts(plan: Plan, lab: Lab, rubric: Rubric) -> pl.DataFrame:
    """A rubric's verdicts that are in the lab: of this experiment's answers and of any others' by the same judge.

    A pair that was judged again, since the judge had failed, is there once: with the later verdict.
    """
    frames = [pl.read_parquet(path) for path in parts(plan.verdict_folder(lab, rubric))]
    found = pl.concat(frames) if frames else pl.DataFrame(schema=schema(VERDICT_COLUMNS))
    return found.unique("pair", keep="last", maintain_order=True)
