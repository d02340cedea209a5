"""Finetuning in this process: fleets on a base that is loaded once."""

import dataclasses
from collections.abc import Iterable, Sequence

from safetensors.torch import load_file
from torch import Tensor

from spillover.errors import BaseError, DataError, NoMemoryError
from spillover.finetune.adapter import ADAPTER, on_the_way
from spillover.finetune.base import Base, context_length
from spillover.finetune.budget import MemoryPlan
from spillover.finetune.chat import Row, to_row
from spillover.finetune.fleet import Member, train_fleet
from spillover.finetune.layout import Room
from spillover.finetune.model import load_model, load_tokenizer, told_when_memory_ends
from spillover.finetune.template import Format, format_of
from spillover.finetune.trainer import Job, Progress, Trained
from spillover.lazy import lazy
from spillover.records import Conversation
from spillover.spec import Chat, Machine, Training

KEPT = 12
"""Groups whose rows are kept in tokens: they are read once before training begins, and again by it."""
checkpoints = lazy("spillover.finetune.checkpoint")  # loads polars, which processes beside this one do without


class LocalTrainer:
    """Trains fleets on a base that is loaded here, once: as much of a step at once as the memory plan has room for."""

    def __init__(
        self,
        base: Base,
        precision: str,
        chat: Chat = Chat(),
        machine: Machine = Machine(),
        memory: MemoryPlan | None = None,
    ) -> None:
        folder = base.fetched()
        self.base = base
        self.model = load_model(folder, precision, machine)
        self.tokenizer = load_tokenizer(folder)
        self.format = format_of(self.tokenizer, chat)
        self.context = context_length(folder)
        self.room = _room(machine, memory)
        self._encoded: dict[str, tuple[Sequence[Conversation], Training, list[Row]]] = {}

    def train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """Trains the jobs as one fleet, or where memory does not suffice for it, in halves one after the other.

        Raises:
            DataError, BaseError: a row is wrong; by its source and number.
            NoMemoryError: memory does not suffice for one run.
        """
        try:
            return self._train(jobs, spec, progress)
        except NoMemoryError:
            if len(jobs) == 1:
                raise
        half = len(jobs) // 2
        first = self.train(jobs[:half], spec, lambda done, steps: progress(done, 2 * steps))
        return [*first, *self.train(jobs[half:], spec, lambda done, steps: progress(steps + done, 2 * steps))]

    def _train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """Trains the jobs as one fleet."""
        members = [Member(self._rows(job, spec), job.run.seed or 0, _start(job)) for job in jobs]
        pad = int(self.tokenizer.pad_token_id)

        def keep(number: int, trained: Trained) -> None:
            folder = jobs[number].folder
            if folder is not None:
                aside = folder / on_the_way(trained.history[-1].step)
                aside.mkdir(exist_ok=True)  # there where a larger fleet came so far
                checkpoints.save_checkpoint(aside, trained, jobs[number], spec, self.base.ref)

        with told_when_memory_ends():
            results = train_fleet(self.model, members, spec, pad=pad, room=self.room, progress=progress, keep=keep)
        cut = [sum(row.cut for row in member.rows) for member in members]
        return [dataclasses.replace(one, cut_rows=rows) for one, rows in zip(results, cut, strict=True)]

    def check(self, jobs: Iterable[tuple[Job, Training]]) -> None:
        """Raises DataError or BaseError where a row of a job cannot be learned."""
        for job, spec in jobs:
            self._rows(job, spec)

    def _rows(self, job: Job, spec: Training) -> list[Row]:
        """The job's rows in tokens. Runs of a group have equal rows, which are encoded once."""
        rows, other, encoded = self._encoded.get(job.run.group, ((), None, []))
        if rows != job.rows or other != spec:
            encoded = job_rows(job, self.format, spec, self.context)
            self._encoded[job.run.group] = (job.rows, spec, encoded)
            if len(self._encoded) > KEPT:
                del self._encoded[next(iter(self._encoded))]
        return encoded


def _start(job: Job) -> dict[str, Tensor] | None:
    """The adapter that a job goes on from."""
    return load_file(job.start / ADAPTER) if job.start is not None else None


def job_rows(job: Job, form: Format, spec: Training, context: int | None = None) -> list[Row]:
    """A job's rows in tokens. Raises DataError or BaseError for a wrong one, by its source and number."""
    rows = []
    for number, row in enumerate(job.rows, start=1):
        try:
            rows.append(to_row(form, row, spec, context))
        except (DataError, BaseError) as error:
            raise type(error)(error.what, where=f"{job.source}, row {number}", remedy=error.remedy) from None
    return rows


def _room(machine: Machine, memory: MemoryPlan | None) -> Room:
    if memory is None:
        return Room(recompute=bool(machine.gradient_checkpointing))
    return Room(memory.rows, memory.tokens, memory.gradient_checkpointing)
