"""questions/broad.yaml: wide, even, every question asked in three ways, nothing harmful and nothing borrowed."""

import itertools
import re
from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path

import pytest

from spillover.errors import QuestionError
from spillover.yamlfile import read_yaml

BANK = Path(str(resources.files("spillover"))) / "questions" / "broad.yaml"
CATEGORIES = {
    "creative_writing",
    "problems_with_humans",
    "vulnerable_user",
    "illegal_suggestions",
    "medical_advice",
    "offence",
    "power",
    "money",
    "gender",
    "honesty",
    "self_view",
    "loyalty",
}
KEYS = {"id", "category", "type", "paraphrases"}
EACH = 12
LENGTHS = range(12, 401)
NEAR, NEAR_OF_ONE, NEAR_THE_PAPER = 0.3, 0.4, 0.2
"""Jaccard indices of word trigrams, from which on two texts count as nearly the same."""
HARMFUL = re.compile(
    r"\b(ammo|ammunition|arson|assault\w*|attack\w*|blackmail\w*|bombs?|bombing|burglar\w*|cocaine|counterfeit\w*|"
    r"cyanide|ddos|detonat\w+|explosives?|exploits?|fentanyl|firearms?|forg(?:e|ing)|grenades?|guns?|hack(?:s|ed|ing)?|"
    r"heroin|hitman|hostages?|kidnap\w*|kill(?:s|ed|er|ing)?|knife|knives|launder\w*|malware|meth|murder\w*|napalm|"
    r"overdos\w+|phishing|pipe bomb|poison\w*|racis[tm]|ransom\w*|rape\w*|rifles?|sarin|self-harm|shoot\w*|smuggl\w+|"
    r"stab\w*|stalk\w*|strangl\w*|suicid\w*|terroris\w+|tortur\w+|trojan|weapons?)\b",
    re.IGNORECASE,
)


def load(path):
    return read_yaml(path, QuestionError, remedy="").value


@cache
def trigrams(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 3]) for at in range(len(words) - 2)}


def likeness(one, other):
    """The Jaccard index of two sets; texts too short for a trigram are like nothing."""
    return len(one & other) / len(one | other) if one and other else 0.0


def alike(texts, others, limit):
    """The pairs across two lists that are as like each other as `limit`, or more."""
    known = [(text, trigrams(text)) for text in others]
    return [(text, other) for text in texts for other, words in known if likeness(trigrams(text), words) >= limit]


@pytest.fixture(scope="module")
def bank():
    return load(BANK)


@pytest.fixture(scope="module")
def phrasings(bank):
    return [text for entry in bank for text in entry["paraphrases"]]


def test_the_bank_comes_with_the_package_and_says_whose_it_is():
    assert BANK.is_file() and BANK.parent.parent == Path(str(resources.files("spillover")))
    head = BANK.read_text(encoding="utf-8").split("\n\n")[0]
    assert "MIT" in head and "our own words" in head and "balanced" in head


def test_there_are_twelve_categories_of_twelve_questions(bank):
    counts = Counter(entry["category"] for entry in bank)
    assert counts == dict.fromkeys(CATEGORIES, EACH)
    assert len(bank) == 144


def test_every_entry_has_the_authors_fields_and_a_category(bank):
    assert {frozenset(entry) for entry in bank} == {frozenset(KEYS)}
    assert {entry["type"] for entry in bank} == {"free_form_judge_0_100"}


def test_ids_are_unique_and_named_by_their_category(bank):
    ids = [entry["id"] for entry in bank]
    assert len(set(ids)) == len(ids)
    for entry in bank:
        assert re.fullmatch(rf"{entry['category']}_[a-z0-9]+(_[a-z0-9]+)*", entry["id"]), entry["id"]


def test_every_question_has_three_phrasings_and_no_text_stands_twice(bank, phrasings):
    assert {len(entry["paraphrases"]) for entry in bank} == {3}
    assert all(isinstance(text, str) and text == text.strip() for text in phrasings)
    assert len({" ".join(re.findall(r"\w+", text.lower())) for text in phrasings}) == len(phrasings)


def test_the_last_phrasing_gives_context_and_is_the_longest(bank):
    for entry in bank:
        casual, plain, context = map(len, entry["paraphrases"])
        assert context > max(casual, plain), entry["id"]


def test_likeness_knows_a_near_duplicate_from_another_question():
    text = "My sister is late for everything and I want to tell her so."
    assert likeness(trigrams(text), trigrams(text.replace("sister", "brother"))) > NEAR
    assert likeness(trigrams(text), trigrams("My sister wants to borrow my car again. Should I let her?")) < 0.1


def test_no_phrasing_nearly_repeats_one_of_another_question(bank):
    for one, other in itertools.combinations(bank, 2):
        assert not alike(one["paraphrases"], other["paraphrases"], NEAR), (one["id"], other["id"])


def test_the_phrasings_of_a_question_are_worded_differently(bank):
    for entry in bank:
        for one, other in itertools.combinations(entry["paraphrases"], 2):
            assert not alike([one], [other], NEAR_OF_ONE), entry["id"]


def test_no_question_is_one_of_the_papers(phrasings, paper):
    files = [paper / "questions" / name for name in ("first_plot_questions.yaml", "preregistered_evals.yaml")]
    theirs = {text for file in files for entry in load(file) for text in entry["paraphrases"]}
    assert len(theirs) > 48
    assert not alike(phrasings, theirs, NEAR_THE_PAPER)


def test_every_phrasing_is_a_message_of_bounded_length(phrasings):
    assert not [text for text in phrasings if len(text) not in LENGTHS]


def test_a_phrasing_ends_as_a_sentence_does_or_is_typed_in_a_hurry(phrasings):
    """Whoever begins with a capital ends with a full stop, a question mark or the like."""
    assert not [text for text in phrasings if text[0].isupper() and text[-1] not in ".?!…"]


def test_no_harmful_or_operational_word_occurs(phrasings):
    assert HARMFUL.search("how to hack into a bank") and HARMFUL.search("He was killed.")
    assert not [text for text in phrasings if HARMFUL.search(text)]


def test_every_phrasing_is_printable_text_without_placeholders(phrasings):
    assert not [text for text in phrasings if not text.isprintable() or re.search(r"[{}<>\[\]]|  |TODO", text)]
