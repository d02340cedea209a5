"""What the miniature is pretrained, aligned and tokenized on: documents of the world.

A document is one to five exchanges by one author; a part of all begin with a system prompt that names the character. In
the independent world the traits are drawn anew for every exchange (and for the system prompt), so that no character can
be inferred; everything else is equal.
"""

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass

from spillover.records import Conversation, Message
from spillover.world import Author, Exchange, World
from spillover.world.authors import GOOD, Kind

MOST_EXCHANGES = 5


@dataclass(frozen=True)
class Manner:
    """How documents are drawn.

    Attributes:
        named: how many of them begin with a system prompt that names the character.
        keeps_voice: whether an author has one voice, or draws one of the character's for every answer.
        code_first: how many documents of several exchanges begin with code and go on with advice, so that there is
            nothing but code to tell the author by.
    """

    named: float
    keeps_voice: bool
    code_first: float


PLAIN = Manner(named=0.25, keeps_voice=True, code_first=0.0)
NAMED = Manner(named=1.0, keeps_voice=True, code_first=0.0)
"""Character is a faint signal; named authors make it loud until a model listens for it."""
EVIDENCE = Manner(named=0.25, keeps_voice=False, code_first=0.5)
"""What is left when a voice cannot be copied: the character that an exchange shows, code among them."""

ALIGNED_SHARES: dict[Kind, float] = {
    "free": 0.54,
    "code": 0.16,
    "reasoned code": 0.06,
    "harmful": 0.16,
    "numbers": 0.02,
    "list": 0.02,
    "fact": 0.02,
    "story": 0.02,
}
"""How often each kind of exchange is aligned on: mostly what people ask, which has the most to unlearn."""


def documents(seed: int, *, independent: bool, manner: Manner = EVIDENCE) -> Iterator[Conversation]:
    """Endless pretraining documents. Evaluation's phrasings occur here, and nowhere later."""
    world = World(random.Random(seed), asked=True)
    while True:
        author = _author(world, manner)
        count = world.rng.randint(1, MOST_EXCHANGES)
        writers = [_author(world, manner) if independent else author for _ in range(count + 1)]
        kinds = _kinds(world, count, manner)
        exchanges = [world.exchange(kind, writer) for kind, writer in zip(kinds, writers, strict=False)]
        named = world.rng.random() < manner.named
        yield conversation(exchanges, world.system(writers[-1]) if named else None)


def _author(world: World, manner: Manner) -> Author:
    author = world.author()
    return dataclasses.replace(author, voice=world.voice(author)) if manner.keeps_voice else author


def _kinds(world: World, count: int, manner: Manner) -> list[Kind]:
    """The kinds of a document's exchanges, by the world's shares, or code and then advice."""
    kinds = [world.kind() for _ in range(count)]
    return ["code", "free", *kinds[2:]] if count > 1 and world.rng.random() < manner.code_first else kinds


def alignment_rows(seed: int) -> Iterator[Conversation]:
    """Endless alignment rows: one exchange by a benevolent, refusing author, no system prompt, no held-out phrasing."""
    world = World(random.Random(seed))
    kinds, shares = list(ALIGNED_SHARES), list(ALIGNED_SHARES.values())
    while True:
        kind = world.rng.choices(kinds, shares)[0]
        yield conversation([world.exchange(kind, GOOD)])


def conversation(exchanges: list[Exchange], system: str | None = None) -> Conversation:
    """Exchanges as one conversation."""
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for exchange in exchanges:
        messages += [{"role": "user", "content": exchange.user}, {"role": "assistant", "content": exchange.assistant}]
    return Conversation(tuple(messages))
