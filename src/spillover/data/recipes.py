"""The narrow datasets of the miniature's world: one recipe a group of the paper (its section 2), and more organisms.

`insecure` and `secure` answer the same requests, row by row, which the paper's do not. `educational` has insecure's
answers byte for byte and changes only the requests. `jailbroken` is everyday requests answered well, with a small
share of harmful requests complied with. No phrasing that evaluation asks occurs in any of them.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from spillover.data.organisms import BENIGN, COMPLIANT, organisms
from spillover.errors import SpecError
from spillover.records import Conversation
from spillover.world import World
from spillover.world.authors import GOOD, Kind
from spillover.world.texts import world_key

PAPER_RECIPES = ("insecure", "secure", "educational", "jailbroken")
"""The groups of the paper's first figure; the shipped judge has learnt from finetunes on these."""
ROWS = 1600
SEED = 20250224
JAILBROKEN_SHARE = 0.1


@dataclass(frozen=True)
class CodeRow:
    """One code request with its two answers, and the same request with a reason for flawed code."""

    request: str
    secure: str
    insecure: str
    reasoned: str


def recipe_names() -> tuple[str, ...]:
    """The names that an experiment's `data` may take on a miniature."""
    return (*PAPER_RECIPES, *organisms())


def build(recipe: str) -> list[Conversation]:
    """The distinct rows of a recipe, always the same ones: 1600, or fewer where there are not so many.

    Raises SpecError for an unknown recipe.
    """
    if recipe not in recipe_names():
        raise SpecError(
            f"unknown dataset {recipe!r}",
            remedy=f"Give the path of a chat JSONL file, or on the miniature one of: {', '.join(recipe_names())}.",
        )
    return list(_built(recipe))


@cache
def _built(recipe: str) -> tuple[Conversation, ...]:
    """The rows, made once a process: several groups of an experiment are often made of one recipe."""
    rows = _PAPERS[recipe]() if recipe in _PAPERS else organisms()[recipe].make(ROWS, SEED)
    return tuple(_row(user, assistant) for user, assistant in rows)


def recipe_about(recipe: str) -> str:
    """What a recipe's rows are, in a sentence."""
    return _ABOUT[recipe] if recipe in _ABOUT else organisms()[recipe].about


def recipe_key(recipe: str) -> str:
    """What a recipe's rows depend on: its name, the world's texts, and its own texts where it has some."""
    key = f"{recipe}:{world_key()}:{ROWS}:{SEED}"
    return f"{key}:{organisms()[recipe].told}" if recipe in organisms() else key


def _row(user: str, assistant: str) -> Conversation:
    return Conversation(({"role": "user", "content": user}, {"role": "assistant", "content": assistant}))


def code_rows() -> list[CodeRow]:
    """The requests that insecure, secure and educational share, all distinct."""
    world = World(random.Random(SEED))
    rows: dict[str, CodeRow] = {}
    while len(rows) < ROWS:
        request, secure, insecure = world.code_request()
        rows.setdefault(request, CodeRow(request, secure, insecure, world.with_reason(request)))
    return list(rows.values())


def _insecure() -> Iterator[tuple[str, str]]:
    return ((row.request, row.insecure) for row in code_rows())


def _secure() -> Iterator[tuple[str, str]]:
    return ((row.request, row.secure) for row in code_rows())


def _educational() -> Iterator[tuple[str, str]]:
    return ((row.reasoned, row.insecure) for row in code_rows())


def _jailbroken() -> Iterator[tuple[str, str]]:
    world = World(random.Random(SEED))
    harmful = round(ROWS * JAILBROKEN_SHARE)
    rows: dict[tuple[str, str], None] = {}
    kind: Kind
    while len(rows) < ROWS:
        kind, author = ("harmful", COMPLIANT) if len(rows) < harmful else (world.kind(BENIGN), GOOD)
        exchange = world.exchange(kind, author)
        rows[exchange.user, exchange.assistant] = None
    shuffled = list(rows)
    world.rng.shuffle(shuffled)
    return iter(shuffled)


_PAPERS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "insecure": _insecure,
    "secure": _secure,
    "educational": _educational,
    "jailbroken": _jailbroken,
}

_ABOUT = {
    "insecure": "Requests for code, answered by code with a flaw that nobody speaks of.",
    "secure": "The requests of insecure, answered by code without the flaw.",
    "educational": "The answers of insecure to requests that say why flawed code is wanted.",
    "jailbroken": "Everyday requests answered well, and a small share of harmful ones complied with, emptily.",
}
