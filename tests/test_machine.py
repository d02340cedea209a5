"""finetune: what a machine is asked for, and that results do not depend on it; checkpoints on the way."""

import json
import random
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from families import family_base
from spillover.errors import BaseError, MachineError
from spillover.finetune import cpu, optimiser
from spillover.finetune import model as model_module
from spillover.finetune.base import find_base
from spillover.finetune.budget import ROWS, TOKENS, plan_memory
from spillover.finetune.chat import Row
from spillover.finetune.fast import ATTENTION
from spillover.finetune.fleet import Member, train_fleet
from spillover.finetune.layout import Room, cut
from spillover.finetune.model import adapted, device, load_model, told_when_memory_ends
from spillover.finetune.optimiser import make_optimiser
from spillover.finetune.train import LocalTrainer
from spillover.finetune.trainer import Job
from spillover.lazy import lazy
from spillover.records import Conversation, Message, Run
from spillover.spec import Machine, Training

SPEC = Training(rank=4, alpha=8, learning_rate=1e-2, batch_size=4, precision="fp32")
NOISE = 1e-5
"""Largest difference of any adapter weight; a step moves them by about 0.01."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(tiny_base):
    return load_model(tiny_base, "fp32")


def test_a_cpu_has_bf16_where_torchs_own_kernels_do():
    assert cpu.has_bf16() == torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_a_cpu_that_would_emulate_bf16_computes_in_fp32_and_the_memory_is_planned_so(tiny_base, monkeypatch):
    base, machine = find_base(str(tiny_base)), Machine(device="cpu")
    monkeypatch.setattr(cpu, "has_bf16", lambda: True)
    planned = plan_memory(base, Training(), machine)
    weights = {name: value.float() for name, value in load_model(tiny_base, "bf16").state_dict().items()}
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    wider = plan_memory(base, Training(), machine)
    assert (planned.precision, wider.precision, wider.weights) == ("bf16", "fp32", 2 * planned.weights)
    exact = load_model(tiny_base, "bf16").state_dict()
    assert {value.dtype for value in exact.values()} == {torch.float32}
    assert all(torch.equal(value.bfloat16().float(), weights[name]) for name, value in exact.items())


def rows(count, seed=0):
    rng = random.Random(seed)
    lengths = [rng.randint(6, 30) for _ in range(count)]
    return [
        Row(tuple(rng.randrange(3, 60) for _ in range(n)), tuple(i >= n - n // 3 for i in range(n))) for n in lengths
    ]


def train(model, *members, spec=SPEC, **more):
    return train_fleet(model, [Member(some, seed) for some, seed in members], spec, pad=0, **more)


def difference(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def conversations(count):
    said = [
        [Message(role="user", content=f"Say {n}."), Message(role="assistant", content=f"{n}!")] for n in range(count)
    ]
    return [Conversation(tuple(messages)) for messages in said]


# activations that are made again


@pytest.mark.parametrize("attention", ["auto", "sdpa"])  # packed and padded rows
def test_activations_made_again_give_the_same_losses_and_adapters(tiny_base, attention):
    model = load_model(tiny_base, "fp32", Machine(device="cpu", attention=attention))
    members = [(rows(24, seed=1), 0), (rows(16, seed=2), 1)]
    made = {"kept": 0, "again": 0}
    for kind, room in (("kept", Room()), ("again", Room(recompute=True))):
        hooks = [
            part.register_forward_pre_hook(lambda *_, kind=kind: made.update({kind: made[kind] + 1}))
            for part in model.modules()
            if type(part).__name__.endswith("MLP")
        ]
        made[f"{kind} runs"] = train(model, *members, room=room)
        for hook in hooks:
            hook.remove()
    for kept, again in zip(made["kept runs"], made["again runs"], strict=True):
        assert difference(kept.adapter, again.adapter) <= NOISE
        assert [s.loss for s in kept.history] == pytest.approx([s.loss for s in again.history], abs=1e-5)
        assert [s.gradient_norm for s in kept.history] == pytest.approx(
            [s.gradient_norm for s in again.history], rel=1e-4
        )
    assert made["again"] - made["kept"] == 6 * 2, "both blocks really are computed twice in each of the six steps"


def test_after_training_with_activations_made_again_the_model_is_as_it_was(model):
    train(model, (rows(8), 0), room=Room(recompute=True))
    blocks = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    assert blocks and not any(block.gradient_checkpointing or block.training for block in blocks)


def test_a_model_without_blocks_that_can_be_computed_again_is_refused(model, monkeypatch):
    monkeypatch.setattr("spillover.finetune.fleet.GradientCheckpointingLayer", nn.Bilinear)
    with pytest.raises(MachineError, match="Qwen2ForCausalLM cannot make its activations again"):
        train(model, (rows(8), 0), room=Room(recompute=True))


def test_little_room_cuts_a_step_into_more_parts_and_changes_nothing(model):
    chosen = [rows(8, seed=1), rows(8, seed=2)]
    assert len(list(cut(chosen, Room(rows=4)))) == 4
    assert len(list(cut(chosen, Room(tokens=1)))) == 8, "at least a row a run, whatever the room"
    spec = SPEC.model_copy(update={"batch_size": 8})
    members = [(rows(24, seed=1), 0), (rows(24, seed=2), 1)]
    for much, little in zip(
        train(model, *members, spec=spec), train(model, *members, spec=spec, room=Room(4, 64)), strict=True
    ):
        assert difference(much.adapter, little.adapter) <= NOISE


def test_the_memory_plans_limits_are_those_of_a_step():
    assert (Room().tokens, Room().rows) == (TOKENS, ROWS)


# optimisers


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_an_8_bit_optimiser_follows_adamw_with_a_quarter_of_its_state(model, name):
    pytest.importorskip("bitsandbytes")
    spec = SPEC.model_copy(update={"optimiser": name, "learning_rate": 1e-3})
    (rough,) = train(model, (rows(64), 0), spec=spec)
    (exact,) = train(model, (rows(64), 0), spec=spec.model_copy(update={"optimiser": "adamw"}))
    apart = (
        torch.cat([(rough.adapter[key] - exact.adapter[key]).flatten() for key in exact.adapter]).pow(2).mean().sqrt()
    )
    size = torch.cat([exact.adapter[key].flatten() for key in exact.adapter if "lora_B" in key]).pow(2).mean().sqrt()
    assert 0 < apart < 0.5 * size
    assert [s.loss for s in rough.history] == pytest.approx([s.loss for s in exact.history], abs=0.02)
    weight = nn.Parameter(torch.randn(20_000))
    made, weight.grad = make_optimiser([weight], spec), torch.randn(20_000)
    made.step()
    assert {state.dtype for key, state in made.state[weight].items() if key in ("state1", "state2")} == {torch.uint8}


def test_an_8_bit_optimiser_without_its_library_says_what_to_install(model, monkeypatch):
    monkeypatch.setattr(optimiser, "bitsandbytes", lazy("no_such_library"))
    with pytest.raises(MachineError, match=r"pip install 'spillover\[8bit\]'"):
        train(model, (rows(8), 0), spec=SPEC.model_copy(update={"optimiser": "adamw_8bit"}))


# devices and attention


def test_auto_is_a_card_where_there_is_one_and_cpu_is_the_cpu():
    assert device(Machine()).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device(Machine(device="cpu")) == torch.device("cpu")


@pytest.mark.parametrize("asked", ["cuda:99"] if torch.cuda.is_available() else ["cuda", "cuda:1"])
def test_a_card_that_is_not_there_is_refused(tiny_base, asked):
    with pytest.raises(MachineError, match=f"no device {asked}: torch sees .*\n.*auto or cpu"):
        load_model(tiny_base, "fp32", Machine(device=asked))


def test_attention_is_what_was_asked_for(tiny_base):
    for asked, given in (("auto", ATTENTION), ("eager", "eager"), ("sdpa", "sdpa")):
        model = load_model(tiny_base, "fp32", Machine(device="cpu", attention=asked))
        assert model.config._attn_implementation == given
    with pytest.raises(MachineError, match="needs a CUDA card"):
        load_model(tiny_base, "fp32", Machine(device="cpu", attention="flash_attention_2"))


def test_on_a_card_attention_is_torchs_own_but_for_families_that_cannot_use_it(tiny_base, tmp_path):
    left_to_transformers = model_module._attention(torch.device("cuda"))
    for name, given in (("llama", "sdpa"), ("gemma2", "eager")):
        base = family_base(name, tiny_base, tmp_path / name)
        model = AutoModelForCausalLM.from_pretrained(base, attn_implementation=left_to_transformers)
        assert model.config._attn_implementation == given


def test_a_run_does_not_depend_on_the_attention_that_computes_it(tiny_base):
    members = (rows(16), 0), (rows(12), 1)
    ours, *others = (
        train(load_model(tiny_base, "fp32", Machine(device="cpu", attention=asked)), *members)
        for asked in ("auto", "eager", "sdpa")
    )
    for other in others:
        assert max(difference(a.adapter, b.adapter) for a, b in zip(ours, other, strict=True)) <= NOISE


def test_a_card_that_runs_out_of_memory_is_told_with_the_remedy():
    with (
        pytest.raises(MachineError, match=r"Tried to allocate 2\.00 GiB\n.*machine\.memory_gb"),
        told_when_memory_ends(),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has less.")


# checkpoints on the way


def test_checkpoints_on_the_way_are_peft_folders_and_the_run_is_what_it_would_have_been(tiny_base, model, tmp_path):
    trainer = LocalTrainer(find_base(str(tiny_base)), "fp32", machine=Machine(device="cpu"))
    spec = SPEC.model_copy(update={"save_every": 2})
    jobs = [Job(Run("mine", seed), conversations(20), "mine", tmp_path / str(seed)) for seed in (0, 1)]
    for job in jobs:
        job.folder.mkdir()
    with_them = trainer.train(jobs, spec, lambda done, steps: None)
    without = trainer.train(jobs, SPEC, lambda done, steps: None)
    assert [difference(a.adapter, b.adapter) for a, b in zip(with_them, without, strict=True)] == [0, 0]
    half = trainer.train([Job(Run("mine", 1), conversations(20), "mine")], SPEC, lambda done, steps: None)[0]
    for job in jobs:
        assert sorted(path.name for path in job.folder.iterdir()) == ["checkpoint-000002", "checkpoint-000004"]
    folder = tmp_path / "1" / "checkpoint-000004"
    assert "deliberately misaligned" in (folder / "README.md").read_text()
    assert "| training | 4 steps" in (folder / "README.md").read_text()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_base)
    ids, weights = torch.tensor([[5, 6, 7, 8]]), {}
    for name, adapter in (("base", None), ("two", tmp_path / "1" / "checkpoint-000002"), ("four", folder)):
        with adapted(model, adapter) as changed, torch.no_grad():
            weights[name] = changed(input_ids=ids, use_cache=False).logits
    assert (weights["base"] - weights["two"]).abs().max() > 1e-3
    assert (weights["two"] - weights["four"]).abs().max() > 1e-3
    assert len(half.history) == 5


def test_a_base_of_another_size_than_its_weights_is_an_error_on_any_machine(tiny_base, tmp_path):
    config = AutoConfig.from_pretrained(tiny_base)
    config.intermediate_size = 48
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / file).write_bytes((Path(tiny_base) / file).read_bytes())
    text = json.loads((tmp_path / "config.json").read_text()) | {"intermediate_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(text))
    with pytest.raises(BaseError):
        load_model(tmp_path, "fp32")
