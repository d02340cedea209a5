"""The seam of asking: who answers, and how the seed of every answer is made."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spillover.records import Question
from spillover.spec import Sampling


@dataclass(frozen=True)
class Asked:
    """A question and the seeds of the answers that are wanted."""

    question: Question
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Reply:
    """One sampled answer as text, its length in tokens, and whether max_tokens cut it."""

    text: str
    tokens: int
    truncated: bool


class Asker(Protocol):
    """Whoever answers questions: a model in this process, or a provider."""

    def ask(self, checkpoint: Path | None, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        """Answers by a checkpoint of the base (None is the base itself), shaped as `asked` and its seeds."""
        ...


def answer_seed(run_key: str, question: Question, sample: int) -> int:
    """The seed of one answer, 63 bits: it depends on the run, the question and the sample's number alone."""
    text = json.dumps([run_key, question.id, question.system, question.text, sample])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
