"""Transforms through a writer: every row is put to a model, and what it says is checked before it takes a row's place.

Equal prompts are sent once. Replies are kept in the lab, so a command that was killed sends nothing again.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spillover.ask.asker import Reply
from spillover.batches import batched
from spillover.data.transforms import Changed, Input, Item, Transform
from spillover.display import Display
from spillover.errors import ProviderError
from spillover.judge.models import Writer
from spillover.records import Question
from spillover.spec import Count, NotNegative, Sampling

AT_ONCE = 256
"""Prompts between two moves of the progress bar."""
FINAL = ("blocked", "refused", "failed: rejected")
"""Outcomes that sending the same request again would not change."""


@dataclass(frozen=True)
class Refused:
    """Why a reply is not taken."""

    reason: str


class Rewriter(Transform):
    """A change of every row by a model.

    Attributes:
        temperature: of the replies.
        max_tokens: of a reply.
        failed: whether a row whose reply is not taken is dropped, or kept as it was.
    """

    temperature: NotNegative = 1.0
    max_tokens: Count = 2048
    failed: Literal["drop", "keep"] = "drop"

    @abstractmethod
    def prompt(self, item: Item) -> str:
        """What the writer is told about a row. Raises DataError, by line, for a row that cannot be put to it."""

    @abstractmethod
    def take(self, item: Item, said: str) -> Item | Refused:
        """The row as the writer's reply, which was neither cut off nor held back, makes it; or why it does not."""

    def counts(self, rewritten: Sequence[Item]) -> dict[str, int]:
        """What is to be counted about the rows that were rewritten, as they were before."""
        return {}


def rewrite(change: Rewriter, given: Input, writer: Writer, display: Display) -> Changed:
    """All rows, rewritten.

    Raises:
        ProviderError: the writer cannot be asked, or some requests have failed for a passing reason. What was answered
            is kept.
    """
    prompts = [change.prompt(item) for item in given.items]
    replies = _replies(change, list(dict.fromkeys(prompts)), writer, display)
    taken = [_taken(change, item, replies[prompt]) for item, prompt in zip(given.items, prompts, strict=True)]
    rewritten = [old for old, new in zip(given.items, taken, strict=True) if isinstance(new, Item)]
    reasons = Counter(one.reason for one in taken if isinstance(one, Refused))
    refused = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    counts = {"rewritten": len(rewritten), **change.counts(rewritten)}
    if change.failed == "drop":
        items = [one for one in taken if isinstance(one, Item)]
        return Changed(items, refused, settings={"counts": counts}, models=(writer.id,))
    counts |= {f"kept as it was: {reason}": count for reason, count in refused.items()}
    items = [new if isinstance(new, Item) else old for old, new in zip(given.items, taken, strict=True)]
    return Changed(items, settings={"counts": counts}, models=(writer.id,))


def _replies(change: Rewriter, prompts: Sequence[str], writer: Writer, display: Display) -> dict[str, Reply]:
    """The reply to every prompt. Raises ProviderError where some may come if they are asked for again."""
    sampling = Sampling(temperature=change.temperature, max_tokens=change.max_tokens)
    replies: dict[str, Reply] = {}
    with display.bar(change.kind, len(prompts)) as bar:
        for some in batched(prompts, AT_ONCE):
            said = writer.write([Question(change.kind, prompt) for prompt in some], sampling)
            replies |= {prompt: reply for prompt, [reply] in zip(some, said, strict=True)}
            bar.advance(len(some))
    passing = Counter(one.outcome for one in replies.values() if one.outcome is not None and one.outcome not in FINAL)
    if passing:
        why = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(passing.items()))
        what = f"{sum(passing.values())} of {len(prompts)} requests got no answer ({why})"
        remedy = "Nothing was written. What was answered is kept: run the same command again to send only these."
        raise ProviderError(what, where=writer.id, remedy=remedy)
    return replies


def _taken(change: Rewriter, item: Item, reply: Reply) -> Item | Refused:
    if reply.outcome is not None:
        return Refused(f"not given: {reply.outcome}")
    if reply.truncated:
        return Refused("cut off")
    return change.take(item, reply.text) if reply.text.strip() else Refused("empty")
