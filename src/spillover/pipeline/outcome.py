"""The end of the flow: verdicts become rates, rates become `numbers.json`, the figure and the page."""

import time
from pathlib import Path
from typing import Any

import polars as pl

from spillover.errors import LabError
from spillover.judge.judge import TruthJudge
from spillover.judge.rubrics import Rubric
from spillover.measure.metrics import agreement, measure
from spillover.measure.sweep import sweep
from spillover.measure.table import READ, judged, kept_and_set_aside
from spillover.pipeline.growing import tried
from spillover.pipeline.measured import measured_suites
from spillover.pipeline.parts import EFFECT, FAILED, failed_answers
from spillover.pipeline.plan import Plan, steps_of
from spillover.pipeline.stages import answers, seconds, unjudged, verdict_frame, verdicts
from spillover.records import Pair
from spillover.report.drawing import draw, draw_thresholds
from spillover.report.figures import save_figure
from spillover.report.page import render_page
from spillover.store import Lab, provenance, read_json, write_json

TRUTH = "truth_"


def report(plan: Plan, lab: Lab) -> Path:
    """Measures what was judged and writes the report's folder.

    Raises LabError where answers or verdicts are missing.
    """
    began = time.monotonic()
    frame = judged_answers(plan, lab)
    measured = measure(frame, plan.experiment)
    suites = measured_suites(plan, lab, frame)
    measuring = time.monotonic() - began
    numbers: dict[str, Any] = {
        "experiment": plan.experiment.name,
        "title": plan.experiment.title,
        "base": plan.experiment.base,
        "is_miniature": plan.base.is_miniature,
        **measured.as_dict(),
        "suites": suites.numbers,
        "thresholds": sweep(frame, plan.experiment),
        "skipped": plan.skipped,
        "steps": {one.run.group: steps_of(one) for one in plan.tuned},
        "failed": _failed(plan, frame),
        "adapters": _effects(plan, lab),
        "judge": _judge_numbers(plan, frame),
        "seconds": {**seconds(plan, lab), "measure": measuring},
    }
    with lab.whole(plan.report_folder(lab), {"key": plan.key, "experiment": _settings(plan)}) as (folder, notes):
        shown = kept_and_set_aside(_shown(frame), plan.experiment.thresholds)
        shown.write_parquet(folder / "answers.parquet")
        figure = draw(numbers, measured.cells, suites.rates, plan.experiment.figure, plan.experiment.thresholds)
        saved = save_figure(figure, folder / plan.experiment.name)
        if any(numbers["thresholds"].values()):
            save_figure(draw_thresholds(numbers), folder / "thresholds")
        svg = next(path for path in saved if path.suffix == ".svg").read_text(encoding="utf-8")
        numbers["seconds"]["report"] = time.monotonic() - began - measuring
        page = render_page(numbers, measured.cells, shown, _settings(plan), _hashes(plan), provenance(), svg)
        (folder / "report.html").write_text(page, encoding="utf-8")
        numbers["seconds"]["report"] = time.monotonic() - began - measuring
        suites.rates.write_csv(folder / "rates.csv")
        write_json(folder / "numbers.json", numbers)
        notes["key"], notes["failed"] = plan.key, sum(numbers["failed"].values())
        if notes["failed"]:
            notes["tried"] = tried(plan, lab)
    return plan.report_folder(lab)


def _effects(plan: Plan, lab: Lab) -> dict[str, Any]:
    """By run, how much its adapter was seen to change the base, nats a token; only runs that have an adapter."""
    headline = [cell for cell in plan.cells if cell.suite == plan.experiment.headline]
    told = {cell.checkpoint.run.name: read_json(cell.folder(lab) / "spec.json").get(EFFECT) for cell in headline}
    return {run: effect for run, effect in told.items() if effect is not None}


def _failed(plan: Plan, frame: pl.DataFrame) -> dict[str, int]:
    """How many answers, and how many answers' verdicts, a provider failed to give: they may be tried again."""
    return {
        "answers": frame.filter(failed_answers()).height,
        "verdicts": sum(frame.filter(pl.col(f"{name}_reason") == FAILED).height for name in plan.rubrics),
    }


def judged_answers(plan: Plan, lab: Lab) -> pl.DataFrame:
    """Every answer with its verdicts; on a miniature also with ground truth, in columns `truth_RUBRIC`.

    Raises LabError where answers or verdicts are missing.
    """
    asked = answers(plan, lab)
    for rubric in plan.rubrics.values():
        if unjudged(plan, lab, asked, rubric):
            raise LabError(
                "verdicts are missing",
                where=plan.verdict_folder(lab, rubric),
                remedy="Run `spillover judge` with this experiment first.",
            )
    rubrics = {name: list(suite.rubrics) for name, suite in plan.experiment.suites.items()}
    found = {name: verdicts(plan, lab, rubric) for name, rubric in plan.rubrics.items()}
    for name in _graded(plan):
        suites = [suite for suite, names in rubrics.items() if name in names]
        found[TRUTH + name] = _truth(plan, asked.filter(pl.col("suite").is_in(suites)), name)
        for suite in suites:
            rubrics[suite] = [*rubrics[suite], TRUTH + name]
    # Ground truth is read off no table of probabilities.
    return judged(asked, found, rubrics).drop(f"{TRUTH}{name}_table" for name in _graded(plan))


def _shown(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns that people get: of ground truth only the values, since it has no probabilities."""
    return frame.drop(pl.selectors.matches(f"^{TRUTH}.*_(label|reason|table|judge|rubric)$"))


def _graded(plan: Plan) -> list[str]:
    """The rubrics that the world's ground truth can grade."""
    return [n for n, rubric in plan.rubrics.items() if rubric.by == "model"] if plan.of_world else []


def _truth(plan: Plan, asked: pl.DataFrame, rubric: str) -> pl.DataFrame:
    given = asked.filter(pl.col("outcome").is_null()).select(READ, "answer").unique(maintain_order=True)
    pairs = [Pair(q, a) for q, a in given.iter_rows()]
    return verdict_frame(pairs, TruthJudge().judge(pairs, plan.rubrics[rubric]), "truth", plan.rubrics[rubric])


def _judge_numbers(plan: Plan, frame: pl.DataFrame) -> dict[str, Any]:
    graded = {name: agreement(frame, name, TRUTH + name, plan.rubrics[name].threshold) for name in _graded(plan)}
    by = {name: _judge_of(plan, frame, rubric) for name, rubric in plan.rubrics.items()}
    models = [by[name] for name, rubric in plan.rubrics.items() if rubric.by == "model"]
    return {
        "id": models[0] if models else None,
        "rubrics": {name: plan.judge_key(rubric) for name, rubric in plan.rubrics.items()},
        "by": {name: {"judge": by[name], "rubric": rubric.key()} for name, rubric in plan.rubrics.items()},
        "agreement_with_truth": {name: {**one["answers"], "pairs": one["pairs"]} for name, one in graded.items()}
        or None,
    }


def _judge_of(plan: Plan, frame: pl.DataFrame, rubric: Rubric) -> str:
    """Who judged by a rubric, as its verdicts say: a provider's judge also says how it was read."""
    named = frame[f"{rubric.name}_judge"].drop_nulls()
    return str(named[0]) if len(named) else plan.judge_id(rubric)


def _settings(plan: Plan) -> dict[str, Any]:
    return plan.experiment.model_dump(mode="json", exclude={"miniature"})


def _hashes(plan: Plan) -> dict[str, str]:
    """What the result is made of, by hash."""
    return {
        "report": plan.key,
        "base": plan.base.key,
        **{f"data {name}": dataset.key for name, dataset in plan.datasets.items()},
        **{f"verdicts {name}": plan.judge_key(rubric) for name, rubric in plan.rubrics.items()},
    }
