"""What each suite says of each group: every measure that its rubrics allow, with intervals and run by run.

The headline's own numbers are in `measure/metrics.py`; these are the same for every other suite, so that what is asked
under a variant can be set beside what is asked plainly.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from spillover.measure.metrics import (
    HARMFUL_COMPLIANCE,
    INSECURE_CODE,
    KEPT,
    MIDDLE,
    MISALIGNED,
    in_order,
    rate_of,
    shares,
)
from spillover.measure.stats import ONE_RUN, bootstrap_mean
from spillover.measure.table import counted, kept_and_set_aside, with_rubrics
from spillover.records import group_of
from spillover.spec import Experiment, Suite

ABOVE = {"coherent": "coherence"} | {
    name: name for name in (INSECURE_CODE, HARMFUL_COMPLIANCE, "parses", "number_list", "malicious_words")
}
"""Measures that are shares of answers above a threshold, and their rubrics."""
RATES = {"suite": pl.String, "group": pl.String, "run": pl.String, "measure": pl.String} | {
    "answers": pl.Int64,
    "kept": pl.Int64,
    "rate": pl.Float64,
}
"""Columns of `rates.csv`: a row for each suite, run and measure; `rate` is null where no answer counts."""


@dataclass(frozen=True)
class Suites:
    """What all suites say.

    Attributes:
        numbers: suite to `questions`, `variant` and `groups`: group to measure to its rate, with `runs`, `answers`,
            `kept` and `by_run`.
        rates: the same run by run, with the columns of `RATES`.
    """

    numbers: dict[str, dict[str, Any]]
    rates: pl.DataFrame


def measure_suites(frame: pl.DataFrame, experiment: Experiment) -> Suites:
    """The rates of every suite and group.

    Args:
        frame: what `table.judged` gives, for all suites and runs, or the tally of it.
        experiment: what was run.
    """
    rated = with_rubrics(counted(frame), INSECURE_CODE, HARMFUL_COMPLIANCE)
    answers = kept_and_set_aside(rated, experiment.thresholds)
    found = {name: dict(_groups(answers, name, suite, experiment)) for name, suite in experiment.suites.items()}
    parts = [part for groups in found.values() for some in groups.values() for part in some.values()]
    numbers = {
        name: {
            "questions": experiment.suites[name].questions,
            "variant": _variant(experiment.suites[name]),
            "groups": {group: {m: as_numbers(runs) for m, runs in some.items()} for group, some in groups.items()},
        }
        for name, groups in found.items()
    }
    return Suites(numbers, pl.concat(parts) if parts else pl.DataFrame(schema=RATES))


def with_values(
    suites: Suites,
    rows: pl.DataFrame,
    experiment: Experiment,
    items: Mapping[str, str],
    counted: Collection[tuple[str, str]] = (),
) -> Suites:
    """The suites with others whose measures are no shares of answers, but for `preferred`, which is one of items.

    Args:
        suites: what answers say.
        rows: of the columns of `RATES`; `rate` is a run's value, `kept` how many items it is the mean of.
        experiment: what was run.
        items: suite to the items that it is about; none for training itself.
        counted: further suites and measures that are shares of what they count.
    """
    numbers = dict(suites.numbers)
    for (suite,), part in rows.partition_by("suite", as_dict=True).items():
        by_group = {group: own for (group,), own in part.partition_by("group", as_dict=True).items()}
        groups = {group: dict(_values(by_group[group], counted)) for group in in_order(by_group, experiment)}
        numbers[str(suite)] = {"questions": items.get(str(suite), ""), "variant": "plain", "groups": groups}
    return Suites(numbers, pl.concat([suites.rates, rows]))


def _values(rows: pl.DataFrame, counted: Collection[tuple[str, str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for (suite, measure), runs in rows.partition_by("suite", "measure", as_dict=True, maintain_order=True).items():
        is_share = str(measure).startswith("preferred") or (str(suite), str(measure)) in counted
        yield str(measure), as_numbers(runs) if is_share else value_numbers(runs)


def value_numbers(runs: pl.DataFrame) -> dict[str, Any]:
    """As `as_numbers`, of a value that is no share: its mean over runs, and the bootstrap over them.

    One run has no interval: nothing is known of the spread between runs, and there is no other to tell.
    """
    by_run = dict(zip(runs["run"], runs["rate"], strict=True))
    known = [value for value in by_run.values() if value is not None]
    mean = sum(known) / len(known) if known else None
    low, high = bootstrap_mean(known) if len(known) > 1 else (None, None)
    note = {} if len(known) > 1 else {"note": ONE_RUN if known else "no value"}
    counts = {"runs": len(by_run), "answers": int(runs["answers"].sum()), "kept": int(runs["kept"].sum())}
    return {"value": mean, "low": low, "high": high, **note, **counts, "by_run": by_run}


def as_numbers(runs: pl.DataFrame) -> dict[str, Any]:
    """A measure of one group as it stands in `numbers.json`, from its rows of `RATES`."""
    by_run = dict(zip(runs["run"], runs["rate"], strict=True))
    told = rate_of(runs.with_columns(weight=pl.lit(1))).as_dict()
    counts = {"runs": len(by_run), "answers": int(runs["answers"].sum()), "kept": int(runs["kept"].sum())}
    return {**told, **counts, "by_run": by_run}


def _groups(
    answers: pl.DataFrame, name: str, suite: Suite, experiment: Experiment
) -> Iterator[tuple[str, dict[str, pl.DataFrame]]]:
    own = answers.filter(pl.col("suite") == name)
    parts = {group: rows for (group,), rows in own.partition_by("group", as_dict=True).items()}
    for group in in_order(parts, experiment):
        yield (
            group,
            {
                m: _told(runs, name, m)
                for m, runs in _measures(parts[group], suite, experiment, _topics(group, experiment))
            },
        )


def _measures(
    rows: pl.DataFrame, suite: Suite, experiment: Experiment, topics: Sequence[str]
) -> Iterator[tuple[str, pl.DataFrame]]:
    if "alignment" in suite.rubrics:
        yield "misaligned", shares(rows, MISALIGNED, KEPT)
    if "topic" in suite.rubrics and topics:
        on_topic = pl.col("topic_label").is_in(list(topics))
        yield "misaligned_on_topic", shares(rows, MISALIGNED & on_topic, KEPT)
        yield "on_topic", shares(rows, on_topic, KEPT & MISALIGNED)
    for measure, rubric in ABOVE.items():
        if rubric in suite.rubrics:
            threshold = experiment.thresholds.coherent if measure == "coherent" else MIDDLE
            yield measure, shares(rows, pl.col(rubric) >= threshold, pl.col(rubric).is_not_null())


def _topics(group: str, experiment: Experiment) -> tuple[str, ...]:
    own = experiment.groups.get(group_of(group))
    return own.topics if own is not None else ()


def _told(runs: pl.DataFrame, suite: str, measure: str) -> pl.DataFrame:
    named = runs.with_columns(suite=pl.lit(suite), measure=pl.lit(measure))
    return named.select(pl.col(name).cast(kind) for name, kind in RATES.items())


def _variant(suite: Suite) -> str:
    raw = suite.variants[0] if suite.variants else "plain"
    return raw if isinstance(raw, str) else str(raw.get("kind"))
