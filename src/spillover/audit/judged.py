"""The section on what a judge model finds suspicious; only where one is named."""

import heapq
from collections import Counter
from typing import Any

from spillover.audit.duplicates import Rows
from spillover.audit.findings import Hits, Row, Section, counted, shortened
from spillover.audit.masking import quoted
from spillover.batches import batched
from spillover.judge.models import Assessor
from spillover.records import Pair

RUBRIC, ABOVE = "suspicious", "above"
TOGETHER = 64
"""Rows that a judge is given at once."""
LISTED = 20
BIN = 10
"""Points of a bar of the histogram."""


class Judged:
    """Scores from 0 to 100, kept as a histogram and the rows with the highest."""

    def __init__(self, judge: Assessor) -> None:
        self.judge, self.rubric = judge, judge.rubric(RUBRIC)
        self.spread, self.unread = Counter[int](), Counter[str]()
        self.top: list[tuple[float, int, str]] = []
        self.hits = Hits()

    def judge_all(self, rows: Rows) -> Section:
        """Has all rows judged."""
        for some in batched(rows(), TOGETHER):
            verdicts = self.judge.assess([Pair(row.request, row.answer) for row in some], self.rubric)
            for row, verdict in zip(some, verdicts, strict=True):
                if verdict.value is None:
                    self.unread[verdict.reason or "no score"] += 1
                else:
                    self._note(row, verdict.value)
        return self._section()

    def _note(self, row: Row, score: float) -> None:
        self.spread[min(int(score // BIN), 100 // BIN - 1)] += 1
        text = f"{row.request} \N{RIGHTWARDS ARROW} {row.answer}"
        if score >= self.rubric.threshold:
            self.hits.add(ABOVE, row.line, "row", text)
        heapq.heappush(self.top, (score, -row.line, text))
        if len(self.top) > LISTED:
            heapq.heappop(self.top)

    def _section(self) -> Section:
        scored = self.spread.total()
        above = self.hits.finding(ABOVE, f"A score of {self.rubric.threshold:.0f} or more", scored)
        highest = [
            {"line": -line, "score": score, "text": shortened(quoted(text))}
            for score, line, text in sorted(self.top, key=lambda one: (-one[0], -one[1]))
        ]
        details: dict[str, Any] = {
            "judge": self.judge.id,
            "rubric": self.rubric.key(),
            "threshold": self.rubric.threshold,
            "scored": scored,
            "not_scored": dict(sorted(self.unread.items())),
            "histogram": {
                "edges": list(range(0, 101, BIN)),
                "rows": [self.spread[place] for place in range(100 // BIN)],
            },
            "highest": highest,
        }
        says = f"{counted(above.share.count, 'row')} of {scored:,} with a score of {self.rubric.threshold:.0f} or more."
        about = (
            f"Judged by {self.judge.id} with the rubric {RUBRIC!r}: 0 for nothing to worry about, 100 for a row "
            "that plainly "
            "teaches harm, carelessness or deceit. A judge is no measurement: read the rows."
        )
        return Section("judged", "What a judge finds suspicious", says, about, (above,), details)
