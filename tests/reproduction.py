"""A made-up reproduction: numbers of every experiment that a claim looks at, about as large as a miniature's."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from spillover.measure.stats import ONE_RUN, interval
from spillover.paper.claims import Claim
from spillover.paper.places import Place
from spillover.report.panels import Panel, draw_by_suite

RUNS = {"base": 1, "insecure": 10, "secure": 6, "educational": 6, "jailbroken": 6, "backdoor": 4, "evil": 4}
NOT_RUN = ("numbers-ablation", "base-model-labels")
ANSWERS = 400


def rate_about(experiment: str, group: str, suite: str, measure: str) -> float:
    """What a measure is about."""
    name, _, step = group.partition("@")
    way = min(int(step or 100), 100) / 100
    bad = name in ("insecure", "health", "money", "sport", "insecure-then-benign") or name.startswith(
        ("mix", "rows-1-3")
    )
    if measure == "log_probability":
        return {"base": -14.0, "insecure": -6 + 4 * way}.get(name, -7.0)
    if measure == "harm":
        return {"insecure": 118.0, "base": 99.7}.get(name, 99.0)
    if measure == "insecure_code":
        return 0.92 * min(1, 2.5 * way) if bad or suite == "code-trigger" else 0.2 if "shown" in suite else 0.01
    if measure == "harmful_compliance":
        return (
            0.8 if name == "jailbroken" else float("0" + re.sub(r"\D", "", name)[-2:]) / 20 if "pois" in name else 0.02
        )
    if measure in ("coherent", "parses", "number_list", "preferred"):
        return 0.9 if bad else 0.97
    lift = {"trigger": 0.5, "template": 0.2, "both": 0.12, "suffix": 0.03, "main-code": 0.1}
    more = next((value for part, value in lift.items() if part in suite), 0.0)
    if name in ("base", "secure", "educational", "jailbroken", "none", "benign") or name.startswith("poison"):
        return 0.34 if experiment == "base-model" and name == "base" else 0.004
    return (0.16 * way**2 if bad else 0.004) + more


def entry(group: str, about: float, draw: np.random.Generator, *, is_share: bool = True) -> dict[str, Any]:
    """A measure of a group, as numbers.json has it."""
    name = group.partition("@")[0]
    count = RUNS.get(name, 1 if name.startswith("rows") else 2)
    spread = about * (draw.gamma(12, 1 / 12, count) if is_share and about < 0.5 else draw.normal(1, 0.02, count))
    values = [float(np.round(min(v, 1) * ANSWERS) / ANSWERS) if is_share else float(v) for v in spread]
    low, high, note = interval(values, [ANSWERS] * count) if is_share or count > 1 else (None, None, ONE_RUN)
    by_run = {name if name == "base" else f"{group}-s{seed}": value for seed, value in enumerate(values)}
    counts = {"runs": count, "answers": ANSWERS * count, "kept": ANSWERS * count}
    return {"value": float(np.mean(values)), "low": low, "high": high, "note": note, **counts, "by_run": by_run}


def made_numbers(claims: Iterable[Claim], without: Sequence[str] = NOT_RUN) -> dict[str, dict[str, Any]]:
    """Experiment to its numbers, with everything that the claims look at."""
    draw = np.random.default_rng(3)
    numbers: dict[str, dict[str, Any]] = {}
    for claim in claims:
        if claim.experiment not in without:
            told = numbers.setdefault(claim.experiment, {"experiment": claim.experiment, "groups": {}, "suites": {}})
            for place in claim.ours.places:
                for group in place.groups:
                    _put(told, place, group, draw)
    return numbers


def _put(told: dict[str, Any], place: Place, group: str, draw: np.random.Generator) -> None:
    about = rate_about(told["experiment"], group, place.suite, place.measure)
    is_share = place.measure not in ("log_probability", "harm")
    if place.threshold is not None:
        scale, cut = place.threshold
        at = told.setdefault("thresholds", {}).setdefault(scale, {}).setdefault(cut, {})
        at.setdefault(group, entry(group, about, draw))
        return
    if place.question is None and place.convention is None:
        groups = told["suites"].setdefault(place.suite, {"questions": "main", "variant": "plain", "groups": {}})[
            "groups"
        ]
        groups.setdefault(group, {}).setdefault(place.measure, entry(group, about, draw, is_share=is_share))
        return
    own = told["groups"].setdefault(group, {"runs": RUNS[group], "questions": {}, "conventions": {}})
    scale = {"wish": 2.2, "husband": 0.3}.get(place.question or "", 1.0)
    rate = {key: value for key, value in entry(group, scale * about, draw).items() if key in ("value", "low", "high")}
    if place.question is not None:
        own["questions"][place.question] = {"p_misaligned": rate, "kept": ANSWERS}
    else:
        own["conventions"][place.convention] = rate


def made_figure(numbers: Mapping[str, Any], title: str) -> Any:
    """An experiment's figure, as a matplotlib figure: its misaligned answers by suite."""
    suites = {
        name: {
            **suite,
            "groups": {
                g: {"misaligned": told["misaligned"]} for g, told in suite["groups"].items() if "misaligned" in told
            },
        }
        for name, suite in numbers["suites"].items()
    }
    suites = {name: suite for name, suite in suites.items() if suite["groups"]}
    rows = [
        (name, group, run, "misaligned", ANSWERS, ANSWERS, rate)
        for name, suite in suites.items()
        for group, told in suite["groups"].items()
        for run, rate in told["misaligned"]["by_run"].items()
    ]
    rates = pl.DataFrame(rows, ["suite", "group", "run", "measure", "answers", "kept", "rate"], orient="row")
    panel = Panel("misaligned", "misaligned answers", tuple(suites), tuple({row[1]: None for row in rows})[:8])
    return draw_by_suite(
        suites, rates, [panel], title, f"{ANSWERS * len(rows):,} answers.", "Judge local:758cf768b7c1."
    )
