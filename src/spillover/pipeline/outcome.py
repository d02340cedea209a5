"""The end of the flow: verdicts become rates, rates become `numbers.json`, the figure and the page."""

import time
from pathlib import Path
from typing import Any

import polars as pl

from spillover.judge.rubrics import Rubric
from spillover.measure.metrics import Measurement, agreement, measure
from spillover.measure.suites import Suites
from spillover.measure.sweep import sweep
from spillover.measure.table import N
from spillover.pipeline.judged import TRUTH, JudgedAnswers
from spillover.pipeline.measured import measured_suites
from spillover.pipeline.parts import EFFECT, FAILED, SECONDS, failed_answers, parts, seconds_of, tried
from spillover.pipeline.plan import Plan, steps_of
from spillover.pipeline.seen import Seen, go_through
from spillover.report.drawing import draw, draw_thresholds
from spillover.report.figures import save_figure
from spillover.report.page import render_page
from spillover.store import Lab, provenance, read_json, write_json

ANSWERS = "answers.parquet"


def report(plan: Plan, lab: Lab) -> Path:
    """Measures what was judged and writes the report's folder.

    Raises LabError where answers or verdicts are missing.
    """
    began = time.monotonic()
    with lab.whole(plan.report_folder(lab), {"key": plan.key, "experiment": _settings(plan)}) as (folder, notes):
        seen = go_through(JudgedAnswers(plan, lab), folder / ANSWERS)
        measured = measure(seen.tally, plan.experiment)
        suites = measured_suites(plan, lab, seen.tally)
        measuring = time.monotonic() - began
        numbers = _numbers(plan, lab, seen, measured, suites)
        numbers["seconds"]["measure"] = measuring
        figure = draw(numbers, measured.cells, suites.rates, plan.experiment.figure, plan.experiment.thresholds)
        saved = save_figure(figure, folder / plan.experiment.name)
        if any(numbers["thresholds"].values()):
            save_figure(draw_thresholds(numbers), folder / "thresholds")
        svg = next(path for path in saved if path.suffix == ".svg").read_text(encoding="utf-8")
        numbers["seconds"]["report"] = time.monotonic() - began - measuring
        about = (_settings(plan), _hashes(plan), provenance())
        page = render_page(numbers, measured.cells, seen.shown, *about, svg, seen.answers)
        (folder / "report.html").write_text(page, encoding="utf-8")
        numbers["seconds"]["report"] = time.monotonic() - began - measuring
        suites.rates.write_csv(folder / "rates.csv")
        write_json(folder / "numbers.json", numbers)
        notes["key"], notes["failed"] = plan.key, sum(numbers["failed"].values())
        if notes["failed"]:
            notes["tried"] = tried(plan.growing_folders(lab))
    return plan.report_folder(lab)


def _numbers(plan: Plan, lab: Lab, seen: Seen, measured: Measurement, suites: Suites) -> dict[str, Any]:
    """What `numbers.json` says, but for the seconds that the report itself takes."""
    return {
        "experiment": plan.experiment.name,
        "title": plan.experiment.title,
        "base": plan.experiment.base,
        "is_miniature": plan.base.is_miniature,
        **measured.as_dict(),
        "suites": suites.numbers,
        "thresholds": sweep(seen.tally, plan.experiment),
        "skipped": plan.skipped,
        "steps": {one.run.group: steps_of(one) for one in plan.tuned},
        "failed": _failed(plan, seen.tally),
        "adapters": _effects(plan, lab),
        "judge": _judge_numbers(plan, seen),
        "seconds": seconds(plan, lab),
    }


def seconds(plan: Plan, lab: Lab) -> dict[str, float]:
    """Seconds that each stage took for the results of this plan, whenever they were made."""
    datasets = [dataset.folder(lab) for dataset in plan.datasets.values()]
    tuned = [folder for one in plan.tuned if (folder := one.folder(lab)) is not None]
    asked = [path for cell in plan.cells for path in parts(cell.folder(lab))]
    judged = [path for rubric in plan.rubrics.values() for path in parts(plan.verdict_folder(lab, rubric))]
    measured = {"inspect": sum(lab.done(cell.folder(lab))[SECONDS] for cell in plan.benchmarks)}
    return {
        "data": sum(lab.done(folder)[SECONDS] for folder in datasets),
        "finetune": sum(lab.done(folder)[SECONDS] for folder in tuned),
        "ask": sum(seconds_of(path) for path in asked),
        "choose": sum(lab.done(cell.folder(lab))[SECONDS] for cell in plan.choices),
        "judge": sum(seconds_of(path) for path in judged),
        **(measured if plan.benchmarks else {}),
    }


def _effects(plan: Plan, lab: Lab) -> dict[str, Any]:
    """By run, how much its adapter was seen to change the base, nats a token; only runs that have an adapter."""
    headline = [cell for cell in plan.cells if cell.suite == plan.experiment.headline]
    told = {cell.checkpoint.run.name: read_json(cell.folder(lab) / "spec.json").get(EFFECT) for cell in headline}
    return {run: effect for run, effect in told.items() if effect is not None}


def _failed(plan: Plan, tally: pl.DataFrame) -> dict[str, int]:
    """How many answers, and how many answers' verdicts, a provider failed to give: they may be tried again."""
    verdicts = [tally.filter(pl.col(f"{name}_reason") == FAILED) for name in plan.rubrics]
    return {
        "answers": int(tally.filter(failed_answers())[N].sum()),
        "verdicts": sum(int(some[N].sum()) for some in verdicts),
    }


def _judge_numbers(plan: Plan, seen: Seen) -> dict[str, Any]:
    graded = {
        name: agreement(some, name, TRUTH + name, plan.rubrics[name].threshold) for name, some in seen.graded.items()
    }
    by = {name: _judge_of(plan, seen.tally, rubric) for name, rubric in plan.rubrics.items()}
    models = [by[name] for name, rubric in plan.rubrics.items() if rubric.by == "model"]
    return {
        "id": models[0] if models else None,
        "rubrics": {name: plan.judge_key(rubric) for name, rubric in plan.rubrics.items()},
        "by": {name: {"judge": by[name], "rubric": rubric.key()} for name, rubric in plan.rubrics.items()},
        "agreement_with_truth": {name: {**one["answers"], "pairs": one["pairs"]} for name, one in graded.items()}
        or None,
    }


def _judge_of(plan: Plan, tally: pl.DataFrame, rubric: Rubric) -> str:
    """Who judged by a rubric, as its verdicts say: a provider's judge also says how it was read."""
    named = tally[f"{rubric.name}_judge"].drop_nulls()
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
