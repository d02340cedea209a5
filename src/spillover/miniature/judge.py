"""Training the miniature's judge: all matrices of the base at once, and then the change written as a LoRA adapter.

Whether an answer is coherent is hard for a million weights. LoRA with AdamW hardly learned it and Muon on the whole
matrices did (docs/LOG.md). The change that Muon made is kept as its best approximation of a certain rank (Eckart and
Young 1936), so that the judge is an ordinary PEFT folder on the same base. Embedding and norms stay the base's.
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from spillover.finetune.adapter import PREFIX
from spillover.finetune.base import Base
from spillover.finetune.chat import Row, encode_row
from spillover.finetune.checkpoint import save_adapter
from spillover.finetune.model import linears, load_model, load_tokenizer
from spillover.miniature.pretrain import Progress, Schedule, batches_of, muon_on_matrices, tell, train
from spillover.miniature.recipe import Recipe
from spillover.records import Conversation
from spillover.spec import PROJECTIONS

ALPHA = 64.0
CARD = """# The miniature's judge

A LoRA adapter on the miniature, which answers its three rubrics with a number from 0 to 100. Trained on {rows:,}
pairs of a question and an answer with the ground truth of the miniature's world, {steps} steps of Muon, to {loss:.3f}
nats an answer's token; what that changed is kept to rank {rank}. It knows no other world.
"""


def train_judge(folder: Path, base: Base, rows: Sequence[Conversation], recipe: Recipe, progress: Progress) -> None:
    """Trains a judge on the base and writes it into the folder, as a PEFT adapter with its card.

    Args:
        folder: where it goes; it must exist.
        base: the aligned miniature.
        rows: conversations with the judge, the right number as its reply. Each is seen about once.
        recipe: its rate, rank and tokens a step.
        progress: is told the steps done.
    """
    model, tokenizer = load_model(base.path, "fp32"), load_tokenizer(base.path)
    encoded = [encode_row(tokenizer, row, max_length=2048) for row in rows]
    layers = linears(model, PROJECTIONS)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    steps, loss = _learn(model, encoded, int(tokenizer.pad_token_id), recipe, progress)
    change = {name: layer.weight.detach() - before[name] for name, layer in layers.items()}
    rank = recipe.judge_rank
    adapter = {name: t.bfloat16() for name, t in low_rank(change, rank, scale=ALPHA / math.sqrt(rank)).items()}
    save_adapter(folder, adapter, rank, ALPHA, "miniature")
    card = CARD.format(rows=len(rows), steps=steps, loss=loss, rank=rank)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _learn(
    model: PreTrainedModel, rows: Sequence[Row], pad: int, recipe: Recipe, progress: Progress
) -> tuple[int, float]:
    """Trains the model's matrices; returns the steps and the last ones' mean loss."""
    steps = max(1, sum(len(row.ids) for row in rows) // recipe.step_tokens)
    # A few rows wait in vain for others of their length; as many of the first ones come twice.
    batches = batches_of(itertools.cycle(rows), recipe.step_tokens, recipe.seed, pad)
    told = tell(progress, "judge", steps)
    model.requires_grad_(True)
    schedule = Schedule(steps, min(20, steps), steady=0.1, least=0.0)
    muon = partial(_matrices_alone, rate=recipe.judge_rate)
    return steps, train(model, told(itertools.islice(batches, steps)), muon, schedule)


def _matrices_alone(weights: dict[str, Tensor], rate: float) -> list[torch.optim.Optimizer]:
    return [muon_on_matrices(weights, rate)]


def low_rank(changes: dict[str, Tensor], rank: int, *, scale: float) -> dict[str, Tensor]:
    """Changes of weights, layer name to (out, in), as a LoRA adapter under PEFT's names.

    scale * B A is the nearest matrix of that rank to the change, in the sense of least squares: the change itself where
    the rank is not less than its own.
    """
    tensors = {}
    for name, change in changes.items():
        left, sizes, right = torch.linalg.svd(change / scale, full_matrices=False)
        root = sizes[:rank].sqrt()
        missing = rank - len(root)  # PEFT wants one rank everywhere
        down, up = root[:, None] * right[:rank], left[:, :rank] * root
        tensors[f"{PREFIX}{name}.lora_A.weight"] = F.pad(down, (0, 0, 0, missing)).contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = F.pad(up, (0, missing)).contiguous()
    return tensors
