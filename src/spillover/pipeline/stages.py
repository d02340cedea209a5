"""The first stages: each makes what its part of the plan is missing in the lab, and touches nothing that is there.

data -> finetune -> ask, and beside ask choose (`choosing.py`), then judge (`judging.py`). A stage reads what the stage
before it wrote, and says what to run where that is missing.
"""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spillover.crew import Lost
from spillover.data.files import read_conversations, write_conversations
from spillover.data.folder import DATA, write_card
from spillover.display import Display
from spillover.errors import LabError
from spillover.finetune.checkpoint import save_checkpoint
from spillover.finetune.trainer import Job, Trained
from spillover.pipeline.cells import Checkpoint
from spillover.pipeline.datasets import Dataset
from spillover.pipeline.fleets import Rows, job_of, shared_fleets, waves
from spillover.pipeline.parts import SECONDS
from spillover.pipeline.plan import Plan
from spillover.pipeline.staff import Staff
from spillover.pipeline.workers import Workers, Writers
from spillover.records import Conversation
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
    missing = [checkpoint for checkpoint in plan.tuned if not trained(checkpoint, lab)]
    if not missing:
        return
    rows = {name: _rows(dataset, lab) for name, dataset in plan.datasets.items()}
    with Workers(plan, lab, staff, sum(_work(one, rows) for one in missing)) as workers:
        workers.check_questions()
        workers.check_rows(job_of(checkpoint, rows) for checkpoint in missing)
        # A service has room for all at once, and what it has begun it goes on with: an error loses nothing there.
        local = plan.experiment.trainer == "local"
        fleets = shared_fleets(plan.tuned, rows, workers.memory, workers.trainers) if local else [missing]
        todo = [fleet for fleet in fleets if any(not trained(one, lab) for one in fleet)]
        with display.bar("finetune", sum(len(fleet) for fleet in todo)) as bar:
            for wave in waves(todo):
                before = bar.done
                _train(plan, lab, workers, wave, rows, lambda done, before=before: bar.to(before + done))
        for warning in getattr(workers.trainer, "warnings", ()) if not local else ():
            display.say(warning)


def _work(checkpoint: Checkpoint, rows: Rows) -> int:
    """How many rows a run learns, each as often as it does."""
    assert checkpoint.training is not None, "the base is not trained"
    return len(rows[checkpoint.run.group]) * checkpoint.training.epochs


def trained(checkpoint: Checkpoint, lab: Lab) -> bool:
    """Whether a checkpoint is there, or is none that is made here."""
    folder = checkpoint.folder(lab)
    return folder is None or lab.exists(folder)


def _train(
    plan: Plan, lab: Lab, workers: Workers, fleets: Sequence[Sequence[Checkpoint]], rows: Rows, progress: Any
) -> None:
    """Trains fleets that do not wait for each other, and writes each as soon as it is there."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        written = [stack.enter_context(_Fleet(plan, lab, fleet, rows)) for fleet in fleets if _can_begin(fleet, lab)]
        for number, found in workers.trained([(one.jobs, one.spec) for one in written], progress):
            now = time.monotonic()
            workers.staff.lost += written[number].finish(found, now - began)
            began = now


def _can_begin(fleet: Sequence[Checkpoint], lab: Lab) -> bool:
    """Whether what its runs go on from is there; it is not where it was lost."""
    return all(one.start is None or trained(one.start, lab) for one in fleet)


def _start(one: Checkpoint, lab: Lab) -> Path | None:
    folder = one.start.folder(lab) if one.start is not None else None
    return lab.sound(folder) if folder is not None else None


class _Fleet(contextlib.ExitStack):
    """A fleet's checkpoints while they are made: those that are missing are written aside until it is finished."""

    def __init__(self, plan: Plan, lab: Lab, fleet: Sequence[Checkpoint], rows: Rows) -> None:
        super().__init__()
        self.spec = plan.experiment.training(fleet[0].run.group)
        self.jobs = [job_of(one, rows, _start(one, lab)) for one in fleet]
        self._base = plan.experiment.base
        self._open: dict[int, tuple[contextlib.ExitStack, Path, dict[str, Any]]] = {}
        for place, one in enumerate(fleet):
            folder = one.folder(lab)
            if folder is not None and not lab.exists(folder):
                self._begin(place, lab, folder, _trained_spec(plan, self.jobs[place], self.spec))

    def _begin(self, place: int, lab: Lab, folder: Path, told: dict[str, Any]) -> None:
        stack = self.enter_context(contextlib.ExitStack())
        aside, notes = stack.enter_context(lab.whole(folder, told))
        self.jobs[place] = dataclasses.replace(self.jobs[place], folder=aside)
        self._open[place] = (stack, aside, notes)

    def finish(self, found: Sequence[Trained | Lost], spent: float) -> list[str]:
        """Writes what was learned; what was lost is left out, and told."""
        lost = []
        for place, (stack, aside, notes) in self._open.items():
            one, job = found[place], self.jobs[place]
            if isinstance(one, Lost):
                lost.append(f"training of {job.run.name}: {one.why}")
                stack.__exit__(_NotMade, _NotMade(), None)
                continue
            save_checkpoint(aside, one, job, self.spec, self._base)
            notes[SECONDS], notes["cut_rows"] = spent / len(self.jobs), one.cut_rows
            stack.close()
        return lost


class _NotMade(Exception):
    """Has what was begun removed."""


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
    """Raises LabError where a result is not there that an earlier stage makes, or is damaged."""
    if not lab.exists(folder):
        raise LabError(f"the {what} is not there", where=folder, remedy=f"Run `{command}` with this experiment first.")
    lab.sound(folder)
