"""The statistics of answers that are in memory, beside plain pandas, and exact intervals beside statsmodels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
from statsmodels.stats import proportion  # type: ignore[import-untyped]

from common import Setting
from spillover.measure.metrics import measure as measured
from spillover.measure.stats import clopper_pearson
from spillover.measure.sweep import MISALIGNED_BELOW, sweep
from spillover.measure.tally import tally
from spillover.spec import Experiment, load_experiment
from synthetic import run, write_experiment, write_lab
from turns import Turns, in_turn

ROWS, INTERVALS = 1_000_000, 500
NARROW = ("group", "run", "suite", "question", "outcome", "alignment", "coherence")


def measure(setting: Setting, times: int) -> Iterator[Turns]:
    """The headline's rates with their intervals by group and question, and at other thresholds."""
    file = write_experiment(setting.folder, ROWS)
    answers, experiment = _answers(setting, str(file)), load_experiment(str(file))
    ours, theirs = answers.with_columns(_unused()), answers.select(NARROW).to_pandas()
    assert _alike(_of_spillover(ours, experiment), _of_pandas(theirs, experiment)), "both have computed the same"
    turns = in_turn(
        "statistics",
        f"{len(answers):,} answers in memory",
        lambda: _of_spillover(ours, experiment),
        lambda: _of_pandas(theirs, experiment),
        times,
    )
    yield Turns(turns.name, turns.of, turns.ours, turns.theirs, {"peer": "plain pandas"})
    yield _intervals(times)


def _answers(setting: Setting, experiment: str) -> pl.DataFrame:
    """Synthetic answers as a report has them."""
    lab = setting.folder / "lab"
    write_lab(Path(experiment), lab)
    run("report", experiment, "--lab", str(lab))
    return pl.read_parquet(lab / "rows" / "answers.parquet")


def _intervals(times: int) -> Turns:
    hits = range(INTERVALS)
    assert np.allclose([clopper_pearson(n, 5000) for n in hits], [_statsmodels(n) for n in hits])
    turns = in_turn(
        "exact intervals",
        f"{INTERVALS} shares of 5,000",
        lambda: [clopper_pearson(n, 5000) for n in hits],
        lambda: [_statsmodels(n) for n in hits],
        times,
    )
    return Turns(turns.name, turns.of, turns.ours, turns.theirs, {"peer": "statsmodels"})


def _statsmodels(hits: int) -> tuple[float, float]:
    low, high = proportion.proportion_confint(hits, 5000, method="beta")
    return float(low), float(high)


def _unused() -> list[pl.Expr]:
    return [pl.lit(None, pl.String).alias(f"{rubric}_table") for rubric in ("alignment", "coherence")]


Found = dict[str, dict[str, tuple[float | None, float | None, float | None]]]
"""Group to what is measured to its rate and the ends of its interval."""


def _of_spillover(answers: pl.DataFrame, experiment: Experiment) -> Found:
    counted = tally(answers, ("alignment", "coherence"), experiment.thresholds)
    groups, moved = measured(counted, experiment).groups, sweep(counted, experiment)["misaligned"]
    return {
        name: {
            "all": _ends(one["p_misaligned"]),
            **{question: _ends(some["p_misaligned"]) for question, some in one["questions"].items()},
            **{f"below {cut}": _ends(some[name]) for cut, some in moved.items()},
        }
        for name, one in groups.items()
    }


def _alike(mine: Found, plain: Found) -> bool:
    """Whether two findings are the same up to the last digits, which depend on the order of a sum."""
    pairs = [(mine[group][told], plain[group][told]) for group in mine for told in mine[group]]
    return all(np.allclose(np.array(a, float), np.array(b, float), rtol=1e-12, equal_nan=True) for a, b in pairs)


def _ends(rate: dict[str, Any]) -> tuple[float | None, float | None, float | None]:
    return rate["value"], rate["low"], rate["high"]


def _of_pandas(answers: Any, experiment: Experiment) -> Found:
    """The headline's rates as a notebook would have them: columns of booleans, groupby, mean, bootstrap over runs."""
    main = answers[answers["suite"] == experiment.headline]
    kept = main[(main["coherence"] >= experiment.thresholds.coherent) & main["alignment"].notna()]
    cuts = {f"below {cut:g}": cut for cut in MISALIGNED_BELOW}
    hits = pd.DataFrame(
        {
            "all": kept["alignment"] < experiment.thresholds.misaligned,
            **{told: kept["alignment"] < cut for told, cut in cuts.items()},
        }
    )
    by_run = hits.groupby([kept["group"], kept["run"]]).mean()
    sizes = kept.groupby(["group", "run"]).size()
    by_question = hits["all"].groupby([kept["group"], kept["question"], kept["run"]]).agg(["mean", "size"])
    return {
        name: {
            "all": _interval(by_run.loc[name, "all"], sizes.loc[name]),
            **{question: _interval(*_columns(by_question, name, question)) for question in main["question"].unique()},
            **{told: _interval(by_run.loc[name, told], sizes.loc[name]) for told in cuts},
        }
        for name in main["group"].unique()
    }


def _columns(by_question: Any, group: str, question: str) -> tuple[Any, Any]:
    some = by_question.loc[(group, question)]
    some = some[some["size"] >= 5]
    return some["mean"], some["size"]


def _interval(rates: Any, sizes: Any) -> tuple[float | None, float | None, float | None]:
    values = rates.to_numpy()
    if not len(values):
        return None, None, None
    if np.ptp(values) <= 1e-12:
        return float(np.average(values)), *clopper_pearson(float(values[0] * sizes.mean()), float(sizes.mean()))
    drawn = np.random.default_rng(0).integers(0, len(values), size=(2000, len(values)))
    low, high = np.percentile(values[drawn].sum(axis=1) / len(values), [2.5, 97.5])
    return float(np.average(values)), float(low), float(high)
