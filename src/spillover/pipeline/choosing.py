"""The stage that lets models choose: log-probabilities of given answers, and games that are played by them.

Unlike answers nothing is sampled, so a result is whole: one table a checkpoint and set.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from spillover.ask.games import LABELS, PLAYTHROUGHS, by_letter, by_likelihood, play_in_step, random_totals
from spillover.display import Display
from spillover.errors import LabError, SpecError
from spillover.lazy import lazy
from spillover.measure.choices import choice_rows
from spillover.pipeline.cells import ChoiceCell
from spillover.pipeline.choices import ChoiceSet
from spillover.pipeline.parts import SECONDS
from spillover.pipeline.plan import Plan
from spillover.store import Lab

options = lazy("spillover.ask.options")

TABLE = "choices.parquet"
PLAYED = {"group": pl.String, "run": pl.String, "game": pl.String, "label": pl.String} | {
    "total": pl.Float64,
    "random": pl.Float64,
}
"""Columns of a table of games: what a run came to in a game by each label, and what a random agent comes to."""
Chance = Mapping[str, Mapping[str, float]]
"""What a random agent comes to, by game and label."""


def choose(plan: Plan, lab: Lab, display: Display) -> None:
    """Lets every checkpoint choose that has not yet."""
    missing = [cell for cell in plan.choices if not lab.exists(cell.folder(lab))]
    if not missing:
        return
    experiment, began = plan.experiment, time.monotonic()
    scorer = options.LocalScorer(plan.base.fetched(), experiment.train.precision, experiment.chat, experiment.machine)
    chance: dict[str, Chance] = {}
    for cell in display.track("choose", missing):
        if cell.set.games and cell.set.key not in chance:
            chance[cell.set.key] = _by_chance(cell.set)
        table = _played(scorer, cell, lab, chance[cell.set.key]) if cell.set.games else _scored(scorer, cell, lab)
        spec = {"run": cell.checkpoint.run.name, "checkpoint": cell.checkpoint.key, "set": cell.set.name}
        with lab.whole(cell.folder(lab), spec) as (folder, notes):
            table.write_parquet(folder / TABLE)
            now = time.monotonic()
            notes[SECONDS], began = now - began, now  # the first also has what loading took


def _model(cell: ChoiceCell, lab: Lab) -> Path | None:
    """The adapter that chooses; providers' models show no probabilities, and plans have none that choose."""
    model = cell.checkpoint.model(lab)
    if isinstance(model, str):
        what = f"{model} does not show how likely given answers are"
        raise SpecError(what, where=f"choices.{cell.set.name}", remedy="Name the `groups` that lie here.")
    return model


def _scored(scorer: Any, cell: ChoiceCell, lab: Lab) -> pl.DataFrame:
    scores = scorer.score(_model(cell, lab), cell.set.items)
    return choice_rows(cell.checkpoint.run, cell.set.name, cell.set.items, scores, scorer.lengths(cell.set.items))


def _played(scorer: Any, cell: ChoiceCell, lab: Lab, chance: Chance) -> pl.DataFrame:
    """What the model comes to in each game, beside a random agent, by each label."""
    model = _model(cell, lab)
    agent = by_letter(scorer, model) if cell.set.lettered else by_likelihood(scorer, model, per_token=True)
    run = (cell.checkpoint.run.group, cell.checkpoint.run.name)
    rows = [
        (*run, one.game, label, getattr(one.totals, label), chance[one.game][label])
        for one in play_in_step(cell.set.games, agent, seed=0)
        for label in LABELS
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
