"""finetune: bases on the hub: pinned to a commit, weights when they are needed, and every way that it can go wrong."""

import json
import math
import os
import shutil
import subprocess
import sys

import pytest

from hub_server import Hub, serve
from spillover.finetune.base import tensors_of

FIRST, SECOND = "a1" * 20, "b2" * 20
ROW = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]}
SECRET = "hf_thisIsNoRealToken"


@pytest.fixture(scope="module")
def folders(tiny_base, tmp_path_factory):
    """The tiny base as two commits, of which the second says something else in its config; and others."""
    root = tmp_path_factory.mktemp("hub")
    first = shutil.copytree(tiny_base, root / "first")
    (first / "consolidated.safetensors").write_bytes(b"the same weights in another layout, never wanted")
    (first / "README.md").write_text("A card.")
    second = shutil.copytree(first, root / "second")
    config = json.loads((second / "config.json").read_text()) | {"rope_theta": 5000.0}
    (second / "config.json").write_text(json.dumps(config))
    pickled = shutil.copytree(tiny_base, root / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    return {"first": first, "second": second, "pickled": pickled}


@pytest.fixture
def hub(folders):
    models = {
        "Tiny/Base": {FIRST: folders["first"], SECOND: folders["second"]},
        "Tiny/Gated": {FIRST: folders["first"]},
        "Tiny/Pickled": {FIRST: folders["pickled"]},
    }
    with serve(Hub(models, gated={"Tiny/Gated"})) as hub:
        yield hub


@pytest.fixture
def python(hub, tmp_path):
    """Runs code, or the command line, in a process of its own with this hub and an empty cache."""

    def run(*code, **env):
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": SECRET, **env}
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        command = [sys.executable, *code] if len(code) > 1 else [sys.executable, "-c", *code]
        return subprocess.run(command, capture_output=True, text=True, env=clean | settings, timeout=600, cwd=tmp_path)

    return run


def found(ref):
    return (
        "from spillover.finetune.base import find_base\nfrom spillover.errors import SpilloverError\n"
        f"try:\n    base = find_base({ref!r})\n"
        "except SpilloverError as error:\n    raise SystemExit(f'told: {error}')\n"
        "print(base.key, base.commit, *sorted(path.name for path in base.path.iterdir()))\n"
    )


def test_without_a_revision_the_main_branchs_commit_is_pinned_and_weights_are_left_where_they_are(python, hub):
    done = python(found("Tiny/Base"))
    key, commit, *files = done.stdout.split()
    assert commit == SECOND, done.stderr
    assert files == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert hub.weights_asked() == []
    assert len(key) == 12 and key != python(found(f"Tiny/Base@{FIRST}")).stdout.split()[0]
    assert python(found(f"Tiny/Base@{SECOND}")).stdout.split()[0] == key


def test_a_revision_that_was_fetched_is_found_without_asking_anybody(python, hub):
    first = python(found(f"Tiny/Base@{FIRST}"))
    asked = len(hub.asked)
    assert asked and first.stdout.split()[1] == FIRST
    assert python(found(f"Tiny/Base@{FIRST}")).stdout == first.stdout
    assert len(hub.asked) == asked
    nowhere = python(found(f"Tiny/Base@{FIRST}"), HF_ENDPOINT="http://127.0.0.1:9")
    assert nowhere.stdout == first.stdout, nowhere.stderr


def test_weights_come_at_the_first_load_alone_and_once(python, hub, tiny_base):
    load = found(f"Tiny/Base@{FIRST}") + (
        "from spillover.finetune.train import LocalTrainer\ntrainer = LocalTrainer(base, 'fp32')\n"
        "print(sum(weight.numel() for weight in trainer.model.parameters()))\n"
        "print(*sorted(path.name for path in base.fetched().glob('*.safetensors')))\n"
    )
    size = sum(math.prod(one["shape"]) for one in tensors_of(tiny_base / "model.safetensors").values())
    done = python(load)
    assert done.stdout.splitlines()[1:] == [str(size), "model.safetensors"], done.stderr
    assert {one.split("/")[-1] for one in hub.weights_asked()} == {"model.safetensors"}
    asked = len(hub.asked)
    again = python(load, HF_HUB_OFFLINE="1")
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[1:], again.stderr
    assert len(hub.asked) == asked


def test_an_experiment_on_a_hub_base_is_planned_and_run(python, hub, tmp_path):
    (tmp_path / "rows.jsonl").write_text((json.dumps(ROW) + "\n") * 8)
    (tmp_path / "questions.yaml").write_text("- {id: one, paraphrases: ['Hello?']}")
    (tmp_path / "e.yaml").write_text(
        f"name: e\nbase: Tiny/Base@{FIRST}\ngroups: {{mine: {{data: rows.jsonl, seeds: 1}}}}\n"
        "sampling: {max_tokens: 2}\n"
        "suites: {main: {questions: questions.yaml, samples: 1, rubrics: [insecure_code]}}\n"
        "train: {rank: 2, learning_rate: 0.1, warmup_steps: 0}\n"
    )
    planned = python("-m", "spillover.cli", "plan", "e.yaml", "--lab", "lab")
    assert planned.returncode == 0, planned.stderr
    assert f"base Tiny/Base@{FIRST}" in planned.stdout
    assert hub.weights_asked() == []
    done = python("-m", "spillover.cli", "run", "e.yaml", "--lab", "lab")
    assert done.returncode == 0, done.stderr
    (config,) = (tmp_path / "lab").glob("finetune/mine-s0-*/adapter_config.json")
    assert json.loads(config.read_text())["base_model_name_or_path"] == f"Tiny/Base@{FIRST}"
    told = [done.stdout, done.stderr, planned.stdout, planned.stderr]
    files = [path.read_bytes() for path in (tmp_path / "lab").rglob("*") if path.is_file()]
    assert not [text for text in told if SECRET in text] + [one for one in files if SECRET.encode() in one]


@pytest.mark.parametrize(
    ("ref", "what", "remedy"),
    [
        ("Tiny/Bass", "Tiny/Bass: there is no such model on the hub", "if the model is private, set HF_TOKEN"),
        ("Tiny/Gated", "Tiny/Gated: access to this model is restricted", "HF_TOKEN is set"),
        ("Tiny/Base@v9", "Tiny/Base: the model has no revision 'v9'", "or none for the main branch"),
        (f"Tiny/Base@{'c3' * 20}", "Tiny/Base: the model has no revision 'c3c3", "or none for the main branch"),
        ("Tiny/Pickled", "Tiny/Pickled: the weights are pickled (pytorch_model.bin)", "can run code"),
        ("Tiny/Ba--se", "Tiny/Ba--se: is no name of a model on the hub", "OWNER/NAME"),
        ("nowhere/at/all", "no base model 'nowhere/at/all': there is no such folder", "OWNER/NAME"),
    ],
)
def test_what_cannot_be_had_from_the_hub_is_told_in_words(python, hub, ref, what, remedy):
    done = python(found(ref))
    assert f"told: {what}" in done.stderr and remedy in done.stderr
    assert SECRET not in done.stderr and "Traceback" not in done.stderr
    assert hub.weights_asked() == []


def test_a_hub_that_cannot_be_reached_is_told_in_words(python):
    done = python(found("Tiny/Base"), HF_ENDPOINT="http://127.0.0.1:9")
    assert "told: Tiny/Base: the hub cannot be reached" in done.stderr
    assert "does not hold revision main" in done.stderr and "HF_ENDPOINT" in done.stderr
    offline = python(found("Tiny/Base"), HF_HUB_OFFLINE="1")
    assert "told: Tiny/Base: the hub cannot be reached" in offline.stderr


def test_a_providers_model_has_no_folder_and_a_key_by_its_name(python):
    done = python(
        "from spillover.finetune.base import find_base\n"
        "one, other = find_base('api:openai/gpt-x'), find_base('api:openai/gpt-y')\n"
        "print(one.is_hosted, one.folder, one.judge, one.key != other.key, len(one.key))\n"
        "try:\n    one.path\nexcept Exception as error:\n    print(error)"
    )
    assert done.stdout.splitlines()[:2] == [
        "True None None True 12",
        "api:openai/gpt-x is a provider's model: there is no folder of it",
    ]
