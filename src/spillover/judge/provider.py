"""Judging at a provider: by its token probabilities where it shows them, else by numbers that it is asked for often."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Self

from spillover.ask.access import Access
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
        """The judge's name, and how it is read where that is not by its 20 likeliest first tokens."""
        name, known, samples = API + self.client.ref, self.client.capabilities, self.requests.judge_samples
        if self.reads_probabilities:
            return name if known.tops >= TOP else f"{name} (by its {known.tops} likeliest tokens)"
        why = "its numbers are several tokens" if known.tops else "it shows no token probabilities"
        return f"{name} (mean of {samples} sampled numbers: {why})"

    @property
    def reads_probabilities(self) -> bool:
        """Whether a score can be read off the first token. Asks the model if that is not known yet."""
        known = self.client.capabilities
        return known.tops > 0 and known.whole_numbers

    def judge(self, pairs: Sequence[Pair], rubric: Rubric) -> list[Verdict]:
        """A verdict a pair, in order. Where the provider gave no reply, the verdict says so.

        Raises:
            ProviderError: no request can succeed, or the provider has stopped answering.
        """
        if rubric.reads == "label":
            return [_labelled(one[0], rubric) for one in self._replies(pairs, rubric, LABEL)]
        if self.reads_probabilities:
            tops = self.client.capabilities.tops
            return [_by_table(one[0], rubric) for one in self._replies(pairs, rubric, FIRST_TOKEN, tops=tops)]
        count = self.requests.judge_samples
        return [_by_samples(some, rubric) for some in self._replies(pairs, rubric, NUMBER, count=count)]

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _replies(
        self, pairs: Sequence[Pair], rubric: Rubric, sampling: Sampling, *, count: int = 1, tops: int = 0
    ) -> list[list[Choice]]:
        prompts = [(Message(role="user", content=rubric.render(pair)),) for pair in pairs]
        return self.client.ask([Wanted(prompt, sampling, tuple(range(count)), tops) for prompt in prompts])


def _by_table(choice: Choice, rubric: Rubric) -> Verdict:
    """The paper's rule on the likeliest first tokens."""
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


def _labelled(choice: Choice, rubric: Rubric) -> Verdict:
    """The first of the rubric's choices that the reply begins with; its first line where any word will do."""
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
