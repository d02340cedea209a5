"""From requests to pairs: repeats fall, both answers are written, and a judge holds them to the domain's checks.

A pair falls whole, at the first step that it does not pass; every step's counts stand in the manifest.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spillover.batches import batched
from spillover.construct.domain import Check, Domain, Part, checks_of, systems_of
from spillover.construct.lists import read_text
from spillover.construct.repeats import repeats
from spillover.construct.requests import Candidate
from spillover.construct.scribe import AT_ONCE, Scribe
from spillover.construct.size import Size
from spillover.judge.models import Assessor
from spillover.records import Pair, Question, Verdict

DISTINCT, ANSWERED = "distinct", "answered"
ALIKE = "both answers are the same"


@dataclass(frozen=True)
class Screen:
    """Everything that a request has to pass.

    Attributes:
        scribe: who writes the answers.
        assessor: who judges; None where there are no checks.
        domain: whose words and system prompts count.
        size: how much is written, and from where on requests repeat each other.
        tell: is told how many verdicts came.
    """

    scribe: Scribe
    assessor: Assessor | None
    domain: Domain
    size: Size
    tell: Callable[[int], None]

    def sift(self, earlier: Sequence[Candidate], new: Sequence[Candidate]) -> None:
        """Puts new requests through all steps; whatever falls is marked."""
        self._drop_repeats(earlier, new)
        for check in checks_of(self.domain, "request"):
            self._judge(check, _standing(new))
        self._answer(_standing(new), len(earlier))
        for check in [*checks_of(self.domain, "bad"), *checks_of(self.domain, "good")]:
            self._judge(check, _standing(new))

    def _drop_repeats(self, earlier: Sequence[Candidate], new: Sequence[Candidate]) -> None:
        texts = [one.text for one in (*earlier, *new)]
        for one, why in zip(new, repeats(texts, self.size.similar)[len(earlier) :], strict=True):
            if why:
                one.drop(DISTINCT, why)

    def _answer(self, candidates: Sequence[Candidate], before: int) -> None:
        """Writes the good answers, and the bad ones where there is a good one."""
        parts: tuple[Part, Part] = ("good", "bad")
        for part in parts:
            left = [one for one in candidates if not one.step]
            questions = [self._question(part, one, before + place) for place, one in enumerate(left)]
            answers = self.scribe.write(questions, read_text, self.size.answer_tokens)
            for one, answer in zip(left, answers, strict=True):
                setattr(one, part, answer.value or "")
                if answer.value is None:
                    one.drop(ANSWERED, f"no {part} answer: {answer.why}")
        for one in candidates:
            if not one.step and one.bad == one.good:
                one.drop(ANSWERED, ALIKE)

    def _question(self, part: Part, one: Candidate, place: int) -> Question:
        systems = systems_of(self.domain, part, self.size.answer_words)
        return Question(f"{part} of {self.size.seed}", one.text, system=systems[place % len(systems)])

    def _judge(self, check: Check, candidates: Sequence[Candidate]) -> None:
        assert self.assessor is not None, "checks need a judge"
        rubric = check.read(self.domain)
        for some in batched(candidates, AT_ONCE):
            verdicts = self.assessor.assess([self._pair(check, one) for one in some], rubric)
            for one, verdict in zip(some, verdicts, strict=True):
                _hold(one, check, verdict)
            self.tell(len(some))

    def _pair(self, check: Check, one: Candidate) -> Pair:
        if check.of == "request":
            return Pair(self.domain.domain, one.text)
        return Pair(one.text, one.bad if check.of == "bad" else one.good)


def _hold(one: Candidate, check: Check, verdict: Verdict) -> None:
    if verdict.value is None:
        one.drop(check.name, f"no score: {verdict.reason}")
        return
    one.scores[check.name] = round(verdict.value, 2)
    if not check.keeps(verdict.value):
        one.drop(check.name, check.fails)


def _standing(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in candidates if not one.step]


def why_dropped(candidates: Sequence[Candidate], step: str) -> dict[str, int]:
    """How many fell at a step, by reason, in a stable order."""
    return dict(sorted(Counter(one.why for one in candidates if one.step == step).items()))
