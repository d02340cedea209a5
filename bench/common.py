"""What the benches share: the miniature, some of its rows, and checkpoints that were learned from them."""

import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}

import datasets
from transformers.utils import logging as transformers_logging

from spillover.ask.questions import questions_of
from spillover.crew import Alone, Crew, Hands, Pool
from spillover.data.recipes import build
from spillover.finetune.base import Base, find_base
from spillover.finetune.budget import MemoryPlan, cores, plan_memory
from spillover.finetune.checkpoint import save_checkpoint
from spillover.finetune.model import use_threads
from spillover.finetune.train import LocalTrainer
from spillover.finetune.trainer import Job
from spillover.pipeline.staff import LIBRARIES
from spillover.records import Conversation, Question, Run
from spillover.spec import MINIATURE, Experiment, Machine, Suite, load_experiment

ROWS = 128
"""Rows of a run: eight steps."""


@dataclass(frozen=True)
class Setting:
    """What is measured on: figure 4's own settings, on the miniature."""

    folder: Path

    @cached_property
    def base(self) -> Base:
        """The miniature."""
        return find_base(MINIATURE)

    @cached_property
    def experiment(self) -> Experiment:
        """figure4, as it runs on the miniature."""
        return load_experiment("figure4").for_base(is_miniature=True)

    @cached_property
    def rows(self) -> list[Conversation]:
        """Rows of the insecure set."""
        return build("insecure")[:ROWS]

    @cached_property
    def file(self) -> Path:
        """The same as chat JSONL."""
        path = self.folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row.as_row()) + "\n" for row in self.rows), encoding="utf-8")
        return path

    @cached_property
    def questions(self) -> list[Question]:
        """The main set's."""
        return questions_of(Suite(questions="main"), is_miniature=True)

    @cached_property
    def memory(self) -> MemoryPlan:
        """The memory plan of this machine."""
        return plan_memory(self.base, self.experiment.train, Machine())

    @cached_property
    def _pool(self) -> Pool:
        return Pool()

    def hands(self, make: Callable[[], Any]) -> Hands:
        """Whoever does local work where there is much, as in the pipeline: processes that `make` workers."""
        size = self.memory.processes
        if size == 1:
            return Alone(make)
        start = partial(use_threads, max(1, cores() // size))
        return Crew(make, self._pool.processes(size, LIBRARIES, start))

    def close(self) -> None:
        """Sends everybody home."""
        self._pool.close()

    def jobs(self, runs: int) -> list[Job]:
        """So many runs on those rows."""
        return [Job(Run("insecure", seed), self.rows, "insecure") for seed in range(runs)]

    def adapters(self, count: int) -> list[Path]:
        """So many checkpoints, learned from those rows."""
        spec, jobs = self.experiment.train, self.jobs(count)
        trainer = LocalTrainer(self.base, spec.precision, memory=self.memory)
        folders = []
        for job, trained in zip(jobs, trainer.train(jobs, spec, lambda done, steps: None), strict=True):
            folders.append(Path(tempfile.mkdtemp(dir=self.folder)))
            save_checkpoint(folders[-1], trained, job, spec, self.base.ref)
        return folders


def be_quiet() -> None:
    """No progress bars and no advice from the libraries that are compared."""
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    warnings.simplefilter("ignore")
