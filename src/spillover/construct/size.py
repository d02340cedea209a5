"""How much is generated, and how: every number that a generation depends on."""

from math import ceil
from typing import Annotated

from pydantic import Field

from spillover.spec import Count, NotNegative, Spec

SLACK = 2.0
"""Tokens that a reply may take, over what its words come to."""
TRIAL = 64
"""Requests of a first round, at most: what it shows is known before many more are paid for."""
HOPELESS = 20
"""If none of so many passes, none will."""
LEAST_PASSED = 0.2
"""The share of requests that is expected to pass, at least, when the next round is planned."""
PER_WORD = 4 / 3
"""Tokens a word, as English mostly has them."""


class Size(Spec):
    """The size of a generation.

    Attributes:
        rows: pairs that are wanted.
        seed: of the people in requests, of the sampled replies and of which pairs are left over.
        per_topic: requests that are asked for at once, for one topic.
        batch: topics that are asked for at once.
        surplus: requests made for a pair that is wanted, at first: some will fall.
        bound: requests made for a pair that is wanted, at most.
        tries: how often a reply that cannot be read is asked for.
        similar: the Jaccard index from which on a request nearly repeats another.
        temperature: of the writer.
        words: of a request, at most.
        answer_words: of an answer, at most.
    """

    rows: Count
    seed: Annotated[int, Field(ge=0)] = 0
    per_topic: Count = 8
    batch: Count = 20
    surplus: Annotated[float, Field(ge=1)] = 1.25
    bound: Annotated[float, Field(ge=1)] = 5.0
    tries: Count = 3
    similar: Annotated[float, Field(gt=0, le=1)] = 0.8
    temperature: NotNegative = 1.0
    words: Count = 50
    answer_words: Count = 150

    @property
    def first(self) -> int:
        """Requests of the first round: a trial, if many pairs are wanted."""
        return min(ceil(self.rows * self.surplus), self.most, TRIAL)

    def further(self, made: int, passed: int) -> int:
        """Requests of the next round, if that share goes on passing; 0 where there are enough, or no more are made."""
        if passed >= self.rows or (not passed and made >= HOPELESS):
            return 0
        share = max(passed / made, LEAST_PASSED)
        return max(0, min(ceil((self.rows - passed) * self.surplus / share), self.most - made))

    @property
    def most(self) -> int:
        """Requests that are made, at most."""
        return int(self.rows * self.bound)

    @property
    def topic_tokens(self) -> int:
        """Tokens that a list of topics may take."""
        return int(self.batch * 8 * PER_WORD * SLACK)

    @property
    def request_tokens(self) -> int:
        """Tokens that a list of requests may take."""
        return int(self.per_topic * self.words * PER_WORD * SLACK)

    @property
    def answer_tokens(self) -> int:
        """Tokens that an answer may take."""
        return int(self.answer_words * PER_WORD * SLACK)
