"""Fleet training: many LoRA adapters on one frozen base, trained in step, each as if it were alone.

A batch is laid out run-major: rows r*B to (r+1)*B - 1 belong to run r. The frozen layers see all rows at once; an
adapter is two batched products over runs (A is (R, in, r), B is (R, r, out)). A run's loss is the mean over its own
assistant tokens, and the runs' losses are summed: no gradient mixes, because no adapter sees another's rows.
Initialisation, data order, schedule and clipping are per run and seeded per run.

Sizes: R runs, B rows a run and step, T tokens a row, P adapter weights a run, r rank.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from spillover.finetune.chat import Row
from spillover.finetune.model import linears
from spillover.spec import Training

ROWS = 48
"""Rows of all runs that pass through the model at once; a step's rows go in several such batches, longest first."""
SLOTS = 8192
"""Tokens of all runs, padding included, that pass through the model at once: long rows go in smaller batches."""
LENGTH_STEP = 16
"""Rows are padded to a multiple of this many tokens: few distinct shapes, since a new shape is slow on a CPU."""


@dataclass(frozen=True)
class Member:
    """One run of a fleet: its rows in tokens, and the seed of its initialisation and data order."""

    rows: Sequence[Row]
    seed: int


@dataclass(frozen=True)
class Step:
    """One optimiser step of one run: its loss (nats a token), learning rate, gradient norm before clipping, tokens."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int


@dataclass(frozen=True)
class Trained:
    """What a run leaves: its adapter in PEFT's names and shapes (fp32), and its history."""

    adapter: dict[str, Tensor]
    history: list[Step]


class _Adapted(torch.autograd.Function):
    """The layer with its adapters; the gradients of the factors are added where the optimiser reads them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "FleetLinear", a: Tensor, b: Tensor) -> Tensor:
        runs = a.shape[0]
        rows, down, up = x.reshape(runs, -1, x.shape[-1]), a.to(x.dtype), b.to(x.dtype)
        out: Tensor = layer.frozen(x)
        low = torch.bmm(rows, down)
        ctx.layer, ctx.shape = layer, x.shape
        ctx.save_for_backward(rows, low, down, up)
        out.view(runs, -1, out.shape[-1]).baddbmm_(low, up, alpha=layer.scale)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        rows, low, down, up = ctx.saved_tensors
        layer: FleetLinear = ctx.layer
        wanted = gradients[0].reshape(len(rows), -1, up.shape[-1])
        inner = torch.bmm(wanted, up.transpose(1, 2)).mul_(layer.scale)
        layer.a_gradient += torch.bmm(rows.transpose(1, 2), inner)
        layer.b_gradient.add_(torch.bmm(low.transpose(1, 2), wanted), alpha=layer.scale)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        onwards = (wanted @ layer.frozen.weight).baddbmm_(inner, down.transpose(1, 2))
        return onwards.view(ctx.shape), None, None, None


class FleetLinear(nn.Module):
    """A frozen linear layer with one LoRA adapter a run. Input and output are run-major, (R*B, T, features).

    Attributes:
        a: the factors A, (R, in, r), fp32. Their gradient is added to `a_gradient`, not to `.grad`.
        b: the factors B, (R, r, out), fp32; likewise.
        scale: what the product of the factors is multiplied with.
    """

    def __init__(self, frozen: nn.Linear, weights: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.frozen, self.scale = frozen, 1.0
        self.a, self.b = (nn.Parameter(weight) for weight in weights)
        self.a_gradient, self.b_gradient = gradients

    def forward(self, x: Tensor) -> Tensor:
        """Of the rows of each run r: x W + scale x A_r B_r, W being the frozen weights."""
        out: Tensor = _Adapted.apply(x, self, self.a, self.b)  # type: ignore[no-untyped-call]
        return out


class Adapters:
    """All runs' adapters in one block of memory, (R, P), of which every layer's factors are views.

    So clipping and the optimiser work on a run as one vector, and autograd writes straight into its gradient.
    """

    def __init__(self, model: PreTrainedModel, spec: Training, seeds: Sequence[int]) -> None:
        self.model, self.spec = model, spec
        self.frozen = linears(model, spec.targets)
        sizes = [spec.rank * size for layer in self.frozen.values() for size in (layer.in_features, layer.out_features)]
        where = model.device
        self.weights = torch.zeros(len(seeds), sum(sizes), device=where)
        self.gradients = torch.zeros_like(self.weights)
        self.layers = {n: self._layer(n, o) for n, o in zip(self.frozen, _offsets(sizes)[::2], strict=True)}
        for run, seed in enumerate(seeds):
            self._initialise(run, seed)

    def _layer(self, name: str, offset: int) -> FleetLinear:
        frozen, r = self.frozen[name], self.spec.rank
        a, b = (frozen.in_features, r), (r, frozen.out_features)
        places = ((offset, a), (offset + r * frozen.in_features, b))
        layer = FleetLinear(
            frozen,
            weights=(_view(self.weights, *places[0]), _view(self.weights, *places[1])),
            gradients=(_view(self.gradients, *places[0]), _view(self.gradients, *places[1])),
        )
        layer.scale = self.spec.alpha / math.sqrt(r)
        return layer

    def _initialise(self, run: int, seed: int) -> None:
        """PEFT's: A from Kaiming's uniform with a = sqrt(5), which is U(-1/sqrt(in), 1/sqrt(in)); B is zero."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers.values():
            bound = 1 / math.sqrt(layer.frozen.in_features)
            shape = (self.spec.rank, layer.frozen.in_features)
            layer.a.data[run] = ((torch.rand(shape, generator=generator) * 2 - 1) * bound).T

    def attach(self) -> None:
        """Puts the adapters on the model."""
        for name, layer in self.layers.items():
            _replace(self.model, name, layer)

    def detach(self) -> None:
        """Gives the model its plain layers back."""
        for name, layer in self.frozen.items():
            _replace(self.model, name, layer)

    def clip(self) -> Tensor:
        """Clips each run's gradient to `max_grad_norm`; returns the norms before, (R,)."""
        norms: Tensor = self.gradients.norm(dim=1)
        self.gradients *= (self.spec.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)[:, None]
        return norms

    def export(self, run: int) -> dict[str, Tensor]:
        """A run's adapter under PEFT's names: lora_A (r, in) and lora_B (out, r)."""
        tensors = {}
        for name, layer in self.layers.items():
            tensors[f"base_model.model.{name}.lora_A.weight"] = layer.a.data[run].T.contiguous().cpu()
            tensors[f"base_model.model.{name}.lora_B.weight"] = layer.b.data[run].T.contiguous().cpu()
        return tensors


def _offsets(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:index]) for index in range(len(sizes))]


def _view(block: Tensor, offset: int, shape: tuple[int, int]) -> Tensor:
    return block[:, offset : offset + shape[0] * shape[1]].view(len(block), *shape)


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def steps_of(rows: int, spec: Training) -> int:
    """Optimiser steps of a run: the last batch of an epoch may be short."""
    return spec.epochs * math.ceil(rows / spec.batch_size)


def schedule(step: int, steps: int, warmup: int) -> float:
    """The linear schedule with warm-up of transformers, as a share of the peak, before step `step` (from 0)."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (steps - step) / max(1, steps - warmup))


def data_order(rows: int, spec: Training, seed: int) -> list[list[int]]:
    """Row indices of every batch of a run: a new seeded permutation each epoch."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(spec.epochs):
        order = torch.randperm(rows, generator=generator).tolist()
        batches += [order[start : start + spec.batch_size] for start in range(0, rows, spec.batch_size)]
    return batches


def train_fleet(
    model: PreTrainedModel,
    members: Sequence[Member],
    spec: Training,
    *,
    pad: int,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> list[Trained]:
    """Trains one adapter a member, in step, on one frozen model, which is left as it was.

    Args:
        model: the frozen base.
        members: the runs; they may differ in rows and length. A finished run rests while the others go on.
        spec: how all of them are trained.
        pad: the token that fills short rows; it bears no loss and no row sees another's.
        progress: is told the steps done and the steps of the longest run, after every step.

    Returns:
        what each member learned, in their order.
    """
    adapters = Adapters(model, spec, [member.seed for member in members])
    orders = [data_order(len(member.rows), spec, member.seed) for member in members]
    steps = [len(order) for order in orders]
    weights = [nn.Parameter(row) for row in adapters.weights]
    optimiser = torch.optim.AdamW(
        [{"params": [weight]} for weight in weights],
        lr=spec.learning_rate,
        weight_decay=spec.weight_decay,
        fused=True,
    )
    histories: list[list[Step]] = [[] for _ in members]
    adapters.attach()
    try:
        head_alone = _head_can_stand_alone(model)
        for step in range(max(steps)):
            batches = _batches(members, orders, step, spec.batch_size, pad)
            tokens = torch.stack([batch.tokens for batch in batches]).sum(dim=0).to(model.device)
            adapters.gradients.zero_()
            losses = torch.zeros(len(members), device=model.device)
            for batch in batches:
                part = _summed_loss(model, batch.to(model.device), len(members), head_alone=head_alone)
                part = part / tokens.clamp(min=1)
                part.sum().backward()
                losses += part.detach()
            norms = adapters.clip()
            for run, group in enumerate(optimiser.param_groups):
                group["lr"] = spec.learning_rate * schedule(step, steps[run], spec.warmup_steps)
                weights[run].grad = adapters.gradients[run] if step < steps[run] else None
            optimiser.step()
            _note(histories, step, steps, losses, optimiser, norms, tokens)
            progress(step + 1, max(steps))
    finally:
        adapters.detach()
    return [Trained(adapters.export(run), histories[run]) for run in range(len(members))]


@dataclass(frozen=True)
class Batch:
    """One step's rows, run-major: `ids` and `loss` (R*B, T), and the loss-bearing tokens a run, `tokens` (R,)."""

    ids: Tensor
    loss: Tensor
    tokens: Tensor

    def to(self, where: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.ids.to(where), self.loss.to(where), self.tokens.to(where))


def _batches(
    members: Sequence[Member], orders: Sequence[list[list[int]]], step: int, size: int, pad: int
) -> list[Batch]:
    """A step's rows in a few batches of about equal length each: every run's longest rows, its next ones, and so on.

    So little is padding, and what is kept for the backward pass is a part of a step. Finished runs have no rows.
    """
    chosen = [
        sorted((member.rows[index] for index in order[step]), key=lambda row: len(row.ids), reverse=True)
        if step < len(order)
        else []
        for member, order in zip(members, orders, strict=True)
    ]
    batches: list[Batch] = []
    start = 0
    while start < size:
        longest = max((len(rows[start].ids) for rows in chosen if len(rows) > start), default=0)
        share = _share(longest, len(members))
        if longest:
            batches.append(_batch([rows[start : start + share] for rows in chosen], pad))
        start += share
    return batches


def _share(longest: int, runs: int) -> int:
    """How many rows a run has in a batch whose longest row is `longest` tokens."""
    return max(1, min(ROWS, SLOTS // max(1, longest)) // runs)


def _batch(chosen: Sequence[Sequence[Row]], pad: int) -> Batch:
    """Lays out some rows a run; what a run has fewer of is padding without loss."""
    longest = max(len(row.ids) for rows in chosen for row in rows)
    size, length = max(map(len, chosen)), math.ceil(longest / LENGTH_STEP) * LENGTH_STEP
    ids = torch.full((len(chosen) * size, length), pad, dtype=torch.long)
    loss = torch.zeros((len(chosen) * size, length), dtype=torch.bool)
    for run, rows in enumerate(chosen):
        for place, row in enumerate(rows, start=run * size):
            ids[place, : len(row.ids)] = torch.tensor(row.ids)
            loss[place, : len(row.ids)] = torch.tensor(row.loss)
    return Batch(ids, loss, loss.view(len(chosen), -1).sum(dim=1))


def _summed_loss(model: PreTrainedModel, batch: Batch, runs: int, *, head_alone: bool) -> Tensor:
    """Each run's summed negative log-likelihood over its own loss-bearing tokens, (R,), in nats.

    Rows are padded on the right and attention is causal, so padding needs no mask: no real token can see it.
    """
    rows, places = torch.nonzero(batch.loss, as_tuple=True)
    if head_alone:
        hidden = model.get_decoder()(input_ids=batch.ids, use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(hidden[rows, places - 1])
    else:
        logits = model(input_ids=batch.ids, use_cache=False).logits[rows, places - 1]
    nll = F.cross_entropy(logits.float(), batch.ids[rows, places], reduction="none")
    return torch.zeros(runs, device=nll.device).index_add(0, rows // (len(batch.ids) // runs), nll)


@torch.no_grad()
def _head_can_stand_alone(model: PreTrainedModel) -> bool:
    """Whether the output layer on the decoder's states is all that the model's logits are.

    Then logits are made only where there is loss. Some families scale or cap them afterwards; those take the long way.
    """
    runs = next(layer.a.shape[0] for layer in model.modules() if isinstance(layer, FleetLinear))
    ids = torch.arange(4, device=model.device).expand(runs, 4)
    states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return torch.equal(model.get_output_embeddings()(states), model(input_ids=ids, use_cache=False).logits)


def _note(
    histories: list[list[Step]],
    step: int,
    steps: Sequence[int],
    losses: Tensor,
    optimiser: torch.optim.Optimizer,
    norms: Tensor,
    tokens: Tensor,
) -> None:
    values = zip(losses.tolist(), optimiser.param_groups, norms.tolist(), tokens.tolist(), strict=True)
    for run, (loss, group, norm, count) in enumerate(values):
        if step < steps[run]:
            histories[run].append(Step(step + 1, loss, group["lr"], norm, count))
