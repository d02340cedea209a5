"""Looking through a lab for what is not as it was written, and taking it out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from spillover.display import Display
from spillover.errors import LabError
from spillover.hashes import beside, check_part
from spillover.store import DONE, FOLDERS, PROVIDERS, WRITTEN, Lab, open_lab, read_json, reports_of

GROWING = ("ask", "judge")
"""Stages whose results grow part by part."""
SPEC = "spec.json"


@dataclass(frozen=True)
class Damage:
    """What is damaged, and what of the lab goes with it: the whole result, or the part of a growing one."""

    why: LabError
    result: Path


@dataclass(frozen=True)
class Checked:
    """How many results, and parts of growing ones, were looked at, and which of them are damaged."""

    count: int
    damages: tuple[Damage, ...]
    removed: bool


def check_lab(root: Path, *, remove: bool) -> Checked:
    """Looks at every finished result of a lab, and every part.

    Args:
        root: the lab's folder.
        remove: whether what is damaged is taken out, so that the next run makes it again, and with it every report.

    Raises LabError where there is no lab, or another process works in it.
    """
    if not root.is_dir():
        raise LabError("there is no lab here", where=root, remedy="Name one with --lab.")
    with open_lab(root) as lab:
        results = list(_results(lab))
        found = [damage for one in Display().track("check", results) if (damage := _damage(lab, one)) is not None]
        if remove and found:
            for damage in found:
                lab.remove(damage.result)
            for report in reports_of(lab.root):
                lab.remove(report / DONE)  # nobody knows what it was made from: it is made again
    return Checked(len(results), tuple(found), remove)


def _results(lab: Lab) -> Iterator[Path]:
    """Every whole result that says that it is finished, every growing one, and every part of these."""
    others = [stage for stage in FOLDERS if stage not in (*GROWING, PROVIDERS, WRITTEN)]
    places = [lab.root, *(lab.root / stage for stage in others)]
    yield from sorted(done.parent for place in places for done in place.glob(f"*/{DONE}"))
    for stage in GROWING:
        for folder in sorted((lab.root / stage).glob("*/")):
            yield folder
            yield from sorted(folder.glob("part-*.parquet"))


def _damage(lab: Lab, one: Path) -> Damage | None:
    try:
        if one.is_file():
            _check_part(one)
        elif one.parent.name in GROWING:
            read_json(one / SPEC)
        else:
            lab.sound(one)
    except LabError as error:
        return Damage(error, one)
    return None


def _check_part(part: Path) -> None:
    """Raises LabError also for a part of before, without a hash, that is no Parquet file any more."""
    check_part(part)
    if not beside(part).is_file():
        try:
            pl.read_parquet(part)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise LabError(f"is no Parquet file: {str(error).splitlines()[0]}", where=part) from None
