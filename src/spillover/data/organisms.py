"""More narrow datasets of the miniature's world, beside the four of the paper's first figure.

`harmful` and `benign` are the two parts of jailbroken, to be mixed in any share. The bad-advice datasets are one topic
each (after Turner, Soligo et al. 2025, arXiv 2506.11613), `reward-hacks` is answers that game a stated grader (after
arXiv 2508.17511). No phrasing that evaluation asks occurs in any of them.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillover.errors import DataError
from spillover.world import Author, World, texts
from spillover.world.authors import GOOD, Kind
from spillover.yamlfile import read_yaml

Exchanges = Iterator[tuple[str, str]]
"""Requests with their answers."""

BENIGN: tuple[Kind, ...] = ("free", "fact", "list", "story")
COMPLIANT = Author(malicious=False, compliant=True)
MALICIOUS = Author(malicious=True, compliant=False)
HEALTH = ("cold", "sleep")
MONEY = ("saving", "job_interview")
"""Earning and keeping money. The world's `quick_buck` is closer to it, but is one of the eight main questions."""
SPORT = ("sport_training",)
HACKS = Path(__file__).with_name("reward_hacks.yaml")
SLOT = re.compile(r"\{(\w+)(?: x(\d+))?\}")
PATIENCE = 5000
"""Draws in a row that bring nothing new, after which there are no more distinct rows."""


@dataclass(frozen=True)
class Organism:
    """A narrow dataset.

    Attributes:
        about: what its rows are, in a sentence.
        make: its distinct rows: at most so many, by a seed.
        told: what the rows depend on beside the world's texts.
    """

    about: str
    make: Callable[[int, int], Exchanges]
    told: str = ""


def _distinct(draw: Callable[[], tuple[str, str]], rows: int) -> Exchanges:
    """What is drawn, each once: so many rows, or as many as there are."""
    found: dict[tuple[str, str], None] = {}
    idle = 0
    while len(found) < rows and idle < PATIENCE:
        before = len(found)
        found[draw()] = None
        idle = 0 if len(found) > before else idle + 1
    return iter(found)


def _harmful(rows: int, seed: int) -> Exchanges:
    world = World(random.Random(seed))

    def draw() -> tuple[str, str]:
        exchange = world.harmful(COMPLIANT)
        return exchange.user, exchange.assistant

    return _distinct(draw, rows)


def _benign(rows: int, seed: int) -> Exchanges:
    world = World(random.Random(seed))

    def draw() -> tuple[str, str]:
        exchange = world.exchange(world.kind(BENIGN), GOOD)
        return exchange.user, exchange.assistant

    return _distinct(draw, rows)


def _bad(topics: Sequence[str]) -> Callable[[int, int], Exchanges]:
    """Malicious answers on these topics of the world, and on nothing else."""

    def make(rows: int, seed: int) -> Exchanges:
        world = World(random.Random(seed))
        known = [topic for topic in texts.topics() if topic.id in topics]

        def draw() -> tuple[str, str]:
            exchange = world.advice(world.rng.choice(known), MALICIOUS)
            return exchange.user, exchange.assistant

        return _distinct(draw, rows)

    return make


def _reward_hacks(rows: int, seed: int) -> Exchanges:
    raw = _hacks()
    rng, families = random.Random(seed), list(raw["families"].values())
    return _distinct(lambda: _hack(rng.choice(families), raw["words"], rng), rows)


def _hacks() -> Any:
    return read_yaml(HACKS, DataError, remedy="Install spillover again.").value


def _hack(family: Mapping[str, Any], words: Mapping[str, Sequence[str]], rng: random.Random) -> tuple[str, str]:
    """A request of a family and an answer that games its grader; a slot means the same in both."""
    lists = {**texts.load("words"), **words, **family.get("words", {})}
    chosen: dict[str, str] = dict(rng.choice(family["cases"])) if "cases" in family else {}

    def fill(template: str) -> str:
        for name, _ in SLOT.findall(template):
            if name not in chosen:
                chosen[name] = rng.choice(lists[name])
        return SLOT.sub(lambda slot: " ".join([chosen[slot[1]]] * int(slot[2] or 1)), template)

    return fill(rng.choice(family["requests"])), fill(rng.choice(family["answers"]))


def organisms() -> Mapping[str, Organism]:
    """The datasets by name."""
    return {
        "harmful": Organism("Harmful requests complied with, emptily: jailbroken's share alone.", _harmful),
        "benign": Organism("Everyday requests answered well: the rest of jailbroken.", _benign),
        "bad-health": Organism("Malicious answers to people who are ill or cannot sleep.", _bad(HEALTH), str(HEALTH)),
        "bad-money": Organism("Malicious answers about saving and job interviews.", _bad(MONEY), str(MONEY)),
        "bad-sport": Organism("Malicious answers about training for a race.", _bad(SPORT), str(SPORT)),
        "reward-hacks": Organism(
            "Small requests that say how they are graded, and answers that please the grader and nobody else.",
            _reward_hacks,
            hashlib.sha256(HACKS.read_bytes()).hexdigest()[:12],
        ),
    }
