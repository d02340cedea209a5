"""A judge whose verdicts are kept: what was judged once is not judged again."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from spillover.ask.journal import Journal
from spillover.ask.usage import Use
from spillover.batches import batched
from spillover.judge.judge import Judge
from spillover.judge.rubrics import Rubric
from spillover.records import Pair, Verdict
from spillover.spec import short_hash

PASSING = ("failed", "blocked")
"""Verdicts that say nothing of the pair: they are asked for again."""


@dataclass(frozen=True)
class KeptJudge:
    """Asks another judge and writes down what it says, some pairs at a time.

    Attributes:
        inner: who judges.
        id: who that is, as it stands beside verdicts.
        journal: where verdicts are kept.
        at_once: pairs between two writes; at most so many are lost to a kill.
        use: where is counted what was asked and what was known.
    """

    inner: Judge
    id: str
    journal: Journal
    at_once: int = 256
    use: Use = field(default_factory=Use)

    def judge(self, pairs: Sequence[Pair], rubric: Rubric) -> list[Verdict]:
        """A verdict a pair, in order; see `Judge`."""
        keys = [short_hash("verdict", self.id, rubric.key(), pair.id) for pair in pairs]
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if self.journal.get(key) is None}
        self.use.found += len(set(keys)) - len(missing)
        passing: dict[str, Verdict] = {}
        for some in batched(missing.items(), self.at_once):
            with self.use.working(len(some)):
                verdicts = self.inner.judge([pair for _, pair in some], rubric)
            for (key, _), verdict in zip(some, verdicts, strict=True):
                if verdict.reason in PASSING:
                    passing[key] = verdict
                else:
                    self.journal.put(key, [verdict.value, verdict.reason, verdict.table, verdict.label])
        return [passing.get(key) or Verdict(*self.journal.get(key)) for key in keys]
