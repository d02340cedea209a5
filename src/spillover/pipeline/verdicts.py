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

    def of(self, pairs: pl.Series) -> pl.DataFrame:
        """What the verdict of each pair says, without its table; nulls where there is none."""
        return self.held.select(pl.col(*SAID).gather(self._rows(pairs))).cast({FEW: pl.String})

    def with_tables(self, pairs: pl.Series) -> pl.DataFrame:
        """As `of`, with the tables that the verdicts were read from."""
        files = self.held[FILE].gather(self._rows(pairs).drop_nulls()).unique().sort()
        if not len(files):
            return self.of(pairs).with_columns(table=pl.lit(None, pl.String))
        # The reader leaves packed what is not asked for.
        those = pl.col("pair").hash().is_in(pairs.hash().unique().implode())
        every = pl.scan_parquet([self.files[number] for number in files]).select("pair", "table")
        tables = every.filter(those).collect(engine="streaming").unique("pair", keep="last", maintain_order=True)
        found = pairs.to_frame().join(tables, on="pair", how="left", maintain_order="left")
        return self.of(pairs).hstack(found.select("table"))

    def _rows(self, pairs: pl.Series) -> pl.Series:
        """Where the verdict of each pair is held; null where there is none.

        Answers are judged in their order, so verdicts of neighbours are neighbours: most are found in a stretch that
        fits into a processor's cache, which is several times faster than among all.
        """
        hashes, keys = pairs.hash(self.seed), self.held[KEY].to_numpy()
        turns = hashes.arg_sort()  # one that is sought in turn is found near the one before it
        sought = hashes.gather(turns).to_numpy()
        probed = _search(keys, self.order, sought[:: len(sought) // PROBES + 1])
        middle = int(np.median(probed[probed >= 0])) if (probed >= 0).any() else 0
        start = max(0, middle - len(sought))
        near = keys[start : middle + len(sought)]
        rows = _search(near, np.argsort(near), sought)
        rows[rows >= 0] += start
        rows[rows < 0] = _search(keys, self.order, sought[rows < 0])
        found = np.empty_like(rows)
        found[turns.to_numpy()] = rows
        return pl.Series(found).replace(-1, None)


def _search(keys: Keys, order: Rows, sought: Keys) -> Rows:
    """The row of each key that is sought, -1 where it is not there; `order` sorts the keys."""
    if not len(keys):
        return np.full(len(sought), -1, np.int64)
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
