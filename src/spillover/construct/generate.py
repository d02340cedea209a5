"""New organisms: a narrow domain's requests, each with a bad and a good answer, as two datasets with the same requests.

Requests are made in rounds until enough pairs have passed, or as many as `Size.bound` allows were made. Everything
follows from the domain, the size and the models' replies, which are kept: a second start sends nothing twice.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spillover.construct.account import Account
from spillover.construct.requests import Candidate, Given, Invented, Requests
from spillover.construct.screening import Screen
from spillover.construct.scribe import Scribe
from spillover.construct.task import Task
from spillover.data.folder import Dataset
from spillover.data.manifest import Step
from spillover.errors import DataError
from spillover.judge.models import Assessor, Writer
from spillover.spec import Sampling


@dataclass(frozen=True)
class Generated:
    """What came: the two datasets by name, and the steps that they share."""

    datasets: dict[str, Dataset]
    steps: tuple[Step, ...]


def generate(task: Task, writer: Writer, assessor: Assessor | None, tell: Callable[[int], None]) -> Generated:
    """Makes requests until enough pairs have passed.

    Args:
        task: what is wanted.
        writer: who writes.
        assessor: who judges; None where the domain has no checks.
        tell: is told how many replies and verdicts came.

    Raises:
        DataError: too few pairs came; says what fell where.
        ProviderError, JudgeError, QuestionError: a model cannot be asked or does not judge.
    """
    scribe = Scribe(writer, Sampling(temperature=task.size.temperature), task.size.tries, tell)
    invented = Invented(scribe, task.domain, task.size)
    requests: Requests = invented if task.given is None else Given(task.given)
    screen = Screen(scribe, assessor, task.domain, task.size, tell)
    candidates: list[Candidate] = []
    while wanted := _wanted(task, candidates):
        new = requests.more(wanted)
        if not new:
            break
        screen.sift(candidates, new)
        candidates += new
    return _outcome(Account(task, requests, screen, candidates))


def _wanted(task: Task, candidates: Sequence[Candidate]) -> int:
    """How many requests the next round takes, by the share that has passed so far; 0 where it was the last."""
    size, made, passed = task.size, len(candidates), len(_passed(candidates))
    wanted = size.further(made, passed) if made else size.first
    return wanted if task.given is None else min(wanted, size.rows - passed)


def _passed(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in candidates if not one.step]


def _outcome(account: Account) -> Generated:
    passed = _passed(account.candidates)
    if len(passed) < account.task.at_least:
        raise _too_few(account, len(passed))
    chosen = _chosen(passed, account.task.size.rows, account.task.size.seed)
    return Generated(account.datasets(chosen), account.steps(len(chosen)))


def _chosen(passed: Sequence[Candidate], rows: int, seed: int) -> list[Candidate]:
    """As many as are wanted, drawn by the seed, in the order in which they were made."""
    if len(passed) <= rows:
        return list(passed)
    return [passed[place] for place in sorted(random.Random(seed).sample(range(len(passed)), rows))]


def _too_few(account: Account, came: int) -> DataError:
    lists = [f"{count} {what}" for what, count in getattr(account.requests, "failed", {}).items()]
    fallen = [f"{n} {step.name}: {why}" for step in account.steps(came) for why, n in step.dropped.items()]
    told = "; ".join([*lists, *fallen]) or "no more could be made"
    scribe = account.screen.scribe
    unread = f". A reply that could not be read begins: {scribe.example!r}" if scribe.example else ""
    return DataError(
        f"{came} of {account.task.at_least} pairs came, from {len(account.candidates)} requests ({told}){unread}",
        where=scribe.writer.id,
        remedy="Nothing was written; what the models said is kept. Take what came with --at-least, want fewer --rows, "
        "describe a wider domain, or take another model. One that writes no lists can be given --requests.",
    )
