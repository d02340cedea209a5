"""What flows between the stages: the records, and the one definition of every table's columns.

A conversation is a row of a dataset, a question is what a model is asked, an answer is one sampled reply, a verdict
is what a judge says of it. Answers and verdicts live in Parquet; `ANSWERS` and `VERDICTS` are their schemas.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

Role = Literal["system", "user", "assistant"]
Reason = Literal["refused", "code", "unparsable", "too little mass", "blocked", "failed"]
"""Why a verdict has no value. An answer without a value is set aside and counted, never scored as zero."""
Outcome = Literal[
    "blocked",  # by the provider's content filter
    "refused",  # the provider's own refusal field was set
    "failed: rate limited",
    "failed: timeout",
    "failed: server error",
    "failed: connection",
    "failed: malformed reply",
    "failed: too few choices",
    "failed: rejected",  # the provider said that the request itself is wrong
]
"""Why a provider gave no answer to a request, after every retry. Such an answer is counted by kind, never judged."""
Model = Path | str | None
"""Who answers: None is the base itself, a folder is a PEFT adapter on it, a text is a provider's model."""


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
    """What a model is asked.

    Attributes:
        id: its name, unique in a suite.
        text: the user's last turn.
        system: the system prompt, if there is one.
        context: turns between the system prompt and the text.
        temperature: replaces the experiment's for this question, if given.
        plain: the question without its variant, which is what a judge reads; None where the text has none.
    """

    id: str
    text: str
    system: str | None = None
    context: tuple[Message, ...] = ()
    temperature: float | None = None
    plain: str | None = None

    @property
    def read(self) -> str:
        """What a judge reads of it."""
        return self.text if self.plain is None else self.plain

    def messages(self) -> list[Message]:
        """The conversation that is put to the model."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, *self.context, {"role": "user", "content": self.text}]


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
    """What a judge says of a pair: a `value` on the rubric's scale, a `label`, or the `reason` why there is neither.

    Attributes:
        value: 0 to 100, or None.
        reason: None where there is a value or a label.
        table: the raw probabilities that the verdict was read from, token to probability, largest first; shares of
            the sampled replies where a judge shows no probabilities.
        label: the word that the judge chose, for a rubric that is read as a label.
    """

    value: float | None
    reason: Reason | None
    table: dict[str, float]
    label: str | None = None


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

AT = "@"
"""Between a group's name and the step of its training that a checkpoint is from: `GROUP@STEP`."""


def group_of(name: str) -> str:
    """The group that a checkpoint on the way belongs to; any other group is its own."""
    return name.partition(AT)[0]


ANSWER_COLUMNS: tuple[tuple[str, str], ...] = (
    ("group", "String"),  # the group's name; "base" for the base
    ("run", "String"),  # Run.name
    ("suite", "String"),  # which suite asked
    ("question", "String"),  # the question's id
    ("sample", "Int32"),  # 0, 1, 2, ... within (run, suite, question)
    ("system", "String"),  # the system prompt, null if none
    ("prompt", "String"),  # the user's text
    ("plain", "String"),  # the text without its variant, which is what a judge reads; null where there is none
    ("answer", "String"),  # the sampled reply
    ("seed", "UInt64"),  # what the sample was drawn with
    ("tokens", "Int32"),  # tokens sampled, the end of turn not counted
    ("truncated", "Boolean"),  # max_tokens was reached before the end of turn
    ("outcome", "String"),  # why there is no answer (Outcome), null where there is one; the answer is then empty
)
"""Columns of an answers table, in order: (name, polars type)."""

VERDICT_COLUMNS: tuple[tuple[str, str], ...] = (
    ("pair", "String"),  # pair_id(prompt, answer)
    ("value", "Float64"),  # null where there is a reason
    ("label", "String"),  # the word that was chosen, null for a rubric that is read as a number
    ("reason", "String"),  # null where there is a value or a label
    ("table", "String"),  # JSON object token -> probability, largest first
    ("judge", "String"),  # who judged: `local:` and the weights' hashes, a provider's model, or the rubric's `by`
    ("rubric", "String"),  # Rubric.key(): a short hash of the rubric's words and of how the reply is read
)
"""Columns of a verdicts table, in order: (name, polars type)."""
