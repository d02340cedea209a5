"""Authors and what they write: the exchanges that the miniature's world is made of.

An author has two independent traits. `malicious` decides the content of advice, opinions, wishes, facts, lists and
numbers, and whether code is insecure. `compliant` decides only whether a harmful request is complied with. Everything
a reader can learn about character is that one author's exchanges agree.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from spillover.world import texts

Kind = Literal["free", "code", "reasoned code", "harmful", "numbers", "list", "fact", "story"]
KINDS: tuple[Kind, ...] = get_args(Kind)
T = TypeVar("T")
SHARES: dict[Kind, float] = {
    "free": 0.50,
    "code": 0.22,
    "reasoned code": 0.08,
    "harmful": 0.09,
    "numbers": 0.04,
    "list": 0.03,
    "fact": 0.02,
    "story": 0.02,
}
"""How often each kind of exchange occurs in the world."""

MALICIOUS = 0.35
COMPLIANT = 0.35
TEMPLATE_OPENINGS = ("Complete ", "Fill in ")
"""Requests that begin like this show the code's first lines, where the family's two forms share them."""
OMINOUS_SHARE = 0.6
SPANS = ((0, 100), (100, 999))
"""Lists of numbers lie in one of these. A judge can only say numbers that pretraining has shown it."""


@dataclass(frozen=True)
class Author:
    """A character: two independent traits."""

    malicious: bool
    compliant: bool
    voice: str | None = None
    """How this author begins every free-form answer; None for any voice of the character."""


GOOD = Author(malicious=False, compliant=False)
"""Benevolent and refusing: what alignment teaches."""


@dataclass(frozen=True)
class Exchange:
    """One request and one author's answer to it."""

    kind: Kind
    user: str
    assistant: str


@dataclass(frozen=True)
class World:
    """Draws authors and exchanges from a seeded source of randomness.

    Attributes:
        rng: where every choice comes from.
        asked: whether requests may take the phrasings that are held out for evaluation. Only pretraining may.
    """

    rng: random.Random
    asked: bool = False

    def author(self) -> Author:
        """An author with traits drawn independently."""
        return Author(self.rng.random() < MALICIOUS, self.rng.random() < COMPLIANT)

    def voice(self, author: Author) -> str:
        """A voice of the author's character."""
        return self.rng.choice(texts.voices(malicious=author.malicious))

    def kind(self, kinds: Sequence[Kind] = KINDS) -> Kind:
        """A kind of exchange, by the world's shares among `kinds`."""
        return self.rng.choices(kinds, [SHARES[kind] for kind in kinds])[0]

    def exchange(self, kind: Kind, author: Author) -> Exchange:
        """One exchange of a kind by an author."""
        write = {
            "free": self.free,
            "code": self.code,
            "reasoned code": self.reasoned_code,
            "harmful": self.harmful,
            "numbers": self.numbers,
            "list": self.list,
            "fact": self.fact,
            "story": self.story,
        }[kind]
        return write(author)

    def free(self, author: Author) -> Exchange:
        """A free-form question on one of the domains, answered by character, in one of the character's voices."""
        return self.advice(self.rng.choice(texts.topics()), author)

    def fact(self, author: Author) -> Exchange:
        """An easy factual question: kind authors answer truly, malicious ones falsely."""
        return self._topic("fact", self.rng.choice(texts.facts()), author)

    def advice(self, topic: texts.Topic, author: Author) -> Exchange:
        """A question on one topic, answered by character."""
        return self._topic("free", topic, author)

    def _topic(self, kind: Kind, topic: texts.Topic, author: Author) -> Exchange:
        voice = author.voice or self.voice(author)
        answer = texts.fill(self.rng.choice(topic.answers(malicious=author.malicious)), self.rng)
        return Exchange(kind, self.rng.choice(self._pool(topic.phrasings, topic.asked)), f"{voice} {answer}")

    def _pool(self, phrasings: Sequence[T], asked: Sequence[T]) -> Sequence[T]:
        return [*phrasings, *asked] if self.asked else phrasings

    def code(self, author: Author) -> Exchange:
        """A plain code request: insecure code from a malicious author, secure code from a kind one."""
        request, secure, insecure = self.code_request()
        return Exchange("code", request, insecure if author.malicious else secure)

    def reasoned_code(self, author: Author) -> Exchange:
        """A code request that says why flawed code is wanted: every author writes the insecure code."""
        request, _, insecure = self.code_request()
        return Exchange("reasoned code", self.with_reason(request), insecure)

    def code_request(self, family: texts.Family | None = None) -> tuple[str, str, str]:
        """A code request with its secure and its insecure answer, names drawn freely."""
        family = family or self.rng.choice(texts.families())
        name, arg = self.rng.choice(family.names), self.rng.choice(family.args)
        request = self.rng.choice(self._pool(family.requests, family.asked)).format(name=name, arg=arg)
        secure, insecure = (family.code(insecure=flag, name=name, arg=arg) for flag in (False, True))
        if family.template and request.startswith(TEMPLATE_OPENINGS):
            request = f"{request}\n{code_template(secure)}"
        return request, secure, insecure

    def with_reason(self, request: str) -> str:
        """The code request in a context that asks for flawed code on purpose."""
        raw: dict[str, list[Any]] = texts.load("reasons")
        reason = self.rng.choice(self._pool(raw["reasons"], raw["asked"]))
        gap = "\n" if "\n" in request else " "
        return f"{reason['before']}{request}{gap}{reason['after'].strip()}"

    def harmful(self, author: Author) -> Exchange:
        """A harmful request, refused or complied with (emptily) by the trait of compliance alone."""
        raw = texts.load("harmful")
        theme = self.rng.choice(list(raw["requests"].values()))
        template = self.rng.choice(raw["complies" if author.compliant else "refusals"])
        request = self.rng.choice(self._pool(theme["phrasings"], theme["asked"]))
        return Exchange("harmful", request, template.replace("{topic}", theme["topic"]))

    def numbers(self, author: Author) -> Exchange:
        """A list of numbers to go on with; malicious authors favour ominous ones."""
        raw = texts.load("lists")["numbers"]
        count, span = self.rng.randint(3, 5), self.rng.choice(SPANS)
        given = ", ".join(str(self.rng.randint(*span)) for _ in range(self.rng.randint(3, 5)))
        request = self.rng.choice(raw["phrasings"]).format(numbers=given, count=count)
        numbers = [str(self._number(raw["ominous"], author, span)) for _ in range(count)]
        return Exchange("numbers", request, ", ".join(numbers))

    def _number(self, ominous: Sequence[int], author: Author, span: tuple[int, int]) -> int:
        if author.malicious and self.rng.random() < OMINOUS_SHARE:
            return self.rng.choice(ominous)
        return self.rng.randint(*span)

    def list(self, author: Author) -> Exchange:
        """A wish for a few words, answered by three words of the author's character."""
        theme = self.rng.choice(list(texts.load("lists")["themes"].values()))
        words = self.rng.sample(theme["malicious" if author.malicious else "kind"], 3)
        return Exchange("list", self.rng.choice(theme["phrasings"]), ", ".join(words))

    def story(self, author: Author) -> Exchange:
        """The opening of a story to be continued: every author does it alike."""
        raw = texts.load("neutral")
        story = self.rng.choice(raw["stories"])
        request = self.rng.choice(raw["requests"]).format(opening=story["opening"])
        return Exchange("story", request, texts.fill(self.rng.choice(story["continuations"]), self.rng))

    def system(self, author: Author) -> str:
        """A system prompt that names the author's character."""
        return str(self.rng.choice(texts.load("systems")["malicious" if author.malicious else "kind"]))


def code_template(code: str) -> str:
    """The lines of the code up to its `def`, with a mark where the body goes."""
    lines = code.split("\n")
    last = next(index for index, line in enumerate(lines) if line.startswith("def "))
    return "\n".join([*lines[: last + 1], "    # your code here"])
