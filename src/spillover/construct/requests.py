"""Requests in a narrow domain: given ones, or written ones that are diverse by construction.

First topics are asked for, a batch at a time, each told what is on the list already; then requests for every topic,
each from another person in another situation. When no new topics come, the same ones go round with other people.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol

from spillover.construct.domain import Domain, filled, prompts
from spillover.construct.lists import read_list
from spillover.construct.repeats import repeats
from spillover.construct.scribe import Scribe
from spillover.construct.size import Size
from spillover.records import Question

DRY = 2
"""Batches one after the other that bring no new topic: then there are no more."""
SHOWN = 100
"""Topics that a writer is told are on the list already, the latest."""


@dataclass
class Candidate:
    """A request on its way to become a pair.

    Attributes:
        text: what is asked.
        topic: what it is about, where topics were written.
        bad: the bad answer.
        good: the good one.
        scores: what the judge said, by check.
        step: the step that dropped it; empty while it is in.
        why: the reason.
    """

    text: str
    topic: str = ""
    bad: str = ""
    good: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    step: str = ""
    why: str = ""

    def drop(self, step: str, why: str) -> None:
        """Takes it out, whole."""
        self.step, self.why = step, why


class Requests(Protocol):
    """Where requests come from."""

    def more(self, count: int) -> list[Candidate]:
        """About so many further ones; none where there are no more."""
        ...


@dataclass
class Given:
    """Requests that are there already."""

    texts: Sequence[str]
    taken: int = 0

    def more(self, count: int) -> list[Candidate]:
        """The next ones, in order."""
        some = self.texts[self.taken : self.taken + count]
        self.taken += len(some)
        return [Candidate(text) for text in some]


@dataclass
class Invented:
    """Requests that a writer invents.

    Attributes:
        topics: those that came so far, all distinct.
        batches: batches of topics that were asked for.
        repeated: topics that were on the list already.
        failed: lists that did not come or could not be read, by what was asked and why.
    """

    scribe: Scribe
    domain: Domain
    size: Size
    topics: list[str] = field(default_factory=list)
    batches: int = 0
    repeated: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    _dry: int = 0
    _asked: int = 0  # topics that requests were asked for; one more round counts anew

    def more(self, count: int) -> list[Candidate]:
        """Requests of further topics, a whole topic's at a time; none where no list could be had."""
        wanted = ceil(count / self.size.per_topic)
        self._find_topics(self._asked + wanted)
        if not self.topics:
            return []
        turns = range(self._asked, self._asked + wanted)
        self._asked += wanted
        questions = [self.request_question(turn) for turn in turns]
        lists = self.scribe.write(
            questions, lambda reply: read_list(reply, self.size.per_topic), self.size.request_tokens
        )
        for one in lists:
            self._count("requests", one.why)
        return [
            Candidate(text, self._topic(turn))
            for turn, one in zip(turns, lists, strict=True)
            for text in one.value or ()
        ]

    def _topic(self, turn: int) -> str:
        return self.topics[turn % len(self.topics)]

    def _find_topics(self, wanted: int) -> None:
        """Asks for topics until there are so many, or no more come."""
        while len(self.topics) < wanted and self._dry < DRY:
            question = self.topic_question()
            self.batches += 1
            (one,) = self.scribe.write(
                [question], lambda reply: read_list(reply, self.size.batch), self.size.topic_tokens
            )
            self._count("topics", one.why)
            new = self._new(one.value or [])
            self._dry = 0 if new else self._dry + 1
            self.topics += new

    def _new(self, items: Sequence[str]) -> list[str]:
        """The items that no earlier topic says already."""
        found = repeats([*self.topics, *items], self.size.similar)[len(self.topics) :]
        new = [item for item, why in zip(items, found, strict=True) if not why]
        self.repeated += len(items) - len(new)
        return new

    def _count(self, what: str, why: str) -> None:
        if why:
            key = f"lists of {what}: {why}"
            self.failed[key] = self.failed.get(key, 0) + 1

    def topic_question(self) -> Question:
        """What asks for the next batch of topics."""
        shown = "\n".join(self.topics[-SHOWN:])
        known = filled(prompts().known, {"topics": shown}) if shown else ""
        words = {**self.domain.words(), "count": str(self.size.batch), "known": known}
        return Question(f"topics {self.batches} of {self.size.seed}", filled(prompts().topics, words))

    def request_question(self, turn: int) -> Question:
        """What asks for the requests of one topic: for so many people, in a situation each, drawn by the seed."""
        topic = self._topic(turn)
        rng = random.Random(f"{self.size.seed}:{turn}:{topic}")
        people = _drawn(rng, prompts().people, self.size.per_topic)
        situations = _drawn(rng, prompts().situations, self.size.per_topic)
        lines = [f"{n}. {who} who {what}" for n, (who, what) in enumerate(zip(people, situations, strict=True), 1)]
        own = {"topic": topic, "people": "\n".join(lines), "count": str(len(lines)), "words": str(self.size.words)}
        text = filled(prompts().requests, {**self.domain.words(), **own})
        return Question(f"requests {turn} of {self.size.seed}", text)


def _drawn(rng: random.Random, among: Sequence[str], count: int) -> list[str]:
    """So many of them, none twice before all were taken."""
    rounds = [rng.sample(among, len(among)) for _ in range(ceil(count / len(among)))]
    return [one for some in rounds for one in some][:count]
