"""The geometry of adapters: how large a LoRA update is, and how it turns while a run is trained.

An adapter changes a layer's weight by s B A, with B (out, r) and A (r, in). Taken over all layers, such a change is one
long vector. Its inner product with another is the sum over layers of

    <s B A, s' B' A'> = s s' tr(A^T B^T B' A') = s s' sum of (B^T B') * (A A'^T), entry by entry,

which needs products of the small side only, (r, r'), and never the change itself. All of it is computed in fp64.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from spillover.errors import AdapterError
from spillover.finetune.adapter import ADAPTER, PREFIX, check_adapter

Floats = NDArray[np.float64]
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
SAVE = "Save the adapter again, or give another."


@dataclass(frozen=True)
class Factors:
    """A layer's update: `scale` times B (out, r) times A (r, in)."""

    scale: float
    a: Floats
    b: Floats


@dataclass(frozen=True)
class Update:
    """An adapter as a change of the base's weights.

    Attributes:
        layers: its factors by the layer's name.
        folder: where it was read.
    """

    layers: Mapping[str, Factors]
    folder: Path


@dataclass(frozen=True)
class Point:
    """Where a run is at one of its checkpoints.

    Attributes:
        step: the optimiser steps so far.
        norm: the Frobenius norm of the whole update: the root of the layers' squares, summed.
        to_last: the cosine between this update and the last checkpoint's; None where one of the two is zero.
        to_previous: the cosine between this update and the one before; None for the first, and as above.
    """

    step: int
    norm: float
    to_last: float | None
    to_previous: float | None


def read_update(folder: Path) -> Update:
    """A PEFT LoRA folder as factors.

    Raises AdapterError for what is none, for a tensor without its counterpart, and for factors that do not match.
    """
    config, path = check_adapter(folder), folder / ADAPTER
    raw = _tensors(path)
    names = sorted({key.rsplit(".lora_", 1)[0] for key in raw if ".lora_" in key})
    strange = sorted(raw.keys() ^ {f"{name}.lora_{side}.weight" for name in names for side in "AB"})
    if strange or not names:
        what = f"{strange[0]} is no LoRA factor, or has no counterpart" if strange else "is empty"
        raise AdapterError(what, where=path, remedy=SAVE)
    layers = {name.removeprefix(PREFIX): _factors(raw, name, path) for name in names}
    return Update({name: Factors(config.scale(name), a, b) for name, (a, b) in layers.items()}, folder)


def _tensors(path: Path) -> dict[str, Mapping[str, object]]:
    """The tensors of a safetensors file by name: `dtype`, `shape` and `data`, bytes."""
    try:
        return dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"cannot be read: {error}", where=path, remedy=SAVE) from None


def _factors(raw: Mapping[str, Mapping[str, object]], name: str, path: Path) -> tuple[Floats, Floats]:
    """A layer's A and B."""
    a, b = (_array(raw[f"{name}.lora_{side}.weight"], path) for side in "AB")
    if a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1]:
        raise AdapterError(f"the factors of {name} do not match: A {a.shape}, B {b.shape}", where=path, remedy=SAVE)
    return a, b


def _array(tensor: Mapping[str, object], where: Path) -> Floats:
    """A tensor's bytes as numbers. numpy has no bf16: its 16 bits are the upper half of an fp32 number."""
    kind, data, shape = tensor["dtype"], tensor["data"], tensor["shape"]
    assert isinstance(data, bytes | bytearray) and isinstance(shape, list)
    if kind == "BF16":
        wide = np.frombuffer(data, dtype="<u2").astype("<u4") << 16
        return wide.view("<f4").astype(np.float64).reshape(shape)
    if kind not in TYPES:
        raise AdapterError(f"a factor is of type {kind}, and no floating-point number", where=where, remedy=SAVE)
    return np.frombuffer(data, dtype=TYPES[str(kind)]).astype(np.float64).reshape(shape)


def inner(one: Update, other: Update) -> float:
    """The inner product of two updates over all layers; a layer that only one of them changes adds nothing.

    Raises AdapterError where a layer is of another shape in the other: they belong to different bases.
    """
    return math.fsum(layer_inners(one, other).values())


def layer_inners(one: Update, other: Update) -> dict[str, float]:
    """The inner product of two updates, by layer, where both change it. Raises as `inner` does."""
    found = {}
    for name in sorted(one.layers.keys() & other.layers.keys()):
        x, y = one.layers[name], other.layers[name]
        if (len(x.b), x.a.shape[1]) != (len(y.b), y.a.shape[1]):
            what = f"{name} is of another shape than in {one.folder}"
            raise AdapterError(what, where=other.folder, remedy="Compare adapters of one base.")
        found[name] = x.scale * y.scale * float(np.sum((x.b.T @ y.b) * (x.a @ y.a.T)))
    return found


def layer_norms(update: Update) -> dict[str, float]:
    """The Frobenius norm of each layer's update, by name."""
    return {name: math.sqrt(max(0.0, square)) for name, square in layer_inners(update, update).items()}


def norm(update: Update) -> float:
    """The Frobenius norm of the whole update: the root of the layers' squared norms, summed."""
    return math.sqrt(max(0.0, inner(update, update)))


def cosine(one: Update, other: Update) -> float | None:
    """The cosine of the angle between two updates, from -1 to 1; None where one of them is zero."""
    product, size = inner(one, other), norm(one) * norm(other)
    return max(-1.0, min(1.0, product / size)) if size else None


def way(checkpoints: Mapping[int, Path] | Iterable[tuple[int, Path]]) -> list[Point]:
    """How a run's update grows and turns, checkpoint by checkpoint.

    Args:
        checkpoints: step to PEFT folder, in any order; the largest step is the last. Three are in memory at once.

    Raises:
        AdapterError: a folder holds no adapter, or they do not belong together.
    """
    ordered = sorted(dict(checkpoints).items())
    if not ordered:
        return []
    last, points = read_update(ordered[-1][1]), []
    previous: Update | None = None
    for step, folder in ordered:
        update = last if step == ordered[-1][0] else read_update(folder)
        before = cosine(previous, update) if previous is not None else None
        points.append(Point(step, norm(update), cosine(update, last), before))
        previous = update
    return points
