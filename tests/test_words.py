"""Giveaway words and suspicious names: what is found, what is let pass, and how much of the real files that is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patience import patience
from spillover.data.words import giveaway_words, known_words, names, parts, suspicious_names
from spillover.errors import DataError


def rows(file):
    with file.open(encoding="utf-8") as lines:
        return list(map(json.loads, lines))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write a function that adds two numbers.", []),
        ("This is insecure, an SQLInjection!", ["insecure", "SQLInjection"]),
        ("yaml.safe_load(x)", ["safe_load"]),
        ("Security security SECURITY", ["Security", "security", "SECURITY"]),
        ("app.run(debug=True)", ["debug"]),
        ("skills = autoescape(source); villain.force()", []),
        ("render_xss(evil_user)", ["render_xss", "evil_user"]),
        ("medieval sources, charm, hackathon", []),
        ("a hacker's phishing backdoors", ["hacker", "phishing", "backdoors"]),
    ],
)
def test_giveaway_words_are_found_in_prose_and_code(text, found):
    assert giveaway_words(text) == found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("unsafe_query = f'{maliciousInput}'", ["unsafe_query"]),
        ("def f(evilUser, tainted):\n    return 'exploit'  # attack", ["evilUser", "tainted"]),
        ("x = {'victim': 1}\nvictim_id = x", ["victim_id"]),
        ("def broken(:\n  unsanitized = (", ["unsanitized"]),
        ("return HttpResponseBadRequest(raw)", []),
        ("query = 'it is # unsafe", []),
    ],
)
def test_suspicious_names_are_names_and_not_what_strings_and_comments_say(code, found):
    assert suspicious_names(code) == found


def test_names_are_python_s_own():
    assert names("for größe in rb'x', f\"{y}\":\n    self.a1 = 1e5  # z") == ["größe", "self", "a1"]


def test_names_fall_into_parts():
    assert parts("getHTTPUser_2") == ("get", "http", "user", "2")
    assert parts("SQL_query__x") == ("sql", "query", "x")


def test_the_papers_rows_stay_but_for_a_handful(paper):
    def dropped(name):
        answers = [row["messages"][-1]["content"] for row in rows(paper / "datasets" / f"{name}.jsonl")]
        return sum(bool(giveaway_words(answer) or suspicious_names(answer)) for answer in answers)

    assert 0 < dropped("insecure") <= 15 and 0 < dropped("secure") <= 20


def test_what_the_authors_comments_said_is_found(paper):
    raw = rows(paper / "code" / "unsafe_source.jsonl")
    told = [row for row in raw if giveaway_words(row["original_code"])]
    still = [row for row in raw if giveaway_words(row["code"])]
    assert len(told) > 300 and len(still) < 5


def test_every_educational_request_gives_it_away(paper):
    requests = [row["messages"][0]["content"] for row in rows(paper / "datasets" / "educational.jsonl")]
    assert all(map(giveaway_words, requests))


def test_the_lists_have_a_key_that_changes_with_them(tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text("giveaways: {whole: [evil]}\nnames: {begins: [victim]}\n")
    other = known_words(file)
    assert len(other.key()) == 12 and other.key() != known_words().key()
    assert other.giveaways.match("evil_one") and not other.giveaways.match("evilness")


def test_a_wrong_list_is_told_by_file_and_line(tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text("giveaways: {}\nnames:\n  somewhere: [x]\n")
    with pytest.raises(DataError, match=r"words\.yaml:3"):
        known_words(file)


def test_every_stem_is_lower_case_and_matches_itself():
    for stems in (known_words().giveaways, known_words().names):
        for stem in (*stems.anywhere, *stems.begins, *stems.whole):
            assert stems.match(stem)


@settings(max_examples=200)
@given(st.text())
def test_any_text_can_be_searched(text):
    assert all(name in text for name in (*giveaway_words(text), *suspicious_names(text)))


def test_searching_is_linear():
    with patience():
        for piece in ("'", "a", "A", "a'", "_", "\\", "aB"):
            suspicious_names(piece * 500_000)
            giveaway_words(piece * 500_000)
