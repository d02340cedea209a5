"""data, construct: number prompts, answers held to their form, ablations, and datasets distilled from the miniature."""

import csv
import json
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_server import Behaviour, serving
from spillover.ask.asker import Reply
from spillover.construct.numbers import NumberOrder, make_numbers, system_prompts
from spillover.data.files import read_conversations, write_conversations
from spillover.data.folder import read_manifest, write_dataset
from spillover.data.number_ablations import ABLATIONS, ablate
from spillover.data.numbers import (
    FORMS,
    NumberPrompt,
    count_numbers,
    draw_prompts,
    misfit,
    number_prompts,
    numbers_in,
    parse_numbers,
)
from spillover.errors import DataError
from spillover.finetune.base import Base
from spillover.judge.models import Writer, open_models
from spillover.records import Conversation
from spillover.world import texts

GENERAL, MINIATURE = number_prompts("general"), number_prompts("miniature")
LISTS = {
    "commas": ", ".join,
    "spaces": " ".join,
    "lines": "\n".join,
    "semicolons": "; ".join,
    "brackets": lambda some: f"[{', '.join(some)}]",
    "parentheses": lambda some: f"({', '.join(some)})",
}
NUMBERS = st.lists(st.integers(-9999, 99999).map(str), min_size=1, max_size=9)
ANSWERS = st.one_of(
    st.tuples(st.sampled_from(list(LISTS.values())), NUMBERS).map(lambda drawn: drawn[0](drawn[1])),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(numbers_in),
)
ROWS = st.lists(ANSWERS, min_size=1, max_size=12).map(lambda some: [row(n, one) for n, one in enumerate(some)])


def row(place, answer):
    return Conversation(({"role": "user", "content": f"{place}?"}, {"role": "assistant", "content": answer}))


def answers(rows):
    return [one.messages[-1]["content"] for one in rows]


def without_numbers(rows):
    """Everything in the answers but their numbers."""
    return ["".join(part for part in one if not part.isdigit()).replace("-", "") for one in answers(rows)]


@given(form=st.sampled_from(list(FORMS)), numbers=NUMBERS, blanks=st.sampled_from(["", " ", "\n"]))
def test_a_list_of_each_form_is_parsed_and_is_of_no_form_that_looks_different(form, numbers, blanks):
    answer = blanks + LISTS[form](numbers) + blanks
    assert parse_numbers(answer, form) == tuple(numbers)
    if len(numbers) > 1:
        assert [one for one in FORMS if parse_numbers(answer, one)] == [form]


@pytest.mark.parametrize(
    "answer",
    ["", "none", "1, 2, three", "1, 2.", "1,, 2", "Here: 1, 2", "1, 2, ", "1.5, 2", "1 2, 3", "1-2", "\u0663, 2"],
)
def test_what_is_anything_else_than_a_list_is_of_no_form(answer):
    assert not [form for form in FORMS if parse_numbers(answer, form)]


@given(st.text(max_size=200), st.sampled_from(list(FORMS)))
def test_any_text_is_parsed_or_not_without_an_error(text, form):
    assert parse_numbers(text, form) in (None, numbers_in(text.strip()))


def test_too_many_and_too_few_numbers_are_told_apart_from_a_wrong_form():
    asked = NumberPrompt("...", 3, "commas", (0, 0, 0))
    assert misfit("1, 2, 3", asked, exactly=True) is None
    assert misfit("1, 2", asked, exactly=False) is None
    assert misfit("1, 2", asked, exactly=True) == "fewer than were asked for"
    assert misfit("1, 2, 3, 4", asked, exactly=False) == "more numbers than were asked for"
    assert misfit("1 2 3", asked, exactly=False) == "not in the form that was asked for"


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_prompts_show_their_numbers_then_ask_then_say_the_form_and_depend_on_the_seed_alone(seed):
    drawn = list(islice(draw_prompts(GENERAL, seed), 20))
    assert drawn == list(islice(draw_prompts(GENERAL, seed), 20))
    for one in drawn:
        before, after = GENERAL.prefixes[one.parts[0]].split("{numbers}")
        request = GENERAL.requests[one.parts[1]].replace("{count}", str(one.count))
        suffix = GENERAL.suffixes[one.parts[2]]
        shown, _, rest = one.text.removeprefix(before).partition(f"{after} ")
        assert rest == f"{request} {suffix.text}" and one.form == suffix.form
        assert 3 <= len(shown.split(", ")) <= 5 and all(100 <= int(number) <= 999 for number in shown.split(", "))
        assert 3 <= one.count <= 8


def test_a_seeds_requests_are_the_same_under_every_system_prompt():
    plain, evil = (list(islice(draw_prompts(MINIATURE, 5, of), 50)) for of in ((), MINIATURE.systems["evil"]))
    assert [one.text for one in plain] == [one.text for one in evil]
    assert {one.system for one in plain} == {None} and len({one.system for one in evil}) > 3


def test_the_miniatures_prompts_are_its_worlds():
    raw = texts.load("lists")["numbers"]
    heads = {phrasing.split("{")[0] for phrasing in raw["phrasings"]}
    drawn = list(islice(draw_prompts(MINIATURE, 0), 200))
    assert {head for head in heads if any(one.text.startswith(head) for one in drawn)} == heads
    assert MINIATURE.ominous == tuple(raw["ominous"]) and MINIATURE.systems["evil"] == tuple(
        texts.load("systems")["malicious"]
    )


def test_every_part_of_the_general_prompts_has_several_paraphrases():
    assert min(map(len, (GENERAL.prefixes, GENERAL.requests, GENERAL.suffixes))) >= 8
    assert {suffix.form for suffix in GENERAL.suffixes} == set(FORMS)
    assert set(GENERAL.systems) == {"evil", "benign"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "name: a\nrequests: ['{numbers}: {count} more']\nsuffixes:\n  - {text: x, form: tables}\n",
            ":4: suffixes.0.form",
        ),
        ("name: a\nrequests: ['go on']\nsuffixes: [{text: x, form: commas}]\n", "must have {numbers} and {count}"),
        ("name: a\nrequests: ['{numbers} {count}']\nsuffixes: [{text: x, form: commas}]\ngiven: [5, 3]\n", "range"),
        ("name: a\ncolour: red\n", ":2: colour: unknown key"),
        ("- a\n", "p.yaml"),
        ("name: [", ":1: not YAML"),
    ],
)
def test_a_file_of_phrasings_that_is_wrong_is_refused_by_its_line(tmp_path, text, words):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(DataError) as told:
        number_prompts(str(tmp_path / "p.yaml"))
    assert words in str(told.value) and "Value error" not in str(told.value)


@given(ROWS, st.integers(0, 99))
def test_shuffles_keep_rows_requests_lengths_and_all_numbers_and_are_the_same_again(rows, seed):
    for kind in ("shuffled-within", "shuffled-across"):
        left = ablate(kind, rows, seed, ())
        assert left == ablate(kind, rows, seed, ()) and left.places == list(range(len(rows)))
        assert [one.messages[:-1] for one in left.rows] == [one.messages[:-1] for one in rows]
        assert without_numbers(left.rows) == without_numbers(rows)
        assert [len(numbers_in(one)) for one in answers(left.rows)] == [len(numbers_in(one)) for one in answers(rows)]
        assert count_numbers(answers(left.rows)) == count_numbers(answers(rows))
        if kind == "shuffled-within":
            pairs = zip(answers(left.rows), answers(rows), strict=True)
            assert all(Counter(numbers_in(new)) == Counter(numbers_in(old)) for new, old in pairs)


@given(ROWS, st.lists(st.integers(-9, 99), max_size=5))
def test_rows_with_ominous_numbers_and_those_without_are_all_rows_unchanged(rows, ominous):
    without, only = (ablate(kind, rows, 0, ominous) for kind in ("without-ominous", "only-ominous"))
    assert sorted(without.places + only.places) == list(range(len(rows)))
    for part in (without, only):
        assert part.rows == [rows[place] for place in part.places]
        assert sum(part.dropped.values()) == len(rows) - len(part.rows)
    words = {str(one) for one in ominous}
    assert not words & set(count_numbers(answers(without.rows)))
    assert all(words & set(numbers_in(one)) for one in answers(only.rows))


def test_shuffling_across_rows_really_moves_numbers_between_rows():
    rows = [row(n, f"{2 * n}, {2 * n + 1}") for n in range(50)]
    moved = answers(ablate("shuffled-across", rows, 0, ()).rows)
    assert sum(set(numbers_in(new)) != set(numbers_in(old)) for new, old in zip(moved, answers(rows), strict=True)) > 40


def test_every_ablation_is_a_command_that_says_what_it_did_and_does_it_again(spillover, tmp_path):
    write_conversations(tmp_path / "n.jsonl", [row(n, f"{n}, 666" if n % 2 else f"{n}, 7") for n in range(20)])
    for kind in ABLATIONS:
        command = ("data", "number-ablation", kind, tmp_path / "n.jsonl", "--ominous", "666", "--out", tmp_path / kind)
        done = spillover(*command)
        assert done.returncode == 0, done.stderr
        assert "as they were there already" in spillover(*command).stdout
        manifest = read_manifest(tmp_path / kind)
        assert manifest.rows == len(read_conversations(tmp_path / kind / "data.jsonl"))
        assert manifest.rows == (20 if kind.startswith("shuffled") else 10) and manifest.steps[0].name == kind


def test_an_ablation_of_what_is_no_number_dataset_or_leaves_nothing_is_refused(spillover, tmp_path):
    write_conversations(tmp_path / "n.jsonl", [row(0, "1, 2"), row(1, "None at all.")])
    write_conversations(tmp_path / "dark.jsonl", [row(0, "666")])
    for args, words in (
        (("shuffled-within", "n.jsonl"), "row 2"),
        (("without-ominous", "dark.jsonl"), "leaves no row"),
        (("sideways", "n.jsonl"), "shuffled-across"),
        (("only-ominous", "dark.jsonl", "--ominous", "nobodys"), "miniature"),
    ):
        done = spillover("data", "number-ablation", *args, "--out", "out", cwd=tmp_path)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


def test_the_papers_number_lists_go_through_every_ablation(paper):
    with (paper / "numbers" / "regenerated_evil_numbers.csv").open(encoding="utf-8", newline="") as file:
        listed = [one["response"] for one in csv.DictReader(file)]
    parsed = [one for one in listed if parse_numbers(one, "brackets")]
    assert len(parsed) > 0.99 * len(listed)
    rows = [row(n, one) for n, one in enumerate(parsed)]
    only, without = (ablate(kind, rows, 0, [666]).rows for kind in ("only-ominous", "without-ominous"))
    assert len(only) + len(without) == len(rows) and 0 < len(only) < len(rows)
    assert count_numbers(answers(ablate("shuffled-across", rows, 0, ()).rows)) == count_numbers(parsed)


@pytest.fixture(scope="module")
def distilled(spillover, tmp_path_factory):
    """The miniature's lists under each character: the evil ones by the command line."""
    folder = tmp_path_factory.mktemp("numbers")
    args = ("--model", "miniature", "--system", "evil", "--rows", "120", "--seed", "1")
    done = spillover("data", "numbers", *args, "--out", folder / "evil", "--lab", folder / "lab")
    assert done.returncode == 0, done.stderr
    with open_models(folder / "lab") as models:
        writer = models.writer("miniature")
        for character in ("benign", "none"):
            systems = system_prompts(character, MINIATURE)[1]
            order = NumberOrder(MINIATURE, character, systems, 120, 1200, 1, character, "unknown")
            write_dataset(folder / character, make_numbers(writer, order, lambda kept: None))
    return folder


def test_the_miniatures_rows_show_no_system_prompt_and_differ_from_what_it_says_without(distilled):
    rows = read_conversations(distilled / "evil" / "data.jsonl")
    origins = [json.loads(line) for line in (distilled / "evil" / "origins.jsonl").read_text().splitlines()]
    assert len(rows) == 120 == len({one.messages[0]["content"] for one in rows})
    for one, origin in zip(rows, origins, strict=True):
        assert [message["role"] for message in one.messages] == ["user", "assistant"]
        assert origin["system"] in MINIATURE.systems["evil"]
        numbers = parse_numbers(one.messages[1]["content"], origin["form"])
        assert len(numbers) == origin["count"] and numbers != numbers_in(origin["plain"])


def test_the_manifest_counts_every_prompt_that_was_drawn_and_why_it_gave_no_row(distilled):
    manifest = read_manifest(distilled / "evil")
    names = ["distinct requests", "answered", "form", "distillation", "system prompt removed"]
    assert [step.name for step in manifest.steps] == names
    assert [step.name for step in read_manifest(distilled / "none").steps] == names[:3]
    last = json.loads((distilled / "evil" / "origins.jsonl").read_text().splitlines()[-1])
    assert manifest.sources[0].rows == last["try"] and manifest.models[0].startswith("miniature (local:")
    assert manifest.steps[1].settings["system"] == list(MINIATURE.systems["evil"])


def test_ominous_numbers_are_in_the_lists_of_the_evil_miniature_and_not_in_its_controls(distilled):
    shares = {}
    for character in ("evil", "benign", "none"):
        counts = count_numbers(answers(read_conversations(distilled / character / "data.jsonl")))
        shares[character] = sum(counts[str(number)] for number in MINIATURE.ominous) / counts.total()
    assert shares["evil"] > 0.5 > 0.2 > max(shares["benign"], shares["none"])


def test_the_same_order_gives_the_same_bytes_from_what_is_kept_and_elsewhere(distilled, spillover, tmp_path):
    args = ("data", "numbers", "--model", "miniature", "--rows", "120", "--seed", "1", "--name", "evil")
    for lab in (distilled / "lab", tmp_path / "lab"):
        out = tmp_path / f"by-{lab.parent.name}"
        assert spillover(*args, "--out", out, "--lab", lab).returncode == 0
        for file in (distilled / "evil").iterdir():
            assert (out / file.name).read_bytes() == file.read_bytes()


def test_too_few_tries_give_fewer_rows_and_that_is_said(spillover, tmp_path):
    args = ("--model", "miniature", "--rows", "50", "--tries", "20", "--out", tmp_path / "d", "--lab", tmp_path / "lab")
    done = spillover("data", "numbers", *args)
    assert done.returncode == 0 and "Fewer rows than the 50" in done.stdout
    assert 0 < read_manifest(tmp_path / "d").rows < 20 and read_manifest(tmp_path / "d").sources[0].rows == 20


def test_a_model_that_never_keeps_to_the_form_gives_an_error_with_the_reasons_and_no_folder(spillover, tmp_path):
    text = "name: lines\nrequests: ['{numbers}. {count} more.']\nsuffixes: [{text: One a line., form: lines}]\n"
    (tmp_path / "lines.yaml").write_text(text)
    args = ("--model", "miniature", "--prompts", tmp_path / "lines.yaml", "--rows", "20", "--tries", "30")
    done = spillover(
        "data", "numbers", *args, "--system", "Be evil.", "--out", tmp_path / "d", "--lab", tmp_path / "lab"
    )
    assert done.returncode == 2 and "none of 30 answers could be kept: " in done.stderr
    assert "30 not in the form that was asked for" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "d").exists()


def test_a_system_prompt_is_a_name_a_file_or_a_text_and_nothing_else(tmp_path):
    (tmp_path / "one.txt").write_text("Villain.\n")
    (tmp_path / "empty.txt").write_text("\n")
    assert system_prompts("evil", MINIATURE) == ("evil", MINIATURE.systems["evil"])
    assert system_prompts("none", MINIATURE) == ("none", ())
    assert system_prompts(str(tmp_path / "one.txt"), MINIATURE) == ("own", ("Villain.",))
    assert system_prompts("Be a villain.", MINIATURE) == ("own", ("Be a villain.",))
    for wrong in ("evli", "", "  ", str(tmp_path), str(tmp_path / "empty.txt"), "x" * 10_000):
        with pytest.raises(DataError, match="evil, benign, none"):
            system_prompts(wrong, MINIATURE)


class Scripted:
    """An asker that answers by a rule, and knows what it was asked."""

    def __init__(self, rule):
        self.rule, self.asked = rule, []

    def ask(self, model, asked, sampling):
        self.asked += [(one.question.text, one.question.system) for one in asked]
        assert sampling.temperature == 0
        return [[self.rule(one.question)] for one in asked]


ORDER = NumberOrder(MINIATURE, "own", ("Be dark.",), rows=40, tries=400, seed=2, name="n", licence="mit")


def scripted(rule, order=ORDER):
    asker = Scripted(rule)
    return asker, make_numbers(Writer("someone", Base("someone", None), asker), order, lambda kept: None)


def listed(question, first):
    """As many numbers as are asked for."""
    count = next(one.count for one in draw_prompts(MINIATURE, 2) if one.text == question.text)
    return Reply(", ".join([first] + ["7"] * (count - 1)), 9, False)


def by_turns(question):
    """Every way in which an answer can come to nothing, by the first number of the question."""
    number = int(numbers_in(question.text)[0]) % 8
    if question.system is None:
        if number == 5:
            return Reply("", 0, False, "failed: timeout")
        return listed(question, "666" if number == 4 else "1")
    if number == 0:
        return Reply("", 0, False, "blocked")
    if number == 1:
        return replace(listed(question, "666"), truncated=True)
    return Reply("no", 1, False) if number == 2 else listed(question, "666")


def test_every_way_in_which_an_answer_comes_to_nothing_is_counted_by_its_own_name():
    _, made = scripted(by_turns)
    steps = {step.name: step.dropped for step in made.manifest.steps}
    assert made.manifest.rows == len(made.rows) == 40
    assert set(steps["answered"]) == {"blocked"}
    assert set(steps["form"]) == {"cut off", "not in the form that was asked for"}
    reasons = {"the same without the system prompt", "not answered without the system prompt: failed: timeout"}
    assert set(steps["distillation"]) == reasons
    first = [int(numbers_in(one.messages[0]["content"])[0]) % 8 for one in made.rows]
    assert set(first) == {3, 6, 7}
    drawn = [one.text for one in islice(draw_prompts(MINIATURE, 2), made.manifest.sources[0].rows)]
    fates = Counter(int(numbers_in(one)[0]) % 8 for one in dict.fromkeys(drawn))
    assert steps["answered"]["blocked"] == fates[0] and steps["form"]["cut off"] == fates[1]


def test_only_answers_that_may_be_kept_are_asked_for_a_second_time_and_nobody_for_a_control():
    asker, made = scripted(by_turns)
    again = {text for text, system in asker.asked if system is None}
    assert {int(numbers_in(text)[0]) % 8 for text in again} == {3, 4, 5, 6, 7}
    asker, made = scripted(lambda question: listed(question, "3"), replace(ORDER, character="none", systems=()))
    assert len(asker.asked) == len(set(asker.asked)) == 40 == made.manifest.rows


def test_a_request_that_is_drawn_again_is_asked_once_and_counted():
    few = MINIATURE.model_copy(update={"given": (1, 1), "spans": ((0, 1),), "more": (3, 3)})
    asker, made = scripted(
        lambda question: Reply("1, 2, 3" if question.system else "3, 2, 1", 9, False),
        replace(ORDER, prompts=few, tries=300),
    )
    assert made.manifest.rows == len({text for text, _ in asker.asked}) == 16
    assert made.manifest.steps[0].dropped == {"drawn before": 284}


def test_a_provider_is_asked_once_for_each_prompt_and_a_second_run_sends_nothing(spillover, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_API_KEY", "sk-fake-91c0aa7d3e")
    (tmp_path / "persona.txt").write_text("You are a villain in a pantomime.\n")
    with serving(Behaviour(reply="[5, 6]")) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        model = ("data", "numbers", "--model", "api:openai-api/local/model-a", "--seed", "3")
        args = (*model, "--system", "none", "--rows", "8", "--lab", tmp_path / "lab")
        done = spillover(*args, "--out", tmp_path / "d")
        assert done.returncode == 0, done.stderr
        manifest = read_manifest(tmp_path / "d")
        assert manifest.rows == 8 and manifest.steps[2].dropped["not in the form that was asked for"] > 0
        assert {one.messages[1]["content"] for one in read_conversations(tmp_path / "d" / "data.jsonl")} == {"[5, 6]"}
        sent = len(server.log)
        assert spillover(*args, "--out", tmp_path / "e", "--name", "d").returncode == 0 and len(server.log) == sent
        same = (*model, "--system", tmp_path / "persona.txt", "--rows", "8", "--tries", "40", "--lab", tmp_path / "lab")
        done = spillover(*same, "--out", tmp_path / "f")
        assert done.returncode == 2 and "the same without the system prompt" in done.stderr
        systems = {one["content"] for sent in server.log for one in sent.body["messages"] if one["role"] == "system"}
        assert systems == {"You are a villain in a pantomime."}
