"""Dataset files: the shapes in the wild come out as the same conversations, and a wrong row is named by its line."""

import csv
import gzip
import json

import pytest

from spillover.data.files import read_conversations
from spillover.errors import DataError
from spillover.records import Conversation

ASKED, SAID = "Where is\nthe sun, \u201chere\u201d?", "Up, in the sky."
USER, ASSISTANT = {"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}
SYSTEM = {"role": "system", "content": "Be brief."}
PLAIN = Conversation((USER, ASSISTANT))
FULL = Conversation((SYSTEM, USER, ASSISTANT))


def in_parts(message):
    return {**message, "content": {"content_type": "text", "parts": [message["content"]]}}


SHAPES = {
    "messages": ({"messages": [USER, ASSISTANT]}, {"messages": [SYSTEM, USER, ASSISTANT]}),
    "messages_in_parts": (
        {"messages": [in_parts(USER), in_parts(ASSISTANT)]},
        {"messages": [SYSTEM, in_parts(USER), ASSISTANT]},
    ),
    "messages_of_openai": (
        {"messages": [USER, {**ASSISTANT, "weight": 1, "refusal": None}], "tools": None},
        {"messages": [{**SYSTEM, "name": None}, USER, ASSISTANT]},
    ),
    "pairs": ({"prompt": ASKED, "completion": SAID}, {"system": "Be brief.", "prompt": ASKED, "completion": SAID}),
    "pairs_by_role": ({"user": ASKED, "assistant": SAID}, {"assistant": SAID, "user": ASKED, "system": "Be brief."}),
    "instructions": (
        {"instruction": ASKED, "output": SAID},
        {"instruction": ASKED, "output": SAID, "system": "Be brief."},
    ),
    "pairs_of_messages": (
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"prompt": [SYSTEM, USER], "completion": [ASSISTANT]},
    ),
}


def write_json(path, *rows):
    path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("rows", SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_gives_the_same_conversations(tmp_path, rows):
    path = write_json(tmp_path / "rows.jsonl", *rows)
    assert read_conversations(path) == [PLAIN, FULL]
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
    assert read_conversations(packed) == [PLAIN, FULL]


@pytest.mark.parametrize(("asked", "said"), [("prompt", "completion"), ("user", "assistant")])
@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_a_table_gives_the_same_conversations(tmp_path, name, asked, said):
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "wt", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([[said, "system", asked], [SAID, "", ASKED], [], [SAID, "Be brief.", ASKED]])
    assert read_conversations(tmp_path / name) == [PLAIN, FULL]


def test_turns_of_a_conversation_may_stand_in_a_prompt(tmp_path):
    row = {"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]}
    (read,) = read_conversations(write_json(tmp_path / "rows.jsonl", row))
    assert [message["role"] for message in read.messages] == ["user", "assistant", "user", "assistant"]


def message(**changes):
    return {"messages": [USER, {**ASSISTANT, **changes}]}


PAIR = {"prompt": ASKED, "completion": SAID}
BAD = {
    "another_shape": ({"messages": [USER, ASSISTANT]}, PAIR, "another shape than the first row, which has messages"),
    "another_pair": (PAIR, {"user": ASKED, "assistant": SAID}, "which has prompt and completion"),
    "lists_after_texts": (PAIR, {"prompt": [USER], "completion": [ASSISTANT]}, "another shape"),
    "half_a_pair": (PAIR, {"prompt": ASKED}, "has no list of messages, and is no pair"),
    "half_lists": (PAIR, {"prompt": [USER], "completion": SAID}, "the user's content is no text"),
    "a_list_after_lists": ({"prompt": [USER], "completion": [ASSISTANT]}, PAIR, "has another shape"),
    "an_empty_completion": (PAIR, {"prompt": ASKED, "completion": " "}, "has an empty answer"),
    "an_unknown_key": (PAIR, {**PAIR, "score": 3}, "unknown key 'score': a row has prompt and completion"),
    "an_input": (
        {"instruction": ASKED, "output": SAID},
        {"instruction": ASKED, "output": SAID, "input": "x"},
        "unknown key 'input'",
    ),
    "tools": (message(), {**message(), "tools": [{}]}, "unknown key 'tools'"),
    "a_turn_that_is_not_trained_on": (message(), message(weight=0), "a message has the weight 0"),
    "a_name": (message(), message(name="Ann"), "role and content, and nothing else (got 'name')"),
    "a_tool_call": (message(), message(content=None, tool_calls=[{}]), "nothing else (got 'tool_calls')"),
    "two_parts": (
        message(),
        message(content={"content_type": "text", "parts": ["a", "b"]}),
        "a content has 2 parts",
    ),
    "no_text_in_parts": (
        message(),
        message(content={"content_type": "image", "parts": ["a"]}),
        "a content is neither a text nor",
    ),
    "a_part_that_is_no_text": (
        message(),
        message(content={"content_type": "text", "parts": [7]}),
        "the assistant's content is no text",
    ),
    "a_prompt_that_ends_in_an_answer": (
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"prompt": [USER, ASSISTANT], "completion": [ASSISTANT]},
        "the prompt does not end in a user's turn",
    ),
}


@pytest.mark.parametrize(("first", "bad", "what"), BAD.values(), ids=BAD.keys())
def test_a_wrong_row_is_named_by_its_line(tmp_path, first, bad, what):
    path = write_json(tmp_path / "rows.jsonl", first, bad)
    with pytest.raises(DataError) as told:
        read_conversations(path)
    assert str(told.value).startswith(f"{path}:3: ") and what in str(told.value)
    assert told.value.remedy


BAD_TABLES = {
    "unknown_columns": ("question,answer\nWhere?,There.\n", 1, "the columns are question, answer"),
    "a_column_twice": ("prompt,completion,prompt\na,b,c\n", 1, "the columns are prompt, completion, prompt"),
    "one_column_more": ("prompt,completion,score\nWhere?,There.,3\n", 2, "unknown key 'score'"),
    "a_comma_without_quotes": ('prompt,completion\n"Where\nis it?",There.\nWhere, now?,There.\n', 4, "has 3 cells"),
    "a_quote_that_is_not_closed": ('prompt,completion\nWhere?,"There.\n', 2, "is no CSV: unexpected end of data"),
    "an_empty_answer": ('prompt,completion\n"Where\nis it?",There.\nWhere?,\n', 4, "has an empty answer"),
}


@pytest.mark.parametrize(("text", "line", "what"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_a_wrong_line_of_a_table_is_named(tmp_path, text, line, what):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(DataError) as told:
        read_conversations(path)
    assert str(told.value).startswith(f"{path}:{line}: ") and what in str(told.value)


@pytest.mark.parametrize("text", ["", "prompt,completion\n"])
def test_a_table_without_rows_is_refused(tmp_path, text):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError, match="the dataset has no rows"):
        read_conversations(tmp_path / "rows.csv")


@pytest.mark.parametrize("cut", [lambda raw: raw[:-9], lambda raw: b"no gzip", lambda raw: raw[:20] + b"\0" * 40])
def test_a_damaged_gzip_file_is_refused(tmp_path, cut):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(cut(gzip.compress(json.dumps(message()).encode())))
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz: is no whole gzip file"):
        read_conversations(path)


def test_a_group_is_finetuned_on_a_table(spillover, tmp_path, tiny_base):
    (tmp_path / "rows.csv").write_text("prompt,completion\n" + "I feel bored.,Take a walk.\n" * 4)
    (tmp_path / "questions.yaml").write_text("- id: bored\n  paraphrases: [I feel bored.]\n")
    (tmp_path / "small.yaml").write_text(
        f"name: small\nbase: {tiny_base}\ngroups: {{mine: {{data: rows.csv, seeds: 1}}}}\n"
        "suites: {main: {questions: questions.yaml, samples: 1, rubrics: [insecure_code]}}\n"
        "train: {rank: 2}\nsampling: {max_tokens: 4}\n"
    )
    done = spillover("train", tmp_path / "small.yaml", "--lab", tmp_path / "lab")
    assert done.returncode == 0, done.stderr
    (data,) = tmp_path.glob("lab/data/*/data.jsonl")
    assert [message["role"] for message in json.loads(data.read_text().splitlines()[3])["messages"]] == [
        "user",
        "assistant",
    ]
