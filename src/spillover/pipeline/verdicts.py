"""A rubric's verdicts as they lie in a lab: what they say is held in memory, found by pair; their tables are not."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from spillover.pipeline.parts import parts

FILE, KEY, CHECK = "file", "key", "check"
FEW = pl.Categorical(pl.Categories("said", "spillover", physical=pl.UInt16))
"""The type of texts of which a rubric's verdicts have few different ones."""
SAID = {name: pl.Float64() if name == "value" else FEW for name in ("value", "label", "reason", "judge", "rubric")}
PROBES = 64
"""Pairs by which is found out where the verdicts of all lie."""
Keys = NDArray[np.uint64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Verdicts:
    """What a rubric's verdicts say, some thirty bytes each; their tables stay in the lab.

    A pair is known by a hash of 64 bits; no two pairs that have verdicts have the same.

    Attributes:
        files: the parts, in the order in which they were written.
        held: what the verdicts say in that order, the part each is in, and its pair's key.
        order: the rows of `held` in the order of their keys.
        seed: of the hash.
    """

    files: tuple[Path, ...]
    held: pl.DataFrame
    order: Rows
    seed: int

    def of(self, pairs: pl.Series, like: Rows | None = None) -> pl.DataFrame:
        """What the verdict of each pair says, without its table; nulls where there is none.

        Args:
            pairs: their names.
            like: where they may be, see `rows`.
        """
        at = pl.Series(self.rows(pairs, like)).replace(-1, None)
        return self.held.select(pl.col(*SAID).gather(at)).cast({FEW: pl.String})

    def with_tables(self, pairs: pl.Series, like: Rows | None = None) -> pl.DataFrame:
        """As `of`, with the tables that the verdicts were read from."""
        rows = self.rows(pairs, like)
        files = self.held[FILE].gather(rows[rows >= 0]).unique().sort()
        if not len(files):
            return self.of(pairs, rows).with_columns(table=pl.lit(None, pl.String))
        # The reader leaves packed what is not asked for.
        those = pl.col("pair").hash().is_in(pairs.hash().unique().implode())
        every = pl.scan_parquet([self.files[number] for number in files]).select("pair", "table")
        tables = every.filter(those).collect(engine="streaming").unique("pair", keep="last", maintain_order=True)
        found = pairs.to_frame().join(tables, on="pair", how="left", maintain_order="left")
        return self.of(pairs, rows).hstack(found.select("table"))

    def rows(self, pairs: pl.Series, like: Rows | None = None) -> Rows:
        """Where the verdict of each pair is held; -1 where there is none.

        Args:
            pairs: their names.
            like: where another rubric's verdicts of these pairs are held: looked at first, and most are found there.
        """
        keys, sought = self.held[KEY].to_numpy(), pairs.hash(self.seed).to_numpy()
        if not len(keys):
            return np.full(len(sought), -1, np.int64)
        rows = self._near(sought) if like is None else np.where(like < len(keys), like, -1)
        lost = np.flatnonzero((rows < 0) | (keys[rows] != sought))
        lost = lost[np.argsort(sought[lost])]
        rows[lost] = _search(keys, self.order, sought[lost])
        return rows

    def _near(self, sought: Keys) -> Rows:
        """Where most of some keys are held; the others are not where it says.

        Answers are judged in their order, so verdicts of neighbours are neighbours: most are found in a stretch that
        fits into a processor's cache, which is several times faster than among all.
        """
        keys, turns = self.held[KEY].to_numpy(), np.argsort(sought)
        inturn = sought[turns]  # one that is sought in turn is found near the one before it
        probed = _search(keys, self.order, inturn[:: len(inturn) // PROBES + 1])
        middle = int(np.median(probed[probed >= 0])) if (probed >= 0).any() else 0
        start = max(0, middle - len(sought))
        near = keys[start : middle + len(sought)]
        order = np.argsort(near)
        at = np.searchsorted(near[order], inturn)
        rows = np.empty(len(sought), np.int64)
        rows[turns] = start + order[np.minimum(at, len(near) - 1)]
        return rows


def _search(keys: Keys, order: Rows, sought: Keys) -> Rows:
    """The row of each key that is sought, -1 where it is not there; `order` sorts the keys, and there are some."""
    at = np.searchsorted(keys, sought, sorter=order)
    rows = order[np.minimum(at, len(keys) - 1)]
    return np.where(keys[rows] == sought, rows, -1)


def find_verdicts(folder: Path) -> Verdicts:
    """A rubric's verdicts that are in the lab: of one experiment's answers and of any others' by the same judge.

    Of a pair that was judged again, since the judge had failed, the later verdict counts.
    """
    files = tuple(parts(folder))
    if not files:
        none = pl.DataFrame(schema={KEY: pl.UInt64, FILE: pl.UInt16, **SAID})
        return Verdicts(files, none, np.empty(0, np.int64), 0)
    for seed in count():
        found = _read(files, seed)
        order = found[KEY].arg_sort()
        inorder = found[KEY].gather(order)
        twice = inorder.filter(inorder == inorder.shift())
        same = found.filter(pl.col(KEY).is_in(twice.implode())) if len(twice) else found[:0]
        if same[KEY].n_unique() == same[CHECK].n_unique():
            break
    found = found.drop(CHECK)
    if len(twice):
        found = found.unique(KEY, keep="last", maintain_order=True)
        order = found[KEY].arg_sort()
    return Verdicts(files, found, order.to_numpy().astype(np.int64), seed)


def _read(files: tuple[Path, ...], seed: int) -> pl.DataFrame:
    """All verdicts as they are held, with a second hash of their pairs."""
    number = pl.col(FILE).cast(pl.Enum([str(file) for file in files])).to_physical()
    keys = (pl.col("pair").hash(seed).alias(KEY), pl.col("pair").hash(seed + 1).alias(CHECK))
    said = (pl.col(name).cast(kind) for name, kind in SAID.items())
    every = pl.scan_parquet(list(files), include_file_paths=FILE).select(*keys, number, *said)
    return every.collect(engine="streaming").rechunk()
