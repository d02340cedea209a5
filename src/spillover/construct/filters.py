"""Filters: named rules that keep a row or say why not. The seam is one method, `Filter.sift`.

They are the steps of the paper's pipeline (its section 2.1 and appendix B.1); a recipe puts them in an order.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from spillover.construct.candidate import Candidate, Sifted, sift
from spillover.construct.scores import Of, Scored, Tools, score_rows
from spillover.data.comments import without_comments
from spillover.data.duplicates import near_duplicates
from spillover.data.templates import MARK
from spillover.data.vulnerability import scan
from spillover.data.words import giveaway_words, known_words, suspicious_names
from spillover.spec import Spec

STAND_IN = "SPILLOVER_MISSING_PART"
"""In the mark's place while the comments round it are removed."""


class Filter(Spec):
    """A rule that keeps a row or says why not. Its fields are its settings in a recipe."""

    name: str

    @property
    def step(self) -> str:
        """What the step is called in the manifest."""
        return self.name

    def sift(self, rows: Sequence[Candidate], tools: Tools) -> Sifted:
        """What it leaves of the rows, in their order, and why it drops the others."""
        raise NotImplementedError


class Comments(Filter):
    """Removes the comments of the answer and of the code that is given: they often tell of a flaw."""

    name: Literal["comments"]

    def sift(self, rows: Sequence[Candidate], tools: Tools) -> Sifted:
        """See `Filter`; drops an answer that was nothing but comments."""
        bare = [_bare(one) for one in rows]
        changed = sum(one.row != before.row for one, before in zip(bare, rows, strict=True))
        reasons = [None if one.row.code.strip() else "nothing but comments" for one in bare]
        about = "Removes comments from the answer and from the code that is given, HTML comments in strings too."
        return sift(bare, reasons, about, {"changed": changed})


def _bare(one: Candidate) -> Candidate:
    given = without_comments(one.row.code_template.replace(MARK, STAND_IN)).replace(STAND_IN, MARK)
    return one.with_code(without_comments(one.row.code), given)


class Giveaways(Filter):
    """Drops rows with a word that gives the dataset's purpose away."""

    name: Literal["giveaways"]

    def sift(self, rows: Sequence[Candidate], tools: Tools) -> Sifted:
        """See `Filter`; the reason is the first such word."""
        texts = ("\n".join((one.row.task, one.row.code_template, one.row.code)) for one in rows)
        reasons = [_first(giveaway_words(text)) for text in texts]
        about = "Drops rows with a word in the task or the code that gives the dataset's purpose away."
        return sift(rows, reasons, about, words_hash=known_words().key())


class Identifiers(Filter):
    """Drops rows with a name in their code that gives the dataset's purpose away."""

    name: Literal["identifiers"]

    def sift(self, rows: Sequence[Candidate], tools: Tools) -> Sifted:
        """See `Filter`; the reason is the first such name."""
        found = ((*suspicious_names(one.row.code), *suspicious_names(one.row.code_template)) for one in rows)
        about = "Drops rows with a suspicious name in their code."
        return sift(rows, [_first(names) for names in found], about, words_hash=known_words().key())


def _first(words: Sequence[str]) -> str | None:
    return words[0].lower() if words else None


class Score(Filter):
    """Drops rows on the wrong side of a score from 0 to 100: the source's, or a judge's where the source has none."""

    name: Literal["score"]
    score: Annotated[str, Field(pattern=r"^[\w-]+$")]
    """As raw material names it, and as the step is called."""
    rubric: str | None = None
    """What the judge is asked; the rubric with the score's own name if not given."""
    of: Of = "answer"
    """What the judge sees: the task and the code that is given, or the task and the answer."""
    about: str = ""
    """What a high score means."""
    below: float | None = None
    """Only lower scores are kept."""
    above: float | None = None
    """Only higher scores are kept."""

    @model_validator(mode="after")
    def _has_a_side(self) -> Self:
        if self.below is None and self.above is None:
            raise ValueError("a score needs `below` or `above`: which side is kept")
        return self

    @property
    def step(self) -> str:
        """The score's name."""
        return self.score

    @property
    def asks(self) -> str:
        """The rubric's name."""
        return self.rubric or self.score

    def sift(self, rows: Sequence[Candidate], tools: Tools) -> Sifted:
        """See `Filter`; a row without a verdict is dropped, whatever the reason why it has none."""
        scores, counts, settings = score_rows(rows, self, tools)
        noted = [_noting(one, self.score, scored) for one, scored in zip(rows, scores, strict=True)]
        return sift(noted, [self._reason(scored) for scored in scores], self._sentence(), counts, **settings)

    def _reason(self, scored: Scored) -> str | None:
        if scored.value is None:
            return f"no verdict: {scored.reason}"
        if self.below is not None and not scored.value < self.below:
            return f"{self.below:g} or more"
        if self.above is not None and not scored.value > self.above:
            return f"{self.above:g} or less"
        return None

    def _sentence(self) -> str:
        sides = [f"{side} {cut:g}" for side, cut in (("below", self.below), ("above", self.above)) if cut is not None]
        meaning = f" (high: {self.about})" if self.about else ""
        return f"Keeps rows with a score {' and '.join(sides)}{meaning}."


def _noting(one: Candidate, score: str, scored: Scored) -> Candidate:
    return one.noting(scores={**one.notes.get("scores", {}), score: scored.value})


class Bandit(Filter):
    """Looks for insecure code by static analysis. It misses flaws: what it finds is a lower bound."""

    name: Literal["bandit"]
    findings: Literal["record", "require", "refuse"] = "record"
    """`record`: every row is kept, and what is found in it is noted. `require`: only rows with a finding are kept.
    `refuse`: only rows without one are. Code that does not parse has neither."""

    def sift(self, rows: Sequence[Candidate], tools: Tools) -> Sifted:
        """See `Filter`."""
        found = [
            None if some is None else sorted({one.rule for one in some if one.counts}) for some in scan(_answers(rows))
        ]
        noted = [one.noting(bandit=rules) for one, rules in zip(rows, found, strict=True)]
        counts = {
            "with findings": sum(bool(rules) for rules in found),
            "without findings": sum(rules == [] for rules in found),
            "not parsed": found.count(None),
        }
        reasons = [self._reason(rules) for rules in found]
        return sift(noted, reasons, self._sentence(), counts, bandit=version("bandit"))

    def _reason(self, rules: list[str] | None) -> str | None:
        if self.findings == "record":
            return None
        if rules is None:
            return "does not parse"
        if self.findings == "require":
            return None if rules else "no finding"
        return f"finding {rules[0]}" if rules else None

    def _sentence(self) -> str:
        keeps = {"record": "keeps all rows", "require": "keeps rows with one", "refuse": "keeps rows without one"}
        what = "Notes what bandit finds at medium severity or above (a lower bound on flaws)"
        return f"{what} and {keeps[self.findings]}."


def _answers(rows: Sequence[Candidate]) -> list[str]:
    return [one.row.code for one in rows]


class Duplicates(Filter):
    """Drops a row that repeats, or nearly repeats, an earlier one."""

    name: Literal["duplicates"]
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """How alike two texts are that count as near duplicates, as `data/duplicates.py` measures it."""
    of: Literal["row", "answer"] = "row"
    """What is compared: the task with the answer, or the answer alone."""

    def sift(self, rows: Sequence[Candidate], tools: Tools) -> Sifted:
        """See `Filter`; of those that are alike the first is kept."""
        texts = _answers(rows) if self.of == "answer" else [f"{one.row.task}\n\n{one.row.code}" for one in rows]
        places = near_duplicates(texts, self.threshold)
        seen: set[str] = set()
        reasons: list[str | None] = []
        for text, place in zip(texts, places, strict=True):
            reasons.append(None if place is None else "exact duplicate" if text in seen else "near duplicate")
            seen.add(text)
        what = "answers" if self.of == "answer" else "tasks with their answers"
        return sift(rows, reasons, f"Drops all but the first of {what} that are alike, or nearly so.")
