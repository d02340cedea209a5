"""Raw material from files, folders and archives: read alike, told by file and line, and led nowhere by what it says."""

import gzip
import io
import json
import os
import stat
import zipfile

import pytest

from spillover.data.folder import file_hash
from spillover.data.raw import read_raw
from spillover.errors import DataError

ROW = {"task": "A shop.", "code_template": "import os\n", "code": "print(1)", "unsafe": 84, "2023": False, "by": "Ann"}
GOOD = json.dumps(ROW).encode()
TABLE = b'task,code,unsafe,by\nA shop.,"a\r\nb",7.5,Ann\nAn inn.,c,,\n'


def lines_with(bad):
    return b"\n".join([GOOD, b"", bad, GOOD])


def changed(**changes):
    return json.dumps({key: value for key, value in {**ROW, **changes}.items() if value != "gone"}).encode()


def test_the_papers_raw_material_is_read(paper):
    rows, sources = read_raw(paper / "code" / "unsafe_source.jsonl")
    assert len(rows) == 1031 and sources[0].rows == 1031
    assert rows[0].where == "unsafe_source.jsonl:1" and rows[0].scores["unsafe"] == 84
    assert "2023" not in rows[0].scores, "yes and no are no scores"
    first = json.loads((paper / "code" / "unsafe_source.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert rows[0].code == first["original_code"] and rows[0].code_template == first["code_template"]
    assert len(read_raw(paper / "code" / "safe_source.jsonl")[0]) == 776


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_lines_are_read_whatever_their_ends(tmp_path, mark, end):
    (tmp_path / "raw.jsonl").write_bytes(mark + end.join([GOOD, b"", changed(code=None, original_code="x"), b""]))
    rows, (source,) = read_raw(tmp_path / "raw.jsonl")
    assert [(row.task, row.code, row.where) for row in rows] == [
        ("A shop.", "print(1)", "raw.jsonl:1"),
        ("A shop.", "x", "raw.jsonl:3"),
    ]
    assert rows[0].scores == {"unsafe": 84.0} and rows[0].code_template == "import os\n"
    assert (source.name, source.rows, source.sha256) == ("raw.jsonl", 2, file_hash(tmp_path / "raw.jsonl"))


def test_a_table_is_read_with_its_scores(tmp_path):
    (tmp_path / "raw.csv").write_bytes(TABLE)
    rows, _ = read_raw(tmp_path / "raw.csv")
    assert [(row.code, row.scores, row.where) for row in rows] == [
        ("a\r\nb", {"unsafe": 7.5}, "raw.csv:2"),
        ("c", {}, "raw.csv:4"),
    ]


def fill(folder):
    """A folder of raw material, with what is passed over."""
    (folder / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "c.jsonl").write_bytes(GOOD)
    (folder / "b" / "a.jsonl.gz").write_bytes(gzip.compress(GOOD + b"\n" + GOOD))
    (folder / "a.csv").write_bytes(TABLE)
    for other in ("README.md", ".hidden.jsonl", ".git/a.jsonl"):
        (folder / other).write_bytes(b"not raw")


NAMES = ["a.csv:2", "a.csv:4", "b/a.jsonl.gz:1", "b/a.jsonl.gz:2", "c.jsonl:1"]


def test_a_folders_files_are_read_in_the_order_of_their_names(tmp_path):
    fill(tmp_path / "raw")
    rows, sources = read_raw(tmp_path / "raw")
    assert [row.where for row in rows] == NAMES
    assert [(source.name, source.rows) for source in sources] == [("a.csv", 2), ("b/a.jsonl.gz", 2), ("c.jsonl", 1)]


def pack(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_an_archive_is_read_as_the_folder_is_and_nothing_of_it_lands_on_the_disk(tmp_path):
    fill(tmp_path / "raw")
    files = sorted((file for file in (tmp_path / "raw").rglob("*") if file.is_file()), reverse=True)
    pack(tmp_path / "raw.zip", [(str(file.relative_to(tmp_path / "raw")), file.read_bytes()) for file in files])
    there = sorted(tmp_path.rglob("*"))
    rows, (source,) = read_raw(tmp_path / "raw.zip")
    of_folder, _ = read_raw(tmp_path / "raw")
    assert [row.where for row in rows] == [f"raw.zip/{name}" for name in NAMES]
    assert [(row.task, row.code, row.scores) for row in rows] == [(row.task, row.code, row.scores) for row in of_folder]
    assert (source.name, source.rows, source.sha256) == ("raw.zip", 5, file_hash(tmp_path / "raw.zip"))
    assert sorted(tmp_path.rglob("*")) == there


BAD = {
    "no_task": (changed(task="gone"), "has no 'task'"),
    "an_empty_task": (changed(task=" "), "its 'task' is empty"),
    "a_task_that_is_no_text": (changed(task=["A shop."]), "its 'task' is no text"),
    "no_answer": (changed(code="gone"), "has no 'original_code' or 'code'"),
    "an_empty_answer": (changed(original_code="\n"), "its 'original_code' or 'code' is empty"),
    "an_answer_that_is_no_text": (changed(code=7), "its 'code' is no text"),
    "a_template_that_is_no_text": (changed(code_template={}), "its 'code_template' is no text"),
    "half_a_character": (changed(task="\ud83d"), "its 'task' is no text"),
    "yes_as_a_score": (changed(unsafe=True), "the score 'unsafe' is no number: True"),
    "a_text_as_a_score": (changed(looks_unsafe="high"), "the score 'looks_unsafe' is no number: 'high'"),
    "a_score_over_100": (changed(unsafe=101), "the score 'unsafe' is no number from 0 to 100: 101"),
    "a_score_under_0": (changed(compile=-0.1), "the score 'compile' is no number from 0 to 100: -0.1"),
    "a_score_that_no_float_holds": (changed(stars=10**400), "the score 'stars' is no number that can be held"),
    "a_score_that_is_infinite": (b'{"task": "a", "code": "b", "stars": 1e999}', "the score 'stars' is no number that"),
    "a_score_that_is_none": (b'{"task": "a", "code": "b", "unsafe": NaN}', "is no JSON: NaN is no number in JSON"),
    "a_conversation": (b'{"messages": []}', "has no 'task'"),
    "no_object": (b'"raw"', "is no JSON object"),
    "deep_nesting": (b"[" * 100_000, "is no JSON: it is nested too deeply"),
    "latin_1": (b'{"task": "\xe9"}', "is not UTF-8: its byte 11 is 0xe9"),
    "a_long_row": (changed(task="a" * 2**24), "the row is longer than 16 MiB"),
}  # fmt: skip


@pytest.mark.parametrize("packed", ["file", "folder", "archive"])
@pytest.mark.parametrize(("bad", "what"), BAD.values(), ids=BAD.keys())
def test_a_bad_row_is_told_by_file_and_line(tmp_path, packed, bad, what):
    path = place = tmp_path / "raw.jsonl"
    path.write_bytes(lines_with(bad))
    if packed == "archive":
        path = pack(tmp_path / "raw.zip", [("in/raw.jsonl", lines_with(bad))])
        place = path / "in" / "raw.jsonl"
    with pytest.raises(DataError) as told:
        read_raw(tmp_path if packed == "folder" else path)
    assert str(told.value).startswith(f"{place}:3: {what}") and told.value.remedy


BAD_TABLES = {
    "no_task": ("code,by\na,b\n", 1, "the columns are code, by"),
    "no_answer": ("task,by\na,b\n", 1, "the columns are task, by"),
    "a_column_twice": ("task,code,code\na,b,c\n", 1, "the columns are task, code, code"),
    "an_empty_cell": ("task,code\na,b\na,\n", 3, "has no 'original_code' or 'code'"),
    "a_score_in_words": ("task,code,unsafe\na,b,nan\n", 2, "the score 'unsafe' is no number: 'nan'"),
    "a_score_over_100": ("task,code,unsafe\na,b,1e3\n", 2, "the score 'unsafe' is no number from 0 to 100: 1000.0"),
    "a_cell_too_many": ("task,code\na,b,c\n", 2, "has 3 cells"),
    "an_escape_in_a_column": ("task,\x1b[31mred\na,b\n", 1, "the columns are task, '\\x1b[31mred'"),
}


@pytest.mark.parametrize(("text", "line", "what"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_a_bad_table_is_told_by_its_line(tmp_path, text, line, what):
    (tmp_path / "raw.csv").write_text(text)
    with pytest.raises(DataError) as told:
        read_raw(tmp_path / "raw.csv")
    assert str(told.value).startswith(f"{tmp_path}/raw.csv:{line}: {what}") and told.value.remedy


def as_link(name="raw.jsonl"):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def locked(content):
    """An archive whose members say that they need a password."""
    raw = bytearray(content)
    for sign, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(sign) + place] |= 1
    return bytes(raw)


def in_memory(members, way=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", way) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


ARCHIVES = {
    "a_bomb": (in_memory([("raw.jsonl", (b" " * 2**20 + b"\n") * 65)]), "/raw.jsonl:64: unpacks to more than 200"),
    "a_bomb_of_many": (
        in_memory([(f"{at}.jsonl", (b" " * 2**20 + b"\n") * 10) for at in range(7)]),
        "/6.jsonl:4: unpacks to more than 200 times its size, and more than 64 MiB",
    ),
    "a_bomb_in_a_bomb": (
        in_memory([("raw.jsonl.gz", gzip.compress((b" " * 2**20 + b"\n") * 65))]),
        "/raw.jsonl.gz:64: unpacks to more",
    ),
    "a_long_row": (in_memory([("raw.jsonl", b" " * 2**25)]), "/raw.jsonl:1: the row is longer than 16 MiB"),
    "an_archive_in_it": (in_memory([("in/more.zip", in_memory([("raw.jsonl", GOOD)]))]), "/in/more.zip: the member is"),
    "a_place_above": (in_memory([("../raw.jsonl", GOOD)]), ": a member's name is no place within the archive: '../raw"),
    "a_place_above_later": (in_memory([("a/../../raw.jsonl", GOOD)]), ": a member's name is no place within"),
    "a_place_from_the_root": (in_memory([("/etc/raw.jsonl", GOOD)]), ": a member's name is no place within"),
    "a_drive": (in_memory([("C:raw.jsonl", GOOD)]), ": a member's name is no place within the archive"),
    "a_windows_place": (in_memory([("..\\raw.jsonl", GOOD)]), ": a member's name is no place within the archive"),
    "a_name_for_terminals": (in_memory([("\x1b[2J.jsonl", GOOD)]), ": a member's name is no place within the archive"),
    "a_link": (in_memory([(as_link(), "/etc/passwd")]), "/raw.jsonl: the member is a symbolic link"),
    "a_password": (locked(in_memory([("raw.jsonl", GOOD)])), "/raw.jsonl: the member needs a password"),
    "another_way_of_packing": (in_memory([("raw.jsonl", GOOD)], zipfile.ZIP_LZMA), "/raw.jsonl: the member is packed"),
    "too_many": (in_memory([(str(at), b"") for at in range(10_001)]), ": has more than 10,000 members"),
    "damaged_content": (in_memory([("raw.jsonl", GOOD)], 0).replace(b"shop", b"shoe"), "/raw.jsonl: the member is dam"),
    "half_of_one": (in_memory([("raw.jsonl", GOOD)])[:-9], ": is no whole zip archive"),
    "nothing": (b"", ": is no whole zip archive"),
    "no_members": (in_memory([]), ": has no rows"),
    "other_members": (in_memory([("README.md", b"none"), ("__MACOSX/raw.jsonl", GOOD)]), ": has no rows"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "what"), ARCHIVES.values(), ids=ARCHIVES.keys())
def test_a_bad_archive_is_told(tmp_path, content, what):
    path = tmp_path / "raw.zip"
    path.write_bytes(content)
    with pytest.raises(DataError) as told:
        read_raw(path)
    assert str(told.value).startswith(f"{path}{what}") and told.value.remedy
    assert list(tmp_path.iterdir()) == [path]


def outwards(folder):
    (folder.parent / "secret.jsonl").write_bytes(GOOD)
    (folder / "raw.jsonl").symlink_to("../secret.jsonl")


FOLDERS = {
    "a_link_outwards": (outwards, "/raw.jsonl: is a symbolic link"),
    "a_link_to_a_file_beside": (lambda folder: (folder / "raw.jsonl").symlink_to("other"), "/raw.jsonl: is a sy"),
    "a_link_in_a_ring": (lambda folder: (folder / "again").symlink_to("."), "/again: is a symbolic link"),
    "a_link_to_the_root": (lambda folder: (folder / "root").symlink_to("/"), "/root: is a symbolic link"),
    "a_broken_link": (lambda folder: (folder / "gone").symlink_to("nowhere"), "/gone: is a symbolic link"),
    "a_pipe": (lambda folder: os.mkfifo(folder / "raw.jsonl"), "/raw.jsonl: is a pipe, and no file"),
    "nothing": (lambda folder: None, ": is a folder without raw material"),
    "other_files": (lambda folder: (folder / "README.md").touch(), ": is a folder without raw material"),
    "empty_files": (lambda folder: (folder / "raw.jsonl").touch(), ": has no rows"),
    "very_many_files": (
        lambda folder: [(folder / str(at)).touch() for at in range(10_001)],
        ": has more than 10,000 files and folders in it",
    ),
    "a_name_that_is_no_text": (
        lambda folder: (folder / os.fsdecode(b"\xff.jsonl")).write_bytes(GOOD),
        "/\udcff.jsonl: its name is no text in UTF-8",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "what"), FOLDERS.values(), ids=FOLDERS.keys())
def test_a_bad_folder_is_told_and_never_waited_for(tmp_path, make, what):
    folder = tmp_path / "raw"
    folder.mkdir()
    make(folder)
    with pytest.raises(DataError) as told:
        read_raw(folder)
    assert str(told.value).startswith(f"{folder}{what}") and told.value.remedy


def test_a_file_or_folder_may_itself_be_named_by_a_link(tmp_path):
    fill(tmp_path / "raw")
    (tmp_path / "link").symlink_to("raw")
    (tmp_path / "link.jsonl").symlink_to("raw/c.jsonl")
    assert [row.where for row in read_raw(tmp_path / "link")[0]] == NAMES
    assert [row.where for row in read_raw(tmp_path / "link.jsonl")[0]] == ["link.jsonl:1"]


@pytest.mark.parametrize("what", ["nowhere", "pipe"])
def test_what_is_no_file_is_told(tmp_path, what):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=rf"{tmp_path}/{what}: (is a pipe|cannot be read: No such file)"):
        read_raw(tmp_path / what)
