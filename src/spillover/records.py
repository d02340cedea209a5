"""What flows between the stages: the records, and the one definition of every table's columns.

A conversation is a row of a dataset, a question is what a model is asked, an answer is one sampled reply, a verdict
is what a judge says of it. Answers and verdicts live in Parquet; `ANSWERS` and `VERDICTS` are their schemas.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal, TypedDict

Role = Literal["system", "user", "assistant"]
Reason = Literal["refused", "code", "unparsable", "too little mass", "failed"]
"""Why a verdict has no value. An answer without a value is set aside and counted, never scored as zero."""


ALL_QUESTIONS = "all"
"""What tables call all questions of a run together; no question may be called so."""


class Message(TypedDict):
    """One turn of a conversation, as in the chat fine-tuning format."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """One row of a dataset: its turns in order. At least one of them is the assistant's."""

    messages: tuple[Message, ...]

    def as_row(self) -> dict[str, list[Message]]:
        """The row as it stands in a chat JSONL file."""
        return {"messages": list(self.messages)}


@dataclass(frozen=True)
class Question:
    """What a model is asked: an id, the user's text, and a system prompt if there is one."""

    id: str
    text: str
    system: str | None = None

    def messages(self) -> list[Message]:
        """The conversation that is put to the model."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, {"role": "user", "content": self.text}]


@dataclass(frozen=True)
class Pair:
    """A question's text and an answer: what a judge sees. Equal pairs are judged once."""

    question: str
    answer: str

    @property
    def id(self) -> str:
        """A stable name of the pair (128 bits of SHA-256, in hexadecimal)."""
        return pair_id(self.question, self.answer)


def pair_id(question: str, answer: str) -> str:
    """The stable name of a (question, answer) pair: 128 bits of SHA-256 in hexadecimal."""
    return hashlib.sha256(f"{len(question)}:{question}{answer}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a pair: a `value` on the rubric's scale, or the `reason` why there is none.

    Attributes:
        value: 0 to 100, or None.
        reason: None where there is a value.
        table: the raw probabilities that the verdict was read from, token to probability, largest first.
    """

    value: float | None
    reason: Reason | None
    table: dict[str, float]


@dataclass(frozen=True, order=True)
class Run:
    """One finetuned model: a group and a seed. The unit of replication of every statistic. The base has no seed."""

    group: str
    seed: int | None

    @property
    def name(self) -> str:
        """`insecure-s3`; the base is `base`."""
        return self.group if self.seed is None else f"{self.group}-s{self.seed}"


BASE_RUN = Run("base", None)
"""The base model without any adapter. Its group is called `base`."""

ANSWER_COLUMNS: tuple[tuple[str, str], ...] = (
    ("group", "String"),  # the group's name; "base" for the base
    ("run", "String"),  # Run.name
    ("suite", "String"),  # which suite asked
    ("question", "String"),  # the question's id
    ("sample", "Int32"),  # 0, 1, 2, ... within (run, suite, question)
    ("system", "String"),  # the system prompt, null if none
    ("prompt", "String"),  # the user's text
    ("answer", "String"),  # the sampled reply
    ("seed", "UInt64"),  # what the sample was drawn with
    ("tokens", "Int32"),  # tokens sampled, the end of turn not counted
    ("truncated", "Boolean"),  # max_tokens was reached before the end of turn
)
"""Columns of an answers table, in order: (name, polars type)."""

VERDICT_COLUMNS: tuple[tuple[str, str], ...] = (
    ("pair", "String"),  # pair_id(prompt, answer)
    ("value", "Float64"),  # null where there is a reason
    ("reason", "String"),  # null where there is a value
    ("table", "String"),  # JSON object token -> probability, largest first
)
"""Columns of a verdicts table, in order: (name, polars type)."""
