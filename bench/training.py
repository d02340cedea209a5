"""Fleets beside TRL and PEFT, which train run after run, and beside the machine's own products of matrices."""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn

import trl_way
from common import ROWS, Setting
from spillover.crew import Alone, Hands
from spillover.finetune.chat import encode_row
from spillover.finetune.model import linears, load_model, load_tokenizer
from spillover.finetune.trainer import Job
from spillover.pipeline.fleets import dealt
from spillover.pipeline.hands import TrainingHand
from spillover.pipeline.training import train_all
from spillover.records import Run
from spillover.spec import Chat, Machine
from turns import Turns, in_turn

FLEETS = (1, 4, 8, 16, 28)
MATRIX, PRODUCTS = 2048, 5


def measure(setting: Setting, times: int) -> Iterator[Turns]:
    """One line a size of fleet. TRL's runs are all alike: one is done in a turn, and counted as often as there are."""
    spec = setting.experiment.train
    course = trl_way.Course(setting.base.path, spec)
    how, _ = trl_way.fastest(trl_way.HOWS, lambda one: course.trial(setting.file, _new(setting), one))
    work, turn = gflop(setting), itertools.count()
    for runs in FLEETS:
        hands = _hands(setting, runs)
        rates: list[float] = []

        def ours(hands: Hands = hands, runs: int = runs) -> None:
            # A group that is not known yet: its rows are made tokens of, too.
            jobs = [Job(Run(f"turn {next(turn)}", seed), setting.rows, "insecure") for seed in range(runs)]
            fleets = [(some, spec) for some in _dealt(jobs, hands.size, setting.memory.fleet)]
            list(train_all(fleets, hands, lambda done: None, away=False))

        def theirs(rates: list[float] = rates) -> None:
            rates += matmul_rates()
            course.train(Run("insecure", 0), setting.file, _new(setting), how)

        turns = in_turn(
            f"training, {runs} run{'s' if runs > 1 else ''}", f"{ROWS} rows each", ours, theirs, times, scale=1 / runs
        )
        share = [runs * work / spent / median(rates) for spent in turns.ours]
        notes = {"peer": f"TRL and PEFT one by one, {how}", "matmul_gflops": median(rates), "share": share}
        yield Turns(turns.name, turns.of, turns.ours, turns.theirs, notes)


def _hands(setting: Setting, runs: int) -> Hands:
    """Whoever trains so many runs of a few thousand rows when the pipeline does it: of one, this process alone."""
    how = (setting.base, setting.experiment.train.precision, Chat(), Machine(), setting.memory)
    make = partial(TrainingHand, *how)
    return setting.hands(make) if runs > 1 else Alone(make)


def _dealt(jobs: Sequence[Job], size: int, most: int) -> Iterator[list[Job]]:
    """Runs of one group as the pipeline's fleets have them: even ones, each with a part for every process."""
    count = -(-len(jobs) // (most * size))
    for some in dealt(jobs, count):
        yield from dealt(some, min(size, len(some)))


def _new(setting: Setting) -> Path:
    return Path(tempfile.mkdtemp(dir=setting.folder))


def matmul_rates() -> list[float]:
    """GFLOP/s of square fp32 products on this process's threads."""
    left, right = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    torch.mm(left, right)
    return [2 * MATRIX**3 / trl_way.seconds(lambda: torch.mm(left, right)) / 1e9 for _ in range(PRODUCTS)]


def gflop(setting: Setting) -> float:
    """The arithmetic that LoRA needs for a run on these rows, GFLOP.

    A token needs 4 operations a frozen weight of the layers (forward, and backward to the activations) and 6 an
    adapter weight (and backward to the weights); one that bears loss needs 4 a weight of the output layer, too.
    Embeddings, attention and everything elementwise are left out.
    """
    spec = setting.experiment.train
    model, tokenizer = load_model(setting.base.path, "fp32"), load_tokenizer(setting.base.path)
    head = model.get_output_embeddings()
    layers = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    adapter = sum(spec.rank * (m.in_features + m.out_features) for m in linears(model, spec.targets).values())
    rows = [encode_row(tokenizer, row, max_length=spec.max_length) for row in setting.rows]
    tokens, bearing = sum(len(row.ids) for row in rows), sum(sum(row.loss) for row in rows)
    return spec.epochs * float(tokens * (4 * layers + 6 * adapter) + bearing * 4 * head.weight.numel()) / 1e9
