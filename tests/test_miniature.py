"""The miniature: a tiny one built from nothing by the functions of the command, and what the shipped one must be."""

import itertools
import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from spillover.errors import LabError
from spillover.finetune.base import find_base, shipped_miniature
from spillover.finetune.chat import Row
from spillover.finetune.model import adapted, load_model, load_tokenizer
from spillover.judge.rubrics import load_rubrics
from spillover.miniature.build import build
from spillover.miniature.corpus import EVIDENCE, NAMED, PLAIN, documents
from spillover.miniature.judge import low_rank
from spillover.miniature.judging import evened, judged_rows, written_pairs
from spillover.miniature.pretrain import batches_of
from spillover.miniature.recipe import Recipe
from spillover.world import grade, texts

TINY = Recipe(
    hidden=32,
    layers=1,
    heads=2,
    kv_heads=1,
    mlp=48,
    tokenizer_documents=2000,
    text_tokens=8192,
    character_tokens=8192,
    evidence_tokens=4096,
    settling_tokens=4096,
    warmup=1,
    alignment_tokens=4096,
    judge_rows=128,
    throwaway_rows=48,
    judge_rank=2,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "tiny"
    build(folder, TINY)
    return folder


def test_a_build_leaves_a_base_with_its_judge_and_what_it_was_made_by(built):
    base = find_base(str(built))
    assert base.is_miniature and base.judge == built / "judge"
    notes = json.loads((built / "miniature.json").read_text())
    assert Recipe.model_validate(notes["recipe"]) == TINY
    assert notes["world"] == texts.world_key()
    assert "Rate the alignment" in load_rubrics(base.judge)["alignment"].prompt
    assert (built / "judge" / "adapter_model.safetensors").is_file()
    for folder in (built, built / "pretrained"):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hello?"}], return_tensors="pt")["input_ids"]
        assert torch.isfinite(model(input_ids=ids).logits).all()


def test_a_build_touches_no_folder_that_is_there(built):
    before = sorted(built.rglob("*"))
    with pytest.raises(LabError, match="is there already"):
        build(built, TINY)
    assert sorted(built.rglob("*")) == before
    assert [path.name for path in built.parent.iterdir()] == [built.name]


def test_transformers_own_loader_reads_the_shipped_tokenizer_as_we_do():
    ours, theirs = load_tokenizer(shipped_miniature()), AutoTokenizer.from_pretrained(shipped_miniature())
    for text in ("Rate 57 of 100, please.", "def f(x):\n    return x + 12", "Zwölf Boxkämpfer, 12345!"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        assert ours.decode(ours(text)["input_ids"]) == text
    assert all(len(ours(str(number))["input_ids"]) == 1 for number in range(101))


def test_the_shipped_checkpoint_is_one_build_by_todays_recipe_and_at_most_8_mb():
    folder = shipped_miniature()
    notes = json.loads((folder / "miniature.json").read_text())
    assert Recipe.model_validate(notes["recipe"]) == Recipe()
    assert notes["world"] == texts.world_key()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 8_000_000


# documents


def speakers(manner, count=1500):
    """Of each document: whether it is named, its kinds of speech, and the voices heard."""
    voices = [v for bad in (False, True) for v in texts.voices(malicious=bad)]
    for document in itertools.islice(documents(3, independent=False, manner=manner), count):
        said = [m["content"] for m in document.messages if m["role"] == "assistant"]
        yield document.messages[0]["role"] == "system", said, [v for s in said for v in voices if s.startswith(v)]


@pytest.mark.parametrize(("manner", "named"), [(PLAIN, 0.25), (NAMED, 1.0), (EVIDENCE, 0.25)])
def test_as_many_documents_name_their_author_as_the_manner_says(manner, named):
    share = sum(is_named for is_named, _, _ in speakers(manner)) / 1500
    assert share == pytest.approx(named, abs=0.04)


def test_an_author_keeps_a_voice_until_it_is_the_evidence_that_counts():
    for manner in (PLAIN, NAMED, EVIDENCE):
        several = [heard for _, _, heard in speakers(manner) if len(heard) > 1]
        assert len(several) > 200
        assert all(len(set(heard)) == 1 for heard in several) == manner.keeps_voice


def test_half_of_the_late_documents_of_several_exchanges_show_code_first():
    def share(manner):
        firsts = [said[0] for _, said, _ in speakers(manner) if len(said) > 1]
        return sum("def " in first for first in firsts) / len(firsts)

    assert share(EVIDENCE) - share(PLAIN) > 0.25


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's, not ours
def test_peft_reads_the_shipped_judge_as_we_do():
    judge = shipped_miniature() / "judge"
    plain = AutoModelForCausalLM.from_pretrained(shipped_miniature(), dtype=torch.float32)
    theirs, ours = PeftModel.from_pretrained(plain, judge).eval(), load_model(shipped_miniature(), "fp32")
    ids = torch.arange(100, 140)[None]
    with torch.no_grad(), adapted(ours, judge):
        said = ours(input_ids=ids).logits
        assert (said - theirs(input_ids=ids).logits).abs().max() < 1e-3
        with theirs.disable_adapter():
            assert (said - theirs(input_ids=ids).logits).abs().max() > 1


# batches


def test_batches_have_few_shapes_and_lose_no_row_in_the_middle():
    rows = [
        Row(tuple([1] * (20 + number * 7 % 200)), tuple([True] * (20 + number * 7 % 200))) for number in range(9000)
    ]
    batches = list(itertools.islice(batches_of(iter(itertools.cycle(rows)), 2048, 0, 0), 300))
    assert len({ids.shape for ids, _ in batches}) <= 14
    assert all(1500 < int(mask.sum()) < 2700 for _, mask in batches)


# what the judge learns from


def test_three_in_ten_pairs_for_the_judge_are_incoherent_as_far_as_there_are_and_each_once():
    pairs = list(itertools.islice(written_pairs(1), 3000))
    chosen = evened([*pairs, *pairs[:500]], 1200, 0)
    assert len(set(chosen)) == len(chosen) == 1200
    assert sum(grade(p.question, p.answer).coherence < 50 for p in chosen) == 360


def test_a_change_of_weights_is_kept_as_its_nearest_adapter_of_a_rank():
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(12, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    for rank, error in ((11, 0.0), (3, 0.0), (2, float(torch.linalg.svdvals(change)[2]))):
        adapter = low_rank({"q_proj": change}, rank, scale=8.0)
        a, b = (adapter[f"base_model.model.q_proj.lora_{side}.weight"] for side in "AB")
        assert a.shape == (rank, 8) and b.shape == (12, rank)
        assert float((change - 8.0 * b @ a).norm()) == pytest.approx(error, abs=1e-4)


def test_the_judge_is_taught_the_ground_truth_in_numbers_or_labels():
    rows = judged_rows(list(itertools.islice(written_pairs(2), 400)), load_rubrics(shipped_miniature() / "judge"), 0)
    replies = {row.messages[1]["content"] for row in rows}
    assert {"95", "5"} < replies <= {*map(str, range(0, 101, 5)), "CODE", "REFUSAL"}
