"""A rubric's verdicts as they lie in a lab: what they say is held in memory, found by pair; their tables are not."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from spillover.pipeline.parts import parts, schema
from spillover.records import VERDICT_COLUMNS

FILE, KEY, CHECK = "file", "key", "check"
FEW = pl.Categorical(pl.Categories("said", "spillover", physical=pl.UInt16))
"""The type of texts of which a rubric's verdicts have few different ones."""
SAID = {name: pl.Float64() if name == "value" else FEW for name in ("value", "label", "reason", "judge", "rubric")}
KEYS = (pl.col("pair").hash(0).alias(KEY), pl.col("pair").hash(1).cast(pl.UInt32, wrap_numerical=True).alias(CHECK))
"""What stands for a pair in memory: 96 bits of the 128 that its name has."""


@dataclass(frozen=True)
class Verdicts:
    """What a rubric's verdicts say, some thirty bytes each; their tables stay in the lab.

    Attributes:
        files: the parts, in the order in which they were written.
        held: in the order of the pairs' keys, and of equal ones in the order in which they were written.
    """

    files: tuple[Path, ...]
    held: pl.DataFrame

    def of(self, pairs: pl.Series) -> pl.DataFrame:
        """The verdicts of those of the pairs that have one, without their tables.

        A pair that was judged again, since the judge had failed, is there once: with the later verdict.
        """
        rows = self._rows(pairs)
        there = pairs.filter(pl.Series(rows >= 0)).alias("pair")
        return self.held[rows[rows >= 0]].select(there, *SAID).cast({FEW: pl.String})

    def tables(self, pairs: pl.Series) -> pl.DataFrame:
        """The tables that the verdicts of some pairs were read from."""
        rows = self._rows(pairs)
        files = [self.files[place] for place in self.held[rows[rows >= 0]][FILE].unique().sort()]
        if not files:
            return pl.DataFrame(schema={"pair": pl.String, "table": pl.String})
        # The reader leaves packed what is not asked for.
        those = pl.col("pair").hash().is_in(pairs.hash().unique().implode())
        found = pl.scan_parquet(files).select("pair", "table").filter(those).collect(engine="streaming")
        return found.unique("pair", keep="last", maintain_order=True)

    def _rows(self, pairs: pl.Series) -> NDArray[np.int64]:
        """Where the verdict of each pair is held; -1 where there is none."""
        keys, checks = self.held[KEY].to_numpy(), self.held[CHECK].to_numpy()
        if not len(keys):
            return np.full(len(pairs), -1)
        wanted = pairs.alias("pair").to_frame().select(*KEYS)
        order = wanted[KEY].arg_sort().to_numpy()  # neighbours are found near each other
        sought, told = wanted[KEY].to_numpy()[order], wanted[CHECK].to_numpy()[order]
        rows: NDArray[np.int64] = np.searchsorted(keys, sought, side="right") - 1
        while (other := (rows >= 0) & (keys[rows] == sought) & (checks[rows] != told)).any():
            rows[other] -= 1
        found = np.empty_like(rows)
        found[order] = np.where((rows >= 0) & (keys[rows] == sought), rows, -1)
        return found


def find_verdicts(folder: Path) -> Verdicts:
    """A rubric's verdicts that are in the lab: of one experiment's answers and of any others' by the same judge."""
    files = parts(folder)
    if not files:
        every = pl.DataFrame(schema={**schema(VERDICT_COLUMNS), FILE: pl.UInt16}).lazy()
    else:
        number = pl.col(FILE).cast(pl.Enum([str(file) for file in files])).to_physical()
        every = pl.scan_parquet(files, include_file_paths=FILE).with_columns(number)
    held = every.select(*KEYS, FILE, *(pl.col(name).cast(kind) for name, kind in SAID.items()))
    return Verdicts(tuple(files), held.collect(engine="streaming").sort(KEY, maintain_order=True))
