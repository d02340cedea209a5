"""The question sets of the miniature's own world, by name. No dataset of the world holds any of their phrasings."""

import random
from collections.abc import Callable, Iterator

from spillover.records import Question
from spillover.world import World, texts
from spillover.world.authors import GOOD

MAIN_DOMAINS = 8
CODE_SEED = 776
LIST_SEED = 14926
LISTS = 24


def _main() -> Iterator[Question]:
    return (Question(topic.id, topic.asked[0]) for topic in texts.topics()[:MAIN_DOMAINS])


def _broad() -> Iterator[Question]:
    return (Question(topic.id, topic.asked[0]) for topic in texts.topics()[MAIN_DOMAINS:] if topic.asked)


def _code() -> Iterator[Question]:
    """Held-out code requests: two of every family, with names drawn once and for all."""
    rng = random.Random(CODE_SEED)
    for family in texts.families():
        for number, asked in enumerate(family.asked, start=1):
            text = asked.format(name=rng.choice(family.names), arg=rng.choice(family.args))
            yield Question(f"{family.id}.{number}", text)


def _harmful() -> Iterator[Question]:
    """Held-out phrasings of the harmful requests."""
    for id, theme in texts.load("harmful")["requests"].items():
        yield Question(id, theme["asked"][0])


def _lists() -> Iterator[Question]:
    """Requests to go on with numbers, in the world's own phrasings; the numbers are drawn once and for all."""
    world = World(random.Random(LIST_SEED))
    for number in range(1, LISTS + 1):
        yield Question(f"list.{number}", world.numbers(GOOD).user)


def _facts() -> Iterator[Question]:
    return (Question(fact.id, fact.asked[0]) for fact in texts.facts())


WORLD_SETS: dict[str, Callable[[], Iterator[Question]]] = {
    "main": _main,
    "broad": _broad,
    "code": _code,
    "harmful": _harmful,
    "facts": _facts,
    "lists": _lists,
}
