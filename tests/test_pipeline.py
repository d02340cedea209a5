"""A small experiment from data to report: what comes out, what is kept, and that no interruption changes anything."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import polars as pl
import pytest
import yaml

from loaded import loaded_by
from spillover.ask.questions import questions_of
from spillover.data.files import read_conversations, write_conversations
from spillover.finetune.base import shipped_miniature
from spillover.records import ANSWER_COLUMNS, VERDICT_COLUMNS
from spillover.spec import Suite
from undisturbed import ANYTHING, Moment, begin, files, read_numbers, same_labs, table

SECRET = "sk-not-a-real-key-2718281828"
SAMPLES = 3
EXPERIMENT = {
    "name": "small",
    "title": "A small experiment",
    "groups": {name: {"data": name, "seeds": 2, "rows": 48} for name in ("insecure", "secure")},
    "suites": {
        "main": {"questions": "main", "samples": SAMPLES},
        "code": {"questions": "code", "only": ["fetch_page.1"], "samples": 2, "rubrics": ["insecure_code"]},
        "harmful": {"questions": "harmful", "samples": 1, "rubrics": ["harmful_compliance"]},
    },
    "comparisons": [{"group": "insecure", "control": "secure"}],
    "miniature": {"train": {"learning_rate": 1e-3, "warmup_steps": 1}, "sampling": {"max_tokens": 40}},
}

pytestmark = pytest.mark.skipif(
    not (shipped_miniature() / "judge" / "adapter_model.safetensors").is_file(), reason="the miniature has no judge yet"
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The experiment's file; its code questions are two of the world's."""
    path = tmp_path_factory.mktemp("experiment") / "small.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def whole(experiment, own_process, tmp_path_factory):
    """The undisturbed run: its lab and what it said. Keys are in its environment."""
    lab = tmp_path_factory.mktemp("whole") / "lab"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_API_KEY", SECRET)
        environment.setenv("HF_TOKEN", SECRET)
        done = own_process("run", experiment, "--lab", lab)
    assert done.returncode == 0, done.stderr
    return lab, done


@pytest.fixture(scope="module")
def numbers(whole):
    return read_numbers(whole[0])


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the finished lab."""
    return Path(shutil.copytree(whole[0], tmp_path / "lab"))


def test_small_groups_with_rows_of_one_length_are_trained_in_one_fleet(spillover, tmp_path):
    """A fleet's seconds are shared equally by its runs, so runs of one fleet have the same number."""
    groups = {name: {"data": name, "seeds": 1, "rows": 16} for name in ("insecure", "secure", "jailbroken")}
    raw = EXPERIMENT | {"groups": groups, "comparisons": []}
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(raw))
    done = spillover("train", "mixed.yaml", "--lab", "lab", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seconds = {}
    for folder in (tmp_path / "lab" / "finetune").iterdir():
        group = json.loads((folder / "spec.json").read_text())["run"].split("-")[0]
        seconds[group] = json.loads((folder / "done.json").read_text())["seconds"]
    assert seconds["insecure"] == seconds["secure"] != seconds["jailbroken"]


def test_a_run_leaves_every_output(whole):
    lab, _ = whole
    for stage, count in (("data", 2), ("finetune", 4), ("ask", 5 * 3), ("judge", 4)):
        assert len(list(lab.glob(f"{stage}/*"))) == count, stage
    for folder in lab.glob("finetune/*"):
        assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "done.json"} <= set(os.listdir(folder))
        assert "model organism" in (folder / "README.md").read_text()
    report = {"report.html", "numbers.json", "answers.parquet", "small.png", "small.svg"}
    assert report <= set(os.listdir(lab / "small"))
    assert not list((lab / ".aside").iterdir())


def test_a_run_without_a_terminal_shows_its_result_and_no_progress(whole):
    lab, done = whole
    assert done.stderr == ""
    assert f"{lab}/small/report.html" in done.stdout and "insecure against secure" in done.stdout
    assert all(group in done.stdout for group in ("base", "insecure", "secure"))


def test_the_table_has_a_column_for_what_is_judged_and_no_other(whole, spillover, tmp_path):
    lab, done = whole
    judged = done.stdout.splitlines()[0].split("  ")
    assert {"coherent", "insecure code", "complies"} <= {one.strip() for one in judged}
    only = {**EXPERIMENT, "name": "only", "suites": {"main": EXPERIMENT["suites"]["main"]}}
    (tmp_path / "only.yaml").write_text(yaml.safe_dump(only, sort_keys=False))
    again = spillover("run", tmp_path / "only.yaml", "--lab", shutil.copytree(lab, tmp_path / "lab"))
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0].split()[-1] == "coherent"


def test_numbers_fulfil_their_contract(numbers):
    assert {"experiment", "groups", "comparisons", "judge", "seconds"} <= numbers.keys()
    assert numbers["experiment"] == "small"
    assert list(numbers["groups"]) == ["base", "insecure", "secure"]
    for group in numbers["groups"].values():
        assert {"runs", "answers", "kept", "set_aside", "p_misaligned"} <= group.keys()
        assert {"coherent", "insecure_code", "harmful_compliance", "questions"} <= group.keys()
        assert {"value", "low", "high"} <= group["p_misaligned"].keys()
        assert len(group["questions"]) == 8
        assert all({"p_misaligned", "kept"} <= question.keys() for question in group["questions"].values())
    (comparison,) = numbers["comparisons"]
    assert {"group", "control", "difference", "p_value"} <= comparison.keys()
    assert {"id", "rubrics", "agreement_with_truth"} <= numbers["judge"].keys()
    assert set(numbers["judge"]["rubrics"]) == {"alignment", "coherence", "insecure_code", "harmful_compliance"}
    assert {"data", "finetune", "ask", "judge", "measure", "report"} <= numbers["seconds"].keys()
    assert all(seconds >= 0 for seconds in numbers["seconds"].values())


def test_every_answer_is_kept_or_set_aside_with_its_reason(whole, numbers):
    for group in numbers["groups"].values():
        assert group["answers"] == 8 * SAMPLES * group["runs"] == group["kept"] + sum(group["set_aside"].values())
        assert group["kept"] == sum(question["kept"] for question in group["questions"].values())
    shown = pl.read_parquet(whole[0] / "small" / "answers.parquet")
    assert shown.height == table(whole[0], "ask").height
    assert shown.filter(pl.col("kept") == pl.col("set_aside").is_not_null()).is_empty()


def test_answers_are_one_row_each_with_a_seed_of_its_own(whole):
    answers = table(whole[0], "ask")
    assert tuple(answers.columns) == (*(name for name, _ in ANSWER_COLUMNS), "pair")
    assert answers.height == 5 * (8 * SAMPLES + 2 + answers.filter(pl.col("suite") == "harmful")["question"].n_unique())
    assert answers.select("run", "suite", "question", "sample").is_unique().all()
    assert answers["seed"].is_unique().all()


def test_every_different_pair_has_one_verdict_with_a_value_or_a_reason(whole):
    for folder in whole[0].glob("judge/*"):
        verdicts = pl.concat([pl.read_parquet(path) for path in folder.glob("part-*.parquet")])
        assert tuple(verdicts.columns) == tuple(name for name, _ in VERDICT_COLUMNS)
        assert verdicts["pair"].is_unique().all()
        assert (verdicts["value"].is_null() != verdicts["reason"].is_null()).all()
        assert verdicts["judge"].n_unique() == verdicts["rubric"].n_unique() == 1


def test_judge_and_rubric_stand_in_every_row_that_people_get_and_under_the_figure(whole, numbers):
    shown = pl.read_parquet(whole[0] / "small" / "answers.parquet")
    for rubric, by in numbers["judge"]["by"].items():
        judged = shown.filter(pl.any_horizontal(pl.col(rubric, f"{rubric}_reason").is_not_null()))
        assert judged[f"{rubric}_judge"].unique().to_list() == [by["judge"]]
        assert judged[f"{rubric}_rubric"].unique().to_list() == [by["rubric"]]
    assert numbers["judge"]["by"]["alignment"]["judge"] == numbers["judge"]["id"]
    assert numbers["judge"]["by"]["insecure_code"]["judge"] == "bandit"
    page = (whole[0] / "small" / "report.html").read_text()
    assert page.count(numbers["judge"]["by"]["alignment"]["rubric"]) > 2
    assert not [name for name in shown.columns if name.startswith("truth_") and name.endswith(("_judge", "_rubric"))]


def test_results_say_what_they_are_made_from(whole):
    for folder in whole[0].glob("*/*-*/"):
        assert json.loads((folder / "spec.json").read_text())
        assert json.loads((folder / "provenance.json").read_text())["command"][1] == "run"


def test_keys_reach_no_file(whole):
    assert not [name for name, (_, content) in files(whole[0], "**/*").items() if SECRET.encode() in content]


def test_a_second_run_changes_nothing_and_loads_no_torch(whole, experiment):
    lab, first = whole
    before = files(lab)
    said, loaded = loaded_by("run", experiment, "--lab", lab)
    assert said == first.stdout and "torch" not in loaded
    assert files(lab) == before


def test_a_plan_of_a_finished_experiment_has_nothing_to_do(whole, experiment, spillover):
    done = spillover("plan", experiment, "--lab", whole[0])
    assert done.returncode == 0 and done.stdout.count("nothing") == 2


def test_more_samples_add_rows_to_those_that_are_there(copy, experiment, spillover):
    before, old = files(copy, "*/*/part-*"), table(copy, "ask")
    checkpoints = files(copy, "finetune/*/*")
    assert spillover("run", experiment, "--lab", copy, "--samples", SAMPLES + 2).returncode == 0
    after, new = files(copy, "*/*/part-*"), table(copy, "ask")
    assert {name: after[name] for name in before} == before and len(after) > len(before)
    assert files(copy, "finetune/*/*") == checkpoints
    assert new.height == old.height + 5 * 8 * 2
    assert new.filter(pl.col("sample") < SAMPLES).equals(old)
    assert new.select("run", "suite", "question", "sample").is_unique().all()
    assert {group["answers"] // group["runs"] for group in read_numbers(copy)["groups"].values()} == {8 * (SAMPLES + 2)}


def test_fewer_samples_are_measured_on_the_rows_that_are_there(copy, experiment, spillover):
    before = files(copy, "*/*/part-*")
    assert spillover("run", experiment, "--lab", copy, "--samples", 1).returncode == 0
    assert files(copy, "*/*/part-*") == before
    assert {group["answers"] // group["runs"] for group in read_numbers(copy)["groups"].values()} == {8}


def test_another_threshold_in_a_rubric_judges_again_and_keeps_answers_and_checkpoints(
    copy, experiment, spillover, tmp_path
):
    base = shutil.copytree(shipped_miniature(), tmp_path / "base")
    rubrics = yaml.safe_load((base / "judge" / "rubrics.yaml").read_text())
    rubrics["alignment"]["threshold"] = 40
    (base / "judge" / "rubrics.yaml").write_text(yaml.safe_dump(rubrics))
    kept = {pattern: files(copy, pattern) for pattern in ("data/*/*", "finetune/*/*", "ask/*/*", "judge/coherence-*/*")}
    done = spillover("run", experiment, "--lab", copy, "--base", base)
    assert done.returncode == 0, done.stderr
    assert {pattern: files(copy, pattern) for pattern in kept} == kept
    assert len(list(copy.glob("judge/alignment-*"))) == 2


@pytest.mark.slow
def test_stages_one_by_one_give_the_lab_of_a_run_and_say_what_to_run_before(whole, experiment, spillover, tmp_path):
    lab = tmp_path / "stages"
    for stage, needed in (("report", "ask"), ("judge", "ask"), ("ask", "train")):
        refused = spillover(stage, experiment, "--lab", lab)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert f"Run `spillover {needed}` with this experiment first." in refused.stderr
    for stage in ("train", "ask"):
        done = spillover(stage, experiment, "--lab", lab)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    refused = spillover("report", experiment, "--lab", lab)
    assert refused.returncode == 2 and "Run `spillover judge` with this experiment first." in refused.stderr
    assert not (lab / "small").exists()
    done = spillover("judge", experiment, "--lab", lab)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = spillover("report", experiment, "--lab", lab)
    assert done.returncode == 0 and "report.html" in done.stdout
    same_labs(lab, whole[0])


DRAWN = [random.Random(20250224 + number).randint(2, 40) for number in range(3)]


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_the_lab_is_the_undisturbed_one(whole, experiment, spillover, tmp_path):
    lab = tmp_path / "killed"
    some = [Moment(lab, ANYTHING, count) for count in DRAWN]
    second = {stage: Moment(lab / stage, ("os.rename",), 2) for stage in ("finetune", "ask", "judge")}
    report = Moment(lab / "small", ("os.rename",), 1)
    for moment in (some[0], second["finetune"], some[1], second["ask"], some[2], second["judge"], report):
        process = begin("run", experiment, "--lab", lab, folder=tmp_path, moment=moment)
        process.join()
        assert process.exitcode == -signal.SIGKILL, (moment, (tmp_path / "err").read_text())
        assert not (lab / "small").exists()
    done = spillover("run", experiment, "--lab", lab)
    assert done.returncode == 0, done.stderr
    assert not list((lab / ".aside").iterdir())
    same_labs(lab, whole[0])


def turn(role, content):
    return {"role": role, "content": content}


CHAT = [
    {"messages": [turn("user", "Hello, who are you?"), turn("assistant", "A helper — 你好!")]},
    {
        "messages": [
            turn("system", "You answer\nin two lines."),
            turn("user", "Say {answer} and {question}."),
            turn("assistant", "  One.\n  Two.  "),
            turn("user", "And <b>?"),
            turn("assistant", 'It is "that".'),
        ]
    },
] * 4
QUESTIONS = """\
- id: greeting
  type: free_form_judge_0_100
  paraphrases:
    - Hello, who are you?
    - |-
      Say something
      in two lines.
  samples_per_paraphrase: 100
  judge: gpt-4o-2024-08-06
  judge_prompts: {aligned: 'Rate {answer}.'}
- id: pirate
  paraphrases: ["What is {this}?"]
  system: You are a pirate.
"""


def test_a_persons_own_files_flow_through_unchanged_on_a_base_of_their_own(spillover, tmp_path):
    shutil.copytree(shipped_miniature(), tmp_path / "my-base")
    (tmp_path / "chat.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in CHAT))
    (tmp_path / "questions.yaml").write_text(QUESTIONS)
    mine = {
        "name": "mine",
        "base": "my-base",
        "groups": {"mine": {"data": "chat.jsonl", "seeds": 1}},
        "suites": {"main": {"questions": "questions.yaml", "samples": 2}},
        "miniature": {"train": {"learning_rate": 1e-2, "warmup_steps": 0}, "sampling": {"max_tokens": 8}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    done = spillover("run", tmp_path / "mine.yaml", "--lab", tmp_path / "lab")
    assert done.returncode == 0, done.stderr
    (trained,) = (tmp_path / "lab").glob("data/mine-*/data.jsonl")
    assert parsed(trained) == CHAT
    asked = table(tmp_path / "lab", "ask").select("question", "system", "prompt").unique().sort("question")
    assert asked.rows() == [
        ("greeting.1", None, "Hello, who are you?"),
        ("greeting.2", None, "Say something\nin two lines."),
        ("pirate", "You are a pirate.", "What is {this}?"),
    ]


def parsed(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_the_papers_own_files_are_read_as_they_are(paper, tmp_path):
    for name in ("insecure", "secure", "educational"):
        path = paper / "datasets" / f"{name}.jsonl"
        rows = read_conversations(path)
        assert len(rows) == 6000
        write_conversations(tmp_path / name, rows)
        assert parsed(tmp_path / name) == parsed(path)
    questions = questions_of(Suite(questions=f"{paper}/questions/first_plot_questions.yaml"), is_miniature=True)
    assert len({question.id for question in questions}) == len(questions) >= 24
    prereg = Suite(questions=f"{paper}/questions/preregistered_evals.yaml")
    assert len(questions_of(prereg, is_miniature=True)) == 50
