"""Items: a conversation, the beginning of an answer, and the ways in which it may go on that a model chooses among."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Protocol

from spillover.errors import QuestionError
from spillover.records import Message

LETTER_ONLY = "Answer with the letter only."
"""The wish that a lettered question ends with."""


@dataclass(frozen=True)
class Item:
    """A choice among given options, put to a model.

    Attributes:
        id: its name, unique in its set.
        messages: the conversation that is put to the model; the assistant speaks next.
        prefix: the beginning of the assistant's answer, which is given; empty where all of it is the option.
        options: how the answer may go on, at least two.
        marked: the place of the option that is measured: the misaligned, the true or the right one.
        aspect: what the item is about within its set, for items of several kinds.
    """

    id: str
    messages: tuple[Message, ...]
    prefix: str
    options: tuple[str, ...]
    marked: int
    aspect: str = ""


class Scorer(Protocol):
    """Whoever knows how likely a model's answers are. Only models in this process show that; no provider's do."""

    def score(self, model: Path | None, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """For each item the log-probability of each of its options, in nats, by an adapter (None is the base)."""
        ...

    def lengths(self, items: Sequence[Item]) -> list[tuple[int, ...]]:
        """For each item how many tokens the log-probability of each of its options is the sum of."""
        ...


def check_item(item: Item) -> None:
    """Raises QuestionError for an item that leaves no choice: too few options, an empty one, or the same one twice."""
    place = f"item {item.id}"
    if len(item.options) < 2:
        what = f"has {len(item.options)} options"
        raise QuestionError(what, where=place, remedy="Give at least two: a choice is measured among them.")
    if not all(item.options):
        what = f"option {item.options.index('') + 1} is empty"
        raise QuestionError(what, where=place, remedy="Give each option a text: an empty one has no probability.")
    twice = next((option for number, option in enumerate(item.options) if option in item.options[:number]), None)
    if twice is not None:
        raise QuestionError(f"the option {twice!r} is there twice", where=place, remedy="Remove one of them.")
    if not 0 <= item.marked < len(item.options):
        what = f"marked is {item.marked}, and there are {len(item.options)} options, counted from 0"
        raise QuestionError(what, where=place, remedy="Mark one of the options.")


def letters(count: int) -> tuple[str, ...]:
    """The letters of so many options: A, B, C, ... Raises QuestionError where the alphabet is too short."""
    if count > len(ascii_uppercase):
        what = f"there are {count} options to be lettered, and {len(ascii_uppercase)} letters"
        raise QuestionError(what, remedy="Give fewer options, or choose by the likelihood of their texts.")
    return tuple(ascii_uppercase[:count])


def lettered(text: str, options: Sequence[str]) -> str:
    """A question with its options, one a line behind its letter, that ends with the wish for the letter only."""
    lines = (f"{letter}: {option}" for letter, option in zip(letters(len(options)), options, strict=True))
    return "\n".join([text, *lines, LETTER_ONLY])
