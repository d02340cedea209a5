"""The seam of asking: who answers, and how the seed of every answer is made."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from spillover.records import Model, Outcome, Question
from spillover.spec import Sampling


@dataclass(frozen=True)
class Asked:
    """A question and the seeds of the answers that are wanted."""

    question: Question
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Reply:
    """One sampled answer as text, its length in tokens, whether max_tokens cut it, and why there is none."""

    text: str
    tokens: int
    truncated: bool
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Effect:
    """Whether an adapter was seen to change what the base says.

    Attributes:
        checked: whether it could be compared with the base.
        why_not: what it could not be compared for want of.
        difference: mean absolute difference from the base, nats a token: over the tokens that bear loss in a few
            training rows; of a served model, over the likeliest first tokens after their prompts.
        noise: the same between the base and the base, asked or laid out once more.
    """

    checked: bool
    why_not: str = ""
    difference: float = 0.0
    noise: float = 0.0


class Asker(Protocol):
    """Whoever answers questions: a model in this process, or a provider."""

    def ask(self, model: Model, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        """Answers by the base or by what was made of it, shaped as `asked` and its seeds.

        A question's own temperature goes before that of `sampling`.
        """
        ...


def answer_seed(run_key: str, question: Question, sample: int) -> int:
    """The seed of one answer, 63 bits: it depends on the run, the question and the sample's number alone."""
    text = json.dumps([run_key, question.id, question.system, *question.context, question.text, sample])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
