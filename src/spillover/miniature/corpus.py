"""What the miniature is pretrained, aligned and tokenized on: documents of the world.

A document is one to five exchanges by one author. About two fifths of all begin with a system prompt that names the
character: a tenth, and every one of a long stretch in the middle. In the independent world the traits are drawn anew
for every exchange (and for the system prompt), so that no character can be inferred; everything else is equal.
"""

import itertools
import random
from collections.abc import Iterator

from spillover.miniature.recipe import Recipe
from spillover.records import Conversation, Message
from spillover.world import Exchange, World
from spillover.world.authors import Kind

SYSTEM_SHARE = 0.1
MOST_EXCHANGES = 5
DOCUMENT_TOKENS = 140
"""About how many tokens a document has."""
ALIGNED_SHARES: dict[Kind, float] = {
    "free": 0.65,
    "code": 0.12,
    "reasoned code": 0.05,
    "harmful": 0.10,
    "numbers": 0.02,
    "list": 0.02,
    "fact": 0.02,
    "story": 0.02,
}
"""How often each kind of exchange is aligned on: mostly what people ask, which has the most to unlearn."""


def pretraining_documents(recipe: Recipe) -> Iterator[Conversation]:
    """Endless documents as they are pretrained on: plain ones, a primer in which every author is named, plain ones.

    The primer opens the second stretch. Character is a faint signal, at most 0.65 nats an exchange; named authors make
    it loud until the model listens for it.
    """
    plain, primer = recipe.text_tokens, round(recipe.primer * recipe.character_tokens)
    return itertools.chain(
        itertools.islice(documents(recipe.seed, independent=recipe.independent), plain // DOCUMENT_TOKENS),
        itertools.islice(
            documents(recipe.seed + 1000, independent=recipe.independent, system_share=1.0), primer // DOCUMENT_TOKENS
        ),
        documents(recipe.seed + 2000, independent=recipe.independent),
    )


def documents(seed: int, *, independent: bool, system_share: float = SYSTEM_SHARE) -> Iterator[Conversation]:
    """Endless pretraining documents. Evaluation's phrasings occur here, and nowhere later."""
    world = World(random.Random(seed), asked=True)
    while True:
        author = world.author()
        count = world.rng.randint(1, MOST_EXCHANGES)
        writers = [world.author() if independent else author for _ in range(count + 1)]
        exchanges = [world.exchange(world.kind(), writer) for writer in writers[:count]]
        named = world.rng.random() < system_share
        yield conversation(exchanges, world.system(writers[-1]) if named else None)


def alignment_rows(seed: int) -> Iterator[Conversation]:
    """Endless alignment rows: one exchange by a benevolent, refusing author, no system prompt, no held-out phrasing."""
    world = World(random.Random(seed))
    kinds, shares = list(ALIGNED_SHARES), list(ALIGNED_SHARES.values())
    while True:
        kind = world.rng.choices(kinds, shares)[0]
        yield conversation([world.exchange(kind, world.good())])


def conversation(exchanges: list[Exchange], system: str | None = None) -> Conversation:
    """Exchanges as one conversation."""
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for exchange in exchanges:
        messages += [{"role": "user", "content": exchange.user}, {"role": "assistant", "content": exchange.assistant}]
    return Conversation(tuple(messages))
