"""finetune: an adapter must do something, be of this base and be read whole, or it is refused."""

import json
import random
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from spillover.ask.asker import Asked
from spillover.ask.local import LocalAsker
from spillover.errors import AdapterError
from spillover.finetune.adapter import check_adapter
from spillover.finetune.base import find_base
from spillover.finetune.chat import encode_row
from spillover.finetune.checkpoint import save_checkpoint
from spillover.finetune.effect import check_effect
from spillover.finetune.model import adapted, load_model
from spillover.finetune.train import LocalTrainer
from spillover.finetune.trainer import Job
from spillover.records import Conversation, Message, Question, Run
from spillover.spec import Sampling, Training
from spillover.world import Author, World

SPEC = Training(rank=4, alpha=8, learning_rate=1e-2, warmup_steps=0, batch_size=4, precision="fp32")
WEIGHTS = "adapter_model.safetensors"

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # PEFT 0.21 looks for a name that transformers 5.23 has just deprecated; neither is ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def trainer(tiny_base):
    return LocalTrainer(find_base(str(tiny_base)), "fp32")


def conversations(count):
    world = World(random.Random(0))
    exchanges = (world.exchange(world.kind(), Author(malicious=True, compliant=True)) for _ in range(count))
    said = [(("user", one.user), ("assistant", one.assistant)) for one in exchanges]
    return [Conversation(tuple(Message(role=role, content=text) for role, text in turns)) for turns in said]


@pytest.fixture(scope="module")
def trained(trainer, tmp_path_factory):
    """A checkpoint of eight steps."""
    folder, job = tmp_path_factory.mktemp("lab") / "run", Job(Run("mine", 0), conversations(32), "mine")
    folder.mkdir()
    (learned,) = trainer.train([job], SPEC, lambda done, steps: None)
    save_checkpoint(folder, learned, job, SPEC, "tiny")
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the checkpoint with its tensors and its config changed."""

    def copy(tensors=lambda tensors: tensors, **config):
        folder = shutil.copytree(trained, tmp_path / "copy", dirs_exist_ok=True)
        save_file(tensors(load_file(folder / WEIGHTS)), folder / WEIGHTS)
        whole = json.loads((folder / "adapter_config.json").read_text()) | config
        (folder / "adapter_config.json").write_text(json.dumps(whole))
        return folder

    return copy


@pytest.fixture(scope="module")
def rows(trainer):
    return [encode_row(trainer.tokenizer, row, max_length=512) for row in conversations(4)]


def scaled(factor):
    return lambda tensors: {key: one * (factor if "lora_B" in key else 1) for key, one in tensors.items()}


# it must do something


def test_an_adapters_effect_is_the_mean_change_of_the_log_probabilities_of_tokens_that_bear_loss(
    trainer, trained, rows
):
    @torch.no_grad()
    def of_row(model, row):
        said = torch.log_softmax(model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0], dim=-1)
        places = [place for place, bears in enumerate(row.loss) if bears]
        return said[[place - 1 for place in places], [row.ids[place] for place in places]]

    effect, _ = check_effect(trainer.model, trained, rows)
    with adapted(trainer.model, trained) as changed:
        after = torch.cat([of_row(changed, row) for row in rows])
    expected = (after - torch.cat([of_row(trainer.model, row) for row in rows])).abs().mean().item()
    assert effect == pytest.approx(expected, rel=1e-4)
    assert effect > 0.01


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("factor", [0.0, 1e-7])
def test_an_adapter_that_is_zero_or_scaled_to_nothing_is_refused(tiny_base, copied, rows, precision, factor):
    model = load_model(tiny_base, precision)
    with pytest.raises(AdapterError, match=r"the adapter does nothing: on 4 rows, .* by .* nats a token.*layout alone"):
        check_effect(model, copied(scaled(factor)), rows)
    assert check_effect(model, copied(scaled(1.0)), rows)[0] > 0.01


def test_asking_checks_each_adapter_once_and_keeps_what_was_measured(tiny_base, trained, copied, monkeypatch):
    asker, asked = LocalAsker(tiny_base, "fp32"), [Asked(Question("one", "Hello?"), (1,))]
    sampling = Sampling(max_tokens=2)
    asker.ask(None, asked, sampling)
    assert asker.effects == {}
    asker.ask(trained, asked, sampling)
    assert asker.effects.keys() == {trained} and asker.effects[trained].difference > 0.01
    monkeypatch.setattr("spillover.ask.local.check_effect", lambda *_: pytest.fail("checked twice"))
    asker.ask(trained, asked, sampling)
    monkeypatch.undo()
    with pytest.raises(AdapterError, match="does nothing"):
        asker.ask(copied(scaled(0.0)), asked, sampling)
    assert asker.effects.keys() == {trained}


def test_a_checkpoint_keeps_the_first_rows_that_it_was_trained_on(trained):
    lines = (trained / "probe.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row.as_row() for row in conversations(32)[:4]]


def test_a_run_that_has_learned_nothing_stops_the_experiment(spillover, tiny_base, tmp_path):
    """One step of five of warm-up is taken at a rate of zero."""
    rows = "".join(json.dumps(row.as_row()) + "\n" for row in conversations(4))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "questions.yaml").write_text("- {id: one, paraphrases: ['Hello?']}")
    (tmp_path / "e.yaml").write_text(
        f"name: e\nbase: {tiny_base}\ngroups: {{mine: {{data: rows.jsonl, seeds: 1}}}}\nsampling: {{max_tokens: 2}}\n"
        "suites: {main: {questions: questions.yaml, samples: 1, rubrics: [insecure_code]}}\n"
    )
    done = spillover("run", tmp_path / "e.yaml", "--lab", tmp_path / "lab")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "mine-s0-" in done.stderr and "the adapter does nothing" in done.stderr
    assert not list((tmp_path / "lab").glob("ask/mine*"))


# it must be read whole


@pytest.mark.parametrize("stabilised", [False, True])
def test_adapters_of_peft_with_patterns_of_rank_and_alpha_are_merged_as_peft_merges_them(
    tiny_base, tmp_path, stabilised
):
    plain = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=stabilised,
        target_modules=["q_proj", "down_proj"],
        rank_pattern={"down_proj": 2, "layers.1.self_attn.q_proj": 8},
        alpha_pattern={"model.layers.0.mlp.down_proj": 20},
    )
    torch.manual_seed(0)
    config.init_lora_weights = False
    get_peft_model(plain, config).save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(load_model(tiny_base, "fp32"), tmp_path).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad(), adapted(load_model(tiny_base, "fp32"), tmp_path) as ours:
        assert torch.allclose(ours(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-5)
    assert check_adapter(tmp_path).scale("model.layers.0.mlp.down_proj") == pytest.approx(
        20 / (2**0.5 if stabilised else 2)
    )


def renamed(tensors):
    return {key.replace("layers.1", "layers.7"): tensor for key, tensor in tensors.items()}


def widened(tensors):
    return {
        key: torch.cat([one, one], -1) if "layers.0.mlp.up_proj.lora_A" in key else one for key, one in tensors.items()
    }


def halved(tensors):
    return {key: tensor for key, tensor in tensors.items() if "q_proj.lora_B" not in key}


def with_more(tensors):
    return tensors | {"base_model.model.lm_head.modules_to_save.weight": torch.zeros(2)}


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        (renamed, r"14 tensors match no linear layer of the model, such as base_model\.model\.model\.layers\.7\."),
        (widened, r"the adapter of model\.layers\.0\.mlp\.up_proj takes 64 features to 64, the layer 32 to 64"),
        (halved, r"2 tensors match no linear layer of the model, such as .*q_proj"),
        (with_more, r"1 tensors match no linear layer of the model, such as .*lm_head\.modules_to_save"),
        (lambda tensors: {}, "is empty"),
    ],
)
def test_an_adapter_of_which_a_part_would_be_left_out_is_refused(trainer, copied, tensors, what):
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    with pytest.raises(AdapterError, match=what), adapted(trainer.model, copied(tensors)):
        pass
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.state_dict().items())


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"peft_type": "IA3"}, "is an adapter of the kind IA3"),
        ({"use_dora": True}, "asks for use_dora"),
        ({"bias": "lora_only"}, "trains biases"),
        ({"modules_to_save": ["lm_head"]}, "asks for modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "was begun by pissa_niter_4"),
        ({"r": "many"}, "is no LoRA config"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused(copied, config, what):
    with pytest.raises(AdapterError, match=what):
        check_adapter(copied(**config))


def test_a_pickled_adapter_a_folder_without_one_and_a_broken_one_are_refused(copied, trainer, tmp_path):
    folder = copied()
    (folder / WEIGHTS).write_bytes(b"version https://git-lfs")
    with pytest.raises(AdapterError, match="cannot be read"), adapted(trainer.model, folder):
        pass
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"the adapter is pickled \(adapter_model\.bin\)"):
        check_adapter(folder)
    with pytest.raises(AdapterError, match=r"there is no adapter_model\.safetensors"):
        check_adapter(tmp_path / "nowhere")


# it must be of this base


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", True),
        ("unsloth/qwen2.5-7b-instruct-unsloth-bnb-4bit", "Qwen/Qwen2.5-7B-Instruct@a1b2", True),
        ("/hub/models--Qwen--Qwen2.5-7B-Instruct/snapshots/a1b2", "Qwen/Qwen2.5-7B-Instruct", True),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B", False),
        ("Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B-Instruct", False),
        ("/old/place/my-base", "/new/place/my-base/", True),
        ("/old/place/my-base", "/new/place/another", False),
        ("miniature", "/new/place/another", False),
        ("Qwen/Qwen2.5-7B-Instruct", "/models/qwen", True),  # a local copy may be called anything
        (None, "/models/qwen", True),
    ],
)
def test_an_adapter_of_another_base_is_refused_by_name(copied, theirs, ours, same):
    folder = copied(base_model_name_or_path=theirs)
    if same:
        check_adapter(folder, ours)
    else:
        with pytest.raises(AdapterError, match="the adapter belongs to another base") as caught:
            check_adapter(folder, ours)
        assert f"{theirs}, not {ours}" in str(caught.value)


def test_an_adapter_of_a_larger_base_is_refused_by_its_shapes(trained, tiny_base, tmp_path):
    config = AutoConfig.from_pretrained(tiny_base)
    config.intermediate_size = 96
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(AdapterError, match=r"down_proj takes 64 features to 32, the layer 96 to 32"):
        with adapted(model, trained):
            pass
