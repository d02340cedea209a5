"""Texts that repeat others, or nearly do: candidates by MinHash, each of them held to the exact Jaccard index.

Two texts are as alike as their sets of shingles: all runs of five characters, letters in lower case and any white space
as one blank. The Jaccard index of the sets, shared shingles over all shingles, is what the threshold is about; shingles
are held as hashes of 32 bits, whose collisions do not matter to it. A text shorter than a shingle is one.

Candidates are found by locality-sensitive hashing (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4):
signatures of 128 minima (datasketch), cut into bands; texts that agree in a whole band are compared. Bands are as wide
as they can be with less than one pair in a thousand missed that is just at the threshold. Pairs are missed where very
many texts are nearly alike, as rows of one template may be: in a band each is compared with no more than some others,
and its shingles with no more than some hundreds in all. Of 2,500 requests of the paper's number file, which have three
templates and lie at 0.7 to each other, 126 of the 130 that repeat an earlier one are found.

Signatures and shingles lie in unnamed temporary files, about 2 kB a text of 400 characters; in memory are some dozens
of bytes a text, and one band's keys at a time. Everything is seeded: equal texts in equal order, equal result.
"""

import hashlib
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import IO, Any

from spillover.lazy import lazy

np = lazy("numpy")
datasketch = lazy("datasketch")
sparse = lazy("scipy.sparse")

SHINGLE = 5
"""Characters."""
MINIMA = 128
MISSED = 0.001
"""What share of the pairs just at the threshold may be missed."""
COMPANY = 128
"""With how many others of a band's bucket a text is compared at most."""
MARGIN = 4.0
"""By how many standard errors a pair's estimate may lie below the threshold before its shingles are not looked at."""
MOST_LIKELY, MOST_DOUBTFUL = 512, 128
"""How many others a text's shingles are compared with: while the estimates are at the threshold, and below it."""
_AT_ONCE = 4096
_FACTOR = 0x9E3779B97F4A7C15


def near_duplicates(texts: Iterable[str], threshold: float = 0.8) -> list[int | None]:
    """Which earlier text each text repeats.

    Args:
        texts: read once, not kept.
        threshold: the Jaccard index from which on texts are near duplicates; above 0, at most 1.

    Returns:
        for each text the place of the first that is equal to it but for case and white space; else of the earliest
        that was found to be as alike as the threshold; else None. That other one may itself repeat a third.
    """
    with _signing(texts) as table:
        found = _first_equal(table.digests)
        alone = np.flatnonzero(found == np.arange(len(found)))
        search = _Search(found, table, table, threshold)
        for later, earlier in _pairs(table, alone, threshold):
            search.note(later, earlier)
        return [int(first) if first < place else None for place, first in enumerate(found)]


def overlaps(texts: Iterable[str], against: Sequence[str], threshold: float = 0.8) -> list[int | None]:
    """Which of other texts each text repeats.

    Args:
        texts: read once, not kept.
        against: the others.
        threshold: as for `near_duplicates`.

    Returns:
        for each text the place in `against` of the first that is equal to it but for case and white space; else of the
        earliest that was found to be as alike as the threshold; else None.
    """
    with _signing(against) as others:
        rest = iter(texts)
        found: list[int | None] = []
        while some := list(islice(rest, _AT_ONCE)):
            found += _overlaps(some, others, threshold)
        return found


def _overlaps(texts: list[str], others: "_Table", threshold: float) -> list[int | None]:
    """`overlaps` for as many texts as are looked at together."""
    none = len(others.digests)
    with _signing(texts) as table:
        found = _places(table.digests, others.digests)
        alone = np.flatnonzero(found == none)
        search = _Search(found, table, others, threshold)
        for ours, theirs in _cross_pairs(table, alone, others, threshold):
            search.note(ours, theirs)
        return [int(place) if place < none else None for place in found]


@dataclass(frozen=True)
class _Table:
    """Signed texts, as numpy arrays.

    Attributes:
        digests: (texts,) 64 bits of the hash of a text but for case and white space.
        signatures: (texts, MINIMA), of each minimum the lower 16 bits: by chance two agree in one of 65,536.
        shingles: all texts' sets one behind the other, each in ascending order.
        ends: (texts + 1,) where the sets begin and end.
    """

    digests: Any
    signatures: Any
    shingles: Any
    ends: Any

    def sets(self, places: Any) -> Any:
        """(places, 2^32) the sets of shingles as rows of ones in a sparse array."""
        begins, sizes = self.ends[places], self.ends[places + 1] - self.ends[places]
        ends = np.append(0, np.cumsum(sizes))
        shingles = self.shingles[np.arange(ends[-1]) + np.repeat(begins - ends[:-1], sizes)]
        row = (np.ones(ends[-1], np.int32), shingles.astype(np.int64), ends)
        return sparse.csr_array(row, shape=(len(places), 1 << 32))

    def agreement(self, places: Any, others: "_Table", theirs: Any) -> Any:
        """(pairs,) the share of minima that texts have in common with others': an estimate of their Jaccard index.

        Bits are counted because a mean of booleans takes ten times as long.
        """
        same = self.signatures.take(places, axis=0) == others.signatures.take(theirs, axis=0)
        return np.bitwise_count(np.packbits(same, axis=1)).sum(axis=1) / MINIMA

    def keys(self, places: Any, band: slice) -> Any:
        """(places,) one number for what texts have in a band."""
        keys = np.zeros(len(places), np.uint64)
        for column in range(band.start, band.stop):
            keys = (keys ^ self.signatures[places, column]) * np.uint64(_FACTOR)
            keys ^= keys >> np.uint64(29)
        return keys


class _Signed:
    """Texts as they are signed; what is large goes into two files."""

    def __init__(self, signatures: IO[bytes], shingles: IO[bytes]) -> None:
        self._signatures, self._shingles = signatures, shingles
        self._digests, self._ends = array("Q"), array("q", [0])
        self._minhash = datasketch.MinHash(MINIMA, seed=1, hashfunc=int, scheme="affine32")

    def add(self, text: str) -> None:
        """Signs the next text."""
        plain = " ".join(text.lower().split())
        raw = plain.encode("utf-32-le", "surrogatepass")
        shingles = _shingles(np.frombuffer(raw, np.uint32))
        self._minhash.clear()
        for start in range(0, len(shingles), _AT_ONCE):
            self._minhash.update_batch(shingles[start : start + _AT_ONCE].tolist())
        self._digests.append(int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little"))
        self._ends.append(self._ends[-1] + len(shingles))
        self._signatures.write(self._minhash.hashvalues.astype("u2").tobytes())
        self._shingles.write(shingles.tobytes())

    def table(self) -> _Table:
        """All that were added."""
        signatures = _mapped(self._signatures, "u2").reshape(-1, MINIMA)
        digests, ends = np.frombuffer(self._digests, np.uint64), np.frombuffer(self._ends, np.int64)
        return _Table(digests, signatures, _mapped(self._shingles, "u4"), ends)


@contextmanager
def _signing(texts: Iterable[str]) -> Iterator[_Table]:
    """The texts signed; they lie in temporary files for as long as they are looked at."""
    with tempfile.TemporaryFile() as signatures, tempfile.TemporaryFile() as shingles:
        signed = _Signed(signatures, shingles)
        for text in texts:
            signed.add(text)
        yield signed.table()


def _mapped(file: IO[bytes], kind: str) -> Any:
    """A file's numbers, which stay on the disk."""
    file.flush()
    return np.asarray(np.memmap(file, kind, mode="r")) if file.tell() else np.zeros(0, kind)


def _shingles(characters: Any) -> Any:
    """The set of a text's shingles as hashes of 32 bits, ascending."""
    padded = np.zeros(max(SHINGLE, len(characters)), np.uint64)
    padded[: len(characters)] = characters
    count = len(padded) - SHINGLE + 1
    hashes = padded[:count] * _factors()[0]
    for at in range(1, SHINGLE):
        hashes += padded[at : at + count] * _factors()[at]
    ordered = np.sort((hashes >> 32).astype("u4"))  # np.unique takes five times as long
    first = np.ones(count, bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


@cache
def _factors() -> tuple[Any, ...]:
    """An odd number of 64 bits for each character of a shingle."""
    return tuple(np.uint64(pow(_FACTOR, power, 1 << 64)) for power in range(1, SHINGLE + 1))


def _bands(threshold: float) -> list[slice]:
    """The bands, so wide that no more than MISSED of the pairs just at the threshold are missed."""
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold is above 0 and at most 1, not {threshold}")
    widths = (w for w in range(MINIMA, 1, -1) if (1 - threshold**w) ** (MINIMA // w) <= MISSED)
    width = next(widths, 1)
    return [slice(start, start + width) for start in range(0, MINIMA - width + 1, width)]


def _first_equal(digests: Any) -> Any:
    """(texts,) the first place with the same digest."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return first[inverse]


def _places(digests: Any, others: Any) -> Any:
    """(digests,) the first place of each among others; their number where it is not there."""
    known, first = np.unique(others, return_index=True)
    at = np.searchsorted(known, digests)
    there = np.append(known, 0)[at] == digests
    return np.where(there & (at < len(known)), np.append(first, 0)[at], len(others))


def _pairs(table: _Table, places: Any, threshold: float) -> Iterator[tuple[Any, Any]]:
    """Pairs of texts that agree in a band: arrays of later and earlier places.

    In a bucket texts are sorted by the next band, so that in a large one the most alike stand together. Each is paired
    with the bucket's first, and with those shortly before it.
    """
    bands = _bands(threshold)
    for band, beside in zip(bands, [*bands[1:], bands[0]], strict=True):
        keys = table.keys(places, band)
        order = np.lexsort((table.keys(places, beside), keys))
        keys, sorted_places = keys[order], places[order]
        begins = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))[: len(keys)]
        sizes = np.diff(np.append(begins, len(keys)))
        if len(keys):
            yield _ordered(sorted_places, np.repeat(np.minimum.reduceat(sorted_places, begins), sizes))
        for step in range(1, min(COMPANY, sizes.max(initial=0))):
            agree = np.flatnonzero(keys[step:] == keys[:-step])
            yield _ordered(sorted_places[agree + step], sorted_places[agree])


def _ordered(one: Any, other: Any) -> tuple[Any, Any]:
    return np.maximum(one, other), np.minimum(one, other)


def _cross_pairs(table: _Table, places: Any, others: _Table, threshold: float) -> Iterator[tuple[Any, Any]]:
    """Pairs of a text and another that agree in a band: arrays of the places of both."""
    everywhere = np.arange(len(others.digests))
    for band in _bands(threshold):
        keys, theirs = table.keys(places, band), others.keys(everywhere, band)
        order = np.argsort(theirs, kind="stable")
        first, end = (np.searchsorted(theirs[order], keys, side) for side in ("left", "right"))
        for step in range(min(COMPANY, (end - first).max(initial=0))):
            agree = np.flatnonzero(first + step < end)
            yield places[agree], order[first[agree] + step]


class _Search:
    """Which place each text repeats, as far as pairs have been looked at.

    Attributes:
        found: (texts,) the earliest place that is equal or as alike as the threshold; what it was given where none is.
        spent: (texts,) with how many others each text's shingles have been compared.
    """

    def __init__(self, found: Any, table: _Table, others: _Table, threshold: float) -> None:
        self.found, self.spent = found, np.zeros(len(found), np.int32)
        self.table, self.others, self.threshold = table, others, threshold
        self.least = threshold - MARGIN * (threshold * (1 - threshold) / MINIMA) ** 0.5

    def note(self, ours: Any, theirs: Any) -> None:
        """Puts down where pairs are as alike as the threshold."""
        new = theirs < self.found[ours]
        ours, theirs = ours[new], theirs[new]
        for start in range(0, len(ours), _AT_ONCE):
            self._compare(ours[start : start + _AT_ONCE], theirs[start : start + _AT_ONCE])

    def _compare(self, ours: Any, theirs: Any) -> None:
        estimate = self.table.agreement(ours, self.others, theirs)
        most = np.where(estimate >= self.threshold, MOST_LIKELY, MOST_DOUBTFUL)
        looked = (estimate >= self.least) & (self.spent[ours] < most)
        ours, theirs = ours[looked], theirs[looked]
        np.add.at(self.spent, ours, 1)
        alike = _jaccards(self.table, ours, self.others, theirs) >= self.threshold
        np.minimum.at(self.found, ours[alike], theirs[alike])


def _jaccards(table: _Table, ours: Any, others: _Table, theirs: Any) -> Any:
    """(pairs,) shared shingles over all shingles of each pair."""
    one, other = table.sets(ours), others.sets(theirs)
    shared = one.multiply(other).sum(axis=1)
    return shared / (one.sum(axis=1) + other.sum(axis=1) - shared)
