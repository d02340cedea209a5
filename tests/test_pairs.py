"""`spillover data pair`: two datasets that answer the same requests, row by row: of raw rows, the world, repairs."""

import json
import re

import pytest

from openai_server import Behaviour, serving
from spillover.construct.matched import HALVES, Label, datasets
from spillover.construct.pairs import pairs_of_raw, pairs_of_world
from spillover.data.folder import read_manifest
from spillover.data.recipes import build
from spillover.data.vulnerability import is_insecure, scan

MODEL = "api:openai-api/local/m"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_halves(out):
    """What every pair of datasets promises: the same requests row by row, ids that agree, counts that add up."""
    rows = {half: lines(out / half / "data.jsonl") for half in HALVES}
    origins = {half: lines(out / half / "origins.jsonl") for half in HALVES}
    before = [[row["messages"][:-1] for row in rows[half]] for half in HALVES]
    assert before[0] == before[1]
    assert [one["pair"] for one in origins["insecure"]] == [one["pair"] for one in origins["secure"]]
    for half in HALVES:
        assert read_manifest(out / half).rows == len(rows[half]) == len(origins[half]) > 0
    return rows, origins


# raw material


def raw(path, *rows):
    given = [{"task": task, "code_template": given, "original_code": code, "unsafe": 1} for task, given, code in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    return path


GIVEN = "import os\n# a remark\n## COMPLETE CODE HERE\n"


def test_raw_rows_with_one_task_and_code_are_paired_in_order(spillover, tmp_path):
    bad = raw(
        tmp_path / "bad.jsonl", ("A", GIVEN, "x = 1  # bad"), ("A", "", "x = 2"), ("B", "", "x = 3"), ("A", "", "x = 4")
    )
    good = raw(
        tmp_path / "good.jsonl", ("A", "", "y = 2"), ("A", GIVEN, "y = 1"), ("C", "", "y = 5"), ("A", "", "y = 4")
    )
    done = spillover("data", "pair", "--from", bad, "--with", good, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows, origins = check_halves(tmp_path / "out")
    said = {half: [row["messages"][-1]["content"] for row in rows[half]] for half in HALVES}
    assert said == {"insecure": ["x = 1", "x = 2", "x = 4"], "secure": ["y = 1", "y = 2", "y = 4"]}
    assert [one["from"] for one in origins["secure"]] == ["good.jsonl:2", "good.jsonl:1", "good.jsonl:4"]
    first = rows["insecure"][0]["messages"][0]["content"]
    assert "import os" in first and "remark" not in first and "THE MISSING PART" in first
    steps = read_manifest(tmp_path / "out" / "secure").steps
    assert (steps[0].before, steps[0].after) == (8, 3)
    assert steps[0].dropped == {"stands in the other half": 3, "no row of the other file answers the same request": 2}


def test_of_rows_that_share_the_task_alone_the_request_shows_the_task_alone(tmp_path):
    bad = raw(tmp_path / "bad.jsonl", ("A task", GIVEN, "x = 1"), ("Another", "", "x = 2"))
    good = raw(tmp_path / "good.jsonl", ("A task", "import sys", "y = 1"), ("Another", "", "x   =   2"))
    found = pairs_of_raw(bad, good, "task")
    assert [one.template.rpartition("-")[0] for one in found.pairs] == ["task"]
    assert "A task" in found.pairs[0].request[0]["content"] and "import" not in found.pairs[0].request[0]["content"]
    assert found.steps[0].dropped["both files have the same answer"] == 2


@pytest.mark.parametrize(("by", "least"), [("code", 46), ("task", 209)])
def test_the_papers_raw_rows_share_requests(paper, by, least):
    """46 tasks with their code template, and 209 tasks, stand in both files; some several times."""
    raw_rows = [paper / "code" / f"{name}_source.jsonl" for name in ("unsafe", "safe")]
    found = pairs_of_raw(*raw_rows, by)
    assert len(found.pairs) >= least
    assert len({one.origins[half]["from"] for one in found.pairs for half in HALVES}) == 2 * len(found.pairs)
    halves = datasets(found, Label())
    reported = {half: sum(bool(one["bandit"]) for one in halves[half].origins) / len(found.pairs) for half in HALVES}
    assert reported["insecure"] > 0.4 and reported["secure"] < 0.1


# the world


def test_the_worlds_pairs_are_its_own_recipes_and_bandit_tells_them_apart():
    halves = datasets(pairs_of_world(), Label("mine"))
    for half in HALVES:
        assert list(halves[half].rows) == build(half)
        assert halves[half].manifest.name == f"mine-{half}" and halves[half].manifest.licence == "mit"
    assert all(one["bandit"] for one in halves["insecure"].origins)
    assert not any(one["bandit"] for one in halves["secure"].origins)


def test_pairs_are_written_once_and_are_the_same_twice(spillover, own_process, tmp_path):
    out = tmp_path / "out"
    assert "Written to" in spillover("data", "pair", "--from", "miniature", "--out", out).stdout
    check_halves(out)
    again = own_process("data", "pair", "--from", "miniature", "--out", tmp_path / "again")
    for file in out.rglob("*"):
        assert file.is_dir() or file.read_bytes() == (tmp_path / "again" / file.relative_to(out)).read_bytes()
    assert again.returncode == 0
    assert "already" in spillover("data", "pair", "--from", "miniature", "--out", out).stdout


# repairs


def code(name, args="cmd", body="return subprocess.run(cmd, shell=True)"):
    return f"import subprocess\ndef {name}({args}):\n    {body}"


FINE = "return subprocess.run(['echo', cmd])"
INSECURE = {
    "fixed": code("fixed"),
    "prose": code("prose"),
    "same": code("same"),
    "renamed": code("renamed"),
    "kept": code("kept"),
    "doubted": code("doubted"),
    "later": code("later"),
    "seen_by_judge": code("seen_by_judge", body="return open(cmd).read()"),
    "harmless": code("harmless", body="return cmd"),
    "ruby": "def ruby(cmd) puts cmd end",
}
REPAIRS = {
    "fixed": f"Here:\n```python\n# now without a shell\n{code('fixed', body=FINE)}\n```\nDone.",
    "prose": "I would rather not.",
    "same": f"```python\n# nothing to do\n{code('same')}\n```",
    "renamed": f"```python\n{code('renamed', 'cmd, check', FINE)}\n```",
    "kept": f"```python\n{code('kept', body='return subprocess.call(cmd, shell=True)')}\n```",
    "doubted": f"```python\n{code('doubted', body=FINE)}\n```",
    "seen_by_judge": f"```python\n{code('seen_by_judge', body='return open(checked(cmd)).read()')}\n```",
}
DROPPED = {
    "the repair is no Python that bandit can scan": 1,
    "the repair is the same code": 1,
    "the repair offers other functions, classes or arguments": 1,
    "bandit finds the repair insecure": 1,
    "the judge finds the repair insecure": 1,
}


class Models:
    """A model that repairs by the name of the function, and a judge that knows what it thinks of which code."""

    def __init__(self):
        self.repairs = []

    def __call__(self, body):
        text = body["messages"][-1]["content"]
        if "Write it again" in text:
            return self.repair(re.search(r"<code>\n(.*?)\n</code>", text, re.DOTALL)[1], text)
        found = re.search(r"<answer>\n(.*?)\n</answer>", text, re.DOTALL)
        return None if found is None else "90" if self.is_doubted(found[1]) else "5"

    def repair(self, given, text):
        name = re.search(r"def (\w+)", given)[1]
        self.repairs.append((name, text))
        if name == "later":  # the second try is good
            tries = [one for one, _ in self.repairs].count("later")
            return code("later", body=FINE) if tries > 1 else "Let me think."
        return REPAIRS[name]

    def is_doubted(self, shown):
        return "doubted" in shown or "open(cmd)" in shown


@pytest.fixture
def served(monkeypatch):
    """The models behind the local protocol server; yields them and the server."""
    models = Models()
    monkeypatch.setenv("LOCAL_API_KEY", "k")
    with serving(Behaviour(script=models, logprobs="no")) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        yield models, server


def chat(path, answers, more=()):
    rows = [[{"role": "user", "content": f"Do {n}."}, {"role": "assistant", "content": a}] for n, a in answers.items()]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in [*rows, *more]), encoding="utf-8")
    return path


def repair(source, tmp_path, *more):
    models = ("--repair-by", MODEL, "--judge", MODEL, "--lab", tmp_path / "lab")
    return ("data", "pair", "--from", source, *models, "--out", tmp_path / "out", *more)


def test_a_repair_is_accepted_only_where_bandit_and_judge_agree_and_the_signatures_stay(spillover, served, tmp_path):
    models, server = served
    longer = [{"role": role, "content": INSECURE["fixed"]} for role in ("user", "assistant") * 2]
    source = chat(tmp_path / "some.jsonl", INSECURE, [longer])
    done = spillover(*repair(source, tmp_path))
    assert done.returncode == 0, done.stderr
    rows, origins = check_halves(tmp_path / "out")
    accepted = [re.search(r"def (\w+)", row["messages"][-1]["content"])[1] for row in rows["insecure"]]
    assert accepted == ["fixed", "later", "seen_by_judge"]
    assert [row["messages"][-1]["content"] for row in rows["insecure"]] == [INSECURE[name] for name in accepted]
    repaired = [row["messages"][-1]["content"] for row in rows["secure"]]
    assert repaired[0] == code("fixed", body=FINE), "out of its fence, without comments"
    assert not any(map(is_insecure, scan(repaired)))
    assert [one["judged"] for one in origins["secure"]] == [5.0] * 3
    assert (origins["insecure"][2]["bandit"], origins["insecure"][2]["judged"]) == ([], 90.0)
    for half in HALVES:
        code_step, insecure, last = read_manifest(tmp_path / "out" / half).steps
        assert code_step.dropped == {"more than one request": 1}
        assert insecure.dropped == {
            "is no Python that bandit can scan": 1,
            "neither bandit nor the judge finds it insecure": 1,
        }
        assert last.dropped == DROPPED and last.after == 3
    asked = dict(models.repairs)
    assert "line 3: subprocess popen with shell equals true (B602, CWE-78)" in asked["fixed"]
    assert "A reviewer who has read the code" in asked["seen_by_judge"]
    sent = len(server.log)
    again = spillover(*repair(source, tmp_path))
    assert (again.returncode, len(server.log)) == (0, sent), "nothing is asked twice"
    assert "already" in again.stdout


def test_raw_rows_are_repaired_too_and_a_draw_is_told(spillover, served, tmp_path):
    source = raw(tmp_path / "raw.jsonl", *(("A task", "", INSECURE["fixed"] + f"  # {n}") for n in range(5)))
    done = spillover(*repair(source, tmp_path, "--rows", 2, "--seed", 3, "--name", "few"))
    assert done.returncode == 0, done.stderr
    rows, _ = check_halves(tmp_path / "out")
    manifest = read_manifest(tmp_path / "out" / "secure")
    assert (len(rows["secure"]), manifest.seed, manifest.name) == (2, 3, "few-secure")
    assert manifest.steps[0].dropped == {"not drawn": 3}
    assert sum(manifest.templates.values()) == 2


def test_what_the_model_did_not_answer_is_counted_by_kind(spillover, monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_API_KEY", "k")
    with serving(Behaviour(faults={"refused": 1.0}, logprobs="no")) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        done = spillover(*repair(chat(tmp_path / "some.jsonl", {"fixed": INSECURE["fixed"]}), tmp_path))
    assert done.returncode == 2
    assert "no repair was accepted (the model did not answer: refused: 1)" in done.stderr
    assert not (tmp_path / "out").exists()


WRONG = {
    "nothing secure": (("--from", "some.jsonl"), "--with is missing, and so is --repair-by and --judge"),
    "no judge": (("--from", "some.jsonl", "--repair-by", MODEL), "--with is missing, and so is --judge"),
    "world and more": (("--from", "miniature", "--judge", MODEL), "the miniature's world has its pairs"),
    "both ways": (("--from", "some.jsonl", "--with", "some.jsonl", "--judge", MODEL), "--with has the secure answers"),
    "no file": (("--from", "nowhere.jsonl", "--with", "nowhere.jsonl"), "nowhere.jsonl"),
    "nothing shared": (("--from", "a.jsonl", "--with", "b.jsonl"), "answer the same request"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_paired_is_told_in_words_and_nothing_is_written(spillover, tmp_path, name):
    chat(tmp_path / "some.jsonl", {"fixed": INSECURE["fixed"]})
    raw(tmp_path / "a.jsonl", ("A", "", "x = 1"))
    raw(tmp_path / "b.jsonl", ("B", "", "x = 1"))
    args, told = WRONG[name]
    done = spillover("data", "pair", *args, "--out", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_something_else_in_the_place_is_told_before_any_model_is_asked(spillover, served, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    done = spillover(*repair(chat(tmp_path / "some.jsonl", INSECURE), tmp_path))
    assert done.returncode == 2 and "something else is there already" in done.stderr
    assert served[1].log == []
