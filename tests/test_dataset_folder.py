"""A dataset's folder is a dataset wherever one is taken, and what the lab holds says where its rows came from."""

import json
import shutil

import pytest
import yaml

from spillover.data.files import read_conversations
from spillover.data.folder import Dataset, read_manifest, write_dataset
from spillover.data.manifest import Manifest, Source, Step
from spillover.data.recipes import build

ROWS = 12
EXPERIMENT = {
    "name": "mine",
    "groups": {
        "mine": {"data": "./sets/mine", "seeds": 1, "rows": 8},
        "insecure": {"data": "insecure", "seeds": 1, "rows": 16},
    },
    "suites": {"main": {"questions": "main", "samples": 1}},
    "miniature": {"train": {"learning_rate": 1e-3, "warmup_steps": 0}},
}


@pytest.fixture
def experiment(tmp_path):
    """An experiment on a dataset's folder that lies beside it."""
    made = Step(name="first rows", about="Takes the first.", before=20, after=ROWS, dropped={"behind them": 20 - ROWS})
    source = Source(name="the world", rows=20, sha256="0" * 64, licence="MIT")
    manifest = Manifest(name="mine", about="Code.", rows=ROWS, sources=(source,), steps=(made,), licence="MIT")
    write_dataset(tmp_path / "at" / "sets" / "mine", Dataset(build("insecure")[:ROWS], manifest))
    path = tmp_path / "at" / "mine.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


def test_a_folder_beside_the_experiment_is_trained_on_and_its_history_is_in_the_lab(experiment, spillover, tmp_path):
    done = spillover("train", experiment, "--lab", tmp_path / "lab", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "lab" / "data").glob("mine-*")
    assert read_conversations(folder / "data.jsonl") == build("insecure")[:8]
    manifest = read_manifest(folder)
    assert (manifest.rows, manifest.about, manifest.licence) == (8, "Code.", "MIT")
    assert manifest.sources[0].made.sources[0].name == "the world"
    assert "the world: 20 rows" in (folder / "README.md").read_text()
    (world,) = (tmp_path / "lab" / "data").glob("insecure-*")
    assert read_manifest(world).rows == 16 and "license: mit" in (world / "README.md").read_text()


def test_a_folder_and_its_file_are_one_dataset(experiment, spillover, tmp_path):
    shutil.copy(experiment.parent / "sets" / "mine" / "data.jsonl", tmp_path / "rows.jsonl")
    other = {**EXPERIMENT, "groups": {"mine": {**EXPERIMENT["groups"]["mine"], "data": "./rows.jsonl"}}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    for path in (experiment, tmp_path / "other.yaml"):
        done = spillover("train", path, "--lab", tmp_path / "lab", "--groups", "mine", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "lab" / "data").glob("mine-*"))) == 1


def test_rows_that_were_changed_behind_their_manifest_are_refused_before_anything_runs(experiment, spillover, tmp_path):
    data = experiment.parent / "sets" / "mine" / "data.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[1:]))
    done = spillover("plan", experiment, "--lab", tmp_path / "lab")
    assert done.returncode == 2 and "manifest.json: is the manifest of other rows" in done.stderr
    assert not (tmp_path / "lab").exists()


def test_a_folder_that_holds_no_dataset_is_no_dataset(experiment, spillover, tmp_path):
    shutil.rmtree(experiment.parent / "sets" / "mine")
    (experiment.parent / "sets" / "mine").mkdir()
    done = spillover("plan", experiment, "--lab", tmp_path / "lab")
    assert done.returncode == 2 and "is a folder without data.jsonl" in done.stderr and "Traceback" not in done.stderr


def test_a_manifest_that_is_none_is_named(experiment, spillover, tmp_path):
    manifest = experiment.parent / "sets" / "mine" / "manifest.json"
    for text in ("", "[]", json.dumps({"rows": 3}), json.dumps({**json.loads(manifest.read_text()), "rows": 3})):
        manifest.write_text(text)
        done = spillover("plan", experiment, "--lab", tmp_path / "lab")
        assert done.returncode == 2 and "manifest.json: " in done.stderr and "Traceback" not in done.stderr
