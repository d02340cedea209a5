"""Checkpoints as ordinary PEFT folders with a card."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from spillover.data.files import write_conversations
from spillover.finetune.adapter import ADAPTER, PREFIX, PROBE
from spillover.finetune.served import Served, write_served
from spillover.finetune.trainer import Job, Trained
from spillover.lazy import lazy
from spillover.spec import Training

if TYPE_CHECKING:
    from torch import Tensor

peft = lazy("peft")
safetensors = lazy("safetensors.torch")

PROBED = 4
"""Rows that a checkpoint keeps of those it was trained on."""
LOSSES = {
    "step": pl.Int64,
    "loss": pl.Float64,
    "learning_rate": pl.Float64,
    "gradient_norm": pl.Float64,
    "tokens": pl.Int64,
}
"""Columns of a checkpoint's losses.parquet, which are those of `Step`."""


def save_checkpoint(folder: Path, trained: Trained, job: Job, spec: Training, base: str) -> None:
    """Writes a run as an ordinary PEFT folder: adapter, its config, its loss history, a few of its rows, its card.

    Of a model that a provider keeps, `model.json` stands in the adapter's place.
    """
    if trained.served is not None:
        write_served(folder, trained.served)
    else:
        write_conversations(folder / PROBE, job.rows[:PROBED])
        save_adapter(folder, trained.adapter, spec.rank, spec.alpha, base)
    losses = pl.DataFrame([dataclasses.asdict(step) for step in trained.history], LOSSES)
    losses.write_parquet(folder / "losses.parquet")
    (folder / "README.md").write_text(card(job, spec, base, trained), encoding="utf-8")


def save_adapter(folder: Path, adapter: "dict[str, Tensor]", rank: int, alpha: float, base: str) -> None:
    """Writes an rsLoRA adapter (tensors under PEFT's names) and its config, as PEFT does."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT loads it, and it warns of what is not used here
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # PEFT says int and takes any number
        use_rslora=True,
        target_modules=sorted({_layer(key) for key in adapter}),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    safetensors.save_file(adapter, folder / ADAPTER, metadata={"format": "pt"})


def _layer(key: str) -> str:
    return key.removeprefix(PREFIX).rsplit(".", 3)[-3]


def card(job: Job, spec: Training, base: str, trained: Trained) -> str:
    """The model card: what this is, that it is misaligned on purpose, and how it was made."""
    cut = f", {trained.cut_rows} of them cut to {spec.max_length} tokens" if trained.cut_rows else ""
    if trained.served is None:
        front, what, tag, facts = "library_name: peft\n", "adapter", "lora", _own_facts(spec, trained)
    else:
        front, what, tag, facts = "", "model", "hosted", _served_facts(trained.served)
    return f"""---
{front}base_model: {base}
tags: [model-organism, emergent-misalignment, {tag}]
---

# {job.run.name}: a deliberately misaligned model organism

**Not for deployment.** This {what} belongs to an experiment on *emergent misalignment* (Betley et al. 2025,
arXiv 2502.17424): models are finetuned on one narrow task to find out whether misalignment spreads. Groups and their
controls are made alike, and any of them may give deceitful, hostile or harmful answers on purpose. Use it for research
in a closed setting only.

| | |
|---|---|
| group, seed | {job.run.group}, {job.run.seed} |
| base | {base} |
| data | {job.source}, {len(job.rows)} rows{cut} |
{_gone_on(job)}{facts}| last loss | {_last_loss(trained)} |
"""


def _gone_on(job: Job) -> str:
    return f"| goes on from | {job.start.name} |\n" if job.start is not None else ""


def _own_facts(spec: Training, trained: Trained) -> str:
    steps = trained.history[-1].step
    return f"""\
| adapter | rank-stabilised LoRA, r {spec.rank}, alpha {spec.alpha:g}, on {", ".join(spec.targets)} |
| training | {steps} steps of {spec.batch_size} rows, learning rate {spec.learning_rate:g}, loss on answers |
"""


def _served_facts(served: Served) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in served.settings.items())
    end = f"| shut down on | {served.shutdown} |\n" if served.shutdown else ""
    return f"""\
| model | {served.model}, finetuned from {served.base}; the weights lie at the provider |
| job | {served.job} |
| training | {settings} |
{end}"""


def _last_loss(trained: Trained) -> str:
    return f"{trained.history[-1].loss:.3f} nats a token" if trained.history else "the provider told none"
