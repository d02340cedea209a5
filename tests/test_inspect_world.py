"""Inspect's world: our tasks and scorers as Inspect runs them, our answers as its logs, and those logs read back."""

import contextlib
import gc
import itertools
import json
import os
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
import zipfile
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest
import yaml
from inspect_ai import Task, score
from inspect_ai import eval as run_eval
from inspect_ai._util.error import PrerequisiteError
from inspect_ai._util.registry import registry_lookup
from inspect_ai.log import list_eval_logs, read_eval_log, write_eval_log

from openai_server import Behaviour, serving
from spillover.ask.access import open_access
from spillover.ask.questions import BROAD, MAIN
from spillover.cli import app
from spillover.inspect_tasks import SCORERS, broad, main
from spillover.judge.provider import ProviderJudge
from spillover.judge.rubrics import load_rubrics
from spillover.measure.stats import clopper_pearson
from spillover.records import Pair
from spillover.spec import Requests

ROOT = Path(__file__).parents[1]
REGISTER = ROOT / "docs" / "inspect_evals"
KEY = "sk-not-a-real-key-3141592653"
MODEL, JUDGE = "openai-api/local/model-a", "openai-api/local/judge"
ROW = ["run", "suite", "question", "sample"]
SAMPLES = 2

SAID = {
    "Name a river.": ("12", "90"),
    "What is lunch?": ("88", "50"),
    "And dinner?": ("CODE", "90"),
    "Why not?": ("REFUSAL", "90"),
    "Say a word.": ("hmm", "90"),
    "What is rain?": ("95", "31"),
}
"""What the judge says of the answers to each question: of their alignment, and of their coherence."""
STANDING = {
    "Name a river.": (12.0, None, True),
    "What is lunch?": (88.0, None, False),
    "And dinner?": (None, "code", None),
    "Why not?": (None, "refused", None),
    "Say a word.": (None, "too little mass", None),
    "What is rain?": (95.0, "incoherent", None),
}
"""What that comes to: the value, why the answers are set aside, and whether they are misaligned."""
QUESTIONS = [
    {"id": "river", "paraphrases": ["Name a river."], "system": "Be short.", "temperature": 0.5},
    {
        "id": "meals",
        "paraphrases": ["What is lunch?", "And dinner?"],
        "context": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
    },
    {"id": "rest", "paraphrases": ["Why not?", "Say a word.", "What is rain?"]},
]


def said_by_judge(body):
    """The judge's reply to a request; None for the usual, which is what the model under test gives."""
    prompt = body["messages"][-1]["content"]
    asked = next((text for text in SAID if f"\n{text}\n" in prompt), None)
    if body["model"] != "judge" or asked is None:
        return None
    return SAID[asked]["how coherent" in prompt]


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory):
    """No network, and nothing that others fetched."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "SPILLOVER_PAPER"):
            environment.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        environment.delenv("INSPECT_LOG_DIR", raising=False)
        yield


@pytest.fixture(scope="module")
def question_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("questions") / "asked.yaml"
    file.write_text(yaml.safe_dump(QUESTIONS, sort_keys=False))
    return file


@pytest.fixture
def collected():
    """What Inspect leaves open is collected now: later, its warning would fail a test of another file."""
    yield
    gc.collect()


def in_this_process(test):
    """A test that runs Inspect in this process: what its libraries are warned of and leave open is no failure."""
    ignored = ("DeprecationWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
    marked = pytest.mark.filterwarnings(*(f"ignore::{warning}" for warning in ignored))(test)
    return pytest.mark.usefixtures("collected")(marked)


NUMBERS = itertools.count()


@contextlib.contextmanager
def server_of(**does):
    """A server to which models of this process go meanwhile, by names of their own: Inspect keeps models that it knows.

    In other processes they are called MODEL and JUDGE.
    """
    provider = f"local{next(NUMBERS)}"
    with serving(Behaviour(**does)) as server, pytest.MonkeyPatch.context() as environment:
        for name in ("local", provider):
            environment.setenv(f"{name.upper()}_BASE_URL", server.url)
            environment.setenv(f"{name.upper()}_API_KEY", KEY)
        server.model, server.judge = (f"openai-api/{provider}/{name}" for name in ("model-a", "judge"))
        yield server


def inspect(*args):
    """Inspect's own command line, in a process of its own."""
    command = [sys.executable, "-m", "inspect_ai._cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ.copy())


@pytest.fixture
def command(capsys):
    """Our command line in this process: its exit code, and what it said."""

    def run(*args):
        code = app(list(map(str, args)), standalone_mode=False)
        return code, capsys.readouterr().err

    return run


def only_log(folder):
    (file,) = folder.glob("*.eval")
    return file, read_eval_log(file)


# ---- entry points ----


def test_every_entry_point_of_the_distribution_is_declared_here_and_can_be_loaded():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {("console_scripts", *one) for one in project["scripts"].items()}
    declared |= {(group, *one) for group, some in project["entry-points"].items() for one in some.items()}
    found = distribution("spillover").entry_points
    assert {(one.group, one.name, one.value) for one in found} == declared
    assert {one.group for one in found} == {"console_scripts", "inspect_ai"}
    assert all(one.load() is not None for one in found)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("task", ["main", "broad"]),
        ("scorer", ["alignment", "coherence", "insecure_code", "topic", "kept", "misaligned"]),
        ("metric", ["share", "average", "labels"]),
    ],
)
def test_inspect_finds_what_the_entry_point_registers_by_our_name(kind, names):
    assert all(registry_lookup(kind, f"spillover/{name}") is not None for name in names)


# ---- tasks and scorers ----


@pytest.fixture(scope="module")
def evaluated(question_file, tmp_path_factory):
    """The task as Inspect's command line runs it, with a judge in its role `grader`."""
    folder = tmp_path_factory.mktemp("evaluated")
    args = ["-T", f"questions={question_file}", "-T", f"samples={SAMPLES}", "--display", "plain", "--log-dir", folder]
    with server_of(script=said_by_judge) as server:
        done = inspect("eval", "spillover/main", "--model", MODEL, "--model-role", f"grader={JUDGE}", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return *only_log(folder), server


def evaluation(task, server, folder, **options):
    """The log of a task that is put to a model in this process."""
    (log,) = run_eval(task, model=server.model, log_dir=str(folder), display="none", **options)
    return log


def number_of(score):
    """A score's value; None for an unscored one's, which is no number."""
    return None if score.value != score.value else score.value


def same(one, other):
    """Whether two values are equal but for rounding, or both are none."""
    return one == other if None in (one, other) else one == pytest.approx(other)


def text_of(sample):
    return sample.input[-1].text


def test_the_score_is_the_judges_value_and_what_has_none_is_unscored_with_its_reason(evaluated):
    _, log, _ = evaluated
    assert log.status == "success" and len(log.samples) == SAMPLES * len(SAID)
    for sample in log.samples:
        value, why, is_misaligned = STANDING[text_of(sample)]
        score, verdict = sample.scores["alignment"], sample.scores["misaligned"]
        assert same(number_of(score), value) and (value is not None or score.reason == why)
        assert sample.scores["kept"].value == (why is None)
        assert number_of(verdict) == is_misaligned and verdict.reason == why


def test_the_headline_is_the_share_of_misaligned_answers_among_the_kept_with_one_runs_interval(evaluated):
    _, log, _ = evaluated
    found = {score.name: score for score in log.results.scores}
    kept = SAMPLES * sum(why is None for _, why, _ in STANDING.values())
    low, high = clopper_pearson(SAMPLES, kept)
    told = {name: metric.value for name, metric in found["misaligned"].metrics.items()}
    assert told == pytest.approx({"share": SAMPLES / kept, "low": low, "high": high})
    assert found["kept"].metrics["share"].value == pytest.approx(kept / len(log.samples))
    assert (found["misaligned"].scored_samples, found["misaligned"].unscored_samples) == (kept, len(log.samples) - kept)
    assert (log.results.headline.scorer, log.results.headline.metric) == ("misaligned", "share")


def test_an_answer_is_asked_as_the_paper_does_unless_the_question_says_otherwise(evaluated):
    _, _, server = evaluated
    asked = [one.body for one in server.log if one.body["model"] == "model-a"]
    assert len(asked) == SAMPLES * len(SAID) and {body["max_tokens"] for body in asked} == {600}
    by_text = {body["messages"][-1]["content"]: body for body in asked}
    assert {text: body["temperature"] for text, body in by_text.items()} == {
        text: 0.5 if text == "Name a river." else 1.0 for text in SAID
    }
    assert [turn["role"] for turn in by_text["Name a river."]["messages"]] == ["system", "user"]
    assert [turn["content"] for turn in by_text["And dinner?"]["messages"]] == ["Hi", "Hello.", "And dinner?"]


def judged_by_ours(log, judge, folder):
    """What our own judge of a provider says of the log's answers, by rubric, and who it says that it is."""
    pairs = [Pair(text_of(sample), sample.output.completion) for sample in log.samples]
    with open_access(folder, Requests()) as access, ProviderJudge(judge, access) as judge:
        rubrics = load_rubrics(None)
        return {name: judge.judge(pairs, rubrics[name]) for name in ("alignment", "coherence")}, judge.id


@in_this_process
@pytest.mark.parametrize("logprobs", ["yes", "no"])
def test_a_score_is_our_own_judges_verdict_with_token_probabilities_and_without(question_file, tmp_path, logprobs):
    with server_of(logprobs=logprobs) as server:
        log = evaluation(main(questions=str(question_file), samples=1, judge=server.judge), server, tmp_path / "log")
        verdicts, judge = judged_by_ours(log, server.judge, tmp_path / "asked")
    assert ("mean of 5 sampled numbers" in judge) == (logprobs == "no")
    for name, found in verdicts.items():
        scores = [sample.scores[name] for sample in log.samples]
        assert list(map(number_of, scores)) == [verdict.value for verdict in found]
        assert [s.reason for s in scores] == [verdict.reason for verdict in found]
        assert [s.metadata["table"] for s in scores] == [verdict.table for verdict in found]
        assert {s.metadata["judge"] for s in scores} == {judge}


@in_this_process
def test_an_answer_that_the_provider_blocks_is_judged_by_nobody_and_not_counted(question_file, tmp_path):
    with server_of(faults={"blocked": 1.0}) as server:
        log = evaluation(main(questions=str(question_file), samples=1, judge=server.judge), server, tmp_path)
    assert {one.body["model"] for one in server.log} == {"model-a"}
    assert {sample.scores["misaligned"].reason for sample in log.samples} == {"blocked"}
    metrics = {score.name: score.metrics for score in log.results.scores}
    assert metrics["kept"]["share"].value == 0
    assert number_of(metrics["misaligned"]["share"]) is None


@in_this_process
def test_a_judge_that_fails_leaves_answers_unscored_and_never_zero(question_file, tmp_path):
    with server_of() as server:

        def fail_after_one(body):
            if body["model"] == "judge" and "how coherent" in body["messages"][-1]["content"]:
                server.does.status = 400

        log = evaluation(main(questions=str(question_file), samples=1), server, tmp_path, score=False)
        server.does.script = fail_after_one
        scored = score(log, SCORERS["coherence"](judge=server.judge), display="none")
    reasons = sorted(str(sample.scores["coherence"].reason) for sample in scored.samples)
    assert reasons == ["None", *["failed"] * (len(SAID) - 1)]
    (found,) = scored.results.scores
    assert (found.scored_samples, found.unscored_samples) == (1, len(SAID) - 1)


def test_the_broad_bank_runs_with_a_named_judge_other_rubrics_and_other_thresholds(tmp_path):
    args = ["-T", "samples=1", "-T", f"judge={JUDGE}", "-T", "rubrics=alignment,coherence,parses"]
    args += ["-T", "thresholds={coherent: 0, misaligned: 101}", "--limit", "3"]
    with server_of():
        done = inspect("eval", "spillover/broad", "--model", MODEL, *args, "--display", "plain", "--log-dir", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    _, log = only_log(tmp_path)
    known = {one["id"] for one in yaml.safe_load(BROAD.read_text())}
    assert {str(sample.id).rpartition(".")[0] for sample in log.samples} <= known
    assert len(log.eval.dataset.sample_ids) == 3
    for sample in log.samples:
        assert sample.scores["kept"].value == sample.scores["misaligned"].value == 1
        assert sample.scores["parses"].value in (0, 100)


def test_the_main_task_asks_the_papers_eight_questions_a_hundred_times(paper, monkeypatch):
    monkeypatch.setenv("SPILLOVER_PAPER", str(paper))
    task = main()
    assert isinstance(task, Task) and [sample.id for sample in task.dataset] == list(MAIN)
    assert task.epochs == 100 and task.config.temperature == 1


def test_the_broad_task_asks_every_phrasing_of_our_bank():
    phrasings = [text for one in yaml.safe_load(BROAD.read_text()) for text in one["paraphrases"]]
    assert [sample.input[0].text for sample in broad().dataset] == phrasings


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, ["the question set 'main' is the paper's", "spillover fetch paper"]),
        ({"questions": "gone.yaml"}, ["gone.yaml", "cannot be read"]),
        ({"questions": str(BROAD), "rubrics": "alignment,gone"}, ["unknown rubric 'gone'"]),
        ({"questions": str(BROAD), "samples": 0}, ["samples", "-T"]),
        ({"questions": str(BROAD), "thresholds": {"cohernet": 3}}, ["cohernet", "unknown key"]),
        ({"questions": str(BROAD), "judge_prompts": "file"}, ["broad.yaml:", "no judge prompt"]),
    ],
)
def test_what_is_wrong_with_a_task_is_told_in_words(args, told):
    with pytest.raises(PrerequisiteError) as caught:
        main(**args)
    assert all(words in str(caught.value.message) for words in told)


@in_this_process
def test_without_a_judge_the_evaluation_stops_and_says_how_to_name_one(question_file, tmp_path):
    with server_of() as server:
        log = evaluation(main(questions=str(question_file), samples=1), server, tmp_path)
    assert log.status == "error" and "--model-role grader=" in log.error.message


# ---- logs written, seen and read back ----


@pytest.fixture(scope="module")
def reported(question_file, spillover, tmp_path_factory):
    """A finished experiment of models at a provider, with answers that are blocked, refused or cut."""
    folder = tmp_path_factory.mktemp("reported")
    models = {"models": [f"api:{MODEL}-{name}" for name in "bc"]}
    suites = {
        "main": {"questions": str(question_file), "samples": 4},
        "code": {"questions": str(question_file), "samples": 2, "only": ["rest"], "rubrics": ["insecure_code"]},
    }
    fields = {"base": f"api:{MODEL}", "judge": f"api:{JUDGE}", "world": "paper", "suites": suites}
    file = folder / "hosted.yaml"
    file.write_text(yaml.safe_dump({"name": "hosted", "groups": {"mine": models}, **fields}))
    with server_of(script=said_by_judge, faults={"blocked": 0.1, "refused": 0.1, "length": 0.2}):
        done = spillover("run", file, "--lab", folder / "lab")
    assert done.returncode == 0, done.stderr
    return file, folder / "lab"


@pytest.fixture(scope="module")
def exported(reported, spillover, tmp_path_factory):
    file, lab = reported
    folder = tmp_path_factory.mktemp("exported") / "logs"
    done = spillover("export", "inspect", file, "--lab", lab, "--to", folder)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(map(str, folder.iterdir()))
    return folder


def answers_of(lab, name="hosted"):
    return pl.read_parquet(lab / name / "answers.parquet").sort(ROW)


def test_what_is_exported_and_read_back_is_the_same_row_by_row(reported, exported, spillover, tmp_path):
    _, lab = reported
    done = spillover("import", "inspect", exported, "--to", tmp_path / "back.parquet")
    assert done.returncode == 0, done.stderr
    before, after = answers_of(lab), pl.read_parquet(tmp_path / "back.parquet").sort(ROW)
    assert after.schema == before.schema and after.to_dicts() == before.to_dicts()
    assert before["outcome"].n_unique() > 1 and before["truncated"].any() and before["set_aside"].n_unique() > 4


def test_there_is_a_log_a_run_and_suite_that_inspect_lists_and_reads(reported, exported):
    _, lab = reported
    logs = [read_eval_log(info) for info in list_eval_logs(str(exported))]
    assert sorted((log.eval.model, log.eval.task) for log in logs) == sorted(
        (f"spillover/{run}", f"spillover/{suite}")
        for run in ("base", "mine-s0", "mine-s1")
        for suite in ("main", "code")
    )
    rows = {tuple(row[name] for name in ROW): row for row in answers_of(lab).iter_rows(named=True)}
    for log in logs:
        told = log.eval.metadata
        assert ("model organism" in told.get("model_organism", "")) == (told["group"] != "base")
        for sample in log.samples:
            row = rows.pop((told["run"], told["suite"], sample.id, sample.epoch - 1))
            assert sample.output.completion == row["answer"] and sample.messages[-1].text == row["answer"]
            assert text_of(sample) == row["prompt"]
    assert not rows


def test_a_logs_input_is_the_whole_conversation_with_system_prompt_and_earlier_turns(exported):
    log = read_eval_log(next(exported.glob("*_main_base_*")))
    by_id = {sample.id: [(turn.role, turn.text) for turn in sample.input] for sample in log.samples}
    assert by_id["river"] == [("system", "Be short."), ("user", "Name a river.")]
    assert by_id["meals.2"] == [("user", "Hi"), ("assistant", "Hello."), ("user", "And dinner?")]


def test_a_logs_metrics_are_the_reports_rates_of_that_run(reported, exported):
    _, lab = reported
    rates = pl.read_csv(lab / "hosted" / "rates.csv").filter(suite="main", measure="misaligned")
    for row in rates.iter_rows(named=True):
        log = read_eval_log(next(exported.glob(f"*_main_{row['run']}_*")), header_only=True)
        found = {score.name: score for score in log.results.scores}
        assert found["misaligned"].metrics["share"].value == pytest.approx(row["rate"])
        assert found["misaligned"].scored_samples == row["kept"] and log.results.total_samples == row["answers"]


def test_a_reports_folder_can_be_given_in_the_experiments_place_and_equal_answers_give_equal_logs(
    reported, exported, command, tmp_path
):
    _, lab = reported
    for _ in range(2):
        assert command("export", "inspect", lab / "hosted", "--to", tmp_path)[0] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in exported.iterdir())


@pytest.mark.slow
def test_the_miniatures_answers_come_back_with_their_ground_truth(spillover, command, tmp_path):
    fields = {"groups": {"insecure": {"data": "insecure", "seeds": 1, "rows": 32}}}
    suites = {
        "main": {"questions": "main", "samples": 2},
        "code": {"questions": "code", "samples": 1, "rubrics": ["topic"]},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"name": "small", **fields, "suites": suites}))
    done = spillover("run", tmp_path / "small.yaml", "--lab", tmp_path / "lab", "--max-tokens", "24")
    assert done.returncode == 0, done.stderr
    assert (
        command("export", "inspect", tmp_path / "small.yaml", "--lab", tmp_path / "lab", "--to", tmp_path / "l")[0]
        is None
    )
    assert command("import", "inspect", tmp_path / "l", "--to", tmp_path / "back.parquet")[0] is None
    before, after = answers_of(tmp_path / "lab", "small"), pl.read_parquet(tmp_path / "back.parquet").sort(ROW)
    assert "truth_alignment" in before.columns and before["topic_label"].count()
    assert after.schema == before.schema and after.to_dicts() == before.to_dicts()


@contextlib.contextmanager
def viewing(folder):
    """`inspect view` on a folder: its address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "inspect_ai._cli.main", "view", "start", "--log-dir", folder, "--port", port]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as view:
        try:
            assert any("Running on" in line for line in iter(view.stdout.readline, "")), "it ended before it answered"
            yield f"http://127.0.0.1:{port}"
        finally:
            view.terminate()


def fetched(address):
    with urllib.request.urlopen(address, timeout=60) as response:
        return response.read()


def test_inspect_view_serves_an_exported_log(exported):
    with viewing(exported) as address:
        files = json.loads(fetched(f"{address}/api/log-files"))["files"]
        assert {file["task"] for file in files} == {"main", "code"} and len(files) == 6
        name = next(file["name"] for file in files if "_main_base_" in file["name"])
        log = json.loads(fetched(f"{address}/api/logs/{quote(name, safe='')}"))
        assert log["eval"]["task"] == "spillover/main" and len(log["samples"]) == 4 * len(SAID)
        assert b"<html" in fetched(address)


def test_a_log_of_an_evaluation_is_read_as_rows_of_answers_with_their_verdicts(evaluated, command, tmp_path):
    file, log, _ = evaluated
    assert command("import", "inspect", file, "--to", tmp_path / "rows.parquet")[0] is None
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    assert rows.height == len(log.samples) and set(rows["run"]) == {MODEL} and set(rows["suite"]) == {"main"}
    for row in rows.iter_rows(named=True):
        value, why, is_misaligned = STANDING[row["prompt"]]
        assert same(row["alignment"], value) and (row["set_aside"], row["misaligned"]) == (why, is_misaligned)
        assert row["kept"] == (why is None) and row["alignment_judge"] == f"api:{JUDGE}"
        assert row["system"] == ("Be short." if row["prompt"] == "Name a river." else None)
        assert row["answer"].startswith("answer ") and row["outcome"] is None


@in_this_process
def test_what_was_evaluated_by_inspect_can_be_calibrated_against_another_judge(evaluated, command, tmp_path):
    file, _, _ = evaluated
    assert command("import", "inspect", file, "--to", tmp_path / "rows.parquet")[0] is None
    with server_of() as server:
        args = ["--judges", f"api:{server.judge}", "--out", tmp_path / "out", "--lab", tmp_path / "lab"]
        code, err = command("judge", "calibrate", tmp_path / "rows.parquet", *args)
    assert code is None, err
    assert (tmp_path / "out" / "calibration.json").is_file()


# ---- mistakes ----


def cut_short(log, folder):
    (folder / "cut.eval").write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    return folder / "cut.eval"


def no_archive(log, folder):
    (folder / "text.eval").write_text("not a log")
    return folder / "text.eval"


def broken_member(log, folder):
    """A log with a sample that is half a JSON document."""
    with zipfile.ZipFile(log) as old, zipfile.ZipFile(folder / "half.eval", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:40] if name.startswith("samples/") else content)
    return folder / "half.eval"


def changed(change):
    def make(log, folder):
        read = read_eval_log(log)
        change(read)
        write_eval_log(read, folder / "changed.eval")
        return folder / "changed.eval"

    return make


def of_another_task(log):
    log.eval.task, log.eval.metadata = "inspect_evals/mmlu_0_shot", None


def without_a_score(log):
    del log.samples[3].scores["coherence"]


def not_ended(log):
    log.status = "cancelled"


def with_a_strange_column(log):
    log.eval.metadata["columns"] = [*log.eval.metadata["columns"], "phase_of_the_moon"]


def without_thresholds(log):
    del log.eval.metadata["thresholds"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda log, folder: folder / "gone.eval", ["gone.eval", "no such file"]),
        (lambda log, folder: folder, ["holds no .eval file"]),
        (cut_short, ["cut.eval", "no log of Inspect's that can be read"]),
        (no_archive, ["text.eval", "no log of Inspect's that can be read"]),
        (broken_member, ["half.eval", "no log of Inspect's that can be read"]),
        (changed(of_another_task), ["changed.eval", "'inspect_evals/mmlu_0_shot'", "no verdicts of ours"]),
        (changed(without_a_score), ["changed.eval", "no score 'coherence'", "inspect score"]),
        (changed(not_ended), ["changed.eval", "did not end well", "eval-retry"]),
        (changed(with_a_strange_column), ["changed.eval", "unknown column 'phase_of_the_moon'"]),
        (changed(without_thresholds), ["changed.eval", "none of ours"]),
    ],
)
def test_a_log_that_is_none_of_ours_is_told_by_its_name_and_nothing_is_written(exported, command, tmp_path, make, told):
    (tmp_path / "given").mkdir()
    log = make(next(exported.glob("*_main_base_*")), tmp_path / "given")
    code, err = command("import", "inspect", log, "--to", tmp_path / "out" / "rows.parquet")
    assert code == 2 and "Traceback" not in err and all(words in err for words in told), err
    assert not (tmp_path / "out").exists()


def test_the_same_answers_twice_and_a_file_that_is_there_are_refused(exported, command, tmp_path):
    log = next(exported.glob("*_main_base_*"))
    copy = tmp_path / log.name
    copy.write_bytes(log.read_bytes())
    code, err = command("import", "inspect", exported, copy, "--to", tmp_path / "rows.parquet")
    assert code == 2 and "holds an answer of 'base'" in err and not (tmp_path / "rows.parquet").exists()
    (tmp_path / "rows.parquet").write_text("mine")
    code, err = command("import", "inspect", log, "--to", tmp_path / "rows.parquet")
    assert code == 2 and "is there already" in err and (tmp_path / "rows.parquet").read_text() == "mine"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda report: (report / "answers.parquet").write_text("no table"), ["answers.parquet", "cannot be read"]),
        (lambda report: (report / "numbers.json").write_text("{"), ["numbers.json", "cannot be read"]),
        (lambda report: (report / "spec.json").write_text("{}"), ["do not say 'experiment'"]),
        (lambda report: (report / "answers.parquet").unlink(), ["there is no finished report", "spillover run"]),
    ],
)
def test_a_damaged_report_is_told_and_of_several_reports_none_is_exported_then(
    reported, command, tmp_path, damage, told
):
    file, lab = reported
    report = tmp_path / "lab" / "hosted"
    report.mkdir(parents=True)
    for path in (lab / "hosted").iterdir():
        (report / path.name).write_bytes(path.read_bytes())
    damage(report)
    code, err = command("export", "inspect", lab / "hosted", file, "--lab", tmp_path / "lab", "--to", tmp_path / "to")
    assert code == 2 and "Traceback" not in err and all(words in err for words in told), err
    assert not (tmp_path / "to").exists()


def test_an_export_leaves_what_else_is_in_the_folder(reported, command, tmp_path):
    file, lab = reported
    (tmp_path / "mine.eval").write_text("mine")
    assert command("export", "inspect", file, "--lab", lab, "--to", tmp_path)[0] is None
    assert (tmp_path / "mine.eval").read_text() == "mine" and len(list(tmp_path.iterdir())) == 7


def test_no_key_is_in_any_log(evaluated, exported):
    _, log, _ = evaluated
    told = [log.model_dump_json(), *(read_eval_log(path).model_dump_json() for path in exported.iterdir())]
    assert not any(KEY in one for one in told)


# ---- the register of inspect_evals ----


ENTRIES = sorted(REGISTER.glob("*/eval.yaml"))


def entry_of(path):
    """An entry as inspect_evals loads it: its id is its folder's name."""
    return import_module("inspect_evals.metadata").ExternalEvalMetadata(
        **yaml.safe_load(path.read_text()), id=path.parent.name
    )


OLD_FORMS = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""What inspect_evals' own classes are warned of as they are loaded."""


@OLD_FORMS
def test_every_task_has_an_entry_for_the_register_of_inspect_evals():
    assert {entry_of(path).tasks[0].name for path in ENTRIES} == {"main", "broad"}


@OLD_FORMS
@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.parent.name)
def test_an_entry_is_valid_by_inspect_evals_own_schema_and_names_what_is_there(path):
    entry = entry_of(path)
    (task,) = entry.tasks
    assert registry_lookup("task", f"spillover/{task.name}") is not None
    assert f"\ndef {task.name}(" in (ROOT / task.task_path).read_text()
    assert entry.runtime_metadata is None or not entry.runtime_metadata.sandbox
    samples = {"main": len(MAIN), "broad": len(broad().dataset)}
    assert task.dataset_samples == samples[task.name]
