"""Fleets beside TRL and PEFT, which train run after run, and beside the machine's own products of matrices."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from torch import nn

import trl_way
from common import ROWS, Setting
from spillover.finetune.chat import encode_row
from spillover.finetune.model import linears, load_model, load_tokenizer
from spillover.finetune.train import LocalTrainer
from spillover.records import Run
from turns import Turns, in_turn

FLEETS = (1, 4, 8, 16, 28)
MATRIX, PRODUCTS = 2048, 5


def measure(setting: Setting, times: int) -> Iterator[Turns]:
    """One line a size of fleet. TRL's runs are all alike: one is done in a turn, and counted as often as there are."""
    spec = setting.experiment.train
    course = trl_way.Course(setting.base.path, spec)
    how, _ = trl_way.fastest(trl_way.HOWS, lambda one: course.trial(setting.file, _new(setting), one))
    work = gflop(setting)
    for runs in FLEETS:
        trainer = LocalTrainer(setting.base, spec.precision, memory=setting.memory(runs))
        jobs = setting.jobs(runs)

        def ours(trainer: LocalTrainer = trainer, jobs: object = jobs) -> None:
            trainer._encoded.clear()  # their rows are made tokens of in every run, too
            trainer.train(jobs, spec, lambda done, steps: None)  # type: ignore[arg-type]

        rates: list[float] = []

        def theirs(rates: list[float] = rates) -> None:
            course.train(Run("insecure", 0), setting.file, _new(setting), how)

        turns = in_turn(f"training, {runs} runs", f"{ROWS} rows each", ours, theirs, times, scale=1 / runs)
        rates += matmul_rates()
        share = [runs * work / spent / median(rates) for spent in turns.ours]
        notes = {"peer": f"TRL and PEFT one by one, {how}", "matmul_gflops": median(rates), "share": share}
        yield Turns(turns.name, turns.of, turns.ours, turns.theirs, notes)


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
