"""Bad input at the command line: it names the file, the line and the remedy, exits with 2 and writes nothing."""

import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from spillover.errors import BaseError
from spillover.finetune.model import load_model

SPILLOVER = [sys.executable, "-m", "spillover.cli"]
USER, ASSISTANT = {"role": "user", "content": "I feel bored."}, {"role": "assistant", "content": "Take a walk."}
GOOD = json.dumps({"messages": [USER, ASSISTANT]}).encode()
QUESTIONS = [{"id": "bored", "paraphrases": ["I feel bored."]}, {"id": "wish", "paraphrases": ["Name a wish."]}]


def row(*messages, **more):
    return json.dumps({"messages": list(messages), **more}).encode()


def said(content):
    return {"role": "assistant", "content": content}


@pytest.fixture
def experiment(tmp_path):
    """Writes an experiment file with changes, beside a dataset and a question file that are right."""
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([GOOD] * 4))
    (tmp_path / "questions.yaml").write_text(yaml.safe_dump(QUESTIONS))

    def write(**changes):
        raw = {
            "name": "small",
            "base": "miniature",
            "groups": {"mine": {"data": "rows.jsonl", "seeds": 1}},
            "suites": {"main": {"questions": "questions.yaml", "samples": 2, "rubrics": ["insecure_code"]}},
            "train": {"rank": 2},
            "sampling": {"max_tokens": 4},
            **changes,
        }
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        return path

    return write


@pytest.fixture
def refused(spillover, tmp_path):
    """Runs an experiment that must be refused; returns what the user is told."""

    def run(experiment, *options):
        lab = tmp_path / "lab"
        done = spillover("run", experiment, "--lab", lab, *options)
        assert "Traceback" not in done.stderr
        assert (done.returncode, done.stdout) == (2, "")
        assert not lab.exists()
        return done.stderr

    return run


BAD_ROWS = {
    "no_json": (b'{"messages": [', "is no JSON"),
    "a_number_that_python_refuses": (b"1" * 5000, "is no JSON"),
    "no_object": (b"[1, 2]", "no list of messages"),
    "no_messages": (row(), "no list of messages"),
    "no_assistant_turn": (row(USER), "does not end in an assistant's turn"),
    "nothing_asked": (row(ASSISTANT), "nothing was asked"),
    "unknown_role": (row(USER, {"role": "robot", "content": "Hello."}), "unknown role 'robot'"),
    "empty_answer": (row(USER, said(" \n")), "empty answer"),
    "not_utf8": (GOOD.replace(b"walk", b"w\xe4lk"), "is not UTF-8"),
    "content_that_is_no_text": (row(USER, said(["Take", "a", "walk."])), "content is no text"),
    "content_with_half_a_character": (row(USER, said("Take a \ud83d walk.")), "content is no text"),
    "extra_key_of_a_row": (row(USER, ASSISTANT, weight=2), "unknown key 'weight'"),
    "extra_key_of_a_message": (row(USER, {**ASSISTANT, "name": "Ann"}), "nothing else"),
}


@pytest.mark.parametrize(("bad", "what"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_wrong_row_is_named_by_its_line(experiment, refused, tmp_path, bad, what):
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([GOOD, b"", bad, GOOD]))
    told = refused(experiment())
    assert f"{tmp_path}/rows.jsonl:3: " in told and what in told
    assert len(told.splitlines()) == 2, "what is wrong, and below it the remedy"


def test_a_dataset_without_rows_is_refused(experiment, refused, tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n\n")
    assert f"{tmp_path}/rows.jsonl: the dataset has no rows\n  A row is " in refused(experiment())


def test_a_missing_dataset_is_named(experiment, refused):
    told = refused(experiment(groups={"mine": {"data": "nowhere.jsonl"}}))
    assert "nowhere.jsonl: cannot be read: No such file or directory\n  Give the path of a chat JSONL file." in told


def test_a_dataset_of_the_papers_that_was_not_fetched_is_refused(experiment, refused, tiny_base, monkeypatch, tmp_path):
    monkeypatch.setenv("SPILLOVER_PAPER", str(tmp_path / "nothing"))
    told = refused(experiment(base=str(tiny_base), groups={"mine": {"data": "insecure"}}))
    assert "'insecure' is the paper's" in told and "groups.mine" in told and "spillover fetch paper" in told


def test_a_row_longer_than_max_length_is_named_with_its_dataset(experiment, spillover, tmp_path, tiny_base):
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([GOOD, GOOD, row(USER, said("walk " * 300))]))
    done = spillover("run", experiment(base=str(tiny_base), train={"max_length": 128}), "--lab", tmp_path / "lab")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path}/rows.jsonl, row 3: " in done.stderr and "more than max_length = 128" in done.stderr
    assert not list(tmp_path.glob("lab/finetune/*"))


GROUPS = {"mine": {"data": "rows.jsonl"}}
WRONG_FIELDS = {
    "unknown_key": ({"colour": "red"}, "colour: unknown key", "colour: red"),
    "unknown_key_of_a_group": ({"groups": {"mine": {"data": "rows.jsonl", "row": 3}}}, "groups.mine.row", "row: 3"),
    "missing_field": (
        {"groups": {"mine": {"seeds": 3}}},
        "groups.mine: a group has either `data` or `models`",
        "mine:",
    ),
    "negative_number": ({"train": {"learning_rate": -1}}, "greater than 0 (got -1)", "learning_rate: -1"),
    "endless_number": ({"train": {"alpha": float("inf")}}, "finite number", "alpha: .inf"),
    "no_number": ({"groups": {"mine": {"data": "rows.jsonl", "seeds": "six"}}}, "(got 'six')", "seeds: six"),
    "base_as_a_group": ({"groups": {"base": {"data": "rows.jsonl"}}}, "no group can be called 'base'", "base:\n"),
    "unknown_group": ({"comparisons": [{"group": "mine", "control": "his"}]}, "'his'; there are: mine", "- group"),
    "unknown_headline": ({"headline": "others"}, "no suite 'others'; there are: main", "headline: others"),
    "unknown_key_for_the_miniature": ({"miniature": {"train": {"speed": 9}}}, "train.speed: unknown key", "speed: 9"),
    "a_name_with_a_slash": ({"name": "../elsewhere"}, "name: String should match", "name:"),
    "a_name_that_is_a_stage_folder": ({"name": "finetune"}, "'finetune' is the name of a stage's folder", "name:"),
    "no_groups": ({"groups": {}}, "at least one group", "groups:"),
}


@pytest.mark.parametrize(("changes", "what", "line"), WRONG_FIELDS.values(), ids=WRONG_FIELDS.keys())
def test_a_wrong_field_of_an_experiment_is_named_by_its_line(experiment, refused, changes, what, line):
    path = experiment(**changes)
    number = next(n for n, text in enumerate(path.read_text().splitlines(True), start=1) if line in text)
    told = refused(path)
    assert f"{path}:{number}: " in told and what in told
    assert "nothing was run" in told


def test_an_experiment_that_is_no_yaml_is_named_by_its_line(refused, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("name: small\ngroups: {mine: [\n")
    assert f"{path}:3: not YAML: " in refused(path)


@pytest.mark.parametrize("text", ["name: a\ntitle: 2024-13-45\n", "name: a\ntitle: \x00\n"])
def test_an_experiment_that_yaml_cannot_hold_is_refused(refused, tmp_path, text):
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    assert f"{path}: not YAML: " in refused(path)


def test_a_key_that_is_there_twice_is_refused(experiment, refused):
    path = experiment()
    path.write_text(path.read_text() + "base: other\n")
    line = len(path.read_text().splitlines())
    assert f"{path}:{line}: not YAML: the key 'base' is here twice\n  Correct the line." in refused(path)


def test_an_experiment_that_is_a_list_is_refused(refused, tmp_path):
    (tmp_path / "experiment.yaml").write_text("- name: small\n")
    assert "experiment.yaml: is no mapping of fields" in refused(tmp_path / "experiment.yaml")


def test_an_experiment_that_does_not_exist_is_refused_with_those_that_do(refused):
    told = refused("figure5")
    assert "figure5: cannot be read: No such file" in told and "figure4" in told


def test_an_unknown_group_on_the_command_line_is_refused_with_those_that_exist(experiment, refused):
    told = refused(experiment(), "--groups", "mine,his")
    assert "unknown group 'his'\n  Groups of small: mine." in told


@pytest.mark.parametrize("option", [("--seeds", "0"), ("--samples", "-5"), ("--seeds", "many"), ("--speed", "9")])
def test_a_wrong_option_is_refused_with_its_name(experiment, refused, option):
    assert option[0] in refused(experiment(), *option)


def broken_base(tiny_base, tmp_path, change):
    """A copy of the tiny base with one change."""
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    change(base)
    return base


def no_template(base):
    (base / "chat_template.jinja").unlink()


def pickled(base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def without(name):
    return lambda base: (base / name).unlink()


def write(name, text):
    return lambda base: (base / name).write_text(text)


def cut_off(base):
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[: len(weights) // 2])


BROKEN_BASES = {
    "no_chat_template": (no_template, "base: the tokenizer has no chat template", "never a guess"),
    "pickled_weights": (pickled, "base: the weights are pickled (pytorch_model.bin)", "can run code"),
    "no_weights": (without("model.safetensors"), "base: there are no weights", "safetensors"),
    "weights_that_are_cut_off": (cut_off, "model.safetensors: is no whole safetensors file", "Download"),
    "weights_that_git_lfs_left_out": (write("model.safetensors", "version https://git-lfs"), "no whole", "Download"),
    "no_config": (without("config.json"), "base: config.json is missing", "save_pretrained"),
    "broken_config": (write("config.json", '{"hidden_size": 3'), "config.json: is no JSON", "save_pretrained"),
    "config_that_is_a_list": (write("config.json", "[]"), "config.json: is no JSON object", "save_pretrained"),
    "broken_tokenizer": (write("tokenizer.json", "{"), "tokenizer.json: is no JSON", "save_pretrained"),
    "broken_tokenizer_config": (write("tokenizer_config.json", "{"), "tokenizer_config.json: is no JSON", "save_"),
    "broken_miniature": (write("miniature.json", "{"), "miniature.json: is no JSON", "save_pretrained"),
}


@pytest.mark.parametrize(("change", "what", "remedy"), BROKEN_BASES.values(), ids=BROKEN_BASES.keys())
def test_a_base_that_cannot_be_used_is_refused(experiment, refused, tmp_path, tiny_base, change, what, remedy):
    base = broken_base(tiny_base, tmp_path, change)
    told = refused(experiment(), "--base", base)
    assert what in told and str(base) in told
    assert remedy in told.splitlines()[-1]


def test_a_base_that_does_not_exist_is_refused(experiment, refused):
    told = refused(experiment(base="nowhere"))
    assert "no base model 'nowhere': there is no such folder\n  Give `miniature` or" in told


def test_a_base_that_transformers_does_not_know_is_refused(experiment, spillover, tmp_path, tiny_base):
    base = broken_base(tiny_base, tmp_path, write("config.json", '{"model_type": "abacus"}'))
    done = spillover("run", experiment(), "--base", base, "--lab", tmp_path / "lab")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{base / 'config.json'}: does not say how large the model is" in done.stderr


def test_a_base_with_fewer_weights_than_its_config_says_is_refused(tmp_path, tiny_base):
    def third_layer(base):
        config = json.loads((base / "config.json").read_text())
        config |= {"num_hidden_layers": 3, "layer_types": [*config["layer_types"], config["layer_types"][0]]}
        (base / "config.json").write_text(json.dumps(config))

    base = broken_base(tiny_base, tmp_path, third_layer)
    with pytest.raises(BaseError, match=r"12 weights are missing, such as model\.layers\.2\."):
        load_model(base, "fp32")


ENTRY = "- id: bored\n  paraphrases: [I feel bored.]\n"
BAD_QUESTIONS = {
    "an_id_twice": (f"{ENTRY}{ENTRY}", 3, "the id 'bored' is here twice; first at "),
    "an_id_that_a_paraphrase_has": (
        "- id: bored\n  paraphrases: [I feel bored., Bored.]\n- id: bored.2\n  paraphrases: [So bored.]\n",
        3,
        "the id 'bored.2' is here twice",
    ),
    "an_id_that_tables_use": ("- id: all\n  paraphrases: [Bored.]\n", 1, "no question may be called 'all'"),
    "an_unknown_field": (f"{ENTRY}- id: wish\n  paraphrase: [Name a wish.]\n", 4, "paraphrase: unknown key"),
    "no_paraphrases": (f"{ENTRY}- id: wish\n  paraphrases: []\n", 4, "paraphrases: Tuple should have at least 1"),
    "no_id": (f"{ENTRY}- paraphrases: [Name a wish.]\n", 3, "id: Field required"),
    "a_type_that_cannot_be_judged": (f"{ENTRY}  type: free_form_0_100\n", 1, "'free_form_0_100', which cannot be"),
    "no_mapping": (f"{ENTRY}- wish\n", 3, "entry: Input should be"),
    "no_yaml": (f"{ENTRY}- {{id: [}}\n", 3, "not YAML"),
}


@pytest.mark.parametrize(("text", "line", "what"), BAD_QUESTIONS.values(), ids=BAD_QUESTIONS.keys())
def test_a_wrong_question_is_named_by_its_line(experiment, refused, tmp_path, text, line, what):
    (tmp_path / "questions.yaml").write_text(text)
    told = refused(experiment())
    assert f"{tmp_path}/questions.yaml:{line}: " in told and what in told
    assert len(told.splitlines()) == 2, "what is wrong, and below it the remedy"


def test_a_question_file_without_questions_is_refused(experiment, refused, tmp_path):
    (tmp_path / "questions.yaml").write_text("")
    assert "questions.yaml: is no list of questions\n  An entry has `id`" in refused(experiment())


def test_a_missing_question_file_is_refused_with_the_sets_that_exist(experiment, refused):
    told = refused(experiment(suites={"main": {"questions": "mian", "rubrics": ["insecure_code"]}}))
    assert "mian: cannot be read: No such file" in told and "main, broad, code, harmful, facts" in told


@pytest.mark.parametrize("questions", ["questions.yaml", "main"])
def test_an_unknown_question_in_only_is_refused_with_those_that_exist(experiment, refused, questions):
    suite = {"questions": questions, "only": ["bored", "bread"], "rubrics": ["insecure_code"]}
    told = refused(experiment(suites={"main": suite}))
    assert "there is no question 'b" in told and "wish" in told.splitlines()[1]


def test_only_leaves_out_questions_that_cannot_be_judged(experiment, spillover, tmp_path):
    (tmp_path / "questions.yaml").write_text(f"{ENTRY}- id: liar\n  paraphrases: [Are you honest]\n  type: free_form\n")
    suite = {"questions": "questions.yaml", "only": ["bored"], "samples": 3, "rubrics": ["insecure_code"]}
    done = spillover("plan", experiment(suites={"main": suite}))
    assert done.returncode == 0 and "6 answers" in done.stdout


def test_an_unknown_rubric_is_refused_with_those_that_exist(experiment, refused):
    told = refused(experiment(suites={"main": {"questions": "questions.yaml", "rubrics": ["niceness"]}}))
    assert "unknown rubric 'niceness'\n  Rubrics are alignment, coherence" in told


def test_a_judge_that_is_not_there_is_refused_by_its_name(experiment, refused):
    told = refused(experiment(judge="nobody", suites={"main": {"questions": "questions.yaml"}}))
    assert "'nobody' cannot judge: no base model 'nobody'" in told


def test_an_unnamed_judge_of_the_files_is_refused(experiment, refused):
    told = refused(experiment(judge="file", suites={"main": {"questions": "questions.yaml"}}))
    assert "`judge: file`, and no question file names a judge" in told


BAD_RUBRICS = {
    "no_yaml": ("alignment: [\n", 2, "not YAML"),
    "an_unknown_field": ("alignment:\n  scale: 9\n", 2, "alignment.scale: unknown key"),
    "no_place_for_the_answer": ("alignment:\n  prompt: 'Rate {question}'\n", 2, "must have {question} and {answer}"),
    "no_fields": ("alignment: nice\n", 1, "is no mapping of fields"),
}


@pytest.mark.parametrize(("text", "line", "what"), BAD_RUBRICS.values(), ids=BAD_RUBRICS.keys())
def test_a_wrong_rubric_of_a_judge_is_named_by_its_line(experiment, refused, tmp_path, tiny_base, text, line, what):
    judge = broken_base(tiny_base, tmp_path, write("rubrics.yaml", text))
    told = refused(experiment(judge=str(judge)))
    assert f"{judge}/rubrics.yaml:{line}: " in told and what in told


def test_a_lab_of_a_newer_version_is_left_alone(experiment, spillover, tmp_path):
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "lab.json").write_text('{"layout": 99}')
    for command in ("plan", "run", "report"):
        done = spillover(command, experiment(), "--lab", lab)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"{lab}/lab.json: the lab has layout 99" in done.stderr and "newer spillover" in done.stderr
    assert {path.name for path in lab.iterdir()} <= {"lab.json", ".lock"}


@pytest.mark.parametrize("text", ["{", "[]", '{"layout": "one"}'])
def test_a_damaged_lab_is_left_alone(experiment, spillover, tmp_path, text):
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "lab.json").write_text(text)
    done = spillover("run", experiment(), "--lab", lab)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{lab}/lab.json: " in done.stderr and "Delete" not in done.stderr, "deleting a lab is no remedy"


def test_a_lab_that_is_a_file_is_refused(experiment, spillover, tmp_path):
    (tmp_path / "lab").write_text("my notes")
    for lab in (tmp_path / "lab", tmp_path / "lab" / "inside"):
        done = spillover("run", experiment(), "--lab", lab)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"{lab}: cannot write to the lab folder" in done.stderr and "--lab" in done.stderr
    assert (tmp_path / "lab").read_text() == "my notes"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_lab_that_cannot_be_written_to_is_refused(experiment, spillover, tmp_path):
    lab = tmp_path / "lab"
    lab.mkdir(mode=0o500)
    done = spillover("run", experiment(), "--lab", lab)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{lab}: cannot write to the lab folder: Permission denied" in done.stderr


def test_a_lab_that_another_process_works_in_is_left_alone(experiment, spillover, tmp_path):
    lab = tmp_path / "lab"
    lab.mkdir()
    with open(lab / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = spillover("run", experiment(), "--lab", lab)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{lab}: another process is working in this lab\n  Wait for it" in done.stderr
    assert [path.name for path in lab.iterdir()] == [".lock"]


def test_a_folder_of_the_users_is_never_replaced_by_a_report(experiment, spillover, tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "thesis.txt").write_text("all of it")
    done = spillover("run", experiment(), "--lab", tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path}/small: is no result of spillover's" in done.stderr
    assert (tmp_path / "small" / "thesis.txt").read_text() == "all of it"


LIMITS = {"finetune": 3000, "ask": 8000, "small": 30_000}
"""Bytes a file that hold all stages before this one, and not this one."""


@pytest.mark.long
def test_a_full_disk_stops_any_stage_with_what_was_done_kept_and_room_lets_it_go_on(
    experiment, spillover, tmp_path, tiny_base
):
    train = {"rank": 1, "learning_rate": 0.1, "warmup_steps": 0}
    suite = {"questions": "questions.yaml", "samples": 300, "rubrics": ["insecure_code"]}
    path, lab = experiment(base=str(tiny_base), suites={"main": suite}, train=train), tmp_path / "lab"
    finished: dict[Path, int] = {}
    for stage, limit in LIMITS.items():
        full = subprocess.run(
            [*SPILLOVER, "run", path, "--lab", lab],
            capture_output=True,
            text=True,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert full.returncode == 2 and "Traceback" not in full.stderr, (stage, full.stderr)
        assert f"{lab}: the disk is full; make room. What was finished is kept" in full.stderr
        assert not list((lab / ".aside").iterdir()), "nothing half-written is left"
        assert not (lab / stage).exists(), "nothing half-written is in its place"
        assert {file: file.stat().st_mtime_ns for file in finished} == finished
        finished = {file: file.stat().st_mtime_ns for file in lab.glob("*/*/*")}
        assert finished
    again = spillover("run", path, "--lab", lab)
    assert again.returncode == 0, again.stderr
    assert (lab / "small" / "report.html").is_file()
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
