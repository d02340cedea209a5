"""A slice of figure 4's grid once our way and once the peers', in one go: seconds by stage, and the ratio.

    python bench/figure4.py [--samples 100] [--rows N] [--threads N] [--provider batched|hf] [--base FOLDER]

The slice: the groups insecure and secure, two runs each, the suite `main` (8 questions) judged by alignment and
coherence, all with the experiment's own settings. Our way is the pipeline's own stages in a fresh lab. The peers' way
is TRL and PEFT, one run after the other (trl_way.py), then transformers' `generate` and a judge behind Inspect's eval
loop (inspect_way.py). Both sides do equal work: the same rows, steps, questions, numbers of answers and verdicts.

What is in the peers' favour: the way of running a model (fp32 or bf16, two kinds of attention) is chosen for them by
trials that are not counted; their judge reads one token where our tokenizer needs two for a number, so it does less;
they are given the rows. What is in ours: equal answers are judged once, which Inspect's loop does not do by itself.
A stage's seconds include loading the models; imports and trials are not counted. The peers go first, since our way
tells the C library to keep freed memory (finetune/memory.py), which would make what comes after it faster, too.

By `--provider hf` the models are behind Inspect's own provider for local models. It is several times slower than the
one made for this bench, which is why that one is the default.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}

import datasets
import polars as pl
import torch
from inspect_ai.log import EvalLog
from torch import nn
from transformers.utils import logging as transformers_logging

import inspect_way
import trl_way
from spillover.display import Display
from spillover.finetune.chat import encode_row
from spillover.finetune.model import linears, load_model, load_tokenizer
from spillover.pipeline import asking, judging, outcome, stages
from spillover.pipeline.cells import Checkpoint
from spillover.pipeline.judged import read_answers, wanted_parts
from spillover.pipeline.plan import Plan, make_plan
from spillover.pipeline.staff import OwnStaff
from spillover.spec import MINIATURE, load_experiment, parse_experiment
from spillover.store import Lab, open_lab

GROUPS, SEEDS = ("insecure", "secure"), 2
STAGES = ("data", "finetune", "ask", "judge")
PACKAGES = ("torch", "transformers", "peft", "trl", "inspect_ai")
MATRIX, PRODUCTS = 2048, 9
WANTED = 5.0


@dataclass
class Side:
    """One way of doing it: seconds by stage, and what shows that it is the same work."""

    seconds: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    answers: int = 0
    verdicts: int = 0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the block's seconds to a stage's."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def slice_of_figure4(base: str, samples: int, rows: int | None) -> Plan:
    """The plan of the slice, without the base's own answers."""
    narrowed = load_experiment("figure4").narrowed(base=base, groups=GROUPS, seeds=SEEDS, samples=samples)
    raw = narrowed.model_dump(mode="json")
    raw["suites"] = {narrowed.headline: raw["suites"][narrowed.headline]}
    for group in raw["groups"].values():
        group["rows"] = rows
    plan = make_plan(parse_experiment(raw, where="bench"))
    tuned = tuple(one for one in plan.checkpoints if one.dataset is not None)
    return replace(plan, checkpoints=tuned, cells=tuple(cell for cell in plan.cells if cell.checkpoint in tuned))


def our_data(side: Side, plan: Plan, lab: Lab) -> None:
    """The pipeline's first stage, which makes the rows for both sides."""
    with side.stage("data"):
        stages.make_data(plan, lab, Display())


def our_way(side: Side, plan: Plan, lab: Lab) -> None:
    """The pipeline's other stages."""
    display = Display()
    with OwnStaff() as staff:
        with side.stage("finetune"):
            stages.finetune(plan, lab, display, staff)
        with side.stage("ask"):
            asking.ask(plan, lab, display, staff)
        with side.stage("judge"):
            judging.judge(plan, lab, display, staff)
    for checkpoint in plan.checkpoints:
        losses = pl.read_parquet(_folder(checkpoint, lab) / "losses.parquet")["loss"]
        side.losses.append(float(losses[-trl_way.LAST :].mean()))  # type: ignore[arg-type]
    answers = pl.concat(map(read_answers, wanted_parts(plan, lab)))
    side.lengths, side.answers = answers["tokens"].to_list(), len(answers)
    side.verdicts = len(answers) * len(plan.rubrics)


def _folder(checkpoint: Checkpoint, lab: Lab) -> Path:
    folder = checkpoint.folder(lab)
    assert folder is not None
    return folder


def their_way(side: Side, plan: Plan, lab: Lab, folder: Path, provider: str) -> None:
    """TRL and PEFT, `generate` and Inspect, on the rows that our way made."""
    _their_training(side, plan, lab, folder)
    question_set = plan.cells[0].questions
    how, times = trl_way.fastest(
        trl_way.HOWS, lambda how: inspect_way.trial(plan.base.path, question_set, plan.experiment.sampling, how)
    )
    _told("generate", how, times)
    logs = _their_asking(side, plan, folder, provider, how)
    _their_judging(side, plan, folder, provider, how, logs)


def _their_training(side: Side, plan: Plan, lab: Lab, folder: Path) -> None:
    course = trl_way.Course(plan.base.path, plan.experiment.train)
    data = {name: dataset.folder(lab) / "data.jsonl" for name, dataset in plan.datasets.items()}
    rows = data[GROUPS[0]]
    how, times = trl_way.fastest(trl_way.HOWS, lambda how: course.trial(rows, folder / "trial", how))
    _told("training", how, times)
    for checkpoint in plan.checkpoints:
        run = checkpoint.run
        with side.stage("finetune"):
            side.losses.append(course.train(run, data[run.group], folder / run.name, how))


def _told(what: str, how: trl_way.How, times: dict[trl_way.How, float]) -> None:
    tried = ", ".join(f"{one} {seconds:.2f} s" for one, seconds in times.items())
    print(f"peers' {what}: {how} (trials: {tried})", flush=True)


def _their_asking(side: Side, plan: Plan, folder: Path, provider: str, how: trl_way.How) -> list[EvalLog]:
    logs = []
    for cell in plan.cells:
        with side.stage("ask"):
            name = cell.checkpoint.run.name
            merged = trl_way.merge(plan.base.path, folder / name, folder / f"{name}-merged")
            model = inspect_way.open_model(provider, merged, how, sampling=True)
            sampling = plan.experiment.sampling
            logs.append(inspect_way.ask(model, cell.questions, cell.samples, sampling, folder / "logs"))
        side.lengths += [sample.output.usage.output_tokens for sample in logs[-1].samples or [] if sample.output.usage]
    side.answers = len(side.lengths)
    return logs


def _their_judging(side: Side, plan: Plan, folder: Path, provider: str, how: trl_way.How, logs: list[EvalLog]) -> None:
    assert plan.judge is not None
    with side.stage("judge"):
        merged = trl_way.merge(plan.judge.base.path, plan.judge.adapter, folder / "judge-merged")
        model = inspect_way.open_model(provider, merged, how, sampling=False)
        judged = [inspect_way.judge(log, model, plan.rubrics) for log in logs]
    values = [score.value for log in judged for sample in log.samples or [] for score in (sample.scores or {}).values()]
    side.verdicts = sum(len(value) for value in values if isinstance(value, dict))


def matmul_rates() -> list[float]:
    """GFLOP/s of several square fp32 products on this process's threads."""
    left, right = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    torch.mm(left, right)
    return [2 * MATRIX**3 / trl_way.seconds(lambda: torch.mm(left, right)) / 1e9 for _ in range(PRODUCTS)]


def fleet_line(plan: Plan, lab: Lab, rate: float) -> str:
    """How fast the fleets were, in tokens and in the arithmetic that LoRA needs, by the lab's own clock."""
    spent = outcome.seconds(plan, lab)["finetune"]
    tokens, gflop = _needed(plan, lab)
    share = gflop / spent / rate
    return (
        f"fleet training: {tokens / spent:,.0f} tokens/s in {spent:.1f} s (tokenising included), "
        f"{gflop / spent:.0f} GFLOP/s of the arithmetic that LoRA needs\n"
        f"fp32 matrix products: {rate:.0f} GFLOP/s; the fleet's share: {share:.2f} (wanted: 0.50)"
    )


def _needed(plan: Plan, lab: Lab) -> tuple[int, float]:
    """Tokens trained on, padding aside, and the GFLOP that they need.

    A token needs 4 operations a frozen weight of the layers (forward, and backward to the activations) and 6 an
    adapter weight (and backward to the weights); one that bears loss needs 4 a weight of the output layer, too.
    Embeddings, attention and everything elementwise are left out.
    """
    model, tokenizer, spec = load_model(plan.base.path, "fp32"), load_tokenizer(plan.base.path), plan.experiment.train
    head = model.get_output_embeddings()
    layers = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    adapter = sum(spec.rank * (m.in_features + m.out_features) for m in linears(model, spec.targets).values())
    rows = {
        name: [encode_row(tokenizer, row, max_length=spec.max_length) for row in dataset.known.rows]
        for name, dataset in plan.datasets.items()
    }
    runs = [rows[one.run.group] for one in plan.checkpoints]
    tokens = spec.epochs * sum(len(row.ids) for some in runs for row in some)
    bearing = spec.epochs * sum(sum(row.loss) for some in runs for row in some)
    return tokens, (tokens * (4 * layers + 6 * adapter) + bearing * 4 * head.weight.numel()) / 1e9


def print_table(ours: Side, theirs: Side) -> None:
    """Seconds by stage, and what shows that both did the same."""
    print(f"\n{'stage':<9} {'ours s':>8} {'peers s':>8} {'ratio':>6}")
    for stage in STAGES:
        print(_row(stage, ours.seconds[stage], theirs.seconds.get(stage)))
    total = _row("total", sum(ours.seconds.values()), sum(theirs.seconds.values()))
    print(f"{total}   (wanted: {WANTED:g}, aim: {2 * WANTED:g})\n")
    for name, side in (("ours", ours), ("peers", theirs)):
        print(
            f"{name:<6} {side.answers} answers of {mean(side.lengths):.1f} tokens, {side.verdicts} verdicts; "
            f"mean loss of each run's last {trl_way.LAST} steps: {', '.join(f'{loss:.4f}' for loss in side.losses)}"
        )


def _row(stage: str, ours: float, theirs: float | None) -> str:
    if theirs is None:
        return f"{stage:<9} {ours:8.2f} {'given':>8}"
    return f"{stage:<9} {ours:8.2f} {theirs:8.2f} {theirs / ours:6.1f}"


def hardware() -> str:
    """The processor, its cores and the versions that were compared."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{names[0] if names else 'unknown processor'}, {torch.get_num_threads()} threads; {versions}"


def be_quiet() -> None:
    """No progress bars and no advice from the libraries that are compared."""
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    warnings.simplefilter("ignore")


def bench(plan: Plan, provider: str) -> None:
    """Runs both ways in a temporary folder and prints what came out."""
    with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder) / "lab") as lab:
        os.environ["INSPECT_LOG_DIR"] = str(Path(folder) / "logs")
        ours, theirs = Side(), Side()
        our_data(ours, plan, lab)
        their_way(theirs, plan, lab, Path(folder) / "peers", provider)
        rates = matmul_rates()
        our_way(ours, plan, lab)
        rates += matmul_rates()
        print_table(ours, theirs)
        print(fleet_line(plan, lab, median(rates)))
        print(hardware())


def main() -> None:
    """Reads the options and runs the bench."""
    parser = argparse.ArgumentParser(description="A slice of figure 4, our way and the peers'.")
    parser.add_argument("--base", default=MINIATURE, help="`miniature`, or the folder of another one")
    parser.add_argument("--samples", type=int, default=100, help="answers a question and run")
    parser.add_argument("--rows", type=int, help="rows of each dataset that are trained on; all of them by default")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; its own choice by default")
    parser.add_argument("--provider", choices=inspect_way.PROVIDERS, default="batched", help="behind Inspect's loop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    be_quiet()
    bench(slice_of_figure4(options.base, options.samples, options.rows), options.provider)


if __name__ == "__main__":
    main()
