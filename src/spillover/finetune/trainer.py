"""The seam of finetuning: who trains, and what is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spillover.finetune.fleet import Trained
from spillover.records import Conversation, Run
from spillover.spec import Training

Progress = Callable[[int, int], None]


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
