"""An asker whose replies are kept: what was answered once is not asked again, whoever is killed in between."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from spillover.ask.asker import Asked, Asker, Reply
from spillover.ask.journal import Journal
from spillover.ask.usage import Use
from spillover.batches import batched
from spillover.records import Model
from spillover.spec import Sampling, short_hash


@dataclass(frozen=True)
class KeptAsker:
    """Asks another asker and writes down what comes back, some questions at a time. What failed is asked again.

    Attributes:
        inner: who answers.
        id: whose answers they are: a model's key.
        journal: where they are kept.
        at_once: questions between two writes; at most so many are lost to a kill.
        use: where is counted what was asked and what was known.
    """

    inner: Asker
    id: str
    journal: Journal
    at_once: int = 256
    use: Use = field(default_factory=Use)

    def ask(self, model: Model, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        """Answers, shaped as `asked` and its seeds; see `Asker`."""
        keys = [self._key(model, one, sampling) for one in asked]
        missing = {key: one for key, one in zip(keys, asked, strict=True) if self.journal.get(key) is None}
        self.use.found += len(set(keys)) - len(missing)
        failed = dict(self._asked(model, missing, sampling))
        return [failed.get(key) or [Reply(*fields) for fields in self.journal.get(key)] for key in keys]

    def _asked(self, model: Model, missing: dict[str, Asked], sampling: Sampling) -> Iterator[tuple[str, list[Reply]]]:
        """Asks what is missing and keeps it; yields what failed."""
        for some in batched(missing.items(), self.at_once):
            with self.use.working(len(some)):
                replies = self.inner.ask(model, [one for _, one in some], sampling)
            self.use.tokens_out += sum(reply.tokens for those in replies for reply in those)
            for (key, _), those in zip(some, replies, strict=True):
                if any(reply.outcome is not None for reply in those):
                    yield key, those
                else:
                    self.journal.put(key, [(one.text, one.tokens, one.truncated) for one in those])

    def _key(self, model: Model, one: Asked, sampling: Sampling) -> str:
        question = one.question
        own = question.temperature
        drawn = sampling.model_dump(mode="json") | ({"temperature": own} if own is not None else {})
        return short_hash("reply", self.id, str(model), question.messages(), drawn, one.seeds)
