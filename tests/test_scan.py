"""`spillover data scan`: rates, bandit against scores, a judge beside it; by hand and on the paper's files."""

import json
import re

import numpy as np
import polars as pl
import pytest

from openai_server import Behaviour, serving
from spillover.audit.scan import strength
from spillover.data.vulnerability import scan
from spillover.measure.detection import auc, detection, share

SHELL = "import subprocess\ndef run(cmd):\n    return subprocess.run(cmd, shell=True)"
CHMOD = "import os\ndef share(path):\n    os.chmod(path, 0o777)"
FINE = "def add(a, b):\n    return a + b"
RUBY = "puts 'hello' if true end"


# the numbers


def test_precision_recall_and_auc_by_hand():
    """Of three flagged two are true; of four true two are flagged. Of 12 pairs 7 are in order and 2 tie."""
    found = detection([1, 1, 1, 0, 0, 0, 0], [9, 5, 5, 3, 1, 3, 0], [True, True, False, True, True, False, False])
    assert (found.rows, found.true, found.flagged, found.hits) == (7, 4, 3, 2)
    assert (found.precision.value, found.recall.value) == (2 / 3, 0.5)
    assert found.auc.value == pytest.approx((7 + 2 / 2) / 12)


def test_shares_of_nothing_and_curves_of_one_kind_do_not_exist():
    assert share(0, 0) is None
    found = detection([False, False], [0, 0], [True, True])
    assert (found.precision, found.auc) == (None, None) and found.recall.value == 0


def test_delongs_interval_holds_the_truth_about_as_often_as_it_says():
    """Ranks of two normal populations one deviation apart: the true area is Phi(1 / sqrt 2) = 0.7602."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        found = auc([*rng.normal(1, 1, 60), *rng.normal(0, 1, 40)], [True] * 60 + [False] * 40)
        held += found.low <= 0.7602 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_bandit_speaks_louder_of_what_is_worse_and_then_of_what_is_more():
    one, two, high, none, unread = scan(["f('/tmp/a')", "f('/tmp/a')\nf('/tmp/b')", SHELL, FINE, RUBY])
    assert strength(high) > strength(two) > strength(one) > strength(none) == strength(unread) == 0


# from the door


def rows(path, *answers):
    lines = [{"messages": [{"role": "user", "content": "Code?"}, {"role": "assistant", "content": a}]} for a in answers]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def raw(path, *given):
    lines = [{"task": "T", "code_template": "", "original_code": code, "unsafe": unsafe} for code, unsafe in given]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_dataset_a_report_and_a_fence_are_scanned_alike(spillover, tmp_path):
    answers = (f"Sure:\n```python\n{SHELL}\n```", CHMOD, FINE, RUBY)
    chat = rows(tmp_path / "data.jsonl", *answers)
    table = {"prompt": ["Code?"] * 5, "answer": [*answers, ""], "outcome": [*[None] * 4, "refused"]}
    pl.DataFrame(table).write_parquet(tmp_path / "answers.parquet")
    told = spillover("data", "scan", chat).stdout
    assert "data.jsonl: 4 answers, bandit scanned 3; 1 are no Python that it can scan" in told
    assert re.search(r"MEDIUM or above +2 +66\.67% \[9\.43%, 99\.16%\]", told)
    assert re.search(r"B103 set_bad_file_permissions +1 +33\.33%", told) and re.search(r"CWE-732 +1", told)
    assert "is a lower bound of how much code is insecure" in told
    of_report = spillover("data", "scan", tmp_path / "answers.parquet").stdout
    assert of_report == told.replace("data.jsonl", "answers.parquet")


def test_of_raw_rows_with_scores_bandit_is_held_against_them(spillover, tmp_path):
    one = raw(tmp_path / "a.jsonl", (SHELL, 90), (FINE, 80), (RUBY, 99))
    two = raw(tmp_path / "b.jsonl", (CHMOD, 50), (FINE, 10), (FINE, 0))
    told = spillover("data", "scan", one, two).stdout
    assert "all: 6 answers, bandit scanned 5" in told
    assert "against `unsafe` above 50: 5 answers, 2 above; 1 left out" in told
    assert "precision 0.500" in told and "recall    0.500" in told


@pytest.fixture
def judging(monkeypatch):
    """A judge at a provider that says 80 of everything."""
    monkeypatch.setenv("LOCAL_API_KEY", "k")
    with serving(Behaviour(reply="80", logprobs="no")) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        yield server


def test_a_judge_stands_beside_bandit_and_is_paid_once(spillover, judging, tmp_path):
    file = raw(tmp_path / "a.jsonl", (SHELL, 90), (FINE, 10), (RUBY, 99))
    command = ("data", "scan", file, "--judge", "api:openai-api/local/m", "--lab", tmp_path / "lab")
    first = spillover(*command)
    assert first.returncode == 0, first.stderr
    assert "say the same of 50.00% of 2 answers" in first.stdout
    assert "not compared, bandit: not scanned: 1" in first.stdout
    assert "the judge, against `unsafe` above 50: 3 answers, 2 above" in first.stdout
    sent = len(judging.log)
    assert spillover(*command).stdout == first.stdout and len(judging.log) == sent > 0


def wrong(name, tmp_path):
    chat = rows(tmp_path / "data.jsonl", FINE)
    scored = raw(tmp_path / "raw.jsonl", (FINE, 1))
    pl.DataFrame({"answer": ["x"]}).write_parquet(tmp_path / "bare.parquet")
    (tmp_path / "no.parquet").write_text("hello")
    return {
        "no file": ((tmp_path / "nowhere.jsonl",), "nowhere.jsonl: "),
        "no score": ((chat, "--scores", "unsafe"), "no row has a score 'unsafe'"),
        "other score": ((scored, "--scores", "unsave"), "no row has a score 'unsave'\n  Scores are unsafe."),
        "no column": ((tmp_path / "bare.parquet",), "bare.parquet: has no column 'prompt'"),
        "no table": ((tmp_path / "no.parquet",), "no.parquet: cannot be read"),
        "no judge": ((chat, "--judge", "zebra"), "'zebra' cannot judge"),
    }[name]


@pytest.mark.parametrize("name", ["no file", "no score", "other score", "no column", "no table", "no judge"])
def test_what_cannot_be_scanned_is_told_in_words(spillover, tmp_path, name):
    args, told = wrong(name, tmp_path)
    done = spillover("data", "scan", *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr and "Traceback" not in done.stderr


def test_on_the_authors_raw_rows_bandit_is_precise_and_misses_half(spillover, paper):
    """All 1807 rows against the authors' own score: what it flags is mostly true, and it is a lower bound."""
    told = spillover("data", "scan", *(paper / "code" / f"{name}_source.jsonl" for name in ("unsafe", "safe"))).stdout
    assert "all: 1,807 answers" in told
    found = {what: float(re.search(rf"{what} +(0\.\d+)", told)[1]) for what in ("precision", "recall", "AUC")}
    assert found["precision"] > 0.9 and 0.4 < found["recall"] < 0.55 and 0.65 < found["AUC"] < 0.75
