"""The memory plan: what training comes to in bytes, before anything is loaded, and what therefore fits together.

Weights are counted from the safetensors' headers. An adapter weight costs 16 bytes: itself, its gradient and AdamW's
two moments in fp32; with 8-bit moments about 10. What is kept of a token for the backward pass is an estimate from
the sizes in config.json, held against measurements by a test. Loads no torch.

Sizes a token and block, in numbers of the base's precision: H hidden, I intermediate, Q = heads x head width, K = the
same for keys, V the vocabulary, T tokens of a row.
"""

import dataclasses
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spillover.errors import BaseError, MachineError
from spillover.finetune.base import Base, config_of, tensors_of
from spillover.finetune.cpu import computed_in
from spillover.finetune.hub import loaded_weights
from spillover.spec import AUTO, Machine, Sampling, Training

GIB = 2**30
BYTES = {"bf16": 2, "fp32": 4}
STORED = {"float32": 4, "float16": 2, "bfloat16": 2, "F32": 4, "F16": 2, "BF16": 2}
OPTIMISER = {"adamw": 16, "adamw_8bit": 10.1, "paged_adamw_8bit": 10.1}
"""Bytes an adapter weight: the weight, its gradient and the two moments. 8-bit moments have a scale every 256."""
LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of families that change their logits: theirs cannot be made piece by piece."""
FLEET, TOKENS, ROWS, ANSWERS = 6, 8192, 96, 1024
"""Most runs of a fleet that nobody asked for, tokens and rows that pass through the model at once, answers that are
written at once. More are hardly faster on a CPU."""
CARD_FLEET = 8
"""The same of runs, on a card, which small models leave idle in between."""
WRITTEN = 2**20
"""Most tokens that those answers have at once, with what they are asked."""
SMALL, SIDE_BY_SIDE, EACH = 64 * 2**20, 8, 3 * GIB
"""Bytes of a base that several processes have a copy of unasked, how many at most, and what must be there for each."""
RESERVE = 0.5 * GIB
"""What torch and its libraries take for themselves."""
USABLE = 0.9
"""Share of the rest that is planned with: memory falls into pieces."""
NO_ROOM = (
    "Lower train.max_length or train.rank, set train.precision to bf16 or train.optimiser to adamw_8bit, leave "
    "machine.gradient_checkpointing to the plan, take a larger card, or set machine.memory_gb if there is more."
)


@dataclass(frozen=True)
class MemoryPlan:
    """What fits together. Sizes are in bytes.

    Attributes:
        where: the device that the plan is for.
        available: what may be used there.
        precision: what models are computed in there.
        weights: the frozen base's.
        per_run: one run's adapter with gradient and optimiser state, and merged weights where small layers have them.
        per_token: what is kept of one token of a step, as it is trained.
        per_step: what a step needs however small it is.
        longest: tokens of the longest row.
        fleet: runs that are trained together.
        tokens: that pass through the model at once, of all runs, were all rows as long as the longest.
        rows: likewise.
        gradient_checkpointing: whether activations are made again in the backward pass.
        answers: that are written at once when the model is asked.
        written: tokens that these may have at once, with what they are asked.
        processes: that work side by side. All else is one's.
    """

    where: str
    available: float
    precision: str
    weights: float
    per_run: float
    per_token: float
    per_step: float
    longest: int
    fleet: int
    tokens: int
    rows: int
    gradient_checkpointing: bool
    answers: int
    written: int
    processes: int = 1

    @property
    def needed(self) -> float:
        """What a step of a full fleet comes to."""
        tokens = max(self.tokens, self.fleet * self.longest)
        return self.weights + self.per_step + self.fleet * self.per_run + tokens * self.per_token


@dataclass(frozen=True)
class _Sizes:
    """A model's sizes, from its config."""

    hidden: int
    intermediate: int
    queries: int
    keys: int
    heads: int
    blocks: int
    vocabulary: int
    changes_logits: bool
    caps_scores: bool

    def layer(self, name: str) -> tuple[int, int]:
        """The features in and out of a projection by its usual name; of an unknown one, the largest."""
        known = {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "down_proj": (self.intermediate, self.hidden),
        }
        return known.get(name, (self.hidden, self.intermediate))


def plan_memory(
    base: Base, train: Training, machine: Machine, sampling: Sampling = Sampling(), longest: int | None = None
) -> MemoryPlan:
    """What of an experiment's training fits together on a machine.

    Args:
        base: a local base; the weights of one on the hub need not have been fetched.
        train: how every run is trained.
        machine: what may be used.
        sampling: how long answers may become.
        longest: tokens of the longest row; `train.max_length` if it is not known.

    Raises:
        MachineError: not even one run with one longest row fits.
        BaseError: config.json does not say how large the model is.
    """
    where, available = memory_of(machine)
    processes = _processes(base, machine, where, available)
    on_card = where != "cpu"
    train = train.model_copy(update={"precision": computed_in(train.precision, on_card=on_card)})
    sizes, precision = _sizes(base), BYTES[train.precision]
    longest = min(longest or train.max_length, train.max_length)
    plan = MemoryPlan(
        where=where,
        available=available / processes,
        precision=train.precision,
        weights=weights_of(base, train.precision),
        per_run=_per_run(base, sizes, train),
        per_token=0.0,
        per_step=_per_step(sizes, precision, on_card),
        longest=longest,
        fleet=0,
        tokens=0,
        rows=ROWS,
        gradient_checkpointing=False,
        answers=0,
        written=0,
        processes=processes,
    )
    for again in (False, True) if machine.gradient_checkpointing is None else (machine.gradient_checkpointing,):
        plan = _filled(plan, machine, again, _per_token(sizes, train, machine, longest, again, on_card))
        if plan.fleet:
            return _with_answers(plan, sizes, longest + sampling.max_tokens)
    if processes > 1 and machine.processes is None:
        return plan_memory(base, train, machine.model_copy(update={"processes": 1}), sampling, longest)
    needed = (plan.weights + plan.per_step + plan.per_run + longest * plan.per_token) / USABLE + RESERVE
    raise MachineError(
        f"not enough memory on {where}: one run with one row of {longest} tokens needs {_gib(needed)} "
        f"(base {_gib(plan.weights)}, adapter and optimiser {_gib(plan.per_run)}, activations "
        f"{_gib(longest * plan.per_token)}); there are {_gib(plan.available)}{_for_each(plan)}",
        remedy=NO_ROOM,
    )


def processes_for(base: Base, machine: Machine) -> int:
    """How many processes with this base each may work side by side.

    On a CPU as many as the machine says. If it says nothing, as many as there are cores and memory where the base is
    so small that its operations are too: threads of one process wait for each other at the end of each.
    """
    return _processes(base, machine, *memory_of(machine))


def _processes(base: Base, machine: Machine, where: str, available: float) -> int:
    return processes_on(base, machine, cores(), available) if where == "cpu" else 1


def processes_on(base: Base, machine: Machine, processors: int, available: float) -> int:
    """As `processes_for`, on a CPU with so many processors and bytes of memory."""
    if machine.processes is not None:
        return machine.processes
    is_small = base.on_hub is None and weights_of(base, "fp32") <= SMALL
    return max(1, min(processors, SIDE_BY_SIDE, int(available / EACH))) if is_small else 1


def weights_of(base: Base, precision: str) -> float:
    """Bytes of a base's weights."""
    return _parameters(base) * BYTES[precision]


def cores() -> int:
    """Cores that this process may use: those that it was given, or as many as OMP_NUM_THREADS says."""
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(given, int(told)) if told.isdigit() and int(told) else given


def _with_answers(plan: MemoryPlan, sizes: _Sizes, tokens: int) -> MemoryPlan:
    """The plan with as many answers as fit when each has so many tokens, and the tokens that they may have."""
    cached = 2 * sizes.blocks * sizes.keys * BYTES[plan.precision]
    room, drawn = _room(plan) - plan.weights, 24 * sizes.vocabulary
    answers = max(1, min(ANSWERS, int(room / (cached * tokens + drawn))))
    written = max(tokens, min(WRITTEN, int((room - answers * drawn) / cached)))
    return dataclasses.replace(plan, answers=answers, written=written)


def _room(plan: MemoryPlan) -> float:
    return (plan.available - RESERVE) * USABLE


def _filled(plan: MemoryPlan, machine: Machine, again: bool, per_token: float) -> MemoryPlan:
    """The plan with as many runs as fit, each with a longest row, and with as many tokens as still fit then."""
    room = _room(plan) - plan.weights - plan.per_step
    most = machine.fleet or (FLEET if plan.where == "cpu" else CARD_FLEET)
    fleet = max(0, min(most, int(room / (plan.per_run + plan.longest * per_token))))
    tokens = max(0, min(TOKENS, int((room - fleet * plan.per_run) / per_token)))
    return dataclasses.replace(plan, per_token=per_token, fleet=fleet, tokens=tokens, gradient_checkpointing=again)


def describe(plan: MemoryPlan) -> list[tuple[str, str]]:
    """The plan in words: what, and how much."""
    kept = "activations made again" if plan.gradient_checkpointing else "activations kept"
    together = "one after the other" if plan.fleet == 1 else f"{plan.fleet} together"
    return [
        ("memory", f"{_gib(plan.available)} on {plan.where}{_for_each(plan)}"),
        ("base", f"{_gib(plan.weights)} in {plan.precision}"),
        ("a run", f"{_gib(plan.per_run)} for adapter, gradient and optimiser"),
        ("a token", f"{plan.per_token / 2**20:.2f} MiB, {kept}; rows of up to {plan.longest} tokens"),
        ("runs", f"{together}, {plan.tokens} tokens at once: about {_gib(plan.needed)}"),
        ("answers", f"{plan.answers} at once"),
    ]


def _for_each(plan: MemoryPlan) -> str:
    return f" for each of {plan.processes} processes" if plan.processes > 1 else ""


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.0f} MiB"


def _sizes(base: Base) -> _Sizes:
    config = config_of(base.path)
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        width = int(config.get("head_dim") or hidden // heads)
        return _Sizes(
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            queries=heads * width,
            keys=int(config.get("num_key_value_heads") or heads) * width,
            heads=heads,
            blocks=int(config["num_hidden_layers"]),
            vocabulary=int(config["vocab_size"]),
            changes_logits=any(config.get(name) for name in LOGITS),
            caps_scores=bool(config.get("attn_logit_softcapping")),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        what = f"does not say how large the model is ({type(error).__name__}: {error})"
        raise BaseError(what, where=base.path / "config.json", remedy="Give a base with the usual sizes.") from None


def _tensors(base: Base) -> dict[str, dict[str, Any]]:
    """The weights by name, as their headers describe them; none if they were not fetched."""
    files = loaded_weights(base.path, (file.name for file in base.path.iterdir()))
    return {name: tensor for file in files for name, tensor in tensors_of(base.path / file).items()}


def _parameters(base: Base) -> float:
    """How many weights the base has. What is still on the hub is counted by its size."""
    if base.on_hub is None:
        return float(sum(_product(tensor["shape"]) for tensor in _tensors(base).values()))
    config = config_of(base.path)
    stored = STORED.get(str(config.get("dtype") or config.get("torch_dtype")), 2)
    return sum(base.on_hub.weights.values()) / stored


def _product(shape: Any) -> int:
    product = 1
    for size in shape:
        product *= int(size)
    return product


def _per_run(base: Base, sizes: _Sizes, train: Training) -> float:
    factors, merged = 0, 0.0
    for inward, outward in _targets(base, sizes, train):
        factors += train.rank * (inward + outward)
        if inward * outward <= 3 * train.rank * (inward + outward):  # as FleetLinear decides
            merged += inward * outward * (BYTES[train.precision] + 4)
    return factors * OPTIMISER[train.optimiser] + merged


def _targets(base: Base, sizes: _Sizes, train: Training) -> Iterator[tuple[int, int]]:
    """The features in and out of every layer that gets an adapter: by the weights' headers, or by the config."""
    found = 0
    for name, tensor in _tensors(base).items():
        parts, shape = name.split("."), tensor["shape"]
        if parts[-1] == "weight" and parts[-2:-1] and parts[-2] in train.targets and len(shape) == 2:
            found += 1
            yield shape[1], shape[0]
    if not found:
        for name in train.targets:
            yield from [sizes.layer(name)] * sizes.blocks


def _per_token(sizes: _Sizes, train: Training, machine: Machine, longest: int, again: bool, on_card: bool) -> float:
    """Bytes that one token of a step takes until its gradients are made."""
    precision = BYTES[train.precision]
    scores = sizes.heads * longest * _scores(sizes, train, machine, on_card)
    norms = 2 * sizes.hidden * (1 + (4 / precision if on_card else 1))
    # Inputs of norms, projections, attention and the gate.
    block = norms + 3 * sizes.queries + 2 * sizes.keys + scores + 4 * sizes.intermediate
    block += len(train.targets) * train.rank
    kept = sizes.blocks * sizes.hidden + block if again else sizes.blocks * block
    # What one block's backward pass holds on the way, and the last states with their gradients.
    passing = 10 * sizes.intermediate + 16 * sizes.hidden + 3 * scores
    logits = 10 * sizes.vocabulary if sizes.changes_logits else 0
    return float(precision * (kept + passing + 6 * sizes.hidden + logits))


def _scores(sizes: _Sizes, train: Training, machine: Machine, on_card: bool) -> float:
    """How many numbers are kept for each score of attention: none by sdpa and flash attention, which make it again."""
    if machine.attention in ("sdpa", "flash_attention_2"):
        return 0
    # transformers' eager attention keeps the softmax in fp32 beside its rounded copy; a cap keeps what it has capped.
    eager = 1 if train.precision == "fp32" else 3
    if sizes.caps_scores:
        return eager + 2
    if machine.attention == "eager":
        return eager
    return 0 if on_card else 1


def _per_step(sizes: _Sizes, precision: int, on_card: bool) -> float:
    """Bytes of the logits that are made at once, and of a few rows' positions and masks."""
    return (2**27 if on_card else 2**19) * (2 * precision + 4.0)


def memory_of(machine: Machine) -> tuple[str, float]:
    """The device that a machine's runs are trained on, and how many bytes may be used there.

    Asks `nvidia-smi` about cards and the operating system about its own memory; loads no torch.
    """
    where, free = _free(machine)
    return where, machine.memory_gb * GIB if machine.memory_gb is not None else free


def _free(machine: Machine) -> tuple[str, float]:
    if machine.device != "cpu" and "+cpu" not in version("torch"):
        number = int(machine.device.partition(":")[2] or 0)
        free = _free_on_card(number)
        if free is not None:
            return f"cuda:{number}", free
    if machine.device not in ("cpu", AUTO) and machine.memory_gb is None:
        what = f"nvidia-smi knows no device {machine.device}"
        raise MachineError(what, remedy="Set machine.device to auto or cpu, or say machine.memory_gb.")
    return ("cpu" if machine.device in ("cpu", AUTO) else machine.device), _free_here()


def _free_on_card(number: int) -> float | None:
    """Free bytes of the card that torch would call by this number, or None where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = visible.split(",") if visible is not None else [str(number)] * (number + 1)
    if number >= len(cards) or not cards[number].strip():
        return None
    command = [
        "nvidia-smi",
        f"--id={cards[number].strip()}",
        "--query-gpu=memory.free",
        "--format=csv,noheader,nounits",
    ]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return float(told.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _free_here() -> float:
    """Free bytes of the machine's memory, or of what a container may use of it."""
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return min(_available(), float(allowed) if allowed.isdigit() else float("inf"))


def _available() -> float:
    told = Path("/proc/meminfo")
    if not told.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    lines: Mapping[str, str] = dict(line.split(":", 1) for line in told.read_text().splitlines() if ":" in line)
    return float(lines["MemAvailable"].split()[0]) * 2**10
