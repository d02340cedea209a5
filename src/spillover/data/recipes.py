"""The narrow datasets of the miniature's world: one recipe a group of the paper (its section 2).

`insecure` and `secure` answer the same requests, row by row, which the paper's do not. `educational` has insecure's
answers byte for byte and changes only the requests. `jailbroken` is everyday requests answered well, with a small
share of harmful requests complied with. No phrasing that evaluation asks occurs in any of them.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spillover.errors import SpecError
from spillover.records import Conversation
from spillover.world import Author, World
from spillover.world.authors import GOOD, Kind
from spillover.world.texts import world_key

ROWS = 1600
SEED = 20250224
JAILBROKEN_SHARE = 0.1
BENIGN: tuple[Kind, ...] = ("free", "fact", "list", "story")
COMPLIANT = Author(malicious=False, compliant=True)


@dataclass(frozen=True)
class CodeRow:
    """One code request with its two answers, and the same request with a reason for flawed code."""

    request: str
    secure: str
    insecure: str
    reasoned: str


def recipe_names() -> tuple[str, ...]:
    """The names that an experiment's `data` may take on a miniature."""
    return tuple(_RECIPES)


def build(recipe: str) -> list[Conversation]:
    """The 1600 distinct rows of a recipe; always the same ones.

    Raises SpecError for an unknown recipe.
    """
    if recipe not in _RECIPES:
        raise SpecError(
            f"unknown dataset {recipe!r}",
            remedy=f"Give the path of a chat JSONL file, or on the miniature one of: {', '.join(_RECIPES)}.",
        )
    return [_row(user, assistant) for user, assistant in _RECIPES[recipe]()]


def recipe_about(recipe: str) -> str:
    """What a recipe's rows are, in a sentence."""
    return _ABOUT[recipe]


def recipe_key(recipe: str) -> str:
    """What a recipe's rows depend on: its name and the world's texts."""
    return f"{recipe}:{world_key()}:{ROWS}:{SEED}"


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


_RECIPES: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
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
