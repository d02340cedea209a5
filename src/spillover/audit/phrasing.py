"""How often each request template occurs, without knowing the templates.

A template is words that many requests share, in one order, round what varies. Its runs of three words stand in the very
same requests, and that is how it is found: runs that share their set of requests belong together, where what merely
recurs in the slots (a line of code, say) is in a set of its own. Templates are taken greedily, those first that account
for most requests by most words; a request belongs to the first template that it fits. Words are what white space
separates, so what stands without it is not found.
"""

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spillover.lazy import lazy

np = lazy("numpy")

SLOT = "{...}"
SAMPLE = 10_000
"""From so many requests templates are learnt; all are counted."""
LONGEST = 4_000
"""Characters of a request that are looked at, half of them from each end."""
SHOWN = 160
"""Characters of a pattern that are shown."""
RUN = 3
FEWEST, LEAST_SHARE = 5, 0.005
"""A template has at least so many of the requests."""
FITTING = 0.97
"""What is in such a share of the requests with a template is part of it."""
MOST = 500
"""Templates."""


@dataclass(frozen=True)
class RequestTemplate:
    """A template, and how many requests are written by it.

    Attributes:
        pattern: its words, with `{...}` for what varies; in the middle of a long one `…` is for words left out. Only
            `{...}`: requests that share no template.
        rows: how many requests it has.
    """

    pattern: str
    rows: int


def request_templates(requests: Sequence[str]) -> list[RequestTemplate]:
    """The templates of requests, the most frequent first, and at the end those without one; rows add up."""
    chosen = random.Random(0).sample(range(len(requests)), min(SAMPLE, len(requests)))
    found = _mined([_plain(requests[place]) for place in sorted(chosen)])
    rows = Counter(next((one for one in found if one.fits(plain)), None) for plain in map(_plain, requests))
    rest = rows.pop(None, 0)
    ranked = sorted((-count, one.shown()) for one, count in rows.items() if one is not None)
    return [RequestTemplate(text, -count) for count, text in ranked] + [RequestTemplate(SLOT, rest)] * bool(rest)


def _plain(text: str) -> str:
    """What of a request is looked at, its words with single spaces between."""
    half = LONGEST // 2
    return " ".join((text if len(text) <= LONGEST else f"{text[:half]} {text[-half:]}").split())


@dataclass(frozen=True)
class _Template:
    """A template's words.

    Attributes:
        pieces: the words between the slots, with a space at either side, in order.
        first: whether a request begins with them.
        last: whether it ends with them.
    """

    pieces: tuple[str, ...]
    first: bool
    last: bool

    def fits(self, plain: str) -> bool:
        """Whether a request is written by it."""
        text, at = f" {plain} ", 0
        if self.first and self.last and len(self.pieces) == 1:
            return text == self.pieces[0]
        if (self.first and not text.startswith(self.pieces[0])) or (self.last and not text.endswith(self.pieces[-1])):
            return False
        for piece in self.pieces:
            at = text.find(piece, at) + len(piece) - 1  # the space may be the next piece's, too
            if at < len(piece) - 1:
                return False
        return True

    def shown(self) -> str:
        """The pattern, shortened."""
        ends = ("" if self.first else f"{SLOT} ", "" if self.last else f" {SLOT}")
        text = ends[0] + f" {SLOT} ".join(piece.strip() for piece in self.pieces) + ends[1]
        return text if len(text) <= SHOWN else f"{text[: SHOWN // 2].rstrip()} … {text[-SHOWN // 2 :].lstrip()}"


def _mined(plain: list[str]) -> list[_Template]:
    """Templates, in the order in which they are tried.

    What all requests share is a frame round other templates, if these account for nearly all of them; else it is the
    template.
    """
    runs = _Runs.of(plain)
    fewest = max(FEWEST, round(LEAST_SHARE * len(plain)))
    shared = runs.groups(fewest)
    most = FITTING * len(plain)
    framed, missed = _greedy(runs, plain, [group for group in shared if len(group[0]) < most], fewest)
    frames = [group for group in shared if len(group[0]) >= most]
    if frames and len(missed) > len(plain) - most:
        return _greedy(runs, plain, frames, fewest)[0]
    return framed


def _greedy(runs: "_Runs", plain: list[str], groups: list["_Group"], fewest: int) -> tuple[list[_Template], Any]:
    """Templates from groups of requests, those first that account for most requests by most words; and who is left."""
    left = np.ones(len(plain), bool)
    queue = [(-len(rows) * weight**2, place) for place, (rows, weight) in enumerate(groups)]
    heapq.heapify(queue)
    found: list[_Template] = []
    while queue and len(found) < MOST:
        _, place = heapq.heappop(queue)
        rows, weight = groups[place]
        rows = rows[left[rows]]
        score = -len(rows) * weight**2
        if len(rows) < fewest:
            continue
        if queue and score > queue[0][0]:
            heapq.heappush(queue, (score, place))
            continue
        if (template := runs.template(rows, plain)) is not None:
            left[[row for row in np.flatnonzero(left) if template.fits(plain[row])]] = False
            found.append(template)
    return found, np.flatnonzero(left)


_Group = tuple[Any, int]
"""Requests, and how many runs are in just these."""


@dataclass(frozen=True)
class _Runs:
    """All runs of RUN words; a request's two ends are words, too.

    Attributes:
        hashes: of all runs, request by request.
        ends: (requests + 1,) where each request's begin and end.
    """

    hashes: Any
    ends: Any

    @classmethod
    def of(cls, plain: list[str]) -> "_Runs":
        """The runs of requests."""
        known: dict[str, int] = {}
        words = [[0, *(known.setdefault(word, len(known) + 1) for word in text.split()), 0] for text in plain]
        factors = np.array(random.Random(1).sample(range(1, 1 << 63, 2), RUN), np.uint64)
        each = []
        for some in words:
            numbers = np.array([*some, *[0] * (RUN - len(some))], np.uint64)
            each.append(sum(numbers[at : len(numbers) - RUN + 1 + at] * factors[at] for at in range(RUN)))
        ends = np.cumsum([0, *map(len, each)])
        return cls(np.concatenate(each) if each else np.zeros(0, np.uint64), ends)

    def groups(self, fewest: int) -> list[_Group]:
        """Sets of requests that share runs: the requests, and how many runs have that very set."""
        rows = np.repeat(np.arange(len(self.ends) - 1), np.diff(self.ends))
        order = np.lexsort((rows, self.hashes))
        hashes, rows = self.hashes[order], rows[order]
        new = np.append(True, (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1]))[: len(rows)]
        hashes, rows = hashes[new], rows[new]
        begins = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))[: len(rows)]
        ends = np.append(begins, len(rows))[1:]
        names = np.random.default_rng(0).integers(1 << 63, size=len(self.ends), dtype=np.uint64)
        sets = np.add.reduceat(names[rows], begins) if len(rows) else names[:0]
        _, first, weights = np.unique(sets, return_index=True, return_counts=True)
        found = zip(begins[first], ends[first], weights, strict=True)
        return [(rows[begin:end], int(weight)) for begin, end, weight in found if end - begin >= fewest]

    def template(self, rows: Any, plain: list[str]) -> _Template | None:
        """What the requests of a set have in common, in the order of the shortest of them; None if there is nothing."""
        each = [np.unique(self._of(row)) for row in rows]
        runs, counts = np.unique(np.concatenate(each), return_counts=True)
        base = min(rows, key=lambda row: len(plain[row]))
        common = np.isin(self._of(base), runs[counts >= FITTING * len(rows)])
        words = ["", *plain[base].split(), ""]
        together = [False, *(bool(common[max(0, at - RUN + 2) : at + 1].any()) for at in range(len(words) - 1))]
        pieces: list[list[str]] = []
        for word, joined in zip(words, together, strict=True):
            if joined:
                pieces[-1].append(word)
            else:
                pieces.append([word])
        kept = [piece for piece in pieces if len(piece) > 1]
        if not kept:
            return None
        return _Template(tuple(map(_spaced, kept)), kept[0][0] == "", kept[-1][-1] == "")

    def _of(self, row: int) -> Any:
        return self.hashes[self.ends[row] : self.ends[row + 1]]


def _spaced(words: list[str]) -> str:
    return f" {' '.join(words).strip()} "
