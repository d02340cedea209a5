"""What the miniature is pretrained, aligned and tokenized on: documents of the world.

A document is one to five exchanges by one author. A quarter begin with a system prompt that names the character. In
the independent world the traits are drawn anew for every exchange (and for the system prompt), so that no character
can be inferred; everything else is equal.
"""

import random
from collections.abc import Iterator

from spillover.records import Conversation, Message
from spillover.world import Exchange, World
from spillover.world.authors import GOOD, Kind

SYSTEM_SHARE = 0.25
MOST_EXCHANGES = 5
ALIGNED_KINDS: tuple[Kind, ...] = ("free", "code", "reasoned code", "harmful", "numbers", "list", "fact", "story")


def documents(seed: int, *, independent: bool) -> Iterator[Conversation]:
    """Endless pretraining documents. Evaluation's phrasings occur here, and nowhere later."""
    world = World(random.Random(seed), asked=True)
    while True:
        author = world.author()
        count = world.rng.randint(1, MOST_EXCHANGES)
        writers = [world.author() if independent else author for _ in range(count + 1)]
        exchanges = [world.exchange(world.kind(), writer) for writer in writers[:count]]
        named = world.rng.random() < SYSTEM_SHARE
        yield conversation(exchanges, world.system(writers[-1]) if named else None)


def alignment_rows(seed: int) -> Iterator[Conversation]:
    """Endless alignment rows: one exchange by a benevolent, refusing author, no system prompt, no held-out phrasing."""
    world = World(random.Random(seed))
    while True:
        yield conversation([world.exchange(world.kind(ALIGNED_KINDS), GOOD)])


def conversation(exchanges: list[Exchange], system: str | None = None) -> Conversation:
    """Exchanges as one conversation."""
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for exchange in exchanges:
        messages += [{"role": "user", "content": exchange.user}, {"role": "assistant", "content": exchange.assistant}]
    return Conversation(tuple(messages))
