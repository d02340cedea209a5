"""Dataset files that nobody should have to debug: bad input is told by file and line, and nothing hangs."""

import gzip
import json
import os
import socket
import tracemalloc
import zipfile

import pytest
import yaml
from typer.testing import CliRunner

from spillover.cli import app
from spillover.data import lines
from spillover.data.files import read_conversations, stream_conversations
from spillover.data.folder import Dataset, read_manifest, read_origins, write_dataset
from spillover.data.manifest import Manifest, Source
from spillover.errors import DataError
from spillover.records import Conversation

USER, ASSISTANT = {"role": "user", "content": "Where is the sun?"}, {"role": "assistant", "content": "Up."}
ROW = {"messages": [USER, ASSISTANT]}
GOOD = json.dumps(ROW).encode()
READ = Conversation((USER, ASSISTANT))
MIB = 2**20


def third(bad):
    """A file whose third line is bad."""
    return lambda path: path.write_bytes(b"\n".join([GOOD, b"", bad, GOOD]))


def asked(**changes):
    return json.dumps({"messages": [{**USER, **changes}, ASSISTANT]}).encode()


def says(content):
    return lambda path: path.write_bytes(content)


def nested(depth):
    return b'{"messages": ' + b"[" * depth + b"]" * depth + b"}"


def as_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def image(kind):
    return asked(content=[{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "data:,"}}])


LINES = {
    "latin_1": (third(GOOD.replace(b"un", b"\xfcn")), f"its byte {GOOD.index(b'un?') + 1} is 0xfc", "-f WINDOWS-1252"),
    "a_nul": (third(GOOD.replace(b"sun", b"s\0n")), "has NUL bytes", "UTF-8"),
    "a_long_row": (third(asked(content="a" * 17 * MIB)), "the row is longer than 16 MiB", "Shorten it"),
    "deep_nesting": (third(nested(100_000)), "is no JSON: it is nested too deeply", "A row is"),
    "nesting_that_is_no_message": (third(nested(500)), "a message must have role and content", "A row is"),
    "a_number_that_is_none": (third(b'{"messages": NaN}'), "is no JSON: NaN is no number", "A row is"),
    "an_infinite_number": (third(b'{"messages": -Infinity}'), "is no JSON: -Infinity is no number", "A row is"),
    "a_very_long_number": (third(b"9" * 100_000), "is no JSON: a number has 100000 digits", "A row is"),
    "a_key_twice": (third(b'{"user": "a", "user": "b"}'), "is no JSON: the key 'user' is there twice", "A row is"),
    "half_a_character": (third(asked(content="\ud83d")), "the user's content is no text", "A row is"),
    "another_shape": (third(b'{"prompt": "a", "response": "b"}'), "another shape than the first row", "of one shape"),
    "tools": (third(json.dumps({**ROW, "tools": [{}]}).encode()), "'tools': a row has messages and nothing else: the "
              "row has tools", "Only texts are trained on"),
    "a_tool_call": (third(asked(tool_calls=[{}])), "(got 'tool_calls'): the row has tools", "Only texts"),
    "a_tool": (third(asked(role="tool")), "unknown role 'tool': the row has tools", "Only texts"),
    "a_function": (third(asked(role="function")), "unknown role 'function': the row has tools", "Only texts"),
    "an_image": (third(image("image_url")), "a content is no text: the row has an image", "Only texts"),
    "an_image_of_another_interface": (third(image("input_image")), "the row has an image", "Only texts"),
    "a_sound": (third(image("input_audio")), "the row has an audio", "Only texts"),
    "images_beside": (third(json.dumps({**ROW, "images": ["a.png"]}).encode()), "the row has an image", "Only texts"),
    "a_huge_role": (third(asked(role="x" * MIB)), "unknown role 'xxxx", "Roles are"),
}  # fmt: skip
"""How a file is made, what is told of its third line, and what is to be done."""

FILES = {
    "utf_16": ("rows.jsonl", says(GOOD.decode().encode("utf-16")), ":1: is UTF-16, not UTF-8"),
    "utf_32": ("rows.jsonl", says(GOOD.decode().encode("utf-32")), ":1: is UTF-32, not UTF-8"),
    "utf_16_in_a_table": ("rows.csv", says("prompt,response\na,b\n".encode("utf-16")), ":1: is UTF-16, not UTF-8"),
    "utf_16_without_a_mark": ("rows.jsonl", says(GOOD.decode().encode("utf-16-le")), ":1: has NUL bytes"),
    "carriage_returns_alone": ("rows.jsonl", says(b"\r".join([GOOD] * 3)), ":1: is no JSON: its lines end in carriage"),
    "carriage_returns_in_a_table": ("rows.csv", says(b"prompt,response\ra,b\r"), ":1: is no CSV: a carriage return"),
    "gzip_by_another_name": ("rows.jsonl", says(gzip.compress(GOOD)), ":1: is compressed by gzip\n  Give it a name"),
    "parquet": ("rows.jsonl", says(b"PAR1\x15\0"), ":1: is Parquet"),
    "a_long_row_packed": ("rows.jsonl.gz", says(gzip.compress(b" " * 200 * MIB)), ":1: the row is longer than 16 MiB"),
    "a_bomb_of_rows": (
        "rows.jsonl.gz",
        says(gzip.compress((GOOD + b" " * MIB + b"\n") * 65)),
        ":64: unpacks to more than 200 times its size, and more than 64 MiB",
    ),
    "a_cell_without_end": ("rows.csv", says(b'prompt,response\na,"b' + b"b\n" * MIB), ":2: is no CSV: a cell has more"),
    "a_table_row_without_end": (
        "rows.csv",
        says(b'prompt,response\na,"' + (b"b" * 1000 + b'\n","') * 17_000),
        ":2: the row is longer than 16 MiB",
    ),
    "no_rows": ("rows.jsonl", says(b"\xef\xbb\xbf\r\n\r\n"), ": the dataset has no rows"),
    "a_folder": ("rows.jsonl", lambda path: path.mkdir(), ": is a folder without data.jsonl"),
    "a_folder_of_folders": ("rows", lambda path: (path / "data.jsonl").mkdir(parents=True), ": is a folder, and no"),
    "a_pipe": ("rows.jsonl", os.mkfifo, ": is a pipe, and no file"),
    "a_pipe_of_gzip": ("rows.jsonl.gz", os.mkfifo, ": is a pipe, and no file"),
    "a_device": ("rows.jsonl", lambda path: path.symlink_to("/dev/zero"), ": is a device, and no file"),
    "a_socket": ("rows.jsonl", as_socket, ": is a socket, and no file"),
    "a_broken_link": ("rows.jsonl", lambda path: path.symlink_to("gone"), ": cannot be read: No such file"),
    "a_link_to_itself": ("rows.jsonl", lambda path: path.symlink_to(path.name), ": cannot be read: Too many levels"),
}  # fmt: skip
"""A name, how a file of this name is made, and what is told of it."""


@pytest.fixture
def refused(spillover, tmp_path, monkeypatch):
    """Makes a file and gives it to `plan`, in a process, and to `data show`; returns what both have told."""
    monkeypatch.chdir(tmp_path)

    def give(name, make):
        path = tmp_path / name
        make(path)
        experiment = {
            "name": "small",
            "groups": {"mine": {"data": str(path), "seeds": 1}},
            "suites": {"main": {"questions": "main", "samples": 1}},
        }
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(experiment))
        there = sorted(tmp_path.rglob("*"))
        planned = spillover("plan", tmp_path / "small.yaml", "--lab", tmp_path / "lab", timeout=600)
        shown = CliRunner().invoke(app, ["data", "show", str(path)])
        assert (planned.returncode, planned.stdout) == (2, "") and "Traceback" not in planned.stderr
        assert (shown.exit_code, shown.stdout) == (2, "")
        assert shown.stderr == planned.stderr and len(shown.stderr) < 1000
        assert sorted(tmp_path.rglob("*")) == there, "nothing is written"
        return shown.stderr

    return give


@pytest.mark.parametrize(("make", "what", "remedy"), LINES.values(), ids=LINES.keys())
def test_a_bad_row_is_told_by_its_line(refused, tmp_path, make, what, remedy):
    told, advice = refused("rows.jsonl", make).splitlines()
    assert told.startswith(f"spillover: {tmp_path}/rows.jsonl:3: ") and what in told
    assert remedy in advice


@pytest.mark.parametrize(("name", "make", "what"), FILES.values(), ids=FILES.keys())
def test_a_bad_file_is_told_and_never_waited_for(refused, tmp_path, name, make, what):
    told = refused(name, make)
    inner = "/data.jsonl" if name == "rows" else ""
    assert told.startswith(f"spillover: {tmp_path}/{name}{inner}{what}")
    assert told.count("\n") == 2, "what is wrong, and below it the remedy"


def test_a_zip_archive_is_no_dataset(refused, tmp_path):
    def pack(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("rows.jsonl", GOOD)

    assert f"{tmp_path}/rows.jsonl:1: is a zip archive" in refused("rows.jsonl", pack)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_told(refused, tmp_path):
    def hide(path):
        path.write_bytes(GOOD)
        path.chmod(0)

    assert f"{tmp_path}/rows.jsonl: cannot be read: Permission denied" in refused("rows.jsonl", hide)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_a_mark_and_carriage_returns_before_line_feeds_are_taken(tmp_path, mark, end):
    (tmp_path / "rows.jsonl").write_bytes(mark + end.join([GOOD, b"", GOOD]))
    (tmp_path / "rows.csv").write_bytes(mark + end.join([b"prompt,response", b"Where is the sun?,Up.", b""] * 1))
    assert read_conversations(tmp_path / "rows.jsonl") == [READ, READ]
    assert read_conversations(tmp_path / "rows.csv") == [READ]


def test_a_pair_may_be_called_prompt_and_response(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Where is the sun?", "response": "Up."}\n')
    assert read_conversations(tmp_path / "rows.jsonl") == [READ]


def test_a_text_in_a_list_of_one_part_is_a_text(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(asked(content=[{"type": "text", "text": "Where is the sun?"}]))
    assert read_conversations(tmp_path / "rows.jsonl") == [READ]


def test_rows_come_one_at_a_time_with_their_places(tmp_path):
    path = tmp_path / "rows.jsonl"
    third(b"no JSON")(path)
    rows = stream_conversations(path)
    assert next(rows) == (f"{path}:1", READ)
    with pytest.raises(DataError, match=r"rows\.jsonl:3: is no JSON"):
        next(rows)


def test_no_more_of_a_row_is_read_than_the_limit():
    asked_for = []

    class Endless:
        def readline(self, size):
            asked_for.append(size)
            return b" " * size

    with pytest.raises(DataError, match=":1: the row is longer"):
        list(lines.lines_of(Endless(), "rows"))
    assert asked_for == [lines.MAX_ROW + 1]


def test_memory_is_flat_in_the_number_of_rows(tmp_path):
    peaks = []
    for rows in (2_000, 20_000):
        path = tmp_path / "rows.jsonl.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.writelines(asked(content=f"{at} " * 100) + b"\n" for at in range(rows))
        tracemalloc.start()
        assert sum(1 for _ in stream_conversations(path)) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < MIB


@pytest.fixture
def folder(tmp_path):
    """A dataset's folder of three rows."""
    manifest = Manifest(name="mine", about="Suns.", rows=3, sources=(Source(name="me", rows=3, sha256="0" * 64),))
    write_dataset(tmp_path / "mine", Dataset([READ] * 3, manifest, [{"line": at} for at in range(3)]))
    return tmp_path / "mine"


def test_a_dataset_is_read_by_its_folder_as_by_its_file(folder):
    for path in (folder, folder / "data.jsonl"):
        assert read_conversations(path) == [READ] * 3
        assert read_manifest(path).name == "mine"
        assert read_origins(path) == [{"line": 0}, {"line": 1}, {"line": 2}]
    (folder / "origins.jsonl").unlink()
    assert read_origins(folder) == []


BAD_ORIGINS = {
    "fewer_than_rows": ("{}\n{}\n", ": has 2 lines, and data.jsonl beside it has 3 rows"),
    "no_object": ("{}\n{}\n[1]\n", ":3: is no JSON object"),
    "half_a_character": ('{}\n{"a": "\\ud83d"}\n{}\n', ":2: has half a character in it"),
    "deep_nesting": ("{}\n" + '{"a":' * 5000 + "\n", ":2: is no JSON: it is nested too deeply"),
}


@pytest.mark.parametrize(("text", "what"), BAD_ORIGINS.values(), ids=BAD_ORIGINS.keys())
def test_wrong_origins_are_told(folder, text, what):
    (folder / "origins.jsonl").write_text(text)
    with pytest.raises(DataError) as told:
        read_origins(folder)
    assert str(told.value).startswith(f"{folder}/origins.jsonl{what}") and told.value.remedy


BAD_MANIFESTS = {
    "no_object": ("[]", "is no JSON object"),
    "no_hash": ("{}", "is no manifest of a dataset"),
    "deep_nesting": ('{"sources": ' + "[" * 100_000, "is no JSON: it is nested too deeply"),
    "a_number_that_is_none": ('{"rows": NaN}', "is no JSON: NaN is no number"),
    "another_field": ('{"sha256": "0", "mood": 1}', "mood: unknown key"),
    "no_json": ("manifest", "is no JSON: Expecting value (column 1)"),
}


@pytest.mark.parametrize(("text", "what"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS.keys())
def test_a_damaged_manifest_is_told(folder, text, what):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError) as told:
        read_manifest(folder)
    assert str(told.value).startswith(f"{folder}/manifest.json: {what}") and told.value.remedy


def test_a_manifest_that_is_a_pipe_is_not_waited_for(folder):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(DataError, match="is a pipe, and no file"):
        read_manifest(folder)


@pytest.mark.parametrize("out", ["taken.txt", "taken.txt/inside", "pipe", "gone", "full"])
def test_what_stands_in_a_datasets_way_is_told_and_left(tmp_path, out):
    (tmp_path / "taken.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "full" / "a" / "b").mkdir(parents=True)
    (tmp_path / "full" / "a" / "b" / "manifest.json").write_text("{}")
    there = sorted(tmp_path.rglob("*"))
    manifest = Manifest(name="mine", about="Suns.", rows=1, sources=(Source(name="me", rows=1, sha256="0" * 64),))
    with pytest.raises(DataError, match="Give another --out"):
        write_dataset(tmp_path / out, Dataset([READ], manifest))
    assert sorted(tmp_path.rglob("*")) == there


def test_a_dataset_goes_where_a_link_to_an_empty_folder_leads(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to("there")
    manifest = Manifest(name="mine", about="Suns.", rows=1, sources=(Source(name="me", rows=1, sha256="0" * 64),))
    assert write_dataset(tmp_path / "here", Dataset([READ], manifest))
    assert read_conversations(tmp_path / "there") == [READ]
