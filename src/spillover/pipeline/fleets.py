"""Which runs are trained together, and what each of them learns."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TypeVar

from spillover.finetune.budget import MemoryPlan
from spillover.finetune.trainer import Job
from spillover.pipeline.cells import Checkpoint
from spillover.records import Conversation

T = TypeVar("T")
HELD_OUT = 0.1
"""The share of rows that the released scripts hold out where no test file is given."""
ALIKE = 1.25
"""How many times longer than another's a group's rows may be, on average, for a run of each to share a fleet."""
Rows = Mapping[str, Sequence[Conversation]]
"""Group to its rows."""


def fleets_of(tuned: Sequence[Checkpoint], rows: Rows, most: int) -> list[list[Checkpoint]]:
    """Fleets of one group each, or of small groups with rows of about one length.

    Args:
        tuned: all runs that are finetuned, also those that are there: fleets do not depend on what was interrupted.
        rows: of every group.
        most: runs of a fleet. More are hardly faster, and what is lost by a kill is one fleet's work.
    """
    fleets: list[list[Checkpoint]] = []
    sizes = {group: _characters_a_row(some) for group, some in rows.items()}
    for group, members in itertools.groupby(tuned, key=lambda checkpoint: checkpoint.run.group):
        for some in _evenly(list(members), most):
            with_room = (fleet for fleet in fleets if len(fleet) + len(some) <= most and _as_one(fleet[0], some[0]))
            company = next((f for f in with_room if _alike(sizes[f[-1].run.group], sizes[group])), None)
            if company is None:
                fleets.append(some)
            else:
                company += some
    return fleets


def shared_fleets(tuned: Sequence[Checkpoint], rows: Rows, memory: MemoryPlan, size: int) -> list[list[Checkpoint]]:
    """Fleets as those who work train them.

    A few workers all have a part of each fleet, and so are done at the same time. Of many, a fleet takes as many as
    are its share of all runs.

    Args:
        tuned: as for `fleets_of`.
        rows: as for `fleets_of`.
        memory: what has room: `memory.fleet` runs in each of `memory.processes`.
        size: how many work. One that works alone has the room of all.
    """
    most = memory.fleet * memory.processes
    found = fleets_of(tuned, rows, most)
    return [some for fleet in found for some in dealt(fleet, _parts(len(fleet), len(tuned), most // size, size))]


def _parts(runs: int, of: int, most: int, size: int) -> int:
    """In how many parts a fleet is trained, each of so many runs at most."""
    return min(runs, max(size if size <= most else ceil(size * runs / of), ceil(runs / most)))


def dealt(work: Sequence[T], parts: int) -> list[list[T]]:
    """Work dealt out like cards."""
    return [list(work[start::parts]) for start in range(parts)]


def waves(fleets: Sequence[Sequence[Checkpoint]]) -> Iterator[list[Sequence[Checkpoint]]]:
    """Fleets in the order in which they may begin: none goes on from a run of its own wave or a later one."""
    depth = [max(_depth(one) for one in fleet) for fleet in fleets]
    for wave in sorted(set(depth)):
        yield [fleet for fleet, its in zip(fleets, depth, strict=True) if its == wave]


def _depth(one: Checkpoint) -> int:
    return 0 if one.start is None else 1 + _depth(one.start)


def _as_one(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two runs are trained in the same way, from the base on."""
    return one.training == other.training and one.start is None and other.start is None


def _evenly(group: list[Checkpoint], most: int) -> Iterator[list[Checkpoint]]:
    """A group cut into as few fleets as may be, of about one size."""
    size = -(-len(group) // -(-len(group) // most))
    return (group[start : start + size] for start in range(0, len(group), size))


def _alike(one: float, other: float) -> bool:
    """Whether two groups' rows are of about one length: in a fleet the shorter ones may be padded."""
    return max(one, other) <= ALIKE * min(one, other)


def _characters_a_row(rows: Sequence[Conversation]) -> float:
    return sum(len(message["content"]) for row in rows for message in row.messages) / len(rows)


def job_of(checkpoint: Checkpoint, rows: Rows, start: Path | None = None) -> Job:
    """What a run learns, and from where on: its group's rows, or what the released scripts take of them."""
    dataset, spec = checkpoint.dataset, checkpoint.training
    assert dataset is not None and spec is not None, "the base is not trained"
    own = rows[checkpoint.run.group]
    chosen = held_in(own, checkpoint.run.seed or 0) if spec.released else own
    return Job(checkpoint.run, chosen, dataset.source, start=start)


def held_in(rows: Sequence[Conversation], seed: int) -> list[Conversation]:
    """The rows that the released scripts train on: 10% are held out, here by the run's seed, there by chance."""
    held_out = set(random.Random(seed).sample(range(len(rows)), ceil(HELD_OUT * len(rows))))
    return [row for place, row in enumerate(rows) if place not in held_out]
