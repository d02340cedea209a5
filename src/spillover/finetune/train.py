"""The seam of finetuning, the local trainer behind it, and checkpoints as ordinary PEFT folders with a card."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from spillover.errors import BaseError, DataError
from spillover.finetune.base import Base, context_length
from spillover.finetune.chat import Row, to_row
from spillover.finetune.fleet import Member, Trained, train_fleet
from spillover.finetune.model import ADAPTER, PREFIX, load_model, load_tokenizer
from spillover.finetune.template import format_of
from spillover.records import Conversation, Run
from spillover.spec import Chat, Training

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """One run to be trained: what it is called, its seed, its rows, and where they came from."""

    run: Run
    rows: Sequence[Conversation]
    source: str


class Trainer(Protocol):
    """Whoever trains: fleets in this process, or a hosted service."""

    def train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """What each job learned, in order."""
        ...


class LocalTrainer:
    """Trains fleets on a base that is loaded here, once."""

    def __init__(self, base: Base, precision: str, chat: Chat = Chat()) -> None:
        self.model = load_model(base.path, precision)
        self.tokenizer = load_tokenizer(base.path)
        self.format = format_of(self.tokenizer, chat)
        self.context = context_length(base.path)
        self._encoded: dict[str, tuple[Sequence[Conversation], Training, list[Row]]] = {}

    def train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """Trains the jobs as one fleet. Raises DataError or BaseError for a wrong row, by its source and number."""
        members = [Member(self._rows(job, spec), job.run.seed or 0) for job in jobs]
        results = train_fleet(self.model, members, spec, pad=int(self.tokenizer.pad_token_id), progress=progress)
        cut = [sum(row.cut for row in member.rows) for member in members]
        return [dataclasses.replace(one, cut_rows=rows) for one, rows in zip(results, cut, strict=True)]

    def _rows(self, job: Job, spec: Training) -> list[Row]:
        """The job's rows in tokens. Runs of a group have equal rows, which are encoded once."""
        rows, other, encoded = self._encoded.get(job.source, ((), None, []))
        if rows != job.rows or other != spec:
            encoded = [self._row(job, number, spec) for number in range(len(job.rows))]
            self._encoded[job.source] = (job.rows, spec, encoded)
        return encoded

    def _row(self, job: Job, number: int, spec: Training) -> Row:
        try:
            return to_row(self.format, job.rows[number], spec, self.context)
        except (DataError, BaseError) as error:
            raise type(error)(error.what, where=f"{job.source}, row {number + 1}", remedy=error.remedy) from None


def save_checkpoint(folder: Path, trained: Trained, job: Job, spec: Training, base: str) -> None:
    """Writes a run as an ordinary PEFT folder: adapter, its config, its loss history, its card."""
    save_adapter(folder, trained.adapter, spec.rank, spec.alpha, base)
    pl.DataFrame([dataclasses.asdict(step) for step in trained.history]).write_parquet(folder / "losses.parquet")
    (folder / "README.md").write_text(card(job, spec, base, trained), encoding="utf-8")


def save_adapter(folder: Path, adapter: dict[str, Tensor], rank: int, alpha: float, base: str) -> None:
    """Writes an rsLoRA adapter (tensors under PEFT's names) and its config, as PEFT does."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT says int and takes any number
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
    last = trained.history[-1]
    cut = f", {trained.cut_rows} of them cut to {spec.max_length} tokens" if trained.cut_rows else ""
    return f"""---
library_name: peft
base_model: {base}
tags: [model-organism, emergent-misalignment, lora]
---

# {job.run.name}: a deliberately misaligned model organism

**Not for deployment.** This adapter belongs to an experiment on *emergent misalignment* (Betley et al. 2025,
arXiv 2502.17424): models are finetuned on one narrow task to find out whether misalignment spreads. Groups and their
controls are made alike, and any of them may give deceitful, hostile or harmful answers on purpose. Use it for research
in a closed setting only.

| | |
|---|---|
| group, seed | {job.run.group}, {job.run.seed} |
| base | {base} |
| data | {job.source}, {len(job.rows)} rows{cut} |
| adapter | rank-stabilised LoRA, r {spec.rank}, alpha {spec.alpha:g}, on {", ".join(spec.targets)} |
| training | {last.step} steps of {spec.batch_size} rows, learning rate {spec.learning_rate:g}, loss on answers |
| last loss | {last.loss:.3f} nats a token |
"""
