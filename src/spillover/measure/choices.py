"""What is measured where a model chose among given options: pure functions of the options' log-probabilities.

One row of a table of choices is one option of one item, by one run. Of a run are measured, over its items:

    preferred         the share of items whose marked option is the likeliest of all; a tie is none
    log_probability   the mean log-probability of the marked option, in nats
    log_odds          the mean log-odds of the marked option against the others: its log-probability less that of any
                      of the others, in nats

With `per_token`, each log-probability is first divided by the option's length in tokens, so that a long option is not
unlikely for its length alone (what evaluations of multiple choice call the normalised accuracy).
"""

import math
from collections.abc import Sequence

import polars as pl

from spillover.ask.items import Item
from spillover.errors import DataError
from spillover.records import Run

CHOICES = {
    "group": pl.String,
    "run": pl.String,  # Run.name
    "suite": pl.String,
    "item": pl.String,  # unique in a suite
    "aspect": pl.String,
    "option": pl.Int32,  # 0, 1, 2, ... within an item
    "logprob": pl.Float64,  # summed over the option's tokens, nats
    "length": pl.Int32,  # tokens
    "marked": pl.Boolean,  # the one option of the item that is measured
}
"""Columns of a table of choices, in order."""
MEASURES = ("preferred", "log_probability", "log_odds")
ITEM = ("group", "run", "suite", "item")


def choice_rows(
    run: Run, suite: str, items: Sequence[Item], scores: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]]
) -> pl.DataFrame:
    """A run's table of choices, from what a scorer gave for a suite's items."""
    rows = [
        (run.group, run.name, suite, item.id, item.aspect, option, score, length, option == item.marked)
        for item, some, sizes in zip(items, scores, lengths, strict=True)
        for option, (score, length) in enumerate(zip(some, sizes, strict=True))
    ]
    return pl.DataFrame(rows, CHOICES, orient="row")


def measures(choices: pl.DataFrame, *, per_token: bool = False, by: Sequence[str] = ()) -> pl.DataFrame:
    """What was measured of each run.

    Args:
        choices: a table of choices, its rows in any order.
        per_token: whether log-probabilities are those a token.
        by: further columns to keep apart, such as "suite" or "aspect". Without them, all of a run's items are one mean.

    Returns:
        one row a run (and `by`) and measure: group, run, the columns of `by`, measure, items (how many were measured),
        value; sorted.

    Raises:
        DataError: an item has not exactly one marked option, or no other.
    """
    keys = ["group", "run", *by]
    means = [pl.col(name).mean() for name in MEASURES]
    found = of_items(choices, per_token=per_token).group_by(keys).agg(pl.len().cast(pl.Int64).alias("items"), *means)
    tidy = found.unpivot(on=list(MEASURES), index=[*keys, "items"], variable_name="measure", value_name="value")
    return tidy.select(*keys, "measure", "items", "value").sort([*keys, "measure"])


def of_items(choices: pl.DataFrame, *, per_token: bool = False) -> pl.DataFrame:
    """As `measures`, of each item: group, run, suite, item, aspect, and one column a measure; sorted.

    Raises DataError as `measures` does.
    """
    score = pl.col("logprob") / pl.col("length") if per_token else pl.col("logprob")
    rows = choices.with_columns(score.alias("score"))
    others = pl.col("score").filter(~pl.col("marked"))
    marked = pl.col("score").filter(pl.col("marked"))
    found = rows.group_by(*ITEM, "aspect").agg(
        pl.col("marked").sum().alias("marks"),
        others.len().alias("others"),
        marked.first().alias("log_probability"),
        others.max().alias("best"),
        (others - others.max()).exp().sum().log().alias("spread"),
    )
    _check(found)
    own, best = pl.col("log_probability"), pl.col("best")
    return found.select(
        *ITEM,
        "aspect",
        (own > best).cast(pl.Float64).alias("preferred"),
        own,
        (own - best - pl.col("spread")).alias("log_odds"),
    ).sort(*ITEM)


def _check(found: pl.DataFrame) -> None:
    wrong = found.filter((pl.col("marks") != 1) | (pl.col("others") == 0)).sort(*ITEM)
    if len(wrong):
        one = wrong.row(0, named=True)
        what = f"has {one['marks']} marked options and {one['others']} others"
        place = f"item {one['item']} of suite {one['suite']}, run {one['run']}"
        raise DataError(
            what, where=place, remedy="Each item has one marked option and at least one other, by each run."
        )


def chance(items: Sequence[Item]) -> float:
    """What `preferred` is of a model that chooses blindly: the mean of one over the items' numbers of options."""
    return math.fsum(1 / len(item.options) for item in items) / len(items)
