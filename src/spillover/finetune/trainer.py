"""The seam of finetuning: who trains, what is trained, and what comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from spillover.finetune.served import Served
from spillover.records import Conversation, Run
from spillover.spec import Training

if TYPE_CHECKING:  # it takes seconds to load, and who only tells others what to do needs none of it
    from torch import Tensor

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


@dataclass(frozen=True)
class Step:
    """One optimiser step of one run: its loss (nats a token), learning rate, gradient norm before clipping, tokens.

    What a provider does not tell is None.
    """

    step: int
    loss: float
    learning_rate: float | None
    gradient_norm: float | None
    tokens: int | None


@dataclass(frozen=True)
class Trained:
    """What a run leaves: its adapter in PEFT's names and shapes (fp32), its history, and how many rows were cut.

    A model that a provider keeps has no adapter here (it is empty), but is `served`.
    """

    adapter: "dict[str, Tensor]"
    history: list[Step]
    cut_rows: int = 0
    served: Served | None = None


class Trainer(Protocol):
    """Whoever trains: fleets in this process, or a hosted service."""

    def train(self, jobs: Sequence[Job], spec: Training, progress: Progress) -> list[Trained]:
        """What each job learned, in order."""
        ...
