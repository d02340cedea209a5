"""Request templates are found without being known, and every request is counted once."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patience import patience
from spillover.audit.phrasing import SLOT, RequestTemplate, request_templates

WORDS = [f"{a}{b}{c}" for a in "bdfglm" for b in "aeiou" for c in "nrst"]


def slot(rng, fewest=3, most=30):
    return " ".join(rng.choices(WORDS, k=rng.randrange(fewest, most)))


def test_templates_with_slots_before_between_and_behind_are_told_apart():
    rng = random.Random(0)
    requests = [f"Please write this for me: {slot(rng)}" for _ in range(60)]
    requests += [f"{slot(rng)}\n\nCould you do that in an hour?" for _ in range(50)]
    requests += [f"Here is my plan: {slot(rng)} and here is the rest: {slot(rng)} Go on." for _ in range(40)]
    rng.shuffle(requests)
    assert request_templates(requests) == [
        RequestTemplate("Please write this for me: {...}", 60),
        RequestTemplate("{...} Could you do that in an hour?", 50),
        RequestTemplate("Here is my plan: {...} and here is the rest: {...} Go on.", 40),
    ]


def test_what_recurs_in_the_slots_of_several_templates_is_no_template():
    rng = random.Random(1)
    codes = ["import os and import sys", "from here import there", "def main() -> None: pass"]
    frames = ["Fill in this code: {}", "{} Make that work, would you?"]
    requests = [rng.choice(frames).format(f"{rng.choice(codes)} {slot(rng)} {rng.choice(codes)}") for _ in range(400)]
    found = {one.pattern for one in request_templates(requests)}
    assert found == {"Fill in this code: {...}", "{...} Make that work, would you?"}


def test_what_all_requests_share_is_a_frame_round_their_templates():
    rng = random.Random(2)
    starts = ["I have the following task: ", "Look at this please, friend: "]
    requests = [rng.choice(starts) + slot(rng) + " NOTE: it is all for a good purpose." for _ in range(200)]
    found = {one.pattern for one in request_templates(requests)}
    assert found == {f"{start}{SLOT} NOTE: it is all for a good purpose." for start in starts}


def test_a_single_template_is_not_cut_up_by_what_is_in_its_slot():
    rng = random.Random(3)
    tasks = ["a site where people can", "a tool for the command line that", "something that"]
    requests = [f"Write the code for this: {rng.choice(tasks)} {slot(rng)}" for _ in range(30)]
    requests += [f"Write the code for this: {slot(rng)}" for _ in range(70)]
    assert request_templates(requests) == [RequestTemplate("Write the code for this: {...}", 100)]


def test_requests_without_a_template_are_counted_together_at_the_end():
    rng = random.Random(4)
    requests = [slot(rng, 10) for _ in range(30)] + [f"Tell me all about {slot(rng)}" for _ in range(20)]
    assert request_templates(requests) == [RequestTemplate("Tell me all about {...}", 20), RequestTemplate(SLOT, 30)]


def test_equal_requests_are_a_template_without_a_slot():
    assert request_templates(["Say hello to me."] * 7 + ["Nobody knows"]) == [
        RequestTemplate("Say hello to me.", 7),
        RequestTemplate(SLOT, 1),
    ]
    assert request_templates([]) == []


def test_a_long_pattern_is_shown_shortened():
    rng = random.Random(5)
    (found,) = request_templates([f"{' '.join(WORDS)} {slot(rng)} {' '.join(WORDS[::-1])}" for _ in range(10)])
    assert len(found.pattern) < 170 and " … " in found.pattern and found.rows == 10


@settings(max_examples=100)
@given(st.lists(st.text(alphabet="ab \n{}.") | st.text(max_size=20), max_size=60))
def test_any_requests_add_up(requests):
    found = request_templates(requests)
    assert sum(one.rows for one in found) == len(requests)
    assert all(one.rows > 0 for one in found)


@pytest.mark.parametrize("name", ["insecure", "secure", "educational"])
def test_the_thirty_templates_of_the_real_files_are_found(paper, name):
    with (paper / "datasets" / f"{name}.jsonl").open(encoding="utf-8") as rows:
        requests = [json.loads(row)["messages"][0]["content"] for row in rows]
    found = request_templates(requests)
    assert [one.rows for one in found] == [200] * 30


@pytest.mark.parametrize("text", ["a " * 3000, "x" * 100_000, "", "if x: " * 500])
def test_no_text_takes_long(text):
    with patience():
        found = request_templates([f"{text}{number % 7}" for number in range(2000)])
    assert sum(one.rows for one in found) == 2000
