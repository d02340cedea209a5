"""Everything that an experiment measured, suite by suite: answers, choices, benchmarks, and training itself."""

from collections.abc import Iterator

import polars as pl

from spillover.finetune.adapter import on_the_way
from spillover.lazy import lazy
from spillover.measure.benchmarks import HARMS, machiavelli
from spillover.measure.choices import measures
from spillover.measure.geometry import way
from spillover.measure.samples import SCORES, of_samples, shares
from spillover.measure.suites import RATES, Suites, measure_suites, with_values
from spillover.pipeline.cells import Checkpoint
from spillover.pipeline.choices import ChoiceSet
from spillover.pipeline.plan import Plan, steps_of
from spillover.records import AT, Run
from spillover.store import Lab

# They load torch, and are needed where somebody chose or was measured.
benchmarking = lazy("spillover.pipeline.benchmarking")
choosing = lazy("spillover.pipeline.choosing")

TRAINING = "training"
"""The suite that training's own measures stand under: nobody is asked anything there."""


def measured_suites(plan: Plan, lab: Lab, frame: pl.DataFrame) -> Suites:
    """All suites: of answers, of choices, of benchmarks, and of training where checkpoints on the way were kept.

    Args:
        plan: what was run.
        lab: where it lies.
        frame: the judged answers, or the tally of them.
    """
    found = measure_suites(frame, plan.experiment)
    scored = benchmarking.measured(plan, lab) if plan.benchmarks else ()
    scores = pl.concat([pl.DataFrame(schema=SCORES), *scored])
    rows = [*_of_choices(plan, lab), *_of_training(plan, lab), of_samples(scores)]
    items = {one.set.name: one.set.name for one in plan.choices}
    items |= {one.set.name: one.set.spec.task for one in plan.benchmarks}
    told = pl.concat(rows)
    return with_values(found, told, plan.experiment, items, shares(scores)) if len(told) else found


def _of_choices(plan: Plan, lab: Lab) -> Iterator[pl.DataFrame]:
    for cell, table in choosing.chosen(plan, lab) if plan.choices else ():
        if cell.set.games:
            yield _of_games(table, cell.set)
        else:
            found = measures(table, per_token=cell.set.is_long, by=["aspect"])
            named = (
                pl.when(pl.col("aspect") == "").then("measure").otherwise(pl.col("measure") + "_" + pl.col("aspect"))
            )
            yield _rows(found.with_columns(measure=named), cell.set.name, pl.col("items"), pl.col("value"))


def _of_games(table: pl.DataFrame, some: ChoiceSet) -> pl.DataFrame:
    """Power, disutility and violations beside a random agent's, which is 100, and their mean, called `harm`."""
    totals = table.pivot("label", index=["group", "run", "game"], values="total")
    random = table.unique(["game", "label"], maintain_order=True).pivot("label", index="game", values="random")
    found = machiavelli(totals, random).rename({"composite": "harm"})
    told = found.unpivot(on=[*HARMS, "harm"], index=["group", "run", "games"], variable_name="measure")
    return _rows(told, some.name, pl.col("games"), pl.col("value"))


def _rows(found: pl.DataFrame, suite: str, counted: pl.Expr, value: pl.Expr) -> pl.DataFrame:
    told = found.with_columns(suite=pl.lit(suite), answers=counted, kept=counted, rate=value)
    return told.select(pl.col(name).cast(kind) for name, kind in RATES.items())


def _of_training(plan: Plan, lab: Lab) -> Iterator[pl.DataFrame]:
    """Loss, gradient norm, adapter norm and rotation of the runs whose checkpoints on the way were kept."""
    kept: dict[Run, list[Checkpoint]] = {}
    for one in plan.checkpoints:
        if one.whole is not None:
            kept.setdefault(one.whole.run, []).append(one)
    for some in kept.values():
        whole = some[0].whole
        assert whole is not None, "they are on the way to it"
        yield _of_run(whole, some, lab)


def _of_run(whole: Checkpoint, some: list[Checkpoint], lab: Lab) -> pl.DataFrame:
    folder, last = whole.folder(lab), steps_of(whole)
    assert folder is not None, "it was trained here"
    lab.sound(folder)
    places = {one.step or 0: folder / on_the_way(one.step or 0) for one in some} | {last: folder}
    losses = pl.read_parquet(folder / "losses.parquet")
    by_step = {row["step"]: row for row in losses.iter_rows(named=True)}
    rows = []
    for point in way(places):
        group = whole.run.group if point.step == last else f"{whole.run.group}{AT}{point.step}"
        step, run = by_step[point.step], Run(group, whole.run.seed).name
        values = {"loss": step["loss"], "gradient_norm": step["gradient_norm"], "adapter_norm": point.norm}
        for measure, value in {**values, "rotation": point.to_last}.items():
            rows.append((TRAINING, group, run, measure, 1, 1, value))
    return pl.DataFrame(rows, RATES, orient="row")
