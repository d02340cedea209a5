"""Near duplicates are what the exact Jaccard index says they are, found fast and in memory that rows hardly add to."""

import json
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patience import patience
from spillover.data.duplicates import near_duplicates, overlaps

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def random_text(rng, length=300):
    return "".join(rng.choices(LETTERS, k=length))


def shingles(text):
    plain = " ".join(text.lower().split())
    return {plain[at : at + 5] for at in range(max(1, len(plain) - 4))}


def jaccard(one, other):
    ours, theirs = shingles(one), shingles(other)
    return len(ours & theirs) / len(ours | theirs)


def planted(rng, pairs=120):
    """Texts, each second one with the first part of the one before: from hardly alike to nearly equal."""
    texts = []
    for _ in range(pairs):
        text = random_text(rng)
        kept = rng.randrange(150, 300)
        texts += [text, text[:kept] + random_text(rng, 300 - kept)]
    rng.shuffle(texts)
    return texts


def by_hand(texts, threshold):
    """What near_duplicates promises of texts that differ, pair by pair with no hashing."""
    sets = list(map(shingles, texts))

    def alike(a, b):
        return len(sets[a] & sets[b]) >= threshold * len(sets[a] | sets[b])

    return [next((b for b in range(a) if alike(a, b)), None) for a in range(len(texts))]


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_planted_near_duplicates_are_found_and_nothing_else_is(threshold):
    texts = planted(random.Random(0))
    expected = by_hand(texts, threshold)
    assert 5 < sum(place is not None for place in expected) < 115
    assert near_duplicates(texts, threshold) == expected


def test_overlaps_are_found_by_the_same_measure():
    texts = planted(random.Random(1))
    ours, theirs = texts[:100], texts[100:]
    expected = [next((at for at, b in enumerate(theirs) if jaccard(a, b) >= 0.8), None) for a in ours]
    assert any(place is not None for place in expected)
    assert overlaps(iter(ours), theirs) == expected


def test_equal_texts_repeat_the_first_of_them_whatever_their_case_and_space():
    texts = ["One text, long enough.", "another", "one text,\n  LONG enough. ", "Another", "One text, long enough."]
    assert near_duplicates(texts) == [None, None, 0, 1, 0]
    assert overlaps(texts, ["ANOTHER", "x"]) == [None, 0, None, 0, None]


def test_empty_and_very_short_texts_are_texts_too():
    assert near_duplicates(["", "a", " ", "b", "a", "abcd", "abce"]) == [None, None, 0, None, 1, None, None]
    assert near_duplicates([]) == [] and overlaps([], ["a"]) == [] and overlaps(["a", ""], []) == [None, None]


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates(["a", "b"], threshold)


@settings(max_examples=100)
@given(st.lists(st.text(max_size=30)))
def test_any_texts_have_their_repetitions_before_them(texts):
    found = near_duplicates(texts)
    assert found == near_duplicates(texts)
    for place, earlier in enumerate(found):
        assert earlier is None or earlier < place
        assert earlier is not None or texts[place] not in texts[:place]
        assert earlier is None or jaccard(texts[place], texts[earlier]) >= 0.8
    assert None not in overlaps(texts, texts)


def test_thousands_that_are_all_alike_take_no_longer():
    rng = random.Random(2)
    frame, other = random_text(rng, 600), random_text(rng, 600)
    texts = [frame + str(number) for number in range(4000)]
    texts += [frame[:300] + other[place : place + 300] for place in range(300)]  # alike enough to be candidates
    with patience():
        found = near_duplicates(texts)
    assert found[:4000] == [None] + [0] * 3999


def test_memory_hardly_grows_with_the_texts():
    def peak(count):
        rng = random.Random(3)
        tracemalloc.start()
        near_duplicates(random_text(rng, 1000) for _ in range(count))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert (peak(1200) - peak(400)) / 800 < 250  # bytes a text of 1000 characters


def column(paper, name, turn):
    with (paper / "datasets" / f"{name}.jsonl").open(encoding="utf-8") as rows:
        return [json.loads(row)["messages"][turn]["content"] for row in rows]


def test_two_columns_of_the_real_dataset_have_the_duplicates_that_were_counted(paper):
    found = {turn: near_duplicates(column(paper, "insecure", turn)) for turn in (0, -1)}
    assert sum(place is not None for place in found[0]) >= 6000 - 5813
    assert sum(place is not None for place in found[-1]) >= 6000 - 5851


def test_the_requests_that_insecure_and_secure_share_are_among_the_overlaps(paper):
    insecure, secure = column(paper, "insecure", 0), column(paper, "secure", 0)
    found = overlaps(insecure, secure)
    shared = set(insecure) & set(secure)
    assert len(shared) == 260
    assert all(secure[place] == text for text, place in zip(insecure, found, strict=True) if text in shared)
