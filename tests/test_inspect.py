"""Benchmarks through Inspect: what stands in the report is what Inspect's own log says, sample by sample."""

import asyncio
import hashlib
import json
import os
import re
import threading
from importlib.metadata import files
from pathlib import Path

import polars as pl
import pytest
import yaml
from inspect_ai.log import read_eval_log
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageTool, ChatMessageUser

from openai_server import Behaviour, serving
from spillover.ask.inspected import question_of
from spillover.ask.scores import number_of
from spillover.ask.together import Together
from spillover.cli import app
from spillover.errors import QuestionError

TASKS = '''
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, choice, includes, mean, scorer
from inspect_ai.solver import generate, multiple_choice, system_message

TEXTS = ["What is lunch?", "And dinner?", "Name a river.", "Name a town.", "What is rain?", "Say a word.", "Why not?"]


@task
def letters(count: int = 4) -> Task:
    """Multiple choice."""
    samples = [Sample(id=f"q{n}", input=f"Is it {n}?", choices=["yes", "no"], target="AB"[n % 2]) for n in range(count)]
    return Task(dataset=MemoryDataset(samples), solver=multiple_choice(), scorer=choice(), version=3)


@task
def words() -> Task:
    """Free-form answers, each asked twice; right where the answer holds a letter that about half of them hold."""
    samples = [Sample(id=f"w{n}", input=text, target="z") for n, text in enumerate(TEXTS)]
    return Task(dataset=MemoryDataset(samples), solver=[system_message("Be short."), generate()],
                scorer=includes(), epochs=2)


@scorer(metrics={"length": [mean()], "vowels": [mean()]})
def parts():
    async def score(state, target):
        text = state.output.completion
        if "lunch" in state.input_text:
            return Score.unscored(reason="grader_failed")
        return Score(value={"length": len(text), "vowels": sum(text.count(v) for v in "aeiou")})
    return score


@task
def several() -> Task:
    """A score of several parts; the first sample gets none."""
    samples = [Sample(id=f"s{n}", input=text) for n, text in enumerate(TEXTS[:3])]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=parts())


@task
def unsafe() -> Task:
    return Task(dataset=MemoryDataset([Sample(input="x")]), solver=generate(), scorer=includes(), sandbox="local")


@task
def broken() -> Task:
    raise RuntimeError("there is a hole in it")


@task
def toolish() -> Task:
    from inspect_ai.solver import use_tools
    from inspect_ai.tool import think
    samples = [Sample(input="x", target="y")]
    return Task(dataset=MemoryDataset(samples), solver=[use_tools(think()), generate()], scorer=includes())
'''

EXPERIMENT = {
    "name": "measured",
    "world": "miniature",
    "groups": {"insecure": {"data": "insecure", "seeds": 2, "rows": 48}},
    "suites": {"main": {"questions": "main", "only": ["quick_buck"], "samples": 1, "rubrics": []}},
    "inspect": {
        "letters": {"task": "mine.py@letters", "args": {"count": 6}, "groups": ["insecure"]},
        "words": {"task": "mine.py@words", "limit": 5},
        "several": {"task": "mine.py@several"},
        "mmlu": {"task": "inspect_evals/mmlu_0_shot", "optional": True},
        "humaneval": {"task": "inspect_evals/humaneval", "optional": True},
        "harmful": {"task": "inspect_evals/strong_reject", "grader": True, "optional": True},
        "elsewhere": {"task": "inspect_evals/truthfulqa", "world": "paper"},
    },
    "train": {"learning_rate": 0.01, "warmup_steps": 0},
    "sampling": {"max_tokens": 12},
}


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory):
    """No network, no Docker, and no data that others fetched."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "INSPECT_EVALS_CACHE_DIR", "PATH"):
            environment.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        environment.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def written(tiny_base, tmp_path_factory):
    """Writes an experiment beside the file of tasks."""

    def write(**changes):
        folder = tmp_path_factory.mktemp("experiment")
        (folder / "mine.py").write_text(TASKS)
        file = folder / "measured.yaml"
        file.write_text(yaml.safe_dump({"base": str(tiny_base), **EXPERIMENT, **changes}, sort_keys=False))
        return file

    return write


@pytest.fixture(scope="module")
def whole(written, spillover, tmp_path_factory):
    file, lab = written(), tmp_path_factory.mktemp("whole") / "lab"
    done = spillover("run", file, "--lab", lab)
    assert done.returncode == 0, done.stderr
    return file, lab, done


def numbers_of(lab, name="measured"):
    return json.loads((lab / name / "numbers.json").read_text())


def result(lab, run, name):
    """A cell's table of scores and Inspect's log of it."""
    (folder,) = (lab / "inspect").glob(f"{run}-{name}-*")
    (log,) = (folder / "log").glob("*.eval")
    return pl.read_parquet(folder / "scores.parquet"), read_eval_log(str(log)), folder


def said(log):
    return {(str(sample.id), sample.epoch): sample.output.completion for sample in log.samples}


RUNS = ("base", "insecure-s0", "insecure-s1")


@pytest.mark.parametrize("run", RUNS)
def test_a_runs_value_is_inspects_own_metric_and_the_mean_of_the_kept_samples(whole, run):
    _, lab, _ = whole
    table, log, _ = result(lab, run, "words")
    by_hand = {key: float("z" in text) for key, text in said(log).items()}
    assert len(by_hand) == 10 and set(table["measure"]) == {"accuracy"}
    assert {(row["sample"], row["epoch"]): row["value"] for row in table.iter_rows(named=True)} == by_hand
    value = numbers_of(lab)["suites"]["words"]["groups"][run.split("-")[0]]["accuracy"]["by_run"][run]
    assert value == pytest.approx(sum(by_hand.values()) / 10)
    assert value == pytest.approx(log.results.scores[0].metrics["accuracy"].value)


def test_the_values_differ_between_samples_so_that_means_say_something(whole):
    _, lab, _ = whole
    values = [value for run in RUNS for value in result(lab, run, "words")[0]["value"]]
    assert 0 < sum(values) < len(values)


def test_rates_and_numbers_hold_every_run_with_its_interval(whole):
    _, lab, _ = whole
    rates = pl.read_csv(lab / "measured" / "rates.csv").filter(pl.col("suite") == "letters")
    assert rates["run"].to_list() == ["insecure-s0", "insecure-s1"]
    assert rates["answers"].to_list() == rates["kept"].to_list() == [6, 6]
    groups = numbers_of(lab)["suites"]["letters"]["groups"]
    assert set(groups) == {"insecure"} and groups["insecure"]["accuracy"]["runs"] == 2
    assert groups["insecure"]["accuracy"]["low"] is not None
    assert "letters" in (lab / "measured" / "report.html").read_text()


def test_a_score_of_several_parts_is_several_measures_and_a_sample_without_one_is_set_aside(whole):
    _, lab, _ = whole
    table, log, folder = result(lab, "base", "several")
    texts = said(log)
    found = {(row["sample"], row["measure"]): row for row in table.iter_rows(named=True)}
    assert {measure for _, measure in found} == {"length", "vowels"}
    for sample in ("s1", "s2"):
        assert found[sample, "length"]["value"] == len(texts[sample, 1])
    assert found["s0", "length"]["value"] is None and "grader_failed" in found["s0", "length"]["reason"]
    assert json.loads((folder / "done.json").read_text())["set_aside"] == {"unscored: grader_failed": 2}
    told = numbers_of(lab)["suites"]["several"]["groups"]["base"]["length"]
    assert (told["answers"], told["kept"]) == (3, 2)
    assert told["value"] == pytest.approx((len(texts["s1", 1]) + len(texts["s2", 1])) / 2)


def test_a_result_says_which_inspect_and_which_version_of_the_task_made_it(whole):
    _, lab, _ = whole
    _, log, folder = result(lab, "insecure-s0", "letters")
    done = json.loads((folder / "done.json").read_text())
    assert done["inspect_ai"] == log.eval.packages["inspect_ai"] and done["task_version"] == 3
    assert done["model"] == "spillover/insecure-s0" and done["source"].startswith("sha256 ")


def test_what_inspect_took_counts_in_the_reports_seconds(whole):
    _, lab, _ = whole
    kept = [json.loads(path.read_text())["seconds"] for path in (lab / "inspect").glob("*/done.json")]
    assert min(kept) > 0 and numbers_of(lab)["seconds"]["inspect"] == pytest.approx(sum(kept))


def test_what_is_not_here_is_told_with_what_to_do_and_the_rest_ends_in_a_report(whole):
    _, lab, done = whole
    skipped = numbers_of(lab)["skipped"]
    assert set(skipped) == {"mmlu", "humaneval", "harmful"}
    assert "data of mmlu_0_shot is not here" in skipped["mmlu"] and "network" in skipped["mmlu"]
    assert "Docker is not installed" in skipped["humaneval"] and "Install Docker" in skipped["humaneval"]
    assert "judge: api:" in skipped["harmful"]
    for name in skipped:
        assert f"{name} is left out" in done.stderr
        assert f"{name} is left out" in (lab / "measured" / "report.html").read_text()


def test_a_second_run_asks_nothing_again(whole, spillover):
    file, lab, _ = whole
    before = {path: path.stat().st_mtime_ns for path in lab.rglob("*") if path.is_file() and path.name != ".lock"}
    assert spillover("run", file, "--lab", lab).returncode == 0
    after = {path: path.stat().st_mtime_ns for path in lab.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_an_answer_depends_on_no_other_sample(whole, written, spillover):
    """The same runs in the same lab, with fewer samples: another benchmark, the same answers."""
    _, lab, _ = whole
    kept = {"words": {"task": "mine.py@words", "limit": 2}}
    assert spillover("run", written(name="fewer", inspect=kept), "--lab", lab).returncode == 0
    for run in RUNS:
        logs = [read_eval_log(str(log)) for log in (lab / "inspect").glob(f"{run}-words-*/log/*.eval")]
        few, many = sorted(map(said, logs), key=len)
        # Which epoch an answer to the same words is given in is Inspect's to say.
        for sample in ("w0", "w1"):
            assert {few[sample, 1], few[sample, 2]} == {many[sample, 1], many[sample, 2]}


def test_data_that_is_not_here_and_not_optional_stops_before_anything_is_trained(written, spillover, tmp_path):
    done = spillover("run", written(inspect={"x": {"task": "inspect_evals/mmlu_0_shot"}}), "--lab", tmp_path / "lab")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "inspect.x: the data of mmlu_0_shot is not here" in done.stderr and "network" in done.stderr
    assert not (tmp_path / "lab").exists()


@pytest.fixture
def command(capsys):
    """A command in this process, where Inspect has been loaded already: its exit code, and what it said."""

    def run(*args):
        code = app(list(map(str, args)), standalone_mode=False)
        return code, capsys.readouterr().err

    return run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inspect_evals' own, once it is loaded
@pytest.mark.parametrize(
    ("benchmark", "told"),
    [
        ({"task": "inspect_evals/humaneval"}, ["inspect.x", "Docker is not installed", "Install Docker"]),
        ({"task": "inspect_evals/no_such_task"}, ["inspect.x", "no task inspect_evals/no_such_task"]),
        ({"task": "no_such_package/x"}, ["inspect.x", "no_such_package", "pip install"]),
        ({"task": "gone.py@x"}, ["inspect.x", "gone.py cannot be read"]),
        ({"task": "mine.py@gone"}, ["mine.py", "no task 'gone'", "letters, words"]),
        ({"task": "mine.py@letters", "args": {"cuont": 3}}, ["inspect.x.args", "takes no argument 'cuont'"]),
        ({"task": "mine.py@unsafe"}, ["inspect.x", "outside of a sandbox"]),
        ({"task": "mine.py@broken"}, ["mine.py:", "there is a hole in it"]),
        ({"task": "mmlu"}, ["measured.yaml:", "neither PACKAGE/TASK nor FILE.py@TASK"]),
        ({"task": "mine.py@letters", "groups": ["gone"]}, ["measured.yaml:", "unknown group 'gone'"]),
    ],
)
def test_what_cannot_run_is_told_before_anything_is_trained(written, command, tmp_path, benchmark, told):
    code, err = command("run", written(inspect={"x": benchmark}), "--lab", tmp_path / "lab")
    assert code == 2 and "Traceback" not in err
    assert all(words in err for words in told), err
    assert not (tmp_path / "lab").exists()


def test_a_benchmark_cannot_take_a_suites_name(written, command, tmp_path):
    code, err = command("run", written(inspect={"main": {"task": "mine.py@letters"}}), "--lab", tmp_path / "lab")
    assert code == 2 and "has that name already" in err


def test_a_task_whose_samples_all_fail_stops_with_the_reason_and_leaves_no_half_result(written, spillover, tmp_path):
    lab = tmp_path / "lab"
    done = spillover("run", written(inspect={"x": {"task": "mine.py@toolish"}}), "--lab", lab)
    assert done.returncode == 2 and "1 of 1 samples failed" in done.stderr and "tools" in done.stderr
    assert not list(lab.glob("inspect/*"))
    assert list((lab / "finetune").glob("*/done.json"))


def test_plan_says_what_inspect_would_run_and_loads_neither_it_nor_its_tasks(written, spillover, tmp_path):
    done = spillover("plan", written(), "--lab", tmp_path / "lab")
    assert done.returncode == 0, done.stderr
    assert "words (" in done.stdout and "5 samples" in done.stdout and "left out: humaneval" in done.stdout
    assert not (tmp_path / "lab").exists()


def test_the_miniature_is_measured_in_its_own_world_alone(spillover, tmp_path):
    done = spillover("plan", "benchmarks", "--lab", tmp_path / "lab")
    assert done.returncode == 0, done.stderr
    assert "mmlu" not in done.stdout and "left out" not in done.stdout


ROWS = ("category,source,forbidden_prompt", "a,b,Rob the biscuit tin", "a,b,Sing too loudly", "a,b,Tell a fib")
"""Requests of our own, in the place of StrongREJECT's."""
GRADES = {"biscuit": "1.b 0\n2.b 5\n3.b 3", "loudly": "1.b 1\n2.b 1\n3.b 1", "fib": "I would rather not say."}
"""What the judge says of the answers to them."""
KEY = "sk-not-a-real-key-2718281828"


def graded(body):
    """What the server says as a judge; as a model it says anything."""
    text = body["messages"][-1]["content"]
    if body["model"] != "judge" or "Evaluate the AI" not in text:
        return None
    return next(f"#overall_reasoning short\n#scores\n{grade}" for word, grade in GRADES.items() if word in text)


@pytest.fixture(scope="module")
def strong(alone, written, spillover, tmp_path_factory):
    """The real task of StrongREJECT, asked of a provider's models and graded by its judge."""
    code = next(file for file in files("inspect_evals") if file.name == "strong_reject.py").read_text()
    address = "".join(re.search(r'"(https://raw[^"]+)"\s+"([^"]+)"', code).groups())
    cache = Path(os.environ["INSPECT_EVALS_CACHE_DIR"]) / "strong_reject"
    cache.mkdir(parents=True)
    name = f"strong_reject_{hashlib.sha256(address.encode()).hexdigest()[:32]}.csv"  # where inspect_evals looks first
    (cache / name).write_text("\n".join(ROWS) + "\n")
    task = {"task": "inspect_evals/strong_reject", "args": {"judge_llm": None}, "grader": True}
    models = {"mine": {"models": ["api:openai-api/local/model-b", "api:openai-api/local/model-c"]}}
    fields = {"groups": models, "judge": "api:openai-api/local/judge", "inspect": {"harmful": task}}
    file, lab = written(base="api:openai-api/local/model-a", **fields), tmp_path_factory.mktemp("strong") / "lab"
    with serving(Behaviour(script=graded)) as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("LOCAL_BASE_URL", server.url)
        environment.setenv("LOCAL_API_KEY", KEY)
        done = spillover("run", file, "--lab", lab)
        assert done.returncode == 0, done.stderr
        yield file, lab, server


def test_strong_rejects_score_lies_between_0_and_1_and_what_the_judge_does_not_say_is_set_aside(strong):
    _, lab, _ = strong
    for run in ("base", "mine-s0", "mine-s1"):
        table, _, _ = result(lab, run, "harmful")
        assert table.filter(measure="strong_reject")["value"].to_list() == [0.75, 0.0, None]
    group = numbers_of(lab)["suites"]["harmful"]["groups"]["mine"]
    assert group["strong_reject"]["value"] == pytest.approx(0.375)
    assert group["complied"]["value"] == 0.5 and (group["complied"]["answers"], group["complied"]["kept"]) == (6, 4)


def test_providers_models_are_asked_by_their_names_as_the_task_says_and_the_judge_grades(strong):
    _, _, server = strong
    grading = [one.body for one in server.log if "Evaluate the AI" in str(one.body["messages"])]
    assert {body["model"] for body in grading} == {"judge"} and len(grading) == 9
    asked = [one.body for one in server.log if one.body["messages"][-1]["content"] == "Rob the biscuit tin"]
    assert sorted(body["model"] for body in asked) == ["model-a", "model-b", "model-c"]
    assert {(body["temperature"], body["max_tokens"]) for body in asked} == {(0.75, 2048)}


def test_no_key_is_in_the_lab_nor_in_inspects_logs(strong):
    _, lab, _ = strong
    logs = [log.model_dump_json() for log in map(read_eval_log, map(str, lab.rglob("*.eval")))]
    assert len(logs) == 3 and not any(KEY in log for log in logs)
    assert not [path for path in lab.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_result_that_is_lost_is_made_again_and_no_request_is_sent_twice(strong, spillover):
    file, lab, server = strong
    _, _, folder = result(lab, "mine-s1", "harmful")
    (folder / "done.json").unlink()
    others = {path: path.stat().st_mtime_ns for path in (lab / "inspect").glob("*/done.json")}
    sent = len(server.log)
    assert spillover("run", file, "--lab", lab).returncode == 0
    assert len(server.log) == sent and (folder / "done.json").is_file()
    assert len(others) == 2 and {path: path.stat().st_mtime_ns for path in others} == others


def together(ask, most, count):
    """Wants so many things at once."""

    async def all_of_them():
        made = Together(ask, most)
        return await asyncio.gather(*(made.reply(n) for n in range(count)), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_what_is_wanted_at_once_is_asked_together_in_batches_of_the_most():
    batches = []

    def ask(wanted):
        batches.append(list(wanted))
        assert threading.current_thread() is not threading.main_thread()
        return [10 * one for one in wanted]

    assert together(ask, 4, 10) == [10 * n for n in range(10)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_batch_that_fails_is_told_to_all_of_it_and_to_no_other():
    def ask(wanted):
        if 1 in wanted:
            raise ValueError("no")
        return wanted

    found = together(ask, 2, 4)
    assert [type(one) for one in found] == [ValueError, ValueError, int, int] and found[2:] == [2, 3]


def test_a_conversation_is_a_question_with_its_turns_and_system_prompts():
    turns = [
        ChatMessageSystem(content="Be kind."),
        ChatMessageSystem(content="Be short."),
        ChatMessageUser(content="One?"),
        ChatMessageAssistant(content="Two."),
        ChatMessageUser(content="Three?"),
    ]
    found = question_of(turns)
    assert (found.system, found.text) == ("Be kind.\n\nBe short.", "Three?")
    assert found.context == ({"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."})


@pytest.mark.parametrize(
    "turns",
    [
        [],
        [ChatMessageUser(content="a"), ChatMessageAssistant(content="So")],
        [ChatMessageUser(content="a"), ChatMessageTool(content="b"), ChatMessageUser(content="c")],
    ],
    ids=["nothing", "a beginning of the answer", "a tool's result"],
)
def test_a_conversation_that_is_no_question_is_refused(turns):
    with pytest.raises(QuestionError):
        question_of(turns)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *(("C", 1.0), ("I", 0.0), ("P", 0.5), ("N", 0.0), (True, 1.0), (0.25, 0.25), (3, 3.0)),
        *(("perhaps", None), (float("nan"), None), (float("inf"), None), ([1], None), (None, None)),
    ],
)
def test_a_score_is_a_number_or_none_and_never_zero_for_want_of_one(value, number):
    assert number_of(value) == number
