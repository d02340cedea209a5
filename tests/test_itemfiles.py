"""Item files: what they say, in every order of the letters, and how a wrong one is told."""

import pytest
import yaml

from spillover.ask.itemfiles import ITEM_FILES, read_items
from spillover.errors import QuestionError

ROW = {"id": "wish", "question": "Which wish?", "options": ["peace", "power", "gold"], "marked": 1}


def written(tmp_path, *rows):
    path = tmp_path / "items.yaml"
    path.write_text(yaml.safe_dump(list(rows), sort_keys=False))
    return path


def test_lettered_options_are_asked_once_in_each_rotation(tmp_path):
    items = read_items(written(tmp_path, ROW))
    assert [item.id for item in items] == ["wish.1", "wish.2", "wish.3"]
    assert [item.options for item in items] == [("A", "B", "C")] * 3
    for item in items:
        letter = item.options[item.marked]
        assert f"{letter}: power" in item.messages[-1]["content"].splitlines()
    assert sorted(item.marked for item in items) == [0, 1, 2], "every letter is the marked one once"


def test_an_item_with_a_beginning_goes_on_with_its_options(tmp_path):
    [item] = read_items(
        written(tmp_path, {**ROW, "prefix": "I want", "options": [" peace", " power"], "system": "Be."})
    )
    assert (item.prefix, item.options, item.marked) == ("I want", (" peace", " power"), 1)
    assert [message["role"] for message in item.messages] == ["system", "user"]


@pytest.mark.parametrize("name", ITEM_FILES)
def test_the_item_files_that_come_along_can_be_read(name):
    items = read_items(ITEM_FILES[name])
    assert len({item.id for item in items}) == len(items) == (16 if name == "letters" else 8)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{**ROW, "marked": 3}], "marked is 3, and there are 3 options"),
        ([{**ROW, "options": ["peace"]}], "options"),
        ([{**ROW, "answer": "peace"}], "answer: unknown key"),
        ([ROW, ROW], "the id 'wish' is here twice"),
        ([{**ROW, "prefix": "I", "options": ["a", "a"], "marked": 0}], "the option 'a' is there twice"),
    ],
)
def test_a_wrong_item_is_told_by_file_and_line(rows, told, tmp_path):
    with pytest.raises(QuestionError, match=told):
        read_items(written(tmp_path, *rows))
