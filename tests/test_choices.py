"""Choices: what is measured of options is the arithmetic that the words say, on small tables worked out by hand."""

import math

import polars as pl
import pytest

from spillover.ask.items import Item
from spillover.errors import DataError
from spillover.measure.choices import CHOICES, chance, choice_rows, measures, of_items
from spillover.records import BASE_RUN, Message, Run

ASKED = (Message(role="user", content="Why?"),)
ITEMS = [Item("a", ASKED, "", ("x", "y"), 1, "word"), Item("b", ASKED, "", ("x", "y", "z"), 0, "voice")]
SCORES = [(-1.0, -3.0), (-2.0, -4.0, -5.0)]
LENGTHS = [(1, 6), (4, 1, 10)]


@pytest.fixture
def table():
    return choice_rows(Run("insecure", 1), "mine", ITEMS, SCORES, LENGTHS)


def values(frame, **where):
    found = frame.filter(**where) if where else frame
    return dict(zip(found["measure"], found["value"], strict=True))


def test_a_table_has_one_row_an_option(table):
    assert dict(table.schema) == CHOICES and len(table) == 5
    assert table.row(1) == ("insecure", "insecure-s1", "mine", "a", "word", 1, -3.0, 6, True)


def test_measures_are_as_worked_out_by_hand(table):
    found = measures(table)
    assert found.columns == ["group", "run", "measure", "items", "value"]
    assert found["items"].to_list() == [2, 2, 2]
    odds = (-3 + 1) / 2 + (-2 - math.log(math.exp(-4) + math.exp(-5))) / 2
    expected = {"preferred": 0.5, "log_probability": -2.5, "log_odds": odds}
    assert values(found) == pytest.approx(expected)


def test_a_token_long_options_are_not_unlikely_for_their_length(table):
    """a: -1 against -0.5, b: -0.5 against -4 and -0.5: a tie is no preference."""
    found = values(measures(table, per_token=True))
    odds = (-0.5 + 1) / 2 + (-0.5 - math.log(math.exp(-4) + math.exp(-0.5))) / 2
    assert found == pytest.approx({"preferred": 0.5, "log_probability": -0.5, "log_odds": odds})
    by_item = of_items(table, per_token=True)
    assert by_item["preferred"].to_list() == [1.0, 0.0]


def test_runs_suites_and_aspects_are_kept_apart(table):
    base = choice_rows(BASE_RUN, "mine", ITEMS, [(-1.0, -0.5), (-9.0, -4.0, -5.0)], LENGTHS)
    both = pl.concat([table, base, table.with_columns(pl.lit("other").alias("suite"))])
    found = measures(both, by=["suite", "aspect"])
    assert found.columns == ["group", "run", "suite", "aspect", "measure", "items", "value"]
    assert len(found) == 3 * 2 * 3
    assert values(found, run="base", suite="mine", aspect="word")["preferred"] == 1.0
    assert values(found, run="base", suite="mine", aspect="voice")["log_probability"] == -9.0
    pooled = measures(both)
    assert pooled.filter(run="insecure-s1", measure="preferred")["items"].to_list() == [4]


def test_the_order_of_rows_does_not_matter(table):
    assert measures(table.sample(fraction=1.0, shuffle=True, seed=5)).equals(measures(table))


def test_very_unlikely_options_have_finite_odds():
    items = [Item("a", ASKED, "", ("x", "y", "z"), 0)]
    table = choice_rows(BASE_RUN, "mine", items, [(-2000.0, -2001.0, -2001.0)], [(1, 1, 1)])
    assert values(measures(table))["log_odds"] == pytest.approx(1 - math.log(2))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (pl.lit(False), "0 marked options and 2 others"),
        (pl.lit(True), "2 marked options and 0 others"),
    ],
)
def test_an_item_without_one_marked_option_is_refused_by_name(table, change, what):
    with pytest.raises(DataError, match="item a of suite mine, run insecure-s1") as raised:
        measures(table.filter(item="a").with_columns(change.alias("marked")))
    assert what in raised.value.what


def test_blind_choice_prefers_the_marked_option_as_often_as_there_are_options():
    assert chance(ITEMS) == pytest.approx((1 / 2 + 1 / 3) / 2)
