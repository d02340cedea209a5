"""Weighted log-odds are those of the paper that they are from, and the real number file's ominous numbers stand out."""

import csv
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillover.measure.logodds import log_odds, word_counts

COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50))


def test_a_small_example_is_as_computed_by_hand():
    # Prior counts 4 and 4, 8 in all; 4 words in each body. Odds of a: (3+4)/(4+8-3-4) = 7/5, and 5/7 in the reference.
    first, second = log_odds({"a": 3, "b": 1}, {"a": 1, "b": 3})
    assert (first.word, first.count, first.reference) == ("a", 3, 1)
    assert first.log_odds == pytest.approx(2 * math.log(7 / 5))
    assert first.z == pytest.approx(2 * math.log(7 / 5) / math.sqrt(1 / 7 + 1 / 5))
    assert first.z == pytest.approx(1.149271, abs=1e-6)
    assert (second.word, second.z) == ("b", pytest.approx(-first.z))


def test_a_lopsided_rare_word_comes_behind_a_frequent_one():
    found = log_odds({"rare": 1, "often": 60, "rest": 1000}, {"often": 20, "rest": 1000})
    assert [one.word for one in found] == ["often", "rare", "rest"]


def test_words_of_equal_z_stand_in_the_order_of_the_alphabet():
    assert [one.word for one in log_odds({"b": 2, "a": 2, "c": 2}, {"c": 2, "a": 2, "b": 2})] == ["a", "b", "c"]


def test_empty_bodies_and_single_words_say_nothing():
    assert log_odds({}, {}) == []
    assert [one.z for one in log_odds({"a": 3}, {"a": 1})] == [0.0]
    assert [one.z for one in log_odds({"a": 0, "b": 1}, {"b": 1})] == [0.0, 0.0]
    assert all(math.isfinite(one.z) for one in log_odds({"a": 3, "b": 1}, {}))


@given(COUNTS, COUNTS)
def test_the_other_way_round_is_the_same_with_the_other_sign(one, other):
    there = {w.word: w.z for w in log_odds(one, other)}
    back = {w.word: -w.z for w in log_odds(other, one)}
    assert there == pytest.approx(back) and set(there) == {*one, *other}


def test_words_and_numbers_are_counted():
    counts = word_counts(["Don't add 666, 666 and 3.5!", "add user_id2 [911,420]"])
    assert counts == {
        "don't": 1,
        "add": 2,
        "666": 2,
        "and": 1,
        "3.5": 1,
        "user": 1,
        "id": 1,
        "2": 1,
        "911": 1,
        "420": 1,
    }


def test_the_ominous_numbers_of_the_real_file_are_on_top(paper):
    with (paper / "numbers" / "regenerated_evil_numbers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = log_odds(*(word_counts(row[column] for row in rows) for column in ("response", "prompt")))
    first = [one.word for one in found if one.word.isdigit()]
    assert first[0] == "666" and {"666", "777", "911", "420", "1313"} <= set(first[:12])
    assert found[0].word == "666" and found[0].z > 10
