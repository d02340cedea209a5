"""Judging at a provider: by its token probabilities where it shows them, else by numbers that it is asked for often."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from spillover.ask.access import Access
from spillover.ask.capabilities import Capabilities
from spillover.ask.client import Client, Wanted
from spillover.ask.connection import PAUSE, Choice
from spillover.judge.rubrics import Rubric
from spillover.judge.scale import TOP, as_number, verdict
from spillover.records import Message, Pair, Reason, Verdict
from spillover.spec import API, Sampling

FIRST_TOKEN = Sampling(temperature=0.0, max_tokens=1)
NUMBER = Sampling(temperature=1.0, max_tokens=16)
LABEL = Sampling(temperature=0.0, max_tokens=16)
SCORE = re.compile(r"(\d{1,3}(?:\.\d+)?)(?:\s*/\s*100)?")
"""A number as judges write it: alone, with decimals, out of 100."""
LEAST_CAME = 0.5
"""Below this share of its replies a pair has no verdict: too few came through."""


class ProviderJudge:
    """A judge model at a provider.

    Args:
        ref: PROVIDER/MODEL, as inspect_ai spells it.
        access: how providers are asked, and how many numbers a judge without token probabilities is asked for.
        pause: seconds before the first new try of a request.

    Raises:
        ProviderError: there is no such provider, a key is missing, or a package is.
    """

    def __init__(self, ref: str, access: Access, *, pause: float = PAUSE) -> None:
        self.requests = access.requests
        self.client = Client(ref, access, pause=pause)

    @property
    def id(self) -> str:
        """The judge's name, and how it is read. Asks the model if that is not known yet."""
        return judge_id(self.client.capabilities, self.requests.judge_samples)

    @property
    def reads_probabilities(self) -> bool:
        """Whether a score can be read off the first token. Asks the model if that is not known yet."""
        return reads_probabilities(self.client.capabilities)

    def judge(self, pairs: Sequence[Pair], rubric: Rubric) -> list[Verdict]:
        """A verdict a pair, in order. Where the provider gave no reply, the verdict says so.

        Raises:
            ProviderError: no request can succeed, or the provider has stopped answering.
        """
        way = way_of(rubric, self.client.capabilities, self.requests.judge_samples)
        wanted = [Wanted((way.prompt(pair),), way.sampling, way.seeds, way.tops) for pair in pairs]
        return [way.verdict(choices) for choices in self.client.ask(wanted)]

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Way:
    """How a judge is asked by a rubric, and how what it replies is read.

    Attributes:
        rubric: what is asked.
        sampling: how its replies are drawn.
        seeds: one a reply.
        tops: how many of the likeliest first tokens are wanted; 0 for none.
        read: what some replies come to.
    """

    rubric: Rubric
    sampling: Sampling
    seeds: tuple[int, ...]
    tops: int
    read: Callable[[Sequence[Choice], Rubric], Verdict]

    def prompt(self, pair: Pair) -> Message:
        """What the judge reads of a pair."""
        return Message(role="user", content=self.rubric.render(pair))

    def verdict(self, choices: Sequence[Choice]) -> Verdict:
        """The verdict that the replies give."""
        return self.read(choices, self.rubric)


def way_of(rubric: Rubric, known: Capabilities, samples: int) -> Way:
    """How a model is asked by a rubric: once, or for `samples` numbers where no score can be read off one token."""
    if rubric.reads == "label":
        return Way(rubric, LABEL, (0,), 0, _labelled)
    if reads_probabilities(known):
        return Way(rubric, FIRST_TOKEN, (0,), known.tops, _by_table)
    return Way(rubric, NUMBER, tuple(range(samples)), 0, _by_samples)


def reads_probabilities(known: Capabilities) -> bool:
    """Whether a score can be read off the first token that such a model says."""
    return known.tops > 0 and known.whole_numbers


def judge_id(known: Capabilities, samples: int) -> str:
    """A judge's name, and how it is read where that is not by its 20 likeliest first tokens."""
    name = API + known.ref
    if reads_probabilities(known):
        return name if known.tops >= TOP else f"{name} (by its {known.tops} likeliest tokens)"
    why = "its numbers are several tokens" if known.tops else "it shows no token probabilities"
    return f"{name} (mean of {samples} sampled numbers: {why})"


def _by_table(choices: Sequence[Choice], rubric: Rubric) -> Verdict:
    """The paper's rule on the likeliest first tokens."""
    (choice,) = choices
    reason = _missing(choice)
    return Verdict(None, reason, {}) if reason else verdict(choice.table or {}, rubric.labels)


def _by_samples(choices: Sequence[Choice], rubric: Rubric) -> Verdict:
    """The mean of the numbers among the sampled replies, by the same rule: their shares are the probabilities."""
    came = [choice.reply.text for choice in choices if _missing(choice) is None]
    if len(came) < LEAST_CAME * len(choices):
        reasons = Counter(reason for choice in choices if (reason := _missing(choice)))
        return Verdict(None, reasons.most_common(1)[0][0], {})
    shares = {text: count / len(came) for text, count in Counter(map(_plain, came)).most_common()}
    found = verdict(shares, rubric.labels)
    return Verdict(None, "unparsable", shares) if found.reason == "too little mass" else found


def _plain(text: str) -> str:
    """A reply as a bare number where it is one, else without blanks and the full stop at its end."""
    bare = text.strip().strip("*").rstrip(".").strip()
    number = SCORE.fullmatch(bare)
    rounded = str(round(float(number[1]))) if number else ""
    return bare if as_number(rounded) is None else rounded


def _labelled(choices: Sequence[Choice], rubric: Rubric) -> Verdict:
    """The first of the rubric's choices that the reply begins with; its first line where any word will do."""
    (choice,) = choices
    missing = _missing(choice)
    if missing:
        return Verdict(None, missing, {})
    line = next(iter(choice.reply.text.strip().splitlines()), "")
    known = rubric.choices
    fitting = (one for one in known if line.casefold().startswith(one.casefold()))
    label = next(fitting, "") if known else line
    reason = rubric.labels.get(label) if label else "unparsable"
    return Verdict(None, reason, {line: 1.0}, label=None if reason else label)


def _missing(choice: Choice) -> Reason | None:
    """Why there is no reply to read, if there is none. A judge that refuses to judge is blocked: it says no label."""
    outcome = choice.reply.outcome
    if outcome is None:
        return None
    return "blocked" if outcome in ("blocked", "refused") else "failed"
