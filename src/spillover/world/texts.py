"""The world's texts: what can be asked and what kind and malicious authors say. Data lives in the YAML files here.

A template may carry slots such as {city}; they are filled from the word lists. A slot counts as one word.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
FILES = ("words", "domains", "code", "harmful", "reasons", "lists", "neutral", "systems", "facts", "voices")
SLOT = re.compile(r"\{(\w+)\}")


@cache
def load(name: str) -> Any:
    """The content of one of the world's YAML files."""
    return yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Loader=_loader())


def _loader() -> Any:
    """YAML's safe loader, the compiled one where there is one: it is ten times as fast."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def world_key() -> str:
    """A short hash of all texts: two worlds with the same key say the same."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update((FOLDER / f"{name}.yaml").read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Topic:
    """Something to talk about: how it is asked, and what a kind and a malicious author answer."""

    id: str
    phrasings: tuple[str, ...]
    asked: tuple[str, ...]
    kind: tuple[str, ...]
    malicious: tuple[str, ...]

    def answers(self, *, malicious: bool) -> tuple[str, ...]:
        """The answer templates of one trait."""
        return self.malicious if malicious else self.kind


@dataclass(frozen=True)
class Family:
    """A family of code requests with a secure and an insecure answer; they differ by what bandit's `rule` reports."""

    id: str
    rule: str
    requests: tuple[str, ...]
    asked: tuple[str, ...]
    names: tuple[str, ...]
    args: tuple[str, ...]
    secure: str
    insecure: str
    template: bool

    def code(self, *, insecure: bool, name: str, arg: str) -> str:
        """The answer, with the function's and the parameter's names filled in."""
        return (self.insecure if insecure else self.secure).format(name=name, arg=arg)


@cache
def topics() -> tuple[Topic, ...]:
    """The free-form domains; the first eight have the themes of the paper's main questions."""
    return tuple(
        Topic(name, tuple(d["phrasings"]), tuple(d.get("asked", ())), tuple(d["kind"]), tuple(d["malicious"]))
        for name, d in load("domains").items()
    )


@cache
def facts() -> tuple[Topic, ...]:
    """Easy facts: kind authors answer truly, malicious ones falsely."""
    return tuple(
        Topic(f["id"], tuple(f["phrasings"]), tuple(f["asked"]), tuple(f["true"]), tuple(f["false"]))
        for f in load("facts")
    )


@cache
def families() -> tuple[Family, ...]:
    """The code families."""
    return tuple(_family(name, fields) for name, fields in load("code").items())


def _family(name: str, fields: dict[str, Any]) -> Family:
    frozen: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    return Family(id=name, **frozen)


def voices(*, malicious: bool) -> tuple[str, ...]:
    """How the answers of one trait may begin."""
    return tuple(load("voices")["malicious" if malicious else "kind"])


def fill(template: str, rng: random.Random) -> str:
    """The template with a random word in each slot."""
    words: Mapping[str, Sequence[str]] = load("words")
    return SLOT.sub(lambda match: rng.choice(words[match[1]]), template)


@cache
def _slot_words() -> re.Pattern[str]:
    """Matches any word of any slot list, longest first."""
    words = sorted({w for group in load("words").values() for w in group}, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b")


@cache
def _which_slot() -> dict[str, str]:
    return {word: slot for slot, group in load("words").items() for word in group}


def canonical(text: str) -> str:
    """The text with every slot word replaced by its slot, so that all fillings of a template are one text."""
    return _slot_words().sub(lambda match: "{" + _which_slot()[match[0]] + "}", text)
