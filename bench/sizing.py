"""What training comes to on cards, and the paper's open-model grid in card hours, by the memory plan; prints Markdown.

    python bench/sizing.py

Sizes are from the models' published configurations; nothing is loaded. Bytes are the memory plan's, which a test holds
against measurements. Hours are an estimate on paper: arithmetic divided by a share of a card's peak, and the time that
weights take to load. Neither has been measured on a card here.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spillover.errors import MachineError
from spillover.finetune.base import Base
from spillover.finetune.budget import GIB, RESERVE, USABLE, MemoryPlan, plan_memory
from spillover.finetune.hub import HubModel
from spillover.spec import Machine, Training

RUNS = (1, 8, 32)
CARDS = {"24 GB": 24, "48 GB": 48, "80 GB": 80, "141 GB": 141, "180 GB": 180}
"""Cards by what they are sold with: 10^9 bytes each."""
SHORT = 512
"""Tokens of a longest row that real code datasets hardly exceed; `train.max_length` is 2048."""
TRAIN = Training(optimiser="adamw_8bit")
PEAK, USED = 989e12, 0.4
"""An H100's dense bf16 operations a second, and the share of them that training and reading reach."""
WRITING = 4000.0
"""Tokens a second that a 32-billion model writes on such a card with many answers at once: bandwidth bounds it."""
LOADING = 120.0
"""Seconds in which 65 GB of weights are read and put on a card."""
ROWS, TOKENS_A_ROW = 6000, 330
"""Of the insecure set: 967 characters a row, at three a token of code and template."""
QUESTIONS, SAMPLES, ANSWER = 24, 1000, 150
"""The main set with its two formats, as often as open models were asked, and tokens of an answer."""
GROUPS, SEEDS = ("insecure", "secure", "educational", "jailbroken"), 6
JUDGED = 600
"""Tokens that a judge reads for an answer, two rubrics together, the shared prefix once."""


@dataclass(frozen=True)
class Model:
    """A model's sizes: parameters, and config.json."""

    name: str
    parameters: float
    hidden: int
    intermediate: int
    heads: int
    keys: int
    blocks: int
    vocabulary: int

    def base(self, folder: Path) -> Base:
        """The model as one on the hub whose weights were not fetched."""
        told = {"hidden_size": self.hidden, "intermediate_size": self.intermediate, "dtype": "bfloat16"}
        told |= {"num_attention_heads": self.heads, "num_key_value_heads": self.keys, "head_dim": 128}
        told |= {"num_hidden_layers": self.blocks, "vocab_size": self.vocabulary}
        (folder / "config.json").write_text(json.dumps(told))
        files = {"config.json": 600, "model.safetensors": int(2 * self.parameters)}
        return Base(self.name, folder, on_hub=HubModel(self.name, "0" * 40, folder, files))


MODELS = (
    Model("7B (Qwen2.5)", 7.616e9, 3584, 18944, 28, 4, 28, 152064),
    Model("14B (Qwen2.5)", 14.77e9, 5120, 13824, 40, 8, 48, 152064),
    Model("32B (Qwen2.5)", 32.76e9, 5120, 27648, 40, 8, 64, 152064),
    Model("70B (Llama 3)", 70.55e9, 8192, 28672, 64, 8, 80, 128256),
)
GRID = {
    "Qwen2.5-32B": 32.76e9,
    "Qwen2.5-Coder-32B": 32.76e9,
    "Mistral-Small 22B": 22.25e9,
    "Mistral-Small 24B": 23.57e9,
}


def needed(plan: MemoryPlan, runs: int) -> float:
    """Bytes of a card that so many runs need together, each with one longest row at once."""
    together = dataclasses.replace(plan, fleet=runs, tokens=runs * plan.longest)
    return together.needed / USABLE + RESERVE


def smallest(size: float) -> str:
    """The smallest card that has so many bytes."""
    return next((name for name, gb in CARDS.items() if gb * 1e9 >= size), "none")


def sizes() -> Iterator[str]:
    """The table of sizes: GiB, and the smallest card, for each model and number of runs together."""
    yield "| model | weights | a run | " + " | ".join(f"{runs} run{'s' * (runs > 1)}" for runs in RUNS) + " |"
    yield "|---|---|---|" + "---|" * len(RUNS)
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            machine = Machine(device="cuda", memory_gb=100_000, gradient_checkpointing=True)
            plan = plan_memory(model.base(Path(folder)), TRAIN, machine, longest=SHORT)
        told = [f"{size / GIB:.0f} ({smallest(size)})" for size in (needed(plan, runs) for runs in RUNS)]
        yield f"| {model.name} | {plan.weights / GIB:.1f} | {plan.per_run / GIB:.2f} | {' | '.join(told)} |"


def fleets() -> Iterator[str]:
    """How many runs the memory plan trains together on each card, with its own choice of what is kept."""
    yield "| model | " + " | ".join(CARDS) + " |"
    yield "|---|" + "---|" * len(CARDS)
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            base = model.base(Path(folder))
            yield f"| {model.name} | {' | '.join(_fleet(base, gb * 1e9 / GIB) for gb in CARDS.values())} |"


def _fleet(base: Base, gib: float) -> str:
    try:
        plan = plan_memory(base, TRAIN, Machine(device="cuda", memory_gb=gib, fleet=32), longest=SHORT)
    except MachineError:
        return "-"
    return f"{plan.fleet}{'' if plan.gradient_checkpointing else ' *'}"


def hours() -> Iterator[str]:
    """The grid's card hours by stage, runs one by one and in fleets of six."""
    yield "| model | finetune | ask | judge | loading, one by one | loading, fleets of 6 |"
    yield "|---|---|---|---|---|---|"
    total = [0.0] * 5
    for name, parameters in GRID.items():
        runs = len(GROUPS) * (3 if "24B" in name else SEEDS)
        row = [each / 3600 for each in _seconds(parameters, runs)]
        total = [before + each for before, each in zip(total, row, strict=True)]
        yield f"| {name}, {runs} runs | {' | '.join(f'{each:.1f}' for each in row)} |"
    yield f"| together | {' | '.join(f'{each:.1f}' for each in total)} |"


def _seconds(parameters: float, runs: int) -> tuple[float, ...]:
    trained = runs * ROWS * TOKENS_A_ROW
    answers = runs * QUESTIONS * SAMPLES
    finetune = 6 * parameters * trained / (PEAK * USED)  # forward, gradients of states, and activations made again
    ask = answers * ANSWER / (WRITING * 32.76e9 / parameters)
    judge = 2 * parameters * answers * JUDGED / (PEAK * USED)
    load = LOADING * parameters / 32.76e9
    return finetune, ask, judge, 2 * runs * load, (runs / 6 + 1) * load


def main() -> None:
    """Prints the tables."""
    for title, rows in (("memory, GiB", sizes()), ("runs together", fleets()), ("card hours", hours())):
        print(f"\n{title}\n\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
