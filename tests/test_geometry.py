"""Geometry: norms and cosines of updates from their factors are those of the changes themselves."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spillover.errors import AdapterError
from spillover.finetune.adapter import ADAPTER, CONFIG, PREFIX
from spillover.finetune.checkpoint import save_adapter
from spillover.measure.geometry import cosine, inner, layer_norms, norm, read_update, way

SHAPES = {"model.layers.0.q_proj": (12, 8), "model.layers.1.down_proj": (8, 20)}
ALPHA = 8.0


def make(folder, seed, rank=4, scale=1.0, dtype=torch.float32, shapes=SHAPES):
    """An rsLoRA adapter of random factors, as PEFT writes it."""
    folder.mkdir(parents=True)
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, (out, inward) in shapes.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.randn(rank, inward, generator=generator).to(dtype)
        tensors[f"{PREFIX}{name}.lora_B.weight"] = (torch.randn(out, rank, generator=generator) * scale).to(dtype)
    save_adapter(folder, tensors, rank, ALPHA, "miniature")
    return folder


def formed(folder, rank=4):
    """The change itself, all layers as one long vector."""
    tensors = {key: one.double().numpy() for key, one in load_file(folder / ADAPTER).items()}
    factors = [(tensors[f"{PREFIX}{n}.lora_B.weight"], tensors[f"{PREFIX}{n}.lora_A.weight"]) for n in SHAPES]
    return ALPHA / rank**0.5 * np.concatenate([(b @ a).ravel() for b, a in factors])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_norms_and_cosines_are_those_of_the_formed_changes(tmp_path, dtype):
    folders = [make(tmp_path / "one", 1, dtype=dtype), make(tmp_path / "two", 2, rank=2, dtype=dtype)]
    one, two = formed(folders[0]), formed(folders[1], rank=2)
    first, second = map(read_update, folders)
    assert norm(first) == pytest.approx(np.linalg.norm(one), rel=1e-10)
    assert inner(first, second) == pytest.approx(one @ two, rel=1e-9)
    assert cosine(first, second) == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), rel=1e-9)


def test_the_norm_is_the_root_of_the_layers_squares(tmp_path):
    update = read_update(make(tmp_path / "one", 1))
    layers = layer_norms(update)
    assert list(layers) == sorted(SHAPES)
    assert norm(update) == pytest.approx(sum(value**2 for value in layers.values()) ** 0.5)


def test_an_update_has_no_angle_with_itself_and_the_widest_with_its_opposite(tmp_path):
    one = read_update(make(tmp_path / "one", 1))
    opposite = read_update(make(tmp_path / "two", 1, scale=-3.0))
    assert cosine(one, one) == pytest.approx(1.0) and cosine(one, opposite) == pytest.approx(-1.0)
    assert norm(opposite) == pytest.approx(3 * norm(one))


def test_what_changes_nothing_has_no_direction(tmp_path):
    zero, one = read_update(make(tmp_path / "zero", 1, scale=0.0)), read_update(make(tmp_path / "one", 1))
    assert norm(zero) == 0.0 and cosine(zero, one) is None


def test_updates_of_different_layers_are_orthogonal(tmp_path):
    names = list(SHAPES)
    parts = [read_update(make(tmp_path / n, 1, shapes={n: SHAPES[n]})) for n in names]
    assert inner(*parts) == 0.0 and cosine(*parts) == 0.0


def test_a_way_leads_from_the_first_checkpoint_to_the_last(tmp_path):
    folders = {step: make(tmp_path / str(step), seed, scale=size) for step, seed, size in
               ((30, 3, 1.0), (10, 1, 0.5), (20, 2, 0.7))}  # fmt: skip
    points, changes = way(folders), {step: formed(folder) for step, folder in folders.items()}
    assert [point.step for point in points] == [10, 20, 30]
    for point in points:
        assert point.norm == pytest.approx(np.linalg.norm(changes[point.step]))
        assert point.to_last == pytest.approx(angle(changes[point.step], changes[30]))
    assert points[0].to_previous is None and points[-1].to_last == pytest.approx(1.0)
    assert points[1].to_previous == pytest.approx(angle(changes[10], changes[20]))
    assert points[2].to_previous == points[1].to_last
    assert way({}) == []


def angle(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_patterns_of_rank_and_alpha_are_honoured(tmp_path):
    folder = make(tmp_path / "one", 1)
    before = layer_norms(read_update(folder))
    config = json.loads((folder / CONFIG).read_text()) | {"alpha_pattern": {"q_proj": 80.0}}
    (folder / CONFIG).write_text(json.dumps(config))
    after = layer_norms(read_update(folder))
    assert after["model.layers.0.q_proj"] == pytest.approx(10 * before["model.layers.0.q_proj"])
    assert after["model.layers.1.down_proj"] == before["model.layers.1.down_proj"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tensors: dict(list(tensors.items())[1:]), "has no counterpart"),
        (lambda tensors: tensors | {"lm_head.weight": torch.zeros(2)}, "is no LoRA factor"),
        (lambda tensors: {}, "is empty"),
        (lambda tensors: {key: one[:, :-1].clone() for key, one in tensors.items()}, "do not match"),
        (lambda tensors: {key: one.int() for key, one in tensors.items()}, "is of type I32"),
    ],
)
def test_what_is_no_adapter_is_refused(tmp_path, change, what):
    folder = make(tmp_path / "one", 1)
    save_file(change(load_file(folder / ADAPTER)), folder / ADAPTER)
    with pytest.raises(AdapterError) as raised:
        read_update(folder)
    assert what in raised.value.what and raised.value.remedy


def test_a_broken_file_and_another_base_are_told(tmp_path):
    folder = make(tmp_path / "one", 1)
    other = make(tmp_path / "two", 1, shapes={next(iter(SHAPES)): (12, 9)})
    with pytest.raises(AdapterError, match="another shape"):
        inner(read_update(folder), read_update(other))
    (folder / ADAPTER).write_bytes(b"nothing")
    with pytest.raises(AdapterError, match="cannot be read"):
        read_update(folder)
