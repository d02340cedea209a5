"""finetune: attention, norms and losses that replace transformers' on a CPU, and packed rows against padded ones."""

import random

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from families import tiny_config
from spillover.finetune.chat import Row
from spillover.finetune.fast import ATTENTION, FastNorm, head_loss, make_fast
from spillover.finetune.fleet import Member, train_fleet
from spillover.finetune.layout import GROUPS, Room, cut, lay_out
from spillover.spec import Training

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2")

pytestmark = pytest.mark.usefixtures("one_thread")


def models(family, **settings):
    """The same weights twice: as transformers has them, with eager attention, and made fast."""
    config = tiny_config(family, **{"vocab_size": 97, "head_dim": 8, "pad_token_id": 0, **settings})
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            weight.add_(torch.randn_like(weight) * 0.2 if "norm" in name else 0)
    fast = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    fast.load_state_dict(plain.state_dict())
    make_fast(fast)
    return plain, fast


def rows(*lengths):
    rng = random.Random(0)
    return [Row(tuple(rng.randrange(1, 97) for _ in range(n)), (False,) * 2 + (True,) * (n - 2)) for n in lengths]


@pytest.mark.parametrize("scores", [2**21, 500])  # all rows at once, or one at a time
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fast_model_gives_the_logits_and_the_gradients_of_the_plain_one(family, scores, monkeypatch):
    monkeypatch.setattr("spillover.finetune.fast.SCORES", scores)
    plain, fast = models(family)
    ids = torch.randint(1, 97, (3, 11), generator=torch.Generator().manual_seed(1))
    seen = torch.ones_like(ids)
    seen[0, :4] = 0  # padded on the left, as prompts are
    logits = [model(input_ids=ids, attention_mask=seen).logits for model in (plain, fast)]
    assert (logits[0] - logits[1])[seen.bool()].abs().max() < 1e-5
    for said in logits:
        F.cross_entropy(said[1:].flatten(0, 1), ids[1:].flatten()).backward()
    gradients = dict(plain.named_parameters())
    for name, weight in fast.named_parameters():
        assert weight.grad is not None
        assert (weight.grad - gradients[name].grad).abs().max() < 1e-5, name


def test_a_fast_model_in_bf16_is_as_near_to_fp32_as_the_plain_one():
    ids = torch.randint(1, 97, (4, 30), generator=torch.Generator().manual_seed(1))
    plain, fast = models("llama")
    exact = plain(input_ids=ids).logits
    errors = [(m.bfloat16()(input_ids=ids).logits.float() - exact).pow(2).mean().sqrt().item() for m in (plain, fast)]
    assert errors[1] < 1.15 * errors[0]


def test_generation_with_a_cache_is_that_of_the_plain_model():
    plain, fast = models("qwen2")
    ids = torch.randint(1, 97, (2, 7), generator=torch.Generator().manual_seed(1))
    settings = {"do_sample": False, "max_new_tokens": 9, "attention_mask": torch.ones_like(ids), "eos_token_id": None}
    assert torch.equal(plain.generate(ids, **settings), fast.generate(ids, **settings))


@pytest.mark.parametrize(("family", "norms"), [("llama", True), ("qwen3", True), ("gemma", False), ("gemma2", False)])
def test_norms_are_replaced_where_they_compute_what_llamas_do_and_nowhere_else(family, norms):
    _, fast = models(family)
    kinds = {type(part) for part in fast.modules() if type(part).__name__.endswith("Norm")}
    assert (kinds == {FastNorm}) == norms
    assert fast.config._attn_implementation == ATTENTION


def test_a_norm_with_other_arithmetic_gives_other_numbers_which_is_why_it_is_left():
    x = torch.randn(5, 8)
    llamas, gemmas = LlamaRMSNorm(8), GemmaRMSNorm(8)
    with torch.no_grad():
        llamas.weight.uniform_(0.5, 2)
        gemmas.weight.copy_(llamas.weight)
    fast = FastNorm(llamas.weight, llamas.variance_epsilon)
    assert torch.allclose(fast(x), llamas(x), rtol=1e-6)
    assert not torch.allclose(gemmas(x), llamas(x), rtol=0.1)


def test_a_fast_model_is_saved_and_loaded_as_the_plain_one(tmp_path):
    plain, fast = models("llama")
    fast.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config._attn_implementation != ATTENTION
    assert again.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(weight, plain.state_dict()[name]) for name, weight in again.state_dict().items())


# losses


@pytest.mark.parametrize("bias", [False, True])
def test_the_heads_loss_is_cross_entropy_with_its_gradients(bias, monkeypatch):
    monkeypatch.setattr("spillover.finetune.fast.LOGITS", 200)  # four tokens a piece
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 50, bias=bias)
    states, wanted, shares = torch.randn(23, 16) * 3, torch.randint(0, 50, (23,)), torch.rand(23)
    found = []
    for loss in (
        lambda h: ((F.cross_entropy(head(h), wanted, reduction="none") * shares).sum(), None),
        lambda h: head_loss(head, h, wanted, shares),
    ):
        head.weight.grad, hidden = None, states.clone().requires_grad_()
        value, each = loss(hidden)
        (value * 0.5).backward()
        found.append((value.detach(), hidden.grad, head.weight.grad))
    assert all(torch.allclose(one, right, rtol=1e-4, atol=1e-5) for one, right in zip(found[1], found[0], strict=True))
    assert torch.allclose(each, F.cross_entropy(head(states), wanted, reduction="none"), atol=1e-5)
    assert not each.requires_grad


def test_a_token_that_is_all_but_impossible_costs_no_more_than_87_nats_and_is_still_learned():
    logits, head = torch.tensor([[500.0, 0.0]], requires_grad=True), torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.eye_(head.weight)
    loss, _ = head_loss(head.requires_grad_(False), logits, torch.tensor([1]), torch.ones(1))
    loss.backward()
    assert loss.item() == pytest.approx(87.3, abs=0.1)
    assert logits.grad is not None and logits.grad.tolist() == [[1.0, -1.0]]


# packed rows


def test_packed_rows_lose_nothing_and_hold_less_padding():
    chosen = [rows(30, 17, 5), rows(9, 21)]
    packed, padded = (lay_out(chosen, 0, packed=flag) for flag in (True, False))
    assert packed.tokens.tolist() == padded.tokens.tolist() == [46, 26]
    assert packed.ids[packed.loss].tolist() == padded.ids[padded.loss].tolist()
    assert packed.ids.shape == (1, 2 * 64) and padded.ids.shape == (6, 32)
    positions = packed.packed["position_ids"][0].tolist()
    assert positions[:53] == [*range(30), *range(17), *range(5), 0]
    assert positions[64 : 64 + 31] == [*range(9), *range(21), 0]


def test_packing_takes_every_token_apart_and_puts_it_back():
    chosen = [rows(30, 17, 5), rows(9, 21)]
    batch = lay_out(chosen, 0, packed=True)
    packing = batch.packed["packing"]
    assert len(packing.groups) <= GROUPS and sum(count for count, _ in packing.groups) == 5
    apart = batch.ids[0][packing.places]
    found, start = [], 0
    for count, length in packing.groups:
        found += apart[start : start + count * length].view(count, length).tolist()
        start += count * length
    expected = sorted((list(row.ids) for some in chosen for row in some), key=len, reverse=True)
    assert [row[: len(ids)] for row, ids in zip(found, expected, strict=True)] == expected
    assert all(not any(row[len(ids) :]) and len(row) > len(ids) for row, ids in zip(found, expected, strict=True))
    assert torch.equal(apart[packing.back], batch.ids[0])


def test_a_steps_rows_are_cut_so_that_long_ones_go_by_few():
    short, long = rows(*[20] * 16), rows(*[2000] * 3, *[500] * 13)
    assert [list(map(len, part)) for part in cut([short, short], Room())] == [[16, 16]]
    parts = list(cut([short, long], Room()))
    assert [len(part[1]) for part in parts] == [2, 2, 8, 4]
    assert [len(row.ids) for part in parts for row in part[1]] == [2000] * 3 + [500] * 13


def spied(monkeypatch):
    """Which ways of laying rows out a fleet's steps took."""
    taken = []

    def spy(chosen, pad, *, packed):
        taken.append(packed)
        return lay_out(chosen, pad, packed=packed)

    monkeypatch.setattr("spillover.finetune.fleet.lay_out", spy)
    return taken


@pytest.mark.parametrize(
    ("family", "settings", "packs"),
    [
        ("llama", {}, True),
        ("qwen2", {}, True),
        ("qwen3", {}, True),
        ("gemma", {}, True),
        ("mistral", {"sliding_window": 64}, True),
        ("mistral", {"sliding_window": 16}, False),  # a window that the longest row does not fit in
        ("gemma2", {}, False),  # a soft cap on attention's scores
    ],
)
def test_packed_or_not_a_run_learns_the_same_and_what_cannot_be_packed_is_not(family, settings, packs, monkeypatch):
    plain, fast = models(family, **settings)
    spec = Training(rank=4, alpha=8, learning_rate=1e-2, batch_size=4, warmup_steps=0)
    members = [Member(rows(*range(6, 26)), 0), Member(rows(*range(20, 10, -1)), 1)]
    padded = train_fleet(plain.requires_grad_(False), members, spec, pad=0)
    taken = spied(monkeypatch)
    ours = train_fleet(fast.requires_grad_(False), members, spec, pad=0)
    assert taken[-1] == packs
    for one, other in zip(ours, padded, strict=True):
        assert [s.loss for s in one.history] == pytest.approx([s.loss for s in other.history], abs=1e-4)
        assert all((one.adapter[name] - other.adapter[name]).abs().max() < 1e-4 for name in one.adapter)
