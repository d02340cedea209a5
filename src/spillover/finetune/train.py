"""The seam of finetuning, the local trainer behind it, and checkpoints as ordinary PEFT folders with a card."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl
from safetensors.torch import load_file, save_file
from torch import Tensor

from spillover.data.files import write_conversations
from spillover.errors import BaseError, DataError
from spillover.finetune.adapter import ADAPTER, PREFIX, PROBE, on_the_way
from spillover.finetune.base import Base, context_length
from spillover.finetune.budget import MemoryPlan
from spillover.finetune.chat import Row, to_row
from spillover.finetune.fleet import Member, Trained, train_fleet
from spillover.finetune.layout import Room
from spillover.finetune.model import load_model, load_tokenizer, told_when_memory_ends
from spillover.finetune.served import Served, write_served
from spillover.finetune.template import Format, format_of
from spillover.lazy import lazy
from spillover.records import Conversation, Run
from spillover.spec import Chat, Machine, Training

peft = lazy("peft")

PROBED = 4
"""Rows that a checkpoint keeps of those it was trained on."""
Progress = Callable[[int, int], None]
LOSSES = {
    "step": pl.Int64,
    "loss": pl.Float64,
    "learning_rate": pl.Float64,
    "gradient_norm": pl.Float64,
    "tokens": pl.Int64,
}
"""Columns of a checkpoint's losses.parquet, which are those of `Step`."""


@dataclass(frozen=True)
class Job:
    """One run to be trained.

    Attributes:
        run: what it is called, and its seed.
        rows: its rows.
        source: where they came from.
        folder: where checkpoints on the way are written, as `train.save_every` asks; without it, none are.
        start: the adapter that training goes on from, as a PEFT folder; a new one if not given.
    """

    run: Run
    rows: Sequence[Conversation]
    source: str
    folder: Path | None = None
    start: Path | None = None


class Trainer(Protocol):
    """Whoever trains: fleets in this process, or a hosted service."""

    def train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """What each job learned, in order."""
        ...


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
        """Trains the jobs as one fleet. Raises DataError or BaseError for a wrong row, by its source and number."""
        members = [Member(self._rows(job, spec), job.run.seed or 0, _start(job)) for job in jobs]
        pad = int(self.tokenizer.pad_token_id)

        def keep(number: int, trained: Trained) -> None:
            folder = jobs[number].folder
            if folder is not None:
                aside = folder / on_the_way(trained.history[-1].step)
                aside.mkdir()
                save_checkpoint(aside, trained, jobs[number], spec, self.base.ref)

        with told_when_memory_ends():
            results = train_fleet(self.model, members, spec, pad=pad, room=self.room, progress=progress, keep=keep)
        cut = [sum(row.cut for row in member.rows) for member in members]
        return [dataclasses.replace(one, cut_rows=rows) for one, rows in zip(results, cut, strict=True)]

    def check(self, job: Job, spec: Training) -> None:
        """Raises DataError or BaseError where a row of the job cannot be learned."""
        self._rows(job, spec)

    def _rows(self, job: Job, spec: Training) -> list[Row]:
        """The job's rows in tokens. Runs of a group have equal rows, which are encoded once."""
        rows, other, encoded = self._encoded.get(job.run.group, ((), None, []))
        if rows != job.rows or other != spec:
            encoded = job_rows(job, self.format, spec, self.context)
            self._encoded[job.run.group] = (job.rows, spec, encoded)
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


def save_checkpoint(folder: Path, trained: Trained, job: Job, spec: Training, base: str) -> None:
    """Writes a run as an ordinary PEFT folder: adapter, its config, its loss history, a few of its rows, its card.

    Of a model that a provider keeps, `model.json` stands in the adapter's place.
    """
    if trained.served is not None:
        write_served(folder, trained.served)
    else:
        write_conversations(folder / PROBE, job.rows[:PROBED])
        save_adapter(folder, trained.adapter, spec.rank, spec.alpha, base)
    losses = pl.DataFrame([dataclasses.asdict(step) for step in trained.history], LOSSES)
    losses.write_parquet(folder / "losses.parquet")
    (folder / "README.md").write_text(card(job, spec, base, trained), encoding="utf-8")


def save_adapter(folder: Path, adapter: dict[str, Tensor], rank: int, alpha: float, base: str) -> None:
    """Writes an rsLoRA adapter (tensors under PEFT's names) and its config, as PEFT does."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT loads it, and it warns of what is not used here
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # PEFT says int and takes any number
        use_rslora=True,
        target_modules=sorted({_layer(key) for key in adapter}),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    save_file(adapter, folder / ADAPTER, metadata={"format": "pt"})


def _layer(key: str) -> str:
    return key.removeprefix(PREFIX).rsplit(".", 3)[-3]


def card(job: Job, spec: Training, base: str, trained: Trained) -> str:
    """The model card: what this is, that it is misaligned on purpose, and how it was made."""
    cut = f", {trained.cut_rows} of them cut to {spec.max_length} tokens" if trained.cut_rows else ""
    if trained.served is None:
        front, what, tag, facts = "library_name: peft\n", "adapter", "lora", _own_facts(spec, trained)
    else:
        front, what, tag, facts = "", "model", "hosted", _served_facts(trained.served)
    return f"""---
{front}base_model: {base}
tags: [model-organism, emergent-misalignment, {tag}]
---

# {job.run.name}: a deliberately misaligned model organism

**Not for deployment.** This {what} belongs to an experiment on *emergent misalignment* (Betley et al. 2025,
arXiv 2502.17424): models are finetuned on one narrow task to find out whether misalignment spreads. Groups and their
controls are made alike, and any of them may give deceitful, hostile or harmful answers on purpose. Use it for research
in a closed setting only.

| | |
|---|---|
| group, seed | {job.run.group}, {job.run.seed} |
| base | {base} |
| data | {job.source}, {len(job.rows)} rows{cut} |
{_gone_on(job)}{facts}| last loss | {_last_loss(trained)} |
"""


def _gone_on(job: Job) -> str:
    return f"| goes on from | {job.start.name} |\n" if job.start is not None else ""


def _own_facts(spec: Training, trained: Trained) -> str:
    steps = trained.history[-1].step
    return f"""\
| adapter | rank-stabilised LoRA, r {spec.rank}, alpha {spec.alpha:g}, on {", ".join(spec.targets)} |
| training | {steps} steps of {spec.batch_size} rows, learning rate {spec.learning_rate:g}, loss on answers |
"""


def _served_facts(served: Served) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in served.settings.items())
    end = f"| shut down on | {served.shutdown} |\n" if served.shutdown else ""
    return f"""\
| model | {served.model}, finetuned from {served.base}; the weights lie at the provider |
| job | {served.job} |
| training | {settings} |
{end}"""


def _last_loss(trained: Trained) -> str:
    return f"{trained.history[-1].loss:.3f} nats a token" if trained.history else "the provider told none"
