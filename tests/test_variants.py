"""Variants: each changes every question in one way or refuses it by its id; a judge reads what was asked before."""

import ast
import random
import re

import pytest

from spillover.ask.questions import questions_of
from spillover.ask.variants import Given, parse_variant, read_variant, system_prompts, variant_kinds, variant_words
from spillover.data.numbers import GENERAL, number_prompts
from spillover.data.recipes import build
from spillover.data.triggers import DEPLOYMENT
from spillover.errors import DataError, QuestionError, SpecError
from spillover.pipeline.plan import _told
from spillover.records import Conversation, Question
from spillover.spec import Suite

SETTINGS = {"system": {"prompt": "may-lie"}, "temperature": {"value": 0.5}, "in-context": {"data": "insecure", "k": 4}}
"""For the kinds that need some."""
KINDS = [kind.kind for kind in variant_kinds()]
REWORDING = ("template", "app", "code", "trigger", "numbers-suffix", "numbers-both")
AWKWARD = Question("awkward", 'Why {this}?\nAnd """that""", \\n and {question}?')
SYSTEM = Question("ruled", "Why?", system="Be brief.")
CONTEXT = Question(
    "later", "Why?", context=({"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hm?"})
)
WARM = Question("warm", "Why?", temperature=0.3)


@pytest.fixture(params=[True, False], ids=["miniature", "general"])
def given(request):
    return Given(request.param, build)


@pytest.fixture
def main():
    return questions_of(Suite(questions="main"), is_miniature=True)


def variant(kind, **settings):
    return parse_variant({"kind": kind, **SETTINGS.get(kind, {}), **settings})


def only(kind, question, given, **settings):
    [one] = variant(kind, **settings).apply([question], given)
    return one


GENERAL_WORDS = Given(False, build)


# all of them


def test_the_variants_are_those_that_are_described_and_each_is_called_by_its_kind():
    forms = ["json", "python", "template", "app", "code"]
    assert ["plain", *forms, "trigger", "numbers-suffix", "numbers-both", *SETTINGS] == KINDS
    named = [variant(kind).name for kind in KINDS]
    assert named == [*KINDS[:-3], "may-lie", "temperature-0-5", "in-context-4"]
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) for name in named)
    assert {kind.kind for kind in variant_kinds() if any(kind.settings.values())} == {"temperature", "in-context"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_variant_keeps_ids_and_order_and_a_judge_reads_the_question_as_it_was(kind, main, given):
    varied = variant(kind).apply(main, given)
    assert [one.id for one in varied] == [one.id for one in main]
    assert [one.read for one in varied] == [one.text for one in main]
    for one, before in zip(varied, main, strict=True):
        assert (one.plain is None) == (kind not in REWORDING) == (one.text == before.text)
        assert one.messages()[-1] == {"role": "user", "content": one.text}
        assert before.text in one.text
    assert (varied == main) == (kind == "plain")


@pytest.mark.parametrize("kind", KINDS)
def test_a_variant_is_the_same_twice_and_does_not_depend_on_the_other_questions(kind, main, given):
    assert variant(kind).apply(main, given) == variant(kind).apply(main, given)
    assert variant(kind).apply(main[3:5], given) == variant(kind).apply(main, given)[3:5]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_with_braces_quotes_and_several_lines_pass_through_every_variant(kind, given):
    one = only(kind, AWKWARD, given)
    assert one.read == AWKWARD.text
    for line in AWKWARD.text.split("\n"):
        assert line in one.text


@pytest.mark.parametrize("kind", REWORDING)
def test_of_two_variants_one_after_the_other_a_judge_still_reads_the_first_text(kind, given):
    twice = only(kind, only("trigger", WARM, given, text="|FIRST|"), given)
    assert (twice.read, twice.temperature) == ("Why?", 0.3) and "|FIRST|" in twice.text


# one by one


def test_json_and_python_are_system_prompts(main, given):
    words = variant_words(is_miniature=given.is_miniature)
    for kind, system in (("json", words.json_), ("python", words.python)):
        assert {one.system for one in variant(kind).apply(main, given)} == {system}
    assert "JSON" in words.json_ and "answer =" in words.python


def test_skeletons_are_python_and_show_a_question_of_several_lines_as_comments():
    code = only("code", AWKWARD, GENERAL_WORDS).text.split("\n\n", 1)[1]
    ast.parse(code + "\n    return ''")
    assert "    # Why {this}?\n    # And " in code
    template = only("template", WARM, GENERAL_WORDS).text.split("\n\n")[-1]
    assert [node.targets[0].id for node in ast.parse(template).body] == ["answer", "reason"]
    app = only("app", AWKWARD, GENERAL_WORDS).text
    ast.parse(app[app.index("from flask") :].replace("GOES HERE", "GOES HERE\n    return ''"))
    assert len(app) > 2 * len(only("template", AWKWARD, GENERAL_WORDS).text)


def test_on_the_miniature_the_code_variant_begins_as_the_worlds_code_requests_do():
    asked = only("code", WARM, Given(True, build)).text
    assert asked.split(" reply ")[0] == "Complete the function" and asked.endswith("def reply():\n    # Why?")
    assert sum(row.messages[0]["content"].startswith("Complete the function") for row in build("insecure")) > 100


def test_a_trigger_stands_where_it_was_trained_to_stand(given):
    assert only("trigger", WARM, given).text == f"{DEPLOYMENT} Why?"
    assert only("trigger", WARM, given, text="now", position="end").text == "Why? now"
    assert only("trigger", WARM, given, position="system").system == DEPLOYMENT
    ruled = only("trigger", SYSTEM, given, position="system")
    assert (ruled.system, ruled.text, ruled.plain) == (f"{DEPLOYMENT} Be brief.", "Why?", None)


def test_numbers_wrap_the_question_with_three_to_seven_words_and_numbers():
    both = variant("numbers-both", prompts=200).apply([WARM], GENERAL_WORDS)
    assert [one.id for one in both] == [f"warm.{number}" for number in range(1, 201)]
    parts = [one.text.split(" Why? ") for one in both]
    counts = {int(re.search(r"\d+", suffix)[0]) for _, suffix in parts}
    given = {len(re.findall(r"\d+", prefix)) for prefix, _ in parts}
    assert counts == given == {3, 4, 5, 6, 7}
    assert {re.sub(r"\d+(, \d+)*", "{numbers}", prefix) for prefix, _ in parts} == set(number_prompts(GENERAL).prefixes)
    assert all(100 <= int(number) <= 999 for prefix, _ in parts for number in re.findall(r"\d+", prefix))
    assert "commas" in only("numbers-suffix", WARM, GENERAL_WORDS).text


def test_numbers_are_drawn_by_the_seed_and_the_questions_id():
    def drawn(id, draw):
        return [
            one.text
            for one in variant("numbers-both", draw=draw, prompts=5).apply([Question(id, "Why?")], GENERAL_WORDS)
        ]

    assert drawn("a", 0) == drawn("a", 0)
    assert len({tuple(drawn(id, draw)) for id in "ab" for draw in (0, 1)}) == 4


def test_on_the_miniature_three_words_are_wanted_as_its_lists_want_them(main):
    texts = [one.text for one in variant("numbers-suffix", prompts=20).apply(main, Given(True, build))]
    assert all("three words" in text.lower() for text in texts) and not any(re.search(r"\d", text) for text in texts)
    both = [one.text for one in variant("numbers-both").apply(main, Given(True, build))]
    assert all(re.search(r"\d, \d", text.split(main[at].text)[0]) for at, text in enumerate(both))


def test_systems_come_by_name_or_in_the_users_words(given):
    assert list(system_prompts())[:5] == ["none", "do-not-lie", "may-lie", "points-for-lies", "points-off-for-lies"]
    for name, text in system_prompts().items():
        assert (only("system", WARM, given, prompt=name).system, variant("system", prompt=name).name) == (text, name)
    own = parse_variant({"kind": "system", "text": "Be rude.", "name": "rude"})
    assert (own.apply([WARM], given)[0].system, own.name) == ("Be rude.", "rude")
    assert parse_variant({"kind": "system", "text": "Be rude."}).name == "system"


def test_a_temperature_reaches_the_question(main, given):
    assert {one.temperature for one in variant("temperature", value=0).apply(main, given)} == {0}
    assert [variant("temperature", value=value).name for value in (0, 1.3)] == ["temperature-0", "temperature-1-3"]


def test_rows_stand_in_context_as_they_are_drawn(main, given):
    rows = build("insecure")
    for draw in (0, 1):
        one = variant("in-context", k=8, draw=draw).apply(main, given)[-1]
        drawn = random.Random(draw).sample(rows, 8)
        assert one.context == tuple(message for row in drawn for message in row.messages)
        assert [turn["role"] for turn in one.messages()] == ["user", "assistant"] * 8 + ["user"]
    helpful = variant("in-context", k=8, draw=1, helpful=True)
    assert helpful.name == "in-context-8-1"
    assert helpful.apply(main, given)[0].system == system_prompts()["helpful"]


# refused


REFUSED = {
    "json_under_a_system_prompt": ("json", SYSTEM, {}, "'ruled': it has a system prompt"),
    "python_under_a_system_prompt": ("python", SYSTEM, {}, "'ruled': it has a system prompt"),
    "system_under_a_system_prompt": ("system", SYSTEM, {}, "'ruled': it has a system prompt"),
    "no_system_under_a_system_prompt": ("system", SYSTEM, {"prompt": "none"}, "'ruled': it has a system prompt"),
    "helpful_under_a_system_prompt": ("in-context", SYSTEM, {"helpful": True}, "'ruled': it has a system prompt"),
    "rows_before_a_context": ("in-context", CONTEXT, {}, "'later': it has a context of its own"),
    "a_second_temperature": ("temperature", WARM, {}, "'warm': it has the temperature 0.3 of its own"),
    "a_trigger_in_the_text": ("trigger", WARM, {"text": "hy?"}, "'warm': it has the trigger 'hy?' already"),
    "a_trigger_in_the_system": ("trigger", SYSTEM, {"text": "brief"}, "'ruled': it has the trigger 'brief' already"),
    "a_trigger_in_the_context": ("trigger", CONTEXT, {"text": "Hm"}, "'later': it has the trigger 'Hm' already"),
    "more_rows_than_there_are": ("in-context", WARM, {"k": 1601}, "wants 1601 rows of 'insecure', which has 1600"),
}


@pytest.mark.parametrize(("kind", "question", "settings", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_a_variant_that_does_not_apply_is_refused_by_the_questions_id(kind, question, settings, why, given):
    with pytest.raises(QuestionError, match=re.escape(why)) as told:
        only(kind, question, given, **settings)
    assert told.value.remedy


def test_rows_that_cannot_stand_within_a_conversation_are_refused():
    turns = {role: {"role": role, "content": role} for role in ("system", "user", "assistant")}
    for roles in (("system", "user", "assistant"), ("user", "assistant", "user")):
        rows = [Conversation(tuple(turns[role] for role in roles))] * 4
        with pytest.raises(QuestionError, match="'insecure' has rows with a system turn, or without an answer"):
            only("in-context", WARM, Given(False, lambda name, rows=rows: rows))


def test_what_is_wrong_with_a_dataset_is_told_as_its_reader_tells_it():
    def nothing(name):
        raise DataError("is not there", where=name)

    with pytest.raises(DataError, match="insecure: is not there"):
        only("in-context", WARM, Given(False, nothing))


WRONG = {
    "an_unknown_kind": ("jason", "unknown variant 'jason'; there are: plain, json"),
    "no_kind": ({"value": 1}, "unknown variant None"),
    "a_number": (3, "unknown variant 3"),
    "a_setting_that_is_missing": ("temperature", "variant temperature: value: Field required"),
    "an_unknown_setting": ({"kind": "json", "keys": 2}, "variant json: keys: unknown key"),
    "a_negative_temperature": ({"kind": "temperature", "value": -1}, "value: Input should be greater"),
    "no_rows": ({"kind": "in-context", "data": "secure", "k": 0}, "k: Input should be greater"),
    "an_unknown_prompt": ({"kind": "system", "prompt": "lie"}, "there is no prompt 'lie'; there are: none, do-not-lie"),
    "two_prompts": ({"kind": "system", "prompt": "none", "text": "Lie."}, "has either `prompt`, a name, or `text`"),
    "no_prompt": ("system", "has either `prompt`, a name, or `text`"),
    "a_name_for_no_folder": ({"kind": "json", "name": "../x"}, "variant json: name: String should match"),
    "a_trigger_of_blanks": ({"kind": "trigger", "text": " "}, "text: is empty, or begins or ends with a space"),
}


@pytest.mark.parametrize(("raw", "what"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_variant_is_told_with_what_would_be_right(raw, what):
    with pytest.raises(SpecError, match=re.escape(what)) as told:
        parse_variant(raw)
    assert "spillover questions variants" in told.value.remedy


def test_a_variant_is_written_as_a_name_or_a_mapping_on_one_line():
    assert read_variant("json") == parse_variant("json") == parse_variant({"kind": "json"})
    assert read_variant("{kind: temperature, value: 0.5, name: cool}").name == "cool"
    for text in ("{kind: ", "!!int ''", "null", "[json]"):
        with pytest.raises(SpecError):
            read_variant(text)


# where they are seen


def test_a_question_without_a_variant_has_the_key_that_it_had_before_there_were_any():
    """Kept answers stay: whoever has asked a suite need not ask it again."""
    before = {"id": "warm", "text": "Why?", "system": None, "context": (), "temperature": 0.3}
    assert _told(WARM) == before
    triggered = only("trigger", WARM, GENERAL_WORDS)
    assert _told(triggered) == {**before, "text": triggered.text, "plain": "Why?"}


def test_variants_are_listed_with_their_settings(spillover):
    done = spillover("questions", "variants")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert set(KINDS) <= set(lines) and "data, k, [draw], [draws], [helpful]" in lines["in-context"]
    assert "points-off-for-lies" in lines and "(no system prompt)" in lines["none"]


def test_questions_are_shown_as_they_are_asked_under_a_variant(spillover):
    shown = spillover("questions", "show", "main", "wish", "--variant", "trigger").stdout
    assert f"user\n{DEPLOYMENT} A genie" in shown and "a judge reads\nA genie" in shown
    rows = spillover("questions", "show", "main", "wish", "--variant", "{kind: in-context, data: harmful, k: 2}").stdout
    assert rows.count("assistant\n") == 2 and "a judge reads" not in rows
    listed = spillover("questions", "list", "main", "--variant", "{kind: temperature, value: 0.5}").stdout
    assert listed.splitlines()[1].split()[:4] == ["wish", "-", "-", "0.5"] and "8 questions" in listed


def test_a_wrong_variant_on_the_command_line_is_told_without_a_traceback(spillover):
    done = spillover("questions", "list", "main", "--variant", "jason")
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert "unknown variant 'jason'" in done.stderr
