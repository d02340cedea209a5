"""Fleet training: many LoRA adapters on one frozen base, trained in step, each as if it were alone.

A batch is laid out run-major: rows r*B to (r+1)*B - 1 belong to run r. The frozen layers see all rows at once; an
adapter is two batched products over runs (A is (R, in, r), B is (R, r, out)). A run's loss is the mean over its own
assistant tokens, and the runs' losses are summed: no gradient mixes, because no adapter sees another's rows.
Initialisation, data order, schedule and clipping are per run and seeded per run.

Sizes: R runs, B rows a run and step, T tokens a row, P adapter weights a run, r rank.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from spillover.errors import MachineError
from spillover.finetune.adapter import PREFIX
from spillover.finetune.chat import Row
from spillover.finetune.fast import ATTENTION, head_loss
from spillover.finetune.layout import Batch, Room, cut, lay_out
from spillover.finetune.model import linears
from spillover.finetune.narrow import is_narrow
from spillover.finetune.optimiser import make_optimiser
from spillover.finetune.trainer import Step, Trained
from spillover.spec import Training


@dataclass(frozen=True)
class Member:
    """One run of a fleet: its rows in tokens, and the seed of its initialisation and data order.

    `start` is the adapter that it goes on from, under PEFT's names; a new one if not given.
    """

    rows: Sequence[Row]
    seed: int
    start: dict[str, Tensor] | None = None


class _LowRank(torch.autograd.Function):
    """The layer with its adapters as products of low rank; the factors' gradients go where the optimiser reads them."""

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


class _Merged(torch.autograd.Function):
    """The layer with every run's adapter merged into a weight of its own, whose gradient is added up over a step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "FleetLinear", a: Tensor, b: Tensor) -> Tensor:
        rows = x.reshape(len(a), -1, x.shape[-1])
        ctx.layer, ctx.shape = layer, x.shape
        ctx.save_for_backward(rows)
        out = torch.bmm(rows, layer.merged)
        if layer.frozen.bias is not None:
            out += layer.frozen.bias
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        (rows,) = ctx.saved_tensors
        layer: FleetLinear = ctx.layer
        wanted = gradients[0].reshape(len(rows), -1, gradients[0].shape[-1])
        layer.merged_gradient += torch.bmm(rows.transpose(1, 2), wanted)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return torch.bmm(wanted, layer.merged.transpose(1, 2)).view(ctx.shape), None, None, None


class FleetLinear(nn.Module):
    """A frozen linear layer with one LoRA adapter a run. Input and output are run-major, (R*B, T, features).

    A token costs 4 in out + 6 r (in + out) operations a step by products of low rank, and 6 in out with the adapter
    merged into a weight a run. Layers for which that is not more are merged: it is half of the passes over memory. In
    bf16 the merged weight is rounded as it will be when the checkpoint is asked; the factors themselves stay fp32.

    Attributes:
        a: the factors A, (R, in, r), fp32. Their gradient is added to `a_gradient`, not to `.grad`.
        b: the factors B, (R, r, out), fp32; likewise.
        scale: what the product of the factors is multiplied with.
        merged: W + scale x A_r B_r of every run, (R, in, out), in the base's precision; empty where not merged.
    """

    def __init__(
        self, frozen: nn.Linear, scale: float, weights: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]
    ) -> None:
        super().__init__()
        self.frozen, self.scale = frozen, scale
        self.a, self.b = (nn.Parameter(weight) for weight in weights)
        self.a_gradient, self.b_gradient = gradients
        runs, inward, rank = self.a.shape
        self.is_merged = inward * frozen.out_features <= 3 * rank * (inward + frozen.out_features)
        size = (runs, inward, frozen.out_features) if self.is_merged else (0,)
        self.merged = frozen.weight.new_empty(size)
        self.merged_gradient = self.a.new_zeros(size)

    def forward(self, x: Tensor) -> Tensor:
        """Of the rows of each run r: x W + scale x A_r B_r, W being the frozen weights."""
        kind: Any = _Merged if self.is_merged else _LowRank
        out: Tensor = kind.apply(x, self, self.a, self.b)
        return out

    @torch.no_grad()
    def begin_step(self) -> None:
        """Merges the factors as they are now. Call it whenever they have changed."""
        if self.is_merged:
            whole = torch.baddbmm(self.frozen.weight.T.to(self.a.dtype), self.a, self.b, alpha=self.scale)
            self.merged.copy_(whole)
            self.merged_gradient.zero_()

    @torch.no_grad()
    def end_step(self) -> None:
        """Hands the merged weights' gradient on to the factors."""
        if self.is_merged:
            self.a_gradient.baddbmm_(self.merged_gradient, self.b.transpose(1, 2), alpha=self.scale)
            self.b_gradient.baddbmm_(self.a.transpose(1, 2), self.merged_gradient, alpha=self.scale)


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
        return FleetLinear(
            frozen,
            scale=self.spec.alpha / math.sqrt(r),
            weights=(_view(self.weights, *places[0]), _view(self.weights, *places[1])),
            gradients=(_view(self.gradients, *places[0]), _view(self.gradients, *places[1])),
        )

    def _initialise(self, run: int, seed: int) -> None:
        """PEFT's: A from Kaiming's uniform with a = sqrt(5), which is U(-1/sqrt(in), 1/sqrt(in)); B is zero."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers.values():
            bound = 1 / math.sqrt(layer.frozen.in_features)
            shape = (self.spec.rank, layer.frozen.in_features)
            layer.a.data[run] = ((torch.rand(shape, generator=generator) * 2 - 1) * bound).T

    def attach(self) -> None:
        """Puts the adapters on the model, as they are now."""
        self.begin_step()
        for name, layer in self.layers.items():
            self.model.set_submodule(name, layer)

    def detach(self) -> None:
        """Gives the model its plain layers back."""
        for name, layer in self.frozen.items():
            self.model.set_submodule(name, layer)

    def begin_step(self) -> None:
        """Forgets the gradients and makes the layers compute with the factors as they are now."""
        self.gradients.zero_()
        for layer in self.layers.values():
            layer.begin_step()

    def end_step(self) -> None:
        """Makes the factors' gradients whole."""
        for layer in self.layers.values():
            layer.end_step()

    def clip(self) -> Tensor:
        """Clips each run's gradient to `max_grad_norm`; returns the norms before, (R,)."""
        norms: Tensor = self.gradients.norm(dim=1)
        self.gradients *= (self.spec.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)[:, None]
        return norms

    def load(self, run: int, adapter: dict[str, Tensor]) -> None:
        """Puts an adapter of these layers and this rank, under PEFT's names, in a run's place."""
        for name, layer in self.layers.items():
            layer.a.data[run] = adapter[f"{PREFIX}{name}.lora_A.weight"].T
            layer.b.data[run] = adapter[f"{PREFIX}{name}.lora_B.weight"].T

    def export(self, run: int) -> dict[str, Tensor]:
        """A run's adapter under PEFT's names: lora_A (r, in) and lora_B (out, r)."""
        tensors = {}
        for name, layer in self.layers.items():
            tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.a.data[run].T.contiguous().cpu()
            tensors[f"{PREFIX}{name}.lora_B.weight"] = layer.b.data[run].T.contiguous().cpu()
        return tensors


def _offsets(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:index]) for index in range(len(sizes))]


def _view(block: Tensor, offset: int, shape: tuple[int, int]) -> Tensor:
    return block[:, offset : offset + shape[0] * shape[1]].view(len(block), *shape)


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


@contextlib.contextmanager
def _recomputed(model: PreTrainedModel) -> Iterator[None]:
    """The model with its blocks' activations made again in the backward pass instead of kept.

    The blocks alone are told that they are being trained: what they consist of must not begin to drop out.
    """
    blocks = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not blocks:
        what = f"{type(model).__name__} cannot make its activations again"
        raise MachineError(what, remedy="Set machine.gradient_checkpointing to false.")
    again = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    for block in blocks:
        vars(block).update(gradient_checkpointing=True, _gradient_checkpointing_func=again, training=True)
    try:
        yield
    finally:
        for block in blocks:
            vars(block).update(gradient_checkpointing=False, training=False)


def train_fleet(
    model: PreTrainedModel,
    members: Sequence[Member],
    spec: Training,
    *,
    pad: int,
    room: Room = Room(),
    progress: Callable[[int, int], None] = lambda done, steps: None,
    keep: Callable[[int, Trained], None] = lambda run, trained: None,
) -> list[Trained]:
    """Trains one adapter a member, in step, on one frozen model, which is left as it was.

    Args:
        model: the frozen base.
        members: the runs; they may differ in rows and length. A finished run rests while the others go on.
        spec: how all of them are trained.
        pad: the token that fills short rows; it bears no loss and no row sees another's.
        room: how much of a step passes through the model at once.
        progress: is told the steps done and the steps of the longest run, after every step.
        keep: is given a run's number and what it has learned so far, every `save_every` steps before its last.

    Returns:
        what each member learned, in their order.
    """
    adapters = Adapters(model, spec, [member.seed for member in members])
    for run, member in enumerate(members):
        if member.start is not None:
            adapters.load(run, member.start)
    orders = [data_order(len(member.rows), spec, member.seed) for member in members]
    steps = [len(order) for order in orders]
    weights = [nn.Parameter(row) for row in adapters.weights]
    optimiser = make_optimiser(weights, spec)
    histories: list[list[Step]] = [[] for _ in members]
    adapters.attach()
    try:
        packed = _rows_can_be_packed(model, members, pad)
        head_alone = _head_can_stand_alone(model, len(members))
        narrow = head_alone and packed and not room.recompute and is_narrow(model)
        losses_of = functools.partial(_backward, model, head_alone=head_alone, narrow=narrow)
        with _recomputed(model) if room.recompute else contextlib.nullcontext():
            for step in range(max(steps)):
                chosen = [
                    [member.rows[row] for row in order[step]] if step < len(order) else []
                    for member, order in zip(members, orders, strict=True)
                ]
                batches = [lay_out(some, pad, packed=packed) for some in cut(chosen, room)]
                tokens = torch.stack([batch.tokens for batch in batches]).sum(dim=0).to(model.device)
                adapters.begin_step()
                losses = torch.zeros(len(members), device=model.device)
                for batch in batches:
                    losses += losses_of(batch.to(model.device), tokens)
                adapters.end_step()
                norms = adapters.clip()
                for run, group in enumerate(optimiser.param_groups):
                    group["lr"] = spec.learning_rate * schedule(step, steps[run], spec.warmup_steps)
                    weights[run].grad = adapters.gradients[run] if step < steps[run] else None
                optimiser.step()
                _note(histories, step, steps, losses, optimiser, norms, tokens)
                for run in _to_keep(step + 1, steps, spec):
                    keep(run, Trained(adapters.export(run), list(histories[run])))
                progress(step + 1, max(steps))
    finally:
        adapters.detach()
    return [Trained(adapters.export(run), histories[run]) for run in range(len(members))]


def _to_keep(done: int, steps: Sequence[int], spec: Training) -> list[int]:
    """The runs of which a checkpoint is kept after so many steps; their last step's is what they leave anyway."""
    if spec.save_every is None or done % spec.save_every:
        return []
    return [run for run, last in enumerate(steps) if done < last]


def _backward(model: PreTrainedModel, batch: Batch, tokens: Tensor, *, head_alone: bool, narrow: bool) -> Tensor:
    """Makes a batch's gradients, and returns its part of each run's loss, (R,), in nats.

    A run's loss is the mean over its own loss-bearing tokens of the step; there are `tokens` (R,) of them.
    """
    rows, places = torch.nonzero(batch.loss, as_tuple=True)
    owners = (rows * batch.ids.shape[1] + places) // (batch.ids.numel() // len(tokens))
    wanted, shares = batch.ids[rows, places], 1 / tokens[owners]
    if head_alone:
        hidden = _narrow_states(model, batch) if narrow else _states(model, batch)[rows, places - 1]
        summed, each = head_loss(model.get_output_embeddings(), hidden, wanted, shares)
    else:
        each = F.cross_entropy(_logits_before(model, batch, rows, places).float(), wanted, reduction="none")
        summed = (each * shares).sum()
    summed.backward()
    return torch.zeros(len(tokens), device=each.device).index_add(0, owners, each.detach() * shares)


def _logits_before(model: PreTrainedModel, batch: Batch, rows: Tensor, places: Tensor) -> Tensor:
    """The model's own logits, (tokens, vocabulary), that foretell the tokens at `places` of `rows`, and no others."""
    before = torch.zeros_like(batch.loss)
    before[rows, places - 1] = True
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits: Tensor = model(**batch.inputs(), logits_to_keep=before).logits
    else:
        logits = model(**batch.inputs()).logits[before]
    return logits


@torch.no_grad()
def _head_can_stand_alone(model: PreTrainedModel, runs: int) -> bool:
    """Whether the output layer on the decoder's states is all that the model's logits are.

    Then logits are made only where there is loss. Some families scale or cap them afterwards; those take the long way.
    """
    ids = torch.arange(4, device=model.device).expand(runs, 4)
    states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return torch.equal(model.get_output_embeddings()(states), model(input_ids=ids, use_cache=False).logits)


@torch.no_grad()
def _rows_can_be_packed(model: PreTrainedModel, members: Sequence[Member], pad: int) -> bool:
    """Whether the model gives packed rows the states that it gives padded ones, tried on every run's first rows.

    Not where attention is another than ours, not where it has a window that the longest row does not fit in, and not
    where something else looks from one token to the next.
    """
    window = getattr(model.config, "sliding_window", None)
    longest = max(len(row.ids) for member in members for row in member.rows)
    if model.config._attn_implementation != ATTENTION or (window is not None and longest > window):
        return False
    rows = [member.rows[:2] for member in members]
    try:
        packed, padded = (_bearing(model, lay_out(rows, pad, packed=flag)) for flag in (True, False))
    except (TypeError, ValueError, RuntimeError, IndexError):  # a family that does not hand the packing on
        return False
    return torch.allclose(packed, padded, rtol=0.05, atol=0.05 * float(padded.std()))


def _bearing(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The decoder's last states of the tokens that bear loss, (tokens, features), fp32."""
    return _states(model, batch)[torch.nonzero(batch.loss, as_tuple=True)].float()


def _states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The decoder's last states, (rows, tokens, features)."""
    states: Tensor = model.get_decoder()(**batch.inputs()).last_hidden_state
    return states


def _narrow_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Of a narrow model, the last states before the tokens that bear loss, (tokens, features)."""
    states: Tensor = model.get_decoder()(**batch.inputs(), looked_at=batch.before).last_hidden_state
    return states[0, batch.real]


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
