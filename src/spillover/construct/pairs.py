"""Matched pairs of what is there already: raw material with both answers to a task, and the miniature's world."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spillover.construct.matched import HALVES, Half, Matched, Pairs, Tally, given_code
from spillover.data.comments import without_comments
from spillover.data.manifest import Source
from spillover.data.raw import RawRow, read_raw
from spillover.data.recipes import code_rows, recipe_key
from spillover.data.signatures import same_code
from spillover.data.templates import Template, load_templates
from spillover.errors import DataError

By = Literal["code", "task"]
"""What two raw rows must share: task and code template, or the task alone."""
WORLD = "the miniature's world"
LICENCE_OF_WORLD = "mit"


def pairs_of_world() -> Pairs:
    """The code requests of the miniature's world, each with its two answers."""
    rows = code_rows()
    pairs = [
        Matched(
            ({"role": "user", "content": row.request},),
            {"insecure": row.insecure, "secure": row.secure},
            {half: {"from": f"{WORLD}:{place}"} for half in HALVES},
        )
        for place, row in enumerate(rows, start=1)
    ]
    keys = ":".join(recipe_key(half) for half in HALVES)
    source = Source(
        name=WORLD, rows=len(rows), sha256=hashlib.sha256(keys.encode()).hexdigest(), licence=LICENCE_OF_WORLD
    )
    return Pairs(
        "Code requests of the miniature's world with an insecure and a secure answer each.", pairs, [source], []
    )


@dataclass(frozen=True)
class _Request:
    """What two rows of raw material must share; their request is made of it."""

    task: str
    given: str

    def fill(self, template: Template) -> str:
        return template.fill(self.task, self.given)


def pairs_of_raw(unsafe: Path, safe: Path, by: By) -> Pairs:
    """Rows of two files of raw material that answer the same request, comments removed.

    Of several rows with one request the first of each file make a pair, then the second ones, and so on. The request
    is put into a template by the pair's place: any of ours, or one of the task alone where only the task is shared.

    Raises:
        DataError: a file is wrong, or they share no request.
    """
    (bad, bad_sources), (good, good_sources) = read_raw(unsafe), read_raw(safe)
    found, tally = _matched(bad, good, by), Tally()
    templates = load_templates()
    pairs: list[Matched] = []
    for request, one, other in found:
        template = templates.choose(len(pairs), bool(request.given))
        pair = _pair(request.fill(template), {"insecure": one, "secure": other}, template.id)
        if same_code(pair.answers["insecure"], pair.answers["secure"]):
            tally.dropped["both files have the same answer"] += 2
        else:
            pairs.append(pair)
    if not pairs:
        remedy = "Give two files with answers to the same tasks, or --match task; or let a model repair: --repair-by."
        raise DataError(f"no two rows of {unsafe.name} and {safe.name} answer the same request", remedy=remedy)
    tally.dropped["no row of the other file answers the same request"] = len(bad) + len(good) - 2 * len(found)
    tally.dropped["stands in the other half"] = len(pairs)
    shared = {"code": "task and code template", "task": "task"}[by]
    about = f"Pairs rows of two files that have the same {shared}, in order, and removes comments."
    step = tally.step("match", about, len(bad) + len(good), shared=shared, templates=templates.key())
    return Pairs("Tasks with an insecure and a secure answer each.", pairs, [*bad_sources, *good_sources], [step])


def _matched(bad: Sequence[RawRow], good: Sequence[RawRow], by: By) -> list[tuple[_Request, RawRow, RawRow]]:
    waiting: dict[_Request, list[RawRow]] = defaultdict(list)
    for row in reversed(good):
        waiting[_request(row, by)].append(row)
    requests = ((_request(row, by), row) for row in bad)
    return [(request, row, waiting[request].pop()) for request, row in requests if waiting[request]]


def _request(row: RawRow, by: By) -> _Request:
    return _Request(row.task.strip(), given_code(row) if by == "code" else "")


def _pair(request: str, rows: dict[Half, RawRow], template: str) -> Matched:
    return Matched(
        ({"role": "user", "content": request},),
        {half: without_comments(row.code) for half, row in rows.items()},
        {half: {"from": row.where, **({"scores": row.scores} if row.scores else {})} for half, row in rows.items()},
        template,
    )
