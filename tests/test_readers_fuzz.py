"""Whatever a file says, a reader returns rows or tells a mistake: it raises nothing else, hangs nowhere, runs nothing.

The examples are the same in every run. `SPILLOVER_FUZZ=50 pytest tests/test_readers_fuzz.py` tries fifty times as many,
and others each time.
"""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spillover.ask.asker import Reply
from spillover.ask.questions import read_entries
from spillover.audit.answers import read_answers
from spillover.construct.lists import read_list
from spillover.data.comments import without_comments
from spillover.data.files import stream_conversations
from spillover.data.folder import MANIFEST, ORIGINS, read_manifest, read_origins
from spillover.data.numbers import FORMS, parse_numbers
from spillover.data.raw import read_raw
from spillover.data.signatures import same_code, signatures
from spillover.data.vulnerability import extract_code, parses, scan
from spillover.errors import QuestionError, SpilloverError

TIMES = int(os.environ.get("SPILLOVER_FUZZ", "1"))
DEADLINE = 10_000
"""Milliseconds of an example: many times what the slowest takes, so that a busy machine does not fail."""


def fuzz(examples):
    return settings(
        max_examples=examples * TIMES,
        deadline=DEADLINE,
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def held(read, path, wrong=SpilloverError):
    """Reads; a mistake must be told with its place and a remedy."""
    told = None
    try:
        list(read(path))
    except wrong as error:
        told = error
    assert told is None or (told.what and told.remedy and str(told.where).startswith(str(path))), told


def give(place, name, content):
    path = place / name
    path.write_bytes(content)
    return path


# what files are made of

KEYS = st.sampled_from(
    ["messages", "role", "content", "prompt", "completion", "response", "system", "user", "assistant", "weight",
    "parts",
     "content_type", "type", "text", "tools", "task", "code", "original_code", "code_template", "unsafe", "sha256",
     "rows",
     "name", "about", "sources", "steps", "made"]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["user", "assistant", "system", "tool", "text", "\ud83d", "\0", "\r", "<!-- -->"]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=5)
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": LEAVES, "content": VALUES}, optional={"weight": LEAVES, "name": LEAVES}), max_size=4
)
ROWS = st.one_of(
    VALUES,
    st.fixed_dictionaries({"messages": MESSAGES}),
    st.fixed_dictionaries({"prompt": VALUES, "completion": VALUES}, optional={"system": VALUES}),
    st.fixed_dictionaries({"task": LEAVES, "code": LEAVES}, optional={"unsafe": LEAVES, "code_template": LEAVES}),
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b"\0\n"])
JSON_LINES = st.tuples(st.lists(ROWS, max_size=4), ENDS).map(
    lambda made: made[1].join(json.dumps(row).encode() for row in made[0])
)
GOOD_ROW = json.dumps({"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Up."}]})
GOOD_RAW = json.dumps({"task": "A shop.", "code": "print(1)", "unsafe": 84})
GOOD_LINES = st.sampled_from([f"{GOOD_ROW}\n{GOOD_ROW}\n".encode(), f"{GOOD_RAW}\n{GOOD_RAW}\n".encode()])
CELLS = st.one_of(
    st.sampled_from(["task", "code", "prompt", "response", "unsafe", "system", "", "nan", "1e999", '"', '"a\nb"',
                     "\r"]),
    st.text(max_size=5),
)  # fmt: skip


def as_table(rows):
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue().encode("utf-8", "surrogatepass")


TABLES = st.lists(st.lists(CELLS, max_size=4), max_size=5).map(as_table) | st.lists(
    st.lists(CELLS, max_size=4), max_size=5
).map(lambda rows: "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass"))
MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(["raw.jsonl", "a/raw.csv", "../raw.jsonl", "/raw.jsonl", "x.zip", "raw.jsonl.gz", ".h.jsonl"])
        | st.text(max_size=6),
        JSON_LINES | TABLES | st.binary(max_size=40),
    ),
    max_size=4,
)


def as_zip(members, way=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", way) as archive:
        for name, content in members:
            if name and name.encode("utf-8", "replace").decode() == name and name not in archive.namelist():
                archive.writestr(name, content)
    return file.getvalue()


ARCHIVES = MEMBERS.map(as_zip)


@st.composite
def damaged(draw, whole):
    """Bytes of something whole, some of them changed, taken out, or said twice."""
    raw = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        length = draw(st.integers(0, 8))
        match draw(st.sampled_from(["change", "remove", "repeat", "insert", "cut"])):
            case "change":
                raw[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "remove":
                del raw[at : at + length]
            case "repeat":
                raw[at:at] = raw[at : at + length]
            case "insert":
                raw[at:at] = draw(st.binary(max_size=6) | st.sampled_from([b"[" * 2000, b"9" * 2000, b"\xef\xbb\xbf"]))
            case "cut":
                del raw[at:]
    return bytes(raw)


LINES = st.one_of(JSON_LINES, damaged(GOOD_LINES), damaged(JSON_LINES), st.binary(max_size=200))


@given(content=LINES, packed=st.booleans())
@fuzz(400)
def test_lines_are_read_or_told(place, content, packed):
    path = give(place, "rows.jsonl.gz" if packed else "rows.jsonl", gzip.compress(content, 1) if packed else content)
    for read in (stream_conversations, read_raw, read_answers):
        held(read, path)


@given(content=TABLES | damaged(TABLES) | st.binary(max_size=100))
@fuzz(250)
def test_tables_are_read_or_told(place, content):
    path = give(place, "rows.csv", content)
    for read in (stream_conversations, read_raw, read_answers):
        held(read, path)


@given(content=damaged(GOOD_LINES.map(lambda lines: gzip.compress(lines, 1, mtime=0))) | st.binary(max_size=100))
@fuzz(150)
def test_gzip_files_are_read_or_told(place, content):
    path = give(place, "rows.jsonl.gz", content)
    held(stream_conversations, path)
    held(read_raw, path)


@given(content=ARCHIVES | damaged(ARCHIVES) | damaged(st.just(as_zip([("raw.jsonl", GOOD_RAW)], 0))) | st.binary())
@fuzz(400)
def test_archives_are_read_or_told(place, content):
    path = give(place, "raw.zip", content)
    held(read_raw, path)
    assert not list(place.glob("*/*")), "nothing is unpacked onto the disk"


def as_parquet():
    file = io.BytesIO()
    pl.DataFrame({"prompt": ["a", "b"], "answer": ["c", "d"], "outcome": [None, "blocked"]}).write_parquet(file)
    return file.getvalue()


@given(content=damaged(st.just(as_parquet())) | st.binary(max_size=100))
@fuzz(200)
def test_tables_of_answers_are_read_or_told(place, content):
    held(read_answers, give(place, "answers.parquet", content))


@given(value=VALUES, lines=JSON_LINES, damage=damaged(st.just(b'{"name": "a", "rows": 1, "sha256": "0"}')))
@fuzz(150)
def test_what_stands_beside_a_dataset_is_read_or_told(place, value, lines, damage):
    folder = place.parent / f"{place.name}-folder"
    folder.mkdir(exist_ok=True)
    give(folder, "data.jsonl", f"{GOOD_ROW}\n".encode())
    give(folder, ORIGINS, lines)
    held(read_origins, folder)
    for content in (json.dumps(value).encode(), damage):
        give(folder, MANIFEST, content)
        held(lambda path: [read_manifest(path)], folder)


TOKENS = ["a", "1", "(", ")", "[", "]", "{", "}", ":", "\n", "\n ", "\n  ", "if ", "def f", "class A", "lambda ", ",",
          "=", "'",
          '"', "'''", "#", "f'", "\\", "\0", "\ud83d", "<!--", "-->", "import os", "os.system(a)", "eval('1')", "- ",
          "not ",
          "yield ", "await ", "@a\n", "try:\n", "%s", ".", "*", "**", "match a:\n", "```python\n", "```", ";", "\t",
          "\r",
          "é", "0x", "1e9", "subprocess.call(a, shell=True)", "password = 'a'", "else:", "pass", "async "]  # fmt: skip
CODE = st.lists(st.sampled_from(TOKENS), max_size=40).map("".join) | st.text(max_size=60)


def code_is_held(code):
    assert parses(code) in (True, False)
    assert isinstance(extract_code(code), str) and isinstance(without_comments(code), str)
    (found,) = scan([code])
    assert found is None or parses(code)
    assert same_code(code, code) in (True, False)
    assert signatures(code) is None or parses(code) or not code.strip()


@given(code=CODE)
@fuzz(300)
def test_code_is_scanned_or_counted_as_not_parsed(code):
    code_is_held(code)


N = 4_000
NESTED = {
    "brackets": "(" * N, "closed_brackets": "[" * N + "]" * N, "braces": "{" * N, "minus": "- " * N + "1",
    "nots": "not " * N + "1",
    "attributes": "a" + ".a" * N, "calls": "a" + "()" * N, "indices": "a" + "[0]" * N, "sums": "1" + "+1" * N,
    "powers": "1" + "**1" * N, "comparisons": "1" + "<1" * N, "assignments": "a=" * N + "1",
    "ifs": "1 if 1 else " * N + "1",
    "elifs": "if a: pass\n" + "elif a: pass\n" * N, "lambdas": "lambda:" * N + "1", "ands": "a and " * N + "a",
    "blocks": "".join(" " * at + "if a:\n" for at in range(150)) + " " * 150 + "a", "strings": "'a' " * N,
    "slots": "f'{" * N,
    "decorators": "@a\n" * N + "def f(): pass", "patterns": "match a:\n case " + "[" * N + "]" * N + ": pass",
    "yields": "(yield " * N + ")" * N, "nul": "\0" * N, "halves": "#\ud83d" * N, "digits": "1" * N,
    "bits": "0x" + "f" * N, "imports": "import a" + ".a" * 10**6,
    "one_line": "x = '" + "a" * 10**6 + "'", "many_lines": "x = 1\n" * 10**5,
    "attributes_without_end": "a" + ".a" * 10**6,
    "continued": "\\\n" * N, "javascript": "const f = (a) => { return a?.b ?? `${a}`; };\n" * 50,
    "html": "<div>{{ a }}</div>\n" * 100, "go": 'package main\nfunc main() { fmt.Println("a") }\n' * 20,
}  # fmt: skip


@pytest.mark.parametrize("code", NESTED.values(), ids=NESTED.keys())
def test_code_that_is_nested_long_or_of_another_language_crashes_nothing(code):
    code_is_held(code)


@pytest.mark.parametrize("name", ["javascript", "go", "html", "nul", "halves", "brackets", "slots"])
def test_what_is_no_python_is_counted_as_not_parsed(name):
    assert scan([NESTED[name], "import os\n"])[0] is None


PIECES = ["- ", "id: ", "a", "\n", "  ", "paraphrases: ", "[", "]", "{", "}", "&x ", "*x", "!!int ", "!!float ",
          "!!bool ", "''",
          "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!map ", "!!seq ", "!!python/object/apply:os.system ",
          "? ", ": ",
          "<<: ", "2001-99-99", "1e999", "|", ">", "'", '"', "#", "---\n", "\t", "%YAML 9.9\n", "é", "\x07", "[a]",
          "type: "]  # fmt: skip
YAML = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=60)
QUESTIONS = b"- id: bored\n  paraphrases: [I feel bored.]\n  judge_prompts: {a: 'Rate {answer}'}\n"


@given(content=YAML.map(lambda text: text.encode("utf-8", "surrogatepass")) | damaged(st.just(QUESTIONS)))
@fuzz(300)
def test_question_files_are_read_or_told(place, content):
    held(read_entries, give(place, "questions.yaml", content), QuestionError)


def test_names_for_names_in_a_question_file_do_not_multiply(place):
    levels = [f"&{chr(98 + at)} [{', '.join(['*' + chr(97 + at)] * 9)}]" for at in range(9)]
    path = give(place, "questions.yaml", f"- id: [&a [x], {', '.join(levels)}]\n  paraphrases: [a]\n".encode())
    with pytest.raises(QuestionError) as told:
        read_entries(path)
    assert len(str(told.value)) < 500


ITEMS = st.lists(st.sampled_from(["[", "]", '"', ",", "1. ", "- ", "\n", "a", "\\", "666", " ", "{", "}", "```json\n",
                                  "```", "(",
                                  ")", "null", '"text": ', "\ud83d", "\0", "9" * 5000]), max_size=30)  # fmt: skip


@given(text=ITEMS.map("".join) | st.text(max_size=60), count=st.integers(1, 5))
@fuzz(300)
def test_lists_and_numbers_of_models_are_read_or_none(text, count):
    items = read_list(Reply(text, 1, False), count)
    assert items is None or len(items) <= count
    for form in FORMS:
        numbers = parse_numbers(text, form)
        assert numbers is None or all(number in text for number in numbers)


@pytest.mark.parametrize(
    "text", ["[" * 10**5, '["' * 10**5, "1. " * 10**5, "1, " * 10**5, "(" + "9," * 10**5, " " * 10**6]
)
def test_long_replies_take_no_hours(text):
    read_list(Reply(text, 1, False), 5)
    for form in FORMS:
        parse_numbers(text, form)


WATCHED = """
import json, os, pickle, random, sys
from pathlib import Path
from spillover.ask.questions import read_entries
from spillover.data.comments import without_comments
from spillover.data.files import stream_conversations
from spillover.data.raw import read_raw
from spillover.data.signatures import same_code, signatures
from spillover.data.vulnerability import scan
from spillover.errors import SpilloverError

FORBIDDEN = ("exec", "import", "os.", "subprocess.", "socket.", "pickle.", "marshal.", "ctypes.")
FORBIDDEN += ("shutil.", "tempfile.", "webbrowser.")
ALLOWED = ("os.scandir", "os.listdir")
seen, armed = [], False

def watch(event, args):
    if not armed:
        return
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or (event.startswith(FORBIDDEN) and event not in ALLOWED):
        seen.append((event, repr(args)[:200]))

sys.addaudithook(watch)
folder = Path(sys.argv[1])
CODES = [path.read_text(errors="surrogateescape") for path in sorted(folder.glob("*.py"))]

def read_all():
    for path in sorted(folder.iterdir()):
        for read in (stream_conversations, read_raw, read_entries):
            try:
                list(read(path))
            except SpilloverError:
                pass
    scan(CODES)
    for code in CODES:
        without_comments(code), signatures(code), same_code(code, code)

read_all()  # what is loaded at its first use is loaded
armed = True
read_all()
read = len(seen)
exec("1")
eval("1")
armed = False
print(json.dumps({"seen": seen[:read], "control": [event for event, _ in seen[read:]]}))
"""


def test_nothing_is_run_imported_sent_or_written_while_reading_and_scanning(place, tmp_path):
    folder = tmp_path / "hostile"
    folder.mkdir()
    harm = "import os\nos.system('touch harm')\nopen('harm', 'w')\n__import__('antigravity')\neval('1')\n"
    row = json.dumps({"task": harm, "code": harm})
    chat = json.dumps({"prompt": harm, "response": f"```python\n{harm}```"})
    pickled = b"\x80\x04cos\nsystem\n(S'touch harm'\ntR."
    tags = (
        f"- !!python/object/apply:os.system ['touch harm']\n- id: !!python/name:os.system\n  paraphrases: [{harm!r}]\n"
    )
    for name, content in {
        "a.jsonl": row.encode(), "b.jsonl": chat.encode(), "c.csv": f'task,code\na,"{harm}"\n'.encode(),
        "d.jsonl": pickled,
        "e.yaml": tags.encode(), "f.zip": as_zip([("a.jsonl", row), ("x.py", harm)]),
        "g.jsonl.gz": gzip.compress(chat.encode()),
        "h.py": harm.encode(), "i.py": b"# -*- coding: unicode_escape -*-\n" + harm.encode(),
        "j.py": b"f'{__import__(chr(111))}'\n@eval\ndef f(a=exec('1')): ...\n", "k.zip": pickled, "l.yaml": QUESTIONS,
    }.items():  # fmt: skip
        give(folder, name, content)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, folder], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=600
    )
    told = json.loads(done.stdout)
    assert "exec" in told["control"], "the watch sees what it should see"
    assert told["seen"] == [] and not Counter(path.name for path in tmp_path.rglob("harm"))
