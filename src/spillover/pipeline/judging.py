"""The stage that judges: whatever of an experiment's answers has no verdict yet, however many there are."""

import time
from collections.abc import Iterator, Sequence

import polars as pl

from spillover.batches import batched
from spillover.crew import Lost
from spillover.display import Display
from spillover.judge.rubrics import Rubric
from spillover.measure.table import READ
from spillover.pipeline.judged import read_answers, read_pairs, wanted_parts
from spillover.pipeline.parts import FAILED, part_paths, verdict_frame, write_rows
from spillover.pipeline.plan import Plan
from spillover.pipeline.staff import Staff
from spillover.pipeline.verdicts import Verdicts, find_verdicts
from spillover.pipeline.workers import Workers
from spillover.records import Pair, Verdict
from spillover.store import Lab


def judge(plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    """Judges every (question, answer) pair that has no verdict yet, by each rubric of its suite; equal pairs once.

    Raises LabError where some were not asked yet.
    """
    todo = unjudged(plan, lab)
    total = sum(len(pairs) for pairs in todo.values())
    if not total:
        return
    with Workers(plan, lab, staff, total) as workers, display.bar("judge", total) as bar:
        blocks = [(plan.rubrics[name], some) for name, pairs in todo.items() for some in batched(pairs, workers.pairs)]
        began = time.monotonic()
        for number, found in workers.judged(blocks):
            rubric, pairs = blocks[number]
            bar.advance(len(pairs))
            if isinstance(found, Lost):
                staff.lost.append(f"verdicts by {rubric.name}: {found.why}")
                continue
            now = time.monotonic()
            _write_verdicts(plan, lab, workers, rubric, pairs, found, now - began)
            began = now


def unjudged(plan: Plan, lab: Lab) -> dict[str, list[Pair]]:
    """By rubric, the different pairs that its suites hold and that have no verdict, or one that failed; in order.

    Answers pass by, and texts only where something is to be judged; only that is held, and some thirty bytes of each
    verdict that is there.
    """
    there = {name: find_verdicts(plan.verdict_folder(lab, rubric)) for name, rubric in plan.rubrics.items()}
    suites = plan.experiment.suites.items()
    judged_by = {name: [suite for suite, spec in suites if name in spec.rubrics] for name in plan.rubrics}

    def read_by(name: str, asked: pl.DataFrame) -> pl.DataFrame:
        return asked.filter(pl.col("outcome").is_null(), pl.col("suite").is_in(judged_by[name]))

    todo: dict[str, dict[str, Pair]] = {name: {} for name in plan.rubrics}
    for some in wanted_parts(plan, lab):
        known = read_pairs(some)
        lacking = [name for name in todo if _lacking(read_by(name, known)["pair"], there[name]).any()]
        if not lacking:
            continue
        asked = read_answers(some)
        for name in lacking:
            todo[name].update(_without(read_by(name, asked), there[name]))
    return {name: list(pairs.values()) for name, pairs in todo.items()}


def _lacking(pairs: pl.Series, there: Verdicts) -> pl.Series:
    """Which pairs have no verdict, or one that failed; also those whose names are not known."""
    said = there.of(pairs)
    return pairs.is_null() | said["judge"].is_null() | said["reason"].eq_missing(FAILED)


def _without(given: pl.DataFrame, there: Verdicts) -> Iterator[tuple[str, Pair]]:
    """Those pairs of some answers that have no verdict, or one that failed, by their keys."""
    different = given.unique("pair", keep="first", maintain_order=True)
    rows = different.filter(_lacking(different["pair"], there)).select("pair", READ, "answer")
    return ((pair, Pair(question, answer)) for pair, question, answer in rows.iter_rows())


def _write_verdicts(
    plan: Plan,
    lab: Lab,
    workers: Workers,
    rubric: Rubric,
    pairs: Sequence[Pair],
    found: Sequence[Verdict],
    spent: float,
) -> None:
    by = workers.judged_by(rubric)
    frame = verdict_frame(pairs, found, by, rubric)
    spec = {"rubric": rubric.model_dump(mode="json"), "judge": by}
    folder = plan.verdict_folder(lab, rubric)
    name = f"part-{len(part_paths(folder)):06d}.parquet"
    with lab.part(folder, name, spec) as aside:
        write_rows(aside, frame, spent, frame.filter(pl.col("reason") == FAILED).height)
