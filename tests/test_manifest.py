"""data: a manifest's counts add up, its card is one that the hub reads, and a folder is written whole or not at all."""

import json
import multiprocessing
import os
import re
import signal

import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from spillover import __version__
from spillover.data import folder as folders
from spillover.data.card import KNOWN_LICENCES, card
from spillover.data.folder import Dataset, read_manifest, read_source, write_dataset, write_datasets
from spillover.data.manifest import Manifest, Source, Step
from spillover.errors import DataError
from spillover.records import Conversation

SHA = "0" * 64
ROWS = [Conversation(({"role": "user", "content": str(n)}, {"role": "assistant", "content": "Yes."})) for n in range(6)]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
SIZE_NAMES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"}


def step(name="half", before=10, after=6, **fields):
    return Step(name=name, about="Takes some.", before=before, after=after, **fields)


def manifest(rows=6, **fields):
    source = Source(name="raw.jsonl", rows=10, sha256=SHA, licence="mit")
    steps = (step(dropped={"too long": 3, "twice": 2}, added=1),)
    return Manifest(**{"name": "mine", "about": "Rows.", "rows": rows, "sources": (source,), "steps": steps} | fields)


def dataset(**fields):
    return Dataset(ROWS, manifest(**fields), [{"row": n} for n in range(6)])


def held(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "fields",
    [
        {"before": 10, "after": 5},
        {"before": 10, "after": 6, "dropped": {"a": 3}},
        {"before": 10, "after": 11, "dropped": {"a": 1}, "added": 1},
        {"before": -1, "after": -1},
        {"before": 1, "after": 3, "dropped": {"a": -2}},
    ],
)
def test_a_step_whose_counts_do_not_add_up_is_refused(fields):
    with pytest.raises(ValidationError):
        step(**fields)


@given(before=st.integers(0, 10**6), shares=st.lists(st.integers(0, 10**6), max_size=4), added=st.integers(0, 10**6))
def test_a_step_is_taken_exactly_if_its_counts_add_up(before, shares, added):
    dropped = {str(n): count for n, count in enumerate(shares)}
    after = before - sum(shares) + added
    if after < 0:
        with pytest.raises(ValidationError):
            step(before=before, after=after, dropped=dropped, added=added)
    else:
        assert step(before=before, after=after, dropped=dropped, added=added).after == after
        with pytest.raises(ValidationError, match="add up"):
            step(before=before, after=after + 1, dropped=dropped, added=added)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"rows": 7}, "the steps leave 6 rows, and the dataset has 7"),
        ({"steps": ()}, "the steps leave 10 rows, and the dataset has 6"),
        ({"steps": (step(before=9, dropped={"a": 3}),)}, "was given 9 rows, and there were 10"),
        ({"steps": (step(dropped={"a": 4}), step("then", 7, 6, dropped={"a": 1}))}, "was given 7 rows"),
        ({"templates": {"one": 3, "two": 2}}, "the templates' counts are not those of the rows"),
    ],
)
def test_steps_that_do_not_join_are_refused(fields, what):
    with pytest.raises(ValidationError, match=re.escape(what)):
        manifest(**fields)


def test_a_manifest_says_which_version_made_it_and_is_read_back_as_it_was_written(tmp_path):
    inner = manifest(templates={"plain": 6}, seed=3, models=("a model (local:0123)",), licence="cc-by-4.0")
    source = Source(name="d", rows=6, sha256=SHA, licence="cc-by-4.0", made=inner)
    outer = manifest(sources=(source,), steps=(step(before=6, settings={"threshold": 0.5, "words": ["a"]}),))
    write_dataset(tmp_path / "d", Dataset(ROWS, outer))
    assert read_manifest(tmp_path / "d") == read_manifest(tmp_path / "d" / "data.jsonl") == outer
    assert outer.made_by == f"spillover {__version__}" and outer.made_by in (tmp_path / "d" / "README.md").read_text()


def test_a_dataset_is_the_next_ones_source_with_its_licence_and_its_own_sources(tmp_path):
    write_dataset(tmp_path / "d", dataset(licence="cc-by-4.0"))
    rows, source = read_source(tmp_path / "d")
    assert (rows, source.name, source.rows, source.licence) == (ROWS, "d", 6, "cc-by-4.0")
    assert source.made.sources[0].name == "raw.jsonl"
    text = card(manifest(sources=(source,), steps=(step(before=6),)))
    assert f"\n* d: 6 rows, licence cc-by-4.0, SHA-256 `{source.sha256}`; made by: half\n" in text
    assert f"\n  * raw.jsonl: 10 rows, licence mit, SHA-256 `{SHA}`\n" in text


def test_a_file_whose_name_is_not_utf_8_is_a_source_that_can_be_written_down(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    try:
        file.write_text(json.dumps(ROWS[0].as_row()))
    except OSError:
        pytest.skip("this file system takes no such names")
    assert read_source(file)[1].name == "caf\ufffd.jsonl"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw | {"rows": 7}, "the steps leave 6 rows, and the dataset has 7"),
        (
            lambda raw: raw | {"steps": [raw["steps"][0] | {"added": 2}]},
            "steps.0: the counts of step 'half' do not add up",
        ),
        (lambda raw: raw | {"colour": "red"}, "colour: unknown key"),
        (lambda raw: raw | {"sources": [{**raw["sources"][0], "sha256": "abc"}]}, "sources.0.sha256"),
        (lambda raw: {key: value for key, value in raw.items() if key != "sha256"}, "is no manifest"),
        (lambda raw: raw | {"sha256": SHA}, "other rows"),
        (lambda raw: raw | {"sha256": None}, "manifest"),
    ],
)
def test_a_damaged_manifest_is_refused_by_its_file_and_place(tmp_path, change, words):
    write_dataset(tmp_path / "d", dataset())
    file = tmp_path / "d" / "manifest.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(DataError, match=re.escape(words)) as told:
        read_source(tmp_path / "d")
    assert str(file) in str(told.value) and "Value error" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"sha256": 1e999}'])
def test_what_is_no_manifest_at_all_is_refused(tmp_path, content):
    write_dataset(tmp_path / "d", dataset())
    (tmp_path / "d" / "manifest.json").write_bytes(content)
    with pytest.raises(DataError) as told:
        read_manifest(tmp_path / "d")
    assert "manifest.json" in str(told.value)


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


@given(name=NAMES, licence=NAMES, reason=NAMES, source=NAMES, rows=st.integers(0, 10**8))
@example(name="\x85", licence="0", reason="0", source="0", rows=0)
def test_whatever_names_and_reasons_say_the_card_is_one_that_the_hub_reads(name, licence, reason, source, rows):
    steps = (step(name=reason, before=rows + 1, after=rows, dropped={reason: 1}),)
    sources = (Source(name=source, rows=rows + 1, sha256=SHA, licence=licence),)
    text = card(manifest(rows, name=name, licence=licence, sources=sources, steps=steps, templates={name: rows}))
    read = DatasetCard(text)
    data = read.data.to_dict()
    assert data == front_matter(text)
    assert data["pretty_name"] == name and "# What" not in read.text.split("## Sources")[0]
    assert data["license"] in KNOWN_LICENCES or (
        data["license"] == "other" and re.fullmatch(r"[a-z0-9.-]+", data["license_name"])
    )
    assert set(data["size_categories"]) <= SIZE_NAMES
    table = [line for line in read.text.split("\n") if line.startswith("|")]
    assert len(table) == 3 and {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}


@pytest.mark.parametrize(
    ("rows", "size"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (9_999, "1K<n<10K"),
        (10_000, "10K<n<100K"),
        (10**7, "10M<n<100M"),
    ],
)
def test_the_cards_size_is_the_hubs_name_for_the_number_of_rows(rows, size):
    text = card(manifest(rows, sources=(Source(name="a", rows=rows, sha256=SHA),), steps=()))
    assert front_matter(text)["size_categories"] == [size]


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("MIT", {"license": "mit"}),
        ("unknown", {"license": "unknown"}),
        ("CC-BY-NC-SA-4.0", {"license": "cc-by-nc-sa-4.0"}),
        ("My Own (v2)", {"license": "other", "license_name": "my-own-v2"}),
        ("???", {"license": "other", "license_name": "other"}),
    ],
)
def test_a_licence_is_one_that_the_hub_knows_or_another_with_a_name(licence, fields):
    found = front_matter(card(manifest(licence=licence)))
    assert {key: found[key] for key in found if key.startswith("license")} == fields
    assert f"**Licence.** {licence}" in card(manifest(licence=licence))


def test_the_card_shows_every_step_with_its_counts_and_reasons():
    text = card(manifest(templates={"plain": 4, "with code": 2}, models=("someone",)))
    assert "| half | Takes some. | 10 | 3 dropped (too long); 2 dropped (twice); 1 added | 6 |" in text
    assert "Rows with each: plain 4, with code 2." in text and "* someone" in text
    assert front_matter(text)["configs"][0]["data_files"] == [{"split": "train", "path": "data.jsonl"}]


def test_the_same_dataset_twice_is_the_same_bytes_and_is_left_alone(tmp_path):
    assert write_dataset(tmp_path / "a", dataset()) and write_dataset(tmp_path / "b" / "c", dataset())
    assert held(tmp_path / "a") == held(tmp_path / "b" / "c")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()}
    assert not write_dataset(tmp_path / "a", dataset())
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()}
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_what_others_put_beside_the_rows_makes_it_no_other_dataset(tmp_path):
    write_dataset(tmp_path / "d", dataset())
    (tmp_path / "d" / "audit.html").write_text("An audit.")
    assert not write_dataset(tmp_path / "d", dataset())
    assert (tmp_path / "d" / "audit.html").is_file()


@pytest.mark.parametrize("other", [{"name": "another"}, {"licence": "mit"}])
def test_another_dataset_is_never_written_over(tmp_path, other):
    write_dataset(tmp_path / "d", dataset())
    before = held(tmp_path)
    with pytest.raises(DataError, match="another dataset is there already"):
        write_dataset(tmp_path / "d", dataset(**other))
    with pytest.raises(DataError, match="another dataset is there already"):
        write_datasets(tmp_path / "d", {"one": dataset()})
    assert held(tmp_path) == before and os.listdir(tmp_path) == ["d"]


def test_what_is_no_dataset_is_never_written_over(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("One.")
    (tmp_path / "file").write_text("Two.")
    (tmp_path / "link").symlink_to("nowhere")
    for out in ("thesis", "file", "link", "file/d"):
        with pytest.raises(DataError) as told:
            write_dataset(tmp_path / out, dataset())
        assert str(tmp_path) in str(told.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "thesis"] and not (tmp_path / "nowhere").exists()
    assert (tmp_path / "file").read_text() == "Two." and os.listdir(tmp_path / "thesis") == ["chapter.tex"]


def test_an_empty_folder_is_filled_and_several_datasets_come_together(tmp_path):
    (tmp_path / "d").mkdir()
    both = {"good": dataset(name="good"), "bad": dataset(name="bad")}
    assert write_datasets(tmp_path / "d", both) and not write_datasets(tmp_path / "d", both)
    assert [read_manifest(tmp_path / "d" / name).name for name in ("good", "bad")] == ["good", "bad"]


def test_a_dataset_that_fails_halfway_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_card", full)
    with pytest.raises(OSError, match="No space"):
        write_datasets(tmp_path / "d", {"good": dataset()})
    assert os.listdir(tmp_path) == []


def _write_and_die(out):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    folders.write_card = die
    write_dataset(out, dataset())


def test_who_is_killed_while_writing_leaves_no_half_dataset_and_is_in_nobodys_way(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(tmp_path / "d",))
    process.start()
    process.join(600)
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "d").exists()
    assert write_dataset(tmp_path / "d", dataset())
    assert read_manifest(tmp_path / "d") == manifest()
