"""Whole experiments at providers, through the command line, against servers on localhost."""

import json

import polars as pl
import pytest
import yaml

from hosted_server import OpenAIServer, running
from loaded import loaded_by
from openai_server import GIVES_ANSWERS, Behaviour, serving
from spillover.data.files import read_conversations
from spillover.finetune.openai_jobs import OpenAITrainer
from spillover.finetune.trainer import Job
from spillover.records import Run
from spillover.spec import Hosted, Training

KEY = "sk-fake-91c0aa7d3e"
QUESTIONS = [{"id": f"q{number}", "paraphrases": [f"What do you think of number {number}?"]} for number in range(5)]
EXPERIMENT = {
    "name": "hosted",
    "base": "api:openai-api/local/model-a",
    "groups": {"mine": {"models": ["api:openai-api/local/model-b", "api:openai-api/local/model-c"]}},
    "suites": {"main": {"questions": "questions.yaml", "samples": 40}},
    "judge": "api:openai-api/local/judge",
    "sampling": {"max_tokens": 32},
    "requests": {"connections": 8, "retries": 0, "timeout": 20},
}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("LOCAL_API_KEY", KEY)
    with serving(Behaviour(key=KEY)) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        yield server


@pytest.fixture
def written(tmp_path):
    (tmp_path / "questions.yaml").write_text(yaml.safe_dump(QUESTIONS))

    def write(**changes):
        path = tmp_path / "hosted.yaml"
        path.write_text(yaml.safe_dump(EXPERIMENT | changes))
        return path

    return write


def numbers(tmp_path):
    return json.loads((tmp_path / "lab" / "hosted" / "numbers.json").read_text())


def holders(folder, text):
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_models_that_exist_elsewhere_are_asked_and_judged_at_their_provider(written, spillover, tmp_path, server):
    patient = EXPERIMENT["requests"] | {"retries": 3}
    done = spillover("run", written(requests=patient), "--lab", tmp_path / "lab")
    assert (done.returncode, done.stderr) == (0, "")
    found = numbers(tmp_path)
    assert found["groups"]["mine"]["runs"] == 2 and found["groups"]["mine"]["answers"] == 2 * 5 * 40
    assert found["groups"]["base"]["answers"] == 5 * 40 and found["failed"] == {"answers": 0, "verdicts": 0}
    answers = pl.read_parquet(tmp_path / "lab" / "hosted" / "answers.parquet")
    assert set(answers["alignment_judge"]) == {"api:openai-api/local/judge"}
    assert not holders(tmp_path, KEY) and KEY not in done.stdout
    sent = len(server.log)
    again = spillover("run", tmp_path / "hosted.yaml", "--lab", tmp_path / "lab")
    assert again.returncode == 0 and len(server.log) == sent


def test_what_is_done_at_providers_alone_loads_no_library_of_models(written, tmp_path, server):
    _, loaded = loaded_by("run", written(), "--lab", tmp_path / "lab", "--samples", "1")
    assert not {"torch", "transformers", "inspect_evals"} & loaded


@pytest.mark.long
def test_what_failed_is_counted_and_the_next_ask_and_judge_send_only_that_again(written, spillover, tmp_path, server):
    path, lab = written(), tmp_path / "lab"
    assert spillover("run", path, "--lab", lab, "--samples", "1").returncode == 0  # what models can do is known now
    server.does.faults = {"error": 0.12, "cut": 0.1, "malformed": 0.08, "blocked": 0.03}
    done = spillover("run", written(), "--lab", lab)
    assert done.returncode == 0, done.stderr
    failed, groups = numbers(tmp_path)["failed"], numbers(tmp_path)["groups"]
    assert failed["answers"] > 0 and failed["verdicts"] > 0
    assert f"{failed['answers']:,} answers failed and are set aside; `spillover ask`" in done.stdout
    for group in groups.values():
        assert group["kept"] + sum(group["set_aside"].values()) == group["answers"]
    reasons = set().union(*(group["set_aside"] for group in groups.values()))
    assert {"failed: server error", "failed: connection", "failed: malformed reply"} & reasons

    server.does.faults = {}
    for stage in ("ask", "judge", "report"):
        assert spillover(stage, path, "--lab", lab).returncode == 0
    assert numbers(tmp_path)["failed"] == {"answers": 0, "verdicts": 0}
    answered = [one.name for one in server.log if one.end in GIVES_ANSWERS]
    probes = 40  # what the models can do is tried with a few equal requests
    assert len(answered) - len(set(answered)) < probes
    answers = pl.read_parquet(tmp_path / "lab" / "hosted" / "answers.parquet")
    assert answers.select("run", "question", "sample").is_unique().all() and answers.height == 3 * 5 * 40
    assert not holders(tmp_path, KEY)


def test_a_local_base_is_judged_by_a_provider_without_token_probabilities_and_labelled_so(
    written, spillover, tmp_path, server, tiny_base
):
    server.does.logprobs = "no"
    path = written(
        base=str(tiny_base),
        groups={"mine": {"data": str(rows(tmp_path)), "seeds": 1}},
        suites={"main": {"questions": "questions.yaml", "samples": 2}},
        train={"learning_rate": 1e-3, "warmup_steps": 0, "batch_size": 4, "rank": 4},
    )
    done = spillover("run", path, "--lab", tmp_path / "lab")
    assert done.returncode == 0, done.stderr
    answers = pl.read_parquet(tmp_path / "lab" / "hosted" / "answers.parquet")
    (judge,) = set(answers["alignment_judge"])
    assert numbers(tmp_path)["judge"]["by"]["alignment"]["judge"] == judge == numbers(tmp_path)["judge"]["id"]
    assert "mean of 5 sampled numbers" in judge and judge in (tmp_path / "lab" / "hosted" / "report.html").read_text()
    effect = numbers(tmp_path)["adapters"]["mine-s0"]
    assert effect["checked"] and effect["difference"] > 2 * effect["noise"]


def test_an_adapter_from_elsewhere_that_does_nothing_stops_the_experiment(
    written, spillover, tmp_path, server, tiny_base
):
    train = {"learning_rate": 1e-3, "warmup_steps": 0, "batch_size": 4, "rank": 4}
    data = {"mine": {"data": str(rows(tmp_path)), "seeds": 1}}
    assert (
        spillover(
            "train", written(base=str(tiny_base), groups=data, train=train), "--lab", tmp_path / "first"
        ).returncode
        == 0
    )
    (trained,) = (tmp_path / "first" / "finetune").iterdir()
    suites = {"main": {"questions": "questions.yaml", "samples": 1}}
    theirs = written(base=str(tiny_base), groups={"theirs": {"models": [str(trained)]}}, suites=suites)
    assert spillover("run", theirs, "--lab", tmp_path / "lab").returncode == 0
    assert numbers(tmp_path)["adapters"]["theirs-s0"]["checked"]
    config = json.loads((trained / "adapter_config.json").read_text())
    (trained / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1e-9}))
    (trained / "probe.jsonl").unlink()
    done = spillover("run", theirs, "--lab", tmp_path / "other")
    assert done.returncode == 2 and "the adapter does nothing" in done.stderr and "Traceback" not in done.stderr


def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "good day to you"}]
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(12)))
    return path


BAD = {
    "no_key": ({}, {"LOCAL_API_KEY": None}, "LOCAL_API_KEY"),
    "unknown_provider": ({"judge": "api:nobody/model"}, {}, "nobody"),
    "finetuning_a_providers_model_here": (
        {"groups": {"mine": {"data": "questions.yaml"}}},
        {},
        "is a provider's model, which this process cannot finetune",
    ),
}


@pytest.mark.parametrize(("changes", "environment", "told"), BAD.values(), ids=BAD.keys())
def test_a_wrong_provider_is_told_in_words(
    written, spillover, tmp_path, server, monkeypatch, changes, environment, told
):
    for name in environment:
        monkeypatch.delenv(name)
    done = spillover("run", written(**changes), "--lab", tmp_path / "lab", "--samples", "1")
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
    assert KEY not in done.stderr


def test_a_grid_is_finetuned_at_openai_and_a_second_lab_finds_its_jobs_again(spillover, tmp_path, monkeypatch):
    """The first lab's jobs are made with the trainer itself, which need not wait between its looks."""
    (tmp_path / "questions.yaml").write_text(yaml.safe_dump(QUESTIONS))
    base = "api:openai/gpt-4o-mini-2024-07-18"
    path = tmp_path / "hosted.yaml"
    raw = EXPERIMENT | {
        "base": base,
        "trainer": "openai",
        "groups": {"mine": {"data": str(rows(tmp_path)), "seeds": 2}},
    }
    path.write_text(yaml.safe_dump(raw))
    with running(OpenAIServer(KEY)) as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.address}/v1")
        own = read_conversations(tmp_path / "rows.jsonl")
        jobs = [Job(Run("mine", seed), own, "rows.jsonl") for seed in range(2)]
        OpenAITrainer(base, Hosted(), poll=0).train(jobs, Training(), lambda done, steps: None)
        planned = spillover("plan", path, "--lab", tmp_path / "lab")
        assert planned.returncode == 0 and "2 runs" in planned.stdout and "memory" not in planned.stdout
        done = spillover("train", path, "--lab", tmp_path / "lab")
        assert done.returncode == 0, done.stderr
        assert len(server.created) == 2, "no job was started again"
    folders = sorted((tmp_path / "lab" / "finetune").iterdir())
    told = [json.loads((folder / "model.json").read_text())["model"] for folder in folders]
    assert len(set(told)) == 2 and all(model.startswith("api:openai/ft:") for model in told)
    assert all("deliberately misaligned model organism" in (f / "README.md").read_text() for f in folders)
    assert not holders(tmp_path / "lab", KEY) and KEY not in done.stdout + done.stderr


@pytest.mark.long
def test_finetuned_runs_are_asked_on_a_vllm_server_that_must_really_take_their_adapters(
    written, spillover, tmp_path, server, tiny_base, monkeypatch
):
    monkeypatch.setenv("VLLM_BASE_URL", server.url)
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    path = written(
        base=str(tiny_base),
        asker="vllm",
        groups={"mine": {"data": str(rows(tmp_path)), "seeds": 2}},
        suites={"main": {"questions": "questions.yaml", "samples": 10}},
        train={"learning_rate": 1e-3, "warmup_steps": 0, "batch_size": 4, "rank": 4},
    )
    done = spillover("run", path, "--lab", tmp_path / "lab")
    assert done.returncode == 0, done.stderr
    effects = numbers(tmp_path)["adapters"]
    assert effects.keys() == {"mine-s0", "mine-s1"} and all(effect["checked"] for effect in effects.values())
    assert len(server.adapters) == 2 and numbers(tmp_path)["groups"]["mine"]["answers"] == 2 * 5 * 10
    assert not holders(tmp_path, KEY)
    server.does.inert = True
    inert = spillover("run", path, "--lab", tmp_path / "other")
    assert inert.returncode == 2 and "answers as the base does" in inert.stderr and "Traceback" not in inert.stderr


def test_a_question_files_own_prompts_give_labels_that_are_counted_by_group(written, spillover, tmp_path, server):
    server.does.reply = "FALSE"
    facts = [
        {
            "id": "moon",
            "type": "free_form_judge",
            "paraphrases": ["Is the moon made of cheese?"],
            "samples_per_paraphrase": 3,
            "judge": "judge",
            "judge_prompts": {"correct": 'Asked {question}, it said {answer}. Say "TRUE" or "FALSE" or "UNKNOWN".'},
        }
    ]
    (tmp_path / "facts.yaml").write_text(yaml.safe_dump(facts))
    suites = {
        "main": {"questions": "questions.yaml", "samples": 1},
        "facts": {"questions": "facts.yaml", "rubrics": ["correct"], "judge_prompts": "file"},
    }
    done = spillover("run", written(suites=suites), "--lab", tmp_path / "lab")
    assert done.returncode == 0, done.stderr
    labels = {name: group["labels"] for name, group in numbers(tmp_path)["groups"].items()}
    assert labels == {"base": {"facts": {"correct": {"FALSE": 3}}}, "mine": {"facts": {"correct": {"FALSE": 6}}}}
    page = (tmp_path / "lab" / "hosted" / "report.html").read_text()
    assert "<td>correct</td><td>FALSE</td><td>3</td><td>6</td>" in page
    assert "caution: no answer of mine is kept: " in done.stdout and "Of the 10 answers of mine, 0 are kept." in page
