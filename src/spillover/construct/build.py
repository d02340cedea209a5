"""`spillover data build`: raw material through a recipe's filters into request templates, every row accounted for."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spillover.construct.candidate import Candidate, Sifted, sift
from spillover.construct.recipe import Recipe
from spillover.construct.scores import Tools
from spillover.data.folder import Dataset
from spillover.data.manifest import Manifest, Source, Step
from spillover.data.raw import RawRow, read_raw
from spillover.data.templates import Template, Templates, load_templates, with_mark
from spillover.display import Display
from spillover.errors import DataError, JudgeError
from spillover.judge.models import open_models
from spillover.records import Conversation


@dataclass(frozen=True)
class Order:
    """What is to be built.

    Attributes:
        recipe: by which rules.
        raw: a file or folder of raw material.
        lab: where a judge's verdicts are kept.
        judge: who judges what the raw material has no score for; None for nobody.
        rejudge: whether the judge is asked for all scores, also for those that are there.
        rows: how many are drawn of those that pass; all of them if not given.
        seed: of that draw.
        name: of the dataset; the recipe's if not given.
        licence: of the rows.
    """

    recipe: Recipe
    raw: Path
    lab: Path
    judge: str | None = None
    rejudge: bool = False
    rows: int | None = None
    seed: int = 0
    name: str | None = None
    licence: str = "unknown"


def build(order: Order, display: Display) -> Dataset:
    """The dataset. Nothing is written but a judge's verdicts, in the lab.

    Raises:
        DataError: raw material or templates are wrong, or too few rows are left.
        JudgeError: a score is missing and there is no judge, or it cannot judge; nothing has been filtered then.
    """
    templates = load_templates(order.recipe.templates)
    raw, sources = read_raw(order.raw)
    rows: Sequence[Candidate] = [Candidate(_marked(row)) for row in raw]
    steps: list[Step] = []
    with _tools(order, raw, display) as tools:
        for one in order.recipe.filters:
            settings = one.model_dump(mode="json", exclude={"name", "about"}, exclude_none=True)
            rows = _take(rows, one.step, one.sift(rows, tools), settings, steps)
    if order.rows is not None:
        rows = _take(rows, "sample", _draw(rows, order), {"rows": order.rows, "seed": order.seed}, steps)
    return _dataset(order, rows, _Made(sources, steps, templates, tools))


def _marked(row: RawRow) -> RawRow:
    return replace(row, code_template=with_mark(row.code_template))


@contextmanager
def _tools(order: Order, rows: Sequence[RawRow], display: Display) -> Iterator[Tools]:
    """What the filters need; a judge is opened only where one of them will ask it."""
    tools = Tools(None, order.rejudge, display)
    lacking = {one.score: sum(tools.lacks(row, one.score) for row in rows) for one in order.recipe.scores()}
    if not any(lacking.values()):
        if order.judge is not None:
            display.say(f"the raw rows have all scores, so {order.judge} was not asked; --rejudge asks it")
        yield tools
        return
    missing = ", ".join(f"{name} ({count} of {len(rows)})" for name, count in lacking.items() if count)
    if order.judge is None:
        raise _no_judge(missing, order.rejudge)
    display.say(f"{order.judge} is asked for at most {sum(lacking.values())} verdicts: {missing}")
    with open_models(order.lab) as models:
        judge = models.judge(order.judge)
        for one in order.recipe.scores():
            judge.rubric(one.asks)  # an unknown one is told before anybody is asked
        yield replace(tools, judge=judge)


def _no_judge(missing: str, rejudge: bool) -> JudgeError:
    remedy = "Name a judge: `--judge api:PROVIDER/MODEL`, or a folder or hub id of a chat model."
    if rejudge:
        return JudgeError("--rejudge needs a judge", remedy=remedy)
    return JudgeError(f"the raw rows lack scores that the recipe needs: {missing}", remedy=remedy)


def _take(
    rows: Sequence[Candidate], name: str, sifted: Sifted, settings: dict[str, Any], steps: list[Step]
) -> Sequence[Candidate]:
    """The rows that a filter left, with its step added to the steps. Raises DataError where it left none."""
    step = Step(
        name=name,
        about=sifted.about,
        before=len(rows),
        after=len(sifted.rows),
        dropped=sifted.dropped,
        settings=_told(settings, sifted),
    )
    if not sifted.rows:
        why = ", ".join(f"{reason} {count}" for reason, count in list(sifted.dropped.items())[:5])
        what = f"no row is left: the filter {name!r} dropped the last {len(rows)} ({why})"
        raise DataError(what, remedy="Change its settings in a recipe of your own, or give other raw material.")
    steps.append(step)
    return sifted.rows


def _told(settings: dict[str, Any], sifted: Sifted) -> dict[str, Any]:
    counts = {"counts": sifted.counts} if sifted.counts else {}
    return {**settings, **sifted.settings, **counts}


def _draw(rows: Sequence[Candidate], order: Order) -> Sifted:
    """So many of the rows, by the seed, in their order."""
    assert order.rows is not None, "asked for only then"
    if order.rows > len(rows):
        what = f"{order.rows} rows are wanted, and only {len(rows)} pass the filters"
        raise DataError(what, where=order.raw, remedy="Lower --rows, or give more raw material.")
    drawn = set(random.Random(order.seed).sample(range(len(rows)), order.rows))
    reasons = [None if place in drawn else "not drawn" for place in range(len(rows))]
    return sift(rows, reasons, "Draws rows at random, by the seed; they stay in their order.")


@dataclass(frozen=True)
class _Made:
    """What a manifest says of how rows were made."""

    sources: Sequence[Source]
    steps: Sequence[Step]
    templates: Templates
    tools: Tools


def _dataset(order: Order, rows: Sequence[Candidate], made: _Made) -> Dataset:
    chosen = [made.templates.choose(place, bool(one.row.code_template)) for place, one in enumerate(rows)]
    counts = {one.id: chosen.count(one) for family in made.templates.families.values() for one in family}
    manifest = Manifest(
        name=order.name or order.recipe.name,
        about=order.recipe.about.strip(),
        rows=len(rows),
        sources=tuple(made.sources),
        steps=(*made.steps, _asking(rows, chosen, made.templates)),
        templates=counts,
        seed=order.seed if order.rows is not None else None,
        models=(made.tools.judge.id,) if made.tools.judge is not None else (),
        licence=order.licence,
    )
    pairs = list(zip(rows, chosen, strict=True))
    return Dataset([_conversation(*one) for one in pairs], manifest, [_origin(*one) for one in pairs])


def _asking(rows: Sequence[Candidate], chosen: Sequence[Template], templates: Templates) -> Step:
    families = [one.family for one in chosen]
    counts = {name: families.count(name) for name in templates.families}
    bare = sum(not one.row.code_template for one in rows)
    return Step(
        name="templates",
        about="Puts every row into a request template by its place; without given code, into one of the task alone.",
        before=len(rows),
        after=len(rows),
        settings={"templates": templates.key(), "counts": {**counts, **({"without given code": bare} if bare else {})}},
    )


def _conversation(one: Candidate, template: Template) -> Conversation:
    request = template.fill(one.row.task, one.row.code_template)
    return Conversation(({"role": "user", "content": request}, {"role": "assistant", "content": one.row.code}))


def _origin(one: Candidate, template: Template) -> dict[str, Any]:
    return {"from": one.row.where, "template": template.id, **one.notes}
