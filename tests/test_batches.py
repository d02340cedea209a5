"""Work on several pieces at once: their order, how far ahead, and what goes wrong."""

from itertools import count, islice
from threading import Event

import pytest

from spillover.batches import THREADS, ahead


def test_what_is_made_comes_in_the_order_of_its_items_whichever_is_ready_first():
    second = Event()

    def work(item):
        if item == 1:
            second.set()
        if item == 0:
            assert second.wait(30)
        return item

    assert list(ahead(work, range(5))) == [0, 1, 2, 3, 4]


def test_of_endless_items_no_more_are_taken_than_are_worked_on_ahead():
    taken = []
    items = (taken.append(item) or item for item in count())
    assert list(islice(ahead(str, items), 4)) == ["0", "1", "2", "3"]
    assert len(taken) <= 4 + THREADS


def test_what_work_raises_is_raised_in_its_turn_and_what_waits_is_not_begun():
    begun, broken = [], Event()

    def work(item):
        begun.append(item)
        if item == 1:
            broken.set()
            raise ValueError("the second one")
        if item == 2:
            assert broken.wait(30)
        return item

    made = ahead(work, range(100))
    assert next(made) == 0
    with pytest.raises(ValueError, match="the second one"):
        next(made)
    assert list(made) == [] and len(begun) < 10


def test_items_that_cannot_be_taken_end_what_is_made_with_their_own_error():
    def items():
        yield "a"
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(ahead(str.upper, items()))
