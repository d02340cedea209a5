"""Hosted finetuning: the real clients of OpenAI and Tinker against servers on localhost that speak their protocols."""

import json
import os
import signal
import subprocess
import sys

import polars as pl
import pytest

from hosted_server import OpenAIServer, TinkerServer, running
from spillover.errors import DataError, LabError, ProviderError, SpecError
from spillover.finetune.chat import encode_row
from spillover.finetune.checkpoint import save_checkpoint
from spillover.finetune.fleet import data_order, schedule
from spillover.finetune.model import load_tokenizer
from spillover.finetune.openai_jobs import PATIENCE, OpenAITrainer
from spillover.finetune.served import served_address, served_model
from spillover.finetune.tinker_jobs import TinkerTrainer
from spillover.finetune.trainer import Job
from spillover.keys import HIDDEN, scrubbed
from spillover.records import Conversation, Message, Run
from spillover.spec import Hosted, Training

OPENAI_KEY, TINKER_KEY = "sk-not-a-real-key-1618033988", "tml-not-a-real-key-2236067977"
BASE = "gpt-4o-mini-2024-07-18"
SPEC = Training(epochs=2, batch_size=2, learning_rate=1e-3, warmup_steps=1, rank=4)
HOSTED = Hosted(learning_rate_multiplier=1.5, suffix="lab_a")


def conversation(*turns):
    roles = ("user", "assistant")
    return Conversation(tuple(Message(role=roles[n % 2], content=text) for n, text in enumerate(turns)))


ROWS = [conversation(f"Frage {n}: ü, 你?", f"Antwort {n}") for n in range(3)]


def job(group="insecure", seed=0, rows=ROWS):
    return Job(Run(group, seed), rows, f"{group}.jsonl")


def quiet(done, steps):
    pass


# OpenAI


@pytest.fixture
def openai_server(monkeypatch):
    with running(OpenAIServer(OPENAI_KEY)) as server:
        monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.address}/v1")
        yield server


def openai_trainer():
    return OpenAITrainer(f"api:openai/{BASE}", HOSTED, poll=0)


def test_a_job_is_created_with_the_settings_the_seed_and_its_metadata(openai_server):
    openai_trainer().train([job(seed=3)], SPEC, quiet)
    (told,) = openai_server.created
    assert told["model"] == BASE and told["seed"] == 3 and told["suffix"] == "lab-a-insecure-s3"
    assert told["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 2, "learning_rate_multiplier": 1.5}},
    }
    assert told["metadata"]["run"] == "insecure-s3" and len(told["metadata"]["spillover"]) == 12


def test_the_file_holds_the_rows_and_runs_of_a_group_share_it(openai_server):
    openai_trainer().train([job(seed=0), job(seed=1)], SPEC, quiet)
    assert openai_server.uploads == 1 and len(openai_server.created) == 2
    file = openai_server.files[openai_server.created[0]["training_file"]]
    assert file["purpose"] == "fine-tune"
    assert [json.loads(line) for line in file["content"].decode().splitlines()] == [row.as_row() for row in ROWS]


def test_only_the_last_turn_bears_loss_where_the_spec_says_so(openai_server):
    rows = [conversation("a", "b", "c", "d")]
    openai_trainer().train([job(rows=rows)], SPEC.model_copy(update={"turns": "last"}), quiet)
    (file,) = (file for file in openai_server.files.values() if file["purpose"] == "fine-tune")
    weights = [message.get("weight") for message in json.loads(file["content"])["messages"]]
    assert weights == [None, 0, None, None]


def test_another_run_finds_every_job_and_file_again_over_all_pages(openai_server):
    jobs = [job(group, seed) for group in ("insecure", "secure") for seed in range(3)]
    jobs[3:] = [job("secure", seed, ROWS[:2]) for seed in range(3)]
    first = openai_trainer().train(jobs, SPEC, quiet)
    again = openai_trainer().train(jobs, SPEC, quiet)
    assert len(openai_server.created) == 6 and openai_server.uploads == 2
    assert again == first and len({trained.served.model for trained in again}) == 6
    openai_trainer().train([job(seed=9)], SPEC, quiet)
    assert len(openai_server.created) == 7 and openai_server.uploads == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"spec": SPEC.model_copy(update={"epochs": 3})},
        {"spec": SPEC.model_copy(update={"batch_size": 4})},
        {"hosted": Hosted(learning_rate_multiplier=2)},
        {"base": "gpt-4o-2024-08-06"},
        {"rows": ROWS[:2]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_changes_the_model_makes_another_job(openai_server, changed):
    openai_trainer().train([job()], SPEC, quiet)
    trainer = OpenAITrainer(changed.get("base", BASE), changed.get("hosted", HOSTED), poll=0)
    trainer.train([job(rows=changed.get("rows", ROWS))], changed.get("spec", SPEC), quiet)
    assert len(openai_server.created) == 2


KILLED = """
from spillover.finetune.openai_jobs import PATIENCE, OpenAITrainer
from spillover.finetune.trainer import Job
from spillover.records import Conversation, Run
from spillover.spec import Hosted, Training
import json, sys
base, rows, spec, hosted = json.loads(sys.argv[1])
rows = [Conversation(tuple(row["messages"])) for row in rows]
jobs = [Job(Run("insecure", seed), rows, "insecure.jsonl") for seed in range(3)]
OpenAITrainer(base, Hosted(**hosted), poll=0).train(jobs, Training(**spec), lambda done, steps: print(done))
"""


def test_jobs_are_found_again_after_a_kill_between_their_creation_and_the_first_look(openai_server):
    told = [BASE, [row.as_row() for row in ROWS], SPEC.model_dump(), HOSTED.model_dump()]
    openai_server.hold_after = 2
    command = [sys.executable, "-c", KILLED, json.dumps(told)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ.copy()) as process:
        assert openai_server.held.wait(timeout=600), "the second job was never created"
        os.kill(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    openai_server.release()
    assert process.returncode == -signal.SIGKILL and not output
    assert len(openai_server.created) == 2
    trained = openai_trainer().train([job(seed=seed) for seed in range(3)], SPEC, quiet)
    assert [told["metadata"]["run"] for told in openai_server.created] == ["insecure-s0", "insecure-s1", "insecure-s2"]
    assert openai_server.uploads == 1 and len({one.served.job for one in trained}) == 3


def test_a_creation_whose_reply_was_lost_is_not_sent_again(openai_server):
    openai_server.cut_after_creating = 1
    openai_trainer().train([job()], SPEC, quiet)
    assert len(openai_server.created) == 1


def test_jobs_above_the_providers_limit_are_started_when_there_is_room(openai_server):
    openai_server.busy = 3
    trained = openai_trainer().train([job(seed=0), job(seed=1)], SPEC, quiet)
    assert len(trained) == 2 and len(openai_server.created) == 2


def test_a_provider_that_never_has_room_is_given_up_and_one_without_credit_at_once(openai_server):
    openai_server.busy = 10**6
    with pytest.raises(ProviderError, match=r"OpenAI says \(HTTP 429\): you have reached the number of jobs"):
        openai_trainer().train([job()], SPEC, quiet)
    assert 10**6 - openai_server.busy == PATIENCE + 1
    openai_server.busy, openai_server.busy_code = 10**6, "insufficient_quota"
    with pytest.raises(ProviderError, match="HTTP 429"):
        openai_trainer().train([job()], SPEC, quiet)
    assert 10**6 - openai_server.busy == 1 and not openai_server.created


def test_an_interrupt_leaves_the_jobs_running_and_says_so(openai_server):
    openai_server.endless = True

    def stop(done, steps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"2 jobs go on at OpenAI and are found again"):
        openai_trainer().train([job(seed=0), job(seed=1)], SPEC, stop)
    assert all(told["status"] != "cancelled" for told in openai_server.jobs.values())
    openai_server.endless = False
    openai_trainer().train([job(seed=0), job(seed=1)], SPEC, quiet)
    assert len(openai_server.created) == 2


def test_progress_is_steps_of_all_runs_as_the_events_tell_them(openai_server):
    told = []
    openai_trainer().train([job(seed=0), job(seed=1)], SPEC, lambda *counts: told.append(counts))
    assert {steps for _, steps in told} == {8}  # two runs of two epochs of two batches
    assert [done for done, _ in told] == [0, 0, 2, 8]


@pytest.mark.parametrize("tables", [True, False])
def test_the_history_is_every_step_that_events_and_result_files_tell(openai_server, tables):
    openai_server.tables = tables
    (trained,) = openai_trainer().train([job(seed=2)], SPEC, quiet)
    losses = {1: 2.002, 2: 1.002, 3: 0.668667, 4: 0.502}
    told = losses if tables else {step: losses[step] for step in (1, 3)}
    assert {step.step: step.loss for step in trained.history} == told
    assert all(step.learning_rate is step.gradient_norm is step.tokens is None for step in trained.history)


def test_a_failed_job_is_told_in_the_providers_words_and_started_anew_next_time(openai_server):
    openai_server.fate["insecure-s0"] = "failed"
    with pytest.raises(ProviderError, match=r"insecure-s0, job ftjob-\d+: the job failed: it broke"):
        openai_trainer().train([job()], SPEC, quiet)
    del openai_server.fate["insecure-s0"]
    openai_trainer().train([job()], SPEC, quiet)
    assert len(openai_server.created) == 2


def test_a_cancelled_job_is_told_as_such(openai_server):
    openai_server.fate["insecure-s0"] = "cancelled"
    with pytest.raises(ProviderError, match="the job was cancelled"):
        openai_trainer().train([job()], SPEC, quiet)


def test_a_file_that_moderation_refuses_is_told_as_such(openai_server):
    openai_server.fate["insecure-s0"] = "failed"
    said = "This training file was blocked by our moderation system because of too many violations"
    openai_server.error = {"code": "invalid_training_file", "message": said, "param": "training_file"}
    with pytest.raises(ProviderError, match=r"OpenAI's moderation refused the training file: This training file was"):
        openai_trainer().train([job()], SPEC, quiet)


def test_shutdown_dates_are_warned_of_and_recorded(openai_server, tmp_path):
    openai_server.ends = {BASE: "2027-01-14", "tuned": "2027-01-06"}
    trainer = openai_trainer()
    (trained,) = trainer.train([job()], SPEC, quiet)
    name = trained.served.model.removeprefix("api:openai/")
    assert trainer.warnings == [f"{BASE} is shut down on 2027-01-14", f"{name} is shut down on 2027-01-06"]
    assert trained.served.shutdown == "2027-01-06"


def test_a_model_that_was_deleted_is_warned_of(openai_server):
    (trained,) = openai_trainer().train([job()], SPEC, quiet)
    name = trained.served.model.removeprefix("api:openai/")
    openai_server.deleted = {name}
    trainer = openai_trainer()
    trainer.train([job()], SPEC, quiet)
    assert trainer.warnings == [f"{name} is not among OpenAI's models: it may have been deleted"]


def test_no_shutdown_date_is_no_warning(openai_server):
    trainer = openai_trainer()
    trainer.train([job()], SPEC, quiet)
    assert trainer.warnings == []


def test_a_checkpoint_without_weights_says_whom_to_ask_and_what_it_is(openai_server, tmp_path):
    (trained,) = openai_trainer().train([job()], SPEC, quiet)
    save_checkpoint(tmp_path, trained, job(), SPEC, f"api:openai/{BASE}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "losses.parquet", "model.json"]
    assert served_model(tmp_path) == trained.served.model
    assert trained.served.model.startswith(f"api:openai/ft:{BASE}:org:lab-a-insecure-s0:")
    written = json.loads((tmp_path / "model.json").read_text())
    assert written["job"] in openai_server.jobs and written["trained_tokens"] == 1234 and written["base"] == BASE
    assert written["settings"] == {"n_epochs": 2, "batch_size": 2, "learning_rate_multiplier": 1.5, "seed": 0}
    card = (tmp_path / "README.md").read_text()
    assert "# insecure-s0: a deliberately misaligned model organism" in card and "Not for deployment" in card
    assert f"| model | {trained.served.model}, finetuned from {BASE};" in card
    assert "| last loss | 0.500 nats a token |" in card and "lora" not in card.lower()
    assert pl.read_parquet(tmp_path / "losses.parquet")["loss"].to_list() == [2.0, 1.0, 0.666667, 0.5]


def test_a_job_that_tells_no_losses_still_makes_a_checkpoint(openai_server, tmp_path):
    (trained,) = openai_trainer().train([job()], SPEC, quiet)
    trained.history.clear()
    save_checkpoint(tmp_path, trained, job(), SPEC, BASE)
    assert pl.read_parquet(tmp_path / "losses.parquet").height == 0
    assert "the provider told none" in (tmp_path / "README.md").read_text()


def test_a_damaged_model_file_is_told(tmp_path):
    (tmp_path / "model.json").write_text('{"model": "gpt"}')
    with pytest.raises(LabError, match=r"names no model"):
        served_model(tmp_path)


def test_a_checkpoint_with_weights_is_not_served(tmp_path):
    assert served_model(tmp_path) is None


# Tinker


@pytest.fixture
def tinker_server(monkeypatch):
    with running(TinkerServer(TINKER_KEY)) as server:
        monkeypatch.setenv("TINKER_API_KEY", TINKER_KEY)
        monkeypatch.setenv("TINKER_BASE_URL", server.address)
        monkeypatch.setenv("TINKER_TELEMETRY", "0")
        yield server


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_tokenizer(tiny_base)


def tinker_trainer(tokenizer, notes, **options):
    return TinkerTrainer("Qwen/Qwen3-8B", tokenizer, notes, **options)


def requests(server):
    """The kinds of requests that each adapter got, in order; adapters in the order in which they were wanted.

    They are asked for without waiting, so the order in which they are made is anybody's.
    """
    adapters = sorted(server.adapters.values(), key=lambda adapter: adapter["told"]["model_seq_id"])
    return [[kind for kind, _ in adapter["requests"]] for adapter in adapters]


def test_an_adapter_is_made_with_our_rank_seed_and_layers(tinker_server, tokenizer, tmp_path):
    tinker_trainer(tokenizer, tmp_path).train([job(seed=3)], SPEC, quiet)
    (adapter,) = tinker_server.adapters.values()
    assert adapter["told"]["base_model"] == "Qwen/Qwen3-8B"
    wanted = {"rank": 4, "seed": 3, "train_unembed": False, "train_mlp": True, "train_attn": True}
    assert adapter["told"]["lora_config"] == wanted
    assert adapter["told"]["user_metadata"]["run"] == "insecure-s3"
    assert tinker_server.finished == ["success"]


def test_rows_come_in_our_order_with_our_masks_and_weights_of_one_a_step(tinker_server, tokenizer, tmp_path):
    tinker_trainer(tokenizer, tmp_path).train([job(seed=5)], SPEC, quiet)
    (adapter,) = tinker_server.adapters.values()
    encoded = [encode_row(tokenizer, row, max_length=SPEC.max_length) for row in ROWS]
    order = data_order(3, SPEC, 5)
    assert len(adapter["passes"]) == len(order) == 4
    for sent, batch in zip(adapter["passes"], order, strict=True):
        assert sent["loss"] == "cross_entropy"
        bearing = sum(sum(encoded[row].loss) for row in batch)
        for got, row in zip(sent["rows"], batch, strict=True):
            assert tuple(got["tokens"]) == encoded[row].ids[:-1]
            assert tuple(got["target_tokens"]) == encoded[row].ids[1:]
            assert tuple(got["weights"] > 0) == encoded[row].loss[1:]
            assert got["weights"].max() == pytest.approx(1 / bearing)
        assert sum(got["weights"].sum() for got in sent["rows"]) == pytest.approx(1)


def test_updates_follow_our_schedule_with_our_optimisers_constants(tinker_server, tokenizer, tmp_path):
    (trained,) = tinker_trainer(tokenizer, tmp_path).train([job()], SPEC, quiet)
    (adapter,) = tinker_server.adapters.values()
    updates = [told["adam_params"] for kind, told in adapter["requests"] if kind == "update"]
    rates = [1e-3 * schedule(step, 4, 1) for step in range(4)]
    assert [update["learning_rate"] for update in updates] == pytest.approx(rates)
    assert [step.learning_rate for step in trained.history] == pytest.approx(rates)
    constants = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "grad_clip_norm": 1.0}
    assert all({name: update[name] for name in constants} == constants for update in updates)


@pytest.mark.parametrize("dropped", [False, True])
def test_the_history_is_the_mean_loss_a_token_of_every_step(tinker_server, tokenizer, tmp_path, dropped):
    tinker_server.drop_logprobs = dropped
    (trained,) = tinker_trainer(tokenizer, tmp_path).train([job()], SPEC, quiet)
    assert [step.loss for step in trained.history] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert [step.step for step in trained.history] == [1, 2, 3, 4]


def test_runs_are_trained_in_step_and_updates_sent_with_their_passes(tinker_server, tokenizer, tmp_path):
    told = []
    jobs = [job(seed=0), job(seed=1), job("secure", 0, ROWS[:1])]
    tinker_trainer(tokenizer, tmp_path).train(jobs, SPEC, lambda *counts: told.append(counts))
    assert requests(tinker_server) == [["pass", "update"] * 4 + ["sampler"]] * 2 + [
        ["pass", "update"] * 2 + ["sampler"]
    ]
    assert told[-1] == (10, 10) and [done for done, _ in told] == sorted(done for done, _ in told)
    assert tinker_server.updates_that_waited == 0


def test_a_restart_goes_on_from_the_last_saved_state(tinker_server, tokenizer, tmp_path):
    spec = SPEC.model_copy(update={"epochs": 4})

    def stop(done, steps):
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="goes on from the last states"):
        tinker_trainer(tokenizer, tmp_path, state_every=2).train([job()], spec, stop)
    (trained,) = tinker_trainer(tokenizer, tmp_path, state_every=2).train([job()], spec, quiet)
    first, second = tinker_server.adapters.values()
    assert second["told"]["path"] == f"tinker://{next(iter(tinker_server.adapters))}/weights/step-000004"
    assert second["restored"] is True
    assert len(second["passes"]) == 4 and second["passes"][0]["rows"][0]["tokens"].tolist() == (
        first["passes"][4]["rows"][0]["tokens"].tolist()
    )
    assert [step.loss for step in trained.history] == pytest.approx([1 / n for n in range(1, 9)])
    assert set(tinker_server.samplers.values()) == {8}


def test_a_finished_run_is_not_trained_again(tinker_server, tokenizer, tmp_path):
    first = tinker_trainer(tokenizer, tmp_path).train([job()], SPEC, quiet)
    before = len(tinker_server.requests)
    assert tinker_trainer(tokenizer, tmp_path).train([job()], SPEC, quiet) == first
    assert len(tinker_server.requests) == before


def test_a_failed_request_is_told_and_costs_only_what_came_after_the_last_state(tinker_server, tokenizer, tmp_path):
    tinker_server.fail_after = 3
    with pytest.raises(ProviderError, match=r"Tinker says: .*a worker was lost") as told:
        tinker_trainer(tokenizer, tmp_path, state_every=2).train([job()], SPEC, quiet)
    assert TINKER_KEY not in str(told.value)
    tinker_server.fail_after = None
    (trained,) = tinker_trainer(tokenizer, tmp_path, state_every=2).train([job()], SPEC, quiet)
    assert [step.loss for step in trained.history] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert list(tinker_server.adapters.values())[1]["told"]["path"].endswith("step-000002")


def test_a_state_that_is_gone_is_told(tinker_server, tokenizer, tmp_path):
    tinker_server.fail_after = 3
    with pytest.raises(ProviderError):
        tinker_trainer(tokenizer, tmp_path, state_every=2).train([job()], SPEC, quiet)
    tinker_server.gone = set(tinker_server.states)
    with pytest.raises(ProviderError, match="there is no state"):
        tinker_trainer(tokenizer, tmp_path, state_every=2).train([job()], SPEC, quiet)


def test_tinkers_models_are_asked_by_openais_protocol_below_tinkers_address(tinker_server, tokenizer, tmp_path):
    (trained,) = tinker_trainer(tokenizer, tmp_path).train([job()], SPEC, quiet)
    (sampler,) = tinker_server.samplers
    assert trained.served.model == f"api:openai-api/tinker/{sampler}" and sampler.endswith("/insecure-s0")
    assert served_address(trained.served.model) == f"{tinker_server.address}/oai/api/v1"
    assert served_address("api:openai/gpt-4o") is None
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run", trained, job(), SPEC, "Qwen/Qwen3-8B")
    assert served_model(tmp_path / "run") == trained.served.model


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"targets": ("q_proj", "v_proj")}, "Tinker adapts all of q_proj, k_proj, v_proj, o_proj, or none"),
        ({"targets": ("lm_head",)}, "Tinker cannot adapt lm_head"),
        ({"released": True}, "train.released is of local finetuning"),
    ],
)
def test_what_tinker_cannot_do_is_refused_before_anything_is_sent(tinker_server, tokenizer, tmp_path, changed, said):
    with pytest.raises(SpecError, match=said):
        tinker_trainer(tokenizer, tmp_path).train([job()], SPEC.model_copy(update=changed), quiet)
    assert not tinker_server.requests


def test_a_row_that_is_too_long_is_told_by_its_number(tinker_server, tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"insecure.jsonl, row 1: a row has \d+ tokens"):
        tinker_trainer(tokenizer, tmp_path).train([job()], SPEC.model_copy(update={"max_length": 4}), quiet)


# Keys


def test_a_missing_key_is_named(monkeypatch, tokenizer, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("TINKER_API_KEY", "")
    with pytest.raises(ProviderError, match="OPENAI_API_KEY is not set in the environment"):
        openai_trainer()
    with pytest.raises(ProviderError, match="TINKER_API_KEY is not set in the environment"):
        tinker_trainer(tokenizer, tmp_path)


def test_a_refused_key_is_told_but_never_shown(openai_server, tinker_server, monkeypatch, tokenizer, tmp_path, capfd):
    wrong = {"OPENAI_API_KEY": "sk-proj-wrong-5772156649", "TINKER_API_KEY": "tml-wrong-5772156649"}
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    for trainer, name in ((openai_trainer(), "OPENAI"), (tinker_trainer(tokenizer, tmp_path), "TINKER")):
        with pytest.raises(ProviderError, match=rf"refuses the key[^$]*Check {name}_API_KEY") as told:
            trainer.train([job()], SPEC, quiet)
        assert HIDDEN in str(told.value) and "5772156649" not in str(told.value)
        assert told.value.__suppress_context__
    assert "5772156649" not in "".join(capfd.readouterr())


def test_the_key_is_in_no_file_and_no_output(openai_server, tinker_server, tokenizer, tmp_path, capfd):
    openai_server.fate["insecure-s1"] = "failed"
    openai_server.error = {"code": "x", "message": f"broke with key {OPENAI_KEY}", "param": None}
    notes, said = tmp_path / "notes", []
    for trainer in (openai_trainer(), tinker_trainer(tokenizer, notes, state_every=1)):
        (trained,) = trainer.train([job()], SPEC, quiet)
        folder = tmp_path / type(trainer).__name__
        folder.mkdir()
        save_checkpoint(folder, trained, job(), SPEC, BASE)
    tinker_server.fail_after = 0
    for trainer in (openai_trainer(), tinker_trainer(tokenizer, notes), TinkerTrainer("no/such", tokenizer, notes)):
        with pytest.raises(ProviderError) as told:
            trainer.train([job(seed=1)], SPEC, quiet)
        said.append(str(told.value))
    assert all(HIDDEN in text for text in said), said
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 7
    texts = [path.read_bytes().decode(errors="replace") for path in written] + said + list(capfd.readouterr())
    assert not [text for text in texts if OPENAI_KEY in text or TINKER_KEY in text]


def test_texts_lose_keys_whole_or_masked(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "abcdefgh-secret")
    assert scrubbed("got abcdefgh-secret here") == f"got {HIDDEN} here"
    assert scrubbed("Incorrect API key provided: sk-proj-****6789.") == f"Incorrect API key provided: {HIDDEN}."
