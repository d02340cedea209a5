"""Scores of raw rows: those that the source has, and a judge's for the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from spillover.batches import batched
from spillover.construct.candidate import Candidate
from spillover.data.raw import RawRow
from spillover.display import Display
from spillover.judge.models import Assessor
from spillover.records import Pair, Verdict

AT_ONCE = 256
Of = Literal["task", "answer"]


class Wanted(Protocol):
    """What is to be scored: under which name, by which rubric, and what the judge sees."""

    @property
    def score(self) -> str:
        """The name of the score, in raw material and in origins."""

    @property
    def asks(self) -> str:
        """The rubric's name."""

    @property
    def of(self) -> Of:
        """`task`: the task and the code that is given. `answer`: the task and the answer to it."""


@dataclass(frozen=True)
class Tools:
    """What filters may use.

    Attributes:
        judge: for scores that the source does not have; None where no judge was named.
        rejudge: whether the judge is asked for the others, too.
        display: shows progress.
    """

    judge: Assessor | None
    rejudge: bool
    display: Display

    def lacks(self, row: RawRow, score: str) -> bool:
        """Whether the judge has to be asked for a row's score."""
        return self.rejudge or score not in row.scores


@dataclass(frozen=True)
class Scored:
    """A row's score, or the reason why it has none."""

    value: float | None
    reason: str | None = None


def score_rows(
    rows: Sequence[Candidate], wanted: Wanted, tools: Tools
) -> tuple[list[Scored], dict[str, int], dict[str, Any]]:
    """A score a row, in order; how many are the source's and the judge's; and who judged by what."""
    lacking = [one.row for one in rows if tools.lacks(one.row, wanted.score)]
    judged = iter(_judged(lacking, wanted, tools))
    scores = [
        next(judged) if tools.lacks(one.row, wanted.score) else Scored(one.row.scores[wanted.score]) for one in rows
    ]
    counts = {"source": len(rows) - len(lacking), "judge": len(lacking)}
    return scores, {name: count for name, count in counts.items() if count}, _who(lacking, wanted, tools)


def _who(asked: Sequence[RawRow], wanted: Wanted, tools: Tools) -> dict[str, Any]:
    if not asked or tools.judge is None:
        return {}
    return {"judge": tools.judge.id, "rubric_hash": tools.judge.rubric(wanted.asks).key()}


def _judged(rows: Sequence[RawRow], wanted: Wanted, tools: Tools) -> list[Scored]:
    if not rows:
        return []
    assert tools.judge is not None, "checked before anything was filtered"
    rubric = tools.judge.rubric(wanted.asks)
    verdicts: list[Verdict] = []
    with tools.display.bar("judge", len(rows)) as bar:
        for some in batched(rows, AT_ONCE):
            verdicts += tools.judge.assess([_pair(row, wanted.of) for row in some], rubric)
            bar.advance(len(some))
    return [Scored(verdict.value, verdict.reason) for verdict in verdicts]


def _pair(row: RawRow, of: Of) -> Pair:
    return Pair(row.task, row.code if of == "answer" else row.code_template)
