"""finetune: the memory plan: its arithmetic, what it decides, and what training really takes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig

from spillover.errors import BaseError, MachineError
from spillover.finetune import budget, cpu
from spillover.finetune.base import Base, find_base
from spillover.finetune.budget import GIB, cores, describe, memory_of, plan_memory, processes_for
from spillover.finetune.hub import HubModel
from spillover.spec import Machine, Sampling, Training, load_experiment

QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "num_hidden_layers": 28,
    "vocab_size": 152064,
    "dtype": "bfloat16",
}
QWEN_7B_BYTES = 15_231_233_024
QWEN_7B_LORA = 80_740_352
"""Weights of a rank 32 adapter on all seven projections, as PEFT counts them."""
CARD = Machine(device="cuda", memory_gb=79)


@pytest.fixture(autouse=True)
def bf16(monkeypatch):
    """Plans are pinned as for a CPU that has bf16, whatever CPU this is."""
    monkeypatch.setattr(cpu, "has_bf16", lambda: True)


@pytest.fixture
def large(tmp_path):
    """A base on the hub of Qwen2.5-7B's sizes, of which only the config was fetched; changed as asked."""

    def base(**changes):
        (tmp_path / "config.json").write_text(json.dumps(QWEN_7B | changes))
        files = {"config.json": 600, "model.safetensors": QWEN_7B_BYTES}
        return Base("Qwen/Like", tmp_path, on_hub=HubModel("Qwen/Like", "a1" * 20, tmp_path, files))

    return base


def test_the_miniature_trains_six_runs_together_with_as_many_tokens_at_once_as_ever():
    train = load_experiment("figure4").for_base(is_miniature=True).train
    for machine in (Machine(device="cpu", memory_gb=64), Machine(device="cpu", memory_gb=4)):
        plan = plan_memory(find_base("miniature"), train, machine)
        assert (plan.fleet, plan.tokens, plan.rows, plan.gradient_checkpointing, plan.answers) == (
            6,
            8192,
            96,
            False,
            1024,
        )


def test_weights_and_adapters_of_a_large_base_are_counted_exactly(large):
    plan = plan_memory(large(), Training(), CARD)
    assert plan.weights == QWEN_7B_BYTES
    assert plan.per_run == 16 * QWEN_7B_LORA
    assert plan_memory(large(), Training(precision="fp32"), Machine(memory_gb=200)).weights == 2 * QWEN_7B_BYTES
    assert plan_memory(large(), Training(optimiser="adamw_8bit"), CARD).per_run == pytest.approx(10.1 * QWEN_7B_LORA)
    assert plan_memory(large(), Training(targets=("q_proj",)), CARD).per_run == 16 * 28 * 32 * (3584 + 3584)


def test_a_folders_adapters_are_counted_by_its_own_weights(tiny_base):
    plan = plan_memory(find_base(str(tiny_base)), Training(rank=1, targets=("down_proj", "q_proj")), Machine())
    assert plan.per_run == 16 * 2 * ((64 + 32) + (32 + 32))
    assert plan.weights == 2 * 76064


def test_weights_that_lie_there_in_two_layouts_are_counted_once(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    shutil.copy(base / "model.safetensors", base / "consolidated.safetensors")
    assert plan_memory(find_base(str(base)), Training(), Machine()).weights == 2 * 76064


def test_small_layers_merged_weights_are_counted_with_their_run(tiny_base):
    """Of rank 4, those of keys and values are merged: 32 x 16, once in bf16 and once as a gradient in fp32."""
    train = Training(rank=4, targets=("k_proj",))
    plan = plan_memory(find_base(str(tiny_base)), train, Machine())
    assert plan.per_run == 2 * (16 * 4 * (32 + 16) + 32 * 16 * (2 + 4))


@pytest.mark.parametrize(("gib", "fleet", "again"), [(200, 6, False), (79, 2, False), (40, 1, False), (23, 1, True)])
def test_less_memory_means_fewer_runs_and_then_activations_that_are_made_again(large, gib, fleet, again):
    plan = plan_memory(large(), Training(), Machine(memory_gb=gib))
    assert (plan.fleet, plan.gradient_checkpointing) == (fleet, again)
    assert plan.needed <= 0.9 * (gib - 0.5) * GIB
    assert plan.tokens >= min(8192, plan.fleet * 2048)


def test_what_a_person_sets_goes_before_the_plan(large):
    assert plan_memory(large(), Training(), Machine(memory_gb=200, fleet=2)).fleet == 2
    assert plan_memory(large(), Training(), Machine(memory_gb=2000, fleet=20)).fleet == 20
    again = plan_memory(large(), Training(), Machine(memory_gb=200, gradient_checkpointing=True))
    assert again.gradient_checkpointing and again.per_token < 1_500_000
    with pytest.raises(MachineError):
        plan_memory(large(), Training(), Machine(memory_gb=23, gradient_checkpointing=False))


def test_shorter_rows_leave_room_for_more_runs(large):
    long, short = (plan_memory(large(), Training(), Machine(memory_gb=40), longest=longest) for longest in (2048, 256))
    assert (long.fleet, short.fleet) == (1, 6)
    assert plan_memory(large(), Training(), Machine(memory_gb=40), longest=9999).longest == 2048


def test_too_little_memory_says_what_is_needed_what_there_is_and_what_to_change(large):
    with pytest.raises(MachineError) as caught:
        plan_memory(large(), Training(), Machine(memory_gb=16))
    told = str(caught.value)
    assert "one run with one row of 2048 tokens needs 2" in told and "there are 16.0 GiB" in told
    assert "base 14.2 GiB, adapter and optimiser 1.2 GiB" in told
    for change in ("train.max_length", "train.rank", "train.optimiser", "larger card", "machine.memory_gb"):
        assert change in told


def test_logits_of_a_family_that_changes_them_are_counted_whole(large):
    plain, capped = (plan_memory(large(**more), Training(), CARD) for more in ({}, {"final_logit_softcapping": 30.0}))
    assert capped.per_token - plain.per_token == 2 * 10 * QWEN_7B["vocab_size"]


def test_answers_at_once_leave_room_for_what_is_kept_of_their_tokens(large):
    plan = plan_memory(large(), Training(), Machine(memory_gb=40), Sampling(max_tokens=600))
    kept = 2 * 28 * 4 * 128 * 2 * (2048 + 600)
    assert plan.answers < 1024
    assert QWEN_7B_BYTES + plan.answers * kept < 40 * GIB < QWEN_7B_BYTES + 1024 * kept


def test_a_small_base_is_worked_with_by_a_process_a_core_where_there_is_memory_for_each(monkeypatch, large):
    monkeypatch.setattr(budget, "cores", lambda: 4)
    miniature = find_base("miniature")
    assert processes_for(miniature, Machine(device="cpu", memory_gb=64)) == 4
    assert processes_for(miniature, Machine(device="cpu", memory_gb=7)) == 2
    assert processes_for(miniature, Machine(device="cpu", memory_gb=1)) == 1
    assert processes_for(miniature, Machine(device="cpu", processes=1)) == 1
    assert processes_for(large(), Machine(device="cpu", memory_gb=64)) == 1
    assert processes_for(large(), Machine(device="cpu", processes=3)) == 3
    assert processes_for(miniature, CARD) == 1
    plan = plan_memory(miniature, Training(), Machine(device="cpu", memory_gb=64))
    assert (plan.processes, plan.available) == (4, 16 * GIB)
    assert dict(describe(plan))["memory"] == "16.0 GiB on cpu for each of 4 processes"


def test_where_several_processes_have_no_room_one_may_have(monkeypatch, large):
    monkeypatch.setattr(budget, "cores", lambda: 2)
    miniature, long = find_base("miniature"), Training(max_length=8192)
    kept = {"device": "cpu", "gradient_checkpointing": False}
    roomy = plan_memory(miniature, long, Machine(memory_gb=64, **kept))
    assert roomy.processes == 2
    needed = roomy.per_token * 8192 / GIB
    tight = plan_memory(miniature, long, Machine(memory_gb=1.5 * needed + 1, **kept))
    assert (tight.processes, tight.fleet) == (1, 1)


def test_as_many_threads_as_openmp_is_told_count_as_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "none")
    assert cores() >= 1


def test_the_plan_is_told_in_words(large):
    told = dict(describe(plan_memory(large(), Training(), Machine(memory_gb=23))))
    assert told["memory"].startswith("23.0 GiB on ")
    assert told["base"] == "14.2 GiB in bf16" and "1.2 GiB for adapter" in told["a run"]
    assert "one after the other" in told["runs"] and "activations made again" in told["a token"]


def test_a_config_without_sizes_is_an_error(large):
    base = large()
    (base.path / "config.json").write_text('{"hidden_size": 12}')
    with pytest.raises(BaseError, match=r"does not say how large the model is .*num_attention_heads"):
        plan_memory(base, Training(), CARD)


# what there is


@pytest.fixture
def card(tmp_path, monkeypatch):
    """An `nvidia-smi` that knows the cards 0 and 1, and a torch that could use them."""
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\ncase "$1" in --id=0) echo 1024;; --id=1) echo 2048;; *) exit 6;; esac\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(budget, "version", lambda name: "2.13.0+cu130")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def test_the_memory_of_a_card_is_what_nvidia_smi_says_is_free(card):
    assert memory_of(Machine()) == ("cuda:0", GIB)
    assert memory_of(Machine(device="cuda:1")) == ("cuda:1", 2 * GIB)
    assert memory_of(Machine(device="cuda:1", memory_gb=7)) == ("cuda:1", 7 * GIB)
    assert memory_of(Machine(device="cpu"))[0] == "cpu"
    with pytest.raises(MachineError, match="nvidia-smi knows no device cuda:2"):
        memory_of(Machine(device="cuda:2"))


def test_cards_are_numbered_as_torch_numbers_them(card):
    card.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert memory_of(Machine()) == ("cuda:0", 2 * GIB)
    with pytest.raises(MachineError):
        memory_of(Machine(device="cuda:1"))
    card.setenv("CUDA_VISIBLE_DEVICES", "")
    assert memory_of(Machine())[0] == "cpu"


def test_a_torch_that_knows_no_cards_is_planned_for_the_cpu(card):
    card.setattr(budget, "version", lambda name: "2.13.0+cpu")
    assert memory_of(Machine())[0] == "cpu"


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="not Linux")
def test_the_memory_of_a_cpu_is_what_the_system_says_is_available():
    def available():
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return float(lines["MemAvailable"].split()[0]) * 1024

    before = available()
    where, free = memory_of(Machine(device="cpu"))
    assert where == "cpu"
    assert 0 < free <= 1.2 * max(before, available())


# what it really takes


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="not Linux")
@pytest.mark.parametrize(("kind", "runs"), [("kept", 2), ("again", 2)])
def test_training_takes_about_what_the_plan_says(kind, runs, tiny_base, tmp_path):
    sizes = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 8, "vocab_size": 8000}
    config = LlamaConfig(**sizes, num_attention_heads=6, num_key_value_heads=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_base / file, tmp_path / file)
    length, rows = 128, 12 // runs
    script = Path(__file__).with_name("peak_memory.py")
    command = [sys.executable, script, tmp_path, runs, length, rows, kind]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    measured = int(done.stdout.split()[-1])
    machine = Machine(device="cpu", memory_gb=20, gradient_checkpointing=kind == "again")
    plan = plan_memory(find_base(str(tmp_path)), Training(precision="fp32"), machine, longest=length)
    planned = plan.per_step + runs * plan.per_run + runs * rows * length * plan.per_token
    print(f"{kind}, {runs} runs: measured {measured / 2**20:.0f} MiB, planned {planned / 2**20:.0f} MiB")
    assert 0.75 < planned / measured < 1.5
