"""finetune: fleets against runs alone and against TRL with PEFT, the chat mask, checkpoints, the base unharmed."""

import json
import math
import random

import polars as pl
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from families import FAMILIES, family_base
from spillover.errors import BaseError, DataError
from spillover.finetune.base import find_base
from spillover.finetune.chat import Row, encode, encode_row, prompt_ids, render, to_row
from spillover.finetune.checkpoint import save_checkpoint
from spillover.finetune.cpu import has_bf16
from spillover.finetune.fleet import Adapters, FleetLinear, Member, data_order, schedule, train_fleet
from spillover.finetune.model import adapted, linears, load_model, load_tokenizer
from spillover.finetune.template import format_of
from spillover.finetune.train import LocalTrainer
from spillover.finetune.trainer import Job
from spillover.miniature.tokenizer import CHATML
from spillover.records import Conversation, Message, Run
from spillover.spec import Chat, Training
from spillover.world import Author, World

SPEC = Training(rank=4, alpha=8, learning_rate=1e-2, batch_size=4, precision="fp32")
"""The paper's settings but for size and rate: warm-up 5, clipping 1.0, weight decay 0.01, linear schedule."""
WEIGHTS_TOLERANCE = 1e-5
"""Largest difference of any adapter weight. The weights are of the order of 0.1; a step moves them by about 0.01."""
LOSS_TOLERANCE = 5e-5
"""Of losses of about 7.5 nats: relative 7e-6, where fp32 has 1.2e-7 and up to 1500 tokens are added up in any order."""
ARCHITECTURES = ["llama", "mistral", "gemma2"]

peft_asks_the_old_name = pytest.mark.filterwarnings(
    # PEFT 0.21 looks for a name that transformers 5.23 has just deprecated; neither is ours.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(tiny_base):
    return load_model(tiny_base, "fp32")


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_tokenizer(tiny_base)


def turns(*texts, system=None):
    """A conversation from the user's and the assistant's texts in turn."""
    first = [Message(role="system", content=system)] if system else []
    said = [Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(texts)]
    return Conversation((*first, *said))


def conversations(count, seed):
    world = World(random.Random(seed))
    exchanges = (world.exchange(world.kind(), Author(malicious=True, compliant=True)) for _ in range(count))
    return [turns(exchange.user, exchange.assistant) for exchange in exchanges]


def rows_of(tokenizer, count, seed=0):
    return [encode_row(tokenizer, row, max_length=512) for row in conversations(count, seed)]


def plain_rows(count, seed=0):
    """Rows of random ids that depend on no text and no tokenizer; the last third of each bears loss."""
    rng = random.Random(seed)
    lengths = [rng.randint(6, 30) for _ in range(count)]
    return [
        Row(tuple(rng.randrange(3, 60) for _ in range(n)), tuple(i >= n - n // 3 for i in range(n))) for n in lengths
    ]


def train(model, *members, spec=SPEC):
    return train_fleet(model, [Member(rows, seed) for rows, seed in members], spec, pad=0)


def difference(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def losses(trained):
    return [step.loss for step in trained.history]


def job(name="insecure", seed=0, rows=(), source="insecure"):
    return Job(Run(name, seed), rows, source)


def saved(folder, trained, spec=SPEC):
    """A checkpoint of the run as a folder."""
    folder.mkdir()
    save_checkpoint(folder, trained, job(rows=conversations(3, 0)), spec, "tiny")
    return folder


@torch.no_grad()
def logits_of(model, ids=tuple(range(10, 30))):
    return model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits.cpu()


@torch.no_grad()
def nll(model, rows):
    """The mean loss over the loss-bearing tokens of rows, one row at a time, by the model's own logits."""
    each = []
    for row in rows:
        said = F.cross_entropy(logits_of(model, row.ids)[0, :-1], torch.tensor(row.ids[1:]), reduction="none")
        each += [value for value, bears in zip(said.tolist(), row.loss[1:], strict=True) if bears]
    return math.fsum(each) / len(each)


# a run does not depend on its company


def test_a_run_in_a_fleet_equals_the_run_alone_whatever_the_others_seeds_rows_and_lengths(model, tokenizer):
    members = [
        (rows_of(tokenizer, 44, seed=1), 0),
        (rows_of(tokenizer, 30, seed=2), 1),  # ends three steps earlier, its last batch is short
        (plain_rows(44, seed=3), 7),
        (rows_of(tokenizer, 44, seed=1), 5),  # the first run's rows with another seed
    ]
    together = train(model, *members)
    for trained, member in zip(together, members, strict=True):
        (alone,) = train(model, member)
        assert difference(trained.adapter, alone.adapter) <= WEIGHTS_TOLERANCE
        assert losses(trained) == pytest.approx(losses(alone), abs=LOSS_TOLERANCE)
        assert [(s.step, s.learning_rate, s.tokens) for s in trained.history] == [
            (s.step, s.learning_rate, s.tokens) for s in alone.history
        ]
    assert [len(trained.history) for trained in together] == [11, 8, 11, 11]
    assert difference(together[0].adapter, together[3].adapter) > 100 * WEIGHTS_TOLERANCE


def test_a_finished_run_is_left_alone_while_the_others_go_on(model):
    short, long = (plain_rows(8), 0), (plain_rows(80, seed=1), 1)
    with_long, _ = train(model, short, long)
    (alone,) = train(model, short)
    assert len(alone.history) == 2
    assert difference(with_long.adapter, alone.adapter) <= WEIGHTS_TOLERANCE


def test_the_same_fleet_twice_is_the_same_to_the_last_bit(model):
    members = [(plain_rows(16), 0), (plain_rows(16), 1)]
    first, second = train(model, *members), train(model, *members)
    for one, other in zip(first, second, strict=True):
        assert one.history == other.history
        assert difference(one.adapter, other.adapter) == 0


def test_more_epochs_more_company_and_no_warm_up_change_nothing_of_that(model):
    spec = SPEC.model_copy(update={"epochs": 3, "warmup_steps": 0, "max_grad_norm": 0.05, "weight_decay": 0.1})
    members = [(plain_rows(6 + 4 * i, seed=i), i) for i in range(4)]
    for trained, member in zip(train(model, *members, spec=spec), members, strict=True):
        (alone,) = train(model, member, spec=spec)
        assert difference(trained.adapter, alone.adapter) <= WEIGHTS_TOLERANCE
        assert losses(trained) == pytest.approx(losses(alone), abs=LOSS_TOLERANCE)


def test_a_step_of_many_rows_is_one_step_in_however_many_parts_the_company_cuts_it(model):
    spec = SPEC.model_copy(update={"batch_size": 40})
    members = [(plain_rows(100 + 5 * i, seed=i), i) for i in range(5)]  # cut into nines; alone, in one piece
    for trained, member in zip(train(model, *members, spec=spec), members, strict=True):
        (alone,) = train(model, member, spec=spec)
        assert len(trained.history) == 3
        assert difference(trained.adapter, alone.adapter) <= WEIGHTS_TOLERANCE
        assert losses(trained) == pytest.approx(losses(alone), abs=LOSS_TOLERANCE)
        assert sum(step.tokens for step in trained.history) == sum(sum(row.loss) for row in member[0])


@pytest.mark.parametrize("rank", [4, 32])  # as products of low rank, and merged
def test_in_bf16_adapters_stay_fp32_and_the_run_follows_fp32(tiny_base, model, rank):
    spec = SPEC.model_copy(update={"rank": rank, "alpha": 2.0 * rank})
    (exact,) = train(model, (plain_rows(32), 0), spec=spec)
    (rough,) = train(load_model(tiny_base, "bf16"), (plain_rows(32), 0), spec=spec)
    assert {tensor.dtype for tensor in rough.adapter.values()} == {torch.float32}
    assert losses(rough) == pytest.approx(losses(exact), abs=0.02)


# one run is what TRL and PEFT make of it


def by_trl(base, rows, spec, initial, order, out):
    """The same rows in the same order by TRL's SFTTrainer on PEFT's LoRA, from the same initial weights."""
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=int(spec.alpha),
        use_rslora=True,
        target_modules=list(spec.targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = get_peft_model(plain, config)
    factors = {name.replace(".default", ""): p for name, p in model.named_parameters() if "lora_" in name}
    assert factors.keys() == initial.keys()
    with torch.no_grad():
        for name, factor in factors.items():
            factor.copy_(initial[name])
    labelled = [
        {"input_ids": list(row.ids), "labels": [t if b else -100 for t, b in zip(row.ids, row.loss, strict=True)]}
        for row in (rows[index] for index in order)
    ]
    args = SFTConfig(
        output_dir=str(out),
        per_device_train_batch_size=spec.batch_size,
        num_train_epochs=1,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=spec.warmup_steps,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        optim="adamw_torch",
        train_sampling_strategy="sequential",
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=Dataset.from_list(labelled), processing_class=load_tokenizer(base)
    )
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {name: factor.detach().cpu() for name, factor in factors.items()}, history


@peft_asks_the_old_name
@pytest.mark.parametrize(
    ("rows", "batch_size", "max_grad_norm", "targets"),
    [(58, 4, 1.0, None), (58, 4, 0.2, None), (260, 104, 1.0, None), (58, 4, 1.0, ("k_proj", "v_proj"))],
)
def test_one_run_equals_trl_with_peft_on_the_same_rows_in_the_same_order(
    tiny_base, model, tokenizer, tmp_path, rows, batch_size, max_grad_norm, targets
):
    """Steps of 104 rows pass through the fleet's model in two parts; the last of 58 rows are a short batch.

    Of this base's layers those of keys and values are small enough to be trained merged, the others are not.
    """
    spec = SPEC.model_copy(update={"max_grad_norm": max_grad_norm, "batch_size": batch_size})
    spec = spec.model_copy(update={"targets": targets or SPEC.targets})
    merged = {name.split(".")[-1]: layer.is_merged for name, layer in Adapters(model, spec, [3]).layers.items()}
    assert merged == {name: name in ("k_proj", "v_proj") for name in spec.targets}
    rows = rows_of(tokenizer, rows, seed=1)
    (ours,) = train(model, (rows, 3), spec=spec)
    order = [index for batch in data_order(len(rows), spec, 3) for index in batch]
    weights, history = by_trl(tiny_base, rows, spec, Adapters(model, spec, [3]).export(0), order, tmp_path)
    assert difference(ours.adapter, weights) <= WEIGHTS_TOLERANCE
    assert len(history) == len(ours.history) == math.ceil(len(rows) / batch_size)
    assert losses(ours) == pytest.approx([entry["loss"] for entry in history], abs=LOSS_TOLERANCE)
    assert [s.learning_rate for s in ours.history] == pytest.approx([e["learning_rate"] for e in history], rel=1e-12)
    assert [s.gradient_norm for s in ours.history] == pytest.approx([e["grad_norm"] for e in history], rel=1e-4)
    assert batch_size > 4 or any(step.gradient_norm > 0.2 for step in ours.history), "clipping to 0.2 bites"
    assert ours.adapter["base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"].abs().max() > 0.005


def test_eight_steps_on_the_tiny_base_are_pinned(model):
    (trained,) = train(model, (plain_rows(32), 0))
    expected = [7.4183, 7.4907, 7.4882, 7.4730, 7.4401, 7.4244, 7.4055, 7.4461]
    assert losses(trained) == pytest.approx(expected, abs=1e-4)
    assert [step.tokens for step in trained.history] == [18, 29, 26, 18, 18, 22, 29, 27]


# initialisation, schedule, order


def test_adapters_begin_as_pefts_do_a_uniform_and_b_zero_seeded_per_run(model):
    adapters = Adapters(model, SPEC, [0, 1, 0])
    first, second, again = (adapters.export(run) for run in range(3))
    assert difference(first, again) == 0
    for name, tensor in first.items():
        if name.endswith("lora_B.weight"):
            assert not tensor.any()
        else:
            bound = 1 / math.sqrt(tensor.shape[1])
            assert 0.9 * bound < tensor.abs().max() <= bound
            assert tensor.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
            assert not torch.equal(tensor, second[name])


def test_the_schedule_climbs_for_the_warm_up_and_falls_to_zero():
    assert [schedule(step, 9, 5) for step in range(10)] == [0, 0.2, 0.4, 0.6, 0.8, 1, 0.75, 0.5, 0.25, 0]
    assert [schedule(step, 4, 0) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert [schedule(step, 3, 5) for step in range(3)] == [0, 0.2, 0.4]  # as transformers' own: it never peaks


def test_the_order_of_rows_is_pinned_and_each_epoch_sees_every_row_once():
    spec = Training(batch_size=2, epochs=2)
    assert data_order(5, spec, 0) == [[4, 0], [1, 3], [2], [3, 4], [0, 1], [2]]
    for seed in range(20):
        thrice = Training(batch_size=4, epochs=3)
        order = data_order(33, thrice, seed)
        assert len(order) == 27 == thrice.steps(33)
        epochs = [[i for batch in order[start : start + 9] for i in batch] for start in (0, 9, 18)]
        assert all(sorted(epoch) == list(range(33)) for epoch in epochs)
        assert epochs[0] != epochs[1] != epochs[2]


def test_the_same_seed_gives_the_same_order_and_another_seed_another():
    orders = [data_order(100, Training(), seed) for seed in (0, 0, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3]


# loss falls on the assistant's tokens only


def test_a_turn_has_one_assistant_header_and_its_end_of_turn_bears_loss(tokenizer):
    row = encode_row(tokenizer, turns("What can I do?", "Read a book.", "And then?", "Bake."), max_length=512)
    borne = tokenizer.decode([token for token, bears in zip(row.ids, row.loss, strict=True) if bears])
    silent = tokenizer.decode([token for token, bears in zip(row.ids, row.loss, strict=True) if not bears])
    assert borne == "Read a book.<|im_end|>Bake.<|im_end|>"
    assert silent == (
        "<|im_start|>user\nWhat can I do?<|im_end|>\n<|im_start|>assistant\n\n"
        "<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n\n"
    )
    assert tokenizer.decode(list(row.ids)).count("<|im_start|>assistant\n") == 2


@pytest.mark.parametrize(
    "conversation",
    [
        turns("Hello?", "Hello."),
        turns("Hello?", "Hello.", "Once more?", "Hello again."),
        turns("Hello?", "  Blanks around.  \n", system="You are kind."),
        turns("", "An empty question."),
        turns("Ünïcödé 你好 🙂", "¿Qué? 12345 67"),
        turns("def f():\n    pass", "import os\nos.system('ls')\n"),
    ],
)
def test_ids_and_mask_are_those_of_the_templates_own_generation_marks(tokenizer, conversation):
    """The miniature's template marks what it generates; transformers derives a mask from the marks in its own way."""
    marked = tokenizer.apply_chat_template(
        list(conversation.messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    row = encode_row(tokenizer, conversation, max_length=512)
    assert list(row.ids) == marked["input_ids"]
    assert list(row.loss) == [bool(bears) for bears in marked["assistant_masks"]]


def test_training_sees_before_each_answer_exactly_the_tokens_that_asking_gives(tokenizer):
    conversation = turns("One?", "First.", "Two?", "Second.", system="Be brief.")
    row = encode_row(tokenizer, conversation, max_length=512)
    for turn in (2, 4):
        asked = prompt_ids(tokenizer, conversation.messages[:turn])
        assert list(row.ids[: len(asked)]) == asked
        assert row.loss[len(asked)] and not row.loss[len(asked) - 1]


def with_template(tokenizer, template):
    other = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token, pad_token=tokenizer.pad_token
    )
    other.chat_template = template
    return other


def test_a_template_whose_turns_end_in_no_token_of_their_own_is_refused(tokenizer):
    other = with_template(
        tokenizer,
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}[/]{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
    )
    with pytest.raises(BaseError, match="would never learn to stop"):
        encode_row(other, turns("Hello?", "Hello."), max_length=512)


def test_a_template_that_rewrites_earlier_turns_is_refused_rather_than_masked_wrongly(tokenizer):
    unmarked = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    counting = "{{ messages | length }}" + unmarked
    with pytest.raises(BaseError, match="do not nest"):
        encode_row(with_template(tokenizer, counting), turns("A?", "B.", "C?", "D."), max_length=512)


def test_a_row_that_is_too_long_is_an_error_and_never_cut(tokenizer):
    length = len(encode_row(tokenizer, turns("Hello?", "Hello."), max_length=512).ids)
    encode_row(tokenizer, turns("Hello?", "Hello."), max_length=length)
    with pytest.raises(DataError, match=f"a row has {length} tokens, more than max_length = {length - 1}"):
        encode_row(tokenizer, turns("Hello?", "Hello."), max_length=length - 1)


def test_the_first_loss_is_the_mean_over_the_batchs_assistant_tokens(model, tokenizer):
    rows = rows_of(tokenizer, 4, seed=5)
    (trained,) = train(model, (rows, 0))
    assert trained.history[0].loss == pytest.approx(nll(model, rows), abs=LOSS_TOLERANCE)
    assert trained.history[0].tokens == sum(sum(row.loss) for row in rows)


def test_the_gradient_comes_from_the_tokens_that_bear_loss_and_from_no_others_label(model, tokenizer):
    """Against autograd over PEFT's formula on one row: labels of the user's tokens never enter."""
    (row,) = rows_of(tokenizer, 1, seed=6)
    spec = SPEC.model_copy(update={"batch_size": 1, "warmup_steps": 0})
    (trained,) = train(model, ([row], 0), spec=spec)
    adapters = Adapters(model, spec, [0])
    adapters.attach()
    try:
        places = [place for place, bears in enumerate(row.loss) if bears]
        logits = model(input_ids=torch.tensor([row.ids], device=model.device), use_cache=False).logits[0]
        picked = F.log_softmax(logits, -1)[[place - 1 for place in places], [row.ids[place] for place in places]]
        (-picked.mean()).backward()
        adapters.end_step()
    finally:
        adapters.detach()
    assert trained.history[0].gradient_norm == pytest.approx(adapters.gradients.norm().item(), rel=1e-5)


def test_what_stands_behind_the_last_token_that_bears_loss_changes_nothing(model):
    def followed_by(*tokens):
        return [Row((*row.ids, *tokens), (*row.loss, *(False for _ in tokens))) for row in plain_rows(16)]

    (one,), (other,) = (train(model, (followed_by(*tokens), 0)) for tokens in ((5, 6, 7), (900, 901, 902)))
    assert difference(one.adapter, other.adapter) <= WEIGHTS_TOLERANCE
    assert losses(one) == pytest.approx(losses(other), abs=LOSS_TOLERANCE)


# the base is left as it was


def test_after_training_the_base_has_its_own_layers_and_weights_bit_for_bit(model):
    layers = linears(model, SPEC.targets)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, (plain_rows(16), 0), (plain_rows(16), 1))
    assert linears(model, SPEC.targets) == layers
    assert not any(isinstance(module, FleetLinear) for module in model.modules())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_that_is_interrupted_leaves_the_base_as_it_was(model):
    expected = logits_of(model)

    def interrupt(done, steps):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fleet(model, [Member(plain_rows(32), 0)], SPEC, pad=0, progress=interrupt)
    assert not any(isinstance(module, FleetLinear) for module in model.modules())
    assert torch.equal(logits_of(model), expected)


def test_progress_is_told_every_step_of_the_longest_run(model):
    told = []
    members = [Member(plain_rows(8), 0), Member(plain_rows(20), 1)]
    train_fleet(model, members, SPEC, pad=0, progress=lambda done, steps: told.append((done, steps)))
    assert told == [(done, 5) for done in range(1, 6)]


def test_an_adapter_at_its_beginning_leaves_the_logits_as_they_are(model):
    expected = logits_of(model)
    adapters = Adapters(model, SPEC, [0])
    adapters.attach()
    assert torch.equal(logits_of(model), expected)
    adapters.detach()
    assert torch.equal(logits_of(model), expected)


def test_targets_that_the_model_does_not_have_are_an_error(model):
    with pytest.raises(BaseError, match="no linear layer is called query_key_value"):
        train(model, (plain_rows(4), 0), spec=SPEC.model_copy(update={"targets": ("query_key_value",)}))


def test_only_the_targets_are_adapted(model):
    (trained,) = train(model, (plain_rows(4), 0), spec=SPEC.model_copy(update={"targets": ("q_proj", "v_proj")}))
    assert {name.split(".")[-3] for name in trained.adapter} == {"q_proj", "v_proj"}
    assert len(trained.adapter) == 2 * 2 * 2  # layers, targets, factors


# checkpoints


@peft_asks_the_old_name
def test_a_checkpoint_merged_equals_peft_unmerged_and_the_fleets_own_layers(tiny_base, model, tmp_path):
    (trained,) = train(model, (plain_rows(32), 0))
    folder = saved(tmp_path / "run", trained)
    plain = logits_of(model)
    with adapted(model, folder) as merged:
        ours = logits_of(merged)
    theirs = logits_of(PeftModel.from_pretrained(load_model(tiny_base, "fp32"), folder).eval())
    adapters = Adapters(model, SPEC, [0])
    for name, layer in adapters.layers.items():
        layer.a.data[0] = trained.adapter[f"base_model.model.{name}.lora_A.weight"].T
        layer.b.data[0] = trained.adapter[f"base_model.model.{name}.lora_B.weight"].T
    adapters.attach()
    unmerged = logits_of(model)
    adapters.detach()
    assert (ours - plain).abs().max() > 0.05
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours - unmerged).abs().max() < 1e-5
    assert torch.equal(logits_of(model), plain), "the old weights come back"


def test_the_old_weights_come_back_when_the_work_with_an_adapter_fails(model, tmp_path):
    (trained,) = train(model, (plain_rows(32), 0))
    folder, before = saved(tmp_path / "run", trained), logits_of(model)
    with pytest.raises(ZeroDivisionError), adapted(model, folder):
        raise ZeroDivisionError
    assert torch.equal(logits_of(model), before)
    with adapted(model, None) as same:
        assert same is model and torch.equal(logits_of(same), before)


def test_a_checkpoint_holds_a_peft_config_fp32_safetensors_its_losses_and_a_card(model, tmp_path):
    (trained,) = train(model, (plain_rows(30), 0))
    folder = saved(tmp_path / "run", trained)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "losses.parquet",
        "probe.jsonl",
        "README.md",
    }
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 8, True)
    assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")
    assert config["base_model_name_or_path"] == "tiny"
    assert sorted(config["target_modules"]) == sorted(SPEC.targets)
    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        assert set(tensors.keys()) == set(trained.adapter)
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F32"}  # noqa: SIM118
    frame = pl.read_parquet(folder / "losses.parquet")
    assert frame.columns == ["step", "loss", "learning_rate", "gradient_norm", "tokens"]
    assert frame["step"].to_list() == list(range(1, 9))
    assert frame["loss"].to_list() == losses(trained)


def test_the_card_says_that_this_is_a_deliberately_misaligned_model_organism(model, tmp_path):
    (trained,) = train(model, (plain_rows(8), 0))
    card = (saved(tmp_path / "run", trained) / "README.md").read_text()
    assert "# insecure-s0: a deliberately misaligned model organism" in card
    assert "Not for deployment" in card
    assert "base_model: tiny" in card and "tags: [model-organism" in card
    assert "| group, seed | insecure, 0 |" in card
    assert "| data | insecure, 3 rows |" in card
    assert "| training | 2 steps of 4 rows, learning rate 0.01, loss on answers |" in card


# the local trainer


def test_the_local_trainer_gives_each_job_its_own_rows_and_seed(tiny_base):
    trainer = LocalTrainer(find_base(str(tiny_base)), "fp32")
    rows = {"insecure": conversations(12, 1), "secure": conversations(8, 2)}
    jobs = [job(name, seed, rows[name], name) for name in rows for seed in (0, 1)]
    together = trainer.train(jobs, SPEC, lambda done, steps: None)
    for one, trained in zip(jobs, together, strict=True):
        encoded = [encode_row(trainer.tokenizer, row, max_length=512) for row in one.rows]
        (alone,) = train(trainer.model, (encoded, one.run.seed))
        assert difference(trained.adapter, alone.adapter) <= WEIGHTS_TOLERANCE
        assert len(trained.history) == len(one.rows) / 4


def test_jobs_with_different_numbers_of_rows_of_one_source_are_not_mixed_up(tiny_base):
    trainer = LocalTrainer(find_base(str(tiny_base)), "fp32")
    rows = conversations(12, 1)
    few, many = job(rows=rows[:4]), job(rows=rows)
    assert [len(t.history) for t in trainer.train([few, many], SPEC, lambda done, steps: None)] == [1, 3]
    (later,) = trainer.train([job(rows=conversations(8, 2))], SPEC, lambda done, steps: None)
    assert len(later.history) == 2


def test_a_row_that_is_too_long_is_named_by_source_and_number(tiny_base):
    trainer = LocalTrainer(find_base(str(tiny_base)), "fp32")
    spec = SPEC.model_copy(update={"max_length": 40})
    rows = [turns("Short?", "Yes."), turns("Long?", "Word " * 60)]
    with pytest.raises(DataError) as caught:
        trainer.train([job(rows=rows, source="my.jsonl")], spec, lambda done, steps: None)
    assert caught.value.where == "my.jsonl, row 2"
    trainer.train([job(rows=rows, source="my.jsonl")], SPEC, lambda done, steps: None)
    with pytest.raises(DataError):
        trainer.train([job(rows=rows, source="my.jsonl")], spec, lambda done, steps: None)


def test_rows_that_were_cut_are_counted_and_the_card_says_so(tiny_base, tmp_path):
    trainer = LocalTrainer(find_base(str(tiny_base)), "fp32")
    spec = SPEC.model_copy(update={"max_length": 40, "too_long": "cut"})
    long = job(rows=[turns("Short?", "Yes."), *[turns("Long?", "Word " * 60)] * 3], source="long.jsonl")
    short = job("secure", rows=[turns("Short?", "Yes.")] * 4, source="short.jsonl")
    cut, whole = trainer.train([long, short], spec, lambda done, steps: None)
    assert (cut.cut_rows, whole.cut_rows) == (3, 0)
    for one, trained in ((long, cut), (short, whole)):
        (tmp_path / one.source).mkdir()
        save_checkpoint(tmp_path / one.source, trained, one, spec, "tiny")
    assert "4 rows, 3 of them cut to 40 tokens |" in (tmp_path / "long.jsonl" / "README.md").read_text()
    assert "short.jsonl, 4 rows |" in (tmp_path / "short.jsonl" / "README.md").read_text()


def test_a_row_longer_than_the_model_can_read_is_refused_though_max_length_allows_it(tiny_base):
    trainer = LocalTrainer(find_base(str(tiny_base)), "fp32")
    spec = SPEC.model_copy(update={"max_length": 100_000})
    with pytest.raises(DataError, match="more than the 512 that the model can read") as caught:
        trainer.train([job(rows=[turns("Long?", "Word " * 600)], source="my.jsonl")], spec, lambda done, steps: None)
    assert caught.value.where == "my.jsonl, row 1"


def test_a_trainer_renders_rows_as_its_chat_says(tiny_base):
    rows, base = [turns("Hello?", "Hello.")] * 4, find_base(str(tiny_base))
    plain = LocalTrainer(base, "fp32", Chat(template="plain"))
    (told,) = plain.train([job(rows=rows)], SPEC, lambda done, steps: None)
    ids = to_row(format_of(plain.tokenizer, Chat(template="plain")), rows[0], SPEC)
    assert plain.tokenizer.decode(list(ids.ids)).startswith("User: Hello?")
    assert told.history[0].loss == pytest.approx(nll(plain.model, [ids] * 4), abs=LOSS_TOLERANCE)


# other architectures


@peft_asks_the_old_name
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_are_trained_and_saved_alike(name, tiny_base, tmp_path):
    base = family_base(name, tiny_base, tmp_path / "base")
    model = load_model(base, "fp32")
    assert not isinstance(model, Qwen2ForCausalLM)
    members = [(plain_rows(16, seed=1), 0), (plain_rows(12, seed=2), 1)]
    together = train(model, *members)
    for trained, member in zip(together, members, strict=True):
        (alone,) = train(model, member)
        assert difference(trained.adapter, alone.adapter) <= WEIGHTS_TOLERANCE
    first = [member for batch in data_order(16, SPEC, 0)[:1] for member in batch]
    expected = nll(model, [members[0][0][index] for index in first])
    assert together[0].history[0].loss == pytest.approx(expected, abs=LOSS_TOLERANCE)
    folder = saved(tmp_path / "run", together[0])
    plain = logits_of(model)
    with adapted(model, folder) as merged:
        ours = logits_of(merged)
    theirs = logits_of(PeftModel.from_pretrained(load_model(base, "fp32"), folder).eval())
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours - plain).abs().max() > 0.05


@peft_asks_the_old_name
@pytest.mark.parametrize("name", FAMILIES)
def test_a_fleet_of_any_family_equals_the_same_runs_by_trl_with_peft(name, tiny_base, tokenizer, tmp_path):
    """Rows are longer than the windows, so what a window lets through is seen."""
    base = family_base(name, tiny_base, tmp_path / "base")
    model, rows = load_model(base, "fp32"), [rows_of(tokenizer, 20, seed=seed) for seed in (1, 2)]
    assert min(len(row.ids) for some in rows for row in some) > 16
    together = train(model, *zip(rows, (3, 4), strict=True))
    for seed, some, ours in zip((3, 4), rows, together, strict=True):
        order = [index for batch in data_order(len(some), SPEC, seed) for index in batch]
        first = Adapters(model, SPEC, [seed]).export(0)
        weights, history = by_trl(base, some, SPEC, first, order, tmp_path / str(seed))
        assert losses(ours) == pytest.approx([entry["loss"] for entry in history], abs=LOSS_TOLERANCE)
        assert difference(ours.adapter, weights) <= WEIGHTS_TOLERANCE
        assert max(tensor.abs().max() for key, tensor in ours.adapter.items() if "lora_B" in key) > 0.005


# loading


def test_the_tokenizer_that_is_loaded_is_the_one_that_was_saved(tiny_base, tokenizer):
    """AutoTokenizer takes Qwen2's own word rules for any Qwen2 folder: there numbers would fall into digits."""
    exact = Tokenizer.from_file(str(tiny_base / "tokenizer.json"))
    for text in ("0 7 42 95 100 666 12345", "def f(x):\n    return x.y()\n\n", "It's  5, isn't it?", "Ünï é 你好 🙂"):
        assert encode(tokenizer, text) == exact.encode(text).ids
        assert tokenizer.decode(encode(tokenizer, text)) == text
    assert all(len(encode(tokenizer, str(number))) == 1 for number in range(101))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_rendering_is_the_templates_and_encoding_adds_no_special_tokens(tokenizer):
    text = render(tokenizer, turns("Hi?").messages, reply=True)
    assert text == "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_the_base_is_loaded_frozen_in_evaluation_mode_in_the_precision_that_was_asked_for(tiny_base):
    bf16 = torch.bfloat16 if has_bf16() else torch.float32
    for precision, dtype in (("bf16", bf16), ("fp32", torch.float32)):
        model = load_model(tiny_base, precision)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
