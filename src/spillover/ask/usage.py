"""What asking models came to in this process: requests sent, tries that failed, tokens, seconds, and what was known."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from spillover.records import Outcome


@dataclass
class Use:
    """What one model was asked.

    Attributes:
        sent: requests that went to a provider: new tries, and those that find out what a model can do, included.
        failed: of those, the tries that brought no reply, by kind.
        found: requests or verdicts that were known already, and were not asked for.
        asked: texts that a local model wrote, and verdicts that it gave.
        tokens_in: tokens of the prompts, as the provider counts them.
        tokens_out: tokens of the replies: as the provider counts them, or as a local model wrote them.
        seconds: that a local model worked.
    """

    sent: int = 0
    failed: Counter[Outcome] = field(default_factory=Counter)
    found: int = 0
    asked: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0

    @contextmanager
    def working(self, texts: int) -> Iterator[None]:
        """Counts the time of the block, in which a local model writes or judges so many texts."""
        start = perf_counter()
        try:
            yield
            self.asked += texts
        finally:
            self.seconds += perf_counter() - start


@dataclass
class Usage:
    """What every model was asked, by its name."""

    models: dict[str, Use] = field(default_factory=dict)

    def of(self, model: str) -> Use:
        """What this model was asked; it is counted on in there."""
        return self.models.setdefault(model, Use())
