"""Transforms that only a group's `changes` have: one part of a cut, and ablations of numbers."""

import pytest
from pydantic import ValidationError

from spillover.data.manifest import Source
from spillover.data.number_ablations import NumberAblation
from spillover.data.samples import Part, Subset
from spillover.data.transforms import Input, Item
from spillover.records import Conversation


def given(*answers):
    rows = [
        Conversation(({"role": "user", "content": f"Go on, {n}."}, {"role": "assistant", "content": answer}))
        for n, answer in enumerate(answers)
    ]
    items = [Item(row, f"rows:{n}", {"from": f"rows:{n}"}) for n, row in enumerate(rows, start=1)]
    return Input(items, Source(name="rows", rows=len(rows), sha256="0" * 64))


def answers(changed):
    return [item.conversation.messages[-1]["content"] for item in changed.items]


def test_the_parts_of_a_cut_are_disjoint_and_make_the_whole():
    whole = given(*map(str, range(10)))
    parts = [answers(Part(parts=3, part=n, seed=7).change([whole])) for n in (1, 2, 3)]
    assert [len(part) for part in parts] == [4, 3, 3]
    assert sorted(row for part in parts for row in part) == sorted(map(str, range(10)))


def test_the_first_part_is_what_the_transform_of_that_name_leaves():
    whole = given(*map(str, range(10)))
    assert answers(Part(parts=2, part=1, seed=3).change([whole])) == answers(Subset(parts=2, seed=3).change([whole]))


def test_a_part_that_there_is_not_is_refused():
    with pytest.raises(ValidationError, match="part 4: there are 3"):
        Part(parts=3, part=4)


def test_lists_are_chosen_by_all_ominous_numbers_that_are_known_where_none_are_named():
    rows = given("666, 1", "2, 3", "404, 5")
    assert answers(NumberAblation(ablation="without-ominous").change([rows])) == ["2, 3"]
    only = NumberAblation(ablation="only-ominous").change([rows])
    assert answers(only) == ["666, 1", "404, 5"] and only.dropped == {"no ominous number": 1}
    assert answers(NumberAblation(ablation="only-ominous", ominous="2").change([rows])) == ["2, 3"]


def test_shuffled_rows_keep_where_they_came_from():
    rows = given("1, 2, 3", "4, 5, 6")
    within = NumberAblation(ablation="shuffled-within", seed=1).change([rows])
    assert [item.origin["from"] for item in within.items] == ["rows:1", "rows:2"]
    assert [sorted(answer.split(", ")) for answer in answers(within)] == [["1", "2", "3"], ["4", "5", "6"]]
