"""A writer whose replies must say something: what cannot be read is asked for again with another seed, and counted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from spillover.ask.asker import Reply
from spillover.batches import batched
from spillover.judge.models import Writer
from spillover.records import Question
from spillover.spec import Sampling

T = TypeVar("T")
AT_ONCE = 128
"""Questions between two steps of the progress."""
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Written(Generic[T]):
    """What came of a question: what its reply says, or why there is nothing (an outcome, or `unreadable`)."""

    value: T | None
    why: str = ""


@dataclass
class Scribe:
    """Asks a writer until its replies can be read.

    Attributes:
        writer: who writes.
        sampling: how.
        tries: how often a question is asked, each time with a seed of its own, until its reply can be read.
        tell: is told how many questions are done.
        unreadable: replies that could not be read, by what was asked (the first word of the question's id).
        example: the beginning of the first of them.
    """

    writer: Writer
    sampling: Sampling
    tries: int
    tell: Callable[[int], None]
    unreadable: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def write(
        self, questions: Sequence[Question], read: Callable[[Reply], T | None], max_tokens: int
    ) -> list[Written[T]]:
        """What the replies say, in order. A question's id is what seeds its replies: let it be its own.

        Raises ProviderError where the model cannot be asked at all.
        """
        found: list[Written[T]] = []
        for some in batched(questions, AT_ONCE):
            found += self._some(some, read, self.sampling.model_copy(update={"max_tokens": max_tokens}))
            self.tell(len(some))
        return found

    def _some(
        self, questions: Sequence[Question], read: Callable[[Reply], T | None], sampling: Sampling
    ) -> list[Written[T]]:
        found: dict[int, Written[T]] = {}
        missing = dict(enumerate(questions))
        for attempt in range(self.tries):
            again = [replace(one, id=f"{one.id}~{attempt}") for one in missing.values()]
            replies = [reply for (reply,) in self.writer.write(again, sampling)]
            found |= {
                at: self._read(again, reply, read) for at, again, reply in zip(missing, again, replies, strict=True)
            }
            missing = {at: one for at, one in missing.items() if found[at].why == UNREADABLE}
            if not missing:
                break
        return [found[at] for at in range(len(questions))]

    def _read(self, question: Question, reply: Reply, read: Callable[[Reply], T | None]) -> Written[T]:
        if reply.outcome is not None:
            return Written(None, reply.outcome)
        value = read(reply)
        if value is None:
            self.unreadable[question.id.split(" ")[0]] += 1
            self.example = self.example or reply.text[:80]
        return Written(value, UNREADABLE if value is None else "")
