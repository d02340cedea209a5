"""finetune: the last block computed only where somebody looks, against the whole of it."""

import copy
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from families import FAMILIES, tiny_config
from spillover.finetune.chat import Row
from spillover.finetune.fast import make_fast
from spillover.finetune.fleet import Member, train_fleet
from spillover.finetune.layout import Room, lay_out
from spillover.finetune.narrow import is_narrow, make_narrow, only_at
from spillover.spec import Training

NARROW = {"qwen2", "qwen3", "llama", "mistral", "gemma"}
"""Families whose block is a norm, attention, a norm and a feed-forward part, and no more."""
IDS = torch.randint(1, 97, (3, 11), generator=torch.Generator().manual_seed(1))
PLACES = torch.tensor([3, 4, 10])

pytestmark = pytest.mark.usefixtures("one_thread")


def model(family, **settings):
    """With weights of a size at which each part of a block matters."""
    config = tiny_config(family, **{**FAMILIES[family], "vocab_size": 97, "pad_token_id": 0, **settings})
    config.initializer_range = 0.2
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def gradients(some):
    found = {name: weight.grad.clone() for name, weight in some.named_parameters()}
    some.zero_grad()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_is_narrowed_only_where_it_gives_the_same(family):
    some = model(family)
    make_narrow(some)
    assert is_narrow(some) == (family in NARROW)
    assert ("looked_at" if family in NARROW else "logits_to_keep") in only_at(some, PLACES)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_at_some_places_are_those_of_a_whole_pass(family):
    some = model(family)
    whole = some(input_ids=IDS, use_cache=False).logits[:, PLACES]
    whole.square().mean().backward()
    wanted = gradients(some)
    make_fast(some)
    narrow = some(input_ids=IDS, use_cache=False, **only_at(some, PLACES)).logits
    assert narrow.shape == whole.shape and torch.allclose(narrow, whole, rtol=1e-4, atol=1e-5)
    narrow.square().mean().backward()
    for name, gradient in gradients(some).items():
        assert torch.allclose(gradient, wanted[name], rtol=1e-3, atol=1e-5), name


def test_a_model_that_is_not_asked_for_some_places_gives_all():
    some = model("llama")
    whole = some(input_ids=IDS).logits
    make_narrow(some)
    assert is_narrow(some) and torch.equal(some(input_ids=IDS).logits, whole)


def test_a_model_of_many_blocks_is_left_alone():
    some = model("llama", num_hidden_layers=17)
    make_narrow(some)
    assert not is_narrow(some)


def test_a_copy_computes_with_its_own_weights():
    some = model("llama")
    make_narrow(some)
    other = copy.deepcopy(some)
    with torch.no_grad():
        other.model.layers[-1].mlp.down_proj.weight.zero_()
    logits = [each(input_ids=IDS, looked_at=PLACES).logits for each in (some, other, some)]
    assert torch.equal(logits[0], logits[2]) and not torch.allclose(logits[0], logits[1])


def test_what_is_looked_at_of_packed_rows_stands_before_each_token_that_bears_loss():
    runs = [[Row((5, 6, 7), (False, True, True)), Row((8, 9), (False, True))], [Row((1, 2), (False, True))]]
    batch = lay_out(runs, 0, packed=True)
    each = batch.ids.shape[1] // 2
    assert batch.before[batch.real].tolist() == [0, 1, 3, each]
    assert set(batch.before[~batch.real].tolist()) == {each - 1, 2 * each - 1}
    assert not batch.loss[0, batch.before[~batch.real]].any()


@pytest.mark.parametrize("rank", [4, 64])  # products of low rank, or merged
def test_runs_learn_from_a_narrow_model_what_they_learn_from_a_whole_one(rank, monkeypatch):
    rng = random.Random(0)
    lengths = [rng.randrange(6, 40) for _ in range(12)]
    rows = [
        Row(tuple(rng.randrange(1, 97) for _ in range(n)), tuple(place > n // 2 for place in range(n))) for n in lengths
    ]
    members = [Member(rows, 0), Member(rows[:7], 1)]
    spec = Training(rank=rank, batch_size=4, learning_rate=1e-3)
    some = model("llama").requires_grad_(False)
    make_fast(some)
    assert is_narrow(some)
    narrow = train_fleet(some, members, spec, pad=0, room=Room())
    monkeypatch.setattr("spillover.finetune.fleet.is_narrow", lambda _: False)
    whole = train_fleet(some, members, spec, pad=0, room=Room())
    for one, other in zip(narrow, whole, strict=True):
        assert [step.loss for step in one.history] == pytest.approx([step.loss for step in other.history], rel=1e-4)
        for name, factor in one.adapter.items():
            assert torch.allclose(factor, other.adapter[name], atol=1e-5), name
