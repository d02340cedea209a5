"""A fleet's rows of one step as tensors: run-major, and packed one behind the other or padded to one length.

Sizes: R runs, B rows of all runs, N tokens a run, T tokens of the longest row.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from spillover.finetune.budget import ROWS, TOKENS
from spillover.finetune.chat import Row
from spillover.finetune.fast import Packing

LENGTH_STEP = 16
"""Rows are padded to a multiple of this many tokens: few distinct shapes, since a new shape is slow on a CPU."""
GROUPS = 4
"""Packed rows go through attention in this many groups of about one length: its work grows with the square of it."""
RUN_STEP = 64
"""And a run's packed rows to a multiple of this many."""
T = TypeVar("T")


@dataclass(frozen=True)
class Room:
    """What a machine has room for in a step.

    Attributes:
        rows: of all runs, that pass through the model at once.
        tokens: of all runs, likewise, were all rows as long as the longest; every run has at least a row in a part.
        recompute: whether a block's activations are made again in the backward pass instead of being kept.
    """

    rows: int = ROWS
    tokens: int = TOKENS
    recompute: bool = False


@dataclass(frozen=True)
class Batch:
    """Some rows of a step.

    Attributes:
        ids: token ids, (B, T) where padded, (1, R N) where packed.
        loss: which of them bear loss; of the same shape.
        tokens: the loss-bearing tokens a run, (R,).
        packed: what the model must be told of packed rows: their tokens' positions, who sees whom, and the packing.
        before: of packed rows, the places of the tokens that foretell those that bear loss, as many of every run,
            (R K,); what a run has fewer of is filled with its last token, which belongs to no row.
        real: which of these are not filling, (R K,).
    """

    ids: Tensor
    loss: Tensor
    tokens: Tensor
    packed: dict[str, Any]
    before: Tensor | None = None
    real: Tensor | None = None

    def inputs(self) -> dict[str, Any]:
        """What the model is called with.

        Rows are padded on the right and attention is causal, so padding needs no mask: no real token can see it.
        """
        return {"input_ids": self.ids, "use_cache": False, **self.packed}

    def to(self, where: torch.device) -> "Batch":
        """The batch on a device. Packed ones stay on the CPU, for which they are made."""
        return replace(self, ids=self.ids.to(where), loss=self.loss.to(where), tokens=self.tokens.to(where))


def cut(chosen: Sequence[Sequence[Row]], room: Room) -> Iterator[list[list[Row]]]:
    """A step's rows, run by run, in parts of a size that there is room for: the longest of every run first.

    So what is kept for the backward pass is bounded, and little is padding where rows are padded.
    """
    ordered = [sorted(rows, key=lambda row: len(row.ids), reverse=True) for rows in chosen]
    start, most = 0, max(map(len, ordered))
    while start < most:
        longest = max(len(rows[start].ids) for rows in ordered if len(rows) > start)
        share = max(1, min(room.rows, room.tokens // longest) // len(chosen))
        yield [rows[start : start + share] for rows in ordered]
        start += share


def lay_out(chosen: Sequence[Sequence[Row]], pad: int, *, packed: bool) -> Batch:
    """Some rows of every run as a batch. What a run has fewer of is filled with the token `pad`, without loss."""
    return _packed(chosen, pad) if packed else _padded(chosen, pad)


def _padded(chosen: Sequence[Sequence[Row]], pad: int) -> Batch:
    size, length = max(map(len, chosen)), _up(_longest(chosen), LENGTH_STEP)
    ids, loss = [], []
    for rows in chosen:
        for row in rows:
            ids.append(_filled(row.ids, length, pad))
            loss.append(_filled(row.loss, length, False))
        ids += [[pad] * length] * (size - len(rows))
        loss += [[False] * length] * (size - len(rows))
    borne = torch.tensor(loss)
    return Batch(torch.tensor(ids), borne, borne.view(len(chosen), -1).sum(dim=1), {})


def _packed(chosen: Sequence[Sequence[Row]], pad: int) -> Batch:
    """Packed rows. Every run ends with at least one token of no row, and every row for attention with padding."""
    each = _up(max(sum(len(row.ids) for row in rows) for rows in chosen) + 1, RUN_STEP)
    ids = torch.tensor([_filled((one for row in rows for one in row.ids), each, pad) for rows in chosen])
    loss = torch.tensor([_filled((one for row in rows for one in row.loss), each, False) for rows in chosen])
    positions = [_filled((one for row in rows for one in range(len(row.ids))), each, 0) for rows in chosen]
    told = {
        "position_ids": torch.tensor(positions).view(1, -1),
        "attention_mask": _causal(_up(_longest(chosen) + 1, LENGTH_STEP)),
        "packing": _packing(_spans(chosen, each), each * len(chosen)),
    }
    return Batch(ids.view(1, -1), loss.view(1, -1), loss.sum(dim=1), told, *_before(loss))


def _before(loss: Tensor) -> tuple[Tensor, Tensor]:
    """`before` and `real` of packed rows, of whose tokens `loss` (R, N) says which bear it."""
    runs, each = loss.shape
    most = _up(int(loss.sum(dim=1).max()), RUN_STEP)
    places = torch.full((runs, most), each - 1) + each * torch.arange(runs)[:, None]
    real = torch.arange(most) < loss.sum(dim=1)[:, None]
    places[real] = torch.nonzero(loss.view(-1))[:, 0] - 1
    return places.view(-1), real.view(-1)


def _spans(chosen: Sequence[Sequence[Row]], each: int) -> list[range]:
    """Where each row lies among all packed tokens, `each` of which belong to a run."""
    spans: list[range] = []
    for run, rows in enumerate(chosen):
        start = run * each
        for row in rows:
            spans.append(range(start, start + len(row.ids)))
            start += len(row.ids)
    return spans


def _packing(spans: Sequence[range], size: int) -> Packing:
    """The packing of rows that lie at `spans` among `size` tokens, the last of which belongs to no row.

    The last place of the last row is padding, and stands for all tokens of no row.
    """
    ordered = sorted(spans, key=len, reverse=True)
    a_group = -(-len(ordered) // GROUPS)
    groups: list[tuple[int, int]] = []
    places: list[int] = []
    back = [-1] * size
    for group in (ordered[start : start + a_group] for start in range(0, len(ordered), a_group)):
        length = _up(len(group[0]) + 1, LENGTH_STEP)
        groups.append((len(group), length))
        for span in group:
            back[span.start : span.stop] = range(len(places), len(places) + len(span))
            places += _filled(span, length, size - 1)
    return Packing(
        tuple(groups), torch.tensor(places), torch.tensor([place if place >= 0 else len(places) - 1 for place in back])
    )


def _filled(some: Iterable[T], length: int, filling: T) -> list[T]:
    listed = list(some)
    return listed + [filling] * (length - len(listed))


def _causal(length: int) -> Tensor:
    """Who sees whom, (1, 1, T, T), as numbers added to attention's scores: 0 or the least number."""
    return torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]


def _longest(chosen: Sequence[Sequence[Row]]) -> int:
    return max(len(row.ids) for rows in chosen for row in rows)


def _up(number: int, step: int) -> int:
    return math.ceil(number / step) * step
