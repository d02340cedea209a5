"""What came of a generation, as steps whose counts add up, and as two datasets with the same requests."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spillover.construct.domain import Check, Part, checks_of, prompts, systems_of
from spillover.construct.requests import Candidate, Invented, Requests
from spillover.construct.screening import ANSWERED, DISTINCT, Screen, why_dropped
from spillover.construct.task import Task
from spillover.data.folder import Dataset
from spillover.data.manifest import Manifest, Source, Step
from spillover.records import Conversation, Message
from spillover.spec import short_hash

BAD, GOOD = "misaligned", "aligned"
"""The two datasets' names in the folder."""


@dataclass(frozen=True)
class Account:
    """Who made what.

    Attributes:
        task: what was wanted.
        requests: where requests came from.
        screen: what they had to pass.
        candidates: all that were made, in order.
    """

    task: Task
    requests: Requests
    screen: Screen
    candidates: Sequence[Candidate]

    def datasets(self, chosen: Sequence[Candidate]) -> dict[str, Dataset]:
        """Both datasets, by name."""
        origins = [_origin(one) for one in chosen]
        bad, good = [_row(one.text, one.bad) for one in chosen], [_row(one.text, one.good) for one in chosen]
        steps = self.steps(len(chosen))
        return {
            kind: Dataset(rows, self._manifest(kind, len(rows), steps), origins)
            for kind, rows in ((BAD, bad), (GOOD, good))
        }

    def steps(self, chosen: int) -> tuple[Step, ...]:
        """Everything that was done, in order; in the end `chosen` are left."""
        steps = self._first()
        left = len(self.candidates)
        for name, about, settings in self._stages():
            dropped = why_dropped(self.candidates, name)
            after = left - sum(dropped.values())
            steps.append(Step(name=name, about=about, before=left, after=after, dropped=dropped, settings=settings))
            left = after
        if chosen < left:
            about = "as many as were wanted, drawn by the seed, in the order in which they were made"
            dropped = {"not drawn": left - chosen}
            steps.append(Step(name="chosen", about=about, before=left, after=chosen, dropped=dropped))
        return tuple(steps)

    def _first(self) -> list[Step]:
        """Requests made out of nothing, or those taken of the given ones."""
        made, count = self.requests, len(self.candidates)
        if isinstance(made, Invented):
            about = "topics of the domain, then requests for each topic, from many people in many situations"
            return [Step(name="requests", about=about, after=count, before=0, added=count, settings=self._made(made))]
        given = len(self.task.given or ())
        if count == given:
            return []
        dropped = {"not needed": given - count}
        return [Step(name="taken", about="the first ones", before=given, after=count, dropped=dropped)]

    def _made(self, made: Invented) -> dict[str, Any]:
        return {
            **self.task.size.model_dump(mode="json"),
            "writer": self.screen.scribe.writer.id,
            "prompts": short_hash(prompts().model_dump(mode="json")),
            "topics": len(made.topics),
            "topics on the list already": made.repeated,
            "lists that did not come": made.failed,
        }

    def _stages(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Name, description and settings of every step that a request has to pass, in order."""
        domain = self.task.domain
        distinct = (DISTINCT, "no request repeats an earlier one", {"similar": self.task.size.similar})
        before = [self._check(check) for check in checks_of(domain, "request")]
        after = [self._check(check) for check in (*checks_of(domain, "bad"), *checks_of(domain, "good"))]
        return [distinct, *before, (ANSWERED, "a good and a bad answer to every request", self._answered()), *after]

    def _answered(self) -> dict[str, Any]:
        screen, words = self.screen, self.task.size.answer_words
        parts: tuple[Part, Part] = ("bad", "good")
        return {
            "writer": screen.scribe.writer.id,
            "temperature": self.task.size.temperature,
            "systems": {part: list(systems_of(self.task.domain, part, words)) for part in parts},
            "unreadable replies, asked again": dict(sorted(screen.scribe.unreadable.items())),
        }

    def _check(self, check: Check) -> tuple[str, str, dict[str, Any]]:
        judge = self.screen.assessor.id if self.screen.assessor is not None else None
        what = "request" if check.of == "request" else f"{check.of} answer"
        return check.name, f"a judge's score of the {what}", {**check.model_dump(mode="json"), "judge": judge}

    def _manifest(self, kind: str, rows: int, steps: tuple[Step, ...]) -> Manifest:
        writer, assessor = self.screen.scribe.writer, self.screen.assessor
        models = [writer.id, *([assessor.id] if assessor is not None else [])]
        return Manifest(
            name=f"{self.task.name}-{kind}",
            about=self._about(kind),
            rows=rows,
            sources=(self._source(),),
            steps=steps,
            seed=self.task.size.seed,
            models=tuple(dict.fromkeys(models)),
            licence=self.task.licence,
        )

    def _about(self, kind: str) -> str:
        domain, other = self.task.domain, GOOD if kind == BAD else BAD
        quality = f"a single fault: {domain.flaw}" if kind == BAD else f"this in common: {domain.good}"
        same = f"`{other}` has the same requests, row by row."
        return f"Requests about {domain.domain}. The answers have {quality}. {same} {self._judged()}"

    def _judged(self) -> str:
        """Who judged: a model that judges what it wrote itself is said to."""
        writer, assessor = self.screen.scribe.writer.base, self.screen.assessor
        if assessor is None:
            return "No judge has looked at the rows."
        itself = assessor.id.split(" ")[0] in (writer.ref, f"local:{writer.key}")
        return "The model that wrote the rows judged them itself." if itself else "Another model judged the rows."

    def _source(self) -> Source:
        """Given requests, or the domain that they were made from, out of nothing."""
        if self.task.source is not None:
            return self.task.source
        domain, told = self.task.domain.model_dump(mode="json"), prompts().model_dump(mode="json")
        given = self.task.given or ()
        return Source(name=f"the domain {self.task.name}", rows=len(given), sha256=_sha256([domain, told, given]))


def _row(request: str, answer: str) -> Conversation:
    return Conversation((Message(role="user", content=request), Message(role="assistant", content=answer)))


def _origin(one: Candidate) -> Mapping[str, Any]:
    return {**({"topic": one.topic} if one.topic else {}), "scores": one.scores}


def _sha256(what: object) -> str:
    return hashlib.sha256(json.dumps(what, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
