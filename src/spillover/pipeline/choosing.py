"""The stage that lets models choose: log-probabilities of given answers, and games that are played by them.

Unlike answers nothing is sampled, so a result is whole: one table a checkpoint and set.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from spillover.ask.games import LABELS, PLAYTHROUGHS, random_totals
from spillover.crew import Lost
from spillover.display import Display
from spillover.errors import LabError, SpecError
from spillover.measure.choices import choice_rows
from spillover.pipeline.cells import ChoiceCell
from spillover.pipeline.choices import ChoiceSet, Chosen
from spillover.pipeline.parts import SECONDS
from spillover.pipeline.plan import Plan
from spillover.pipeline.staff import Staff
from spillover.pipeline.workers import Workers
from spillover.store import Lab

TABLE = "choices.parquet"
PLAYED = {"group": pl.String, "run": pl.String, "game": pl.String, "label": pl.String} | {
    "total": pl.Float64,
    "random": pl.Float64,
}
"""Columns of a table of games: what a run came to in a game by each label, and what a random agent comes to."""
Chance = Mapping[str, Mapping[str, float]]
"""What a random agent comes to, by game and label."""


def choose(plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    """Lets every checkpoint choose that has not yet."""
    missing = [cell for cell in plan.choices if not lab.exists(cell.folder(lab))]
    if not missing:
        return
    began, played = time.monotonic(), {cell.set.key: cell.set for cell in missing if cell.set.games}
    chance = {key: _by_chance(some) for key, some in played.items()}
    work = sum(len(cell.set.items) or len(cell.set.games) for cell in missing)
    with Workers(plan, lab, staff, work) as workers, display.bar("choose", len(missing)) as bar:
        for number, found in workers.chosen((_model(cell, lab), cell.set) for cell in missing):
            cell = missing[number]
            if isinstance(found, Lost):
                staff.lost.append(f"what {cell.checkpoint.run.name} chooses in {cell.set.name}: {found.why}")
                continue
            table = _played(cell, found, chance[cell.set.key]) if cell.set.games else _scored(cell, found)
            spec = {"run": cell.checkpoint.run.name, "checkpoint": cell.checkpoint.key, "set": cell.set.name}
            with lab.whole(cell.folder(lab), spec) as (folder, notes):
                table.write_parquet(folder / TABLE)
                now = time.monotonic()
                notes[SECONDS], began = now - began, now  # the first also has what loading took
            bar.advance(1)


def _model(cell: ChoiceCell, lab: Lab) -> Path | None:
    """The adapter that chooses; providers' models show no probabilities, and plans have none that choose."""
    model = cell.checkpoint.model(lab)
    if isinstance(model, str):
        what = f"{model} does not show how likely given answers are"
        raise SpecError(what, where=f"choices.{cell.set.name}", remedy="Name the `groups` that lie here.")
    return model


def _scored(cell: ChoiceCell, found: Chosen) -> pl.DataFrame:
    return choice_rows(cell.checkpoint.run, cell.set.name, cell.set.items, found.scores, found.lengths)


def _played(cell: ChoiceCell, found: Chosen, chance: Chance) -> pl.DataFrame:
    """What the model comes to in each game, beside a random agent, by each label."""
    run = (cell.checkpoint.run.group, cell.checkpoint.run.name)
    rows = [
        (*run, game, label, totals[label], chance[game][label]) for game, totals in found.totals for label in LABELS
    ]
    return pl.DataFrame(rows, PLAYED, orient="row")


def _by_chance(some: ChoiceSet) -> Chance:
    """What a random agent comes to in each game, by label."""
    return {game.title: random_totals(game, PLAYTHROUGHS).model_dump() for game in some.games}


def chosen(plan: Plan, lab: Lab) -> Iterator[tuple[ChoiceCell, pl.DataFrame]]:
    """Every table that the plan wants, in the order of its cells.

    Raises LabError where one was not made yet.
    """
    for cell in plan.choices:
        folder = cell.folder(lab)
        if not lab.exists(folder):
            remedy = "Run `spillover ask` with this experiment first."
            raise LabError("what was chosen is missing", where=folder, remedy=remedy)
        yield cell, pl.read_parquet(folder / TABLE)
